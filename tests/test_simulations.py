"""Simulated studies whose truth is known: intervals cover it, tests hold their level, permuted labels give chance."""

import runpy
import subprocess
import sys

import numpy as np
import pytest

from ecglib import paths
from ecglib.params import load_study

pytestmark = pytest.mark.slow


def benchmark(name, monkeypatch):
    """Functions of a script in benchmarks/, which takes its own folder off the path."""
    folder = paths.ROOT / "benchmarks"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return runpy.run_path(str(folder / f"{name}.py"))


def test_intervals_cover_and_tests_hold_their_level(monkeypatch):
    studies = 200
    judge = benchmark("interval_coverage", monkeypatch)["judge"]
    intervals, tests = judge(studies, draws=200, patients=2500, count=10, rotations=10, seed=7)
    error = 3 * np.sqrt(0.05 * 0.95 / studies)
    assert intervals.covered.between(0.93 - error, 0.97 + error).all(), intervals
    assert (tests.loc["paired bootstrap over patients (primary)"] < 0.07 + error).all(), tests


def test_permuted_labels_give_chance(monkeypatch):
    folds = "outputs/smoke/02_folds/run.json"
    command = [sys.executable, "-m", "ecglib.workflow", "run", "--study", "smoke", "--", folds]
    subprocess.run(command, cwd=paths.ROOT, check=True)
    auc_of = benchmark("permuted_labels", monkeypatch)["auc_of"]
    found = [auc_of(load_study("smoke"), "ecg_smart_net", seed)[0] for seed in range(8)]
    assert 0.35 < np.mean(found) < 0.65, f"labels that mean nothing were predicted: {found}"
