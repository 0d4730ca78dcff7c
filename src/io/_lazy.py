"""Dask arrays of rows on disk, and of rows that are kept in memory in a narrow form."""

from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse as sp
from dask.base import tokenize
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from ..dispatch import _graphs, _narrow
from ._rows import Others, Rows


class Reading(MaterializedLayer):
    """The tasks that read the blocks of rows between the edges."""

    def __init__(self, name: str, rows: Rows, edges: list[int]) -> None:
        self.rows, self.edges = rows, edges
        super().__init__({(name, i, 0): (Rows.read, rows, *block) for i, block in enumerate(pairwise(edges))})


def read(rows: Rows, edges: list[int]) -> da.Array:
    """A Dask array of csr blocks, each read when it is used."""
    name = f"csraxis-read-{_token(rows, edges)}"
    return _array(name, HighLevelGraph({name: Reading(name, rows, edges)}, {name: set()}), rows, edges)


class Known(MaterializedLayer):
    """A layer of chunks as they are, which says what they are of."""

    def __init__(self, name: str, stored: Others, x: da.Array) -> None:
        self.stored = stored
        super().__init__({(name, *key[1:]): key for key in flatten(x.__dask_keys__())})


def known(x: da.Array, stored: Others) -> da.Array:
    """The same array, of which `source` gives what was stored."""
    name = f"csraxis-stored-{tokenize(x.name)}"
    dependencies: list[Any] = [x]
    graph = HighLevelGraph.from_collections(name, Known(name, stored, x), dependencies)
    return da.Array(graph, name, x.chunks, meta=x._meta)


def source(x: da.Array) -> Rows | Others | None:
    """What `open` made the array of; None for any other."""
    layer = x.dask.layers.get(x.name)
    return layer.rows if isinstance(layer, Reading) else layer.stored if isinstance(layer, Known) else None


def narrow(rows: Rows, edges: list[int]) -> da.Array:
    """The same in narrow blocks: for `_rows.fold`, `take_columns` and `wide`, and nothing else."""
    name = f"csraxis-narrow-{_token(rows, edges)}"
    graph: dict[Any, Any] = {(name, i, 0): (Rows.narrow, rows, *block) for i, block in enumerate(pairwise(edges))}
    return _array(name, HighLevelGraph({name: graph}, {name: set()}), rows, edges)


def take_columns(x: da.Array, keep: np.ndarray) -> da.Array:
    """Narrow blocks of some of the columns."""
    name = f"csraxis-narrow-taken-{tokenize(x.name, keep)}"
    graph, (shared,) = _graphs.once(name, [keep])
    graph |= {(name, i, 0): (_narrow.take_columns, (x.name, i, 0), shared) for i in range(x.numblocks[0])}
    return _like(x, name, graph, int(np.count_nonzero(keep)))


def wide(x: da.Array) -> da.Array:
    """The csr blocks of an array of narrow ones."""
    name = f"csraxis-wide-{tokenize(x.name)}"
    return _like(x, name, {(name, i, 0): (_narrow.widen, (x.name, i, 0)) for i in range(x.numblocks[0])}, x.shape[1])


def _like(x: da.Array, name: str, graph: dict[Any, Any], width: int) -> da.Array:
    dependencies: list[Any] = [x]
    return da.Array(
        HighLevelGraph.from_collections(name, graph, dependencies), name, (x.chunks[0], (width,)), meta=x._meta
    )


def _token(rows: Rows, edges: list[int]) -> str:
    stamps = [array.stamp for array in (rows.data, rows.indices)]
    return tokenize(str(rows.path), rows.name, rows.shape, stamps, edges)


def _array(name: str, graph: HighLevelGraph, rows: Rows, edges: list[int]) -> da.Array:
    chunks = (tuple(np.diff(edges).tolist()), (rows.shape[1],))
    meta: Any = sp.csr_matrix((0, 0), dtype=rows.dtype)
    return da.Array(graph, name, chunks, meta=meta)
