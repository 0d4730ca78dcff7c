"""Configuration of the process: the engine and the number of threads."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from . import _engines

_settings: dict[str, Any] = {"engine": None, "threads": None}


def set_config(*, engine: str | None = None, threads: int | str | None = None) -> None:
    """Choose the engine and the number of threads, for the whole process.

    Parameters
    ----------
    engine : {"cython", "numba", "auto"}, optional
        Which kernels run. "auto": the environment variable CSRAXIS_ENGINE, else the first one installed of
        cython, numba.
    threads : int or "auto", optional
        How many threads large matrices may use. A number also holds in threads other than the main one, where
        "auto" means one. "auto" elsewhere: the environment variable CSRAXIS_NUM_THREADS, else the processors that this
        process may use.

    Raises
    ------
    ValueError
        For any other engine or number.
    ImportError
        If the engine is not installed; the message has the install line.

    Examples
    --------
    >>> import csraxis as cx
    >>> cx.set_config(threads=2)
    >>> cx.get_config()["threads"]
    2
    >>> cx.set_config(threads="auto")
    """
    changes: dict[str, Any] = {}
    if engine is not None:
        changes["engine"] = None if engine == "auto" else _engines.check_name(engine, "engine")
        if changes["engine"]:
            _engines.load(changes["engine"])
    if threads is not None:
        changes["threads"] = None if threads == "auto" else _check_threads(threads, "threads")
    with _engines.lock:
        _settings.update(changes)


class config:
    """Choose the engine and the number of threads inside a `with` block.

    Takes the parameters of `set_config`, and puts back what was there before. The setting is the process's, not the
    thread's: blocks with different values must not overlap in time.

    Examples
    --------
    >>> import csraxis as cx
    >>> with cx.config(threads=1):
    ...     cx.get_config()["threads"]
    1
    """

    def __init__(self, engine: str | None = None, threads: int | str | None = None) -> None:
        self._changes = {"engine": engine, "threads": threads}
        self._before: list[dict[str, Any]] = []

    def __enter__(self) -> "config":
        with _engines.lock:
            before = dict(_settings)
            set_config(**self._changes)  # type: ignore[arg-type]
            self._before.append(before)
        return self

    def __exit__(self, *exception: object) -> None:
        with _engines.lock:
            _settings.update(self._before.pop())


def get_config() -> dict[str, Any]:
    """The configuration in force.

    Returns
    -------
    dict
        `engine` ("cython" or "numba"), `threads` (int) and `cpu` ("x86-64-v4", ... for cython; LLVM's name of the
        processor for numba).

    Raises
    ------
    ImportError
        If neither engine is installed; the message has the install lines.

    Examples
    --------
    >>> import csraxis as cx
    >>> sorted(cx.get_config())
    ['cpu', 'engine', 'threads']
    """
    return {"engine": engine_name(), "threads": thread_count(), "cpu": kernels().cpu}


def show_config() -> None:
    """Print the engine, CPU level, threads and versions: what a bug report needs."""
    rows = []
    for key, value in (("engine", engine_name), ("threads", thread_count), ("cpu", lambda: kernels().cpu)):
        try:
            rows.append((key, str(value())))
        except (ImportError, ValueError) as error:
            rows.append((key, f"none ({error})"))
    for package in ("csraxis", "numpy", "scipy", "numba", "dask", "anndata"):
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    rows.append(("python", f"{platform.python_version()} on {platform.platform()}"))
    print("\n".join(f"{key:8} {value}" for key, value in rows))


def engine_name() -> str:
    """Name of the engine that runs now."""
    return _settings["engine"] or _engines.default()


def kernels() -> _engines.Kernels:
    """The engine that runs now."""
    return _engines.load(engine_name())


def explicit_threads() -> int | None:
    """The number of threads given to set_config or config, if any."""
    return _settings["threads"]


def thread_count() -> int:
    """How many threads a large matrix may use."""
    explicit = explicit_threads()
    if explicit:
        return explicit
    wanted = os.environ.get("CSRAXIS_NUM_THREADS")
    if not wanted or wanted == "auto":
        return _usable_processors()
    return _check_threads(wanted, "CSRAXIS_NUM_THREADS")


def _check_threads(value: int | str, source: str) -> int:
    try:
        count = int(value)
        if count < 1 or (not isinstance(value, str) and count != value):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f'{source} must be a whole number of at least 1, or "auto", got {value!r}') from None
    return count


def _usable_processors() -> int:
    """Processors that this process may use: its affinity, and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no control group (version 2), or no limit ("max")
        return count
