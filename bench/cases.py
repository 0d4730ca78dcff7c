"""What is computed: one row of `CASES` each, with a reference (of `exact`) that does not use csraxis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from bench import exact, verify

if TYPE_CHECKING:
    from anndata import AnnData

Matrix = sparse.csr_matrix | sparse.csc_matrix


@dataclass(frozen=True)
class Case:
    """One row: an operation on a matrix that is made of float32 counts."""

    name: str
    what: str
    reference: Callable[..., Any]
    """(x, *extra) to the right result: an array, a tuple of arrays, a CSR matrix, or what `wrong` knows."""
    moves: Callable[[Matrix, Any], int]
    """(x, right result) to the bytes that a perfect kernel reads and writes: the roofline."""
    in_place: bool = False
    """Contestants may work in the buffer of x, which is restored before each call."""
    prepare: Callable[[sparse.csr_matrix], Matrix] = lambda counts: counts
    """x, made of the counts once."""
    extra: Callable[[Matrix], tuple] = lambda x: ()
    """Further arguments of the contestants and of the reference."""
    wrap: Callable[[Matrix], Any] = lambda x: x
    """What the contestants get in place of x, made for each call outside its time."""
    by_rows: bool = False
    """Whether rows of the result need only those rows of x: a large result is verified some rows at a time."""
    requires: tuple[str, ...] = ()
    """Packages without which the case is skipped."""
    wrong: Callable[[Any, Any], str | None] = verify.disagreement
    """(result, right result) to how it differs, or None."""
    accuracy: Callable[[Any, Any], dict[str, float]] = lambda result, expected: {}
    """The same to how near it is, where that is of interest."""


def _values(x: Matrix, expected: Any) -> int:
    return x.data.nbytes


def _entries(x: Matrix, expected: Any) -> int:
    return x.data.nbytes + x.indices.nbytes


def _rewritten(x: Matrix, expected: Any) -> int:
    return 2 * x.data.nbytes


def _rewritten_with_indices(x: Matrix, expected: Any) -> int:
    return 2 * x.data.nbytes + x.indices.nbytes


def _entries_and_result(x: Matrix, expected: Any) -> int:
    if sparse.issparse(expected):  # its values have x's type
        return _entries(x, None) + expected.nnz * (x.data.itemsize + x.indices.itemsize)
    return _entries(x, None) + expected.nbytes


def _factors(size: int) -> np.ndarray:
    # float32, as the matrix: with float64 factors some peers would return float64.
    return np.random.default_rng(7).uniform(0.5, 2.0, size).astype(np.float32)


def _spread_columns(x: Matrix) -> np.ndarray:
    """2,000 columns, of every density in the same share, as a mask."""
    stored = np.bincount(x.indices, minlength=x.shape[1]) if x.format == "csr" else np.diff(x.indptr)
    n = exact.n_genes(x.shape[1])
    mask = np.zeros(x.shape[1], bool)
    mask[np.argsort(stored, kind="stable")[np.arange(n) * x.shape[1] // n]] = True
    return mask


def _logged(x: sparse.csr_matrix) -> sparse.csr_matrix:
    return exact.with_data(x, np.log1p(x.data))


def _log_normalized(x: sparse.csr_matrix) -> sparse.csr_matrix:
    return exact.with_data(x, exact.log_normalized(x).data.astype(np.float32))


def _selected(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Logarithms of normalised counts of the genes that vary most."""
    return exact.columns(_log_normalized(x), exact.variable_genes(x))


def _scaled(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """These scaled to unit variance, at most 10: what a principal component analysis gets in the chain."""
    selected = _selected(x)
    return exact.with_data(selected, exact.scaled_to_unit_variance(selected).data.astype(np.float32))


def _every_third(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Every third stored value, as its position in the matrix."""
    kept = np.arange(0, x.nnz, 3)
    indptr = np.searchsorted(kept, x.indptr)
    return sparse.csr_matrix(((kept % 1000 + 1).astype(x.dtype), x.indices[::3], indptr), shape=x.shape)


def as_anndata(x: Matrix) -> AnnData:
    """An AnnData of its own copy: as after reading a file, nothing else refers to the matrix."""
    import anndata

    return anndata.AnnData(x.copy())


def known_to_be_in_order(x: Matrix) -> Matrix:
    """x with what SciPy, or an earlier call of csraxis, has found out about its rows."""
    x.has_canonical_format = True
    return x


def around(x: Matrix) -> AnnData:
    """An AnnData of x itself, for what does not change it."""
    import anndata

    return anndata.AnnData(x)


def _of_rows(x: Matrix) -> tuple:
    return (_factors(x.shape[0]),)


def _of_columns(x: Matrix) -> tuple:
    return (_factors(x.shape[1]),)


ANNDATA = {"in_place": True, "wrap": as_anndata, "requires": ("anndata",)}

CASES = (
    Case("sum-rows", "sum of each row (axis=1)", reference=partial(exact.sums, axis=1), moves=_values),
    Case("sum-columns", "sum of each column (axis=0)", reference=partial(exact.sums, axis=0), moves=_entries),
    Case(
        "scale-rows",
        "each row times its factor",
        reference=exact.scaled_rows,
        moves=_rewritten,
        in_place=True,
        extra=_of_rows,
    ),
    Case(
        "scale-columns",
        "each column times its factor",
        reference=exact.scaled_columns,
        moves=_rewritten_with_indices,
        in_place=True,
        extra=_of_columns,
        by_rows=True,
    ),
    Case(
        "mean-var-columns",
        "mean and variance of each column (axis=0)",
        reference=partial(exact.mean_var, axis=0),
        moves=_entries,
    ),
    Case(
        "mean-var-rows",
        "mean and variance of each row (axis=1)",
        reference=partial(exact.mean_var, axis=1),
        moves=_values,
    ),
    Case(
        "mean-var-rows-known",
        "mean and variance of each row, known to be in order (as from a second call on)",
        reference=partial(exact.mean_var, axis=1),
        moves=_values,
        wrap=known_to_be_in_order,
    ),
    Case("max-columns", "largest value of each column (axis=0)", reference=exact.max_of_columns, moves=_entries),
    Case("normalize", "each row to 10,000 counts", reference=exact.normalized, moves=_rewritten, in_place=True),
    Case("log1p", "log(1 + x)", reference=exact.logarithms, moves=_rewritten, in_place=True),
    Case(
        "normalize-log1p",
        "each row to 10,000 counts, then log1p",
        reference=exact.log_normalized,
        moves=_rewritten,
        in_place=True,
        by_rows=True,
    ),
    Case(
        "expm1",
        "exp(x) - 1 of logged counts, a new matrix",
        reference=exact.exponentials,
        moves=_rewritten_with_indices,
        prepare=_logged,
    ),
    Case(
        "multiply-sparse",
        "times a matrix with a third of the entries",
        reference=exact.common_product,
        moves=lambda x, expected: 2 * _entries(x, None),
        extra=lambda x: (_every_third(x),),
    ),
    Case(
        "take-columns",
        "2,000 columns of a CSR matrix, as a new one",
        reference=exact.columns,
        moves=_entries_and_result,
        extra=lambda x: (_spread_columns(x),),
    ),
    Case(
        "take-columns-csc",
        "2,000 columns of a CSC matrix, as a new one",
        reference=lambda x, mask: exact.columns(x.tocsr(), mask),
        # The other columns need not be read.
        moves=lambda x, expected: 2 * expected.nnz * (x.data.itemsize + x.indices.itemsize),
        prepare=lambda counts: counts.tocsc(),
        extra=lambda x: (_spread_columns(x),),
    ),
    Case(
        "log-moments",
        "mean and variance of exp(x) - 1 of each column",
        reference=partial(exact.moments, unlog=True),
        moves=_entries,
        prepare=_log_normalized,
    ),
    Case(
        "gram",
        "x.T @ x of 2,000 variable genes, in float64",
        reference=exact.products_of_columns,
        moves=_entries_and_result,
        prepare=_selected,
    ),
    Case(
        "normalize-total-anndata",
        "each cell to 10,000 counts (AnnData)",
        reference=exact.normalized,
        moves=_rewritten,
        **ANNDATA,
    ),
    Case("log1p-anndata", "log(1 + x) (AnnData)", reference=exact.logarithms, moves=_rewritten, **ANNDATA),
    Case(
        "normalize-log1p-anndata",
        "each cell to 10,000 counts, then log1p (AnnData)",
        reference=exact.log_normalized,
        moves=_rewritten,
        **ANNDATA,
    ),
    Case(
        "normalize-log1p-anndata-int32",
        "each cell to 10,000 counts, then log1p, int32 counts (AnnData)",
        reference=exact.log_normalized,
        moves=_rewritten,
        prepare=lambda counts: exact.with_data(counts, counts.data.astype(np.int32)),
        **ANNDATA,
    ),
    Case(
        "variable-genes-anndata",
        "2,000 variable genes, flavor seurat (AnnData)",
        reference=verify.gene_scores,
        moves=_entries,
        prepare=_log_normalized,
        wrap=around,
        requires=("anndata",),
        wrong=verify.wrong_genes,
    ),
    Case(
        "scale-anndata",
        "genes to unit variance, not centred, at most 10 (AnnData)",
        reference=exact.scaled_to_unit_variance,
        # Once for the variances, once to scale.
        moves=lambda x, expected: _entries(x, None) + _rewritten_with_indices(x, None),
        prepare=_log_normalized,
        **ANNDATA,
    ),
    Case(
        "pca-anndata",
        "50 principal components of 2,000 variable genes, scaled (AnnData)",
        reference=exact.principal_components,
        # Once for the covariance matrix, once for the scores.
        moves=lambda x, expected: 2 * _entries(x, None) + expected[1].nbytes // 2,
        prepare=_scaled,
        wrap=around,
        requires=("anndata",),
        wrong=verify.wrong_components,
        accuracy=verify.accuracy_of_components,
    ),
)
