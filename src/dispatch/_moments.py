"""Sums of values and of their squares around a shift, which merge without cancellation.

Moments of stored values, of implicit zeros, of blocks and of Dask chunks are all of one kind and merge by one function.
Two properties make it worth its arithmetic. It is stable: what was merged has a shift close to its mean (Chan, Golub &
LeVeque, "Algorithms for computing the sample variance", 1983), and what was not, one that is near enough
(`_partials.FAR`). And on integer-valued data it is exact: the shift is then an integer, every term is an integer below
2**53, and so the result does not depend on the order.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np

from ._blocks import run, split_flat
from ._config import kernels
from ._inputs import read_only

# Sets that are worked on at once: what is needed in between stays in the cache, in memory that is used again.
STEP = 8192

# Stored values that are worked on in the time of one merge.
RECORD = 64


class Moments(NamedTuple):
    """For each of several sets of values: how many, sum(v - shift), sum((v - shift)**2), and the shift. All float64."""

    n: np.ndarray
    s1: np.ndarray
    s2: np.ndarray
    shift: np.ndarray

    def mean(self) -> np.ndarray:
        """Mean of the values; NaN for none."""
        return (self.s1 + self.n * self.shift) / self.n

    def around(self, shift: np.ndarray) -> "Moments":
        """The same values, around another shift."""
        d = self.shift - shift
        # Where the shift stays, d * s1 must not make NaN of an infinite sum.
        s2 = np.where(d == 0, self.s2, self.s2 + d * (2 * self.s1 + self.n * d))
        return Moments(self.n, self.s1 + self.n * d, s2, np.broadcast_to(shift, self.shift.shape))

    def centred(self) -> "Moments":
        """The same values, around a shift near their mean."""
        return merge(self, zeros(np.zeros(np.shape(self.n))))


def zeros(n: np.ndarray) -> Moments:
    """Moments of n zeros."""
    nothing = np.zeros(np.shape(n))
    return Moments(np.asarray(n, float), nothing, nothing, nothing)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the values of both."""
    merged = _merge(np.array(a).reshape(4, -1), np.array(b).reshape(4, -1))
    return Moments(*merged.reshape(4, *np.shape(a.n)))


def _merge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same of arrays with a row for each of the four."""
    merged = np.empty_like(a)
    kernels().merge_moments(read_only(a), read_only(b), merged)
    return merged


def with_zeros(records: np.ndarray, n: int) -> np.ndarray:
    """A row for each of the four: the moments of n values, those of the records (which change) and zeros."""

    def merge_zeros(lo: int, hi: int) -> None:
        stored = np.ascontiguousarray(records[lo:hi].T)
        zeros = np.zeros(stored.shape)
        zeros[0] = n - stored[0]
        records[lo:hi] = _merge(stored, zeros).T

    for _ in run(merge_zeros, split_flat(len(records), STEP), len(records) * RECORD):
        pass
    return records.T


def merge_records(records: np.ndarray) -> np.ndarray:
    """One record for all: they are merged pair by pair. Of none, that of no values."""
    while len(records) > 1:
        pairs = records[: len(records) // 2 * 2].T
        merged = _merge(np.ascontiguousarray(pairs[:, ::2]), np.ascontiguousarray(pairs[:, 1::2])).T
        records = np.concatenate((merged, records[len(merged) * 2 :]))
    return records if len(records) else np.zeros((1, 4))


def merge_all(parts: list[Moments]) -> Moments:
    """Moments of the values of all, merged in their order."""
    return reduce(merge, parts)


def side_by_side(parts: list[Moments]) -> Moments:
    """Of several groups of columns (the last axis), those of all columns."""
    return Moments(*(np.concatenate(part, axis=-1) for part in zip(*parts)))


def mean_and_variance(m: Moments, correction: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and sum of squares around it over n - correction: NaN where that is not positive, never negative."""
    rows = [part.reshape(-1) for part in m]
    mean, variance = np.empty((2, rows[0].size))
    for lo, hi in split_flat(rows[0].size, STEP):
        moments = np.array([row[lo:hi] for row in rows])
        kernels().finish_moments(read_only(moments), correction, mean[lo:hi], variance[lo:hi])
    return mean.reshape(m.n.shape), variance.reshape(m.n.shape)
