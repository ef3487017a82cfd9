"""The networks as tables beside the paper's Tables 1 and 2, and as drawings (Fig. 3)."""

import string
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ecglib import models
from ecglib.analysis import layers

PAPER_TABLE_1 = pd.read_csv(Path(__file__).with_name("paper_table_1.csv"), index_col="layer")
"""Layer of the network → name and output dimensions in the paper's Table 1, for an input of
1x12x400.
"""

PAPER_TABLE_2 = pd.read_csv(Path(__file__).with_name("paper_table_2.csv"), index_col="layer")
"""Layers of a residual block of the paper's Table 2, two basic blocks one after the other."""

PAPER_ORDER = ("ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd")
KINDS = {
    "temporal": ("#56B4E9", "temporal convolution (1×k)"),
    "square": ("#E69F00", "square convolution (k×k)"),
    "spatial": ("#D55E00", "spatial convolution (12×1)"),
    "dense": ("#009E73", "fully connected"),
    "pool": ("#DDDDDD", "input, pooling"),
    "skip": ("#4D4D4D", "skip connection (1×1 convolution where the shape changes)"),
}
"""Colour (Okabe and Ito 2008) and name of each kind of layer."""

BOXES = {
    "Linear": ("fully connected", "dense"),
    "MaxPool2d": ("max-pool", "pool"),
    "AdaptiveAvgPool2d": ("average pool", "pool"),
}


def table_1(network) -> pd.DataFrame:
    """Table 1 of the paper beside the output dimensions of a live ECG-SMART-NET."""
    live = layers.layer_table(network).set_index("layer")
    settings = live[["kernel_size", "stride", "padding", "parameters"]]
    return PAPER_TABLE_1.assign(**{"this package": live.output}).join(settings)


def table_2(network, stage: str = "layer2") -> pd.DataFrame:
    """Table 2 of the paper beside one stage of a live ECG-SMART-NET."""
    table, rows = layers.layer_table(network), []
    for row in table[table.layer.str.startswith(f"{stage}.") & (table.depth == 3)].itertuples():
        if row.kind in ("BatchNorm2d", "ReLU"):
            rows[-1].append(row.kind.replace("BatchNorm2d", "Batch Norm"))
        elif row.kind == "Conv2d":
            told = f"Kernel: {row.kernel_size}, Stride: {row.stride}, Padding: {row.padding}"
            rows.append([told])
        else:
            rows.append(["1×1 convolution, Batch Norm"] if row.parameters else [])
    return PAPER_TABLE_2.assign(**{"this package": [", ".join(row) for row in rows]})


def sizes() -> pd.DataFrame:
    """Parameters of each network, and operations of one ECG's forward pass."""
    rows = {}
    for name, entry in models.NETWORKS.items():
        network = _network(name)
        count = sum(p.numel() for p in network.parameters())
        display_name = entry.display_name(models.without_download(name, {}))
        rows[display_name] = count, layers.flops(network) / 1e9
    return pd.DataFrame.from_dict(rows, "index", columns=["parameters", "GFLOP per ECG"])


def _network(name: str):
    """Build a network without fetching the weights that it may start from."""
    return models.build_model(name, **models.without_download(name, {}))


def draw(titles: dict[str, str]) -> Figure:
    """Fig. 3: the networks from input to output, each box a layer or a residual block with the
    dimensions it puts out, skip connections beside their blocks.

    `titles`, network → display name, are those of a study, which say from where a network starts.
    """
    names = sorted(models.NETWORKS, key=lambda name: (*PAPER_ORDER, name).index(name))
    size = {"figsize": (2.6 * len(names), 7.4), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(names), **size)
    arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    around = arrow | {"connectionstyle": "bar,fraction=-3.2"}
    for axis, letter, name in zip(axes, string.ascii_uppercase, names, strict=False):
        for place, (told, kind) in enumerate([("input: 1×12×400", "pool"), *_boxes(name)]):
            box = {"boxstyle": "round,pad=0.3", "facecolor": KINDS[kind][0], "edgecolor": "0.3"}
            axis.text(0.5, -place, told, ha="center", va="center", fontsize=9.5, bbox=box, zorder=3)
            if place:
                axis.annotate("", (0.5, 0.27 - place), (0.5, 0.73 - place), arrowprops=arrow)
            if told.startswith("2 conv"):
                axis.annotate("", (0.5, -0.44 - place), (0.5, 0.42 - place), arrowprops=around)
        title = titles.get(name, models.NETWORKS[name].name).replace(" (", "\n(")
        axis.set(xlim=(-0.03, 1.03), ylim=(-13.6, 0.5))
        axis.set_title(f"{letter}  {title}", fontsize=10, loc="left")
        axis.set_axis_off()
    handles = [Patch(color=colour, label=words) for colour, words in KINDS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    plt.close(figure)
    return figure


def _boxes(name: str):
    """Layers and residual blocks of a network worth a box: text with output dimensions, kind."""
    table = layers.layer_table(_network(name))
    table["layer"] = table.layer.str.removeprefix("model.")
    kernels = table[table.kind == "Conv2d"].set_index("layer").kernel_size
    # of a residual network the blocks, else the layers on top
    for row in table[table.layer.str.fullmatch(r"layer\d\.\d|(?!layer|model)\w+")].itertuples():
        inside = kernels[kernels.index.str.startswith(row.layer)]
        told, kind = BOXES.get(row.kind, ("", ""))
        if len(inside):
            high, wide = inside.iloc[0].strip("()").split(", ")
            kind = "temporal" if high == "1" else "spatial" if wide == "1" else "square"
            told = f"{'2 conv' if '.' in row.layer else 'conv'} {high}×{wide}"
        if told:
            yield f"{told}: {row.output.replace('x', '×')}", kind
