"""Engineered features of median beats: the families of the 74 published with the random forest.

Every feature is described in ``features.csv`` beside this module: name (that of the published
tables), family, unit, definition, source, where it differs from the published column, the leads
that it needs, and whether it needs a T wave. Voltages are measured from the level of the 20 ms
before QRS; the vectorcardiogram is that of Kors et al. 1990. What can't be computed for a beat is
missing (NaN): PR without a P wave, whatever needs a T wave without one, whatever needs a lead that
is flat.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from ecglib.beat import BEAT_SAMPLES, LEADS, RATE_HZ
from ecglib.signal import fiducials

DEFINITIONS = pd.read_csv(
    Path(__file__).with_name("features.csv"), index_col="name", keep_default_na=False
)
MEASURED = DEFINITIONS.drop(index="Age")  # what a beat tells
NAMES = tuple(MEASURED.index)

MS = 1000 / RATE_HZ
CHUNK = 500  # beats at a time: keeps memory flat
T = np.arange(BEAT_SAMPLES)
EIGHT = [0, 1, *range(6, 12)]  # I, II, V1–V6: the others follow from these
SEVEN = [0, 1, 3, 4, 5, 6, 7]  # of the eight: without V1, as TMD is defined
USUAL = 275, 330, 430, 480  # onset and end of QRS, peak and end of T, where they aren't found
NEEDED = {"": [], "limb": [0, 1, 2], "eight": EIGHT} | {lead: [k] for k, lead in enumerate(LEADS)}
LATERAL, ANTERIOR = [0, 4, 10, 11], [6, 7, 8, 9]  # I, aVL, V5, V6; V1–V4
AWAY = np.arange(1, 51)  # samples from the peak of T to the points of its flanks

KORS = np.array([
    [0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54],
    [-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13],
    [0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31],
], dtype=np.float32)  # fmt: skip
"""Regression matrix of Kors et al. 1990: X (left), Y (down), Z (back) from the leads of `EIGHT`."""

T_REFERENCE = np.array([[0.30, 0.10, -0.95]])
"""Direction of spatialTaxisDev in (X, Y, Z) that fits the published tables best; theirs isn't
published.
"""

# a smaller deflection is neither a Q nor an R wave; with no larger one in any lead there is no T
# wave
WAVE_UV = 20

SELVESTER = pd.read_csv(Path(__file__).with_name("selvester.csv"))
"""Simplified QRS score of Wagner et al. 1982, 29 points: q, r durations in ms, quotients of
amplitudes. Of the rows of one lead and measure, the one with most points counts.
"""


def features(beats: np.ndarray, rr_ms: np.ndarray) -> pd.DataFrame:
    """Compute all features of median beats.

    Parameters
    ----------
    beats : numpy.ndarray
        ``(n, 12, 600)`` in µV at 500 Hz, leads as `ecglib.LEADS`, R peak at sample 300.
    rr_ms : array_like
        ``(n,)`` median RR interval in ms; NaN leaves heart rate and JTc missing.

    Returns
    -------
    pandas.DataFrame
        float64 ``(n, 73)``, columns `NAMES`, in the order of `beats`.
    """
    rr_ms = np.asarray(rr_ms, dtype=np.float64)
    starts = range(0, len(beats), CHUNK)
    parts = [_chunk(beats[i : i + CHUNK], rr_ms[i : i + CHUNK]) for i in starts]
    return pd.concat(parts, ignore_index=True)


def vectorcardiogram(beats: np.ndarray) -> np.ndarray:
    """Vectorcardiogram ``(n, 3, samples)`` of ``(n, 12, samples)``: X left, Y down, Z back."""
    return KORS @ np.asarray(beats, dtype=np.float32)[:, EIGHT]


def _chunk(beats, rr_ms):
    x, rr_ms = np.asarray(beats, dtype=np.float32), np.where(rr_ms > 0, rr_ms, np.nan)
    points = fiducials.overall(x)
    p_on, *others = points[:, [0, 3, 5, 6, 7]].T
    q, j, t_peak, t_end = others
    out = {"HR": 60_000 / rr_ms, "PR": MS * (q - p_on), "QRSd": MS * (j - q)}
    out |= {"JTc": MS * (t_end - j) / np.sqrt(rr_ms / 1000), "TpTe": MS * (t_end - t_peak)}
    has_qrs, has_t = np.isfinite(q + j), np.isfinite(t_end)
    marks = [np.where(np.isnan(at), usual, at) for at, usual in zip(others, USUAL, strict=True)]
    q, j, t_peak, t_end = np.rint(marks).astype(int)[..., None]
    # The onset of T isn't marked: it is put 1.5 times as far before its peak as its end lies after.
    t_on = np.maximum(j + 10, t_peak - (3 * (t_end - t_peak)) // 2)
    spans = (q, j), (j, t_end), (t_on, t_end), (j - 19, j), (j, j + 29)
    qrs, st_t, t_wave, late, after_j = ((first <= T) & (last >= T) for first, last in spans)

    x = x - np.median(_take(x, np.maximum(q - np.arange(1, 11), 0)[:, None]), 2, keepdims=True)
    out |= _vectors(x, qrs, late, t_wave, t_on, t_peak)
    out |= _components(x, {"QRS": qrs, "J": after_j, "STT": st_t, "T": t_wave}, t_peak)
    out |= _deflections(x, q, j, qrs) | _repolarisation(x, j, qrs, st_t, t_wave)
    table = pd.DataFrame(out, columns=NAMES, dtype=np.float64)
    has_t &= table.filter(like="tamp_").abs().max(axis=1) >= WAVE_UV
    table.loc[~has_t, MEASURED.needs_t == "yes"] = np.nan
    table.loc[~has_qrs] = np.nan
    flat = np.ptp(x, axis=2) == 0  # a lead that isn't there
    for leads, part in MEASURED.groupby("leads"):
        table.loc[flat[:, NEEDED[leads]].any(axis=1), part.index] = np.nan
    return table


def _mean(values, mask):
    """Mean over the samples of `mask`: ``(n, k, 600)`` to ``(n, k)``."""
    total = np.einsum("nkt,nt->nk", values, mask.astype(values.dtype))
    return total / np.maximum(mask.sum(axis=1), 1)[:, None]


def _take(values, index):
    """Values at samples ``(…, k)`` of the last axis."""
    return np.take_along_axis(values, index, axis=-1)


def _top(values, mask):
    """Sample of the largest value within `mask`: ``(…, 600)`` to ``(…, 1)``."""
    return np.where(mask, values, -np.inf).argmax(axis=-1)[..., None]


def _at(values, index):
    """Values ``(n, k, 600)`` at one sample ``(n, 1)`` of each beat: ``(n, k)``."""
    return _take(values, index[:, None])[..., 0]


def _each(name, values):
    """Values ``(n, 12)`` as one feature a lead."""
    return {f"{name}_{lead}": values[:, k] for k, lead in enumerate(LEADS)}


def _degrees(cosine):
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _angle(one, other):
    """Return the angle between vectors ``(n, k)`` in degrees."""
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return _degrees(np.sum(one * other, axis=1) / np.where(length > 0, length, np.nan))


def _frontal(x):
    """Frontal vector ``(n, 2)``, left and down, from limb leads ``(n, 12)``."""
    return np.stack([x[:, 0], (x[:, 1] + x[:, 2]) / np.sqrt(3)], axis=1)


def _axis(plane):
    """Direction of vectors ``(n, 2)`` in degrees."""
    return np.degrees(np.arctan2(plane[:, 1], plane[:, 0]))


def _vectors(x, qrs, late, t_wave, t_on, t_peak):
    """Axes, QRS-T angles and T amplitudes from limb leads and vectorcardiogram."""
    vcg = vectorcardiogram(x)
    length = np.linalg.norm(vcg, axis=1)
    rising = np.gradient(gaussian_filter1d(length, 4, axis=1), axis=1)
    first = _top(rising, (t_on <= T) & (t_peak > T))
    largest_r, largest_t = (_at(vcg, _top(length, wave)) for wave in (qrs, t_wave))
    mean_t, frontal = _mean(vcg, t_wave), _frontal(_at(x, first))
    t_amp = length.max(axis=1, where=t_wave, initial=0)
    return {
        "mfpQRSaxis": _axis(_frontal(_mean(x, qrs))),
        "fpTaxis": _axis(_frontal(_mean(x, t_wave))),
        "txzQRSaxis": _axis(_mean(vcg, late)[:, [0, 2]]),
        "QRSTangle": _angle(largest_r, largest_t),
        "mQRSTangle": _angle(_mean(vcg, qrs), mean_t),
        "spatialTaxisDev": _angle(mean_t, T_REFERENCE),
        "TampInfl1": _take(length, first)[:, 0],
        "Tamp": t_amp,
        "TrelAmp": t_amp / length.max(axis=1, where=qrs, initial=1e-6),
        "fpTinfl1Axis": _axis(frontal),
        "fpTinfl1Mag": np.linalg.norm(frontal, axis=1),
    }


def _components(x, windows, t_peak):
    """Principal components of the eight independent leads: ratios, non-dipolar part, shape of T."""
    x, out = x[:, EIGHT], {}
    for name, mask in windows.items():
        values, _ = _singular(x - _mean(x, mask)[..., None], mask)
        power, short = values**2, {"QRS": "R", "STT": "ST"}.get(name, name)
        rest, samples = power[:, 3:].sum(axis=1), np.maximum(mask.sum(axis=1), 1)
        out[f"{name}_PCAratio"] = values[:, 1] / values[:, 0]
        out[f"{short}NDPV"] = np.sqrt(rest / samples)
        out[f"pct{short}NDPV"] = 100 * np.sqrt(rest / power.sum(axis=1))
    for k in range(3):  # the last window is T
        others = values[:, [(k + 1) % 3, (k + 2) % 3]]
        out[f"PCA{k + 1}"] = values[:, k] / np.linalg.norm(others, axis=1)
    qrs, t_wave = windows["QRS"], windows["T"]
    first = np.einsum("nl,nlt->nt", _singular(x, t_wave)[1][:, :, 0], x)
    size = np.where(t_wave, np.abs(first), 0)
    out["pcaTamp"] = size.max(axis=1)
    flanks = (np.clip(_top(size, True) + away, 0, T[-1]) for away in (-AWAY, AWAY))
    before, after = (_take(first, flank) for flank in flanks)
    difference = 100 * np.sqrt(np.mean((before - after) ** 2, axis=1))
    out["Tasym"] = difference / np.maximum(out["pcaTamp"], 1e-6)
    space = _singular(x, qrs | windows["STT"])[1][:, :, :3]
    loop = np.einsum("nlk,nlt->nkt", space, x)
    energy = np.linalg.norm(loop, axis=1)
    strong = qrs & (energy > 0.7 * energy.max(axis=1, where=qrs, initial=0)[:, None])
    t = _at(loop, _top(energy, t_wave))
    direction = _mean(loop / np.maximum(energy, 1e-6)[:, None], strong)
    out["TCRT"] = np.sum(direction * t, axis=1) / np.maximum(np.linalg.norm(t, axis=1), 1e-6)
    out["TCRTangle"] = _degrees(out["TCRT"])
    for name, part in (("TMD", True), ("TMDpre", t_peak >= T), ("TMDpost", t_peak <= T)):
        values, vectors = _singular(x, t_wave & part)
        each = (vectors[:, :, :2] * values[:, None, :2])[:, SEVEN].swapaxes(0, 1)
        out[name] = np.mean([_angle(*pair) for pair in combinations(each, 2)], axis=0)
    return out


def _singular(x, mask):
    """Singular values ``(n, 8)``, largest first, and left vectors ``(n, 8, 8)`` within `mask`."""
    part = np.where(mask[:, None], x, 0).astype(np.float64)
    values, vectors = np.linalg.eigh(part @ part.swapaxes(1, 2))
    return np.sqrt(np.maximum(values[:, ::-1], 1e-9)), vectors[:, :, ::-1]


def _deflections(x, q, j, qrs):
    """Q, R and S of each lead: durations in ms, amplitudes in µV; the QRS score."""
    begin, end, inside = q[:, None], j[:, None], qrs[:, None]
    large = np.where(inside & (np.abs(x) >= WAVE_UV), x, 0)
    start, r = (large != 0).argmax(axis=2)[..., None], _top(x, inside)
    has_q, r_amp = _take(large, start)[..., 0] < 0, large.max(axis=2)

    def run(at, opposite):  # how long the deflection around the sample `at` lasts, within QRS
        left = np.where(opposite & (at >= T), T, begin - 1).max(axis=2)
        right = np.where(opposite & (at <= T), T, end + 1).min(axis=2)
        return MS * (right - left - 1)

    has_r, after_r = r_amp > 0, r <= T
    q_ms, r_ms = np.where(has_q, run(start, x >= 0), 0), np.where(has_r, run(r, x <= 0), 0)
    before_r = (r >= T) | ~has_r[..., None]
    q_amp = np.where(has_q, -np.where(inside & before_r, x, 0).min(axis=2), 0)
    s_amp = np.where(has_r, -np.where(inside & after_r, x, 0).min(axis=2), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        measures = {"q": q_ms, "r": r_ms, "q/r": q_amp / r_amp, "r/s": r_amp / s_amp}
        measures["qs/r"] = np.maximum(q_amp, s_amp) / r_amp
    measures |= {f"q or r to {limit}": (q_ms > 0) | (r_ms <= limit) for limit in (10, 20)}
    score = np.zeros(len(x))
    for (lead, measure), steps in SELVESTER.groupby(["lead", "measure"]):
        reached = measures[measure][:, LEADS.index(lead), None] >= steps.least.to_numpy()
        score += (reached * steps.points.to_numpy()).max(axis=1)
    activation = np.where(has_r, MS * (r[..., 0] - q), 0)
    out = {"MIsz": 3 * score} | _each("qdur", q_ms)
    return out | _each("ramp", r_amp) | _each("vat", activation)


def _repolarisation(x, j, qrs, st_t, t_wave):
    """ST at J + 80 ms, T amplitudes, concavity of ST, root mean square over the leads."""
    st80, peak = _at(x, np.minimum(j + 40, T[-1])), _top(np.abs(x), t_wave[:, None])
    t_amp, at_j, j = _take(x, peak), _at(x, j)[..., None], j[:, None]
    chord = at_j + (t_amp - at_j) * (T - j) / np.maximum(peak - j, 1)
    between = (j <= T) & (peak >= T) & (t_amp > 0)
    sag = np.where(between, chord - x, 0).max(axis=2)
    rms = np.sqrt(np.mean(x**2, axis=1))
    mean = np.sum(rms, axis=1, where=st_t) / np.maximum(st_t.sum(axis=1), 1)
    out = {
        "rmsMin": rms.min(axis=1, where=qrs | st_t, initial=np.inf),
        "rmsVar": np.sqrt(_mean(((rms - mean[:, None]) ** 2)[:, None], st_t)[:, 0]),
        "latConcaveAmp": sag[:, LATERAL].mean(axis=1),
        "antConcaveAmp": sag[:, ANTERIOR].mean(axis=1),
    }
    return out | _each("st80", st80) | _each("tamp", t_amp[..., 0])
