"""A published checkpoint of the paper's group as the folder of a run, which `explain` takes.

    python -m ecglib.study weights ecgsmartnet_omi_2025-04-12-16-40-29.pt

Such a file is a whole pickled module, and a pickle can call whatever it names. So it is opened in a
process of its own, by PyTorch's unpickler of weights: it knows tensors, containers and, told here,
the names of this network's classes, each of which becomes an empty `Part`. Nothing is imported for
the file, nothing of it is called, and what that process hands back is safetensors.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ecglib.folders import partial, replace, sha256, write_json
from ecglib.models import build_model
from ecglib.study import places
from ecglib.study.machine import environment
from ecglib.study.params import StudyError
from ecglib.study.places import WEIGHTS

CLASSES = [
    "ecg_models.ECGSMARTNET",
    "ecg_models.ResidualBlock2D",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.pooling.AdaptiveAvgPool2d",
    "torch.nn.modules.pooling.MaxPool2d",
]
MEANING = "occlusion MI by angiography, labelled by the network's authors"


class Part:
    """What stands for a module of the file; has no code."""


def convert(file: str | Path) -> Path:
    """Make a run folder, ``outputs/weights/<name of the file>``, of a checkpoint.

    Parameters
    ----------
    file : path
        A pickled ``ecg_models.ECGSMARTNET``, or a state dict with its 128 names.

    Returns
    -------
    Path
        With weights and ``run.json``. It holds no predictions: nothing there tells how to calibrate
        the network. Its label is angiographic OMI if the file's name says ``omi``, else unknown.

    Raises
    ------
    StudyError
        If the file names anything but tensors, containers and parts of this network, is damaged, or
        holds another network.
    """
    file = places.find(file)
    if not file.is_file():
        raise StudyError(f"{file}: no such file; name a checkpoint with FILE=")
    places.check_writable()
    tensors, omi = _tensors_of(file), "omi" in file.stem.lower()
    final = places.OUTPUTS / "weights" / file.stem
    folder = partial(final)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS)
    # what the group's later code shows its networks
    identity = {"training": {"normalisation": "lead_max", "samples": 200}}
    told = {
        "study": "ecg-smart",
        "identity": {"network": "ecg_smart_net", "options": {}} | identity,
        "label": "ECG-SMART-NET (its authors' weights)",
        "label_kind": "angiographic" if omi else None,
        "label_meaning": MEANING if omi else None,
        "source": {"file": file.name, "sha256": sha256(file)},
        "environment": environment(),
        "files": {WEIGHTS: sha256(folder / WEIGHTS)},
    }
    write_json(folder / "run.json", told)
    replace(folder, final)
    return final


def _tensors_of(file: Path) -> dict:
    """Tensors of a checkpoint, as another process read them, by their names in our network."""
    with tempfile.TemporaryDirectory() as aside:
        words = [sys.executable, "-m", __name__, str(file), f"{aside}/{WEIGHTS}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            told = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StudyError(f"{file.name} is not used: {told}")
        ours, theirs = build_model("ecg_smart_net").state_dict(), load_file(words[-1])
    for name in sorted({*ours, *theirs}):
        here, there = (list(of[name].shape) if name in of else None for of in (ours, theirs))
        if here != there:
            raise StudyError(
                f"{file.name} is not used: it isn't an ECG-SMART-NET ({name} has the shape "
                f"{there} there and {here} here)"
            )
    return theirs


def _open(file: str, weights: str) -> str:
    """Write a checkpoint's tensors as safetensors; returns what is wrong, in words."""
    try:
        with torch.serialization.safe_globals([(Part, name) for name in CLASSES]):
            held = torch.load(file, map_location="cpu", weights_only=True)
        save_file(dict(_tensors(held)) if isinstance(held, Part) else held, weights)
    except Exception as error:  # of torch, pickle and zip, for a file that may hold anything
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            return f"it names {named[1]}, which is not part of an ECG-SMART-NET; none of it ran"
        return f"it is not a checkpoint of a network ({type(error).__name__})"
    return ""


def _tensors(part: Part, prefix: str = ""):
    """Yield names and tensors of a module, as in its state dict."""
    for name, tensor in (part._parameters | part._buffers).items():
        if tensor is not None:  # a convolution without bias
            yield prefix + name, tensor.detach().contiguous()
    for name, inner in part._modules.items():
        yield from _tensors(inner, f"{prefix}{name}.")


if __name__ == "__main__":
    sys.exit(_open(*sys.argv[1:]) or 0)
