"""The ratios as a picture: a panel for each case, a line for each contestant, on a logarithmic scale."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from bench import figures
from bench.report import Document, duration, groups, provenance, ratio, shape_line, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSRAXIS_COLOUR, OTHER_COLOUR, PASS_COLOUR = "#0b6e99", "#c8781e", "#8a8a8a"
COLUMNS = 2
LABEL = 0.36
INCHES = {"width": 13.0, "line": 0.27, "between": 0.85, "head": 1.25, "foot": 1.15}


def draw(document: Document, target: figures.Target) -> None:
    """Write the picture as PNG, and the folder for it.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If no case has a ratio.
    """
    panels = [(case, _timed(records)) for case, records in groups(document)]
    panels = [(case, records) for case, records in panels if records]
    if not panels:
        raise ValueError("there is no ratio to draw: csraxis or every contestant is missing or wrong")
    rows = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    # A row of panels is as high as its longest list, so that lines have the same distance everywhere.
    lines = [max(len(records) for _, records in row) for row in rows]
    heights = [INCHES["line"] * (1 + n) for n in lines]
    height = sum(heights) + INCHES["between"] * (len(rows) - 1) + INCHES["head"] + INCHES["foot"]
    figure = figures.new(INCHES["width"], height)
    top, bottom = 1 - INCHES["head"] / height, INCHES["foot"] / height
    grid = figure.add_gridspec(
        len(rows),
        COLUMNS,
        height_ratios=heights,
        left=0.145,
        right=0.965,
        top=top,
        bottom=bottom,
        wspace=0.42,
        hspace=INCHES["between"] * len(rows) / sum(heights),
    )
    limits = _limits(panels)
    several = len(document["shapes"]) > 1
    for i, row in enumerate(rows):
        for j, (case, records) in enumerate(row):
            axes = figure.add_subplot(grid[i, j])
            title = f"{case['shape']}: {case['what']}" if several else case["what"]
            _panel(axes, title, records, lines[i], case["roofline"], limits)
    _head_and_foot(figure, document, height)
    figures.save(figure, target)


def _timed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with a ratio, the slowest first: a line further up is faster."""
    return sorted((r for r in records if r["ratio_to_csraxis"]), key=lambda r: -r["ratio_to_csraxis"])


def _limits(panels: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> tuple[float, float]:
    ratios = [r["ratio_to_csraxis"] for _, records in panels for r in records]
    quartiles = [r["ratio_to_csraxis"] * r["quartiles"][1] / r["median"] for _, records in panels for r in records]
    # A roofline that is further away than this is not drawn: it would press everything else together.
    floors = [max(r["ratio_to_csraxis"] / r["ratio_to_roofline"], 0.1) for _, records in panels for r in records]
    low, high = 0.8 * min(1.0, *ratios, *floors), max(1.0, *ratios, *quartiles)
    # A label takes up to LABEL of the width, which is logarithmic: log(high) = (1 - LABEL) log(limit) + LABEL log(low).
    return low, (high / low**LABEL) ** (1 / (1 - LABEL))


def _panel(
    axes: Axes, title: str, records: list[dict[str, Any]], lines: int, floor: float, limits: tuple[float, float]
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(len(records) - lines - 0.7, len(records) - 0.3)
    steps = (1, 2, 5) if limits[1] / limits[0] < 3000 else (1,)
    ticks = [n * 10.0**k for k in range(-4, 6) for n in steps if limits[0] <= n * 10.0**k <= limits[1]]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}x"))
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(1, color=CSRAXIS_COLOUR, linewidth=1.2)
    best = min(r["median"] for r in records if r["engine"])
    if floor / best >= limits[0]:
        axes.axvline(floor / best, color=PASS_COLOUR, linewidth=1.2, linestyle=(0, (4, 3)))
    for y, record in enumerate(records):
        value = record["ratio_to_csraxis"]
        colour = CSRAXIS_COLOUR if record["engine"] else OTHER_COLOUR
        axes.plot([1, value], [y, y], color=colour, linewidth=3.5, alpha=0.35, solid_capstyle="butt")
        axes.plot([q / best for q in record["quartiles"]], [y, y], color=colour, linewidth=1.2)
        axes.plot(value, y, "o", color=colour, markersize=7)
        label = f"{ratio(value)}  ({duration(record['median'])}, {share(record['extra_share'])})"
        axes.annotate(
            label,
            (max(1, value, record["quartiles"][1] / best), y),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(records)), [r["contestant"] for r in records], fontsize=9)
    for text, record in zip(axes.get_yticklabels(), records):
        text.set_color(CSRAXIS_COLOUR if record["engine"] else "#222222")
        text.set_fontweight("bold" if record["engine"] else "normal")
    axes.tick_params(axis="x", labelsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", x=-0.12, fontsize=10, fontweight="bold")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _head_and_foot(figure: Any, document: Document, height: float) -> None:
    from matplotlib.lines import Line2D

    shapes = ";  ".join(shape_line(shape) for shape in document["shapes"])
    figure.text(0.02, 1 - 0.33 / height, "Time relative to csraxis: left is faster", fontsize=16, fontweight="bold")
    figure.text(0.02, 1 - 0.60 / height, shapes, fontsize=10.5)
    handles = [
        Line2D([], [], color=CSRAXIS_COLOUR, marker="o", label="csraxis (its faster engine is 1x)"),
        Line2D([], [], color=OTHER_COLOUR, marker="o", label="others"),
        Line2D(
            [],
            [],
            color=PASS_COLOUR,
            linestyle=(0, (4, 3)),
            label="roofline: the least that memory allows",
        ),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.013, 1 - 0.66 / height),
        ncols=3,
        frameon=False,
        fontsize=9.5,
    )
    figure.text(
        0.5,
        0.66 / height,
        "time / time of the fastest csraxis (logarithmic scale; median and quartiles); in brackets the time, and the "
        "memory that it needs above its input, as a share of the matrix",
        ha="center",
        fontsize=10,
    )
    foot = textwrap.fill(provenance(document), 230)
    figure.text(0.02, 0.14 / height, foot, fontsize=8, color="#555555", va="bottom")
