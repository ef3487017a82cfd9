"""One readable training loop: the paper's protocol (section II.B), repeatable to the bit, with
exact resume.

A run is one model on one rotation. Its folder holds ``predictions.parquet``, ``history.csv``,
``weights.safetensors`` and ``run.json``. While it is being written its name ends in ``.partial``,
and ``checkpoint.pt`` in it is what a killed run goes on from.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ecglib import metrics
from ecglib.dataset import BeatBank, seen_as, undersampled_batches
from ecglib.folds import predictions_table, rotate
from ecglib.models import NETWORKS, build_model, without_download
from ecglib.settings import Training
from ecglib.state import State, TrainingError, pick_device, settings_of_torch

# ECGs at once in evaluation; on a CPU larger batches are slower and take more memory
EVALUATION_BATCH, FEW = {"cuda": 512}, 32


def train(identity: dict, cohort, folds: pd.DataFrame, folder: Path) -> dict:
    """Train one network on one rotation, or go on where a killed run stopped.

    Parameters
    ----------
    identity : dict
        Everything that decides the result: ``model, network, options, learning_rate, rotation,
        seed, threads, training`` (of `ecglib.settings.Training`, what isn't at its default).
    cohort : ecglib.cohort.contract.Cohort
    folds : pandas.DataFrame
        ``record_id, fold``.
    folder : Path
        The run's folder; it receives the weights, predictions and history.

    Returns
    -------
    dict
        Facts for ``run.json``: device, parameters, epochs, best epoch, seconds.

    Raises
    ------
    TrainingError
        For a fold without a positive or without a negative, a loss that isn't finite (with epoch,
        batch and records), a checkpoint of another run, a missing device, or too little memory.
    """
    settings = Training.model_validate(identity["training"])
    labels, splits = cohort.records.label.to_numpy(), rotate(folds, identity["rotation"])
    counts = _counts(splits, labels, identity["rotation"])
    device = pick_device(settings.device)
    with settings_of_torch(device, settings.precision, identity["threads"]):
        try:
            bank = BeatBank(cohort.beats, labels, device, settings.stream, **seen_as(identity))
            state = State.start(identity, settings, device)
            _epochs(state, identity, bank, splits, folder)
        except UnusableLoss as error:
            told = ", ".join(cohort.records.record_id.iloc[error.positions[:8]])
            told += " …" if len(error.positions) > 8 else ""
            raise TrainingError(f"{error} (records {told}); lower the learning rate") from None
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"Out of memory on {device}: lower training.batch_size (now {settings.batch_size}),"
                " or set training.stream: true"
            ) from None
        state.network.load_state_dict(state.best["weights"])
        tested = predict(state.network, bank, splits["test"], settings.precision)
    _write(state, folder)
    probabilities = {"validation": state.best["probability"].numpy(), "test": tested}
    table = predictions_table(cohort.records, splits, identity, probabilities)
    table.to_parquet(folder / "predictions.parquet", index=False)
    return {
        "identity": identity,
        "label": NETWORKS[identity["network"]].display_name(identity["options"]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "epochs": len(state.history),
        "best_epoch": state.best["epoch"],
        "train_seconds": sum(row["train_seconds"] + row["val_seconds"] for row in state.history),
        "band_hz": cohort.info.get("band_hz"),
        "splits": counts,
    }


def _counts(splits: dict, labels: np.ndarray, rotation: int) -> dict:
    """ECGs and positives of each split, which must hold both labels."""
    counts = {n: {"ecgs": len(at), "positives": int(labels[at].sum())} for n, at in splits.items()}
    for name, found in counts.items():
        if not 0 < found["positives"] < found["ecgs"]:
            raise TrainingError(
                f"Rotation {rotation}: the {name} split has {found['positives']} positives among "
                f"{found['ecgs']} ECGs; use fewer folds"
            )
    return counts


def _epochs(state: State, identity: dict, bank: BeatBank, splits: dict, folder: Path) -> None:
    """Train the epochs that are left, or until none has been better for long enough."""
    settings, checkpoint = Training.model_validate(identity["training"]), folder / "checkpoint.pt"
    if checkpoint.exists():
        state.restore(checkpoint, identity)
    truth = bank.labels.cpu().numpy()[splits["validation"]]
    bar = tqdm(
        range(len(state.history) + 1, settings.epochs + 1),
        desc=f"{identity['model']} rotation {identity['rotation']}",
        initial=len(state.history),
        total=settings.epochs,
        unit="epoch",
        # one line that reads well live and in papermill's log; a widget would be blank there
        file=sys.stdout,
        ncols=110,
    )
    due = 0
    for epoch in bar:
        waited = len(state.history) - state.best["epoch"]
        if settings.early_stopping is not None and waited >= settings.early_stopping:
            break
        started = time.perf_counter()
        row = {"epoch": epoch, "learning_rate": state.optimiser.param_groups[0]["lr"]}
        row["train_loss"], seen = _epoch(state, bank, splits["train"], settings)
        trained = time.perf_counter()
        probability, row["val_loss"] = predict(
            state.network, bank, splits["validation"], settings.precision, with_loss=True
        )
        row |= {
            "val_auc": metrics.auc(truth, probability),
            "val_ap": metrics.average_precision(truth, probability),
            "val_score": metrics.score(truth, probability),
            "train_ecgs": seen,
            "train_seconds": trained - started,
            "val_seconds": time.perf_counter() - trained,
        }
        state.note(row, probability)
        told = f"loss {row['train_loss']:.3f}, validation AUC {row['val_auc']:.3f}"
        took = row["train_seconds"] + row["val_seconds"]
        bar.write(f"epoch {epoch}: {told}, AP {row['val_ap']:.3f}, {took:.0f} s", file=sys.stdout)
        if time.perf_counter() >= due:  # so that writing takes a tenth of the time at most
            begun = time.perf_counter()
            state.save(checkpoint, identity)
            due = time.perf_counter() + 10 * (time.perf_counter() - begun)


def _write(state: State, folder: Path) -> None:
    """Write the weights of the best epoch, and the history."""
    weights = {k: v.contiguous() for k, v in state.best["weights"].items()}
    save_file(weights, folder / "weights.safetensors")
    pd.DataFrame(state.history).to_csv(folder / "history.csv", index=False)


class UnusableLoss(ArithmeticError):
    """A loss that isn't finite; `positions` are those of the batch in the cohort."""

    def __init__(self, sentence: str, positions):
        super().__init__(sentence)
        self.positions = positions


def _epoch(state: State, bank: BeatBank, train, settings: Training) -> tuple[float, int]:
    """Train one epoch; returns the mean loss over batches and the number of ECGs seen."""
    state.network.train()
    positions = torch.as_tensor(train)
    labels = bank.labels.cpu().numpy()[train]
    batches = undersampled_batches(labels, settings.batch_size, state.shuffler)
    # read once, after the epoch: no waiting for the device
    losses = torch.zeros(len(batches), device=bank.device)
    # at once, so that no batch waits for its positions
    placed = positions[torch.cat(batches)].to(bank.place).split([len(b) for b in batches])
    for number, at in enumerate(placed):
        state.optimiser.zero_grad(set_to_none=True)
        with _precision(bank.device, settings.precision):
            logits = state.network(bank.batch(at).contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(logits.float(), bank.labels[at.to(bank.device)])
        loss.backward()
        state.optimiser.step()
        losses[number] = loss.detach()
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        number, epoch = int(bad[0]), len(state.history) + 1
        sentence = f"The loss is not finite in epoch {epoch}, batch {number + 1} of {len(batches)}"
        raise UnusableLoss(sentence, positions[batches[number]].numpy())
    return float(losses.mean()), sum(len(chosen) for chosen in batches)


def _precision(device: torch.device, precision: str):
    """Autocast to bfloat16 where asked; fp32 is left as it is."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def predict(network, bank: BeatBank, positions, precision: str = "fp32", with_loss: bool = False):
    """Probability of the positive class for the records at `positions`, in evaluation mode.

    Returns
    -------
    numpy.ndarray, or (numpy.ndarray, float)
        float64 ``(n,)``; with `with_loss` also the mean cross-entropy.
    """
    network.eval()
    logits = []
    with torch.inference_mode(), _precision(bank.device, precision):
        size = EVALUATION_BATCH.get(bank.device.type, FEW)
        for at in torch.as_tensor(positions).to(bank.place).split(size):
            logits.append(
                network(bank.batch(at).contiguous(memory_format=torch.channels_last)).float()
            )
    logits = torch.cat(logits).double().cpu()
    probability = torch.softmax(logits, dim=1)[:, 1].numpy()
    if not with_loss:
        return probability
    return probability, float(cross_entropy(logits, bank.labels.cpu()[torch.as_tensor(positions)]))


def load_model(run_folder: str | Path) -> torch.nn.Module:
    """Rebuild a trained network from ``run.json`` and ``weights.safetensors``; nothing is
    unpickled.

    Parameters
    ----------
    run_folder : path
        For example ``outputs/demo/runs/ecg_smart_net/rotation_0``.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU; ``module.identity`` is the run's identity.

    Raises
    ------
    TrainingError
        If a file is missing, damaged, or belongs to another network.
    """
    folder = Path(run_folder)
    for name in ("run.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise TrainingError(
                f"{folder} has no {name}: it isn't a finished run, or its weights were left out"
            )
    try:
        identity = json.loads((folder / "run.json").read_text())["identity"]
        options = without_download(identity["network"], identity["options"])
        network = build_model(identity["network"], **options)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{folder / 'run.json'} doesn't describe a trained network: {error!r}"
        ) from None
    try:
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except Exception as error:
        # safetensors and torch raise several kinds for a damaged or foreign file
        first = str(error).splitlines()[0]
        raise TrainingError(
            f"{folder / 'weights.safetensors'} is damaged or not {identity['network']}'s: {first}"
        ) from None
    network.identity = identity
    return network.eval().to(memory_format=torch.channels_last)  # as trained: the same bits again
