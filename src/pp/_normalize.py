"""Total-count normalisation and the logarithm."""

from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from ..dispatch import _blocks
from ..dispatch._elementwise import apply
from ..dispatch._inputs import check_all_indices, compressed, container, is_dask, is_sparse
from ..dispatch._normalize import check_target, median_of_positive, normalize_to, row_totals
from ..dispatch._pieces import places
from ._anndata import (
    actual,
    check_matrix,
    get_matrix,
    is_anndata,
    lone,
    only_for_anndata,
    result_dtype,
    reusable,
    set_matrix,
    warn,
)


def normalize_total(
    adata: Any,
    *,
    target_sum: float | None = None,
    exclude_highly_expressed: bool = False,
    max_fraction: float = 0.05,
    key_added: str | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """Scale each cell so that its counts sum to the target.

    Follows `scanpy.pp.normalize_total` (scanpy 1.12.4).

    Parameters
    ----------
    adata : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    target_sum : float, optional
        Total of each cell afterwards. None: the median of the totals of the cells that have counts; on Dask this reads
        the matrix once, now.
    exclude_highly_expressed : bool
        Leave out of the totals each gene that has more than `max_fraction` of the counts of some cell; on Dask this
        reads the matrix twice, now.
    max_fraction : float
        Between 0 and 1; see `exclude_highly_expressed`.
    key_added : str, optional
        Write each cell's total over the target to `adata.obs[key_added]`; on Dask this reads the matrix once, now.
    layer, obsm : str, optional
        The layer or obsm to normalise instead of X.
    inplace : bool
        False: leave `adata` alone and return the results.
    copy : bool
        Work on a copy of `adata`, and return it.

    Returns
    -------
    None, AnnData, dict or array
        AnnData with `copy`; with `inplace=False` a dict with `X` and `norm_factor` (shape (cells,)). For an array
        always a new array. float32 for bool and integers, otherwise in the dtype of the matrix; CSC stays CSC; lazy for
        Dask. The buffer of the matrix is reused only if no layer, obsm, raw or other AnnData shares it.

    Raises
    ------
    TypeError, ValueError
        For any other container, contradictory options, a target that is not positive, or a malformed matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.normalize_total(sp.csr_matrix([[1, 0, 3], [0, 0, 2]]), target_sum=100).toarray()
    array([[ 25.,   0.,  75.],
           [  0.,   0., 100.]], dtype=float32)
    """
    check_fraction(max_fraction)
    fraction = max_fraction if exclude_highly_expressed else None
    return _normalize(adata, target_sum, fraction, False, None, key_added, layer, obsm, inplace, copy)


def normalize_log1p(
    adata: Any,
    *,
    target_sum: float | None = None,
    base: float | None = None,
    key_added: str | None = None,
    layer: str | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> Any:
    """`normalize_total` and `log1p` in one step, with the same bits: each row is read and written once.

    Parameters
    ----------
    adata : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    target_sum : float, optional
        Total of each cell before the logarithm. None: the median of the totals of the cells that have counts.
    base : float, optional
        Base of the logarithm; natural by default.
    key_added : str, optional
        Write each cell's total over the target to `adata.obs[key_added]`.
    layer : str, optional
        The layer to work on instead of X.
    inplace : bool
        False: leave `adata` alone and return the results.
    copy : bool
        Work on a copy of `adata`, and return it.

    Returns
    -------
    None, AnnData, dict or array
        As `normalize_total`. Writes `adata.uns["log1p"]`, as `log1p` does.

    Raises
    ------
    TypeError, ValueError
        As `normalize_total` and `log1p`.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.normalize_log1p(sp.csr_matrix([[1, 0, 3], [0, 0, 2]]), target_sum=100, base=10).toarray().round(3)
    array([[1.415, 0.   , 1.881],
           [0.   , 0.   , 2.004]], dtype=float32)
    """
    check_base(base)
    return _normalize(adata, target_sum, None, True, base, key_added, layer, None, inplace, copy)


def log1p(
    data: Any,
    *,
    base: float | None = None,
    copy: bool = False,
    chunked: bool | None = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    obsm: str | None = None,
) -> Any:
    """Logarithm of one plus the values.

    Follows `scanpy.pp.log1p` (scanpy 1.12.4).

    Parameters
    ----------
    data : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    base : float, optional
        Base of the logarithm; natural by default.
    copy : bool
        Work on a copy of an AnnData, and return it.
    chunked, chunk_size : bool, int, optional
        Accepted for scanpy's sake: in memory the work is always done block by block.
    layer, obsm : str, optional
        The layer or obsm of an AnnData to transform instead of X.

    Returns
    -------
    None, AnnData or array
        AnnData with `copy`. For an array always a new array. float32 for bool and integers, otherwise in the dtype of
        the matrix. `adata.uns["log1p"]` records the base.

    Raises
    ------
    TypeError, ValueError
        For any other container, options of AnnData given with an array, a base that is not positive or is 1.
    NotImplementedError
        For the X of a backed AnnData.

    Warns
    -----
    UserWarning
        If `adata.uns["log1p"]` says that the data are logarithms already. They are transformed all the same.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.log1p(sp.csr_matrix([[1, 0, 3]]), base=2).toarray()
    array([[1., 0., 2.]], dtype=float32)
    """
    check_base(base)
    if not is_anndata(data):
        only_for_anndata(chunked=chunked, chunk_size=chunk_size, layer=layer, obsm=obsm)
        return _logged(container(data, "data"), base)
    check_matrix(data, layer, obsm)
    warn_if_logged(data)
    data = data.copy() if copy else data
    actual(data)
    in_place = _takes_result(data, layer, obsm, log=True)  # while no variable refers to the matrix
    x = get_matrix(data, layer, obsm)
    result = _logged(container(x, "data"), base, in_place=in_place)
    if result is not x:
        set_matrix(data, result, layer, obsm)
    data.uns["log1p"] = {"base": base}
    return data if copy else None


def _normalize(
    adata: Any,
    target_sum: float | None,
    max_fraction: float | None,
    log: bool,
    base: float | None,
    key_added: str | None,
    layer: str | None,
    obsm: str | None,
    inplace: bool,
    copy: bool,
) -> Any:
    """What normalize_total and normalize_log1p share; `max_fraction` is None unless genes are to be excluded."""
    check_target(target_sum)
    if key_added is not None and not isinstance(key_added, str):
        raise TypeError(f"key_added must be a string or None, got {key_added!r}")
    if copy and not inplace:
        raise ValueError("`copy=True` cannot be used with `inplace=False`.")
    if not is_anndata(adata):
        only_for_anndata(key_added=key_added, layer=layer, obsm=obsm)
        return _normalized(container(adata, "adata"), target_sum, max_fraction, log, base)[0]
    check_matrix(adata, layer, obsm)
    if log:
        warn_if_logged(adata)
    adata = adata.copy() if copy else adata
    if inplace:
        actual(adata)
    in_place = inplace and _takes_result(adata, layer, obsm, log)  # while no variable refers to the matrix
    share = inplace and lone(adata, layer, obsm)
    x = get_matrix(adata, layer, obsm)
    result, factors = _normalized(
        container(x, "adata"), target_sum, max_fraction, log, base, key_added is not None, in_place, share
    )
    if not inplace:
        return {"X": result, "norm_factor": factors}
    if key_added is not None:
        adata.obs[key_added] = factors
    if result is not x:
        set_matrix(adata, result, layer, obsm)
    if log:
        adata.uns["log1p"] = {"base": base}
    return adata if copy else None


def _normalized(
    x: Any,
    target_sum: float | None,
    max_fraction: float | None,
    log: bool,
    base: float | None,
    totals_now: bool = False,
    in_place: bool = False,
    share: bool = False,
) -> tuple[Any, Any]:
    """The normalised matrix, and each cell's total over the target."""
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    dtype = result_dtype(x.dtype)
    if is_dask(x):
        return _normalized_lazily(x, dtype, target_sum, max_fraction, log, base, totals_now)
    totals = None
    if max_fraction is not None:
        totals = _totals_without_highly_expressed(x, dtype, max_fraction)
    out = x if in_place else None
    result, totals, target = normalize_to(
        x, axis=1, target_sum=target_sum, log1p=log, out=out, dtype=dtype, totals=totals, share=share
    )
    warn_of_empty_cells(totals)
    return _change_base(result, base), totals / target


def _normalized_lazily(
    x: Any,
    dtype: np.dtype,
    target_sum: float | None,
    max_fraction: float | None,
    log: bool,
    base: float | None,
    totals_now: bool,
) -> tuple[Any, Any]:
    from ..dispatch import _chunks, _lazy

    totals = None
    lazy_totals = _lazy.row_totals(x, 1, dtype)
    if max_fraction is not None:
        totals = _totals_without_highly_expressed_lazily(x, lazy_totals, max_fraction)
    elif target_sum is None or totals_now:
        totals = lazy_totals.compute()
    if totals is not None:
        warn_of_empty_cells(totals)
    if target_sum is None:
        target_sum = median_of_positive(totals)
    # Totals in memory cannot be matched to chunks of unknown size, which then add up their own again.
    known = totals if max_fraction is not None or not np.isnan(x.shape[0]) else None
    result = _lazy.normalize(x, axis=1, target_sum=target_sum, log1p=log, dtype=dtype, totals=known)
    if base is not None:
        result = _chunks.map_chunks(partial(_in_base, base=base), "in_base", result, dtype)
    return result, (lazy_totals if totals is None else totals) / target_sum


def _logged(x: Any, base: float | None, in_place: bool = False) -> Any:
    """log(1 + x) to a base, in float32 for integers."""
    dtype = result_dtype(x.dtype)
    if is_dask(x):
        from ..dispatch import _chunks, _lazy

        fused = _lazy.log1p_of_normalized(x) if base is None else None
        return _chunks.map_chunks(partial(_logged, base=base), "pp_log1p", x, dtype) if fused is None else fused
    x = container(x)  # a chunk may be np.matrix
    return _change_base(apply("log1p", x, dtype, x if in_place else None), base)


def _change_base(x: Any, base: float | None) -> Any:
    """Natural logarithms to another base, in place."""
    if base is not None:
        values = x.data if is_sparse(x) else x
        np.divide(values, np.log(float(base)), out=values)
    return x


def _in_base(x: Any, base: float | None) -> Any:
    """The same for a chunk, which other tasks may use: into a new matrix."""
    return _change_base(x.copy(), base)


def _totals_without_highly_expressed(x: Any, dtype: np.dtype, max_fraction: float) -> np.ndarray:
    keep = ~highly_expressed(x, row_totals(x, 1, dtype), max_fraction)[0]
    return totals_of(x, keep)[:, 0]


def _totals_without_highly_expressed_lazily(x: Any, totals: Any, max_fraction: float) -> np.ndarray:
    """The same on Dask, in two passes over x: the genes, then the totals without them."""
    import dask.array as da

    from ..dispatch import _chunks

    block = partial(highly_expressed, max_fraction=max_fraction)
    meta = np.empty((0, 0), bool)
    flags = da.blockwise(block, "ij", x, "ij", totals, "i", adjust_chunks={"i": 1}, align_arrays=False, meta=meta)
    keep = _chunks.along(~flags.any(axis=0).compute(), x, 1, "genes")
    meta = np.empty((0, 0))
    parts = da.blockwise(totals_of, "ij", x, "ij", keep, "j", adjust_chunks={"j": 1}, align_arrays=False, meta=meta)
    return parts.sum(axis=1).compute()


def highly_expressed(x: Any, totals: np.ndarray, max_fraction: float) -> np.ndarray:
    """Shape (1, genes): which genes have more than `max_fraction` of the total of some cell."""
    x = container(x)
    limits = totals * max_fraction
    found = np.zeros((1, x.shape[1]), bool)
    if not is_sparse(x):
        for start, stop in _blocks.split_flat(len(x), max(1, _blocks.CAST_STEP * len(x) // max(x.size, 1))):
            found[0] |= (x[start:stop] > limits[start:stop, None]).any(axis=0)
        return found
    check_all_indices(compressed(x))
    c = compressed(x, canonical=True)
    for lo, hi, rows, columns in places(c):
        found[0, columns[c.data[lo:hi] > limits[rows]]] = True
    return found


def totals_of(x: Any, keep: np.ndarray) -> np.ndarray:
    """Shape (cells, 1): totals of the genes to keep, in float64."""
    x = container(x)
    if not is_sparse(x):
        return np.sum(x, axis=1, dtype=float, where=keep, keepdims=True)
    c = compressed(x)
    check_all_indices(c)
    totals = np.zeros((x.shape[0], 1))
    for lo, hi, rows, columns in places(c):
        first, last = (rows[0], rows[-1] + 1) if c.major == 0 and hi > lo else (0, x.shape[0])
        kept = np.where(keep[columns], c.data[lo:hi], 0)
        totals[first:last, 0] += np.bincount(rows - first, kept, last - first)
    return totals


def _takes_result(adata: Any, layer: str | None, obsm: str | None, log: bool) -> bool:
    """Whether the buffer can take the result; a logarithm only if no duplicates have to be summed first."""
    if not reusable(adata, layer, obsm, result_dtype(get_matrix(adata, layer, obsm).dtype)):
        return False
    x = get_matrix(adata, layer, obsm)
    return not log or not is_sparse(x) or compressed(x, canonical=True).source is x


def check_fraction(max_fraction: float) -> None:
    """ValueError unless it is between 0 and 1."""
    if not 0 <= max_fraction <= 1:
        raise ValueError(f"max_fraction must be between 0 and 1, got {max_fraction!r}")


def check_base(base: Any) -> None:
    """ValueError unless the base is None, or a positive number other than 1."""
    if base is None:
        return
    if not isinstance(base, Real | np.number) or isinstance(base, bool) or not 0 < float(base) < np.inf or base == 1:
        raise ValueError(f"base must be a positive number other than 1, or None; got {base!r}")


def warn_if_logged(adata: Any) -> None:
    """A warning, where `uns` says that the data are logarithms already."""
    if "log1p" in adata.uns:
        warn("adata.X seems to be already log-transformed.")


def warn_of_empty_cells(totals: np.ndarray) -> None:
    """A warning, where a total is not positive."""
    if not np.all(totals > 0):  # as scanpy does: negative and NaN totals, too
        warn("Some cells have zero counts")
