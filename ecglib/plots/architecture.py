"""The networks as tables beside the paper's Tables 1 and 2, and as drawings (Fig. 3)."""

import string
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

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


def table_1(network) -> pd.DataFrame:
    """Table 1 of the paper beside the output dimensions of a live ECG-SMART-NET."""
    live = layers.layer_table(network).set_index("layer")
    table = PAPER_TABLE_1.assign(**{"this package": live.output})
    for setting in ("kernel_size", "stride", "padding", "parameters"):
        table[setting] = live[setting].reindex(table.index)
    return table


def table_2(network, stage: str = "layer2") -> pd.DataFrame:
    """Table 2 of the paper beside one stage of a live ECG-SMART-NET."""
    table, rows = layers.layer_table(network), []
    words = {"BatchNorm2d": "Batch Norm", "ReLU": "ReLU"}
    for row in table[table.layer.str.startswith(f"{stage}.") & (table.depth == 3)].itertuples():
        told = f"Kernel: {row.kernel_size}, Stride: {row.stride}, Padding: {row.padding}"
        if row.kind in words:
            rows[-1].append(words[row.kind])
        elif row.kind == "Conv2d":
            rows.append([told])
        else:
            rows.append(["1×1 convolution, Batch Norm"] if row.parameters else [])
    return PAPER_TABLE_2.assign(**{"this package": [", ".join(row) for row in rows]})


def sizes() -> pd.DataFrame:
    """Parameters of each network, and operations of one ECG's forward pass."""
    rows = {}
    for name, options in _networks().items():
        network = models.build_model(name, **options)
        rows[models.NETWORKS[name].display_name(options)] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "GFLOP per ECG": layers.flops(network) / 1e9,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _networks() -> dict[str, dict]:
    """Registered networks and the options that build each without fetching weights."""
    return {name: models.without_download(name, {}) for name in models.NETWORKS}


def draw(titles: dict[str, str]) -> Figure:
    """Fig. 3: the networks from input to output, each box a layer or a residual block with the
    dimensions it puts out, skip connections beside their blocks.

    `titles`, network → display name, are those of a study, which say from where a network starts.
    """
    names = sorted(_networks(), key=lambda name: (*PAPER_ORDER, name).index(name))
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.6 * len(names), 7.4), layout="constrained"
    )
    for axis, letter, name in zip(axes, string.ascii_uppercase, names, strict=False):
        for place, (told, output, kind) in enumerate(
            [("input", "1x12x400", "pool"), *_boxes(name)]
        ):
            box = {"boxstyle": "round,pad=0.3", "facecolor": KINDS[kind][0], "edgecolor": "0.3"}
            text = f"{told}: {output.replace('x', '×')}"
            axis.text(0.5, -place, text, ha="center", va="center", fontsize=9.5, bbox=box, zorder=3)
            if place:
                _arrow(axis, (0.5, 0.5), (0.73 - place, 0.27 - place))
            if told.startswith("2 conv"):
                above, below = 0.42 - place, -0.44 - place
                axis.plot([0.5, 1, 1], [above, above, below], color="0.3", lw=1)
                _arrow(axis, (1, 0.5), (below, below))
        title = titles.get(name, models.NETWORKS[name].display_name(_networks()[name]))
        axis.set(xlim=(-0.03, 1.03), ylim=(-13.6, 0.5))
        axis.set_title(f"{letter}  {title.replace(' (', chr(10) + '(')}", fontsize=10, loc="left")
        axis.set_axis_off()
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour, _ in KINDS.values()]
    words = [words for _, words in KINDS.values()]
    figure.legend(handles, words, loc="outside lower center", ncols=2, frameon=False)
    plt.close(figure)
    return figure


def _arrow(axis, x, y) -> None:
    arrow = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (x[1], y[1]), (x[0], y[0]), arrowprops=arrow)


def _boxes(name: str) -> list[tuple[str, str, str]]:
    """Layers and residual blocks of a network worth a box: text, output dimensions, kind."""
    table = layers.layer_table(models.build_model(name, **_networks()[name]))
    table["layer"] = table.layer.str.removeprefix("model.")
    boxes, inside = [], ()
    for row in table[table.kind != "ResNet"].itertuples():
        if row.layer.startswith(inside):
            continue
        kernels = table.kernel_size[(table.layer + ".").str.startswith(f"{row.layer}.")]
        kernels = [kernel for kernel in kernels[table.kind == "Conv2d"] if kernel != "(1, 1)"]
        if row.kind == "Linear":
            boxes.append(("fully connected", row.output, "dense"))
        elif "Pool" in row.kind:
            told = "max-pool" if row.kind == "MaxPool2d" else "average pool"
            boxes.append((told, row.output, "pool"))
        elif kernels and (row.kind != "Sequential" or len(kernels) == 1):
            size, inside = kernels[0].strip("()").split(", "), (f"{row.layer}.",)
            kind = "temporal" if size[0] == "1" else "spatial" if size[1] == "1" else "square"
            told = f"{len(kernels)} conv" if len(kernels) > 1 else "conv"
            boxes.append((f"{told} {size[0]}×{size[1]}", row.output, kind))
    return boxes
