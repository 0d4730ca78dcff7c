"""Dask arrays with every kind of chunk, the calls made on them, and the comparison with the same calls in memory."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import assert_close, bits

da = pytest.importorskip("dask.array")

import dask  # noqa: E402


def as_matrix(block):
    return block.view(np.matrix)


KINDS = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "csc_matrix": sp.csc_matrix,
    "ndarray": np.asarray,
    "matrix": as_matrix,
}
SPARSE = ("csr_array", "csr_matrix", "csc_array", "csc_matrix")


def whole_numbers(n, m, dtype):
    """About half zeros, one row and one column of zeros. Sums of them and of their squares are exact."""
    rng = np.random.default_rng(n)
    dense = rng.integers(-3 if dtype == "int32" else 1, 9, (n, m)) * (rng.random((n, m)) < 0.6)
    dense[n // 2] = dense[:, m // 2] = 0
    return dense.astype(dtype)


def fractions(n, m, dtype):
    """Of one sign, so that sums are well conditioned, and over eight powers of ten."""
    return (whole_numbers(n, m, float) * np.exp(np.random.default_rng(m).normal(scale=3, size=(n, m)))).astype(dtype)


VALUES = {
    "counts": partial(whole_numbers, dtype="float32"),
    "integers": partial(whole_numbers, dtype="int32"),
    "float64": partial(fractions, dtype="float64"),
    "float32": partial(fractions, dtype="float32"),
}
EXACT = ("counts", "integers")
FRACTIONAL = ("float64", "float32")

CHUNKS = {
    "one by one": (1, 1),
    "columns": (-1, 1),
    "rows": (1, -1),
    "uneven": ((3, 1, 2, 1), (2, 3)),
    "whole": (-1, -1),
}
UNEVEN_60_40 = ((17, 1, 30, 12), (5, 25, 10))


def lazy(dense, kind, chunks):
    return da.from_array(dense, chunks=chunks).map_blocks(KINDS[kind])


def beside(x, array, kind=np.asarray):
    """An operand: on Dask too where x is, in chunks that are not those of x."""
    return da.from_array(array, chunks=2).map_blocks(kind) if isinstance(x, da.Array) else kind(array)


def vector(n):
    """Factors that round."""
    return 3 / np.arange(2.0, n + 2)


def some_zero(n):
    return np.where(np.arange(n) % 3 == 1, 0, vector(n))


def dense_like(x):
    return np.outer(vector(x.shape[0]), vector(x.shape[1]))


def sparse_like(x, kind=sp.csr_array):
    """Of the shape of x, with entries where x has some and where it has none."""
    n, m = x.shape
    return kind(np.arange(1.0 * n * m).reshape(n, m) % 3)


def sparse_beside(x):
    """The same, on Dask where x is."""
    return beside(x, sparse_like(x, np.asarray), kind=sp.csc_array)


AXES = (0, 1, None, (0, 1), -1, ())
ADDING = (cx.sum, cx.mean, cx.var, cx.std, cx.mean_var, cx.count_nonzero)
CHOOSING = (cx.prod, cx.max, cx.min, cx.any, cx.all)
REDUCTIONS = (*ADDING, *CHOOSING)
UNARY = (cx.log1p, cx.expm1, cx.sqrt, cx.square, cx.abs, cx.negative, cx.sign)

# Each call takes x, a matrix in memory or a Dask array, and returns a result or two.
CALLS = {
    f"{f.__name__} {axis} {keepdims}": partial(f, axis=axis, keepdims=keepdims)
    for f in REDUCTIONS
    for axis in AXES
    for keepdims in (False, True)
    if f in ADDING or axis == 0 or not keepdims
} | {f.__name__: f for f in UNARY} | {
    "sum float32": lambda x: cx.sum(x, axis=0, dtype=np.float32),
    "sum float64": lambda x: cx.sum(x, axis=1, dtype="float64"),
    "sum int64": lambda x: cx.sum(x, dtype=np.int64),
    "sum uint8": lambda x: cx.sum(cx.multiply(x, x.dtype.type(30)), axis=0, dtype=np.uint8),
    "mean float32": lambda x: cx.mean(x, axis=0, dtype=np.float32),
    "mean float64": lambda x: cx.mean(x, dtype=float),
    "var 1": lambda x: cx.var(x, axis=0, correction=1),
    "var 0.5": lambda x: cx.var(x, correction=0.5),
    "var too few": lambda x: cx.var(x, axis=1, correction=x.shape[1]),
    "std 1": lambda x: cx.std(x, axis=1, correction=1),
    "mean_var 1": lambda x: cx.mean_var(x, axis=0, correction=1),
    "sum of sums": lambda x: cx.sum(cx.sum(x, axis=0)),
    "var of means": lambda x: cx.var(cx.mean(x, axis=1, keepdims=True), axis=0),
    "prod float32": lambda x: cx.prod(x, axis=0, dtype=np.float32),
    "max of sums": lambda x: cx.max(cx.sum(x, axis=0)),
    "gram": cx.gram,
    "gram float32": lambda x: cx.gram(x, dtype=np.float32),
    "to_dense C": cx.to_dense,
    "to_dense F": lambda x: cx.to_dense(x, order="F"),
    "multiply python int": lambda x: cx.multiply(x, 3),
    "multiply python float": lambda x: cx.multiply(2.3, x),
    "multiply float64": lambda x: cx.multiply(x, np.float64(0.3)),
    "multiply int64": lambda x: cx.multiply(np.int64(3), x),
    "multiply vector": lambda x: cx.multiply(vector(x.shape[1]), x),
    "multiply row": lambda x: cx.multiply(x, vector(x.shape[1])[None]),
    "multiply column": lambda x: cx.multiply(x, vector(x.shape[0])[:, None]),
    "multiply dense": lambda x: cx.multiply(x, dense_like(x)),
    "multiply by dense": lambda x: cx.multiply(dense_like(x), x),
    "multiply lazy vector": lambda x: cx.multiply(x, beside(x, vector(x.shape[1]))),
    "multiply lazy column": lambda x: cx.multiply(beside(x, vector(x.shape[0])[:, None]), x),
    "multiply lazy dense": lambda x: cx.multiply(x, beside(x, dense_like(x))),
    "multiply own total": lambda x: cx.multiply(x, cx.sum(x)),
    "multiply itself": lambda x: cx.multiply(x, x),
    "multiply sparse": lambda x: cx.multiply(x, sparse_like(x)),
    "multiply by sparse": lambda x: cx.multiply(sparse_like(x, sp.csc_matrix), x),
    "multiply lazy sparse": lambda x: cx.multiply(x, sparse_beside(x)),
    "multiply by lazy sparse": lambda x: cx.multiply(sparse_beside(x), x),
    "divide itself": lambda x: cx.divide(x, x),
    "divide sparse": lambda x: cx.divide(x, sparse_like(x)),
    "divide into sparse": lambda x: cx.divide(sparse_like(x), x),
    "divide lazy sparse": lambda x: cx.divide(x, sparse_beside(x)),
    "divide into lazy sparse": lambda x: cx.divide(sparse_beside(x), x),
    "divide python int": lambda x: cx.divide(x, 3),
    "divide python float": lambda x: cx.divide(x, 2.3),
    "divide into python float": lambda x: cx.divide(2.3, x),
    "divide by zero": lambda x: cx.divide(x, 0),
    "divide float64": lambda x: cx.divide(x, np.float64(0.3)),
    "divide vector": lambda x: cx.divide(x, some_zero(x.shape[1])),
    "divide into vector": lambda x: cx.divide(some_zero(x.shape[1]), x),
    "divide column": lambda x: cx.divide(x, vector(x.shape[0])[:, None]),
    "divide dense": lambda x: cx.divide(x, dense_like(x)),
    "divide into dense": lambda x: cx.divide(dense_like(x), x),
    "divide into lazy dense": lambda x: cx.divide(beside(x, dense_like(x)), x),
    "divide own sums": lambda x: cx.divide(x, cx.sum(x, axis=1, keepdims=True)),
    "axis_scale 0": lambda x: cx.axis_scale(x, vector(x.shape[0]), axis=0),
    "axis_scale 1": lambda x: cx.axis_scale(x, vector(x.shape[1]), axis=1),
    "axis_scale -1 integers": lambda x: cx.axis_scale(x, np.arange(x.shape[1]), axis=-1),
    "axis_scale 0 column": lambda x: cx.axis_scale(x, 2 * vector(x.shape[0])[:, None], axis=0),
    "axis_scale 0 divide": lambda x: cx.axis_scale(x, some_zero(x.shape[0]), axis=0, op="divide"),
    "axis_scale 1 divide": lambda x: cx.axis_scale(x, some_zero(x.shape[1]), axis=1, op="divide"),
    "axis_scale 0 one": lambda x: cx.axis_scale(x, some_zero(x.shape[0]), axis=0, op="divide", zero_division="one"),
    "axis_scale 1 one": lambda x: cx.axis_scale(x, some_zero(x.shape[1]), axis=1, op="divide", zero_division="one"),
    "axis_scale 0 lazy": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[0])), axis=0),
    "axis_scale 1 lazy row": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[1])[None]), axis=1),
    "axis_scale 0 matrix": lambda x: cx.axis_scale(x, beside(x, vector(x.shape[0])[:, None], kind=as_matrix), axis=0),
    "multiply matrix": lambda x: cx.multiply(x, beside(x, vector(x.shape[0])[:, None], kind=as_matrix)),
    "axis_scale 1 own sums": lambda x: cx.axis_scale(x, cx.sum(x, axis=0), axis=1, op="divide", zero_division="one"),
    "normalize 1": lambda x: cx.normalize(x, target_sum=1e4),
    "normalize 0": lambda x: cx.normalize(x, axis=0, target_sum=100),
    "normalize 1 log1p": lambda x: cx.normalize(x, axis=-1, target_sum=1e4, log1p=True),
    "normalize 0 log1p": lambda x: cx.normalize(x, axis=0, target_sum=1e4, log1p=True),
}  # fmt: skip
# Calls whose bits may depend on the chunking though x holds whole numbers: they reduce fractions. (NumPy's logarithm of
# an ndarray may do so too.)
FRACTIONS = ("var of means",)
# Calls where a zero is divided by zero: an implicit one stays, an element of an ndarray becomes NaN.
ZERO_BY_ZERO = (
    *("divide by zero", "divide vector", "divide own sums", "divide itself", "divide sparse", "divide lazy sparse"),
    *("divide into sparse", "divide into lazy sparse", "divide into vector"),
    *("axis_scale 0 divide", "axis_scale 1 divide"),
)
MEDIAN = {
    "normalize 1 median": cx.normalize,
    "normalize 0 median": partial(cx.normalize, axis=0),
    "normalize 1 median log1p": partial(cx.normalize, log1p=True),
}


class ComputedError(Exception):
    """A task ran before compute."""


def boom(*args, **kwargs):
    raise ComputedError


def results(returned):
    return list(returned) if isinstance(returned, tuple) else [returned]


def attempt(call, x):
    """The results; or the error, where there is nothing to choose from."""
    try:
        return results(call(x))
    except ValueError as error:
        if "of nothing" not in str(error):
            raise
        return error


def put_together(array, blocks, any_class=False):
    """An ndarray of the computed blocks, each of which is what the Dask array declares (but for its class)."""

    def check(block, place):
        assert block.shape == tuple(sizes[i] for sizes, i in zip(array.chunks, place))
        assert block.dtype == array.dtype
        assert any_class or type(block) is type(array._meta) or (block.ndim == 0 and isinstance(block, np.generic))
        assert array._meta.ndim == block.ndim
        assert not isinstance(block, np.matrix)
        return block if isinstance(block, np.ndarray | np.generic) else block.toarray()

    def walk(nested, place=()):
        return (
            [walk(b, (*place, i)) for i, b in enumerate(nested)] if isinstance(nested, list) else check(nested, place)
        )

    return np.block(walk(blocks))


def compare(x, dask_x, calls, exact, any_class=False):
    """Each call on Dask, built under a scheduler that raises, against the call in memory."""
    with dask.config.set(scheduler=boom):
        built = {name: attempt(call, dask_x) for name, call in calls.items()}
    refused = {name: error for name, error in built.items() if isinstance(error, ValueError)}
    for name, error in refused.items():
        assert str(built.pop(name)) == str(attempt(calls[name], x)) == str(error), name
    computed = dask.compute(
        {name: [array.to_delayed(optimize_graph=False).tolist() for array in arrays] for name, arrays in built.items()},
        scheduler="sync",
    )[0]
    for name in built:
        for array, blocks, expected in zip(built[name], computed[name], results(calls[name](x)), strict=True):
            try:
                actual = put_together(array, blocks, any_class)
                assert type(expected) is type(array._meta) or (array.ndim == 0 and isinstance(expected, np.generic))
                assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
                expected = expected if isinstance(expected, np.ndarray | np.generic) else expected.toarray()
                actual = actual.astype(expected.dtype)  # np.block puts the bytes in native order
                numpys = ("log1p" in name or "expm1" in name) and isinstance(x, np.ndarray)
                if exact and name not in FRACTIONS and not numpys:
                    assert bits(actual) == bits(np.asarray(expected)), (actual, expected)
                else:
                    assert_close(actual, expected, 1e-6 if expected.dtype == np.float32 else 1e-12)
            except Exception as error:
                error.add_note(f"in {name}")
                raise
