"""From predictions to conclusions: estimates, intervals and tests, conditional on the trained models."""

import pandas as pd

from ecglib import metrics

RANKING = ("auc", "average_precision", "score")
"""Metrics of the tables: both of the paper and their score (Equation 1)."""


def check_predictions(predictions: pd.DataFrame, models=None, rotations=None) -> tuple[pd.DataFrame, list[str]]:
    """Refuse predictions that can't be analysed; report what is missing, and go on with the rest.

    Parameters
    ----------
    predictions : pandas.DataFrame
        ``record_id, patient_id, label, split, model, rotation, probability``; ``train`` rows are left aside.
    models, rotations : list, optional
        What the study asked for; by default whatever is found.

    Returns
    -------
    predictions : pandas.DataFrame
        Validation and test rows of every run (a model in a rotation) whose labels have both classes.
    problems : list of str
        One sentence for each run that is missing or left out.

    Raises
    ------
    ValueError
        A probability that is NaN or outside 0–1, a record twice in a run or in two test (validation) folds, or one
        with two labels or patients.
    """
    found = predictions[predictions["split"].isin(["validation", "test"])]
    if found.empty:
        raise ValueError("No predictions of a validation or test fold are left; train at least one model first")
    problems, good = [], []
    for (model, rotation, split), run in found.groupby(["model", "rotation", "split"], sort=False, observed=True):
        name = f"{model}, rotation {rotation}, {split}"
        if (twice := run["record_id"].duplicated()).any():
            raise ValueError(f"{name}: record {run['record_id'][twice].iloc[0]} is there twice; predict this run again")
        try:
            label, _ = metrics.check(run["label"], run["probability"], classes=1)
        except ValueError as error:
            raise ValueError(f"{name}: {str(error)[0].lower()}{str(error)[1:]}") from None
        if label.min() == label.max():
            problems.append(f"{name}: all {label.size} labels are {label[0]}, so this fold can't be scored; left out.")
        else:
            good.append(run)
    truth = found[["record_id", "patient_id", "label"]].drop_duplicates()
    if (twice := truth["record_id"].duplicated()).any():
        raise ValueError(f"Record {truth['record_id'][twice].iloc[0]} has two labels or patients; its runs don't fit")
    folds = found[["record_id", "split", "rotation"]].drop_duplicates()
    if (twice := folds.duplicated(["record_id", "split"])).any():
        row = folds[twice].iloc[0]
        raise ValueError(f"Record {row.record_id} is in the {row.split} folds of two rotations; make the folds again")
    models = found["model"].unique() if models is None else models
    rotations = sorted(found["rotation"].unique()) if rotations is None else rotations
    there = set(zip(found["model"], found["rotation"], found["split"], strict=True))
    wanted = [(m, r, s) for m in models for r in rotations for s in ("validation", "test")]
    gaps = [f"{m}, rotation {r}, {s}: no predictions; left out." for m, r, s in wanted if (m, r, s) not in there]
    return pd.concat(good) if good else found.iloc[:0], gaps + problems


def per_rotation(predictions: pd.DataFrame) -> pd.DataFrame:
    """Metrics within each rotation.

    Returns
    -------
    pandas.DataFrame
        One row per model, rotation and split: counts of ``records, patients, positives``, then ``auc,
        average_precision, score, brier``.
    """
    rows = []
    for (model, rotation, split), run in predictions.groupby(["model", "rotation", "split"], sort=False, observed=True):
        label, probability = run["label"].to_numpy(), run["probability"].to_numpy()
        area, precision = metrics.auc(label, probability), metrics.average_precision(label, probability)
        counts = {"records": len(run), "patients": run["patient_id"].nunique(), "positives": int(label.sum())}
        values = {"auc": area, "average_precision": precision, "score": metrics.combine(area, precision)}
        rows.append({"model": model, "rotation": rotation, "split": split} | counts | values)
        rows[-1]["brier"] = metrics.brier(label, probability)
    return pd.DataFrame(rows)
