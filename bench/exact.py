"""Right results of the cases, from NumPy alone: no csraxis.

Of counts in exact integer arithmetic up to the last step, else in float64. Blocks of rows keep the temporaries small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

TARGET_SUM = 1e4
MAX_VALUE = 10
N_GENES, N_COMPS = 2000, 50
BLOCK = 1 << 22
"""Stored values that are looked at together."""


def row_blocks(x: sparse.csr_matrix, values: int = BLOCK) -> Iterator[tuple[int, int, int, int]]:
    """(first row, last + 1, first value, last + 1) of blocks with about so many stored values."""
    targets = np.arange(values, x.nnz, values)
    edges = np.unique(np.concatenate(([0], np.searchsorted(x.indptr, targets), [x.shape[0]])))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
        yield start, stop, int(x.indptr[start]), int(x.indptr[stop])


def sums(x: sparse.csr_matrix, axis: int, power: int = 1) -> np.ndarray:
    """Exact int64 sums of the counts, or of their squares."""
    out = np.zeros(x.shape[1 - axis], np.int64)
    for start, stop, lo, hi in row_blocks(x):
        counts = x.data[lo:hi].astype(np.int64) ** power
        if axis == 1:
            running = np.concatenate([[0], np.cumsum(counts)])
            out[start:stop] = running[x.indptr[start + 1 : stop + 1] - lo] - running[x.indptr[start:stop] - lo]
        else:  # bincount adds in float64, which is exact for integers below 2^53
            out += np.bincount(x.indices[lo:hi], weights=counts, minlength=x.shape[1]).astype(np.int64)
    return out


def mean_var(x: sparse.csr_matrix, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Of counts: rational numbers, rounded once."""
    # Python integers (dtype object), so that no square overflows
    n = x.shape[axis]
    total, squares = (sums(x, axis, power).astype(object) for power in (1, 2))
    mean, var = total / n, (n * squares - total * total) / n**2
    return mean.astype(np.float64), var.astype(np.float64)


def moments(x: sparse.csr_matrix, unlog: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over n - 1 of the columns of any values, in two passes; of their exponentials minus one."""
    n, m = x.shape
    mean, squares, stored = np.zeros(m), np.zeros(m), np.zeros(m)

    def columns() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _, _, lo, hi in row_blocks(x):
            values = x.data[lo:hi].astype(np.float64)
            yield x.indices[lo:hi], np.expm1(values) if unlog else values

    for indices, values in columns():
        mean += np.bincount(indices, weights=values, minlength=m) / n
        stored += np.bincount(indices, minlength=m)
    for indices, values in columns():
        squares += np.bincount(indices, weights=(values - mean[indices]) ** 2, minlength=m)
    return mean, (squares + (n - stored) * mean**2) / max(n - 1, 1)


def with_data(x: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    """Other values at the same places."""
    return sparse.csr_matrix((data, x.indices, x.indptr), shape=x.shape)


def scaled_rows(x: sparse.csr_matrix, factors: np.ndarray) -> sparse.csr_matrix:
    """Each row times its factor."""
    return with_data(x, x.data * np.repeat(factors.astype(np.float64), np.diff(x.indptr)))


def scaled_columns(x: sparse.csr_matrix, factors: np.ndarray) -> sparse.csr_matrix:
    """Each column times its factor."""
    return with_data(x, x.data * factors.astype(np.float64)[x.indices])


def normalized(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row of counts to the target."""
    # empty rows have no stored value that could meet their factor
    return scaled_rows(x, TARGET_SUM / np.maximum(sums(x, axis=1), 1))


def log_normalized(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """The logarithms of one plus that."""
    data = normalized(x).data
    return with_data(x, np.log1p(data, out=data))


def logarithms(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(1 + x)."""
    return with_data(x, np.log1p(x.data.astype(np.float64)))


def exponentials(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """exp(x) - 1."""
    return with_data(x, np.expm1(x.data.astype(np.float64)))


def max_of_columns(x: sparse.csr_matrix) -> np.ndarray:
    """Counts are not negative: an implicit zero is never larger."""
    out = np.zeros(x.shape[1])
    np.maximum.at(out, x.indices, x.data)
    return out


def scaled_to_unit_variance(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each column over its standard deviation (over n - 1), no more than MAX_VALUE."""
    std = np.sqrt(moments(x)[1])
    result = scaled_columns(x, 1 / np.where(std > 0, std, 1))
    np.minimum(result.data, MAX_VALUE, out=result.data)
    return result


def common_product(x: sparse.csr_matrix, other: sparse.csr_matrix) -> sparse.csr_matrix:
    """Of a matrix and every third of its entries, with other values."""
    return with_data(other, x.data[::3].astype(np.float64) * other.data)


def columns(x: sparse.csr_matrix, mask: np.ndarray) -> sparse.csr_matrix:
    """Some columns, in order, by a table of their places."""
    place = np.where(mask, np.cumsum(mask) - 1, -1).astype(x.indices.dtype)
    data, indices, indptr = [], [], np.zeros(x.shape[0] + 1, np.int64)
    for start, stop, lo, hi in row_blocks(x):
        places = place[x.indices[lo:hi]]
        inside = places >= 0
        running = np.concatenate([[0], np.cumsum(inside)])
        indptr[start + 1 : stop + 1] = indptr[start] + running[x.indptr[start + 1 : stop + 1] - lo]
        data.append(x.data[lo:hi][inside])
        indices.append(places[inside])
    parts = (np.concatenate(data), np.concatenate(indices), indptr)
    return sparse.csr_matrix(parts, shape=(x.shape[0], int(mask.sum())))


def variable_genes(x: sparse.csr_matrix) -> np.ndarray:
    """A mask of the columns of counts that vary most for their mean, as in `highly_variable_genes(flavor="seurat")`.

    Up to ties: the dispersion of normalised counts, relative to that of columns with a similar mean.
    """
    n, m = x.shape
    factors = TARGET_SUM / np.maximum(sums(x, axis=1), 1)
    total, squares = np.zeros(m), np.zeros(m)
    for start, stop, lo, hi in row_blocks(x):
        values = x.data[lo:hi] * np.repeat(factors[start:stop], np.diff(x.indptr[start : stop + 1]))
        total += np.bincount(x.indices[lo:hi], weights=values, minlength=m)
        squares += np.bincount(x.indices[lo:hi], weights=values**2, minlength=m)
    return _most_variable(total / n, squares / n, m)


def n_genes(m: int) -> int:
    """How many of m columns are chosen."""
    return min(N_GENES, max(m // 5, 3))


def _most_variable(mean: np.ndarray, square: np.ndarray, m: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        dispersion = np.log((square - mean**2) / mean)
    bins = np.digitize(np.log1p(mean), np.linspace(0, np.log1p(mean).max(), 20)[1:])
    known = np.isfinite(dispersion)
    score = np.full(m, -np.inf)
    for which in np.unique(bins[known]):
        inside = known & (bins == which)
        score[inside] = (dispersion[inside] - dispersion[inside].mean()) / max(dispersion[inside].std(), 1e-12)
    chosen = np.zeros(m, bool)
    chosen[np.argsort(-score, kind="stable")[: n_genes(m)]] = True
    return chosen


def products_of_columns(x: sparse.csr_matrix) -> np.ndarray:
    """x.T @ x, by dense blocks."""
    out = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, x.shape[0], 4096):
        rows = x[start : start + 4096].toarray().astype(np.float64)
        out += rows.T @ rows
    return out


def principal_components(x: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """The leading singular values of the centred matrix, and orthonormal scores: from the dense covariance matrix."""
    n = x.shape[0]
    mean = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel() / n
    values, vectors = np.linalg.eigh(products_of_columns(x) - n * np.outer(mean, mean))
    k = n_comps(x)
    singular = np.sqrt(np.maximum(values[::-1][:k], 0))
    vectors = vectors[:, ::-1][:, :k]
    scores = x.astype(np.float64) @ vectors - mean @ vectors
    return singular, scores / singular


def n_comps(x: sparse.csr_matrix) -> int:
    """How many components are asked for."""
    return min(N_COMPS, min(x.shape) - 1)
