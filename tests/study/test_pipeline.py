"""The smoke study, end to end, as `make reproduce` runs it; built once, before nbval runs the
notebooks.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ecglib import folders
from ecglib.beat import LEADS
from ecglib.study import graph, learned, places, runs
from ecglib.study.data import cohort_of, folds_of
from ecglib.study.params import load_study


def call(*words):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=places.ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )


RUN = ("ecglib.study", "run", "--study", "smoke", "--cores", "2", "--")


@pytest.fixture(scope="module")
def smoke():
    for told in places.study_folder("smoke").glob("*/run.json"):
        # made by nbval, or by hand in JupyterLab
        if not (told.parent / "notebook.ipynb").is_file():
            shutil.rmtree(told.parent)
    done = call(*RUN)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return load_study("smoke")


def test_every_step_is_finished_and_traceable(smoke):
    for step in smoke.steps:
        folder = places.step_folder("smoke", step)
        told = json.loads((folder / "run.json").read_text())
        assert told["environment"]["lock"] and told["notebook"] == step
        for name, expected in told["files"].items():
            assert folders.sha256(folder / name) == expected
        assert (folder / "notebook.ipynb").is_file()
    assert not list(places.study_folder("smoke").rglob("*.partial"))


def test_predictions_keep_the_contract(smoke):
    found = runs.load_runs(smoke)
    cohort, folds = cohort_of(smoke), folds_of(smoke)
    assert not found.problems and set(found.facts.label_kind) == {"synthetic"}
    assert len(found.facts) == len(smoke.models) * len(smoke.rotations)
    truth = cohort.records.set_index("record_id")
    assert (found.predictions.label == truth.label[found.predictions.record_id].to_numpy()).all()
    assert found.predictions.probability.between(0, 1).all()
    assert all((folder / learned.FILE).is_file() for folder in found.facts.folder)
    fold = folds.set_index("record_id").fold
    for (rotation, split), part in found.predictions.groupby(["rotation", "split"]):
        expected = rotation if split == "validation" else (rotation + 1) % smoke.folds.count
        assert (fold[part.record_id] == expected).all()


def test_figures_tables_and_label_kind(smoke):
    folder = places.study_folder("smoke")
    for name in (
        "01_data_exploration/figures/fig_1_waves",
        "01_data_exploration/figures/fig_2_leads",
        "03_models/figures/fig_3_architectures",
        "01_data_exploration/figures/fig_4a_recording",
        "01_data_exploration/figures/fig_4b_median_beat",
        "07_comparison/figures/fig_5_learning_curves",
        "08_selected_model/figures/fig_6_roc_pr",
        "09_saliency/figures/fig_7_saliency",
    ):
        for kind in ("png", "svg"):
            assert (folder / f"{name}.{kind}").stat().st_size > 5000, name
    for step in ("01_data_exploration", "07_comparison", "08_selected_model", "09_saliency"):
        assert "synthetic label" in (folder / step / "notebook.ipynb").read_text(), (
            f"{step} says what a label is"
        )
    leads = pd.read_csv(folder / "09_saliency" / "tables" / "lead_contributions.csv", index_col=0)
    assert list(leads.index) == list(LEADS) and np.isclose(leads["mean"].sum(), 1)
    assert "synthetic label" in graph.summary(smoke)


def test_no_notebook_shows_a_warning(smoke):
    for notebook in places.study_folder("smoke").rglob("notebook.ipynb"):
        for cell in json.loads(notebook.read_text())["cells"]:
            told = [o for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
            assert "Warning" not in (said := "".join("".join(o["text"]) for o in told)), said


def test_nothing_is_left_to_do_the_second_time(smoke):
    again = call(*RUN, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_mistake_stops_before_anything_runs():
    wrong = call("snakemake", "--cores", "1", "--config", "study=params/smok.yaml")
    assert wrong.returncode != 0 and "did you mean 'smoke.yaml'" in wrong.stdout + wrong.stderr
