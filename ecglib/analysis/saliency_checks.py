"""Can a saliency map be believed? Three checks of every method.

A method passes *randomisation* if its maps, with their signs, correlate with those of networks
without the training by less than half of what is left above chance (`CORRELATION`), where chance is
the same map shuffled within the windows it can reach; *deletion* if erasing what it ranks first
lowers the logit more than erasing at random and by QRS energy (95 % of the mean difference below
0); *localisation* if it puts more than half (`MARK`) of what an exact map would put into the known
place, above an even map's share, and the randomised networks don't.
"""

import copy
from dataclasses import dataclass
from itertools import product

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

CORRELATION, MARK, NETWORKS = 0.5, 0.5, 3
# what occlusion by wave replaces; the rest is near the level it is replaced by
WAVES = ("P", "QRS", "ST", "T")
SIGNS = {"signed": True, "absolute": False}


def forget(model, inputs, seed=42):
    """Yield ``name, network``: a copy of the network whose layers are put back to a random start,
    from the last one on.

    It is one copy, which forgets more with each step; the last step has nothing of the training
    left. Batch norms that forgot get the statistics of what `inputs`, ``(n, 12, samples)`` with n
    of at least 2, give them: any others would flatten what follows, and no map is left to compare.
    """
    network, norms = copy.deepcopy(model), []
    x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)[:, None]
    x = x.to(next(model.parameters()).device)
    # ResNet-18 sits behind `model`
    parts = [*getattr(network, "model", network).named_children()]
    for number, (name, part) in enumerate(reversed(parts)):
        layers = [layer for layer in part.modules() if hasattr(layer, "reset_parameters")]
        if not layers:
            continue
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            for layer in layers:
                layer.reset_parameters()
        norms += [layer for layer in layers if hasattr(layer, "running_mean")]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of what comes, not a running one
            norm.train()
        with torch.no_grad():
            network(x)
        yield name, network.eval()


def random_networks(model, inputs, seed=42) -> list:
    """Copies of the network that have forgotten all, from `NETWORKS` random starts."""
    return [list(forget(model, inputs, seed + 1000 * k))[-1][1] for k in range(NETWORKS)]


def cascade(model, inputs, maps, seed=42) -> pd.DataFrame:
    """Check by cascading randomisation (Adebayo et al. 2018): gradient `maps` must change when
    layers forget what they learned.

    Returns ``layer, ecg, rank_correlation`` (`agreement`) in order from the last layer to the
    first.
    """
    found = {
        name: pd.DataFrame({"rank_correlation": agreement(maps, attribute(network, inputs))})
        for name, network in forget(model, inputs, seed)
    }
    return pd.concat(found, names=["layer", "ecg"]).reset_index()


def shuffled(maps, seed=42) -> np.ndarray:
    """Each ECG's map with its windows in random order among those where it isn't 0: what a method
    can't reach stays 0.
    """
    generator, blocks = np.random.default_rng(seed), maps.reshape(len(maps), -1, WINDOW).copy()
    for one in blocks:
        there = np.flatnonzero(one.any(-1))
        one[there] = one[generator.permutation(there)]
    return blocks.reshape(maps.shape)


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
        score = windows(at_beat(values), signed=True)
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
    size, rows = np.abs(maps).astype(np.float64), np.arange(len(maps))
    half = windows(truth.astype(np.float32)).reshape(len(maps), -1) >= 0.5
    highest = windows(maps).reshape(len(maps), -1).argmax(1)
    found = {
        "share": (size * truth).sum((1, 2)) / np.maximum(size.sum((1, 2)), 1e-30),
        "chance": truth.mean((1, 2)),
        "hit": half[rows, highest].astype(float),
        "hit_chance": half.mean(1),
    }
    return pd.DataFrame(found)[truth.any((1, 2))].reindex(rows)


@dataclass(frozen=True)
class Checks:
    """What `check` found: ``table`` has a row per method, ``layers`` (of the gradient) and
    ``deletion`` are the curves behind it.

    ``maps`` holds each method's maps of the ECGs that were checked; ``judged`` is the known place
    on which localisation was judged.
    """

    table: pd.DataFrame
    layers: pd.DataFrame
    deletion: pd.DataFrame
    maps: dict
    judged: str

    @property
    def verdict(self) -> str:
        """Say which maps can be trusted, by these checks."""
        passed = self.table[["randomisation", "deletion", "localisation"]] == "yes"
        lines = [
            f"{name}: fails {', '.join(row.index[~row])}."
            if not row.all()
            else f"{name}: passes all three."
            for name, row in passed.iterrows()
        ]
        trusted = ", ".join(passed.index[passed.all(axis=1)])
        end = "no map can be trusted: none may be read as showing where a disease is."
        if trusted:
            end = f"maps of {trusted} can be trusted."
        return "\n".join([*lines, f"By these checks, {end}"])


def check(model, beats, inputs, places: dict, seed: int = 42) -> Checks:
    """Run the three checks on every method.

    Parameters
    ----------
    model, beats, inputs : torch.nn.Module, array, array
        A trained network in eval mode, and positives: a few, at least 2, since most methods take
        hundreds of passes an ECG.
    places : dict of str to Place
        For the localisation, which is judged on the one that moves the logit most.
    """
    randoms, rows, maps = random_networks(model, inputs, seed), {}, {}
    moved = {
        k: (logits(model, p.inputs) - logits(model, p.without)).mean() for k, p in places.items()
    }
    judged = max(moved, key=moved.get)
    for method, name in METHODS.items():
        own, *forgotten = _maps([model, *randoms], inputs, method, _options(method, beats))
        maps[name] = own
        rows[name] = {"ECGs": len(inputs)} | _randomised(own, forgotten, seed)
        for kind, place in places.items():
            found = _localised([model, *randoms], method, place)
            rows[name] |= {f"{kind}: {what}": value for what, value in found.items()}
    erased = deletion(model, inputs, maps, seed=seed)
    table = _judged(pd.DataFrame.from_dict(rows, orient="index"), erased, judged)
    gradient = METHODS["gradient"]
    layers = cascade(model, inputs, maps[gradient], seed).assign(method=gradient)
    return Checks(table, layers, erased, maps, judged)


def _maps(networks: list, inputs, method: str, options: dict) -> list:
    return [attribute(network, inputs, method, **options) for network in networks]


def _options(method: str, beats) -> dict:
    """What a method of `attribute` needs besides."""
    if method == "occlude_waves":
        found = segments_of(fiducials.find(beats).points)
        return {"segments": {name: found[name] for name in WAVES}}
    return {"steps": 16} if method == "integrated_gradients" else {}


def _randomised(trained, forgotten: list, seed: int) -> dict:
    """Mean correlation of a map with those of random networks, and with the same shuffled."""
    others, found = {"": forgotten, ", by chance": [shuffled(maps, seed) for maps in forgotten]}, {}
    for (kind, signed), (null, each) in product(SIGNS.items(), others.items()):
        alike = [agreement(trained, maps, signed) for maps in each]
        found[f"correlation with randomised, {kind}{null}"] = np.mean(alike)
    return found


def _localised(networks: list, method: str, place: Place) -> dict:
    """Share over chance in a known place, of the first network's maps, of the others' and of an
    exact map: the change in the network's input, as finely as the method can show it.
    """
    options = _options(method, place.beats)
    exact = at_beat(np.abs(place.inputs - place.without))
    whole = {"all": np.ones((len(exact), exact.shape[2]), bool)}
    if method.startswith("occlude"):  # shows no more than the mean of each cell
        cells = [cell[:, None] for cell in options.get("segments", whole).values()]
        exact = sum(
            cell * (exact * cell).sum(-1, keepdims=True) / np.maximum(cell.sum(-1)[..., None], 1)
            for cell in cells
        )
    maps = [*_maps(networks, place.inputs, method, options), exact]
    own, *_ = found = [localisation(each, place.truth).mean() for each in maps]
    trained, *others, exact = (one["share"] / one["chance"] for one in found)
    told = {"trained": trained, "randomised": np.mean(others), "exact": exact}
    return told | {"hits": own["hit"], "hits by chance": own["hit_chance"]}


def _judged(table: pd.DataFrame, erased: pd.DataFrame, judged: str) -> pd.DataFrame:
    """Add to a row per method what erasing told, and which checks it passes."""
    inner = erased[(erased.fraction > 0) & (erased.fraction < 1)]
    area, falls = inner.pivot_table("logit", "ecg", "map"), True
    for other in ("random", "QRS energy"):
        gap = area[list(table.index)].sub(area[other], axis=0)
        table[f"logit against {other}"] = gap.mean()
        falls &= gap.mean() + stats.t.ppf(0.975, max(len(gap) - 1, 1)) * gap.sem() < 0
    alike = table["correlation with randomised, signed"]
    chance = table["correlation with randomised, signed, by chance"]
    share = table.filter(like=f"{judged}: ").rename(columns=lambda name: name.split(": ")[1])
    mark = 1 + MARK * (share["exact"] - 1)
    passes = {
        "randomisation": alike - chance < CORRELATION * (1 - chance),
        "deletion": falls,
        "localisation": (share["trained"] >= mark) & (mark > share["randomised"]),
    }
    return table.assign(**{name: np.where(passed, "yes", "no") for name, passed in passes.items()})
