"""Products and quotients, element by element."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import _blocks, _partials
from ._blocks import Result
from ._config import kernels
from ._inputs import (
    Compressed,
    check_all_indices,
    compressed,
    container,
    is_dask,
    is_sparse,
    native,
    read_only,
    with_data,
)
from ._other import delegated
from ._pieces import places
from ._scaling import is_linear, scale_sparse

OPS = {"multiply": np.multiply, "divide": np.divide}
PAIRS = (
    "accepted: sparse with a scalar, a broadcast vector, or a dense or sparse array of its shape; "
    "dense with dense or a scalar; Dask arrays of these"
)


@delegated
def multiply(x1: Any, x2: Any, /) -> Any:
    """Product, element by element.

    Follows `multiply` of the array API standard 2025.12, with NumPy's type promotion; Python scalars are weak.

    Parameters
    ----------
    x1, x2 : scalar, array or sparse matrix
        In any container that csraxis takes. With a sparse one of shape (n, m) goes a scalar, a vector of shape (m,),
        (1, m) or (n, 1), or a dense or sparse array of shape (n, m).

    Returns
    -------
    The class and format of the first sparse operand of that shape, else ndarray; a Dask array if one operand is one
        Implicit zeros stay zero, also times inf or NaN. A sparse operand that is broadcast counts as dense.

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


@delegated
def divide(x1: Any, x2: Any, /) -> Any:
    """Quotient, element by element.

    Follows `divide` of the array API standard 2025.12, with NumPy's type promotion; Python scalars are weak. Division
    by zero gives inf or NaN without a warning.

    Parameters
    ----------
    x1, x2 : scalar, array or sparse matrix
        In any container that csraxis takes. With a sparse one of shape (n, m) goes a scalar, a vector of shape (m,),
        (1, m) or (n, 1), or a dense or sparse array of shape (n, m).

    Returns
    -------
    The class and format of a sparse x1 of shape (n, m), else ndarray; a Dask array if one operand is one
        A sparse x1 keeps its implicit zeros, also over zero or NaN. Over a sparse x2, a dense x1 or a scalar gives a
        dense result, and IEEE holds everywhere (a stored -0.0 counts as +0 there).

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


def is_scalar(x: Any) -> bool:
    """Whether x is a number: a Python one is weak in promotion, a NumPy one is not."""
    return isinstance(x, bool | int | float | complex | np.generic) or (isinstance(x, np.ndarray) and x.ndim == 0)


def binary(name: str, x1: Any, x2: Any) -> Any:
    number = bool | int | float | complex
    x1, x2 = (x if isinstance(x, number) else container(x, f"x{i}") for i, x in ((1, x1), (2, x2)))
    if is_dask(x1) or is_dask(x2):
        from . import _lazy

        return _lazy.binary(name, x1, x2)
    if all(isinstance(x, number) and not isinstance(x, np.generic) for x in (x1, x2)):
        raise TypeError(f"{name} needs at least one array; {PAIRS}; got {type(x1).__name__} and {type(x2).__name__}")
    if is_sparse(x1) and is_sparse(x2):
        if x1.shape == x2.shape:
            return _sparse_pair(name, x1, x2)
        if is_smaller(x1, x2):
            x1 = _partials.to_ndarray(x1, name="x1")
        else:
            x2 = _partials.to_ndarray(x2, name="x2")
    if is_sparse(x2):
        check_shape(name, x2, x1)
        if name == "multiply":
            return _sparse_with("multiply", x2, x1, "x2")
        x2 = _partials.to_ndarray(x2, name="x2")
    elif is_sparse(x1):
        check_shape(name, x1, x2)
        return _sparse_with(name, x1, x2, "x1")
    return apply(name, x1, x2)


def apply(name: str, x1: Any, x2: Any) -> Any:
    """NumPy's, of dense arrays and scalars."""
    with np.errstate(all="ignore"):
        return OPS[name](x1, x2)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, of) for n, of in zip(shape[::-1], to[::-1]))


def is_smaller(x: Any, of: Any) -> bool:
    """Whether x broadcasts to the shape of the other, and not the other way round. (A length may be unknown: NaN.)"""
    return _broadcasts(x.shape, of.shape) and not _broadcasts(of.shape, x.shape)


def check_shape(name: str, x: Any, other: Any) -> None:
    """ValueError unless `other` broadcasts to the shape of the sparse x."""
    shape = getattr(other, "shape", ())
    if not _broadcasts(shape, x.shape):
        raise ValueError(f"{name}: an operand of shape {shape} does not broadcast to the sparse one's shape {x.shape}")


def _sparse_with(name: str, x: Any, other: Any, argument: str) -> Any:
    """A sparse x times or over a scalar, a vector or a dense array."""
    divide = name == "divide"
    if np.size(other) == 1:
        other = other if is_scalar(other) else other.ravel()[0]
    dtype = apply(name, np.empty(0, x.dtype), other if is_scalar(other) else np.empty(0, other.dtype)).dtype
    vector = np.size(other) == 1 or other.ndim == 1 or 1 in other.shape
    c = compressed(x, canonical=not (vector and is_linear(other, divide)), name=argument)
    if is_scalar(other):
        with np.errstate(all="ignore"):
            return with_data(c, OPS[name](c.data, other).astype(dtype, copy=False))
    if vector and dtype.kind in "iuf" and other.dtype.kind != "c":
        axis = 0 if x.ndim == 1 or other.shape[-1] == 1 else 1
        return scale_sparse(c, other.ravel(), axis, divide, dtype)
    return _with_dense(c, name, np.broadcast_to(other, x.shape), dtype)


def _with_dense(c: Compressed, name: str, other: np.ndarray, dtype: np.dtype) -> Any:
    """The stored values with the elements of a dense array at their places, block by block."""
    check_all_indices(c)
    data = np.empty(len(c.data), dtype)
    for lo, hi, rows, columns in places(c):
        ours, theirs = c.data[lo:hi], other[rows, columns]
        if name == "multiply":
            data[lo:hi] = _multiplied(ours, theirs, dtype)
        else:
            with np.errstate(all="ignore"):
                np.divide(ours, theirs, out=data[lo:hi], casting="unsafe")
    return with_data(c, data)


def _sparse_pair(name: str, x1: Any, x2: Any) -> Any:
    """Two sparse matrices of one shape: a product has the entries that both have, a quotient those of x1."""
    dtype = OPS[name](np.empty(0, x1.dtype), np.empty(0, x2.dtype)).dtype
    a, b = (compressed(x, canonical=True, name=f"x{i}") for i, x in ((1, x1), (2, x2)))
    for c in (a, b):
        check_all_indices(c)
    if a.major != b.major:
        b = compressed(native(b).asformat(x1.format), canonical=True)
    if name == "divide":
        return with_data(a, _quotients(a, b, dtype))
    products, indices, indptr = _products(a, b, dtype)
    return with_data(a._replace(indices=indices, indptr=indptr), products)


def _quotients(a: Compressed, b: Compressed, dtype: np.dtype) -> np.ndarray:
    """The values of a over those that b has there, which are zero where it has none."""
    data = np.empty(len(a.data), dtype)

    def rows(start: int, stop: int) -> None:
        lo, hi, found, theirs, _ = _in_both(a, b, start, stop)
        others = np.zeros(hi - lo, b.data.dtype)
        others[found] = theirs
        with np.errstate(all="ignore"):
            np.divide(a.data[lo:hi], others, out=data[lo:hi], casting="unsafe")

    for _ in _run_in_steps(rows, a, b):
        pass
    return data


def _products(a: Compressed, b: Compressed, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data, indices and indptr of the entries that both have."""
    few, many = (b, a) if len(b.data) < len(a.data) else (a, b)

    def rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lo, hi, found, theirs, counts = _in_both(few, many, start, stop)
        ours, indices = few.data[lo:hi][found], few.indices[lo:hi][found]
        x1, x2 = (ours, theirs) if few is a else (theirs, ours)  # the order tells whose NaN it becomes
        return _multiplied(x1, x2, dtype), indices.astype(a.indices.dtype, copy=False), counts

    data, indices, counts = map(np.concatenate, zip(*_run_in_steps(rows, a, b)))
    return data, indices, np.concatenate(([0], np.cumsum(counts)))


def _run_in_steps(task: Callable[[int, int], Result], a: Compressed, b: Compressed) -> Iterator[Result]:
    """task(start, stop) for some rows at a time, whatever the threads: NumPy gives the product of two NaN another sign
    at the end of an array."""
    both = a.indptr + b.indptr
    n_values = both.item(-1)
    return _blocks.run(task, _blocks.split(both, -(-n_values // (4 * _blocks.CAST_STEP))), n_values)


def _multiplied(x1: np.ndarray, x2: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The products in `dtype`. Integers are cast first: of uint64 and int64 (widened duplicates) NumPy makes floats."""
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            x1, x2 = (x.astype(dtype, copy=False) for x in (x1, x2))
        return np.multiply(x1, x2).astype(dtype, copy=False)


def _in_both(
    a: Compressed, b: Compressed, start: int, stop: int
) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows [start, stop): (lo, hi, found, values, counts).

    Entries [lo, hi) of a; which of them (from lo on) b has, too; the values of b there; how many there are in each row.
    """
    (lo, hi), (their_lo, their_hi) = ((c.indptr.item(start), c.indptr.item(stop)) for c in (a, b))
    # In the wider of the two types: an index of 64 bits may not fit into 32.
    wide = np.promote_types(a.indices.dtype, b.indices.dtype)
    indices, their_indices = (
        read_only(part.astype(wide, copy=False)) for part in (a.indices[lo:hi], b.indices[their_lo:their_hi])
    )
    indptr, their_indptr = (read_only(c.indptr[start : stop + 1] - c.indptr[start]) for c in (a, b))
    where = np.empty(hi - lo, np.int64)
    kernels().match_major(indices, indptr, 0, stop - start, their_indices, their_indptr, where)
    found = np.flatnonzero(where >= 0)
    return lo, hi, found, b.data[their_lo:their_hi][where[found]], np.diff(np.searchsorted(found, indptr))
