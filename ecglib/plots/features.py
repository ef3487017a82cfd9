"""Figures of the engineered features and of the trees on them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.plots import NEUTRAL


def draw_importance(tables: dict[str, pd.DataFrame]) -> Figure:
    """Twelve most important columns of each model, by permutation (± SD) and by SHAP; `tables` are
    by display name, from `ecglib.trees.forest.importance`.
    """
    size = {"figsize": (10, 4 * len(tables)), "squeeze": False}
    figure, axes = plt.subplots(len(tables), 2, layout="constrained", **size)
    titles = {"importance": "Fall in average precision when shuffled"}
    titles |= {"shap": "Mean absolute SHAP value"}
    for row, (name, table) in zip(axes, tables.items(), strict=True):
        for axis, (column, title) in zip(row, titles.items(), strict=True):
            top = table.nlargest(12, column)
            sns.barplot(x=top[column], y=top.index, color=NEUTRAL, saturation=1, ax=axis)
            if column == "importance":
                places = np.arange(len(top))
                axis.errorbar(top[column], places, xerr=top["sd"], fmt="none", color="black")
            axis.set(xlabel=title, ylabel="", title=name, ylim=(len(top) - 0.4, -0.6))
            axis.locator_params("x", nbins=5)
    return figure
