"""The command line: every format, every bad input, signals, and what is left on disk."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import csraxis as cx
from fresh import run as run_script

for package in ("click", "rich", "dask.array", "zarr", "psutil", "matplotlib"):
    pytest.importorskip(package)
ad, h5py, pd = map(pytest.importorskip, ("anndata", "h5py", "pandas"))

from bad_inputs import BAD, CELLS, GENES, counts, table, write  # noqa: E402
from csraxis.cli import _commands, _output, _pca, _plot, _report  # noqa: E402
from csraxis.cli._commands import PARAMETERS, RECIPE, main  # noqa: E402
from csraxis.io import _formats  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--n-top-genes", "100", "--n-comps", "10", "--chunk-rows", "70"]
CELL_NAMES = [f"cell{i}-1" for i in range(CELLS)]
SYMBOLS = [f"gene{i}" for i in range(GENES)]
IDS = [f"ENSG{i}" for i in range(GENES)]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and permissions as of POSIX")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an AnnData, and what the command makes of it."""
    folder = tmp_path_factory.mktemp("made")
    write(annotated(counts()), folder / "x.h5ad")
    assert main(["pca", str(folder / "x.h5ad"), "-o", str(folder / "out.h5ad"), "--quiet", *SMALL]) == 0
    return folder


def annotated(x, **parts):
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"] * (CELLS // 2))}, index=CELL_NAMES)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS), **parts)


def files():
    """All that is in the folder."""
    return sorted(str(path.relative_to(".")) for path in Path().rglob("*"))


# Formats


def write_10x(path, version, types=None, names=SYMBOLS):
    x = counts()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["shape"] = np.array(x.shape[::-1], "i4")
        for name, values in (("data", x.data.astype("i4")), ("indices", x.indices), ("indptr", x.indptr)):
            group[name] = values if name == "data" else values.astype("i8")
        group["barcodes"] = np.array(CELL_NAMES, "S")
        if version == 3:
            group["features/id"], group["features/name"] = np.array(IDS, "S"), np.array(names, "S")
            group["features/feature_type"] = np.array(types or ["Gene Expression"] * GENES, "S")
        else:
            group["genes"], group["gene_names"] = np.array(IDS, "S"), np.array(names, "S")


def write_folder(path, compressed, types=True):
    path.mkdir()
    scipy.io.mmwrite(path / "matrix.mtx", counts().T.astype(int), field="integer")
    (path / "barcodes.tsv").write_text("".join(f"{name}\n" for name in CELL_NAMES))
    more = "\tGene Expression" if types else ""
    table = "".join(f"{i}\t{name}{more}\n" for i, name in zip(IDS, SYMBOLS))
    (path / ("features.tsv" if types else "genes.tsv")).write_text(table)
    if compressed:
        for each in list(path.iterdir()):
            each.with_name(each.name + ".gz").write_bytes(gzip.compress(each.read_bytes()))
            each.unlink()


def write_zarr(path, version):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = ad.settings.zarr_write_format
        ad.settings.zarr_write_format = version
        try:
            annotated(counts()).write_zarr(path)
        finally:
            ad.settings.zarr_write_format = before


def write_h5ad(path, x, compression=None):
    annotated(x).write_h5ad(path, compression=compression)


def write_mtx(path, x):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        scipy.io.mmwrite(file, x, field="integer")


FORMATS = {
    "gzip.h5ad": lambda path: write_h5ad(path, counts(), "gzip"),
    "lzf.h5ad": lambda path: write_h5ad(path, counts(), "lzf"),
    "csc.h5ad": lambda path: write_h5ad(path, counts().tocsc()),
    "v2.zarr": lambda path: write_zarr(path, 2),
    "v3.zarr": lambda path: write_zarr(path, 3),
    "anndata.h5": lambda path: write_h5ad(path, counts()),
    "v2.h5": lambda path: write_10x(path, 2),
    "v3.h5": lambda path: write_10x(path, 3),
    "folder": lambda path: write_folder(path, compressed=False, types=False),
    "compressed-folder": lambda path: write_folder(path, compressed=True),
    "folder/matrix.mtx": lambda path: write_folder(path.parent, compressed=False),
    "x.mtx": lambda path: write_mtx(path, counts().astype(int)),
    "x.mtx.gz": lambda path: write_mtx(path, counts().T.astype(int)),
    "csr.npz": lambda path: sp.save_npz(path, counts()),
    "csc.npz": lambda path: sp.save_npz(path, counts().tocsc()),
    "coo.npz": lambda path: sp.save_npz(path, counts().astype("i8").tocoo()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(made, name):
    """The same genes and the same bits, whatever the counts are read from."""
    FORMATS[name](Path(name))
    transposed = ["--transpose"] if name == "x.mtx.gz" else []
    assert main(["pca", name, "-o", "out.h5ad", "--quiet", *SMALL, *transposed]) == 0
    found, expected = ad.read_h5ad("out.h5ad"), ad.read_h5ad(made / "out.h5ad")
    columns = ["highly_variable", "means", "dispersions", "dispersions_norm", "mean", "std"]
    pd.testing.assert_frame_equal(
        found.var[columns].reset_index(drop=True), expected.var[columns].reset_index(drop=True), rtol=1e-12
    )
    if "csc" in name:
        np.testing.assert_allclose(found.obsm["X_pca"], expected.obsm["X_pca"], atol=1e-4)
    else:
        np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
        np.testing.assert_array_equal(found.varm["PCs"], expected.varm["PCs"])
    if ".mtx" not in name.removeprefix("folder/matrix.mtx") and not name.endswith("npz"):
        assert list(found.obs_names) == CELL_NAMES
        assert list(found.var_names) == SYMBOLS
        assert list(found.var["gene_ids"]) == IDS
    if "matrix" not in name:
        assert json.loads(found.uns["csraxis"]["parameters"])["n_top_genes"] == 100
        assert found.uns["csraxis"]["input"] == name


@pytest.mark.parametrize("kind", ["h5", "folder"])
def test_only_genes_are_taken(kind):
    """Of several types of features; names that occur twice are made different."""
    types = ["Gene Expression"] * (GENES - 5) + ["Antibody Capture"] * 5
    names = ["twice", "twice", *SYMBOLS[2:]]
    path = Path("x.h5" if kind == "h5" else "folder")
    if kind == "h5":
        write_10x(path, 3, types, names)
    else:
        write_folder(path, compressed=False)
        rows = [f"{i}\t{name}\t{its}\n" for i, name, its in zip(IDS, names, types)]
        (path / "features.tsv").write_text("".join(rows))
    adata = _formats.source_of(path).open(70)
    assert adata.shape == (CELLS, GENES - 5)
    assert list(adata.var_names[:3]) == ["twice", "twice-1", "gene2"]
    assert adata.X.numblocks[0] == 5
    np.testing.assert_array_equal(cx.to_dense(adata.X).compute(), counts()[:, : GENES - 5].toarray())
    if kind == "h5":
        with h5py.File(path, "r+") as file:
            file["matrix/features/feature_type"][:] = np.array(["Peaks"] * GENES, "S")
        with pytest.raises(ValueError, match="no feature is of type 'Gene Expression'; there are Peaks"):
            _formats.source_of(path).open()


@pytest.mark.parametrize(("array", "value"), [("indices", GENES), ("indices", -1), ("indptr", 10**6), ("indptr", -1)])
def test_corrupt_files_of_10x(array, value, capsys):
    write_10x("x.h5", 3)
    with h5py.File("x.h5", "r+") as file:
        file[f"matrix/{array}"][100] = value
    assert main(["pca", "x.h5", "-o", "out.h5ad", "--quiet", *SMALL]) == 1
    assert re.match(rf"csraxis: x.h5: matrix[/.]{array}(\[100\] is | must not decrease)", capsys.readouterr().err)


@pytest.mark.parametrize(("name", "per_value"), [("x.mtx", 20), ("csr.npz", 8), ("coo.npz", 32)])
def test_what_is_held_is_known_before(name, per_value):
    FORMATS[name](Path(name))
    source = _formats.source_of(Path(name))
    assert source.n_stored() == counts().nnz
    assert source.held() == pytest.approx(per_value * counts().nnz, rel=0.1)


def test_what_is_held_is_said_before(capsys):
    FORMATS["x.mtx"](Path("x.mtx"))
    assert main(["pca", "x.mtx", "-o", "out.h5ad", "--memory", "2GB", *SMALL]) == 0
    held = _report.amount(20 * counts().nnz)
    expected = f"csraxis: x.mtx can only be read as a whole: {held} of memory besides --memory 2 GB"
    assert expected in capsys.readouterr().err.splitlines()


# What comes out


def test_the_result_is_that_of_the_recipe(made):
    result = cx.pp.recipe_pca(made / "x.h5ad", n_top_genes=100, n_comps=10, chunk_rows=70)
    found = ad.read_h5ad(made / "out.h5ad")
    assert found.X is None
    assert not found.layers
    assert found.raw is None
    pd.testing.assert_frame_equal(found.obs, result.obs)
    pd.testing.assert_frame_equal(found.var, result.var)
    np.testing.assert_array_equal(found.obsm["X_pca"], result.obsm["X_pca"])
    np.testing.assert_array_equal(found.uns["pca"]["variance_ratio"], result.uns["pca"]["variance_ratio"])
    made_by = found.uns["csraxis"]
    assert (made_by["version"], made_by["input"], made_by["command"]) == (cx.__version__, "x.h5ad", "pca")
    defaults = {name: PARAMETERS[name].default for name, _, _ in RECIPE}
    assert json.loads(made_by["parameters"]) == defaults | {"n_top_genes": 100, "n_comps": 10, "chunk_rows": 70}


def test_options_are_the_parameters_of_the_recipe(monkeypatch, made):
    """All of them but those that make no sense here."""
    assert set(PARAMETERS) - {name for name, _, _ in RECIPE} - {"memory", "progress"} == {
        *("data", "filter_unexpressed_genes", "dtype", "copy", "return_info")
    }
    got = {}

    def recipe(data, **options):
        got.update(options)
        raise ValueError("enough")

    recipe.__signature__ = _commands.inspect.signature(cx.pp.recipe_pca)
    monkeypatch.setattr(cx.pp, "recipe_pca", recipe)
    given = {
        "n_top_genes": ("none", None),
        "flavor": ("cell_ranger", "cell_ranger"),
        "n_bins": ("7", 7),
        "span": ("0.5", 0.5),
        "batch_key": ("batch", "batch"),
        "target_sum": ("none", None),
        "max_fraction": ("0.1", 0.1),
        "max_value": ("none", None),
        "n_comps": ("3", 3),
        "svd_solver": ("randomized", "randomized"),
        "random_state": ("5", 5),
        "layer": ("more", "more"),
        "key_added": ("mine", "mine"),
        "chunk_rows": ("9", 9),
    }
    write(annotated(counts(), layers={"more": counts()}), Path("x.h5ad"))
    flags = ["--exclude-highly-expressed", "--no-zero-center"]
    options = [part for name, (text, _) in given.items() for part in (f"--{name.replace('_', '-')}", text)]
    assert main(["pca", "x.h5ad", "-o", "out.h5ad", *options, *flags]) == 1
    expected = {name: value for name, (_, value) in given.items()}
    expected |= {"exclude_highly_expressed": True, "zero_center": False}
    assert {name: got[name] for name in expected} == expected
    assert set(expected) == {name for name, _, _ in RECIPE}
    assert files() == ["x.h5ad"]


def test_other_flavours_and_names(made):
    options = ["--flavor", "cell_ranger", "--batch-key", "batch", "--key-added", "mine", "--no-zero-center"]
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.zarr", "--quiet", *SMALL, *options]) == 0
    found = ad.read_zarr("out.zarr")
    assert found.obsm["mine"].shape == (CELLS, 10)
    assert found.uns["hvg"]["flavor"] == "cell_ranger"
    assert "highly_variable_nbatches" in found.var


def test_an_output_is_replaced_if_asked_for(made, capsys):
    arguments = ["pca", str(made / "x.h5ad"), "--quiet", *SMALL]
    for name in ("out.h5ad", "out.zarr"):
        assert main([*arguments, "-o", name]) == 0
        assert main([*arguments, "-o", name]) == 1
        assert capsys.readouterr().err == f"csraxis: {name} exists already; --overwrite replaces it\n"
        assert main([*arguments, "-o", name, "--overwrite", "--n-comps", "3"]) == 0
        read = ad.read_zarr if name.endswith("zarr") else ad.read_h5ad
        assert read(name).obsm["X_pca"].shape == (CELLS, 3)
    assert sorted(path.name for path in Path().iterdir()) == ["out.h5ad", "out.zarr"]
    Path("file.zarr").touch()
    assert main([*arguments, "-o", "file.zarr", "--overwrite"]) == 1
    assert capsys.readouterr().err == "csraxis: file.zarr: there is a file of that name\n"


def test_what_is_shown(made, capsys):
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--plot", "out.png", *SMALL]) == 0
    out, err = capsys.readouterr()
    shown = dict(re.split(r"(?<=\w)  +", line, maxsplit=1) for line in out.splitlines())
    assert shown["cells"] == "300"
    assert shown["genes"] == "400, 100 chosen"
    assert shown["stored values"] == f"{counts().nnz:,}"
    assert shown["components"] == "10"
    assert re.fullmatch(r"[\d.]+ s", shown["time"])
    assert [name for name in shown if name.startswith(" ")][:3] == ["  loading libraries", "  opening", "  reading"]
    assert shown["read"].startswith("1 pass over the counts, ")
    assert re.fullmatch(r"\d+ MB", shown["peak memory"]) or shown["peak memory"].endswith("GB")
    assert shown["result"] == "out.h5ad"
    assert shown["picture"] == "out.png"
    steps = [line.split(": ") for line in err.splitlines()]
    assert {line[0] for line in steps} == {"csraxis"}
    assert [line[1] for line in steps if line[1] != "warning"][-2:] == ["writing", "drawing"]


def test_quiet(made, capsys):
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--quiet", *SMALL]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_bar(monkeypatch, capsys):
    """On a terminal: step, share, rate, time left; and nothing of it stays."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with _report.Report(quiet=False) as report:
        for done in range(0, 101, 10):
            report.progress("reading", done, 100)
            time.sleep(0.02)
            report._bar.refresh()
        report.note("a note")
        report.progress("thinking", 0, None)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"reading ━+╺━+ *50 % [\d,]+ cells/s 0:00:00 left 0:00:0\d", shown)
    assert "csraxis: a note" in shown
    assert "csraxis: reading" not in shown
    assert list(report.seconds) == ["reading", "thinking"]


def test_info_and_version(capsys):
    assert main(["info"]) == 0
    assert capsys.readouterr().out.startswith("engine ")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"csraxis {cx.__version__}\n"


@pytest.mark.parametrize("components", [10, 3, 1])
@pytest.mark.parametrize("flavor", ["seurat", "seurat_v3"])
def test_pictures(made, components, flavor, monkeypatch):
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    monkeypatch.setattr(_plot, "DOTS", 1000 if components == 10 else 100)
    options = [*SMALL, "--n-comps", str(components), "--flavor", flavor, "--plot", "x.png", "--overwrite"]
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--quiet", *options]) == 0
    data = Path("x.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000
    assert files() == ["out.h5ad", "x.png"]


# What is refused


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.what.replace(" ", "-"))
def test_bad_input(bad, capsys):
    """One line, the status, and the folder as it was."""
    bad.make(Path())
    before = {path: Path(path).stat() for path in files()}
    assert main(bad.arguments) == bad.status
    out, err = capsys.readouterr()
    assert out == ""
    pattern = ".*".join(map(re.escape, bad.message.split("...")))
    assert re.fullmatch(f"csraxis: {pattern}\n", err), err
    after = {path: Path(path).stat() for path in files()}
    assert after.keys() == before.keys()
    assert all(after[path].st_mtime_ns == before[path].st_mtime_ns for path in before if path != "." and "." in path)


def test_bad_inputs_are_documented():
    page = ROOT / "docs/command-line.md"
    if not page.exists():
        pytest.skip("the tests were copied without docs/")
    assert "\n".join(table()) in page.read_text()


def test_options_are_documented():
    page = ROOT / "docs/command-line.md"
    if not page.exists():
        pytest.skip("the tests were copied without docs/")
    written = " ".join(page.read_text().split())
    for option in _commands.pca.params:
        if option.name != "input":
            assert all(name in written for name in (*option.opts, *option.secondary_opts))
            assert " ".join(option.help.split()) in written
    assert " ".join(_commands.pca.help.split()) in written


def test_a_file_that_may_not_be_read(made, capsys, monkeypatch):
    shutil.copy(made / "x.h5ad", "x.h5ad")
    Path("x.h5ad").chmod(0)
    if os.access("x.h5ad", os.R_OK):  # root
        message = "Unable to open file (name = 'x.h5ad', errno = 13, error message = 'Permission denied')"

        def refuse(*_, **__):
            raise PermissionError(13, message)

        monkeypatch.setattr(h5py, "File", refuse)
    assert main(["pca", "x.h5ad", "-o", "out.h5ad", "--quiet", *SMALL]) == 1
    assert capsys.readouterr().err == "csraxis: x.h5ad: Permission denied\n"
    assert files() == ["x.h5ad"]


def test_a_folder_that_may_not_be_written(made, capsys, monkeypatch):
    Path("folder").mkdir(mode=0o555)
    if os.access("folder", os.W_OK):  # root
        monkeypatch.setattr(Path, "touch", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert main(["pca", str(made / "x.h5ad"), "-o", "folder/out.h5ad", "--quiet", *SMALL]) == 1
    assert capsys.readouterr().err.startswith("csraxis: folder/out.h5ad: ")
    assert files() == ["folder"]


def test_a_disk_that_is_too_small(made, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 1000))
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--quiet", *SMALL]) == 1
    expected = "csraxis: out.h5ad: the scores need 12 kB, and 1 kB of the disk is free\n"
    assert capsys.readouterr().err == expected
    assert files() == []


def test_debug_shows_the_traceback(capsys):
    assert main(["pca", "nowhere.h5ad", "-o", "out.h5ad", "--debug"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("csraxis: no such file or folder: nowhere.h5ad\n")


def test_errors_of_any_kind_are_one_line(made, capsys, monkeypatch):
    for error, expected, status in (
        (MemoryError("Unable to allocate 3 TiB"), "not enough memory: Unable to allocate 3 TiB", 1),
        (ImportError("flavor='seurat_v3' needs scikit-misc"), "flavor='seurat_v3' needs scikit-misc", 2),
        (RuntimeError("two\nlines"), "{}: two lines", 1),
        (KeyError("name"), "{}: name", 1),
        (AssertionError(), "{}: AssertionError", 1),
    ):

        def recipe(*_, error=error, **__):
            raise error

        monkeypatch.setattr(cx.pp, "recipe_pca", recipe)
        name = str(made / "x.h5ad")
        assert main(["pca", name, "-o", "out.h5ad", "--quiet", *SMALL]) == status
        err = capsys.readouterr().err
        assert err.startswith(f"csraxis: {expected.format(name)}")
        assert err.count("\n") == 1
        assert files() == []


def test_without_the_packages_it_needs():
    script = """
    import runpy, sys
    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name == {name!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Hide())
    sys.argv = ["csraxis", "pca", "x.h5ad", "-o", "out.h5ad"]
    runpy.run_module("csraxis", run_name="__main__")
    """
    for name in ("click", "rich"):
        expected = f'csraxis: the command line needs {name}: pip install "csraxis[cli]"'
        assert run_script(script.format(name=name), fails=True) == expected


# Signals and processes


def command(*arguments, before="", **options):
    """The command in a process of its own, after some Python."""
    script = f"""{before}
import sys
from csraxis.__main__ import main
sys.argv = ["csraxis", *{list(map(str, arguments))!r}]
main()
"""
    return subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("where", ["recipe", "write", "draw"])
@pytest.mark.parametrize(
    ("number", "status", "what"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_leave_nothing(made, number, status, what, where, monkeypatch, capsys):
    """In each step; a second one while it cleans up does not disturb."""
    module, name = {"recipe": (cx.pp, "recipe_pca"), "write": (_pca, "_write"), "draw": (_plot, "draw")}[where]
    original, remove, seen = getattr(module, name), _output._remove, []

    def interrupted(*arguments, **options):
        original(*arguments, **options)
        seen.extend(files())
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 10)

    def removed(path):
        os.kill(os.getpid(), number)
        remove(path)

    monkeypatch.setattr(module, name, interrupted)
    monkeypatch.setattr(_output, "_remove", removed)
    before = signal.signal(number, signal.SIG_DFL)  # a background job ignores Ctrl-C, and then so does the command
    try:
        assert main(["pca", str(made / "x.h5ad"), "-o", "out.zarr", "--plot", "x.png", "--quiet", *SMALL]) == status
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == f"csraxis: {what}; nothing was written\n"
    assert any(name.startswith("out.zarr.csraxis-") for name in seen)
    assert files() == []


def test_killed_and_run_again(made):
    """What was half written is under another name, and gone after the next run."""
    kill = """
    import os, signal
    from csraxis.cli import _pca
    write = _pca._write
    def half(job, adata, path):
        write(job, adata, path)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    _pca._write = half
    """.replace("\n    ", "\n")
    arguments = ["pca", made / "x.h5ad", "-o", "out.h5ad", "--quiet", *SMALL]
    killed = command(*arguments, before=kill)
    assert killed.returncode == -signal.SIGKILL
    (left,) = files()
    assert re.fullmatch(r"out\.h5ad\.csraxis-.+-\d+", left)
    alive = re.sub(r"\d+$", str(os.getppid()), left)
    Path(alive).touch()
    again = command(*arguments)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert files() == sorted([alive, "out.h5ad"])
    found, expected = ad.read_h5ad("out.h5ad"), ad.read_h5ad(made / "out.h5ad")
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])


def test_a_folder_that_was_put_aside_comes_back(made):
    """A process was killed between the two renamings."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    old = Path(f"out.zarr{_output.MARK}{_output.socket.gethostname()}-{int(dead.stdout)}-old")
    old.mkdir()
    (old / "precious").touch()
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.zarr", "--quiet", *SMALL]) == 1
    assert files() == ["out.zarr", "out.zarr/precious"]


def test_full_disk(made):
    """The limit strikes while the scores are written."""
    limit = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    from csraxis.cli import _pca
    write = _pca._write
    def limited(job, adata, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        try:
            write(job, adata, path)
        finally:
            print(path.stat().st_size)
    _pca._write = limited
    """.replace("\n    ", "\n")
    found = command("pca", made / "x.h5ad", "-o", "out.h5ad", "--quiet", *SMALL, before=limit)
    assert found.returncode == 1
    assert 0 < int(found.stdout) <= 20_000
    assert found.stderr == "csraxis: out.h5ad: File too large\n"
    assert files() == []


def test_workers_give_the_same(made):
    """Processes of a cluster that the command starts, and threads of one that runs already."""
    distributed = pytest.importorskip("distributed")
    arguments = ["pca", made / "x.h5ad", *SMALL]
    found = command(*arguments, "-o", "out.h5ad", "--workers", "2", "--threads", "2", "--memory", "2GB")
    assert found.returncode == 0, found.stderr
    assert re.search(r"peak memory +\d+ MB, and up to \d+ MB in each of 2 workers", found.stdout)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        warnings.catch_warnings(),
    ):
        assert main([*map(str, arguments), "-o", "out2.h5ad", "--quiet", "--scheduler", cluster.scheduler_address]) == 0
    expected = ad.read_h5ad(made / "out.h5ad").obsm["X_pca"]
    for name in ("out.h5ad", "out2.h5ad"):
        np.testing.assert_array_equal(ad.read_h5ad(name).obsm["X_pca"], expected)


def test_a_cluster_that_is_not_there(made, capsys):
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--quiet", "--scheduler", "nonsense"]) == 1
    assert capsys.readouterr().err == "csraxis: missing port number in address 'nonsense'\n"


def test_threads_are_what_they_were(made, monkeypatch):
    import dask

    seen = []
    original = cx.pp.recipe_pca

    def recipe(*arguments, **options):
        seen.append((cx.get_config()["threads"], dask.config.get("num_workers")))
        return original(*arguments, **options)

    monkeypatch.setattr(cx.pp, "recipe_pca", recipe)
    monkeypatch.setenv("CSRAXIS_NUM_THREADS", "3")
    assert main(["pca", str(made / "x.h5ad"), "-o", "out.h5ad", "--quiet", "--threads", "1", *SMALL]) == 0
    assert seen == [(1, 1)]
    assert cx.get_config()["threads"] == 3
