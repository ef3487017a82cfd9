"""ECGs in which something acts at a known place: a simulated injury, or an ST change added to real
beats.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from ecglib.analysis.saliency import answers
from ecglib.beat import BEAT_SAMPLES, LEADS
from ecglib.cohort.synthetic import heart_of
from ecglib.dataset import CROP, inputs
from ecglib.signal import fiducials

# µV, limb leads as Einthoven and Goldberger have it; each change is for its share of the ECGs
CHANGES = {
    "ST elevation": (
        "0.2 mV of ST elevation added to negatives (V2–V4, or II, III and aVF)",
        {"V2": 200, "V3": 200, "V4": 200},
        {"II": 200, "III": 200, "aVF": 200, "aVR": -100, "aVL": -100},
    ),
    "ST depression": (
        "0.2 mV of subendocardial ST depression added to negatives (V3–V6, half in I and II)",
        {"V3": -200, "V4": -200, "V5": -200, "V6": -200}
        | {"I": -100, "II": -100, "aVR": 100, "aVL": -50, "aVF": -50},
    ),
}


@dataclass(frozen=True)
class Place:
    """ECGs with a change of known place and size.

    ``inputs`` and ``without`` are what a network sees with and without it, ``(n, 12, samples)``;
    ``truth`` is where it acts, boolean ``(n, 12, 400)``; ``beats`` are those of `inputs`;
    ``meaning`` says what it is.
    """

    beats: np.ndarray
    inputs: np.ndarray
    without: np.ndarray
    truth: np.ndarray
    meaning: str


def inputs_of(cohort, rows: pd.DataFrame, identity: dict) -> tuple[np.ndarray, np.ndarray]:
    """Beats, int16 µV ``(n, 12, 600)``, and network inputs, float32 ``(n, 12, samples)``, of the
    records in `rows`.

    Raises
    ------
    ValueError
        If the run of that `identity` was trained on another cohort.
    """
    if identity.get("cohort", cohort.key) != cohort.key:
        raise ValueError(
            f"The run was trained on another cohort than {cohort.folder.name}; train it again"
        )
    places = pd.Index(cohort.records["record_id"]).get_indexer(rows["record_id"])
    beats = np.asarray(cohort.beats[places])
    return beats, _seen(beats, identity)


def _seen(beats, identity: dict) -> np.ndarray:
    return inputs(beats, identity)[:, 0].numpy()


def known_places(cohort, rows: pd.DataFrame, identity: dict, seed: int, most: int) -> dict:
    """Take the injury of simulated positives, or add ST changes to the beats of negatives.

    Parameters
    ----------
    cohort, rows, identity : ecglib.cohort.contract.Cohort, pandas.DataFrame, dict
        `rows` are predictions of a test fold, `identity` is the run's.
    seed : int
        The study's, from which a simulated cohort was drawn.
    most : int
        ECGs at most.

    Returns
    -------
    dict
        Name → `Place`. Without a simulation's truth: ST elevation, half of the ECGs in V2–V4, the
        others in II, III and aVF with half as much reciprocal depression; and ST depression of the
        subendocardial kind, which the statements behind PTB-XL's proxy name most often; each from
        the J point to the end of T.
    """
    records = cohort.records.set_index("record_id", drop=False).loc[rows.record_id]
    if "affected_leads" in records:
        spoiled = records.disturbance.str.contains("swapped|missing")
        records = records[(records.affected_leads != "") & ~spoiled].head(most)
        injuries = [heart_of(row, seed).leads("injury") for row in records.itertuples(index=False)]
        beats, seen = inputs_of(cohort, records, identity)
        change, truth = np.array(injuries), true_region(records)
        without = _seen(beats - change, identity)
        return {"simulated injury": Place(beats, seen, without, truth, "the simulated injury")}
    records = records[(records.label == 0) & ~records.poor_quality].head(4 * most)
    beats, seen = inputs_of(cohort, records, identity)
    points = fiducials.find(beats)
    start, end = points["qrs_off"], points["t_off"]
    fine = np.flatnonzero(np.isfinite(start + end))[:most]
    places = {}
    for name, (meaning, *changes) in CHANGES.items():
        shares = [fine[k :: len(changes)] for k in range(len(changes))]
        order = np.concatenate(shares)
        parts = [
            inject_st(beats[share], change, start[share], end[share])
            for share, change in zip(shares, changes, strict=True)
        ]
        changed, truth = map(np.concatenate, zip(*parts, strict=True))
        told = changed, _seen(changed, identity), seen[order], truth[..., CROP], meaning
        places[name] = Place(*told)
    return places


def called(model, places: dict, threshold: float) -> tuple[pd.DataFrame, list[str]]:
    """Which share of ECGs the network calls positive with the change of each place and without,
    from `threshold` up; a row per place, and a sentence for each.
    """
    rows, told = {}, []
    for name, place in places.items():
        before, after = (
            softmax(answers(model, x), axis=1)[:, 1] for x in (place.without, place.inputs)
        )
        rows[name] = row = {
            "ECGs": len(after),
            "score without": np.median(before),
            "called without": (before >= threshold).mean(),
            "score": np.median(after),
            "called": (after >= threshold).mean(),
        }
        told.append(
            f"With {place.meaning} the network calls {row['called']:.0%} of {row['ECGs']} ECGs "
            f"positive, without it {row['called without']:.0%}; the median score goes from "
            f"{row['score without']:.2f} to {row['score']:.2f}."
        )
    return pd.DataFrame.from_dict(rows, orient="index"), told


def true_region(records: pd.DataFrame) -> np.ndarray:
    """Where simulated injury acts, bool ``(n, 12, samples)``: `affected_leads`, from `window_start`
    to `window_end`.
    """
    names = records["affected_leads"].str.split(";")
    leads = np.array([np.isin(LEADS, each) for each in names])
    start, end = records[["window_start", "window_end"]].to_numpy().T[..., None]
    t = np.arange(CROP.start, CROP.stop)
    return leads[:, :, None] & ((t >= start) & (t < end))[:, None]


def inject_st(beats, change: dict, start, end, ramp: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Add a smooth regional ST change of known place and size to real beats.

    Parameters
    ----------
    beats : array
        ``(n, 12, 600)`` in µV.
    change : dict
        Lead → by how many µV it changes (negative: depression).
    start, end, ramp : int or array
        J point and end of T, in samples of the beat; length of the raised-cosine flanks between
        them.

    Returns
    -------
    float32 beats in µV and boolean truth, both ``(n, 12, 600)``; the truth within
    `ecglib.dataset.CROP` fits a map.
    """
    t = np.arange(BEAT_SAMPLES)
    size = np.array([[change.get(lead, 0)] for lead in LEADS], float)
    start, end = (
        np.broadcast_to(np.asarray(edge, float), len(beats))[:, None, None] for edge in (start, end)
    )
    rise, fall = (
        0.5 - 0.5 * np.cos(np.pi * np.clip(way / ramp, 0, 1)) for way in (t - start, end - t)
    )
    return (beats + size * rise * fall).astype(np.float32), (size != 0) & (t >= start) & (t < end)
