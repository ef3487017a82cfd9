"""Finished runs of a study: what models predicted, how they learned, what they cost."""

import json
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from ecglib import metrics
from ecglib.dataset import seen_as
from ecglib.errors import Refusal
from ecglib.folders import sha256
from ecglib.models import build_model, without_download
from ecglib.study import places

COST = {  # fact of a run → name, and how its rotations are joined
    "parameters": ("Parameters", "first"),
    "mflops": ("MFLOPs", "first"),
    "epochs": ("Epochs", "mean"),
    "train_seconds": ("Seconds per run", "mean"),
    "peak_memory_mb": ("Peak memory (MB)", "mean"),
    "threads": ("Threads", "first"),
    "device": ("Device", "first"),
}


class RunError(Refusal, ValueError):
    """A run that can't be used; one sentence that says why."""


@dataclass(frozen=True)
class Runs:
    """All finished runs of a study.

    Attributes
    ----------
    predictions : pandas.DataFrame
        ``record_id, patient_id, label, split, model, rotation, probability``.
    history : pandas.DataFrame
        One row per network, rotation and epoch.
    facts : pandas.DataFrame
        One row per run: label, parameters, seconds, epochs, best epoch, device, commit, folder.
    labels : dict
        Model key of the study → name in tables and figures; no two models share one.
    problems : list of str
        A sentence for each run that is missing or was refused.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    facts: pd.DataFrame
    labels: dict
    problems: list


def read_run(folder: Path) -> dict:
    """Read ``run.json`` of a finished run, and check that its files are those that it names.

    Raises
    ------
    RunError
        If the run isn't finished, or a file is missing or changed; weights may have been left out.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise RunError(f"{places.shown(folder)} has no run.json: it isn't finished")
    facts = json.loads(file.read_text())
    for name, expected in facts["files"].items():
        there = folder / name
        left_out = there.suffix in (".safetensors", ".skops") and not there.exists()
        if not left_out and not (there.is_file() and sha256(there) == expected):
            raise RunError(
                f"{places.shown(there)} is missing or not the file that the run wrote (SHA-256 "
                "differs)"
            )
    return facts | {"folder": folder}


def performance(folder: Path) -> pd.DataFrame:
    """AUC, average precision, score and Brier score of the run in a folder, by split."""
    table = pd.read_parquet(folder / "predictions.parquet")
    measures = {"AUC": metrics.auc, "AP": metrics.average_precision, "score": metrics.score}
    measures["Brier"] = metrics.brier
    rows = {
        split: {name: measure(part.label, part.probability) for name, measure in measures.items()}
        for split, part in table.groupby("split", sort=False)
    }
    return pd.DataFrame(rows).T


def load_runs(study) -> Runs:
    """Load every run that a study asks for; what is missing or damaged is named in `Runs.problems`.

    A study that has none of its own shows those that are committed.

    Raises
    ------
    RunError
        If no run is there at all.
    """
    predictions, history, facts, problems = [], [], [], []
    runs = list(product(study.models, study.rotations))
    folders = [places.run_folder(study.name, *run) for run in runs]
    if not any((folder / "run.json").is_file() for folder in folders):
        folders, place = map(places.kept, folders), places.shown(places.REFERENCE)
        problems.append(f"Nothing was trained here: the runs are those in {place}.")
    for (model, rotation), folder in zip(runs, folders, strict=True):
        try:
            facts.append({"model": model, "rotation": rotation} | read_run(folder))
        except RunError as error:
            problems.append(str(error))
            continue
        predictions.append(pd.read_parquet(folder / "predictions.parquet"))
        if (file := folder / "history.csv").is_file():
            history.append(pd.read_csv(file).assign(model=model, rotation=rotation))
    if not facts:
        raise RunError(
            f"Study {study.name} has no finished run ({problems[-1]}); "
            f"train it with `make reproduce STUDY=params/{study.name}.yaml`"
        )
    facts, labels = pd.DataFrame(facts), display_names(study)
    facts["label"] = facts.model.map(labels)
    history = pd.concat(history, ignore_index=True) if history else pd.DataFrame()
    return Runs(pd.concat(predictions, ignore_index=True), history, facts, labels, problems)


def training_noise(study, done: Runs) -> pd.DataFrame:
    """SD of the test AUC and AP between runs that differ in their seed alone, over the rotations
    that have such runs: among the study's own, and those kept of the study that
    ``statistics.training_noise`` names.

    Returns ``network, seeds, rotations, AUC, AP``, a row per network.
    """
    kept = places.REFERENCE / str(study.statistics.training_noise) / "runs"
    found = []
    for folder in [*done.facts.folder, *(file.parent for file in kept.glob("*/*/run.json"))]:
        told = read_run(folder)["identity"]
        same = {k: v for k, v in told.items() if k not in ("model", "model_seed")}
        found.append({"network": told["network"], "same": json.dumps(same, sort_keys=True)})
        found[-1] |= performance(folder).loc["test"]
    alike = pd.DataFrame(found).groupby(["network", "same"], sort=False)
    each = alike[["AUC", "AP"]].var().assign(seeds=alike.size()).dropna()
    networks = each.groupby("network", sort=False)
    sizes = networks.seeds.agg(seeds="max", rotations="size")
    return sizes.join(networks[["AUC", "AP"]].mean() ** 0.5).reset_index()


def display_names(study) -> dict[str, str]:
    """Name of each model of a study in tables and figures; with its key where two share one."""
    names = {model: study.display_name(model) for model in study.models}
    alike = Counter(names.values())
    return {
        model: name if alike[name] == 1 else f"{name} [{model}]" for model, name in names.items()
    }


def cost(facts: pd.DataFrame) -> pd.DataFrame:
    """What each model costs: size and operations of a network, time and memory of its runs, means
    over rotations.

    Returns
    -------
    pandas.DataFrame
        By label: ``Parameters, MFLOPs`` (one ECG's forward pass, a multiply-add counting as two),
        ``Epochs, Seconds per epoch, Seconds per run, Peak memory (MB)`` (as the runs noted it),
        ``Threads, Device``; NaN where unknown.
    """
    facts = facts.assign(threads=facts.identity.str["threads"])
    runs = facts.reindex(columns=["label", *COST]).groupby("label", sort=False)
    table = runs.agg({fact: how for fact, (_, how) in COST.items()}).rename_axis("Model")
    table.columns = [name for name, _ in COST.values()]
    table.insert(3, "Seconds per epoch", table["Seconds per run"] / table["Epochs"])
    return table.astype({"Parameters": "Int64"})


def mflops(identity: dict) -> float:
    """Million operations of one ECG's forward pass through the network of a run."""
    from ecglib.analysis.layers import flops  # torch: seconds that other readers needn't wait for

    options = without_download(identity["network"], identity["options"])
    network = build_model(identity["network"], **options)
    return flops(network, samples=seen_as(identity)["samples"]) / 1e6


def select(predictions: pd.DataFrame, model: str, split: str) -> pd.Series:
    """Score (Equation 1) of each rotation of a model on one split; the paper selects the highest
    *test* score.

    Returns
    -------
    pandas.Series
        Rotation → score, highest first.

    Raises
    ------
    RunError
        If the model has no run there.
    """
    part = predictions[(predictions.model == model) & (predictions.split == split)]
    if part.empty:
        raise RunError(
            f"There are no {split} predictions of '{model}'; "
            "train it, or change the study's selected_model"
        )
    runs = part.groupby("rotation")[["label", "probability"]]
    scores = runs.apply(lambda run: metrics.score(run.label, run.probability))
    return scores.rename(f"{split} score").sort_values(ascending=False)
