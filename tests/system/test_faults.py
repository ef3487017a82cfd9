"""Whatever is killed, and when the disk is full: the restarted study ends with the same bits, and
never shows half.
"""

import contextlib
import os
import random
import re
import resource
import signal
import subprocess
import time

import psutil
import pytest
from study_home import Home

pytestmark = pytest.mark.kills
KILLS, MINUTES = 20, 40
TARGET = "outputs/tiny/07_comparison/run.json"
KINDS = {
    "engine": "ecglib.study run",
    "papermill": "ecglib.study notebook",
    "kernel": "ipykernel",
    "training": "ipykernel",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("undisturbed") / "home")
    began = time.monotonic()
    done = home.run("run", TARGET)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert home.check_done() == 6
    return home.results(), time.monotonic() - began


def until_done(home, **options):
    """Start the study again and again, as a user would; what a killed engine left may be running
    still.
    """
    for _ in range(5):
        if home.start("run", TARGET, **options).wait(timeout=1200) == 0:
            return
    raise AssertionError((home.folder / "engine.log").read_text()[-3000:])


def step_of(process) -> str:
    """Name of the notebook that a process, or the one that started it, runs."""
    with contextlib.suppress(psutil.Error):
        words = " ".join([*process.cmdline(), *process.parent().cmdline()])
        return found[1] if (found := re.search(r"study notebook .*?(\d\d_\w+)", words)) else ""
    return ""


def test_killed_twenty_times(undisturbed, tmp_path):
    results, seconds = undisturbed
    home, dice = Home(tmp_path / "home"), random.Random(time.time_ns())
    killed, engine, more, begin = [], None, (), time.monotonic()
    while len(killed) < KILLS:
        assert time.monotonic() - begin < MINUTES * 60, f"only {len(killed)} kills: {killed}"
        if engine is None or engine.poll() is not None:
            if engine is not None and engine.poll() == 0:
                # done before enough was killed: the same once more, on top of what is there
                more = ("--forceall",)
            engine = home.start("run", TARGET, *more)
        time.sleep(dice.expovariate(9 / seconds))
        kind = list(KINDS)[len(killed) % 4]
        found = {process: step_of(process) for process in home.processes(KINDS[kind])}
        if kind == "training":  # if nothing is being trained, any kernel
            found = {
                process: step for process, step in found.items() if step.startswith("05")
            } or found
        if found:
            victim = dice.choice([*found])
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(f"{kind} {found[victim]}".strip())
            print(f"{len(killed)}. {killed[-1]}", flush=True)
            home.check_done()
    engine.wait(timeout=1200)
    until_done(home)
    assert home.results() == results
    assert home.planned(TARGET) == {}


@pytest.mark.parametrize("megabytes", [1, 3, 5])
def test_a_disk_that_fills(undisturbed, tmp_path, megabytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(
            "a small disk can be mounted by root alone; the limit on a file's size stands for it"
        )
    try:
        home = Home(disk / "home")
        (disk / "filler").write_bytes(bytes((60 - megabytes) * 2**20))
        assert home.start("run", TARGET).wait(timeout=600) != 0
        assert home.check_done() < 6
        told = home.run("status").stdout + (home.folder / "engine.log").read_text()
        (disk / "filler").unlink()
        until_done(home)
        assert home.results() == undisturbed[0], told
    finally:
        for process in home.processes("python"):
            process.kill()
        time.sleep(1)
        subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_the_size_of_a_file(undisturbed, tmp_path):
    home = Home(tmp_path / "home")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    assert home.start("run", TARGET, preexec_fn=limit).wait(timeout=600) != 0
    assert home.check_done() == 0 and "FAILED" in home.run("status").stdout
    until_done(home)
    assert home.results() == undisturbed[0]
