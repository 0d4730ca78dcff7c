"""The sweep as a picture: cost of a stored value against their number, and against threads; a panel for each case."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from bench import figures
from bench.report import Document, provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "csraxis[cython]": figures.OWN,
    "csraxis[numba]": figures.OWN_LIGHT,
    "scipy": figures.OTHER,
    "fast-array-utils": "#7a5aa6",
    "scanpy": "#4f8a3d",
}
OTHERS = ("#a33b3b", "#8a8a8a", "#b59a00")
INCHES = {"panel": 3.0, "height": 2.7, "head": 1.35, "foot": 0.95, "between": 0.85}


def draw(found: dict[str, Any], target: figures.Target, document: Document) -> None:
    """Write the picture as PNG, and the folder for it.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    names = list(found["cases"])
    width = max(INCHES["panel"] * len(names) + 1.0, 10.0)
    height = 2 * INCHES["height"] + INCHES["head"] + INCHES["between"] + INCHES["foot"]
    figure = figures.new(width, height)
    grid = figure.add_gridspec(
        2,
        len(names),
        left=0.75 / width,
        right=1 - 0.2 / width,
        top=1 - INCHES["head"] / height,
        bottom=INCHES["foot"] / height,
        wspace=0.28,
        hspace=INCHES["between"] / INCHES["height"],
    )
    colours = _colours(found)
    for j, name in enumerate(names):
        by_size, by_threads = (figure.add_subplot(grid[i, j]) for i in range(2))
        _panel(by_size, [r for r in found["records"] if r["case"] == name], "values", colours)
        _panel(by_threads, [r for r in found["threads"] if r["case"] == name], "threads", colours)
        by_size.set_xscale("log")
        by_size.set_yscale("log")
        by_size.set_title(textwrap.fill(found["cases"][name], 34), fontsize=10, fontweight="bold")
        by_size.set_xlabel("stored values", fontsize=9)
        by_threads.set_xlabel("threads", fontsize=9)
        by_threads.set_ylim(bottom=0)
        by_threads.set_xticks(sorted({r["threads"] for r in found["threads"]}))
        if not j:
            by_size.set_ylabel("ns a stored value", fontsize=9)
            by_threads.set_ylabel("ns a stored value", fontsize=9)
    _head_and_foot(figure, found, colours, document, height)
    figures.save(figure, target)


def _colours(found: dict[str, Any]) -> dict[str, str]:
    names = dict.fromkeys(r["contestant"] for r in found["records"])
    others = iter(OTHERS * len(names))
    return {name: COLOURS.get(name) or next(others) for name in names}


def _panel(axes: Axes, records: list[dict[str, Any]], across: str, colours: dict[str, str]) -> None:
    """A line for each contestant, with its quartiles as a band."""
    for name, colour in colours.items():
        its = sorted((r for r in records if r["contestant"] == name and r["median"]), key=lambda r: r[across])
        if not its:
            continue
        x, y = [r[across] for r in its], [r["ns_per_value"] for r in its]
        low, high = ([r["ns_per_value"] * r["quartiles"][i] / r["median"] for r in its] for i in range(2))
        own = name.startswith("csraxis")
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=2.2 if own else 1.4)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)
    figures.plain(axes, "top", "right")


def _head_and_foot(
    figure: Any, found: dict[str, Any], colours: dict[str, str], document: Document, height: float
) -> None:
    from matplotlib.lines import Line2D

    values = max((r["values"] for r in found["records"]), default=0)
    figure.text(
        0.012, 1 - 0.33 / height, "Cost of a stored value: lower is faster, level means that size costs nothing extra",
        fontsize=15, fontweight="bold",
    )  # fmt: skip
    what = f"generated counts, {found['genes']:,} genes, up to {values:,} stored float32 values"
    figure.text(0.012, 1 - 0.58 / height, f"{what}; below, the same by the number of threads", fontsize=10.5)
    figure.legend(
        handles=[Line2D([], [], color=colour, marker="o", label=name) for name, colour in colours.items()],
        loc="upper left",
        bbox_to_anchor=(0.006, 1 - 0.62 / height),
        ncols=len(colours),
        frameon=False,
        fontsize=9.5,
    )
    foot = textwrap.fill(provenance(document), 230)
    figure.text(0.012, 0.1 / height, foot, fontsize=7.5, color="#555555", va="bottom")
