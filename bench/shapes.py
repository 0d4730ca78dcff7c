"""On what: one row of `SHAPES` for each matrix."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from bench import generate

Progress = Callable[[int, int], None]


class Unavailable(Exception):
    """The matrix is not on this machine; the message says what to do."""


@dataclass(frozen=True)
class Size:
    """What the user asked of a generated matrix."""

    cells: int = 100_000
    genes: int = 30_000


@dataclass(frozen=True)
class Shape:
    """One row: a matrix of counts."""

    name: str
    what: str
    load: Callable[[Size, Progress | None], sparse.csr_matrix]
    file: str | None = None
    """Its file in CSRAXIS_DATA, where it is not part of the repository."""


def data_folder() -> Path:
    """Where the larger real matrices are."""
    return Path(os.environ.get("CSRAXIS_DATA") or "../shared/data")


def absence(shape: Shape) -> str | None:
    """Why the matrix cannot be loaded here, or None."""
    if shape.file is None or (data_folder() / shape.file).is_file():
        return None
    return f"{data_folder() / shape.file} is absent: set CSRAXIS_DATA to the folder that holds {shape.file}"


def load(shape: Shape, size: Size | None = None, progress: Progress | None = None) -> sparse.csr_matrix:
    """The matrix as float32 counts in csr_matrix, the class that AnnData files hold and every peer accepts.

    Raises
    ------
    Unavailable
        If its file is absent.
    """
    reason = absence(shape)
    if reason:
        raise Unavailable(reason)
    return shape.load(size or Size(), progress)


def _from_file(path: Path) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.load_npz(path), dtype=np.float32)


def _from_folder(file: str) -> Callable[[Size, Progress | None], sparse.csr_matrix]:
    return lambda size, progress: _from_file(data_folder() / file)


def _generated(size: Size, progress: Progress | None) -> sparse.csr_matrix:
    return generate.load(generate.Parameters(size.cells, size.genes), progress)


SHAPES = (
    Shape(
        "pbmc3k",
        "2,700 cells x 32,738 genes, 10x Genomics, embedded",
        load=lambda size, progress: _from_file(generate.EMBEDDED),
    ),
    Shape("generated", "--cells x --genes, in the style of single-cell counts", load=_generated),
    Shape(
        "pbmc_merged",
        "8,456 cells x 35,900 genes, five 10x sets joined",
        load=_from_folder("pbmc_merged_raw.npz"),
        file="pbmc_merged_raw.npz",
    ),
    Shape(
        "text_terms",
        "886,323 documents x 64,576 terms, 7 stored values a row, 57,602 empty rows",
        load=_from_folder("text_terms.npz"),
        file="text_terms.npz",
    ),
)
