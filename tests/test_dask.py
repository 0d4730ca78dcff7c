"""On Dask arrays: the results of the same calls in memory, in chunks that are what was declared."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import csraxis as cx
from checks import assert_close
from conftest import LONG
from dask_calls import (
    CALLS,
    CHOOSING,
    CHUNKS,
    EXACT,
    FRACTIONAL,
    KINDS,
    REDUCTIONS,
    SPARSE,
    UNARY,
    UNEVEN_60_40,
    VALUES,
    ZERO_BY_ZERO,
    beside,
    boom,
    compare,
    da,
    dask,
    fractions,
    lazy,
    results,
    whole_numbers,
)


def combinations():
    """Every kind of chunk in every chunking, with one set of whole numbers and one of fractions in turn."""
    for i, kind in enumerate(KINDS):
        for j, chunks in enumerate(CHUNKS):
            for values in VALUES if LONG else (EXACT[(i + j) % 2], FRACTIONAL[(i + j) % 2]):
                yield kind, chunks, values


@pytest.mark.parametrize(("kind", "chunks", "values"), list(combinations()))
def test_same_as_in_memory(kind, chunks, values):
    dense = VALUES[values](7, 5)
    compare(KINDS[kind](dense), lazy(dense, kind, CHUNKS[chunks]), CALLS, values in EXACT)


FEW = ("sum 0 False", "sum None False", "mean_var 1 True", "axis_scale 1", "normalize 1 log1p")


@pytest.mark.parametrize(
    ("kind", "chunks", "values", "names"),
    [
        ("csr_array", UNEVEN_60_40, "float64", CALLS),
        ("csc_matrix", UNEVEN_60_40, "counts", CALLS),
        ("matrix", UNEVEN_60_40, "integers", CALLS),
        ("ndarray", (-1, -1), "float32", CALLS),
        ("csr_matrix", (1, -1), "float32", FEW),
        ("csc_array", (1, -1), "counts", FEW),
        ("csr_array", (-1, 1), "counts", FEW),
        ("ndarray", (-1, 1), "float64", FEW),
        ("csr_matrix", (1, 1), "counts", FEW),  # 2,400 chunks: seconds a call
    ],
)
def test_same_as_in_memory_60_40(kind, chunks, values, names):
    dense = VALUES[values](60, 40)
    calls = {name: CALLS[name] for name in names}
    compare(KINDS[kind](dense), lazy(dense, kind, chunks), calls, values in EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines(kind, engine):
    dense = fractions(60, 40, "float32")
    compare(KINDS[kind](dense), lazy(dense, kind, UNEVEN_60_40), {name: CALLS[name] for name in FEW}, False)


@st.composite
def chunkings(draw, length):
    """Sizes of chunks, empty ones among them, that cover an axis."""
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=5)))
    return tuple(np.diff([0, *cuts, length]).tolist())


@given(st.data())
def test_any_chunking_equals_no_chunking(data):
    n, m = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    elements = st.one_of(st.just(0), st.integers(-9, 9))
    dense = np.array(data.draw(st.lists(elements, min_size=n * m, max_size=n * m)), float).reshape(n, m)
    kind = data.draw(st.sampled_from(list(KINDS)))
    chunks = data.draw(chunkings(n)), data.draw(chunkings(m))
    name = data.draw(st.sampled_from(list(CALLS)))
    if data.draw(st.booleans()):
        compare(KINDS[kind](dense), lazy(dense, kind, chunks), {name: CALLS[name]}, True)
    else:  # of one sign, so that sums are well conditioned
        dense = np.abs(dense) ** 3.3 + np.pi * (dense != 0)
        compare(KINDS[kind](dense), lazy(dense, kind, chunks), {name: CALLS[name]}, False)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_dense_chunks(kind, order):
    x = lazy(whole_numbers(7, 5, float), kind, (4, 3))
    dense = cx.to_dense(x, order=order)
    for block in dense.to_delayed().ravel():
        assert block.compute(scheduler="sync").flags[f"{order}_CONTIGUOUS"]
    assert dense.name != cx.to_dense(x, order="F" if order == "C" else "C").name


# Values that are not added


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("kind", KINDS)
def test_products(kind, chunks):
    """Of powers of two, with a zero here and there, so that they are exact and few are zero."""
    dense = np.random.default_rng(0).choice([-2, -1, 0.5, 1, 2, 4], (7, 5))
    dense[2, 3] = dense[5, 4] = 0
    calls = {name: call for name, call in CALLS.items() if name.startswith("prod")}
    assert np.count_nonzero(cx.prod(dense, axis=0)) == 3
    compare(KINDS[kind](dense), lazy(dense, kind, CHUNKS[chunks]), calls, True)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinities(kind):
    dense = whole_numbers(7, 5, float)
    dense[0, 0], dense[4, 1], dense[5, 4], dense[6, 4] = np.nan, np.inf, -np.inf, -1
    names = {f.__name__ for f in (cx.sum, cx.mean, *CHOOSING, *UNARY)}
    calls = {name: call for name, call in CALLS.items() if name.split()[0] in names}
    for chunks in CHUNKS.values():
        compare(KINDS[kind](dense), lazy(dense, kind, chunks), calls, True)


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_row_or_column(kind, lazily):
    dense, other = whole_numbers(7, 5, float), whole_numbers(7, 5, float) + 1
    operands = {"row": other[:1], "column": other[:, :1]}

    def call(x, name, place):
        operand = operands[place]
        operand = beside(x, operand, sp.csr_array) if lazily else sp.csr_array(operand)
        return getattr(cx, name)(x, operand)

    calls = {
        f"{name} {place}": partial(call, name=name, place=place)
        for name in ("multiply", "divide")
        for place in operands
    }
    compare(KINDS[kind](dense), lazy(dense, kind, (4, 3)), calls, True)


# Chunks that are not what is declared


@pytest.mark.parametrize("values", ["counts", "float64"])
@pytest.mark.parametrize(
    ("declared", "kind"), [("ndarray", "csr_array"), ("csr_array", "ndarray"), ("csr_array", "csc_matrix")]
)
def test_chunks_of_another_class_than_declared(declared, kind, values):
    """The numbers are right. So is the dtype, but chunks may stay of their class."""
    dense = VALUES[values](7, 5)
    meta = KINDS[declared](np.empty((0, 0), dense.dtype))
    x = da.from_array(dense, chunks=(4, 3)).map_blocks(KINDS[kind], meta=meta)
    calls = {name: call for name, call in CALLS.items() if name not in ZERO_BY_ZERO}
    compare(KINDS[declared](dense), x, calls, False, any_class=True)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_another_type_than_declared(kind):
    dense = whole_numbers(7, 5, float)
    x = da.from_array(dense, chunks=(4, 3)).map_blocks(
        lambda block: KINDS[kind](block.astype(np.float32)), meta=KINDS[kind](np.empty((0, 0)))
    )
    assert x.dtype == float
    compare(KINDS[kind](dense), x, CALLS, True)


# Chunks of other shapes


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_unknown_size(kind):
    """After rows were chosen by a condition."""
    dense = whole_numbers(60, 40, float)
    keep = dense[:, 0] > 2
    x = lazy(dense, kind, UNEVEN_60_40)[da.from_array(keep, chunks=(UNEVEN_60_40[0],))]
    assert np.isnan(x.shape[0])
    whole = KINDS[kind](dense[keep])
    names = [name for name in CALLS if name.split()[0] in {f.__name__ for f in REDUCTIONS} and "too few" not in name]
    names += [
        *(f.__name__ for f in UNARY),
        "gram",
        "multiply itself",
        "divide itself",
        "multiply vector",
        "multiply own total",
        "divide own sums",
        "axis_scale 1",
        "axis_scale 1 own sums",
    ]
    names += ["normalize 1", "normalize 0", "normalize 1 log1p"]
    for name in names:
        with dask.config.set(scheduler=boom):
            built = results(CALLS[name](x))
        for actual, expected in zip(dask.compute(*built, scheduler="sync"), results(CALLS[name](whole))):
            if sp.issparse(expected):
                actual, expected = actual.toarray(), expected.toarray()
            assert not isinstance(actual, np.matrix), name
            assert_close(actual, expected, 1e-12)
    by_row = cx.axis_scale(x, cx.sum(x, axis=1), axis=0, op="divide", zero_division="one")
    assert_close(cx.sum(by_row, axis=1).compute(), 1.0 * (dense[keep].sum(axis=1) > 0), 1e-12)
    n = keep.sum()
    for factors in (np.ones(n), [1.0] * n, da.ones(n, chunks=n)):  # nobody knows which factor belongs to which chunk
        with pytest.raises(ValueError, match="compute_chunk_sizes"):
            cx.axis_scale(x, factors, axis=0)


@pytest.mark.parametrize("chunks", [((0, 4, 0, 3), (5,)), ((7,), (2, 0, 3))])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_chunks(kind, chunks):
    dense = whole_numbers(7, 5, float)
    compare(KINDS[kind](dense), lazy(dense, kind, chunks), CALLS, True)


@pytest.mark.parametrize("shape", [(0, 5), (7, 0), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_matrices(kind, shape):
    dense = np.empty(shape)
    calls = {name: call for name, call in CALLS.items() if "lazy" not in name and "matrix" not in name}
    compare(KINDS[kind](dense), lazy(dense, kind, -1), calls, True)


@pytest.mark.parametrize("ndim", [0, 1, 3, 5])
def test_any_number_of_dimensions(ndim):
    dense = np.random.default_rng(ndim).integers(0, 9, (2, 3, 2, 3, 2)[:ndim]).astype(float)
    axes = {None, (), *range(ndim), tuple(range(ndim))[::2]}
    calls = {f"{f.__name__} {axis}": partial(f, axis=axis) for f in REDUCTIONS for axis in axes}
    calls |= {"log1p": cx.log1p, "multiply": lambda x: cx.multiply(x, np.full(2, 3.0)), "to_dense": cx.to_dense}
    compare(dense, da.from_array(dense, chunks=2), calls, True)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in ("csr_matrix", "csc_array", "ndarray")
        for dtype in ("complex64", "complex128", "bool", "uint64")
    ]
    + [("ndarray", ">f4"), ("ndarray", ">i2")],  # SciPy makes no byte-swapped matrix
)
def test_other_dtypes(kind, dtype):
    dense = whole_numbers(7, 5, float).astype(dtype)
    if dense.dtype.kind == "c":
        dense *= 1 + 2j
    names = [
        "sum 0 False",
        "sum None True",
        "mean 1 False",
        "count_nonzero 0 False",
        "axis_scale 1",
        "log1p",
        "to_dense C",
    ]
    names += ["multiply python int", "multiply vector", "multiply dense", "divide float64"]
    names += [] if dense.dtype.kind == "c" else ["var 0 False", "std None False", "normalize 1 log1p", "normalize 0"]
    compare(KINDS[kind](dense), lazy(dense, kind, (3, 2)), {name: CALLS[name] for name in names}, True)


def test_two_sparse_arrays_of_unknown_size():
    """An implicit zero beside an infinity stays zero, as in memory."""
    a, b = np.array([[np.inf, 1, 2], [0, 3, 4.0], [5, 6, 7]]), np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1.0]])
    keep = da.from_array(np.array([True, False, True]), chunks=2)
    filtered = [lazy(x, "csr_array", (2, 3))[keep] for x in (a, b)]
    expected = cx.multiply(*(sp.csr_array(x[::2]) for x in (a, b))).toarray()
    assert cx.to_dense(cx.multiply(*filtered)).compute(scheduler="sync").tolist() == expected.tolist()


def test_classes_in_memory_have_layers_of_their_own():
    x = lazy(whole_numbers(4, 6, float), "csr_array", 2)
    operands = [cls(whole_numbers(4, 6, float)) for cls in (sp.csr_array, sp.csr_matrix)]
    made = dask.compute(*(cx.multiply(operand, x) for operand in operands), scheduler="sync")
    assert [type(one) for one in made] == [sp.csr_array, sp.csr_matrix]


def test_a_smaller_sparse_operand_and_empty_chunks_beside_one_in_memory():
    x = whole_numbers(2, 3, float)
    row = sp.csr_array(np.array([1.0, 0, 2]))
    expected = x * row.toarray()
    for pair in ((row, lazy(x, "csr_array", 2)), (lazy(x, "csr_array", 2), row)):
        assert cx.to_dense(cx.multiply(*pair)).compute(scheduler="sync").tolist() == expected.tolist()
    ones = da.from_array(np.ones((1, 3)), chunks=((1, 0), (3,)))
    assert cx.to_dense(cx.multiply(sp.csr_array(x), ones)).compute(scheduler="sync").tolist() == x.tolist()


def test_every_operand_comes_in_its_declared_type():
    x = da.from_array(np.full((4, 4), 0.1), chunks=2)
    lying = x.map_blocks(sp.csr_array, dtype="f4", meta=sp.csr_array((0, 0), dtype="f4"))
    right = lazy(np.ones((4, 4), "f4"), "csr_array", 2)
    for call in (cx.multiply, cx.divide):
        made = call(right, lying)
        assert made.compute(scheduler="sync").dtype == made.dtype == np.float32
    factors = da.from_array(np.full(4, 2.5), chunks=2).map_blocks(np.asarray, meta=np.empty(0, int))
    made = cx.axis_scale(lazy(np.ones((4, 4), int), "csr_array", 2), factors, axis=0)
    assert made.compute(scheduler="sync").dtype == made.dtype == np.int64
