"""Can a saliency map be believed? Three checks of every method, and what limits them.

A method passes *randomisation* if its maps correlate by less than `CORRELATION` with those of the
same network without its training; *deletion* if erasing what it ranks first lowers the logit more
than erasing at random and by QRS energy (95 % of the mean difference below 0); *localisation* if it
puts at least `RATIO` times an even map's share into the known place, and the randomised network
doesn't.
"""

import copy
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.stats import rankdata

from ecglib.analysis.known_place import Place
from ecglib.analysis.saliency import (
    METHODS,
    WINDOW,
    agreement,
    at_beat,
    attribute,
    erase,
    logits,
    segments_of,
    windows,
)
from ecglib.signal import fiducials

CORRELATION, RATIO = 0.5, 2.0
# what occlusion by wave replaces; the rest is near the level it is replaced by
WAVES = ("P", "QRS", "ST", "T")


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
    parts, found = getattr(network, "model", network).named_children(), []
    for number, (name, part) in enumerate(reversed(list(parts))):
        layers = [layer for layer in part.modules() if hasattr(layer, "reset_parameters")]
        if layers:
            found.append((number, name, layers))
    return found


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
            found = pd.DataFrame({"rank_correlation": agreement(trained, maps)})
            found = found.rename_axis("ecg").reset_index()
            found.insert(0, "layer", name)
            rows.append(found)
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
    others = {"QRS energy": np.gradient(x, axis=2) ** 2, "random": chance}
    for name, values in (maps | others).items():
        score = at_beat(values).reshape(*values.shape[:2], -1, WINDOW).mean(-1)
        rank = rankdata(-score.reshape(len(x), -1), axis=1, method="ordinal").reshape(score.shape)
        for fraction in fractions:
            mask = np.repeat(rank <= round(fraction * rank[0].size), WINDOW, axis=2)
            row = {"map": name, "fraction": fraction, "ecg": range(len(x))}
            rows.append(pd.DataFrame(row | {"logit": logits(model, erase(x, mask))}))
    return pd.concat(rows, ignore_index=True)


def localisation(maps, truth) -> pd.DataFrame:
    """Check against a known place: share of relevance inside it, and the pointing game (Zhang et
    al. 2018).

    Parameters
    ----------
    maps, truth : array
        ``(n, 12, samples)``; truth is boolean, from `ecglib.analysis.known_place`.

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


@dataclass(frozen=True)
class Checks:
    """What `check` found: ``table`` has a row per method, ``layers`` and ``deletion`` are the
    curves behind it.

    ``maps`` holds each method's maps of the ECGs that were checked.
    """

    table: pd.DataFrame
    layers: pd.DataFrame
    deletion: pd.DataFrame
    maps: dict

    @property
    def verdict(self) -> str:
        """Say which maps deserve trust, by these checks."""
        passed = self.table[["randomisation", "deletion", "localisation"]] == "yes"
        failed = {name: ", ".join(row.index[~row]) for name, row in passed.iterrows()}
        lines = [
            f"{name}: {'fails ' + checks if checks else 'passes all three'}."
            for name, checks in failed.items()
        ]
        trusted = ", ".join(name for name, checks in failed.items() if not checks)
        end = "no map deserves trust: none may be read as the place of a disease."
        if trusted:
            end = f"maps of {trusted} deserve trust."
        return "\n".join([*lines, f"By these checks, {end}"])


def check(model, beats, inputs, place: Place, seed: int = 42, thorough: bool = True) -> Checks:
    """Run the three checks on every method.

    Parameters
    ----------
    model, beats, inputs : torch.nn.Module, array, array
        A trained network in eval mode, and positives: a few, since most methods take hundreds of
        passes an ECG.
    place : Place
        For the localisation; its ECGs may be the same ones.
    thorough : bool
        16 steps of Integrated Gradients, and maps at 3 layers of the randomisation; or else 8, and
        1. The gradient's maps are taken at each layer in any case.
    """
    same, steps, stages = place.inputs is inputs, 16 if thorough else 8, 3 if thorough else 1
    (*_, (_, random)) = forget(model, seed)
    rows, layers, maps = {}, [], {}
    for method, name in METHODS.items():
        options = _options(method, beats, steps)
        trained = maps[name] = attribute(model, inputs, method, **options)
        at = None if method == "gradient" else stages
        table, forgotten = cascade(model, inputs, method, seed, trained, at, **options)
        layers.append(table.assign(method=name))
        if not same:
            options = _options(method, place.beats, steps)
            trained, forgotten = (
                attribute(network, place.inputs, method, **options) for network in (model, random)
            )
        inside = localisation(trained, place.truth).mean()
        by_random = localisation(forgotten, place.truth).mean()
        last = table[table.layer == table.layer.iloc[-1]].rank_correlation
        rows[name] = {
            "ECGs": len(inputs),
            "correlation with randomised": last.mean(),
            "share / chance, trained": inside["share"] / inside["chance"],
            "share / chance, randomised": by_random["share"] / by_random["chance"],
            "hits": inside["hit"],
            "hits by chance": inside["hit_chance"],
        }
    erased = deletion(model, inputs, maps, seed=seed)
    table = _judged(pd.DataFrame.from_dict(rows, orient="index"), erased)
    return Checks(table, pd.concat(layers, ignore_index=True), erased, maps)


def _options(method: str, beats, steps: int) -> dict:
    """What a method of `attribute` needs besides."""
    if method == "occlude_waves":
        found = segments_of(fiducials.find(beats).points)
        return {"segments": {name: found[name] for name in WAVES}}
    return {"steps": steps} if method == "integrated_gradients" else {}


def _judged(table: pd.DataFrame, erased: pd.DataFrame) -> pd.DataFrame:
    """Add to a row per method what erasing told, and which checks it passes."""
    inner = erased[(erased.fraction > 0) & (erased.fraction < 1)]
    area, falls = inner.pivot_table("logit", "ecg", "map"), True
    for other in ("random", "QRS energy"):
        gap = area[list(table.index)].sub(area[other], axis=0)
        table[f"logit against {other}"] = gap.mean()
        falls &= gap.mean() + stats.t.ppf(0.975, max(len(gap) - 1, 1)) * gap.sem() < 0
    trained, random = table["share / chance, trained"], table["share / chance, randomised"]
    passes = {
        "randomisation": table["correlation with randomised"] < CORRELATION,
        "deletion": falls,
        "localisation": (trained >= RATIO) & (random < RATIO),
    }
    return table.assign(**{name: np.where(passed, "yes", "no") for name, passed in passes.items()})


def compare(maps: dict) -> pd.DataFrame:
    """Mean rank correlation over ECGs of every two entries of `maps` (name → maps of the same
    ECGs).
    """
    table = pd.DataFrame(np.eye(len(maps)), index=list(maps), columns=list(maps))
    for a, b in combinations(maps, 2):
        table.loc[a, b] = table.loc[b, a] = agreement(maps[a], maps[b]).mean()
    return table


def limits(model, place: Place, seed: int = 42) -> tuple[pd.DataFrame, str]:
    """Ask why a gradient map puts no more relevance into a known place than it does.

    Returns
    -------
    table : pandas.DataFrame
        For several maps the share inside the place over an even map's: ``region``, and for its
        ``leads`` (at any time) and ``time`` (in any lead) alone. Among them is the change itself,
        in µV and as the network's input has it.
    sentences : str
        The same in words, with what the change does to the logit.
    """
    (*_, (_, random)) = forget(model, seed)
    gradient = attribute(model, place.inputs)
    seen, change = at_beat(place.inputs), at_beat(place.inputs - place.without)
    everywhere = np.ones_like(place.truth)
    truth = {
        "region": place.truth,
        "leads": place.truth.any(2, keepdims=True) & everywhere,
        "time": place.truth.any(1, keepdims=True) & everywhere,
    }
    rows = {}
    for name, maps in (
        ("the change in µV", place.change),
        ("the change in the network's input", change),
        ("gradient (the paper's map)", gradient),
        ("gradient × input", gradient * seen),
        ("gradient × change", gradient * change),
        ("gradient of the randomised network", attribute(random, place.inputs)),
    ):
        found = {kind: localisation(maps, at).mean() for kind, at in truth.items()}
        rows[name] = {"share": found["region"]["share"]}
        rows[name] |= {kind: inside["share"] / inside["chance"] for kind, inside in found.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table, _limits_in_words(model, place, table)


def _limits_in_words(model, place: Place, table: pd.DataFrame) -> str:
    inside = place.truth[..., :: place.truth.shape[-1] // place.inputs.shape[-1]]
    only = logits(model, np.where(inside, place.inputs, place.without)).mean()
    before, after = (logits(model, x).mean() for x in (place.without, place.inputs))
    volts, seen, map_ = (row for _, row in table.head(3).iterrows())
    return (
        f"What acts is {place.meaning}. It moves the mean logit from {before:.2f} to {after:.2f}; "
        f"its part inside the place alone, to {only:.2f}.\n"
        f"In µV, {volts.share:.0%} of it lies in the place ({volts.region:.1f} × chance). Of what "
        f"it changes in the network's input, {seen.share:.0%} does ({seen.region:.1f} × chance): "
        "so much a map that followed the change exactly would reach.\n"
        f"The gradient map reaches {map_.region:.2f} × chance (right leads {map_.leads:.2f} ×, "
        f"right time {map_.time:.2f} ×): a gradient tells to which samples the network is "
        "sensitive, not which of them differ in this ECG."
    )
