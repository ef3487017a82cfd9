"""Filters on the whole recording: all zero phase, all leads at once, in µV.

A symmetric recording (mirrored at both ends) has a discrete cosine transform; multiplying it by a
real gain is a filter without delay and without a jump at the ends, so every filter here is one gain
over frequency.
"""

from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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

    At the 0.7 Hz of the authors' later code it takes off some of ST, too, where the heart is slow:
    80 ms behind the J point, by the shape of ST, 12–16 % at 35 beats a minute, 5–8 % at 60 and
    2–4 % at 80. The paper's recorder has 0.05 Hz, which doesn't.
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
    """Replace pacing spikes in ``(12, samples)`` by straight lines from the sample before to the
    one after, in each lead where its own spike is.

    A spike is a peak of the leads' mean power above 80 Hz at which their power stands alone: 95 %
    of the energy of 60 ms lies in 14 ms, which may lie up to 20 ms earlier or later in one lead
    than in another, since some recorders write them so. A QRS complex has its energy there in
    several slopes, so it isn't touched.
    """
    samples = signal.shape[-1]
    energy = apply(signal, high_pass(80, frequencies(samples))) ** 2
    power = energy.mean(axis=0)
    peaks, _ = find_peaks(power, height=max(60**2, 36 * np.median(power)), distance=15)
    if not peaks.size:
        return signal
    near = energy[:, np.clip(peaks[:, None] + np.arange(-20, 21), 0, samples - 1)]
    within = sliding_window_view(near[..., 7:-7], 7, axis=-1).sum(axis=-1)  # centres -10 to 10
    alone = within.max(axis=-1).sum(axis=0) > 0.95 * near.sum(axis=(0, 2))
    centre = peaks + within.argmax(axis=-1) - 10
    high = alone & (within.max(axis=-1) > 60**2)
    blanked = signal.copy()
    for i in np.flatnonzero(high.any(axis=1)):
        spikes = centre[i, high[i]]
        lost = np.clip(spikes[:, None] + np.arange(-4, 6), 0, samples - 1)
        blanked[[i]] = bridge(signal[[i]], np.isin(np.arange(samples), lost))
    return blanked


def bridge(signal: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Replace the samples where `lost` ``(samples,)`` of ``(leads, samples)`` by straight lines."""
    at, keep = np.flatnonzero(lost), np.flatnonzero(~lost)
    filled = signal.copy()
    for lead in filled:
        lead[at] = np.interp(at, keep, lead[keep])
    return filled


def to_band(signal: np.ndarray, rate: float, hz: float) -> np.ndarray:
    """Filter a recording ``(12, samples)``, or a beat, at `rate` Hz to the band that files of
    ``2 * hz`` Hz hold.

    The gain falls from 1 to 0 between 0.8 and 1.0 of `hz`, as that of an anti-aliasing filter.
    """
    f = frequencies(signal.shape[-1]) * (rate / RATE_HZ)
    gain = np.cos(np.pi / 2 * np.clip((f / hz - 0.8) / 0.2, 0, 1)) ** 2
    return apply(signal, gain).astype(np.float32)
