# One study as a graph: each box is one papermill run of one notebook, in a folder of its own.
# make reproduce STUDY=params/x.yaml CORES=n   (or: snakemake --cores n --config study=params/x.yaml)
#
# A step runs again when its notebook, the code of the floors that it stands on, its part of the
# study, its table or the lock file changed. A run that was trained with the same identity is taken
# over, not trained again.
import sys
from shlex import quote

from ecglib.study import graph
from ecglib.study.params import StudyError

try:
    STUDY, DATA_DIR = graph.checked(config)
except StudyError as error:
    sys.exit(str(error))

PYTHON = sys.executable
# What the command line says is handed on by the shell: it is no reason to run a job again.
JOB = "DATA_DIR={DATA_DIR:q}; SHARED={SHARED}; JOBS={JOBS}; FRESH={FRESH}; "
JOB += "{PYTHON:q} -m ecglib.study notebook --study {config[study]:q} "
OUT = graph.outputs(STUDY)
GPU = int(config.get("gpus", 0))
# A cluster counts its GPUs itself; on one machine the jobs share out as many as there are.
SHARED, JOBS = int(config.get("share", 0)), int(config.get("jobs", 1))
FRESH = int(config.get("fresh", 0))


rule all:
    input:
        [f"{OUT}/{step}/run.json" for step in STUDY.steps],


for step in STUDY.steps:

    rule:
        name:
            step
        input:
            graph.inputs(STUDY, step),
        output:
            f"{OUT}/{step}/run.json",
        params:
            graph.settings(STUDY, step),
            words=step + (' --set data_dir="$DATA_DIR"' if step in graph.READ_DATA else ""),
        log:
            f"{OUT}/logs/{step}.log",
        threads: graph.threads(STUDY, step, workflow.resource_settings.cores)
        resources:
            mem_mb=3000,
            runtime=240,
        shell:
            JOB + "{params.words} > {log:q} 2>&1"


# Snakemake removes a job's outputs before the job starts; so for a run that is a mark beside its
# folder, and the notebook can take over what is finished in it.
for kind, models in graph.models_of(STUDY).items():
    folder = graph.folder_of(STUDY, kind)

    rule:
        name:
            kind
        input:
            lambda wildcards, kind=kind: graph.inputs(STUDY, kind, wildcards.model),
        output:
            touch(f"{folder}.done"),
        params:
            lambda wildcards, kind=kind: graph.settings(STUDY, kind, wildcards.model),
            words=graph.NOTEBOOK_OF[kind]
            + " --set model={model} --set rotation={rotation}"
            + (" --set learning_rate={rate}" if kind == "grid" else "")
            + ("" if kind == "tree" else " --gpus $SHARED --jobs-per-gpu $JOBS")
            + " --set fresh=$FRESH --folder "
            + quote(folder),
        log:
            folder.replace(OUT, f"{OUT}/logs") + ".log",
        wildcard_constraints:
            model="|".join(sorted(models)),
            rate="[^/]+",
            rotation=r"\d+",
        threads: STUDY.threads_per_run
        resources:
            gpu=0 if kind == "tree" else min(GPU, 1),
            mem_mb=3500,
            runtime=1440,
        shell:
            JOB + "{params.words} > {log:q} 2>&1"
