"""Run one notebook through papermill, strictly and atomically."""

import ast
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from ecglib.errors import nearest
from ecglib.folders import hold, partial, replace
from ecglib.study import places
from ecglib.study.params import StudyError


def run_notebook(name: str, parameters: dict, final: Path) -> Path:
    """Execute a notebook into a folder that appears only when the notebook ended well.

    Parameters
    ----------
    name : str
        A notebook of ``notebooks/``, without ending.
    parameters : dict
        Values for its cell tagged ``parameters``; a name that the cell doesn't know is an error.
    final : Path
        The folder that gets tables, figures, ``run.json`` and the executed ``notebook.ipynb``.

    Raises
    ------
    StudyError
        If the notebook or a parameter is unknown, or a cell failed; the failed notebook stays in
        ``<final>.partial``.
    """
    # jsonschema does without it, and its grammar takes two seconds to build
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill  # seconds, which a refusal needn't wait for

    from ecglib.study.step import check_values, typed

    notebook = places.NOTEBOOKS / f"{name}.ipynb"
    if not notebook.is_file():
        known = sorted(n.stem for n in places.NOTEBOOKS.glob("*.ipynb"))
        raise StudyError(f"No notebook is called '{name}'{nearest(name, known)}")
    inferred = papermill.inspect_notebook(str(notebook))
    defaults = {name: ast.literal_eval(told["default"]) for name, told in inferred.items()}
    parameters = typed(parameters, defaults, name)
    check_values(defaults | parameters)
    folder = partial(final)
    with hold(final):
        with hold(folder):  # the kernel of a killed attempt may outlive it by a second
            pass
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():  # by an earlier attempt; a run goes on from its checkpoint
            if left.name != "checkpoint.pt":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            _execute(notebook, folder, {**parameters, "output_dir": str(folder)})
        except StudyError as error:
            with suppress(OSError):  # the disk may be full
                (folder / "error.txt").write_text(f"{error}\n")
            raise
        replace(folder, final)
    return final


def _execute(notebook: Path, folder: Path, parameters: dict) -> None:
    """Run the notebook with papermill; `StudyError` if a cell failed or the notebook didn't finish
    its step.
    """
    import papermill
    from traitlets.config import Config

    executed = folder / "notebook.ipynb"
    # short: a socket's path has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="nb") as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                parameters,
                kernel_name="python3",
                cwd=places.ROOT,
                progress_bar=False,
                log_output=True,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{runtime}/kernel"}}),
            )
        except papermill.PapermillExecutionError as error:
            raise StudyError(
                f"{notebook.stem} failed in cell {error.exec_count} "
                f"with {error.ename}: {error.evalue}\n"
                f"The cell:\n{error.source}\nThe notebook with the full traceback: {executed}"
            ) from None
        finally:
            os.environ.pop("JUPYTER_RUNTIME_DIR", None)
    if not (folder / "run.json").is_file():
        raise StudyError(
            f"{notebook.stem} ended without finishing its step: "
            "its last cell must call step.finish()"
        )
