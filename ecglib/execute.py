"""Run one notebook through papermill, strictly and atomically; and what a notebook writes, with its
provenance.

A step writes into ``<folder>.partial``. Only when everything is there does the folder get its name,
so a half-written result never looks finished. From the command line, as the Snakefile does::

    python -m ecglib.execute 05_train_network --study params/demo.yaml --set model=mayo_alvd --set rotation=3
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ecglib import paths
from ecglib.params import StudyError, find_study, load_study, nearest
from ecglib.strict import check_values, defaults_of, typed

try:
    import fcntl
    import resource
except ImportError:  # on Windows; training and reading results need neither
    fcntl = resource = None

# A batch's buffers are kept for the next one, in one arena: a quarter more ECGs a second than new
# ones.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "200000000",
    "MALLOC_ARENA_MAX": "1",
}
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
    study : ecglib.params.Study
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
    final = final or paths.step_folder(study.name, name)
    folder = Path(output_dir) if output_dir else partial(final)
    lock = hold(folder if output_dir else final)
    if clean and not output_dir:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    base = {"study": study.name, "notebook": name, "seed": study.seed, "label_kind": None, **facts}
    return Step(folder, final, base, moves=not output_dir, lock=lock)


def hold(folder: Path, wait: bool = True):
    """Wait until no other process holds `folder`; hold it until the returned file is closed or this
    process ends.

    What a killed engine left running ends in peace that way, before the same step is started again.
    The lock is a hidden file beside the folder. With `wait` false None is returned if another
    process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = open(folder.with_name(f".{folder.name}.lock"), "a")  # noqa: SIM115  whoever asked for it closes it
    if fcntl is None:
        return file
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


def _results(folder: Path) -> list[Path]:
    """Files of a step that its hashes cover: tables and predictions, not pictures, checkpoints or
    the notebook.
    """
    kinds = {".parquet", ".csv", ".safetensors", ".skops", ".npy", ".md"}
    return sorted(f for f in folder.rglob("*") if f.suffix in kinds)


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, in MB (10⁶ bytes); None on Windows."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)  # macOS counts bytes, Linux KiB


def environment() -> dict:
    """Commit, versions, platform and time: what a number needs to be traced back."""

    def git(*words):
        if not shutil.which("git"):
            return None
        done = subprocess.run(
            ["git", *words], cwd=paths.ROOT, capture_output=True, text=True, check=False
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
        "lock": sha256(paths.LOCK) if paths.LOCK.exists() else None,
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
    places = [(name, job) for job in range(jobs) for name in names[:count]]
    while True:
        for name, job in places:
            lock = f"ecglib-{os.getuid()}-gpu-{name}-{job}"
            if lock := hold(Path(tempfile.gettempdir()) / lock, wait=False):
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                return lock
        time.sleep(0.5)


def run_notebook(name: str, parameters: dict, final: Path, log: bool = True) -> Path:
    """Execute a notebook into a folder that appears only when the notebook ended well.

    Parameters
    ----------
    name : str
        A notebook of ``notebooks/``, without ending.
    parameters : dict
        Values for its cell tagged ``parameters``; a name that the cell doesn't know is an error.
    final : Path
        The folder that gets tables, figures, ``run.json`` and the executed ``notebook.ipynb``.
    log : bool
        Show what the notebook prints.

    Raises
    ------
    StudyError
        If the notebook or a parameter is unknown, or a cell failed; the failed notebook stays in
        ``<final>.partial``.
    """
    notebook = paths.NOTEBOOKS / f"{name}.ipynb"
    if not notebook.is_file():
        known = sorted(n.stem for n in paths.NOTEBOOKS.glob("*.ipynb"))
        raise StudyError(f"No notebook is called '{name}'{nearest(name, known)}")
    defaults = defaults_of(notebook)
    parameters = typed(parameters, defaults, name)
    check_values(defaults | parameters, defaults)
    folder = partial(final)
    with closing(hold(final)):
        hold(folder).close()  # the kernel of a killed attempt may outlive it by a second
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():  # by an earlier attempt; a run goes on from its checkpoint
            if left.name != "checkpoint.pt":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            _execute(notebook, folder, {**parameters, "output_dir": str(folder)}, log)
        except StudyError as error:
            with suppress(OSError):  # the disk may be full
                (folder / "error.txt").write_text(f"{error}\n")
            raise
        replace(folder, final)
    return final


def _execute(notebook: Path, folder: Path, parameters: dict, log: bool) -> None:
    """Run the notebook with papermill; `StudyError` if a cell failed or the notebook didn't finish
    its step.
    """
    # jsonschema can do without, and its grammar takes a second to build
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from traitlets.config import Config

    executed = folder / "notebook.ipynb"
    # short: a socket's path has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="nb") as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        os.environ.update({name: os.environ.get(name, value) for name, value in MEMORY.items()})
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                kernel_name="python3",
                cwd=paths.ROOT,
                progress_bar=False,
                log_output=log,
                stdout_file=sys.stdout if log else None,
                stderr_file=sys.stderr if log else None,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{runtime}/kernel"}}),
            )
        except papermill.PapermillExecutionError as error:
            raise StudyError(
                f"{notebook.stem} failed in cell {error.exec_count} with {error.ename}: {error.evalue}\n"
                f"The cell:\n{error.source}\nThe notebook with the full traceback: {executed}"
            ) from None
        finally:
            os.environ.pop("JUPYTER_RUNTIME_DIR", None)
    if not (folder / "run.json").is_file():
        raise StudyError(
            f"{notebook.stem} ended without finishing its step: its last cell must call step.finish()"
        )


def main(arguments: list[str] | None = None) -> int:
    """Command line: run one notebook of a study; returns 0, or 1 with one sentence on what is
    wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m ecglib.execute", description=main.__doc__)
    parser.add_argument("notebook", help="a notebook of notebooks/, without ending")
    parser.add_argument("--study", required=True)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a notebook's parameter"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the results go; default: the step's own place"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="take a place on one of the ECGLIB_GPUS, if set"
    )
    given = parser.parse_args(arguments)
    try:
        study = load_study(given.study)
        parameters = {"study": str(find_study(given.study))}
        for item in given.set:
            key, separator, value = item.partition("=")
            if not separator:
                raise StudyError(f"--set {item} has no '=': write NAME=VALUE")
            parameters[key] = value
        final = (given.folder or paths.step_folder(study.name, given.notebook)).absolute()
        with ExitStack() as stack:
            if given.gpu and (shared := int(os.environ.get("ECGLIB_GPUS", 0))):
                jobs = int(os.environ.get("ECGLIB_JOBS_PER_GPU", 1))
                stack.enter_context(closing(gpu(shared, jobs)))
            run_notebook(given.notebook, parameters, final)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
