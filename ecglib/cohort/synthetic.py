"""A simulated cohort at two sites, with the truth known: patients, their ECGs, and their 10 s
recordings.

Size, sexes, ages and ECGs per patient follow Table 3 of the paper. The label belongs to the
patient's episode, as an angiogram's does: all ECGs of a patient with OMI carry it, however little
they show. Everything is simulated and nothing is fitted to patients: results on this cohort say how
the methods behave, not how well they find OMI in people.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.beat import LEADS, R_SAMPLE, RATE_HZ
from ecglib.cohort.heart import (
    ELECTRODES,
    LEADS_OF_ELECTRODES,
    MIMICS,
    TIMES_MS,
    Heart,
    beat_heart,
    ectopic_heart,
)
from ecglib.cohort.source import Source, count

SECONDS = 10
RESOLUTION_UV = 5
# Table 3 of the paper; OMI: patients, ECGs (956 in all, our split); how many patients have 1, 2, 3
# … ECGs
SITES = {
    "Pittsburgh": {"ecgs": 5088, "patients": 4127, "female": 1937, "age": (59, 16), "omi": (261, 400),
                   "serial": (3357, 629, 106, 28, 4, 3)},
    "Charlotte": {"ecgs": 5805, "patients": 3170, "female": 1400, "age": (60, 15), "omi": (217, 556),
                  "serial": (1588, 944, 387, 156, 52, 24, 12, 7)},
}  # fmt: skip
OMI_SHARE = 956 / 10893
CULPRIT = {"LAD": 0.42, "RCA": 0.38, "LCx": 0.20}
LOOKALIKE = dict(zip(MIMICS, (0.14, 0.10, 0.04, 0.06, 0.015, 0.04, 0.10), strict=True))
# beside an occlusion
BACKGROUND = {"LVH with strain": 0.08, "LBBB": 0.02, "RBBB": 0.05, "old infarct": 0.03}
RHYTHM = {"ectopic beats": 0.09, "atrial fibrillation": 0.07, "ventricular pacing": 0.02}
DISTURBANCE = {
    "arm electrodes swapped": 0.015, "precordial electrodes swapped": 0.015, "clipped": 0.015, "lead missing": 0.015,
    "muscle noise": 0.04, "baseline wander": 0.04, "mains": 0.04,
}  # fmt: skip


def open_source(settings, seed: int, data_dir: str | Path | None = None) -> Source:
    """Simulate a cohort, with the truth of each record (see `truth`) in `Source.records`.

    Parameters
    ----------
    settings : ecglib.settings.SyntheticCohort
        Number of ECGs, share of subtle OMI, share of positive ECGs.
    seed : int
        Same seed, same cohort, whatever the number of processes that read it.
    data_dir : path, optional
        Not needed: nothing is read from disk.
    """
    records = draw_cohort(settings, np.random.default_rng([seed, 0]))
    known = pd.DataFrame([truth(row, seed) for row in records.itertuples(index=False)])
    counts = {"simulated": count(records)}
    made = "Simulated by ecglib.cohort.synthetic; lead matrix after Dower et al. 1980."
    records, reader = pd.concat([records, known], axis=1), partial(read, seed=seed)
    return Source("synthetic", "1", *settings.means, records, reader, counts, attribution=made)


def _choose(rng, shares: dict[str, float], size: int, rest: str = "none") -> np.ndarray:
    """Draw names with the given shares, and `rest` for what is left."""
    return rng.choice([*shares, rest], size, p=[*shares.values(), max(0, 1 - sum(shares.values()))])


def draw_patients(name: str, ecgs: int, prevalence: float, rng) -> pd.DataFrame:
    """Draw the patients of a site that has `ecgs` ECGs, `prevalence` times as often positive as the
    paper's.
    """
    site = SITES[name]
    n = round(ecgs * site["patients"] / site["ecgs"])
    serial = np.repeat(np.arange(1, len(site["serial"]) + 1), site["serial"])
    serial = np.quantile(serial, (np.arange(n) + 0.5) / n, method="inverted_cdf").astype(int)
    while lack := ecgs - serial.sum():  # rounding left a few ECGs too many or too few
        serial[rng.choice(np.flatnonzero(serial > 1) if lack < 0 else n)] += np.sign(lack)
    sex = rng.permutation(
        np.where(np.arange(n) < round(n * site["female"] / site["patients"]), "female", "male")
    )
    age = np.clip(np.round(rng.normal(*site["age"], n)), 19, 97)
    ill, positive = (
        min(n - 1, max(3, round(n / site["patients"] * prevalence * count)))
        for count in site["omi"]
    )
    # the ill: male, older, more ECGs
    weight = serial * np.where(sex == "male", 1.6, 1.0) * np.exp((age - 60) / 25)
    order = rng.choice(n, n, replace=False, p=weight / weight.sum())
    # exchange patients until the number of positive ECGs is the paper's too
    for _ in range(20 * n):
        if (lack := positive - serial[order[:ill]].sum()) == 0:
            break
        a, b = rng.integers(ill), rng.integers(ill, n)
        if 0 < (serial[order[b]] - serial[order[a]]) * np.sign(lack) <= abs(lack):
            order[[a, b]] = order[[b, a]]
    label = np.isin(np.arange(n), order[:ill]).astype(int)
    return pd.DataFrame({"site": name, "age": age, "sex": sex, "label": label, "ecgs": serial})


def draw_cohort(settings, rng) -> pd.DataFrame:
    """Draw patients and their ECGs: the paper's Table 3 scaled to `settings.records`, with what
    each heart has.
    """
    first = round(
        settings.records
        * SITES["Pittsburgh"]["ecgs"]
        / sum(site["ecgs"] for site in SITES.values())
    )
    prevalence = 1 if settings.prevalence is None else settings.prevalence / OMI_SHARE
    sites = zip(SITES, (first, settings.records - first), strict=True)
    p = pd.concat([draw_patients(name, ecgs, prevalence, rng) for name, ecgs in sites])
    p = p.sample(frac=1, random_state=rng).reset_index(drop=True)
    n, ill = len(p), p.label == 1
    p["patient_id"] = [f"P{i:06d}" for i in range(n)]
    p["culprit"] = np.where(ill, _choose(rng, CULPRIT, n), "none")
    p["mimic"] = np.where(ill, _choose(rng, BACKGROUND, n), _choose(rng, LOOKALIKE, n))
    # a pattern of the young
    p.loc[(p.mimic == "early repolarisation") & (p.age > 55), "mimic"] = "none"
    p["subtle"] = ill & (rng.random(n) < settings.subtle)
    spread = rng.random(n)
    p["severity"] = np.where(
        ill, np.where(p.subtle, 0.06 + 0.24 * spread, 0.50 + 0.50 * spread), 0.0
    )
    p["rhythm"] = _choose(rng, RHYTHM, n, "sinus")
    p["rate"] = np.clip(rng.normal(80, 15, n) + 12 * (p.rhythm == "atrial fibrillation"), 48, 130)

    records = p.loc[p.index.repeat(p.pop("ecgs"))].reset_index(drop=True)
    n = len(records)
    records["severity"] = np.clip(
        records.severity * (1 + 0.2 * rng.standard_normal(n)), 0, 1
    ).round(3)
    records["heart_rate"] = np.clip(records.pop("rate") + rng.normal(0, 5, n), 42, 140).round(1)
    records["disturbance"] = _choose(rng, DISTURBANCE, n)
    records["record_id"] = [f"S{i:06d}" for i in range(n)]
    first = ["record_id", "patient_id", "site", "age", "sex", "label"]
    return records[first + [column for column in records if column not in first]]


def heart_of(row, seed: int) -> Heart:
    """Return the heart of a record: drawn from the seed, the patient's number and the record's
    number alone.
    """
    patient, record = int(row.patient_id[1:]), int(row.record_id[1:])
    return beat_heart(
        row, np.random.default_rng([seed, 1, patient]), np.random.default_rng([seed, 2, record])
    )


def true_beat(row, seed: int) -> np.ndarray:
    """Return the beat of a record without noise, as rightly placed electrodes see it: µV at 500 Hz,
    shape (12, 600).

    R, the largest RMS over the leads, is at sample 300; the potential between T and P is zero; the
    neighbouring beats are drawn one mean RR interval away, as in a regular rhythm.
    """
    heart, rr = heart_of(row, seed), 60000 / row.heart_rate
    return heart.leads(course=sum(heart.course(TIMES_MS + shift) for shift in (-rr, 0, rr)))


def truth(row, seed: int) -> dict:
    """Return what is known about a record.

    Returns
    -------
    dict
        ``p_on, p_off, qrs_on, qrs_off, t_peak, t_off`` in ms after R (NaN without P): where that
        wave begins and ends, t_peak where the RMS over the 12 leads of T and injury is largest;
        ``pr_ms, qrs_ms, qt_ms``; ``qrs_axis, t_axis`` in degrees: frontal direction, from lead I
        and (II + III)/√3, of the net area of the QRS complex and of what follows J + 80 ms;
        ``st80_<lead>`` in µV: 80 ms after qrs_off against the level at qrs_on; ``affected_leads``:
        those whose injury potential at J + 80 ms is at least half of the largest; ``window_start,
        window_end``: samples of the median beat in which the injury acts (0 without OMI).
    """
    heart = heart_of(row, seed)
    course = heart.course()
    beat, injury = heart.leads(course=course), heart.leads("injury", course=course)
    known = {}

    def bounds(*kinds):
        waves = np.isin(heart.kinds, kinds)
        if not waves.any():
            return (np.nan,) * 3
        power = np.square(heart.leads(*kinds, course=course)).sum(0)
        begin, end = heart.times[waves, 0].min(), heart.times[waves, 3].max()
        return round(begin, 1), float(TIMES_MS[power.argmax()]), round(end, 1)

    known["p_on"], _, known["p_off"] = bounds("P")
    known["qrs_on"], _, known["qrs_off"] = bounds("QRS")
    _, known["t_peak"], known["t_off"] = bounds("T", "injury")
    for name, begin, end in (
        ("pr", "p_on", "qrs_on"),
        ("qrs", "qrs_on", "qrs_off"),
        ("qt", "qrs_on", "t_off"),
    ):
        known[f"{name}_ms"] = round(known[end] - known[begin], 1)
    times = np.array([known["qrs_on"], known["qrs_off"], known["qrs_off"] + 80, known["t_off"]])
    on, j, j80, end = R_SAMPLE + np.round(times * RATE_HZ / 1000).astype(int)
    for wave, part in (("qrs", slice(on, j + 1)), ("t", slice(j80, end + 1))):
        one, two, three = beat[:3, part].sum(1)
        known[f"{wave}_axis"] = round(
            float(np.degrees(np.arctan2((two + three) / np.sqrt(3), one))), 1
        )
    known |= {
        f"st80_{lead}": round(float(v), 1)
        for lead, v in zip(LEADS, beat[:, j80] - beat[:, on], strict=True)
    }
    size = np.abs(injury[:, j80])
    known["affected_leads"] = ";".join(np.array(LEADS)[size >= max(size.max() / 2, 1e-6)])
    acts = np.flatnonzero(np.abs(injury).max(0) > 1e-6)
    known["window_start"], known["window_end"] = (
        (int(acts[0]), int(acts[-1]) + 1) if len(acts) else (0, 0)
    )
    return known


def read(row, seed: int) -> tuple[np.ndarray, float]:
    """Render the 10 s recording: float32 (12, 5000) in steps of 5 µV, missing leads all NaN; and
    its rate in Hz.
    """
    rng = np.random.default_rng([seed, 3, int(row.record_id[1:])])
    signal = _rhythm(heart_of(row, seed), row, rng)
    n = signal.shape[1]
    t = np.arange(n, dtype=np.float32) / RATE_HZ

    # What skin, muscles and mains add at each electrode.
    muscle, wander, mains = np.exp(rng.normal([2.1, 3.6, 0.7], 0.5))
    muscle *= 5 if row.disturbance == "muscle noise" else 1
    wander *= 6 if row.disturbance == "baseline wander" else 1
    mains *= 20 if row.disturbance == "mains" else 1
    envelope = muscle * (
        1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * t + rng.uniform(0, 6.3))
    )
    signal += envelope.astype(np.float32) * rng.standard_normal((9, n), dtype=np.float32)
    angles = 2 * np.pi * np.outer([*rng.uniform(0.05, 0.35, 3), 0.25, 60], t) + rng.uniform(
        0, 6.3, (5, 1)
    )
    amounts = rng.standard_normal((9, 5)) * [
        wander,
        0.6 * wander,
        0.4 * wander,
        0.4 * wander,
        mains,
    ]
    signal += amounts.astype(np.float32) @ np.sin(angles.astype(np.float32))

    # What goes wrong at the bedside.
    if row.disturbance == "arm electrodes swapped":
        signal[[0, 1]] = signal[[1, 0]]
    elif row.disturbance == "precordial electrodes swapped":
        a = rng.integers(3, 8)
        signal[[a, a + 1]] = signal[[a + 1, a]]
    signal = LEADS_OF_ELECTRODES.astype(np.float32) @ signal
    if row.disturbance == "clipped":
        limit = rng.uniform(0.45, 0.7) * np.abs(signal).max()
        signal = np.clip(signal, -limit, limit)
    signal = RESOLUTION_UV * np.round(signal / RESOLUTION_UV)
    if row.disturbance == "lead missing":
        signal[rng.integers(6, 12)] = np.nan
    return signal, float(RATE_HZ)


def _rhythm(heart: Heart, row, rng) -> np.ndarray:
    """Lay the beats of 10 s one after the other: potentials of the nine electrodes without noise,
    shape (9, 5000).
    """
    n, rr = SECONDS * RATE_HZ, 60 / row.heart_rate
    count = int(1.5 * SECONDS / rr) + 4
    if row.rhythm == "atrial fibrillation":
        intervals = np.maximum(rr * rng.gamma(25, 1 / 25, count), 0.36)
    else:
        respiration = 0.03 * np.sin(2 * np.pi * 0.25 * rr * np.arange(count))
        intervals = rr * (1 + 0.02 * rng.standard_normal(count) + respiration)
    r = np.cumsum(intervals) - rr * rng.random()
    strength = 1 + 0.03 * np.sin(2 * np.pi * 0.25 * r + rng.uniform(0, 6.3))
    beat = wide = heart.electrodes().astype(np.float32)
    early = np.zeros(count, bool)
    if row.rhythm == "ectopic beats":
        early[rng.choice(np.arange(1, 10), 1 + int(3 * rng.random()), replace=False)] = True
        # and the next beat comes when it would have come: a pause
        r[early] -= (0.28 + 0.1 * rng.random()) * rr
        wide = ectopic_heart(heart, rng).electrodes().astype(np.float32)
    if row.rhythm == "ventricular pacing":
        spike = R_SAMPLE + int(heart.times[heart.kinds == "QRS", 0].min() * RATE_HZ / 1000) - 4
        beat[:, spike] += ELECTRODES @ heart.torso @ np.array([400, -900, 500])
    signal = np.zeros((9, n + 4 * R_SAMPLE), np.float32)
    for at, gain, ectopic in zip(np.round(r * RATE_HZ).astype(int), strength, early, strict=True):
        if -R_SAMPLE <= at < n + R_SAMPLE:
            signal[:, at + R_SAMPLE : at + 3 * R_SAMPLE] += gain * (wide if ectopic else beat)
    signal = signal[:, 2 * R_SAMPLE : 2 * R_SAMPLE + n]
    if row.rhythm == "atrial fibrillation":
        t = np.arange(n) / RATE_HZ
        phase = (
            2 * np.pi * np.cumsum(rng.uniform(5, 7) + 0.8 * np.sin(2 * np.pi * 0.3 * t)) / RATE_HZ
        )
        signal += np.outer(
            ELECTRODES @ heart.torso @ np.array([-15, 22, -35]),
            np.sin(phase) + 0.4 * np.sin(2 * phase),
        )
    return signal
