import json
import shutil

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from ecglib import folders
from ecglib.study import notebook, places, step
from ecglib.study.__main__ import main
from ecglib.study.params import StudyError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of its own with three small notebooks."""
    for name in ("NOTEBOOKS", "OUTPUTS", "PARAMS"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setattr(places, name, tmp_path / name.lower())
    shutil.copy2(places.CODE / "params" / "smoke.yaml", tmp_path / "params")
    monkeypatch.setattr(places, "ROOT", tmp_path)
    start = "from ecglib.study import open_step"
    use = 'step = open_step("good", globals())\n(step.folder / "a.csv").write_text(str(number))'
    cells = {
        "good": [start, use, 'step.finish(["Two were found."], number=number)'],
        "bad": [start, use, "1 / 0", "step.finish()"],
        "unfinished": [start, use],
    }
    for name, sources in cells.items():
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
        parameters = nbformat.v4.new_code_cell('study = "smoke"\nnumber = 1\noutput_dir = ""')
        parameters.metadata["tags"] = ["parameters"]
        book.cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
        nbformat.write(book, tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def test_a_good_notebook_appears_whole(home):
    folder = notebook.run_notebook("good", {"number": 5}, home / "outputs" / "x")
    assert (folder / "a.csv").read_text() == "5"
    told = json.loads((folder / "run.json").read_text())
    assert told["findings"] == ["Two were found."] and told["label_kind"] == "synthetic"
    assert told["number"] == 5 and told["study"] == "smoke" and told["seed"] == 42
    assert told["files"]["a.csv"] == folders.sha256(folder / "a.csv")
    assert told["environment"]["versions"]["torch"] and told["seconds"] > 0
    assert (folder / "notebook.ipynb").is_file() and not list(home.glob("outputs/*.partial"))
    notebook.run_notebook("good", {"number": 6}, home / "outputs" / "x")
    assert (folder / "a.csv").read_text() == "6" and not list(home.glob("outputs/*.old"))


def test_a_failing_notebook_never_looks_finished(home):
    with pytest.raises(
        StudyError, match=r"bad failed in cell \d with ZeroDivisionError: division by zero"
    ) as error:
        notebook.run_notebook("bad", {}, home / "outputs" / "x")
    assert "1 / 0" in str(error.value)
    assert not (home / "outputs" / "x").exists()
    assert "papermill-error-cell" in (home / "outputs" / "x.partial" / "notebook.ipynb").read_text()


def test_a_notebook_must_finish_its_step(home):
    with pytest.raises(StudyError, match=r"must call step\.finish"):
        notebook.run_notebook("unfinished", {}, home / "outputs" / "x")
    assert not (home / "outputs" / "x").exists()


def test_mistyped_names_are_refused_before_anything_runs(home):
    with pytest.raises(StudyError, match="good has no parameter 'nmber'; did you mean 'number'"):
        notebook.run_notebook("good", {"nmber": 5}, home / "outputs" / "x")
    with pytest.raises(StudyError, match="No notebook is called 'goood'; did you mean 'good'"):
        notebook.run_notebook("goood", {}, home / "outputs" / "x")
    assert not list(home.glob("outputs/*"))


def test_command_line_says_what_is_wrong_in_one_line(home, capsys):
    assert main(["notebook", "good", "--study", "smokee"]) == 1
    assert main(["notebook", "good", "--study", "smoke", "--set", "number"]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and "smokee" in printed[0] and "NAME=VALUE" in printed[1]


def test_interactive_steps_replace_their_folder_at_the_end(home):
    given = {"study": "smoke", "output_dir": ""}
    first = step.open_step("good", given)
    (first.folder / "b.csv").write_text("1")
    assert not first.final.exists()
    assert first.finish() == first.final and (first.final / "b.csv").is_file()
    second = step.open_step("good", given)
    assert not (second.folder / "b.csv").exists(), "an interrupted attempt leaves nothing behind"
    second.finish()


def test_what_a_step_shows_is_saved_and_says_study_and_label(home, capsys, monkeypatch):
    shown = step.open_step("good", {"study": "smoke", "output_dir": ""})
    told = capsys.readouterr().out
    assert "Smoke study" in told and "[synthetic label]" in told
    shown.show(pd.DataFrame({"AUC": [0.98765]}, index=["net"]), "found", "What was found.")
    shown.show(pd.Series([1], name="count"))
    assert (shown.folder / "tables" / "found.csv").read_text() == ",AUC\nnet,0.98765\n"
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    given = []
    monkeypatch.setattr(step, "display", lambda what, **told: given.append(told.get("metadata")))
    shown.show(figure, "line", "A line.")
    assert given == [{"name": "line", "caption": f"A line. {shown.stamp}."}]
    assert figure.texts[-1].get_text() == shown.stamp and "synthetic label" in shown.stamp
    shown.show(figure, "", "No ECG.", stamp="")
    assert given[-1]["caption"] == "No ECG."
    assert {file.suffix for file in (shown.folder / "figures").iterdir()} == {".png", ".svg"}
    shown.finish(["A sentence."])
    assert "A sentence." in capsys.readouterr().out


def test_ctrl_c_ends_the_command_line_without_a_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ecglib.study.__main__.load_study", interrupted)
    assert main(["status", "--study", "smoke"]) == 130
    assert "Traceback" not in capsys.readouterr().err
