"""PTB-XL: labels, selection, reading, upsampling and download."""

import hashlib
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import wfdb
from scipy.signal import butter, sosfiltfilt
from web import served

from ecglib import download
from ecglib.beat import LEADS
from ecglib.cohort import ptbxl
from ecglib.cohort.build import open_source
from ecglib.cohort.source import ReadError, SourceError
from ecglib.settings import PtbxlCohort
from ecglib.study.params import load_study


def study(**options):
    return PtbxlCohort(source="ptbxl", **options)


def write_record(folder, name, raw, leads=LEADS, rate=100):
    """A WFDB record of PTB-XL's form: `raw` int16 (samples, leads), 1 µV a unit."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.astype("<i2").tofile(path.with_suffix(".dat"))
    lines = [f"{path.name} {len(leads)} {rate} {len(raw)}"]
    sums = raw.sum(axis=0, dtype=np.int64) % 65536
    lines += [
        f"{path.name}.dat 16 1000.0(0)/mV 16 0 {first} {checksum} 0 {lead.upper()}"
        for lead, first, checksum in zip(leads, raw[0], sums, strict=True)
    ]
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")


STATEMENTS = pd.DataFrame(
    {"diagnostic_class": ["NORM", "MI", "MI", "MI", "STTC"]},
    index=["NORM", "IMI", "AMI", "INJAS", "NDT"],
)


@pytest.fixture
def small(tmp_path):
    """Twelve ECGs of ten patients in PhysioNet's layout; ECGs 1, 2, 3 hold what the three labels
    look for.
    """
    rng = np.random.default_rng(1)
    n = 12
    table = pd.DataFrame(
        {
            "ecg_id": np.arange(1, n + 1),
            "patient_id": [1.0, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10, 10],
            "age": [50.0, 300, 61, 50, np.nan, 40, 30, 20, 70, 80, 89, 33],
            "sex": [0, 1] * 6,
            "site": [0.0, np.nan, *[2.0] * 10],
            "scp_codes": ["{'INJAS': 0.0}", "{'IMI': 100.0}", "{'AMI': 50.0}"]
            + ["{'NORM': 100.0}"] * 9,
            "infarction_stadium1": ["", "Stadium III", "Stadium I-II", *[""] * 9],
            "infarction_stadium2": [""] * n,
            "validated_by_human": [True] * 6 + [False] * 6,
            "strat_fold": np.arange(n) % 10 + 1,
            "filename_lr": [f"records100/00000/{i:05d}_lr" for i in range(1, n + 1)],
            "filename_hr": [f"records500/00000/{i:05d}_hr" for i in range(1, n + 1)],
        }
    )
    folder = tmp_path / "ptb-xl"
    for name in table.filename_lr:
        write_record(folder, name, rng.integers(-900, 900, (1000, 12)))
    table.to_csv(folder / "ptbxl_database.csv", index=False)
    STATEMENTS.to_csv(folder / "scp_statements.csv")
    return folder


def change(folder, edit, name="ptbxl_database.csv"):
    table = pd.read_csv(folder / name)
    edited = edit(table)
    (table if edited is None else edited).to_csv(folder / name, index=False)


def test_a_record_is_shown_from_its_file_of_500_hz_where_there_is_one(small):
    source = open_source(study(), 0, small)
    raw = np.random.default_rng(2).integers(-900, 900, (5000, 12))
    write_record(small, "records500/00000/00003_hr", raw, rate=500)
    row, signal, rate = source.finest(source.records[1:])
    assert row.record_id == "ptbxl-00003" and rate == 500
    np.testing.assert_array_equal(signal, raw.T)
    row, signal, rate = source.finest(source.records[3:])  # none of them has one
    assert row.record_id == "ptbxl-00004" and signal.shape == (12, 5000)


# ---- labels, columns, selection


def test_each_label_finds_what_it_is_defined_by(small):
    for label, positive in {"acute_mi": [1, 3], "acute_mi_strict": [3], "mi": [1, 2, 3]}.items():
        source = open_source(study(label=label), 42, small)
        assert source.records.record_id[source.records.label == 1].tolist() == [
            f"ptbxl-{i:05d}" for i in positive
        ]
        assert source.label_kind == "proxy" and "proxy" in source.label_meaning
        assert {"acute_mi", "acute_mi_strict", "mi"} <= set(source.records)


@pytest.mark.parametrize("column", ["infarction_stadium1", "infarction_stadium2"])
def test_stages_i_and_i_to_ii_are_acute_and_no_other(small, column):
    stages = ["Stadium I", "Stadium I-II", "Stadium II", "Stadium II-III", "Stadium III", "unknown"]
    empty = {"scp_codes": "{}", "infarction_stadium1": "", "infarction_stadium2": ""}
    change(small, lambda t: t.assign(**empty).assign(**{column: [*stages, *[""] * 6]}))
    records = ptbxl.read_tables(small, 100)[0]
    for label in ("acute_mi", "acute_mi_strict"):
        assert records[label].tolist() == [1, 1, *[0] * 10]


def test_columns_are_translated(small):
    records = open_source(study(), 42, small).records
    assert records.sex[:2].tolist() == ["male", "female"]
    assert records.age[1] == 90 and np.isnan(records.age[4])
    assert records.site[:3].tolist() == ["0", "unknown", "2"]
    assert records.patient_id[:4].tolist() == ["1", "2", "3", "1"]


@pytest.mark.parametrize(
    ("ages", "rows", "version"),
    [
        ([300.0], 21_799, "1.0.3"),
        ([93.0], 21_837, "1.0.1"),
        ([300.0], 12, "ages as in 1.0.3, 12 rows"),
        ([95.0], 12, "ages as in 1.0.1, 12 rows"),
        ([70.0], 12, "unknown, 12 rows"),
        ([70.0], 21_837, "unknown, 21,837 rows"),
    ],
)
def test_version_is_told_from_ages_and_rows(small, ages, rows, version):
    def resize(table):
        table = table.iloc[np.arange(rows) % len(table)].assign(ecg_id=np.arange(rows), age=50.0)
        return table.assign(age=[*ages, *[50.0] * (rows - 1)])

    change(small, resize)
    assert ptbxl.read_tables(small, 100)[1] == version


def test_a_list_of_records_gives_the_same_cohort_or_says_which_are_lacking(small, tmp_path):
    listed = tmp_path / "listed.csv"
    pd.DataFrame({"ecg_id": [9, 1, 3, 4, 99]}).to_csv(listed, index=False)
    source = open_source(study(records=str(listed)), 42, small)
    assert source.records.record_id.tolist() == [f"ptbxl-{i:05d}" for i in (1, 3, 4, 9)]
    assert source.counts["of the study's list"]["ecgs"] == 4
    reason = "is not in the table (version ages as in 1.0.3, 12 rows)"
    assert source.rejected.to_dict("records") == [{"record_id": "ptbxl-00099", "reason": reason}]

    # the other version of the same ECGs: more rows, and an age above 89 as it is
    change(small, lambda t: t.assign(age=t.age.replace(300, 93)))
    change(small, lambda t: pd.concat([t, t[-1:].assign(ecg_id=13)]))
    again = open_source(study(records=str(listed)), 42, small)
    pd.testing.assert_frame_equal(again.records, source.records)
    assert "version ages as in 1.0.1, 13 rows" in again.rejected.reason[0]

    listed.write_text("record\n1\n")
    with pytest.raises(SourceError, match=r"listed.csv is not a CSV file with a column ecg_id"):
        open_source(study(records=str(listed)), 42, small)


def test_all_of_a_download_makes_the_full_study(small):
    source = open_source(load_study("ptbxl_full").cohort, 42, small)
    assert len(source.records) == 12 and set(source.records.strat_fold) == set(range(1, 11))
    assert source.records.label.sum() == 2 and source.rejected.empty


def test_part_of_ptbxl_has_the_measured_counts(real_data):
    source = open_source(study(), 42, real_data / "ptb-xl")
    assert source.counts["with files"] == {
        "ecgs": 4635,
        "patients": 3875,
        "positive_ecgs": 401,
        "positive_patients": 343,
    }
    assert source.records.acute_mi_strict.sum() == 145
    positive = set(source.records.patient_id[source.records.label == 1])
    others = source.records[source.records.patient_id.isin(positive) & (source.records.label == 0)]
    assert (len(others), others.patient_id.nunique()) == (160, 104)
    # injury statements are of the class MI
    assert (source.records.acute_mi <= source.records.mi).mean() > 0.99
    assert source.version == "ages as in 1.0.1, 4,635 rows"


# ---- what is absent or wrong


def test_absent_records_stop_or_are_named(small):
    (small / "records100/00000/00005_lr.dat").unlink()
    with pytest.raises(SourceError, match=r"1 of 12 records.*00005_lr.dat.*allow_missing_records"):
        open_source(study(), 42, small)
    source = open_source(study(allow_missing_records=True), 42, small)
    assert source.rejected.to_dict("records") == [
        {"record_id": "ptbxl-00005", "reason": "records100/00000/00005_lr.dat is missing"}
    ]
    assert len(source.records) == source.counts["with files"]["ecgs"] == 11
    with pytest.raises(SourceError, match="12 of 12 records at 500 Hz"):
        open_source(study(sampling_rate=500), 42, small)
    with pytest.raises(SourceError, match="None of 0 selected"):
        open_source(study(sampling_rate=500, allow_missing_records=True), 42, small)


def test_no_positive_is_refused(small):
    change(small, lambda t: t.assign(scp_codes="{}", infarction_stadium1=""))
    with pytest.raises(
        SourceError, match=r"None of 12 selected ECGs is positive for cohort.label acute_mi"
    ):
        open_source(study(), 42, small)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda t: t.drop(columns="infarction_stadium1"), "infarction_stadium1"),
        (lambda t: t.iloc[:0], "ecg_id"),
        (lambda t: t.assign(ecg_id=1), "ecg_id"),
        (lambda t: t.assign(patient_id=np.nan), "patient_id"),
        (lambda t: t.assign(sex=2), "sex"),
        (lambda t: t.assign(age="old"), "age"),
        (lambda t: t.assign(strat_fold=0), "strat_fold"),
        (lambda t: t.assign(scp_codes="__import__('os')"), "scp_codes"),
        (lambda t: t.assign(scp_codes=np.nan), "scp_codes"),
        (lambda t: t.assign(filename_lr="../../etc/passwd"), "filename_lr"),
    ],
)
def test_a_wrong_column_is_named(small, edit, named):
    change(small, edit)
    with pytest.raises(SourceError, match=named) as error:
        open_source(study(), 42, small)
    assert "\n" not in str(error.value)


def test_absent_or_unreadable_tables_are_named(small, tmp_path):
    with pytest.raises(SourceError, match=r"has no ptbxl_database.csv"):
        open_source(study(), 42, tmp_path / "nowhere")
    (small / "scp_statements.csv").write_bytes(b"\xff\xfe\x00\x81,")
    with pytest.raises(SourceError, match=r"scp_statements.csv"):
        open_source(study(), 42, small)


# ---- reading


def test_leads_are_found_by_name(tmp_path):
    raw = np.random.default_rng(0).integers(-900, 900, (1000, 12))
    order = np.random.default_rng(1).permutation(12)
    write_record(tmp_path, "00001_lr", raw)
    write_record(tmp_path, "00002_lr", raw[:, order], leads=[LEADS[i] for i in order])
    straight, shuffled = (ptbxl.read_record(tmp_path / f"0000{i}_lr")[0] for i in (1, 2))
    np.testing.assert_array_equal(straight, raw.T)  # 1000 units per mV: one unit is 1 µV
    np.testing.assert_array_equal(shuffled, straight)
    write_record(tmp_path, "00003_lr", raw[:, :11], leads=LEADS[:11])
    with pytest.raises(ReadError, match="lead V6 is missing"):
        ptbxl.read_record(tmp_path / "00003_lr")


def test_damaged_records_are_refused(small):
    read = pickle.loads(pickle.dumps(open_source(study(), 42, small).read))
    row = SimpleNamespace(filename="records100/00000/00001_lr")
    signal, rate = read(row)
    assert signal.shape == (12, 5000) and signal.dtype == np.float32 and rate == 500
    data, header = (small / f"{row.filename}.{x}" for x in ("dat", "hea"))
    whole, text = bytearray(data.read_bytes()), header.read_text()
    changes = {
        "lead V3": (bytes(whole[:17]) + bytes([whole[16] ^ 1]) + bytes(whole[18:]), text),
        "11,999 values, but": (bytes(whole[:-2]), text),
        "the header doesn't": (bytes(whole), text[: len(text) // 2]),
        "the header doesn't have": (bytes(whole), ""),
        "gives 250 Hz, not 100 Hz": (bytes(whole), text.replace(" 100 ", " 250 ")),
        "gain of 0": (bytes(whole), text.replace("1000.0(0)", "0.0(0)")),
    }
    for message, (binary, lines) in changes.items():
        data.write_bytes(binary)
        header.write_text(lines)
        with pytest.raises(ReadError, match=message):
            read(row)
    data.unlink()
    with pytest.raises(ReadError, match=r"00001_lr.dat: the file can't be read"):
        read(row)


def test_values_equal_those_of_wfdb(real_data):
    for name in ("records100/00000/00249_lr", "records500/00000/00444_hr"):
        signal, rate = ptbxl.read_record(real_data / "ptb-xl" / name)
        record = wfdb.rdrecord(str(real_data / "ptb-xl" / name))
        assert rate == record.fs
        np.testing.assert_allclose(signal, record.p_signal.T * 1000, atol=1e-3)


def test_upsampled_records_are_in_time_with_the_native_ones(real_data):
    root = real_data / "ptb-xl"
    sos, errors = butter(4, 40, fs=500, output="sos"), []
    read = ptbxl.Reader(root, 100)
    for header in sorted((root / "records500").glob("*/*.hea")):
        row = SimpleNamespace(filename=f"records100/{header.parent.name}/{header.stem[:-3]}_lr")
        native = sosfiltfilt(sos, ptbxl.read_record(header.with_suffix(""))[0])
        raised = sosfiltfilt(sos, read(row)[0])
        errors.append(
            # µV
            [
                np.sqrt(np.mean((np.roll(raised, lag) - native)[:, 100:-100] ** 2))
                for lag in (-1, 0, 1)
            ]
        )
    errors = np.array(errors)
    assert len(errors) == 71
    assert (errors.argmin(axis=1) == 1).all()  # at lag 0 in every record
    assert np.median(errors[:, 1]) < 3 and errors[:, 1].max() < 6


def test_upsampling_delays_a_sine_by_1_25_ms():
    low, high = np.arange(1000) / 100, np.arange(5000) / 500
    for hz in (0.7, 5.0, 20.0, 35.0):
        raised = ptbxl.upsample(np.sin(2 * np.pi * hz * low)[None].astype(np.float32))[0]
        truth = np.sin(2 * np.pi * hz * (high - 0.00125))
        assert np.abs(raised - truth)[100:-100].max() < 0.02
    np.testing.assert_allclose(ptbxl.upsample(np.full((12, 100), 700, np.float32)), 700, rtol=1e-6)


# ---- download


@pytest.fixture
def server(small, monkeypatch, tmp_path):
    """PhysioNet stood in for by a local server over `small`; ``folder`` is to be completed."""
    files = {str(p.relative_to(small)): p.read_bytes() for p in small.rglob("*") if p.is_file()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in files.items())
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    with served(files | {"SHA256SUMS.txt": sums.encode()}) as state:
        monkeypatch.setattr(ptbxl, "BASE_URL", state.url)
        state.folder = tmp_path / "data/ptb-xl"
        yield state


def completed(folder, **options):
    return open_source(study(**options), 42, download_dir=folder)


def test_download_fetches_what_is_needed_once(server, small):
    listed = small / "listed.csv"
    listed.write_text("ecg_id\n" + "\n".join(map(str, range(1, 9))))
    source = completed(server.folder, records=str(listed))
    assert len(source.records) == 8
    fetched = {name for name, _ in server.log}
    assert fetched == {"SHA256SUMS.txt", "ptbxl_database.csv", "scp_statements.csv"} | {
        f"{name}.{ending}" for name in source.records.filename for ending in ("hea", "dat")
    }
    assert len(server.log) == len(fetched)
    local = open_source(study(records=str(listed)), 42, small)
    row = next(source.records.itertuples())
    np.testing.assert_array_equal(source.read(row)[0], local.read(row)[0])
    completed(server.folder, records=str(listed))
    assert len(server.log) == len(fetched)  # nothing is asked for again
    assert not list(server.folder.rglob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_gone_on_with(server, ranges):
    name = "records100/00000/00003_lr.dat"
    server.cut, server.ranges = {name, "ptbxl_database.csv"}, ranges
    completed(server.folder)
    asked = [first for file, first in server.log if file == name]
    assert len(asked) == 2 and asked[0] == 0
    assert (8_000 < asked[1] <= 12_000) if ranges else asked[1] == 0
    assert (server.folder / name).read_bytes() == server.files[name]


def test_an_interrupted_download_is_resumed_later(server, monkeypatch):
    name = "records100/00000/00003_lr.dat"
    server.cut = {name}
    monkeypatch.setattr(ptbxl, "TRIES", 1)
    with pytest.raises(
        SourceError, match=r"00003_lr.dat was not downloaded .*start again to resume it"
    ):
        completed(server.folder)
    assert not (server.folder / name).exists()
    there = (server.folder / f"{name}.part").stat().st_size
    assert 8_000 < there <= 12_000
    completed(server.folder)
    assert [first for file, first in server.log if file == name] == [0, there]


def test_a_part_that_was_spoilt_is_fetched_anew(server):
    name = "records100/00000/00002_lr.dat"
    part = server.folder / f"{name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(server.files[name]) + 5))
    completed(server.folder)
    assert (server.folder / name).read_bytes() == server.files[name]


def test_a_wrong_checksum_is_refused(server):
    name = "records100/00000/00002_lr.dat"
    server.files[name] = bytes(len(server.files[name]))
    with pytest.raises(
        SourceError,
        match=r"00002_lr.dat was not downloaded \(its SHA-256 differs from PhysioNet's\)",
    ):
        completed(server.folder)
    assert not (server.folder / name).exists() and not (server.folder / f"{name}.part").exists()


def test_what_the_server_lacks_is_named(server):
    name = "records100/00000/00002_lr.hea"
    del server.files[name]
    with pytest.raises(SourceError, match=r"00002_lr.hea was refused: 404"):
        completed(server.folder)
    assert server.log.count((name, 0)) == 1
    listing = server.folder / "SHA256SUMS.txt"
    listing.write_text("".join(x for x in listing.read_text().splitlines(True) if "00002" not in x))
    with pytest.raises(SourceError, match=r"doesn't list records100/00000/00002_lr.hea"):
        completed(server.folder)


def test_without_a_network_the_address_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(ptbxl, "BASE_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    with pytest.raises(SourceError, match=r"http://127.0.0.1:9/SHA256SUMS.txt was not downloaded"):
        completed(tmp_path)


def test_nothing_is_downloaded_into_the_users_own_folder(monkeypatch, small):
    monkeypatch.setattr(ptbxl, "fetch", lambda *_: pytest.fail("went to the network"))
    (small / "records100/00000/00005_lr.dat").unlink()
    with pytest.raises(SourceError, match=r"lacks 1 of 12 records"):
        open_source(study(), 42, small, small.parent / "other")
    with pytest.raises(SourceError, match=r"PTB-XL needs a folder; give data_dir"):
        open_source(study(), 42)
