"""Matrices on disk: every way to store them, the narrow form, the plan for so much memory, and what is damaged."""

import gzip
import pickle
import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import csraxis as cx

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")
dask = pytest.importorskip("dask")
zarr = pytest.importorskip("zarr")
h5py = pytest.importorskip("h5py")

from csraxis.dispatch import _narrow  # noqa: E402
from csraxis.io import _flat, _lazy, _rows  # noqa: E402
from csraxis.pp import _plan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning", "ignore:.*zarr.*:FutureWarning")

N, M = 400, 60
RECIPE = {"n_top_genes": 20, "n_comps": 4, "n_bins": 5}


def counts(seed=0, n=N, m=M):
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(1, 1, (1, m)) * rng.gamma(3, 0.3, (n, 1)))
    x[rng.integers(0, n, 5), rng.integers(0, m, 5)] = [255, 256, 300, 65_535, 70_000]
    return sp.csr_matrix(x.astype("f4"))


def store(folder, how, x, index_dtype=np.int32, piece=50):
    """The matrix in a file of that kind, in pieces of so many values."""
    names = [pd.DataFrame(index=[f"{axis}{i}" for i in range(n)]) for axis, n in zip("cg", x.shape)]
    adata = ad.AnnData(x, obs=names[0], var=names[1])
    arrays = {"data": x.data, "indices": x.indices.astype(index_dtype)}
    with warnings.catch_warnings():  # of what anndata and zarr will do next year
        warnings.simplefilter("ignore")
        if how.startswith("zarr"):
            return _zarr(folder / "x.zarr", how, adata, arrays, piece)
        return _h5ad(folder / "x.h5ad", how, adata, arrays, piece)


def _zarr(path, how, adata, arrays, piece):
    kind, _, codec = how.partition("-")
    options = {
        "plain": {"compressors": None},
        "gzip": {"compressors": zarr.codecs.GzipCodec()},
        "blosc": {"compressors": zarr.codecs.BloscCodec()},
        "crc": {"compressors": (zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec())},
        "sharded": {"shards": (4 * piece,)},
    }.get(codec, {})
    with ad.settings.override(zarr_write_format=int(kind[-1])):
        adata.write_zarr(path)
    group = zarr.open_group(str(path), mode="r+")["X"]
    for name, values in arrays.items():
        group.create_array(name, data=values, chunks=(piece,), overwrite=True, **options)
    zarr.consolidate_metadata(str(path))
    return path


def _h5ad(path, how, adata, arrays, piece):
    options = {
        "h5ad-gzip": {"compression": "gzip"},
        "h5ad-shuffled": {"compression": "gzip", "shuffle": True},
        "h5ad-lzf": {"compression": "lzf"},
    }.get(how, {})
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            del file[f"X/{name}"]
            values = values.astype(values.dtype.newbyteorder(">")) if how == "h5ad-big" else values
            chunks = None if how == "h5ad-contiguous" else (piece,)
            file["X"].create_dataset(name, data=values, chunks=chunks, **options)
    return path


FORMATS = ["h5ad-contiguous", "h5ad-plain", "h5ad-gzip", "h5ad-shuffled", "h5ad-lzf", "h5ad-big", "zarr2"]
FORMATS += ["zarr2-plain", "zarr3", "zarr3-plain", "zarr3-gzip", "zarr3-blosc", "zarr3-sharded", "zarr3-crc"]


def rows_of(path, shape=(N, M)):
    return _rows.rows_of(path, "X", shape)


def equal_bits(a, b):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    assert a.data.tobytes() == b.data.tobytes()
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.indptr, b.indptr)


# Reading


@pytest.mark.parametrize("how", FORMATS)
def test_every_format(tmp_path, how):
    x = counts()
    rows = rows_of(store(tmp_path, how, x, piece=97))
    assert (rows.data.load is None) == (how in ("h5ad-lzf", "zarr3-crc"))
    for start, stop in ((0, N), (0, 0), (17, 18), (100, 390), (N, N)):
        equal_bits(rows.read(start, stop), x[start:stop])
        equal_bits(_narrow.widen(rows.narrow(start, stop)), x[start:stop])
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert len(pickle.dumps(rows)) < 1000


@pytest.mark.parametrize("how", ["h5ad-gzip", "zarr3"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1", "u2"])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_every_type(tmp_path, how, dtype, index_dtype):
    x = counts().astype(dtype)
    rows = rows_of(store(tmp_path, how, x, index_dtype, piece=64))
    equal_bits(rows.read(3, 333), x[3:333])
    equal_bits(_narrow.widen(rows.narrow(3, 333)), x[3:333])


def test_pieces_are_decoded_once_in_a_pass(tmp_path):
    x = counts()
    rows = rows_of(store(tmp_path, "zarr3", x, piece=64))
    edges = _rows.edges_of(rows, 200)
    assert 1 < len(edges) < x.nnz // 128
    for read in (rows.read, rows.narrow):
        before = _flat.traffic.n_values
        for block in pairwise(edges):
            read(*block)
        assert _flat.traffic.n_values - before == x.nnz
    assert not rows.data.tails


@pytest.mark.parametrize("how", [how for how in FORMATS if how not in ("h5ad-lzf", "zarr3-crc")])
def test_each_piece_is_read_once(tmp_path, how):
    x = counts()
    rows = rows_of(store(tmp_path, how, x, piece=500))
    before = _flat.traffic.n_bytes
    rows.read(0, N)
    read, stored = _flat.traffic.n_bytes - before, rows.data.n_bytes + rows.indices.n_bytes
    assert 0.4 * stored < read < 1.2 * stored + 8 * (N + 1)


def test_pieces_that_are_written_again(tmp_path):
    x = counts()
    path = store(tmp_path, "zarr3", x, piece=64)
    edges = _rows.edges_of(rows_of(path), 200)
    for block in pairwise(edges[::2]):  # so that ends of pieces are remembered
        rows_of(path).read(*block)
    rows_of(path).read(0, edges[1])
    zarr.open_group(str(path), mode="r+")["X/data"][:] = x.data[::-1].copy()
    again = sp.csr_matrix((x.data[::-1].copy(), x.indices, x.indptr), x.shape)
    rows = rows_of(path)
    for start, stop in reversed(list(pairwise(edges))):  # else reading a block would remember its end anew
        equal_bits(rows.read(start, stop), again[start:stop])


@pytest.mark.parametrize("missing", [1, 2, 63])
def test_a_piece_with_fewer_values(tmp_path, missing):
    x = counts()
    path = store(tmp_path, "zarr3-gzip", x, piece=64)
    (path / "X" / "data" / "c" / "1").write_bytes(gzip.compress(x.data[64 : 128 - missing].tobytes()))
    with pytest.raises(OSError, match=r"X/data\[64:128\] cannot be read"):
        rows_of(path).read(0, N)
    path = store(tmp_path, "zarr3", x, piece=64)
    (path / "X" / "data" / "c" / "1").write_bytes(zstd(x.data[64 : 128 - missing]))
    with pytest.raises(OSError, match=r"X/data\[64:128\] cannot be read"):
        rows_of(path).read(0, N)


def zstd(values):
    numcodecs = pytest.importorskip("numcodecs")
    return numcodecs.zstd.Zstd().encode(values)


@pytest.mark.parametrize("shape", [(50, 20), (0, 20), (50, 0)])
def test_nothing_is_stored(tmp_path, shape):
    """Of arrays that are all zero zarr writes nothing."""
    path = tmp_path / "x.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ad.AnnData(sp.csr_matrix(shape, dtype=np.float32)).write_zarr(path)
    x = cx.pp.open(path).X
    assert x.shape == shape
    assert x.compute().nnz == 0


def test_a_piece_larger_than_a_block(tmp_path):
    x = counts()
    rows = rows_of(store(tmp_path, "zarr3", x, piece=x.nnz))
    edges = _rows.edges_of(rows, 200)
    assert len(edges) > x.nnz // 400
    blocks = dask.compute(*_lazy.read(rows, edges).to_delayed().ravel().tolist())
    equal_bits(sp.vstack(blocks, format="csr"), x)


def test_without_isal(tmp_path, monkeypatch):
    import sys

    x = counts()
    rows = rows_of(store(tmp_path, "h5ad-gzip", x))
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    equal_bits(rows.read(0, N), x)


def test_a_file_that_changes_is_read_anew(tmp_path):
    x = counts()
    path = store(tmp_path, "h5ad-gzip", x)
    lazy = cx.pp.open(path).X
    assert float(cx.sum(lazy)) == x.sum()
    store(tmp_path, "h5ad-plain", 2 * x)
    assert float(cx.sum(lazy)) == 2 * x.sum()


# The narrow form

VALUES = st.sampled_from([0.0, -0.0, 1, 254, 255, 256, 65_535, 65_536, -1, 0.5, np.nan, np.inf, -np.inf, 1e30, 3e-45])


@given(
    hnp.arrays(st.sampled_from([np.dtype("f4"), np.dtype("f8")]), st.integers(0, 300), elements=st.integers(0, 9)),
    st.lists(st.tuples(st.integers(0, 299), VALUES), max_size=30),
)
def test_narrow_values_keep_every_bit(values, odd):
    with np.errstate(all="ignore"):
        for place, value in odd:
            values[place : place + 1] = value
    back(values)


@given(hnp.arrays(hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), st.integers(0, 300)))
def test_narrow_integers_keep_every_bit(values):
    back(values.astype(values.dtype.newbyteorder("=")))


def narrow_of(x, starts=(0,)):
    parts = [(start, x.data[start:stop]) for start, stop in pairwise((*starts, x.nnz))]
    values = _narrow.narrow_values(x.nnz, x.dtype, parts[::-1])
    return _narrow.Narrow(x.shape, x.dtype, *values, x.indices.astype(np.uint16), x.indptr.astype(np.int64))


def back(values):
    n = len(values)
    x = sp.csr_matrix((1, max(n, 1)), dtype=values.dtype)
    x.data, x.indices, x.indptr = values, np.arange(n, dtype=np.int32), np.array([0, n], np.int32)
    for step in (7, 1 << 18):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_narrow, "STEP", step)
            for starts in ((0,), (0, n // 3, n // 2)):
                assert _narrow.widen(narrow_of(x, starts)).data.tobytes() == values.tobytes()


def test_what_becomes_narrow(monkeypatch):
    few, many = np.ones(640, "f4"), np.ones(640, "f4")
    few[:20], many[:21] = 1000, 1000
    for values, dtype, n_others in ((few, "u1", 20), (many, "u2", 0), (many * 100, "f4", 0), (many - 0.5, "f4", 0)):
        found, places, others = _narrow.narrow_values(640, values.dtype, [(0, values)])
        assert (found.dtype, len(places), len(others)) == (dtype, n_others, n_others)
    monkeypatch.setattr(_narrow, "STEP", 64)  # 1,000s come when most has been narrowed
    found, places, _ = _narrow.narrow_values(640, few.dtype, [(0, few[::-1].copy())])
    assert (found.dtype, len(places)) == ("u2", 0)
    assert _narrow.index_dtype(1 << 16) == np.uint16
    assert _narrow.index_dtype((1 << 16) + 1) == np.int32
    assert _narrow.index_dtype(1 << 31) == np.int64


@pytest.mark.parametrize("m", [65_535, 65_536, 65_537, 70_000])
def test_many_columns(tmp_path, m):
    x = sp.csr_matrix(([1.0, 2, 3], [0, m - 1, 1], [0, 2, 3]), shape=(2, m), dtype="f4")
    rows = _rows.rows_of(store(tmp_path, "zarr3", x), "X", (2, m))
    assert rows.narrow(0, 2).indices.dtype == (np.uint16 if m <= 65_536 else np.int32)
    equal_bits(_narrow.widen(rows.narrow(0, 2)), x)


def test_some_columns_of_a_narrow_block(monkeypatch):
    x = counts()
    block = narrow_of(x)
    keep = np.arange(M) % 3 == 1
    for wide in (50, 1 << 21):
        monkeypatch.setattr(_narrow, "WIDE", wide)
        equal_bits(_narrow.widen(_narrow.take_columns(block, keep)), x[:, keep].sorted_indices())
    nothing = _narrow.take_columns(block, np.zeros(M, bool))
    assert _narrow.widen(nothing).shape == (N, 0)


# The recipe


def recipe(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cx.pp.recipe_pca(data, **RECIPE, **options)


@pytest.fixture
def cells_read(monkeypatch):
    """How many cells the chain reads from disk, but for those that the plan looks at."""
    read, narrow = [], _rows.Rows.narrow
    monkeypatch.setattr(_plan, "_bytes_a_value", lambda rows: 3.0)
    monkeypatch.setattr(_rows.Rows, "narrow", lambda rows, *block: read.append(np.diff(block)) or narrow(rows, *block))
    return read


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3"])
@pytest.mark.parametrize("options", [{}, {"target_sum": None}, {"exclude_highly_expressed": True}], ids=str)
def test_the_same_result_kept_or_not(tmp_path, monkeypatch, cells_read, flavor, options):
    pytest.importorskip("skmisc") if flavor == "seurat_v3" else None
    x = counts()
    path = store(tmp_path, "zarr3", x, piece=64)
    monkeypatch.setattr(_narrow, "WIDE", 150)
    rows = rows_of(path)
    small = _rows.edges_of(rows, 300)
    monkeypatch.setattr(_plan, "edges_of", lambda rows, size: small)
    options = {"flavor": flavor, **options}
    in_memory = ad.AnnData(x)
    recipe(in_memory, **options)
    found = {}
    n_passes = 2 + (flavor == "seurat_v3") + ("target_sum" in options) + ("exclude_highly_expressed" in options)
    for keeps in ("counts", "selected genes"):
        monkeypatch.setattr(_plan, "WAYS", (keeps,))
        cells_read.clear()
        found[keeps] = recipe(path, **options)
        assert sum(cells_read) == N * (1 if keeps == "counts" else n_passes)
    kept, again = found["counts"], found["selected genes"]
    pd.testing.assert_frame_equal(kept.var, again.var, check_exact=True)
    np.testing.assert_array_equal(kept.obsm["X_pca"], again.obsm["X_pca"])
    np.testing.assert_array_equal(kept.uns["pca"]["variance"], again.uns["pca"]["variance"])
    assert kept.var["highly_variable"].tolist() == in_memory.var["highly_variable"].tolist()
    np.testing.assert_allclose(kept.var["means"], in_memory.var["means"], rtol=1e-12)
    np.testing.assert_allclose(kept.uns["pca"]["variance"], in_memory.uns["pca"]["variance"], rtol=1e-6)
    np.testing.assert_allclose(abs(kept.obsm["X_pca"]), abs(in_memory.obsm["X_pca"]), atol=1e-3)


def test_any_blocks_give_the_same_counts_and_genes(tmp_path):
    path = store(tmp_path, "h5ad-gzip", counts(), piece=64)
    results = [recipe(path, chunk_rows=rows) for rows in (7, 40, 1000, None)]
    for result in results[1:]:
        assert result.var["highly_variable"].equals(results[0].var["highly_variable"])
        np.testing.assert_allclose(result.var["means"], results[0].var["means"], rtol=1e-12)
        np.testing.assert_allclose(result.uns["pca"]["variance"], results[0].uns["pca"]["variance"], rtol=1e-6)


@pytest.mark.parametrize("how", FORMATS)
def test_the_recipe_on_every_format(tmp_path, how):
    x = counts()
    result, reference = recipe(store(tmp_path, how, x)), ad.AnnData(x)
    recipe(reference)
    assert result.var["highly_variable"].tolist() == reference.var["highly_variable"].tolist()
    np.testing.assert_allclose(result.uns["pca"]["variance"], reference.uns["pca"]["variance"], rtol=1e-6)


def test_values_that_are_no_counts(tmp_path):
    x = counts()
    x.data += np.random.default_rng(1).random(x.nnz).astype("f4")
    result, reference = recipe(store(tmp_path, "zarr3", x)), ad.AnnData(x)
    recipe(reference)
    assert result.var["highly_variable"].tolist() == reference.var["highly_variable"].tolist()
    np.testing.assert_allclose(result.uns["pca"]["variance"], reference.uns["pca"]["variance"], rtol=1e-6)


def test_what_is_opened_is_read_once_too(tmp_path):
    path = store(tmp_path, "zarr3", counts())
    opened = cx.pp.open(path, chunk_rows=50)
    before = _flat.traffic.n_values
    recipe(opened)
    assert _flat.traffic.n_values - before < 2 * rows_of(path).data.length
    assert opened.X.chunksize[0] == 50
    np.testing.assert_array_equal(cx.to_dense(opened.X).compute(), counts().toarray())


def test_progress_reaches_the_total(tmp_path):
    for data in (store(tmp_path, "zarr3", counts()), ad.AnnData(counts())):
        told: list = []
        recipe(data, progress=lambda *what, told=told: told.append(what))
        steps = list(dict.fromkeys(step for step, _, _ in told))
        assert steps[-3:] == ["scaling", "principal components", "scores"]
        assert {total for _, _, total in told} == {N}
        for step in steps:
            done = [done for name, done, _ in told if name == step]
            assert (done[0], done[-1]) == (0, N)
            assert done == sorted(done)


def test_progress_that_raises_ends_the_chain(tmp_path):
    def stop(step, done, total):
        if step == "taking genes":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe(store(tmp_path, "zarr3", counts()), progress=stop)


def test_on_a_cluster(tmp_path):
    distributed = pytest.importorskip("distributed")
    path = store(tmp_path, "zarr3", counts(), piece=64)
    local, told = recipe(path, chunk_rows=60), []
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        result = recipe(path, chunk_rows=60, progress=lambda *what: told.append(what))
    pd.testing.assert_frame_equal(result.var, local.var, check_exact=True)
    np.testing.assert_array_equal(result.obsm["X_pca"], local.obsm["X_pca"])
    assert ("scores", N, N) in told


# The plan


def test_plan(tmp_path):
    path = store(tmp_path, "zarr3", counts())
    plan = _plan.plan(path, memory="4GB", n_top_genes=20)
    assert (plan.keeps, plan.passes, plan.edges[-1]) == ("counts", 1, N)
    assert 0 < plan.peak < 4e9
    assert plan.chunk_rows <= N
    assert _plan.plan(path, chunk_rows=100).edges == [0, 100, 200, 300, 400]


def room(memory, threads=2, processes=1):
    return _plan.Room(memory, 12 << 30, processes, threads, 300 << 20, processes > 1)


SIZES = [(1, 1), (2, 1), (16, 1), (1, 4), (4, 100)]


class Large(_rows.Rows):
    """A million cells, of which none is read."""

    data = property(lambda self: self._flat("data", np.dtype("f4")))
    indices = property(lambda self: self._flat("indices", np.dtype("i4")))

    def _flat(self, name, dtype):
        return _flat.Flat(self.path, name, dtype, 843_000_000, 800_000, 1, len, None, (0, 0, 0), {})

    def indptr(self, start=0, stop=None):
        return np.arange(1_000_001) * 843

    def narrow(self, start, stop):
        return narrow_of(counts())


def test_a_million_cells_in_so_much_memory(tmp_path):
    large = Large(tmp_path, "X", (1_000_000, 30_000), np.dtype("f4"))
    plans = {memory: _plan._of_rows(large, room(int(memory * 1e9)), 2000, 2, None) for memory in (8, 5, 3, 2)}
    assert [plan.keeps for plan in plans.values()] == ["counts", "counts", "selected genes", "selected genes"]
    assert [plan.passes for plan in plans.values()] == [1, 1, 2, 2]
    for memory, plan in plans.items():
        assert plan.peak <= memory * 1e9
    assert plans[2].chunk_rows <= plans[8].chunk_rows
    with pytest.raises(
        ValueError, match=r"memory is 500 MB, too little for .*: the chain needs about \d\.\d GB, with one"
    ):
        _plan._of_rows(large, room(500_000_000), 2000, 2, None)
    unlimited = _plan._of_rows(large, room(None)._replace(usual=1), 2000, 2, None)
    assert (unlimited.keeps, unlimited.threads) == ("selected genes", 1)
    many = [_plan._of_rows(large, room(None, threads, processes), 2000, 2, None) for threads, processes in SIZES]
    assert all(plan.edges == many[0].edges for plan in many), "bits would depend on the number of threads"
    with pytest.raises(ValueError, match="with 4 blocks at a time"):  # a worker uses all of its threads
        _plan._of_rows(large, room(1_200_000_000, 4, processes=8), 2000, 2, None)
    cluster = _plan._of_rows(large, room(2_000_000_000, 1, processes=8), 2000, 2, None)
    assert cluster.keeps == "counts"


def test_memory_that_is_too_little(tmp_path):
    for cls, why in ((sp.csr_matrix, "with one block"), (sp.csc_matrix, "CSC"), (np.array, "dense")):
        path = tmp_path / f"{cls.__name__}.h5ad"
        ad.AnnData(cls(counts().toarray())).write_h5ad(path)
        before = _flat.traffic.n_values
        with pytest.raises(ValueError, match=rf"memory is 10 MB, too little for .*{why}"):
            recipe(path, memory="10MB")
        assert _flat.traffic.n_values - before < N * M
        recipe(path, memory="8GB")


@pytest.mark.parametrize(
    ("memory", "n_bytes"),
    [(5, 5), ("5", 5), ("4GB", 4 * 10**9), ("1.5 gb", 1.5e9), ("512MiB", 512 << 20), ("2k", 2000), ("1TiB", 1 << 40)],
)
def test_memory_in_words(memory, n_bytes):
    assert _plan.memory_of(memory) == n_bytes


@pytest.mark.parametrize("memory", [0, -1, "GB", "4 apples", True, 1.5, "0GB"])
def test_no_memory(memory):
    with pytest.raises(ValueError, match="memory must be a positive number of bytes or a string"):
        recipe(counts(), memory=memory)


def test_memory_is_for_what_is_on_disk():
    with pytest.raises(TypeError, match="memory is for a path"):
        recipe(counts(), memory="4GB")


# What is damaged


@pytest.mark.parametrize("how", ["zarr3", "zarr2", "h5ad-gzip", "h5ad-contiguous"])
def test_a_truncated_store(tmp_path, how):
    x = counts()
    path = store(tmp_path, how, x, piece=64)
    opened = cx.pp.open(path)
    if how.startswith("zarr"):
        piece = path / "X" / "data" / ("c/5" if how == "zarr3" else "5")
        piece.write_bytes(piece.read_bytes()[:10])
        match = r"x\.zarr: X/data\[320:384\] cannot be read"
    else:
        path.write_bytes(path.read_bytes()[:-2000])
        match = r"x\.h5ad: .* cannot be read"
    for use in (lambda: cx.sum(opened.X, axis=0).compute(), lambda: recipe(opened)):
        with pytest.raises(OSError, match=match):
            use()


@pytest.mark.parametrize("name", ["data", "indices"])
def test_a_piece_that_is_lost(tmp_path, name):
    path = store(tmp_path, "zarr3", counts(), piece=64)
    (path / "X" / name / "c" / "3").unlink()
    with pytest.raises(OSError, match=rf"x\.zarr: X/{name}\[192:256\] cannot be read"):
        recipe(path)


@pytest.mark.parametrize("how", ["zarr3", "h5ad-gzip", "h5ad-lzf"])
@pytest.mark.parametrize("bad", [M, -1, 70_000])
def test_an_index_outside_of_the_matrix(tmp_path, how, bad):
    path = store(tmp_path, how, counts(), piece=64)
    file = zarr.open_group(str(path), mode="r+") if how == "zarr3" else h5py.File(path, "r+")
    file["X/indices"][500] = bad
    None if how == "zarr3" else file.close()
    for use in (recipe, lambda path: cx.sum(cx.pp.open(path).X, axis=0).compute()):
        with pytest.raises(ValueError, match=rf"X/indices\[500\] is {bad}, but columns go from 0 to {M - 1}"):
            use(path)


@pytest.mark.parametrize(("place", "value"), [(0, 1), (5, 10**6), (N, 10**6), (7, -3)])
def test_row_pointers_that_cannot_be(tmp_path, place, value):
    path = store(tmp_path, "h5ad-gzip", counts())
    with h5py.File(path, "r+") as file:
        file["X/indptr"][place] = value
    with pytest.raises(ValueError, match=r"x\.h5ad: X\.indptr"):
        recipe(path)


def test_too_few_row_pointers(tmp_path):
    path = store(tmp_path, "h5ad-gzip", counts())
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = (N + 1, M)
    with pytest.raises(ValueError, match="indptr must have 402 entries for its shape, got 401"):
        cx.pp.open(path)


def test_threads_share_a_store(tmp_path):
    x = counts()
    rows, failed = rows_of(store(tmp_path, "zarr3", x, piece=64)), []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            start, stop = np.sort(rng.integers(0, N + 1, 2))
            if (rows.read(start, stop) != x[start:stop]).nnz:
                failed.append((start, stop))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed
