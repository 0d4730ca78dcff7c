"""Products, quotients and the logarithm, element by element; and the way to dense."""

from typing import Any, Literal

import numpy as np

from . import _partials
from ._config import kernels
from ._inputs import (
    Compressed,
    check_all_indices,
    compressed,
    container,
    float_dtype,
    is_dask,
    is_sparse,
    with_data,
)
from ._pieces import places, row_pieces, run_rows
from ._scaling import check_out, scale_sparse

OPS = {"multiply": np.multiply, "divide": np.divide}
PAIRS = (
    "accepted: sparse with a scalar, a broadcast vector or a dense array that broadcasts to its shape; "
    "dense with dense or a scalar; Dask arrays of these"
)


def multiply(x1: Any, x2: Any, /) -> Any:
    """Product, element by element.

    Follows `multiply` of the array API standard 2025.12, with NumPy's type promotion; Python scalars are weak.

    Parameters
    ----------
    x1, x2 : scalar, ndarray, csr/csc array or matrix, or Dask array of these
        One of them may be sparse, of shape (n, m); the other is then a scalar, a vector of shape (m,), (1, m) or
        (n, 1), or a dense array of shape (n, m).

    Returns
    -------
    The class and format of the sparse operand, else ndarray; a Dask array if one operand is one
        Implicit zeros stay zero, also times inf or NaN.

    Raises
    ------
    TypeError
        For any other pair of containers.
    ValueError
        If the shapes do not broadcast to that of the sparse operand, or a matrix is malformed.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.csr_array([[1, 0, 2], [0, 0, 3]])
    >>> cx.multiply(x, np.array([[10], [100]])).toarray()
    array([[ 10,   0,  20],
           [  0,   0, 300]])
    """
    return binary("multiply", x1, x2)


def divide(x1: Any, x2: Any, /) -> Any:
    """Quotient, element by element.

    Follows `divide` of the array API standard 2025.12, with NumPy's type promotion; Python scalars are weak. Division
    by zero gives inf or NaN without a warning.

    Parameters
    ----------
    x1, x2 : scalar, ndarray, csr/csc array or matrix, or Dask array of these
        A sparse x1 of shape (n, m) goes with a scalar, a vector of shape (m,), (1, m) or (n, 1), or a dense array of
        shape (n, m). A sparse x2 goes with the same.

    Returns
    -------
    The class and format of a sparse x1, else ndarray; a Dask array if one operand is one
        A sparse x1 keeps its implicit zeros, also over zero or NaN. With a sparse x2 the result is dense, and IEEE
        holds everywhere.

    Raises
    ------
    TypeError
        For any other pair of containers.
    ValueError
        If the shapes do not broadcast to that of the sparse operand, or a matrix is malformed.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.csr_array([[1, 0, 2], [0, 0, 3]])
    >>> cx.divide(x, 2).toarray()
    array([[0.5, 0. , 1. ],
           [0. , 0. , 1.5]])
    >>> cx.divide(6, x)
    array([[ 6., inf,  3.],
           [inf, inf,  2.]])
    """
    return binary("divide", x1, x2)


def log1p(x: Any, /, *, out: Any = None) -> Any:
    """log(1 + x), element by element.

    Follows `log1p` of the array API standard 2025.12. Sparse values: at most 1.4 units in the last place from the exact
    logarithm, the same bits on every processor. Dense and complex values: NumPy's `log1p`.

    Parameters
    ----------
    x : ndarray, csr/csc array or matrix, or Dask array of these
        Any shape for ndarray, else (n, m).
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, floating, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x for floats, else float64. Values below -1 give NaN, -1 gives -inf, without a warning.

    Raises
    ------
    TypeError
        For any other container.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.log1p(sp.csr_array([[1, 0, 2], [0, 0, 3]])).toarray().round(3)
    array([[0.693, 0.   , 1.099],
           [0.   , 0.   , 1.386]])
    """
    given, x = x, container(x)
    if is_dask(x):
        from . import _lazy

        return _lazy.log1p(x, out=out)
    return log1p_to(x, float_dtype(x.dtype), x if out is given else out)


def log1p_to(x: Any, dtype: np.dtype, out: Any = None) -> Any:
    """`log1p` in memory, of the values cast to `dtype`."""
    if not is_sparse(x):
        if out is not None and out is not x:
            raise ValueError("out must be x itself, or None")
        if out is not None and x.dtype.newbyteorder("=") != dtype:
            raise ValueError(f"out must be of dtype {dtype}; x has dtype {x.dtype}")
        with np.errstate(all="ignore"):
            return np.log1p(x.astype(dtype, copy=False), out=out)
    c = compressed(x, canonical=True)
    check_out(c, x, out, dtype)
    data = out.data[: len(c.data)] if out is not None else np.empty(len(c.data), dtype)
    kernel = kernels()

    def rows(start: int, stop: int) -> None:
        for p in row_pieces(c, start, stop, into=data):
            if dtype.kind == "c":
                with np.errstate(all="ignore"):
                    np.log1p(p.data, out=data[p.lo : p.hi])
            else:
                kernel.log1p(p.data, 0, p.hi - p.lo, data[p.lo : p.hi])

    run_rows(c, rows)
    return out if out is not None else with_data(c, data)


def to_dense(x: Any, /, *, order: Literal["C", "F"] = "C") -> Any:
    """The same numbers in an ndarray, or in a Dask array of ndarrays.

    Parameters
    ----------
    x : ndarray, csr/csc array or matrix, or Dask array of these
        Shape (n, m).
    order : {"C", "F"}
        Rows, or columns, contiguous in memory.

    Returns
    -------
    ndarray or Dask array
        x itself where it is an ndarray of that order already.

    Raises
    ------
    TypeError
        For any other container.
    ValueError
        For a malformed matrix, or another order.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.to_dense(sp.csr_matrix([[1, 0, 2], [0, 0, 3]]))
    array([[1, 0, 2],
           [0, 0, 3]])
    """
    x = container(x)
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", got {order!r}')
    if is_dask(x):
        from . import _lazy

        return _lazy.to_dense(x, order=order)
    return _partials.to_ndarray(x, order)


def is_scalar(x: Any) -> bool:
    """Whether x is a number: a Python one is weak in promotion, a NumPy one is not."""
    return isinstance(x, bool | int | float | complex | np.generic) or (isinstance(x, np.ndarray) and x.ndim == 0)


def binary(name: str, x1: Any, x2: Any) -> Any:
    number = bool | int | float | complex
    x1, x2 = (x if isinstance(x, number) else container(x, f"x{i}") for i, x in ((1, x1), (2, x2)))
    if is_dask(x1) or is_dask(x2):
        from . import _lazy

        return _lazy.binary(name, x1, x2)
    if all(is_scalar(x) and not isinstance(x, np.ndarray) for x in (x1, x2)):
        raise TypeError(f"{name} needs at least one array; {PAIRS}; got {type(x1).__name__} and {type(x2).__name__}")
    if is_sparse(x1) and is_sparse(x2):
        raise TypeError(f"{name} of two sparse matrices is not supported; {PAIRS}")
    if is_sparse(x2):
        check_shape(name, x2, x1)
        if name == "multiply":
            return _sparse_with("multiply", x2, x1)
        x2 = _partials.to_ndarray(x2)
    elif is_sparse(x1):
        check_shape(name, x1, x2)
        return _sparse_with(name, x1, x2)
    with np.errstate(all="ignore"):
        return OPS[name](x1, x2)


def check_shape(name: str, x: Any, other: Any) -> None:
    """ValueError unless `other` broadcasts to the shape of the sparse x."""
    shape = np.shape(other)
    if len(shape) > 2 or any(n not in (1, of) for n, of in zip(shape[::-1], x.shape[::-1])):
        raise ValueError(f"{name}: an operand of shape {shape} does not broadcast to the sparse one's shape {x.shape}")


def _sparse_with(name: str, x: Any, other: Any) -> Any:
    """A sparse x times or over a scalar, a vector or a dense array."""
    c = compressed(x)
    divide = name == "divide"
    if np.size(other) == 1 and (is_scalar(other) or other.shape != x.shape):
        scalar = other if is_scalar(other) else other.ravel()[0]
        with np.errstate(all="ignore"):
            return with_data(c, OPS[name](c.data, scalar))
    dtype = OPS[name](np.empty(0, c.data.dtype), np.empty(0, other.dtype)).dtype
    vector = other.ndim == 1 or 1 in other.shape
    if vector and dtype.kind in "iuf" and other.dtype.kind != "c":
        axis = 0 if other.ndim == 2 and other.shape[1] == 1 else 1
        return scale_sparse(c, other.ravel(), axis, divide, dtype)
    return _with_dense(c, name, np.broadcast_to(other, x.shape), dtype)


def _with_dense(c: Compressed, name: str, other: np.ndarray, dtype: np.dtype) -> Any:
    """The stored values with the elements of a dense array at their places, block by block."""
    check_all_indices(c)
    data = np.empty(len(c.data), dtype)
    for lo, hi, rows, columns in places(c):
        with np.errstate(all="ignore"):
            OPS[name](c.data[lo:hi], other[rows, columns], out=data[lo:hi])
    return with_data(c, data)
