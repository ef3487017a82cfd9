"""Temporal ResNet-18, and the trunk that it shares with ECG-SMART-NET."""

from torch import nn

from ecglib.models import check_input


class TemporalBlock(nn.Module):
    """A basic residual block whose kernels run along time only (paper, Table 2; half of one of its
    columns).

    Parameters
    ----------
    channels_in, channels : int
        Channels before and after the block.
    stride : int
        Stride in time of the first convolution.

    Notes
    -----
    Where the shape changes, the shortcut is a strided (1,1) convolution with batch norm, as in
    ResNet (He et al. 2016); Table 2 leaves it out. Each ReLU is a module of its own and not in
    place, because attribution methods hook them.
    """

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, (1, 3), (1, stride), (0, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, (1, 3), 1, (0, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut.append(nn.Conv2d(channels_in, channels, 1, (1, stride), bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU()

    def forward(self, x):
        """Map ``(batch, channels_in, leads, samples)`` to ``(batch, channels, leads, samples /
        stride)``.
        """
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + self.shortcut(x))


class TemporalTrunk(nn.Module):
    """ResNet-18's stem and four stages with every kernel (1, k): features of each lead by itself
    (paper, Table 1).
    """

    def __init__(self, leads: int):
        super().__init__()
        self.leads = leads
        self.conv1 = nn.Conv2d(1, 64, (1, 7), (1, 2), (0, 3), bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu1 = nn.ReLU()
        self.maxpool = nn.MaxPool2d((1, 3), (1, 2), (0, 1))
        for stage, (before, channels, stride) in enumerate(
            ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)), 1
        ):
            blocks = TemporalBlock(before, channels, stride), TemporalBlock(channels, channels, 1)
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def features(self, x):
        """Map ``(batch, 1, leads, samples)`` to ``(batch, 512, leads, ceil(samples / 32))``."""
        check_input(x, self.leads)
        x = self.maxpool(self.relu1(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class TemporalResNet18(TemporalTrunk):
    """ResNet-18 with (1, k) kernels: ECG-SMART-NET without its spatial convolution (paper, section
    II.A, Fig. 3B).

    The layers are those of `ecglib.models.ecg_smart_net.ECGSmartNet` up to layer4 (512 x 12 x 13);
    then avgpool (mean over leads and time, 512 x 1 x 1) and fc (2, with bias). 3,844,930
    parameters, PyTorch's default initialisation.

    Parameters
    ----------
    leads : int
        Leads of the ECG; the weights don't depend on it. The number of samples is free.
    """

    def __init__(self, leads: int = 12):
        super().__init__(leads)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(512, 2)

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``."""
        return self.fc(self.flatten(self.avgpool(self.features(x))))
