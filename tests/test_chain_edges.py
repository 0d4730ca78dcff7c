"""The steps of the chain where something is odd: how entries are stored, layers, batches, chunks, ranks, arguments."""

import itertools
import tracemalloc
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from csraxis.dispatch import _backed, _components, _gram
from csraxis.dispatch._comoments import comoments, merge
from csraxis.dispatch._components import components, project
from csraxis.dispatch._rows import fold
from fresh import run
from test_components import by_svd, centre_or_not, each_container, hostile, matrix
from test_pp_steps import an_anndata, counts, dispersions, each_place, given, refuse

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")

FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper")
each_flavor = pytest.mark.parametrize("flavor", FLAVORS)
each_kind = pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array], ids=lambda cls: cls.__name__)


@pytest.fixture
def dask():
    """Dask, in one thread."""
    dask = pytest.importorskip("dask")
    with dask.config.set(scheduler="sync"):
        yield dask


def values_for(flavor, n=90, m=80):
    """Counts or logarithms, as the flavour takes them; no cell is empty."""
    if "v3" in flavor:
        pytest.importorskip("skmisc")
    x = counts(n, m, dtype="f8")
    x[5, ::2] = 1
    x[:, 8] = np.arange(n) % 3 == 0
    return x if "v3" in flavor else np.log1p(x * np.random.default_rng(1).uniform(1, 2, x.shape))


def in_parts(x, cls, index=np.int32, first=None):
    """x with two entries in each place, which add up to the value, and indices that fall twice in each row."""
    m = cls(x)
    major = np.repeat(np.arange(len(m.indptr) - 1), np.diff(m.indptr))
    falling = np.lexsort((-m.indices, major))
    part = m.data / 2 if first is None else np.full_like(m.data, first)
    order = np.argsort(np.tile(major[falling], 2), kind="stable")
    result = cls(m.shape, dtype=m.dtype)
    result.data = np.concatenate((part[falling], (m.data - part)[falling]))[order]
    result.indices = np.tile(m.indices[falling], 2)[order].astype(index)
    result.indptr = (2 * m.indptr).astype(index)
    return result


@each_place
@pytest.mark.parametrize(
    ("cls", "index"), [(sp.csr_matrix, np.int32), (sp.csr_array, np.int64), (sp.csc_array, np.int64)]
)
@pytest.mark.parametrize("flavor", FLAVORS[:3])
def test_genes_do_not_depend_on_how_entries_are_stored(flavor, cls, index, place):
    x = values_for(flavor)
    odd = given(partial(in_parts, cls=cls, index=index), x, place)
    frame = cx.pp.highly_variable_genes(odd, flavor=flavor, n_top_genes=20, n_bins=5)
    expected = cx.pp.highly_variable_genes(given(cls, x, place), flavor=flavor, n_top_genes=20, n_bins=5)
    pd.testing.assert_frame_equal(frame, expected, rtol=1e-9)


@pytest.mark.parametrize("place", ["memory", "rows"])
@pytest.mark.parametrize("value", [None, 0.75, -1])
@pytest.mark.parametrize("first", [None, -1, 0.25])
def test_counts_are_what_the_entries_of_a_place_add_up_to(first, value, place):
    x = values_for("seurat_v3")
    x[0, 1] = 1 if value is None else value
    odd = given(partial(in_parts, cls=sp.csr_matrix, first=first), x, place)
    call = partial(cx.pp.highly_variable_genes, odd, flavor="seurat_v3", n_top_genes=20)
    if value is None:
        call()
    else:
        with pytest.warns(UserWarning, match="expects raw count data"):
            call()


# Each cuts an AnnData, along the axis of the method of AnnData that it calls for that.
CUTS = {
    "filter_cells": (lambda a: cx.pp.filter_cells(a, min_genes=15), "obs"),
    "filter_genes": (lambda a: cx.pp.filter_genes(a, min_cells=20), "var"),
    "hvg": (lambda a: cx.pp.highly_variable_genes(a, n_top_genes=9, n_bins=3, subset=True), "var"),
}
each_cut = pytest.mark.parametrize("name", CUTS)


def to_be_cut(place="memory"):
    x = np.log1p(counts())
    adata = an_anndata(sp.csr_matrix, x, place)
    adata.layers["dense"] = 3 * x
    adata.layers["a csc"] = given(sp.csc_array, 4 * x, place)
    return adata


def matrices(adata):
    return [
        (name, type(x), x.dtype, x.shape, np.asarray(cx.to_dense(x)).tolist())
        for name, x in (("X", adata.X), *adata.layers.items())
    ]


@pytest.mark.parametrize("place", ["memory", "both"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@each_cut
def test_what_fails_inside_anndata_loses_nothing(monkeypatch, name, error, place):
    def fails(*args):
        raise error

    adata = to_be_cut(place)
    before = matrices(adata)
    cut, axis = CUTS[name]
    monkeypatch.setattr(ad.AnnData, f"_inplace_subset_{axis}", fails)
    with pytest.raises(error):
        cut(adata)
    assert adata.shape == (60, 40)
    assert matrices(adata) == before


@each_cut
def test_a_warning_of_anndata_that_is_an_error_loses_nothing(name):
    adata = to_be_cut()
    with warnings.catch_warnings(action="ignore"):
        adata.obs_names = ["cell"] * 60
        adata.var_names = ["gene"] * 40
    before = matrices(adata)
    with pytest.raises(UserWarning, match="names are not unique"):
        CUTS[name][0](adata)
    assert adata.shape == (60, 40)
    assert matrices(adata) == before


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "object"])
@each_cut
def test_layers_that_csraxis_does_not_know_are_cut_by_anndata(name, dtype):
    adata = to_be_cut()
    values = counts().astype(str if dtype == "object" else dtype).astype(dtype)
    del adata.layers["other"]
    adata.layers["odd"] = values
    adata.layers["another"] = 2 * counts()
    places = [pd.Index(names) for names in (adata.obs_names, adata.var_names)]
    cut, _ = CUTS[name]
    cut(adata)
    kept = np.ix_(places[0].get_indexer(adata.obs_names), places[1].get_indexer(adata.var_names))
    assert adata.shape != (60, 40)
    assert [name for name in adata.layers if name] == ["dense", "a csc", "odd", "another"]  # None: X
    assert adata.layers["odd"].dtype == dtype
    np.testing.assert_array_equal(adata.layers["odd"], values[kept])
    np.testing.assert_array_equal(adata.layers["another"], 2 * counts()[kept])
    np.testing.assert_array_equal(adata.layers["a csc"].toarray(), 4 * adata.X.toarray())


def spectra():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 60))
    return {
        "tall, rank 5": (low, 10),
        "wide, rank 5": (low.T.copy(), 10),
        "flat": (np.eye(40), 10),
        "noise": (rng.normal(size=(100, 60)), 20),
        "2 x 2": (rng.normal(size=(2, 2)), 2),
        "tall, all": (rng.normal(size=(50, 20)), 20),
        "wide, all": (rng.normal(size=(20, 50)), 20),
        "tall, zeros": (np.zeros((30, 20)), 5),
        "wide, zeros": (np.zeros((20, 30)), 5),
        "one cell": (rng.normal(size=(1, 5)), 1),
        "tiny": (1e-38 * low, 10),
    }


each_spectrum = pytest.mark.parametrize("spectrum", spectra())


@centre_or_not
@pytest.mark.parametrize("cls", [sp.csr_matrix, np.array], ids=lambda cls: cls.__name__)
@each_spectrum
def test_block_lanczos_where_the_krylov_space_ends(spectrum, cls, centre):
    x, k = spectra()[spectrum]
    found = components(cls(x), k, centre=centre, method="blocks", seed=0)
    singular = by_svd(x, k, centre)[0] if len(x) > 1 else np.linalg.svd(x * (not centre))[1]
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(k), atol=1e-9)
    np.testing.assert_allclose(found.singular_values, singular, rtol=0, atol=1e-7 * singular[0])
    assert 0 <= found.residual <= 1e-4
    cx.pp.pca(cls(x), k, svd_solver="randomized", zero_center=centre)  # without a warning


@each_spectrum
def test_block_lanczos_stops_there(dask, spectrum):
    from test_pp_dask import Source

    x, k = spectra()[spectrum]
    source = Source(np.array, x, (max(1, len(x) // 2), x.shape[1]))
    components(source.array, k, centre=True, method="blocks", seed=0)
    assert max(source.reads.values()) <= 4


FEW = "[(1, 0.3), (2, 0.3), (3, 0.3), (50, 0.01), (30, 0.03)]"
NOT_POSITIVE = "[(50, 0), (50, -0.3), (50, float('nan'))]"


@pytest.mark.parametrize("cases", [FEW, NOT_POSITIVE], ids=["too few genes", "not positive"])
def test_a_span_of_no_genes(cases):
    """In a process of its own, which a crash would end."""
    pytest.importorskip("skmisc")
    script = """
        import numpy as np, csraxis as cx
        for varying, span in %s:
            x = np.ones((30, 50))
            x[:, :varying] = np.random.default_rng(0).poisson(3, (30, varying))
            for call in (cx.pp.highly_variable_genes, cx.pp.recipe_pca):
                try:
                    call(x, flavor="seurat_v3", n_top_genes=10, span=span)
                except ValueError as error:
                    assert "span" in str(error), error
                else:
                    raise AssertionError((varying, span))
        print("refused")
    """
    assert run(script % cases, OPENBLAS_NUM_THREADS="1") == "refused"


@pytest.mark.parametrize("edges", [range(91), (0, 0, 1, 2, 2, 45, 90, 90), range(0, 91, 9)], ids=str)
@each_container
def test_comoments_of_many_parts_at_once(cls, edges):
    x = hostile(90)
    exact = np.asarray(x, np.longdouble) - x.astype(np.longdouble).mean(axis=0)
    exact = (exact.T @ exact).astype(float)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact))) + 1e-12
    upper = np.triu_indices(len(exact))
    parts = [comoments(cls(x[start:stop])) for start, stop in itertools.pairwise(edges)]
    some = [merge(parts[i : i + 3]) for i in range(0, len(parts), 3)]
    for found in (merge(parts), merge(some), merge(parts[::-1])):
        np.testing.assert_allclose((found.products / scale)[upper], (exact / scale)[upper], atol=1e-9)
        np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12, atol=1e-15)
        assert found.n == 90


def test_few_covariance_matrices_at_a_time(dask):
    da = pytest.importorskip("dask.array")
    m = 300
    x = da.from_array(sp.random(640, m, 0.01, format="csr", random_state=0), chunks=(10, m), asarray=False)
    call = partial(components, k=5, centre=True, method="covariance", seed=0)
    call(x[: m + 20])  # what is imported, and kept, the first time
    tracemalloc.start()
    try:
        call(x)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 13 * 8 * m**2  # of 64 chunks


def test_calls_at_once_leave_the_threads_of_blas_alone():
    """In a process of its own, where nothing else has set a limit."""
    script = """
        import threading, time
        import numpy as np, scipy.linalg
        import csraxis as cx
        from threadpoolctl import threadpool_info

        def limits():
            return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

        def slow(*args, eigh=scipy.linalg.eigh, **kwargs):
            time.sleep(0.05)  # what comes first ends first, and after the others have begun
            return eigh(*args, **kwargs)

        scipy.linalg.eigh = slow
        before = limits()
        calls = [threading.Thread(target=cx.pp.pca, args=(np.random.rand(50, 20), 3)) for _ in range(4)]
        for call in calls:
            call.start()
            time.sleep(0.01)
        for call in calls:
            call.join()
        assert limits() == before, (limits(), before)
    """
    run(script, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2")


@pytest.mark.parametrize("max_value", [None, 2])
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_recipe_on_dense_rows(dtype, order, zero_center, max_value):
    x = np.array(counts(90, 80), dtype=dtype, order=order)
    x[5] = 1
    before = x.copy()
    options = {"n_top_genes": 30, "n_comps": 4, "zero_center": zero_center, "max_value": max_value}
    scores, axes, _, variance = cx.pp.recipe_pca(x, **options, return_info=True)
    np.testing.assert_array_equal(x, before)
    normalised = 1e4 * before / before.sum(axis=1, keepdims=True)
    _, _, norm = dispersions(normalised.astype(float), "seurat", 20)
    chosen = np.nan_to_num(norm, nan=-np.inf) >= np.sort(norm[~np.isnan(norm)])[-30]
    assert (axes.any(axis=0) <= chosen).all()
    z = np.log1p(normalised)[:, chosen]
    z = (z - z.mean(axis=0) * zero_center) / np.where(z.std(axis=0), z.std(axis=0, ddof=1), 1)
    z = z if max_value is None else np.clip(z, -max_value if zero_center else None, max_value)
    np.testing.assert_allclose(np.sqrt(variance * 89), by_svd(z, 4, True)[0], rtol=1e-4)
    np.testing.assert_allclose(scores, (z - z.mean(axis=0)) @ axes[:, chosen].T, atol=1e-3)


@each_container
def test_many_blocks(monkeypatch, cls):
    x = matrix()
    whole = components(cls(x), 5, centre=True, method="covariance", seed=0)
    expected = project(cls(x), whole.axes, whole.mean, np.dtype("f8"))
    monkeypatch.setattr(_backed, "BLOCK_VALUES", 30)
    found = components(cls(x), 5, centre=True, method="covariance", seed=0)
    np.testing.assert_allclose(found.singular_values, whole.singular_values, rtol=1e-10)
    np.testing.assert_allclose(
        project(cls(x), whole.axes, whole.mean, np.dtype("f8")), expected, rtol=1e-12, atol=1e-12
    )
    (rows,) = fold(cls(x), with_places, np.concatenate, rows=[np.arange(120)], whole=True)
    np.testing.assert_array_equal(rows, np.column_stack((np.arange(120), x)))


def with_places(block, places):
    return np.column_stack((places, cx.to_dense(block)))


def sent(graph):
    """Bytes of the tasks, each by itself, as they are sent to workers."""
    cloudpickle = pytest.importorskip("cloudpickle")
    return sum(len(cloudpickle.dumps(task)) for task in dict(graph).values())


def test_graphs_have_each_large_array_once(monkeypatch, dask):
    da = pytest.importorskip("dask.array")
    x = da.random.default_rng(0).random((200, 2000), chunks=(5, 2000))
    scores, axes, _, _ = cx.pp.pca(x, 20, return_info=True)
    assert sent(scores.__dask_graph__()) < 3 * axes.nbytes
    sizes = []

    def scheduler(graph, keys, **kwargs):
        sizes.append(sent(graph))
        return dask.get(graph, keys, **kwargs)

    monkeypatch.setattr(_components, "MAX_PASSES", 1)
    with dask.config.set(scheduler=scheduler):
        components(x, 20, centre=True, method="blocks", seed=0)
    assert len(sizes) > 1
    assert max(sizes) < 3 * axes.nbytes


def by_genes(cls, x, width):
    """A Dask array in one row of chunks that notes how many of them are alive at once."""
    from test_pp_dask import Source

    class Alive(Source):
        now = most = 0

        def read(self, i, j):
            chunk = super().read(i, j).copy()
            weakref.finalize(chunk, self.gone)
            self.now += 1
            self.most = max(self.most, self.now)
            return chunk

        def gone(self):
            self.now -= 1

    return Alive(cls, x, (len(x), width))


@pytest.mark.parametrize("qc_vars", [(), ("mito",)])
@each_kind
def test_quality_control_of_chunks_of_genes(dask, cls, qc_vars):
    x = counts(60, 96)
    source = by_genes(cls, x, 6)
    var = pd.DataFrame({"mito": np.arange(96) % 7 == 0}, index=[f"gene{j}" for j in range(96)])
    options = {"percent_top": None, "qc_vars": qc_vars}
    found = cx.pp.calculate_qc_metrics(ad.AnnData(source.array, var=var), **options)
    for frame, expected in zip(found, cx.pp.calculate_qc_metrics(ad.AnnData(cls(x), var=var), **options)):
        pd.testing.assert_frame_equal(frame, expected, rtol=1e-6)
    assert set(source.reads.values()) == {1}
    assert source.most <= 3


@pytest.mark.parametrize("target_sum", [1e4, None])
@each_kind
def test_the_recipe_on_chunks_of_genes(dask, cls, target_sum):
    x = counts(60, 96)
    x[5] = 1
    source = by_genes(cls, x, 6)
    options = {"n_top_genes": 30, "n_comps": 4, "exclude_highly_expressed": True, "max_fraction": 0.3}
    found = cx.pp.recipe_pca(source.array, **options, target_sum=target_sum, return_info=True)
    expected = cx.pp.recipe_pca(cls(x), **options, target_sum=target_sum, return_info=True)
    for part, as_in_memory in zip(found, expected):
        np.testing.assert_allclose(part, as_in_memory, rtol=1e-5, atol=1e-4)
    assert max(source.reads.values()) <= 5  # twice more than where cells are whole
    assert source.most <= 3


@pytest.mark.parametrize("labels", [pd.Categorical([None] * 90), np.full(90, np.nan)], ids=["categories", "floats"])
@pytest.mark.parametrize("function", [cx.pp.highly_variable_genes, cx.pp.recipe_pca])
@each_flavor
def test_no_cell_has_a_batch(flavor, function, labels):
    adata = ad.AnnData(values_for(flavor), obs=pd.DataFrame({"batch": labels}, index=[f"cell{i}" for i in range(90)]))
    columns = list(adata.var)
    with pytest.raises(ValueError, match="no cell has a batch"):
        function(adata, flavor=flavor, batch_key="batch", n_top_genes=20)
    assert list(adata.var) == columns


LABELS = {
    "categories": pd.Categorical(["a", "b", None, "b", "a"] * 18, categories=["a", "b", "none"]),
    "floats": np.array([0, 1, np.nan, 1, 0] * 18),
    "objects": np.array(["a", "b", None, "b", "a"] * 18, dtype=object),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("place", ["memory", "both"])
@each_flavor
def test_cells_without_a_batch_are_left_out(flavor, place, labels):
    x = values_for(flavor)
    adata = ad.AnnData(
        given(sp.csr_matrix, x, place),
        obs=pd.DataFrame({"batch": LABELS[labels]}, index=[f"cell{i}" for i in range(90)]),
    )
    has = adata.obs["batch"].notna().to_numpy()
    options = {"flavor": flavor, "batch_key": "batch", "n_top_genes": 20, "n_bins": 5, "inplace": False}
    frame = cx.pp.highly_variable_genes(adata, **options)
    expected = cx.pp.highly_variable_genes(ad.AnnData(x[has], obs=adata.obs[has]), **options)
    for name in expected.columns.drop(["means", "variances", "gene_name"], errors="ignore"):
        np.testing.assert_allclose(frame[name].to_numpy(float), expected[name].to_numpy(float), 1e-6, 1e-9)
    if flavor != "cell_ranger":
        positive = ad.AnnData(given(sp.csr_matrix, np.rint(x), place), obs=adata.obs)
        cx.pp.recipe_pca(positive, flavor=flavor, batch_key="batch", n_top_genes=20, n_comps=3, n_bins=5)
        assert np.isfinite(positive.obsm["X_pca"]).all()


def lonely(x):
    n, m = x.shape
    obs = pd.DataFrame({"batch": ["alone", *["others"] * (n - 1)]}, index=[f"cell{i}" for i in range(n)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene{j:03}" for j in range(m)]))


@pytest.mark.parametrize("place", ["memory", "both"])
@pytest.mark.parametrize("flavor", ["seurat_v3", "seurat_v3_paper"])
def test_a_batch_of_one_cell_has_no_variance(flavor, place):
    adata = lonely(given(sp.csr_matrix, values_for(flavor), place))
    with pytest.raises(ValueError, match="'alone'"):
        cx.pp.highly_variable_genes(adata, flavor=flavor, batch_key="batch", n_top_genes=20)


@pytest.mark.parametrize("place", ["memory", "both"])
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_a_batch_of_one_cell_chooses_nothing_by_cutoffs(flavor, place):
    """It has no variance: dispersions are the mean of those of the other batches."""
    x = values_for(flavor)
    options = {"flavor": flavor, "min_mean": 0.01, "max_mean": 6, "min_disp": 0.2}
    adata = lonely(given(sp.csr_matrix, x, place))
    cx.pp.highly_variable_genes(adata, **options, batch_key="batch")
    others = lonely(sp.csr_matrix(x))[1:].copy()
    expected = cx.pp.highly_variable_genes(others, **options, inplace=False, filter_unexpressed_genes=True)
    assert adata.var["highly_variable_nbatches"].max() == 1
    np.testing.assert_array_equal(adata.var["highly_variable_nbatches"] == 1, expected["highly_variable"])


def with_raw(names=None):
    """An AnnData and its raw counts, whose genes may have other names."""
    x = counts()
    adata = an_anndata(sp.csr_matrix, x, "memory")
    raw = adata.copy()
    with warnings.catch_warnings(action="ignore"):
        raw.var_names = raw.var_names if names is None else names
        adata.raw = raw
    return adata


@pytest.mark.parametrize("order", [range(39, -1, -1), range(20), range(30, 5, -2)], ids=["back", "fewer", "fewer back"])
def test_raw_counts_in_another_order(order):
    adata = with_raw()[:, order].copy()
    before = adata.copy()
    obs, var = cx.pp.calculate_qc_metrics(with_raw(), percent_top=[3], qc_vars=["mito"])
    assert cx.pp.calculate_qc_metrics(adata, percent_top=[3], qc_vars=["mito"], use_raw=True, inplace=True) is None
    pd.testing.assert_frame_equal(adata.obs, before.obs.join(obs))
    pd.testing.assert_frame_equal(adata.var, before.var.join(var))


@pytest.mark.parametrize(
    "names",
    [
        [f"other{j}" for j in range(40)],
        [*(f"gene{j}" for j in range(39)), "other"],
        [f"gene{j // 2}" for j in range(40)],
        [*(f"gene{j}" for j in range(39)), "gene0"],
    ],
    ids=["others", "one missing", "twice", "one twice"],
)
def test_raw_counts_of_other_genes(names):
    adata = with_raw(names)
    obs, var = adata.obs.copy(), adata.var.copy()
    with pytest.raises(ValueError, match="raw"):
        cx.pp.calculate_qc_metrics(adata, percent_top=[3], use_raw=True, inplace=True)
    pd.testing.assert_frame_equal(adata.obs, obs)
    pd.testing.assert_frame_equal(adata.var, var)


def of_unknown_size(cls, x, axis):
    """Every second row (axis=0) or column, in chunks whose sizes Dask does not know."""
    da = pytest.importorskip("dask.array")
    keep = da.from_array(np.arange(x.shape[axis]) % 2 == 0, chunks=30)
    whole = da.from_array(x, chunks=30)
    return (whole[keep] if axis == 0 else whole[:, keep]).map_blocks(cls)


@each_kind
def test_chunks_of_unknown_size(cls):
    x = values_for("seurat_v3")
    for flavor in ("seurat_v3", "seurat_v3_paper"):
        with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
            cx.pp.highly_variable_genes(of_unknown_size(cls, x, 1), flavor=flavor, n_top_genes=5)
    with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
        cx.pp.scale(of_unknown_size(cls, x, 0), zero_center=False, mask_obs=np.arange(45) % 2 == 0)


@pytest.mark.parametrize("place", ["memory", "both"])
@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_the_size_of_the_smaller_matrix_is_checked(monkeypatch, shape, place):
    sizes = []
    monkeypatch.setattr(_gram, "check_size", lambda m, *args: sizes.append(m))
    x = given(sp.csr_matrix, matrix(60, 60)[: shape[0], : shape[1]], place="memory" if place == "memory" else "rows")
    cx.pp.pca(x, 3, svd_solver="covariance_eigh")
    assert set(sizes) == {20}


@each_place
@each_kind
def test_what_the_recipe_warns_of(cls, place):
    x = counts(90, 80)
    options = {"n_top_genes": 30, "n_comps": 3, "n_bins": 5}
    with pytest.warns(UserWarning, match="Some cells have zero counts"):
        cx.pp.recipe_pca(given(cls, x, place), **options)
    with pytest.warns(UserWarning, match="Some cells have zero counts"):
        cx.pp.recipe_pca(given(cls, x, place), **options, target_sum=None, exclude_highly_expressed=True)
    x = values_for("seurat_v3")
    for flavor in ("seurat_v3", "seurat_v3_paper"):
        cx.pp.recipe_pca(given(cls, x, place), **options, flavor=flavor)
        with pytest.warns(UserWarning, match="expects raw count data"):
            cx.pp.recipe_pca(given(cls, x * 1.5, place), **options, flavor=flavor)


@each_kind
def test_quality_control_gives_native_numbers(cls):
    x = cls(counts())
    if sp.issparse(x):
        x.data = x.data.astype(">f4")
    else:
        x = x.astype(">f4")
    var = pd.DataFrame({"mito": np.arange(40) % 7 == 0}, index=[f"gene{j}" for j in range(40)])
    expected = cx.pp.calculate_qc_metrics(ad.AnnData(cls(counts()), var=var), percent_top=[3], qc_vars=["mito"])
    found = cx.pp.calculate_qc_metrics(ad.AnnData(x, var=var), percent_top=[3], qc_vars=["mito"])
    for frame, same in zip(found, expected):
        assert all(dtype.isnative for dtype in frame.dtypes)
        pd.testing.assert_frame_equal(frame, same)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_nobody_asked_for_no_components(shape):
    with pytest.raises(ValueError, match=r"pca|PCA|component|n_comps") as error:
        cx.pp.pca(np.ones(shape))
    assert "got 0" not in str(error.value)


@pytest.mark.parametrize("solver", ["covariance_eigh", "randomized"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@each_place
@each_kind
def test_a_constant_matrix(cls, place, shape, solver):
    adata = ad.AnnData(given(cls, np.full((90, 90), 3.0), place)[: shape[0], : shape[1]])
    cx.pp.pca(adata, 4, svd_solver=solver)
    assert np.isnan(adata.uns["pca"]["variance_ratio"]).all()
    scores, axes, ratio, variance = cx.pp.pca(adata.X, 4, svd_solver=solver, return_info=True)
    assert np.isnan(ratio).all()
    np.testing.assert_allclose(variance, 0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(scores), 0, atol=1e-6)
    np.testing.assert_allclose(axes @ axes.T, np.eye(4), atol=1e-9)


def recipe(x, **options):
    return cx.pp.recipe_pca(x, **{"n_top_genes": 20, "n_comps": 3, "n_bins": 3} | options)


def of_frame(function):
    def call(x, **options):
        adata = ad.AnnData(x)
        adata.obsm["frame"] = pd.DataFrame(counts()[:, :4], index=adata.obs_names, columns=list("abcd"))
        return function(adata, **options, obsm="frame")

    return call


pca, hvg, filter_cells, filter_genes = cx.pp.pca, cx.pp.highly_variable_genes, cx.pp.filter_cells, cx.pp.filter_genes
REFUSED = [
    *((call, {"random_state": seed, "svd_solver": solver}, TypeError, "random_state")
      for call in (pca, recipe)
      for seed in (np.random.default_rng(0), "x", 1.5)
      for solver in (None, "randomized")),
    (pca, {"svd_solver": ["a"]}, ValueError, "svd_solver"),
    (recipe, {"svd_solver": ["a"]}, ValueError, "svd_solver"),
    *((call, {name: "3"}, TypeError, name)
      for call, names in ((filter_cells, ("min_counts", "max_counts", "min_genes", "max_genes")),
                          (filter_genes, ("min_counts", "max_counts", "min_cells", "max_cells")))
      for name in names),
    (hvg, {"n_top_genes": 10.0}, ValueError, "n_top_genes"),
    (recipe, {"n_top_genes": 10.0}, ValueError, "n_top_genes"),
    (of_frame(pca), {"n_comps": 2}, TypeError, "obsm"),
    (of_frame(cx.pp.scale), {}, TypeError, "obsm"),
]  # fmt: skip


@pytest.mark.parametrize("cls", [sp.csr_matrix, np.array], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("i", range(len(REFUSED)))
def test_refused(cls, i):
    call, options, error, name = REFUSED[i]
    with pytest.raises(error, match=name):
        call(cls(counts()), **options)


@pytest.mark.parametrize("seed", [None, 3, np.int64(3), np.random.RandomState(0)], ids=lambda seed: type(seed).__name__)
@pytest.mark.parametrize("solver", [None, "randomized"])
def test_random_states(seed, solver):
    variance = pca(matrix(), 4, random_state=seed, svd_solver=solver, return_info=True)[3]
    np.testing.assert_allclose(np.sqrt(variance * 119), by_svd(matrix(), 4, True)[0], rtol=1e-6)


@pytest.mark.parametrize("function", [filter_cells, filter_genes])
@each_place
@each_kind
def test_complex_counts_have_no_limits(function, cls, place):
    x = given(cls, counts() * 1j, place)
    for limits in ({"min_counts": 1}, {"max_counts": 1}):
        with pytest.raises(TypeError, match="complex"):
            function(x, **limits)


@pytest.mark.parametrize("n_comps", [0, -1, 2.5, "3", True])
def test_the_recipe_looks_at_the_number_of_components_first(dask, n_comps):
    x = given(sp.csr_matrix, counts(), "rows")
    with pytest.raises(ValueError, match="n_comps"):
        cx.pp.recipe_pca(x.map_blocks(refuse, meta=x._meta), n_comps=n_comps, n_top_genes=20)
