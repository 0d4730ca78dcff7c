"""scanpy's, fast-array-utils' or scikit-learn's own tests, without and with csraxis switched in.

`python tests/peers_suites.py {scanpy,fast-array-utils,scikit-learn} CHECKOUT [FILE ...]`: the checkout of the release
that is installed (scikit-learn brings its tests: any folder will do); what its tests need must be installed. Prints how
many passed, and every test whose outcome differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

# The files about what csraxis replaces.
FILES = {
    "scanpy": [
        f"tests/test_{name}.py"
        for name in (
            "highly_variable_genes",
            "normalization",
            "pca",
            "preprocessing",
            "preprocessing_distributed",
            "qc_metrics",
            "scaling",
            "utils",
        )
    ],
    "fast-array-utils": ["tests/test_stats.py"],
    "scikit-learn": [
        "sklearn.utils.tests.test_sparsefuncs",
        "sklearn.preprocessing.tests.test_data",
        "sklearn.feature_selection.tests.test_variance_threshold",
        "sklearn.decomposition.tests.test_pca",
        "sklearn.decomposition.tests.test_truncated_svd",
    ],
}
SWITCHED = {"scanpy": "scanpy", "fast-array-utils": "scanpy", "scikit-learn": "sklearn"}


def outcomes(report):
    """{test: "passed", "failed", "error" or "skipped"} of a junit file."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcome = {"failure": "failed"}.get(kinds[0], kinds[0]) if kinds else "passed"
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def run(peer, checkout, files, switched):
    """Outcomes of the files, with csraxis switched in before anything is collected, or without."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = Path(folder, "csraxis_switched_in.py")
        plugin.write_text(f"import csraxis\n\ncsraxis.accelerate({SWITCHED[peer]!r})\n")
        command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore::pandas.errors.Pandas4Warning"]
        command += ["-p", plugin.stem] * switched + ["--junit-xml", f"{folder}/report.xml"]
        command += ["-c", os.devnull, "--pyargs"] if peer == "scikit-learn" else []
        path = os.pathsep.join([folder, str(Path(checkout, "src").absolute()), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run([*command, *files], cwd=checkout, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout + done.stderr)
        return outcomes(f"{folder}/report.xml")


def compare(before, after):
    """Print the two and where they differ; how many tests are worse with csraxis."""
    for name, found in (("without", before), ("with csraxis", after)):
        counted = Counter(found.values())
        print(f"{name}: {', '.join(f'{number} {outcome}' for outcome, number in sorted(counted.items()))}")
    different = {test for test in before.keys() | after.keys() if before.get(test) != after.get(test)}
    for test in sorted(different):
        print(f"    {test}: {before.get(test)}, with csraxis {after.get(test)}")
    return sum(before.get(test) == "passed" for test in different)


def main():
    """Both runs; exit code 1 where a test passes only without csraxis."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=FILES)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    files = options.files or FILES[options.peer]
    before, after = (run(options.peer, options.checkout, files, switched) for switched in (False, True))
    if compare(before, after):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
