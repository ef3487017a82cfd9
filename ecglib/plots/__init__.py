"""Figures and tables: ECG paper, curves, tables."""

from pathlib import Path

from matplotlib.figure import Figure

# Colour-blind safe (Okabe and Ito 2008).
NEUTRAL = "#0072B2"
PAIR = ["#0072B2", "#D55E00"]
TRIO = ["#0072B2", "#009E73", "#D55E00"]


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Save a figure as PNG (200 dpi) and SVG below ``folder/figures``."""
    target = Path(folder) / "figures"
    target.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(target / f"{name}.{kind}", dpi=200, bbox_inches="tight")
