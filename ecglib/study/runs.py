"""Finished runs of a study: what models predicted, how they learned, what they cost."""

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ecglib import metrics
from ecglib.cohort.contract import Cohort, CohortError, load_cohort
from ecglib.folders import sha256
from ecglib.models import build_model, flops, without_download
from ecglib.study import places
from ecglib.study.params import MODELS

WEIGHTS, AGAIN = "weights.safetensors", "trained_again"


class RunError(ValueError):
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
    label_kind, label_meaning : str
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    facts: pd.DataFrame
    labels: dict
    problems: list
    label_kind: str
    label_meaning: str

    @property
    def caption(self) -> str:
        """The label and its kind in words, for captions."""
        return f"{self.label_meaning} [{self.label_kind} label]"


def read_run(folder: Path) -> dict:
    """Read ``run.json`` of a finished run, and check that its files are those that it names.

    Raises
    ------
    RunError
        If the run isn't finished, or a file is missing or changed; weights may have been left out.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise RunError(f"{os.path.relpath(folder, places.ROOT)} has no run.json: it isn't finished")
    facts = json.loads(file.read_text())
    for name, expected in facts["files"].items():
        there = folder / name
        if not there.is_file() and there.suffix in (".safetensors", ".skops"):
            continue
        if not there.is_file() or sha256(there) != expected:
            name = os.path.relpath(there, places.ROOT)
            raise RunError(
                f"{name} is missing or not the file that the run wrote (SHA-256 differs)"
            )
    return facts | {"folder": folder}


def run_identity(study, model: str, rotation: int, cohort, learning_rate: float = 0) -> dict:
    """Return everything that decides a run's numbers; with another identity it is another run.

    Values at their default are left out, so that a new option orphans no finished run.

    Parameters
    ----------
    study : ecglib.study.params.Study
    model : str
        A key of the study's models, network or tree.
    rotation : int
    cohort : ecglib.cohort.contract.Cohort
    learning_rate : float
        Of a network's run of the grid; 0: the study's own, or the one chosen in notebook 04.
    """
    entry, network = study.models[model], model in study.networks
    identity = {
        "model": model,
        "network": study.registered(model),
        "options": entry.options,
        "rotation": rotation,
        "folds": study.folds.model_dump(exclude_defaults=True, exclude={"rotations"}),
        "seed": study.seed,
        "threads": study.threads_per_run,
        "cohort": cohort.key if network else cohort.key_with("age", "rr_ms"),
        "protocol": MODELS[study.registered(model)].protocol,
    }
    if network:
        given = {"normalisation": entry.normalisation} if entry.normalisation else {}
        training = study.training.model_copy(update=given).model_dump(exclude_defaults=True)
        rate = learning_rate or learning_rate_of(study, model, rotation)
        identity |= {"learning_rate": rate, "training": training}
    return identity


def learning_rate_of(study, model: str, rotation: int) -> float:
    """Learning rate of a network: the one in the study file, or the one that notebook 04 chose."""
    if study.learning_rates is None or model not in study.learning_rates.grid:
        return study.models[model].learning_rate
    file = places.step_folder(study.name, "04_learning_rate") / "run.json"
    if not file.is_file():
        raise RunError(
            f"Study {study.name} has chosen no learning rate for {model} yet: run notebook "
            "04_learning_rate first"
        )
    chosen = json.loads(file.read_text())["chosen"][model]
    return float(chosen.get(str(rotation), chosen.get("-1")))


def train_or_take_over(step, train) -> dict:
    """Take over a finished run of the same identity, or train it into the step's folder.

    Parameters
    ----------
    step : ecglib.study.step.Step
        Of a run, from `ecglib.study.step.open_run`.
    train : callable
        `ecglib.trainer.train` or `ecglib.trees.forest.train`.

    Returns
    -------
    dict
        Facts for ``run.json``.
    """
    sources = sorted(step.sources, key=lambda place: not (place / WEIGHTS).is_file())
    facts, refused = reuse(step.identity, sources, step.folder)
    print(*refused, sep="\n", end="\n" * bool(refused))
    if facts is None:
        facts = train(step.identity, step.cohort, step.folds, step.folder)
    return facts


def performance(step) -> pd.DataFrame:
    """AUC, average precision, score and Brier score of a run's predictions, by split."""
    table = pd.read_parquet(step.folder / "predictions.parquet")
    measures = {"AUC": metrics.auc, "AP": metrics.average_precision, "score": metrics.score}
    measures["Brier"] = metrics.brier
    rows = {
        split: {name: measure(part.label, part.probability) for name, measure in measures.items()}
        for split, part in table.groupby("split", sort=False)
    }
    return pd.DataFrame(rows).T


def reuse(identity: dict, sources, folder: Path) -> tuple[dict | None, list[str]]:
    """Take over a finished run that has the same identity, from another place or machine, instead
    of doing it again.

    Parameters
    ----------
    identity : dict
        From `run_identity`.
    sources : list of Path
        Run folders to look at, in order; one that isn't there is passed over.
    folder : Path
        Receives predictions, history and, where they are there, weights.

    Returns
    -------
    facts : dict or None
        What ``run.json`` said, with ``taken_from``; None if no source fits.
    refused : list of str
        A sentence for each source that is there but doesn't fit.
    """
    from ecglib.trainer import differences  # torch: seconds that other readers needn't wait for

    refused = []
    for source in sources:
        if not (source / "run.json").is_file():
            continue
        try:
            facts = read_run(source)
        except RunError as error:
            refused.append(str(error))
            continue
        if differs := differences(facts["identity"], identity):
            refused.append(f"{source} is another run: {'; '.join(differs)}")
            continue
        for name in facts["files"]:
            if (source / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, folder / name)
        taken = {
            "folder": os.path.relpath(source, places.ROOT),
            "environment": facts["environment"],
        }
        own = {"environment", "files", "seconds", "folder"}
        kept = {name: value for name, value in facts.items() if name not in own}
        return kept | {"taken_from": facts.get("taken_from", taken)}, refused
    return None, refused


def network_of(folder: Path, cohort, folds: pd.DataFrame):
    """Return the trained network of a finished run; trained again where its weights were left
    behind.

    Training repeats itself to the bit on the same platform; then the run gets its weights back.
    Elsewhere they may differ a little: how much the scores do is printed, and the weights are kept
    beside the run, as `AGAIN`.

    Parameters
    ----------
    folder : Path
        A finished run, for example ``outputs/demo/runs/ecg_smart_net/rotation_0``.
    cohort, folds : ecglib.cohort.contract.Cohort, pandas.DataFrame
        Those of its study; `folds` with ``record_id, fold``.

    Returns
    -------
    torch.nn.Module
        As from `ecglib.load_model`: float32 ``(batch, 1, 12, 400)`` to logits ``(batch, 2)``.

    Raises
    ------
    RunError, ecglib.trainer.TrainingError
        As `read_run`, `ecglib.trainer.train` and `ecglib.load_model`.
    """
    from ecglib import trainer  # a second to import, for the one reader that needs it

    facts, again = read_run(folder), folder / AGAIN
    if (folder / WEIGHTS).is_file():
        return trainer.load_model(folder)
    if not (again / "run.json").is_file():
        print(
            f"{os.path.relpath(folder, places.ROOT)} came without its weights: it is trained again"
        )
        again.mkdir(exist_ok=True)
        trainer.train(facts["identity"], cohort, folds, again)
        if sha256(again / WEIGHTS) == facts["files"].get(WEIGHTS):
            os.replace(again / WEIGHTS, folder / WEIGHTS)
            shutil.rmtree(again)
            return trainer.load_model(folder)
        (again / "checkpoint.pt").unlink()
        shutil.copy2(folder / "run.json", again)
    kept, fresh = (
        pd.read_parquet(place / "predictions.parquet").probability for place in (folder, again)
    )
    print(
        f"Trained on another platform: its scores differ by up to {(kept - fresh).abs().max():.2g} "
        "from those kept"
    )
    return trainer.load_model(again)


def load_runs(study) -> Runs:
    """Load every run that a study asks for; what is missing or damaged is named in `Runs.problems`.

    Raises
    ------
    RunError
        If no run is there at all.
    """
    predictions, history, facts, problems = [], [], [], []
    for model in study.models:
        for rotation in study.rotations:
            try:
                told = read_run(places.run_folder(study.name, model, rotation))
            except RunError as error:
                problems.append(str(error))
                continue
            facts.append({"model": model, "rotation": rotation, **told})
            predictions.append(pd.read_parquet(told["folder"] / "predictions.parquet"))
            if (told["folder"] / "history.csv").is_file():
                run = pd.read_csv(told["folder"] / "history.csv")
                history.append(run.assign(model=model, rotation=rotation))
    if not facts:
        raise RunError(f"Study {study.name} has no finished run; the first reason: {problems[0]}")
    facts = pd.DataFrame(facts)
    labels = display_names(study)
    history = pd.concat(history, ignore_index=True) if history else pd.DataFrame()
    facts, first = facts.assign(label=facts.model.map(labels)), facts.iloc[0]
    kind = first.label_kind, first.label_meaning
    return Runs(pd.concat(predictions, ignore_index=True), history, facts, labels, problems, *kind)


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
    rows = {}
    for name, runs in facts.groupby("label", sort=False):
        first, seconds = runs.iloc[0], runs["train_seconds"].mean()
        row = {"Parameters": first.get("parameters"), "MFLOPs": first.get("mflops")}
        row |= {"Epochs": runs["epochs"].mean() if "epochs" in runs else None}
        row |= {
            "Seconds per epoch": seconds / row["Epochs"] if row["Epochs"] else None,
            "Seconds per run": seconds,
        }
        row |= {
            "Peak memory (MB)": runs["peak_memory_mb"].mean() if "peak_memory_mb" in runs else None
        }
        rows[name] = row | {"Threads": first["identity"]["threads"], "Device": first["device"]}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Model")
    return table.astype({"Parameters": "Int64"} | dict.fromkeys(table.columns[1:6], float))


def mflops(identity: dict) -> float:
    """Million operations of one ECG's forward pass through the network of a run."""
    options = without_download(identity["network"], identity["options"])
    return flops(build_model(identity["network"], **options)) / 1e6


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
            f"There are no {split} predictions of '{model}'; train it, or change the study's "
            "selected_model"
        )
    scores = {
        rotation: metrics.score(run.label, run.probability)
        for rotation, run in part.groupby("rotation")
    }
    return (
        pd.Series(scores, name=f"{split} score")
        .rename_axis("rotation")
        .sort_values(ascending=False)
    )


def cohort_of(study) -> Cohort:
    """Open the cohort that notebook 00 made, or opened, for a study."""
    told = places.step_folder(study.name, "00_cohort") / "run.json"
    if not told.is_file():
        raise CohortError(
            f"Study {study.name} has no cohort yet: run notebook 00_cohort with it first"
        )
    return load_cohort(places.ROOT / json.loads(told.read_text())["cohort"])


def folds_of(study) -> pd.DataFrame:
    """Folds that notebook 02 dealt for a study: ``record_id, fold``."""
    file = places.step_folder(study.name, "02_folds") / "folds.parquet"
    if not file.is_file():
        raise CohortError(
            f"Study {study.name} has no folds yet: run notebook 02_folds with it first"
        )
    return pd.read_parquet(file)
