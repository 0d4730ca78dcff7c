"""Means of the columns and sums of products of the differences to them, which merge without cancellation.

What `_moments` is to the variance, this is to the covariance: the covariance matrix is `products / (n - 1)`.
"""

from typing import Any, NamedTuple

import numpy as np

from . import _blocks, _gram, _partials, _select
from ._inputs import compressed, container, is_sparse, native
from ._moments import mean_and_variance

# A column whose mean is this many standard deviations from zero is centred before products are formed: else these
# would lose the square of that, of 16 digits.
FAR = 1e3
# With more stored values than this share of all, blocks of dense rows are faster (measured: .15 to .25, 2,000 columns).
DENSE_FROM = 0.2


class Comoments(NamedTuple):
    """Of n rows: the mean of each column, and sum((v - mean) (v - mean)^T), in its upper triangle at least."""

    n: float
    mean: np.ndarray
    products: np.ndarray

    def about_zero(self) -> np.ndarray:
        """sum(v v^T)."""
        return self.products + self.n * np.outer(self.mean, self.mean)


def comoments(x: Any) -> Comoments:
    """Of the rows of a matrix in memory."""
    x = container(x)
    n, m = x.shape
    if not n:
        return Comoments(n, np.zeros(m), np.zeros((m, m)))
    mean, var = (part.ravel() for part in mean_and_variance(_partials.moments(x, (0,)), 0))
    with np.errstate(all="ignore"):
        if not is_sparse(x) or x.nnz > DENSE_FROM * n * m:
            return Comoments(n, mean, _centred_gram(x, mean))
        far = np.abs(mean) > FAR * np.sqrt(var)
        if far.any():
            return Comoments(n, mean, _centred_first(x, mean, far))
        products = _gram.partial_gram(x)
        products -= np.outer(n * mean, mean)
        return Comoments(n, mean, products)


def _centred_first(x: Any, mean: np.ndarray, far: np.ndarray) -> np.ndarray:
    """The products, where some columns are dense and have to be centred first."""
    x = native(compressed(x, canonical=True))
    near = _select.take(x, ~far, axis=1)
    centred = _select.take(x, far, axis=1).toarray() - mean[far]
    products = np.empty((len(mean), len(mean)))
    of_near = _gram.partial_gram(near) - len(centred) * np.outer(mean[~far], mean[~far])
    products[np.ix_(~far, ~far)] = _gram.finish_gram(of_near, of_near.dtype)
    products[np.ix_(far, far)] = centred.T @ centred
    products[np.ix_(~far, far)] = cross = near.T @ centred
    products[np.ix_(far, ~far)] = cross.T
    return products


def _centred_gram(x: Any, mean: np.ndarray) -> np.ndarray:
    """The products, by way of dense rows."""
    if is_sparse(x):
        x = native(compressed(x)).tocsr()
    out = np.zeros((x.shape[1],) * 2)
    for start, stop in _blocks.split_flat(x.shape[0], max(1, 16 * _blocks.CAST_STEP // max(x.shape[1], 1))):
        rows = _partials.to_ndarray(x[start:stop]) - mean
        out += rows.T @ rows
    return out


def merge(parts: list[Comoments]) -> Comoments:
    """Comoments of the rows of all."""
    if len(parts) == 1:
        return parts[0]
    weights = np.array([part.n for part in parts], float)
    n = weights.sum()
    around = parts[0].mean
    with np.errstate(all="ignore"):
        steps = np.array([part.mean - around for part in parts])
        step = weights @ steps / max(n, 1)
        apart = (steps - step) * np.sqrt(weights)[:, None]
        products = apart.T @ apart
        for part in parts:
            products += part.products
    return Comoments(n, around + step, products)
