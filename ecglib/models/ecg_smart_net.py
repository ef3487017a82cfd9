"""ECG-SMART-NET, the paper's network."""

from torch import nn

from ecglib.models.temporal_resnet18 import TemporalTrunk


class ECGSmartNet(TemporalTrunk):
    """Residual temporal features of each lead, then one convolution across the leads [1]_ (Tables 1
    and 2, Fig. 3A).

    ============  ==============  ==========================================
    layer         output          settings
    ============  ==============  ==========================================
    input         1 x 12 x 400
    conv1         64 x 12 x 200   (1,7), stride (1,2), batch norm, ReLU
    maxpool       64 x 12 x 100   (1,3), stride (1,2)
    layer1        64 x 12 x 100   two residual blocks, stride 1
    layer2        128 x 12 x 50   two residual blocks, first stride (1,2)
    layer3        256 x 12 x 25   two residual blocks, first stride (1,2)
    layer4        512 x 12 x 13   two residual blocks, first stride (1,2)
    conv2         512 x 1 x 13    (12,1), batch norm, ReLU
    avgpool       512 x 1 x 1     mean over time
    fc            2               with bias
    ============  ==============  ==========================================

    6,991,682 parameters, PyTorch's default initialisation. Its 19 layers are conv1, 16 convolutions
    in residual blocks, conv2 and fc. Names and order of the state dict are those of the authors'
    published checkpoints.

    Parameters
    ----------
    leads : int
        Leads of the ECG, the height of the spatial kernel. The number of samples is free.

    Notes
    -----
    The batch norm and ReLU after conv2, and the (1,1) convolutions of the shortcuts, are in the
    authors' code but not in Tables 1 and 2. That code also knows a dropout on the logits, off by
    default and left out here.

    References
    ----------
    .. [1] N. T. Riek et al., "ECG-SMART-NET: A Deep Learning Architecture for Precise ECG Diagnosis
       of Occlusion Myocardial Infarction", arXiv:2405.09567v1, 2024.
    """

    def __init__(self, leads: int = 12):
        super().__init__(leads)
        self.conv2 = nn.Conv2d(512, 512, (leads, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(512)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(512, 2)

    def forward(self, x):
        """Map float32 ``(batch, 1, leads, samples)`` to logits ``(batch, 2)``."""
        x = self.relu2(self.bn2(self.conv2(self.features(x))))
        return self.fc(self.flatten(self.avgpool(x)))
