"""From a raw 12-lead recording to the median beat: `process` runs the whole chain on one recording.

The steps and their values follow the paper (section II.D) and the authors' later code, each a pure function of
`filters`, `beats`, `quality` and `fiducials`.
"""

from dataclasses import dataclass

import numpy as np

from ecglib import BEAT_SAMPLES, R_SAMPLE, RATE_HZ
from ecglib.params import Signal
from ecglib.signal import beats, filters


class SignalError(ValueError):
    """A recording no median beat can be made of; the message is one sentence."""


@dataclass(frozen=True)
class Beat:
    """A median beat, what it was made of, and how far it can be trusted.

    Attributes
    ----------
    beat : numpy.ndarray
        float32 ``(12, 600)`` in µV at 500 Hz, R peak at sample 300, never NaN.
    n_beats, n_used : int
        R peaks found, and beats the median was taken of.
    rr_ms : float
        Median RR interval of all beats, in ms.
    noise_uv : float
        Spread of the used beats about their median, in µV.
    poor_quality : bool
        Whether something is wrong with the recording.
    quality_reasons : str
        What, as short words joined by ``;``.
    filtered : numpy.ndarray
        float32 ``(12, samples)`` in µV at 500 Hz: the recording the beats were cut from.
    r_peaks, used : numpy.ndarray
        Samples of the R peaks in `filtered`, and which of these beats were used.
    """

    beat: np.ndarray
    n_beats: int
    n_used: int
    rr_ms: float
    noise_uv: float
    poor_quality: bool
    quality_reasons: str
    filtered: np.ndarray
    r_peaks: np.ndarray
    used: np.ndarray

    def columns(self) -> dict:
        """Return the scalars that go into the cohort's table."""
        names = ("n_beats", "n_used", "rr_ms", "noise_uv", "poor_quality", "quality_reasons")
        return {name: getattr(self, name) for name in names}


def process(signal: np.ndarray, rate: float, settings: Signal) -> Beat:
    """Turn one recording into its median beat.

    Parameters
    ----------
    signal : numpy.ndarray
        float32 ``(12, samples)`` in µV in the order of `ecglib.LEADS`; a missing lead is all NaN.
    rate : float
        Sampling rate in Hz.
    settings : ecglib.params.Signal
        The study's settings of the chain.

    Raises
    ------
    SignalError
        If fewer than three usable beats are found.
    """
    signal = np.nan_to_num(np.asarray(signal, dtype=np.float32))
    signal = filters.resample(signal, rate)
    if settings.blank_pacing:
        signal = filters.blank_pacing(signal)
    f = filters.frequencies(signal.shape[-1])
    gain = filters.high_pass(settings.high_pass_hz, f) * filters.low_pass(settings.low_pass_hz, f)
    mains = filters.find_mains(signal) if settings.mains_hz == "find" else settings.mains_hz
    if mains in (50, 60):
        gain = gain * filters.notch(mains, f)
    filtered = filters.apply(signal, gain).astype(np.float32)
    filtered -= np.median(filtered, axis=-1, keepdims=True)
    r = beats.r_peaks(filtered)
    inside = (r >= R_SAMPLE + beats.MARGIN) & (r <= filtered.shape[-1] - (BEAT_SAMPLES - R_SAMPLE) - beats.MARGIN)
    if inside.sum() < 3:
        raise SignalError(f"Only {inside.sum()} whole beats were found; at least 3 are needed")
    r[inside] = beats.align(filtered, r[inside])
    cut = beats.cut(filtered, r[inside])
    likeness = beats.similarity(cut)
    centre = np.argmax(np.median(likeness, axis=1))
    alike = likeness[centre] > 0.85
    used = inside.copy()
    used[inside] = alike
    if alike.sum() < 3:
        raise SignalError(f"Only {alike.sum()} beats of one shape were found; at least 3 are needed")
    median = beats.median(cut[alike])
    noise = float(np.sqrt(np.mean((cut[alike] - median) ** 2)))
    rr_ms = float(np.median(np.diff(r)) * 1000 / RATE_HZ)
    return Beat(median.astype(np.float32), len(r), int(alike.sum()), rr_ms, noise, False, "", filtered, r, used)
