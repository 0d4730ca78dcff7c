"""Strike the workers of a cluster while they run the recipe on a store, and compare bits: `python tests/faults.py`.

Prints a table of what was done, how often it struck, how often chunks were read, and what came out. Takes a minute or
two; `tests/test_cluster.py` runs one of the faults.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import csraxis as cx

CHUNK_ROWS, OPTIONS = 250, {"n_top_genes": 300, "n_comps": 20}


def write_counts(path, cells=10_000, genes=2_000):
    """A store with counts of a few kinds of cells."""
    import anndata

    rng = np.random.default_rng(7)
    kinds = np.exp(rng.normal(-3, 1.2, genes) + rng.normal(0, 0.7, (6, genes)))
    blocks = [
        sp.csr_matrix(rng.poisson(kinds[rng.integers(6, size=1_000)] * rng.gamma(4, 0.25, (1_000, 1))).astype("f4"))
        for _ in range(0, cells, 1_000)
    ]
    anndata.AnnData(sp.vstack(blocks, format="csr")).write_h5ad(path, compression="gzip")
    return path


def noticed(block, folder, seconds):
    """A block that was read: it took so long, and leaves a file behind."""
    if block.shape[0]:  # Dask tries functions on nothing
        time.sleep(seconds)
        Path(tempfile.mkstemp(dir=folder)[1])
    return block


class Recipe:
    """The recipe on a store, slowed down, so that there is time to strike; its reads are counted."""

    def __init__(self, path, folder, seconds=0.05):
        self.path, self.folder, self.seconds = path, Path(folder), seconds

    def reads(self):
        return len(list(self.folder.iterdir()))

    def __call__(self):
        """All numbers that come out, as bytes."""
        for file in self.folder.iterdir():
            file.unlink()
        adata = cx.pp.open(self.path, chunk_rows=CHUNK_ROWS)
        adata.X = adata.X.map_blocks(noticed, str(self.folder), self.seconds, meta=adata.X._meta)
        self.n_chunks = adata.X.numblocks[0]
        cx.pp.recipe_pca(adata, **OPTIONS)
        numbers = [adata.var.to_numpy(float), adata.varm["PCs"], adata.obsm["X_pca"], adata.uns["pca"]["variance"]]
        return b"".join(np.ascontiguousarray(array).tobytes() for array in numbers)


@contextmanager
def strikes(recipe: Recipe, *plan: tuple[float, Callable[[], None]]) -> Iterator[list[float]]:
    """Do things while the recipe runs, each when so many passes over the chunks were read; and when that was."""
    done: list[float] = []
    over = threading.Event()

    def watch() -> None:
        for passes, action in plan:
            while not over.is_set() and recipe.reads() < passes * recipe.n_chunks:
                time.sleep(0.005)
            if over.is_set():
                return
            done.append(recipe.reads() / recipe.n_chunks)
            action()

    recipe.n_chunks, thread = sys.maxsize, threading.Thread(target=watch)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def pids(client):
    """Process of each worker, by address."""
    return client.run(os.getpid)


def kill(client, which=0):
    """kill -9 of a worker: nothing in its memory is left, and what it was doing is lost."""
    os.kill(list(pids(client).values())[which], signal.SIGKILL)


def kill_all(client):
    """kill -9 of all workers at once."""
    for pid in pids(client).values():
        os.kill(pid, signal.SIGKILL)


def restart(client):
    """Restart a worker through the client."""
    client.restart_workers([next(iter(pids(client)))])


def pause(client, seconds=5):
    """Stop a process, and let it go on later."""
    pid = next(iter(pids(client).values()))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def remove(client):
    """One worker leaves for good, and gives away what it has."""
    client.retire_workers([next(iter(pids(client)))])


FAULTS = {
    "nothing": (),
    "kill -9 of a worker in the first pass": ((0.5, kill),),
    "kill -9 of a worker in the second pass": ((1.5, kill),),
    "kill -9 of a worker after the last read": ((2, kill),),
    "kill -9 of a worker in each pass": ((0.5, kill), (1.5, kill)),
    "kill -9 of both workers at once": ((1.5, kill_all),),
    "restart of a worker": ((1.5, restart),),
    "restart of a worker, twice": ((0.5, restart), (1.5, restart)),
    "pause of a worker for 5 s": ((1.5, pause),),
    "a worker leaves": ((1.5, remove),),
}


def spilled(dask_worker):
    """Bytes that this worker has written to disk, all in all."""
    return int(dask_worker.data.cumulative_metrics.get(("disk-write", "bytes"), 0))
