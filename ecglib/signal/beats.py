"""From the filtered recording to the median beat: R peaks, beats, alignment, rejection, median."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from ecglib.beat import BEAT_SAMPLES, R_SAMPLE, RATE_HZ
from ecglib.signal import filters

REFRACTORY = 100  # samples in which no second beat can follow
WINDOW = 750  # samples in which a beat is expected
LIMITS = 0.25, 0.6  # of the usual height: between them lies the least height of a QRS complex
MARGIN = 30  # samples around a detection in which its R peak lies
PQ = slice(200, 275)  # samples of a beat whose median is its zero before averaging
SHAPE = slice(200, 400)  # samples on which beats are compared


def r_peaks(signal: np.ndarray, envelope: np.ndarray) -> np.ndarray:
    """Find the R peaks of ``(leads, samples)`` in µV at 500 Hz; returns their samples in order.

    Peaks are sought in the `envelope`, the `activity` of these leads. Most windows of 1.5 s hold a
    QRS complex, down to a rate of 30 a minute, so the median of their maxima is its usual height,
    whatever the pauses hold. Between 0.25 and 0.6 of that, the limit is laid through the widest gap
    in the peaks' heights, which parts small complexes from large T waves; a lower peak may be a
    broad ectopic beat. Each is then moved to the largest RMS of the leads within ±60 ms.
    """
    peaks, _ = find_peaks(envelope, distance=REFRACTORY)
    starts = np.arange(0, max(len(envelope) - WINDOW // 2, 1), WINDOW)
    height = np.median(np.maximum.reduceat(envelope, starts))
    if not len(peaks) or height < 1e-3:
        return np.zeros(0, dtype=int)
    low, high = LIMITS
    ratios = np.sort(envelope[peaks] / height)
    steps = np.concatenate([[low], ratios[(ratios > low) & (ratios < high)], [high]])
    widest = np.argmax(steps[1:] / steps[:-1])
    sharp = envelope[peaks] > height * np.sqrt(steps[widest] * steps[widest + 1])
    power = np.mean(signal**2, axis=0)
    peaks = np.array([to_peak(power, p) for p in peaks])
    peaks = np.concatenate([peaks[sharp], _broad(peaks[~sharp], peaks[sharp], power)])
    peaks = np.unique(peaks)
    near = np.flatnonzero(np.diff(peaks) < REFRACTORY)  # of two, the larger stays
    return np.delete(peaks, near + (power[peaks[near]] >= power[peaks[near + 1]]))


def _broad(peaks: np.ndarray, known: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Which of the dull `peaks` are broad ectopic beats: of half the usual power of the `known`
    ones, and half an interval or more from each.
    """
    if len(known) < 3:
        return peaks[:0]
    apart = np.abs(peaks[:, None] - known).min(axis=1) >= 0.5 * np.median(np.diff(known))
    return peaks[apart & (power[peaks] >= 0.5 * np.median(power[known]))]


def activity(signal: np.ndarray) -> np.ndarray:
    """Mean magnitude of the leads ``(leads, samples)`` between 8 and 25 Hz, smoothed over 80 ms.

    The band holds most of a QRS complex, little of P and T, and little of a pacing spike. One noisy
    lead weighs less in a mean magnitude than in a root mean square (RMS).
    """
    f = filters.frequencies(signal.shape[-1])
    band = filters.high_pass(8, f) * filters.low_pass(25, f)
    return uniform_filter1d(np.mean(np.abs(filters.apply(signal, band)), axis=0), 40)


def period(envelope: np.ndarray) -> float:
    """How often the `activity` repeats, in samples: a heart rate that knows no peak; NaN if it
    doesn't.

    It is the shortest lag from 0.25 to 2.5 s at which its autocorrelation has a peak of at least
    half of that at 0, and of 0.8 of the highest such peak.
    """
    x = envelope - envelope.mean()
    length = next_fast_len(2 * len(x), real=True)
    lags = min(round(2.5 * RATE_HZ), len(x) // 2)
    alike = irfft(np.abs(rfft(x, length)) ** 2, length)[:lags] / (len(x) - np.arange(lags))
    peaks, _ = find_peaks(alike)
    peaks = peaks[(peaks >= RATE_HZ / 4) & (alike[peaks] >= 0.5 * alike[0])]
    strong = alike[peaks] >= 0.8 * alike[peaks].max(initial=0)
    return float(peaks[strong][0]) if strong.any() else np.nan


def to_peak(envelope: np.ndarray, r: int, reach: int = MARGIN) -> int:
    """Move a peak to the largest value within ±`reach` samples."""
    start = max(r - reach, 0)
    return start + int(np.argmax(envelope[start : r + reach + 1]))


def whole(r: np.ndarray, samples: int) -> np.ndarray:
    """Which peaks have a whole beat around them in a recording of that many samples."""
    return (r >= R_SAMPLE) & (r <= samples - (BEAT_SAMPLES - R_SAMPLE))


def cut(signal: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Cut ±300 samples around each peak: ``(beats, leads, 600)``; past its ends the recording keeps
    its last value.
    """
    window = np.clip(r[:, None] + np.arange(BEAT_SAMPLES) - R_SAMPLE, 0, signal.shape[-1] - 1)
    return signal[:, window].swapaxes(0, 1)


def shapes(beats: np.ndarray) -> np.ndarray:
    """Samples 200 to 400 of each lead minus their mean: ``(beats, leads * 200)``."""
    part = beats[..., SHAPE]
    return (part - part.mean(axis=-1, keepdims=True)).reshape(len(beats), -1)


def similarity(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Correlation of every shape in `one` with every shape in `two`."""
    return (
        one
        @ two.T
        / np.maximum(np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)), 1e-9)
    )


def central(beats: np.ndarray, r: np.ndarray) -> int:
    """Pick the beat whose kind rules the rhythm.

    Its look-alikes (correlation above 0.9) are together preceded by the longest time, so in
    bigeminy it is the beat after the pause, not the premature one; among equals, it is the most
    typical.
    """
    alike = similarity(shapes(beats), shapes(beats))
    before = np.diff(r, prepend=r[0] - np.median(np.diff(r)))
    return int(np.argmax((alike > 0.9) @ before + alike.mean(axis=1)))


def align(signal: np.ndarray, r: np.ndarray, template: np.ndarray, reach: int = 15) -> np.ndarray:
    """Shift each peak, within ±`reach` samples, to where its beat fits the `template` ``(12, 600)``
    best.
    """
    window = r[:, None] + np.arange(SHAPE.start - reach, SHAPE.stop + reach) - R_SAMPLE
    parts = signal[:, np.clip(window, 0, signal.shape[-1] - 1)]
    pattern = template[:, SHAPE] - template[:, SHAPE].mean(axis=1, keepdims=True)
    # correlation over all shifts at once
    length = next_fast_len(parts.shape[-1] + pattern.shape[-1], real=True)
    spectrum = rfft(parts, length) * np.conj(rfft(pattern, length))[:, None]
    return r - reach + np.argmax(irfft(spectrum.sum(axis=0), length)[:, : 2 * reach + 1], axis=1)


def regular(beats: np.ndarray, centre: int) -> np.ndarray:
    """Which beats ``(n, 12, 600)`` have the shape and size of the beats like the central one.

    A beat is ectopic or an outlier if its correlation with the median of the look-alikes is under
    0.92 of their usual one, or if its size is less than half or more than twice theirs.
    """
    shape = shapes(beats)
    first = similarity(shape, shape[centre : centre + 1])[:, 0]
    kin = first >= min(0.9, 0.9 * np.sort(first)[-2])
    usual = median(shape[kin])[None]
    likeness = similarity(shape, usual)[:, 0]
    size = np.linalg.norm(shape, axis=1) / max(np.linalg.norm(usual), 1e-9)
    return (likeness >= 0.92 * np.median(likeness[kin])) & (size > 0.5) & (size < 2)


def median(beats: np.ndarray) -> np.ndarray:
    """Median over beats ``(beats, ...)``, leaving out NaN; NaN where nothing is left (a sort beats
    `numpy.median`).
    """
    ordered = np.sort(beats, axis=0)  # NaN comes last
    count = np.sum(~np.isnan(beats), axis=0, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(beats) - 1)
    return (np.take_along_axis(ordered, low, 0)[0] + np.take_along_axis(ordered, high, 0)[0]) / 2
