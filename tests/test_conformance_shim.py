"""The conformance run makes the matrices that it claims to make: equal to the array, and as messy as they can be."""

import numpy as np
import pytest
import scipy.sparse as sp

from checks import bits
from conformance import shim

DTYPES = ("bool", "int8", "uint8", "int64", "uint64", "float32", "float64", "complex64", "complex128")
SHAPES = ((4, 5), (1, 1), (5, 1), (0, 3), (3, 0), (0, 0))


def array(shape, dtype):
    """Both zeros, what halves badly, and the extremes of the type."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        pool = [False, True, True]
    elif dtype.kind in "iu":
        pool = [0, 1, 7, 0, np.iinfo(dtype).min, np.iinfo(dtype).max]
    else:
        info = np.finfo(dtype)
        pool = [0, -0.0, 1, 0, np.inf, -np.inf, np.nan, info.max, info.tiny, 3 * info.smallest_subnormal, -0.1]
    x = np.resize(np.array(pool, dtype), shape)
    if dtype.kind == "c":
        x.imag = x.real[::-1]
    x.flat[::4] = 0
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", shim.FORMS)
def test_there_and_back(form, shape, dtype):
    if form == "dask":
        pytest.importorskip("dask.array")
    x = array(shape, dtype)
    there = shim.to_form(x, form)
    assert (there.shape, there.dtype) == (x.shape, x.dtype)
    assert bits(shim.to_ndarray(there)) == bits(x)
    if form not in ("dense", "dask"):
        np.testing.assert_array_equal(there.toarray(), x)


@pytest.mark.parametrize("form", ["csr_array", "csc_array", "csr_matrix"])
def test_only_plus_zero_is_not_stored(form):
    x = array((4, 5), "float64")
    there = shim.to_form(x, form)
    assert type(there) is getattr(sp, form)
    assert there.has_canonical_format
    assert there.nnz == np.sum((x != 0) | np.signbit(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_messy(dtype):
    x = array((4, 5), dtype)
    there = shim.to_form(x, "messy")
    assert type(there) is sp.csr_array
    assert not there.has_sorted_indices
    assert not there.has_canonical_format
    places = np.stack(there.tocoo().coords)
    assert 0 < np.unique(places, axis=1).shape[1] < there.nnz  # duplicates
    assert not x[tuple(places)].all()  # stored zeros


def test_dask_is_chunked_along_both_axes():
    pytest.importorskip("dask.array")
    there = shim.to_form(array((4, 5), "float32"), "dask")
    assert there.numblocks == (2, 2)
    assert all(type(there.blocks[place].compute(scheduler="sync")) is sp.csr_array for place in np.ndindex(2, 2))


@pytest.mark.parametrize("form", shim.FORMS)
def test_functions_return_ndarrays(form, monkeypatch):
    if form == "dask":
        pytest.importorskip("dask.array")
    monkeypatch.setenv("CSRAXIS_FORM", form)
    x = np.array([[1.0, 0, -4], [0, 0, 9]])
    made = shim.made[form]
    for result, expected in (
        (shim.sum(x), np.sum(x)),
        (shim.max(x, axis=0), np.max(x, axis=0)),
        (shim.abs(x), np.abs(x)),
        (shim.multiply(x, x[:1]), x * x[:1]),
        (shim.sqrt(x[1, 2:].reshape(())), np.array(3.0)),  # a special value, in the suite: the one of a matrix
    ):
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected, strict=True)
    assert shim.made[form] == made + 6
    assert shim.float32 is np.float32


def test_an_unknown_form():
    with pytest.raises(ValueError, match="form must be one of dense, csr_array"):
        shim.to_form(np.eye(2), "coo")
