"""Trained networks that explain an ECG together, and what their label allows to say."""

from dataclasses import dataclass
from pathlib import Path

from ecglib.errors import Refusal
from ecglib.settings import LabelKind, Signal
from ecglib.study import places
from ecglib.study.params import Study, StudyError, load_study

KINDS = LabelKind.__args__
WEIGHTS = "weights.safetensors"
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
        How their median beats were made.
    kind, meaning : str
        Of the label they learned; kind is 'unknown' unless all of them, and their study, name the
        same known one.
    band_hz : float or None
        Highest frequency that the beats they learned from hold; None if it isn't told.
    """

    runs: list
    signal: Signal
    kind: str
    meaning: str
    band_hz: float | None = None

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
    run = run or next((name for name in DEFAULTS if _rotations(_study(name))), "")
    if not run:
        raise ExplainError(
            "No trained network is here yet; "
            "run `make reproduce STUDY=params/smoke.yaml`, or name one"
        )
    if places.find(run).is_dir():
        runs = [_read(places.find(run))]
        study = _study(runs[0].get("study"))
    else:
        try:
            study = load_study(run)
        except StudyError as error:
            raise ExplainError(
                f"{run} is neither the folder of a run nor a study ({error})"
            ) from None
        runs = [_read(folder) for folder in _rotations(study)]
        if not runs:
            raise ExplainError(
                f"Study {study.name} has no trained network with weights; "
                "train its selected model first"
            )
    kinds = {str(told.get("label_kind")) for told in runs}
    if isinstance(study, Study):  # a run's own word isn't enough where its study is known
        kinds.add(study.cohort.means.kind)
    known = len(kinds) == 1 and kinds <= set(KINDS)
    meaning = " / ".join(
        dict.fromkeys(str(told.get("label_meaning") or "its meaning isn't told") for told in runs)
    )
    signal = study.signal if isinstance(study, Study) else Signal()
    bands = [run["band_hz"] for run in runs if run.get("band_hz")]
    kind = kinds.pop() if known else "unknown"
    return Networks(runs, signal, kind, meaning, min(bands, default=None))


def _study(name) -> Study | None:
    """Return the study of that name, if there is one."""
    try:
        return load_study(str(name))
    except StudyError:
        return None


def _rotations(study) -> list[Path]:
    """Folders of the study's selected model that hold weights, own ones before shipped ones."""
    if not isinstance(study, Study):
        return []
    own = [places.run_folder(study.name, study.selected_model, k) for k in study.rotations]
    pairs = [(folder, places.kept(folder)) for folder in own]
    there = [
        [f for f in pair if (f / "run.json").is_file() and (f / WEIGHTS).is_file()]
        for pair in pairs
    ]
    return [pair[0] for pair in there if pair]


def _read(folder: Path) -> dict:
    """Read a run, and refuse one whose network takes another input before its weights are read."""
    # a second to import, which the command line needn't wait for
    from ecglib.study.runs import RunError, read_run

    try:
        told = read_run(folder)
        told["identity"]["network"], told["identity"]["training"]
        options = told["identity"]["options"]
        shape = options.get("leads", 12), options.get("samples", 400)
    except RunError as error:
        raise ExplainError(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ExplainError(
            f"{folder / 'run.json'} doesn't describe a trained network; name another run"
        ) from None
    if shape != (12, 400):
        raise ExplainError(
            f"{folder} was trained on {shape[0]} leads of {shape[1]} samples, "
            "but a median beat gives 12 of 400; name another run"
        )
    return told
