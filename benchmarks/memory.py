"""Peak anonymous memory of building a cohort and of training, each in a process of its own.

    python -m benchmarks.memory                      # everything, about 15 minutes on 2 cores
    python -m benchmarks.memory --only build train   # some

build: 10 s recordings to beats, at two sizes; ready: 100,000 median beats into a cohort; train: one
epoch of ECG-SMART-NET on a cohort of the paper's size; stream: one epoch of the Mayo Clinic ALVD
model on 200,000 ECGs read from the memory map. Anonymous memory (RssAnon of the process and its
workers) is what a machine must have; pages of a memory map can be dropped at any time and don't
count.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd

from ecglib import trainer
from ecglib.cohort import contract as cohorts
from ecglib.cohort.build import build_cohort, open_source, workers
from ecglib.cohort.source import Source
from ecglib.folds import build_folds
from ecglib.settings import Signal, SyntheticCohort
from ecglib.study.params import load_study
from ecglib.study.training import run_identity

KIND = {
    "version": "1",
    "label_kind": "synthetic",
    "label_meaning": "noise, for a measurement of memory only",
}


def anonymous() -> float:
    """Anonymous memory of this process and its descendants, GB."""
    parents, memory = {}, {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            told = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{process}/status").read_text().splitlines()
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(process)] = int(told["PPid"])
        memory[int(process)] = int(told.get("RssAnon", "0 kB").split()[0]) / 1e6
    ours = {os.getpid()}
    while more := {p for p, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(memory[p] for p in ours)


def measured(work, told: str) -> None:
    """Run `work` and print its time and the peak of `anonymous` while it ran."""
    peak, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.2):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    work()
    done.set()
    watcher.join()
    print(f"| {told} | {peak[0]:.2f} | {time.perf_counter() - begin:.0f} |", flush=True)


def table(n: int) -> pd.DataFrame:
    """Records of `n` made-up patients, 9 % of them positive."""
    ids = [f"r{i}" for i in range(n)]
    told = {"record_id": ids, "patient_id": ids, "site": "here", "age": 60.0, "sex": "female"}
    return pd.DataFrame(told | {"label": (np.arange(n) % 11 == 0).astype(int)})


def one_beat(row) -> tuple[np.ndarray, float]:
    """A median beat of noise."""
    return np.random.default_rng(row.Index).normal(0, 100, (12, 600)).astype(np.float32), 500.0


def build(folder: Path, n: int) -> None:
    source = open_source(SyntheticCohort(source="synthetic", records=n), 42)
    build_cohort(source, Signal(), folder, workers())


def ready(folder: Path, n: int) -> cohorts.Cohort:
    source = Source(name="noise", records=table(n), read=one_beat, beats=True, **KIND)
    return build_cohort(source, Signal(), folder, workers())


def train(folder: Path, n: int, model: str, stream: bool) -> None:
    cohort = cohorts.load_cohort(folder)
    identity = run_identity(load_study("paper"), model, 0, cohort)
    identity["training"] |= {"epochs": 1, "stream": stream, "device": "cpu"}
    identity["threads"] = os.cpu_count()
    (folder / "run").mkdir()
    trainer.train(identity, cohort, build_folds(cohort.records, 10, 0), folder / "run")


def part(name: str) -> None:
    """One measurement, in a fresh process."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cohort"
        if name == "build":
            for n in (2000, 8000):
                measured(partial(build, folder, n), f"build a cohort of {n:,} recordings of 10 s")
        elif name == "ready":
            measured(partial(ready, folder, 100_000), "build a cohort of 100,000 median beats")
        else:
            n, model = (10_893, "ecg_smart_net") if name == "train" else (200_000, "mayo_alvd")
            ready(folder, n)
            told = (
                f"train {model} for an epoch on {n:,} "
                f"ECGs{', streamed' if name == 'stream' else ''}"
            )
            measured(partial(train, folder, n, model, name == "stream"), told)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("build", "ready", "train", "stream")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    given = parser.parse_args()
    print("| work | peak anonymous memory, GB | s |\n|---|---:|---:|", flush=True)
    for name in given.only:
        # By the module's own name, not __main__: its workers look `one_beat` up there.
        work = import_module("benchmarks.memory").part
        process = multiprocessing.get_context("spawn").Process(target=work, args=(name,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
