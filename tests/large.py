"""More than 2**31 stored values (10.7 GB): `python tests/large.py`, by hand, on a machine with 16 GB to spare.

The rows repeat with period 6, so exact answers follow from six of them. Indices stay int32, by attribute: SciPy's own
constructor would widen them.
"""

import resource
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import csraxis as cx

PERIOD, STORED, N_COLUMNS = 6, 1024, 2048
N_ROWS = 2**31 // STORED + 3


def matrix():
    """Row i stores every second column from column i % 2 on, with the values (i + k) % 3 + 1."""
    k = np.arange(STORED)
    data, indices = np.empty((N_ROWS, STORED), np.int8), np.empty((N_ROWS, STORED), np.int32)
    for i in range(PERIOD):
        data[i::PERIOD] = (i + k) % 3 + 1
        indices[i::PERIOD] = 2 * k + i % 2
    x = sp.csr_array((N_ROWS, N_COLUMNS), dtype=np.int8)
    x.data, x.indices, x.indptr = data.ravel(), indices.ravel(), STORED * np.arange(N_ROWS + 1)
    return x


def six_rows():
    """The rows that repeat, dense, in integers; and how often each occurs."""
    rows = np.zeros((PERIOD, N_COLUMNS), np.int64)
    for i in range(PERIOD):
        rows[i, i % 2 :: 2] = (i + np.arange(STORED)) % 3 + 1
    return rows, np.array([len(range(i, N_ROWS, PERIOD)) for i in range(PERIOD)])


def variance(total, squares, n):
    """The exact variance of n integers with that sum and sum of squares, rounded once."""
    return float(Fraction(int(squares) * n - int(total) ** 2, n * n))


class PeakMemory:
    """The most memory that was resident inside a `with` block, over what was there before it."""

    def _resident(self):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def _watch(self):
        while not self._stop.wait(0.005):
            self.extra = max(self.extra, self._resident() - self._before)

    def __enter__(self):
        self.extra, self._before, self._stop = 0, self._resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()


def main():
    """Each call, then its result against the known answer."""
    x = matrix()
    size = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    assert x.indices.dtype == np.int32
    print(f"{x.shape[0]:,} x {x.shape[1]:,}, {len(x.data):,} stored int8 values, {size / 1e9:.2f} GB")
    rows, times = six_rows()
    by_column, by_row = times @ rows, rows.sum(1)
    column_var = [variance(t, s, N_ROWS) for t, s in zip(by_column, times @ rows**2)]
    row_var = [variance(t, s, N_COLUMNS) for t, s in zip(by_row, (rows**2).sum(1))]
    row_factors, column_factors = np.int8([1, 2, 3, 4, 5, 6]), np.resize(np.int8([3, 1, 7]), N_COLUMNS)
    scaled_rows = rows * row_factors[:, None]  # the second scaling works on what the first left, within int8

    def exactly(expected):
        return lambda result: np.testing.assert_array_equal(result, expected)

    def near(mean, var):
        return lambda result: np.testing.assert_allclose(result, (mean, var), rtol=1e-12, atol=0)

    def stores(expected):
        def check(result):
            assert result is x
            for i in range(PERIOD):
                assert (x.data.reshape(N_ROWS, STORED)[i::PERIOD] == expected[i, i % 2 :: 2]).all()

        return check

    each = np.resize(np.arange(PERIOD), N_ROWS)
    for name, call, check in (
        ("sum", lambda: cx.sum(x), exactly(times @ by_row)),
        ("sum, axis=0", lambda: cx.sum(x, axis=0), exactly(by_column)),
        ("sum, axis=1", lambda: cx.sum(x, axis=1), exactly(by_row[each])),
        ("mean_var, axis=0", lambda: cx.mean_var(x, axis=0), near(by_column / N_ROWS, column_var)),
        ("mean_var, axis=1", lambda: cx.mean_var(x, axis=1), near(by_row[each] / N_COLUMNS, np.array(row_var)[each])),
        ("axis_scale, axis=0", lambda: cx.axis_scale(x, row_factors[each], axis=0, out=x), stores(scaled_rows)),
        (
            "axis_scale, axis=1",
            lambda: cx.axis_scale(x, column_factors, axis=1, out=x),
            stores(scaled_rows * column_factors),
        ),
    ):
        start = time.perf_counter()
        with PeakMemory() as peak:
            result = call()
        seconds = time.perf_counter() - start
        check(result)
        print(
            f"{name:20} right, {seconds:5.1f} s, {peak.extra / 1e6:6.0f} MB more ({peak.extra / size:.1%})", flush=True
        )
    print(f"peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
