"""Verifying and timing: no time without a right result, and every time in rounds that all contestants share."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from bench import exact
from bench.cases import Case, Matrix
from bench.contestants import Contestant, settings
from bench.memory import Peak

MEMORY_PASS = "np.multiply(data, 1, out=data) over the stored values: each is read and written once, one thread"

MIN_ROUNDS = 3
"""However long they take."""

AT_ONCE = 200_000_000
"""Stored values up to which the right result is held as a whole."""

Tick = Callable[[str], None]


@dataclass
class Entry:
    """One contestant in one case."""

    contestant: Contestant
    failure: str | None = None
    """Why its result is wrong; then there are no times."""
    seconds: list[float] = field(default_factory=list)
    extra_bytes: int | None = None
    """The most that the process held during a call, above what it held before."""
    accuracy: dict[str, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """One case on one matrix."""

    case: Case
    moves: int
    """Bytes that a perfect kernel reads and writes."""
    value_bytes: int
    """Of the stored values: the memory pass reads and writes each once."""
    matrix_bytes: int
    """Of the whole matrix."""
    entries: list[Entry]
    memory_pass: list[float]


class _Work:
    """The matrix that contestants get, made right again where they may have changed it."""

    def __init__(self, case: Case, counts: sparse.csr_matrix, dtype: type | None) -> None:
        self.case = case
        self.x: Matrix = case.prepare(counts)
        self.buffer = self.x.data.astype(dtype or self.x.dtype)
        self.given = self._matrix()
        self.extra = case.extra(self.given)

    def _matrix(self) -> Matrix:
        return type(self.x)((self.buffer, self.x.indices, self.x.indptr), shape=self.x.shape)

    def restore(self) -> None:
        np.copyto(self.buffer, self.x.data)

    def arguments(self, contestant: Contestant) -> tuple:
        """What a contestant is called with: a new matrix object each time, so no call profits from cached flags."""
        if self.case.in_place:
            self.restore()
        x = self.case.wrap(self._matrix())
        convert = contestant.converts.get(self.case.name)
        return x if convert is None else convert(x), *self.extra

    def changed(self) -> bool:
        return not np.array_equal(self.buffer, self.x.data)

    def right(self) -> Any:
        """The right result; None where it is large and can be had for some rows at a time."""
        if self.case.by_rows and self.x.nnz > AT_ONCE:
            return None
        return self.case.reference(self.x, *self.extra)

    def wrong(self, result: Any, expected: Any) -> str | None:
        """How a result differs from the right one."""
        if expected is not None:
            return self.case.wrong(result, expected)
        if result.shape != self.x.shape or not np.array_equal(result.indptr, self.x.indptr):
            return "result has another structure"
        reasons = (
            self.case.wrong(_rows(result, *block), self.case.reference(_rows(self.x, *block), *self.extra))
            for block in exact.row_blocks(self.x)
        )
        return next((reason for reason in reasons if reason), None)


def _rows(x: sparse.csr_matrix, start: int, stop: int, lo: int, hi: int) -> sparse.csr_matrix:
    parts = (x.data[lo:hi], x.indices[lo:hi], x.indptr[start : stop + 1] - lo)
    return sparse.csr_matrix(parts, shape=(stop - start, x.shape[1]))


def _verify(entry: Entry, work: _Work, expected: Any, threads: int | None) -> None:
    """Call it once, which also compiles it, and note what is wrong."""
    case = work.case
    try:
        with settings(entry.contestant, threads):
            result = entry.contestant.runs[case.name](*work.arguments(entry.contestant))
        entry.failure = work.wrong(result, expected)
        if entry.failure is None:
            entry.accuracy = case.accuracy(result, expected)
    except Exception as error:  # whatever a contestant raises is its result
        entry.failure = f"{type(error).__name__}: {error}"
    if not case.in_place and work.changed():
        entry.failure = entry.failure or "its input was changed"
        work.restore()


def _measure_memory(entry: Entry, work: _Work, threads: int | None) -> None:
    """Call it once more, untimed."""
    with settings(entry.contestant, threads):
        arguments = work.arguments(entry.contestant)
        with Peak() as peak:
            result = entry.contestant.runs[work.case.name](*arguments)
        del result
    if peak.start is not None and peak.highest is not None:
        entry.extra_bytes = peak.highest - peak.start


def clock(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    result = function(*arguments)
    stop = time.perf_counter()
    del result  # after the clock: what it frees is not part of the work
    return stop - start


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection but between the calls, where it is cheap."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def run_case(
    case: Case,
    contestants: Sequence[Contestant],
    counts: sparse.csr_matrix,
    *,
    repeats: int,
    threads: int | None = None,
    budget: float | None = None,
    patience: float | None = None,
    dtype: type | None = None,
    tick: Tick = lambda label: None,
) -> Outcome:
    """Verify every contestant that takes part in the case, then time the right ones in interleaved rounds.

    Parameters
    ----------
    contestants
        Those that are installed.
    threads
        For csraxis and for what Numba threads; None leaves each its own default.
    budget
        Seconds after which no further round begins, once there are `MIN_ROUNDS`.
    patience
        Seconds of timed calls after which a contestant sits out the other rounds; no memory is measured of one whose
        call takes ten times as long.
    dtype
        Of the values that contestants get, where the counts are kept in a smaller one to save memory.
    tick
        Called with a label before each call of a contestant: at most `steps` times in all.
    """
    tick("reference")
    work = _Work(case, counts, dtype)
    entries = [Entry(contestant) for contestant in contestants if case.name in contestant.runs]
    expected = work.right()
    moves = case.moves(work.given, expected)
    for entry in entries:
        tick(f"verify {entry.contestant.name}")
        _verify(entry, work, expected, threads)
    del expected
    memory_pass: list[float] = []
    one = work.buffer.dtype.type(1)
    with undisturbed():
        begin = time.perf_counter()
        for done in range(repeats):
            if budget is not None and done >= MIN_ROUNDS and time.perf_counter() - begin > budget:
                break
            work.restore()
            memory_pass.append(clock(np.multiply, work.buffer, one, work.buffer))
            for entry in entries:
                tick(entry.contestant.name)
                if entry.failure is None and (patience is None or sum(entry.seconds) <= patience):
                    with settings(entry.contestant, threads):
                        run = entry.contestant.runs[case.name]
                        entry.seconds.append(clock(run, *work.arguments(entry.contestant)))
                    gc.collect()  # AnnData objects are cycles, and would keep their matrices
        for entry in entries:
            tick(f"memory of {entry.contestant.name}")
            if entry.seconds and (patience is None or max(entry.seconds) <= 10 * patience):
                _measure_memory(entry, work, threads)
    x = work.given
    matrix_bytes = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    return Outcome(case, moves, x.data.nbytes, matrix_bytes, entries, memory_pass)


def steps(case: Case, contestants: Sequence[Contestant], repeats: int) -> int:
    """How often `run_case` ticks, if no budget stops it."""
    return 1 + sum(case.name in contestant.runs for contestant in contestants) * (2 + repeats)
