"""Mend a recording before a beat is sought in it: quiet ends, gaps, and leads that others tell."""

import numpy as np

from ecglib.beat import LEADS
from ecglib.signal import filters

QUIET_UV = 20.0  # what no lead leaves while no electrode is on
QUIET_S = 0.4  # a pause between beats may be quiet for as long
GAP_S = 0.1  # a longer gap can hide a QRS complex
FLAT_UV = 30.0  # a lead that spans less shows no beat
V1 = LEADS.index("V1")
# each limb lead from I and II (Einthoven 1912, Goldberger 1942)
LIMB = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], dtype=np.float32)


def live(signal: np.ndarray, rate: float) -> slice:
    """Which samples of ``(12, samples)`` in µV lie between quiet ends.

    An end is quiet as long as each lead stays within `QUIET_UV` or has no samples (NaN): zeros, a
    constant, or the noise of an amplifier without electrodes. One of less than `QUIET_S` counts as
    part of the recording, since it may be a pause between beats.
    """
    return slice(_quiet(signal, rate), signal.shape[1] - _quiet(signal[:, ::-1], rate))


def _quiet(signal: np.ndarray, rate: float) -> int:
    """How many samples the quiet start lasts; 0 if it is too short to be one."""
    high = np.fmax.accumulate(signal, axis=1)
    moved = (high - np.fmin.accumulate(signal, axis=1) > QUIET_UV).any(axis=0)
    start = int(moved.argmax()) if moved.any() else signal.shape[1]
    return start if start >= QUIET_S * rate else 0


def bridge_gaps(signal: np.ndarray, rate: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Bridge gaps (NaN) of at most `GAP_S` in ``(12, samples)`` by straight lines.

    Returns
    -------
    signal : numpy.ndarray
        Without NaN; a lead with a longer gap is zero.
    bridged : float
        Longest time in ms that was bridged in one lead.
    lost : numpy.ndarray
        Leads that are absent or have a longer gap, ``(12,)`` of bool.
    """
    gaps = np.isnan(signal)
    longest, lost, bridged = round(GAP_S * rate), gaps.all(axis=1), 0
    if not gaps.any():
        return signal, 0.0, lost
    signal = signal.copy()
    for i in np.flatnonzero(gaps.any(axis=1) & ~lost):
        edges = np.flatnonzero(np.diff(gaps[i], prepend=False, append=False))
        lost[i] = np.diff(edges)[::2].max() > longest
        if not lost[i]:
            signal[[i]] = filters.bridge(signal[[i]], gaps[i])
            bridged = max(bridged, gaps[i].sum())
    signal[lost] = 0
    return signal, 1000 * bridged / rate, lost


def limb_leads(pair: np.ndarray, have=(0, 1)) -> np.ndarray:
    """All six limb leads ``(6, samples)`` from any two of them, `have`: ``(2, samples)``."""
    return (LIMB @ np.linalg.inv(LIMB[list(have)])).astype(pair.dtype) @ pair


def rebuild(signal: np.ndarray, lost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rebuild lost leads ``(12,)`` of the filtered recording ``(12, samples)`` from others.

    Any two limb leads tell the other four; of V2 to V5 a single one is the mean of its neighbours.
    The others stay as they are. Returned are the recording and which leads were rebuilt.
    """
    signal, rebuilt = signal.copy(), np.zeros(len(LEADS), dtype=bool)
    there = np.flatnonzero(~lost[:V1])
    if len(there) >= 2:
        rebuilt[:V1] = lost[:V1]
        pair = tuple(there[:2])
        signal[rebuilt] = limb_leads(signal[list(pair)], pair)[rebuilt[:V1]]
    chest = np.flatnonzero(lost[V1:]) + V1
    if len(chest) == 1 and V1 < chest[0] < len(LEADS) - 1:
        signal[chest] = (signal[chest - 1] + signal[chest + 1]) / 2
        rebuilt[chest] = True
    return signal, rebuilt


def flat(signal: np.ndarray) -> np.ndarray:
    """Which leads of the filtered recording ``(12, samples)`` show nothing for 99 % of the time."""
    few = signal.shape[1] // 200
    ordered = np.partition(signal, [few, -1 - few], axis=1)
    return ordered[:, -1 - few] - ordered[:, few] < FLAT_UV
