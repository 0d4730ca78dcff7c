"""An array namespace: csraxis's functions, over NumPy's for all the rest.

The array API test suite makes ndarrays. Here the 2-D ones among the arguments of a csraxis function are turned into the
form that CSRAXIS_FORM names, and what comes back into an ndarray. Every bit of the input arrives: a +0 is not stored,
a -0 is.
"""

import os
from collections import Counter
from functools import wraps
from typing import Any

import array_api_compat.numpy
import numpy as np
import scipy.sparse as sp

import csraxis as cx

__array_api_version__ = "2025.12"

REDUCTIONS = ("sum", "prod", "mean", "var", "std", "max", "min", "any", "all", "count_nonzero")
ELEMENTWISE = ("multiply", "divide", "log1p", "expm1", "sqrt", "square", "abs", "negative", "sign")
FORMS = ("dense", "csr_array", "csc_array", "csr_matrix", "messy", "dask")

# How many matrices were made: none would mean that nothing was tested.
made: Counter[str] = Counter()


def to_form(x: np.ndarray, form: str) -> Any:
    """A 2-D array in one of FORMS."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    made[form] += 1
    if form == "dense":
        return x
    if form == "messy":
        return messy(x)
    if form == "dask":
        import dask.array as da

        chunks = [max(1, (n + 1) // 2) for n in x.shape]
        empty = sp.csr_array((0, 0), dtype=x.dtype)
        return da.from_array(x, chunks).map_blocks(stored, sp.csr_array, dtype=x.dtype, meta=empty)
    return stored(x, getattr(sp, form))


def stored(x: np.ndarray, cls: Any) -> Any:
    """A compressed matrix of the elements that are not +0: canonical. (SciPy itself would drop -0.)"""
    major = x.T if issubclass(cls, sp.csc_array) else x
    kept = not_plus_zero(major)
    indptr = np.concatenate(([0], np.cumsum(kept.sum(axis=1))))
    return cls((major[kept], kept.nonzero()[1], indptr), shape=x.shape)


def messy(x: np.ndarray) -> sp.csr_array:
    """A CSR array with columns in decreasing order, each element in two halves, and every third zero stored."""
    kept = not_plus_zero(x)
    zeros = np.zeros_like(kept)
    zeros.flat[np.flatnonzero(~kept)[::3]] = True
    first, second = halves(x[kept])
    rows, columns = np.hstack([np.nonzero(places) for places in (kept, kept, zeros)])
    data = np.concatenate((first, second, x[zeros]))
    order = np.lexsort((-columns, rows))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(x)))))
    return sp.csr_array((data[order], columns[order], indptr), shape=x.shape)


def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that add up to the values, to the bit."""
    if values.dtype.kind == "b":
        return values, values
    if values.dtype.kind in "iu":
        return values // 2, values - values // 2
    if values.dtype.kind == "c":  # as pairs of reals: half of (inf, 0) is not (inf, nan)
        first, second = halves(values.view(values.real.dtype))
        return first.view(values.dtype), second.view(values.dtype)
    half = values / 2
    exact = (half + half == values) | np.isnan(values)  # not so for half of the subnormal numbers
    return np.where(exact, half, values), np.where(exact, half, np.zeros_like(half))


def not_plus_zero(x: np.ndarray) -> np.ndarray:
    """Where any bit is set."""
    return np.ascontiguousarray(x)[..., None].view(np.uint8).any(axis=-1)


def to_ndarray(result: Any) -> np.ndarray:
    """What a csraxis function returned, as an ndarray (a NumPy scalar as a 0-d one)."""
    if hasattr(result, "compute"):
        meta = np.empty((0,) * result.ndim, result.dtype)
        return np.asarray(result.map_blocks(to_ndarray, dtype=result.dtype, meta=meta).compute(scheduler="sync"))
    if not sp.issparse(result):
        return np.asarray(result)
    # Not toarray(): it adds to +0, where a stored -0 is lost.
    dense = np.zeros(result.shape, result.dtype)
    coo = result.tocoo()
    dense[coo.row, coo.col] = complex(-0.0, -0.0) if dense.dtype.kind == "c" else -0.0
    np.add.at(dense, (coo.row, coo.col), coo.data)
    return dense


def on_form(name: str, form: str) -> Any:
    """The csraxis function of that name, from ndarrays to an ndarray."""
    function = getattr(cx, name)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> np.ndarray:
        # The suite tests special values in 0-d arrays (or NumPy scalars). Here they are the one element of a matrix.
        single = name in ELEMENTWISE and all(np.ndim(x) == 0 for x in args)
        if single:
            args = tuple(x.reshape(1, 1) if isinstance(x, np.ndarray | np.generic) else x for x in args)
        # A sparse operand must have the shape of the result: of two that both stretch, none can be sparse.
        shape = np.broadcast_shapes(*map(np.shape, args))
        if len(shape) == 2 and any(np.shape(x) == shape for x in args):
            args = tuple(to_form(x, form) if np.ndim(x) == 2 else x for x in args)
        result = to_ndarray(function(*args, **kwargs))
        return result.reshape(()) if single else result

    return call


def __getattr__(name: str) -> Any:
    """csraxis's function of that name, on the form; NumPy's, if it has none or there is no form."""
    # Not names of the module itself: they would hide the builtins from it.
    form = os.environ.get("CSRAXIS_FORM")
    if form and name in REDUCTIONS + ELEMENTWISE:
        return on_form(name, form)
    return getattr(array_api_compat.numpy, name)
