"""A project of its own in a temporary folder, whose studies tests can run, kill and starve."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import yaml

from ecglib.folders import sha256
from ecglib.study import places

TINY = {
    "name": "tiny",
    "title": "A study for tests",
    "cohort": {"source": "synthetic", "records": 180, "subtle": 0.1, "prevalence": 0.2},
    "folds": {"count": 3},
    "training": {"epochs": 4, "batch_size": 64},
    "models": {"mayo_alvd": {"learning_rate": 3.0e-3}},
    "selected_model": "mayo_alvd",
    "statistics": {"draws": 100},
    "saliency": {"positives": 4},
}
TIMED = ["train_seconds", "val_seconds"]
MARK = "HOME_OF_A_TEST"  # an environment variable by which a home knows its processes


class Home:
    """The folder; what is started in it finds its studies and notebooks there."""

    def __init__(self, folder: Path, study: dict = TINY, own_code: bool = False):
        self.folder, code = folder, places.CODE
        (folder / "params").mkdir(parents=True)
        for name in ("notebooks", "requirements.lock"):
            (folder / name).symlink_to(places.ROOT / name)
        if own_code:  # a copy, which a test may change
            code, ignored = folder, shutil.ignore_patterns("__pycache__")
            shutil.copytree(places.PACKAGE, folder / "ecglib", ignore=ignored)
            shutil.copy2(places.CODE / "Snakefile", folder)
        self.write(study)
        code = os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])
        tools = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {MARK: str(folder), "PYTHONPATH": code, "PATH": tools}
        self.environment |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}

    def write(self, study: dict) -> None:
        self.study, self.name = study, study["name"]
        (self.folder / "params" / f"{self.name}.yaml").write_text(
            yaml.safe_dump(study, sort_keys=False)
        )

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs" / self.name

    def command(self, what="run", *words, cores=1, options=()) -> list[str]:
        base = [sys.executable, "-m", "ecglib.study", what, "--study", self.name, *options]
        base += ["--cores", str(cores)] if what == "run" else []
        return [*base, *(["--", *words] if words else [])]

    def start(self, what="run", *words, cores=1, **options) -> subprocess.Popen:
        with open(self.folder / "engine.log", "a") as log:
            command = self.command(what, *words, cores=cores)
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, **options
            )

    def run(self, what="run", *words, cores=1, options=()) -> subprocess.CompletedProcess:
        command = self.command(what, *words, cores=cores, options=options)
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def planned(self, *targets, options=()) -> dict[str, str]:
        """What would run: each result, below the study's folder, and Snakemake's word on it."""
        done = self.run("run", "--summary", *targets, options=options)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        rows = [row for row in rows if row[-1] == "update pending"]
        return {row[0].removeprefix(f"outputs/{self.name}/"): row[-2] for row in rows}

    def processes(self, word: str) -> list[psutil.Process]:
        """Processes of this home whose command holds a word; each of them descends from what a test
        started.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and word in " ".join(
                    process.cmdline()
                ):
                    found.append(process)
        return found

    def check_done(self) -> int:
        """Whatever looks finished is whole; returns how many folders do."""
        whole = 0
        for file in self.outputs.rglob("run.json"):
            if ".partial" in str(file) or ".old" in str(file):
                continue
            try:
                told = json.loads(file.read_text())
                assert (file.parent / "notebook.ipynb").is_file(), file
                for name, expected in told["files"].items():
                    assert sha256(file.parent / name) == expected, (
                        f"{file.parent / name} is half a result"
                    )
            except FileNotFoundError:  # replaced or removed while we looked
                continue
            whole += 1
        return whole

    def results(self) -> dict[str, object]:
        """Everything that must be the same bit for bit, by name: all but the times."""
        found = {}
        for file in sorted([*self.outputs.rglob("*"), *self.folder.glob("data/cohorts/*/*")]):
            name = str(file.relative_to(self.folder))
            if ".partial" in name or file.name in ("cost.csv", "cohort.json"):
                continue
            if file.name == "history.csv":
                found[name] = pd.read_csv(file).drop(columns=TIMED).to_csv()
            elif file.suffix in (".csv", ".parquet", ".npy", ".safetensors"):
                found[name] = sha256(file)
        return found
