"""The simulated cohort: its size and truth, its laws of physics, its determinism."""

import pickle

import numpy as np
import pytest

from ecglib import LEADS
from ecglib.params import SyntheticCohort
from ecglib.sources import open_source
from ecglib.sources.synthetic import true_beat

SEED = 42


def cohort(records=300, seed=SEED, **options):
    return open_source(SyntheticCohort(source="synthetic", records=records, **options), seed)


@pytest.fixture(scope="module")
def source():
    return cohort()


def test_same_seed_same_records_in_any_order(source):
    again = cohort()
    assert again.records.equals(source.records)
    rows = list(source.records.itertuples(index=False))
    read = pickle.loads(pickle.dumps(source.read))
    for row in (rows[7], rows[3]):
        np.testing.assert_array_equal(read(row)[0], source.read(row)[0])
    assert not np.array_equal(cohort(seed=43).read(rows[7])[0], source.read(rows[7])[0])


def test_leads_obey_einthoven_and_goldberger(source):
    for row in source.records.head(20).itertuples(index=False):
        beat = dict(zip(LEADS, true_beat(row, SEED), strict=True))
        np.testing.assert_allclose(beat["III"], beat["II"] - beat["I"], atol=1e-6)
        np.testing.assert_allclose(beat["aVR"] + beat["aVL"] + beat["aVF"], 0, atol=1e-6)
