"""One ECG explained: from any readable file to the score of trained networks, its reasons, and a
page to print.

What may be said is decided by the label that the networks learned, as their ``run.json`` names it:
calibrated risk and a decision only if it was angiographic. For any other label, or none, there is
an uncalibrated score, and every page and picture (`ecglib.plots.explanation`) carries a watermark
that says so.

    python -m ecglib.study explain --ecg file --run outputs/smoke/runs/mayo_alvd/rotation_0
"""

import json
import shutil
import sys
import textwrap
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.beat import LEADS, RATE_HZ
from ecglib.folders import partial, sha256
from ecglib.settings import Signal
from ecglib.study import places
from ecglib.study.networks import ExplainError, Networks, open_networks
from ecglib.study.notebook import run_notebook
from ecglib.study.params import StudyError

EXAMPLE = Path(__file__).with_name("example_ecg.csv")
"""A simulated recording that ships with the package (`ecglib.cohort.synthetic`): 8 leads, 10 s,
the LAD occluded.

:meta hide-value:
"""


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
    unused : tuple of str
        Channels of the file that are none of the 12 leads.
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
    unused: tuple[str, ...] = ()

    @property
    def verdict(self) -> list[str]:
        """What may be said: two short lines."""
        table, many = (
            self.scores,
            f" of {len(self.scores)} networks" if len(self.scores) > 1 else "",
        )
        if not self.networks.clinical:
            kind = f"label of kind '{self.networks.kind}'"
            return [
                f"Score {_spread(table.score, '.2f', many)}",
                f"Uncalibrated, learned from a {kind}: not a clinical risk",
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
        if self.unused:
            told["channels not used"] = textwrap.shorten(", ".join(self.unused), 60)
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
        A recording of any format that `ecglib.cohort.reading` knows; empty: `EXAMPLE`.
    run : str
        See `open_networks`.

    Raises
    ------
    ExplainError
        If the file can't be read or lacks a lead, no median beat can be made of it, or the run
        can't be used: then there is no score.
    """
    import torch

    from ecglib.analysis import saliency
    from ecglib.dataset import inputs
    from ecglib.signal import fiducials
    from ecglib.trainer import TrainingError, load_model

    networks = open_networks(run)
    beat, unused = read_beat(ecg_path, networks.signal)
    try:
        models = [load_model(told["folder"]) for told in networks.runs]
    except TrainingError as error:
        raise ExplainError(str(error)) from None
    scores, maps, falls = [], [], []
    for told, model in zip(networks.runs, models, strict=True):
        x = inputs(np.rint(beat.beat[None]), told["identity"])  # whole µV, as in a cohort
        with torch.inference_mode():
            score = float(model(x).double().softmax(1)[0, 1])
        scores.append({"score": score} | (_clinical(told, score) if networks.clinical else {}))
        maps.append(saliency.attribute(model, x[:, 0])[0])
        falls.append(saliency.attribute(model, x[:, 0], "occlude_leads")[0].sum(1))
    maps, found = np.stack(maps), fiducials.find(beat.beat[None]).points
    segments = saliency.segments_of(np.repeat(found, len(maps), axis=0))
    shares = {"saliency": maps, "time": np.ones_like(maps)}
    pairs = [
        saliency.agreement(maps[[a]], maps[[b]])[0] for a, b in combinations(range(len(maps)), 2)
    ]
    return Explanation(
        file=places.find(ecg_path or EXAMPLE).name,
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
        unused=unused,
    )


def read_ecg(ecg_path: str):
    """Read a recording, an `ecglib.cohort.reading.Recording`; `ExplainError` if it can't be."""
    from ecglib.cohort.reading import open_recording
    from ecglib.cohort.source import ReadError

    try:
        return open_recording(places.find(ecg_path or EXAMPLE))
    except ReadError as error:
        raise ExplainError(str(error)) from None


def read_beat(ecg_path: str, settings: Signal):
    """Read a recording and make its median beat.

    Returns the `ecglib.signal.Beat`, and the names of the file's channels that are none of the 12
    leads. `ExplainError` if it can't be done, what was made is no beat, or a lead is neither there
    nor told by others: a network would take it for a flat one.
    """
    from ecglib.signal import SignalError, process

    name, recording = places.find(ecg_path or EXAMPLE).name, read_ecg(ecg_path)
    try:
        beat = process(recording.signal, recording.rate, settings)
    except SignalError as error:
        raise ExplainError(f"{name}: {error}") from None
    reasons = beat.quality_reasons.split(";")
    if missing := [word[8:] for word in reasons if word.startswith("missing:")]:
        others = textwrap.shorten(", ".join(recording.unused), 100)
        raise ExplainError(
            f"{name}: there is no score, since {' '.join(missing)} can be neither read nor told"
            f" from other leads{f'; channels not used: {others}' if others else ''}"
        )
    if not beat.is_beat:
        raise ExplainError(
            f"{name}: the beats found aren't centred on QRS complexes; give a cleaner recording"
        )
    return beat, recording.unused


def _clinical(told: dict, score: float) -> dict:
    """Calibrated risk and decision at the operating point, both fitted on the run's own validation
    predictions.
    """
    from ecglib.analysis.calibration import recalibrate
    from ecglib.metrics import operating_point

    table = pd.read_parquet(told["folder"] / "predictions.parquet").query("split == 'validation'")
    try:
        risk = float(recalibrate(table.label, table.probability, [score])[0])
        point = operating_point(table.label, table.probability)
    except ValueError as error:
        raise ExplainError(
            f"{told['folder']} can't be calibrated on its validation predictions: {error}"
        ) from None
    return {"risk": risk, "operating_point": point, "positive": score >= point}


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


def folder_of(ecg_path: str = "") -> Path:
    """Where an ECG's explanation lies: ``outputs/explain/<file>-<first digits of its SHA-256>``."""
    path = places.find(ecg_path or EXAMPLE)
    return places.OUTPUTS / "explain" / f"{path.stem}-{sha256(path)[:8]}"


def run(ecg: str, network: str) -> int:
    """Run notebook 10 on one ECG; returns 0, or 1 with one sentence on what is wrong.

    `ecg` and `network` are those of `explain`.
    """
    if network and places.find(network).is_dir():
        network = str(places.find(network))
    file = str(places.find(ecg)) if ecg else ""
    try:
        # what is wrong is told at once: a notebook takes ten seconds to start
        read_ecg(file)
        answering = open_networks(network)
        read_beat(file, answering.signal)
        if problem := places.unwritable():
            raise ExplainError(problem)
        folder = folder_of(file)
        run_notebook("10_explain_ecg", {"ecg_path": file, "run": network}, folder, log=False)
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
    found = json.loads((folder / "run.json").read_text())
    warning = [found["warning"]] if found["warning"] else []
    told = [*found["verdict"], *warning, *planted(answering)]
    print(*told, f"{folder}/page.pdf, page.png", sep="\n")
    return 0
