"""Matrices on disk.

_stores    AnnData files whose matrices are read when they are used
_formats   other formats: 10x Genomics, Matrix Market, SciPy's .npz
_flat      arrays on disk in compressed pieces, read without a lock
_rows      rows of csr matrices made of such arrays
_lazy      Dask arrays of these (imported when a file is opened)
"""

from ._stores import open

__all__ = ["open"]
