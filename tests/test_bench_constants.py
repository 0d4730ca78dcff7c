"""What measures the constants of the library runs, on little data."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("csraxis")

# The tests also run from a folder that holds tests/ and bench/ alone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, crossovers, import_cost, threads
from csraxis.dispatch import _blocks, _comoments, _components


def numbers(line, label):
    return [float(word) for word in line.removeprefix(label).split()]


def test_threads(monkeypatch, capsys):
    monkeypatch.setattr(threads, "SIZES", (10_000, 20_000))
    monkeypatch.setattr(threads, "ROUNDS", 1)
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 123)
    threads.main()
    lines = capsys.readouterr().out.splitlines()
    assert "PARALLEL_FROM = 123" in lines[0]
    assert len(lines) == 4
    assert len(numbers(lines[2].replace(",", ""), "")) == 1 + len(threads.FUNCTIONS)
    assert _blocks.PARALLEL_FROM == 123


def test_blocks(capsys):
    before = (_blocks.CAST_STEP, _blocks.per_thread)
    blocks.main(["--values", "100000", "--rounds", "1"])
    assert (_blocks.CAST_STEP, _blocks.per_thread) == before
    printed = capsys.readouterr().out
    x = threads.matrix(1000)
    for table, settings in ((blocks.cast_functions, blocks.CAST_STEPS), (blocks.block_functions, blocks.PER_THREAD)):
        for name in table(x):
            (line,) = (line for line in printed.splitlines() if line[:40].strip() == name)
            found = numbers(line, line[:40])
            assert len(found) == len(settings)
            assert min(found) == 1.0


def test_crossovers(monkeypatch, capsys):
    pytest.importorskip("anndata")
    monkeypatch.setattr(crossovers, "DENSITIES", (0.1, 0.9))
    before = (_comoments.DENSE_FROM, _components.LAPACK_UP_TO)
    crossovers.main(["--rows", "200", "--columns", "60", "--components", "3", "--rounds", "1", "--block-method"])
    assert before == (_comoments.DENSE_FROM, _components.LAPACK_UP_TO)
    printed = capsys.readouterr().out
    for way in (
        *crossovers.gram_ways(),
        *crossovers.gram_layouts(),
        *crossovers.solvers(),
        "covariance matrix",
        "block Lanczos",
    ):
        (line,) = (line for line in printed.splitlines() if line[:32].strip() == way)
        assert min(numbers(line, line[:32])) > 0


def test_import_cost(monkeypatch, capsys):
    monkeypatch.setattr(import_cost, "seconds", lambda statement: 0.2 if "csraxis" in statement else 0.1)
    assert import_cost.main(["--rounds", "1"]) == 1
    assert "ratio 2.00" in capsys.readouterr().out
