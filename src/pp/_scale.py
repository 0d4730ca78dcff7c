"""Scaling of genes to unit variance."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from ..dispatch import _blocks, _moments, _partials
from ..dispatch._inputs import Compressed, check_all_indices, compressed, container, is_dask, is_sparse, native
from ..dispatch._moments import Moments
from ..dispatch._pieces import places
from ..dispatch._rows import fold
from ..dispatch._scaling import scale_dense, scale_sparse
from ..dispatch._select import take
from ._anndata import (
    actual,
    check_mask,
    check_matrix,
    get_matrix,
    is_anndata,
    only_for_anndata,
    result_dtype,
    reusable,
    set_matrix,
    warn,
)


def scale(
    data: Any,
    *,
    zero_center: bool = True,
    max_value: float | None = None,
    copy: bool = False,
    layer: str | None = None,
    obsm: str | None = None,
    mask_obs: Any = None,
) -> Any:
    """Scale each gene to unit variance, and to zero mean if asked to.

    Follows `scanpy.pp.scale` (scanpy 1.12.4). Variances are over n - 1. Genes that do not vary are divided by one.

    Parameters
    ----------
    data : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these.
    zero_center : bool
        Subtract the mean of each gene: the result is dense. False keeps sparse matrices sparse.
    max_value : float, optional
        Clip to this value after scaling, and with `zero_center` to minus this value, too.
    copy : bool
        Work on a copy of an AnnData, and return it.
    layer, obsm : str, optional
        The layer or obsm of an AnnData to scale instead of X.
    mask_obs : array of bool of shape (cells,), or str, optional
        Only these cells are scaled, by their own means and variances; or the column of `obs` that tells.

    Returns
    -------
    None, AnnData or array
        AnnData with `copy`. For an array always a new array. With `zero_center` an ndarray (Dask: of ndarrays), else
        the class and format of the matrix; in its dtype, float32 for bool and integers. Lazy for Dask, but for the
        means and variances, which take one pass now. `adata.var` gets `mean` and `std` (`mean of ...`,
        `mean with mask` where a mask was given).

    Raises
    ------
    TypeError, ValueError
        For any other container, a mask of another shape, or a malformed matrix.

    Warns
    -----
    UserWarning
        Where a sparse matrix becomes dense.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.pp.scale(sp.csr_matrix([[1, 0, 3], [0, 0, 1], [5, 0, 2]]), zero_center=False, max_value=2).toarray().round(3)
    array([[0.378, 0.   , 2.   ],
           [0.   , 0.   , 1.   ],
           [1.89 , 0.   , 2.   ]], dtype=float32)
    """
    check_max(max_value)
    if not is_anndata(data):
        only_for_anndata(layer=layer, obsm=obsm)
        x = container(data, "data")
        mask = None if mask_obs is None else check_mask(x, mask_obs, 0, "mask_obs")
        return _scale(x, zero_center, max_value, mask)[0]
    check_matrix(data, layer, obsm)
    mask = None if mask_obs is None else check_mask(data, mask_obs, 0, "mask_obs")
    data = data.copy() if copy else data
    actual(data)
    in_place = mask is None and not zero_center and _takes_result(data, layer, obsm, max_value)
    x = get_matrix(data, layer, obsm)
    result, mean, std = _scale(container(x, "data"), zero_center, max_value, mask, in_place)
    suffix = "" if mask is None else f" of {mask_obs}" if isinstance(mask_obs, str) else " with mask"
    if obsm is None or x.shape[1] == data.n_vars:
        data.var[f"mean{suffix}"], data.var[f"std{suffix}"] = mean, std
    if result is not x:
        set_matrix(data, result, layer, obsm)
    return data if copy else None


def _scale(
    x: Any, zero_center: bool, max_value: float | None, mask: np.ndarray | None, in_place: bool = False
) -> tuple[Any, np.ndarray, np.ndarray]:
    """The scaled matrix, and the means and standard deviations that it was scaled by."""
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    result_dtype(x.dtype)
    mean, std = mean_and_std(x, mask)
    return scale_by(x, mean, std, zero_center, max_value, mask, in_place), mean, std


def scale_by(
    x: Any,
    mean: np.ndarray,
    std: np.ndarray,
    zero_center: bool,
    max_value: float | None,
    mask: np.ndarray | None = None,
    in_place: bool = False,
) -> Any:
    """A matrix scaled by means and standard deviations that are known."""
    dtype = result_dtype(x.dtype)
    if zero_center and is_sparse(x._meta if is_dask(x) else x):
        warn("zero-centering a sparse array/matrix densifies it.")
    if is_dask(x):
        return scale_lazily(centred if zero_center else scaled, x, mean, std, max_value, dtype, mask)
    how = centred if zero_center else partial(scaled, in_place=in_place)
    return how(x, mean, std, max_value, dtype, mask)


def mean_and_std(x: Any, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Means of the columns, and standard deviations over n - 1 in float64: one pass, now.

    They are 1 where nothing varies, as in one cell.
    """
    if is_sparse(x) and mask is None:
        parts = [_moments_of(x)]  # a reduction with threads of its own
    else:
        parts = fold(x, _moments_of, _moments.merge_all, rows=[] if mask is None else [mask])
    moments = Moments(*(part[0] for part in _moments.side_by_side(parts)))
    mean, var = _moments.mean_and_variance(moments, 1)
    std = np.sqrt(var)
    return mean, np.where((std == 0) | (moments.n == 1), 1, std)


def _moments_of(block: Any, mask: np.ndarray | None = None) -> Moments:
    return _partials.moments(block if mask is None else take(block, mask, axis=0), (0,))


def scaled(
    x: Any,
    mean: np.ndarray,
    std: np.ndarray,
    max_value: float | None,
    dtype: np.dtype,
    mask: np.ndarray | None = None,
    in_place: bool = False,
) -> Any:
    """x / std, no more than `max_value`: of the class and format of x. The mean is not used, only by the others."""
    x = container(x)
    if is_sparse(x):
        c = compressed(x, canonical=max_value is not None or mask is not None)
        result = scale_sparse(c, std, 1, True, dtype, x if in_place else None)
        values, before = result.data, c.data
        stays = None if mask is None else _entries_of(result, ~mask)
    else:
        result = values = scale_dense(x, std, 1, "divide", dtype, x if in_place else None)
        before, stays = x, None if mask is None else ~mask
    if max_value is not None:
        _at_most(dtype.type(max_value), values)
    if stays is not None:
        values[stays] = before[stays]
    return result


def centred(
    x: Any,
    mean: np.ndarray,
    std: np.ndarray,
    max_value: float | None,
    dtype: np.dtype,
    mask: np.ndarray | None = None,
    minus: Any = 0,
) -> np.ndarray:
    """(x - mean) / std, between -max_value and max_value, of dense x minus something: an ndarray."""
    x = container(x)
    result = np.empty(x.shape, dtype)
    limit = np.inf if max_value is None else float(max_value)
    if is_sparse(x):
        fill = _centre_sparse(x, mean, std, limit, mask, result)
    else:
        fill = _centre_dense(x, mean, std, limit, mask, minus, result)
    step = max(1, 4 * _blocks.CAST_STEP // max(x.shape[1], 1))
    for _ in _blocks.run(fill, _blocks.split_flat(len(result), step), result.size):
        pass
    return result


def _centre_dense(
    x: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    limit: float,
    mask: np.ndarray | None,
    minus: Any,
    result: np.ndarray,
) -> Callable[[int, int], None]:
    def fill(start: int, stop: int) -> None:
        rows = x[start:stop]
        z = rows - mean
        z /= std
        np.clip(z, -limit, limit, out=z)
        z -= minus
        result[start:stop] = z if mask is None else np.where(mask[start:stop, None], z, rows)

    return fill


def _centre_sparse(
    x: Any, mean: np.ndarray, std: np.ndarray, limit: float, mask: np.ndarray | None, result: np.ndarray
) -> Callable[[int, int], None]:
    """The same: rows of what becomes of zeros, then the stored values in them."""
    c = compressed(x, canonical=True)
    c = c if c.major == 0 else compressed(native(c).tocsr(), canonical=True)
    check_all_indices(c)
    of_zero = np.clip((0 - mean) / std, -limit, limit)

    def fill(start: int, stop: int) -> None:
        values, columns = (part[c.indptr[start] : c.indptr[stop]] for part in (c.data, c.indices))
        rows = np.repeat(np.arange(start, stop), np.diff(c.indptr[start : stop + 1]))
        z = np.clip((values - mean[columns]) / std[columns], -limit, limit)
        result[start:stop] = of_zero if mask is None else np.where(mask[start:stop, None], of_zero, 0)
        result[rows, columns] = z if mask is None else np.where(mask[rows], z, values)

    return fill


def centred_about_zeros(x: Any, mean: np.ndarray, std: np.ndarray, max_value: float | None, dtype: np.dtype) -> Any:
    """As `centred`, minus what that makes of a zero in each column: so zeros stay zero, and sparse x sparse.

    A principal component analysis of it is that of the centred matrix: columns differ by constants.
    """
    x = container(x)
    if max_value is None:
        return scaled(x, mean, std, None, dtype)
    limit = float(max_value)
    zero = np.maximum(-mean / std, -limit)
    if not is_sparse(x):
        return centred(x, mean, std, limit, dtype, minus=zero)
    c = compressed(x, canonical=True)
    # (z - mean / std) between the limits, minus zero: z between limits of its column, once it is moved.
    move, high = mean / std + zero, limit - zero
    if not move.any() and (zero >= -limit).all() and (not len(c.data) or c.data.min() >= 0):  # nothing to move, or low
        result = scale_sparse(c, std, 1, True, dtype)
        _no_more_than(compressed(result), high.astype(dtype), result.data)
        return result
    result = scale_sparse(c, std, 1, True, np.dtype(float))
    for lo, hi, _, columns in places(compressed(result)):
        z = result.data[lo:hi]
        z[:] = np.clip(z - (mean / std)[columns], -limit, limit) - zero[columns]
    return result.astype(dtype, copy=False)


def _at_most(limit: Any, values: np.ndarray) -> None:
    """Values, in place, none of them more than the limit."""

    def part(start: int, stop: int) -> None:
        np.minimum(values[start:stop], limit, out=values[start:stop])

    for _ in _blocks.run(part, _blocks.split_flat(len(values), len(values) // 8 + 1), values.size):
        pass


def _no_more_than(c: Compressed, limits: np.ndarray, out: np.ndarray) -> None:
    """Stored values, none of them more than the limit of its column."""
    if c.major == 1:
        limits = np.repeat(limits, np.diff(c.indptr))
        np.minimum(c.data, limits, out=out)
        return
    for lo in range(0, len(c.data), _blocks.CAST_STEP):
        piece = slice(lo, lo + _blocks.CAST_STEP)
        np.minimum(c.data[piece], limits.take(c.indices[piece]), out=out[piece])


def scale_lazily(
    function: Callable,
    x: Any,
    mean: np.ndarray,
    std: np.ndarray,
    max_value: float | None,
    dtype: np.dtype,
    mask: np.ndarray | None = None,
) -> Any:
    """One of the three functions above on each chunk of a Dask array."""
    from ..dispatch import _chunks

    vectors = [(mean, 1, "mean"), (std, 1, "std")] + ([] if mask is None else [(mask, 0, "mask_obs")])
    block = partial(_scale_block, function=function, max_value=max_value, dtype=dtype)
    return _chunks.map_chunks(block, "scale", x, dtype, *vectors, dense=function is centred)


def _scale_block(
    block: Any,
    mean: np.ndarray,
    std: np.ndarray,
    *mask: np.ndarray,
    function: Callable,
    max_value: float | None,
    dtype: np.dtype,
) -> Any:
    return function(block, mean, std, max_value, dtype, *mask)


def _entries_of(x: Any, rows: np.ndarray) -> np.ndarray:
    """Which stored values are of these rows."""
    c = compressed(x)
    return np.repeat(rows, np.diff(c.indptr)) if c.major == 0 else rows[c.indices]


def _takes_result(adata: Any, layer: str | None, obsm: str | None, max_value: float | None) -> bool:
    """Whether the buffer can take the result; a clipped one only if no duplicates have to be summed first."""
    if not reusable(adata, layer, obsm, result_dtype(get_matrix(adata, layer, obsm).dtype)):
        return False
    x = get_matrix(adata, layer, obsm)
    return max_value is None or not is_sparse(x) or compressed(x, canonical=True).source is x


def check_max(max_value: Any) -> None:
    """ValueError unless the limit is None or positive."""
    if max_value is None:
        return
    if not isinstance(max_value, Real | np.number) or isinstance(max_value, bool) or not float(max_value) > 0:
        raise ValueError(f"max_value must be a positive number or None, got {max_value!r}")
