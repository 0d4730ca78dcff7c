"""A recorded run as a page: ``python -m bench page RESULT.json --markdown FILE.md --html FILE.html``.

The Markdown has its pictures in files beside it, the HTML has them inside: one file, which needs no network.
`--summary` prints the table that the README has.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import compare, costs, curves, fresh, levels, overhead, overview, picture, report, sweep
from bench.report import Document, duration, groups, ratio, share
from bench.terminal import INSTALL


class Heading(NamedTuple):
    """Of a section, or (level 3) of a part of one."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Table(NamedTuple):
    """Heading and rows; all but the first `left` columns are numbers."""

    lines: list[list[str]]
    left: int = 1


class Picture(NamedTuple):
    """One of `PICTURES`."""

    name: str
    what: str


Block = Heading | Text | Table | Picture

PICTURES: dict[str, Callable[[Document, Any], None]] = {
    "overview": overview.draw,
    "cases": picture.draw,
    "sweep": lambda document, target: curves.draw(document["sweep"], target, document),
    "costs": costs.draw,
}


def blocks(document: Document) -> list[Block]:
    """The page."""
    found: list[Block] = [
        Text(
            "How long csraxis and others take for the same, and how much memory. Every result was verified before it "
            "was timed; a wrong one is a FAIL and has no time."
        )
    ]
    shapes = document["shapes"]
    if any(overview.table(document, shape["shape"])[1] for shape in shapes):
        found += [Picture("overview", "peers' times over that of csraxis")]
    for shape in shapes:
        found += _overview(document, shape)
    if "sweep" in document:
        found += _sweep(document["sweep"])
    if "levels" in document:
        of_size = f"{document['levels']['cells']:,} cells x {document['levels']['genes']:,} genes"
        found += [Heading("At each CPU level"), Text(f"The compiled kernels, {of_size}.")]
        found += [Table(levels.lines(document["levels"]))]
    if "overhead" in document:
        size = document["overhead"]["size"]
        found += [Heading("A call on little data"), Picture("costs", "a call and a fresh process")]
        found += [Text(f"Microseconds on a {size} x {size} csr_array with a tenth of the values stored, one thread.")]
        found += [Table(overhead.lines(document["overhead"]))]
    if "fresh" in document:
        found += _fresh(document)
    if document["cases"]:
        found += [Heading("Case by case"), Picture("cases", "every contestant in every case")]
        for case, records in groups(document):
            found += _case(case, records)
    found += [Heading("How to read it")]
    found += [Text(line) for line in report.reading(document)]
    return found


SUMMARY = (
    *("sum-rows", "sum-columns", "scale-rows", "scale-columns", "mean-var-rows", "mean-var-rows-known"),
    *("mean-var-columns", "max-columns", "normalize-log1p", "normalize-log1p-anndata", "take-columns", "gram"),
    *("variable-genes-anndata", "pca-anndata"),
)
SUMMARY_PEERS = {
    "scipy": "SciPy",
    "scikit-learn": "scikit-learn",
    "scanpy": "scanpy",
    "fast-array-utils": "fast-array-utils",
    "fast-array-utils[float64]": "the same in float64",
    "autozyme": "autozyme",
    "csraxis[numba]": "csraxis (Numba)",
}


def summary(document: Document) -> str:
    """A short table, as Markdown: times over those of the compiled csraxis."""
    lines = [["", "over a memory pass", *SUMMARY_PEERS.values()], ["---"] * (2 + len(SUMMARY_PEERS))]
    found = {case["case"]: (case["what"], records) for case, records in groups(document)}
    for what, records in (found[name] for name in SUMMARY if name in found):
        timed = {r["contestant"]: r for r in records if r["median"]}
        own = timed["csraxis[cython]"]
        over = [ratio(timed[name]["median"] / own["median"]) if name in timed else "" for name in SUMMARY_PEERS]
        lines.append([what, ratio(own["ratio_to_memory_pass"]), *over])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _overview(document: Document, shape: dict[str, Any]) -> list[Block]:
    peers, rows = overview.table(document, shape["shape"])
    head = ["", "csraxis", "over the roofline", "extra memory", *peers]
    lines = [
        [
            case["what"],
            duration(own["median"]),
            ratio(own["ratio_to_roofline"]),
            share(own["extra_share"]),
            *(overview.cell(others.get(name)) for name in peers),
        ]
        for case, own, others in rows
    ]
    about = "The peers' columns: their time over that of the fastest csraxis; below 1 the peer is faster."
    return [Heading(report.shape_line(shape)), Text(about), Table([head, *lines])]


def _sweep(found: dict[str, Any]) -> list[Block]:
    about = f"Nanoseconds a stored value; {found['genes']:,} genes, more or fewer cells."
    parts: list[Block] = [Heading("Against the size of the matrix"), Picture("sweep", "cost against size and threads")]
    parts += [Text(about), Table(sweep.lines(found), left=2), Text("; ".join(sweep.flatness(found)) + ".")]
    parts += [Text(f"Left out: {item}.") for item in found["left_out"]]
    values = min(sweep.AT_THREADS, max(r["values"] for r in found["sizes"]))
    return [
        *parts,
        Heading("Against threads"),
        Text(f"Nanoseconds a stored value, {sweep.short(values)} of them."),
        Table(sweep.lines(found, "threads"), left=2),
    ]


def _fresh(document: Document) -> list[Block]:
    found = document["fresh"]
    parts: list[Block] = [Heading("A fresh process")]
    if "overhead" not in document:
        parts += [Picture("costs", "a fresh process")]
    what = f"{found['cells']:,} cells x {found['genes']:,} genes, {found['stored']:,} stored values in .npy files"
    about = f"Imports, reading {what}, normalisation and logarithm. Bytecode and Numba's caches are warm."
    return [*parts, Text(about), Table(fresh.lines(found), left=2)]


def _case(case: dict[str, Any], records: list[dict[str, Any]]) -> list[Block]:
    lines = [["", *(heading for heading, _ in report.HEADINGS)]]
    for r in sorted(records, key=lambda r: r["median"] or float("inf")):
        cells = report.cells(r)
        lines.append(cells + [""] * (len(lines[0]) - len(cells)))
    lines.append(["roofline", duration(case["roofline"]), "", "", "", ratio(1.0), ""])
    parts: list[Block] = [Heading(f"{case['case']}: {case['what']}", 3), Table(lines)]
    parts += [Text(f"FAIL {r['contestant']}: {r['reason']}") for r in records if r["status"] == "FAIL"]
    for r in records:
        if r["accuracy"]:
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in r["accuracy"].items())
            parts.append(Text(f"Accuracy of {r['contestant']}: {figures}."))
    return parts


def pictures(document: Document) -> dict[str, bytes]:
    """What the page shows, as PNG."""
    drawn = {}
    for block in blocks(document):
        if isinstance(block, Picture):
            target = io.BytesIO()
            PICTURES[block.name](document, target)
            drawn[block.name] = target.getvalue()
    return drawn


def markdown(document: Document, source: str) -> str:
    """The page as Markdown; `source` is the name of the JSON file that it is made of, which names its pictures."""
    stem = Path(source).stem
    made = f"Made from [{source}]({source}) by `python -m bench page`; do not edit."
    parts = ["# Benchmarks", made]
    for block in blocks(document):
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {text}")
            case Text(text):
                parts.append(text)
            case Picture(name, what):
                parts.append(f"![{what}]({stem}-{name}.png)")
            case Table(lines, left):
                rule = ["---" if i < left else "---:" for i in range(len(lines[0]))]
                rows = [lines[0], rule, *lines[1:]]
                parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    return "\n\n".join(parts) + "\n"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1, h2 { color: #0b6e99; } h2 { margin-top: 2.2em; } img { max-width: 100%; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
td, th { padding: .2em .8em; text-align: right; white-space: nowrap; border-bottom: 1px solid #e6e6e6; }
td.left, th.left { text-align: left; } tr.own td { font-weight: 600; color: #0b6e99; }
"""


def as_html(document: Document, drawn: dict[str, bytes]) -> str:
    """The page as one HTML file, with the pictures that are drawn."""
    parts = ["<h1>Benchmarks of csraxis</h1>"]
    for block in blocks(document):
        match block:
            case Heading(text, level):
                parts.append(f"<h{level}>{html.escape(text)}</h{level}>")
            case Text(text):
                parts.append(f"<p>{html.escape(text)}</p>")
            case Picture(name, what) if name in drawn:
                data = base64.b64encode(drawn[name]).decode()
                parts.append(f'<p><img alt="{html.escape(what)}" src="data:image/png;base64,{data}"></p>')
            case Table(lines, left):
                parts.append(_html_table(lines, left))
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>csraxis</title><style>{STYLE}</style>'
    return "\n".join([head, "</head><body>", *parts, "</body></html>"]) + "\n"


def _html_table(lines: list[list[str]], left: int) -> str:
    def row(cells: list[str], tag: str) -> str:
        marks = (' class="left"' if i < left else "" for i in range(len(cells)))
        own = ' class="own"' if any(cell.startswith("csraxis[") for cell in cells[:left]) else ""
        inside = (f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for mark, cell in zip(marks, cells))
        return f"<tr{own}>{''.join(inside)}</tr>"

    return "\n".join(["<table>", row(lines[0], "th"), *(row(cells, "td") for cells in lines[1:]), "</table>"])


def write_html(document: Document, path: Path) -> None:
    """The HTML file, and the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_html(document, pictures(document)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a recorded run."""
    p = argparse.ArgumentParser(prog="python -m bench page", description=(__doc__ or "").replace("``", "`"))
    p.add_argument("result", type=Path, metavar="RESULT.json", help="what `python -m bench` wrote")
    p.add_argument("--markdown", type=Path, metavar="FILE.md", help="in the folder of RESULT.json, for its link")
    p.add_argument("--html", type=Path, metavar="FILE.html", help="default, without --markdown: beside RESULT.json")
    p.add_argument("--summary", action="store_true", help="print a short table as Markdown, and write nothing")
    options = p.parse_args(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        print(f"python -m bench page needs matplotlib: {INSTALL}", file=sys.stderr)
        return 2
    if options.markdown and options.markdown.resolve().parent != options.result.resolve().parent:
        print(f"--markdown must be in the folder of {options.result}, got {options.markdown}", file=sys.stderr)
        return 2
    try:
        document = compare.read(options.result)
        if document["format"] != report.FORMAT:
            raise ValueError(f"{options.result} has format {document['format']}, not {report.FORMAT}: run it again")
        if options.summary:
            print(summary(document), end="")
            return 0
        drawn = pictures(document)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    written = []
    if options.markdown:
        for name, data in drawn.items():
            written.append(options.markdown.with_name(f"{options.result.stem}-{name}.png"))
            written[-1].write_bytes(data)
        options.markdown.write_text(markdown(document, options.result.name))
        written.append(options.markdown)
    if options.html or not options.markdown:
        path = options.html or options.result.with_suffix(".html")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_html(document, drawn))
        written.append(path)
    print("\n".join(map(str, written)))
    return 0
