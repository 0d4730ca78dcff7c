"""Functions element by element, axis_scale, normalize, to_dense and gram: against the oracle, and in place."""

import copy
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import strategies as st

import csraxis as cx
import reference
from checks import assert_close, assert_exact, bits, eps, parts, unchanged
from csraxis.dispatch import _blocks
from strategies import (
    CLASSES,
    COMPLEX,
    FLOATS,
    INTEGERS,
    OWN_BUFFERS,
    REAL,
    arrays,
    dense_arrays,
    examples,
    matrices,
    operands,
)

sparse = matrices(REAL)
anything = st.one_of(matrices((*REAL, *COMPLEX)), dense_arrays((*REAL, *COMPLEX)))


def assert_like(result, x, dtype):
    """The class, shape and structure of x, in `dtype`, in arrays of its own."""
    kind = type(x) if sp.issparse(x) else np.ndarray
    assert type(result) is kind
    assert result.shape == x.shape
    assert result.dtype == dtype
    if sp.issparse(x):
        assert {result.indices.dtype, result.indptr.dtype} <= {np.dtype(np.int32), np.dtype(np.int64)}
        assert not any(np.shares_memory(part, other) for part in parts(result) for other in parts(x))
        result.check_format(full_check=True)


def assert_elements(result, expected, tolerance=64):
    """Within a few units in the last place: duplicates that are scaled before they are added round more than once."""
    if result.dtype.kind in "fc":
        assert_close(reference.dense(result), expected, tolerance * eps(result.dtype), 1e-310)
    else:
        assert_exact(reference.dense(result), expected)


@pytest.mark.parametrize(("indptr", "indices"), [("i4", "i4"), ("i8", "i8"), ("i8", "i4"), ("i4", "i8")])
def test_the_types_of_indices_are_kept(engine, indptr, indices):
    x = sp.csr_array(np.eye(3))
    x.indptr, x.indices = x.indptr.astype(indptr), x.indices.astype(indices)
    for result in (cx.multiply(x, 2), cx.log1p(x), cx.axis_scale(x, np.ones(3), axis=1), cx.normalize(x)):
        assert (result.indptr.dtype, result.indices.dtype) == (indptr, indices)


# ---- multiply and divide


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_sparse_with_anything_that_broadcasts(engine, name):
    @examples(st.data())
    def check(data):
        # Duplicates only where nothing is rounded or infinite: there the product of a sum is the sum of products.
        exact = name == "multiply" and data.draw(st.booleans())
        x = data.draw(matrices((*REAL, *COMPLEX), ("small" if exact else "spread",)))
        other = data.draw(operands(x.shape, REAL if exact else (*REAL, *COMPLEX), ("small" if exact else "spread",)))
        plain = np.asarray(other) if isinstance(other, np.ndarray) else other
        with unchanged(x):
            result = getattr(cx, name)(x, other)
        with np.errstate(all="ignore"):
            dtype = getattr(np, name)(np.empty(1, x.dtype), plain if np.ndim(plain) == 0 else plain.ravel()[:1]).dtype
        assert_like(result, x, dtype.newbyteorder("="))
        assert_elements(result, reference.binary(name, x, plain))
        if name == "multiply":
            swapped = cx.multiply(other, x)
            assert type(swapped) is type(x)
            assert bits(swapped.data) == bits(result.data)

    check()


@examples(st.data())
def test_division_by_sparse_is_dense_and_follows_ieee(engine, data):
    x = data.draw(matrices((*INTEGERS, *FLOATS)))
    other = data.draw(operands(x.shape))
    plain = np.asarray(other) if isinstance(other, np.ndarray) else other
    with unchanged(x):
        result = cx.divide(other, x)
    with np.errstate(all="ignore"):
        expected = np.divide(plain, reference.dense(x) + x.dtype.type(0))  # a stored -0.0 is 0, as in SciPy's toarray
    assert type(result) is np.ndarray
    assert bits(result) == bits(expected)


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_dense_pairs_are_numpys(engine, name):
    @examples(dense_arrays((*REAL, *COMPLEX), ("spread", "special")), st.sampled_from([2, 0.5, True, np.float32(3)]))
    def check(x, scalar):
        for pair in ((x, scalar), (scalar, x), (x, x)):
            with np.errstate(all="ignore"):
                expected = getattr(np, name)(*(np.asarray(p) if isinstance(p, np.ndarray) else p for p in pair))
            result = getattr(cx, name)(*pair)
            assert type(result) is np.ndarray
            assert bits(result) == bits(expected)

    check()


def test_implicit_zeros_stay_under_inf_and_nan(engine):
    x = sp.csr_array([[1.0, 0], [0, 0]])
    for factor in (np.inf, np.nan, np.array([np.inf, np.nan]), np.full((2, 2), np.nan)):
        assert cx.multiply(x, factor).nnz == 1
        assert cx.multiply(x, factor).toarray()[1].tolist() == [0, 0]
    for divisor in (0, 0.0, np.zeros((2, 1)), np.zeros((2, 2))):
        assert cx.divide(x, divisor).toarray().tolist() == [[np.inf, 0], [0, 0]]


# ---- two sparse matrices


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_sparse_with_sparse(engine, name):
    @examples(st.data())
    def check(data):
        values = data.draw(st.sampled_from(["spread", "small", "special"]))
        x1, x2 = data.draw(matrices((*REAL, *COMPLEX), (values,))), data.draw(matrices((*REAL, *COMPLEX), (values,)))
        n, m = (min(lengths) for lengths in zip(x1.shape, x2.shape))
        x1, x2 = (type(x)(x[:n, :m]) for x in map(sorted_matrix, (x1, x2)))
        with unchanged(x1, x2):
            result = getattr(cx, name)(x1, x2)
        with np.errstate(all="ignore"):
            dtype = getattr(np, name)(np.ones(1, x1.dtype), np.ones(1, x2.dtype)).dtype
        assert type(result) is type(x1)
        assert result.dtype == dtype
        result.check_format(full_check=True)
        stored = reference.stored(x1) & reference.stored(x2) if name == "multiply" else reference.stored(x1)
        assert np.array_equal(reference.stored(result), stored)
        expected = reference.binary(name, x1, x2)
        if dtype.kind == "c":
            assert_elements(result, expected)
        else:
            assert bits(reference.dense(result)) == bits(expected)

    check()


def sorted_matrix(x):
    """What SciPy can slice: in native byte order, with indices of one type, but with duplicates."""
    indices = (x.indices.astype(np.int64), x.indptr.astype(np.int64))
    return type(x)((x.data.astype(x.dtype.newbyteorder("=")), *indices), shape=x.shape)


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_sparse_with_sparse_of_any_structure(engine, name):
    """Indices in any order, in any buffer; one matrix with itself is of its own shape."""

    @examples(matrices((*INTEGERS, *FLOATS), ("spread", "small")))
    def check(x):
        with unchanged(x):
            result = getattr(cx, name)(x, x)
        expected = reference.binary(name, x, x)
        assert type(result) is type(x)
        assert result.dtype == expected.dtype.newbyteorder("=")
        assert bits(reference.dense(result)) == bits(expected)

    check()


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_sparse_with_sparse_some_rows_at_a_time(engine, threads, step, monkeypatch):
    """Whichever has more entries, and wider indices; with rows that are empty in one, or in both."""
    monkeypatch.setattr(_blocks, "CAST_STEP", step)
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 1)
    rng = np.random.default_rng(0)
    dense = [rng.integers(1, 9, (40, 15)) * (rng.random((40, 15)) < share) for share in (0.5, 0.1)]
    dense[0][5:9], dense[1][8:11] = 0, 0
    x, y = sp.csr_array(dense[0].astype("f4")), sp.csr_array(dense[1].astype("f8"))
    y.indices, y.indptr = y.indices.astype("i8"), y.indptr.astype("i8")
    with cx.config(threads=threads), np.errstate(all="ignore"):
        for one, other in ((x, y), (y, x), (y, y)):
            product, quotient = cx.multiply(one, other), cx.divide(one, other)
            for result in (product, quotient):
                assert result.indices.dtype == result.indptr.dtype == one.indices.dtype
                assert vars(result)["_has_canonical_format"]  # known, not found out now
                result.check_format(full_check=True)
            assert product.nnz == np.count_nonzero(one.toarray() * other.toarray())
            np.testing.assert_array_equal(product.toarray(), one.toarray() * other.toarray())
            expected = np.where(one.toarray() != 0, one.toarray() / other.toarray(), 0)
            np.testing.assert_array_equal(quotient.toarray(), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_signs_of_nan_do_not_hang_on_the_threads(engine, dtype, monkeypatch):
    """NumPy gives NaN times -NaN another sign at the end of an array."""
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    rng = np.random.default_rng(0)
    shape, values = (50, 100), np.array([np.nan, -np.nan, 1, np.inf], dtype)
    x, y = (sp.csr_array(np.where(rng.random(shape) < share, rng.choice(values, shape), 0)) for share in (0.5, 0.7))
    for function in (cx.multiply, cx.divide):
        results = []
        for threads in (1, 2, 3):
            with cx.config(threads=threads):
                results.append(bits(function(x, y).data))
        assert len(set(results)) == 1


def test_integers_with_duplicates_wrap_as_without(engine):
    """Duplicates are added up in 64 bits; what is then multiplied is still of the type of the product."""
    twice = sp.csr_array((np.array([200, 55], "u1"), np.array([0, 0]), np.array([0, 2])), shape=(1, 2))
    once = sp.csr_array(np.array([[255, 0]], "u1"))
    other = np.array([[10177648, 0]], "i4")
    for y in (other, sp.csr_array(other), np.array([[10177648.0, 0]], "f4")):
        one, two = cx.multiply(once, y), cx.multiply(twice, y)
        assert one.dtype == two.dtype
        assert one.toarray().tolist() == two.toarray().tolist()


def test_products_that_overflow_say_nothing(engine):
    many = sp.csr_array((np.array([100, 100], "i2"), np.array([0, 0]), np.array([0, 2])), shape=(1, 3))
    large = sp.csr_array(np.array([[3e38, 0, 0]], "f4"))
    with np.errstate(all="raise"):
        assert cx.multiply(many, large).toarray().tolist() == [[np.inf, 0, 0]]
        assert cx.multiply(large, large).toarray().tolist() == [[np.inf, 0, 0]]


def test_indices_of_64_bits_are_not_those_of_32(engine):
    shape = (1, 2**33)
    x = sp.csr_array((np.array([2.0]), np.array([5], "i4"), np.array([0, 1], "i4")), shape=shape)
    y = sp.csr_array((np.array([3.0, 4.0]), np.array([2**32 + 5, 2**32 + 6]), np.array([0, 2])), shape=shape)
    x.indices, x.indptr = x.indices.astype("i4"), x.indptr.astype("i4")
    assert cx.multiply(x, y).nnz == cx.multiply(y, x).nnz == 0


def test_sparse_with_a_sparse_row_or_column(engine):
    x = np.array([[1.0, 2, 0], [0, 4, 8]])
    for cls in CLASSES:
        for other in (x[:1], x[:, :1], x[:1, :1]):
            product, quotient = cx.multiply(cls(x), cls(other)), cx.divide(cls(x), cls(other))
            assert type(product) is type(quotient) is cls
            assert reference.dense(product).tolist() == (x * other).tolist()
            with np.errstate(all="ignore"):
                assert bits(reference.dense(quotient)) == bits(np.where(x, x / other, 0))


# ---- functions of one element

UNARY = ("log1p", "expm1", "sqrt", "square", "abs", "negative", "sign")
FLOATING = ("log1p", "expm1", "sqrt")


@pytest.mark.parametrize("name", UNARY)
def test_unary(engine, name):
    @examples(
        st.one_of(
            matrices((*REAL, *COMPLEX), ("spread", "special", "small")),
            dense_arrays((*REAL, *COMPLEX), ("spread", "special")),
        )
    )
    def check(x):
        if name not in FLOATING and x.dtype == bool:
            with unchanged(x), pytest.raises(TypeError, match=f"{name} is defined for numbers"):
                getattr(cx, name)(x)
            return
        with unchanged(x):
            result = getattr(cx, name)(x)
        assert_like(result, x, reference.result_dtype(name, x.dtype))
        expected = reference.unary(name, x)
        if name in ("log1p", "expm1") or x.dtype.kind == "c":
            assert_elements(result, expected, 2)
        else:  # correctly rounded, to the sign of zero
            assert bits(reference.dense(result)) == bits(expected)

    check()


# ---- axis_scale


@examples(
    st.data(),
    st.sampled_from([0, 1, -1, -2]),
    st.sampled_from(["multiply", "divide"]),
    st.sampled_from(["ieee", "one"]),
)
def test_axis_scale(engine, data, axis, op, zero_division):
    zero_division = zero_division if op == "divide" else "ieee"
    x = data.draw(
        st.one_of(matrices(REAL, ("spread",)), matrices(COMPLEX, ("small",), canonical=True), dense_arrays(REAL))
    )
    n = x.shape[axis]
    shape = data.draw(st.sampled_from([(n,), (n, 1) if axis in (0, -2) else (1, n)]))
    factors = data.draw(arrays(shape, (*REAL, *COMPLEX) if x.dtype.kind == "c" else REAL))
    with unchanged(x, factors):
        result = cx.axis_scale(x, factors, axis=axis, op=op, zero_division=zero_division)
    expected = reference.axis_scale(x, factors, axis, op, zero_division)
    assert_like(result, x, expected.dtype)
    if x.dtype.kind == "c":
        assert_close(reference.dense(result), expected, 8 * eps(expected.dtype), 1e-30)
    else:
        assert bits(reference.dense(result) + expected.dtype.type(0)) == bits(
            expected + expected.dtype.type(0)
        )  # -0 is 0


@examples(st.data(), st.sampled_from([0, 1]), st.sampled_from(["multiply", "divide"]))
def test_axis_scale_of_duplicates(engine, data, axis, op):
    x = data.draw(matrices(values=("small",)))
    factors = data.draw(arrays((x.shape[axis],), FLOATS if op == "divide" else (*INTEGERS, *FLOATS)))
    zero_division = "one" if op == "divide" else "ieee"  # inf - inf is not inf (1 - 1)
    result = cx.axis_scale(x, factors, axis=axis, op=op, zero_division=zero_division)
    assert_elements(result, reference.axis_scale(x, factors, axis, op, zero_division))


@pytest.mark.parametrize("cls", [*CLASSES, np.array])
@pytest.mark.parametrize("axis", [0, 1])
def test_axis_scale_in_the_buffer(engine, cls, axis):
    dense = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32) * (np.arange(20) % 3 > 0)
    for op in ("multiply", "divide"):
        x = cls(dense)
        before = [id(part) for part in parts(x)] if sp.issparse(x) else None
        structure = [part.copy() for part in parts(x)[1:]]
        factors = np.linspace(0.3, 7, x.shape[axis])
        expected = cx.axis_scale(x, factors, axis=axis, op=op)
        assert cx.axis_scale(x, factors, axis=axis, op=op, out=x) is x
        assert bits(x) == bits(expected)
        if sp.issparse(x):
            assert [id(part) for part in parts(x)] == before
            assert all(np.array_equal(part, was) for part, was in zip(parts(x)[1:], structure))


@examples(matrices(FLOATS, ("spread",), buffers=OWN_BUFFERS, canonical=True), st.sampled_from([0, 1]))
def test_in_the_buffer_as_in_a_new_one(engine, x, axis):
    factors = np.linspace(-2, 9, x.shape[axis])
    positive = copy.deepcopy(x)
    np.abs(positive.data, out=positive.data)
    for function, like in (
        (lambda x, out=None: cx.axis_scale(x, factors, axis=axis, out=out), x),
        *((getattr(cx, name), x) for name in UNARY),
        (lambda x, out=None: cx.normalize(x, axis=axis, out=out), positive),
        (lambda x, out=None: cx.normalize(x, axis=axis, target_sum=10, log1p=True, out=out), positive),
    ):
        y = copy.deepcopy(like)
        data, tail = y.data, y.data[y.indptr[-1] :].copy()
        expected = function(y)
        assert function(y, out=y) is y
        assert y.data is data
        assert bits(y.data[: y.indptr[-1]]) == bits(expected.data)
        assert bits(y.data[y.indptr[-1] :]) == bits(tail)


@pytest.mark.parametrize("name", UNARY)
def test_unary_in_the_buffer_of_an_ndarray(engine, name):
    x = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    for y in (x, x.T, x[::2, ::-1], x[:0]):
        y = copy.deepcopy(y)
        expected = getattr(cx, name)(y)
        assert getattr(cx, name)(y, out=y) is y
        assert bits(y) == bits(expected)


# ---- normalize


@examples(st.data(), st.sampled_from([0, 1, -1]), st.sampled_from([None, 1, 1e4, np.float32(0.1)]), st.booleans())
def test_normalize(engine, data, axis, target_sum, log1p):
    x = data.draw(st.one_of(matrices(REAL, ("small",)), dense_arrays(REAL, ("small",))))
    if x.dtype.kind in "if":
        x = np.abs(x) if not sp.issparse(x) else x
        if sp.issparse(x):
            x.data = np.abs(x.data)
    with unchanged(x):
        result = cx.normalize(x, axis=axis, target_sum=target_sum, log1p=log1p)
    assert_like(result, x, x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.dtype(float))
    target_sum = target_sum if target_sum is None else float(target_sum)
    assert_elements(result, reference.normalize(x, axis, target_sum, log1p))


def test_normalize_leaves_rows_whose_total_is_zero_alone(engine):
    rows = np.array([[1.0, 3], [0, 0], [2, -2], [1, -3]])
    expected = [[25, 75], [0, 0], [2, -2], [-50, 150]]
    for cls in (*CLASSES, np.array):
        assert reference.dense(cx.normalize(cls(rows), target_sum=100)).tolist() == expected
        assert reference.dense(cx.normalize(cls(rows.T), axis=0, target_sum=100)).T.tolist() == expected
        empty = cls(np.zeros((3, 2), np.float32))
        assert not reference.dense(cx.normalize(empty)).any()


# ---- to_dense


@examples(anything, st.sampled_from("CF"))
def test_to_dense(engine, x, order):
    with unchanged(x):
        result = cx.to_dense(x, order=order)
    assert type(result) is np.ndarray
    assert result.flags.c_contiguous if order == "C" else result.flags.f_contiguous
    if sp.issparse(x):
        assert result.dtype == x.dtype
    assert np.array_equal(result, reference.dense(x))


def test_in_place_in_a_memory_map(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3, 2))
    x[:] = np.arange(6).reshape(3, 2)
    cx.axis_scale(x, np.array([2.0, 0.5]), axis=1, out=x)
    cx.log1p(x, out=x)
    assert x.tolist() == np.log1p(np.array([[0, 0.5], [4, 1.5], [8, 2.5]], np.float32)).tolist()


# ---- gram


@examples(
    st.one_of(
        matrices(REAL, ("spread", "small", "special"), max_side=5), dense_arrays(REAL, ("spread", "small"), max_side=5)
    ),
    st.sampled_from([None, "float32", "float64"]),
)
def test_gram(engine, x, dtype):
    if max(x.shape) > 50:  # the oracle takes each pair of columns
        x = x[:, :20] if isinstance(x, np.ndarray) else sorted_matrix(x)[:, :20]
    with unchanged(x):
        result = cx.gram(x, dtype=dtype)
    assert type(result) is np.ndarray
    assert result.dtype == (dtype or "float64")
    assert bits(result) == bits(result.T)
    values = np.abs(reference.dense(x).astype(float))
    values = np.where(np.isfinite(values), values, 0)
    with np.errstate(all="ignore"):
        scale = 1e-12 * (values.T @ values)
    assert_close(result, reference.gram(x), eps(result.dtype), np.nan_to_num(scale) + 1e-300)


def test_gram_of_many_rows(engine):
    """Of which more than one block is cast and added."""
    rng = np.random.default_rng(0)
    rows = (rng.integers(-9, 9, (20_000, 7)) * (rng.random((20_000, 7)) < 0.8)).astype(np.int8)
    exact = rows.astype(int).T @ rows.astype(int)
    for x in (rows, *(cls(rows) for cls in CLASSES)):
        assert cx.gram(x).tolist() == exact.tolist()


def many_columns(cls, dtype, index=np.int32):
    """So many that their products are formed in panels: half of them dense, with duplicates and unsorted rows."""
    rng = np.random.default_rng(0)
    n, m = 1500, 750
    dense = rng.integers(1, 99, (n, m)) * (rng.random((n, m)) < np.where(np.arange(m) % 2, 0.3, 0.01))
    coo = sp.coo_array(dense)
    rows, columns = (np.concatenate((part, part[::7])) for part in coo.coords)
    values = np.concatenate((coo.data, coo.data[::7])).astype(dtype)
    order = rng.permutation(len(values))
    order = order[np.argsort((rows if cls.__name__.startswith("csr") else columns)[order], kind="stable")]
    x = cls((n, m), dtype=dtype)
    major, minor = (rows, columns) if x.format == "csr" else (columns, rows)
    x.data, x.indices = values[order], minor[order].astype(index)
    lengths = np.bincount(major, minlength=n if x.format == "csr" else m)
    x.indptr = np.concatenate(([0], np.cumsum(lengths))).astype(index)
    return x


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_gram_of_many_columns(engine, monkeypatch, cls, dtype):
    monkeypatch.setattr("csraxis.dispatch._blocks.PARALLEL_FROM", 1000)
    monkeypatch.setattr("csraxis.dispatch._gram.BLOCK_VALUES", 20_000)  # several blocks with sums of their own
    x = many_columns(cls, dtype, np.int64)
    dense = reference.dense(many_columns(cls, "int64")).astype(float)
    grams = []
    for threads in (1, 3):
        with unchanged(x), cx.config(threads=threads):
            grams.append(cx.gram(x))
        assert np.array_equal(grams[-1], dense.T @ dense)  # of whole numbers: exactly
    if dtype.startswith("float"):
        x.data = np.sqrt(x.data) / 3
        dense = reference.dense(x).astype(float)
        grams = []
        for threads in (1, 3):
            with cx.config(threads=threads):
                grams.append(cx.gram(x))
        assert bits(grams[0]) == bits(grams[1])
        np.testing.assert_allclose(grams[0], dense.T @ dense, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_gram_of_many_columns_with_one_that_is_not_finite(engine, value):
    """What is not stored is not multiplied: only the products of the entry's own row are touched."""
    x = many_columns(sp.csr_array, "float64")
    x.sum_duplicates()
    row = slice(*x.indptr[5:7])
    x.data[row.start] = value
    column, others = x.indices[row.start], x.indices[row]
    result = cx.gram(x)
    huge = ~np.isfinite(result) | (np.abs(result) > 1e190)
    expected = np.zeros_like(huge)
    expected[column, others] = expected[others, column] = True
    assert np.array_equal(huge, expected)
    assert bits(result) == bits(result.T)


def test_gram_casts_some_rows_at_a_time(engine):
    x = sp.random_array((8000, 500), density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(0))
    cx.gram(x)  # what is compiled or found out once
    tracemalloc.start()
    try:
        cx.gram(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 8 * 500**2 + x.data.nbytes / 2  # 8 and 3 MB: sums, those of a few rows, what has no panel


def test_gram_refuses_what_is_too_large(engine):
    for x in (sp.csr_array((3, 100)), np.ones((3, 100))):
        with pytest.raises(MemoryError, match="max_bytes"):
            cx.gram(x, max_bytes=79_999)
        assert cx.gram(x, max_bytes=80_000).shape == (100, 100)
    with pytest.raises(MemoryError, match="select columns first"):
        cx.gram(sp.csr_array((3, 2**24)))
    for dtype in (int, complex, np.float16):
        with pytest.raises(TypeError, match="dtype of a Gram matrix must be"):
            cx.gram(np.eye(3), dtype=dtype)


def test_an_error_names_the_operand():
    bad = sp.csr_array(np.eye(3))
    bad.indices[1] = 7
    for call, name in (
        (lambda: cx.multiply(np.ones(3), bad), "x2"),
        (lambda: cx.multiply(bad, np.ones(3)), "x1"),
        (lambda: cx.divide(np.eye(3), bad), "x2"),
        (lambda: cx.divide(sp.csr_array(np.eye(3)), bad), "x2"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}\.indices\[1\] is 7"):
            call()
    with pytest.raises(OverflowError):
        cx.multiply(sp.csr_array(np.eye(3, dtype=np.int8)), 10**30)


@pytest.mark.parametrize("function", [cx.multiply, cx.divide])
def test_duplicates_times_infinity_or_over_zero_are_one_element(function):
    x = sp.csr_array((np.array([2.0, -1.0]), np.array([0, 0]), np.array([0, 2])), shape=(1, 2))
    factor = np.inf if function is cx.multiply else 0.0
    for other in (factor, np.array([factor, 1]), np.array([[factor, 1]])):
        assert function(x, other).toarray().tolist() == [[np.inf, 0]]
    op = function.__name__
    assert cx.axis_scale(x, np.array([factor]), axis=0, op=op).toarray().tolist() == [[np.inf, 0]]
    with pytest.raises(ValueError, match="without duplicates"):
        cx.axis_scale(x, np.array([factor]), axis=0, op=op, out=x)


def test_a_stored_negative_zero_divides_as_in_the_standard():
    zero = sp.csr_array((np.array([-0.0]), np.array([0]), np.array([0, 1])), shape=(1, 2))
    assert cx.divide(sp.csr_array(np.ones((1, 2))), zero).toarray().tolist() == [[-np.inf, np.inf]]
