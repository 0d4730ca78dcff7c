"""The benchmark of growing stores, in a tiny run."""

import json
import sys
from pathlib import Path

import pytest

# The tests also run from a folder that holds tests/ and bench/ alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import __main__ as command
from bench import scale

for package in ("csraxis", "rich", "matplotlib", "anndata", "dask", "zarr"):
    pytest.importorskip(package)


def test_a_tiny_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = [f"--{kind}={tmp_path / 'scale'}.{end}" for kind, end in (("json", "json"), ("plot", "png"))]
    options = ["--cells=300", "--genes=70", f"--folder={tmp_path}", f"--markdown={tmp_path / 'scale.md'}", *places]
    assert command.main(["scale", *options]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "scale.json").read_text())["scale"]
    assert [r["way"] for r in found["records"]] == found["ways"]
    for record in found["records"]:
        assert record["status"] == "ok", record["reason"]
        assert record["seconds"] > 0
        assert record["peak"] > 10**8
    own = next(r for r in found["records"] if r["way"] == scale.OURS)
    assert own["keeps"] == "counts"
    assert own["n_bytes"] > 0
    assert own["passes"] >= 1
    assert sum(own["steps"].values()) == pytest.approx(own["seconds"])
    assert (tmp_path / "scale.png").stat().st_size > 1000
    assert "Nanoseconds a stored value" in (tmp_path / "scale.md").read_text()


def test_a_store_that_does_not_fit_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = scale.section(tmp_path, cells=[10**12])
    assert not found["records"]
    assert "GB on disk" in found["left_out"][0]


def test_a_chain_with_another_result_has_no_time():
    own = {"cells": 10, "way": scale.OURS, "status": "ok", "shares": [0.5, 0.2], "values": 5, "seconds": 1.0}
    other = own | {"way": scale.SCANPY, "shares": [0.5, 0.21]}
    scale._compare([own, other])
    assert own["status"] == "ok"
    assert other["status"] == "FAIL"
    table = scale.lines({"records": [own | {"peak": 1, "steps": {}}, other]})
    assert table[2][2] == "FAIL"


def test_prediction():
    runs = [
        {"cells": n, "way": scale.OURS, "status": "ok", "values": 10 * n, "seconds": 1 + 2e-8 * 10 * n}
        for n in (10**5, 3 * 10**5, 10**6)
    ]
    (line,) = scale.predicted({"records": runs})[1:]
    assert line[-1] == "1.00x"
