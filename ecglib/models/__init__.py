"""The networks of Table 4: one file each, one registry.

`NETWORKS` is read without importing torch, so that a study file is checked in a moment.
"""

import importlib
import inspect
from dataclasses import dataclass, field

from ecglib.errors import nearest


@dataclass(frozen=True)
class Entry:
    """A registered model: its display name, the function that builds it, a study's options.

    `options` gives the allowed values of each option; `str` among them allows any text, such as a
    path. `variants` gives the display name where an option's value makes another model of it.
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
    "mayo_alvd": Entry(
        "Mayo Clinic ALVD model",
        "ecglib.models.mayo_alvd:MayoALVD",
        {"head": ("pool", "flatten")},
        {("head", "flatten"): "Mayo Clinic ALVD model (flatten head)"},
    ),
    "temporal_resnet18": Entry(
        "Temporal ResNet-18", "ecglib.models.temporal_resnet18:TemporalResNet18"
    ),
    "resnet18": Entry(
        "ResNet-18 (pretrained on ImageNet)",
        "ecglib.models.resnet18:ResNet18",
        {"pretrained": (True, False), "weights": (str,)},
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
        If the name, an option or its value is unknown; it names the nearest known one.
    """
    if name not in NETWORKS:
        raise ValueError(f"No network is called '{name}'{nearest(name, NETWORKS)}")
    return NETWORKS[name].build(**options)


def without_download(name: str, options: dict) -> dict:
    """Options that build the same network without fetching the weights that it starts from."""
    return options | ({"pretrained": False} if "pretrained" in NETWORKS[name].options else {})


def check_input(x, leads: int) -> None:
    """Refuse a batch that is not ``(batch, 1, leads, samples)``: too many leads would pass unseen
    to the pooling.
    """
    if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] != leads:
        raise ValueError(
            f"This network takes (batch, 1, {leads} leads, samples) but got {tuple(x.shape)}"
        )
