"""The results as one document (the JSON file), and its tables on the terminal."""

from __future__ import annotations

import datetime
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import machine
from bench.measure import MEMORY_PASS, Entry, Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from scipy import sparse

Document = dict[str, Any]
LIMITS = {"budget": "", "patience": " for one contestant"}
FORMAT = 2
"""Of the JSON files."""
HEADINGS = (("median", 8), ("quartiles", 13), ("/ csraxis", 9), ("/ pass", 7), ("/ roof", 7), ("memory", 7))


def head(settings: dict[str, Any], csraxis: dict[str, Any] | None, packages: tuple[str, ...] = ()) -> Document:
    """What every document says, without results; `csraxis` is what its get_config() says."""
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(packages),
        "csraxis": csraxis,
        "settings": settings,
        "shapes": [],
        "records": [],
        "left_out": [],
    }


def own_config() -> dict[str, Any] | None:
    """csraxis's configuration, where it is installed with an engine."""
    if importlib.util.find_spec("csraxis") is None:
        return None
    import csraxis as cx

    try:
        return cx.get_config()
    except ImportError:
        return None


def new_document(settings: dict[str, Any], csraxis: dict[str, Any] | None) -> Document:
    """A document of cases, without results."""
    return {**head(settings, csraxis), "memory_pass": MEMORY_PASS, "cases": []}


def add_shape(document: Document, name: str, what: str, x: sparse.csr_matrix) -> None:
    """Note a matrix that is measured."""
    rows, columns = x.shape
    facts = {"rows": rows, "columns": columns, "stored": x.nnz, "dtype": str(x.dtype), "indices": str(x.indices.dtype)}
    document["shapes"].append({"shape": name, "what": what, **facts})


def leave_out(document: Document, kind: str, name: str, reason: str) -> None:
    """Note a case, a contestant or a shape that cannot run here."""
    document["left_out"].append({"kind": kind, "name": name, "reason": reason})


def add_outcome(document: Document, shape: str, outcome: Outcome) -> None:
    """Add one case with a record for each contestant."""
    pass_median = _median(outcome.memory_pass)
    own = [_median(e.seconds) for e in outcome.entries if e.contestant.engine and e.seconds]
    best = min(own, default=None)
    document["cases"].append(
        {
            "shape": shape,
            "case": outcome.case.name,
            "what": outcome.case.what,
            "moves": outcome.moves,
            "value_bytes": outcome.value_bytes,
            "matrix_bytes": outcome.matrix_bytes,
            "roofline": pass_median * outcome.moves / (2 * outcome.value_bytes),
            "memory_pass_seconds": outcome.memory_pass,
            "memory_pass_median": pass_median,
        }
    )
    for entry in outcome.entries:
        document["records"].append(_record(shape, outcome, entry, best, pass_median))


def _record(shape: str, outcome: Outcome, entry: Entry, best: float | None, pass_median: float) -> dict[str, Any]:
    record: dict[str, Any] = {
        "shape": shape,
        "case": outcome.case.name,
        "contestant": entry.contestant.name,
        "engine": entry.contestant.engine,
        "note": entry.contestant.note,
        "status": "FAIL" if entry.failure else "ok",
        "reason": entry.failure,
        "seconds": entry.seconds,
        "median": None,
        "quartiles": None,
        "ratio_to_csraxis": None,
        "ratio_to_memory_pass": None,
        "ratio_to_roofline": None,
        "extra_bytes": entry.extra_bytes,
        "extra_share": None if entry.extra_bytes is None else entry.extra_bytes / outcome.matrix_bytes,
        "accuracy": entry.accuracy,
    }
    if entry.seconds:
        median = _median(entry.seconds)
        record["median"] = median
        record["quartiles"] = [float(q) for q in np.percentile(entry.seconds, [25, 75])]
        record["ratio_to_csraxis"] = median / best if best else None
        record["ratio_to_memory_pass"] = median / pass_median
        record["ratio_to_roofline"] = median * 2 * outcome.value_bytes / (pass_median * outcome.moves)
    return record


def _median(seconds: list[float]) -> float:
    return float(np.median(seconds))


def failures(document: Document) -> list[dict[str, Any]]:
    """The records of csraxis itself that are wrong."""
    return [r for r in document["records"] if r["engine"] and r["status"] == "FAIL"]


def write_json(document: Document, path: Path) -> None:
    """Write the document, and the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def groups(document: Document) -> Iterable[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each case with its records, in the order of the run."""
    for case in document["cases"]:
        key = (case["shape"], case["case"])
        yield case, [r for r in document["records"] if (r["shape"], r["case"]) == key]


def shape_line(shape: dict[str, Any]) -> str:
    """One line about a matrix."""
    size = f"{shape['rows']:,} rows x {shape['columns']:,} columns, {shape['stored']:,} stored {shape['dtype']} values"
    return f"{shape['shape']}: {size}"


def duration(seconds: float, like: float | None = None) -> str:
    """Three digits with a unit; the unit that suits `like`, if given, and then without naming it."""
    scale, unit = next(((s, u) for s, u in ((1, "s"), (1e3, "ms")) if (like or seconds) * s >= 1), (1e6, "µs"))
    number = seconds * scale
    digits = f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return digits if like else f"{digits} {unit}"


def ratio(value: float | None) -> str:
    """A ratio with as many digits as mean something."""
    if value is None:
        return "-"
    return f"{value:.0f}x" if value >= 100 else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def share(value: float | None) -> str:
    """Memory as a share of the matrix."""
    if value is None:
        return "-"
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def print_tables(document: Document, console: Console) -> None:
    """A table for each case, then what was left out and what it ran on."""
    from rich.markup import escape
    from rich.table import Table

    for shape in document["shapes"]:
        console.print(f"\n[bold]{escape(shape_line(shape))}[/]")
        for case, records in groups(document):
            if case["shape"] != shape["shape"]:
                continue
            title = f"[bold]{escape(case['case'])}[/]  {escape(case['what'])}"
            table = Table(
                title=title, title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0)
            )
            table.add_column("", width=27, no_wrap=True)
            for heading, width in HEADINGS:
                table.add_column(heading, width=width, justify="right", no_wrap=True)
            for record in sorted(records, key=lambda r: r["median"] or float("inf")):
                table.add_row(*_coloured(cells(record)), style="bold" if record["engine"] else "")
            median = case["memory_pass_median"]
            table.add_row("roofline", duration(case["roofline"]), "", "", "", ratio(1.0), style="dim")
            table.add_row("memory pass", duration(median), "", "", ratio(1.0), style="dim")
            console.print()
            console.print(table)
            for record in records:
                if record["status"] == "FAIL":
                    console.print(f"  [red]FAIL[/] {escape(record['contestant'])}: {escape(record['reason'])}")
    console.print(f"\n{escape(footer(document))}", highlight=False)


def cells(record: dict[str, Any]) -> list[str]:
    """A contestant, and what the columns of `HEADINGS` say of it."""
    name, median = record["contestant"], record["median"]
    if record["status"] == "FAIL":
        return [name, "FAIL"]
    spread = " - ".join(duration(q, like=median) for q in record["quartiles"])
    ratios = [ratio(record[f"ratio_to_{what}"]) for what in ("csraxis", "memory_pass", "roofline")]
    return [name, duration(median), spread, *ratios, share(record["extra_share"])]


def _coloured(texts: list[str]) -> list[str]:
    from rich.markup import escape

    return ["[red]FAIL[/]" if text == "FAIL" else escape(text) for text in texts]


def footer(document: Document) -> str:
    """How to read the figures, what was left out, versions and machine."""
    return "\n".join(reading(document))


def reading(document: Document) -> list[str]:
    """The same, a sentence or two each."""
    settings, lines = document["settings"], []
    if document["cases"]:
        limits = [f"{settings[key]:g} s in all{who}" for key, who in LIMITS.items() if settings.get(key)]
        fewer = f" (fewer where these take more than {', or '.join(limits)})" if limits else ""
        lines = [
            "Every result was verified before it was timed; FAIL has no time. Median and quartiles of "
            f"{settings['repeats']} interleaved rounds{fewer}.",
            *explanations(document),
        ]
        notes = {r["contestant"]: r["note"] for r in document["records"] if r["note"]}
        lines += [f"{name}: {note}." for name, note in notes.items()]
    lines += [f"left out: {item['kind']} {item['name']}: {item['reason']}" for item in document["left_out"]]
    return [*lines, provenance(document)]


def explanations(document: Document) -> list[str]:
    """What the columns mean, a sentence each."""
    return [
        "/ csraxis: time as a multiple of the fastest csraxis in that case.",
        f"/ pass: time as a multiple of a memory pass in the same rounds, {document['memory_pass']}.",
        "/ roof: time as a multiple of the roofline, which is how long that memory pass would take over the bytes that "
        "a perfect kernel must read and write in this case.",
        "memory: the most that the process held during one more, untimed call, above what it held before, results "
        "included, as a share of the matrix (values, indices and row ends).",
    ]


def provenance(document: Document) -> str:
    """Versions, machine and date in one line."""
    at = document["machine"]
    names = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    level = f" ({document['csraxis']['cpu']})" if document["csraxis"] else ""
    place = f"{at['cpu']}{level}, {document['settings']['threads']} of {at['processors']} processors"
    return f"{names}, Python {at['python']}, {at['system']}; {place}; {document['date'][:10]}"
