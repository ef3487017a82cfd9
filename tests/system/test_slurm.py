"""The smoke study through a Slurm of one node, which the test starts on loopback and stops by its
ids.

It needs root and Debian's packages slurm-wlm and munge; without them it is skipped and says so.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from study_home import Home

from ecglib.study import places

pytestmark = pytest.mark.slurm
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
# Slurm's default place: srun inside a job looks there too
CONFIGURATION = Path("/etc/slurm/slurm.conf")
TEXT = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AccountingStorageType=accounting_storage/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why this machine can't do it, or nothing."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "a Slurm of one's own is started by root alone"
    if CONFIGURATION.exists():
        return f"{CONFIGURATION} exists: this machine has a Slurm of its own"
    return ""


def start(name: str, *words: str, log: Path, **options) -> subprocess.Popen:
    print(f"starting {name}", flush=True)
    with open(log, "w") as file:
        return subprocess.Popen(
            [shutil.which(name), *words], stdout=file, stderr=subprocess.STDOUT, **options
        )


def stop(daemons: list[subprocess.Popen]) -> None:
    """End what was started, last first, and whatever these left behind."""
    for daemon in reversed(daemons):
        left = psutil.Process(daemon.pid).children(recursive=True) if daemon.poll() is None else []
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
        for process in psutil.wait_procs(left, 5)[1]:
            process.kill()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Folder of a Slurm of one node that runs."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path
    host, daemons = socket.gethostname().split(".")[0], []
    for name in ("state", "spool"):
        (folder / name).mkdir()
    values = {
        "host": host,
        "folder": folder,
        "cpus": os.cpu_count(),
        "memory": psutil.virtual_memory().total // 2**20,
    }
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(TEXT.format(**values))
    try:
        if not any("munged" in (p.info["name"] or "") for p in psutil.process_iter(["name"])):
            key = Path("/etc/munge/munge.key")
            if not key.exists():
                key.parent.mkdir(exist_ok=True)
                key.write_bytes(os.urandom(128))
                key.chmod(0o400)
                shutil.chown(key, "munge", "munge")
            Path("/run/munge").mkdir(exist_ok=True)
            shutil.chown("/run/munge", "munge", "munge")
            daemons.append(
                start(
                    "munged", "--foreground", log=folder / "munged.log", user="munge", group="munge"
                )
            )
            time.sleep(2)
        for name in ("slurmctld", "slurmd"):
            daemons.append(start(name, "-D", "-f", str(CONFIGURATION), log=folder / f"{name}.log"))
            time.sleep(2)
        wait_for_node(folder)
        yield folder
    finally:
        stop(daemons)
        CONFIGURATION.unlink()


def wait_for_node(folder: Path) -> None:
    for _ in range(30):
        if (
            "idle"
            in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout
        ):
            return
        time.sleep(1)
    raise RuntimeError(
        f"The node didn't come up; see {folder}/slurmctld.log and {folder}/slurmd.log"
    )


def test_each_step_of_the_smoke_study_is_a_job_of_slurm(slurm):
    home = Home(slurm / "home", yaml.safe_load((places.PARAMS / "smoke.yaml").read_text()))
    options = ["--profile", str(places.CODE / "profiles" / "slurm"), "--latency-wait", "10"]
    options += ["--slurm-status-command", "squeue", "--seconds-between-status-checks", "3"]
    options += ["--slurm-init-seconds-before-status-checks", "2"]
    ended = home.start("run", *options).wait()
    told, said = (home.folder / "engine.log").read_text(), home.run("status").stdout.strip()
    assert ended == 0, f"{told[-3000:]}\n{said}"
    steps, jobs = home.check_done(), set(re.findall(r"submitted with SLURM jobid (\d+)", told))
    assert len(jobs) == steps > 0
    assert said.splitlines()[0] == f"{home.study['title']}: {steps} done"
