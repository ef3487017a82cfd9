"""Run one notebook through papermill, strictly and atomically.

From the command line, as the Snakefile does::

    python -m ecglib.study.notebook 05_train_network --study params/demo.yaml --set model=mayo_alvd
"""

import argparse
import ast
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import papermill
from traitlets.config import Config

from ecglib.errors import nearest
from ecglib.folders import hold, partial, replace
from ecglib.study import places
from ecglib.study.params import StudyError, find_study, load_study
from ecglib.study.step import check_values, gpu, typed

# A batch's buffers are kept for the next one, in one arena: a quarter more ECGs a second than new
# ones.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "200000000",
    "MALLOC_ARENA_MAX": "1",
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
        If the notebook or a parameter is unknown, or a cell failed; the failed notebook stays in
        ``<final>.partial``.
    """
    notebook = places.NOTEBOOKS / f"{name}.ipynb"
    if not notebook.is_file():
        known = sorted(n.stem for n in places.NOTEBOOKS.glob("*.ipynb"))
        raise StudyError(f"No notebook is called '{name}'{nearest(name, known)}")
    inferred = papermill.inspect_notebook(str(notebook))
    defaults = {name: ast.literal_eval(told["default"]) for name, told in inferred.items()}
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
                cwd=places.ROOT,
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
    parser = argparse.ArgumentParser(
        prog="python -m ecglib.study.notebook", description=main.__doc__
    )
    parser.add_argument("notebook", help="a notebook of notebooks/, without ending")
    parser.add_argument("--study", required=True)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a notebook's parameter"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the results go; default: the step's own place"
    )
    parser.add_argument(
        "--gpu", action="store_true", help="take one of the ECGLIB_GPUS that are shared out, if set"
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
        final = (given.folder or places.step_folder(study.name, given.notebook)).absolute()
        with ExitStack() as stack:
            if given.gpu and (shared := int(os.environ.get("ECGLIB_GPUS", 0))):
                stack.enter_context(closing(gpu(shared)))
            run_notebook(given.notebook, parameters, final)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
