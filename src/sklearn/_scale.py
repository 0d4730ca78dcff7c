"""Scaling of genes to unit variance."""

from typing import Any, Self

from sklearn.base import OneToOneFeatureMixin

from .. import axis_scale, to_dense
from ..pp._anndata import result_dtype
from ..pp._scale import check_max, mean_and_std, scale_by
from ._base import Transformer, check_finite


class Scale(OneToOneFeatureMixin, Transformer):
    """Scale each gene to unit variance, and to zero mean if asked to: `csraxis.pp.scale` as an estimator.

    Parameters
    ----------
    zero_center : bool
        Subtract the mean of each gene: the result is dense. False keeps sparse matrices sparse.
    max_value : float, optional
        Clip to this value after scaling, and with `zero_center` to minus this value, too.

    Attributes
    ----------
    mean_ : ndarray of shape (genes,)
        Means of the genes, float64; also where they are not subtracted.
    scale_ : ndarray of shape (genes,)
        Standard deviations over n - 1 that genes are divided by, float64; 1 for genes that do not vary.
    n_features_in_ : int
        How many genes there are.
    feature_names_in_ : ndarray of shape (genes,)
        Their names, where it was fitted on a data frame with such.

    See Also
    --------
    csraxis.pp.scale
    sklearn.preprocessing.StandardScaler : Its variances are over n, and it clips nothing.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from csraxis.sklearn import Scale
    >>> model = Scale(zero_center=False, max_value=2).fit(sp.csr_array([[1.0, 0, 3], [0, 0, 1], [5, 0, 2]]))
    >>> model.scale_.round(3)
    array([2.646, 1.   , 1.   ])
    >>> model.transform(sp.csr_array([[2.0, 0, 4]])).toarray().round(3)
    array([[0.756, 0.   , 2.   ]])
    """

    def __init__(self, *, zero_center: bool = True, max_value: float | None = None) -> None:
        self.zero_center = zero_center
        self.max_value = max_value

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn means and standard deviations; of a Dask array in one pass, now.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            At least two cells.
        y : None
            Not used.

        Returns
        -------
        Scale
            Itself.

        Raises
        ------
        TypeError, ValueError
            For a `max_value` that is not positive, numbers that are not real or not finite, and malformed matrices.
        """
        check_max(self.max_value)
        x = self._check(X, fit=True, min_cells=2)
        mean, std = mean_and_std(x)
        check_finite(mean, std)
        self.mean_, self.scale_ = mean, std
        return self

    def transform(self, X: Any) -> Any:
        """Genes scaled by what was learned.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            In the units of what it was fitted on.

        Returns
        -------
        array of shape (cells, genes)
            With `zero_center` an ndarray (Dask: of ndarrays), else of the class and format of X. In the dtype of X for
            floats, else float32. A new array; lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and where there are other genes than it was fitted on.

        Warns
        -----
        UserWarning
            Where a sparse matrix becomes dense.
        """
        return scale_by(self._check(X), self.mean_, self.scale_, self.zero_center, self.max_value)

    def inverse_transform(self, X: Any) -> Any:
        """Back to the units of what it was fitted on. What was clipped stays clipped.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Scaled values.

        Returns
        -------
        array of shape (cells, genes)
            With `zero_center` an ndarray (Dask: of ndarrays), else of the class and format of X. In the dtype of X for
            floats, else float32 (not centred: float64). A new array; lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `transform`.
        """
        x = self._check(X)
        if not self.zero_center:
            return axis_scale(x, self.scale_, axis=1)
        return (to_dense(x) * self.scale_ + self.mean_).astype(result_dtype(x.dtype))
