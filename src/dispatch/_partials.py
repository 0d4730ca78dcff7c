"""Sums, counts and moments of one matrix in memory, before the final division and rounding.

Each function takes a container in memory, which may be a chunk of a Dask array, and the axes to reduce; it keeps these
with length one.
"""

from collections.abc import Callable
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
    add_to,
    as_one_row,
    check,
    flat_pieces,
    in_order,
    kernel_dtype,
    of_block,
    one_row,
    over_blocks,
    row_pieces,
    run_rows,
)

Axes = tuple[int, ...]

# A variance is not right to 1e-12 where the distance of shift and mean magnifies rounding (1e-16) as many times. (Whole
# numbers around zero that are merged with fractions on Dask come within a quarter of that: 2.3e-13.)
FAR = 4000
# Sums of fewer values than so many for each column are tried at once, without a look at the first rows.
TRY_ALL = 128


class Sums(NamedTuple):
    """Sums in float64, int64, uint64 or complex128, and how many elements each is of."""

    total: np.ndarray
    n: int


_SUM_DTYPES = {kind: np.dtype(code) for kind, code in zip("biufc", ("i8", "i8", "u8", "f8", "c16"))}


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
        real, imag = (_sums(c, axes, np.dtype(float), dtype, part) for part in (_real, _imag))
        return Sums(as_complex(real, imag), n)
    return Sums(_sums(c, axes, kernel_dtype(dtype, SUM_AS), dtype).view(sum_dtype(dtype)), n)


def _real(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.real)


def _imag(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.imag)


def as_complex(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    """Complex numbers of their parts, also where those are infinite (there real + 1j * imag gives NaN)."""
    result = np.empty(real.shape, complex)
    result.real, result.imag = real, imag
    return result


def sum_dtype(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are summed in."""
    return _SUM_DTYPES[dtype.kind]


def _sums(c: Compressed, axes: Axes, taken: np.dtype, *before: Step) -> np.ndarray:
    """Sums, in float64 or int64, of the values in a type that kernels take, after the steps before."""
    steps = (*before, taken)
    acc = np.dtype(float if taken.kind == "f" else np.int64)
    kernel = kernels()
    if axes == (1 - c.major,):
        out = np.empty(c.n_major, acc)

        def rows(start: int, stop: int) -> None:
            for piece in row_pieces(c, start, stop, *steps):
                kernel.sum_major(piece.data, piece.indptr, 0, piece.n, out[piece.first : piece.first + piece.n])

        run_rows(c, rows)
    elif axes == (c.major,):
        out = over_blocks(c, kernel.sum_minor, np.zeros(c.n_minor, acc), add_to, *steps)
    else:
        out = _sums(as_one_row(c), (1,), taken, *before).ravel()
        if len(out) != 1:
            parts, out = read_only(out), np.empty(1, acc)
            kernel.sum_major(parts, one_row(len(parts)), 0, 1, out)
    return keep_axes(out, axes)


def counts(x: Any, axes: Axes) -> np.ndarray:
    """How many elements are not zero, in int64."""
    x = container(x)
    if is_dense(x, axes):
        return np.asarray(np.sum(to_ndarray(x) != 0, axis=axes, dtype=np.int64, keepdims=True))
    return in_order(x, axes, partial(_counts, axes=axes))


def _counts(c: Compressed, axes: Axes) -> np.ndarray:
    steps: tuple[Step, ...] = (kernel_dtype(c.data.dtype, COUNT_AS),)
    if c.data.dtype.kind == "c":
        steps = (_is_nonzero, np.dtype(np.uint8))
    kernel = kernels()
    if axes == (c.major,):
        return keep_axes(over_blocks(c, kernel.count_minor, np.zeros(c.n_minor, np.int64), add_to, *steps), axes)
    flat = c if len(axes) == 1 else as_one_row(c)
    out = np.empty(flat.n_major, np.int64)

    def rows(start: int, stop: int) -> None:
        for piece in row_pieces(flat, start, stop, *steps):
            kernel.count_major(piece.data, piece.indptr, 0, piece.n, out[piece.first : piece.first + piece.n])

    run_rows(flat, rows)
    return keep_axes(out if len(axes) == 1 else out.sum(keepdims=True), axes)


def _is_nonzero(values: np.ndarray) -> np.ndarray:
    return values != 0


def nonzeros(x: Any, axes: Axes) -> Sums:
    """The same, and how many elements there are."""
    return Sums(counts(x, axes), n_reduced(x.shape, axes))


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
    found = in_order(x, axes, partial(_moments_of, axes=axes, unlog=unlog))
    return Moments(*found.reshape((4, 1, -1) if axes == (0,) else (4, -1, 1)))


def _unlogged(values: np.ndarray, scale: float) -> np.ndarray:
    """exp(scale * values) - 1, in float64."""
    out = np.array(values, float, order="C")
    out *= scale
    flat = out.reshape(-1)
    kernels().expm1(read_only(flat), 0, len(flat), flat)
    return out


def _moments_of(c: Compressed, axes: Axes, unlog: float | None) -> np.ndarray:
    """The four parts of the moments of all elements, a row for each."""
    if axes == (c.major,):
        return _minor_moments(c, unlog)
    step = kernel_dtype(c.data.dtype, MOMENTS_AS) if unlog is None else partial(_unlogged, scale=unlog)
    if len(axes) == 1:
        return _moments.with_zeros(_major_records(c, step), c.n_minor)
    return _moments.with_zeros(_moments.merge_records(_major_records(as_one_row(c), step)), c.n_major * c.n_minor)


def _major_records(c: Compressed, step: Step) -> np.ndarray:
    kernel = kernels()
    records = np.empty((c.n_major, 4))

    def rows(start: int, stop: int) -> None:
        for piece in row_pieces(c, start, stop, step):
            kernel.moments_major(piece.data, piece.indptr, 0, piece.n, records[piece.first : piece.first + piece.n])

    run_rows(c, rows)
    return records


def _minor_moments(c: Compressed, unlog: float | None) -> np.ndarray:
    """The four parts of the moments of each column.

    All blocks share one shift. It is zero for whole numbers that vary enough, as counts do: their sums are exact, those
    of squares, too, the implicit zeros add nothing to them, and both take two thirds of the time. Else it is the centre
    of the first 1/256 of the rows, or one value in a small matrix. Where that turns out to be too far from the mean of
    a column (an outlier), another pass takes the centre of the whole column.
    """
    kernel = kernels()
    step = kernel_dtype(c.data.dtype, MOMENTS_AS) if unlog is None else float_dtype(c.data.dtype)
    head = _head(c.n_major)
    if unlog is None and _begins_whole(c.data):  # `power_sums_minor` is of what is stored, not of its exponentials
        nothing = np.zeros((c.n_minor, 2))
        # Of a small matrix a first look would take as long as all.
        tried = c.n_major if len(c.data) < TRY_ALL * c.n_minor else head
        sums = of_block(c, kernel.power_sums_minor, nothing, (step,), 0, tried)
        # Twice as near as it must be, for so many times the rows: the others may differ.
        if _zero_is_near(tried, sums, FAR if tried == c.n_major else FAR / 2 * np.sqrt(tried / c.n_major)):
            if tried < c.n_major:
                sums = over_blocks(c, kernel.power_sums_minor, nothing, add_to, step)
            c = c._replace(unknown=False)  # all have been looked at
            if tried == c.n_major or _zero_is_near(c.n_major, sums, FAR):
                return np.stack([np.full(c.n_minor, float(c.n_major)), *sums.T, np.zeros(c.n_minor)])

    def add(data: Any, indices: Any, indptr: Any, start: int, stop: int, part: Any) -> int:
        if unlog is None:
            return kernel.moments_minor(data, indices, indptr, start, stop, part)
        return kernel.expm1_moments_minor(data, indices, indptr, start, stop, unlog, part)

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
            shift = Moments(*of_block(c, add, _around(shift), (step,), 0, head).T).centred().shift
    records = _add_records(c, add, shift, step)
    c = c._replace(unknown=False)
    far = _too_far(records, c.n_major)
    if far.any():
        with np.errstate(all="ignore"):
            shift = np.where(far, Moments(*records.T).centred().shift, shift)
        records = _add_records(c, add, shift, step)
    return _moments.with_zeros(records, c.n_major)


def _add_records(c: Compressed, add: Callable[..., int], shift: np.ndarray, step: Step) -> np.ndarray:
    records = over_blocks(c, add, _around(shift), add_to, step)
    records[:, 3] = shift
    return records


def _around(shift: np.ndarray) -> np.ndarray:
    """Records of no values."""
    records = np.zeros((len(shift), 4))
    records[:, 3] = shift
    return records


def _begins_whole(data: np.ndarray) -> bool:
    """Whether the first values are whole numbers: sums of all are worth a try."""
    first = data[:1024]
    return first.dtype.kind in "iu" or bool((np.rint(first) == first).all())


def _zero_is_near(n: int, sums: np.ndarray, limit: float) -> bool:
    """Whether sums of n values and of their squares do, around zero, for all columns.

    They are those of whole numbers, so without rounding; small enough to stay so when they are moved to another shift;
    and that magnifies the rounding of its decisions little, as in `_too_far`, or all values of a column are equal.
    """
    s1, s2 = sums.T
    with np.errstate(all="ignore"):
        squares, most = s1 * s1, n * s2
        near = squares * np.sqrt(n) <= limit * (most - squares)
        if not near.all():
            near |= (squares == most) & (most < 2**53)
    return bool(near.all() and s2.max(initial=0) < 2**45 and (np.rint(sums) == sums).all())


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
    """The same of an ndarray, block by block of its first axis, around the centre of its first rows if that will do."""
    n = n_reduced(x.shape, axes)
    shape = tuple(1 if axis in axes else length for axis, length in enumerate(x.shape))
    if not n or not x.size:
        return _moments.zeros(np.full(shape, float(n)))
    first = x[tuple(slice(1) if axis in axes else slice(None) for axis in range(x.ndim))].astype(float)
    head = x[: _head(len(x))] if 0 in axes else x  # else a block is all of its results
    with np.errstate(all="ignore"):
        shift = np.where(np.isfinite(first), first, 0)
        shift = _dense_around(head, axes, shift, n_reduced(head.shape, axes)).centred().shift
        found = _dense_around(x, axes, shift, n)
        if head.size < x.size and _too_far(np.stack([part.ravel() for part in found], axis=1), n).any():
            found = _dense_around(x, axes, found.centred().shift, n)
    return found


def _head(n_rows: int) -> int:
    """How many of the first rows tell where the others may lie."""
    return max(n_rows // 256, min(n_rows, 256))


def _dense_around(x: np.ndarray, axes: Axes, shift: np.ndarray, n: int) -> Moments:
    def sums(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        d = x[start:stop] - shift[slice(None) if 0 in axes else slice(start, stop)] if x.ndim else x - shift
        s1 = np.sum(d, axis=axes, keepdims=True)
        return s1, np.sum(np.multiply(d, d, out=d if d.ndim else None), axis=axes, keepdims=True)

    s1, s2 = np.zeros(shift.shape), np.zeros(shift.shape)
    blocks = _blocks.split_flat(len(x), max(1, _blocks.CAST_STEP * len(x) // x.size)) if x.ndim else [(0, 1)]
    for (start, stop), parts in zip(blocks, _blocks.run(sums, blocks, x.size)):
        for total, part in zip((s1, s2), parts):
            total[... if 0 in axes or not x.ndim else slice(start, stop)] += part
    return Moments(np.full(shift.shape, float(n)), s1, s2, shift)


def to_ndarray(x: Any, order: str = "C", name: str = "x") -> np.ndarray:
    """A container in memory as an ndarray."""
    if not is_sparse(x):
        return np.asarray(x, order=order)  # type: ignore[call-overload]
    return native(compressed(x, name=name)).toarray(order=order).astype(x.dtype, copy=False)


def keep_axes(values: np.ndarray, axes: Axes) -> np.ndarray:
    """A vector of results with the reduced axes put back."""
    return values.reshape((1, -1) if axes == (0,) else (-1, 1))
