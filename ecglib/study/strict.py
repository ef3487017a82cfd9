"""Strict parameters of notebooks: papermill only warns at a name that a notebook doesn't have; here
it is an error.

It is looked for before a notebook starts, and inside it for those who call papermill by hand.
"""

import ast
import difflib
import json
from contextlib import suppress
from pathlib import Path

from ecglib.errors import nearest
from ecglib.models import REGISTRY
from ecglib.study import places
from ecglib.study.params import StudyError, load_study

KINDS = {int: "a whole number", float: "a number", str: "text"}


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
    injected = max(
        (i for i, cell in enumerate(cells) if cell.startswith("# Parameters\n")), default=None
    )
    defaults = _assigned(cells[injected - 1]) if injected else {}
    typed(_assigned(cells[injected]) if injected else {}, defaults, "This notebook")
    check_values(namespace, defaults)


def _assigned(source: str) -> dict:
    """Names and values that a cell of assignments sets; None where the value isn't written out."""
    values = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Assign):
            value = None
            with suppress(ValueError):
                value = ast.literal_eval(line.value)
            values |= {target.id: value for target in line.targets}
    return values


def typed(given: dict, defaults: dict, notebook: str) -> dict:
    """Check names and types of the given parameters; text from the command line becomes a number
    where one is due.
    """
    typed = {}
    for name, value in given.items():
        if name not in defaults:
            raise StudyError(f"{notebook} has no parameter '{name}'{nearest(name, defaults)}")
        kind = type(value if defaults[name] is None else defaults[name])
        try:
            typed[name] = (
                kind(value)
                if isinstance(value, str | int) and not isinstance(value, bool)
                else value
            )
        except ValueError:
            typed[name] = value
        if not isinstance(typed[name], kind):
            raise StudyError(f"{notebook}: {name} is {value!r} but must be {KINDS[kind]}")
    return typed


def check_values(values: dict, defaults: dict) -> None:
    """Check the parameters that notebooks share: study, model, rotation, data_dir."""
    if values.get("data_dir"):
        check_path("data_dir", values["data_dir"])
    if "study" not in values:
        return
    study = load_study(values["study"])
    kind = REGISTRY[defaults["model"]].kind if defaults.get("model") in REGISTRY else None
    known = [
        key
        for key, model in study.models.items()
        if kind in (None, REGISTRY[model.network or key].kind)
    ]
    if "model" in values and values["model"] not in known:
        raise StudyError(
            f"Study {study.name} has no model '{values['model']}'{nearest(values['model'], known)}"
        )
    if "rotation" in values:
        rotations = study.rotations if study.folds.count == "site" else range(study.folds.count)
        if values["rotation"] not in rotations:
            told = f"{rotations[0]} to {rotations[-1]}"
            raise StudyError(
                f"rotation is {values['rotation']}, but {study.name} has the rotations {told}"
            )


def check_path(name: str, path: str | Path) -> Path:
    """Return a file or folder that must exist; `StudyError` names the nearest one that does."""
    found = places.find(path)
    if found.exists():
        return found
    parent = next(folder for folder in found.parents if folder.is_dir())
    part = found.relative_to(parent).parts[0]
    close = difflib.get_close_matches(part, [file.name for file in parent.iterdir()], n=1)
    raise StudyError(
        f"{name}: {parent} has no '{part}'" + (f"; did you mean '{close[0]}'?" if close else "")
    )


def defaults_of(notebook: Path) -> dict:
    """Parameters of a notebook, with their defaults."""
    cells = json.loads(notebook.read_text())["cells"]
    tagged = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    return _assigned("".join(next(tagged, {"source": ""})["source"]))
