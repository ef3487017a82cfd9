"""Leakage check: with labels permuted between patients, the same pipeline must do no better than
chance.

    python -m benchmarks.permuted_labels --study params/demo.yaml --permutations 5

Needs the study's cohort and folds (notebooks 00 and 02). Patients swap their labels as a whole, so
the number of positive ECGs may change a little; folds stay as they are. Each permutation is trained
and tested on one rotation.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from ecglib import metrics, trainer
from ecglib.folds import build_folds
from ecglib.study.data import cohort_of, folds_of
from ecglib.study.params import load_study
from ecglib.study.training import run_identity


def permuted(cohort, seed):
    """Return the cohort with each patient's labels replaced by "any of the ECGs positive" of
    another patient.
    """
    patients = cohort.records.groupby("patient_id").label.max()
    shuffled = pd.Series(
        np.random.default_rng(seed).permutation(patients.to_numpy()), index=patients.index
    )
    return dataclasses.replace(
        cohort, records=cohort.records.assign(label=cohort.records.patient_id.map(shuffled))
    )


def auc_of(study, model, seed):
    """Test AUC of one permutation; the folds are dealt anew, stratified by the permuted labels."""
    cohort = permuted(cohort_of(study), seed)
    folds = build_folds(cohort.records, study.folds.count, study.seed)
    assert folds.fold.value_counts().sum() == len(folds_of(study))
    identity = run_identity(study, model, study.rotations[seed % len(study.rotations)], cohort)
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(identity, cohort, folds, Path(folder))
        predictions = pd.read_parquet(Path(folder) / "predictions.parquet")
    test = predictions[predictions.split == "test"]
    return metrics.auc(test.label, test.probability), int(test.label.sum()), len(test)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default="params/demo.yaml")
    parser.add_argument("--model", default="ecg_smart_net")
    parser.add_argument("--permutations", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    work = (
        delayed(auc_of)(load_study(given.study), given.model, seed)
        for seed in range(given.permutations)
    )
    found = Parallel(n_jobs=given.jobs)(work)
    for seed, (auc, positives, ecgs) in enumerate(found):
        print(f"permutation {seed}: test AUC {auc:.3f} ({positives} positives of {ecgs} ECGs)")
    print(
        f"mean {np.mean([auc for auc, *_ in found]):.3f} over {len(found)} permutations (chance: "
        "0.5)"
    )
