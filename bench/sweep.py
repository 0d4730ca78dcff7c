"""Cost of a stored value against the size of the matrix, and against threads: ``python -m bench --sweep``.

The matrices have the statistics of the generated ones: the same genes, more or fewer cells.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bench import cases, contestants, generate, machine, measure, report, terminal
from bench.contestants import Contestant
from bench.memory import available
from bench.terminal import Show, add_outputs, finish, positive, progress_bar

CASES = ("normalize-log1p", "mean-var-columns", "sum-columns", "sum-rows", "scale-columns")
PEERS = ("scipy", "fast-array-utils", "scanpy")
DISTINCT = 8
"""Chunks of rows that differ; larger matrices repeat them, which costs a kernel the same."""
BYTES = 2 + 4 + 4 + 1
"""A stored value: the count as uint16 and as float32, its index, and some rows' right results."""
SMALL = 1_000_000
"""Up to so many values a call is short: more rounds."""
AT_THREADS = 10_000_000
"""Stored values of the sweep over threads."""


def sizes(largest: int) -> list[int]:
    """1,000, 10,000, ... and above ten million also threes, up to the largest."""
    steps = [10**k for k in range(3, 12)] + [3 * 10**k for k in range(7, 11)]
    return sorted({*(step for step in steps if step < largest), largest})


@cache
def _chunk(genes: int, number: int) -> sparse.csr_matrix:
    return generate.chunk(generate.Parameters(DISTINCT * generate.Parameters(1, 1).chunk_rows, genes), number)


def matrix(values: int, genes: int) -> sparse.csr_matrix:
    """About so many stored values as uint16, in at least one row; made without a second copy."""
    rows: list[np.ndarray] = [np.zeros(1, np.int64)]
    data, indices = np.empty(values, np.uint16), np.empty(values, np.int32)
    filled, number = 0, 0
    while filled < values:
        part = _chunk(genes, number % DISTINCT)
        if part.data.max() > np.iinfo(np.uint16).max:
            raise ValueError("a count does not fit uint16")
        n = min(part.nnz, values - filled)
        last = int(np.searchsorted(part.indptr, n))  # the last row may be cut
        data[filled : filled + n], indices[filled : filled + n] = part.data[:n], part.indices[:n]
        rows.append(np.minimum(part.indptr[1 : last + 1], n).astype(np.int64) + filled)
        filled, number = filled + n, number + 1
    indptr = np.concatenate(rows)
    return sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, genes))


def refusal(values: int, free: int | None) -> str | None:
    """Why a matrix of this size is not made, or None."""
    needed = BYTES * values
    if free is None or needed <= free:
        return None
    return f"{values:,} stored values need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"


def _takes_part(names: Sequence[str] | None) -> list[Contestant]:
    wanted = names or PEERS
    return [
        c
        for c in contestants.CONTESTANTS
        if (c.name in ("csraxis[cython]", "csraxis[numba]") or c.name in wanted) and contestants.absence(c) is None
    ]


class _Needs:
    """Memory of each contestant for a value, from the sizes so far: who would not fit does not begin."""

    def __init__(self) -> None:
        self.per_value: dict[tuple[str, str], float] = {}

    def note(self, case: str, entry: measure.Entry, values: int) -> None:
        if entry.extra_bytes is not None and values >= SMALL:
            self.per_value[case, entry.contestant.name] = entry.extra_bytes / values

    def too_much(self, case: str, contestant: Contestant, values: int) -> str | None:
        free, needed = available(), self.per_value.get((case, contestant.name), 0) * values
        if free is None or needed <= free:
            return None
        return f"would need {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free"


def section(
    largest: int,
    genes: int = 30_000,
    *,
    names: Sequence[str] = CASES,
    peers: Sequence[str] | None = None,
    threads: int | None = None,
    show: Show = lambda label, done, total: None,
) -> dict[str, Any]:
    """The measurement as part of a document."""
    present, needs = _takes_part(peers), _Needs()
    chosen = [case for case in cases.CASES if case.name in names]
    found: dict[str, Any] = {"genes": genes, "cases": {case.name: case.what for case in chosen}}
    found |= {"sizes": [], "records": [], "threads": [], "left_out": []}
    for values in sizes(largest):
        reason = refusal(values, available())
        if reason:
            found["left_out"].append(reason)
            break
        x = matrix(values, genes)
        found["sizes"].append({"values": x.nnz, "cells": x.shape[0]})
        for case in chosen:
            fit = []
            for contestant in present:
                why = needs.too_much(case.name, contestant, values)
                if why:
                    found["left_out"].append(f"{contestant.name}, {case.name}, {values:,} stored values: {why}")
                else:
                    fit.append(contestant)
            for entry in _run(case, fit, x, threads, show):
                needs.note(case.name, entry, values)
                found["records"].append(_record(case, entry, x) | {"values": values})
        del x
    x = matrix(min(largest, AT_THREADS), genes)
    for count in range(1, machine.processors() + 1):
        for case in chosen:
            for entry in _run(case, present, x, count, show):
                found["threads"].append(_record(case, entry, x) | {"threads": count})
    return found


def _run(
    case: cases.Case, present: list[Contestant], x: sparse.csr_matrix, threads: int | None, show: Show
) -> list[measure.Entry]:
    small = x.nnz <= SMALL
    outcome = measure.run_case(
        case,
        present,
        x,
        repeats=101 if small else 7,
        threads=threads,
        budget=0.5 if small else 3,
        patience=20,
        dtype=np.float32,
        tick=lambda label: show(f"{x.nnz:,} values, {case.name}: {label}", 0, 1),
    )
    return outcome.entries


def _record(case: cases.Case, entry: measure.Entry, x: sparse.csr_matrix) -> dict[str, Any]:
    record = {"case": case.name, "contestant": entry.contestant.name, "engine": entry.contestant.engine}
    record |= {"status": "FAIL" if entry.failure else "ok", "reason": entry.failure}
    median = float(np.median(entry.seconds)) if entry.seconds else None
    spread = [float(q) for q in np.percentile(entry.seconds, [25, 75])] if entry.seconds else None
    per_value = None if median is None else 1e9 * median / x.nnz
    return record | {"median": median, "quartiles": spread, "ns_per_value": per_value}


def lines(found: dict[str, Any], key: str = "records") -> list[list[str]]:
    """Nanoseconds a stored value: a row for each case and contestant, a column for each size (or number of threads)."""
    across = "values" if key == "records" else "threads"
    columns = sorted({r[across] for r in found[key]})
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for r in found[key]:
        number = "FAIL" if r["status"] == "FAIL" else f"{r['ns_per_value']:.3g}"
        rows.setdefault((r["case"], r["contestant"]), {})[r[across]] = number
    heads = [short(n) if key == "records" else f"{n} thread{'s' * (n > 1)}" for n in columns]
    return [["case", "contestant", *heads]] + [
        [*row, *(cells.get(n, "-") for n in columns)] for row, cells in rows.items()
    ]


def short(values: int) -> str:
    """1 k, 10 M: a number of stored values."""
    unit, name = next((u, name) for u, name in ((10**9, "G"), (10**6, "M"), (10**3, "k"), (1, "")) if values >= u)
    return f"{values / unit:.3g} {name}".strip()


def flatness(found: dict[str, Any], start: int = 10_000_000) -> list[str]:
    """How much the cost of a value of csraxis varies from `start` values on: a sentence for each case and engine."""
    said = []
    for case in found["cases"]:
        for name in dict.fromkeys(r["contestant"] for r in found["records"] if r["engine"]):
            costs = [
                r["ns_per_value"]
                for r in found["records"]
                if (r["case"], r["contestant"]) == (case, name) and r["values"] >= start and r["ns_per_value"]
            ]
            if len(costs) > 1:
                said.append(f"{case}, {name}: {max(costs) / min(costs) - 1:.0%} between the least and the most")
    return said


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m bench --sweep", description=(__doc__ or "").replace("``", "`"))
    p.add_argument(
        "--max-values", type=positive, default=100_000_000, help="of the largest matrix (default: %(default)s)"
    )
    p.add_argument("--genes", type=positive, default=30_000, help="columns of every matrix (default: %(default)s)")
    names = [case.name for case in cases.CASES if not case.requires]
    p.add_argument("--case", action="append", choices=names, metavar="NAME", help=f"default: {', '.join(CASES)}")
    names = [c.name for c in contestants.CONTESTANTS if not c.engine]
    p.add_argument("--contestant", action="append", choices=names, metavar="NAME", help=f"default: {', '.join(PEERS)}")
    p.add_argument("--threads", type=positive, help="of the sweep over sizes (default: csraxis's own number)")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="picture (default: in bench/results/)")
    add_outputs(p)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep, print, draw; 1 if a result of csraxis is wrong, 2 if the largest matrix does not fit."""
    options = parser().parse_args(arguments)
    reason = refusal(options.max_values, available())
    if reason:
        print(f"{reason}: use a smaller --max-values", file=sys.stderr)
        return 2
    with progress_bar() as show:
        found = section(
            options.max_values,
            options.genes,
            names=options.case or CASES,
            peers=options.contestant,
            threads=options.threads,
            show=show,
        )
    status = finish("sweep", found, lines(found), options, "nanoseconds a stored value, by the number of these")
    for sentence in [*flatness(found), *(f"left out: {item}" for item in found["left_out"])]:
        print(sentence)
    if importlib.util.find_spec("matplotlib") is None:
        print("picture: none, matplotlib is not installed")
    elif not status:
        from bench import curves

        path = options.plot or terminal.RESULTS / "sweep.png"
        curves.draw(found, path, report.head({"threads": options.threads or machine.processors()}, report.own_config()))
        print(f"picture: {path}")
    wrong = [r for r in found["records"] + found["threads"] if r["engine"] and r["status"] == "FAIL"]
    return status or int(bool(wrong))
