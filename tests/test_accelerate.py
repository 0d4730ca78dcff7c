"""scanpy's and scikit-learn's own functions run on csraxis, give what they gave, and are put back."""

import importlib.metadata
import inspect
import pickle
import sys
import warnings
from contextlib import suppress
from operator import mul, truediv

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from fresh import run

SCANPY = ("scanpy", "fast_array_utils")


@pytest.fixture
def sparsefuncs():
    return pytest.importorskip("sklearn.utils.sparsefuncs")


@pytest.fixture
def sc():
    return pytest.importorskip("scanpy")


@pytest.fixture(autouse=True)
def _restored():
    yield
    cx.restore("scanpy")
    cx.restore("sklearn")


def counts(kind=sp.csr_matrix, dtype="float32"):
    x = np.random.default_rng(0).poisson(0.3, (80, 60)) * np.arange(1, 61)
    return kind(x.astype(dtype))


def bindings(*tops):
    """What every global name of these packages refers to."""
    return {
        (name, key): id(value)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in tops and module
        for key, value in list(vars(module).items())
    }


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


# Which package, which version


def test_other_packages_are_refused():
    for function in (cx.accelerate, cx.restore):
        with pytest.raises(ValueError, match=r"package must be one of 'scanpy', 'sklearn'; got 'numpy'"):
            function("numpy")
        with pytest.raises(ValueError, match=r"package must be one of .*; got \[\]"):
            function([])


@pytest.mark.parametrize(("package", "name"), [("scanpy", "scanpy"), ("sklearn", "scikit-learn")])
def test_unknown_versions_are_refused(monkeypatch, package, name):
    pytest.importorskip(package)
    before = bindings(package)
    version = importlib.metadata.version
    monkeypatch.setattr(
        sys.modules["csraxis.accelerate"], "version", lambda one: "99.1.2" if one == name else version(one)
    )
    with pytest.raises(RuntimeError, match=rf"knows {name} 1\..*; 99\.1\.2 is installed"):
        cx.accelerate(package)
    assert bindings(package) == before


def test_a_package_that_is_absent(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys.modules["csraxis.accelerate"], "version", absent)
    with pytest.raises(ImportError, match="needs scikit-learn: pip install scikit-learn"):
        cx.accelerate("sklearn")
    cx.restore("sklearn")


def test_restore_needs_no_package():
    assert run("import csraxis as cx, sys\ncx.restore('scanpy')\nprint('scanpy' in sys.modules)") == "False"


# Switched on and off


def test_exactly_what_was_there_comes_back(sparsefuncs):
    cx.accelerate("sklearn")
    cx.restore("sklearn")
    before = bindings("sklearn")
    with suppress(KeyError), cx.accelerate("sklearn") as accelerated:
        assert bindings("sklearn") != before
        assert "sklearn.utils.sparsefuncs.inplace_column_scale" in accelerated.replaced
        for name in accelerated.replaced:
            module, _, function = name.rpartition(".")
            ours = getattr(sys.modules[module], function)
            assert id(ours.__wrapped__) == before[module, function]
            assert inspect.signature(ours) == inspect.signature(ours.__wrapped__)
            assert (ours.__name__, ours.__doc__) == (ours.__wrapped__.__name__, ours.__wrapped__.__doc__)
        assert repr(accelerated).startswith("<csraxis runs inplace_column_scale, ")
        raise KeyError("restored all the same")
    assert bindings("sklearn") == before


def test_twice_is_once(sparsefuncs):
    original = sparsefuncs.mean_variance_axis
    cx.accelerate("sklearn")
    ours = sparsefuncs.mean_variance_axis
    with cx.accelerate("sklearn") as again:
        assert sparsefuncs.mean_variance_axis is ours
        assert "sklearn.utils.sparsefuncs.mean_variance_axis" in again.replaced
    assert sparsefuncs.mean_variance_axis is ours  # what the block found
    cx.restore("sklearn")
    assert sparsefuncs.mean_variance_axis is original
    cx.restore("sklearn")


# scikit-learn


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_sklearn_gives_what_it_gave(sparsefuncs, kind, dtype):
    x = counts(kind, dtype)
    factors = [np.linspace(0.5, 2, n) for n in x.shape]

    def results():
        found = [*sparsefuncs.mean_variance_axis(x, 0), *sparsefuncs.mean_variance_axis(x, 1, return_sum_weights=True)]
        for function, scale in zip((sparsefuncs.inplace_row_scale, sparsefuncs.inplace_column_scale), factors):
            y = x.copy()
            if dtype == "int32":
                with pytest.raises(TypeError):
                    function(y, scale)
            else:
                assert function(y, scale) is None
                found.append(y.data)
        return found

    before = results()
    with cx.accelerate("sklearn"):
        after = results()
    for ours, theirs in zip(after, before, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=2e-7 if theirs.dtype == "float32" else 1e-13)


def test_sklearn_skips_nan_and_weighs(sparsefuncs):
    x = counts(dtype="float64")
    x.data[[3, 50]] = np.nan
    weights = np.arange(80.0)
    calls = [{}, {"weights": weights}]
    before = [sparsefuncs.mean_variance_axis(x, 0, **options) for options in calls]
    with cx.accelerate("sklearn"):
        after = [sparsefuncs.mean_variance_axis(x, 0, **options) for options in calls]
        scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler(with_mean=False).fit(x)
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(scaler.var_, before[0][1])


def test_sklearn_takes_what_csraxis_does_not(sparsefuncs):
    x = counts(sp.csc_matrix, "float64")
    x.data[0] = np.inf
    infinite = np.r_[np.inf, np.ones(59)]
    with cx.accelerate("sklearn"):
        sparsefuncs.inplace_column_scale(x, infinite)
        sparsefuncs.inplace_column_scale(x, infinite.astype(np.longdouble))
        with pytest.raises(TypeError, match="CSR or CSC"):
            sparsefuncs.mean_variance_axis(x.toarray(), 0)
        with pytest.raises(AssertionError):
            sparsefuncs.inplace_csr_row_scale(counts(), np.ones(3))
        with np.errstate(invalid="ignore"):
            mean, _ = sparsefuncs.mean_variance_axis(x, 0)
    assert mean[0] == np.inf


# scanpy


def chain(sc, x):
    """An unchanged script."""
    import anndata

    adata = anndata.AnnData(x.copy())
    sc.pp.calculate_qc_metrics(adata, percent_top=[5], inplace=True)
    sc.pp.filter_cells(adata, min_genes=5)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.normalize_total(adata, target_sum=1e4, key_added="size")
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=30)
    sc.pp.scale(adata, max_value=10, zero_center=False)
    sc.tl.pca(adata, n_comps=5)
    return adata


def test_a_script_gives_what_it_gave(sc):
    x = counts()
    before = chain(sc, x)
    with cx.accelerate("scanpy") as accelerated:
        assert {"scanpy.preprocessing.pca", "scanpy._utils.axis_mul_or_truediv"} <= set(accelerated.replaced)
        assert sc.tl.pca is sc.pp.pca
        after = chain(sc, x)
    assert list(after.obs) == list(before.obs)
    assert list(after.var) == list(before.var)
    assert list(after.uns) == list(before.uns)
    assert after.var["highly_variable"].equals(before.var["highly_variable"])
    np.testing.assert_allclose(after.obs["size"], before.obs["size"], rtol=1e-6)
    np.testing.assert_allclose(dense(after.X), dense(before.X), rtol=1e-5)
    np.testing.assert_allclose(after.obsm["X_pca"], before.obsm["X_pca"], atol=1e-4)


def test_names_come_back_to_scanpy(sc):
    pytest.importorskip("fast_array_utils.stats")
    before = bindings(*SCANPY)
    with cx.accelerate("scanpy") as accelerated:
        for name in accelerated.replaced:
            module, _, function = name.rpartition(".")
            ours = getattr(sys.modules[module], function)
            assert inspect.signature(ours) == inspect.signature(ours.__wrapped__)
        assert pickle.loads(pickle.dumps(sc.pp.log1p)) is sc.pp.log1p
    after = bindings(*SCANPY)
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_arrays_are_changed_in_place_as_by_scanpy(sc, kind):
    def results():
        found = []
        for step, options in ((sc.pp.log1p, {"base": 2}), (sc.pp.scale, {"zero_center": False, "max_value": 3})):
            for copy in (True, False):
                x = counts(kind, "float64")
                result = step(x, copy=copy, **options)
                found.append((result, x, result is x))
        return found

    before = results()
    with cx.accelerate("scanpy"):
        after = results()
    for i, ((result, x, same), (their_result, their_x, their_same)) in enumerate(zip(after, before, strict=True)):
        np.testing.assert_allclose(dense(result), dense(their_result), rtol=1e-12)
        if kind is not sp.csc_matrix or i < 2:  # scale gives a new matrix there, having changed nothing
            np.testing.assert_allclose(dense(x), dense(their_x), rtol=1e-12)
            assert same == their_same


def test_strings_become_categories_as_in_scanpy(sc):
    adata = pytest.importorskip("anndata").AnnData(np.log1p(counts(np.asarray)))
    adata.obs["batch"] = ["a", "b"] * 40
    with cx.accelerate("scanpy"):
        sc.pp.highly_variable_genes(adata, batch_key="batch", n_top_genes=5)
    assert adata.obs["batch"].cat.categories.tolist() == ["a", "b"]


def test_kinds_of_ndarrays_are_changed_in_place(sc):
    class Kind(np.ndarray):
        def __setitem__(self, key, value):  # by which an AnnData's view learns that it has to become a copy
            raise AssertionError

    with cx.accelerate("scanpy"):
        for x in (counts(np.asarray).view(Kind), counts(np.asarray, ">f8")):
            expected = np.log1p(np.asarray(x))
            assert sc.pp.log1p(x) is x
            np.testing.assert_allclose(np.asarray(x), expected, rtol=1e-6)


def test_pca_as_only_scanpy_does_it(sc):
    x = counts(np.asarray, "float64")
    chunks = {"chunked": True, "chunk_size": 40, "n_comps": 3}
    expected = sc.pp.pca(x, **chunks)
    default = sc.settings.N_PCS
    with cx.accelerate("scanpy"):
        centred = sc.pp.pca(x, zero_center=False, **chunks)
        sc.settings.N_PCS = 7
        try:
            scores = sc.pp.pca(x)
        finally:
            sc.settings.N_PCS = default
    np.testing.assert_array_equal(centred, expected)
    assert scores.shape == (80, 7)


def test_what_csraxis_does_not_take_goes_to_scanpy(sc, tmp_path):
    anndata = pytest.importorskip("anndata")
    x = counts(np.asarray, "float16")
    expected = np.log1p(x)
    adata = anndata.AnnData(counts(dtype="float64"))
    path = tmp_path / "backed.h5ad"
    adata.write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r")
    with cx.accelerate("scanpy"):
        np.testing.assert_array_equal(sc.pp.log1p(x), expected)
        with pytest.raises(NotImplementedError, match="log1p is not implemented for matrices of type"):
            sc.pp.log1p(backed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.pp.pca(adata, n_comps=3, svd_solver="lobpcg")
            assert sc.pp.log1p(X=counts()) is not None
    backed.file.close()
    assert adata.obsm["X_pca"].shape == (80, 3)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix, "dask"])
def test_axis_scale_of_scanpy(sc, kind):
    utils = sys.modules["scanpy._utils"]
    x = counts(sp.csr_array, "float64")
    if kind == "dask":
        x = pytest.importorskip("dask.array").from_array(x.toarray(), chunks=(30, 60)).map_blocks(sp.csr_matrix)
    else:
        x = kind(x.toarray())

    def results():
        found = []
        for axis, n in enumerate(x.shape):
            for op in (mul, truediv):
                options = {"axis": axis, "op": op, "allow_divide_by_zero": False}
                found.append(utils.axis_mul_or_truediv(x, np.arange(float(n)), **options))
        return [value.compute() if kind == "dask" else value for value in found]

    before = results()
    with cx.accelerate("scanpy"):
        after = results()
        if sp.issparse(x):
            assert utils.axis_mul_or_truediv(x, np.full(80, 2.0), 0, mul, out=x) is x
    for ours, theirs in zip(after, before, strict=True):
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(dense(ours), dense(theirs))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.csc_matrix, "dask"])
def test_statistics_of_fast_array_utils(sc, kind):
    stats = pytest.importorskip("fast_array_utils.stats")
    x = counts(sp.csr_array, "float32")
    if kind == "dask":
        x = pytest.importorskip("dask.array").from_array(x.toarray(), chunks=(30, 60)).map_blocks(sp.csr_array)
    else:
        x = kind(x.toarray())

    def results():
        found = []
        for axis in (None, 0, 1):
            found += [stats.sum(x, axis=axis), stats.sum(x, axis=axis, dtype="int64"), stats.mean(x, axis=axis)]
            found += [*stats.mean_var(x, axis=axis), *stats.mean_var(x, axis=axis, correction=1)]
            found += [stats.max(x, axis=axis)]
        return [value.compute() if hasattr(value, "compute") else value for value in found]

    before = results()
    with cx.accelerate("scanpy"):
        after = results()
        assert stats.min(sp.csr_array(np.array([[0, 2.0]]))) == 0  # an implicit zero counts
        one = stats.mean_var(sp.csr_array(np.array([[2.0]])), axis=0, correction=1)
        with pytest.raises(np.exceptions.AxisError):
            stats.sum(x, axis=2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'keepdims'"):
            stats.sum(x, axis=0, keepdims=True)
    np.testing.assert_array_equal(one, [[2], [0]])
    for ours, theirs in zip(after, before, strict=True):
        assert (np.asarray(ours).dtype, np.shape(ours)) == (np.asarray(theirs).dtype, np.shape(theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "malformed", "falls_back"),
    [("scale", False, True), ("scale", True, False), ("highly_variable_genes", False, False)],
)
def test_what_might_crash_the_original_does_not_reach_it(name, malformed, falls_back):
    reached = []

    def original(data):
        reached.append(data)

    def refusing(data):
        raise ValueError("no")

    original.__name__ = name
    x = counts()
    if malformed:
        x.indices[3] = 1000
    step = sys.modules["csraxis.accelerate"]._step(original, refusing, True)
    if falls_back:
        step(x)
    else:
        with pytest.raises(ValueError, match="no"):
            step(x)
    assert bool(reached) == falls_back
