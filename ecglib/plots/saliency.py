"""What the checks of saliency maps say of them."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from ecglib.analysis.saliency_checks import CORRELATION, Checks
from ecglib.plots import NEUTRAL, SIX


def draw_checks(checks: Checks) -> Figure:
    """Draw how the maps change as layers become random, and how the logit falls as windows are
    erased.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    style, gradient = {"errorbar": None, "marker": "o"}, checks.table.iloc[0]
    sns.lineplot(checks.layers, x="layer", y="rank_correlation", ax=left, color=NEUTRAL, **style)
    sns.lineplot(
        checks.deletion, x="fraction", y="logit", hue="map", palette=SIX, ax=right, **style
    )
    chance = gradient["correlation with randomised, signed, by chance"]
    passed = chance + CORRELATION * (1 - chance)
    left.axhline(passed, color="black", linestyle="--", linewidth=1)
    left.set(xlabel="layers random down to", ylabel="rank correlation\nwith the trained map")
    left.tick_params(axis="x", rotation=60)
    left.set_title("Randomisation (dashed: half of the way from chance to 1)", fontsize=9)
    right.set(xlabel="share of windows erased", ylabel="mean logit (log odds)", title="Deletion")
    sns.move_legend(right, "upper left", bbox_to_anchor=(1, 1), title="", fontsize=9)
    sns.despine(figure)
    return figure
