"""The variance of hostile columns against exact arithmetic, in memory and chunked; sums of many float32 values."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
import hostile


@pytest.mark.parametrize("name", hostile.COLUMNS)
def test_hostile_columns(engine, name):
    assert max(hostile.in_memory(hostile.COLUMNS[name]).values()) <= 1e-12


@pytest.mark.parametrize("name", hostile.COLUMNS)
def test_hostile_columns_in_chunks(engine, name):
    pytest.importorskip("dask")
    errors = hostile.chunked(hostile.COLUMNS[name])
    assert len(errors) == 5
    assert max(errors.values()) <= 1e-12


@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_array, np.asarray])
def test_float32_sums_of_ten_million_values(engine, cls):
    """A float32 accumulator stops at 2**24 ones, and is off by far more than its rounding for fractions."""
    for values in (np.ones(10_000_000, np.float32), np.random.default_rng(0).random(10_000_000, np.float32)):
        x = cls(values[:, None])
        exact = math.fsum(values.tolist())
        for total in (cx.sum(x), cx.sum(x, axis=0)[0], cx.sum(x.T), cx.sum(x.T, axis=1)[0]):
            assert total.dtype == np.float32
            assert total == np.float32(exact)
        assert cx.mean(x) == np.float32(exact / 10_000_000)


def test_large_integers_do_not_depend_on_the_chunking(engine):
    """Around a value far from the mean their squares would not be exact, as they are around the mean."""
    da = pytest.importorskip("dask.array")
    rng = np.random.default_rng(0)
    for _ in range(10):
        row, column = np.rint(rng.normal(0, 5e6, 201)), np.rint(rng.normal(0, 1e6, 200))
        row[0], column[-1] = 9_500_001, 2e7 + 1
        for x, axis, chunks in ((row[None], 1, (1, (77, 124))), (column[:, None], 0, ((77, 123), 1))):
            whole = cx.var(sp.csr_array(x), axis=axis)
            parts = cx.var(da.from_array(x, chunks=chunks).map_blocks(sp.csr_array), axis=axis).compute()
            assert whole.tobytes() == parts.tobytes()


def test_values_whose_difference_overflows(engine):
    mean, var = cx.mean_var(sp.csr_array([[1e308, -1e308]]), axis=1)
    assert (mean.tolist(), var.tolist()) == ([0], [np.inf])
