"""What a run depends on while it trains: its seed, its state, its checkpoints."""

import copy
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ecglib.errors import Refusal
from ecglib.models import build_model
from ecglib.models.convolution import quicken
from ecglib.settings import Training


class TrainingError(Refusal, RuntimeError):
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
            f"Device '{asked}' isn't available here; set training.device to auto or cpu"
        )
    return torch.device(asked)


def seed_of(identity: dict) -> int:
    """Seed of one run: follows from network, rotation, the study's seed and the model's, not from a
    study's name for the model, nor from which others are run.
    """
    told = f"{identity['seed']}/{identity['network']}/{identity['rotation']}"
    told += f"/{identity['model_seed']}" if "model_seed" in identity else ""
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
        if device.type == "cpu" and settings.precision != "bf16":
            network = quicken(network)
        fused = device.type == "cuda" or None  # one kernel for all weights
        rate = identity["learning_rate"]
        optimiser = torch.optim.Adam(network.parameters(), lr=rate, fused=fused)
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
                f"{file} belongs to another run ({'; '.join(changed)}); delete its folder to start "
                "over, or undo the change"
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
def settings_of_torch(device: torch.device, precision: str, threads: int):
    """Fix what decides the bits besides the seed, and put it back afterwards: threads, algorithms,
    and how exact products are.

    PyTorch multiplies in TF32 in a GPU's convolutions unless it is told not to; here only
    ``precision: tf32`` lets it. On a CPU that is the same as ``fp32``.
    """
    if device.type == "cuda":  # read when the first matrix product runs
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads_before = torch.get_num_threads()
    algorithms = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    wanted = {
        # no buffer is read before it is written: filling them first would only cost time
        (torch.utils.deterministic, "fill_uninitialized_memory"): False,
        (torch.backends.cudnn, "benchmark"): False,
        (torch.backends.cudnn, "allow_tf32"): precision == "tf32",
        (torch.backends.cuda.matmul, "allow_tf32"): precision == "tf32",
    }
    before = {(place, name): getattr(place, name) for place, name in wanted}
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for (place, name), value in wanted.items():
            setattr(place, name, value)
        yield
    finally:
        for (place, name), value in before.items():
            setattr(place, name, value)
        torch.use_deterministic_algorithms(algorithms, warn_only=only_warn)
        torch.set_num_threads(threads_before)
