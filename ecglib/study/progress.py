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
from itertools import count
from pathlib import Path

from ecglib.study import places

ENDS = {"job_finished": "done in", "job_error": "FAILED after"}
SECONDS = {"11_omi_features": 480, "tree": 35}
"""Of steps and rules, on one core, whatever they work on."""

AN_ECG = {"ecg_smart_net": 0.033, "temporal_resnet18": 0.033, "resnet18": 0.01, "mayo_alvd": 0.001}
"""Seconds of one core, or fifty times as many of a GPU, for one ECG through a network; another
network counts as the slowest.
"""


def costs(study, jobs: dict, given) -> dict[str, tuple[str, float]]:
    """Rule of every step and run, and an estimate of the seconds of one core that it takes.

    `jobs` are those of `ecglib.study.graph.jobs_of`, `given` what the command line says.
    """
    told = {}
    for name, (rule, model) in jobs.items():
        cost = SECONDS.get(rule) or _seconds(study, rule, model)
        if model and not given.fresh and (places.REFERENCE / study.name / name).is_dir():
            cost = 15  # taken over
        elif model and given.gpus:
            cost = min(cost, 20 + cost / 50)
        told[name] = rule, cost
    return told


def _seconds(study, rule: str, model: str) -> float:
    """A guess for recorded ECGs; while a study runs, the clock mends it."""
    cohort, guess = study.cohort, {"acs_ecg": 18_000}
    simulated = cohort.source == "synthetic"
    ecgs = cohort.records if simulated else guess.get(cohort.source, 5000)
    if not model:
        return 0.06 * ecgs if rule == "00_cohort" else 20
    positives = ecgs * ((simulated and cohort.prevalence) or 0.088)
    epochs = study.models[model].epochs or study.training.epochs
    # as many negatives are drawn as there are positives; backward takes as long as two forwards
    return 10 + epochs * AN_ECG.get(study.registered(model), 0.033) * 5 * positives


def in_words(seconds: float) -> str:
    """A time as ``40 s``, ``9 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def title(rule: str, job: str) -> str:
    """Name of a step or run in a line, as ``05 train mayo_alvd · rotation 0``."""
    _, *parts = job.replace("rotation_", "rotation ").split("/")
    if not parts:
        return job.replace("_", " ")
    parts[1:-1] = [f"learning rate {rate}" for rate in parts[1:-1]]
    return f"{'06' if rule == 'tree' else '05'} train {' · '.join(parts)}"


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
        self.running, self.numbers, self.count, self.work, self.done = {}, count(1), 0, 0, 0
        self.start, self.live = time.time(), sys.stdout.isatty()
        if self.live:
            threading.Thread(target=self._draw, daemon=True).start()

    def emit(self, record) -> None:
        """Turn one of Snakemake's log records into a line."""
        told = vars(record)
        event, job = told.get("event"), told.get("jobid", told.get("job_id"))
        if event == "run_info":
            self._plan(record.stats)
        elif event == "job_info" and record.log:
            log = record.log[0]
            name = log.removeprefix(self.logs).removesuffix(".log")
            self.running[job] = next(self.numbers), name, time.time(), Path(log)
            if not self.live:
                self._print(self._line(job))
        elif event in ENDS and job in self.running:
            _, name, start, _ = self.running[job]
            self._print(self._line(job, f"{ENDS[event]} {in_words(time.time() - start)}"))
            self.done += self.jobs[name][1]
            del self.running[job]
        elif record.levelno >= logging.WARNING and told.get("exception") != "RuleException":
            self._print(record.getMessage())  # the exception of a rule is that of its step's log

    def _plan(self, stats: dict) -> None:
        """Say how many steps are to run, how long they take, and how much disk."""
        costs = []
        for rule, number in stats.items():
            costs += [cost for kind, cost in self.jobs.values() if kind == rule][:number]
        self.count, self.work = len(costs), sum(costs)
        told = f"{self.study.title}: {len(costs)} of {len(self.jobs)} steps to run"
        size = 0.05 + 0.03 * len(costs)
        self._print(f"{told}, about {in_words(self.work / self.cores)}, {size:.1f} GB")

    def _line(self, job: int, ended: str = "") -> str:
        number, name, start, log = self.running[job]
        told = [title(self.jobs[name][0], name), last_words(log, start)[0], ended or self._left()]
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
