"""The published OMI tables: refused by name when wrong, reproduced when right, and never given
away.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from web import served

from ecglib import download, metrics
from ecglib.cohort.source import SourceError
from ecglib.folders import sha256
from ecglib.study import places
from ecglib.study.params import StudyError, load_study
from ecglib.trees import omi_features as omi

STUDY = load_study("omi_features")
FOREST = {"random_forest": STUDY.models["random_forest"]}


@pytest.fixture(scope="module")
def made_up():
    return omi.make_up(seed=1)


@pytest.fixture(scope="module")
def published(real_data):
    return omi.open_tables(STUDY.omi_features, real_data / "omi-features", None)


# ------------------------------------------------------------------ the study file


@pytest.mark.parametrize(
    ("was", "put", "said"),
    [
        ("  url:", "  urll:", "omi_features.urll is not a known key; did you mean 'url'?"),
        (
            "threads_per_run:",
            "threads_per_runs:",
            "threads_per_runs is not a known key; did you mean 'threads_per_run'?",
        ),
        ("gradient_boosting", "gradient_bosting", "did you mean 'gradient_boosting'?"),
        ("nature_medicine_2023", "nature_medicine", "'nature_medicine' is not one of"),
        ("f0f0ee99", "", "omi_features.derivation_sha256"),
    ],
)
def test_a_wrong_study_file_is_refused_by_key(tmp_path, was, put, said):
    text = (places.PARAMS / "omi_features.yaml").read_text()
    assert was in text
    (tmp_path / "omi_features.yaml").write_text(text.replace(was, put))
    with pytest.raises(StudyError, match=re.escape(said)):
        load_study(tmp_path / "omi_features.yaml")


# ------------------------------------------------------------------ reading


def test_columns_are_the_74_published_ones():
    assert len(omi.COLUMNS) == len(set(omi.COLUMNS)) == 74
    assert omi.COLUMNS[:4] == ("Age", "HR", "PR", "QRSd") and omi.COLUMNS[-1] == "tamp_V6"


def test_published_tables_have_the_known_size(published):
    assert (len(published.derivation), published.derivation[omi.LABEL].sum()) == (4026, 210)
    assert (len(published.external), published.external[omi.LABEL].sum()) == (3287, 209)
    assert not published.made_up


def test_changed_or_absent_files_are_refused(made_up, tmp_path):
    with pytest.raises(
        SourceError, match=r"lacks the published Derivation_dataset.csv \(by its SHA-256\); give"
    ):
        omi.open_tables(STUDY.omi_features, tmp_path, None)
    for kind, name in omi.FILES.items():
        getattr(made_up, kind).to_csv(tmp_path / name, index=False)
    with pytest.raises(
        SourceError, match=r"lacks the published Derivation_dataset.csv \(by its SHA-256\)"
    ):
        omi.open_tables(STUDY.omi_features, tmp_path, None)


@pytest.fixture
def at_home(made_up, tmp_path):
    """Made-up tables in a folder, and settings that name their hashes."""
    hashes = {}
    for kind, name in omi.FILES.items():
        getattr(made_up, kind).to_csv(tmp_path / name, index=False)
        hashes[f"{kind}_sha256"] = sha256(tmp_path / name)
    return STUDY.omi_features.model_copy(update=hashes), tmp_path


def test_files_are_read_and_checked_when_their_hash_fits(made_up, at_home):
    settings, folder = at_home
    found = omi.open_tables(settings, folder, None)
    pd.testing.assert_frame_equal(found.external, made_up.external)
    assert found.label == ("angiographic", "angiographic OMI, published feature tables")


def test_what_is_missing_or_spoilt_is_fetched(made_up, at_home, tmp_path):
    settings, folder = at_home
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / omi.FILES["external"]).write_text("spoilt")
    with served({name: (folder / name).read_bytes() for name in omi.FILES.values()}) as web:
        settings = settings.model_copy(update={"url": web.url})
        for _ in range(2):
            found = omi.open_tables(settings, None, goal)
            pd.testing.assert_frame_equal(found.external, made_up.external)
        assert sorted(name for name, _ in web.log) == sorted(omi.FILES.values())


def test_without_a_network_tables_are_made_up_and_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    settings = STUDY.omi_features.model_copy(update={"url": "http://127.0.0.1:9/"})
    for folder in (tmp_path, None):
        found = omi.open_tables(settings, None, folder)
        assert found.made_up and found.label.kind == "synthetic"
        assert found.label.meaning.startswith("MADE-UP")
    monkeypatch.setattr(omi, "download", lambda *a, **k: pytest.fail("went to the network"))
    assert omi.open_tables(settings, None, None).made_up


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"other", "its SHA-256 differs from the study file's"), (None, "404 Not Found")],
)
def test_another_table_than_the_published_one_is_refused(monkeypatch, tmp_path, body, said):
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    with served(dict.fromkeys(omi.FILES.values(), body)) as web:
        settings = STUDY.omi_features.model_copy(update={"url": web.url})
        told = rf"Derivation_dataset.csv doesn't give the published table: {said}"
        with pytest.raises(SourceError, match=told):
            omi.open_tables(settings, None, tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ making the tables comparable


def test_columns_that_do_not_compare_are_found_without_outcomes(published):
    comparable, report = omi.make_comparable(published)
    assert set(report.index[report.decision == "dropped"]) == {
        "TrelAmp",
        "Tamp",
        "pctJNDPV",
        "JNDPV",
    }
    assert {"qdur_aVF", "TCRT", "TCRTangle", "Age"} <= set(
        report.index[report.decision == "harmonised"]
    )
    for column in set(omi.COLUMNS) & set(comparable.external):
        known, other = comparable.derivation[column], comparable.external[column].dropna()
        assert known.min() <= other.min() and other.max() <= known.max()
    assert (comparable.external.TCRT != -2).all() and comparable.external.Age.min() > 0
    swapped = omi.Tables(
        *(
            t.assign(**{omi.LABEL: 1 - t[omi.LABEL]})
            for t in (published.derivation, published.external)
        )
    )
    pd.testing.assert_frame_equal(omi.make_comparable(swapped)[1], report)


def test_overview_counts_both_tables_and_their_sum(made_up):
    table = omi.overview(made_up)
    assert table.patients.tolist() == [240, 200, 440]
    assert table.OMI["both"] == table.OMI["derivation"] + table.OMI["external"]
    assert table["OMI %"]["both"] == pytest.approx(100 * table.OMI["both"] / 440)
    assert (table["missing values %"].between(1.5, 2.5)).all()


def test_made_up_tables_show_the_same_flaws(made_up):
    comparable, report = omi.make_comparable(made_up)
    assert report.decision["TrelAmp"] == "dropped" and report.not_measured["TCRT"] == "10"
    assert comparable.made_up and len(made_up.derivation.columns) == 75


# ------------------------------------------------------------------ what the published notebook
# shows


@pytest.fixture(scope="module")
def reproduced(published):
    train, test = omi.published_split(published)
    return omi.evaluate(FOREST, train, {"test part": test, "external": published.external}, seed=42)


@pytest.mark.parametrize(("cohort", "auc"), [("test part", 0.911), ("external", 0.869)])
def test_published_results_are_reproduced(reproduced, cohort, auc):
    part = reproduced[reproduced.cohort == cohort]
    assert abs(metrics.auc(part.label, part.probability) - auc) <= 0.005
    assert abs(auc - omi.PUBLISHED_AUC[cohort]) <= 0.005


def test_cross_validation_tests_everybody_once(made_up):
    table, site = made_up.both()
    found = omi.cross_validate(FOREST, table, site, folds=3, seed=5)
    for split in ("validation", "test"):
        assert sorted(found.record_id[found.split == split]) == list(range(len(table)))
    for k, run in found.groupby("rotation"):
        following = found[(found.rotation == (k + 1) % 3) & (found.split == "validation")]
        assert set(run.record_id[run.split == "test"]) == set(following.record_id)
        share = [run.label[run.split == split].mean() for split in ("validation", "test")]
        np.testing.assert_allclose(share, table[omi.LABEL].mean(), atol=0.01)


def test_rotations_side_by_side_give_the_same_bits(made_up):
    table, site = made_up.both()
    one, two = (
        omi.cross_validate(FOREST, table, site, folds=3, seed=5, jobs=jobs) for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)


# ------------------------------------------------------------------ nothing about a patient


def test_small_counts_are_suppressed():
    assert [omi.count_text(n) for n in (0, 1, 4, 5, 12)] == ["0", "<5", "<5", "5", "12"]
    _, report = omi.make_comparable(omi.make_up(seed=1))
    shown = pd.concat([report.not_measured, report.clipped])
    counts = pd.to_numeric(shown, errors="coerce")
    assert not counts.between(1, 4).any() and counts.isna().any()


TEXT = {".csv", ".json", ".md", ".ipynb", ".svg", ".html", ".txt"}
COUNTS = re.compile(
    r"patients|omi$|positives|records|^n$|count|not_measured|clipped", re.IGNORECASE
)


def html_tables(page: str) -> list[pd.DataFrame]:
    frames = []
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        rows = [
            re.findall(r"<t[hd](?:\s[^>]*)?>(.*?)</t[hd]>", row, re.DOTALL)
            for row in table.split("</tr>")
        ]
        rows = [row for row in rows if row]
        width = min(map(len, rows))  # cells that span rows stand on the left
        frames.append(pd.DataFrame([row[-width:] for row in rows[1:]], columns=rows[0][-width:]))
    return frames


def leaks(folder: Path, tables: omi.Tables | None = None) -> list[str]:
    """What in a folder of results could be about a single patient."""
    found = []
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        if file.suffix not in TEXT | {".png"}:
            found.append(f"{file.name}: a kind of file that may hold rows or trees")
        if file.suffix not in TEXT:
            continue
        text = file.read_text()
        frames = [pd.read_csv(file)] if file.suffix == ".csv" else []
        if file.suffix == ".ipynb":
            shown = [
                o.get("data", {}) for c in json.loads(text)["cells"] for o in c.get("outputs", [])
            ]
            html = ["".join(data.get("text/html", "")) for data in shown]
            frames += [frame for page in html for frame in html_tables(page)]
        for frame in frames:
            if len(frame) > 150:
                found.append(f"{file.name}: {len(frame)} rows")
            names = {str(c).split("'")[-2] if "'" in str(c) else str(c) for c in frame}
            if names & {"record_id", "patient_id", "probability"}:
                found.append(f"{file.name}: a column per patient")
            for position, column in enumerate(frame):  # names may come twice
                values = pd.to_numeric(frame.iloc[:, position], errors="coerce")
                if COUNTS.search(str(column)) and values.between(1, 4).any():
                    found.append(f"{file.name}: {column} below 5")
        # letters are no marks
        marks = len(re.findall(r'<use [^>]*href="#m', text)) if file.suffix == ".svg" else 0
        if marks > 300:  # ticks among them
            found.append(f"{file.name}: {marks} marks")
        if tables is not None:  # fingerprints: values so exact that they point to one patient
            for table in (tables.derivation, tables.external):
                for column in ("fpTinfl1Axis", "PCA1", "JTc", "pctTNDPV", "TMD"):
                    once = table[column].dropna().drop_duplicates(keep=False)
                    exact = [f"{v}" for v in once if len(f"{v}".replace(".", "")) >= 6]
                    hits = (
                        set(re.findall(r"\d+\.\d+", text)) & set(exact)
                        if file.suffix != ".svg"
                        else set()
                    )
                    if len(hits) > 2:
                        found.append(f"{file.name}: values of {column}")
    return found


def test_the_scan_finds_what_it_should(tmp_path, made_up):
    pd.DataFrame({"group": ["low", "high"], "omi": ["10", "<5"]}).to_csv(tmp_path / "fine.csv")
    assert leaks(tmp_path, made_up) == []
    made_up.derivation.to_csv(tmp_path / "rows.csv")
    pd.DataFrame({"group": ["low"], "omi": [3]}).to_csv(tmp_path / "small.csv")
    pd.DataFrame({"patient_id": [8], "probability": [0.2]}).to_csv(tmp_path / "someone.csv")
    (tmp_path / "model.skops").write_bytes(b"")
    (tmp_path / "points.svg").write_text("<use xlink:href='#m1'/>".replace("'", '"') * 400)
    cell = {"outputs": [{"data": {"text/html": pd.DataFrame({"patients": [4]}).to_html()}}]}
    (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": [cell]}))
    names = {found.split(":")[0] for found in leaks(tmp_path)}
    assert names == {
        "rows.csv",
        "small.csv",
        "someone.csv",
        "model.skops",
        "points.svg",
        "notebook.ipynb",
    }


def test_committed_results_hold_nothing_about_a_patient():
    folder = places.REFERENCE / "omi_features"
    if not folder.exists():
        pytest.skip("no results of this study are committed yet")
    assert leaks(folder) == []


def test_committed_results_hold_no_value_of_a_patient(published):
    assert leaks(places.REFERENCE / "omi_features", published) == []


def test_tables_are_ignored_by_git():
    ignored = (places.ROOT / ".gitignore").read_text().splitlines()
    assert "data/" in ignored and not list(places.ROOT.glob("*ataset.csv"))
