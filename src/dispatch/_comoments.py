"""Means of the columns and sums of products of the differences to them, which merge without cancellation.

What `_moments` is to the variance, this is to the covariance: the covariance matrix is `products / (n - 1)`.
"""

from typing import Any, NamedTuple

import numpy as np

from . import _blocks, _gram, _partials
from ._inputs import compressed, container, is_sparse, native
from ._moments import mean_and_variance

# A column whose mean is as many standard deviations from zero is centred before products are formed, and so
# has no zeros (more than half of it is stored in any case): no product loses digits to the mean.
FAR = 1
# With more stored values than this share of all, BLAS on dense rows is faster (2,000 equal columns, one core, float32:
# the hybrid takes .34 of its time at a density of .29, .70 at .6, .86 at .8 with 64-byte vectors).
DENSE_FROM = 0.7
# Dense rows that are multiplied at once, in the type of the values; 1,024 take 7 % longer, more than 2,048 no less.
DENSE_ROWS = 2048
# With fewer stored values than this, float32 gains nothing (2 ms of 2,000 columns).
SINGLE_FROM = 1 << 20
# Integers up to here are exact in float32; squares in this range neither overflow there nor become subnormal.
EXACT, SAFE = 1 << 24, (1e-20, 1e20)


class Comoments(NamedTuple):
    """Of n rows: the mean of each column, and sum((v - mean) (v - mean)^T), in its upper triangle at least."""

    n: float
    mean: np.ndarray
    products: np.ndarray
    """(m, m), or that triangle alone: see `_gram.pack`."""
    single: bool = False
    """Whether products were formed in float32."""

    def about_zero(self) -> np.ndarray:
        """sum(v v^T)."""
        return self.products + self.n * np.outer(self.mean, self.mean)


def comoments(x: Any, *, exact: bool = False) -> Comoments:
    """Of the rows of a matrix in memory. Products are formed in float64, those of dense float32 only if `exact`."""
    x = container(x)
    n, m = x.shape
    if not n or not m:
        return Comoments(n, np.zeros(m), np.zeros((m, m)))
    mean, var = (part.ravel() for part in mean_and_variance(_partials.moments(x, (0,)), 0))
    dtype = np.dtype(float)
    with np.errstate(all="ignore"):
        if not is_sparse(x) or x.nnz > DENSE_FROM * n * m:
            power = float(np.max(mean * mean + var, initial=0))
            if not exact and SAFE[0] < power < SAFE[1]:
                dtype = _product_dtype(x)
            products = _centred_gram(x, mean, dtype)
        else:
            shift = np.where(np.abs(mean) > FAR * np.sqrt(var), mean, 0)
            products = _gram.shifted_gram(x, shift, dtype)
            rest = mean - shift
            products = _gram.minus_outer(products, n, rest)
        np.fill_diagonal(products, n * var)
        return Comoments(n, mean, products, dtype.itemsize < 8)


def packed(x: Any, *, exact: bool = False) -> Comoments:
    """The same, in half the memory: what travels and merges."""
    found = comoments(x, exact=exact)
    return found._replace(products=_gram.pack(found.products))


def _product_dtype(x: Any) -> np.dtype:
    """The type in which values are multiplied: float32 where these are many, and of that type or exact in it."""
    values = x.data if is_sparse(x) else x
    if values.size < SINGLE_FROM:
        return np.dtype(float)
    if x.dtype.kind == "f":
        return x.dtype.newbyteorder("=")
    small = x.dtype.itemsize <= 2 or (values.min(initial=0) >= -EXACT and values.max(initial=0) <= EXACT)
    return np.dtype(np.float32 if small else float)


def _centred_gram(x: Any, mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The products, by way of dense rows."""
    if is_sparse(x):
        x = native(compressed(x, canonical=True)).tocsr()
    n, m = x.shape
    shift = mean.astype(dtype)

    def block(start: int, stop: int) -> np.ndarray:
        out, product = np.zeros((m, m)), np.empty((m, m), dtype)
        room = np.empty((min(DENSE_ROWS, stop - start), m), dtype)
        for first in range(start, stop, DENSE_ROWS):
            rows = _partials.to_ndarray(x[first : min(first + DENSE_ROWS, stop)])
            centred = np.subtract(rows, shift, out=room[: len(rows)], casting="same_kind")
            out += np.matmul(centred.T, centred, out=product)
        return out

    blocks = _blocks.split(np.arange(n + 1), _gram.n_sums(n * m))
    products = _gram.add_grams(_blocks.run(block, blocks, n * m))
    rest = mean - shift
    return _gram.minus_outer(products, n, rest)


def merge(parts: list[Comoments]) -> Comoments:
    """Comoments of the rows of all, packed if they are."""
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
        if parts[0].products.ndim == 1:
            products = _gram.pack(products)
        for part in parts:
            products += part.products
    return Comoments(n, around + step, products, any(part.single for part in parts))
