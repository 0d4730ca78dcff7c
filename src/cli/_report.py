"""What is shown while a command works, on stderr, and the measurements of its summary."""

import contextlib
import re
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Report:
    """Steps with their times: a bar where stderr is a terminal, a line for each elsewhere, nothing if `quiet`.

    Used as a context manager, from which the time counts.
    """

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True, highlight=False)
        self.seconds: dict[str, float] = {}
        self._quiet = quiet
        self._lock = threading.Lock()
        self._step: str | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> "Report":
        self._since = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._end(None)
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line that a user should see, unless they want none."""
        if not self._quiet:
            self._bar.console.print(f"csraxis: {text}", markup=False, soft_wrap=True)

    def progress(self, step: str, done: int = 0, total: int | None = None) -> None:
        """So many cells of a step are done. May be called from any thread; another step than before ends that one."""
        with self._lock:
            if step != self._step:
                self._end(step)
                self._bar.reset(self._task, description=step, total=total, visible=True)
            self._bar.update(self._task, completed=done, total=total)

    def _end(self, following: str | None) -> None:
        """Of the step that ran: its time, and its line where there is no bar."""
        now = time.perf_counter()
        if self._step is not None:
            self.seconds[self._step] = self.seconds.get(self._step, 0) + now - self._since
            if self._bar.disable:
                self.note(f"{self._step}: {duration(now - self._since)}")
        self._step, self._since = following, now


class Rate(ProgressColumn):
    """How many cells are done in a second."""

    def render(self, task: Task) -> Text:
        """Nothing before the first is done."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} cells/s" if speed else "", style="progress.data.speed")


def one_line(error: BaseException) -> str:
    """An exception's message, or its name if it has none; of HDF5's long ones what the system said."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    of_system = re.search(r"error message = '([^']+)'", text)
    if of_system:
        return of_system[1]
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return str(error.strerror)
    return " ".join(text.split()) or type(error).__name__


def amount(n_bytes: float) -> str:
    """In powers of ten: "1.25 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """With three digits, or in minutes or hours."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def peak_memory() -> int:
    """The most bytes that this process had in memory.

    Linux counts for getrusage what the program had that started this one, and only for it: where there is /proc, its
    own peak is taken.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return 1024 * int(found[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bytes_read() -> int | None:
    """What this process has read, from the disk or the system's cache; None where the system does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
        return int(found[1]) if found else None
    return None
