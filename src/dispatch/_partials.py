"""Reductions of one matrix in memory, before the final division and rounding: what is also done to each Dask chunk.

Each function takes a container in memory and the axes to reduce, and keeps the reduced axes with length one.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import _blocks, _moments
from ._config import kernels
from ._inputs import Compressed, compressed, container, float_dtype, is_sparse, native, read_only
from ._moments import Moments
from ._pieces import (
    COUNT_AS,
    MOMENTS_AS,
    SUM_AS,
    Step,
    as_one_row,
    check,
    flat_pieces,
    in_order,
    kernel_dtype,
    minor_blocks,
    one_row,
    places,
    row_pieces,
    run_rows,
)

Axes = tuple[int, ...]

# A variance is not right to 1e-12 where the distance of shift and mean magnifies rounding (1e-16) as many times.
FAR = 4000


class Sums(NamedTuple):
    """Sums in float64, int64, uint64 or complex128, and how many elements each is of."""

    total: np.ndarray
    n: int


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
_SUM_DTYPES = {kind: np.dtype(code) for kind, code in zip("biufc", ("i8", "i8", "u8", "f8", "c16"))}
# In the order of the codes that kernels know them by.
FOLDS = ("max", "min", "product")


def add_all(parts: list[Any]) -> Any:
    """The sum of partial results, in their order."""
    return reduce(np.add, parts)


def n_reduced(shape: tuple[int, ...], axes: Axes) -> int:
    """How many elements go into each result."""
    return prod([shape[axis] for axis in axes])


def is_dense(x: Any, axes: Axes) -> bool:
    """Whether x is reduced as an ndarray: also where nothing is reduced, and a 1-D chunk of a Dask array."""
    return not is_sparse(x) or not axes or x.ndim == 1


def sums(x: Any, axes: Axes, dtype: np.dtype | None = None) -> Sums:
    """Sums over axes of the values, cast to `dtype` first."""
    x = container(x)
    dtype = np.dtype(dtype or x.dtype).newbyteorder("=")
    n = n_reduced(x.shape, axes)
    if is_dense(x, axes):
        x = to_ndarray(x)
        with np.errstate(all="ignore"):
            x = x if x.dtype == dtype else x.astype(dtype)
            return Sums(np.sum(x, axis=axes, dtype=sum_dtype(dtype), keepdims=True), n)
    # What is cast to integers is an element, not each of its duplicates.
    c = compressed(x, canonical=dtype.kind in "biu" and x.dtype.kind in "fc")
    if dtype.kind == "c":
        real, imag = (c._replace(data=read_only(np.ascontiguousarray(part))) for part in (c.data.real, c.data.imag))
        return Sums(as_complex(_sums(real, axes, np.dtype(float)), _sums(imag, axes, np.dtype(float))), n)
    return Sums(_sums(c, axes, dtype), n)


def as_complex(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    """Complex numbers of their parts, also where those are infinite (there real + 1j * imag gives NaN)."""
    result = np.empty(real.shape, complex)
    result.real, result.imag = real, imag
    return result


def sum_dtype(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are summed in."""
    return _SUM_DTYPES[dtype.kind]


def _sums(c: Compressed, axes: Axes, dtype: np.dtype) -> np.ndarray:
    steps = (dtype, kernel_dtype(dtype, SUM_AS))
    acc = np.dtype(float if dtype.kind == "f" else np.int64)
    kernel = kernels()
    if axes == (1 - c.major,):
        out = np.empty(c.n_major, acc)

        def rows(start: int, stop: int) -> None:
            for piece in row_pieces(c, start, stop, *steps):
                kernel.sum_major(piece.data, piece.indptr, 0, piece.n, out[piece.first : piece.first + piece.n])

        run_rows(c, rows)
    elif axes == (c.major,):

        def columns(start: int, stop: int) -> np.ndarray:
            part = np.zeros(c.n_minor, acc)
            for piece in flat_pieces(c, start, stop, *steps):
                check(c, piece.lo, kernel.sum_minor(piece.data, piece.indices, piece.indptr, 0, 1, part))
            return part

        out = reduce(_add_to, _blocks.run(columns, minor_blocks(c, c.n_minor), len(c.data)))
    else:
        out = _sums(as_one_row(c), (1,), dtype).ravel().view(acc)
        if len(out) != 1:
            parts, out = read_only(out), np.empty(1, acc)
            kernel.sum_major(parts, one_row(len(parts)), 0, 1, out)
    return keep_axes(out, axes).view(sum_dtype(dtype))


def counts(x: Any, axes: Axes) -> np.ndarray:
    """How many elements are not zero, in int64."""
    x = container(x)
    if is_dense(x, axes):
        return np.asarray(np.sum(to_ndarray(x) != 0, axis=axes, dtype=np.int64, keepdims=True))
    return in_order(x, axes, partial(_counts, axes=axes))


def _counts(c: Compressed, axes: Axes) -> np.ndarray:
    if c.data.dtype.kind == "c":
        c = c._replace(data=read_only(c.data != 0))
    steps = (kernel_dtype(c.data.dtype, COUNT_AS),)
    kernel = kernels()
    if axes == (c.major,):

        def columns(start: int, stop: int) -> np.ndarray:
            part = np.zeros(c.n_minor, np.int64)
            for piece in flat_pieces(c, start, stop, *steps):
                check(c, piece.lo, kernel.count_minor(piece.data, piece.indices, piece.indptr, 0, 1, part))
            return part

        out = reduce(_add_to, _blocks.run(columns, minor_blocks(c, c.n_minor), len(c.data)))
        return keep_axes(out, axes)
    flat = c if len(axes) == 1 else as_one_row(c)
    out = np.empty(flat.n_major, np.int64)

    def rows(start: int, stop: int) -> None:
        for piece in row_pieces(flat, start, stop, *steps):
            kernel.count_major(piece.data, piece.indptr, 0, piece.n, out[piece.first : piece.first + piece.n])

    run_rows(flat, rows)
    return keep_axes(out if len(axes) == 1 else out.sum(keepdims=True), axes)


def nonzeros(x: Any, axes: Axes) -> Sums:
    """The same, and how many elements there are."""
    return Sums(counts(x, axes), n_reduced(x.shape, axes))


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
        return _fold(c, axes, "product", out.view("i8" if out.dtype.kind == "u" else out.dtype), dtype).view(out.dtype)
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
    never = _never_wins(name, dtype)
    if is_dense(x, axes):
        values = EXTREMES[name].reduce(to_ndarray(x), axis=axes, keepdims=True, initial=never, dtype=dtype)
        return Extremes(values + dtype.type(0), n)
    c = compressed(x, canonical=True)
    entries = _entries(c, axes)
    start = np.full(len(entries), never, dtype)
    start[entries < n] = 0
    if dtype.str[1:] == "u8":  # as signed numbers in the same order
        top = np.uint64(1 << 63)
        c = c._replace(data=read_only((c.data.astype(dtype) ^ top).view(np.int64)))
        values = _fold(c, axes, name, (start ^ top).view(np.int64), np.dtype(np.int64)).view(dtype) ^ top
    else:
        values = _fold(c, axes, name, start.astype(float if dtype.kind == "f" else np.int64), dtype)
        values += 0  # no -0
        values = values.astype(dtype, copy=False)
    return Extremes(keep_axes(values, axes), n)


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
    out = np.zeros(c.n_minor, np.int64)
    ones = read_only(np.ones(min(len(c.data), _blocks.CAST_STEP), np.uint8))
    kernel = kernels()
    for lo, hi in _blocks.split_flat(len(c.data), _blocks.CAST_STEP):
        check(c, lo, kernel.count_minor(ones, c.indices[lo:hi], one_row(hi - lo), 0, 1, out))
    return out


def _fold(c: Compressed, axes: Axes, op: str, out: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """out[r] = op(out[r], v) for each stored value v of result r, in their order and cast to `dtype`."""
    steps = (dtype, kernel_dtype(dtype, SUM_AS))
    kernel, code = kernels(), FOLDS.index(op)
    if axes == (1 - c.major,):

        def rows(start: int, stop: int) -> None:
            for p in row_pieces(c, start, stop, *steps):
                kernel.fold_major(p.data, p.indptr, 0, p.n, code, out[p.first : p.first + p.n])

        run_rows(c, rows)
        return out
    for p in flat_pieces(c, 0, c.n_major, *steps):
        if len(axes) == 2:
            kernel.fold_major(p.data, p.indptr, 0, 1, code, out)
        else:
            check(c, p.lo, kernel.fold_minor(p.data, p.indices, p.indptr, 0, 1, code, out))
    return out


def moments(x: Any, axes: Axes, unlog: float | None = None) -> Moments:
    """Moments of all elements, the implicit zeros included; with `unlog`, of exp(unlog * element) - 1 in float64.

    (In float32 a column with a large mean and a small variance would lose that in its rounding.)
    """
    x = container(x)
    if x.dtype.kind == "c":
        raise TypeError(f"variance is defined for real numbers; got {x.dtype}")
    if is_dense(x, axes):
        x = to_ndarray(x)
        return _dense_moments(x if unlog is None else _unlogged(x, unlog), axes)
    records = in_order(x, axes, partial(_records, axes=axes, unlog=unlog))
    merged = _moments.with_zeros(records, n_reduced(x.shape, axes))
    return Moments(*merged.reshape((4, 1, -1) if axes == (0,) else (4, -1, 1)))


def _unlogged(values: np.ndarray, scale: float) -> np.ndarray:
    """exp(scale * values) - 1, in float64."""
    out = np.array(values, float, order="C")
    out *= scale
    flat = out.reshape(-1)
    kernels().expm1(read_only(flat), 0, len(flat), flat)
    return out


def _records(c: Compressed, axes: Axes, unlog: float | None) -> np.ndarray:
    """Moments of the stored values."""
    if axes == (c.major,):
        return _minor_records(c, unlog)
    step = kernel_dtype(c.data.dtype, MOMENTS_AS) if unlog is None else partial(_unlogged, scale=unlog)
    if len(axes) == 1:
        return _major_records(c, step)
    return _moments.merge_records(_major_records(as_one_row(c), step))


def _major_records(c: Compressed, step: Step) -> np.ndarray:
    kernel = kernels()
    records = np.empty((c.n_major, 4))

    def rows(start: int, stop: int) -> None:
        for piece in row_pieces(c, start, stop, step):
            kernel.moments_major(piece.data, piece.indptr, 0, piece.n, records[piece.first : piece.first + piece.n])

    run_rows(c, rows)
    return records


def _minor_records(c: Compressed, unlog: float | None) -> np.ndarray:
    """Moments of each column: of its stored values, or, where the shift of all is zero, of its implicit zeros, too.

    All blocks share one shift. It is zero for whole numbers that vary enough, as counts do: their sums are exact, and
    values and squares alone take two thirds of the time. Else it is the centre of the first 1/256 of the rows, or one
    value in a small matrix. Where that turns out to be too far from the mean of a column (an outlier), another pass
    takes the centre of the whole column.
    """
    kernel = kernels()
    step = kernel_dtype(c.data.dtype, MOMENTS_AS) if unlog is None else float_dtype(c.data.dtype)
    add: Callable[..., int] = kernel.moments_minor if unlog is None else kernel.expm1_moments_minor
    scale = () if unlog is None else (unlog,)

    def powers(start: int, stop: int) -> np.ndarray:
        part = np.zeros((c.n_minor, 2))
        for piece in flat_pieces(c, start, stop, step):
            check(c, piece.lo, kernel.power_sums_minor(piece.data, piece.indices, piece.indptr, 0, 1, part))
        return part

    def columns(start: int, stop: int) -> np.ndarray:
        part = np.zeros((c.n_minor, 4))
        part[:, 3] = shift
        for piece in flat_pieces(c, start, stop, step):
            check(c, piece.lo, add(piece.data, piece.indices, piece.indptr, 0, 1, *scale, part))
        return part

    head = max(c.n_major // 256, min(c.n_major, 256))
    shift = np.zeros(c.n_minor)
    for piece in flat_pieces(c, 0, head, step):
        check(c, piece.lo, kernel.check_indices(piece.indices, piece.indptr, 0, 1, c.n_minor))
        # A value of the column itself (the last one): equal values then have their own value as the shift.
        shift[piece.indices] = piece.data
    if unlog is not None:
        shift = _unlogged(shift, unlog)
    shift[~np.isfinite(shift)] = 0
    if head < c.n_major:  # else the first pass is over all rows
        with np.errstate(all="ignore"):
            first = Moments(*columns(0, head).T)
            around_zero = first.around(np.zeros(()))
            shift = first.centred().shift
        # Twice as near as it must be, for so many times the rows: the others may differ. (`powers` are of what is
        # stored, not of its exponentials.)
        if unlog is None and _zero_is_near(head, around_zero.s1, around_zero.s2, FAR / 2 * np.sqrt(head / c.n_major)):
            blocks = minor_blocks(c, 2 * c.n_minor)
            s1, s2 = reduce(_add_to, _blocks.run(powers, blocks, len(c.data))).T
            c = c._replace(unknown=False)  # all have been looked at
            if _zero_is_near(c.n_major, s1, s2, FAR):
                nothing = np.zeros(c.n_minor)
                return np.stack([nothing + c.n_major, s1, s2, nothing], axis=1)
    records = _add_records(c, columns, shift)
    c = c._replace(unknown=False)
    far = _too_far(records, c.n_major)
    if far.any():
        with np.errstate(all="ignore"):
            shift = np.where(far, Moments(*records.T).centred().shift, shift)
        records = _add_records(c, columns, shift)
    return records


def _add_records(c: Compressed, columns: Callable[[int, int], np.ndarray], shift: np.ndarray) -> np.ndarray:
    records = reduce(_add_to, _blocks.run(columns, minor_blocks(c, 4 * c.n_minor), len(c.data)))
    records[:, 3] = shift
    return records


def _zero_is_near(n: int, s1: np.ndarray, s2: np.ndarray, limit: float) -> bool:
    """Whether sums of n values and of their squares do, around zero, for all columns.

    They are those of whole numbers, so without rounding; small enough to stay so when they are moved to another shift;
    and that magnifies the rounding of its decisions little, as in `_too_far`.
    """
    whole = (np.rint(s1) == s1) & (np.rint(s2) == s2) & (s2 < 2**45)
    with np.errstate(all="ignore"):
        squares = s1 * s1
        near = squares * np.sqrt(n) <= limit * (n * s2 - squares)
    return bool((whole & near).all())


def _too_far(records: np.ndarray, n_rows: int) -> np.ndarray:
    """Where the squares around the shift have lost too many digits for a variance right to 1e-12.

    Rounding grows as the root of the number of values. It is magnified by the squares' share that the distance of shift
    and mean has, over all that varies in the column: the stored values, and they against the implicit zeros. Sums of
    integers are exact, wherever the shift is.
    """
    n, s1, s2, shift = records.T
    with np.errstate(all="ignore"):
        squares = s1 * s1
        near = squares * np.sqrt(n) <= FAR * (n * s2 - squares)  # even without what varies against the zeros
    if near.all() and s2.max(initial=0) < 2**53:  # nearly always, in half the time
        return ~near
    exact = (np.rint(s1) == s1) & (np.rint(s2) == s2) & (np.rint(shift) == shift) & (s2 < 2**53)
    with np.errstate(all="ignore"):
        distance = s1 * s1 / n  # n (mean - shift)**2
        against_zeros = (shift + s1 / n) ** 2 * n * ((n_rows - n) / n_rows)
        far = distance * np.sqrt(n) > FAR * (np.maximum(s2 - distance, 0) + against_zeros)
        return (far | (s2 >= 2**53) & (s2 - distance < 2**53)) & ~exact


def _dense_moments(x: np.ndarray, axes: Axes) -> Moments:
    """The same of an ndarray, block by block of its first axis."""
    n = n_reduced(x.shape, axes)
    shape = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape))
    if not n or not x.size:
        return _moments.zeros(np.full(shape, float(n)))
    first = x[tuple(slice(1) if axis in axes else slice(None) for axis in range(x.ndim))].astype(float)
    with np.errstate(all="ignore"):
        shift = _dense_around(x, axes, np.where(np.isfinite(first), first, 0), n).centred().shift
        return _dense_around(x, axes, shift, n)


def _dense_around(x: np.ndarray, axes: Axes, shift: np.ndarray, n: int) -> Moments:
    s1, s2 = np.zeros(shift.shape), np.zeros(shift.shape)
    for start, stop in _blocks.split_flat(len(x), max(1, _blocks.CAST_STEP * len(x) // x.size)) if x.ndim else [(0, 1)]:
        block, of = (x[start:stop], slice(None) if 0 in axes else slice(start, stop)) if x.ndim else (x, ...)
        d = block - shift[of]
        s1[of] += np.sum(d, axis=axes, keepdims=True)
        s2[of] += np.sum(np.multiply(d, d, out=d if d.ndim else None), axis=axes, keepdims=True)
    return Moments(np.full(shift.shape, float(n)), s1, s2, shift)


def to_ndarray(x: Any, order: str = "C", name: str = "x") -> np.ndarray:
    """A container in memory as an ndarray."""
    if not is_sparse(x):
        return np.asarray(x, order=order)  # type: ignore[call-overload]
    return native(compressed(x, name=name)).toarray(order=order).astype(x.dtype, copy=False)


@np.errstate(all="ignore")  # inf - inf
def _add_to(out: np.ndarray, part: np.ndarray) -> np.ndarray:
    out += part
    return out


def keep_axes(values: np.ndarray, axes: Axes) -> np.ndarray:
    """A vector of results with the reduced axes put back."""
    return values.reshape((1, -1) if axes == (0,) else (-1, 1))
