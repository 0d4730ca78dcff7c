"""Some of the rows or columns of a matrix, as a new one."""

from itertools import pairwise
from typing import Any

import numpy as np

from . import _blocks
from ._config import kernels
from ._inputs import (
    Compressed,
    assemble,
    compressed,
    container,
    copy_flags,
    is_dask,
    is_sparse,
    narrow,
    one_axis,
    read_only,
    scipy_class,
)
from ._pieces import TAKE_AS, cast, check, kernel_dtype, run_rows

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def take(x: Any, keep: np.ndarray, axis: int) -> Any:
    """The rows (axis 0) or columns (axis 1) of x where `keep` is True, in their order, with memory of their own."""
    x = container(x)
    axis = one_axis(axis, x.ndim)
    if is_dask(x):
        from . import _lazy

        return _lazy.take(x, keep, axis)
    check_keep(keep, x.shape, axis)
    if not is_sparse(x):
        return np.compress(keep, x, axis).astype(x.dtype.newbyteorder("="), copy=False)
    # As bytes, bool values keep their duplicates.
    same = x if x.dtype.kind != "b" else assemble(scipy_class(x), x.shape, x.data.view(np.uint8), x.indices, x.indptr)
    c = compressed(same)
    keep = keep.view(np.uint8) != 0  # a True may be another byte than 1
    positions = c.data.dtype == np.complex128  # of numbers so wide kernels copy these
    bits = c.data.view(np.int64) if c.data.dtype == np.complex64 else c.data
    values = np.arange(len(c.data)) if positions else cast(bits, kernel_dtype(bits.dtype, TAKE_AS))
    of = c._replace(data=read_only(values))
    data, indices, indptr = _rows(of, keep) if axis == c.major else _columns(of, keep)
    data = c.data[data] if positions else data
    shape = tuple(int(np.count_nonzero(keep)) if i == axis else n for i, n in enumerate(x.shape))
    data = data.view(x.dtype.newbyteorder("="))
    result = assemble(scipy_class(x), shape, data, indices, narrow(indptr, indices.dtype))
    copy_flags(x, result)
    return result


def check_keep(keep: Any, shape: tuple[int, ...], axis: int) -> None:
    """Refuse what does not say of each row, or column, whether it is kept."""
    if not isinstance(keep, np.ndarray) or keep.dtype != np.bool_:
        what = keep.dtype if isinstance(keep, np.ndarray) else type(keep).__name__
        raise TypeError(f"keep must be a numpy.ndarray of bool; got {what}")
    if keep.shape != (shape[axis],):
        raise ValueError(
            f"keep must have shape ({shape[axis]},) for axis={axis} of x with shape {shape}; got {keep.shape}"
        )


def _rows(c: Compressed, keep: np.ndarray) -> Arrays:
    """The rows (of csr) that are kept; the indices of the others are not looked at."""
    indptr = np.concatenate(([0], np.cumsum(np.diff(c.indptr)[keep])))
    data, indices = np.empty(indptr[-1], c.data.dtype), np.empty(indptr[-1], c.indices.dtype)
    before = np.concatenate(([0], np.cumsum(keep)))
    kernel, flags = kernels(), read_only(keep.view(np.uint8))

    def copy(start: int, stop: int) -> None:
        to = slice(indptr.item(before[start]), indptr.item(before[stop]))
        of = (c.data, c.indices, c.indptr, start, stop)
        check(c, 0, kernel.take_major(*of, flags, c.n_minor, data[to], indices[to]))

    run_rows(c, copy)
    return data, indices, indptr


def _columns(c: Compressed, keep: np.ndarray) -> Arrays:
    """What rows (of csr) have in the columns that are kept: found and counted, then copied to memory of that size."""
    flags, place = map(read_only, (keep.view(np.uint8), (np.cumsum(keep) - 1).astype(c.indices.dtype)))
    kernel, blocks = kernels(), _blocks.per_thread(c.indptr)

    def find(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        n_values = int(c.indptr[stop] - c.indptr[start])
        found, before = np.empty(-(-n_values // 64), np.uint64), np.empty(stop - start + 1, np.int64)
        check(c, 0, kernel.find_minor(c.indices, c.indptr, start, stop, flags, found, before))
        return read_only(found), before

    found, before = zip(*_blocks.run(find, blocks, len(c.data)))
    edges = np.cumsum([0, *(its[-1] for its in before)])
    indptr = np.concatenate([[0], *(its[1:] + n for its, n in zip(before, edges))])
    data, indices = np.empty(edges[-1], c.data.dtype), np.empty(edges[-1], c.indices.dtype)

    def copy(start: int, stop: int, its: np.ndarray, lo: int, hi: int) -> None:
        kernel.take_minor(c.data, c.indices, c.indptr, start, stop, its, place, data[lo:hi], indices[lo:hi])

    tasks = [(*block, its, *ends) for block, its, ends in zip(blocks, found, pairwise(edges))]
    for _ in _blocks.run(copy, tasks, len(c.data)):
        pass
    return data, indices, indptr
