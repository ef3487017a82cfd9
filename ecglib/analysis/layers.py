"""What a network is made of and costs: its layers, in the order of the paper's Tables 1 and 2."""

import pandas as pd
import torch
from torch import nn


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
    rows = [
        {
            "layer": name,
            "depth": name.count(".") + 1,
            "kind": type(layer).__name__,
            "output": "x".join(map(str, size)),
            **{key: str(getattr(layer, key, "")) for key in ("kernel_size", "stride", "padding")},
            "parameters": sum(p.numel() for p in layer.parameters()),
        }
        for name, layer, size in _outputs(model, leads, samples)
    ]
    return pd.DataFrame(rows)


def flops(model, leads: int = 12, samples: int = 400) -> int:
    """Count floating-point operations of one ECG's forward pass (a multiply-add counts as two).

    Convolutions and linear layers, which use each weight once for each place of their output:
    PyTorch's `FlopCounterMode` gives the same, but starts a compiler for it, which takes seconds.

    Parameters
    ----------
    model : torch.nn.Module
        A network; its mode and weights stay as they are.
    leads, samples : int
        Size of the ECG that is sent through.
    """
    return sum(
        2 * layer.weight.numel() * size[1:].numel()
        for _, layer, size in _outputs(model, leads, samples)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))
    )


def _outputs(model, leads: int, samples: int) -> list[tuple]:
    """Send one flat ECG through: name, layer and dimensions of the output of each layer that runs,
    a stage before its parts.
    """
    sizes, was_training = {}, model.training

    def note(layer, inputs, output):
        sizes[layer] = output.shape[1:]

    hook = nn.modules.module.register_module_forward_hook(note)
    with torch.no_grad(), hook:
        model.eval()(torch.zeros(1, 1, leads, samples, device=next(model.parameters()).device))
    model.train(was_training)
    return [
        (name, layer, sizes[layer])
        for name, layer in model.named_modules()
        if name and layer in sizes
    ]
