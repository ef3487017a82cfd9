"""Can a saliency map be believed? The three checks of `ecglib.analysis.saliency` on every method,
and what limits them.

A method passes *randomisation* if its maps correlate by less than `CORRELATION` with those of the
same network without its training; *deletion* if erasing what it ranks first lowers the logit more
than erasing at random and by QRS energy (95 % of the mean difference below 0); *localisation* if it
puts at least `RATIO` times an even map's share into the known place, and the randomised network
doesn't.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats

from ecglib.analysis import saliency
from ecglib.dataset import CROP, normalise
from ecglib.signal import fiducials

CORRELATION, RATIO = 0.5, 2.0
# what occlusion by wave replaces; the rest is near the level it is replaced by
WAVES = ("P", "QRS", "ST", "T")
ANTERIOR = {"V2": 200, "V3": 200, "V4": 200}
# µV, as Einthoven and Goldberger have it
INFERIOR = {"II": 200, "III": 200, "aVF": 200, "aVR": -100, "aVL": -100}


def inputs_of(cohort, rows: pd.DataFrame, identity: dict) -> tuple[np.ndarray, np.ndarray]:
    """Beats, int16 µV ``(n, 12, 600)``, and network inputs, float32 ``(n, 12, 400)``, of the
    records in `rows`.

    Raises
    ------
    ValueError
        If the run of that `identity` was trained on another cohort.
    """
    if identity.get("cohort", cohort.key) != cohort.key:
        raise ValueError(
            f"The run was trained on another cohort than {cohort.folder.name}; train it again"
        )
    at = cohort.records.reset_index().set_index("record_id")["index"].loc[rows.record_id].to_numpy()
    beats = np.asarray(cohort.beats[at])
    return beats, _inputs(beats, identity)


def _inputs(beats, identity) -> np.ndarray:
    cropped = torch.from_numpy(np.ascontiguousarray(beats[..., CROP]))
    return normalise(cropped, identity["training"]["normalisation"]).numpy()


def cases(predictions: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the surest true positive, false positive and false negative of a test fold, in a
    column ``case``.
    """
    test = predictions[predictions.split == "test"].sort_values("probability", ascending=False)
    called = test.probability >= threshold
    kinds = {
        "true positive": called & (test.label == 1),
        "false positive": called & (test.label == 0),
    }
    chosen = [test[at].head(1).assign(case=kind) for kind, at in kinds.items()]
    return pd.concat(
        [*chosen, test[~called & (test.label == 1)].tail(1).assign(case="false negative")]
    )


@dataclass(frozen=True)
class Place:
    """ECGs with a change of known place and size.

    ``inputs`` and ``without`` are what a network sees with and without it, ``(n, 12, 400)``;
    ``truth`` is where it acts, boolean; ``change`` is the change in µV; ``beats`` are those of
    `inputs`; ``told`` says what it is.
    """

    beats: np.ndarray
    inputs: np.ndarray
    without: np.ndarray
    truth: np.ndarray
    change: np.ndarray
    told: str


def known_place(cohort, rows: pd.DataFrame, identity: dict, seed: int, most: int) -> Place:
    """Take the injury of simulated positives, or add an ST change to the beats of negatives.

    Parameters
    ----------
    cohort, rows, identity : ecglib.cohort.contract.Cohort, pandas.DataFrame, dict
        `rows` are predictions of a test fold, `identity` is the run's.
    seed : int
        The study's, from which a simulated cohort was drawn.
    most : int
        ECGs at most. Without a simulation's truth, half of them get 0.2 mV of ST elevation in
        V2–V4, the others in II, III and aVF with half as much reciprocal depression, from the J
        point to the end of T.
    """
    records = cohort.records.set_index("record_id", drop=False).loc[rows.record_id]
    if "affected_leads" in records:
        from ecglib.cohort.synthetic import heart_of

        shown = (records.affected_leads != "") & ~records.disturbance.str.contains(
            "swapped|missing"
        )
        records = records[shown].head(most)
        injuries = [heart_of(row, seed).leads("injury") for row in records.itertuples(index=False)]
        beats, inputs = inputs_of(cohort, records, identity)
        change, told = np.array(injuries), "the simulated injury"
        truth = saliency.true_region(records)
        return Place(
            beats, inputs, _inputs(beats - change, identity), truth, change[..., CROP], told
        )
    records = records[(records.label == 0) & ~records.poor_quality].head(4 * most)
    beats, inputs = inputs_of(cohort, records, identity)
    points = fiducials.find(beats)
    fine = np.flatnonzero(np.isfinite(points["qrs_off"]) & np.isfinite(points["t_off"]))[:most]
    parts = []
    for half, change in ((fine[::2], ANTERIOR), (fine[1::2], INFERIOR)):
        edges = points["qrs_off"][half], points["t_off"][half]
        parts.append(saliency.inject_st(beats[half], list(change), list(change.values()), *edges))
    changed, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.concatenate([fine[::2], fine[1::2]])
    told = "0.2 mV of ST elevation added to negatives (V2–V4, or II, III and aVF)"
    change = (changed - beats[order])[..., CROP]
    return Place(changed, _inputs(changed, identity), inputs[order], truth[..., CROP], change, told)


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


def check(
    model, beats, inputs, place: Place, seed: int = 42, steps: int = 16, stages: int = 3
) -> Checks:
    """Run the three checks on every method.

    Parameters
    ----------
    model, beats, inputs : torch.nn.Module, array, array
        A trained network in eval mode, and positives: a few, since most methods take hundreds of
        passes an ECG.
    place : Place
        For the localisation; its ECGs may be the same ones.
    steps, stages : int
        Steps of Integrated Gradients, here fewer than usual; at how many layers of the
        randomisation maps are taken, but for the gradient, which is taken at each.
    """
    rows, layers, maps, same = {}, [], {}, place.inputs is inputs
    waves, there = _waves(beats), _waves(place.beats)
    for method, label in saliency.METHODS.items():
        options = {
            "integrated_gradients": {"steps": steps},
            "occlude_waves": {"segments": waves},
        }.get(method, {})
        trained = maps[label] = saliency.attribute(model, inputs, method, **options)
        at = None if method == "gradient" else stages
        cascade, forgotten = saliency.cascade(model, inputs, method, seed, trained, at, **options)
        layers.append(cascade.assign(method=label))
        found = {"trained": trained, "randomised": forgotten}
        if not same:
            options |= {"segments": there} if method == "occlude_waves" else {}
            networks = {"trained": model, "randomised": [*saliency.forget(model, seed)][-1][1]}
            found = {
                k: saliency.attribute(net, place.inputs, method, **options)
                for k, net in networks.items()
            }
        last = cascade[cascade.layer == cascade.layer.iloc[-1]].rank_correlation
        share = {
            k: saliency.localisation(values, place.truth).mean() for k, values in found.items()
        }
        rows[label] = {"ECGs": len(inputs), "correlation with randomised": last.mean()}
        rows[label] |= {
            f"share / chance, {k}": told["share"] / told["chance"] for k, told in share.items()
        }
        rows[label] |= {
            "hits": share["trained"]["hit"],
            "hits by chance": share["trained"]["hit_chance"],
        }
    table, deletion = (
        pd.DataFrame.from_dict(rows, orient="index"),
        saliency.deletion(model, inputs, maps, seed=seed),
    )
    inner = deletion[(deletion.fraction > 0) & (deletion.fraction < 1)]
    area, below = inner.pivot_table("logit", "ecg", "map"), {}
    for other in ("random", "QRS energy"):
        gap = area[list(maps)].sub(area[other], axis=0)
        table[f"logit against {other}"] = gap.mean()
        below[other] = gap.mean() + stats.t.ppf(0.975, max(len(gap) - 1, 1)) * gap.sem() < 0
    trained, forgotten = table["share / chance, trained"], table["share / chance, randomised"]
    passes = {"randomisation": table["correlation with randomised"] < CORRELATION}
    passes |= {"deletion": below["random"] & below["QRS energy"]}
    passes |= {"localisation": (trained >= RATIO) & (forgotten < RATIO)}
    table = table.assign(**{name: np.where(passed, "yes", "no") for name, passed in passes.items()})
    return Checks(table, pd.concat(layers, ignore_index=True), deletion, maps)


def _waves(beats) -> dict[str, np.ndarray]:
    found = saliency.segments_of(fiducials.find(beats).points)
    return {name: found[name] for name in WAVES}


def compare(maps: dict) -> pd.DataFrame:
    """Mean rank correlation over ECGs of every two entries of `maps` (name → maps of the same
    ECGs).
    """
    table = pd.DataFrame(np.eye(len(maps)), index=list(maps), columns=list(maps))
    for a, b in combinations(maps, 2):
        table.loc[a, b] = table.loc[b, a] = saliency.agreement(maps[a], maps[b]).mean()
    return table


def limits(model, place: Place, seed: int = 42) -> tuple[pd.DataFrame, str]:
    """Ask why a gradient map puts no more relevance into a known place than it does.

    Returns
    -------
    table : pandas.DataFrame
        For several maps the share inside the place over an even map's: ``region``, and for its
        ``leads`` (at any time) and ``time`` (in any lead) alone. Among them is the change itself,
        in µV and as the network's input has it.
    told : str
        The same in words, with what the change does to the logit.
    """
    network = [*saliency.forget(model, seed)][-1][1]
    gradient, change = saliency.attribute(model, place.inputs), place.inputs - place.without
    maps = {"the change in µV": place.change, "the change in the network's input": change}
    maps |= {"gradient (the paper's map)": gradient, "gradient × input": gradient * place.inputs}
    maps |= {"gradient × change": gradient * change}
    maps |= {"gradient of the randomised network": saliency.attribute(network, place.inputs)}
    truth = {"region": place.truth}
    truth |= {name: place.truth.any(axis, keepdims=True) & np.ones_like(place.truth) for name, axis
    in
              (("leads", 2), ("time", 1))}  # fmt: skip
    rows = {}
    for name, values in maps.items():
        shares = {kind: saliency.localisation(values, at).mean() for kind, at in truth.items()}
        rows[name] = {"share": shares["region"]["share"]}
        rows[name] |= {kind: told["share"] / told["chance"] for kind, told in shares.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    only = saliency.logits(model, np.where(place.truth, place.inputs, place.without))
    before, after = (saliency.logits(model, x).mean() for x in (place.without, place.inputs))
    volts, seen, map_ = (table.loc[name] for name in list(maps)[:3])
    told = (
        f"What acts is {place.told}. It moves the mean logit from {before:.2f} to {after:.2f}; its "
        "part inside the "
        f"place alone, to {only.mean():.2f}.\nIn µV, {volts.share:.0%} of it lies in the place "
        f"({volts.region:.1f} × "
        f"chance). Of what it changes in the network's input, {seen.share:.0%} does "
        f"({seen.region:.1f} × chance): so "
        "much a map that followed the change exactly would reach.\nThe gradient map reaches "
        f"{map_.region:.2f} × "
        f"chance (right leads {map_.leads:.2f} ×, right time {map_.time:.2f} ×): a gradient tells "
        "to which samples the "
        "network is sensitive, not which of them differ in this ECG."
    )
    return table, told
