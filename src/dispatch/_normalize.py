"""Normalisation to a total, and its fusion with the logarithm."""

from numbers import Real
from typing import Any

import numpy as np

from . import _partials
from ._config import kernels
from ._elementwise import log1p as take_log1p
from ._inputs import (
    Compressed,
    check_matrix,
    compressed,
    container,
    float_dtype,
    is_dask,
    is_sparse,
    one_axis,
    with_data,
)
from ._other import delegated
from ._pieces import row_pieces, run_rows
from ._scaling import check_out, own_buffer, scale_dense, scale_sparse


@delegated
def normalize(
    x: Any,
    /,
    *,
    axis: int = 1,
    target_sum: float | None = None,
    log1p: bool = False,
    out: Any = None,
) -> Any:
    """Scale each row or column so that it sums to the target, and take log(1 + x) if asked to.

    Total-count normalisation, as in `scanpy.pp.normalize_total` (and `scanpy.pp.log1p`). With `log1p` each row of a CSR
    matrix is read and written once, and the bits are those of the two steps.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m), in any container that csraxis takes. Real.
    axis : int
        1: each row is summed (over axis 1) and scaled; 0: each column.
    target_sum : float, optional
        What each row (column) sums to afterwards. None: the median of the totals that are positive; for a Dask array
        this computes the totals now.
    log1p : bool
        Take the logarithm of one plus the scaled values.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable and of the result's dtype.

    Returns
    -------
    The class and format of x
        In the dtype of x where that is floating, else float64. Rows whose total is zero stay as they are.

    Raises
    ------
    TypeError
        For any other container, and for complex numbers.
    ValueError
        For a target that is not positive, a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> x = sp.csr_array([[1, 0, 3], [0, 0, 0], [0, 5, 0]])
    >>> cx.normalize(x, target_sum=100).toarray()
    array([[ 25.,   0.,  75.],
           [  0.,   0.,   0.],
           [  0., 100.,   0.]])
    >>> cx.normalize(x, target_sum=100, log1p=True).toarray().round(3)
    array([[3.258, 0.   , 4.331],
           [0.   , 0.   , 0.   ],
           [0.   , 4.615, 0.   ]])
    """
    given, x = x, container(x)
    out = own_buffer(given, x, out)
    axis = one_axis(axis)
    check_target(target_sum)
    check_matrix("normalize", x)
    if is_dask(x):
        from . import _lazy

        return _lazy.normalize(x, axis=axis, target_sum=target_sum, log1p=log1p, out=out)
    return normalize_to(x, axis=axis, target_sum=target_sum, log1p=log1p, out=out)[0]


def normalize_to(
    x: Any,
    *,
    axis: int,
    target_sum: float | None,
    log1p: bool,
    out: Any = None,
    dtype: np.dtype | None = None,
    totals: np.ndarray | None = None,
    share: bool = False,
) -> tuple[Any, np.ndarray, float]:
    """`normalize` in memory: the result in `dtype`, the totals (float64) and the target that was used.

    With `share` a new matrix may have the indices of x. Totals that were known before (of a part of the columns, or
    over several chunks) replace the row's own.
    """
    dtype = dtype or float_dtype(x.dtype)
    c = compressed(x, canonical=log1p) if is_sparse(x) else None
    if c is not None:
        check_out(c, out, dtype)
        if log1p and c.source is not x:  # Not in order: the order of the two steps, which sum before they sort.
            result, totals, target = normalize_to(
                x, axis=axis, target_sum=target_sum, log1p=False, dtype=dtype, totals=totals
            )
            return take_log1p(result), totals, target
    fused = totals is None and c is not None and c.major == 1 - axis
    if totals is None and (target_sum is None or not fused):
        totals = row_totals(x, axis, dtype)
    target = median_of_positive(totals) if target_sum is None else float(target_sum)
    if c is not None and fused:
        return *_normalize_major(c, target, log1p, dtype, out, share), target
    assert totals is not None
    factors = factors_for(totals, target)
    if c is not None:
        result = scale_sparse(c, factors, 1 - axis, False, dtype, out)
    else:
        result = scale_dense(x, factors, 1 - axis, "multiply", dtype, out)
    if log1p:
        result = take_log1p(result, out=result)
    return result, totals, target


def row_totals(x: Any, axis: int, dtype: np.dtype) -> np.ndarray:
    """Sums over `axis` of the values cast to `dtype`, in float64."""
    return _partials.sums(x, (axis,), dtype).total.ravel()


def median_of_positive(totals: Any) -> float:
    """The default target: scanpy's median over the cells that have counts; 1 if none has."""
    positive = totals[totals > 0]
    if not len(positive):
        return 1.0
    low, high = (len(positive) - 1) // 2, len(positive) // 2
    ordered = np.partition(positive, (low, high))  # np.median takes many times as long for 100 totals
    return float(ordered[low] if low == high else (ordered[low] + ordered[high]) / 2)


@np.errstate(all="ignore")
def factors_for(totals: np.ndarray, target_sum: float) -> np.ndarray:
    """What each row is multiplied by; the formula of the kernel `normalize_major`."""
    return np.where(totals != 0, np.float64(target_sum) / totals, 1.0)


def check_target(target_sum: Any) -> None:
    """ValueError unless the target is None or a positive number."""
    if target_sum is None:
        return
    if not isinstance(target_sum, Real | np.number) or isinstance(target_sum, bool):
        raise TypeError(f"target_sum must be a positive number or None, got {target_sum!r}")
    if not 0 < float(target_sum) < np.inf:
        raise ValueError(f"target_sum must be a positive number or None, got {target_sum!r}")


def _normalize_major(
    c: Compressed, target: float, log: bool, dtype: np.dtype, out: Any, share: bool
) -> tuple[Any, np.ndarray]:
    """Normalised along the axis that is stored together; and the totals."""
    data = out.data[: len(c.data)] if out is not None else np.empty(len(c.data), dtype)
    totals = np.empty(c.n_major)
    kernel = kernels()

    def rows(start: int, stop: int) -> None:
        for p in row_pieces(c, start, stop, into=data):
            its_totals = totals[p.first : p.first + p.n]
            kernel.normalize_major(p.data, p.indptr, 0, p.n, target, log, its_totals, data[p.lo : p.hi])

    run_rows(c, rows)
    return out if out is not None else with_data(c, data, share=share), totals
