"""Why a network said so: attribution maps, and the paper's saliency map (section II.C).

Maps are float32 ``(n, 12, 400)``, one value for each sample of the cropped beat, also of a network
that sees it resampled to fewer. *Windows* are means of their absolute values over 20 samples
(40 ms), ``(n, 12, 20)``. Networks must be in eval mode.
"""

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients, Saliency
from scipy.stats import rankdata

from ecglib.beat import LEADS
from ecglib.dataset import CROP
from ecglib.signal.fiducials import POINTS

WINDOW, SAMPLES = 20, CROP.stop - CROP.start
METHODS = {"gradient": "Gradient saliency", "integrated_gradients": "Integrated Gradients",
           "occlude_leads": "Occlusion by lead", "occlude_waves": "Occlusion by wave"}  # fmt: skip
# T's rise over its fall: median of 8,184 T waves marked in LUDB (quartiles 1.1 and 1.5)
T_ONSET = 1.3


def attribute(model, inputs, method="gradient", *, segments=None, steps=50, batch=8) -> np.ndarray:
    """Attribute the logit of the positive class to the samples of a network's input.

    Parameters
    ----------
    model : torch.nn.Module
        Maps ``(batch, 1, 12, samples)`` to two logits.
    inputs : array
        ``(n, 12, samples)``, normalised as in training (`ecglib.dataset.inputs`).
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
        If the network is in training mode.
    """
    x = np.asarray(inputs, dtype=np.float32)
    if method.startswith("occlude"):
        whole = {"lead": np.ones((len(x), SAMPLES), bool)}
        return _occlude(model, x, whole if method == "occlude_leads" else segments)
    explain, options = {
        "gradient": (Saliency, {}),
        "integrated_gradients": (
            IntegratedGradients,
            {"n_steps": steps, "internal_batch_size": batch},
        ),
    }[method]
    maps = [
        explain(model).attribute(part, target=1, **options)[:, 0].detach().cpu()
        for part in _batches(model, x, batch)
    ]
    # what a sample of fewer has is shared out among those that it stands for
    return at_beat(np.concatenate(maps).astype(np.float32) * (x.shape[2] / SAMPLES))


def at_beat(values) -> np.ndarray:
    """Bring values of the samples that a network sees, ``(..., samples)``, back to the 400 of the
    cropped beat.
    """
    return np.repeat(values, SAMPLES // values.shape[-1], axis=-1)


def _batches(model, inputs, size):
    """Yield tensors ``(size, 1, 12, samples)`` on the network's device."""
    if model.training:
        raise ValueError(
            "The network is in training mode, where ECGs of a batch mix; call model.eval() first"
        )
    device = next(model.parameters()).device
    for start in range(0, len(inputs), size):
        part = np.asarray(inputs[start : start + size], dtype=np.float32)[:, None]
        yield torch.tensor(part, device=device, requires_grad=True)


def answers(model, inputs, batch=32) -> np.ndarray:
    """Return both logits, ``(n, 2)``, for inputs ``(n, 12, samples)``."""
    with torch.no_grad():
        parts = [model(part).float().cpu() for part in _batches(model, inputs, batch)]
    return torch.cat(parts).numpy()


def logits(model, inputs) -> np.ndarray:
    """Return the logit of the positive class, ``(n,)``, for inputs ``(n, 12, samples)``."""
    return answers(model, inputs)[:, 1]


def erase(inputs, mask) -> np.ndarray:
    """Set masked samples to their lead's median, which lies near the isoelectric line; a whole lead
    becomes 0, as flat. The mask may have the 400 samples of a map where the inputs have fewer.

    A straight line between the neighbours would leave much of a raised ST segment in place.
    """
    mask = mask[..., :: mask.shape[-1] // inputs.shape[-1]]
    level = np.where(mask.all(-1), 0, np.median(inputs, axis=-1))
    return np.where(mask, level[..., None], inputs).astype(np.float32)


def _occlude(model, x, segments) -> np.ndarray:
    maps, whole = np.zeros((*x.shape[:2], SAMPLES), np.float32), logits(model, x)
    for inside in segments.values():
        there = np.flatnonzero(inside.any(1))
        for lead in range(x.shape[1]) if there.size else ():
            mask = np.zeros(maps[there].shape, bool)
            mask[:, lead] = inside[there]
            fall = whole[there] - logits(model, erase(x[there], mask))
            maps[there, lead] += inside[there] * (fall / inside[there].sum(1))[:, None]
    return maps


def segments_of(points) -> dict[str, np.ndarray]:
    """Turn fiducial points of stored beats, ``(n, 8)`` as `ecglib.signal.fiducials.POINTS`, into
    segments.

    Returns P, PQ, QRS, ST, T and other → bool ``(n, 400)``, in samples of the cropped beat; no True
    for a missing wave.
    """
    t = np.arange(CROP.start, CROP.stop)
    p = dict(zip(POINTS, np.asarray(points, float).T[..., None], strict=True))
    t_on = np.maximum(p["t_peak"] - T_ONSET * (p["t_off"] - p["t_peak"]), p["qrs_off"])
    ends = [p["p_on"], p["p_off"], p["qrs_on"], p["qrs_off"], t_on, p["t_off"]]
    named = zip(("P", "PQ", "QRS", "ST", "T"), pairwise(ends), strict=True)
    inside = {name: (t >= first) & (t < last) for name, (first, last) in named}
    return inside | {"other": ~np.any(list(inside.values()), axis=0)}


def windows(maps, signed: bool = False) -> np.ndarray:
    """Means of the absolute values, or with `signed` of the values, over 40 ms, ``(n, 12, 20)``."""
    values = maps if signed else np.abs(maps)
    return values.reshape(*maps.shape[:2], -1, WINDOW).mean(-1)


def paper_map(maps, per="lead") -> np.ndarray:
    """Aggregate maps as the paper does (section II.C, Fig. 7): windows, normalised to 0–1, averaged
    to ``(12, 20)``.

    Parameters
    ----------
    maps : array
        ``(n, 12, samples)``; one ECG gives its own map.
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


def agreement(first, second, signed: bool = False) -> np.ndarray:
    """Spearman's rank correlation of two maps of the same ECG over their 240 windows, ``(n,)``; 0
    for a flat map. `signed` compares the values, else their sizes.
    """
    ranks = [
        rankdata(windows(maps, signed).reshape(len(maps), -1), axis=1) for maps in (first, second)
    ]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    return (a * b).sum(1) / np.maximum(np.sqrt((a**2).sum(1) * (b**2).sum(1)), 1e-30)


def compare(maps: dict) -> pd.DataFrame:
    """Mean rank correlation over ECGs of every two entries of `maps` (name → maps of the same
    ECGs).
    """
    table = pd.DataFrame(np.eye(len(maps)), index=list(maps), columns=list(maps))
    for a, b in combinations(maps, 2):
        table.loc[a, b] = table.loc[b, a] = agreement(maps[a], maps[b]).mean()
    return table


def rotations_alike(maps: dict) -> str:
    """Say how alike the maps of several networks are, ECG by ECG and as the paper's mean map."""
    if len(maps) < 2:
        return "Only one rotation's weights are available: its maps can't be compared."
    means = {
        name: np.repeat(paper_map(m, per="map")[None], WINDOW, axis=2) for name, m in maps.items()
    }
    each, whole = (compare(m).to_numpy()[np.triu_indices(len(maps), 1)] for m in (maps, means))
    return (
        f"Maps of {len(maps)} rotations' networks of the same ECG correlate by {each.mean():.2f} "
        f"on average ({each.min():.2f} to {each.max():.2f} over {each.size} pairs), their mean "
        f"maps by {whole.mean():.2f} ({whole.min():.2f} to {whole.max():.2f})."
    )
