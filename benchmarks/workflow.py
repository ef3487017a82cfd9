"""What the engine costs and gains: papermill by hand, the engine on one core, and on two; and how
long it plans.

    python -m benchmarks.workflow --runs 6 --epochs 12

The same runs of one network three times, each in a fresh folder, on a cohort that is there already.
The first row of a table of results says what stands beside: other work on the machine spoils all of
them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from study_home import TINY, Home


def seconds(work, *given) -> float:
    began = time.perf_counter()
    work(*given)
    return time.perf_counter() - began


def fresh(folder: Path, name: str, study: dict, ready: Home | None) -> Home:
    """Make a home in which cohort and folds are there, as in `ready`."""
    home = Home(folder / name, study)
    if ready is None:
        done = home.run("run", "outputs/tiny/02_folds/run.json", cores=2)
        assert done.returncode == 0, done.stderr
        return home
    for part in ("data", "outputs", ".snakemake"):
        subprocess.run(["cp", "-r", str(ready.folder / part), str(home.folder / part)], check=True)
    return home


def by_hand(home: Home, runs: int) -> None:
    """Call papermill run after run, as without an engine."""
    for rotation in range(runs):
        words = [
            "-p",
            "study",
            "tiny",
            "-p",
            "model",
            "ecg_smart_net",
            "-p",
            "rotation",
            str(rotation),
        ]
        command = [
            sys.executable,
            "-m",
            "papermill",
            "notebooks/05_train_network.ipynb",
            f"out_{rotation}.ipynb",
            *words,
        ]
        subprocess.run(
            command, cwd=home.folder, env=home.environment, check=True, capture_output=True
        )


def by_engine(home: Home, runs: int, cores: int) -> None:
    marks = [f"outputs/tiny/runs/ecg_smart_net/rotation_{k}.done" for k in range(runs)]
    done = home.run("run", *marks, cores=cores)
    assert done.returncode == 0, done.stdout + done.stderr
    assert home.check_done() == 2 + runs


def plan(home: Home) -> None:
    """Plan ten rotations of six models with five learning rates each."""
    keys = ["ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd", "a", "b"]
    models = {key: {"network": "mayo_alvd"} if len(key) == 1 else {} for key in keys}
    grid = {key: [1.0e-5, 3.0e-5, 1.0e-4, 3.0e-4, 1.0e-3] for key in keys}
    home.write(
        TINY
        | {
            "folds": {"count": 10},
            "models": models,
            "learning_rates": {"grid": grid},
            "name": "large",
        }
    )
    done = home.run("plan")
    assert "grid/mayo_alvd: 50 runs" in done.stdout, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    study = TINY | {
        "folds": {"count": max(3, given.runs)},
        "models": {"ecg_smart_net": {"learning_rate": 3.0e-4}},
    }
    study |= {
        "selected_model": "ecg_smart_net",
        "training": {"epochs": given.epochs, "batch_size": 64},
    }
    study["cohort"] = TINY["cohort"] | {"records": 100 * given.runs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = fresh(folder, "ready", study, None)
        print(
            f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; one "
            "thread a run"
        )
        times, homes = {}, {}
        for label, work, more in (
            ("papermill by hand", by_hand, ()),
            ("engine, 1 core", by_engine, (1,)),
            ("engine, 2 cores", by_engine, (2,)),
        ):
            homes[label] = fresh(folder, label.replace(" ", "_"), study, ready)
            times[label] = seconds(work, homes[label], given.runs, *more)
            print(f"{label:<20} {times[label]:7.1f} s for {given.runs} runs", flush=True)
        hand, one, two = times.values()
        start = seconds(by_engine, homes["engine, 1 core"], given.runs, 1)
        print(f"a call of the engine with nothing to do {start:.1f} s")
        print(
            f"overhead of the engine {(one - start - hand) / given.runs:.2f} s a run beyond that "
            "(aim: under 2)"
        )
        print(f"two cores are {one / two:.2f} times as fast as one (aim: at least 1.6)")
        print(
            f"planning 10 rotations × 6 models × 5 learning rates: {seconds(plan, ready):.1f} s "
            "(aim: under 20)"
        )


if __name__ == "__main__":
    main()
