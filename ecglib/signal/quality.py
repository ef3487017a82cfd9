"""What is wrong with a recording: leads that are missing, flat, clipped or noisy, and electrodes
that are mixed up.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import LEADS, R_SAMPLE, RATE_HZ
from ecglib.signal import fiducials, repair

FEW_BEATS, FEW_USED = 5, 0.5  # less is flagged, of beats and as a share of those found
ROUGH = 12.0  # µV from sample to sample
WINDOW = round(1.25 * RATE_HZ)  # samples of an artefact window
ONE, TWO, THREE, AVR, V1, V6 = (LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "V1", "V6"))


def named(reason: str, leads: np.ndarray) -> list[str]:
    """Turn flags ``(12,)`` into words, for example ``flat:V3``."""
    return [f"{reason}:{LEADS[i]}" for i in np.flatnonzero(leads)]


def clipped(signal: np.ndarray) -> np.ndarray:
    """Which leads of the raw recording ``(12, samples)`` were cut off at the end of their range.

    At least 0.5 % of the samples, three or more of them in a row, hold exactly the lead's highest
    or lowest value, and that value is far out: more than 50 µV and twice the lead's interquartile
    range from its median.
    """
    quarters = np.array([1, 2, 3]) * signal.shape[1] // 4
    low, middle, high = np.partition(signal, quarters, axis=1)[:, quarters].T
    flags = np.zeros(len(signal), dtype=bool)
    for extreme in (signal.max(axis=1), signal.min(axis=1)):
        at = signal == extreme[:, None]
        run = (at[:, 2:] & at[:, 1:-1] & at[:, :-2]).any(axis=1)
        flags |= (
            run & (at.mean(axis=1) >= 0.005) & (np.abs(extreme - middle) > 2 * (high - low) + 50)
        )
    return flags


def artefacts(signal: np.ndarray) -> np.ndarray:
    """Mark what to leave out of the filtered recording: ``(12, samples)`` of bool, in windows of
    1.25 s a lead.

    A window is left out if its range or the root mean square of its slope is more than three times,
    or its range less than a twentieth, of the lead's median over windows, or if it spans more than
    15 mV.
    """
    starts = np.arange(0, max(signal.shape[-1] - WINDOW // 2, 1), WINDOW)
    lengths = np.diff(np.append(starts, signal.shape[-1]))
    span = np.maximum.reduceat(signal, starts, axis=1) - np.minimum.reduceat(signal, starts, axis=1)
    slope = np.sqrt(
        np.add.reduceat(np.diff(signal, append=signal[:, -1:]) ** 2, starts, axis=1) / lengths
    )
    usual, steep = np.median(span, axis=1, keepdims=True), np.median(slope, axis=1, keepdims=True)
    bad = (span > 3 * usual + 100) | (slope > 3 * steep + 5) | (span < usual / 20) | (span > 15_000)
    return np.repeat(bad, lengths, axis=1)


def judge(beat: np.ndarray, error: np.ndarray, limb: np.ndarray, known: list[str]) -> list[str]:
    """Say what is wrong with a median `beat` ``(12, 600)`` in µV, given the mean beat of its limb
    leads ``(6, 600)``.

    A lead is flat if it spans less than 30 µV, noisy if the standard `error` ``(12,)`` of its
    median is over 50 µV or an eighth of its span. A reason in `known` is a lead's only one;
    electrodes are judged on limb leads without any.
    """
    fine = np.array(
        [
            not any(k.endswith(f":{lead}") and not k.startswith("rebuilt") for k in known)
            for lead in LEADS
        ]
    )
    span = np.ptp(beat, axis=1)
    flat = fine & (span < 30) & np.isfinite(error)
    noisy = fine & ~flat & ((error > 50) | (8 * error > span))
    fine &= ~flat & ~noisy
    wrong = contradictions(limb) if fine[:V1].all() else []
    if not wrong and fine[:V1].all() and fine[V6] and limb_swap(beat):
        wrong = ["limb_swap"]
    return named("flat", flat) + named("noisy", noisy) + wrong


def doubts(
    beat: np.ndarray, intervals: np.ndarray, period: float, rough: float, used: np.ndarray
) -> list[str]:
    """Say why a median `beat` ``(12, 600)`` may be none, or not be typical of the recording.

    ``not_qrs``: its steepest slope, within half an RR interval, lies more than 120 ms from R, while
    that of a broad complex lies within 115. ``unsure_rate``: the recording repeats with a `period`
    (samples, NaN if none) that isn't the median of the RR `intervals` (samples) by 15 %, and is
    either shorter, so that beats were missed, or longer while a quarter of the intervals is under
    400 ms, so that P, T or pacing spikes were taken for beats; ectopic beats come later. ``noise``:
    the leads are `rough` (see `roughness`). ``few_beats``, ``few_used``: less than five of the
    beats found, or less than half of them, were `used`.
    """
    told, rr = [], float(np.median(intervals))
    reach = int(min(R_SAMPLE, max(rr / 2, 100)))
    part = gaussian_filter1d(beat[:, R_SAMPLE - reach : R_SAMPLE + reach], 2, axis=-1)
    if abs(np.mean(np.gradient(part, axis=-1) ** 2, axis=0).argmax() - reach) > 60:
        told.append("not_qrs")
    close = np.percentile(intervals, 25) < 0.4 * RATE_HZ
    if period < 0.85 * rr or (period > 1.15 * rr and close):
        told.append("unsure_rate")
    if rough > ROUGH:
        told.append("noise")
    if used.sum() < FEW_BEATS:
        told.append("few_beats")
    if used.mean() < FEW_USED:
        told.append("few_used")
    return told


def roughness(signal: np.ndarray, r: np.ndarray) -> float:
    """How much a lead of ``(12, samples)`` changes from sample to sample by noise, in µV.

    It is the root mean square of the differences, from 200 to 50 ms before the R peaks `r`, about
    their median over beats; the median over beats and leads. Broadband noise of 50 µV on each
    electrode gives 20 or more, 98 % of the recordings of PTB-XL less than 7.
    """
    steps = np.diff(signal[:, r[:, None] + np.arange(-100, -25)], axis=-1)
    steps -= np.median(steps, axis=1, keepdims=True)
    return float(np.median(np.sqrt(np.mean(steps**2, axis=-1))))


def contradictions(limb: np.ndarray) -> list[str]:
    """Check the mean beat of the limb leads ``(6, 600)``; a channel mislabelled or mis-scaled shows
    here.

    A mean, unlike a median, obeys Einthoven's and Goldberger's laws if the recording does. III −
    (II − I), and each augmented lead minus what I and II make it, must vary by less than 15 µV, or
    a tenth of what the limb leads do.
    """
    off = np.std(limb[THREE:] - repair.limb_leads(limb[:2])[THREE:], axis=1)
    bad = off > max(15, 0.1 * np.sqrt(np.mean(np.var(limb, axis=1))))
    if bad[0]:
        return ["einthoven"]  # the augmented leads can't be judged by leads that disagree
    return [f"goldberger:{LEADS[AVR + k]}" for k in np.flatnonzero(bad[1:])]


def limb_swap(beat: np.ndarray) -> bool:
    """Whether arm or leg electrodes were probably mixed up, from the median beat ``(12, 600)``.

    Arms: I runs against V6 from QRS to T, and P in I is inverted (without P: more so, and QRS in I
    is negative). Right arm and left leg: P and QRS point up in aVR, P down in II. Right arm and
    right leg: II is all but flat. An exchange of left arm and left leg mostly looks like an
    ordinary axis and isn't told.
    """
    if np.ptp(beat[TWO]) < 0.1 * min(np.ptp(beat[ONE]), np.ptp(beat[THREE])):
        return True
    one, six, qrs = (
        beat[ONE, 275:505],
        beat[V6, 275:505],
        beat[:, 275:326].mean(axis=1) - beat[:, 275],
    )
    agree = one @ six / max(np.linalg.norm(one) * np.linalg.norm(six), 1e-9)
    if agree >= -0.3 and qrs[AVR] <= 0:
        return False  # most recordings: no need to look for P
    p_on, _, p_off = fiducials.overall(beat[None])[0, :3]
    if np.isnan(p_on):
        return bool(agree < -0.7 and qrs[ONE] < 0)
    p = beat[:, int(p_on) : int(max(p_on, p_off)) + 1].mean(axis=1) - beat[:, int(p_on)]
    return bool((agree < -0.3 and p[ONE] < -5) or (p[AVR] > 5 and p[TWO] < -5 and qrs[AVR] > 0))
