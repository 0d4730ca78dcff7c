"""AnnData files opened lazily: the same numbers as in memory, whatever is stored how."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import csraxis as cx

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")
pytest.importorskip("dask.array")
pytest.importorskip("h5py")

# anndata's own: which version of zarr it will write next year
pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning", "ignore:.*zarr.*:FutureWarning")


def an_anndata(cls):
    x = np.random.default_rng(0).poisson(1, (50, 30)).astype("f4")
    adata = ad.AnnData(
        cls(x),
        obs=pd.DataFrame({"type": pd.Categorical(["a", "b"] * 25)}, index=[f"c{i}" for i in range(50)]),
        var=pd.DataFrame({"mito": np.arange(30) > 25}, index=[f"g{i}" for i in range(30)]),
        layers={"double": cls(2 * x)},
        obsm={"pair": x[:, :2]},
        uns={"title": "fifty cells"},
    )
    adata.raw = adata
    return adata


def write(adata, folder, suffix, **options):
    path = folder / f"x{suffix}"
    if suffix == ".zarr":
        pytest.importorskip("zarr")
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, **options)
    return path


@pytest.mark.parametrize("chunk_rows", [None, 7])
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix, np.array], ids=lambda cls: cls.__name__)
def test_everything_comes_back(tmp_path, cls, suffix, chunk_rows):
    adata = an_anndata(cls)
    path = write(adata, tmp_path, suffix)
    opened = cx.pp.open(path, chunk_rows=chunk_rows)
    pd.testing.assert_frame_equal(opened.obs, adata.obs)
    pd.testing.assert_frame_equal(opened.var, adata.var)
    np.testing.assert_array_equal(opened.obsm["pair"], adata.obsm["pair"])
    assert opened.uns["title"] == "fifty cells"
    axis = 1 if cls is sp.csc_matrix else 0
    for lazy, stored in (
        (opened.X, adata.X),
        (opened.layers["double"], adata.layers["double"]),
        (opened.raw.X, adata.X),
    ):
        assert lazy.dtype == "f4"
        assert lazy.chunksize[axis] == (chunk_rows or stored.shape[axis])
        assert lazy.numblocks[1 - axis] == 1
        np.testing.assert_array_equal(cx.to_dense(lazy).compute(), cx.to_dense(stored))
        assert cls is np.array or getattr(lazy.blocks[0, 0].compute(), "format", "") == stored.format
    np.testing.assert_array_equal(cx.sum(pickle.loads(pickle.dumps(opened.X)), axis=0), cx.sum(adata.X, axis=0))


def test_chunks_hold_about_so_many_values(tmp_path, monkeypatch):
    from csraxis.io import _stores

    monkeypatch.setattr(_stores, "SPARSE_CHUNK", 200)
    monkeypatch.setattr(_stores, "DENSE_CHUNK", 200)
    for cls, chunks in ((sp.csr_matrix, (10, 30)), (sp.csc_matrix, (50, 6)), (np.array, (6, 30))):
        adata = an_anndata(cls)
        found = cx.pp.open(write(adata, tmp_path, ".h5ad")).X.chunksize
        np.testing.assert_allclose(found, chunks, atol=1)


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_matrix], ids=lambda cls: cls.__name__)
def test_the_recipe_on_a_path(tmp_path, cls, compression):
    adata = an_anndata(cls)
    path = write(adata, tmp_path, ".h5ad", compression=compression)
    result = cx.pp.recipe_pca(path, n_top_genes=10, n_comps=3, n_bins=3, chunk_rows=11)
    cx.pp.recipe_pca(adata, n_top_genes=10, n_comps=3, n_bins=3)
    pd.testing.assert_frame_equal(result.var, adata.var, rtol=1e-5)
    np.testing.assert_allclose(result.obsm["X_pca"], adata.obsm["X_pca"], atol=1e-4)
    np.testing.assert_array_equal(cx.to_dense(result.X), cx.to_dense(adata.X))
    result.write_h5ad(tmp_path / "result.h5ad")
    again = ad.read_h5ad(tmp_path / "result.h5ad")
    np.testing.assert_array_equal(again.obsm["X_pca"], result.obsm["X_pca"])
    np.testing.assert_array_equal(again.uns["pca"]["variance"], result.uns["pca"]["variance"])


def test_the_file_is_not_kept_open(tmp_path):
    import h5py

    path = write(an_anndata(sp.csr_matrix), tmp_path, ".h5ad")
    opened = cx.pp.open(path)
    before = float(cx.sum(opened.X))
    with h5py.File(path, "r+") as file:  # refused, if it were open
        file["X"]["data"][:] *= 2
    assert float(cx.sum(opened.X)) == 2 * before


def test_what_is_no_anndata_file(tmp_path):
    import h5py

    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*nowhere"):
        cx.pp.open(tmp_path / "nowhere.h5ad")
    (tmp_path / "text.h5ad").write_text("not a file of cells")
    with pytest.raises(ValueError, match="is not an HDF5 file, or is damaged"):
        cx.pp.open(tmp_path / "text.h5ad")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="is not an AnnData file: it has no obs and var"):
        cx.pp.open(tmp_path / "other.h5")
    pytest.importorskip("zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is not a zarr store"):
        cx.pp.open(tmp_path / "folder")


@pytest.mark.parametrize("chunk_rows", [0, 1.5, True, "7"])
def test_chunk_rows(chunk_rows, tmp_path):
    with pytest.raises(ValueError, match="chunk_rows must be a positive int or None"):
        cx.pp.open(tmp_path, chunk_rows=chunk_rows)


def test_an_x_that_is_written_as_nothing(tmp_path):
    """As anndata 0.12.0 writes it."""
    h5py = pytest.importorskip("h5py")
    path = write(ad.AnnData(obs=pd.DataFrame(index=["a", "b"])), tmp_path, ".h5ad")
    with h5py.File(path, "a") as file:
        if "X" in file:
            del file["X"]
        file["X"] = h5py.Empty("f")
        file["X"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
    assert cx.pp.open(path).X is None


def test_an_anndata_without_x(tmp_path):
    path = write(ad.AnnData(obs=pd.DataFrame(index=["a", "b"])), tmp_path, ".h5ad")
    assert cx.pp.open(path).X is None


def test_empty_matrices(tmp_path):
    for shape in ((0, 5), (5, 0)):
        path = write(ad.AnnData(sp.csr_matrix(shape, dtype="f4")), tmp_path, ".h5ad")
        opened = cx.pp.open(path)
        assert opened.shape == shape
        assert cx.to_dense(opened.X).compute().shape == shape
