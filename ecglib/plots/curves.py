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

from ecglib import metrics
from ecglib.plots.tables import label_of

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
STYLES = ("-", "--", "-.", ":")

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


def _finish(figure: Figure, note: str) -> Figure:
    """Write the note under the figure and close it, so that a notebook shows it once."""
    if note:
        figure.supxlabel(note, fontsize=8, color="0.35", x=0.02, ha="left")
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
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
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


def roc_pr(predictions: pd.DataFrame, by: str = "model", note: str = "", axes=None) -> Figure:
    """ROC and precision-recall curves: a thin line per rotation, their mean and a band of ± 1 SD.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Of one split; or, with ``by="split"`` (Fig. 6), of one model.
    by : {'model', 'split'}
        What the colours stand for.
    axes : pair of axes, optional
        Where to draw; by default a new figure.

    Notes
    -----
    Curves are averaged vertically. Thin lines are drawn for up to two colours: with more, they hide the means.
    """
    figure = (
        plt.figure(figsize=(9.6, 4.8 + 0.22 * predictions[by].nunique()), layout="constrained")
        if axes is None
        else axes[0].figure
    )
    axes = figure.subplots(1, 2) if axes is None else axes
    names = colours(predictions[by].unique())
    for axis, curve, metric, short in zip(
        axes, (_roc, _pr), (metrics.auc, metrics.average_precision), ("AUC", "AP"), strict=True
    ):
        for (name, colour), style in zip(names.items(), itertools.cycle(STYLES), strict=False):
            runs = [run for _, run in predictions[predictions[by] == name].groupby(["model", "rotation"])]
            lines = np.array([curve(run) for run in runs])
            values = np.array([metric(run["label"], run["probability"]) for run in runs])
            mean, sd = lines.mean(axis=0), lines.std(axis=0, ddof=min(1, len(runs) - 1))
            if len(runs) > 1 and len(names) <= 2:
                axis.plot(GRID, lines.T, color=colour, lw=0.6, alpha=0.45)
            if len(runs) > 1:
                axis.fill_between(GRID, (mean - sd).clip(0), (mean + sd).clip(None, 1), color=colour, alpha=0.15, lw=0)
            told = f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(runs) > 1 else "")
            axis.plot(GRID, mean, color=colour, lw=2, ls=style, label=f"{label_of(name)}: {short} {told}")
        axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        axis.grid(alpha=0.3)
    axes[0].plot([0, 1], [0, 1], color="0.5", lw=1, ls=":")
    axes[0].set(xlabel="1 − specificity", ylabel="Sensitivity")
    for name, colour in names.items() if by == "split" else [("", "0.5")]:
        rate = predictions[predictions[by] == name]["label"].mean() if name else predictions["label"].mean()
        axes[1].axhline(rate, color=colour, lw=1, ls=":", label=f"Prevalence{name and f' ({name})'}: {rate:.3f}")
    axes[1].set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
    for axis in axes:
        axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    return _finish(figure, note)
