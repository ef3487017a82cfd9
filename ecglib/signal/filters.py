"""Filters on the whole recording: all zero phase, all leads at once, in µV.

A symmetric recording (mirrored at both ends) has a discrete cosine transform; multiplying it by a
real gain is a filter without delay and without a jump at the ends, so every filter here is one gain
over frequency.
"""

from fractions import Fraction

import numpy as np
from scipy.fft import dct, idct
from scipy.signal import find_peaks, resample_poly

from ecglib.beat import RATE_HZ


def resample(signal: np.ndarray, rate: float) -> np.ndarray:
    """Resample ``(12, samples)`` at `rate` Hz to 500 Hz with a polyphase anti-aliasing filter (no
    delay).
    """
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    if ratio == 1:
        return signal
    return resample_poly(
        signal, ratio.numerator, ratio.denominator, axis=-1, padtype="line"
    ).astype(np.float32)


def frequencies(samples: int) -> np.ndarray:
    """Frequencies in Hz of the cosine transform of that many samples at 500 Hz."""
    return np.arange(samples, dtype=np.float32) * (RATE_HZ / 2 / samples)


def high_pass(hz: float, f: np.ndarray) -> np.ndarray:
    """Gain at frequencies `f` of a second-order Butterworth high-pass, −3 dB at `hz`: takes off
    baseline wander.
    """
    return f**2 / np.sqrt(f**4 + hz**4)


def low_pass(hz: float, f: np.ndarray) -> np.ndarray:
    """Gain at frequencies `f` of a fourth-order Butterworth low-pass, −3 dB at `hz`."""
    return 1 / np.sqrt(1 + (f / hz) ** 8)


def notch(hz: float, f: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Gain at frequencies `f` of notches `width` Hz wide at `hz` and its multiples below 200 Hz."""
    gain = np.ones_like(f)
    for tone in np.arange(hz, 200, hz):
        away = (f**2 - tone**2) ** 2
        gain *= away / (away + (f * width) ** 2)
    return gain


def apply(signal: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Filter ``(leads, samples)`` with a zero-phase gain over `frequencies(samples)`."""
    return idct(dct(signal, axis=-1, norm="ortho") * gain, axis=-1, norm="ortho")


def find_mains(signal: np.ndarray) -> int | None:
    """Find mains interference in ``(leads, samples)`` at 500 Hz: 50, 60 or None.

    The tone within ±0.3 Hz stands more than 8 times above the median amplitude up to 5 Hz to either
    side.
    """
    f = frequencies(signal.shape[-1])
    amplitude = np.sqrt(np.mean(dct(signal, axis=-1) ** 2, axis=0))
    tone = {hz: amplitude[abs(f - hz) <= 0.3].max() for hz in (50, 60)}
    usual = {hz: np.median(amplitude[(abs(f - hz) > 1) & (abs(f - hz) <= 5)]) for hz in tone}
    hz = max(tone, key=lambda hz: tone[hz] / (usual[hz] + 1e-9))
    return hz if tone[hz] > 8 * usual[hz] else None


def blank_pacing(signal: np.ndarray) -> np.ndarray:
    """Replace pacing spikes in ``(12, samples)`` by a straight line from the sample before to the
    one after.

    A spike is a peak of the power above 80 Hz that stands alone: 93 % of the energy of 60 ms lies
    in 14 ms. A QRS complex has its energy there in several slopes, so it isn't touched.
    """
    samples = signal.shape[-1]
    energy = np.mean(apply(signal, high_pass(80, frequencies(samples))) ** 2, axis=0)
    peaks, _ = find_peaks(energy, height=max(60**2, 36 * np.median(energy)), distance=15)
    near = energy[np.clip(peaks[:, None] + np.arange(-15, 16), 0, samples - 1)]
    spikes = peaks[near[:, 12:19].sum(axis=1) > 0.93 * near.sum(axis=1)]
    lost = np.unique(np.clip(spikes[:, None] + np.arange(-4, 6), 0, samples - 1))
    return bridge(signal, np.isin(np.arange(samples), lost)) if lost.size else signal


def bridge(signal: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Replace the samples where `lost` ``(samples,)`` of ``(leads, samples)`` by straight lines."""
    at, keep = np.flatnonzero(lost), np.flatnonzero(~lost)
    filled = signal.copy()
    for lead in filled:
        lead[at] = np.interp(at, keep, lead[keep])
    return filled
