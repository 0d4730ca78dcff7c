"""The array functions on Dask arrays, whose chunks may be sparse.

No function computes anything when it is called, but for the totals that the median target of `normalize` needs.
"""

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from . import _binary, _elementwise, _gram, _normalize, _partials, _reductions, _scaling, _select
from ._chunks import (
    blockwise,
    check_known,
    declared,
    from_memory,
    in_chunks,
    map_chunks,
    meta_like,
    reduce,
    side_by_side,
)
from ._graphs import merge_in_order, once
from ._inputs import compressed, container, float_dtype, is_dask, is_sparse


def gram(x: da.Array, dtype: np.dtype) -> da.Array:
    """See `csraxis.gram`. Each block of rows gives one matrix of sums."""
    name = f"csraxis-gram-{tokenize(x.name, x.dtype, dtype)}"
    n_rows, n_columns = x.numblocks
    graph: dict[Any, Any] = {
        (f"{name}-chunk", i): (_gram_of_row, [(x.name, i, j) for j in range(n_columns)], x.dtype) for i in range(n_rows)
    }
    merge_in_order(graph, (f"{name}-sum", 0, 0), [(f"{name}-chunk", i) for i in range(n_rows)], _merge_grams)
    graph[(name, 0, 0)] = (_finish_gram, (f"{name}-sum", 0, 0), dtype)
    m = x.shape[1]
    dependencies: list[Any] = [x]
    layers = HighLevelGraph.from_collections(name, graph, dependencies)
    return da.Array(layers, name, ((m,), (m,)), meta=np.empty((0, 0), dtype))


def _gram_of_row(blocks: list[Any], dtype: np.dtype) -> np.ndarray:
    return _gram.pack(_gram.partial_gram(side_by_side(blocks, dtype)))


def _merge_grams(parts: list[np.ndarray]) -> np.ndarray:
    return _gram.add_grams([parts[0].copy(), *parts[1:]])  # a task does not change what it gets


def _finish_gram(sums: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return _gram.finish_gram(_gram.unpack(sums), dtype)


def axis_scale(x: da.Array, factors: Any, *, axis: int, op: str, out: Any, zero_division: str) -> da.Array:
    """See `csraxis.axis_scale`."""
    _no_out(out)
    if is_dask(factors):
        factors = _lazy_factors(factors, x.shape, axis)
    else:
        check_known(x.shape[axis], "factors")
        factors = _scaling.as_factors(factors, x.shape, axis)
    dtype = _scaling.scaled_dtype(x.dtype, factors.dtype, op)  # type: ignore[arg-type]
    block = partial(_axis_scale, axis=axis, op=op, zero_division=zero_division)
    return map_chunks(block, "axis_scale", x, dtype, (factors, axis, "factors"))


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
    return map_chunks(block, "normalize", x, dtype, (lazy_totals, 1 - axis, "totals"))


def row_totals(x: da.Array, axis: int, dtype: np.dtype) -> da.Array:
    """Sums over `axis` of the values cast to `dtype`, in float64, lazily."""
    block = partial(_partials.sums, axes=(axis,), dtype=dtype)
    finish = partial(_ravel_total, axis=axis)
    return reduce("totals", x, block, _reductions.add_sums, [finish], (axis,), False, np.dtype(float))[0]


def log1p_of_normalized(x: da.Array) -> da.Array | None:
    """log(1 + x) of what `normalize` made: each chunk in one go, without a matrix in between; None for others."""
    made = _normalized(x)
    if made is None or made.how["log1p"]:
        return None
    block = partial(_normalize_block, **made.how | {"log1p": True})
    arrays = [part for array, axes in made.arrays for part in (array, axes)]
    return blockwise(block, f"csraxis-normalize-log1p-{x.name[-32:]}", x.dtype, *arrays, meta=meta_like(x, x.dtype))


class _Normalized(NamedTuple):
    """The options of `_normalize_block`, and its arrays with their axes: a matrix and, if they were given, totals."""

    how: dict[str, Any]
    arrays: list[tuple[da.Array, tuple[int, ...]]]


def _normalized(x: da.Array) -> _Normalized | None:
    """How `normalize` made x, and of what; None for other arrays."""
    layer: Any = x.dask.layers.get(x.name)
    made: Any = getattr(getattr(layer, "task", None), "func", None)
    block: Any = getattr(made, "keywords", {}).get("block")
    if getattr(block, "func", None) is not _normalize_block:
        return None
    arrays = []
    for (name, index), dtype in zip(layer.indices, made.keywords["dtypes"]):
        axes = tuple(layer.output_indices.index(one) for one in index)
        meta = meta_like(x, dtype) if len(axes) == 2 else np.empty(0, dtype)
        arrays.append((da.Array(x.dask, name, tuple(x.chunks[axis] for axis in axes), meta=meta), axes))
    return _Normalized(block.keywords, arrays)


def unary(name: str, x: da.Array, *, out: Any = None) -> da.Array:
    """See `csraxis.log1p` and the other functions of single elements."""
    _no_out(out)
    fused = log1p_of_normalized(x) if name == "log1p" else None
    if fused is not None:
        return fused
    return map_chunks(getattr(_elementwise, name), name, x, _elementwise.unary_dtype(name, x.dtype))


def to_dense(x: da.Array, *, order: str) -> da.Array:
    """See `csraxis.to_dense`."""
    block = partial(_elementwise.to_dense, order=order)  # type: ignore[arg-type]
    name = f"csraxis-to_dense-{tokenize(x.name, x.dtype, order)}"
    return blockwise(block, name, x.dtype, x, tuple(range(x.ndim)))


def take(x: da.Array, keep: np.ndarray, axis: int) -> da.Array:
    """See `_select.take`. Chunks along `axis` shrink, and those of which nothing is kept are not computed.

    Where `normalize` made x, columns are taken first: of a few thousand genes, most of its work is saved.
    """
    check_known(x.shape[axis], "keep")
    _select.check_keep(keep, x.shape, axis)
    parts = np.split(keep.copy(), np.cumsum(x.chunks[axis])[:-1])  # a later change of `keep` would change the graph
    used = [i for i, part in enumerate(parts) if part.any()] or [0]  # an axis has a chunk, if an empty one
    name = f"csraxis-take-{tokenize(x.name, x.dtype, keep, axis)}"
    graph, masks = once(name, parts) if x.numblocks[1 - axis] > 1 else ({}, parts)
    block_of, arrays = partial(_take_block, axis=axis), [(x, tuple(range(x.ndim)))]
    made = _normalized(x)
    if made is not None and axis == 1 and made.how["axis"] == 1:
        block_of, arrays = partial(_take_normalized, how=made.how), made.arrays
    for place in product(*(range(len(used) if i == axis else n) for i, n in enumerate(x.numblocks))):
        of = (*place[:axis], used[place[axis]], *place[axis + 1 :])
        keys = [(array.name, *(of[i] for i in axes)) for array, axes in arrays]
        graph[(name, *place)] = (block_of, masks[of[axis]], arrays[0][0].dtype, *keys)
    sizes = tuple(int(np.count_nonzero(parts[i])) for i in used)
    chunks = (*x.chunks[:axis], sizes, *x.chunks[axis + 1 :])
    dependencies: list[Any] = [array for array, _ in arrays]
    layers = HighLevelGraph.from_collections(name, graph, dependencies)
    return da.Array(layers, name, chunks, meta=meta_like(x, x.dtype.newbyteorder("=")))


def binary(name: str, x1: Any, x2: Any) -> da.Array:
    """See `csraxis.multiply` and `csraxis.divide`."""
    dtype = _binary.apply(name, _like(x1), _like(x2)).dtype
    sparse = [is_sparse(x._meta if is_dask(x) else x) for x in (x1, x2)]
    if not any(sparse):  # Dask's own broadcasting is right on dense chunks
        block = partial(_dense_pair, name=name, dtypes=tuple(x.dtype if is_dask(x) else None for x in (x1, x2)))
        return da.core.elemwise(block, _broadcastable(x1), _broadcastable(x2), dtype=dtype)
    # x is the sparse operand whose shape the result has, as in memory.
    swapped = not sparse[0] or (sparse[1] and _binary.is_smaller(x1, x2))
    x, other = (x2, x1) if swapped else (x1, x2)
    block = partial(_pair, name=name, swapped=swapped)
    meta = np.empty((0,) * x.ndim, dtype) if swapped and name == "divide" else meta_like(x, dtype)
    if _binary.is_scalar(other):
        layer = f"csraxis-{name}-{tokenize(x.name, x.dtype, other, swapped)}"
        return blockwise(partial(block, other=other), layer, dtype, x, tuple(range(x.ndim)), meta=meta)
    if not np.isnan([*x.shape, *other.shape]).any():  # what is unknown shows when it is computed
        _binary.check_shape(name, x, other)
    x = x if is_dask(x) else _lift(x, other)
    axes = tuple(range(x.ndim))
    if not all(sparse) or _binary.is_smaller(other, x):
        other = _as_dense(other)
        other = other[(None,) * (x.ndim - other.ndim)]
        axes = tuple(axis for axis, n in enumerate(other.shape) if n != 1)
        other = other[tuple(slice(None) if axis in axes else 0 for axis in range(other.ndim))]
    other = in_chunks(other, x, axes, f"{name}: an operand")
    layer = f"csraxis-{name}-{tokenize(x.name, x.dtype, other.name, other.dtype, swapped)}"
    return blockwise(partial(block, axes=axes), layer, dtype, x, tuple(range(x.ndim)), other, axes, meta=meta)


def _lift(x: Any, other: da.Array) -> da.Array:
    """A sparse matrix in memory as a Dask array, in the chunks of the other operand."""
    of = (((1,),) * x.ndim + other.chunks)[-x.ndim :]
    chunks = [of[axis] if sum(of[axis]) == n else (n,) for axis, n in enumerate(x.shape)]
    return from_memory(x, tuple(chunks))


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
    return x if _binary.is_scalar(x) else np.ones(1, x.dtype)


def _as_dense(x: Any) -> Any:
    """An ndarray, or a Dask array of ndarrays in chunks that broadcast."""
    return _broadcastable(to_dense(x, order="C")) if is_dask(x) else _partials.to_ndarray(x)


def _broadcastable(x: Any) -> Any:
    """The same with one chunk along axes of length one: Dask cannot broadcast several (of which some are empty)."""
    if not is_dask(x):
        return x
    several = {axis: 1 for axis, n in enumerate(x.shape) if n == 1 and x.numblocks[axis] > 1}
    return to_dense(x, order="C").rechunk(several) if several else x


def _take_block(keep: np.ndarray, dtype: np.dtype, block: Any, *, axis: int) -> Any:
    return _select.take(declared(block, dtype), keep, axis)


def _take_normalized(
    keep: np.ndarray, dtype: np.dtype, block: Any, totals: np.ndarray | None = None, *, how: dict[str, Any]
) -> Any:
    """Columns of what is normalised, from the totals of all columns."""
    block = declared(block, dtype)
    if how["log1p"] and is_sparse(block) and compressed(block, canonical=True).source is not block:
        # Duplicates are added up before the logarithm, in an order (that of SciPy's sort) that hangs on all columns.
        return _select.take(_normalize_block(block, totals, **how), keep, 1)
    totals = _normalize.row_totals(block, 1, how["dtype"]) if totals is None else totals
    return _normalize_block(_select.take(block, keep, 1), totals, **how)


def _axis_scale(block: Any, factors: np.ndarray, **options: Any) -> Any:
    return _scaling.axis_scale(block, factors, **options)


def _normalize_block(block: Any, totals: np.ndarray | None = None, **options: Any) -> Any:
    return _normalize.normalize_to(container(block), totals=totals, **options)[0]


def _ravel_total(sums: Any, axis: int) -> np.ndarray:
    return sums.total.ravel()


def _dense_pair(*pair: Any, name: str, dtypes: tuple[np.dtype | None, ...]) -> Any:
    return _binary.binary(name, *(x if dtype is None else declared(x, dtype) for x, dtype in zip(pair, dtypes)))


def _pair(block: Any, other: Any, name: str, swapped: bool, axes: tuple[int, ...] = ()) -> Any:
    if axes == (0,) and block.ndim == 2:
        other = other[:, None]
    return _binary.binary(name, other, block) if swapped else _binary.binary(name, block, other)
