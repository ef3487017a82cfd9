"""Figures of the trees on engineered features."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.plots import NEUTRAL, PAIR


def draw_intervals(bounds: pd.DataFrame, paper: dict[str, float]) -> Figure:
    """AUC and average precision of each model with their intervals; dashed: the `paper`'s, if any.

    Parameters
    ----------
    bounds : pandas.DataFrame
        ``model, metric, estimate, low, high``; a name that ends in "comparable columns" has a
        colour of its own.
    paper : dict
        Metric → published value.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True, layout="constrained")
    titles = {"auc": "AUC", "average_precision": "Average precision"}
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        part = bounds[bounds["metric"] == metric]
        tints = [PAIR[model.endswith("comparable columns")] for model in part["model"]]
        axis.hlines(part["model"], part["low"], part["high"], tints, linewidth=2)
        axis.scatter(part["estimate"], part["model"], color=tints)
        if paper:
            axis.axvline(paper[metric], color="0.3", ls="--", lw=1)
        axis.set_xlabel(f"{title}, mean of the test folds")
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    told = "; dashed: the paper's random forest, another cohort" if paper else ""
    figure.suptitle(f"95 % interval over patients{told}", fontsize=11)
    return figure


def draw_importance(tables: dict[str, pd.DataFrame]) -> Figure:
    """Twelve most important columns of each model, by permutation (± SD) and by SHAP; `tables` are
    by display name, from `ecglib.trees.forest.importance`.
    """
    size = {"figsize": (10, 4 * len(tables)), "squeeze": False}
    figure, axes = plt.subplots(len(tables), 2, layout="constrained", **size)
    titles = {"importance": "Fall of average precision when shuffled"}
    titles |= {"shap": "Mean absolute SHAP value"}
    for row, (name, table) in zip(axes, tables.items(), strict=True):
        for axis, (column, title) in zip(row, titles.items(), strict=True):
            top = table.nlargest(12, column)
            sns.barplot(x=top[column], y=top.index, color=NEUTRAL, saturation=1, ax=axis)
            axis.set(xlabel=title, ylabel="", title=name)
        top = table.nlargest(12, "importance")
        row[0].errorbar(top["importance"], top.index, xerr=top["sd"], fmt="none", color="black")
    return figure
