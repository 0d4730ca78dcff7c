"""Time and memory of each step of the chain as horizontal bars: a row of panels for each step."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.chain import RECIPE, WHOLE
from bench.report import Document, duration, provenance, shape_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    ("csraxis", "memory"): "#0b6e99",
    ("scanpy", "memory"): "#c8781e",
    ("csraxis", "Dask"): "#7fb8d0",
    ("scanpy", "Dask"): "#e8c08f",
    ("autozyme", "memory"): "#7a5aa6",
}
INCHES = {"width": 13.0, "bar": 0.21, "between": 0.28, "head": 1.35, "foot": 1.0}


def draw(document: Document, path: Path) -> None:
    """Write the picture as PNG, and the folder for it.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If nothing has a time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    done = [record for record in document["records"] if record["median"]]
    if not done:
        raise ValueError("there is no time to draw")
    steps = sorted(dict.fromkeys(record["step"] for record in done), key=(WHOLE, RECIPE).__contains__)
    groups = [[record for record in done if record["step"] == step] for step in steps]
    heights = [INCHES["bar"] * len(group) for group in groups]
    height = sum(heights) + INCHES["between"] * (len(groups) - 1) + INCHES["head"] + INCHES["foot"]
    # A figure without pyplot: no display, and no global state to leave behind.
    figure = Figure(figsize=(INCHES["width"], height), dpi=130)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(groups),
        2,
        height_ratios=heights,
        left=0.16,
        right=0.985,
        top=1 - INCHES["head"] / height,
        bottom=INCHES["foot"] / height,
        wspace=0.08,
        hspace=INCHES["between"] * len(groups) / sum(heights),
    )
    # The recipe is drawn to the scale of the whole chain.
    ends = [record for record in done if record["step"] in (WHOLE, RECIPE)]
    for i, (step, group) in enumerate(zip(steps, groups)):
        time, memory = (figure.add_subplot(grid[i, j]) for j in range(2))
        scale = ends if group[0] in ends else group
        _panel(time, group, scale, "median", lambda record: duration(record["median"]) + _passes(record))
        _panel(memory, group, scale, "extra_median", lambda record: _size(record["extra_median"]))
        time.text(
            -0.02,
            0.5,
            step,
            transform=time.transAxes,
            ha="right",
            va="center",
            fontsize=10.5,
            fontweight="bold" if step in (WHOLE, RECIPE) else "normal",
        )
    _head_and_foot(figure, document, done, height)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(
    axes: Axes, group: list[dict[str, Any]], scale: list[dict[str, Any]], key: str, label: Callable[[dict], str]
) -> None:
    """One bar for each contestant, from zero, to the scale of the longest; with room for the labels."""
    values = [record[key] or 0 for record in group]
    most = max(record[key] or 0 for record in scale) or 1
    axes.set_xlim(0, 1.45 * most)
    axes.set_ylim(len(group) - 0.45, -0.55)
    for y, (value, record) in enumerate(zip(values, group)):
        axes.barh(y, value, height=0.78, color=COLOURS[record["package"], record["on"]])
        if key == "median" and len(record["seconds"]) > 1:
            axes.plot(record["quartiles"], [y, y], color="#333333", linewidth=1)
        end = max(value, *record["quartiles"]) if key == "median" else value
        axes.annotate(label(record), (end, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color("#999999")


def _passes(record: dict[str, Any]) -> str:
    if record["passes"] is None:
        return ""
    return f"  ({record['passes']:.3g} {'pass' if record['passes'] == 1 else 'passes'})"


def _size(count: float | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _head_and_foot(figure: Any, document: Document, done: list[dict[str, Any]], height: float) -> None:
    from matplotlib.patches import Patch

    plan = document["settings"]["plan"]
    what = f"{plan['n_top_genes']:,} variable genes ({plan['flavor']}), {plan['n_comps']} components"
    shape = ";  ".join(shape_line(shape) for shape in document["shapes"])
    figure.text(
        0.015, 1 - 0.33 / height, "From counts to principal components, step by step", fontsize=16, fontweight="bold"
    )
    figure.text(0.015, 1 - 0.60 / height, f"{shape};  {what}", fontsize=10.5)
    names = {record["contestant"]: COLOURS[record["package"], record["on"]] for record in done}
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in names.items()],
        loc="upper left",
        bbox_to_anchor=(0.008, 1 - 0.66 / height),
        ncols=4,
        frameon=False,
        fontsize=9.5,
    )
    for x, text in ((0.16, "time"), (0.592, "memory, at most, above that at the start of the step")):
        figure.text(x, 1 - 1.22 / height, text, fontsize=10.5, color="#333333", style="italic")
    figure.text(
        0.015,
        0.72 / height,
        "Shorter is better. Each row has its own scale, the last two share one. In brackets, on Dask: how often X was "
        "read.\nDask: in each step what it makes of X is computed and kept; in the whole chain, only what the scores "
        "need.",
        fontsize=9,
        va="center",
    )
    foot = textwrap.fill(provenance(document), 230)
    figure.text(0.015, 0.14 / height, foot, fontsize=8, color="#555555", va="bottom")
