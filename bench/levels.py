"""The compiled kernels at each CPU level that this processor has: ``python -m bench levels``.

Each level runs in processes of its own, since it is chosen when csraxis is imported; they take turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import cases, compare, shapes
from bench.report import duration, ratio
from bench.terminal import Show, add_outputs, finish, positive, progress_bar

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
CASES = (
    "sum-rows",
    "sum-columns",
    "mean-var-rows",
    "mean-var-columns",
    "scale-rows",
    "scale-columns",
    "normalize-log1p",
    "take-columns",
    "log-moments",
    "gram",
)


def available() -> list[str]:
    """The levels of this processor that are built; none without compiled kernels."""
    check = [sys.executable, "-c", "import csraxis; csraxis.set_config(engine='cython')"]
    return [
        level
        for level in LEVELS
        if not subprocess.run(check, env=os.environ | {"CSRAXIS_CPU": level}, capture_output=True).returncode
    ]


def section(
    size: shapes.Size,
    *,
    names: Sequence[str] = CASES,
    rounds: int = 3,
    threads: int | None = None,
    show: Show = lambda label, done, total: None,
) -> dict[str, Any]:
    """The measurement as part of a document."""
    levels = available()
    found: dict[str, Any] = {"cells": size.cells, "genes": size.genes, "rounds": rounds, "levels": levels}
    medians: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for place, level in enumerate(levels):
            show(level, number * len(levels) + place, rounds * len(levels))
            for name, median in _run(level, size, names, threads).items():
                medians.setdefault((name, level), []).append(median)
    found["cases"] = {case.name: case.what for case in cases.CASES if case.name in names}
    found["records"] = [
        {"case": name, "level": level, "median": float(np.median(seconds))}
        for (name, level), seconds in medians.items()
    ]
    return found


def _run(level: str, size: shapes.Size, names: Sequence[str], threads: int | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        arguments = [f"--cells={size.cells}", f"--genes={size.genes}", "--engine=cython", f"--json={path}"]
        arguments += ["--contestant=csraxis[cython]", f"--plot={path.with_suffix('.png')}"]
        arguments += [f"--case={name}" for name in names] + ([] if threads is None else [f"--threads={threads}"])
        done = subprocess.run(
            [sys.executable, "-m", "bench", *arguments],
            env=os.environ | {"CSRAXIS_CPU": level},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{level}: {done.stderr or done.stdout}")
        return {r["case"]: r["median"] for r in compare.read(path)["records"] if r["engine"]}


def lines(found: dict[str, Any]) -> list[list[str]]:
    """The table: milliseconds at each level, and those over the time of the highest."""
    times = {(r["case"], r["level"]): r["median"] for r in found["records"]}
    levels = found["levels"]
    table = [["", *levels, *(f"{level} / {levels[-1]}" for level in levels[:-1])]]
    for name, what in found["cases"].items():
        of_case = [times[name, level] for level in levels]
        ratios = [ratio(median / of_case[-1]) for median in of_case[:-1]]
        table.append([what, *map(duration, of_case), *ratios])
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    p = argparse.ArgumentParser(prog="python -m bench levels", description=(__doc__ or "").replace("``", "`"))
    size = shapes.Size()
    p.add_argument("--cells", type=positive, default=size.cells, help="rows to generate (default: %(default)s)")
    p.add_argument("--genes", type=positive, default=size.genes, help="columns to generate (default: %(default)s)")
    p.add_argument("--case", action="append", choices=CASES, metavar="NAME", help=f"default: {', '.join(CASES)}")
    p.add_argument("--rounds", type=positive, default=3, help="processes of each level (default: %(default)s)")
    p.add_argument("--threads", type=positive, help="default: csraxis's own number")
    add_outputs(p)
    options = p.parse_args(arguments)
    with progress_bar() as show:
        found = section(
            shapes.Size(options.cells, options.genes),
            names=options.case or CASES,
            rounds=options.rounds,
            threads=options.threads,
            show=show,
        )
    return finish("levels", found, lines(found), options, f"{options.cells:,} cells x {options.genes:,} genes")
