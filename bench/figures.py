"""What the pictures share: figures without pyplot (no display, no global state), written to a file or to memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Target = Path | io.BytesIO
OWN, OWN_LIGHT, OTHER, GREY = "#0b6e99", "#5fb0cf", "#c8781e", "#8a8a8a"


def new(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, target: Target) -> None:
    """Write it as PNG, and the folder for it."""
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="png")


def plain(axes: Axes, *sides: str) -> None:
    """No frame at these sides."""
    for side in sides:
        axes.spines[side].set_visible(False)
