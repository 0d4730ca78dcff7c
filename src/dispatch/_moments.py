"""Sums of values and of their squares around a shift, which merge without cancellation.

Moments of stored values, of implicit zeros, of blocks and of Dask chunks are all of one kind and merge by one function.
Two properties make it worth its arithmetic. It is stable: the shift is always close to the mean of what was merged
(Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983). And on integer-valued data it is exact:
the shift is then an integer, every term is an integer below 2**53, and so the result does not depend on the order.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np


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
        """The same values, around the integer next to their mean, or the mean itself where that is too far away.

        The integer is near enough if its distance d to the mean has d**2 <= 2 var: that at most triples the sum of
        squares. For integer values it always is, since var >= d (1 - d) >= d**2.
        """
        n = np.where(self.n > 0, self.n, 1)
        distance = self.s1 / n
        mean = self.shift + distance
        variance = np.maximum(self.s2 / n - distance * distance, 0)
        nearest = np.rint(mean)
        shift = np.where((nearest - mean) ** 2 <= 2 * variance, nearest, mean)
        return self.around(np.where(np.isfinite(shift), shift, self.shift))


def zeros(n: np.ndarray) -> Moments:
    """Moments of n zeros."""
    nothing = np.zeros(np.shape(n))
    return Moments(np.asarray(n, float), nothing, nothing, nothing)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of the values of both."""
    with np.errstate(all="ignore"):
        # Around the mean of the larger set first: from there the common mean is a small step.
        base = np.where(a.n >= b.n, a.shift, b.shift)
        n = np.maximum(a.n + b.n, 1)
        step = (a.s1 + a.n * (a.shift - base) + b.s1 + b.n * (b.shift - base)) / n
        common = np.where(np.isfinite(step), base + step, base)
        a_common, b_common = a.around(common), b.around(common)
        both = Moments(a.n + b.n, a_common.s1 + b_common.s1, a_common.s2 + b_common.s2, common)
        shift = both.centred().shift
        a, b = a.around(shift), b.around(shift)
        return Moments(a.n + b.n, a.s1 + b.s1, a.s2 + b.s2, shift)


def merge_all(parts: list[Moments]) -> Moments:
    """Moments of the values of all, merged in their order."""
    return reduce(merge, parts)


def side_by_side(parts: list[Moments]) -> Moments:
    """Of several groups of columns (the last axis), those of all columns."""
    return Moments(*(np.concatenate(part, axis=-1) for part in zip(*parts)))


def merge_last_axis(m: Moments) -> Moments:
    """Merge along the last axis, pair by pair: its length becomes 1 (or stays 0)."""
    while m.n.shape[-1] > 1:
        even = Moments(*(part[..., : part.shape[-1] // 2 * 2] for part in m))
        merged = merge(Moments(*(part[..., ::2] for part in even)), Moments(*(part[..., 1::2] for part in even)))
        if m.n.shape[-1] % 2:
            merged = Moments(*(np.concatenate((x, part[..., -1:]), -1) for x, part in zip(merged, m)))
        m = merged
    return m


def mean_and_variance(m: Moments, correction: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and sum of squares around it over n - correction: NaN where that is not positive, never negative."""
    with np.errstate(all="ignore"):
        mean = m.mean()
        centre = m.around(np.where(np.isfinite(mean), mean, m.shift))
        nearest = np.rint(mean)
        near = (nearest - mean) ** 2 * m.n <= 2 * centre.s2
        # Re-based from what came in, so that integers stay exact.
        m = m.around(np.where(np.isfinite(mean), np.where(near, nearest, mean), m.shift))
        squares = np.maximum(m.s2 - m.s1 * (m.s1 / m.n), 0)
        degrees = m.n - correction
        return mean, np.where(degrees > 0, squares / degrees, np.nan)
