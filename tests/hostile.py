"""Columns whose variance others get wrong, and its exact value: `python tests/hostile.py` prints relative errors."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

import csraxis as cx


def _normal(mean, spread, n):
    return np.random.default_rng(0).normal(mean, spread, n)


def _column(values, dtype=float):
    return np.array(values, dtype)[:, None]


def _with_duplicates():
    """2 and 5 in one place are 7: the values 1e8 + {0, 1, 2} again, each of two parts."""
    x = sp.csr_array((3, 1), dtype=float)
    x.data, x.indices, x.indptr = np.array([1e8, 0, 1e8 - 5, 6, 7, 1e8 - 5]), np.zeros(6, np.int32), np.arange(0, 7, 2)
    return x


# What float32 accumulators, squares in the type of the values, E[x^2] - E[x]^2 and a bad shift get wrong.
COLUMNS = {
    "float32, 30000.1, .2, .3": _column([30000.1, 30000.2, 30000.3], np.float32),
    "float32, 30000 +- 0.1": _column(_normal(30000, 0.1, 3000), np.float32),
    "1e8 + {0, 1, 2}": _column([1e8, 1e8 + 1, 1e8 + 2]),
    "1e8 + {0, 1, 2}, of duplicates": _with_duplicates(),
    "uint8 200": _column([200] * 300, np.uint8),
    "uint8 200 and 201": _column([200, 201] * 300, np.uint8),
    "int32 1e5": _column([100_000] * 7, np.int32),
    "int64 4e9": _column([4_000_000_000] * 7, np.int64),
    "int64 4e9 and one more": _column([4_000_000_000] * 6 + [4_000_000_001], np.int64),
    "a million times 0.1": _column([0.1] * 1_000_000),
    "1e8 +- 1e-3": _column(1e8 + _normal(0, 1e-3, 3000)),
    "0.1 but for one": _column([0.1] * 999 + [0.1000001]),
    "an outlier first": _column([1e12, *_normal(1, 0.1, 3000)]),
    "an outlier last": _column([*_normal(1, 0.1, 3000), 1e12]),
    "another level after 300 rows": _column([*_normal(1e6, 1e-3, 300), *_normal(0, 1, 70_000)]),
    "zeros between": _column(np.where(np.arange(3000) % 3, 1e7 + _normal(0, 1, 3000), 0)),
    "30 magnitudes": _column(np.exp(_normal(0, 15, 3000))),
    "fractions around a half": _column([0.5, 0.5 + 2.0**-30] * 500),
}


def chunkings(n):
    """Five ways to cut n rows."""
    return {
        "halves": (n // 2, n - n // 2),
        "the first row alone": (1, n - 1),
        "the last row alone": (n - 1, 1),
        "about ten": tuple(len(part) for part in np.array_split(np.arange(n), min(10, n))),
        "with empty ones": (0, n // 3, 0, n - n // 3, 0),
    }


def exact_variance(x):
    """In rational numbers."""
    values = (x if isinstance(x, np.ndarray) else x.toarray()).ravel()
    numbers, times = np.unique(values, return_counts=True)
    pairs = list(zip(map(Fraction, numbers.tolist()), times.tolist()))
    mean = sum(v * n for v, n in pairs) / len(values)
    return sum((v - mean) ** 2 * n for v, n in pairs) / len(values)


def error(got, exact):
    """Relative to the exact variance; of its rounding to float32, what is beyond half a unit."""
    assert got >= 0
    if exact == 0:
        return float(got)
    allowed = Fraction(2.0**-24) if got.dtype == np.float32 else 0
    return max(0.0, float(abs(Fraction(got.item()) / exact - 1) - allowed))


def in_memory(x):
    """The relative errors of a column in each format and class."""
    x = x if isinstance(x, np.ndarray) else x.copy()
    exact = exact_variance(x)
    forms = {cls.__name__: cls(x) for cls in (sp.csr_array, sp.csc_array, sp.csr_matrix, sp.csc_matrix)}
    if isinstance(x, np.ndarray):
        forms["ndarray"] = x
    else:
        forms["csr_array"] = x  # SciPy adds duplicates up when it converts
    found = {name: error(cx.var(form, axis=0)[0], exact) for name, form in forms.items()}
    return found | {"a row": error(cx.var(sp.csr_array(x.T), axis=1)[0], exact), "all": error(cx.var(x), exact)}


def chunked(x):
    """The relative errors of a column on Dask, in each chunking; the worse of csr chunks and, as a row, of csc ones."""
    import dask.array as da

    exact = exact_variance(x)
    x = sp.csr_array(x) if isinstance(x, np.ndarray) else x
    found = {}
    for name, sizes in chunkings(x.shape[0]).items():
        parts = [x[lo:hi] for lo, hi in pairwise(np.cumsum((0, *sizes)))]
        column = da.concatenate([da.from_array(part, part.shape, asarray=False) for part in parts])
        row = da.concatenate([da.from_array(part.T, part.shape[::-1], asarray=False) for part in parts], axis=1)
        results = [cx.var(column, axis=0), cx.var(row, axis=1)]
        found[name] = max(error(result.compute(scheduler="sync")[0], exact) for result in results)
    return found


if __name__ == "__main__":
    print(f"{'column':32} {'in memory':>10}   " + "  ".join(chunkings(10)))
    for name, x in COLUMNS.items():
        errors = [f"{value:.0e}" for value in chunked(x).values()]
        print(f"{name:32} {max(in_memory(x).values()):10.0e}   " + "  ".join(errors))
