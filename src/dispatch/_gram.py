"""The Gram matrix of the columns."""

import operator
import os
from collections.abc import Iterable
from functools import reduce
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import _backed, _blocks
from ._config import kernels
from ._inputs import (
    Compressed,
    check_matrix,
    compressed,
    container,
    is_backed,
    is_dask,
    is_sparse,
    native,
    read_only,
    streamed,
)
from ._other import delegated
from ._partials import counts
from ._pieces import MOMENTS_AS, check, kernel_dtype, minor_blocks, row_pieces

# Columns with more entries than this share of the rows are kept in dense panels; a matrix without such columns is left
# to gram_major. (2,000 equal columns: on an EPYC panels are 1.3-2.2 times as fast at .025, half as fast at .0125; on a
# Xeon as fast at .05. Variable genes on the Xeon: .170 s from .02 on, .147 from .04, .140 from .06, .149 from .1.)
PANEL_FROM = 0.04
# `gram` makes panels where sums of so many columns fill the second-level cache but are little memory, there are so many
# stored values for each sum, and products of rows with all dense columns are at most so many times those of stored
# values alone. (2,000 columns, two threads: of 3,000 rows, .06 values for each sum, 1.3 times the time, of 12,000, .23,
# .74; of 100,000 and variable genes, 3 times the products, .37; of 20,000 and equal columns of density .1, 10 times,
# .42, of .05, 20 times, 1.0, of .025, 40 times, 3.2; 200 columns twice the time.)
PANEL_COLUMNS, PANEL_VALUES, PANEL_PRODUCTS = (500, 8192), 0.25, 12
# Rows of a panel, whose 256 bytes a row then fit in the first-level cache: 128 to 512 differ by 5 % up to a density of
# .05, at .3 512 is a third slower.
PANEL_ROWS = 128
# Sums in the type of the values are added to those in float64 after as many rows, a multiple of PANEL_ROWS.
FLUSH_ROWS = 8192
# As many rows, another multiple, are cast to that type at once.
CAST_ROWS = 512
# Up to so many stored values have one block with sums of its own; more have an even number of them, at most so many.
# (8 M values on two threads: two blocks .066 s, four .091, one .105.)
BLOCK_VALUES, MAX_BLOCKS = 1 << 22, 8


@delegated
def gram(x: Any, /, *, dtype: DTypeLike | None = None, max_bytes: float | None = None) -> Any:
    """`x.T @ x` as a dense array: the inner products of the columns, added in float64.

    Parameters
    ----------
    x : array or sparse matrix
        Shape (n, m), in any container that csraxis takes. Real.
    dtype : floating dtype, optional
        Of the result; default float64, in which the sums are formed in any case.
    max_bytes : float, optional
        How large one m x m matrix of sums in float64 may be. Default: half of the machine's memory; `float("inf")` for
        no limit. Each thread has one (of up to 8,192 columns three), and on Dask each block of rows until it is merged.

    Returns
    -------
    ndarray or Dask array
        Shape (m, m), symmetric.

    Raises
    ------
    TypeError
        For any other container, complex numbers, and a dtype that is not floating.
    ValueError
        If x is not 2-D, or malformed.
    MemoryError
        If the result would need more than `max_bytes`.

    Examples
    --------
    >>> import csraxis as cx, scipy.sparse as sp
    >>> cx.gram(sp.csr_array([[1, 0, 2], [0, 0, 3]]))
    array([[ 1.,  0.,  2.],
           [ 0.,  0.,  0.],
           [ 2.,  0., 13.]])
    """
    x = streamed(x)
    check_matrix("gram", x)
    result = np.dtype(float if dtype is None else dtype).newbyteorder("=")
    if result.char not in "fd":
        raise TypeError(f"dtype of a Gram matrix must be float32 or float64; got {result}")
    check_size(x.shape[1], max_bytes)
    if is_dask(x):
        from . import _lazy

        return _lazy.gram(x, result)
    # The rows of a csc dataset are not together on disk: it is loaded.
    rows = _backed.blocks(x) if is_backed(x) and x.format == "csr" else [container(x)]
    return finish_gram(add_grams(map(partial_gram, rows)), result)


# How many m x m matrices of sums there are at once, on one thread, where components are sought.
COPIES = 7


def check_size(m: float, max_bytes: float | None, copies: int = 1) -> None:
    """MemoryError if so many m x m sums are too large; a length that Dask does not know is not."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 if max_bytes is None else max_bytes
    if 8 * m * m * copies > limit:
        raise MemoryError(
            f"the Gram matrix of {m:,} columns needs {8 * m * m * copies / 2**30:.1f} GiB, over the limit of "
            f"{limit / 2**30:.1f} GiB: select columns first, or pass max_bytes"
        )


def partial_gram(x: Any) -> np.ndarray:
    """The sums of products of one matrix, in float64; in the upper triangle at least."""
    x = container(x)
    if not is_sparse(x):
        out = np.zeros((x.shape[1], x.shape[1]))
        step = max(1, _blocks.CAST_STEP * len(x) // max(x.size, 1))
        for start, stop in _blocks.split_flat(len(x), step):
            rows = x[start:stop].astype(float)
            with np.errstate(all="ignore"):
                out += rows.T @ rows
        return out
    c = _by_rows(x)
    with np.errstate(all="ignore"):
        return shifted_gram(c.source, np.zeros(c.n_minor), np.dtype(float)) if _panels_pay(c) else _scattered(c)


def _by_rows(x: Any) -> Compressed:
    c = compressed(x, canonical=True)
    return c if c.major == 0 else compressed(native(c).tocsr(), canonical=True)


def _panels_pay(c: Compressed) -> bool:
    """Whether it is worth to lay the denser columns out; their zeros would spread what is not finite."""
    m, n_values, lengths = c.n_minor, len(c.data), np.diff(c.indptr).astype(float)
    if not (PANEL_COLUMNS[0] <= m <= PANEL_COLUMNS[1] and n_values >= PANEL_VALUES * m * m):
        return False
    n_dense = np.count_nonzero(counts(c.source, (0,)) > PANEL_FROM * c.n_major)
    few = n_values * n_dense <= PANEL_PRODUCTS * (lengths @ lengths)
    return bool(few and np.isfinite(np.sum(c.data, dtype=float)))


def _scattered(c: Compressed) -> np.ndarray:
    """The sums, each product added to its own."""
    steps = (kernel_dtype(c.data.dtype, MOMENTS_AS),)
    kernel = kernels()

    def block(start: int, stop: int) -> np.ndarray:
        part = np.zeros((c.n_minor, c.n_minor))
        for p in row_pieces(c, start, stop, *steps):
            check(c, p.lo, kernel.gram_major(p.data, p.indices, p.indptr, 0, p.n, part))
        return part

    return add_grams(_blocks.run(block, minor_blocks(c, c.n_minor**2), len(c.data)))


def shifted_gram(x: Any, shift: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The sums of products of the columns minus `shift`, which is 0 for most; in the upper triangle at least.

    Products are formed and added for a few rows in `dtype`, and these sums in float64. (In float32 that takes three
    quarters of the time, but where all values are alike the rounding is, too: 3e-5 of a singular value were seen.)
    """
    c = _by_rows(x)
    full, n_entries = shift != 0, counts(c.source, (0,)).ravel()
    n_full = int(np.count_nonzero(full))
    n_dense = int(np.count_nonzero(full | (n_entries > PANEL_FROM * c.n_major)))
    if not n_dense:
        return _scattered(c)
    order = np.lexsort((-n_entries, ~full))
    place = np.empty(c.n_minor, np.int32)
    place[order] = np.arange(c.n_minor)
    width = 256 // dtype.itemsize
    n_panels = -(-n_dense // width)
    shifts = np.zeros(n_panels * width)
    shifts[:n_full] = shift[order[:n_full]]
    kernel = kernels()

    def block(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        edges = c.indptr[[*range(start, stop, PANEL_ROWS), stop]]
        room = int(np.diff(edges).max(initial=0)) + n_full * PANEL_ROWS
        scratch = (np.empty(c.n_minor + 1, np.int64), np.empty(room, np.int32), np.empty(room, dtype))
        panels = _aligned((n_panels, PANEL_ROWS, width), dtype)
        part = _aligned((n_panels, c.n_minor, width), dtype)
        sums, rest = np.zeros(part.shape), np.zeros((c.n_minor, c.n_minor))
        for first in range(start, stop, FLUSH_ROWS):
            part[:] = 0
            last = min(first + FLUSH_ROWS, stop)
            for at in range(first, last, CAST_ROWS):
                indptr = c.indptr[at : min(at + CAST_ROWS, last) + 1]
                lo, hi = indptr.item(0), indptr.item(-1)
                data = read_only(c.data[lo:hi].astype(dtype, copy=False))
                rows = data, c.indices[lo:hi], read_only(indptr - lo), 0, len(indptr) - 1
                check(c, lo, kernel.gram_panels(*rows, place, n_full, shifts, *scratch, panels, part, rest))
            sums += part
        return sums, rest

    blocks = _blocks.split(c.indptr, max(1, min(n_sums(len(c.data)), 2 * len(c.data) // c.n_minor**2)))
    sums, rest = reduce(_add_both, _blocks.run(block, blocks, len(c.data)))
    dense = order[: n_panels * width]
    columns = sums.transpose(1, 0, 2).reshape(c.n_minor, -1)[:, : len(dense)]
    for i in range(len(dense) - 1):  # of two columns, the panel has the denser one
        columns[i, i + 1 :] = columns[i + 1 : len(dense), i]
    rest[np.ix_(order, dense)] = columns
    rest[np.ix_(dense, order)] = columns.T
    return rest


def n_sums(n_values: int) -> int:
    """How many blocks have sums of their own."""
    return 1 if n_values <= BLOCK_VALUES else 2 * min(-(-n_values // (2 * BLOCK_VALUES)), MAX_BLOCKS // 2)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _add_both(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    a[0].__iadd__(b[0]), a[1].__iadd__(b[1])
    return a


def add_grams(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Their sum, in their order, in the first of them."""
    with np.errstate(all="ignore"):
        return reduce(operator.iadd, parts)


def minus_outer(sums: np.ndarray, n: float, vector: np.ndarray) -> np.ndarray:
    """sums - n * outer(vector, vector), of C-contiguous sums in their memory; the two triangles may be rounded apart.

    By BLAS: NumPy would make a matrix of the product.
    """
    from scipy.linalg.blas import dger

    return dger(-n, vector, vector, a=sums.T, overwrite_a=True).T


def pack(sums: np.ndarray) -> np.ndarray:
    """The upper triangle alone, row after row: half the memory."""
    m = len(sums)
    out = np.empty(m * (m + 1) // 2)
    for i, end in enumerate(np.cumsum(np.arange(m, 0, -1)).tolist()):
        out[end - m + i : end] = sums[i, i:]
    return out


def unpack(packed: np.ndarray) -> np.ndarray:
    """A square matrix with that upper triangle, for `finish_gram`."""
    m = (isqrt(8 * len(packed) + 1) - 1) // 2
    out = np.empty((m, m))
    for i, end in enumerate(np.cumsum(np.arange(m, 0, -1)).tolist()):
        out[i, i:] = packed[end - m + i : end]
    return out


def finish_gram(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The whole symmetric matrix of its upper triangle, in the same memory if it is of that type."""
    with np.errstate(all="ignore"):
        result = sums.astype(dtype, copy=False)
    for i in range(len(result) - 1):
        result[i + 1 :, i] = result[i, i + 1 :]
    return result
