"""A compressed matrix in pieces that kernels take: cast to their types, a cache's worth at a time.

Where the values have a type that kernels take, a piece is a whole block and nothing is copied.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from . import _blocks
from ._blocks import Result
from ._config import kernels
from ._inputs import Compressed, compressed, native_dtype, raise_bad_index, read_only

# The types that kernels take for the others; at the same width they are viewed as it, else cast to it.
SUM_AS, MOMENTS_AS, COUNT_AS = (
    {np.dtype(given): np.dtype(taken) for given, taken in types.items()}
    for types in (
        {"b1": "u1", "i1": "i4", "i2": "i4", "u4": "i8", "u8": "i8"},
        {"b1": "u1", "i1": "i4", "i2": "i4", "u4": "i8", "u8": "f8"},
        {"b1": "u1", "i1": "u1", "i2": "u2", "u4": "i4", "u8": "i8"},  # only zero or not matters
    )
)
# The low bits of a product are those of its unsigned factors, and a copy is bytes.
SCALE_AS = TAKE_AS = COUNT_AS


# What values go through: a type, or a function that gives new values.
Step = np.dtype | Callable[[np.ndarray], np.ndarray]


# Rows whose order is not known are looked at so many indices at a time, which are then still in the cache.
LOOK_STEP = 1 << 19


class OutOfOrder(Exception):
    """A row turned out not to be sorted, or to have duplicates."""


class Piece(NamedTuple):
    """Stored values [lo, hi) of a matrix, as rows [first, first + n) of it, with an indptr that starts at 0."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    lo: int
    hi: int
    first: int
    n: int


def kernel_dtype(dtype: np.dtype, table: dict[np.dtype, np.dtype]) -> np.dtype:
    """The type that kernels take for values of `dtype`."""
    dtype = native_dtype(dtype)
    return table.get(dtype, dtype)


def cast(values: np.ndarray, *dtypes: Step) -> np.ndarray:
    """The values in the last type, after the others in turn; integers of equal width are viewed, not copied.

    In place of a type there may be a function of the values, which gives new ones.
    """
    for dtype in dtypes:
        if not isinstance(dtype, np.dtype):
            values = dtype(values)
        elif values.dtype == dtype:
            continue
        elif _is_view(values.dtype, dtype):
            values = values.view(dtype)
        else:
            with np.errstate(all="ignore"):
                values = values.astype(dtype)
    return values


def _is_view(dtype: np.dtype, other: np.dtype) -> bool:
    return dtype.kind in "biu" and other.kind in "iu" and dtype.itemsize == other.itemsize


def _is_free(dtype: np.dtype, dtypes: tuple[Step, ...]) -> bool:
    """Whether a cast of values of `dtype` through these types only views them."""
    for other in dtypes:
        if not isinstance(other, np.dtype):
            return False
        if dtype != other and not _is_view(dtype, other):
            return False
        dtype = other
    return True


def in_order(x: Any, axes: tuple[int, ...], work: Callable[[Compressed], Result]) -> Result:
    """work(c) of a sparse x whose rows are sorted and without duplicates, or of a copy that is.

    Where that is not known of x, and the indices are read to reduce it over its compressed axis, rows are looked at as
    `flat_pieces` takes them: one reading of the indices less.
    """
    later = axes == (0 if x.format == "csr" else 1,)
    c = compressed(x, canonical="later" if later else True)
    with suppress(OutOfOrder):
        result = work(c)
        if c.unknown:
            x.has_canonical_format = True
        return result
    return work(compressed(x, canonical=True))


def in_steps(c: Compressed, start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """The rows [start, stop) in blocks of about `step` stored values."""
    n_values = c.indptr.item(stop) - c.indptr.item(start)
    blocks = _blocks.split(c.indptr[start : stop + 1], -(-n_values // step))
    return [(start + first, start + last) for first, last in blocks]


def _looked_at(c: Compressed, start: int, stop: int) -> Iterator[tuple[int, int]]:
    for block in in_steps(c, start, stop, LOOK_STEP):
        if not kernels().is_canonical(c.indices, c.indptr, *block):
            raise OutOfOrder
        yield block


def row_pieces(c: Compressed, start: int, stop: int, *dtypes: Step, into: np.ndarray | None = None) -> Iterator[Piece]:
    """The rows [start, stop), cast through `dtypes`; with `into`, by way of that buffer of the result's type."""
    free = _is_free(c.data.dtype, dtypes if into is None else (into.dtype, *dtypes))
    if free and stop - start == c.n_major:
        yield Piece(cast(c.data, *dtypes), c.indices, c.indptr, 0, len(c.data), 0, c.n_major)
        return
    for first, last in [(start, stop)] if free else in_steps(c, start, stop, _blocks.CAST_STEP):
        lo, hi = c.indptr.item(first), c.indptr.item(last)
        data = c.data[lo:hi]
        if into is not None and into.dtype != data.dtype:
            with np.errstate(all="ignore"):
                into[lo:hi] = data
            data = into[lo:hi]
        data = read_only(cast(data, *dtypes))
        indptr = c.indptr[first : last + 1]
        if lo:
            indptr = read_only(indptr - lo)
        yield Piece(data, c.indices[lo:hi], indptr, lo, hi, first, last - first)


def flat_pieces(c: Compressed, start: int, stop: int, *dtypes: Step) -> Iterator[Piece]:
    """The stored values of the rows [start, stop), cast through `dtypes`, each piece as if it were one row."""
    free = _is_free(c.data.dtype, dtypes)
    for first, last in _looked_at(c, start, stop) if c.unknown else [(start, stop)]:
        begin, end = c.indptr.item(first), c.indptr.item(last)
        step = max(end - begin, 1) if free else _blocks.CAST_STEP
        for lo in range(begin, end, step):
            hi = min(lo + step, end)
            data = read_only(cast(c.data[lo:hi], *dtypes))
            yield Piece(data, c.indices[lo:hi], one_row(hi - lo), lo, hi, 0, 1)


def one_row(n: int) -> np.ndarray:
    """The indptr of a single row with n values."""
    indptr = np.array([0, n])
    indptr.setflags(write=False)
    return indptr


def places(c: Compressed) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(lo, hi, rows, columns) of the stored values, a cache's worth at a time: for what NumPy does with them."""
    for start, stop in _blocks.split(c.indptr, -(-len(c.data) // _blocks.CAST_STEP)):
        lo, hi = int(c.indptr[start]), int(c.indptr[stop])
        major = np.repeat(np.arange(start, stop), np.diff(c.indptr[start : stop + 1]))
        rows, columns = (major, c.indices[lo:hi]) if c.major == 0 else (c.indices[lo:hi], major)
        yield lo, hi, rows, columns


def as_one_row(c: Compressed) -> Compressed:
    """All stored values in rows of equal length, whatever the rows of the matrix: for reductions over both axes."""
    edges = np.array([*range(0, len(c.data), _blocks.CAST_STEP), len(c.data)])
    edges.setflags(write=False)
    return Compressed(c.data, c.indices, edges, len(edges) - 1, c.n_minor, 0, c.source, c.name)


def over_blocks(
    c: Compressed, add: Callable[..., int], start: np.ndarray, merge: Callable[[Any, Any], Any], *dtypes: Step
) -> np.ndarray:
    """Partial results of the minor axis, merged: of each block of rows, what `add` makes of `start`.

    `add(data, indices, indptr, 0, 1, part)` is a kernel, which returns the position of a bad index.
    """
    task = partial(of_block, c, add, start, dtypes)
    return reduce(merge, _blocks.run(task, minor_blocks(c, start.size), len(c.data)))


def of_block(
    c: Compressed, add: Callable[..., int], start: np.ndarray, dtypes: tuple[Step, ...], first: int, last: int
) -> np.ndarray:
    """The same of the rows [first, last) alone."""
    part = start.copy()
    for p in flat_pieces(c, first, last, *dtypes):
        check(c, p.lo, add(p.data, p.indices, p.indptr, 0, 1, part))
    return part


@np.errstate(all="ignore")  # inf - inf
def add_to(out: np.ndarray, part: np.ndarray) -> np.ndarray:
    """out += part"""
    out += part
    return out


def minor_blocks(c: Compressed, part_size: int) -> list[tuple[int, int]]:
    """The blocks that decide the order of addition over the major axis: few enough that partial sums cost little.

    Their number is a power of two, so that two, four or eight threads get equally many.
    """
    wanted = max(1, min(len(c.data) // (32 * max(part_size, 1)), 64))
    return _blocks.split(c.indptr, 1 << (wanted.bit_length() - 1))


def run_rows(c: Compressed, task: Callable[[int, int], Any]) -> None:
    """task(start, stop) over blocks of rows, whose number cannot change the result."""
    for _ in _blocks.run(task, _blocks.per_thread(c.indptr), len(c.data)):
        pass


def check(c: Compressed, lo: int, bad: int) -> None:
    """Raise ValueError if a kernel that began at position `lo` found a bad index."""
    if bad >= 0:
        raise_bad_index(c, lo + bad)
