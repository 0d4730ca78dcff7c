"""The single-cell chain step by step: what one contestant needs of time, passes and memory for each step.

`measure` is meant for a process of its own (see `pipeline`): then the memory is only that contestant's.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import pickle
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from bench import memory, shapes
from bench.contestants import patched_scanpy

if TYPE_CHECKING:
    import dask.array as da
    from anndata import AnnData

STEPS, WHOLE, RECIPE = "steps", "whole chain", "filter, recipe_pca"
SOURCES = ("zarr", "h5ad", "memory")
NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Plan:
    """The parameters of the chain."""

    min_cells: int = 3
    target_sum: float = 1e4
    flavor: str = "seurat"
    n_top_genes: int = 2000
    max_value: float = 10
    zero_center: bool = True
    """Whether genes are centred before they are clipped; components are around the means in any case."""
    n_comps: int = 50

    def fitted(self, cells: int, genes: int) -> Plan:
        """The same for a matrix that may be too small for it."""
        top = min(self.n_top_genes, max(genes // 5, 3))
        return replace(self, n_top_genes=top, n_comps=min(self.n_comps, cells - 1, top - 1))

    @property
    def of_counts(self) -> bool:
        """Whether genes are chosen by the counts, before these are normalised."""
        return self.flavor.startswith("seurat_v3")


@dataclass(frozen=True)
class Source:
    """Where a Dask array comes from, and how it is cut."""

    kind: str
    chunk_rows: int
    path: str | None = None
    chunk_columns: int | None = None
    """For `kind` "memory"; None: all."""


@dataclass(frozen=True)
class Contestant:
    """A library, in memory or on Dask."""

    name: str
    package: str
    load: Callable[[], Any]
    """The namespace of the steps."""
    dask: bool = False
    note: str = ""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of functions: what else they are called with."""
    within: Callable[[int | None], AbstractContextManager] = contextlib.nullcontext
    """A context in which its functions are called."""


def _functions(package: str) -> Any:
    return importlib.import_module(package).pp


CONTESTANTS = (
    Contestant("csraxis", "csraxis", partial(_functions, "csraxis")),
    Contestant("scanpy", "scanpy", partial(_functions, "scanpy")),
    Contestant("csraxis on Dask", "csraxis", partial(_functions, "csraxis"), dask=True),
    Contestant(
        "scanpy on Dask",
        "scanpy",
        partial(_functions, "scanpy"),
        dask=True,
        note="PCA with svd_solver='covariance_eigh': the default on dense chunks, dask-ml's randomised one, is a FAIL",
        options={"pca": {"svd_solver": "covariance_eigh"}},
    ),
    Contestant(
        "autozyme",
        "autozyme",
        partial(_functions, "scanpy"),
        note="scanpy with its patches; what it does not patch is scanpy's",
        within=patched_scanpy,
    ),
)


@dataclass
class Call:
    """The functions of a contestant, which are called with its own options."""

    functions: Any
    options: dict[str, dict[str, Any]]

    def __call__(self, name: str, adata: AnnData, **options: Any) -> None:
        """Call one of them."""
        getattr(self.functions, name)(adata, **options, **self.options.get(name, {}))


class Step(NamedTuple):
    """One row of the table."""

    name: str
    run: Callable[[Call, AnnData, Plan], AnnData | None]
    """Changes the AnnData, or returns another."""
    needed: bool = True
    """Whether later steps build on it."""


def _qc(call: Call, adata: AnnData, plan: Plan) -> None:
    tops = [n for n in (50, 100, 200, 500) if n <= adata.n_vars]
    call("calculate_qc_metrics", adata, percent_top=tops or None, inplace=True)


def _filter(call: Call, adata: AnnData, plan: Plan) -> None:
    call("filter_genes", adata, min_cells=plan.min_cells)


def _normalize(call: Call, adata: AnnData, plan: Plan) -> None:
    call("normalize_total", adata, target_sum=plan.target_sum)


def _log1p(call: Call, adata: AnnData, plan: Plan) -> None:
    call("log1p", adata)


def _choose(call: Call, adata: AnnData, plan: Plan) -> None:
    cut = not plan.of_counts
    call("highly_variable_genes", adata, n_top_genes=plan.n_top_genes, flavor=plan.flavor, subset=cut)


def _subset(call: Call, adata: AnnData, plan: Plan) -> AnnData:
    return adata[:, adata.var["highly_variable"].to_numpy()].copy()


def _scale(call: Call, adata: AnnData, plan: Plan) -> None:
    call("scale", adata, max_value=plan.max_value, zero_center=plan.zero_center)


def _pca(call: Call, adata: AnnData, plan: Plan) -> None:
    call("pca", adata, n_comps=plan.n_comps)


def _recipe(call: Call, adata: AnnData, plan: Plan) -> None:
    names = ("target_sum", "n_top_genes", "flavor", "max_value", "zero_center", "n_comps")
    call("recipe_pca", adata, **{name: getattr(plan, name) for name in names})


def steps(plan: Plan) -> list[Step]:
    """The chain, in order."""
    first = [Step("QC metrics", _qc, needed=False), Step("filter genes", _filter)]
    change = [Step("normalize_total", _normalize), Step("log1p", _log1p)]
    last = [Step("scale", _scale), Step("PCA", _pca)]
    if plan.of_counts:
        return [*first, Step("variable genes", _choose), *change, Step("subset to them", _subset), *last]
    return [*first, *change, Step("variable genes, subset", _choose), *last]


def in_one(plan: Plan) -> list[Step]:
    """What `recipe_pca` is the end of."""
    return [Step("filter genes", _filter), Step(RECIPE, _recipe)]


Timed = Callable[..., tuple["Row", "AnnData"]]


@dataclass
class Row:
    """One step of one run."""

    step: str
    seconds: float | None = None
    passes: float | None = None
    """How often each chunk of X was read, on Dask."""
    start: int | None = None
    highest: int | None = None
    reason: str | None = None
    """Why there is no time."""

    @property
    def extra(self) -> int | None:
        """Bytes held at most, above those at the start."""
        return None if self.start is None or self.highest is None else self.highest - self.start


@dataclass
class Result:
    """What the chain found."""

    genes: np.ndarray
    """Their numbers in the counts."""
    scores: np.ndarray
    variance_ratio: np.ndarray
    totals: np.ndarray | None
    """Of the cells, from the QC metrics; None if these were not asked for."""
    genes_by_cell: np.ndarray | None

    @property
    def singular_values(self) -> np.ndarray:
        """From the scores."""
        scores = self.scores.astype(np.float64)
        return np.linalg.norm(scores - scores.mean(axis=0), axis=0)


@dataclass
class Run:
    """Some steps on a fresh AnnData, with one result."""

    rows: list[Row]
    result: Result | None = None


def absence(contestant: Contestant, kind: str) -> str | None:
    """Why it cannot take part here, or None."""
    needs = [contestant.package, "anndata"] + (["dask", "csraxis"] if contestant.dask else [])
    needs += ["zarr"] if contestant.dask and kind == "zarr" else []
    absent = [name for name in needs if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(absent)} (pip install {' '.join(absent)})" if absent else None


def write_store(x: sparse.csr_matrix, kind: str, folder: Path) -> str | None:
    """The matrix as an AnnData file in the folder; None for the kind "memory"."""
    if kind == "memory":
        return None
    path = folder / f"counts.{kind}"
    adata = _anndata(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the versions of zarr's format
        (adata.write_zarr if kind == "zarr" else adata.write_h5ad)(path)
    return str(path)


def _anndata(x: Any) -> AnnData:
    """Genes are named after their numbers."""
    import anndata
    import pandas as pd

    return anndata.AnnData(
        x, obs=pd.DataFrame(index=map(str, range(x.shape[0]))), var=pd.DataFrame(index=map(str, range(x.shape[1])))
    )


def _lazy(source: Source, matrix: Callable[[], sparse.csr_matrix]) -> AnnData:
    if source.path is not None:
        import csraxis as cx

        return cx.pp.open(source.path, chunk_rows=source.chunk_rows)
    x = matrix()
    return _anndata(in_chunks(x, source.chunk_rows, source.chunk_columns or x.shape[1]))


def in_chunks(x: sparse.csr_matrix, rows: int, columns: int) -> da.Array:
    """A matrix in memory, cut along both axes."""
    import dask.array as da

    edges = [[*range(0, n, step), n] for n, step in zip(x.shape, (rows, columns))]
    name = f"chunks-{uuid.uuid4().hex}"
    graph: dict[Any, Any] = {
        (name, i, j): x[top:bottom, left:right]
        for (i, (top, bottom)), (j, (left, right)) in product(*(enumerate(pairwise(edge)) for edge in edges))
    }
    chunks = tuple(tuple(b - a for a, b in pairwise(edge)) for edge in edges)
    return da.Array(graph, name, chunks, meta=sparse.csr_matrix((0, 0), dtype=x.dtype))


def counted(x: da.Array) -> tuple[da.Array, list[None]]:
    """The same array, and a list that grows with each chunk that is read."""
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    reads: list[None] = []

    def read(chunk: Any) -> Any:
        reads.append(None)
        return chunk

    name = f"counted-{uuid.uuid4().hex}"
    graph = {(name, *place): (read, (x.name, *place)) for place in product(*map(range, x.numblocks))}
    return da.Array(HighLevelGraph.from_collections(name, graph, [x]), name, x.chunks, meta=x._meta), reads


@contextlib.contextmanager
def quietly(threads: int | None) -> Iterator[None]:
    """Threads for Dask; and no warnings: scaling makes a matrix dense on purpose."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("dask") is not None:
            import dask

            stack.enter_context(dask.config.set(scheduler="threads", **({"num_workers": threads} if threads else {})))
        yield


def measure(
    contestant: Contestant,
    plan: Plan,
    source: Source,
    matrix: Callable[[], sparse.csr_matrix],
    *,
    threads: int | None = None,
    tick: Callable[[str], None] = lambda step: None,
) -> dict[str, Run]:
    """The runs of a contestant by name: the steps, the whole chain if that is lazy, and the recipe if there is one.

    Parameters
    ----------
    source
        For Dask.
    matrix
        Called where the counts are needed in memory.
    tick
        Called with the name of each step before it starts.
    """
    with quietly(threads):
        tick("warm-up")
        _warm_up(contestant, plan, source)
        start = _starter(contestant, source, matrix)
        gc.collect()
        gc.freeze()  # makes collecting before each step cheap
        try:
            return _runs(contestant, plan, start, tick)
        finally:
            gc.unfreeze()


def _starter(contestant: Contestant, source: Source, matrix: Callable[[], sparse.csr_matrix]) -> Callable[[], AnnData]:
    """A fresh AnnData each time, which nothing else refers to."""
    if contestant.dask:
        return partial(_lazy, source, matrix)
    x = matrix()
    return lambda: _anndata(x.copy())


def _warm_up(contestant: Contestant, plan: Plan, source: Source) -> None:
    """All of it on a tiny matrix: what is compiled, imported or set up at the first call is not measured."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(rng.gamma(0.3, 2, 120), (90, 120))
    x = sparse.csr_matrix(dense.astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = write_store(x, source.kind, Path(folder)) if contestant.dask else None
        columns = None if source.chunk_columns is None else 50
        tiny = Source(source.kind, 30, path, columns)
        start = _starter(contestant, tiny, lambda: x)
        _runs(contestant, plan.fitted(*x.shape), start, lambda step: None, memory.Unknown)


def _runs(
    contestant: Contestant,
    plan: Plan,
    start: Callable[[], AnnData],
    tick: Callable[[str], None],
    peak: type[memory.Peak] = memory.Peak,
) -> dict[str, Run]:
    with contestant.within(None):  # in a process of its own threads come from the environment
        return _all_runs(contestant, plan, start, tick, peak)


def _all_runs(
    contestant: Contestant,
    plan: Plan,
    start: Callable[[], AnnData],
    tick: Callable[[str], None],
    peak: type[memory.Peak],
) -> dict[str, Run]:
    call = Call(contestant.load(), contestant.options)
    timed = partial(_timed, call, plan, peak)
    runs = {STEPS: _step_by_step(timed, steps(plan), start(), tick)}
    if contestant.dask:
        runs[WHOLE] = _at_once(timed, Step(WHOLE, partial(_all, parts=steps(plan))), start(), tick)
    else:
        runs[STEPS].rows.append(_sum(runs[STEPS].rows))
    if hasattr(call.functions, "recipe_pca"):
        runs[RECIPE] = _at_once(timed, Step(RECIPE, partial(_all, parts=in_one(plan))), start(), tick)
    return runs


def _all(call: Call, adata: AnnData, plan: Plan, parts: list[Step]) -> AnnData:
    for step in parts:
        adata = step.run(call, adata, plan) or adata
    return adata


def _sum(rows: list[Row]) -> Row:
    """In memory nothing is lazy: the whole chain is its steps."""
    if any(row.seconds is None for row in rows):
        return Row(WHOLE, reason="not all steps work")
    highest = [row.highest for row in rows if row.highest is not None]
    return Row(WHOLE, sum(row.seconds or 0 for row in rows), None, rows[0].start, max(highest, default=None))


def _step_by_step(timed: Timed, parts: list[Step], adata: AnnData, tick: Callable[[str], None]) -> Run:
    """Each step with its result made where it ends; a step that does not work stops those that build on it."""
    rows: list[Row] = []
    for step in parts:
        if any(row.reason and other.needed for row, other in zip(rows, parts)):
            rows.append(Row(step.name, reason=NOT_REACHED))
            continue
        tick(step.name)
        row, adata = timed(step, adata, keep=True)
        rows.append(row)
    return Run(rows, None if rows[-1].reason else _result(adata))


def _at_once(timed: Timed, step: Step, adata: AnnData, tick: Callable[[str], None]) -> Run:
    """Lazily: only what the scores need is computed."""
    tick(step.name)
    row, adata = timed(step, adata, keep=False)
    return Run([row], None if row.reason else _result(adata))


def _timed(
    call: Call, plan: Plan, peak_of: type[memory.Peak], step: Step, adata: AnnData, keep: bool
) -> tuple[Row, AnnData]:
    """The step with what it makes of X (if that is to be kept) and its scores computed."""
    row, before, reads = Row(step.name), None, None
    if _is_dask(adata.X):
        before = adata.X  # only then: a matrix in memory that is referred to twice is not worked on in place
        adata.X, reads = counted(before)
    with peak_of() as peak:
        begin = time.perf_counter()
        try:
            adata = step.run(call, adata, plan) or adata
            if reads is not None:
                _compute(adata, keep)
            row.seconds = time.perf_counter() - begin
        except Exception as error:  # whatever a contestant raises is its result
            row.reason = f"{type(error).__name__}: {error}".splitlines()[0]
    row.start, row.highest = peak.start, peak.highest
    if before is not None and reads is not None:
        row.passes = len(reads) / max(int(np.prod(before.numblocks)), 1)
        if _is_counted(adata.X):
            adata.X = before
    return row, adata


def _is_dask(x: Any) -> bool:
    return hasattr(x, "dask")


def _is_counted(x: Any) -> bool:
    """Whether a step left X as it was."""
    return _is_dask(x) and x.name.startswith("counted-")


def _compute(adata: AnnData, keep: bool) -> None:
    if keep and _is_dask(adata.X) and not _is_counted(adata.X):
        adata.X = adata.X.persist()
    if "X_pca" in adata.obsm:
        adata.obsm["X_pca"] = np.asarray(adata.obsm["X_pca"])


def _result(adata: AnnData) -> Result:
    chosen = adata.var["highly_variable"].to_numpy(bool)
    totals, genes = (
        adata.obs[name].to_numpy() if name in adata.obs else None for name in ("total_counts", "n_genes_by_counts")
    )
    return Result(
        adata.var_names[chosen].to_numpy().astype(int),
        np.asarray(adata.obsm["X_pca"]),
        np.asarray(adata.uns["pca"]["variance_ratio"], dtype=np.float64),
        totals,
        genes,
    )


@dataclass(frozen=True)
class Job:
    """What a process of its own is told."""

    contestant: str
    plan: Plan
    source: Source
    shape: str
    size: shapes.Size
    threads: int | None


def work(folder: str) -> None:
    """In the process of its own: read `job`, note each step in `step`, write `runs`."""
    place = Path(folder)
    job = pickle.loads((place / "job").read_bytes())
    (contestant,) = (c for c in CONTESTANTS if c.name == job.contestant)
    (shape,) = (s for s in shapes.SHAPES if s.name == job.shape)
    runs = measure(
        contestant,
        job.plan,
        job.source,
        partial(shapes.load, shape, job.size),
        threads=job.threads,
        tick=(place / "step").write_text,
    )
    (place / "unfinished").write_bytes(pickle.dumps(runs))
    (place / "unfinished").rename(place / "runs")
