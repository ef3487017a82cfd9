"""What a run is: another identity is another run, and what decides no number is no part of it."""

import json

import numpy as np
import pandas as pd
import pytest

from ecglib.cohort.contract import Cohort
from ecglib.folders import sha256, write_json
from ecglib.models import NETWORKS
from ecglib.settings import Folds, Training
from ecglib.study import graph, places, training
from ecglib.study.params import Study
from ecglib.study.runs import RunError

CONTENT = {
    "name": "small",
    "title": "Small",
    "cohort": {"source": "synthetic", "records": 100},
    "models": {"mayo_alvd": {}, "ecg_smart_net": {"learning_rate": 1e-4}, "random_forest": {}},
    "learning_rates": {"grid": {"mayo_alvd": [1e-3, 1e-2]}},
    "training": {"epochs": 5},
}


def study(**changes):
    return Study.model_validate_json(json.dumps(CONTENT | changes))


def cohort(tmp_path, **columns):
    records = pd.DataFrame({"record_id": ["a", "b"], "patient_id": ["p", "q"], "label": [0, 1]})
    records = records.assign(age=60.0, rr_ms=800.0).assign(**columns)
    info = {"hashes": {"beats.npy": 64 * "0"}}
    return Cohort(tmp_path, np.zeros((2, 12, 600)), records, info)


@pytest.fixture
def identity(tmp_path, monkeypatch):
    """A function: identity of a run of the small study after changes."""
    monkeypatch.setattr(places, "OUTPUTS", tmp_path)
    there = cohort(tmp_path)

    def of(model="ecg_smart_net", rotation=0, rate=0, records=there, **changes):
        return training.run_identity(study(**changes), model, rotation, records, rate)

    return of


@pytest.mark.parametrize(
    "change",
    [
        {"model": "random_forest"},
        {"rotation": 1},
        {"rate": 1e-3},
        {"seed": 7},
        {"threads_per_run": 2},
        {"folds": {"count": 5}},
        {"folds": {"by": "site", "rotations": [0]}},
        {"training": {"epochs": 6}},
        {"training": {"epochs": 5, "normalisation": "millivolt"}},
        {"training": {"epochs": 5, "samples": 200}},
        {"models": {"ecg_smart_net": {"learning_rate": 1e-4, "samples": 200}, "mayo_alvd": {}}},
    ],
)
def test_what_decides_a_runs_numbers_makes_it_another_run(identity, change):
    assert identity(**change) != identity()
    assert json.loads(json.dumps(identity(**change))) == identity(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other", "title": "Other"},
        {"statistics": {"draws": 300}},
        {"selected_model": "mayo_alvd"},
        {"models": {"ecg_smart_net": {"learning_rate": 1e-4}, "mayo_alvd": {}}},
        {"folds": {"rotations": [0, 1]}},
        {"training": {"epochs": 5, "batch_size": 128, "device": "auto", "samples": 400}},
    ],
)
def test_what_decides_none_leaves_it_the_same(identity, change):
    assert identity(**change) == identity()


def test_a_raised_protocol_number_makes_it_another_run(identity, monkeypatch):
    before = identity()
    raised = NETWORKS["ecg_smart_net"].protocol + 1
    entry = NETWORKS["ecg_smart_net"]
    changed = type(entry)(entry.name, entry.builder, entry.options, entry.variants, raised)
    monkeypatch.setitem(training.MODELS, "ecg_smart_net", changed)
    assert identity() == before | {"protocol": raised}


def test_a_new_option_at_its_default_orphans_no_run(tmp_path):
    class LaterTraining(Training):
        warm_up: int = 0

    class LaterFolds(Folds):
        shuffle: bool = True

    now = study()

    def later(**given):
        new = LaterTraining(epochs=5, **given)
        return now.model_copy(update={"training": new, "folds": LaterFolds()})

    def told(of):
        runs = training.run_identity(of, "ecg_smart_net", 0, cohort(tmp_path))
        return runs, [graph.settings(of, step) for step in graph.FLOORS]

    assert told(later()) == told(now)
    assert told(later(warm_up=1))[0]["training"]["warm_up"] == 1


def test_a_new_quality_column_orphans_no_run(identity, tmp_path):
    for model in ("ecg_smart_net", "random_forest"):
        before = identity(model)
        assert identity(model, records=cohort(tmp_path, lead_off=False)) == before
        assert identity(model, records=cohort(tmp_path, label=[1, 0])) != before
    older = cohort(tmp_path, age=61.0)
    assert identity("ecg_smart_net", records=older) == identity("ecg_smart_net"), (
        "a network sees no age"
    )
    assert identity("random_forest", records=older) != identity("random_forest")


def test_the_learning_rate_is_the_one_that_notebook_04_chose(identity):
    with pytest.raises(RunError, match="no learning rate for mayo_alvd yet: run notebook 04"):
        identity("mayo_alvd")
    assert identity("mayo_alvd", rate=1e-3)["learning_rate"] == 1e-3, (
        "a run of the grid has its own"
    )
    folder = places.step_folder("small", "04_learning_rate") / "tables"
    folder.mkdir(parents=True)
    (folder / "chosen.csv").write_text("model,learning_rate\nother,0.1\nmayo_alvd,0.003\n")
    assert identity("mayo_alvd")["learning_rate"] == 3e-3
    assert identity("ecg_smart_net")["learning_rate"] == 1e-4, "the study's own"


def finished(folder, told):
    folder.mkdir()
    (folder / "predictions.parquet").write_text("predictions")
    facts = {"identity": told, "environment": {}, "label": "net"}
    files = {"predictions.parquet": sha256(folder / "predictions.parquet")}
    write_json(folder / "run.json", facts | {"files": files})
    return folder


def test_a_finished_run_is_taken_over_if_it_is_the_same(identity, tmp_path):
    (tmp_path / "new").mkdir()
    same = finished(tmp_path / "same", identity())
    other = finished(tmp_path / "other", identity(training={"epochs": 6}))
    damaged = finished(tmp_path / "damaged", identity())
    (damaged / "predictions.parquet").write_text("cut")
    places_to_look = [tmp_path / "nowhere", other, damaged, same]
    facts, refused = training.reuse(identity(), places_to_look, tmp_path / "new")
    assert facts["label"] == "net" and facts["taken_from"]["folder"].endswith("same")
    assert (tmp_path / "new" / "predictions.parquet").read_text() == "predictions"
    assert len(refused) == 2 and "other is another run: training:" in refused[0]
    assert "not the file that the run wrote" in refused[1]
    assert training.reuse(identity(seed=7), [same], tmp_path / "new")[0] is None
