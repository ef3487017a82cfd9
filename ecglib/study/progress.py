"""How far a study is and how long it takes: one line a step, from Snakemake's log records and the
steps' own logs.
"""

import logging
import re
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

CORE = {"ecg_smart_net": 0.033, "temporal_resnet18": 0.033, "resnet18": 0.01, "mayo_alvd": 0.001}
"""Seconds of one core, or fifty times as many of a GPU, for one ECG through a network; another
network counts as the slowest.
"""


def seconds(study, job: str) -> float:
    """Estimate what a step or run takes on one core.

    `job` is its folder below the study's, as ``07_comparison`` or ``runs/mayo_alvd/rotation_0``.
    """
    if job == "11_omi_features":
        return 480
    model, cohort = job.split("/")[1:2], study.cohort
    # a guess for recorded ECGs; while a study runs, the clock mends it
    simulated = cohort.source == "synthetic"
    guess = (18_000, 0.064) if cohort.source == "acs_ecg" else (5000, 0.1)
    ecgs, positives = (cohort.records, cohort.prevalence or guess[1]) if simulated else guess
    if not model:
        return 0.06 * ecgs if job == "00_cohort" else 20
    if model[0] in study.trees:
        return 35
    epochs = study.models[model[0]].epochs or study.training.epochs
    # as many negatives are drawn as there are positives; backward takes as long as two forwards
    return 10 + epochs * CORE.get(study.registered(model[0]), 0.033) * 5 * positives * ecgs


def in_words(seconds: float) -> str:
    """A time as ``40 s``, ``9 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def title(study, job: str) -> str:
    """Name of a step or run in a line, as ``05 train mayo_alvd · rotation 0``."""
    _, *parts = job.split("/")
    if not parts:
        return job.replace("_", " ")
    trains = f"{'06' if parts[0] in study.trees else '05'} train {parts[0]}"
    rate = [f"learning rate {rate}" for rate in parts[1:-1]]
    return " · ".join([trains, *rate, parts[-1].replace("_", " ")])


def last_words(log: Path, since: float = 0) -> tuple[str, float]:
    """How far a step is, as its log last said, and the share of it that is done; an older log than
    `since` is that of an earlier attempt.
    """
    new = log.is_file() and log.stat().st_mtime > since - 1  # clocks of files are coarse
    text = log.read_bytes()[-4000:].decode(errors="ignore") if new else ""
    for at, of, unit in re.findall(r"(\d+)/(\d+) \[.*?(epoch|chunk)", text)[-1:]:
        auc = re.findall(r"validation AUC [\d.]+", text)[-1:]
        return " · ".join([f"{unit} {at}/{of}", *auc]), int(at) / int(of)
    return "", 0.0


class Watch(logging.Handler):
    """Prints a line when a step starts and when it ends; in a terminal, one that moves in between.

    Parameters
    ----------
    study : ecglib.study.params.AnyStudy
    jobs : dict
        Every step and run: its name → its rule and the seconds of one core that it should take.
    cores : int
        How many of them work at a time.
    logs : str
        Where logs lie, as Snakemake names it; a log is called as its job.
    """

    def __init__(self, study, jobs: dict, cores: float, logs: str):
        super().__init__()
        self.study, self.jobs, self.cores, self.logs = study, jobs, cores, logs
        self.running, self.numbers, self.count, self.work, self.done = {}, {}, 0, 0, 0
        self.start, self.live = time.time(), sys.stdout.isatty()
        if self.live:
            threading.Thread(target=self._draw, daemon=True).start()

    def emit(self, record) -> None:
        """Turn one of Snakemake's log records into a line."""
        event = getattr(record, "event", None)
        if event == "run_info":
            self._plan(record.stats)
        elif event == "job_info" and record.log:
            name = record.log[0].removeprefix(self.logs).removesuffix(".log")
            number = self.numbers.setdefault(name, len(self.numbers) + 1)
            self.running[record.jobid] = number, name, time.time(), Path(record.log[0])
            if not self.live:
                self._print(self._line(record.jobid))
        elif event == "job_finished" and record.job_id in self.running:
            self._end(record.job_id, "done in")
        elif event == "job_error" and record.jobid in self.running:
            self._end(record.jobid, "FAILED after")
        elif record.levelno >= logging.WARNING and vars(record).get("exception") != "RuleException":
            self._print(record.getMessage())  # the exception of a rule is that of its step's log

    def _plan(self, stats: dict) -> None:
        """Say how many steps are to run, how long they take, and how much disk."""
        names = []
        for rule, count in stats.items():
            names += [name for name, told in self.jobs.items() if told[0] == rule][:count]
        self.count, self.work = len(names), sum(self.jobs[name][1] for name in names)
        size = sum(0.03 if "/" in name else 0.005 for name in names) + 0.05
        told = f"{self.study.title}: {len(names)} of {len(self.jobs)} steps to run"
        self._print(f"{told}, about {in_words(self.work / self.cores)}, {size:.1f} GB")

    def _end(self, job: int, how: str) -> None:
        _, name, start, _ = self.running[job]
        self._print(self._line(job, f"{how} {in_words(time.time() - start)}"))
        self.done += self.jobs[name][1]
        del self.running[job]

    def _line(self, job: int, ended: str = "") -> str:
        number, name, start, log = self.running[job]
        told = [title(self.study, name), last_words(log, start)[0], ended or self._left()]
        told += [] if ended.startswith("done") else [f"log {log}"]
        return f"[{number}/{self.count}] " + " · ".join(filter(None, told))

    def _left(self) -> str:
        """How long the rest takes, at the pace so far; the first minute weighs as estimated."""
        done = self.done
        for _, name, start, log in self.running.values():
            done += last_words(log, start)[1] * self.jobs[name][1]
        pace = (time.time() - self.start + 60) / (done + 60 * self.cores)
        return f"about {in_words((self.work - done) * pace)} left"

    def _draw(self) -> None:
        while True:
            time.sleep(1)
            with suppress(StopIteration, KeyError, RuntimeError):  # it ended meanwhile
                beside = f"{len(self.running) - 1} beside · " if len(self.running) > 1 else ""
                line = beside + self._line(next(iter(self.running)))
                width = shutil.get_terminal_size().columns - 1
                print("\r\033[K" + line[:width], end="", flush=True)

    def _print(self, line: str) -> None:
        print(("\r\033[K" if self.live else "") + line, flush=True)
