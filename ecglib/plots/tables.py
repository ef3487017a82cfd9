"""The tables of the paper, in its form and beside its published figures."""

import pandas as pd

from ecglib import metrics
from ecglib.models import REGISTRY

SPLITS = {"validation": "Val", "test": "Test"}
METRICS = {"auc": "AUC", "average_precision": "AP", "score": "score", "brier": "Brier"}

PAPER_TABLE_4 = pd.DataFrame(
    {
        "Val AUC": ["0.902 ± 0.025", "0.886 ± 0.020", "0.884 ± 0.024", "0.858 ± 0.033", "0.872 ± 0.023"],
        "Val AP": ["0.605 ± 0.085", "0.584 ± 0.057", "0.565 ± 0.093", "0.544 ± 0.084", "0.516 ± 0.077"],
        "Test AUC": ["0.889 ± 0.027", "0.877 ± 0.032", "0.871 ± 0.023", "0.857 ± 0.033", "0.864 ± 0.026"],
        "Test AP": ["0.587 ± 0.087", "0.566 ± 0.106", "0.532 ± 0.077", "0.537 ± 0.087", "0.514 ± 0.082"],
    },
    index=["ecg_smart_net", "mayo_alvd", "temporal_resnet18", "resnet18", "random_forest"],
)
"""Mean ± SD over ten rotations on 10,893 ECGs with angiographic OMI labels (paper, Table 4)."""

PAPER_TABLE_5 = pd.DataFrame(
    [
        [0.933, 0.564, 0.969, 0.648, 0.957, 0.603, 0.917, 0.598],
        [0.947, 0.747, 0.963, 0.626, 0.979, 0.681, 0.930, 0.691],
    ],
    index=["Val", "Test"],
    columns=["Acc", "Sens", "Spec", "PPV", "NPV", "F1", "AUC", "AP"],
)
"""The selected ECG-SMART-NET at its operating point of 0.57 (paper, Table 5)."""


def label_of(model: str) -> str:
    """Name of a model as tables and figures print it."""
    return REGISTRY[model].label if model in REGISTRY else model


def table_4(performance: pd.DataFrame, paper: bool = True) -> pd.DataFrame:
    """Table 4: mean ± SD over rotations of validation and test AUC and AP.

    Parameters
    ----------
    performance : pandas.DataFrame
        From `ecglib.statistics.per_rotation`.
    paper : bool
        Put the published figures beside ours, for models that the paper has.

    Returns
    -------
    pandas.DataFrame
        Text, one row per model (by its printed name), with the number of rotations. The SD is that of a sample
        (n − 1), and left out with one rotation.
    """
    rows = {}
    for model, runs in performance.groupby("model", sort=False):
        row = {"Rotations": str(runs["rotation"].nunique())}
        for split, short in SPLITS.items():
            part = runs[runs["split"] == split]
            for metric in ("auc", "average_precision"):
                row[f"{short} {METRICS[metric]}"] = mean_sd(part[metric])
        rows[model] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    if paper:
        published = PAPER_TABLE_4.reindex(table.index).fillna("–")
        table = pd.concat({"This study": table, "Paper (other data)": published}, axis=1)
    return table.rename(index=label_of).rename_axis("Model")


def mean_sd(values: pd.Series) -> str:
    """Text ``mean ± SD`` with three decimals; the mean alone for one value, a dash for none."""
    if values.empty:
        return "–"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def table_5(predictions: pd.DataFrame, threshold: float, paper: bool = True) -> pd.DataFrame:
    """Table 5: metrics of one trained model at its operating point, on validation and test.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Rows of one model and one rotation.
    threshold : float
        Chosen on the validation fold (`ecglib.metrics.operating_point`).
    """
    rows = {}
    for split, short in SPLITS.items():
        run = predictions[predictions["split"] == split]
        label, probability = run["label"].to_numpy(), run["probability"].to_numpy()
        values = metrics.at_threshold(label, probability, threshold)
        values |= {"auc": metrics.auc(label, probability), "ap": metrics.average_precision(label, probability)}
        rows[short] = {name: values[name.lower()] for name in (*PAPER_TABLE_5.columns, "TP", "FP", "FN", "TN")}
    table = pd.DataFrame.from_dict(rows, orient="index").astype(dict.fromkeys(("TP", "FP", "FN", "TN"), "Int64"))
    return pd.concat({"This study": table, "Paper (other data)": PAPER_TABLE_5}) if paper else table


def risk_groups(label, probability, rule_out: float, rule_in: float) -> pd.DataFrame:
    """ECGs, positives and their share below `rule_out`, between, and from `rule_in` up (both chosen on validation)."""
    label, probability = metrics.check(label, probability, classes=1)
    if rule_out >= rule_in:
        raise ValueError(f"The rule-out point {rule_out:.3g} isn't below the rule-in point {rule_in:.3g}; no groups")
    group = pd.cut(probability, [-1, rule_out, rule_in, 2], right=False, labels=["low", "intermediate", "high"])
    table = pd.Series(label).groupby(group, observed=False).agg(["size", "sum", "mean"])
    return table.set_axis(["ECGs", "Positives", "Share positive"], axis=1).rename_axis("Group")


def epochs_to_best(history: pd.DataFrame) -> pd.DataFrame:
    """Epoch of the best validation score over rotations (paper, section III.A: 20 on average for ECG-SMART-NET)."""
    best = history.loc[history.groupby(["model", "rotation"], sort=False)["val_score"].idxmax()]
    table = best.groupby("model", sort=False)["epoch"].agg(["mean", "std", "min", "max"])
    return table.rename(index=label_of).rename_axis("Model")


def styled(table: pd.DataFrame, caption: str):
    """HTML table with its caption above it and figures to three decimals."""
    above = [{"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"}]
    return table.style.set_caption(caption).set_table_styles(above).format(precision=3, na_rep="–")
