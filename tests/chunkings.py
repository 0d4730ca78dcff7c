"""The chain on one store in several chunkings, by threads and by clusters of processes: `python tests/chunkings.py`.

Prints what differs from the matrix in memory, and whether all bits are the same for the same chunks. A wrong result
raises.
"""

import argparse
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.linalg

import csraxis as cx
from dask_calls import dask

# What must be the same to the bit for any chunks, and what to a relative error or an angle.
SAME = ("totals", "count mean", "count variance", "chosen genes")
CLOSE = {"log mean": 1e-12, "log variance": 1e-12, "singular values": 1e-6, "subspace angle": 1e-3}


def results(adata, **options):
    """Numbers of all kinds that the library gives for counts: ndarrays."""
    logged = cx.normalize(adata.X.astype(float), target_sum=1e4, log1p=True)
    lazy = cx.sum(adata.X, axis=1), *cx.mean_var(adata.X, axis=0), *cx.mean_var(logged, axis=0)
    found = dict(zip(("totals", "count mean", "count variance", "log mean", "log variance"), dask.compute(*lazy)))
    cx.pp.recipe_pca(adata, **options)
    variance = adata.uns["pca"]["variance"]
    return found | {
        "chosen genes": adata.var["highly_variable"].to_numpy(),
        "statistics of genes": adata.var.drop(columns="highly_variable").to_numpy(float),
        "singular values": np.sqrt(variance * (adata.n_obs - 1)),
        "components": adata.varm["PCs"],
        "scores": adata.obsm["X_pca"],
    }


def same_bits(one, other):
    """Whether all results are, with one NaN for all."""
    return all(np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f") for name in one)


def differences(one, other):
    """Of what need not have the same bits in every chunking."""
    found = {
        name: np.max(np.abs(one[name] - other[name]) / np.maximum(np.abs(other[name]), 1e-300))
        for name in CLOSE
        if name in one
    }
    return found | {"subspace angle": scipy.linalg.subspace_angles(one["components"], other["components"]).max()}


def assert_same_answer(one, other):
    """What is promised of two chunkings of the same counts."""
    for name in SAME:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    for name, error in differences(one, other).items():
        assert error <= CLOSE[name], f"{name}: {error:.1e}"


@contextmanager
def threads(n):
    """Dask's threads."""
    with dask.config.set(scheduler="threads", num_workers=n):
        yield


@contextmanager
def processes(n):
    """A cluster of workers with one thread each."""
    from distributed import Client, LocalCluster

    with LocalCluster(n, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster, Client(cluster):
        yield


def main():
    """Run all of it and print a table."""
    import anndata

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from bench.generate import Parameters, load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=30_000)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*zarr")
    counts = load(Parameters(options.cells, options.genes))
    print(f"{options.cells:,} x {options.genes:,}, {counts.nnz:,} stored values, zarr")
    print(
        f"{'chunks':>16} {'by':12} {'seconds':>7} {'same bits*':>10} {'all bits**':>10}",
        *(f"{name:>15}" for name in CLOSE),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.zarr"
        anndata.AnnData(counts).write_zarr(path)
        start = time.perf_counter()
        whole = results(anndata.AnnData(counts))
        print(f"{'in memory':>16} {'2 threads':12} {time.perf_counter() - start:7.1f}", flush=True)
        del counts
        first = {}
        for name, how in (
            ("1 thread", threads(1)),
            ("2 threads", threads(2)),
            ("2 processes", processes(2)),
            ("4 processes", processes(4)),
        ):
            with how:
                for rows in (2_000, 20_000, None):
                    start = time.perf_counter()
                    found = results(cx.pp.open(path, chunk_rows=rows), chunk_rows=rows)
                    seconds = time.perf_counter() - start
                    assert_same_answer(found, whole)
                    same = same_bits(found, first.setdefault(rows, found))
                    assert same
                    errors = differences(found, whole)
                    chunks = f"{rows:,} rows" if rows else "as stored"
                    print(
                        f"{chunks:>16} {name:12} {seconds:7.1f} {'yes':>10} {'yes':>10}",
                        *(f"{errors[name]:15.1e}" for name in CLOSE),
                        flush=True,
                    )
    print("*  of totals, count moments and chosen genes: those in memory")
    print("** of everything: those of one thread and the same chunks")


if __name__ == "__main__":
    main()
