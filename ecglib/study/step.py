"""What a notebook does besides its story: it opens its step, shows tables and figures, finishes.

A step writes into ``<folder>.partial``. Only when everything is there does the folder get its name,
so a half-written result never looks finished. Papermill only warns at a parameter that a notebook
doesn't have; here it is an error.
"""

import ast
import difflib
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pandas as pd
from IPython.display import display

from ecglib.analysis.texts import styled, typeset
from ecglib.cohort.contract import CohortError
from ecglib.errors import nearest
from ecglib.folders import hold, partial, replace, sha256, write_json
from ecglib.settings import Label
from ecglib.study import places
from ecglib.study.data import cohort_of, folds_of, source_of
from ecglib.study.machine import environment, peak_memory_mb
from ecglib.study.params import Study, StudyError, load_study
from ecglib.study.training import run_identity

KINDS = {int: "a whole number", float: "a number", str: "text"}


@dataclass
class Step:
    """The folder that one notebook writes, while it is being written.

    Attributes
    ----------
    study : ecglib.study.params.Study or None
        None where a notebook belongs to no study.
    folder : Path
        Where to write now; it ends in ``.partial``.
    final : Path
        The name it gets when it is complete.
    facts : dict
        What ``run.json`` will say besides the environment.
    label : ecglib.settings.Label or None
        Of the study's cohort; stamped on what is shown. None where no ECG has a part.
    moves : bool
        False if whoever started the notebook renames the folder, after adding the executed notebook
        to it.
    lock : file
        Keeps other processes from writing this folder, until it is complete.
    identity : dict or None
        Of a run: what decides its numbers (`ecglib.study.runs.run_identity`).
    sources : tuple of Path
        Of a run: where it may lie finished.
    """

    study: object
    folder: Path
    final: Path
    facts: dict
    label: Label | None
    moves: bool
    lock: object
    identity: dict | None = None
    sources: tuple = ()
    started: float = field(default_factory=time.perf_counter)

    def source(self, data_dir: str = ""):
        """Open where the study's ECGs come from, an `ecglib.cohort.source.Source`."""
        return source_of(self.study, data_dir)

    @cached_property
    def cohort(self):
        """The study's cohort, an `ecglib.cohort.contract.Cohort`; where it isn't on this machine,
        the committed copy of the notebook is shown instead, and the notebook ends.
        """
        try:
            return cohort_of(self.study)
        except CohortError as error:
            if not (copy := places.kept(self.final) / "notebook.ipynb").is_file():
                raise
            import nbformat  # seconds, which a batch run needn't wait for

            for cell in nbformat.read(copy, 4).cells:
                for output in cell.get("outputs", ()):
                    display(output.get("data", {}), raw=True)
            raise CohortError(f"{error}. Shown above instead: {places.shown(copy)}") from None

    @property
    def has_cohort(self) -> bool:
        """Whether the study's cohort is on this machine."""
        with suppress(CohortError):
            return bool(cohort_of(self.study))
        return False

    @cached_property
    def folds(self) -> pd.DataFrame:
        """The study's folds: ``record_id, fold``."""
        return folds_of(self.study)

    @property
    def stamp(self) -> str:
        """Study and label, for captions."""
        told = [f"Study {self.facts['study']}"] + ([f"label: {self.label}"] if self.label else [])
        return "; ".join(told)

    def table(self, frame, name: str) -> None:
        """Save a data frame as ``tables/<name>.csv``."""
        (self.folder / "tables").mkdir(exist_ok=True)
        frame.to_csv(self.folder / "tables" / f"{name}.csv")

    def show(self, what, name="", caption="", rows=None, stamp: str | None = None) -> None:
        """Save a table or figure under `name`, stamp it with study and label, and display it.

        Parameters
        ----------
        what : pandas.DataFrame, pandas.Series or matplotlib.figure.Figure
            A table is saved whole as ``tables/<name>.csv``, and shown with three decimals; a figure
            is saved as ``figures/<name>.png`` and ``.svg``.
        name : str
            Empty: shown, not saved.
        caption : str
            What it shows, a sentence.
        rows : int, optional
            As many rows of a table are shown.
        stamp : str, optional
            Instead of study and label: empty where no ECG is shown, and more of a single one.
        """
        stamp = self.stamp if stamp is None else stamp
        told = " ".join(filter(None, [caption, stamp and f"{stamp}."]))
        if hasattr(what, "savefig"):
            return self._show_figure(what, name, told, stamp)
        frame = what.to_frame() if isinstance(what, pd.Series) else what
        if name:
            self.table(frame, name)
        display(styled(frame if rows is None else frame.head(rows), told))

    def _show_figure(self, figure, name: str, told: str, stamp: str) -> None:
        import matplotlib.pyplot as plt

        from ecglib import plots

        figure.text(0, -0.01, stamp, fontsize=7, color="0.35", va="top", parse_math=False)
        if name:
            plots.save(figure, self.folder, name)
        display(figure, metadata={"name": name, "caption": told})
        plt.close(figure)

    def finish(self, findings=(), **facts) -> Path:
        """Print the findings, write ``run.json`` and give the folder its name.

        Parameters
        ----------
        findings : sequence of str
            What was found, in sentences with their numbers.
        **facts
            What ``run.json`` says besides.

        Returns
        -------
        Path
            Where the results lie now.
        """
        findings = [typeset(sentence) for sentence in findings]
        print(*findings, sep="\n")
        kind, meaning = self.label or (None, None)
        # a run that was taken over keeps its own
        told = {"peak_memory_mb": peak_memory_mb(), **self.facts}
        told |= {"label_kind": kind, "label_meaning": meaning, **facts, "findings": findings}
        told |= {"environment": environment(), "seconds": time.perf_counter() - self.started}
        told["files"] = {str(f.relative_to(self.folder)): sha256(f) for f in _results(self.folder)}
        write_json(self.folder / "run.json", told)
        if self.moves:
            replace(self.folder, self.final)
        self.lock.release()
        return self.final if self.moves else self.folder


def open_step(name: str, given: dict, final: Path | None = None, clean: bool = True) -> Step:
    """Open the folder in which a notebook writes, and say which study and label it works with.

    Parameters
    ----------
    name : str
        The notebook's name without ending, for example ``07_comparison``.
    given : dict
        The notebook's ``globals()``, with its parameters: ``study`` (if it belongs to one) and
        ``output_dir``, a folder of whoever started the notebook, who then also completes it.
    final : Path, optional
        The finished folder, where it isn't ``outputs/<study>/<name>``.
    clean : bool
        False keeps what an earlier, interrupted attempt left: a run's checkpoint.

    Raises
    ------
    StudyError
        For a parameter that the notebook doesn't have, or a value that can't be, by name.
    """
    check_parameters(given)
    study = load_study(given["study"]) if "study" in given else None
    final, output_dir = final or places.step_folder(study.name, name), given["output_dir"]
    folder = Path(output_dir) if output_dir else partial(final)
    lock = hold(folder if output_dir else final)
    if clean and not output_dir:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"study": study and study.name, "notebook": name, "seed": study and study.seed}
    label = study.cohort.means if isinstance(study, Study) else None
    if study:
        print(study.title + (f"\nLabel: {label}" if label else ""))
    return Step(study, folder, final, facts, label, moves=not output_dir, lock=lock)


def open_run(name: str, given: dict) -> Step:
    """Open the step of one model on one rotation; as `open_step`, with the run's identity.

    `given` holds ``model`` and ``rotation``, for a network also ``learning_rate``: a value makes it
    a run of the learning-rate grid. With ``fresh`` no finished run is taken over.
    """
    check_parameters(given)
    study, of_grid = load_study(given["study"]), given.get("learning_rate", 0)
    told = (study, given["model"], given["rotation"], cohort_of(study), of_grid)
    identity = run_identity(*told)
    folders = places.run_folders(study.name, identity, bool(of_grid))
    step = open_step(name, given, final=folders[0], clean=False)
    step.identity, step.sources = identity, () if given["fresh"] else tuple(folders)
    return step


def check_parameters(namespace: dict) -> None:
    """Refuse what papermill only warns at: a parameter that the notebook doesn't have, or a value
    that can't be.

    Parameters
    ----------
    namespace : dict
        The notebook's ``globals()``. Papermill's injected cell is compared with the one before it,
        the defaults.

    Raises
    ------
    StudyError
        Naming the parameter and the nearest valid one.
    """
    cells = namespace.get("In", [])
    for before, cell in pairwise(cells):
        if cell.startswith("# Parameters\n"):
            typed(_assigned(cell), _assigned(before), "This notebook")
    check_values(namespace)


def _assigned(source: str) -> dict:
    """Names and values that a cell of assignments sets."""
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


def typed(given: dict, defaults: dict, notebook: str) -> dict:
    """Check names and types of the given parameters; text from the command line becomes a number
    where one is due.
    """
    typed = {}
    for name, value in given.items():
        if name not in defaults:
            raise StudyError(f"{notebook} has no parameter '{name}'{nearest(name, defaults)}")
        kind = type(defaults[name])
        try:
            typed[name] = kind(value if isinstance(value, bool) else str(value))
        except ValueError:
            raise StudyError(f"{notebook}: {name} is {value!r} but must be {KINDS[kind]}") from None
    return typed


def check_values(values: dict) -> None:
    """Check the parameters that notebooks share: study and data_dir; of a run (it has ``fresh``)
    model and rotation, too.

    The model is a network where there is a learning rate, else a tree.
    """
    if values.get("data_dir"):
        check_path("data_dir", values["data_dir"])
    if "study" not in values:
        return
    study = load_study(values["study"])
    if "fresh" not in values:  # elsewhere a `model` is no parameter, but what a cell found
        return
    known = study.networks if "learning_rate" in values else study.trees
    model, rotation, rotations = values["model"], values["rotation"], study.rotations
    if model not in known:
        raise StudyError(f"Study {study.name} has no model '{model}'{nearest(model, known)}")
    if study.folds.by == "patient":
        rotations = range(study.folds.count)
    if rotation not in rotations:
        told = f"{rotations[0]} to {rotations[-1]}"
        raise StudyError(f"rotation is {rotation}, but {study.name} has the rotations {told}")


def check_path(name: str, path: str | Path) -> Path:
    """Return a file or folder that must exist; `StudyError` names the nearest one that does."""
    found = places.find(path)
    if found.exists():
        return found
    parent = next(folder for folder in found.parents if folder.is_dir())
    part = found.relative_to(parent).parts[0]
    close = difflib.get_close_matches(part, os.listdir(parent), n=1)
    told = f"; did you mean '{close[0]}'?" if close else ""
    raise StudyError(f"{name}: {parent} has no '{part}'{told}")


def _results(folder: Path) -> list[Path]:
    """Files of a step that its hashes cover: tables and predictions, not pictures, checkpoints or
    the notebook.
    """
    kinds = {".parquet", ".csv", ".safetensors", ".skops", ".npy", ".md"}
    return sorted(f for f in folder.rglob("*") if f.suffix in kinds)
