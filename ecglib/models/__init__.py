"""The models of Table 4: one file each, one registry.

`REGISTRY` is read without importing torch, so that a study file is checked in a moment.
"""

import importlib
import inspect
from dataclasses import dataclass, field
from functools import partial


@dataclass(frozen=True)
class Entry:
    """A registered model: its label in tables, its kind, the function that builds it and a study's
    options.

    `options` gives the allowed values of each option; `str` among them allows any text, such as a
    path. `variants` gives the label where an option's value makes another model of it.
    """

    label: str
    kind: str  # "network" or "tabular"
    builder: str  # "module:function"
    options: dict[str, tuple] = field(default_factory=dict)
    variants: dict[tuple, str] = field(default_factory=dict)  # (option, value) -> label


REGISTRY = {
    "ecg_smart_net": Entry("ECG-SMART-NET", "network", "ecglib.models.ecg_smart_net:ECGSmartNet"),
    "mayo_alvd": Entry(
        "Mayo Clinic ALVD model",
        "network",
        "ecglib.models.mayo_alvd:MayoALVD",
        {"head": ("pool", "flatten")},
        {("head", "flatten"): "Mayo Clinic ALVD model (flatten head)"},
    ),
    "temporal_resnet18": Entry(
        "Temporal ResNet-18", "network", "ecglib.models.temporal_resnet18:TemporalResNet18"
    ),
    "resnet18": Entry(
        "ResNet-18 (pretrained on ImageNet)",
        "network",
        "ecglib.models.resnet18:ResNet18",
        {"pretrained": (True, False), "weights": (str,)},
        {("pretrained", False): "ResNet-18 (random start)"},
    ),
    "random_forest": Entry(
        "Random Forest",
        "tabular",
        "ecglib.trees.forest:random_forest",
        {"setting": ("nature_medicine_2023", "ecg_smart_2024")},
        {("setting", "ecg_smart_2024"): "Random Forest (2024 setting)"},
    ),
    "gradient_boosting": Entry(
        "Gradient boosting (not in the paper)", "tabular", "ecglib.trees.forest:gradient_boosting"
    ),
}


def label(name: str, options: dict | None = None) -> str:
    """Return a model's name in tables and figures, as its options make it (for example, a random
    start).
    """
    entry = REGISTRY[name]
    return next(
        (entry.variants[item] for item in (options or {}).items() if item in entry.variants),
        entry.label,
    )


def build_model(name: str, **options):
    """Build a registered model.

    Parameters
    ----------
    name : str
        A key of `REGISTRY`.
    **options
        Parameters of that model, as in its docstring. Every network takes ``leads`` (default 12);
        weights are drawn from torch's global random state.

    Returns
    -------
    torch.nn.Module or estimator
        A network's ``forward`` takes float32 ``(batch, 1, leads, samples)`` and returns logits
        ``(batch, 2)``, index 1 = positive.

    Raises
    ------
    ValueError
        If the name, an option or its value is unknown; it names the nearest known one.
    """
    from ecglib.errors import nearest  # params reads REGISTRY

    if name not in REGISTRY:
        raise ValueError(f"No model is called '{name}'{nearest(name, REGISTRY)}")
    module, function = REGISTRY[name].builder.split(":")
    builder = getattr(importlib.import_module(module), function)
    known = inspect.signature(builder).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option '{option}'{nearest(option, known)}")
    return builder(**options)


def check_input(x, leads: int) -> None:
    """Refuse a batch that is not ``(batch, 1, leads, samples)``: too many leads would pass unseen
    to the pooling.
    """
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] != leads:
        raise ValueError(
            f"This network takes (batch, 1, {leads} leads, samples) but got {tuple(x.shape)}"
        )


def layer_table(model, leads: int = 12, samples: int = 400):
    """List a network's layers in the order in which they run, for comparison with the paper's
    Tables 1 and 2.

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

    outputs, layers = {}, dict(list(model.named_modules())[1:])

    def note(name, layer, inputs, output):
        outputs[name] = "x".join(map(str, output.shape[1:]))

    _run_once(model, leads, samples, note)
    # a stage stands above its parts
    table = pd.DataFrame({"layer": [name for name in layers if name in outputs]})
    table["depth"] = table.layer.str.count(r"\.") + 1
    table["kind"] = [type(layers[name]).__name__ for name in table.layer]
    table["output"] = table.layer.map(outputs)
    for setting in ("kernel_size", "stride", "padding"):
        table[setting] = [str(getattr(layers[name], setting, "")) for name in table.layer]
    table["parameters"] = [
        sum(p.numel() for p in layers[name].parameters()) for name in table.layer
    ]
    return table


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
