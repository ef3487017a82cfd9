"""A study's models on another cohort: what is refused, carried over and answered."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from saved_cohort import made_up_cohort

from ecglib import load_model, metrics
from ecglib.analysis import calibration, inference
from ecglib.cohort import build, contract
from ecglib.cohort.source import Source
from ecglib.dataset import inputs
from ecglib.folders import sha256, write_json
from ecglib.folds import build_folds, predictions_table, rotate
from ecglib.models import build_model
from ecglib.settings import Signal, SyntheticCohort
from ecglib.study import apply, learned, networks, places, training
from ecglib.study.networks import ExplainError
from ecglib.study.params import load_study

COHORT = {"source": "files", "name": "made up", "folder": "x", "table": "x", "beats_unit": "uV"}
COHORT |= {"label_kind": "synthetic", "label_meaning": "a wave made up for a test"}
ROTATIONS = (0, 2)


def write_study(home, name, **more):
    told = {"name": name, "title": "T", "cohort": COHORT} | more
    (home / "params" / f"{name}.yaml").write_text(yaml.safe_dump(told))


def write_run(cohort, rotation, model="mayo_alvd"):
    """A run's folder with a random network, predictions for its folds, and its hashes."""
    folder = places.run_folder("mine", model, rotation)
    folder.mkdir(parents=True)
    torch.manual_seed(rotation)
    weights = build_model(model).state_dict()
    weights["fc3.weight"] *= 30  # so that probabilities spread
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / networks.WEIGHTS)
    identity = {"model": model, "network": model, "options": {}, "rotation": rotation, "seed": 1}
    identity |= {"threads": 1, "training": {}, "cohort": cohort.key}
    splits, rng = (
        rotate(build_folds(cohort.records, 4, 0), rotation),
        np.random.default_rng(rotation),
    )
    labels = cohort.records.label.to_numpy()
    shares = {
        split: 1 / (1 + np.exp(-rng.normal(labels[splits[split]], 1 + rotation)))
        for split in ("validation", "test")
    }
    table = predictions_table(cohort.records, splits, identity, shares)
    table.to_parquet(folder / "predictions.parquet", index=False)
    files = {f.name: sha256(f) for f in folder.iterdir()}
    write_json(folder / "run.json", {"identity": identity, "files": files, "band_hz": 150.0})
    learned.learned(cohort, identity, folder).tofile(folder / learned.FILE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a study of which two of three rotations have weights, and its cohort."""
    home = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("params", "outputs", "data"):
            (home / name).mkdir()
            patch.setattr(places, name.upper(), home / name)
        patch.setattr(places, "ROOT", home)
        cohort = made_up_cohort(home / "data" / "own")
        for rotation in ROTATIONS:
            write_run(cohort, rotation)
    folds = {"count": 4, "rotations": [0, 1, 2]}
    models = {"mayo_alvd": {"learning_rate": 0.001}}
    write_study(home, "mine", models=models, folds=folds, selected_model="mayo_alvd")
    return home, cohort


@pytest.fixture
def home(made, monkeypatch, tmp_path):
    """The project, its runs free to be changed."""
    shutil.copytree(made[0] / "outputs", tmp_path / "outputs")
    monkeypatch.setattr(places, "ROOT", made[0])
    monkeypatch.setattr(places, "PARAMS", made[0] / "params")
    monkeypatch.setattr(places, "DATA", tmp_path)
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(places, "REFERENCE", tmp_path / "outputs" / "reference")
    return made[0]


@pytest.fixture
def cohort(made):
    return made[1]


@pytest.fixture
def runs(home):
    return apply.trained(load_study("mine"))


def part(cohort, rows, **changes):
    """Rows of a cohort as another one; `changes` are columns, or the source's name."""
    info = cohort.info | {"source": changes.pop("source", cohort.info["source"])}
    records = cohort.records.iloc[rows].reset_index(drop=True).assign(**changes)
    return contract.Cohort(cohort.folder, np.array(cohort.beats[rows]), records, info)


def split_of(cohort, run, split):
    table = pd.read_parquet(run["folder"] / "predictions.parquet")
    ids = table.record_id[table.split == split] if split != "train" else table.record_id
    return np.flatnonzero(cohort.records.record_id.isin(ids) != (split == "train"))


def check(cohort, run):
    return learned.refuse_known(cohort, run, load_study("mine"))


class TestRefusals:
    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_recording_that_a_run_learned_from(self, split, cohort, runs):
        rows = [*split_of(cohort, runs[0], "test"), split_of(cohort, runs[0], split)[3]]
        other = part(cohort, rows, source="elsewhere", patient_id=[f"q{i}" for i in rows])
        name = other.records.record_id.iloc[-1]
        words = rf"mayo_alvd, rotation 0 learned from ECGs .* \(1 of 41 records, {name} first\)"
        with pytest.raises(ExplainError, match=words):
            check(other, runs[0])
        other.beats[-1, learned.HASHED[0], 250] += 1  # as another CPU may round it
        with pytest.raises(ExplainError, match=f"{name} first"):
            check(other, runs[0])

    def test_its_test_fold_is_none_of_these(self, cohort, runs):
        assert check(part(cohort, split_of(cohort, runs[0], "test")), runs[0]) == ""
        with pytest.raises(ExplainError, match="rotation 2 learned from ECGs"):
            check(part(cohort, split_of(cohort, runs[0], "test")), runs[1])

    def test_another_ecg_of_a_patient_but_only_of_the_same_source(self, cohort, runs):
        rows = split_of(cohort, runs[0], "train")[:5]
        other = part(cohort, rows)
        other.beats[:] += 7
        with pytest.raises(ExplainError, match=r"from patients .* \(5 of 5 records"):
            check(other, runs[0])
        assert check(dataclasses.replace(other, info=other.info | {"source": "b"}), runs[0]) == ""

    def test_flat_leads_and_simulated_patients_are_nobody_in_particular(self, cohort, runs):
        flat = part(cohort, np.arange(20), source="synthetic")
        flat.beats[:, learned.HASHED] = 0
        known = learned.digests(flat, runs[0]["identity"])
        other = part(
            cohort, np.arange(20, 40), source="synthetic", patient_id=flat.records.patient_id
        )
        other.beats[:, learned.HASHED] = 0
        assert not np.isin(learned.digests(other, runs[0]["identity"]), known).any()

    def test_hashes_are_salted(self, cohort, runs):
        one, two = (np.fromfile(run["folder"] / learned.FILE, np.uint64) for run in runs)
        assert len(one) == 3 * 120 and not set(one) & set(two)

    def test_a_run_gets_its_hashes_when_it_is_trained(self, cohort, runs, tmp_path):
        identity, taken = runs[0]["identity"], runs[0]["folder"] / "predictions.parquet"

        def train(identity, cohort, folds, folder):
            shutil.copy2(taken, folder)
            return {"identity": identity}

        told = {"identity": identity, "cohort": cohort, "folds": None, "folder": tmp_path}
        facts = training.train_or_take_over(SimpleNamespace(**told, sources=()), train)
        one, two = (folder / learned.FILE for folder in (tmp_path, runs[0]["folder"]))
        assert one.read_bytes() == two.read_bytes() and "band_hz" in facts

    def test_hashes_are_made_of_the_cohort_where_a_run_has_none(self, cohort, runs, home):
        (runs[0]["folder"] / learned.FILE).unlink()
        told = check(part(cohort, [0]), runs[0])
        assert told.startswith("mayo_alvd, rotation 0: it has no learned_from_")
        step = places.step_folder("mine", "00_cohort")
        step.mkdir()
        (step / "run.json").write_text(json.dumps({"cohort": str(cohort.folder)}))
        assert check(part(cohort, split_of(cohort, runs[0], "test")), runs[0]) == ""
        with pytest.raises(ExplainError, match="learned from ECGs"):
            check(part(cohort, split_of(cohort, runs[0], "train")), runs[0])

    def test_other_leads(self, home):
        told = places.run_folder("mine", "mayo_alvd", 0) / "run.json"
        told.write_text(told.read_text().replace('"options": {}', '"options": {"leads": 8}'))
        with pytest.raises(ExplainError, match="trained on 8 leads of 400 samples"):
            apply.trained(load_study("mine"))

    def test_a_study_without_ecgs(self, home, runs):
        omi = (places.CODE / "params" / "omi_features.yaml").read_text()
        (home / "params" / "omi_features.yaml").write_text(omi)
        with pytest.raises(ExplainError, match="omi_features is not a study of ECGs"):
            apply.open_cohort("omi_features", load_study("mine"), runs)

    def test_no_weights_at_all(self, home, capsys):
        (places.run_folder("mine", "mayo_alvd", 0) / networks.WEIGHTS).unlink()
        assert len(apply.trained(load_study("mine"))) == 1
        assert "1 with weights; without: [0, 1]" in capsys.readouterr().out
        (places.run_folder("mine", "mayo_alvd", 2) / networks.WEIGHTS).unlink()
        with pytest.raises(ExplainError, match="mine has no trained model with weights"):
            apply.trained(load_study("mine"))


def lawful(beats):
    """Limb leads that agree with I and II, as a file of ready beats must have them."""
    one, two = beats[:, 0], beats[:, 1]
    limbs = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    return np.concatenate([np.stack(limbs, axis=1), beats[:, 6:]], axis=1).astype(np.int16)


def given(home, cohort, rows, labels=True, shift=3):
    """A study `other` whose table and file of ready beats hold rows of a cohort."""
    np.save(places.DATA / "beats.npy", lawful(cohort.beats[rows] + shift))
    table = cohort.records.iloc[rows].drop(columns=[] if labels else "label")
    table.assign(patient_id=[f"q{i}" for i in rows]).to_csv(places.DATA / "t.csv", index=False)
    lying = {"folder": str(places.DATA / "beats.npy"), "table": str(places.DATA / "t.csv")}
    write_study(home, "other", cohort=COHORT | lying)


@pytest.fixture
def found(home, cohort, runs):
    given(home, cohort, np.arange(0, 160, 3))
    other = apply.open_cohort("other", load_study("mine"), runs)
    return apply.predict(runs, other).astype({"label": int}), other


class TestAnswers:
    def test_each_network_answers_and_so_does_their_mean(self, found, runs):
        found, other = found
        each = []
        for run in runs:
            with torch.inference_mode():
                logits = load_model(run["folder"])(inputs(other.beats, {}))
            each.append(logits.double().softmax(1)[:, 1].numpy())
        new = found[found.split == "new"]
        for rotation, expected in zip((*ROTATIONS, -1), (*each, np.mean(each, 0)), strict=True):
            part = new[new.rotation == rotation]
            np.testing.assert_allclose(part.probability, expected, atol=1e-6)
            assert list(part.record_id) == list(other.records.record_id)

    def test_operating_points_are_those_of_validation(self, found, runs):
        points, seen = inference.thresholds_of(found[0]), []
        for run in runs:
            table = pd.read_parquet(run["folder"] / "predictions.parquet")
            seen.append(table[table.split == "validation"])
            expected = metrics.operating_point(seen[-1].label, seen[-1].probability)
            assert points["mayo_alvd", run["identity"]["rotation"]] == expected
        pooled = pd.concat(seen)
        expected = metrics.operating_point(pooled.label, pooled.probability)
        assert points["mayo_alvd", -1] == expected

    def test_they_stand_beside_cross_validation_unchanged(self, found):
        found, points = found[0], inference.thresholds_of(found[0])
        table = apply.beside_cross_validation(found)
        table = inference.by_part(table, "where", draws=100, thresholds=points)
        told = table.set_index(["where", "metric"]).estimate
        for where, split, rotations in (
            ("cross-validation", "test", ROTATIONS),
            ("new ECGs", "new", ROTATIONS),
            ("new ECGs, mean's answer", "new", [-1]),
            ("new ECGs, rotation 2", "new", [2]),
        ):
            values = []
            for rotation in rotations:
                run = found[(found.split == split) & (found.rotation == rotation)]
                point = points["mayo_alvd", rotation]
                values.append(metrics.at_threshold(run.label, run.probability, point))
                values[-1]["auc"] = metrics.auc(run.label, run.probability)
            for name in ("auc", "sens", "spec"):
                assert told[where, name] == pytest.approx(np.mean([v[name] for v in values])), where

    def test_without_labels_there_are_predictions_only(self, home, cohort, runs):
        given(home, cohort, np.arange(10), labels=False)
        other = apply.open_cohort("other", load_study("mine"), runs)
        found = apply.predict(runs, other)
        new = found[found.split == "new"]
        assert new.label.isna().all() and new.probability.between(0, 1).all() and len(new) == 30
        known = found[found.label.notna()].astype({"label": int})
        assert set(known.split) == {"validation", "test"} and inference.thresholds_of(known)

    def test_a_cohort_that_a_run_knows_is_never_predicted(self, home, cohort, runs):
        given(home, cohort, np.arange(10), shift=0)
        with pytest.raises(ExplainError, match="leave them out"):
            apply.open_cohort("other", load_study("mine"), runs)


def test_calibration_counts_patients_not_their_ecgs():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 400)
    told = {
        "model": "m",
        "scale": "s",
        "patient_id": np.arange(400),
        "probability": 1 / (1 + np.exp(-x)),
    }
    once = pd.DataFrame(
        told | {"label": (rng.random(400) < 1 / (1 + np.exp(-0.5 - x))).astype(int)}
    )
    one, four = (
        calibration.limits(table).set_index("metric") for table in (once, pd.concat([once] * 4))
    )
    expected = metrics.calibration(once.label, once.probability)
    for name in ("slope", "intercept"):
        assert one.estimate[name] == pytest.approx(expected[name], abs=1e-6)
        assert four.low[name] == pytest.approx(one.low[name], abs=0.01), "four times the same ECG"
    draws = []
    for _ in range(200):
        drawn = once.sample(400, replace=True, random_state=rng)
        draws.append(metrics.calibration(drawn.label, drawn.probability)["slope"])
    width = one.high["slope"] - one.low["slope"]
    assert width == pytest.approx(2 * 1.96 * np.std(draws), rel=0.2)


class Interpolated:
    """Reads simulated recordings as if their files held 100 Hz."""

    rate = 100

    def __init__(self, read):
        self.read = read

    def __call__(self, row):
        return self.read(row)


def test_beats_are_of_the_band_that_the_runs_know(tmp_path):
    source: Source = build.open_source(SyntheticCohort(source="synthetic", records=60), 3)
    source.records = source.records.head(3)
    signal = networks.of_their_band(Signal(), [{"band_hz": 50.0}, {"band_hz": 100.0}, {}])
    assert signal == Signal(band_hz=50) and networks.of_their_band(Signal(), [{}]) == Signal()
    wide, narrow, own = (
        build.build_cohort(dataclasses.replace(source, read=read), how, tmp_path / name)
        for name, read, how in (
            ("wide", source.read, Signal()),
            ("narrow", source.read, signal),
            ("own", Interpolated(source.read), signal),
        )
    )
    assert narrow.info["band_hz"] == 50 and (narrow.beats != wide.beats).any()
    np.testing.assert_array_equal(own.beats, wide.beats, "files of 100 Hz are of that band already")
    bits = np.diff(narrow.beats, axis=-1).std() / np.diff(wide.beats, axis=-1).std()
    assert bits < 0.95, "what is above 50 Hz is gone"
