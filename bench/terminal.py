"""What the commands share: the console, a progress bar, and what to install."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[str, int, int], None]
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
