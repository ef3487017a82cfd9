"""One readable training loop: the paper's protocol (section II.B), repeatable to the bit, with
exact resume.

A run is one model on one rotation. Its folder holds ``predictions.parquet``, ``history.csv``,
``weights.safetensors`` and ``run.json``. While it is being written its name ends in ``.partial``,
and ``checkpoint.pt`` in it is what a killed run goes on from.
"""

import copy
import hashlib
import json
import os
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
from ecglib.convolution import quicken
from ecglib.dataset import BeatBank, undersampled_batches
from ecglib.folds import rotate
from ecglib.learning_rates import learning_rate_of
from ecglib.models import REGISTRY, build_model, label
from ecglib.runs import differences
from ecglib.workflow import code_hash, training_code

EVALUATION_BATCH = 32  # larger ones are slower on a CPU and take more memory


class TrainingError(RuntimeError):
    """Training that can't start or go on; one sentence that says why and what to do."""


def pick_device(asked: str) -> torch.device:
    """Choose where to train: ``auto`` takes CUDA, then MPS, then the CPU; anything else must be
    there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[asked]:
        raise TrainingError(
            f"Device '{asked}' was asked for but isn't there; set training.device to auto or cpu"
        )
    return torch.device(asked)


def run_identity(
    study, model: str, rotation: int, cohort, learning_rate: float | None = None
) -> dict:
    """Return everything that decides a run's result; a run, or a checkpoint, with another identity
    is another run.
    """
    entry, training = study.models[model], study.training.model_dump()
    training["normalisation"] = entry.normalisation or training["normalisation"]
    return {
        "model": model,
        "network": entry.network or model,
        "options": entry.options,
        "learning_rate": learning_rate or learning_rate_of(study, model, rotation),
        "rotation": rotation,
        "folds": study.folds.count,
        "seed": study.seed,
        "threads": study.threads_per_run,
        "training": training,
        "cohort": cohort.key,
        "code": code_hash(training_code(entry.network or model)),
    }


def seed_of(identity: dict) -> int:
    """Seed of one run: differs between models and rotations, and doesn't depend on which others are
    run.
    """
    told = f"{identity['seed']}/{identity['model']}/{identity['rotation']}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:6], "big")


def train(identity: dict, cohort, folds: pd.DataFrame, folder: Path) -> dict:
    """Train one model on one rotation, or go on where a killed run stopped.

    Parameters
    ----------
    identity : dict
        From `run_identity`.
    cohort : ecglib.cohort.Cohort
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
    settings = identity["training"]
    torch.set_num_threads(identity["threads"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    device = pick_device(settings["device"])
    labels = cohort.records.label.to_numpy()
    splits = rotate(folds, identity["rotation"])
    for name, at in splits.items():
        if len(np.unique(labels[at])) < 2:
            raise TrainingError(
                f"Rotation {identity['rotation']}: the {name} split has {int(labels[at].sum())} positives "
                f"among {len(at)} ECGs; use fewer folds"
            )
    bank = BeatBank(cohort.beats, labels, device, settings["normalisation"], settings["stream"])
    seed = seed_of(identity)
    torch.manual_seed(seed)
    shuffler = torch.Generator().manual_seed(seed)
    network = build_model(identity["network"], **identity["options"]).to(
        device, memory_format=torch.channels_last
    )
    # other devices are fast at it themselves
    if device.type == "cpu" and settings["precision"] == "fp32":
        network = quicken(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=identity["learning_rate"])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        mode="max",
        factor=settings["plateau_factor"],
        patience=settings["plateau_patience"],
    )
    history, best = [], {"score": -np.inf, "epoch": 0, "weights": None}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        history, best = _resume(checkpoint, identity, network, optimiser, plateau, shuffler)
    positions = torch.as_tensor(splits["train"])
    bar = tqdm(
        range(len(history) + 1, settings["epochs"] + 1),
        desc=f"{identity['model']} rotation {identity['rotation']}",
        initial=len(history),
        total=settings["epochs"],
        unit="epoch",
        # one line that reads well live and in papermill's log; a widget would be blank there
        file=sys.stdout,
        ncols=110,
    )
    try:
        for epoch in bar:
            if _stop_early(history, best, settings["early_stopping"]):
                break
            started = time.perf_counter()
            rate = optimiser.param_groups[0]["lr"]
            train_loss, seen = _epoch(
                network, optimiser, bank, positions, labels, shuffler, settings, cohort, epoch
            )
            trained = time.perf_counter()
            probability, loss = predict(
                network, bank, splits["validation"], settings["precision"], with_loss=True
            )
            truth = labels[splits["validation"]]
            row = {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": train_loss,
                "val_loss": loss,
                "val_auc": metrics.auc(truth, probability),
                "val_ap": metrics.average_precision(truth, probability),
                "val_score": metrics.score(truth, probability),
                "train_ecgs": seen,
                "train_seconds": trained - started,
                "val_seconds": time.perf_counter() - trained,
            }
            history.append(row)
            if row["val_score"] > best["score"]:  # a copy: the live weights go on changing
                weights = copy.deepcopy({k: v.cpu() for k, v in network.state_dict().items()})
                best = {"score": row["val_score"], "epoch": epoch, "weights": weights}
            plateau.step(row["val_score"])
            told = f"loss {train_loss:.3f}, validation AUC {row['val_auc']:.3f}, AP {row['val_ap']:.3f}"
            bar.write(
                f"epoch {epoch}: {told}, {row['train_seconds'] + row['val_seconds']:.0f} s",
                file=sys.stdout,
            )
            _checkpoint(checkpoint, identity, network, optimiser, plateau, shuffler, history, best)
    except torch.OutOfMemoryError:
        raise TrainingError(
            f"Out of memory on {device}: lower training.batch_size (now {settings['batch_size']}), "
            "or set training.stream: true"
        ) from None
    network.load_state_dict(best["weights"])
    save_file(
        {k: v.contiguous() for k, v in best["weights"].items()}, folder / "weights.safetensors"
    )
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    _predictions(network, bank, cohort, splits, identity).to_parquet(
        folder / "predictions.parquet", index=False
    )
    return {
        "identity": identity,
        "label": label(identity["network"], identity["options"]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "parameters": sum(p.numel() for p in network.parameters()),
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "train_seconds": sum(row["train_seconds"] + row["val_seconds"] for row in history),
        "label_kind": cohort.info["label_kind"],
        "label_meaning": cohort.info["label_meaning"],
        "band_hz": cohort.info.get("band_hz"),
        "splits": {
            name: {"ecgs": len(at), "positives": int(labels[at].sum())}
            for name, at in splits.items()
        },
    }


def _epoch(
    network, optimiser, bank, positions, labels, shuffler, settings, cohort, epoch
) -> tuple[float, int]:
    """Train one epoch; returns the mean loss over batches and the number of ECGs seen."""
    network.train()
    batches = undersampled_batches(labels[positions], settings["batch_size"], shuffler)
    # read once, after the epoch: no waiting for the device
    losses = torch.zeros(len(batches), device=bank.device)
    for number, chosen in enumerate(batches):
        at = positions[chosen]
        optimiser.zero_grad(set_to_none=True)
        with _precision(bank.device, settings["precision"]):
            logits = network(bank.batch(at).contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(logits.float(), bank.labels[at.to(bank.device)])
        loss.backward()
        optimiser.step()
        losses[number] = loss.detach()
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        number = int(bad[0])
        records = cohort.records.record_id.iloc[positions[batches[number]].numpy()].tolist()
        raise TrainingError(
            f"The loss is not finite in epoch {epoch}, batch {number + 1} of {len(batches)} "
            f"(records {', '.join(records[:8])}{' …' if len(records) > 8 else ''}); lower the learning rate"
        )
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
        for at in torch.as_tensor(positions).split(EVALUATION_BATCH):
            logits.append(
                network(bank.batch(at).contiguous(memory_format=torch.channels_last)).float()
            )
    logits = torch.cat(logits).double().cpu()
    probability = torch.softmax(logits, dim=1)[:, 1].numpy()
    if not with_loss:
        return probability
    return probability, float(cross_entropy(logits, bank.labels.cpu()[torch.as_tensor(positions)]))


def _predictions(network, bank, cohort, splits, identity) -> pd.DataFrame:
    """Predictions of validation and test fold, in the contract's form."""
    parts = []
    for split in ("validation", "test"):
        part = cohort.records.iloc[splits[split]][["record_id", "patient_id", "label"]].copy()
        part["split"], part["model"], part["rotation"] = (
            split,
            identity["model"],
            identity["rotation"],
        )
        part["probability"] = predict(
            network, bank, splits[split], identity["training"]["precision"]
        )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _stop_early(history: list, best: dict, patience: int | None) -> bool:
    """Whether `patience` epochs have gone by without a better score."""
    return patience is not None and len(history) - best["epoch"] >= patience


def _checkpoint(file: Path, identity, network, optimiser, plateau, shuffler, history, best) -> None:
    """Write all that the rest of the run depends on, aside, then rename: the previous one stays
    until then.
    """
    state = {
        "identity": json.dumps(identity),
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "plateau": plateau.state_dict(),
        "shuffler": shuffler.get_state(),
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "history": history,
        "best": best,
    }
    aside = file.with_name(file.name + ".tmp")
    with open(aside, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, file)


def _resume(file: Path, identity, network, optimiser, plateau, shuffler) -> tuple[list, dict]:
    """Restore everything from a checkpoint of the same run; returns the history and the best epoch
    so far.
    """
    state = torch.load(file, map_location="cpu", weights_only=True)
    if changed := differences(json.loads(state["identity"]), identity):
        raise TrainingError(
            f"{file} belongs to another run ({'; '.join(changed)}); remove its folder to start anew, or undo the change"
        )
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    plateau.load_state_dict(state["plateau"])
    shuffler.set_state(state["shuffler"])
    torch.set_rng_state(state["random"])
    if state["cuda_random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_random"])
    return state["history"], state["best"]


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
                f"{folder} has no {name}: it is no finished run, or its weights were left out"
            )
    try:
        identity = json.loads((folder / "run.json").read_text())["identity"]
        options = dict(identity["options"])
        if "pretrained" in REGISTRY[identity["network"]].options:
            options["pretrained"] = False  # its weights come from the run
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
            f"{folder / 'weights.safetensors'} is damaged or not of {identity['network']}: {first}"
        ) from None
    network.identity = identity
    return network.eval().to(memory_format=torch.channels_last)  # as trained: the same bits again
