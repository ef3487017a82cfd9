"""Folders that appear only when they are complete: locks, renaming, hashes, JSON."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path


def hold(folder: Path, wait: bool = True):
    """Wait until no other process holds `folder`; hold it until the returned file is closed or this
    process ends.

    What a killed engine left running ends in peace that way, before the same step is started again.
    The lock is a hidden file beside the folder. With `wait` false None is returned if another
    process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = open(folder.with_name(f".{folder.name}.lock"), "a")  # noqa: SIM115  whoever asked for it closes it
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        if not wait:
            return file.close()
        print(f"Waiting for another process that is writing {folder}", flush=True)
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        # some shared file systems know no locks: there, whoever starts two engines must know
        pass
    return file


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
