"""Choose the initial learning rate of each network from a grid (paper, section II.B)."""

import json

import pandas as pd

from ecglib import paths
from ecglib.params import StudyError
from ecglib.runs import RunError, read_run


def grid_rotations(study) -> tuple[int, ...]:
    """Rotations on which the grid is run: with `per_rotation` each one that the study runs."""
    tried = study.learning_rates
    return study.rotations if tried.rule == "per_rotation" or tried.rotations is None else tried.rotations


def grid_runs(study) -> list[tuple[str, float, int]]:
    """Model, learning rate and rotation of every run of the grid."""
    tried = study.learning_rates
    if tried is None:
        return []
    return [(m, rate, k) for m, rates in tried.grid.items() for rate in rates for k in grid_rotations(study)]


def read_grid(study) -> tuple[pd.DataFrame, list[str]]:
    """Best validation score of every run of the grid; and a sentence for each one that is missing.

    Returns
    -------
    pandas.DataFrame
        ``model, learning_rate, rotation, val_score, best_epoch, epochs``.
    list of str
    """
    rows, problems = [], []
    for model, rate, rotation in grid_runs(study):
        try:
            facts = read_run(paths.grid_folder(study.name, model, rate, rotation))
        except RunError as error:
            problems.append(str(error))
            continue
        history = pd.read_csv(facts["folder"] / "history.csv")
        row = {"model": model, "learning_rate": rate, "rotation": rotation, "val_score": history.val_score.max()}
        rows.append(row | {"best_epoch": facts["best_epoch"], "epochs": facts["epochs"]})
    if not rows:
        raise StudyError(f"Study {study.name} has no finished run of its grid: run notebook 05_train_network for it")
    return pd.DataFrame(rows), problems


def choose(scores: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Choose a learning rate for each model and rotation.

    Parameters
    ----------
    scores : pandas.DataFrame
        ``model, learning_rate, rotation, val_score``.
    rule : {'mean', 'per_rotation'}
        'mean' is the paper's: the rate with the highest mean validation score over the rotations, for all of them.
        It is mildly optimistic, since every validation fold is the test fold of another rotation. 'per_rotation'
        chooses from a rotation's own validation fold alone, so its test fold has no part in the choice.

    Returns
    -------
    pandas.DataFrame
        ``model, rotation, learning_rate``; with 'mean' rotation is −1, for all. Of equal scores the lower rate wins.
    """
    scores = scores.sort_values("learning_rate")
    if rule == "mean":
        scores = scores.groupby(["model", "learning_rate"], sort=False).val_score.mean().reset_index()
        scores["rotation"] = -1
    best = scores.loc[scores.groupby(["model", "rotation"], sort=False).val_score.idxmax()]
    return best[["model", "rotation", "learning_rate"]].reset_index(drop=True)


def learning_rate_of(study, model: str, rotation: int) -> float:
    """Learning rate of a run: the one in the study file, or the one that notebook 04 chose."""
    if study.learning_rates is None or model not in study.learning_rates.grid:
        return study.models[model].learning_rate
    file = paths.step_folder(study.name, "04_learning_rate") / "run.json"
    if not file.is_file():
        raise StudyError(f"Study {study.name} has chosen no learning rate yet: run notebook 04_learning_rate first")
    chosen = json.loads(file.read_text())["chosen"][model]
    return chosen.get(str(rotation), chosen.get("-1"))
