import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from study_home import TINY, Home

from ecglib import folders
from ecglib.study import graph, places, step
from ecglib.study.params import StudyError, load_study
from ecglib.study.runs import read_run

# ---- one at a time


HOLD = """
import os, time
from pathlib import Path
from ecglib import folders
from ecglib.study import machine
{}
print('got', flush=True)
{}
"""


def child(take, then="time.sleep(60)"):
    command = [sys.executable, "-c", HOLD.format(take, then)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_folder_is_held_by_one_process_until_it_dies(tmp_path):
    folder = tmp_path / "outputs" / "x"
    first = child(f"lock = folders.hold(Path({str(folder)!r}))")
    assert first.stdout.readline() == "got\n"
    assert folders.hold(folder, wait=False) is None
    second = child(f"lock = folders.hold(Path({str(folder)!r}))", "pass")
    assert "Waiting for another process that is writing" in second.stdout.readline()
    os.kill(first.pid, signal.SIGKILL)
    assert second.stdout.readline() == "got\n" and second.wait(10) == 0
    folders.hold(folder, wait=False).release()


def test_gpus_are_given_out_one_a_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    take = "lock = machine.gpu(2); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
    first, second = child(take), child(take)
    assert {first.stdout.readline(), second.stdout.readline()} == {"3\n", "5\n"}, (
        "two of the three that are visible"
    )
    third = child(take, "pass")
    time.sleep(1)
    assert third.poll() is None, "the third waits for a free one"
    first.kill()
    assert third.stdout.readline() in ("3\n", "5\n")
    second.kill()
    third.wait(10)


def test_jobs_share_a_gpu_each_in_a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    take = "lock = machine.gpu(2, 2); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
    jobs, got = [], []
    for _ in range(4):
        jobs.append(child(take))
        got.append(jobs[-1].stdout.readline().strip())
    assert got == ["3", "5", "3", "5"], "a second job only where each GPU has one"
    fifth = child(take, "pass")
    time.sleep(1)
    assert fifth.poll() is None, "the fifth waits for a place"
    jobs[3].kill()
    assert fifth.stdout.readline() == "5\n"
    for job in jobs:
        job.kill()
    fifth.wait(10)


PAPERMILL = """
import json, os, time
from pathlib import Path

PapermillExecutionError = RuntimeError


def inspect_notebook(notebook):
    cells = json.loads(Path(notebook).read_text())["cells"]
    (cell,) = (c for c in cells if "parameters" in c["metadata"].get("tags", ()))
    lines = (line.split("  #")[0].split(" = ") for line in cell["source"])
    return {name: {"default": value.strip()} for name, value in lines}


def execute_notebook(notebook, executed, parameters, **more):
    begin, trains = time.time(), "05_train" in str(notebook)
    time.sleep(4 if trains else 0)
    (Path(executed).parent / "run.json").write_text("{}")
    if trains:
        with open(os.environ["RAN"], "a") as file:
            told = [begin, time.time(), os.environ["CUDA_VISIBLE_DEVICES"]]
            file.write(json.dumps(told) + chr(10))
"""


def test_never_more_jobs_on_a_gpu_than_allowed(tmp_path):
    """Two declared GPUs for two jobs each, seven runs on eight cores, none of which trains."""
    home = Home(tmp_path / "home", TINY | {"folds": {"count": 7}})
    (tmp_path / "instead").mkdir()
    (tmp_path / "instead" / "papermill.py").write_text(PAPERMILL)
    code = f"{tmp_path / 'instead'}{os.pathsep}{home.environment['PYTHONPATH']}"
    home.environment |= {"PYTHONPATH": code, "RAN": str(tmp_path / "ran")}
    home.environment |= {"CUDA_VISIBLE_DEVICES": "6,7", "TMPDIR": str(tmp_path)}
    shares = ["--gpus", "2", "--jobs-per-gpu", "2", "--"]
    runs = [f"outputs/tiny/runs/mayo_alvd/rotation_{k}.done" for k in range(7)]
    command = [*home.command("run", cores=8), *shares, *runs]
    done = subprocess.run(
        command, cwd=home.folder, env=home.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [json.loads(line) for line in (tmp_path / "ran").read_text().splitlines()]
    assert len(ran) == 7 and {name for *_, name in ran} == {"6", "7"}
    for gpu in ("6", "7"):
        spans = [(begin, end) for begin, end, name in ran if name == gpu]
        most = max(sum(b <= begin < e for b, e in spans) for begin, _ in spans)
        assert most <= 2, f"{most} jobs at once on GPU {gpu}"
    most = max(sum(b <= begin < e for b, e, _ in ran) for begin, *_ in ran)
    assert most > 2, "they do run side by side"


def test_the_summary_reads_finished_steps_alone(tmp_path, monkeypatch):
    (
        monkeypatch.setattr(places, "ROOT", tmp_path),
        monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs"),
    )
    study = load_study("smoke")
    # the second: left in the middle
    for place, auc in (("07_comparison", 0.9), ("07_comparison.partial", 0.1)):
        tables = tmp_path / "outputs" / "smoke" / place / "tables"
        tables.mkdir(parents=True)
        name, interval = "Gradient boosting", f'"{auc}00 [0.848, 0.951]"'
        row = f"{name},{interval},{interval},{interval},0.659 ± 0.158,−3.240 ± 1.407"
        (tables / "extended.csv").write_text(f"Model,AUC,AP,Score,Slope,Intercept\n{row}\n")
    told = {"label_kind": "synthetic", "label_meaning": "simulated occlusion"}
    told["findings"] = ["Nothing was found in a long sentence about everything there is. " * 4]
    (tables.parents[1] / "07_comparison" / "run.json").write_text(json.dumps(told))
    said = graph.summary(study)
    assert "0.900 [0.848" in said and "0.100" not in said and said.count("Nothing was found") == 4
    assert (
        max(map(len, said.splitlines())) <= 100 and "simulated occlusion [synthetic label]" in said
    )


# ---- mistakes


def injected(parameters, **more):
    """What a notebook's globals hold after papermill's cell."""
    defaults = (
        'study = "smoke"\nmodel = "ecg_smart_net"\nrotation = 0\nlearning_rate = 0.0\n'
        'fresh = 0\ndata_dir = ""'
    )
    namespace = {"In": ["", "import x", defaults, f"# Parameters\n{parameters}\n", "check"]}
    exec(f"{defaults}\n{parameters}", namespace)
    return namespace | more


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("rotaton = 1", "no parameter 'rotaton'; did you mean 'rotation'"),
        ('model = "mayo_avld"', "Study smoke has no model 'mayo_avld'; did you mean 'mayo_alvd'"),
        ('model = "random_forest"', "no model 'random_forest' .*ecg_smart_net, mayo_alvd"),
        ("rotation = 3", "rotation is 3, but smoke has the rotations 0 to 2"),
        ('rotation = "three"', "rotation is 'three' but must be a whole number"),
        ('study = "smok"', "did you mean 'smoke.yaml'"),
    ],
)
def test_a_mistake_is_named_inside_the_notebook(parameters, says):
    with pytest.raises(StudyError, match=says):
        step.check_parameters(injected(parameters))


def test_right_parameters_pass_inside_the_notebook(tmp_path):
    step.check_parameters(injected('model = "mayo_alvd"\nrotation = 2\nlearning_rate = 1'))
    step.check_parameters({"study": "smoke", "In": ["", 'study = "smoke"']})
    step.check_parameters({"study": "smoke", "model": object(), "rotation": 9})  # 09, once more
    by_hand = {"study": "smoke", "model": "random_forest", "rotation": 0, "fresh": 0, "In": [""]}
    step.check_parameters(by_hand)  # in JupyterLab nothing is injected
    with pytest.raises(StudyError, match="no model 'random_forest'"):
        step.check_parameters(by_hand | {"learning_rate": 0.0})
    (tmp_path / "ptb-xl").mkdir()
    with pytest.raises(StudyError, match=r"data_dir: .* has no 'ptb-xll'; did you mean 'ptb-xl'"):
        step.check_parameters(injected("", data_dir=str(tmp_path / "ptb-xll" / "records")))


def test_every_notebook_hands_over_its_parameters_to_be_checked():
    for notebook in sorted(places.NOTEBOOKS.glob("[01]*.ipynb")):
        assert "globals()" in notebook.read_text(), notebook.name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trainning": {}}, "did you mean 'training'"),
        (
            {"models": {"mayo_avld": {"learning_rate": 0.1}}},
            "no model is called 'mayo_avld'; did you mean 'mayo_alvd'",
        ),
        (
            {
                "cohort": {
                    "source": "files",
                    "name": "harbour",
                    "folder": "data/recordngs",
                    "table": "data/t.csv",
                    "label_kind": "proxy",
                    "label_meaning": "made up for a test",
                }
            },
            "cohort.folder: .* has no 'recordngs'; did you mean 'recordings'",
        ),
    ],
)
def test_a_mistyped_study_stops_before_anything_is_planned(tmp_path, change, says):
    home = Home(tmp_path / "home", TINY | change)
    (home.folder / "data" / "recordings").mkdir(parents=True)
    done = home.run()
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert re.search(says, done.stderr), done.stderr
    assert not home.outputs.exists()


def test_a_mistyped_variable_of_make_is_refused():
    done = subprocess.run(
        ["make", "-n", "reproduce", "STUDI=params/demo.yaml"],
        cwd=places.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode and "STUDI" in done.stderr and "STUDY" in done.stderr


def test_several_targets_and_settings_go_to_snakemake_in_one_variable():
    command = ["make", "-n", "reproduce", "ARGS=a.done b.done --config seed=1"]
    done = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "-- a.done b.done --config seed=1\n" in done.stdout, done.stderr


# ---- a study, from its first plan to a run brought from elsewhere


RUN = "runs/mayo_alvd/rotation_0.done"
STEPS = ("00_cohort/run.json", "02_folds/run.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One network, one rotation, trained; the code is a copy, and the path isn't a plain word."""
    study = TINY | {"folds": {"count": 3, "rotations": [0]}}
    home = Home(tmp_path_factory.mktemp("workflow") / "a study's home", study, own_code=True)
    done = home.run("run", f"outputs/tiny/{RUN}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("[3/3] 05 train mayo_alvd · rotation 0 · ") for line in lines) == 2
    assert "epoch 4/4 · validation AUC 0." in done.stdout and "Execute" not in done.stderr
    return home


def planned(home, options=(), **change):
    """What of cohort, folds and runs would run, after a change of the study."""
    before = home.study
    models = (before | change)["models"]
    targets = [*STEPS, *(f"runs/{model}/rotation_0.done" for model in models)]
    home.write(before | change)
    try:
        return home.planned(*(f"outputs/tiny/{target}" for target in targets), options=options)
    finally:
        home.write(before)


def test_a_home_whose_name_is_no_plain_word(home):
    told = home.run("status").stdout
    assert told.startswith("A study for tests: 3 done, 5 waiting"), told
    assert read_run(home.outputs / "runs/mayo_alvd/rotation_0")
    assert home.check_done() == 3
    plan = home.run("run", "--dry-run").stdout
    assert "A study for tests: 5 of 8 steps to run, about " in plan and " GB" in plan


MAYO = {"learning_rate": 3.0e-3}
SMART = {"network": "ecg_smart_net", "learning_rate": 1.0e-3}


def test_words_defaults_and_the_machine_run_nothing(home):
    default = {"training": home.study["training"] | {"plateau_factor": 0.8}}
    machine = ["--gpus", "2", "--data-dir", str(home.folder), "--fresh"]
    assert planned(home, options=machine, title="Another", **default) == {}


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({"models": {"mayo_alvd": MAYO, "smart": SMART}}, ["runs/smart/rotation_0.done"]),
        ({"models": {"mayo_alvd": {"learning_rate": 1.0e-3}}}, [RUN]),
        ({"folds": {"count": 4, "rotations": [0]}}, ["02_folds/run.json", RUN]),
        ({"signal": {"mains_hz": "off"}}, ["00_cohort/run.json", "02_folds/run.json", RUN]),
    ],
    ids=["another model", "learning rate", "folds", "signal"],
)
def test_a_changed_section_runs_what_reads_it(home, change, runs):
    assert sorted(planned(home, **change)) == runs


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        (["models/mayo_alvd.py"], [RUN]),
        (["signal/filters.py"], ["00_cohort/run.json", "02_folds/run.json", RUN]),
        (["trees/forest.py", "study/report.py", "study/runs.py", "analysis/tables.py"], []),
    ],
)
def test_changed_code_runs_what_stands_on_it(home, files, runs):
    files = [home.folder / "ecglib" / file for file in files]
    before = [(file, file.read_text(), file.stat()) for file in files]
    for file, text, _ in before:
        file.write_text(f"{text}\nCHANGED = True\n")
    try:
        assert sorted(planned(home)) == runs
    finally:
        for file, text, then in before:
            file.write_text(text)
            os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))


@pytest.mark.slow
def test_a_run_brought_from_elsewhere_counts_if_it_fits(home, tmp_path):
    other = Home(tmp_path / "other", TINY | {"folds": {"count": 3, "rotations": [0]}})
    (other.folder / "data").symlink_to(home.folder / "data")
    brought = other.folder / "outputs" / "reference" / "tiny" / "runs" / "mayo_alvd" / "rotation_0"
    brought.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", home.outputs / "runs/mayo_alvd/rotation_0", brought], check=True)
    (brought / "weights.safetensors").unlink()  # a run travels light
    target = "outputs/tiny/runs/mayo_alvd/rotation_0.done"
    done = other.run("run", target)
    assert done.returncode == 0, done.stderr
    told = read_run(other.outputs / "runs/mayo_alvd/rotation_0")
    assert told["taken_from"]["folder"] == "outputs/reference/tiny/runs/mayo_alvd/rotation_0"
    ours, theirs = (
        h.outputs / "runs/mayo_alvd/rotation_0/predictions.parquet" for h in (other, home)
    )
    assert ours.read_bytes() == theirs.read_bytes()

    other.write(
        TINY
        | {"folds": {"count": 3, "rotations": [0]}, "training": {"epochs": 3, "batch_size": 64}}
    )
    done = other.run("run", target)
    assert done.returncode == 0, done.stderr
    log = (other.outputs / "logs/runs/mayo_alvd/rotation_0.log").read_text()
    assert "reference/tiny/runs/mayo_alvd/rotation_0 is another run: training:" in log
    assert "taken_from" not in read_run(other.outputs / "runs/mayo_alvd/rotation_0")


@pytest.mark.slow
def test_a_run_that_fails_stops_no_other_and_is_tried_again_alone(home, tmp_path):
    other = Home(tmp_path / "other", home.study)
    (other.folder / "data").symlink_to(home.folder / "data")
    lost = {"network": "resnet18", "learning_rate": 1.0e-3, "options": {"weights": "nowhere.pt"}}
    other.write(home.study | {"models": {"lost": lost, **home.study["models"]}})
    runs = [f"outputs/tiny/runs/{model}/rotation_0.done" for model in ("lost", "mayo_alvd")]
    done = other.run("run", *runs)
    assert done.returncode == 1 and re.search(
        r"FAILED +runs/lost/rotation_0: .*nowhere\.pt", done.stderr
    ), done.stderr
    assert read_run(other.outputs / "runs/mayo_alvd/rotation_0")
    other.write(
        home.study
        | {"models": {"lost": lost | {"options": {"pretrained": False}}, **home.study["models"]}}
    )
    assert list(other.planned(*runs)) == ["runs/lost/rotation_0.done"]
    assert other.run("run", runs[0]).returncode == 0 and read_run(
        other.outputs / "runs/lost/rotation_0"
    )


@pytest.mark.slow
def test_the_readmes_papermill_example_works_at_once(tmp_path):
    example = (places.ROOT / "README.md").read_text().split("## Papermill by hand")[1]
    lines = re.findall(r"^papermill (.+)$", example, flags=re.M)
    assert len(lines) == 3
    smoke = yaml.safe_load((places.PARAMS / "smoke.yaml").read_text())
    home = Home(tmp_path / "home", smoke)
    for line in lines:
        command = [sys.executable, "-m", "papermill", *line.split()]
        done = subprocess.run(
            command, cwd=home.folder, env=home.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    read_run(home.outputs / "runs/ecg_smart_net/rotation_0")


@pytest.mark.slow
def test_a_committed_study_opens_in_notebooks_07_to_09(tmp_path):
    home = Home(tmp_path / "home", yaml.safe_load((places.PARAMS / "demo.yaml").read_text()))
    (home.folder / "outputs").mkdir()
    (home.folder / "outputs" / "reference").symlink_to(places.REFERENCE)
    for name in ("07_comparison", "08_selected_model", "09_saliency"):
        notebook, executed = home.folder / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb"
        command = [sys.executable, "-m", "papermill", str(notebook), str(executed)]
        done = subprocess.run(
            [*command, "-p", "study", "demo"],
            cwd=home.folder,
            env=home.environment,
            capture_output=True,
            text=True,
        )
        cells = json.loads(executed.read_text())["cells"]
        shown = [o for c in cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})]
        assert len(shown) > 3, f"{name} shows figures"
        if name == "07_comparison":
            assert done.returncode == 0, done.stderr[-3000:]
            found = json.loads((home.outputs / name / "run.json").read_text())
            assert "Nothing was trained here" in found["problems"][0] and found["findings"]
        else:
            assert "Study demo has no cohort on this machine: run notebook 00" in done.stderr


@pytest.mark.slow
def test_papermill_by_hand_from_any_folder_of_the_project(home, tmp_path):
    notebook = str(places.NOTEBOOKS / "05_train_network.ipynb")

    def papermill(*words):
        command = [
            sys.executable,
            "-m",
            "papermill",
            notebook,
            str(tmp_path / "out.ipynb"),
            "-p",
            "study",
            "params/tiny.yaml",
        ]
        for word in words:
            command += ["-p", *word.split("=")]
        return subprocess.run(
            command, cwd=home.folder / "data", env=home.environment, capture_output=True, text=True
        )

    wrong = papermill("model=mayo_alvd", "rotaton=0")
    assert (
        wrong.returncode == 1 and "no parameter 'rotaton'; did you mean 'rotation'?" in wrong.stderr
    )
    right = papermill("model=mayo_alvd", "rotation=0")
    assert right.returncode == 0, right.stderr
    read_run(home.outputs / "runs/mayo_alvd/rotation_0")
    assert (tmp_path / "out.ipynb").is_file()
