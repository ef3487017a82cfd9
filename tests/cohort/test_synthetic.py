"""The simulated cohort: its size and truth, its laws of physics, its determinism, its likeness to
an ECG.
"""

import pickle
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ecglib.beat import LEADS, R_SAMPLE
from ecglib.cohort.build import open_source
from ecglib.cohort.synthetic import draw_cohort, heart_of, true_beat
from ecglib.settings import Signal, SyntheticCohort
from ecglib.signal import process

SEED = 42
V = {lead: i for i, lead in enumerate(LEADS)}


def cohort(records=300, seed=SEED, **options):
    return open_source(SyntheticCohort(source="synthetic", records=records, **options), seed)


def table(records, **options):
    settings = SyntheticCohort(source="synthetic", records=records, **options)
    return draw_cohort(settings, np.random.default_rng(SEED))


@pytest.fixture(scope="module")
def source():
    return cohort(subtle=0.5, prevalence=0.3)


@pytest.fixture(scope="module")
def rows(source):
    return list(source.records.itertuples(index=False, name="Record"))


def sum_of_part(start):
    """Fingerprint of the first ECGs, computed in another process."""
    source = cohort(60)
    rows = list(source.records.itertuples(index=False))
    return [float(np.nansum(np.abs(source.read(row)[0]))) for row in rows[start : start + 3]]


def test_same_seed_same_records_whatever_reads_them(source, rows):
    assert cohort(subtle=0.5, prevalence=0.3).records.equals(source.records)
    assert not cohort(seed=43, subtle=0.5, prevalence=0.3).records.equals(source.records)
    read = pickle.loads(pickle.dumps(source.read))
    for row in (rows[7], rows[3]):
        np.testing.assert_array_equal(read(row)[0], source.read(row)[0])
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        apart = [*pool.map(sum_of_part, (3, 0))]
    assert apart == [sum_of_part(3), sum_of_part(0)]


def test_size_of_the_paper():
    records = table(10893)
    patients = records.drop_duplicates("patient_id")
    assert records.site.value_counts().to_dict() == {"B (simulated)": 5805, "A (simulated)": 5088}
    assert patients.site.value_counts().to_dict() == {"A (simulated)": 4127, "B (simulated)": 3170}
    assert patients.groupby("site").label.sum().to_dict() == {
        "A (simulated)": 261,
        "B (simulated)": 217,
    }
    assert records.label.sum() == 956
    assert (patients[patients.sex == "female"].site.value_counts().to_dict()) == {
        "A (simulated)": 1937,
        "B (simulated)": 1400,
    }
    assert patients.groupby("site").age.mean().to_dict() == pytest.approx(
        {"A (simulated)": 59, "B (simulated)": 60}, abs=1
    )
    assert patients.age.std() == pytest.approx(16, abs=1)
    assert (records.patient_id.value_counts() == 1).sum() == pytest.approx(3357 + 1588, abs=10)
    assert patients.subtle.sum() / 478 == pytest.approx(0.67, abs=0.06)
    assert (
        records.groupby("patient_id")[["label", "sex", "age", "culprit", "mimic"]]
        .nunique()
        .eq(1)
        .all(axis=None)
    )


@hypothesis_settings(max_examples=12, deadline=None)
@given(st.integers(60, 2500), st.one_of(st.none(), st.floats(0.05, 0.5)))
def test_any_size_by_one_number(size, prevalence):
    records = table(size, prevalence=prevalence)
    assert len(records) == size and records.record_id.is_unique
    # Three positive patients a site at least, so that small cohorts can be split.
    assert records[records.label == 1].groupby("site").patient_id.nunique().min() >= 3
    if size > 600:
        assert records.label.mean() == pytest.approx(prevalence or 956 / 10893, abs=0.02)


def test_truth_says_what_the_beat_shows(rows):
    for row in rows[:60]:
        beat, injury = true_beat(row, SEED), heart_of(row, SEED).leads("injury")
        on, j80 = (R_SAMPLE + round(ms / 2) for ms in (row.qrs_on, row.qrs_off + 80))
        told = np.array([getattr(row, f"st80_{lead}") for lead in LEADS])
        if row.heart_rate < 90:  # else the neighbouring beat may reach into the baseline
            np.testing.assert_allclose(beat[:, j80] - beat[:, on], told, atol=0.06)
        assert np.square(beat[:, 200:420]).sum(0).argmax() + 200 == R_SAMPLE or row.label == 1
        outside = np.r_[0 : row.window_start, row.window_end : 600]
        np.testing.assert_allclose(injury[:, outside], 0, atol=1e-5)
        affected = [lead for lead in row.affected_leads.split(";") if lead]
        assert bool(affected) == (row.label == 1) == (row.window_end > row.window_start)
        size = dict(zip(LEADS, np.abs(injury[:, j80]), strict=True))
        assert all(size[lead] >= max(size.values()) / 2 for lead in affected)


def test_severity_alone_makes_the_counterfactual(rows):
    row = next(r for r in rows if r.culprit == "LAD" and r.severity > 0.6)
    healthy = heart_of(row._replace(severity=0.0), SEED)
    ill = heart_of(row, SEED)
    np.testing.assert_array_equal(healthy.torso, ill.torso)
    for kinds in (("P",), ("T",), ("ST",)):
        np.testing.assert_allclose(
            healthy.leads(*kinds).max(1), ill.leads(*kinds).max(1), rtol=0.02, atol=1
        )
    assert not healthy.leads("injury").any()


def test_culprits_elevate_their_wall_and_depress_the_opposite_one(source):
    ill = source.records[(source.records.label == 1)]
    mean = dict.fromkeys(("LAD", "RCA", "LCx"), 0)
    for row in ill.itertuples(index=False):
        mean[row.culprit] = mean[row.culprit] + heart_of(row, SEED).leads("injury")[
            :, row.window_start : row.window_end
        ].mean(1)
    assert np.isin(np.argsort(mean["LAD"])[-3:], [V["V2"], V["V3"], V["V4"]]).all()
    assert (
        mean["RCA"][V["III"]]
        > mean["RCA"][V["II"]]
        > 0
        > mean["RCA"][V["I"]]
        > mean["RCA"][V["aVL"]]
    )
    assert mean["LCx"][V["V6"]] > 0 > mean["LCx"][[V["V1"], V["V2"]]].max()


def test_healthy_beats_look_like_an_ecg(source):
    records = source.records
    records = records[
        (records.mimic == "none") & (records.label == 0) & (records.rhythm == "sinus")
    ]
    beats = np.array([true_beat(row, SEED) for row in records.itertuples(index=False)])
    r, s = beats[:, :, 275:330].max(2), beats[:, :, 275:330].min(2)
    t = beats[:, :, 400:460].mean(2)
    median = np.median(r, 0)
    assert list(median[6:10]) == sorted(median[6:10])  # R grows from V1 to V4
    assert (
        np.median(r[:, V["V1"]] / -s[:, V["V1"]]) < 0.6
        and np.median(r[:, V["V6"]] / -s[:, V["V6"]]) > 3
    )
    assert (t[:, [V["II"], V["V4"], V["V5"]]] > 0).mean() > 0.9 and (
        t[:, V["aVR"]] < 0
    ).mean() > 0.9
    assert records.qrs_ms.between(80, 120).all() and records.pr_ms.between(90, 230).all()
    assert records.qrs_axis.between(-45, 110).mean() > 0.9
    qtc = records.qt_ms + 1.75 * (records.heart_rate - 60)
    assert qtc.mean() == pytest.approx(420, abs=15)  # as the model says: 420 ms at 60 a minute


def test_bundle_branch_block_and_pacing_are_wide(source):
    records = source.records
    wide = records.mimic.isin(["LBBB", "RBBB"]) | (records.rhythm == "ventricular pacing")
    assert wide.any() and (records.qrs_ms[wide] >= 112).all()
    assert records.pr_ms.isna().equals(
        records.rhythm.isin(["atrial fibrillation", "ventricular pacing"])
    )


def test_leads_obey_einthoven_and_goldberger(source, rows):
    for row in rows[:20]:
        beat = dict(zip(LEADS, true_beat(row, SEED), strict=True))
        np.testing.assert_allclose(beat["III"], beat["II"] - beat["I"], atol=1e-6)
        np.testing.assert_allclose(beat["aVR"] + beat["aVL"] + beat["aVF"], 0, atol=1e-6)
        signal, _ = source.read(row._replace(disturbance="none"))
        np.testing.assert_allclose(signal[V["III"]], signal[V["II"]] - signal[V["I"]], atol=7.51)


def test_a_recording_is_what_a_device_stores(source, rows):
    signal, rate = source.read(rows[0]._replace(disturbance="none"))
    assert signal.shape == (12, 5000) and signal.dtype == np.float32 and rate == 500.0
    assert not (signal % 5).any() and 300 < np.abs(signal).max() < 6000


def test_disturbances_do_what_they_say(source, rows):
    row = rows[5]._replace(rhythm="sinus", mimic="none")
    good, swapped, clipped, missing, noisy = (
        source.read(row._replace(disturbance=d))[0]
        for d in ("none", "arm electrodes swapped", "clipped", "lead missing", "muscle noise")
    )
    np.testing.assert_array_equal(swapped[V["I"]], -good[V["I"]])
    np.testing.assert_array_equal(swapped[V["II"]], good[V["III"]])
    np.testing.assert_array_equal(swapped[V["aVR"]], good[V["aVL"]])
    np.testing.assert_array_equal(swapped[6:], good[6:])
    limit = np.abs(clipped).max()
    assert limit < 0.75 * np.abs(good).max() and (np.abs(clipped) == limit).sum() > 20
    assert np.isnan(missing).all(1).sum() == 1 and np.isnan(missing).any(1).sum() == 1
    assert np.median(np.abs(np.diff(noisy))) > 2 * np.median(np.abs(np.diff(good)))


def test_nothing_but_the_injury_tells_who_is_ill(source, rows):
    """Neither noise nor heart rate: a model must not learn the label from how it was simulated."""
    for row in [row for row in rows if row.label == 1 and row.disturbance == "none"][:5]:
        ill, healthy = (source.read(row._replace(severity=s))[0] for s in (row.severity, 0.0))
        assert np.median(np.abs(np.diff(ill - healthy))) == 0, "a slow wave, in steps of 5 µV"
        np.testing.assert_array_equal(source.read(row._replace(label=0))[0], ill)
    rate = table(10893).groupby("label").heart_rate.mean()
    assert rate[1] == pytest.approx(rate[0], abs=3)


def test_rhythms(source, rows):
    row = rows[5]._replace(disturbance="none", mimic="none", heart_rate=80.0)
    beats = {}
    for rhythm in ("sinus", "atrial fibrillation", "ectopic beats"):
        beats[rhythm] = process(*source.read(row._replace(rhythm=rhythm)), Signal())
    spread = {
        rhythm: np.diff(beat.r_peaks).std() / np.diff(beat.r_peaks).mean()
        for rhythm, beat in beats.items()
    }
    assert spread["sinus"] < 0.08 < spread["atrial fibrillation"]
    assert spread["ectopic beats"] > 0.08
    assert beats["sinus"].rr_ms == pytest.approx(750, rel=0.06)


def test_the_median_beat_is_the_true_beat(source, rows):
    errors = []
    for row in rows[:120]:
        if row.rhythm == "sinus" and row.disturbance == "none" and row.heart_rate < 95:
            part = slice(R_SAMPLE + int(row.p_on / 2), R_SAMPLE + int(row.t_off / 2))
            beat = process(*source.read(row), Signal()).beat
            errors.append(np.sqrt(np.square(beat - true_beat(row, SEED))[:, part].mean()))
    assert len(errors) > 20 and np.median(errors) < 10, np.median(errors)


def test_a_patients_own_ecgs_are_more_alike_than_anothers(source):
    records = source.records[(source.records.label == 0) & (source.records.rhythm == "sinus")]
    beats = {
        row.record_id: true_beat(row._replace(heart_rate=70), SEED)
        for row in records.itertuples(index=False)
    }
    serial = [
        group.record_id.tolist() for _, group in records.groupby("patient_id") if len(group) > 1
    ]
    own = [np.corrcoef(beats[a].ravel(), beats[b].ravel())[0, 1] for a, b, *_ in serial]
    other = [
        np.corrcoef(beats[a[0]].ravel(), beats[b[0]].ravel())[0, 1] for a, b in pairwise(serial)
    ]
    assert np.median(own) > 0.97 > 0.9 > np.median(other)
