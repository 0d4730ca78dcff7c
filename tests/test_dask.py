"""On Dask arrays: the results of the same calls in memory, lazily, and what is declared is what comes."""

import pickle
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import csraxis as cx
from checks import assert_close, bits

da = pytest.importorskip("dask.array")

import dask  # noqa: E402


def as_matrix(block):
    return block.view(np.matrix)


KINDS = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "csc_matrix": sp.csc_matrix,
    "ndarray": np.asarray,
    "matrix": as_matrix,
}
SPARSE = ("csr_array", "csr_matrix", "csc_array", "csc_matrix")


def whole_numbers(n, m, dtype):
    """About half zeros, one row and one column of zeros. Sums of them and of their squares are exact."""
    rng = np.random.default_rng(n)
    dense = rng.integers(-3 if dtype == "int32" else 1, 9, (n, m)) * (rng.random((n, m)) < 0.6)
    dense[n // 2] = dense[:, m // 2] = 0
    return dense.astype(dtype)


def fractions(n, m, dtype):
    """Of one sign, so that sums are well conditioned, and over eight powers of ten."""
    return (whole_numbers(n, m, float) * np.exp(np.random.default_rng(m).normal(scale=3, size=(n, m)))).astype(dtype)


VALUES = {
    "counts": partial(whole_numbers, dtype="float32"),
    "integers": partial(whole_numbers, dtype="int32"),
    "float64": partial(fractions, dtype="float64"),
    "float32": partial(fractions, dtype="float32"),
}
EXACT = ("counts", "integers")

CHUNKS = {
    "one by one": (1, 1),
    "columns": (-1, 1),
    "rows": (1, -1),
    "uneven": ((3, 1, 2, 1), (2, 3)),
    "whole": (-1, -1),
}
UNEVEN_60_40 = ((17, 1, 30, 12), (5, 25, 10))


def lazy(dense, kind, chunks):
    return da.from_array(dense, chunks=chunks).map_blocks(KINDS[kind])


def beside(x, array, kind=np.asarray):
    """An operand: on Dask too where x is, in chunks that are not those of x."""
    return da.from_array(array, chunks=2).map_blocks(kind) if isinstance(x, da.Array) else kind(array)


def vector(n):
    """Factors that round."""
    return 3 / np.arange(2.0, n + 2)


def some_zero(n):
    return np.where(np.arange(n) % 3 == 1, 0, vector(n))


def dense_like(x):
    return np.outer(vector(x.shape[0]), vector(x.shape[1]))


AXES = (0, 1, None, (0, 1), -1, ())
REDUCTIONS = (cx.sum, cx.mean, cx.var, cx.std, cx.mean_var, cx.count_nonzero)

# Each call takes x, a matrix in memory or a Dask array, and returns a result or two.
CALLS = {
    f"{f.__name__} {axis} {keepdims}": partial(f, axis=axis, keepdims=keepdims)
    for f in REDUCTIONS
    for axis in AXES
    for keepdims in (False, True)
} | {
    "sum float32": lambda x: cx.sum(x, axis=0, dtype=np.float32),
    "sum float64": lambda x: cx.sum(x, axis=1, dtype="float64"),
    "sum int64": lambda x: cx.sum(x, dtype=np.int64),
    "sum uint8": lambda x: cx.sum(cx.multiply(x, x.dtype.type(30)), axis=0, dtype=np.uint8),
    "mean float32": lambda x: cx.mean(x, axis=0, dtype=np.float32),
    "mean float64": lambda x: cx.mean(x, dtype=float),
    "var 1": lambda x: cx.var(x, axis=0, correction=1),
    "var 0.5": lambda x: cx.var(x, correction=0.5),
    "var too few": lambda x: cx.var(x, axis=1, correction=x.shape[1]),
    "std 1": lambda x: cx.std(x, axis=1, correction=1),
    "mean_var 1": lambda x: cx.mean_var(x, axis=0, correction=1),
    "sum of sums": lambda x: cx.sum(cx.sum(x, axis=0)),
    "var of means": lambda x: cx.var(cx.mean(x, axis=1, keepdims=True), axis=0),
    "log1p": cx.log1p,
    "to_dense C": cx.to_dense,
    "to_dense F": lambda x: cx.to_dense(x, order="F"),
    "multiply python int": lambda x: cx.multiply(x, 3),
    "multiply python float": lambda x: cx.multiply(2.3, x),
    "multiply float64": lambda x: cx.multiply(x, np.float64(0.3)),
    "multiply int64": lambda x: cx.multiply(np.int64(3), x),
    "multiply vector": lambda x: cx.multiply(vector(x.shape[1]), x),
    "multiply row": lambda x: cx.multiply(x, vector(x.shape[1])[None]),
    "multiply column": lambda x: cx.multiply(x, vector(x.shape[0])[:, None]),
    "multiply dense": lambda x: cx.multiply(x, dense_like(x)),
    "multiply by dense": lambda x: cx.multiply(dense_like(x), x),
    "multiply lazy vector": lambda x: cx.multiply(x, beside(x, vector(x.shape[1]))),
    "multiply lazy column": lambda x: cx.multiply(beside(x, vector(x.shape[0])[:, None]), x),
    "multiply lazy dense": lambda x: cx.multiply(x, beside(x, dense_like(x))),
    "multiply own total": lambda x: cx.multiply(x, cx.sum(x)),
    "divide python int": lambda x: cx.divide(x, 3),
    "divide python float": lambda x: cx.divide(x, 2.3),
    "divide into python float": lambda x: cx.divide(2.3, x),
    "divide by zero": lambda x: cx.divide(x, 0),
    "divide float64": lambda x: cx.divide(x, np.float64(0.3)),
    "divide vector": lambda x: cx.divide(x, some_zero(x.shape[1])),
    "divide into vector": lambda x: cx.divide(some_zero(x.shape[1]), x),
    "divide column": lambda x: cx.divide(x, vector(x.shape[0])[:, None]),
    "divide dense": lambda x: cx.divide(x, dense_like(x)),
    "divide into dense": lambda x: cx.divide(dense_like(x), x),
    "divide into lazy dense": lambda x: cx.divide(beside(x, dense_like(x)), x),
    "divide own sums": lambda x: cx.divide(x, cx.sum(x, axis=1, keepdims=True)),
    "axis_scale 0": lambda x: cx.axis_scale(x, vector(x.shape[0]), axis=0),
    "axis_scale 1": lambda x: cx.axis_scale(x, vector(x.shape[1]), axis=1),
    "axis_scale -1 integers": lambda x: cx.axis_scale(x, np.arange(x.shape[1]), axis=-1),
    "axis_scale 0 column": lambda x: cx.axis_scale(x, 2 * vector(x.shape[0])[:, None], axis=0),
    "axis_scale 0 divide": lambda x: cx.axis_scale(x, some_zero(x.shape[0]), axis=0, op="divide"),
    "axis_scale 1 divide": lambda x: cx.axis_scale(x, some_zero(x.shape[1]), axis=1, op="divide"),
    "axis_scale 0 one": lambda x: cx.axis_scale(x, some_zero(x.shape[0]), axis=0, op="divide", zero_division="one"),
    "axis_scale 1 one": lambda x: cx.axis_scale(x, some_zero(x.shape[1]), axis=1, op="divide", zero_division="one"),
    "axis_scale 0 lazy": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[0])), axis=0),
    "axis_scale 1 lazy row": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[1])[None]), axis=1),
    "axis_scale 0 matrix": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[0])[:, None], kind=as_matrix), axis=0),
    "multiply matrix": lambda x: cx.multiply(x, beside(x, vector(x.shape[0])[:, None], kind=as_matrix)),
    "axis_scale 1 own sums": lambda x: cx.axis_scale(x, cx.sum(x, axis=0), axis=1, op="divide", zero_division="one"),
    "normalize 1": lambda x: cx.normalize(x, target_sum=1e4),
    "normalize 0": lambda x: cx.normalize(x, axis=0, target_sum=100),
    "normalize 1 log1p": lambda x: cx.normalize(x, axis=-1, target_sum=1e4, log1p=True),
    "normalize 0 log1p": lambda x: cx.normalize(x, axis=0, target_sum=1e4, log1p=True),
}  # fmt: skip
# Calls whose bits may depend on the chunking though x holds whole numbers: they reduce fractions. (NumPy's logarithm of
# an ndarray may do so too.)
FRACTIONS = ("var of means",)
MEDIAN = {
    "normalize 1 median": cx.normalize,
    "normalize 0 median": partial(cx.normalize, axis=0),
    "normalize 1 median log1p": partial(cx.normalize, log1p=True),
}


class ComputedError(Exception):
    """A task ran before compute."""


def boom(*args, **kwargs):
    raise ComputedError


def results(returned):
    return list(returned) if isinstance(returned, tuple) else [returned]


def put_together(array, blocks):
    """An ndarray of the computed blocks, each of which is what the Dask array declares."""

    def check(block, place):
        assert block.shape == tuple(sizes[i] for sizes, i in zip(array.chunks, place))
        assert block.dtype == array.dtype
        assert type(block) is type(array._meta) or (block.ndim == 0 and isinstance(block, np.generic))
        assert array._meta.ndim == block.ndim
        assert not isinstance(block, np.matrix)
        return block if isinstance(block, np.ndarray | np.generic) else block.toarray()

    def walk(nested, place=()):
        return (
            [walk(b, (*place, i)) for i, b in enumerate(nested)] if isinstance(nested, list) else check(nested, place)
        )

    return np.block(walk(blocks))


def compare(x, dask_x, calls, exact):
    """Each call on Dask, built under a scheduler that raises, against the call in memory."""
    with dask.config.set(scheduler=boom):
        built = {name: results(call(dask_x)) for name, call in calls.items()}
    computed = dask.compute(
        {name: [array.to_delayed(optimize_graph=False).tolist() for array in arrays] for name, arrays in built.items()},
        scheduler="sync",
    )[0]
    for name, call in calls.items():
        for array, blocks, expected in zip(built[name], computed[name], results(call(x)), strict=True):
            try:
                actual = put_together(array, blocks)
                assert type(expected) is type(array._meta) or (array.ndim == 0 and isinstance(expected, np.generic))
                assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
                expected = expected if isinstance(expected, np.ndarray | np.generic) else expected.toarray()
                actual = actual.astype(expected.dtype)  # np.block puts the bytes in native order
                if exact and name not in FRACTIONS and not ("log1p" in name and isinstance(x, np.ndarray)):
                    assert bits(actual) == bits(np.asarray(expected))
                else:
                    assert_close(actual, expected, 1e-6 if expected.dtype == np.float32 else 1e-12)
            except Exception as error:
                error.add_note(f"in {name}")
                raise


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("kind", KINDS)
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


# What runs, and when


def counting_scheduler():
    """A scheduler, and the list of its calls."""
    calls = []

    def scheduler(graph, keys, **kwargs):
        calls.append(keys)
        return dask.get(graph, keys, **kwargs)

    return scheduler, calls


def test_the_raising_scheduler_would_be_noticed():
    with dask.config.set(scheduler=boom), pytest.raises(ComputedError):
        lazy(whole_numbers(7, 5, float), "csr_array", (3, 2)).compute()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEDIAN)
def test_median_target_computes_once(name, kind):
    dense = whole_numbers(7, 5, "float32")
    scheduler, calls = counting_scheduler()
    with dask.config.set(scheduler=scheduler):
        built = MEDIAN[name](lazy(dense, kind, CHUNKS["uneven"]))
    assert len(calls) == 1
    # The target is a number by now; the rest is lazy.
    compare(KINDS[kind](dense), built, {name: lambda x: x if isinstance(x, da.Array) else MEDIAN[name](x)}, True)


def test_mean_and_variance_share_one_pass():
    reads = []
    x = lazy(fractions(7, 5, float), "csr_array", CHUNKS["uneven"]).map_blocks(
        lambda b: reads.append(1) or b, meta=sp.csr_array((0, 0))
    )
    dask.compute(*cx.mean_var(x, axis=0), scheduler="sync")
    assert len(reads) == x.npartitions


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_compute(kind, scheduler):
    """Dask puts the chunks together itself."""
    dense = whole_numbers(60, 40, float)
    x, whole = lazy(dense, kind, UNEVEN_60_40), KINDS[kind](dense)
    for name in ("sum 0 False", "var None False", "normalize 0 log1p", "to_dense C"):
        actual, expected = CALLS[name](x).compute(scheduler=scheduler), CALLS[name](whole)
        if kind in SPARSE and "normalize" in name:
            actual, expected = actual.toarray(), expected.toarray()
        assert_close(actual, expected, 1e-12)


def test_distributed():
    distributed = pytest.importorskip("distributed")
    dense = fractions(60, 40, "float32")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster):
        x = lazy(dense, "csr_matrix", UNEVEN_60_40)
        scaled = cx.normalize(cx.axis_scale(x, vector(40), axis=1), log1p=True)
        actual = dask.compute(scaled, *cx.mean_var(scaled, axis=0), cx.count_nonzero(x))
    scaled = cx.normalize(cx.axis_scale(sp.csr_matrix(dense), vector(40), axis=1), log1p=True)
    assert_close(actual[0].toarray(), scaled.toarray(), 1e-6)
    for one, expected in zip(actual[1:], (*cx.mean_var(scaled, axis=0), np.count_nonzero(dense)), strict=True):
        assert_close(one, expected, 1e-6)


# Graphs


def test_names_tell_calls_apart():
    """Two equal calls have one name, whatever was computed between them; calls of one name have one result."""
    dense = fractions(7, 5, float)
    x, whole = lazy(dense, "csr_matrix", (3, 2)).persist(scheduler="sync"), sp.csr_matrix(dense)
    seen = {}
    for name, call in CALLS.items():
        first, expected = results(call(x)), results(call(whole))
        dask.compute(first, scheduler="sync")
        assert x._meta.has_canonical_format  # a flag that SciPy now caches
        assert [array.name for array in first] == [array.name for array in results(call(x))], name
        for array, in_memory in zip(first, expected):
            assert bits(seen.setdefault(array.name, in_memory)) == bits(in_memory), name
    assert len(seen) > 0.6 * len(CALLS)
    other = results(CALLS["sum 0 False"](lazy(2 * dense, "csr_matrix", (3, 2))))[0].name
    assert other not in seen


def test_names_are_the_same_in_every_process():
    from fresh import run

    script = """
        import csraxis as cx, dask.array as da, numpy as np, scipy.sparse as sp
        x = da.from_array(np.eye(4), chunks=2, name="x").map_blocks(sp.csr_array, name="y")
        print(cx.sum(x, axis=0).name, cx.var(x, correction=1).name, cx.normalize(x, target_sum=2.0, log1p=True).name)
        print(cx.axis_scale(x, np.arange(4), axis=0).name, cx.divide(x, 3).name, cx.log1p(x).name)
    """
    assert run(script, PYTHONHASHSEED="1") == run(script, PYTHONHASHSEED="2")


@pytest.mark.parametrize("module", ["pickle", "cloudpickle"])
def test_graphs_pickle(module):
    module = pytest.importorskip(module)
    x = lazy(whole_numbers(7, 5, float), "csc_matrix", (3, 2))
    built = {name: results(call(x)) for name, call in CALLS.items()}
    copied = pickle.loads(module.dumps(built))
    expected, actual = dask.compute(built, copied, scheduler="sync")
    for name in CALLS:
        for one, other in zip(expected[name], actual[name], strict=True):
            assert bits(one) == bits(other), name


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
        "log1p",
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


# What is refused, when it is called


X = lazy(np.eye(7, 5), "csr_array", (3, 2))
LONG_DOUBLE = da.from_array(np.eye(3, dtype=np.longdouble), chunks=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cx.log1p(X, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.axis_scale(X, np.ones(7), axis=0, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.normalize(X, target_sum=1, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.axis_scale(X, np.ones(5), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, np.ones(1), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones(5, chunks=3), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 1)), axis=1), ValueError, r"factors must have shape \(5,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 2)), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 5, 1)), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (
            lambda: cx.axis_scale(X, X[:, :1], axis=0),
            TypeError,
            "factors must be a dense array .* got csr_array chunks",
        ),
        (lambda: cx.axis_scale(np.eye(7), da.ones(7), axis=0), TypeError, "factors must be an array of shape"),
        (lambda: cx.axis_scale(X, da.ones(7, dtype=complex), axis=0), TypeError, "factors must be real"),
        (lambda: cx.axis_scale(da.ones(7), np.ones(7), axis=0), ValueError, "x must be 2-D"),
        (lambda: cx.normalize(da.ones(7), axis=0), ValueError, "x must be 2-D"),
        (lambda: cx.normalize(X, target_sum=0), ValueError, "target_sum must be a positive number"),
        (lambda: cx.normalize(X.astype(complex), target_sum=1), TypeError, "real numbers"),
        (lambda: cx.var(X.astype(complex)), TypeError, "real numbers"),
        (lambda: cx.sum(X, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds"),
        (lambda: cx.to_dense(X, order="A"), ValueError, 'order must be "C" or "F"'),
        (lambda: cx.multiply(X, np.ones(7)), ValueError, "does not broadcast"),
        (lambda: cx.multiply(X, da.ones((5, 7))), ValueError, "does not broadcast"),
        (lambda: cx.multiply(np.ones((2, 7, 5)), X), ValueError, "does not broadcast"),
        (lambda: cx.multiply(X, X), TypeError, "two sparse matrices"),
        (lambda: cx.divide(X, sp.csr_array(np.eye(7, 5))), TypeError, "two sparse matrices"),
        (lambda: cx.multiply(da.ones((7, 5)), sp.csr_array(np.eye(7, 5))), TypeError, "in memory and a Dask array"),
        *[
            (partial(call, LONG_DOUBLE), TypeError, "complex128 dtype; got (float128|longdouble)")
            for call in (
                cx.sum,
                cx.count_nonzero,
                cx.var,
                cx.log1p,
                cx.to_dense,
                lambda x: cx.multiply(x, 2),
                cx.normalize,
            )
        ],
    ],
)
def test_refused(call, error, message):
    with dask.config.set(scheduler=boom), pytest.raises(error, match=message):
        call()
