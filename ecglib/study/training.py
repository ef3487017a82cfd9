"""A run: what decides its numbers; taken over where it lies finished, else trained."""

import os
import shutil
from pathlib import Path

import pandas as pd

from ecglib.folders import sha256
from ecglib.study import places
from ecglib.study.learned import FILE, learned
from ecglib.study.params import MODELS
from ecglib.study.places import WEIGHTS
from ecglib.study.runs import RunError, read_run

AGAIN = "trained_again"


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
    if entry.features != "all":
        identity["features"] = entry.features
    if network:
        given = entry.model_dump(include={"normalisation", "samples", "epochs"}, exclude_none=True)
        training = study.training.model_copy(update=given).model_dump(exclude_defaults=True)
        identity |= {"model_seed": entry.seed} if entry.seed else {}
        rate = learning_rate or learning_rate_of(study, model)
        identity |= {"learning_rate": rate, "training": training}
    return identity


def learning_rate_of(study, model: str) -> float:
    """Learning rate of a network: the one in the study file, or the one that notebook 04 chose."""
    if study.learning_rates is None or model not in study.learning_rates.grid:
        return study.models[model].learning_rate
    file = places.step_folder(study.name, "04_learning_rate") / "tables/chosen.csv"
    if not file.is_file():
        raise RunError(
            f"Study {study.name} has chosen no learning rate for {model} yet: run notebook "
            "04_learning_rate first"
        )
    return float(pd.read_csv(file, index_col="model").learning_rate[model])


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
    learned(step.cohort, step.identity, step.folder).tofile(step.folder / FILE)
    return {"band_hz": step.cohort.info.get("band_hz")} | facts


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
    from ecglib.state import differences  # torch: seconds that other readers needn't wait for

    refused = []
    for source in (place for place in sources if (place / "run.json").is_file()):
        try:
            facts = read_run(source)
            if differs := differences(facts["identity"], identity):
                raise RunError(f"{source} is another run: {'; '.join(differs)}")
        except RunError as error:
            refused.append(str(error))
            continue
        for name in facts["files"]:
            if (source / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, folder / name)
        taken = {"folder": places.shown(source), "environment": facts["environment"]}
        own = "environment", "files", "seconds", "folder", "findings"
        facts = {name: value for name, value in facts.items() if name not in own}
        return {"taken_from": taken} | facts, refused
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
        print(f"{places.shown(folder)} came without weights, so it is trained again")
        again.mkdir(exist_ok=True)
        trainer.train(facts["identity"], cohort, folds, again)
        if sha256(again / WEIGHTS) == facts["files"].get(WEIGHTS):
            os.replace(again / WEIGHTS, folder / WEIGHTS)
            shutil.rmtree(again)
            return trainer.load_model(folder)
        (again / "checkpoint.pt").unlink()
        shutil.copy2(folder / "run.json", again)
    kept, fresh = (pd.read_parquet(f / "predictions.parquet").probability for f in (folder, again))
    most = (kept - fresh).abs().max()
    print(f"Trained on another platform: its scores differ by up to {most:.2g} from those kept")
    return trainer.load_model(again)
