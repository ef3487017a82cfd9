"""What notebooks find: computed, in their last cell, of the study's own numbers and no other's."""

import json
import re
import shutil

import nbformat
import pandas as pd
import pytest
import yaml
from study_home import TINY, Home

from ecglib.study import places

PUBLISHED = ("0.889", "0.864", "published 0.91", "published 0.87")  # of the paper and its tables


def numbers(text: str) -> set[str]:
    """Numbers with a decimal point, as they are written."""
    return set(re.findall(r"\d+\.\d+", text))


def written(folder) -> set[str]:
    """Every number of a step's tables, to one, two and three decimals, and as a percentage."""
    found = set()
    for file in folder.glob("tables/*.csv"):
        for cell in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", file.read_text()):
            value = float(cell)
            found |= {f"{value:.{d}f}" for d in (1, 2, 3)} | {f"{100 * value:.1f}", f"{value:g}"}
    return found


def checked(folder) -> list[str]:
    """Findings of a finished step, after what holds for all of them: the last cell prints them, in
    numbers that its tables hold.
    """
    told = json.loads((folder / "run.json").read_text())["findings"]
    assert told, f"{folder.name} finds nothing"
    cells = nbformat.read(folder / "notebook.ipynb", 4).cells
    outputs = [output for output in cells[-1].outputs if output.output_type != "error"]
    last = "".join(output.get("text", "") + str(output.get("data", "")) for output in outputs)
    assert "step.finish(" in cells[-1].source and cells[-2].source.startswith("## Findings")
    assert all(finding.split("\n")[0] in last for finding in told), f"{folder.name}: {last}"
    return told


def of_tables(folder) -> None:
    """The numbers of a step's findings are those of its tables."""
    alien = numbers(" ".join(checked(folder))) - written(folder)
    assert not alien, f"{folder.name} finds {alien}, which no table of it holds"


@pytest.mark.slow
def test_notebooks_find_what_their_tables_hold_on_smoke(tmp_path):
    smoke = yaml.safe_load((places.ROOT / "params" / "smoke.yaml").read_text())
    home = Home(tmp_path / "home", smoke)
    done = home.run()
    assert done.returncode == 0, done.stderr[-3000:]
    steps = sorted(file.parent for file in home.outputs.glob("[01]*/run.json"))
    assert [step.name[:2] for step in steps] == ["00", "01", "02", "03", "04", "07", "08", "09"]
    for folder in steps:
        told = " ".join(checked(folder))
        assert not any(figure in told for figure in PUBLISHED), folder.name
        assert "PTB-XL" not in told and "OMI" not in told
    for folder in steps[:-1]:  # 09 gives shares of its tables as sums
        of_tables(folder)
    for model in ("ecg_smart_net", "random_forest"):
        of_tables(home.outputs / "runs" / model / "rotation_0")
    table_4 = (home.outputs / "07_comparison" / "tables" / "table_4.csv").read_text()
    assert "Paper" not in table_4, "the paper's figures mean nothing beside a simulation"


@pytest.mark.slow
def test_made_up_tables_find_nothing_of_the_paper(tmp_path):
    study = yaml.safe_load((places.ROOT / "params" / "omi_features.yaml").read_text())
    study["omi_features"]["url"] = "http://127.0.0.1:9/"  # nobody answers
    home = Home(tmp_path / "home", study)
    done = home.run("notebook", options=["11_omi_features"])
    assert done.returncode == 0, done.stderr[-3000:]
    folder = home.outputs / "11_omi_features"
    of_tables(folder)
    told = checked(folder)
    assert "MADE-UP" in told[0] and not any(figure in " ".join(told) for figure in PUBLISHED)
    assert "published" not in " ".join(told) and "paper" not in " ".join(told)
    for name in ("table_4", "published_split"):
        table = (folder / "tables" / f"{name}.csv").read_text()
        assert "paper" not in table and "published" not in table


@pytest.mark.slow
def test_a_committed_study_finds_what_was_committed(tmp_path):
    home = Home(tmp_path / "home", TINY)
    shutil.copy2(places.ROOT / "params" / "demo.yaml", home.folder / "params")
    (home.folder / "outputs").mkdir()
    (home.folder / "outputs" / "reference").symlink_to(places.REFERENCE)
    home.name = "demo"
    done = home.run("notebook", options=["07_comparison"])
    assert done.returncode == 0, done.stderr[-3000:]
    folder = home.folder / "outputs" / "demo" / "07_comparison"
    of_tables(folder)
    kept = pd.read_csv(places.REFERENCE / "demo/07_comparison/tables/intervals.csv", index_col=0)
    best = kept[kept.metric == "auc"].estimate.max()
    assert f"{best:.3f}" in " ".join(checked(folder))


def test_no_notebook_concludes_in_text_that_nothing_computed():
    for file in sorted(places.NOTEBOOKS.glob("[01]*.ipynb")):
        cells = nbformat.read(file, 4).cells
        assert cells[-1].cell_type == "code" and "step.finish(" in cells[-1].source, file.name
        assert cells[-2].source.startswith("## Findings"), file.name
