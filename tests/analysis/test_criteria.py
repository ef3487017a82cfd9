"""ST elevation by its definition, and what is known without an ECG."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecglib.analysis import criteria
from ecglib.beat import LEADS


def levels(**uv):
    """ST levels of one ECG, 0 in leads that aren't named."""
    return np.array([[uv.get(lead, 0) for lead in LEADS]])


@pytest.mark.parametrize(
    ("uv", "age", "sex", "met"),
    [
        ({"II": 100, "aVF": 100}, 60, "male", True),
        ({"II": 100, "aVF": 99}, 60, "male", False),
        ({"I": 150, "V6": 150}, 60, "male", False),  # not contiguous
        ({"I": 100, "aVL": 100}, 60, "male", True),
        ({"V2": 200, "V3": 200}, 40, "male", True),
        ({"V2": 199, "V3": 200}, 40, "male", False),
        ({"V2": 200, "V3": 200}, 39, "male", False),
        ({"V2": 250, "V3": 250}, 39, "male", True),
        ({"V2": 150, "V3": 150}, 60, "female", True),
        ({"V3": 150, "V4": 100}, 60, "male", False),
        ({"V5": -300, "V6": -300}, 60, "male", False),
    ],
)
def test_two_contiguous_leads_must_reach_their_limits(uv, age, sex, met):
    told = criteria.meets_st_elevation(levels(**uv), np.array([age]), np.array([sex]))
    assert told.tolist() == [met]


def beats_with_st(uv):
    """Beats with a QRS complex, and ST of so many µV in V4 and V5; the last has no complex."""
    t, beats = np.arange(600), np.zeros((len(uv) + 1, 12, 600))
    beats[:-1] += 1200 * np.exp(-(((t - 300) / 8) ** 2))
    for i, level in enumerate(uv):
        beats[i, 9:11] += level * ((t > 318) & (t < 450))
    return beats.round().astype(np.int16)


def test_st_is_measured_at_j_against_the_onset_of_qrs():
    st = criteria.st_levels(beats_with_st([0, 150, -150]))
    assert np.abs(st[:3, :9]).max() < 30 and (st[3] == 0).all()
    np.testing.assert_allclose(st[:3, 9], [0, 150, -150], atol=40)


def test_what_is_known_without_an_ecg_stands_beside_st_elevation():
    n, rng = 240, np.random.default_rng(0)
    label = (np.arange(n) % 4 == 0).astype(int)
    records = pd.DataFrame({"record_id": np.arange(n).astype(str), "label": label})
    records = records.assign(patient_id=records.record_id, age=60.0, sex="male")
    records["hours"] = np.where(label, 5, 50) * np.exp(rng.normal(0, 0.1, n))
    beats = np.repeat(beats_with_st([0, 250]), [n, n, 0], axis=0)[np.arange(n) + n * label]
    cohort = SimpleNamespace(records=records, beats=beats)
    folds = pd.DataFrame({"record_id": records.record_id, "fold": np.arange(n) // 4 % 3})
    found = criteria.beside(cohort, folds, [0, 1], 0.95, draws=50).set_index(["model", "metric"])
    assert found.estimate[criteria.ST_ELEVATION, "sens"] == 1
    assert found.estimate[criteria.ST_ELEVATION, "spec"] == 1
    assert found.estimate["hours to angiography alone", "auc"] > 0.99
    assert found.estimate["age and sex alone", "auc"] == 0.5
    without = SimpleNamespace(records=records.drop(columns="hours"), beats=beats)
    found = criteria.beside(without, folds, [0], 0.95, draws=50)
    assert set(found.model) == {criteria.ST_ELEVATION, "age and sex alone"}
    assert criteria.RESULTS_OF_OTHERS.shape == (9, 10)
