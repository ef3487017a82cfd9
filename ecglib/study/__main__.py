"""The command line of a study: run it, ask how far it is, run one notebook, explain one ECG,
take over a published network.

    python -m ecglib.study run --study params/demo.yaml --cores 2 -- --dry-run
    python -m ecglib.study status --study params/demo.yaml
    python -m ecglib.study notebook 05_train_network --study params/demo.yaml --set rotation=3
    python -m ecglib.study explain --ecg my.xml
    python -m ecglib.study weights ecgsmartnet_omi.pt
    python -m ecglib.study make-acs-ecg FOLDER --records 2000

Words after ``--`` go to Snakemake.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import click

from ecglib.errors import Refusal
from ecglib.study import places
from ecglib.study.params import StudyError, find_study, load_study

STUDY = click.option("--study", required=True, help="a study file, or the name of one")
GPUS = click.option("--gpus", default=0, help="GPUs to distribute runs over")
PLACES = click.option("--jobs-per-gpu", default=1, help="runs at once on each")


@click.group(help="Studies and ECGs.")
def commands():
    """Group of the commands below."""


@commands.command()
@STUDY
@click.option("--data-dir", default="", help="where public data lie already")
@click.option("--cores", default=1)
@GPUS
@PLACES
@click.option("--fresh", is_flag=True, help="reuse no finished run")
@click.argument("more", nargs=-1)
def run(**given):
    """Run a study; words after -- go to Snakemake."""
    from ecglib.study import graph  # seconds to import, which explaining an ECG needn't wait for

    study, _ = graph.checked(given)
    return graph.run(study, SimpleNamespace(**given))


@commands.command()
@STUDY
def status(study):
    """Which steps of a study are done, running or failed."""
    from ecglib.study import graph

    print(graph.status(load_study(study)))


@commands.command()
@click.argument("name")
@STUDY
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="a parameter")
@click.option("--folder", type=Path, help="default: the step's own place")
@GPUS
@PLACES
def notebook(name, study, values, folder, gpus, jobs_per_gpu):
    """Run one notebook of notebooks/, given without ending."""
    from ecglib.study.machine import gpu
    from ecglib.study.notebook import run_notebook

    parameters = {"study": str(find_study(study))}
    for item in values:
        key, separator, value = item.partition("=")
        if not separator:
            raise StudyError(f"--set {item} has no '=': write NAME=VALUE")
        parameters[key] = value
    final = (folder or places.step_folder(load_study(study).name, name)).absolute()
    with gpu(gpus, jobs_per_gpu) if gpus else nullcontext():
        run_notebook(name, parameters, final)


@commands.command()
@click.option("--ecg", default="", help="a recording; default: a simulated one")
@click.option("--run", "network", default="", help="folder of a trained network, or a study")
def explain(ecg, network):
    """Explain one ECG on one page."""
    from ecglib.study.explain import run

    run(ecg, network)


@commands.command()
@click.argument("file")
def weights(file):
    """Take over a checkpoint that the paper's group published."""
    from ecglib.study.weights import convert

    folder = places.shown(convert(file))
    print(f"{folder}: explain an ECG with it by make explain ECG=file RUN={folder}")


@commands.command()
@click.argument("folder", type=Path)
@click.option("--records", default=2000)
@click.option("--positives", default=0.0641)
def make_acs_ecg(folder, records, positives):
    """Write simulated ECGs in the layout of ACS-ECG."""
    from ecglib.cohort.made_up import write

    print(write(folder, records, positives).value_counts(["part", "trap"]))


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns 0, or another code with one sentence on what is
    wrong.
    """
    try:
        return commands.main(arguments, "python -m ecglib.study", standalone_mode=False) or 0
    except click.Abort:  # by Ctrl-C
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Refusal as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
