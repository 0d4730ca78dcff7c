"""How the chain goes over a matrix on disk within so much memory, decided before anything of it is read."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..dispatch._inputs import is_dask
from ..dispatch._narrow import WIDE
from ..io._rows import Others, Rows, edges_of
from ..io._stores import lazy_matrix

# Stored values in a block on disk: at most, and at least (less costs more in the merging of partial results).
LARGEST, SMALLEST = 1 << 24, 1 << 19
# Blocks of what is smaller. Not as many as there are threads: the order of addition, and with it the last bits, would
# depend on them. (84 M values on two threads: 8 blocks 2.2 s, 16 2.7, 32 3.5, 64 5.6: each has products of its own.)
BLOCKS = 16
# Bytes for each value of a block: narrow; and, of as many as are wide at a time, as values, columns and copies of both.
NARROW, AT_WORK = 4, 20
# Of each selected value that is stored in columns: kept, side by side, in rows, and scaled.
IN_COLUMNS = 40
# Totals, scores and what becomes of them, for each cell.
PER_CELL = 450
# What is kept, the best first.
WAYS = ("counts", "selected genes")
# What the interpreter and its libraries will still allocate, and what they hold in a worker.
SPARE, WORKER = 80 << 20, 300 << 20
# How many genes are chosen where cut-offs do it; these have at most so many times as many values as others.
USUAL_CHOICE, DENSER = 2_000, 2
# Numbers of each gene in partial results of a thread; and how many matrices of genes x genes there are while those of
# blocks merge, besides one for each thread.
STATISTICS, SQUARES = 50, 7
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)}


class Plan(NamedTuple):
    """How the chain goes."""

    rows: Rows | None
    """The csr matrix on disk; None for one that is stored in columns, or dense."""
    edges: list[int]
    """Cells (in columns: genes) at which blocks begin and end."""
    keeps: str
    """What stays in memory after the first pass: "counts" or "selected genes"."""
    passes: int
    """How often the matrix is read from disk."""
    threads: int
    """How many blocks are at work at once in a process."""
    peak: int
    """Bytes that a process is expected to hold at most."""

    @property
    def chunk_rows(self) -> int:
        """Cells (genes) in the largest block."""
        return int(np.diff(self.edges).max(initial=0))


def plan(
    path: str | os.PathLike,
    *,
    memory: int | str | None = None,
    n_top_genes: int | None = 2000,
    flavor: str = "seurat",
    target_sum: float | None = 1e4,
    exclude_highly_expressed: bool = False,
    layer: str | None = None,
    chunk_rows: int | None = None,
) -> Plan:
    """What `recipe_pca` with these arguments is going to do, before it reads more than a few cells.

    Raises
    ------
    FileNotFoundError, ValueError
        For a path that is not there, or has no such matrix; and if no plan fits the memory.
    """
    x = lazy_matrix(path, "X" if layer is None else f"layers/{layer}", chunk_rows)
    n_passes = passes_of(flavor, target_sum, exclude_highly_expressed)
    found = plan_of(x, memory_of(memory), n_top_genes, n_passes, chunk_rows)
    assert found is not None
    return found


def passes_of(flavor: str, target_sum: float | None, exclude_highly_expressed: bool) -> int:
    """How often the counts are gone over."""
    return 2 + flavor.startswith("seurat_v3") + (target_sum is None) + exclude_highly_expressed


def plan_of(x: Any, memory: int | None, n_top_genes: int | None, n_passes: int, chunk_rows: int | None) -> Plan | None:
    """The plan for an array that `open` made; None for any other."""
    if not is_dask(x):
        return None
    from ..io._lazy import source

    stored = source(x)
    if stored is None:
        return None
    room = Room(memory, *_workers())
    if isinstance(stored, Rows):
        return _of_rows(stored, room, n_top_genes, n_passes, chunk_rows)
    return _of_others(x, stored, room, n_top_genes, n_passes)


class Room(NamedTuple):
    """What there is for the work."""

    memory: int | None
    """Bytes that a process may hold; None: no limit."""
    usual: int
    """Bytes that may be used without being asked for."""
    processes: int
    threads: int
    """Of each process."""
    resident: int
    """What a process holds before it begins."""
    on_cluster: bool
    """Whose workers use all of their threads."""


def _workers() -> tuple[int, int, int, int, bool]:
    """Of this machine, or the Dask cluster that this process is a client of: as Room has them."""
    import dask

    client = cluster()
    if client is not None:
        workers = client.scheduler_info(n_workers=-1)["workers"].values() or [{"memory_limit": 0, "nthreads": 1}]
        usual = min(worker["memory_limit"] or machine_memory() // len(workers) for worker in workers) // 2
        return usual, len(workers), max(worker["nthreads"] for worker in workers), WORKER, True
    threads = dask.config.get("num_workers", None) or dask.system.CPU_COUNT
    return machine_memory() // 2, 1, threads, resident_bytes(), False


def cluster() -> Any:
    """The client of a Dask cluster that the work goes to, if there is one."""
    if "distributed" not in sys.modules:  # nobody has made a client
        return None
    from ..dispatch._graphs import current_client

    return current_client()


@contextmanager
def at_once(plan: Plan | None) -> Iterator[None]:
    """Dask's threads in this process work on so many blocks at once."""
    if plan is None:
        yield
        return
    import dask

    with dask.config.set(num_workers=plan.threads):
        yield


def _of_rows(rows: Rows, room: Room, n_top_genes: int | None, n_passes: int, chunk_rows: int | None) -> Plan:
    """The counts are kept if they fit, in blocks as large and as many at a time as go with that."""
    n, m = rows.shape
    n_values, size = rows.data.length, rows.dtype.itemsize
    pieces = [array.piece * array.dtype.itemsize for array in (rows.data, rows.indices)]
    of_value = _bytes_a_value(rows)
    chosen = min(n_top_genes or USUAL_CHOICE, m)
    counts = of_value * n_values + 8 * n
    selected = of_value * n_values * min(1.0, DENSER * chosen / max(m, 1)) + 8 * n

    def peak(block: int, threads: int, keeps: str) -> int:
        work = threads * (NARROW * block + (AT_WORK + 2 * size) * min(block, WIDE) + 2 * max(pieces))
        kept = counts if keeps == "counts" else 0
        statistics = kept / room.processes + threads * STATISTICS * 8 * m
        taking = (kept + selected) / room.processes
        components = selected / room.processes + (SQUARES + threads) * 8 * chosen**2
        return int(room.resident + SPARE + PER_CELL * n + work + max(statistics, taking, components))

    if chunk_rows is None:
        largest = min(LARGEST, max(SMALLEST, -(-n_values // BLOCKS)))
        sizes = [largest >> k for k in range(6) if largest >> k >= SMALLEST]
    else:
        sizes = [max(1, n_values * chunk_rows // max(n, 1))]
    limit = room.usual if room.memory is None else room.memory
    fewest = room.threads if room.on_cluster else 1
    ways = product(WAYS, range(room.threads, fewest - 1, -1), sizes)
    keeps, threads, block = next(
        ((keeps, threads, block) for keeps, threads, block in ways if peak(block, threads, keeps) <= limit),
        (WAYS[-1], fewest, sizes[-1]),
    )
    least = peak(block, threads, keeps)
    blocks = "one block" if threads == 1 else f"{threads} blocks"
    _check_room(least, room, rows, f"with {blocks} at a time and only the selected genes kept")
    edges = edges_of(rows, block) if chunk_rows is None else [0, *range(chunk_rows, n, chunk_rows), n]
    return Plan(rows, edges, keeps, 1 if keeps == "counts" else n_passes, threads, least)


def _of_others(x: Any, stored: Others, room: Room, n_top_genes: int | None, n_passes: int) -> Plan:
    """Of a matrix that is stored in columns, or dense: what it costs, for there is no choice."""
    n, m = x.shape
    share = min(n_top_genes or USUAL_CHOICE, m) / max(m, 1)
    chosen = min(n_top_genes or USUAL_CHOICE, m)
    axis = 1 if stored.by_columns else 0
    block = stored.n_values / max(x.numblocks[axis], 1) * (x.dtype.itemsize + 4 * stored.by_columns)
    if stored.by_columns:  # the selected genes, as they are kept, side by side, in rows, and scaled
        selected = IN_COLUMNS * stored.n_values * min(1.0, DENSER * share)
        n_passes += 1
        why = "as it is stored in columns (CSC); stored in rows (CSR) it would take less"
    else:
        selected = n * chosen * max(x.dtype.itemsize, 4)
        why = "as it is dense"
    least = room.resident + SPARE + PER_CELL * n + room.threads * 4 * block + selected / room.processes
    least = int(least + (SQUARES + room.threads) * 8 * chosen**2)
    _check_room(least, room, stored, why)
    edges = np.cumsum([0, *x.chunks[axis]]).tolist()
    return Plan(None, edges, "selected genes", n_passes, room.threads, least)


def _check_room(least: int, room: Room, stored: Any, why: str) -> None:
    if room.memory is not None and least > room.memory:
        raise ValueError(
            f"memory is {in_words(room.memory)}, too little for {stored.path}, {stored.name}: the chain needs about "
            f"{in_words(least)}, {why}"
        )


def _bytes_a_value(rows: Rows) -> float:
    """Of the narrow form, as a few cells have it."""
    n = rows.shape[0]
    samples = [rows.narrow(start, min(start + 50, n)) for start in {0, n // 2, max(n - 50, 0)}] if n else []
    n_values = sum(len(sample.indices) for sample in samples)
    return max(3.0, 1.03 * sum(sample.nbytes - sample.indptr.nbytes for sample in samples) / max(n_values, 1))


def memory_of(memory: Any) -> int | None:
    """Bytes of a number, or of a string such as "4GB" or "512 MiB"."""
    if memory is None:
        return None
    if isinstance(memory, int | np.integer) and not isinstance(memory, bool) and memory > 0:
        return int(memory)
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?)B?\s*", memory, re.IGNORECASE)
        if match:
            unit = match[2].upper().replace("I", "i")
            n_bytes = int(float(match[1]) * UNITS.get(unit, 0))
            if n_bytes > 0:
                return n_bytes
    raise ValueError(f'memory must be a positive number of bytes or a string such as "4GB", got {memory!r}')


def in_words(n_bytes: float) -> str:
    """So many bytes, with a unit."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def machine_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """What this process holds now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 400 << 20
