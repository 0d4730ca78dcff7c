"""From how many stored values on do threads pay? `python -m bench.threads` measures what `PARALLEL_FROM` is set to.

Each function runs with one thread and with all, in turn, on matrices of growing size; a ratio above 1 means that
threads are faster. Interleaved medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
from scipy import sparse

import csraxis as cx
from csraxis.dispatch import _blocks

SIZES = (125_000, 250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
ROUNDS = 25
COLUMNS = 5_000
ROW = 500  # stored values

FUNCTIONS: dict[str, Callable[[sparse.csr_matrix], object]] = {
    "sum of rows": lambda x: cx.sum(x, axis=1),
    "sum of columns": lambda x: cx.sum(x, axis=0),
    "scale rows": lambda x: cx.axis_scale(x, np.ones(x.shape[0]), axis=0, out=x),
    "normalise + log1p": lambda x: cx.normalize(x, target_sum=1e4, log1p=True, out=x),
}


def matrix(n_values: int) -> sparse.csr_matrix:
    """Ones, ROW in each row, at random columns in order."""
    rng = np.random.default_rng(0)
    rows = n_values // ROW
    indices = np.sort(rng.integers(0, COLUMNS // ROW, (rows, ROW)) + np.arange(ROW) * (COLUMNS // ROW)).ravel()
    x = sparse.csr_matrix((rows, COLUMNS), dtype=np.float32)
    x.data, x.indices = np.ones(rows * ROW, np.float32), indices.astype(np.int32)
    x.indptr = np.arange(0, rows * ROW + 1, ROW, dtype=np.int32)
    x.has_canonical_format = True
    return x


def measure(function: Callable[[sparse.csr_matrix], object], x: sparse.csr_matrix, threads: int) -> list[float]:
    """Median seconds with one thread and with `threads`."""
    seconds: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(ROUNDS + 1):
        for count in seconds:
            with cx.config(threads=count):
                start = time.perf_counter()
                function(x)
                seconds[count].append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in seconds.values()]


def main() -> None:
    """Print one line for each size, and one column for each function."""
    threads = cx.get_config()["threads"]
    engine, now = cx.get_config()["engine"], _blocks.PARALLEL_FROM
    print(f"time with 1 thread / time with {threads}; engine {engine}; PARALLEL_FROM = {now:,}")
    print(f"{'stored values':>14}" + "".join(f"{name:>20}" for name in FUNCTIONS))
    for size in SIZES:
        x = matrix(size)
        with mock.patch.object(_blocks, "PARALLEL_FROM", 1):
            ratios = [one / many for one, many in (measure(function, x, threads) for function in FUNCTIONS.values())]
        print(f"{size:>14,}" + "".join(f"{ratio:>20.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
