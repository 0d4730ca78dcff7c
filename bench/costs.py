"""What is paid before any work is done, as bars: a call on a small matrix, and a fresh process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import figures
from bench.report import Document, duration, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(document: Document, target: figures.Target) -> None:
    """Write the picture of what the document has of the two.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    panels = [(name, panel) for name, panel in (("overhead", _calls), ("fresh", _processes)) if name in document]
    lines = [len(document[name]["records"]) for name, _ in panels]
    height = 1.3 + 0.4 * max(lines)
    figure = figures.new(1 + 6.5 * len(panels), height)
    grid = figure.add_gridspec(
        1, len(panels), left=0.16 / len(panels) * 2, right=0.97, top=1 - 1.0 / height, bottom=0.3 / height, wspace=0.5
    )
    for i, (name, panel) in enumerate(panels):
        panel(figure.add_subplot(grid[0, i]), document[name])
    figures.save(figure, target)


def _calls(axes: Axes, found: dict[str, Any]) -> None:
    size = found["size"]
    ways = (("public", figures.OWN, "csraxis"), ("scipy", figures.OTHER, "SciPy's own method"))
    for i, record in enumerate(found["records"]):
        for k, (key, colour, name) in enumerate(ways):
            value = record[key]
            if value is not None:
                axes.barh(i + 0.38 * k - 0.19, value, height=0.34, color=colour, label=name if not i else None)
                axes.annotate(
                    f"{value:.1f}",
                    (value, i + 0.38 * k - 0.19),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        if record["public"] is not None:
            axes.plot([record["kernel"]] * 2, [i - 0.36, i - 0.02], color="#d6eaf2", linewidth=2)
    axes.set_yticks(range(len(found["records"])), [r["function"] for r in found["records"]], fontsize=8.5)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    _finish(axes, f"Microseconds of a call on a {size} x {size} matrix", "light mark: the kernel alone")


def _processes(axes: Axes, found: dict[str, Any]) -> None:
    records = [r for r in found["records"] if r["seconds_median"]]
    for i, record in enumerate(records):
        own = record["name"].startswith("csraxis")
        colour = figures.OWN if own else figures.OTHER if record["name"] == "scanpy" else figures.GREY
        axes.barh(i, record["seconds_median"], height=0.6, color=colour)
        more = f"  (scanpy {ratio(record['scanpy_over_seconds'])})" if own else ""
        axes.annotate(
            duration(record["seconds_median"]) + more,
            (record["seconds_median"], i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(records)), [f"{r['name']}, {r['result']}" for r in records], fontsize=8.5)
    _finish(axes, f"A fresh process: imports, reads, normalises {found['cells']:,} cells, log1p", "seconds in all")


def _finish(axes: Axes, title: str, under: str) -> None:
    axes.set_xlim(0, 1.28 * axes.get_xlim()[1])
    axes.set_ylim(axes.get_yticks().max() + 0.6, -0.6)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    figures.plain(axes, "top", "right", "bottom")
    axes.set_title(f"{title}\n", loc="left", x=-0.3, fontsize=11, fontweight="bold")
    axes.text(-0.3, 1.01, under, transform=axes.transAxes, fontsize=9, color="#555555", va="bottom")
