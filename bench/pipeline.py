"""The single-cell chain, measured: ``python -m bench pipeline --help``.

Each contestant runs the chain of `chain` in a process of its own; `reference` says whether it was right.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from bench import bars, chain, report, shapes
from bench.chain import RECIPE, STEPS, WHOLE, Contestant, Job, Plan, Run, Source
from bench.reference import TOLERANCE, Reference
from bench.report import Document, duration, ratio
from bench.terminal import INSTALL, Show, new_console, positive, progress_bar, write_results

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("pandas", "zarr", "h5py", "scikit-misc")
CHUNK_VALUES = 1 << 22
"""Stored values in a chunk at most, as `csraxis.pp.open` cuts; small matrices are cut into eight."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "CSRAXIS_NUM_THREADS")
FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper")


def parser() -> argparse.ArgumentParser:
    """The options."""
    plan, size = Plan(), shapes.Size()
    p = argparse.ArgumentParser(
        prog="python -m bench pipeline",
        description="From counts to principal components: verify and time each step with csraxis and scanpy, in memory "
        "and on Dask. A result that is wrong has no time.",
    )
    p.add_argument("--quick", action="store_true", help="the embedded PBMC 3k matrix, once")
    names = [shape.name for shape in shapes.SHAPES]
    p.add_argument("--data", choices=names, metavar="NAME", help="generated (default), pbmc3k, ...")
    p.add_argument("--cells", type=positive, default=size.cells, help="rows to generate (default: %(default)s)")
    p.add_argument("--genes", type=positive, default=size.genes, help="columns to generate (default: %(default)s)")
    p.add_argument(
        "--flavor", choices=FLAVORS, default=plan.flavor, help="of the variable genes (default: %(default)s)"
    )
    p.add_argument("--n-top-genes", type=positive, default=plan.n_top_genes, help="default: %(default)s")
    p.add_argument("--n-comps", type=positive, default=plan.n_comps, help="default: %(default)s")
    p.add_argument(
        "--no-zero-center",
        action="store_true",
        help="scale without centring: sparse columns stay sparse, and PCA gets them so",
    )
    p.add_argument(
        "--source",
        choices=chain.SOURCES,
        default="zarr",
        help="what Dask reads: a file in a temporary folder, or the matrix in memory cut into chunks (default: zarr)",
    )
    p.add_argument("--chunk-rows", type=positive, help="cells in a chunk (default: about four million stored values)")
    names = [contestant.name for contestant in chain.CONTESTANTS]
    p.add_argument("--contestant", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    p.add_argument("--repeats", type=positive, help="runs of each (default: 3, with --quick 1)")
    p.add_argument("--threads", type=positive, help="for everything that has threads (default: csraxis's own number)")
    p.add_argument("--limit", type=positive, default=1800, help="seconds for one process (default: %(default)s)")
    p.add_argument("--in-process", action="store_true", help="no processes of their own: for a profiler")
    p.add_argument("--json", type=Path, metavar="FILE", help="machine-readable results (default: in bench/results/)")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="picture (default: in bench/results/)")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="print these results (JSON) as Markdown, and end")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 if csraxis was wrong or absent, 2 if what was asked for is missing or cannot be written."""
    options = parser().parse_args(arguments)
    if options.markdown:
        try:
            print(markdown(json.loads(options.markdown.read_text())))
        except (OSError, ValueError, KeyError) as error:
            print(f"{options.markdown} has no results of a pipeline: {error!r}", file=sys.stderr)
            return 2
        return 0
    if importlib.util.find_spec("rich") is None:
        print(f"python -m bench pipeline needs rich for its tables: {INSTALL}", file=sys.stderr)
        return 2
    can_draw = importlib.util.find_spec("matplotlib") is not None
    if options.plot and not can_draw:
        print(f"--plot needs matplotlib: {INSTALL}", file=sys.stderr)
        return 2
    console = new_console()
    with progress_bar() as show:
        document = run(options, show)
    print_tables(document, console)
    if not document["records"]:
        print("nothing was measured: see 'left out'", file=sys.stderr)
        return 2
    try:
        _write(document, options, can_draw, console)
    except OSError as error:
        print(f"cannot write the results: {error}; choose another place with --json and --plot", file=sys.stderr)
        return 2
    return _status(document)


def run(options: argparse.Namespace, show: Show) -> Document:
    """Measure what the options ask for."""
    repeats = options.repeats or (1 if options.quick else 3)
    name = options.data or ("pbmc3k" if options.quick else "generated")
    (shape,) = (shape for shape in shapes.SHAPES if shape.name == name)
    own = _configuration()
    threads = options.threads or (own["threads"] if own else os.cpu_count())
    document = report.head({"repeats": repeats, "threads": threads, "in_process": options.in_process}, own, PACKAGES)
    present = []
    for contestant in chain.CONTESTANTS:
        if options.contestant and contestant.name not in options.contestant:
            continue
        reason = chain.absence(contestant, options.source)
        if reason:
            report.leave_out(document, "contestant", contestant.name, reason)
        else:
            present.append(contestant)
    size = shapes.Size(options.cells, options.genes)
    try:
        x = shapes.load(shape, size, lambda done, total: show("generating", done, total))
    except shapes.Unavailable as reason:
        report.leave_out(document, "matrix", name, str(reason))
        return document
    report.add_shape(document, name, shape.what, x)
    plan = Plan(
        flavor=options.flavor,
        n_top_genes=options.n_top_genes,
        n_comps=options.n_comps,
        zero_center=not options.no_zero_center,
    ).fitted(*x.shape)
    chunk_rows = min(options.chunk_rows or _chunk_rows(x), x.shape[0])
    document["settings"] |= {"plan": asdict(plan), "source": options.source, "chunk_rows": chunk_rows}
    show("reference", 0, 1)
    collected = _Collected(Reference(x, plan))
    with tempfile.TemporaryDirectory() as folder:
        on_dask = any(contestant.dask for contestant in present)
        path = chain.write_store(x, options.source, Path(folder)) if on_dask else None
        source = Source(options.source, chunk_rows, path)
        for done in range(repeats):
            for i, contestant in enumerate(present):
                if contestant.name in collected.stopped:
                    continue
                tick = partial(_tick, show, contestant.name, done * len(present) + i, repeats * len(present))
                if options.in_process:
                    runs: Any = chain.measure(contestant, plan, source, lambda: x, threads=threads, tick=tick)
                else:
                    runs = spawn(Job(contestant.name, plan, source, name, size, threads), options.limit, tick)
                collected.add(contestant, runs)
    for contestant in present:
        _add_records(document, contestant, plan, collected)
    _add_ratios(document)
    return document


def _configuration() -> dict[str, Any] | None:
    if importlib.util.find_spec("csraxis") is None:
        return None
    import csraxis as cx

    return cx.get_config()


def _chunk_rows(x: sparse.csr_matrix) -> int:
    return max(1, min(-(-x.shape[0] // 8), x.shape[0] * CHUNK_VALUES // max(x.nnz, 1)))


def _tick(show: Show, contestant: str, done: int, total: int, step: str) -> None:
    show(f"{contestant}: {step}", done, total)


def spawn(job: Job, limit: float, tick: Callable[[str], Any]) -> dict[str, Run] | str:
    """What `chain.measure` finds in a process of its own; or why there is nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job").write_bytes(pickle.dumps(job))
        root = str(Path(__file__).resolve().parents[1])
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        if job.threads:
            environment |= dict.fromkeys(THREADS, str(job.threads))
        command = [sys.executable, "-c", "import sys; from bench import chain; chain.work(sys.argv[1])", name]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            stop = time.monotonic() + limit
            try:
                while process.poll() is None and time.monotonic() < stop:
                    tick(_read(folder / "step") or "starting")
                    time.sleep(0.1)
            finally:
                process.kill()  # does nothing where it has ended
                process.wait()
        if (folder / "runs").exists():
            return pickle.loads((folder / "runs").read_bytes())
        step = _read(folder / "step") or "starting"
        if time.monotonic() >= stop:
            return f"not finished within {limit:g} s, stopped in: {step}"
        last = (_read(folder / "log").splitlines() or ["without a word"])[-1]
        return f"its process ended with status {process.returncode} in: {step} ({last})"


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.exists() else ""


class _Collected:
    """The runs of all contestants, and what is wrong with them."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.stopped: dict[str, str] = {}
        """Contestant to why its process did not end well."""
        self.wrong: dict[tuple[str, str], str] = {}
        """(contestant, run) to how the result differs."""
        self.runs: dict[tuple[str, str], list[Run]] = {}

    def add(self, contestant: Contestant, runs: dict[str, Run] | str) -> None:
        if isinstance(runs, str):
            self.stopped[contestant.name] = runs
            return
        for name, run in runs.items():
            key = (contestant.name, name)
            self.runs.setdefault(key, []).append(run)
            reason = run.result and self.reference.disagreement(run.result)
            if reason:
                self.wrong.setdefault(key, reason)
            run.result = None  # large


def _add_records(document: Document, contestant: Contestant, plan: Plan, collected: _Collected) -> None:
    stopped = collected.stopped.get(contestant.name)
    if stopped:
        for step in [*(step.name for step in chain.steps(plan)), WHOLE]:
            document["records"].append(_record(contestant, STEPS, step, [], "error", stopped))
        return
    for name in (STEPS, WHOLE, RECIPE):
        runs = collected.runs.get((contestant.name, name), [])
        wrong = collected.wrong.get((contestant.name, name))
        for rows in zip(*(run.rows for run in runs)):
            reason = wrong or next((row.reason for row in rows if row.reason), None)
            status = "FAIL" if wrong else "error" if reason else "ok"
            document["records"].append(_record(contestant, name, rows[0].step, rows, status, reason))


def _record(
    contestant: Contestant, name: str, step: str, rows: Iterable[chain.Row], status: str, reason: str | None
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "contestant": contestant.name,
        "package": contestant.package,
        "on": "Dask" if contestant.dask else "memory",
        "note": contestant.note,
        "run": name,
        "step": step,
        "status": status,
        "reason": reason,
        "seconds": [row.seconds for row in rows] if status == "ok" else [],
        "median": None,
        "quartiles": None,
        "passes": None,
        "extra_bytes": [],
        "extra_median": None,
        "scanpy_over_it": None,
    }
    if status == "ok":
        rows = list(rows)
        record["median"] = float(np.median(record["seconds"]))
        record["quartiles"] = [float(q) for q in np.percentile(record["seconds"], [25, 75])]
        record["passes"] = rows[0].passes
        record["extra_bytes"] = [row.extra for row in rows if row.extra is not None]
        record["extra_median"] = float(np.median(record["extra_bytes"])) if record["extra_bytes"] else None
    return record


def _add_ratios(document: Document) -> None:
    """To scanpy where X is in the same place: to the same step, and the recipe to the steps that are in it."""
    for record in document["records"]:
        theirs = [r for r in document["records"] if r["package"] == "scanpy" and r["on"] == record["on"]]
        if record["step"] == RECIPE:
            theirs = [r for r in theirs if r["run"] == STEPS and r["step"] not in ("QC metrics", WHOLE)]
        else:
            theirs = [r for r in theirs if r["step"] == record["step"]]
        if record["median"] and theirs and all(r["median"] for r in theirs):
            record["scanpy_over_it"] = sum(r["median"] for r in theirs) / record["median"]


def by_contestant(document: Document) -> dict[str, list[dict[str, Any]]]:
    """The records of each contestant, in the order of the run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in document["records"]:
        found.setdefault(record["contestant"], []).append(record)
    return found


def print_tables(document: Document, console: Console) -> None:
    """A table for each contestant, then how to read them and what it ran on."""
    from rich.markup import escape
    from rich.table import Table

    for shape in document["shapes"]:
        console.print(f"\n[bold]{escape(report.shape_line(shape))}[/]")
    for name, records in by_contestant(document).items():
        table = Table(
            title=f"[bold]{escape(name)}[/]",
            title_justify="left",
            title_style="",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        table.add_column("", width=24, no_wrap=True)
        spread = [("quartiles", 13)] if document["settings"]["repeats"] > 1 else []
        for heading, width in (("time", 8), *spread, ("passes", 6), ("memory", 8), ("scanpy / it", 11)):
            table.add_column(heading, width=width, justify="right", no_wrap=True)
        for record in records:
            table.add_row(*_cells(record), style="bold" if record["step"] in (WHOLE, RECIPE) else "")
        console.print()
        console.print(table)
        for reason, its in _reasons(records).items():
            said = "[red]FAIL[/]" if its[0]["status"] == "FAIL" else "not done:"
            console.print(f"  {said} {escape(', '.join(r['step'] for r in its))}: {escape(reason)}")
    console.print(f"\n{escape(footer(document))}", highlight=False)


def _cells(record: dict[str, Any]) -> list[str]:
    if record["status"] != "ok":
        return [record["step"], "[red]FAIL[/]" if record["status"] == "FAIL" else "-"]
    median, several = record["median"], len(record["seconds"]) > 1
    spread = [" - ".join(duration(q, like=median) for q in record["quartiles"])] if several else []
    return [
        record["step"],
        duration(median),
        *spread,
        passes(record["passes"]),
        size(record["extra_median"]),
        ratio(record["scanpy_over_it"]),
    ]


def _reasons(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Why there are no times: each reason once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record["reason"] and record["reason"] != chain.NOT_REACHED:
            found.setdefault(record["reason"], []).append(record)
    return found


def passes(value: float | None) -> str:
    """How often the matrix was read."""
    return "-" if value is None else f"{value:.3g}"


def size(count: float | None) -> str:
    """Bytes, with three digits."""
    if count is None:
        return "-"
    number, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{number:.2f} {unit}" if unit == "GB" and number < 10 else f"{number:.0f} {unit}"


def footer(document: Document) -> str:
    """How to read the figures, what was left out, versions and machine."""
    settings, records = document["settings"], document["records"]
    place = "" if settings["in_process"] else "in a process of its own, "
    lines = [
        f"Each run {place}after a warm-up on a tiny matrix; {_runs(settings)}. Before any time is shown, genes, "
        "singular values and shares of the variance were verified in float64 with NumPy or scikit-learn, to "
        f"{TOLERANCE:g}; FAIL has no time.",
        "memory: the most that the process held, above what it held when the step began.",
        "scanpy / it: scanpy's time over it, both in memory or both on Dask; for the recipe, scanpy's steps from "
        "'filter genes' on.",
    ]
    if any(record["on"] == "Dask" for record in records):
        lines.append(
            f"Dask: threads, X from {_source(settings)} in chunks of {settings['chunk_rows']:,} cells. In each step "
            "what it makes of X is computed and kept in memory (persist); in the whole chain nothing is computed but "
            "what the scores need."
        )
        lines.append("passes: how often the chunks that a step or the whole chain starts from were read.")
    lines += [f"{record['contestant']}: {record['note']}." for record in _first(records) if record["note"]]
    lines += [f"left out: {item['kind']} {item['name']}: {item['reason']}" for item in document["left_out"]]
    return "\n".join([*lines, report.provenance(document)])


def _runs(settings: dict[str, Any]) -> str:
    n = settings["repeats"]
    return f"median and quartiles of {n} interleaved runs" if n > 1 else "one run"


def _source(settings: dict[str, Any]) -> str:
    return "memory" if settings["source"] == "memory" else f"a {settings['source']} store on disk"


def _first(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({record["contestant"]: record for record in records}.values())


def markdown(document: Document) -> str:
    """The table of the README."""
    contestants = by_contestant(document)
    steps: list[str] = []
    for records in contestants.values():
        steps += [r["step"] for r in records if r["step"] not in steps]
    steps.sort(key=(WHOLE, RECIPE).__contains__)
    columns, heads = [], []
    for name, records in contestants.items():
        columns.append({r["step"]: _cell(r) for r in records})
        heads.append(name)
        if records[0]["package"] == "csraxis" and any(r["scanpy_over_it"] for r in records):
            columns.append({r["step"]: ratio(r["scanpy_over_it"]) for r in records})
            heads.append("scanpy / it")
    lines = [["", *heads], ["---"] * (1 + len(heads))]
    lines += [[step, *(column.get(step, "") for column in columns)] for step in steps]
    (shape,) = document["shapes"]
    plan = document["settings"]["plan"]
    about = (
        f"{report.shape_line(shape)}; {plan['n_top_genes']:,} genes ({plan['flavor']}), {plan['n_comps']} components. "
        f"{_runs(document['settings']).replace(' and quartiles', '').capitalize()}; memory above the start of the step"
    )
    if any(record["on"] == "Dask" for record in document["records"]):
        source, rows = _source(document["settings"]), document["settings"]["chunk_rows"]
        about += f"; Dask: X from {source} in chunks of {rows:,} cells, with the passes over it"
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{about}. {report.provenance(document)}."


def _cell(record: dict[str, Any]) -> str:
    if record["status"] != "ok":
        return "wrong" if record["status"] == "FAIL" else "-"
    parts = [duration(record["median"])]
    parts += [size(record["extra_median"])] if record["extra_median"] is not None else []
    if record["passes"] is not None:
        parts.append(f"{passes(record['passes'])} {'pass' if record['passes'] == 1 else 'passes'}")
    return ", ".join(parts)


def default_stem(options: argparse.Namespace) -> str:
    """Name of the result files that were not named."""
    name = options.data or ("pbmc3k" if options.quick else "generated")
    return f"pipeline-{name}" + (f"-{options.cells}x{options.genes}" if name == "generated" else "")


def _write(document: Document, options: argparse.Namespace, can_draw: bool, console: Console) -> None:
    no_picture = None if any(record["median"] for record in document["records"]) else "nothing has a time"
    if not can_draw:
        no_picture = f"matplotlib is not installed ({INSTALL})"
    write_results(document, options, default_stem(options), bars.draw, no_picture, console)


def _status(document: Document) -> int:
    """The exit status, with its reason on stderr."""
    own = [record for record in document["records"] if record["package"] == "csraxis"]
    wrong = [record for record in own if record["status"] != "ok"]
    for record in wrong:
        print(f"csraxis is wrong: {record['contestant']}, {record['step']}: {record['reason']}", file=sys.stderr)
    if not own:
        print("csraxis itself could not take part: see 'left out'", file=sys.stderr)
    return 1 if wrong or not own else 0
