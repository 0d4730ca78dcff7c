"""Rows of a csr matrix in as little memory as their values allow, without loss.

Counts are small whole numbers, whatever type they are stored in: most fit one byte, and the numbers of up to 65,536
columns fit two, so that a stored value takes three bytes instead of eight. The few values that do not fit stay beside
them as they are; where these are not few, all stay.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from . import _blocks
from ._inputs import assemble, check_dtype, narrow, native_dtype
from ._select import take

# Values are narrowed so many at a time: they stay in the cache.
STEP = 1 << 18
# Of a narrow block, so many values are wide at a time; and so many partial results wait to be merged.
WIDE, MERGED = 1 << 21, 8
# Of values that do not fit, there may be one in so many.
RARE = 32


class Part(NamedTuple):
    """Consecutive values in a narrower type, and those that it cannot hold."""

    values: np.ndarray
    places: np.ndarray
    others: np.ndarray


class Narrow(NamedTuple):
    """A block of rows."""

    shape: tuple[int, int]
    dtype: np.dtype
    """Of the values, when they are wide again."""
    parts: list[Part]
    indices: np.ndarray
    indptr: np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        arrays = [self.indices, self.indptr, *(array for part in self.parts for array in part)]
        return sum(array.nbytes for array in arrays)


def index_dtype(n_columns: int) -> np.dtype:
    """What holds the numbers of so many columns."""
    return np.dtype(np.uint16 if n_columns <= 1 << 16 else np.int32 if n_columns < 1 << 31 else np.int64)


def narrow_values(values: np.ndarray) -> Iterator[Part]:
    """The same values, a cache's worth at a time, to the bit: minus zero and NaN are among those that do not fit."""
    check_dtype(values.dtype, "values")
    for lo in range(0, len(values), STEP):
        yield _narrowed(values[lo : lo + STEP].astype(native_dtype(values.dtype), copy=False))


def _narrowed(values: np.ndarray) -> Part:
    for small in (np.uint8, np.uint16):
        if values.dtype.itemsize <= np.dtype(small).itemsize or values.dtype.kind not in "iuf":
            break
        with np.errstate(all="ignore"):
            cut = values.astype(small)
            bits = np.dtype(f"u{values.itemsize}")
            other = cut.astype(values.dtype).view(bits) != values.view(bits)
        if np.count_nonzero(other) <= len(values) // RARE:
            places = np.flatnonzero(other).astype(np.int32)
            return Part(cut, places, values[places])
    nothing = np.empty(0, np.int32)
    return Part(values.copy(), nothing, values[:0].copy())


def widen(x: Narrow, start: int = 0, stop: int | None = None) -> Any:
    """Rows [start, stop) as a csr_matrix: values in their type, indices in int32, or in int64 where they need it."""
    stop = x.shape[0] if stop is None else stop
    lo, hi = int(x.indptr[start]), int(x.indptr[stop])
    data, end = np.empty(hi - lo, native_dtype(x.dtype)), 0
    for part in x.parts:
        begin, end = end, end + len(part.values)
        first, last = max(lo, begin), min(hi, end)
        if first < last:
            data[first - lo : last - lo] = part.values[first - begin : last - begin]
            inside = slice(*np.searchsorted(part.places, (first - begin, last - begin)))
            data[part.places[inside] + (begin - lo)] = part.others[inside]
    dtype = np.dtype(np.int64 if max(x.shape[1], hi - lo) >= 1 << 31 else np.int32)
    indptr = narrow(x.indptr[start : stop + 1] - lo, dtype)
    return assemble(sp.csr_matrix, (stop - start, x.shape[1]), data, x.indices[lo:hi].astype(dtype), indptr)


def in_pieces(block_of: Callable, merge: Callable[[list], Any], n_rows: int, block: Any, *arrays: Any) -> Any:
    """`block_of(block, *arrays)`; of a narrow block for some rows at a time, with their part of the first arrays."""
    if not isinstance(block, Narrow):
        return block_of(block, *arrays)
    parts = []
    for start, stop in _row_blocks(block):
        along = [array[start:stop] for array in arrays[:n_rows]]
        parts.append(block_of(widen(block, start, stop), *along, *arrays[n_rows:]))
        if len(parts) == MERGED:
            parts = [merge(parts)]
    return parts[0] if len(parts) == 1 else merge(parts)


def take_columns(block: Narrow, keep: np.ndarray) -> Narrow:
    """The columns where `keep` is True, as `_select.take`, in the narrow form again."""
    taken = [take(widen(block, start, stop), keep, axis=1) for start, stop in _row_blocks(block)]
    indices = np.concatenate([part.indices.astype(index_dtype(part.shape[1])) for part in taken])
    indptr = np.concatenate([[0], *(np.diff(part.indptr) for part in taken)]).cumsum()
    parts = [narrowed for part in taken for narrowed in narrow_values(part.data)]
    return Narrow((block.shape[0], taken[0].shape[1]), block.dtype, parts, indices, indptr)


def _row_blocks(block: Narrow) -> list[tuple[int, int]]:
    return _blocks.split(block.indptr, -(-len(block.indices) // WIDE))
