"""The model card and the TRIPOD+AI table: complete, linked, and plain about the label."""

import numpy as np
import pandas as pd
import pytest

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
    optimism = {"apparent": 0.8, "optimism": 0.0312}
    limits = report.limits(info, chosen, optimism, groups, points or {"rule_in": None}, "Easy.")
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
        "- Easy.",
        "- Too few to say how it does by Sex (female); Site (Hill).",
        "- Its test fold has 1 positives among 2 ECGs.",
        "- 2 of 5 rotations were run.",
        "- Weights: `weights.safetensors`, SHA-256 `ab12`",
    ):
        assert line in told
    assert "about 0.031 of it is estimated to be luck" in told and "6,991,682 parameters" in told


def test_an_easy_fold_is_told():
    scores = {
        "test": {"net": (0.9, 0.7, 0.8), "forest": (0.8, 0.7, 0.6), "tree": (0.75, 0.7, 0.65)}
    }
    scores["validation"] = {
        "net": (0.6, 0.8, 0.7),
        "forest": (0.5, 0.5, 0.5),
        "tree": (0.5, 0.5, 0.5),
    }
    rows = [
        (s, m, r, x)
        for s, models in scores.items()
        for m, xs in models.items()
        for r, x in enumerate(xs)
    ]
    table = pd.DataFrame(rows, columns=["split", "model", "rotation", "score"])
    assert report.ease(table, "net", 0) == (
        "Rotation 0 has the highest validation score; its test score lies +0.100 from the mean "
        "over rotations and is number 1 of 3. On the same test fold 2 other models lie +0.075 "
        "from their means."
    )
    assert "other models" not in report.ease(table[table.model == "net"], "net", 0)


def test_the_card_follows_the_input():
    assert "blind to absolute amplitude" in card() and "each lead z-scored" in card()
    assert "blind to absolute amplitude" not in card(normalisation="millivolt")


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
