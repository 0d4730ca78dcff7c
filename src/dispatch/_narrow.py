"""Rows of a csr matrix in as little memory as their values allow, without loss.

Counts are small whole numbers, whatever type they are stored in: most fit one byte, and the numbers of up to 65,536
columns fit two, so that a stored value takes three bytes instead of eight. The few values that do not fit stay beside
them as they are; where these are not few, all stay.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from . import _blocks
from ._inputs import assemble, check_dtype, narrow, native_dtype
from ._select import take

# Values are narrowed so many at a time: they stay in the cache.
STEP = 1 << 16
# Of a narrow block, so many values are wide at a time; and so many partial results wait to be merged.
WIDE, MERGED = 1 << 21, 8
# Of values that do not fit, there may be one in so many.
RARE = 32
NARROWER = (np.dtype(np.uint8), np.dtype(np.uint16))


class Narrow(NamedTuple):
    """A block of rows."""

    shape: tuple[int, int]
    dtype: np.dtype
    """Of the values, when they are wide again."""
    values: np.ndarray
    places: np.ndarray
    """Where values are that this type cannot hold, in order; and these values."""
    others: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in self if isinstance(array, np.ndarray))


def index_dtype(n_columns: int) -> np.dtype:
    """What holds the numbers of so many columns."""
    return np.dtype(np.uint16 if n_columns <= 1 << 16 else np.int32 if n_columns < 1 << 31 else np.int64)


def narrow_values(
    n: int, dtype: np.dtype, parts: Iterable[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n values in the narrowest type that holds most of them, where the others are, and these.

    The parts come in any order, each with its position. All are kept to the bit: minus zero and NaN are among those
    that do not fit.
    """
    check_dtype(dtype, "values")
    dtype = native_dtype(dtype)
    types = [small for small in NARROWER if small.itemsize < dtype.itemsize and dtype.kind in "iuf"] + [dtype]
    out, odd = np.empty(n, types[0]), {}
    for start, part in parts:
        for lo in range(0, len(part), STEP):
            values = part[lo : lo + STEP].astype(dtype, copy=False)
            here = slice(start + lo, start + lo + len(values))
            while True:
                with np.errstate(all="ignore"):
                    out[here] = values
                wrong = _differ(out[here], values)
                if np.count_nonzero(wrong) <= len(values) // RARE:
                    break
                types = types[1:]
                out = out.astype(types[0])
            places = np.flatnonzero(wrong)
            odd[here.start] = places + here.start, values[places]
    pairs = [odd[start] for start in sorted(odd)] or [(np.empty(0, np.int64), np.empty(0, dtype))]
    return out, *(np.concatenate(arrays) for arrays in zip(*pairs))  # type: ignore[return-value]


def _differ(narrow: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which of the values have other bits when they are wide again."""
    if narrow.dtype == values.dtype:
        return np.zeros(len(values), bool)
    bits = np.dtype(f"u{values.itemsize}")
    return narrow.astype(values.dtype).view(bits) != values.view(bits)


def widen(x: Narrow, start: int = 0, stop: int | None = None) -> Any:
    """Rows [start, stop) as a csr_matrix: values in their type, indices in int32, or in int64 where they need it."""
    stop = x.shape[0] if stop is None else stop
    lo, hi = int(x.indptr[start]), int(x.indptr[stop])
    data = x.values[lo:hi].astype(native_dtype(x.dtype))
    odd = slice(*np.searchsorted(x.places, (lo, hi)))
    data[x.places[odd] - lo] = x.others[odd]
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
    ends = np.cumsum([0, *(part.nnz for part in taken)])
    indices = np.empty(ends[-1], index_dtype(taken[0].shape[1]))
    for part, lo in zip(taken, ends):
        indices[lo : lo + part.nnz] = part.indices
    indptr = np.concatenate([[0], *(np.diff(part.indptr) for part in taken)]).cumsum()
    values = narrow_values(len(indices), block.dtype, zip(ends.tolist(), (part.data for part in taken)))
    return Narrow((block.shape[0], taken[0].shape[1]), block.dtype, *values, indices, indptr)


def _row_blocks(block: Narrow) -> list[tuple[int, int]]:
    return _blocks.split(block.indptr, -(-len(block.indices) // WIDE))
