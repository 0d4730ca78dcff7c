"""Every function on every container, dtype and form of its arguments: the oracle's result, or an error from a list.

`test_table.py` asserts that no cell fails; `python tests/table.py --markdown FILE` writes down what came out.
"""

import argparse
import functools
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import csraxis as cx
import reference
from checks import eps, unchanged
from strategies import COMPLEX, FLOATS, INTEGERS

try:
    import dask

    from dask_calls import da, put_together
except ImportError:
    dask = None
try:
    import h5py
    from anndata.io import sparse_dataset, write_elem
except ImportError:
    h5py = None

DTYPES = ("bool", *INTEGERS, *FLOATS, *COMPLEX)
# For the containers whose cells take milliseconds.
FEW_DTYPES = ("bool", "int32", "float32", "float64", "complex128")


# ---- matrices


def _matrices() -> dict[str, np.ndarray]:
    """By name; in float64, to be cast. Their sums are exact in every type."""
    plain = np.random.default_rng(1).integers(1, 5, (7, 5)) * (np.arange(35.0).reshape(7, 5) % 3 < 2)
    plain = plain.astype(float)
    plain[3] = plain[:, 2] = 0
    plain[:, 1] = [1, 2, 1, 4, 1, 2, 1]
    special = plain.copy()
    special[0, 0], special[1, 1], special[2, 3], special[4, 4], special[5, 0] = np.nan, np.inf, -np.inf, -0.0, -1
    shapes = {f"{n} x {m}": np.zeros((n, m)) for n, m in ((0, 5), (7, 0), (0, 0))}
    return {"7 x 5": plain, "NaN, inf, -0": special, **shapes}


MATRICES = _matrices()


def of_type(matrix: str, dtype: str) -> np.ndarray:
    """The matrix in a type; where that has a sign or an imaginary part, the elements have them."""
    values = MATRICES[matrix]
    signs = np.where(np.arange(values.size).reshape(values.shape) % 4 == 1, -1, 1)
    if np.dtype(dtype).kind in "ifc" and matrix == "7 x 5":
        values = np.where(values == 0, 0, values * signs)
    return (values * (1 + 2j) if np.dtype(dtype).kind == "c" else values).astype(dtype)


# ---- containers


class Container(NamedTuple):
    """Something to put a matrix in."""

    make: Callable[[np.ndarray], Any]
    structure: Callable[[np.ndarray], Any]
    """What the oracle takes: the same elements and entries in an ndarray, csr or csc."""
    kind: str = "memory"


def messy(dense: np.ndarray) -> sp.csr_array:
    """Entries in reverse order, even values as two of their half, and some zeros stored."""
    half = (dense / 2).astype(dense.dtype)
    twice = (half + half == dense) & (half != 0) & (half == np.rint(half))
    rows, columns, values = [], [], []
    for (i, j), value in np.ndenumerate(dense):
        entries = [half[i, j]] * 2 if twice[i, j] else [value] if value != 0 or (i + j) % 5 == 0 else []
        rows += [i] * len(entries)
        columns += [j] * len(entries)
        values += entries
    order = np.lexsort((-np.array(columns, int), rows))
    x = sp.csr_array(dense.shape, dtype=dense.dtype)
    x.data, x.indices = np.array(values, dense.dtype)[order], np.array(columns, np.int32)[order]
    x.indptr = np.concatenate(([0], np.cumsum(np.bincount(np.array(rows, int), minlength=len(dense))))).astype(np.int32)
    return x


def wide_indices(dense: np.ndarray) -> sp.csr_array:
    x = sp.csr_array(dense)
    x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    return x


def read_only(dense: np.ndarray) -> sp.csr_array:
    x = sp.csr_array(dense)
    for part in (x.data, x.indices, x.indptr):
        part.flags.writeable = False
    return x


def masked(dense: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(dense, dense == 1)


def lazy(dense: np.ndarray, chunk: Callable[[np.ndarray], Any]) -> Any:
    chunks = tuple((n,) if n < 2 else (n // 2, n - n // 2) for n in dense.shape)
    return da.from_array(dense, chunks=chunks).map_blocks(chunk, meta=chunk(np.empty((0, 0), dense.dtype)))


def on_disk(dense: np.ndarray) -> Any:
    """In an HDF5 file in memory."""
    file = h5py.File(io.BytesIO(), "w")
    write_elem(file, "x", sp.csr_array(dense))
    return sparse_dataset(file["x"])


CONTAINERS = {
    "ndarray": Container(np.array, np.array),
    **{cls.__name__: Container(cls, cls) for cls in (sp.csr_array, sp.csr_matrix, sp.csc_array, sp.csc_matrix)},
    "csr, messy": Container(messy, messy),
    "csr, int64 indices": Container(wide_indices, sp.csr_array),
    "csr, read-only": Container(read_only, sp.csr_array),
    "coo_array": Container(sp.coo_array, sp.csr_array, "converted"),
    "lil_matrix": Container(sp.lil_matrix, sp.csr_matrix, "converted"),
    "masked array": Container(masked, np.array, "masked"),
}
if dask:
    for chunk in (np.asarray, sp.csr_array, sp.csr_matrix, sp.csc_array):
        name = "ndarray" if chunk is np.asarray else chunk.__name__
        CONTAINERS[f"Dask of {name}"] = Container(functools.partial(lazy, chunk=chunk), chunk, "Dask")
if h5py:
    CONTAINERS["CSRDataset"] = Container(on_disk, sp.csr_array, "on disk")
SLOW = ("Dask", "on disk")


# ---- calls


class Expected(NamedTuple):
    """What the oracle says of one result."""

    cls: type
    dtype: np.dtype
    values: np.ndarray


class Call(NamedTuple):
    """A function with its arguments."""

    name: str
    arguments: str
    run: Callable[[Any], Any]
    oracle: Callable[[Any], list[Expected]]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


def _expected(cls: type, dtype: np.dtype, values: Any) -> Expected:
    """Of exact values: integers modulo the width of the type, floats in double precision."""
    values, dtype = np.asarray(values), np.dtype(dtype)
    if dtype.kind in "iu":
        bits = 8 * dtype.itemsize
        wrapped = [int(value) % (1 << bits) for value in values.ravel()]
        return Expected(cls, dtype, np.array(wrapped, f"u{dtype.itemsize}").view(dtype).reshape(values.shape))
    kind = {"b": bool, "f": float, "c": complex}[dtype.kind]
    return Expected(cls, dtype, np.array([kind(value) for value in values.ravel()], kind).reshape(values.shape))


def _call(name: str, oracle: Callable[[Any], list[Expected]], **options: Any) -> Call:
    written = ", ".join(["x"] + [f"{key}={'x' if key == 'out' else _write(value)}" for key, value in options.items()])

    def run(x: Any) -> Any:
        return getattr(cx, name)(x, **(options | {"out": x} if "out" in options else options))

    return Call(name, written, run, oracle, options)


def _write(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


def _reductions() -> list[Call]:
    axes = [{"axis": axis} for axis in (0, 1, None, -1, -2, (0,), (0, 1), ())]
    forms = [{"axis": 2}, *axes, *({**axis, "keepdims": True} for axis in axes[:3])]
    casts = [{"axis": axis, "dtype": dtype} for axis in (0, None) for dtype in (np.float32, np.int64, np.complex128)]
    corrections = [{"axis": 0, "correction": c} for c in (1, 0.5, 7, 8)] + [{"axis": None, "correction": 1}]

    def oracle(x: Any, name: str, axis: Any, dtype: Any = None, **options: Any) -> list[Expected]:
        if name == "mean_var":
            mean = oracle(x, "mean", axis, keepdims=options.get("keepdims", False))
            return mean + oracle(x, "var", axis, **options)
        if dtype is not None:
            x = reference.dense(x).astype(dtype)
        result = dtype or reference.result_dtype(name, x.dtype)
        return [_expected(np.ndarray, result, getattr(reference, name)(x, axis, **options))]

    return [
        _call(name, functools.partial(oracle, name=name, **form), **form)
        for name in ("sum", "prod", "mean", "var", "std", "mean_var", "max", "min", "any", "all", "count_nonzero")
        for form in forms[1:]
        + forms[:1]
        + (casts if name in ("sum", "prod", "mean") else corrections if name in ("var", "std", "mean_var") else [])
    ]


def _unary() -> list[Call]:
    def oracle(x: Any, name: str) -> list[Expected]:
        return [_expected(type(x), reference.result_dtype(name, x.dtype), reference.unary(name, x))]

    return [
        _call(name, functools.partial(oracle, name=name), **form)
        for name in ("log1p", "expm1", "sqrt", "square", "abs", "negative", "sign")
        for form in ({}, {"out": True})
    ]


# What is multiplied with a matrix of shape (n, m), and how it is written.
OPERANDS: dict[str, Callable[[int, int], Any]] = {
    "2": lambda n, m: 2,
    "0.5": lambda n, m: 0.5,
    "True": lambda n, m: True,
    "0": lambda n, m: 0,
    "1j": lambda n, m: 1j,
    "float32(2)": lambda n, m: np.float32(2),
    "float64(2)": lambda n, m: np.float64(2),
    "int8(2)": lambda n, m: np.int8(2),
    "0-d": lambda n, m: np.array(3.0),
    "(m,)": lambda n, m: np.arange(m),
    "(1, m)": lambda n, m: np.arange(m, dtype=np.float32)[None],
    "(n, 1)": lambda n, m: np.arange(1.0, n + 1)[:, None],
    "(n, m)": lambda n, m: np.arange(1.0 * n * m).reshape(n, m),
    "(n, m) complex": lambda n, m: np.arange(1.0 * n * m).reshape(n, m) + 1j,
    "csr": lambda n, m: sp.csr_array(np.arange(1.0 * n * m).reshape(n, m) % 3),
    "csc int": lambda n, m: sp.csc_matrix(np.arange(n * m).reshape(n, m) % 4),
    "(n + 2, m + 2)": lambda n, m: np.ones((n + 2, m + 2)),
}


def _binary() -> list[Call]:
    def pair(x: Any, operand: str, swapped: bool) -> tuple[Any, Any]:
        other = OPERANDS[operand](*x.shape)
        return (other, x) if swapped else (x, other)

    def oracle(x: Any, name: str, **of: Any) -> list[Expected]:
        x1, x2 = pair(x, **of)
        values = reference.binary(name, x1, x2)
        sparse = [type(x) for x in ((x1, x2) if name == "multiply" else (x1,)) if sp.issparse(x)]
        return [_expected([*sparse, np.ndarray][0], values.dtype, values)]

    calls = []
    for name, operand, swapped in itertools.product(("multiply", "divide"), OPERANDS, (False, True)):
        of = {"operand": operand, "swapped": swapped}
        calls.append(
            Call(
                name,
                f"{operand}, x" if swapped else f"x, {operand}",
                lambda x, name=name, of=of: getattr(cx, name)(*pair(x, **of)),
                functools.partial(oracle, name=name, **of),
                of,
            )
        )
    return calls


# Factors for an axis of length n.
FACTORS: dict[str, Callable[[int], np.ndarray]] = {
    "factors": lambda n: np.arange(n) / 4,
    "int factors": lambda n: np.arange(n),
    "complex factors": lambda n: np.arange(n) + 1j,
    "n + 1 factors": lambda n: np.ones(n + 1),
}


def _axis_scale() -> list[Call]:
    forms: list[dict[str, Any]] = [{"axis": axis} for axis in (0, 1, -1, -2, 2)]
    forms += [{"axis": axis, "out": True} for axis in (0, 1)]
    forms += [{"axis": axis, "op": "divide", **more} for axis in (0, 1) for more in ({}, {"zero_division": "one"})]
    forms += [{"axis": 0, "zero_division": "one"}, {"axis": 0, "op": "add"}]
    each = [("factors", form) for form in forms]
    each += [(factors, {"axis": axis}) for factors in list(FACTORS)[1:] for axis in (0, 1)]

    def run(x: Any, factors: str, axis: int, **options: Any) -> Any:
        values = FACTORS[factors](x.shape[axis] if axis < 2 else 1)
        return cx.axis_scale(x, values, axis=axis, **(options | {"out": x} if "out" in options else options))

    def oracle(x: Any, factors: str, axis: int, out: bool = False, **options: Any) -> list[Expected]:
        values = reference.axis_scale(x, FACTORS[factors](x.shape[axis]), axis, **options)
        return [_expected(type(x), values.dtype, values)]

    return [
        Call(
            "axis_scale",
            ", ".join(["x", factors] + [f"{k}={'x' if k == 'out' else _write(v)}" for k, v in form.items()]),
            functools.partial(run, factors=factors, **form),
            functools.partial(oracle, factors=factors, **form),
            form | {"factors": factors},
        )
        for factors, form in each
    ]


def _others() -> list[Call]:
    def normalized(x: Any, out: bool = False, **options: Any) -> list[Expected]:
        return [_expected(type(x), reference.result_dtype("normalize", x.dtype), reference.normalize(x, **options))]

    def dense(x: Any, order: str) -> list[Expected]:
        return [_expected(np.ndarray, x.dtype, reference.dense(x))]

    def gram(x: Any, dtype: Any = float) -> list[Expected]:
        return [_expected(np.ndarray, dtype, reference.gram(x))]

    forms = [{"axis": axis, "target_sum": t, "log1p": log} for axis in (1, 0) for t in (None, 100) for log in (0, 1)]
    forms += [
        {"axis": -1},
        {"axis": 2},
        {"target_sum": 0},
        {"out": True},
        {"out": True, "target_sum": 8, "log1p": True},
    ]
    return [
        *(_call("normalize", functools.partial(normalized, **form), **form) for form in forms),
        *(_call("to_dense", functools.partial(dense, order=order), order=order) for order in "CFK"),
        *(
            _call("gram", functools.partial(gram, **form), **form)
            for form in ({}, {"dtype": np.float32}, {"dtype": np.int64})
        ),
    ]


CALLS = [*_reductions(), *_unary(), *_binary(), *_axis_scale(), *_others()]


# ---- errors


class Cell(NamedTuple):
    """One call on one matrix in one container."""

    call: Call
    container: str
    x: Any
    """As the oracle takes it."""

    def has(self, **options: Any) -> bool:
        return all(self.call.options.get(key) == value for key, value in options.items())

    def result_dtype(self) -> np.dtype:
        if self.call.name == "axis_scale":
            return self.x.dtype if self.x.dtype.kind in "fc" else np.dtype(float)
        return reference.result_dtype(self.call.name, self.x.dtype)


class Refusal(NamedTuple):
    """An error, when it is raised, and in words."""

    error: type
    when: Callable[[Cell], bool]
    words: str


def _chooses_from_nothing(cell: Cell) -> bool:
    if cell.call.name not in ("max", "min") or cell.has(axis=2):
        return False
    axis = cell.call.options["axis"]
    axes = {0, 1} if axis is None else {one % 2 for one in (axis if isinstance(axis, tuple) else (axis,))}
    lengths = dict(enumerate(cell.x.shape))
    return 0 in [lengths[a] for a in axes] and 0 not in [n for a, n in lengths.items() if a not in axes]


REAL = ("var", "std", "mean_var", "max", "min", "normalize", "gram")
NUMBERS = ("square", "abs", "negative", "sign")
UNARY = ("log1p", "expm1", "sqrt", *NUMBERS)

REFUSALS = (
    Refusal(TypeError, lambda c: CONTAINERS[c.container].kind == "masked", "x is a masked array"),
    Refusal(np.exceptions.AxisError, lambda c: c.has(axis=2), "an axis that x does not have"),
    Refusal(ValueError, _chooses_from_nothing, "`max` and `min` of no elements"),
    Refusal(
        TypeError,
        lambda c: c.call.name in REAL and c.x.dtype.kind == "c",
        f"complex x: {', '.join(f'`{name}`' for name in REAL)}",
    ),
    Refusal(
        TypeError,
        lambda c: c.call.name in NUMBERS and c.x.dtype.kind == "b",
        f"boolean x: {', '.join(f'`{name}`' for name in NUMBERS)}",
    ),
    Refusal(
        TypeError,
        lambda c: c.call.name in ("mean", "gram") and c.has(dtype=np.int64),
        "`mean`, `gram`: integer `dtype`",
    ),
    Refusal(
        TypeError,
        lambda c: c.has(factors="complex factors") and c.x.dtype.kind != "c",
        "`axis_scale`: complex factors for real x",
    ),
    Refusal(ValueError, lambda c: c.has(factors="n + 1 factors"), "`axis_scale`: another number of factors"),
    Refusal(
        ValueError,
        lambda c: c.has(zero_division="one") and "op" not in c.call.options,
        '`axis_scale`: `zero_division="one"` without `op="divide"`',
    ),
    Refusal(ValueError, lambda c: c.has(op="add"), "`axis_scale`: another `op`"),
    Refusal(ValueError, lambda c: c.has(order="K"), "`to_dense`: another `order`"),
    Refusal(ValueError, lambda c: c.has(target_sum=0), "`normalize`: a `target_sum` that is not positive"),
    Refusal(
        ValueError,
        lambda c: c.has(operand="(n + 2, m + 2)"),
        "`multiply`, `divide`: shapes that do not broadcast to that of the sparse operand",
    ),
    Refusal(
        ValueError,
        lambda c: c.has(out=True) and CONTAINERS[c.container].kind != "memory",
        "`out=x`: x is on Dask or on disk, or was converted from another format",
    ),
    Refusal(
        ValueError, lambda c: c.has(out=True) and c.result_dtype() != c.x.dtype, "`out=x`: the result has another dtype"
    ),
    Refusal(ValueError, lambda c: c.has(out=True) and c.container == "csr, read-only", "`out=x`: x is read-only"),
    Refusal(
        ValueError,
        lambda c: (
            c.has(out=True) and c.container == "csr, messy" and c.x.nnz and (c.call.name in UNARY or c.has(log1p=True))
        ),
        "`out=x`: x has duplicates or unsorted indices, and the function is not linear",
    ),
)


# ---- cells


class Outcome(NamedTuple):
    """What came out of a cell."""

    call: Call
    container: str
    matrix: str
    dtype: str
    refusals: list[Refusal]
    result: str
    result_dtype: str
    failure: str


def outcomes(slow: bool):
    """One for each cell of the containers in memory, or of the slow ones."""
    for matrix, dtype in itertools.product(MATRICES, DTYPES):
        if not _is_in_table(matrix, dtype, slow):
            continue
        dense = of_type(matrix, dtype)
        said: dict[Any, list[Expected]] = {}
        for container, (make, structure, kind) in CONTAINERS.items():
            if (kind in SLOW) != slow:
                continue
            x, same = make(dense), structure(dense)
            for call in CALLS:
                if not _is_defined(call, matrix, dense.dtype):
                    continue
                cell = Cell(call, container, same)
                refusals = [refusal for refusal in REFUSALS if refusal.when(cell)]
                key = (id(call), structure)
                if not refusals and key not in said:
                    said[key] = call.oracle(same)
                its_x = make(dense) if call.options.get("out") else x
                yield Outcome(call, container, matrix, dtype, refusals, *_run(call, its_x, said.get(key), refusals))


def _is_defined(call: Call, matrix: str, dtype: np.dtype) -> bool:
    """Not a total or an integer of NaN; and no imaginary part is dropped, which NumPy warns of."""
    to = np.dtype(call.options.get("dtype") or dtype)
    if call.name == "gram":  # its dtype is that of the result
        return True
    if matrix == "NaN, inf, -0":
        return call.name != "normalize" and to.kind not in "iu"
    return dtype.kind != "c" or to.kind == "c"


def _is_in_table(matrix: str, dtype: str, slow: bool) -> bool:
    if matrix == "7 x 5":
        return not slow or dtype in FEW_DTYPES
    if matrix == "NaN, inf, -0":
        return dtype == "float64" or (dtype == "float32" and not slow)
    return dtype == "float32" if slow else dtype in ("bool", "int16", "float32", "complex128")


def _run(call: Call, x: Any, expected: list[Expected] | None, refusals: list[Refusal]) -> tuple[str, str, str]:
    """The class and dtype of the result, or the error; and what is wrong with it."""
    in_memory = isinstance(x, np.ndarray) or hasattr(x, "indptr")
    try:
        with unchanged(x) if in_memory and "out" not in call.options else nullcontext():
            returned = call.run(x)
            results = [_computed(one) for one in (returned if isinstance(returned, tuple) else [returned])]
    except Exception as error:
        ok = any(isinstance(error, refusal.error) for refusal in refusals)
        return type(error).__name__, "", "" if ok else f"{type(error).__name__}: {error}"
    label, dtype = _label(returned), results[0][1].dtype.name
    if refusals:
        return label, dtype, f"no {refusals[0].error.__name__} ({refusals[0].words})"
    if "out" in call.options and returned is not x:
        return label, dtype, "not x itself"
    wrong = [f"{_show(*one)} instead of {_show(*of)}" for one, of in zip(results, expected) if not _equal(*one, *of)]
    return label, dtype, "; ".join(wrong)


def _computed(result: Any) -> tuple[type, np.ndarray]:
    """The class of a result (or of its chunks) and its elements."""
    if dask and isinstance(result, da.Array):
        blocks = dask.compute(result.to_delayed(optimize_graph=False).tolist(), scheduler="sync")[0]
        return type(result._meta), np.asarray(put_together(result, blocks))
    if sp.issparse(result):
        return type(result), reference.dense(result)
    cls = np.ndarray if isinstance(result, np.generic) else type(result)
    return cls, np.asarray(result)


def _label(result: Any) -> str:
    if isinstance(result, tuple):
        return _label(result[0])
    if dask and isinstance(result, da.Array):
        return f"Dask of {type(result._meta).__name__}"
    return "ndarray" if isinstance(result, np.generic) else type(result).__name__


def _equal(cls: type, actual: np.ndarray, of: type, dtype: np.dtype, values: np.ndarray) -> bool:
    if cls is not of or actual.dtype != dtype or actual.shape != values.shape:
        return False
    if dtype.kind in "biu":
        return np.array_equal(actual, values)
    with np.errstate(all="ignore"):
        return np.allclose(actual, values.astype(dtype), rtol=64 * eps(dtype), atol=1e-30, equal_nan=True)


def _show(cls: type, *values: Any) -> str:
    return f"{cls.__name__} {values[-1].dtype if len(values) == 1 else values[0]} {values[-1].tolist()}"


# ---- the page


def markdown(cells: list[Outcome]) -> str:
    """What came out, function by function and container by container."""
    failures = sum(bool(cell.failure) for cell in cells)
    refused = Counter(refusal.words for cell in cells for refusal in cell.refusals)
    lines = [
        "# What comes out: function x container x dtype",
        "",
        "Written by `python tests/table.py --markdown docs/reference.md`. In each cell the result equals the oracle",
        "(`tests/reference.py`), or is an error of the list below. What differs from NumPy, SciPy and scanpy, and why,",
        "is [on a page of its own](differences.md).",
        "",
        f"{len(cells):,} cells: {len(CALLS)} calls of {len(_names())} functions x {len(CONTAINERS)} containers x "
        f"{len(DTYPES)} dtypes x {len(MATRICES)} matrices (the slower containers with {len(FEW_DTYPES)} dtypes; empty "
        f"matrices and such with NaN, inf and -0 with some). Failures: {failures}.",
        "",
        "## The dtype that comes out",
        "",
        "In every container. `=` is the dtype of x.",
        "",
        *_table(["", *DTYPES], [[f"`{call}`", *_dtypes_of(call, cells)] for call in _first_calls()]),
        "",
        "## The container that comes out",
        "",
        *_table(["x", *GROUPS], [[name, *_results_of(name, cells)] for name in CONTAINERS]),
        "",
        "## Errors",
        "",
        "Nothing else is raised:",
        "",
        *_table(["error", "when", "cells"], [[r.error.__name__, r.words, f"{refused[r.words]:,}"] for r in REFUSALS]),
        "",
        "## Forms of arguments",
        "",
        *(f"- `{name}`: {', '.join(f'`{c.arguments}`' for c in CALLS if c.name == name)}" for name in _names()),
    ]
    return "\n".join(lines) + "\n"


def _names() -> list[str]:
    return list(dict.fromkeys(call.name for call in CALLS))


def _first_calls() -> list[Call]:
    return [next(call for call in CALLS if call.name == name) for name in _names()]


# Calls whose results are in the same containers; the functions with nothing else are by their first call.
DENSE = (
    "sum",
    "prod",
    "mean",
    "var",
    "std",
    "mean_var",
    "max",
    "min",
    "any",
    "all",
    "count_nonzero",
    "to_dense",
    "gram",
)
GROUPS = {
    "reductions, `to_dense`, `gram`": [call for call in _first_calls() if call.name in DENSE],
    "unary, `axis_scale`, `normalize`": [
        call for call in _first_calls() if call.name in (*UNARY, "axis_scale", "normalize")
    ],
    "these with `out=x`": [call for call in CALLS if "out" in call.options],
    **{
        f"`{written}`": [call for call in CALLS if str(call) == written]
        for written in ("multiply(x, 2)", "divide(x, 2)", "divide(2, x)", "multiply(csr, x)", "divide(x, csr)")
    },
}


def _dtypes_of(call: Call, cells: list[Outcome]) -> list[str]:
    found = defaultdict(set)
    for cell in cells:
        if cell.call is call and cell.matrix == "7 x 5" and CONTAINERS[cell.container].kind != "masked":
            result = cell.result_dtype or cell.result
            found[cell.dtype].add("=" if result == cell.dtype else result)
    return [", ".join(sorted(found[dtype])) for dtype in DTYPES]


def _results_of(container: str, cells: list[Outcome]) -> list[str]:
    """In float64, where the fewest things are refused."""
    these = [c for c in cells if c.container == container and c.dtype == "float64" and c.matrix == "7 x 5"]
    return [", ".join(sorted({c.result for c in these if c.call in calls})) for calls in GROUPS.values()]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", metavar="FILE", required=True, help="where to write the page")
    path = parser.parse_args().markdown
    cells = [*outcomes(slow=False), *outcomes(slow=True)]
    with open(path, "w") as file:
        file.write(markdown(cells))
    failed = [cell for cell in cells if cell.failure]
    for cell in failed:
        print(f"{cell.call} of a {cell.dtype} {cell.container}, {cell.matrix}: {cell.failure}")
    print(f"{len(cells):,} cells, {len(failed)} failures")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
