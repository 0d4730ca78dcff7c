"""What an engine is, and which one runs.

An engine is a module with every kernel of `Kernels`. There is no fallback for a single kernel.
"""

import os
import threading
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.generic]
Indices = NDArray[np.signedinteger]
Indptr = NDArray[np.int64]


class Kernels(Protocol):
    """The loops that both engines have, with the same names, parameters and bits.

    `data`, `indices` and `indptr` are the compressed matrix in SciPy's order; `i` runs over the major (compressed) axis
    and a kernel works on the block [start, stop) of it. Values are float32, float64, int32, int64, uint8 or uint16;
    indices int32 or int64; `indptr` int64. Sums of floats and factors for floats are float64, those for integers int64
    (modulo 2**64); integers are never divided. All arrays are contiguous.
    A kernel checks no `indptr`; one that uses an index checks it first (take_minor relies on find_minor). What merges
    or finishes moments takes float64 arrays with a row for each of its four parts.
    """

    cpu: str

    @staticmethod
    def check_indices(indices: Indices, indptr: Indptr, start: int, stop: int, n_minor: int) -> int:
        """Position of the first of indices[indptr[start]:indptr[stop]] that is not in [0, n_minor), or -1"""

    @staticmethod
    def is_canonical(indices: Indices, indptr: Indptr, start: int, stop: int) -> bool:
        """Whether indices[indptr[i]:indptr[i+1]] strictly increase for each i in [start, stop)"""

    @staticmethod
    def sum_major(data: Values, indptr: Indptr, start: int, stop: int, out: Values) -> None:
        """out[i - start] = sum(data[indptr[i]:indptr[i+1]]) for i in [start, stop)"""

    @staticmethod
    def sum_minor(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, out: Values) -> int:
        """out[indices[k]] += data[k] for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""

    @staticmethod
    def fold_major(data: Values, indptr: Indptr, start: int, stop: int, op: int, out: Values) -> None:
        """out[i - start] = op(that, data[k]) for k in row i, i in [start, stop); op: 0 max, 1 min, 2 product"""

    @staticmethod
    def fold_minor(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, op: int, out: Values) -> int:
        """out[indices[k]] = op(that, data[k]), op as in fold_major; k as in sum_minor, returns as there"""

    @staticmethod
    def count_major(data: Values, indptr: Indptr, start: int, stop: int, out: Values) -> None:
        """out[i - start] = count(data[indptr[i]:indptr[i+1]] != 0) for i in [start, stop)"""

    @staticmethod
    def count_minor(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, out: Values) -> int:
        """out[indices[k]] += data[k] != 0 for k in [indptr[start], indptr[stop]); -1, or the position of a bad index"""

    @staticmethod
    def moments_major(data: Values, indptr: Indptr, start: int, stop: int, out: Values) -> None:
        """out[i - start] = (n, sum(v - shift), sum((v - shift)**2), shift), v = row i of data, shift near mean(v)"""

    @staticmethod
    def moments_minor(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, out: Values) -> int:
        """out[j, :3] += (1, d, d**2), d = data[k] - out[j, 3], j = indices[k], k as in sum_minor; returns as there"""

    @staticmethod
    def expm1_moments_minor(
        data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, scale: float, out: Values
    ) -> int:
        """out[j, :3] += (1, d, d**2), d = exp(scale * data[k]) - 1 - out[j, 3], float64, otherwise as moments_minor"""

    @staticmethod
    def power_sums_minor(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, out: Values) -> int:
        """out[j] += (v, v**2), v = data[k], j = indices[k], k as in sum_minor; returns as there"""

    @staticmethod
    def merge_moments(a: Values, b: Values, out: Values) -> None:
        """out[:, i] = (n, sum(v - shift), sum((v - shift)**2), shift), v = values of a[:, i] and of b[:, i]"""

    @staticmethod
    def finish_moments(moments: Values, correction: float, mean: Values, var: Values) -> None:
        """mean[i], var[i] = mean(v), sum((v - mean(v))**2) / (n - correction), v = values of moments[:, i]"""

    @staticmethod
    def scale_major(
        data: Values, indptr: Indptr, start: int, stop: int, factors: Values, divide: bool, out: Values
    ) -> None:
        """out[k] = data[k] * factors[i], or / factors[i], for k in [indptr[i], indptr[i+1]), i in [start, stop)"""

    @staticmethod
    def scale_minor(
        data: Values,
        indices: Indices,
        indptr: Indptr,
        start: int,
        stop: int,
        factors: Values,
        divide: bool,
        out: Values,
    ) -> int:
        """out[k] = data[k] * factors[indices[k]], or / ..., k as in sum_minor; -1, or the position of a bad index"""

    @staticmethod
    def log1p(data: Values, start: int, stop: int, out: Values) -> None:
        """out[k] = log(1 + data[k]) for k in [start, stop)"""

    @staticmethod
    def expm1(data: Values, start: int, stop: int, out: Values) -> None:
        """out[k] = exp(data[k]) - 1 for k in [start, stop)"""

    @staticmethod
    def match_major(
        indices: Indices,
        indptr: Indptr,
        start: int,
        stop: int,
        other_indices: Indices,
        other_indptr: Indptr,
        out: Indptr,
    ) -> None:
        """out[k] = where the same row of the other matrix has indices[k], or -1; both are canonical"""

    @staticmethod
    def gram_major(data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, out: Values) -> int:
        """out[indices[k], indices[m]] += data[k] * data[m] for k <= m in rows [start, stop); returns as sum_minor"""

    @staticmethod
    def gram_panels(
        data: Values,
        indices: Indices,
        indptr: Indptr,
        start: int,
        stop: int,
        place: NDArray[np.int32],
        n_full: int,
        shift: Values,
        ends: NDArray[np.int64],
        rows: NDArray[np.int32],
        values: Values,
        panels: Values,
        sums: Values,
        out: Values,
    ) -> int:
        """sums[q, place[j]] += column j . panel q; out as gram_major for columns of no panel; returns as sum_minor"""

    @staticmethod
    def dot_panels(
        data: Values, indices: Indices, indptr: Indptr, start: int, stop: int, panels: Values, out: Values
    ) -> int:
        """out[q, i - start] = row i . panel q, which has 32 columns, for rows [start, stop); returns as sum_minor"""

    @staticmethod
    def normalize_major(
        data: Values,
        indptr: Indptr,
        start: int,
        stop: int,
        target: float,
        log: bool,
        totals: Values,
        out: Values,
    ) -> None:
        """t = totals[i - start] = sum(row i); out = row * (target / t), or log(1 + that); a row with t = 0 stays"""

    @staticmethod
    def find_minor(
        indices: Indices, indptr: Indptr, start: int, stop: int, keep: Values, found: Values, out: Indptr
    ) -> int:
        """bit k - indptr[start] of found = keep[indices[k]]; out[i - start]: how many before row i; as sum_minor"""

    @staticmethod
    def take_minor(
        data: Values,
        indices: Indices,
        indptr: Indptr,
        start: int,
        stop: int,
        found: Values,
        place: Indices,
        out_data: Values,
        out_indices: Indices,
    ) -> None:
        """out = data[k] at place[indices[k]], for the entries k of rows [start, stop) that find_minor has found"""

    @staticmethod
    def take_major(
        data: Values,
        indices: Indices,
        indptr: Indptr,
        start: int,
        stop: int,
        keep: Values,
        n_minor: int,
        out_data: Values,
        out_indices: Indices,
    ) -> int:
        """the rows i in [start, stop) with keep[i], one after the other, in out_data and out_indices; as sum_minor"""

    @staticmethod
    def top_major(
        data: Values, indptr: Indptr, start: int, stop: int, ns: Indptr, scratch: Values, out: Values
    ) -> None:
        """out[i - start, q] = sum of the ns[q] largest of row i, or of all it has; ns increases; scratch holds a row"""


# For each engine: its module, the modules whose absence means that it is not installed, and how to install it.
ENGINES = {
    "cython": (
        "csraxis.kernels_cy",
        ("csraxis.kernels_cy._cpu", "csraxis.kernels_cy._kernels"),
        "install csraxis from a wheel, or from source with a C compiler",
    ),
    "numba": ("csraxis.kernels_nb", ("numba",), 'pip install "csraxis[numba]" (in a checkout: pip install ".[numba]")'),
}

# Guards the engines loaded and the configuration.
lock = threading.RLock()
_loaded: dict[str, Kernels] = {}
_default: str | None = None


def load(name: str) -> Kernels:
    """The engine of that name; ImportError with the install line if it is absent."""
    if name in _loaded:
        return _loaded[name]
    module, absent, install = ENGINES[name]
    with lock:
        if name not in _loaded:
            try:
                _loaded[name] = import_module(module)  # type: ignore[assignment]
            except ModuleNotFoundError as error:
                if error.name not in absent:
                    raise  # the engine is there, and broken
                raise EngineAbsent(f"csraxis engine {name!r} is not available: {install}") from error
        return _loaded[name]


class EngineAbsent(ImportError):
    """An engine that is not installed, as opposed to one that is broken."""


def default() -> str:
    """The engine that runs when none was configured: CSRAXIS_ENGINE, or the first that is installed.

    Found out at the first call that gives an answer.
    """
    global _default
    if _default is None:
        wanted = os.environ.get("CSRAXIS_ENGINE")
        if wanted:
            _default = check_name(wanted, "CSRAXIS_ENGINE")
            return _default
        for name in ENGINES:
            try:
                load(name)
            except EngineAbsent:
                continue
            _default = name
            return name
        raise EngineAbsent(
            "csraxis has no engine: "
            + "; or ".join(f"for {name!r}, {install}" for name, (_, _, install) in ENGINES.items())
        )
    return _default


def check_name(name: str, source: str) -> str:
    """The name, if it is an engine's."""
    if name not in ENGINES:
        raise ValueError(f"{source} must be one of {', '.join(map(repr, ENGINES))}, got {name!r}")
    return name
