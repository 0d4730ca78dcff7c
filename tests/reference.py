"""The oracle: each public function on dense arrays, from the definition, as short as it can be.

Reductions go through Python's integers and fractions, so they are exact until the last rounding. Nothing here comes
from csraxis. A result is never sparse; where implicit zeros have a rule of their own, `stored` says which they are.
"""

import builtins
import functools
import math
from fractions import Fraction

import numpy as np


def dense(x):
    """The elements in the type of x; duplicates are added."""
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    zeros = np.zeros(x.shape, x.dtype.newbyteorder("="))
    result = -zeros if x.dtype.kind in "fc" else zeros.copy()  # -0.0 + -0.0 is -0.0
    np.add.at(result, _places(x), x.data[: x.indptr[-1]])
    return np.where(stored(x), result, zeros)


def stored(x):
    """Which elements have an entry of their own; for an ndarray, all."""
    result = np.full(x.shape, isinstance(x, np.ndarray))
    if not isinstance(x, np.ndarray):
        result[_places(x)] = True
    return result


def _places(x):
    major = np.repeat(np.arange(len(x.indptr) - 1), np.diff(x.indptr.astype(int)))
    minor = x.indices[: x.indptr[-1]].astype(int)
    return (major, minor) if x.format == "csr" else (minor, major)


def result_dtype(name, dtype):
    """The type of a function of values of one type: the table of the array API."""
    dtype = np.dtype(dtype).newbyteorder("=")
    if name in ("any", "all"):
        return np.dtype(bool)
    if name == "count_nonzero":
        return np.dtype(np.int64)
    if name in ("sum", "prod") and dtype.kind in "biu":
        return np.dtype(np.uint64 if dtype.kind == "u" else np.int64)
    if name in ("mean", "var", "std", "log1p", "expm1", "sqrt", "normalize") and dtype.kind in "biu":
        return np.dtype(float)
    return np.empty(0, dtype).real.dtype if name == "abs" else dtype


# ---- reductions


def _reduce(x, axis, keepdims, of):
    """of(list of Python numbers) for each result."""
    x = dense(x)
    axes = np.lib.array_utils.normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    kept = [n for i, n in enumerate(x.shape) if i not in axes]
    rows = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(math.prod(kept), -1 if x.size else 0)
    if not x.size:
        rows = np.empty((math.prod(kept), math.prod(x.shape[i] for i in axes)), x.dtype)
    values = np.empty(len(rows), object)
    values[:] = [of(row.tolist()) for row in rows]
    return values.reshape([1 if i in axes else n for i, n in enumerate(x.shape)] if keepdims else kept)


def _prod(values):
    """The exact product, as an integer or a fraction; a float or complex number where it is not finite or real."""
    inexact = builtins.any(isinstance(value, complex) or not math.isfinite(value) for value in values)
    return math.prod(values if inexact else map(Fraction, values))


def _extreme(choose, values):
    """The largest or smallest value; a NaN, if there is one; +0 for -0. Nothing has none: ValueError."""
    return next((value for value in values if value != value), None) or choose(values) + 0


def _total(values):
    """The exact sum, as an integer or a fraction; a float where it is not finite."""
    if not values:
        return 0
    if isinstance(values[0], complex):
        real, imag = (_total([getattr(value, part) for value in values]) for part in ("real", "imag"))
        return complex(real, imag)
    if isinstance(values[0], float):
        if not builtins.all(map(math.isfinite, values)):
            return builtins.sum(values)
        return builtins.sum(map(Fraction, values))
    return builtins.sum(map(int, values))


def sum(x, axis=None, dtype=None, keepdims=False):
    """The sum; Python integers are not reduced modulo 2**64."""
    with np.errstate(all="ignore"):
        x = dense(x) if dtype is None else dense(x).astype(dtype)
    return _reduce(x, axis, keepdims, _total)


def prod(x, axis=None, dtype=None, keepdims=False):
    """The product of all elements; Python integers are not reduced modulo 2**64."""
    with np.errstate(all="ignore"):
        x = dense(x) if dtype is None else dense(x).astype(dtype)
    return _reduce(x, axis, keepdims, _prod)


def mean(x, axis=None, keepdims=False):
    """The sum over the number of elements."""
    nothing = complex(math.nan, math.nan) if x.dtype.kind == "c" else math.nan

    def of(values):
        total = _total(values)
        if not values:
            return nothing
        if isinstance(total, complex):
            return complex(total.real / len(values), total.imag / len(values))
        return total / len(values) if isinstance(total, float) else Fraction(total, len(values))

    return _reduce(x, axis, keepdims, of)


def var(x, axis=None, correction=0, keepdims=False):
    """The sum of squares around the mean, over N - correction."""

    def of(values):
        n = len(values)
        if not n or n - correction <= 0 or not builtins.all(map(math.isfinite, values)):
            return math.nan
        numbers = [Fraction(value) for value in values]
        squares = builtins.sum(v * v for v in numbers) - (Fraction(builtins.sum(numbers)) ** 2) / n
        return squares / (n - Fraction(correction))

    return _reduce(x, axis, keepdims, of)


def std(x, axis=None, correction=0, keepdims=False):
    """The root of the variance."""
    variance = var(x, axis, correction, keepdims)
    return np.array([math.sqrt(v) for v in variance.ravel()], object).reshape(variance.shape)


def max(x, axis=None, keepdims=False):
    """The largest element."""
    return _reduce(x, axis, keepdims, functools.partial(_extreme, builtins.max))


def min(x, axis=None, keepdims=False):
    """The smallest element."""
    return _reduce(x, axis, keepdims, functools.partial(_extreme, builtins.min))


def any(x, axis=None, keepdims=False):
    """Whether an element is not zero; NaN is not."""
    return _reduce(x, axis, keepdims, builtins.any)


def all(x, axis=None, keepdims=False):
    """Whether no element is zero; NaN is not."""
    return _reduce(x, axis, keepdims, builtins.all)


def count_nonzero(x, axis=None, keepdims=False):
    """How many elements are not zero."""
    return _reduce(x, axis, keepdims, lambda values: builtins.sum(value != 0 for value in values))


# ---- element by element


def binary(name, x1, x2):
    """`multiply` or `divide`: implicit zeros of a factor, or of the dividend, stay."""
    operands = [x if np.isscalar(x) else dense(x) for x in (x1, x2)]
    with np.errstate(all="ignore"):
        result = getattr(np, name)(*operands)
    keep_zeros = [stored(x) for x in ((x1, x2) if name == "multiply" else (x1,)) if hasattr(x, "indptr")]
    return np.where(functools.reduce(np.logical_and, keep_zeros, True), result, result.dtype.type(0))


def unary(name, x):
    """The function of each element: logarithms and roots rounded once from extended precision."""
    values = dense(x)
    floating = name in ("log1p", "expm1", "sqrt")
    with np.errstate(all="ignore"):
        if floating and values.dtype.kind != "c":
            precise = getattr(np, name)(values.astype(np.longdouble))
            result = precise.astype(values.dtype if values.dtype.kind == "f" else float)
        else:
            result = getattr(np, name)(values)
    return np.where(stored(x), result, result.dtype.type(0))  # -0.0 only where there is an entry


def gram(x):
    """The products of columns, where both have an entry, added exactly."""
    x, has = dense(x), stored(x)

    def inner(i, j):
        rows = has[:, i] & has[:, j]
        pairs = list(zip(x[rows, i].tolist(), x[rows, j].tolist()))
        exact = Fraction if np.isfinite(x[rows][:, [i, j]]).all() else float
        return builtins.sum(exact(a) * exact(b) for a, b in pairs)

    result = np.empty((x.shape[1],) * 2, object)
    for place in np.ndindex(result.shape):
        result[place] = inner(*place)
    return result


def axis_scale(x, factors, axis, op="multiply", zero_division="ieee"):
    """Factors along an axis: floats are scaled in float64 and rounded once."""
    values, factors = dense(x), np.ravel(factors)
    if zero_division == "one":
        factors = np.where(factors == 0, factors.dtype.type(1), factors)
    integers = values.dtype.kind in "biu" and factors.dtype.kind in "biu" and op == "multiply"
    result = (
        np.result_type(values, factors) if integers else values.dtype if values.dtype.kind in "fc" else np.dtype(float)
    )
    if result.kind in "fc":
        wide = np.complex128 if result.kind == "c" else np.float64
        values, factors = values.astype(wide), factors.astype(wide if factors.dtype.kind == "c" else float)
    factors = factors[:, None] if axis in (0, -2) else factors
    with np.errstate(all="ignore"):
        scaled = getattr(np, op)(values, factors)
        if values.dtype.kind == "c" and factors.dtype.kind == "f":  # real factors act on each part
            scaled.real, scaled.imag = (getattr(np, op)(part, factors) for part in (values.real, values.imag))
        scaled = scaled.astype(result)
    return np.where(stored(x), scaled, result.type(0))


def normalize(x, axis=1, target_sum=None, log1p=False):
    """Rows (axis=1) or columns that sum to the target, or to the median of the positive totals; in float64."""
    values = dense(x).astype(float)
    totals = np.array([math.fsum(row) for row in (values if axis in (1, -1) else values.T)])
    positive = totals[totals > 0]
    target = target_sum if target_sum is not None else np.median(positive) if len(positive) else 1.0
    factors = np.array([target / total if total else 1.0 for total in totals])
    result = values * (factors[:, None] if axis in (1, -1) else factors)
    with np.errstate(all="ignore"):
        return np.log1p(result) if log1p else result
