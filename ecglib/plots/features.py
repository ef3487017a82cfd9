"""Figures of the engineered features and of the trees on them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.plots import NEUTRAL, PAIR
from ecglib.trees.omi_features import DISTANCE_LIMIT


def draw_column_distance(report: pd.DataFrame) -> Figure:
    """Distance between two tables, column by column (`ecglib.trees.omi_features.make_comparable`);
    the names of those that were dropped.
    """
    order = report.sort_values("distance_after", ascending=False).reset_index()
    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    dropped = order["decision"] == "dropped"
    look = {"hue": dropped, "palette": PAIR, "hue_order": [False, True]}
    look |= {"legend": False, "saturation": 1}
    sns.barplot(x=order["column"], y=order["distance_after"], ax=axis, **look)
    axis.axhline(DISTANCE_LIMIT, color="0.3", ls="--", lw=1)
    for place, row in order[dropped].iterrows():
        at = place, row["distance_after"] + 0.01
        axis.text(*at, row["column"], fontsize=8, rotation=90, ha="center", va="bottom")
    axis.margins(y=0.25)
    axis.set(xlim=(-1.5, len(order) + 0.5), ylabel="Kolmogorov-Smirnov distance", xticks=[])
    axis.set(xlabel="Columns, furthest apart first (orange: dropped)")
    return figure


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
        for row in part.itertuples():
            reach = [[row.estimate - row.low], [row.high - row.estimate]]
            tint = PAIR[row.model.endswith("comparable columns")]
            axis.errorbar(row.estimate, row.model, xerr=reach, fmt="o", color=tint, elinewidth=2)
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
            if column == "importance":
                places = np.arange(len(top))
                axis.errorbar(top[column], places, xerr=top["sd"], fmt="none", color="black")
            axis.set(xlabel=title, ylabel="", title=name, ylim=(len(top) - 0.4, -0.6))
    return figure
