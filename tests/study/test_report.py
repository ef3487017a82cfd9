"""The model card and the TRIPOD+AI table: complete, linked, and plain about the label."""

import numpy as np
import pandas as pd
import pytest

from ecglib.analysis import tables
from ecglib.study import places, report
from ecglib.study.params import load_study

SUBITEMS = {
    3: "abc",
    5: "ab",
    6: "abc",
    8: "abc",
    9: "abc",
    12: "abcdefg",
    18: "abcdef",
    20: "abc",
    23: "ab",
    27: "abc",
}
ITEMS = [f"{number}{letter}" for number in range(1, 28) for letter in SUBITEMS.get(number, [""])]


def card(kind="synthetic", normalisation="lead_zscore", points=None):
    study = load_study("demo")
    training = {"normalisation": normalisation}
    identity = {"network": "ecg_smart_net", "seed": 42, "training": training, "learning_rate": 3e-4}
    run = {
        "label": "ECG-SMART-NET",
        "rotation": 1,
        "identity": identity,
        "environment": {"commit": "0123456789abcdef"},
    }
    run |= {
        "files": {"weights.safetensors": "ab12"},
        "parameters": 6991682.0,
        "best_epoch": 2,
        "epochs": 3,
    }
    run |= {"label_kind": kind, "label_meaning": "simulated occlusion"}
    counts = pd.DataFrame({"ECGs": [60], "positives": [9]}, index=pd.Index(["test"], name="split"))
    info = {"source": "synthetic", "version": "1", "label_kind": kind}
    chosen = pd.DataFrame({"split": ["validation", "test", "test"], "label": [1, 1, 0]})
    groups = pd.DataFrame({"group": ["Sex", "Sex", "Site"], "level": ["female", "male", "Hill"]})
    groups["estimate"] = [np.nan, 0.8, np.nan]
    selected = report.selection(study, LEADS, 0)
    limits = report.limits(info, chosen, groups, points or {"rule_in": None}, selected)
    shown = dict.fromkeys(
        ("rotations", "selection", "points", "calibration", "subgroups"),
        pd.DataFrame({"AUC": [0.5, np.nan]}, index=["one", "two"]),
    )
    return report.model_card(study, info, pd.Series(run), counts, shown, limits)


@pytest.mark.parametrize("kind", report.KINDS)
def test_the_card_names_label_use_and_limits(kind):
    told = card(kind)
    assert f"simulated occlusion [{kind} label]" in told and report.KINDS[kind] in told
    assert "not a medical device" in told.splitlines()[2] and "Not for\ndiagnosis, triage" in told
    assert ("nothing here is a clinical risk" in told) == (kind != "angiographic")
    for line in (
        "- Rule-in, PPV ≥ 0.85: not attainable on validation.",
        "- Rotation 0 has the highest validation score and is kept; its test score of 0.700",
        "- Too few patients to assess the subgroups Sex (female); Site (Hill).",
        "- The test fold has 1 positives among 2 ECGs.",
        "- 2 of 5 rotations were run.",
        "- Weights: `weights.safetensors`, SHA-256 `ab12`",
    ):
        assert line in told
    assert "+0.020 to luck, which leaves 0.810" in told and "6,991,682 parameters" in told


LEADS = pd.DataFrame(
    {
        "score": [0.7, 0.9, 0.8],
        "lead": [-0.1, 0.1, 0.0],
        "others": [-0.05, 0.06, -0.01],
        "fold": [-0.06, 0.07, -0.01],
        "luck": [-0.01, 0.02, 0.0],
    },
    index=pd.Index([0, 1, 2], name="rotation"),
)


def test_what_was_selected_is_told_with_its_fold_and_its_luck():
    study = load_study("ptbxl")  # ten folds; rates were chosen on the validation folds 0 and 1
    kept, top, grid = report.selection(study, LEADS, 0)
    assert kept == (
        "Rotation 0 has the highest validation score and is kept; its test score of 0.700 ranks "
        "3 of 3, -0.100 from their mean. On the same test fold the other models lie -0.050 "
        "from theirs (r² 0.98 over rotations): -0.060 is ascribed to the fold."
    )
    assert top.startswith("The highest test score, 0.900, is that of rotation 1: +0.070 of it is")
    assert top.endswith("+0.020 to luck, which leaves 0.810.")
    assert grid == (
        "The test fold of rotation 0 was a validation fold of the choice of learning rates."
    )
    assert "was not a validation fold" in report.selection(study, LEADS, 1)[2]
    alone = report.selection(load_study("demo"), LEADS.assign(others=np.nan), 1)
    assert len(alone) == 2 and "other models" not in alone[0]


def test_card_and_table_of_selection_tell_the_same_numbers():
    scores = pd.Series([0.6, 0.5, 0.4], index=[0, 2, 1])
    mean = pd.DataFrame({"estimate": [0.8], "low": [0.7], "high": [0.9]})
    by_test = LEADS["score"].sort_values(ascending=False)
    table = tables.selection(by_test, scores, LEADS, mean)
    row = table.loc["Highest test score (the paper)"]
    left = ["1", "0.400", "0.900", "0.070", "0.020", "0.810"]
    assert row.tolist() == left and "which leaves 0.810." in card()
    kept = table.loc["Highest validation score"]
    assert kept.tolist() == ["0", "0.600", "0.700", "−0.060", "–", "0.760"]
    assert table.loc["Mean over rotations", "Test score"] == "0.800 [0.700, 0.900]"


def test_the_lowest_subgroup_and_the_operating_point_are_told():
    names = ["auc", "average_precision", "sens", "spec", "ppv"]
    bounds = pd.DataFrame({"metric": names, "estimate": 0.5, "low": 0.4, "high": 0.6})
    groups = pd.DataFrame({"group": ["Sex", "Sex", "Age"], "level": ["female", "male", "old"]})
    groups = groups.assign(positives=12, records=99, estimate=[0.9, np.nan, 0.8], low=0.7, high=1.0)
    point, lowest = report.at_point(bounds, 0.25, groups)
    assert "AUC 0.500 [0.400, 0.600]" in point and "threshold of 0.250" in point
    assert "is Age: old, 0.800 [0.700, 1.000] (12 positives among 99 ECGs)" in lowest
    assert len(report.at_point(bounds, 0.25, groups.assign(estimate=np.nan))) == 1


def test_the_card_follows_the_input():
    assert "see absolute amplitude" in card() and "each lead z-scored" in card()
    assert "see absolute amplitude" not in card(normalisation="millivolt")


def test_every_item_of_the_checklist_is_answered_or_said_not_to_be():
    table = report.tripod_ai(load_study("smoke"), "ecg_smart_net", 1)
    assert list(table.index) == ITEMS
    assert (table["How"] != "").all() and (table["Answered in"] == "no").sum() < len(ITEMS) / 2


def test_links_of_the_checklist_lead_to_notebooks_of_the_study(tmp_path):
    study, known = load_study("smoke"), {file.stem for file in places.NOTEBOOKS.glob("*.ipynb")}
    here = tmp_path / "08_selected_model"
    here.mkdir()
    for model, run in (
        ("ecg_smart_net", "05_train_network"),
        ("random_forest", "06_random_forest"),
    ):
        links = (
            report.tripod_ai(study, model, 1)["Answered in"]
            .str.extract(r"\[(.+)\]\((.+)\)")
            .dropna()
        )
        assert not links[0].str.contains("_").any()
        links[0] = links[0].str.replace(" ", "_")
        assert set(links[0]) <= known and run in set(links[0])
        for name, target in links.drop_duplicates().itertuples(index=False):
            where = (here / target).resolve().relative_to(tmp_path)
            assert str(where) == (
                f"runs/{model}/rotation_1/notebook.ipynb"
                if name == run
                else f"{name}/notebook.ipynb"
            )


def test_without_a_grid_the_study_file_stands_for_the_choice_of_rates():
    table = report.tripod_ai(load_study("demo"), "ecg_smart_net", 0)
    assert table.loc["12c", "Answered in"] == "`params/demo.yaml`"


def test_a_record_is_described_by_what_is_known():
    known = {
        "sex": "female",
        "age": 67.0,
        "mimic": "LVH",
        "culprit": "none",
        "severity": 0.0,
        "stage1": pd.NA,
    }
    assert report.describe(pd.Series(known)) == "female, 67 years, mimic: LVH"
    assert report.describe(pd.Series({"sex": None, "age": np.nan})) == "sex unknown, age unknown"
