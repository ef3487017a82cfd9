"""From a raw 12-lead recording to the median beat: `process` runs the whole chain on one recording.

The steps, pure functions all, follow the paper (section II.D) and the authors' later code.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import LEADS, R_SAMPLE, RATE_HZ
from ecglib.errors import Refusal
from ecglib.settings import Signal
from ecglib.signal import beats, fiducials, filters, quality, repair

MIN_BEATS = 3  # fewer make no median
REMARKS = ("rebuilt", "bridged", "narrow_band")  # reasons that cast no doubt
COLUMNS = ("n_beats", "n_used", "rr_ms", "noise_uv", "poor_quality", "quality_reasons")


class SignalError(Refusal, ValueError):
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
    rr_ms, noise_uv : float
        Median RR interval of all beats in ms; spread of the used beats about their median in µV,
        median lead.
    poor_quality, quality_reasons : bool, str
        Whether something is wrong with the recording, and what: short words joined by ``;``, as
        ``flat:V3;few_beats``.
    filtered, r_peaks, used : numpy.ndarray
        The filtered recording, float32 ``(12, samples)`` in µV at 500 Hz; R peaks in it; which of
        them were used.
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
    start: int = 0

    @property
    def is_beat(self) -> bool:
        """Whether it is centred on a QRS complex, as far as can be told."""
        return "not_qrs" not in self.quality_reasons.split(";")

    def columns(self) -> dict:
        """Return the scalars that go into the cohort's table."""
        return {name: getattr(self, name) for name in COLUMNS}


def process(signal: np.ndarray, rate: float, settings: Signal) -> Beat:
    """Turn one recording into its median beat.

    Parameters
    ----------
    signal : numpy.ndarray
        ``(12, samples)`` in µV in the order of `ecglib.LEADS`; a missing lead is all NaN.
    rate : float
        Sampling rate in Hz.
    settings : ecglib.settings.Signal
        The study's settings of the chain. With ``band_hz``, what the beats of another cohort hold,
        a recording that holds more is filtered to it; one that holds less gets the remark
        ``narrow_band``.

    Returns
    -------
    Beat
        Leads in order, aVR with its own sign; one of which nothing can be used is zero and in
        `quality_reasons`.

    Raises
    ------
    SignalError
        If shape or rate are impossible, or fewer than three usable beats are found.
    """
    filtered, reasons, start = prepare(signal, rate, settings)
    artefact = quality.artefacts(filtered)
    trusted = ~artefact.any(axis=1)
    seen = filtered[trusted] if trusted.sum() >= 6 else filtered
    envelope = beats.activity(seen)
    r, used = select(seen, envelope)
    if used.sum() < MIN_BEATS:
        raise SignalError(
            f"Usable beats: {used.sum()} of {len(r)} found; give a recording with at least "
            f"{MIN_BEATS}."
        )
    beat, spread, error = average(filtered, artefact, r[used])
    if not np.isfinite(spread).any():
        raise SignalError(
            "No lead can be used, since all are full of artefacts; give a cleaner recording."
        )
    reasons += quality.judge(beat, error, beats.cut(filtered[:6], r[used]).mean(axis=0), reasons)
    intervals, rough = np.diff(r), quality.roughness(filtered, r[used])
    reasons += quality.doubts(beat, intervals, beats.period(envelope), rough, used)
    return Beat(
        beat=beat,
        n_beats=len(r),
        n_used=int(used.sum()),
        rr_ms=float(np.median(intervals)) * 1000 / RATE_HZ,
        noise_uv=float(np.median(spread[np.isfinite(spread)])),
        poor_quality=any(reason.split(":")[0] not in REMARKS for reason in reasons),
        quality_reasons=";".join(reasons),
        filtered=filtered,
        r_peaks=r,
        used=used,
        start=start,
    )


def prepare(signal: np.ndarray, rate: float, settings: Signal) -> tuple[np.ndarray, list[str], int]:
    """Cut quiet ends, bridge gaps, filter, and rebuild leads: see `process` for what is given.

    Returned are the filtered recording ``(12, samples)`` in µV at 500 Hz, what was done and missed
    as quality reasons, and the sample of the recording with which it begins.
    """
    signal = np.asarray(signal, dtype=np.float32)
    if not 50 <= rate <= 20_000:
        raise SignalError(f"The sampling rate is {rate} Hz but must be between 50 and 20,000 Hz.")
    if signal.ndim != 2 or len(signal) != len(LEADS) or signal.shape[1] < 2 * rate:
        raise SignalError(
            f"The recording has the shape {signal.shape}; give 12 leads and at least 2 s of "
            "samples."
        )
    signal = np.where(np.isfinite(signal), signal, np.nan)
    alive = repair.live(signal, rate)
    signal, bridged, lost = repair.bridge_gaps(signal[:, alive], rate)
    if signal.shape[1] < 2 * rate or lost.all():
        raise SignalError(
            f"Only {signal.shape[1] / rate:.1f} s and {12 - lost.sum()} leads of the recording are "
            "usable; give one with at least 2 s of signal."
        )
    reasons = [f"bridged:{bridged:.0f}_ms"] if bridged else []
    reasons += quality.named("clipped", quality.clipped(signal))
    signal = filters.resample(signal, rate)
    band_hz = settings.band_hz or settings.low_pass_hz
    if settings.band_hz and band_hz > rate / 2:
        reasons.append(f"narrow_band:{rate / 2:g}_Hz")
    elif band_hz < min(settings.low_pass_hz, rate / 2):
        signal = filters.to_band(signal, RATE_HZ, band_hz)
    filtered = clean(signal, settings)
    flat = repair.flat(filtered) & ~lost
    flat[: repair.V1] = False
    filtered, rebuilt = repair.rebuild(filtered, lost | flat)
    reasons += quality.named("rebuilt", rebuilt) + quality.named("missing", lost & ~rebuilt)
    return filtered, reasons, round(alive.start * RATE_HZ / rate)


def clean(signal: np.ndarray, settings: Signal) -> np.ndarray:
    """Filter ``(12, samples)`` in µV at 500 Hz: pacing spikes, baseline, high frequencies,
    mains.
    """
    if settings.blank_pacing:
        signal = filters.blank_pacing(signal)
    f = filters.frequencies(signal.shape[-1])
    gain = filters.high_pass(settings.high_pass_hz, f) * filters.low_pass(settings.low_pass_hz, f)
    mains = filters.find_mains(signal) if settings.mains_hz == "find" else settings.mains_hz
    if mains in (50, 60):
        gain *= filters.notch(mains, f)
    filtered = filters.apply(signal, gain)
    middle = filtered.shape[-1] // 2
    # ten times as fast as numpy.median
    return filtered - np.partition(filtered, middle, axis=-1)[:, [middle]]


def select(signal: np.ndarray, envelope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the R peaks of a filtered recording ``(leads, samples)`` with its `envelope`, and
    which of their beats are to be used.

    Beats are aligned to each other, and the peak of their median is the R peak. Those are used that
    lie whole in the recording and are neither ectopic nor outliers.
    """
    r = beats.r_peaks(signal, envelope)
    if len(r) < MIN_BEATS:
        return r, np.zeros(len(r), dtype=bool)
    centre = beats.central(beats.cut(signal, r), r)
    r = beats.align(signal, r, beats.cut(signal, r[[centre]])[0])
    cut = beats.cut(signal, r)
    regular = beats.regular(cut, centre)
    if regular.sum() < MIN_BEATS:
        return r, regular
    # 4 ms: bandwidth mustn't move the peak
    middle = gaussian_filter1d(beats.median(cut[regular]), 2, axis=-1)
    r = r + beats.to_peak(np.mean(middle**2, axis=0), R_SAMPLE) - R_SAMPLE
    return r, regular & beats.whole(r, signal.shape[-1])


def average(
    signal: np.ndarray, artefact: np.ndarray, r: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the median over the beats at `r`, leaving out artefacts lead by lead; zero is the level
    before the QRS.

    Each beat is taken minus the median of its samples 200 to 275, which one beat's noise moves
    least; but P may lie in them, so the median beat is then moved to its mean from 20 to 4 ms
    before the QRS, the reference of ST levels.

    A beat is left out of a lead where it touches an artefact or lies three times as far from the
    median as is usual. Returned are the median beat ``(12, 600)``, zero in a lead of which nothing
    is left; the standard deviation of the beats about it ``(12,)``; and its standard error
    ``(12,)``, for normal noise 1.25 times that of a mean. Both are in µV, on samples 200 to 400,
    and infinite where nothing is left.
    """
    cut = beats.cut(signal, r)
    cut = cut - np.median(cut[..., beats.PQ], axis=-1, keepdims=True)
    cut[beats.cut(artefact, r).any(axis=-1)] = np.nan
    shape = cut[..., beats.SHAPE]
    away = np.sqrt(np.mean((shape - beats.median(shape)) ** 2, axis=-1))
    cut[away > 3 * beats.median(away) + 30] = np.nan
    beat = beats.median(cut)
    left = np.sum(~np.isnan(cut[..., 0]), axis=0)
    squares = np.nansum(np.mean((shape - beat[:, beats.SHAPE]) ** 2, axis=-1), axis=0)
    spread = np.sqrt(np.where(left > 0, squares / np.maximum(left, 1), np.inf))
    beat = np.nan_to_num(beat)
    beat = np.where(left[:, None] > 0, beat - fiducials.level_before_qrs(beat), 0)
    return beat.astype(np.float32), spread, 1.25 * spread / np.sqrt(np.maximum(left, 1))
