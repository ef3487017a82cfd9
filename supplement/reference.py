"""Results that are kept to be read: copied from a study's outputs, and compared with a fresh run.

From the command line, as the Makefile does::

    python supplement/reference.py keep params/demo.yaml     # into outputs/reference/demo
    python supplement/reference.py check params/demo.yaml    # compare the tables of both
    python supplement/reference.py check params/demo.yaml --rotation 0     # one run of each model
    python supplement/reference.py runs params/demo.yaml --rotation 0      # their marks
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from ecglib import load_model
from ecglib.dataset import BeatBank, seen_as
from ecglib.folders import sha256, write_json
from ecglib.study import graph, places
from ecglib.study.data import cohort_of
from ecglib.study.learned import FILE
from ecglib.study.notebook import run_notebook
from ecglib.study.params import StudyError, load_study
from ecglib.study.places import WEIGHTS
from ecglib.study.runs import RunError, performance, read_run
from ecglib.trainer import predict

# studies whose selected network is kept with its weights, for `make explain` right after cloning
SHIPPED = ("ptbxl",)
MOST = 0.005  # that a score may change by half precision
# that the test AUC and AP of one run may differ from those kept: on the same device, and on
# another, where a training takes another course, as it does from another seed
SAME, OTHER = {"AUC": 0.005, "AP": 0.02}, {"AUC": 0.04, "AP": 0.15}
# not: weights, checkpoints, vector copies of figures
KEPT = {".ipynb", ".csv", ".png", ".md", ".json", ".parquet"}
# differ from run to run
SECONDS = ("seconds", "memory", "best_epoch_seconds", "train_seconds", "val_seconds")


def keep(study: str) -> tuple[int, float]:
    """Copy what is read of a study's outputs to the reference folder; returns the number of files
    and megabytes.

    Of a run that is all but notebook, figures and weights, so that it counts as done; one of each
    kind keeps notebook and figures, to be read. Where a study's data may not be passed on record by
    record, nothing is kept but notebooks, tables and figures, which hold none.
    """
    source, goal = places.study_folder(study), places.REFERENCE / study
    if not source.is_dir():
        raise StudyError(f"Study {study} has no outputs to keep: run it with make reproduce first")
    files = {
        f: goal / f.relative_to(source)
        for f in source.rglob("*")
        if f.is_file() and f.suffix in KEPT and not _unfinished(f, source)
    }
    for folder in _one_of_each(source):
        read = [folder / "notebook.ipynb", *folder.glob("figures/*.png")]
        files |= {f: goal / f.relative_to(source) for f in read}
    shutil.rmtree(goal, ignore_errors=True)
    for file, copy in files.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".ipynb", ".json"):
            # no path of the machine it ran on
            text = file.read_text().replace(f"{places.ROOT}/", "")
            copy.write_text(re.sub(r'(data_dir(?: = \\"|": "))[^"\\]+', r"\1DATA_DIR", text))
        else:
            shutil.copy2(file, copy)
    return len(files), sum(f.stat().st_size for f in goal.rglob("*") if f.is_file()) / 1e6


def _one_of_each(source: Path) -> list[Path]:
    """Of the runs with a notebook one of each kind, the selected model's where it is one."""
    selected, found = source / "08_selected_model" / "run.json", {}
    told = json.loads(selected.read_text()) if selected.is_file() else {}
    first = f"runs/{told.get('model')}/rotation_{told.get('rotation')}/notebook.ipynb"
    for file in sorted(source.glob("runs/*/*/notebook.ipynb"), key=lambda f: not f.match(first)):
        kind = json.loads((file.parent / "run.json").read_text()).get("notebook")
        if kind and not _unfinished(file.parent, source):
            found.setdefault(kind, file.parent)
    return list(found.values())


def _unfinished(file: Path, source: Path) -> bool:
    """Whether a file lies in a folder that isn't complete, or among the logs and the notebooks and
    figures of runs.
    """
    parts = file.relative_to(source).parts
    inside_run = parts[0] in ("runs", "grid")
    return (
        any(part.endswith((".partial", ".old")) for part in parts)
        or parts[0] == "logs"
        or file.match("roc_pr_*.png")  # of each model: they stand in the notebook
        or (inside_run and file.suffix in (".ipynb", ".png"))
    )


def ship(study) -> str:
    """Keep the weights of the study's selected network, too, in half precision; returns what that
    changed, in words.

    Parameters
    ----------
    study : ecglib.study.params.Study
        Finished in ``outputs/``, and kept by `keep`.

    Raises
    ------
    StudyError
        If a score of its test fold changes by more than `MOST`.
    """
    chosen = json.loads(
        (places.step_folder(study.name, "08_selected_model") / "run.json").read_text()
    )
    run = places.run_folder(study.name, chosen["model"], chosen["rotation"])
    goal = places.REFERENCE / run.relative_to(places.OUTPUTS)
    if (run / FILE).is_file():  # by which others can tell what it learned from
        shutil.copy2(run / FILE, goal)
    weights = {
        name: w.half() if w.is_floating_point() else w
        for name, w in load_file(run / WEIGHTS).items()
    }
    save_file(weights, goal / WEIGHTS)
    facts = json.loads((goal / "run.json").read_text())
    facts["files"][WEIGHTS] = sha256(goal / WEIGHTS)
    write_json(goal / "run.json", facts | {"weights": "float16"})
    card = places.REFERENCE / study.name / "08_selected_model" / "model_card.md"
    network, cohort = load_model(goal), cohort_of(study)
    scores = (
        pd.read_parquet(run / "predictions.parquet")
        .query("split == 'test'")
        .set_index("record_id")
        .probability
    )
    at = np.flatnonzero(cohort.records.record_id.isin(scores.index))
    seen = seen_as(network.identity)
    bank = BeatBank(cohort.beats, cohort.records.label, torch.device("cpu"), **seen)
    now = pd.Series(predict(network, bank, at), index=cohort.records.record_id.iloc[at])
    moved = (now - scores).abs().max()
    if not moved <= MOST:
        (goal / WEIGHTS).unlink()
        raise StudyError(
            f"Half precision changes a score of {run.name} by {moved:.3g}, more than {MOST}: not "
            "kept"
        )
    told = (
        f"in half precision, which changes no test score by more than {moved:.2g}: SHA-256 "
        f"`{facts['files'][WEIGHTS]}`"
    )
    text = re.sub(
        r"^(- Weights: .*)$",
        rf"\1 as trained; shipped {told}",
        card.read_text(),
        count=1,
        flags=re.M,
    )
    card.write_text(text)
    size = (goal / WEIGHTS).stat().st_size / 1e6
    return (
        f"{(goal / WEIGHTS).relative_to(places.ROOT)}: {size:.1f} MB, changes no test score by "
        f"more than {moved:.2g}"
    )


def check(study: str, tolerance: float = 0.02) -> pd.DataFrame:
    """Compare every table of a fresh run with the kept one.

    Parameters
    ----------
    study : str
    tolerance : float
        Largest difference of a number, absolute or as a share of the kept one, that counts as the
        same: runs are equal to the bit on the same platform, and nearly so elsewhere.

    Returns
    -------
    pandas.DataFrame
        One row per table: ``same`` and, if not, ``reason``.
    """
    kept = sorted((places.REFERENCE / study).glob("*/tables/*.csv"))
    if not kept:
        raise StudyError(
            f"Study {study} has no reference results in {places.REFERENCE.relative_to(places.ROOT)}"
        )
    rows = []
    for file in kept:
        name = file.relative_to(places.REFERENCE / study)
        fresh = places.study_folder(study) / name
        reason = (
            "the fresh run has no such table"
            if not fresh.is_file()
            else _difference(file, fresh, tolerance)
        )
        rows.append({"table": str(name), "same": not reason, "reason": reason})
    return pd.DataFrame(rows)


def check_rotation(study, rotation: int) -> pd.DataFrame:
    """Compare one rotation's fresh run of each model with the kept one.

    Returns
    -------
    pandas.DataFrame
        By model: ``AUC kept, AUC now, AP kept, AP now`` of the test fold, ``largest`` change of a
        test score, ``devices``, and whether they are the ``same``: within `SAME` on one device,
        else within `OTHER`.

    Raises
    ------
    RunError
        If a model has no fresh run, or no kept one.
    """
    rows = {}
    for model in study.models:
        fresh = places.run_folder(study.name, model, rotation)
        both = read_run(places.REFERENCE / fresh.relative_to(places.OUTPUTS)), read_run(fresh)
        kept, now = (performance(run["folder"]).loc["test"] for run in both)
        tables = [pd.read_parquet(run["folder"] / "predictions.parquet") for run in both]
        was, scores = (t[t.split == "test"].set_index("record_id").probability for t in tables)
        devices = list(dict.fromkeys(run["device"] for run in both))
        limits = SAME if len(devices) == 1 else OTHER
        row = {f"{m} {when}": v[m] for m in limits for when, v in (("kept", kept), ("now", now))}
        row |= {"largest": (scores - was).abs().max(), "devices": " → ".join(devices)}
        row["same"] = all(abs(now[m] - kept[m]) <= most for m, most in limits.items())
        rows[model] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _difference(kept: Path, fresh: Path, tolerance: float) -> str:
    """Say in what two tables differ; nothing if they don't."""
    one, two = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (kept, fresh))
    if list(one.columns) != list(two.columns) or len(one) != len(two):
        return f"it has {len(two)} rows and the columns {', '.join(two.columns)}"
    for column in one.columns:
        if any(word in column.lower() for word in SECONDS):
            continue
        for row, (a, b) in enumerate(zip(one[column], two[column], strict=True)):
            if a != b and not _near(a, b, tolerance):
                return f"row {row + 1}, {column}: {b} instead of {a}"
    return ""


def _near(a: str, b: str, tolerance: float) -> bool:
    """Whether two cells hold the same words, and numbers that are nearly the same."""
    first, second = a.replace("±", " ").split(), b.replace("±", " ").split()
    if len(first) != len(second):
        return False
    for x, y in zip(first, second, strict=True):
        try:
            if not np.isclose(float(x), float(y), rtol=tolerance, atol=tolerance, equal_nan=True):
                return False
        except ValueError:
            if x != y:
                return False
    return True


def front_tables(study: str) -> str:
    """Test AUC and average precision with 95 % intervals of a study's reference results, as
    Markdown for the README.
    """
    folder = places.REFERENCE / study
    omi = (folder / "11_omi_features").is_dir()
    step = folder / ("11_omi_features" if omi else "07_comparison")
    facts = json.loads((step / "run.json").read_text())
    table = pd.read_csv(
        step / "tables" / ("front.csv" if omi else "extended.csv"), index_col=0, dtype=str
    )[["AUC", "AP"]]
    lines = ["| model | test AUC [95 %] | test AP [95 %] |", "|---|---|---|"]
    lines += [f"| {name} | {row.AUC} | {row.AP} |" for name, row in table.iterrows()]
    told = f"Label: {facts['label_meaning']} [{facts['label_kind']}]."
    return "\n".join([*lines, "", told])


def fill(readme: Path) -> str:
    """Text of the README with the block between ``<!-- reference: <study> -->`` and ``<!-- end
    -->`` made anew.
    """
    return re.sub(
        r"(<!-- reference: (\w+) -->\n).*?(\n<!-- end -->)",
        lambda found: found[1] + front_tables(found[2]) + found[3],
        readme.read_text(),
        flags=re.S,
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: keep or check the results of a study, or name a rotation's runs; returns 0, or
    1 with what is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python supplement/reference.py", description=main.__doc__
    )
    parser.add_argument("what", choices=("keep", "check", "runs"))
    parser.add_argument("study")
    parser.add_argument("--rotation", type=int, help="check this one's runs alone")
    given = parser.parse_args(arguments)
    try:
        settings = load_study(given.study)
        study = settings.name
        if given.what == "keep":
            if study in SHIPPED:  # the ECG that ships with the package, explained by its network
                run_notebook("10_explain_ecg", {}, places.step_folder(study, "10_explain_ecg"))
            number, size = keep(study)
            print(
                f"{number} files, {size:.1f} MB, in "
                f"{(places.REFERENCE / study).relative_to(places.ROOT)}"
            )
            if study in SHIPPED:
                print(ship(settings))
            readme = places.ROOT / "README.md"
            readme.write_text(fill(readme))  # so that its figures are those of the results
            return 0
        marks = graph.runs(settings, "network", "tree")
        if given.what == "runs":
            print(*(m for m in marks if m.endswith(f"/rotation_{given.rotation}.done")))
            return 0
        one = given.rotation is not None
        found = check_rotation(settings, given.rotation) if one else check(study)
    except (StudyError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    first = json.loads(next((places.REFERENCE / study).rglob("run.json")).read_text())
    told, commit = "runs" if one else "tables", first["environment"]["commit"][:10]
    print(found.to_string(index=one, float_format="%.4f"))
    print(f"{found.same.sum()} of {len(found)} {told} agree with the reference (commit {commit})")
    return 0 if found.same.all() else 1


if __name__ == "__main__":
    sys.exit(main())
