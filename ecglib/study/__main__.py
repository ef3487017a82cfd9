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

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from ecglib.cohort.source import SourceError
from ecglib.study import places
from ecglib.study.params import StudyError, find_study, load_study


def _run(given) -> int:
    from ecglib.study import graph  # seconds to import, which explaining an ECG needn't wait for

    study = load_study(given.study)
    graph.check_config({"study": given.study, "data_dir": given.data_dir})
    return graph.run(study, given)


def _status(given) -> int:
    from ecglib.study import graph

    print(graph.status(load_study(given.study)))
    return 0


def _notebook(given) -> int:
    from ecglib.study.machine import gpu
    from ecglib.study.notebook import run_notebook

    study = load_study(given.study)
    parameters = {"study": str(find_study(given.study))}
    for item in given.set:
        key, separator, value = item.partition("=")
        if not separator:
            raise StudyError(f"--set {item} has no '=': write NAME=VALUE")
        parameters[key] = value
    final = (given.folder or places.step_folder(study.name, given.name)).absolute()
    with gpu(given.gpus, given.jobs_per_gpu) if given.gpus else nullcontext():
        run_notebook(given.name, parameters, final)
    return 0


def _explain(given) -> int:
    from ecglib.study.explain import run

    return run(given.ecg, given.run)


def _weights(given) -> int:
    from ecglib.study import weights

    folder = places.shown(weights.convert(given.file))
    print(f"{folder}: explain an ECG with it by make explain ECG=file RUN={folder}")
    return 0


def _make_acs_ecg(given) -> int:
    from ecglib.cohort.made_up import write

    print(write(given.folder, given.records, given.positives).value_counts(["part", "trap"]))
    return 0


def parser() -> argparse.ArgumentParser:
    """Commands and their options."""
    top = argparse.ArgumentParser(prog="python -m ecglib.study", description="Studies and ECGs.")
    commands = top.add_subparsers(
        required=True, metavar="run | status | notebook | explain | weights | make-acs-ecg"
    )
    told = {}
    for name, does in (("run", _run), ("status", _status), ("notebook", _notebook)):
        told[name] = commands.add_parser(name)
        told[name].add_argument("--study", required=True)
        told[name].set_defaults(does=does)
    told["run"].add_argument("--data-dir", default="")
    told["run"].add_argument("--cores", type=int, default=1)
    told["run"].add_argument("--gpus", type=int, default=0, help="GPUs to distribute runs over")
    told["run"].add_argument("--jobs-per-gpu", type=int, default=1, help="runs at once on each")
    told["run"].add_argument("--fresh", action="store_true", help="reuse no finished run")
    told["notebook"].add_argument("name", help="a notebook of notebooks/, without ending")
    told["notebook"].add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    told["notebook"].add_argument("--folder", type=Path, help="default: the step's own place")
    told["notebook"].add_argument("--gpus", type=int, default=0, help="take one of so many")
    told["notebook"].add_argument("--jobs-per-gpu", type=int, default=1, help="places on each")
    explain = commands.add_parser("explain")
    explain.add_argument("--ecg", default="", help="a recording; default: a simulated one")
    explain.add_argument("--run", default="", help="folder of a trained network, or a study")
    explain.set_defaults(does=_explain)
    weights = commands.add_parser("weights")
    weights.add_argument("file", help="a checkpoint that the paper's group published")
    weights.set_defaults(does=_weights)
    make = commands.add_parser("make-acs-ecg")  # simulated ECGs in the layout of the data set
    make.add_argument("folder", type=Path)
    make.add_argument("--records", type=int, default=2000)
    make.add_argument("--positives", type=float, default=0.0641)
    make.set_defaults(does=_make_acs_ecg)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns 0, or 1 with one sentence on what is wrong."""
    words, more = list(sys.argv[1:] if arguments is None else arguments), []
    if "--" in words:
        words, more = words[: words.index("--")], words[words.index("--") + 1 :]
    given = parser().parse_args(words)
    given.more = more
    try:
        return given.does(given)
    except (StudyError, SourceError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
