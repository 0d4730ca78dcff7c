"""What the estimators share."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from ..dispatch._inputs import container, is_dask
from ..pp._anndata import is_anndata, result_dtype


class Transformer(TransformerMixin, BaseEstimator):
    """Takes ndarrays, data frames, sparse matrices and Dask arrays of real numbers; floats stay as wide as they are."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check(self, X: Any, *, fit: bool = False, min_cells: int = 1, finite: bool = True) -> Any:
        """X as csr, csc, ndarray, or as a Dask array, whose values are not looked at.

        With `fit` the number and names of its genes are noted; else they must be those noted before.
        """
        if not fit:
            check_is_fitted(self)
        if is_anndata(X):
            raise TypeError("X must be a matrix or a data frame, got an AnnData: give its X, or to_df()")
        if not is_dask(X):
            x = validate_data(
                self,
                X,
                reset=fit,
                accept_sparse=("csr", "csc"),
                ensure_min_samples=min_cells,
                ensure_all_finite=finite,
            )
            return container(x, "X")
        x = container(X, "X")
        result_dtype(x.dtype)
        if x.ndim != 2 or x.shape[0] < min_cells or x.shape[1] < 1:
            raise ValueError(
                f"{type(self).__name__} needs a 2-D X of at least {min_cells} cells and 1 gene, got shape {x.shape}"
            )
        return validate_data(self, x, reset=fit, skip_check_array=True)


def check_finite(*learned: Any) -> None:
    """ValueError unless all of what was learned is finite: the values of a Dask array are not looked at before."""
    if not all(np.isfinite(values).all() for values in learned):
        raise ValueError("X contains NaN or infinity, or its squares overflow")
