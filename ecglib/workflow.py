"""A study as a graph: what its steps depend on; run it, plan it, ask how far it is.

    python -m ecglib.workflow run --study params/demo.yaml --cores 2
    python -m ecglib.workflow plan --study params/demo.yaml

The graph itself is the ``Snakefile``.
"""

import argparse
import ast
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

from ecglib import paths
from ecglib.execute import hold, partial
from ecglib.models import REGISTRY
from ecglib.params import Study, StudyError, find_study, load_study, nearest
from ecglib.strict import check_path

PACKAGE = Path(__file__).parent
SHARD = 2500  # records for which one more job is worth its start
COMMANDS = ("run", "plan", "status", "summary")
# How things are read, checked and written: it decides no number, so a change of it runs nothing
# again.
BESIDES = (
    "",
    "params",
    "paths",
    "execute",
    "strict",
    "workflow",
    "models",
    "cohort",
    "building",
    "sources",
)
COHORT = ("signal/*.py", "sources/*.py", "cohort.py", "building.py")


def kind_of(study, model: str) -> str:
    """Kind of a study's model: 'network' or 'tabular'."""
    return REGISTRY[study.models[model].network or model].kind


def grid_rotations(study) -> tuple[int, ...]:
    """Rotations on which the grid is run: with `per_rotation` each one that the study runs."""
    tried = study.learning_rates
    return (
        study.rotations
        if tried.rule == "per_rotation" or tried.rotations is None
        else tried.rotations
    )


def grid_runs(study) -> list[tuple[str, float, int]]:
    """Model, learning rate and rotation of every run of the grid."""
    tried = study.learning_rates.grid if study.learning_rates else {}
    return [
        (m, rate, k) for m, rates in tried.items() for rate in rates for k in grid_rotations(study)
    ]


def shard_count(cohort) -> int:
    """Into how many shards a cohort is cut; it depends on the study's ``cohort`` section and table
    alone.
    """
    if cohort.source == "files":
        table = paths.find(cohort.table)
        records = table.stat().st_size // 40 if table.is_file() else 0  # of a row of text
    else:
        records = cohort.records if cohort.source == "synthetic" else 4 * SHARD
    return min(32, max(1, records // SHARD))


def cohort_code() -> list[Path]:
    """Code that decides what a cohort holds: a change of it builds the cohort again."""
    return sorted(file for pattern in COHORT for file in PACKAGE.glob(pattern))


def code_of(notebook: str, model=None, besides: tuple = ()) -> list[Path]:
    """Code that decides what a notebook finds: the modules that it imports, what these import, and
    tables they name.

    Parameters
    ----------
    notebook : str
        A notebook of ``notebooks/``, without ending.
    model : str, optional
        A registered model, whose own code counts too.
    besides : tuple of str
        Modules that don't count here, besides `BESIDES`.
    """
    left, seen = [*_imports(_source(notebook))], set()
    if model:
        left.append(REGISTRY[model].builder.split(":")[0].removeprefix("ecglib."))
    while left:
        name = left.pop()
        if name not in {*seen, *BESIDES, *besides}:
            seen.add(name)
            left += _imports(_file(name).read_text())
    files = [_file(name) for name in seen]
    named = {
        f.with_name(name)
        for f in files
        for name in re.findall(r'"(\w+\.(?:csv|md))"', f.read_text())
    }
    return sorted([*files, *(file for file in named if file.is_file())])


def code_hash(files) -> str:
    """Hash of Python files, whatever their comments, docstrings and empty lines say."""
    told = hashlib.sha256()
    for file in files:
        lines = file.read_text().splitlines()
        words = tokenize.generate_tokens(iter([line + "\n" for line in lines]).__next__)
        for word in words:
            if word.type == tokenize.COMMENT:
                lines[word.start[0] - 1] = lines[word.start[0] - 1][: word.start[1]]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                lines[node.lineno - 1 : node.end_lineno] = [""] * (
                    node.end_lineno - node.lineno + 1
                )
        told.update("\n".join(line.rstrip() for line in lines if line.strip()).encode())
    return told.hexdigest()[:16]


def training_code(network: str) -> list[Path]:
    """Code that decides what a network learns: its own, and that of the training loop and its
    batches.
    """
    own = [file for file in code_of("", network, ("runs", "plots")) if file.parent.name == "models"]
    return [*own, *(PACKAGE / name for name in ("convolution.py", "dataset.py", "trainer.py"))]


def settings_of(study, notebook: str) -> list[str]:
    """Sections of the study that a notebook reads, as ``settings.<section>``."""
    named = re.findall(r"\bsettings\.(\w+)", _source(notebook))
    return sorted(
        {"folds" if name == "rotations" else name for name in named}
        & set(type(study).model_fields) - {"name"}
    )


def _source(notebook: str) -> str:
    """Code of a notebook."""
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    cells = json.loads(file.read_text())["cells"] if file.is_file() else []
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _file(module: str) -> Path:
    """File of a module of the package, named from the package: ``plots.ecg``."""
    place = PACKAGE.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def _imports(source: str) -> tuple[str, ...]:
    """Modules of the package that some code imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ecglib":
            base = node.module.split(".")[1:]
            found += [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
    return tuple(name for name in found if name and _file(name).is_file())


def section(study, *names: str) -> list[str]:
    """Values of the study that a step depends on, as ``training.epochs=10``: when one changes, the
    step runs again.
    """
    told = study.model_dump(mode="json")
    flat = []

    def add(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
        else:
            flat.append(f"{name}={json.dumps(value)}")

    for name in names:
        value = told
        for key in name.split("."):
            value = value[key]
        add(name, value)
    return flat


def check_config(config: dict) -> None:
    """Refuse a study, a path or a key of Snakemake's ``--config`` that can't be used, before
    anything is planned.
    """
    known = ("study", "data_dir", "gpus")
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


def data_dir(study, given: str) -> str:
    """Folder of the public data: the one that is given, which is remembered, or else the one that
    was given last.
    """
    file = paths.study_folder(study.name) / ".data_dir"
    if given:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(paths.find(given)))
    return file.read_text() if file.is_file() and Path(file.read_text()).is_dir() else ""


def run(study, given) -> int:
    """Run what is missing or changed; an engine that was killed leaves nothing that must be
    unlocked by hand.
    """
    from snakemake.cli import main as snakemake

    if (lock := hold(paths.study_folder(study.name), wait=False)) is None:
        raise StudyError(
            f"Study {study.name} is being run by another process; wait for its end, or stop it"
        )
    options = ["--quiet", "rules", "host", "progress", "--keep-going"]
    if given.gpus and not _elsewhere(given):
        options += ["--resources", f"gpu={given.gpus}"]
        os.environ["ECGLIB_GPUS"] = str(given.gpus)  # a cluster gives them out itself
    try:
        with lock:
            snakemake(_words(given, *options))
    except SystemExit as end:
        failed = [line for line in status(study).splitlines() if "FAILED" in line]
        print(
            "\n".join(failed) if end.code else summary(study),
            file=sys.stderr if end.code else sys.stdout,
        )
        return end.code or 0
    return 0


def _elsewhere(given) -> bool:
    """Whether a cluster runs the jobs, which counts its cores and GPUs itself."""
    return bool({"--profile", "--executor"} & set(given.more))


def _words(given, *options: str) -> list[str]:
    """Snakemake's command line; its last option takes no value, so that what the user adds stands
    for itself.
    """
    config = [
        f"study={find_study(given.study)}",
        f"data_dir={given.data_dir}",
        f"gpus={given.gpus}",
    ]
    place = ["--snakefile", str(PACKAGE.parent / "Snakefile"), "--directory", str(paths.WORK)]
    cores = [] if _elsewhere(given) else ["--cores", str(given.cores)]
    return [
        "--config",
        *config,
        *place,
        *cores,
        *options,
        "--rerun-incomplete",
        "--nolock",
        *given.more,
    ]


def plan(study, given) -> str:
    """What would run, and why."""
    snakemake = [sys.executable, "-m", "snakemake", *_words(given, "--dry-run")]
    done = subprocess.run(snakemake, capture_output=True, text=True, check=False, cwd=paths.ROOT)
    if done.returncode:
        raise StudyError((done.stderr or done.stdout).strip())
    jobs: dict[tuple, list] = {}
    for block in re.split(r"^\[.*\]\n", done.stdout + done.stderr, flags=re.M):
        told = dict(re.findall(r"^    (output|reason): (.*?) *$", block, flags=re.M))
        if inside := re.search(
            rf"(?:^|/){study.name}/(\S+?)(?:/run\.json|\.done)", told.get("output", "")
        ):
            parts = inside[1].split("/")
            deep = 2 if parts[0] in ("runs", "grid") else 1
            why = "; ".join(map(_reason, re.split(r"; (?=[A-Z])", told.get("reason", ""))))
            jobs.setdefault(("/".join(parts[:deep]), why), []).append(
                "/".join(parts[deep:]).removeprefix("rotation_")
            )
    lines = [f"{study.title}: {sum(map(len, jobs.values()))} jobs would run"]
    for (name, why), members in jobs.items():
        which = f": {', '.join(sorted(members))}" if len(members) < 12 else f": {len(members)} runs"
        lines.append(f"  {name + (which if any(members) else ''):<44} {why}")
    return "\n".join([lines[0], *sorted(lines[1:])])


def _reason(told: str) -> str:
    """Snakemake's reason in fewer words."""
    kind, _, what = told.partition(": ")
    if kind == "Missing output files":
        return "not made yet"
    if kind == "Input files updated by another job":
        return "follows a step that runs"
    if kind == "Updated input files":
        return f"changed: {what}"
    if change := re.search(r"before: (.*) now: (.*)", what):
        before, now = (re.findall(r"[\w.]+=[^,'\]]+", side) for side in change.groups())
        differs = [
            *(f"{v} (before)" for v in before if v not in now),
            *(f"{v} (now)" for v in now if v not in before),
        ]
        return f"study: {', '.join(differs)}"
    return told[:1].lower() + told[1:]


def jobs_of(study) -> dict[str, Path]:
    """Every step and run of a study: its name and its folder."""
    if not isinstance(study, Study):
        return {"11_omi_features": paths.step_folder(study.name, "11_omi_features")}
    steps = ["00_cohort", "01_data_exploration", "02_folds", "03_models", "04_learning_rate"]
    if not study.learning_rates:
        steps.remove("04_learning_rate")
    jobs = {step: paths.step_folder(study.name, step) for step in steps}
    for model, rate, k in grid_runs(study):
        jobs[f"grid/{model}/{rate:g}/rotation_{k}"] = paths.grid_folder(study.name, model, rate, k)
    jobs |= {
        f"runs/{m}/rotation_{k}": paths.run_folder(study.name, m, k)
        for m in study.models
        for k in study.rotations
    }
    steps = ("07_comparison", "08_selected_model", "09_saliency")
    return jobs | {step: paths.step_folder(study.name, step) for step in steps}


def status(study) -> str:
    """What is done, running, failed and waiting, read from what lies in the study's folder."""
    counts, lines = {}, []
    for name, folder in jobs_of(study).items():
        state, told = _state(folder)
        counts[state] = counts.get(state, 0) + 1
        if state not in ("done", "waiting"):
            lines.append(f"  {state:<11} {name}{told}")
    return "\n".join(
        [f"{study.title}: " + ", ".join(f"{n} {state}" for state, n in counts.items()), *lines]
    )


def _state(folder: Path) -> tuple[str, str]:
    """State of one step or run, and a word on it."""
    if folder.with_name(f".{folder.name}.lock").is_file():
        if (lock := hold(folder, wait=False)) is None:
            return "running", ""
        lock.close()
    if (error := partial(folder) / "error.txt").is_file():
        return "FAILED", f": {error.read_text().splitlines()[0]}"
    if partial(folder).is_dir():
        return "interrupted", ", goes on when the study is run again"
    return ("done" if (folder / "run.json").is_file() else "waiting"), ""


def summary(study) -> str:
    """What a study found and where to look, as text."""
    folder = paths.study_folder(study.name)
    lines = [f"\n{study.title}"]
    for step in jobs_of(study).values():
        file = step / "tables" / "table_4.csv"
        if not file.is_file():
            continue
        label = json.loads((step / "run.json").read_text())
        lines += [
            f"Label: {label['label_meaning']} [{label['label_kind']} label]; research only, no medical device",
            "",
        ]
        rows = list(csv.reader(file.read_text().splitlines()))
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            for row in rows
        ]
    return "\n".join(
        [*lines, "", f"Tables, figures and executed notebooks: {paths.shown(folder)}/*/"]
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line: run, plan or look at a study; words after ``--`` go to Snakemake."""
    parser = argparse.ArgumentParser(prog="python -m ecglib.workflow", description=main.__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--study", required=True)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0, help="GPUs to share out, one a job")
    own, more = list(sys.argv[1:] if arguments is None else arguments), []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    given.more = more
    try:
        study = load_study(given.study)
        check_config({"study": given.study, "data_dir": given.data_dir})
        if given.command == "run":
            if told := paths.unwritable():
                raise StudyError(told)
            return run(study, given)
        print(plan(study, given) if given.command == "plan" else globals()[given.command](study))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
