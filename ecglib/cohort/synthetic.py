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
from ecglib.cohort import heart as hearts
from ecglib.cohort.heart import ELECTRODES, LEADS_OF_ELECTRODES, TIMES_MS, Heart
from ecglib.cohort.source import Source, count

SECONDS = 10
RESOLUTION_UV = 5
# Table 3 of the paper, its two hospitals; OMI: patients, ECGs (956 in all, our split); how many
# patients have 1, 2, 3 … ECGs
SITES = {
    "A (simulated)": {
        "ecgs": 5088, "patients": 4127, "female": 1937, "age": (59, 16), "omi": (261, 400),
        "serial": (3357, 629, 106, 28, 4, 3),
    },
    "B (simulated)": {
        "ecgs": 5805, "patients": 3170, "female": 1400, "age": (60, 15), "omi": (217, 556),
        "serial": (1588, 944, 387, 156, 52, 24, 12, 7),
    },
}  # fmt: skip
OMI_SHARE = 956 / 10893
CULPRIT = {"LAD": 0.42, "RCA": 0.38, "LCx": 0.20}
LOOKALIKE = {
    "early repolarisation": 0.14, "LVH with strain": 0.10, "LBBB": 0.04, "RBBB": 0.06,
    "pericarditis": 0.015, "old infarct": 0.04, "non-occlusive ST depression": 0.10,
}  # fmt: skip
# beside an occlusion
BACKGROUND = {"LVH with strain": 0.08, "LBBB": 0.02, "RBBB": 0.05, "old infarct": 0.03}
RHYTHM = {"ectopic beats": 0.09, "atrial fibrillation": 0.07, "ventricular pacing": 0.02}
DISTURBANCE = {
    "arm electrodes swapped": 0.015, "precordial electrodes swapped": 0.015, "clipped": 0.015,
    "lead missing": 0.015, "muscle noise": 0.04, "baseline wander": 0.04, "mains": 0.04,
}  # fmt: skip
# times as much muscle noise, baseline wander and mains
LOUDER = {"muscle noise": (5, 1, 1), "baseline wander": (1, 6, 1), "mains": (1, 1, 20)}
NEVER = (np.nan, np.nan)


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
    return Source(
        "synthetic",
        "1",
        *settings.means,
        pd.concat([records, known], axis=1),
        partial(read, seed=seed),
        {"simulated": count(records)},
        attribution="Simulated by ecglib.cohort.synthetic; lead matrix after Dower et al. 1980.",
    )


def _choose(rng, shares: dict[str, float], size: int, rest: str = "none") -> np.ndarray:
    """Draw names with the given shares, and `rest` for what is left."""
    return rng.choice([*shares, rest], size, p=[*shares.values(), max(0, 1 - sum(shares.values()))])


def draw_patients(name: str, ecgs: int, prevalence: float, rng) -> pd.DataFrame:
    """Draw the patients of a site that has `ecgs` ECGs.

    `prevalence` says how much more often than the paper's they are positive.
    """
    site = SITES[name]
    n = round(ecgs * site["patients"] / site["ecgs"])
    serial = np.repeat(np.arange(1, len(site["serial"]) + 1), site["serial"])
    serial = np.quantile(serial, (np.arange(n) + 0.5) / n, method="inverted_cdf").astype(int)
    while lack := ecgs - serial.sum():  # rounding left a few ECGs too many or too few
        serial[rng.choice(np.flatnonzero(serial > 1) if lack < 0 else n)] += np.sign(lack)
    women = round(n * site["female"] / site["patients"])
    sex = rng.permutation(np.repeat(["female", "male"], [women, n - women]))
    age = np.clip(np.round(rng.normal(*site["age"], n)), 19, 97)
    share = n / site["patients"] * prevalence
    ill, positive = (min(n - 1, max(3, round(share * count))) for count in site["omi"])
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
    """Draw patients and their ECGs, with what each heart has: the paper's Table 3, scaled."""
    sizes = [site["ecgs"] for site in SITES.values()]
    first = round(settings.records * sizes[0] / sum(sizes))
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
    p["severity"] = ill * np.where(p.subtle, 0.06 + 0.24 * spread, 0.50 + 0.50 * spread)
    p["rhythm"] = _choose(rng, RHYTHM, n, "sinus")
    p["rate"] = np.clip(rng.normal(80, 15, n) + 12 * (p.rhythm == "atrial fibrillation"), 48, 130)

    records = p.loc[p.index.repeat(p.pop("ecgs"))].reset_index(drop=True)
    n = len(records)
    varied = records.severity * (1 + 0.2 * rng.standard_normal(n))
    records["severity"] = np.clip(varied, 0, 1).round(3)
    records["heart_rate"] = np.clip(records.pop("rate") + rng.normal(0, 5, n), 42, 140).round(1)
    records["disturbance"] = _choose(rng, DISTURBANCE, n)
    records.insert(0, "patient_id", records.pop("patient_id"))
    records.insert(0, "record_id", [f"S{i:06d}" for i in range(n)])
    return records


def heart_of(row, seed: int) -> Heart:
    """Return the heart of a record: drawn from the seed, the patient's number and the record's
    number alone.
    """
    patient, record = int(row.patient_id[1:]), int(row.record_id[1:])
    numbers = [seed, 1, patient], [seed, 2, record]
    return hearts.beat_heart(row, *map(np.random.default_rng, numbers))


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

    def bounds(*kinds):
        times = heart.times[np.isin(heart.kinds, kinds)]
        return (times[:, 0].min().round(1), times[:, 3].max().round(1)) if len(times) else NEVER

    (p_on, p_off), (qrs_on, j), (_, t_off) = bounds("P"), bounds("QRS"), bounds("T", "injury")
    power = np.square(heart.leads("T", "injury", course=course)).sum(0)
    known = {"p_on": p_on, "p_off": p_off, "qrs_on": qrs_on, "qrs_off": j}
    known |= {"t_peak": float(TIMES_MS[power.argmax()]), "t_off": t_off}
    lasts = {"pr_ms": qrs_on - p_on, "qrs_ms": j - qrs_on, "qt_ms": t_off - qrs_on}
    known |= {name: round(ms, 1) for name, ms in lasts.items()}
    times = np.array([qrs_on, j, j + 80, t_off])
    on, j, j80, end = R_SAMPLE + np.round(times * RATE_HZ / 1000).astype(int)
    for name, part in (("qrs_axis", slice(on, j + 1)), ("t_axis", slice(j80, end + 1))):
        one, two, three = beat[:3, part].sum(1)
        angle = np.degrees(np.arctan2((two + three) / np.sqrt(3), one))
        known[name] = round(float(angle), 1)
    st80 = beat[:, j80] - beat[:, on]
    known |= {f"st80_{lead}": round(float(v), 1) for lead, v in zip(LEADS, st80, strict=True)}
    size = np.abs(injury)
    largest = max(size[:, j80].max() / 2, 1e-6)
    known["affected_leads"] = ";".join(np.array(LEADS)[size[:, j80] >= largest])
    acts = np.flatnonzero(size.max(0) > 1e-6)
    window = (int(acts[0]), int(acts[-1]) + 1) if len(acts) else (0, 0)
    return known | dict(zip(("window_start", "window_end"), window, strict=True))


def read(row, seed: int) -> tuple[np.ndarray, float]:
    """Render the 10 s recording.

    Returns
    -------
    tuple
        float32 ``(12, 5000)`` in steps of 5 µV, missing leads all NaN; and its rate in Hz.
    """
    rng = np.random.default_rng([seed, 3, int(row.record_id[1:])])
    signal = _rhythm(heart_of(row, seed), row, rng)
    n = signal.shape[1]
    t = np.arange(n, dtype=np.float32) / RATE_HZ

    # What skin, muscles and mains add at each electrode.
    loudness = LOUDER.get(row.disturbance, 1)
    muscle, wander, mains = np.exp(rng.normal([2.1, 3.6, 0.7], 0.5)) * loudness
    swell = np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * t + rng.uniform(0, 6.3))
    envelope = (muscle * (1 + 0.6 * swell)).astype(np.float32)
    signal += envelope * rng.standard_normal((9, n), dtype=np.float32)
    angles = 2 * np.pi * np.outer([*rng.uniform(0.05, 0.35, 3), 0.25, 60], t)
    waves = np.sin((angles + rng.uniform(0, 6.3, (5, 1))).astype(np.float32))
    sizes = [*wander * np.array([1, 0.6, 0.4, 0.4]), mains]
    signal += (rng.standard_normal((9, 5)) * sizes).astype(np.float32) @ waves

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
    """Lay the beats of 10 s one after the other: nine electrodes without noise, (9, 5000)."""
    n, rr, fibrillates = SECONDS * RATE_HZ, 60 / row.heart_rate, row.rhythm == "atrial fibrillation"
    count = int(1.5 * SECONDS / rr) + 4
    if fibrillates:
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
        wide = hearts.ectopic_heart(heart, rng).electrodes().astype(np.float32)
    if row.rhythm == "ventricular pacing":
        spike = R_SAMPLE + int(heart.times[heart.kinds == "QRS", 0].min() * RATE_HZ / 1000) - 4
        beat[:, spike] += ELECTRODES @ heart.torso @ np.array([400, -900, 500])
    signal = np.zeros((9, n + 4 * R_SAMPLE), np.float32)
    for at, gain, ectopic in zip(np.round(r * RATE_HZ).astype(int), strength, early, strict=True):
        if -R_SAMPLE <= at < n + R_SAMPLE:
            signal[:, at + R_SAMPLE : at + 3 * R_SAMPLE] += gain * (wide if ectopic else beat)
    signal = signal[:, 2 * R_SAMPLE : 2 * R_SAMPLE + n]
    if fibrillates:
        drift = 0.8 * np.sin(2 * np.pi * 0.3 * np.arange(n) / RATE_HZ)
        phase = 2 * np.pi * np.cumsum(rng.uniform(5, 7) + drift) / RATE_HZ
        flutter = np.sin(phase) + 0.4 * np.sin(2 * phase)
        signal += np.outer(ELECTRODES @ heart.torso @ np.array([-15, 22, -35]), flutter)
    return signal
