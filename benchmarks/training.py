"""Speed of training: the trainer's loop against a plain one, in the same process, medians over
repeats.

    python -m benchmarks.training            # both networks' loops at the protocol's batch
    python -m benchmarks.training --sides 2  # two one-thread runs side by side, in sum

The plain loop: PyTorch's default layout, a `DataLoader` over a data set that crops and normalises
ECG by ECG. Both see the same ECGs in the same batches. GFLOP/s count three passes of the forward's
operations (forward, and two backward).
"""

import argparse
import multiprocessing
import os
import sys
import time

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from ecglib import models
from ecglib.analysis import layers
from ecglib.dataset import CROP, BeatBank, normalise, undersampled_batches
from ecglib.models.convolution import quicken

# as the Makefile sets them: a batch's buffers are kept for the next one, in one arena
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "200000000"}
MEMORY |= {"MALLOC_ARENA_MAX": "1"}
PREVALENCE, BATCH = 0.0878, 128  # of the paper's ECGs: about 23 ECGs are left of a batch of 128


class Plain(Dataset):
    """Beats one by one, as most loops do it."""

    def __init__(self, beats, labels):
        self.beats, self.labels = beats, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return normalise(torch.from_numpy(self.beats[i][:, CROP].copy())).unsqueeze(0), self.labels[
            i
        ]


def sides(name, device, beats, labels, batches):
    """Return functions that train one epoch and validate, for the plain loop and for ours."""
    torch.manual_seed(0)
    plain = models.build_model(name).to(device)
    ours = models.build_model(name).to(device, memory_format=torch.channels_last)
    ours = ours if torch.cuda.is_available() else quicken(ours)
    optimisers = {net: torch.optim.Adam(net.parameters(), lr=1e-5) for net in (plain, ours)}
    data, bank = Plain(beats, labels), BeatBank(beats, labels, device)

    def step(network, x, y):
        optimisers[network].zero_grad(set_to_none=True)
        loss = cross_entropy(network(x), y)
        loss.backward()
        optimisers[network].step()

    def train_plain():
        plain.train()
        for x, y in DataLoader(data, batch_sampler=[b.tolist() for b in batches]):
            step(plain, x.to(device), y.to(device))

    def train_ours():
        ours.train()
        for at in batches:
            step(
                ours,
                bank.batch(at).contiguous(memory_format=torch.channels_last),
                bank.labels[at.to(device)],
            )

    def validate_plain():
        plain.eval()
        with torch.no_grad():
            for x, _ in DataLoader(data, batch_size=BATCH):
                plain(x.to(device))

    def validate_ours():
        ours.eval()
        with torch.inference_mode():
            for at in torch.arange(len(bank)).split(32):
                ours(bank.batch(at).contiguous(memory_format=torch.channels_last))

    return {"train": (train_plain, train_ours), "validate": (validate_plain, validate_ours)}


def seconds(work):
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def matrix_product_rate(size=1536):
    """GFLOP/s of a float32 matrix product on this machine, with the threads in use."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / np.median([seconds(lambda: a @ b) for _ in range(5)]) / 1e9


def measure(name, threads, ecgs, repeats, quiet=False):
    """Return ECGs a second of the plain loop and of ours, alternating, for training and
    validation.
    """
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    beats, labels = (
        rng.integers(-999, 999, (ecgs, 12, 600)).astype(np.int16),
        (rng.random(ecgs) < PREVALENCE).astype(int),
    )
    batches = undersampled_batches(labels, BATCH, torch.Generator().manual_seed(0))
    rates, seen = {}, {"train": sum(map(len, batches)), "validate": ecgs}
    for kind, both in sides(name, device, beats, labels, batches).items():
        # the first one warms up
        took = [[seconds(work) for work in both] for _ in range(repeats + 1)][1:]
        rates[kind] = [seen[kind] / np.median(column) for column in zip(*took, strict=True)]
        if not quiet:
            plain, ours = rates[kind]
            passes = 3 if kind == "train" else 1
            speed = ours * passes * layers.flops(models.build_model(name)) / 1e9
            print(
                f"{name:18} {threads} threads {kind:9} plain {plain:7.1f}/s  ours {ours:7.1f}/s  "
                f"ratio {ours / plain:.2f}  {speed:.0f} GFLOP/s"
            )
    return rates


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["ecg_smart_net", "mayo_alvd"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ecgs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sides", type=int, default=1, help="2: two one-thread runs side by side")
    given = parser.parse_args()
    # they count only where a process starts; both sides have them
    if not os.environ.keys() >= MEMORY.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MEMORY)
    torch.set_num_threads(given.threads)
    print(f"matrix product: {matrix_product_rate():.0f} GFLOP/s with {given.threads} threads")
    for name in given.models:
        alone = measure(name, given.threads, given.ecgs, given.repeats)
        if given.sides > 1:
            work = [(name, 1, given.ecgs, given.repeats, True)] * given.sides
            with multiprocessing.get_context("spawn").Pool(given.sides) as pool:
                together = pool.starmap(measure, work)
            for kind in alone:
                total = sum(rates[kind][1] for rates in together)
                print(
                    f"{name:18} {given.sides} one-thread runs {kind:9} {total:7.1f}/s in sum, "
                    f"{total / alone[kind][0]:.2f} times the plain loop with {given.threads} "
                    "threads"
                )
