"""Quality control: totals, genes and cells counted, shares of the most expressed genes; and filters by them."""

from collections.abc import Collection
from functools import partial, reduce
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..dispatch import _folds, _partials
from ..dispatch._inputs import compressed, container, is_dask, is_sparse, with_data
from ..dispatch._reductions import sum as axis_sum
from ..dispatch._rows import fold
from ..dispatch._select import take
from ._anndata import Subset, actual, check_mask, check_matrix, get_matrix, is_anndata, result_dtype, warn


class Counts(NamedTuple):
    """Of each cell: its total, how many genes it has, totals of its top genes and of gene sets; and of each gene."""

    totals: np.ndarray  # (cells,)
    genes: np.ndarray  # (cells,)
    tops: np.ndarray  # (cells, len(percent_top))
    in_sets: np.ndarray  # (cells, len(qc_vars))
    gene_totals: np.ndarray  # (genes,)
    cells: np.ndarray  # (genes,)


def calculate_qc_metrics(
    adata: Any,
    *,
    expr_type: str = "counts",
    var_type: str = "genes",
    qc_vars: Collection[str] | str = (),
    percent_top: Collection[int] | None = (50, 100, 200, 500),
    layer: str | None = None,
    use_raw: bool = False,
    inplace: bool = False,
    log1p: bool = True,
    parallel: bool | None = None,
) -> Any:
    """Quality control metrics of cells and genes, in one pass.

    Follows `scanpy.pp.calculate_qc_metrics` (scanpy 1.12.4); the matrix is not changed (scanpy removes stored zeros).

    Parameters
    ----------
    adata : AnnData
        In memory or over Dask. Stored values that are zero do not count as expressed.
    expr_type, var_type : str
        How the values and the columns are called in the names of the metrics.
    qc_vars : str or collection of str
        Boolean columns of `adata.var` (such as "mito"): the total and share of these genes in each cell.
    percent_top : collection of int, optional
        The share (in percent) that the most expressed genes of each cell have of its total, for each number of genes.
    layer : str, optional
        The layer to use instead of X.
    use_raw : bool
        Use `adata.raw.X`.
    inplace : bool
        Write the metrics to `adata.obs` and `adata.var` instead of returning them.
    log1p : bool
        Add log(1 + metric) of counts and means.
    parallel : bool, optional
        Deprecated by scanpy; it has no effect.

    Returns
    -------
    None, or (DataFrame of cells, DataFrame of genes)
        `n_genes_by_counts`, `total_counts`, `pct_counts_in_top_50_genes`, `total_counts_mito`, `pct_counts_mito`, ...;
        `n_cells_by_counts`, `mean_counts`, `pct_dropout_by_counts`, `total_counts`. A cell without counts has NaN
        shares.

    Raises
    ------
    IndexError
        If `percent_top` asks for more genes than there are, or fewer than one.
    KeyError, TypeError, ValueError
        For a column of `var` that is missing or not boolean, another container, or a malformed matrix.

    Examples
    --------
    >>> import csraxis as cx, anndata, scipy.sparse as sp
    >>> adata = anndata.AnnData(sp.csr_matrix([[1.0, 0, 3], [0, 0, 2]]))
    >>> obs, var = cx.pp.calculate_qc_metrics(adata, percent_top=[1], log1p=False)
    >>> print(obs.to_string(index=False))
     n_genes_by_counts  total_counts  pct_counts_in_top_1_genes
                     2           4.0                       75.0
                     1           2.0                      100.0
    """
    if parallel is not None:
        warn("Argument `parallel` is deprecated, and currently has no effect.", FutureWarning)
    if not is_anndata(adata):
        raise TypeError(f"adata must be an AnnData, got {type(adata).__module__}.{type(adata).__name__}")
    if use_raw and layer is not None:
        raise ValueError("Cannot use expression from both layer and raw. You provided: use_raw=True and a layer.")
    if not use_raw:
        check_matrix(adata, layer, None)
    source = adata.raw if use_raw else adata
    x = container(source.X if use_raw else get_matrix(adata, layer, None), "adata")
    if inplace and use_raw and not (source.var_names.is_unique and adata.var_names.isin(source.var_names).all()):
        raise ValueError("adata.raw does not have each gene of adata.var by its name, once: use inplace=False")
    names = [qc_vars] if isinstance(qc_vars, str) else list(qc_vars)
    sets = [check_mask(source, source.var[name], 1, f"qc_vars {name!r}") for name in names]
    ns = sorted(percent_top) if percent_top else []
    if ns and not 0 < ns[0] <= ns[-1] <= x.shape[1]:
        raise IndexError("Positions outside range of features.")
    counted = _count(x, ns, sets)
    frames = (
        _obs_metrics(adata.obs_names, counted, x.dtype, expr_type, var_type, names, ns, log1p),
        _var_metrics(source.var_names, counted, x, expr_type, log1p),
    )
    if not inplace:
        return frames
    actual(adata)
    for frame, metrics in zip((adata.obs, adata.var), frames):
        frame[metrics.columns] = metrics
    return None


def _count(x: Any, ns: list[int], sets: list[np.ndarray]) -> Counts:
    unique = sorted(set(ns))
    # The top genes of a cell are among all of its genes; all else adds up over chunks of genes.
    parts = fold(x, partial(_counts_of, ns=unique), _merge_counts, columns=sets, whole=bool(ns))
    cells = [reduce(np.add, column) for column in list(zip(*parts))[:4]]
    genes = [np.concatenate(column) for column in list(zip(*parts))[4:]]
    counted = Counts(*cells, *genes)
    return counted._replace(tops=counted.tops[:, [unique.index(n) for n in ns]])


def _counts_of(block: Any, *sets: np.ndarray, ns: list[int]) -> Counts:
    of_sets = [_partials.sums(take(block, genes, axis=1), (1,)).total for genes in sets]
    return Counts(
        _partials.sums(block, (1,)).total.ravel(),
        _partials.counts(block, (1,)).ravel(),
        _folds.tops(block, ns) if ns else np.zeros((block.shape[0], 0)),
        np.hstack(of_sets) if sets else np.zeros((block.shape[0], 0)),
        _partials.sums(block, (0,)).total.ravel(),
        _partials.counts(block, (0,)).ravel(),
    )


def _merge_counts(parts: list[Counts]) -> Counts:
    columns = list(zip(*parts))
    return Counts(*map(np.concatenate, columns[:4]), *(np.sum(column, axis=0) for column in columns[4:]))


def _obs_metrics(
    index: Any, counted: Counts, dtype: np.dtype, expr: str, var: str, names: list[str], ns: list[int], log: bool
) -> Any:
    import pandas as pd

    metrics = {f"n_{var}_by_{expr}": counted.genes, f"total_{expr}": as_summed(counted.totals, dtype)}
    logged = list(metrics)
    with np.errstate(all="ignore"):
        shares = counted.tops / counted.totals[:, None] * 100
        for n, share in zip(ns, shares.T):
            metrics[f"pct_{expr}_in_top_{n}_{var}"] = share
        for name, total in zip(names, counted.in_sets.T):
            metrics[f"total_{expr}_{name}"] = as_summed(total, dtype)
            logged.append(f"total_{expr}_{name}")
            metrics[f"pct_{expr}_{name}"] = as_summed(total, dtype) / metrics[f"total_{expr}"] * 100
    return pd.DataFrame(_with_logs(metrics, logged if log else []), index=index)


def _var_metrics(index: Any, counted: Counts, x: Any, expr: str, log: bool) -> Any:
    import pandas as pd

    n = x.shape[0]
    with np.errstate(all="ignore"):
        metrics = {
            f"n_cells_by_{expr}": counted.cells,
            f"mean_{expr}": counted.gene_totals / np.float64(n),
            f"pct_dropout_by_{expr}": (1 - counted.cells / np.float64(n)) * 100,
            f"total_{expr}": as_summed(counted.gene_totals, x.dtype),
        }
    return pd.DataFrame(_with_logs(metrics, [f"mean_{expr}", f"total_{expr}"] if log else []), index=index)


def _with_logs(metrics: dict[str, np.ndarray], logged: list[str]) -> dict[str, np.ndarray]:
    """The metrics, with log(1 + metric) after each of those."""
    result = {}
    for name, values in metrics.items():
        result[name] = values
        if name in logged:
            with np.errstate(all="ignore"):
                result[f"log1p_{name}"] = np.log1p(values)
    return result


def as_summed(totals: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Sums in the type that `csraxis.sum` gives for values of `dtype`."""
    with np.errstate(all="ignore"):
        return totals.astype(dtype.newbyteorder("=")) if dtype.kind == "f" else totals


def filter_cells(
    data: Any,
    *,
    min_counts: int | None = None,
    min_genes: int | None = None,
    max_counts: int | None = None,
    max_genes: int | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """Keep the cells with enough, or not too many, counts or genes.

    Follows `scanpy.pp.filter_cells` (scanpy 1.12.4). A gene is expressed in a cell where its value is positive.

    Parameters
    ----------
    data : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    min_counts, min_genes, max_counts, max_genes : int, optional
        Exactly one of them: the smallest or largest total, or number of genes expressed, of a cell that is kept.
    inplace : bool
        False: leave an AnnData alone and return the results. Arrays are never changed.
    copy : bool
        Work on a copy of an AnnData, and return it.

    Returns
    -------
    None, AnnData or (ndarray of bool of shape (cells,), ndarray of shape (cells,))
        An AnnData is cut down to the cells that are kept and gets `obs["n_counts"]` or `obs["n_genes"]`. For an array,
        or with `inplace=False`: which cells are kept, and the numbers; lazy for a Dask array.

    Raises
    ------
    TypeError, ValueError
        Unless exactly one limit is given; for any other container or a malformed matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.filter_cells(sp.csr_matrix([[1, 0, 3], [0, 0, 2]]), min_genes=2)
    (array([ True, False]), array([2, 1]))
    """
    limits = {"min_counts": min_counts, "min_genes": min_genes, "max_counts": max_counts, "max_genes": max_genes}
    return _filter(data, 0, limits, "n_genes", inplace, copy)


def filter_genes(
    data: Any,
    *,
    min_counts: int | None = None,
    min_cells: int | None = None,
    max_counts: int | None = None,
    max_cells: int | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """Keep the genes with enough, or not too many, counts or cells.

    Follows `scanpy.pp.filter_genes` (scanpy 1.12.4). A gene is expressed in a cell where its value is positive.

    Parameters
    ----------
    data : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    min_counts, min_cells, max_counts, max_cells : int, optional
        Exactly one of them: the smallest or largest total, or number of cells that express it, of a gene that is kept.
    inplace : bool
        False: leave an AnnData alone and return the results. Arrays are never changed.
    copy : bool
        Work on a copy of an AnnData, and return it.

    Returns
    -------
    None, AnnData or (ndarray of bool of shape (genes,), ndarray of shape (genes,))
        An AnnData is cut down to the genes that are kept and gets `var["n_counts"]` or `var["n_cells"]`. For an array,
        or with `inplace=False`: which genes are kept, and the numbers; lazy for a Dask array.

    Raises
    ------
    TypeError, ValueError
        Unless exactly one limit is given; for any other container or a malformed matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.filter_genes(sp.csr_matrix([[1, 0, 3], [0, 0, 2]]), min_counts=1)
    (array([ True, False,  True]), array([1, 0, 5]))
    """
    limits = {"min_counts": min_counts, "min_cells": min_cells, "max_counts": max_counts, "max_cells": max_cells}
    return _filter(data, 1, limits, "n_cells", inplace, copy)


def _filter(data: Any, axis: int, limits: dict[str, int | None], number: str, inplace: bool, copy: bool) -> Any:
    """What both filters share; `number` is the name of the column where the threshold is not on counts."""
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) != 1:
        raise ValueError(
            f"Only provide one of the optional parameters {', '.join(f'`{name}`' for name in limits)} per call."
        )
    ((name, limit),) = given.items()
    if not isinstance(limit, Real | np.number):
        raise TypeError(f"{name} must be a number, got {limit!r}")
    by_counts = name.endswith("counts")
    if not is_anndata(data):
        keep, numbers = _kept(container(data, "data"), axis, name, limit, by_counts)
        return keep, numbers
    check_matrix(data, None, None)
    keep, numbers = _kept(container(data.X, "adata.X"), axis, name, limit, by_counts)
    if is_dask(keep):
        import dask

        keep, numbers = dask.compute(keep, numbers)
    if not inplace:
        return keep, numbers
    data = data.copy() if copy else data
    actual(data)
    cut_down = Subset(data, keep, axis)
    (data.obs if axis == 0 else data.var)["n_counts" if by_counts else number] = numbers
    cut_down.apply()
    return data if copy else None


def _kept(x: Any, axis: int, name: str, limit: Any, by_counts: bool) -> tuple[Any, Any]:
    """Which rows (axis=0) or columns are kept, and their numbers."""
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    result_dtype(x.dtype)
    over = 1 - axis
    numbers = axis_sum(x, axis=over) if by_counts else positives(x, over)
    return (numbers >= limit if name.startswith("min") else numbers <= limit), numbers


def positives(x: Any, axis: int) -> Any:
    """How many elements along the axis are positive, in int64."""
    if is_dask(x):
        from ..dispatch import _chunks

        block, dtype = partial(positives_of, axis=axis), np.dtype(np.int64)
        return _chunks.reduce("positives", x, block, _partials.add_all, [np.ravel], (axis,), False, dtype)[0]
    return positives_of(x, axis).ravel()


def positives_of(x: Any, axis: int) -> np.ndarray:
    """The same of a matrix in memory, with the axis kept."""
    x = container(x)
    if x.dtype.kind not in "fi" or not x.size:
        return _partials.counts(x, (axis,))
    if not is_sparse(x):
        return np.asarray(np.sum(x > 0, axis=axis, dtype=np.int64, keepdims=True))
    c = compressed(x, canonical=True)
    if len(c.data) and not c.data.min() >= 0:  # NaN, too
        x = with_data(c, c.data > 0)
    return _partials.counts(x, (axis,))
