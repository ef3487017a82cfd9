"""Fiducial points of median beats: where P, QRS and T begin, peak and end, over all leads.

Values were tuned on records 1 to 100 of the Lobachevsky University database (LUDB) against its
cardiologists' marks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import BEAT_SAMPLES, R_SAMPLE

POINTS = ("p_on", "p_peak", "p_off", "qrs_on", "r", "qrs_off", "t_peak", "t_off")
"""Names of the points, in order of time; ``qrs_off`` is the J point."""

# samples after the cardiologists' marks: taken off
LATE = np.array([2, 0, 2.5, 1, 0, 0, 0, -7], dtype=np.float32)
CHUNK = 1000  # beats at a time: keeps memory flat
T = np.arange(BEAT_SAMPLES)


@dataclass(frozen=True)
class Fiducials:
    """Fiducial points of `n` median beats, in samples of the beat (2 ms each, R near 300).

    Attributes
    ----------
    points : numpy.ndarray
        float32 ``(n, 8)``, columns as `POINTS`; ``found["t_off"]`` is one column. P and T are NaN
        where no such wave stands out, QRS points where the complex doesn't settle or the beat is
        empty.
    """

    points: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one point of all beats, ``(n,)``."""
        return self.points[:, POINTS.index(name)]


def find(beats: np.ndarray) -> Fiducials:
    """Find the fiducial points of median beats.

    The QRS complex begins and ends where the spatial velocity (root mean square slope of the leads)
    falls and stays below a share of its peak; the ends of P and T are where the steepest tangent of
    their flank meets the level beside the wave (Lepeschkin and Surawicz 1952).

    Parameters
    ----------
    beats : numpy.ndarray
        ``(n, 12, 600)`` in µV at 500 Hz, R peak at sample 300.
    """
    points = np.empty((len(beats), len(POINTS)), dtype=np.float32)
    for start in range(0, len(beats), CHUNK):
        part = np.asarray(beats[start : start + CHUNK], dtype=np.float32)
        points[start : start + CHUNK] = overall(part)
    return Fiducials(points)


def overall(x: np.ndarray) -> np.ndarray:
    """Find the points of beats that fit into memory.

    Parameters
    ----------
    x : numpy.ndarray
        ``(m, leads, 600)`` in µV.

    Returns
    -------
    numpy.ndarray
        float64 ``(m, 8)``, columns as `POINTS`, NaN where not found.
    """
    on, off, velocity, top = _complex(x)
    q = np.nan_to_num(on, nan=R_SAMPLE - 25)[:, None]
    j = np.nan_to_num(off, nan=R_SAMPLE + 30)[:, None]
    r = np.where((q <= T) & (j >= T), _rms(x), -1).argmax(axis=1)

    # A fast heart brings the neighbouring beats' QRS into view: P and T are searched between them.
    steep = velocity > 0.5 * top
    last = np.where(steep & (q - 60 > T), T, -BEAT_SAMPLES).max(axis=1)[:, None]
    following = np.where(steep & (R_SAMPLE + 110 < T), T, 3 * BEAT_SAMPLES).min(axis=1)[:, None]

    # held at one value beyond its edge, so that smoothing doesn't smear the QRS
    after, before = _at(x, np.maximum(T, j + 12)), _at(x, np.minimum(T, q - 2))
    # T peaks within 430 ms, and within 62 % of RR
    latest = np.minimum(R_SAMPLE + 215, R_SAMPLE + 0.62 * (following - R_SAMPLE))
    t = _wave(after, 5, (j + 25 <= T) & (latest >= T), 100, 80)
    sought = (q - 140 <= T) & (q - 12 >= T) & (last + 0.55 * (R_SAMPLE - last) <= T)
    p = _wave(before - before[..., -1:], 4, sought, 35, 30, least=11)
    points = np.column_stack([p, on, r, off, t[:, 1:]])
    points[top[:, 0] <= 0] = np.nan
    return np.clip(points - LATE, 0, BEAT_SAMPLES - 1)


def _complex(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the QRS complexes around R begin and end, NaN if never; velocity, and its peak."""
    velocity = _rms(np.gradient(gaussian_filter1d(x, 2, axis=-1), axis=-1))
    top = velocity[:, 250:350].max(axis=1, keepdims=True)
    floor = 2 * np.percentile(velocity[:, 150:420], 15, axis=1)[:, None]
    on = 599 - _settles((velocity < np.maximum(0.05 * top, floor))[:, ::-1], 599 - R_SAMPLE + 4)
    return on, _settles(velocity < np.maximum(0.07 * top, floor), R_SAMPLE + 4), velocity, top


def level_before_qrs(beat: np.ndarray) -> np.ndarray:
    """Mean of each lead of ``(12, 600)`` from 20 to 4 ms before QRS, ``(12, 1)``; 0 without QRS."""
    on = _complex(beat[None])[0][0] - LATE[3]
    if not on >= 10:
        return np.zeros((len(beat), 1), dtype=beat.dtype)
    return beat[:, int(on) - 10 : int(on) - 1].mean(axis=1, keepdims=True)


def _rms(x: np.ndarray) -> np.ndarray:
    """Root mean square over the leads: ``(m, leads, 600)`` to ``(m, 600)``."""
    return np.sqrt(np.mean(x**2, axis=1))


def _settles(low: np.ndarray, start: int, run: int = 8) -> np.ndarray:
    """First sample from `start` on at which `low` ``(m, 600)`` stays true for `run` samples."""
    stays = sliding_window_view(low[:, start:], run, axis=1).all(axis=2)
    return np.where(stays.any(axis=1), start + stays.argmax(axis=1), np.nan)


def _at(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Values of `x` ``(m, leads, 600)`` at samples ``(m, 600)``; beyond an end, the end's."""
    return np.take_along_axis(x, np.clip(index, 0, BEAT_SAMPLES - 1).astype(int)[:, None], axis=2)


def _wave(x, smooth, sought, span, beside, least=0.0):
    """Onset, peak and offset ``(m, 3)`` of the highest bump of ``(m, leads, 600)`` where `sought`.

    A bump is what a narrow Gaussian keeps and a wide one loses, so that a slanting or raised ST
    segment is none. The tangents are laid on the root mean square of the leads, smoothed over
    `smooth` samples, at most `span` samples from the peak; `beside` is how far the level next to
    the wave is looked for. A bump under `least` µV is none.
    """
    bump = _rms(gaussian_filter1d(x, 6, axis=-1) - gaussian_filter1d(x, 30, axis=-1))
    wave = _rms(gaussian_filter1d(x, smooth, axis=-1))
    inner = bump[:, 1:-1]
    local = (inner >= bump[:, :-2]) & (inner > bump[:, 2:]) & sought[:, 1:-1]
    height = np.where(local, inner, -1)
    peak = 1 + height.argmax(axis=1)
    on = 599 - _tangent(wave[:, ::-1], 599 - peak, span, beside)
    off = _tangent(wave, peak, span, beside)
    return np.where(height.max(axis=1)[:, None] > least, np.column_stack([on, peak, off]), np.nan)


def _tangent(wave: np.ndarray, peak: np.ndarray, span: int, beside: int) -> np.ndarray:
    """Where the steepest descent of `wave` after `peak` meets the lowest level that follows."""
    row, p, slope = np.arange(len(wave)), peak[:, None], np.gradient(wave, axis=1)
    k = np.where((p <= T) & (np.minimum(p + span, 597) >= T), slope, np.inf).argmin(axis=1)
    follows = (k[:, None] <= T) & (k[:, None] + beside >= T)
    level = np.where(follows, wave, np.inf).min(axis=1)
    steepest = np.minimum(slope[row, k], -1e-6)
    return np.clip(k + (level - wave[row, k]) / steepest, peak, BEAT_SAMPLES - 1)
