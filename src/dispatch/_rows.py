"""One pass over a matrix, now: what each block of it gives, merged in the order of the blocks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import _backed, _blocks
from ._inputs import assemble, compressed, container, copy_flags, is_dask, is_sparse, narrow, scipy_class


def fold(
    x: Any,
    block_of: Callable[..., Any],
    merge: Callable[[list], Any],
    *,
    rows: Sequence[Any] = (),
    columns: Sequence[Any] = (),
    shared: Sequence[Any] = (),
    whole: bool = False,
    at_once: int = 8,
) -> list:
    """Partial results of blocks of rows, merged: one for each group of columns.

    `block_of(block, *arrays)` gets the blocks of x (containers in memory), each with its part of every array of `rows`
    (along their first axis) and of `columns` (along their last one), and with all of every array that is `shared`;
    `merge` takes a list of what it returns, in order and at most `at_once`. Blocks hold whole rows if `whole` is set:
    then there is one result. Otherwise there is one for each chunk of columns of a Dask array, and for each block of
    columns of a csc matrix.
    """
    x = container(x)
    if is_dask(x):
        from . import _chunks

        return _chunks.fold(x, block_of, merge, rows, columns, shared, whole, at_once)
    n_values = len(compressed(x).data) if is_sparse(x) else x.size
    by_columns = not whole and is_sparse(x) and x.format == "csc"

    def task(start: int, stop: int, block: Any) -> Any:
        along_rows = [array if by_columns else array[start:stop] for array in rows]
        along_columns = [array[..., start:stop] if by_columns else array for array in columns]
        return block_of(block, *along_rows, *along_columns, *shared)

    parts = _blocks.run(task, list(_major_blocks(x) if by_columns else row_blocks(x)), n_values)
    return list(parts) if by_columns else [merge_as_they_come(parts, merge, at_once)]


def merge_as_they_come(parts: Iterable[Any], merge: Callable[[list], Any], at_once: int) -> Any:
    """One result of all parts, of which there are at most `at_once` at a time."""
    waiting: list[Any] = []
    for part in parts:
        waiting.append(part)
        if len(waiting) == at_once:
            waiting = [merge(waiting)]
    return waiting[0] if len(waiting) == 1 else merge(waiting)


def row_blocks(x: Any) -> Iterator[tuple[int, int, Any]]:
    """(start, stop, rows [start, stop) of x) for a matrix in memory, without a copy; a csc matrix is one block."""
    if not is_sparse(x):
        step = max(1, _backed.BLOCK_VALUES * len(x) // max(x.size, 1))
        for start, stop in _blocks.split_flat(len(x), step) or [(0, 0)]:
            yield start, stop, x[start:stop]
    elif x.format == "csr":
        yield from _major_blocks(x)
    else:
        yield 0, x.shape[0], x


def _major_blocks(x: Any) -> Iterator[tuple[int, int, Any]]:
    c = compressed(x)
    for start, stop in _blocks.split(c.indptr, -(-len(c.data) // _backed.BLOCK_VALUES)):
        lo, hi = int(c.indptr[start]), int(c.indptr[stop])
        shape = (stop - start, x.shape[1]) if c.major == 0 else (x.shape[0], stop - start)
        indices = c.indices[lo:hi]
        block = assemble(
            scipy_class(x), shape, c.data[lo:hi], indices, narrow(c.indptr[start : stop + 1] - lo, indices.dtype)
        )
        copy_flags(x, block)
        yield start, stop, block
