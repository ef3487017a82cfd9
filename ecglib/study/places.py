"""The only module that knows where things lie: studies, cohorts, runs, figures.

Layout below the project's root::

    params/<study>.yaml
    data/cohorts/<source>-<key>/    beats.npy, records.parquet, cohort.json
    outputs/<study>/<notebook>/     what it made: notebook.ipynb, tables, figures, run.json
    outputs/<study>/runs/<model>/rotation_<k>/
                                    one trained model
    outputs/<study>/grid/<model>/<learning rate>/rotation_<k>/
                                    one trained for the choice of the learning rate
    outputs/reference/<study>/      the same, committed to be read

With ``ECGLIB_OUTPUTS`` (in the Makefile ``OUTPUTS``) what is made goes to that folder instead of
``outputs/``, and data to ``data/`` in it, so that the project's own folder is only read.
"""

import os
from contextlib import suppress
from pathlib import Path

from ecglib.errors import Refusal

CODE = Path(__file__).resolve().parents[2]
PACKAGE = CODE / "ecglib"


def _root() -> Path:
    """Folder of the project: the nearest one above the current folder that holds studies and
    notebooks; else the one where the code lies.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return CODE


ROOT = _root()
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
REFERENCE = ROOT / "outputs" / "reference"
GIVEN = os.environ.get("ECGLIB_OUTPUTS", "")
WORK = (ROOT / Path(GIVEN).expanduser()).resolve() if GIVEN else ROOT  # where Snakemake runs
OUTPUTS = WORK if GIVEN else ROOT / "outputs"
DATA = WORK / "data"
LOCK = ROOT / "requirements.lock"
WEIGHTS = "weights.safetensors"


def find(path: str | Path) -> Path:
    """Resolve a path given by a user: as it stands from the current folder, else from the project
    root.
    """
    path = Path(path).expanduser()
    return path.resolve() if path.is_absolute() or path.exists() else (ROOT / path).resolve()


def shown(path: Path) -> str:
    """Name of a place as it is told: from the project root."""
    return os.path.relpath(path, ROOT)


def check_writable() -> None:
    """Refuse to begin where nothing can be written to `OUTPUTS`."""
    with suppress(OSError):
        OUTPUTS.mkdir(parents=True, exist_ok=True)
    if not os.access(OUTPUTS, os.W_OK):
        cure = "name another folder for results, as OUTPUTS=~/ecg-results"
        raise Refusal(f"{OUTPUTS} can't be written; {cure}")


def cohort_folder(key: str) -> Path:
    """Folder of a built cohort; `key` is `Study.cohort_key`, so studies with equal settings share
    one cohort.
    """
    return DATA / "cohorts" / key


def study_folder(study: str) -> Path:
    """Folder of everything the study of that name wrote."""
    return OUTPUTS / study


def step_folder(study: str, step: str) -> Path:
    """Folder of one notebook's results, for example ``outputs/demo/07_comparison``."""
    return OUTPUTS / study / step


def run_folder(study: str, model: str, rotation, learning_rate=0) -> Path:
    """Folder of one trained model, for example ``outputs/demo/runs/ecg_smart_net/rotation_3``; with
    a learning rate that of the grid, ``outputs/x/grid/mayo_alvd/0.001/rotation_0``.
    """
    kind = f"grid/{model}/{learning_rate}" if learning_rate else f"runs/{model}"
    return OUTPUTS / study / kind / f"rotation_{rotation}"


def kept(folder: Path) -> Path:
    """Where a step or a run of `OUTPUTS` lies among the results that are committed."""
    return REFERENCE / folder.relative_to(OUTPUTS)


def run_folders(study: str, identity: dict, of_grid: bool) -> list[Path]:
    """Return where a run belongs, then where else it may lie finished: the grid, the reference
    results.
    """
    run = study, identity["model"], identity["rotation"]
    rates = sorted({0, identity.get("learning_rate", 0)}, reverse=of_grid)
    folders = [run_folder(*run, rate) for rate in rates]
    return [*folders, *map(kept, folders)]
