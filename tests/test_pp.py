"""cx.pp in memory: as scanpy, but right where scanpy is wrong; no buffer is written that something else shares."""

import gc
import inspect
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
import reference
from checks import bits, unchanged

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")

SPARSE = (sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array)
CONTAINERS = (*SPARSE, np.array)
FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# One per formula, with a numeric target where there is one, so that each cell's result depends on that cell alone.
FUNCTIONS = {
    "normalize_total": partial(cx.pp.normalize_total, target_sum=1e4),
    "log1p": cx.pp.log1p,
    "log1p-base": partial(cx.pp.log1p, base=2),
    "normalize_log1p": partial(cx.pp.normalize_log1p, target_sum=1e4),
    "normalize_log1p-base": partial(cx.pp.normalize_log1p, target_sum=1e4, base=2),
}
ORACLES = {
    "normalize_total": partial(reference.normalize, target_sum=1e4),
    "log1p": lambda x: np.log1p(dense(x).astype(float)),
    "log1p-base": lambda x: np.log1p(dense(x).astype(float)) / np.log(2),
    "normalize_log1p": partial(reference.normalize, target_sum=1e4, log1p=True),
    "normalize_log1p-base": lambda x: reference.normalize(x, target_sum=1e4, log1p=True) / np.log(2),
}

# Each function on each place where it can work.
PLACES = [
    (name, place)
    for name, function in FUNCTIONS.items()
    for place in ({}, {"layer": "other"}, {"obsm": "other"})
    if place.keys() <= inspect.signature(function).parameters.keys()
]
# Where every container takes the same path.
SOME = (sp.csr_matrix, sp.csc_array, np.array)

each_step = pytest.mark.parametrize("name", ["normalize_total", "log1p", "normalize_log1p"])
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_container = pytest.mark.parametrize("cls", CONTAINERS, ids=lambda cls: cls.__name__)
each_sparse = pytest.mark.parametrize("cls", SPARSE, ids=lambda cls: cls.__name__)


def dense(x):
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def counts(seed=0, shape=(30, 20)):
    """Sparse counts, some in every cell; gene 0 has most counts of the first cell."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(0.7, shape) * (rng.random(shape) < 0.6)
    x[:, 1] += 1
    x[0, 0] = 90
    return x


def with_fractions(dtype):
    """Numbers over many powers of ten: their sums depend on the order of addition."""
    rng = np.random.default_rng(1)
    x = counts()
    return (x * np.exp(rng.uniform(-8, 8, x.shape)) if np.dtype(dtype).kind == "f" else x).astype(dtype)


def an_anndata(x):
    """X, a layer and an obsm of the same container, in buffers of their own."""
    return ad.AnnData(x, layers={"other": (2 * x).astype(x.dtype)}, obsm={"other": (3 * x).astype(x.dtype)})


def matrix(adata, layer=None, obsm=None):
    return adata.layers[layer] if layer else adata.obsm[obsm] if obsm else adata.X


def address(x):
    """Where the values are."""
    return (x.data if sp.issparse(x) else x).ctypes.data


# ---- scanpy


@pytest.fixture(scope="session")
def sc():
    return pytest.importorskip("scanpy")


def parameters(function):
    return inspect.signature(function).parameters


def assert_as_scanpy(ours, theirs):
    for place in ({}, {"layer": "other"}, {"obsm": "other"}):
        np.testing.assert_allclose(
            dense(matrix(ours, **place)), dense(matrix(theirs, **place)), rtol=1e-6, atol=1e-6, err_msg=str(place)
        )
    pd.testing.assert_frame_equal(ours.obs, theirs.obs, check_dtype=False, rtol=1e-6)
    assert ours.uns == theirs.uns


@pytest.mark.parametrize("name", ["log1p", "normalize_total"])
def test_parameters_are_scanpys(sc, name):
    ours, theirs = parameters(getattr(cx.pp, name)), parameters(getattr(sc.pp, name))
    for parameter in theirs.values():
        assert ours[parameter.name].default == parameter.default
        assert ours[parameter.name].kind == parameter.kind


CASES = [
    ("normalize_total", {}),
    ("normalize_total", {"target_sum": 1e4}),
    ("normalize_total", {"target_sum": 7, "key_added": "size"}),
    ("normalize_total", {"key_added": "size", "layer": "other"}),
    ("normalize_total", {"obsm": "other"}),
    ("normalize_total", {"exclude_highly_expressed": True, "max_fraction": 0.3, "key_added": "size"}),
    ("normalize_total", {"exclude_highly_expressed": True, "max_fraction": 0.4, "target_sum": 100}),
    ("log1p", {}),
    ("log1p", {"base": 2}),
    ("log1p", {"layer": "other", "base": 10}),
    ("log1p", {"obsm": "other"}),
]


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix, np.array])
def test_results_are_scanpys(sc, cls, dtype, name, options, copy):
    if not options.keys() <= parameters(getattr(sc.pp, name)).keys():
        pytest.skip("this scanpy has no such parameter")
    ours, theirs = (an_anndata(cls(counts().astype(dtype))) for _ in range(2))
    our_copy = getattr(cx.pp, name)(ours, **options, copy=copy)
    their_copy = getattr(sc.pp, name)(theirs, **options, copy=copy)
    assert_as_scanpy(ours, theirs)
    if copy:
        assert_as_scanpy(our_copy, their_copy)
    else:
        assert our_copy is None


@pytest.mark.parametrize("options", [{}, {"target_sum": 7.0, "key_added": "size", "layer": "other"}], ids=str)
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix, np.array])
def test_results_without_inplace_are_scanpys(sc, cls, options):
    ours, theirs = (an_anndata(cls(counts().astype("f4"))) for _ in range(2))
    before = ours.copy()
    results = cx.pp.normalize_total(ours, **options, inplace=False)
    expected = sc.pp.normalize_total(theirs, **options, inplace=False)
    assert list(results) == list(expected) == ["X", "norm_factor"]
    np.testing.assert_allclose(dense(results["X"]), dense(expected["X"]), rtol=1e-6)
    np.testing.assert_allclose(results["norm_factor"], expected["norm_factor"], rtol=1e-6)
    assert_as_scanpy(ours, before)


# ---- the oracle, and where scanpy is wrong


@pytest.mark.parametrize("target", [None, 1e4])
@pytest.mark.parametrize("dtype", ["bool", *INTEGERS, *FLOATS])
@each_container
def test_normalize_total_is_right_in_every_dtype(engine, cls, dtype, target):
    values = counts()
    values[3] = 0
    x = cls(values.astype(dtype))
    with pytest.warns(UserWarning, match="Some cells have zero counts"):
        result = cx.pp.normalize_total(x, target_sum=target)
    assert type(result) is type(x)
    assert result.dtype == (dtype if dtype in FLOATS else "float32")
    rtol = 1e-13 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(dense(result), reference.normalize(x, target_sum=target), rtol=rtol)


@pytest.mark.parametrize(
    ("dtype", "base"),
    [
        *((dtype, None) for dtype in ("bool", *INTEGERS)),
        *((dtype, base) for dtype in FLOATS for base in (None, np.float64(10))),
    ],
)
@each_container
def test_log1p_is_right_in_every_dtype(engine, cls, dtype, base):
    x = cls(counts().astype(dtype))
    result = cx.pp.log1p(x, base=base)
    assert type(result) is type(x)
    assert result.dtype == (dtype if dtype in FLOATS else "float32")
    expected = np.log1p(dense(x).astype(float)) / (1 if base is None else np.log(base))
    np.testing.assert_allclose(dense(result), expected, rtol=1e-14 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("target", [None, 1e4])
@each_container
def test_highly_expressed_genes_are_left_out_of_the_totals(engine, cls, target):
    values = counts()
    fractions = values / values.sum(axis=1, keepdims=True)
    keep = (fractions <= 0.3).all(axis=0)
    assert 0 < keep.sum() < len(keep)
    totals = values[:, keep].sum(axis=1)
    divisor = totals / (np.median(totals[totals > 0]) if target is None else target)
    adata = ad.AnnData(cls(values.astype("f8")))
    cx.pp.normalize_total(adata, target_sum=target, exclude_highly_expressed=True, max_fraction=0.3, key_added="size")
    np.testing.assert_allclose(adata.obs["size"], divisor, rtol=1e-13)
    np.testing.assert_allclose(dense(adata.X), values / divisor[:, None], rtol=1e-13)


@each_container
def test_median_is_over_the_cells_with_counts(cls):
    x = cls(np.array([[0, 0], [1, 1], [0, 4], [0, 0], [6, 0], [0, 0], [0, 0]], "f4"))
    with pytest.warns(UserWarning, match="zero counts"):
        results = cx.pp.normalize_total(ad.AnnData(x), inplace=False)
    np.testing.assert_array_equal(dense(results["X"]).sum(axis=1), [0, 4, 4, 0, 4, 0, 0])
    np.testing.assert_array_equal(results["norm_factor"], [0, 0.5, 1, 0, 1.5, 0, 0])


@pytest.mark.parametrize("options", [{}, {"target_sum": 1e4}, {"exclude_highly_expressed": True}], ids=str)
@each_container
def test_all_zero_matrix_stays(cls, options):
    adata = ad.AnnData(cls(np.zeros((4, 3), "f4")))
    with pytest.warns(UserWarning, match="Some cells have zero counts"):
        cx.pp.normalize_total(adata, key_added="size", **options)
    np.testing.assert_array_equal(dense(adata.X), 0)
    np.testing.assert_array_equal(adata.obs["size"], 0)


@pytest.mark.parametrize("target", [np.float64(1e4), np.float32(1e4), np.int64(10_000), 10_000])
@each_container
def test_type_of_the_target_does_not_matter(cls, target):
    x = cls(counts().astype("f4"))
    assert bits(cx.pp.normalize_total(x, target_sum=target)) == bits(cx.pp.normalize_total(x, target_sum=1e4))


@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_sparse
def test_log1p_treats_special_values_alike(engine, cls, dtype, base):
    values = np.array([[np.nan, np.inf, -np.inf, -1], [-2, -0.5, 0, 3]], dtype)
    result = cx.pp.log1p(cls(values), base=base)
    np.testing.assert_allclose(dense(result), cx.pp.log1p(values, base=base), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(dense(result)), [[1, 0, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("target", [None, 10])
@each_sparse
def test_normalize_total_treats_special_values_alike(engine, cls, target):
    values = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [3, 1, 2], [-4, 1, 1], [4, 1, 1]])
    with pytest.warns(UserWarning, match="zero counts"):  # as scanpy says of totals that are not positive
        result, expected = (cx.pp.normalize_total(x, target_sum=target) for x in (cls(values), values))
    np.testing.assert_array_equal(dense(result), expected)
    np.testing.assert_allclose(expected[2], values[2] * ((target or 6) / 6))


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (5, 0)])
@each_function
@each_container
def test_empty_matrices(cls, name, shape):
    adata = ad.AnnData(cls(np.zeros(shape, "f4")))
    if shape[0] and name.startswith("normalize"):
        with pytest.warns(UserWarning, match="zero counts"):
            FUNCTIONS[name](adata)
    else:
        FUNCTIONS[name](adata)
    assert adata.X.shape == shape
    assert adata.X.dtype == "f4"


# ---- the two steps in one


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_sum": 1e4},
        {"target_sum": 1e4, "base": 2, "key_added": "size"},
        {"base": 10, "key_added": "size", "layer": "other"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
@each_container
def test_fusion_has_the_bits_of_the_two_steps(engine, cls, dtype, options):
    two, one = (an_anndata(cls(with_fractions(dtype))) for _ in range(2))
    steps = {key: value for key, value in options.items() if key != "base"}
    place = {key: value for key, value in options.items() if key == "layer"}
    cx.pp.normalize_total(two, **steps)
    cx.pp.log1p(two, **place, base=options.get("base"))
    cx.pp.normalize_log1p(one, **options)
    assert bits(one.X) == bits(two.X)
    assert bits(one.layers["other"]) == bits(two.layers["other"])
    assert one.uns == two.uns == {"log1p": {"base": options.get("base")}}
    assert list(one.obs) == ["size"] * ("key_added" in options)
    pd.testing.assert_frame_equal(one.obs, two.obs, check_exact=True)


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@each_sparse
def test_fusion_has_the_bits_of_the_two_steps_where_rows_are_not_canonical(engine, cls, dtype, duplicates):
    x = not_canonical(cls, dtype, duplicates)
    two_steps = cx.pp.log1p(cx.pp.normalize_total(x, target_sum=7))
    assert bits(cx.pp.normalize_log1p(x, target_sum=7)) == bits(two_steps)


def not_canonical(cls, dtype, duplicates):
    """Unsorted rows (columns), and where asked for a duplicate in each; the sum of two is beyond uint8."""
    rng = np.random.default_rng(2)
    x = cls(with_fractions(dtype))
    if dtype == "uint8":
        x.data[:] = 200
    for start, stop in zip(x.indptr[:-1], x.indptr[1:]):
        order = start + rng.permutation(stop - start)
        x.indices[start:stop], x.data[start:stop] = x.indices[order], x.data[order]
        if duplicates and stop - start > 1:
            x.indices[start + 1] = x.indices[start]
    return cls((x.data, x.indices, x.indptr), shape=x.shape)


# ---- buffers


@pytest.mark.parametrize(("dtype", "held"), [("float32", False), ("float64", True)])
@pytest.mark.parametrize(("name", "place"), PLACES, ids=str)
@each_container
def test_buffer_that_nothing_shares_is_reused(monkeypatch, cls, name, dtype, place, held):
    adata = an_anndata(cls(counts().astype(dtype)))
    expected = ORACLES[name](matrix(adata, **place))
    holder, before = (matrix(adata, **place) if held else None), address(matrix(adata, **place))
    if not held:
        monkeypatch.setattr("gc.get_objects", None)  # the process need not be searched for another AnnData
    FUNCTIONS[name](adata, **place)
    assert address(matrix(adata, **place)) == before
    assert not held or holder is matrix(adata, **place)
    np.testing.assert_allclose(dense(matrix(adata, **place)), expected, rtol=1e-6)


def other_wrapper(x):
    """A matrix of its own over the same three buffers."""
    return type(x)((x.data, x.indices, x.indptr), shape=x.shape)


def frame(adata, **columns):
    """A DataFrame over the memory of X, and columns of its own."""
    result = pd.DataFrame(adata.X, index=adata.obs_names, columns=adata.var_names, copy=False)
    for name, values in columns.items():
        result[name] = values
    return result


# How the buffer of X comes to be shared; an AnnData that is returned shares it.
SHARES = {
    "raw": lambda adata: setattr(adata, "raw", adata),
    "layer": lambda adata: adata.layers.update(x=adata.X),
    "obsm": lambda adata: adata.obsm.update(x=adata.X),
    "anndata": lambda adata: ad.AnnData(adata.X),
    "raw-of-anndata": lambda adata: setattr(other := ad.AnnData(adata.X.copy()), "raw", adata) or other,
    "layer-of-anndata": lambda adata: ad.AnnData(layers={"x": adata.X}),
}
SHARES_SPARSE = {
    "obsm-wrapper": lambda adata: adata.obsm.update(x=other_wrapper(adata.X)),
    "anndata-wrapper": lambda adata: ad.AnnData(other_wrapper(adata.X)),
}
SHARES_DENSE = {
    "obsm-part": lambda adata: adata.obsm.update(x=adata.X[:, 3:5]),
    "obsm-frame": lambda adata: adata.obsm.update(x=frame(adata)),
    "obsm-frame-of-many-types": lambda adata: adata.obsm.update(x=frame(adata, batch="a")),
    "varm": lambda adata: adata.varm.update(x=adata.X.T),
    "anndata-part": lambda adata: ad.AnnData(adata.X[5:]),
    "obsm-frame-of-anndata": lambda adata: ad.AnnData(shape=adata.shape, obsm={"x": frame(adata)}),
}
SHARINGS = [
    *((how, share, cls) for how, share in SHARES.items() for cls in SOME),
    *((how, share, cls) for how, share in SHARES_SPARSE.items() for cls in SOME[:2]),
    *((how, share, np.array) for how, share in SHARES_DENSE.items()),
]


def everything(adata, but):
    """Copies of all matrices of an AnnData but one."""
    matrices = {"X": adata.X, "raw": adata.raw.X if adata.raw else None}
    for group in ("layers", "obsm", "varm"):
        matrices |= {f"{group} {name}": x for name, x in getattr(adata, group).items() if name is not None}
    return {
        name: np.array(x.toarray() if sp.issparse(x) else x)
        for name, x in matrices.items()
        if name != but and x is not None
    }


@pytest.mark.parametrize(("how", "share", "cls"), SHARINGS, ids=[f"{how}-{cls.__name__}" for how, _, cls in SHARINGS])
@each_step
def test_buffer_that_is_shared_is_not_written(name, how, share, cls):
    adata = an_anndata(cls(counts().astype("f4")))
    expected = ORACLES[name](adata.X)
    other = share(adata)
    before, others = everything(adata, "X"), everything(other, None) if other else None
    FUNCTIONS[name](adata)
    np.testing.assert_allclose(dense(adata.X), expected, rtol=1e-6)
    np.testing.assert_equal(everything(adata, "X"), before)
    if other:
        np.testing.assert_equal(everything(other, None), others)
        # and the other way round, where X is what the other shares
        before, expected = everything(adata, None), ORACLES[name](other.X) if other.X is not None else None
        if expected is not None:
            FUNCTIONS[name](other)
            np.testing.assert_equal(everything(adata, None), before)
            np.testing.assert_allclose(dense(other.X), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "place"), [place for place in PLACES if place[1]], ids=str)
@pytest.mark.parametrize("cls", SOME)
def test_x_is_left_alone_where_another_place_shares_it(name, cls, place):
    x = cls(counts().astype("f4"))
    adata = ad.AnnData(x, **{"layers" if "layer" in place else "obsm": {"other": x}})
    with unchanged(x):
        FUNCTIONS[name](adata, **place)
    assert adata.X is x
    np.testing.assert_allclose(dense(matrix(adata, **place)), ORACLES[name](x), rtol=1e-6)


@each_step
def test_overlapping_views_of_one_array(name):
    base = counts().astype("f4")
    first, second = ad.AnnData(base[:20]), ad.AnnData(base[10:])
    before, expected = second.X.copy(), ORACLES[name](first.X)
    FUNCTIONS[name](first)
    np.testing.assert_array_equal(second.X, before)
    np.testing.assert_allclose(first.X, expected, rtol=1e-6)


@pytest.mark.parametrize("cls", SOME)
@each_step
def test_parent_of_a_view_is_not_changed(name, cls):
    parent = an_anndata(cls(counts().astype("f4")))
    before, view = everything(parent, None), parent[:12]
    expected = ORACLES[name](view.X)
    with pytest.warns(UserWarning, match="Received a view"):
        FUNCTIONS[name](view)
    np.testing.assert_equal(everything(parent, None), before)
    np.testing.assert_allclose(dense(view.X), expected, rtol=1e-6)
    assert not view.is_view


@pytest.mark.parametrize(
    "cls",
    [np.array, *SPARSE],
    ids=lambda cls: cls.__name__,
)
def test_results_for_a_view_without_inplace(cls):
    x = cls(counts().astype("f4"))
    view = ad.AnnData(x)[:12]
    result = cx.pp.normalize_total(view, target_sum=1e4, inplace=False)["X"]
    assert view.is_view
    assert type(result) is type(x)
    np.testing.assert_allclose(dense(result), reference.normalize(x[:12], target_sum=1e4), rtol=1e-6)


def read_only(values):
    values.flags.writeable = False
    return values


UNUSUAL = {
    "read-only": read_only,
    "strided": lambda values: np.repeat(values, 2, axis=-1)[..., ::2],
    "byte-swapped": lambda values: values.astype(values.dtype.newbyteorder()),
}


@pytest.mark.parametrize("buffer", UNUSUAL)
@pytest.mark.parametrize("cls", SOME)
@each_function
def test_unusual_buffers(engine, name, cls, buffer):
    x = cls(counts().astype("f4"))
    if sp.issparse(x):
        x.data = UNUSUAL[buffer](x.data)
    else:
        x = UNUSUAL[buffer](x)
    adata, expected = ad.AnnData(x), ORACLES[name](x)
    FUNCTIONS[name](adata)
    assert adata.X.dtype == np.dtype("f4")
    np.testing.assert_allclose(dense(adata.X), expected, rtol=1e-6)


@pytest.mark.parametrize("duplicates", [False, True])
@each_sparse
@each_function
def test_rows_that_are_not_canonical(engine, name, cls, duplicates):
    x = not_canonical(cls, "float32", duplicates)
    expected = ORACLES[name](x)
    adata = ad.AnnData(x.copy())
    FUNCTIONS[name](adata)
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
@each_function
@each_container
def test_an_array_is_not_changed(engine, cls, name, dtype):
    x = cls(counts().astype(dtype))
    with unchanged(x):
        result = FUNCTIONS[name](x)
    assert type(result) is type(x)
    for part in ("data", "indices", "indptr") if sp.issparse(x) else ():
        assert not np.shares_memory(getattr(x, part), getattr(result, part))
    assert sp.issparse(x) or not np.shares_memory(x, result)
    np.testing.assert_allclose(dense(result), ORACLES[name](x), rtol=1e-6)


@each_function
def test_np_matrix_becomes_ndarray(name):
    result = FUNCTIONS[name](counts().astype("f4").view(np.matrix))
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, FUNCTIONS[name](counts().astype("f4")))


def test_an_anndata_whose_construction_failed_is_passed_over():
    x = sp.csr_matrix(counts().astype("f4"))
    with pytest.raises(ValueError, match="obs") as failure:
        ad.AnnData(x, obs=pd.DataFrame(index=["one"]))
    adata = ad.AnnData(x)
    cx.pp.log1p(adata)
    assert adata.X is x
    del failure  # its traceback held the broken AnnData until here


# ---- warnings and errors


@pytest.mark.parametrize("name", ["normalize_total", "log1p", "normalize_log1p"])
def test_warnings_point_at_the_caller(name):
    adata = ad.AnnData(sp.csr_matrix([[0.0, 0.0], [1.0, 2.0]]), uns={"log1p": {"base": None}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FUNCTIONS[name](adata[:])
    messages = {
        "Received a view of an AnnData. Making a copy.": True,
        "Some cells have zero counts": name != "log1p",
        "adata.X seems to be already log-transformed.": name != "normalize_total",
    }
    assert {str(warning.message) for warning in caught} == {message for message, due in messages.items() if due}
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("name", ["log1p", "normalize_log1p"])
def test_logarithms_are_transformed_again_with_a_warning(name):
    adata = ad.AnnData(counts().astype("f8"))
    FUNCTIONS[name](adata)
    expected = ORACLES[name](adata.X)
    with pytest.warns(UserWarning, match="already log-transformed"):
        FUNCTIONS[name](adata)
    np.testing.assert_allclose(adata.X, expected, rtol=1e-13)


ERRORS = [
    (("normalize_total", "normalize_log1p"), {"copy": True, "inplace": False}, ValueError, "copy=True"),
    (("normalize_total", "log1p"), {"layer": "other", "obsm": "other"}, ValueError, "Only one of"),
    (("normalize_total",), {"max_fraction": -0.1}, ValueError, "between 0 and 1"),
    (("normalize_total",), {"max_fraction": 1.1}, ValueError, "between 0 and 1"),
    (("normalize_total",), {"max_fraction": np.nan}, ValueError, "between 0 and 1"),
    *(
        (("normalize_total", "normalize_log1p"), {"target_sum": t}, ValueError, "target_sum")
        for t in (0, -1, np.nan, np.inf)
    ),
    *((("normalize_total", "normalize_log1p"), {"target_sum": t}, TypeError, "target_sum") for t in ("x", True, 1j)),
    *((("log1p", "normalize_log1p"), {"base": b}, ValueError, "base") for b in (0, -1, 1, np.nan, np.inf, "e", True)),
    (("normalize_total", "log1p", "normalize_log1p"), {"layer": "absent"}, KeyError, "absent"),
    (("normalize_total", "log1p"), {"obsm": "absent"}, KeyError, "absent"),
    (("normalize_total", "log1p"), {"obsm": "frame"}, TypeError, "DataFrame"),
    (("normalize_total", "log1p", "normalize_log1p"), {"layer": "complex"}, TypeError, "complex"),
    (("normalize_total", "log1p", "normalize_log1p"), {"layer": "float16"}, TypeError, "float16"),
]
ERRORS = [(name, *error) for names, *error in ERRORS for name in names]


@pytest.mark.parametrize(("name", "options", "error", "message"), ERRORS, ids=str)
def test_errors_change_nothing(name, options, error, message):
    x = sp.csr_matrix(counts().astype("f4"))
    adata = an_anndata(x)
    adata.layers["complex"] = x.astype(complex)
    adata.layers["float16"] = x.toarray().astype("f2")
    adata.obsm["frame"] = frame(ad.AnnData(x.toarray()))
    before = everything(adata, None)
    for target in (adata, adata[:]):
        with pytest.raises(error, match=message):
            getattr(cx.pp, name)(target, **options)
        np.testing.assert_equal(everything(target, None), before)
        assert target.is_view == (target is not adata)
        assert not target.uns
        assert list(target.obs) == []
    assert adata.X is x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("normalize_total", {"key_added": "size"}),
        ("normalize_total", {"layer": "counts"}),
        ("normalize_total", {"obsm": "counts"}),
        ("normalize_log1p", {"key_added": "size"}),
        ("normalize_log1p", {"layer": "counts"}),
        ("log1p", {"layer": "counts"}),
        ("log1p", {"obsm": "counts"}),
        ("log1p", {"chunked": True}),
        ("log1p", {"chunk_size": 10}),
    ],
    ids=str,
)
def test_options_of_anndata_are_refused_with_an_array(name, options):
    with pytest.raises(TypeError, match=rf"\['{next(iter(options))}'\] are only valid if an AnnData"):
        getattr(cx.pp, name)(counts(), **options)


OTHER = {
    "list": [[1.0, 2.0]],
    "DataFrame": pd.DataFrame([[1.0]]),
    "float16": np.ones((2, 2), "f2"),
    "complex": np.ones((2, 2), complex),
    "None": None,
}


@pytest.mark.parametrize("what", OTHER)
@each_function
def test_other_containers_and_dtypes_are_refused(name, what):
    with pytest.raises(TypeError, match=what):
        FUNCTIONS[name](OTHER[what])


@each_function
def test_an_anndata_without_x_is_refused(name):
    with pytest.raises(TypeError, match=r"adata\.X must be .*NoneType"):
        FUNCTIONS[name](ad.AnnData(obs=pd.DataFrame(index=["a", "b"])))


@pytest.mark.parametrize("name", ["normalize_total", "normalize_log1p"])
@pytest.mark.parametrize("shape", [(4,), (2, 2, 2)])
def test_totals_need_two_dimensions(name, shape):
    with pytest.raises(ValueError, match="2-D"):
        getattr(cx.pp, name)(np.ones(shape))


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        ("indptr", {}, r"indptr must not decrease, but indptr\[3\]"),
        ("indices", {"exclude_highly_expressed": True}, r"indices\[\d+\] is 1000000"),
        ("indices", {"exclude_highly_expressed": True, "max_fraction": 0}, r"indices\[\d+\] is 1000000"),
    ],
    ids=str,
)
@each_sparse
def test_malformed_matrices_are_refused(engine, cls, part, options, message):
    x = cls(counts().astype("f4"))
    if part == "indices":
        x.indices[x.indptr[3] - 1] = 1_000_000  # at the end of a row (column), which stays sorted
    else:
        x.indptr[4] = x.indptr[3] - 1
    adata = ad.AnnData(x)
    with unchanged(x), pytest.raises(ValueError, match=message):
        cx.pp.normalize_total(adata, target_sum=1e4, **options)


@pytest.mark.parametrize("options", [{}, {"copy": True}], ids=str)
@each_function
def test_backed_x_is_refused(name, options, tmp_path):
    an_anndata(sp.csr_matrix(counts().astype("f4"))).write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(NotImplementedError, match="backed"):
        FUNCTIONS[name](backed, **options)
    assert not backed.uns
    expected = ORACLES[name](backed.layers["other"])
    FUNCTIONS[name](backed, layer="other")  # this is in memory
    np.testing.assert_allclose(dense(backed.layers["other"]), expected, rtol=1e-6)
    backed.file.close()


def test_nothing_is_reused_where_other_holders_cannot_be_listed():
    a = ad.AnnData(sp.csr_matrix(counts().astype("f4")))
    b = ad.AnnData(a.X)
    before = dense(b.X)
    gc.freeze()
    try:
        cx.pp.normalize_total(a, target_sum=10)
    finally:
        gc.unfreeze()
    np.testing.assert_array_equal(dense(b.X), before)


def test_an_unusable_key_is_refused_before_anything_changes():
    a = ad.AnnData(sp.csr_matrix(counts().astype("f4")))
    before = dense(a.X)
    with pytest.raises(TypeError, match="key_added must be a string"):
        cx.pp.normalize_total(a, target_sum=10, key_added=["a", "b"])
    np.testing.assert_array_equal(dense(a.X), before)


@pytest.mark.parametrize("cls", CONTAINERS, ids=lambda cls: cls.__name__)
def test_infinity_in_an_excluded_gene_is_left_out_of_the_totals(cls):
    x = cls(np.array([[1.0, np.inf, 3.0], [2.0, 30.0, 2.0]]))
    result = cx.pp.normalize_total(x, target_sum=8, exclude_highly_expressed=True, max_fraction=0.85)
    np.testing.assert_array_equal(dense(result), [[2, np.inf, 6], [4, 60, 4]])


def test_integers_keep_their_indices_only_where_nobody_else_has_the_matrix():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(1, (20, 10)).astype(np.int32))
    adata = ad.AnnData(counts.copy())
    indices = adata.X.indices
    cx.pp.normalize_total(adata, target_sum=10)
    assert adata.X.dtype == np.float32
    assert adata.X.indices is indices
    for hold in (lambda a: a.X, lambda a: setattr(a, "raw", a), lambda a: a.layers.__setitem__("counts", a.X)):
        adata = ad.AnnData(counts.copy())
        held = hold(adata)
        indices = adata.X.indices
        cx.pp.normalize_log1p(adata, target_sum=10)
        assert not np.shares_memory(adata.X.indices, indices)
        assert held is None or (held != counts).nnz == 0
