"""What `import csraxis` costs beside the NumPy and scipy.sparse that it needs: ``python -m bench.import_cost``.

Medians of interleaved fresh processes, so that a busy moment of the machine falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

IMPORTS = {"numpy, scipy.sparse": "import numpy, scipy.sparse", "csraxis": "import csraxis"}
LIMIT = 1.3


def seconds(statement: str) -> float:
    """Wall time of a fresh process that runs one statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of each of IMPORTS."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for statement in IMPORTS.values():  # once each beforehand: bytecode, file cache
        seconds(statement)
    for _ in range(rounds):
        for name, statement in IMPORTS.items():
            times[name].append(seconds(statement))
    return {name: statistics.median(values) for name, values in times.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians and their ratio; exit status 1 if the ratio is above the limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.import_cost", description="What importing csraxis costs.")
    parser.add_argument("--rounds", type=int, default=15, help="fresh processes of each kind (default: %(default)s)")
    medians = measure(parser.parse_args(arguments).rounds)
    for name, median in medians.items():
        print(f"import {name:20} {1e3 * median:7.1f} ms")
    base, ours = medians.values()
    print(f"ratio {ours / base:.2f} (at most {LIMIT})")
    return int(ours / base > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
