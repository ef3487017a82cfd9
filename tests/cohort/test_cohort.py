import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from saved_cohort import save_cohort

from ecglib.beat import LEADS
from ecglib.cohort import build, contract
from ecglib.cohort.build import open_source
from ecglib.cohort.source import ReadError
from ecglib.settings import Signal, SyntheticCohort

INFO = {
    "name": "made up",
    "version": "1",
    "label_kind": "synthetic",
    "label_meaning": "made up for a test",
}


def made_up(n=12):
    rng = np.random.default_rng(0)
    records = pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "site": "here",
            "age": 50.0,
            "sex": ["female", "female", "male", "male"] * (n // 4),
            "label": [1, 0, 0] * (n // 3),
            "poor_quality": False,
            "quality_reasons": "",
        }
    )
    return rng.integers(-2000, 2000, (n, 12, 600)).astype(np.int16), records


def test_saved_and_loaded(tmp_path):
    beats, records = made_up()
    saved = save_cohort(tmp_path / "c", beats, records, INFO)
    loaded = contract.load_cohort(tmp_path / "c", check_hashes=True)
    assert isinstance(loaded.beats, np.memmap) and (loaded.beats == beats).all()
    assert loaded.records.equals(records) and loaded.key == saved.key
    assert loaded.info["lead_order"] == list(LEADS) and loaded.info["counts"]["patients"] == 6


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: r.assign(record_id="same"), "record_id"),
        (lambda r: r.assign(label=2), "label"),
        (lambda r: r.assign(age=-3.0), "age"),
        (lambda r: r.assign(sex="x"), "sex"),
        (lambda r: r.drop(columns="site"), "site"),
        (lambda r: r.assign(patient_id="one"), "patient one is listed with two sexes"),
        (lambda r: r.iloc[:-1], "beats are"),
    ],
)
def test_records_that_break_the_contract_are_refused(tmp_path, spoil, says):
    beats, records = made_up()
    with pytest.raises(contract.CohortError, match=says):
        save_cohort(tmp_path / "c", beats, spoil(records), INFO)
    assert not (tmp_path / "c").exists()


def test_other_shapes_are_refused(tmp_path):
    beats, records = made_up()
    with pytest.raises(contract.CohortError, match="beats are"):
        save_cohort(tmp_path / "c", beats[:, :8], records, INFO)


def test_changed_files_are_noticed(tmp_path):
    beats, records = made_up()
    folder = save_cohort(tmp_path / "c", beats, records, INFO).folder
    data = bytearray((folder / "beats.npy").read_bytes())
    data[-1] ^= 1
    (folder / "beats.npy").write_bytes(data)
    with pytest.raises(contract.CohortError, match="not the file that was built"):
        contract.load_cohort(folder, check_hashes=True)
    (folder / "beats.npy").write_bytes(data[:-1000])
    with pytest.raises(contract.CohortError, match="damaged"):
        contract.load_cohort(folder)
    told = json.loads((folder / "cohort.json").read_text())
    told["lead_order"][0] = "MCL1"
    (folder / "cohort.json").write_text(json.dumps(told))
    with pytest.raises(contract.CohortError):
        contract.load_cohort(folder)
    (folder / "cohort.json").unlink()
    with pytest.raises(contract.CohortError, match=r"no cohort\.json"):
        contract.load_cohort(folder)


class Unreadable:
    """Wraps a source's `read`; every tenth recording can't be read."""

    def __init__(self, read):
        self.read = read

    def __call__(self, row):
        if row.Index % 10 == 0:
            raise ReadError(f"{row.record_id}: file is empty")
        return self.read(row)


def test_built_the_same_by_any_number_of_processes(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    source = dataclasses.replace(source, read=Unreadable(source.read))
    one = build.build_cohort(source, Signal(), tmp_path / "one", workers=1)
    two = build.build_cohort(source, Signal(), tmp_path / "two", workers=2)
    assert one.key == two.key
    assert len(one.records) == len(one.beats) == 72
    rejected = pd.read_csv(tmp_path / "one" / "rejected.csv")
    assert len(rejected) == 8 and rejected.reason.str.contains("file is empty").all()
    flow = contract.audit_table(one).sum(axis=1)
    assert flow["listed"] == 80 and flow["rejected: reading"] == 8 and flow["kept"] == 72
    assert np.abs(one.beats[:, :, 300]).max() > 300, "R peaks lie at sample 300"
    again = build.open_or_build(source, Signal(), tmp_path / "one")
    assert again.key == one.key
    changed = build.open_or_build(source, Signal(low_pass_hz=100), tmp_path / "one")
    assert changed.key != one.key, "other settings build it again"


def test_poor_quality_is_kept_flagged_or_dropped(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    built = {
        how: build.build_cohort(source, Signal(on_poor_quality=how), tmp_path / how)
        for how in ("keep", "flag", "drop")
    }
    poor = built["flag"].records.poor_quality
    assert 0 < poor.sum() < 80 == len(poor)
    assert not built["keep"].records.poor_quality.any(), "kept as if it were of good quality"
    assert built["keep"].records.quality_reasons.equals(built["flag"].records.quality_reasons)
    assert (
        built["drop"].records.record_id.tolist() == built["flag"].records.record_id[~poor].tolist()
    )
    dropped = pd.read_csv(tmp_path / "drop" / "rejected.csv")
    assert dropped.reason.str.startswith("poor quality: ").all() and len(dropped) == poor.sum()


def test_the_key_follows_beats_ids_patients_and_labels_alone(tmp_path):
    beats, records = made_up()
    key = save_cohort(tmp_path / "c", beats, records, INFO).key
    for number, same in enumerate([records.assign(lead_off=False), records.assign(age=51.0)]):
        assert save_cohort(tmp_path / f"same {number}", beats, same, INFO).key == key
    other = [
        (beats + 1, records),
        (beats, records.assign(label=1 - records.label)),
        (beats, records.assign(record_id="x" + records.record_id)),
        (beats, records.assign(patient_id="x" + records.patient_id)),
    ]
    for number, changed in enumerate(other):
        assert save_cohort(tmp_path / f"other {number}", *changed, INFO).key != key


def test_a_new_option_at_its_default_builds_no_cohort_again(tmp_path, monkeypatch):
    class Later(Signal):
        smooth: bool = False

    source = open_source(SyntheticCohort(source="synthetic", records=60), seed=3)
    built = build.open_or_build(source, Signal(), tmp_path / "c")
    written = (built.folder / "cohort.json").stat().st_mtime_ns
    build.open_or_build(source, Later(), tmp_path / "c")
    assert (built.folder / "cohort.json").stat().st_mtime_ns == written
    monkeypatch.setattr(build, "PROTOCOL", build.PROTOCOL + 1)
    build.open_or_build(source, Later(), tmp_path / "c")
    assert (built.folder / "cohort.json").stat().st_mtime_ns != written, "its protocol was raised"


def test_table_3_counts_patients_and_ecgs_apart():
    _, records = made_up()
    table = contract.describe(records, "site")
    assert table.ECGs["total"] == 12 and table.patients["total"] == 6
    assert table["positive ECGs"]["here"] == "4 (33.3%)"
    assert table["positive patients"]["here"] == "4 (66.7%)"
    assert table.female["total"] == "3 (50%)"


def test_small_sites_share_a_row():
    sites = pd.Series(["a"] * 20 + ["b"] * 19 + ["c"])
    found = contract.small_as_one(sites).value_counts()
    assert dict(found) == {"a": 20, "sites under 20 ECGs: 2": 20}


class Copied:
    """Wraps a source's `read`; the second recording is the first, under another patient."""

    def __init__(self, read, records):
        self.read, self.first = read, next(records.itertuples())

    def __call__(self, row):
        return self.read(self.first if row.Index == 1 else row)


def test_a_beat_under_two_patients_is_set_apart_or_kept(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    assert source.records.patient_id[0] != source.records.patient_id[1]
    source = dataclasses.replace(source, read=Copied(source.read, source.records))
    apart = build.build_cohort(source, Signal(), tmp_path / "apart")
    assert len(apart.records) == len(apart.beats) == 78
    told = pd.read_csv(apart.folder / "rejected.csv")
    assert told.record_id.tolist() == source.records.record_id[:2].tolist()
    assert told.reason.str.endswith("the same beat under another patient").all()
    assert contract.audit_table(apart).sum(axis=1)["rejected: duplicate"] == 2
    assert apart.info["counts"]["rejected"] == 2
    kept = build.build_cohort(
        dataclasses.replace(source, duplicates="keep"), Signal(), tmp_path / "kept"
    )
    assert len(kept.records) == 80 and (kept.beats[0] == kept.beats[1]).all()
    assert (kept.beats[2:] == apart.beats).all()


class Damaged:
    """Wraps a source's `read`: a gap, an absent lead, a flat lead, no signal, no file."""

    def __init__(self, read):
        self.read = read

    def __call__(self, row):
        signal, rate = self.read(row)
        signal = np.array(signal)
        if row.Index == 0:
            signal[7, 1000:1010] = np.nan
        elif row.Index in (1, 2):
            signal[8] = np.nan if row.Index == 1 else 0
        elif row.Index == 3:
            signal[6] = np.nan
        elif row.Index == 4:
            signal[:] = 0
        elif row.Index == 5:
            raise ReadError(f"{row.record_id}: file is empty")
        return signal, rate


def test_a_source_of_one_beat_under_many_patients_is_refused(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    beat = source.read(next(source.records.itertuples()))
    source = dataclasses.replace(source, read=lambda row: beat, records=source.records[:6])
    with pytest.raises(contract.CohortError, match="the same beat under another patient"):
        build.build_cohort(source, Signal(), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_audit_counts_each_step_for_positives_and_negatives(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    plain = contract.audit_table(build.build_cohort(source, Signal(), tmp_path / "plain"))
    source = dataclasses.replace(source, read=Damaged(source.read))
    built = build.build_cohort(source, Signal(), tmp_path / "built")
    table, positive = contract.audit_table(built), source.records.label == 1
    assert (table.loc["listed"] == [positive.sum(), (~positive).sum(), 0]).all()
    for step, places in (
        ("bridged", [0]),
        ("rebuilt", [1, 2]),
        ("… missing", [3]),
        ("rejected: median beat", [4]),
        ("rejected: reading", [5]),
    ):
        before = plain.loc[step] if step in plain.index else 0
        expected = [positive[places].sum(), (~positive[places]).sum(), 0]
        assert (table.loc[step] - before == expected).all(), step
    assert table.loc["kept"].sum() == 78


def test_the_band_of_the_beats_is_the_narrowest(tmp_path):
    source = open_source(SyntheticCohort(source="synthetic", records=80), seed=3)
    built = build.build_cohort(source, Signal(), tmp_path / "wide")
    assert built.info["band_hz"] == 150 and (built.records.band_hz == 150).all()

    class Mixed:
        def __call__(self, row):
            signal, rate = read(row)
            return (signal[:, ::4], rate / 4) if row.Index == 7 else (signal, rate)

    read = source.read
    mixed = dataclasses.replace(source, read=Mixed())
    told = build.build_cohort(mixed, Signal(low_pass_hz=100), tmp_path / "mixed")
    assert told.info["band_hz"] == 62.5 and told.records.band_hz.max() == 100
