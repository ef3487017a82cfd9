"""The whole study on a made-up ACS-ECG, and the table for the hidden test."""

import json
import resource
import time

import pandas as pd
import pytest
import yaml
from study_home import Home

from ecglib.cohort.made_up import write
from ecglib.study import places
from ecglib.study.params import Study


def shipped(name):
    return yaml.safe_load((places.CODE / "params" / f"{name}.yaml").read_text())


def hidden():
    """The shipped study of the ECGs without labels, of a made-up folder."""
    told = shipped("acs_ecg_hidden")
    return told | {"cohort": told["cohort"] | {"made_up": True}}


def captions(notebook):
    """Captions of the tables and figures that an executed notebook shows."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", ()):
            table = "".join(output.get("data", {}).get("text/html", ""))
            if "<caption" in table:
                yield table.partition("<caption")[2].partition("</caption>")[0]
            if caption := output.get("metadata", {}).get("caption"):
                yield caption


@pytest.mark.slow
def test_the_engine_runs_it_all_on_2000_records_and_each_page_says_synthetic(tmp_path):
    home = Home(tmp_path / "home", shipped("acs_ecg_made_up"))
    (home.folder / "params" / "acs_ecg_hidden.yaml").write_text(yaml.safe_dump(hidden()))
    table, data_dir = write(home.folder / "made", 2000, 0.0641), str(home.folder / "made")
    begun = time.perf_counter()
    done = home.run("run", options=["--data-dir", data_dir])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    ran = time.perf_counter() - begun
    given = ["--set", "cohort=params/acs_ecg_hidden.yaml", "--set", f"data_dir={data_dir}"]
    done = home.run("notebook", options=["12_apply", *given])
    assert done.returncode == 0, done.stderr[-6000:]
    applied = time.perf_counter() - begun - ran
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"study {ran:.0f} s, notebook 12 {applied:.0f} s, largest process {largest:.0f} MB")

    steps = Study.model_validate(home.study).steps
    told = {file.parent: json.loads(file.read_text()) for file in home.outputs.rglob("run.json")}
    assert {folder.name for folder in told} >= {*steps, "rotation_0", "12_apply"}
    assert {facts["label_kind"] for facts in told.values()} == {"synthetic"}
    for folder in told:
        unsaid = [c for c in captions(folder / "notebook.ipynb") if "synthetic" not in c]
        assert not unsaid, f"{folder.name}: {unsaid}"
    for model in home.study["models"]:
        sent = pd.read_csv(home.outputs / "12_apply" / "tables" / f"hidden_test_{model}.csv")
        assert len(sent) == (table.part == "test").sum() and sent.OMI.isin([0, 1]).all()
