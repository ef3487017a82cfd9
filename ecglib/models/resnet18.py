"""ResNet-18 as in torchvision, for one channel and two classes."""

from pathlib import Path

import torch
import torchvision
from torch import nn

from ecglib.download import DownloadError, Wanted, download
from ecglib.models import check_input

TIMEOUT_S = 5.0
"""Seconds without an answer after which the download of the ImageNet weights gives up."""


class ResNet18(nn.Module):
    """The image network, with kernels that span leads and time, as a baseline (paper, section II.A,
    Fig. 3C) [1]_.

    Output sizes for 1 x 12 x 400, behind ``model.``: conv1 64 x 6 x 200, maxpool 64 x 3 x 100,
    layer1 64 x 3 x 100, layer2 128 x 2 x 50, layer3 256 x 1 x 25, layer4 512 x 1 x 13, avgpool 512
    x 1 x 1, fc 2. 11,171,266 parameters. ``conv1`` (1→64) and ``fc`` (512→2) always start afresh,
    with PyTorch's initialisation.

    Parameters
    ----------
    leads : int
        Leads of the ECG; the weights don't depend on it. The number of samples is free.
    pretrained : bool
        Start from torchvision's ImageNet weights (``IMAGENET1K_V1``), as the paper. False:
        torchvision's random start, another model, called "ResNet-18 (random start)" in tables.
    weights : str
        File with these weights (``.pth`` or ``.safetensors``, torchvision's names), an absolute
        path. Empty: `cache` is looked up, then the file is downloaded into it.
    cache : str
        Folder of downloaded weights, an absolute path. Empty: torch's own.

    Raises
    ------
    ValueError
        If the weights can't be had or don't fit; it says what to do.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR
       2016.
    """

    def __init__(
        self, leads: int = 12, pretrained: bool = True, weights: str = "", cache: str = ""
    ):
        super().__init__()
        self.leads = leads
        self.model = torchvision.models.resnet18(weights=None)
        if pretrained:
            _load(self.model, Path(weights) if weights else _cached_or_downloaded(cache))
        self.model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.model.fc = nn.Linear(512, 2)
        for layer in self.model.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # attribution needs the values before the ReLU

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``, index 1 =
        positive.
        """
        check_input(x, self.leads)
        return self.model(x)


def _cached_or_downloaded(cache: str) -> Path:
    """Return the ImageNet weights' file in the cache, after downloading it there if need be."""
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    file = Path(cache or Path(torch.hub.get_dir()) / "checkpoints") / url.rsplit("/", 1)[1]
    if not file.exists():
        # torchvision's names end with the start of the file's SHA-256
        wanted = Wanted(url, file, f"sha256:{file.stem.rsplit('-', 1)[1]}")
        try:
            download([wanted], "torchvision", tries=3, timeout_s=TIMEOUT_S)
        except DownloadError as error:
            raise ValueError(
                "resnet18: the ImageNet weights could not be downloaded "
                f"({error.problem}); save {url} as {file}, or name the file with "
                "`options: {weights: path}`, or choose a random start with "
                "`options: {pretrained: false}`"
            ) from None
    return file


def _load(model: nn.Module, file: Path) -> None:
    """Load all but conv1 and fc, which start afresh, from a file with torchvision's names."""
    if not file.is_file():
        raise ValueError(
            f"resnet18: the weights file {file} does not exist; check `options: {{weights: path}}`"
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        own = model.state_dict()
        fresh = {name: own[name] for name in ("conv1.weight", "fc.weight", "fc.bias")}
        model.load_state_dict({**state, **fresh})
    except Exception as error:  # unpickling alone has a dozen kinds of error
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"resnet18: {file} does not contain torchvision's resnet18 weights ({reason})"
        ) from None
