"""What many tests assert."""

from contextlib import contextmanager

import numpy as np


def parts(x):
    """The plain arrays of a sparse matrix, or the ndarray itself."""
    return [np.asarray(x)] if not hasattr(x, "indptr") else [x.data, x.indices, x.indptr]


@contextmanager
def unchanged(*inputs):
    """Inside this block no byte, flag or array of the inputs changes. What SciPy caches about them may."""

    def state():
        return [
            (id(part) if hasattr(x, "indptr") else None, part.tobytes(), part.dtype, part.strides, part.flags.writeable)
            for x in inputs
            for part in parts(x)
        ]

    before = state()
    yield
    assert state() == before


def bits(result):
    """Bytes, type and shape of a result (or of several), in native byte order, with one NaN for all NaNs."""
    if isinstance(result, tuple | list):
        return tuple(map(bits, result))
    found = []
    for part in parts(result):
        part = part.astype(part.dtype.newbyteorder("="))
        if part.dtype.kind == "c":
            part = np.ascontiguousarray(part).view(part.real.dtype)
        if part.dtype.kind == "f":
            part = np.where(np.isnan(part), part.dtype.type(np.nan), part)
        found.append((part.dtype.str, part.shape, part.tobytes()))
    return type(result).__name__, tuple(found)


def assert_close(actual, expected, rtol, scale=0.0):
    """|actual - expected| <= rtol |expected| + scale; what is not finite is the same. Fractions are welcome."""
    actual = np.asarray(actual)
    kind = complex if actual.dtype.kind == "c" else float
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    if expected.dtype == object:
        expected = np.array([kind(value) for value in expected.ravel()], kind).reshape(expected.shape)
    if kind is complex:
        assert_close(actual.real, expected.real, rtol, scale)
        assert_close(actual.imag, np.asarray(expected).imag, rtol, scale)
        return
    expected = expected.astype(float)
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype) if actual.dtype.kind == "f" else expected
        near = np.abs(actual.astype(float) - expected) <= rtol * np.abs(expected) + scale
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(expected))
    ok = np.where(np.isfinite(rounded), near, same)
    assert ok.all(), f"{actual[~ok][:5]} instead of {expected[~ok][:5]}"


def assert_exact(actual, expected):
    """Python integers, modulo the width of the type of the result."""
    actual = np.asarray(actual)
    assert actual.shape == np.shape(expected)
    modulus = 1 << (8 * actual.dtype.itemsize)
    assert [int(value) % modulus for value in actual.ravel()] == [int(value) % modulus for value in np.ravel(expected)]


def eps(dtype):
    """Spacing of the floats of a type at 1."""
    return float(np.finfo(dtype).eps)
