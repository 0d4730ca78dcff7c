"""What the commands share: the console, a progress bar, where results go, and what to install."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import machine, report

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[str, int, int], None]
RESULTS = Path(__file__).parent / "results"
INSTALL = 'pip install "csraxis[bench]" (in a checkout: pip install ".[bench]")'


def positive(text: str) -> int:
    """An option's value that is 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def new_console() -> Console:
    """As wide as the screen; in a file nothing has to fit one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


@contextlib.contextmanager
def progress_bar() -> Iterator[Show]:
    """A function (label, done, total) that shows progress on stderr: a bar, or in a file a line for each case."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, begin, last = progress.add_task("", total=None), time.monotonic(), ""

        def show(label: str, done: int, total: int) -> None:
            nonlocal last
            progress.update(task, description=label, completed=done, total=total)
            case = label.partition(":")[0]
            if not console.is_terminal and case != last:
                last = case
                print(f"{time.monotonic() - begin:6.0f} s  {done}/{total}  {case}", file=sys.stderr, flush=True)

        yield show


def write_results(
    document: dict[str, Any],
    options: argparse.Namespace,
    stem: str,
    draw: Callable,
    no_picture: str | None,
    console: Console,
) -> None:
    """The JSON and, unless there is a reason not to, the picture; the places are those asked for, or named by stem."""
    json_path, plot_path = options.json or RESULTS / f"{stem}.json", options.plot or RESULTS / f"{stem}.png"
    report.write_json(document, json_path)
    console.print(f"results: {json_path}", highlight=False, soft_wrap=True)
    if no_picture:
        console.print(f"picture: none, {no_picture}", highlight=False, markup=False)
    else:
        draw(document, plot_path)
        console.print(f"picture: {plot_path}", highlight=False, soft_wrap=True)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where a command that measures one thing writes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="machine-readable (default: in bench/results/)")


def print_lines(lines: list[list[str]], title: str, console: Console) -> None:
    """A table of strings: heading and rows, the first column to the left."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"[bold]{escape(title)}[/]", title_justify="left", title_style="", box=None, pad_edge=False)
    for i, heading in enumerate(lines[0]):
        table.add_column(escape(heading), justify="right" if i else "left", no_wrap=not i)
    for row in lines[1:]:
        table.add_row(*map(escape, row))
    console.print("", table)


def finish(name: str, found: dict[str, Any], lines: list[list[str]], options: argparse.Namespace, title: str) -> int:
    """Print the table of a section and write it as a document of its own; the exit status."""
    if importlib.util.find_spec("rich") is None:
        print(f"python -m bench {name} needs rich for its table: {INSTALL}", file=sys.stderr)
        return 2
    console = new_console()
    print_lines(lines, title, console)
    document = report.head({"threads": getattr(options, "threads", None) or machine.processors()}, report.own_config())
    console.print(f"\n{report.provenance(document)}", highlight=False)
    path = options.json or RESULTS / f"{name}.json"
    try:
        report.write_json(document | {name: found}, path)
    except OSError as error:
        print(f"cannot write the results: {error}; choose another place with --json", file=sys.stderr)
        return 2
    console.print(f"results: {path}", highlight=False, soft_wrap=True)
    return 0
