import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecglib.folds import build_folds, receipt, rotate, twins
from ecglib.study.params import StudyError, load_study
from ecglib.study.places import PARAMS


def records_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(len(sizes)), sizes)
    positive = rng.permutation(len(sizes)) < max(10, len(sizes) // 8)
    label = (positive[patient] & (rng.random(len(patient)) < 0.7)).astype(int)
    label[np.flatnonzero(np.diff(patient, prepend=-1))] = positive.astype(int)
    return pd.DataFrame(
        {"record_id": [f"r{i}" for i in range(len(patient))], "patient_id": patient, "label": label}
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=80, max_size=200), st.integers(3, 10), st.integers(0, 99)
)
def test_patients_stay_together_and_every_record_is_tested_once(sizes, count, seed):
    records = records_of(sizes, seed)
    folds = build_folds(records, count, seed)
    assert (folds.record_id == records.record_id).all()
    assert folds.groupby(records.patient_id.to_numpy()).fold.nunique().max() == 1
    tested = np.concatenate([rotate(folds, k)["test"] for k in range(count)])
    validated = np.concatenate([rotate(folds, k)["validation"] for k in range(count)])
    assert sorted(tested) == sorted(validated) == list(range(len(records)))
    shares = (
        records.groupby("patient_id")
        .label.max()
        .groupby(folds.groupby(records.patient_id.to_numpy()).fold.first())
    )
    assert shares.sum().max() - shares.sum().min() <= 1, "positive patients are dealt evenly"
    table = receipt(records, folds, range(count))
    assert table.filter(like="shared").to_numpy().sum() == 0
    assert table[table.split == "test"].ECGs.sum() == len(records)


def test_rotation_tests_on_the_next_fold():
    folds = pd.DataFrame({"record_id": list("abcdefghij"), "fold": range(10)})
    assert rotate(folds, 3)["validation"] == [3] and rotate(folds, 3)["test"] == [4]
    assert rotate(folds, 9)["test"] == [0] and len(rotate(folds, 9)["train"]) == 8


def test_seed_decides():
    records = records_of([2] * 100)
    assert build_folds(records, 5, 1).equals(build_folds(records, 5, 1))
    assert not build_folds(records, 5, 1).equals(build_folds(records, 5, 2))


def test_a_leak_is_caught():
    records = records_of([2] * 100)
    folds = build_folds(records, 5, 0)
    folds.loc[0, "fold"] = (folds.fold[1] + 1) % 5  # patient 0 now has a record in two folds
    with pytest.raises(AssertionError, match="share patients"):
        receipt(records, folds, range(5))


def test_too_few_positives_are_refused():
    records = records_of([1] * 100).assign(label=0)
    records.loc[:3, "label"] = 1
    with pytest.raises(ValueError, match="5 folds need 5 positive patients, but there are 4"):
        build_folds(records, 5, 0)


def test_each_rotation_leaves_a_whole_site_out():
    records = records_of([2] * 300)
    records["site"] = np.where(
        records.patient_id < 150, "Harbour", np.where(records.patient_id < 250, "Hill", "unknown")
    )
    records.loc[1, "site"] = "Hill"  # the second ECG of a patient who first came to Harbour
    folds = build_folds(records, 10, 0, by="site")
    for rotation, size in ((0, 300), (1, 200)):
        splits = rotate(folds, rotation)
        assert len(splits["test"]) == size and set(records.patient_id.iloc[splits["test"]]) == set(
            range(150) if rotation == 0 else range(150, 250)
        )
        assert 0.08 < len(splits["validation"]) / (600 - size) < 0.15
        assert sum(map(len, splits.values())) == 600
    assert receipt(records, folds, (0, 1)).filter(like="shared").to_numpy().sum() == 0
    with pytest.raises(ValueError, match="only 2 can be left out"):
        rotate(folds, 2)


@pytest.mark.parametrize(
    ("folds", "told"),
    [
        ({"by": "site"}, "folds.rotations is missing"),
        ({"by": "site", "count": 9, "rotations": [9]}, "9 is not a rotation of 9 sites"),
        ({"by": "sites", "rotations": [0]}, "folds.by is 'sites'"),
        ({"count": "site", "rotations": [0]}, "folds.count is 'site'"),
    ],
)
def test_a_study_must_name_the_sites_that_it_leaves_out(tmp_path, folds, told):
    content = yaml.safe_load((PARAMS / "ptbxl_sites.yaml").read_text()) | {
        "name": "mistaken",
        "folds": folds,
    }
    (tmp_path / "mistaken.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError, match=told):
        load_study(tmp_path / "mistaken.yaml")


def test_a_beat_under_two_patients_is_caught():
    records = records_of([2] * 100)
    beats = np.random.default_rng(0).integers(-2000, 2000, (200, 12, 600)).astype(np.int16)
    folds = build_folds(records, 5, 0)
    table = receipt(records, folds, range(5), beats)
    assert table.filter(like="beats shared").to_numpy(float).max() == 0
    beats[1] = beats[0]  # the same patient's: no leak
    assert (twins(records, beats) == -1).all()
    other = np.flatnonzero(folds.fold != folds.fold[0])[0]
    beats[other] = beats[0]
    assert np.flatnonzero(twins(records, beats) >= 0).tolist() == [0, 1, other]
    with pytest.raises(AssertionError, match="share beats"):
        receipt(records, folds, range(5), beats)
