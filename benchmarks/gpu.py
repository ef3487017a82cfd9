"""Speed on a GPU: the trainer's own functions against a plain loop, alone and side by side.

    python -m benchmarks.gpu               # on a GPU
    python -m benchmarks.gpu --device cpu  # a small form of it, to see that it works

The plain loop is that of ``benchmarks.training``: PyTorch's defaults (its layout, its Adam, TF32 in
convolutions) and a `DataLoader` over a data set that crops and normalises ECG by ECG. Both see
batches of 128 before undersampling, of which about 22 ECGs are left. How long the GPU was busy is
the time of its kernels, by PyTorch's profiler, or for several processes NVML's utilisation.
"""

import argparse
import multiprocessing
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from benchmarks.training import Plain
from ecglib import models, trainer
from ecglib.dataset import BeatBank, undersampled_batches
from ecglib.settings import Training
from ecglib.state import State, settings_of_torch

NETWORKS = ("ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd")
BATCH, PREVALENCE = 128, 0.0865


@dataclass(frozen=True)
class Job:
    """What is measured: a network, in a loop (`LOOPS`), at a precision."""

    network: str
    loop: str = "ours"
    precision: str = "fp32"

    @property
    def options(self) -> dict:
        return {"pretrained": False} if self.network == "resnet18" else {}


class Ours:
    """The trainer's functions for an epoch and for predictions."""

    def __init__(self, job: Job, device: torch.device, ecgs: int):
        self.settings = Training(precision=job.precision, batch_size=BATCH)
        identity = {"network": job.network, "options": job.options, "learning_rate": 1e-5}
        self.context = settings_of_torch(device, job.precision, 1)
        self.context.__enter__()  # for as long as this process measures
        self.beats, self.labels = made_up(ecgs)
        self.device, self.bank = device, BeatBank(self.beats, self.labels, device)
        self.state = State.start(identity | {"seed": 0, "rotation": 0}, self.settings, device)
        self.network, self.optimiser = self.state.network, self.state.optimiser
        self.shuffler, self.positions = self.state.shuffler, np.arange(ecgs)

    def train(self) -> int:
        """Train one epoch; returns the ECGs seen, as `validate` does."""
        return trainer._epoch(self.state, self.bank, self.positions, self.settings)[1]

    def validate(self) -> int:
        trainer.predict(self.network, self.bank, self.positions, self.settings.precision)
        return len(self.positions)


class Contiguous(Ours):
    """The same in PyTorch's default layout, channels first."""

    def __init__(self, *given):
        super().__init__(*given)
        self.network.to(memory_format=torch.contiguous_format)

        def as_default(network, inputs):
            x = inputs[0]
            return (x.as_strided(x.shape, (x[0].numel(), x[0].numel(), x.shape[-1], 1)),)

        self.network.register_forward_pre_hook(as_default)


class Graphed(Ours):
    """The same with one CUDA graph for each size of batch, captured when it is met again."""

    def __init__(self, *given):
        super().__init__(*given)
        for group in self.optimiser.param_groups:
            group["capturable"] = True
        self.met, self.graphs, self.pool = set(), {}, torch.cuda.graph_pool_handle()

    def step(self, at):
        self.optimiser.zero_grad(set_to_none=True)
        x = self.bank.batch(at).contiguous(memory_format=torch.channels_last)
        with trainer._precision(self.device, self.settings.precision):
            loss = cross_entropy(self.network(x).float(), self.bank.labels[at])
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def train(self) -> int:
        self.network.train()
        batches = undersampled_batches(self.labels, BATCH, self.shuffler)
        losses = torch.zeros(len(batches), device=self.device)
        placed = torch.cat(batches).to(self.device).split([len(b) for b in batches])
        for number, at in enumerate(placed):
            size = len(at)
            if size not in self.met:
                self.met.add(size)
                losses[number] = self.step(at)
                continue
            if size not in self.graphs:
                self.optimiser.zero_grad(set_to_none=True)
                graph, own = torch.cuda.CUDAGraph(), at.clone()
                with torch.cuda.graph(graph, pool=self.pool):
                    loss = self.step(own)
                self.graphs[size] = graph, own, loss
            graph, own, loss = self.graphs[size]
            own.copy_(at)
            graph.replay()
            losses[number] = loss
        assert torch.isfinite(losses).all()
        return sum(map(len, batches))


class PlainLoop:
    """The loop that one writes first."""

    def __init__(self, job: Job, device: torch.device, ecgs: int):
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = True  # PyTorch's defaults
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.manual_seed(0)
        self.beats, self.labels = made_up(ecgs)
        self.device, self.data = device, Plain(self.beats, self.labels)
        self.network = models.build_model(job.network, **job.options).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-5)
        self.shuffler = torch.Generator().manual_seed(0)

    def train(self) -> int:
        self.network.train()
        batches = [b.tolist() for b in undersampled_batches(self.labels, BATCH, self.shuffler)]
        for x, y in DataLoader(self.data, batch_sampler=batches):
            self.optimiser.zero_grad()
            loss = cross_entropy(self.network(x.to(self.device)), y.to(self.device))
            loss.backward()
            self.optimiser.step()
        return sum(map(len, batches))

    def validate(self) -> int:
        self.network.eval()
        with torch.no_grad():
            found = [
                self.network(x.to(self.device)).softmax(1)[:, 1].cpu()
                for x, _ in DataLoader(self.data, batch_size=BATCH)
            ]
        return len(torch.cat(found))


LOOPS = {"plain": PlainLoop, "ours": Ours, "contiguous": Contiguous, "graphed": Graphed}


def made_up(ecgs: int):
    """Noise, and labels of the prevalence of the public cohort."""
    rng = np.random.default_rng(0)
    beats = rng.integers(-999, 999, (ecgs, 12, 600)).astype(np.int16)
    return beats, (rng.random(ecgs) < PREVALENCE).astype(int)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(work, seconds: float, device: torch.device) -> float:
    """ECGs a second of epochs repeated for about so long."""
    wait_for(device)
    begin, seen = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        seen += work()
    wait_for(device)
    return seen / (time.perf_counter() - begin)


def kernel_seconds(work) -> float:
    """Seconds of GPU kernels for one ECG."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seen = work()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seen


class Utilisation:
    """Samples NVML's utilisation of the first GPU while it is open; None without NVML."""

    def __enter__(self):
        self.samples, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def _sample(self):
        with suppress(Exception):
            import pynvml

            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self.ended.wait(0.1):
                self.samples.append(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(5)

    @property
    def mean(self) -> float | None:
        settled = self.samples[5:] or self.samples  # the first ones still see what was before
        return float(np.mean(settled)) if settled else None


def alone(job: Job, device: torch.device, ecgs: int, seconds: float) -> dict:
    """Measure one process: ECGs a second, share of time in kernels, peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loop = LOOPS[job.loop](job, device, ecgs)
    told = {"network": job.network, "loop": job.loop, "precision": job.precision, "processes": 1}
    for kind in ("train", "validate"):
        work = getattr(loop, kind)
        work()
        if kind == "train":
            work()  # a graph is captured when its size is met again
        with Utilisation() as utilisation:
            told[kind] = rate(work, seconds, device)
        told[f"{kind}_utilisation"] = utilisation.mean if device.type == "cuda" else None
        if device.type == "cuda":
            told[f"{kind}_busy"] = kernel_seconds(work) * told[kind]
    if device.type == "cuda":
        told["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return told


def _worker(job, device, given, barrier, results) -> None:
    ecgs, seconds = given
    device = torch.device(device)
    try:
        loop = LOOPS[job.loop](job, device, ecgs)
        loop.train(), loop.validate()
        if job.loop == "graphed":
            loop.train(), loop.train()
        found = []
        for work in (loop.train, loop.validate):
            barrier.wait(400)
            found.append(rate(work, seconds, device))
            barrier.wait(400)
        results.put(found)
    except Exception as error:
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")


def side_by_side(job: Job, device: torch.device, ecgs: int, seconds: float, processes: int) -> dict:
    """Measure so many processes at once: ECGs a second in sum, and the GPU's utilisation."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes + 1), context.Queue()
    words = (job, device.type, (ecgs, seconds), barrier, results)
    workers = [context.Process(target=_worker, args=words, daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    told = {"network": job.network, "loop": job.loop, "precision": job.precision}
    told["processes"] = processes
    with suppress(threading.BrokenBarrierError):
        for kind in ("train", "validate"):
            barrier.wait(400)
            with Utilisation() as utilisation:
                barrier.wait(400)
            told[f"{kind}_utilisation"] = utilisation.mean if device.type == "cuda" else None
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    if broken := [one for one in found if isinstance(one, str)]:
        raise RuntimeError(f"{len(broken)} of {processes} processes failed: {broken[0]}")
    told["train"], told["validate"] = np.sum(found, axis=0).tolist()
    return told


def table(rows: list[dict]) -> str:
    """Lay the measurements out as a table, with each one's ratio to the plain loop alone."""
    plain = {row["network"]: row for row in rows if row["loop"] == "plain"}
    lines = [
        "| network | loop | runs at once | training, ECGs/s | × plain | GPU busy "
        "| validation, ECGs/s | × plain | GPU busy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = plain.get(row["network"], {})
        cells = [models.NETWORKS[row["network"]].display_name(Job(row["network"]).options)]
        cells += [f"{row['loop']}, {row['precision']}", str(row["processes"])]
        for kind in ("train", "validate"):
            busy = row.get(f"{kind}_busy", row.get(f"{kind}_utilisation"))
            ratio = row[kind] / first[kind] if first else None
            cells += [
                f"{row[kind]:,.0f}",
                "–" if ratio is None else f"{ratio:.1f}",
                "–" if busy is None else f"{busy:.0%}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sides", nargs="*", type=int, default=[2, 4, 8])
    given = parser.parse_args()
    device = torch.device(given.device)
    size = (3708, 3.0) if device.type == "cuda" else (256, 0.5)
    rows = [
        alone(Job(name, loop), device, *size)
        for name in given.networks
        for loop in ("plain", "ours")
    ]
    rows += [
        side_by_side(Job(name), device, *size, n) for name in given.networks for n in given.sides
    ]
    print(table(rows))
