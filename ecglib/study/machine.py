"""The machine that a step runs on: its software, its memory, its GPUs."""

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from ecglib.folders import hold, sha256
from ecglib.study import places

PACKAGES = ("ecg-smart-net-reproduction", "torch", "torchvision", "numpy", "pandas", "scipy")
PACKAGES += ("scikit-learn", "captum")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10⁶ bytes)."""
    import resource  # POSIX only, as is what asks for it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # macOS counts bytes, Linux KiB


def environment() -> dict:
    """Commit, versions, platform and time: what a number needs to be traced back."""

    def git(words: str) -> str | None:
        here = shlex.quote(str(places.ROOT))
        code, told = subprocess.getstatusoutput(f"git -C {here} {words} 2>/dev/null")
        return None if code else told

    changed = git("status --porcelain --untracked-files=no -- ecglib notebooks params")
    versions = {one.name: one.version for one in metadata.distributions() if one.name in PACKAGES}
    return {
        "commit": git("rev-parse HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "lock": sha256(places.LOCK) if places.LOCK.exists() else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gpu(count: int, jobs: int = 1):
    """Take a place on one of `count` GPUs, each of which has `jobs`, for this process and what it
    starts; waits for a free one, and gives back its lock.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in listed if name] or [str(i) for i in range(count)]
    # one job on each GPU, before any gets a second
    slots = [(name, job) for job in range(jobs) for name in names[:count]]
    while True:
        for name, job in slots:
            place = Path(tempfile.gettempdir()) / f"ecglib-{os.getuid()}-gpu-{name}-{job}"
            if lock := hold(place, wait=False):
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                return lock
        time.sleep(0.5)
