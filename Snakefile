# One study as a graph: each box is one papermill run of one notebook, in a folder of its own.
# make reproduce STUDY=params/x.yaml CORES=n   (or: snakemake --cores n --config study=params/x.yaml)
#
# A step runs again when its notebook, the code that decides what it finds, its part of the study, its data or the lock
# file changed. A run that was trained with the same parameters on the same cohort is taken over, not trained again.
import os
import sys

from ecglib import paths, workflow as study_graph
from ecglib.models import REGISTRY
from ecglib.params import Study, StudyError, find_study, load_study

try:
    study_graph.check_config(config)
    STUDY = load_study(config["study"])
except StudyError as error:
    sys.exit(str(error))

# Jobs read these when they start, so that a moved checkout, or another data folder, is no reason to run again.
config["study"] = str(find_study(config["study"]))
config["data_dir"] = study_graph.data_dir(STUDY, config.get("data_dir", ""))
config["gpus"] = int(config.get("gpus", 0))
RUN = f"{sys.executable} -m ecglib.execute"
SHARD = f"{sys.executable} -m ecglib.building"
OUT = os.path.relpath(paths.study_folder(STUDY.name), paths.WORK)
LOCK = os.path.relpath(paths.LOCK, paths.WORK)

WAVEFORMS = isinstance(STUDY, Study)  # else a study of published feature tables: one notebook
ROTATIONS = STUDY.rotations if WAVEFORMS else ()
GRID = STUDY.learning_rates if WAVEFORMS else None
NETWORKS, TABULAR = ([m for m in STUDY.models if study_graph.kind_of(STUDY, m) == k] for k in ("network", "tabular"))
STEPS = ["01_data_exploration", "03_models", "07_comparison", "08_selected_model", "09_saliency"]
STEPS += ["04_learning_rate"] if GRID else []
SHARDS = study_graph.shard_count(STUDY.cohort) if WAVEFORMS else 1
GPU = 1 if config["gpus"] else 0


def relative(files):
    return [os.path.relpath(file, paths.WORK) for file in files]


def section(*names):
    return study_graph.section(STUDY, *names)


def used(notebook):
    return section(*study_graph.settings_of(STUDY, notebook))


def needs(notebook, model=None, besides=()):
    """Notebook, code and lock file of a step."""
    code = relative(study_graph.code_of(notebook, model, besides))
    return [*relative([paths.NOTEBOOKS / f"{notebook}.ipynb"]), *code, LOCK]


def run_needs(notebook):
    """The same for a run, with the code of its own model; how runs are read doesn't matter to it."""
    return lambda w: needs(notebook, STUDY.models[w.model].network or w.model, ("runs", "plots"))


def tables(*names):
    """Tables of the data that lie outside: those that a study or the command line names."""
    if WAVEFORMS and STUDY.cohort.source == "files":
        return [str(paths.find(STUDY.cohort.table))]
    return [f"{config['data_dir']}/{name}" for name in names if config["data_dir"]]


def ptbxl_tables():
    return tables("ptbxl_database.csv", "scp_statements.csv") if STUDY.cohort.source != "synthetic" else []


def grid(model=None):
    marks = [(m, f"{OUT}/grid/{m}/{rate:g}/rotation_{k}.done") for m, rate, k in study_graph.grid_runs(STUDY)]
    return [mark for m, mark in marks if model in (None, m)]


def rule_of(model):
    return ["learning_rates.rule"] if GRID and model in GRID.grid else []


def runs():
    return [f"{OUT}/runs/{m}/rotation_{k}.done" for m in STUDY.models for k in ROTATIONS]


rule all:
    input:
        [f"{OUT}/{step}/run.json" for step in (STEPS if WAVEFORMS else ("11_omi_features",))],


if WAVEFORMS:

    rule shard:
        input:
            relative(study_graph.cohort_code()),
            ptbxl_tables(),
            LOCK,
        output:
            temp(touch(f"{OUT}/00_cohort.shards/{{shard}}.done")),
        params:
            section("cohort", "signal", "seed"),
        log:
            f"{OUT}/logs/00_cohort_shard_{{shard}}.log",
        resources:
            mem_mb=2000,
            runtime=240,
        shell:
            "{SHARD} --study {config[study]:q} --shard {wildcards.shard} --data-dir={config[data_dir]:q} > {log} 2>&1"

    rule cohort:
        input:
            needs("00_cohort"),
            relative(study_graph.cohort_code()),
            ptbxl_tables(),
            [f"{OUT}/00_cohort.shards/{i}.done" for i in range(SHARDS) if SHARDS > 1],
        output:
            f"{OUT}/00_cohort/run.json",
        params:
            section("cohort", "signal", "seed"),
        log:
            f"{OUT}/logs/00_cohort.log",
        threads: 2 if SHARDS == 1 else 1
        resources:
            mem_mb=3000,
            runtime=240,
        shell:
            "{RUN} 00_cohort --study {config[study]:q} --set data_dir={config[data_dir]:q} > {log} 2>&1"

    rule data_exploration:
        input:
            rules.cohort.output,
            needs("01_data_exploration"),
        output:
            f"{OUT}/01_data_exploration/run.json",
        params:
            used("01_data_exploration"),
        log:
            f"{OUT}/logs/01_data_exploration.log",
        resources:
            mem_mb=3000,
            runtime=60,
        shell:
            "{RUN} 01_data_exploration --study {config[study]:q} --set data_dir={config[data_dir]:q} > {log} 2>&1"

    rule folds:
        input:
            rules.cohort.output,
            needs("02_folds"),
        output:
            f"{OUT}/02_folds/run.json",
        params:
            section("folds.count", "seed"),
        log:
            f"{OUT}/logs/02_folds.log",
        resources:
            mem_mb=2000,
            runtime=60,
        shell:
            "{RUN} 02_folds --study {config[study]:q} > {log} 2>&1"

    rule models:
        input:
            needs("03_models"),
            relative(study_graph.PACKAGE.glob("models/*.py")),
        output:
            f"{OUT}/03_models/run.json",
        params:
            used("03_models"),
        log:
            f"{OUT}/logs/03_models.log",
        resources:
            mem_mb=3000,
            runtime=60,
        shell:
            "{RUN} 03_models --study {config[study]:q} > {log} 2>&1"

    # Snakemake removes a job's outputs before the job starts; so for a run that is a mark beside its folder, and
    # notebook 05 can take over what is finished in it.
    rule grid:
        input:
            rules.folds.output,
            run_needs("05_train_network"),
        output:
            touch(f"{OUT}/grid/{{model}}/{{rate}}/rotation_{{rotation}}.done"),
        params:
            lambda w: section("training", "seed", "threads_per_run", f"models.{w.model}"),
        log:
            f"{OUT}/logs/05_grid_{{model}}_{{rate}}_{{rotation}}.log",
        wildcard_constraints:
            model="|".join(NETWORKS) or "none",
            rotation=r"\d+",
        threads: STUDY.threads_per_run
        resources:
            gpu=GPU,
            mem_mb=3500,
            runtime=1440,
        shell:
            "{RUN} 05_train_network --study {config[study]:q} --set model={wildcards.model}"
            " --set rotation={wildcards.rotation} --set learning_rate={wildcards.rate} --gpu"
            " --folder {OUT}/grid/{wildcards.model}/{wildcards.rate}/rotation_{wildcards.rotation} > {log} 2>&1"

    rule learning_rate:
        input:
            grid(),
            needs("04_learning_rate"),
        output:
            f"{OUT}/04_learning_rate/run.json",
        params:
            used("04_learning_rate"),
        log:
            f"{OUT}/logs/04_learning_rate.log",
        resources:
            mem_mb=2000,
            runtime=60,
        shell:
            "{RUN} 04_learning_rate --study {config[study]:q} > {log} 2>&1"

    # A network with a grid chooses its learning rate from its own part of it; notebook 04 shows all of it.
    rule network:
        input:
            rules.folds.output,
            lambda w: grid(w.model),
            run_needs("05_train_network"),
        output:
            touch(f"{OUT}/runs/{{model}}/rotation_{{rotation}}.done"),
        params:
            lambda w: section("training", "seed", "threads_per_run", f"models.{w.model}", *rule_of(w.model)),
        log:
            f"{OUT}/logs/05_{{model}}_{{rotation}}.log",
        wildcard_constraints:
            model="|".join(NETWORKS) or "none",
            rotation=r"\d+",
        threads: STUDY.threads_per_run
        resources:
            gpu=GPU,
            mem_mb=3500,
            runtime=1440,
        shell:
            "{RUN} 05_train_network --study {config[study]:q} --set model={wildcards.model}"
            " --set rotation={wildcards.rotation} --gpu"
            " --folder {OUT}/runs/{wildcards.model}/rotation_{wildcards.rotation} > {log} 2>&1"

    rule forest:
        input:
            rules.folds.output,
            run_needs("06_random_forest"),
        output:
            touch(f"{OUT}/runs/{{model}}/rotation_{{rotation}}.done"),
        params:
            lambda w: section("seed", "threads_per_run", f"models.{w.model}"),
        log:
            f"{OUT}/logs/06_{{model}}_{{rotation}}.log",
        wildcard_constraints:
            model="|".join(TABULAR) or "none",
            rotation=r"\d+",
        threads: 1  # most of its time is spent on one
        resources:
            mem_mb=3000,
            runtime=240,
        shell:
            "{RUN} 06_random_forest --study {config[study]:q} --set model={wildcards.model}"
            " --set rotation={wildcards.rotation}"
            " --folder {OUT}/runs/{wildcards.model}/rotation_{wildcards.rotation} > {log} 2>&1"

    rule comparison:
        input:
            runs(),
            needs("07_comparison"),
        output:
            f"{OUT}/07_comparison/run.json",
        params:
            used("07_comparison"),
        log:
            f"{OUT}/logs/07_comparison.log",
        resources:
            mem_mb=3000,
            runtime=120,
        shell:
            "{RUN} 07_comparison --study {config[study]:q} > {log} 2>&1"

    rule selected_model:
        input:
            runs(),
            needs("08_selected_model"),
        output:
            f"{OUT}/08_selected_model/run.json",
        params:
            used("08_selected_model"),
        log:
            f"{OUT}/logs/08_selected_model.log",
        resources:
            mem_mb=3000,
            runtime=120,
        shell:
            "{RUN} 08_selected_model --study {config[study]:q} > {log} 2>&1"

    rule saliency:
        input:
            rules.selected_model.output,
            needs("09_saliency"),
        output:
            f"{OUT}/09_saliency/run.json",
        params:
            used("09_saliency"),
        log:
            f"{OUT}/logs/09_saliency.log",
        resources:
            mem_mb=3000,
            runtime=240,
        shell:
            "{RUN} 09_saliency --study {config[study]:q} > {log} 2>&1"

else:

    rule omi_features:
        input:
            needs("11_omi_features"),
        output:
            f"{OUT}/11_omi_features/run.json",
        params:
            used("11_omi_features"),
        log:
            f"{OUT}/logs/11_omi_features.log",
        threads: STUDY.threads_per_run
        resources:
            mem_mb=3000,
            runtime=240,
        shell:
            "{RUN} 11_omi_features --study {config[study]:q} --set data_dir={config[data_dir]:q} > {log} 2>&1"
