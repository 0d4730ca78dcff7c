"""What the benchmarks make of recorded runs: comparisons, pages, and the committed page."""

import copy
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

# The tests also run from a folder that holds tests/ and bench/ alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import __main__ as command
from bench import compare, contestants, fresh, generate, levels, memory, overhead, page, shapes, sweep

for package in ("csraxis", "rich", "matplotlib"):
    pytest.importorskip(package)

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    """No test writes to the user's cache, or to bench/results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.terminal.RESULTS", tmp_path / "results")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A tiny run of two cases, with everything that --also adds."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(overhead.section, "__defaults__", (20, 3, 2))
        patch.setattr(fresh.section, "__defaults__", (50, 40, 1, None))
        patch.setattr(fresh, "PROCESSES", fresh.PROCESSES[:-1])  # scanpy compiles for ten seconds each time
        patch.setattr(sweep, "PEERS", ("scipy",))  # and so do the others; tests/test_bench.py has them
        patch.setitem(levels.section.__kwdefaults__, "names", ("sum-rows",))
        patch.setitem(levels.section.__kwdefaults__, "rounds", 1)
        options = ["--cells", "60", "--genes", "40", "--repeats", "2", "--threads", "2", "--also", "all"]
        chosen = ["--case", "sum-rows", "--case", "scale-columns", "--contestant", "scipy", "--max-values", "2000"]
        places = ["--json", str(folder / "r.json"), "--plot", str(folder / "r.png")]
        assert command.main([*options, *chosen, *places]) == 0
    return folder / "r.json"


@pytest.fixture
def document(recorded):
    return json.loads(recorded.read_text())


def slower(document, factor, contestant="csraxis"):
    """The same run, where the times of some contestants are others."""
    changed = copy.deepcopy(document)
    for record in changed["records"]:
        if record["contestant"].startswith(contestant):
            record["median"] *= factor
    return changed


# ---- comparison


@pytest.mark.parametrize(("factor", "regressions"), [(1.0, False), (1.2, False), (1.3, True), (0.5, False)])
def test_regressions_are_told(document, factor, regressions):
    records = compare.compare(slower(document, factor), document)
    assert {r["case"] for r in records} == {"sum-rows", "scale-columns"}
    for r in records:
        assert r["in_passes"] == pytest.approx(factor)
        assert r["in_peers"] == pytest.approx(factor)
        assert r["regression"] is regressions


def test_a_machine_that_is_slower_is_no_regression(document):
    busy = slower(document, 3.0, "")
    for case in busy["cases"]:
        case["memory_pass_median"] *= 3
    assert not any(r["verdict"] for r in compare.compare(busy, document))


def test_one_of_two_ratios_is_unclear(document):
    verdicts = {r["verdict"] for r in compare.compare(slower(document, 0.5, "scipy"), document)}
    assert verdicts == {"unclear"}


def test_a_wrong_result_is_a_regression(document):
    wrong = copy.deepcopy(document)
    for record in wrong["records"]:
        if record["engine"]:
            record |= {"median": None, "status": "FAIL", "reason": "no such thing"}
    records = compare.compare(wrong, document)
    assert records
    assert all(r["regression"] and "no such thing" in r["verdict"] for r in records)


def test_compare_command(tmp_path, recorded, document, capsys):
    new = tmp_path / "new.json"
    new.write_text(json.dumps(slower(document, 2.0)))
    assert command.main(["compare", str(new), str(recorded)]) == 1
    printed = capsys.readouterr().out
    assert "2.00x" in printed
    assert "slower" in printed
    assert command.main(["compare", str(new), str(recorded), "--tolerance", "2.5"]) == 0
    for record in document["shapes"]:
        record["rows"] += 1
    new.write_text(json.dumps(document))
    assert command.main(["compare", str(new), str(recorded)]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_compare_with_a_new_run(tmp_path, recorded, document, capsys):
    options = ["--cells", "60", "--genes", "40", "--repeats", "2", "--case", "sum-rows", "--contestant", "scipy"]
    before = tmp_path / "before.json"
    before.write_text(json.dumps(slower(document, 1e-3)))
    assert command.main([*options, "--compare", str(before)]) == 1
    before.write_text(json.dumps(slower(document, 1e3)))
    assert command.main([*options, "--compare", str(before)]) == 0
    assert "0 of 2 regressed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("text", ["", "{}", "no JSON", None])
def test_compare_with_what_is_no_run(tmp_path, text, capsys):
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert command.main(["--case", "sum-rows", "--compare", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


# ---- sections


def test_overhead(document, capsys):
    found = document["overhead"]
    assert found["size"] == 20
    for record in found["records"]:
        assert record["status"] == "ok", record["reason"]
        assert min(record["public"], record["kernel"]) > 0
    assert any(record["ratio_to_scipy"] for record in found["records"])
    assert command.main(["overhead", "--size", "10", "--calls", "2", "--rounds", "1"]) == 0
    assert "sum(axis=0)" in capsys.readouterr().out


def test_overhead_of_a_wrong_function(monkeypatch):
    x = overhead.matrix(10)
    wrong = overhead.Function("wrong", lambda: x.sum(axis=0) * 2, lambda: x.sum(axis=0))
    right = overhead.functions(x)[0]
    monkeypatch.setattr(overhead, "kernels_of", lambda public: public)
    monkeypatch.setattr(overhead, "functions", lambda x: [right, wrong])
    records = overhead.measure(10, 2, 1)
    assert [r["status"] for r in records] == ["ok", "FAIL"]
    assert records[1]["public"] is None


def test_levels(document):
    found = document["levels"]
    assert found["levels"] == levels.available()
    assert {(r["case"], r["level"]) for r in found["records"]} == {("sum-rows", level) for level in found["levels"]}
    for record in found["records"]:
        assert record["median"] > 0
    assert len(levels.lines(found)) == 2


def test_a_level_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(levels, "available", lambda: ["x86-64-v9"])
    with pytest.raises(RuntimeError, match=r"(?s)x86-64-v9: .*(this processor can run|engine)"):
        levels.section(shapes.Size(20, 30), names=("sum-rows",), rounds=1)


def test_fresh_processes(document):
    found = document["fresh"]
    assert (found["cells"], found["genes"]) == (50, 40)
    for record in found["records"]:
        assert record["status"] in ("ok", "absent"), record["reason"]
        if record["status"] == "ok":
            assert record["seconds_median"] > record["inside_median"] > 0


def test_a_fresh_process_that_is_wrong_has_no_time(monkeypatch):
    wrong = fresh.Process("csraxis[cython]", "csr_array", "x = 2 * x\n", ())
    raising = fresh.Process("scanpy", "csr_array", "raise RuntimeError('no such thing')\n", ())
    monkeypatch.setattr(fresh, "PROCESSES", (wrong, raising))
    records = fresh.section(50, 40, 1)["records"]
    assert [r["reason"] for r in records] == ["its values are wrong", "RuntimeError: no such thing"]
    assert not any(r["seconds"] for r in records)


def test_sweep(document):
    found = document["sweep"]
    assert [size["values"] for size in found["sizes"]] == [1000, 2000]
    assert {r["case"] for r in found["records"]} == set(sweep.CASES)
    for record in found["records"] + found["threads"]:
        assert record["status"] == "ok", record["reason"]
        assert record["ns_per_value"] > 0
    assert not found["left_out"]


def test_sweep_command(tmp_path, capsys):
    options = ["--max-values", "1500", "--genes", "200", "--case", "sum-rows", "--contestant", "scipy"]
    assert command.main(["--sweep", *options]) == 0
    assert "1 k" in capsys.readouterr().out
    for name in ("sweep.json", "sweep.png"):
        assert (tmp_path / "results" / name).stat().st_size > 100


def test_swept_matrix_repeats_the_generated_rows():
    x = sweep.matrix(50_000, 500)
    assert x.nnz == 50_000
    assert x.has_canonical_format
    assert x.dtype == np.uint16
    one = generate.chunk(generate.Parameters(sweep.DISTINCT * 4096, 500), 0)
    rows = min(x.shape[0], one.shape[0]) - 1
    assert (x[:rows] != one[:rows]).nnz == 0
    assert sweep.sizes(3000) == [1000, 3000]
    assert sweep.sizes(30_000_000)[-3:] == [1_000_000, 10_000_000, 30_000_000]


def test_a_large_matrix_is_verified_by_rows(monkeypatch):
    monkeypatch.setattr("bench.measure.AT_ONCE", 100)
    (case,) = (case for case in sweep.cases.CASES if case.name == "normalize-log1p")
    (scipy,) = (c for c in contestants.CONTESTANTS if c.name == "scipy")

    def wrong_in_the_last_row(x):
        scipy.runs[case.name](x)
        x.data[-1] *= 1.001
        return x

    wrong = contestants.Contestant("wrong", "scipy", "scipy", {case.name: wrong_in_the_last_row})
    x = sweep.matrix(5000, 200)
    outcome = sweep.measure.run_case(case, [scipy, wrong], x, repeats=1, dtype=np.float32)
    assert [entry.failure is None for entry in outcome.entries] == [True, False]


def test_what_does_not_fit_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sweep, "available", lambda: 10_000)
    assert command.main(["--sweep", "--max-values", "2000"]) == 2
    assert "2,000 stored values need" in capsys.readouterr().err
    found = sweep.section(2000, 200, names=["sum-rows"], peers=["scipy"])
    assert len(found["left_out"]) == 1
    assert {r["values"] for r in found["records"]} == set()


def test_a_contestant_that_would_not_fit_does_not_begin(monkeypatch):
    needs = sweep._Needs()
    (scipy,) = (c for c in contestants.CONTESTANTS if c.name == "scipy")
    needs.note("sum-rows", sweep.measure.Entry(scipy, extra_bytes=8_000_000), 1_000_000)
    monkeypatch.setattr(sweep, "available", lambda: 10_000_000)
    assert needs.too_much("sum-rows", scipy, 1_000_000) is None
    assert "would need 0.8 GB more" in needs.too_much("sum-rows", scipy, 100_000_000)


def test_available_memory():
    free = memory.available()
    assert free is None or 1e6 < free < 1e14


# ---- pages


def test_the_run_has_left_a_page(recorded):
    text = recorded.with_suffix(".html").read_text()
    assert text.count("data:image/png;base64,") == 4
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    for word in ("sum of each row", "scipy", "Nanoseconds", np.__version__):
        assert word in text


def test_page_command(tmp_path, recorded, capsys):
    result = tmp_path / "run.json"
    result.write_bytes(recorded.read_bytes())
    made = tmp_path / "run.md"
    assert command.main(["page", str(result), "--markdown", str(made), "--html", str(tmp_path / "run.html")]) == 0
    text = made.read_text()
    assert text == page.markdown(json.loads(result.read_text()), "run.json")
    for name in ("overview", "cases", "sweep", "costs"):
        picture = f"run-{name}.png"
        assert f"]({picture})" in text
        image = importlib.import_module("matplotlib.image").imread(tmp_path / picture)
        assert np.ptp(image[..., 0]) > 0.5
    assert "| sum of each row (axis=1) |" in text
    assert str(made) in capsys.readouterr().out


def test_page_of_what_is_no_run(tmp_path, document, capsys):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document | {"format": 1}))
    assert command.main(["page", str(path)]) == 2
    assert "format 1" in capsys.readouterr().err
    assert command.main(["page", str(path), "--markdown", str(tmp_path / "other" / "x.md")]) == 2
    assert "must be in the folder" in capsys.readouterr().err


def test_summary(recorded, capsys):
    assert command.main(["page", str(recorded), "--summary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| sum of each row (axis=1)",
        "| each column times its factor",
    ]
    assert all(line.count("|") == lines[0].count("|") and "x |" in line for line in lines[2:])
    assert not list(recorded.parent.glob("*.md"))


def test_the_page_says_what_failed(document):
    record = next(r for r in document["records"] if not r["engine"])
    record |= {"status": "FAIL", "reason": "result [5] is 1", "median": None, "ratio_to_csraxis": None}
    text = page.markdown(document, "r.json")
    assert "FAIL scipy: result [5] is 1" in text
    assert "result [5] is 1" in page.as_html(document, {})


@pytest.mark.skipif(not DOCS.is_dir(), reason="needs docs/")
def test_the_committed_page_is_what_the_command_makes():
    source = DOCS / "benchmarks.json"
    document = json.loads(source.read_text())
    assert (DOCS / "benchmarks.md").read_text() == page.markdown(document, source.name)
    assert page.summary(document) in (DOCS.parent / "README.md").read_text()
    for block in page.blocks(document):
        if isinstance(block, page.Picture):
            assert (DOCS / f"benchmarks-{block.name}.png").is_file()
