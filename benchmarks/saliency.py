"""Time and memory of attribution maps; and how far z-scored leads keep a gradient map from a known
place.

python -m benchmarks.saliency [--ecgs 83] [--threads 2]
python -m benchmarks.saliency --train 1600 [--epochs 5]

Without --train: ECG-SMART-NET (random weights, which cost the same) on as many ECGs as the paper's
test fold has positives, in batches as notebook 09 takes them, beside the baseline, one ECG at a
time through plain autograd. Must reach: gradient under 20 s, Integrated Gradients with 50 steps
under 5 minutes on 2 cores, memory under 2 GB.

With --train: simulates that many ECGs, trains the network twice, on z-scored leads as in the paper
and on leads in mV, and prints for both the share of maps inside the simulated injury's leads and
time over an even map's share.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ecglib import load_model
from ecglib.analysis import known_place, saliency, saliency_checks
from ecglib.cohort.build import build_cohort, open_source, workers
from ecglib.folds import build_folds, rotate
from ecglib.models import build_model
from ecglib.settings import Signal
from ecglib.study.params import Study
from ecglib.study.training import run_identity
from ecglib.trainer import train


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


def places(records: int, epochs: int):
    cohort = {"source": "synthetic", "records": records, "subtle": 0.1, "prevalence": 0.2}
    models = {
        key: {"network": "ecg_smart_net", "learning_rate": 1e-3, "normalisation": key}
        for key in ("lead_zscore", "millivolt")
    }
    training = {"epochs": epochs, "batch_size": 64, "device": "cpu"}
    told = {"name": "x", "title": "x", "cohort": cohort, "training": training, "models": models}
    study = Study.model_validate(told | {"folds": {"count": 4}, "selected_model": "lead_zscore"})
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = open_source(study.cohort, study.seed)
        built = build_cohort(source, Signal(), folder / "cohort", workers())
        folds = build_folds(built.records, study.folds.count, study.seed)
        test = built.records.iloc[rotate(folds, 0)["test"]]
        for key in models:
            (folder / key).mkdir()
            identity = run_identity(study, key, 0, built)
            facts = train(identity, built, folds, folder / key)
            (folder / key / "run.json").write_text(json.dumps(facts))
            model = load_model(folder / key)
            (place,) = known_place.known_places(
                built, test, identity, study.seed, int(test.label.sum())
            ).values()
            table, words = saliency_checks.limits(model, place)
            print(
                f"\n{key}, {len(place.inputs)} positives\n{words}\n{table.round(2).to_string()}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ecgs", type=int, default=83)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", type=int, metavar="RECORDS")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    if given.train:
        places(given.train, given.epochs)
    else:
        speed(given.ecgs, given.threads)


if __name__ == "__main__":
    main()
