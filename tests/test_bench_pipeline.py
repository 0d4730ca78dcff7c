"""The chain's benchmark and the demo, on tiny matrices: what is right gets times, what is wrong does not."""

import importlib
import json
import re
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

import csraxis as cx

# The tests also run from a folder that holds tests/ and bench/ alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import __main__ as command
from bench import (
    cases,
    chain,
    contestants,
    demo,
    generate,
    measure,
    memory,
    pipeline,
    reference,
    report,
    shapes,
    terminal,
)

for package in ("anndata", "dask", "rich"):
    pytest.importorskip(package)

SIZE = shapes.Size(300, 400)
PLAN = chain.Plan(n_top_genes=60, n_comps=8)
TINY = ["pipeline", "--cells", "300", "--genes", "400", "--n-top-genes", "60", "--n-comps", "8", "--source", "memory"]
BY_NAME = {contestant.name: contestant for contestant in chain.CONTESTANTS}


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory):
    """No test writes to the user's cache, or to bench/results; the tiny matrix is made once."""
    folder = tmp_path_factory.getbasetemp() / "bench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("bench.terminal.RESULTS", folder / "results")


@pytest.fixture
def tiny():
    return generate.load(generate.Parameters(SIZE.cells, SIZE.genes))


def run(contestant, x, plan=PLAN):
    """Without the warm-up."""
    start = chain._starter(contestant, chain.Source("memory", 70), lambda: x)
    with chain.quietly(1):
        return chain._runs(contestant, plan, start, lambda step: None, memory.Unknown)


def wrong(contestant, **functions):
    """A contestant of which some functions are others."""
    others = SimpleNamespace(**{**{name: getattr(cx.pp, name) for name in cx.pp.__all__}, **functions})
    return replace(contestant, load=lambda: others)


# ---- the chain


PASSES = {
    "QC metrics": 1,
    "filter genes": 2,
    "normalize_total": 1,
    "log1p": 1,
    "variable genes, subset": 2,
    "scale": 2,
    "PCA": 2,
    "whole chain": 6,
    "filter, recipe_pca": 3,
}
RECORD = {
    "contestant": str,
    "package": str,
    "on": str,
    "note": str,
    "run": str,
    "step": str,
    "status": str,
    "reason": (str, type(None)),
    "seconds": list,
    "median": (float, type(None)),
    "quartiles": (list, type(None)),
    "passes": (float, type(None)),
    "extra_bytes": list,
    "extra_median": (float, type(None)),
    "scanpy_over_it": (float, type(None)),
}


def test_whole_run_writes_tables_json_and_picture(tmp_path, capsys):
    for package in ("matplotlib", "zarr"):
        pytest.importorskip(package)
    json_path, plot_path = tmp_path / "new" / "r.json", tmp_path / "new" / "r.png"
    chosen = ["--contestant", "csraxis", "--contestant", "csraxis on Dask", "--in-process", "--repeats", "2"]
    options = [*TINY[:-1], "zarr", *chosen, "--threads", "2", "--json", str(json_path), "--plot", str(plot_path)]
    assert command.main(options) == 0
    printed = capsys.readouterr().out
    for text in ("csraxis on Dask", *PASSES, str(json_path), str(plot_path), np.__version__, "2 interleaved runs"):
        assert text in printed

    document = json.loads(json_path.read_text())
    assert {"format", "date", "machine", "versions", "csraxis", "settings", "left_out"} <= document.keys()
    settings = document["settings"]
    assert (settings["repeats"], settings["threads"], settings["source"]) == (2, 2, "zarr")
    assert settings["chunk_rows"] == 38
    assert settings["plan"]["n_top_genes"] == 60
    (shape,) = document["shapes"]
    assert (shape["shape"], shape["rows"], shape["columns"]) == ("generated", 300, 400)
    for record in document["records"]:
        assert record.keys() == RECORD.keys()
        for key, kind in RECORD.items():
            assert isinstance(record[key], kind), key
        assert record["status"] == "ok", record["reason"]
        assert len(record["seconds"]) == 2
        assert min(record["seconds"]) > 0
    its = pipeline.by_contestant(document)
    assert [record["step"] for record in its["csraxis"]] == list(PASSES)
    assert {record["passes"] for record in its["csraxis"]} == {None}
    assert {record["step"]: record["passes"] for record in its["csraxis on Dask"]} == PASSES

    image = importlib.import_module("matplotlib.image").imread(plot_path)
    assert image.shape[1] > 1000
    assert np.ptp(image[..., 0]) > 0.5

    assert command.main(["pipeline", "--markdown", str(json_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("|  | csraxis | csraxis on Dask |\n| --- | --- | --- |\n| QC metrics | ")
    assert ", 1 pass |" in printed
    assert ", 6 passes |" in printed
    assert "300 rows x 400 columns" in printed


def test_scanpy_is_right_and_compared_with(capsys):
    pytest.importorskip("scanpy")
    chosen = ["--contestant", "csraxis", "--contestant", "scanpy", "--in-process", "--repeats", "1"]
    assert command.main([*TINY, *chosen]) == 0
    document = json.loads((terminal.RESULTS / "pipeline-generated-300x400.json").read_text())
    assert {record["status"] for record in document["records"]} == {"ok"}
    its = {name: {r["step"]: r for r in records} for name, records in pipeline.by_contestant(document).items()}
    assert its["scanpy"].keys() | {chain.RECIPE} == its["csraxis"].keys()
    for step, record in its["csraxis"].items():
        inside = [step] if step != chain.RECIPE else list(PASSES)[1:-2]
        theirs = sum(its["scanpy"][one]["median"] for one in inside)
        assert record["scanpy_over_it"] == pytest.approx(theirs / record["median"])
    assert "one run" in capsys.readouterr().out


def test_wrong_csraxis_prints_fail_and_fails_the_command(monkeypatch, tmp_path, capsys):
    def pca(adata, **options):
        cx.pp.pca(adata, **options)
        adata.obsm["X_pca"] = adata.obsm["X_pca"] * 1.001

    monkeypatch.setattr(chain, "CONTESTANTS", (wrong(BY_NAME["csraxis"], pca=pca),))
    assert command.main([*TINY, "--in-process", "--repeats", "1", "--json", str(tmp_path / "r.json")]) == 1
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert "csraxis is wrong" in captured.err
    records = json.loads((tmp_path / "r.json").read_text())["records"]
    for record in records:
        if record["run"] == chain.RECIPE:
            assert record["status"] == "ok"
        else:
            assert record["status"] == "FAIL"
            assert record["seconds"] == []
            assert record["median"] is record["extra_median"] is None
            assert "singular value 0 is" in record["reason"]


def _other_genes(adata, subset=False, **options):
    cx.pp.highly_variable_genes(adata, **options)
    chosen = adata.var["highly_variable"].to_numpy(bool)
    adata.var["highly_variable"] = np.roll(chosen, 1)
    adata._inplace_subset_var(adata.var["highly_variable"].to_numpy())


def _other_totals(adata, **options):
    cx.pp.calculate_qc_metrics(adata, **options)
    adata.obs["total_counts"] *= 1.01


def _other_ratios(adata, **options):
    cx.pp.pca(adata, **options)
    adata.uns["pca"]["variance_ratio"] = adata.uns["pca"]["variance_ratio"][::-1]


def _fewer(adata, n_comps, **options):
    cx.pp.pca(adata, n_comps=n_comps - 1, **options)


@pytest.mark.parametrize("on", ["csraxis", "csraxis on Dask"])
@pytest.mark.parametrize(
    ("name", "function", "reason"),
    [
        ("highly_variable_genes", _other_genes, "genes are wrong: .* was(| not) chosen"),
        ("calculate_qc_metrics", _other_totals, "totals of the cells are wrong"),
        ("pca", _other_ratios, "share of the variance 0 is"),
        ("pca", _fewer, r"shape \(7,\) instead of \(8,\)"),
        ("normalize_total", lambda adata, target_sum: None, "genes are wrong|singular value"),
    ],
)
def test_what_is_wrong_is_noticed(tiny, on, name, function, reason):
    runs = run(wrong(BY_NAME[on], **{name: function}), tiny)
    truth = reference.Reference(tiny, PLAN)
    for key in runs.keys() - {chain.RECIPE}:
        assert re.search(reason, truth.disagreement(runs[key].result) or "nothing")
    assert truth.disagreement(runs[chain.RECIPE].result) is None


def test_step_that_raises_stops_what_builds_on_it(tiny):
    def refuse(adata, **options):
        raise NotImplementedError("not on Dask\nand more")

    runs = run(wrong(BY_NAME["csraxis on Dask"], scale=refuse), tiny)
    rows = {row.step: row.reason for row in runs[chain.STEPS].rows}
    assert rows["log1p"] is None
    assert rows["scale"] == "NotImplementedError: not on Dask"
    assert rows["PCA"] == chain.NOT_REACHED
    assert runs[chain.STEPS].result is None
    assert runs[chain.WHOLE].rows[0].reason == "NotImplementedError: not on Dask"

    runs = run(wrong(BY_NAME["csraxis"], calculate_qc_metrics=refuse), tiny)
    rows = {row.step: row.reason for row in runs[chain.STEPS].rows}
    assert rows == {
        **dict.fromkeys(rows),
        "QC metrics": "NotImplementedError: not on Dask",
        chain.WHOLE: rows[chain.WHOLE],
    }
    assert rows[chain.WHOLE]
    assert reference.Reference(tiny, PLAN).disagreement(runs[chain.STEPS].result) is None


@pytest.mark.parametrize("flavor", pipeline.FLAVORS)
def test_flavours(tiny, flavor):
    if flavor.startswith("seurat_v3"):
        pytest.importorskip("skmisc")
    plan = replace(PLAN, flavor=flavor)
    truth = reference.Reference(tiny, plan)
    for result in run(BY_NAME["csraxis"], tiny, plan).values():
        assert truth.disagreement(result.result) is None


@pytest.mark.parametrize("contestant", chain.CONTESTANTS, ids=lambda c: c.name)
@pytest.mark.parametrize("zero_center", [True, False])
def test_each_contestant_is_right(tiny, contestant, zero_center):
    absent = chain.absence(contestant, "memory")
    if absent:
        pytest.skip(absent)
    plan = replace(PLAN, zero_center=zero_center)
    truth = reference.Reference(tiny, plan)
    for found in run(contestant, tiny, plan).values():
        assert not [row for row in found.rows if row.reason], found.rows
        assert truth.disagreement(found.result) is None


def test_autozyme_leaves_scanpy_as_it_was():
    pytest.importorskip("autozyme")
    scanpy = importlib.import_module("scanpy")
    before = scanpy.pp.log1p
    with contestants.patched_scanpy(2):
        assert scanpy.pp.log1p is not before
    assert scanpy.pp.log1p is before


def test_reference_in_blocks_and_by_scikit_learn(tiny, monkeypatch):
    pytest.importorskip("sklearn")
    truth = reference.Reference(tiny, PLAN)
    genes = np.flatnonzero(truth.scores >= truth.last)
    expected = truth.components(genes)
    monkeypatch.setattr(reference, "DENSE_UP_TO", 0)
    monkeypatch.setattr(reference, "BLOCK_ROWS", 70)
    for got, right in zip(reference.Reference(tiny, PLAN).components(genes), expected):
        np.testing.assert_allclose(got, right, rtol=1e-9)


@pytest.mark.parametrize("kind", chain.SOURCES)
def test_sources(tiny, tmp_path, kind):
    if kind == "zarr":
        pytest.importorskip("zarr")
    source = chain.Source(kind, 70, chain.write_store(tiny, kind, tmp_path), 150 if kind == "memory" else None)
    x = chain._lazy(source, lambda: tiny).X
    assert x.numblocks == (5, 3 if kind == "memory" else 1)
    counted, reads = chain.counted(x)
    np.testing.assert_array_equal(cx.to_dense(counted).compute(scheduler="sync"), tiny.toarray())
    assert len(reads) == np.prod(x.numblocks)


def test_plan_fits_small_matrices():
    assert chain.Plan().fitted(100_000, 30_000) == chain.Plan()
    plan = chain.Plan().fitted(20, 40)
    assert (plan.n_top_genes, plan.n_comps) == (8, 7)


# ---- processes of their own


def test_process_of_its_own(tiny):
    job = chain.Job("csraxis", PLAN, chain.Source("memory", 70), "generated", SIZE, 1)
    seen = []
    runs = pipeline.spawn(job, 120, seen.append)
    assert isinstance(runs, dict), runs
    assert reference.Reference(tiny, PLAN).disagreement(runs[chain.STEPS].result) is None
    assert "starting" in seen


def test_process_that_ends_badly():
    job = chain.Job("nobody", PLAN, chain.Source("memory", 70), "generated", SIZE, 1)
    assert "ended with status 1 in: starting (ValueError" in pipeline.spawn(job, 120, lambda step: None)
    assert pipeline.spawn(job, 0, lambda step: None) == "not finished within 0 s, stopped in: starting"


def test_stopped_contestant_has_no_times(monkeypatch, capsys):
    monkeypatch.setattr(chain, "CONTESTANTS", (BY_NAME["csraxis"],))
    monkeypatch.setattr(pipeline, "spawn", lambda *arguments: "not finished within 1 s, stopped in: PCA")
    assert command.main([*TINY, "--repeats", "2"]) == 1
    captured = capsys.readouterr()
    assert "not done" in captured.out
    assert "stopped in: PCA" in captured.err


# ---- what is asked for


def test_markdown_needs_results_of_a_pipeline(tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(report.new_document({"repeats": 1, "threads": 1}, None)))
    assert command.main(["pipeline", "--markdown", str(tmp_path / "r.json")]) == 2
    assert command.main(["pipeline", "--markdown", str(tmp_path / "absent.json")]) == 2
    assert "has no results of a pipeline" in capsys.readouterr().err


def test_absent_packages_are_said(monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dask" else there(name))
    assert chain.absence(BY_NAME["csraxis"], "zarr") is None
    assert chain.absence(BY_NAME["csraxis on Dask"], "zarr") == "needs dask (pip install dask)"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("pipeline", "demo"):
        assert command.main([name]) == 2
        assert 'pip install "csraxis[bench]"' in capsys.readouterr().err


# ---- time and memory


@pytest.mark.parametrize("by_thread", [False, True])
def test_peak_memory(monkeypatch, by_thread):
    if by_thread:
        monkeypatch.setattr(memory, "_set_mark_back", lambda: False)
    if memory.resident() is None:
        pytest.skip("there is no way to know the memory of a process here")
    with memory.Peak() as peak:
        block = np.ones(10_000_000)
        time.sleep(0.1 * by_thread)
        del block
    assert 75e6 < peak.highest - peak.start < 100e6


def test_budget_ends_the_rounds_of_a_case():
    x = sparse.random(50, 40, 0.2, format="csr", dtype=np.float32, random_state=0)
    x.data = np.rint(9 * x.data + 1)
    (case,) = (case for case in cases.CASES if case.name == "sum-rows")
    (scipy,) = (c for c in contestants.CONTESTANTS if c.name == "scipy")
    rounds = partial(measure.run_case, case, [scipy], x, repeats=20)
    assert len(rounds(budget=1e-9).entries[0].seconds) == measure.MIN_ROUNDS
    assert len(rounds(budget=1e9).entries[0].seconds) == 20


# ---- the demo


def test_demo(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    anndata = importlib.import_module("anndata")
    folder = tmp_path / "new" / "demo"
    assert command.main(["demo", "--cells", "200", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    for text in ("200 cells", *PASSES, "the same genes", str(folder / "pbmc3k.h5ad"), str(folder / "pbmc3k.png")):
        assert text in printed
    assert "FAIL" not in printed
    adata = anndata.read_h5ad(folder / "pbmc3k.h5ad")
    assert adata.shape[0] == 200
    assert "NKG7" in adata.var_names
    assert adata.var["highly_variable"].sum() == 2000
    assert adata.obsm["X_pca"].shape == (200, 50)
    assert (adata.X.data == np.rint(adata.X.data)).all()  # still counts
    image = importlib.import_module("matplotlib.image").imread(folder / "pbmc3k.png")
    assert np.ptp(image[..., 0]) > 0.5


def test_demo_says_what_is_wrong(monkeypatch, tmp_path, capsys):
    def pca(adata, **options):
        cx.pp.pca(adata, **options)
        adata.obsm["X_pca"] = adata.obsm["X_pca"] * 1.001

    on_dask = wrong(BY_NAME["csraxis on Dask"], pca=pca)
    monkeypatch.setattr(chain, "CONTESTANTS", (BY_NAME["csraxis"], on_dask))
    assert command.main(["demo", "--cells", "100", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL Dask, cut by cells, steps: singular value 0" in printed
    assert "FAIL Dask, cut by both: another result than in memory" in printed


def test_demo_of_an_unknown_gene_or_folder(tmp_path, capsys):
    assert command.main(["demo", "--marker", "nonsense"]) == 2
    assert "there is no gene 'nonsense'" in capsys.readouterr().err
    assert len(set(demo.gzip.decompress(demo.SYMBOLS.read_bytes()).split())) == 32_738
