"""What a run of a study says while it runs."""

import logging
import re
import time
from types import SimpleNamespace

import pytest

from ecglib.study import graph, places, progress
from ecglib.study.params import load_study

TRAINED = (
    "ecg_smart_net rotation 0:   0%|          | 0/3 [00:00<?, ?epoch/s]\n"
    "epoch 1: loss 0.612, validation AUC 0.812, AP 0.655, 28 s\n"
    "ecg_smart_net rotation 0:  33%|███▎      | 1/3 [00:28<00:56, 28.4s/epoch]"
    "\repoch 2: loss 0.512, validation AUC 0.871, AP 0.755, 28 s\n"
    "ecg_smart_net rotation 0:  67%|██████▋   | 2/3 [00:56<00:28, 28.4s/epoch]"
)
NET, FOREST = "runs/ecg_smart_net/rotation_0", "runs/random_forest/rotation_1"


def costs(name, **given):
    study = load_study(name)
    given = {"fresh": True, "gpus": 0, "jobs_per_gpu": 1, "cores": 2} | given
    return study, progress.costs(study, graph.jobs_of(study), SimpleNamespace(**given))


@pytest.fixture
def watch(tmp_path):
    """The demo's watch, and its logger."""
    study, jobs = costs("demo")
    watch = progress.Watch(study, jobs, 2, f"{tmp_path}/logs/")
    logger = logging.getLogger("a test of progress")
    logger.setLevel(logging.INFO)
    logger.addHandler(watch)
    yield watch, lambda **event: logger.info("x", extra=event)
    logger.removeHandler(watch)


def log_of(folder, job, text=""):
    log = folder / "logs" / f"{job}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    return [str(log)]


def test_two_lines_a_step_where_there_is_no_terminal(watch, tmp_path, capsys):
    _, say = watch
    say(event="run_info", stats={"network": 2, "tree": 2, "08_selected_model": 1, "total": 6})
    first = capsys.readouterr().out
    assert re.fullmatch(r"Demonstration .*: 5 of 13 steps to run, about \d min, 0\.\d GB\n", first)
    say(event="job_info", jobid=4, log=log_of(tmp_path, NET))
    begins = capsys.readouterr().out
    told = (
        r"\[1/5\] 05 train ecg_smart_net · rotation 0 · about \d min left · log .*rotation_0.log\n"
    )
    assert re.fullmatch(told, begins), begins
    log_of(tmp_path, NET, TRAINED)
    say(event="job_info", jobid=5, log=log_of(tmp_path, FOREST))
    say(event="job_info", jobid=0, log=[])  # the rule that asks for all
    say(event="job_finished", job_id=4)
    say(event="job_error", jobid=5)
    other, done, failed = capsys.readouterr().out.splitlines()
    assert other.startswith("[2/5] 06 train random_forest · rotation 1 · about ")
    told = (
        "[1/5] 05 train ecg_smart_net · rotation 0 · epoch 2/3 · validation AUC 0.871 · done in 0 s"
    )
    assert done.startswith(told)
    assert failed.startswith("[2/5] 06 train random_forest · rotation 1 · FAILED after 0 s · log ")


def test_what_snakemake_warns_of_is_told(watch, capsys):
    watch, _ = watch
    record = logging.LogRecord("s", logging.ERROR, "f", 1, "The disk is full", (), None)
    watch.emit(record)
    assert capsys.readouterr().out == "The disk is full\n"
    record.exception = "RuleException"
    watch.emit(record)
    assert capsys.readouterr().out == "", "the step's own line says that it failed"


def test_one_line_that_moves_in_a_terminal(tmp_path, capsys, monkeypatch):
    study, jobs = costs("demo")
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "90")
    watch = progress.Watch(study, jobs, 2, f"{tmp_path}/logs/")
    record = logging.LogRecord("s", logging.INFO, "f", 1, "x", (), None)
    told = {"event": "job_info", "jobid": 4, "log": log_of(tmp_path, NET, TRAINED)}
    vars(record).update(told)
    watch.count = 5
    watch.emit(record)
    time.sleep(1.5)
    shown = capsys.readouterr().out
    watch.running.clear()
    assert "\n" not in shown and shown.startswith("\r\033[K[1/5] 05 train ecg_smart_net")
    assert "epoch 2/3 · validation AUC 0.871" in shown and len(shown.strip()) <= 93


def test_time_left_follows_the_clock(watch, tmp_path):
    watch, say = watch
    say(event="run_info", stats={"network": 2})
    say(event="job_info", jobid=4, log=log_of(tmp_path, NET))

    def left():
        return float(watch._left().split()[1]) * (60 if "min" in watch._left() else 1)

    expected = left()
    log_of(tmp_path, NET, TRAINED)
    assert left() < 0.8 * expected, "two epochs of three are done"
    watch.start -= 600
    assert left() > 1.5 * expected, "but it took ten minutes"


@pytest.mark.parametrize(
    ("text", "told", "share"),
    [
        ("", "", 0),
        ("Study x: 1 of 3 [synthetic label]\n", "", 0),
        (TRAINED, "epoch 2/3 · validation AUC 0.871", 2 / 3),
        ("median beats:  50%|█████     | 4/8 [00:10<00:12, 2.5s/chunk]", "chunk 4/8", 0.5),
    ],
)
def test_how_far_a_step_is_stands_in_its_log(tmp_path, text, told, share):
    (tmp_path / "a.log").write_text(text)
    assert progress.last_words(tmp_path / "a.log") == (told, share)
    assert progress.last_words(tmp_path / "none.log") == ("", 0)
    assert progress.last_words(tmp_path / "a.log", time.time() + 5) == ("", 0), "of an earlier try"


def test_names_and_times_in_words():
    names = {
        "grid/mayo_alvd/0.001/rotation_0": "05 train mayo_alvd · learning rate 0.001 · rotation 0"
    }
    names |= {FOREST: "06 train random_forest · rotation 1", "09_saliency": "09 saliency"}
    rules = {"grid": "grid", "runs": "tree"}
    assert {n: progress.title(rules.get(n[:4], n), n) for n in names} == names
    assert [progress.in_words(s) for s in (12.3, 540, 9000)] == ["12 s", "9 min", "2.5 h"]


def test_every_study_can_be_estimated():
    for file in places.PARAMS.glob("*.yaml"):
        study, jobs = costs(file.stem)
        assert set(jobs) == set(graph.jobs_of(study)) and min(c for _, c in jobs.values()) > 0
    alone, kept = (sum(c for _, c in costs("ptbxl", fresh=f)[1].values()) for f in (True, False))
    assert kept < alone / 5, "what is committed is taken over"
    on_gpu = sum(c for _, c in costs("ptbxl", gpus=1)[1].values())
    assert on_gpu < alone / 5


def test_a_simulation_with_its_usual_prevalence_is_estimated_too():
    study = load_study("smoke")
    usual = study.model_copy(
        update={"cohort": study.cohort.model_copy(update={"prevalence": None})}
    )
    given = SimpleNamespace(fresh=True, gpus=0)
    assert progress.costs(usual, {NET: ("network", "ecg_smart_net")}, given)[NET][1] > 10
