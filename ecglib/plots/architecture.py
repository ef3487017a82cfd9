"""The networks as a table beside the paper's Table 1, and as drawings (Fig. 3)."""

import string
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ecglib import models

PAPER_TABLE_1 = pd.read_csv(Path(__file__).with_name("paper_table_1.csv"), index_col="layer")
"""Layer of the network → name and output dimensions in the paper's Table 1, for an input of
1x12x400.
"""

PAPER_ORDER = ("ecg_smart_net", "temporal_resnet18", "resnet18", "mayo_alvd")
KINDS = {
    "temporal": "#56B4E9",
    "square": "#E69F00",
    "spatial": "#D55E00",
    "dense": "#009E73",
    "pool": "#DDDDDD",
}
"""Colour of each kind of layer (Okabe and Ito 2008)."""


def table_1(network) -> pd.DataFrame:
    """Table 1 of the paper beside the output dimensions of a live ECG-SMART-NET."""
    live = models.layer_table(network).set_index("layer")
    table = PAPER_TABLE_1.assign(**{"this package": live.output})
    for setting in ("kernel_size", "stride", "padding", "parameters"):
        table[setting] = live[setting].reindex(table.index)
    return table


def sizes() -> pd.DataFrame:
    """Parameters of each network, and operations of one ECG's forward pass."""
    rows = {}
    for name, options in _networks().items():
        network = models.build_model(name, **options)
        rows[models.NETWORKS[name].display_name(options)] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "GFLOP per ECG": models.flops(network) / 1e9,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _networks() -> dict[str, dict]:
    """Registered networks and the options that build each without fetching weights."""
    return {name: models.without_download(name, {}) for name in models.NETWORKS}


def draw() -> Figure:
    """Fig. 3: the four networks from input to output, each box a layer with the dimensions it puts
    out.
    """
    names = sorted(_networks(), key=lambda name: (*PAPER_ORDER, name).index(name))
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 7), layout="constrained")
    for axis, letter, name in zip(axes, string.ascii_uppercase, names, strict=False):
        boxes = [("input", "1x12x400", "pool"), *_boxes(name)]
        for place, (told, output, kind) in enumerate(boxes):
            box = {"boxstyle": "round,pad=0.35", "facecolor": KINDS[kind], "edgecolor": "0.3"}
            text = f"{told}\n{output.replace('x', ' × ')}"
            axis.text(0.5, -place, text, ha="center", va="center", fontsize=9, bbox=box)
            if place:
                ends = {"xy": (0.5, -place + 0.33), "xytext": (0.5, -place + 0.62)}
                axis.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "color": "0.3"})
        axis.set(xlim=(0, 1), ylim=(-12, 0.6))
        axis.set_title(
            f"{letter}  {models.NETWORKS[name].name.replace(' (', chr(10) + '(')}", fontsize=10
        )
        axis.set_axis_off()
    words = (
        "temporal convolution (1×k)",
        "square convolution (k×k)",
        "spatial convolution (12×1)",
        "fully connected",
    )
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in list(KINDS.values())[:4]]
    figure.legend(handles, words, loc="outside lower center", ncols=2, frameon=False)
    plt.close(figure)
    return figure


def _boxes(name: str) -> list[tuple[str, str, str]]:
    """Layers of a network worth a box: text, output dimensions, kind."""
    table = models.layer_table(models.build_model(name, **_networks()[name]))
    table["layer"] = table.layer.str.removeprefix("model.")
    table["depth"] = table.layer.str.count(r"\.") + 1
    inner = (
        table[table.kind == "Conv2d"]
        .assign(top=lambda t: t.layer.str.partition(".")[0])
        .groupby("top")
        .kernel_size
    )
    boxes = []
    for row in table[(table.depth == 1) & (table.kind != "ResNet")].itertuples():
        kernels = list(inner.get_group(row.layer)) if row.layer in inner.groups else []
        if kernels:
            size = kernels[0].strip("()").split(", ")
            kind = "temporal" if size[0] == "1" else "spatial" if size[1] == "1" else "square"
            many = kernels.count(kernels[0])  # without the 1×1 of a shortcut
            told = f"{many} conv {size[0]}×{size[1]}" if many > 1 else f"conv {size[0]}×{size[1]}"
            boxes.append((told, row.output, kind))
        elif row.kind == "Linear":
            boxes.append(("fully connected", row.output, "dense"))
        elif "Pool" in row.kind:
            boxes.append(
                ("max-pool" if row.kind == "MaxPool2d" else "average pool", row.output, "pool")
            )
    return boxes
