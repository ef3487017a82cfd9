"""Learning, ROC, precision-recall, calibration and decision curves; forest plot and matrices.

Every function returns a matplotlib figure, narrow enough to be read on a small screen; ``note``,
for which `Cohort.caption` is meant, is written under it and names the kind of label; ``names`` are
those of `Runs.labels`.
"""

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from ecglib import metrics
from ecglib.analysis.tables import interval_text, label_of, mean_sd, p_text
from ecglib.plots import NEUTRAL

# Okabe and Ito's palette, told apart with any colour vision; one colour per model in every figure.
COLOURS = {
    "ecg_smart_net": "#0072B2",
    "mayo_alvd": "#D55E00",
    "temporal_resnet18": "#009E73",
    "resnet18": "#CC79A7",
}
COLOURS |= {"random_forest": "#E69F00", "gradient_boosting": "#56B4E9"}
COLOURS |= {"test": "#0072B2", "validation": "#E69F00"}
COLOURS |= {"as trained": "#D55E00", "recalibrated on validation": "#0072B2"}
SPARE = ("#000000", "#8C6D31", "#7F7F7F", "#F0E442")
WIDTH = 6.4  # inches: 9-point text is still legible when a phone or a column of print halves it
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

PANELS = {
    "val_auc": "Validation AUC",
    "val_ap": "Validation AP",
    "val_loss": "Validation cross-entropy loss",
    "val_score": "Validation score",
}
"""Columns of ``history.csv`` in Fig. 5, panels A to D; the score is 2/3 AUC + 1/3 AP."""


def colours(names) -> dict[str, str]:
    """Colour of each model (by key or printed name) or split; unknown names take the spare colours
    in their order.
    """
    spare, keys = itertools.cycle(SPARE), {label_of(key): key for key in COLOURS}
    return {
        name: COLOURS[keys.get(name, name)] if keys.get(name, name) in COLOURS else next(spare)
        for name in names
    }


def _parts(predictions: pd.DataFrame, by: str, names: dict | None):
    """Yield printed name, colour, line style, marker and rows of each value of the column `by`.

    With `names`, a model looks the same in every figure of the study, whichever others are in it.
    """
    found = predictions[by].unique()
    palette = colours(dict.fromkeys([*(names or ()), *found]))
    for place, (value, colour) in enumerate(palette.items()):
        if value in found:
            look = STYLES[place % len(STYLES)], "osD^v"[place % 5]
            yield label_of(value, names), colour, *look, predictions[predictions[by] == value]


def _finish(figure: Figure, note: str) -> Figure:
    """Write the note under the figure and close it, so that a notebook shows it once."""
    told = "\n".join(textwrap.wrap(note, int(15 * figure.get_figwidth())))
    figure.text(0.01, -0.12 / figure.get_figheight(), told, fontsize=9, color="0.3", va="top")
    plt.close(figure)
    return figure


def learning_curves(history: pd.DataFrame, note: str = "", names: dict | None = None) -> Figure:
    """Fig. 5: validation AUC, AP, loss and score by epoch, mean ± 1 SD over rotations; a dot at the
    best mean score.

    Parameters
    ----------
    history : pandas.DataFrame
        ``model, rotation, epoch`` (from 1) and the columns of `PANELS`. A model's curve ends at the
        last epoch that all its rotations reached, so that no mean changes its members.
    """
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.6), layout="constrained")
    for axis, letter, (column, title) in zip(axes.flat, "ABCD", PANELS.items(), strict=True):
        for model, colour, style, _, runs in _parts(history, "model", names):
            table = runs.pivot_table(column, "epoch", "rotation").dropna()
            mean, sd = table.mean(axis=1), table.std(axis=1).fillna(0)
            axis.fill_between(mean.index, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)
            axis.plot(mean.index, mean, color=colour, ls=style, lw=1.8, label=model)
            best = mean.idxmin() if column == "val_loss" else mean.idxmax()
            axis.plot(best, mean[best], "o", color=colour, ms=5, mec="white")
        axis.set(xlabel="Epoch", ylabel=title)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_title(letter, loc="left", fontweight="bold")
        axis.grid(alpha=0.3)
    lines, titles = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        lines,
        titles,
        loc="outside upper center",
        ncols=2,
        fontsize=9,
        title="Mean ± 1 SD over rotations",
    )
    return _finish(figure, note)


GRID = np.linspace(0, 1, 201)


def _roc(run: pd.DataFrame) -> np.ndarray:
    """Sensitivity on `GRID` of 1 − specificity."""
    fpr, tpr, _ = roc_curve(run["label"], run["probability"], drop_intermediate=False)
    return np.concatenate([[0], np.interp(GRID[1:], fpr, tpr)])


def _pr(run: pd.DataFrame) -> np.ndarray:
    """Precision on `GRID` of recall, in the steps whose area is the average precision."""
    precision, recall, _ = precision_recall_curve(run["label"], run["probability"])
    recall, precision = recall[::-1], precision[::-1]  # from recall 0 upwards
    return precision[np.clip(np.searchsorted(recall, GRID, side="left"), 1, None)]


CURVES = (  # curve, metric, its short name, name of the x axis, name of the y axis
    (_roc, metrics.auc, "AUC", "1 − specificity", "Sensitivity"),
    (_pr, metrics.average_precision, "AP", "Recall (sensitivity)", "Precision (PPV)"),
)


def roc_pr(
    predictions: pd.DataFrame, by: str = "model", note: str = "", names: dict | None = None
) -> Figure:
    """ROC and precision-recall curves: a thin line per rotation, their (vertical) mean and a band
    of ± 1 SD.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Of one split; or, with ``by="split"`` (Fig. 6), of one trained model.
    by : str
        Column that the colours stand for. With more than two, thin lines would hide the means and
        are left out.
    """
    count, lines, told = predictions[by].nunique(), {}, {}
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH, 3.8 + 0.17 * count * (1 + (by == "split"))), layout="constrained"
    )
    for axis, (curve, metric, short, x, y) in zip(axes, CURVES, strict=True):
        for name, colour, style, _, part in _parts(predictions, by, names):
            runs = [run for _, run in part.groupby(["model", "rotation"])]
            each = np.array([curve(run) for run in runs])
            values = pd.Series([metric(run["label"], run["probability"]) for run in runs])
            mean, sd = each.mean(axis=0), each.std(axis=0, ddof=min(1, len(runs) - 1))
            told.setdefault(name, []).append(f"{short} {mean_sd(values)}")
            lines[name] = axis.plot(GRID, mean, color=colour, lw=2, ls=style, label=name)[0]
            if len(runs) > 1:
                axis.fill_between(
                    GRID,
                    (mean - sd).clip(0),
                    (mean + sd).clip(None, 1),
                    color=colour,
                    alpha=0.15,
                    lw=0,
                )
                if count <= 2:
                    axis.plot(GRID, each.T, color=colour, lw=0.6, alpha=0.45)
        axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=x, ylabel=y)
        axis.grid(alpha=0.3)
    lines["Chance"], told["Chance"] = (
        axes[0].plot([0, 1], [0, 1], color="0.5", lw=1, ls=":")[0],
        ["AUC 0.500"],
    )
    shares = _parts(predictions, by, names) if by == "split" else [("", "0.3", "", "", predictions)]
    for name, colour, *_, part in shares:
        rate, name = part["label"].mean(), f"Prevalence{name and ', '}{name}"
        lines[name], told[name] = (
            axes[1].axhline(rate, color=colour, lw=1.2, ls="-."),
            [f"{rate:.3f}"],
        )
    legend = [f"{name}: {', '.join(values)}" for name, values in told.items()]
    figure.legend(lines.values(), legend, loc="outside upper center", fontsize=9)
    return _finish(figure, note)


def calibration(
    predictions: pd.DataFrame, by: str = "model", note: str = "", names: dict | None = None
) -> Figure:
    """Observed share of positives by tenths of predicted probability, with 95 % Wilson intervals; a
    histogram below.

    Fewer than ten parts where they would hold under 30 records. The intervals take records as
    independent.
    """
    shape = {"figsize": (5.2, 6.4), "height_ratios": (3, 1), "sharex": True}
    figure, (top, bottom) = plt.subplots(2, 1, **shape, layout="constrained")
    for name, colour, _, marker, part in _parts(predictions, by, names):
        tenth = pd.qcut(
            part["probability"], max(2, min(10, len(part) // 30)), labels=False, duplicates="drop"
        )
        table = part.groupby(tenth.to_numpy()).agg(
            x=("probability", "mean"), y=("label", "mean"), n=("label", "size")
        )
        x, y, n = table.to_numpy().T
        low, high = proportion_confint(y * n, n, method="wilson")
        found = metrics.calibration(part["label"], part["probability"])
        told = f"{name}: slope {found['slope']:.2f}, intercept {found['intercept']:+.2f}"
        reach = np.abs([y - low, high - y])
        top.errorbar(x, y, reach, color=colour, marker=marker, ms=5, lw=1.2, capsize=2, label=told)
        bottom.hist(
            part["probability"], np.linspace(0, 1, 41), histtype="step", color=colour, lw=1.5
        )
    top.plot([0, 1], [0, 1], color="0.5", lw=1, ls=":", label="Perfect calibration")
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed share of positives")
    bottom.set(xlabel="Predicted probability", ylabel="ECGs", yscale="log")
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", fontsize=9)
    top.grid(alpha=0.3)
    return _finish(figure, note)


def decision_curve(
    predictions: pd.DataFrame, by: str = "model", note: str = "", names: dict | None = None
) -> Figure:
    """Net benefit by threshold probability, beside calling every ECG and calling none."""
    figure, axis = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    threshold = np.linspace(0.005, 0.6, 120)
    for name, colour, style, _, part in _parts(predictions, by, names):
        benefit = metrics.net_benefit(part["label"], part["probability"], threshold)
        axis.plot(threshold, benefit, color=colour, ls=style, lw=1.8, label=name)
    rate = predictions["label"].mean()
    axis.plot(
        threshold,
        rate - (1 - rate) * threshold / (1 - threshold),
        color="0.45",
        lw=1.2,
        label="Call every ECG",
    )
    axis.axhline(0, color="black", lw=1.2, label="Call none")
    axis.set(xlim=(0, 0.6), ylim=(-0.3 * rate, 1.05 * rate))
    axis.set(xlabel="Threshold probability", ylabel="Net benefit (true positives per ECG)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _finish(figure, note)


def forest(
    table: pd.DataFrame, metric: str, overall: float | None = None, note: str = ""
) -> Figure:
    """Estimates and 95 % intervals of `ecglib.analysis.subgroups.estimate`, with counts; "too few"
    where it says nothing.

    `overall` is the value of all test records, drawn as a dotted line.
    """
    rows = []
    for group, part in table.groupby("group", sort=False):
        rows += [(group, None), *((f"   {row.level}", row) for row in part.itertuples())]
    figure = plt.figure(figsize=(WIDTH, 1 + 0.22 * len(rows)))
    axis = figure.add_axes(
        (0.45, 0.5 / figure.get_figheight(), 0.28, 1 - 0.5 / figure.get_figheight())
    )
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 9}
    axis.text(-0.06, -1, "positives / ECGs", ha="right", **beside)
    axis.text(1.06, -1, f"{metric} [95 %]", **beside)
    for y, (text, row) in enumerate(rows):
        axis.text(-1.6, y, text, weight="normal" if row else "bold", **beside)
        if row:
            axis.text(-0.06, y, f"{row.positives} / {row.records}", ha="right", **beside)
            if not np.isnan(row.estimate):
                axis.plot([row.low, row.high], [y, y], "-|", color=COLOURS["test"], lw=1.5, ms=7)
                axis.plot(row.estimate, y, "s", color=COLOURS["test"], ms=5)
            few = np.isnan(row.estimate)
            axis.text(
                1.06,
                y,
                "too few" if few else interval_text(row.estimate, row.low, row.high),
                **beside,
            )
    if overall is not None:
        axis.axvline(overall, color="0.5", ls=":", lw=1)
    axis.set(ylim=(len(rows) - 0.5, -1.6), yticks=[], xlabel=metric)
    axis.grid(alpha=0.3, axis="x")
    return _finish(figure, note)


def difference_matrix(
    table: pd.DataFrame, metric: str, title: str, note: str = "", names=None
) -> Figure:
    """Paired differences, row − column, of `ecglib.analysis.inference.differences` and Holm's p;
    bold where it is below 0.05.

    The columns are the rows' models, by number; intervals are for a table.
    """
    table = table[table["metric"] == metric]
    models = list(dict.fromkeys([*table["a"], *table["b"]]))
    matrix, size = np.full((len(models), len(models)), np.nan), len(models)
    figure, axis = plt.subplots(figsize=(2.2 + 0.72 * size, 0.9 + 0.5 * size), layout="constrained")
    for row in table.itertuples():
        i, j = models.index(row.a), models.index(row.b)
        matrix[i, j], matrix[j, i] = row.estimate, -row.estimate
        for x, y, gap in ((j, i, row.estimate), (i, j, -row.estimate)):
            p = f"p = {p_text(row.p_holm)}".replace("= <", "<")
            weight = "bold" if row.p_holm < 0.05 else "normal"
            told = f"{gap:+.3f}".replace("-", "−") + f"\n{p}"
            axis.text(x, y, told, ha="center", va="center", fontsize=9, weight=weight)
    reach = max(np.nanmax(np.abs(matrix), initial=0), 1e-3) * 1.6  # pale enough for black text
    axis.imshow(matrix, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    rows = [
        f"{textwrap.fill(label_of(model, names), 22)}  {place}"
        for place, model in enumerate(models, 1)
    ]
    axis.set(xticks=range(size), yticks=range(size), xticklabels=range(1, size + 1))
    axis.set_yticks(range(size), rows, fontsize=9)
    axis.set_title(f"{title}: row − column", loc="left", fontsize=10, x=0)
    return _finish(figure, note)


def confusion_matrices(counts: dict[str, dict], note: str = "") -> Figure:
    """Confusion matrices by title, from `ecglib.metrics.at_threshold`: counts, and shares of the
    true class.
    """
    size = 0.4 + 2 * len(counts), 2.6
    figure, axes = plt.subplots(1, len(counts), figsize=size, layout="constrained", squeeze=False)
    for axis, (title, of) in zip(axes.flat, counts.items(), strict=True):
        cells = np.array([[of["tp"], of["fn"]], [of["fp"], of["tn"]]], dtype=float)
        share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1.8)
        for (i, j), count in np.ndenumerate(cells):
            axis.text(
                j, i, f"{count:.0f}\n{share[i, j]:.1%}", ha="center", va="center", fontsize=11
            )
        axis.set_title(title, fontsize=10)
        axis.set(
            xlabel="Called", xticks=(0, 1), yticks=(0, 1), xticklabels=("positive", "negative")
        )
        axis.set_yticks((0, 1), ("positive", "negative"), rotation=90, va="center")
    for axis in axes[0, 1:]:
        axis.set_yticklabels([])
    axes[0, 0].set_ylabel("True label")
    return _finish(figure, note)


def draw_fold_prevalence(shape: pd.DataFrame) -> Figure:
    """Share of positive patients of each fold (`ecglib.folds.describe_folds`); dashed: of all."""
    figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    share = shape["positive patients (%)"]
    sns.barplot(x=shape.index, y=share, color=NEUTRAL, ax=axis)
    overall = np.average(share, weights=shape.patients)
    axis.axhline(overall, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="fold", ylabel="positive patients (%)", title="Share of positive patients")
    return figure
