"""What a call costs when there is nothing to do: ``python -m bench overhead``.

Each public function on a small matrix, beside its kernels alone (with the arguments it calls them with) and SciPy's own
method. Times are of loops of many calls, interleaved.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bench import report, verify

Call = Callable[[], Any]


@dataclass(frozen=True)
class Function:
    """One row: two ways to the same result."""

    name: str
    public: Call
    scipy: Call | None = None


class _Recorder:
    """An engine that notes which kernels are called, with which arguments."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.calls: list[tuple[Callable[..., Any], tuple]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.engine, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self.calls.append((found, arguments))
            return found(*arguments)

        return call


def kernels_of(public: Call) -> Call:
    """The kernels that a function calls, alone, with the arguments it calls them with."""
    from csraxis.dispatch import _config, _engines

    name = _config.engine_name()
    recorder = _Recorder(_engines.load(name))
    _engines._loaded[name] = recorder  # type: ignore[assignment]
    try:
        public()
    finally:
        _engines._loaded[name] = recorder.engine
    if not recorder.calls:
        raise RuntimeError("no kernel was called")
    if len(recorder.calls) == 1:
        ((kernel, arguments),) = recorder.calls
        return lambda: kernel(*arguments)

    def all_of_them() -> None:
        for kernel, arguments in recorder.calls:
            kernel(*arguments)

    return all_of_them


def matrix(size: int) -> sparse.csr_array:
    """Small counts, a tenth of them stored."""
    x = sparse.random_array((size, size), density=0.1, format="csr", dtype=np.float32, rng=np.random.default_rng(0))
    x.data = np.rint(8 * x.data + 1).astype(np.float32)
    x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
    return x


def functions(x: sparse.csr_array) -> list[Function]:
    """The table. What works in place multiplies by one: it can be called as often as one likes."""
    import csraxis as cx

    own, factors = x.copy(), np.ones(len(x.indptr) - 1, np.float32)
    by_row, by_column = factors[:, None], factors[None, :]
    return [
        Function("sum(axis=0)", lambda: cx.sum(x, axis=0), lambda: x.sum(axis=0)),
        Function("sum(axis=1)", lambda: cx.sum(x, axis=1), lambda: x.sum(axis=1)),
        Function("sum()", lambda: cx.sum(x), lambda: x.sum()),
        Function("mean(axis=0)", lambda: cx.mean(x, axis=0), lambda: x.mean(axis=0)),
        Function("mean(axis=1)", lambda: cx.mean(x, axis=1), lambda: x.mean(axis=1)),
        Function("var(axis=0)", lambda: cx.var(x, axis=0)),
        Function("var(axis=1)", lambda: cx.var(x, axis=1)),
        Function("mean_var(axis=0)", lambda: cx.mean_var(x, axis=0)),
        Function("mean_var(axis=1)", lambda: cx.mean_var(x, axis=1)),
        Function("max(axis=0)", lambda: cx.max(x, axis=0), lambda: x.max(axis=0)),
        Function("max(axis=1)", lambda: cx.max(x, axis=1), lambda: x.max(axis=1)),
        Function("count_nonzero(axis=1)", lambda: cx.count_nonzero(x, axis=1), lambda: x.count_nonzero(axis=1)),
        Function("axis_scale(axis=0)", lambda: cx.axis_scale(x, factors, axis=0), lambda: x.multiply(by_row)),
        Function("axis_scale(axis=1)", lambda: cx.axis_scale(x, factors, axis=1), lambda: x.multiply(by_column)),
        Function("axis_scale(axis=0, out=x)", lambda: cx.axis_scale(own, factors, axis=0, out=own)),
        Function("normalize()", lambda: cx.normalize(x, target_sum=1e4)),
        Function("normalize(log1p=True)", lambda: cx.normalize(x, target_sum=1e4, log1p=True)),
        Function("log1p()", lambda: cx.log1p(x), lambda: x.log1p()),
        Function("expm1()", lambda: cx.expm1(x), lambda: x.expm1()),
    ]


def _wrong(function: Function) -> str | None:
    """How the public function's result differs from SciPy's."""
    if function.scipy is None:
        return None
    ours, theirs = (r.toarray() if sparse.issparse(r) else np.asarray(r) for r in (function.public(), function.scipy()))
    return verify.disagreement(ours.ravel(), theirs.ravel().astype(np.float64))


def _microseconds(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return 1e6 * (time.perf_counter() - start) / calls


def measure(size: int, calls: int, rounds: int) -> list[dict[str, Any]]:
    """A record for each function: medians of microseconds a call, and what follows from them."""
    table = functions(matrix(size))
    ways = {f.name: {"public": f.public, "kernel": kernels_of(f.public), "scipy": f.scipy} for f in table}
    times: dict[tuple[str, str], list[float]] = {}
    failures = {function.name: _wrong(function) for function in table}
    for _ in range(rounds):
        for function in table:
            for way, call in ways[function.name].items():
                if call is not None:
                    times.setdefault((function.name, way), []).append(_microseconds(call, calls))
    records = []
    for function in table:
        public, kernel, scipy = (
            float(np.median(times[function.name, way])) if (function.name, way) in times else None
            for way in ("public", "kernel", "scipy")
        )
        record = {"function": function.name, "status": "ok", "reason": failures[function.name]}
        record |= {"public": public, "kernel": kernel, "scipy": scipy}
        record |= {"over_kernel": public - kernel, "ratio_to_scipy": None if scipy is None else public / scipy}
        if record["reason"]:
            record |= {"status": "FAIL", **dict.fromkeys(("public", "kernel", "over_kernel", "ratio_to_scipy"))}
        records.append(record)
    return records


def section(size: int = 100, calls: int = 300, rounds: int = 11) -> dict[str, Any]:
    """The measurement as part of a document."""
    return {"size": size, "calls": calls, "rounds": rounds, "records": measure(size, calls, rounds)}


def lines(found: dict[str, Any]) -> list[list[str]]:
    """The table: heading and rows."""

    def number(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    table = [["function", "µs a call", "bare kernel", "above it", "SciPy", "csraxis / SciPy"]]
    for r in found["records"]:
        first = "FAIL" if r["status"] == "FAIL" else number(r["public"])
        values = [number(r[key]) for key in ("kernel", "over_kernel", "scipy")]
        table.append([r["function"], first, *values, report.ratio(r["ratio_to_scipy"])])
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a result is wrong."""
    from bench.terminal import add_outputs, finish

    p = argparse.ArgumentParser(prog="python -m bench overhead", description="Microseconds of a call on little data.")
    p.add_argument("--size", type=int, default=100, help="rows and columns (default: %(default)s)")
    p.add_argument("--calls", type=int, default=300, help="in one loop (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=11, help="interleaved loops (default: %(default)s)")
    add_outputs(p)
    options = p.parse_args(arguments)
    found = section(options.size, options.calls, options.rounds)
    status = finish("overhead", found, lines(found), options, f"{options.size} x {options.size} csr_array, float32")
    return status or int(any(r["status"] == "FAIL" for r in found["records"]))
