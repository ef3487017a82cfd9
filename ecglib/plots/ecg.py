"""ECGs as clinicians know them: on pink paper, 25 mm/s and 10 mm/mV, small squares of 40 ms × 0.1
mV.

Everything is drawn in millimetres of that paper on one axis with equal aspect. Every function
returns a closed figure: end a notebook's cell with it to show it.
"""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ecglib.analysis.saliency import segments_of
from ecglib.beat import LEADS, RATE_HZ
from ecglib.dataset import CROP
from ecglib.plots import PAIR
from ecglib.signal import fiducials

MM_PER_S, MM_PER_UV = 25, 10 / 1000
INK, SMALL, BOLD = "#1a1a1a", "#f9d5d5", "#eda5a5"
PLANES = (  # title, what is up, what is down, degrees of the leads
    (
        *("Frontal plane, seen from the front", "head", "feet"),
        {"I": 0, "II": 60, "aVF": 90, "III": 120, "aVR": -150, "aVL": -30},
    ),
    (
        *("Horizontal plane, seen from above", "back", "chest"),
        {"V1": 115, "V2": 95, "V3": 75, "V4": 55, "V5": 25, "V6": 0},
    ),
)
SPANS = {
    "P wave": "#56B4E9",
    "QRS complex": "#0072B2",
    "ST segment": "#D55E00",
    "T wave": "#E69F00",
}
SALIENCY_COLOURS = LinearSegmentedColormap.from_list(
    "saliency", [(0, (1, 0.9, 0)), (0.275, (1, 0.45, 0)), (0.55, (1, 0, 0)), (1, (0.25, 0, 0))]
)
"""Bright yellow (low importance) to dark red (high), as in the paper's saliency maps (section
II.C).
"""


def draw_beat(beat, *, saliency=None, saliency_label="saliency", points=None, **page) -> Figure:
    """Draw a 12-lead median beat (Fig. 4B), optionally coloured by what a network looked at (Fig.
    7).

    Parameters
    ----------
    beat : array
        ``(12, samples)`` in µV at 500 Hz, order of `ecglib.LEADS`: 600 samples as stored, or any
        other number.
    saliency : array, optional
        ``(12, k)`` with k a divisor of 400, for example 20 windows of 40 ms: for the 400 samples
        that a network sees, 150 to 550 of a stored beat.
    saliency_label : str
        Beside the colour bar.
    points : dict, optional
        Fiducial points, name → sample of `beat` (NaN is left out), drawn as dashed lines in every
        lead.
    **page
        ``title`` above the paper, ``note`` below it, and ``figure``, a part of a page
        (`matplotlib.figure.SubFigure`) to draw in instead of a figure of its own.
    """
    beat, runs = np.asarray(beat, dtype=np.float32), []
    figure, axis, places = _sheet(beat, beat.shape[1] / RATE_HZ, **page)
    found = pd.Series(points or {}, dtype=float).dropna() * MM_PER_S / RATE_HZ
    for lead, place in enumerate(places):
        x, y = _trace(beat[lead], place)
        axis.plot(x, y, color=INK, linewidth=0.9 if saliency is None else 0.5)
        if saliency is not None:
            trace = np.column_stack([x, y])[CROP]
            width = len(trace) // np.shape(saliency)[1]
            # runs end one sample later, to touch the next one
            runs += [trace[at : at + width + 1] for at in range(0, len(trace), width)]
        x0, _, low, high = place
        dashes = {"linewidth": 0.7, "linestyle": (0, (3, 2))}
        axis.vlines(x0 + found, low + 1, high - 5, PAIR[0], **dashes)
        for number, (name, x) in enumerate(found.items() if high == 0 else ()):  # in two heights
            look = {"fontsize": 6, "ha": "center", "va": "top", "color": PAIR[0]}
            axis.text(x0 + x, high - 1 - 2 * (number % 2), name, **look)
    if saliency is not None:
        look = {"cmap": SALIENCY_COLOURS, "linewidths": 2.6, "capstyle": "round", "zorder": 3}
        lines = axis.add_collection(LineCollection(runs, array=np.ravel(saliency), **look))
        figure.colorbar(lines, ax=axis, fraction=0.025, pad=0.01, shrink=0.7, label=saliency_label)
    return figure


def draw_mean_beats(beats, labels) -> Figure:
    """Draw mean ± 1 SD of the median beats with label 0 and of those with label 1.

    Parameters
    ----------
    beats : array
        ``(n, 12, samples)`` in µV; may be memory-mapped, one lead is read at a time.
    labels : array of 0 and 1
        ``(n,)``.
    """
    labels = np.asarray(labels)
    curves = np.empty((2, 3, *beats.shape[1:]), np.float32)  # label; mean − SD, mean, mean + SD
    for label, lead in np.ndindex(2, 12):
        one = beats[:, lead][labels == label].astype(np.float32)
        curves[label, :, lead] = one.mean(0) + np.outer([-1, 0, 1], one.std(0))
    figure, axis, places = _sheet(np.hstack(curves.reshape(6, 12, -1)), beats.shape[-1] / RATE_HZ)
    for (lead, place), label in product(enumerate(places), (0, 1)):
        x, (low, mean, high) = _trace(curves[label, :, lead], place)
        look = {"color": PAIR[label], "linewidth": 0}
        axis.fill_between(x[::3], low[::3], high[::3], alpha=0.18, **look)
        axis.plot(x, mean, **look | {"linewidth": 1.8 - 0.8 * label})
    told = [f"label {label}, n = {np.sum(labels == label):,}" for label in (0, 1)]
    look = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "frameon": False}
    axis.legend(axis.lines[-2:], told, title="mean ± 1 SD", **look)
    return figure


def draw_recording(signal, rate, title="") -> Figure:
    """Draw up to 10 s of a 12-lead recording: four columns one after the other in time, and lead II
    below (Fig. 4A).

    Parameters
    ----------
    signal, rate : array, float
        ``(12, samples)`` in µV, order of `ecglib.LEADS`, a missing lead all NaN; sampling rate in
        Hz.
    title : str
        Above the paper.
    """
    signal = np.asarray(signal, dtype=np.float32)[:, : int(10 * rate)]
    cuts = np.arange(5) * signal.shape[1] // 4
    traces = [signal[lead, slice(*cuts[lead // 3 :][:2])] for lead in range(12)]
    figure, axis, places = _sheet(signal, cuts[-1] / rate / 4, rhythm=True, title=title)
    for place, trace in zip(places, [*traces, signal[LEADS.index("II")]], strict=True):
        axis.plot(*_trace(trace, place, rate), color=INK, linewidth=0.7)
        if np.isnan(trace).all():
            axis.text(place[0] + 5, place[1], "missing", color=PAIR[1], va="center")
    return figure


def examples(beats, records) -> np.ndarray:
    """Positions of the records whose waves anyone recognises, as in the paper's Fig. 1 and 4; where
    there are none, of all without the label.

    These are of good quality, without the label, with an RR interval of 800 to 950 ms, every
    fiducial point found, and P, QRS and T upright in lead II.

    Parameters
    ----------
    beats : array
        ``(n, 12, 600)`` in µV.
    records : pandas.DataFrame
        Of a cohort, in the same order.
    """
    unlabelled = records.label == 0
    good = unlabelled & ~records.poor_quality & records.rr_ms.between(800, 950)
    good, lead = np.flatnonzero(good), LEADS.index("II")
    trace, found = beats[good, lead].astype(np.float32), fiducials.find(beats[good])
    peaks = np.nan_to_num([found["p_peak"], found["t_peak"]]).astype(int)
    p, t = trace[np.arange(len(good)), peaks]
    top, upright = trace.max(1), (p > 60) & (t > 150)
    upright &= (top > 700) & (top > -3 * trace.min(1)) & np.isfinite(found.points).all(axis=1)
    return good[upright] if upright.any() else np.flatnonzero(unlabelled)


def draw_waves(beat, title="") -> Figure:
    """Draw lead II of a beat, ``(12, 600)`` in µV, with its waves named (Fig. 1), from the fiducial
    points found in it.
    """
    points = fiducials.find(np.asarray(beat)[None]).points
    x, y = _trace(beat[LEADS.index("II")], (0, 0))
    bottom, top = 5 * np.floor(y.min() / 5 - 0.5), 5 * np.ceil(y.max() / 5 + 1)
    figure, axis = _paper((5 * np.ceil(x[-1] / 5), bottom, top), 4, title=title)
    segments = segments_of(points)
    for number, (name, colour) in enumerate(SPANS.items()):
        inside = x[CROP][segments[name.split()[0]][0]]
        if len(inside):
            axis.axvspan(inside[0], inside[-1], color=colour, alpha=0.3, linewidth=0)
            height = top - 0.5 - 1.2 * (number % 2)
            axis.text(inside.mean(), height, name, ha="center", va="top")
    axis.axhline(0, color="0.35", linewidth=1, linestyle="--")
    axis.text(0.3, -0.5, "isoelectric line", fontsize=9, color="0.35", va="top")
    axis.plot(x, y, color=INK, linewidth=1.8)
    axis.text(0.5, top - 0.5, "lead II", va="top", weight="bold")
    return figure


def draw_lead_directions() -> Figure:
    """Draw the leads' nominal directions (Fig. 2), clockwise from the patient's left; dashed: the
    reciprocal ones.
    """
    panels = {"layout": "constrained", "subplot_kw": {"projection": "polar"}}
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), **panels)
    for axis, (title, up, down, angles) in zip(axes, PLANES, strict=True):
        for lead, degrees in angles.items():
            way, told = np.radians(degrees), f"{lead}\n{degrees}°".replace("-", "−")
            arrow = {"arrowstyle": "-|>", "color": PAIR[0], "linewidth": 1.8}
            axis.annotate("", (way, 1), (0, 0), arrowprops=arrow)
            axis.plot([0, way + np.pi], [0, 1], color="0.7", linewidth=1, linestyle="--")
            axis.text(way, 1.17, told, ha="center", va="center")
        for word, degrees in (("left", 0), (down, 90), ("right", 180), (up, 270)):
            look = {"ha": "center", "va": "center", "color": "0.35", "style": "italic"}
            axis.text(np.radians(degrees), 1.45, word, **look)
        axis.set(title=title, theta_direction=-1, rmax=1.6, xticks=[], yticks=[1], yticklabels=[])
        axis.grid(color="0.7")
        axis.spines["polar"].set_visible(False)
    plt.close(figure)
    return figure


def _trace(samples, place, rate: float = RATE_HZ) -> tuple[np.ndarray, np.ndarray]:
    """Where samples in µV lie on the paper, from a place (x, y, …) on."""
    x = place[0] + np.arange(samples.shape[-1]) * MM_PER_S / rate
    return x, place[1] + samples * MM_PER_UV


def _sheet(signal, panel_s, rhythm=False, **page):
    """Lay out the leads by the extents of their signal, with a rhythm strip (lead II) at the
    paper's own size; places, in the order of the leads: x, y, bottom and top of the row.
    """
    # an artefact may leave its row
    extent = np.percentile(np.nan_to_num(signal), [0.05, 99.95], axis=1) * MM_PER_UV
    low, high = extent.clip([[-30], [0]], [[0], [30]])
    gap, scale = (0, 1) if rhythm else (5, 1.45)
    width, rows, top = panel_s * MM_PER_S + gap, [], 0.0
    for shown in [slice(k, None, 3) for k in range(3)] + [LEADS.index("II")] * rhythm:
        # 4 mm for the names; zero lies on a bold line
        y0 = top - 5 * np.ceil((max(high[shown].max(), 8) + 4) / 5)
        bottom = y0 - 5 * np.ceil((1 - low[shown].min()) / 5)
        rows.append((y0, bottom, top))
        top = bottom
    figure, axis = _paper((5 * np.ceil((10 + 4 * width) / 5), top, 0), scale, **page)
    places = [(10 + column * width, *row) for column in range(4) for row in rows[:3]]
    places += [(10, *row) for row in rows[3:]]
    for name, (x0, _, _, above) in zip([*LEADS, "II"], places, strict=False):
        axis.text(x0 + 1, above - 1, name, va="top", weight="bold")
    for y0, *_ in rows:  # calibration: 1 mV for 200 ms
        pulse = y0 + np.array([0, 0, 10, 10, 0, 0])
        axis.plot([1, 2, 2, 7, 7, 8], pulse, color=INK, linewidth=0.9)
    return figure, axis, places


def _paper(extent, scale, title="", note="", figure=None):
    """Return a figure and an axis in mm with the grid of ECG paper; `extent` is right, bottom and
    top, `scale` 1 prints at the paper's own size.
    """
    right, bottom, top = extent
    size = scale * right / 25.4 + 0.3, scale * (top - bottom) / 25.4 + 0.75
    figure = figure or plt.figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for step, colour, width in ((1, SMALL, 0.4), (5, BOLD, 0.8)):
        look = {"colors": colour, "linewidth": width, "zorder": 0}
        axis.vlines(np.arange(0, right + 0.1, step), bottom, top, **look)
        axis.hlines(np.arange(bottom, top + 0.1, step), 0, right, **look)
    limits = {"xlim": (0, right), "ylim": (bottom, top)}
    axis.set(**limits, aspect="equal", xticks=[], yticks=[], frame_on=False)
    axis.set_title(title, loc="left", parse_math=False)  # a file or a label may hold a $
    told = f"25 mm/s, 10 mm/mV; small square 40 ms × 0.1 mV\n{note}".strip()
    axis.set_xlabel(told, fontsize=9, loc="left", parse_math=False)
    plt.close(figure.figure)
    return figure, axis
