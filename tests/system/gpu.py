"""`make test-gpu`: all that a GPU should show, in one call of a few minutes; a table comes last.

    python -m tests.system.gpu --out results               # on a GPU, with whatever torch is there
    python -m tests.system.gpu --out results --device cpu  # a small form of it, without a GPU

Each part runs in a process of its own and leaves what it found at once, so that one that fails,
hangs or is killed takes no other along. With ``--cohort folder`` the timed rotation trains on that
cohort, else on noise of the size of the public one.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from benchmarks import gpu as speed  # noqa: E402
from ecglib import metrics, trainer  # noqa: E402
from ecglib.cohort.contract import Cohort, load_cohort  # noqa: E402
from ecglib.dataset import BeatBank  # noqa: E402
from ecglib.folders import write_json  # noqa: E402
from ecglib.folds import build_folds, rotate  # noqa: E402
from ecglib.settings import Training  # noqa: E402
from ecglib.state import settings_of_torch  # noqa: E402
from ecglib.study.params import load_study  # noqa: E402
from ecglib.study.training import run_identity  # noqa: E402

CANNOT = 77
NOTEBOOKS = ["00_cohort", "01_data_exploration", "02_folds", "03_models"]
RUNS = [("ecg_smart_net", 0), ("mayo_alvd", 0)]


# ---- what the parts share


class Part:
    """Where a part writes what it finds, line by line, and how large it may be."""

    def __init__(self, name: str, device: str, work: Path, cohort: Path | None = None):
        self.name, self.device, self.work, self.cohort = name, torch.device(device), work, cohort
        self.small = device == "cpu"
        self.folder = work / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def tell(self, what: str, verdict: str, told: str = "", **numbers) -> None:
        if not isinstance(verdict, str):
            verdict = "passed" if verdict else "FAILED"
        line = {"part": self.name, "what": what, "verdict": verdict, "told": told, **numbers}
        with open(self.work / f"{self.name}.jsonl", "a") as file:
            file.write(json.dumps(line, default=float) + "\n")
        print(f"{self.name}: {what}: {verdict} {told}", flush=True)

    @contextlib.contextmanager
    def trying(self, what: str):
        """One check; if it breaks, that is its verdict, and the next one runs."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.tell(what, False, f"{type(error).__name__}: {str(error)[:300]}")


def made_up(ecgs: int, prevalence: float = 0.25, wave: float = 150) -> tuple[Cohort, pd.DataFrame]:
    """Noise with a QRS-like spike; label 1 raises ST a little in three leads. And its folds."""
    rng = np.random.default_rng(0)
    label = (rng.random(ecgs) < prevalence).astype(int)
    beats = rng.normal(0, 60, (ecgs, 12, 600))
    beats[:, :, 295:306] += 900
    beats[label == 1, 6:9, 330:400] += wave
    records = pd.DataFrame({"record_id": [f"r{i}" for i in range(ecgs)], "label": label})
    records["patient_id"] = "p" + records.record_id
    info = {"label_kind": "synthetic", "label_meaning": "a wave made up for a check"}
    info["hashes"] = dict.fromkeys(("beats.npy", "records.parquet"), "0" * 64)
    cohort = Cohort(Path("made_up"), np.rint(beats).astype(np.int16), records, info)
    return cohort, build_folds(records, 4, 0)


def identity(part: Part, cohort: Cohort, network: str = "mayo_alvd", **changes) -> dict:
    told = run_identity(load_study("smoke"), "mayo_alvd", 0, cohort, 1e-3)
    told |= {"model": network, "network": network, "options": speed.Job(network).options}
    told["threads"] = 1 if part.small else 4
    told["training"] |= {"epochs": 2, "batch_size": 64, "device": part.device.type}
    training = {key: value for key, value in changes.items() if key in Training.model_fields}
    told["training"] |= training
    return told | {key: value for key, value in changes.items() if key not in training}


def trained(part: Part, name: str, world, **changes) -> tuple[Path, dict]:
    """Train, and return the run's folder and facts, among them its weights' hash."""
    folder = part.folder / name
    folder.mkdir(exist_ok=True)
    told = identity(part, world[0], **changes)
    facts = trainer.train(told, *world, folder)
    facts["weights"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    write_json(folder / "run.json", facts)
    return folder, facts


def scores(network, cohort, positions, device, precision="fp32") -> np.ndarray:
    """Logit of class 1 minus that of class 0, of the trainer's own predictions."""
    network = network.to(device)
    bank = BeatBank(cohort.beats, cohort.records.label, torch.device(device))
    with settings_of_torch(torch.device(device), precision, 1):
        p = trainer.predict(network, bank, positions, precision)
    return np.log(p) - np.log1p(-p)


# ---- the parts


def study(part: Part) -> None:
    """The smoke study, end to end, by papermill."""
    from study_home import Home

    home = part.folder / "home"
    if not home.exists():
        Home(home, json.loads(load_study("smoke").model_dump_json(exclude_unset=True)))
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"

    def call(what, *words):
        begin = time.monotonic()
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        print(done.stdout[-3000:], done.stderr[-3000:], flush=True)
        told = f"{time.monotonic() - begin:.0f} s"
        if done.returncode:
            told = f"{told}; {(done.stderr or done.stdout).strip()[-300:]}"
        part.tell(what, done.returncode == 0, told)
        return done.returncode == 0

    with part.trying("whole smoke study through Snakemake"):
        gpus = [] if part.small else ["--gpus", "1", "--jobs-per-gpu", "4"]
        cores = str(min(12, os.cpu_count()))
        whole = call(
            "whole smoke study through Snakemake",
            *("ecglib.study", "run", "--study", "smoke", "--cores", cores, *gpus),
        )
    if not whole:
        for name in NOTEBOOKS:
            call(f"notebook {name}", "ecglib.study", "notebook", name, "--study", "smoke")
        for model, rotation in RUNS:
            words = ["--set", f"model={model}", "--set", f"rotation={rotation}"]
            words += ["--set", "learning_rate=0.001"] if model == "mayo_alvd" else []
            call(
                f"notebook 05_train_network, {model}",
                *("ecglib.study", "notebook", "05_train_network", "--study", "smoke", *words),
            )
    with part.trying("each network's run says which device trained it"):
        files = [*home.glob("outputs/smoke/runs/*/rotation_*/run.json")]
        files += home.glob("outputs/smoke/grid/*/*/rotation_*/run.json")
        devices = [json.loads(file.read_text()).get("device") for file in files]
        networks = [device for device in devices if device and "sklearn" not in device]
        name = "cpu" if part.small else torch.cuda.get_device_name()
        done = len(list(home.glob("outputs/smoke/**/run.json")))
        expected = [device for device in networks if device == name]
        part.tell(
            "each network's run says which device trained it",
            len(expected) >= len(RUNS) and (not part.small or len(expected) == len(networks)),
            f"{done} finished steps and runs, {len(expected)} runs on {name}",
        )


def agree(part: Part) -> None:
    """CPU and GPU: the same logits from the same weights, nearly the same AUC after one epoch.

    An AUC of a network with dropout is stated, not compared.
    """
    world = made_up(160 if part.small else 480)
    positions = np.arange(64)
    for network in speed.NETWORKS[-1:] if part.small else speed.NETWORKS:
        with part.trying(f"{network}: CPU and GPU agree"):
            folder, _ = trained(part, network, world, network=network, epochs=1)
            cpu_folder, _ = trained(
                part, f"{network}_cpu", world, network=network, epochs=1, device="cpu"
            )
            ours, theirs = (
                scores(trainer.load_model(folder), world[0], positions, device)
                for device in (part.device.type, "cpu")
            )
            far = float(np.abs(ours - theirs).max())
            part.tell(
                f"{network}: logits on both devices", far <= 1e-4, f"differ by {far:.1e} at most"
            )
            aucs = [pd.read_csv(f / "history.csv").val_auc[0] for f in (folder, cpu_folder)]
            drawn = network == "mayo_alvd"  # dropout: each device draws its own random numbers
            part.tell(
                f"{network}: AUC after one epoch on both devices",
                "stated" if drawn else abs(aucs[0] - aucs[1]) <= 0.02,
                f"{aucs[0]:.4f} and {aucs[1]:.4f} (CPU)"
                + (", with other random numbers for dropout" if drawn else ""),
            )


def repeat(part: Part) -> None:
    """The same run twice gives the same bits, or it is said what is not deterministic."""
    world = made_up(160 if part.small else 480)
    for network in speed.NETWORKS[-1:] if part.small else speed.NETWORKS:
        for precision in ("fp32",) if part.small else ("fp32", "tf32", "bf16"):
            name = f"{network}, {precision}"
            with part.trying(f"{name}: twice"), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                changes = {"network": network, "precision": precision}
                hashes = {
                    trained(part, f"{network}_{precision}_{i}", world, **changes)[1]["weights"]
                    for i in range(2)
                }
                told = {str(w.message)[:90] for w in caught if "determin" in str(w.message)}
                part.tell(
                    f"{name}: twice, same weights to the bit",
                    len(hashes) == 1,
                    "; ".join(["PyTorch names as not deterministic", *told]) if told else "",
                )


def killed(part: Part) -> None:
    """A run killed with SIGKILL goes on, in a new process, to the same weights."""
    network, epochs = ("mayo_alvd", 6) if part.small else ("ecg_smart_net", 12)

    def command(name):
        words = ["--part", "child", "--device", part.device.type, "--work", str(part.folder)]
        return [
            sys.executable,
            "-m",
            "tests.system.gpu",
            *words,
            "--child",
            name,
            network,
            f"{epochs}",
        ]

    with part.trying("killed and resumed"):
        subprocess.run(command("whole"), cwd=ROOT, check=True)
        folder = part.folder / "killed"
        kills, seen = 0, []
        while not (folder / "predictions.parquet").exists() and kills < 4:
            process = subprocess.Popen(command("killed"), cwd=ROOT)
            checkpoint, before = folder / "checkpoint.pt", time.time()
            while kills < 3 and process.poll() is None:
                if checkpoint.exists() and checkpoint.stat().st_mtime > before:
                    process.send_signal(signal.SIGKILL)
                    seen.append(len(torch.load(checkpoint, "cpu", weights_only=True)["history"]))
                    break
                time.sleep(0.002)
            process.wait()
            kills += process.returncode == -signal.SIGKILL
            if process.returncode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"the run ended with {process.returncode}")
        same = all(
            (part.folder / "whole" / name).read_bytes() == (folder / name).read_bytes()
            for name in ("weights.safetensors", "predictions.parquet")
        )
        part.tell(
            "killed and resumed, same weights and predictions to the bit",
            same and kills > 0,
            f"{kills} kills, after epochs {', '.join(map(str, seen))} of {epochs}",
        )


def child(part: Part, name: str, network: str, epochs: str) -> None:
    """The run that `killed` kills."""
    part.folder = part.work
    trained(part, name, made_up(160 if part.small else 480), network=network, epochs=int(epochs))


def precision(part: Part) -> None:
    """bf16 and TF32 train, and predict about the same from the same weights."""
    world = made_up(160 if part.small else 480)
    network = "mayo_alvd" if part.small else "ecg_smart_net"
    positions = rotate(world[1], 0)["test"]
    with part.trying("fp32, to compare with"):
        folder, _ = trained(part, "fp32", world, network=network)
        exact = scores(trainer.load_model(folder), world[0], positions, part.device)
    for name, limit in (("tf32", 0.02), ("bf16", 0.2)):
        with part.trying(name):
            found, _ = trained(part, name, world, network=network, precision=name)
            auc = pd.read_csv(found / "history.csv").val_auc.iloc[-1]
            other = scores(trainer.load_model(folder), world[0], positions, part.device, name)
            far = float(np.abs(other - exact).max())
            part.tell(
                f"{name}: trains, and predicts as fp32 does",
                bool(np.isfinite(auc)) and far <= limit,
                f"validation AUC {auc:.3f}; logits differ by {far:.1e} at most",
            )


def memory(part: Part) -> None:
    """Too little memory: one sentence that says what to do."""
    world = made_up(160)
    for what, fraction in (("in the first steps", 0.004), ("before the first step", 0.0003)):
        with part.trying(f"out of memory {what}"):
            if part.small:
                real = trainer._epoch if what == "in the first steps" else trainer.BeatBank

                def full(*_, **__):
                    raise torch.OutOfMemoryError("made up")

                setattr(trainer, real.__name__, full)
            else:
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(fraction)
            said = "nothing: it trained"
            try:
                trained(
                    part, what.replace(" ", "_"), world, network="ecg_smart_net", batch_size=160
                )
            except trainer.TrainingError as error:
                said = str(error)
            finally:
                if part.small:
                    setattr(trainer, real.__name__, real)
            part.tell(f"out of memory {what}", said.startswith("Out of memory on"), said)


TAKE = """
import os, sys, time
from ecglib import state
from ecglib.study.machine import gpu
lock = gpu(1, 2)
import torch
seen = torch.cuda.device_count(), str(state.pick_device("auto"))
slot = lock.lock_file.removesuffix(".lock")[-1]
print(os.environ["CUDA_VISIBLE_DEVICES"], slot, *seen, flush=True)
time.sleep(60)
"""


def visible(part: Part) -> None:
    """``CUDA_VISIBLE_DEVICES`` is given out: two jobs on one GPU, and the third waits."""
    environment = os.environ | {"TMPDIR": str(part.folder), "CUDA_VISIBLE_DEVICES": "0"}
    words = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": environment}
    started = []
    with part.trying("two jobs share a GPU, the third waits"):
        for _ in range(2):
            started.append(subprocess.Popen([sys.executable, "-c", TAKE], **words))
        told = sorted(process.stdout.readline().split() for process in started)
        third = subprocess.Popen([sys.executable, "-c", TAKE], **words)
        started.append(third)
        time.sleep(4 if part.small else 10)
        waits = third.poll() is None
        expected = [["0", job, *(("0", "cpu") if part.small else ("1", "cuda"))] for job in "01"]
        started[0].kill()
        got = third.stdout.readline().split()
        part.tell(
            "two jobs share a GPU, the third waits for a place",
            told == expected and waits and got in expected,
            "device, place, GPUs seen, device chosen: " + " and ".join(map(" ".join, told)),
        )
    for process in started:
        process.kill()
    with part.trying("CUDA_VISIBLE_DEVICES empty"):
        ask = "from ecglib.state import pick_device as p; print(p('auto')); p('cuda')"
        hidden = environment | {"CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", ask]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=hidden)
        refused = "Device 'cuda' isn't available here" in done.stderr
        part.tell(
            "with none given out: auto takes the CPU, cuda is refused",
            done.stdout.strip() == "cpu" and refused,
        )


def stream(part: Part) -> None:
    """A cohort streamed from its file gives the bits of one that lies on the device."""
    world = made_up(160 if part.small else 480)
    for network in ("mayo_alvd",) if part.small else ("mayo_alvd", "ecg_smart_net"):
        with part.trying(f"{network}: streamed"):
            hashes = {
                trained(part, f"{network}_{how}", world, network=network, stream=how)[1]["weights"]
                for how in (False, True)
            }
            part.tell(f"{network}: streamed cohort, same weights to the bit", len(hashes) == 1)


def alone(part: Part) -> None:
    """One process: ECGs a second of each network, beside the plain loop; and other ways."""
    size = (256, 0.2) if part.small else (3708, 1.2)
    networks = speed.NETWORKS[-1:] if part.small else speed.NETWORKS
    jobs = [speed.Job(name, loop) for name in networks for loop in ("plain", "ours")]
    first = networks[0]
    jobs += [speed.Job(first, "contiguous")]
    jobs += [speed.Job(name, "ours", p) for name in networks[:1] for p in ("tf32", "bf16")]
    if not part.small:
        jobs += [speed.Job(first, "contiguous", "tf32")]
        jobs += [speed.Job(name, "graphed") for name in networks]
        jobs += [speed.Job(first, "graphed", "tf32")]
    for job in jobs:
        with part.trying(f"speed of {job}"):
            part.tell("speed", "measured", row=speed.alone(job, part.device, *size))
            if not part.small:
                torch.cuda.empty_cache()


def together(part: Part) -> None:
    """Processes side by side on the one GPU."""
    size = (256, 0.2) if part.small else (3708, 2.5)
    networks = speed.NETWORKS[-1:] if part.small else speed.NETWORKS
    for name in networks:
        with part.trying(f"{name} in the plain loop"):
            row = speed.alone(speed.Job(name, "plain"), part.device, *size)
            part.tell("speed", "measured", row=row)
    jobs = [(networks[0], n) for n in ((2,) if part.small else (8, 12))]
    jobs += [(name, 8) for name in networks[1:]]
    beside(part, jobs, size, "ours")
    with part.trying("MPS"), mps(part.folder) as there:
        beside(part, jobs if there else [], size, "ours, MPS")


def beside(part: Part, jobs: list, size: tuple, loop: str) -> None:
    """So many runs of a network at once, as PyTorch multiplies by default and so the plain loop."""
    for name, n in jobs:
        with part.trying(f"{n} runs of {name} side by side"):
            row = speed.side_by_side(speed.Job(name, "ours", "tf32"), part.device, *size, n)
            part.tell("speed", "measured", row=row | {"loop": loop})


@contextlib.contextmanager
def mps(folder: Path):
    """NVIDIA's MPS, with which kernels of several processes run at once and don't take turns.

    Yields whether it is there; it ends with the block.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    os.environ |= {f"CUDA_MPS_{kind}_DIRECTORY": str(folder) for kind in ("PIPE", "LOG")}
    subprocess.run([control, "-d"], check=True)
    try:
        yield True
    finally:
        subprocess.run([control], input="quit\n", text=True, check=False)
        for kind in ("PIPE", "LOG"):
            del os.environ[f"CUDA_MPS_{kind}_DIRECTORY"]


def rotation(part: Part) -> None:
    """One rotation of ECG-SMART-NET as in ``ptbxl_quick``: twelve epochs, tests and files."""
    settings = load_study("ptbxl_quick")
    if part.cohort:
        cohort = load_cohort(part.cohort)
        folds = build_folds(cohort.records, settings.folds.count, settings.seed)
    else:
        cohort, _ = made_up(300 if part.small else 4635, 0.2 if part.small else 0.0865)
        folds = build_folds(cohort.records, 5 if part.small else 10, settings.seed)
    told = run_identity(settings, "ecg_smart_net", 0, cohort)
    told["training"] |= {"device": part.device.type, "early_stopping": None}
    told["training"]["epochs"] = 1 if part.small else settings.training.epochs
    for name in ("fp32",) if part.small else ("fp32", "tf32"):
        with part.trying(f"one rotation, {name}"):
            folder = part.folder / name
            folder.mkdir()
            told["training"]["precision"] = name
            begin = time.perf_counter()
            facts = trainer.train(told, cohort, folds, folder)
            took = time.perf_counter() - begin
            history = pd.read_csv(folder / "history.csv")
            test = pd.read_parquet(folder / "predictions.parquet").query("split == 'test'")
            part.tell(
                f"one rotation of ECG-SMART-NET, {len(cohort.records)} ECGs, {name}: "
                f"{facts['epochs']} epochs within two minutes",
                took < 120 or part.small,
                f"{took:.1f} s, of them {history.train_seconds.sum():.1f} s training and "
                f"{history.val_seconds.sum():.1f} s validation; "
                f"test AUC {metrics.auc(test.label, test.probability):.3f}",
                seconds=took,
            )


PARTS = {
    # name: (function, seconds it may take on a GPU, whether others may run beside it)
    "study": (study, 300, True),
    "agree": (agree, 150, True),
    "repeat": (repeat, 150, True),
    "killed": (killed, 150, True),
    "precision": (precision, 90, True),
    "memory": (memory, 60, True),
    "visible": (visible, 90, True),
    "stream": (stream, 90, True),
    "alone": (alone, 150, False),
    "rotation": (rotation, 100, False),
    "together": (together, 260, False),
}


# ---- all of them


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, and print the table; returns 1 if a check failed, 77 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--cohort", type=Path, help="folder of a built cohort, for the rotation")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8, help="no part begins later than that")
    for own in ("--part", "--work"):
        parser.add_argument(own, type=str, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.part:
        part = Part(given.part, given.device, Path(given.work), given.cohort)
        child(part, *given.child) if given.child else PARTS[given.part][0](part)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu can't run: there is no CUDA device here (--device cpu runs a small form of it)")
        return CANNOT
    given.out.mkdir(parents=True, exist_ok=True)
    for left in ("results.jsonl", "log.txt", "table.md"):
        (given.out / left).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu") as work:
        results = run_all(given, Path(work))
    text = summary(results, given.device)
    (given.out / "table.md").write_text(text + "\n")
    print(text, flush=True)
    return int(any(line["verdict"] == "FAILED" for line in results))


def run_all(given, work: Path) -> list[dict]:
    """Run the parts, first those that may run beside each other; returns their lines."""
    begin, results = time.monotonic(), []

    def one(name: str) -> None:
        _, limit, _ = PARTS[name]
        left = given.minutes * 60 - (time.monotonic() - begin)
        if left < 20:
            lines = [{"part": name, "what": name, "verdict": "not run", "told": "no time was left"}]
        else:
            limit = limit * 20 if given.device == "cpu" else min(limit, left)
            lines = run_part(name, given, work, limit)
        results.extend(lines)
        with open(given.out / "results.jsonl", "a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    cores = 1 if given.device == "cpu" else min(4, (os.cpu_count() or 1) // 2) or 1
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        list(pool.map(one, [name for name in given.parts if PARTS[name][2]]))
    for name in given.parts:
        if not PARTS[name][2]:
            one(name)
    return results


def run_part(name: str, given, work: Path, limit: float) -> list[dict]:
    """Run one part in a process group of its own; returns its lines, and one on how it ended."""
    words = ["--part", name, "--device", given.device, "--work", str(work)]
    words += ["--cohort", str(given.cohort.absolute())] if given.cohort else []
    command = [sys.executable, "-m", "tests.system.gpu", *words]
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    begin, ended = time.monotonic(), ""
    log = work / f"{name}.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            ended = "" if process.wait(limit) == 0 else f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"was stopped after {limit:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    told = log.read_text(errors="replace")
    with open(given.out / "log.txt", "a") as file:
        took = time.monotonic() - begin
        file.write(f"\n=== {name}, {took:.0f} s {ended}\n{told[-200_000:]}")
    found = work / f"{name}.jsonl"
    lines = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    if ended or not lines:
        last = told.strip().splitlines()[-1:] or [""]
        lines.append(
            {"part": name, "what": name, "verdict": "FAILED", "told": f"{ended} {last[0]}"[:400]}
        )
    print(f"{name}: {time.monotonic() - begin:.0f} s {ended}", flush=True)
    return lines


def summary(results: list[dict], device: str) -> str:
    """Lay out what was found, as text that a README can hold."""
    name = "CPU, in small form" if device == "cpu" else torch.cuda.get_device_name()
    lines = [
        f"{name}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        "| check | verdict | what was seen |",
        "|---|---|---|",
    ]
    rows = [line["row"] for line in results if "row" in line]
    for line in results:
        if "row" not in line:
            told = " ".join(line["told"].split()).replace("|", "/")
            lines.append(f"| {line['what']} | {line['verdict']} | {told} |")
    lines += ["", speed.table(rows)]
    plain = {row["network"]: row for row in rows if row["loop"] == "plain"}
    for network in plain:
        ours = [
            r
            for r in rows
            if r["network"] == network and "ours" in r["loop"] and r["precision"] != "bf16"
        ]
        if ours:
            most = max(ours, key=lambda row: row["train"])
            ratio, busy = most["train"] / plain[network]["train"], most.get("train_utilisation")
            lines += [
                "",
                f"{network}: {most['processes']} runs at once ({most['loop']}) train {ratio:.1f} "
                "times as fast as a plain loop alone"
                f"{'' if busy is None else f', GPU busy {busy:.0%}'} (goal: 3 times, 60 %).",
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
