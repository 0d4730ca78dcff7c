"""Bits depend on the input alone: not on the engine, the number of threads, the CPU level, or on fusing two steps."""

import gc
import hashlib
import os
import subprocess
import sys
import threading
import weakref
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from checks import bits
from conftest import engine_or_skip
from csraxis.dispatch import _blocks
from strategies import BUFFERS, CLASSES, in_buffer

DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint16", "int16", "bool", "complex64")


def matrix(n, m, density=0.3, dtype="float64", seed=0):
    """Floats of every magnitude, integers over their whole range; long, short and empty rows and columns."""
    rng = np.random.default_rng(seed)
    stored = rng.random((n, m)) < density * rng.uniform(0, 2, (n, 1)) * rng.uniform(0, 2, m)
    stored[n // 2] = True
    stored[:, [0, m // 3]] = False
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        values = rng.choice([-1, 1], (n, m)) * np.exp(rng.uniform(-30, 30, (n, m)))
        values = values + 1j * values[::-1] if dtype.kind == "c" else values
    elif dtype.kind == "b":
        values = np.ones((n, m))
    else:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, (n, m), dtype)
    return sp.csr_array(np.where(stored, values, 0).astype(dtype))


def results(x):
    """Every public function on x, each in all its ways to add or to scale: (what, result)."""
    kind, (n, m) = x.dtype.kind, x.shape
    for axis in (0, 1, None):
        for function in (cx.sum, cx.mean, cx.count_nonzero, *((cx.var, cx.std, cx.mean_var) if kind != "c" else ())):
            yield f"{function.__name__} {axis}", function(x, axis=axis)
        for function in (cx.prod, cx.any, cx.all, *((cx.max, cx.min) if kind != "c" else ())):
            yield f"{function.__name__} {axis}", function(x, axis=axis)
        yield f"sum {axis} as float32", cx.sum(x, axis=axis, dtype="complex64" if kind == "c" else "float32")
    rng = np.random.default_rng(1)
    for axis in (0, 1):
        factors = np.exp(rng.uniform(-9, 9, x.shape[axis]))
        whole = rng.integers(-99, 99, x.shape[axis])
        yield f"scale {axis}", cx.axis_scale(x, factors, axis=axis)
        yield f"scale {axis} integers", cx.axis_scale(x, whole, axis=axis)
        yield f"divide {axis}", cx.axis_scale(x, factors, axis=axis, op="divide")
        if kind in "fc":
            copy = cx.multiply(x, 1)
            yield f"scale {axis} in place", cx.axis_scale(copy, factors, axis=axis, out=copy)
        if kind != "c":
            for target in (None, 1e4):
                yield f"normalize {axis} {target}", cx.normalize(x, axis=axis, target_sum=target)
                yield f"normalize {axis} {target} log", cx.normalize(x, axis=axis, target_sum=target, log1p=True)
    for other in (0.3, rng.random(m), rng.random((n, 1)), rng.random((n, m)).astype(np.float32)):
        yield f"multiply {np.shape(other)}", cx.multiply(x, other)
        yield f"divide {np.shape(other)}", cx.divide(x, other)
    yield "over", cx.divide(1.5, x)
    yield "dense", cx.to_dense(x)
    if kind != "c":  # NumPy's there
        yield "log1p", cx.log1p(x)


def all_bits(x):
    return {what: bits(result) for what, result in results(x)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [what for what in found if found[what] != expected[what]] == []


@pytest.fixture
def parallel(monkeypatch):
    """Threads for matrices of any size; asserts that they were used."""
    used = []
    call_helpers = _blocks._call_helpers
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 10)
    monkeypatch.setattr(_blocks, "_call_helpers", lambda *args: used.append(1) or call_helpers(*args))
    return used


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_helper_that_fails_keeps_nothing(error):
    """Not what it worked on, though its exception refers to that, and the frame that waits for it to the exception."""
    main = threading.current_thread()
    gc.disable()
    try:
        for _ in range(20):
            values = np.ones(10)
            gone = weakref.ref(values)

            failed = threading.Event()

            def task(block, values=values, failed=failed):
                if threading.current_thread() is not main:
                    failed.set()
                    raise error
                failed.wait(60)  # so that no block but the first is done before a helper is awake

            with pytest.raises(error):
                list(_blocks._run_in_threads(task, [(block,) for block in range(8)], 3))
            del task, values
            assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("cls", CLASSES[:2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(engine, parallel, cls, dtype):
    # 90 columns: 50 values for each, so that sums over rows are merged from several blocks.
    x = cls(matrix(400, 90, dtype=dtype))
    with cx.config(threads=1):
        expected = all_bits(x)
    assert not parallel
    for threads in (2, 3, 8):
        del parallel[:]
        with cx.config(threads=threads):
            assert_same(all_bits(x), expected)
        assert len(parallel) > 5


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_any_number_of_threads_beyond_the_size_where_they_are_used(engine, dtype):
    rng = np.random.default_rng(0)
    n, m, each = 32_000, 400, 130
    nnz = n * each
    assert nnz > _blocks.PARALLEL_FROM
    data = (rng.choice([-1, 1], nnz) * np.exp(rng.uniform(-10, 20, nnz))).astype(dtype)
    starts = rng.integers(0, m - 3 * each, (n, 1))
    indices = (starts + np.arange(0, 3 * each, 3)).ravel().astype(np.int32)
    x = sp.csr_array((data, indices, np.arange(0, nnz + 1, each)), shape=(n, m))

    def found():
        yield from (cx.mean_var(x, axis=0), cx.mean_var(x, axis=1), cx.sum(x), cx.sum(x, axis=0), cx.sum(x, axis=1))
        yield from (cx.normalize(x, target_sum=1e4, log1p=True), cx.axis_scale(x, np.linspace(1, 2, m), axis=1))

    with cx.config(threads=1):
        expected = [bits(result) for result in found()]
    for threads in (2, 3, 8):
        with cx.config(threads=threads):
            assert [bits(result) for result in found()] == expected


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_engines(cls, dtype):
    found = {}
    x = cls(matrix(400, 90, dtype=dtype))
    for name in ("cython", "numba"):
        engine_or_skip(name)
        with cx.config(engine=name):
            found[name] = all_bits(x)
    assert_same(found["numba"], found["cython"])


@pytest.mark.parametrize("cls", CLASSES[:2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_form_of_the_buffers(engine, cls, dtype):
    x = cls(matrix(60, 40, dtype=dtype))
    expected = all_bits(x)
    for buffer in BUFFERS:
        y = cls((x.data, x.indices, x.indptr), shape=x.shape)
        y.data = in_buffer(x.data, buffer, 1)
        if buffer != "byte-swapped":  # those come out as int64
            y.indices = in_buffer(x.indices, buffer, 12_345)
        assert_same(all_bits(y), expected)


def test_cpu_levels():
    """In processes of their own: the level is chosen at import."""
    highest = engine_or_skip("cython").cpu
    if not highest.startswith("x86-64-v"):
        pytest.skip(f"one build only: {highest}")
    levels = range(2, int(highest[-1]) + 1)
    if not all(find_spec(f"csraxis.kernels_cy._kernels_v{level}") for level in levels):
        pytest.skip("CSRAXIS_LEVELS left levels out")
    found = {}
    for level in levels:
        environment = os.environ | {"CSRAXIS_CPU": f"x86-64-v{level}", "CSRAXIS_ENGINE": "cython"}
        process = subprocess.run(
            [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=120
        )
        assert process.returncode == 0, process.stderr
        cpu, *digests = process.stdout.splitlines()
        assert cpu == f"x86-64-v{level}"
        found[cpu] = digests
    expected = digests_of_all_types()
    assert len(expected) > 200
    for digests in found.values():
        assert digests == expected


def digests_of_all_types():
    """One line for each result; without complex numbers and dense arrays, which are NumPy's."""
    return [
        f"{dtype} {what} {hashlib.sha256(repr(bits(result)).encode()).hexdigest()}"
        for dtype in DTYPES
        if dtype != "complex64"
        for what, result in results(matrix(400, 90, dtype=dtype))
    ]


# ---- normalize(log1p=True) is the two steps


@pytest.mark.parametrize("target_sum", [None, 1e4, 7])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "int64"])
@pytest.mark.parametrize("cls", [*CLASSES, sp.csr_array.toarray])
def test_fused_with_the_logarithm(engine, cls, dtype, axis, target_sum):
    x = cls(abs(matrix(60, 40, dtype=dtype)))
    fused = cx.normalize(x, axis=axis, target_sum=target_sum, log1p=True)
    assert bits(fused) == bits(cx.log1p(cx.normalize(x, axis=axis, target_sum=target_sum)))
    if x.dtype.kind == "f":
        copy = x.copy()
        cx.normalize(copy, axis=axis, target_sum=target_sum, log1p=True, out=copy)
        assert bits(copy) == bits(fused)


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cls", CLASSES)
def test_fused_with_the_logarithm_on_rows_that_are_not_in_order(engine, cls, axis, duplicates):
    x = cls(abs(matrix(60, 40)))
    for start, stop in zip(x.indptr[:-1], x.indptr[1:]):
        x.indices[start:stop] = x.indices[start:stop][::-1]
        if duplicates and stop - start > 3:
            x.indices[start] = x.indices[start + 2]
    x = cls((x.data, x.indices, x.indptr), shape=x.shape)  # forgets what SciPy had cached
    assert not x.has_canonical_format
    for target_sum in (None, 1e4):
        fused = cx.normalize(x, axis=axis, target_sum=target_sum, log1p=True)
        steps = cx.log1p(cx.normalize(x, axis=axis, target_sum=target_sum))
        steps.sum_duplicates()
        assert bits(fused.data) == bits(steps.data)


if __name__ == "__main__":
    print(cx.get_config()["cpu"], *digests_of_all_types(), sep="\n")
