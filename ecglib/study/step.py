"""Run one notebook through papermill, strictly and atomically; and what a notebook writes, with its
provenance.

A step writes into ``<folder>.partial``. Only when everything is there does the folder get its name,
so a half-written result never looks finished. From the command line, as the Snakefile does::

    python -m ecglib.study.step 05_train_network --study params/demo.yaml --set model=mayo_alvd --set rotation=3
"""

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ecglib.folders import hold, partial, replace, sha256, write_json
from ecglib.study import places

PACKAGES = (
    "ecg-smart-net-reproduction",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "captum",
)


@dataclass
class Step:
    """The folder that one notebook writes, while it is being written.

    Attributes
    ----------
    folder : Path
        Where to write now; it ends in ``.partial``.
    final : Path
        The name it gets when it is complete.
    facts : dict
        What ``run.json`` will say besides the environment.
    moves : bool
        False if whoever started the notebook renames the folder, after adding the executed notebook
        to it.
    lock : file
        Keeps other processes from writing this folder, until it is complete.
    """

    folder: Path
    final: Path
    facts: dict
    moves: bool
    lock: object
    started: float = field(default_factory=time.perf_counter)

    def table(self, frame, name: str) -> None:
        """Save a data frame as ``tables/<name>.csv``."""
        (self.folder / "tables").mkdir(exist_ok=True)
        frame.to_csv(self.folder / "tables" / f"{name}.csv")

    def finish(self, **facts) -> Path:
        """Write ``run.json`` and give the folder its name; returns where the results lie now."""
        # a run that was taken over keeps its own
        told = {"peak_memory_mb": peak_memory_mb(), **self.facts, **facts}
        told |= {"environment": environment(), "seconds": time.perf_counter() - self.started}
        told["files"] = {str(f.relative_to(self.folder)): sha256(f) for f in _results(self.folder)}
        write_json(self.folder / "run.json", told)
        if self.moves:
            replace(self.folder, self.final)
        self.lock.close()
        return self.final if self.moves else self.folder


def open_step(
    study, name: str, output_dir: str = "", final: Path | None = None, clean: bool = True, **facts
) -> Step:
    """Open the folder in which a notebook writes its results.

    Parameters
    ----------
    study : ecglib.study.params.Study
    name : str
        The notebook's name without ending, for example ``07_comparison``.
    output_dir : str
        A folder given by whoever started the notebook, who then also completes it; empty: the
        step's own place.
    final : Path, optional
        The finished folder, where it isn't ``outputs/<study>/<name>``.
    clean : bool
        False keeps what an earlier, interrupted attempt left: a run's checkpoint.
    **facts
        What ``run.json`` says besides.
    """
    final = final or places.step_folder(study.name, name)
    folder = Path(output_dir) if output_dir else partial(final)
    lock = hold(folder if output_dir else final)
    if clean and not output_dir:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    base = {"study": study.name, "notebook": name, "seed": study.seed, "label_kind": None, **facts}
    return Step(folder, final, base, moves=not output_dir, lock=lock)


def _results(folder: Path) -> list[Path]:
    """Files of a step that its hashes cover: tables and predictions, not pictures, checkpoints or
    the notebook.
    """
    kinds = {".parquet", ".csv", ".safetensors", ".skops", ".npy", ".md"}
    return sorted(f for f in folder.rglob("*") if f.suffix in kinds)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10⁶ bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # macOS counts bytes, Linux KiB


def environment() -> dict:
    """Commit, versions, platform and time: what a number needs to be traced back."""

    def git(*words):
        done = subprocess.run(
            ["git", *words], cwd=places.ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "ecglib", "notebooks", "params"
    )
    return {
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "lock": sha256(places.LOCK) if places.LOCK.exists() else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gpu(count: int):
    """Take one of `count` GPUs for this process and what it starts; waits for a free one, and gives
    back its lock.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in listed if name] or [str(i) for i in range(count)]
    while True:
        for name in names[:count]:
            if lock := hold(
                Path(tempfile.gettempdir()) / f"ecglib-{os.getuid()}-gpu-{name}", wait=False
            ):
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                return lock
        time.sleep(0.5)
