"""Malformed matrices and arguments: an error that says which array, or the documented answer; never a crash.

The cases, and what counts as which, are in malformed.py, which runs each in a process of its own.
"""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
import malformed
from conftest import AGAIN

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is run in a fork")


def run(engine, group):
    """What malformed.py found, in a process that has no threads of other tests when it forks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CSRAXIS_")}
    process = subprocess.run(
        [sys.executable, malformed.__file__, engine, group, "--json"],
        # Threads of NumPy's linear algebra would not survive the forks.
        env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    print(process.stderr)  # what a sanitizer says of a crash
    assert process.returncode == 0
    return json.loads(process.stdout)


@pytest.mark.skipif(AGAIN, reason="long; it ran before")
@pytest.mark.parametrize("group", [group for group in malformed.GROUPS if group != "dask"])
def test_every_function_with_every_malformed_input(engine, group):
    rows = run(engine, group)
    failures = malformed.failures(rows)
    assert not failures, "\n".join([malformed.table(rows), *failures[:50]])
    outcomes = {outcome for _, _, outcome, _ in rows}
    assert outcomes == ({"error"} if group == "coo" else {"error", "answer"})


@pytest.mark.skipif(AGAIN, reason="long; it ran before")
def test_every_function_with_malformed_chunks():
    pytest.importorskip("dask")
    # Chunks go through the same kernels: one engine is enough.
    rows = run(cx.get_config()["engine"], "dask")
    failures = malformed.failures(rows)
    assert not failures, "\n".join([malformed.table(rows), *failures[:50]])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child calls nothing that takes a lock
def test_what_is_found():
    """The detectors themselves: a crash, a wrong answer, a changed byte and an unclear error are seen as such."""

    def trial(call, error="array", check=None):
        memory = malformed.Memory()
        vector = memory.vector(np.arange(3.0))
        return malformed.Trial("", "", lambda: malformed.Prepared(lambda: call(vector), memory, error, check))

    def raises(error):
        raise error

    def writes_behind(vector):
        vector.base[malformed.BAND + 3] = 0
        raise ValueError("array")

    def is_two(result):
        return result == 2

    for expected, found in {
        "error": trial(lambda vector: raises(ValueError("the array"))),
        "unclear": trial(lambda vector: raises(IndexError("the array"))),
        "unclear ": trial(lambda vector: raises(ValueError("no"))),
        "unclear  ": trial(lambda vector: raises(ValueError("the array")), error=None, check=is_two),
        "silent": trial(lambda vector: 2),
        "silent ": trial(lambda vector: 1, check=is_two),
        "answer": trial(lambda vector: 2, check=is_two),
        "changed": trial(writes_behind),
    }.items():
        assert malformed.attempt(found)[0] == expected.strip()
    crash = trial(lambda vector: os.kill(os.getpid(), signal.SIGKILL))
    done, how = malformed._in_child([trial(lambda vector: 2), crash, crash])
    assert (len(done), how) == (1, "exit status -9")


@pytest.mark.parametrize("op", ["multiply", "divide"])
def test_a_pair_whose_indices_differ_by_two_to_the_32(engine, op):
    """Indices of 32 and of 64 bits, beyond what fits into the narrower type."""

    def vector(*indices, dtype):
        x = sp.csr_array((1, 2**33))
        x.data, x.indices, x.indptr = np.ones(len(indices)), np.array(indices, dtype), np.array([0, len(indices)])
        return x

    narrow, wide = vector(5, 7, dtype="i4"), vector(7, 2**32 + 5, dtype="i8")
    for pair in ((narrow, wide), (wide, narrow)):
        result = getattr(cx, op)(*pair)
        finite = np.isfinite(result.data)
        assert result.indices[finite].tolist() == [7]
        assert result.data[finite].tolist() == [1]
