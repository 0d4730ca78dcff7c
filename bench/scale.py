"""The chain over stores of growing size, out of core: ``python -m bench scale``.

Each run is a process of its own: time, passes over the disk, peak memory, and the cost of a stored value.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bench import generate
from bench.report import duration, ratio
from bench.terminal import INSTALL, RESULTS, Show, add_outputs, finish, positive, progress_bar

CELLS = (100_000, 300_000, 1_000_000, 3_000_000)
BYTES_A_VALUE = 14
"""On disk, of a stored value: as it is generated, and in a store."""
READER_ROWS = 20_000
"""Cells in a chunk, for anndata's reader and scanpy."""
N_COMPS, MAX_VALUE = 50, 10
READER, OURS, BOUNDED, SCANPY = "anndata's reader", "csraxis", "csraxis, memory bounded", "scanpy on Dask"


def write(
    cells: int,
    genes: int,
    path: Path,
    *,
    compression: str | None = None,
    keep: bool = False,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> None:
    """Write a generated matrix as anndata writes it: `.zarr`, or `.h5ad` with some compression.

    Raises
    ------
    OSError
        If there is not enough room on the disk.
    """
    parameters = generate.Parameters(cells, genes)
    raw = generate.cache_folder() / parameters.key
    first = generate.chunk(parameters, 0)
    needed = BYTES_A_VALUE * first.nnz * cells // first.shape[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if needed > 0.8 * free:
        raise OSError(f"{cells:,} x {genes:,} take {needed / 1e9:.0f} GB on disk, of which {free / 1e9:.0f} are free")
    if not (raw / "indptr.npy").exists():
        generate.write(parameters, raw, progress)
    import anndata
    import pandas as pd

    # Mapped: neither anndata nor SciPy has it in memory.
    data, indices, indptr = (np.asarray(np.load(raw / f"{n}.npy", "r")) for n in ("data", "indices", "indptr"))
    x = sparse.csr_matrix((cells, genes), dtype=data.dtype)
    x.data, x.indices, x.indptr = data, indices, indptr if len(data) >= 2**31 else indptr.astype(np.int32)
    names = [pd.DataFrame(index=np.arange(n).astype(str)) for n in x.shape]
    adata = anndata.AnnData(x, obs=names[0], var=names[1])
    unfinished = path.with_name(f"unfinished-{path.name}")
    if path.suffix == ".zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about defaults of later versions
            adata.write_zarr(unfinished)
    else:
        adata.write_h5ad(unfinished, compression=compression)
    unfinished.rename(path)
    if not keep:
        shutil.rmtree(raw)


def measured(way: str, path: Path, *, threads: int = 2, memory: str | None = None) -> dict[str, Any]:
    """One run in a process of its own: seconds, stored values, peak memory, and what csraxis says of it."""
    job = json.dumps({"way": way, "path": str(path), "threads": threads, "memory": memory})
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "CSRAXIS_NUM_THREADS": str(threads)}
    environment["NUMBA_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", "bench", "scale", "--job", job]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"status": "FAIL", "reason": reason}
    return {"status": "ok", "reason": None, **json.loads(done.stdout.splitlines()[-1])}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """In the process of its own."""
    import dask

    from csraxis.cli._report import peak_memory

    ways = {READER: _read, OURS: _recipe, BOUNDED: partial(_recipe, memory=job["memory"]), SCANPY: _scanpy}
    with dask.config.set(scheduler="threads", num_workers=job["threads"]):
        result = ways[job["way"]](Path(job["path"]))
    return {**result, "peak": peak_memory()}


def _lazy(path: Path) -> Any:
    """The matrix as anndata reads it."""
    from anndata.experimental import read_elem_lazy

    if path.is_dir():
        import zarr

        stored = zarr.open_group(str(path), mode="r")["X"]
    else:
        import h5py

        stored = h5py.File(path, "r")["X"]
    n, m = stored.attrs["shape"]
    return read_elem_lazy(stored, chunks=(min(READER_ROWS, n), m))


def _read(path: Path) -> dict[str, Any]:
    """One plain pass."""
    x = _lazy(path)
    start = time.perf_counter()
    n_values = x.map_blocks(lambda block: np.array([[block.nnz]]), dtype=int, chunks=(1, 1)).sum().compute()
    return {"seconds": time.perf_counter() - start, "values": int(n_values)}


def _scanpy(path: Path) -> dict[str, Any]:
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(_lazy(path))
    start = time.perf_counter()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2000, adata.n_vars), subset=True)
    sc.pp.scale(adata, zero_center=False, max_value=MAX_VALUE)
    n_comps = min(N_COMPS, adata.n_vars - 1)
    sc.pp.pca(adata, n_comps=n_comps, svd_solver="covariance_eigh")
    np.asarray(adata.obsm["X_pca"])
    return {"seconds": time.perf_counter() - start, "shares": np.asarray(adata.uns["pca"]["variance_ratio"]).tolist()}


def _recipe(path: Path, memory: str | None = None) -> dict[str, Any]:
    import csraxis
    from csraxis.io._flat import traffic
    from csraxis.pp._plan import plan

    begun: list[tuple[str, float]] = []

    def progress(step: str, done: int, total: int) -> None:
        if not begun or begun[-1][0] != step:
            begun.append((step, time.perf_counter()))

    how = plan(path, memory=memory)
    rows = how.rows
    assert rows is not None
    before = traffic.n_bytes, traffic.n_values
    start = time.perf_counter()
    n_genes = rows.shape[1]
    adata = csraxis.pp.recipe_pca(
        path,
        n_top_genes=min(2000, n_genes),
        n_comps=min(N_COMPS, min(2000, n_genes) - 1),
        zero_center=False,
        max_value=MAX_VALUE,
        memory=memory,
        progress=progress,
    )
    end = time.perf_counter()
    times = [("opening", start), *begun, ("", end)]
    return {
        "seconds": end - start,
        "steps": {step: after - at for (step, at), (_, after) in itertools.pairwise(times)},
        "values": rows.data.length,
        "n_bytes": traffic.n_bytes - before[0],
        "passes": (traffic.n_values - before[1]) / max(rows.data.length, 1),
        "keeps": how.keeps,
        "planned_peak": how.peak,
        "shares": adata.uns["pca"]["variance_ratio"].tolist(),
    }


def section(
    folder: Path,
    *,
    cells: Sequence[int] = CELLS,
    genes: int = 30_000,
    memory: str = "2GB",
    threads: int = 2,
    repeats: int = 1,
    suffix: str = ".zarr",
    show: Show = lambda label, done, total: None,
) -> dict[str, Any]:
    """The measurement as part of a document; the ways take turns."""
    ways = [READER, OURS, BOUNDED] + ([SCANPY] if importlib.util.find_spec("scanpy") else [])
    found: dict[str, Any] = {"genes": genes, "memory": memory, "threads": threads, "repeats": repeats}
    found |= {"store": suffix, "ways": ways, "records": [], "left_out": []}
    for n in cells:
        path = folder / f"{n}x{genes}{suffix}"
        try:
            if not path.exists():
                show(f"{n:,} cells: writing", 0, 1)
                how = {"compression": "gzip"} if suffix == ".h5ad" else {}
                write(n, genes, path, progress=lambda done, total: show("generating", done, total), **how)
        except OSError as error:
            found["left_out"].append(str(error))
            continue
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for number in range(repeats):
            for place, way in enumerate(ways):
                show(f"{n:,} cells: {way}", number * len(ways) + place, repeats * len(ways))
                runs[way].append(measured(way, path, threads=threads, memory=memory))
        for way in ways:
            found["records"].append({"cells": n, "way": way, **_middle(runs[way])})
    _compare(found["records"])
    return found


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of the middle time; a failed one, if there is any."""
    failed = [run for run in runs if run["status"] != "ok"]
    return failed[0] if failed else sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]


def _compare(records: list[dict[str, Any]]) -> None:
    """A chain whose shares of the variance are not those of csraxis within its usual memory has no time."""
    for record in records:
        (own,) = (r for r in records if (r["cells"], r["way"]) == (record["cells"], OURS))
        if "shares" in record and "shares" in own:
            apart = float(np.max(np.abs(np.divide(record["shares"], own["shares"]) - 1)))
            record["apart"] = apart
            if apart > 1e-4:
                record |= {"status": "FAIL", "reason": f"shares of the variance differ by {apart:.1e}"}


def lines(found: dict[str, Any]) -> list[list[str]]:
    """The table: a row for each size and way."""
    table = [["cells", "", "time", "ns a value", "over the reader", "passes", "read", "peak memory"]]
    values = {r["cells"]: r["values"] for r in found["records"] if r.get("values")}
    readers = {r["cells"]: r["seconds"] for r in found["records"] if r["way"] == READER and r["status"] == "ok"}
    for r in found["records"]:
        head = [f"{r['cells']:,}", r["way"]]
        if r["status"] != "ok":
            table.append([*head, "FAIL", *[""] * 5])
            continue
        reader = readers.get(r["cells"])
        table.append(
            [
                *head,
                duration(r["seconds"]),
                f"{1e9 * r['seconds'] / values[r['cells']]:.1f}",
                ratio(r["seconds"] / reader) if reader else "-",
                f"{r['passes']:.2f}" if "passes" in r else "-",
                f"{r['n_bytes'] / 1e9:.2f} GB" if "n_bytes" in r else "-",
                f"{r['peak'] / 1e9:.2f} GB",
            ]
        )
    return table


def steps(found: dict[str, Any], way: str = OURS) -> list[list[str]]:
    """Nanoseconds a stored value in each step: a row for each size."""
    runs = [r for r in found["records"] if r["way"] == way and r["status"] == "ok"]
    names = list(dict.fromkeys(name for r in runs for name in r["steps"]))
    return [["cells", *names]] + [
        [f"{r['cells']:,}", *(f"{1e9 * r['steps'].get(name, 0) / r['values']:.2f}" for name in names)] for r in runs
    ]


def predicted(found: dict[str, Any], way: str = OURS) -> list[list[str]]:
    """What the two smallest runs say of the others: a constant, and a cost for each stored value."""
    runs = [r for r in found["records"] if r["way"] == way and r["status"] == "ok"]
    table = [["cells", "stored values", "predicted", "measured", "measured / predicted"]]
    if len(runs) < 3:
        return table
    slope = (runs[1]["seconds"] - runs[0]["seconds"]) / (runs[1]["values"] - runs[0]["values"])
    for r in runs[2:]:
        expected = runs[1]["seconds"] + slope * (r["values"] - runs[1]["values"])
        of_run = [duration(expected), duration(r["seconds"]), ratio(r["seconds"] / expected)]
        table.append([f"{r['cells']:,}", f"{r['values']:,}", *of_run])
    return table


def draw(found: dict[str, Any], path: Path) -> None:
    """Time and peak memory against the number of cells."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for way in found["ways"]:
        runs = [r for r in found["records"] if r["way"] == way and r["status"] == "ok"]
        for axis, key, unit in zip(axes, ("seconds", "peak"), (1, 1e9)):
            axis.plot([r["cells"] for r in runs], [r[key] / unit for r in runs], "o-", label=way)
    for axis, title, label in zip(
        axes, ("From a store on disk to principal components", "Memory"), ("seconds", "most that the process held, GB")
    ):
        axis.set(xscale="log", yscale="log", xlabel=f"cells (of {found['genes']:,} genes)", ylabel=label, title=title)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            ticks.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
            ticks.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def markdown(found: dict[str, Any]) -> str:
    """The tables for a page."""
    parts = []
    for heading, table in (
        ("Runs", lines(found)),
        ("Nanoseconds a stored value, by step", steps(found)),
        ("The same with memory bounded", steps(found, BOUNDED)),
        ("Predicted from the two smallest runs", predicted(found)),
    ):
        rows = [table[0], ["---:"] * len(table[0]), *table[1:]]
        parts += [f"### {heading}", "\n".join(f"| {' | '.join(cells)} |" for cells in rows)]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw; 1 if a run of csraxis failed."""
    p = argparse.ArgumentParser(prog="python -m bench scale", description=(__doc__ or "").replace("``", "`"))
    p.add_argument(
        "--cells",
        type=positive,
        action="append",
        metavar="N",
        help=f"repeatable; default: {', '.join(map(str, CELLS))}",
    )
    p.add_argument("--genes", type=positive, default=30_000, help="default: %(default)s")
    p.add_argument("--memory", default="2GB", help="of the bounded runs (default: %(default)s)")
    p.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    p.add_argument("--repeats", type=positive, default=1, help="runs of each, in turn (default: %(default)s)")
    p.add_argument("--format", choices=("zarr", "h5ad"), default="zarr", help="of the stores; h5ad with gzip")
    p.add_argument("--folder", type=Path, help="of the stores, which are kept (default: where matrices are cached)")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="picture (default: in bench/results/)")
    p.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the tables, too")
    p.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    add_outputs(p)
    options = p.parse_args(arguments)
    if options.job:
        print(json.dumps(work(options.job)))
        return 0
    absent = [name for name in ("anndata", "dask", "zarr") if importlib.util.find_spec(name) is None]
    if absent:
        print(f"python -m bench scale needs {', '.join(absent)}: {INSTALL}", file=sys.stderr)
        return 2
    with progress_bar() as show:
        found = section(
            options.folder or generate.cache_folder(),
            cells=sorted(options.cells or CELLS),
            genes=options.genes,
            memory=options.memory,
            threads=options.threads,
            repeats=options.repeats,
            suffix=f".{options.format}",
            show=show,
        )
    status = finish("scale", found, lines(found), options, "out of core, from a store to principal components")
    for r in found["records"]:
        if r["status"] != "ok":
            print(f"FAIL {r['way']}, {r['cells']:,} cells: {r['reason']}")
    for reason in found["left_out"]:
        print(f"left out: {reason}")
    if options.markdown:
        options.markdown.write_text(markdown(found))
    if importlib.util.find_spec("matplotlib") and not status:
        path = options.plot or RESULTS / "scale.png"
        draw(found, path)
        print(f"picture: {path}")
    return status or int(any(r["status"] != "ok" and r["way"] in (OURS, BOUNDED) for r in found["records"]))
