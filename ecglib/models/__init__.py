"""The networks of Table 4: one file each, one registry.

`NETWORKS` is read without importing torch, so that a study file is checked in a moment.
"""

import importlib
import inspect
from dataclasses import dataclass, field
from functools import partial

from ecglib.errors import nearest


@dataclass(frozen=True)
class Entry:
    """A registered model: its display name, the function that builds it, a study's options.

    `options` gives the allowed values of each option, `variants` the display name where an option's
    value makes another model of it.
    `protocol` is part of a run's identity: raise it when a change of code changes the numbers.
    """

    name: str
    builder: str  # "module:function"
    options: dict[str, tuple] = field(default_factory=dict)
    variants: dict[tuple, str] = field(default_factory=dict)  # (option, value) -> display name
    protocol: int = 1

    def display_name(self, options: dict) -> str:
        """Name in tables and figures, as the options make it (for example, a random start)."""
        return next((self.variants[o] for o in options.items() if o in self.variants), self.name)

    def build(self, **options):
        """Build the model; `ValueError` names an unknown option and the nearest known one."""
        module, function = self.builder.split(":")
        builder = getattr(importlib.import_module(module), function)
        known = inspect.signature(builder).parameters
        for option in options:
            if option not in known:
                raise ValueError(f"{self.name} has no option '{option}'{nearest(option, known)}")
        return builder(**options)


NETWORKS = {
    "ecg_smart_net": Entry("ECG-SMART-NET", "ecglib.models.ecg_smart_net:ECGSmartNet"),
    "mayo_alvd": Entry("Mayo Clinic ALVD model", "ecglib.models.mayo_alvd:MayoALVD"),
    "temporal_resnet18": Entry(
        "Temporal ResNet-18", "ecglib.models.temporal_resnet18:TemporalResNet18"
    ),
    "resnet18": Entry(
        "ResNet-18 (pretrained on ImageNet)",
        "ecglib.models.resnet18:ResNet18",
        {"pretrained": (True, False)},
        {("pretrained", False): "ResNet-18 (random start)"},
    ),
}


def build_model(name: str, **options):
    """Build a registered network.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    **options
        Parameters of that network, as in its docstring. Every network takes ``leads`` (default 12);
        weights are drawn from torch's global random state.

    Returns
    -------
    torch.nn.Module
        Its ``forward`` takes float32 ``(batch, 1, leads, samples)`` and returns logits
        ``(batch, 2)``, index 1 = positive.

    Raises
    ------
    ValueError
        If the name or an option is unknown; it names the nearest known one.
    """
    if name not in NETWORKS:
        raise ValueError(f"No network is called '{name}'{nearest(name, NETWORKS)}")
    return NETWORKS[name].build(**options)


def without_download(name: str, options: dict) -> dict:
    """Options that build the same network without fetching the weights that it starts from."""
    return options | ({"pretrained": False} if "pretrained" in NETWORKS[name].options else {})


def check_input(x, leads: int) -> None:
    """Refuse another shape than ``(batch, 1, leads, samples)``: pooling would hide more leads."""
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] != leads:
        raise ValueError(
            f"This network takes (batch, 1, {leads} leads, samples) but got {tuple(x.shape)}"
        )


def layer_table(model, leads: int = 12, samples: int = 400):
    """List a network's layers in the order in which they run, as the paper's Tables 1 and 2.

    Parameters
    ----------
    model : torch.nn.Module
        A network; its mode and weights stay as they are.
    leads, samples : int
        Size of the ECG that is sent through.

    Returns
    -------
    pandas.DataFrame
        ``layer`` (dotted name), ``depth`` (1: top level), ``kind`` (class), ``output`` (dimensions
        without the batch, for example ``64x12x200``), ``kernel_size``, ``stride``, ``padding`` and
        ``parameters`` (with its parts').
    """
    import pandas as pd

    rows, layers = {}, dict(list(model.named_modules())[1:])

    def note(name, layer, inputs, output):
        settings = ("kernel_size", "stride", "padding")
        rows[name] = {
            "layer": name,
            "depth": name.count(".") + 1,
            "kind": type(layer).__name__,
            "output": "x".join(map(str, output.shape[1:])),
            **{setting: str(getattr(layer, setting, "")) for setting in settings},
            "parameters": sum(p.numel() for p in layer.parameters()),
        }

    _run_once(model, leads, samples, note)
    # a stage stands above its parts
    return pd.DataFrame([rows[name] for name in layers if name in rows])


def flops(model, leads: int = 12, samples: int = 400) -> int:
    """Count floating-point operations of one ECG's forward pass (a multiply-add counts as two).

    What convolutions and linear layers do, by PyTorch's own formulas: its `FlopCounterMode` gives
    the same, but starts a compiler for it, which takes seconds.

    Parameters
    ----------
    model : torch.nn.Module
        A network; its mode and weights stay as they are.
    leads, samples : int
        Size of the ECG that is sent through.
    """
    from torch import nn
    from torch.utils.flop_counter import conv_flop_count, mm_flop

    counts = []

    def count(name, layer, inputs, output):
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            counts.append(conv_flop_count(inputs[0].shape, layer.weight.shape, output.shape))
        elif isinstance(layer, nn.Linear):
            counts.append(mm_flop(inputs[0].shape, layer.weight.T.shape))

    _run_once(model, leads, samples, count)
    return sum(counts)


def _run_once(model, leads: int, samples: int, hook) -> None:
    """Send one flat ECG through; each layer calls ``hook(name, layer, inputs, output)``."""
    import torch

    layers = list(model.named_modules())[1:]
    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers]
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, leads, samples, device=next(model.parameters()).device))
    model.train(was_training)
    for handle in handles:
        handle.remove()
