"""Subgroups and sensitivity analyses: which records they take, and when they say that there are too
few.
"""

import numpy as np
import pandas as pd
import pytest

from ecglib import metrics
from ecglib.analysis import inference, subgroups, tables


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


def test_each_level_is_the_metric_of_its_records(cohort):
    records, predictions = cohort
    rows = predictions[predictions["model"] == "a"]
    found = subgroups.estimate(rows, subgroups.groups_of(records), draws=50).set_index(
        ["group", "level"]
    )
    hill = rows[rows["record_id"].isin(records["record_id"][records["site"] == "Hill"])]
    assert found.loc[("Site", "Hill"), "estimate"] == pytest.approx(mean_auc(hill))
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
    assert row["estimate"] == pytest.approx(mean_auc(rows[rows["record_id"].isin(lad)]))
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


def test_many_small_sites_share_a_line():
    records = pd.DataFrame(
        {"record_id": range(100), "site": [f"s{min(i // 10, 9)}" for i in range(100)]}
    )
    records = records.assign(sex="male", age=50.0, label=0, poor_quality=False)
    site = subgroups.groups_of(records)["Site"]
    assert site.nunique() == subgroups.SITES + 1 and (site == "other sites").sum() == 40
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


def test_draws_that_often_lose_a_class_are_too_few():
    """Ten positive patients in all, but one alone in the second rotation: other patients might
    leave none there.
    """
    rows = pd.DataFrame(
        {"record_id": range(220), "patient_id": range(220), "rotation": np.arange(220) % 2}
    )
    rows["label"] = (rows["record_id"].isin([*range(0, 20, 2), 1])).astype(int)
    rows = rows.assign(model="a", split="test", probability=np.linspace(0, 1, 220), group="x")
    groups = rows.set_index("record_id")[["group"]].astype("category")
    boot = inference.bootstrap(rows, 100)
    assert np.isnan(boot.draws["auc"]).any(axis=0).mean() > 0.1
    assert np.isnan(subgroups.estimate(rows, groups, draws=100)["estimate"]).all()
