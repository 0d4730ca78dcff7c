"""Sums, products, means, variances, extremes, truth values and counts along axes."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import _backed, _folds, _partials
from ._folds import Extremes, Products
from ._inputs import as_row, axes_of, check_dtype, float_dtype, is_backed, is_dask, is_sparse, native_dtype, streamed
from ._moments import Moments, mean_and_variance, merge_all
from ._other import delegated
from ._partials import Sums, add_all

Axis = int | tuple[int, ...] | None

_REAL = (int, float, np.integer, np.floating)


@delegated
def sum(x: Any, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Any:
    """Sum of the elements over axes.

    Follows `sum` of the array API standard 2025.12. Floats are added in float64 whatever their type, integers modulo
    2**64; the result has the same bits for every engine and any number of threads.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    dtype : dtype, optional
        The values are cast to this type before they are added. Default: that of x for floats and complex numbers,
        uint64 for unsigned and int64 for signed integers and bool.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        Never sparse, never np.matrix.

    Raises
    ------
    TypeError
        For any other container.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> x = sp.csr_array([[1, 0, 2], [0, 0, 3]])
    >>> cx.sum(x, axis=0)
    array([1, 0, 5])
    >>> cx.sum(x, axis=1, keepdims=True)
    array([[3],
           [3]])
    >>> cx.sum(x)
    np.int64(6)
    """
    x = streamed(x)
    values = _dtype(x.dtype if dtype is None else dtype)
    result = values if dtype is not None or values.kind in "fc" else _partials.sum_dtype(values)
    return _reduce("sum", x, partial(_partials.sums, dtype=values), add_sums, [_finish_sum], axis, keepdims, result)[0]


@delegated
def prod(x: Any, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Any:
    """Product of the elements over axes, the implicit zeros included.

    Follows `prod` of the array API standard 2025.12. Floats are multiplied in float64 whatever their type, integers
    modulo 2**64. Where there is an implicit zero the product is zero, or NaN if a factor is infinite or NaN.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    dtype : dtype, optional
        The values are cast to this type before they are multiplied, and the result has it. Default: that of x for
        floats and complex numbers, int64 for signed integers and bool, uint64 for unsigned ones.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        1 where there is nothing to multiply.

    Raises
    ------
    TypeError
        For any other container.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.prod(sp.csr_array([[1, 0, 2], [4, 0, 3]]), axis=0)
    array([4, 0, 6])
    """
    x = streamed(x)
    values = _dtype(x.dtype if dtype is None else dtype)
    result = values if dtype is not None or values.kind in "fc" else _partials.sum_dtype(values)
    return _reduce(
        "prod", x, partial(_folds.products, dtype=values), merge_products, [_finish_product], axis, keepdims, result
    )[0]


@delegated
def mean(x: Any, /, *, axis: Axis = None, dtype: DTypeLike | None = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over axes, the implicit zeros included.

    Follows `mean` of the array API standard 2025.12.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    dtype : floating or complex dtype, optional
        The values are cast to this type before they are added (in float64). Default: that of x for floats, float64
        for integers and bool.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        NaN where there is nothing to average.

    Raises
    ------
    TypeError
        For any other container, or a dtype that is not floating.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.mean(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([0.5, 0. , 2.5])
    """
    x = streamed(x)
    result = float_dtype(_dtype(x.dtype)) if dtype is None else _dtype(dtype)
    if result.kind not in "fc":
        raise TypeError(f"dtype of a mean must be floating or complex; got {result}")
    # 64-bit integers would be added modulo 2**64.
    values = x.dtype if dtype is None and x.dtype.itemsize < 8 else result
    sums = partial(_partials.sums, dtype=values)
    return _reduce("mean", x, sums, add_sums, [_finish_mean], axis, keepdims, result)[0]


@delegated
def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Variance over axes, the implicit zeros included.

    Follows `var` of the array API standard 2025.12. It is computed in float64 around a shift near the mean (Chan, Golub
    & LeVeque 1983): relative error at most 1e-12 also where the mean is large and the spread small, never negative.
    (64-bit integers beyond 2**53 are rounded to float64 first.)

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape. Real.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    correction : float
        The sum of squares is divided by N - correction: 0 for the population, 1 for a sample.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        In the type of x for floats, else float64. NaN where N - correction is not positive.

    Raises
    ------
    TypeError
        For any other container, and for complex numbers.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.var(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0, correction=1)
    array([0.5, 0. , 0.5])
    """
    return _variances("var", x, axis, correction, keepdims)[0]


@delegated
def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Standard deviation over axes: the square root of `var`, the implicit zeros included.

    Follows `std` of the array API standard 2025.12.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape. Real.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    correction : float
        The sum of squares is divided by N - correction: 0 for the population, 1 for a sample.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        In the type of x for floats, else float64. NaN where N - correction is not positive.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `var`.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.std(sp.csr_array([[1, 0, 2], [0, 0, 4]]), axis=0)
    array([0.5, 0. , 1. ])
    """
    return _variances("std", x, axis, correction, keepdims)[0]


@delegated
def mean_var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> tuple[Any, Any]:
    """Mean and variance over axes, in one pass: see `mean` and `var`.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape. Real.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    correction : float
        The sum of squares is divided by N - correction: 0 for the population, 1 for a sample.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    mean, var : ndarray, NumPy scalar, or Dask array
        The two Dask arrays share their only pass over x, when they are computed together.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `var`.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> mean, var = cx.mean_var(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    >>> mean, var
    (array([0.5, 0. , 2.5]), array([0.25, 0.  , 0.25]))
    """
    mean, variance = _variances("mean_var", x, axis, correction, keepdims)
    return mean, variance


def mean_var_in_float64(x: Any, axis: Axis, correction: float) -> tuple[Any, Any]:
    """`mean_var` without rounding to float32."""
    mean, variance = _variances("mean_var", x, axis, correction, False, np.dtype(float))
    return mean, variance


@delegated
def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest element over axes, the implicit zeros included.

    Follows `max` of the array API standard 2025.12. NaN propagates; a zero is +0.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        In the type of x.

    Raises
    ------
    TypeError
        For any other container, and for complex numbers.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix, and where there is nothing to choose from.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.max(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([1, 0, 3])
    """
    return _extreme("max", x, axis, keepdims)


@delegated
def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest element over axes, the implicit zeros included.

    Follows `min` of the array API standard 2025.12. NaN propagates; a zero is +0.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        In the type of x.

    Raises
    ------
    TypeError
        For any other container, and for complex numbers.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix, and where there is nothing to choose from.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.min(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([0, 0, 2])
    """
    return _extreme("min", x, axis, keepdims)


@delegated
def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether an element over axes is not zero.

    Follows `any` of the array API standard 2025.12. Explicitly stored zeros are zeros; NaN is not.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        bool. False where there are no elements.

    Raises
    ------
    TypeError
        For any other container.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.any(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([ True, False,  True])
    """
    return _truth(x, _any_of, axis, keepdims)


@delegated
def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether all elements over axes, the implicit zeros among them, are not zero.

    Follows `all` of the array API standard 2025.12. Explicitly stored zeros are zeros; NaN is not.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        bool. True where there are no elements.

    Raises
    ------
    TypeError
        For any other container.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.all(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([False, False,  True])
    """
    return _truth(x, _all_of, axis, keepdims)


@delegated
def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Any:
    """How many elements over axes are not zero.

    Follows `count_nonzero` of the array API standard 2025.12. Explicitly stored zeros do not count, nor do duplicates
    that cancel; NaN does.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    axis : None, int or tuple of ints
        The axes to reduce; None for all, () for none.
    keepdims : bool
        Keep the reduced axes, with length one.

    Returns
    -------
    ndarray, NumPy scalar, or Dask array
        In int64.

    Raises
    ------
    TypeError
        For any other container.
    numpy.exceptions.AxisError
        For an axis that x does not have.
    ValueError
        For a malformed sparse matrix.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.count_nonzero(sp.csr_array([[1, 0, 2], [0, 0, 3]]), axis=0)
    array([1, 0, 2])
    """
    result = np.dtype(np.int64)
    return _reduce("count_nonzero", streamed(x), _partials.counts, add_all, [_identity], axis, keepdims, result)[0]


def _extreme(name: str, x: Any, axis: Axis, keepdims: bool) -> Any:
    x = streamed(x)
    result = _dtype(x.dtype)
    if result.kind == "c":
        raise TypeError(f"{name} is defined for real numbers; got x of dtype {x.dtype}")
    axes = axes_of(axis, len(x.shape))
    if 0 in [x.shape[one] for one in axes] and 0 not in [n for i, n in enumerate(x.shape) if i not in axes]:
        raise ValueError(f"{name} of nothing: x has shape {x.shape}, axis is {axis}")
    extremes = partial(_folds.extremes, name=name)
    return _reduce(name, x, extremes, partial(merge_extremes, name=name), [_finish_extreme], axis, keepdims, result)[0]


def _truth(x: Any, finish: Callable[[Sums], np.ndarray], axis: Axis, keepdims: bool) -> Any:
    result = np.dtype(bool)
    return _reduce("nonzeros", streamed(x), _partials.nonzeros, add_sums, [finish], axis, keepdims, result)[0]


def _variances(
    function: str, x: Any, axis: Axis, correction: float, keepdims: bool, dtype: np.dtype | None = None
) -> list[Any]:
    x = streamed(x)
    result = dtype or float_dtype(_dtype(x.dtype))
    if result.kind == "c":
        raise TypeError(f"{function} is defined for real numbers; got x of dtype {x.dtype}")
    if isinstance(correction, bool) or not isinstance(correction, _REAL):
        raise TypeError(f"correction must be a real number; got {correction!r}")
    finishes: list[Callable[..., Any]] = [
        partial(_finish_moments, which=which, correction=float(correction))
        for which in (("mean", "var") if function == "mean_var" else (function,))
    ]
    return _reduce("moments", x, _partials.moments, merge_all, finishes, axis, keepdims, result)


def _reduce(
    name: str,
    x: Any,
    partial_of: Callable[..., Any],
    combine: Callable[[list], Any],
    finishes: list[Callable[..., Any]],
    axis: Axis,
    keepdims: bool,
    dtype: np.dtype,
) -> list[Any]:
    """One result for each of `finishes`, all from one pass over x."""
    axes = axes_of(axis, len(x.shape))
    if is_sparse(x) and x.ndim == 1:
        rows = tuple(one + 1 for one in axes)
        return [r[0] for r in _reduce(name, as_row(x), partial_of, combine, finishes, rows, keepdims, dtype)]
    if not (is_dask(x) or is_backed(x)):
        merged = partial_of(x, axes=axes)
        return [_shape(merged, finish, axes, keepdims, dtype) for finish in finishes]
    finishes = [partial(_shape, finish=finish, axes=axes, keepdims=keepdims, dtype=dtype) for finish in finishes]
    partial_of = partial(partial_of, axes=axes)
    if is_backed(x):
        return _reduce_blocks(x, partial_of, combine, finishes, axes, keepdims)
    from . import _chunks

    return _chunks.reduce(name, x, partial_of, combine, finishes, axes, keepdims, dtype)


def _reduce_blocks(
    x: Any, partial_of: Callable, combine: Callable, finishes: list[Callable], axes: tuple[int, ...], keepdims: bool
) -> list[Any]:
    """The same of a dataset on disk, in blocks along its major axis: merged, or put one after the other."""
    major = _backed.major_axis(x)
    parts = map(partial_of, _backed.blocks(x))
    if major in axes:
        merged = reduce(lambda so_far, part: combine([so_far, part]), parts)
        return [finish(merged) for finish in finishes]
    finished = zip(*([finish(part) for finish in finishes] for part in parts))
    return [np.concatenate(results, major if keepdims or not axes else 0) for results in finished]


@np.errstate(all="ignore")  # as a decorator it takes half the time
def _shape(merged: Any, finish: Callable, axes: tuple[int, ...], keepdims: bool, dtype: np.dtype) -> Any:
    """The finished values, rounded to their type; without the reduced axes unless they are to be kept."""
    values = np.asarray(finish(merged)).astype(dtype, copy=False)
    return (values if keepdims else values.squeeze(axes))[()]


def merge_extremes(parts: list[Extremes], name: str) -> Extremes:
    merge_two = _folds.EXTREMES[name]
    return Extremes(reduce(merge_two, [part.values for part in parts]), add_all([part.n for part in parts]))


def _finish_extreme(extremes: Extremes) -> np.ndarray:
    if not extremes.n and extremes.values.size:
        raise ValueError("max or min of nothing: all chunks are empty")
    return extremes.values


def add_sums(parts: list[Sums]) -> Sums:
    return Sums(add_all([part.total for part in parts]), add_all([part.n for part in parts]))


def merge_products(parts: list[Products]) -> Products:
    stored, zeroed, has_zeros = zip(*parts)
    with np.errstate(all="ignore"):
        return Products(reduce(np.multiply, stored), reduce(np.multiply, zeroed), reduce(np.logical_or, has_zeros))


def _finish_product(products: Products) -> np.ndarray:
    return np.where(products.has_zeros, products.zeroed + 0, products.stored)


def _identity(values: np.ndarray) -> np.ndarray:
    return values


def _finish_sum(sums: Sums) -> np.ndarray:
    return sums.total


def _any_of(nonzeros: Sums) -> np.ndarray:
    return nonzeros.total > 0


def _all_of(nonzeros: Sums) -> np.ndarray:
    return nonzeros.total == nonzeros.n


def _finish_mean(sums: Sums) -> np.ndarray:
    n = np.float64(sums.n)
    if sums.total.dtype.kind == "c":
        return _partials.as_complex(sums.total.real / n, sums.total.imag / n)
    return sums.total / n


def _finish_moments(moments: Moments, which: str, correction: float) -> np.ndarray:
    if which == "mean":
        return moments.mean()
    variance = mean_and_variance(moments, correction)[1]
    return np.sqrt(variance) if which == "std" else variance


def _dtype(dtype: DTypeLike) -> np.dtype:
    dtype = np.dtype(dtype)
    check_dtype(dtype, "dtype")
    return native_dtype(dtype)
