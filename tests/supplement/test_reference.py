"""What is kept to be read: copying, comparing, and the README's figures and links."""

import json
import re
import types

import collect
import nbformat
import pandas as pd
import pytest
import reference
from saved_cohort import finished, made_up_cohort

from ecglib import load_model, trainer
from ecglib.analysis.tables import PAPER_TABLE_4
from ecglib.folders import sha256, write_json
from ecglib.folds import build_folds
from ecglib.study import places, runs
from ecglib.study.learned import FILE
from ecglib.study.params import StudyError, load_study
from ecglib.study.runs import RunError
from ecglib.study.training import run_identity

README = places.ROOT / "README.md"


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Outputs of a study with one step, one run, and things that aren't kept."""
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(places, "REFERENCE", tmp_path / "outputs" / "reference")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    study = tmp_path / "outputs" / "made_up"
    for folder in (
        "07_comparison/tables",
        "runs/net/rotation_0",
        "runs/net/rotation_1.partial",
        "logs",
    ):
        (study / folder).mkdir(parents=True)
    table = pd.DataFrame(
        {"AUC": ["0.900 ± 0.010", "0.800"], "seconds": ["3", "4"]}, index=["a", "b"]
    )
    table.to_csv(study / "07_comparison" / "tables" / "table_4.csv")
    told = {
        "path": f"{tmp_path}/outputs/x",
        "data_dir": "/home/me/ecgs",
        "source": 'data_dir = "/home/me/ecgs"\n',
    }
    (study / "07_comparison" / "notebook.ipynb").write_text(json.dumps(told))
    (study / "07_comparison" / "run.json").write_text(
        json.dumps({"environment": {"commit": "0123456789abcdef"}})
    )
    for name in (
        "run.json",
        "predictions.parquet",
        "weights.safetensors",
        "checkpoint.pt",
        "notebook.ipynb",
    ):
        (study / "runs/net/rotation_0" / name).write_text("{}")
        (study / "runs/net/rotation_1.partial" / name).write_text("{}")
    (study / "logs" / "x.csv").write_text("a")
    return study


def test_kept_is_what_is_read(outputs, tmp_path):
    reference.keep("made_up")
    there = {
        str(f.relative_to(places.REFERENCE)) for f in places.REFERENCE.rglob("*") if f.is_file()
    }
    step, run = "made_up/07_comparison", "made_up/runs/net/rotation_0"
    assert there == {
        *(f"{step}/{name}" for name in ("notebook.ipynb", "run.json", "tables/table_4.csv")),
        *(f"{run}/{name}" for name in ("run.json", "predictions.parquet")),
    }
    text = (places.REFERENCE / step / "notebook.ipynb").read_text()
    assert (
        str(tmp_path) not in text
        and "/home/me" not in text
        and json.loads(text)["data_dir"] == "DATA_DIR"
    )


def test_a_fresh_run_is_compared_cell_by_cell(outputs):
    reference.keep("made_up")
    file = outputs / "07_comparison" / "tables" / "table_4.csv"
    assert reference.check("made_up").same.all()
    text = file.read_text()
    file.write_text(text.replace("0.900 ± 0.010", "0.905 ± 0.012").replace(",3", ",9"))
    assert reference.check("made_up").same.all(), "within the tolerance, and seconds don't count"
    file.write_text(text.replace("0.900", "0.850"))
    found = reference.check("made_up").iloc[0]
    assert not found.same and "0.850 ± 0.010 instead of 0.900 ± 0.010" in found.reason
    file.write_text(text.replace("b,0.800", "c,0.800"))
    assert not reference.check("made_up").same.all()
    file.unlink()
    assert "no such table" in reference.check("made_up").reason[0]


def one_run(folder, probability, device):
    folder.mkdir(parents=True, exist_ok=True)
    told = {"record_id": [f"r{i}" for i in range(8)], "label": [0, 1] * 4, "split": "test"}
    pd.DataFrame(told | {"probability": probability}).to_parquet(folder / "predictions.parquet")
    files = {"predictions.parquet": sha256(folder / "predictions.parquet")}
    write_json(folder / "run.json", {"files": files, "device": device})


def test_one_rotations_runs_are_compared_with_those_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(places, "OUTPUTS", tmp_path)
    monkeypatch.setattr(places, "REFERENCE", tmp_path / "reference")
    kept = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    one_swap = [0.1, 0.9, 0.2, 0.8, 0.65, 0.7, 0.4, 0.6]  # one of 16 pairs: AUC 1 − 1/16
    study = load_study("smoke")
    fresh = [places.run_folder("smoke", model, 1) for model in study.models]
    for folder in fresh:
        one_run(places.REFERENCE / folder.relative_to(tmp_path), kept, "cpu")
    with pytest.raises(RunError, match=r"ecg_smart_net/rotation_1 has no run\.json"):
        reference.check_rotation(study, 1)
    for folder, now in zip(fresh, (kept, one_swap, one_swap), strict=True):
        one_run(folder, now, "NVIDIA H200" if folder == fresh[2] else "cpu")
    monkeypatch.setattr(reference, "OTHER", {"AUC": 0.1, "AP": 0.15})
    found = reference.check_rotation(study, 1)
    assert found.same.tolist() == [True, False, True] and found["AUC now"].iloc[1] == 1 - 1 / 16
    assert found.largest.tolist() == pytest.approx([0, 0.35, 0.35])
    assert found.devices.tolist() == ["cpu", "cpu", "cpu → NVIDIA H200"]
    assert reference.main(["runs", "smoke", "--rotation", "1"]) == 0
    marks = capsys.readouterr().out.split()
    assert [mark.rsplit("runs/")[1] for mark in marks] == [
        f"{model}/rotation_1.done" for model in study.models
    ]


def test_what_is_missing_is_said(outputs):
    with pytest.raises(StudyError, match="no reference results"):
        reference.check("made_up")
    with pytest.raises(StudyError, match="no outputs to keep"):
        reference.keep("nothing")


def test_the_readmes_figures_are_those_of_the_reference_results():
    assert re.findall(r"<!-- reference: (\w+) -->", README.read_text()), (
        "the README shows no result"
    )
    assert reference.fill(README) == README.read_text(), (
        "call make keep for the study whose figures changed"
    )


def test_the_readmes_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README.read_text())
    assert links
    missing = [link for link in links if "://" not in link and not (places.ROOT / link).exists()]
    assert not missing


def test_every_run_among_the_reference_results_counts_as_done():
    kept = [
        told
        for told in places.REFERENCE.rglob("run.json")
        if told.parent.name.startswith("rotation_")
    ]
    assert kept
    for told in kept:
        runs.read_run(told.parent)


def test_every_kept_network_is_the_run_that_its_study_asks_for():
    studies = {path.name: load_study(path.name) for path in places.REFERENCE.iterdir()}
    kept = [
        (studies[name], told["identity"])
        for name in studies
        for file in (places.REFERENCE / name).glob("runs/*/*/run.json")
        if "learning_rate" in (told := json.loads(file.read_text()))["identity"]
    ]
    assert kept
    for study, told in kept:
        cohort = types.SimpleNamespace(key=told["cohort"])
        model, rotation, rate = (told[key] for key in ("model", "rotation", "learning_rate"))
        assert run_identity(study, model, rotation, cohort, rate) == told


def test_nothing_large_or_of_this_machine_is_kept():
    files = [f for f in places.REFERENCE.rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files if f.suffix != ".safetensors")
    assert size < 40e6, f"{size / 1e6:.1f} MB"
    told = [
        f
        for f in files
        if f.suffix in (".ipynb", ".json") and re.search(r'"/(home|root|work|tmp)/', f.read_text())
    ]
    assert not told


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A study's selected run, its cohort, and the folder in which results are kept."""
    cohort = made_up_cohort(tmp_path / "cohort")
    told = run_identity(load_study("smoke"), "mayo_alvd", 0, cohort, 3e-3)
    told["training"] |= {"epochs": 2}
    monkeypatch.setattr(reference, "cohort_of", lambda study: cohort)
    for name, place in (("ROOT", "."), ("OUTPUTS", "outputs"), ("REFERENCE", "outputs/reference")):
        monkeypatch.setattr(places, name, tmp_path / place)
    run, step = (
        places.run_folder("smoke", "mayo_alvd", 0),
        places.step_folder("smoke", "08_selected_model"),
    )
    run.mkdir(parents=True), step.mkdir()
    finished(run, told, trainer.train(told, cohort, build_folds(cohort.records, 4, 0), run))
    (run / FILE).write_bytes(b"hashes")
    write_json(step / "run.json", {"model": "mayo_alvd", "rotation": 0})
    (step / "model_card.md").write_text(
        "# Card\n\n- Weights: `weights.safetensors`, SHA-256 `ab12`\n- More\n"
    )
    reference.keep("smoke")
    return places.REFERENCE / "smoke" / "runs" / "mayo_alvd" / "rotation_0"


def test_a_kept_run_counts_as_done(trained):
    assert runs.read_run(trained) and not (trained / places.WEIGHTS).exists()


def test_a_network_is_shipped_in_half_the_size_and_scores_the_same(trained):
    own = places.run_folder("smoke", "mayo_alvd", 0)
    assert not (trained / places.WEIGHTS).exists()
    assert "changes no test score" in reference.ship(load_study("smoke"))
    assert (trained / places.WEIGHTS).stat().st_size < 0.6 * (own / places.WEIGHTS).stat().st_size
    facts = runs.read_run(trained)
    assert facts["weights"] == "float16", "its hash is the shipped file's"
    kept = [(folder / FILE).read_bytes() for folder in (own, trained)]
    assert kept == [b"hashes"] * 2, "others can tell what it learned from"
    card = (
        (places.REFERENCE / "smoke" / "08_selected_model" / "model_card.md")
        .read_text()
        .splitlines()
    )
    assert card[2].startswith(
        "- Weights: `weights.safetensors`, SHA-256 `ab12` as trained; shipped in half precision"
    )
    assert card[2].endswith(f"`{facts['files'][places.WEIGHTS]}`") and card[3] == "- More"
    load_model(trained)


def test_a_network_whose_scores_would_change_is_not_shipped(trained, monkeypatch):
    monkeypatch.setattr(reference, "MOST", 0.0)
    with pytest.raises(StudyError, match="changes a score of rotation_0 by"):
        reference.ship(load_study("smoke"))
    assert not (trained / places.WEIGHTS).exists()


@pytest.fixture
def pages(tmp_path):
    """Sources of the site of one made-up study, named as a study that there is."""
    study = tmp_path / "reference" / "smoke"
    step = study / "07_comparison"
    (step / "tables").mkdir(parents=True), (step / "figures").mkdir()
    aucs = {"Net": "0.85 [0.8, 0.9]", "Worse": "0.75 [0.7, 0.8]"}
    pd.DataFrame({"AUC": aucs, "AP": "0.5 [0.4, 0.6]", "Brier": "0.1"}).to_csv(
        step / "tables" / "extended.csv"
    )
    gap = {"Metric": "AUC", "a": "Net", "b": "Worse", "a − b": "0.10 [0.05, 0.15]"}
    pd.DataFrame([gap | {"p, patients drawn (Holm)": "< 0.001"}]).to_csv(
        step / "tables" / "paired_tests.csv"
    )
    told = {"label_kind": "synthetic", "label_meaning": "made up", "findings": ["Net leads."]}
    environment = {"commit": "0123456789abcdef", "finished": "2026-01-01T00:00:00", "python": "3"}
    told |= {"notebook": step.name, "environment": environment | {"versions": {"torch": "2"}}}
    (step / "run.json").write_text(json.dumps(told))
    new, picture = nbformat.v4, {"image/png": "iVBORw0KGgo="}
    shown = [new.new_output("stream", text="before\n")]
    for name in ("fig_6_roc_pr", "other"):
        shown.append(new.new_output("display_data", picture))
        shown[-1].metadata = {"name": name, "caption": f"What {name} shows [synthetic]."}
        (step / "figures" / f"{name}.png").write_bytes(b"png")
    cells = [new.new_markdown_cell("# 07 · Comparison\n\nText."), new.new_code_cell("x = 1")]
    cells += [new.new_code_cell("show()", outputs=shown), new.new_markdown_cell("## Findings")]
    done = [new.new_output("stream", text="Net leads.\n")]
    cells.append(new.new_code_cell("step.finish(findings)", outputs=done))
    nbformat.write(new.new_notebook(cells=cells), step / "notebook.ipynb")
    collect.main(study.parent, tmp_path / "source")
    return tmp_path / "source"


def test_the_first_page_says_what_came_out(pages):
    text = (pages / "index.md").read_text()
    assert "- Net leads." in text and "smoke/07_comparison.ipynb" in text
    words = " ".join(re.sub(r"<[a-z/][^>]*>", " ", text).split())
    assert "Worse 0.75 [0.7, 0.8]" in words
    assert "0.10 [0.05, 0.15] < 0.001" in words.replace("&lt;", "<")


def test_a_page_names_its_study_and_each_picture_has_its_caption(pages):
    cells = nbformat.read(pages / "smoke" / "07_comparison.ipynb", 4).cells
    head = cells[0].source
    assert head.startswith("# 07 · Comparison · smoke") and "band synthetic" in head
    assert "made up [**synthetic**]" in head and "10% of the occlusions are subtle" in head
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == ["x = 1\n\nshow()", "", "", "step.finish(findings)"]
    captions = [cell.metadata["mystnb"]["figure"]["caption"] for cell in code[1:3]]
    assert captions == ["What fig_6_roc_pr shows [synthetic].", "What other shows [synthetic]."]
    assert code[-1].outputs[0]["data"]["text/markdown"] == "- Net leads."
    assert "commit `0123456789`" in (pages / "smoke" / "index.md").read_text()


def test_the_paper_stands_beside_ours_item_by_item(pages):
    text = (pages / "paper.md").read_text()
    for item in (
        *(f"## Figure {n}:" for n in range(1, 8)),
        *(f"## Table {n}:" for n in range(1, 6)),
    ):
        assert item in text
    assert "figures/smoke_fig_6_roc_pr.png" in text and "0.889" in text and "<!--" not in text


def test_the_first_page_agrees_with_the_tables_that_are_kept():
    frame = collect.results(places.REFERENCE / "ptbxl")
    kept = pd.read_csv(places.REFERENCE / "ptbxl/07_comparison/tables/differences.csv", index_col=0)
    kept = kept[(kept.metric == "auc") & (kept.a == "ecg_smart_net")]
    assert len(frame) == len(kept) + 1 and list(frame["Test AUC [95 %]"]) == list(
        pd.read_csv(places.REFERENCE / "ptbxl/07_comparison/tables/extended.csv").AUC
    )


def test_one_run_of_each_kind_keeps_its_notebook(outputs):
    for model, kind in (("a", "05_train_network"), ("net", "05_train_network"), ("z", "06_forest")):
        run = outputs / "runs" / model / "rotation_0"
        (run / "figures").mkdir(parents=True, exist_ok=True)
        (run / "run.json").write_text(json.dumps({"notebook": kind}))
        (run / "notebook.ipynb").write_text("{}")
        (run / "figures" / "history.png").write_bytes(b"")
    (outputs / "08_selected_model").mkdir()
    chosen = {"model": "net", "rotation": 0}
    (outputs / "08_selected_model" / "run.json").write_text(json.dumps(chosen))
    reference.keep("made_up")
    kept = {f.parent.parent.name for f in places.REFERENCE.rglob("runs/*/*/notebook.ipynb")}
    drawn = {f.parents[2].name for f in places.REFERENCE.rglob("runs/*/*/figures/*.png")}
    assert kept == drawn == {"net", "z"}


def test_the_figures_in_the_sentences_of_the_readme_are_those_that_are_kept():
    told, kept = " ".join(README.read_text().split()), places.REFERENCE / "ptbxl"
    table = pd.read_csv(kept / "07_comparison/tables/sensitivity.csv", index_col=0)
    stated = table[table.analysis.str.startswith("Positive by the stated stage")].set_index(
        ["model", "metric"]
    )
    whole = table[table.analysis.str.startswith("All test ECGs")].iloc[0]
    first = stated.iloc[0]
    said = [f"of the {whole.positives} positives {first.positives} have a stated acute stage"]
    said += [
        f"{whole.positives - first.positives} only a statement",
        f"at {100 * first.positives / first.records:.1f} %",
    ]
    for model in ("ecg_smart_net", "gradient_boosting"):
        auc, ap = (stated.loc[(model, metric)] for metric in ("auc", "average_precision"))
        said += [f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in (auc, ap)]
    waves = (
        pd.read_csv(kept / "09_saliency/tables/segment_contributions.csv", index_col=0)
        .loc[["ST", "T"]]
        .sum()
    )
    said.append(f"hold {100 * waves['mean']:.0f} % of the saliency and an even map would give them")
    said.append(f"give them {100 * waves['even map']:.0f} %")
    said.append("none of four methods passes all three checks")
    front = places.REFERENCE / "omi_features/11_omi_features/tables/front.csv"
    omi, ours = (
        pd.read_csv(file, index_col=0).AUC.str[:5]
        for file in (front, kept / "07_comparison/tables/extended.csv")
    )
    boosting = "Gradient boosting"
    said.append(f"reaches a test AUC of {omi['Random Forest, all columns']} and gradient boosting")
    said.append(f"boosting {omi[boosting + ', all columns']}.")
    said.append(f"ECG-SMART-NET reaches {ours['ECG-SMART-NET']} and boosting")
    said.append(f"features {ours[boosting]}, so")
    pairs = pd.read_csv(kept / "07_comparison/tables/differences.csv").query("metric == 'auc'")
    pairs = pairs[pairs.a == "ecg_smart_net"].set_index("b")
    for other, sign, word in (
        ("gradient_boosting", -1, "lower"),
        ("temporal_resnet18", 1, "lower"),
        ("ecg_smart_net_millivolt", -1, "higher"),
    ):
        row = pairs.loc[other]
        ends = sorted(sign * end for end in (row.low, row.high))
        interval = ", ".join(f"{end:.3f}".replace("-", "−") for end in ends)
        said.append(f"{word} by {sign * row.estimate:.3f} [{interval}]")
    assert [words for words in said if words not in told] == []
    checks = pd.read_csv(kept / "09_saliency/tables/checks.csv")[
        ["randomisation", "deletion", "localisation"]
    ]
    assert len(checks) == 4 and not (checks == "yes").all(axis=1).any()
    assert json.loads((kept / "04_learning_rate/run.json").read_text())["at_edge"] == []
    for model in ("ECG-SMART-NET", "Random Forest"):
        row = PAPER_TABLE_4.loc[model]
        assert f"{row['Test AUC']}, " in told and row["Test AP"] in told
