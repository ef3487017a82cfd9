"""ECGs as clinicians know them: on pink paper, 25 mm/s and 10 mm/mV, small squares of 40 ms × 0.1
mV.

Everything is drawn in millimetres of that paper on one axis with equal aspect. Every function
returns a closed figure: end a notebook's cell with it to show it.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ecglib.analysis.saliency import segments_of
from ecglib.beat import LEADS, RATE_HZ
from ecglib.dataset import CROP
from ecglib.plots import PAIR
from ecglib.signal import fiducials

MM_PER_S, MM_PER_UV = 25, 10 / 1000
SEEN = CROP.stop - CROP.start  # samples that a network sees
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
        that a network sees, which are 150 to 550 of a stored beat or all of a beat of 400. The
        colour scale spans its range.
    saliency_label : str
        Beside the colour bar.
    points : dict, optional
        Fiducial points, name → sample of `beat` (NaN is left out), drawn as dashed lines in every
        lead.
    **page
        ``title`` above the paper, ``note`` below it, and ``figure``, a part of a page
        (`matplotlib.figure.SubFigure`) to draw in instead of a figure of its own.

    Raises
    ------
    ValueError
        If a shape does not fit.
    """
    beat = np.asarray(beat, dtype=np.float32)
    saliency = None if saliency is None else np.asarray(saliency, dtype=np.float32)
    for name, array, samples in (("beat", beat, None), ("saliency", saliency, SEEN)):
        if array is not None and (
            array.ndim != 2 or len(array) != 12 or (samples and samples % array.shape[1])
        ):
            raise ValueError(
                f"{name} must be (12, {samples or 'samples'} or a part of it) but is {array.shape}"
            )
    figure, axis, places = _sheet(beat.min(1), beat.max(1), beat.shape[1] / RATE_HZ, **page)
    coloured, seen = [], CROP if beat.shape[1] > SEEN else slice(SEEN)
    for lead, (x0, y0, *row) in places.items():
        x, y = x0 + _mm(beat.shape[1]), y0 + beat[lead] * MM_PER_UV
        axis.plot(x, y, color=INK, linewidth=0.9 if saliency is None else 0.5)
        if saliency is not None:
            values = np.repeat(saliency[lead], SEEN // saliency.shape[1])
            coloured.append((x[seen], y[seen], values))
        for number, (name, sample) in enumerate((points or {}).items()):
            if np.isfinite(sample):
                told = name if lead % 3 == 0 else ""  # named in the upper row
                _mark(axis, x0 + sample * MM_PER_S / RATE_HZ, row, number, told)
    if saliency is not None:
        lines = axis.add_collection(_coloured_traces(coloured, (saliency.min(), saliency.max())))
        figure.colorbar(lines, ax=axis, fraction=0.025, pad=0.01, shrink=0.7, label=saliency_label)
    return figure


def browse(cohort, show, slider: bool) -> None:
    """Page through the median beats of a cohort with a slider; without it, `show` the first one."""

    def turn_to(record):
        row = cohort.records.iloc[record]
        told = f"{row.record_id} · {row.sex}, {row.age:.0f} y · label {row.label}"
        title = f"{told} · {row.quality_reasons or 'good quality'}"
        caption = f"Median beat of record {row.record_id}; this record: {row.label}."
        show(draw_beat(cohort.beats[record], title=title), caption=caption)

    if slider:
        import ipywidgets  # where pages are only read it may be absent

        ipywidgets.interact(turn_to, record=ipywidgets.IntSlider(max=len(cohort.records) - 1))
    else:
        turn_to(0)


def draw_mean_beats(beats, labels, names=("label 0", "label 1")) -> Figure:
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
    figure, axis, places = _sheet(low.min((0, 2)), high.max((0, 2)), beats.shape[-1] / RATE_HZ)
    for lead, (x0, y0, *_) in places.items():
        x = x0 + _mm(beats.shape[-1])
        for label, (colour, width) in enumerate(zip(PAIR, (1.8, 1.0), strict=True)):
            told = f"{names[label]}, n = {groups[label].sum():,}" if lead == 0 else None
            y = y0 + mean[label, lead] * MM_PER_UV
            axis.plot(x, y, color=colour, linewidth=width, label=told)
            band = [y0 + edge[label, lead, ::3] * MM_PER_UV for edge in (low, high)]
            axis.fill_between(x[::3], *band, color=colour, alpha=0.18, linewidth=0)
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, title="mean ± 1 SD"
    )
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
    samples = signal.shape[1]
    # an artefact may leave its row
    low, high = np.percentile(np.nan_to_num(signal), [0.05, 99.95], axis=1)
    figure, axis, places = _sheet(low, high, samples / rate / 4, rhythm=True, title=title)
    for lead, (x0, y0, *_) in places.items():
        column, trace = lead // 3, signal[lead if lead < 12 else LEADS.index("II")]
        if lead < 12:
            trace = trace[samples * column // 4 : samples * (column + 1) // 4]
        y = y0 + trace * MM_PER_UV
        axis.plot(x0 + _mm(len(trace), rate), y, color=INK, linewidth=0.7)
        if np.isnan(trace).all():
            axis.text(x0 + 5, y0, "missing", color=PAIR[1], va="center")
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
    good = np.flatnonzero((records.label == 0) & ~records.poor_quality)
    if "rr_ms" in records:
        good = good[records.rr_ms.iloc[good].between(800, 950)]
    found = fiducials.find(np.asarray(beats[good])) if len(good) else None
    if found is None or not len(good := good[kept := np.isfinite(found.points).all(axis=1)]):
        return np.flatnonzero(records.label == 0)
    lead = np.asarray(beats[good][:, LEADS.index("II")], dtype=np.float32)
    p, t = (lead[range(len(good)), found[name][kept].astype(int)] for name in ("p_peak", "t_peak"))
    return good[(lead.max(1) > 700) & (lead.max(1) > -3 * lead.min(1)) & (p > 60) & (t > 150)]


def draw_waves(beat, title="") -> Figure:
    """Draw lead II of a beat, ``(12, 600)`` in µV, with its waves named (Fig. 1), from the fiducial
    points found in it.
    """
    points = fiducials.find(np.asarray(beat)[None]).points
    x, y = _mm(beat.shape[-1]), beat[LEADS.index("II")] * MM_PER_UV
    bottom, top = 5 * np.floor(y.min() / 5 - 0.5), 5 * np.ceil(y.max() / 5 + 1)
    extent = 5 * np.ceil(x[-1] / 5), bottom, top
    figure, axis = _paper(extent, 4, title=title)
    segments = segments_of(points)
    for number, (name, colour) in enumerate(SPANS.items()):
        inside = x[CROP][segments[name.split()[0]][0]]
        if len(inside):
            axis.axvspan(inside[0], inside[-1], color=colour, alpha=0.3, linewidth=0)
            middle, height = inside[[0, -1]].mean(), top - 0.5 - 1.2 * (number % 2)
            axis.text(middle, height, name, ha="center", va="top")
    axis.plot([0, x[-1]], [0, 0], color="0.35", linewidth=1, linestyle="--")
    axis.text(0.3, -0.5, "isoelectric line", fontsize=9, color="0.35", va="top")
    axis.plot(x, y, color=INK, linewidth=1.8)
    axis.text(0.5, top - 0.5, "lead II", va="top", weight="bold")
    return figure


def draw_lead_directions() -> Figure:
    """Draw the leads' nominal directions (Fig. 2), clockwise from the patient's left; dashed: the
    reciprocal ones.
    """
    planes = {
        ("Frontal plane, seen from the front", "head", "feet"): (
            {"I": 0, "II": 60, "aVF": 90, "III": 120, "aVR": -150, "aVL": -30}
        ),
        ("Horizontal plane, seen from above", "back", "chest"): (
            {"V1": 115, "V2": 95, "V3": 75, "V4": 55, "V5": 25, "V6": 0}
        ),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
    for axis, ((title, up, down), angles) in zip(axes, planes.items(), strict=True):
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.7"))
        for lead, degrees in angles.items():
            x, y = np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))
            arrow = {"arrowstyle": "-|>", "color": PAIR[0], "linewidth": 1.8}
            axis.annotate("", (x, y), (0, 0), arrowprops=arrow)
            axis.plot([0, -x], [0, -y], color="0.7", linewidth=1, linestyle="--")
            told = f"{lead}\n{degrees}°".replace("-", "−")
            axis.text(1.17 * x, 1.17 * y, told, ha="center", va="center")
        for word, x, y in ((up, 0, 1.45), (down, 0, -1.45), ("right", -1.5, 0), ("left", 1.5, 0)):
            axis.text(x, y, word, ha="center", va="center", color="0.35", style="italic")
        axis.set(title=title, xlim=(-1.7, 1.7), ylim=(-1.6, 1.6), aspect="equal")
        axis.set_axis_off()
    plt.close(figure)
    return figure


def _mm(samples: int, rate: float = RATE_HZ) -> np.ndarray:
    """Places of samples on the paper."""
    return np.arange(samples) * MM_PER_S / rate


def _mark(axis, x, row, number, name) -> None:
    """Draw the dashed line of a fiducial point from bottom to top of a row; names stand in two
    heights.
    """
    low, high = row
    style = {"color": PAIR[0], "linewidth": 0.7, "linestyle": (0, (3, 2))}
    axis.plot([x, x], [low + 1, high - 5], **style)
    height = high - 1 - 2 * (number % 2)
    axis.text(x, height, name, fontsize=6, ha="center", va="top", color=PAIR[0])


def _coloured_traces(traces, limits) -> LineCollection:
    """Return traces (x, y, values) as one line for each run of equal colour (64 of them), which
    keeps an SVG small.
    """
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


def _sheet(low, high, panel_s, rhythm=False, **page):
    """Lay out the leads by their extents in µV, with a rhythm strip at the paper's own size;
    places: lead (12: rhythm strip) → x, y, bottom and top of its row.
    """
    low, high = np.clip(np.stack([low, high]) * MM_PER_UV, [[-30], [0]], [[0], [30]])[
        :, [*range(12), 1]
    ]
    gap, scale = (0, 1) if rhythm else (5, 1.45)
    width, places, top = panel_s * MM_PER_S + gap, {}, 0.0
    for row in [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11], [12]][: 3 + rhythm]:
        # 4 mm for the names; zero lies on a bold line
        y0 = top - 5 * np.ceil((max(high[row].max(), 8) + 4) / 5)
        bottom = y0 - 5 * np.ceil((1 - low[row].min()) / 5)
        places |= {lead: (10 + column * width, y0, bottom, top) for column, lead in enumerate(row)}
        top = bottom
    figure, axis = _paper((5 * np.ceil((10 + 4 * width) / 5), top, 0), scale, **page)
    for lead, (x0, y0, _, above) in places.items():
        axis.text(x0 + 1, above - 1, [*LEADS, "II"][lead], va="top", weight="bold")
        if x0 == 10:  # calibration: 1 mV for 200 ms
            pulse = y0 + np.array([0, 0, 10, 10, 0, 0])
            axis.plot([1, 2, 2, 7, 7, 8], pulse, color=INK, linewidth=0.9)
    return figure, axis, dict(sorted(places.items()))


def _paper(extent, scale, title="", note="", figure=None):
    """Return a figure and an axis in mm with the grid of ECG paper; `extent` is right, bottom and
    top, `scale` 1 prints at the paper's own size.
    """
    right, bottom, top = extent
    size = scale * right / 25.4 + 0.3, scale * (top - bottom) / 25.4 + 0.75
    figure = figure or plt.figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for step, colour, width in ((1, SMALL, 0.4), (5, BOLD, 0.8)):
        lines = [((x, bottom), (x, top)) for x in np.arange(0, right + 0.1, step)]
        lines += [((0, y), (right, y)) for y in np.arange(bottom, top + 0.1, step)]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=0))
    limits = {"xlim": (0, right), "ylim": (bottom, top)}
    axis.set(**limits, aspect="equal", xticks=[], yticks=[], frame_on=False)
    axis.set_title(title, loc="left", parse_math=False)  # a file or a label may hold a $
    told = f"25 mm/s, 10 mm/mV; small square 40 ms × 0.1 mV\n{note}".strip()
    axis.set_xlabel(told, fontsize=9, loc="left", parse_math=False)
    plt.close(figure.figure)
    return figure, axis
