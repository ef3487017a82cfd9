"""Engineered features of median beats: the families of the 74 published with the random forest.

Every feature is described in ``features.csv`` beside this module: name (that of the published
tables), family, unit, definition, source, and where it differs from the published column. Voltages
are measured from the level of the 20 ms before QRS; the vectorcardiogram is that of Kors et al.
1990. What can't be computed for a beat is missing (NaN): PR without a P wave, whatever needs a T
wave without one, whatever needs a lead that is flat.
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
NAMES = tuple(DEFINITIONS.index[DEFINITIONS.family != "patient"])

MS = 1000 / RATE_HZ
CHUNK = 500  # beats at a time: keeps memory flat
T = np.arange(BEAT_SAMPLES)
EIGHT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]

KORS = np.array([
    [0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54],
    [-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13],
    [0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31],
], dtype=np.float32)  # fmt: skip
"""Regression matrix of Kors et al. 1990: X (left), Y (down), Z (back) from the leads of `EIGHT`."""

T_REFERENCE = np.array([[0.30, 0.10, -0.95]])
"""Direction of spatialTaxisDev in (X, Y, Z): what fits the published tables best, which don't tell
theirs.
"""

WITHOUT_T = (
    "HR", "PR", "QRSd", "QRS_", "mfp", "txz", "RN", "JN", "pctR", "pctJ", "J_", "MI", "qdur",
    "ramp", "vat", "st80",
)  # fmt: skip
"""How the names of features begin that need no T wave."""

# a smaller deflection is neither a Q nor an R wave; with no larger one in any lead there is no T
# wave
WAVE_UV = 20

SELVESTER = (  # lead, measure, {at least: points}; of a measure's steps the highest counts
    ("I", "q", {30: 1}), ("I", "q/r", {1: 1}), ("II", "q", {40: 2, 30: 1}), ("aVL", "q", {30: 1}),
    ("aVL", "q/r", {1: 1}), ("aVF", "q", {50: 3, 40: 2, 30: 1}), ("aVF", "q/r", {1: 2, 1 / 2: 1}),
    ("V1", "q", {1: 1}), ("V1", "r", {50: 2, 40: 1}), ("V1", "r/s", {1: 1}),
    ("V2", "q or r to 10", {1: 1}), ("V2", "r", {60: 2, 50: 1}), ("V2", "r/s", {1.5: 1}),
    ("V3", "q or r to 20", {1: 1}), ("V4", "q", {20: 1}), ("V4", "qs/r", {2: 2, 1: 1}),
    ("V5", "q", {30: 1}), ("V5", "qs/r", {1: 2, 1 / 2: 1}), ("V6", "q", {30: 1}),
    ("V6", "qs/r", {1: 2, 1 / 3: 1}),
)  # fmt: skip
"""Simplified QRS score of Wagner et al. 1982, 29 points: q, r durations in ms, quotients of
amplitudes.
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
    if (
        np.ndim(beats) != 3
        or beats.shape[1:] != (len(LEADS), BEAT_SAMPLES)
        or rr_ms.shape != (len(beats),)
    ):
        raise ValueError(
            f"Features need beats (n, 12, 600) and n RR intervals, "
            f"not {np.shape(beats)} and {rr_ms.shape}"
        )
    parts = [
        _chunk(beats[i : i + CHUNK], rr_ms[i : i + CHUNK]) for i in range(0, len(beats), CHUNK)
    ]
    return pd.concat(parts or [pd.DataFrame(columns=NAMES, dtype=np.float64)], ignore_index=True)


def vectorcardiogram(beats: np.ndarray) -> np.ndarray:
    """Vectorcardiogram ``(n, 3, samples)`` in µV, X (left), Y (down), Z (back), from ``(n, 12,
    samples)``.
    """
    return KORS @ np.asarray(beats, dtype=np.float32)[:, EIGHT]


def _chunk(beats: np.ndarray, rr_ms: np.ndarray) -> pd.DataFrame:
    x = np.asarray(beats, dtype=np.float32)
    points = dict(zip(fiducials.POINTS, fiducials.overall(x).T, strict=True))
    q, j, t_peak, t_end = (points[name] for name in ("qrs_on", "qrs_off", "t_peak", "t_off"))
    has_t = ~np.isnan(t_peak) & ~np.isnan(t_end)
    out = {
        "HR": 60_000 / np.where(rr_ms > 0, rr_ms, np.nan),
        "PR": MS * (q - points["p_on"]),
        "QRSd": MS * (j - q),
        "JTc": MS * (t_end - j) / np.sqrt(np.where(rr_ms > 0, rr_ms, np.nan) / 1000),
        "TpTe": MS * (t_end - t_peak),
    }
    whole = ~np.isnan(q) & ~np.isnan(j)
    q, j = (np.rint(np.nan_to_num(p, nan=n)).astype(int)[:, None] for p, n in ((q, 275), (j, 330)))
    t_peak, t_end = (
        np.rint(np.nan_to_num(p, nan=n)).astype(int)[:, None]
        for p, n in ((t_peak, 430), (t_end, 480))
    )
    # The onset of T isn't marked: it is put 1.5 times as far before its peak as its end lies behind
    # it.
    t_on = np.maximum(j + 10, t_peak - (3 * (t_end - t_peak)) // 2)
    qrs, late = (q <= T) & (j >= T), (j - 20 < T) & (j >= T)
    after_j, st_t, t_wave = (
        (j <= T) & (j + 30 > T),
        (j <= T) & (t_end >= T),
        (t_on <= T) & (t_end >= T),
    )

    level = np.take_along_axis(x, np.maximum(q - np.arange(1, 11), 0)[:, None], axis=2)
    x = x - np.median(level, axis=2, keepdims=True)
    out |= _vectors(x, qrs, late, t_wave, t_on, t_peak)
    out |= _components(x, {"QRS": qrs, "J": after_j, "STT": st_t, "T": t_wave}, t_peak)
    out |= _deflections(x, q, j, qrs) | _repolarisation(x, j, qrs, st_t, t_wave)
    table = pd.DataFrame(out, columns=NAMES, dtype=np.float64)
    has_t &= table[[f"tamp_{lead}" for lead in LEADS]].abs().max(axis=1).to_numpy() >= WAVE_UV
    table.loc[~has_t, [name for name in NAMES if not name.startswith(WITHOUT_T)]] = np.nan
    table.loc[~whole] = np.nan
    flat = np.ptp(x, axis=2) == 0  # a lead that isn't there
    for k, lead in enumerate(LEADS):
        table.loc[flat[:, k], [name for name in NAMES if name.endswith(f"_{lead}")]] = np.nan
    table.loc[flat[:, :3].any(axis=1), ["mfpQRSaxis", "fpTaxis"]] = np.nan
    alone = {"HR", "PR", "QRSd", "JTc", "TpTe", "mfpQRSaxis", "fpTaxis"}
    several = [name for name in NAMES if name.rpartition("_")[2] not in LEADS and name not in alone]
    table.loc[flat[:, EIGHT].any(axis=1), several] = np.nan
    return table


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the samples of `mask`: ``(n, k, 600)`` to ``(n, k)``."""
    return (
        np.einsum("nkt,nt->nk", values, mask.astype(values.dtype))
        / np.maximum(mask.sum(axis=1), 1)[:, None]
    )


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Values ``(n, k, 600)`` at one sample of each beat: ``(n, k)``."""
    return np.take_along_axis(values, index.reshape(-1, 1, 1), axis=2)[..., 0]


def _angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angle between vectors ``(n, k)`` in degrees."""
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.degrees(
        np.arccos(
            np.clip(np.sum(one * other, axis=1) / np.where(length > 0, length, np.nan), -1, 1)
        )
    )


def _frontal(x: np.ndarray) -> np.ndarray:
    """Frontal vector ``(n, 2)``, left and down, from limb leads ``(n, 12)``."""
    return np.stack([x[:, 0], (x[:, 1] + x[:, 2]) / np.sqrt(3)], axis=1)


def _axis(plane: np.ndarray) -> np.ndarray:
    """Direction of vectors ``(n, 2)`` in degrees."""
    return np.degrees(np.arctan2(plane[:, 1], plane[:, 0]))


def _vectors(x, qrs, late, t_wave, t_on, t_peak) -> dict:
    """Axes, QRS-T angles and T amplitudes from limb leads and vectorcardiogram."""
    vcg = vectorcardiogram(x)
    length = np.linalg.norm(vcg, axis=1)
    rising = np.gradient(gaussian_filter1d(length, 4, axis=1), axis=1)
    first = np.where((t_on <= T) & (t_peak > T), rising, -np.inf).argmax(axis=1)
    r, t = np.where(qrs, length, -1).argmax(axis=1), np.where(t_wave, length, -1).argmax(axis=1)
    largest_r, largest_t, mean_r, mean_t = (
        _at(vcg, r),
        _at(vcg, t),
        _mean(vcg, qrs),
        _mean(vcg, t_wave),
    )
    frontal = _frontal(_at(x, first))
    return {
        "mfpQRSaxis": _axis(_frontal(_mean(x, qrs))),
        "fpTaxis": _axis(_frontal(_mean(x, t_wave))),
        "txzQRSaxis": _axis(_mean(vcg, late)[:, [0, 2]]),
        "QRSTangle": _angle(largest_r, largest_t),
        "mQRSTangle": _angle(mean_r, mean_t),
        "spatialTaxisDev": _angle(mean_t, T_REFERENCE),
        "TampInfl1": np.take_along_axis(length, first[:, None], axis=1)[:, 0],
        "Tamp": length.max(axis=1, where=t_wave, initial=0),
        "TrelAmp": length.max(axis=1, where=t_wave, initial=0)
        / length.max(axis=1, where=qrs, initial=1e-6),
        "fpTinfl1Axis": _axis(frontal),
        "fpTinfl1Mag": np.linalg.norm(frontal, axis=1),
    }


def _components(x, windows: dict, t_peak) -> dict:
    """Principal components of the eight independent leads: ratios, what is not dipolar, shape of
    T.
    """
    x, out = x[:, EIGHT], {}
    for name, mask in windows.items():
        values, _ = _singular(x - _mean(x, mask)[..., None], mask)
        power, samples = values**2, np.maximum(mask.sum(axis=1), 1)
        out[f"{name}_PCAratio"] = values[:, 1] / values[:, 0]
        short = {"QRS": "R", "STT": "ST"}.get(name, name)
        out[f"{short}NDPV"] = np.sqrt(power[:, 3:].sum(axis=1) / samples)
        out[f"pct{short}NDPV"] = 100 * np.sqrt(power[:, 3:].sum(axis=1) / power.sum(axis=1))
    for k in range(3):  # the last window is T
        out[f"PCA{k + 1}"] = values[:, k] / np.linalg.norm(
            np.delete(values[:, :3], k, axis=1), axis=1
        )
    first = np.einsum("nl,nlt->nt", _singular(x, windows["T"])[1][:, :, 0], x)
    out["pcaTamp"] = np.abs(first).max(axis=1, where=windows["T"], initial=0)
    peak = np.where(windows["T"], np.abs(first), -1).argmax(axis=1)[:, None]
    away = np.arange(1, 51)
    before, after = (
        np.take_along_axis(first, np.clip(peak + d, 0, BEAT_SAMPLES - 1), axis=1)
        for d in (-away, away)
    )
    out["Tasym"] = (
        100 * np.sqrt(np.mean((before - after) ** 2, axis=1)) / np.maximum(out["pcaTamp"], 1e-6)
    )
    space = _singular(x, windows["QRS"] | windows["STT"])[1][:, :, :3]
    loop = np.einsum("nlk,nlt->nkt", space, x)
    energy = np.linalg.norm(loop, axis=1)
    largest = energy.max(axis=1, where=windows["QRS"], initial=0)[:, None]
    strong = windows["QRS"] & (energy > 0.7 * largest)
    t = _at(loop, np.where(windows["T"], energy, -1).argmax(axis=1))
    direction = loop / np.maximum(energy, 1e-6)[:, None]
    out["TCRT"] = np.sum(_mean(direction, strong) * t, axis=1) / np.maximum(
        np.linalg.norm(t, axis=1), 1e-6
    )
    out["TCRTangle"] = np.degrees(np.arccos(np.clip(out["TCRT"], -1, 1)))
    parts = {
        "TMD": windows["T"],
        "TMDpre": windows["T"] & (t_peak >= T),
        "TMDpost": windows["T"] & (t_peak <= T),
    }
    seven = [k for k, lead in enumerate(EIGHT) if LEADS[lead] != "V1"]
    for name, mask in parts.items():
        values, vectors = _singular(x, mask)
        each = (vectors[:, :, :2] * values[:, None, :2])[:, seven].swapaxes(0, 1)
        out[name] = np.mean([_angle(one, other) for one, other in combinations(each, 2)], axis=0)
    return out


def _singular(x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values ``(n, 8)``, largest first, and left vectors ``(n, 8, 8)`` of the samples of
    `mask`.
    """
    part = np.where(mask[:, None], x, 0).astype(np.float64)
    values, vectors = np.linalg.eigh(part @ part.swapaxes(1, 2))
    return np.sqrt(np.maximum(values[:, ::-1], 1e-9)), vectors[:, :, ::-1]


def _deflections(x, q, j, qrs) -> dict:
    """Q, R and S of each lead: durations in ms, amplitudes in µV; the QRS score."""
    begin, end, inside = q[:, None], j[:, None], qrs[:, None]
    large = inside & (np.abs(x) >= WAVE_UV)
    start = np.where(large, T, BEAT_SAMPLES - 1).min(axis=2, keepdims=True)
    r = np.where(inside, x, -np.inf).argmax(axis=2)[..., None]
    r_amp = np.take_along_axis(x, r, axis=2)[..., 0]
    r_amp = np.where(r_amp >= WAVE_UV, r_amp, 0)
    has_q = np.take_along_axis(np.where(large, x, 0), start, axis=2)[..., 0] < 0

    def run(at, opposite):  # how long the deflection around the sample `at` lasts, within QRS
        left = np.where(opposite & (at >= T), T, begin - 1).max(axis=2)
        right = np.where(opposite & (at <= T), T, end + 1).min(axis=2)
        return MS * (np.minimum(right, j + 1) - np.maximum(left, q - 1) - 1)

    q_ms = np.where(has_q, run(start, x >= 0), 0)
    r_ms = np.where(r_amp > 0, run(r, x <= 0), 0)
    q_amp = np.where(
        has_q, -np.where(inside & ((r >= T) | (r_amp[..., None] == 0)), x, 0).min(axis=2), 0
    )
    s_amp = np.where(r_amp > 0, -np.where(inside & (r <= T), x, 0).min(axis=2), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        measures = {"q": q_ms, "r": r_ms, "q/r": q_amp / r_amp, "r/s": r_amp / s_amp}
        measures["qs/r"] = np.maximum(q_amp, s_amp) / r_amp
    measures |= {f"q or r to {limit}": (q_ms > 0) | (r_ms <= limit) for limit in (10, 20)}
    score = np.zeros(len(x))
    for lead, measure, steps in SELVESTER:
        value = measures[measure][:, LEADS.index(lead)]
        score += np.max([points * (value >= least) for least, points in steps.items()], axis=0)
    activation = np.where(r_amp > 0, MS * (r[..., 0] - q), 0)
    out = {"MIsz": 3 * score, "qdur_aVF": q_ms[:, LEADS.index("aVF")]}
    out |= {f"ramp_{lead}": r_amp[:, LEADS.index(lead)] for lead in ("III", "aVL", "V4")}
    return out | {
        f"vat_{lead}": activation[:, LEADS.index(lead)] for lead in ("II", "III", "V2", "V4")
    }


def _repolarisation(x, j, qrs, st_t, t_wave) -> dict:
    """ST at J + 80 ms, T amplitudes, concavity of ST, root mean square over the leads."""
    st80 = _at(x, np.minimum(j + 40, BEAT_SAMPLES - 1))
    peak = np.where(t_wave[:, None], np.abs(x), -1).argmax(axis=2)[..., None]
    t_amp = np.take_along_axis(x, peak, axis=2)
    at_j = _at(x, j)[..., None]
    chord = at_j + (t_amp - at_j) * (T - j[:, None]) / np.maximum(peak - j[:, None], 1)
    between = (j[:, None] <= T) & (peak >= T) & (t_amp > 0)
    sag = np.where(between, chord - x, 0).max(axis=2)
    rms = np.sqrt(np.mean(x**2, axis=1))
    mean = np.sum(rms, axis=1, where=st_t) / np.maximum(st_t.sum(axis=1), 1)
    out = {
        "rmsMin": rms.min(axis=1, where=qrs | st_t, initial=np.inf),
        "rmsVar": np.sqrt(_mean(((rms - mean[:, None]) ** 2)[:, None], st_t)[:, 0]),
        "latConcaveAmp": sag[:, [LEADS.index(lead) for lead in ("I", "aVL", "V5", "V6")]].mean(
            axis=1
        ),
        "antConcaveAmp": sag[:, [LEADS.index(lead) for lead in ("V1", "V2", "V3", "V4")]].mean(
            axis=1
        ),
    }
    out |= {f"st80_{lead}": st80[:, k] for k, lead in enumerate(LEADS)}
    return out | {f"tamp_{lead}": t_amp[:, k, 0] for k, lead in enumerate(LEADS)}
