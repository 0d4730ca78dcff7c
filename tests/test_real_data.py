"""Real counts against exact integer and rational arithmetic, with both engines."""

import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CSRAXIS_DATA") or ROOT.parent / "shared" / "data")
FILES = {
    "embedded": ROOT / "bench" / "data" / "pbmc3k_raw.npz",
    "pbmc3k": DATA / "pbmc3k_raw.npz",
    "pbmc_merged": DATA / "pbmc_merged_raw.npz",
    "text": DATA / "text_terms.npz",
}
EMPTY_ROWS = {"text": 57_602}


@pytest.fixture(params=FILES, scope="module")
def counts(request):
    """A CSR matrix of int32, read once for all tests."""
    path = FILES[request.param]
    if not path.exists():
        pytest.skip(f"{path} is not here (CSRAXIS_DATA names the folder of the larger matrices)")
    x = sp.csr_array(sp.load_npz(path))
    assert x.dtype == np.int32
    assert (np.diff(x.indptr) == 0).sum() == EMPTY_ROWS.get(request.param, 0)
    return Counts(x)


class Counts:
    """One matrix in the two formats and two types, and what exact arithmetic says about it."""

    def __init__(self, x):
        self.csr = x
        self.versions = cache(self._versions)
        self.sums = cache(self._sums)

    def _versions(self):
        csc = self.csr.tocsc()
        return [x.astype(dtype) for x in (self.csr, csc) for dtype in (np.int32, np.float32)]

    def _sums(self, axis):
        """n, and the sums of the values and of their squares: by NumPy in int64, far from its limits."""
        values = self.csr.data.astype(np.int64)
        n_major, n_minor = self.csr.shape
        rows = np.repeat(np.arange(n_major), np.diff(self.csr.indptr))
        place, length = {0: (self.csr.indices, n_minor), 1: (rows, n_major), None: (np.zeros_like(rows), 1)}[axis]
        totals = []
        for terms in (values, values * values):
            total = np.zeros(length, np.int64)
            np.add.at(total, place, terms)
            totals.append(total)
        return math.prod(self.csr.shape) if axis is None else self.csr.shape[axis], *totals


def exact_mean_and_variance(n, s1, s2):
    """s1 / n and (n s2 - s1^2) / n^2: quotients of Python's integers, which are rounded once."""
    sums, squares = s1.tolist(), s2.tolist()
    mean = np.array([s / n for s in sums])
    return mean, np.array([(n * q - s * s) / (n * n) for s, q in zip(sums, squares)])


@pytest.mark.parametrize("axis", [0, 1, None])
def test_sum_is_exact(counts, engine, axis):
    _, expected, _ = counts.sums(axis)
    for x in counts.versions():
        total = cx.sum(x, axis=axis)
        # Totals beyond 2**24 are rounded to float32, once.
        assert np.array_equal(np.atleast_1d(total), expected.astype(total.dtype))


@pytest.mark.parametrize("axis", [0, 1])
def test_integer_axis_scale_is_exact(counts, engine, axis):
    n = counts.csr.shape[axis]
    factors = np.arange(n) * 2 + 3
    factors[(factors & (factors - 1)) == 0] = 5
    assert ((factors & (factors - 1)) != 0).all()
    for x in counts.versions():
        scaled = cx.axis_scale(x, factors if x.dtype.kind == "i" else factors % 1000 + 3, axis=axis)
        if x.dtype.kind == "i":
            assert scaled.dtype == np.int64
        major = np.repeat(np.arange(x.indptr.size - 1), np.diff(x.indptr))
        along = major if (x.format == "csr") == (axis == 0) else x.indices
        each = factors[along] if x.dtype.kind == "i" else (factors % 1000 + 3)[along]
        # In float32 the product is rounded once, where it is beyond 2**24.
        assert np.array_equal(scaled.data, (x.data.astype(np.int64) * each).astype(scaled.dtype))
        assert np.array_equal(scaled.indices, x.indices)
        assert np.array_equal(scaled.indptr, x.indptr)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_mean_and_variance(counts, engine, axis):
    expected_mean, expected_var = exact_mean_and_variance(*counts.sums(axis))
    for x in counts.versions():
        both_mean, both_var = (np.atleast_1d(part) for part in cx.mean_var(x, axis=axis))
        for mean in (np.atleast_1d(cx.mean(x, axis=axis)), both_mean):
            ulps = np.abs(mean - expected_mean.astype(mean.dtype)) / np.spacing(expected_mean.astype(mean.dtype))
            assert ulps.max() <= 2
        tolerance = 1e-12 if x.dtype.kind == "i" else 2.0**-24 * (1 + 1e-6)  # one rounding to float32
        for var in (np.atleast_1d(cx.var(x, axis=axis)), both_var):
            assert (np.abs(var - expected_var) <= tolerance * expected_var).all()
