"""A study's trained models on another cohort, which none of them has seen (notebook 12)."""

import numpy as np
import pandas as pd
import torch

from ecglib import trainer
from ecglib.cohort import build
from ecglib.cohort.contract import Cohort
from ecglib.dataset import BeatBank, seen_as
from ecglib.study import places
from ecglib.study.data import source_of
from ecglib.study.learned import refuse_known
from ecglib.study.networks import ExplainError, of_their_band, read_network, with_weights
from ecglib.study.params import Study, load_study
from ecglib.study.runs import read_run
from ecglib.trees import forest


def trained(study) -> list[dict]:
    """Find the runs of a study whose weights are here, and tell which are not.

    Returns
    -------
    list of dict
        ``run.json`` of each, with its ``folder``.

    Raises
    ------
    ExplainError, ecglib.study.runs.RunError
        If there is none, or one is damaged or takes other leads.
    """
    runs = []
    for model in study.models:
        read = read_network if model in study.networks else read_run
        here = [read(folder) for folder in with_weights(study, model)]
        left = sorted({*study.rotations} - {run["identity"]["rotation"] for run in here})
        print(f"{study.display_name(model)}: {len(here)} with weights; without: {left or 'none'}")
        runs += here
    if not runs:
        raise ExplainError(f"Study {study.name} has no trained model with weights here; train one")
    return runs


def open_cohort(file: str, study, runs: list, data_dir: str = "") -> Cohort:
    """Make, or open, the cohort of another study, with beats as the runs of `study` know them.

    Raises
    ------
    ExplainError
        If it has no ECGs, or one of the runs knows some (`ecglib.study.learned.refuse_known`).
    """
    if not isinstance(other := load_study(file), Study):
        raise ExplainError(f"{file} is not a study of ECGs; name another one in cohort")
    other = other.model_copy(update={"signal": of_their_band(study.signal, runs)})
    source, place = source_of(other, data_dir), places.cohort_folder(other.cohort_key)
    cohort = build.open_or_build(source, other.signal, place, build.workers())
    for run in runs:
        if unchecked := refuse_known(cohort, run, study):
            print(unchecked)
    return cohort


def predict(runs: list, cohort: Cohort) -> pd.DataFrame:
    """Predict a cohort with each run, and with the mean of a model's rotations.

    Returns
    -------
    pandas.DataFrame
        Predictions as in a run's folder, on ``split`` validation, test and new, where a label that
        isn't known is NA. The mean of the probabilities stands as rotation −1; its validation
        predictions are those of all rotations, each ECG's by the one that hasn't trained on it.
    """
    new = cohort.records[["record_id", "patient_id", "label"]].astype({"label": "Int64"})
    new, parts = new.assign(split="new"), []
    for run in runs:
        same = {name: run["identity"][name] for name in ("model", "rotation")}
        parts.append(pd.read_parquet(run["folder"] / "predictions.parquet"))
        parts.append(new.assign(probability=_probability(run, cohort), **same))
    found = pd.concat(parts, ignore_index=True)
    same = ["model", "split", "record_id", "patient_id", "label"]
    mean = found[found.split != "test"].groupby(same, sort=False, dropna=False, as_index=False)
    return pd.concat([found, mean.probability.mean().assign(rotation=-1)], ignore_index=True)


def beside_cross_validation(known: pd.DataFrame) -> pd.DataFrame:
    """Predictions whose labels are known, by the column ``where``: each model's test folds, all its
    rotations on the new ECGs, their mean, and each rotation.
    """
    new = known[known.split == "new"]
    each, mean = new[new.rotation >= 0], new[new.rotation < 0]
    alone = "new ECGs, rotation " + each.rotation.astype(str)
    parts = known[known.split == "test"], each, mean, each
    told = "cross-validation", "new ECGs", "new ECGs, mean's answer", alone
    return pd.concat([part.assign(where=where) for part, where in zip(parts, told, strict=True)])


def _probability(run: dict, cohort: Cohort) -> np.ndarray:
    """Probability of label 1 of each ECG of a cohort."""
    if "training" not in run["identity"]:
        fitted = forest.load(run["folder"] / "model.skops")
        return forest.predict(fitted, forest.cohort_features(cohort))
    every, seen = np.arange(len(cohort.records)), seen_as(run["identity"])
    bank = BeatBank(cohort.beats, np.zeros_like(every), torch.device("cpu"), **seen)
    return trainer.predict(trainer.load_model(run["folder"]), bank, every)
