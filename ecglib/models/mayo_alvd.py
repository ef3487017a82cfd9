"""The Mayo Clinic's network for asymptomatic left ventricular dysfunction."""

from collections import OrderedDict

from torch import nn

from ecglib.models import check_input

BLOCKS = ((16, 5, 2), (16, 5, 2), (32, 5, 4), (32, 3, 2), (64, 3, 2), (64, 3, 4))
"""Channels, kernel and pool of each temporal block."""


class MayoALVD(nn.Module):
    """Temporal convolutions, then one across the leads, then three fully connected layers [1]_
    (paper, Fig. 3D).

    =============  ==============  =============================================
    layer          output          settings
    =============  ==============  =============================================
    input          1 x 12 x 400
    convblock1     16 x 12 x 200   (1,5), batch norm, ReLU, max-pool 2
    convblock2     16 x 12 x 100   (1,5), batch norm, ReLU, max-pool 2
    convblock3     32 x 12 x 25    (1,5), batch norm, ReLU, max-pool 4
    convblock4     32 x 12 x 12    (1,3), batch norm, ReLU, max-pool 2
    convblock5     64 x 12 x 6     (1,3), batch norm, ReLU, max-pool 2
    convblock6     64 x 12 x 2     (1,3), batch norm, ReLU, max-pool 4
    conv1          64 x 1 x 2      (12,1), batch norm, ReLU
    avgpool        64 x 1 x 1      mean over time
    fc1, fc2, fc3  64, 32, 2       batch norm, ReLU, dropout 0.2 after fc1 and fc2
    =============  ==============  =============================================

    81,938 parameters, PyTorch's default initialisation, all convolutions with bias; the reading of
    the paper's authors' later code.

    Parameters
    ----------
    leads : int
        Leads of the ECG, the height of the spatial kernel. The number of samples is free, from 128
        on.

    Notes
    -----
    The paper counts nine layers; this network has six temporal, one spatial and three fully
    connected ones. Other public re-implementations have 128 spatial filters, no pooling over time
    and dropout 0.5.

    References
    ----------
    .. [1] Z. I. Attia et al., "Screening for cardiac contractile dysfunction using an artificial
    intelligence-enabled
       electrocardiogram", Nature Medicine 25, 2019.
    """

    def __init__(self, leads: int = 12):
        super().__init__()
        self.leads, before = leads, 1
        for number, (channels, kernel, pool) in enumerate(BLOCKS, 1):
            parts = OrderedDict(
                conv=nn.Conv2d(before, channels, (1, kernel), padding="same"),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d((1, pool), padding=(0, pool // 4)),
            )
            setattr(self, f"convblock{number}", nn.Sequential(parts))
            before = channels
        self.conv1 = nn.Conv2d(64, 64, (leads, 1))
        self.bn1 = nn.BatchNorm2d(64)
        self.relu1 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(64, 64)
        self.bn2, self.relu2, self.dropout1 = nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)
        self.fc2 = nn.Linear(64, 32)
        self.bn3, self.relu3, self.dropout2 = nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2)
        self.fc3 = nn.Linear(32, 2)

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``."""
        check_input(x, self.leads)
        for number in range(1, 7):
            x = getattr(self, f"convblock{number}")(x)
        x = self.flatten(self.avgpool(self.relu1(self.bn1(self.conv1(x)))))
        x = self.dropout1(self.relu2(self.bn2(self.fc1(x))))
        x = self.dropout2(self.relu3(self.bn3(self.fc2(x))))
        return self.fc3(x)
