"""Folders that appear only when they are complete: locks, renaming, hashes, JSON."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout


class Held(FileLock):
    """A lock that is held from the start, and released by ``with`` or `release`."""

    def __enter__(self):
        return self


def hold(folder: Path, wait: bool = True) -> Held | None:
    """Wait until no other process holds `folder`, and hold it until it is released, or this process
    ends.

    What a killed engine left running ends in peace that way, before the same step is started again.
    The lock is a hidden file beside the folder. With `wait` false None is returned if another
    process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = Held(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return None
        print(f"Waiting for another process that is writing {folder}", flush=True)
        lock.acquire()
    except NotImplementedError:
        # some shared file systems know no locks: there, whoever starts two engines must know
        pass
    return lock


def partial(final: Path) -> Path:
    """Folder in which `final` is written until it is complete."""
    return final.with_name(final.name + ".partial")


def replace(folder: Path, final: Path) -> None:
    """Rename a complete folder to its final name; an older one of that name goes only after the new
    one is there.

    A checkpoint is kept until then, so that a run killed just before goes on from it.
    """
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(folder, final)
    (final / "checkpoint.pt").unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def write_json(file: Path, content: dict) -> None:
    """Write JSON aside, then rename."""
    aside = file.with_name(file.name + ".tmp")
    aside.write_text(json.dumps(content, indent=1, default=str) + "\n")
    os.replace(aside, file)


def sha256(file: Path) -> str:
    """SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
