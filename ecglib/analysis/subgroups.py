"""The same models on some of the test records: subgroups of patients, and sensitivity analyses."""

import numpy as np
import pandas as pd

from ecglib.analysis import inference

RANKING = ["auc", "average_precision"]
FEWEST = 10
"""Patients of either class below which a metric is "too few" to be estimated."""

SITES = 6
"""Sites with a line of their own; the others share one."""

ANALYSES = {
    "main": "All test ECGs (main analysis)",
    "strict_label": (
        "Positive by the stated stage of infarction; positives by an injury statement alone left "
        "out"
    ),
    "human_validated": "ECGs whose statements a human validated",
    "without_negatives_of_positive_patients": (
        "Without negative ECGs of patients who have a positive one"
    ),
}


def groups_of(records: pd.DataFrame) -> pd.DataFrame:
    """Subgroups of a cohort's records by ``record_id``: a categorical column each, NaN where a
    record is in none.

    Sex, age band, signal quality and site; culprit artery and severity of the positives where they
    are known.
    """
    sites, years = records["site"].value_counts(), [0, 50, 65, 80, 121]
    large = [*sites.index[: SITES if len(sites) > SITES + 1 else None]]
    groups = {
        "Sex": records["sex"],
        "Signal quality": records["poor_quality"].map({False: "good", True: "poor"}),
    }
    bands = ["under 50", "50 to 64", "65 to 79", "80 and over"]
    groups["Age, years"] = pd.cut(records["age"], years, right=False, labels=bands)
    if len(sites) > 1:
        named = records["site"].where(records["site"].isin(large), "other sites")
        groups["Site"] = pd.Categorical(named, [*large, "other sites"])
    if {"culprit", "severity"} <= set(records):
        ill, bands = records["label"] == 1, ["under 0.4", "0.4 to 0.75", "over 0.75"]
        groups["Culprit, of positives"] = records["culprit"].where(ill)
        groups["Severity, of positives"] = pd.cut(
            records["severity"], [-1, 0.4, 0.75, 2], labels=bands
        ).where(ill)
    return pd.DataFrame(groups).astype("category").set_index(records["record_id"])


def estimate(
    predictions: pd.DataFrame, groups: pd.DataFrame, metric: str = "auc", **options
) -> pd.DataFrame:
    """Metric with its interval in each level of each column of `groups`, for the test predictions
    of one model.

    A column that is NaN in every negative splits the positives alone: each of its levels stands
    against all negatives. `options` are those of `inference.bootstrap`.

    Returns ``group, level``, counts, and ``estimate, low, high``: NaN where there are too few, as
    `_intervals` says.
    """
    rows, negative = [], (predictions["label"] == 0).to_numpy()
    for column in groups:
        member = groups[column].reindex(predictions["record_id"])
        shared = negative if member[negative].isna().all() else np.zeros(len(member), bool)
        for level in member.cat.categories[member.cat.categories.isin(member)]:
            part = predictions[(member == level).to_numpy() | shared]
            found = _intervals(part, **options)
            row = (
                {"group": column, "level": level}
                | _counts(part)
                | dict.fromkeys(("estimate", "low", "high"), np.nan)
            )
            if found is not None:
                row |= found.set_index("metric").loc[metric, ["estimate", "low", "high"]]
            rows.append(row)
    return pd.DataFrame(rows)


def sensitivity(
    predictions: pd.DataFrame, records: pd.DataFrame, analyses, **options
) -> pd.DataFrame:
    """AUC and AP of every model on the test records that each analysis of `ANALYSES` keeps; nothing
    is trained again.

    Parameters
    ----------
    predictions, records : pandas.DataFrame
        Test predictions of all models; the cohort's records, with the columns that an analysis
        needs.
    analyses : list of str
        Keys of `ANALYSES`; the main analysis comes first in any case.

    Returns
    -------
    pandas.DataFrame
        ``analysis``, counts, then as `inference.intervals`; NaN where there are too few.
    """
    known = records.set_index("record_id")
    ill = predictions["patient_id"].isin(known["patient_id"][known["label"] == 1]).to_numpy()
    positive, tables = (predictions["label"] == 1).to_numpy(), []
    for name in dict.fromkeys(["main", *analyses]):
        if name == "main":
            kept = np.ones(len(predictions), bool)
        elif name == "without_negatives_of_positive_patients":
            kept = positive | ~ill
        else:
            column = {"strict_label": "acute_mi_strict", "human_validated": "validated_by_human"}[
                name
            ]
            kept = known[column].reindex(predictions["record_id"]).to_numpy(bool)
            kept |= ~positive if name == "strict_label" else False
        part = predictions[kept]
        found = _intervals(part, **options)
        if found is None:
            found = pd.MultiIndex.from_product(
                [predictions["model"].unique(), RANKING], names=["model", "metric"]
            )
            found = found.to_frame(index=False).assign(
                **dict.fromkeys(("estimate", "low", "high"), np.nan)
            )
        found = found[found["metric"].isin(RANKING)]
        tables.append(
            found.assign(analysis=ANALYSES[name], **_counts(part.drop_duplicates("record_id")))
        )
    return pd.concat(tables, ignore_index=True)


def _counts(part: pd.DataFrame) -> dict:
    return {
        "records": len(part),
        "patients": part["patient_id"].nunique(),
        "positives": int(part["label"].sum()),
    }


def _intervals(part: pd.DataFrame, confidence: float = 0.95, **options) -> pd.DataFrame | None:
    """Intervals of all models; None, "too few", where either class has under `FEWEST` patients, or
    a run has one class.

    And where more than a tenth of the draws would leave a run with one class: the rest would tell a
    prettier story.
    """
    patients = part.groupby("label")["patient_id"].nunique().reindex([0, 1], fill_value=0)
    if (
        patients.min() < FEWEST
        or (part.groupby(["model", "rotation"])["label"].nunique() < 2).any()
    ):
        return None
    boot = inference.bootstrap(part, **options)
    found = inference.intervals(boot, confidence)
    return found if (found["undefined"] <= 0.1 * boot.draws["auc"].shape[1]).all() else None
