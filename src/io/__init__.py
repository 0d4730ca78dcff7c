"""Matrices on disk.

_stores   AnnData files whose matrices are read when they are used
"""

from ._stores import open

__all__ = ["open"]
