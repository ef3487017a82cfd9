"""The tables of the paper, in its form and beside its published figures, and those beyond it.

Functions take what `ecglib.analysis.inference` and `ecglib.analysis.comparison` computed. Models
stand in their rows by key; ``.rename(index=names)`` gives them their display names.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import metrics
from ecglib.analysis.texts import INTERVAL, interval_texts, mean_sd, number, p_text

SEEN = ["label", "probability"]
SPLITS = {"validation": "Val", "test": "Test"}
METRICS = {"auc": "AUC", "average_precision": "AP", "score": "Score", "brier": "Brier"}
AT_POINT = {
    "sens": "Sens", "spec": "Spec", "ppv": "PPV", "npv": "NPV", "f1": "F1", "acc": "Acc",
}  # fmt: skip
NAMES = METRICS | AT_POINT
POINTS = {
    "highest_f1": "Highest F1",
    "rule_out": "Rule-out, sensitivity ≥ 0.90",
    "rule_in": "Rule-in, PPV ≥ 0.85",
}
PAPER_TABLE_4 = pd.read_csv(Path(__file__).with_name("paper_table_4.csv"), index_col=0, dtype=str)
"""Mean ± SD over ten rotations on 10,893 ECGs with angiographic OMI labels (paper, Table 4)."""

PAPER_TABLE_5 = pd.read_csv(Path(__file__).with_name("paper_table_5.csv"), index_col=0)
"""The selected ECG-SMART-NET at its operating point of 0.57 (paper, Table 5)."""


def table_4(
    performance: pd.DataFrame, names: dict, asked: tuple = ((), ()), paper: bool = True
) -> pd.DataFrame:
    """Table 4: mean ± SD over rotations of validation and test AUC and AP, in the paper's order.

    Parameters
    ----------
    performance : pandas.DataFrame
        From `ecglib.analysis.inference.per_rotation`.
    names : dict
        Model → display name. A published row stands beside the same model alone, found by that
        name; the forest's two settings count as one, since the paper doesn't say which it used.
    asked : (models, rotations)
        What the study asked for: what is missing of it is named.
    paper : bool
        Put the published figures beside them; of a simulation they would mean nothing.

    Returns
    -------
    pandas.DataFrame
        Text, one row per model. The SD is that of a sample (n − 1), and left out with one rotation.
    """
    table = performance.pivot_table(["auc", "average_precision"], "model", "split", mean_sd)
    table.columns = [f"{SPLITS[split]} {METRICS[metric]}" for metric, split in table]
    models = dict.fromkeys([*asked[0], *performance["model"]])
    table = table.reindex(models, columns=PAPER_TABLE_4.columns).fillna("–")
    runs, counts = performance.groupby("model")["rotation"].unique(), []
    for model in models:
        found = runs.get(model, [])
        missing = ",".join(str(k) for k in asked[1] if k not in found)
        counts.append(f"{len(found)}{f' (without {missing})' if missing else ''}")
    table.insert(0, "Rotations", counts)
    table = table.rename(index=names).rename_axis("Model")
    table = table.sort_index(key=_papers_order, kind="stable")
    published = PAPER_TABLE_4.reindex(table.index.str.removesuffix(" (2024 setting)")).fillna("–")
    both = {"This study": table, "Paper (other data)": published.set_axis(table.index)}
    return pd.concat(both if paper else {"This study": table}, axis=1)


def _papers_order(names: pd.Index) -> pd.Index:
    """Place of each display name in the paper's Table 4; a variant stands with its model, and what
    isn't in the paper last.
    """
    papers, models = (
        index.str.replace(r" \(.*", "", regex=True) for index in (PAPER_TABLE_4.index, names)
    )
    places = pd.Index(papers.get_indexer(models))
    return places.where(places >= 0, len(papers))


def table_5(
    predictions: pd.DataFrame, threshold: float, bounds: pd.DataFrame, paper: bool = True
) -> pd.DataFrame:
    """Table 5: metrics of one trained model at its operating point, on validation and test, with
    the test's interval, if `paper` is true above the published figures.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Rows of one model and one rotation.
    threshold : float
        Chosen on the validation fold (`ecglib.metrics.operating_point`).
    bounds : pandas.DataFrame
        Intervals on the test fold at that threshold, from `ecglib.analysis.inference.at_points`.
    """
    rows, counts = {}, ("TP", "FP", "FN", "TN")
    for split, short in SPLITS.items():
        run = predictions[predictions["split"] == split]
        seen = run["label"], run["probability"]
        values = metrics.at_threshold(*seen, threshold)
        values |= {"auc": metrics.auc(*seen), "ap": metrics.average_precision(*seen)}
        rows[short] = {name: values[name.lower()] for name in (*PAPER_TABLE_5.columns, *counts)}
    limits = bounds.set_index("metric")[["low", "high"]].rename(NAMES).reindex(rows["Test"])
    limits.columns = ["Test, lower limit", "Test, upper limit"]
    table = pd.DataFrame(rows).join(limits).T.astype(dict.fromkeys(counts, "Int64"))
    both = {"This study": table, "Paper (other data)": PAPER_TABLE_5}
    return pd.concat(both if paper else {"This study": table})


def estimates(bounds: pd.DataFrame, columns=tuple(NAMES), index: str = "model") -> pd.DataFrame:
    """Estimates with their intervals as text, a row per model (or another `index`) and a column per
    metric, from `ecglib.analysis.inference.intervals`.
    """
    table = bounds.assign(text=interval_texts(bounds))
    table = table.pivot_table("text", index, "metric", aggfunc="first", sort=False)
    table = table[[name for name in columns if name in table]].rename(columns=NAMES)
    return table.rename_axis(index="Model", columns=None)


def calibrations(predictions: pd.DataFrame) -> pd.DataFrame:
    """Calibration slope and intercept of each model, mean ± SD over rotations; a slope without a
    value is left out.
    """
    fits = predictions.groupby(["model", "rotation"], sort=False)[SEEN].apply(_fit)
    fits = fits[np.isfinite(fits)].filter(like="Calibration").groupby("model", sort=False)
    return fits.agg(lambda values: mean_sd(values.dropna())).rename_axis("Model")


def calibration_by_scale(both: pd.DataFrame) -> pd.DataFrame:
    """How well probabilities fit on each scale of `ecglib.analysis.calibration.by_scale`."""
    return both.groupby("scale", sort=False)[SEEN].apply(_fit).rename_axis("Probabilities")


def _fit(run: pd.DataFrame) -> pd.Series:
    label, p = run["label"], run["probability"]
    found = pd.Series(metrics.calibration(label, p)).add_prefix("Calibration ")
    level = {"Mean probability": p.mean(), "Share positive": label.mean()}
    return pd.Series({**found, "Brier": metrics.brier(label, p), **level})


def paired_tests(differences: pd.DataFrame, delong: pd.DataFrame) -> pd.DataFrame:
    """Paired differences a − b with p-values of the three tests of `ecglib.analysis.comparison`;
    DeLong's for the AUC alone.
    """
    of_auc = delong[["a", "b", "p"]].assign(metric="auc")
    table = differences.merge(of_auc, "left", ["metric", "a", "b"], suffixes=("", "_d"))
    table = table.assign(metric=table["metric"].map(METRICS), gap=interval_texts(table))
    tests = {
        "p_holm": "p, patients drawn (Holm)",
        "p_t_holm": "p, corrected t (Holm)",
        "p_d": "p, DeLong",
    }
    table[[*tests]] = table[[*tests]].map(p_text)
    words = {"metric": "Metric", "rotations": "Rotations", "gap": "a − b"}
    return table[["metric", "a", "b", "rotations", "gap", *tests]].rename(columns=words | tests)


def sensitivity(found: pd.DataFrame) -> pd.DataFrame:
    """Counts and intervals of `ecglib.analysis.subgroups.sensitivity`, by analysis and model."""
    parts = {}
    for analysis, part in found.groupby("analysis", sort=False):
        positives, records = part[["positives", "records"]].iloc[0]
        parts[analysis] = estimates(part).replace("–", "too few")
        counts = f"{positives} / {records} ({positives / records:.1%})"
        parts[analysis].insert(0, "Positives / ECGs", counts)
    return pd.concat(parts, names=["Test records"])


def subgroups(found: pd.DataFrame) -> pd.DataFrame:
    """Counts, AUC and calibration of `ecglib.analysis.subgroups.estimate`, by group."""
    told = {"AUC": interval_texts(found, "too few")}
    if "ratio_estimate" in found:
        ratio = found.filter(like="ratio").set_axis(INTERVAL, axis=1)
        told["Observed / expected"] = interval_texts(ratio, "too few")
    return found.assign(**told).set_index("group")[["level", "positives", "records", *told]]


def selection(by_test: pd.Series, by_validation: pd.Series, leads: pd.DataFrame, mean):
    """Scores of the rotation kept by its validation score and by its test score (the paper's rule),
    and the mean over rotations; a data frame.

    `by_test` and `by_validation` map a rotation to its score, highest first; `leads` is from
    `ecglib.analysis.comparison.leads`, `mean` is the score's row, a frame, of
    `ecglib.analysis.inference.intervals`.
    """
    kept = leads.loc[[by_validation.index[0], by_test.index[0]]]
    table = pd.DataFrame({"Validation score": by_validation[kept.index]})
    table["Test score"], table["Ease of the test fold"] = kept["score"], kept["fold"]
    table["Luck of the choice"] = kept["luck"].where([False, True])
    table["Test score less both"] = kept["score"] - table.iloc[:, 2:].sum(axis=1)
    table = table.map(number)
    table.insert(0, "Rotation", kept.index.astype(str))
    table.index = ["Highest validation score", "Highest test score (the paper)"]
    table.loc["Mean over rotations"] = "–"
    told = number(by_validation.mean()), interval_texts(mean)[0]
    table.loc["Mean over rotations", ["Validation score", "Test score"]] = told
    return table.rename_axis("Rule")


def operating_points(bounds: pd.DataFrame, points: dict) -> pd.DataFrame:
    """Metrics at each of `points`, from `ecglib.analysis.inference.at_points`, with intervals; a
    point that is None is said not to be attainable.
    """
    table = estimates(bounds, tuple(AT_POINT), "point").reindex(list(points)).fillna("–")
    unknown = "not attainable on validation"
    thresholds = [unknown if point is None else f"{point:.3f}" for point in points.values()]
    table.insert(0, "Threshold", thresholds)
    return table.rename(index=POINTS).rename_axis("Operating point")


def epochs_to_best(history: pd.DataFrame) -> pd.DataFrame:
    """Epoch of the best validation score over rotations (paper, section III.A: 20 on average for
    ECG-SMART-NET).
    """
    best = history.loc[history.groupby(["model", "rotation"], sort=False)["val_score"].idxmax()]
    table = best.groupby("model", sort=False)["epoch"].agg(["mean", "std", "min", "max"])
    return table.rename_axis("Model")
