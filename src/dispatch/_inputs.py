"""What comes in: which container it is, and its plain arrays, checked.

All checks of a compressed matrix but two are here: an index is checked by the kernel that uses it; the order of rows,
where that saves a reading of them, as their pieces are taken.
"""

import sys
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import scipy.sparse as sp
from array_api_compat import is_dask_array as is_dask
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from . import _blocks
from ._config import kernels

ACCEPTED = (
    "numpy.ndarray, scipy.sparse array or matrix (1-D or 2-D), anndata CSRDataset/CSCDataset, a dask.array.Array of "
    "these, or another library's array that follows the array API"
)

SPARSE = (sp.csr_array, sp.csc_array, sp.csr_matrix, sp.csc_matrix)
_DTYPES = frozenset(np.dtype(code) for code in "?bBhHiIlLqQfdFD")
# Of a SciPy matrix, besides its arrays.
_OWN_ATTRIBUTES = frozenset(("_shape", "maxprint", "_has_sorted_indices", "_has_canonical_format"))
_INDEX_DTYPES = (np.dtype(np.int32), np.dtype(np.int64))
_INTEGERS = (int, np.integer)


class Compressed(NamedTuple):
    """The plain arrays of a CSR or CSC matrix.

    `major` is its compressed axis: 0 for CSR, 1 for CSC; -1 for a 1-D array, which is one row and has no other axis.
    """

    data: np.ndarray  # (nnz,), native byte order, contiguous, read-only
    indices: np.ndarray  # (nnz,), int32 or int64, contiguous, read-only
    indptr: np.ndarray  # (n_major + 1,), int64, starts at 0, does not decrease, ends at nnz
    n_major: int
    n_minor: int
    major: int
    source: Any  # the SciPy object
    name: str = "x"  # which argument it is
    unknown: bool = False  # whether rows are sorted and without duplicates, where that matters


def is_sparse(x: Any) -> bool:
    """Whether x is one of the four compressed containers of SciPy."""
    return isinstance(x, SPARSE)


def scipy_class(x: Any) -> Any:
    """Which of the four containers x is: a subclass, such as anndata's views, is not ours to construct."""
    return next(cls for cls in SPARSE if isinstance(x, cls))


def is_backed(x: Any) -> bool:
    """Whether x is one of anndata's sparse datasets on disk; anndata is not imported to find out."""
    anndata = sys.modules.get("anndata.abc")
    return anndata is not None and isinstance(x, anndata.CSRDataset | anndata.CSCDataset)


def container(x: Any, name: str = "x") -> Any:
    """x as csr or csc, ndarray (np.matrix too), or Dask array.

    Other sparse formats are converted to csr, and a dataset on disk is loaded.
    """
    if is_sparse(x):
        _check_outline(x, name)
        check_dtype(x.dtype, name)
        return x
    if is_dask(x):
        check_dtype(x.dtype, name)
        return x
    if isinstance(x, np.ndarray | np.generic) and not isinstance(x, np.ma.MaskedArray):
        x = np.asarray(x)
        check_dtype(x.dtype, name)
        return x
    if sp.issparse(x):
        _check_outline(x, name)
        if x.ndim <= 2:
            check_dtype(x.dtype, name)
            return to_csr(x, name)
    if is_backed(x):
        from . import _backed

        return _backed.load(x)
    what = f"{x.ndim}-D {type(x).__name__}" if sp.issparse(x) else f"{type(x).__module__}.{type(x).__name__}"
    raise TypeError(f"{name} must be a {ACCEPTED}; got {what}")


def _check_outline(x: Any, name: str) -> None:
    """ValueError unless a sparse x has lengths for a shape, and an array of values: its other properties need both."""
    shape = x.shape
    good = isinstance(shape, tuple) and len(shape) > 0
    for n in shape if good else ():
        good = good and isinstance(n, _INTEGERS) and bool(n >= 0)
    if not good:
        raise ValueError(f"{name}.shape must be a tuple of lengths, got {shape}")
    if len(shape) > 2 and is_sparse(x):
        raise ValueError(f"{name}.shape must have one or two lengths, got {shape}")
    if hasattr(x, "data"):  # not dok
        _array(x.data, f"{name}.data")


def streamed(x: Any) -> Any:
    """As `container`, but a dataset on disk stays there: it is read block by block."""
    return x if is_backed(x) else container(x)


def to_csr(x: Any, name: str) -> Any:
    """A sparse x of another format as csr. Duplicates stay: to add them here might wrap."""
    coo = x.tocoo()
    if not isinstance(coo.coords, tuple) or len(coo.coords) != coo.ndim:
        raise ValueError(f"{name}.coords must be a tuple of {coo.ndim} arrays, got {coo.coords!r}")
    data = _vector(coo.data, f"{name}.data")
    rows, columns = (np.zeros(len(data), np.int32), coo.coords[0]) if coo.ndim == 1 else (coo.row, coo.col)
    n_rows, n_columns = (1, *coo.shape)[-2:]
    rows = _places(rows, n_rows, len(data), f"{name}.row")
    columns = _places(columns, n_columns, len(data), f"{name}.col")
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n_rows))))
    indices = columns[order]
    cls = sp.csr_array if isinstance(x, sp.sparray) else sp.csr_matrix
    return assemble(cls, x.shape, data[order], indices, narrow(indptr, indices.dtype))


def _places(array: Any, n: int, n_data: int, name: str) -> np.ndarray:
    """Row or column numbers of a COO matrix, checked."""
    array = integers(_vector(array, name), name)
    if len(array) != n_data:
        raise ValueError(f"{name} must have {n_data} entries, as the data; got {len(array)}")
    outside = (array < 0) | (array >= n)
    if outside.any():
        bad = int(outside.argmax())
        raise ValueError(f"{name}[{bad}] is {array[bad]}, but must be from 0 to {n - 1}")
    return array


def narrow(indptr: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Row pointers of int64 in int32, where the indices are of that type, as SciPy has them; if they fit."""
    return indptr.astype(dtype) if dtype == np.int32 and indptr[-1] < 2**31 else indptr


def native_dtype(dtype: np.dtype) -> np.dtype:
    """The type in this machine's byte order."""
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def check_dtype(dtype: np.dtype, name: str) -> None:
    """Refuse what is neither bool, an integer, float32/64 nor complex64/128."""
    if dtype not in _DTYPES and dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(
            f"{name} must have a bool, integer, float32, float64, complex64 or complex128 dtype; got {dtype}"
        )


def check_matrix(function: str, x: Any) -> None:
    """Refuse what is not 2-D, and complex numbers."""
    if len(x.shape) != 2:
        raise ValueError(f"{function} needs a 2-D x; got shape {x.shape}")
    if x.dtype.kind == "c":
        raise TypeError(f"{function} takes real numbers; got x of dtype {x.dtype}")


def check_options(op: str, zero_division: str) -> None:
    """ValueError for another operation, or another way to divide by zero."""
    if op not in ("multiply", "divide"):
        raise ValueError(f'op must be "multiply" or "divide", got {op!r}')
    if zero_division not in ("ieee", "one"):
        raise ValueError(f'zero_division must be "ieee" or "one", got {zero_division!r}')
    if zero_division == "one" and op != "divide":
        raise ValueError('zero_division="one" needs op="divide"')


def check_order(order: str) -> None:
    """ValueError for another order of elements in memory."""
    if order not in ("C", "F"):
        raise ValueError(f'order must be "C" or "F", got {order!r}')


def float_dtype(dtype: np.dtype) -> np.dtype:
    """The type of a mean, quotient or logarithm of values of `dtype`: floats and complex numbers stay."""
    return native_dtype(dtype) if dtype.kind in "fc" else np.dtype(float)


def axes_of(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """The axes to reduce, sorted, from None, an int or a tuple; AxisError for one that x does not have."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    if [one for one in axes if isinstance(one, bool) or not isinstance(one, _INTEGERS)]:
        raise TypeError(f"axis must be None, an int or a tuple of ints; got {axis!r}")
    if len(axes) == 1:
        return (normalize_axis_index(axes[0], ndim, "axis"),)
    return tuple(sorted(normalize_axis_tuple(axes, ndim, "axis")))


def one_axis(axis: int, ndim: int = 2) -> int:
    """A single axis, not negative."""
    if isinstance(axis, bool) or not isinstance(axis, _INTEGERS):
        raise TypeError(f"axis must be an int; got {axis!r}")
    return normalize_axis_index(axis, ndim, "axis")


def compressed(x: Any, *, canonical: bool | Literal["later"] = False, name: str = "x") -> Compressed:
    """The plain arrays of a csr or csc container, checked.

    With `canonical`, rows are sorted and without duplicates: on a copy (of integers, in 64 bits), where x is not. With
    "later" they are, or that is `unknown` yet.
    """
    shape = x.shape
    major = -1 if len(shape) == 1 else 0 if x.format == "csr" else 1
    n_major, n_minor = (1, shape[0]) if len(shape) == 1 else (shape[major], shape[1 - major])
    data, indices = _vector(x.data, f"{name}.data"), _vector(x.indices, f"{name}.indices")
    indptr = _vector(x.indptr, f"{name}.indptr")
    check_dtype(data.dtype, f"{name}.data")
    indices = integers(indices, f"{name}.indices")
    indptr = checked_indptr(indptr, n_major, len(data), len(indices), name)
    nnz = indptr.item(-1)
    # Views or copies, even of all entries: to make them read-only leaves the arrays of x as they are.
    data = np.ascontiguousarray(data[:nnz], native_dtype(data.dtype))
    indices = np.ascontiguousarray(indices[:nnz])
    for array in (data, indices, indptr):
        array.setflags(write=False)
    c = Compressed(data, indices, indptr, n_major, n_minor, major, x, name)
    # True and True in one place are True, not two.
    if not (canonical or data.dtype.kind == "b"):
        return c
    if canonical == "later" and not _is_known(x):
        return c._replace(unknown=True)
    if _is_canonical(c):
        return c
    check_all_indices(c)  # while positions are those of x
    # Duplicates add up as they do in a sum: narrow integers must not wrap.
    data = data.astype({"i": np.int64, "u": np.uint64}.get(data.dtype.kind, data.dtype))
    ordered = scipy_class(x)((data, indices.copy(), indptr.copy()), shape=x.shape)
    ordered.sum_duplicates()
    return compressed(ordered, name=name)


def _is_known(x: Any) -> bool:
    """Whether SciPy has a cached answer to that."""
    return hasattr(x, "_has_canonical_format") or getattr(x, "_has_sorted_indices", True) is False


def _is_canonical(c: Compressed) -> bool:
    """Whether rows are sorted and without duplicates: SciPy's cached answer, or one found now and cached."""
    if not _is_known(c.source):
        kernel = kernels()
        blocks = _blocks.per_thread(c.indptr)
        found = _blocks.run(lambda *block: kernel.is_canonical(c.indices, c.indptr, *block), blocks, len(c.data))
        c.source.has_canonical_format = all(list(found))
    return c.source.has_canonical_format


def _array(array: Any, name: str) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a numpy.ndarray, got {type(array).__name__}")
    return array


def _vector(array: Any, name: str) -> np.ndarray:
    if _array(array, name).ndim != 1:
        raise ValueError(f"{name} must be 1-D, got shape {array.shape}")
    return np.asarray(array)


def integers(array: np.ndarray, name: str) -> np.ndarray:
    """Indices as the kernels take them: int32 or int64 in native byte order."""
    if array.dtype in _INDEX_DTYPES:
        return array
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    if array.dtype == np.uint64 and len(array) and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}[{int(array.argmax())}] is {array.max()}, beyond int64")
    return array.astype(np.int64)


def checked_indptr(indptr: np.ndarray, n_major: int, n_data: int, n_indices: int, name: str) -> np.ndarray:
    """The row pointers in int64, a copy, if they are those of a matrix with so many rows, values and indices."""
    indptr = integers(indptr, f"{name}.indptr").astype(np.int64)
    if len(indptr) != n_major + 1:
        raise ValueError(f"{name}.indptr must have {n_major + 1} entries for its shape, got {len(indptr)}")
    if indptr.item(0) != 0:
        raise ValueError(f"{name}.indptr[0] must be 0, got {indptr[0]}")
    decreases = indptr[1:] < indptr[:-1]
    if np.count_nonzero(decreases):  # the cheapest look at a short array
        row = int(decreases.argmax())
        raise ValueError(
            f"{name}.indptr must not decrease, but indptr[{row}] = {indptr[row]}, indptr[{row + 1}] = {indptr[row + 1]}"
        )
    nnz = indptr.item(-1)
    if nnz > n_data or nnz > n_indices:
        part, length = ("data", n_data) if nnz > n_data else ("indices", n_indices)
        raise ValueError(f"{name}.indptr ends at {nnz}, but {name}.{part} has {length} entries")
    return indptr


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, or a view of it, that cannot be written: for what a kernel only reads. (Numba compiles it once.)"""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view


def raise_bad_index(c: Compressed, position: int) -> NoReturn:
    """The error for an index outside the matrix."""
    raise ValueError(
        f"{c.name}.indices[{position}] is {c.indices[position]}, but {'columns' if c.major == 0 else 'rows'} "
        f"go from 0 to {c.n_minor - 1}"
    )


def check_all_indices(c: Compressed) -> None:
    """Raise ValueError if an index is outside the matrix."""
    kernel = kernels()

    def check(start: int, stop: int) -> int:
        return kernel.check_indices(c.indices, c.indptr, start, stop, c.n_minor)

    for bad in _blocks.run(check, _blocks.per_thread(c.indptr), len(c.data)):
        if bad >= 0:
            raise_bad_index(c, bad)


def with_data(c: Compressed, data: np.ndarray, *, share: bool = False) -> Any:
    """A new container of the class of the source, with other values and its structure: a copy, or the same indices."""
    source = c.source
    # In the types of the source, unless SciPy would not take them: byte-swapped, unsigned, ...
    indptr = c.indptr.astype(source.indptr.dtype if source.indptr.dtype in _INDEX_DTYPES else np.int64)
    indices = source.indices if share and len(source.indices) == len(data) else c.indices.copy()
    cls: Any = type(source)
    if cls in SPARSE:  # a shallow copy with other arrays: a tenth of the constructor's time, and it has the flags
        result = cls.__new__(cls)
        vars(result).update({name: value for name, value in vars(source).items() if name in _OWN_ATTRIBUTES})
        result.data, result.indices, result.indptr = data, indices, indptr
        return result
    result = assemble(scipy_class(source), source.shape, data, indices, indptr)
    copy_flags(source, result)
    return result


def copy_flags(source: Any, result: Any) -> None:
    """Tell SciPy of the result what it has found out about the source, if anything: to ask would make it look."""
    for flag in ("has_sorted_indices", "has_canonical_format"):
        if hasattr(source, f"_{flag}"):
            setattr(result, flag, getattr(source, flag))


def assemble(cls: Any, shape: tuple[int, ...], data: np.ndarray, indices: np.ndarray, indptr: np.ndarray) -> Any:
    """A container of exactly these arrays: SciPy's constructor would look at them, and might change their types."""
    result = cls(shape, dtype=data.dtype.newbyteorder("="))
    result.data, result.indices, result.indptr = data, indices, indptr
    return result


def as_row(x: Any) -> Any:
    """A 1-D csr_array as a matrix of one row."""
    return assemble(sp.csr_array, (1, *x.shape), x.data, x.indices, x.indptr)


def native(c: Compressed) -> Any:
    """The source, its indices checked, as SciPy's own functions can take it: in native byte order, contiguous."""
    check_all_indices(c)
    return scipy_class(c.source)((c.data, c.indices, c.indptr), shape=c.source.shape)
