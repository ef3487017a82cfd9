"""Why a network said so: attribution maps, the paper's saliency map (section II.C), and checks of
both.

Maps are float32 ``(n, 12, 400)``, one value for each sample that the network saw. *Windows* are
means of their absolute values over 20 samples (40 ms), ``(n, 12, 20)``. Networks must be in eval
mode.
"""

import copy
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients, Saliency
from scipy.stats import rankdata

from ecglib.beat import BEAT_SAMPLES, LEADS
from ecglib.dataset import CROP
from ecglib.signal.fiducials import POINTS

WINDOW = 20
METHODS = {"gradient": "Gradient saliency", "integrated_gradients": "Integrated Gradients",
           "occlude_leads": "Occlusion by lead", "occlude_waves": "Occlusion by wave"}  # fmt: skip
# T's rise over its fall: median of 8,184 T waves marked in LUDB (quartiles 1.1 and 1.5)
T_ONSET = 1.3


def attribute(model, inputs, method="gradient", *, segments=None, steps=50, batch=8) -> np.ndarray:
    """Attribute the logit of the positive class to the samples of a network's input.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(batch, 1, 12, 400)`` to two logits.
    inputs : array
        ``(n, 12, 400)``, normalised as in training (`ecglib.dataset.normalise`).
    method : str
        A key of `METHODS`. 'gradient': absolute gradient, the paper's (Captum's Saliency).
        'integrated_gradients': signed, from a flat ECG (Sundararajan et al. 2017). 'occlude_leads':
        by how much the logit falls when a lead is made flat. 'occlude_waves': the same for each of
        `segments` (from `segments_of`) in each lead, see `erase`. A fall is spread evenly over the
        samples that were replaced.
    steps, batch : int
        Steps of Integrated Gradients; ECGs at once where gradients are taken: bounds memory.

    Raises
    ------
    ValueError
        If the method is unknown, lacks its segments, or the network is in training mode.
    """
    x = np.asarray(inputs, dtype=np.float32)
    if method not in METHODS or (method == "occlude_waves" and segments is None):
        raise ValueError(
            f"'{method}' is not one of {', '.join(METHODS)}, or its segments are missing"
        )
    if method.startswith("occlude"):
        whole = [np.ones((len(x), x.shape[2]), bool)]
        return _occlude(model, x, whole if method == "occlude_leads" else segments.values())
    explain, options = Saliency(model), {"target": 1}
    if method == "integrated_gradients":
        explain, options = (
            IntegratedGradients(model),
            {"target": 1, "n_steps": steps, "internal_batch_size": batch},
        )
    maps = [
        explain.attribute(part, **options)[:, 0].detach().cpu()
        for part in _batches(model, x, batch)
    ]
    return np.concatenate(maps).astype(np.float32)


def _batches(model, inputs, size):
    """Yield tensors ``(size, 1, 12, 400)`` on the network's device."""
    if model.training:
        raise ValueError(
            "The network is in training mode, where ECGs of a batch mix; call model.eval() first"
        )
    device = next(model.parameters()).device
    for start in range(0, len(inputs), size):
        part = np.asarray(inputs[start : start + size], dtype=np.float32)[:, None]
        yield torch.tensor(part, device=device, requires_grad=True)


def logits(model, inputs, batch=32) -> np.ndarray:
    """Return the logit of the positive class, ``(n,)``, for inputs ``(n, 12, 400)``."""
    with torch.no_grad():
        return np.concatenate(
            [model(part)[:, 1].float().cpu().numpy() for part in _batches(model, inputs, batch)]
        )


def erase(inputs, mask) -> np.ndarray:
    """Set masked samples to their lead's median, which lies near the isoelectric line; a whole lead
    becomes 0, as flat.

    A straight line between the neighbours would leave much of a raised ST segment in place.
    """
    level = np.where(mask.all(-1), 0, np.median(inputs, axis=-1))
    return np.where(mask, level[..., None], inputs).astype(np.float32)


def _occlude(model, x, segments) -> np.ndarray:
    maps, whole = np.zeros_like(x), logits(model, x)
    for inside in segments:
        there = np.flatnonzero(inside.any(1))
        for lead in range(x.shape[1]) if there.size else ():
            mask = np.zeros((len(there), *x.shape[1:]), bool)
            mask[:, lead] = inside[there]
            fall = whole[there] - logits(model, erase(x[there], mask))
            maps[there, lead] += inside[there] * (fall / inside[there].sum(1))[:, None]
    return maps


def segments_of(points) -> dict[str, np.ndarray]:
    """Turn fiducial points of stored beats, ``(n, 8)`` as `ecglib.signal.fiducials.POINTS`, into
    segments.

    Returns P, PQ, QRS, ST, T and other → bool ``(n, 400)``, in samples that a network sees; no True
    for a missing wave.
    """
    t, p = (
        np.arange(CROP.start, CROP.stop),
        dict(zip(POINTS, np.asarray(points, float).T[..., None], strict=True)),
    )
    t_on = np.maximum(p["t_peak"] - T_ONSET * (p["t_off"] - p["t_peak"]), p["qrs_off"])
    ends = [p["p_on"], p["p_off"], p["qrs_on"], p["qrs_off"], t_on, p["t_off"]]
    named = zip(("P", "PQ", "QRS", "ST", "T"), pairwise(ends), strict=True)
    inside = {name: (t >= first) & (t < last) for name, (first, last) in named}
    return inside | {"other": ~np.any(list(inside.values()), axis=0)}


def windows(maps) -> np.ndarray:
    """Means of the absolute values over 40 ms, ``(n, 12, 20)``."""
    return np.abs(maps).reshape(*maps.shape[:2], -1, WINDOW).mean(-1)


def paper_map(maps, per="lead") -> np.ndarray:
    """Aggregate maps as the paper does (section II.C, Fig. 7): windows, normalised to 0–1, averaged
    to ``(12, 20)``.

    Parameters
    ----------
    maps : array
        ``(n, 12, 400)``; one ECG gives its own map.
    per : {'lead', 'map'}
        What is scaled from its minimum to its maximum (our reading of the paper's "normalized
        within each lead"). 'lead', the paper's, wipes out differences between leads: rank them by
        `lead_contributions`, never by this.
    """
    values, axes = windows(maps), {"lead": (2,), "map": (1, 2)}[per]
    low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
    return ((values - low) / np.where(high > low, high - low, 1)).mean(0)


def lead_contributions(maps) -> pd.DataFrame:
    """Share of each lead in an ECG's sum of absolute values; one row an ECG (paper, section
    II.C).
    """
    size = np.abs(maps).sum(2, dtype=np.float64)
    return pd.DataFrame(size / np.maximum(size.sum(1, keepdims=True), 1e-30), columns=LEADS)


def segment_contributions(maps, segments) -> pd.DataFrame:
    """Share of each segment in an ECG's sum of absolute values; a map of ones gives the shares by
    chance.
    """
    size = np.abs(maps).sum(1, dtype=np.float64)
    total = np.maximum(size.sum(1), 1e-30)
    return pd.DataFrame({name: (size * inside).sum(1) / total for name, inside in segments.items()})


def patient_intervals(
    values: pd.DataFrame, patients, draws=2000, confidence=0.95, seed=42
) -> pd.DataFrame:
    """``mean, low, high`` of each column over ECGs: percentile interval from drawing patients with
    replacement.
    """
    sums = values.assign(ecgs=1.0).groupby(np.asarray(patients)).sum().to_numpy()
    weights = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=draws
    )
    drawn = weights @ sums
    low, high = np.quantile(
        drawn[:, :-1] / drawn[:, -1:], [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0
    )
    return pd.DataFrame({"mean": values.mean(), "low": low, "high": high})


def agreement(first, second) -> np.ndarray:
    """Spearman's rank correlation of two maps of the same ECG over their 240 windows, ``(n,)``; 0
    for a flat map.
    """
    ranks = [rankdata(windows(maps).reshape(len(maps), -1), axis=1) for maps in (first, second)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    return (a * b).sum(1) / np.maximum(np.sqrt((a**2).sum(1) * (b**2).sum(1)), 1e-30)


def forget(model, seed=42):
    """Yield ``name, network``: a copy of the network whose layers are put back to a random start,
    from the last one on.

    It is one copy, which forgets more with each step; the last step has nothing of the training
    left.
    """
    network = copy.deepcopy(model)
    for number, name, layers in _learned(network):
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            for layer in layers:
                layer.reset_parameters()
        yield name, network


def _learned(network) -> list[tuple[int, str, list]]:
    """Number, name and layers of each part that learns something, from the last one on."""
    # ResNet-18 sits behind `model`
    parts = list(getattr(network, "model", network).named_children())[::-1]
    layers = [
        [layer for layer in part.modules() if hasattr(layer, "reset_parameters")]
        for _, part in parts
    ]
    return [
        (n, name, found)
        for n, ((name, _), found) in enumerate(zip(parts, layers, strict=True))
        if found
    ]


def cascade(model, inputs, method="gradient", seed=42, trained=None, stages=None, **options):
    """Check by cascading randomisation (Adebayo et al. 2018): a map must change when layers forget
    what they learned.

    A method whose correlation with the trained network's map stays high doesn't show what the
    network learned.

    Parameters
    ----------
    trained : array, optional
        Maps of the trained network, if they are there already.
    stages : int, optional
        At how many layers, evenly spread and the first one always among them, maps are taken; None:
        at each.
    **options
        For `attribute`.

    Returns
    -------
    table, maps
        ``layer, ecg, rank_correlation`` (`agreement`) in order from the last layer to the first;
        and the maps of the network that has forgotten all.
    """
    trained = attribute(model, inputs, method, **options) if trained is None else trained
    count, rows, maps = len(_learned(model)), [], None
    chosen = range(count) if stages is None else np.linspace(0, count - 1, stages + 1).round()[1:]
    for number, (name, network) in enumerate(forget(model, seed)):
        if number in chosen:
            maps = attribute(network, inputs, method, **options)
            values = agreement(trained, maps)
            rows.append(
                pd.DataFrame({"layer": name, "ecg": range(len(values)), "rank_correlation": values})
            )
    return pd.concat(rows, ignore_index=True), maps


def deletion(
    model, inputs, maps, fractions=(0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1), seed=42
) -> pd.DataFrame:
    """Check by deletion (Samek et al. 2017): what a map ranks first must matter most to the
    network.

    The windows that rank highest in an ECG's map are erased, more and more of them; in a signed map
    those come first that raise the logit. To `maps` (name → map) are added 'random' and 'QRS
    energy', the squared slope of the ECG itself, which knows nothing of the network. Returns ``map,
    fraction, ecg, logit``: a good map's logits of positives fall faster than those of the two
    others.
    """
    x, rows = np.asarray(inputs, dtype=np.float32), []
    chance = np.random.default_rng(seed).random(x.shape, dtype=np.float32)
    for name, values in {
        **maps,
        "QRS energy": np.gradient(x, axis=2) ** 2,
        "random": chance,
    }.items():
        score = values.reshape(*values.shape[:2], -1, WINDOW).mean(-1)
        rank = rankdata(-score.reshape(len(x), -1), axis=1, method="ordinal").reshape(score.shape)
        for fraction in fractions:
            mask = np.repeat(rank <= round(fraction * rank[0].size), WINDOW, axis=2)
            told = {
                "map": name,
                "fraction": fraction,
                "ecg": range(len(x)),
                "logit": logits(model, erase(x, mask)),
            }
            rows.append(pd.DataFrame(told))
    return pd.concat(rows, ignore_index=True)


def localisation(maps, truth) -> pd.DataFrame:
    """Check against a known place: share of relevance inside it, and the pointing game (Zhang et
    al. 2018).

    Parameters
    ----------
    maps, truth : array
        ``(n, 12, 400)``; truth is boolean, from `true_region` or `inject_st`.

    Returns
    -------
    pandas.DataFrame
        For each ECG ``share`` of the absolute values inside, ``chance``, an even map's share,
        ``hit``: the highest window lies at least half inside, and ``hit_chance``, a random
        window's. NaN where truth is empty.
    """
    size, n = np.abs(maps).astype(np.float64), len(maps)
    half = windows(truth.astype(np.float32)).reshape(n, -1) >= 0.5
    hit = half[np.arange(n), windows(maps).reshape(n, -1).argmax(1)].astype(float)
    share = (size * truth).sum((1, 2)) / np.maximum(size.sum((1, 2)), 1e-30)
    table = pd.DataFrame(
        {"share": share, "chance": truth.mean((1, 2)), "hit": hit, "hit_chance": half.mean(1)}
    )
    table.loc[~truth.any((1, 2))] = np.nan
    return table


def true_region(records: pd.DataFrame) -> np.ndarray:
    """Where simulated injury acts, bool ``(n, 12, 400)``: `affected_leads`, from `window_start` to
    `window_end`.
    """
    start, end = (records[name].to_numpy()[:, None] for name in ("window_start", "window_end"))
    leads = np.array(
        [[lead in told.split(";") for lead in LEADS] for told in records["affected_leads"]]
    )
    t = np.arange(CROP.start, CROP.stop)
    return leads[:, :, None] & ((t >= start) & (t < end))[:, None]


def inject_st(beats, leads, amplitude, start, end, ramp=20) -> tuple[np.ndarray, np.ndarray]:
    """Add a smooth regional ST change of known place and size to real beats.

    Parameters
    ----------
    beats, leads, amplitude : array, sequence of str, float or sequence
        ``(n, 12, 600)`` in µV; the leads that change; by how many µV, one for all or one each
        (negative: depression).
    start, end, ramp : int or array
        J point and end of T, in samples of the beat; length of the raised-cosine flanks between
        them.

    Returns
    -------
    float32 beats in µV and boolean truth, both ``(n, 12, 600)``; ``truth[...,
    ecglib.dataset.CROP]`` fits a map.
    """
    t, size = np.arange(BEAT_SAMPLES), np.zeros((len(LEADS), 1))
    size[[LEADS.index(lead) for lead in leads], 0] = amplitude
    start, end = (
        np.broadcast_to(np.asarray(edge, float), len(beats))[:, None, None] for edge in (start, end)
    )
    rise, fall = (
        0.5 - 0.5 * np.cos(np.pi * np.clip(way / ramp, 0, 1)) for way in (t - start, end - t)
    )
    return (beats + size * rise * fall).astype(np.float32), (size != 0) & (t >= start) & (t < end)
