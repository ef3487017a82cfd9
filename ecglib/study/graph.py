"""A study as a graph: what its steps stand on; run it, ask how far it is.

The graph itself is the ``Snakefile``, which reads its table of steps here.
"""

import json
import logging
import os
import sys
import textwrap
from collections import Counter
from pathlib import Path

from ecglib.folders import hold, partial
from ecglib.settings import Label
from ecglib.study import places, progress
from ecglib.study.params import Study, StudyError, find_study, load_study
from ecglib.study.step import check_path

CORE = (
    "beat",
    "errors",
    "settings",
    "folders",
    "models",
    "dataset",
    "folds",
    "metrics",
    "state",
    "trainer",
)
FLOORS = {  # what each step's code stands on, besides its notebook: modules and folders of ecglib
    "00_cohort": ("beat", "errors", "settings", "folders", "signal", "cohort"),
    "01_data_exploration": ("beat", "signal", "cohort", "analysis", "plots"),
    "02_folds": ("folds", "cohort", "plots"),
    "03_models": ("models", "analysis", "plots"),
    "04_learning_rate": ("plots", "study/learning_rates"),
    "07_comparison": ("metrics", "analysis", "plots"),
    "08_selected_model": ("metrics", "analysis", "plots", "study/report"),
    "09_saliency": (*CORE, "cohort", "analysis", "plots"),
    "11_omi_features": ("metrics", "trees", "analysis", "plots"),
    "grid": CORE,
    "network": CORE,
    "tree": ("folds", "signal", "cohort", "trees"),
}
SECTIONS = {  # of the study, which decide what the step finds; of others it is all of it
    "00_cohort": ("cohort", "signal", "seed"),
    "01_data_exploration": ("cohort", "signal", "seed"),
    "02_folds": ("folds", "seed"),
    "03_models": (),
    "04_learning_rate": ("learning_rates",),
    "grid": ("training", "seed", "threads_per_run", "models"),
    "network": ("training", "seed", "threads_per_run", "models"),
    "tree": ("seed", "threads_per_run", "models"),
}
BEFORE = {  # steps, and kinds of runs, whose results a step reads
    "01_data_exploration": ("00_cohort",),
    "02_folds": ("00_cohort",),
    "04_learning_rate": ("grid",),
    "07_comparison": ("network", "tree"),
    "08_selected_model": ("network", "tree"),
    "09_saliency": ("08_selected_model",),
    "grid": ("02_folds",),
    "network": ("02_folds",),
    "tree": ("02_folds",),
}
READ_DATA = ("00_cohort", "01_data_exploration", "11_omi_features")
NOTEBOOK_OF = {
    "grid": "05_train_network",
    "network": "05_train_network",
    "tree": "06_random_forest",
}


def named(path: Path) -> str:
    """A place as Snakemake names it: from where it runs."""
    return os.path.relpath(path, places.WORK)


def outputs(study) -> str:
    """Folder of a study's results, as Snakemake names it."""
    return named(places.study_folder(study.name))


def models_of(study) -> dict[str, set]:
    """Kind → models, of the runs that a study has."""
    kinds = {kind for kind, *_ in study.runs}
    return {one: {model for kind, model, *_ in study.runs if kind == one} for one in kinds}


def folder_of(study, kind: str, model="{model}", rotation="{rotation}", rate="{rate}") -> str:
    """Folder of a run of a kind, as Snakemake names it; with nothing else given, its pattern."""
    return named(places.run_folder(study.name, model, rotation, rate if kind == "grid" else 0))


def runs(study, *kinds: str) -> list[str]:
    """Marks of the finished runs of some kinds."""
    return [f"{folder_of(study, *run)}.done" for run in study.runs if run[0] in kinds]


def inputs(study, step: str, model: str = "") -> list[str]:
    """Files that a step, or a run of a model, depends on; a change of them runs it again."""
    floors = [places.PACKAGE / floor for floor in FLOORS[step]]
    found = [f for floor in floors for f in (floor.with_suffix(".py"), *sorted(floor.glob("*.*")))]
    files = [file for file in found if file.suffix in (".py", ".csv", ".md") and file.is_file()]
    files += [places.NOTEBOOKS / f"{NOTEBOOK_OF.get(step, step)}.ipynb", places.LOCK]
    if step == "00_cohort" and study.cohort.source == "files":
        files.append(places.find(study.cohort.table))
    before = BEFORE.get(step, ())
    results = [name for name in before if name in study.steps]
    if step == "network" and model in models_of(study).get("grid", ()):
        results.append("04_learning_rate")
    results = [f"{outputs(study)}/{name}/run.json" for name in results]
    return [*map(named, files), *results, *runs(study, *before)]


def settings(study, step: str, model: str = "") -> list[str]:
    """Values of the study that a step depends on, as ``training.epochs=10``.

    What is at its default is left out: a new option runs nothing again.
    """
    told = study.model_dump(mode="json", exclude_defaults=True)
    if model:
        told["models"] = {model: told["models"][model]}
    names = SECTIONS.get(step, sorted({*told} - {"name", "title"}))
    return [line for name in names if name in told for line in _flat(name, told[name])]


def _flat(name: str, value) -> list[str]:
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _flat(f"{name}.{key}", inner)]
    return [f"{name}={json.dumps(value)}"]


def threads(study, step: str, cores: int | None) -> int:
    """Cores of a step: building a cohort fills the machine; on a cluster it asks for two, unless
    the profile says more.
    """
    if step == "00_cohort":
        return cores or 2
    return study.threads_per_run if step == "11_omi_features" else 1


def checked(config: dict) -> tuple:
    """Study of Snakemake's ``--config``, and the absolute folder of public data; a study or a path
    that can't be used is refused before anything is planned.
    """
    study, data_dir = load_study(config.get("study", "")), config.get("data_dir")
    if isinstance(study, Study) and study.cohort.source == "files":
        for key in ("folder", "table"):
            check_path(f"cohort.{key}", getattr(study.cohort, key))
    return study, str(check_path("data_dir", data_dir)) if data_dir else ""


def run(study, given) -> int:
    """Run what is missing or changed; an engine that was killed leaves nothing that must be
    unlocked by hand.
    """
    from snakemake.cli import main as snakemake

    places.check_writable()
    if (lock := hold(places.study_folder(study.name), wait=False)) is None:
        raise StudyError(
            f"Study {study.name} is being run by another process; wait until it ends, or stop it"
        )
    # a cluster counts its cores and GPUs itself
    cluster = bool({"--profile", "--executor"} & set(given.more))
    dry = bool({"-n", "--dry-run", "--dryrun"} & set(given.more))
    config = {
        "study": find_study(given.study),
        "data_dir": given.data_dir,
        "gpus": given.gpus,
        "share": 0 if cluster else given.gpus,
        "jobs": given.jobs_per_gpu,
        "fresh": int(given.fresh),
    }
    jobs = given.gpus * given.jobs_per_gpu
    words = ["--config", *(f"{key}={value}" for key, value in config.items())]
    words += ["--snakefile", str(places.CODE / "Snakefile"), "--directory", str(places.WORK)]
    words += [] if cluster else ["--cores", str(given.cores), "--resources", f"gpu={jobs}"]
    quiet = ("host", "progress") if dry else ("host", "progress", "rules") if cluster else ("all",)
    words += ["--quiet", *quiet, "--keep-going", "--rerun-incomplete", "--nolock"]
    costs = progress.costs(study, jobs_of(study), given)
    watch = progress.Watch(study, costs, jobs or given.cores, f"{outputs(study)}/logs/")
    if dry:  # what would run is told in Snakemake's own words
        watch.addFilter(lambda record: getattr(record, "event", "") == "run_info")
    logging.getLogger("snakemake").addHandler(watch)
    try:
        with lock:
            snakemake([*words, *given.more])
    except SystemExit as end:
        if end.code:
            failed = [line for line in status(study).splitlines() if "FAILED" in line]
            print(*failed, sep="\n", file=sys.stderr)
        elif not dry:
            print(summary(study))
        return end.code or 0
    finally:
        watch.close()
    return 0


def jobs_of(study) -> dict[str, tuple[str, str]]:
    """Every step and run of a study: its name, which is its folder below the study's → its rule and
    its model.
    """
    found = {step: (step, "") for step in study.steps}
    for run in study.runs:
        found[os.path.relpath(folder_of(study, *run), outputs(study))] = run[:2]
    return found


def status(study) -> str:
    """What is done, running, failed and waiting, read from what lies in the study's folder."""
    states = {name: _state(places.step_folder(study.name, name)) for name in jobs_of(study)}
    counts = Counter(state for state, _ in states.values())
    lines = [f"{study.title}: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    for name, (state, told) in states.items():
        if state not in ("done", "waiting"):
            lines.append(f"  {state:<11} {name}{told}")
    return "\n".join(lines)


def _state(folder: Path) -> tuple[str, str]:
    """State of one step or run, and a word on it."""
    if folder.with_name(f".{folder.name}.lock").is_file():
        if (lock := hold(folder, wait=False)) is None:
            return "running", ""
        lock.release()
    if (error := partial(folder) / "error.txt").is_file():
        return "FAILED", f": {error.read_text().splitlines()[0]}"
    if partial(folder).is_dir():
        return "interrupted", ", goes on when the study is run again"
    return ("done" if (folder / "run.json").is_file() else "waiting"), ""


def summary(study) -> str:
    """What a study found and where to look, as text of at most 100 columns."""
    import pandas as pd

    lines = ["", study.title]
    for step, name in (("07_comparison", "extended"), ("11_omi_features", "front")):
        folder = places.step_folder(study.name, step)
        if (folder / "run.json").is_file():
            told = json.loads((folder / "run.json").read_text())
            table = pd.read_csv(folder / f"tables/{name}.csv", index_col=0).iloc[:, :2]
            table = table.add_prefix("test ").rename_axis(None).to_string()
            label = f"Label: {Label(told['label_kind'], told['label_meaning'])}"
            lines += [label, "", table, "", *(textwrap.fill(said, 98) for said in told["findings"])]
    lines += ["For research only; this is not a medical device.", ""]
    where = places.shown(places.study_folder(study.name))
    return "\n".join([*lines, f"Tables, figures and executed notebooks: {where}/*/"])
