"""csraxis.sklearn: scikit-learn's own checks, and the numbers: those of NumPy, scikit-learn and cx.pp."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import assert_close, bits, unchanged
from fresh import run

pytest.importorskip("sklearn", minversion="1.6")
pytest.importorskip("pandas")

import pandas as pd
from sklearn import decomposition, preprocessing
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from csraxis.sklearn import PCA, Log1p, NormalizeTotal, Scale, SelectVariableGenes

MODELS = (
    NormalizeTotal(),
    NormalizeTotal(target_sum=1e4),
    Log1p(base=2),
    SelectVariableGenes(n_top_genes=7),
    Scale(max_value=1.5),
    Scale(zero_center=False, max_value=2),
    PCA(3),
    PCA(3, zero_center=False),
)
CONTAINERS = (np.array, pd.DataFrame, sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix, sp.coo_array)
CHUNKS = {"rows": (17, -1), "both": ((30, 1, 29), 13)}

each_model = pytest.mark.parametrize("model", MODELS, ids=str)
centring = pytest.mark.filterwarnings("ignore:zero-centering a sparse array/matrix densifies it")


def counts(n=60, m=40, dtype=np.float32, seed=0):
    """Of genes that differ in mean and variance; with counts in every cell."""
    rng = np.random.default_rng(seed)
    return rng.negative_binomial(2, 1 / (1 + np.linspace(0.3, 3, m)), (n, m)).astype(dtype)


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def lazy(x, chunks, cls=sp.csr_matrix):
    da = pytest.importorskip("dask.array")
    return da.from_array(x, chunks=CHUNKS[chunks]).map_blocks(cls)


def computed(x):
    return dense(x.map_blocks(dense).compute(scheduler="synchronous"))


def looks_at_values(model):
    """Whether something is learned from them."""
    return not isinstance(model, Log1p) and getattr(model, "target_sum", None) is None


def by_hand(model, x, new):
    """What `model`, fitted on x, makes of new cells: from the definitions, in float64."""
    x, new = x.astype(float), new.astype(float)
    if isinstance(model, NormalizeTotal):
        totals = x.sum(axis=1)
        target = model.target_sum or np.median(totals[totals > 0])
        return new / new.sum(axis=1, keepdims=True) * target
    if isinstance(model, Log1p):
        return np.log1p(new) / np.log(model.base)
    if isinstance(model, Scale):
        mean = x.mean(axis=0) * model.zero_center
        z = (new - mean) / x.std(axis=0, ddof=1)
        return np.clip(z, -model.max_value, model.max_value)
    if isinstance(model, SelectVariableGenes):
        return new[:, cx.pp.highly_variable_genes(x, n_top_genes=model.n_top_genes)["highly_variable"]]
    mean = x.mean(axis=0) * model.zero_center
    loadings = np.linalg.svd(x - mean)[2][: model.n_components]
    largest = np.abs(loadings).argmax(axis=1)
    loadings *= np.sign(loadings[range(len(largest)), largest])[:, None]
    return (new - mean) @ loadings.T


# scikit-learn's checks. Some of their cells sum to less than zero, which NormalizeTotal warns of.

CHECKS = parametrize_with_checks(
    [NormalizeTotal(), Log1p(), SelectVariableGenes(), Scale(), Scale(zero_center=False), PCA()]
)


@pytest.mark.filterwarnings("ignore:Some cells have zero counts", "ignore:SCIPY_ARRAY_API is not set")
@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)  # a generator before scikit-learn 1.8
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# The numbers


@each_model
@pytest.mark.parametrize("cls", CONTAINERS, ids=lambda cls: cls.__name__)
@centring
def test_what_is_learned_from_some_cells_holds_for_others(model, cls):
    x = counts()
    some, others = cls(x[:40]), cls(x[40:])
    before = bits(dense(others))
    result = clone(model).fit(some).transform(others)
    assert bits(dense(others)) == before
    assert result.dtype == np.float32
    assert_close(dense(result), by_hand(model, x[:40], x[40:]), 1e-4, 1e-5)
    is_dense = isinstance(model, PCA) or (isinstance(model, Scale) and model.zero_center)
    of_data_frame = cls is pd.DataFrame
    assert type(result) is (
        np.ndarray
        if is_dense or of_data_frame
        else sp.csr_array
        if cls is sp.coo_array
        else np.ndarray
        if cls is np.array
        else cls
    )


@each_model
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
@centring
def test_dtypes(model, dtype):
    x = counts(dtype=dtype)
    result = clone(model).fit(x[:40]).transform(sp.csr_array(x[40:]))
    changes = not isinstance(model, SelectVariableGenes)
    assert result.dtype == (dtype if dtype == "float64" or not changes else "float32")
    if dtype != "bool":
        assert_close(dense(result), by_hand(model, x[:40], x[40:]), 1e-10 if dtype == "float64" else 1e-4, 1e-5)


def test_pipeline_has_the_bits_of_the_steps(engine):
    x = sp.csr_matrix(counts(dtype="int32"))
    pipeline = make_pipeline(
        NormalizeTotal(), Log1p(), SelectVariableGenes(n_top_genes=20), Scale(zero_center=False, max_value=3), PCA(5)
    )
    with unchanged(x):
        found = pipeline.fit_transform(x)
    steps = cx.pp.normalize_log1p(x)
    chosen = cx.pp.highly_variable_genes(steps, n_top_genes=20)
    steps = cx.pp.scale(steps[:, chosen["highly_variable"].to_numpy()], zero_center=False, max_value=3)
    scores, axes, ratio, variance = cx.pp.pca(steps, 5, return_info=True)
    pca = pipeline[-1]
    learned = pca.components_, pca.explained_variance_ratio_, pca.explained_variance_
    assert bits((found, *learned)) == bits((scores, axes, ratio, variance))
    pd.testing.assert_frame_equal(pipeline[2].statistics_, chosen)
    # It pickles with all that it has learned.
    assert bits(pickle.loads(pickle.dumps(pipeline)).transform(x[:9])) == bits(pipeline.transform(x[:9]))


def test_as_scikit_learn():
    x = counts(dtype=float)
    csr, n = sp.csr_array(x), len(x)
    assert_close(
        dense(NormalizeTotal(target_sum=1).fit_transform(csr)), preprocessing.Normalizer("l1").transform(x), 1e-12
    )
    # Its variances are over n.
    expected = preprocessing.StandardScaler().fit(x)
    assert_close(Scale().fit(csr).mean_, expected.mean_, 1e-12)
    assert_close(Scale().fit_transform(x), expected.transform(x) * np.sqrt((n - 1) / n), 1e-10, 1e-12)
    expected, found = decomposition.PCA(6, svd_solver="full").fit(x), PCA(6).fit(csr)
    for name in ("mean_", "singular_values_", "explained_variance_", "explained_variance_ratio_", "n_components_"):
        assert_close(getattr(found, name), getattr(expected, name), 1e-6, 1e-12)
    signs = np.sign(np.sum(found.components_ * expected.components_, axis=1))
    assert_close(found.components_ * signs[:, None], expected.components_, 0, 1e-5)
    assert_close(found.transform(csr) * signs, expected.transform(x), 0, 1e-4)
    expected, found = decomposition.TruncatedSVD(4, algorithm="arpack").fit(x), PCA(4, zero_center=False).fit(csr)
    assert_close(found.singular_values_, expected.singular_values_, 1e-6)
    assert set(found.mean_) == {0}


@pytest.mark.parametrize(("shape", "expected"), [((80, 70), 50), ((20, 70), 19), ((20, 7), 7), ((9, 1), 1)])
def test_default_number_of_components(shape, expected):
    model = PCA().fit(counts(*shape))
    assert model.n_components_ == len(model.components_) == expected


@pytest.mark.parametrize("cls", [np.array, sp.csr_array, sp.csc_matrix])
@pytest.mark.parametrize(
    "model", [Log1p(), Log1p(base=10), Scale(), Scale(zero_center=False), PCA(20), PCA(20, zero_center=False)], ids=str
)
@centring
def test_inverse(model, cls):
    """Back to the start; of as many components as genes, too."""
    x = counts(60, 20)
    model = clone(model).fit(cls(x))
    back = model.inverse_transform(model.transform(cls(x)))
    assert back.dtype == np.float32
    assert_close(dense(back), x, 1e-4, 1e-4)
    assert type(back) is (
        np.ndarray
        if isinstance(model, PCA) or getattr(model, "zero_center", False)
        else np.ndarray
        if cls is np.array
        else cls
    )


def test_genes_that_were_not_chosen_come_back_as_zeros():
    x = counts()
    model = SelectVariableGenes(n_top_genes=5).fit(x)
    for cls in (np.array, sp.csr_array):
        back = dense(model.inverse_transform(model.transform(cls(x))))
        np.testing.assert_array_equal(back, x * model.highly_variable_)
    with pytest.raises(TypeError, match="takes a matrix in memory; got a Dask array"):
        model.inverse_transform(lazy(x, "rows"))


@pytest.mark.parametrize("flavor", ["cell_ranger", "seurat_v3"])
def test_options_of_the_selection(flavor):
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    x = counts(200, 100)
    ignored = {"min_disp": None, "max_mean": None, "n_bins": None}
    model = SelectVariableGenes(n_top_genes=30, flavor=flavor, span=0.5, **ignored).fit(x)
    expected = cx.pp.highly_variable_genes(x, n_top_genes=30, flavor=flavor, span=0.5)
    pd.testing.assert_frame_equal(model.statistics_, expected)
    if flavor == "seurat_v3":
        with pytest.warns(UserWarning, match="expects raw count data, but non-integers were found"):
            model.fit(x / 3)
        x[3, 4] = np.nan
        with pytest.warns(UserWarning, match="non-integers"), pytest.raises(ValueError, match="X contains NaN"):
            model.fit(lazy(x, "rows"))


def test_base_of_the_logarithms():
    x = counts(200, 100)
    natural, of_two = (SelectVariableGenes(base=base).fit(Log1p(base=base).fit_transform(x)) for base in (None, 2))
    assert natural.get_support(indices=True).tolist() == of_two.get_support(indices=True).tolist()
    assert 0 < natural.highly_variable_.sum() < 100


# Dask


@each_model
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, np.array])
@centring
def test_dask(model, chunks, cls):
    """Fitted in one pass, or none; transformed lazily; the results are those in memory."""
    dask = pytest.importorskip("dask")
    x, computations = counts(), []

    def scheduler(graph, keys, **options):
        computations.append(keys)
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=scheduler):
        fitted = clone(model).fit(lazy(x, chunks, cls))
        assert len(computations) == looks_at_values(model)
        del computations[:]
        result = fitted.transform(lazy(x, chunks, cls))
        assert not computations
    expected = clone(model).fit(x).transform(cls(x))
    assert result.dtype == expected.dtype
    assert type(result._meta) is type(expected)
    assert_close(computed(result), dense(expected), 1e-5, 1e-5)
    if hasattr(model, "inverse_transform") and not isinstance(model, SelectVariableGenes):
        back = fitted.inverse_transform(result)
        assert back.dtype == np.float32
        assert_close(computed(back), dense(fitted.inverse_transform(expected)), 1e-4, 1e-4)


def test_dask_chunks_of_unknown_size():
    x = counts()
    unknown = lazy(x, "rows", np.array)
    unknown = unknown[unknown[:, 0] >= 0]
    assert np.isnan(unknown.shape[0])
    pipeline = make_pipeline(NormalizeTotal(), Log1p(), SelectVariableGenes(n_top_genes=9), Scale(), PCA(3))
    result = pipeline.fit(unknown).transform(unknown).compute(scheduler="synchronous")
    assert_close(result, pipeline.fit(x).transform(x), 1e-4, 1e-4)


# In scikit-learn's company


def test_names_of_genes_and_set_output():
    x = pd.DataFrame(counts(), columns=[f"gene{j}" for j in range(40)], index=[f"cell{i}" for i in range(60)])
    pipeline = make_pipeline(NormalizeTotal(), Log1p(), SelectVariableGenes(n_top_genes=9), Scale(), PCA(3))
    plain = pipeline.fit_transform(x)
    scores = pipeline.set_output(transform="pandas").fit_transform(x)
    assert scores.columns.tolist() == ["pca0", "pca1", "pca2"]
    assert scores.index.equals(x.index)
    np.testing.assert_array_equal(scores, plain)
    chosen = x.columns[pipeline[2].get_support()].tolist()
    assert pipeline[:-1].get_feature_names_out().tolist() == chosen == pipeline[:-1].transform(x).columns.tolist()
    assert pipeline[2].statistics_.index.tolist() == x.columns.tolist()
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        pipeline.transform(x.iloc[:, ::-1])
    with pytest.raises(ValueError, match="outputs a scipy sparse matrix"):
        Log1p().set_output(transform="pandas").fit_transform(sp.csr_array(x))


def test_grid_search():
    """Two kinds of cells are told apart, whatever number of genes and components is tried."""
    x, kind = counts(120, 60), np.arange(120) % 2
    x[kind == 1, -8:] *= 5
    pipeline = make_pipeline(
        NormalizeTotal(),
        Log1p(),
        SelectVariableGenes(),
        Scale(zero_center=False, max_value=10),
        PCA(),
        RidgeClassifier(),
    )
    grid = {"selectvariablegenes__n_top_genes": [20, 40], "pca__n_components": [2, 10]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(sp.csr_matrix(x), kind)
    assert search.cv_results_["mean_test_score"].min() > 0.8
    best = search.best_estimator_
    assert best[-2].n_components_ == search.best_params_["pca__n_components"]
    # Fitted again on all cells.
    assert best[0].target_sum_ == np.median(x.sum(axis=1))


def test_it_is_loaded_when_it_is_used():
    script = """
        import sys, csraxis
        csraxis.sklearn.Log1p
        print(*(name for name in ("anndata", "dask", "numba") if name in sys.modules))
    """
    assert run(script, options=["-W", "error"]) == ""
    assert "sklearn" in dir(cx)
    assert "sklearn" not in cx.__all__  # a star import must not hide scikit-learn


def test_scikit_learn_is_absent():
    error = run("import sys; sys.modules['sklearn'] = None\nimport csraxis; csraxis.sklearn", fails=True)
    assert error.splitlines()[-2].startswith("ModuleNotFoundError")
    assert 'pip install "csraxis[sklearn]"' in error.splitlines()[-1]


# What is refused


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NormalizeTotal(target_sum=0), "target_sum must be a positive number or None, got 0"),
        (Log1p(base=1), "base must be a positive number other than 1, or None; got 1"),
        (Scale(max_value=-1), "max_value must be a positive number or None, got -1"),
        (SelectVariableGenes(flavor="x"), "flavor must be one of 'seurat', .*; got 'x'"),
        (SelectVariableGenes(n_top_genes=0), "n_top_genes must be a positive int or None, got 0"),
        (SelectVariableGenes(n_bins=2.5), "n_bins must be a positive int, got 2.5"),
        (SelectVariableGenes(min_disp=None), "min_disp must be a number, got None"),
        (SelectVariableGenes(base=-2), "base must be a positive number other than 1, or None; got -2"),
        (PCA(41), "n_components must be an int from 1 to 40, got 41"),
        (PCA(0.9), "n_components must be an int from 1 to 40, got 0.9"),
        (PCA(svd_solver="x"), "svd_solver must be .* got 'x'"),
    ],
)
def test_wrong_parameters(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(counts())


@each_model
@centring
def test_wrong_matrices(model):
    x, model = counts(), clone(model)
    for cls in (np.array, sp.csr_array):
        for bad in (np.nan, np.inf):
            wrong = x.copy()
            wrong[3, 4] = bad
            with pytest.raises(ValueError, match="Input X contains"):
                model.fit(cls(wrong))
        with pytest.raises(ValueError, match=r"0 feature\(s\) \(shape=\(60, 0\)\)"):
            model.fit(cls(x[:, :0]))
        if not isinstance(model, NormalizeTotal | Log1p):
            with pytest.raises(ValueError, match=r"1 sample\(s\) \(shape=\(1, 40\)\) while a minimum of 2"):
                model.fit(cls(x[:1]))
    with pytest.raises(ValueError, match="Complex data not supported"):
        model.fit(x + 1j)
    model.fit(x)
    with pytest.raises(ValueError, match=r"X has 39 features, but .* is expecting 40 features"):
        model.transform(x[:, 1:])
    broken = sp.csr_array(x)
    broken.indptr[-1] += 1
    with pytest.raises(ValueError, match=r"indptr ends at \d+, but"):
        model.transform(broken)


@each_model
@centring
def test_wrong_dask_arrays(model):
    x, model = counts(), clone(model)
    da = pytest.importorskip("dask.array")
    name = type(model).__name__
    with pytest.raises(ValueError, match=f"{name} needs a 2-D X of at least . cells and 1 gene, got shape"):
        model.fit(da.zeros(5))
    with pytest.raises(ValueError, match=f"{name} needs .* got shape \\(60, 0\\)"):
        model.fit(da.zeros((60, 0)))
    if not isinstance(model, NormalizeTotal | Log1p):
        with pytest.raises(ValueError, match=f"{name} needs a 2-D X of at least 2 cells .* got shape \\(1, 40\\)"):
            model.fit(da.ones((1, 40)))
    if looks_at_values(model):
        x[3, 4] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            model.fit(lazy(x, "both"))
        assert [name for name in vars(model) if name.endswith("_")] == ["n_features_in_"]  # nothing was learned
    model.fit(counts())
    with pytest.raises(ValueError, match=r"X has 39 features, but .* is expecting 40 features"):
        model.transform(da.zeros((5, 39)))


def test_anndata_is_refused():
    anndata = pytest.importorskip("anndata")
    with pytest.raises(TypeError, match=r"got an AnnData: give its X, or to_df\(\)"):
        Scale().fit(anndata.AnnData(counts()))


def test_selection_before_fit():
    for method, arguments in (("get_support", ()), ("inverse_transform", (counts(),))):
        with pytest.raises(NotFittedError):
            getattr(SelectVariableGenes(), method)(*arguments)


def test_warnings_point_at_the_caller():
    with pytest.warns(UserWarning, match="densifies") as caught:
        make_pipeline(Log1p(), Scale()).fit_transform(sp.csr_array(counts()))
    assert {warning.filename for warning in caught} == {__file__}


def test_scores_of_another_number_of_components():
    model = PCA(3).fit(counts())
    with pytest.raises(ValueError, match=r"X must have shape \(cells, 3\): the scores; got \(4, 2\)"):
        model.inverse_transform(np.zeros((4, 2)))
