"""The Python in the tutorial and in the README runs, and prints what these pages say."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[1]
# A block of code; the indented lines after it, if any, are what it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n(?:prints\n\n)?((?:(?: {4}[^\n]*)?\n)+))?", re.M | re.S)


def blocks(name):
    """The line, the code and the output of each block of a page."""
    page = ROOT / name
    if not page.exists():
        pytest.skip(f"{name} is not here: these tests were copied without it")
    text = page.read_text()
    return [(text.count("\n", 0, found.start(1)), found[1], found[2] or "") for found in BLOCK.finditer(text)]


def lines(text):
    """As a terminal shows them in the end; without times, and with one space for several."""
    text = re.sub(r"[^\n]*\r", "", text)
    text = re.sub(r"(Completed \|) .*", r"\1 ...", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def run(name, folder, monkeypatch, **namespace):
    """All blocks of a page in one namespace, in a folder of their own; warnings are printed, as Python would."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (folder / "bench").symlink_to(ROOT / "bench")
    namespace["__name__"] = "page"
    for line, code, expected in blocks(name):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}")
            warnings.filterwarnings("always", "zero-centering a sparse array/matrix densifies it")
            # anndata on the format that it writes; dask-ml's IncrementalPCA on its first batch.
            warnings.filterwarnings("ignore", ".*zarr v[23]")
            warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
            exec(compile("\n" * line + code, ROOT / name, "exec"), namespace)
        assert lines(printed.getvalue()) == lines(expected), f"{name}:{line + 1}"


def test_tutorial(tmp_path, monkeypatch):
    for package in ("anndata", "zarr", "dask.array", "dask_ml.decomposition", "matplotlib"):
        pytest.importorskip(package)
    run("docs/tutorial.md", tmp_path, monkeypatch)
    assert (tmp_path / "pca.png").stat().st_size > 10_000


def test_readme(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(sp.random_array((20, 10), density=0.5, rng=0).tocsr())
    run("README.md", tmp_path, monkeypatch, adata=adata)
    assert adata.X.nnz == 100
    assert "log1p" in adata.uns


@pytest.mark.parametrize("page", ["sklearn", "from-scikit-learn", "from-fast-array-utils"])
def test_how_to(page, tmp_path, monkeypatch):
    for package in ("sklearn", "pandas", "dask.array"):
        pytest.importorskip(package)
    run(f"docs/{page}.md", tmp_path, monkeypatch)
