"""From the filtered recording to the median beat: R peaks, beats, alignment, rejection, median."""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import find_peaks

from ecglib.beat import BEAT_SAMPLES, R_SAMPLE, RATE_HZ
from ecglib.signal import filters

REFRACTORY = 100  # samples in which no second beat can follow
MARGIN = 30  # samples around a detection in which its R peak lies
PQ = slice(200, 275)  # samples of a beat whose median is its zero before averaging
SHAPE = slice(200, 400)  # samples on which beats are compared


def r_peaks(signal: np.ndarray) -> np.ndarray:
    """Find the R peaks of ``(12, samples)`` in µV at 500 Hz; returns their samples in order.

    The detector (sleepecg, after Pan and Tompkins) sees the mean magnitude of the leads between 8
    and 40 Hz: one noisy lead weighs less there than on the root mean square (RMS). Peaks under a
    quarter of the usual height are dropped, gaps of 1.5 usual intervals searched again, and each
    peak moved to the largest RMS of the leads within ±60 ms.
    """
    # a compiler comes with it, which whoever has median beats can do without
    from sleepecg import detect_heartbeats

    f = filters.frequencies(signal.shape[-1])
    envelope = np.mean(
        np.abs(filters.apply(signal, filters.high_pass(8, f) * filters.low_pass(40, f))), axis=0
    )
    if np.ptp(envelope) < 1e-3:
        return np.zeros(0, dtype=int)
    peaks = np.asarray(detect_heartbeats(envelope.astype(float), RATE_HZ), dtype=int)
    peaks = np.unique([to_peak(envelope, p) for p in peaks]).astype(int)
    if len(peaks) >= 3:
        height, interval = np.median(envelope[peaks]), np.median(np.diff(peaks))
    else:  # the detector lost its way: each 1.5 s should hold a beat
        starts = np.arange(0, len(envelope), round(1.5 * RATE_HZ))
        height, interval = np.median(np.maximum.reduceat(envelope, starts)), RATE_HZ
    peaks = peaks[envelope[peaks] > 0.25 * height]
    bounds = np.concatenate([[-REFRACTORY], peaks, [len(envelope) + REFRACTORY]])
    for start, stop in zip(bounds[:-1] + REFRACTORY, bounds[1:] - REFRACTORY, strict=True):
        if stop - start > 1.5 * interval - 2 * REFRACTORY:
            more, _ = find_peaks(
                envelope[start:stop], height=0.4 * height, distance=max(0.6 * interval, REFRACTORY)
            )
            peaks = np.append(peaks, start + more)
    power = np.mean(signal**2, axis=0)
    peaks = np.unique([to_peak(power, p) for p in peaks]).astype(int)
    return peaks[np.diff(peaks, prepend=-REFRACTORY) >= REFRACTORY]


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
