"""Blocks of rows, and the threads that work on them.

A block holds about as many stored values as the others. Where blocks decide the order of addition, their number depends
on the matrix alone, so the number of threads never changes a bit of a result.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from itertools import pairwise, starmap
from typing import Any, TypeVar

import numpy as np

from . import _config, _engines

Result = TypeVar("Result")

# Below this many stored values threads cost more than they save (measured by `python -m bench.threads`). What only
# reads or writes values gains from twice as many on, all else from half of it.
PARALLEL_FROM = 2_000_000
# Values that are cast to another type go through a scratch of this many, which stays in the second-level cache.
CAST_STEP = 1 << 16

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_thread = threading.local()


def split(indptr: np.ndarray, n_blocks: int) -> list[tuple[int, int]]:
    """At most `n_blocks` blocks (start, stop) of rows with about equally many stored values, covering all rows."""
    n_rows = len(indptr) - 1
    if n_blocks <= 1 or n_rows <= 1:
        return [(0, n_rows)]
    targets = indptr[0] + (indptr[-1] - indptr[0]) * np.arange(1, n_blocks) // n_blocks
    edges = sorted({0, n_rows, *np.searchsorted(indptr, targets).tolist()})
    return list(pairwise(edges))


def split_flat(n_values: int, step: int) -> list[tuple[int, int]]:
    """Consecutive ranges (start, stop) of at most `step` values."""
    return [(start, min(start + step, n_values)) for start in range(0, n_values, step)]


def per_thread(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Blocks for work whose result does not depend on them: a few for each thread, so that none waits long."""
    n_values = indptr.item(-1)
    n_threads = workers(n_values)
    return split(indptr, n_threads * max(1, min(4, n_values // PARALLEL_FROM)) if n_threads > 1 else 1)


def workers(n_values: int) -> int:
    """How many threads to use for so many stored values, here and now."""
    if n_values < PARALLEL_FROM or getattr(_thread, "in_pool", False):
        return 1
    explicit = _config.explicit_threads()
    if explicit:
        return explicit
    # On any other thread (Dask's, joblib's) the caller's chunks are the parallelism.
    return _config.thread_count() if threading.current_thread() is threading.main_thread() else 1


def run(task: Callable[..., Result], blocks: Sequence[tuple], n_values: int) -> Iterator[Result]:
    """task(*block) for each block, in threads where that pays; the results come in the order of the blocks."""
    n_threads = workers(n_values) if len(blocks) > 1 else 1
    return _run_in_threads(task, blocks, n_threads) if n_threads > 1 else starmap(task, blocks)


def _run_in_threads(task: Callable[..., Result], blocks: Sequence[tuple], n_threads: int) -> Iterator[Result]:
    """The calling thread works, too: one thread less has to be woken, and work begins before the others are awake."""
    futures: list[Any] = [Future() for _ in blocks]
    left = deque((future, task, block) for future, block in zip(futures, blocks))
    future = None
    helpers: list[Future] = []
    try:
        helpers = _call_helpers(left, n_threads - 1)
        for position, future in enumerate(futures):
            while not future.done() and left:
                _do_next(left)
            futures[position] = None  # so that a result is let go of once the caller has merged it
            yield future.result()
        helpers.clear()  # they have nothing left to do
    finally:  # no task may be left at work on the caller's buffers, nor be referred to by the queue of the pool
        future = None  # an exception would refer to this frame, and so to itself
        left.clear()
        # After an error, also for the helpers themselves: what one of them has raised refers to those buffers.
        wait([future for future in futures + helpers if future is not None and not future.cancel()])
        futures.clear()  # so do the frames of other errors
        helpers.clear()


def _call_helpers(left: deque, n_helpers: int) -> list[Future]:
    """Let that many threads of the pool help; fewer if they cannot be started (a limit, interpreter's end)."""
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size != n_helpers:
            if _pool is not None:
                _pool.shutdown(wait=False)  # what was submitted to it still runs
            _pool = ThreadPoolExecutor(n_helpers, "csraxis")
            _pool_size = n_helpers
        helpers: list[Future] = []
        with suppress(RuntimeError):
            for _ in range(n_helpers):
                helpers.append(_pool.submit(copy_context().run, _work_off, left))  # with the caller's np.errstate
        return helpers


def _work_off(left: deque) -> None:
    while left:
        _do_next(left)


def _do_next(left: deque) -> None:
    """Do the next block, if one is left that was not cancelled."""
    was_in_pool = getattr(_thread, "in_pool", False)
    try:
        future, task, block = left.popleft()
    except IndexError:
        return
    try:
        _thread.in_pool = True
        if future.set_running_or_notify_cancel():
            result = task(*block)
            del task, block  # once the caller has the result, nothing here refers to its buffers
            future.set_result(result)
    except BaseException as error:
        if not future.done():  # Ctrl-C may come at any point above
            future.set_exception(error)
        if not isinstance(error, Exception):
            raise
    finally:
        _thread.in_pool = was_in_pool
        del future  # its exception refers to this frame


def _start_anew() -> None:
    """After a fork the child has one thread: no pool, and no lock may be held by another."""
    global _pool, _lock
    _pool = None
    _thread.in_pool = False
    _lock = threading.Lock()
    _engines.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
