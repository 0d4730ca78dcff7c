"""A function of chunks as one of Dask arrays. (Dask's own fail on SciPy chunks, or are silently wrong.)

In reductions each chunk becomes a dense partial, and partials merge in chunk order. Layers are named after the input's
name, the function and its parameters: the token of a SciPy object changes with the flags that SciPy caches in it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from . import _narrow
from ._graphs import Pass, merge_in_order, once
from ._inputs import compressed, container, is_dask, is_sparse, native, scipy_class
from ._partials import to_ndarray
from ._rows import merge_as_they_come


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
    merged_name = f"csraxis-{name}-{tokenize(x.name, x.dtype, partial_of, axes)}"
    partials = blockwise(partial_of, f"{merged_name}-chunk", x.dtype, x, tuple(range(x.ndim)))
    kept = [range(1) if axis in axes else range(n) for axis, n in enumerate(x.numblocks)]
    graph: dict[Any, Any] = {}
    for place in product(*kept):
        inside = [range(n) if axis in axes else [place[axis]] for axis, n in enumerate(x.numblocks)]
        merge_in_order(graph, (merged_name, *place), [(partials.name, *block) for block in product(*inside)], combine)
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


def fold(
    x: da.Array,
    block_of: Callable,
    merge: Callable[[list], Any],
    rows: Sequence[Any],
    columns: Sequence[Any],
    shared: Sequence[Any],
    whole: bool,
    at_once: int,
) -> list:
    """See `_rows.fold`. One computation for all results."""
    lazy = [along(array, x, 0, "an array of the rows") for array in rows]
    if columns:
        check_known(x.shape[1], "an array of the columns")
    names = [array.name for array in lazy]
    block_of = partial(_narrow.in_pieces, block_of, merge, len(rows))
    name = f"csraxis-fold-{tokenize(x.name, x.dtype, block_of, merge, whole, names, columns, shared)}"
    n_rows, n_columns = x.numblocks
    sides = [range(n_columns)] if whole else [range(j, j + 1) for j in range(n_columns)]
    edges = np.cumsum((0, x.shape[1]) if whole else (0, *x.chunks[1]))
    blocks = [[(x.name, i, j) for j in side] + [(array, i) for array in names] for side in sides for i in range(n_rows)]
    over = Pass([x, *lazy], blocks)
    graph, together = once(name, shared)
    for g, side in enumerate(sides):
        parts = [array[..., edges[g] : edges[g + 1]] for array in columns]
        along_columns = once(f"{name}-columns-{g}", parts, graph)[1]
        keys = []
        for i, group in enumerate(over.groups(range(g * n_rows, (g + 1) * n_rows))):
            keys.append((f"{name}-chunk", g, i))
            arguments = (block_of, merge, at_once, x.dtype, len(side), [*along_columns, *together])
            over.task(graph, keys[-1], _fold_blocks, group, *arguments)
        over.merge(graph, (name, g), keys, merge, at_once)
    return over.compute(name, graph, [(name, g) for g in range(len(sides))])


def _fold_blocks(
    blocks: Iterator[list],
    block_of: Callable,
    merge: Callable[[list], Any],
    at_once: int,
    dtype: np.dtype,
    n_columns: int,
    arrays: list[Any],
) -> Any:
    of_each = (block_of(side_by_side(parts[:n_columns], dtype), *parts[n_columns:], *arrays) for parts in blocks)
    return merge_as_they_come(of_each, merge, at_once)


def map_rows(
    block_of: Callable, name: str, x: da.Array, width: int, dtype: np.dtype, shared: Sequence, like: Any = None
) -> da.Array:
    """`block_of(rows, *shared)` of each block of whole rows: `width` columns, of the class of `like`, or an ndarray."""
    name = f"csraxis-{name}-{tokenize(x.name, x.dtype, block_of, shared)}"
    graph, together = once(name, shared)
    for i in range(x.numblocks[0]):
        blocks = [(x.name, i, j) for j in range(x.numblocks[1])]
        graph[(name, i, 0)] = (_of_row, block_of, x.dtype, blocks, together)
    dependencies: list[Any] = [x]
    layers = HighLevelGraph.from_collections(name, graph, dependencies)
    meta = np.empty((0, 0), dtype) if like is None else meta_like(like, dtype)
    return da.Array(layers, name, (x.chunks[0], (width,)), meta=meta)


def _of_row(block_of: Callable, dtype: np.dtype, blocks: list[Any], arrays: list[Any]) -> Any:
    return block_of(side_by_side(blocks, dtype), *arrays)


def map_chunks(
    block: Callable, name: str, x: da.Array, dtype: np.dtype, *vectors: tuple[Any, int, str], dense: bool = False
) -> da.Array:
    """Chunks of the class of x's (or ndarrays), in `dtype`. A vector comes with its axis and its name."""
    lazy = [(along(vector, x, axis, what), (axis,)) for vector, axis, what in vectors]
    token = tokenize(x.name, x.dtype, block, dense, *((vector.name, vector.dtype) for vector, _ in lazy))
    arrays = [x, tuple(range(x.ndim)), *(part for pair in lazy for part in pair)]
    meta = None if dense else meta_like(x, dtype)
    return blockwise(block, f"csraxis-{name}-{token}", dtype, *arrays, meta=meta)


def blockwise(block: Callable, name: str, dtype: np.dtype, *arrays: Any, meta: Any = None) -> da.Array:
    """Each chunk of the first array through `block`, with what belongs to it of the others."""
    x, axes = arrays[:2]
    meta = np.empty((0,) * x.ndim, dtype) if meta is None else meta
    block = partial(_on_declared, block=block, dtypes=tuple(array.dtype for array in arrays[::2]))
    return da.blockwise(block, axes, *arrays, name=name, dtype=dtype, meta=meta, align_arrays=False)


def _on_declared(*chunks: Any, block: Callable, dtypes: tuple[np.dtype, ...]) -> Any:
    return block(*map(declared, chunks, dtypes))


def declared(chunk: Any, dtype: np.dtype) -> Any:
    """A chunk in the type that its array declares, whatever it comes in; a narrow block as it is."""
    if isinstance(chunk, _narrow.Narrow):
        return chunk
    chunk = container(chunk)
    with np.errstate(all="ignore"):
        return chunk if chunk.dtype == dtype else chunk.astype(dtype)


def side_by_side(blocks: list[Any], dtype: np.dtype) -> Any:
    """The chunks of one block of rows as one matrix."""
    blocks = [declared(block, dtype) for block in blocks]
    if len(blocks) == 1:
        return blocks[0]
    if all(is_sparse(block) for block in blocks):
        return sp.hstack([native(compressed(block)) for block in blocks], format="csr")
    return np.hstack([to_ndarray(block) for block in blocks])


def meta_like(x: da.Array, dtype: np.dtype) -> Any:
    """An empty chunk like x's, in `dtype`; np.matrix becomes ndarray."""
    meta = x._meta if is_dask(x) else x
    if not sp.issparse(meta):
        return np.empty((0,) * x.ndim, dtype)
    return scipy_class(container(meta))((0,) * x.ndim, dtype=dtype)


def along(vector: Any, x: da.Array, axis: int, name: str) -> da.Array:
    """A vector in chunks that go with those of x along `axis`."""
    return in_chunks(vector, x, (axis,), name)


def in_chunks(operand: Any, x: da.Array, axes: tuple[int, ...], name: str) -> da.Array:
    """An operand with as many axes as `axes`, in the chunks that x has along them."""
    chunks = tuple(x.chunks[axis] for axis in axes)
    lengths = [x.shape[axis] for axis in axes] + list(operand.shape)
    if is_dask(operand) and np.isnan(lengths).any() and operand.numblocks == tuple(map(len, chunks)):
        return operand
    for length in lengths:
        check_known(length, name)
    if is_dask(operand):
        return operand if operand.chunks == chunks else _checked(operand).rechunk(chunks)
    return from_memory(operand, chunks)


def from_memory(x: Any, chunks: tuple) -> da.Array:
    """An array in memory, cut into chunks. (Dask's token of a sparse matrix changes with the flags cached in it.)"""
    if not is_sparse(x):
        return da.from_array(x, chunks, name=f"csraxis-operand-{tokenize(x, chunks)}")
    name = f"csraxis-operand-{tokenize(scipy_class(x).__name__, x.shape, x.data, x.indices, x.indptr, chunks)}"
    return da.from_array(native(compressed(x)), chunks, name=name, asarray=False)


def _checked(x: da.Array) -> da.Array:
    """The same, where sparse chunks are looked at before SciPy cuts them: it reads outside of malformed ones."""
    if not is_sparse(x._meta):
        return x
    name = f"csraxis-checked-{tokenize(x.name)}"
    return blockwise(_native, name, x.dtype, x, tuple(range(x.ndim)), meta=x._meta)


def _native(chunk: Any) -> Any:
    return native(compressed(chunk)) if is_sparse(chunk) else chunk


def check_known(length: float, name: str) -> None:
    if np.isnan(length):
        raise ValueError(
            f"{name} cannot be matched to chunks of unknown size: call compute_chunk_sizes() on them first"
        )


def persist(x: da.Array) -> da.Array:
    """The same array with its chunks in memory: on a cluster in that of the workers, neighbours on one of them."""
    over, graph, name = _each_chunk(x)
    return over.persist(name, graph, x)


def in_memory(x: da.Array) -> list[Any]:
    """The chunks of an array, in their order. Each comes as it is; `compute` puts all together on one worker first."""
    over, graph, name = _each_chunk(x)
    return over.compute(name, graph, list(graph))


def _each_chunk(x: da.Array) -> tuple[Pass, dict, str]:
    places = list(product(*map(range, x.numblocks)))
    over = Pass([x], [[(x.name, *place)] for place in places])
    name, graph = f"csraxis-chunk-{tokenize(x.name)}", dict[Any, Any]()
    for number, place in enumerate(places):
        over.task(graph, (name, *place), _only_part, range(number, number + 1))
    return over, graph, name


def _only_part(blocks: Iterator[list]) -> Any:
    ((chunk,),) = blocks
    return chunk
