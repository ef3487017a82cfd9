"""ResNet-18 as in torchvision, for one channel and two classes."""

import socket
from pathlib import Path

import torch
import torchvision
from torch import nn

from ecglib.models import check_input

IMAGENET = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
TIMEOUT_S = 5
"""Seconds without an answer after which the download of the ImageNet weights gives up."""


class ResNet18(nn.Module):
    """The image network, whose kernels span leads and time [1]_ (paper, section II.A, Fig. 3C).

    Output sizes for 1 x 12 x 400, behind ``model.``: conv1 64 x 6 x 200, maxpool 64 x 3 x 100,
    layer1 64 x 3 x 100, layer2 128 x 2 x 50, layer3 256 x 1 x 25, layer4 512 x 1 x 13, avgpool 512
    x 1 x 1, fc 2. 11,171,266 parameters. ``conv1`` (1→64) and ``fc`` (512→2) always start afresh,
    with PyTorch's initialisation.

    Parameters
    ----------
    leads : int
        Leads of the ECG; the weights don't depend on it. The number of samples is free.
    pretrained : bool
        Start from torchvision's ImageNet weights (``IMAGENET1K_V1``), as the paper; they are read
        from torch's cache, or downloaded into it. False: torchvision's random start, another model,
        called "ResNet-18 (random start)" in tables.

    Raises
    ------
    ValueError
        If the weights can't be had or don't fit; it says what to do.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR
    2016.
    """

    def __init__(self, leads: int = 12, pretrained: bool = True):
        super().__init__()
        self.leads = leads
        self.model = torchvision.models.resnet18(weights=None)
        if pretrained:
            _load_imagenet(self.model)
        self.model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.model.fc = nn.Linear(512, 2)
        for layer in self.model.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # attribution needs the values before the ReLU

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``."""
        check_input(x, self.leads)
        return self.model(x)


def _load_imagenet(model: nn.Module) -> None:
    """Load the ImageNet weights from torch's cache, after downloading them there if need be."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(IMAGENET.url).name)
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT_S)  # torch.hub sets none and would wait for minutes
        state = IMAGENET.get_state_dict(progress=False, check_hash=True, weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # unpickling alone has a dozen kinds of error
        wrong = f"{file} does not hold them" if file.is_file() else "they could not be downloaded"
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"resnet18 needs torchvision's ImageNet weights, but {wrong} ({reason}); save "
            f"{IMAGENET.url} as {file}, or choose a random start with "
            "`options: {pretrained: false}`"
        ) from None
    finally:
        socket.setdefaulttimeout(before)
