"""Model card and reporting checklist of the selected model, as Markdown.

The card follows Mitchell et al., "Model cards for model reporting", FAT* 2019; the checklist is
TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), its items named in our own words.
"""

from pathlib import Path

import pandas as pd
from jinja2 import Environment

from ecglib.models import REGISTRY

CARD = Path(__file__).with_name("model_card.md")
KINDS = {
    "angiographic": "The label rests on angiography.",
    "proxy": "The label is a **proxy** that only stands in for OMI: nothing here is a clinical "
    "risk, and nothing confirms or refutes the paper's figures.",
    "synthetic": "The label is **synthetic**: the ECGs are simulated, nothing here is a clinical "
    "risk, and no figure says how a model does on people.",
}


def markdown(table: pd.DataFrame) -> str:
    """A data frame, with its index, as a Markdown table; numbers to three decimals."""

    def cell(value) -> str:
        missing = not isinstance(value, str) and pd.isna(value)
        return (
            "–"
            if missing
            else f"{value:.3f}"
            if isinstance(value, float)
            else str(value).replace("|", "\\|")
        )

    table = table.reset_index()
    rows = [
        list(table.columns),
        ["---"] * table.shape[1],
        *table.itertuples(index=False, name=None),
    ]
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in rows)


def model_card(
    study, runs, cohort_info: dict, run: pd.Series, counts: pd.DataFrame, tables: dict, limits: list
) -> str:
    """Write the model card of one trained model.

    Parameters
    ----------
    study : ecglib.study.params.Study
    runs : ecglib.study.runs.Runs
    cohort_info : dict
        ``cohort.json`` of its cohort.
    run : pandas.Series
        Its row of `Runs.facts`.
    counts : pandas.DataFrame
        ECGs, patients and positives of each split.
    tables : dict
        Heading → table of performance, in the order of the card.
    limits : list of str
        Limits found in this study, besides those that hold for each.
    """
    identity = run["identity"]
    told = {
        "study": study,
        "runs": runs,
        "run": run.to_dict(),
        "identity": identity,
        "cohort": cohort_info,
    }
    told |= {"counts": counts, "tables": tables, "limits": limits, "kind": KINDS[runs.label_kind]}
    told["network"] = REGISTRY[identity["network"]].kind == "network"
    told["z_scored"] = (identity.get("training") or {}).get("normalisation") == "lead_zscore"
    told["weights"] = next(
        (name for name in run["files"] if name.endswith((".safetensors", ".skops"))), None
    )
    told["folds"] = study.folds.count if isinstance(study.folds.count, int) else 0
    template = Environment(trim_blocks=True, keep_trailing_newline=True)
    template.filters["markdown"] = markdown
    return template.from_string(CARD.read_text()).render(told)


def ease(performance: pd.DataFrame, model: str, rotation: int) -> str:
    """Say what besides the model made its rotation the best: a test fold on which the other models
    do well, too.

    `performance` has a row for each model, rotation and split
    (`ecglib.analysis.inference.per_rotation`); `rotation` is the one with the highest test score of
    `model` (paper, section II.C). The lead of a rotation is its test score (Equation 1) minus the
    mean over rotations of the same model.
    """
    scores = performance.pivot_table("score", "rotation", ["split", "model"])
    lead, validation = (
        scores["test"].loc[rotation] - scores["test"].mean(),
        scores["validation"][model],
    )
    place = int((validation > validation[rotation]).sum()) + 1
    told = (
        f"Rotation {rotation} has the highest test score, {lead[model]:+.3f} from the mean over "
        "rotations"
    )
    told += f", and by validation score it is number {place} of {len(validation)}."
    others = lead.drop(model).dropna()
    if len(others):
        told += (
            f" On the same test fold {len(others)} other models lie {others.mean():+.3f} from "
            "their means."
        )
    return told


def limits(
    cohort_info,
    chosen: pd.DataFrame,
    optimism: dict,
    by_group: pd.DataFrame,
    points: dict,
    ease: str,
) -> list:
    """Say what this study's own figures leave open; `chosen` are the selected run's predictions,
    `ease` see there.
    """
    test = chosen[chosen["split"] == "test"]
    told = [KINDS[cohort_info["label_kind"]]] if cohort_info["label_kind"] != "angiographic" else []
    told.append(
        f"Selected by its test score, as in the paper: of {optimism['apparent']:.3f}, about "
        f"{optimism['optimism']:.3f} is estimated to be luck."
    )
    told.append(ease)
    told.append(f"Its test fold has {test['label'].sum()} positives among {len(test)} ECGs.")
    told += [
        f"{name}: not attainable on validation." for name, point in points.items() if point is None
    ]
    few = by_group[by_group["estimate"].isna()]
    if len(few):
        levels = [
            f"{group} ({', '.join(map(str, part['level']))})"
            for group, part in few.groupby("group", sort=False)
        ]
        told.append(f"Too few to say how it does by {'; '.join(levels)}.")
    return told


def describe(record: pd.Series) -> str:
    """Say in a line what a cohort knows about one of its records."""
    parts = [str(record["sex"]) if pd.notna(record["sex"]) else "sex unknown"]
    parts.append(f"{record['age']:.0f} years" if pd.notna(record["age"]) else "age unknown")
    for name in ("culprit", "severity", "mimic", "disturbance", "stage1", "quality_reasons"):
        if name in record and pd.notna(record[name]) and record[name] not in ("", "none", 0):
            parts.append(f"{name.replace('_', ' ')}: {record[name]}")
    return ", ".join(parts)


def tripod_ai(study, model: str, rotation: int) -> pd.DataFrame:
    """Answer each item of TRIPOD+AI with a link to the notebook that does, from the step's folder,
    or say "no".
    """
    table = pd.read_csv(Path(__file__).with_name("tripod_ai.csv"), dtype=str).fillna("")
    run = f"../runs/{model}/rotation_{rotation}/notebook.ipynb"
    if REGISTRY[study.models[model].network or model].kind == "tabular":
        table["notebook"] = table["notebook"].replace("05_train_network", "06_random_forest")
    if study.learning_rates is None:
        table["notebook"] = table["notebook"].replace("04_learning_rate", "params")
    links = {"": "no", "08_selected_model": "[08_selected_model](notebook.ipynb)"}
    links |= {name: f"[{name}]({run})" for name in ("05_train_network", "06_random_forest")}
    links["params"] = f"`params/{study.name}.yaml`"
    found = table["notebook"].map(
        lambda name: links.get(name, f"[{name}](../{name}/notebook.ipynb)")
    )
    return (
        table.assign(notebook=found)
        .set_axis(["Item", "Topic", "Answered in", "How"], axis=1)
        .set_index("Item")
    )
