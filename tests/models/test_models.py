"""One contract that every registered network must pass; a network missing from EXPECTED fails."""

import functools
import hashlib
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from web import served

from ecglib import download
from ecglib.analysis.layers import flops, layer_table
from ecglib.models import NETWORKS, build_model
from ecglib.models.temporal_resnet18 import TemporalBlock
from ecglib.plots import architecture

OFFLINE = {"resnet18": {"pretrained": False}}

TRUNK = {
    "maxpool": "64x12x100",
    "layer1": "64x12x100",
    "layer2": "128x12x50",
    "layer3": "256x12x25",
    "layer4": "512x12x13",
}
# parameters, then the output dimensions of Table 1 and facts published with the other networks
EXPECTED = {
    "ecg_smart_net": (
        6_991_682,
        {
            "conv1": "64x12x200",
            **TRUNK,
            "conv2": "512x1x13",
            "avgpool": "512x1x1",
            "flatten": "512",
            "fc": "2",
        },
    ),
    "temporal_resnet18": (
        3_844_930,
        {"conv1": "64x12x200", **TRUNK, "avgpool": "512x1x1", "flatten": "512", "fc": "2"},
    ),
    "resnet18": (
        11_171_266,
        {
            "model.conv1": "64x6x200",
            "model.maxpool": "64x3x100",
            "model.layer1": "64x3x100",
            "model.layer2": "128x2x50",
            "model.layer3": "256x1x25",
            "model.layer4": "512x1x13",
            "model.avgpool": "512x1x1",
            "model.fc": "2",
        },
    ),
    "mayo_alvd": (
        81_938,
        {
            "convblock1": "16x12x200",
            "convblock2": "16x12x100",
            "convblock3": "32x12x25",
            "convblock4": "32x12x12",
            "convblock5": "64x12x6",
            "convblock6": "64x12x2",
            "conv1": "64x1x2",
            "avgpool": "64x1x1",
            "flatten": "64",
            "fc1": "64",
            "fc2": "32",
            "fc3": "2",
        },
    ),
}


def seeded(name, seed=0, **options):
    torch.manual_seed(seed)
    return build_model(name, **OFFLINE.get(name, {}), **options)


@functools.cache
def ready(name):
    """One network in eval mode, shared by the tests that leave it as it is."""
    return seeded(name).eval()


def ecgs(leads=12, samples=400, count=4, seed=1):
    return torch.randn(count, 1, leads, samples, generator=torch.Generator().manual_seed(seed))


def expected_names(name):
    """State-dict names of the published checkpoints, in order, from the description of the
    architectures.
    """
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def bn(prefix):
        return [f"{prefix}.{n}" for n in norm]

    if name == "mayo_alvd":
        names = []
        for i in range(1, 7):
            names += [
                f"convblock{i}.conv.weight",
                f"convblock{i}.conv.bias",
                *bn(f"convblock{i}.bn"),
            ]
        names += ["conv1.weight", "conv1.bias", *bn("bn1")]
        for fc, after in (("fc1", "bn2"), ("fc2", "bn3"), ("fc3", None)):
            names += [f"{fc}.weight", f"{fc}.bias", *(bn(after) if after else [])]
        return names
    if name == "resnet18":
        return [f"model.{n}" for n in torchvision.models.resnet18().state_dict()]
    names = ["conv1.weight", *bn("bn1")]
    for layer in range(1, 5):
        for block in range(2):
            at = f"layer{layer}.{block}"
            names += [
                f"{at}.conv1.weight",
                *bn(f"{at}.bn1"),
                f"{at}.conv2.weight",
                *bn(f"{at}.bn2"),
            ]
            if layer > 1 and block == 0:
                names += [f"{at}.shortcut.0.weight", *bn(f"{at}.shortcut.1")]
    names += ["conv2.weight", *bn("bn2")] if name == "ecg_smart_net" else []
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize("name", NETWORKS)
class TestContract:
    def test_parameters_and_output_dimensions(self, name):
        count, outputs = EXPECTED[name]
        network = ready(name)
        table = layer_table(network).set_index("layer")
        assert sum(p.numel() for p in network.parameters()) == count
        assert table.loc[list(outputs), "output"].to_dict() == outputs
        order = [layer for layer in table.index if layer in outputs]
        assert order == list(outputs), "layers run in the order of the paper's table"
        leaves = [n for n, m in network.named_modules() if not list(m.children())]
        assert table.loc[[n for n in leaves if n in table.index], "parameters"].sum() == count

    def test_logits(self, name):
        logits = ready(name)(ecgs())
        assert logits.shape == (4, 2) and logits.dtype == torch.float32 and logits.isfinite().all()

    def test_gradient_reaches_every_parameter(self, name):
        network = seeded(name).train()
        torch.nn.functional.cross_entropy(network(ecgs()), torch.tensor([0, 1] * 2)).backward()
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name

    def test_gradient_reaches_every_lead_and_sample(self, name):
        x = ecgs().requires_grad_()
        ready(name)(x)[:, 1].sum().backward()
        ready(name).zero_grad()
        assert (x.grad.abs().amax((0, 1)) > 0).float().mean() > 0.99

    def test_same_seed_same_numbers(self, name):
        first, again, other = (seeded(name, seed).eval()(ecgs(count=1)) for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_a_record_does_not_depend_on_its_batch(self, name):
        network, x = ready(name), ecgs()
        torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("leads", "samples"), [(12, 600), (8, 400), (1, 131)])
    def test_leads_and_samples_are_free(self, name, leads, samples):
        network = seeded(name, leads=leads).train()
        assert network(ecgs(leads, samples, count=2)).shape == (2, 2)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(ecgs(leads, samples, count=1))
        network.train()
        assert flops(network, leads, samples) == counter.get_total_flops() > 0 and network.training

    @pytest.mark.parametrize(
        "shape", [(2, 1, 15, 400), (2, 1, 8, 400), (2, 12, 400), (2, 12, 1, 400)]
    )
    def test_other_shapes_are_refused(self, name, shape):
        with pytest.raises(
            ValueError,
            match=r"takes \(batch, 1, 12 leads, samples\) but got " + re.escape(str(shape)),
        ):
            ready(name)(torch.zeros(shape))

    def test_round_trip_through_safetensors(self, name, tmp_path):
        network, other = seeded(name).train(), seeded(name, seed=1)
        network(ecgs())  # moves the running statistics away from their start
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
        assert torch.equal(network.eval()(ecgs()), other.eval()(ecgs()))

    def test_channels_last_changes_nothing_that_matters(self, name):
        network = seeded(name).eval()
        plain = network(ecgs())
        last = network.to(memory_format=torch.channels_last)(
            ecgs().to(memory_format=torch.channels_last)
        )
        torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4)

    def test_no_relu_is_in_place_or_reused_by_our_networks(self, name):
        calls, handles = {}, []
        network = ready(name)
        for layer in network.modules():
            if isinstance(layer, torch.nn.ReLU):
                assert not layer.inplace
                handles.append(
                    layer.register_forward_hook(
                        lambda m, i, o: calls.update({m: calls.get(m, 0) + 1})
                    )
                )
        network(ecgs(count=1))
        for handle in handles:
            handle.remove()
        assert name == "resnet18" or set(calls.values()) <= {1}


@pytest.mark.parametrize("name", ["ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd"])
def test_a_published_checkpoints_names_and_order(name):
    assert list(ready(name).state_dict()) == expected_names(name)


def test_expectations_cover_the_registry():
    assert set(EXPECTED) == set(NETWORKS)


def test_registry_is_read_without_torch():
    code = "import sys, ecglib.models; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_names_give_the_nearest():
    with pytest.raises(
        ValueError, match="No network is called 'ecg_smartnet'; did you mean 'ecg_smart_net'"
    ):
        build_model("ecg_smartnet")
    with pytest.raises(
        ValueError, match="Mayo Clinic ALVD model has no option 'heads'; did you mean 'head'"
    ):
        build_model("mayo_alvd", heads="pool")
    with pytest.raises(ValueError, match="head is 'flat' but must be 'pool' or 'flatten'"):
        build_model("mayo_alvd", head="flat")


def test_display_names_say_what_was_built():
    def name(network, **options):
        return NETWORKS[network].display_name(options)

    assert name("ecg_smart_net") == "ECG-SMART-NET"
    assert name("resnet18", pretrained=True) == "ResNet-18 (pretrained on ImageNet)"
    assert name("resnet18", pretrained=False) == "ResNet-18 (random start)"
    assert "flatten" in name("mayo_alvd", head="flatten")


def test_a_block_is_what_table_2_says():
    """Against the sum written out with plain convolutions."""
    torch.manual_seed(0)
    block, x = TemporalBlock(4, 6, 2).eval(), torch.randn(2, 4, 12, 21)
    with torch.no_grad():
        for norm in (block.bn1, block.bn2, block.shortcut[1]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

        def norm(y, by):
            return (y - by.running_mean[:, None, None]) / (
                by.running_var[:, None, None] + by.eps
            ).sqrt()

        conv = torch.nn.functional.conv2d
        inner = norm(conv(x, block.conv1.weight, stride=(1, 2), padding=(0, 1)), block.bn1).clamp(
            min=0
        )
        inner = norm(conv(inner, block.conv2.weight, padding=(0, 1)), block.bn2)
        skip = norm(
            torch.einsum("oi,nilt->nolt", block.shortcut[0].weight[:, :, 0, 0], x[..., ::2]),
            block.shortcut[1],
        )
        torch.testing.assert_close(block(x), (inner + skip).clamp(min=0), rtol=1e-4, atol=1e-5)


def test_temporal_features_stay_in_their_lead():
    network, x = ready("ecg_smart_net"), ecgs()
    changed = x.clone()
    changed[:, :, 4] += 1
    same = (network.features(x) == network.features(changed)).flatten(3).all(3).all(0).all(0)
    assert same.tolist() == [lead != 4 for lead in range(12)]


def test_flatten_head():
    network = build_model("mayo_alvd", head="flatten")
    assert network.fc1.in_features == 128 * 2 and network.dropout1.p == 0.5
    assert network.eval()(ecgs()).shape == (4, 2)
    assert build_model("mayo_alvd", head="flatten", samples=600, leads=8).eval()(
        ecgs(8, 600)
    ).shape == (4, 2)
    with pytest.raises(RuntimeError):
        network(ecgs(samples=800))


def test_flops_against_a_count_by_hand():
    """Two operations a multiply-add of every convolution and of the last layer."""
    network, hand = ready("ecg_smart_net"), 0
    table = layer_table(network).set_index("layer")
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            channels, height, width = map(int, table.output[name].split("x"))
            hand += (
                2
                * channels
                * height
                * width
                * layer.in_channels
                * layer.kernel_size[0]
                * layer.kernel_size[1]
            )
    assert flops(network) == hand + 2 * 512 * 2


class TestImageNetWeights:
    @pytest.fixture
    def donor(self):
        torch.manual_seed(5)
        return torchvision.models.resnet18(weights=None)

    @pytest.fixture
    def offline(self, tmp_path, monkeypatch):
        """An empty cache, and a proxy that refuses."""
        monkeypatch.setattr(download, "PAUSE_S", 0.001)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        return tmp_path / "cache" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_local_file(self, donor, tmp_path, suffix):
        file = tmp_path / f"weights.{suffix}"
        (torch.save if suffix == "pth" else save_file)(donor.state_dict(), file)
        network = build_model("resnet18", weights=str(file))
        own = network.model.state_dict()
        for name, value in donor.state_dict().items():
            assert name in ("conv1.weight", "fc.weight", "fc.bias") or torch.equal(
                own[name], value
            ), name
        assert own["conv1.weight"].shape == (64, 1, 7, 7) and own["fc.weight"].shape == (2, 512)

    def test_cache(self, donor, offline):
        offline.parent.mkdir(parents=True)
        torch.save(donor.state_dict(), offline)
        network = build_model("resnet18")
        assert torch.equal(network.model.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)

    def test_download_into_a_cache(self, donor, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "PAUSE_S", 0.001)
        torch.save(donor.state_dict(), tmp_path / "donor.pth")
        body = (tmp_path / "donor.pth").read_bytes()
        name = f"resnet18-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        with served({name: body, "resnet18-00000000.pth": b"other"}) as web:
            for known in (name, "resnet18-00000000.pth"):
                told = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=web.url + known))
                monkeypatch.setattr(torchvision.models, "ResNet18_Weights", told)
                if known == name:
                    web.cut = {name}
                    network = build_model("resnet18", cache=str(tmp_path / "cache"))
                    continue
                with pytest.raises(ValueError, match="its SHA-256 differs from torchvision's"):
                    build_model("resnet18", cache=str(tmp_path / "cache"))
        assert torch.equal(network.model.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
        assert [file.name for file in (tmp_path / "cache").iterdir()] == [name]

    def test_without_network_and_file(self, offline):
        start = time.perf_counter()
        with pytest.raises(ValueError, match="could not be downloaded") as error:
            build_model("resnet18")
        assert time.perf_counter() - start < 10
        for told in (
            "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            str(offline),
            "pretrained: false",
        ):
            assert told in str(error.value)
        assert not offline.exists() and not list(offline.parent.glob("*"))

    def test_a_server_that_never_answers(self, offline, monkeypatch):
        import socket

        import ecglib.models.resnet18 as module

        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
            with pytest.raises(ValueError, match="could not be downloaded"):
                build_model("resnet18")

    def test_wrong_files_are_refused(self, tmp_path, donor):
        with pytest.raises(ValueError, match=r"weights file .*nowhere.pth does not exist"):
            build_model("resnet18", weights="nowhere.pth")
        (tmp_path / "text.pth").write_text("no weights")
        state = donor.state_dict()
        del state["layer3.0.bn1.weight"]
        torch.save(state, tmp_path / "part.pth")
        for file, reason in (("text.pth", ""), ("part.pth", "layer3.0.bn1.weight")):
            with pytest.raises(
                ValueError,
                match=rf"{file} does not contain torchvision's resnet18 weights .*{reason}",
            ):
                build_model("resnet18", weights=str(tmp_path / file))


def test_sizes_are_those_of_the_networks():
    table = architecture.sizes()
    counts = {
        NETWORKS[name].display_name(OFFLINE.get(name, {})): EXPECTED[name][0] for name in NETWORKS
    }
    assert table.parameters.to_dict() == counts
    operations = {
        NETWORKS[name].display_name(OFFLINE.get(name, {})): flops(ready(name)) / 1e9
        for name in NETWORKS
    }
    assert table["GFLOP per ECG"].to_dict() == operations


def test_fig_3_has_a_skip_connection_beside_each_residual_block():
    figure = architecture.draw({"resnet18": "ResNet-18 (as trained)"})
    # of a residual network 4 stages of 2 blocks
    arrows = [[t.arrowprops for t in axis.texts if not t.get_text()] for axis in figure.axes]
    skips = [sum("connectionstyle" in arrow for arrow in of_one) for of_one in arrows]
    assert skips == [8, 8, 8, 0]
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[0].startswith("A") and titles[2] == "C  ResNet-18\n(as trained)"
    boxes = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert boxes[1] == "conv 1×7: 64×12×200" and boxes[-1] == "fully connected: 2"
    assert sum(text.startswith("2 conv 1×3") for text in boxes) == 8


def test_table_2_stands_beside_the_live_block():
    table = architecture.table_2(build_model("ecg_smart_net"))
    same = table["this package"].str.replace("(1, 2)", "first stride") == table["paper"]
    # the paper leaves out the shortcut's convolution and one ReLU
    assert list(same) == [True, True, False, False, True, True]
