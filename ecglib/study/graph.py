"""A study as a graph: what its steps stand on; run it, ask how far it is.

The graph itself is the ``Snakefile``, which reads its table of steps here.
"""

import json
import logging
import os
import sys
import textwrap
from pathlib import Path

from ecglib.errors import nearest
from ecglib.folders import hold, partial
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
FOLDERS = {  # of runs, below the study's
    "grid": "grid/{model}/{rate}/rotation_{rotation}",
    "network": "runs/{model}/rotation_{rotation}",
    "tree": "runs/{model}/rotation_{rotation}",
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


def outputs(study) -> str:
    """Folder of a study's results, as Snakemake names it: from where it runs."""
    return os.path.relpath(places.study_folder(study.name), places.WORK)


def models_of(study) -> dict[str, tuple]:
    """Rule → models, of the runs that a study has."""
    models = {"network": study.networks, "tree": study.trees} if study.rotations else {}
    models["grid"] = tuple(study.learning_rates.grid) if study.grid_runs else ()
    return {kind: keys for kind, keys in models.items() if keys}


def runs(study, kind: str) -> list[str]:
    """Marks of the finished runs of a kind."""
    named = [(model, 0, k) for model in models_of(study).get(kind, ()) for k in study.rotations]
    return [
        f"{outputs(study)}/{FOLDERS[kind]}.done".format(model=model, rate=f"{rate:g}", rotation=k)
        for model, rate, k in (study.grid_runs if kind == "grid" else named)
    ]


def inputs(study, step: str, model: str = "") -> list[str]:
    """Files that a step, or a run of a model, depends on; a change of them runs it again."""
    floors = [places.PACKAGE / floor for floor in FLOORS[step]]
    found = [f for floor in floors for f in (floor.with_suffix(".py"), *sorted(floor.glob("*.*")))]
    files = [file for file in found if file.suffix in (".py", ".csv", ".md") and file.is_file()]
    files += [places.NOTEBOOKS / f"{NOTEBOOK_OF.get(step, step)}.ipynb", places.LOCK]
    if step == "00_cohort" and study.cohort.source == "files":
        files.append(places.find(study.cohort.table))
    before = list(BEFORE.get(step, ()))
    if step == "network" and study.grid_runs and model in study.learning_rates.grid:
        before.append("04_learning_rate")
    named = [os.path.relpath(file, places.WORK) for file in files]
    named += [f"{outputs(study)}/{name}/run.json" for name in before if name not in FOLDERS]
    return named + [mark for kind in before if kind in FOLDERS for mark in runs(study, kind)]


def settings(study, step: str, model: str = "") -> list[str]:
    """Values of the study that a step depends on, as ``training.epochs=10``.

    What is at its default is left out: a new option runs nothing again.
    """
    told, flat = study.model_dump(mode="json", exclude_defaults=True), []
    if model:
        told["models"] = {model: told["models"][model]}

    def add(name, value):
        for key, inner in value.items() if isinstance(value, dict) else ():
            add(f"{name}.{key}", inner)
        if not isinstance(value, dict):
            flat.append(f"{name}={json.dumps(value)}")

    for name in SECTIONS.get(step, sorted({*told} - {"name", "title"})):
        if name in told:
            add(name, told[name])
    return flat


def threads(study, step: str, cores: int | None) -> int:
    """Cores of a step: building a cohort fills the machine; on a cluster it asks for two, unless
    the profile says more.
    """
    if step == "00_cohort":
        return cores or 2
    return study.threads_per_run if step == "11_omi_features" else 1


def data_dir(config: dict) -> str:
    """Absolute folder of the public data that the command line names."""
    return str(places.find(config["data_dir"])) if config.get("data_dir") else ""


def check_config(config: dict) -> None:
    """Refuse a study, a path or a key of Snakemake's ``--config`` that can't be used, before
    anything is planned.
    """
    known = ("study", "data_dir", "gpus", "share", "jobs", "fresh")
    for key in config:
        if key not in known:
            raise StudyError(f"--config has no '{key}'{nearest(key, known)}")
    if "study" not in config:
        raise StudyError("No study was given: add --config study=params/<name>.yaml")
    study = load_study(config["study"])
    if config.get("data_dir"):
        check_path("data_dir", config["data_dir"])
    if isinstance(study, Study) and study.cohort.source == "files":
        for key in ("folder", "table"):
            check_path(f"cohort.{key}", getattr(study.cohort, key))


def run(study, given) -> int:
    """Run what is missing or changed; an engine that was killed leaves nothing that must be
    unlocked by hand.
    """
    from snakemake.cli import main as snakemake

    if problem := places.unwritable():
        raise StudyError(problem)
    if (lock := hold(places.study_folder(study.name), wait=False)) is None:
        raise StudyError(
            f"Study {study.name} is being run by another process; wait until it ends, or stop it"
        )
    # a cluster counts its cores and GPUs itself
    cluster = bool({"--profile", "--executor"} & set(given.more))
    config = {"study": find_study(given.study), "data_dir": given.data_dir, "gpus": given.gpus}
    config |= {"share": 0 if cluster else given.gpus, "jobs": given.jobs_per_gpu}
    config["fresh"] = int(given.fresh)
    jobs = given.gpus * given.jobs_per_gpu
    words = ["--config", *(f"{key}={value}" for key, value in config.items())]
    words += ["--snakefile", str(places.CODE / "Snakefile"), "--directory", str(places.WORK)]
    words += [] if cluster else ["--cores", str(given.cores), "--resources", f"gpu={jobs}"]
    dry = bool({"-n", "--dry-run", "--dryrun"} & set(given.more))
    words += [
        "--quiet",
        *(("host", "progress") if dry else ("host", "progress", "rules") if cluster else ("all",)),
        "--keep-going",
    ]
    words += ["--rerun-incomplete", "--nolock", *given.more]
    watch = progress.Watch(
        study, _costs(study, given), jobs or given.cores, f"{outputs(study)}/logs/"
    )
    if dry:  # what would run is told in Snakemake's own words
        watch.addFilter(lambda record: getattr(record, "event", "") == "run_info")
    logging.getLogger("snakemake").addHandler(watch)
    try:
        with lock:
            snakemake(words)
    except SystemExit as end:
        failed = [line for line in status(study).splitlines() if "FAILED" in line]
        if end.code:
            print(*failed, sep="\n", file=sys.stderr)
        elif not dry:
            print(summary(study))
        return end.code or 0
    finally:
        watch.close()
    return 0


def _costs(study, given) -> dict[str, tuple[str, float]]:
    """Rule of every step and run, and seconds of one core that it should take."""
    told = {}
    for name, folder in jobs_of(study).items():
        kind, _, rest = name.partition("/")
        trained = "tree" if rest.split("/")[0] in study.trees else "network"
        cost = progress.seconds(study, name) * (study.threads_per_run if rest else 1)
        if rest and given.gpus:
            cost = min(cost, 20 + cost / 50)
        if rest and not given.fresh and places.kept(folder).is_dir():
            cost = 15  # taken over
        told[name] = (trained if kind == "runs" else kind), cost
    return told


def jobs_of(study) -> dict[str, Path]:
    """Every step and run of a study: its name and its folder, in order."""
    folder, out = places.study_folder(study.name), outputs(study)
    marks = [mark for kind in FOLDERS for mark in runs(study, kind)]
    names = [os.path.relpath(mark, out).removesuffix(".done") for mark in marks]
    names = sorted([*study.steps, *names], key=_place_in_order)
    return {name: folder / name for name in names}


def _place_in_order(name: str) -> tuple:
    first = name.split("/")[0]
    return {"grid": "03", "runs": "05"}.get(first, first), name


def status(study) -> str:
    """What is done, running, failed and waiting, read from what lies in the study's folder."""
    counts, lines = {}, []
    for name, folder in jobs_of(study).items():
        state, told = _state(folder)
        counts[state] = counts.get(state, 0) + 1
        if state not in ("done", "waiting"):
            lines.append(f"  {state:<11} {name}{told}")
    first = f"{study.title}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    return "\n".join([first, *lines])


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
    for step in study.steps:
        folder = places.step_folder(study.name, step)
        for name in ("extended.csv", "front.csv"):
            if (file := folder / "tables" / name).is_file():
                told = json.loads((folder / "run.json").read_text())
                table = (
                    pd.read_csv(file, index_col=0).iloc[:, :2].add_prefix("test ").rename_axis(None)
                )
                lines += [f"Label: {told['label_meaning']} [{told['label_kind']} label]"]
                lines += ["", table.to_string(), ""]
                lines += [textwrap.fill(sentence, 98) for sentence in told["findings"]]
    lines += ["For research only; this is not a medical device.", ""]
    where = places.shown(places.study_folder(study.name))
    return "\n".join([*lines, f"Tables, figures and executed notebooks: {where}/*/"])
