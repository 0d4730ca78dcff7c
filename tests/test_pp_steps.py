"""Quality control, filters, gene selection and scaling: as by NumPy on the dense matrix, for every container."""

import gc
import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import bits, unchanged
from test_pp import CONTAINERS, address, dense

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")

each_container = pytest.mark.parametrize("cls", CONTAINERS, ids=lambda cls: cls.__name__)
with_empty_cells = pytest.mark.filterwarnings("ignore:Some cells have zero counts:UserWarning")
densifies = pytest.mark.filterwarnings("ignore:zero-centering a sparse array/matrix densifies it:UserWarning")


def counts(n=60, m=40, seed=0, dtype="f4"):
    """An empty cell, an empty gene, and one gene with a large mean."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(np.exp(rng.normal(0, 1.2, m)), (n, m)) * (rng.random((n, m)) < 0.7)
    x[:, 3] = 200 + rng.integers(0, 2, n)
    x[5] = 0
    x[:, 8] = 0
    return x.astype(dtype)


def given(cls, x, place):
    """x in memory, or on Dask in chunks that are cut along rows, or along both axes."""
    if place == "memory":
        return cls(x)
    da = pytest.importorskip("dask.array")
    return da.from_array(x, chunks={"rows": (17, x.shape[1]), "both": ((30, 1, len(x) - 31), 13)}[place]).map_blocks(
        cls
    )


each_place = pytest.mark.parametrize("place", ["memory", "rows", "both"])


def an_anndata(cls, x, place):
    obs = pd.DataFrame(
        {"batch": pd.Categorical(np.where(np.arange(len(x)) % 4, "a", "b")), "mask": np.arange(len(x)) % 3 > 0},
        index=[f"cell{i}" for i in range(len(x))],
    )
    var = pd.DataFrame({"mito": np.arange(x.shape[1]) % 7 == 0}, index=[f"gene{j}" for j in range(x.shape[1])])
    return ad.AnnData(given(cls, x, place), obs=obs, var=var, layers={"other": given(cls, 2 * x, place)})


# ---- quality control


@each_place
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
@each_container
def test_quality_control(engine, cls, dtype, place):
    x = counts(dtype=dtype)
    adata = an_anndata(cls, x, place)
    obs, var = cx.pp.calculate_qc_metrics(adata, qc_vars="mito", percent_top=[10, 1, 40])
    d = x.astype(float)
    totals, ordered = d.sum(axis=1), -np.sort(-d, axis=1)
    with np.errstate(all="ignore"):
        expected = {
            "n_genes_by_counts": (d > 0).sum(axis=1),
            "total_counts": totals,
            **{f"pct_counts_in_top_{n}_genes": 100 * ordered[:, :n].sum(axis=1) / totals for n in (1, 10, 40)},
            "total_counts_mito": d[:, ::7].sum(axis=1),
            "pct_counts_mito": 100 * d[:, ::7].sum(axis=1) / totals,
            "log1p_total_counts": np.log1p(totals),
            "log1p_n_genes_by_counts": np.log1p((d > 0).sum(axis=1)),
            "log1p_total_counts_mito": np.log1p(d[:, ::7].sum(axis=1)),
        }
    assert set(obs) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(obs[name], values, rtol=1e-6, err_msg=name)
    expected = {
        "n_cells_by_counts": (d > 0).sum(axis=0),
        "mean_counts": d.mean(axis=0),
        "log1p_mean_counts": np.log1p(d.mean(axis=0)),
        "pct_dropout_by_counts": 100 * (d == 0).mean(axis=0),
        "total_counts": d.sum(axis=0),
        "log1p_total_counts": np.log1p(d.sum(axis=0)),
    }
    assert set(var) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(var[name], values, rtol=1e-6, atol=1e-12, err_msg=name)
    cx.pp.calculate_qc_metrics(adata, qc_vars="mito", percent_top=[10, 1, 40], inplace=True)
    pd.testing.assert_frame_equal(adata.obs[obs.columns], obs)
    pd.testing.assert_frame_equal(adata.var[var.columns], var)


def test_stored_zeros_do_not_count_and_stay():
    x = sp.csr_matrix(counts())
    x.data[::3] = 0
    adata = ad.AnnData(x)
    with unchanged(x):
        obs, var = cx.pp.calculate_qc_metrics(adata, percent_top=None)
    np.testing.assert_array_equal(obs["n_genes_by_counts"], np.count_nonzero(x.toarray(), axis=1))
    np.testing.assert_array_equal(var["n_cells_by_counts"], np.count_nonzero(x.toarray(), axis=0))


def test_quality_control_of_raw_and_of_a_layer():
    adata = an_anndata(sp.csr_matrix, counts(), "memory")
    adata.raw = adata
    expected, _ = cx.pp.calculate_qc_metrics(adata, percent_top=[5])
    adata = adata[:, :20].copy()
    pd.testing.assert_frame_equal(cx.pp.calculate_qc_metrics(adata, percent_top=[5], use_raw=True)[0], expected)
    of_layer, _ = cx.pp.calculate_qc_metrics(adata, percent_top=[5], layer="other")
    np.testing.assert_array_equal(of_layer["total_counts"], 2 * dense(adata.X).sum(axis=1))


@pytest.mark.parametrize("percent_top", [[41], [0], [3, 500]])
def test_more_top_genes_than_there_are(percent_top):
    with pytest.raises(IndexError, match="Positions outside range of features"):
        cx.pp.calculate_qc_metrics(ad.AnnData(counts()), percent_top=percent_top)


def test_what_quality_control_refuses():
    adata = an_anndata(np.array, counts(), "memory")
    with pytest.raises(KeyError, match="ribo"):
        cx.pp.calculate_qc_metrics(adata, qc_vars=["ribo"], percent_top=None)
    with pytest.raises(TypeError, match=r"AnnData.*got numpy\.ndarray"):
        cx.pp.calculate_qc_metrics(counts())
    with pytest.warns(FutureWarning, match="`parallel` is deprecated"):
        cx.pp.calculate_qc_metrics(adata, percent_top=None, parallel=True)


# ---- filters

LIMITS = {
    "cells": [("min_counts", 230), ("max_counts", 230), ("min_genes", 15), ("max_genes", 15)],
    "genes": [("min_counts", 30), ("max_counts", 30), ("min_cells", 20), ("max_cells", 20)],
}


@each_place
@pytest.mark.parametrize(
    ("what", "name", "limit"), [(what, *limit) for what in LIMITS for limit in LIMITS[what]], ids=str
)
@each_container
def test_filters(cls, what, name, limit, place):
    x = counts()
    x[2, :5] *= -1  # what is negative is not expressed
    axis = 1 if what == "cells" else 0
    numbers = x.sum(axis=axis) if name.endswith("counts") else (x > 0).sum(axis=axis)
    keep = numbers >= limit if name.startswith("min") else numbers <= limit
    assert 0 < keep.sum() < len(keep)
    function = getattr(cx.pp, f"filter_{what}")
    for result, expected in zip(function(given(cls, x, place), **{name: limit}), (keep, numbers)):
        np.testing.assert_array_equal(np.asarray(result), expected)
    adata = an_anndata(cls, x, place)
    before = adata.copy()
    for result, expected in zip(function(adata, **{name: limit}, inplace=False), (keep, numbers)):
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    assert adata.shape == before.shape
    copied = function(adata, **{name: limit}, copy=True)
    assert function(adata, **{name: limit}) is None
    expected = x[keep] if what == "cells" else x[:, keep]
    for one in (adata, copied):
        assert (one.obs_names if what == "cells" else one.var_names).tolist() == [
            f"{what[:-1]}{i}" for i in np.flatnonzero(keep)
        ]
        for matrix, values in ((one.X, expected), (one.layers["other"], 2 * expected)):
            assert matrix.shape == expected.shape
            np.testing.assert_array_equal(cx.to_dense(matrix), values)
            assert place != "memory" or type(matrix) is cls or cls is np.array
        column = {"counts": "n_counts", "genes": "n_genes", "cells": "n_cells"}[name.split("_")[1]]
        np.testing.assert_array_equal((one.obs if what == "cells" else one.var)[column], numbers[keep])


@pytest.mark.parametrize("limits", [{}, {"min_counts": 1, "max_counts": 2}])
@pytest.mark.parametrize("function", [cx.pp.filter_cells, cx.pp.filter_genes])
def test_exactly_one_limit(function, limits):
    with pytest.raises(ValueError, match="Only provide one of the optional parameters `min_counts`"):
        function(counts(), **limits)


def test_the_parent_of_a_filtered_view_stays():
    parent = an_anndata(sp.csr_matrix, counts(), "memory")
    view = parent[:30]
    with pytest.warns(UserWarning, match="Received a view"):
        cx.pp.filter_genes(view, min_cells=5)
    assert parent.shape == (60, 40)
    assert "n_cells" not in parent.var
    assert view.n_vars < 40


# ---- highly variable genes


def dispersions(x, flavor, n_bins):
    """Means and normalised dispersions of the values (not logged), gene by gene."""
    mean, var = x.mean(axis=0), x.var(axis=0, ddof=1)
    mean = np.where(mean == 0, 1e-12, mean)
    with np.errstate(all="ignore"):
        disp = var / mean
        if flavor == "seurat":
            disp, mean = np.log(np.where(disp == 0, np.nan, disp)), np.log1p(mean)
    if flavor == "seurat":
        edges = np.linspace(mean.min(), mean.max(), n_bins + 1)
        edges[0] -= 0.001 * (mean.max() - mean.min())
    else:
        edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
    where = np.searchsorted(edges, mean, side="left")
    norm = np.empty(len(mean))
    for place in np.unique(where):
        inside = where == place
        values = disp[inside]
        if flavor == "seurat":
            finite = values[~np.isnan(values)]
            centre, spread = (np.mean(finite), np.std(finite, ddof=1)) if len(finite) > 1 else (0, values)
        else:
            centre = np.median(values)
            spread = np.median(np.abs(values - centre)) / 0.6744897501960817
        with np.errstate(all="ignore"):
            norm[inside] = (values - centre) / spread
    return mean, disp, norm


@each_place
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
@pytest.mark.parametrize("base", [None, 2])
@each_container
def test_dispersions(engine, cls, base, flavor, place):
    x = counts(80, 60, dtype="f8")
    x[5] = 1
    adata = an_anndata(cls, np.log1p(x) / (np.log(base) if base else 1), place)
    adata.uns["log1p"] = {"base": base}
    cx.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=12, n_bins=5)
    values = x if flavor == "seurat" else np.log1p(x) / (np.log(base) if base else 1)
    mean, disp, norm = dispersions(values, flavor, 5)
    np.testing.assert_allclose(adata.var["means"], mean, rtol=1e-9)
    np.testing.assert_allclose(adata.var["dispersions"], disp, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(adata.var["dispersions_norm"], norm, rtol=1e-5, atol=1e-6)
    norm, limit = np.nan_to_num(norm, nan=-np.inf), np.sort(norm[~np.isnan(norm)])[-12]
    apart = np.abs(norm - limit) > 1e-9
    np.testing.assert_array_equal(adata.var["highly_variable"][apart], norm[apart] > limit)
    assert adata.var["highly_variable"].sum() >= 12
    assert adata.uns["hvg"] == {"flavor": flavor}


@each_place
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"])
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_every_flavour_is_the_same_everywhere(batch_key, flavor, cls, place):
    if "v3" in flavor:
        pytest.importorskip("skmisc")
    x = counts(90, 80)
    x[:, 8] = np.arange(90) % 4 == 0  # in one batch only
    x = x if "v3" in flavor else np.log1p(x)
    options = {"flavor": flavor, "batch_key": batch_key, "n_top_genes": 20}
    expected = cx.pp.highly_variable_genes(an_anndata(np.array, x, "memory"), **options, inplace=False)
    adata = an_anndata(cls, x, place)
    frame = cx.pp.highly_variable_genes(adata, **options, inplace=False)
    pd.testing.assert_frame_equal(frame, expected, rtol=1e-6)
    assert frame["highly_variable"].sum() >= 20  # more where several are the last
    assert not list(adata.uns)
    before = cx.to_dense(adata.X)[:, frame["highly_variable"]]
    cx.pp.highly_variable_genes(adata, **options, subset=True)
    assert adata.var_names.tolist() == frame.index[frame["highly_variable"]].tolist()
    np.testing.assert_array_equal(cx.to_dense(adata.X), before)
    np.testing.assert_array_equal(cx.to_dense(adata.layers["other"]), 2 * before)
    assert type(adata.X._meta if place != "memory" else adata.X) is (np.ndarray if cls is np.array else cls)


@pytest.mark.parametrize("base", [np.float32(2), np.array(2), np.array([2.0])], ids=repr)
def test_the_base_of_logarithms_is_what_a_file_holds(engine, base):
    tables = []
    for one in (2, base):
        adata = ad.AnnData(sp.csr_matrix(np.log2(1 + counts())))
        adata.uns["log1p"] = {"base": one}
        tables.append(cx.pp.highly_variable_genes(adata, inplace=False))
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    assert tables[0]["means"].max() > np.log1p(190)


@each_place
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix, np.array], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_variances_of_seurat_v3(cls, batch_key, place):
    loess = pytest.importorskip("skmisc.loess")
    x = counts(90, 80, dtype="f8")
    adata = an_anndata(cls, x, place)
    cx.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=20, batch_key=batch_key)
    norms = []
    for batch in ("a", "b") if batch_key else (None,):
        rows = x[adata.obs["batch"] == batch] if batch else x
        mean, var = rows.mean(axis=0), rows.var(axis=0, ddof=1)
        model = loess.loess(np.log10(mean[var > 0]), np.log10(var[var > 0]), span=0.3, degree=2)
        model.fit()
        std = np.ones(len(mean))
        std[var > 0] = np.sqrt(10**model.outputs.fitted_values)
        clipped = np.minimum(rows, std * np.sqrt(len(rows)) + mean)
        norms.append(((clipped - mean) ** 2).sum(axis=0) / (len(rows) - 1) / std**2)
    np.testing.assert_allclose(adata.var["variances_norm"], np.mean(norms, axis=0), rtol=1e-9)
    np.testing.assert_allclose(adata.var["variances"], x.var(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(adata.var["means"], x.mean(axis=0), rtol=1e-9)
    if not batch_key:
        best = np.argsort(-norms[0], kind="stable")[:20]
        np.testing.assert_array_equal(np.flatnonzero(adata.var["highly_variable"]), np.sort(best))
        np.testing.assert_array_equal(adata.var["highly_variable_rank"].iloc[best], np.arange(20))


def test_what_gene_selection_warns_of_and_refuses():
    x = np.log1p(counts())
    adata = an_anndata(sp.csr_matrix, x, "memory")
    with pytest.warns(UserWarning, match="all cutoffs are ignored"):
        cx.pp.highly_variable_genes(adata, n_top_genes=5, max_mean=4, n_bins=4)
    with pytest.warns(UserWarning, match="filter_unexpressed_genes is set to False"):
        cx.pp.highly_variable_genes(adata, batch_key="batch", filter_unexpressed_genes=False, n_bins=3)
    with pytest.raises(ValueError, match=r"flavor must be one of 'seurat', .*; got 'Seurat'"):
        cx.pp.highly_variable_genes(adata, flavor="Seurat")
    with pytest.raises(KeyError, match="sample"):
        cx.pp.highly_variable_genes(adata, batch_key="sample")
    pytest.importorskip("skmisc")
    with pytest.warns(UserWarning, match="expects raw count data"):
        cx.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=5)


def test_genes_that_nothing_expresses_can_be_left_out():
    x = np.log1p(counts())
    frame = cx.pp.highly_variable_genes(ad.AnnData(x), n_bins=4, filter_unexpressed_genes=True, inplace=False)
    without = cx.pp.highly_variable_genes(ad.AnnData(np.delete(x, 8, axis=1)), n_bins=4, inplace=False)
    assert not frame["highly_variable"].iloc[8]
    np.testing.assert_allclose(
        np.delete(frame["dispersions_norm"].to_numpy(), 8), without["dispersions_norm"].to_numpy(), rtol=1e-12
    )


# ---- scale


def scaled(x, zero_center, max_value, mask):
    x = x.astype(float)
    rows = x if mask is None else x[mask]
    mean, std = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    std = np.where(std == 0, 1, std)
    z = (rows - (mean if zero_center else 0)) / std
    if max_value is not None:
        z = np.clip(z, -max_value if zero_center else None, max_value)
    if mask is None:
        return z, mean, std
    result = x.copy()
    result[mask] = z
    return result, mean, std


@densifies
@each_place
@pytest.mark.parametrize("mask", [None, "mask", "array"])
@pytest.mark.parametrize("max_value", [None, 1.5])
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize(
    ("cls", "dtype"),
    [(cls, dtype) for i, cls in enumerate(CONTAINERS) for dtype in (("f4", "i4"), ("f8", "bool"))[i % 2]],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_scale(cls, dtype, zero_center, max_value, mask, place):
    x = counts(dtype=dtype)
    adata = an_anndata(cls, x.astype("u1") if dtype == "bool" else x, place)
    adata.X = given(cls, x, place)
    cells = adata.obs["mask"].to_numpy()
    expected, mean, std = scaled(x, zero_center, max_value, None if mask is None else cells)
    options = {"zero_center": zero_center, "max_value": max_value}
    cx.pp.scale(adata, **options, mask_obs=cells if mask == "array" else mask)
    suffix = {None: "", "mask": " of mask", "array": " with mask"}[mask]
    np.testing.assert_allclose(adata.var[f"mean{suffix}"], mean, rtol=1e-12)
    np.testing.assert_allclose(adata.var[f"std{suffix}"], std, rtol=1e-9)
    kind = np.ndarray if zero_center or cls is np.array else cls
    assert type(adata.X._meta if place != "memory" else adata.X) is kind
    assert adata.X.dtype == ("f8" if dtype == "f8" else "f4")
    tolerance = 1e-12 if dtype == "f8" else 2e-5
    np.testing.assert_allclose(cx.to_dense(adata.X), expected, rtol=tolerance, atol=tolerance)
    array = given(cls, x, place)
    result = cx.pp.scale(array, **options, mask_obs=None if mask is None else cells)
    np.testing.assert_array_equal(cx.to_dense(result), cx.to_dense(adata.X))
    np.testing.assert_array_equal(cx.to_dense(array), x)


@pytest.mark.parametrize("max_value", [None, 2])
@each_container
def test_scale_reuses_a_buffer_that_nothing_shares(cls, max_value):
    adata = ad.AnnData(cls(counts()))
    gc.collect()
    before = address(adata.X)
    cx.pp.scale(adata, zero_center=False, max_value=max_value)
    assert address(adata.X) == before
    shared = ad.AnnData(cls(counts()))
    shared.raw = shared
    cx.pp.scale(shared, zero_center=False, max_value=max_value)
    np.testing.assert_array_equal(dense(shared.raw.X), counts())
    assert bits(shared.X) == bits(adata.X)


@pytest.mark.parametrize("cls", [np.asarray, sp.csr_array, sp.csc_array])
def test_variable_genes_need_no_matrix_in_float64(cls):
    x = cls(np.random.default_rng(0).poisson(2, (10_000, 1_200)).astype(np.float32))
    n_values = x.nnz if sp.issparse(x) else x.size
    with cx.config(threads=1):
        cx.pp.highly_variable_genes(x[:50], n_top_genes=10)
        tracemalloc.start()
        try:
            cx.pp.highly_variable_genes(x, n_top_genes=10)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 6 * n_values  # a block has four million


@pytest.mark.parametrize("cls", [np.array, sp.csr_array])
def test_one_cell_does_not_vary(cls):
    """As in scanpy: divided by one, not by NaN."""
    x = np.array([[1.0, 0, 3]])
    np.testing.assert_array_equal(dense(cx.pp.scale(cls(x), zero_center=False, max_value=2)), [[1, 0, 2]])
    masked = cx.pp.scale(cls(np.vstack([x, x + 1])), zero_center=False, mask_obs=np.array([True, False]))
    np.testing.assert_array_equal(dense(masked), np.vstack([x, x + 1]))


def test_scale_says_when_it_makes_a_matrix_dense():
    for x in (sp.csr_matrix(counts()), given(sp.csc_array, counts(), "rows")):
        with pytest.warns(UserWarning, match="zero-centering a sparse array/matrix densifies it"):
            cx.pp.scale(x)
        cx.pp.scale(x, zero_center=False)
    cx.pp.scale(counts())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_value": 0}, ValueError, "max_value must be a positive number"),
        ({"max_value": "3"}, ValueError, "max_value must be a positive number"),
        ({"mask_obs": np.ones(3, bool)}, ValueError, r"mask_obs \(3,\) does not match"),
        ({"mask_obs": np.ones(60)}, ValueError, "must be boolean"),
        ({"mask_obs": "nothing"}, ValueError, r"Did not find `adata\.obs\['nothing'\]`"),
        ({"layer": "other", "obsm": "other"}, ValueError, "Only one of"),
    ],
    ids=str,
)
def test_what_scale_refuses(options, error, message):
    adata = an_anndata(sp.csr_matrix, counts(), "memory")
    with pytest.raises(error, match=message):
        cx.pp.scale(adata, **options)
    assert "mean" not in adata.var


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array], ids=lambda cls: cls.__name__)
def test_lazy_results_pickle_and_have_the_same_names_each_time(cls):
    for call in (
        lambda x: cx.pp.scale(x, zero_center=False, max_value=2),
        lambda x: cx.pp.pca(x, 3),
        lambda x: cx.pp.filter_genes(x, min_cells=2)[1],
    ):
        first, second = (call(x) for x in [given(cls, counts(), "both")] * 2)
        assert first.name == second.name
        np.testing.assert_array_equal(cx.to_dense(pickle.loads(pickle.dumps(first))), cx.to_dense(first))


@with_empty_cells
def test_progress_is_told_to_dasks_callbacks(capsys):
    pytest.importorskip("dask")
    from dask.diagnostics import ProgressBar

    x = given(sp.csr_matrix, counts(), "rows")
    cx.pp.recipe_pca(x, n_top_genes=10, n_comps=3, n_bins=3)
    assert not capsys.readouterr().out
    with ProgressBar():
        cx.pp.recipe_pca(x, n_top_genes=10, n_comps=3, n_bins=3)
    assert "100% Completed" in capsys.readouterr().out


@with_empty_cells
@densifies
@pytest.mark.parametrize(
    ("function", "cls"),
    [
        (lambda x: cx.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=None), sp.csr_matrix),
        (lambda x: cx.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=None), sp.csc_array),
        (lambda x: cx.pp.filter_genes(x, min_cells=1), sp.csr_matrix),
        (lambda x: cx.pp.filter_cells(x, min_genes=1), sp.csc_array),
        (cx.pp.highly_variable_genes, sp.csr_matrix),
        *((f, cls) for f in (cx.pp.scale, cx.pp.pca, cx.pp.recipe_pca) for cls in (sp.csr_matrix, sp.csc_array)),
    ],
)
def test_malformed_matrices_are_refused(engine, function, cls):
    x = cls(counts())
    x.indices[x.indptr[4] - 1] = 1_000_000
    with pytest.raises(ValueError, match=r"indices\[\d+\] is 1000000"):
        function(x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_top_genes": 0}, ValueError, "n_top_genes must be a positive int or None, got 0"),
        ({"n_top_genes": 2.5}, ValueError, r"n_top_genes must be a positive int or None, got 2\.5"),
        ({"n_top_genes": 20, "n_comps": 21}, ValueError, "n_comps must be an int from 1 to 20, got 21"),
        ({"svd_solver": "magic"}, ValueError, "svd_solver must be one of"),
        ({"dtype": "number"}, TypeError, "number"),
        ({"flavor": "v3"}, ValueError, "flavor must be one of"),
        ({"max_value": -1}, ValueError, "max_value must be a positive number"),
        ({"target_sum": 0}, ValueError, "target_sum must be a positive number"),
        ({"max_fraction": 2}, ValueError, "max_fraction must be between 0 and 1"),
        ({"chunk_rows": 5}, TypeError, "chunk_rows is for a path"),
        ({"key_added": "pcs"}, TypeError, "only valid if an AnnData"),
    ],
    ids=str,
)
def test_the_recipe_looks_at_its_arguments_before_it_reads(options, error, message):
    dask = pytest.importorskip("dask")
    x = given(sp.csr_matrix, counts(), "rows")
    with dask.config.set(scheduler=None), pytest.raises(error, match=message):
        cx.pp.recipe_pca(x.map_blocks(refuse, meta=x._meta), **options)


def refuse(block):
    raise AssertionError("something was read")


@with_empty_cells
def test_the_recipe_warns_of_logarithms():
    adata = an_anndata(sp.csr_matrix, counts(), "memory")
    cx.pp.log1p(adata)
    with pytest.warns(UserWarning, match="already log-transformed"):
        cx.pp.recipe_pca(adata, n_top_genes=10, n_comps=3, n_bins=3)


@pytest.mark.parametrize("place", ["memory", "rows"])
def test_means_that_cannot_be_put_in_bins(place):
    x = 1000 * counts()  # not logarithms
    with pytest.raises(ValueError, match=r"flavor='seurat' needs finite means .*it expects logarithms"):
        cx.pp.highly_variable_genes(given(sp.csr_matrix, x, place))
    x = np.log1p(counts())
    x[:, 10:] = 0
    with pytest.raises(ValueError, match="more than a twentieth of the genes have the same"):
        cx.pp.highly_variable_genes(given(sp.csr_matrix, x, place), flavor="cell_ranger")


def test_a_batch_of_one_cell():
    pytest.importorskip("skmisc")
    adata = an_anndata(sp.csr_matrix, counts(), "memory")
    adata.obs["batch"] = ["one"] + ["others"] * 59
    with pytest.raises(ValueError, match="batch_key='batch': batch 'one' has one cell"):
        cx.pp.highly_variable_genes(adata, flavor="seurat_v3", batch_key="batch")


def test_nothing_left():
    with pytest.raises(ValueError, match=r"pca of nothing: the matrix has shape \(0, 40\)"):
        cx.pp.pca(counts()[:0])
