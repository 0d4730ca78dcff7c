"""Matrices on disk.

_stores    AnnData files whose matrices are read when they are used
_formats   other formats: 10x Genomics, Matrix Market, SciPy's .npz
"""

from ._stores import open

__all__ = ["open"]
