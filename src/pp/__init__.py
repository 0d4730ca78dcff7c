"""Single-cell preprocessing with scanpy's names, parameters and results, on AnnData and on arrays.

_anndata     which matrix of an AnnData is meant, and whether its buffer may be reused
_normalize   normalize_total, log1p, normalize_log1p
"""

from ._normalize import log1p, normalize_log1p, normalize_total

__all__ = ["log1p", "normalize_log1p", "normalize_total"]
