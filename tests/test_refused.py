"""What functions refuse: other containers and types, malformed matrices, bad arguments. Nothing is written then."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import parts, unchanged
from csraxis.dispatch import _blocks
from strategies import CLASSES

ACCEPTED = "numpy.ndarray, scipy.sparse array or matrix"
UNARY = {
    **{
        name: getattr(cx, name)
        for name in (
            *("sum", "prod", "mean", "var", "std", "mean_var", "max", "min", "any", "all", "count_nonzero"),
            *("log1p", "expm1", "sqrt", "square", "abs", "negative", "sign", "to_dense", "gram"),
        )
    },
    "normalize": cx.normalize,
    "axis_scale": lambda x: cx.axis_scale(x, np.ones(2), axis=0),
    "multiply": lambda x: cx.multiply(x, 2),
    "divide": lambda x: cx.divide(x, 2),
}


def _refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's and NumPy's, about what they are made of
        return {
            "a list": [[1, 2], [3, 4]],
            "3-D sparse": sp.coo_array(np.ones((2, 2, 2))),
            "masked": np.ma.masked_array(np.eye(2), np.eye(2)),
            "float16": np.eye(2, dtype=np.float16),
            "longdouble": np.eye(2, dtype=np.longdouble),
            "object": np.eye(2).astype(object),
            "strings": np.array([["a", "b"], ["c", "d"]]),
            "sparse longdouble": sp.csr_array(np.eye(2, dtype=np.longdouble)),
            "None": None,
            "dates": np.zeros((2, 2), "M8[s]"),
        }


@pytest.mark.parametrize("what", _refused())
@pytest.mark.parametrize("name", UNARY)
def test_containers_and_types_that_are_refused(name, what):
    x = _refused()[what]
    accepted = "float32, float64" if hasattr(x, "dtype") and x.dtype.char in "egOUM" else ACCEPTED
    with pytest.raises(TypeError, match=accepted):
        UNARY[name](x)
    if name in ("multiply", "divide"):
        with pytest.raises(TypeError, match=accepted):
            getattr(cx, name)(sp.csr_array(np.eye(2)), x)


def test_pairs_that_are_refused():
    x = sp.csr_array(np.eye(3))
    for function in (cx.multiply, cx.divide):
        with pytest.raises(TypeError, match="accepted: sparse with a scalar"):
            function(2, 3.0)
        for other in (
            sp.csr_array((2, 3)),
            sp.csc_array((2, 1)),
            np.ones(2),
            np.ones((2, 3)),
            np.ones((2, 1)),
            np.ones((3, 3, 1)),
            np.ones((1, 3, 3)),
        ):
            for pair in ((x, other), (other, x)):
                with pytest.raises(ValueError, match="broadcast"):
                    function(*pair)


@pytest.mark.parametrize(
    "x", [sp.csr_array(np.eye(3)), sp.csc_matrix(np.eye(3)), np.eye(3)], ids=["csr", "csc", "dense"]
)
def test_arguments_that_are_refused(x):
    ones = np.ones(3)
    for error, match, call in (
        (ValueError, "shape", lambda: cx.axis_scale(x, np.ones(2), axis=0)),
        (ValueError, "shape", lambda: cx.axis_scale(x, np.ones((1, 3)), axis=0)),
        (ValueError, "shape", lambda: cx.axis_scale(x, np.array(2.0), axis=1)),
        (TypeError, "factors", lambda: cx.axis_scale(x, 2.0, axis=1)),
        (TypeError, "factors", lambda: cx.axis_scale(x, x if sp.issparse(x) else None, axis=1)),
        (TypeError, "factors", lambda: cx.axis_scale(x, np.ones(3, complex), axis=1)),
        (TypeError, "factors", lambda: cx.axis_scale(x, np.array(["a"] * 3), axis=1)),
        (np.exceptions.AxisError, "axis", lambda: cx.axis_scale(x, ones, axis=2)),
        (TypeError, "axis", lambda: cx.axis_scale(x, ones, axis=None)),
        (ValueError, "op must be", lambda: cx.axis_scale(x, ones, axis=0, op="add")),
        (ValueError, "zero_division must be", lambda: cx.axis_scale(x, ones, axis=0, op="divide", zero_division=1)),
        (ValueError, "zero_division", lambda: cx.axis_scale(x, ones, axis=0, zero_division="one")),
        (ValueError, "order must be", lambda: cx.to_dense(x, order="K")),
        (ValueError, "target_sum must be", lambda: cx.normalize(x, target_sum=0)),
        (ValueError, "target_sum must be", lambda: cx.normalize(x, target_sum=np.inf)),
        (TypeError, "target_sum must be", lambda: cx.normalize(x, target_sum="1e4")),
        (TypeError, "axis", lambda: cx.normalize(x, axis=None)),
        (np.exceptions.AxisError, "axis", lambda: cx.normalize(x, axis=2)),
        (TypeError, "real", lambda: cx.normalize(x.astype(complex))),
    ):
        with unchanged(x), pytest.raises(error, match=match):
            call()


IN_PLACE = {
    "axis_scale 0": lambda x, out: cx.axis_scale(x, np.full(x.shape[0], 0.3), axis=0, out=out),
    "axis_scale 1": lambda x, out: cx.axis_scale(x, np.full(x.shape[1], 0.3), axis=1, out=out),
    "log1p": lambda x, out: cx.log1p(x, out=out),
    "normalize 0": lambda x, out: cx.normalize(x, axis=0, out=out),
    "normalize 1": lambda x, out: cx.normalize(x, axis=1, out=out),
    "normalize log1p": lambda x, out: cx.normalize(x, axis=1, target_sum=10, log1p=True, out=out),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_matrix, np.array])
def test_out_that_is_refused(engine, cls, name):
    def made(dtype=float):
        return cls(np.array([[3, 0, 1], [0, 0, 2]], dtype))

    locked, other, whole, swapped = made(), made(), made(int), made()
    swapped = swapped.astype(">f8") if cls is np.array else swapped
    for x in (locked, swapped) if cls is not np.array else (locked,):
        parts(x)[0].flags.writeable = False
    if cls is np.array:
        locked.flags.writeable = False
    for x, out in ((locked, locked), (made(), other), (whole, whole), (made(), np.empty((2, 3)))):
        with unchanged(x, out), pytest.raises(ValueError, match=r"out|read-only"):
            IN_PLACE[name](x, out)


@pytest.mark.parametrize("name", ["log1p", "normalize log1p"])
def test_duplicates_are_refused_in_the_buffer_of_a_function_that_is_not_linear(engine, name):
    x = sp.csr_array((np.array([1.0, 2, 3]), [1, 1, 0], [0, 3]), shape=(1, 2))
    with unchanged(x), pytest.raises(ValueError, match="duplicates"):
        IN_PLACE[name](x, x)


# ---- malformed matrices


def _set(part, position, value):
    def change(x):
        getattr(x, part)[position] = value

    return change


def _replace(part, make):
    def change(x):
        setattr(x, part, make(getattr(x, part)))

    return change


# How to spoil a 4 x 5 matrix (by its compressed axis) with stored values in every row, and what the error says.
MALFORMED = {
    "indptr decreases": (_set("indptr", 2, 0), r"indptr must not decrease, but indptr\[1\] = \d+, indptr\[2\] = 0"),
    "indptr negative": (_set("indptr", 1, -1), r"indptr must not decrease, but indptr\[0\] = 0, indptr\[1\] = -1"),
    "indptr starts at 1": (_set("indptr", 0, 1), r"indptr\[0\] must be 0, got 1"),
    "indptr ends too far": (_set("indptr", 4, 1000), r"indptr ends at 1000, but x\d?\.data has \d+ entries"),
    "indptr short": (_replace("indptr", lambda a: a[:-1]), "indptr must have 5 entries for its shape, got 4"),
    "indptr long": (
        _replace("indptr", lambda a: np.append(a, a[-1])),
        "indptr must have 5 entries for its shape, got 6",
    ),
    "indptr empty": (_replace("indptr", lambda a: a[:0]), "indptr must have 5 entries for its shape, got 0"),
    "indptr of floats": (_replace("indptr", lambda a: a.astype(float)), "indptr must be integers, got float64"),
    "indptr beyond int64": (
        _replace("indptr", lambda a: a.astype("u8") + np.uint64(2**63)),
        r"indptr\[4\] is \d+, beyond",
    ),
    "indptr 2-D": (_replace("indptr", lambda a: a[:, None]), r"indptr must be 1-D, got shape \(5, 1\)"),
    "data short": (_replace("data", lambda a: a[:-1]), r"indptr ends at \d+, but x\d?\.data has \d+ entries"),
    "indices short": (_replace("indices", lambda a: a[:-1]), r"indptr ends at \d+, but x\d?\.indices has \d+ entries"),
    "indices of floats": (_replace("indices", lambda a: a.astype(float)), "indices must be integers, got float64"),
    "indices 2-D": (_replace("indices", lambda a: a[:, None]), r"indices must be 1-D, got shape"),
    "indices a list": (_replace("indices", list), "indices must be a numpy.ndarray, got list"),
}
# These are found by whatever uses an index.
BAD_INDEX = {
    "an index too high": (_set("indices", 3, 5), r"x\d?\.indices\[3\] is 5, but (columns|rows) go from 0 to 4"),
    "an index negative": (_set("indices", -1, -1), r"x\d?\.indices\[\d+\] is -1, but (columns|rows) go from 0 to 4"),
    "an index far away": (_set("indices", 0, 2**31 - 1), r"x\d?\.indices\[0\] is 2147483647"),
    "an index far below": (_set("indices", 0, -(2**31)), r"x\d?\.indices\[0\] is -2147483648"),
}


def _malformed(cls, spoil):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((4, 5)) < 0.6, rng.normal(5, 1, (4, 5)), 0)
    dense[:, 0] = 1
    x = cls(dense if cls.__name__.startswith("csr") else dense.T)
    x.has_canonical_format = True  # as SciPy caches it: it must not be asked about a malformed matrix
    spoil(x)
    return x


def along(x, major):
    """The axis of x that is stored together, or the other one."""
    return 1 if (x.format == "csr") == major else 0


USES_INDICES = {
    **{
        name: lambda x, name=name: getattr(cx, name)(x, axis=along(x, False))
        for name in ("sum", "mean", "var", "std", "mean_var", "count_nonzero")
    },
    "sum of nothing": lambda x: cx.sum(x, axis=()),
    "to_dense": cx.to_dense,
    "normalize": lambda x: cx.normalize(x, axis=along(x, False)),
    "normalize log1p": lambda x: cx.normalize(x, axis=along(x, False), log1p=True),
    "axis_scale": lambda x: cx.axis_scale(x, np.ones(5), axis=along(x, True)),
    "multiply by a vector": lambda x: cx.multiply(x, np.ones((1, 5) if x.format == "csr" else (5, 1))),
    "divide by a vector": lambda x: cx.divide(x, np.ones((1, 5) if x.format == "csr" else (5, 1))),
    "multiply by dense": lambda x: cx.multiply(x, np.full(x.shape, 2.0)),
    "divide by dense": lambda x: cx.divide(x, np.full(x.shape, 2.0)),
    "divide by sparse": lambda x: cx.divide(1, x),
    "axis_scale in place": lambda x: cx.axis_scale(x, np.full(5, 0.3), axis=along(x, True), out=x),
    "normalize in place": lambda x: cx.normalize(x, axis=along(x, False), out=x),
    "normalize log1p in place": lambda x: cx.normalize(x, axis=along(x, False), target_sum=3, log1p=True, out=x),
}
USES_NO_INDICES = {
    **{
        f"{name} {kind}": lambda x, name=name, kind=kind: getattr(cx, name)(
            x, axis=None if kind == "all" else along(x, True)
        )
        for name in ("sum", "mean", "var", "std", "mean_var", "count_nonzero")
        for kind in ("major", "all")
    },
    "log1p": cx.log1p,
    "multiply by a scalar": lambda x: cx.multiply(x, 2.0),
    "divide by a scalar": lambda x: cx.divide(x, 2.0),
    "axis_scale": lambda x: cx.axis_scale(x, np.ones(4), axis=along(x, False)),
    "normalize": lambda x: cx.normalize(x, axis=along(x, True)),
    "normalize log1p": lambda x: cx.normalize(x, axis=along(x, True), target_sum=3, log1p=True),
    "log1p in place": lambda x: cx.log1p(x, out=x),
    "axis_scale in place": lambda x: cx.axis_scale(x, np.full(4, 0.3), axis=along(x, False), out=x),
    "normalize in place": lambda x: cx.normalize(x, axis=along(x, True), out=x),
    "normalize log1p in place": lambda x: cx.normalize(x, axis=along(x, True), target_sum=3, log1p=True, out=x),
}


def _assert_refused(call, x, message):
    if isinstance(x.indices, np.ndarray):
        with unchanged(x), pytest.raises(ValueError, match=message):
            call(x)
    else:
        with pytest.raises(ValueError, match=message):
            call(x)


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_matrices_in_every_function(engine, what):
    spoil, message = MALFORMED[what]
    for cls in CLASSES:
        for functions in (USES_INDICES, USES_NO_INDICES):
            for call in functions.values():
                _assert_refused(call, _malformed(cls, spoil), message)


@pytest.mark.parametrize("what", BAD_INDEX)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_indices_out_of_range_wherever_they_are_used(engine, what, dtype):
    spoil, message = BAD_INDEX[what]
    for cls in CLASSES:
        for call in USES_INDICES.values():
            x = _malformed(cls, lambda x: None)
            x.indices = x.indices.astype(dtype)
            spoil(x)
            _assert_refused(call, x, message)
        for call in USES_NO_INDICES.values():  # those see no index: no crash, no error
            call(_malformed(cls, spoil))


def test_the_first_bad_index_far_into_a_large_matrix(engine, monkeypatch):
    """Its position is that in x, in whatever block and thread it was found, and nothing is written before."""
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 1000)
    for dtype in (np.float64, np.int8):
        x = sp.csr_array(np.ones((3000, 40), dtype))
        x.indices[100_001] = 40
        calls = [
            lambda x: cx.sum(x, axis=0),
            lambda x: cx.var(x, axis=0),
            lambda x: cx.count_nonzero(x, axis=0),
            lambda x: cx.axis_scale(x, np.ones(40), axis=1),
        ]
        if dtype is np.float64:
            calls.append(lambda x: cx.axis_scale(x, np.full(40, 0.3), axis=1, out=x))
            calls.append(lambda x: cx.normalize(x, axis=0, target_sum=1, out=x))
        for call in calls:
            for threads in (1, 3):
                with cx.config(threads=threads):
                    _assert_refused(call, x, r"x\.indices\[100001\] is 40")


@pytest.mark.parametrize("scalar", [np.float16(2), np.longdouble(2), np.array(2, np.float16)], ids=repr)
@pytest.mark.parametrize("function", [cx.multiply, cx.divide])
def test_a_scalar_of_an_unsupported_type_is_refused(function, scalar):
    with pytest.raises(TypeError, match=r"x2 must have a bool, integer, float32, .* got"):
        function(sp.csr_array(np.eye(3, dtype=np.int8)), scalar)


@pytest.mark.parametrize("indptr", [[0, 5_000_000, 3], [0, -5, 3], [0, 1, 2, 3], [0, 10**9, 10**9]], ids=str)
@pytest.mark.parametrize("dtype", ["int32", "bool", "float32", ">f4"])
def test_pp_log1p_refuses_a_malformed_matrix(indptr, dtype):
    x = sp.csr_matrix((2, 3))
    x.data, x.indices, x.indptr = np.ones(3, dtype), np.array([0, 1, 0], np.int32), np.array(indptr)
    with pytest.raises(ValueError, match=r"^(x|data)\.indptr"):
        cx.pp.log1p(x)
