"""Functions of single elements, which leave zeros zero; and the way to dense."""

from typing import Any, Literal, NamedTuple

import numpy as np

from . import _partials
from ._config import kernels
from ._inputs import check_order, compressed, container, float_dtype, is_dask, is_sparse, native_dtype, with_data
from ._other import delegated
from ._pieces import row_pieces, run_rows
from ._scaling import check_dense_out, check_out, own_buffer


class Unary(NamedTuple):
    """How a function is computed."""

    ufunc: np.ufunc
    floating: bool = False
    """Integers become float64."""
    kernel: bool = False
    """Real stored values go through the engine's kernel of that name: NumPy's bits depend on the processor."""


UNARY = {
    "log1p": Unary(np.log1p, floating=True, kernel=True),
    "expm1": Unary(np.expm1, floating=True, kernel=True),
    "sqrt": Unary(np.sqrt, floating=True),
    "square": Unary(np.square),
    "abs": Unary(np.absolute),
    "negative": Unary(np.negative),
    "sign": Unary(np.sign),
}


@delegated
def log1p(x: Any, /, *, out: Any = None) -> Any:
    """log(1 + x), element by element.

    Follows `log1p` of the array API standard 2025.12. Sparse values: at most 1.4 units in the last
    place from the exact logarithm, the same bits on every processor. Dense and complex values: NumPy's `log1p`.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x for floats and complex numbers, else float64. Values below -1 give NaN, -1 gives
        -inf, without a warning.

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
    return _unary("log1p", x, out)


@delegated
def expm1(x: Any, /, *, out: Any = None) -> Any:
    """exp(x) - 1, element by element: the inverse of `log1p`.

    Follows `expm1` of the array API standard 2025.12. Sparse values: at most 2 units in the last
    place from the exact result, the same bits on every processor. Dense and complex values: NumPy's `expm1`.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x for floats and complex numbers, else float64.

    Raises
    ------
    TypeError
        For any other container.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.expm1(sp.csr_array([[1.0, 0, 2], [0, 0, 3]])).toarray().round(3)
    array([[ 1.718,  0.   ,  6.389],
           [ 0.   ,  0.   , 19.086]])
    """
    return _unary("expm1", x, out)


@delegated
def sqrt(x: Any, /, *, out: Any = None) -> Any:
    """Square root, element by element.

    Follows `sqrt` of the array API standard 2025.12. Correctly rounded.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x for floats and complex numbers, else float64. Negative values give NaN, without a
        warning.

    Raises
    ------
    TypeError
        For any other container.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.sqrt(sp.csr_array([[1, 0, 4], [0, 0, 9]])).toarray()
    array([[1., 0., 2.],
           [0., 0., 3.]])
    """
    return _unary("sqrt", x, out)


@delegated
def square(x: Any, /, *, out: Any = None) -> Any:
    """x times x, element by element.

    Follows `square` of the array API standard 2025.12. Integers wrap around in their own type.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x.

    Raises
    ------
    TypeError
        For any other container, and for bool.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.square(sp.csr_array([[1, 0, 2], [0, 0, -3]])).toarray()
    array([[1, 0, 4],
           [0, 0, 9]])
    """
    return _unary("square", x, out)


@delegated
def abs(x: Any, /, *, out: Any = None) -> Any:
    """Absolute value, element by element.

    Follows `abs` of the array API standard 2025.12. The least signed integer stays, as in NumPy.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x; of complex numbers, that of their parts.

    Raises
    ------
    TypeError
        For any other container, and for bool.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.abs(sp.csr_array([[1, 0, -2], [0, 0, 3]])).toarray()
    array([[1, 0, 2],
           [0, 0, 3]])
    """
    return _unary("abs", x, out)


@delegated
def negative(x: Any, /, *, out: Any = None) -> Any:
    """-x, element by element.

    Follows `negative` of the array API standard 2025.12. Unsigned integers wrap around.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x.

    Raises
    ------
    TypeError
        For any other container, and for bool.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.negative(sp.csr_array([[1, 0, 2], [0, 0, 3]])).toarray()
    array([[-1,  0, -2],
           [ 0,  0, -3]])
    """
    return _unary("negative", x, out)


@delegated
def sign(x: Any, /, *, out: Any = None) -> Any:
    """-1, 0 or 1 by the sign of x, element by element; x / abs(x) for complex numbers.

    Follows `sign` of the array API standard 2025.12. NaN stays NaN.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
    out : the same object as x, optional
        Work in the buffer of x. It must be writable, of the result's dtype, and without duplicates.

    Returns
    -------
    The class and format of x
        In the dtype of x.

    Raises
    ------
    TypeError
        For any other container, and for bool.
    ValueError
        For a malformed matrix, or an `out` that cannot hold the result.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.sign(sp.csr_array([[1, 0, -2], [0, 0, 3]])).toarray()
    array([[ 1,  0, -1],
           [ 0,  0,  1]])
    """
    return _unary("sign", x, out)


def _unary(name: str, x: Any, out: Any) -> Any:
    given, x = x, container(x)
    if is_dask(x):
        from . import _lazy

        return _lazy.unary(name, x, out=out)
    return apply(name, x, unary_dtype(name, x.dtype), own_buffer(given, x, out))


def unary_dtype(name: str, dtype: np.dtype) -> np.dtype:
    """The type of the function of values of `dtype`."""
    if UNARY[name].floating:
        return float_dtype(dtype)
    if dtype.kind == "b":
        raise TypeError(f"{name} is defined for numbers; got x of dtype bool")
    return np.empty(0, native_dtype(dtype)).real.dtype if name == "abs" else native_dtype(dtype)


def apply(name: str, x: Any, dtype: np.dtype, out: Any = None) -> Any:
    """The function of that name in memory, with a result in `dtype`."""
    ufunc, floating, has_kernel = UNARY[name]
    if not is_sparse(x):
        check_dense_out(x, out, dtype)
        with np.errstate(all="ignore"):
            return np.asarray(ufunc(x.astype(dtype, copy=False) if floating else x, out=out))
    c = compressed(x, canonical=True)
    check_out(c, out, dtype)
    data = out.data[: len(c.data)] if out is not None else np.empty(len(c.data), dtype)
    kernel = getattr(kernels(), name) if has_kernel and dtype.kind == "f" else None

    def rows(start: int, stop: int) -> None:
        for p in row_pieces(c, start, stop, into=data if floating else None):
            if kernel:
                kernel(p.data, 0, p.hi - p.lo, data[p.lo : p.hi])
            else:
                with np.errstate(all="ignore"):
                    ufunc(p.data, out=data[p.lo : p.hi], casting="unsafe")

    run_rows(c, rows)
    return out if out is not None else with_data(c, data)


@delegated
def to_dense(x: Any, /, *, order: Literal["C", "F"] = "C") -> Any:
    """The same numbers in an ndarray, or in a Dask array of ndarrays.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m) or (m,), in any container that csraxis takes; ndarrays of any shape.
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
    check_order(order)
    if is_dask(x):
        from . import _lazy

        return _lazy.to_dense(x, order=order)
    return _partials.to_ndarray(x, order)
