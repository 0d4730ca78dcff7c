"""How large should blocks be? `python -m bench.blocks` measures what `CAST_STEP` and `per_thread` are set to.

A function runs with each setting in turn, interleaved; a number is its median over the least of the row. Above 1 that
setting is slower.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

import numpy as np
from scipy import sparse

import csraxis as cx
from bench.threads import matrix
from csraxis.dispatch import _blocks

CAST_STEPS = tuple(1 << k for k in range(12, 21, 2))
PER_THREAD = (1, 2, 4, 8, 16)


def in_type(x: sparse.csr_matrix, dtype: str) -> sparse.csr_matrix:
    """The same matrix with values of another type."""
    return sparse.csr_matrix((x.data.astype(dtype), x.indices, x.indptr), shape=x.shape)


def cast_functions(x: sparse.csr_matrix) -> dict[str, Callable[[], Any]]:
    """What casts its input: kernels take no int16, and no integers where the result is floating."""
    small, whole = in_type(x, "int16"), in_type(x, "int32")
    return {
        "sum of columns, int16": lambda: cx.sum(small, axis=0),
        "sum of rows, int16": lambda: cx.sum(small, axis=1),
        "mean and variance of columns, int16": lambda: cx.mean_var(small, axis=0),
        "normalise + log1p, int32": lambda: cx.normalize(whole, target_sum=1e4, log1p=True),
    }


def block_functions(x: sparse.csr_matrix) -> dict[str, Callable[[], Any]]:
    """What works on blocks that do not change the result."""
    own = x.copy()
    ones = np.ones(x.shape[0])
    return {
        "scale rows": lambda: cx.axis_scale(own, ones, axis=0, out=own),
        "normalise + log1p": lambda: cx.normalize(own, target_sum=1e4, log1p=True, out=own),
        "sum of rows": lambda: cx.sum(own, axis=1),
    }


def interleaved(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Median seconds of each; the first round is not counted."""
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def patched(function: Callable[[], Any], target: Any, name: str, value: Any) -> Callable[[], Any]:
    """The same with another setting."""

    def call() -> None:
        with mock.patch.object(target, name, value):
            function()

    return call


def blocks_of(factor: int) -> Callable[[np.ndarray], list[tuple[int, int]]]:
    """`per_thread` with so many blocks for each thread."""

    def per_thread(indptr: np.ndarray) -> list[tuple[int, int]]:
        n_threads = _blocks.workers(int(indptr[-1]))
        return _blocks.split(indptr, factor * n_threads if n_threads > 1 else 1)

    return per_thread


def line(name: str, medians: Iterable[float]) -> str:
    """Each over the least."""
    medians = list(medians)
    return f"{name:40}" + "".join(f"{median / min(medians):>12.2f}" for median in medians)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each function, and one column for each setting."""
    p = argparse.ArgumentParser(prog="python -m bench.blocks", description="What the sizes of blocks cost.")
    p.add_argument("--values", type=int, default=16_000_000, help="stored values (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    options = p.parse_args(arguments)
    x = matrix(options.values)
    config = cx.get_config()
    print(f"{x.nnz:,} stored values, engine {config['engine']}, {config['threads']} threads; time over the least")
    print(f"\n{f'CAST_STEP (now {_blocks.CAST_STEP:,})':40}" + "".join(f"{step:>12,}" for step in CAST_STEPS))
    for name, function in cast_functions(x).items():
        calls = {step: patched(function, _blocks, "CAST_STEP", step) for step in CAST_STEPS}
        print(line(name, interleaved(calls, options.rounds).values()))
    print(f"\n{'blocks for each thread':40}" + "".join(f"{factor:>12}" for factor in PER_THREAD))
    for name, function in block_functions(x).items():
        calls = {factor: patched(function, _blocks, "per_thread", blocks_of(factor)) for factor in PER_THREAD}
        print(line(name, interleaved(calls, options.rounds).values()))


if __name__ == "__main__":
    main()
