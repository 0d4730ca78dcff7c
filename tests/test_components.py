"""Principal components: those of the dense matrix, whatever the container, method, chunking and shape."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import csraxis as cx
from csraxis.dispatch import _blocks, _comoments, _components, _gram
from csraxis.dispatch._comoments import comoments, merge
from csraxis.dispatch._components import components, project

CONTAINERS = (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array, np.array)
each_container = pytest.mark.parametrize("cls", CONTAINERS, ids=lambda cls: cls.__name__)
centre_or_not = pytest.mark.parametrize("centre", [True, False])
# Products of sparse matrices: from the stored values, or by way of dense rows.
each_way = pytest.mark.parametrize("dense_from", [0, 1])
# Some columns in panels, all, none.
each_share = pytest.mark.parametrize("panel_from", [0.6, 0, 1])
each_method = pytest.mark.parametrize("method", ["covariance", "blocks"])


def matrix(n=120, m=40, seed=0, rank=8):
    """Half zeros, with components of clearly different size; an empty column, and one that is constant."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(1, 1, (n, rank)) * 2.0 ** -np.arange(rank) @ rng.gamma(1, 1, (rank, m))
    x = (x + 0.01 * rng.random((n, m))) * (rng.random((n, m)) < 0.5)
    x[:, 1], x[:, 2] = 0, 3
    return x


def hostile(n=200):
    """Columns near 30,000 and 1e6 with tiny spread, beside sparse ones of size one."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 12)) * (rng.random((n, 12)) < 0.3)
    x[:, 3] = 30_000 + 0.1 * rng.integers(1, 4, n)
    x[:, 7] = 1e6 + x[:, 0] + 0.01 * rng.normal(size=n)
    x[:, 9] = -5e4
    return x


def by_svd(x, k, centre):
    """Singular values, components, and variances of scores and columns, by LAPACK."""
    x = np.asarray(x, float)
    shifted = x - x.mean(axis=0)
    _, singular, axes = np.linalg.svd(shifted if centre else x, full_matrices=False)
    scores = x @ axes[:k].T
    return singular[:k], axes[:k], scores.var(axis=0, ddof=1), x.var(axis=0, ddof=1).sum()


def assert_right(found, x, k, centre, rtol=1e-9, angle=1e-6):
    singular, axes, variance, total = by_svd(x, k, centre)
    np.testing.assert_allclose(found.singular_values, singular, rtol=rtol, atol=1e-7 * singular[0])
    np.testing.assert_allclose(found.variance, variance, rtol=10 * rtol, atol=1e-7 * variance[0])
    np.testing.assert_allclose(found.total_variance, total, rtol=1e-9)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(k), atol=1e-9)
    assert scipy.linalg.subspace_angles(found.axes.T, axes.T).max() < angle
    assert (found.axes[np.arange(k), np.abs(found.axes).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("shape", [(120, 40), (40, 120), (40, 40)])
@each_method
@centre_or_not
@each_way
@each_container
def test_as_by_singular_value_decomposition(monkeypatch, cls, dense_from, centre, method, shape):
    monkeypatch.setattr(_comoments, "DENSE_FROM", dense_from)
    x = matrix(*shape)
    found = components(cls(x), 6, centre=centre, method=method, seed=0)
    blocks = method == "blocks"
    assert (found.residual > 0) == blocks
    assert_right(found, x, 6, centre, rtol=1e-6 if blocks else 1e-9, angle=1e-3 if blocks else 1e-6)
    scores = project(cls(x), found.axes, found.mean, np.dtype(float))
    expected = (x - (x.mean(axis=0) if centre else 0)) @ found.axes.T
    np.testing.assert_allclose(scores, expected, atol=1e-10)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32"])
@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
@each_container
def test_every_dtype(cls, shape, dtype):
    x = matrix(*shape)
    x = x > np.median(x) if dtype == "bool" else (10 * x).astype(dtype)
    assert_right(components(cls(x), 4, centre=True, method="auto", seed=0), x, 4, True)


@pytest.mark.parametrize("transposed", [False, True])
@each_way
@each_container
def test_a_large_mean_does_not_cancel(engine, monkeypatch, cls, dense_from, transposed):
    monkeypatch.setattr(_comoments, "DENSE_FROM", dense_from)
    x = hostile(200)[: 8 if transposed else None]
    found = components(cls(x), 5, centre=True, method="covariance", seed=0)
    assert_right(found, x, 5, True, rtol=1e-7, angle=1e-5)


def flat(n, m, density, seed=0):
    """Components that hardly differ: rounding turns them."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, m)) * (rng.random((n, m)) < density)).astype("f4")


def single(monkeypatch):
    """Products in float32, and LAPACK in float32, whatever the size. Returns which products are formed."""
    formed = []
    products = _components._products
    monkeypatch.setattr(_comoments, "SINGLE_FROM", 0)
    monkeypatch.setattr(_components, "SINGLE_FROM", 0)
    monkeypatch.setattr(_components, "_products", lambda x, exact: formed.append(exact) or products(x, exact))
    return formed


def counts(n, m):
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1, 2, m) * rng.gamma(2, 1, (n, 1)))


def binary(n, m):
    """Columns of zeros and one other number: every product of two is the same, and rounds the same way."""
    rng = np.random.default_rng(0)
    return ((rng.random((n, m)) < np.linspace(0.01, 0.99, m)) / np.linspace(0.1, 1, m)).astype("f4")


def far(n, m):
    """Columns with means of 1 to 3e6 standard deviations, one of equal values, an empty one; zeros in others."""
    x = flat(n, m, 0.2)
    for column, (mean, sd) in enumerate(((1, 1), (3, 1), (100, 1), (10_000, 1), (30_000, 0.01))):
        x[:, 3 * column] = mean + sd * np.random.default_rng(column).normal(size=n)
    x[:, 1], x[:, 2] = 7, 0
    return x


@pytest.mark.parametrize(
    "x",
    [flat(9000, 80, 0.1), flat(9000, 80, 0.6), binary(9000, 80), counts(9000, 80), 1000 * counts(9000, 80).astype("i4")]
    + [far(9000, 80), flat(3000, 80, 0.3) * np.float32(1e25), flat(3000, 80, 0.3) * np.float32(1e-25)],
    ids=["sparse", "dense", "binary", "counts", "large counts", "large means", "huge", "tiny"],
)
@pytest.mark.parametrize("cls", [sp.csr_array, np.array])
@centre_or_not
def test_single_precision(engine, monkeypatch, cls, x, centre):
    single(monkeypatch)
    found = components(cls(x), 20, centre=centre, method="covariance", seed=0)
    assert_right(found, x, 20, centre, rtol=1e-5, angle=1e-3)


def test_what_single_precision_cannot_tell_is_done_again(monkeypatch):
    """Components far smaller than the columns they are of; a gap below rounding; vectors that float32 cannot find."""
    formed = single(monkeypatch)
    rng = np.random.default_rng(0)
    small = (rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 60)) + 1e-3 * rng.normal(size=(2000, 60))).astype("f4")
    one = np.outer(rng.normal(size=2000), np.ones(60)).astype("f4") + flat(2000, 60, 1) * np.float32(1e-2)
    for x in (small, one):
        for cls in (sp.csr_array, np.array):
            formed.clear()
            assert_right(components(cls(x), 10, centre=True, method="covariance", seed=0), x, 10, True, 1e-6, 1e-3)
            assert formed == [False, True]
    formed.clear()
    components(flat(2000, 60, 1), 10, centre=True, method="covariance", seed=0)
    assert formed == [False]


@each_share
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
def test_products_do_not_depend_on_which_columns_are_in_panels(engine, monkeypatch, panel_from, dtype):
    monkeypatch.setattr(_comoments, "SINGLE_FROM", 0)
    monkeypatch.setattr(_gram, "PANEL_FROM", panel_from)
    monkeypatch.setattr(_gram, "FLUSH_ROWS", 2 * _gram.PANEL_ROWS)
    x = np.abs(10 * matrix(1000, 150)).astype(dtype)
    x[:, 5] += 50
    found = comoments(sp.csr_array(x))
    x = x.astype(float)
    centred = x - x.mean(axis=0)
    upper = np.triu_indices(150)
    scale = np.outer(*[np.linalg.norm(centred, axis=0)] * 2) + 1e-9
    error = ((found.products - centred.T @ centred) / scale)[upper]
    np.testing.assert_allclose(error, 0, atol=1e-12 if dtype == "f8" else 1e-6)


@pytest.mark.parametrize("position", [0, 70_000, -1])
@pytest.mark.parametrize("bad", [-1, 40])
@pytest.mark.parametrize("index", ["i4", "i8"])
def test_an_index_outside_is_named(engine, position, bad, index):
    x = sp.csr_array(matrix(9000, 40))
    x.indices, x.indptr = x.indices.astype(index), x.indptr.astype(index)
    x.has_canonical_format = True
    x.indices[position] = bad
    message = rf"x.indices\[{position % x.nnz}\] is {bad}, but columns go from 0 to 39"
    for call in (lambda: _gram.shifted_gram(x, np.zeros(40), np.dtype("f4")), lambda: comoments(x)):
        with pytest.raises(ValueError, match=message):
            call()


def test_unsorted_and_duplicate_entries(engine):
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 300, 20_000), rng.integers(0, 50, 20_000)
    x = sp.csr_array((300, 50))
    order = np.argsort(rows, kind="stable")
    x.indptr = np.searchsorted(rows[order], np.arange(301))
    x.data, x.indices = rng.integers(-9, 10, 20_000).astype("f4"), columns[order]
    assert_right(components(x, 5, centre=True, method="covariance", seed=0), x.toarray(), 5, True, rtol=1e-5)


def test_all_components_of_a_matrix_of_low_rank():
    x = np.outer(np.arange(6.0), [1, 0, 2, 3])
    for cls in CONTAINERS:
        for values in (x, x.T.copy()):
            k = min(values.shape)
            found = components(cls(values), k, centre=True, method="covariance", seed=0)
            np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(k), atol=1e-10)
            np.testing.assert_allclose(found.singular_values, by_svd(values, k, True)[0], atol=1e-6)


@each_way
@each_container
def test_comoments_do_not_depend_on_the_blocks(monkeypatch, cls, dense_from):
    monkeypatch.setattr(_comoments, "DENSE_FROM", dense_from)
    x = hostile(90)
    exact = np.asarray(x, np.longdouble)
    exact = exact - exact.mean(axis=0)
    exact = (exact.T @ exact).astype(float)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact))) + 1e-12
    for edges in ((0, 90), (0, 1, 90), (0, 0, 30, 31, 90), tuple(range(91))):
        parts = [comoments(cls(x[start:stop])) for start, stop in itertools.pairwise(edges)]
        before = [part.products.copy() for part in parts]
        found = merge(parts)
        upper = np.triu_indices(x.shape[1])
        np.testing.assert_allclose((found.products / scale)[upper], (exact / scale)[upper], atol=1e-9)
        np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12, atol=1e-15)
        assert found.n == 90
        for part, products in zip(parts, before):
            np.testing.assert_array_equal(part.products, products)


@pytest.mark.parametrize("chunks", [(30, 40), (17, 9), (120, 11), ((1, 100, 19), (40,))], ids=str)
@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "ndarray"])
@centre_or_not
@each_method
@each_way
def test_singular_values_do_not_depend_on_the_chunks(monkeypatch, dense_from, method, centre, kind, chunks):
    monkeypatch.setattr(_comoments, "DENSE_FROM", dense_from)
    pytest.importorskip("dask.array")
    from dask_calls import KINDS, lazy

    x = matrix()
    whole = components(KINDS[kind](x), 6, centre=centre, method=method, seed=0)
    found = components(lazy(x, kind, chunks), 6, centre=centre, method=method, seed=0)
    np.testing.assert_allclose(found.singular_values, whole.singular_values, rtol=1e-9)
    np.testing.assert_allclose(found.axes, whole.axes, atol=1e-6)
    scores = project(lazy(x, kind, chunks), found.axes, found.mean, np.dtype("f4"))
    assert (scores.dtype, scores.shape, scores.chunks[1]) == (np.dtype("f4"), (120, 6), (6,))
    np.testing.assert_allclose(scores.compute(), project(x, whole.axes, whole.mean, np.dtype("f4")), atol=1e-5)


def test_what_dask_ml_takes():
    """Chunks of unknown size, and data frames."""
    da = pytest.importorskip("dask.array")
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    x = matrix()
    unknown = da.from_array(x, chunks=(50, 40))[da.from_array(np.arange(120) % 2 == 0, chunks=50)]
    frame = dd.from_pandas(pd.DataFrame(x[::2]), npartitions=3)
    assert np.isnan(unknown.shape[0])
    for data in (unknown, frame, x[::2]):
        scores, axes, _, variance = cx.pp.pca(data, 5, return_info=True)
        np.testing.assert_allclose(np.sqrt(variance * 59), by_svd(x[::2], 5, True)[0], rtol=1e-9)
        np.testing.assert_allclose(np.asarray(scores), (x[::2] - x[::2].mean(axis=0)) @ axes.T, atol=1e-4)
    few = da.from_array(x, chunks=(50, 40))[da.from_array(np.arange(120) < 7, chunks=50)]
    with pytest.raises(ValueError, match="30 components need as many rows; there are 7"):
        cx.pp.pca(few, 30)


def test_few_rows_on_dask():
    pytest.importorskip("dask.array")
    from dask_calls import lazy

    x = matrix(30, 90)
    for kind in ("csr_array", "csc_matrix", "ndarray"):
        found = components(lazy(x, kind, (12, 40)), 4, centre=True, method="auto", seed=0)
        assert_right(found, x, 4, True)


@each_way
def test_the_same_bits_for_any_number_of_threads(engine, monkeypatch, dense_from):
    from csraxis.dispatch import _backed, _blocks

    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 1)
    monkeypatch.setattr(_backed, "BLOCK_VALUES", 300)
    monkeypatch.setattr(_gram, "BLOCK_VALUES", 300)
    monkeypatch.setattr(_comoments, "DENSE_FROM", dense_from)
    single(monkeypatch)
    x = sp.csr_matrix(matrix().astype("f4"))
    found = []
    for threads in (1, 2, 3):
        with cx.config(threads=threads):
            found.append(components(x, 5, centre=True, method="covariance", seed=0))
    for one in found[1:]:
        for part, expected in zip(one, found[0]):
            np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 32, 33, 70])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "?"])
def test_scores_are_the_product(engine, monkeypatch, threads, k, dtype):
    """Row blocks and panels of any size; rows without values; what is not a float."""
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 10)
    monkeypatch.setattr(_components, "SCORES_ROWS", 7)
    rng = np.random.default_rng(0)
    x = np.where(rng.random((64, 90)) < 0.3, rng.integers(1, 9, (64, 90)), 0).astype(dtype)  # 9 x 7 + 1 rows
    x[10:30] = 0
    axes, mean = rng.normal(size=(k, 90)), rng.random(90)
    with cx.config(threads=threads):
        found = project(sp.csr_array(x), axes, mean, np.dtype("f4"))
    assert found.dtype == "f4"
    np.testing.assert_allclose(found, x.astype(float) @ axes.T - mean @ axes.T, rtol=1e-6, atol=1e-5)


def test_scores_of_no_rows():
    axes, mean = np.eye(3, 7), np.zeros(7)
    assert project(sp.csr_array((0, 7), dtype="f4"), axes, mean, np.dtype("f4")).shape == (0, 3)
    da = pytest.importorskip("dask.array")
    rows = sp.random_array((50, 7), density=0.5, format="csr", rng=np.random.default_rng(0))
    blocks = {("x", i, 0): block for i, block in enumerate((rows[:30], rows[:0], rows[30:]))}
    x = da.Array(blocks, "x", chunks=((30, 0, 20), (7,)), meta=rows[:0])
    np.testing.assert_allclose(project(x, axes, mean, np.dtype(float)).compute(), rows @ axes.T)


def test_scores_of_other_columns_are_refused():
    with pytest.raises(ValueError, match="the components have 9 columns, x has 7"):
        project(sp.csr_array(np.ones((5, 7))), np.eye(3, 9), np.zeros(9), np.dtype(float))


def test_scores_of_many_empty_rows_need_no_more_than_the_result():
    x = sp.csr_array((200_000, 10), dtype="f4")
    tracemalloc.start()
    try:
        scores = project(x, np.eye(10), np.zeros(10), np.dtype("f4"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not scores.any()
    assert peak < scores.nbytes + x.indptr.nbytes + 8 * len(x.indptr) + 2e6


def test_arpack_above_the_limit_of_lapack(monkeypatch):
    monkeypatch.setattr(_components, "LAPACK_UP_TO", 10)
    x = matrix()
    assert_right(components(x, 6, centre=True, method="covariance", seed=0), x, 6, True)


def test_method_is_chosen_by_size(monkeypatch):
    x = matrix()
    assert components(x, 3, centre=True, method="auto", seed=0).residual == 0
    monkeypatch.setattr(_components, "COVARIANCE_UP_TO", 39)
    assert components(x, 3, centre=True, method="auto", seed=0).residual > 0
    assert components(x[:20], 3, centre=True, method="auto", seed=0).residual == 0  # few rows


def test_approximate_components_say_so(monkeypatch):
    monkeypatch.setattr(_components, "MAX_PASSES", 1)
    x = np.random.default_rng(0).normal(size=(300, 200))
    with pytest.warns(UserWarning, match=r"approximate: the residual of the worst is \d"):
        _, axes, _, variance = cx.pp.pca(x, 5, svd_solver="randomized", return_info=True)
    covariance = np.cov(x.T)
    residual = np.linalg.norm(covariance @ axes.T - axes.T * variance, axis=0) / variance
    found = components(x, 5, centre=True, method="blocks", seed=0)
    np.testing.assert_allclose(found.residual, residual.max(), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(30, 10), (10, 30)])
@each_method
@each_container
def test_values_that_are_not_finite_are_refused(cls, method, shape, bad):
    x = matrix(*shape)
    x[3, 4] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        components(cls(x), 3, centre=True, method=method, seed=0)


@pytest.mark.parametrize("n_comps", [0, 21, 2.5, True, "3"])
def test_number_of_components(n_comps):
    with pytest.raises(ValueError, match="n_comps must be an int from 1 to 20"):
        cx.pp.pca(matrix(30, 20), n_comps)


def test_unknown_solver():
    with pytest.raises(ValueError, match=r"svd_solver must be one of None, 'auto'.*got 'magic'"):
        cx.pp.pca(matrix(30, 20), 2, svd_solver="magic")


def test_the_limit_for_centring_first_is_where_digits_are_lost():
    assert _components.FAR**2 * 2.3e-16 < 1e-9


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("shape", [(600, 520), (520, 600), (2600, 2550)])
def test_nothing_varies(shape, value):
    found = components(np.full(shape, value), 3, centre=True, method="covariance", seed=0)
    assert found.singular_values.tolist() == [0, 0, 0]
    assert np.allclose(found.axes @ found.axes.T, np.eye(3))


def test_values_that_are_alike_do_not_add_up_their_rounding():
    """Each product of two rounds the same way: in float32 that made 3e-5 of the singular value."""
    rng = np.random.default_rng(0)
    p = np.clip(0.3 + 0.013 * np.repeat(rng.normal(size=(2000, 1)), 900, 1), 0, 1)
    x = sp.csr_array((rng.random(p.shape) < p).astype("f4"))
    x.data = np.log1p(x.data)
    for y in (x, np.tile(x.toarray(), (2, 1))):
        found = components(y, 1, centre=True, method="covariance", seed=0)
        assert_right(found, y.toarray() if sp.issparse(y) else y, 1, True, rtol=1e-5, angle=1e-3)


def test_duplicates_of_narrow_integers_are_added_without_wrapping():
    values = np.random.default_rng(0).integers(100, 200, (40, 5))
    x = sp.csr_array((40, 5), dtype="u1")
    x.data = np.stack([values, np.full_like(values, 100)], -1).ravel().astype("u1")
    x.indices, x.indptr = np.tile(np.repeat(np.arange(5), 2), 40).astype("i4"), np.arange(41, dtype="i4") * 10
    centred = values - values.mean(axis=0)
    assert np.allclose(np.triu(comoments(x).products), np.triu(centred.T @ centred))


def test_what_float32_chunks_cannot_tell_is_done_again_on_dask(monkeypatch):
    da = pytest.importorskip("dask.array")
    formed = single(monkeypatch)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 60)) + 1e-3 * rng.normal(size=(2000, 60))).astype("f4")
    found = components(da.from_array(x, chunks=(300, 60)), 10, centre=True, method="covariance", seed=0)
    assert formed == [False, True]
    assert_right(found, x, 10, True, 1e-6, 1e-3)


@centre_or_not
def test_a_gap_that_float32_may_not_resolve_is_looked_at_along_more_components(monkeypatch, centre):
    """These hardly differ, so rounding may turn them; not into those that are twenty further on."""
    formed = single(monkeypatch)
    x = flat(9000, 80, 0.9) + np.float32(0.1)
    monkeypatch.setattr(_components, "_is_safe", lambda *arguments: False)
    lazy = pytest.importorskip("dask.array").from_array(x, chunks=(2500, 80))
    for given in (x, lazy):
        formed.clear()
        assert_right(components(given, 20, centre=centre, method="covariance", seed=0), x, 20, centre, 1e-9, 1e-3)
        assert formed == [False]


@centre_or_not
def test_what_is_found_along_more_components_undoes_any_turn_among_them(monkeypatch, centre):
    single(monkeypatch)
    x = flat(9000, 80, 0.9) + np.float32(0.1)
    leading, turn = _components._leading, np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    monkeypatch.setattr(_components, "_is_safe", lambda *arguments: False)
    exact = components(x.astype(float), 20, centre=centre, method="covariance", seed=0)

    def turned(matrix, k, seed):
        values, vectors, gap = leading(matrix, k, seed)
        return values, vectors @ turn, gap

    monkeypatch.setattr(_components, "_leading", turned)
    found = components(x, 20, centre=centre, method="covariance", seed=0)
    assert_right(found, x, 20, centre, 1e-9, 1e-3)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=1e-8)


def test_the_guard_knows_of_rounding_that_adds_up():
    """Along a vector with one sign all errors that are the same add up; with signs that alternate they cancel."""
    m = 2000
    found = _comoments.Comoments(10_000, np.zeros(m), np.eye(m), True)
    even = np.full((m, 1), m**-0.5)
    alternating = even * np.where(np.arange(m) % 2, 1, -1)[:, None]
    for vectors, safe in ((even, False), (alternating, True)):
        assert _components._is_safe(found, np.ones(1), vectors, gap=1.0) is safe
