"""Total-count normalisation and the logarithm."""

from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils import Tags

from .. import expm1, multiply, pp
from ..dispatch._inputs import is_dask
from ..dispatch._normalize import check_target, median_of_positive, row_totals
from ..pp._anndata import result_dtype
from ..pp._normalize import check_base
from ._base import Transformer, check_finite


class NormalizeTotal(OneToOneFeatureMixin, Transformer):
    """Scale each cell so that its counts sum to the target: `csraxis.pp.normalize_total` as an estimator.

    Parameters
    ----------
    target_sum : float, optional
        Total of each cell afterwards. None: the median of the totals of those cells, among the cells that it is fitted
        on, which have counts.

    Attributes
    ----------
    target_sum_ : float
        The target that is used.
    n_features_in_ : int
        How many genes there are.
    feature_names_in_ : ndarray of shape (genes,)
        Their names, where it was fitted on a data frame with such.

    See Also
    --------
    csraxis.normalize, csraxis.pp.normalize_total
    sklearn.preprocessing.Normalizer : With norm="l1" it scales to one.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from csraxis.sklearn import NormalizeTotal
    >>> model = NormalizeTotal().fit(sp.csr_array([[1, 0, 3], [0, 0, 2], [6, 0, 0]]))
    >>> model.target_sum_
    4.0
    >>> model.transform(sp.csr_array([[5, 0, 5]])).toarray()
    array([[2., 0., 2.]], dtype=float32)
    """

    def __init__(self, *, target_sum: float | None = None) -> None:
        self.target_sum = target_sum

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the target, unless it was given; of a Dask array in one pass, now.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Counts.
        y : None
            Not used.

        Returns
        -------
        NormalizeTotal
            Itself.

        Raises
        ------
        TypeError, ValueError
            For a target that is not positive, numbers that are not real or not finite, and malformed matrices.
        """
        check_target(self.target_sum)
        x = self._check(X, fit=True)
        if self.target_sum is None:
            totals = _totals(x)
            check_finite(totals)
            self.target_sum_ = median_of_positive(totals)
        else:
            self.target_sum_ = float(self.target_sum)
        return self

    def transform(self, X: Any) -> Any:
        """Cells that sum to the target; those without counts stay as they are.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Counts.

        Returns
        -------
        The class and format of X, of shape (cells, genes)
            In the dtype of X for floats, else float32. A new array; lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and where there are other genes than it was fitted on.

        Warns
        -----
        UserWarning
            If some cells have no counts (in memory).
        """
        return pp.normalize_total(self._check(X), target_sum=self.target_sum_)


class Log1p(OneToOneFeatureMixin, Transformer):
    """Logarithm of one plus the values: `csraxis.pp.log1p` as an estimator. Nothing is learned.

    Parameters
    ----------
    base : float, optional
        Base of the logarithm; natural by default.

    Attributes
    ----------
    n_features_in_ : int
        How many genes there are.
    feature_names_in_ : ndarray of shape (genes,)
        Their names, where it was fitted on a data frame with such.

    See Also
    --------
    csraxis.log1p, csraxis.pp.log1p

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from csraxis.sklearn import Log1p
    >>> logarithms = Log1p(base=2).fit_transform(sp.csr_array([[1, 0, 3]]))
    >>> logarithms.toarray()
    array([[1., 0., 2.]], dtype=float32)
    >>> Log1p(base=2).inverse_transform(logarithms).toarray()
    array([[1., 0., 3.]], dtype=float32)
    """

    def __init__(self, *, base: float | None = None) -> None:
        self.base = base

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Look at the input; nothing is learned but the number and names of genes.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Values greater than -1.
        y : None
            Not used.

        Returns
        -------
        Log1p
            Itself.

        Raises
        ------
        TypeError, ValueError
            For a base that is not positive or is 1, numbers that are not real or not finite, and malformed matrices.
        """
        check_base(self.base)
        self._check(X, fit=True)
        return self

    def transform(self, X: Any) -> Any:
        """Logarithms.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Values greater than -1; the logarithm of -1 is -inf, that of less NaN.

        Returns
        -------
        The class and format of X, of shape (cells, genes)
            In the dtype of X for floats, else float32. A new array; lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and where there are other genes than it was fitted on.
        """
        return pp.log1p(self._check(X), base=self.base)

    def inverse_transform(self, X: Any) -> Any:
        """From logarithms back to values.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Logarithms.

        Returns
        -------
        The class and format of X, of shape (cells, genes)
            In the dtype of X for floats, else float64. A new array; lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `transform`.
        """
        check_base(self.base)
        x = self._check(X, finite=False)  # transform gives -inf and NaN, too
        return expm1(x if self.base is None else multiply(x, float(np.log(self.base))))


def _totals(x: Any) -> np.ndarray:
    """Counts of each cell, in float64, now."""
    dtype = result_dtype(x.dtype)
    if not is_dask(x):
        return row_totals(x, 1, dtype)
    from ..dispatch import _lazy

    return _lazy.row_totals(x, 1, dtype).compute()
