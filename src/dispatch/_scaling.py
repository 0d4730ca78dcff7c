"""Scaling along an axis."""

from typing import Any, Literal

import numpy as np

from . import _blocks
from ._config import kernels
from ._inputs import (
    Compressed,
    check_all_indices,
    check_options,
    compressed,
    container,
    is_dask,
    is_sparse,
    native_dtype,
    one_axis,
    read_only,
    with_data,
)
from ._other import delegated
from ._pieces import SCALE_AS, cast, check, kernel_dtype, places, row_pieces, run_rows

Op = Literal["multiply", "divide"]


@delegated
def axis_scale(
    x: Any,
    factors: Any,
    /,
    *,
    axis: int,
    op: Op = "multiply",
    out: Any = None,
    zero_division: Literal["ieee", "one"] = "ieee",
) -> Any:
    """Multiply or divide each row or each column by its own factor.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m), in any container that csraxis takes; or (m,), whose only axis is 0.
    factors : array
        `factors[i]` applies to index i *along* `axis`: shape (n,) or (n, 1) for axis=0 (rows), (m,) or (1, m) for
        axis=1 (columns). A Dask array is accepted where x is one.
    axis : int
        The axis that the factors run along.
    op : {"multiply", "divide"}
        What to do with them.
    out : the same object as x, optional
        Work in the buffer of x, CSC too. It must be writable and of the result's dtype; and without duplicates, if a
        factor is infinite, or zero in a division.
    zero_division : {"ieee", "one"}
        For op="divide": what a factor of zero does. "ieee": inf or NaN in the stored values. "one": nothing, the row or
        column stays.

    Returns
    -------
    The class and format of x
        In the dtype of x where that is floating: each product is formed in float64 and rounded once. Integers times
        integers are of NumPy's promoted type (modulo its width); everything else is float64. Implicit zeros stay zero
        under any factor.

    Raises
    ------
    TypeError
        For any other container, for factors that are not real numbers (or, for complex x, not numbers).
    ValueError
        For factors of the wrong length, a malformed matrix, or an `out` that cannot hold the result. Nothing has been
        written then.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.csr_array([[1.0, 0, 2], [0, 0, 3]])
    >>> cx.axis_scale(x, np.array([10, 0.5]), axis=0).toarray()
    array([[10. ,  0. , 20. ],
           [ 0. ,  0. ,  1.5]])
    >>> cx.axis_scale(x, np.array([1, 0, 2]), axis=1, op="divide", zero_division="one", out=x) is x
    True
    >>> x.toarray()
    array([[1. , 0. , 1. ],
           [0. , 0. , 1.5]])
    """
    given, x = x, container(x)
    out = own_buffer(given, x, out)
    if x.ndim not in (1, 2):
        raise ValueError(f"x must be 2-D or 1-D, got shape {x.shape}")
    axis = one_axis(axis, x.ndim)
    check_options(op, zero_division)
    if is_dask(x):
        from . import _lazy

        return _lazy.axis_scale(x, factors, axis=axis, op=op, out=out, zero_division=zero_division)
    factors = as_factors(factors, x.shape, axis)
    dtype = scaled_dtype(x.dtype, factors.dtype, op)
    if zero_division == "one":
        factors = np.where(factors == 0, factors.dtype.type(1), factors)
    if not is_sparse(x):
        return scale_dense(x, factors, axis, op, dtype, out)
    c = compressed(x, canonical=not is_linear(factors, op == "divide"))
    return scale_sparse(c, factors, axis, op == "divide", dtype, out)


@np.errstate(all="ignore")
def is_linear(factors: Any, divide: bool) -> bool:
    """Whether scaling each of several duplicates is scaling their sum: not times inf, nor over zero."""
    harmless = np.not_equal(factors, 0) if divide else np.isfinite(factors)
    return np.count_nonzero(harmless) == harmless.size


def scaled_dtype(x: np.dtype, factors: np.dtype, op: Op) -> np.dtype:
    """The type of x after scaling by factors."""
    if factors.kind not in "biuf" and not (factors.kind == x.kind == "c"):
        raise TypeError(f"factors must be real numbers{' or complex' * (x.kind == 'c')}; got {factors}")
    if x.kind in "fc":
        return native_dtype(x)
    return np.result_type(x, factors) if op == "multiply" and factors.kind != "f" else np.dtype(float)


def scale_sparse(c: Compressed, factors: np.ndarray, axis: int, divide: bool, dtype: np.dtype, out: Any = None) -> Any:
    """The source of c with its values scaled along `axis`, in `dtype`."""
    check_out(c, out, dtype)
    if axis != c.major and (out is not None or dtype.kind == "c"):  # before anything is written, or read by NumPy
        check_all_indices(c)
    data = out.data[: len(c.data)] if out is not None else np.empty(len(c.data), dtype)
    factors = apart_from(out is not None, factors, data)
    if dtype.kind == "c":
        _scale_complex(c, factors, axis, divide, data)
        return out if out is not None else with_data(c, data)
    inner = kernel_dtype(dtype, SCALE_AS)
    to = cast(data, inner)
    factors = read_only(np.ascontiguousarray(cast(factors, np.dtype(float if dtype.kind == "f" else np.int64))))
    kernel = kernels()

    def rows(start: int, stop: int) -> None:
        for p in row_pieces(c, start, stop, inner, into=data):
            if axis == c.major:
                its_factors = factors[p.first : p.first + p.n]
                kernel.scale_major(p.data, p.indptr, 0, p.n, its_factors, divide, to[p.lo : p.hi])
            else:
                bad = kernel.scale_minor(p.data, p.indices, p.indptr, 0, p.n, factors, divide, to[p.lo : p.hi])
                check(c, p.lo, bad)

    run_rows(c, rows)
    return out if out is not None else with_data(c, data)


def _scale_complex(c: Compressed, factors: np.ndarray, axis: int, divide: bool, data: np.ndarray) -> None:
    """Complex values: by NumPy, block by block; real factors act on the pairs of reals."""
    for lo, hi, rows, columns in places(c):
        each = factors[rows if axis == 0 else columns]
        with np.errstate(all="ignore"):
            if factors.dtype.kind == "c":
                data[lo:hi] = c.data[lo:hi] / each if divide else c.data[lo:hi] * each
            else:
                for part in ("real", "imag"):
                    values = getattr(c.data[lo:hi], part)
                    setattr(data[lo:hi], part, values / each if divide else values * each)


def scale_dense(x: np.ndarray, factors: np.ndarray, axis: int, op: Op, dtype: np.dtype, out: Any) -> np.ndarray:
    check_dense_out(x, out, dtype)
    factors = apart_from(out is not None, factors, x)
    result = x if out is not None else np.empty(x.shape, dtype)
    factors = factors[:, None] if axis == 0 and x.ndim == 2 else factors
    if dtype.kind == "f":
        factors = factors.astype(float)
    # Block by block: products are formed in float64 without a temporary of the size of x.
    for start, stop in _blocks.split_flat(len(x), max(1, _blocks.CAST_STEP * len(x) // max(x.size, 1))):
        its_factors = factors[start:stop] if axis == 0 else factors
        with np.errstate(all="ignore"):
            result[start:stop] = (np.divide if op == "divide" else np.multiply)(
                x[start:stop] if dtype.kind == "c" else x[start:stop].astype(dtype, copy=False), its_factors
            )
    return result


def own_buffer(given: Any, x: Any, out: Any) -> Any:
    """`out`, if it is what was given as x and still is; else ValueError."""
    if out is None:
        return None
    if out is not given:
        raise ValueError("out must be x itself, or None")
    if x is not given and not isinstance(given, np.ndarray):
        raise ValueError(f"out=x needs a csr or csc matrix, or an ndarray; got {type(given).__name__}")
    return x


def check_out(c: Compressed, out: Any, dtype: np.dtype) -> None:
    """ValueError unless `out` is None, or x itself with a buffer that can hold the result."""
    if out is None:
        return
    if c.source is not out:
        raise ValueError("out=x needs x without duplicates and with sorted indices: call x.sum_duplicates() first")
    if out.data.dtype != dtype:
        raise ValueError(f"out=x needs x of the result's dtype {dtype}, got {out.data.dtype}")
    if not out.data.flags.writeable:
        raise ValueError("out=x needs a writable x.data; it is read-only")
    if not out.data.flags.c_contiguous:
        raise ValueError("out=x needs a contiguous x.data")
    for part in ("indices", "indptr"):  # they would change while they are used
        if np.shares_memory(out.data[: len(c.data)], getattr(out, part)):
            raise ValueError(f"out=x needs an x.data of its own; it overlaps x.{part}")


def check_dense_out(x: np.ndarray, out: Any, dtype: np.dtype) -> None:
    """ValueError unless `out` is None, or an ndarray that can hold the result."""
    if out is None:
        return
    if x.dtype != dtype or not x.flags.writeable:
        raise ValueError(f"out must be writable and of dtype {dtype}; x has dtype {x.dtype}")
    reach = x.itemsize
    for stride, n in sorted(zip(map(abs, x.strides), x.shape)):  # each step goes over all that the shorter ones reach
        if n > 1 and x.size:
            if stride < reach:
                raise ValueError("out must not overlap itself: elements of x share memory")
            reach += stride * (n - 1)


def apart_from(in_place: bool, factors: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The factors: a copy, where they lie in the buffer that is written."""
    return factors.copy() if in_place and np.may_share_memory(factors, data) else factors


def as_factors(factors: Any, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Factors as a vector of the length of the axis."""
    arraylike = isinstance(factors, list | tuple) or (hasattr(factors, "__array__") and not is_dask(factors))
    if not arraylike or isinstance(factors, np.ma.MaskedArray):
        raise TypeError(f"factors must be an array of shape ({shape[axis]},); got {type(factors).__name__}")
    factors = np.asarray(factors)
    n = shape[axis]
    allowed = [(n,), (n, 1) if axis == 0 else (1, n)][: len(shape)]
    if factors.shape not in allowed:
        raise ValueError(
            f"factors must have shape {' or '.join(map(str, allowed))} for axis={axis} of x with shape {shape}; "
            f"got {factors.shape}"
        )
    return factors.ravel()
