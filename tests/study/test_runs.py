"""Reading a study's runs: what is missing or damaged is named, and no two models share a name."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecglib.analysis import inference
from ecglib.cohort.contract import CohortError
from ecglib.folders import sha256
from ecglib.study import data, learning_rates, places, runs, step
from ecglib.study.params import Study, load_study

MODELS = {
    "ecg_smart_net": {"learning_rate": 1e-4},
    "smart_millivolt": {
        "network": "ecg_smart_net",
        "learning_rate": 1e-4,
        "normalisation": "millivolt",
    },
    "mayo_alvd": {"learning_rate": 1e-3},
    "random_forest": {},
    "second_forest": {"network": "random_forest"},
}
LABELS = {
    "ecg_smart_net": "ECG-SMART-NET",
    "mayo_alvd": "Mayo Clinic ALVD model",
    "random_forest": "Random Forest",
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of five models and two rotations, all of whose runs are finished."""
    monkeypatch.setattr(places, "OUTPUTS", tmp_path)
    content = {
        "name": "small",
        "title": "Small",
        "cohort": {"source": "synthetic", "records": 100},
        "models": MODELS,
    }
    found = Study.model_validate_json(
        json.dumps(content | {"folds": {"count": 3, "rotations": [0, 1]}})
    )
    for model, entry in MODELS.items():
        for rotation in (0, 1):
            write_run(
                model,
                entry.get("network", model),
                rotation,
                entry.get("normalisation", "lead_zscore"),
            )
    return found


def write_run(model, network, rotation, normalisation):
    folder = places.run_folder("small", model, rotation)
    folder.mkdir(parents=True)
    parts = []
    for split, fold in (("validation", rotation), ("test", (rotation + 1) % 3)):
        ids = np.arange(20) + 20 * fold
        part = pd.DataFrame(
            {"record_id": ids.astype(str), "patient_id": ids.astype(str), "label": ids % 2}
        )
        parts.append(
            part.assign(split=split, model=model, rotation=rotation, probability=(ids % 7) / 7)
        )
    pd.concat(parts).to_parquet(folder / "predictions.parquet")
    identity = {"network": network, "options": {}, "threads": 1}
    facts = {
        "label": LABELS[network],
        "device": "cpu",
        "train_seconds": 6.0 + 2 * rotation,
        "label_kind": "synthetic",
    }
    if network != "random_forest":
        identity["training"] = {"normalisation": normalisation}
        facts |= {"parameters": 81938, "mflops": 18.6, "epochs": 2, "best_epoch": 1}
        pd.DataFrame({"epoch": [1, 2], "val_score": [0.5, 0.6]}).to_csv(folder / "history.csv")
    files = {file.name: sha256(file) for file in folder.iterdir()}
    facts |= {"identity": identity, "label_meaning": "simulated", "files": files}
    (folder / "run.json").write_text(json.dumps(facts))


def test_no_two_models_share_a_name(study):
    assert runs.load_runs(study).labels == {
        "ecg_smart_net": "ECG-SMART-NET",
        "smart_millivolt": "ECG-SMART-NET (mV)",
        "mayo_alvd": "Mayo Clinic ALVD model",
        "random_forest": "Random Forest [random_forest]",
        "second_forest": "Random Forest [second_forest]",
    }


def test_missing_and_damaged_runs_are_named_and_the_rest_goes_on(study):
    (places.run_folder("small", "mayo_alvd", 1) / "run.json").unlink()
    (places.run_folder("small", "ecg_smart_net", 0) / "predictions.parquet").write_bytes(b"cut")
    found = runs.load_runs(study)
    assert len(found.facts) == 8 and len(found.problems) == 2
    assert (
        list(found.labels) == list(MODELS) and found.labels["mayo_alvd"] == "Mayo Clinic ALVD model"
    )
    assert (
        "ecg_smart_net/rotation_0/predictions.parquet is missing or not the file"
        in found.problems[0]
    )
    assert "mayo_alvd/rotation_1 has no run.json" in found.problems[1]
    rows, notes = inference.check_predictions(
        found.predictions, list(study.models), list(study.rotations)
    )
    assert notes == [
        "ecg_smart_net: no predictions for rotation 0.",
        "mayo_alvd: no predictions for rotation 1.",
    ]
    assert rows.groupby("model")["rotation"].nunique()["random_forest"] == 2


def test_a_model_without_runs_still_has_its_name(study):
    for rotation in (0, 1):
        (places.run_folder("small", "second_forest", rotation) / "run.json").unlink()
    assert runs.load_runs(study).labels["second_forest"] == "Random Forest [second_forest]"


def test_a_study_without_runs_says_so(study):
    with pytest.raises(runs.RunError, match=r"no finished run .*it isn.t finished.*; train it"):
        runs.load_runs(study.model_copy(update={"name": "other"}))


def test_cost_counts_what_a_model_has(study):
    found = runs.load_runs(study)
    table = runs.cost(found.facts)
    mayo, forest = table.loc["Mayo Clinic ALVD model"], table.loc["Random Forest [random_forest]"]
    assert (
        mayo["Parameters"] == 81938
        and mayo["Seconds per run"] == 7
        and mayo["Seconds per epoch"] == 3.5
    )
    assert mayo["MFLOPs"] == 18.6 and np.isnan(forest["MFLOPs"])
    assert pd.isna(forest["Parameters"]) and forest["Seconds per run"] == 7
    noted = runs.cost(found.facts.assign(peak_memory_mb=500.0))
    assert (noted["Peak memory (MB)"] == 500).all() and table["Peak memory (MB)"].isna().all()


def test_operations_are_those_counted_by_hand():
    # six temporal convolutions, the spatial one and the head, a multiply-add as two: counted by
    # hand
    widths, maps, kernels = (
        (400, 200, 100, 25, 12, 6),
        (1, 16, 16, 32, 32, 64, 64),
        (5, 5, 5, 3, 3, 3),
    )
    adds = sum(
        12 * w * maps[i] * maps[i + 1] * k
        for i, (w, k) in enumerate(zip(widths, kernels, strict=True))
    )
    adds += 2 * 12 * 64 * 64 + 64 * 64 + 64 * 32 + 32 * 2
    assert runs.mflops({"network": "mayo_alvd", "options": {}}) == pytest.approx(
        2e-6 * adds, rel=1e-6
    )


def test_selecting_among_no_runs_is_refused(study):
    with pytest.raises(runs.RunError, match="no test predictions of 'resnet18'"):
        runs.select(runs.load_runs(study).predictions, "resnet18", "test")


def test_a_committed_study_can_be_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "OUTPUTS", tmp_path)
    study = load_study("demo")
    done = runs.load_runs(study)
    assert len(done.facts) == len(study.models) * len(study.rotations) and len(done.history)
    assert done.problems == ["Nothing was trained here: the runs are those in outputs/reference."]
    shown = []
    monkeypatch.setattr(step, "display", lambda what, raw: shown.append(what))
    opened = step.open_step("09_saliency", {"study": "demo", "output_dir": ""})
    assert not opened.has_cohort
    with pytest.raises(CohortError) as error:
        _ = opened.cohort
    assert sum("image/png" in what for what in shown) > 5, "its committed figures"
    (told,) = error.value._render_traceback_()
    assert told.startswith(
        "Study demo has no cohort on this machine: run notebook 00_cohort, or `make"
    )
    assert told.endswith("Shown above instead: outputs/reference/demo/09_saliency/notebook.ipynb")


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path, monkeypatch):
    for name in ("OUTPUTS", "REFERENCE"):
        monkeypatch.setattr(places, name, tmp_path / name.lower())
    study = load_study("smoke")
    for ask in (runs.load_runs, data.cohort_of, data.folds_of, learning_rates.read_grid):
        with pytest.raises(ValueError, match=r"`make reproduce STUDY=params/smoke.yaml`") as error:
            ask(study)
        assert error.value._render_traceback_() == [str(error.value)]


def test_training_noise_is_the_spread_of_seeds_on_the_same_rotation(tmp_path, monkeypatch):
    """Own runs and those kept of another study; other rates, rotations and networks don't count."""
    monkeypatch.setattr(places, "REFERENCE", tmp_path)

    def write(place, seed, auc, **identity):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        rows = {"label": [0, 0, 1, 1], "split": "test"}
        rows["probability"] = [0.2, 0.8, 0.2, 0.8] if auc == 0.5 else [0.2, 0.5, 0.5, 0.8]
        pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
        told = {"network": "net", "rotation": 0, "model": place} | identity
        told |= {"model_seed": seed} if seed else {}
        (folder / "run.json").write_text(json.dumps({"identity": told, "files": {}}))
        return folder

    own = [write("own/0", 0, 0.5), write("own/1", 0, 0.5, rotation=1)]
    own.append(write("own/2", 0, 0.875, network="other"))
    for seed, auc in ((1, 0.875), (2, 0.5)):
        write(f"seeds/runs/net_{seed}/rotation_0", seed, auc)
    write("seeds/runs/net_3/rotation_0", 3, 0.875, learning_rate=0.1)
    study = SimpleNamespace(statistics=SimpleNamespace(training_noise="seeds"))
    done = SimpleNamespace(facts=pd.DataFrame({"folder": own}))
    found = runs.training_noise(study, done)
    assert found[["network", "seeds", "rotations"]].to_numpy().tolist() == [["net", 3, 1]]
    np.testing.assert_allclose(found["AUC"], np.std([0.5, 0.875, 0.5], ddof=1))
    study.statistics.training_noise = None
    assert runs.training_noise(study, done).empty
