"""The tables of the paper, in its form and beside its published figures."""

from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import metrics
from ecglib.analysis import inference
from ecglib.models import REGISTRY

SPLITS = {"validation": "Val", "test": "Test"}
METRICS = {
    "auc": "AUC",
    "average_precision": "AP",
    "score": "Score",
    "brier": "Brier",
    "acc": "Acc",
    "sens": "Sens",
}
METRICS |= {"spec": "Spec", "ppv": "PPV", "npv": "NPV", "f1": "F1"}

PAPER_TABLE_4 = pd.read_csv(Path(__file__).with_name("paper_table_4.csv"), index_col=0, dtype=str)
"""Mean ± SD over ten rotations on 10,893 ECGs with angiographic OMI labels (paper, Table 4)."""

PAPER_TABLE_5 = pd.read_csv(Path(__file__).with_name("paper_table_5.csv"), index_col=0)
"""The selected ECG-SMART-NET at its operating point of 0.57 (paper, Table 5)."""


def label_of(model: str, names: dict | None = None) -> str:
    """Name of a model as tables and figures print it: that of `Runs.labels`, or else of the
    registry.
    """
    if names and model in names:
        return names[model]
    return REGISTRY[model].label if model in REGISTRY else model


def table_4(
    performance: pd.DataFrame, names: dict | None = None, asked: tuple = ((), ())
) -> pd.DataFrame:
    """Table 4: mean ± SD over rotations of validation and test AUC and AP, beside the published
    figures.

    Parameters
    ----------
    performance : pandas.DataFrame
        From `ecglib.analysis.inference.per_rotation`.
    names : dict, optional
        Model → printed name. A published row stands beside the same model alone, told by its name;
        the forest's two settings count as one, since the paper doesn't say which it used.
    asked : (models, rotations)
        What the study asked for: what is missing of it is named.

    Returns
    -------
    pandas.DataFrame
        Text, one row per model. The SD is that of a sample (n − 1), and left out with one rotation.
    """
    rows, found = {}, dict(list(performance.groupby("model", sort=False)))
    for model in dict.fromkeys([*asked[0], *found]):
        runs = found.get(model, performance.iloc[:0])
        missing = [str(rotation) for rotation in asked[1] if rotation not in set(runs["rotation"])]
        without = f" (without {','.join(missing)})" if missing else ""
        row = {"Rotations": f"{runs['rotation'].nunique()}{without}"}
        for split, short in SPLITS.items():
            part = runs[runs["split"] == split]
            for metric in ("auc", "average_precision"):
                row[f"{short} {METRICS[metric]}"] = mean_sd(part[metric])
        rows[label_of(model, names)] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Model")
    paper = PAPER_TABLE_4.rename(index=label_of)
    published = (
        paper.reindex(table.index.str.removesuffix(" (2024 setting)"))
        .fillna("–")
        .set_axis(table.index)
    )
    return pd.concat({"This study": table, "Paper (other data)": published}, axis=1)


def estimates(
    bounds: pd.DataFrame, names: dict | None = None, columns=tuple(METRICS)
) -> pd.DataFrame:
    """Estimates with their intervals as text, a row per model, from
    `ecglib.analysis.inference.intervals`.
    """
    text = [interval_text(*row) for row in bounds[["estimate", "low", "high"]].to_numpy()]
    table = bounds.assign(text=text).pivot_table(
        "text", "model", "metric", aggfunc="first", sort=False
    )
    table = table[[name for name in columns if name in table]].rename(columns=METRICS)
    return table.rename(index=lambda model: label_of(model, names)).rename_axis(
        index="Model", columns=None
    )


def interval_text(estimate: float, low: float, high: float) -> str:
    """Text ``0.889 [0.861, 0.914]``; the estimate alone, or a dash, where the rest isn't known."""
    if np.isnan(estimate):
        return "–"
    return (f"{estimate:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")).replace(
        "-", "−"
    )


def p_text(p: float) -> str:
    """Text of a p-value: three decimals below 0.1, two above, "< 0.001" where they say no more."""
    return (
        "–" if np.isnan(p) else "< 0.001" if p < 0.0005 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    )


def calibrations(predictions: pd.DataFrame, names: dict | None = None) -> pd.DataFrame:
    """Calibration slope and intercept of each model, mean ± SD over rotations; a slope without a
    value is left out.
    """
    rows = [
        {"model": model} | metrics.calibration(run["label"], run["probability"])
        for (model, _), run in predictions.groupby(["model", "rotation"], sort=False)
    ]
    table = pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan).groupby("model", sort=False)
    table = table.agg(lambda values: mean_sd(values.dropna()))
    table.columns = ["Calibration slope", "Calibration intercept"]
    return table.rename(index=lambda model: label_of(model, names)).rename_axis("Model")


def paired_tests(
    differences: pd.DataFrame, delong: pd.DataFrame, names: dict | None = None
) -> pd.DataFrame:
    """Paired differences a − b with p-values of the three tests of `ecglib.analysis.inference`;
    DeLong's for the AUC alone.
    """
    of_auc = delong[["a", "b", "p"]].assign(metric="auc")
    table = differences.merge(of_auc, "left", ["metric", "a", "b"], suffixes=("", "_d"))
    rows = {
        "Metric": table["metric"].map(METRICS),
        "a": [label_of(model, names) for model in table["a"]],
        "b": [label_of(model, names) for model in table["b"]],
        "Rotations": table["rotations"],
        "a − b": [interval_text(*row) for row in table[["estimate", "low", "high"]].to_numpy()],
        "p, patients drawn (Holm)": table["p_holm"].map(p_text),
        "p, corrected t (Holm)": table["p_t_holm"].map(p_text),
        "p, DeLong": table["p_d"].map(p_text),
    }
    return pd.DataFrame(rows)


def sensitivity(told: pd.DataFrame, names: dict | None = None) -> pd.DataFrame:
    """Counts and intervals of `ecglib.analysis.subgroups.sensitivity` as text, by analysis and
    model.
    """
    tables = {}
    for analysis, part in told.groupby("analysis", sort=False):
        first, shown = part.iloc[0], estimates(part, names)
        counts = (
            f"{first['positives']} / {first['records']} "
            f"({first['positives'] / first['records']:.1%})"
        )
        shown.insert(0, "Positives / ECGs", counts)
        tables[analysis] = shown.replace("–", "too few")
    return pd.concat(tables, names=["Test records"])


def mean_sd(values: pd.Series) -> str:
    """Text ``mean ± SD`` with three decimals; the mean alone for one value, a dash for none."""
    if values.empty:
        return "–"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def table_5(
    predictions: pd.DataFrame, threshold: float, paper: bool = True, **options
) -> pd.DataFrame:
    """Table 5: metrics of one trained model at its operating point, on validation and test, with
    the test's interval.

    Parameters
    ----------
    predictions : pandas.DataFrame
        Rows of one model and one rotation.
    threshold : float
        Chosen on the validation fold (`ecglib.metrics.operating_point`).
    paper : bool
        Put the published figures below.
    **options
        Of `ecglib.analysis.inference.bootstrap`. The interval is conditional on the trained model
        and the threshold.
    """
    rows = {}
    for split, short in SPLITS.items():
        run = predictions[predictions["split"] == split]
        label, probability = run["label"].to_numpy(), run["probability"].to_numpy()
        values = metrics.at_threshold(label, probability, threshold)
        values |= {
            "auc": metrics.auc(label, probability),
            "ap": metrics.average_precision(label, probability),
        }
        rows[short] = {
            name: values[name.lower()] for name in (*PAPER_TABLE_5.columns, "TP", "FP", "FN", "TN")
        }
    thresholds = dict.fromkeys(run.groupby(["model", "rotation"]).groups, threshold)
    bounds = inference.intervals(
        inference.bootstrap(run, thresholds=thresholds, **options)
    ).set_index("metric")
    for name, limit in (("Test, lower limit", "low"), ("Test, upper limit", "high")):
        rows[name] = bounds[limit].rename(METRICS).reindex(rows["Test"]).to_dict()
    table = pd.DataFrame.from_dict(rows, orient="index").astype(
        dict.fromkeys(("TP", "FP", "FN", "TN"), "Int64")
    )
    return pd.concat({"This study": table, "Paper (other data)": PAPER_TABLE_5}) if paper else table


def selection(
    by_test: pd.Series, by_validation: pd.Series, optimism: dict, mean: pd.Series
) -> pd.DataFrame:
    """Scores of the rotation kept by its test score (the paper's rule) and by validation, and the
    mean over rotations.

    `by_test` and `by_validation` are from `ecglib.study.runs.select`, `optimism` from
    `ecglib.analysis.inference.selection_optimism`, `mean` is the score's row of
    `ecglib.analysis.inference.intervals`.
    """
    rules = {
        "Highest test score (the paper)": by_test.index[0],
        "Highest validation score": by_validation.index[0],
    }
    rows = {
        rule: {
            "Rotation": str(k),
            "Validation score": f"{by_validation[k]:.3f}",
            "Test score": f"{by_test[k]:.3f}",
        }
        for rule, k in rules.items()
    }
    first = rows["Highest test score (the paper)"]
    first |= {
        "Optimism": f"{optimism['optimism']:.3f}",
        "Test score less optimism": f"{optimism['corrected']:.3f}",
    }
    text = interval_text(*mean[["estimate", "low", "high"]])
    rows["Mean over rotations"] = {
        "Validation score": f"{by_validation.mean():.3f}",
        "Test score": text,
    }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("Rule")


def operating_points(
    run: pd.DataFrame, points: dict, level: float = 0.95, **options
) -> pd.DataFrame:
    """Metrics of one run's predictions at each of `points`, with intervals; "not attainable" for a
    point that is None.

    `options` are those of `ecglib.analysis.inference.bootstrap`; intervals are conditional on the
    model and the threshold.
    """
    rows = {}
    for name, threshold in points.items():
        if threshold is None:
            rows[name] = {"Threshold": "not attainable on validation"}
            continue
        keys = run.groupby(["model", "rotation"]).groups
        boot = inference.bootstrap(run, thresholds=dict.fromkeys(keys, threshold), **options)
        text = estimates(
            inference.intervals(boot, level), columns=("sens", "spec", "ppv", "npv", "f1", "acc")
        )
        rows[name] = {"Threshold": f"{threshold:.3f}"} | text.iloc[0].to_dict()
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("Operating point")


def risk_groups(label, probability, rule_out: float, rule_in: float) -> pd.DataFrame:
    """ECGs, positives and their share below `rule_out`, between, and from `rule_in` up (both chosen
    on validation).
    """
    label, probability = metrics.check(label, probability, classes=1)
    if rule_out >= rule_in:
        raise ValueError(
            f"The rule-out point {rule_out:.3g} isn't below the rule-in point {rule_in:.3g}; no "
            "groups"
        )
    group = pd.cut(
        probability, [-1, rule_out, rule_in, 2], right=False, labels=["low", "intermediate", "high"]
    )
    table = pd.Series(label).groupby(group, observed=False).agg(["size", "sum", "mean"])
    return table.set_axis(["ECGs", "Positives", "Share positive"], axis=1).rename_axis("Group")


def epochs_to_best(history: pd.DataFrame, names: dict | None = None) -> pd.DataFrame:
    """Epoch of the best validation score over rotations (paper, section III.A: 20 on average for
    ECG-SMART-NET).
    """
    best = history.loc[history.groupby(["model", "rotation"], sort=False)["val_score"].idxmax()]
    table = best.groupby("model", sort=False)["epoch"].agg(["mean", "std", "min", "max"])
    return table.rename(index=lambda model: label_of(model, names)).rename_axis("Model")


def styled(table: pd.DataFrame, caption: str):
    """HTML table with its caption above it and figures to three decimals."""
    above = [
        {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"}
    ]
    return (
        table.style.set_caption(caption)
        .set_table_styles(above)
        .format(precision=3, na_rep="–", escape="html")
    )
