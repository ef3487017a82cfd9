"""Subgroups and sensitivity analyses: which records they take, and when they say that there are too
few.
"""

import numpy as np
import pandas as pd
import pytest

from ecglib import metrics
from ecglib.analysis import subgroups, tables


@pytest.fixture(scope="module")
def cohort():
    """Records of 600 ECGs, two a patient, and test predictions of two models over two rotations."""
    generator = np.random.default_rng(0)
    n = 600
    records = pd.DataFrame(
        {"record_id": [f"r{i}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)]}
    )
    records["label"] = (np.arange(n) % 5 == 0).astype(int)
    records["site"] = np.where(np.arange(n) // 2 % 3, "Harbour", "Hill")
    records["age"] = np.where(np.arange(n) // 2 % 7, 30.0 + np.arange(n) // 2 % 60, np.nan)
    records["sex"] = np.where(np.arange(n) // 2 % 2, "female", "male")
    records["poor_quality"] = np.arange(n) % 50 == 0
    records["acute_mi_strict"] = np.where(np.arange(n) % 10 == 0, 1, 0)
    records["validated_by_human"] = np.arange(n) % 3 > 0
    records["culprit"] = np.where(
        records.label == 1, np.where(np.arange(n) % 2, "LAD", "RCA"), "none"
    )
    records["severity"] = np.where(records.label == 1, 0.5, 0.0)
    tables = []
    for model in ("a", "b"):
        probability = (0.2 * records.label + 0.8 * generator.random(n)).round(3)
        part = records[["record_id", "patient_id", "label"]].assign(
            split="test", model=model, probability=probability
        )
        tables.append(part.assign(rotation=np.arange(n) // 2 % 2))
    return records, pd.concat(tables, ignore_index=True)


def mean_auc(part):
    return np.mean(
        [metrics.auc(run["label"], run["probability"]) for _, run in part.groupby("rotation")]
    )


def pooled_auc(part):
    """All pairs of a positive and a negative of the same rotation, one by one."""
    wins = []
    for _, run in part.groupby("rotation"):
        p, n = (run["probability"][run["label"] == y].to_numpy() for y in (1, 0))
        wins.append(((p[:, None] > n) + 0.5 * (p[:, None] == n)).ravel())
    return np.concatenate(wins).mean()


def test_each_level_is_the_metric_of_its_records(cohort):
    records, predictions = cohort
    rows = predictions[predictions["model"] == "a"]
    found = subgroups.estimate(rows, subgroups.groups_of(records), draws=50).set_index(
        ["group", "level"]
    )
    hill = rows[rows["record_id"].isin(records["record_id"][records["site"] == "Hill"])]
    assert found.loc[("Site", "Hill"), "estimate"] == pytest.approx(pooled_auc(hill))
    assert found.loc[("Site", "Hill"), "low"] < found.loc[("Site", "Hill"), "high"]
    assert found.loc[("Site", "Hill"), "records"] == len(hill)
    assert found.loc["Sex", "records"].sum() == found.loc["Site", "records"].sum() == 600
    assert found.loc["Age, years", "records"].sum() == records["age"].notna().sum()
    assert list(found.loc["Age, years"].index) == [
        "under 50",
        "50 to 64",
        "65 to 79",
        "80 and over",
    ]


def test_a_part_of_the_positives_stands_against_all_negatives(cohort):
    records, predictions = cohort
    rows = predictions[predictions["model"] == "a"]
    found = subgroups.estimate(rows, subgroups.groups_of(records), draws=50).set_index(
        ["group", "level"]
    )
    lad = records["record_id"][(records["culprit"] == "LAD") | (records["label"] == 0)]
    row = found.loc[("Culprit, of positives", "LAD")]
    assert row["estimate"] == pytest.approx(pooled_auc(rows[rows["record_id"].isin(lad)]))
    assert row["records"] == 480 + row["positives"] and row["positives"] == 60
    # levels nobody has aren't listed
    assert list(found.loc["Severity, of positives"].index) == ["0.4 to 0.75"]


def test_too_few_patients_are_said_to_be(cohort):
    records, predictions = cohort
    found = subgroups.estimate(
        predictions[predictions["model"] == "a"], subgroups.groups_of(records), draws=50
    )
    poor = found.set_index(["group", "level"]).loc[("Signal quality", "poor")]
    assert poor["records"] == 12 and np.isnan(poor[["estimate", "low", "high"]].astype(float)).all()


@pytest.mark.parametrize(
    ("sizes", "named", "others"), [([30] * 8, 6, 60), ([50, 20, 19, 5], 2, 24)]
)
def test_many_sites_and_small_ones_share_a_line(sizes, named, others):
    records = pd.DataFrame({"site": np.repeat([f"s{i}" for i in range(len(sizes))], sizes)})
    records = records.assign(record_id=range(len(records)), sex="male", age=50.0, label=0)
    records["poor_quality"] = False
    site = subgroups.groups_of(records)["Site"]
    assert site.nunique() == named + 1 and (site == "other sites").sum() == others
    assert "Site" not in subgroups.groups_of(records.assign(site="s0"))


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("strict_label", lambda r: (r.label == 0) | (r.acute_mi_strict == 1)),
        ("human_validated", lambda r: r.validated_by_human),
        (
            "without_negatives_of_positive_patients",
            lambda r: (r.label == 1) | ~r.patient_id.isin(r.patient_id[r.label == 1]),
        ),
    ],
)
def test_sensitivity_takes_the_records_that_it_names(cohort, name, keep):
    records, predictions = cohort
    found = subgroups.sensitivity(predictions, records, [name], draws=100)
    assert list(found["analysis"].unique()) == [
        subgroups.ANALYSES["main"],
        subgroups.ANALYSES[name],
    ]
    kept = records["record_id"][keep(records)]
    for model in ("a", "b"):
        part = predictions[(predictions["model"] == model) & predictions["record_id"].isin(kept)]
        row = found.set_index(["analysis", "model", "metric"]).loc[
            (subgroups.ANALYSES[name], model, "auc")
        ]
        assert row["estimate"] == pytest.approx(mean_auc(part)) and row["records"] == len(
            kept
        ) == len(part)
        assert (
            row["positives"] == part["label"].sum() and row["low"] < row["estimate"] < row["high"]
        )


def test_an_analysis_that_keeps_too_few_is_shown_without_figures(cohort):
    records, predictions = cohort
    rare = records.assign(acute_mi_strict=0)
    found = subgroups.sensitivity(predictions, rare, ["strict_label"], draws=50)
    left = found[found["analysis"] == subgroups.ANALYSES["strict_label"]]
    assert len(left) == 4 and left["estimate"].isna().all() and (left["positives"] == 0).all()


def test_a_cohort_too_small_for_any_analysis_gets_a_table_that_says_so(cohort):
    records, predictions = cohort
    few = predictions[predictions["record_id"].isin(records["record_id"][:40])]
    shown = tables.sensitivity(subgroups.sensitivity(few, records, ["human_validated"], draws=50))
    assert len(shown) == 4 and (shown.drop(columns="Positives / ECGs") == "too few").all(axis=None)


@pytest.fixture(scope="module")
def rare():
    """Twelve positives of a level, all but one in the first of two rotations, none in the third."""
    rows = pd.DataFrame({"record_id": range(330), "patient_id": range(330)})
    rows["rotation"] = rows["record_id"] % 3
    rows["label"] = rows["record_id"].isin([*range(0, 33, 3), 1]).astype(int)
    rows = rows.assign(model="a", split="test", probability=(rows["record_id"] * 37 % 331) / 331)
    return rows, pd.DataFrame({"group": pd.Categorical(["x"] * 330)}, index=rows["record_id"])


def test_a_level_that_a_rotation_lacks_counts_by_its_pairs(rare):
    rows, groups = rare
    found = subgroups.estimate(rows, groups, draws=300).iloc[0]
    assert found["estimate"] == pytest.approx(pooled_auc(rows)) and found["positives"] == 12
    assert found["low"] < found["estimate"] < found["high"]
    few = rows.assign(label=rows["label"] * (rows["record_id"] != 1) * (rows["record_id"] > 5))
    assert few["label"].sum() == 9
    assert np.isnan(subgroups.estimate(few, groups, draws=100)["estimate"]).all()


def test_pooled_limits_agree_with_delongs_in_one_rotation(cohort):
    """One ECG a patient and one rotation: all pairs, whose standard error is known."""
    from ecglib.analysis import comparison

    rows = cohort[1][cohort[1]["model"] == "a"].assign(rotation=0, patient_id=range(600))
    found = subgroups.pooled_auc(rows, draws=2000)
    area, variance = comparison.delong(rows["label"], rows["probability"])
    assert found["estimate"] == pytest.approx(area[0])
    reach = 1.98 * np.sqrt(variance[0, 0])
    assert found["low"] == pytest.approx(area[0] - reach, abs=0.15 * reach)
    assert found["high"] == pytest.approx(area[0] + reach, abs=0.15 * reach)


def test_calibration_of_a_level_is_that_of_its_risks(cohort):
    records, predictions = cohort
    rows = predictions[predictions["model"] == "a"]
    rows = rows.assign(risk=np.where(rows["record_id"].isin(hill_of(records)), 0.1, 0.2))
    found = subgroups.estimate(rows, subgroups.groups_of(records), draws=200)
    found = found.set_index(["group", "level"])
    ratio = found["ratio_estimate"]
    assert ratio["Site", "Harbour"] == pytest.approx(1, abs=0.02)
    assert ratio["Site", "Hill"] == pytest.approx(2, abs=0.05)
    hill = found.loc[("Site", "Hill")]
    assert hill["ratio_low"] < hill["ratio_estimate"] < hill["ratio_high"]
    # positives of one culprit against all negatives say nothing of calibration
    assert np.isnan(ratio["Culprit, of positives", "LAD"])
    shown = tables.subgroups(found.reset_index())
    assert shown["Observed / expected"].str.match(r"\d\.\d+ \[|too few").all()


def hill_of(records):
    return records["record_id"][records["site"] == "Hill"]
