"""Turn the executed notebooks of the reference studies into the pages of the supplement.

Nothing is executed: notebooks are copied with their outputs, code folded, and each figure gets a
number or name from the heading above it, the kind of its label, and a text for those who can't see
it.
"""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd

from ecglib.study import places
from ecglib.study.params import StudyError, load_study

HERE = Path(__file__).parent
KINDS = {
    "angiographic": "Labels are angiographic outcomes.",
    "proxy": (
        "Labels are a **proxy**: read from the ECG and its annotations, they only stand in for OMI."
    ),
    "synthetic": "ECGs and labels are **synthetic**: drawn by a simulator.",
}
STEPS = (
    "00_cohort", "01_data_exploration", "02_folds", "03_models", "04_learning_rate",
    "07_comparison", "08_selected_model", "09_saliency", "11_omi_features", "12_apply",
)  # fmt: skip
KEY_FIGURES = (
    ("07_comparison", "fig_5_learning_curves", "Fig. 5", "how the networks learned"),
    ("07_comparison", "roc_pr", "ROC and precision-recall", "curves of the test folds"),
    ("08_selected_model", "fig_6_roc_pr", "Fig. 6", "curves of the selected model"),
    (
        "09_saliency",
        "fig_7_saliency",
        "Fig. 7",
        "mean saliency over the positives of the test fold",
    ),
)


def told(step: Path) -> dict:
    """What ``run.json`` of a finished step says."""
    return json.loads((step / "run.json").read_text())


def label_of(study: Path) -> tuple[str, str]:
    """Meaning and kind of a study's label."""
    for file in sorted(study.rglob("run.json")):
        facts = json.loads(file.read_text())
        if facts.get("label_kind") and facts.get("label_meaning"):
            return facts["label_meaning"], facts["label_kind"]
    raise SystemExit(f"{study} says nowhere of which kind its label is; run the study again")


def relink(text: str, step: str, there: list[str]) -> str:
    """Lead links between the notebooks of a study to their pages; those to notebooks without a page
    become text.
    """

    def linked(found) -> str:
        name, target = found.groups()
        goal = (
            step
            if target == "notebook.ipynb"
            else target.removeprefix("../").removesuffix("/notebook.ipynb")
        )
        return f"[{name}]({goal}.ipynb)" if goal in there else name

    return re.sub(r"\[([^\]]*)\]\(((?:\.\./[\w/.]+/)?notebook\.ipynb)\)", linked, text)


def page(notebook: Path, caption: str, provenance: str, there: list[str]):
    """One executed notebook, made ready to be read; `there` are the study's notebooks that have a
    page.
    """
    book = nbformat.read(notebook, as_version=4)
    book.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    heading, cells = "", []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heads = re.findall(r"^#+ (.+)$", cell.source, flags=re.M)
            heading = heads[-1] if heads else heading
            cells.append(cell)
            continue
        tags = set(cell.metadata.get("tags", []))
        cell.metadata = {"tags": sorted(tags | {"hide-input"})}
        # A last cell gives back its step's folder, under the name that it has while it is being
        # written.
        cell.outputs = [
            o
            for o in cell.outputs
            if not o.get("data", {}).get("text/plain", "").startswith("PosixPath(")
        ]
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        for output in cell.outputs:
            clean(output)
            if written := output.get("data", {}).get("text/markdown"):
                output["data"]["text/markdown"] = relink(written, notebook.parent.name, there)
        if pictures:
            words = re.sub(r"[*`]", "", heading)
            cell.metadata["mystnb"] = {
                "image": {"alt": f"{words}. {caption}"},
                "figure": {"caption": f"{words}. {caption}"},
            }
        cells.append(cell)
    book.cells = [*cells, nbformat.v4.new_markdown_cell(f"---\n{provenance}")]
    return book


def clean(output) -> None:
    """Keep of an output what a page can show without a server: pictures, tables, text."""
    data = output.get("data", {})
    for kind in [k for k in data if "widget" in k or k == "application/javascript"]:
        del data[kind]
    if output.get("output_type") == "stream":
        # a progress bar's earlier states
        output["text"] = re.sub(r"[^\n]*\r(?!\n)", "", output["text"])
        output["text"] = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output["text"])


def provenance_of(step: Path, study: str) -> str:
    """Where a page's figures come from, in one line."""
    facts = told(step)["environment"]
    changed = ", with uncommitted changes" if facts.get("uncommitted_changes") else ""
    versions = ", ".join(
        f"{k} {v}" for k, v in facts["versions"].items() if v and k in ("torch", "scikit-learn")
    )
    finished = facts["finished"][:16].replace("T", " ")
    return (
        f"Made by `make reproduce STUDY=params/{study}.yaml` from commit "
        f"`{(facts['commit'] or 'unknown')[:10]}`{changed}, finished {finished} UTC, "
        f"Python {facts['python']}, {versions}. For research only; no medical device."
    )


def read(file: Path) -> pd.DataFrame:
    """One of a study's tables as it was written, each cell a text."""
    two = file.read_text().splitlines()[1].startswith(",")  # two header rows
    return pd.read_csv(
        file, header=[0, 1] if two else 0, index_col=0, dtype=str, keep_default_na=False
    )


def table(frame: pd.DataFrame, caption: str) -> str:
    """A table as HTML that scrolls where it is too wide."""
    frame.columns.names = [None] * frame.columns.nlevels
    inner = frame.rename_axis(None).to_html(border=0, classes="table", escape=True)
    inner = inner.replace("<thead>", f"<caption>{html.escape(caption)}</caption>\n<thead>", 1)
    return f'<div class="wide" tabindex="0">{inner}\n</div>'


def results(study: Path) -> tuple[str, pd.DataFrame]:
    """What came out on the test folds: a sentence, and AUC and AP with their intervals, each beside
    the first model.
    """
    front = [*study.glob("*/tables/front.csv"), *study.glob("*/tables/extended.csv")][0]
    frame = read(front)[["AUC", "AP"]]
    best = frame.AUC.str.split().str[0].astype(float).idxmax()
    words = f"The highest AUC on the test folds is that of {best}: {frame.AUC[best]}."
    untested = " Differences weren't tested."
    frame = frame.rename(columns={"AUC": "Test AUC [95 %]", "AP": "Test AP [95 %]"})
    if (front.parent / "paired_tests.csv").is_file():
        tests, first = read(front.parent / "paired_tests.csv"), frame.index[0]
        tests = (
            tests[(tests.Metric == "AUC") & (tests.a == first)].set_index("b").reindex(frame.index)
        )
        frame[f"AUC of {first} minus this one's"], p = (
            tests["a − b"],
            tests["p, patients drawn (Holm)"],
        )
        differs, less = (
            p.str.strip("< ").astype(float) < 0.05,
            tests["a − b"].str.startswith("−", na=False),
        )
        told = {"is higher than that of": differs & ~less, "is lower than that of": differs & less}
        told["can't be told from that of"] = ~differs & p.notna()
        found = [
            f"{verb} {', '.join(frame.index[there])}" for verb, there in told.items() if there.any()
        ]
        untested = f" By the paired test over patients, the AUC of {first} {'; it '.join(found)}."
        frame["p (Holm)"] = p
    return words + untested, frame.fillna("–")


def summary(studies: list[Path]) -> str:
    """The first page: what was asked, and the tables and key figures of each study."""
    parts = [
        "---\nhtml_theme.sidebar_secondary.remove: true\n---",
        (HERE / "pages" / "summary.md").read_text(),
    ]
    for study in studies:
        meaning, kind = label_of(study)
        title = load_study(study.name).title
        words, frame = results(study)
        parts.append(f"## {title}\n\n{KINDS[kind]} A label of 1 means: {meaning}.\n\n{words}\n")
        parts.append(
            table(frame, f"Test folds, 95 % intervals over patients. {title} [{kind} label].")
        )
        for file in sorted(study.glob("*/tables/table_4*.csv")):
            frame, rotations, told = read(file), ("This study", "Rotations"), title
            if rotations in frame and len(set(frame[rotations])) == 1:
                told += f", {frame.pop(rotations).iloc[0]} rotations"
            parts.append(
                table(
                    frame,
                    f"Table 4, {told} [{kind} label]; beside it the paper's figures, on other "
                    "data.",
                )
            )
        for step, name, number, words in KEY_FIGURES:
            picture = study / step / "figures" / f"{name}.png"
            if picture.is_file():
                text = f"{number}: {words}. {title} [{kind} label]."
                parts.append(
                    f"```{{figure}} figures/{study.name}_{name}.png\n:alt: {text}\n\n{text}\n```\n"
                )
    return "\n\n".join(parts)


def main(root: Path, goal: Path) -> None:
    """Write the sources of the site into `goal`, from the studies below `root`."""
    shutil.rmtree(goal, ignore_errors=True)
    shutil.copytree(HERE / "pages", goal)
    (goal / "summary.md").unlink()
    (goal / "figures").mkdir()
    studies = [f for f in sorted(root.iterdir()) if f.is_dir() and any(f.glob("*/notebook.ipynb"))]
    # real outcomes first, simulated ones last
    studies.sort(key=lambda study: [*KINDS].index(label_of(study)[1]))
    if not studies:
        raise SystemExit(
            f"There are no executed notebooks below {root}; run a study and keep its results first"
        )
    toc = []
    for study in studies:
        meaning, kind = label_of(study)
        caption = (
            f"{meaning[0].upper()}{meaning[1:]} [{kind} label]." if meaning else f"[{kind} label]."
        )
        there = [step for step in STEPS if (study / step / "notebook.ipynb").is_file()]
        (goal / study.name).mkdir()
        for step in there:
            book = page(
                study / step / "notebook.ipynb",
                caption,
                provenance_of(study / step, study.name),
                there,
            )
            nbformat.write(book, goal / study.name / f"{step}.ipynb")
        entries = [f"{study.name}/{step}" for step in there]
        for name in ("model_card", "tripod_ai"):
            for file in study.glob(f"*/{name}.md"):
                (goal / study.name / f"{name}.md").write_text(
                    relink(file.read_text(), file.parent.name, there)
                )
                entries.append(f"{study.name}/{name}")
        for step, name, *_ in KEY_FIGURES:
            picture = study / step / "figures" / f"{name}.png"
            if picture.is_file():
                shutil.copy2(picture, goal / "figures" / f"{study.name}_{name}.png")
        try:
            title = load_study(study.name).title
        except StudyError as error:
            raise SystemExit(str(error)) from None
        listed = "\n".join(entries)
        toc.append(f"```{{toctree}}\n:caption: {title}\n:hidden:\n\n{listed}\n```")
    rest = "```{toctree}\n:caption: About\n:hidden:\n\ndeviations\ndata\nown_cohort\napi\n```"
    (goal / "index.md").write_text("\n\n".join([summary(studies), *toc, rest]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else places.REFERENCE, HERE / "_build" / "source")
