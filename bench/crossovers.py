"""Which way to the principal components, and to the Gram matrix, is faster where? ``python -m bench.crossovers``.

Each way is forced, in turn, by the constants that choose between them; these are set to where the lines below cross.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
from scipy import sparse

import csraxis as cx
from bench.blocks import interleaved
from csraxis.dispatch import _comoments, _components, _gram

DENSITIES = (0.005, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
COLUMNS = (500, 1000, 2000, 2500, 3500)
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
NEVER, ALWAYS = float("inf"), -1.0


def matrix(rows: int, columns: int, density: float) -> sparse.csr_matrix:
    """Logarithms of counts, equally dense in all columns but for chance, with eight groups of rows that differ."""
    rng = np.random.default_rng(0)
    kept = rng.random((rows, columns), dtype=np.float32) < density
    values = np.log1p(rng.poisson(rng.gamma(2, 2, (8, columns)))[np.arange(rows) % 8] + 1.0)
    return sparse.csr_matrix((kept * values).astype(np.float32))


def forced(call: Callable[[], Any], settings: list[tuple[Any, str, Any]]) -> Callable[[], Any]:
    """The call with some constants set to other values."""

    def so() -> None:
        patches = [mock.patch.object(*setting) for setting in settings]
        for patch in patches:
            patch.start()
        try:
            call()
        finally:
            for patch in patches:
                patch.stop()

    return so


def gram_ways() -> dict[str, list[tuple[Any, str, Any]]]:
    """Ways to the covariance matrix of a sparse matrix, where this version has them."""
    sparse_rows = (_comoments, "DENSE_FROM", NEVER)
    ways = {"dense rows": [(_comoments, "DENSE_FROM", ALWAYS)], "sparse rows": [sparse_rows]}
    if hasattr(_gram, "PANEL_FROM"):
        ways["sparse rows, no dense panels"] = [sparse_rows, (_gram, "PANEL_FROM", NEVER)]
    return ways


def gram_layouts() -> dict[str, list[tuple[Any, str, Any]]]:
    """Ways to `cx.gram` of a sparse matrix."""
    return {
        "panels": [
            (_gram, "PANEL_COLUMNS", (0, NEVER)),
            (_gram, "PANEL_VALUES", 0),
            (_gram, "PANEL_PRODUCTS", NEVER),
        ],
        "no panels": [(_gram, "PANEL_VALUES", NEVER)],
    }


def solvers() -> dict[str, list[tuple[Any, str, Any]]]:
    """Ways to its leading eigenvectors."""
    return {
        "LAPACK, some eigenvectors": [(_components, "LAPACK_UP_TO", 1 << 30)],
        "ARPACK": [(_components, "LAPACK_UP_TO", 0)],
    }


def table(
    heading: str, columns: Sequence[Any], calls: Callable[[Any], dict[str, Callable[[], Any]]], rounds: int
) -> None:
    """Print milliseconds: a line for each way."""
    medians = [interleaved(calls(column), rounds) for column in columns]
    print(f"\n{heading:32}" + "".join(f"{column:>10,}" for column in columns))
    for way in medians[0]:
        print(
            f"{way:32}" + "".join(f"{1e3 * found[way]:>10.1f}" if way in found else f"{'-':>10}" for found in medians)
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print milliseconds of whole calls."""
    p = argparse.ArgumentParser(prog="python -m bench.crossovers", description="Where PCA should change its way.")
    p.add_argument("--rows", type=int, default=20_000, help="default: %(default)s")
    p.add_argument("--columns", type=int, default=2000, help="for the covariance matrix (default: %(default)s)")
    p.add_argument("--components", type=int, default=50, help="default: %(default)s")
    p.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    p.add_argument("--block-method", action="store_true", help="also where the matrix is read again and again instead")
    options = p.parse_args(arguments)
    k, config = options.components, cx.get_config()
    print(f"milliseconds of pp.pca(x, {k}), {options.rows:,} rows; {config['engine']}, {config['threads']} threads")

    def by_density(density: float) -> dict[str, Callable[[], Any]]:
        x = matrix(options.rows, options.columns, density)
        return {way: forced(partial(cx.pp.pca, x, k), settings) for way, settings in gram_ways().items()}

    def by_columns(columns: int) -> dict[str, Callable[[], Any]]:
        x = matrix(options.rows, columns, 0.05)
        return {way: forced(partial(cx.pp.pca, x, k), settings) for way, settings in solvers().items()}

    def by_share(share: float) -> dict[str, Callable[[], Any]]:
        density = share * options.columns / options.rows
        x = matrix(options.rows, options.columns, density)
        return {way: forced(partial(cx.gram, x), settings) for way, settings in gram_layouts().items()}

    def by_method(columns: int) -> dict[str, Callable[[], Any]]:
        x = matrix(max(options.rows, columns), columns, 0.02)
        ways = {"covariance matrix": "covariance_eigh", "block Lanczos": "randomized"}
        return {way: partial(cx.pp.pca, x, k, svd_solver=solver) for way, solver in ways.items()}

    columns = [n for n in COLUMNS if n <= 2 * options.columns] or [options.columns]
    table(f"density, {options.columns:,} columns", DENSITIES, by_density, options.rounds)
    table("columns, a twentieth stored", columns, by_columns, options.rounds)
    shares = [share for share in SHARES if share * options.columns <= options.rows]
    table("gram: stored values for each sum", shares, by_share, options.rounds)
    if options.block_method:
        table("columns, a fiftieth stored", [2 * n for n in columns], by_method, options.rounds)


if __name__ == "__main__":
    main()
