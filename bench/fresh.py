"""From a fresh process to normalised and logged cells: ``python -m bench fresh``.

Each contestant is a script that imports what it needs, reads the matrix, normalises it and takes logarithms. Times are
of whole processes, interleaved. One process of each runs beforehand: bytecode and Numba's caches are warm.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import contestants, exact, generate, report

STEP = 1009
"""Every so many stored values are compared with the reference."""

READ = """
import time; begin = time.perf_counter()
import json, sys, numpy as np, scipy.sparse as sp
folder, cells, genes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data, indices, indptr = (np.load(f"{folder}/{name}.npy") for name in ("data", "indices", "indptr"))
x = sp.csr_array((data, indices, indptr), shape=(cells, genes))
"""
ARRAY = "import csraxis as cx\nx = cx.normalize(x, target_sum=1e4, log1p=True, out=x)\n"
# csr_matrix: older scanpy fails on csr_array
ANNDATA = "import anndata\nadata = anndata.AnnData(sp.csr_matrix(x))\n"
STEPS = "pp.normalize_total(adata, target_sum=1e4)\npp.log1p(adata)\nx = adata.X\n"
ALONE = "del x, data, indices, indptr\n"  # nothing but the AnnData refers to the matrix
FUSED = ALONE + "import csraxis.pp as pp\npp.normalize_log1p(adata, target_sum=1e4)\nx = adata.X\n"
SCANPY = "import scanpy\npp = scanpy.pp\n"
ANSWER = """
seconds = time.perf_counter() - begin
print(json.dumps([seconds, x.data[::{step}].astype(float).tolist()]))
"""


@dataclass(frozen=True)
class Process:
    """One row: a script."""

    name: str
    result: str
    """csr_array or AnnData."""
    script: str
    needs: tuple[str, ...]
    engine: str | None = None


PROCESSES = (
    Process("read only", "csr_array", "", ()),
    Process("csraxis[cython]", "csr_array", ARRAY, ("csraxis",), "cython"),
    Process("csraxis[numba]", "csr_array", ARRAY, ("csraxis", "numba"), "numba"),
    Process("scanpy", "csr_array", SCANPY + ANNDATA + STEPS + "x = sp.csr_array(x)\n", ("scanpy",)),
    Process("csraxis[cython]", "AnnData", ANNDATA + FUSED, ("csraxis", "anndata"), "cython"),
    Process("csraxis[numba]", "AnnData", ANNDATA + FUSED, ("csraxis", "anndata", "numba"), "numba"),
    Process("scanpy", "AnnData", SCANPY + ANNDATA + ALONE + STEPS, ("scanpy",)),
)


def absence(process: Process) -> str | None:
    """Why it cannot take part here, or None."""
    absent = [name for name in process.needs if importlib.util.find_spec(name) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    own = (c for c in contestants.CONTESTANTS if c.engine and c.engine == process.engine)
    return next((reason for c in own if (reason := contestants.absence(c))), None)


def _once(process: Process, folder: str, shape: tuple[int, int], threads: int | None) -> tuple[float, float, list]:
    """Seconds of the whole process, seconds inside it, and some of the values."""
    environment = dict(os.environ)
    if process.engine:
        environment["CSRAXIS_ENGINE"] = process.engine
    if threads:
        environment |= dict.fromkeys(("CSRAXIS_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    script = READ + process.script + ANSWER.format(step=STEP)
    command = [sys.executable, "-W", "ignore", "-c", script, folder, *map(str, shape)]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["without a word"])[-1])
    inside, values = json.loads(done.stdout.splitlines()[-1])
    return whole, inside, values


def section(cells: int = 10_000, genes: int = 30_000, rounds: int = 7, threads: int | None = None) -> dict[str, Any]:
    """The measurement as part of a document."""
    parameters = generate.Parameters(cells, genes)
    x = generate.load(parameters)
    records, present, failures = [], [], {}
    for process in PROCESSES:
        reason = absence(process)
        records.append({"name": process.name, "result": process.result, "status": "absent", "reason": reason})
        if reason is None:
            present.append((process, records[-1]))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "indices", "indptr"):
            np.save(Path(folder) / f"{name}.npy", getattr(x, name))
        expected = {True: exact.log_normalized(x).data[::STEP], False: x.data[::STEP].astype(float)}
        for process, record in present:
            try:
                values = np.array(_once(process, folder, x.shape, threads)[2])
                right = expected[bool(process.script)]
                if values.shape != right.shape or not np.allclose(values, right, rtol=1e-6, atol=0):
                    failures[id(record)] = "its values are wrong"
            except RuntimeError as error:
                failures[id(record)] = str(error)
            record |= {"status": "ok", "reason": None, "seconds": [], "inside": []}
        for _ in range(rounds):
            for process, record in present:
                if id(record) not in failures:
                    whole, inside, _ = _once(process, folder, x.shape, threads)
                    record["seconds"].append(whole)
                    record["inside"].append(inside)
    for _, record in present:
        if id(record) in failures:
            record |= {"status": "FAIL", "reason": failures[id(record)]}
    return {"cells": cells, "genes": genes, "stored": x.nnz, "rounds": rounds, "records": _with_ratios(records)}


def _with_ratios(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians, and scanpy's over each, for the same kind of result."""
    for record in records:
        for key in ("seconds", "inside"):
            values = record.setdefault(key, [])
            record[f"{key}_median"] = float(np.median(values)) if values else None
    for record in records:
        theirs = next((r for r in records if (r["name"], r["result"]) == ("scanpy", record["result"])), {})
        for key in ("seconds", "inside"):
            its, other = record[f"{key}_median"], theirs.get(f"{key}_median")
            record[f"scanpy_over_{key}"] = other / its if its and other else None
    return records


def lines(found: dict[str, Any]) -> list[list[str]]:
    """The table: heading and rows."""
    table = [["", "result", "whole process", "scanpy / it", "import to result", "scanpy / it"]]
    for r in found["records"]:
        cells = [r["name"], r["result"]]
        if r["status"] == "ok":
            for key in ("seconds", "inside"):
                cells += [report.duration(r[f"{key}_median"]), report.ratio(r[f"scanpy_over_{key}"])]
        else:
            cells += [f"{r['status']}: {r['reason']}", "", "", ""]
        table.append(cells)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a result of csraxis is wrong."""
    from bench.terminal import add_outputs, finish, positive

    p = argparse.ArgumentParser(prog="python -m bench fresh", description=(__doc__ or "").partition("\n\n")[2])
    p.add_argument("--cells", type=positive, default=10_000, help="default: %(default)s")
    p.add_argument("--genes", type=positive, default=30_000, help="default: %(default)s")
    p.add_argument("--rounds", type=positive, default=7, help="processes of each (default: %(default)s)")
    p.add_argument("--threads", type=positive, help="default: each library's own")
    add_outputs(p)
    options = p.parse_args(arguments)
    found = section(options.cells, options.genes, options.rounds, options.threads)
    what = (
        f"{found['cells']:,} cells x {found['genes']:,} genes, {found['stored']:,} stored values, read from .npy files"
    )
    status = finish("fresh", found, lines(found), options, what)
    return status or int(any(r["status"] == "FAIL" for r in found["records"] if r["name"].startswith("csraxis")))
