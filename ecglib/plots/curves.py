"""Learning, ROC, precision-recall, calibration and decision curves; forest plot and matrices.

Every function returns a matplotlib figure; ``note``, for which `Cohort.caption` is meant, is written under it and
names the kind of label.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve
from statsmodels.stats.proportion import proportion_confint

from ecglib import metrics
from ecglib.plots.tables import label_of, mean_sd

COLOURS = {  # Okabe and Ito's palette, told apart with any colour vision; one colour per model in every figure
    "ecg_smart_net": "#0072B2",
    "mayo_alvd": "#D55E00",
    "temporal_resnet18": "#009E73",
    "resnet18": "#CC79A7",
    "random_forest": "#E69F00",
    "test": "#0072B2",
    "validation": "#E69F00",
}
SPARE = ("#56B4E9", "#000000", "#8C6D31", "#7F7F7F", "#F0E442")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

PANELS = {
    "val_auc": "Validation AUC",
    "val_ap": "Validation AP",
    "val_loss": "Validation cross-entropy loss",
    "val_score": "Validation score",
}
"""Columns of ``history.csv`` in Fig. 5, panels A to D; the score is 2/3 AUC + 1/3 AP."""


def colours(names) -> dict[str, str]:
    """Colour of each model (by key or printed name) or split; unknown names take the spare colours in their order."""
    spare, keys = itertools.cycle(SPARE), {label_of(key): key for key in COLOURS}
    return {name: COLOURS[keys.get(name, name)] if keys.get(name, name) in COLOURS else next(spare) for name in names}


def _parts(predictions: pd.DataFrame, by: str):
    """Yield name, colour, line style, marker and rows of each value of the column `by`."""
    looks = zip(itertools.cycle(STYLES), itertools.cycle("osD^v"), strict=True)
    for (name, colour), (style, marker) in zip(colours(predictions[by].unique()).items(), looks, strict=False):
        yield name, colour, style, marker, predictions[predictions[by] == name]


def _finish(figure: Figure, note: str) -> Figure:
    """Write the note under the figure and close it, so that a notebook shows it once."""
    figure.text(0.01, -0.01, note, fontsize=9, color="0.3", va="top")
    plt.close(figure)
    return figure


def learning_curves(history: pd.DataFrame, note: str = "") -> Figure:
    """Fig. 5: validation AUC, AP, loss and score by epoch, mean ± 1 SD over rotations; a dot at the best mean score.

    Parameters
    ----------
    history : pandas.DataFrame
        ``model, rotation, epoch`` (from 1) and the columns of `PANELS`. A model's curve ends at the last epoch that
        all its rotations reached, so that no mean changes its members.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    for axis, letter, (column, title) in zip(axes.flat, "ABCD", PANELS.items(), strict=True):
        for model, colour in colours(history["model"].unique()).items():
            table = history[history["model"] == model].pivot_table(column, "epoch", "rotation").dropna()
            mean, sd = table.mean(axis=1), table.std(axis=1).fillna(0)
            axis.fill_between(mean.index, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)
            axis.plot(mean.index, mean, color=colour, lw=1.8, label=label_of(model))
            best = mean.idxmin() if column == "val_loss" else mean.idxmax()
            axis.plot(best, mean[best], "o", color=colour, ms=5, mec="white")
        axis.set(xlabel="Epoch", ylabel=title)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_title(letter, loc="left", fontweight="bold")
        axis.grid(alpha=0.3)
    lines, titles = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, titles, loc="outside upper center", ncols=3, fontsize=9, title="Mean ± 1 SD over rotations")
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


def roc_pr(predictions: pd.DataFrame, by: str = "model", note: str = "") -> Figure:
    """ROC and precision-recall curves: a thin line per rotation, their (vertical) mean and a band of ± 1 SD.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Of one split; or, with ``by="split"`` (Fig. 6), of one trained model.
    by : str
        Column that the colours stand for. With more than two, thin lines would hide the means and are left out.
    """
    count = predictions[by].nunique()
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 5.3 + 0.28 * count), layout="constrained")
    for axis, (curve, metric, short, x, y) in zip(axes, CURVES, strict=True):
        for name, colour, style, _, part in _parts(predictions, by):
            runs = [run for _, run in part.groupby(["model", "rotation"])]
            lines = np.array([curve(run) for run in runs])
            values = pd.Series([metric(run["label"], run["probability"]) for run in runs])
            mean, sd = lines.mean(axis=0), lines.std(axis=0, ddof=min(1, len(runs) - 1))
            axis.plot(GRID, mean, color=colour, lw=2, ls=style, label=f"{label_of(name)}: {short} {mean_sd(values)}")
            if len(runs) > 1:
                axis.fill_between(GRID, (mean - sd).clip(0), (mean + sd).clip(None, 1), color=colour, alpha=0.15, lw=0)
                if count <= 2:
                    axis.plot(GRID, lines.T, color=colour, lw=0.6, alpha=0.45)
        axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=x, ylabel=y)
    axes[0].plot([0, 1], [0, 1], color="0.5", lw=1, ls=":", label="By chance: AUC 0.500")
    for name, colour, *_, part in _parts(predictions, by) if by == "split" else [("all ECGs", "0.5", predictions)]:
        rate = part["label"].mean()
        axes[1].axhline(rate, color=colour, lw=1, ls=":", label=f"Prevalence, {name}: {rate:.3f}")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    return _finish(figure, note)


def calibration(predictions: pd.DataFrame, by: str = "model", bins: int = 10, note: str = "") -> Figure:
    """Observed share of positives by tenths of predicted probability, with 95 % Wilson intervals; a histogram below.

    The intervals take records as independent.
    """
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(5.6, 6.8), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    for name, colour, _, marker, part in _parts(predictions, by):
        tenth = pd.qcut(part["probability"], bins, labels=False, duplicates="drop")
        table = part.groupby(tenth.to_numpy()).agg(x=("probability", "mean"), y=("label", "mean"), n=("label", "size"))
        x, y, n = table.to_numpy().T
        low, high = proportion_confint(y * n, n, method="wilson")
        found = metrics.calibration(part["label"], part["probability"])
        told = f"{label_of(name)}: slope {found['slope']:.2f}, intercept {found['intercept']:+.2f}"
        top.errorbar(
            x, y, np.abs([y - low, high - y]), color=colour, marker=marker, ms=5, lw=1.2, capsize=2, label=told
        )
        bottom.hist(part["probability"], np.linspace(0, 1, 41), histtype="step", color=colour, lw=1.5)
    top.plot([0, 1], [0, 1], color="0.5", lw=1, ls=":", label="Perfect calibration")
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed share of positives")
    bottom.set(xlabel="Predicted probability", ylabel="ECGs", yscale="log")
    top.legend(fontsize=8, loc="upper left")
    top.grid(alpha=0.3)
    return _finish(figure, note)


def decision_curve(predictions: pd.DataFrame, by: str = "model", highest: float = 0.6, note: str = "") -> Figure:
    """Net benefit by threshold probability, beside calling every ECG and calling none."""
    figure, axis = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    threshold = np.linspace(0.005, highest, 120)
    for name, colour, style, _, part in _parts(predictions, by):
        benefit = metrics.net_benefit(part["label"], part["probability"], threshold)
        axis.plot(threshold, benefit, color=colour, ls=style, lw=1.8, label=label_of(name))
    rate = predictions["label"].mean()
    axis.plot(threshold, rate - (1 - rate) * threshold / (1 - threshold), color="0.45", lw=1.2, label="Call every ECG")
    axis.axhline(0, color="black", lw=1.2, label="Call none")
    axis.set(xlim=(0, highest), ylim=(-0.3 * rate, 1.05 * rate))
    axis.set(xlabel="Threshold probability", ylabel="Net benefit (true positives per ECG)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _finish(figure, note)


def forest(table: pd.DataFrame, metric: str, overall: float | None = None, note: str = "") -> Figure:
    """Estimates and 95 % intervals of `ecglib.statistics.subgroups`, with counts; "too few" where it says nothing."""
    rows = []
    for group, part in table.groupby("group", sort=False):
        rows += [(group, None), *((f"   {row.level}", row) for row in part.itertuples())]
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.3 * len(rows)), layout="constrained")
    beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
    for y, (text, row) in enumerate(rows):
        axis.text(-0.75, y, text, weight="normal" if row else "bold", **beside)
        if row:
            counts = f"{row.positives} of {row.records} ECGs, {row.patients} patients"
            axis.text(-0.02, y, counts, ha="right", fontsize=9, **beside)
            told = "too few"
            if not np.isnan(row.estimate):
                axis.plot([row.low, row.high], [y, y], "-|", color=COLOURS["test"], lw=1.5, ms=7)
                axis.plot(row.estimate, y, "s", color=COLOURS["test"], ms=5)
                told = f"{row.estimate:.3f} [{row.low:.3f}–{row.high:.3f}]"
            axis.text(1.02, y, told, fontsize=9, **beside)
    if overall is not None:
        axis.axvline(overall, color="0.5", ls=":", lw=1)
    axis.set(ylim=(len(rows) - 0.5, -0.7), yticks=[], xlabel=f"{metric} with 95 % interval")
    axis.grid(alpha=0.3, axis="x")
    return _finish(figure, note)


def difference_matrix(table: pd.DataFrame, metric: str, title: str, note: str = "") -> Figure:
    """Paired differences, row − column, of `ecglib.statistics.differences`; bold where Holm's p is below 0.05."""
    table = table[table["metric"] == metric]
    models = list(dict.fromkeys([*table["a"], *table["b"]]))
    matrix = np.full((len(models), len(models)), np.nan)
    figure, axis = plt.subplots(figsize=(2 + 1.25 * len(models), 1.2 + 0.75 * len(models)), layout="constrained")
    for row in table.itertuples():
        i, j = models.index(row.a), models.index(row.b)
        matrix[i, j], matrix[j, i] = row.estimate, -row.estimate
        for x, y, sign, low, high in ((j, i, 1, row.low, row.high), (i, j, -1, -row.high, -row.low)):
            told = f"{sign * row.estimate:+.3f}\n[{low:+.3f}, {high:+.3f}]\np = {row.p_holm:.3f}"
            weight = "bold" if row.p_holm < 0.05 else "normal"
            axis.text(x, y, told.replace("-", "−"), ha="center", va="center", fontsize=8.5, weight=weight)
    reach = max(np.nanmax(np.abs(matrix), initial=0), 1e-3) * 1.6  # pale enough for black text
    axis.imshow(matrix, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    names = [label_of(model).replace(" (", "\n(") for model in models]
    axis.set(xticks=range(len(models)), yticks=range(len(models)), yticklabels=names, title=title)
    axis.set_xticks(range(len(models)), names, rotation=20, ha="right")
    return _finish(figure, note)


def confusion_matrices(counts: dict[str, dict], note: str = "") -> Figure:
    """Confusion matrices by title, from `ecglib.metrics.at_threshold`: counts, and shares of the true class."""
    figure, axes = plt.subplots(1, len(counts), figsize=(3.4 * len(counts), 3.4), layout="constrained", squeeze=False)
    for axis, (title, of) in zip(axes.flat, counts.items(), strict=True):
        cells = np.array([[of["tp"], of["fn"]], [of["fp"], of["tn"]]], dtype=float)
        share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1.8)
        for (i, j), count in np.ndenumerate(cells):
            axis.text(j, i, f"{count:.0f}\n{share[i, j]:.1%}", ha="center", va="center", fontsize=12)
        axis.set(title=title, xlabel="Called", ylabel="True label", xticks=(0, 1), yticks=(0, 1))
        axis.set(xticklabels=("positive", "negative"), yticklabels=("positive", "negative"))
    return _finish(figure, note)
