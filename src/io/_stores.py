"""AnnData files whose matrices stay on disk, as Dask arrays of chunks that are read when they are used."""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ._rows import Others, edges_of, rows_of

# Stored values in a chunk (of a dense matrix: elements): 32 MB of float32 with 32-bit indices, 64 MB.
SPARSE_CHUNK, DENSE_CHUNK = 1 << 22, 1 << 24
# What is read when a file is opened.
EAGER = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")


def open(path: str | PathLike, *, chunk_rows: int | None = None) -> Any:
    """An AnnData whose X and layers are Dask arrays over a file; everything else is read now.

    Parameters
    ----------
    path : str or path
        A `.h5ad` file or a `.zarr` folder, as anndata writes them. It must stay as it is while the AnnData is used:
        never write the AnnData to the same path.
    chunk_rows : int, optional
        Cells in a chunk. Default: so many that a chunk has about four million stored values. A matrix stored in
        columns (CSC) is cut into chunks of columns, and this is the number of genes; steps that need whole cells
        (top shares in QC, PCA, and what follows a normalisation to a given total) then hold all of it in memory.

    Returns
    -------
    AnnData

    Raises
    ------
    FileNotFoundError, ValueError
        For a path that is not there, or no AnnData file.
    ImportError
        If anndata or Dask (or zarr, for a folder) is not installed.

    Examples
    --------
    >>> import csraxis as cx, anndata, os, scipy.sparse as sp, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "cells.h5ad")
    >>> anndata.AnnData(sp.random(100, 20, 0.3, format="csr")).write_h5ad(path)
    >>> adata = cx.pp.open(path, chunk_rows=40)
    >>> adata.X.numblocks
    (3, 1)
    >>> folder.cleanup()
    """
    import anndata
    from anndata.io import read_elem

    if chunk_rows is not None and (
        isinstance(chunk_rows, bool) or not isinstance(chunk_rows, int | np.integer) or chunk_rows < 1
    ):
        raise ValueError(f"chunk_rows must be a positive int or None, got {chunk_rows!r}")
    chunk_rows = None if chunk_rows is None else int(chunk_rows)
    path = _existing(path)
    with _opened(path) as store:
        if not {"obs", "var"} <= set(store):
            raise ValueError(f"{path} is not an AnnData file: it has no obs and var")
        parts = {name: read_elem(store[name]) for name in EAGER if name in store}
        lazy = partial(_lazy, path, store, chunk_rows)
        layers = {name: lazy(f"layers/{name}") for name in store.get("layers", {})}
        x = lazy("X") if "X" in store and store["X"].attrs.get("encoding-type") != "null" else None
        raw, stored = None, store.get("raw")
        if hasattr(stored, "keys"):  # else it says that there is none
            raw = {"X": lazy("raw/X"), "var": read_elem(stored["var"])}
            raw |= {"varm": read_elem(stored["varm"])} if "varm" in stored else {}
        return anndata.AnnData(X=x, layers=layers, raw=raw, **parts)


def lazy_matrix(path: str | PathLike, name: str, chunk_rows: int | None = None) -> Any:
    """One matrix of a file, as `open` has it."""
    path = _existing(path)
    with _opened(path) as store:
        if name not in store:
            raise ValueError(f"{path} has no {name}")
        return _lazy(path, store, chunk_rows, name)


def _existing(path: str | PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return path


def _opened(path: Path) -> Any:
    """The file or folder, to be used in a with statement."""
    if path.is_dir():
        from contextlib import nullcontext

        import zarr

        try:
            return nullcontext(zarr.open_group(str(path), mode="r"))
        except Exception as error:
            raise ValueError(f"{path} is not a zarr store: {error}") from error
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or is damaged: {error}") from error


def _lazy(path: Path, store: Any, chunk_rows: int | None, name: str) -> Any:
    """A Dask array over a matrix of the file."""
    from anndata.experimental import read_elem_lazy

    from ._lazy import known, read

    stored = store[name]
    kind = stored.attrs.get("encoding-type", "array")
    if kind not in ("csr_matrix", "csc_matrix"):
        if len(stored.shape) != 2:
            return read_elem_lazy(stored)
        rows = chunk_rows or max(1, DENSE_CHUNK // max(stored.shape[1], 1))
        x = read_elem_lazy(stored, chunks=(min(rows, max(stored.shape[0], 1)), stored.shape[1]))
        return known(x, Others(path, name, False, stored.shape[0] * stored.shape[1]))
    n, m = (int(n) for n in stored.attrs["shape"])
    if kind == "csr_matrix":
        rows = rows_of(path, name, (n, m))
        return read(rows, [0, *range(chunk_rows, n, chunk_rows), n] if chunk_rows else edges_of(rows, SPARSE_CHUNK))
    n_values = stored["data"].shape[0]
    length = chunk_rows or max(1, m * SPARSE_CHUNK // max(n_values, 1))
    return known(read_elem_lazy(stored, chunks=(n, min(length, max(m, 1)))), Others(path, name, True, n_values))
