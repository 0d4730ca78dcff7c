"""What is computed: one row of `CASES` each, with a reference that does not use csraxis.

The matrices hold counts, so the references are exact integer arithmetic up to the last step, which is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

TARGET_SUM = 1e4

# Relative error allowed in any result: float32 in, a few roundings, float32 out.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """One row: an operation on a CSR matrix of float32 counts."""

    name: str
    what: str
    reference: Callable[..., Any]
    """(x, *extra) to the right result: an array, a tuple of arrays, or a CSR matrix."""
    ideal_bytes: Callable[[sparse.csr_matrix], int]
    """What a perfect kernel reads and writes."""
    in_place: bool = False
    """Contestants may work in the buffer of x and get a fresh copy each time."""
    extra: Callable[[sparse.csr_matrix], tuple] = lambda x: ()
    """Further arguments of the contestants and of the reference."""
    wrap: Callable[[sparse.csr_matrix], Any] = lambda x: x
    """What the contestants get in place of x."""
    requires: tuple[str, ...] = ()
    """Packages without which the case is skipped."""


def _value_bytes(x: sparse.csr_matrix) -> int:
    return x.data.nbytes


def _entry_bytes(x: sparse.csr_matrix) -> int:
    return x.data.nbytes + x.indices.nbytes


def _rewrite_bytes(x: sparse.csr_matrix) -> int:
    return 2 * x.data.nbytes


def _rewrite_and_index_bytes(x: sparse.csr_matrix) -> int:
    return 2 * x.data.nbytes + x.indices.nbytes


def _factors(size: int) -> np.ndarray:
    # float32, as the matrix: with float64 factors some peers would return float64.
    return np.random.default_rng(7).uniform(0.5, 2.0, size).astype(np.float32)


def _exact_sums(x: sparse.csr_matrix, axis: int, power: int = 1) -> np.ndarray:
    """Exact int64 sums of the counts, or of their squares."""
    counts = x.data.astype(np.int64) ** power
    if axis == 1:
        running = np.concatenate([[0], np.cumsum(counts)])
        return running[x.indptr[1:]] - running[x.indptr[:-1]]
    # bincount adds in float64, which is exact for integers below 2^53
    return np.bincount(x.indices, weights=counts, minlength=x.shape[1]).astype(np.int64)


def _exact_mean_var(x: sparse.csr_matrix, axis: int) -> tuple[np.ndarray, np.ndarray]:
    # Python integers (dtype object), so that no square overflows
    n = x.shape[axis]
    total, squares = (_exact_sums(x, axis, power).astype(object) for power in (1, 2))
    mean, var = total / n, (n * squares - total * total) / n**2
    return mean.astype(np.float64), var.astype(np.float64)


def _with_data(x: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((data, x.indices, x.indptr), shape=x.shape)


def _scaled_rows(x: sparse.csr_matrix, factors: np.ndarray) -> sparse.csr_matrix:
    return _with_data(x, x.data * np.repeat(factors.astype(np.float64), np.diff(x.indptr)))


def _scaled_columns(x: sparse.csr_matrix, factors: np.ndarray) -> sparse.csr_matrix:
    return _with_data(x, x.data * factors.astype(np.float64)[x.indices])


def _log_normalized(x: sparse.csr_matrix) -> sparse.csr_matrix:
    # empty rows have no stored value that could meet their factor
    factors = TARGET_SUM / np.maximum(_exact_sums(x, axis=1), 1)
    data = _scaled_rows(x, factors).data
    return _with_data(x, np.log1p(data, out=data))


def _max_of_columns(x: sparse.csr_matrix) -> np.ndarray:
    # counts are not negative: an implicit zero is never larger
    out = np.zeros(x.shape[1])
    np.maximum.at(out, x.indices, x.data)
    return out


def _logged(x: sparse.csr_matrix) -> sparse.csr_matrix:
    return _with_data(x, np.log1p(x.data))


def _every_third(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Every third stored value, as its position in the matrix."""
    kept = np.arange(0, x.nnz, 3)
    indptr = np.searchsorted(kept, x.indptr)
    return sparse.csr_matrix(((kept % 1000 + 1).astype(x.dtype), x.indices[::3], indptr), shape=x.shape)


def _common_product(x: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    return _with_data(other, x.data[::3].astype(np.float64) * other.data)


def _commonest_columns(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """The 2,000 columns with most stored values, as after gene selection."""
    stored = np.bincount(x.indices, minlength=x.shape[1])
    kept = np.sort(np.argsort(stored, kind="stable")[-2000:])
    place = np.full(x.shape[1], -1, x.indices.dtype)
    place[kept] = np.arange(len(kept))
    inside = place[x.indices] >= 0
    indptr = np.concatenate(([0], np.cumsum(inside)))[x.indptr]
    return sparse.csr_matrix((x.data[inside], place[x.indices[inside]], indptr), shape=(x.shape[0], len(kept)))


def _products_of_columns(x: sparse.csr_matrix) -> np.ndarray:
    x = _commonest_columns(x)
    out = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, x.shape[0], 4096):
        rows = x[start : start + 4096].toarray().astype(np.float64)
        out += rows.T @ rows
    return out


def _as_anndata(x: sparse.csr_matrix) -> AnnData:
    import anndata

    # Its own copy: as after reading a file, nothing but the AnnData refers to the matrix.
    return anndata.AnnData(x.copy())


CASES = (
    Case(
        "sum-rows",
        "sum of each row (axis=1)",
        reference=lambda x: _exact_sums(x, axis=1),
        ideal_bytes=_value_bytes,
    ),
    Case(
        "sum-columns",
        "sum of each column (axis=0)",
        reference=lambda x: _exact_sums(x, axis=0),
        ideal_bytes=_entry_bytes,
    ),
    Case(
        "scale-rows",
        "each row times its factor",
        reference=_scaled_rows,
        ideal_bytes=_rewrite_bytes,
        in_place=True,
        extra=lambda x: (_factors(x.shape[0]),),
    ),
    Case(
        "scale-columns",
        "each column times its factor",
        reference=_scaled_columns,
        ideal_bytes=_rewrite_and_index_bytes,
        in_place=True,
        extra=lambda x: (_factors(x.shape[1]),),
    ),
    Case(
        "mean-var-columns",
        "mean and variance of each column (axis=0)",
        reference=lambda x: _exact_mean_var(x, axis=0),
        ideal_bytes=_entry_bytes,
    ),
    Case(
        "mean-var-rows",
        "mean and variance of each row (axis=1)",
        reference=lambda x: _exact_mean_var(x, axis=1),
        ideal_bytes=_value_bytes,
    ),
    Case(
        "max-columns",
        "largest value of each column (axis=0)",
        reference=_max_of_columns,
        ideal_bytes=_entry_bytes,
    ),
    Case(
        "expm1",
        "exp(x) - 1 of logged counts",
        reference=lambda x: _with_data(x, np.expm1(np.log1p(x.data).astype(np.float64))),
        ideal_bytes=_rewrite_and_index_bytes,
        wrap=_logged,
    ),
    Case(
        "multiply-sparse",
        "times a matrix with a third of the entries",
        reference=_common_product,
        ideal_bytes=lambda x: 2 * _entry_bytes(x),
        extra=lambda x: (_every_third(x),),
    ),
    Case(
        "gram",
        "x.T @ x of the 2,000 commonest columns, in float64",
        reference=_products_of_columns,
        ideal_bytes=_entry_bytes,
        wrap=_commonest_columns,
    ),
    Case(
        "normalize-log1p",
        "each row to 10,000 counts, then log1p",
        reference=_log_normalized,
        ideal_bytes=_rewrite_bytes,
        in_place=True,
    ),
    Case(
        "normalize-log1p-anndata",
        "each row to 10,000 counts, then log1p (AnnData)",
        reference=_log_normalized,
        ideal_bytes=_rewrite_bytes,
        in_place=True,
        wrap=_as_anndata,
        requires=("anndata",),
    ),
)
