"""The tables of the paper, in its form and beside its published figures, and those beyond it.

Functions take what `ecglib.analysis.inference` and `ecglib.analysis.comparison` computed. Models
stand in their rows by key; ``.rename(index=names)`` gives them their display names.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import metrics
from ecglib.analysis.texts import INTERVAL, interval_texts, mean_sd, p_text

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
    rows, found = {}, dict(list(performance.groupby("model", sort=False)))
    for model in dict.fromkeys([*asked[0], *found]):
        runs = found.get(model, performance.iloc[:0])
        missing = ",".join(str(k) for k in asked[1] if k not in set(runs["rotation"]))
        count = f"{runs['rotation'].nunique()}{f' (without {missing})' if missing else ''}"
        rows[names.get(model, model)] = {"Rotations": count} | {
            f"{short} {METRICS[metric]}": mean_sd(runs[metric][runs["split"] == split])
            for split, short in SPLITS.items()
            for metric in ("auc", "average_precision")
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Model")
    table = table.sort_index(key=in_papers_order, kind="stable")
    published = PAPER_TABLE_4.reindex(table.index.str.removesuffix(" (2024 setting)")).fillna("–")
    both = {"This study": table, "Paper (other data)": published.set_axis(table.index)}
    return pd.concat(both if paper else {"This study": table}, axis=1)


def in_papers_order(names: pd.Index) -> pd.Index:
    """Place of each display name in the paper's Table 4; a variant stands with its model, and what
    isn't in the paper last.
    """
    known = [name.partition(" (")[0] for name in PAPER_TABLE_4.index]
    models = names.str.partition(" (").get_level_values(0)
    return pd.Index([known.index(name) if name in known else len(known) for name in models])


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
        values = metrics.at_threshold(run["label"], run["probability"], threshold)
        values["auc"] = metrics.auc(run["label"], run["probability"])
        values["ap"] = metrics.average_precision(run["label"], run["probability"])
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
    rows = [
        {"model": model} | metrics.calibration(run["label"], run["probability"])
        for (model, _), run in predictions.groupby(["model", "rotation"], sort=False)
    ]
    table = pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan).groupby("model", sort=False)
    table = table.agg(lambda values: mean_sd(values.dropna()))
    return table.add_prefix("Calibration ").rename_axis("Model")


def calibration_by_scale(both: pd.DataFrame) -> pd.DataFrame:
    """How well probabilities fit on each scale of `ecglib.analysis.calibration.by_scale`."""
    rows = {}
    for scale, part in both.groupby("scale", sort=False):
        label, p = part["label"], part["probability"]
        rows[scale] = {f"Calibration {k}": v for k, v in metrics.calibration(label, p).items()}
        rows[scale] |= {"Brier": metrics.brier(label, p), "Mean probability": p.mean()}
        rows[scale] |= {"Share positive": label.mean()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Probabilities")


def paired_tests(differences: pd.DataFrame, delong: pd.DataFrame) -> pd.DataFrame:
    """Paired differences a − b with p-values of the three tests of `ecglib.analysis.comparison`;
    DeLong's for the AUC alone.
    """
    of_auc = delong[["a", "b", "p"]].assign(metric="auc")
    table = differences.merge(of_auc, "left", ["metric", "a", "b"], suffixes=("", "_d"))
    rows = {
        "Metric": table["metric"].map(METRICS),
        "a": table["a"],
        "b": table["b"],
        "Rotations": table["rotations"],
        "a − b": interval_texts(table),
        "p, patients drawn (Holm)": table["p_holm"].map(p_text),
        "p, corrected t (Holm)": table["p_t_holm"].map(p_text),
        "p, DeLong": table["p_d"].map(p_text),
    }
    return pd.DataFrame(rows)


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
    told = {"AUC": interval_texts(found)}
    if "ratio_estimate" in found:
        told["Observed / expected"] = interval_texts(
            found.filter(like="ratio").set_axis(INTERVAL, axis=1)
        )
    table = found.assign(**told).set_index("group")
    return table[["level", "positives", "records", *told]].replace("–", "too few")


def selection(by_test: pd.Series, by_validation: pd.Series, leads: pd.DataFrame, mean):
    """Scores of the rotation kept by its validation score and by its test score (the paper's rule),
    and the mean over rotations; a data frame.

    `by_test` and `by_validation` map a rotation to its score, highest first; `leads` is from
    `ecglib.analysis.comparison.leads`, `mean` is the score's row, a frame, of
    `ecglib.analysis.inference.intervals`.
    """
    rows = {}
    for rule, scores in (("validation", by_validation), ("test", by_test)):
        row = leads.loc[scores.index[0]]
        parts = {
            "Validation score": by_validation[row.name],
            "Test score": row["score"],
            "Ease of the test fold": row["fold"],
            "Luck of the choice": row["luck"] if rule == "test" else np.nan,
        }
        parts["Test score less both"] = 2 * row["score"] - np.nansum([*parts.values()][1:])
        told = {name: f"{value:.3f}".replace("-", "−") for name, value in parts.items()}
        rows[f"Highest {rule} score"] = {"Rotation": str(row.name)} | told
    rows["Highest test score (the paper)"] = rows.pop("Highest test score")
    rows["Mean over rotations"] = {"Validation score": f"{by_validation.mean():.3f}"}
    rows["Mean over rotations"]["Test score"] = interval_texts(mean)[0]
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Rule")
    return table.replace("nan", "–").fillna("–")


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
