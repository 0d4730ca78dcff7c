"""The most memory that this process holds while something runs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from pathlib import Path

INTERVAL = 0.01  # seconds between two looks, where the kernel does not keep the mark


def resident() -> int | None:
    """Bytes of memory in use now, or None where there is no way to know."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return psutil.Process().memory_info().rss


def available() -> int | None:
    """Bytes that could be used without swapping, or None where there is no way to know."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


class Peak:
    """``with Peak() as peak``: `start` and `highest` bytes, both None where there is no way to know.

    Linux keeps the mark itself, and lets a process set it back; elsewhere a thread looks every 10 ms.
    """

    start: int | None
    highest: int | None

    def __enter__(self) -> Peak:
        """Begin to look."""
        gc.collect()
        _give_back()
        self.kernel = _set_mark_back()
        self.start = self.highest = resident()
        self.done = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        if not self.kernel and self.start is not None:
            self.watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """The highest mark."""
        self.done.set()
        if self.watcher.is_alive():
            self.watcher.join()
        if self.start is not None:
            mark = _mark() if self.kernel else resident()
            self.highest = max(self.highest or 0, mark or 0)

    def _watch(self) -> None:
        while not self.done.wait(INTERVAL):
            self.highest = max(self.highest or 0, resident() or 0)


class Unknown(Peak):
    """Does not look, which takes no time."""

    def __enter__(self) -> Unknown:
        """Nothing to begin."""
        self.start = self.highest = None
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to end."""


def _set_mark_back() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _mark() is not None


def _mark() -> int | None:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _give_back() -> None:
    """What was freed goes back to the system, so that it is not taken for memory that the next step did not need."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
