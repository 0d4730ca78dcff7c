"""The Gram matrix of the columns."""

import operator
import os
from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import _backed, _blocks
from ._config import kernels
from ._inputs import check_matrix, compressed, container, is_backed, is_dask, is_sparse, native, streamed
from ._other import delegated
from ._pieces import MOMENTS_AS, check, kernel_dtype, minor_blocks, row_pieces


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
        no limit. Each thread has one, and on Dask each block of rows until it is merged.

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


def check_size(m: float, max_bytes: float | None) -> None:
    """MemoryError if m x m sums are too large; a length that Dask does not know is not."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2 if max_bytes is None else max_bytes
    if 8 * m * m > limit:
        raise MemoryError(
            f"the Gram matrix of {m:,} columns needs {8 * m * m / 2**30:.1f} GiB, over the limit of "
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
    c = compressed(x, canonical=True)
    if c.major == 1:
        c = compressed(native(c).tocsr(), canonical=True)
    steps = (kernel_dtype(c.data.dtype, MOMENTS_AS),)
    kernel = kernels()

    def block(start: int, stop: int) -> np.ndarray:
        part = np.zeros((c.n_minor, c.n_minor))
        for p in row_pieces(c, start, stop, *steps):
            check(c, p.lo, kernel.gram_major(p.data, p.indices, p.indptr, 0, p.n, part))
        return part

    return add_grams(_blocks.run(block, minor_blocks(c, c.n_minor**2), len(c.data)))


def add_grams(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Their sum, in their order, in the first of them."""
    with np.errstate(all="ignore"):
        return reduce(operator.iadd, parts)


def finish_gram(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The whole symmetric matrix of its upper triangle, in the same memory if it is of that type."""
    with np.errstate(all="ignore"):
        result = sums.astype(dtype, copy=False)
    for i in range(len(result) - 1):
        result[i + 1 :, i] = result[i, i + 1 :]
    return result
