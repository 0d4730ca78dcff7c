"""Strike the workers of a cluster while they run the recipe on a store, and compare bits: `python tests/faults.py`.

Prints a table of what was done, how often it struck, how often chunks were read, and what came out. Takes a minute or
two; `tests/test_cluster.py` runs one of the faults.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import csraxis as cx
from dask_calls import dask

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

    def __call__(self, through=None):
        """All numbers that come out, as bytes; chunks may go through a function."""
        for file in self.folder.iterdir():
            file.unlink()
        adata = cx.pp.open(self.path, chunk_rows=CHUNK_ROWS)
        adata.X = adata.X.map_blocks(noticed, str(self.folder), self.seconds, meta=adata.X._meta)
        if through is not None:
            adata.X = adata.X.map_blocks(through, meta=adata.X._meta)
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
    "kill -9 of both workers, twice": ((0.5, kill_all), (2, kill_all)),
    "restart of a worker": ((1.5, restart),),
    "restart of a worker, twice": ((0.5, restart), (1.5, restart)),
    "pause of a worker for 5 s": ((1.5, pause),),
    "a worker leaves": ((1.5, remove),),
}


def spilled(dask_worker):
    """Bytes that this worker has written to disk, all in all."""
    return int(dask_worker.data.cumulative_metrics.get(("disk-write", "bytes"), 0))


def leave(client):
    """All workers leave, for good."""
    client.cluster.scale(0)


def restart_all(client):
    """Everything is forgotten, what was asked for as well."""
    client.restart()


def deadly(block, block_info=None):
    """A block that kills each process which reads it."""
    if block_info and block_info[0]["chunk-location"][0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@contextmanager
def cluster(**options):
    """Two processes, and their client.

    15 s after the loss of a worker LocalCluster looks whether it is there again, and gives it up for good where it is
    not: also one that was lost a second time just before (Dask 2026.8). Here it looks later.
    """
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"} | options
    options["silence_logs"] = logging.CRITICAL
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}),
        LocalCluster(**options) as workers,
        Client(workers) as client,
    ):
        yield client


def run(name, recipe, client, expected, plan=(), through=None):
    """The recipe with one fault, a row: whether what came out was expected (None: an error), and all was done."""
    start = time.perf_counter()
    with strikes(recipe, *((passes, partial(action, client)) for passes, action in plan)) as done:
        try:
            result = recipe(through)
            verdict = "the same bits" if result == expected else "OTHER BITS"
        except Exception as error:
            result, verdict = None, f"{type(error).__name__}: {' '.join(str(error).split())[:120]} ..."
    seconds = time.perf_counter() - start
    reads = recipe.reads() / recipe.n_chunks
    print(
        f"{name:42} {len(done):5} {reads:6.2f} {seconds:7.1f}  {verdict}",
        flush=True,
    )
    return result == expected and len(done) == len(plan)


def main():
    """Print the table; status 1 if bits differ, a fault did not strike, or an error is missing."""
    right = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "reads").mkdir()
        path = write_counts(folder / "counts.h5ad", cells=10_000)
        recipe = Recipe(path, folder / "reads")
        with dask.config.set(scheduler="threads"):
            expected = recipe()
        print(f"10,000 x 2,000 counts in {recipe.n_chunks} chunks, two workers of one thread")
        print(f"{'what was done':42} times  reads seconds  what came out")
        for fault, plan in FAULTS.items():
            with cluster() as client:
                right.append(run(fault, recipe, client, expected, plan))
        with cluster() as client:
            right.append(run("a chunk that kills whoever reads it", recipe, client, None, through=deadly))
        with cluster() as client:
            right.append(run("restart of the whole cluster", recipe, client, None, ((1.5, restart_all),)))
        with dask.config.set({"distributed.scheduler.no-workers-timeout": "5s"}), cluster() as client:
            right.append(run("all workers leave, for good", recipe, client, None, ((1.5, leave),)))
        memory = {"target": 0.01, "spill": 0.02, "pause": False, "terminate": False}
        settings = {f"distributed.worker.memory.{key}": value for key, value in memory.items()}
        with dask.config.set(settings), cluster(memory_limit="200MB") as client:
            right.append(run("memory for 2 MB: the rest spills", recipe, client, expected))
            written = sum(client.run(spilled).values())
            print(f"{'':42} {written / 1e6:.1f} MB were written to disk")
            right.append(written > 1e6)
    sys.exit(not all(right))


if __name__ == "__main__":
    main()
