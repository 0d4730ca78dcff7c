"""The reports in docs/upstream: their tests fail with what is installed, and pass on a copy with their patch.

`python tests/upstream.py [REPORT.md ...]`; needs git, pytest and the packages of the reports.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

REPORTS = Path(__file__).parents[1] / "docs" / "upstream"


def blocks(text, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def outcome(test, folder, environment):
    """(failed, passed) of the test's cases."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    counted = {word: int(number) for number, word in re.findall(r"(\d+) (failed|passed|error)", done.stdout)}
    if done.returncode not in (0, 1) or "error" in counted:
        raise SystemExit(done.stdout + done.stderr)
    return counted.get("failed", 0), counted.get("passed", 0)


def check(report):
    """Print what its test gives without and with its patch; whether that is as it should be."""
    text = report.read_text(encoding="utf-8")
    (test,), (patch,) = blocks(text, "python"), blocks(text, "diff")
    package = re.match(r"--- a/(\w+)/", patch).group(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "test_report.py")
        path.write_text(test, encoding="utf-8")
        before = outcome(path, folder, {})
        copy = Path(folder, "patched")
        installed = Path(find_spec(package).origin).parent
        shutil.copytree(installed, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["git", "apply"], input=patch, text=True, cwd=copy, check=True)
        cache = {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(copy / "numba")}
        after = outcome(path, folder, cache)
    print(f"{report.name}: {before[0]} failed, {before[1]} passed; with the patch {after[0]} failed, {after[1]} passed")
    return before[1] == after[0] == 0 and before[0] == after[1]


if __name__ == "__main__":
    given = [Path(name) for name in sys.argv[1:]] or sorted(REPORTS.glob("*-*.md"))
    if not all([check(report) for report in given]):
        raise SystemExit(1)
