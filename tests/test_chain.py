"""The whole chain on Dask arrays with every kind of chunk: right, in as few passes as promised, never np.matrix."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import csraxis as cx
from conftest import AGAIN
from dask_calls import CALLS, KINDS, lazy
from test_pp_dask import Source

ad = pytest.importorskip("anndata")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

CELLS, GENES, CHOSEN, COMPONENTS = 300, 160, 80, 30
CHUNKS = {"rows": (110, GENES), "both": (90, 70)}
CHUNK_KINDS = ("csr_matrix", "csr_array", "csc_matrix", "csc_array", "ndarray")

# zero_center=True says so, where it makes a sparse matrix dense.
densifies = pytest.mark.filterwarnings("ignore:zero-centering a sparse array/matrix densifies it:UserWarning")
with_empty_cells = pytest.mark.filterwarnings("ignore:Some cells have zero counts:UserWarning")
each_kind = pytest.mark.parametrize("kind", CHUNK_KINDS)
each_chunking = pytest.mark.parametrize("chunks", CHUNKS)


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def counts():
    """Cells of five types in genes of very different abundance; a cell and a gene without counts."""
    rng = np.random.default_rng(11)
    abundance = np.exp(rng.normal(-1, 1.5, GENES))
    types = np.exp(rng.normal(0, 0.8, (5, GENES)))
    x = rng.poisson(abundance * types[rng.integers(5, size=CELLS)] * rng.gamma(4, 0.25, (CELLS, 1)))
    x[7], x[:, 5] = 0, 0
    return x.astype("f4")


def dense_chain(x, chosen, zero_center, max_value):
    """Normalised, logged, cut down, scaled: in float64, by NumPy alone."""
    x = x.astype(float)
    totals = x.sum(axis=1, keepdims=True)
    z = np.log1p(1e4 * x / np.where(totals, totals, 1))[:, chosen]
    std = z.std(axis=0, ddof=1)
    z = (z - (z.mean(axis=0) if zero_center else 0)) / np.where(std, std, 1)
    return np.clip(z, -max_value if zero_center else None, max_value) if max_value else z


def assert_components(adata, chosen, expected, n=COMPONENTS):
    """Singular values to 1e-4, the subspace to an angle of 1e-3, signs, and scores that belong to the loadings."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    reference = decomposition.PCA(n, svd_solver="full").fit(expected)
    variance = adata.uns["pca"]["variance"]
    np.testing.assert_allclose(variance, reference.explained_variance_, rtol=2e-4)
    np.testing.assert_allclose(adata.uns["pca"]["variance_ratio"], reference.explained_variance_ratio_, rtol=2e-4)
    loadings = adata.varm["PCs"]
    assert not loadings[~chosen].any()
    loadings = loadings[chosen]
    assert scipy.linalg.subspace_angles(loadings, reference.components_.T).max() < 1e-3
    assert (np.take_along_axis(loadings, np.abs(loadings).argmax(axis=0)[None], 0) > 0).all()
    (scores,) = dask.compute(adata.obsm["X_pca"])
    assert type(scores) is np.ndarray
    np.testing.assert_allclose(scores, (expected - expected.mean(axis=0)) @ loadings, atol=1e-3)


@densifies
@pytest.mark.parametrize("max_value", [None, 3])
@pytest.mark.parametrize("zero_center", [True, False])
@each_chunking
@each_kind
def test_the_chain_on_dask(counts, kind, chunks, zero_center, max_value):
    adata = ad.AnnData(lazy(counts, kind, CHUNKS[chunks]))
    cx.pp.normalize_total(adata, target_sum=1e4)
    cx.pp.log1p(adata)
    cx.pp.highly_variable_genes(adata, n_top_genes=CHOSEN)
    chosen = adata.var["highly_variable"].to_numpy()
    assert chosen.sum() == CHOSEN
    cx.pp.scale(adata, zero_center=zero_center, max_value=max_value)
    cx.pp.pca(adata, COMPONENTS)
    assert type(adata.X._meta) is (np.ndarray if zero_center or kind == "ndarray" else KINDS[kind])
    assert_components(adata, chosen, dense_chain(counts, chosen, zero_center, max_value))


@with_empty_cells
@pytest.mark.parametrize("max_value", [None, 3])
@pytest.mark.parametrize("zero_center", [True, False])
@pytest.mark.parametrize("chunks", ["memory", *CHUNKS])
@each_kind
def test_the_recipe(counts, kind, chunks, zero_center, max_value):
    adata = ad.AnnData(KINDS[kind](counts) if chunks == "memory" else lazy(counts, kind, CHUNKS[chunks]))
    options = {"n_top_genes": CHOSEN, "n_comps": COMPONENTS, "zero_center": zero_center, "max_value": max_value}
    cx.pp.recipe_pca(adata, **options)
    chosen = adata.var["highly_variable"].to_numpy()
    assert chosen.sum() == CHOSEN
    assert_components(adata, chosen, dense_chain(counts, chosen, zero_center, max_value))
    np.testing.assert_array_equal(cx.to_dense(adata.X), counts)


STEPS = {"target_sum": 1e4, "exclude_highly_expressed": True, "max_fraction": 0.2}


@pytest.mark.parametrize("normalisation", [{"target_sum": 1e4}, {"target_sum": None}, STEPS], ids=str)
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"])
@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("chunks", ["memory", "both", (CELLS, 40)], ids=str)
def test_the_recipe_is_the_chain(counts, flavor, batch_key, normalisation, chunks):
    if flavor.startswith("seurat_v3"):
        pytest.importorskip("skmisc")
    obs = {"batch": np.where(np.arange(CELLS) % 3, "a", "b")}
    x = counts[:, counts.any(axis=0)] if flavor.startswith("seurat_v3") and batch_key else counts
    steps = ad.AnnData(sp.csr_matrix(x), obs=obs)
    whole = (
        steps.copy() if chunks == "memory" else ad.AnnData(lazy(x, "csr_matrix", CHUNKS.get(chunks, chunks)), obs=obs)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some cells have zero counts|zero-centering", UserWarning)
        if flavor.startswith("seurat_v3"):
            cx.pp.highly_variable_genes(steps, flavor=flavor, n_top_genes=CHOSEN, batch_key=batch_key)
        cx.pp.normalize_total(steps, **normalisation)
        cx.pp.log1p(steps)
        if not flavor.startswith("seurat_v3"):
            cx.pp.highly_variable_genes(steps, flavor=flavor, n_top_genes=CHOSEN, batch_key=batch_key)
        cx.pp.recipe_pca(
            whole, flavor=flavor, n_top_genes=CHOSEN, n_comps=10, batch_key=batch_key, max_value=4, **normalisation
        )
        chosen = steps.var["highly_variable"].to_numpy()
        assert list(whole.var)[: len(steps.var.columns)] == list(steps.var)
        for name in steps.var:
            np.testing.assert_allclose(
                whole.var[name].to_numpy(float), steps.var[name].to_numpy(float), rtol=1e-4, atol=1e-5, err_msg=name
            )
        steps = steps[:, chosen].copy()
        cx.pp.scale(steps, max_value=4)
        cx.pp.pca(steps, 10)
    np.testing.assert_allclose(whole.uns["pca"]["variance"], steps.uns["pca"]["variance"], rtol=1e-4)
    np.testing.assert_allclose(whole.var.loc[chosen, "mean"], steps.var["mean"], rtol=1e-5)
    np.testing.assert_allclose(whole.var.loc[chosen, "std"], steps.var["std"], rtol=1e-5)
    np.testing.assert_allclose(np.abs(whole.obsm["X_pca"]), np.abs(steps.obsm["X_pca"]), atol=2e-2)


@with_empty_cells
def test_both_kinds_of_scaling_give_the_same_components(counts):
    variances = []
    for zero_center in (True, False):
        adata = ad.AnnData(lazy(counts, "csr_matrix", CHUNKS["both"]).astype("f8"))
        cx.pp.recipe_pca(adata, n_top_genes=CHOSEN, n_comps=20, zero_center=zero_center, max_value=None)
        variances.append(adata.uns["pca"]["variance"])
    np.testing.assert_allclose(*variances, rtol=1e-10)


# ---- passes


def chosen_by_hand(adata):
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 2 == 0


PASSES = {
    "normalize_total": (lambda a: cx.pp.normalize_total(a, target_sum=1e4), 0),
    "normalize_total median": (lambda a: cx.pp.normalize_total(a), 1),
    "normalize_total key_added": (lambda a: cx.pp.normalize_total(a, target_sum=1e4, key_added="size"), 1),
    "filter_cells min_genes": (lambda a: cx.pp.filter_cells(a, min_genes=2), 1),
    "filter_cells max_counts": (lambda a: cx.pp.filter_cells(a, max_counts=1e4), 1),
    "filter_genes min_cells": (lambda a: cx.pp.filter_genes(a, min_cells=2), 1),
    "filter_genes min_counts": (lambda a: cx.pp.filter_genes(a, min_counts=3), 1),
    "calculate_qc_metrics": (
        lambda a: cx.pp.calculate_qc_metrics(a, qc_vars="mito", percent_top=[5, 20], inplace=True),
        1,
    ),
    "hvg seurat": (lambda a: (cx.pp.log1p(a), cx.pp.highly_variable_genes(a, n_top_genes=20)), 1),
    "hvg seurat batches": (
        lambda a: (cx.pp.log1p(a), cx.pp.highly_variable_genes(a, n_top_genes=20, batch_key="batch")),
        1,
    ),
    "hvg cell_ranger": (lambda a: cx.pp.highly_variable_genes(a, n_top_genes=20, flavor="cell_ranger"), 1),
    "hvg seurat_v3": (lambda a: cx.pp.highly_variable_genes(a, n_top_genes=20, flavor="seurat_v3"), 2),
    "hvg seurat_v3 batches": (
        lambda a: cx.pp.highly_variable_genes(a, n_top_genes=20, flavor="seurat_v3", batch_key="batch"),
        2,
    ),
    "hvg subset": (lambda a: (cx.pp.log1p(a), cx.pp.highly_variable_genes(a, n_top_genes=20, subset=True)), 1),
    "scale": (lambda a: cx.pp.scale(a, zero_center=False, max_value=10), 1),
    "scale mask": (lambda a: cx.pp.scale(a, zero_center=False, mask_obs="mask"), 1),
    "pca": (lambda a: cx.pp.pca(a, 5), 1),
    "pca zero_center=False": (lambda a: cx.pp.pca(a, 5, zero_center=False), 1),
    "pca mask": (lambda a: cx.pp.pca(a, 5, mask_var="mito"), 1),
    "pca scores": (lambda a: (cx.pp.pca(a, 5), a.obsm["X_pca"].compute()), 2),
    "recipe": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5), 2),
    "recipe zero_center=False": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, zero_center=False), 2),
    "recipe cell_ranger": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, flavor="cell_ranger"), 2),
    "recipe batches": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, batch_key="batch"), 2),
    "recipe seurat_v3": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, flavor="seurat_v3"), 3),
    "recipe median": (lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, target_sum=None), 3),
    "recipe exclude": (
        lambda a: cx.pp.recipe_pca(a, n_top_genes=20, n_comps=5, exclude_highly_expressed=True, max_fraction=0.2),
        3,
    ),
}


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array], ids=lambda cls: cls.__name__)
@each_chunking
@pytest.mark.parametrize("name", PASSES)
def test_how_often_each_chunk_is_read(counts, name, chunks, cls):
    call, passes = PASSES[name]
    if "v3" in name:
        pytest.importorskip("skmisc")
    full = counts[:, counts.any(axis=0)][counts.any(axis=1)]
    size = tuple(min(pair) for pair in zip(CHUNKS[chunks], full.shape))
    source = Source(cls, full, size)
    adata = ad.AnnData(
        source.array,
        obs={"batch": np.where(np.arange(len(full)) % 3, "a", "b"), "mask": np.arange(len(full)) % 4 > 0},
        var={"mito": np.arange(full.shape[1]) % 5 < 2},
    )
    with dask.config.set(scheduler="threads"):
        call(adata)
    assert source.reads == (dict.fromkeys(source.chunks, passes) if passes else {})


# ---- nothing is np.matrix, nothing called sparse is full


def everything_in(value):
    """All arrays in what a function returned or wrote."""
    if isinstance(value, ad.AnnData):
        for group in (value.layers, value.obsm, value.varm, {"x": value.X}, value.uns):
            yield from everything_in(dict(group))
    elif isinstance(value, dict):
        for part in value.values():
            yield from everything_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from everything_in(part)
    elif isinstance(value, da.Array):
        yield value._meta
        yield from dask.compute(value.to_delayed(optimize_graph=False).ravel().tolist())[0]
    else:
        yield value


PP = {
    "normalize_total": lambda x: cx.pp.normalize_total(x, target_sum=10),
    "log1p": cx.pp.log1p,
    "normalize_log1p": lambda x: cx.pp.normalize_log1p(x, target_sum=10, base=2),
    "filter_cells": lambda x: cx.pp.filter_cells(x, min_genes=1),
    "filter_genes": lambda x: cx.pp.filter_genes(x, max_counts=100),
    "scale": cx.pp.scale,
    "scale zero_center=False": lambda x: cx.pp.scale(x, zero_center=False, max_value=2),
    "scale mask": lambda x: cx.pp.scale(x, mask_obs=np.arange(x.shape[0]) % 3 > 0),
    "scale mask zero_center=False": lambda x: cx.pp.scale(x, zero_center=False, mask_obs=np.arange(x.shape[0]) % 3 > 0),
    "pca": lambda x: cx.pp.pca(x, 3, return_info=True),
    "pca zero_center=False": lambda x: cx.pp.pca(x, 3, zero_center=False),
    "recipe_pca": lambda x: cx.pp.recipe_pca(x, n_top_genes=10, n_comps=3, n_bins=2, return_info=True),
    "qc anndata": lambda x: cx.pp.calculate_qc_metrics(ad.AnnData(x), percent_top=[2]),
    "hvg subset anndata": lambda x: on_anndata(x, cx.pp.highly_variable_genes, n_top_genes=5, n_bins=2, subset=True),
    "filter_genes anndata": lambda x: on_anndata(x, cx.pp.filter_genes, min_cells=5),
    "recipe anndata": lambda x: on_anndata(x, cx.pp.recipe_pca, n_top_genes=10, n_comps=3, n_bins=2),
}


def on_anndata(x, function, **options):
    adata = ad.AnnData(x, layers={"other": x})
    function(adata, **options)
    return adata


@pytest.mark.parametrize("chunks", [None, (8, 11)], ids=str)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in (*PP, *([] if AGAIN else CALLS))
        for kind in KINDS
        if kind != "matrix" or not name.endswith("anndata")  # what an AnnData holds already stays what it is
    ],
)
def test_never_np_matrix_and_no_full_sparse_matrix(name, kind, chunks):
    rng = np.random.default_rng(5)
    x = (rng.poisson(1, (20, 30)) * (rng.random((20, 30)) < 0.5) + np.eye(20, 30)).astype("f4")
    x[:, 3] = 0
    given = KINDS[kind](x) if chunks is None else lazy(x, kind, chunks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "zero-centering|Some cells", UserWarning)
        results = list(everything_in({**PP, **CALLS}[name](given)))
    assert results
    limit = np.count_nonzero(x) if "sparse" not in name else x.size * 2 // 3  # of sparse_like
    for result in results:
        assert not isinstance(result, np.matrix)
        if sp.issparse(result) and result.ndim == 2 and result.shape[1] == x.shape[1]:
            assert result.nnz <= limit


# ---- dask-ml


@densifies
@each_kind
@pytest.mark.parametrize("estimator", ["PCA", "TruncatedSVD", "IncrementalPCA"])
@pytest.mark.parametrize("made_by", ["scale", "to_dense"])
def test_dask_ml_takes_what_comes_out(counts, made_by, estimator, kind):
    decomposition = pytest.importorskip("dask_ml.decomposition")
    x = cx.pp.log1p(cx.pp.normalize_total(lazy(counts, kind, CHUNKS["rows"]), target_sum=1e4))
    dense = cx.pp.scale(x) if made_by == "scale" else cx.to_dense(x)
    options = {"PCA": {"svd_solver": "full"}, "TruncatedSVD": {"algorithm": "tsqr"}, "IncrementalPCA": {}}[estimator]
    model = getattr(decomposition, estimator)(4, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask-ml's own
        model.fit_transform(dense)
        found = np.asarray(model.singular_values_)
    scores = cx.pp.pca(x if made_by == "to_dense" else dense, 4, zero_center=estimator != "TruncatedSVD")
    ours = np.linalg.norm(scores.compute().astype(float), axis=0)
    np.testing.assert_allclose(found, ours, rtol=0.05 if estimator == "IncrementalPCA" else 1e-4)
