"""The study file as typed, closed models: a wrong key, type or value is an error with its name.

A study is one YAML file under ``params/``. `load_study` reads and checks all of it before anything
runs; a default in this module is the paper's value wherever the paper gives one.
"""

import difflib
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from ecglib import paths
from ecglib.models import REGISTRY

PARTS = 9
"""Parts of the patients, of which one validates where sites are left out in turn: the paper's eight
to one.
"""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Duplicates = Annotated[
    Literal["set_apart", "keep"],
    Field(description="ECGs whose beat is also another patient's: all set apart, or all kept"),
]
LabelKind = Literal["angiographic", "proxy", "synthetic"]


class StudyError(ValueError):
    """A study file, or a parameter given on the command line, that can't be used; one sentence a
    mistake.
    """


class Closed(BaseModel):
    """A section in which every key is known: anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SyntheticCohort(Closed):
    """Simulated recordings that ship with the package (label kind: synthetic)."""

    source: Literal["synthetic"]
    records: int = Field(
        ge=60, le=1_000_000, description="ECGs in all; 10,893 gives the paper's size"
    )
    subtle: float = Field(
        0.67, ge=0, le=1, description="share of the OMI whose ST changes are subtle"
    )
    prevalence: Fraction | None = Field(
        None, description="share of positive ECGs; None: the paper's 8.8 %"
    )


class PtbxlCohort(Closed):
    """PTB-XL with a proxy label read from its annotations (label kind: proxy)."""

    source: Literal["ptbxl"]
    label: Literal["acute_mi", "acute_mi_strict", "mi"] = "acute_mi"
    sampling_rate: Literal[100, 500] = 100
    prevalence: Fraction | None = Field(
        None, description="share of positive ECGs, by drawing negatives by patient"
    )
    same_patient_negatives: Literal["keep", "drop"] = "keep"
    duplicates: Duplicates = "set_apart"
    allow_missing_records: bool = False


class FilesCohort(Closed):
    """A folder of recordings, or ready median beats, with a table of labels: a user's own
    cohort.
    """

    source: Literal["files"]
    name: str
    folder: str = Field(description="where the recordings lie")
    table: str = Field(
        description="CSV or parquet: record_id or path, patient_id, site, age, sex, label"
    )
    label_kind: LabelKind
    label_meaning: str = Field(min_length=10, description="what a label of 1 means, in words")
    beats_unit: Literal["uV", "mV"] | None = Field(
        None, description="set for ready median beats (.npy, .npz)"
    )
    duplicates: Duplicates = "set_apart"


class Signal(Closed):
    """From 10 s to the median beat; defaults from the authors' later code."""

    high_pass_hz: float = Field(0.7, gt=0, le=2)
    low_pass_hz: Literal[100, 150] = 150
    mains_hz: Literal["find", "off", 50, 60] = "find"
    blank_pacing: bool = True
    on_poor_quality: Literal["keep", "flag", "drop"] = "flag"


FoldCount = Annotated[
    Annotated[int, Field(ge=3, le=50), Tag("number")] | Annotated[Literal["site"], Tag("word")],
    Discriminator(lambda given: "word" if isinstance(given, str) else "number"),
]


class Folds(Closed):
    """Patient-stratified folds (paper, section II.B); rotation k validates on fold k and tests on
    fold k+1.

    With ``count: site``, rotation k leaves out the k-th largest site instead: see
    `ecglib.folds.build_folds`.
    """

    count: FoldCount = 10
    rotations: tuple[int, ...] | None = Field(
        None, description="None: all of them; with sites, those to be left out"
    )


class Training(Closed):
    """The paper's protocol (section II.B); defaults are the paper's values."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2, description="before undersampling within the batch")
    plateau_factor: Fraction = 0.8
    plateau_patience: int = Field(3, ge=0)
    early_stopping: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better score"
    )
    normalisation: Literal["lead_zscore", "millivolt"] = "lead_zscore"
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    stream: bool = Field(
        False, description="read batches from the memory map: for cohorts larger than memory"
    )


class LearningRates(Closed):
    """A grid of learning rates, and the rule that chooses from it (paper, section II.B)."""

    grid: dict[str, tuple[Annotated[float, Field(gt=0, le=1)], ...]] = Field(min_length=1)
    rule: Literal["mean", "per_rotation"] = Field(
        "mean", description="see `ecglib.learning_rates.choose`"
    )
    rotations: tuple[int, ...] | None = Field(
        None, description="of the grid, with rule `mean`; None: the study's"
    )


class Model(Closed):
    """One model of a study; the key it stands under names it in tables, runs and predictions."""

    network: str | None = Field(None, description="registered model; None: the key itself")
    learning_rate: float | None = Field(None, gt=0, le=1, description="None: chosen from the grid")
    normalisation: Literal["lead_zscore", "millivolt"] | None = Field(
        None, description="None: that of `training`"
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="options of the model"
    )


def _check_models(models: dict[str, Model]) -> dict[str, Model]:
    """Refuse a model that isn't registered, and an option or a value that it doesn't know."""
    for key, model in models.items():
        name = model.network or key
        if name not in REGISTRY:
            raise ValueError(f"models.{key}: no model is called '{name}'{nearest(name, REGISTRY)}")
        entry = REGISTRY[name]
        for option, value in model.options.items():
            if option not in entry.options:
                raise ValueError(
                    f"models.{key}.options: '{option}' is unknown{nearest(option, entry.options)}"
                )
            known = entry.options[option]
            if value not in known and not (str in known and isinstance(value, str)):
                raise ValueError(f"models.{key}.options.{option}: {value!r} is not one of {known}")
    return models


Models = Annotated[dict[str, Model], Field(min_length=1), AfterValidator(_check_models)]


class Statistics(Closed):
    """Bootstrap over patients, drawn jointly in all rotations and models."""

    draws: int = Field(2000, ge=100)
    confidence: Fraction = 0.95


Sensitivity = Literal["strict_label", "human_validated", "without_negatives_of_positive_patients"]
"""Same models, other test records: see `ecglib.subgroups.ANALYSES`."""


class Saliency(Closed):
    """Which model is explained, and with how many positives."""

    positives: int | None = Field(
        None, ge=1, description="None: all positives of the test fold, as the paper"
    )


class AnyStudy(Closed):
    """What every study says."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    seed: int = Field(42, ge=0, lt=2**31)
    threads_per_run: int = Field(
        1, ge=1, description="threads of one run; part of what fixes its bits"
    )
    models: Models
    statistics: Statistics = Statistics()


class Study(AnyStudy):
    """A whole study; see the files under ``params/``."""

    cohort: Annotated[SyntheticCohort | PtbxlCohort | FilesCohort, Field(discriminator="source")]
    signal: Signal = Signal()
    folds: Folds = Folds()
    training: Training = Training()
    learning_rates: LearningRates | None = None
    selected_model: str = "ecg_smart_net"
    sensitivity: tuple[Sensitivity, ...] = ()
    saliency: Saliency = Saliency()

    @model_validator(mode="after")
    def _fits_together(self):
        tried, by_site = self.learning_rates, self.folds.count == "site"
        count = PARTS if by_site else self.folds.count
        if by_site and not self.folds.rotations:
            raise ValueError(
                "folds.rotations is missing: with count: site, name the sites to leave out, 0 the largest"
            )
        for rotation in [*(self.folds.rotations or ()), *((tried and tried.rotations) or ())]:
            if not 0 <= rotation < count:
                parts = f"{count} {'sites' if by_site else 'folds'} (allowed: 0 to {count - 1})"
                raise ValueError(f"rotations: {rotation} is not a rotation of {parts}")
        for key in tried.grid if tried else ():
            if key not in self.models:
                raise ValueError(
                    f"learning_rates.grid: '{key}' is not in models{nearest(key, self.models)}"
                )
        for key, model in self.models.items():
            chosen = tried and key in tried.grid
            if (
                REGISTRY[model.network or key].kind == "network"
                and not chosen
                and model.learning_rate is None
            ):
                raise ValueError(
                    f"models.{key}: learning_rate is missing; give it, or a grid in learning_rates.grid"
                )
        for name in self.sensitivity if self.cohort.source != "ptbxl" else ():
            if name in ("strict_label", "human_validated"):
                raise ValueError(
                    f"sensitivity: '{name}' needs annotations that only a cohort from ptbxl has"
                )
        if self.selected_model not in self.models:
            known = nearest(self.selected_model, self.models)
            raise ValueError(f"selected_model: '{self.selected_model}' is not in models{known}")
        return self

    @property
    def rotations(self) -> tuple[int, ...]:
        """Rotations that are run, in order."""
        return (
            self.folds.rotations
            if self.folds.rotations is not None
            else tuple(range(self.folds.count))
        )

    @cached_property
    def cohort_key(self) -> str:
        """Name of the built cohort: its source and a hash of everything that shapes it."""
        told = [self.cohort.model_dump(), self.signal.model_dump(), self.seed]
        return f"{self.cohort.source}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]}"


class OmiFeatures(Closed):
    """The two feature tables published with Al-Zaiti et al., Nature Medicine 2023 (label kind:
    angiographic).
    """

    url: str = Field(description="folder on the web that holds both tables")
    derivation_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    external_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    folds: int = Field(10, ge=3, le=50)


class OmiFeaturesStudy(AnyStudy):
    """A study of published feature tables: no waveforms, no networks; told by its key
    `omi_features`.
    """

    omi_features: OmiFeatures


def nearest(name: str, known) -> str:
    """Return the end of an error sentence: the nearest known name, or all that are allowed."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f" (allowed: {', '.join(known) or 'none'})"


def find_study(path: str | Path) -> Path:
    """Resolve a study: a YAML file, or the bare name of one in ``params/``; `StudyError` if there
    is none.
    """
    file = paths.find(path)
    if not file.is_file():
        file = paths.PARAMS / f"{path}.yaml"
    if not file.is_file():
        known = sorted(p.name for p in paths.PARAMS.glob("*.yaml"))
        raise StudyError(
            f"Study file {path} does not exist{nearest(f'{Path(path).stem}.yaml', known)}"
        )
    return file


def load_study(path: str | Path) -> Study | OmiFeaturesStudy:
    """Read and check a study file.

    Parameters
    ----------
    path : str or Path
        A YAML file, from the current folder or from the project root; or the bare name of a study
        in ``params/``.

    Raises
    ------
    StudyError
        Naming the file, each wrong key or value, and what is allowed.
    """
    file = find_study(path)
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise StudyError(f"{file.name} is not valid YAML: {error}") from None
    try:
        # JSON mode: lists may stand for tuples
        study = _kind(content).model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise StudyError(
            "\n".join(f"{file.name}: {_sentence(e, content)}" for e in error.errors())
        ) from None
    if study.name != file.stem:
        raise StudyError(
            f"{file.name}: name is '{study.name}' but must equal the file's name '{file.stem}'"
        )
    return study


def _kind(content) -> type[Closed]:
    """Model of the study file: a study of published feature tables has the key `omi_features`."""
    return OmiFeaturesStudy if isinstance(content, dict) and "omi_features" in content else Study


def _sentence(error: dict, content: dict) -> str:
    """Turn one pydantic error into a sentence with the key's full name and what is allowed
    there.
    """
    tags = {"synthetic", "ptbxl", "files"}
    where = [str(part) for part in error["loc"]]
    # pydantic names the union's branch: not a key
    if len(where) > 1 and where[0] == "cohort" and where[1] in tags:
        del where[1]
    if where[:2] == ["folds", "count"]:
        del where[2:]
    dotted = ".".join(where) or "the file"
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(where[:-1], content)
        return f"{dotted} is not a known key{nearest(where[-1], allowed)}"
    if error["type"] == "missing":
        return f"{dotted} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return message
    return f"{dotted} is {error['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(where: list[str], content: dict) -> list[str]:
    """Names of the keys that the section at `where` knows."""
    if not where:
        return list(_kind(content).model_fields)
    field = _kind(content).model_fields[where[0]].annotation
    kinds = [
        kind
        for kind in get_args(field) or (field,)
        if isinstance(kind, type) and issubclass(kind, Closed)
    ]
    if where[0] == "cohort":
        kinds = [
            k
            for k in kinds
            if content["cohort"]["source"] in get_args(k.model_fields["source"].annotation)
        ]
    return list(kinds[0].model_fields)
