"""Threads, forks and shutdown: each test in a process of its own, with a time limit, as any of them may hang or die."""

import os

import pytest

from fresh import run

# A matrix large enough for the thread pool, and a function that says whether sums and products of it come out right.
# Whole numbers, so that NumPy's sums over the dense rows are exact.
PREAMBLE = """
import faulthandler, os, signal, sys, threading
import numpy as np, scipy.sparse as sp
import csraxis as cx
from csraxis.dispatch import _blocks

faulthandler.dump_traceback_later(100, exit=True)
n_columns = 600
n_rows = _blocks.PARALLEL_FROM // n_columns + 50
data = np.arange(n_rows * n_columns, dtype=float) % 13 + 1
dense = data.reshape(n_rows, n_columns)
indices = np.tile(np.arange(n_columns, dtype=np.int32), n_rows)
indptr = np.arange(n_rows + 1, dtype=np.int32) * n_columns
x = sp.csr_array((data, indices, indptr), shape=dense.shape)
row_sums, column_sums, doubled = dense.sum(axis=1), dense.sum(axis=0), 2 * data
factors = np.full(n_rows, 2.0)

def right():
    return (
        np.array_equal(cx.sum(x, axis=1), row_sums)
        and np.array_equal(cx.sum(x, axis=0), column_sums)
        and np.array_equal(cx.axis_scale(x, factors, axis=0).data, doubled)
    )
"""


@pytest.fixture
def process(engine):
    """Run a script after the preamble, with this engine; it must end well, and print "right"."""

    def check(script, **variables):
        assert run(PREAMBLE + script, CSRAXIS_ENGINE=engine, **variables) == "right"

    return check


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# Ends the test's process with the child's verdict; the child ends itself if it hangs.
FORK = """
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if right() and _blocks._pool is not None else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, f"the child ended with {status}"
assert right()
print("right")
"""


@needs_fork
def test_fork_after_a_parallel_call(process):
    process(
        """
cx.set_config(threads=2)
assert right() and _blocks._pool is not None
"""
        + FORK
    )


@needs_fork
def test_fork_while_another_thread_holds_the_locks(process):
    """The child has no such thread, which could let go of them."""
    process(
        """
from csraxis.dispatch import _engines
cx.set_config(threads=2)
assert right()
held, done = threading.Event(), threading.Event()

def hold():
    with _blocks._lock, _engines.lock:
        held.set()
        done.wait(0.5)  # not until the parent's own call, which waits for the locks too

threading.Thread(target=hold).start()
held.wait()
"""
        + FORK.replace("right() and", "cx.set_config(threads=3) is None and right() and")
    )


FOUR_THREADS = """
results, start = [], threading.Barrier(4)

def work():
    start.wait()
    results.extend(right() for _ in range(5))

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert results == [True] * 20
"""


def test_four_threads_at_once(process):
    """By default only the main thread uses the pool."""
    process(FOUR_THREADS + "assert _blocks._pool is None\nprint('right')", CSRAXIS_NUM_THREADS="2")


def test_four_threads_at_once_share_the_pool(process):
    process("cx.set_config(threads=2)" + FOUR_THREADS + "assert _blocks._pool is not None\nprint('right')")


@pytest.mark.parametrize("threads", ["auto", 2])
def test_forty_dask_tasks(process, threads):
    pytest.importorskip("dask")
    process(
        f"""
import dask
tasks = [dask.delayed(right, pure=False)() for _ in range(40)]
with cx.config(threads={threads!r}):
    assert dask.compute(*tasks, scheduler="threads", num_workers=8) == (True,) * 40
assert (_blocks._pool is None) == {threads == "auto"}
print("right")
"""
    )


def test_dask_array_of_forty_chunks(process):
    """The library's own graph on Dask's threads, with chunks that are large enough for the pool."""
    pytest.importorskip("dask.array")
    process(
        """
import dask, dask.array as da
rows = da.from_array(x, chunks=x.shape, asarray=False)
many = da.concatenate([rows] * 40)
with dask.config.set(scheduler="threads", num_workers=8), cx.config(threads=2):
    columns, total = dask.compute(cx.sum(many, axis=0), cx.sum(cx.axis_scale(many, np.tile(factors, 40), axis=0)))
assert np.array_equal(columns, 40 * column_sums)
assert total == 80 * data.sum()
print("right")
"""
    )


def test_nested_call_from_a_pool_thread(process):
    process(
        """
cx.set_config(threads=2)
workers = []

def task(start, stop):
    workers.append((threading.current_thread().name.split("_")[0], _blocks.workers(x.nnz)))
    return right()

blocks = [(i, i + 1) for i in range(8)]
assert list(_blocks.run(task, blocks, x.nnz)) == [True] * 8
assert set(workers) == {("MainThread", 1), ("csraxis", 1)}, workers
assert _blocks.workers(x.nnz) == 2
print("right")
"""
    )


@pytest.mark.parametrize("earlier", ["right()", "pass"])
def test_call_at_exit(process, earlier):
    """With a pool from earlier on, and without one."""
    process(
        f"""
import atexit
cx.set_config(threads=2)
atexit.register(lambda: print("right" if right() else "wrong", flush=True))
{earlier}
"""
    )


def test_calls_from_a_thread_while_the_interpreter_ends(process):
    process(
        """
cx.set_config(threads=2)
right()

def work():
    while threading.main_thread().is_alive():
        pass
    print("right" if all([right() for _ in range(5)]) else "wrong", flush=True)

threading.Thread(target=work, daemon=False).start()
"""
    )


def test_threads_are_what_they_were_after_config(process):
    process(
        """
cx.set_config(threads=2)
try:
    with cx.config(threads=3):
        assert right() and _blocks._pool._max_workers == 2
        raise KeyError
except KeyError:
    assert cx.get_config()["threads"] == 2
assert right() and _blocks._pool._max_workers == 1
print("right")
"""
    )


def test_pool_is_resized_while_others_work(process):
    process(
        """
results, stop = [], threading.Event()

def work():
    while not stop.is_set():
        results.append(right())

cx.set_config(threads=2)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for count in [3, 2, 5, 1, "auto", 2] * 3:
    cx.set_config(threads=count)
    results.append(right())
stop.set()
for thread in threads:
    thread.join()
assert len(results) > 18 and all(results)
print("right")
"""
    )


def test_an_error_in_one_block_leaves_the_pool_usable(process):
    """The position of the bad index is in the message, and what works in place has changed nothing."""
    process(
        """
cx.set_config(threads=2)
for bad in (len(data) - 2, 5):
    indices[bad] += n_columns
    for call in (lambda: cx.sum(x, axis=0), lambda: cx.axis_scale(x, np.full(n_columns, 2.0), axis=1, out=x)):
        try:
            call()
        except ValueError as error:
            assert f"x.indices[{bad}]" in str(error), error
        else:
            raise AssertionError("no error")
    indices[bad] -= n_columns
    assert right()
print("right")
"""
    )


def test_no_block_is_at_work_after_an_error(process):
    """The caller's buffers are its own again when the exception arrives."""
    process(
        """
import time
cx.set_config(threads=2)
at_work = []

def task(start, stop):
    at_work.append(start)
    time.sleep(0.2 if start else 0.05)
    at_work.remove(start)
    if not start:
        raise KeyError

try:
    list(_blocks.run(task, [(i, i + 1) for i in range(8)], x.nnz))
except KeyError:
    assert not at_work, at_work
    time.sleep(0.3)
    assert not at_work, at_work
    print("right" if right() else "wrong")
"""
    )


@pytest.mark.parametrize("when", ["set_running_or_notify_cancel", "set_result"])
def test_an_interrupt_between_blocks(process, when):
    """Ctrl-C in the calling thread, where a block is neither left nor done: it arrives, and nothing waits for ever."""
    process(
        f"""
from concurrent.futures import Future
cx.set_config(threads=2)
original, interrupted = Future.{when}, []

def interrupt(future, *result):
    found = original(future, *result)
    if threading.current_thread() is threading.main_thread() and not interrupted:
        interrupted.append(1)
        raise KeyboardInterrupt
    return found

Future.{when} = interrupt
try:
    right()
except KeyboardInterrupt:
    print("right" if right() else "wrong")
"""
    )


def test_calls_that_have_ended_leave_nothing_in_the_queue(process):
    """While the helper is busy elsewhere, the calling threads end without it: also with an error, and blocks left."""
    process(
        """
import gc, time, weakref
cx.set_config(threads=2)
busy, done = threading.Event(), threading.Event()

def task(start, stop):
    if threading.current_thread().name.startswith("csraxis"):
        busy.set()
        done.wait()
    else:
        busy.wait()

other = threading.Thread(target=lambda: list(_blocks.run(task, [(i, i + 1) for i in range(8)], x.nnz)))
other.start()
busy.wait()
gc.disable()
alive, errors = [], 0
for bad in (False, True, False):
    y = sp.csr_array((data, indices.copy(), indptr), shape=dense.shape)
    y.indices[5] += n_columns * bad
    try:
        cx.sum(y, axis=0)
    except ValueError:
        errors += 1
    alive.append(weakref.ref(y))
    del y
found = [one() for one in alive]
done.set()
other.join()
print("right" if found == [None] * 3 and errors == 1 else "wrong")
"""
    )


def test_the_error_state_of_the_caller_holds_in_all_blocks(process):
    process(
        """
cx.set_config(threads=2)
states = set()

def task(start, stop):
    states.add((threading.current_thread().name.split("_")[0], np.geterr()["over"]))
    threading.Event().wait(0.02)

with np.errstate(over="raise"):
    list(_blocks.run(task, [(i, i + 1) for i in range(8)], x.nnz))
print("right" if states == {("MainThread", "raise"), ("csraxis", "raise")} else states)
"""
    )


@pytest.mark.parametrize("started", [0, 1])
def test_no_more_threads_can_be_started(process, started):
    """As under a limit of processes: every block is done, and done once, though it works in place."""
    process(
        f"""
cx.set_config(threads=3)
start, left = threading.Thread.start, [{started}]

def refuse(thread):
    if not left[0]:
        raise RuntimeError("can't start new thread")
    left[0] -= 1
    start(thread)

threading.Thread.start = refuse
for exponent in range(1, 6):
    cx.axis_scale(x, factors, axis=0, out=x)
    assert np.array_equal(cx.sum(x, axis=1), 2**exponent * row_sums), exponent
threading.Thread.start = start
cx.axis_scale(x, factors, axis=0, out=x)
assert np.array_equal(cx.sum(x, axis=1), 64 * row_sums)
print("right")
"""
    )
