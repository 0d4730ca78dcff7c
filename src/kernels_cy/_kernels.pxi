# The loops, once for every CPU level: _kernels_v2.pyx, _kernels_v3.pyx, ... include this file and are compiled with
# their own -march. The Numba twins are in ../kernels_nb/_kernels.py: same names, parameters, formulas and bits.
# The contract, kernel by kernel, is the Protocol in ../dispatch/_engines.py.

from libc.math cimport INFINITY, NAN, isfinite, rint
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint32_t csraxis_bits_f32(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
    static inline uint64_t csraxis_bits_f64(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
    static inline float csraxis_from_bits_f32(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
    static inline double csraxis_from_bits_f64(uint64_t b) { double x; memcpy(&x, &b, 8); return x; }
    #if defined(__GNUC__)
    #define csraxis_prefetch_line(address) __builtin_prefetch(address)
    #define csraxis_lowest_bit(bits) __builtin_ctzll(bits)
    #define csraxis_count_bits(bits) __builtin_popcountll(bits)
    #else
    #define csraxis_prefetch_line(address) ((void)(address))
    static inline int csraxis_lowest_bit(uint64_t bits) { int n = 0; while (!(bits >> n & 1)) n++; return n; }
    static inline int csraxis_count_bits(uint64_t bits) { int n = 0; for (; bits; bits &= bits - 1) n++; return n; }
    #endif
    /* One load and one store for a record: adding -0.0 leaves the last number as it is. */
    #if defined(__GNUC__)
    typedef double csraxis_record __attribute__((vector_size(32), aligned(8), may_alias));
    static inline void csraxis_add_to_record(double* record, double d)
    { *(csraxis_record*)record += (csraxis_record){1, d, d * d, -0.0}; }
    typedef double csraxis_pair __attribute__((vector_size(16), aligned(8), may_alias));
    static inline void csraxis_add_to_pair(double* pair, double v)
    { *(csraxis_pair*)pair += (csraxis_pair){v, v * v}; }
    #else
    static inline void csraxis_add_to_pair(double* pair, double v)
    { pair[0] += v; pair[1] += v * v; }
    static inline void csraxis_add_to_record(double* record, double d)
    { record[0] += 1; record[1] += d; record[2] += d * d; }
    #endif
    """
    uint32_t csraxis_bits_f32(float x) nogil
    uint64_t csraxis_bits_f64(double x) nogil
    float csraxis_from_bits_f32(uint32_t b) nogil
    double csraxis_from_bits_f64(uint64_t b) nogil
    void csraxis_prefetch_line(const void* address) nogil
    int csraxis_lowest_bit(uint64_t bits) nogil
    int csraxis_count_bits(uint64_t bits) nogil
    void csraxis_add_to_record(double* record, double d) nogil
    void csraxis_add_to_pair(double* pair, double v) nogil

ctypedef fused float_t:
    float
    double

ctypedef fused value_t:
    float
    double
    int32_t
    int64_t
    uint8_t
    uint16_t

ctypedef fused index_t:
    int32_t
    int64_t

ctypedef fused acc_t:
    double
    int64_t


cdef inline void prefetch(const void* start, Py_ssize_t n_bytes) noexcept nogil:
    """Ask for memory that will be read soon: a hint, which may point beyond the end of an array."""
    cdef Py_ssize_t k
    for k in range(0, n_bytes, 64):
        csraxis_prefetch_line(<const char*>start + k)


# How many entries ahead the kernels ask for memory. Those that jump to columns keep the processor from doing so by
# itself; and where it does, on a server with many cores and slow memory, it does not look far enough ahead.
cdef enum:
    AHEAD = 1024


cdef inline double lane_sum(const float_t* row, Py_ssize_t n, bint fetch) noexcept nogil:
    """Sum of row[:n] in 16 lanes, combined by halving; with `fetch`, what follows is asked for."""
    cdef double a[16]
    cdef Py_ssize_t k, j
    for j in range(16):
        a[j] = 0
    for k in range(0, n - 15, 16):
        if fetch:
            csraxis_prefetch_line(row + k + AHEAD)
        for j in range(16):
            a[j] += <double>row[k + j]
    for k in range(n & ~<Py_ssize_t>15, n):
        a[k & 15] += <double>row[k]
    for j in range(8):
        a[j] += a[j + 8]
    for j in range(4):
        a[j] += a[j + 4]
    return (a[0] + a[2]) + (a[1] + a[3])


cdef void lane_moments(const value_t* row, Py_ssize_t n, double shift, double* s1, double* s2) noexcept nogil:
    """s1, s2 = sum(row[:n] - shift), sum((row[:n] - shift) ** 2) in 16 lanes, combined by halving."""
    cdef double a[16]
    cdef double b[16]
    cdef double d
    cdef Py_ssize_t k, j
    for j in range(16):
        a[j] = 0
        b[j] = 0
    for k in range(0, n - 15, 16):
        csraxis_prefetch_line(row + k + AHEAD)
        for j in range(16):
            d = <double>row[k + j] - shift
            a[j] += d
            b[j] += d * d
    for k in range(n & ~<Py_ssize_t>15, n):
        d = <double>row[k] - shift
        a[k & 15] += d
        b[k & 15] += d * d
    for j in range(8):
        a[j] += a[j + 8]
        b[j] += b[j + 8]
    for j in range(4):
        a[j] += a[j + 4]
        b[j] += b[j + 4]
    s1[0] = (a[0] + a[2]) + (a[1] + a[3])
    s2[0] = (b[0] + b[2]) + (b[1] + b[3])


# log(1 + x) = k ln 2 + log(1 + f): the exponent k is taken from the rounded u = 1 + x, but f = x 2^-k + (2^-k - 1) has
# one rounding only, so u's own rounding needs no correction. Then s = f / (2 + f) and
# log(1 + f) = 2 atanh(s) = f - (f^2/2 - s (f^2/2 + z R(z))) with z = s^2. R is fitted at Chebyshev nodes for f within
# [sqrt(1/2) - 1, sqrt(2) - 1]. Both x 2^-k and 2^-k are had by subtracting k from an exponent; the second is 0 where
# that has none left. In float32, k stays shifted by the 23 bits of the fraction, for which its factors make up; in
# float64, where AVX2 cannot convert integers, the magic number 2^52 makes a double of it. Error: at most 1.4 ulp.
# Values that are `ordinary`, from 0 to below 2^127 (2^1023), need none of the selections; the others need them one by
# one, because only then do gcc and LLVM vectorise them.

cdef inline float_t log1p_value(float_t x, bint ordinary) noexcept nogil:
    cdef uint32_t k32
    cdef uint64_t e64
    cdef float_t k, down, f, s, z, r, h, y
    if float_t is float:
        k32 = (csraxis_bits_f32(<float>1 + x) + <uint32_t>0xC0CAFB0D) & <uint32_t>0xFF800000
        k = <float><int32_t>k32
        down = csraxis_from_bits_f32(<uint32_t>0x3F800000 - k32)
        if not ordinary:
            down = down if <int32_t>k32 <= <int32_t>0x3F800000 else <float>0
        f = csraxis_from_bits_f32(csraxis_bits_f32(x) - k32) + (down - <float>1)
        s = f / (<float>2 + f)
        z = s * s
        r = z * (<float>0.6666668653488159 + z * (<float>0.39988768100738525 + z * <float>0.2958046793937683))
        h = <float>0.5 * f * f
        y = (k * <float>(0.693145751953125 / (1 << 23))
             - ((h - (s * (h + r) + k * <float>(1.428606765330187e-06 / (1 << 23)))) - f))
    else:
        e64 = (csraxis_bits_f64(1 + x) + <uint64_t>0x95F619980C433) >> 52
        k = csraxis_from_bits_f64(e64 | <uint64_t>0x4330000000000000) - 4503599627371519.0
        e64 = (e64 - <uint64_t>1023) << 52
        down = csraxis_from_bits_f64(<uint64_t>0x3FF0000000000000 - e64)
        if not ordinary:
            down = down if <int64_t>e64 <= <int64_t>0x3FF0000000000000 else 0
        f = csraxis_from_bits_f64(csraxis_bits_f64(x) - e64) + (down - 1)
        s = f / (2 + f)
        z = s * s
        r = z * (0.2857142862611452 + z * (0.22222211112104948 + z * (0.1818289077802613
                 + z * (0.15331666676597175 + z * 0.146171283998073))))
        r = z * (0.666666666666667 + z * (0.399999999998992 + r))
        h = 0.5 * f * f
        y = k * 0.6931471805582987 - ((h - (s * (h + r) + k * 1.6465949582897082e-12)) - f)
    if ordinary:
        return y
    y = y if x > <float_t>-1 else <float_t>NAN
    y = <float_t>-INFINITY if x == <float_t>-1 else y
    y = x if x == <float_t>0 else y
    return x if x == <float_t>INFINITY else y


cdef inline void log1p_values(const float_t* x, Py_ssize_t n, float_t* to) noexcept nogil:
    """to[:n] = log(1 + x[:n])"""
    cdef Py_ssize_t k
    cdef uint32_t top32 = 0
    cdef uint64_t top64 = 0
    cdef bint ordinary
    if float_t is float:
        for k in range(n):  # of a negative number and of NaN the bits are larger still
            top32 = max(top32, csraxis_bits_f32(x[k]))
        ordinary = top32 < <uint32_t>0x7F000000
    else:
        for k in range(n):
            top64 = max(top64, csraxis_bits_f64(x[k]))
        ordinary = top64 < <uint64_t>0x7FE0000000000000
    if ordinary:
        for k in range(n):
            to[k] = log1p_value(x[k], True)
    else:
        for k in range(n):
            to[k] = log1p_value(x[k], False)


# exp(x) - 1 = 2^k (p + 1) - 1, where x = k ln 2 + r with |r| <= ln(2) / 2 and p = exp(r) - 1, by its Taylor series (the
# terms left out are below a tenth of a unit in the last place of p). Half of 2^k is used, because the largest k is one
# above the largest exponent. Adding 1.5 * 2^52 (2^23) rounds to the integer k, which is then in the low bits. At most
# 2 ulp.

cdef inline float_t expm1_value(float_t value) noexcept nogil:
    cdef float_t x, t, k, r, p, half, y
    if float_t is float:
        x = value if value > <float>-20 else <float>-20
        x = x if x < <float>89 else <float>89
        t = x * <float>1.4426950408889634 + <float>12582912
        k = t - <float>12582912
        half = csraxis_from_bits_f32((csraxis_bits_f32(t) + <uint32_t>126) << 23)
        r = (x - k * <float>0.693145751953125) - k * <float>1.428606765330187e-06
        p = r * (<float>(1 / 24.0) + r * (<float>(1 / 120.0) + r * (<float>(1 / 720.0) + r * <float>(1 / 5040.0))))
        p = r + r * r * (<float>0.5 + r * (<float>(1 / 6.0) + p))
        y = half * p + (half - <float>0.5)
    else:
        x = value if value > -60 else -60
        x = x if x < 710 else 710
        t = x * 1.4426950408889634 + 6755399441055744.0
        k = t - 6755399441055744.0
        half = csraxis_from_bits_f64((csraxis_bits_f64(t) + <uint64_t>1022) << 52)
        r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
        p = r * (1 / 720.0 + r * (1 / 5040.0 + r * (1 / 40320.0 + r * (1 / 362880.0 + r * (1 / 3628800.0
                 + r * (1 / 39916800.0 + r * (1 / 479001600.0 + r * (1 / 6227020800.0))))))))
        p = r + r * r * (0.5 + r * (1 / 6.0 + r * (1 / 24.0 + r * (1 / 120.0 + p))))
        y = half * p + (half - 0.5)
    y = y + y
    y = value if <float_t>-1e-18 < value < <float_t>1e-18 else y
    return y if value == value else value


cdef inline bint any_outside(const index_t* indices, Py_ssize_t n, Py_ssize_t n_minor) noexcept nogil:
    """Whether one of indices[:n] is not in [0, n_minor)."""
    cdef Py_ssize_t k
    cdef bint outside = False
    for k in range(n):
        if index_t is int32_t:
            # n_minor may exceed the range of int32: every non-negative index is then inside.
            outside |= (<uint32_t>indices[k] >= <uint64_t>n_minor) | (indices[k] < 0)
        else:
            outside |= <uint64_t>indices[k] >= <uint64_t>n_minor
    return outside


cdef inline Py_ssize_t first_outside(const index_t* indices, Py_ssize_t start, Py_ssize_t stop,
                                     Py_ssize_t n_minor) noexcept nogil:
    """Position of the first of indices[start:stop] that is not in [0, n_minor), or -1."""
    cdef Py_ssize_t k
    for k in range(start, stop):
        if not 0 <= indices[k] < n_minor:
            return k
    return -1


def check_indices(const index_t[::1] indices not None, const int64_t[::1] indptr not None,
                  Py_ssize_t start, Py_ssize_t stop, Py_ssize_t n_minor):
    """Position of the first of indices[indptr[start]:indptr[stop]] that is not in [0, n_minor), or -1"""
    cdef Py_ssize_t k, hi = indptr[stop], bad = -1
    with nogil:
        for k in range(indptr[start], hi, 256):
            prefetch(&indices[0] + k + AHEAD, 256 * sizeof(index_t))
            if any_outside(&indices[0] + k, min(256, hi - k), n_minor):
                bad = first_outside(&indices[0], k, hi, n_minor)
                break
    return bad


def is_canonical(const index_t[::1] indices not None, const int64_t[::1] indptr not None,
                 Py_ssize_t start, Py_ssize_t stop):
    """Whether indices[indptr[i]:indptr[i+1]] strictly increase for each i in [start, stop)"""
    cdef Py_ssize_t i, j, k, n
    cdef const index_t* row
    cdef int falls = 0
    with nogil:
        for i in range(start, stop):
            row = &indices[0] + indptr[i]
            n = indptr[i + 1] - indptr[i] - 1
            for k in range(0, n - 63, 64):
                prefetch(row + k + AHEAD, 64 * sizeof(index_t))
                for j in range(64):
                    falls |= row[k + j] >= row[k + j + 1]
            for k in range(max(n, 0) & ~<Py_ssize_t>63, n):
                falls |= row[k] >= row[k + 1]
            if falls:
                break
    return not falls


def sum_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
              Py_ssize_t start, Py_ssize_t stop, acc_t[::1] out not None):
    """out[i - start] = sum(data[indptr[i]:indptr[i+1]]) for i in [start, stop)"""
    cdef Py_ssize_t i, k
    cdef int64_t total
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("sum_major: floats are summed into float64")
        else:
            with nogil:
                for i in range(start, stop):
                    out[i - start] = lane_sum(&data[0] + indptr[i], indptr[i + 1] - indptr[i], True)
    else:
        if acc_t is double:
            raise TypeError("sum_major: integers are summed into int64")
        else:
            with nogil:
                for i in range(start, stop):
                    total = 0
                    for k in range(indptr[i], indptr[i + 1]):
                        total += <int64_t>data[k]
                    out[i - start] = total


def sum_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
              const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, acc_t[::1] out not None):
    """out[indices[k]] += data[k] for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef acc_t* sums = &out[0]
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("sum_minor: floats are summed into float64")
    else:
        if acc_t is double:
            raise TypeError("sum_minor: integers are summed into int64")
    if (value_t in float_t and acc_t is double) or (value_t not in float_t and acc_t is int64_t):
        with nogil:
            for k in range(indptr[start], hi, 64):
                n = min(64, hi - k)
                index = &indices[0] + k
                value = &data[0] + k
                prefetch(index + AHEAD, 64 * sizeof(index_t))
                prefetch(value + AHEAD, 64 * sizeof(value_t))
                if any_outside(index, n, n_minor):
                    break
                if n == 64:  # a constant trip count is unrolled
                    for j in range(64):
                        sums[index[j]] += <acc_t>value[j]
                else:
                    for j in range(n):
                        sums[index[j]] += <acc_t>value[j]
            else:
                k = hi
        return first_outside(&indices[0], k, hi, n_minor)


cdef inline acc_t fold_value(acc_t so_far, acc_t value, int op) noexcept nogil:
    """The larger (op 0) or smaller (1) of two, a NaN if one is; or their product (2)."""
    if op == 2:
        if acc_t is int64_t:
            return <int64_t>(<uint64_t>so_far * <uint64_t>value)
        return so_far * value
    if op == 0:
        return value if (value > so_far) | (value != value) else so_far
    return value if (value < so_far) | (value != value) else so_far


def fold_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
               Py_ssize_t start, Py_ssize_t stop, int op, acc_t[::1] out not None):
    """out[i - start] = op(that, data[k]) for k in row i, i in [start, stop); op: 0 max, 1 min, 2 product"""
    cdef Py_ssize_t i, k
    cdef acc_t so_far
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("fold_major: floats are folded into float64")
    else:
        if acc_t is double:
            raise TypeError("fold_major: integers are folded into int64")
    if (value_t in float_t and acc_t is double) or (value_t not in float_t and acc_t is int64_t):
        with nogil:
            for i in range(start, stop):
                so_far = out[i - start]
                for k in range(indptr[i], indptr[i + 1]):
                    so_far = fold_value(so_far, <acc_t>data[k], op)
                out[i - start] = so_far


def fold_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
               const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, int op, acc_t[::1] out not None):
    """out[indices[k]] = op(that, data[k]), op as in fold_major; k as in sum_minor, returns as there"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef acc_t* folded = &out[0]
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("fold_minor: floats are folded into float64")
    else:
        if acc_t is double:
            raise TypeError("fold_minor: integers are folded into int64")
    if (value_t in float_t and acc_t is double) or (value_t not in float_t and acc_t is int64_t):
        with nogil:
            for k in range(indptr[start], hi, 64):
                n = min(64, hi - k)
                index = &indices[0] + k
                value = &data[0] + k
                if any_outside(index, n, n_minor):
                    break
                for j in range(n):
                    folded[index[j]] = fold_value(folded[index[j]], <acc_t>value[j], op)
            else:
                k = hi
        return first_outside(&indices[0], k, hi, n_minor)


def count_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
                Py_ssize_t start, Py_ssize_t stop, int64_t[::1] out not None):
    """out[i - start] = count(data[indptr[i]:indptr[i+1]] != 0) for i in [start, stop)"""
    cdef Py_ssize_t i, k
    cdef int64_t total
    with nogil:
        for i in range(start, stop):
            total = 0
            for k in range(indptr[i], indptr[i + 1]):
                total += data[k] != 0
            out[i - start] = total


def count_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
                const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, int64_t[::1] out not None):
    """out[indices[k]] += data[k] != 0 for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef int64_t* counts = &out[0]
    with nogil:
        for k in range(indptr[start], hi, 64):
            n = min(64, hi - k)
            index = &indices[0] + k
            value = &data[0] + k
            if any_outside(index, n, n_minor):
                break
            for j in range(n):
                counts[index[j]] += value[j] != 0
        else:
            k = hi
    return first_outside(&indices[0], k, hi, n_minor)


def moments_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
                  Py_ssize_t start, Py_ssize_t stop, double[:, ::1] out not None):
    """out[i - start] = (n, sum(v - shift), sum((v - shift)**2), shift), v = row i of data, shift near mean(v)"""
    cdef Py_ssize_t i, n
    cdef double mean, shift, s1, s2
    cdef const value_t* row
    with nogil:
        for i in range(start, stop):
            n = indptr[i + 1] - indptr[i]
            row = &data[0] + indptr[i]
            shift = s1 = s2 = 0
            if n > 0:
                # Around the first value: integers give exact sums, and equal values zeros.
                shift = <double>row[0]
                lane_moments(row, n, shift, &s1, &s2)
                mean = shift + s1 / n
                # More than 2 standard deviations from the mean, or so far that integers are not exact.
                if not (s1 * (s1 / n) <= 0.8 * s2 and s2 < 9007199254740992.0):
                    # An integer shift keeps sums of integers exact. It is near enough unless the spread is far below 1.
                    shift = rint(mean) if isfinite(mean) else 0
                    lane_moments(row, n, shift, &s1, &s2)
                    if isfinite(mean) and s2 < 1.5 * n * ((mean - shift) * (mean - shift)):
                        shift = mean
                        lane_moments(row, n, shift, &s1, &s2)
            out[i - start, 0] = n
            out[i - start, 1] = s1
            out[i - start, 2] = s2
            out[i - start, 3] = shift


def moments_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
                  const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
                  double[:, ::1] out not None):
    """out[j, :3] += (1, d, d**2), d = data[k] - out[j, 3], j = indices[k], k as in sum_minor; returns as there"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef double* records = &out[0, 0]
    cdef double* record
    with nogil:
        for k in range(indptr[start], hi, 64):
            n = min(64, hi - k)
            index = &indices[0] + k
            value = &data[0] + k
            prefetch(index + AHEAD, 64 * sizeof(index_t))
            prefetch(value + AHEAD, 64 * sizeof(value_t))
            if any_outside(index, n, n_minor):
                break
            for j in range(n):
                record = records + 4 * <Py_ssize_t>index[j]
                csraxis_add_to_record(record, <double>value[j] - record[3])
        else:
            k = hi
    return first_outside(&indices[0], k, hi, n_minor)


def expm1_moments_minor(const float_t[::1] data not None, const index_t[::1] indices not None,
                        const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, double scale,
                        double[:, ::1] out not None):
    """out[j, :3] += (1, d, d**2), d = exp(scale * data[k]) - 1 - out[j, 3], float64, otherwise as moments_minor"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const float_t* value
    cdef double* records = &out[0, 0]
    cdef double* record
    cdef double unlogged[64]  # in a loop without the scattering, they are vectorised
    with nogil:
        for k in range(indptr[start], hi, 64):
            n = min(64, hi - k)
            index = &indices[0] + k
            value = &data[0] + k
            prefetch(index + AHEAD, 64 * sizeof(index_t))
            prefetch(value + AHEAD, 64 * sizeof(float_t))
            if any_outside(index, n, n_minor):
                break
            for j in range(n):
                unlogged[j] = expm1_value(<double>value[j] * scale)
            for j in range(n):
                record = records + 4 * <Py_ssize_t>index[j]
                csraxis_add_to_record(record, unlogged[j] - record[3])
        else:
            k = hi
    return first_outside(&indices[0], k, hi, n_minor)


def power_sums_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
                     const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
                     double[:, ::1] out not None):
    """out[j] += (v, v**2), v = data[k], j = indices[k], k as in sum_minor; returns as there"""
    cdef Py_ssize_t n_minor = out.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef double* pairs = &out[0, 0]
    with nogil:
        for k in range(indptr[start], hi, 64):
            n = min(64, hi - k)
            index = &indices[0] + k
            value = &data[0] + k
            prefetch(index + AHEAD, 64 * sizeof(index_t))
            prefetch(value + AHEAD, 64 * sizeof(value_t))
            if any_outside(index, n, n_minor):
                break
            if n == 64:  # a constant trip count is unrolled
                for j in range(64):
                    csraxis_add_to_pair(pairs + 2 * <Py_ssize_t>index[j], <double>value[j])
            else:
                for j in range(n):
                    csraxis_add_to_pair(pairs + 2 * <Py_ssize_t>index[j], <double>value[j])
        else:
            k = hi
    return first_outside(&indices[0], k, hi, n_minor)


cdef inline double s2_around(double n, double s1, double s2, double d) noexcept nogil:
    """s2 of moments whose shift moves down by d. Where it stays, d * s1 must not make NaN of an infinite sum."""
    return s2 if d == 0 else s2 + d * (2 * s1 + n * d)


# Around the mean of the larger set first: from there the common mean is a small step. The shift is then the integer
# next to that mean, which keeps sums of integers exact, or the mean itself where the integer is too far away. It is
# near enough if its distance d to the mean has d**2 <= 2 var: that at most triples the sum of squares. For integer
# values it always is, since var >= d (1 - d) >= d**2.

def merge_moments(const double[:, ::1] a not None, const double[:, ::1] b not None, double[:, ::1] out not None):
    """out[:, i] = (n, sum(v - shift), sum((v - shift)**2), shift), v = values of a[:, i] and of b[:, i]"""
    cdef Py_ssize_t i
    cdef double n, m, s1, s2, base, step, common, distance, mean, variance, nearest, shift, da, db
    with nogil:
        for i in range(out.shape[1]):
            n = a[0, i] + b[0, i]
            m = n if n > 1 else 1
            base = a[3, i] if a[0, i] >= b[0, i] else b[3, i]
            step = (a[1, i] + a[0, i] * (a[3, i] - base) + b[1, i] + b[0, i] * (b[3, i] - base)) / m
            common = base + step if isfinite(step) else base
            da = a[3, i] - common
            db = b[3, i] - common
            s1 = (a[1, i] + a[0, i] * da) + (b[1, i] + b[0, i] * db)
            s2 = s2_around(a[0, i], a[1, i], a[2, i], da) + s2_around(b[0, i], b[1, i], b[2, i], db)
            distance = s1 / m
            mean = common + distance
            variance = s2 / m - distance * distance
            variance = variance if variance > 0 else 0
            nearest = rint(mean)
            shift = nearest if (nearest - mean) * (nearest - mean) <= 2 * variance else mean
            shift = shift if isfinite(shift) else common
            da = a[3, i] - shift
            db = b[3, i] - shift
            out[0, i] = n
            out[1, i] = (a[1, i] + a[0, i] * da) + (b[1, i] + b[0, i] * db)
            out[2, i] = s2_around(a[0, i], a[1, i], a[2, i], da) + s2_around(b[0, i], b[1, i], b[2, i], db)
            out[3, i] = shift


# Around the mean, or the integer next to it where that is near enough: from there the correction for the mean is small,
# and on integers exact.

def finish_moments(const double[:, ::1] moments not None, double correction, double[::1] mean not None,
                   double[::1] var not None):
    """mean[i], var[i] = mean(v), sum((v - mean(v))**2) / (n - correction), v = values of moments[:, i]"""
    cdef Py_ssize_t i
    cdef double n, s1, s2, shift, centre, nearest, d, squares
    with nogil:
        for i in range(mean.shape[0]):
            n = moments[0, i]
            s1 = moments[1, i]
            s2 = moments[2, i]
            shift = moments[3, i]
            centre = (s1 + n * shift) / n
            mean[i] = centre
            if isfinite(centre):
                nearest = rint(centre)
                d = nearest - centre
                if d * d * n <= 2 * s2_around(n, s1, s2, shift - centre):
                    centre = nearest
            else:
                centre = shift
            d = shift - centre
            s2 = s2_around(n, s1, s2, d)
            s1 = s1 + n * d
            squares = s2 - s1 * (s1 / n)
            squares = 0 if squares < 0 else squares
            var[i] = squares / (n - correction) if n - correction > 0 else <double>NAN


def scale_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
                Py_ssize_t start, Py_ssize_t stop, const acc_t[::1] factors not None, bint divide,
                value_t[::1] out not None):
    """out[k] = data[k] * factors[i], or / factors[i], for k in [indptr[i], indptr[i+1]), i in [start, stop)"""
    cdef Py_ssize_t i, j, k, n
    cdef acc_t factor
    cdef const value_t* row
    cdef value_t* to
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("scale_major: floats are scaled by float64")
        else:
            with nogil:
                for i in range(start, stop):
                    n = indptr[i + 1] - indptr[i]
                    row = &data[0] + indptr[i]
                    to = &out[0] + indptr[i]
                    factor = factors[i]
                    if divide:
                        for k in range(n):
                            to[k] = <value_t>(<double>row[k] / factor)
                    else:
                        for k in range(0, n, 64):
                            prefetch(row + k + AHEAD, 64 * sizeof(value_t))
                            for j in range(k, min(k + 64, n)):
                                to[j] = <value_t>(<double>row[j] * factor)
    else:
        if acc_t is double:
            raise TypeError("scale_major: integers are scaled by int64")
        else:
            with nogil:
                for i in range(start, stop):
                    n = indptr[i + 1] - indptr[i]
                    row = &data[0] + indptr[i]
                    to = &out[0] + indptr[i]
                    factor = factors[i]
                    for k in range(n):
                        to[k] = <value_t>(<uint64_t>row[k] * <uint64_t>factor)


def scale_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
                const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
                const acc_t[::1] factors not None, bint divide, value_t[::1] out not None):
    """out[k] = data[k] * factors[indices[k]], or / ..., k as in sum_minor; -1, or the position of a bad index"""
    cdef Py_ssize_t n_minor = factors.shape[0], hi = indptr[stop], k, j, n
    cdef const index_t* index
    cdef const value_t* value
    cdef value_t* to
    cdef const acc_t* factor = &factors[0]
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("scale_minor: floats are scaled by float64")
    else:
        if acc_t is double:
            raise TypeError("scale_minor: integers are scaled by int64")
    if (value_t in float_t and acc_t is double) or (value_t not in float_t and acc_t is int64_t):
        with nogil:
            for k in range(indptr[start], hi, 64):
                n = min(64, hi - k)
                index = &indices[0] + k
                value = &data[0] + k
                to = &out[0] + k
                prefetch(index + AHEAD, 64 * sizeof(index_t))
                prefetch(value + AHEAD, 64 * sizeof(value_t))
                if any_outside(index, n, n_minor):
                    break
                if value_t in float_t:
                    if divide:
                        for j in range(n):
                            to[j] = <value_t>(<double>value[j] / factor[index[j]])
                    elif n == 64:
                        for j in range(64):
                            to[j] = <value_t>(<double>value[j] * factor[index[j]])
                    else:
                        for j in range(n):
                            to[j] = <value_t>(<double>value[j] * factor[index[j]])
                else:
                    for j in range(n):
                        to[j] = <value_t>(<uint64_t>value[j] * <uint64_t>factor[index[j]])
            else:
                k = hi
        return first_outside(&indices[0], k, hi, n_minor)


def log1p(const float_t[::1] data not None, Py_ssize_t start, Py_ssize_t stop, float_t[::1] out not None):
    """out[k] = log(1 + data[k]) for k in [start, stop)"""
    cdef Py_ssize_t k
    cdef const float_t* value = &data[0] + start
    cdef float_t* to = &out[0] + start
    with nogil:
        for k in range(0, stop - start, 64):
            prefetch(value + k + AHEAD, 64 * sizeof(float_t))
            log1p_values(value + k, min(64, stop - start - k), to + k)


def expm1(const float_t[::1] data not None, Py_ssize_t start, Py_ssize_t stop, float_t[::1] out not None):
    """out[k] = exp(data[k]) - 1 for k in [start, stop)"""
    cdef Py_ssize_t k
    cdef const float_t* value = &data[0] + start
    cdef float_t* to = &out[0] + start
    with nogil:
        for k in range(stop - start):
            to[k] = expm1_value(value[k])


def match_major(const index_t[::1] indices not None, const int64_t[::1] indptr not None,
                Py_ssize_t start, Py_ssize_t stop, const index_t[::1] other_indices not None,
                const int64_t[::1] other_indptr not None, int64_t[::1] out not None):
    """out[k] = where the same row of the other matrix has indices[k], or -1; both are canonical"""
    cdef Py_ssize_t i, k, m, end
    with nogil:
        for i in range(start, stop):
            m = other_indptr[i]
            end = other_indptr[i + 1]
            for k in range(indptr[i], indptr[i + 1]):
                while m < end and other_indices[m] < indices[k]:
                    m += 1
                out[k] = m if m < end and other_indices[m] == indices[k] else -1


def gram_major(const value_t[::1] data not None, const index_t[::1] indices not None,
               const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, double[:, ::1] out not None):
    """out[indices[k], indices[m]] += data[k] * data[m] for k <= m in rows [start, stop); returns as sum_minor"""
    cdef Py_ssize_t n_minor = out.shape[0], i, k, m, n, bad = -1
    cdef const index_t* index
    cdef const value_t* value
    cdef double v
    cdef double* products
    with nogil:
        for i in range(start, stop):
            n = indptr[i + 1] - indptr[i]
            index = &indices[0] + indptr[i]
            value = &data[0] + indptr[i]
            if any_outside(index, n, n_minor):
                bad = first_outside(&indices[0], indptr[i], indptr[i + 1], n_minor)
                break
            for k in range(n):
                v = <double>value[k]
                products = &out[0, 0] + <Py_ssize_t>index[k] * n_minor
                for m in range(k, n):
                    products[index[m]] += v * <double>value[m]
    return bad


# A panel holds 256 bytes of columns of each of a few rows. What one column gives with all of a panel is kept in vector
# registers, in up to eight at a time; each lane adds on its own, in the order of the rows, so that the width changes no
# bit. Vectors are written out because gcc 12 keeps an array of that size in memory: 1.3 s instead of .13 at v2.
cdef extern from *:
    """
    #if !defined(__GNUC__)
        #define CSRAXIS_VECTOR(T, NAME) typedef T NAME
    #elif defined(__AVX512F__)
        #define CSRAXIS_VECTOR(T, NAME) typedef T NAME __attribute__((vector_size(64), aligned(sizeof(T)), may_alias))
    #elif defined(__AVX__)
        #define CSRAXIS_VECTOR(T, NAME) typedef T NAME __attribute__((vector_size(32), aligned(sizeof(T)), may_alias))
    #else
        #define CSRAXIS_VECTOR(T, NAME) typedef T NAME __attribute__((vector_size(16), aligned(sizeof(T)), may_alias))
    #endif
    #define CSRAXIS_PANEL_SUMS(T, V, I, NAME) \
        CSRAXIS_VECTOR(T, NAME##_vector); \
        static inline void NAME(const I* rows, const V* values, Py_ssize_t n, const T* panel, T* sums) { \
            enum { width = 256 / sizeof(T), lanes = sizeof(NAME##_vector) / sizeof(T), \
                   held = width / lanes < 8 ? width / lanes : 8 }; \
            for (Py_ssize_t first = 0; first < width; first += held * lanes) { \
                NAME##_vector a[held]; \
                memset(a, 0, sizeof a); \
                for (Py_ssize_t k = 0; k < n; k++) { \
                    const T* row = panel + (Py_ssize_t)rows[k] * width + first; \
                    for (int j = 0; j < held; j++) \
                        a[j] += (T)values[k] * *(const NAME##_vector*)(row + j * lanes); \
                } \
                for (int j = 0; j < held; j++) \
                    *(NAME##_vector*)(sums + first + j * lanes) += a[j]; \
            } \
        }
    CSRAXIS_PANEL_SUMS(float, float, int32_t, csraxis_panel_sums_f32)
    CSRAXIS_PANEL_SUMS(double, double, int32_t, csraxis_panel_sums_f64)
    CSRAXIS_PANEL_SUMS(double, float, int32_t, csraxis_panel_sums_f32_to_f64)
    CSRAXIS_PANEL_SUMS(double, float, int64_t, csraxis_panel_sums_f32_to_f64_by_i64)
    CSRAXIS_PANEL_SUMS(double, double, int64_t, csraxis_panel_sums_f64_by_i64)
    """
    void csraxis_panel_sums_f32(const int32_t* rows, const float* values, Py_ssize_t n, const float* panel,
                                float* sums) nogil
    void csraxis_panel_sums_f64(const int32_t* rows, const double* values, Py_ssize_t n, const double* panel,
                                double* sums) nogil
    void csraxis_panel_sums_f32_to_f64(const int32_t* rows, const float* values, Py_ssize_t n, const double* panel,
                                       double* sums) nogil
    void csraxis_panel_sums_f32_to_f64_by_i64(const int64_t* rows, const float* values, Py_ssize_t n,
                                              const double* panel, double* sums) nogil
    void csraxis_panel_sums_f64_by_i64(const int64_t* rows, const double* values, Py_ssize_t n, const double* panel,
                                       double* sums) nogil


cdef inline void panel_sums(const int32_t* rows, const float_t* values, Py_ssize_t n, const float_t* panel,
                            float_t* sums) noexcept nogil:
    """sums += sum(values[k] * panel[rows[k]]) for k in [0, n): that from zero, in the order of k."""
    if float_t is float:
        csraxis_panel_sums_f32(rows, values, n, panel, sums)
    else:
        csraxis_panel_sums_f64(rows, values, n, panel, sums)


cdef inline void wide_panel_sums(const index_t* rows, const float_t* values, Py_ssize_t n, const double* panel,
                                 double* sums) noexcept nogil:
    """The same in float64, whatever the values are."""
    if float_t is float and index_t is int32_t:
        csraxis_panel_sums_f32_to_f64(rows, values, n, panel, sums)
    elif float_t is float:
        csraxis_panel_sums_f32_to_f64_by_i64(rows, values, n, panel, sums)
    elif index_t is int32_t:
        csraxis_panel_sums_f64(rows, values, n, panel, sums)
    else:
        csraxis_panel_sums_f64_by_i64(rows, values, n, panel, sums)


def dot_panels(const float_t[::1] data not None, const index_t[::1] indices not None,
               const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
               const double[:, :, ::1] panels not None, double[:, :, ::1] out not None):
    """out[q, i - start] = row i . panel q, which has 32 columns, for rows [start, stop); returns as sum_minor"""
    cdef Py_ssize_t n_minor = panels.shape[1], lo = indptr[start], n = indptr[stop] - lo, i, j, q, bad = -1
    cdef double* sums
    with nogil:
        if any_outside(&indices[0] + lo, n, n_minor):
            bad = first_outside(&indices[0], lo, lo + n, n_minor)
        else:
            for q in range(panels.shape[0]):  # one after the other: a panel stays in the second-level cache
                for i in range(start, stop):
                    lo = indptr[i]
                    sums = &out[q, i - start, 0]
                    for j in range(out.shape[2]):
                        sums[j] = 0
                    wide_panel_sums(&indices[0] + lo, &data[0] + lo, indptr[i + 1] - lo, &panels[q, 0, 0], sums)
    return bad


def gram_panels(const float_t[::1] data not None, const index_t[::1] indices not None,
                const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
                const int32_t[::1] place not None, Py_ssize_t n_full, const double[::1] shift not None,
                int64_t[::1] ends not None, int32_t[::1] rows not None, float_t[::1] values not None,
                float_t[:, :, ::1] panels not None, float_t[:, :, ::1] sums not None, double[:, ::1] out not None):
    """sums[q, place[j]] += column j . panel q; out as gram_major for columns of no panel; returns as sum_minor"""
    cdef Py_ssize_t n_minor = place.shape[0], n_panels = panels.shape[0], height = panels.shape[1]
    cdef Py_ssize_t width = 256 // sizeof(float_t), n_dense = n_panels * width
    cdef Py_ssize_t first = start, n_rows, i, k, m, n, p, q, lo, hi, at, bad = -1
    cdef const index_t* index = &indices[0]
    cdef int32_t* row = &rows[0]
    cdef float_t* value = &values[0]
    cdef float_t* panel
    cdef double* products
    cdef double v
    with nogil:
        while first < stop:
            n_rows = min(height, stop - first)
            lo = indptr[first]
            hi = indptr[first + n_rows]
            if any_outside(index + lo, hi - lo, n_minor):
                bad = first_outside(index, lo, hi, n_minor)
                break
            # How many entries each column has here; and the columns of no panel, as in gram_major.
            for p in range(n_minor + 1):
                ends[p] = 0
            for i in range(first, first + n_rows):
                n = 0
                for k in range(indptr[i], indptr[i + 1]):
                    p = place[index[k]]
                    ends[p + 1] += 1
                    row[n] = <int32_t>(k - lo)
                    n += p >= n_dense
                for k in range(n):
                    v = <double>data[lo + row[k]]
                    products = &out[0, 0] + <Py_ssize_t>index[lo + row[k]] * n_minor
                    for m in range(k, n):
                        products[index[lo + row[m]]] += v * <double>data[lo + row[m]]
            # The rows in panels; in full columns what is not stored is a zero, and all are shifted.
            for q in range(n_panels):
                panel = &panels[q, 0, 0]
                for k in range(n_rows * width):
                    panel[k] = 0
                for p in range(q * width, min((q + 1) * width, n_full)):
                    for k in range(n_rows):
                        panel[k * width + p - q * width] = <float_t>-shift[p]
            # Entries in the order of the columns, after room for the full ones.
            ends[0] = n_full * n_rows
            for p in range(n_minor):
                ends[p + 1] += ends[p]
            for i in range(n_rows):
                for k in range(indptr[first + i], indptr[first + i + 1]):
                    p = place[index[k]]
                    at = ends[p]
                    ends[p] = at + 1
                    row[at] = <int32_t>i
                    value[at] = data[k]
                    if p < n_dense:
                        panels[p // width, i, p % width] = <float_t>(<double>data[k] - shift[p])
            for p in range(n_full):
                for k in range(n_rows):
                    row[p * n_rows + k] = <int32_t>k
                    value[p * n_rows + k] = panels[p // width, k, p % width]
            for q in range(n_panels):
                for p in range(q * width, n_minor):
                    at = p * n_rows if p < n_full else ends[p - 1] if p else 0
                    n = n_rows if p < n_full else ends[p] - at
                    if n:
                        panel_sums(row + at, value + at, n, &panels[q, 0, 0], &sums[q, p, 0])
            first += n_rows
    return bad


def normalize_major(const float_t[::1] data not None, const int64_t[::1] indptr not None,
                    Py_ssize_t start, Py_ssize_t stop, double target, bint log, double[::1] totals not None,
                    float_t[::1] out not None):
    """t = totals[i - start] = sum(row i); out = row * (target / t), or log(1 + that); a row with t = 0 stays"""
    cdef Py_ssize_t i, j, k, n, whole
    cdef double total, factor
    cdef const float_t* row
    cdef float_t* to
    cdef float_t[64] scaled
    with nogil:
        for i in range(start, stop):
            n = indptr[i + 1] - indptr[i]
            row = &data[0] + indptr[i]
            to = &out[0] + indptr[i]
            # With the logarithm, the row was fetched meanwhile. (Constants: else each step would ask which.)
            total = lane_sum(row, n, False) if log else lane_sum(row, n, True)
            totals[i - start] = total
            factor = target / total if total != 0 else 1
            if log:
                # In two loops, since gcc does not vectorise one that has both widths of floats well; and the next row
                # is fetched meanwhile, since its sum would wait for memory.
                whole = n & ~<Py_ssize_t>63
                for k in range(0, whole, 64):
                    prefetch(row + n + k, 64 * sizeof(float_t))
                    for j in range(64):
                        scaled[j] = <float_t>(<double>row[k + j] * factor)
                    log1p_values(scaled, 64, to + k)
                for k in range(whole, n):
                    scaled[k - whole] = <float_t>(<double>row[k] * factor)
                log1p_values(scaled, n - whole, to + whole)
            else:
                for k in range(n):
                    to[k] = <float_t>(<double>row[k] * factor)


def find_minor(const index_t[::1] indices not None, const int64_t[::1] indptr not None,
               Py_ssize_t start, Py_ssize_t stop, const uint8_t[::1] keep not None, uint64_t[::1] found not None,
               int64_t[::1] out not None):
    """bit k - indptr[start] of found = keep[indices[k]]; out[i - start]: how many before row i; as sum_minor"""
    cdef Py_ssize_t n_minor = keep.shape[0], lo = indptr[start], hi = indptr[stop], i, j, k, n, q, word, total = 0
    cdef const index_t* index
    cdef const uint8_t* kept = &keep[0]
    cdef uint64_t bits, byte
    with nogil:
        for k in range(lo, hi, 64):
            n = min(64, hi - k)
            index = &indices[0] + k
            if any_outside(index, n, n_minor):
                break
            prefetch(index + AHEAD, 64 * sizeof(index_t))
            bits = 0
            if n == 64:
                for j in range(0, 64, 8):
                    byte = 0
                    for q in range(7, -1, -1):
                        byte = 2 * byte + kept[index[j + q]]
                    bits |= byte << j
            else:
                for j in range(n):
                    bits |= <uint64_t>kept[index[j]] << j
            found[(k - lo) >> 6] = bits
        else:
            k = hi
            out[0] = 0
            word = 0
            for i in range(start, stop):
                n = indptr[i + 1] - lo
                while word < n >> 6:
                    total += csraxis_count_bits(found[word])
                    word += 1
                # of the word that goes on in the next row
                out[i - start + 1] = total
                if n & 63:
                    out[i - start + 1] += csraxis_count_bits(found[word] << (64 - (n & 63)))
    return first_outside(&indices[0], k, hi, n_minor)


def take_minor(const value_t[::1] data not None, const index_t[::1] indices not None,
               const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop,
               const uint64_t[::1] found not None, const index_t[::1] place not None,
               value_t[::1] out_data not None, index_t[::1] out_indices not None):
    """out = data[k] at place[indices[k]], for the entries k of rows [start, stop) that find_minor has found"""
    cdef Py_ssize_t lo = indptr[start], hi = indptr[stop], j, k, m = 0
    cdef const index_t* index
    cdef const value_t* value
    cdef uint64_t bits
    with nogil:
        for k in range(lo, hi, 64):
            index = &indices[0] + k
            value = &data[0] + k
            prefetch(index + AHEAD, 64 * sizeof(index_t))
            prefetch(value + AHEAD, 64 * sizeof(value_t))
            bits = found[(k - lo) >> 6]
            while bits:  # one by one: no branch depends on a single entry
                j = csraxis_lowest_bit(bits)
                bits &= bits - 1
                out_data[m] = value[j]
                out_indices[m] = place[index[j]]
                m += 1


def take_major(const value_t[::1] data not None, const index_t[::1] indices not None,
               const int64_t[::1] indptr not None, Py_ssize_t start, Py_ssize_t stop, const uint8_t[::1] keep not None,
               Py_ssize_t n_minor, value_t[::1] out_data not None, index_t[::1] out_indices not None):
    """the rows i in [start, stop) with keep[i], one after the other, in out_data and out_indices; as sum_minor"""
    cdef Py_ssize_t i, k = 0, hi = 0, n, m = 0
    with nogil:
        for i in range(start, stop):
            if keep[i]:
                k, hi = indptr[i], indptr[i + 1]
                n = hi - k
                if any_outside(&indices[0] + k, n, n_minor):
                    break
                memcpy(&out_data[0] + m, &data[0] + k, n * sizeof(value_t))
                memcpy(&out_indices[0] + m, &indices[0] + k, n * sizeof(index_t))
                m += n
        else:
            k = hi
    return first_outside(&indices[0], k, hi, n_minor)


cdef inline Py_ssize_t to_front(value_t* row, Py_ssize_t size, value_t pivot, bint equal) noexcept nogil:
    """Swap the values above the pivot, or those equal to it, to the front of row[:size]; how many there are."""
    cdef Py_ssize_t k, n = 0
    cdef value_t v
    for k in range(size):  # no branch depends on a value
        v = row[k]
        row[k] = row[n]
        row[n] = v
        n += (v == pivot) if equal else (v > pivot)
    return n


cdef void move_largest(value_t* row, Py_ssize_t size, Py_ssize_t n) noexcept nogil:
    """Reorder row[:size] so that row[:n] are its n largest: quickselect, with equal values in a part of their own.

    Each round sets at least the pivot aside, or is the last one: a NaN cannot make it run on.
    """
    cdef Py_ssize_t above, equal
    cdef value_t p, q, r, low, high, pivot
    while 0 < n < size:
        # At the quarters: of values that rise and then fall, the median of both ends and the middle would be an end.
        p = row[size >> 2]
        q = row[size >> 1]
        r = row[size - 1 - (size >> 2)]
        low = q if q < p else p
        high = p if q < p else q
        pivot = low if r < low else high if high < r else r
        above = to_front(row, size, pivot, False)
        if n <= above:
            size = above
            continue
        equal = to_front(row + above, size - above, pivot, True)
        if n <= above + equal or equal == 0:  # nothing equals a NaN
            break
        row += above + equal
        size -= above + equal
        n -= above + equal


cdef inline acc_t plain_sum(const value_t* row, Py_ssize_t n, acc_t total) noexcept nogil:
    """total + sum of row[:n]: floats in lanes, integers one by one."""
    cdef Py_ssize_t k
    if value_t in float_t:
        total += <acc_t>lane_sum(row, n, False)
    else:
        for k in range(n):
            total += <acc_t>row[k]
    return total


def top_major(const value_t[::1] data not None, const int64_t[::1] indptr not None,
              Py_ssize_t start, Py_ssize_t stop, const int64_t[::1] ns not None, value_t[::1] scratch not None,
              acc_t[:, ::1] out not None):
    """out[i - start, q] = sum of the ns[q] largest of row i, or of all it has; ns increases; scratch holds a row"""
    cdef Py_ssize_t i, k, n, q, end
    cdef acc_t total
    cdef const value_t* row
    cdef value_t* top = &scratch[0]
    if value_t in float_t:
        if acc_t is int64_t:
            raise TypeError("top_major: floats are summed into float64")
    else:
        if acc_t is double:
            raise TypeError("top_major: integers are summed into int64")
    if (value_t in float_t and acc_t is double) or (value_t not in float_t and acc_t is int64_t):
        with nogil:
            for i in range(start, stop):
                n = end = indptr[i + 1] - indptr[i]
                row = &data[0] + indptr[i]
                for k in range(n):
                    top[k] = row[k]
                for q in range(ns.shape[0] - 1, -1, -1):
                    if ns[q] < end:
                        move_largest(top, end, ns[q])
                        end = ns[q]
                total = 0
                k = 0
                for q in range(ns.shape[0]):
                    end = min(n, ns[q])
                    total = plain_sum(top + k, end - k, total)
                    out[i - start, q] = total
                    k = end
