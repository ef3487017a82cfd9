"""Simulated studies whose truth is known: intervals cover it, tests hold their level, permuted
labels give chance.
"""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from ecglib.study import places
from ecglib.study.params import load_study

pytestmark = pytest.mark.simulations


def test_intervals_cover_and_tests_hold_their_level():
    studies = 200
    judge = import_module("benchmarks.interval_coverage").judge
    intervals, tests = judge(studies, draws=200, patients=2500, count=10, rotations=10, seed=7)
    error = 3 * np.sqrt(0.05 * 0.95 / studies)
    assert intervals.covered.between(0.93 - error, 0.97 + error).all(), intervals
    assert (tests.loc["paired bootstrap over patients (primary)"] < 0.07 + error).all(), tests


def test_permuted_labels_give_chance():
    folds = "outputs/smoke/02_folds/run.json"
    command = [sys.executable, "-m", "ecglib.study", "run", "--study", "smoke", "--", folds]
    subprocess.run(command, cwd=places.ROOT, check=True)
    auc_of = import_module("benchmarks.permuted_labels").auc_of
    found = [auc_of(load_study("smoke"), "ecg_smart_net", seed)[0] for seed in range(8)]
    assert 0.35 < np.mean(found) < 0.65, f"labels that mean nothing were predicted: {found}"


@pytest.mark.parametrize(
    "name", sorted({file.stem for file in (places.ROOT / "benchmarks").glob("*.py")} - {"size"})
)  # size is run whole by make lint
def test_a_benchmark_begins_with_the_present_code(name):
    """What takes long in it is not run, but whatever it imports must be there."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
