"""Time and memory of attribution maps.

    python -m benchmarks.saliency [--ecgs 83] [--threads 2]

ECG-SMART-NET (random weights, which cost the same) on as many ECGs as the paper's test fold has
positives, in batches as notebook 09 takes them, beside the baseline, one ECG at a time through
plain autograd. Must reach: gradient under 20 s, Integrated Gradients with 50 steps under 5 minutes
on 2 cores, memory under 2 GB.
"""

import argparse
import resource
import time

import numpy as np
import torch

from ecglib.analysis import saliency
from ecglib.models import build_model


def one_at_a_time(model, inputs):
    """Absolute gradients by plain autograd, ECG by ECG: the baseline."""
    maps = []
    for x in torch.from_numpy(inputs):
        x = x[None, None].requires_grad_()
        maps.append(torch.autograd.grad(model(x)[0, 1], x)[0][0, 0].abs())
    return torch.stack(maps).numpy()


def speed(ecgs: int, threads: int):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model("ecg_smart_net").eval().to(memory_format=torch.channels_last)
    inputs = np.random.default_rng(0).standard_normal((ecgs, 12, 400)).astype(np.float32)
    print(f"{ecgs} ECGs, {threads} thread(s); times include whatever else runs on this machine")
    ways = {
        "gradient, one ECG at a time (baseline)": lambda: one_at_a_time(model, inputs),
        "gradient": lambda: saliency.attribute(model, inputs),
        "Integrated Gradients, 50 steps": lambda: saliency.attribute(
            model, inputs, "integrated_gradients"
        ),
        "occlusion by lead": lambda: saliency.attribute(model, inputs, "occlude_leads"),
    }
    maps = {}
    for name, way in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        maps[name] = way()
        told = f"{time.perf_counter() - wall:7.1f} s, {time.process_time() - cpu:7.1f} CPU-s"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        print(f"{name:40s} {told}, peak memory so far {memory:.2f} GB", flush=True)
    first, second = list(maps.values())[:2]
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ecgs", type=int, default=83)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    speed(given.ecgs, given.threads)


if __name__ == "__main__":
    main()
