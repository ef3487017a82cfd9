# One study as a graph: each box is one papermill run of one notebook, in a folder of its own.
# make reproduce STUDY=params/x.yaml CORES=n   (or: snakemake --cores n --config study=params/x.yaml)
import json
import sys

from ecglib import paths
from ecglib.cohort import code_files
from ecglib.learning_rates import grid_runs
from ecglib.models import REGISTRY
from ecglib.params import Study, StudyError, find_study, load_study

try:
    STUDY = load_study(config["study"])
except StudyError as error:
    sys.exit(str(error))

FILE = str(find_study(config["study"]))
DATA_DIR = str(paths.find(config["data_dir"])) if config.get("data_dir") else ""
OUT = f"outputs/{STUDY.name}"
WAVEFORMS = isinstance(STUDY, Study)  # else a study of published feature tables: one notebook
ROTATIONS = STUDY.rotations if WAVEFORMS else ()
STEPS = ("01_data_exploration", "03_models", "07_comparison", "08_selected_model", "09_saliency")
TABULAR = [m for m, s in STUDY.models.items() if REGISTRY[s.network or m].kind == "tabular"]
NETWORKS = [m for m, s in STUDY.models.items() if REGISTRY[s.network or m].kind == "network"]
RUN = f"{sys.executable} -m ecglib.execute"


def section(*names):
    """The parts of the study that a step depends on: when they change, it runs again."""
    told = STUDY.model_dump()
    return json.dumps({name: told.get(name) for name in names}, sort_keys=True)


def options(model):
    return STUDY.models[model].model_dump_json()


def grid(*_):
    return [f"{OUT}/grid/{m}/{rate:g}/rotation_{k}.done" for m, rate, k in (grid_runs(STUDY) if WAVEFORMS else ())]


def choice(wildcards):
    tried = WAVEFORMS and STUDY.learning_rates
    return [f"{OUT}/04_learning_rate/run.json"] if tried and wildcards.model in tried.grid else []


def runs(models):
    return [f"{OUT}/runs/{m}/rotation_{k}.done" for m in models for k in ROTATIONS]


rule all:
    input:
        [f"{OUT}/{step}/run.json" for step in (STEPS if WAVEFORMS else ("11_omi_features",))],


rule cohort:
    input:
        [str(file.relative_to(paths.ROOT)) for file in code_files()],
        "notebooks/00_cohort.ipynb",
    output:
        f"{OUT}/00_cohort/run.json",
    params:
        section("cohort", "signal", "seed"),
    log:
        f"{OUT}/logs/00_cohort.log",
    threads: workflow.cores
    shell:
        RUN + f" 00_cohort --study {FILE} --set data_dir={DATA_DIR} > {{log}} 2>&1"


rule folds:
    input:
        rules.cohort.output,
        "notebooks/02_folds.ipynb",
    output:
        f"{OUT}/02_folds/run.json",
    params:
        section("folds", "seed"),
    log:
        f"{OUT}/logs/02_folds.log",
    shell:
        RUN + f" 02_folds --study {FILE} > {{log}} 2>&1"


# Snakemake removes a job's outputs before the job starts; so for a run that is a mark beside its folder, and notebook 05
# can take over what is finished in it.
rule grid:
    input:
        rules.folds.output,
        "notebooks/05_train_network.ipynb",
    output:
        touch(f"{OUT}/grid/{{model}}/{{rate}}/rotation_{{rotation}}.done"),
    params:
        lambda w: section("training", "seed", "threads_per_run") + options(w.model),
    log:
        f"{OUT}/logs/05_grid_{{model}}_{{rate}}_{{rotation}}.log",
    wildcard_constraints:
        model="|".join(NETWORKS) or "none",
        rotation=r"\d+",
    threads: STUDY.threads_per_run
    resources:
        gpu=1,
    shell:
        RUN + f" 05_train_network --study {FILE} --set model={{wildcards.model}} --set rotation={{wildcards.rotation}}"
        f" --set learning_rate={{wildcards.rate}} --folder {OUT}/grid/{{wildcards.model}}/{{wildcards.rate}}"
        f"/rotation_{{wildcards.rotation}} > {{log}} 2>&1"


rule learning_rate:
    input:
        grid,
        "notebooks/04_learning_rate.ipynb",
    output:
        f"{OUT}/04_learning_rate/run.json",
    params:
        section("learning_rates"),
    log:
        f"{OUT}/logs/04_learning_rate.log",
    shell:
        RUN + f" 04_learning_rate --study {FILE} > {{log}} 2>&1"


rule network:
    input:
        rules.folds.output,
        choice,
        "notebooks/05_train_network.ipynb",
    output:
        touch(f"{OUT}/runs/{{model}}/rotation_{{rotation}}.done"),
    params:
        lambda w: section("training", "seed", "threads_per_run") + options(w.model),
    log:
        f"{OUT}/logs/05_{{model}}_{{rotation}}.log",
    wildcard_constraints:
        model="|".join(NETWORKS) or "none",
        rotation=r"\d+",
    threads: STUDY.threads_per_run
    resources:
        gpu=1,
    shell:
        RUN + f" 05_train_network --study {FILE} --set model={{wildcards.model}} --set rotation={{wildcards.rotation}}"
        f" --folder {OUT}/runs/{{wildcards.model}}/rotation_{{wildcards.rotation}} > {{log}} 2>&1"


rule forest:
    input:
        rules.folds.output,
        "notebooks/06_random_forest.ipynb",
        "ecglib/features.py",
        "ecglib/features.csv",
        "ecglib/tabular.py",
        "ecglib/signal/fiducials.py",
    output:
        touch(f"{OUT}/runs/{{model}}/rotation_{{rotation}}.done"),
    params:
        lambda w: section("seed", "threads_per_run") + options(w.model),
    log:
        f"{OUT}/logs/06_{{model}}_{{rotation}}.log",
    wildcard_constraints:
        model="|".join(TABULAR) or "none",
        rotation=r"\d+",
    threads: 1  # most of its time is spent on one
    shell:
        RUN + f" 06_random_forest --study {FILE} --set model={{wildcards.model}} --set rotation={{wildcards.rotation}}"
        f" --folder {OUT}/runs/{{wildcards.model}}/rotation_{{wildcards.rotation}} > {{log}} 2>&1"


rule after_cohort:
    input:
        rules.cohort.output,
        "notebooks/{step}.ipynb",
    output:
        f"{OUT}/{{step}}/run.json",
    log:
        f"{OUT}/logs/{{step}}.log",
    wildcard_constraints:
        step="01_data_exploration|03_models",
    params:
        given=lambda w: f"--set data_dir={DATA_DIR}" if w.step == "01_data_exploration" else "",
    shell:
        RUN + f" {{wildcards.step}} --study {FILE} {{params.given}} > {{log}} 2>&1"


rule after_training:
    input:
        runs(STUDY.models),
        "notebooks/{step}.ipynb",
    output:
        f"{OUT}/{{step}}/run.json",
    params:
        section("statistics", "saliency", "selected_model"),
    log:
        f"{OUT}/logs/{{step}}.log",
    wildcard_constraints:
        step="07_comparison|08_selected_model|09_saliency",
    shell:
        RUN + f" {{wildcards.step}} --study {FILE} > {{log}} 2>&1"


rule omi_features:
    input:
        "notebooks/11_omi_features.ipynb",
        "ecglib/sources/omi_features.py",
        "ecglib/features.csv",
        "ecglib/tabular.py",
    output:
        f"{OUT}/11_omi_features/run.json",
    params:
        section("omi_features", "models", "seed", "threads_per_run", "statistics"),
    log:
        f"{OUT}/logs/11_omi_features.log",
    threads: workflow.cores
    shell:
        RUN + f" 11_omi_features --study {FILE} --set data_dir={DATA_DIR} > {{log}} 2>&1"
