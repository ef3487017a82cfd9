"""The Mayo Clinic's network for asymptomatic left ventricular dysfunction, in two public
readings.
"""

from collections import OrderedDict

from torch import nn

from ecglib.models import check_input

KERNELS = (5, 5, 5, 3, 3, 3)
CHANNELS = (16, 16, 32, 32, 64, 64)
POOLS = (2, 2, 4, 2, 2, 4)


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
    conv1          64 x 1 x 2      (12,1), batch norm, ReLU (128 with 'flatten')
    avgpool        64 x 1 x 1      mean over time ('flatten': none, 256 values)
    fc1, fc2, fc3  64, 32, 2       batch norm, ReLU, dropout after fc1 and fc2
    =============  ==============  =============================================

    81,938 parameters with 'pool', PyTorch's default initialisation, all convolutions with bias.

    Parameters
    ----------
    leads : int
        Leads of the ECG, the height of the spatial kernel.
    samples : int
        Samples of the ECG; only 'flatten' depends on it, 'pool' takes any number from 128 on.
    head : {'pool', 'flatten'}
        'pool': 64 spatial filters, global average, dropout 0.2, as in the later code of the paper's
        authors. 'flatten': 128 spatial filters, no pooling, dropout 0.5, as in other public
        re-implementations.

    Notes
    -----
    The paper counts nine layers; this network has six temporal, one spatial and three fully
    connected ones.

    References
    ----------
    .. [1] Z. I. Attia et al., "Screening for cardiac contractile dysfunction using an artificial
       intelligence-enabled electrocardiogram", Nature Medicine 25, 2019.
    """

    def __init__(self, leads: int = 12, samples: int = 400, head: str = "pool"):
        super().__init__()
        if head not in ("pool", "flatten"):
            raise ValueError(f"mayo_alvd: head is '{head}' but must be 'pool' or 'flatten'")
        filters, dropout = (64, 0.2) if head == "pool" else (128, 0.5)
        self.leads = leads
        before, width = 1, samples
        for number, (kernel, channels, pool) in enumerate(
            zip(KERNELS, CHANNELS, POOLS, strict=True), 1
        ):
            padding = 1 if pool == 4 else 0
            parts = OrderedDict(
                conv=nn.Conv2d(before, channels, (1, kernel), padding="same"),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d((1, pool), padding=(0, padding)),
            )
            setattr(self, f"convblock{number}", nn.Sequential(parts))
            before, width = channels, (width + 2 * padding - pool) // pool + 1
        self.conv1 = nn.Conv2d(before, filters, (leads, 1))
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu1 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1) if head == "pool" else nn.Identity()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(filters if head == "pool" else filters * width, 64)
        self.bn2, self.relu2, self.dropout1 = nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(dropout)
        self.fc2 = nn.Linear(64, 32)
        self.bn3, self.relu3, self.dropout2 = nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(dropout)
        self.fc3 = nn.Linear(32, 2)

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``, index 1 =
        positive.
        """
        check_input(x, self.leads)
        for number in range(1, len(KERNELS) + 1):
            x = getattr(self, f"convblock{number}")(x)
        x = self.flatten(self.avgpool(self.relu1(self.bn1(self.conv1(x)))))
        x = self.dropout1(self.relu2(self.bn2(self.fc1(x))))
        x = self.dropout2(self.relu3(self.bn3(self.fc2(x))))
        return self.fc3(x)
