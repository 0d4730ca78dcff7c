"""cx.pp on Dask: lazy, in as few passes as can be, and the same as in memory for every kind of chunk and chunking."""

import pickle
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import unchanged
from csraxis.dispatch._select import take
from test_pp import FUNCTIONS, PLACES, counts, dense, matrix

ad = pytest.importorskip("anndata")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")


def np_matrix(x):
    return np.array(x).view(np.matrix)


CHUNKS = (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array, np.array, np_matrix)
CALLS = [
    ("normalize_total", {"target_sum": 1e4}),
    ("normalize_total", {"key_added": "size"}),
    ("normalize_total", {"exclude_highly_expressed": True, "max_fraction": 0.5, "key_added": "size"}),
    ("log1p", {}),
    ("log1p", {"base": 2}),
    ("normalize_log1p", {"target_sum": 1e4, "key_added": "size"}),
    ("normalize_log1p", {"base": 10}),
]

each_chunk = pytest.mark.parametrize("cls", CHUNKS, ids=lambda cls: cls.__name__)
each_call = pytest.mark.parametrize(("name", "options"), CALLS, ids=str)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


class Source:
    """A Dask array that notes how often each of its chunks is read; a chunk is the same object each time."""

    def __init__(self, cls, x, chunks):
        chunks = da.core.normalize_chunks(chunks, x.shape)
        edges = [np.cumsum((0, *sizes)) for sizes in chunks]
        self.reads = Counter()
        self.chunks = {
            (i, j): cls(x[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]])
            for i in range(len(chunks[0]))
            for j in range(len(chunks[1]))
        }
        name = f"source-{id(self)}"
        graph = {(name, *place): (self.read, *place) for place in self.chunks}
        self.array = da.Array(graph, name, chunks, meta=cls(np.empty((0, 0), x.dtype)))

    def read(self, i, j):
        self.reads[i, j] += 1
        return self.chunks[i, j]


def refuse(*args, **kwargs):
    raise AssertionError("something was computed")


def assert_equal_chunk_by_chunk(result, cls, expected):
    """The declared class and dtype are those of every chunk, and the values are right."""
    kind = np.ndarray if cls in (np.array, np_matrix) else cls
    assert type(result._meta) is kind
    assert result.dtype == result._meta.dtype == expected.dtype
    blocks = dask.base.compute_as_if_collection(da.Array, result.dask, result.__dask_keys__())
    assert {(type(block), block.dtype) for row in blocks for block in row} == {(kind, expected.dtype)}
    actual = np.block([[dense(block) for block in row] for row in blocks])
    np.testing.assert_allclose(actual, expected, rtol=1e-12 if expected.dtype == "f8" else 1e-6)


def seven_by_five(dtype):
    """Only gene 0 has more than half of the counts of a cell."""
    rng = np.random.default_rng(3)
    x = rng.poisson(2, (7, 5)) * (rng.random((7, 5)) < 0.7) + [0, 1, 2, 1, 2]
    x[0, 0] = 90
    return (x * (1.1 if np.dtype(dtype).kind == "f" else 1)).astype(dtype)


@pytest.mark.parametrize("chunks", [(3, 5), (3, 2), ((0, 4, 3), 5)], ids=str)
@each_chunk
def test_the_logarithm_of_normalised_counts_is_one_step(cls, chunks, monkeypatch):
    """The same bits as of two steps, also where the normalised ones are wanted, too; each chunk is read once."""
    from csraxis.dispatch import _lazy

    source = Source(cls, seven_by_five("f4"), chunks)
    normalised = cx.normalize(source.array, target_sum=1e4)
    one = cx.log1p(normalised)
    adata = ad.AnnData(source.array)
    cx.pp.normalize_total(adata, target_sum=1e4)
    cx.pp.log1p(adata)
    monkeypatch.setattr(_lazy, "log1p_of_normalized", lambda x: None)
    two = cx.log1p(normalised)
    names = [array.name.rpartition("-")[0] for array in (one, adata.X, two)]
    assert names == ["csraxis-normalize-log1p", "csraxis-normalize-log1p", "csraxis-log1p"]
    for step in (one, adata.X):
        source.reads.clear()
        (result,) = dask.compute(step)
        assert set(source.reads.values()) == {1}
        np.testing.assert_array_equal(dense(result), dense(two.compute()))
    both = dask.compute(normalised, one)
    for result, expected in zip(both, (normalised, two), strict=True):
        np.testing.assert_array_equal(dense(result), dense(expected.compute()))
    assert_equal_chunk_by_chunk(one, cls, dense(two.compute()))


def taken_first_and_last(normalised, keep, monkeypatch):
    """The genes of normalised counts: taken from the counts, and from the normalised ones."""
    from csraxis.dispatch import _lazy

    first = take(normalised, keep, axis=1)
    assert normalised.name not in first.dask.dependencies[first.name]
    with monkeypatch.context() as without:
        without.setattr(_lazy, "_normalized", lambda x: None)
        last = take(normalised, keep, axis=1)
    assert normalised.name in last.dask.dependencies[last.name]
    return first, last.compute()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("target", [1e4, None])
@pytest.mark.parametrize("chunks", [(3, 5), (3, 2), ((0, 4, 3), 5)], ids=str)
@each_chunk
def test_genes_are_taken_before_they_are_normalised(cls, chunks, target, log, monkeypatch):
    """The same bits as in the other order, also where nothing of a chunk is kept; each chunk is read once."""
    x = seven_by_five("f4")
    source, eager = Source(cls, x, chunks), cx.normalize(x, target_sum=target, log1p=log)
    normalised = cx.normalize(source.array, target_sum=target, log1p=log)
    for keep in (np.array([False, True, False, True, True]), np.array([False, False, True, False, True])):
        first, last = taken_first_and_last(normalised, keep, monkeypatch)
        source.reads.clear()
        result = first.compute()
        assert set(source.reads.values()) == {1}
        np.testing.assert_array_equal(dense(result), dense(last))
        assert_equal_chunk_by_chunk(first, cls, eager[:, keep])
    # Rows are no part of each other's totals, nor is a column that is scaled as a whole.
    for x, axis in ((normalised, 0), (cx.normalize(source.array, axis=0, target_sum=target), 1)):
        taken = take(x, np.arange(x.shape[axis]) % 3 > 0, axis)
        assert x.name in taken.dask.dependencies[taken.name]


@pytest.mark.filterwarnings("ignore:Some cells have zero counts:UserWarning")
@pytest.mark.parametrize("options", [{}, {"exclude_highly_expressed": True, "max_fraction": 0.5}], ids=str)
@pytest.mark.parametrize("declared", ["int64", "float64", "uint8"])
@pytest.mark.parametrize("chunks", [(90, 5), (90, 2)], ids=str)
def test_genes_are_taken_before_large_counts_are_normalised(chunks, declared, options, monkeypatch):
    """Integers that float32 rounds, whether that is what is declared or not: totals are those of rounded ones."""
    source = Source(sp.csr_array, np.random.default_rng(0).integers(0, 2**40, (200, 5)), chunks)
    x = da.Array(source.array.dask, source.array.name, source.array.chunks, meta=sp.csr_array((0, 0), dtype=declared))
    adata = ad.AnnData(x)
    cx.pp.normalize_total(adata, target_sum=1e4, **options)
    cx.pp.log1p(adata)
    first, last = taken_first_and_last(adata.X, np.array([True, False, True, False, False]), monkeypatch)
    np.testing.assert_array_equal(first.compute().toarray(), last.toarray())


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("n", [4, 30])
def test_genes_of_rows_out_of_order_are_taken_before_they_are_normalised(engine, n, log, dtype):
    """Duplicates, among the genes that are left out, too: the same bits as in memory.

    Of more than 16 values SciPy's sort leaves equal ones in an order that hangs on all of the row.
    """
    rng = np.random.default_rng(1)
    keep = np.arange(10) < 4
    for _ in range(30):
        data, indices = rng.integers(1, 255, 3 * n).astype(dtype), rng.integers(0, 10, 3 * n)
        x = sp.csr_array((data, indices, np.arange(4) * n), shape=(3, 10))
        lazy = da.from_array(x, chunks=(2, 10), asarray=False)
        lazy = take(cx.normalize(lazy, target_sum=1e4, log1p=log), keep, axis=1)
        eager = take(cx.normalize(x, target_sum=1e4, log1p=log), keep, axis=1)
        for one, other in zip(dask.compute(*lazy.blocks), (eager[:2], eager[2:]), strict=True):
            np.testing.assert_array_equal(one.toarray(), other.toarray())


@pytest.mark.parametrize(
    ("chunks", "dtype"),
    [
        ((1, 1), "float64"),
        ((7, 1), "float32"),
        ((1, 5), "float32"),
        (((1, 4, 2), (3, 2)), "float32"),
        (((1, 4, 2), (3, 2)), "float64"),
        ((7, 5), "float64"),
    ],
    ids=str,
)
@each_chunk
@each_call
def test_equals_in_memory(cls, chunks, dtype, name, options):
    x = seven_by_five(dtype)
    source = Source(cls, x, chunks)
    lazy, eager = ad.AnnData(source.array), ad.AnnData(x)
    with unchanged(*source.chunks.values()):
        getattr(cx.pp, name)(lazy, **options)
        getattr(cx.pp, name)(eager, **options)
        assert_equal_chunk_by_chunk(lazy.X, cls, eager.X)
    assert lazy.uns == eager.uns
    assert list(lazy.obs) == list(eager.obs)
    for column in eager.obs:
        np.testing.assert_allclose(lazy.obs[column], eager.obs[column], rtol=1e-12)


UNEVEN = ((7, 30, 23), (11, 29))


@pytest.mark.parametrize(
    ("cls", "chunks"),
    [*((cls, UNEVEN) for cls in CHUNKS), (sp.csr_matrix, (1, 40)), (sp.csc_array, (60, 1)), (np.array, (60, 40))],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
@each_call
def test_larger_matrices_equal_in_memory(engine, cls, chunks, name, options):
    x = counts(4, (60, 40)).astype("f4")
    lazy, eager = ad.AnnData(Source(cls, x, chunks).array), ad.AnnData(x)
    getattr(cx.pp, name)(lazy, **options)
    getattr(cx.pp, name)(eager, **options)
    assert_equal_chunk_by_chunk(lazy.X, cls, eager.X)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np_matrix])
@each_call
def test_every_other_dtype_becomes_float32(cls, dtype, name, options):
    x = seven_by_five(dtype)
    lazy = getattr(cx.pp, name)(Source(cls, x, (3, 2)).array, **no_column(options))
    expected = getattr(cx.pp, name)(x, **no_column(options))
    assert expected.dtype == "f4"
    assert_equal_chunk_by_chunk(lazy, cls, expected)


def no_column(options):
    return {key: value for key, value in options.items() if key != "key_added"}


# ---- what is computed when


READS = [
    ("log1p", {}, 0),
    ("log1p", {"base": 2}, 0),
    ("normalize_total", {"target_sum": 1e4}, 0),
    ("normalize_total", {"target_sum": 1e4, "inplace": False}, 0),
    ("normalize_total", {"target_sum": 1e4, "copy": True}, 0),
    ("normalize_total", {}, 1),
    ("normalize_total", {"inplace": False}, 1),
    ("normalize_total", {"target_sum": 1e4, "key_added": "size"}, 1),
    ("normalize_total", {"key_added": "size"}, 1),
    ("normalize_total", {"exclude_highly_expressed": True, "max_fraction": 0.5}, 2),
    (
        "normalize_total",
        {"exclude_highly_expressed": True, "max_fraction": 0.5, "target_sum": 1e4, "key_added": "size"},
        2,
    ),
    ("normalize_log1p", {"target_sum": 1e4, "base": 2}, 0),
    ("normalize_log1p", {"target_sum": 1e4, "inplace": False}, 0),
    ("normalize_log1p", {}, 1),
    ("normalize_log1p", {"target_sum": 1e4, "key_added": "size"}, 1),
    ("normalize_log1p", {"key_added": "size", "base": 2}, 1),
]


@pytest.mark.parametrize("chunks", [(7, 5), (3, 2)], ids=str)
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array])
@pytest.mark.parametrize(("name", "options", "reads"), READS, ids=str)
def test_reads_of_each_chunk_at_call_time(cls, chunks, name, options, reads):
    source = Source(cls, seven_by_five("float32"), chunks)
    with dask.config.set(scheduler="threads" if reads else refuse):
        getattr(cx.pp, name)(ad.AnnData(source.array), **options)
    assert source.reads == (dict.fromkeys(source.chunks, reads) if reads else {})


@pytest.mark.parametrize(("name", "options", "reads"), [call for call in READS if call[2]], ids=str)
def test_what_has_to_be_computed_is_asked_of_the_scheduler(name, options, reads):
    adata = ad.AnnData(Source(np.array, seven_by_five("float32"), (3, 2)).array)
    with dask.config.set(scheduler=refuse), pytest.raises(AssertionError, match="something was computed"):
        getattr(cx.pp, name)(adata, **options)


@pytest.mark.parametrize("options", [{"target_sum": 1e4}, {}, {"exclude_highly_expressed": True, "max_fraction": 0.5}])
def test_results_without_inplace(options):
    x = seven_by_five("float64")
    source = Source(sp.csr_matrix, x, (3, 2))
    adata = ad.AnnData(source.array)
    results = cx.pp.normalize_total(adata, **options, inplace=False)
    expected = cx.pp.normalize_total(ad.AnnData(x), **options, inplace=False)
    assert adata.X is source.array
    assert_equal_chunk_by_chunk(results["X"], sp.csr_matrix, expected["X"])
    (factors,) = dask.compute(results["norm_factor"])
    np.testing.assert_allclose(factors, expected["norm_factor"], rtol=1e-12)


@pytest.mark.parametrize(("name", "place"), [place for place in PLACES if place[1]], ids=str)
def test_other_places(name, place):
    x = seven_by_five("float32")
    lazy, eager = (
        ad.AnnData(x.copy(), **{"layers" if "layer" in place else "obsm": {"other": other}})
        for other in (Source(sp.csr_matrix, x, (3, 2)).array, x.copy())
    )
    for adata in (lazy, eager):
        FUNCTIONS[name](adata, **place)
        np.testing.assert_array_equal(adata.X, x)
    assert_equal_chunk_by_chunk(matrix(lazy, **place), sp.csr_matrix, matrix(eager, **place))


def test_parent_of_a_view_is_not_changed():
    x = seven_by_five("float32")
    source = Source(sp.csr_matrix, x, (3, 2))
    parent = ad.AnnData(source.array)
    view = parent[:4]
    with pytest.warns(UserWarning, match="Received a view"):
        cx.pp.normalize_total(view, target_sum=1e4)
    assert parent.X is source.array
    assert_equal_chunk_by_chunk(view.X, sp.csr_matrix, cx.pp.normalize_total(x[:4], target_sum=1e4))


@each_call
def test_graphs_pickle_and_have_the_same_names_each_time(name, options):
    x = da.from_array(seven_by_five("float32"), chunks=(3, 2))
    first, second = (getattr(cx.pp, name)(x, **no_column(options)) for _ in range(2))
    assert first.name == second.name
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first)).compute(), first.compute())


def test_results_that_share_tasks_do_not_disturb_each_other():
    x = seven_by_five("float64")
    lazy = Source(np.array, x, (3, 2)).array
    bases = (None, 2, 10)
    results = dask.compute(*(cx.pp.normalize_log1p(lazy, target_sum=1e4, base=base) for base in bases))
    for base, result in zip(bases, results):
        np.testing.assert_allclose(result, cx.pp.normalize_log1p(x, target_sum=1e4, base=base), rtol=1e-12)


# ---- warnings and errors


@pytest.mark.parametrize(("name", "options"), [call for call in CALLS if call[1] and call[0] != "log1p"][1:], ids=str)
def test_zero_counts_are_warned_of_where_totals_are_known(name, options):
    x = seven_by_five("float32")
    x[2] = 0
    adata = ad.AnnData(Source(sp.csr_matrix, x, (3, 2)).array)
    with pytest.warns(UserWarning, match="Some cells have zero counts") as caught:
        getattr(cx.pp, name)(adata, **options)
    assert caught[0].filename == __file__
    assert not dense(adata.X.compute())[2].any()


def test_zero_counts_are_not_looked_for_where_they_are_not():
    adata = ad.AnnData(Source(sp.csr_matrix, np.zeros((4, 3), "f4"), (3, 2)).array)
    cx.pp.normalize_total(adata, target_sum=1e4)  # a warning would be an error
    np.testing.assert_array_equal(dense(adata.X.compute()), 0)


@pytest.mark.parametrize("dtype", ["float16", "complex64"])
@each_call
def test_other_dtypes_are_refused_before_anything_is_computed(name, options, dtype):
    x = Source(np.array, np.ones((4, 3), dtype), (3, 2)).array
    with dask.config.set(scheduler=refuse), pytest.raises(TypeError, match=f"real numbers|{dtype}"):
        getattr(cx.pp, name)(x, **no_column(options))


@pytest.mark.parametrize("name", ["normalize_total", "normalize_log1p"])
def test_totals_need_two_dimensions(name):
    with dask.config.set(scheduler=refuse), pytest.raises(ValueError, match="2-D"):
        getattr(cx.pp, name)(da.ones(4))
