"""Trained networks that explain an ECG together, and what their label allows to say."""

import json
from dataclasses import dataclass
from pathlib import Path

from ecglib.errors import Refusal
from ecglib.settings import LabelKind, Signal
from ecglib.study import places
from ecglib.study.params import Study, StudyError, load_study
from ecglib.study.places import WEIGHTS

KINDS = LabelKind.__args__
DEFAULTS = ("ptbxl", "smoke")
"""Studies whose trained networks are taken when none is named: the first that has any."""


class ExplainError(Refusal, ValueError):
    """An ECG or a run that can't be used; one sentence."""


@dataclass(frozen=True)
class Networks:
    """Trained networks that answer together: one run, or the rotations of a study's selected model.

    Attributes
    ----------
    runs : list of dict
        ``run.json`` of each, with its ``folder``.
    signal : ecglib.settings.Signal
        How their median beats were made, and the highest frequency that these hold, if it is told.
    kind, meaning : str
        Of the label they learned; kind is 'unknown' unless all of them, and their study, name the
        same known one.
    """

    runs: list
    signal: Signal
    kind: str
    meaning: str

    name = property(lambda self: self.runs[0].get("study") or "unknown")
    seed = property(lambda self: self.runs[0].get("seed"))
    label = property(lambda self: self.runs[0].get("label") or self.runs[0]["identity"]["network"])
    clinical = property(
        lambda self: self.kind == "angiographic" and self.calibrated,
        doc="Whether risk and decision may be told.",
    )
    calibrated = property(
        lambda self: all("predictions.parquet" in run["files"] for run in self.runs),
        doc="Whether each run has validation predictions to calibrate on.",
    )
    caption = property(lambda self: f"{self.meaning} [{self.kind} label]")


def open_networks(run: str = "") -> Networks:
    """Find trained networks, and what their label allows to say; weights are read later.

    Parameters
    ----------
    run : str
        The folder of one run, or a study (file or name) for the rotations of its selected model, as
        they lie under ``outputs/<study>`` or else ``outputs/reference/<study>``. Empty: the first
        of `DEFAULTS` that has any.

    Raises
    ------
    ExplainError
        If there is none, or one is damaged or takes another input than 12 leads of 400 samples.
    """
    run = run or next((name for name in DEFAULTS if with_weights(_study(name))), "")
    if not run:
        raise ExplainError(
            "No trained network is here yet; "
            "run `make reproduce STUDY=params/smoke.yaml`, or name one"
        )
    if places.find(run).is_dir():
        runs = [read_network(places.find(run))]
        study = _study(runs[0].get("study"))
    else:
        try:
            study = load_study(run)
        except StudyError as error:
            raise ExplainError(
                f"{run} is neither the folder of a run nor a study ({error})"
            ) from None
        runs = [read_network(folder) for folder in with_weights(study)]
        if not runs:
            raise ExplainError(
                f"Study {study.name} has no trained network with weights; "
                "train its selected model first"
            )
    kinds = {str(told.get("label_kind")) for told in runs}
    if isinstance(study, Study):  # a run's own word isn't enough where its study is known
        kinds.add(study.cohort.means.kind)
    kind = kinds.pop() if len(kinds) == 1 and kinds <= set(KINDS) else "unknown"
    meanings = [str(told.get("label_meaning") or "its meaning isn't told") for told in runs]
    signal = study.signal if isinstance(study, Study) else Signal()
    return Networks(runs, of_their_band(signal, runs), kind, " / ".join(dict.fromkeys(meanings)))


def planted(networks: Networks) -> list[str]:
    """What a network makes of changes planted into ECGs, as notebook 09 of its study found; a
    sentence each, none where another network, or none, was asked.
    """
    run = Path(networks.runs[0]["folder"]).parts[-2:]
    for outputs in (places.OUTPUTS, places.REFERENCE):
        file = outputs / networks.name / "09_saliency" / "run.json"
        told = json.loads(file.read_text()) if file.is_file() else {}
        if Path(told.get("run", "")).parts[-2:] == run:
            return told.get("planted", [])
    return []


def of_their_band(signal: Signal, runs: list) -> Signal:
    """Settings that make beats of the band that those have from which the runs learned."""
    bands = [run["band_hz"] for run in runs if run.get("band_hz")]
    return signal.model_copy(update={"band_hz": min(bands, default=None)})


def _study(name) -> Study | None:
    """Return the study of that name, if there is one."""
    try:
        return load_study(str(name))
    except StudyError:
        return None


def with_weights(study, model: str = "") -> list[Path]:
    """Folders of a model of the study, or its selected one, that hold weights: own ones before
    shipped ones.
    """
    if not isinstance(study, Study):
        return []
    model = model or study.selected_model
    file = WEIGHTS if model in study.networks else "model.skops"
    found = []
    for rotation in study.rotations:
        own = places.run_folder(study.name, model, rotation)
        both = (folder for folder in (own, places.kept(own)) if (folder / "run.json").is_file())
        found += [folder for folder in both if (folder / file).is_file()][:1]
    return found


def read_network(folder: Path) -> dict:
    """Read a run, and refuse one whose network takes another input before its weights are read."""
    # a second to import, which the command line needn't wait for
    from ecglib.study.runs import read_run

    try:
        told = read_run(folder)
        told["identity"]["network"], told["identity"]["training"]
        options = told["identity"]["options"]
        shape = options.get("leads", 12), options.get("samples", 400)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ExplainError(
            f"{folder / 'run.json'} doesn't describe a trained network; name another run"
        ) from None
    if shape != (12, 400):
        raise ExplainError(
            f"{folder} was trained on {shape[0]} leads of {shape[1]} samples, "
            "but a median beat gives 12 of 400; name another run"
        )
    return told
