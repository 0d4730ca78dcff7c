"""Inputs and outputs that `csraxis pca` must refuse, and what it says; ``python tests/bad_inputs.py`` prints them."""

import gzip
import io
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp

CELLS, GENES = 300, 400
OPTIONS = ["--n-top-genes", "100", "--n-comps", "10", "--chunk-rows", "100", "--quiet"]


class Bad(NamedTuple):
    """One of them."""

    what: str
    arguments: list[str]
    """Of the command, in a folder with what `make` has made."""
    message: str
    make: Callable[[Path], object] = lambda folder: None
    status: int = 1


def counts():
    """A matrix with some structure."""
    rng = np.random.default_rng(0)
    return sp.csr_matrix(rng.poisson(rng.gamma(0.3, 1, (CELLS, 1)) * rng.gamma(0.5, 1, GENES) + 0.05).astype("f4"))


def write(adata, path):
    """As h5ad or zarr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path) if path.suffix == ".zarr" else adata.write_h5ad(path)


def store(name, x=None, **parts):
    """Write an AnnData."""
    return lambda folder: write(ad.AnnData(counts() if x is None else x, **parts), folder / name)


def edited(name, array, place, value):
    """A .h5ad file in which one number is another."""

    def make(folder):
        store(name)(folder)
        with h5py.File(folder / name, "r+") as file:
            file[f"X/{array}"][place] = value

    return make


def cut(name, make, share):
    """A file of which the end is missing."""

    def make_and_cut(folder):
        make(folder)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return make_and_cut


def without_chunk(name, array, left):
    """A .zarr store of which one chunk has only so many bytes, or with None is not there."""

    def make(folder):
        store(name)(folder)
        files = (folder / name / "X" / array).rglob("*")
        chunk = next(f for f in sorted(files) if f.is_file() and f.name not in (".zarray", ".zattrs", "zarr.json"))
        if left is None:
            chunk.unlink()
        else:
            chunk.write_bytes(chunk.read_bytes()[:left])

    return make


def market(name, text):
    """A Matrix Market file."""
    return lambda folder: (folder / name).write_text(f"%%MatrixMarket matrix coordinate integer general\n{text}\n")


def market_gz(name):
    """A compressed one."""

    def make(folder):
        target = io.BytesIO()
        scipy.io.mmwrite(target, counts().astype(int), field="integer")
        (folder / name).write_bytes(gzip.compress(target.getvalue()))

    return make


def huge_npz(folder):
    """The headers of a matrix that no machine holds, without the matrix."""
    headers = {"data": (10**13, "<f4"), "indices": (10**13, "<i8"), "indptr": (11, "<i8"), "shape": (2, "<i8")}
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        for name, (length, kind) in headers.items():
            header = io.BytesIO()
            about = {"descr": kind, "fortran_order": False, "shape": (length,)}
            np.lib.format.write_array_header_1_0(header, about)
            archive.writestr(f"{name}.npy", header.getvalue())
        text = io.BytesIO()
        np.save(text, np.array(b"csr"))
        archive.writestr("format.npy", text.getvalue())


def folder_10x(n_genes, n_cells):
    """A folder of 10x Genomics, for 2 cells and 3 genes."""

    def make(folder):
        (folder / "tenx").mkdir()
        market("tenx/matrix.mtx", "3 2 1\n1 1 1")(folder)
        if n_genes:
            (folder / "tenx/genes.tsv").write_text("".join(f"id{i}\tname{i}\n" for i in range(n_genes)))
            (folder / "tenx/barcodes.tsv").write_text("".join(f"cell{i}\n" for i in range(n_cells)))

    return make


def two_genomes(folder):
    """A file of Cell Ranger 2."""
    with h5py.File(folder / "two.h5", "w") as file:
        for name in ("hg19", "mm10"):
            for member in ("barcodes", "data", "indices", "indptr", "shape"):
                file[f"{name}/{member}"] = [0]


def other_h5(folder):
    """An HDF5 file with something else."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = 1


def a_folder(folder):
    """An empty one."""
    (folder / "folder").mkdir()


def text(name):
    """A file that is none."""
    return lambda folder: (folder / name).write_text("cells, genes")


def logged():
    """As scanpy leaves it."""
    return counts().log1p()


def pca(name, *more, output="out.h5ad"):
    """The arguments."""
    return ["pca", name, "-o", output, *OPTIONS, *more]


BAD = [
    Bad("nothing there", pca("nowhere.h5ad"), "no such file or folder: nowhere.h5ad"),
    Bad(
        "a name that says no format",
        pca("x.csv"),
        "x.csv is in no format that is known by its name: .h5ad, .zarr, .h5 (10x Genomics), .mtx or .mtx.gz, a folder "
        "with one and its barcodes and features, or .npz",
        text("x.csv"),
    ),
    Bad(
        "a folder that is no store",
        pca("folder"),
        "folder is a folder, but neither a zarr store (no .zgroup or zarr.json) nor one of 10x Genomics (no matrix.mtx "
        "or matrix.mtx.gz)",
        a_folder,
    ),
    Bad(
        "another file under that name",
        pca("x.h5ad"),
        "x.h5ad is not an HDF5 file, or is damaged: Unable to ... (file signature not found)",
        text("x.h5ad"),
    ),
    Bad(
        "a truncated .h5ad",
        pca("cut.h5ad"),
        "cut.h5ad is not an HDF5 file, or is damaged: Unable to ... (truncated file: ...",
        cut("cut.h5ad", store("cut.h5ad"), 0.6),
    ),
    Bad(
        "a chunk of a .zarr missing",
        pca("x.zarr"),
        "x.zarr: 1 of the 1 chunks of X/indices are missing: lost, or all zero, which zarr does not write and csraxis "
        "cannot tell from that",
        without_chunk("x.zarr", "indices", None),
    ),
    Bad(
        "a chunk of a .zarr truncated",
        pca("x.zarr"),
        "x.zarr: X/data[0:...] cannot be read: ...",
        without_chunk("x.zarr", "data", 50),
    ),
    Bad(
        "an index out of range",
        pca("x.h5ad"),
        "x.h5ad: X/indices[5] is 1000000, but columns go from 0 to 399",
        edited("x.h5ad", "indices", 5, 10**6),
    ),
    Bad(
        "indptr that decreases",
        pca("x.h5ad"),
        "x.h5ad: X.indptr must not decrease, but indptr[5] = 1000000, indptr[6] = ...",
        edited("x.h5ad", "indptr", 5, 10**6),
    ),
    Bad("NaN", pca("x.h5ad"), "x.h5ad: X has NaN or infinite values", edited("x.h5ad", "data", 5, np.nan)),
    Bad(
        "NaN in the last cell",
        pca("x.h5ad"),
        "x.h5ad: counts must be numbers that are not negative, got nan",
        edited("x.h5ad", "data", -1, np.nan),
    ),
    Bad(
        "a negative value",
        pca("x.h5ad"),
        "x.h5ad: X has negative values, which counts cannot be",
        edited("x.h5ad", "data", 5, -1),
    ),
    Bad(
        "a negative value in the last cell",
        pca("x.h5ad"),
        "x.h5ad: counts must be numbers that are not negative, got -1.0",
        edited("x.h5ad", "data", -1, -1),
    ),
    Bad(
        "logarithms",
        pca("x.h5ad"),
        "x.h5ad: X was logged already (uns['log1p']); --layer names a layer with counts",
        store("x.h5ad", logged(), uns={"log1p": {}}),
    ),
    Bad(
        "a dense X",
        pca("x.h5ad"),
        "x.h5ad: X is dense; store the counts as a sparse matrix (scipy.sparse.csr_matrix)",
        store("x.h5ad", counts().toarray()),
    ),
    Bad("no cells", pca("x.h5ad"), "x.h5ad is empty: 0 cells and 400 genes", store("x.h5ad", counts()[:0])),
    Bad("no counts", pca("x.h5ad"), "x.h5ad: no cell has counts", store("x.h5ad", sp.csr_matrix((300, 400)))),
    Bad(
        "too few genes",
        pca("x.h5ad"),
        "x.h5ad has 50 genes, fewer than --n-top-genes 100",
        store("x.h5ad", counts()[:, :50]),
    ),
    Bad(
        "too few cells",
        pca("x.h5ad"),
        "x.h5ad: n_comps must be an int from 1 to 8, got 10",
        store("x.h5ad", counts()[:8]),
    ),
    Bad(
        "no such layer",
        pca("x.h5ad", "--layer", "raw"),
        "x.h5ad: no layer 'raw'; there are 'counts'",
        store("x.h5ad", layers={"counts": counts()}),
    ),
    Bad(
        "no such batches",
        pca("x.h5ad", "--batch-key", "donor"),
        "x.h5ad: no column 'donor' in obs for --batch-key; there are none",
        store("x.h5ad"),
    ),
    Bad(
        "a .npz larger than the memory",
        pca("huge.npz"),
        "huge.npz: npz can only be read as a whole, which takes 120 TB of memory; ... is available. .h5ad, .zarr and "
        "10x .h5 files are read in pieces",
        huge_npz,
    ),
    Bad(
        "a .mtx larger than the memory",
        pca("huge.mtx"),
        "huge.mtx: mtx can only be read as a whole, which takes 20 TB of memory; ... is available. .h5ad, .zarr and "
        "10x .h5 files are read in pieces",
        market("huge.mtx", "1000000 30000 999999999999\n1 1 1"),
    ),
    Bad(
        "a dense .npz",
        pca("x.npz"),
        "x.npz is no sparse matrix of scipy.sparse.save_npz, or is damaged: ...",
        lambda folder: np.savez(folder / "x.npz", x=np.eye(3)),
    ),
    Bad(
        "a truncated .npz",
        pca("x.npz"),
        "x.npz is no sparse matrix of scipy.sparse.save_npz, or is damaged: File is not a zip file",
        cut("x.npz", lambda folder: sp.save_npz(folder / "x.npz", counts()), 0.5),
    ),
    Bad("not Matrix Market", pca("x.mtx"), "x.mtx: Line 1: Not a Matrix Market file. Missing banner.", text("x.mtx")),
    Bad(
        "a truncated .mtx",
        pca("x.mtx"),
        "x.mtx: Truncated file. Expected another 1 lines.",
        market("x.mtx", "9 9 2\n1 1 1"),
    ),
    Bad(
        "a .mtx with a row too many",
        pca("x.mtx"),
        "x.mtx: Line 3: Row index out of bounds",
        market("x.mtx", "9 9 1\n10 1 1"),
    ),
    Bad(
        "a truncated .mtx.gz",
        pca("x.mtx.gz"),
        "x.mtx.gz: Compressed file ended before the end-of-stream marker was reached",
        cut("x.mtx.gz", market_gz("x.mtx.gz"), 0.5),
    ),
    Bad(
        "a 10x folder without names",
        pca("tenx"),
        "tenx/matrix.mtx: tenx has matrix.mtx, but no barcodes.tsv, nor with .gz",
        folder_10x(0, 0),
    ),
    Bad(
        "a 10x folder with other names",
        pca("tenx"),
        "tenx/matrix.mtx has 3 genes and 2 cells, but there are 4 features and 2 barcodes",
        folder_10x(4, 2),
    ),
    Bad(
        "a .h5 of something else",
        pca("other.h5"),
        "other.h5 is neither an AnnData file (no obs and var) nor one of 10x Genomics (no group with barcodes, data, "
        "indices, indptr, shape)",
        other_h5,
    ),
    Bad(
        "a .h5 with two genomes",
        pca("two.h5"),
        "two.h5 has several genomes (hg19, mm10): csraxis reads files with one",
        two_genomes,
    ),
    Bad(
        "an output of no format",
        pca("x.h5ad", output="out.csv"),
        "out.csv: the output must end with .h5ad or .zarr",
        store("x.h5ad"),
    ),
    Bad(
        "an output in no folder",
        pca("x.h5ad", output="no/out.h5ad"),
        "no/out.h5ad: there is no folder no",
        store("x.h5ad"),
    ),
    Bad(
        "an output that exists",
        pca("x.h5ad", output="y.h5ad"),
        "y.h5ad exists already; --overwrite replaces it",
        lambda folder: (store("x.h5ad")(folder), store("y.h5ad")(folder)),
    ),
    Bad(
        "the input as output",
        pca("x.h5ad", "--overwrite", output="x.h5ad"),
        "x.h5ad: the output must not be the input, in it, or around it",
        store("x.h5ad"),
    ),
    Bad(
        "an output in the input",
        pca("x.zarr", output="x.zarr/out.h5ad"),
        "x.zarr/out.h5ad: the output must not be the input, in it, or around it",
        store("x.zarr"),
    ),
    Bad(
        "a picture of no format",
        pca("x.h5ad", "--plot", "x.doc"),
        "x.doc: a picture must end with one of ... .png, ...",
        store("x.h5ad"),
    ),
    Bad(
        "workers for what is read as a whole",
        pca("x.mtx", "--workers", "2"),
        "x.mtx: workers read from .h5ad, .zarr and 10x .h5 files only, as parts of these can be read",
        market("x.mtx", "9 9 1\n1 1 1"),
    ),
    Bad("no output", ["pca", "x.h5ad"], "Missing option '-o' / '--output'. (csraxis pca --help tells more)", status=2),
    Bad(
        "an unknown option",
        pca("x.h5ad", "--top-genes", "3"),
        "No such option ... (csraxis pca --help tells more)",
        status=2,
    ),
    Bad(
        "a number that is none",
        pca("x.h5ad", "--target-sum", "many"),
        "Invalid value for '--target-sum': 'many' is neither a positive float nor 'none' (csraxis pca --help tells "
        "more)",
        status=2,
    ),
    Bad(
        "an amount of memory that is none",
        pca("x.h5ad", "--memory", "much"),
        "Invalid value for '--memory': 'much' is no amount of memory such as 4GB or 500MB (csraxis pca --help tells "
        "more)",
        status=2,
    ),
    Bad(
        "two clusters",
        pca("x.h5ad", "--workers", "2", "--scheduler", "tcp://here:1"),
        "--workers and --scheduler exclude each other (csraxis pca --help tells more)",
        status=2,
    ),
]


def table():
    """In Markdown: what was given, and the line that was printed."""
    rows = ["| given | printed on stderr, after `csraxis: ` | exit status |", "|---|---|---|"]
    return [*rows, *(f"| {bad.what} | {bad.message} | {bad.status} |" for bad in BAD)]


if __name__ == "__main__":
    import contextlib

    from csraxis.cli._commands import main

    for bad in BAD:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            bad.make(Path(folder))
            print(f"\n{bad.what}: csraxis {' '.join(bad.arguments[:4])}", flush=True)
            print(f"exit status {main(bad.arguments)}", file=sys.stderr, flush=True)
    print(*table(), sep="\n")
