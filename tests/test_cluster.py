"""On a cluster of worker processes: the same bits as with threads, little that travels, and a worker that dies."""

import logging
import pickle
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx
from chunkings import assert_same_answer, results, same_bits
from dask_calls import da, dask
from faults import OPTIONS, Recipe, kill, pids, strikes, write_counts

distributed = pytest.importorskip("distributed")
ad = pytest.importorskip("anndata")
pytest.importorskip("h5py")

# A chunk of the store, or some of its columns, is larger than this; partial results of moments are smaller.
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def client():
    """Two processes. No work is stolen: that may move a chunk, where a worker has nothing to do."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    options = {"distributed.scheduler.work-stealing": False, "distributed.comm.timeouts.connect": "120s"}
    with (
        dask.config.set(options),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_counts(tmp_path_factory.mktemp("store") / "counts.h5ad", cells=4_000)


@pytest.fixture(scope="module")
def by_threads(path):
    with dask.config.set(scheduler="threads"):
        return results(cx.pp.open(path, chunk_rows=250), **OPTIONS)


def received(client):
    """What workers sent each other since the last call: keys and sizes."""
    logs = client.run(_received).values()
    return {key: size for log in logs for key, size in log}


def _received(dask_worker):
    log = dask_worker.transfer_incoming_log
    found = [item for entry in log for item in entry["keys"].items()]
    log.clear()
    return found


def test_the_same_bits_as_with_threads(client, path, by_threads):
    assert same_bits(results(cx.pp.open(path, chunk_rows=250), **OPTIONS), by_threads)


def test_a_client_that_does_not_compute(client, path):
    from csraxis.pp import _plan

    x = cx.pp.open(path).X
    options = (None, 300, 2, None)
    on_cluster = _plan.plan_of(x, *options)
    with dask.config.set(scheduler="threads"):
        assert _plan.cluster() is None
        assert _plan.plan_of(x, *options).peak != on_cluster.peak  # workers hold less before they begin
    assert _plan.cluster() is client


@pytest.mark.parametrize("chunk_rows", [90, 3_000, None])
def test_other_chunks(client, path, by_threads, chunk_rows):
    assert_same_answer(results(cx.pp.open(path, chunk_rows=chunk_rows), **OPTIONS), by_threads)


def test_in_memory(path, by_threads):
    assert_same_answer(results(ad.read_h5ad(path), **OPTIONS), by_threads)


# ---- what travels


# What may travel: partial results, numbers of cells or genes, and arrays that all tasks share.
SMALL = ("csraxis-fold-", "csraxis-totals-", "csraxis-positives-", "csraxis-operand-", "ge-")


def assert_no_chunk(received, n_genes):
    """Nor more than a megabyte at once, but for packed sums of products of so many genes."""
    for (name, *_), size in received.items():
        assert name.startswith(SMALL) or name.endswith("-shared"), name
        assert size < max(MEGABYTE, 4.1 * n_genes**2), name


def test_what_workers_send_each_other(client, path):
    received(client)
    found = cx.pp.recipe_pca(path, chunk_rows=100, **OPTIONS)
    travelled = received(client)
    assert_no_chunk(travelled, 300)
    assert found.X.numblocks[0] == 40
    triangle = 4 * 300 * 301
    assert 0 < sum(size > triangle for size in travelled.values()) <= 5  # of 40; both workers' halves must meet


STEPS = {
    "qc": lambda a: cx.pp.calculate_qc_metrics(a, percent_top=[5], inplace=True),
    "filter": lambda a: (cx.pp.filter_cells(a, min_genes=5), cx.pp.filter_genes(a, min_cells=5)),
    "genes of a median": lambda a: (cx.pp.normalize_log1p(a), cx.pp.highly_variable_genes(a, n_top_genes=200)),
    "genes of batches": lambda a: (
        cx.pp.normalize_log1p(a, key_added="size"),
        cx.pp.highly_variable_genes(a, n_top_genes=200, batch_key="batch", subset=True),
        cx.pp.scale(a, zero_center=False, max_value=10),
    ),
    "pca": lambda a: cx.pp.pca(a, 10, mask_var="some"),
    "recipe": lambda a: cx.pp.recipe_pca(
        a,
        n_top_genes=200,
        n_comps=5,
        target_sum=None,
        exclude_highly_expressed=True,
        max_fraction=0.5,
        batch_key="batch",
    ),
}


def opened(path, chunk_rows):
    adata = cx.pp.open(path, chunk_rows=chunk_rows)
    adata.obs["batch"] = np.arange(adata.n_obs) % 3 > 0
    adata.var["some"] = np.arange(adata.n_vars) % 4 > 2
    return adata


@pytest.mark.parametrize("name", STEPS)
def test_each_step_sends_no_chunk(client, path, name):
    adata = opened(path, 200)
    received(client)
    STEPS[name](adata)
    assert_no_chunk(received(client), 500)


def block_of_counts(block_info):
    """A block made where it is needed."""
    shape = block_info[None]["chunk-shape"]
    return sp.random(*shape, density=0.2, format="csr", dtype="f4", random_state=block_info[None]["chunk-location"][0])


def graphs_of(call):
    """The graphs of all that is computed."""
    found = []

    def scheduler(graph, keys, **options):
        found.append(graph)
        return dask.threaded.get(graph, keys, **options)

    with dask.config.set(scheduler=scheduler):
        call()
    return found


@pytest.mark.parametrize("name", STEPS)
def test_graphs_are_small(path, name):
    """Arrays of all genes are in a graph once; no array of all cells is, but for batches (one byte)."""
    few, many = (graphs_of(partial(STEPS[name], opened(path, chunk_rows))) for chunk_rows in (400, 80))
    for one, other in zip(few, many, strict=True):
        assert (len(pickle.dumps(other)) - len(pickle.dumps(one))) / (50 - 10) < 2000


@pytest.mark.filterwarnings("ignore:Some cells have zero counts:UserWarning")
def test_graphs_do_not_grow_with_the_cells():
    x = da.map_blocks(
        block_of_counts, chunks=((20_000,) * 25, (40,)), dtype="f4", meta=sp.csr_matrix((0, 0), dtype="f4")
    )
    reading, taking, *_ = graphs_of(lambda: cx.pp.recipe_pca(ad.AnnData(x), n_top_genes=20, n_comps=5, n_bins=3))
    for graph in (reading, taking):  # threads have the genes chosen in the graphs after these
        assert len(pickle.dumps(graph)) < 100_000  # the totals of the cells alone are 4 MB


def test_moments_of_a_chunk_of_thirty_thousand_genes():
    from csraxis.pp import _hvg, _recipe

    block = sp.random(50, 30_000, density=0.05, format="csr", dtype="f4", random_state=0)
    options = {"measured": "normalised", "n_batches": None, "count": False, "kept": None, "target": 1e4, "brief": True}
    assert len(pickle.dumps(_recipe._measure(block, **options))) < MEGABYTE
    assert len(pickle.dumps(_hvg.statistics_of(block, n_batches=None))) < MEGABYTE


def _threads():
    from csraxis.dispatch import _blocks

    return _blocks.workers(10**9)


def test_kernels_on_workers_are_serial(client):
    """The tasks are the parallelism."""
    assert client.submit(_threads).result() == 1


# ---- a worker dies; `tests/faults.py` has more


def test_a_worker_is_killed(client, path, tmp_path):
    recipe = Recipe(path, tmp_path)
    with dask.config.set(scheduler="threads"):
        expected = recipe()
    before = pids(client)
    with strikes(recipe, (1.5, lambda: kill(client))) as done:
        assert recipe() == expected
    assert len(done) == 1
    assert recipe.reads() > 2 * recipe.n_chunks  # what was in its memory was read again
    client.wait_for_workers(2)
    assert len(set(before.values()) & set(pids(client).values())) == 1


def test_no_worker_is_there(path, tmp_path, monkeypatch):
    """It is said, and waited for one."""
    from csraxis.dispatch import _graphs

    recipe = Recipe(path, tmp_path, seconds=0)
    with dask.config.set(scheduler="threads"):
        expected = recipe()
    monkeypatch.setattr(_graphs, "PATIENCE", 0.2)
    monkeypatch.setattr(_graphs, "ALONE", 3)
    monkeypatch.setattr(_graphs, "IDLE", 1_000)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        comes = threading.Timer(2, cluster.scale, (1,))
        comes.start()
        with warnings.catch_warnings(record=True) as caught:  # also what Dask warns of in its threads
            warnings.simplefilter("always")
            assert recipe() == expected
        comes.join()
    assert any("had no worker for 0.6" in str(warning.message) for warning in caught)
