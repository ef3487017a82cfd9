"""One ECG explained: from any readable file to the score of trained networks, its reasons, and a
page to print.

What may be said is decided by the label that the networks learned, as their ``run.json`` names it:
calibrated risk and a decision only if it was angiographic. For any other label, or none, there is
an uncalibrated score, and every page and picture (`ecglib.plots.explanation`) carries a watermark
that says so.

    python -m ecglib.explain --ecg file --run outputs/smoke/runs/mayo_alvd/rotation_0
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import LEADS, RATE_HZ, paths
from ecglib.execute import partial, run_notebook, sha256
from ecglib.params import LabelKind, Signal, Study, StudyError, load_study

EXAMPLE = Path(__file__).with_name("example_ecg.csv")
"""A simulated recording that ships with the package (`ecglib.sources.synthetic`): 8 leads, 10 s,
the LAD occluded.

:meta hide-value:
"""
KINDS = LabelKind.__args__
COHORTS = {"synthetic": "synthetic", "ptbxl": "proxy"}  # sources whose label's kind is fixed
WEIGHTS = "weights.safetensors"
DEFAULTS = ("ptbxl", "smoke")
"""Studies whose trained networks are taken when none is named: the first that has any."""


class ExplainError(ValueError):
    """An ECG or a run that can't be used; one sentence, which is all that a notebook shows of
    it.
    """

    def _render_traceback_(self):
        return [str(self)]


@dataclass(frozen=True)
class Networks:
    """Trained networks that answer together: one run, or the rotations of a study's selected model.

    Attributes
    ----------
    runs : list of dict
        ``run.json`` of each, with its ``folder``.
    signal : ecglib.params.Signal
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
        lambda self: self.kind == "angiographic", doc="Whether risk and decision may be told."
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
            "No trained network is here yet; run `make reproduce STUDY=params/smoke.yaml`, or name one"
        )
    if paths.find(run).is_dir():
        runs = [_read(paths.find(run))]
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
                f"Study {study.name} has no trained network with weights; train its selected model first"
            )
    kinds = {str(told.get("label_kind")) for told in runs}
    if isinstance(study, Study):  # a run's own word isn't enough where its study is known
        cohort = study.cohort
        kinds.add(cohort.label_kind if cohort.source == "files" else COHORTS[cohort.source])
    known = len(kinds) == 1 and kinds <= set(KINDS)
    meaning = " / ".join(
        dict.fromkeys(str(told.get("label_meaning") or "its meaning isn't told") for told in runs)
    )
    signal = study.signal if isinstance(study, Study) else Signal()
    bands = [told["band_hz"] for told in runs if told.get("band_hz")]
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
    own = [paths.run_folder(study.name, study.selected_model, k) for k in study.rotations]
    places = [(folder, paths.REFERENCE / folder.relative_to(paths.OUTPUTS)) for folder in own]
    there = [
        [f for f in pair if (f / "run.json").is_file() and (f / WEIGHTS).is_file()]
        for pair in places
    ]
    return [pair[0] for pair in there if pair]


def _read(folder: Path) -> dict:
    """Read a run, and refuse one whose network takes another input before its weights are read."""
    # a second to import, which the command line needn't wait for
    from ecglib.runs import RunError, read_run

    try:
        told = read_run(folder)
        told["identity"]["network"], told["identity"]["training"]["normalisation"]
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
            f"{folder} was trained on {shape[0]} leads of {shape[1]} samples, but a median beat gives 12 of 400; "
            "name another run"
        )
    return told


@dataclass(frozen=True)
class Explanation:
    """What networks say about one ECG, and why.

    Attributes
    ----------
    file : str
        Name of the ECG's file.
    networks : Networks
    beat : ecglib.signal.Beat
        Median beat and quality of the recording.
    points : dict
        Fiducial points over all leads, name → sample of the beat.
    scores : pandas.DataFrame
        One row per network: ``score``; of an angiographic label also ``risk``, ``operating_point``
        and ``positive``.
    saliency : numpy.ndarray
        ``(12, 20)``: the paper's map (section II.C), scaled over the whole map, mean over networks.
    leads : pandas.DataFrame
        One row per lead: ``saliency``, share of the absolute gradient, and ``occlusion``, the fall
        of the logit when the lead is made flat; means over networks.
    segments : pandas.DataFrame
        One row per segment: ``saliency``, and ``time``, an even map's share.
    agreement : float
        Mean rank correlation between the maps of two networks; NaN of one.
    """

    file: str
    networks: Networks
    beat: object
    points: dict
    scores: pd.DataFrame
    saliency: np.ndarray
    leads: pd.DataFrame
    segments: pd.DataFrame
    agreement: float

    @property
    def verdict(self) -> list[str]:
        """What may be said: two short lines."""
        table, many = (
            self.scores,
            f" of {len(self.scores)} networks" if len(self.scores) > 1 else "",
        )
        if not self.networks.clinical:
            first = f"Score {_spread(table.score, '.2f', many)}"
            return [
                first,
                f"Uncalibrated, learned from a label of kind '{self.networks.kind}': not a clinical risk",
            ]
        first = f"Calibrated risk {_spread(100 * table.risk, '.0f', many, ' %')}"
        called = int(table.positive.sum())
        decision = "positive" if 2 * called >= len(table) else "negative"
        told = f"called positive by {called}{many}" if many else f"score {table.score.iloc[0]:.2f}"
        return [first, f"At the operating point: {decision} ({told})"]

    @property
    def warning(self) -> str:
        """What is wrong with the recording; empty if nothing is."""
        return (
            f"POOR QUALITY: {self.beat.quality_reasons.replace(';', ', ')}"
            if self.beat.poor_quality
            else ""
        )

    @property
    def quality(self) -> pd.Series:
        """What the recording and its median beat are like."""
        beat = self.beat
        told = {
            "duration (s)": f"{beat.filtered.shape[1] / RATE_HZ:.1f}",
            "beats found": beat.n_beats,
        }
        told |= {
            "beats in the median": beat.n_used,
            "heart rate (/min)": f"{60_000 / beat.rr_ms:.0f}",
        }
        told |= {
            "noise (µV)": f"{beat.noise_uv:.0f}",
            "remarks": beat.quality_reasons.replace(";", ", ") or "none",
        }
        return pd.Series(told, name=self.file)


def _spread(values: pd.Series, digits: str, many: str, unit: str = "") -> str:
    """Mean of the networks, and their range."""
    told = f"{values.mean():{digits}}{unit}"
    return told + (
        f" ({values.min():{digits}}–{values.max():{digits}}{unit}{many})" if many else ""
    )


def explain(ecg_path: str = "", run: str = "") -> Explanation:
    """Explain one ECG.

    Parameters
    ----------
    ecg_path : str
        A recording of any format that `ecglib.sources.reading` knows; empty: `EXAMPLE`.
    run : str
        See `open_networks`.

    Raises
    ------
    ExplainError
        If the file can't be read, no median beat can be made of it, or the run can't be used: then
        there is no score.
    """
    import torch
    from scipy.special import softmax

    from ecglib import saliency
    from ecglib.dataset import CROP, normalise
    from ecglib.signal import fiducials
    from ecglib.trainer import TrainingError, load_model

    networks = open_networks(run)
    beat = read_beat(ecg_path, networks.signal, networks.band_hz)
    try:
        models = [load_model(told["folder"]) for told in networks.runs]
    except TrainingError as error:
        raise ExplainError(str(error)) from None
    # whole µV, as a cohort keeps them
    cropped = torch.from_numpy(np.rint(beat.beat[None, :, CROP]))
    scores, maps, falls = [], [], []
    for told, model in zip(networks.runs, models, strict=True):
        x = normalise(cropped, told["identity"]["training"]["normalisation"]).numpy()
        with torch.inference_mode():
            score = float(
                softmax(model(torch.from_numpy(x[:, None])).double().numpy(), axis=1)[0, 1]
            )
        scores.append({"score": score} | (_clinical(told, score) if networks.clinical else {}))
        maps.append(saliency.attribute(model, x)[0])
        falls.append(saliency.attribute(model, x, "occlude_leads")[0].sum(1))
    maps, found = np.stack(maps), fiducials.find(beat.beat[None]).points
    segments = saliency.segments_of(np.repeat(found, len(maps), axis=0))
    shares = {"saliency": maps, "time": np.ones_like(maps)}
    pairs = [
        saliency.agreement(maps[[a]], maps[[b]])[0] for a, b in combinations(range(len(maps)), 2)
    ]
    return Explanation(
        file=paths.find(ecg_path or EXAMPLE).name,
        networks=networks,
        beat=beat,
        points=dict(zip(fiducials.POINTS, found[0], strict=True)),
        scores=pd.DataFrame(scores, index=[Path(told["folder"]).name for told in networks.runs]),
        saliency=saliency.paper_map(maps, per="map"),
        leads=pd.DataFrame(
            {"saliency": saliency.lead_contributions(maps).mean(), "occlusion": np.mean(falls, 0)},
            index=LEADS,
        ),
        segments=pd.DataFrame(
            {k: saliency.segment_contributions(m, segments).mean() for k, m in shares.items()}
        ),
        agreement=float(np.mean(pairs)) if pairs else np.nan,
    )


def read_beat(ecg_path: str, settings: Signal, band_hz: float | None = None):
    """Read a recording and make its median beat, an `ecglib.signal.Beat`, of the band `band_hz`;
    `ExplainError` if either can't be done, or what was made is no beat.
    """
    from ecglib.signal import SignalError, process
    from ecglib.sources import ReadError
    from ecglib.sources.reading import read_recording

    path = paths.find(ecg_path or EXAMPLE)
    try:
        beat = process(*read_recording(path), settings, band_hz)
    except ReadError as error:
        raise ExplainError(str(error)) from None
    except SignalError as error:
        raise ExplainError(f"{path.name}: {error}") from None
    if not beat.is_beat:
        raise ExplainError(
            f"{path.name}: the beats found aren't centred on QRS complexes; give a cleaner "
            "recording"
        )
    return beat


def _clinical(told: dict, score: float) -> dict:
    """Calibrated risk and decision at the operating point, both fitted on the run's own validation
    predictions.
    """
    from ecglib.metrics import operating_point
    from ecglib.statistics import recalibrate

    table = pd.read_parquet(told["folder"] / "predictions.parquet").query("split == 'validation'")
    try:
        risk = float(recalibrate(table.label, table.probability, [score])[0])
        point = operating_point(table.label, table.probability)
    except ValueError as error:
        raise ExplainError(
            f"{told['folder']} can't be calibrated on its validation predictions: {error}"
        ) from None
    return {"risk": risk, "operating_point": point, "positive": score >= point}


def folder_of(ecg_path: str = "") -> Path:
    """Where an ECG's explanation lies: ``outputs/explain/<file>-<first digits of its SHA-256>``."""
    path = paths.find(ecg_path or EXAMPLE)
    if not path.is_file():
        raise ExplainError(f"{path.name}: no such file")
    return paths.OUTPUTS / "explain" / f"{path.stem}-{sha256(path)[:8]}"


def main(arguments: list[str] | None = None) -> int:
    """Command line: run notebook 10 on one ECG; returns 0, or 1 with one sentence on what is
    wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m ecglib.explain", description=main.__doc__)
    parser.add_argument(
        "--ecg",
        default="",
        help="a recording; default: a simulated one that ships with the package",
    )
    parser.add_argument("--run", default="", help="the folder of a trained network, or a study")
    given = parser.parse_args(arguments)
    run = str(paths.find(given.run)) if given.run and paths.find(given.run).is_dir() else given.run
    file = str(paths.find(given.ecg)) if given.ecg else ""
    try:
        folder = folder_of(file)
        run_notebook("10_explain_ecg", {"ecg_path": file, "run": run}, folder, log=False)
    except ExplainError as error:
        print(error, file=sys.stderr)
        return 1
    except StudyError as error:
        cell = error.__context__  # papermill's error, which knows whether it is one of ours
        expected = getattr(cell, "ename", "") == ExplainError.__name__
        if expected:
            shutil.rmtree(partial(folder), ignore_errors=True)
        print(cell.evalue if expected else error, file=sys.stderr)
        return 1
    told = json.loads((folder / "run.json").read_text())
    print(
        "\n".join(
            [*told["verdict"], *filter(None, [told["warning"]]), f"{folder}/page.pdf, page.png"]
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
