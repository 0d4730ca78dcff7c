"""Products, extremes and the largest elements of one matrix in memory: reductions that are no sums.

As in `_partials`, a function takes a container in memory and the axes to reduce, which it keeps with length one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import _blocks
from ._config import kernels
from ._inputs import Compressed, compressed, container, is_sparse, native, read_only
from ._partials import Axes, is_dense, keep_axes, n_reduced, sum_dtype, to_ndarray
from ._pieces import (
    SUM_AS,
    Step,
    add_to,
    flat_pieces,
    in_order,
    kernel_dtype,
    of_block,
    over_blocks,
    places,
    row_pieces,
    run_rows,
)


class Products(NamedTuple):
    """Products of the stored values; the same times zero (NaN if a factor is not finite); where zeros are implicit."""

    stored: np.ndarray
    zeroed: np.ndarray
    has_zeros: np.ndarray


class Extremes(NamedTuple):
    """Largest or smallest values, and how many elements each was chosen from."""

    values: np.ndarray
    n: int


EXTREMES = {"max": np.maximum, "min": np.minimum}
# In the order of the codes that kernels know them by.
FOLDS = ("max", "min", "product")


def products(x: Any, axes: Axes, dtype: np.dtype) -> Products:
    """Products over axes of the values, cast to `dtype` first, in float64, int64, uint64 or complex128."""
    x = container(x)
    acc = sum_dtype(dtype)
    if is_dense(x, axes):
        with np.errstate(all="ignore"):
            values = np.asarray(np.prod(to_ndarray(x).astype(dtype, copy=False), axis=axes, dtype=acc, keepdims=True))
            return Products(values, values * acc.type(0), np.zeros(values.shape, bool))
    c = compressed(x, canonical=True)
    if x.dtype.newbyteorder("=") == dtype:
        dtype = c.data.dtype  # wider, where narrow integers were added up
    has_zeros = _entries(c, axes) < n_reduced(x.shape, axes)
    stored = _products(c, axes, dtype, np.ones(len(has_zeros), acc))
    zeroed = np.zeros_like(stored)
    if not np.isfinite(stored).all():  # it may have overflowed: zero times that would be NaN
        zeroed = _products(c, axes, dtype, zeroed)
    return Products(*(keep_axes(part, axes) for part in (stored, zeroed, has_zeros)))


def _products(c: Compressed, axes: Axes, dtype: np.dtype, out: np.ndarray) -> np.ndarray:
    """`out` times the stored values."""
    if dtype.kind != "c":
        signed = out.view("i8" if out.dtype.kind == "u" else out.dtype)
        return _fold(c, axes, "product", signed, dtype, kernel_dtype(dtype, SUM_AS)).view(out.dtype)
    for lo, hi, *place in places(c):
        which = place[1 - axes[0]] if len(axes) == 1 else np.zeros(hi - lo, int)
        with np.errstate(all="ignore"):
            np.multiply.at(out, which, c.data[lo:hi].astype(dtype, copy=False))
    return out


def extremes(x: Any, axes: Axes, name: str) -> Extremes:
    """The largest or smallest elements, the implicit zeros included; of nothing, the value that never wins."""
    x = container(x)
    dtype = x.dtype.newbyteorder("=")
    n = n_reduced(x.shape, axes)
    if is_dense(x, axes):
        never = _never_wins(name, dtype)
        values = EXTREMES[name].reduce(to_ndarray(x), axis=axes, keepdims=True, initial=never, dtype=dtype)
        return Extremes(values + dtype.type(0), n)
    values = in_order(x, axes, partial(_extremes, axes=axes, name=name, n=n, dtype=dtype))
    return Extremes(keep_axes(values, axes), n)


def _extremes(c: Compressed, axes: Axes, name: str, n: int, dtype: np.dtype) -> np.ndarray:
    entries = _entries(c, axes)
    c = c._replace(unknown=False)  # all have been looked at
    never = _never_wins(name, dtype)
    start = np.full(len(entries), never, dtype)
    start[entries < n] = 0
    if dtype.str[1:] == "u8":
        return _unsigned(_fold(c, axes, name, _signed(start), _signed))
    out = start.astype(float if dtype.kind == "f" else np.int64)
    values = _fold(c, axes, name, out, dtype, kernel_dtype(dtype, SUM_AS))
    values += 0  # no -0
    return values.astype(dtype, copy=False)


def _signed(values: np.ndarray) -> np.ndarray:
    """Unsigned 64-bit numbers as signed ones in the same order."""
    return (values ^ np.uint64(1 << 63)).view(np.int64)


def _unsigned(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint64) ^ np.uint64(1 << 63)


def _never_wins(name: str, dtype: np.dtype) -> Any:
    """What every value of the type is larger (max) or smaller (min) than, or equal to."""
    if dtype.kind == "f":
        return -np.inf if name == "max" else np.inf
    if dtype.kind == "b":
        return name == "min"
    return np.iinfo(dtype).min if name == "max" else np.iinfo(dtype).max


def _entries(c: Compressed, axes: Axes) -> np.ndarray:
    """How many stored values there are for each result."""
    if len(axes) == 2:
        return np.array([len(c.data)])
    if axes == (1 - c.major,):
        return c.indptr[1:] - c.indptr[:-1]
    ones = read_only(np.ones(min(len(c.data), _blocks.CAST_STEP), np.uint8))
    nothing = np.zeros(c.n_minor, np.int64)
    return over_blocks(c, kernels().count_minor, nothing, add_to, lambda values: ones[: len(values)])


def _fold(c: Compressed, axes: Axes, op: str, out: np.ndarray, *steps: Step) -> np.ndarray:
    """out[r] = op(out[r], v) for each stored value v of result r, in their order and after these steps."""
    kernel, code = kernels(), FOLDS.index(op)
    if axes == (1 - c.major,):

        def rows(start: int, stop: int) -> None:
            for p in row_pieces(c, start, stop, *steps):
                kernel.fold_major(p.data, p.indptr, 0, p.n, code, out[p.first : p.first + p.n])

        run_rows(c, rows)
        return out
    if len(axes) == 2:
        for p in flat_pieces(c, 0, c.n_major, *steps):
            kernel.fold_major(p.data, p.indptr, 0, 1, code, out)
        return out

    def add(data: Any, indices: Any, indptr: Any, start: int, stop: int, part: Any) -> int:
        return kernel.fold_minor(data, indices, indptr, start, stop, code, part)

    if op in EXTREMES:
        return over_blocks(c, add, out, EXTREMES[op], *steps)
    return of_block(c, add, out, steps, 0, c.n_major)  # zero times a block's product may be NaN


def tops(x: Any, ns: Sequence[int]) -> np.ndarray:
    """The sum of the ns[q] largest elements of row i at [i, q], of all where there are fewer: float64, int64 or uint64.

    The implicit zeros are among the elements, and NaN is larger than any number.
    """
    x = container(x)
    if x.dtype.kind == "c":
        raise TypeError(f"the largest elements are those of real numbers; got {x.dtype}")
    n_rows, n_columns = x.shape
    sizes, which = np.unique(np.minimum(np.asarray(ns, np.int64), n_columns), return_inverse=True)
    out = np.empty((n_rows, len(sizes)), sum_dtype(x.dtype))
    if is_sparse(x):
        c = compressed(x, canonical=True)
        if c.major == 1:
            c = compressed(native(c).tocsr(), canonical=True)
        signed = c.data.view(np.int64) if c.data.dtype == np.uint64 else c.data
        if not len(signed) or signed.min() >= 0:
            _stored_tops(c, sizes, out)
            return out[:, which]
        x = native(c)
    for start, stop in _blocks.split_flat(n_rows, max(1, _blocks.CAST_STEP // max(n_columns, 1))):
        rows = x[start:stop].toarray() if is_sparse(x) else x[start:stop]
        with np.errstate(all="ignore"):
            ordered = np.partition(rows, n_columns - sizes[sizes > 0], axis=1)
            for q, size in enumerate(sizes):
                out[start:stop, q] = ordered[:, n_columns - size :].sum(axis=1, dtype=out.dtype)
    return out[:, which]


def _stored_tops(c: Compressed, sizes: np.ndarray, out: np.ndarray) -> None:
    """The same of the stored values, none of which is less than the implicit ones; sizes increase."""
    dtype = kernel_dtype(c.data.dtype, SUM_AS)
    acc = np.dtype(float if dtype.kind == "f" else np.int64)
    kernel = kernels()

    def rows(start: int, stop: int) -> None:
        scratch = np.empty(np.diff(c.indptr[start : stop + 1]).max(initial=0), dtype)
        for p in row_pieces(c, start, stop, dtype):
            to = out[p.first : p.first + p.n].view(acc)
            kernel.top_major(p.data, p.indptr, 0, p.n, read_only(sizes), scratch, to)

    run_rows(c, rows)
