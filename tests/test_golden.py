"""Golden numbers: a change of code that changes them needs a raised protocol number.

They are kept in ``golden.json`` as hashes for each kind of CPU that PyTorch tells apart, since bits
differ between kinds; on a kind that isn't there, the kept values are compared to 1e-3. If a change
is meant to change numbers, raise the protocol number of what changed (`ecglib.models.NETWORKS`,
`ecglib.trees.TREES`, `ecglib.cohort.build.PROTOCOL`), then make the file anew:

    ECGLIB_TEST_DATA=folder PYTHONPATH=. python tests/test_golden.py
"""

import hashlib
import json
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecglib import trainer
from ecglib.cohort import build
from ecglib.cohort.reading import read_recording
from ecglib.folds import build_folds
from ecglib.models import NETWORKS, without_download
from ecglib.settings import Signal, SyntheticCohort
from ecglib.signal import process
from ecglib.trees import TREES, forest

FILE = Path(__file__).with_name("golden.json")
CPU = torch.backends.cpu.get_cpu_capability()
REAL = (
    "ptb-xl/records500/00000/00002_hr.hea",
    "ptb-xl/records500/00000/00012_hr.hea",
    "philips-xml/3191723_ZZDEMOPTONLY_1-04_orig.xml",
)


def make_world(folder: Path):
    """A few simulated ECGs as a cohort, and its folds."""
    source = build.open_source(SyntheticCohort(source="synthetic", records=60, prevalence=0.3), 3)
    cohort = build.build_cohort(source, Signal(), folder / "cohort")
    return cohort, build_folds(cohort.records, 3, 0)


def more_of(world):
    """Each ECG six times, with some noise: trees need more than sixty to split at all."""
    cohort, rng = world[0], np.random.default_rng(0)
    beats = np.tile(cohort.beats, (6, 1, 1))
    beats = beats + rng.integers(-30, 31, beats.shape, dtype=np.int16)
    records = pd.concat([
        cohort.records.assign(record_id=cohort.records.record_id + f"-{i}") for i in range(6)
    ]).reset_index(drop=True)  # fmt: skip
    return replace(cohort, beats=beats, records=records), build_folds(records, 3, 0)


def probabilities(name: str, world, folder: Path) -> np.ndarray:
    """What one tree model, or one network after two epochs, predicts of those ECGs."""
    identity = {"model": name, "network": name, "options": {}, "rotation": 0, "seed": 1}
    identity |= {"threads": 1, "learning_rate": 1e-4, "training": {"epochs": 2, "device": "cpu"}}
    if name in NETWORKS:
        identity["options"] = without_download(name, {})
    world = world if name in NETWORKS else more_of(world)
    folder.mkdir()
    (trainer if name in NETWORKS else forest).train(identity, *world, folder)
    return pd.read_parquet(folder / "predictions.parquet").probability.to_numpy()


def real_beats(data: Path) -> np.ndarray:
    """Median beats of a few real ECGs, in µV."""
    return np.stack([process(*read_recording(data / name), Signal()).beat for name in REAL])


def summary(numbers: np.ndarray) -> dict:
    """A hash of all bits, and up to 40 numbers; beats are in mV there."""
    beats = numbers.ndim == 3
    numbers = np.rint(numbers).astype(np.int16) if beats else numbers
    some = numbers.reshape(-1)[:: -(-numbers.size // 40)] / (1000 if beats else 1)
    digest = hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()
    return {"hash": digest, "values": [round(float(x), 6) for x in some]}


def compare(name: str, numbers: np.ndarray) -> None:
    """Compare with what is kept."""
    kept, found = json.loads(FILE.read_text()), summary(numbers)
    np.testing.assert_allclose(
        found["values"], kept["values"][name], rtol=0, atol=1e-3, err_msg=name
    )
    # only PyTorch's bits differ between x86 CPUs: see `ecglib.__init__`
    cpu = "AVX2" if CPU.startswith("AVX") and name not in NETWORKS else CPU
    if cpu not in kept["hashes"]:
        warnings.warn(f"{name}: no hash is kept for {cpu}; compared to 1e-3", stacklevel=2)
        return
    assert found["hash"] == kept["hashes"][cpu][name], (
        f"{name}: its numbers changed; raise its protocol number, or undo the change"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("golden"))


def test_beats_of_simulated_ecgs(world):
    compare("simulated beats", world[0].beats)


def test_beats_of_real_ecgs(real_data):
    compare("real beats", real_beats(real_data))


@pytest.mark.parametrize("name", [*NETWORKS, *TREES])
def test_predictions(name, world, tmp_path):
    compare(name, probabilities(name, world, tmp_path / "run"))


def make() -> None:
    """Write the file anew; hashes of other kinds of CPU stay if the numbers did, to 1e-3."""
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        found = {"simulated beats": world[0].beats}
        found["real beats"] = real_beats(Path(os.environ["ECGLIB_TEST_DATA"]))
        for name in (*NETWORKS, *TREES):
            found[name] = probabilities(name, world, Path(folder) / name)
    told = {name: summary(numbers) for name, numbers in found.items()}
    hashes, values = ({name: told[name][what] for name in told} for what in ("hash", "values"))
    hashes = {CPU: hashes}
    before = json.loads(FILE.read_text()) if FILE.exists() else {"values": {}}
    if before["values"].keys() == values.keys() and all(
        np.allclose(before["values"][name], values[name], rtol=0, atol=1e-3) for name in values
    ):
        hashes = before["hashes"] | hashes
    FILE.write_text(json.dumps({"hashes": hashes, "values": values}, indent=1) + "\n")


if __name__ == "__main__":
    make()
