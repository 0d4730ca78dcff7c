"""Principal component analysis."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_array, check_is_fitted

from .. import to_dense
from ..dispatch._components import project
from ..dispatch._inputs import is_dask
from ..pp._anndata import result_dtype
from ..pp._pca import DEFAULT_COMPONENTS, check_seed, check_solver, decompose, ratio
from ._base import Transformer


class PCA(ClassNamePrefixFeaturesOutMixin, Transformer):
    """Principal component analysis, without making a sparse matrix dense: `csraxis.pp.pca` as an estimator.

    The numbers are those of `sklearn.decomposition.PCA` of the dense matrix.

    Parameters
    ----------
    n_components : int, optional
        How many components. Default: 50, or as many as there are genes, or one less than there are cells, where those
        are fewer.
    zero_center : bool
        False: components around zero instead of the mean, as `sklearn.decomposition.TruncatedSVD`.
    svd_solver : {"auto", "full", "covariance_eigh", "arpack", "randomized"}
        "covariance_eigh" and "full": from the covariance matrix of the genes, or of the cells where those are fewer.
        "randomized": block Lanczos, for more than 5,000 genes and cells. "auto" and "arpack": by size, one of the two.
        See `csraxis.pp.pca` on their accuracy.
    random_state : int, RandomState or None
        Where iterative solvers start.

    Attributes
    ----------
    components_ : ndarray of shape (components, genes)
        Orthonormal rows, float64, largest variance first. The largest loading of each is positive.
    explained_variance_ : ndarray of shape (components,)
        Variances of the scores, over n - 1.
    explained_variance_ratio_ : ndarray of shape (components,)
        The same over the variance of all genes; NaN where nothing varies.
    singular_values_ : ndarray of shape (components,)
        Of the matrix minus the mean.
    mean_ : ndarray of shape (genes,)
        What is subtracted from each cell: means of the genes, or zeros without `zero_center`.
    n_components_ : int
        How many components there are.
    n_features_in_ : int
        How many genes there are.
    feature_names_in_ : ndarray of shape (genes,)
        Their names, where it was fitted on a data frame with such.

    See Also
    --------
    csraxis.pp.pca, sklearn.decomposition.PCA

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from csraxis.sklearn import PCA
    >>> x = sp.random(100, 20, 0.3, format="csr", random_state=0)
    >>> model = PCA(n_components=2).fit(x)
    >>> model.components_.shape, model.transform(x[:5]).shape
    ((2, 20), (5, 2))
    >>> bool(np.allclose(model.transform(x), (x.toarray() - model.mean_) @ model.components_.T))
    True
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        zero_center: bool = True,
        svd_solver: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.zero_center = zero_center
        self.svd_solver = svd_solver
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components; of a Dask array in one pass ("randomized": one for each step), now.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            At least two cells.
        y : None
            Not used.

        Returns
        -------
        PCA
            Itself.

        Raises
        ------
        TypeError, ValueError
            For options that are not allowed, too many components, numbers that are not real or not finite, and
            malformed matrices.
        MemoryError
            If "covariance_eigh" is asked for and the matrix would take more than half of the memory.

        Warns
        -----
        UserWarning
            If the components are approximate, with the residual.
        """
        method = check_solver(self.svd_solver)
        check_seed(self.random_state)
        x = self._check(X, fit=True, min_cells=2)
        n_components = self.n_components
        if n_components is None:
            n_components = int(np.nanmin([DEFAULT_COMPONENTS, x.shape[0] - 1, x.shape[1]]))
        found = decompose(x, n_components, self.zero_center, method, self.random_state, "n_components")
        self.mean_, self.components_ = found.mean, found.axes
        self.singular_values_, self.explained_variance_ = found.singular_values, found.variance
        self.explained_variance_ratio_ = ratio(found)
        self.n_components_ = len(found.axes)
        return self

    def transform(self, X: Any) -> Any:
        """The scores of cells: their coordinates along the components.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            In the units of what it was fitted on.

        Returns
        -------
        ndarray, or Dask array of ndarrays, of shape (cells, components)
            In the dtype of X for floats, else float32. Lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and where there are other genes than it was fitted on.
        """
        x = self._check(X)
        return project(x, self.components_, self.mean_, result_dtype(x.dtype))

    def inverse_transform(self, X: Any) -> Any:
        """Cells that have these scores: the closest to the original ones that the components can give.

        Parameters
        ----------
        X : array or Dask array of shape (cells, components)
            Scores.

        Returns
        -------
        ndarray, or Dask array of ndarrays, of shape (cells, genes)
            Dense; in the dtype of X for floats, else float32. Lazy for Dask.

        Raises
        ------
        TypeError, ValueError
            For another number of components, and numbers that are not real or not finite.
        """
        check_is_fitted(self)
        x = to_dense(X if is_dask(X) else check_array(X, input_name="X", estimator=self))
        dtype = result_dtype(x.dtype)
        if x.ndim != 2 or x.shape[1] != self.n_components_:
            raise ValueError(f"X must have shape (cells, {self.n_components_}): the scores; got {x.shape}")
        return (x @ self.components_ + self.mean_).astype(dtype)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_
