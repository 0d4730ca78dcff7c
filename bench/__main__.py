"""Command line of the benchmarks: ``python -m bench --help``."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    cases,
    compare,
    contestants,
    fresh,
    levels,
    measure,
    overhead,
    page,
    picture,
    report,
    shapes,
    sweep,
    terminal,
)
from bench.terminal import INSTALL, Show, new_console, positive, print_lines, progress_bar, write_results

if TYPE_CHECKING:
    from rich.console import Console

Save = Callable[[report.Document], None]

COMMANDS = ("pipeline", "demo", "overhead", "fresh", "levels", "scale", "sweep", "page", "compare")
"""Modules whose main() gets the other arguments."""
SECTIONS = ("sweep", "levels", "overhead", "fresh")
"""What --also adds to a run."""
QUICK_BUDGET = 0.3  # seconds of rounds for each case
PATIENCE, QUICK_PATIENCE = 60.0, 0.3  # seconds of one contestant in a case


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m bench",
        description="Verify and time csraxis and what else computes the same, on sparse matrices of counts. "
        "`python -m bench pipeline --help`: the whole single-cell chain; `python -m bench demo`: it on real cells.",
        epilog="The first run at a size generates the matrix and keeps it in $XDG_CACHE_HOME (~/.cache)/csraxis-bench.",
    )
    size = shapes.Size()
    p.add_argument("--quick", action="store_true", help="the embedded PBMC 3k matrix, in seconds")
    names = [case.name for case in cases.CASES]
    p.add_argument("--case", action="append", choices=names, metavar="NAME", help="only this case (repeatable)")
    engines = sorted({c.engine for c in contestants.CONTESTANTS if c.engine})
    p.add_argument("--engine", action="append", choices=engines, help="only this engine of csraxis (repeatable)")
    names = [contestant.name for contestant in contestants.CONTESTANTS]
    p.add_argument(
        "--contestant", action="append", choices=names, metavar="NAME", help="only this, and csraxis (repeatable)"
    )
    names = [shape.name for shape in shapes.SHAPES]
    p.add_argument(
        "--data", "--shape", action="append", choices=names, metavar="NAME", help="this matrix (repeatable; see --list)"
    )
    p.add_argument("--cells", type=positive, default=size.cells, help="rows to generate (default: %(default)s)")
    p.add_argument("--genes", type=positive, default=size.genes, help="columns to generate (default: %(default)s)")
    p.add_argument("--threads", type=positive, help="for csraxis and for what Numba threads (default: csraxis's own)")
    p.add_argument("--repeats", type=positive, help="timed rounds (default: 5, with --quick 25)")
    p.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="no further round of a case after so long, once there are 3 (default: none; with --quick 0.3)",
    )
    p.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help=f"no further round of a contestant in a case after so long (default: {PATIENCE:g}; with --quick "
        f"{QUICK_PATIENCE})",
    )
    p.add_argument("--compare", type=Path, metavar="OLD.json", help="tell what is slower than in that run; status 1")
    p.add_argument(
        "--tolerance", type=compare.tolerance, default=compare.TOLERANCE, help="of --compare (default: %(default)s)"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="machine-readable results (default: in bench/results/)")
    p.add_argument("--plot", type=Path, metavar="FILE.png", help="picture of the ratios (default: in bench/results/)")
    p.add_argument("--html", type=Path, metavar="FILE.html", help="all of it as a page (default: beside the picture)")
    p.add_argument(
        "--also",
        action="append",
        choices=[*SECTIONS, "all"],
        metavar="WHAT",
        help=f"measure this, too, for the page: {', '.join(SECTIONS)} or all (repeatable)",
    )
    p.add_argument("--max-values", type=positive, default=100_000_000, help="of the sweep (default: %(default)s)")
    p.add_argument("--list", action="store_true", help="list cases, contestants and matrices, and end")
    return p


def show_list(console: Console) -> None:
    """What there is, and what of it can run here."""
    from rich.markup import escape
    from rich.table import Table

    here = "[green]here[/]"
    rows = [
        ("cases", [(c.name, c.what, _missing(c)) for c in cases.CASES]),
        ("contestants", [(c.name, c.note, contestants.absence(c)) for c in contestants.CONTESTANTS]),
        ("matrices (--data)", [(s.name, s.what, shapes.absence(s)) for s in shapes.SHAPES]),
    ]
    for heading, entries in rows:
        table = Table(title=f"[bold]{heading}[/]", title_justify="left", title_style="", box=None, show_header=False)
        for name, what, absent in entries:
            table.add_row(escape(name), escape(what), escape(absent) if absent else here)
        console.print(table, "")


def _missing(case: cases.Case) -> str | None:
    absent = [name for name in case.requires if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(absent)} ({INSTALL})" if absent else None


def _tick(show: Show, case: str, done: Iterator[int], total: int, label: str) -> None:
    show(f"{case}: {label}", next(done), total)


class CannotWriteError(Exception):
    """The folder of the results cannot be written to."""


def partial_path(options: argparse.Namespace) -> Path:
    """Where a run keeps what it has so far: beside its JSON, which may be that of a whole run before."""
    path = options.json or terminal.RESULTS / f"{default_stem(options)}.json"
    return path.with_name(f"{path.stem}.partial.json")


def _save(path: Path, document: report.Document) -> None:
    try:
        report.write_json(document, path)
    except OSError as error:
        if len(document["cases"]) <= 1:  # better now than after an hour
            raise CannotWriteError(error) from error


def run(options: argparse.Namespace) -> report.Document:
    """Measure what the options ask for; after each case what there is so far is written to `partial_path`."""
    save = functools.partial(_save, partial_path(options))
    chosen = [case for case in cases.CASES if not options.case or case.name in options.case]
    wanted = options.data or (["pbmc3k"] if options.quick else ["generated"])
    repeats = options.repeats or (25 if options.quick else 5)
    budget = options.budget or (QUICK_BUDGET if options.quick else None)
    patience = options.patience or (QUICK_PATIENCE if options.quick else PATIENCE)

    left_out, present = [], []
    for contestant in contestants.CONTESTANTS:
        if contestant.engine and options.engine and contestant.engine not in options.engine:
            continue
        if options.contestant and not contestant.engine and contestant.name not in options.contestant:
            continue
        reason = contestants.absence(contestant)
        if options.quick and not options.contestant and not contestant.quick:
            reason = f"too slow for a quick run (--contestant {contestant.name})"
        if reason:
            left_out.append(("contestant", contestant.name, reason))
        else:
            present.append(contestant)
    own = None
    if any(contestant.engine for contestant in present):
        import csraxis as cx

        own = cx.get_config()
    threads = options.threads or (own["threads"] if own else None)
    settings = {"repeats": repeats, "threads": threads, "patience": patience} | ({"budget": budget} if budget else {})
    document = report.new_document(settings, own)
    for kind, name, reason in left_out:
        report.leave_out(document, kind, name, reason)
    for case in list(chosen):
        reason = _missing(case)
        if reason:
            report.leave_out(document, "case", case.name, reason)
            chosen.remove(case)

    with progress_bar() as show:
        for shape in (s for s in shapes.SHAPES if s.name in wanted):
            show(f"loading {shape.name}", 0, 1)
            try:
                size = shapes.Size(options.cells, options.genes)
                x = shapes.load(shape, size, lambda done, total: show("generating", done, total))
            except shapes.Unavailable as reason:
                report.leave_out(document, "matrix", shape.name, str(reason))
                continue
            report.add_shape(document, shape.name, shape.what, x)
            taking_part = []
            for contestant in present:
                if contestant.at_most is None or x.nnz <= contestant.at_most or options.contestant:
                    taking_part.append(contestant)
                elif any(case.name in contestant.runs for case in chosen):
                    reason = f"takes minutes a call of {shape.name} (--contestant {contestant.name})"
                    report.leave_out(document, "contestant", contestant.name, reason)
            total, before = sum(measure.steps(case, taking_part, repeats) for case in chosen), 0
            for case in chosen:
                tick = functools.partial(_tick, show, case.name, itertools.count(before), total)
                before += measure.steps(case, taking_part, repeats)
                outcome = measure.run_case(
                    case, taking_part, x, repeats=repeats, threads=threads, budget=budget, patience=patience, tick=tick
                )
                report.add_outcome(document, shape.name, outcome)
                outcome = None
                save(document)
        x = None  # the sweep needs the memory
        _add_sections(document, options, threads, show, save)
    return document


def _add_sections(
    document: report.Document, options: argparse.Namespace, threads: int | None, show: Show, save: Save
) -> None:
    size = shapes.Size(options.cells, options.genes)
    sections = {
        "sweep": lambda: sweep.section(options.max_values, threads=threads, show=show),
        "levels": lambda: levels.section(size, threads=threads, show=show),
        "overhead": overhead.section,
        "fresh": lambda: fresh.section(threads=threads),
    }
    for name in SECTIONS:
        if not {name, "all"} & set(options.also or ()):
            continue
        show(name, 0, 1)
        document[name] = sections[name]()
        save(document)


def default_stem(options: argparse.Namespace) -> str:
    """Name of the result files that were not named."""
    generated = f"generated-{options.cells}x{options.genes}"
    if options.data:
        return "-".join(generated if name == "generated" else name for name in options.data)
    return "quick" if options.quick else generated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 if csraxis was wrong or absent, 2 if what was asked for is missing or cannot be written."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if "--sweep" in given:
        given = ["sweep", *(argument for argument in given if argument != "--sweep")]
    if given[:1] and given[0] in COMMANDS:
        return importlib.import_module(f"bench.{given[0]}").main(given[1:])
    options = parser().parse_args(given)
    try:
        old = compare.read(options.compare) if options.compare else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if importlib.util.find_spec("rich") is None:
        print(f"python -m bench needs rich for its tables: {INSTALL}", file=sys.stderr)
        return 2
    can_draw = importlib.util.find_spec("matplotlib") is not None
    if options.plot and not can_draw:
        print(f"--plot needs matplotlib: {INSTALL}", file=sys.stderr)
        return 2

    console = new_console()
    if options.list:
        show_list(console)
        return 0

    try:
        document = run(options)
    except CannotWriteError as error:
        print(f"cannot write the results: {error}; choose another place with --json", file=sys.stderr)
        return 2
    report.print_tables(document, console)
    for name, module in (("sweep", sweep), ("levels", levels), ("overhead", overhead), ("fresh", fresh)):
        if name in document:
            print_lines(module.lines(document[name]), name, console)
    if not document["shapes"]:
        print("nothing was measured: see 'left out'", file=sys.stderr)
        return 2
    try:
        _write(document, options, can_draw, console)
    except OSError as error:
        print(f"cannot write the results: {error}; choose another place with --json and --plot", file=sys.stderr)
        return 2
    partial_path(options).unlink(missing_ok=True)
    status = _status(document, options)
    if old:
        status = status or compare.show(document, old, options.tolerance, f"this run / {options.compare}")
    return status


def _write(document: report.Document, options: argparse.Namespace, can_draw: bool, console: Console) -> None:
    no_picture = (
        None
        if any(record["ratio_to_csraxis"] for record in document["records"])
        else "csraxis has no time to compare with"
    )
    if not can_draw:
        no_picture = f"matplotlib is not installed ({INSTALL})"
    write_results(document, options, default_stem(options), picture.draw, no_picture, console)
    if not no_picture:
        path = options.html or (options.plot or terminal.RESULTS / f"{default_stem(options)}.png").with_suffix(".html")
        page.write_html(document, path)
        console.print(f"page: {path}", highlight=False, soft_wrap=True)


def _status(document: report.Document, options: argparse.Namespace) -> int:
    """The exit status, with its reason on stderr."""
    wrong = report.failures(document)
    for record in wrong:
        print(f"csraxis is wrong: {record['contestant']}, {record['case']}, {record['reason']}", file=sys.stderr)
    if wrong:
        return 1
    names = {c.name for c in contestants.CONTESTANTS if c.engine and (not options.engine or c.engine in options.engine)}
    absent = names & {item["name"] for item in document["left_out"]}
    if absent == names:
        print("csraxis itself could not take part: see 'left out'", file=sys.stderr)
        return 1
    return 2 if options.engine and absent else 0


if __name__ == "__main__":
    sys.exit(main())
