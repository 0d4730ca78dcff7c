"""Selection of highly variable genes."""

from typing import Any, Self

import numpy as np
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from ..dispatch._inputs import is_dask
from ..dispatch._select import take
from ..pp import _hvg
from ..pp._normalize import check_base
from ._base import Transformer, check_finite


class SelectVariableGenes(SelectorMixin, Transformer):
    """Keep the genes that vary more than others of the same mean: `csraxis.pp.highly_variable_genes` as an estimator.

    Parameters
    ----------
    n_top_genes : int, optional
        How many genes to choose; the cut-offs are ignored then. Default for the v3 flavours: 2000.
    flavor : {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"}
        "seurat" and "cell_ranger" take logarithms, the v3 flavours (which need scikit-misc) counts.
    min_disp, max_disp, min_mean, max_mean : float
        Cut-offs of normalised dispersion and mean; for "seurat" and "cell_ranger".
    span : float
        The share of genes that the local regression of the v3 flavours takes at a time.
    n_bins : int
        How many bins of genes with a similar mean "seurat" makes.
    base : float, optional
        The base of the logarithms, for "seurat", which works on the values before them; natural by default.
    filter_unexpressed_genes : bool
        Leave out genes that no cell expresses; for "seurat" and "cell_ranger".

    Attributes
    ----------
    highly_variable_ : ndarray of bool of shape (genes,)
        The genes that are kept, as `get_support()` gives.
    statistics_ : DataFrame
        What `csraxis.pp.highly_variable_genes` returns: a row for each gene.
    n_features_in_ : int
        How many genes there are.
    feature_names_in_ : ndarray of shape (genes,)
        Their names, where it was fitted on a data frame with such.

    See Also
    --------
    csraxis.pp.highly_variable_genes
    sklearn.feature_selection.VarianceThreshold : By variance alone.

    Examples
    --------
    >>> import numpy as np
    >>> from csraxis.sklearn import SelectVariableGenes
    >>> counts = np.random.default_rng(0).poisson([1, 1, 1, 1, 1, 0.125], (500, 6)) * [1, 1, 1, 1, 1, 8]
    >>> model = SelectVariableGenes(n_top_genes=1, n_bins=1).fit(np.log1p(counts))
    >>> model.get_support().tolist()
    [False, False, False, False, False, True]
    >>> model.transform(np.log1p(counts)).shape
    (500, 1)
    """

    def __init__(
        self,
        *,
        n_top_genes: int | None = None,
        flavor: str = "seurat",
        min_disp: float = 0.5,
        max_disp: float = np.inf,
        min_mean: float = 0.0125,
        max_mean: float = 3,
        span: float = 0.3,
        n_bins: int = 20,
        base: float | None = None,
        filter_unexpressed_genes: bool = False,
    ) -> None:
        self.n_top_genes = n_top_genes
        self.flavor = flavor
        self.min_disp = min_disp
        self.max_disp = max_disp
        self.min_mean = min_mean
        self.max_mean = max_mean
        self.span = span
        self.n_bins = n_bins
        self.base = base
        self.filter_unexpressed_genes = filter_unexpressed_genes

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose genes; of a Dask array in one pass, now (v3 flavours: two).

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            Logarithms or counts, as the flavour takes; at least two cells.
        y : None
            Not used.

        Returns
        -------
        SelectVariableGenes
            Itself.

        Raises
        ------
        ImportError
            If a v3 flavour is asked for and scikit-misc is not installed.
        TypeError, ValueError
            For options that are not allowed, numbers that are not real or not finite, and malformed matrices.

        Warns
        -----
        UserWarning
            If a v3 flavour gets what are not counts.
        """
        cutoffs = {name: getattr(self, name) for name in _hvg.CUTOFFS}
        options = _hvg.Options(
            self.flavor, self.n_top_genes, self.n_bins, self.span, self.filter_unexpressed_genes, cutoffs
        )
        _hvg.check(options)
        check_base(self.base)
        x = self._check(X, fit=True, min_cells=2)
        stats = _hvg.statistics(x, None, options, self.base)
        if options.is_v3:
            _hvg.warn_unless_counts(stats, self.flavor)
        frame = _hvg.choose(x, stats, None, getattr(self, "feature_names_in_", None), options)
        check_finite(frame["means"])
        self.statistics_, self.highly_variable_ = frame, frame["highly_variable"].to_numpy()
        return self

    def transform(self, X: Any) -> Any:
        """The genes that were chosen, in their order.

        Parameters
        ----------
        X : array, sparse matrix, data frame or Dask array of shape (cells, genes)
            All genes.

        Returns
        -------
        The class and format of X, of shape (cells, chosen genes)
            In the dtype of X. A new array; lazy for Dask. Without columns, where no gene passed the cut-offs.

        Raises
        ------
        TypeError, ValueError
            As `fit`, and where there are other genes than it was fitted on.
        """
        return take(self._check(X), self.highly_variable_, axis=1)

    def inverse_transform(self, X: Any) -> Any:
        """All genes again, with zeros for those that were not chosen.

        Parameters
        ----------
        X : array or sparse matrix of shape (cells, chosen genes)
            In memory.

        Returns
        -------
        ndarray, or sparse matrix in csc format, of shape (cells, genes)
            In the dtype of X.

        Raises
        ------
        TypeError, ValueError
            For Dask arrays, and for another number of genes.
        """
        if is_dask(X):
            raise TypeError("inverse_transform of SelectVariableGenes takes a matrix in memory; got a Dask array")
        return super().inverse_transform(X)

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self.highly_variable_
