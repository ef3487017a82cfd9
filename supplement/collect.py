"""Turn the executed notebooks of the reference studies into the pages of the supplement.

Nothing is executed: notebooks are copied with their outputs, code folded, each page under a band
that says of which study it is and of which kind that study's labels are, and each figure with the
caption that its notebook gave it.
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

from ecglib.analysis.tables import PAPER_TABLE_4, PAPER_TABLE_5
from ecglib.analysis.texts import styled
from ecglib.study import places
from ecglib.study.params import StudyError, load_study

HERE = Path(__file__).parent
KINDS = {
    "angiographic": "Labels are angiographic outcomes.",
    "proxy": (
        "Labels are a **proxy**: read from the ECG and its annotations, they only stand in for OMI."
    ),
    "synthetic": "ECGs and labels are **synthetic**: they come from a simulator.",
}
RUNS = ("05_train_network", "06_random_forest")  # one run of each is kept with its notebook
RESULTS = ("07_comparison", "11_omi_features")  # what came out stands in the findings of these
KEY_FIGURES = ("fig_5_learning_curves", "roc_pr", "fig_6_roc_pr", "fig_7_saliency")
PAPER = {"table_4": PAPER_TABLE_4, "table_5": PAPER_TABLE_5}


@dataclass
class Study:
    """A study of the reference results, and what its pages share.

    Attributes
    ----------
    folder : Path
    name, title, meaning, kind : str
    subtle : float or None
        Share of simulated occlusions that are hard to see; None where ECGs are real.
    steps : dict
        Page → folder of the finished step or run, in the order of the notebooks.
    captions : dict
        Name of a figure → its caption, filled as pages are made.
    """

    folder: Path
    name: str
    title: str
    meaning: str
    kind: str
    subtle: float | None
    steps: dict
    captions: dict

    @property
    def band(self) -> str:
        """What stands at the head of each page, in the colour of the label's kind."""
        told = f"Study **{self.name}** · {self.title}\n\nLabel: {self.meaning} [**{self.kind}**]"
        if self.subtle is not None:
            told += (
                f"\n\nSimulated ECGs: {self.subtle:.0%} of the occlusions are subtle, in the paper "
            )
            told += (
                "about two thirds. This task is easier, and its results say nothing about patients."
            )
        return f":::{{container}} band {self.kind}\n{told}\n:::"


def open_study(folder: Path) -> Study:
    """Read what the finished steps of a study say of it."""
    told = [json.loads(file.read_text()) for file in sorted(folder.rglob("run.json"))]
    label = [(f["label_meaning"], f["label_kind"]) for f in told if f.get("label_meaning")]
    if not label:
        raise SystemExit(f"{folder} doesn't say of which kind its label is; run the study again")
    try:
        study = load_study(folder.name)
    except StudyError as error:
        raise SystemExit(str(error)) from None
    steps = {file.parent.name: file.parent for file in folder.glob("[01]*/notebook.ipynb")}
    for file in sorted(folder.glob("runs/*/*/notebook.ipynb")):
        steps.setdefault(facts_of(file.parent)["notebook"], file.parent)
    subtle = getattr(getattr(study, "cohort", None), "subtle", None)
    steps = dict(sorted(steps.items()))
    return Study(folder, folder.name, study.title, *label[0], subtle, steps, {})


def facts_of(step: Path) -> dict:
    """What ``run.json`` of a finished step says."""
    return json.loads((step / "run.json").read_text())


def relink(text: str, step: str, there) -> str:
    """Lead links between the notebooks of a study to their pages; those to notebooks without a page
    become text.
    """

    def linked(found) -> str:
        name, target = found.groups()
        goal = target.removeprefix("../").removesuffix("notebook.ipynb").rstrip("/") or step
        goal = next((page for page, at in there.items() if at.as_posix().endswith(goal)), goal)
        return f"[{name}]({goal}.ipynb)" if goal in there else name

    return re.sub(r"\[([^\]]*)\]\(((?:\.\./[\w/.]+/)?notebook\.ipynb)\)", linked, text)


def page(study: Study, step: str):
    """One executed notebook, made ready to be read.

    Code that shows nothing joins the next that does; each picture is a cell of its own, so that it
    has its own caption; the last cell gives the findings as a list.
    """
    book, facts = (
        nbformat.read(study.steps[step] / "notebook.ipynb", 4),
        facts_of(study.steps[step]),
    )
    heading, waiting, cells = "", [], []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heading = re.findall(r"^#+ (.+)$", cell.source, flags=re.M)[-1:] or heading
            cells.append(cell)
            continue
        waiting.append(cell.source)
        outputs = [output for output in map(clean, cell.outputs) if output]
        if cell is book.cells[-1] or "step.finish(" in cell.source:
            listed = "\n".join(f"- {finding}" for finding in facts.get("findings", []))
            outputs = [nbformat.v4.new_output("display_data", {"text/markdown": listed})]
        for output in outputs:
            if text := output.get("data", {}).get("text/markdown"):
                output["data"]["text/markdown"] = relink(text, step, study.steps)
        for part in apart(outputs):
            new = nbformat.v4.new_code_cell("\n\n".join(waiting), outputs=part)
            new.metadata["tags"] = ["hide-input" if waiting else "remove-input"]
            waiting = []
            if "image/png" in part[0].get("data", {}):
                words = part[0].metadata.get("caption") or f"{heading[0]}. {study.meaning}."
                words = re.sub(r"[*`]", "", words)
                study.captions[part[0].metadata.get("name")] = words
                shown = {"image": {"alt": words}, "figure": {"caption": words}}
                new.metadata["mystnb"] = shown
            cells.append(new)
    first = cells[0].source
    title, _, rest = first.partition("\n")
    cells[0].source = f"{title} · {study.name}\n\n{study.band}\n{rest}"
    book.cells = [*cells, nbformat.v4.new_markdown_cell(provenance(facts))]
    book.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    return book


def apart(outputs: list) -> list[list]:
    """Outputs in parts: each picture alone, what stands between them together."""
    parts = []
    for output in outputs:
        picture = "image/png" in output.get("data", {})
        if picture or not parts or "image/png" in parts[-1][0].get("data", {}):
            parts.append([])
        parts[-1].append(output)
    return parts


def clean(output):
    """Keep of an output what a page can show without a server: pictures, tables, text; None of what
    only says where a folder lies.
    """
    data = output.get("data", {})
    if data.get("text/plain", "").startswith("PosixPath("):
        return None
    for kind in [k for k in data if "widget" in k or k == "application/javascript"]:
        del data[kind]
    if output.get("output_type") == "stream":
        # a progress bar's earlier states
        output["text"] = re.sub(r"[^\n]*\r(?!\n)", "", output["text"])
        output["text"] = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output["text"])
        # a bar names its run by key
        key = re.compile(r"^\w+(?= rotation \d)", re.M)
        output["text"] = key.sub(lambda found: found[0].replace("_", " "), output["text"])
    return output


def provenance(facts: dict) -> str:
    """When and with what a page was made, in one line."""
    told = facts["environment"]
    names = ("torch", "scikit-learn")
    versions = [f"{name} {told['versions'][name]}" for name in names if told["versions"].get(name)]
    finished = told["finished"][:16].replace("T", " ")
    return (
        f"---\nFinished {finished} UTC, Python {told['python']}, {', '.join(versions)}; how it was "
        "made stands on the [study's page](index.md). For research only; not a medical device."
    )


def read(file: Path) -> pd.DataFrame:
    """One of a study's tables as it was written, each cell a text."""
    lines = file.read_text().splitlines()
    two = lines[1].startswith(",") and lines[0].startswith(",")  # two header rows
    how = {"header": [0, 1] if two else 0, "index_col": 0, "dtype": str, "keep_default_na": False}
    return pd.read_csv(file, **how)


def numbers(column: pd.Series) -> pd.Series:
    """A column of texts as the numbers that it holds, if it holds nothing else."""
    found = pd.to_numeric(column.replace("", None), errors="coerce")
    return found if found.notna().sum() == (column != "").sum() else column


def table(frame: pd.DataFrame, caption: str) -> str:
    """A table as HTML that scrolls where it is too wide."""
    frame = frame.set_axis(frame.columns.set_names([None] * frame.columns.nlevels), axis=1)
    inner = re.sub(r"\n\s*\n", "\n", styled(frame.rename_axis(None), caption).to_html())
    return f'<div class="wide" tabindex="0">{inner}\n</div>'


def results(study: Path) -> pd.DataFrame:
    """AUC and AP on the test folds with their intervals, each beside the first model, where the
    study tested that.
    """
    front = [*study.glob("*/tables/front.csv"), *study.glob("*/tables/extended.csv")][0]
    frame = read(front)[["AUC", "AP"]]
    frame = frame.rename(columns={"AUC": "Test AUC [95 %]", "AP": "Test AP [95 %]"})
    if (front.parent / "paired_tests.csv").is_file():
        tests, first = read(front.parent / "paired_tests.csv"), frame.index[0]
        tests = tests[(tests.Metric == "AUC") & (tests.a == first)].set_index("b")
        tests = tests.reindex(frame.index)
        frame[f"AUC of {first} minus this one's"] = tests["a − b"]
        frame["p (Holm)"] = tests["p, patients drawn (Holm)"]
    return frame.fillna("–")


def findings(study: Study, steps, most: int | None = None) -> str:
    """What the notebooks found, a list under the name of each: all of it, or the first ones."""
    parts = []
    for step in steps:
        if step in study.steps and (found := facts_of(study.steps[step]).get("findings")):
            listed = "\n".join(f"- {finding}" for finding in found[:most])
            parts.append(f"[{step.replace('_', ' ')}]({study.name}/{step}.ipynb)\n\n{listed}")
    return "\n\n".join(parts)


def figure(study: Study, name: str) -> str:
    """A figure of a study as MyST, with the caption that its notebook gave it."""
    words = study.captions.get(name, "")
    file = f"figures/{study.name}_{name}.png"
    return f"```{{figure}} {file}\n:alt: {words}\n\n{words}\n```"


def summary(studies: list[Study]) -> str:
    """The first page: what was asked, and the findings, tables and key figures of each study."""
    parts = ["---\nhtml_theme.sidebar_secondary.remove: true\n---"]
    parts.append((HERE / "pages" / "summary.md").read_text())
    for study in studies:
        parts += [f"## {study.title}", study.band, KINDS[study.kind]]
        parts.append(findings(study, RESULTS, most=3))
        stamp = f"{study.title} [{study.kind} label]."
        found = results(study.folder)
        parts.append(table(found, f"Test folds, 95 % intervals over patients. {stamp}"))
        parts += [figure(study, name) for name in KEY_FIGURES if name in study.captions]
    return "\n\n".join(parts)


def study_page(study: Study, entries: list[str]) -> str:
    """The first page of a study: its findings, notebook by notebook, and how it was made."""
    commits = {}
    for step, folder in study.steps.items():
        told = facts_of(folder)["environment"]
        changed = " with uncommitted changes" if told.get("uncommitted_changes") else ""
        commits.setdefault(f"`{(told['commit'] or 'unknown')[:10]}`{changed}", []).append(step[:2])
    if len(commits) > 1:
        commits = [f"{commit} (notebooks {', '.join(of)})" for commit, of in commits.items()]
    made = f"Made by `make reproduce STUDY=params/{study.name}.yaml` from commit "
    listed = findings(study, study.steps).replace(f"({study.name}/", "(")
    toc = "```{toctree}\n:hidden:\n\n" + "\n".join(entries) + "\n```"
    head = f"# {study.title}\n\n{study.band}\n\n{KINDS[study.kind]}"
    return "\n\n".join([head, "## Findings", listed, f"{made}{', '.join(commits)}.", toc]) + "\n"


def write_study(study: Study, goal: Path) -> None:
    """Write the pages of a study: its first one, its notebooks, its model card and checklist."""
    (goal / study.name).mkdir()
    entries = []
    for step in study.steps:
        book = page(study, step)
        nbformat.write(book, goal / study.name / f"{step}.ipynb")
        entries.append(f"{book.cells[0].source.splitlines()[0][2:].rpartition(' · ')[0]} <{step}>")
    for name, short in (("model_card", "Model card"), ("tripod_ai", "Reporting checklist")):
        for file in study.folder.glob(f"*/{name}.md"):
            text = relink(file.read_text(), file.parent.name, study.steps)
            head, _, rest = text.partition("\n")
            text = f"# {short} · {study.name}\n\n{study.band}\n\n{head[2:]}\n{rest}"
            (goal / study.name / f"{name}.md").write_text(text)
            entries.append(f"{short} <{name}>")
    (goal / study.name / "index.md").write_text(study_page(study, entries))
    for file in study.folder.glob("*/figures/*.png"):
        if file.stem in study.captions:
            shutil.copy2(file, goal / "figures" / f"{study.name}_{file.stem}.png")


def paper(studies: list[Study]) -> str:
    """The paper, item by item: its tables in its own figures, ours from the first study that has
    them.
    """

    def put(found) -> str:
        what, name, title = found[1], found[2], found[3]
        if what == "paper":
            return table(PAPER[name], title)
        for study in studies:
            stamp = f"Study {study.name}; label: {study.meaning} [{study.kind}]."
            if what == "figure" and name in study.captions:
                return figure(study, name)
            files = [*study.folder.glob(f"0*/tables/{name}.csv")] if what == "table" else []
            if files:
                frame = read(files[0])
                if name == "table_5":
                    frame = frame.set_index(frame.columns[0], append=True).loc["This study"]
                frame = frame.get("This study", frame)
                return table(frame.apply(numbers), f"{title} {stamp}")
        return "Not available: no study kept here has it."

    text = (HERE / "pages" / "paper.md").read_text()
    return re.sub(r"<!-- (paper|table|figure) (\w+)(?:: (.+?))? -->", put, text)


def main(root: Path, goal: Path) -> None:
    """Write the sources of the site into `goal`, from the studies below `root`."""
    shutil.rmtree(goal, ignore_errors=True)
    shutil.copytree(HERE / "pages", goal)
    (goal / "summary.md").unlink()
    (goal / "figures").mkdir()
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and any(f.glob("*/notebook.ipynb"))]
    # real outcomes first, simulated ones last
    studies = sorted(map(open_study, folders), key=lambda study: [*KINDS].index(study.kind))
    if not studies:
        raise SystemExit(
            f"There are no executed notebooks below {root}; run a study and keep its results first"
        )
    for study in studies:
        write_study(study, goal)
    # pictures of real ECGs, of the study with most to show
    by_size = sorted(studies, key=lambda study: (study.kind == "synthetic", -len(study.steps)))
    (goal / "paper.md").write_text(paper(by_size))
    listed = "\n".join(f"{study.name}/index" for study in studies)
    toc = [f"```{{toctree}}\n:caption: Studies\n:hidden:\n\n{listed}\n```"]
    about = "paper\ndeviations\ndata\nown_cohort\napi"
    toc.append(f"```{{toctree}}\n:caption: About\n:hidden:\n\n{about}\n```")
    (goal / "index.md").write_text("\n\n".join([summary(studies), *toc]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else places.REFERENCE, HERE / "_build" / "source")
