"""Who computes it: one row of `CONTESTANTS` each, with a function per case it takes part in.

A function gets what the case hands out, ``(x, *extra)`` or ``(adata,)``, and returns the result. Where the case
allows it and the library can, it works in place, as a user who cares for speed would. Libraries are imported at the
first call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy import sparse

from bench.cases import TARGET_SUM

if TYPE_CHECKING:
    from anndata import AnnData

Matrix: TypeAlias = sparse.csr_matrix
Axis: TypeAlias = Literal[0, 1]
MeanVar: TypeAlias = tuple[np.ndarray, np.ndarray]


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
    """Engine and threads of a contestant, entered outside the timed region."""
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
        yield


def _flat(column_or_row: np.matrix) -> np.ndarray:
    return np.asarray(column_or_row).ravel()


def _csraxis_sum(x: Matrix, *, axis: Axis) -> np.ndarray:
    import csraxis as cx

    return cx.sum(x, axis=axis)


def _csraxis_scale(x: Matrix, factors: np.ndarray, *, axis: Axis) -> Matrix:
    import csraxis as cx

    return cx.axis_scale(x, factors, axis=axis, out=x)


def _csraxis_mean_var(x: Matrix, *, axis: Axis) -> MeanVar:
    import csraxis as cx

    return cx.mean_var(x, axis=axis)


def _csraxis_max(x: Matrix) -> np.ndarray:
    import csraxis as cx

    return cx.max(x, axis=0)


def _csraxis_expm1(x: Matrix) -> Matrix:
    import csraxis as cx

    return cx.expm1(x)


def _csraxis_multiply(x: Matrix, other: Matrix) -> Matrix:
    import csraxis as cx

    return cx.multiply(x, other)


def _csraxis_gram(x: Matrix) -> np.ndarray:
    import csraxis as cx

    return cx.gram(x)


def _csraxis_normalize(x: Matrix) -> Matrix:
    import csraxis as cx

    return cx.normalize(x, axis=1, target_sum=TARGET_SUM, log1p=True, out=x)


def _csraxis_anndata(adata: AnnData) -> Matrix:
    import csraxis as cx

    cx.pp.normalize_log1p(adata, target_sum=TARGET_SUM)
    return adata.X


def _scipy_sum(x: Matrix, *, axis: Axis) -> np.ndarray:
    return _flat(x.sum(axis=axis))


def _scipy_scale_rows(x: Matrix, factors: np.ndarray) -> Matrix:
    x.data *= np.repeat(factors, np.diff(x.indptr))
    return x


def _scipy_scale_columns(x: Matrix, factors: np.ndarray) -> Matrix:
    x.data *= factors[x.indices]
    return x


def _scipy_mean_var(x: Matrix, *, axis: Axis) -> MeanVar:
    # the cast first: SciPy's mean(dtype=float64) adds in the dtype of the matrix
    x = x.astype(np.float64)
    mean = _flat(x.mean(axis=axis))
    return mean, _flat(x.power(2).mean(axis=axis)) - mean**2


def _scipy_normalize(x: Matrix) -> Matrix:
    totals = _scipy_sum(x, axis=1)
    factors = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    x.data *= np.repeat(factors, np.diff(x.indptr))
    np.log1p(x.data, out=x.data)
    return x


def _scipy_gram(x: Matrix) -> np.ndarray:
    x = x.astype(np.float64)
    return (x.T @ x).toarray()


def _diags_rows(x: Matrix, factors: np.ndarray) -> Matrix:
    return sparse.diags(factors, format="csr") @ x


def _diags_columns(x: Matrix, factors: np.ndarray) -> Matrix:
    return x @ sparse.diags(factors, format="csr")


def _sklearn_scale_rows(x: Matrix, factors: np.ndarray) -> Matrix:
    from sklearn.utils.sparsefuncs import inplace_row_scale

    inplace_row_scale(x, factors)
    return x


def _sklearn_scale_columns(x: Matrix, factors: np.ndarray) -> Matrix:
    from sklearn.utils.sparsefuncs import inplace_column_scale

    inplace_column_scale(x, factors)
    return x


def _sklearn_mean_var(x: Matrix, *, axis: Axis) -> MeanVar:
    from sklearn.utils.sparsefuncs import mean_variance_axis

    return mean_variance_axis(x, axis=axis)


def _sklearn_normalize(x: Matrix) -> Matrix:
    from sklearn.preprocessing import normalize

    # counts are not negative: their L1 norm is the total
    x = normalize(x, norm="l1", axis=1, copy=False)
    x.data *= np.float32(TARGET_SUM)
    np.log1p(x.data, out=x.data)
    return x


def _scanpy_scale(x: Matrix, factors: np.ndarray, *, axis: Axis) -> Matrix:
    from scanpy._utils import axis_mul_or_truediv

    return axis_mul_or_truediv(x, factors, axis, operator.mul, out=x)


def _scanpy_anndata(adata: AnnData) -> Matrix:
    import scanpy as sc

    sc.pp.normalize_total(adata, target_sum=TARGET_SUM)
    sc.pp.log1p(adata)
    return adata.X


def _fau_sum(x: Matrix, *, axis: Axis, dtype: type | None = None) -> np.ndarray:
    from fast_array_utils import stats

    return stats.sum(x, axis=axis, dtype=dtype)


def _fau_max(x: Matrix) -> np.ndarray:
    from fast_array_utils import stats

    return stats.max(x, axis=0)


def _fau_mean_var(x: Matrix, *, axis: Axis) -> MeanVar:
    from fast_array_utils import stats

    return stats.mean_var(x, axis=axis)


_CSRAXIS: dict[str, Callable[..., Any]] = {
    "sum-rows": partial(_csraxis_sum, axis=1),
    "sum-columns": partial(_csraxis_sum, axis=0),
    "scale-rows": partial(_csraxis_scale, axis=0),
    "scale-columns": partial(_csraxis_scale, axis=1),
    "mean-var-columns": partial(_csraxis_mean_var, axis=0),
    "mean-var-rows": partial(_csraxis_mean_var, axis=1),
    "max-columns": _csraxis_max,
    "expm1": _csraxis_expm1,
    "multiply-sparse": _csraxis_multiply,
    "gram": _csraxis_gram,
    "normalize-log1p": _csraxis_normalize,
    "normalize-log1p-anndata": _csraxis_anndata,
}

CONTESTANTS = (
    Contestant("csraxis[cython]", "csraxis", "csraxis", _CSRAXIS, engine="cython"),
    Contestant("csraxis[numba]", "csraxis", "csraxis[numba]", _CSRAXIS, engine="numba"),
    Contestant(
        "scipy",
        "scipy",
        "scipy",
        {
            "sum-rows": partial(_scipy_sum, axis=1),
            "sum-columns": partial(_scipy_sum, axis=0),
            "scale-rows": _scipy_scale_rows,
            "scale-columns": _scipy_scale_columns,
            "mean-var-columns": partial(_scipy_mean_var, axis=0),
            "mean-var-rows": partial(_scipy_mean_var, axis=1),
            "max-columns": lambda x: x.max(axis=0).toarray().ravel(),
            "expm1": lambda x: x.expm1(),
            "multiply-sparse": lambda x, other: x.multiply(other),
            "gram": _scipy_gram,
            "normalize-log1p": _scipy_normalize,
        },
        note="scaling on x.data in place; variance in float64 as the mean of squares minus the squared mean",
    ),
    Contestant(
        "scipy[diags]",
        "scipy",
        "scipy",
        {"scale-rows": _diags_rows, "scale-columns": _diags_columns},
        note="product with a diagonal matrix, a new matrix",
    ),
    Contestant(
        "scikit-learn",
        "sklearn",
        "scikit-learn",
        {
            "scale-rows": _sklearn_scale_rows,
            "scale-columns": _sklearn_scale_columns,
            "mean-var-columns": partial(_sklearn_mean_var, axis=0),
            "mean-var-rows": partial(_sklearn_mean_var, axis=1),
            "normalize-log1p": _sklearn_normalize,
        },
        note="utils.sparsefuncs; preprocessing.normalize(norm='l1') with NumPy's log1p",
    ),
    Contestant(
        "scanpy",
        "scanpy",
        "scanpy",
        {
            "scale-rows": partial(_scanpy_scale, axis=0),
            "scale-columns": partial(_scanpy_scale, axis=1),
            "normalize-log1p-anndata": _scanpy_anndata,
        },
        note="axis_mul_or_truediv; pp.normalize_total, then pp.log1p",
        threaded_by_numba=True,
    ),
    Contestant(
        "fast-array-utils",
        "fast_array_utils",
        "fast-array-utils",
        {
            "sum-rows": partial(_fau_sum, axis=1),
            "sum-columns": partial(_fau_sum, axis=0),
            "max-columns": _fau_max,
            "mean-var-columns": partial(_fau_mean_var, axis=0),
            "mean-var-rows": partial(_fau_mean_var, axis=1),
        },
        note="default dtypes: sums in float32",
        threaded_by_numba=True,
    ),
    Contestant(
        "fast-array-utils[float64]",
        "fast_array_utils",
        "fast-array-utils",
        {
            "sum-rows": partial(_fau_sum, axis=1, dtype=np.float64),
            "sum-columns": partial(_fau_sum, axis=0, dtype=np.float64),
        },
        note="dtype=float64",
        threaded_by_numba=True,
    ),
)
