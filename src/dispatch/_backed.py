"""Sparse matrices on disk (anndata's CSRDataset and CSCDataset, in HDF5 or zarr), read in blocks of bounded size."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _blocks
from ._config import kernels
from ._inputs import assemble, check_dtype, checked_indptr, integers, narrow, read_only

# Stored values in a block: 48 MB of float32 with 64-bit indices, unless one row has more.
BLOCK_VALUES = 1 << 22


def major_axis(x: Any) -> int:
    """The axis along which the dataset is cut into blocks."""
    return 0 if x.format == "csr" else 1


def load(x: Any) -> Any:
    """The whole dataset in memory."""
    (matrix,) = _read(x, 1)
    return matrix


def blocks(x: Any) -> Iterator[Any]:
    """The dataset in consecutive blocks of rows (csr) or columns (csc)."""
    return _read(x, -(-x.group["data"].shape[0] // BLOCK_VALUES))


def _read(x: Any, n_blocks: int) -> Iterator[Any]:
    check_dtype(x.dtype, "x")
    major = major_axis(x)
    data, indices = x.group["data"], x.group["indices"]
    indptr = np.asarray(x.group["indptr"][:])
    indptr = checked_indptr(indptr, x.shape[major], data.shape[0], indices.shape[0], "x")
    for start, stop in _blocks.split(indptr, n_blocks):
        lo, hi = int(indptr[start]), int(indptr[stop])
        shape = (stop - start, x.shape[1]) if major == 0 else (x.shape[0], stop - start)
        block_data, block_indices = np.asarray(data[lo:hi]), integers(np.asarray(indices[lo:hi]), "x.indices")
        one_row = np.array([0, hi - lo])
        bad = kernels().check_indices(read_only(block_indices), read_only(one_row), 0, 1, x.shape[1 - major])
        if bad >= 0:  # here, where its position is known
            raise ValueError(f"x.indices[{lo + bad}] is {block_indices[bad]}, outside of shape {x.shape}")
        block_indptr = narrow(indptr[start : stop + 1] - lo, block_indices.dtype)
        yield assemble((sp.csr_array, sp.csc_array)[major], shape, block_data, block_indices, block_indptr)
