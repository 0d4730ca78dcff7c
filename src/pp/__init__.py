"""Single-cell preprocessing with scanpy's names, parameters and results, on AnnData and on arrays.

_anndata     which matrix of an AnnData is meant, whether its buffer may be reused, how it is cut down
_normalize   normalize_total, log1p, normalize_log1p
_qc          calculate_qc_metrics, filter_cells, filter_genes
_scale       scale
_hvg         highly_variable_genes
_pca         pca
_recipe      recipe_pca: all of them in the fewest passes

`open` comes from `csraxis.io`.
"""

from ..io import open
from ._hvg import highly_variable_genes
from ._normalize import log1p, normalize_log1p, normalize_total
from ._pca import pca
from ._qc import calculate_qc_metrics, filter_cells, filter_genes
from ._recipe import recipe_pca
from ._scale import scale

__all__ = [
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "highly_variable_genes",
    "log1p",
    "normalize_log1p",
    "normalize_total",
    "open",
    "pca",
    "recipe_pca",
    "scale",
]
