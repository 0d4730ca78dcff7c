"""cx.pp's metrics, filters, selection, scaling and PCA against the scanpy that is installed, where that is right."""

import inspect
import os
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.linalg import subspace_angles

import csraxis as cx
from checks import unchanged

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")
sc = pytest.importorskip("scanpy")

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CSRAXIS_DATA") or ROOT.parent / "shared" / "data")
FUNCTIONS = (
    "normalize_total",
    "log1p",
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "highly_variable_genes",
    "scale",
    "pca",
)
CONTAINERS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda x: x.toarray()}
PLACES = {"layer": "layers", "obsm": "obsm"}

# Both of what matters in each container; a full product would say no more.
COUNTS = [("csr", "float32"), ("csr", "int32"), ("csc", "float32"), ("dense", "float32"), ("dense", "int32")]
FLOATS = [("csr", "float32"), ("csc", "float64"), ("dense", "float32")]
NUMBERS = [("csr", "float32"), ("csr", "int32"), ("csc", "float64"), ("csc", "float32"), ("dense", "float32")]

each_container = pytest.mark.parametrize("container", CONTAINERS)
each_of_counts = pytest.mark.parametrize(("container", "dtype"), COUNTS)
each_of_floats = pytest.mark.parametrize(("container", "dtype"), FLOATS)
each_of_numbers = pytest.mark.parametrize(("container", "dtype"), NUMBERS)
each_filter = pytest.mark.parametrize("name", ["filter_cells", "filter_genes"])
each_dispersion_flavor = pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
each_v3_flavor = pytest.mark.parametrize("flavor", ["seurat_v3", "seurat_v3_paper"])


def label(value):
    """The id of a parameter; of an array, its type and length."""
    if isinstance(value, dict):
        return "-".join(f"{key}={label(option)}" for key, option in value.items()) or "default"
    return f"{value.dtype}[{len(value)}]" if isinstance(value, np.ndarray) else str(value)


def load(path):
    if not path.exists():
        pytest.skip(f"{path} is not here (CSRAXIS_DATA names the folder of the larger matrices)")
    return sp.csr_matrix(sp.load_npz(path))


@cache
def pbmc3k():
    return load(ROOT / "bench" / "data" / "pbmc3k_raw.npz")


@cache
def pbmc_merged():
    """Five batches, some of which lack many genes, and the batch of each cell."""
    x = load(DATA / "pbmc_merged_raw.npz")
    batches = np.load(DATA / "pbmc_merged_batches.npz")
    return x, pd.Categorical.from_codes(np.repeat(range(5), np.diff(batches["bounds"])), batches["names"])


@cache
def counts():
    """Of PBMC 3k, 400 cells, and 600 genes: the 300 in most of these cells, 280 others, and 20 that are in none."""
    x = pbmc3k()[::6][:400]
    cells = x.getnnz(axis=0)
    order = np.argsort(-cells, kind="stable")
    order = order[: np.count_nonzero(cells >= 3)]
    others = order[300:]
    chosen = np.r_[order[:300], others[:: len(others) // 280][:280], np.flatnonzero(cells == 0)[:20]]
    return x[:, np.sort(chosen)]


def an_anndata(x):
    """X, other values in a layer and in an obsm, others in raw. The order of the names is not that of the genes."""
    n_cells, n_genes = x.shape
    cells, genes = np.arange(n_cells), np.arange(n_genes)
    obs = pd.DataFrame(
        {"batch": pd.Categorical(np.array(["a", "b", "c"])[cells % 7 % 3]), "odd": cells % 2 == 1},
        index=[f"c{i}" for i in cells],
    )
    var = pd.DataFrame({"mt": genes % 50 == 3, "ribo": genes % 7 == 3}, index=[f"g{i}" for i in genes])
    adata = ad.AnnData(3 * x, obs=obs, var=var)
    adata.raw = adata
    adata.X = x
    adata.layers["other"] = 2 * x
    adata.obsm["other"] = 2 * x
    adata.varm["rank"] = genes[:, None]
    return adata


def two(x):
    """The same AnnData twice, with nothing shared."""
    return an_anndata(x), an_anndata(x.copy())


def logged(x=None, base=None):
    adata = an_anndata(counts().astype("f8") if x is None else x)
    cx.pp.normalize_log1p(adata, target_sum=1e4, base=base)
    return adata


def logged_in(container, dtype):
    """The logarithms alone."""
    return CONTAINERS[container](logged().X.astype(dtype))


def scanpys(name, *args, **options):
    """scanpy's result, without its own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(sc.pp, name)(*args, **options)


def assert_scanpy_warns(message, name, *args, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = getattr(sc.pp, name)(*args, **options)
    assert any(message in str(warning.message) for warning in caught)
    return result


def parameters(function):
    return inspect.signature(function).parameters


def skip_unless_scanpy_has(name, options):
    if not options.keys() <= parameters(getattr(sc.pp, name)).keys():
        pytest.skip("this scanpy has no such parameter")


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def matrix(adata, options):
    for key, group in PLACES.items():
        if key in options:
            return getattr(adata, group)[options[key]]
    return adata.X


def assert_same_frame(ours, theirs, rtol=1e-5):
    assert list(ours) == list(theirs)
    assert [dtype.kind for dtype in ours.dtypes] == [dtype.kind for dtype in theirs.dtypes]
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False, rtol=rtol)


def assert_same_matrix(ours, theirs, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(dense(ours), dense(theirs), rtol=rtol, atol=atol)


def assert_same_anndata(ours, theirs, rtol=1e-5):
    assert_same_frame(ours.obs, theirs.obs, rtol)
    assert_same_frame(ours.var, theirs.var, rtol)
    assert_same_matrix(ours.X, theirs.X)
    for group in ("layers", "obsm", "varm"):
        our_group, their_group = getattr(ours, group), getattr(theirs, group)
        assert list(our_group) == list(their_group)
        for key in their_group:
            assert_same_matrix(our_group[key], their_group[key])
    assert list(ours.raw.var_names) == list(theirs.raw.var_names)
    assert_same_matrix(ours.raw.X, theirs.raw.X)


def is_sentinel(default):
    return default is not None and not isinstance(default, str | bool | int | float | tuple)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_scanpys(name):
    ours, theirs = parameters(getattr(cx.pp, name)), parameters(getattr(sc.pp, name))
    assert next(iter(ours)) == next(iter(theirs))
    for parameter in theirs.values():
        assert parameter.name in ours
        default = ours[parameter.name].default
        if parameter.default is not parameter.empty and is_sentinel(parameter.default):
            assert default is not parameter.empty
            assert is_sentinel(default)
        else:
            assert default == parameter.default
            assert type(default) is type(parameter.default)
        assert ours[parameter.name].kind == parameter.kind


QC = [
    {},
    {"percent_top": None},
    {"percent_top": []},
    {"percent_top": [20, 5, 600]},
    {"qc_vars": "mt"},
    {"qc_vars": ["ribo", "mt"], "percent_top": (1,)},
    {"qc_vars": ["mt"], "log1p": False},
    {"qc_vars": ["mt"], "layer": "other"},
    {"qc_vars": ["mt"], "use_raw": True},
    {"qc_vars": ["mt"], "percent_top": [50], "expr_type": "umis", "var_type": "features"},
]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("options", QC, ids=label)
@each_of_counts
def test_qc_metrics(container, dtype, options, inplace):
    x = CONTAINERS[container](counts().astype(dtype))
    ours, theirs = two(x)
    with unchanged(x):
        results = cx.pp.calculate_qc_metrics(ours, **options, inplace=inplace)
    expected = scanpys("calculate_qc_metrics", theirs, **options, inplace=inplace)
    if inplace:
        assert results is None
    else:
        assert isinstance(results, tuple)
        for frame, expected_frame in zip(results, expected, strict=True):
            assert_same_frame(frame, expected_frame)
    assert_same_anndata(ours, theirs)


@each_container
def test_qc_metrics_take_the_place_of_older_ones(container):
    ours, theirs = two(CONTAINERS[container](counts()))
    for adata in (ours, theirs):
        adata.obs.insert(0, "total_counts", "old")
        adata.var.insert(1, "mean_counts", -1)
    cx.pp.calculate_qc_metrics(ours, inplace=True)
    scanpys("calculate_qc_metrics", theirs, inplace=True)
    assert_same_anndata(ours, theirs)


@each_of_counts
def test_qc_metrics_of_empty_cells_and_genes(container, dtype):
    x = np.array([[0, 3, 1, 0], [0, 0, 0, 0], [0, 1, 5, 0]], dtype)
    ours, theirs = two(CONTAINERS[container](sp.csr_matrix(x)))
    results = cx.pp.calculate_qc_metrics(ours, percent_top=[1, 2], qc_vars=["mt", "ribo"])
    expected = scanpys("calculate_qc_metrics", theirs, percent_top=[1, 2], qc_vars=["mt", "ribo"])
    assert np.isnan(results[0]["pct_counts_in_top_1_genes"].iloc[1])
    for frame, expected_frame in zip(results, expected, strict=True):
        assert_same_frame(frame, expected_frame)


@pytest.mark.parametrize("container", ["csr", "csc"])
def test_qc_metrics_leave_explicit_zeros(container):
    x = CONTAINERS[container](counts().astype("f4"))
    x.data[::3] = 0
    ours, theirs = an_anndata(x), an_anndata(x.copy())
    held = ours.X
    with unchanged(held):
        results = cx.pp.calculate_qc_metrics(ours, qc_vars=["mt"], percent_top=[10, 400])
    assert ours.X is held
    for frame, expected in zip(
        results, scanpys("calculate_qc_metrics", theirs, qc_vars=["mt"], percent_top=[10, 400]), strict=True
    ):
        assert_same_frame(frame, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"percent_top": [5, 601]}, IndexError, "outside range of features"),
        ({"percent_top": [0, 5]}, IndexError, "outside range of features"),
        ({"qc_vars": ["absent"]}, KeyError, "absent"),
        ({"layer": "absent"}, KeyError, "absent"),
        ({"layer": "other", "use_raw": True}, ValueError, "layer"),
    ],
    ids=label,
)
@each_container
def test_qc_errors(container, options, error, message):
    for adata, function in zip(two(CONTAINERS[container](counts())), (cx.pp.calculate_qc_metrics, None)):
        before = adata.copy()
        with pytest.raises(error, match=message):
            function(adata, **options, inplace=True) if function else scanpys("calculate_qc_metrics", adata, **options)
        assert_same_anndata(adata, before)


FILTERS = [
    ("filter_cells", {"min_counts": 1200}),
    ("filter_cells", {"max_counts": 1200}),
    ("filter_cells", {"min_genes": 230}),
    ("filter_cells", {"max_genes": 230}),
    ("filter_cells", {"min_genes": 0}),
    ("filter_genes", {"min_counts": 40}),
    ("filter_genes", {"max_counts": 40}),
    ("filter_genes", {"min_cells": 30}),
    ("filter_genes", {"max_cells": 30}),
    ("filter_genes", {"max_cells": 0}),
]


def kept_and_numbers(results):
    """What inplace=False and arrays give: plain 1-D arrays, the first boolean."""
    kept, numbers = results
    assert type(kept) is type(numbers) is np.ndarray
    assert kept.dtype == bool
    return kept, numbers


def assert_same_subset(ours, theirs):
    for part, expected in zip(kept_and_numbers(ours), theirs, strict=True):
        assert part.dtype.kind == np.asarray(expected).dtype.kind
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("how", [{}, {"copy": True}, {"inplace": False}], ids=label)
@pytest.mark.parametrize(("name", "options"), FILTERS, ids=label)
@each_of_counts
def test_filters(container, dtype, name, options, how):
    x = CONTAINERS[container](counts().astype(dtype))
    ours, theirs = two(x)
    with unchanged(x):
        results = getattr(cx.pp, name)(ours, **options, **how)
    expected = scanpys(name, theirs, **options, **how)
    if how.get("copy"):
        assert_same_anndata(results, expected)
        assert type(results.X) is type(expected.X)
    elif how:
        assert_same_subset(results, expected)
    else:
        assert results is None
    assert_same_anndata(ours, theirs)
    assert type(ours.X) is type(theirs.X)
    assert ours.X.dtype == dtype
    assert not ours.is_view
    assert list(ours.obs["batch"].cat.categories) == list(theirs.obs["batch"].cat.categories)


@pytest.mark.parametrize(("name", "options"), FILTERS, ids=label)
@each_of_counts
def test_filters_of_arrays(container, dtype, name, options):
    x = CONTAINERS[container](counts().astype(dtype))
    with unchanged(x):
        results = getattr(cx.pp, name)(x, **options)
    assert_same_subset(results, scanpys(name, x.copy(), **options))


@pytest.mark.parametrize("options", [{"min_counts": 1}, {"max_counts": 0}], ids=label)
@each_filter
@each_container
def test_filters_count_positive_values(container, name, options):
    other = {"filter_cells": "genes", "filter_genes": "cells"}[name]
    x = sp.csr_matrix(np.array([[1.0, -2, 0, 4], [0, 0, 3, -1], [-1, -1, 0, 0]]))
    x.data[1] = 0
    x = CONTAINERS[container](x)
    for option in (options, {key.replace("counts", other): value for key, value in options.items()}):
        with unchanged(x):
            results = getattr(cx.pp, name)(x, **option)
        assert_same_subset(results, scanpys(name, x.copy(), **option))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
@each_filter
def test_filters_that_leave_nothing(name, shape):
    ours, theirs = two(counts().astype("f4"))
    options = {"min_counts": 10**9} if shape[0 if name == "filter_cells" else 1] == 0 else {"min_counts": -1}
    getattr(cx.pp, name)(ours, **options)
    scanpys(name, theirs, **options)
    assert ours.shape == theirs.shape
    assert_same_anndata(ours, theirs)


@pytest.mark.parametrize("given", [(), (0, 1), (0, 2), (1, 3), (0, 1, 2, 3)], ids=label)
@each_filter
def test_filters_need_one_threshold(name, given):
    thresholds = [key for key in parameters(getattr(cx.pp, name)) if key.startswith(("min_", "max_"))]
    assert len(thresholds) == 4
    options = {thresholds[i]: 1 for i in given}
    adata = an_anndata(counts())
    for function in (getattr(sc.pp, name), getattr(cx.pp, name)):
        for data in (adata, adata.X):
            with pytest.raises(ValueError, match="Only provide one of the optional parameters"):
                function(data, **options)
    assert adata.shape == counts().shape
    assert not {"n_counts", "n_genes", "n_cells"} & {*adata.obs, *adata.var}


def near(x, edge):
    return np.abs(x - edge) <= 1e-5 * np.abs(edge)


def mean_bins(means, flavor, n_bins):
    """The bin of each gene, as pandas.cut counts them; 0 for genes that were left out."""
    known = means[means != 0]
    if flavor == "seurat":
        edges = pd.cut(known, n_bins, retbins=True)[1]
    else:
        edges = np.r_[-np.inf, np.percentile(known, np.arange(10, 105, 5)), np.inf]
    return np.where(means == 0, 0, np.searchsorted(edges, means))


def in_unsettled_bins(ours, theirs, flavor, n_bins):
    """Genes of the bins between which one changes, its mean being as near to the edge as the means agree."""
    our_bins, their_bins = (mean_bins(frame["means"].to_numpy(), flavor, n_bins) for frame in (ours, theirs))
    moved = our_bins != their_bins
    return np.isin(their_bins, [*our_bins[moved], *their_bins[moved]])


def on_the_cut(frame, options):
    """Genes whose selection hangs on the last digits."""
    if options.get("n_top_genes"):
        chosen = frame[frame["highly_variable"]]
        if "highly_variable_nbatches" in frame:
            chosen = chosen[chosen["highly_variable_nbatches"] == chosen["highly_variable_nbatches"].min()]
        return near(frame["dispersions_norm"], chosen["dispersions_norm"].min())
    cuts = {"min_disp": 0.5, "max_disp": np.inf, "min_mean": 0.0125, "max_mean": 3} | options
    values = {"disp": frame["dispersions_norm"], "mean": frame["means"]}
    return np.logical_or.reduce([near(values[cut[4:]], cuts[cut]) for cut in cuts if cut[4:] in values])


def assert_same_values(ours, theirs, columns, rtol, atol, but=False):
    for column in columns:
        if column in theirs:
            np.testing.assert_allclose(
                np.where(but, 0, ours[column]), np.where(but, 0, theirs[column]), rtol, atol, err_msg=column
            )


def assert_same_genes(ours, theirs, flavor, options=None, rtol=1e-5):
    """Two tables of highly_variable_genes: equal, but for ties within 1e-5 of a bin edge or of the cut."""
    options = options or {}
    assert list(ours) == list(theirs)
    # With genes that were left out scanpy's bins are objects: texts, and 0.0 for these.
    loose = ["mean_bin"] if options.get("filter_unexpressed_genes") and "mean_bin" in theirs else []
    assert list(map(str, ours.drop(columns=loose).dtypes)) == list(map(str, theirs.drop(columns=loose).dtypes))
    assert list(ours.index) == list(theirs.index)
    assert ours["highly_variable"].any()
    assert not ours["highly_variable"].all()
    assert_same_values(ours, theirs, ["means", "variances"], rtol, 1e-9)
    # In batches scanpy 1.12 gives genes with equal totals means that differ in the last bit, which moves the local
    # regression by a percent: what it makes of each batch alone is compared by assert_ranks.
    assert_same_values(ours, theirs, ["variances_norm"], 0.05 if "batch_key" in options else rtol, 0)
    if "gene_name" in theirs:
        assert list(ours["gene_name"]) == list(theirs["gene_name"])
    if "dispersions" not in theirs:
        return  # see assert_ranks
    # On a scale of logarithms, or of their spread.
    assert_same_values(ours, theirs, ["dispersions"], rtol, rtol)
    unsettled = False
    if "batch_key" not in options:
        unsettled = in_unsettled_bins(ours, theirs, flavor, options.get("n_bins", 20))
        assert np.mean(unsettled) < 0.2
    assert_same_values(ours, theirs, ["dispersions_norm"], rtol, rtol, unsettled)
    if "mean_bin" in theirs:
        labels, expected = (frame["mean_bin"].astype(str) for frame in (ours, theirs))
        assert ((labels == expected) | unsettled | (theirs["means"] == 0)).all()
    tied = unsettled | on_the_cut(theirs, options)
    for column in ("highly_variable", "highly_variable_nbatches", "highly_variable_intersection"):
        if column in theirs:
            assert ((ours[column] == theirs[column]) | tied).all(), column


def scanpys_variances(adata, flavor, options):
    """The normalised variances in each batch, by scanpy of that batch alone."""
    options = options.copy()
    batch = adata.obs[options.pop("batch_key")] if "batch_key" in options else pd.Series("all", adata.obs_names)
    parts = [adata[(batch == name).to_numpy()].copy() for name in batch.unique()]
    tables = [scanpys("highly_variable_genes", part, flavor=flavor, **options, inplace=False) for part in parts]
    return np.array([table["variances_norm"] for table in tables])


def bounds_of_ranks(variances):
    """The lowest and the highest rank of each gene: those that tie are in anybody's order."""
    order = np.sort(variances)
    lowest = len(order) - np.searchsorted(order, variances * (1 + 1e-5), "right")
    return lowest, len(order) - np.searchsorted(order, variances * (1 - 1e-5), "left") - 1


def assert_ranks(table, adata, flavor, options):
    """Variances, ranks and choice of a v3 flavour follow from scanpy's variances in each batch."""
    variances = scanpys_variances(adata, flavor, options)
    np.testing.assert_allclose(table["variances_norm"], variances.mean(axis=0), rtol=1e-5)
    lowest, highest = np.array([bounds_of_ranks(of_batch) for of_batch in variances]).swapaxes(0, 1)
    n = options["n_top_genes"]
    surely, perhaps = highest < n, lowest < n
    ranks = table["highly_variable_rank"].to_numpy()
    known = (surely == perhaps).all(axis=0)
    np.testing.assert_array_equal(np.isnan(ranks)[known], ~surely.any(axis=0)[known])
    ranked = known & surely.any(axis=0)
    assert ranked.sum() >= 0.9 * n
    low, high = (np.nanmedian(np.where(surely, x, np.nan)[:, ranked], axis=0) for x in (lowest, highest))
    assert (low <= ranks[ranked]).all()
    assert (ranks[ranked] <= high).all()
    if "batch_key" in options:
        batches = table["highly_variable_nbatches"].to_numpy()
        assert (surely.sum(axis=0) <= batches).all()
        assert (batches <= perhaps.sum(axis=0)).all()
    else:
        batches = ~np.isnan(ranks)
        np.testing.assert_array_equal(np.sort(ranks[batches]), np.arange(n))
    by_rank = np.where(np.isnan(ranks), np.inf, ranks)
    order = np.lexsort((-1 * batches, by_rank) if flavor == "seurat_v3" else (by_rank, -1 * batches))
    assert set(order[:n]) == set(np.flatnonzero(table["highly_variable"]))


def assert_same_selection(ours, theirs, flavor, options, rtol=1e-5):
    """Run both on AnnData objects, inplace and not."""
    skip_unless_scanpy_has("highly_variable_genes", options)
    results = cx.pp.highly_variable_genes(ours, flavor=flavor, **options, inplace=False)
    expected = scanpys("highly_variable_genes", theirs, flavor=flavor, **options, inplace=False)
    assert "highly_variable" not in ours.var
    assert "hvg" not in ours.uns
    if "batch_key" in options and "n_top_genes" not in options:
        # scanpy's come in the order of their names
        assert sorted(results.index) == list(expected.index)
        expected = expected.loc[results.index]
    assert_same_genes(results, expected, flavor, options, rtol)
    if flavor.startswith("seurat_v3"):
        assert_ranks(results, theirs, flavor, options)
    assert cx.pp.highly_variable_genes(ours, flavor=flavor, **options) is None
    scanpys("highly_variable_genes", theirs, flavor=flavor, **options)
    assert_same_genes(ours.var, theirs.var, flavor, options, rtol)
    both = ours.var.columns.intersection(results.columns)
    assert_same_frame(ours.var[both], results[both])
    assert list(ours.var) == list(theirs.var)
    assert ours.uns["hvg"] == theirs.uns["hvg"] == {"flavor": flavor}
    assert list(ours.obs) == list(theirs.obs)


DISPERSIONS = [
    {},
    {"min_mean": 0.1, "max_mean": 2.5, "min_disp": 0.2, "max_disp": 1.5},
    {"n_top_genes": 100},
    {"n_top_genes": 100, "n_bins": 7},
    {"n_bins": 120},
    {"layer": "other"},
    {"batch_key": "batch"},
    {"batch_key": "batch", "n_top_genes": 100},
    {"batch_key": "batch", "min_disp": 0, "max_mean": 2, "n_bins": 10},
    {"filter_unexpressed_genes": True},
    {"filter_unexpressed_genes": True, "n_top_genes": 100},
]


def without_genes_in_one_batch(adata, x):
    """The counts, with 50 genes missing in batch b."""
    keep = np.ones(adata.shape, bool)
    keep[np.ix_(adata.obs["batch"] == "b", np.arange(adata.n_vars) % 12 == 5)] = False
    return sp.csr_matrix(x.multiply(keep))


@pytest.mark.parametrize(
    ("flavor", "options"),
    [
        *(("seurat", options) for options in DISPERSIONS),
        *(("cell_ranger", options) for options in DISPERSIONS if "n_bins" not in options),
    ],
    ids=label,
)
@each_of_floats
def test_genes_by_dispersion(container, dtype, flavor, options):
    adata = logged(without_genes_in_one_batch(an_anndata(counts()), counts()).astype("f8"))
    x = CONTAINERS[container](adata.X.astype(dtype))
    ours, theirs = two(x)
    with unchanged(x, ours.layers["other"]):
        assert_same_selection(ours, theirs, flavor, options, rtol=1e-5 if dtype == "float64" else 2e-4)


@pytest.mark.parametrize("base", [2, 10])
@each_container
@each_dispersion_flavor
def test_genes_by_dispersion_of_logarithms_to_a_base(flavor, container, base):
    adata = logged(base=base)
    assert adata.uns["log1p"] == {"base": base}
    ours, theirs = two(CONTAINERS[container](adata.X))
    for other in (ours, theirs):
        other.uns["log1p"] = {"base": base}
    assert_same_selection(ours, theirs, flavor, {})
    natural = logged()
    cx.pp.highly_variable_genes(natural, flavor=flavor)
    same = np.allclose(natural.var["dispersions"], ours.var["dispersions"], rtol=1e-6, equal_nan=True)
    assert same == (flavor == "seurat")


@pytest.mark.parametrize("options", [{"max_mean": 10}, {"n_top_genes": 80}], ids=label)
def test_genes_by_dispersion_with_one_gene_in_a_bin(options):
    adata = logged()
    x = adata.X.tolil()
    x[:, 5] = np.linspace(6, 8, adata.n_obs)[:, None]  # far from all others
    ours, theirs = two(x.tocsr())
    assert_same_selection(ours, theirs, "seurat", options)
    assert ours.var["dispersions_norm"].iloc[5] == 1


V3 = [
    {"n_top_genes": 100},
    {"n_top_genes": 250, "span": 0.5},
    {"n_top_genes": 100, "layer": "other"},
    {"n_top_genes": 100, "batch_key": "batch"},
    {"n_top_genes": 60, "batch_key": "batch", "span": 0.4},
]


@pytest.mark.parametrize(
    ("flavor", "options"),
    [
        *(("seurat_v3", options) for options in V3),
        *(("seurat_v3_paper", options) for options in V3 if "batch_key" in options),
    ],
    ids=label,
)
@pytest.mark.parametrize(("container", "dtype"), COUNTS[::2])
def test_genes_by_variance(container, dtype, flavor, options):
    pytest.importorskip("skmisc")
    x = CONTAINERS[container](without_genes_in_one_batch(an_anndata(counts()), counts()).astype(dtype))
    ours, theirs = two(x)
    with unchanged(x, ours.layers["other"]):
        assert_same_selection(ours, theirs, flavor, options)


@pytest.mark.parametrize("batches", [{}, {"batch_key": "batch"}], ids=label)
@pytest.mark.parametrize("cut", [{}, {"n_top_genes": 80}], ids=label)
@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"])
def test_subset_of_genes(flavor, cut, batches):
    v3 = flavor.startswith("seurat_v3")
    if v3:
        pytest.importorskip("skmisc")
    x = counts().astype("f8") if v3 else logged().X
    whole, ours = two(x)
    options = {"flavor": flavor, **({"n_top_genes": 50} if v3 else {}), **cut, **batches}
    cx.pp.highly_variable_genes(whole, **options)
    results = cx.pp.highly_variable_genes(ours, **options, subset=True, inplace=False)
    assert_same_matrix(ours.X, x)
    assert list(ours.var) == ["mt", "ribo"]
    assert cx.pp.highly_variable_genes(ours, **options, subset=True) is None
    assert 0 < ours.n_vars < x.shape[1]
    expected = whole[:, whole.var["highly_variable"]].copy()
    assert_same_anndata(ours, expected)
    assert ours.uns["hvg"] == expected.uns["hvg"]
    assert type(ours.X) is type(x)
    assert not ours.is_view
    assert list(results.index) == list(ours.var_names)
    assert results["highly_variable"].all()
    theirs = an_anndata(x.copy())
    table = scanpys("highly_variable_genes", theirs, **options, subset=True, inplace=False)
    scanpys("highly_variable_genes", theirs, **options, subset=True)
    assert list(results) == list(table)
    assert list(ours.var) == list(theirs.var)
    assert ours.shape == theirs.shape
    # Ties apart, and where scanpy takes the rows of its table, in the order of the names, for those of var.
    if not v3 and (cut or not batches):
        assert list(ours.var_names) == list(theirs.var_names) == list(table.index)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3"])
@each_container
def test_selection_from_arrays(container, flavor):
    v3 = flavor == "seurat_v3"
    if v3:
        pytest.importorskip("skmisc")
    x = CONTAINERS[container](counts() if v3 else logged().X)
    with unchanged(x):
        table = cx.pp.highly_variable_genes(x, flavor=flavor, n_top_genes=50)
    expected = cx.pp.highly_variable_genes(an_anndata(x), flavor=flavor, n_top_genes=50, inplace=False)
    for column in table:
        if column not in ("gene_name", "mean_bin"):
            np.testing.assert_array_equal(table[column], expected[column])


HVG_WARNINGS = [
    ({"n_top_genes": 50, "min_mean": 0.5}, "all cutoffs are ignored"),
    ({"n_top_genes": 590}, "returning all genes with normalized dispersions"),
    ({"batch_key": "batch", "filter_unexpressed_genes": False}, "filter_unexpressed_genes is set to False"),
    ({"flavor": "seurat_v3", "n_top_genes": 50}, "expects raw count data, but non-integers were found"),
    ({"flavor": "seurat_v3_paper", "n_top_genes": 50}, "expects raw count data, but non-integers were found"),
]


@pytest.mark.parametrize(("options", "message"), HVG_WARNINGS, ids=label)
def test_selection_warns_as_scanpy(options, message):
    skip_unless_scanpy_has("highly_variable_genes", options)
    if "v3" in options.get("flavor", ""):
        pytest.importorskip("skmisc")
    ours, theirs = two(logged().X)
    with pytest.warns(UserWarning, match=message):
        cx.pp.highly_variable_genes(ours, **options)
    assert_scanpy_warns(message, "highly_variable_genes", theirs, **options)
    pd.testing.assert_series_equal(ours.var["highly_variable"], theirs.var["highly_variable"])


@each_v3_flavor
def test_values_need_not_be_checked(flavor):
    pytest.importorskip("skmisc")
    ours, theirs = two(logged().X)
    assert_same_selection(ours, theirs, flavor, {"n_top_genes": 50, "check_values": False})


@pytest.mark.parametrize(
    ("options", "error"),
    [({"flavor": "other"}, ValueError), ({"batch_key": "absent"}, KeyError), ({"layer": "absent"}, KeyError)],
    ids=label,
)
def test_selection_errors(options, error):
    adata = logged()
    for function in (sc.pp.highly_variable_genes, cx.pp.highly_variable_genes):
        with pytest.raises(error):
            function(adata, **options)
    assert list(adata.var) == ["mt", "ribo"]
    assert "hvg" not in adata.uns


ODD = np.arange(150) % 2 == 1
SCALES = [
    {},
    {"max_value": 1.5},
    {"zero_center": False},
    {"zero_center": False, "max_value": 2},
    {"mask_obs": "odd"},
    {"mask_obs": ODD, "max_value": 1},
    {"mask_obs": "odd", "zero_center": False},
    {"mask_obs": ODD, "zero_center": False, "max_value": 1.5},
    {"layer": "other", "max_value": 3},
    {"layer": "other", "mask_obs": "odd", "zero_center": False},
    {"obsm": "other", "zero_center": False},
]


def with_a_constant_gene(container, dtype):
    x = counts()[:150].tolil()
    x[:, 7] = 2
    return CONTAINERS[container](x.tocsr().astype(dtype))


def scale_warns(x, options):
    due = sp.issparse(x) and options.get("zero_center", True)
    message = "zero-centering a sparse array/matrix densifies it"
    return pytest.warns(UserWarning, match=message) if due else nullcontext()


def assert_scaled(result, x, options, expected):
    """The values are scanpy's; class, format and dtype are ours."""
    if options.get("zero_center", True):
        assert type(result) is np.ndarray
    else:
        assert type(result) is type(x)
    assert result.dtype == (x.dtype if x.dtype.kind == "f" else "float32")
    assert_same_matrix(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", SCALES, ids=label)
@each_of_numbers
def test_scale(container, dtype, options):
    x = with_a_constant_gene(container, dtype)
    ours, theirs = two(x)
    with scale_warns(x, options):
        assert cx.pp.scale(ours, **options) is None
    scanpys("scale", theirs, **options)
    assert_scaled(matrix(ours, options), x, options, matrix(theirs, options))
    assert_same_anndata(ours, theirs)
    names = {"mask_obs": ["mean with mask", "std with mask"], "odd": ["mean of odd", "std of odd"]}
    mask = options.get("mask_obs")
    expected_names = ["mean", "std"] if mask is None else names["odd" if isinstance(mask, str) else "mask_obs"]
    assert list(ours.var) == ["mt", "ribo", *expected_names]
    assert ours.var[expected_names[1]].iloc[7] == 1


@pytest.mark.parametrize("options", SCALES[:5], ids=label)
@each_container
def test_scale_copy(container, options):
    x = with_a_constant_gene(container, "f4")
    ours, theirs = two(x)
    before = ours.copy()
    with scale_warns(x, options):
        result = cx.pp.scale(ours, **options, copy=True)
    assert ours.X is x
    assert_same_anndata(ours, before)
    assert_same_anndata(result, scanpys("scale", theirs, **options, copy=True))


@pytest.mark.parametrize(
    "options", [options for options in SCALES if not isinstance(options.get("mask_obs"), str)], ids=label
)
@each_of_numbers
def test_scale_of_arrays(container, dtype, options):
    if PLACES.keys() & options.keys():
        with pytest.raises(TypeError, match="only valid if an AnnData"):
            cx.pp.scale(counts(), **options)
        return
    x = with_a_constant_gene(container, dtype)
    with unchanged(x), scale_warns(x, options):
        result = cx.pp.scale(x, **options)
    assert_scaled(result, x, options, scanpys("scale", x.copy(), **options, copy=True))
    assert not any(np.shares_memory(a, b) for a in buffers(x) for b in buffers(result))


def buffers(x):
    return (x.data, x.indices, x.indptr) if sp.issparse(x) else (x,)


@pytest.mark.parametrize("mask", ["absent", ODD[1:], ODD.astype(int), "number"], ids=label)
def test_masks_that_are_refused(mask):
    adata = an_anndata(with_a_constant_gene("csr", "f4"))
    adata.obs["number"] = 1.0
    for function in (sc.pp.scale, cx.pp.scale):
        with pytest.raises(ValueError, match=r"(?i)mask"):
            function(adata, mask_obs=mask, zero_center=False)
        with pytest.raises(ValueError, match=r"(?i)mask"):
            function(adata.X.copy(), mask_obs=mask, zero_center=False)
    assert_same_matrix(adata.X, with_a_constant_gene("csr", "f4"))
    assert list(adata.var) == ["mt", "ribo"]


def assert_same_components(ours, theirs, our_scores, their_scores, tolerance=1e-4):
    """Columns of loadings: where singular values are apart each is the same, sign included; so are the subspaces."""
    assert ours.shape == theirs.shape
    ours, theirs = (np.asarray(loadings, float) for loadings in (ours, theirs))
    largest = np.take_along_axis(ours, np.abs(ours).argmax(axis=0)[None], axis=0)
    assert (largest > 0).all()
    np.testing.assert_allclose(ours.T @ ours, np.eye(ours.shape[1]), atol=1e-4)
    strength = np.linalg.norm(their_scores.astype(float), axis=0)
    gaps = -np.diff(strength) / strength[:-1]
    apart = np.append(gaps > 1e-2, False)
    single = apart & np.append(True, apart[:-1])
    assert single[:2].all()
    cosines = (ours * theirs).sum(axis=0)
    assert (cosines[single] >= 1 - tolerance).all()
    difference = np.linalg.norm(our_scores - their_scores, axis=0) / strength
    assert (difference[single] <= 1e-3 + tolerance).all()
    for k in np.flatnonzero(apart) + 1:
        assert subspace_angles(ours[:, :k], theirs[:, :k]).max() <= 1e-3


def assert_same_variances(ours, theirs, zero_center, n_cells):
    """csraxis divides by n - 1 always; scanpy without centring by n."""
    for key, factor in (("variance", 1 if zero_center else n_cells / (n_cells - 1)), ("variance_ratio", 1)):
        assert ours[key].ndim == 1
        np.testing.assert_allclose(ours[key], theirs[key] * factor, rtol=1e-4, err_msg=key)


def scanpys_pca(data, **options):
    """Not with the randomised solver."""
    solver = {} if options.get("zero_center", True) else {"svd_solver": "arpack"}
    return scanpys("pca", data, **options, **solver)


SOME_GENES = np.arange(600) % 3 != 0
PCAS = [
    {},
    {"n_comps": 7},
    {"n_comps": 5, "mask_var": None},
    {"n_comps": 5, "mask_var": SOME_GENES},
    {"n_comps": 5, "mask_var": "ribo"},
    {"n_comps": 5, "layer": "other"},
    {"n_comps": 5, "obsm": "other"},
    {"n_comps": 5, "obsm": "other", "key_added": "mine", "mask_var": None},
    {"n_comps": 5, "key_added": "mine", "mask_var": "ribo"},
    {"n_comps": 5, "dtype": "float64"},
    {"n_comps": 5, "zero_center": False},
    {"n_comps": 5, "zero_center": False, "mask_var": SOME_GENES, "layer": "other"},
]


@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("options", PCAS, ids=label)
@each_container
def test_pca(container, options, selected):
    skip_unless_scanpy_has("pca", options)
    x = logged_in(container, "f8")
    ours, theirs = two(x)
    if selected:
        for adata in (ours, theirs):
            adata.var["highly_variable"] = SOME_GENES[::-1]
    with unchanged(x):
        assert cx.pp.pca(ours, **options) is None
    assert_same_pca(ours, theirs, options)


def assert_same_pca(ours, theirs, options):
    """scanpy's is still to be run."""
    scanpys_pca(theirs, **options)
    key_obsm, key_varm, key_uns = [options["key_added"]] * 3 if "key_added" in options else ("X_pca", "PCs", "pca")
    for group in ("obsm", "varm", "uns"):
        assert list(getattr(ours, group)) == list(getattr(theirs, group))
    uns, expected = ours.uns[key_uns], theirs.uns[key_uns]
    assert list(uns) == list(expected)
    assert list(uns["params"]) == list(expected["params"])
    np.testing.assert_equal(uns["params"], expected["params"])
    assert_same_variances(uns, expected, options.get("zero_center", True), ours.n_obs)
    scores, expected_scores = ours.obsm[key_obsm], theirs.obsm[key_obsm]
    assert type(scores) is np.ndarray
    assert scores.dtype == expected_scores.dtype == options.get("dtype", "float32")
    assert scores.shape == expected_scores.shape
    if "obsm" in options:
        loadings, expected_loadings = uns["components"], expected["components"]
    else:
        loadings, expected_loadings = ours.varm[key_varm], theirs.varm[key_varm]
    assert type(loadings) is np.ndarray
    assert loadings.dtype.kind == "f"
    mask = uns["params"]["mask_var"]
    if mask is not None:
        assert not loadings[~(ours.var[mask].to_numpy() if isinstance(mask, str) else mask)].any()
    assert_same_components(loadings, expected_loadings, scores, expected_scores)


@pytest.mark.parametrize("use", [False, True])
def test_deprecated_arguments_warn(use):
    ours, theirs = two(logged_in("csr", "f8"))
    for adata in (ours, theirs):
        adata.var["highly_variable"] = SOME_GENES
    with pytest.warns(FutureWarning, match="`use_highly_variable` is deprecated"):
        cx.pp.pca(ours, n_comps=3, use_highly_variable=use)
    assert_same_pca(ours, theirs, {"n_comps": 3, "use_highly_variable": use})
    with pytest.warns(FutureWarning, match="`parallel` is deprecated"):
        cx.pp.calculate_qc_metrics(ours, parallel=use)


@each_container
def test_pca_copy(container):
    ours, theirs = two(logged_in(container, "f8"))
    before = ours.copy()
    result = cx.pp.pca(ours, n_comps=4, copy=True)
    assert_same_anndata(ours, before)
    assert not ours.uns
    assert_same_pca(result, theirs, {"n_comps": 4})


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (51, 60), (60, 50)])
def test_pca_takes_one_component_less_than_it_could(shape):
    most_expressed = np.argsort(-counts().getnnz(axis=0))[: shape[1]]
    ours, theirs = two(logged().X[: shape[0], most_expressed])
    cx.pp.pca(ours)
    scanpys("pca", theirs)
    assert ours.obsm["X_pca"].shape == theirs.obsm["X_pca"].shape
    assert ours.varm["PCs"].shape == theirs.varm["PCs"].shape
    for key in ("variance", "variance_ratio"):
        expected = theirs.uns["pca"][key]
        np.testing.assert_allclose(ours.uns["pca"][key], expected, rtol=1e-4, atol=1e-9 * expected[0])


@pytest.mark.parametrize("return_info", [False, True])
@pytest.mark.parametrize("options", [{"n_comps": 6}, {"n_comps": 4, "zero_center": False}], ids=label)
@each_of_numbers
def test_pca_of_arrays(container, dtype, options, return_info):
    x = CONTAINERS[container](counts().astype(dtype)) if dtype == "int32" else logged_in(container, dtype)
    with unchanged(x):
        result = cx.pp.pca(x, **options, return_info=return_info)
    expected = scanpys_pca(x.astype("f8"), **options, return_info=True)
    scores, components, ratio, variance = (
        result if return_info else (result, *cx.pp.pca(x, **options, return_info=True)[1:])
    )
    assert type(scores) is type(components) is np.ndarray
    assert scores.dtype == "float32"
    assert scores.shape == expected[0].shape
    assert_same_variances(
        {"variance": variance, "variance_ratio": ratio},
        {"variance": expected[3], "variance_ratio": expected[2]},
        options.get("zero_center", True),
        x.shape[0],
    )
    assert_same_components(components.T, expected[1].T, scores, expected[0])


@pytest.mark.parametrize("options", [{"mask_var": SOME_GENES}, {"dtype": "float64"}], ids=label)
def test_pca_of_arrays_with_options(options):
    x = logged_in("csr", "f8")
    result = cx.pp.pca(x, 4, **options, return_info=True)
    expected = scanpys_pca(x, n_comps=4, **options, return_info=True)
    assert result[0].dtype == expected[0].dtype
    assert_same_components(result[1].T, expected[1].T, result[0], expected[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask_var": "absent"}, ValueError, "absent"),
        ({"mask_var": SOME_GENES[1:]}, ValueError, "mask"),
        ({"mask_var": SOME_GENES.astype(int)}, ValueError, r"(?i)mask"),
        ({"mask_var": SOME_GENES, "obsm": "other"}, ValueError, "incompatible with `obsm`"),
        ({"layer": "absent"}, KeyError, "absent"),
    ],
    ids=label,
)
def test_pca_errors(options, error, message):
    skip_unless_scanpy_has("pca", options)
    adata = logged()
    for function in (sc.pp.pca, cx.pp.pca):
        with pytest.raises(error, match=message):
            function(adata, n_comps=3, **options)
    assert list(adata.obsm) == ["other"]
    assert list(adata.varm) == ["rank"]
    assert list(adata.uns) == ["log1p"]


@pytest.fixture(params=["pbmc3k", "pbmc_merged"])
def real(request):
    """Two AnnData objects of float32 counts, and the column of the batches where there is one."""
    x, batch = (pbmc3k(), None) if request.param == "pbmc3k" else pbmc_merged()

    def adata():
        names = (pd.Index([f"{kind}{i}" for i in range(n)]) for kind, n in zip("cg", x.shape))
        obs, var = (pd.DataFrame(index=index) for index in names)
        if batch is not None:
            obs["batch"] = batch
        return ad.AnnData(x.astype("f4"), obs=obs, var=var)

    return adata(), adata(), {} if batch is None else {"batch_key": "batch"}


def only_expressed(*adatas):
    for adata in adatas:
        adata._inplace_subset_var(adata.X.getnnz(axis=0) >= 20)


def test_real_metrics_and_filters(real):
    ours, theirs, _ = real
    for adata in (ours, theirs):
        adata.var["mt"] = np.arange(adata.n_vars) % 100 == 0
        adata.raw = adata
    for name, options in (
        ("calculate_qc_metrics", {"qc_vars": ["mt"], "inplace": True}),
        ("filter_cells", {"min_genes": 700}),
        ("filter_genes", {"min_cells": 3}),
    ):
        getattr(cx.pp, name)(ours, **options)
        scanpys(name, theirs, **options)
    assert_same_frame(ours.obs, theirs.obs)
    assert_same_frame(ours.var, theirs.var)
    assert abs(ours.X - theirs.X).max() == 0
    assert ours.raw.shape == theirs.raw.shape


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"])
def test_real_genes(real, flavor):
    ours, theirs, batches = real
    only_expressed(ours, theirs)
    v3 = flavor.startswith("seurat_v3")
    if v3:
        pytest.importorskip("skmisc")
    else:
        for adata in (ours, theirs):
            cx.pp.normalize_log1p(adata, target_sum=1e4)
    options = batches | ({} if v3 else {"n_top_genes": 2000})
    cx.pp.highly_variable_genes(ours, flavor=flavor, **options)
    scanpys("highly_variable_genes", theirs, flavor=flavor, **options)
    assert ours.var["highly_variable"].sum() == 2000
    assert_same_genes(ours.var, theirs.var, flavor, options, rtol=1e-5 if v3 else 2e-4)
    if v3:
        assert_ranks(ours.var, theirs, flavor, batches | {"n_top_genes": 2000})


def test_real_scale_and_pca(real):
    ours, theirs, _ = real
    for adata in (ours, theirs):
        cx.pp.normalize_log1p(adata, target_sum=1e4)
        mean, var = cx.mean_var(adata.X, axis=0)
        adata._inplace_subset_var(np.argsort(-var / (mean + 1e-3))[:1000])
    cx.pp.scale(ours, zero_center=False, max_value=10)
    scanpys("scale", theirs, zero_center=False, max_value=10)
    assert_same_frame(ours.var, theirs.var, rtol=1e-4)
    assert abs(ours.X - theirs.X).max() <= 1e-4
    cx.pp.pca(ours, n_comps=15)
    assert_same_pca(ours, theirs, {"n_comps": 15})


def test_the_whole_chain():
    x = pbmc3k()
    ours, theirs = (ad.AnnData(x.copy()) for _ in range(2))
    for name, options in (
        ("filter_cells", {"min_genes": 200}),
        ("filter_genes", {"min_cells": 3}),
        ("normalize_total", {"target_sum": 1e4}),
        ("log1p", {}),
        ("highly_variable_genes", {"n_top_genes": 2000, "flavor": "seurat", "subset": True}),
        ("scale", {"max_value": 10}),
        ("pca", {"n_comps": 50}),
    ):
        with scale_warns(ours.X, options) if name == "scale" else nullcontext():
            assert getattr(cx.pp, name)(ours, **options) is None
        scanpys(name, theirs, **options)
    assert ours.shape == theirs.shape == (2700, 2000)
    assert list(ours.var_names) == list(theirs.var_names)
    assert list(ours.obs) == list(theirs.obs)
    assert list(ours.var) == list(theirs.var)
    assert list(ours.uns) == list(theirs.uns)
    assert type(ours.X) is np.ndarray
    assert ours.X.dtype == "float32"
    assert_same_matrix(ours.X, theirs.X, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.uns["pca"]["variance_ratio"], theirs.uns["pca"]["variance_ratio"], rtol=1e-4)
    assert_same_components(ours.varm["PCs"], theirs.varm["PCs"], ours.obsm["X_pca"], theirs.obsm["X_pca"], 1e-3)
