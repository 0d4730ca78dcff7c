"""Dask: what runs and when, names, pickles, schedulers, and what is refused."""

import pickle
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import assert_close, bits
from dask_calls import (
    CALLS,
    CHUNKS,
    KINDS,
    MEDIAN,
    SPARSE,
    UNEVEN_60_40,
    ComputedError,
    boom,
    compare,
    da,
    dask,
    fractions,
    lazy,
    results,
    vector,
    whole_numbers,
)
from fresh import run

# What runs, and when


def counting_scheduler():
    """A scheduler, and the list of its calls."""
    calls = []

    def scheduler(graph, keys, **kwargs):
        calls.append(keys)
        return dask.get(graph, keys, **kwargs)

    return scheduler, calls


def test_the_raising_scheduler_would_be_noticed():
    with dask.config.set(scheduler=boom), pytest.raises(ComputedError):
        lazy(whole_numbers(7, 5, float), "csr_array", (3, 2)).compute()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEDIAN)
def test_median_target_computes_once(name, kind):
    dense = whole_numbers(7, 5, "float32")
    scheduler, calls = counting_scheduler()
    with dask.config.set(scheduler=scheduler):
        built = MEDIAN[name](lazy(dense, kind, CHUNKS["uneven"]))
    assert len(calls) == 1
    # The target is a number by now; the rest is lazy.
    compare(KINDS[kind](dense), built, {name: lambda x: x if isinstance(x, da.Array) else MEDIAN[name](x)}, True)


def test_mean_and_variance_share_one_pass():
    reads = []
    x = lazy(fractions(7, 5, float), "csr_array", CHUNKS["uneven"]).map_blocks(
        lambda b: reads.append(1) or b, meta=sp.csr_array((0, 0))
    )
    dask.compute(*cx.mean_var(x, axis=0), scheduler="sync")
    assert len(reads) == x.npartitions


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_compute(kind, scheduler):
    """Dask puts the chunks together itself."""
    dense = whole_numbers(60, 40, float)
    x, whole = lazy(dense, kind, UNEVEN_60_40), KINDS[kind](dense)
    for name in ("sum 0 False", "var None False", "normalize 0 log1p", "to_dense C"):
        actual, expected = CALLS[name](x).compute(scheduler=scheduler), CALLS[name](whole)
        if kind in SPARSE and "normalize" in name:
            actual, expected = actual.toarray(), expected.toarray()
        assert_close(actual, expected, 1e-12)


def test_distributed():
    distributed = pytest.importorskip("distributed")
    dense = fractions(60, 40, "float32")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, distributed.Client(cluster):
        x = lazy(dense, "csr_matrix", UNEVEN_60_40)
        scaled = cx.normalize(cx.axis_scale(x, vector(40), axis=1), log1p=True)
        actual = dask.compute(scaled, *cx.mean_var(scaled, axis=0), cx.count_nonzero(x))
    scaled = cx.normalize(cx.axis_scale(sp.csr_matrix(dense), vector(40), axis=1), log1p=True)
    assert_close(actual[0].toarray(), scaled.toarray(), 1e-6)
    for one, expected in zip(actual[1:], (*cx.mean_var(scaled, axis=0), np.count_nonzero(dense)), strict=True):
        assert_close(one, expected, 1e-6)


# Graphs


def test_names_tell_calls_apart():
    """Two equal calls have one name, whatever was computed between them; calls of one name have one result."""
    dense = fractions(7, 5, float)
    x, whole = lazy(dense, "csr_matrix", (3, 2)).persist(scheduler="sync"), sp.csr_matrix(dense)
    seen = {}
    for name, call in CALLS.items():
        first, expected = results(call(x)), results(call(whole))
        dask.compute(first, scheduler="sync")
        assert x._meta.has_canonical_format  # a flag that SciPy now caches
        assert [array.name for array in first] == [array.name for array in results(call(x))], name
        for array, in_memory in zip(first, expected):
            assert bits(seen.setdefault(array.name, in_memory)) == bits(in_memory), name
    assert len(seen) > 0.6 * len(CALLS)
    other = results(CALLS["sum 0 False"](lazy(2 * dense, "csr_matrix", (3, 2))))[0].name
    assert other not in seen


def test_names_are_the_same_in_every_process():
    script = """
        import csraxis as cx, dask.array as da, numpy as np, scipy.sparse as sp
        x = da.from_array(np.eye(4), chunks=2, name="x").map_blocks(sp.csr_array, name="y")
        print(cx.sum(x, axis=0).name, cx.var(x, correction=1).name, cx.normalize(x, target_sum=2.0, log1p=True).name)
        print(cx.axis_scale(x, np.arange(4), axis=0).name, cx.divide(x, 3).name, cx.log1p(x).name)
    """
    assert run(script, PYTHONHASHSEED="1") == run(script, PYTHONHASHSEED="2")


@pytest.mark.parametrize("module", ["pickle", "cloudpickle"])
def test_graphs_pickle(module):
    module = pytest.importorskip(module)
    x = lazy(whole_numbers(7, 5, float), "csc_matrix", (3, 2))
    built = {name: results(call(x)) for name, call in CALLS.items()}
    copied = pickle.loads(module.dumps(built))
    expected, actual = dask.compute(built, copied, scheduler="sync")
    for name in CALLS:
        for one, other in zip(expected[name], actual[name], strict=True):
            assert bits(one) == bits(other), name


# What is refused, when it is called


X = lazy(np.eye(7, 5), "csr_array", (3, 2))
LONG_DOUBLE = da.from_array(np.eye(3, dtype=np.longdouble), chunks=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cx.log1p(X, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.axis_scale(X, np.ones(7), axis=0, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.normalize(X, target_sum=1, out=X), ValueError, "out is not supported for Dask"),
        (lambda: cx.axis_scale(X, np.ones(5), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, np.ones(1), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones(5, chunks=3), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 1)), axis=1), ValueError, r"factors must have shape \(5,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 2)), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (lambda: cx.axis_scale(X, da.ones((7, 5, 1)), axis=0), ValueError, r"factors must have shape \(7,\)"),
        (
            lambda: cx.axis_scale(X, X[:, :1], axis=0),
            TypeError,
            "factors must be a dense array .* got csr_array chunks",
        ),
        (lambda: cx.axis_scale(np.eye(7), da.ones(7), axis=0), TypeError, "factors must be an array of shape"),
        (lambda: cx.axis_scale(X, da.ones(7, dtype=complex), axis=0), TypeError, "factors must be real"),
        (lambda: cx.axis_scale(da.ones((7, 1, 1)), np.ones(7), axis=0), ValueError, "x must be 2-D or 1-D"),
        (lambda: cx.normalize(da.ones(7), axis=0), ValueError, "needs a 2-D x"),
        (lambda: cx.gram(da.ones(7)), ValueError, "needs a 2-D x"),
        (lambda: cx.max(X[:0]), ValueError, "max of nothing"),
        (lambda: cx.min(X.astype(complex)), TypeError, "real numbers"),
        (lambda: cx.sign(X.astype(bool)), TypeError, "defined for numbers"),
        (lambda: cx.normalize(X, target_sum=0), ValueError, "target_sum must be a positive number"),
        (lambda: cx.normalize(X.astype(complex), target_sum=1), TypeError, "real numbers"),
        (lambda: cx.var(X.astype(complex)), TypeError, "real numbers"),
        (lambda: cx.sum(X, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds"),
        (lambda: cx.to_dense(X, order="A"), ValueError, 'order must be "C" or "F"'),
        (lambda: cx.multiply(X, np.ones(7)), ValueError, "does not broadcast"),
        (lambda: cx.multiply(X, da.ones((5, 7))), ValueError, "does not broadcast"),
        (lambda: cx.multiply(np.ones((2, 7, 5)), X), ValueError, "does not broadcast"),
        (lambda: cx.multiply(X, X[:5]), ValueError, "does not broadcast"),
        (lambda: cx.divide(X, sp.csr_array(np.eye(5, 7))), ValueError, "does not broadcast"),
        *[
            (partial(call, LONG_DOUBLE), TypeError, "complex128 dtype; got (float128|longdouble)")
            for call in (
                cx.sum,
                cx.count_nonzero,
                cx.var,
                cx.log1p,
                cx.to_dense,
                lambda x: cx.multiply(x, 2),
                cx.normalize,
            )
        ],
    ],
)
def test_refused(call, error, message):
    with dask.config.set(scheduler=boom), pytest.raises(error, match=message):
        call()


def test_median_target_with_rows_of_unknown_number():
    x = lazy(np.arange(35.0).reshape(7, 5), "csr_matrix", ((3, 4), (5,)))
    keep = da.from_array(np.arange(7) % 2 == 0, ((3, 4),))
    for function in (cx.normalize, cx.pp.normalize_total):
        got = cx.to_dense(function(x[keep])).compute()
        np.testing.assert_allclose(got, function(np.arange(35.0).reshape(7, 5)[::2]), rtol=1e-12)
