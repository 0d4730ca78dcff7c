"""Every row of the benchmark's tables runs once on a tiny matrix, and what is wrong gets no time."""

import dataclasses
import importlib
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

# The tests also run from a folder that holds tests/ and bench/ alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import __main__ as command
from bench import cases, contestants, generate, measure, report, shapes, verify
from conftest import LONG

TINY = generate.Parameters(cells=60, genes=40, median_total=30.0, chunk_rows=16)
BY_NAME = {contestant.name: contestant for contestant in contestants.CONTESTANTS}


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """No test writes to the user's cache, or to bench/results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.terminal.RESULTS", tmp_path / "results")


@pytest.fixture
def tiny():
    x = sparse.vstack([generate.chunk(TINY, i) for i in range(TINY.n_chunks)], format="csr", dtype=np.float32)
    x.data[x.indptr[7] : x.indptr[9]] = 0  # two empty rows
    x.eliminate_zeros()
    return sparse.csr_matrix(x)


PAIRS = [(case, c) for case in cases.CASES for c in contestants.CONTESTANTS if case.name in c.runs]


@pytest.mark.parametrize(("case", "contestant"), PAIRS, ids=[f"{case.name}-{c.name}" for case, c in PAIRS])
def test_contestant_is_right_and_timed(case, contestant, tiny):
    for package in case.requires:
        pytest.importorskip(package)
    if contestant.name == "autozyme" and not LONG:
        pytest.skip("it compiles for half a minute; HYPOTHESIS_PROFILE=long runs it")
    absent = contestants.absence(contestant)
    if absent:
        assert (contestant.engine or "none") not in os.environ.get("CSRAXIS_REQUIRE_ENGINES", ""), absent
        pytest.skip(f"{contestant.name} is {absent}")
    before = tiny.copy()
    outcome = measure.run_case(case, [contestant], tiny, repeats=2, threads=2)
    (entry,) = outcome.entries
    assert entry.failure is None
    assert len(entry.seconds) == len(outcome.memory_pass) == 2
    assert min(entry.seconds) > 0
    assert outcome.moves > 0
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(tiny, name), getattr(before, name))


def contestants_of(engine):
    return {name for c in contestants.CONTESTANTS if c.engine == engine for name in c.runs}


def test_tables_are_consistent():
    names = {case.name for case in cases.CASES}
    for table in (cases.CASES, contestants.CONTESTANTS, shapes.SHAPES):
        assert len({row.name for row in table}) == len(table)
    for contestant in contestants.CONTESTANTS:
        assert contestant.runs.keys() <= names
    for engine in ("cython", "numba"):
        assert contestants_of(engine) == names


def test_references_by_hand():
    x = sparse.csr_matrix(np.array([[1, 0, 2], [0, 0, 0], [3, 4, 5]], dtype=np.float32))
    reference = {case.name: case.reference for case in cases.CASES}
    np.testing.assert_array_equal(reference["sum-rows"](x), [3, 0, 12])
    np.testing.assert_array_equal(reference["sum-columns"](x), [4, 4, 7])
    np.testing.assert_array_equal(reference["scale-rows"](x, np.array([2, 3, 10])).toarray()[2], [30, 40, 50])
    np.testing.assert_array_equal(reference["scale-columns"](x, np.array([2, 3, 10])).toarray()[0], [2, 0, 20])
    mean, var = reference["mean-var-columns"](x)
    np.testing.assert_array_equal(mean, x.toarray().mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(var, x.toarray().var(axis=0, dtype=np.float64), rtol=1e-15)
    mean, var = reference["mean-var-rows"](x)
    np.testing.assert_allclose(var, x.toarray().var(axis=1, dtype=np.float64), rtol=1e-15)
    logged = reference["normalize-log1p"](x).toarray()
    np.testing.assert_allclose(logged.sum(axis=1)[:2], [np.log1p(1e4 / 3) + np.log1p(2e4 / 3), 0], rtol=1e-15)


def _wrong_value(x, axis):
    result = np.asarray(x.sum(axis=axis)).ravel()
    result[5] *= 1.00001
    return result


def _nan(x, axis):
    result = np.asarray(x.sum(axis=axis)).ravel()
    result[3] = np.nan
    return result


def _wrong_axis(x, axis):
    return np.asarray(x.sum(axis=1 - axis)).ravel()


def _raising(x, axis):
    raise RuntimeError("no such thing")


def _changes_its_input(x, axis):
    result = np.asarray(x.sum(axis=axis)).ravel()
    x.data[0] += 1
    return result


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (_wrong_value, r"\[5\] is"),
        (_nan, r"\[3\] is nan"),
        (_wrong_axis, "shape"),
        (_raising, "RuntimeError: no such thing"),
        (_changes_its_input, "input was changed"),
    ],
)
def test_wrong_contestant_fails_and_has_no_time(tiny, function, reason):
    (case,) = (case for case in cases.CASES if case.name == "sum-rows")
    wrong = contestants.Contestant("wrong", "scipy", "scipy", {"sum-rows": lambda x: function(x, axis=1)})
    outcome = measure.run_case(case, [wrong, BY_NAME["scipy"]], tiny, repeats=2)
    failed, right = outcome.entries
    assert failed.seconds == []
    assert failed.extra_bytes is None
    assert right.failure is None
    assert len(right.seconds) == 2
    assert re.search(reason, failed.failure)
    document = report.new_document({"repeats": 2, "threads": None}, None)
    report.add_outcome(document, "tiny", outcome)
    record = document["records"][0]
    assert record["status"] == "FAIL"
    assert record["median"] is record["ratio_to_csraxis"] is None


def test_wrong_structure_is_noticed(tiny):
    moved = tiny.copy()
    moved.indices[0] = (moved.indices[0] + 1) % tiny.shape[1]
    assert "indices" in verify.disagreement(moved, tiny)
    assert "not sparse" in verify.disagreement(tiny.toarray(), tiny)
    assert "tuple" in verify.disagreement(np.zeros(3), (np.zeros(3), np.zeros(3)))
    assert verify.disagreement(tiny.tocsc(), tiny) is None


def test_wrong_csraxis_prints_fail_and_fails_the_command(monkeypatch, capsys):
    """A wrong csraxis: FAIL in its row, exit status 1."""
    pytest.importorskip("rich")
    broken = [
        dataclasses.replace(c, runs={**c.runs, "sum-rows": lambda x: _wrong_value(x, axis=1)})
        for c in contestants.CONTESTANTS
        if c.engine and contestants.absence(c) is None
    ]
    if not broken:
        pytest.skip("csraxis has no engine here")
    monkeypatch.setattr(contestants, "CONTESTANTS", (*broken, BY_NAME["scipy"]))
    assert _command("--case", "sum-rows") == 1
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert "csraxis is wrong" in captured.err


def test_any_chunk_alone_and_reproducible():
    chunks = [generate.chunk(TINY, i) for i in range(TINY.n_chunks)]
    assert [c.shape for c in chunks] == [(16, 40)] * 3 + [(12, 40)]
    again = generate.chunk(TINY, 2)
    assert (again != chunks[2]).nnz == 0
    assert (chunks[0] != chunks[1]).nnz > 0
    assert (generate.chunk(dataclasses.replace(TINY, seed=1), 2) != chunks[2]).nnz > 0
    for c in chunks:
        assert c.dtype == np.int32
        assert c.has_canonical_format
        assert c.data.min() > 0
    with pytest.raises(IndexError, match=r"\[0, 4\), got 4"):
        generate.chunk(TINY, 4)


def test_cached_matrix_is_its_chunks(tmp_path):
    seen = []
    x = generate.load(TINY, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 4) for i in range(4)]
    whole = sparse.vstack([generate.chunk(TINY, i) for i in range(4)])
    assert x.dtype == np.float32
    assert x.shape == (60, 40)
    assert (x != whole).nnz == 0
    cached = generate.load(TINY, lambda done, total: pytest.fail("made again"))
    assert (cached != x).nnz == 0
    assert [p.name for p in (tmp_path / "cache" / "csraxis-bench").iterdir()] == [TINY.key]


def test_interrupted_generation_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate.load(TINY, stop)
    assert list((tmp_path / "cache" / "csraxis-bench").iterdir()) == []


def test_generated_counts_are_realistic():
    """Against the embedded matrix: stored values per cell, totals, and how many of the values are ones."""
    made = generate.chunk(generate.Parameters(cells=2000, genes=30_000), 0)
    real = sparse.load_npz(generate.EMBEDDED)
    assert made.nnz / made.shape[0] == pytest.approx(real.nnz / real.shape[0], rel=0.1)
    totals = np.asarray(made.sum(axis=1)).ravel()
    assert np.median(totals) == pytest.approx(2200, rel=0.1)
    assert np.log10(totals).std() == pytest.approx(0.185, abs=0.03)
    assert (made.data == 1).mean() == pytest.approx((real.data == 1).mean(), abs=0.05)


def test_absent_data_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CSRAXIS_DATA", str(tmp_path))
    for shape in shapes.SHAPES:
        if shape.file is None:
            assert shapes.absence(shape) is None
        else:
            with pytest.raises(shapes.Unavailable, match="set CSRAXIS_DATA"):
                shapes.load(shape)


@pytest.mark.parametrize("shape", [s for s in shapes.SHAPES if s.file], ids=lambda s: s.name)
def test_larger_real_matrices_load(shape):
    absent = shapes.absence(shape)
    if absent:
        pytest.skip(absent)
    x = shapes.load(shape)
    assert x.dtype == np.float32
    assert f"{x.shape[0]:,}" in shape.what


def _command(*options):
    return command.main(["--cells", "60", "--genes", "40", "--repeats", "2", "--threads", "2", *options])


def test_list(capsys):
    pytest.importorskip("rich")
    assert command.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for row in (*cases.CASES, *contestants.CONTESTANTS, *shapes.SHAPES):
        assert row.name in printed


def test_nothing_measured_is_an_error(monkeypatch, tmp_path, capsys):
    pytest.importorskip("rich")
    monkeypatch.setenv("CSRAXIS_DATA", str(tmp_path))
    assert _command("--data", "text_terms") == 2
    captured = capsys.readouterr()
    assert "text_terms.npzisabsent" in "".join(captured.out.split())  # a long path breaks lines anywhere
    assert "nothing was measured" in captured.err


def test_results_that_cannot_be_written_are_an_error_after_the_first_case(tmp_path, capsys):
    pytest.importorskip("rich")
    (tmp_path / "file").write_text("")
    cases = ("--case", "sum-rows", "--case", "scale-rows")
    assert _command(*cases, "--json", str(tmp_path / "file" / "r.json")) == 2
    captured = capsys.readouterr()
    assert "choose another place" in captured.err
    assert "sum-rows" in captured.err
    assert "scale-rows" not in captured.err


def test_each_case_is_written_when_it_is_done(tmp_path, monkeypatch):
    pytest.importorskip("rich")
    run_case, path, partial = measure.run_case, tmp_path / "r.json", tmp_path / "r.partial.json"
    path.write_text("a whole run before")
    written = []

    def noting(*args, **options):
        assert path.read_text() == "a whole run before"
        written.append(json.loads(partial.read_text())["cases"] if partial.exists() else [])
        return run_case(*args, **options)

    monkeypatch.setattr(measure, "run_case", noting)
    assert _command("--case", "sum-rows", "--case", "scale-rows", "--json", str(path)) == 0
    assert [[case["case"] for case in cases] for cases in written] == [[], ["sum-rows"]]
    assert len(json.loads(path.read_text())["cases"]) == 2
    assert not partial.exists()


def test_another_error_is_not_one_of_the_results(tmp_path, monkeypatch):
    pytest.importorskip("rich")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError):
        _command("--case", "sum-rows", "--json", str(tmp_path / "r.json"))


def test_what_takes_minutes_a_call_sits_out_unless_it_is_named(tmp_path, monkeypatch):
    pytest.importorskip("rich")
    slow = [dataclasses.replace(c, at_most=10) if c.name == "scipy" else c for c in contestants.CONTESTANTS]
    monkeypatch.setattr(contestants, "CONTESTANTS", slow)
    for options, there in (((), False), (("--contestant", "scipy"), True)):
        path = tmp_path / f"{there}.json"
        assert _command("--case", "sum-rows", *options, "--json", str(path)) == 0
        document = json.loads(path.read_text())
        assert ("scipy" in {record["contestant"] for record in document["records"]}) is there
        reasons = [item["reason"] for item in document["left_out"] if item["name"] == "scipy"]
        assert reasons == ([] if there else ["takes minutes a call of generated (--contestant scipy)"])


def test_unknown_case_names_the_known(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--case", "nonsense"])
    assert stop.value.code == 2
    assert "sum-rows" in capsys.readouterr().err


def test_missing_rich_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["--list"]) == 2
    assert 'pip install "csraxis[bench]"' in capsys.readouterr().err


RECORD = {
    "shape": str,
    "case": str,
    "contestant": str,
    "engine": (str, type(None)),
    "note": str,
    "status": str,
    "reason": (str, type(None)),
    "seconds": list,
    "median": (float, type(None)),
    "quartiles": (list, type(None)),
    "ratio_to_csraxis": (float, type(None)),
    "ratio_to_memory_pass": (float, type(None)),
    "ratio_to_roofline": (float, type(None)),
    "extra_bytes": (int, type(None)),
    "extra_share": (float, type(None)),
    "accuracy": dict,
}


def test_whole_run_writes_table_json_and_picture(tmp_path, capsys):
    for package in ("csraxis", "rich", "matplotlib"):
        pytest.importorskip(package)
    chosen = ["--case", "sum-rows", "--case", "scale-columns"]
    json_path, plot_path = tmp_path / "new" / "r.json", tmp_path / "new" / "r.png"
    assert _command(*chosen, "--json", str(json_path), "--plot", str(plot_path)) == 0
    printed = capsys.readouterr().out
    for text in ("sum-rows", "scale-columns", "csraxis[", "scipy", "memory pass", str(json_path), str(plot_path)):
        assert text in printed
    assert np.__version__ in printed

    document = json.loads(json_path.read_text())
    assert {"format", "date", "machine", "versions", "csraxis", "settings", "left_out"} <= document.keys()
    assert document["format"] == 2
    assert document["versions"]["numpy"] == np.__version__
    assert {"cpu", "processors", "python", "system"} <= document["machine"].keys()
    assert document["settings"] == {"repeats": 2, "threads": 2, "patience": command.PATIENCE}
    (shape,) = document["shapes"]
    assert (shape["shape"], shape["rows"], shape["columns"]) == ("generated", 60, 40)
    assert [case["case"] for case in document["cases"]] == ["sum-rows", "scale-columns"]
    for record in document["records"]:
        assert record.keys() == RECORD.keys()
        for key, kind in RECORD.items():
            assert isinstance(record[key], kind), key
        assert record["status"] == "ok", record["reason"]
        assert len(record["seconds"]) == 2
    for case in ("sum-rows", "scale-columns"):
        own = [r["ratio_to_csraxis"] for r in document["records"] if r["case"] == case and r["engine"]]
        assert min(own) == 1.0

    assert plot_path.read_bytes().startswith(b"\x89PNG")
    image = importlib.import_module("matplotlib.image").imread(plot_path)
    assert image.shape[1] > 1000
    assert np.ptp(image[..., 0]) > 0.5


def test_one_engine_and_default_paths(tmp_path, capsys):
    for package in ("csraxis", "rich"):
        pytest.importorskip(package)
    engine = next((c.engine for c in contestants.CONTESTANTS if c.engine and contestants.absence(c) is None), None)
    if engine is None:
        pytest.skip("csraxis has no engine here")
    assert _command("--case", "sum-rows", "--engine", engine) == 0
    document = json.loads((tmp_path / "results" / "generated-60x40.json").read_text())
    assert {r["engine"] for r in document["records"]} == {engine, None}
    assert "generated-60x40.json" in "".join(capsys.readouterr().out.split())
