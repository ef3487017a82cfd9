"""A simulated cohort at two sites, with the truth known: patients, their ECGs, and their 10 s recordings.

Size, sexes, ages and ECGs per patient follow Table 3 of the paper. The label belongs to the patient's episode, as an
angiogram's does: all ECGs of a patient with OMI carry it, however little they show. Everything is simulated and nothing
is fitted to patients: results on this cohort say how the methods behave, not how well they find OMI in people.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import LEADS, R_SAMPLE, RATE_HZ
from ecglib.sources import Source
from ecglib.sources.heart import ELECTRODES, LEADS_OF_ELECTRODES, MIMICS, TIMES_MS, Heart, beat_heart

SECONDS = 10
RESOLUTION_UV = 5
SITES = {  # Table 3 of the paper; OMI: patients, ECGs (956 in all, our split); how many patients have 1, 2, 3 … ECGs
    "Pittsburgh": {
        "ecgs": 5088, "patients": 4127, "omi": (261, 400), "female": 1937 / 4127, "age": (59, 16),
        "serial": (3357, 629, 106, 28, 4, 3),
    },
    "Charlotte": {
        "ecgs": 5805, "patients": 3170, "omi": (217, 556), "female": 1400 / 3170, "age": (60, 15),
        "serial": (1588, 944, 387, 156, 52, 24, 12, 7),
    },
}  # fmt: skip
OMI_SHARE = 956 / 10893
LOOKALIKE = dict(zip(MIMICS, (0.14, 0.10, 0.04, 0.06, 0.015, 0.04, 0.10), strict=True))
BACKGROUND = {"LVH with strain": 0.08, "LBBB": 0.02, "RBBB": 0.05, "old infarct": 0.03}  # beside an occlusion
RHYTHM = {"ectopic beats": 0.09, "atrial fibrillation": 0.07, "ventricular pacing": 0.02}
DISTURBANCE = {
    "arm electrodes swapped": 0.015, "precordial electrodes swapped": 0.015, "clipped": 0.015, "lead missing": 0.015,
    "muscle noise": 0.04, "baseline wander": 0.04, "mains": 0.04,
}  # fmt: skip


def open_source(settings, seed: int, data_dir: str | Path | None = None) -> Source:
    """Simulate a cohort.

    Parameters
    ----------
    settings : ecglib.params.SyntheticCohort
        Number of ECGs, share of subtle OMI, share of positive ECGs.
    seed : int
        Same seed, same cohort, whatever the number of processes that read it.
    data_dir : path, optional
        Not needed: nothing is read from disk.

    Returns
    -------
    Source
        With the truth of each record in `Source.records`; see `truth`.
    """
    records = _cohort(settings, np.random.default_rng([seed, 0]))
    known = pd.DataFrame([truth(row, seed) for row in records.itertuples(index=False)], index=records.index)
    records = pd.concat([records, known], axis=1)
    positive = records[records.label == 1]
    return Source(
        name="synthetic",
        version="1",
        label_kind="synthetic",
        label_meaning="simulated occlusion of a coronary artery in this patient's episode",
        records=records,
        read=partial(read, seed=seed),
        counts={
            "simulated": {"ecgs": len(records), "patients": records.patient_id.nunique()},
            "with OMI": {"ecgs": len(positive), "patients": positive.patient_id.nunique()},
        },
        attribution="Simulated by ecglib.sources.synthetic; lead matrix after Dower et al. 1980.",
    )


def _choose(rng, shares: dict[str, float], size: int) -> np.ndarray:
    """Draw names with the given shares, 'none' for the rest."""
    return rng.choice([*shares, "none"], size, p=[*shares.values(), 1 - sum(shares.values())])


def _cohort(settings, rng) -> pd.DataFrame:
    """Draw patients and their ECGs, as the paper's Table 3 scaled to `settings.records`."""
    patients = []
    total = sum(site["ecgs"] for site in SITES.values())
    wanted = {"Pittsburgh": round(settings.records * SITES["Pittsburgh"]["ecgs"] / total)}
    wanted["Charlotte"] = settings.records - wanted["Pittsburgh"]
    for name, site in SITES.items():
        n = round(wanted[name] * site["patients"] / site["ecgs"])
        serial = np.repeat(np.arange(1, len(site["serial"]) + 1), site["serial"])
        ecgs = np.quantile(serial, (np.arange(n) + 0.5) / n, method="inverted_cdf")
        while (lack := wanted[name] - ecgs.sum()) != 0:  # rounding left a few ECGs too many or too few
            movable = np.flatnonzero(ecgs > 1) if lack < 0 else np.arange(n)
            ecgs[rng.choice(movable)] += np.sign(lack)
        sex = rng.permutation(np.where(np.arange(n) < round(site["female"] * n), "female", "male"))
        mean, sd = site["age"]
        age = np.clip(np.round(rng.normal(mean, sd, n)), 19, 97)
        scale = n / site["patients"] * (1 if settings.prevalence is None else settings.prevalence / OMI_SHARE)
        ill, positive = (max(3, round(scale * count)) for count in site["omi"])
        weight = ecgs * np.where(sex == "male", 1.6, 1.0) * np.exp((age - 60) / 25)  # acute patients have more ECGs
        order = rng.choice(n, n, replace=False, p=weight / weight.sum())
        for _ in range(20 * n):  # exchange patients until the number of positive ECGs is the paper's too
            lack = positive - ecgs[order[:ill]].sum()
            a, b = rng.integers(ill), rng.integers(ill, n)
            if 0 < (ecgs[order[b]] - ecgs[order[a]]) * np.sign(lack) <= abs(lack):
                order[[a, b]] = order[[b, a]]
        table = pd.DataFrame({"site": name, "age": age, "sex": sex, "label": 0, "ecgs": ecgs.astype(int)})
        table.loc[order[:ill], "label"] = 1
        patients.append(table)
    p = pd.concat(patients).sample(frac=1, random_state=rng).reset_index(drop=True)
    n, ill = len(p), p.label == 1
    p["patient_id"] = [f"P{i:06d}" for i in range(n)]
    p["culprit"] = np.where(ill, rng.choice(["LAD", "RCA", "LCx"], n, p=[0.42, 0.38, 0.20]), "none")
    p["mimic"] = np.where(ill, _choose(rng, BACKGROUND, n), _choose(rng, LOOKALIKE, n))
    p.loc[(p.mimic == "early repolarisation") & (p.age > 55), "mimic"] = "none"  # a pattern of the young
    p["subtle"] = ill & (rng.random(n) < settings.subtle)
    spread = rng.random(n)
    p["severity"] = np.where(ill, np.where(p.subtle, 0.06 + 0.24 * spread, 0.50 + 0.50 * spread), 0.0)
    p["rhythm"] = np.char.replace(_choose(rng, RHYTHM, n).astype(str), "none", "sinus")
    p["rate"] = np.clip(rng.normal(80, 15, n) + 12 * (p.rhythm == "atrial fibrillation"), 48, 130)

    records = p.loc[p.index.repeat(p.pop("ecgs"))].reset_index(drop=True)
    n = len(records)
    records["severity"] = np.clip(records.severity * (1 + 0.2 * rng.standard_normal(n)), 0, 1).round(3)
    records["heart_rate"] = np.clip(records.pop("rate") + rng.normal(0, 5, n), 42, 140).round(1)
    records["disturbance"] = _choose(rng, DISTURBANCE, n)
    records.insert(0, "record_id", [f"S{i:06d}" for i in range(n)])
    first = ["record_id", "patient_id", "site", "age", "sex", "label"]
    return records[first + [column for column in records if column not in first]]


def heart_of(row, seed: int) -> Heart:
    """Return the heart of a record: drawn from the seed, the patient's number and the record's number alone."""
    patient, record = int(row.patient_id[1:]), int(row.record_id[1:])
    return beat_heart(row, np.random.default_rng([seed, 1, patient]), np.random.default_rng([seed, 2, record]))


def true_beat(row, seed: int) -> np.ndarray:
    """Return the beat of a record without noise, as correctly placed electrodes see it.

    The neighbouring beats are drawn one mean RR interval away, as in a regular rhythm.

    Returns
    -------
    ndarray, shape (12, 600)
        µV at 500 Hz, R (largest RMS over the leads) at sample 300; zero between T and P.
    """
    heart, rr = heart_of(row, seed), 60000 / row.heart_rate
    return heart.leads(course=sum(heart.course(TIMES_MS + shift) for shift in (-rr, 0, rr)))


def truth(row, seed: int) -> dict:
    """Return what is known about a record.

    Returns
    -------
    dict
        ``p_on, p_off, qrs_on, qrs_off, t_peak, t_off`` in ms after R (NaN without P): where the RMS over the 12
        leads of that wave alone exceeds 3 % of its maximum, t_peak where that of T and injury is largest; ``pr_ms,
        qrs_ms, qt_ms``; ``qrs_axis, t_axis`` in degrees: frontal direction, from lead I and
        (II + III)/√3, of the net area of the QRS complex and of what follows J + 80 ms; ``st80_<lead>`` in µV: 80 ms
        after qrs_off against the level at qrs_on; ``affected_leads``: those whose injury potential at J + 80 ms is at
        least half of the largest; and ``window_start, window_end``: samples of the median beat between which the
        injury acts (0 without OMI).
    """
    heart = heart_of(row, seed)
    course = heart.course()
    beat, injury = heart.leads(course=course), heart.leads("injury", course=course)
    known = {}

    def bounds(*kinds):
        rms = np.sqrt(np.square(heart.leads(*kinds, course=course)).mean(0))
        if not rms.any():
            return np.nan, np.nan, np.nan
        above = np.flatnonzero(rms > 0.03 * rms.max())
        return TIMES_MS[above[0]], TIMES_MS[rms.argmax()], TIMES_MS[above[-1]]

    known["p_on"], _, known["p_off"] = bounds("P")
    known["qrs_on"], _, known["qrs_off"] = bounds("QRS")
    _, known["t_peak"], known["t_off"] = bounds("T", "injury")
    known["pr_ms"] = known["qrs_on"] - known["p_on"]
    known["qrs_ms"] = known["qrs_off"] - known["qrs_on"]
    known["qt_ms"] = known["t_off"] - known["qrs_on"]
    on, j, j80, end = (
        R_SAMPLE + int(ms * RATE_HZ / 1000)
        for ms in (known["qrs_on"], known["qrs_off"], known["qrs_off"] + 80, known["t_off"])
    )
    for wave, part in (("qrs", slice(on, j + 1)), ("t", slice(j80, end + 1))):
        one, two, three = beat[:3, part].sum(1)
        known[f"{wave}_axis"] = round(float(np.degrees(np.arctan2((two + three) / np.sqrt(3), one))), 1)
    for lead, value in zip(LEADS, beat[:, j80] - beat[:, on], strict=True):
        known[f"st80_{lead}"] = round(float(value), 1)
    size = np.abs(injury[:, j80])
    affected = size >= max(size.max() / 2, 1e-6)
    known["affected_leads"] = ";".join(np.array(LEADS)[affected])
    acts = np.flatnonzero(np.abs(injury).max(0) > 1e-6)
    known["window_start"], known["window_end"] = (int(acts[0]), int(acts[-1]) + 1) if len(acts) else (0, 0)
    return known


def read(row, seed: int) -> tuple[np.ndarray, float]:
    """Render the 10 s recording of a record.

    Returns
    -------
    signal : ndarray, float32, shape (12, 5000)
        µV in steps of 5 µV; a missing lead is all NaN.
    rate : float
        500.0 Hz.
    """
    heart = heart_of(row, seed)
    rng = np.random.default_rng([seed, 3, int(row.record_id[1:])])
    n, rr = SECONDS * RATE_HZ, 60 / row.heart_rate
    t = np.arange(n) / RATE_HZ
    eight = np.r_[0, 1, 6:12]
    beat = (ELECTRODES @ heart.leads()[eight]).astype(np.float32)

    # ----- rhythm: R times, then one beat added at each
    count = int(SECONDS / rr * 1.5) + 4
    if row.rhythm == "atrial fibrillation":
        intervals = np.maximum(rr * rng.gamma(25, 1 / 25, count), 0.36)
    else:
        intervals = rr * (1 + 0.02 * rng.standard_normal(count) + 0.03 * np.sin(2 * np.pi * np.arange(count) * rr / 4))
    r = np.cumsum(intervals) - rr * rng.random()
    ectopic = np.zeros(count, bool)
    if row.rhythm == "ectopic beats":
        ectopic[rng.choice(np.arange(1, 10), 1 + int(3 * rng.random()), replace=False)] = True
        r[ectopic] -= (0.28 + 0.1 * rng.random()) * rr  # early, and followed by a compensatory pause
    strength = 1 + 0.03 * np.sin(2 * np.pi * 0.25 * r + rng.uniform(0, 6.3))
    wide = ELECTRODES @ _ectopic_beat(heart, rng).leads()[eight] if ectopic.any() else beat
    signal = np.zeros((9, n + 1400), np.float32)
    for at, gain, early in zip(np.round((r + 1.0) * RATE_HZ).astype(int), strength, ectopic, strict=True):
        if 400 <= at < n + 1000:
            signal[:, at - R_SAMPLE : at + R_SAMPLE] += gain * (wide if early else beat)
            if row.rhythm == "ventricular pacing":
                spike = at + int(heart.times[heart.kinds == "QRS", 0].min() * RATE_HZ / 1000) - 4
                signal[:, spike] += ELECTRODES @ heart.torso @ np.array([400.0, -900.0, 500.0])
    signal = signal[:, 500 : 500 + n]
    if row.rhythm == "atrial fibrillation":
        phase = 2 * np.pi * np.cumsum(rng.uniform(5, 7) + 0.8 * np.sin(2 * np.pi * 0.3 * t)) / RATE_HZ
        waves = np.sin(phase) + 0.4 * np.sin(2 * phase + 1)
        signal += np.outer(ELECTRODES @ heart.torso @ np.array([-15.0, 22.0, -35.0]), waves)

    # ----- what electrodes and the mains add
    muscle, wander, mains = np.exp(rng.normal([2.1, 3.6, 0.7], 0.5))
    muscle *= 5 if row.disturbance == "muscle noise" else 1
    wander *= 6 if row.disturbance == "baseline wander" else 1
    mains *= 20 if row.disturbance == "mains" else 1
    envelope = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * t + rng.uniform(0, 6.3))
    signal += np.float32(muscle) * envelope.astype(np.float32) * rng.standard_normal((9, n), dtype=np.float32)
    angles = 2 * np.pi * np.outer([*rng.uniform(0.05, 0.35, 3), 0.25, 60], t) + rng.uniform(0, 6.3, (5, 1))
    amounts = rng.standard_normal((9, 5)) * [wander, wander * 0.6, wander * 0.4, wander * 0.4, mains]
    signal += amounts.astype(np.float32) @ np.sin(angles.astype(np.float32))

    # ----- what goes wrong at the bedside
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


def _ectopic_beat(heart: Heart, rng) -> Heart:
    """Return a ventricular ectopic beat of the same patient: wide, from somewhere else, T against QRS."""
    direction = rng.standard_normal(3)
    direction *= 1100 / np.linalg.norm(direction)
    side = 0.4 * np.roll(direction, 1)
    times = np.array([[-70, -10, -10, 60], [-20, 45, 45, 110], [80, 240, 240, 350]], float)
    vectors = np.array([direction, 0.5 * direction + side, -0.45 * direction])
    return Heart(np.array(["QRS", "QRS", "T"]), times, np.ones(3), vectors, heart.torso)
