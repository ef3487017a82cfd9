"""Fiducial points of median beats: where P, QRS and T begin, peak and end, over all leads and lead
by lead.

Values were tuned on records 1 to 100 of the Lobachevsky University database (LUDB) against its
cardiologists' marks.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import BEAT_SAMPLES, LEADS, R_SAMPLE

POINTS = ("p_on", "p_peak", "p_off", "qrs_on", "r", "qrs_off", "t_peak", "t_off")
"""Names of the points, in order of time; ``qrs_off`` is the J point."""

# samples after the cardiologists' marks: taken off
LATE = np.array([2, 0, 2.5, 1, 0, 0, 0, -7], dtype=np.float32)
WHOLE = np.full((1, len(POINTS)), R_SAMPLE)
CHUNK = 1000  # beats at a time: keeps memory flat
T = np.arange(BEAT_SAMPLES)


@dataclass(frozen=True)
class Fiducials:
    """Fiducial points of `n` median beats, in samples of the beat (2 ms each, R near 300); NaN
    where not found.

    Attributes
    ----------
    points : numpy.ndarray
        float32 ``(n, 8)``: points over all leads, columns as `POINTS`; ``found["t_off"]`` is one
        column. P and T are NaN where no such wave stands out, QRS points where the complex doesn't
        settle or the beat is empty.
    leads : numpy.ndarray
        float32 ``(n, 12, 8)``: the same in each lead. ``r`` is the largest deflection of the QRS,
        whatever its sign.
    """

    points: np.ndarray
    leads: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one point over all leads, ``(n,)``."""
        return self.points[:, POINTS.index(name)]


def find(beats: np.ndarray) -> Fiducials:
    """Find the fiducial points of median beats.

    The QRS complex begins and ends where the spatial velocity (root mean square slope of the leads)
    falls and stays below a share of its peak; the ends of P and T are where the steepest tangent of
    their flank meets the level beside the wave (Lepeschkin and Surawicz 1952). In a lead, the same
    is done on that lead alone, near the points over all.

    Parameters
    ----------
    beats : numpy.ndarray
        ``(n, 12, 600)`` in µV at 500 Hz, R peak at sample 300.
    """
    points = np.empty((len(beats), len(POINTS)), dtype=np.float32)
    leads = np.empty((len(beats), len(LEADS), len(POINTS)), dtype=np.float32)
    for start in range(0, len(beats), CHUNK):
        part = np.asarray(beats[start : start + CHUNK], dtype=np.float32)
        points[start : start + CHUNK] = whole = overall(part)
        each = overall(
            part.reshape(-1, 1, BEAT_SAMPLES), np.repeat(whole, len(LEADS), axis=0), reach=30
        )
        leads[start : start + CHUNK] = each.reshape(-1, len(LEADS), len(POINTS))
    return Fiducials(points, leads)


def overall(x: np.ndarray, guide: np.ndarray = WHOLE, reach: float = np.inf) -> np.ndarray:
    """Points ``(m, 8)`` of ``(m, leads, 600)``, near its `guide` ``(m, 8)``: peaks, J and QRS onset
    within `reach`.
    """
    points = np.full((len(x), len(POINTS)), np.nan)
    on, off, velocity, top = _complex(x, np.nan_to_num(guide[:, 4:5], nan=R_SAMPLE))
    on = np.where(np.abs(on - guide[:, 3]) <= reach, on, np.nan)
    off = np.where(np.abs(off - guide[:, 5]) <= reach, off, np.nan)
    q = np.nan_to_num(on, nan=R_SAMPLE - 25)[:, None]
    j = np.nan_to_num(off, nan=R_SAMPLE + 30)[:, None]
    inside = np.where((q <= T) & (j >= T), _rms(x), -1)
    points[:, 3], points[:, 4], points[:, 5] = on, inside.argmax(axis=1), off

    # A fast heart brings the neighbouring beats' QRS into view: P and T are searched between them.
    steep = velocity > 0.5 * top
    last = np.where(steep & (q - 60 > T), T, -BEAT_SAMPLES).max(axis=1, keepdims=True)
    following = np.where(steep & (R_SAMPLE + 110 < T), T, 3 * BEAT_SAMPLES).min(
        axis=1, keepdims=True
    )

    after, before = _held(x, j + 12, T), _held(x, q - 2, -T)
    # T peaks within 430 ms, and within 62 % of RR
    sought = (np.abs(guide[:, 6:7] - T) <= reach) & (j + 25 <= T)
    sought &= np.minimum(R_SAMPLE + 215, R_SAMPLE + 0.62 * (following - R_SAMPLE)) >= T
    points[:, 6:8] = _wave(after, 5, sought, 100, 80)[:, 1:]
    sought = (np.abs(guide[:, 1:2] - T) <= reach) & (q - 140 <= T) & (q - 12 >= T)
    sought &= last + 0.55 * (R_SAMPLE - last) <= T
    points[:, 0:3] = _wave(before - before[..., -1:], 4, sought, 35, 30, least=11)
    points[(top <= 0) | (np.abs(points - guide) > 2 * reach)] = np.nan
    return np.clip(points - LATE, 0, BEAT_SAMPLES - 1)


def _complex(x: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the QRS complexes around `r` ``(m, 1)`` begin and end, NaN if never; their velocity,
    and its peaks.
    """
    velocity = _rms(np.gradient(gaussian_filter1d(x, 2, axis=-1), axis=-1))
    top = velocity[:, 250:350].max(axis=1, keepdims=True)
    floor = 2 * np.percentile(velocity[:, 150:420], 15, axis=1)[:, None]
    on = 599 - _settles((velocity < np.maximum(0.05 * top, floor))[:, ::-1], 599 - r + 4)
    return on, _settles(velocity < np.maximum(0.07 * top, floor), r + 4), velocity, top


def level_before_qrs(beat: np.ndarray) -> np.ndarray:
    """Mean of each lead of ``(12, 600)`` from 20 to 4 ms before the QRS complex, ``(12, 1)``; 0 if
    none begins.
    """
    on = _complex(beat[None], np.full((1, 1), R_SAMPLE))[0][0] - LATE[3]
    if not on >= 10:
        return np.zeros((len(beat), 1), dtype=beat.dtype)
    return beat[:, int(on) - 10 : int(on) - 1].mean(axis=1, keepdims=True)


def _rms(x: np.ndarray) -> np.ndarray:
    """Root mean square over the leads: ``(m, leads, 600)`` to ``(m, 600)``."""
    return np.sqrt(np.mean(x**2, axis=1))


def _settles(low: np.ndarray, start: np.ndarray, run: int = 8) -> np.ndarray:
    """First sample from `start` on at which `low` ``(m, 600)`` becomes true and stays so for `run`
    samples, or NaN.
    """
    total = np.cumsum(np.pad(low, ((0, 0), (1, 0))), axis=1)
    stays = (total[:, run:] - total[:, :-run] == run) & (T[: BEAT_SAMPLES - run + 1] >= start)
    return np.where(stays.any(axis=1), stays.argmax(axis=1), np.nan)


def _held(x: np.ndarray, edge: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Hold `x` ``(m, leads, 600)`` at its value at `edge` on one side, so that smoothing doesn't
    smear the QRS.
    """
    edge = np.clip(edge, 0, BEAT_SAMPLES - 1).astype(int)[:, None]
    level = np.take_along_axis(x, np.broadcast_to(edge, (len(x), x.shape[1], 1)), axis=2)
    return np.where(order >= np.sign(order[1]) * edge, x, level)


def _wave(x, smooth, sought, span, beside, least=0.0):
    """Onset, peak and offset ``(m, 3)`` of the highest bump of ``(m, leads, 600)`` that peaks where
    `sought`.

    A bump is what a narrow Gaussian keeps and a wide one loses, so that a slanting or raised ST
    segment is none. The tangents are laid on the root mean square of the leads, smoothed over
    `smooth` samples, at most `span` samples from the peak; `beside` is how far the level next to
    the wave is looked for. A bump under `least` µV is none.
    """
    bump = _rms(gaussian_filter1d(x, 6, axis=-1) - gaussian_filter1d(x, 30, axis=-1))
    wave = _rms(gaussian_filter1d(x, smooth, axis=-1))
    local = np.pad(
        np.diff(np.diff(bump, axis=1) < 0, axis=1) & (np.diff(bump, axis=1)[:, 1:] < 0),
        ((0, 0), (1, 1)),
    )
    height = np.where(local & sought, bump, -1)
    peak = height.argmax(axis=1)
    on = 599 - _tangent(wave[:, ::-1], 599 - peak, span, beside)
    off = _tangent(wave, peak, span, beside)
    return np.where(height.max(axis=1)[:, None] > least, np.column_stack([on, peak, off]), np.nan)


def _tangent(wave: np.ndarray, peak: np.ndarray, span: int, beside: int) -> np.ndarray:
    """Where the steepest descent of `wave` after `peak` meets the lowest level that follows."""
    p, slope = peak[:, None], np.gradient(wave, axis=1)
    k = np.where((p <= T) & (np.minimum(p + span, 597) >= T), slope, np.inf).argmin(axis=1)[:, None]
    level = np.where((k <= T) & (k + beside >= T), wave, np.inf).min(axis=1, keepdims=True)
    steepest = np.minimum(np.take_along_axis(slope, k, 1), -1e-6)
    return np.clip(k + (level - np.take_along_axis(wave, k, 1)) / steepest, p, BEAT_SAMPLES - 1)[
        :, 0
    ]
