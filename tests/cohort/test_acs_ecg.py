"""ACS-ECG, on a made-up folder: labels, layouts, every trap of the files, damage, download."""

import hashlib
import pickle
import shutil
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from web import served

from ecglib import download
from ecglib.beat import LEADS
from ecglib.cohort import acs_ecg
from ecglib.cohort.build import build_cohort, open_source
from ecglib.cohort.made_up import write
from ecglib.cohort.source import ReadError, SourceError
from ecglib.settings import AcsEcgCohort, Signal


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of 70 made-up ECGs, and the table of what is in it."""
    folder = tmp_path_factory.mktemp("acs") / "acs-ecg"
    return SimpleNamespace(folder=folder, table=write(folder, 70, 0.25))


def opened(folder, **options):
    settings = AcsEcgCohort(source="acs_ecg", **{"made_up": True} | options)
    return open_source(settings, 42, folder)


def unpacked(made, folder, layout="{}"):
    """The same without zips, its files where `layout` puts each zip's; only some of the ECGs."""
    for name in acs_ecg.ZIPS:
        with ZipFile(made.folder / f"{name}.zip") as archive:
            archive.extractall(folder / layout.format(name))
    shutil.copy(made.folder / acs_ecg.MADE_UP, folder)
    return folder


def of_trap(made, trap):
    return ("acs-" + made.table.ecg_row_record[made.table.trap == trap].str[:5]).tolist()


def stored(made, name):
    """An ECG's samples as they lie in the zip, and its header."""
    with ZipFile(made.folder / "ECG_row_data.zip") as archive:
        raw = np.frombuffer(archive.read(f"row_data/{name}.dat"), "<i2").reshape(-1, 12)
        return raw, archive.read(f"row_data/{name}.hea").decode()


# ---- labels and columns


def test_each_label_is_a_column_of_the_table(made):
    table = made.table[made.table.part == "train"].reset_index(drop=True)
    for label in ("omi", "ami", "stemi"):
        source = opened(made.folder, label=label)
        assert source.records.label.tolist() == table[label.upper()].tolist()
    source = opened(made.folder, label="nstemi_omi")
    assert len(source.records) == (table.STEMI == 0).sum() and not source.records.stemi.any()
    assert source.records.label.sum() == (table.OMI & (1 - table.STEMI)).sum() > 0


def test_a_label_by_angiography_is_no_proxy_and_a_made_up_one_is_synthetic():
    kinds = {
        label: AcsEcgCohort(source="acs_ecg", label=label).means.kind
        for label in ("omi", "nstemi_omi", "ami", "stemi")
    }
    assert kinds == {
        "omi": "angiographic", "nstemi_omi": "angiographic", "ami": "proxy", "stemi": "proxy",
    }  # fmt: skip
    assert AcsEcgCohort(source="acs_ecg", made_up=True).means.kind == "synthetic"


def test_columns_tell_what_angiography_found(made):
    records = opened(made.folder).records
    table = made.table[made.table.part == "train"].reset_index(drop=True)
    assert (records.file == table.ecg_row_record.str[:5]).all()
    assert records.file.str.fullmatch(r"\d{5}").all()
    assert (records.sex == np.where(table.gender == 1, "male", "female")).all()
    assert np.allclose(records.hours * 60, table.Time_Interval)
    for column in ("paced", "cto", "prior_pci"):
        assert (
            records[column] == table[{"paced": "Paced", "cto": "CTO"}.get(column, "Prior_PCI")]
        ).all()
    assert (records.presentation[table.STEMI == 1] == "STEMI").all()
    assert (records.culprit[table.OMI == 0] == "none").all()
    assert (records.culprit[(table.OMI & table.PLAD) == 1] == "LAD").all()


def table_of(**changes):
    """A table of one ECG, as read."""
    row = dict.fromkeys([*acs_ecg.OUTCOMES, *acs_ecg.SEGMENTS], 0)
    row |= {"Patient_id": "P1", "ecg_row_record": "00001.dat", "ecg_med_record": "00001.med"}
    row |= {"gender": 1, "age": 60, "Time_Interval": 90, "OMI": 1} | changes
    return pd.DataFrame([row])


@pytest.mark.parametrize(
    ("vessels", "culprit"),
    [
        ({}, "not named"),
        ({"DB": 2}, "LAD"),
        ({"OM": 1, "PLCX": 1}, "LCx"),
        ({"LM": 1, "PRCA": 1}, "several"),
        ({"OMI": 0, "AMI": 1, "PRCA": 1}, "none"),
    ],
)
def test_the_culprit_is_the_artery_of_an_omi(vessels, culprit):
    settings = AcsEcgCohort(source="acs_ecg", label="ami" if "AMI" in vessels else "omi")
    assert acs_ecg._select(table_of(**vessels), settings)[0].culprit.item() == culprit


def test_a_patient_who_is_given_both_sexes_has_none():
    table = pd.concat([table_of(), table_of(ecg_row_record="00002.dat", gender=0)])
    assert acs_ecg._select(table, AcsEcgCohort(source="acs_ecg"))[0].sex.isna().all()


def test_hours_to_angiography_can_be_bounded(made):
    every, early = opened(made.folder).records, opened(made.folder, max_hours=24).records
    assert early.hours.max() <= 24 and len(early) == (every.hours <= 24).sum() < len(every)


def test_the_published_counts_are_version_1_and_others_are_warned_of():
    n = acs_ecg.VERSION_1["ECGs"]
    train = pd.DataFrame(
        {name: np.arange(n) < acs_ecg.VERSION_1[name] for name in acs_ecg.OUTCOMES}
    )
    train["Patient_id"] = np.arange(n) % acs_ecg.VERSION_1["patients"]
    test = pd.DataFrame(index=range(1995))
    assert acs_ecg._version(train, test) == "1"
    with pytest.warns(
        UserWarning,
        match=r"\(its counts in parentheses\): patients 17,017 \(17,018\), OMI 1,150 \(1,151\)",
    ):
        train.loc[0, "OMI"], train["Patient_id"] = False, train.Patient_id.replace(5, 6)
        assert acs_ecg._version(train, test) == "not 1"


# ---- the traps


def test_headers_lie_and_are_not_believed(made):
    source = opened(made.folder)
    row = next(source.records.itertuples())
    raw, header = stored(made, row.file)
    line = header.splitlines()[1].split()
    assert int(line[5]) == raw[:, 0].max() and int(line[6]) == raw[:, 0].min()
    signal, rate = pickle.loads(pickle.dumps(source.read))(row)
    assert rate == 500 and signal.dtype == np.float32
    np.testing.assert_array_equal(signal, raw.T)  # 1 µV a unit
    assert (raw % 2 == 0).all() and signal.shape == (12, 5000)


def test_leads_are_found_by_name_and_gains_are_used(made):
    file = opened(made.folder).records.file[0]
    raw, header = stored(made, file)
    head, *lines = header.splitlines()
    turned = "\n".join([head, *lines[::-1]]).replace("1000(0)/mV", "500.0(10)/mV")
    signal, _ = acs_ecg.decode(file, turned, raw[:, ::-1].tobytes(), trusted=False)
    np.testing.assert_allclose(signal, (raw.T - 10.0) * 2)


def test_each_trap_leaves_what_it_should_in_the_cohort(made, tmp_path):
    source = opened(made.folder)
    assert source.counts["shorter than 10 s"]["ecgs"] == len(of_trap(made, "short")) == 2
    cohort = build_cohort(source, Signal(), tmp_path / "cohort")
    records = cohort.records.set_index("record_id")
    assert len(records) == (made.table.part == "train").sum()
    words = records.quality_reasons.str.split(";").explode().str.split(":").str[0]
    assert sorted(words.index[words == "bridged"]) == sorted(of_trap(made, "lost"))
    dead = words.index[words.isin(["rebuilt", "missing"])]
    assert len(of_trap(made, "constant")) == 2 and {*dead} == {*of_trap(made, "constant")}
    rows = {row.record_id: row for row in source.records.itertuples()}
    assert {source.read(rows[name])[0].shape for name in of_trap(made, "short")} == {(12, 3500)}
    assert np.isnan(source.read(rows[of_trap(made, "lost")[0]])[0]).sum() == 1
    assert records.groupby("patient_id").size().max() > 1
    assert cohort.info["label_kind"] == "synthetic"


@pytest.mark.parametrize("layout", [".", "{}"])
def test_an_unpacked_folder_gives_the_same(made, tmp_path, layout):
    zipped, plain = opened(made.folder), opened(unpacked(made, tmp_path, layout))
    assert (tmp_path / layout.format("ECG_row_data") / "row_data").is_dir()
    pd.testing.assert_frame_equal(zipped.records, plain.records)
    row = next(zipped.records.itertuples())
    np.testing.assert_array_equal(zipped.read(row)[0], plain.read(row)[0])


def test_tables_begin_with_a_byte_order_mark(made):
    with ZipFile(made.folder / "CSV.zip") as archive:
        assert archive.read("CSV/train.csv").startswith(b"\xef\xbb\xbfPatient_id")
    assert "P0" in opened(made.folder).records.patient_id[0]


# ---- released median beats


def test_released_beats_have_r_at_300(made, tmp_path):
    source = opened(made.folder, beats="released")
    cohort = build_cohort(source, Signal(), tmp_path / "cohort")
    assert cohort.records.r_at.between(198, 202).all() and not cohort.records.poor_quality.any()
    peaks = np.square(cohort.beats.astype(float)).sum(axis=1)[:, 270:331].argmax(axis=1) + 270
    assert np.abs(peaks - 300).max() <= 2
    raw = np.frombuffer(acs_ecg.contents(made.folder)[f"{source.records.file[0]}.med"][1](), "<i2")
    beat, r = cohort.beats[0].astype(float), cohort.records.r_at[0]
    shifted = raw.reshape(500, 12).T[:, r - 100 : r + 200]
    assert np.ptp(beat[:, 200:500] - shifted, axis=1).max() <= 1  # a level apart


def spike(at):
    """A released beat with its R at a sample, the next one's at its end, and no lead V6."""
    beat = np.zeros((500, 12), "<i2")
    beat[at - 6 : at + 7] = 1000
    beat[480:] = 2000
    beat[:, 11] = 4
    return beat.tobytes()


def test_what_a_released_beat_lacks_is_flagged():
    beat, rate, quality = acs_ecg.median_beat("00001", spike(100), 110)
    assert rate == 500 and beat.shape == (12, 600) and abs(quality["r_at"] - 100) <= 6
    lacking = 2 * (150 - quality["r_at"])
    assert quality["quality_reasons"] == f"padded:{lacking}_ms;flat:V6" and quality["poor_quality"]
    assert (beat[:, :200] == beat[:, :1]).all()
    fine = acs_ecg.median_beat("00001", spike(200), 210)[2]["quality_reasons"]
    assert fine == "flat:V6"


@pytest.mark.parametrize("data", [bytes(11_998), np.full(6000, -32768, "<i2").tobytes()])
def test_a_released_beat_of_another_size_or_without_values_is_refused(data):
    with pytest.raises(
        ReadError, match=rf"00001.med has {len(data):,} bytes; it must have 12,000 without"
    ):
        acs_ecg.median_beat("00001", data, 200)


# ---- without labels


def test_the_hidden_part_has_no_labels_and_becomes_a_cohort(made, tmp_path):
    source = opened(made.folder, part="test")
    assert source.records.label.isna().all() and "omi" not in source.records
    cohort = build_cohort(source, Signal(), tmp_path / "cohort")
    assert len(cohort.records) == (made.table.part == "test").sum() == cohort.info["counts"]["ecgs"]
    assert cohort.info["counts"]["positive_ecgs"] == 0 and cohort.records.label.isna().all()
    names = cohort.records.record_id
    pd.DataFrame({"record_id": names[:1]}).to_csv(cohort.folder / "rejected.csv")  # the last here
    probability = pd.Series(np.linspace(1, 0, len(names) - 1), names[:0:-1])
    sent = acs_ecg.submission(cohort, probability, probability.iloc[3]).reset_index()
    told = made.table[made.table.part == "test"].sort_values("ecg_row_record")
    assert sent.columns.tolist() == ["ecg_row_record", "ecg_med_record", "OMI"]
    assert sent.ecg_row_record.tolist() == told.ecg_row_record.tolist()
    assert sent.ecg_med_record.tolist() == told.ecg_med_record.tolist()
    assert {*("acs-" + sent.ecg_row_record[sent.OMI == 1].str[:5])} == {*names[-4:]}


# ---- damage


def changed(made, tmp_path, edit, part="train"):
    """A copy whose table is edited."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in made.folder.iterdir():
        if file.name != "CSV.zip":
            (folder / file.name).symlink_to(file)
    with ZipFile(made.folder / "CSV.zip") as archive:
        archive.extractall(folder)
    file = folder / "CSV" / f"{part}.csv"
    table = pd.read_csv(file, dtype=str, encoding="utf-8-sig")
    edit(table).to_csv(file, index=False)
    return folder


def put(column, value):
    return lambda table: table.assign(**{column: [value, *table[column][1:]]})


def test_a_damaged_table_is_refused(made, tmp_path):
    test = made.table[made.table.part == "test"].iloc[0]
    edits = {
        "lacks the column 'OMI'; download CSV.zip": lambda t: t.rename(columns={"OMI": "omi"}),
        f"{test.ecg_row_record} is in both train.csv and test": put(
            "ecg_row_record", test.ecg_row_record
        ),
        f"{test.Patient_id} is in both train.csv and test": put("Patient_id", test.Patient_id),
        "'age' has an invalid value in row 2": put("age", "old"),
        "'STEMI' has an invalid": put("STEMI", "3"),
        "'ecg_row_record' has an invalid": put("ecg_row_record", "4904.dat"),
        "'Patient_id' has an invalid": put("Patient_id", None),
        "lacks 2 of .* files, for example 99999.dat": put("ecg_row_record", "99999.dat"),
    }
    for i, (told, edit) in enumerate(edits.items()):
        place = tmp_path / str(i)
        place.mkdir()
        with pytest.raises(SourceError, match=told):
            opened(changed(made, place, edit))


def test_a_zip_that_is_cut_short_is_refused(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "cut")
    file = tmp_path / "cut" / "ECG_row_data.zip"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(SourceError, match=r"ECG_row_data.zip is cut short or not a zip"):
        opened(tmp_path / "cut")


def test_a_record_that_is_damaged_within_its_zip_is_told_from_others(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "spoilt")
    file, data = tmp_path / "spoilt" / "ECG_row_data.zip", None
    with ZipFile(file) as archive:
        row = next(opened(made.folder).records.itertuples())
        start = archive.getinfo(f"row_data/{row.file}.dat").header_offset + 2000
    data = bytearray(file.read_bytes())
    data[start : start + 50] = bytes(50)
    file.write_bytes(data)
    with pytest.raises(ReadError, match=rf"{row.file}.dat: the file can't be read"):
        opened(tmp_path / "spoilt").read(row)


def test_a_recording_of_another_size_or_form_is_refused(made):
    file = opened(made.folder).records.file[0]
    raw, header = stored(made, file)
    for told, text, data in (
        ("values, but the header gives 12 × 5000", header, raw.tobytes()[:-2]),
        ("120,000 values, but", header, raw.tobytes() * 2),
        ("the header doesn't have PTB-XL's", header.replace(" 16 ", " 80 "), raw.tobytes()),
        ("lead V6 is missing", header.replace("V6", "V7"), raw.tobytes()),
    ):
        with pytest.raises(ReadError, match=told):
            acs_ecg.decode(file, text, data, trusted=False)


def test_a_made_up_folder_is_never_taken_for_a_real_one(made, tmp_path):
    with pytest.raises(SourceError, match=r"was made by make-acs-ecg; set cohort.made_up: true"):
        opened(made.folder, made_up=False)
    shutil.copytree(made.folder, tmp_path / "bare", ignore=lambda *_: [acs_ecg.MADE_UP])
    with pytest.raises(SourceError, match=r"wasn't made by .*made_up: false"):
        opened(tmp_path / "bare")
    with pytest.raises(SourceError, match="exists; name a new folder"):
        write(made.folder, 70, 0.25)
    with pytest.raises(SourceError, match=r"has no train.csv; give the folder of ACS-ECG"):
        opened(tmp_path, made_up=False)


# ---- download


def test_zips_are_downloaded_once_and_verified(made, tmp_path, monkeypatch):
    zips = {}
    for name, (number, _) in acs_ecg.ZIPS.items():
        data = (made.folder / f"{name}.zip").read_bytes()
        zips[name] = number, hashlib.md5(data).hexdigest(), data
    monkeypatch.setattr(acs_ecg, "ZIPS", {name: told[:2] for name, told in zips.items()})
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    monkeypatch.setattr(acs_ecg, "TRIES", 2)
    settings, folder = AcsEcgCohort(source="acs_ecg"), tmp_path / "data"
    with served({number: data for number, _, data in zips.values()}) as server:
        monkeypatch.setattr(acs_ecg, "BASE_URL", server.url)
        server.cut = {zips["ECG_row_data"][0]}  # the first answer breaks off in its middle
        with pytest.warns(UserWarning, match="Not version 1 of ACS-ECG"):
            source = open_source(settings, 42, download_dir=folder)
        assert len(source.records) == (made.table.part == "train").sum()
        assert {file.name for file in folder.iterdir()} == {"CSV.zip", "ECG_row_data.zip"}
        asked = len(server.log)
        with pytest.warns(UserWarning, match="Not version 1"):
            open_source(settings, 42, download_dir=folder)
        assert len(server.log) == asked
        server.files[zips["CSV"][0]] = b"another file"
        with pytest.raises(SourceError, match=r"its MD5 differs from figshare's"):
            open_source(settings, 42, download_dir=tmp_path / "other")
        assert not (tmp_path / "other" / "CSV.zip").exists()


def test_leads_of_the_made_up_headers_are_ours(made):
    header = stored(made, opened(made.folder).records.file[0])[1]
    assert [line.split()[-1] for line in header.splitlines()[1:]] == list(LEADS)
