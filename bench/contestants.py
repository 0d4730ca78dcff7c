"""Who computes it: one row of `CONTESTANTS` each; `calls` has the functions."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from bench import calls
from bench.cases import around


@dataclass(frozen=True)
class Contestant:
    """One row: a library, or one way to use it."""

    name: str
    package: str
    """The import name that must be there."""
    distribution: str
    """What pip calls it."""
    runs: dict[str, Callable[..., Any]]
    """Case name to function."""
    engine: str | None = None
    """Engine of csraxis; None for the others."""
    note: str = ""
    threaded_by_numba: bool = False
    """Takes its number of threads from Numba."""
    converts: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Case name to what makes the library's own kind of object, outside the time."""
    quick: bool = True
    """Whether it takes part in a quick run unless it is named."""
    at_most: int | None = None
    """Stored values of a matrix that it takes part with unless it is named: of more it takes minutes a call."""
    within: Callable[[int | None], AbstractContextManager] | None = None
    """(threads) to a context of each call, entered outside the time."""


def absence(contestant: Contestant) -> str | None:
    """Why it cannot take part here, or None."""
    if importlib.util.find_spec(contestant.package) is None:
        return f"not installed (pip install {contestant.distribution})"
    if contestant.engine is None:
        return None
    import csraxis as cx

    try:
        with cx.config(engine=contestant.engine):
            cx.sum(sparse.csr_matrix(np.ones((2, 2))), axis=0)
    except ImportError as error:
        return f"engine not available: {error}"
    return None


@contextlib.contextmanager
def settings(contestant: Contestant, threads: int | None) -> Iterator[None]:
    """Engine, threads and patches of a contestant, entered outside the timed region."""
    with contextlib.ExitStack() as stack:
        if contestant.engine is not None:
            import csraxis as cx

            stack.enter_context(cx.config(engine=contestant.engine, threads=threads))
        if contestant.threaded_by_numba and threads is not None:
            import numba

            stack.callback(numba.set_num_threads, numba.get_num_threads())
            numba.set_num_threads(min(threads, numba.get_num_threads()))
        stack.enter_context(warnings.catch_warnings())
        # scanpy's, and csraxis's as its replacement: the text matrix has empty rows on purpose
        warnings.filterwarnings("ignore", message="Some cells have zero counts", category=UserWarning)
        # autozyme's, of int32 counts
        warnings.filterwarnings("ignore", message="autozyme.scanpy: input AnnData", category=RuntimeWarning)
        if contestant.within is not None:
            stack.enter_context(contestant.within(threads))
        yield


@contextlib.contextmanager
def patched_scanpy(threads: int | None) -> Iterator[None]:
    """scanpy with autozyme's functions, which take their threads from the environment."""
    # Left alone, autozyme would change Numba's threading layer for every library in this process.
    wanted = {"NUMBA_THREADING_LAYER": os.environ.get("NUMBA_THREADING_LAYER", "default"), "AUTOZYME_QUIET": "1"}
    with _environment(wanted | ({"ZYME_THREADS": str(threads)} if threads else {})):
        with contextlib.redirect_stderr(io.StringIO()):  # its banner
            import autozyme

            if not autozyme.activate("scanpy"):
                raise RuntimeError("autozyme does not patch this scanpy")
        try:
            yield
        finally:
            autozyme.deactivate("scanpy")


@contextlib.contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def dask_threads(threads: int | None) -> Iterator[None]:
    """Dask's own threads, as many as the others, each with one for BLAS."""
    import dask
    from threadpoolctl import threadpool_limits

    with (
        threadpool_limits(1, "blas"),
        dask.config.set(scheduler="threads", **({"num_workers": threads} if threads else {})),
    ):
        yield


CONTESTANTS = (
    Contestant(
        "csraxis[cython]",
        "csraxis",
        "csraxis",
        calls.csraxis(),
        engine="cython",
        note="2,000 columns and log-moments by what pp.highly_variable_genes calls for them",
    ),
    Contestant("csraxis[numba]", "csraxis", "csraxis[numba]", calls.csraxis(), engine="numba"),
    Contestant(
        "csraxis[cython], two calls",
        "csraxis",
        "csraxis",
        calls.csraxis_two_calls(),
        engine="cython",
        note="pp.normalize_total, then pp.log1p; without 'two calls' pp.normalize_log1p",
    ),
    Contestant(
        "csraxis[numba], two calls",
        "csraxis",
        "csraxis[numba]",
        calls.csraxis_two_calls(),
        engine="numba",
        note="the same",
    ),
    Contestant(
        "scipy",
        "scipy",
        "scipy",
        calls.scipy(),
        note="scaling on x.data in place; variance in float64, mean of squares minus squared mean; x[:, mask]",
    ),
    Contestant(
        "scipy[diags]",
        "scipy",
        "scipy",
        calls.scipy_diags(),
        note="product with a diagonal matrix, a new matrix",
    ),
    Contestant(
        "scikit-learn",
        "sklearn",
        "scikit-learn",
        calls.sklearn(),
        note="utils.sparsefuncs; preprocessing.normalize(norm='l1') with NumPy's log1p; PCA(svd_solver='arpack')",
    ),
    Contestant(
        "scanpy",
        "scanpy",
        "scanpy",
        calls.scanpy(),
        note="axis_mul_or_truediv; adata[:, mask].copy(); on AnnData pp.*, PCA with svd_solver='arpack'",
        threaded_by_numba=True,
        converts=dict.fromkeys(("normalize-log1p", "take-columns", "take-columns-csc"), around),
    ),
    Contestant(
        "autozyme",
        "autozyme",
        "autozyme",
        calls.autozyme(),
        note="scanpy's functions, patched for these calls only; it hands scale(zero_center=False) back to scanpy",
        threaded_by_numba=True,
        within=patched_scanpy,
    ),
    Contestant(
        "fast-array-utils",
        "fast_array_utils",
        "fast-array-utils",
        calls.fast_array_utils(),
        note="default dtypes: sums in float32",
        threaded_by_numba=True,
    ),
    Contestant(
        "fast-array-utils[float64]",
        "fast_array_utils",
        "fast-array-utils",
        calls.fast_array_utils_float64(),
        note="dtype=float64",
        threaded_by_numba=True,
    ),
    Contestant(
        "pydata/sparse",
        "sparse",
        "sparse",
        calls.pydata_sparse(),
        note="GCXS arrays, one thread; scaling makes a new array",
        quick=False,  # half a minute of compiling
        converts=dict.fromkeys(calls.pydata_sparse(), calls.as_gcxs),
    ),
    Contestant(
        "dask-ml",
        "dask_ml",
        "dask-ml",
        calls.dask_ml(),
        note="PCA(svd_solver='tsqr') of dense blocks of rows in memory; making them dense is not timed",
        quick=False,  # five seconds a call
        at_most=20_000_000,
        converts={"pca-anndata": calls.as_dense_blocks},
        within=dask_threads,
    ),
)
