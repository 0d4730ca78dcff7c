"""The single-cell chain on the embedded cells: ``python -m bench demo --help``.

In memory, and on Dask chunks of both shapes, which must give the same; with a file and a picture to look at.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from bench import chain, generate, shapes
from bench.chain import RECIPE, STEPS, WHOLE, Contestant, Plan, Result, Run, Source
from bench.pipeline import passes, size
from bench.reference import TOLERANCE, Reference
from bench.report import duration
from bench.terminal import INSTALL, new_console, positive

if TYPE_CHECKING:
    from anndata import AnnData
    from rich.console import Console

SYMBOLS = generate.EMBEDDED.with_name("pbmc3k_genes.txt.gz")


class Way(NamedTuple):
    """A column of the table."""

    name: str
    contestant: Contestant
    source: Source


class Difference(NamedTuple):
    """From the result in memory."""

    genes: int
    """How many only one of them has."""
    singular_values: float
    """The largest, relative."""
    scores: float
    """The largest, up to the sign of a component, relative to the largest score."""

    def __str__(self) -> str:
        """In words."""
        genes = f"{self.genes} other genes" if self.genes else "the same genes"
        return f"{genes}, singular values {self.singular_values:.0e}, scores {self.scores:.0e}"

    def is_small(self) -> bool:
        """Whether the results are the same for all purposes."""
        return self.genes == 0 and max(self.singular_values, self.scores) < TOLERANCE


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m bench demo",
        description="From the counts of 2,700 blood cells to principal components: in memory, and on Dask.",
    )
    p.add_argument("--output", type=Path, default=Path("demo"), metavar="FOLDER", help="default: %(default)s")
    p.add_argument("--marker", default="NKG7", metavar="GENE", help="colours the second picture (default: %(default)s)")
    p.add_argument("--cells", type=positive, help="only so many of them")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 if a result is wrong, 2 if something is missing or cannot be written."""
    options = parser().parse_args(arguments)
    absent = [name for name in ("rich", "anndata", "csraxis") if importlib.util.find_spec(name) is None]
    if absent:
        print(f"python -m bench demo needs {', '.join(absent)}: {INSTALL}", file=sys.stderr)
        return 2
    symbols = gzip.decompress(SYMBOLS.read_bytes()).decode().split()
    if options.marker not in symbols:
        print(f"there is no gene {options.marker!r} in {SYMBOLS}", file=sys.stderr)
        return 2
    console = new_console()
    x = shapes.load(shapes.SHAPES[0])[: options.cells]
    plan = Plan().fitted(*x.shape)
    ways = _ways(x)
    runs = [chain.measure(way.contestant, plan, way.source, lambda: x) for way in ways]
    _print_table(ways, runs, x, console)
    is_right = _compare(ways, runs, Reference(x, plan), console)
    try:
        paths = _write(x, symbols, plan, options, console)
    except OSError as error:
        print(f"cannot write the results: {error}; choose another place with --output", file=sys.stderr)
        return 2
    for what, path in paths:
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
    return 0 if is_right else 1


def _ways(x: sparse.csr_matrix) -> list[Way]:
    in_memory, on_dask = (c for c in chain.CONTESTANTS if c.package == "csraxis")
    rows, columns = -(-x.shape[0] // 6), -(-x.shape[1] // 4)
    ways = [Way("in memory", in_memory, Source("memory", rows))]
    if chain.absence(on_dask, "memory") is None:
        ways.append(Way("Dask, cut by cells", on_dask, Source("memory", rows)))
        ways.append(Way("Dask, cut by both", on_dask, Source("memory", rows, chunk_columns=columns)))
    return ways


def _print_table(ways: list[Way], runs: list[dict[str, Run]], x: sparse.csr_matrix, console: Console) -> None:
    from rich.table import Table

    about = f"{x.shape[0]:,} cells x {x.shape[1]:,} genes, {x.nnz:,} stored counts"
    console.print(f"\n[bold]PBMC 3k, from counts to principal components[/]: {about}", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for way in ways:
        first = f"{way.name}\ntime"
        for heading in (first, "\npasses", "\nmemory") if way.contestant.dask else (first, "\nmemory"):
            table.add_column(heading, justify="right", no_wrap=True)
    rows = [[row for name in (STEPS, WHOLE, RECIPE) if name in its for row in its[name].rows] for its in runs]
    for line in zip(*rows):
        cells = []
        for way, row in zip(ways, line):
            times = [duration(row.seconds)] if row.seconds is not None else ["-"]
            cells += [*times, *([passes(row.passes)] if way.contestant.dask else []), size(row.extra)]
        table.add_row(line[0].step, *cells, style="bold" if line[0].step in (WHOLE, RECIPE) else "")
    console.print()
    console.print(table)
    notes = "memory: the most above the start of the step."
    if len(ways) > 1:
        rows, columns = ways[2].source.chunk_rows, ways[2].source.chunk_columns
        notes += (
            f" Dask: chunks of {rows:,} cells, and of {columns:,} genes, too; in each step what it makes of X is "
            "computed, in the whole chain only what the scores need; passes: how often the chunks were read."
        )
    console.print(f"\n{notes}", highlight=False)


def _compare(ways: list[Way], runs: list[dict[str, Run]], reference: Reference, console: Console) -> bool:
    """Print how far the results are from scikit-learn's, and from those of the steps in memory."""
    reasons = [
        f"{way.name}, {row.step}: {row.reason}"
        for way, its in zip(ways, runs)
        for run in its.values()
        for row in run.rows
        if row.reason
    ]
    results = [{name: run.result for name, run in its.items() if run.result is not None} for its in runs]
    for way, its in zip(ways, results):
        for name, result in its.items():
            why = reference.disagreement(result)
            reasons += [f"{way.name}, {name}: {why}"] if why else []
    right = results[0].get(STEPS)
    if right is not None:
        off = np.abs(right.singular_values / reference.components(right.genes)[0] - 1).max()
        console.print(f"in memory: at most {off:.0e} from scikit-learn's singular values (relative)", highlight=False)
        for way, its in zip(ways, results):
            others = [difference(result, right) for result in its.values() if result is not right]
            apart = Difference(*map(max, zip(*others)))
            what = "all three" if way.contestant.dask else "the recipe"
            console.print(f"{way.name}, {what}: at most this far from the steps in memory: {apart}", highlight=False)
            reasons += [] if apart.is_small() else [f"{way.name}: another result than in memory"]
    for line in reasons:
        console.print(f"[red]FAIL[/] {line}", highlight=False)
    return not reasons


def difference(result: Result, right: Result) -> Difference:
    """Between two results of the chain."""
    genes = len(np.setxor1d(result.genes, right.genes))
    values = float(np.max(np.abs(result.singular_values / right.singular_values - 1)))
    got, expected = (r.scores.astype(np.float64) for r in (result, right))
    signs = np.where(np.sum(got * expected, axis=0) < 0, -1, 1)
    return Difference(genes, values, float(np.abs(got * signs - expected).max() / np.abs(expected).max()))


def _write(
    x: sparse.csr_matrix, symbols: list[str], plan: Plan, options: argparse.Namespace, console: Console
) -> list[tuple[str, Path]]:
    """The AnnData with counts and results, and the picture."""
    adata = annotated(x, symbols, plan)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "pbmc3k.h5ad"
    adata.write_h5ad(path)
    paths = [("AnnData: counts, QC metrics, variable genes, components", path)]
    if importlib.util.find_spec("matplotlib") is None:
        console.print(f"picture: none, matplotlib is not installed ({INSTALL})", highlight=False, markup=False)
        return paths
    picture = options.output / "pbmc3k.png"
    draw(adata, options.marker, picture)
    return [*paths, ("picture", picture)]


def annotated(x: sparse.csr_matrix, symbols: list[str], plan: Plan) -> AnnData:
    """The counts as AnnData with all that `recipe_pca` and the steps before it write."""
    import anndata
    import pandas as pd

    import csraxis as cx

    adata = anndata.AnnData(
        x.copy(), obs=pd.DataFrame(index=[f"cell {i}" for i in range(x.shape[0])]), var=pd.DataFrame(index=symbols)
    )
    with chain.quietly(None):
        call = chain.Call(cx.pp, {})
        for step in [chain.steps(plan)[0], *chain.in_one(plan)]:
            step.run(call, adata, plan)
    return adata


def draw(adata: AnnData, marker: str, path: Path) -> None:
    """The cells on the first two components: how many counts they have, and how much of the marker."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    import csraxis as cx

    figure = Figure(figsize=(12, 5.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{adata.n_obs:,} blood cells (PBMC 3k, 10x Genomics) on their first two principal components", fontsize=13
    )
    logged = cx.normalize(adata.X, target_sum=1e4, log1p=True)
    level = logged[:, [adata.var_names.get_loc(marker)]].toarray().ravel() if marker in adata.var_names else None
    totals = np.asarray(adata.obs["total_counts"])
    colours = [("total counts of the cell (logarithmic)", totals, {"cmap": "viridis", "norm": LogNorm()})]
    if level is not None:
        colours.append((f"{marker}, log(1 + counts per 10,000)", level, {"cmap": "plasma_r"}))
    first, second = adata.obsm["X_pca"][:, :2].T
    shares = 100 * adata.uns["pca"]["variance_ratio"]
    for axes, (label, values, options) in zip(np.atleast_1d(figure.subplots(1, len(colours))), colours):
        order = np.argsort(values, kind="stable")  # the highest on top
        dots = axes.scatter(first[order], second[order], c=values[order], s=9, linewidths=0, **options)
        figure.colorbar(dots, ax=axes, label=label)
        axes.set_xlabel(f"component 1 ({shares[0]:.1f} % of the variance)")
        axes.set_ylabel(f"component 2 ({shares[1]:.1f} %)")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path)
