"""sum, prod, mean, var, std, mean_var, max, min, any, all and count_nonzero against exact arithmetic and SciPy."""

import gc
import math
import sys
import tracemalloc
import weakref
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume
from hypothesis import strategies as st

import csraxis as cx
import reference
from checks import assert_close, assert_exact, eps, unchanged
from csraxis.dispatch import _blocks, _moments, _partials, _pieces
from strategies import AXES, CLASSES, COMPLEX, FLOATS, INTEGERS, REAL, dense_arrays, examples, matrices

REAL_ONLY = ("var", "std", "max", "min")
FUNCTIONS = ("sum", "prod", "mean", "any", "all", "count_nonzero", *REAL_ONLY)
anything = st.one_of(
    matrices((*REAL, *COMPLEX), ("spread", "small", "special")), dense_arrays((*REAL, *COMPLEX), ("spread", "special"))
)
real = st.one_of(matrices(REAL, ("spread", "small", "special")), dense_arrays(REAL, ("spread", "special")))


def assert_right(function, result, expected, x, axis, keepdims):
    """Value, type and shape of a reduction of x."""
    dtype = reference.result_dtype(function, x.dtype)
    assert type(result) is np.ndarray if np.ndim(expected) else type(result) is dtype.type
    assert result.dtype == dtype
    if dtype.kind in "biu":
        assert_exact(result, expected)
        return
    values = np.abs(reference.dense(x).astype(complex))
    finite = np.where(np.isfinite(values), values, 0)
    if function in ("max", "min"):
        assert_close(result, expected, 0)
        assert not np.signbit(np.asarray(result)[np.asarray(result) == 0]).any()
    elif function in ("sum", "mean"):  # as good as an addition in float64 in any order
        scale = 100 * eps(float) * np.array(reference.sum(finite, axis, keepdims=keepdims), float)
        assert_close(result, expected, eps(dtype), scale + 1e-320)
    elif function == "prod":
        scale = 100 * eps(float) * np.array(reference.prod(finite, axis, keepdims=keepdims), float)
        assert_close(result, expected, eps(dtype), scale + np.finfo(dtype).smallest_subnormal)
    else:
        # Integers beyond 2**53 are first rounded to float64.
        rounding = finite.max(initial=0) * eps(float) if x.dtype.kind in "iu" and finite.max(initial=0) > 2**53 else 0.0
        scale = rounding if function == "std" else rounding * (np.sqrt(np.array(expected, float)) + rounding)
        assert (np.asarray(result)[~np.isnan(result)] >= 0).all()
        assert_close(result, expected, max(1e-12, eps(dtype)), np.nan_to_num(scale) + 1e-300)


def check_reduction(function, x, axis, keepdims):
    """Against the oracle; both raise where there is nothing to choose from."""
    try:
        expected = getattr(reference, function)(x, axis, keepdims=keepdims)
    except ValueError:
        with unchanged(x), pytest.raises(ValueError, match=f"{function} of nothing"):
            getattr(cx, function)(x, axis=axis, keepdims=keepdims)
        return
    with unchanged(x):
        result = getattr(cx, function)(x, axis=axis, keepdims=keepdims)
    assert_right(function, result, expected, x, axis, keepdims)


def multiplies_safely(x):
    """Whether no product of some elements of x overflows or underflows, whatever their order."""
    values = np.abs(reference.dense(x).astype(complex))
    return np.abs(np.log2(values[np.isfinite(values) & (values > 0)])).sum() < 1000


@pytest.mark.parametrize("function", FUNCTIONS)
def test_equals_exact_arithmetic(engine, function):
    @examples(real if function in REAL_ONLY else anything, st.sampled_from(AXES), st.booleans())
    def check(x, axis, keepdims):
        if function == "prod" and x.dtype.kind in "fc":
            # What NaN and inf make of a complex product depends on the order.
            assume(multiplies_safely(x) and (x.dtype.kind == "f" or np.isfinite(reference.dense(x)).all()))
        check_reduction(function, x, axis, keepdims)

    check()


@examples(
    real, st.sampled_from(AXES), st.booleans(), st.sampled_from([0, 1, 0.5, -1, 5, 7.0, 49, np.float32(1), np.int8(2)])
)
def test_correction(engine, x, axis, keepdims, correction):
    expected = reference.var(x, axis, float(correction), keepdims)
    with unchanged(x):
        mean, var = cx.mean_var(x, axis=axis, correction=correction, keepdims=keepdims)
        assert_right("var", cx.var(x, axis=axis, correction=correction, keepdims=keepdims), expected, x, axis, keepdims)
        std = cx.std(x, axis=axis, correction=correction, keepdims=keepdims)
    assert_right("mean", mean, reference.mean(x, axis, keepdims), x, axis, keepdims)
    assert_right("var", var, expected, x, axis, keepdims)
    assert_right("std", std, reference.std(x, axis, float(correction), keepdims), x, axis, keepdims)


@examples(matrices(REAL, ("small",)), st.sampled_from(AXES), st.sampled_from((*INTEGERS, *FLOATS, *COMPLEX)))
def test_dtype_is_cast_to_before_adding(engine, x, axis, dtype):
    total = cx.sum(x, axis=axis, dtype=dtype)
    assert total.dtype == dtype
    expected = reference.sum(x, axis, dtype=dtype)
    if total.dtype.kind in "iu":
        assert_exact(total, expected)
        with pytest.raises(TypeError, match="floating"):
            cx.mean(x, axis=axis, dtype=dtype)
        assert_exact(cx.prod(x, axis=axis, dtype=dtype), reference.prod(x, axis, dtype=dtype))
    else:
        assert_close(total, expected, 0)
        product = cx.prod(x, axis=axis, dtype=dtype)
        assert product.dtype == dtype
        with np.errstate(all="ignore"):
            assert_close(product, reference.prod(x, axis, dtype=dtype), eps(dtype))
        mean = cx.mean(x, axis=axis, dtype=dtype)
        assert mean.dtype == dtype
        assert_close(mean, reference.mean(reference.dense(x).astype(dtype), axis), eps(dtype))


def test_dtype_is_cast_to_block_by_block_without_a_warning(engine):
    """Casts that overflow, in a matrix that takes more than one block of them."""
    x = sp.csr_array(np.full((100_000, 1), 1e300))
    assert cx.sum(x, axis=0, dtype=np.float32)[0] == np.inf
    assert cx.sum(sp.csr_array(np.full((100_000, 1), 3.7)), axis=0, dtype=np.int8)[0] == np.int64(300_000).astype(
        np.int8
    )
    x.data[:] = np.nan
    cx.sum(x, axis=0, dtype=np.int32)  # an undefined value, but no warning


@examples(matrices((*REAL, *COMPLEX), buffers=("plain", "read-only")), st.sampled_from([None, 0, 1]))
def test_equals_scipy(engine, x, axis):
    assume(0 not in x.shape)  # SciPy raises
    expected = x.copy()  # SciPy adds duplicates in place
    expected.indices, expected.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    expected = type(x)(expected.toarray())
    sizes = np.abs(x.toarray().astype(complex))  # the least integer has no absolute value of its own type
    scale = 100 * eps(float) * sizes.sum()
    tolerance = 10 * eps(x.dtype) if x.dtype.kind in "fc" else 0
    # SciPy adds in the type of the values.
    scale += 100 * tolerance * sizes.max(initial=0)
    assert_close(
        cx.sum(x, axis=axis), np.asarray(expected.sum(axis=axis)).reshape(np.shape(cx.sum(x, axis=axis))), 1e-15, scale
    )
    assert np.array_equal(cx.count_nonzero(x, axis=axis), expected.count_nonzero(axis=axis))


@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3, 4), (2, 0, 3)])
def test_ndarrays_of_any_dimension(engine, shape):
    x = np.asarray(np.random.default_rng(0).normal(5, 2, shape))
    for axis in (None, (), *range(len(shape)), tuple(range(len(shape)))[::-2]):
        for keepdims in (False, True):
            for function in FUNCTIONS:
                check_reduction(function, x, axis, keepdims)


def _rng(seed=0):
    return np.random.default_rng(seed)


# The variances that float32 accumulators, squares in the type of the values, E[x^2] - E[x]^2 and a bad shift get wrong.
HOSTILE = {
    "float32 with a large mean": np.float32([30000.1, 30000.2, 30000.3]),
    "1e8 + {0, 1, 2}": np.array([1e8, 1e8 + 1, 1e8 + 2]),
    "uint8 200": np.uint8([200, 200]),
    "uint8 200 and 201": np.uint8([200, 201] * 300),
    "int32 1e5": np.int32([100_000, 100_000]),
    "int64 4e9": np.int64([4_000_000_000] * 3),
    "int64 4e9 and one more": np.int64([4_000_000_000, 4_000_000_001]),
    "1e8, spread 1e-3": 1e8 + _rng().normal(0, 1e-3, 3000),
    "0.1 but for one": np.array([0.1] * 999 + [0.1000001]),
    "an outlier first": np.concatenate(([1e12], _rng().normal(1, 0.1, 3000))),
    "an outlier last": np.concatenate((_rng().normal(1, 0.1, 3000), [1e12])),
    "another level after the first rows": np.concatenate((_rng().normal(1e6, 1e-3, 300), _rng().normal(0, 1, 70_000))),
    "zeros between": np.where(np.arange(3000) % 3, 1e7 + _rng().normal(0, 1, 3000), 0),
    "30 magnitudes": np.exp(_rng().uniform(-30, 30, 3000)),
    "fractions around a half": np.array([0.5, 0.5 + 2.0**-30] * 500),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_variance_of_hostile_columns(engine, name):
    values = HOSTILE[name]
    numbers = [Fraction(value) for value in values.tolist()]
    squares = sum(v * v for v in numbers) - sum(numbers) ** 2 / len(numbers)
    tolerance = Fraction(1, 10**12) + Fraction(2.0**-23 if values.dtype == np.float32 else 0)
    column = values[:, None]
    for x, axis in [(cls(column), 0) for cls in CLASSES] + [(sp.csr_array(column.T), 1), (sp.csc_array(column.T), 1)]:
        for correction in (0, 1):
            for result in (cx.var(x, axis=axis, correction=correction)[0], cx.var(column, correction=correction)):
                assert result >= 0
                expected = squares / (len(numbers) - correction)
                assert abs(Fraction(result.item()) - expected) <= tolerance * expected
        assert_close(cx.var(x), squares / len(numbers), float(tolerance))


@pytest.mark.parametrize("value", [0.1, np.float32(0.1), 1e300, 1 / 3])
def test_a_million_equal_values_vary_by_nothing(engine, value):
    column = np.full((1_000_000, 1), value)
    for x in (sp.csr_array(column), sp.csc_array(column), column):
        mean, var = cx.mean_var(x, axis=0)
        assert mean[0] == value
        assert var[0] == 0


def test_infinities_in_different_blocks_give_nan_without_a_warning(engine):
    column = np.ones((400, 1))
    column[0], column[-1] = np.inf, -np.inf
    for x in (sp.csr_array(column), sp.csc_array(column), column):
        assert np.isnan(cx.sum(x, axis=0)).all()
        assert np.isnan(cx.mean_var(x, axis=0)).all()


def test_complex_infinities_stay_in_their_part(engine):
    rows = np.array([[complex(1, np.inf), 2], [complex(-np.inf, 1), complex(2, 5)]])
    for x in (sp.csr_array(rows), sp.csc_array(rows), rows):
        for function in (cx.sum, cx.mean):
            total = function(x, axis=1)
            assert total.real.tolist() == [3.0 if function is cx.sum else 1.5, -np.inf]
            assert total.imag.tolist() == [np.inf, 6.0 if function is cx.sum else 3.0]


def test_no_degrees_of_freedom_give_nan(engine):
    rows = np.arange(12.0).reshape(3, 4)
    for x in (sp.csr_array(rows), sp.csc_array(rows), rows):
        for axis, n in ((0, 3), (1, 4), (None, 12)):
            for correction in (n, n + 0.5, n + 1):
                assert np.isnan(cx.var(x, axis=axis, correction=correction)).all()
                assert np.isnan(cx.std(x, axis=axis, correction=correction)).all()
            assert np.isfinite(cx.var(x, axis=axis, correction=n - 0.5)).all()


def test_means_of_large_integers_do_not_wrap_around(engine):
    for dtype, value in (("int64", 2**62), ("int64", -(2**63)), ("uint64", 2**64 - 1), ("uint32", 2**32 - 1)):
        column = np.full((5, 1), value, dtype)
        for x in (sp.csr_array(column), sp.csc_array(column), column):
            for axis in (0, None):
                assert_close(
                    cx.mean(x, axis=axis), np.full(np.shape(cx.mean(x, axis=axis)), float(value)), 2 * eps(float)
                )


def test_products_with_implicit_zeros(engine):
    rows = np.array([[1e300, 0, np.inf], [1e300, 2, 3], [4, 0, np.nan]])
    for cls in CLASSES:
        x = cls(rows)
        assert_close(cx.prod(x, axis=0), [np.inf, 0, np.nan], 0)  # 1e300**2 overflows: there is no implicit zero
        assert_close(cx.prod(x, axis=1), [np.nan, 6e300, np.nan], 1e-15)
        assert cx.prod(cls([[1e300, 1e300, 0]])) == 0  # one that overflows is no infinite factor
        assert cx.prod(cls(np.full((1, 70), 2, np.uint64))) == 0  # modulo 2**64
        assert cx.prod(cls(np.float32([[1e30, 1e30, 1e-30]]))) == np.float32(1e30)
        assert cx.prod(cls((0, 3)), axis=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float32", "float64", "complex64"])
def test_long_matrices(engine, dtype):
    """Of which more than one block is cast at a time, with full rows and columns among them."""
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 3, (2000, 90)) * (rng.random((2000, 90)) < 0.9)
    rows[:, :3] = rows[::100] = 1
    rows = (rows * (1 if dtype in ("bool", "uint64") else rng.choice([-1, 1], rows.shape))).astype(dtype)
    for function in FUNCTIONS if dtype != "complex64" else set(FUNCTIONS) - set(REAL_ONLY):
        for axis in (None, 0, 1):
            expected = getattr(cx, function)(rows, axis=axis)
            for cls in CLASSES:
                result = getattr(cx, function)(cls(rows), axis=axis)
                assert result.dtype == expected.dtype
                assert_close(result, expected, 1e-12 if dtype != "float32" else 1e-6)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("threads", [1, 3])
def test_extremes_and_products_of_several_blocks(engine, monkeypatch, cls, threads):
    """What decides is in a single block: the first one, the last one, or another."""
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    dense = np.ones((6000, 12))
    dense[[0, 2999, -1], [0, 1, 2]] = 5
    dense[[0, 2999, -1], [3, 4, 5]] = -5
    dense[[0, 2999, -1], [6, 7, 8]] = np.nan
    dense[:, 9:] = [-2, -1, 1e200]
    dense[[0, 2999, -1], [9, 10, 11]] = 0
    csr = cls.__name__.startswith("csr")
    x = cls(dense if csr else dense.T)
    with cx.config(threads=threads), unchanged(x):
        found = {name: getattr(cx, name)(x, axis=0 if csr else 1) for name in ("max", "min", "prod")}
    assert np.array_equal(found["max"], dense.max(axis=0), equal_nan=True)
    assert np.array_equal(found["min"], dense.min(axis=0), equal_nan=True)
    # A product may leave the range of float64 on the way to zero, or to any other number.
    assert np.array_equal(found["prod"], [5, 5, 5, -5, -5, -5, np.nan, np.nan, np.nan, 0, 0, 0], equal_nan=True)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("where", [None, 0, 47, 95], ids=["in order", "first row", "middle", "last row"])
@pytest.mark.parametrize("what", ["unsorted", "duplicate"])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_that_turn_out_not_to_be_in_order(engine, monkeypatch, cls, where, what, threads):
    """They are looked at piece by piece, while the pieces are worked on."""
    monkeypatch.setattr(_pieces, "LOOK_STEP", 64)
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    rng = np.random.default_rng(0)
    indices = np.sort(rng.random((96, 40)).argsort(axis=1)[:, :9], axis=1).astype(np.int32)
    if where is not None:
        indices[where, 3:5] = indices[where, 4:2:-1] if what == "unsorted" else indices[where, 3]
    data, indptr = rng.integers(-3, 4, indices.size).astype("f4"), np.arange(0, indices.size + 1, 9, dtype=np.int32)
    shape = (96, 40) if cls.__name__.startswith("csr") else (40, 96)
    for function, axis in [
        (f, axis) for f in ("var", "mean_var", "count_nonzero", "max", "min") for axis in (0, 1, None)
    ]:
        x = cls((data, indices.ravel(), indptr), shape=shape)
        with cx.config(threads=threads), unchanged(x):
            found = getattr(cx, function)(x, axis=axis)
        expected = getattr(cx, function)(x.toarray(), axis=axis)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert vars(x).get("_has_canonical_format") == (where is None)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_matrix_that_is_not_in_order_leaves_no_trace(monkeypatch, threads):
    """Its memory is free at once, and an error shows nothing of the attempt without a copy."""
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 10)
    x = sp.csr_array(np.ones((6000, 10), "f4"))  # enough for several blocks
    x.indices.reshape(x.shape)[3000:] = np.arange(9, -1, -1)  # not where the shift is looked for, without threads
    bad = x.copy()
    bad.indices[-7] = 10
    interval = sys.getswitchinterval()
    gc.disable()
    try:
        sys.setswitchinterval(1e-6)  # a thread may be stopped anywhere, with what it refers to
        with cx.config(threads=threads):
            for _ in range(50):
                y = sp.csr_array((x.data, x.indices, x.indptr), shape=x.shape)
                gone = weakref.ref(y)
                cx.var(y, axis=0)
                del y
                assert gone() is None
            with pytest.raises(ValueError, match=r"x.indices\[59993\] is 10") as error:
                cx.var(sp.csr_array((bad.data, bad.indices, bad.indptr), shape=x.shape), axis=0)
    finally:
        sys.setswitchinterval(interval)
        gc.enable()
    assert error.value.__context__ is None


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("threads", [1, 3])
def test_variances_of_more_rows_and_columns_than_are_merged_at_once(engine, monkeypatch, cls, threads):
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    n = 2 * _moments.STEP + 5
    dense = np.random.default_rng(0).poisson(1.0, (n, 6)) / 3
    for x, axis in ((dense, 1), (dense.T, 0)):
        with cx.config(threads=threads):
            mean, var = cx.mean_var(cls(x), axis=axis)
        np.testing.assert_allclose(mean, x.mean(axis=axis), rtol=1e-12)
        np.testing.assert_allclose(var, x.var(axis=axis), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("n_rows", "passes"), [(200, ["of_block"]), (600, ["of_block", "over_blocks"])])
def test_counts_are_read_once_but_for_a_small_part(monkeypatch, n_rows, passes):
    """Where the first rows are all, they are not read again."""
    done = []
    for name in ("of_block", "over_blocks"):
        function = getattr(_partials, name)
        monkeypatch.setattr(
            _partials, name, lambda *args, name=name, function=function: done.append(name) or function(*args)
        )
    x = np.random.default_rng(0).poisson(0.7, (n_rows, 30)).astype("f4")
    np.testing.assert_allclose(cx.var(sp.csr_array(x), axis=0), x.var(axis=0, dtype=float), rtol=1e-6)
    assert done == passes


@pytest.mark.parametrize("whole", [True, False], ids=["whole numbers", "any"])
def test_where_a_shift_is_too_far(whole):
    """The quick answer for all columns is the one of each: here of all together and of each alone."""
    rng = np.random.default_rng(0)
    n = np.where(rng.random(3000) < 0.5, 49.0, rng.integers(0, 49, 3000))  # of 49 rows: half have no zeros
    shift = np.exp(rng.uniform(-5, 12, 3000))
    spread, distance = (np.exp(rng.uniform(-20, 20, 3000)) for _ in range(2))
    s1, s2 = n * distance, n * (distance**2 + spread**2)
    if whole:
        shift, s1, s2 = map(np.rint, (shift, s1, s2))
    else:
        s2[rng.random(3000) < 0.02], s1[rng.random(3000) < 0.02] = np.inf, np.nan
    records = np.stack([n, s1, s2, shift], axis=1)
    together = _partials._too_far(records, 49)
    assert 0 < np.count_nonzero(together) < len(together)
    assert [bool(_partials._too_far(one[None], 49)[0]) for one in records] == together.tolist()


def test_duplicates_are_one_element(engine):
    x = sp.csr_array((np.array([1.0, 2, -3, 5, 5]), [1, 1, 1, 0, 0], [0, 3, 5]), shape=(2, 3))
    logical = sp.csr_array((np.array([True, True, True]), [1, 1, 0], [0, 2, 3]), shape=(2, 3))
    assert cx.count_nonzero(x, axis=0).tolist() == [1, 0, 0]
    assert cx.var(x, axis=0).tolist() == [25, 0, 0]
    for function in FUNCTIONS:
        assert getattr(cx, function)(logical) == getattr(cx, function)(logical.toarray())


@pytest.mark.parametrize("function", [*FUNCTIONS, "mean_var"])
def test_what_is_refused(engine, function):
    function = getattr(cx, function)
    for x in (sp.csr_array((3, 4)), np.ones((3, 4))):
        for axis in (2, -3, (0, 2)):
            with pytest.raises(np.exceptions.AxisError):
                function(x, axis=axis)
        with pytest.raises(ValueError, match="repeated"):
            function(x, axis=(0, -2))
        for axis in (True, 0.5, "0"):
            with pytest.raises(TypeError):
                function(x, axis=axis)
    if function in (cx.max, cx.min):
        for x in (sp.csr_array((3, 4), dtype=complex), np.ones((3, 4), complex)):
            with pytest.raises(TypeError, match="real"):
                function(x)
    if function in (cx.var, cx.std, cx.mean_var):
        for correction in ("1", None, 1j, True):
            with pytest.raises(TypeError, match="correction"):
                function(sp.csr_array((3, 4)), correction=correction)
        for x in (sp.csr_array((3, 4), dtype=complex), np.ones((3, 4), complex)):
            with pytest.raises(TypeError, match="real"):
                function(x)


def test_nothing_to_reduce(engine):
    for x in (*(cls((0, 3)) for cls in CLASSES), np.ones((0, 3))):
        assert (cx.sum(x), cx.prod(x), cx.any(x), cx.all(x)) == (0, 1, False, True)
        assert cx.sum(x, axis=1).shape == (0,)
        for function in (cx.mean, cx.var, cx.std):
            assert math.isnan(function(x))
            assert np.isnan(function(x, axis=0)).tolist() == [True] * 3


@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_array, np.array])
@pytest.mark.parametrize("scale", [1.0, np.log(2)])
@pytest.mark.parametrize(("n", "top"), [(3, 4), (1000, 4), (1000, 1)])
def test_moments_of_what_was_logged(engine, n, top, scale, cls):
    """Also where these and their logarithms (0 and 2, of base 2) are whole numbers, whose sums are exact."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, top + 1, (n, 7)) * 2 * (rng.random((n, 7)) < 0.6)
    if top > 1:
        x[:, 6] = 2
    mean, var = _moments.mean_and_variance(_partials.moments(cls(x.astype("f4")), (0,), scale), 1)
    exact = np.expm1(x * scale)
    np.testing.assert_allclose(mean[0], exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(var[0], exact.var(axis=0, ddof=1), rtol=1e-12, atol=1e-25)


@pytest.mark.parametrize(("outlier", "n", "spread"), [(1e8, 20_000, 1.0), (1e8, 200_000, 1.0), (100.0, 20_000, 0.1)])
def test_variance_where_an_outlier_has_the_first_rows_for_itself(engine, outlier, n, spread):
    head = max(n // 256, 256)
    values = np.zeros(n)
    values[0], values[head:] = outlier, np.random.default_rng(0).normal(1, spread, n - head)
    x = sp.csr_array(values[:, None])
    exact = [Fraction(value) for value in values.tolist()]
    mean = sum(exact) / n
    variance = sum((value - mean) ** 2 for value in exact) / n
    got = cx.mean_var(x, axis=0)
    assert abs(Fraction(float(got[0][0])) / mean - 1) < 1e-12
    assert abs(Fraction(float(got[1][0])) / variance - 1) < 1e-12
    assert_close(cx.var(x[::-1], axis=0), got[1], 1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_duplicates_of_narrow_integers_add_up_without_wrapping(engine, dtype):
    value = np.iinfo(dtype).max
    x = sp.csr_matrix((2, 2), dtype=dtype)
    x.data, x.indices, x.indptr = np.array([value, value, 1], dtype), np.array([0, 0, 1]), np.array([0, 2, 3])
    assert cx.sum(x, axis=0).tolist() == [2 * value, 1]
    mean, variance = cx.mean_var(x, axis=0)
    assert mean.tolist() == [value, 0.5]
    assert variance.tolist() == [value**2, 0.25]
    assert cx.log1p(x).toarray()[0, 0] == pytest.approx(np.log1p(2.0 * value))
    assert cx.pp.log1p(x).toarray()[0, 0] == pytest.approx(np.log1p(2.0 * value), rel=1e-6)


@pytest.mark.parametrize("late", [None, 0.5, 1.0, 4e5, 1e150, np.inf, np.nan])
def test_what_the_first_rows_do_not_show(engine, late, monkeypatch):
    """These are counts, for which sums and squares are enough; where the others are not, nothing is lost by it."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.7, (100_000, 2)).astype(float)
    if late is not None:
        x[400:, 1] = late if late != 4e5 else late + rng.random(99_600)
    passes = []
    add_records = _partials._add_records
    monkeypatch.setattr(_partials, "_add_records", lambda *args: passes.append(1) or add_records(*args))
    mean, variance = cx.mean_var(sp.csr_array(x), axis=0)
    assert bool(passes) == (late is not None)
    with np.errstate(all="ignore"):
        expected = x.astype(np.longdouble)
        np.testing.assert_allclose(mean, expected.mean(axis=0).astype(float), rtol=1e-12)
        np.testing.assert_allclose(variance, expected.var(axis=0).astype(float), rtol=1e-12)


@pytest.mark.parametrize("value", [3.0, 1428.5, 1428497.0, 2.0**40])
def test_one_that_differs(engine, value):
    """Sums around zero are exact here, but the mean of all is not: it would be lost in what they are moved by."""
    for n in (1000, 3591, 3592):
        x = np.full((n, 1), value)
        x[0] += 1
        assert cx.var(sp.csr_array(x), axis=0)[0] == pytest.approx((n - 1) / n**2, rel=1e-12, abs=0)


@pytest.mark.parametrize("n", [1, 2, 3, 300])
@pytest.mark.parametrize("value", [1, 30_000, 300_001])
def test_equal_counts_need_no_second_pass(engine, n, value, monkeypatch):
    """A few cells have many genes of which all counts are equal."""
    x = np.stack([np.full(n, value), np.arange(n) % 2, np.zeros(n, int)], axis=1)
    monkeypatch.setattr(_partials, "_add_records", lambda *args: pytest.fail("another pass"))
    mean, variance = cx.mean_var(sp.csr_array(x), axis=0)
    assert mean.tolist() == [value, n // 2 / n, 0]
    assert variance.tolist() == [0, pytest.approx(n // 2 * (n - n // 2) / n**2, rel=1e-15), 0]


@pytest.mark.parametrize("others", [0, 1e8])
def test_dense_columns_whose_first_rows_are_far_from_the_others_are_read_again(monkeypatch, others):
    x = np.random.default_rng(0).random((70_000, 2))
    x[273:, 1] += others
    passes, around = [], _partials._dense_around
    monkeypatch.setattr(_partials, "_dense_around", lambda *args: passes.append(1) or around(*args))
    variance = cx.var(x, axis=0)
    assert len(passes) == (3 if others else 2)
    np.testing.assert_allclose(variance, x.astype(np.longdouble).var(axis=0).astype(float), rtol=1e-12)


@pytest.mark.parametrize("value", [0.1, 94906267.0])  # the square of the second one is above 2**53, and odd
def test_equal_values_among_zeros(engine, value):
    """Added from zero, the rounding of equal values adds up, too."""
    rng = np.random.default_rng(0)
    stored = rng.random(300_000) < 0.5
    columns = np.where(stored, 0, rng.integers(1, 10_000, len(stored)))  # many, so that blocks are few
    x = sp.csr_array((np.where(stored, value, 1.0), columns, np.arange(len(stored) + 1)), shape=(len(stored), 10_000))
    p = Fraction(int(stored.sum()), len(stored))
    assert cx.var(x, axis=0)[0] == pytest.approx(float(Fraction(value) ** 2 * p * (1 - p)), rel=1e-13, abs=0)


def test_one_pass_over_logged_counts_is_enough(monkeypatch):
    """The second pass is for outliers: no ordinary column may ask for it."""
    from csraxis.dispatch import _partials

    folder = Path(__file__).parent.parent / "bench" / "data"
    logged = cx.normalize(sp.load_npz(folder / "pbmc3k_raw.npz"), target_sum=1e4, log1p=True)
    passes = []
    add_records = _partials._add_records
    monkeypatch.setattr(_partials, "_add_records", lambda *args: passes.append(1) or add_records(*args))
    cx.var(logged, axis=0)
    assert len(passes) == 1


def test_products_that_overflow_beside_an_implicit_zero():
    """In memory, in chunks, and in blocks of one call: zero, unless a factor is infinite."""
    rows = np.array([[1e200, 1e200, 0], [1e200, 1e200, 1], [np.inf, 1e200, 0], [-np.inf, 2, 2]])
    expected = [0, np.inf, np.nan, -np.inf]
    for cls in (sp.csr_array, sp.csc_array):
        np.testing.assert_array_equal(cx.prod(cls(rows), axis=1), expected)
        np.testing.assert_array_equal(cx.prod(cls(rows.T), axis=0), expected)
    da = pytest.importorskip("dask.array")
    for chunks in ((1, 1), (2, 2), (4, 1)):
        lazy = da.from_array(rows, chunks).map_blocks(sp.csr_array)
        np.testing.assert_array_equal(cx.prod(lazy, axis=1).compute(scheduler="sync"), expected)


def test_products_of_narrow_duplicates_do_not_wrap():
    x = sp.csr_array((np.int8([100, 100]), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    assert cx.prod(x) == cx.prod(x, axis=0)[0] == cx.sum(x) == 200


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u8", "c8", "c16"])
def test_no_temporary_as_long_as_the_values(engine, dtype):
    """A cast goes through the cache, a piece at a time: what else is there is for the result, or a thread."""
    x = sp.csr_array(np.arange(1_000_000).reshape(1000, 1000) % 7 + 1).astype(dtype)
    names = ["sum", "prod", "mean", "any", "all", "count_nonzero"]
    names += [] if x.dtype.kind == "c" else ["max", "min", "mean_var"]
    for name, axis in product(names, (0, 1, None)):
        reduce = getattr(cx, name)
        reduce(x, axis=axis)  # what is compiled or found out once
        tracemalloc.start()
        try:
            reduce(x, axis=axis)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        of_a_value = 8 if name in ("any", "all", "count_nonzero") else 24
        assert peak < of_a_value * _blocks.CAST_STEP, (name, axis)  # at least 4 MB are stored
