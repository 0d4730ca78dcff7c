"""All cases in one picture: a row for each, a column for each peer, and how many times as long as csraxis it takes."""

from __future__ import annotations

import textwrap
from typing import Any

from bench import figures
from bench.report import Document, groups, provenance, ratio, shape_line, share

INCHES = {"label": 4.6, "column": 1.02, "row": 0.3, "head": 1.65, "foot": 0.6}


def table(document: Document, shape: str) -> tuple[list[str], list[tuple[dict[str, Any], dict[str, Any], dict]]]:
    """The peers, and for each case: it, the record of the fastest csraxis, and the records of the peers."""
    rows, peers = [], {}
    for case, records in groups(document):
        own = [r for r in records if r["engine"] and r["median"]]
        if case["shape"] == shape and own:
            others = {r["contestant"]: r for r in records if not r["engine"]}
            peers |= dict.fromkeys(others)
            rows.append((case, min(own, key=lambda r: r["median"]), others))
    return list(peers), rows


def cell(record: dict[str, Any] | None) -> str:
    """What a peer's cell says."""
    if record is None:
        return ""
    return ratio(record["ratio_to_csraxis"]) if record["ratio_to_csraxis"] else record["status"]


def draw(document: Document, target: figures.Target) -> None:
    """Write the picture of the first matrix.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If csraxis has no time.
    """
    from matplotlib.colors import LinearSegmentedColormap, LogNorm
    from matplotlib.patches import Rectangle

    shape = document["shapes"][0]
    peers, rows = table(document, shape["shape"])
    if not rows:
        raise ValueError("csraxis has no time to compare with")
    heads = ["csraxis over\nroofline", "its extra\nmemory", *(name.replace("[", "\n[") for name in peers)]
    width = INCHES["label"] + INCHES["column"] * len(heads) + 0.2
    height = INCHES["head"] + INCHES["row"] * len(rows) + INCHES["foot"]
    figure = figures.new(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    colours = LinearSegmentedColormap.from_list("faster", ["#f3c9a5", "#ffffff", "#9fd0e2", figures.OWN])
    norm = LogNorm(0.2, 25, clip=True)
    top = height - INCHES["head"]
    for j, head in enumerate(heads):
        x = INCHES["label"] + INCHES["column"] * (j + 0.5)
        axes.text(x, top + 0.1, head, ha="center", va="bottom", fontsize=8.5, color="#666666" if j < 2 else "#222222")
    for i, (case, own, others) in enumerate(rows):
        y = top - INCHES["row"] * (i + 0.5)
        axes.text(0.2, y, case["what"], va="center", fontsize=8.8)
        texts = [
            ratio(own["ratio_to_roofline"]),
            share(own["extra_share"]),
            *(cell(others.get(name)) for name in peers),
        ]
        for j, text in enumerate(texts):
            x = INCHES["label"] + INCHES["column"] * j
            record = others.get(peers[j - 2]) if j >= 2 else None
            value = record["ratio_to_csraxis"] if record else None
            if value:
                colour = colours(norm(value))
                axes.add_patch(Rectangle((x + 0.02, y - 0.14), INCHES["column"] - 0.04, 0.28, color=colour))
            dark = bool(value) and norm(value) > 0.85
            bold = "bold" if value and value >= 1 else "normal"
            colour = "white" if dark else "#a33b3b" if text == "FAIL" else "#666666" if j < 2 else "#222222"
            axes.text(
                x + INCHES["column"] / 2, y, text, ha="center", va="center", fontsize=8.8, color=colour, fontweight=bold
            )
    axes.text(0.2, height - 0.36, "How many times as long as csraxis does it take?", fontsize=15, fontweight="bold")
    axes.text(0.2, height - 0.62, shape_line(shape), fontsize=10)
    axes.text(
        0.2,
        height - 0.86,
        "Blue: csraxis is faster; orange: the peer is. FAIL: a wrong result, so no time. Empty: not compared.",
        fontsize=9,
    )
    axes.text(0.2, 0.12, textwrap.fill(provenance(document), int(width * 17)), fontsize=7, color="#555555", va="bottom")
    figures.save(figure, target)
