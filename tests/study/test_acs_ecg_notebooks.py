"""The study of ACS-ECG on a made-up folder: its notebooks' cells, one after the other in one
process, from the zips to the table that the data's authors evaluate.
"""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from ecglib.cohort.made_up import write
from ecglib.study import places
from ecglib.study.params import load_study

STUDY = "acs_ecg_made_up"
HIDDEN = """name: hidden
title: A made-up ACS-ECG, the ECGs without labels
cohort: {source: acs_ecg, part: test, made_up: true}
"""
CELLS = """
import json, sys
from ecglib.study import places

for name, given in json.loads(sys.argv[1]):
    space = {}
    for cell in json.loads((places.NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
            if "parameters" in cell["metadata"].get("tags", ()):
                space |= given
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of the study, and the table of what is in its folder of 240 ECGs."""
    folder = tmp_path_factory.mktemp("study")
    table = write(folder / "acs-ecg", 240, 0.25)
    (folder / "hidden.yaml").write_text(HIDDEN)
    study, data = load_study(STUDY), {"data_dir": str(folder / "acs-ecg")}
    runs = [("05_train_network", model) for model in study.networks]
    runs += [("06_random_forest", model) for model in study.trees]
    steps = [("00_cohort", data), ("02_folds", {})]
    steps += [(name, {"model": model, "rotation": 0}) for name, model in runs]
    steps += [("07_comparison", {}), ("08_selected_model", {})]
    steps += [("12_apply", data | {"cohort": str(folder / "hidden.yaml")})]
    told = json.dumps([(name, {"study": STUDY} | given) for name, given in steps])
    more = {"ECGLIB_OUTPUTS": str(folder / "out"), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CELLS, told],
        cwd=places.ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "out" / STUDY, table


def read(made, step, name):
    return pd.read_csv(made[0] / step / "tables" / f"{name}.csv")


def test_every_step_says_that_it_is_synthetic(made):
    told = [json.loads(file.read_text()) for file in made[0].rglob("run.json")]
    assert len(told) == 5 + len(load_study(STUDY).models)
    assert {facts["label_kind"] for facts in told} == {"synthetic"}
    card = (made[0] / "08_selected_model" / "model_card.md").read_text()
    assert "made-up ACS-ECG" in card and "**synthetic**" in card


def test_the_cohort_counts_what_each_trap_did(made):
    table = made[1]
    train = table[table.part == "train"]
    flow = read(made, "00_cohort", "signal_chain_audit").set_index("step").sum(axis=1)
    assert flow["listed"] == flow["kept"] == len(train)
    traps = train.trap.value_counts()
    assert flow["bridged"] == traps["lost"] == 3
    assert flow.get("rebuilt", 0) + flow.get("… missing", 0) == traps["constant"] == 2
    selection = read(made, "00_cohort", "selection").set_index("Unnamed: 0")
    assert selection.ecgs["shorter than 10 s"] == traps["short"] == 2


def test_all_models_stand_beside_criteria_without_a_model_and_in_sensitivity_analyses(made):
    models = load_study(STUDY).models
    assert len(read(made, "07_comparison", "table_4")) >= len(models)
    beside = read(made, "07_comparison", "beside_intervals")
    found = beside[beside.metric.isin(["sens", "spec"])].pivot_table("low", "model", "metric")
    assert set(beside.model) == {
        "ST elevation (4th Universal Definition)",
        "age and sex alone",
        "hours to angiography alone",
        "hours, age and sex alone",
    }
    assert found.loc["ST elevation (4th Universal Definition)"].notna().all()
    hours = beside[(beside.model == "hours to angiography alone") & (beside.metric == "auc")]
    assert hours.estimate.item() > 0.6  # the confounder is there
    assert read(made, "07_comparison", "sensitivity").analysis.nunique() == 7


def test_subgroups_know_culprit_presentation_and_time(made):
    groups = read(made, "08_selected_model", "subgroups")
    assert {"Culprit, of positives", "Presentation, of positives", "Hours to angiography"} <= set(
        groups.group
    )
    by_time = groups[groups.group == "Hours to angiography"]
    assert by_time.records.sum() == groups[groups.group == "Sex"].records.sum()


def test_the_hidden_part_gets_the_table_that_is_evaluated(made):
    folder, table = made
    answers = read(made, "12_apply", "answers")
    assert answers.label.isna().all()
    for model, part in answers.groupby("model"):
        file = folder / "12_apply" / "tables" / f"hidden_test_{model}.csv"
        sent = pd.read_csv(file, dtype=str).set_index("ecg_row_record")
        assert sent.columns.tolist() == ["ecg_med_record", "OMI"]
        assert sorted(sent.index) == sorted(table.ecg_row_record[table.part == "test"])
        called = sent.OMI[part.record_id.str.removeprefix("acs-") + ".dat"]
        assert (called == "1").tolist() == (part.probability >= part.threshold).tolist()
