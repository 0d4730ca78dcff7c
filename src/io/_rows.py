"""Rows of a csr matrix on disk."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..dispatch._config import kernels
from ..dispatch._inputs import assemble, check_dtype, checked_indptr, integers, narrow, native_dtype, read_only
from ..dispatch._narrow import STEP, Narrow, index_dtype, narrow_values
from ..dispatch._pieces import one_row
from ._flat import Flat, flat, forget


class Rows(NamedTuple):
    """A csr matrix in a `.h5ad` file or `.zarr` folder. It is small, and opens the file where it is used."""

    path: Path
    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    """Of the values, in this machine's byte order."""

    @property
    def data(self) -> Flat:
        """The stored values."""
        return flat(self.path, f"{self.name}/data")

    @property
    def indices(self) -> Flat:
        """Their columns."""
        return flat(self.path, f"{self.name}/indices")

    def indptr(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Where rows [start, stop) begin, and where the last of them ends; checked."""
        stop = self.shape[0] if stop is None else stop
        stored = flat(self.path, f"{self.name}/indptr")
        name = f"{self.path}: {self.name}"
        if stored.length != self.shape[0] + 1:
            raise ValueError(f"{name}/indptr must have {self.shape[0] + 1} entries for its shape, got {stored.length}")
        if self.data.length == 0:  # all zero, which zarr does not write
            return np.zeros(stop - start + 1, np.int64)
        indptr = integers(stored.values(start, stop + 1), f"{name}/indptr").astype(np.int64)
        if start:  # where it ends is looked at as of the whole
            checked_indptr(np.concatenate([[0], indptr]), stop - start + 1, self.data.length, self.indices.length, name)
            return indptr
        return checked_indptr(indptr, stop - start, self.data.length, self.indices.length, name)

    def read(self, start: int, stop: int) -> Any:
        """Rows [start, stop) as a csr_matrix, with indices in int32 where they fit."""
        indptr = self.indptr(start, stop)
        lo, hi = int(indptr[0]), int(indptr[-1])
        data = np.empty(hi - lo, self.dtype)
        stored = self.data
        for a, b in stored.steps(lo, hi, STEP):
            data[a - lo : b - lo] = stored.values(a, b)
        wide = np.dtype(np.int32 if max(self.shape[1], hi - lo) < 1 << 31 else np.int64)
        indices = self._columns(lo, hi, wide)
        return assemble(sp.csr_matrix, (stop - start, self.shape[1]), data, indices, narrow(indptr - lo, wide))

    def narrow(self, start: int, stop: int) -> Narrow:
        """Rows [start, stop) in as little memory as they fit."""
        indptr = self.indptr(start, stop)
        lo, hi = int(indptr[0]), int(indptr[-1])
        stored = self.data
        parts = ((a - lo, stored.values(a, b)) for a, b in stored.steps(lo, hi, STEP))
        values = narrow_values(hi - lo, self.dtype, parts)
        indices = self._columns(lo, hi, index_dtype(self.shape[1]))
        return Narrow((stop - start, self.shape[1]), self.dtype, *values, indices, indptr - lo)

    def _columns(self, lo: int, hi: int, dtype: np.dtype) -> np.ndarray:
        """The columns of stored values [lo, hi), checked while they are in the cache."""
        out, stored = np.empty(hi - lo, dtype), self.indices
        name = f"{self.path}: {self.name}/indices"
        for a, b in stored.steps(lo, hi, STEP):
            columns = integers(np.ascontiguousarray(stored.values(a, b)), name)
            bad = kernels().check_indices(read_only(columns), one_row(b - a), 0, 1, self.shape[1])
            if bad >= 0:
                raise ValueError(f"{name}[{a + bad}] is {columns[bad]}, but columns go from 0 to {self.shape[1] - 1}")
            out[a - lo : b - lo] = columns
        return out


class Others(NamedTuple):
    """A matrix on disk that is stored in columns (csc), or dense."""

    path: Path
    name: str
    by_columns: bool
    n_values: int


def rows_of(path: Path, name: str, shape: tuple[int, int]) -> Rows:
    """The csr matrix of that name, as it is there now."""
    forget()
    dtype = flat(path.absolute(), f"{name}/data").dtype
    check_dtype(dtype, f"{path}: {name}/data")
    return Rows(path.absolute(), name, shape, native_dtype(dtype))


def edges_of(rows: Rows, n_values: int) -> list[int]:
    """Row numbers that cut the matrix into blocks of about so many stored values.

    A block ends with the last row that begins in its last piece on disk: then a piece is decoded once, but for the end
    of that row, which a block keeps for the next. Pieces that are larger than a block are decoded for each.
    """
    indptr, piece = rows.indptr(), max(rows.data.piece, rows.indices.piece)
    step = n_values // piece * piece or -(-piece // -(-piece // n_values))
    inside = np.searchsorted(indptr, np.arange(step, indptr[-1], step), "right") - 1
    inside = np.unique(inside[(inside > 0) & (inside < rows.shape[0])])
    return [0, *inside.tolist(), rows.shape[0]]
