"""From the filtered recording to the median beat: R peaks, beats, alignment, rejection, median."""

import numpy as np
import sleepecg

from ecglib import BEAT_SAMPLES, R_SAMPLE, RATE_HZ
from ecglib.signal import filters

MARGIN = 30  # samples that a beat may be shifted when it is aligned
PQ = slice(200, 275)  # samples of a beat whose median is its zero
SHAPE = slice(200, 400)  # samples on which beats are compared


def r_peaks(signal: np.ndarray) -> np.ndarray:
    """Find the R peaks of ``(12, samples)`` in µV at 500 Hz on the root mean square of the leads."""
    narrow = filters.apply(signal, filters.band(8, 40, filters.frequencies(signal.shape[-1])))
    envelope = np.sqrt(np.mean(narrow**2, axis=0))
    found = np.asarray(sleepecg.detect_heartbeats(envelope.astype(float), RATE_HZ))
    return np.unique([to_peak(np.sqrt(np.mean(signal**2, axis=0)), r) for r in found]).astype(int)


def to_peak(envelope: np.ndarray, r: int, reach: int = MARGIN) -> int:
    """Move a peak to the largest value within ±`reach` samples."""
    start = max(r - reach, 0)
    return start + int(np.argmax(envelope[start : r + reach + 1]))


def cut(signal: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Cut beats of ±300 samples around each peak: ``(beats, 12, 600)``, each lead minus the median of its PQ part."""
    beats = signal[:, r[:, None] + np.arange(-R_SAMPLE, BEAT_SAMPLES - R_SAMPLE)].swapaxes(0, 1)
    return beats - np.median(beats[..., PQ], axis=-1, keepdims=True)


def similarity(beats: np.ndarray) -> np.ndarray:
    """Correlation of every beat with every other, over all leads, on samples 200 to 400: ``(beats, beats)``."""
    shape = beats[..., SHAPE].reshape(len(beats), -1)
    shape = shape / (np.linalg.norm(shape, axis=1, keepdims=True) + 1e-9)
    return shape @ shape.T


def align(signal: np.ndarray, r: np.ndarray, reach: int = 15) -> np.ndarray:
    """Shift each peak, within ±`reach` samples, to where its beat fits the most central beat best."""
    beats = cut(signal, r)
    centre = int(np.argmax(np.median(similarity(beats), axis=1)))
    template = beats[centre][:, SHAPE]
    shifts = np.arange(-reach, reach + 1)
    window = r[:, None, None] + shifts[:, None] + np.arange(SHAPE.start, SHAPE.stop) - R_SAMPLE
    scores = np.einsum("lbst,lt->bs", signal[:, np.clip(window, 0, signal.shape[-1] - 1)], template)
    return r + shifts[np.argmax(scores, axis=1)]


def median(beats: np.ndarray) -> np.ndarray:
    """Median over beats ``(beats, leads, samples)``, leaving out NaN; NaN where nothing is left."""
    if not np.isnan(beats).any():
        return np.median(beats, axis=0)
    ordered = np.sort(beats, axis=0)  # NaN comes last
    count = np.sum(~np.isnan(beats), axis=0, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    high = np.minimum(high, len(beats) - 1)
    return (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, high, 0)[0]) / 2
