"""Large stores, and one run over them in a process of its own: time, passes over the disk, peak memory.

python -m bench.scale write 300000 /tmp/csraxis-scale/300k.zarr
python -m bench.scale run /tmp/csraxis-scale/300k.zarr --memory 2GB
python -m bench.scale run /tmp/csraxis-scale/300k.zarr --reader
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bench import generate

BYTES_A_VALUE = 14
"""On disk, of a stored value: as it is generated, and in a store."""
READER_ROWS = 20_000


def write(cells: int, genes: int, path: Path, *, compression: str | None = None, keep: bool = False) -> None:
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
        generate.write(parameters, raw, lambda done, total: print(f"{done}/{total}", end="\r", file=sys.stderr))
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
        adata.write_zarr(unfinished)
    else:
        adata.write_h5ad(unfinished, compression=compression)
    unfinished.rename(path)
    if not keep:
        shutil.rmtree(raw)


def measured(path: Path, *, threads: int = 2, limit: float | None = None, **options: Any) -> dict[str, Any]:
    """What `run` gives, in a process of its own; `options` are its parameters."""
    command = [sys.executable, "-m", "bench.scale", "child", str(path), json.dumps({"threads": threads, **options})]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "CSRAXIS_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"the run over {path} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(path: Path, *, threads: int, memory: str | None = None, reader: bool = False) -> dict[str, Any]:
    """The chain over a store, or one plain pass of anndata's lazy reader: seconds, passes, bytes read, peak memory."""
    import dask

    with dask.config.set(scheduler="threads", num_workers=threads):
        result = _read(path) if reader else _chain(path, memory)
    return {**result, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def _read(path: Path) -> dict[str, Any]:
    """As anndata reads it, `READER_ROWS` cells at a time."""
    from anndata.experimental import read_elem_lazy

    if path.is_dir():
        import zarr

        stored = zarr.open_group(str(path), mode="r")["X"]
    else:
        import h5py

        stored = h5py.File(path, "r")["X"]
    n, m = stored.attrs["shape"]
    x = read_elem_lazy(stored, chunks=(min(READER_ROWS, n), m))
    start = time.perf_counter()
    n_values = x.map_blocks(lambda block: np.array([[block.nnz]]), dtype=int, chunks=(1, 1)).sum().compute()
    return {"seconds": time.perf_counter() - start, "n_values": int(n_values)}


def _chain(path: Path, memory: str | None) -> dict[str, Any]:
    import csraxis
    from csraxis.io._flat import traffic
    from csraxis.pp._plan import plan

    begun: list[tuple[str, float]] = []

    def progress(step: str, done: int, total: int) -> None:
        if not begun or begun[-1][0] != step:
            begun.append((step, time.perf_counter()))

    how = plan(path, memory=memory)
    before = traffic.n_bytes, traffic.n_values
    start = time.perf_counter()
    adata = csraxis.pp.recipe_pca(path, memory=memory, progress=progress)
    end = time.perf_counter()
    times = [("opening", start), *begun, ("", end)]
    n_values = how.rows.data.length if how.rows else 0
    return {
        "seconds": end - start,
        "steps": {step: after - at for (step, at), (_, after) in pairwise(times)},
        "n_values": n_values,
        "n_bytes": traffic.n_bytes - before[0],
        "passes": (traffic.n_values - before[1]) / max(n_values, 1),
        "plan": {"keeps": how.keeps, "passes": how.passes, "peak": how.peak, "blocks": len(how.edges) - 1},
        "variance": adata.uns["pca"]["variance"].tolist(),
    }


def main() -> None:
    """Write a store, or run over one."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writes = commands.add_parser("write", help="generate cells, and write them as anndata does")
    writes.add_argument("cells", type=int)
    writes.add_argument("path", type=Path)
    writes.add_argument("--genes", type=int, default=30_000)
    writes.add_argument("--compression", choices=("gzip", "lzf"), help="of .h5ad")
    writes.add_argument("--keep", action="store_true", help="keep the raw arrays, too")
    runs = commands.add_parser("run", help="the chain, or one pass of a reader, in a process of its own")
    runs.add_argument("path", type=Path)
    runs.add_argument("--memory")
    runs.add_argument("--threads", type=int, default=2)
    runs.add_argument("--reader", action="store_true", help="one plain pass of anndata's lazy reader instead")
    child = commands.add_parser("child")
    child.add_argument("path", type=Path)
    child.add_argument("options", type=json.loads)
    options = parser.parse_args()
    if options.command == "write":
        write(options.cells, options.genes, options.path, compression=options.compression, keep=options.keep)
    elif options.command == "run":
        found = measured(options.path, threads=options.threads, memory=options.memory, reader=options.reader)
        print(json.dumps({key: value for key, value in found.items() if key != "variance"}, indent=1))
    else:
        print(json.dumps(run(options.path, **options.options)))


if __name__ == "__main__":
    main()
