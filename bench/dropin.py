"""An unchanged scanpy script, without and with the line that switches csraxis in: `python -m bench.dropin`.

Each run is a fresh process, in turns; results are compared, and times are of the script's steps (reading the counts and
importing scanpy not counted).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .generate import Parameters, load

LINE = 'import csraxis; csraxis.accelerate("scanpy")'
# {line} is empty or the line above; the rest is what a user has. The second round finds everything compiled.
SCRIPT = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
{line}
import numpy as np, scanpy as sc, scipy.sparse as sp
from anndata import AnnData

folder = sys.argv[1]
rounds = []
for _ in range(2):
    arrays = [np.load(f"{{folder}}/{{name}}.npy") for name in ("data", "indices", "indptr")]
    adata = AnnData(sp.csr_matrix(tuple(arrays)))
    del arrays
    stored = adata.X.nnz
    times, now = {{}}, time.perf_counter()

    def done(step):
        global now
        times[step], now = time.perf_counter() - now, time.perf_counter()

    sc.pp.calculate_qc_metrics(adata, percent_top=None, inplace=True)
    done("calculate_qc_metrics")
    sc.pp.filter_cells(adata, min_genes=200)
    sc.pp.filter_genes(adata, min_cells=3)
    done("filter_cells, filter_genes")
    sc.pp.normalize_total(adata, target_sum=1e4)
    done("normalize_total")
    sc.pp.log1p(adata)
    done("log1p")
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    done("highly_variable_genes")
    adata = adata[:, adata.var["highly_variable"]].copy()
    done("adata[:, highly_variable].copy()")
    sc.pp.scale(adata, zero_center=False, max_value=10)
    done("scale")
    sc.pp.pca(adata, n_comps=50)
    done("pca")
    rounds.append(times)

np.savez(sys.argv[2], x=adata.X.data, scores=adata.obsm["X_pca"], variance=adata.uns["pca"]["variance"])
record = {{"rounds": rounds, "genes": list(adata.var_names), "stored": stored}}
json.dump(record, open(sys.argv[3], "w"))
"""


def run(line, counts, folder, stored):
    """Times of the steps of both rounds in a fresh process, the genes that were chosen, and arrays of the result."""
    script, arrays, record = (Path(folder, name) for name in ("script.py", "arrays.npz", "record.json"))
    script.write_text(SCRIPT.format(line=line))
    command = [sys.executable, str(script), str(counts), str(arrays), str(record)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    found = json.loads(record.read_text())
    assert found["stored"] == stored, "the script must have seen the whole matrix"
    return found["rounds"], found["genes"], dict(np.load(arrays))


def spread(found, number):
    """For each step of the first or second round, and for all: the median time, the shortest and the longest."""
    runs = [rounds[number] | {"all": sum(rounds[number].values())} for rounds, _, _ in found]
    times = {step: [run[step] for run in runs] for step in runs[0]}
    return {step: (statistics.median(each), min(each), max(each)) for step, each in times.items()}


def differences(one, other):
    """In words: how far two results are apart, relative to the largest number of each."""
    (_, genes, arrays), (_, other_genes, other_arrays) = one, other
    common = len(set(genes) & set(other_genes))
    lines = [f"genes chosen: {common} of {len(genes)} are the same"]
    if genes == other_genes:
        for name, label in (("x", "scaled matrix"), ("variance", "variances of the components")):
            a, b = arrays[name], other_arrays[name]
            lines.append(f"{label}: {np.max(np.abs(a - b)) / np.max(np.abs(a)):.1e}")
        angle = np.max(np.abs(np.arccos(np.clip(np.linalg.svd(_basis(arrays).T @ _basis(other_arrays))[1], -1, 1))))
        lines.append(f"largest angle between the spaces of the 50 components: {angle:.1e} rad")
    return lines


def _basis(arrays):
    return np.linalg.qr(arrays["scores"].astype(float))[0]


def main():
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    x = load(Parameters(options.cells, options.genes))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "indices", "indptr"):
            np.save(Path(folder, f"{name}.npy"), getattr(x, name))
        stored = x.nnz
        del x
        runs = {"": [], LINE: []}
        for _ in range(options.repeats):
            for line, found in runs.items():
                found.append(run(line, folder, folder, stored))
    columns = [spread(found, number) for number in (0, 1) for found in runs.values()]
    print("| milliseconds | first: scanpy | with the line | again: scanpy | with the line |")
    print("|---|---:|---:|---:|---:|")
    for step in columns[0]:
        cells = ("{:.0f} ({:.0f}-{:.0f})".format(*(1000 * one for one in times[step])) for times in columns)
        print(f"| {step} |", " | ".join(cells), "|")
    print(*differences(runs[""][0], runs[LINE][0]), sep="\n")


if __name__ == "__main__":
    main()
