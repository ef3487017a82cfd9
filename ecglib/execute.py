"""Run one notebook through papermill, strictly and atomically; and what a notebook writes, with its provenance.

A step writes into ``<folder>.partial``. Only when everything is there does the folder get its name, so a half-written
result never looks finished. From the command line, as the Snakefile does::

    python -m ecglib.execute 05_train_network --study params/demo.yaml --set model=mayo_alvd --set rotation=3
"""

import argparse
import csv
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ecglib import paths
from ecglib.params import StudyError, find_study, load_study, nearest

# Large buffers go back to the system when a batch of another size follows: half the memory of a run, at little cost.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4000000", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PACKAGES = ("ecg-smart-net-reproduction", "torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn", "captum")


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
        False if whoever started the notebook renames the folder, after adding the executed notebook to it.
    """

    folder: Path
    final: Path
    facts: dict
    moves: bool
    started: float = field(default_factory=time.perf_counter)

    def table(self, frame, name: str) -> None:
        """Save a data frame as ``tables/<name>.csv``."""
        (self.folder / "tables").mkdir(exist_ok=True)
        frame.to_csv(self.folder / "tables" / f"{name}.csv")

    def finish(self, **facts) -> Path:
        """Write ``run.json`` and give the folder its name; returns where the results lie now."""
        told = {**self.facts, **facts, "environment": environment(), "seconds": time.perf_counter() - self.started}
        told["files"] = {str(f.relative_to(self.folder)): sha256(f) for f in _results(self.folder)}
        write_json(self.folder / "run.json", told)
        if self.moves:
            replace(self.folder, self.final)
            return self.final
        return self.folder


def open_step(study, name: str, output_dir: str = "", final: Path | None = None, clean: bool = True, **facts) -> Step:
    """Open the folder in which a notebook writes its results.

    Parameters
    ----------
    study : ecglib.params.Study
    name : str
        The notebook's name without ending, for example ``07_comparison``.
    output_dir : str
        A folder given by whoever started the notebook, who then also completes it; empty: the step's own place.
    final : Path, optional
        The finished folder, where it isn't ``outputs/<study>/<name>``.
    clean : bool
        False keeps what an earlier, interrupted attempt left: a run's checkpoint.
    **facts
        What ``run.json`` says besides.
    """
    final = final or paths.step_folder(study.name, name)
    folder = Path(output_dir) if output_dir else partial(final)
    if clean and not output_dir:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    base = {"study": study.name, "notebook": name, "seed": study.seed, "label_kind": None, **facts}
    return Step(folder, final, base, moves=not output_dir)


def partial(final: Path) -> Path:
    """Folder in which `final` is written until it is complete."""
    return final.with_name(final.name + ".partial")


def replace(folder: Path, final: Path) -> None:
    """Rename a complete folder to its final name; an older one of that name goes only after the new one is there.

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
    """Files of a step that its hashes cover: tables and predictions, not pictures, checkpoints or the notebook."""
    kinds = {".parquet", ".csv", ".safetensors", ".skops", ".npy", ".md"}
    return sorted(f for f in folder.rglob("*") if f.suffix in kinds)


def environment() -> dict:
    """Commit, versions, platform and time: what a number needs to be traced back."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "ecglib", "notebooks", "params")
    return {
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "lock": sha256(paths.LOCK) if paths.LOCK.exists() else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
        If the notebook or a parameter is unknown, or a cell failed; the failed notebook stays in ``<final>.partial``.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema can do without, and its grammar takes a second to build
    import papermill
    from traitlets.config import Config

    notebook = paths.NOTEBOOKS / f"{name}.ipynb"
    if not notebook.is_file():
        known = sorted(n.stem for n in paths.NOTEBOOKS.glob("*.ipynb"))
        raise StudyError(f"No notebook is called '{name}'{nearest(name, known)}")
    allowed = papermill.inspect_notebook(str(notebook))
    for key in parameters:
        if key not in allowed:
            raise StudyError(f"{name} has no parameter '{key}'{nearest(key, allowed)}")
    folder = partial(final)
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / "notebook.ipynb"
    with tempfile.TemporaryDirectory(prefix="nb") as runtime:  # short: a socket's path has at most 107 characters
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        os.environ.update({name: os.environ.get(name, value) for name, value in MEMORY.items()})
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                {**parameters, "output_dir": str(folder)},
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
                f"{name} failed in cell {error.exec_count} with {error.ename}: {error.evalue}\n"
                f"The cell:\n{error.source}\nThe notebook with the full traceback: {executed}"
            ) from None
        finally:
            os.environ.pop("JUPYTER_RUNTIME_DIR", None)
    if not (folder / "run.json").is_file():
        raise StudyError(f"{name} ended without finishing its step: its last cell must call step.finish()")
    replace(folder, final)
    return final


def summary(study) -> str:
    """What a study found and where to look, as text."""
    folder = paths.study_folder(study.name)
    lines = [f"\n{study.title}"]
    for file in sorted(folder.glob("*/tables/table_4.csv")):
        label = json.loads((file.parents[1] / "run.json").read_text())
        lines += [
            f"Label: {label['label_meaning']} [{label['label_kind']} label]; research only, no medical device",
            "",
        ]
        rows = list(csv.reader(file.read_text().splitlines()))
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]
    return "\n".join([*lines, "", f"Tables, figures and executed notebooks: {folder.relative_to(paths.ROOT)}/*/"])


def _scalar(text: str) -> int | float | str:
    """Read a parameter's value as a whole number, a number, or else as text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main(arguments: list[str] | None = None) -> int:
    """Command line: run one notebook of a study; returns 0, or 1 with one sentence on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m ecglib.execute", description=main.__doc__)
    parser.add_argument("notebook", help="a notebook of notebooks/, or 'summary': print the comparison table")
    parser.add_argument("--study", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a notebook's parameter")
    parser.add_argument("--folder", type=Path, help="where the results go; default: the step's own place")
    given = parser.parse_args(arguments)
    try:
        study = load_study(given.study)
        if given.notebook == "summary":
            print(summary(study))
            return 0
        parameters = {"study": str(find_study(given.study))}
        for item in given.set:
            key, separator, value = item.partition("=")
            if not separator:
                raise StudyError(f"--set {item} has no '=': write NAME=VALUE")
            parameters[key] = _scalar(value)
        run_notebook(given.notebook, parameters, given.folder or paths.step_folder(study.name, given.notebook))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
