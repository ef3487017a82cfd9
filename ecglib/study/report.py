"""Model card and reporting checklist of the selected model, as Markdown.

The card follows Mitchell et al., "Model cards for model reporting", FAT* 2019; the checklist is
TRIPOD+AI (Collins et al., BMJ 2024;385:e078378), its items named in our own words.
"""

from pathlib import Path

import pandas as pd
from jinja2 import Environment

from ecglib.analysis import texts
from ecglib.analysis.tables import NAMES, POINTS
from ecglib.dataset import seen_as
from ecglib.models import NETWORKS
from ecglib.settings import Label

AT_POINT = "auc", "average_precision", "sens", "spec", "ppv"
DESCRIBED = ["presentation", "culprit", "severity", "mimic", "disturbance", "stage1"]
DESCRIBED += ["quality_reasons"]
CARD = Path(__file__).with_name("model_card.md")
KINDS = {
    "angiographic": "The label rests on angiography.",
    "proxy": "The label is a **proxy** that only stands in for OMI: nothing here is a clinical "
    "risk, and nothing confirms or refutes the paper's figures.",
    "synthetic": "The label is **synthetic**: the ECGs are simulated, nothing here is a clinical "
    "risk, and no result shows how a model performs on people.",
}


def split_counts(records: pd.DataFrame, splits: dict) -> pd.DataFrame:
    """ECGs, patients and positives of each split, name → positions in `records`."""
    rows = {name: records.iloc[at] for name, at in splits.items()}
    return (
        pd.concat(rows, names=["split"])
        .groupby("split", sort=False)
        .agg(ECGs=("label", "size"), patients=("patient_id", "nunique"), positives=("label", "sum"))
    )


def model_card(
    study, cohort: dict, run: pd.Series, counts: pd.DataFrame, tables: dict, limits: list
) -> str:
    """Write the model card of one trained model.

    Parameters
    ----------
    study : ecglib.study.params.Study
    cohort : dict
        ``cohort.json`` of its cohort.
    run : pandas.Series
        Its row of `Runs.facts`.
    counts : pandas.DataFrame
        From `split_counts`.
    tables : dict
        Tables of `ecglib.analysis.tables` as the template names them: rotations, selection, points,
        calibration, subgroups.
    limits : list of str
        Limits found in this study, besides those that hold for each.
    """
    identity = run["identity"]
    weights = [name for name in run["files"] if name.endswith((".safetensors", ".skops"))]
    template = Environment(trim_blocks=True, keep_trailing_newline=True)
    template.filters["markdown"] = texts.markdown
    return template.from_string(CARD.read_text()).render(
        study=study,
        run=run.to_dict(),
        identity=identity,
        cohort=cohort,
        counts=counts,
        tables=tables,
        limits=[texts.typeset(limit) for limit in limits],
        label=Label(run["label_kind"], run["label_meaning"]),
        kind=KINDS[run["label_kind"]],
        network=identity["network"] in NETWORKS,
        seen=seen_as(identity),
        weights=weights[0] if weights else None,
        folds=study.folds.equal or 0,
    )


def selection(study, leads: pd.DataFrame, rotation: int) -> list[str]:
    """Say how the rotation kept, the one with the highest validation score, does on its test fold;
    how much of the highest test score is ease of its fold and luck; and whether the test fold had a
    part in the choice of learning rates.

    `leads` is from `ecglib.analysis.comparison.leads`.
    """
    kept, top = leads.loc[rotation], leads.loc[leads["score"].idxmax()]
    place = int((leads["score"] > kept["score"]).sum()) + 1
    told = [
        f"Rotation {rotation} has the highest validation score and is kept; its test score of "
        f"{kept['score']:.3f} ranks {place} of {len(leads)}, {kept['lead']:+.3f} from their "
        "mean."
    ]
    if len(leads) > 2 and pd.notna(kept["others"]):
        alike = leads["lead"].corr(leads["others"]) ** 2
        told[0] += f" On the same test fold the other models lie {kept['others']:+.3f} from theirs "
        told[0] += f"(r² {alike:.2f} over rotations): {kept['fold']:+.3f} is ascribed to the fold."
    told.append(
        f"The highest test score, {top['score']:.3f}, is that of rotation {top.name}: "
        f"{top['fold']:+.3f} of it is ascribed to its test fold and {top['luck']:+.3f} to luck, "
        f"which leaves {top['score'] - top['fold'] - top['luck']:.3f}."
    )
    if study.learning_rates and study.folds.by == "patient":
        fold = (rotation + 1) % study.folds.count
        was = "was" if fold in study.grid_rotations else "was not"
        told.append(
            f"The test fold of rotation {rotation} {was} a validation fold of the choice of "
            "learning rates."
        )
    return told


def at_point(bounds: pd.DataFrame, threshold: float, by_group: pd.DataFrame) -> list[str]:
    """Say how the rotation kept does at its operating point, and which subgroup has the lowest AUC
    over all rotations.

    `bounds` are the rows of that point from `ecglib.analysis.inference.at_points`, `by_group` is
    from `ecglib.analysis.subgroups.estimate`.
    """
    values = dict(zip(bounds["metric"], texts.interval_texts(bounds), strict=True))
    values = ", ".join(f"{NAMES[name]} {values[name]}" for name in AT_POINT)
    point = f"the threshold of {threshold:.3f} (highest F1 on validation)"
    told = [f"On its test fold, with {point}: {values}."]
    low = by_group.dropna(subset="estimate").nsmallest(1, "estimate")
    for row, auc in zip(low.itertuples(), texts.interval_texts(low), strict=True):
        told.append(
            f"The subgroup with the lowest AUC over all rotations is {row.group}: {row.level}, "
            f"{auc} ({row.positives} positives among {row.records} ECGs); no subgroup "
            "analysis was planned."
        )
    return told


def limits(
    cohort: dict, chosen: pd.DataFrame, by_group: pd.DataFrame, points: dict, selected: list
) -> list:
    """Say what this study's own figures leave open; `chosen` are the selected run's predictions,
    `selected` the sentences of `selection`.
    """
    test, few = chosen[chosen["split"] == "test"], by_group[by_group["estimate"].isna()]
    found = [] if cohort["label_kind"] == "angiographic" else [KINDS[cohort["label_kind"]]]
    found += selected
    found.append(f"The test fold has {test['label'].sum()} positives among {len(test)} ECGs.")
    found += [
        f"{POINTS[name]}: not attainable on validation."
        for name, point in points.items()
        if point is None
    ]
    if len(few):
        levels = few["level"].astype(str).groupby(few["group"], sort=False).agg(", ".join)
        groups = "; ".join(f"{group} ({names})" for group, names in levels.items())
        found.append(f"Too few patients to assess the subgroups {groups}.")
    return found


def describe(record: pd.Series) -> str:
    """Say in a line what a cohort knows about one of its records."""
    sex, age = record["sex"], record["age"]
    parts = [
        sex if pd.notna(sex) else "sex unknown",
        f"{age:.0f} years" if pd.notna(age) else "age unknown",
    ]
    known = record.reindex(DESCRIBED).dropna()
    parts += [f"{texts.name(k)}: {v}" for k, v in known.items() if v not in ("", "none", 0)]
    return ", ".join(parts)


def tripod_ai(study, model: str, rotation: int) -> pd.DataFrame:
    """Answer each item of TRIPOD+AI with a link to the notebook that does, from the step's folder,
    or say "no".
    """
    table = pd.read_csv(Path(__file__).with_name("tripod_ai.csv"), index_col="Item", dtype=str)
    run = "06_random_forest" if model in study.trees else "05_train_network"
    links = {"run": f"[{run}](../runs/{model}/rotation_{rotation}/notebook.ipynb)"}
    links["rates"] = links["study"] = f"`params/{study.name}.yaml`"
    if study.learning_rates:
        links["rates"] = "[04_learning_rate](../04_learning_rate/notebook.ipynb)"
    told = pd.Series([where.format(**links) for where in table["Answered in"]], table.index)
    words = told.str.replace(r"\[\w+\]", lambda name: name[0].replace("_", " "), regex=True)
    return table.assign(**{"Answered in": words})
