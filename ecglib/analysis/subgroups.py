"""The same models on some of the test records: subgroups of patients, and sensitivity analyses."""

import numpy as np
import pandas as pd

from ecglib.analysis import inference

RANKING = ["auc", "average_precision"]
FEWEST = 10
"""Patients of either class below which a metric is "too few" to be estimated."""

SITES, FEW_ECGS = 6, 20
"""Sites with a line of their own, at most, and the ECGs that each needs; the others share one."""

ANALYSES = {
    "main": "All test ECGs (main analysis)",
    "strict_label": "Positive by the stated stage of infarction; "
    "positives by an injury statement alone left out",
    "human_validated": "ECGs whose statements a human validated",
    "without_negatives_of_positive_patients": "Without negative ECGs of patients "
    "who have a positive one",
    "within_12_h": "ECGs of the 12 h before angiography",
    "within_24_h": "ECGs of the 24 h before angiography",
    "nstemi_only": "ECGs of patients with NSTEMI, whose occlusions ST criteria miss",
    "without_pacing": "Without paced ECGs",
    "without_earlier_pci": "Without patients who had a PCI before",
}
KEPT = {  # of the cohort's records, by their columns
    "strict_label": lambda known: (known["label"] == 0) | known["acute_mi_strict"].astype(bool),
    "human_validated": lambda known: known["validated_by_human"].astype(bool),
    "without_negatives_of_positive_patients": lambda known: (
        (known["label"] == 1) | ~known["patient_id"].isin(known["patient_id"][known["label"] == 1])
    ),
    "within_12_h": lambda known: known["hours"] <= 12,
    "within_24_h": lambda known: known["hours"] <= 24,
    "nstemi_only": lambda known: known["presentation"] == "NSTEMI",
    "without_pacing": lambda known: known["paced"] == 0,
    "without_earlier_pci": lambda known: known["prior_pci"] == 0,
}


def groups_of(records: pd.DataFrame) -> pd.DataFrame:
    """Subgroups of a cohort's records by ``record_id``: a categorical column each, NaN where a
    record is in none.

    Sex, age band, signal quality and site; time to angiography, and culprit artery, presentation
    and severity of the positives, where they are known.
    """
    sites, years = records["site"].value_counts(), [0, 50, 65, 80, 121]
    large = [*sites[sites >= FEW_ECGS].index[:SITES]]
    groups = {
        "Sex": records["sex"],
        "Signal quality": records["poor_quality"].map({False: "good", True: "poor"}),
    }
    bands = ["under 50", "50 to 64", "65 to 79", "80 and over"]
    groups["Age, years"] = pd.cut(records["age"], years, right=False, labels=bands)
    if len(sites) > 1:
        named = records["site"].where(records["site"].isin(large), "other sites")
        groups["Site"] = pd.Categorical(named, [*large, "other sites"])
    ill = records["label"] == 1
    for column in ("culprit", "presentation"):
        if column in records:
            groups[f"{column.capitalize()}, of positives"] = records[column].where(ill)
    if "severity" in records:
        bands = ["under 0.4", "0.4 to 0.75", "over 0.75"]
        groups["Severity, of positives"] = pd.cut(
            records["severity"], [-1, 0.4, 0.75, 2], labels=bands
        ).where(ill)
    if "hours" in records:
        bands = ["under 12", "12 to 24", "24 to 72", "72 and over"]
        groups["Hours to angiography"] = pd.cut(
            records["hours"], [0, 12, 24, 72, np.inf], right=False, labels=bands
        )
    return pd.DataFrame(groups).astype("category").set_index(records["record_id"])


def cases(predictions: pd.DataFrame, threshold: float, most: int = 1) -> pd.DataFrame:
    """The surest true positives, false positives and false negatives of a test fold, at most `most`
    of each: rows of `predictions` with the columns ``case`` and ``number``, from 1.
    """
    test = predictions[predictions["split"] == "test"].sort_values("probability", ascending=False)
    called, ill = test["probability"] >= threshold, test["label"] == 1
    kinds = {
        "true positive": test[called & ill],
        "false positive": test[called & ~ill],
        "false negative": test[~called & ill].iloc[::-1],
    }
    parts = (part.head(most).assign(case=case) for case, part in kinds.items())
    return pd.concat([part.assign(number=range(1, len(part) + 1)) for part in parts])


def estimate(
    predictions: pd.DataFrame, groups: pd.DataFrame, confidence: float = 0.95, **options
) -> pd.DataFrame:
    """AUC and calibration in each level of each column of `groups`, for the test predictions of one
    model.

    The AUC is that of all pairs of a positive and a negative of the same rotation
    (`pooled_auc`), so that a level counts that is rare in a single fold. A column that is
    NaN in every negative splits the positives alone: each of its levels stands against all
    negatives, and has no calibration. `options` are those of `inference.bootstrap`.

    Returns ``group, level``, counts, ``estimate, low, high``, and of predictions with a ``risk``
    (`calibration.with_risk`) ``ratio_estimate, ratio_low, ratio_high``, positives observed to
    expected: NaN where either class has under `FEWEST` patients.
    """
    rows, negative = [], (predictions["label"] == 0).to_numpy()
    told, limits = options | {"confidence": confidence}, ["estimate", "low", "high"]
    for column in groups:
        member = groups[column].reindex(predictions["record_id"])
        alone = member[negative].isna().all()
        for level in member.cat.categories[member.cat.categories.isin(member)]:
            part = predictions[(member == level).to_numpy() | (negative & alone)]
            auc, ratio = dict.fromkeys(limits, np.nan), dict.fromkeys(limits, np.nan)
            if _enough(part):
                auc = pooled_auc(part, **told)
                if "risk" in part and not alone:
                    given = part[["label"]], part["patient_id"], part["risk"]
                    found = inference.patient_intervals(*given, **told).iloc[0]
                    ratio = dict(zip(limits, found, strict=True))
            rows.append({"group": column, "level": level} | _counts(part))
            rows[-1] |= {name: auc[name] for name in limits}
            if "risk" in part:
                rows[-1] |= {f"ratio_{name}": ratio[name] for name in limits}
    return pd.DataFrame(rows)


def pooled_auc(run: pd.DataFrame, confidence: float = 0.95, **options) -> dict:
    """AUC over all pairs of a positive and a negative of the same rotation, of one model.

    Pools what a mean over rotations can't hold: rotations with few positives count by their pairs,
    those of one class not at all. Returns what `inference.interval` does.
    """
    boot = inference.bootstrap(run, **options)
    with np.errstate(invalid="ignore"):
        area, drawn = (
            np.nansum(part["auc"] * part["pairs"], axis=0) / part["pairs"].sum(axis=0)
            for part in (boot.estimate, boot.draws)
        )
    return inference.interval(area, drawn, inference.effective_patients(run), confidence)


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
    known, rows = records.set_index("record_id"), []
    for name in dict.fromkeys(["main", *analyses]):
        part = predictions
        if name in KEPT:
            part = part[KEPT[name](known)[part["record_id"]].to_numpy()]
        counts = _counts(part.drop_duplicates("record_id"))
        found = _intervals(part, **options)
        rows.append(found.assign(analysis=ANALYSES[name], **counts))
    return pd.concat(rows, ignore_index=True)


def _counts(part: pd.DataFrame) -> dict:
    return {
        "records": len(part),
        "patients": part["patient_id"].nunique(),
        "positives": int(part["label"].sum()),
    }


def _enough(part: pd.DataFrame) -> bool:
    """Whether each class has at least `FEWEST` patients."""
    patients = part.groupby("label")["patient_id"].nunique()
    return patients.reindex([0, 1], fill_value=0).min() >= FEWEST


def _intervals(part: pd.DataFrame, confidence: float = 0.95, **options) -> pd.DataFrame:
    """Intervals of the AUC and AP of each model; NaN, "too few", if not `_enough`, where a run has
    one class, and where more than a tenth of the draws would leave it one: the rest would tell a
    prettier story.
    """
    boot = inference.bootstrap(part, **options)
    found = inference.intervals(boot, confidence)
    found = found[found["metric"].isin(RANKING)]
    few = found["undefined"] > (0.1 * boot.draws["auc"].shape[1] if _enough(part) else -1)
    return found.assign(**found[["estimate", "low", "high"]].mask(few))
