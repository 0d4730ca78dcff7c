"""Malformed matrices and arguments in every public function, each case in a process of its own.

    python tests/malformed.py cython            the table, of one engine
    python tests/malformed.py cython overlap    of one group of cases

Each array lies inside a larger one that goes on, on both sides, with what looks like more of it (indices that are
inside the matrix, row pointers that go on, values so large that a result would show them). What a call may do: raise an
error that names the array, or give the documented answer. What it may not do is in `FAILURES`.
"""

import contextlib
import inspect
import itertools
import json
import os
import re
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import csraxis as cx
from reference import dense, normalize

BAND = 70  # more than a block of a kernel
# What a call may raise (AxisError is a ValueError).
ERRORS = (ValueError, TypeError)
FAILURES = {
    "crash": "the process ended",
    "silent": "a wrong answer, or one where an error is due",
    "changed": "a byte has changed that nobody may change, or a call that raised has changed its `out`",
    "unclear": "another exception, a warning, or a message without the name of the array",
}


class Trial(NamedTuple):
    """One call with one malformed input."""

    case: str
    function: str
    prepare: Callable[[], "Prepared"]


class Prepared(NamedTuple):
    """The call, and what it may do: raise `error`, or return what `check` accepts; either, where there are both."""

    call: Callable[[], Any]
    memory: "Memory"
    error: str | None = None
    check: Callable[[Any], bool] | None = None
    out: np.ndarray | None = None


class Memory:
    """Arrays, each inside a larger one."""

    def __init__(self):
        self.wholes = []

    def place(self, array, before, after):
        """A copy of a vector, with bands of these values around it."""
        bands = [np.full(BAND, value, array.dtype) for value in (before, after)]
        self.wholes.append(np.concatenate((bands[0], array, bands[1])))
        return self.wholes[-1][BAND:-BAND]

    def vector(self, values, dtype=float):
        """The same, where it is noticed if the bands are used."""
        array = np.asarray(values, dtype)
        large = {"f": 1e30, "c": 1e30}.get(array.dtype.kind, 99)
        return self.place(array, *([large] * 2 if array.dtype.kind in "fciu" else [array[0]] * 2))

    def longer(self, array, n):
        """The view of so many more entries of what the array is a part of."""
        whole = next(whole for whole in self.wholes if np.shares_memory(whole, array))
        start = (array.ctypes.data - whole.ctypes.data) // whole.itemsize
        return whole[start : start + len(array) + n]

    def adopt(self, *arrays):
        """Watch these too."""
        seen = [array for array in arrays if isinstance(array, np.ndarray)]
        self.wholes += [a for a in seen if not any(np.may_share_memory(a, whole) for whole in self.wholes)]

    def bytes(self, apart_from=None):
        """Everything; but for a buffer that may be written."""
        copies = [whole.copy() for whole in self.wholes]
        for whole, copy in zip(self.wholes, copies):
            if apart_from is not None and np.may_share_memory(whole, apart_from):
                start = apart_from.ctypes.data - whole.ctypes.data
                copy.view(np.uint8).reshape(-1)[start : start + apart_from.nbytes] = 0
        return [copy.tobytes() for copy in copies]


# ---- the matrices

SHAPE = (4, 5)
# class, dtype of data, of indices and of indptr
LAYOUTS = {
    "csr_array": (sp.csr_array, "f8", "i4", "i4"),
    "csc_matrix": (sp.csc_matrix, "f4", "i8", "i8"),
    "csr_matrix": (sp.csr_matrix, "i4", "i8", "i4"),
    "csc_array": (sp.csc_array, "i2", "i4", "i8"),
}
# Rows have free columns, so that a bad index can be repaired; the last row has the last column.
ENTRIES = [(0, 1), (0, 3), (1, 0), (1, 1), (1, 4), (2, 2), (3, 0), (3, 2), (3, 4)]


def well_formed(layout, memory, n_dim=2):
    """A 4 x 5 matrix by its compressed axis, or a vector of 5."""
    cls, *dtypes = layout
    n_major, n_minor = SHAPE if n_dim == 2 else (1, SHAPE[1])
    entries = [entry for entry in ENTRIES if entry[0] < n_major or n_dim == 2]
    if n_dim == 1:
        entries = [(0, column) for column in (0, 2, 3)]
    data = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5][: len(entries)], dtypes[0])
    indices = np.array([column for _, column in entries], dtypes[1])
    indptr = np.cumsum([0, *np.bincount([row for row, _ in entries])]).astype(dtypes[2])
    shape = (n_major, n_minor) if issubclass(cls, sp.csr_array | sp.csr_matrix) else (n_minor, n_major)
    x = cls(shape[-n_dim:], dtype=data.dtype)
    x.data = memory.vector(data, data.dtype)
    x.indices = memory.place(indices, 1, 1)
    x.indptr = memory.place(indptr, 0, len(entries))
    return x


def elements(x, like=None):
    """The dense elements, in float64; `like` is x before a call, with indices that are in the place of bad ones."""
    if not sp.issparse(x):
        return np.array(x, float)
    same = like is not None and np.array_equal(x.indices, like.bad[: len(x.indices)])
    n = int(x.indptr[-1])
    plain = SimpleNamespace(
        shape=(1, *x.shape)[-2:],
        dtype=x.data.dtype,
        data=x.data[:n],
        indices=(like.good if same else x.indices)[:n],
        indptr=x.indptr,
        format=x.format,
    )
    return dense(plain).reshape(x.shape).astype(float)


def repaired(x):
    """The indices of x as they are, and with each bad one replaced by a place that is free in its row."""
    bad = x.indices.copy()
    good = [int(index) for index in bad]
    n_minor = x.shape[-1] if x.format == "csr" else x.shape[0]
    for start, stop in itertools.pairwise(map(int, x.indptr)):
        for k in range(start, stop):
            if not 0 <= good[k] < n_minor:
                good[k] = next(i for i in range(n_minor) if i not in good[start:stop])
    return SimpleNamespace(bad=bad, good=np.array(good, int))


# ---- the functions


class Function(NamedTuple):
    """A way to call a public function."""

    name: str
    call: Callable[[Any, tuple], Any]
    answer: Callable[[np.ndarray], np.ndarray]
    # Whether it uses indices: "never", "always", or to find out whether the rows are in order.
    uses: str
    out: bool = False


REDUCTIONS = {
    **{
        name: getattr(np, name)
        for name in ("sum", "mean", "prod", "var", "std", "max", "min", "any", "all", "count_nonzero")
    },
    "mean_var": lambda d, axis: np.stack([np.mean(d, axis=axis), np.var(d, axis=axis)]),
}
ELEMENTWISE = ("log1p", "expm1", "sqrt", "square", "abs", "negative", "sign")
OPS = ("multiply", "divide")


def factors(n):
    """Factors whose type does not widen that of any data."""
    return np.arange(1, n + 1, dtype="i1")


def other_dense(shape):
    """A dense operand."""
    return np.arange(2.0, 2 + np.prod(shape)).reshape(shape)


def other_sparse(shape, cls):
    """A sparse operand that has some of the entries."""
    return cls(np.where(np.arange(np.prod(shape)) % 3, other_dense(shape).ravel(), 0).reshape(shape))


def functions(layout_format, n_dim):
    """Every public function, on a matrix of that format."""
    inner = n_dim - 1 if layout_format == "csr" else 0  # the axis along which the stored values are together
    return [
        *_reductions(inner, n_dim),
        *_unary(inner, n_dim),
        *_scalings(inner, n_dim),
        *_binary(inner, n_dim),
    ]


def _reductions(inner, n_dim):
    for name, of in REDUCTIONS.items():
        for axis in (None, *range(n_dim), ()):
            if axis == () or (axis == 1 - inner and n_dim == 2):
                uses = "always"
            else:
                uses = "never" if name in ("sum", "mean") else "order"
            yield Function(
                f"{name} axis={axis}",
                lambda x, shape, name=name, axis=axis: getattr(cx, name)(x, axis=axis),
                partial(_along, of=of, axis=axis),
                uses,
            )


def _along(d, of, axis):
    if axis == ():
        d, axis = d[..., None], -1
    with np.errstate(all="ignore"):
        return np.asarray(of(d, axis=axis), float)


def _unary(inner, n_dim):
    for name in ELEMENTWISE:
        for out in (False, True):
            yield Function(
                name + " out" * out,
                lambda x, shape, name=name, out=out: getattr(cx, name)(x, out=x if out else None),
                getattr(np, name),
                "order",
                out,
            )
    for order in "CF":
        yield Function(f"to_dense {order}", lambda x, shape, o=order: cx.to_dense(x, order=o), np.array, "always")
    if n_dim == 2:
        yield Function("gram", lambda x, shape: cx.gram(x), lambda d: d.T @ d, "always")


def _scalings(inner, n_dim):
    for axis, op, out in itertools.product(range(n_dim), OPS, (False, True)):
        yield Function(
            f"axis_scale axis={axis} {op}" + " out" * out,
            lambda x, shape, a=axis, op=op, out=out: cx.axis_scale(
                x, factors(shape[a]), axis=a, op=op, out=x if out else None
            ),
            lambda d, a=axis, op=op: getattr(np, op)(d, _vector(d.shape, a)),
            "always" if axis == inner else "never",
            out,
        )
    for axis, target, log, out in itertools.product(range(2), (None, 10), (False, True), (False, True)):
        if n_dim == 2:
            yield Function(
                f"normalize axis={axis} {target}" + " log1p" * log + " out" * out,
                lambda x, shape, a=axis, t=target, log=log, out=out: cx.normalize(
                    x, axis=a, target_sum=t, log1p=log, out=x if out else None
                ),
                lambda d, a=axis, t=target, log=log: normalize(d, a, t, log),
                ("order" if log else "never") if axis == inner else "always",
                out,
            )


def _vector(shape, axis):
    """Factors along an axis, in the form that broadcasts."""
    vector = factors(shape[axis]).astype(float)
    return vector[:, None] if axis == 0 and len(shape) == 2 else vector


def _binary(inner, n_dim):
    for op in OPS:
        f, of = getattr(cx, op), getattr(np, op)

        def over(d, other, of=of):
            """A sparse first operand keeps its zeros."""
            with np.errstate(all="ignore"):
                return np.where(d != 0, of(d, other), 0)

        def under(d, other, of=of, op=op):
            with np.errstate(all="ignore"):
                return of(other, d) if op == "divide" else of(d, other)

        yield Function(f"{op} by 2", lambda x, shape, f=f: f(x, 2), partial(over, other=2), "never")
        yield Function(
            f"{op} 2 by",
            lambda x, shape, f=f: f(2, x),
            partial(under, other=2),
            "never" if op == "multiply" else "always",
        )
        for axis in range(n_dim):
            yield Function(
                f"{op} by vector {axis}",
                lambda x, shape, f=f, a=axis: f(x, _vector(shape, a)),
                lambda d, a=axis, over=over: over(d, _vector(d.shape, a)),
                "always" if axis == inner else "never",
            )
        yield Function(
            f"{op} by dense",
            lambda x, shape, f=f: f(x, other_dense(shape)),
            lambda d, over=over: over(d, other_dense(d.shape)),
            "always",
        )
        yield Function(
            f"{op} dense by",
            lambda x, shape, f=f: f(other_dense(shape), x),
            lambda d, under=under: under(d, other_dense(d.shape)),
            "always",
        )
        for cls in (sp.csr_array, sp.csc_matrix)[:n_dim]:
            yield Function(
                f"{op} by {cls.__name__[:3]} sparse",
                lambda x, shape, f=f, cls=cls: f(x, other_sparse(shape, cls)),
                lambda d, over=over, cls=cls: over(d, other_sparse(d.shape, cls).toarray()),
                "always",
            )
            yield Function(
                f"{op} {cls.__name__[:3]} sparse by",
                lambda x, shape, f=f, cls=cls: f(other_sparse(shape, cls), x),
                lambda d, over=over, cls=cls: over(other_sparse(d.shape, cls).toarray(), d),
                "always",
            )


# ---- what can be wrong with a matrix


class Spoiled(NamedTuple):
    """A change of a well-formed matrix."""

    change: Callable[[Any, Memory], None]
    # What each function has to say about it. None: it is well-formed still.
    error: str | None
    # Only what uses an index has to say it.
    where_used: bool = False
    # What functions with `out` may say about a well-formed matrix.
    out_error: str | None = None


def put(part, position, value):
    """An entry of an array."""
    return lambda x, memory: getattr(x, part).__setitem__(position, value)


def put_wide(position, value, dtype="i8"):
    """An index that needs 64 bits."""

    def change(x, memory):
        x.indices = memory.place(x.indices.astype(dtype), 1, 1)
        x.indices[position] = value

    return change


def replace(part, make):
    """Another array."""

    def change(x, memory):
        setattr(x, part, make(getattr(x, part)))
        memory.adopt(getattr(x, part))

    return change


def more(part, n):
    """A view that has more entries than it should, or fewer: the others are there, behind it."""
    return lambda x, memory: setattr(x, part, memory.longer(getattr(x, part), n))


def falls(x, memory):
    """A row pointer below the one before it."""
    middle = len(x.indptr) // 2
    x.indptr[middle] = x.indptr[middle - 1] - 1


def has_shape(change):
    """Another shape than that of the arrays."""
    return lambda x, memory: setattr(x, "_shape", change(x.shape))


def read_only(x, memory):
    """Buffers that nobody may write."""
    for part in (x.data, x.indices, x.indptr):
        part.flags.writeable = False


def wraps(array):
    """Row pointers of which one is right modulo 2**32."""
    array = array.astype("i8")
    array[-1] += 2**32
    return array


DATA, INDICES, INDPTR = (rf"\bx\d?\.{part}\b" for part in ("data", "indices", "indptr"))
# What goes with a matrix is compared with its shape before its arrays are.
SHAPES = r"\bx\d?\.indptr\b|shape"
NOT_ARRAYS = {
    "None": lambda a: None,
    "a list": lambda a: a.tolist(),
    "2-D": lambda a: a[:, None],
    "0-D": lambda a: a[:1].reshape(()),
    "of objects": lambda a: a.astype(object),
    "of strings": lambda a: a.astype(str),
}
FLOATS = {"of floats": lambda a: a.astype(float), "complex": lambda a: a.astype(complex), "bool": lambda a: a != 0}
# No part but the shape is wrong.
BAD_SHAPES = {
    "shape has a row more": lambda s: (s[0] + 1, *s[1:]),
    "shape has a row less": lambda s: (s[0] - 1, *s[1:]),
    "shape has a column more": lambda s: (*s[:-1], s[-1] + 1),
    "shape has a column less": lambda s: (*s[:-1], s[-1] - 1),
    "shape 3-D": lambda s: (*s, 1),
    "shape 0-D": lambda s: (),
    "shape of negative rows": lambda s: (-s[0], *s[1:]),
    "shape of negative columns": lambda s: (*s[:-1], -s[-1]),
    "shape of floats": lambda s: tuple(map(float, s)),
    "shape None": lambda s: None,
}


def spoiled(layout_format, n_dim):
    """Every defect, by name."""
    cases = {
        "well-formed": Spoiled(lambda x, memory: None, None),
        # Indices
        **{
            f"index {what}": Spoiled(put("indices", position, value), INDICES, where_used=True)
            for what, position, value in (
                ("one too high, first", 0, 5),
                ("one too high, last", -1, 5),
                ("huge", 1, 2**31 - 1),
                ("-1, last", -1, -1),
                ("-1, first", 0, -1),
                ("-5: the first, counted from the end", 1, -5),
                ("-2**31", 1, -(2**31)),
            )
        },
        **{
            f"index {what}": Spoiled(put_wide(1, value, dtype), INDICES, where_used=True)
            for what, value, dtype in (
                ("2**32 + 3", 2**32 + 3, "i8"),
                ("-2**32 + 3", 3 - 2**32, "i8"),
                ("2**63 - 1", 2**63 - 1, "i8"),
                ("-2**63", -(2**63), "i8"),
                ("2**61: 2**64 bytes", 2**61, "i8"),
                ("2**32 - 1 of uint32", 2**32 - 1, "u4"),
                ("65535 of uint16", 65535, "u2"),
            )
        },
        "index 2**64 - 1": Spoiled(put_wide(1, 2**64 - 1, "u8"), INDICES),
        # Row pointers
        "indptr decreases": Spoiled(falls, INDPTR),
        "indptr starts at 1": Spoiled(put("indptr", 0, 1), INDPTR),
        "indptr starts at -1": Spoiled(put("indptr", 0, -1), INDPTR),
        "indptr ends at -1": Spoiled(put("indptr", -1, -1), INDPTR),
        "indptr ends one too far": Spoiled(lambda x, memory: put("indptr", -1, len(x.data) + 1)(x, memory), INDPTR),
        "indptr ends far away": Spoiled(put("indptr", -1, 2**31 - 1), INDPTR),
        "indptr ends at 2**32 and so many": Spoiled(replace("indptr", wraps), INDPTR),
        "indptr ends at 2**63 - 1": Spoiled(
            replace("indptr", lambda a: np.append(a[:-1], 2**63 - 1)),
            INDPTR,
        ),
        "indptr too long": Spoiled(more("indptr", 1), INDPTR),
        "indptr too short": Spoiled(more("indptr", -1), INDPTR),
        "indptr empty": Spoiled(replace("indptr", lambda a: a[:0]), INDPTR),
        **{
            f"{part} {what}": Spoiled(replace(part, make), rf"\bx\d?\.{part}\b")
            for part in ("indices", "indptr")
            for what, make in (NOT_ARRAYS | FLOATS).items()
        },
        # Values
        "data short": Spoiled(more("data", -1), DATA),
        "data empty": Spoiled(replace("data", lambda a: a[:0]), DATA),
        "indices short": Spoiled(more("indices", -1), INDICES),
        "indices empty": Spoiled(replace("indices", lambda a: a[:0]), INDICES),
        # check_dtype says it of x, whose dtype is that of its data.
        **{
            f"data {what}": Spoiled(replace("data", make), DATA if "D" in what else r"\bx\d?(\.data)? must")
            for what, make in (NOT_ARRAYS | {"of float16": lambda a: a.astype("f2")}).items()
        },
        # The shape
        **{what: Spoiled(has_shape(change), SHAPES) for what, change in BAD_SHAPES.items()},
        # Well-formed, if unusual
        "data long": Spoiled(more("data", 3), None),
        "indices long": Spoiled(more("indices", 3), None),
        "data and indices long": Spoiled(
            lambda x, memory: (more("data", 3)(x, memory), more("indices", 2)(x, memory)), None
        ),
        "indices of uint16": Spoiled(replace("indices", lambda a: a.astype("u2")), None),
        "indices byte-swapped": Spoiled(replace("indices", lambda a: a.astype(a.dtype.newbyteorder())), None),
        "indices not contiguous": Spoiled(replace("indices", lambda a: np.repeat(a, 2)[::2]), None),
        "indptr of uint64": Spoiled(replace("indptr", lambda a: a.astype("u8")), None),
        "data byte-swapped": Spoiled(
            replace("data", lambda a: a.astype(a.dtype.newbyteorder())), None, out_error=r"\bout\b"
        ),
        "data not contiguous": Spoiled(replace("data", lambda a: np.repeat(a, 2)[::2]), None, out_error=r"\bout\b"),
        "read-only": Spoiled(read_only, None, out_error=r"\bout\b.*read-only"),
    }
    # Along the compressed axis indptr tells; along the other one, an index that is outside now.
    columns = "column" if layout_format == "csr" else "row"
    less, more_of = f"shape has a {columns} less", f"shape has a {columns} more"
    cases[less] = cases[less]._replace(error=INDICES, where_used=True)
    cases[more_of] = cases[more_of]._replace(error=None)
    if n_dim == 1:  # there is one row, whatever the shape
        for what in ("shape has a row more", "shape has a row less", "shape of negative rows"):
            del cases[what]
        cases["shape has a column less"] = Spoiled(has_shape(lambda s: (3,)), INDICES, where_used=True)
        cases["shape has a column more"] = Spoiled(has_shape(lambda s: (s[0] + 1,)), None)
        cases["shape 2-D"] = Spoiled(has_shape(lambda s: (2, *s)), SHAPES)
        del cases["shape 3-D"]
    else:
        cases["shape 1-D"] = Spoiled(has_shape(lambda s: s[1:]), SHAPES + "|axis")
    return cases


def matrix_trials(layouts=tuple(LAYOUTS), n_dim=2):
    """Each defect of a matrix in each function."""
    for name in layouts:
        layout = LAYOUTS[name]
        layout_format = well_formed(layout, Memory(), n_dim).format
        for case, defect in spoiled(layout_format, n_dim).items():
            for function in functions(layout_format, n_dim):
                if _works(layout, n_dim, function):
                    yield Trial(
                        case,
                        f"{function.name} ({n_dim}-D {name})",
                        partial(_spoil, layout, n_dim, defect, function),
                    )


def _works(layout, n_dim, function):
    """Whether the function takes such a matrix at all: `out` often has another type."""
    x = well_formed(layout, Memory(), n_dim)
    try:
        function.call(x, x.shape)
    except ValueError:
        assert function.out, function.name
        return False
    return True


def _spoil(layout, n_dim, defect, function):
    memory = Memory()
    x = well_formed(layout, memory, n_dim)
    shape = x.shape
    defect.change(x, memory)
    error = defect.error
    if error is None and function.out:
        error = defect.out_error
    call = partial(function.call, x, x.shape if defect.where_used else shape)
    if error and not (defect.where_used and function.uses != "always"):
        return Prepared(call, memory, error)
    like = repaired(x)
    expected = function.answer(elements(x, like))
    return Prepared(
        partial(function.call, x, x.shape),
        memory,
        error if function.uses == "order" else None,
        lambda result: (not function.out or result is x) and agrees(result, expected, like),
        x.data if function.out else None,
    )


def agrees(result, expected, like=None):
    """Whether a result has the expected elements."""
    if isinstance(result, tuple):
        result = np.stack(result)
    actual = elements(result, like)
    return actual.shape == expected.shape and np.allclose(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


# ---- COO and other formats, which are converted

COO = r"\bx\d?\.(row|col|data|coords|shape)\b"


def _coords(axis, make):
    def change(x):
        coords = list(x.coords)
        coords[axis] = make(coords[axis])
        x.coords = tuple(coords)

    return change


def _set_in_copy(position, value, dtype=None):
    def make(array):
        array = array.astype(dtype or array.dtype)
        array[position] = value
        return array

    return make


COO_CASES = {
    **{
        f"coo {('row', 'column')[axis]} {what}": _coords(axis, make)
        for axis in (0, 1)
        for what, make in {
            "one too high": _set_in_copy(-1, SHAPE[axis]),
            "-1": _set_in_copy(0, -1),
            "2**32": _set_in_copy(0, 2**32, "i8"),
            "2**64 - 1": _set_in_copy(0, 2**64 - 1, "u8"),
            "short": lambda a: a[:-1],
            "long": lambda a: np.append(a, 0),
            **NOT_ARRAYS,
            **FLOATS,
        }.items()
    },
    "coo both short": lambda x: [_coords(axis, lambda a: a[:-1])(x) for axis in (0, 1)],
    "coo coords None": lambda x: setattr(x, "coords", None),
    "coo of one coordinate": lambda x: setattr(x, "coords", x.coords[:1]),
    "coo of three coordinates": lambda x: setattr(x, "coords", x.coords + x.coords[:1]),
    **{
        f"coo data {what}": lambda x, make=make: setattr(x, "data", make(x.data))
        for what, make in (NOT_ARRAYS | {"short": lambda a: a[:-1], "long": lambda a: np.append(a, 1)}).items()
    },
    "coo shape smaller": lambda x: setattr(x, "_shape", (3, 5)),
    "coo shape negative": lambda x: setattr(x, "_shape", (4, -5)),
    "coo shape of floats": lambda x: setattr(x, "_shape", (4.0, 5.0)),
    "coo shape None": lambda x: setattr(x, "_shape", None),
}


def coo_trials():
    """Malformed coordinates; and a block matrix, which SciPy converts to them."""
    for case, change in COO_CASES.items():
        for function in functions("csr", 2):
            if not function.out:
                yield Trial(case, f"{function.name} (coo)", partial(_spoil_coo, change, function))
    for function in functions("csr", 2):
        if not function.out:
            yield Trial("bsr block too high", f"{function.name} (bsr)", partial(_spoil_bsr, function))


def _spoil_coo(change, function):
    x = well_formed(LAYOUTS["csr_array"], Memory()).tocoo()
    change(x)
    memory = Memory()
    memory.adopt(x.data, *(x.coords or ()))
    return Prepared(partial(function.call, x, SHAPE), memory, COO + r"|\bx\d? must")


def _spoil_bsr(function):
    x = well_formed(LAYOUTS["csr_array"], Memory()).tobsr((2, 1))
    x.indices[-1] = 5
    memory = Memory()
    memory.adopt(x.data, x.indices, x.indptr)
    return Prepared(partial(function.call, x, SHAPE), memory, COO + "|index 5")  # SciPy's, in its conversion


# ---- factors and vectors


FACTORS = {
    "factors one short": (lambda memory, v: memory.longer(memory.vector(v), -1), "shape"),
    "factors one long": (lambda memory, v: memory.longer(memory.vector(v), 1), "shape"),
    "factors empty": (lambda memory, v: memory.vector(v)[:0], "shape"),
    "factors 3-D": (lambda memory, v: memory.vector(v)[:, None, None], "shape"),
    "factors of objects": (lambda memory, v: memory.vector(v, object), "object|x2 must"),
    "factors of strings": (lambda memory, v: np.array([str(f) for f in v]), "<U|x2 must"),
    "factors of dates": (lambda memory, v: memory.vector(v, "i8").view("M8[s]"), "datetime|x2 must"),
    "factors None": (lambda memory, v: None, "None"),
    "factors masked": (lambda memory, v: np.ma.masked_array(memory.vector(v), v > 1), "Masked"),
    "factors NaN": (lambda memory, v: memory.vector(np.where(v == 2, np.nan, v)), None),
    "factors inf": (lambda memory, v: memory.vector(np.where(v == 2, np.inf, v)), None),
    "factors zero": (lambda memory, v: memory.vector(v * 0), None),
    "factors byte-swapped": (lambda memory, v: memory.vector(v, ">f8"), None),
    "factors of int16": (lambda memory, v: memory.vector(v, "i2"), None),
    "factors of float32": (lambda memory, v: memory.vector(v, "f4"), None),
    "factors not contiguous": (lambda memory, v: memory.vector(np.repeat(v, 2))[::2], None),
}


def factor_trials():
    """Vectors that are not what they should be, in whatever takes one."""
    for case, layout, axis, op in itertools.product(FACTORS, (*LAYOUTS, "ndarray"), (0, 1), OPS):
        for function in ("axis_scale", "axis_scale out", op):
            if op == function and layout == "ndarray":
                continue  # NumPy's own
            prepare = partial(_with_factors, *FACTORS[case], layout, axis, op, function)
            yield Trial(case, f"{function} axis={axis} {op} ({layout})", prepare)


def _with_factors(make, error, layout, axis, op, function):
    memory = Memory()
    x = well_formed(LAYOUTS.get(layout, LAYOUTS["csr_array"]), memory)
    if layout == "ndarray":
        x = memory.vector(x.toarray().ravel()).reshape(x.shape)
    vector = make(memory, factors(x.shape[axis]).astype(float))
    memory.adopt(vector)
    d = elements(x)
    if function == op:
        # As a row or a column. A vector of length 1 would be a scalar, an empty one has none of that shape.
        other = vector[:, None] if axis == 0 and isinstance(vector, np.ndarray) and vector.ndim == 1 else vector
        return Prepared(
            lambda: getattr(cx, op)(x, other),
            memory,
            error and rf"{error}|x2 must|does not broadcast",
            None if error else lambda result: agrees(result, scaled(d, vector, axis, op)),
        )
    out = x if function.endswith("out") else None
    data = x if layout == "ndarray" else x.data
    kinds = data.dtype.kind + np.asarray(vector).dtype.kind
    if out is not None and not error and kinds[0] == "i" and (op == "divide" or kinds == "if"):
        error = r"\bout\b"  # the result is not of integers
    return Prepared(
        lambda: cx.axis_scale(x, vector, axis=axis, op=op, out=out),
        memory,
        error and rf"factors|\bout\b|{error}",
        None if error else lambda result: agrees(result, scaled(d, vector, axis, op, layout == "ndarray")),
        data if out is not None else None,
    )


def scaled(d, vector, axis, op, is_dense=False):
    """The elements times or over the factors; zeros that are not stored stay."""
    vector = np.asarray(vector, float)
    with np.errstate(all="ignore"):
        return np.where(is_dense | (d != 0), getattr(np, op)(d, vector[:, None] if axis == 0 else vector), 0)


# ---- buffers that overlap


def overlap_trials():
    """What else may lie in x.data. With `out=x`: an error, or the answer as if it did not; without: the answer."""
    for out, axis, op, dtype in itertools.product((False, True), (0, 1), OPS, ("f8", "i8", "f4", "c16")):
        name = f"axis_scale axis={axis} {op} {dtype}" + " out" * out
        for part, kind in itertools.product(("factors", "indices", "indptr"), ("csr", "csc")):
            yield Trial(
                f"{part} in x.data", f"{name} ({kind})", partial(_sparse_overlap, part, kind, dtype, axis, op, out)
            )
        yield Trial("factors in x", f"{name} (ndarray)", partial(_dense_overlap, dtype, axis, op, out))
    for kind in ("csr", "csc"):
        for function in functions(kind, 2):
            if function.out:
                yield Trial("x.data overlaps itself", f"{function.name} ({kind})", partial(_folded, kind, function))
                yield Trial("indices in x.data", f"{function.name} ({kind})", partial(_shared, kind, function))
    for function in functions("csr", 2):
        if function.out:
            yield Trial("an ndarray overlaps itself", function.name, partial(_folded_dense, function))


def _overlapping(kind, dtype):
    """A matrix of 1000 rows or columns of 4 stored values, of which the data lie one entry off in a longer buffer."""
    memory = Memory()
    n, m = 1000, 4
    whole = memory.vector(np.tile(np.arange(4), n), dtype)
    x = (sp.csr_array if kind == "csr" else sp.csc_array)((n, m) if kind == "csr" else (m, n), dtype=dtype)
    x.indptr = np.minimum(np.arange(0, n * m + 1, m), n * m - 1)
    x.indices = np.tile(np.arange(4), n)[:-1]
    x.data = whole[1:]
    return x, memory, whole


def _sparse_overlap(part, kind, dtype, axis, op, out):
    x, memory, whole = _overlapping(kind, dtype)
    # Large for integers too: an index that has been multiplied by it is far away.
    vector = np.arange(1, x.shape[axis] + 1, dtype=dtype) * (10**9 if np.dtype(dtype).kind == "i" else 1)
    if part == "factors":
        vector = x.data[1 : len(vector) + 1]
    elif part == "indices":
        if dtype == "i8":
            x.indices = whole[:-1]
        elif dtype == "f8":  # the values are the indices' bits
            x.indices = whole.view("i8")[:-1]
            x.indices[:] = np.tile(np.arange(4), 1000)[:-1]
        else:
            x.indices = whole.view("i4")[: len(x.data)]
            x.indices[:] = np.tile(np.arange(4, dtype="i4"), 1000)[:-1]
    else:
        x.indptr = whole.view("i8")[: len(x.indptr)] if dtype != "f4" else whole.view("i4")[: len(x.indptr)]
        x.indptr[:] = np.minimum(np.arange(0, 4001, 4), 3999)[: len(x.indptr)]
    memory.adopt(x.indices, x.indptr, vector)
    return _own(x, vector, axis, op, out, memory, part)


def _own(x, vector, axis, op, out, memory, part):
    """The call, where x and its copy give the same; or the error that says what overlaps."""
    apart = type(x)(x.shape, dtype=x.dtype) if sp.issparse(x) else x.copy()
    if sp.issparse(x):
        apart.data, apart.indices, apart.indptr = (getattr(x, name).copy() for name in ("data", "indices", "indptr"))
    refused = out and x.dtype.kind == "i" and op == "divide"
    # Factors can be copied first; without its indices there is no matrix.
    refused |= out and part in ("indices", "indptr")
    error = rf"\bout\b.*({part}|dtype)" if out else None
    expected = None if refused else cx.axis_scale(apart, vector.copy(), axis=axis, op=op)
    return Prepared(
        lambda: cx.axis_scale(x, vector, axis=axis, op=op, out=x if out else None),
        memory,
        error,
        None if refused else lambda result: _same(result, expected),
        None if not out else x.data if sp.issparse(x) else x,
    )


def _same(result, expected):
    """Whether two sparse matrices, or two arrays, are equal in every part."""
    if not sp.issparse(expected):
        return np.array_equal(result, expected, equal_nan=True)
    return all(
        np.array_equal(getattr(result, part)[: len(getattr(expected, part))], getattr(expected, part), equal_nan=True)
        for part in ("data", "indices", "indptr")
    )


def _dense_overlap(dtype, axis, op, out):
    """More than one block of rows; the factors are a row or a column of x."""
    memory = Memory()
    x = memory.vector(np.arange(300 * 300) % 7 + 1, dtype).reshape(300, 300)
    return _own(x, x[0] if axis else x[:, 0], axis, op, out, memory, "factors|x")


def _folded(kind, function):
    """Stored values that are all in one place."""
    memory = Memory()
    x = well_formed(LAYOUTS["csr_array"], memory)
    x = x if kind == "csr" else x.T
    x.data = np.lib.stride_tricks.as_strided(x.data, x.data.shape, (0,))
    return Prepared(partial(function.call, x, x.shape), memory, r"\bout\b")


def _shared(kind, function):
    """Values and indices in one buffer, as code that reads both from one file may have them."""
    memory = Memory()
    x = well_formed(LAYOUTS["csr_array"], memory)
    x = x if kind == "csr" else x.T
    x.indices = x.data.view("i4")[: len(x.data)]
    x.indices[:] = [column for _, column in ENTRIES]
    return Prepared(partial(function.call, x, x.shape), memory, r"\bout\b.*indices")


def _folded_dense(function):
    """Rows that overlap: each is the one before it, moved by one."""
    memory = Memory()
    x = memory.vector(np.arange(1, 601.0))
    x = np.lib.stride_tricks.as_strided(x, (300, 300), (8, 8))
    return Prepared(partial(function.call, x, x.shape), memory, r"\bout\b")


# ---- None


def none_trials():
    """None for each parameter of each function."""
    for name in cx.__all__:
        function = getattr(cx, name)
        if name in ("pp", "accelerate", "restore") or "config" in name:  # no array
            continue
        parameters = inspect.signature(function).parameters
        for parameter in parameters.values():
            prepare = partial(_none, function, parameter, "factors" in parameters, "x2" in parameters)
            yield Trial(f"None for {parameter.name}", name, prepare)


def _none(function, parameter, has_factors, has_pair):
    memory = Memory()
    x = well_formed(LAYOUTS["csr_array"], memory)
    given = {"axis": 0} if has_factors else {}
    arguments = [x, *([factors(SHAPE[0])] if has_factors else [2] if has_pair else [])]
    expected = function(*arguments, **given)
    if parameter.kind == parameter.POSITIONAL_ONLY:
        arguments[["x", "x1", "factors", "x2"].index(parameter.name) // 2] = None
    else:
        given[parameter.name] = None
    call = partial(function, *arguments, **given)
    # A flag that is None is one that is not set.
    if parameter.default is None or isinstance(parameter.default, bool):
        return Prepared(call, memory, check=lambda result: agrees(result, _as_array(expected)))
    return Prepared(call, memory, rf"\b{parameter.name}\b")


def _as_array(result):
    return elements(np.stack(result) if isinstance(result, tuple) else result)


# ---- Dask


def dask_trials():
    """A malformed chunk below one that is well-formed: the error comes when it is computed."""
    import dask

    dask.config.set(scheduler="sync")  # a pool of threads does not survive the fork
    for name in ("csr_array", "csc_matrix"):
        layout = LAYOUTS[name]
        layout_format = well_formed(layout, Memory()).format
        for case, defect in spoiled(layout_format, 2).items():
            if re.search("1-D|2-D|0-D|strings|complex|bool|one too|-5|uint", case):
                continue  # a chunk goes through the same code as a matrix in memory
            for function in [*functions(layout_format, 2), *_of_other_chunks()]:
                if re.fullmatch(IN_CHUNKS, function.name):
                    yield Trial(case, f"{function.name} (Dask, {name})", partial(_chunk, layout, defect, function))


# A function of each kind of graph.
IN_CHUNKS = (
    r"(sum|var|max) axis=.*|log1p|to_dense C|gram|axis_scale axis=. multiply|normalize axis=. (10|None log1p)|"
    r"multiply by (2|vector .|dense)|.* in other chunks|(multiply|divide) (2 by|(by csr|csr) sparse.*)"
)


def _of_other_chunks():
    """Operands that are cut into other chunks than x."""
    for op in OPS:
        f, of = getattr(cx, op), getattr(np, op)
        yield Function(
            f"{op} by x in other chunks",
            lambda x, shape, f=f: f(in_chunks(other_sparse(shape, sp.csr_array), 3), x),
            lambda d, of=of: _sparse_over(of, other_sparse(d.shape, sp.csr_array).toarray(), d),
            "always",
        )


def _sparse_over(of, d, other):
    with np.errstate(all="ignore"):
        return np.where(d != 0, of(d, other), 0)


def in_chunks(x, n):
    """A matrix in memory as a Dask array of two chunks, of n rows and the others."""
    return as_dask(x[:n], x[n:])


def as_dask(*blocks):
    """Matrices, one below the other. (The class and the declared shapes are those of the first, if they can be.)"""
    import dask.array as da

    as_dask.made += 1
    name = f"malformed-{as_dask.made}"
    graph = {(name, i, 0): block for i, block in enumerate(blocks)}
    heights = tuple(block.declared[0] if hasattr(block, "declared") else block.shape[0] for block in blocks)
    meta = type(blocks[0])((0, 0), dtype=blocks[0].dtype)
    return da.Array(graph, name, (heights, (blocks[0].shape[1],)), meta=meta)


as_dask.made = 0


def _chunk(layout, defect, function):
    memory = Memory()
    first, x = well_formed(layout, memory), well_formed(layout, memory)
    shape = (2 * x.shape[0], x.shape[1])
    declared = x.shape
    defect.change(x, memory)
    x.declared = declared
    array = as_dask(first, x)

    def call():
        result = function.call(array, shape)
        results = result if isinstance(result, tuple) else [result]
        computed = [_computed(r) for r in results]
        return tuple(computed) if isinstance(result, tuple) else computed[0]

    # A chunk of another shape than declared is Dask's to find out; here it must only end well.
    if "shape" in (defect.error or "") or x.shape != declared:
        return Prepared(call, memory, ".", lambda result: True)
    if defect.error and not (defect.where_used and function.uses != "always"):
        return Prepared(call, memory, defect.error)
    like = repaired(x)
    expected = function.answer(np.concatenate([elements(first), elements(x, like)]))
    return Prepared(
        call,
        memory,
        defect.error if function.uses == "order" else None,
        lambda result: agrees(assembled(result, like), expected),
    )


def _computed(array):
    """The chunks of a Dask array, put together where they are dense: SciPy's stacking looks at indices."""
    if not sp.issparse(array._meta):
        return array.compute()
    return [chunk.compute() for chunk in array.to_delayed().ravel()]


def assembled(result, like):
    """Dense elements of chunks, one below the other."""
    return np.concatenate([elements(chunk, like) for chunk in result]) if isinstance(result, list) else result


# ---- the runner

GROUPS = {
    "matrix": matrix_trials,
    "vector": lambda: matrix_trials(("csr_array",), 1),
    "coo": coo_trials,
    "factors": factor_trials,
    "overlap": overlap_trials,
    "none": none_trials,
    "dask": dask_trials,
}


# Enough for the suite: between them both formats, the kernels of floats and of integers, and those that cast.
QUICK = ("csr_array", "csc_array")


def attempt(trial):
    """(outcome, what was seen) of one trial."""
    prepared = trial.prepare()
    before, before_apart = prepared.memory.bytes(), prepared.memory.bytes(prepared.out)
    raised, result = None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = prepared.call()
    except Exception as error:
        raised = error
    said = f"{type(raised).__name__}: {raised}"[:300]
    if raised is not None and prepared.memory.bytes() != before:
        return "changed", said
    if prepared.memory.bytes(prepared.out) != before_apart:
        return "changed", f"it returned {result!r}"[:300]
    if raised is None:
        if prepared.check is None:
            return "silent", f"no error, but {result!r}"[:300]
        return ("answer", "") if prepared.check(result) else ("silent", f"wrong: {result!r}"[:300])
    if prepared.error is None:
        return "unclear", f"an error where an answer is due: {said}"
    if not isinstance(raised, ERRORS) or not re.search(prepared.error, str(raised)):
        return "unclear", said
    return "error", said


def run(group, quick=False):
    """(case, function, outcome, what was seen) of each trial of a group; every case is run in a process of its own."""
    trials = list(matrix_trials(QUICK) if quick and group == "matrix" else GROUPS[group]())
    for trial in trials:
        if trial.case == "well-formed":  # so that Numba compiles once, not in each child
            trial.prepare().call()
    rows = []
    for _, of_case in itertools.groupby(sorted(trials, key=lambda trial: trial.case), key=lambda trial: trial.case):
        rest = list(of_case)
        while rest:
            done, crash = _in_child(rest)
            rows += [(trial.case, trial.function, *found) for trial, found in zip(rest, done)]
            if len(done) < len(rest):
                rows.append((rest[len(done)].case, rest[len(done)].function, "crash", crash))
            rest = rest[len(done) + 1 :]
    return rows


def _in_child(trials):
    """The outcomes up to the first trial at which the process ended, and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as stream:
            for trial in trials:
                signal.alarm(60)
                try:
                    found = attempt(trial)
                except Exception:  # of the test itself
                    found = "unclear", traceback.format_exc()
                print(json.dumps(found), file=stream, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        lines = stream.readlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [json.loads(line) for line in lines], f"exit status {status}"


def table(rows):
    """A line for each case, and the sums."""
    outcomes = ("error", "answer", *FAILURES)
    counts = {}
    for case, _, outcome, _ in rows:
        counts.setdefault(case, Counter())[outcome] += 1
    lines = [f"{'case':45}{'calls':>7}" + "".join(f"{outcome:>9}" for outcome in outcomes)]
    for case, count in [*counts.items(), (f"{len(counts)} cases", sum(counts.values(), Counter()))]:
        lines.append(f"{case:45}{count.total():7}" + "".join(f"{count[outcome]:9}" for outcome in outcomes))
    return "\n".join(lines)


def main(engine, *arguments):
    """Print the table, and what failed; or, with --json, every outcome of the suite's shorter run."""
    as_json = "--json" in arguments
    groups = [argument for argument in arguments if argument != "--json"] or list(GROUPS)
    cx.set_config(engine=engine)
    rows = [(f"{case} [{group}]", *rest) for group in groups for case, *rest in run(group, quick=as_json)]
    if as_json:
        print(json.dumps(rows))
        return
    print(f"engine {engine}", table(rows), sep="\n")
    print(*failures(rows), sep="\n")


def failures(rows):
    """A line for each outcome that is none of the two that may be."""
    return [f"{outcome}: {case}: {function}: {seen}" for case, function, outcome, seen in rows if outcome in FAILURES]


if __name__ == "__main__":
    main(*sys.argv[1:])
