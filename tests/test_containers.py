"""Containers that are converted, read block by block, or handed to their own library; and what is no container."""

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
import reference
from checks import assert_close, bits, unchanged
from csraxis.dispatch import _backed

# anndata announces that its default will change.
pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")

REDUCTIONS = ("sum", "prod", "mean", "var", "std", "max", "min", "any", "all", "count_nonzero")
UNARY = ("log1p", "expm1", "sqrt", "square", "abs", "negative", "sign")
FUNCTIONS = {
    **{
        f"{name} {axis}": lambda x, name=name, axis=axis: getattr(cx, name)(x, axis=axis)
        for name in REDUCTIONS
        for axis in (None, 0, 1, ())
    },
    **{name: getattr(cx, name) for name in (*UNARY, "to_dense", "gram", "normalize")},
    "mean_var": lambda x: cx.mean_var(x, axis=0, keepdims=True),
    "axis_scale": lambda x: cx.axis_scale(x, np.arange(x.shape[1]), axis=1),
    "multiply": lambda x: cx.multiply(x, 3),
    "divide": lambda x: cx.divide(x, 3),
    "divide into": lambda x: cx.divide(3, x),
}


def counts(n, m, dtype=float):
    rng = np.random.default_rng(n)
    return (rng.integers(-4, 5, (n, m)) * (rng.random((n, m)) < 0.5)).astype(dtype)


def assert_same(x, same, names=FUNCTIONS):
    """Each function gives of x what it gives of `same`: class and bits of the elements, if not the types of indices."""

    def elements(result):
        if isinstance(result, tuple):
            return tuple(map(elements, result))
        return type(result), bits(reference.dense(result) if sp.issparse(result) else result)

    for name in names:
        assert elements(FUNCTIONS[name](x)) == elements(FUNCTIONS[name](same)), name


# ---- other formats


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format", ["coo", "lil", "dok", "bsr", "dia"])
def test_other_formats_are_converted(engine, format, kind):
    for shape in ((6, 4), (0, 4), (6, 0)):
        if 0 in shape and format in ("bsr", "dia"):
            continue  # SciPy makes none
        dense = counts(*shape)
        x = getattr(sp, f"{format}_{kind}")(dense)
        names = [name for name in FUNCTIONS if x.shape[0] * x.shape[1] or name[:3] not in ("max", "min")]
        assert_same(x, getattr(sp, f"csr_{kind}")(dense), names)
        assert np.array_equal(x.toarray(), dense)
        converted = cx.log1p(x)
        assert converted.indices.dtype == converted.indptr.dtype
        if format != "bsr":
            with pytest.raises(ValueError, match="out=x needs a csr or csc matrix"):
                cx.log1p(x, out=x)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float32", "complex64"])
def test_duplicates_of_a_coo_matrix(engine, dtype):
    """They add up without wrapping around, and True and True is True."""
    value = {"b": True, "c": 1 + 2j}.get(np.dtype(dtype).kind, 100 if dtype == "int8" else 60_000)
    rows, columns, values = [1, 0, 1, 1], [2, 0, 2, 0], np.array([value] * 3 + [0], dtype)
    x = sp.coo_array((values, (rows, columns)), shape=(2, 3))
    same = sp.csr_array((values, [0, 2, 2, 0], [0, 1, 4]), shape=(2, 3))
    same.data = values
    names = [name for name in FUNCTIONS if name.split()[0] in ("sum", "mean", "any", "all", "count_nonzero", "log1p")]
    assert_same(x, same, names)
    assert cx.sum(x) == value + (value if dtype == "bool" else 2 * value)
    assert cx.count_nonzero(x) == 2
    assert x.data.tolist() == values.tolist()


def test_coordinates_of_a_coo_matrix_are_checked():
    x = sp.coo_array(np.eye(3))
    x.coords = (x.coords[0], np.array([0, 5, 1]))
    with pytest.raises(ValueError, match=r"x\.col\[1\] is 5, but must be from 0 to 2"):
        cx.sum(x)
    x.coords = (x.coords[0], x.coords[1][:2])
    with pytest.raises(ValueError, match=r"x\.col must have 3 entries"):
        cx.sum(x)


# ---- one dimension


@pytest.mark.parametrize("cls", [sp.csr_array, sp.coo_array])
def test_one_dimensional_sparse_arrays(engine, cls):
    dense = np.array([0, 3, 0, -1, 2.0])
    x = cls(dense)
    for name in (*REDUCTIONS, "mean_var"):
        for axis in (None, 0, -1, (0,), ()):
            for keepdims in (False, True):
                result = getattr(cx, name)(x, axis=axis, keepdims=keepdims)
                expected = getattr(cx, name)(dense, axis=axis, keepdims=keepdims)
                assert np.shape(result) == np.shape(expected), (name, axis, keepdims)
                assert_close(result, expected, 1e-15)
        with pytest.raises(np.exceptions.AxisError):
            getattr(cx, name)(x, axis=1)
    for result, expected in (
        *((getattr(cx, name)(x), getattr(cx, name)(dense)) for name in UNARY),
        (cx.multiply(x, 3), 3 * dense),
        (cx.multiply(x, np.arange(5)), np.arange(5) * dense),
        (cx.multiply(np.arange(5.0), x), np.arange(5) * dense),
        (cx.multiply(x, x), dense * dense),
        (cx.divide(x, np.arange(1, 6)), dense / np.arange(1, 6)),
        (cx.axis_scale(x, np.arange(5), axis=0), np.arange(5) * dense),
    ):
        assert type(result) is sp.csr_array
        assert result.shape == (5,)
        # Zeros times -1 are -0 in an ndarray, and NaN of them differ in sign.
        assert_close(result.toarray(), np.where(dense != 0, expected, 0), 1e-15)
    assert cx.to_dense(x).tolist() == dense.tolist()
    with np.errstate(all="ignore"):
        assert cx.divide(6, x).tolist() == (6 / dense).tolist()
    for function in (cx.gram, cx.normalize):
        with pytest.raises((ValueError, np.exceptions.AxisError)):
            function(x)


# ---- datasets on disk


@pytest.fixture(params=["h5", "zarr"])
def stored(request, tmp_path):
    """A function that writes a matrix to a store of that kind, and opens it."""
    anndata_io = pytest.importorskip("anndata.io")
    module = pytest.importorskip({"h5": "h5py", "zarr": "zarr"}[request.param])
    opened = module.File(tmp_path / "x.h5", "w") if request.param == "h5" else module.open_group(tmp_path / "x.zarr")

    def write(x):
        key = f"x{len(list(opened))}"
        anndata_io.write_elem(opened, key, x)
        return anndata_io.sparse_dataset(opened[key])

    yield write
    if request.param == "h5":
        opened.close()


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("block", [1 << 22, 9])
def test_datasets_on_disk(engine, stored, cls, block, monkeypatch):
    monkeypatch.setattr(_backed, "BLOCK_VALUES", block)
    for dtype in ("float32", "float64", "int32") if block == 9 else ("float64",):
        dense = counts(30, 7, dtype)
        dense[:, 2] = dense[4:7] = 0
        assert_same(stored(cls(dense)), sp.csr_array(cls(dense)) if cls is sp.csr_matrix else sp.csc_array(dense))
    dense = counts(30, 7, bool)
    names = [name for name in FUNCTIONS if name not in ("square", "abs", "negative", "sign")]
    assert_same(stored(cls(dense)), sp.csr_array(dense) if cls is sp.csr_matrix else sp.csc_array(dense), names)


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix])
def test_empty_datasets_on_disk(engine, stored, cls):
    for shape in ((0, 3), (4, 0), (4, 3)):
        x = cls(shape, dtype=np.float32)
        dataset = stored(x)
        array = (sp.csr_array if cls is sp.csr_matrix else sp.csc_array)(x)
        names = [name for name in FUNCTIONS if shape == (4, 3) or name[:3] not in ("max", "min")]
        assert_same(dataset, array, names)
        if shape != (4, 3):
            with pytest.raises(ValueError, match="max of nothing"):
                cx.max(dataset)


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix])
def test_no_more_than_a_block_of_a_dataset_is_in_memory(stored, cls, monkeypatch):
    dense = (np.arange(1.0, 2401).reshape(60, 40) % 7) * (np.arange(40) % 2)
    dataset = stored(cls(dense))
    read = []

    def assemble(cls, shape, data, indices, indptr):
        read.append(len(data))
        return reads(cls, shape, data, indices, indptr)

    reads = _backed.assemble
    monkeypatch.setattr(_backed, "assemble", assemble)
    monkeypatch.setattr(_backed, "BLOCK_VALUES", 100)
    row = max(np.diff(cls(dense).indptr))
    for name in (*REDUCTIONS, "mean_var"):
        for axis in (None, 0, 1):
            read.clear()
            getattr(cx, name)(dataset, axis=axis)
            assert sum(read) == np.count_nonzero(dense)
            assert max(read) <= 100 + row
    read.clear()
    cx.gram(dataset)
    assert max(read) <= 100 + row or cls is sp.csc_matrix  # its rows are not together


def test_a_malformed_dataset_on_disk(stored):
    dataset = stored(sp.csr_matrix(np.eye(3)))
    with pytest.raises(ValueError, match="out=x needs a csr or csc matrix"):
        cx.log1p(dataset, out=dataset)
    dataset.group["indptr"][1] = 3
    with pytest.raises(ValueError, match=r"x\.indptr must not decrease"):
        cx.sum(dataset, axis=0)


# ---- other libraries' arrays


@pytest.mark.parametrize("namespace", ["array_api_strict", "jax.numpy"])
def test_arrays_of_other_libraries(namespace):
    """The results of NumPy, in arrays of that library."""
    xp = pytest.importorskip(namespace)
    dense = np.float32([[1, 0, 2], [0, 0, 3], [4, 0, 0.5], [0, 0, 0]])
    x, factors = xp.asarray(dense), np.float32([1, 0, 2])
    calls = FUNCTIONS | {
        "axis_scale": lambda x: cx.axis_scale(x, type_of(x).asarray(factors), axis=1),
        "axis_scale one": lambda x: cx.axis_scale(
            x, type_of(x).asarray(factors), axis=1, op="divide", zero_division="one"
        ),
        "normalize 0": lambda x: cx.normalize(x, axis=0, target_sum=10.0, log1p=True),
        "sum float64": lambda x: cx.sum(x, axis=0, dtype=type_of(x).float64),
        "multiply pair": lambda x: cx.multiply(x, x),
    }

    def type_of(x):
        return np if isinstance(x, np.ndarray) else xp

    for name, call in calls.items():
        if namespace == "jax.numpy" and name.startswith(("gram", "sum float64", "count_nonzero")):
            continue  # it has no types of 64 bits, unless it is told to
        results, expected = call(x), call(dense)
        pairs = zip(results, expected) if isinstance(results, tuple) else [(results, expected)]
        for result, right in pairs:
            assert isinstance(result, type(x)), name
            assert_close(np.asarray(result), right, 1e-6)
    for call in (lambda: cx.log1p(x, out=x), lambda: cx.normalize(x, out=x)):
        with pytest.raises(ValueError, match="out is not supported"):
            call()
    for pair in ((x, sp.csr_array(dense)), (sp.csr_array(dense), x)):
        with pytest.raises(TypeError, match="takes arrays of one library"):
            cx.multiply(*pair)


# ---- numbers, and what is no container


@pytest.mark.parametrize("number", [np.float32(-2), np.array(3), np.int8(-4), np.bool_(True)], ids=repr)
def test_a_number_is_an_array_without_axes(number):
    for name in REDUCTIONS:
        result = getattr(cx, name)(number)
        assert result == getattr(reference, name)(np.asarray(number))[()]
        assert result.dtype == reference.result_dtype(name, number.dtype)
        with pytest.raises(np.exceptions.AxisError):
            getattr(cx, name)(number, axis=0)
    assert cx.square(np.float32(-2)) == 4
    assert cx.multiply(np.array(3), 2) == 6
    for function in (cx.gram, cx.normalize):
        with pytest.raises((ValueError, np.exceptions.AxisError)):
            function(number)


def test_masked_arrays_are_refused():
    """Not taken for ndarrays, whose masked elements would count."""
    x = np.ma.masked_array(np.eye(3), np.eye(3) > 0)
    for name, call in FUNCTIONS.items():
        with pytest.raises(TypeError, match=r"x\d? must be a numpy.ndarray"):
            call(x)
        assert x.mask.sum() == 3, name
    for pair in ((sp.csr_array(np.eye(3)), x), (np.eye(3), x)):
        with unchanged(pair[0]), pytest.raises(TypeError, match="MaskedArray"):
            cx.multiply(*pair)
    with pytest.raises(TypeError, match="factors must be an array"):
        cx.axis_scale(np.eye(3), x[0], axis=0)


def test_arguments_are_checked_for_other_libraries_too():
    xp = pytest.importorskip("array_api_strict")
    x = xp.asarray(np.eye(3, dtype=np.float32))
    for error, call in (
        (ValueError, lambda: cx.axis_scale(x, x[0, :], axis=1, op="add")),
        (ValueError, lambda: cx.axis_scale(x, x[0, :], axis=1, op="divide", zero_division="two")),
        (ValueError, lambda: cx.axis_scale(x, x[0, :2], axis=1)),
        (ValueError, lambda: cx.normalize(x, target_sum=-1.0)),
        (ValueError, lambda: cx.normalize(x[0, :])),
        (TypeError, lambda: cx.normalize(xp.astype(x, xp.complex64))),
        (ValueError, lambda: cx.to_dense(x, order="K")),
        (TypeError, lambda: cx.gram(x, dtype=xp.int64)),
        (MemoryError, lambda: cx.gram(x, max_bytes=10)),
    ):
        with pytest.raises(error):
            call()
    assert cx.axis_scale(x, xp.asarray(np.ones(3)), axis=1).dtype == xp.float32


def test_a_bad_index_on_disk_is_named_by_its_position_there(stored, monkeypatch):
    monkeypatch.setattr("csraxis.dispatch._backed.BLOCK_VALUES", 2)
    dataset = stored(sp.csr_matrix(np.eye(9)))
    dataset.group["indices"][7] = 9
    for call in (cx.sum, cx.sqrt, cx.gram):
        with pytest.raises(ValueError, match=r"x\.indices\[7\] is 9"):
            call(dataset)
