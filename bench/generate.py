"""Count matrices of any size in the style of single-cell data, made chunk by chunk and cached as raw arrays.

A chunk of rows is a function of (parameters, seed, chunk number) alone, so any of them can be made without the others.
Counts are negative binomial, drawn as bursts: a negative binomial variable is a Poisson number of logarithmically
distributed bursts, so the work grows with the stored values and not with the zeros.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy import sparse

EMBEDDED = Path(__file__).parent / "data" / "pbmc3k_raw.npz"

# Part of the cache key: raise it whenever the same parameters give other numbers.
VERSION = 1


@dataclass(frozen=True)
class Parameters:
    """What defines a generated matrix; the defaults describe the embedded one."""

    cells: int
    genes: int
    seed: int = 0
    median_total: float = 2200.0  # counts in the median cell
    log10_sd: float = 0.185  # of the totals
    dispersion: float = 2.2  # r of the negative binomial: variance = mean + mean^2 / r
    cell_types: int = 8
    chunk_rows: int = 4096

    @property
    def n_chunks(self) -> int:
        """Chunks in the matrix; the last may be shorter."""
        return -(-self.cells // self.chunk_rows)

    @property
    def key(self) -> str:
        """A folder name that no other parameters share."""
        digest = hashlib.sha256(json.dumps([VERSION, asdict(self)], sort_keys=True).encode()).hexdigest()
        return f"{self.cells}x{self.genes}-{digest[:12]}"


@functools.cache
def _embedded_abundances() -> np.ndarray:
    """Share of all counts per gene of the embedded matrix, ascending."""
    totals = np.sort(np.asarray(sparse.load_npz(EMBEDDED).sum(axis=0), dtype=np.float64).ravel())
    # Genes unseen in 2,700 cells are rare rather than absent: in a hundred thousand some of them turn up.
    totals += 0.01
    return totals / totals.sum()


@functools.lru_cache(maxsize=1)
def _burst_model(parameters: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the cell types, and per (type, gene) the bursts of a median cell and the log-series parameter."""
    rng = np.random.default_rng([parameters.seed, 1])
    quantiles = (np.arange(parameters.genes) + 0.5) / parameters.genes
    embedded = _embedded_abundances()
    abundance = np.interp(quantiles, (np.arange(embedded.size) + 0.5) / embedded.size, embedded)
    rng.shuffle(abundance)
    shares = rng.dirichlet(np.full(parameters.cell_types, 5.0))
    # One gene in twenty marks a type: up or down by about a factor of four.
    marker = rng.random((parameters.cell_types, parameters.genes)) < 0.05
    profile = abundance * np.exp(1.4 * marker * rng.standard_normal(marker.shape))
    mean = profile * (parameters.median_total / profile.sum(axis=1, keepdims=True))
    p = mean / (mean + parameters.dispersion)
    bursts = -parameters.dispersion * np.log1p(-p)
    return shares, bursts, p.astype(np.float32)


def _burst_sizes(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """Logarithmically distributed integers by inversion; few bursts survive each step, so it is short."""
    sizes = np.ones(p.size, dtype=np.int32)
    # Double precision in the tail costs nothing: most bursts are done after the first comparison.
    rest = rng.random(p.size, dtype=np.float32)
    mass = -p / np.log1p(-p)
    alive = np.flatnonzero(rest >= mass)
    rest, mass, p = rest[alive] - mass[alive], mass[alive], p[alive]
    k = 1
    # float32 rounding could leave a remainder that no tail covers: 5,000 is far beyond every real count.
    while alive.size and k < 5000:
        mass = mass * p * np.float32(k / (k + 1))
        k += 1
        sizes[alive] = k
        more = rest >= mass
        alive, rest, mass, p = alive[more], rest[more] - mass[more], mass[more], p[more]
    return sizes


def chunk(parameters: Parameters, number: int) -> sparse.csr_matrix:
    """Rows ``number * chunk_rows`` and following, int32 counts, canonical.

    Raises
    ------
    IndexError
        If the matrix has no such chunk.
    """
    if not 0 <= number < parameters.n_chunks:
        raise IndexError(f"chunk must be in [0, {parameters.n_chunks}), got {number}")
    rows = min(parameters.chunk_rows, parameters.cells - number * parameters.chunk_rows)
    shares, bursts, p = _burst_model(parameters)
    rng = np.random.default_rng([parameters.seed, 2, number])
    # Student's t with 5 degrees of freedom has variance 5/3. The clip stops a freak cell from outweighing its chunk.
    deviation = np.clip(rng.standard_t(5, size=rows) / np.sqrt(5 / 3), -6, 6)
    size = 10.0 ** (parameters.log10_sd * deviation)
    kind = rng.choice(parameters.cell_types, size=rows, p=shares)

    row_parts, column_parts, value_parts = [], [], []
    for t in range(parameters.cell_types):
        members = np.flatnonzero(kind == t)
        if members.size == 0:
            continue
        # The bursts of a gene over all cells of the type, then a cell for each, in proportion to its size: a table of
        # 65,536 slots turns one 16-bit draw into a cell.
        cumulative = np.cumsum(size[members])
        per_gene = rng.poisson(bursts[t] * cumulative[-1])
        slots = (np.arange(65536) + 0.5) * (cumulative[-1] / 65536)
        table = members[np.searchsorted(cumulative, slots)].astype(np.int32)
        draws = rng.integers(0, 65536, size=int(per_gene.sum()), dtype=np.uint16)
        row_parts.append(table[draws])
        column_parts.append(np.repeat(np.arange(parameters.genes, dtype=np.int32), per_gene))
        value_parts.append(_burst_sizes(rng, np.repeat(p[t], per_gene)))
    # Columns ascend within each type and a row has one type, so the conversion leaves sorted rows, and adds up the
    # bursts of a gene in a cell.
    coordinates = (np.concatenate(row_parts), np.concatenate(column_parts))
    counts = sparse.coo_matrix((np.concatenate(value_parts), coordinates), shape=(rows, parameters.genes))
    return counts.tocsr()


def cache_folder() -> Path:
    """Where generated matrices are kept: outside the repository, following the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "csraxis-bench"


class _GrowingNpy:
    """A one-dimensional .npy file whose length is known at the end (NumPy's header leaves room for it)."""

    def __init__(self, path: Path, dtype: type) -> None:
        self.file: BinaryIO = path.open("wb")
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._write_header()

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, values: np.ndarray) -> None:
        """Write the values behind the others, as the dtype of the file."""
        values.astype(self.dtype, copy=False).tofile(self.file)
        self.length += values.size

    def close(self) -> None:
        """Write the header again, now with the length."""
        self.file.seek(0)
        self._write_header()
        self.file.close()


def write(parameters: Parameters, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write data.npy (float32), indices.npy (int32) and indptr.npy (int64); the folder appears only when complete.

    Parameters
    ----------
    progress
        Called with (chunks done, chunks in all).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as name:
        unfinished = Path(name) / "matrix"
        unfinished.mkdir()
        data = _GrowingNpy(unfinished / "data.npy", np.float32)
        indices = _GrowingNpy(unfinished / "indices.npy", np.int32)
        indptr = _GrowingNpy(unfinished / "indptr.npy", np.int64)
        try:
            indptr.append(np.zeros(1))
            for number in range(parameters.n_chunks):
                if progress is not None:
                    progress(number, parameters.n_chunks)
                part = chunk(parameters, number)
                indptr.append(part.indptr[1:].astype(np.int64) + data.length)
                data.append(part.data)
                indices.append(part.indices)
        finally:
            for file in (data, indices, indptr):
                file.close()
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def load(parameters: Parameters, progress: Callable[[int, int], None] | None = None) -> sparse.csr_matrix:
    """The whole matrix as float32, from the cache, made first where it is absent."""
    folder = cache_folder() / parameters.key
    if not (folder / "indptr.npy").exists():
        write(parameters, folder, progress)
    data, indices, indptr = (np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr"))
    return sparse.csr_matrix((data, indices, indptr), shape=(parameters.cells, parameters.genes))
