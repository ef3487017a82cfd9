"""Learning, ROC, precision-recall, calibration and decision curves; forest plot and matrices.

Every function returns a closed matplotlib figure, narrow enough to be read on a small screen.
`names` are a study's display names, model → name: with them, a model looks the same in every figure
of the study, whichever others are in it.
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
from ecglib.analysis.texts import interval_texts, mean_sd, p_text, typeset
from ecglib.plots import NEUTRAL

# Okabe and Ito's palette, told apart with any colour vision; one colour per model in every figure.
COLOURS = {
    "ecg_smart_net": "#0072B2",
    "mayo_alvd": "#D55E00",
    "temporal_resnet18": "#009E73",
    "resnet18": "#CC79A7",
    "random_forest": "#E69F00",
    "gradient_boosting": "#56B4E9",
    "test": "#0072B2",
    "validation": "#E69F00",
    "as trained": "#D55E00",
    "recalibrated on validation": "#0072B2",
}
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


def colours(models) -> dict[str, str]:
    """Colour of each model or split by its key; unknown ones take the spare colours in order."""
    spare = itertools.cycle(SPARE)
    return {model: COLOURS.get(model) or next(spare) for model in models}


def _parts(frame: pd.DataFrame, by: str, names: dict | None):
    """Yield, for each value of the column `by`, its key, how its line looks and is called, and its
    rows.
    """
    names, found = names or {}, frame[by].unique()
    palette = colours(dict.fromkeys([*names, *found]))
    for (key, colour), style in zip(palette.items(), itertools.cycle(STYLES), strict=False):
        if key in found:
            look = {"color": colour, "ls": style, "label": names.get(key, key)}
            yield key, look, frame[frame[by] == key]


def _closed(figure: Figure) -> Figure:
    """Close a figure, so that a notebook shows it once."""
    plt.close(figure)
    return figure


def learning_curves(history: pd.DataFrame, names: dict | None = None) -> Figure:
    """Fig. 5: validation AUC, AP, loss and score by epoch, mean ± 1 SD over rotations; a dot at the
    best mean score.

    Parameters
    ----------
    history : pandas.DataFrame
        ``model, rotation, epoch`` (from 1) and the columns of `PANELS`. A model's curve ends at the
        last epoch that all its rotations reached, so that no mean changes its members.
    """
    last = history.groupby(["model", "rotation"])["epoch"].max().groupby("model").min()
    history = history[history["epoch"] <= history["model"].map(last)]
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.6), layout="constrained")
    for axis, letter, (column, title) in zip(axes.flat, "ABCD", PANELS.items(), strict=True):
        of = {"x": "epoch", "y": column, "ax": axis, "errorbar": "sd", "legend": False}
        for _, look, runs in _parts(history, "model", names):
            colour = look["color"]  # clouds overlap: their edges tell them apart
            cloud = {"alpha": None, "facecolor": (colour, 0.13), "edgecolor": (colour, 0.7)}
            sns.lineplot(runs, **of, **look, err_kws=cloud | {"lw": 0.7, "ls": look["ls"]})
            mean = runs.groupby("epoch")[column].mean()
            best = mean.idxmin() if column == "val_loss" else mean.idxmax()
            axis.plot(best, mean[best], "o", color=colour, ms=5, mec="white")
        axis.set(xlabel="Epoch", ylabel=title)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_title(letter, loc="left", fontweight="bold")
        axis.grid(alpha=0.3)
    title = "Mean ± 1 SD over rotations" if len(set(history["rotation"])) > 1 else None
    place = {"loc": "outside upper center", "ncols": 2, "title": title}
    figure.legend(*axis.get_legend_handles_labels(), fontsize=9, **place)
    return _closed(figure)


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
    predictions: pd.DataFrame,
    by: str = "model",
    names: dict | None = None,
    threshold: float | None = None,
) -> Figure:
    """ROC (A) and precision-recall curves (B): a thin line per rotation, their (vertical) mean and
    a band of ± 1 SD.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Of one split; or, with ``by="split"`` (Fig. 6), of one trained model.
    by : str
        Column that the colours stand for. With more than two, thin lines would hide the means and
        are left out.
    threshold : float, optional
        An operating point, marked on each curve.
    """
    count, legend = predictions[by].nunique(), {}
    size = WIDTH, 4 + 0.17 * count * (1 + (by == "split"))
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained")
    for axis, letter, (curve, metric, short, x, y) in zip(axes, "AB", CURVES, strict=True):
        axis.set_title(letter, loc="left", fontweight="bold")
        for key, look, part in _parts(predictions, by, names):
            runs = [run for _, run in part.groupby(["model", "rotation"])]
            each = np.array([curve(run) for run in runs])
            values = pd.Series([metric(run["label"], run["probability"]) for run in runs])
            mean, colour = each.mean(axis=0), look["color"]
            line = axis.plot(GRID, mean, lw=2, **look)[0]
            legend.setdefault(key, [line]).append(f"{short} {mean_sd(values)}")
            if threshold is not None:
                at = metrics.at_threshold(part["label"], part["probability"], threshold)
                place = (1 - at["spec"], at["sens"]) if letter == "A" else (at["sens"], at["ppv"])
                point = axis.plot(*place, "o", color=colour, mec="black", ms=7, zorder=3)[0]
            if len(runs) > 1:
                sd = each.std(axis=0, ddof=1)
                band = np.clip([mean - sd, mean + sd], 0, 1)
                axis.fill_between(GRID, *band, color=colour, alpha=0.15, lw=0)
                if count <= 2:
                    axis.plot(GRID, each.T, color=colour, lw=0.6, alpha=0.45)
        axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=x, ylabel=y)
        axis.grid(alpha=0.3)
    words = {line: f"{line.get_label()}: {', '.join(parts)}" for line, *parts in legend.values()}
    if threshold is not None:
        words[point] = f"Operating point: probability ≥ {threshold:.3f}"
    words[axes[0].axline((0, 0), (1, 1), color="0.5", lw=1, ls=":")] = "Chance: AUC 0.500"
    for key, part in predictions.groupby(by, sort=False) if by == "split" else [("", predictions)]:
        rate = part["label"].mean()
        line = axes[1].axhline(rate, color=COLOURS.get(key, "0.3"), lw=1.2, ls="-.")
        words[line] = f"Prevalence{key and ', '}{key}: {rate:.3f}"
    figure.legend(words, words.values(), loc="outside upper center", fontsize=9)
    return _closed(figure)


def calibration(predictions: pd.DataFrame, by: str = "model", names: dict | None = None) -> Figure:
    """Observed share of positives by tenths of predicted probability, with 95 % Wilson intervals; a
    histogram below.

    Fewer than ten parts where they would hold under 30 records. The intervals take records as
    independent.
    """
    shape = {"figsize": (5.2, 6.4), "height_ratios": (3, 1), "sharex": True}
    figure, (top, bottom) = plt.subplots(2, 1, **shape, layout="constrained")
    for _, look, part in _parts(predictions, by, names):
        probability, colour = part["probability"], look["color"]
        tenths = max(2, min(10, len(part) // 30))
        tenth = pd.qcut(probability, tenths, labels=False, duplicates="drop").to_numpy()
        groups = part.groupby(tenth)
        x, y = groups[["probability", "label"]].mean().to_numpy().T
        low, high = proportion_confint(groups["label"].sum(), groups.size(), method="wilson")
        found = metrics.calibration(part["label"], probability)
        name = f"{look['label']}: slope {found['slope']:.2f}, intercept {found['intercept']:+.2f}"
        reach = np.abs([y - low, high - y])
        looks = {"color": colour, "fmt": "o-", "ms": 5, "lw": 1.2, "capsize": 2}
        top.errorbar(x, y, reach, **looks, label=typeset(name))
        bottom.hist(probability, 40, (0, 1), histtype="step", color=colour, lw=1.5)
    top.plot([0, 1], [0, 1], color="0.5", lw=1, ls=":", label="Perfect calibration")
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed share of positives")
    bottom.set(xlabel="Predicted probability", ylabel="ECGs", yscale="log")
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", fontsize=9)
    top.grid(alpha=0.3)
    return _closed(figure)


def decision_curve(
    predictions: pd.DataFrame, by: str = "model", names: dict | None = None
) -> Figure:
    """Net benefit by threshold probability, beside calling every ECG and calling none."""
    figure, axis = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    threshold, rate = np.linspace(0.005, 0.6, 120), predictions["label"].mean()
    for _, look, part in _parts(predictions, by, names):
        benefit = metrics.net_benefit(part["label"], part["probability"], threshold)
        axis.plot(threshold, benefit, lw=1.8, **look)
    everyone = rate - (1 - rate) * threshold / (1 - threshold)
    axis.plot(threshold, everyone, color="0.45", lw=1.2, label="Call every ECG")
    axis.axhline(0, color="black", lw=1.2, label="Call none")
    axis.set(xlim=(0, 0.6), ylim=(-0.3 * rate, 1.05 * rate))
    axis.set(xlabel="Threshold probability", ylabel="Net benefit (true positives per ECG)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _closed(figure)


def forest(table: pd.DataFrame, metric: str, overall: float | None = None) -> Figure:
    """Estimates and 95 % intervals of `ecglib.analysis.subgroups.estimate`, with counts; "too few"
    where it says nothing.

    `overall` is the value of all test records, drawn as a dotted line.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1 + 0.2 * len(table)), layout="constrained")
    rows, y = table.itertuples(), np.arange(len(table))
    rows = [f"{row.group}: {row.level}   {row.positives:,} / {row.records:,}" for row in rows]
    reach = table[["low", "high"]].sub(table["estimate"], axis=0).abs().T.to_numpy()
    axis.errorbar(table["estimate"], y, xerr=reach, fmt="s", color=NEUTRAL, ms=5, capsize=3)
    axis.set_yticks(y, rows, fontsize=9)
    words = ["too few" if text == "–" else text for text in interval_texts(table)]
    axis.secondary_yaxis("right").set_yticks(y, words, fontsize=9)
    if overall is not None:
        axis.axvline(overall, color="0.5", ls=":", lw=1)
    axis.set(ylim=(len(table) - 0.5, -0.5), xlabel=metric)
    axis.set_title("positives / ECGs", loc="left", fontsize=9, ha="right")
    axis.set_title(f"{metric} [95 %]", loc="right", fontsize=9, ha="left")
    axis.grid(alpha=0.3, axis="x")
    return _closed(figure)


def difference_matrix(table: pd.DataFrame, metric: str, title: str, names: dict) -> Figure:
    """Paired differences, row − column, of `ecglib.analysis.comparison.differences` and Holm's p;
    bold where it is below 0.05.

    The columns are the rows' models, by number; intervals are for a table.
    """
    table = table[table["metric"] == metric]
    mirrored = table.rename(columns={"a": "b", "b": "a"}).assign(estimate=-table["estimate"])
    models, both = [*dict.fromkeys([*table["a"], *table["b"]])], pd.concat([table, mirrored])
    gap, p = (
        both.pivot_table(column, "a", "b").reindex(index=models, columns=models)
        for column in ("estimate", "p_holm")
    )
    words = gap.map("{:+.3f}".format).replace("-", "−", regex=True)
    words += "\np " + p.map(p_text)
    size, reach = len(models), 1.6 * max(gap.abs().max(axis=None), 1e-3)  # pale, for black text
    figure, axis = plt.subplots(figsize=(2.2 + 0.72 * size, 0.9 + 0.5 * size), layout="constrained")
    colour = {"cmap": "PuOr", "vmin": -reach, "vmax": reach, "cbar": False}
    text = {"annot": words, "fmt": "", "annot_kws": {"fontsize": 9, "color": "black"}}
    sns.heatmap(gap, ax=axis, **colour, **text, xticklabels=range(1, size + 1))
    for cell, value in zip(axis.texts, p.to_numpy()[gap.notna().to_numpy()], strict=True):
        cell.set_weight("bold" if value < 0.05 else "normal")
    rows = [
        f"{textwrap.fill(names.get(model, model), 22)}  {place}"
        for place, model in enumerate(models, 1)
    ]
    axis.set_yticklabels(rows, fontsize=9, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.set_title(f"{title}: row − column", loc="left", fontsize=10, x=0)
    return _closed(figure)


def draw_fold_prevalence(shape: pd.DataFrame) -> Figure:
    """Share of positive patients of each fold; dashed: of all.

    `shape` is from `ecglib.cohort.contract.describe_folds`.
    """
    figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    share = shape["positive patients (%)"]
    sns.barplot(x=shape.index, y=share, color=NEUTRAL, ax=axis)
    overall = np.average(share, weights=shape.patients)
    axis.axhline(overall, color="black", linestyle="--", linewidth=1)
    axis.set(xlabel="fold", ylabel="positive patients (%)", title="Share of positive patients")
    return figure


def draw_learning_rates(scores: pd.DataFrame, names: dict) -> Figure:
    """Best validation score of each run of a grid by initial learning rate; a line joins the means.

    Parameters
    ----------
    scores : pandas.DataFrame
        ``model, learning_rate, rotation, val_score``.
    names : dict
        Model → printed name.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    look = {"data": scores, "x": "learning_rate", "y": "val_score", "hue": "model", "ax": axis}
    look["palette"] = colours(names)
    sns.scatterplot(**look, alpha=0.4, legend=False)
    sns.lineplot(**look, errorbar=None, marker="_", ms=14, mec="auto")
    lines, models = axis.get_legend_handles_labels()
    axis.legend_.remove()
    figure.legend(lines, map(names.get, models), loc="outside right center", frameon=False)
    axis.set(xscale="log", xlabel="initial learning rate", ylabel="best validation score")
    return figure
