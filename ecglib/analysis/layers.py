"""What a network is made of and costs: its layers, in the order of the paper's Tables 1 and 2."""

from functools import partial

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import conv_flop_count, mm_flop


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
    layers = list(model.named_modules())[1:]
    handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers]
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, leads, samples, device=next(model.parameters()).device))
    model.train(was_training)
    for handle in handles:
        handle.remove()
