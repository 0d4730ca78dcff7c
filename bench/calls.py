"""How each library is called: the functions that the table of `contestants` names.

A function gets what the case hands out, ``(x, *extra)`` or ``(adata, *extra)``, and returns the result. Where the case
allows it and the library can, it works in place, as a user who cares for speed would. Libraries are imported at the
first call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy import sparse

from bench import exact
from bench.exact import MAX_VALUE, TARGET_SUM

if TYPE_CHECKING:
    from anndata import AnnData

Matrix: TypeAlias = sparse.csr_matrix
Axis: TypeAlias = Literal[0, 1]
MeanVar: TypeAlias = tuple[np.ndarray, np.ndarray]
Calls: TypeAlias = dict[str, Callable[..., Any]]


def flat(column_or_row: Any) -> np.ndarray:
    """One-dimensional, where a library returns np.matrix."""
    return np.asarray(column_or_row).ravel()


def csraxis() -> Calls:
    """Public functions; columns are taken by what `pp.highly_variable_genes(subset=True)` calls."""

    def cx(name: str, **options: Any) -> Callable[..., Any]:
        def call(x: Any, *extra: Any) -> Any:
            import csraxis

            return getattr(csraxis, name)(x, *extra, **options)

        return call

    def in_place(name: str, **options: Any) -> Callable[..., Any]:
        def call(x: Any, *extra: Any) -> Any:
            import csraxis

            return getattr(csraxis, name)(x, *extra, out=x, **options)

        return call

    def take_columns(x: Matrix, mask: np.ndarray) -> Matrix:
        from csraxis.dispatch._select import take

        return take(x, mask, axis=1)

    def log_moments(x: Matrix) -> MeanVar:
        """As `cx.pp.highly_variable_genes` has them."""
        from csraxis.dispatch import _moments, _partials

        mean, variance = _moments.mean_and_variance(_partials.moments(x, (0,), unlog=1.0), 1)
        return mean.ravel(), variance.ravel()

    return {
        "sum-rows": cx("sum", axis=1),
        "sum-columns": cx("sum", axis=0),
        "scale-rows": in_place("axis_scale", axis=0),
        "scale-columns": in_place("axis_scale", axis=1),
        "mean-var-columns": cx("mean_var", axis=0),
        "mean-var-rows": cx("mean_var", axis=1),
        "mean-var-rows-known": cx("mean_var", axis=1),
        "max-columns": cx("max", axis=0),
        "normalize": in_place("normalize", axis=1, target_sum=TARGET_SUM),
        "log1p": in_place("log1p"),
        "normalize-log1p": in_place("normalize", axis=1, target_sum=TARGET_SUM, log1p=True),
        "expm1": cx("expm1"),
        "multiply-sparse": cx("multiply"),
        "take-columns": take_columns,
        "take-columns-csc": take_columns,
        "log-moments": log_moments,
        "gram": cx("gram"),
        **_on_anndata("csraxis"),
        "normalize-log1p-anndata": _normalize_log1p,
        "normalize-log1p-anndata-int32": _normalize_log1p,
    }


def csraxis_two_calls() -> Calls:
    """Normalisation and logarithm one after the other, as scanpy does it."""
    calls = _on_anndata("csraxis")
    return {name: calls[name] for name in ("normalize-log1p-anndata", "normalize-log1p-anndata-int32")}


def _normalize_log1p(adata: AnnData) -> Matrix:
    import csraxis

    csraxis.pp.normalize_log1p(adata, target_sum=TARGET_SUM)
    return adata.X


def _on_anndata(package: str, *, pca: dict[str, Any] | None = None) -> Calls:
    """scanpy's functions, or those of the same names in csraxis."""

    def pp() -> Any:
        import importlib

        return importlib.import_module(package).pp

    def normalize_total(adata: AnnData) -> Matrix:
        pp().normalize_total(adata, target_sum=TARGET_SUM)
        return adata.X

    def log1p(adata: AnnData) -> Matrix:
        pp().log1p(adata)
        return adata.X

    def both(adata: AnnData) -> Matrix:
        normalize_total(adata)
        return log1p(adata)

    def variable_genes(adata: AnnData) -> np.ndarray:
        pp().highly_variable_genes(adata, n_top_genes=exact.n_genes(adata.n_vars), flavor="seurat")
        return adata.var["highly_variable"].to_numpy()

    def scale(adata: AnnData) -> Matrix:
        pp().scale(adata, zero_center=False, max_value=MAX_VALUE)
        return adata.X

    def components(adata: AnnData) -> np.ndarray:
        pp().pca(adata, n_comps=exact.n_comps(adata.X), **(pca or {}))
        return adata.obsm["X_pca"]

    return {
        "normalize-total-anndata": normalize_total,
        "log1p-anndata": log1p,
        "normalize-log1p-anndata": both,
        "normalize-log1p-anndata-int32": both,
        "variable-genes-anndata": variable_genes,
        "scale-anndata": scale,
        "pca-anndata": components,
    }


def scanpy() -> Calls:
    """Steps on AnnData; scaling by its internal function; columns of an AnnData."""

    def scale(x: Matrix, factors: np.ndarray, *, axis: Axis) -> Matrix:
        from scanpy._utils import axis_mul_or_truediv

        return axis_mul_or_truediv(x, factors, axis, operator.mul, out=x)

    def log1p(x: Matrix) -> Matrix:
        import scanpy as sc

        return sc.pp.log1p(x)

    def take_columns(adata: AnnData, mask: np.ndarray) -> Matrix:
        return adata[:, mask].copy().X

    on_anndata = _on_anndata("scanpy", pca={"svd_solver": "arpack"})
    return {
        "scale-rows": partial(scale, axis=0),
        "scale-columns": partial(scale, axis=1),
        "log1p": log1p,
        "normalize-log1p": on_anndata["normalize-log1p-anndata"],
        "take-columns": take_columns,
        "take-columns-csc": take_columns,
        **on_anndata,
    }


def autozyme() -> Calls:
    """scanpy's functions while they are patched; without those that the patch hands back to scanpy."""
    calls = _on_anndata("scanpy")
    del calls["scale-anndata"]
    return calls


def scipy() -> Calls:
    """Methods of the matrix, or what is usual on its arrays."""

    def mean_var(x: Matrix, *, axis: Axis, correction: int = 0) -> MeanVar:
        # the cast first: SciPy's mean(dtype=float64) adds in the dtype of the matrix
        x = x.astype(np.float64)
        mean = flat(x.mean(axis=axis))
        n = x.shape[axis]
        return mean, (flat(x.power(2).mean(axis=axis)) - mean**2) * (n / (n - correction))

    def scale_rows(x: Matrix, factors: np.ndarray) -> Matrix:
        x.data *= np.repeat(factors, np.diff(x.indptr))
        return x

    def scale_columns(x: Matrix, factors: np.ndarray) -> Matrix:
        x.data *= factors[x.indices]
        return x

    def normalize(x: Matrix) -> Matrix:
        totals = flat(x.sum(axis=1))
        return scale_rows(x, np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0))

    def log1p(x: Matrix) -> Matrix:
        np.log1p(x.data, out=x.data)
        return x

    def gram(x: Matrix) -> np.ndarray:
        x = x.astype(np.float64)
        return (x.T @ x).toarray()

    def take_columns(x: Matrix, mask: np.ndarray) -> Matrix:
        return x[:, mask]

    return {
        "sum-rows": lambda x: flat(x.sum(axis=1)),
        "sum-columns": lambda x: flat(x.sum(axis=0)),
        "scale-rows": scale_rows,
        "scale-columns": scale_columns,
        "mean-var-columns": partial(mean_var, axis=0),
        "mean-var-rows": partial(mean_var, axis=1),
        "mean-var-rows-known": partial(mean_var, axis=1),
        "max-columns": lambda x: x.max(axis=0).toarray().ravel(),
        "normalize": normalize,
        "log1p": log1p,
        "normalize-log1p": lambda x: log1p(normalize(x)),
        "expm1": lambda x: x.expm1(),
        "multiply-sparse": lambda x, other: x.multiply(other),
        "take-columns": take_columns,
        "take-columns-csc": take_columns,
        "log-moments": lambda x: mean_var(x.expm1(), axis=0, correction=1),
        "gram": gram,
    }


def scipy_diags() -> Calls:
    """Products with a diagonal matrix."""
    return {
        "scale-rows": lambda x, factors: sparse.diags(factors, format="csr") @ x,
        "scale-columns": lambda x, factors: x @ sparse.diags(factors, format="csr"),
    }


def sklearn() -> Calls:
    """utils.sparsefuncs, preprocessing.normalize, decomposition.PCA."""

    def scale_rows(x: Matrix, factors: np.ndarray) -> Matrix:
        from sklearn.utils.sparsefuncs import inplace_row_scale

        inplace_row_scale(x, factors)
        return x

    def scale_columns(x: Matrix, factors: np.ndarray) -> Matrix:
        from sklearn.utils.sparsefuncs import inplace_column_scale

        inplace_column_scale(x, factors)
        return x

    def mean_var(x: Matrix, *, axis: Axis) -> MeanVar:
        from sklearn.utils.sparsefuncs import mean_variance_axis

        return mean_variance_axis(x, axis=axis)

    def log_moments(x: Matrix) -> MeanVar:
        mean, var = mean_var(x.expm1(), axis=0)
        return mean, var * (x.shape[0] / (x.shape[0] - 1))

    def normalize(x: Matrix) -> Matrix:
        from sklearn.preprocessing import normalize

        # counts are not negative: their L1 norm is the total
        x = normalize(x, norm="l1", axis=1, copy=False)
        x.data *= np.float32(TARGET_SUM)
        return x

    def normalize_log1p(x: Matrix) -> Matrix:
        x = normalize(x)
        np.log1p(x.data, out=x.data)
        return x

    def components(adata: AnnData) -> np.ndarray:
        from sklearn.decomposition import PCA

        return PCA(exact.n_comps(adata.X), svd_solver="arpack", random_state=0).fit_transform(adata.X)

    return {
        "scale-rows": scale_rows,
        "scale-columns": scale_columns,
        "mean-var-columns": partial(mean_var, axis=0),
        "mean-var-rows": partial(mean_var, axis=1),
        "mean-var-rows-known": partial(mean_var, axis=1),
        "log-moments": log_moments,
        "normalize": normalize,
        "normalize-log1p": normalize_log1p,
        "pca-anndata": components,
    }


def fast_array_utils() -> Calls:
    """Its stats, with default dtypes."""

    def stat(name: str, **options: Any) -> Callable[..., Any]:
        def call(x: Matrix) -> Any:
            from fast_array_utils import stats

            return getattr(stats, name)(x, **options)

        return call

    return {
        "sum-rows": stat("sum", axis=1),
        "sum-columns": stat("sum", axis=0),
        "max-columns": stat("max", axis=0),
        "mean-var-columns": stat("mean_var", axis=0),
        "mean-var-rows": stat("mean_var", axis=1),
        "mean-var-rows-known": stat("mean_var", axis=1),
        "log-moments": lambda x: stat("mean_var", axis=0, correction=1)(x.expm1()),
    }


def fast_array_utils_float64() -> Calls:
    """Sums with dtype=float64."""

    def total(x: Matrix, *, axis: Axis) -> np.ndarray:
        from fast_array_utils import stats

        return stats.sum(x, axis=axis, dtype=np.float64)

    return {"sum-rows": partial(total, axis=1), "sum-columns": partial(total, axis=0)}


def pydata_sparse() -> Calls:
    """Of a GCXS array that shares the matrix's buffers; the results are new."""

    def back(x: Any) -> Matrix:
        return x.to_scipy_sparse()

    return {
        "sum-rows": lambda x: x.sum(axis=1).todense(),
        "sum-columns": lambda x: x.sum(axis=0).todense(),
        "scale-rows": lambda x, factors: back(x * factors[:, None]),
        "scale-columns": lambda x, factors: back(x * factors),
        "take-columns": lambda x, mask: back(x[:, mask]),
        "take-columns-csc": lambda x, mask: back(x[:, mask]),
    }


def as_gcxs(x: Matrix) -> Any:
    """The matrix as pydata/sparse has it, without a copy."""
    import sparse as pydata

    return pydata.GCXS.from_scipy_sparse(x)


def dask_ml() -> Calls:
    """PCA by the exact solver for tall matrices: a QR decomposition of the blocks."""

    def components(x: Any) -> np.ndarray:
        from dask_ml.decomposition import PCA

        return np.asarray(PCA(min(exact.N_COMPS, min(x.shape) - 1), svd_solver="tsqr").fit_transform(x))

    return {"pca-anndata": components}


def as_dense_blocks(adata: AnnData) -> Any:
    """X as a Dask array of dense blocks of rows, in memory; no block has fewer rows than columns."""
    import dask.array as da

    return da.from_array(adata.X.toarray(), chunks=(max(10_000, adata.n_vars), -1))
