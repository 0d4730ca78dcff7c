"""Verifying and timing: no time without a right result, and every time in rounds that all contestants share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from bench.cases import TOLERANCE, Case
from bench.contestants import Contestant, settings

MEMORY_PASS = "np.multiply(data, 1, out=data) over the stored values: read and write once, one thread"

MIN_ROUNDS = 3
"""However long they take."""

Tick = Callable[[str], None]


@dataclass
class Entry:
    """One contestant in one case."""

    contestant: Contestant
    failure: str | None = None
    """Why its result is wrong; then there are no times."""
    seconds: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """One case on one matrix."""

    case: Case
    ideal_bytes: int
    entries: list[Entry]
    memory_pass: list[float]


class _Work:
    """The copy of a matrix that contestants get, made right again where they may have changed it."""

    def __init__(self, case: Case, x: sparse.csr_matrix) -> None:
        self.case, self.x = case, x
        self.extra = case.extra(x)
        self.buffer = x.data.copy()

    def restore(self) -> None:
        np.copyto(self.buffer, self.x.data)

    def arguments(self) -> tuple:
        """What a contestant is called with: a new matrix object each time, so no call profits from cached flags."""
        if self.case.in_place:
            self.restore()
        x = sparse.csr_matrix((self.buffer, self.x.indices, self.x.indptr), shape=self.x.shape)
        return self.case.wrap(x), *self.extra

    def changed(self) -> bool:
        return not np.array_equal(self.buffer, self.x.data)


def _wrong_values(result: np.ndarray, expected: np.ndarray, what: str) -> str | None:
    if result.shape != expected.shape:
        return f"{what} of shape {result.shape} instead of {expected.shape}"
    block = 1 << 22  # keeps the temporaries of the comparison small
    for start in range(0, result.size, block):
        got, right = (np.asarray(v[start : start + block], dtype=np.float64) for v in (result, expected))
        wrong = np.flatnonzero(~(np.abs(got - right) <= TOLERANCE * np.abs(right)))
        if wrong.size:
            k = int(wrong[0])
            return f"{what} [{start + k}] is {got[k]:.9g} instead of {right[k]:.9g}"
    return None


def disagreement(result: Any, expected: Any, what: str = "result") -> str | None:
    """How a result differs from the reference, or None."""
    if isinstance(expected, tuple):
        if not isinstance(result, tuple) or len(result) != len(expected):
            return f"{what} is not a tuple of {len(expected)}"
        reasons = (disagreement(r, e, f"{what} {i}") for i, (r, e) in enumerate(zip(result, expected)))
        return next((reason for reason in reasons if reason), None)
    if not sparse.issparse(expected):
        return _wrong_values(np.asarray(result), expected, what)
    if not sparse.issparse(result):
        return f"{what} is a {type(result).__name__}, not sparse"
    result = result.tocsr()
    if not result.has_sorted_indices:
        result = result.sorted_indices()
    for name in ("indptr", "indices"):
        if not np.array_equal(getattr(result, name), getattr(expected, name)):
            return f"{what} has other {name}"
    return _wrong_values(result.data, expected.data, f"{what} data")


def _verify(entry: Entry, work: _Work, expected: Any, threads: int | None) -> None:
    """Call it once, which also compiles it, and note what is wrong."""
    case = work.case
    try:
        with settings(entry.contestant, threads):
            result = entry.contestant.runs[case.name](*work.arguments())
        entry.failure = disagreement(result, expected)
    except Exception as error:  # whatever a contestant raises is its result
        entry.failure = f"{type(error).__name__}: {error}"
    if not case.in_place and work.changed():
        entry.failure = entry.failure or "its input was changed"
        work.restore()


def _clock(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    result = function(*arguments)
    stop = time.perf_counter()
    del result  # after the clock: what it frees is not part of the work
    return stop - start


def run_case(
    case: Case,
    contestants: Sequence[Contestant],
    x: sparse.csr_matrix,
    *,
    repeats: int,
    threads: int | None = None,
    budget: float | None = None,
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
    tick
        Called with a label before each call of a contestant: at most `steps` times in all.
    """
    work = _Work(case, x)
    entries = [Entry(contestant) for contestant in contestants if case.name in contestant.runs]
    tick("reference")
    expected = case.reference(x, *work.extra)
    for entry in entries:
        tick(f"verify {entry.contestant.name}")
        _verify(entry, work, expected, threads)
    del expected

    memory_pass: list[float] = []
    one = x.data.dtype.type(1)
    gc.collect()
    gc.freeze()  # makes collecting between the calls cheap
    gc.disable()
    begin = time.perf_counter()
    try:
        for done in range(repeats):
            if budget is not None and done >= MIN_ROUNDS and time.perf_counter() - begin > budget:
                break
            work.restore()
            memory_pass.append(_clock(np.multiply, work.buffer, one, work.buffer))
            for entry in entries:
                tick(entry.contestant.name)
                if entry.failure is None:
                    with settings(entry.contestant, threads):
                        entry.seconds.append(_clock(entry.contestant.runs[case.name], *work.arguments()))
                    gc.collect()  # AnnData objects are cycles, and would keep their matrices
    finally:
        gc.enable()
        gc.unfreeze()
    return Outcome(case, case.ideal_bytes(x), entries, memory_pass)


def steps(case: Case, contestants: Sequence[Contestant], repeats: int) -> int:
    """How often `run_case` ticks, if no budget stops it."""
    return 1 + sum(case.name in contestant.runs for contestant in contestants) * (1 + repeats)
