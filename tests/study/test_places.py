"""Where results go when they don't go to the project's own folder."""

import os
import subprocess
import sys

from ecglib.study import places


def run(folder, *words):
    environment = os.environ | {"ECGLIB_OUTPUTS": str(folder), "PYTHONPATH": str(places.ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_results_and_data_can_lie_elsewhere(tmp_path):
    names = "NOTEBOOKS", "PARAMS", "LOCK", "REFERENCE", "OUTPUTS", "DATA", "WORK"
    show = f"from ecglib.study import places\nfor name in {names}: print(getattr(places, name))"
    given = run(tmp_path / "my results", "-c", show).stdout.splitlines()
    none = run("", "-c", show).stdout.splitlines()
    assert none == [str(getattr(places, name)) for name in names]
    assert given[:4] == none[:4]  # what is only read
    results = str(tmp_path / "my results")
    assert given[4:] == [results, f"{results}/data", results]
    assert run("made", "-c", show).stdout.splitlines()[4] == str(places.ROOT / "made")


def test_a_study_is_planned_for_another_folder(tmp_path):
    study = ("--study", str(places.PARAMS / "ptbxl_full.yaml"))
    command = ("-m", "ecglib.study", "run", *study)
    done = run(tmp_path / "my results", *command, "--", "--dry-run")
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    runs = [
        f"runs/{model}/rotation_{k}.done"
        for model in ("mayo_alvd", "random_forest")
        for k in (0, 9)
    ]
    assert all(result in told for result in ("00_cohort/run.json", "09_saliency/run.json", *runs))
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "x", *command)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/file/x can't be written; name another folder" in done.stderr


def test_places_are_told_from_the_root(tmp_path):
    assert places.shown(places.REFERENCE / "demo") == "outputs/reference/demo"
    assert (places.ROOT / places.shown(tmp_path)).resolve() == tmp_path.resolve()
