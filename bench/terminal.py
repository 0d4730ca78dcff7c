"""What the commands share: the console, a progress bar, where results go, and what to install."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import report

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
    """A function (label, done, total) that shows progress on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda label, done, total: progress.update(task, description=label, completed=done, total=total)


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
