"""The array functions on Dask arrays: csraxis's own graphs over chunks that may be sparse.

Dask's own reductions and products fail on SciPy chunks, or are silently wrong. Here each chunk becomes a dense partial,
and partials merge in chunk order. No function computes anything when it is called, but for the totals that the median
target of `normalize` needs. Layers are named after the input's name, the function and its parameters: the token of a
SciPy object changes with the flags that SciPy caches in it.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from . import _elementwise, _normalize, _partials, _reductions, _scaling
from ._inputs import check_dtype, container, float_dtype, is_dask, is_sparse

# How many partials one task merges.
SPLIT_EVERY = 8


def reduce(
    name: str,
    x: da.Array,
    partial_of: Callable[[Any], Any],
    combine: Callable[[list], Any],
    finishes: list[Callable[[Any], Any]],
    axes: tuple[int, ...],
    keepdims: bool,
    dtype: np.dtype,
) -> list[da.Array]:
    """One array for each of `finishes`: partials of every chunk, merged along `axes` in chunk order."""
    merged_name = f"csraxis-{name}-{tokenize(x.name, partial_of, axes)}"
    partials = _blockwise(partial_of, f"{merged_name}-chunk", x.dtype, x, tuple(range(x.ndim)))
    kept = [range(1) if axis in axes else range(n) for axis, n in enumerate(x.numblocks)]
    graph: dict[Any, Any] = {}
    for place in product(*kept):
        inside = [range(n) if axis in axes else [place[axis]] for axis, n in enumerate(x.numblocks)]
        keys: list[Any] = [(partials.name, *block) for block in product(*inside)]
        level = 0
        while len(keys) > SPLIT_EVERY:
            groups = [keys[i : i + SPLIT_EVERY] for i in range(0, len(keys), SPLIT_EVERY)]
            keys = [(f"{merged_name}-{level}", *place, i) for i in range(len(groups))]
            graph.update((key, (combine, group)) for key, group in zip(keys, groups))
            level += 1
        graph[(merged_name, *place)] = (combine, keys)
    dependencies: list[Any] = [partials]
    merged = HighLevelGraph.from_collections(merged_name, graph, dependencies)
    chunks = [(1,) * (axis in axes) or sizes for axis, sizes in enumerate(x.chunks) if keepdims or axis not in axes]
    results = []
    for finish in finishes:
        result_name = f"{merged_name}-{tokenize(finish)}"
        layer: dict[Any, Any] = {
            (result_name, *(i for axis, i in enumerate(place) if keepdims or axis not in axes)): (
                finish,
                (merged_name, *place),
            )
            for place in product(*kept)
        }
        whole = HighLevelGraph(
            {**merged.layers, result_name: layer}, {**merged.dependencies, result_name: {merged_name}}
        )
        results.append(da.Array(whole, result_name, chunks, meta=np.empty((0,) * len(chunks), dtype)))
    return results


def axis_scale(x: da.Array, factors: Any, *, axis: int, op: str, out: Any, zero_division: str) -> da.Array:
    """See `csraxis.axis_scale`."""
    _no_out(out)
    if is_dask(factors):
        factors = _lazy_factors(factors, x.shape, axis)
    else:
        _check_known(x.shape[axis], "factors")
        factors = _scaling.as_factors(factors, x.shape, axis)
    dtype = _scaling.scaled_dtype(x.dtype, factors.dtype, op)  # type: ignore[arg-type]
    block = partial(_axis_scale, axis=axis, op=op, zero_division=zero_division)
    return map_chunks(block, "axis_scale", x, dtype, along(factors, x, axis, "factors"), axis=axis)


def normalize(
    x: da.Array,
    *,
    axis: int,
    target_sum: float | None,
    log1p: bool,
    out: Any = None,
    dtype: np.dtype | None = None,
    totals: np.ndarray | None = None,
) -> da.Array:
    """See `csraxis.normalize`. Totals that are known already are used, and not computed again."""
    _no_out(out)
    if x.ndim != 2:
        raise ValueError(f"x must be 2-D, got shape {x.shape}")
    if x.dtype.kind == "c":
        raise TypeError(f"normalize takes real numbers; got x of dtype {x.dtype}")
    dtype = dtype or float_dtype(x.dtype)
    if target_sum is None:
        known = row_totals(x, axis, dtype).compute() if totals is None else totals
        target_sum = _normalize.median_of_positive(known)
        if not np.isnan(x.shape[1 - axis]):  # else they cannot be matched to the chunks, which add up their own again
            totals = known
    block = partial(_normalize_block, axis=axis, target_sum=float(target_sum), log1p=log1p, dtype=dtype)
    if x.numblocks[axis] == 1 and totals is None:
        return map_chunks(block, "normalize", x, dtype)
    lazy_totals = row_totals(x, axis, dtype) if totals is None else totals
    return map_chunks(block, "normalize", x, dtype, along(lazy_totals, x, 1 - axis, "totals"), axis=1 - axis)


def row_totals(x: da.Array, axis: int, dtype: np.dtype) -> da.Array:
    """Sums over `axis` of the values cast to `dtype`, in float64, lazily."""
    block = partial(_partials.sums, axes=(axis,), dtype=dtype)
    finish = partial(_ravel_total, axis=axis)
    return reduce("totals", x, block, _reductions.add_sums, [finish], (axis,), False, np.dtype(float))[0]


def log1p(x: da.Array, *, out: Any = None) -> da.Array:
    """See `csraxis.log1p`."""
    _no_out(out)
    return map_chunks(_elementwise.log1p, "log1p", x, float_dtype(x.dtype))


def to_dense(x: da.Array, *, order: str) -> da.Array:
    """See `csraxis.to_dense`."""
    block = partial(_elementwise.to_dense, order=order)  # type: ignore[arg-type]
    name = f"csraxis-to_dense-{tokenize(x.name, order)}"
    return _blockwise(block, name, x.dtype, x, tuple(range(x.ndim)))


def binary(name: str, x1: Any, x2: Any) -> da.Array:
    """See `csraxis.multiply` and `csraxis.divide`."""
    dtype = _dense(_like(x1), _like(x2), name).dtype
    sparse = [is_sparse(x._meta if is_dask(x) else x) for x in (x1, x2)]
    if not any(sparse):  # Dask's own broadcasting is right on dense chunks
        return da.core.elemwise(partial(_dense, name=name), _as_dense(x1), _as_dense(x2), dtype=dtype)
    if all(sparse):
        raise TypeError(f"{name} of two sparse matrices is not supported; {_elementwise.PAIRS}")
    swapped = sparse[1]
    x, other = (x2, x1) if swapped else (x1, x2)
    if not is_dask(x):
        raise TypeError(f"{name} of a sparse matrix in memory and a Dask array is not supported; {_elementwise.PAIRS}")
    block = partial(_binary, name=name, swapped=swapped)
    meta = np.empty((0, 0), dtype) if swapped and name == "divide" else _meta(x, dtype)
    if _elementwise.is_scalar(other):
        layer = f"csraxis-{name}-{tokenize(x.name, other, swapped)}"
        return _blockwise(partial(block, other=other), layer, dtype, x, (0, 1), meta=meta)
    if not np.isnan([*x.shape, *other.shape]).any():  # what is unknown shows when it is computed
        _elementwise.check_shape(name, x, other)
    other = _as_dense(other)
    if other.ndim == 1:
        other = other[None, :]
    axes = tuple(axis for axis, n in enumerate(other.shape) if n != 1)
    flat = _in_chunks(other[tuple(slice(None) if axis in axes else 0 for axis in range(other.ndim))], x, axes, name)
    layer = f"csraxis-{name}-{tokenize(x.name, flat.name, swapped)}"
    return _blockwise(partial(block, axes=axes), layer, dtype, x, (0, 1), flat, axes, meta=meta)


def _blockwise(block: Callable, name: str, dtype: np.dtype, *arrays: Any, meta: Any = None) -> da.Array:
    """Each chunk of the first array through `block`, with what belongs to it of the others."""
    check_dtype(arrays[0].dtype, "x")
    meta = np.empty((0,) * arrays[0].ndim, dtype) if meta is None else meta
    return da.blockwise(block, arrays[1], *arrays, name=name, dtype=dtype, meta=meta, align_arrays=False)


def map_chunks(
    block: Callable, name: str, x: da.Array, dtype: np.dtype, vector: da.Array | None = None, axis: int = 0
) -> da.Array:
    """Chunks of the class of x's, in `dtype`."""
    arrays = [x, tuple(range(x.ndim)), *([] if vector is None else [vector, (axis,)])]
    token = tokenize(x.name, block, None if vector is None else vector.name)
    return _blockwise(block, f"csraxis-{name}-{token}", dtype, *arrays, meta=_meta(x, dtype))


def _meta(x: da.Array, dtype: np.dtype) -> Any:
    """An empty chunk like x's, in `dtype`; np.matrix becomes ndarray."""
    return x._meta.astype(dtype) if is_sparse(x._meta) else np.empty((0,) * x.ndim, dtype)


def along(vector: Any, x: da.Array, axis: int, name: str) -> da.Array:
    """A vector in chunks that go with those of x along `axis`."""
    return _in_chunks(vector, x, (axis,), name)


def _in_chunks(operand: Any, x: da.Array, axes: tuple[int, ...], name: str) -> da.Array:
    """An operand with as many axes as `axes`, in the chunks that x has along them."""
    chunks = tuple(x.chunks[axis] for axis in axes)
    lengths = [x.shape[axis] for axis in axes] + list(operand.shape)
    if is_dask(operand) and np.isnan(lengths).any() and operand.numblocks == tuple(map(len, chunks)):
        return operand
    for length in lengths:
        _check_known(length, name)
    if is_dask(operand):
        return operand.rechunk(chunks)
    return da.from_array(operand, chunks, name=f"csraxis-operand-{tokenize(operand, chunks)}")


def _check_known(length: float, name: str) -> None:
    if np.isnan(length):
        raise ValueError(
            f"{name} cannot be matched to chunks of unknown size: call compute_chunk_sizes() on them first"
        )


def _lazy_factors(factors: da.Array, shape: tuple[int, ...], axis: int) -> da.Array:
    """As `_scaling.as_factors`, for a Dask array: a length that is unknown shows when it is computed."""
    if is_sparse(factors._meta):
        raise TypeError(
            f"factors must be a dense array of shape ({shape[axis]},); got {type(factors._meta).__name__} chunks"
        )
    given = factors.shape
    if factors.ndim == 2 and factors.shape[1 - axis] == 1:
        factors = _as_dense(factors)  # a row or column of an np.matrix would stay 2-D
        factors = factors[:, 0] if axis == 0 else factors[0]
    if factors.ndim != 1 or (factors.shape[0] != shape[axis] and not np.isnan([factors.shape[0], shape[axis]]).any()):
        raise ValueError(
            f"factors must have shape ({shape[axis]},) for axis={axis} of x with shape {shape}; got {given}"
        )
    return factors


def _no_out(out: Any) -> None:
    if out is not None:
        raise ValueError("out is not supported for Dask arrays: they are lazy")


def _like(x: Any) -> Any:
    """Something small that promotes as x does."""
    return x if _elementwise.is_scalar(x) else np.ones(1, x.dtype)


def _as_dense(x: Any) -> Any:
    """A Dask array of ndarrays, with one chunk along axes of length one: Dask cannot broadcast several."""
    if not is_dask(x):
        return x
    return to_dense(x, order="C").rechunk({axis: 1 for axis, n in enumerate(x.shape) if n == 1})


def _axis_scale(block: Any, factors: np.ndarray, **options: Any) -> Any:
    return _scaling.axis_scale(block, factors, **options)


def _normalize_block(block: Any, totals: np.ndarray | None = None, **options: Any) -> Any:
    return _normalize.normalize_to(container(block), totals=totals, **options)[0]


def _ravel_total(sums: Any, axis: int) -> np.ndarray:
    return sums.total.ravel()


def _dense(x1: Any, x2: Any, name: str) -> Any:
    with np.errstate(all="ignore"):
        return _elementwise.OPS[name](x1, x2)


def _binary(block: Any, other: Any, name: str, swapped: bool, axes: tuple[int, ...] = ()) -> Any:
    if axes == (0,):
        other = other[:, None]
    return _elementwise.binary(name, other, block) if swapped else _elementwise.binary(name, block, other)
