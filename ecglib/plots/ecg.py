"""ECGs as clinicians know them: on pink paper, 25 mm/s and 10 mm/mV, squares of 40 ms × 0.1 mV.

Everything is drawn in millimetres of that paper on one axis with equal aspect. Every function
returns a closed figure: end a notebook's cell with it to show it.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ecglib.beat import LEADS, RATE_HZ
from ecglib.plots import PAIR

MM_PER_S, MM_PER_UV = 25, 10 / 1000
INK, SMALL, BOLD = "#1a1a1a", "#f9d5d5", "#eda5a5"
SPANS = {
    "P wave": "#56B4E9",
    "QRS complex": "#0072B2",
    "ST segment": "#D55E00",
    "T wave": "#E69F00",
}
SALIENCY_COLOURS = LinearSegmentedColormap.from_list(
    "saliency", [(0, (1, 0.9, 0)), (0.275, (1, 0.45, 0)), (0.55, (1, 0, 0)), (1, (0.25, 0, 0))]
)
"""Bright yellow (low importance) to dark red (high), as in the paper (section II.C)."""

PLANES = {  # plane: seen from, what is above and below, degrees of its leads
    "Frontal": (
        "the front", "head", "feet",
        {"I": 0, "II": 60, "aVF": 90, "III": 120, "aVR": -150, "aVL": -30},
    ),
    "Horizontal": (
        "above", "back", "chest",
        {"V1": 115, "V2": 95, "V3": 75, "V4": 55, "V5": 25, "V6": 0},
    ),
}  # fmt: skip


def draw_beat(beat, *, title="", note="", points=None, figure=None) -> Figure:
    """Draw a 12-lead median beat (Fig. 4B).

    Parameters
    ----------
    beat : array
        ``(12, samples)`` in µV at 500 Hz, order of `ecglib.LEADS`: 600 samples as stored, or any
        other number.
    title, note : str
        Above and below the paper; the note names the kind of label.
    points : dict, optional
        Fiducial points, name → sample of `beat` (NaN is left out), drawn as dashed lines in every
        lead.
    figure : matplotlib.figure.SubFigure, optional
        Part of a page to draw in; None: a figure of its own.

    Raises
    ------
    ValueError
        If the shape does not fit.
    """
    figure, axis, places, _ = _beat(beat, (title, note), figure, 0.9)
    for lead, (x0, _, low, high) in places.items():
        for number, (name, sample) in enumerate((points or {}).items()):
            if np.isfinite(sample):
                x, y = x0 + sample * MM_PER_S / RATE_HZ, high - 1 - 2 * (number % 2)
                axis.plot([x, x], [low + 1, high - 5], color=PAIR[0], lw=0.7, ls=(0, (3, 2)))
                if lead % 3 == 0:
                    axis.text(x, y, name, fontsize=6, ha="center", va="top", color=PAIR[0])
    return figure


def draw_saliency(
    beat, saliency, *, saliency_label="saliency", title="", note="", figure=None
) -> Figure:
    """Draw a 12-lead median beat coloured by what a network looked at (Fig. 7).

    Parameters
    ----------
    beat, title, note, figure
        As for `draw_beat`.
    saliency : array
        ``(12, k)`` with k a divisor of 400, for example 20 windows of 40 ms: for the 400 samples
        that a network sees, which are 150 to 550 of a stored beat or all of a beat of 400. The
        colour scale spans its range.
    saliency_label : str
        Beside the colour bar.

    Raises
    ------
    ValueError
        If a shape does not fit.
    """
    saliency = _checked("saliency", saliency, 400)
    figure, axis, _, traces = _beat(beat, (title, note), figure, 0.5)
    values = np.repeat(saliency, 400 // saliency.shape[1], axis=1)
    seen = slice(150, 550) if len(traces[0][0]) > 400 else slice(400)
    coloured = [(*np.array(traces[lead])[:, seen], values[lead]) for lead in range(12)]
    lines = axis.add_collection(_coloured_traces(coloured, (saliency.min(), saliency.max())))
    figure.colorbar(lines, ax=axis, fraction=0.025, pad=0.01, shrink=0.7, label=saliency_label)
    return figure


def draw_mean_beats(beats, labels, names, *, title="", note="") -> Figure:
    """Draw mean ± 1 SD of the median beats with label 0 and of those with label 1.

    Parameters
    ----------
    beats : array
        ``(n, 12, samples)`` in µV; may be memory-mapped, one lead is read at a time.
    labels, names : array of 0 and 1, tuple of str
        Labels ``(n,)``, and what 0 and 1 are called; counts are added.
    """
    groups = [np.asarray(labels) == label for label in (0, 1)]
    mean, spread = np.empty((2, 2, 12, beats.shape[-1]), np.float32)
    for lead in range(12):
        one = np.asarray(beats[:, lead], dtype=np.float32)
        for label, group in enumerate(groups):
            mean[label, lead], spread[label, lead] = one[group].mean(0), one[group].std(0)
    low, high = mean - spread, mean + spread
    extent = low.min((0, 2)), high.max((0, 2))
    figure, axis, places = _sheet(extent, beats.shape[-1] / RATE_HZ, (title, note))
    for lead, place in places.items():
        for label, (color, width) in enumerate(zip(PAIR, (1.8, 1.0), strict=True)):
            named = f"{names[label]}, n = {groups[label].sum():,}" if lead == 0 else None
            look = {"color": color, "linewidth": width, "label": named}
            x, _ = _trace(axis, place, mean[label, lead], **look)
            band = [place[1] + edge[label, lead, ::3] * MM_PER_UV for edge in (low, high)]
            axis.fill_between(x[::3], *band, color=color, alpha=0.18, linewidth=0)
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, title="mean ± 1 SD"
    )
    return figure


def draw_recording(signal, rate, *, title="", note="") -> Figure:
    """Draw up to 10 s of a 12-lead recording (Fig. 4A): columns follow in time, lead II below.

    Parameters
    ----------
    signal, rate : array, float
        ``(12, samples)`` in µV, order of `ecglib.LEADS`, a missing lead all NaN; sampling rate in
        Hz.
    """
    signal = np.asarray(signal, dtype=np.float32)[:, : int(10 * rate)]
    samples = signal.shape[1]
    # an artefact may leave its row
    extent = np.percentile(np.nan_to_num(signal), [0.05, 99.95], axis=1)
    figure, axis, places = _sheet(extent, samples / rate / 4, (title, note), rhythm=True)
    for lead, place in places.items():
        first, last = (samples * (lead // 3 + k) // 4 for k in (0, 1))
        trace = signal[lead, first:last] if lead < 12 else signal[1]
        _trace(axis, place, trace, rate, color=INK, linewidth=0.7)
        if np.isnan(trace).all():
            axis.text(place[0] + 5, place[1], "missing", color=PAIR[1], va="center")
    return figure


def draw_labelled_beat(trace, spans, *, title="") -> Figure:
    """Draw lead II of one beat with its waves named (Fig. 1).

    Parameters
    ----------
    trace, spans : array, dict
        ``(samples,)`` in µV at 500 Hz; name → (first, last sample), of which those in `SPANS` have
        colours.
    """
    x = np.arange(len(trace)) * MM_PER_S / RATE_HZ
    y = np.asarray(trace, dtype=np.float32) * MM_PER_UV
    bottom, top = 5 * np.floor(y.min() / 5 - 0.5), 5 * np.ceil(y.max() / 5 + 1)
    figure, axis = _paper((5 * np.ceil(x[-1] / 5), bottom, top), (title, ""), 4)
    for number, (name, ends) in enumerate(spans.items()):
        first, last = np.array(ends) * MM_PER_S / RATE_HZ
        axis.axvspan(first, last, color=SPANS.get(name, "0.6"), alpha=0.3, linewidth=0)
        axis.text((first + last) / 2, top - 0.5 - 1.2 * (number % 2), name, ha="center", va="top")
    axis.plot([0, x[-1]], [0, 0], color="0.35", linewidth=1, linestyle="--")
    axis.text(0.3, -0.5, "isoelectric line", fontsize=9, color="0.35", va="top")
    axis.plot(x, y, color=INK, linewidth=1.8)
    axis.text(0.5, top - 0.5, "lead II", va="top", weight="bold")
    return figure


def draw_lead_directions() -> Figure:
    """Draw the leads' directions (Fig. 2), clockwise from the left; dashed: reciprocal."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
    for axis, (plane, (view, up, down, angles)) in zip(axes, PLANES.items(), strict=True):
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.7"))
        for lead, degrees in angles.items():
            x, y = np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))
            arrow = {"arrowstyle": "-|>", "color": PAIR[0], "linewidth": 1.8}
            axis.annotate("", (x, y), (0, 0), arrowprops=arrow)
            axis.plot([0, -x], [0, -y], color="0.7", linewidth=1, linestyle="--")
            name = f"{lead}\n{degrees}°".replace("-", "−")
            axis.text(1.17 * x, 1.17 * y, name, ha="center", va="center")
        for word, x, y in ((up, 0, 1.45), (down, 0, -1.45), ("right", -1.5, 0), ("left", 1.5, 0)):
            axis.text(x, y, word, ha="center", va="center", color="0.35", style="italic")
        axis.set(xlim=(-1.7, 1.7), ylim=(-1.6, 1.6), aspect="equal")
        axis.set_title(f"{plane} plane, seen from {view}")
        axis.set_axis_off()
    plt.close(figure)
    return figure


def _checked(name: str, array, samples: int | None = None) -> np.ndarray:
    """Return ``(12, k)`` as float32; k must divide `samples`."""
    array = np.asarray(array, dtype=np.float32)
    if array.ndim != 2 or len(array) != 12 or (samples and samples % array.shape[1]):
        needed = f"(12, {samples or 'samples'} or a part of it)"
        raise ValueError(f"{name} must be {needed} but is {array.shape}")
    return array


def _beat(beat, texts: tuple, figure, linewidth: float) -> tuple:
    """Draw a beat; returns figure, axis, and by lead the place and the trace, x and y in mm."""
    beat = _checked("beat", beat)
    extent = beat.min(1), beat.max(1)
    figure, axis, places = _sheet(extent, beat.shape[1] / RATE_HZ, texts, figure=figure)
    look = {"color": INK, "linewidth": linewidth}
    traces = {k: _trace(axis, place, beat[k], **look) for k, place in places.items()}
    return figure, axis, places, traces


def _trace(axis, place: tuple, values, rate: float = RATE_HZ, **look) -> tuple:
    """Draw values in µV as a line that begins at a `place`; returns x and y in mm."""
    x = place[0] + np.arange(len(values)) * MM_PER_S / rate
    y = place[1] + values * MM_PER_UV
    axis.plot(x, y, **look)
    return x, y


def _coloured_traces(traces, limits) -> LineCollection:
    """Traces (x, y, values) as one line for each run of one of 64 colours: keeps an SVG small."""
    runs, colours = [], []
    for x, y, values in traces:
        level = np.round(63 * (values - limits[0]) / max(limits[1] - limits[0], 1e-12)).astype(int)
        # runs end one sample later, to touch the next one
        starts = np.flatnonzero(np.diff(level, prepend=-1))
        runs += [
            np.column_stack([x, y])[a : b + 1]
            for a, b in zip(starts, [*starts[1:], len(x)], strict=True)
        ]
        colours.append(values[starts])
    lines = LineCollection(runs, cmap=SALIENCY_COLOURS, linewidths=2.6, capstyle="round", zorder=3)
    lines.set(array=np.concatenate(colours), clim=limits)
    return lines


def _sheet(extent, panel_s: float, texts: tuple, rhythm: bool = False, figure=None) -> tuple:
    """Lay out the leads by their `extent`, lowest and highest value of each in µV.

    Returns figure, axis, and the places: lead (12: rhythm strip) → x, y, bottom and top of its row.
    """
    low, high = np.clip(np.stack(extent) * MM_PER_UV, [[-30], [0]], [[0], [30]])[:, [*range(12), 1]]
    gap, scale = (0, 1) if rhythm else (5, 1.45)
    width, places, top = panel_s * MM_PER_S + gap, {}, 0.0
    for row in [range(0, 12, 3), range(1, 12, 3), range(2, 12, 3), [12]][: 3 + rhythm]:
        # 4 mm for the names; zero lies on a bold line
        y0 = top - 5 * np.ceil((max(high[row].max(), 8) + 4) / 5)
        bottom = y0 - 5 * np.ceil((1 - low[row].min()) / 5)
        places |= {lead: (10 + column * width, y0, bottom, top) for column, lead in enumerate(row)}
        top = bottom
    figure, axis = _paper((5 * np.ceil((10 + 4 * width) / 5), top, 0), texts, scale, figure)
    for lead, (x0, y0, _, above) in places.items():
        axis.text(x0 + 1, above - 1, [*LEADS, "II"][lead], va="top", weight="bold")
        if x0 == 10:  # calibration: 1 mV for 200 ms
            pulse = y0 + np.array([0, 0, 10, 10, 0, 0])
            axis.plot([1, 2, 2, 7, 7, 8], pulse, color=INK, linewidth=0.9)
    return figure, axis, dict(sorted(places.items()))


def _paper(size: tuple, texts: tuple, scale: float, figure=None) -> tuple:
    """Return a figure and an axis in mm with the grid of ECG paper.

    `size` is right, bottom, top; `texts` title and note; `scale` 1 prints at the paper's own size.
    """
    (right, bottom, top), (title, note) = size, texts
    inches = scale * right / 25.4 + 0.3, scale * (top - bottom) / 25.4 + 0.75
    figure = figure or plt.figure(figsize=inches, layout="constrained")
    axis = figure.subplots()
    for step, colour, width in ((1, SMALL, 0.4), (5, BOLD, 0.8)):
        lines = [((x, bottom), (x, top)) for x in np.arange(0, right + 0.1, step)]
        lines += [((0, y), (right, y)) for y in np.arange(bottom, top + 0.1, step)]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=0))
    axis.set(xlim=(0, right), ylim=(bottom, top), aspect="equal")
    axis.set(xticks=[], yticks=[], frame_on=False)
    axis.set_title(title, loc="left", parse_math=False)  # a file or a label may hold a $
    scales = f"25 mm/s, 10 mm/mV; small square 40 ms × 0.1 mV\n{note}".strip()
    axis.set_xlabel(scales, fontsize=9, loc="left", parse_math=False)
    plt.close(figure.figure)
    return figure, axis
