"""The choice of learning rates: what it sees."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from saved_cohort import made_up_cohort

from ecglib import trainer
from ecglib.folds import build_folds, rotate
from ecglib.study.learning_rates import at_edge, choose
from ecglib.study.params import load_study
from ecglib.study.training import run_identity

RATES = (1e-3, 1e-2)


def scores_of(cohort, folds, folder, rotations):
    """Best validation score of each rate and rotation, from real training runs."""
    rows = []
    for rotation in rotations:
        for rate in RATES:
            identity = run_identity(load_study("smoke"), "mayo_alvd", rotation, cohort, rate)
            identity["training"] |= {"epochs": 2, "batch_size": 64}
            run = folder / f"{rotation}_{rate}"
            run.mkdir(parents=True)
            trainer.train(identity, cohort, folds, run)
            row = {"model": "mayo_alvd", "learning_rate": rate, "rotation": rotation}
            rows.append(row | {"val_score": pd.read_csv(run / "history.csv").val_score.max()})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A cohort, and the same with the labels of rotation 0's test fold scrambled."""
    folder = tmp_path_factory.mktemp("cohorts")
    cohort = made_up_cohort(folder / "cohort")
    folds = build_folds(cohort.records, 4, 0)
    test, labels = rotate(folds, 0)["test"], cohort.records.label.to_numpy().copy()
    labels[test] = np.random.default_rng(1).permutation(labels[test])
    assert (labels != cohort.records.label).any()
    return (
        cohort,
        dataclasses.replace(cohort, records=cohort.records.assign(label=labels)),
        folds,
        folder,
    )


def test_the_mean_over_rotations_does_see_them(worlds):
    """Rotation 0's test fold validates rotation 1: that is the optimism of the paper's rule."""
    cohort, scrambled, folds, folder = worlds
    honest, other = (
        scores_of(c, folds, folder / n, [1]) for c, n in ((cohort, "c"), (scrambled, "d"))
    )
    assert (honest.val_score != other.val_score).any()


def test_the_highest_mean_wins():
    scores = pd.DataFrame(
        [
            ("a", 1e-4, 0, 0.5),
            ("a", 1e-4, 1, 0.9),
            ("a", 1e-3, 0, 0.8),
            ("a", 1e-3, 1, 0.7),
            ("b", 1e-5, 0, 0.6),
        ],
        columns=["model", "learning_rate", "rotation", "val_score"],
    )
    mean = choose(scores)
    assert mean["a"] == 1e-3 and mean["b"] == 1e-5  # 0.75 against 0.70
    equal = scores.assign(val_score=0.5)
    assert choose(equal)["a"] == choose(equal[::-1])["a"] == 1e-4, "the lower of equal rates wins"


def test_a_choice_at_the_edge_of_its_grid_is_named():
    rows = [
        ("a", 1e-4, 0.5),
        ("a", 1e-3, 0.6),
        ("a", 1e-2, 0.7),
        ("b", 1e-4, 0.5),
        ("b", 1e-3, 0.6),
        ("b", 1e-2, 0.5),
    ]
    scores = pd.DataFrame(
        [*rows, ("c", 1e-3, 0.5)], columns=["model", "learning_rate", "val_score"]
    ).assign(rotation=0)
    assert at_edge(scores, choose(scores)) == ["a: 0.01 is the highest of 3 rates that were tried"]
    few = scores[scores.learning_rate < 2e-3]
    told = at_edge(few, choose(few))
    assert told[1] == "b: 0.001 is the highest of 2 rates that were tried"
