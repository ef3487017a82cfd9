"""Figures and tables: ECG paper, curves, tables."""

from pathlib import Path

from matplotlib.figure import Figure

# Colour-blind safe (Okabe and Ito 2008).
NEUTRAL = "#0072B2"
PAIR = ["#0072B2", "#D55E00"]
SIX = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
DPI = 200  # of saved figures


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Save a figure as PNG (200 dpi) and SVG below ``folder/figures``."""
    target = Path(folder) / "figures"
    target.mkdir(parents=True, exist_ok=True)
    shown_at = figure.dpi
    figure.set_dpi(DPI)  # a text's width depends on it
    lay_out(figure)
    # inches; "tight" would draw the figure once more for each file
    cut = figure.get_tightbbox().padded(0.1)
    figure.set_dpi(shown_at)
    for kind in ("png", "svg"):
        figure.savefig(target / f"{name}.{kind}", dpi=DPI, bbox_inches=cut)


def lay_out(figure: Figure) -> None:
    """Lay a figure out once; else each file it is saved to, and the notebook that shows it, would
    do it again.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
