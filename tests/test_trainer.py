import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from saved_cohort import finished, made_up_cohort

import ecglib
from ecglib import folders, metrics, trainer
from ecglib.dataset import BeatBank
from ecglib.folds import build_folds, rotate
from ecglib.settings import Training
from ecglib.state import State, TrainingError, pick_device
from ecglib.study import training
from ecglib.study.params import load_study
from ecglib.study.places import WEIGHTS
from ecglib.study.training import run_identity


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    cohort = made_up_cohort(tmp_path_factory.mktemp("data") / "cohort")
    return cohort, build_folds(cohort.records, 4, 0)


def identity(world, model="mayo_alvd", epochs=3, **changes):
    told = run_identity(load_study("smoke"), model, 0, world[0], 3e-3)
    training = {k: v for k, v in changes.items() if k in Training.model_fields}
    told["training"] = {"epochs": epochs, "batch_size": 64} | training
    return told | {k: v for k, v in changes.items() if k not in training}


def run(world, folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    facts = trainer.train(identity(world, **changes), *world, folder)
    return (
        facts,
        pd.read_parquet(folder / "predictions.parquet"),
        pd.read_csv(folder / "history.csv"),
    )


def same_bits(one, other):
    for name in ("weights.safetensors", "predictions.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    timed = ["train_seconds", "val_seconds"]
    histories = [pd.read_csv(folder / "history.csv").drop(columns=timed) for folder in (one, other)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_learns_and_keeps_the_best_epoch_as_a_copy(world, tmp_path):
    facts, predictions, history = run(world, tmp_path / "a", epochs=8)
    test = predictions[predictions.split == "test"]
    assert metrics.auc(test.label, test.probability) > 0.9
    assert facts["best_epoch"] == history.epoch[history.val_score.idxmax()]
    validation = predictions[predictions.split == "validation"]
    again = metrics.score(validation.label, validation.probability)
    assert again == pytest.approx(history.val_score.max(), abs=1e-12), (
        "predictions are those of the best epoch"
    )
    assert set(predictions.columns) == {
        "record_id",
        "patient_id",
        "label",
        "split",
        "model",
        "rotation",
        "probability",
    }
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]


def test_same_seed_same_bits_other_seed_others(world, tmp_path):
    run(world, tmp_path / "a")
    run(world, tmp_path / "b")
    run(world, tmp_path / "c", seed=7)
    same_bits(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() != (
        tmp_path / "c" / "weights.safetensors"
    ).read_bytes()


def test_torch_is_left_as_it_was(world, tmp_path):
    def settings():
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    before = settings()
    run(world, tmp_path / "a", epochs=1, threads=before[0] + 1)
    assert settings() == before
    with pytest.raises(TrainingError):
        run(world, tmp_path / "b", learning_rate=1e30, epochs=5, threads=before[0] + 1)
    assert settings() == before


def test_streaming_gives_the_same_bits(world, tmp_path):
    run(world, tmp_path / "a")
    run(world, tmp_path / "b", stream=True)
    same_bits(tmp_path / "a", tmp_path / "b")


@pytest.fixture
def saved_every_epoch(monkeypatch):
    """The clock stands still, so that a checkpoint is always due, however slow the disk."""
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: 0.0))


@pytest.mark.usefixtures("saved_every_epoch")
def test_stopped_after_any_epoch_and_resumed_gives_the_same_bits(world, tmp_path, monkeypatch):
    run(world, tmp_path / "whole", epochs=4)
    real = State.save
    for stop in (1, 2, 4):
        seen = []

        def stopping(*arguments, seen=seen, stop=stop):
            real(*arguments)
            seen.append(1)
            if len(seen) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(State, "save", stopping)
        folder = tmp_path / f"stopped_{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(world, folder, epochs=4)
        monkeypatch.setattr(State, "save", real)
        run(world, folder, epochs=4)
        same_bits(tmp_path / "whole", folder)


KILLED = """
import sys, pathlib
sys.path.insert(0, {tests!r})
import test_trainer as t
from ecglib import folds
from ecglib.cohort.contract import load_cohort
c = load_cohort({cohort!r})
t.run((c, folds.build_folds(c.records, 4, 0)), pathlib.Path({folder!r}), epochs=6)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_gives_the_same_bits(world, tmp_path):
    run(world, tmp_path / "whole", epochs=6)
    rng = np.random.default_rng(1)
    for attempt in range(6):
        folder = tmp_path / f"killed_{attempt}"
        folder.mkdir()
        code = KILLED.format(
            tests=os.path.dirname(__file__), cohort=str(world[0].folder), folder=str(folder)
        )
        kills = 0
        while not (folder / "predictions.parquet").exists():
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if kills < 3:
                while (
                    not (folder / "checkpoint.pt.tmp").exists()
                    and process.poll() is None
                    and kills == 0
                ):
                    time.sleep(0.001)  # the first kill falls while a checkpoint is being written
                time.sleep(rng.uniform(0, 0.02) if kills == 0 else rng.uniform(2, 5))
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait()
        run(world, folder, epochs=6)
        same_bits(tmp_path / "whole", folder)


def test_a_checkpoint_of_another_run_is_refused(world, tmp_path, monkeypatch):
    real = State.save

    def stopping(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "a")
    monkeypatch.setattr(State, "save", real)
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.003 → 0\.5"):
        run(world, tmp_path / "a", learning_rate=0.5)
    with pytest.raises(TrainingError, match="cohort"):
        run(world, tmp_path / "a", cohort="another")


@pytest.mark.usefixtures("saved_every_epoch")
def test_full_disk_leaves_the_previous_checkpoint(world, tmp_path, monkeypatch):
    calls = []
    real = torch.save

    def full(state, stream):
        calls.append(1)
        if len(calls) == 2:
            stream.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, stream)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(world, tmp_path / "a")
    monkeypatch.setattr(torch, "save", real)
    assert (
        torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["history"][-1]["epoch"] == 1
    )
    run(world, tmp_path / "a")
    run(world, tmp_path / "b")
    same_bits(tmp_path / "a", tmp_path / "b")


def test_nan_loss_names_epoch_batch_and_records(world, tmp_path):
    cohort, folds = world
    with pytest.raises(
        TrainingError,
        match=r"epoch \d+, batch \d+ of \d+ \(records r\d+.*lower the learning rate",
    ):
        run((cohort, folds), tmp_path / "a", learning_rate=1e30, epochs=5)


def test_a_fold_without_positives_is_refused(world, tmp_path):
    cohort, folds = world
    lonely = folds.assign(fold=np.where(cohort.records.label == 1, 2, folds.fold))
    with pytest.raises(TrainingError, match="the validation split has 0 positives"):
        run((cohort, lonely), tmp_path / "a")


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        assert pick_device("auto").type == "cuda"
    else:
        with pytest.raises(TrainingError, match="Device 'cuda' isn't available here"):
            pick_device("cuda")
    assert pick_device("cpu").type == "cpu"


# ---- the paper's protocol, section II.B


def test_the_rate_falls_when_the_validation_score_no_longer_rises(world, tmp_path):
    cohort, folds = world
    label = np.random.default_rng(0).permutation(cohort.records.label)
    noise = replace(cohort, records=cohort.records.assign(label=label))  # nothing can be learned
    told = {"epochs": 8, "plateau_factor": 0.5, "plateau_patience": 1}
    history = run((noise, folds), tmp_path / "a", **told)[2]
    rate, best, waited, expected = 3e-3, -np.inf, 0, []
    for score in history.val_score:
        expected.append(rate)
        best, waited = (score, 0) if score > best * (1 + 1e-4) else (best, waited + 1)
        if waited > 1:
            rate, waited = rate / 2, 0
    assert expected[-1] < expected[0], "the score wavers"
    np.testing.assert_allclose(history.learning_rate, expected)


def test_each_epoch_draws_other_negatives(world, tmp_path, monkeypatch):
    real, seen = trainer.undersampled_batches, []

    def drawn(*given):
        batches = real(*given)
        seen.append(frozenset(torch.cat(batches).tolist()))
        return batches

    monkeypatch.setattr(trainer, "undersampled_batches", drawn)
    run(world, tmp_path / "a", epochs=3)
    assert len(seen) == len(set(seen)) == 3


def start(world, **changes):
    return State.start(identity(world, **changes), Training(), torch.device("cpu"))


def test_the_best_epoch_is_that_of_the_score(world):
    state = start(world)
    for epoch, (auc, ap) in enumerate([(0.9, 0.3), (0.85, 0.5), (0.95, 0.2), (0.6, 0.6)], 1):
        row = {"epoch": epoch, "val_auc": auc, "val_ap": ap, "val_score": metrics.combine(auc, ap)}
        state.note(row, np.zeros(1))
    assert state.best["epoch"] == 2, "neither the AUC's, 3, nor the AP's, 4"


def test_weights_do_not_decay(world):
    state = start(world)
    before = [weight.detach().clone() for weight in state.network.parameters()]
    for weight in state.network.parameters():
        weight.grad = torch.zeros_like(weight)
    state.optimiser.step()
    assert all(map(torch.equal, before, state.network.parameters()))


def test_each_rotation_and_each_repetition_starts_elsewhere(world):
    changes = [{}, {"rotation": 1}, {"model_seed": 1}, {"seed": 7}, {"model": "ecg_smart_net"}]
    states = [start(world, **change) for change in changes]
    shuffled = [tuple(torch.randperm(99, generator=s.shuffler).tolist()) for s in states]
    weights = [next(s.network.parameters()).flatten()[0].item() for s in states]
    assert len(set(shuffled)) == len(set(weights)) == len(changes)


def test_early_stopping(world, tmp_path):
    facts, _, _ = run(world, tmp_path / "a", epochs=30, early_stopping=2)
    assert facts["epochs"] == facts["best_epoch"] + 2 < 30


def test_a_trained_model_is_loaded_again(world, tmp_path):
    cohort, folds = world
    facts, predictions, _ = run(world, tmp_path / "a")
    folders.write_json(tmp_path / "a" / "run.json", facts)
    network = ecglib.load_model(tmp_path / "a")
    bank = BeatBank(cohort.beats, cohort.records.label, torch.device("cpu"))
    again = trainer.predict(network, bank, rotate(folds, 0)["test"])
    assert not network.training
    assert np.array_equal(again, predictions[predictions.split == "test"].probability)


def test_a_damaged_or_foreign_run_is_refused(world, tmp_path):
    facts, _, _ = run(world, tmp_path / "a")
    with pytest.raises(TrainingError, match=r"no run\.json"):
        ecglib.load_model(tmp_path / "a")
    file, weights = tmp_path / "a" / "run.json", tmp_path / "a" / "weights.safetensors"
    folders.write_json(file, facts | {"identity": facts["identity"] | {"network": "ecg_smart_net"}})
    with pytest.raises(TrainingError, match="not ecg_smart_net's"):
        ecglib.load_model(tmp_path / "a")
    folders.write_json(file, facts)
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="damaged"):
        ecglib.load_model(tmp_path / "a")
    file.write_text(json.dumps({"identity": {"network": "vgg"}}))
    with pytest.raises(TrainingError, match="doesn't describe a trained network"):
        ecglib.load_model(tmp_path / "a")
    weights.unlink()
    with pytest.raises(TrainingError, match="weights were left out"):
        ecglib.load_model(tmp_path / "a")


def test_a_run_that_came_without_weights_gets_them_back(world, tmp_path, capsys):
    facts, *_ = run(world, tmp_path / "run", epochs=2)
    finished(tmp_path / "run", identity(world, epochs=2), facts)
    weights = (tmp_path / "run" / WEIGHTS).read_bytes()
    (tmp_path / "run" / WEIGHTS).unlink()
    network = training.network_of(tmp_path / "run", *world)
    assert "trained again" in capsys.readouterr().out and not network.training
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == weights and not (
        tmp_path / "run" / training.AGAIN
    ).exists()
    training.network_of(tmp_path / "run", *world)
    assert not capsys.readouterr().out


def test_weights_that_come_out_otherwise_are_kept_apart(world, tmp_path, capsys):
    facts, *_ = run(world, tmp_path / "run", epochs=2)
    # as if another platform had made it
    finished(tmp_path / "run", identity(world, epochs=2, seed=7), facts)
    (tmp_path / "run" / WEIGHTS).unlink()
    for _ in range(2):  # the second time nothing is trained
        training.network_of(tmp_path / "run", *world)
        told = capsys.readouterr().out
        assert "its scores differ by up to 0." in told
    assert "trained again" not in told and not (tmp_path / "run" / WEIGHTS).exists()
