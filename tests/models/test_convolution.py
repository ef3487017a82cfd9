"""Weight gradients as matrix products: the same numbers as PyTorch's own, whatever the layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecglib import models
from ecglib.models.convolution import quicken

SMALL = st.integers(1, 4)


@settings(max_examples=60, deadline=None)
@given(SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, st.booleans(), st.integers(0, 99))
def test_gradients_are_pytorchs(batch, channels, filters, rows, columns, down, right, last, seed):
    torch.manual_seed(seed)
    padding = (rows // 2, columns // 2)
    layer = torch.nn.Conv2d(
        channels, filters, (rows, columns), (down, right), padding, bias=False
    ).double()
    x = torch.randn(batch, channels, 6, 11, dtype=torch.float64)
    x = x.contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    ).requires_grad_()
    wanted = layer(x)
    gradient = torch.randn_like(wanted)
    parts = torch.autograd.grad(wanted, (x, layer.weight), gradient)
    found = quicken(layer)(x)
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, layer.weight), gradient), parts, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd"])
def test_a_whole_network_learns_the_same(name):
    gradients = []
    for change in (lambda network: network, quicken):
        torch.manual_seed(0)
        network = change(
            models.build_model(name, **({"pretrained": False} if name == "resnet18" else {}))
        )
        x = torch.randn(3, 1, 12, 400)
        torch.manual_seed(1)  # of dropout
        network(x).square().sum().backward()
        gradients.append({key: weight.grad for key, weight in network.named_parameters()})
        names = list(network.state_dict())
    assert names == list(
        models.build_model(
            name, **({"pretrained": False} if name == "resnet18" else {})
        ).state_dict()
    )
    plain, quick = gradients
    scale = max(g.abs().max() for g in plain.values())
    for key in plain:
        torch.testing.assert_close(
            quick[key], plain[key], rtol=1e-3, atol=1e-5 * float(scale), msg=key
        )


def test_layers_of_another_kind_are_left_alone():
    kinds = {
        "bias": True,
        "groups": 2,
        "dilation": 2,
        "padding": "same",
        "padding_mode": "circular",
    }
    for key, value in kinds.items():
        layer = torch.nn.Conv2d(2, 2, 3, **({"bias": False, "padding": 1} | {key: value}))
        assert "forward" not in vars(quicken(layer)), key
