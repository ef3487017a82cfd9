"""What a study works on: its source of ECGs, its cohort, its folds."""

import json

import pandas as pd

from ecglib.cohort.build import open_source
from ecglib.cohort.contract import Cohort, CohortError, load_cohort
from ecglib.cohort.source import Source
from ecglib.study import places


def source_of(study, data_dir: str = "") -> Source:
    """Open where a study's ECGs come from; `data_dir` is a folder in which they lie already."""
    settings, given = study.cohort, places.find(data_dir) if data_dir else None
    if settings.source == "files":
        lying = {name: str(places.find(getattr(settings, name))) for name in ("folder", "table")}
        settings = settings.model_copy(update=lying)
    elif settings.source == "ptbxl" and settings.records:
        settings = settings.model_copy(update={"records": str(places.find(settings.records))})
    downloads = places.DATA / {"ptbxl": "ptb-xl", "acs_ecg": "acs-ecg"}.get(settings.source, "")
    return open_source(settings, study.seed, given, downloads)


def cohort_of(study) -> Cohort:
    """Open the cohort that notebook 00 made, or opened, for a study."""
    told = places.step_folder(study.name, "00_cohort") / "run.json"
    if not told.is_file():
        raise CohortError(
            f"Study {study.name} has no cohort on this machine: {_cure(study, '00_cohort')}"
        )
    return load_cohort(places.ROOT / json.loads(told.read_text())["cohort"])


def folds_of(study) -> pd.DataFrame:
    """Folds that notebook 02 dealt for a study: ``record_id, fold``."""
    file = places.step_folder(study.name, "02_folds") / "folds.parquet"
    if not file.is_file():
        raise CohortError(
            f"Study {study.name} has no folds on this machine: {_cure(study, '02_folds')}"
        )
    return pd.read_parquet(file)


def _cure(study, notebook: str) -> str:
    return f"run notebook {notebook}, or `make reproduce STUDY=params/{study.name}.yaml`"
