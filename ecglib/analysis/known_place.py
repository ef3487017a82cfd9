"""ECGs in which something acts at a known place: a simulated injury, or an ST change added to real
beats.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecglib.beat import BEAT_SAMPLES, LEADS
from ecglib.cohort.synthetic import heart_of
from ecglib.dataset import CROP, inputs
from ecglib.signal import fiducials

ANTERIOR = {"V2": 200, "V3": 200, "V4": 200}
# µV, as Einthoven and Goldberger have it
INFERIOR = {"II": 200, "III": 200, "aVF": 200, "aVR": -100, "aVL": -100}


@dataclass(frozen=True)
class Place:
    """ECGs with a change of known place and size.

    ``inputs`` and ``without`` are what a network sees with and without it, ``(n, 12, samples)``;
    ``truth`` is where it acts, boolean, and ``change`` the change in µV, ``(n, 12, 400)``;
    ``beats`` are those of `inputs`; ``meaning`` says what it is.
    """

    beats: np.ndarray
    inputs: np.ndarray
    without: np.ndarray
    truth: np.ndarray
    change: np.ndarray
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
    at = cohort.records.reset_index().set_index("record_id")["index"].loc[rows.record_id].to_numpy()
    beats = np.asarray(cohort.beats[at])
    return beats, _seen(beats, identity)


def _seen(beats, identity: dict) -> np.ndarray:
    return inputs(beats, identity)[:, 0].numpy()


def known_place(cohort, rows: pd.DataFrame, identity: dict, seed: int, most: int) -> Place:
    """Take the injury of simulated positives, or add an ST change to the beats of negatives.

    Parameters
    ----------
    cohort, rows, identity : ecglib.cohort.contract.Cohort, pandas.DataFrame, dict
        `rows` are predictions of a test fold, `identity` is the run's.
    seed : int
        The study's, from which a simulated cohort was drawn.
    most : int
        ECGs at most. Without a simulation's truth, half of them get 0.2 mV of ST elevation in
        V2–V4, the others in II, III and aVF with half as much reciprocal depression, from the J
        point to the end of T.
    """
    records = cohort.records.set_index("record_id", drop=False).loc[rows.record_id]
    if "affected_leads" in records:
        spoiled = records.disturbance.str.contains("swapped|missing")
        records = records[(records.affected_leads != "") & ~spoiled].head(most)
        injuries = [heart_of(row, seed).leads("injury") for row in records.itertuples(index=False)]
        beats, seen = inputs_of(cohort, records, identity)
        change, truth = np.array(injuries), true_region(records)
        without = _seen(beats - change, identity)
        return Place(beats, seen, without, truth, change[..., CROP], "the simulated injury")
    records = records[(records.label == 0) & ~records.poor_quality].head(4 * most)
    beats, seen = inputs_of(cohort, records, identity)
    points = fiducials.find(beats)
    fine = np.flatnonzero(np.isfinite(points["qrs_off"]) & np.isfinite(points["t_off"]))[:most]
    parts = []
    for half, change in ((fine[::2], ANTERIOR), (fine[1::2], INFERIOR)):
        edges = points["qrs_off"][half], points["t_off"][half]
        parts.append(inject_st(beats[half], change, *edges))
    changed, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.concatenate([fine[::2], fine[1::2]])
    return Place(
        beats=changed,
        inputs=_seen(changed, identity),
        without=seen[order],
        truth=truth[..., CROP],
        change=(changed - beats[order])[..., CROP],
        meaning="0.2 mV of ST elevation added to negatives (V2–V4, or II, III and aVF)",
    )


def true_region(records: pd.DataFrame) -> np.ndarray:
    """Where simulated injury acts, bool ``(n, 12, samples)``: `affected_leads`, from `window_start`
    to `window_end`.
    """
    start, end = (records[name].to_numpy()[:, None] for name in ("window_start", "window_end"))
    leads = np.array(
        [[lead in names.split(";") for lead in LEADS] for names in records["affected_leads"]]
    )
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
