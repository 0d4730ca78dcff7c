"""What is left of `csraxis pca` when something dies: ``python tests/cli_faults.py`` (minutes; `.ci/full` runs it).

Prints a line for each fault: how often it was done, and what came out; ends with an error if that was not right.
"""

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

COMMAND = [sys.executable, "-P", "-m", "csraxis", "pca"]
OPTIONS = ["--chunk-rows", "1000", "--quiet"]


def main():
    """All faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="how often the process is killed (default: %(default)s)")
    parser.add_argument("--cells", type=int, default=20_000, help="in the matrix (default: %(default)s)")
    options = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make(options.cells)
        seconds = np.inf
        for _ in range(3):  # the first is slower
            start = time.perf_counter()
            run("x.zarr", "expected.h5ad", "--overwrite")
            seconds = min(seconds, time.perf_counter() - start)
        print(f"{options.cells:,} cells in x.zarr; undisturbed {seconds:.1f} s", flush=True)
        for suffix in (".h5ad", ".zarr"):
            killed(options.times, seconds, suffix)
        stopped(options.times, seconds, signal.SIGINT, 130, [])
        stopped(options.times, seconds, signal.SIGTERM, 143, [])
        stopped(3, seconds + 4, signal.SIGINT, 130, ["--workers", "2"])
        full_disk()
        truncated()


def make(n_cells):
    """A zarr store of several chunks."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.3, 0.2, (8, 2000)) + 0.001
    x = sp.vstack([sp.csr_matrix(rng.poisson(rates[i % 8], (500, 2000)).astype("f4")) for i in range(n_cells // 500)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ad.AnnData(x.tocsr()).write_zarr("x.zarr")


def run(name, output, *more, fails=False, **options):
    """The command to its end; what it printed."""
    done = subprocess.run([*COMMAND, name, "-o", output, *OPTIONS, *more], capture_output=True, text=True, **options)
    assert (done.returncode != 0) == fails, (done.returncode, done.stderr)
    assert not fails or re.fullmatch("csraxis: .*\n", done.stderr), done.stderr
    return done.stderr.strip()


def scores(path):
    """The principal components."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (ad.read_zarr if path.endswith(".zarr") else ad.read_h5ad)(path).obsm["X_pca"]


def outputs():
    """What there is beside the input and the undisturbed result."""
    return sorted(set(os.listdir()) - {"x.zarr", "cut.zarr", "expected.h5ad"})


def remove(name):
    """A file or folder."""
    shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)


def start_and_signal(seconds, number, output, *more):
    """The exit status of a command that gets a signal after some time, with its whole group, as from a terminal."""
    process = subprocess.Popen(
        [*COMMAND, "x.zarr", "-o", output, *OPTIONS, *more], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(seconds)
    sent = time.perf_counter()
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    error = process.communicate()[1]
    return process.returncode, error, time.perf_counter() - sent


def killed(times, seconds, suffix):
    """Kill -9 at any moment; then run it again."""
    output, halves, finished = f"out{suffix}", 0, 0
    for _ in range(times):
        status, _, _ = start_and_signal(random.uniform(0.3, 1.0) * seconds, signal.SIGKILL, output)
        left = outputs()
        if status == 0:
            finished += 1
        else:
            assert status == -signal.SIGKILL, status
            assert all(".csraxis-" in name for name in left) or left == [output], left
            halves += left != [output] and bool(left)
        run("x.zarr", output, "--overwrite")
        assert outputs() == [output], outputs()
        assert np.array_equal(scores(output), scores("expected.h5ad"))
        remove(output)
    print(
        f"kill -9 while it writes {suffix}, {times} times at random moments ({finished} had ended): {halves} times a "
        "temporary file was left; run again, nothing but the output is there, with the same bits"
    )


def stopped(times, seconds, number, expected, more):
    """Ctrl-C or SIGTERM at any moment: nothing is left."""
    counts, slowest = {0: 0, expected: 0}, 0.0
    for _ in range(times):
        # The interpreter itself needs a moment until the command can catch a signal.
        status, error, took = start_and_signal(random.uniform(0.25, 1.0) * seconds + 0.5, number, "out.h5ad", *more)
        assert status in counts, (status, error)
        counts[status] += 1
        if status == 0:
            assert outputs() == ["out.h5ad"], outputs()
            remove("out.h5ad")
        else:
            slowest = max(slowest, took)
            assert error in (
                "",
                f"csraxis: {'interrupted' if expected == 130 else 'terminated'}; nothing was written\n",
            ), error
        assert outputs() == [], outputs()
    name = " ".join([signal.Signals(number).name, *more])
    print(
        f"{name}, {times} times at random moments: {counts[expected]} times exit status {expected} within "
        f"{slowest:.1f} s and nothing left, {counts[0]} times it had ended"
    )


def full_disk():
    """A limit on the size of files, which strikes in mid-write: all but the last of these sizes are too small."""
    run("x.zarr", "whole.h5ad")
    size = Path("whole.h5ad").stat().st_size
    remove("whole.h5ad")
    shares = (0.01, 0.1, 0.5, 0.9, 0.99)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, allowed))

    for share in shares:
        allowed = int(share * size)
        said = run("x.zarr", "out.h5ad", fails=True, preexec_fn=limit)
        assert said == "csraxis: out.h5ad: File too large", said
        assert outputs() == [], outputs()
    print(
        f"no file may be larger than {', '.join(f'{share:.0%}' for share in shares)} of the output: each time "
        f"'{said}', nothing left"
    )


def truncated():
    """Each chunk of the input in turn, cut at half of its length, or missing."""
    files = [p for p in Path("x.zarr/X").rglob("*") if p.is_file() and re.fullmatch(r"[\d.]+", p.name)]
    said = set()
    for path in files:
        for how in ("cut", "missing"):
            shutil.copytree("x.zarr", "cut.zarr")
            chunk = Path("cut.zarr", *path.parts[1:])
            chunk.write_bytes(chunk.read_bytes()[: path.stat().st_size // 2]) if how == "cut" else chunk.unlink()
            said.add(re.sub(r"\d+", "N", run("cut.zarr", "out.h5ad", fails=True)))
            assert outputs() == [], outputs()
            shutil.rmtree("cut.zarr")
    print(f"each of {len(files)} chunks of the input cut in half, and missing: an error each time, and nothing left:")
    print(*(f"    {line}" for line in sorted(said)), sep="\n")


if __name__ == "__main__":
    main()
