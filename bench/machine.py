"""What a run ran on: processor, Python, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    *("csraxis", "numpy", "scipy", "numba", "scikit-learn", "scanpy", "anndata", "fast-array-utils"),
    *("autozyme", "sparse", "dask", "dask-ml"),
)


def versions(more: tuple[str, ...] = ()) -> dict[str, str]:
    """Distribution to version, of those that are installed."""
    found = {}
    for name in dict.fromkeys(DISTRIBUTIONS + more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The processor's name for itself, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Processor, system and Python."""
    return {
        "cpu": cpu_model(),
        "processors": processors(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
