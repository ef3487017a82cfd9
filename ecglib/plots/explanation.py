"""One ECG explained, as pictures and as a page to print; each carries a watermark beside the traces
unless risk and decision may be told.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.plots import NEUTRAL, PAIR, ecg, lay_out

A4 = (8.27, 11.69)
FOOTER = (
    "Colours show what drives the score of these networks, not what a disease does; whether such "
    "maps can be trusted\nis tested in notebook 09. For research only: no medical device, "
    "no diagnosis."
)
POINTS = {"P": "p_on", "Q": "qrs_on", "J": "qrs_off", "T peak": "t_peak", "T end": "t_off"}


def draw_beat(explanation, coloured: bool = True, figure=None) -> Figure:
    """Draw the median beat of an `ecglib.study.explain.Explanation`, coloured by saliency or else
    with fiducial points, on a `figure` of its own or on a part of the page.

    A watermark stands below: only calibrated networks of an angiographic label go without.
    """
    networks, note = explanation.networks, ""
    if coloured:
        shown = {"title": "What drives the score", "saliency": explanation.saliency}
    else:
        points = {name: explanation.points[point] for name, point in POINTS.items()}
        shown = {"title": "Median beat and fiducial points", "points": points}
    if figure is None:  # the head of a page says it
        told = filter(None, (explanation.warning, explanation.origin, networks.caption))
        note = "\n".join(textwrap.fill(text, 100) for text in told)
    figure = ecg.draw_beat(explanation.beat.beat, note=note, figure=figure, **shown)
    if not networks.clinical:
        kind = f"{networks.kind.upper()} LABEL"
        words = "UNCALIBRATED" if networks.kind == "angiographic" else kind
        words += f", NOT A CLINICAL RISK\n{textwrap.shorten(networks.meaning, 50)}"
        look = {"alpha": 0.35, "color": "0.3", "zorder": 100, "weight": "bold"}
        figure.supxlabel(words, fontsize=20, parse_math=False, **look)
    return figure


def draw_page(explanation) -> Figure:
    """Draw an `ecglib.study.explain.Explanation` on one page of A4."""
    page = plt.figure(figsize=A4, layout="constrained")
    page.get_layout_engine().set(rect=(0.05, 0.03, 0.90, 0.94))  # a printer's margin
    top, middle, low, foot = page.subfigures(4, 1, height_ratios=[2.8, 5.4, 3.0, 0.6])
    _head(explanation, top)
    draw_beat(explanation, figure=middle)
    _shares(explanation, low)
    foot.text(0, 0.9, FOOTER, fontsize=8, va="top", color="0.3")
    plt.close(page)
    lay_out(page)
    return page


def save_page(explanation, folder: str | Path) -> None:
    """Draw the page, and write it as ``page.pdf`` and ``page.png``."""
    page = draw_page(explanation)
    for kind in ("pdf", "png"):
        page.savefig(Path(folder) / f"page.{kind}", dpi=150)


def _head(explanation, part):
    """Write what was read, what was found, and how far it can be trusted."""
    networks, verdict = explanation.networks, explanation.verdict
    label = textwrap.fill(f"Label: {networks.caption}", 110, max_lines=2)
    count = len(explanation.scores)
    about = f"{networks.label}, networks trained in study {networks.name}: {count}\n{label}"
    quality = "   ".join(f"{name} {value}" for name, value in explanation.quality.items())
    box = {"facecolor": "#ffe08a", "edgecolor": PAIR[1], "boxstyle": "round,pad=0.4"}
    bold, warning = {"weight": "bold"}, {"weight": "bold", "bbox": box}
    for y, text, size, look in (
        (0.98, textwrap.shorten(f"ECG explained: {explanation.file}", 70), 15, bold),
        (0.85, about, 9, {}),
        (0.67, verdict[0], 13, bold),
        (0.55, "\n".join(verdict[1:]), 10, {}),
        (0.38, textwrap.fill(quality, 110), 9, {}),
        (0.20, textwrap.fill(explanation.origin, 84, max_lines=2), 10, warning),
        (0.01, textwrap.fill(explanation.warning, 84, max_lines=2), 10, warning),
    ):
        # a file or a label may hold a $
        part.text(0, y, text, fontsize=size, va="top", parse_math=False, **look)


def _shares(explanation, part):
    """Draw contributions of leads and segments, with their figures beside the names."""
    axes = part.subplots(1, 3)
    leads, segments = explanation.leads, explanation.segments
    for axis, values, digits, label in (
        (axes[0], 100 * leads.saliency, ".1f", "share of saliency (%)"),
        (axes[1], leads.occlusion, "+.2f", "fall in the logit without the lead"),
        (axes[2], 100 * segments.saliency, ".0f", "share of saliency (%)"),
    ):
        names = [f"{name}  {value:{digits}}".replace("-", "−") for name, value in values.items()]
        sns.barplot(x=values.array, y=names, color=NEUTRAL, ax=axis)
        axis.set(xlabel=label, ylabel="")
        axis.tick_params(labelsize=8)
        sns.despine(ax=axis)
    axes[0].axvline(100 / len(leads), color=PAIR[1], linewidth=1, linestyle="--")
    axes[1].axvline(0, color="black", linewidth=0.8)
    axes[2].plot(100 * segments.time, range(len(segments)), "D", color=PAIR[1], markersize=5)
    for axis in axes[::2]:
        axis.set_title("orange: an even map", fontsize=9, color=PAIR[1])
