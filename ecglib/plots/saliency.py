"""What saliency maps say of the leads, and what their checks say of the maps."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.analysis.saliency_checks import CORRELATION, Checks
from ecglib.plots import NEUTRAL, SIX


def draw_contributions(leads: pd.DataFrame) -> Figure:
    """Each lead's share of the saliency with its interval, from
    `ecglib.analysis.saliency.patient_intervals`; dashed: twelve equal leads.
    """
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    mean, reach = 100 * leads["mean"], 100 * leads[["low", "high"]].sub(leads["mean"], axis=0).abs()
    axis.errorbar(leads.index, mean, yerr=reach.T.to_numpy(), fmt="o", color=NEUTRAL, capsize=3)
    axis.axhline(100 / len(leads), color="black", linestyle="--", linewidth=1)
    axis.set(ylabel="share of saliency (%)", title="Lead contributions")
    sns.despine(figure)
    return figure


def draw_checks(checks: Checks) -> Figure:
    """Draw how the maps change as layers become random, and how the logit falls as windows are
    erased.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
    style, gradient = {"errorbar": None, "marker": "o"}, checks.table.iloc[0]
    sns.lineplot(checks.layers, x="layer", y="rank_correlation", ax=left, color=NEUTRAL, **style)
    sns.lineplot(
        checks.deletion, x="fraction", y="logit", hue="map", palette=SIX, ax=right, **style
    )
    chance = gradient["correlation with randomised, signed, by chance"]
    passed = chance + CORRELATION * (1 - chance)
    left.axhline(passed, color="black", linestyle="--", linewidth=1)
    left.set(xlabel="layers randomised down to", ylabel="rank correlation\nwith the trained map")
    left.tick_params(axis="x", rotation=60)
    left.set_title("Randomisation (dashed: halfway from chance to 1)", fontsize=9)
    right.set(xlabel="share of windows erased", ylabel="mean logit (log odds)", title="Deletion")
    right.get_legend().remove()
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9)
    sns.despine(figure)
    return figure
