"""A published checkpoint as a run: what its module answers, the run does; others are refused."""

import io
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from scipy import signal
from torch import nn

from ecglib import load_model
from ecglib.dataset import CROP
from ecglib.models import build_model
from ecglib.study import explain, places, weights
from ecglib.study.__main__ import main
from ecglib.study.params import StudyError


class ResidualBlock2D(nn.Module):
    """A block of the checkpoint's network: two temporal convolutions beside a shortcut."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, (1, 3), (1, stride), (0, 1), bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, (1, 3), padding=(0, 1), bias=False)
        self.bn2, self.shortcut = nn.BatchNorm2d(after), nn.Sequential()
        if stride > 1:
            way = nn.Conv2d(before, after, (1, 1), (1, stride), bias=False)
            self.shortcut = nn.Sequential(way, nn.BatchNorm2d(after))

    def forward(self, x):
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.shortcut(x))


class ECGSMARTNET(nn.Module):
    """The checkpoint's network, after the description of its layers."""

    def __init__(self):
        super().__init__()
        self.in_channels, self.dropout, self.do = 512, False, nn.Dropout(0.2)
        self.conv1 = nn.Conv2d(1, 64, (1, 7), (1, 2), (0, 3), bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d((1, 3), (1, 2), (0, 1))
        for number, (before, after) in enumerate(
            [(64, 64), (64, 128), (128, 256), (256, 512)], start=1
        ):
            first = ResidualBlock2D(before, after, 1 + (number > 1))
            setattr(self, f"layer{number}", nn.Sequential(first, ResidualBlock2D(after, after, 1)))
        self.conv2, self.bn2 = nn.Conv2d(512, 512, (12, 1), bias=False), nn.BatchNorm2d(512)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(512, 2)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Temporal(ECGSMARTNET):
    """Another network of the same module."""


class Harm:
    """Calls a function when it is unpickled."""

    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


@pytest.fixture(scope="module", autouse=True)
def _named():
    """The classes stand in a module of the checkpoints' name, which the package doesn't have."""
    module = types.ModuleType("ecg_models")
    for kind in (ResidualBlock2D, ECGSMARTNET, Temporal):
        kind.__module__ = "ecg_models"
        setattr(module, kind.__name__, kind)
    sys.modules["ecg_models"] = module
    yield
    del sys.modules["ecg_models"]


@pytest.fixture(scope="module")
def network():
    """A network with the statistics of some batches, as one that was trained has them."""
    torch.manual_seed(1)
    network = ECGSMARTNET()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 1, 12, 200))
    return network.eval()


def save_as_on_a_gpu(network, file):
    """Write a module as where its tensors lie on a GPU, as those of the published files do."""
    torch.save(network, whole := io.BytesIO())
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(file, "w") as write:
        for name in read.namelist():
            here, there = b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0"
            content = read.read(name)
            if name.endswith("data.pkl"):
                assert here in content
                content = content.replace(here, there)
            write.writestr(name, content)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """The run folder made of its file."""
    home = tmp_path_factory.mktemp("home")
    save_as_on_a_gpu(network, home / "ecgsmartnet_omi_2025.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "OUTPUTS", home / "outputs")
        return weights.convert(home / "ecgsmartnet_omi_2025.pt")


def test_the_run_answers_as_the_module_does(network, run):
    ours, x = (
        load_model(run),
        torch.randn(8, 1, 12, 200, generator=torch.Generator().manual_seed(2)),
    )
    with torch.no_grad():
        difference = (ours(x) - network(x)).abs().max().item()
    assert difference < 1e-6 < ours(x).std().item()
    assert sorted(f.name for f in run.iterdir()) == ["run.json", "weights.safetensors"]
    assert ours.identity["training"] == {"normalisation": "lead_max", "samples": 200}


def test_it_explains_an_ecg_without_a_calibrated_risk(network, run):
    found = explain.explain("", str(run))
    beat = signal.resample(np.rint(found.beat.beat)[:, CROP], 200, axis=1)
    x = torch.tensor(beat / np.abs(beat).max(1, keepdims=True), dtype=torch.float32)
    with torch.no_grad():
        expected = network(x[None, None]).softmax(1)[0, 1].item()
    assert found.scores.score.item() == pytest.approx(expected, abs=1e-6)
    assert list(found.scores) == ["score"] and found.networks.kind == "angiographic"
    assert found.verdict[1].startswith(
        "Uncalibrated, since no validation fold came with the network"
    )
    assert found.saliency.shape == (12, 20)
    assert found.segments.sum().tolist() == pytest.approx([1, 1])


@pytest.fixture
def at_once(tmp_path, monkeypatch):
    """Outputs of its own, and a file that is opened without the seconds of another process."""

    def opened(words, **_):
        told = weights._open(*words[3:])
        return subprocess.CompletedProcess(words, bool(told), stderr=told)

    monkeypatch.setattr(weights, "subprocess", types.SimpleNamespace(run=opened))
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")


def test_a_label_that_the_files_name_does_not_tell_is_unknown(network, tmp_path, at_once):
    torch.save(network.state_dict(), tmp_path / "other.pt")  # a state dict will do, too
    assert main(["weights", str(tmp_path / "other.pt")]) == 0
    networks = explain.open_networks(str(tmp_path / "outputs" / "weights" / "other"))
    assert networks.kind == "unknown" and not networks.clinical


def test_code_is_refused_by_name_and_not_run(tmp_path):
    import os

    mark, file = tmp_path / "harmed", tmp_path / "a.pt"
    for call, words, name in (
        (os.system, (f"touch {mark}",), f"{os.name}.system"),
        (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (getattr, (torch.Tensor, "numpy"), "getattr"),
    ):
        hidden = ECGSMARTNET()
        hidden.in_channels = Harm(call, *words)
        for content in (hidden, {"conv1.weight": Harm(call, *words)}, Harm(call, *words)):
            torch.save(content, file)
            assert f"it names {name}, which is not part" in weights._open(file, tmp_path / "out")
            assert not mark.exists() and not (tmp_path / "out").exists()
    file.write_bytes(pickle.dumps(Harm(os.system, f"touch {mark}"), 2))
    assert weights._open(file, tmp_path / "out") and not mark.exists()


def test_the_process_says_what_it_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "OUTPUTS", tmp_path / "outputs")
    torch.save(Harm(eval, "1"), tmp_path / "a.pt")
    with pytest.raises(StudyError, match=r"^a.pt is not used: it names eval, which is not part"):
        weights.convert(tmp_path / "a.pt")


def test_what_is_no_such_network_leaves_one_sentence_and_no_folder(tmp_path, at_once, capsys):
    for name, content, words in (
        ("temporal", Temporal(), "names ecg_models.Temporal, which is not part"),
        ("state", build_model("temporal_resnet18").state_dict(), "bn2.bias has the shape None th"),
        ("list", [1, 2], "not a checkpoint of a network (ValueError)"),
    ):
        torch.save(content, tmp_path / f"{name}.pt")
        assert main(["weights", str(tmp_path / f"{name}.pt")]) == 1
        told = capsys.readouterr().err
        assert f"{name}.pt is not used: " in told and words in told and told.count("\n") == 1
    (tmp_path / "cut.pt").write_bytes((tmp_path / "temporal.pt").read_bytes()[:9_000_000])
    with pytest.raises(StudyError, match=r"cut.pt is not used: it is not a checkpoint of a"):
        weights.convert(tmp_path / "cut.pt")
    with pytest.raises(StudyError, match=r"none.pt: no such file; name a checkpoint with FILE="):
        weights.convert(tmp_path / "none.pt")
    assert not (tmp_path / "outputs" / "weights").exists()
