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
