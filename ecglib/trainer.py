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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ecglib import metrics
from ecglib.dataset import BeatBank, undersampled_batches
from ecglib.folds import predictions_table, rotate
from ecglib.models import NETWORKS, build_model, without_download
from ecglib.models.convolution import quicken
from ecglib.settings import Training

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


def seed_of(identity: dict) -> int:
    """Seed of one run: follows from network, rotation and the study's seed, not from a study's name
    for the model, nor from which others are run.
    """
    told = f"{identity['seed']}/{identity['network']}/{identity['rotation']}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:6], "big")


def differences(then: dict, now: dict) -> list[str]:
    """What makes another run of it, in words."""
    now = json.loads(json.dumps(now))
    keys = dict.fromkeys([*then, *now])
    return [f"{k}: {then.get(k)!r} → {now.get(k)!r}" for k in keys if then.get(k) != now.get(k)]


@dataclass
class State:
    """What the rest of a run depends on, besides its identity: all of it is in a checkpoint."""

    network: torch.nn.Module
    optimiser: torch.optim.Optimizer
    plateau: torch.optim.lr_scheduler.ReduceLROnPlateau
    shuffler: torch.Generator
    history: list = field(default_factory=list)
    best: dict = field(default_factory=lambda: {"score": -np.inf, "epoch": 0})

    @classmethod
    def start(cls, identity: dict, settings: Training, device: torch.device) -> "State":
        """Before the first epoch."""
        seed = seed_of(identity)
        torch.manual_seed(seed)
        shuffler = torch.Generator().manual_seed(seed)
        network = build_model(identity["network"], **identity["options"])
        network = network.to(device, memory_format=torch.channels_last)
        # other devices are fast at it themselves
        if device.type == "cpu" and settings.precision == "fp32":
            network = quicken(network)
        optimiser = torch.optim.Adam(network.parameters(), lr=identity["learning_rate"])
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            mode="max",
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
        )
        return cls(network, optimiser, plateau, shuffler)

    def note(self, row: dict, probability: np.ndarray) -> None:
        """Add an epoch to the history, and keep its weights if it is the best so far."""
        self.history.append(row)
        if row["val_score"] > self.best["score"]:  # a copy: the live weights go on changing
            weights = copy.deepcopy({k: v.cpu() for k, v in self.network.state_dict().items()})
            self.best = {"score": row["val_score"], "epoch": row["epoch"], "weights": weights}
            self.best["probability"] = torch.from_numpy(probability)
        self.plateau.step(row["val_score"])

    def save(self, file: Path, identity: dict) -> None:
        """Write a checkpoint aside, then rename it: the previous one stays until then."""
        state = {
            "identity": json.dumps(identity),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "shuffler": self.shuffler.get_state(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "history": self.history,
            "best": self.best,
        }
        aside = file.with_name(file.name + ".tmp")
        with open(aside, "wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, file)

    def restore(self, file: Path, identity: dict) -> None:
        """Go on from a checkpoint; `TrainingError` if it is another run's."""
        state = torch.load(file, map_location="cpu", weights_only=True)
        if changed := differences(json.loads(state["identity"]), identity):
            raise TrainingError(
                f"{file} belongs to another run ({'; '.join(changed)}); remove its folder to start "
                "anew, or undo the change"
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.plateau.load_state_dict(state["plateau"])
        self.shuffler.set_state(state["shuffler"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_random"])
        self.history, self.best = state["history"], state["best"]


@contextmanager
def _settings_of_torch(threads: int):
    """Threads and deterministic algorithms, put back afterwards."""
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)


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
    for name, at in splits.items():
        if len(np.unique(labels[at])) < 2:
            raise TrainingError(
                f"Rotation {identity['rotation']}: the {name} split has {int(labels[at].sum())} "
                f"positives among {len(at)} ECGs; use fewer folds"
            )
    with _settings_of_torch(identity["threads"]):
        device = pick_device(settings.device)
        bank = BeatBank(cohort.beats, labels, device, settings.normalisation, settings.stream)
        state = State.start(identity, settings, device)
        try:
            _epochs(state, identity, bank, splits, folder)
        except UnusableLoss as error:
            records = cohort.records.record_id.iloc[error.positions].tolist()
            more = " …" if len(records) > 8 else ""
            raise TrainingError(
                f"{error} (records {', '.join(records[:8])}{more}); lower the learning rate"
            ) from None
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"Out of memory on {device}: lower training.batch_size (now {settings.batch_size}),"
                " or set training.stream: true"
            ) from None
        state.network.load_state_dict(state.best["weights"])
        tested = predict(state.network, bank, splits["test"], settings.precision)
    weights = {k: v.contiguous() for k, v in state.best["weights"].items()}
    save_file(weights, folder / "weights.safetensors")
    pd.DataFrame(state.history).to_csv(folder / "history.csv", index=False)
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
        "splits": {
            name: {"ecgs": len(at), "positives": int(labels[at].sum())}
            for name, at in splits.items()
        },
    }


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
        state.save(checkpoint, identity)


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
    for number, chosen in enumerate(batches):
        at = positions[chosen]
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
        for at in torch.as_tensor(positions).split(EVALUATION_BATCH):
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
                f"{folder} has no {name}: it is no finished run, or its weights were left out"
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
            f"{folder / 'weights.safetensors'} is damaged or not of {identity['network']}: {first}"
        ) from None
    network.identity = identity
    return network.eval().to(memory_format=torch.channels_last)  # as trained: the same bits again
