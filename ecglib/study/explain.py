"""One ECG explained: from any readable file to the score of trained networks, its reasons, and a
page to print.

What may be said is decided by the label that the networks learned, as their ``run.json`` names it:
calibrated risk and a decision only if it was angiographic, and the runs have validation predictions
to calibrate on. Else there is an uncalibrated score, and every page and picture
(`ecglib.plots.explanation`) carries a watermark that says so.

    python -m ecglib.study explain --ecg file --run outputs/smoke/runs/mayo_alvd/rotation_0
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib.beat import LEADS, RATE_HZ
from ecglib.folders import hold, partial, replace, sha256, write_json
from ecglib.settings import Signal
from ecglib.study import places
from ecglib.study.networks import ExplainError, Networks, open_networks, planted

EXAMPLE = Path(__file__).with_name("example_ecg.csv")
"""A simulated recording that ships with the package (`ecglib.cohort.synthetic`): 8 leads, 10 s,
the LAD occluded.

:meta hide-value:
"""

GROUPS = {1: "positives", 0: "negatives"}


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
        One row per network: ``score``; shares of the positives and of the negatives of its test
        fold that score lower, ``of positives, of negatives``; its ``operating point`` (highest F1
        on validation) and whether the score reaches it, ``positive``; of `Networks.clinical`
        ones also ``risk``. Without predictions of the run there is the score alone.
    saliency : numpy.ndarray
        ``(12, 20)``: the paper's map (section II.C), scaled over the whole map, mean over networks.
    leads : pandas.DataFrame
        One row per lead: ``saliency``, share of the absolute gradient, and ``occlusion``, the fall
        of the logit when the lead is made flat; means over networks.
    segments : pandas.DataFrame
        One row per segment: ``saliency``, and ``time``, an even map's share.
    unused : tuple of str
        Channels of the file that are none of the 12 leads.
    simulated : str
        What was simulated, as the file's first line says; empty for a recording.
    """

    file: str
    networks: Networks
    beat: object
    points: dict
    scores: pd.DataFrame
    saliency: np.ndarray
    leads: pd.DataFrame
    segments: pd.DataFrame
    unused: tuple[str, ...] = ()
    simulated: str = ""

    @property
    def verdict(self) -> list[str]:
        """What may be said: the score, what it means, and what kind of score it is, a line each."""
        table, networks, count = self.scores, self.networks, len(self.scores)
        many = f" of {count} networks" if count > 1 else ""
        score = f"Score {_spread(table.score, '.2f', many)}"
        why = f"learned from a label of kind '{networks.kind}'"
        if networks.kind == "angiographic":
            why = "since no validation fold came with the network"
        uncalibrated = f"Uncalibrated, {why}: not a clinical risk"
        if not networks.calibrated:
            return [score, uncalibrated]
        called = int(table.positive.sum())
        where = f"{called} of them reach" if many else "at or above" if called else "below"
        point = f"{where} the operating point of {_spread(table['operating point'], '.2f', many)}"
        ranks = [
            f"{100 * table[f'of {group}'].mean():.0f} % of the {group}" for group in GROUPS.values()
        ]
        means = f"Higher than {' and '.join(ranks)} of its test fold (study {networks.name})"
        if not networks.clinical:
            return [f"{score}, {point}", means, uncalibrated]
        risk = f"Calibrated risk {_spread(100 * table.risk, '.0f', many, ' %')}"
        decision = "positive" if 2 * called >= count else "negative"
        told = f"called positive by {called}{many}" if many else f"score {table.score.iloc[0]:.2f}"
        return [risk, means, f"At the operating point: {decision} ({told})"]

    @property
    def origin(self) -> str:
        """What the ECG is, if it isn't a person's; empty if it is."""
        met = "like the training ECGs"
        if self.networks.kind != "synthetic":
            met = (
                "which these networks have never seen: whether high or low, their score says little"
            )
        return f"SIMULATED ECG ({self.simulated}), {met}" if self.simulated else ""

    @property
    def warning(self) -> str:
        """What is wrong with the recording; empty if nothing is."""
        return f"POOR QUALITY: {self.quality['remarks']}" if self.beat.poor_quality else ""

    @property
    def facts(self) -> dict:
        """What ``run.json`` keeps of it."""
        networks = self.networks
        return {
            "file": self.file,
            "runs": [str(run["folder"]) for run in networks.runs],
            "label_kind": networks.kind,
            "label_meaning": networks.meaning,
            "verdict": self.verdict,
            "warning": self.warning,
            "origin": self.origin,
            "quality": self.beat.columns(),
        }

    @property
    def quality(self) -> pd.Series:
        """What the recording and its median beat are like."""
        beat = self.beat
        told = {
            "duration (s)": f"{beat.filtered.shape[1] / RATE_HZ:.1f}",
            "beats found": beat.n_beats,
            "beats in the median": beat.n_used,
            "heart rate (/min)": f"{60_000 / beat.rr_ms:.0f}",
            "noise (µV)": f"{beat.noise_uv:.0f}",
            "remarks": beat.quality_reasons.replace(";", ", ").replace("_", " ") or "none",
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
    ecglib.errors.Refusal
        If the file can't be read or lacks a lead, no median beat can be made of it, or the run
        can't be used: then there is no score.
    """
    import torch

    from ecglib.analysis import saliency
    from ecglib.dataset import inputs
    from ecglib.signal import fiducials
    from ecglib.trainer import load_model

    networks, ecg = open_networks(run), places.find(ecg_path or EXAMPLE)
    beat, unused = read_beat(ecg_path, networks.signal)
    models = [load_model(told["folder"]) for told in networks.runs]
    scores, maps, falls = {}, [], []
    for told, model in zip(networks.runs, models, strict=True):
        x = inputs(np.rint(beat.beat[None]), told["identity"])  # whole µV, as in a cohort
        with torch.inference_mode():
            score = float(model(x).double().softmax(1)[0, 1])
        standing = _standing(told, score, networks.clinical) if networks.calibrated else {}
        scores[told["folder"].name.replace("_", " ")] = {"score": score} | standing
        maps.append(saliency.attribute(model, x[:, 0])[0])
        falls.append(saliency.attribute(model, x[:, 0], "occlude_leads")[0].sum(1))
    maps, found = np.stack(maps), fiducials.find(beat.beat[None]).points
    segments = saliency.segments_of(np.repeat(found, len(maps), axis=0))
    shares = {"saliency": maps, "time": np.ones_like(maps)}
    whole = saliency.lead_contributions(maps).mean()
    return Explanation(
        file=ecg.name,
        simulated=_simulated(ecg),
        networks=networks,
        beat=beat,
        points=dict(zip(fiducials.POINTS, found[0], strict=True)),
        scores=pd.DataFrame.from_dict(scores, orient="index"),
        saliency=saliency.paper_map(maps, per="map"),
        leads=pd.DataFrame({"saliency": whole, "occlusion": np.mean(falls, 0)}, index=LEADS),
        segments=pd.DataFrame(
            {k: saliency.segment_contributions(m, segments).mean() for k, m in shares.items()}
        ),
        unused=unused,
    )


def read_beat(ecg_path: str, settings: Signal):
    """Read a recording and make its median beat.

    Returns the `ecglib.signal.Beat`, and the names of the file's channels that are none of the 12
    leads. `ExplainError` if it can't be done, what was made is no beat, or a lead is neither there
    nor told by others: a network would take it for a flat one.
    """
    from ecglib.cohort.reading import open_recording
    from ecglib.signal import SignalError, process

    path = places.find(ecg_path or EXAMPLE)
    name = path.name
    try:
        recording = open_recording(path)
        beat = process(recording.signal, recording.rate, settings)
    except SignalError as error:
        raise ExplainError(f"{name}: {error}") from None
    reasons = beat.quality_reasons.split(";")
    if missing := [word[8:] for word in reasons if word.startswith("missing:")]:
        others = textwrap.shorten(", ".join(recording.unused), 100)
        raise ExplainError(
            f"{name}: there is no score, since {' '.join(missing)} can't be read or derived"
            f" from other leads{f'; channels not used: {others}' if others else ''}"
        )
    if not beat.is_beat:
        raise ExplainError(
            f"{name}: the beats found aren't centred on QRS complexes; give a cleaner recording"
        )
    return beat, recording.unused


def _standing(told: dict, score: float, clinical: bool) -> dict:
    """Where a score stands among those of the run's own ECGs: test ECGs for the ranks; validation
    ECGs for the operating point, and for the calibrated risk.
    """
    from ecglib.analysis.calibration import recalibrate
    from ecglib.metrics import operating_point

    table = pd.read_parquet(told["folder"] / "predictions.parquet")
    tested, validation = (table[table.split == split] for split in ("test", "validation"))
    lower = (tested.probability < score).groupby(tested.label).mean()
    row = {f"of {group}": lower.get(i) for i, group in GROUPS.items()}
    try:
        point = operating_point(validation.label, validation.probability)
        row |= {"operating point": point, "positive": score >= point}
        if clinical:
            row["risk"] = float(recalibrate(validation.label, validation.probability, [score])[0])
    except ValueError as error:
        raise ExplainError(
            f"{told['folder']}: its validation predictions give no scale for a score: {error}"
        ) from None
    return row


def _simulated(path: Path) -> str:
    """What the first line of a file that this package simulated says of it; else empty."""
    first = path.read_bytes()[:200].decode(errors="ignore") if path.is_file() else ""
    told = re.match(r"# simulated ECG, not a person's: (.+?) \(", first)
    return told[1] if told else ""


def folder_of(ecg_path: str = "") -> Path:
    """Where an ECG's explanation lies: ``outputs/explain/<file>-<first digits of its SHA-256>``."""
    path = places.find(ecg_path or EXAMPLE)
    return places.OUTPUTS / "explain" / f"{path.stem}-{sha256(path)[:8]}"


def run(ecg: str, network: str) -> None:
    """Explain one ECG on one page, as notebook 10 does in a notebook.

    `ecg` and `network` are those of `explain`.
    """
    from ecglib.plots import explanation as pictures
    from ecglib.study.machine import environment

    places.check_writable()
    print(f"[1/2] reading {places.find(ecg or EXAMPLE).name} and asking the network", flush=True)
    found = explain(ecg, network)
    print("[2/2] drawing the page", flush=True)
    final = folder_of(ecg)
    with hold(final):
        folder = partial(final)
        folder.mkdir(exist_ok=True)
        pictures.save_page(found, folder)
        for name in ("scores", "leads", "segments"):
            getattr(found, name).to_csv(folder / f"{name}.csv")
        write_json(folder / "run.json", found.facts | {"environment": environment()})
        replace(folder, final)
    told = [found.origin, *found.verdict, found.warning, *planted(found.networks)]
    print(*filter(None, told), sep="\n")
    print(f"The page: {final}/page.pdf, page.png")
