"""The loops, in Numba. The Cython twins are in ../kernels_cy/_kernels.pxi: same names, parameters, formulas and bits.

`error_model="numpy"` matters: the test for a division by zero would keep the loops from being vectorised. Indices are
compared and used as unsigned numbers, so that one comparison finds both kinds of bad index and none wraps around.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from ._lanes import AHEAD, count_bits, lane_moments, lane_sum, lowest_bit, panel_sums, prefetch


def _kernel(function):
    """Compile at the first call; keep the result on disk, if there is a folder that can be written."""
    try:
        return njit(error_model="numpy", nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache
        return njit(error_model="numpy", nogil=True)(function)


@_kernel
def _log1p_f32(x, ordinary):
    """See log1p_value in ../kernels_cy/_kernels.pxi. Numba widens 32-bit arithmetic: each step is narrowed again."""
    k32 = np.uint32(np.uint32(np.float32(np.float32(1) + x).view(np.uint32) + np.uint32(0xC0CAFB0D)) & 0xFF800000)
    k = np.float32(np.int32(k32))
    down = np.uint32(np.uint32(0x3F800000) - k32).view(np.float32)
    if not ordinary:
        down = down if np.int32(k32) <= np.int32(0x3F800000) else np.float32(0)
    f = np.uint32(np.float32(x).view(np.uint32) - k32).view(np.float32) + (down - np.float32(1))
    s = f / (np.float32(2) + f)
    z = s * s
    r = z * (np.float32(0.39988768100738525) + z * np.float32(0.2958046793937683))
    r = z * (np.float32(0.6666668653488159) + r)
    h = np.float32(0.5) * f * f
    low = k * np.float32(1.428606765330187e-06 / (1 << 23))
    y = k * np.float32(0.693145751953125 / (1 << 23)) - ((h - (s * (h + r) + low)) - f)
    if ordinary:
        return y
    y = y if x > np.float32(-1) else np.float32(np.nan)
    y = np.float32(-np.inf) if x == np.float32(-1) else y
    y = x if x == np.float32(0) else y
    return x if x == np.float32(np.inf) else y


@_kernel
def _log1p_f64(x, ordinary):
    """See log1p_value in ../kernels_cy/_kernels.pxi."""
    e = (np.float64(1 + x).view(np.uint64) + np.uint64(0x95F619980C433)) >> np.uint64(52)
    k = np.uint64(e | np.uint64(0x4330000000000000)).view(np.float64) - 4503599627371519.0
    e = np.uint64(e - np.uint64(1023)) << np.uint64(52)
    down = np.uint64(np.uint64(0x3FF0000000000000) - e).view(np.float64)
    if not ordinary:
        down = down if np.int64(e) <= np.int64(0x3FF0000000000000) else 0.0
    f = np.uint64(np.float64(x).view(np.uint64) - e).view(np.float64) + (down - 1)
    s = f / (2 + f)
    z = s * s
    r = z * (0.2857142862611452 + z * (0.22222211112104948 + z * (0.1818289077802613
        + z * (0.15331666676597175 + z * 0.146171283998073))))  # fmt: skip
    r = z * (0.666666666666667 + z * (0.399999999998992 + r))
    h = 0.5 * f * f
    y = k * 0.6931471805582987 - ((h - (s * (h + r) + k * 1.6465949582897082e-12)) - f)
    if ordinary:
        return y
    y = y if x > -1 else np.nan
    y = -np.inf if x == -1 else y
    y = x if x == 0 else y
    return x if x == np.inf else y


def _log1p_values(x):
    """x[:] = log(1 + x)"""
    raise NotImplementedError  # only its overload, below, is ever compiled


@overload(_log1p_values, jit_options={"error_model": "numpy"})
def _overload_log1p_values(x):
    if x.dtype == types.float32:
        value, unsigned, limit = _log1p_f32, np.uint32, np.uint32(0x7F000000)
    else:
        value, unsigned, limit = _log1p_f64, np.uint64, np.uint64(0x7FE0000000000000)

    def log1p_values(x):
        top, bits = unsigned(0), x.view(unsigned)
        for k in range(bits.shape[0]):  # of a negative number and of NaN they are larger still
            top = bits[k] if bits[k] > top else top
        if top < limit:
            for k in range(x.shape[0]):
                x[k] = value(x[k], True)
        else:
            for k in range(x.shape[0]):
                x[k] = value(x[k], False)

    return log1p_values


@_kernel
def _expm1_f32(value):
    """See expm1_value in ../kernels_cy/_kernels.pxi."""
    x = value if value > np.float32(-20) else np.float32(-20)
    x = x if x < np.float32(89) else np.float32(89)
    t = x * np.float32(1.4426950408889634) + np.float32(12582912)
    k = t - np.float32(12582912)
    half = np.uint32(np.uint32(np.float32(t).view(np.uint32) + np.uint32(126)) << np.uint32(23)).view(np.float32)
    r = (x - k * np.float32(0.693145751953125)) - k * np.float32(1.428606765330187e-06)
    p = np.float32(1 / 120.0) + r * (np.float32(1 / 720.0) + r * np.float32(1 / 5040.0))
    p = r * (np.float32(1 / 24.0) + r * p)
    p = r + r * r * (np.float32(0.5) + r * (np.float32(1 / 6.0) + p))
    y = half * p + (half - np.float32(0.5))
    y = y + y
    y = value if np.float32(-1e-18) < value < np.float32(1e-18) else y
    return y if value == value else value


@_kernel
def _expm1_f64(value):
    """See expm1_value in ../kernels_cy/_kernels.pxi."""
    x = value if value > -60 else -60.0
    x = x if x < 710 else 710.0
    t = x * 1.4426950408889634 + 6755399441055744.0
    k = t - 6755399441055744.0
    half = np.uint64((np.float64(t).view(np.uint64) + np.uint64(1022)) << np.uint64(52)).view(np.float64)
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    p = r * (1 / 720.0 + r * (1 / 5040.0 + r * (1 / 40320.0 + r * (1 / 362880.0 + r * (1 / 3628800.0
             + r * (1 / 39916800.0 + r * (1 / 479001600.0 + r * (1 / 6227020800.0))))))))  # fmt: skip
    p = r + r * r * (0.5 + r * (1 / 6.0 + r * (1 / 24.0 + r * (1 / 120.0 + p))))
    y = half * p + (half - 0.5)
    y = y + y
    y = value if -1e-18 < value < 1e-18 else y
    return y if value == value else value


def _expm1_value(x):
    """exp(x) - 1 in the type of x."""
    raise NotImplementedError  # only its overload, below, is ever compiled


@overload(_expm1_value, jit_options={"error_model": "numpy"})
def _overload_expm1_value(x):
    if x == types.float32:
        return lambda x: _expm1_f32(x)
    return lambda x: _expm1_f64(x)


def _sum(row):
    """Sum of a row: floats in lanes, integers in int64."""
    raise NotImplementedError


@overload(_sum, jit_options={"error_model": "numpy"})
def _overload_sum(row):
    if isinstance(row.dtype, types.Float):
        return lambda row: lane_sum(row)

    def sum_integers(row):
        total = np.int64(0)
        for k in range(row.shape[0]):
            total += np.int64(row[k])
        return total

    return sum_integers


@_kernel
def _copy(values, to):
    """to[:] = values, unless they are the same memory: in place, LLVM vectorises only loops over one array."""
    if values.ctypes.data != to.ctypes.data:
        for k in range(to.shape[0]):
            to[k] = values[k]


@_kernel
def _first_outside(indices, start, stop, n_minor):
    """Position of the first of indices[start:stop] that is not in [0, n_minor), or -1."""
    for k in range(start, stop):
        if not 0 <= indices[k] < n_minor:
            return k
    return -1


@_kernel
def check_indices(indices, indptr, start, stop, n_minor):
    """Position of the first of indices[indptr[start]:indptr[stop]] that is not in [0, n_minor), or -1"""
    lo, hi = indptr[start], indptr[stop]
    index = indices[lo:hi]
    lowest = highest = indices.dtype.type(0)
    for k in range(index.shape[0]):  # in their own type, which is vectorised
        lowest = index[k] if index[k] < lowest else lowest
        highest = index[k] if index[k] > highest else highest
    return _first_outside(indices, lo, hi, n_minor) if lowest < 0 or highest >= n_minor else -1


@_kernel
def is_canonical(indices, indptr, start, stop):
    """Whether indices[indptr[i]:indptr[i+1]] strictly increase for each i in [start, stop)"""
    for i in range(start, stop):
        row = indices[indptr[i] : indptr[i + 1]]
        falls = False
        for first in range(0, row.shape[0], 64):
            prefetch(row, first + AHEAD)
            part = row[first : first + 65]
            for k in range(part.shape[0] - 1):
                falls |= part[k] >= part[k + 1]
        if falls:
            return False
    return True


@_kernel
def sum_major(data, indptr, start, stop, out):
    """out[i - start] = sum(data[indptr[i]:indptr[i+1]]) for i in [start, stop)"""
    for i in range(start, stop):
        out[i - start] = _sum(data[indptr[i] : indptr[i + 1]])


@_kernel
def sum_minor(data, indices, indptr, start, stop, out):
    """out[indices[k]] += data[k] for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        values, columns = row[first : first + 64], index[first : first + 64]
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            out[j] += values[k]
    return -1


@_kernel
def _fold(so_far, value, op):
    """The larger (op 0) or smaller (1) of two, a NaN if one is; or their product (2)."""
    if op == 2:
        return so_far * value
    if op == 0:
        return value if (value > so_far) | (value != value) else so_far
    return value if (value < so_far) | (value != value) else so_far


@_kernel
def fold_major(data, indptr, start, stop, op, out):
    """out[i - start] = op(that, data[k]) for k in row i, i in [start, stop); op: 0 max, 1 min, 2 product"""
    for i in range(start, stop):
        so_far = out[i - start]
        for value in data[indptr[i] : indptr[i + 1]]:
            so_far = _fold(so_far, out.dtype.type(value), op)
        out[i - start] = so_far


@_kernel
def fold_minor(data, indices, indptr, start, stop, op, out):
    """out[indices[k]] = op(that, data[k]), op as in fold_major; k as in sum_minor, returns as there"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    for k in range(row.shape[0]):
        j = np.uint64(index[k])
        if j >= n_minor:
            return lo + k
        out[j] = _fold(out[j], out.dtype.type(row[k]), op)
    return -1


@_kernel
def count_major(data, indptr, start, stop, out):
    """out[i - start] = count(data[indptr[i]:indptr[i+1]] != 0) for i in [start, stop)"""
    for i in range(start, stop):
        total = 0
        for value in data[indptr[i] : indptr[i + 1]]:
            total += value != 0
        out[i - start] = total


@_kernel
def count_minor(data, indices, indptr, start, stop, out):
    """out[indices[k]] += data[k] != 0 for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    for k in range(row.shape[0]):
        j = np.uint64(index[k])
        if j >= n_minor:
            return lo + k
        out[j] += row[k] != 0
    return -1


@_kernel
def moments_major(data, indptr, start, stop, out):
    """out[i - start] = (n, sum(v - shift), sum((v - shift)**2), shift), v = row i of data, shift near mean(v)"""
    for i in range(start, stop):
        row = data[indptr[i] : indptr[i + 1]]
        n = row.shape[0]
        shift = s1 = s2 = 0.0
        if n > 0:
            # Around the first value: integers give exact sums, and equal values zeros.
            shift = np.float64(row[0])
            s1, s2 = lane_moments(row, shift)
            mean = shift + s1 / n
            # More than 2 standard deviations from the mean, or so far that integers are not exact.
            if not (s1 * (s1 / n) <= 0.8 * s2 and s2 < 2.0**53):
                # An integer shift keeps sums of integers exact. It is near enough unless the spread is far below 1.
                shift = np.rint(mean) if np.isfinite(mean) else 0.0
                s1, s2 = lane_moments(row, shift)
                if np.isfinite(mean) and s2 < 1.5 * n * ((mean - shift) * (mean - shift)):
                    shift = mean
                    s1, s2 = lane_moments(row, shift)
        out[i - start, 0] = n
        out[i - start, 1] = s1
        out[i - start, 2] = s2
        out[i - start, 3] = shift


@_kernel
def moments_minor(data, indices, indptr, start, stop, out):
    """out[j, :3] += (1, d, d**2), d = data[k] - out[j, 3], j = indices[k], k as in sum_minor; returns as there"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        values, columns = row[first : first + 64], index[first : first + 64]
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            d = np.float64(values[k]) - out[j, 3]
            out[j, 0] += 1
            out[j, 1] += d
            out[j, 2] += d * d
    return -1


@_kernel
def expm1_moments_minor(data, indices, indptr, start, stop, scale, out):
    """out[j, :3] += (1, d, d**2), d = exp(scale * data[k]) - 1 - out[j, 3], float64, otherwise as moments_minor"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    unlogged = np.empty(64)  # in a loop without the scattering, they are vectorised
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        values, columns = row[first : first + 64], index[first : first + 64]
        for k in range(columns.shape[0]):
            unlogged[k] = _expm1_f64(np.float64(values[k]) * scale)
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            d = unlogged[k] - out[j, 3]
            out[j, 0] += 1
            out[j, 1] += d
            out[j, 2] += d * d
    return -1


@_kernel
def power_sums_minor(data, indices, indptr, start, stop, out):
    """out[j] += (v, v**2), v = data[k], j = indices[k], k as in sum_minor; returns as there"""
    n_minor = np.uint64(out.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        values, columns = row[first : first + 64], index[first : first + 64]
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            v = np.float64(values[k])
            out[j, 0] += v
            out[j, 1] += v * v
    return -1


@_kernel
def _s2_around(n, s1, s2, d):
    """s2 of moments whose shift moves down by d. Where it stays, d * s1 must not make NaN of an infinite sum."""
    return s2 if d == 0 else s2 + d * (2 * s1 + n * d)


@_kernel
def merge_moments(a, b, out):
    """out[:, i] = (n, sum(v - shift), sum((v - shift)**2), shift), v = values of a[:, i] and of b[:, i]"""
    for i in range(out.shape[1]):
        n = a[0, i] + b[0, i]
        m = n if n > 1 else 1.0
        base = a[3, i] if a[0, i] >= b[0, i] else b[3, i]
        step = (a[1, i] + a[0, i] * (a[3, i] - base) + b[1, i] + b[0, i] * (b[3, i] - base)) / m
        common = base + step if np.isfinite(step) else base
        da = a[3, i] - common
        db = b[3, i] - common
        s1 = (a[1, i] + a[0, i] * da) + (b[1, i] + b[0, i] * db)
        s2 = _s2_around(a[0, i], a[1, i], a[2, i], da) + _s2_around(b[0, i], b[1, i], b[2, i], db)
        distance = s1 / m
        mean = common + distance
        variance = s2 / m - distance * distance
        variance = variance if variance > 0 else 0.0
        nearest = np.rint(mean)
        shift = nearest if (nearest - mean) * (nearest - mean) <= 2 * variance else mean
        shift = shift if np.isfinite(shift) else common
        da = a[3, i] - shift
        db = b[3, i] - shift
        out[0, i] = n
        out[1, i] = (a[1, i] + a[0, i] * da) + (b[1, i] + b[0, i] * db)
        out[2, i] = _s2_around(a[0, i], a[1, i], a[2, i], da) + _s2_around(b[0, i], b[1, i], b[2, i], db)
        out[3, i] = shift


@_kernel
def finish_moments(moments, correction, mean, var):
    """mean[i], var[i] = mean(v), sum((v - mean(v))**2) / (n - correction), v = values of moments[:, i]"""
    for i in range(mean.shape[0]):
        n = moments[0, i]
        s1 = moments[1, i]
        s2 = moments[2, i]
        shift = moments[3, i]
        centre = (s1 + n * shift) / n
        mean[i] = centre
        if np.isfinite(centre):
            nearest = np.rint(centre)
            d = nearest - centre
            if d * d * n <= 2 * _s2_around(n, s1, s2, shift - centre):
                centre = nearest
        else:
            centre = shift
        d = shift - centre
        s2 = _s2_around(n, s1, s2, d)
        s1 = s1 + n * d
        squares = s2 - s1 * (s1 / n)
        squares = 0.0 if squares < 0 else squares
        var[i] = squares / (n - correction) if n - correction > 0 else np.nan


@_kernel
def scale_major(data, indptr, start, stop, factors, divide, out):
    """out[k] = data[k] * factors[i], or / factors[i], for k in [indptr[i], indptr[i+1]), i in [start, stop)"""
    for i in range(start, stop):
        to = out[indptr[i] : indptr[i + 1]]
        _copy(data[indptr[i] : indptr[i + 1]], to)
        factor = factors[i]
        if divide:
            for k in range(to.shape[0]):
                to[k] = to[k] / factor
        else:
            for first in range(0, to.shape[0], 64):
                prefetch(to, first + AHEAD)
                part = to[first : first + 64]
                for k in range(part.shape[0]):
                    part[k] = part[k] * factor


@_kernel
def scale_minor(data, indices, indptr, start, stop, factors, divide, out):
    """out[k] = data[k] * factors[indices[k]], or / ..., k as in sum_minor; -1, or the position of a bad index"""
    n_minor = np.uint64(factors.shape[0])
    lo, hi = indptr[start], indptr[stop]
    row, index, to = data[lo:hi], indices[lo:hi], out[lo:hi]
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        values, columns, its = row[first : first + 64], index[first : first + 64], to[first : first + 64]
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            if divide:
                its[k] = values[k] / factors[j]
            else:
                its[k] = values[k] * factors[j]
    return -1


@_kernel
def log1p(data, start, stop, out):
    """out[k] = log(1 + data[k]) for k in [start, stop)"""
    for first in range(start, stop, 4096):  # what is copied stays in cache
        last = min(first + 4096, stop)
        to = out[first:last]
        _copy(data[first:last], to)
        _log1p_values(to)


@_kernel
def expm1(data, start, stop, out):
    """out[k] = exp(data[k]) - 1 for k in [start, stop)"""
    for first in range(start, stop, 4096):
        last = min(first + 4096, stop)
        to = out[first:last]
        _copy(data[first:last], to)
        for k in range(to.shape[0]):
            to[k] = _expm1_value(to[k])


@_kernel
def match_major(indices, indptr, start, stop, other_indices, other_indptr, out):
    """out[k] = where the same row of the other matrix has indices[k], or -1; both are canonical"""
    for i in range(start, stop):
        m = other_indptr[i]
        end = other_indptr[i + 1]
        for k in range(indptr[i], indptr[i + 1]):
            while m < end and other_indices[m] < indices[k]:
                m += 1
            out[k] = m if m < end and other_indices[m] == indices[k] else -1


@_kernel
def gram_major(data, indices, indptr, start, stop, out):
    """out[indices[k], indices[m]] += data[k] * data[m] for k <= m in rows [start, stop); returns as sum_minor"""
    n_minor = out.shape[0]
    for i in range(start, stop):
        lo, hi = indptr[i], indptr[i + 1]
        row, index = data[lo:hi], indices[lo:hi]
        bad = _first_outside(indices, lo, hi, n_minor)
        if bad >= 0:
            return bad
        for k in range(row.shape[0]):
            v = np.float64(row[k])
            products = out[np.uint64(index[k])]
            for m in range(k, row.shape[0]):
                products[np.uint64(index[m])] += v * np.float64(row[m])
    return -1


@_kernel
def gram_panels(
    data, indices, indptr, start, stop, place, n_full, shift, ends, rows, values, panels, sums, out
):  # fmt: skip
    """sums[q, place[j]] += column j . panel q; out as gram_major for columns of no panel; returns as sum_minor"""
    n_minor = place.shape[0]
    n_panels, height = panels.shape[0], panels.shape[1]
    width = np.uint64(256 // values.itemsize)
    n_dense = n_panels * np.int64(width)
    for first in range(start, stop, height):
        n_rows = min(height, stop - first)
        lo, hi = indptr[first], indptr[first + n_rows]
        bad = _first_outside(indices, lo, hi, n_minor)
        if bad >= 0:
            return bad
        # How many entries each column has here; and the columns of no panel, as in gram_major.
        ends[: n_minor + 1] = 0
        entry, index = data[lo:hi], indices[lo:hi]
        for i in range(first, first + n_rows):
            n = np.uint64(0)
            for k in range(indptr[i] - lo, indptr[i + 1] - lo):
                p = place[np.uint64(index[k])]
                ends[np.uint64(p) + np.uint64(1)] += 1
                rows[n] = k
                n += np.uint64(p >= n_dense)
            few = rows[:n]
            for k in range(few.shape[0]):
                at = np.uint64(few[k])
                v = np.float64(entry[at])
                products = out[np.uint64(index[at])]
                for m in range(k, few.shape[0]):
                    at = np.uint64(few[m])
                    products[np.uint64(index[at])] += v * np.float64(entry[at])
        # The rows in panels; in full columns what is not stored is a zero, and all are shifted.
        panels[:, :n_rows] = 0
        for p in range(n_full):
            panels[np.uint64(p) // width, :n_rows, np.uint64(p) % width] = -shift[p]
        # Entries in the order of the columns, after room for the full ones.
        ends[0] = n_full * n_rows
        for p in range(n_minor):
            ends[p + 1] += ends[p]
        for i in range(n_rows):
            for k in range(indptr[first + i] - lo, indptr[first + i + 1] - lo):
                p = np.uint64(place[np.uint64(index[k])])
                at = np.uint64(ends[p])
                ends[p] += 1
                rows[at] = i
                values[at] = entry[k]
                if p < np.uint64(n_dense):
                    panels[p // width, np.uint64(i), p % width] = np.float64(entry[k]) - shift[p]
        for p in range(n_full):
            for k in range(n_rows):
                rows[p * n_rows + k] = k
                values[p * n_rows + k] = panels[np.uint64(p) // width, k, np.uint64(p) % width]
        for q in range(n_panels):
            for p in range(q * np.int64(width), n_minor):
                at = p * n_rows if p < n_full else ends[p - 1] if p else 0
                end = at + n_rows if p < n_full else ends[p]
                if end > at:
                    panel_sums(rows[at:end], values[at:end], panels[q], sums[q, p])
    return -1


@_kernel
def dot_panels(data, indices, indptr, start, stop, panels, out):
    """out[q, i - start] = row i . panel q, which has 32 columns, for rows [start, stop); returns as sum_minor"""
    bad = _first_outside(indices, indptr[start], indptr[stop], panels.shape[1])
    if bad >= 0:
        return bad
    for q in range(panels.shape[0]):  # one after the other: a panel stays in the second-level cache
        for i in range(start, stop):
            lo, hi = indptr[i], indptr[i + 1]
            sums = out[q, i - start]
            sums[:] = 0
            panel_sums(indices[lo:hi], data[lo:hi], panels[q], sums)
    return -1


@_kernel
def normalize_major(data, indptr, start, stop, target, log, totals, out):
    """t = totals[i - start] = sum(row i); out = row * (target / t), or log(1 + that); a row with t = 0 stays"""
    for i in range(start, stop):
        row, to = data[indptr[i] : indptr[i + 1]], out[indptr[i] : indptr[i + 1]]
        total = lane_sum(row)
        totals[i - start] = total
        factor = target / total if total != 0 else 1.0
        _copy(row, to)
        for first in range(0, to.shape[0], 64):
            prefetch(row, row.shape[0] + first)  # the next row, whose sum would wait for memory
            part = to[first : first + 64]
            for k in range(part.shape[0]):
                part[k] = part[k] * factor
        if log:
            _log1p_values(to)


@_kernel
def find_minor(indices, indptr, start, stop, keep, found, out):
    """bit k - indptr[start] of found = keep[indices[k]]; out[i - start]: how many before row i; as sum_minor"""
    n_minor = np.uint64(keep.shape[0])
    lo, hi = indptr[start], indptr[stop]
    index = indices[lo:hi]
    for first in range(0, index.shape[0], 64):
        prefetch(index, first + AHEAD)
        columns = index[first : first + 64]
        bits = np.uint64(0)
        for k in range(columns.shape[0]):
            j = np.uint64(columns[k])
            if j >= n_minor:
                return lo + first + k
            bits |= np.uint64(keep[j]) << np.uint64(k)
        found[first >> 6] = bits
    word = total = 0
    out[0] = 0
    for i in range(start, stop):
        n = indptr[i + 1] - lo
        while word < n >> 6:
            total += count_bits(found[word])
            word += 1
        # of the word that goes on in the next row
        out[i - start + 1] = total + (count_bits(found[word] << np.uint64(64 - (n & 63))) if n & 63 else 0)
    return -1


@_kernel
def take_minor(data, indices, indptr, start, stop, found, place, out_data, out_indices):
    """out = data[k] at place[indices[k]], for the entries k of rows [start, stop) that find_minor has found"""
    lo, hi = indptr[start], indptr[stop]
    row, index = data[lo:hi], indices[lo:hi]
    m = np.uint64(0)
    for first in range(0, row.shape[0], 64):
        prefetch(row, first + AHEAD)
        prefetch(index, first + AHEAD)
        bits = found[first >> 6]
        while bits:  # one by one: no branch depends on a single entry
            k = np.uint64(first) + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            out_data[m] = row[k]
            out_indices[m] = place[np.uint64(index[k])]
            m += np.uint64(1)


@_kernel
def take_major(data, indices, indptr, start, stop, keep, n_minor, out_data, out_indices):
    """the rows i in [start, stop) with keep[i], one after the other, in out_data and out_indices; as sum_minor"""
    m = 0
    for i in range(start, stop):
        if keep[i]:
            bad = check_indices(indices, indptr, i, i + 1, n_minor)
            if bad >= 0:
                return bad
            lo, hi = indptr[i], indptr[i + 1]
            _copy(data[lo:hi], out_data[m : m + hi - lo])
            _copy(indices[lo:hi], out_indices[m : m + hi - lo])
            m += hi - lo
    return -1


@_kernel
def _to_front(row, pivot, equal):
    """Swap the values above the pivot, or those equal to it, to the front of row; how many there are."""
    n = np.uint64(0)
    for k in range(row.shape[0]):
        v = row[k]
        row[k] = row[n]
        row[n] = v
        n += np.uint64((v == pivot) if equal else (v > pivot))
    return np.int64(n)


@_kernel
def _move_largest(row, n):
    """See move_largest in ../kernels_cy/_kernels.pxi."""
    while 0 < n < row.shape[0]:
        size = row.shape[0]
        p = row[size >> 2]
        q = row[size >> 1]
        r = row[size - 1 - (size >> 2)]
        low = q if q < p else p
        high = p if q < p else q
        pivot = low if r < low else high if high < r else r
        above = _to_front(row, pivot, False)
        if n <= above:
            row = row[:above]
            continue
        equal = _to_front(row[above:], pivot, True)
        if n <= above + equal or equal == 0:
            break
        row = row[above + equal :]
        n -= above + equal


@_kernel
def top_major(data, indptr, start, stop, ns, scratch, out):
    """out[i - start, q] = sum of the ns[q] largest of row i, or of all it has; ns increases; scratch holds a row"""
    for i in range(start, stop):
        row = data[indptr[i] : indptr[i + 1]]
        n = end = row.shape[0]
        top = scratch[:n]
        for k in range(n):
            top[k] = row[k]
        for q in range(ns.shape[0] - 1, -1, -1):
            if ns[q] < end:
                _move_largest(top[:end], ns[q])
                end = ns[q]
        total = out.dtype.type(0)
        k = 0
        for q in range(ns.shape[0]):
            end = min(n, ns[q])
            total += _sum(top[k:end])
            out[i - start, q] = total
            k = end
