"""The study file as typed, closed models: a wrong key, type or value is an error with its name.

A study is one YAML file under ``params/``. `load_study` reads and checks all of it before anything
runs; a default in this module is the paper's value wherever the paper gives one.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, get_args

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from ecglib.errors import Refusal, nearest
from ecglib.models import NETWORKS
from ecglib.settings import (
    AcsEcgCohort,
    Closed,
    FilesCohort,
    Folds,
    LearningRates,
    Model,
    OfAcsEcg,
    OfPtbxl,
    OmiFeatures,
    PtbxlCohort,
    Saliency,
    Sensitivity,
    Signal,
    Statistics,
    SyntheticCohort,
    Training,
)
from ecglib.study import places
from ecglib.trees import TREES

MODELS = NETWORKS | TREES
OF_NETWORKS = {"learning_rate", "normalisation", "samples", "epochs", "seed"}
INPUTS = {"millivolt": "mV", "lead_max": "lead maximum", 200: "250 Hz"}
INPUTS |= {"without_age_hr": "without age, HR"}
STEPS = (
    "00_cohort",
    "01_data_exploration",
    "02_folds",
    "03_models",
    "04_learning_rate",
    "07_comparison",
    "08_selected_model",
    "09_saliency",
)


class StudyError(Refusal, ValueError):
    """A study file, or a parameter of a notebook, that can't be used; one sentence a mistake."""


def _check_models(models: dict[str, Model]) -> dict[str, Model]:
    """Refuse a model that isn't registered, and an option or a value that it doesn't know."""
    for key, model in models.items():
        name = model.network or key
        if name not in MODELS:
            raise ValueError(f"models.{key}: no model is called '{name}'{nearest(name, MODELS)}")
        entry, foreign = MODELS[name], OF_NETWORKS if name in TREES else {"features"}
        for setting in sorted(foreign & model.model_fields_set):
            raise ValueError(f"models.{key}.{setting}: {entry.name} takes none; leave it out")
        for option, value in model.options.items():
            if option not in entry.options:
                raise ValueError(
                    f"models.{key}.options: '{option}' is unknown{nearest(option, entry.options)}"
                )
            known = entry.options[option]
            if value not in known and type(value) not in known:
                told = ["any text" if one is str else one for one in known]
                raise ValueError(f"models.{key}.options.{option}: {value!r} is not one of {told}")
    return models


Models = Annotated[dict[str, Model], AfterValidator(_check_models)]
"""Models of a study by their keys."""


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

    @property
    def networks(self) -> tuple[str, ...]:
        """Keys of the study's networks, in order."""
        return tuple(key for key in self.models if self.registered(key) in NETWORKS)

    @property
    def trees(self) -> tuple[str, ...]:
        """Keys of the study's forests and boosting, in order."""
        return tuple(key for key in self.models if self.registered(key) in TREES)

    def registered(self, model: str) -> str:
        """Name in `MODELS` of the model that stands under this key."""
        return self.models[model].network or model

    def display_name(self, model: str) -> str:
        """Name of a model in tables and figures; what its input is, if it isn't the paper's."""
        entry = self.models[model]
        name = MODELS[self.registered(model)].display_name(entry.options)
        given = entry.normalisation, entry.samples, entry.features
        told = [INPUTS[said] for said in given if said in INPUTS]
        return (name + (f" ({', '.join(told)})" if told else "")).replace(") (", ", ")


class Study(AnyStudy):
    """A whole study; see the files under ``params/``. Without models it is a cohort to look at, to
    which those of another are applied.
    """

    models: Models = Field(default_factory=dict)
    cohort: Annotated[
        SyntheticCohort | PtbxlCohort | AcsEcgCohort | FilesCohort, Field(discriminator="source")
    ]
    signal: Signal = Signal()
    folds: Folds = Folds()
    training: Training = Training()
    learning_rates: LearningRates | None = None
    selected_model: str = "ecg_smart_net"
    sensitivity: tuple[Sensitivity, ...] = ()
    saliency: Saliency = Saliency()

    @model_validator(mode="after")
    def _fits_together(self):
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self):
        """Sentences about what doesn't fit together."""
        tried, by_site, count = self.learning_rates, self.folds.by == "site", self.folds.count
        grid = tried.grid if tried else ()
        if by_site and not self.folds.rotations:
            yield (
                "folds.rotations is missing: with by: site, name the sites to leave out, "
                "0 the largest"
            )
        for rotation in [*(self.folds.rotations or ()), *((tried and tried.rotations) or ())]:
            if not 0 <= rotation < count:
                parts = f"{count} {'sites' if by_site else 'folds'} (allowed: 0 to {count - 1})"
                yield f"rotations: {rotation} is not a rotation of {parts}"
        for key in grid:
            if key not in self.models:
                yield f"learning_rates.grid: '{key}' is not in models{nearest(key, self.models)}"
        for key in self.networks:
            if key not in grid and self.models[key].learning_rate is None:
                yield (
                    f"models.{key}: learning_rate is missing; give it, or a grid in "
                    "learning_rates.grid"
                )
        for source, names in (("ptbxl", OfPtbxl.__args__), ("acs_ecg", OfAcsEcg.__args__)):
            for name in set(self.sensitivity) & set(names) if source != self.cohort.source else ():
                yield f"sensitivity: '{name}' needs annotations that only {source} has"
        if self.models and (chosen := self.selected_model) not in self.models:
            yield f"selected_model: '{chosen}' is not in models{nearest(chosen, self.models)}"

    @property
    def rotations(self) -> tuple[int, ...]:
        """Rotations that are run, in order."""
        given = self.folds.rotations
        return tuple(range(self.folds.count)) if given is None else given

    @property
    def grid_rotations(self) -> tuple[int, ...]:
        """Rotations on which the grid is run."""
        tried = self.learning_rates.rotations
        return self.rotations if tried is None else tried

    @property
    def runs(self) -> list[tuple[str, str, int, float]]:
        """Kind, model, rotation and learning rate of every run; the rate is 0 but in the grid."""
        grid = self.learning_rates.grid if self.learning_rates else {}
        found = [("grid", m, k, r) for m in grid for r in grid[m] for k in self.grid_rotations]
        found += [("network", m, k, 0) for m in self.networks for k in self.rotations]
        return found + [("tree", m, k, 0) for m in self.trees for k in self.rotations]

    @property
    def steps(self) -> tuple[str, ...]:
        """Notebooks that run once for the study, in order; between them lie its runs."""
        if not self.models:
            return STEPS[:2]
        return STEPS if self.learning_rates else tuple(s for s in STEPS if s[:2] != "04")

    @cached_property
    def cohort_key(self) -> str:
        """Name of the built cohort: its source and a hash of everything that shapes it."""
        told = [part.model_dump(exclude_defaults=True) for part in (self.cohort, self.signal)]
        digest = hashlib.sha256(json.dumps([*told, self.seed], sort_keys=True).encode()).hexdigest()
        return f"{self.cohort.source}-{digest[:10]}"


class OmiFeaturesStudy(AnyStudy):
    """A study of published feature tables: no waveforms, no networks; has `omi_features`."""

    omi_features: OmiFeatures
    steps: ClassVar = ("11_omi_features",)
    rotations: ClassVar = ()
    runs: ClassVar = ()


def find_study(path: str | Path) -> Path:
    """Resolve a study, a YAML file or the bare name of one in ``params/``, or `StudyError`."""
    file = places.find(path)
    if not file.is_file():
        file = places.PARAMS / f"{path}.yaml"
    if not file.is_file():
        known = sorted(p.name for p in places.PARAMS.glob("*.yaml"))
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
    """Turn one pydantic error into a sentence with the key's full name and what it allows."""
    where = [str(part) for part in error["loc"]]
    if where[:1] == ["cohort"]:
        del where[1:-1]  # pydantic names the union's branch, which is no key
    dotted = ".".join(where) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{dotted} is not a known key{nearest(where[-1], _fields_at(where[:-1], content))}"
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
    kinds = [kind for kind in get_args(field) or (field,) if hasattr(kind, "model_fields")]
    if where[0] == "cohort":
        source = content["cohort"]["source"]
        kinds = [k for k in kinds if source in get_args(k.model_fields["source"].annotation)]
    return list(kinds[0].model_fields)
