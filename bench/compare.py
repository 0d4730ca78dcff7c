"""Is csraxis slower than it was? ``python -m bench --compare OLD.json``, or of two files ``python -m bench compare``.

Absolute times of two runs cannot be compared: machines and moments differ. Two ratios can: time over the memory pass of
the same rounds, and time over that of each peer. A regression shows in both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report

Document = dict[str, Any]
TOLERANCE = 1.25
"""How much larger a ratio may be than it was."""


def _timed(document: Document) -> dict[tuple, dict[str, Any]]:
    """(matrix, case, contestant) to record; matrices are the same if their numbers of rows and stored values are."""
    shapes = {s["shape"]: (s["shape"], s["rows"], s["columns"], s["stored"]) for s in document["shapes"]}
    passes = {(c["shape"], c["case"]): c["memory_pass_median"] for c in document["cases"]}
    return {
        (shapes[r["shape"]], r["case"], r["contestant"]): r | {"pass": passes[r["shape"], r["case"]]}
        for r in document["records"]
    }


def compare(new: Document, old: Document, tolerance: float = TOLERANCE) -> list[dict[str, Any]]:
    """For each case and csraxis contestant of both: new over old of its time in memory passes, and in peers' times.

    The peers' ratio is the median over the peers that have a time in both.
    """
    records = []
    was = _timed(old)
    for key, record in (now := _timed(new)).items():
        before = was.get(key)
        if not record["engine"] or before is None or not before["median"]:
            continue
        if not record["median"]:
            records.append(_row(key, None, None, 0, f"{record['status']}: {record['reason']}", True))
            continue
        change = record["median"] / before["median"]
        in_passes = change * before["pass"] / record["pass"]
        others = [
            was[peer]["median"] / r["median"]
            for peer, r in now.items()
            if peer[:2] == key[:2] and not r["engine"] and r["median"] and peer in was and was[peer]["median"]
        ]
        in_peers = change * float(np.median(others)) if others else None
        beyond = [ratio > tolerance for ratio in (in_passes, in_peers) if ratio is not None]
        verdict = "slower" if all(beyond) else "unclear" if any(beyond) else ""
        records.append(_row(key, in_passes, in_peers, len(others), verdict, all(beyond)))
    return records


def _row(
    key: tuple, in_passes: float | None, in_peers: float | None, n_peers: int, verdict: str, regression: bool
) -> dict[str, Any]:
    (shape, *_), case, contestant = key
    return {
        "shape": shape,
        "case": case,
        "contestant": contestant,
        "in_passes": in_passes,
        "in_peers": in_peers,
        "peers": n_peers,
        "verdict": verdict,
        "regression": regression,
    }


def lines(records: list[dict[str, Any]]) -> list[list[str]]:
    """The table: heading and rows."""
    table = [["case", "contestant", "in passes", "in peers' times", "peers", ""]]
    for r in records:
        ratios = [report.ratio(r[key]) for key in ("in_passes", "in_peers")]
        table.append([f"{r['shape']}: {r['case']}", r["contestant"], *ratios, str(r["peers"]), r["verdict"]])
    return table


def read(path: Path) -> Document:
    """A document of cases; ValueError where it is none."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or not {"cases", "records", "shapes"} <= document.keys():
        raise ValueError(f"{path} has no results of `python -m bench`")
    return document


def show(new: Document, old: Document, tolerance: float, what: str) -> int:
    """Print the comparison; 1 if something is slower, 2 if there is nothing in common."""
    from bench.terminal import new_console, print_lines

    records = compare(new, old, tolerance)
    if not records:
        print(f"nothing to compare: no case of csraxis on the same matrix is in both runs ({what})", file=sys.stderr)
        return 2
    console = new_console()
    print_lines(lines(records), f"new over old: {what}", console)
    slower = [r for r in records if r["regression"]]
    console.print(
        f"Above 1 is slower. 'slower': beyond {tolerance:g} in memory passes and in peers' times (where there is one); "
        f"'unclear': in one of them. {len(slower)} of {len(records)} regressed.",
        highlight=False,
    )
    return int(bool(slower))


def tolerance(text: str) -> float:
    """An option's value above 1."""
    number = float(text)
    if not number > 1:
        raise argparse.ArgumentTypeError(f"must be above 1, got {number:g}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two recorded runs."""
    p = argparse.ArgumentParser(prog="python -m bench compare", description=(__doc__ or "").partition("\n\n")[2])
    p.add_argument("new", type=Path, metavar="NEW.json")
    p.add_argument("old", type=Path, metavar="OLD.json")
    p.add_argument("--tolerance", type=tolerance, default=TOLERANCE, help="default: %(default)s")
    options = p.parse_args(arguments)
    try:
        new, old = read(options.new), read(options.old)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return show(new, old, options.tolerance, f"{options.new} / {options.old}")
