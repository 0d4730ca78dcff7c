"""Hypothesis strategies: matrices as awkward as SciPy lets them be, and what goes with them."""

import numpy as np
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CLASSES = (sp.csr_array, sp.csc_array, sp.csr_matrix, sp.csc_matrix)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
REAL = ("bool", *INTEGERS, *FLOATS)

# (indptr, indices). SciPy makes the two equal; here they are set afterwards, as code that builds matrices by hand does.
INDEX_TYPES = (("i4", "i4"), ("i8", "i8"), ("i8", "i4"), ("i4", "i8"), ("u4", "u2"))
BUFFERS = ("plain", "read-only", "long", "byte-swapped", "non-contiguous")
# Those that `out=x` can work in.
OWN_BUFFERS = ("plain", "long")

AXES = (None, 0, 1, -1, -2, (0,), (1,), (0, 1), (-1, 0), ())


def examples(*args, **kwargs):
    """`given`, for tests that take the `engine` fixture: it is the same for all examples of a test."""
    return lambda test: settings(suppress_health_check=[HealthCheck.function_scoped_fixture])(
        given(*args, **kwargs)(test)
    )


# What every value of a matrix is drawn from.
# spread: floats over 26 powers of ten, all integers; special: NaN, inf and -0.0 among them; small: whole numbers within
# [-4, 4], whose sums are exact in every type, so that the order in which duplicates are added does not matter.
VALUES = ("spread", "special", "small")


def _element(dtype, values):
    """Python numbers of a type."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return st.booleans()
    if values == "small":
        return st.integers(0 if kind == "u" else -4, 4)
    if kind in "iu":
        info = np.iinfo(dtype)
        return st.one_of(st.integers(0, 9), st.integers(int(info.min), int(info.max)))
    sign = st.sampled_from([1.0, -1.0])
    real = st.one_of(
        st.sampled_from([0.0, 1.0, -0.0, 0.1]),
        st.builds(lambda s, u: s * np.exp(u), sign, st.floats(-30, 30)),
    )
    if values == "special":
        real = st.one_of(real, st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 5e-324, 1e38]))
    return st.builds(complex, real, real) if kind == "c" else real


def _array(values, dtype):
    with np.errstate(all="ignore"):  # 5e-324 is zero in float32
        return np.array(values, dtype=dtype)


def in_buffer(array, buffer, filler):
    """The same numbers in a buffer of that kind; a long one goes on with `filler`, which nobody may look at."""
    if buffer == "long":
        return np.concatenate((array, np.full(3, filler, array.dtype)))
    if buffer == "byte-swapped":
        return array.astype(array.dtype.newbyteorder())
    if buffer == "non-contiguous":
        return np.repeat(array, 2)[::2]
    array = array.copy()
    array.flags.writeable = buffer != "read-only"
    return array


@st.composite
def matrices(
    draw,
    dtypes=REAL,
    values=("spread", "small"),
    classes=CLASSES,
    buffers=BUFFERS,
    canonical=False,
    min_side=0,
    max_side=7,
):
    """One of SciPy's four classes: any side may be 0, rows empty, zeros stored.

    Unless `canonical`, indices are in any order, and values drawn as "small" have duplicates among them.
    """
    cls = draw(st.sampled_from(classes))
    dtype = draw(st.sampled_from(dtypes))
    n_major, n_minor = draw(st.integers(min_side, max_side)), draw(st.integers(min_side, max_side))
    if draw(st.integers(0, 7)) == 0:
        n_minor = min(n_minor, 1) * 90  # rows long enough for every lane of a sum, and for the loops of what is left
    style = draw(st.sampled_from(values))
    places = st.tuples(st.integers(0, max(n_major - 1, 0)), st.integers(0, max(n_minor - 1, 0)))
    entries = draw(
        st.lists(
            st.tuples(places, _element(dtype, style)),
            max_size=(100 if n_minor == 90 else 24) * (n_major * n_minor > 0),
            unique_by=None if style == "small" and not canonical else lambda entry: entry[0],
        )
    )
    entries.sort(key=lambda entry: entry[0] if canonical else entry[0][0])
    rows = np.array([place[0] for place, _ in entries], int)
    indptr_type, indices_type = draw(st.sampled_from(INDEX_TYPES))
    buffer = draw(st.sampled_from(buffers))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n_major)))).astype(indptr_type)
    x = cls((n_major, n_minor) if cls.__name__.startswith("csr") else (n_minor, n_major), dtype=dtype)
    x.data = in_buffer(_array([value for _, value in entries], dtype), buffer, 1)
    x.indices = in_buffer(np.array([place[1] for place, _ in entries], indices_type), buffer, 12_345)
    x.indptr = in_buffer(indptr, buffer if buffer != "long" else "plain", 0)
    return x


@st.composite
def arrays(draw, shape, dtypes=REAL, values=("spread",)):
    """An ndarray of a shape."""
    dtype = draw(st.sampled_from(dtypes))
    style = draw(st.sampled_from(values))
    size = int(np.prod(shape))
    return _array(draw(st.lists(_element(dtype, style), min_size=size, max_size=size)), dtype).reshape(shape)


@st.composite
def dense_arrays(draw, dtypes=REAL, values=("spread",), max_side=6):
    """A 2-D ndarray: contiguous by rows or by columns, strided, byte-swapped or read-only; or an np.matrix."""
    shape = draw(st.tuples(st.integers(0, max_side), st.integers(0, max_side)))
    x = draw(arrays(shape, dtypes, values))
    form = draw(st.sampled_from(["C", "F", "strided", "byte-swapped", "read-only", "matrix"]))
    if form == "matrix":
        return x.view(np.matrix)  # np.asmatrix warns
    if form == "strided":
        return np.repeat(x, 2, axis=1)[:, ::2]
    if form == "byte-swapped":
        return x.astype(x.dtype.newbyteorder())
    x = np.array(x, order="F" if form == "F" else "C")
    x.flags.writeable = form != "read-only"
    return x


@st.composite
def operands(draw, shape, dtypes=REAL, values=("spread",)):
    """What goes with a sparse matrix of that shape: a Python or NumPy scalar, a vector, or a dense array."""
    n, m = shape
    form = draw(st.sampled_from(["python", "numpy", "0-d", (m,), (1, m), (n, 1), (n, m), (1, 1)]))
    if form == "python":
        return draw(st.sampled_from([2, 0, 0.1, 1e3, True]))
    if form in ("numpy", "0-d"):
        array = draw(arrays((), dtypes, values))
        return array[()] if form == "numpy" else array
    array = draw(arrays(form, dtypes, values))
    return array.view(np.matrix) if len(form) == 2 and draw(st.booleans()) else array
