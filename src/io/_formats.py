"""Count matrices in the formats that are not AnnData's: of 10x Genomics, Matrix Market, and SciPy's .npz."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _stores
from ._flat import MISSING
from ._rows import edges_of, rows_of

MATRICES = ("matrix.mtx", "matrix.mtx.gz")
EXPRESSION = "Gene Expression"


class Source(NamedTuple):
    """A matrix on disk, and how it is read."""

    format: str
    path: Path
    read: Callable[..., Any]
    """`read(path, chunk_rows=None)` gives an AnnData whose X is a Dask array of cells x genes."""
    count: Callable[..., int]
    """`count(path, layer)` gives the number of stored values."""
    size: Callable[[Path], int] | None = None
    """`size(path)`: bytes of memory that reading takes, of a format that cannot be read in pieces."""

    def open(self, chunk_rows: int | None = None) -> Any:
        """An AnnData whose X is a Dask array: over the file, or over a matrix in memory."""
        return self.read(self.path, chunk_rows=chunk_rows)

    def n_stored(self, layer: str | None = None) -> int:
        """How many values of X, or of a layer, are stored; from the headers of the file."""
        return self.count(self.path, layer)

    def held(self) -> int:
        """Bytes of memory that opening takes, from the headers of the file; 0 if it is read in pieces."""
        return self.size(self.path) if self.size is not None else 0


def source_of(path: Path, *, transpose: bool = False) -> Source:
    """How a path is read: by its name, and a folder by what is in it; `transpose` is for .mtx, see `read_mtx`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing, for any other name, and for a folder that is neither a zarr store nor one of 10x Genomics.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    name = path.name.lower()
    if path.is_dir():
        for matrix in (path / matrix for matrix in MATRICES):
            if matrix.exists():
                return Source("10x folder", matrix, read_10x_mtx, count_in_mtx, size_of_mtx)
        if any((path / member).exists() for member in (".zgroup", "zarr.json")):
            return Source("zarr", path, open_anndata, count_in_anndata)
        raise ValueError(
            f"{path} is a folder, but neither a zarr store (no .zgroup or zarr.json) nor one of 10x Genomics "
            "(no matrix.mtx or matrix.mtx.gz)"
        )
    if name.endswith(".h5ad"):
        return Source("h5ad", path, open_anndata, count_in_anndata)
    if name.endswith(".h5"):
        with _stores._opened(path) as file:
            is_anndata = {"obs", "var"} <= set(file)
        return Source("h5", path, *((open_anndata, count_in_anndata) if is_anndata else (open_10x, count_in_10x)))
    if name in MATRICES and _beside(path, "barcodes.tsv") is not None:
        return Source("10x folder", path, read_10x_mtx, count_in_mtx, size_of_mtx)
    if name.endswith((".mtx", ".mtx.gz")):
        return Source("mtx", path, partial(read_mtx, transpose=transpose), count_in_mtx, size_of_mtx)
    if name.endswith(".npz"):
        return Source("npz", path, read_npz, count_in_npz, size_of_npz)
    raise ValueError(
        f"{path} is in no format that is known by its name: .h5ad, .zarr, .h5 (10x Genomics), .mtx or .mtx.gz, a "
        "folder with one and its barcodes and features, or .npz"
    )


# AnnData


def open_anndata(path: Path, *, chunk_rows: int | None = None) -> Any:
    """See `csraxis.pp.open`; a store of which chunks are missing is refused."""
    with _stores._opened(path) as store:
        for name in ("X", *(f"layers/{layer}" for layer in store.get("layers", {}))):
            if name in store and hasattr(store[name], "keys"):
                _check_complete(path, store[name])
    return _stores.open(path, chunk_rows=chunk_rows)


def _check_complete(path: Path, stored: Any) -> None:
    """ValueError if chunks of a sparse matrix in a zarr store are missing: zarr reads zeros there."""
    for name in ("data", "indices"):
        array = stored[name]
        missing = array.nchunks - array.nchunks_initialized if hasattr(array, "nchunks_initialized") else 0
        if missing:
            raise ValueError(f"{path}: {missing} of the {array.nchunks} chunks of {array.path} are missing: {MISSING}")


def count_in_anndata(path: Path, layer: str | None = None) -> int:
    """Stored values of X or of a layer; of a dense matrix all."""
    with _stores._opened(path) as store:
        stored = store["X" if layer is None else f"layers/{layer}"]
        return int((stored["data"] if hasattr(stored, "keys") else stored).size)


# 10x Genomics, HDF5


def open_10x(path: Path, *, chunk_rows: int | None = None) -> Any:
    """A .h5 file of Cell Ranger: X is a Dask array over the file, which is read when it is used.

    Its columns are cells, compressed: read as rows they are a CSR matrix of cells x genes. Of several types of features
    only gene expression is taken. Genes are named by their symbols, made unique; `var["gene_ids"]` has the others.
    """
    with _stores._opened(path) as file:
        group = _group_of_10x(path, file)
        stored = file[group]
        n_genes, n_cells = (int(n) for n in stored["shape"][:2])
        cells = _strings(stored["barcodes"])
        if "features" in stored:
            features = stored["features"]
            ids, symbols = _strings(features["id"]), _strings(features["name"])
            types = _strings(features["feature_type"]) if "feature_type" in features else None
        else:
            ids, symbols, types = _strings(stored["genes"]), _strings(stored["gene_names"]), None
    from . import _lazy

    rows = rows_of(path, group, (n_cells, n_genes))
    edges = edges_of(rows, _stores.SPARSE_CHUNK) if chunk_rows is None else [*range(0, n_cells, chunk_rows), n_cells]
    x = _lazy.read(rows, edges)
    return _annotated(path, x, cells, ids, symbols, types)


def count_in_10x(path: Path, layer: str | None = None) -> int:
    """Stored values of the matrix."""
    with _stores._opened(path) as file:
        return file[_group_of_10x(path, file)]["data"].shape[0]


def _group_of_10x(path: Path, file: Any) -> str:
    """`matrix` of Cell Ranger 3, or the one genome of Cell Ranger 2."""
    members = {"data", "indices", "indptr", "shape", "barcodes"}
    groups = [name for name, group in file.items() if hasattr(group, "keys") and members <= set(group)]
    if len(groups) == 1:
        return groups[0]
    if not groups:
        raise ValueError(
            f"{path} is neither an AnnData file (no obs and var) nor one of 10x Genomics (no group with "
            f"{', '.join(sorted(members))})"
        )
    raise ValueError(f"{path} has several genomes ({', '.join(groups)}): csraxis reads files with one")


def _strings(dataset: Any) -> np.ndarray:
    return dataset.asstr()[:].astype(object)


# Matrix Market


def count_in_mtx(path: Path, layer: str | None = None) -> int:
    """Stored values, from the line with the sizes."""
    from scipy.io import mminfo

    return mminfo(path)[2]


def size_of_mtx(path: Path) -> int:
    """Bytes, from the line with the sizes: of the entries, a value of 8 bytes and two indices, and of their CSR."""
    from scipy.io import mminfo

    rows, columns, entries, layout, field, symmetry = mminfo(path)
    if layout != "coordinate" or field not in ("integer", "unsigned-integer", "real"):
        raise ValueError(f"{path} must be a coordinate matrix of integers or reals; its header says {layout} {field}")
    if symmetry != "general":
        raise ValueError(f"{path} must be a general matrix; its header says {symmetry}, which counts cannot be")
    index = 4 if max(rows, columns) <= np.iinfo(np.int32).max else 8
    # Integers are cut down to 4 bytes first.
    return entries * max(8 + 2 * index + 4, (4 if field != "real" else 8) * 2 + 3 * index)


def read_mtx(path: Path, *, transpose: bool = False, chunk_rows: int | None = None) -> Any:
    """A .mtx or .mtx.gz file, whose rows are cells, or with `transpose` genes. Cells and genes are numbered."""
    import anndata

    return anndata.AnnData(_chunked(_matrix_market(path, transpose), chunk_rows))


def read_10x_mtx(path: Path, *, chunk_rows: int | None = None) -> Any:
    """A matrix.mtx of Cell Ranger (genes x cells), with barcodes.tsv and features.tsv or genes.tsv beside it."""
    import pandas as pd

    tables = {}
    for name, others in {"barcodes.tsv": (), "features.tsv": ("genes.tsv",)}.items():
        found = next((at for at in (_beside(path, each) for each in (name, *others)) if at is not None), None)
        if found is None:
            raise FileNotFoundError(
                f"{path.parent} has {path.name}, but no {' or '.join((name, *others))}, nor with .gz"
            )
        tables[name] = pd.read_csv(found, sep="\t", header=None, dtype=str, keep_default_na=False, na_filter=False)
    cells, features = tables["barcodes.tsv"][0].to_numpy(object), tables["features.tsv"]
    ids, symbols = (features[min(i, features.shape[1] - 1)].to_numpy(object) for i in (0, 1))
    types = features[2].to_numpy(object) if features.shape[1] > 2 else None
    x = _matrix_market(path, transpose=True)
    if x.shape != (len(cells), len(ids)):
        raise ValueError(
            f"{path} has {x.shape[1]:,} genes and {x.shape[0]:,} cells, but there are {len(ids):,} features and "
            f"{len(cells):,} barcodes"
        )
    return _annotated(path, _chunked(x, chunk_rows), cells, ids, symbols, types)


def _beside(path: Path, name: str) -> Path | None:
    """The file of that name in the same folder, perhaps compressed."""
    return next((at for at in (path.with_name(name), path.with_name(name + ".gz")) if at.exists()), None)


def _matrix_market(path: Path, transpose: bool) -> Any:
    """CSR, with integers in 32 bits where these hold them."""
    import scipy.io

    size_of_mtx(path)
    coo = scipy.io.mmread(path, spmatrix=True)
    limits = np.iinfo(np.int32)
    if coo.data.dtype.kind in "iu" and coo.nnz and limits.min <= coo.data.min() <= coo.data.max() <= limits.max:
        coo.data = coo.data.astype(np.int32)
    return (coo.T if transpose else coo).tocsr()


# SciPy's .npz


def size_of_npz(path: Path) -> int:
    """Bytes, from the headers of the arrays: CSR and CSC are used as they are, other formats become CSR."""
    kind, size, _ = _npz(path)
    return size if kind in ("csr", "csc") else 2 * size


def count_in_npz(path: Path, layer: str | None = None) -> int:
    """Stored values, from the headers of the arrays."""
    return _npz(path)[2]


def _npz(path: Path) -> tuple[str, int, int]:
    """The format of the matrix, the bytes of its arrays, and how many values are stored."""
    import math
    import zipfile

    from numpy.lib import format as npy

    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    is_first = npy.read_magic(file) == (1, 0)
                    header = (npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0)(file)
                headers[member.removesuffix(".npy")] = header
        with np.load(path) as arrays:
            kind = arrays["format"].item()
        stored = math.prod(headers["data"][0])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no sparse matrix of scipy.sparse.save_npz, or is damaged: {error}") from error
    size = sum(math.prod(shape) * dtype.itemsize for shape, _, dtype in headers.values())
    return kind.decode() if isinstance(kind, bytes) else str(kind), size, stored


def read_npz(path: Path, *, chunk_rows: int | None = None) -> Any:
    """A matrix that `scipy.sparse.save_npz` has written, cells x genes. Cells and genes are numbered."""
    import anndata
    import scipy.sparse as sp

    _npz(path)
    x = sp.load_npz(path)
    return anndata.AnnData(_chunked(x if x.format in ("csr", "csc") else x.tocsr(), chunk_rows))


# All of them


def _chunked(x: Any, chunk_rows: int | None) -> Any:
    """A CSR or CSC matrix in memory as a Dask array, in chunks as those of a file would be.

    `dask.array.from_array` would copy it.
    """
    import uuid

    import dask.array as da

    from ..dispatch._inputs import compressed, native

    x = native(compressed(x))
    major = 0 if x.format == "csr" else 1
    n = x.shape[major]
    length = min(chunk_rows or _rows_of_chunk(n, x.nnz), max(n, 1))
    chunks = tuple(min(length, n - start) for start in range(0, n, length)) or (0,)
    name = f"csraxis-in-memory-{uuid.uuid4().hex}"
    graph: dict[Any, Any] = {f"{name}-whole": x}
    for i, size in enumerate(chunks):
        key = (name, i, 0) if major == 0 else (name, 0, i)
        graph[key] = (_part, f"{name}-whole", major, i * length, i * length + size)
    along = (chunks, (x.shape[1],)) if major == 0 else ((x.shape[0],), chunks)
    return da.Array(graph, name, along, meta=type(x)((0, 0), dtype=x.dtype))


def _rows_of_chunk(n_rows: int, n_stored: int) -> int:
    """Rows (of a CSC matrix: columns) of a chunk, of a sparse matrix with so many stored values."""
    return max(1, n_rows * _stores.SPARSE_CHUNK // max(n_stored, 1))


def _part(x: Any, major: int, start: int, stop: int) -> Any:
    return x[start:stop] if major == 0 else x[:, start:stop]


def _annotated(path: Path, x: Any, cells: Any, ids: Any, symbols: Any, types: Any) -> Any:
    """An AnnData of the features that are genes."""
    import anndata
    import pandas as pd
    from anndata.utils import make_index_unique

    if len(cells) != x.shape[0] or not len(ids) == len(symbols) == x.shape[1]:
        raise ValueError(
            f"{path}: the matrix has {x.shape[0]:,} cells and {x.shape[1]:,} genes, but there are {len(cells):,} names "
            f"of cells and {len(ids):,} of genes"
        )
    var = pd.DataFrame({"gene_ids": ids}, index=make_index_unique(pd.Index(symbols.astype(str))))
    if types is not None:
        var["feature_types"] = types
        is_gene = types == EXPRESSION
        if not is_gene.any():
            raise ValueError(f"{path}: no feature is of type {EXPRESSION!r}; there are {', '.join(sorted(set(types)))}")
        if not is_gene.all():
            from ..dispatch._select import take

            x, var = take(x, is_gene, axis=1), var[is_gene].copy()
    return anndata.AnnData(x, obs=pd.DataFrame(index=pd.Index(cells.astype(str))), var=var)
