"""The models of Table 4: one file each, one registry.

`REGISTRY` is read without importing torch, so that a study file is checked in a moment.
"""

import importlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """A registered model: its label in tables, its kind, the function that builds it and its options."""

    label: str
    kind: str  # "network" or "tabular"
    builder: str  # "module:function"
    options: dict[str, tuple] = field(default_factory=dict)  # option -> allowed values


REGISTRY = {
    "ecg_smart_net": Entry("ECG-SMART-NET", "network", "ecglib.models.ecg_smart_net:ECGSmartNet"),
    "mayo_alvd": Entry(
        "Mayo Clinic ALVD model", "network", "ecglib.models.mayo_alvd:MayoALVD", {"head": ("pool", "flatten")}
    ),
}


def build_model(name: str, **options):
    """Build a registered model.

    Parameters
    ----------
    name : str
        A key of `REGISTRY`.
    **options
        Options of that model, as in its docstring.

    Raises
    ------
    ValueError
        If the name or an option is unknown; it names the nearest known one.
    """
    from ecglib.params import nearest

    if name not in REGISTRY:
        raise ValueError(f"No model is called '{name}'{nearest(name, REGISTRY)}")
    module, function = REGISTRY[name].builder.split(":")
    return getattr(importlib.import_module(module), function)(**options)
