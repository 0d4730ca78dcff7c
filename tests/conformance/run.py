"""Run the official array API test suite on csraxis's functions, on every form of matrix.

    git clone --recurse-submodules https://github.com/data-apis/array-api-tests
    pip install -r array-api-tests/requirements.txt
    python tests/conformance/run.py array-api-tests

Exits with 1 if a test fails that is not an expected failure: `xfails-numpy.txt` lists those of NumPy itself, and
`xfails-zeros.txt` those of implicit zeros, each with its reason.
"""

import argparse
import json
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import shim

HERE = Path(__file__).parent
FILES = ("statistical_functions", "utility_functions", "searching_functions", "operators_and_elementwise_functions",
         "special_cases", "signatures")  # fmt: skip
NAMES = "|".join(shim.REDUCTIONS + shim.ELEMENTWISE)
# test_sum, test_unary[abs(...)], but not test_abs[__abs__] or test_unary[__abs__(...)]: that is ndarray's own.
CHOSEN = re.compile(
    rf"::test_({NAMES}|binary_with_scalars_\w+|unary|binary|empty_arrays|nan_propagation|func_signature)"
    rf"(\[({NAMES})(\(.*)?\])?$"
)
# These do not store the zeros of a matrix of one element; "messy" does.
IMPLICIT_ZEROS = ("csr_array", "csc_array", "csr_matrix", "dask")
OUTCOMES = ("passed", "failed", "error", "xfailed", "xpassed", "skipped")


class Selection:
    """A pytest plugin: runs the tests of csraxis's functions only, and keeps which of them passed, failed, ..."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if CHOSEN.search(item.nodeid)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        stats = terminalreporter.stats
        self.outcomes = {outcome: [report.nodeid for report in stats.get(outcome, [])] for outcome in OUTCOMES}


def run_form(suite: Path, form: str, max_examples: int) -> dict[str, list[str]]:
    """The ids of the suite's tests by outcome. In a process of its own: the suite imports one namespace, once."""
    os.environ |= {"ARRAY_API_TESTS_MODULE": "shim", "CSRAXIS_FORM": "" if form == "numpy" else form}
    os.chdir(suite)
    selection = Selection()
    options = ["-q", "-c", "pytest.ini", "--disable-deadline", f"--max-examples={max_examples}"]
    files = [f"array_api_tests/test_{name}.py" for name in FILES]
    lists = ["xfails-numpy.txt", *["xfails-zeros.txt"] * (form in IMPLICIT_ZEROS)]
    sys.path.insert(0, str(suite))
    with NamedTemporaryFile("w", suffix=".txt") as xfails:  # the suite takes one list
        xfails.write("\n".join((HERE / name).read_text() for name in lists))
        xfails.flush()
        code = pytest.main([*options, f"--xfails-file={xfails.name}", *files], plugins=[selection])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"the suite did not run: pytest exited with {code!r}")
    if form in shim.FORMS and not shim.made[form]:
        raise SystemExit(f"no {form} was made: the suite tested something else")
    return selection.outcomes


def table(results: dict[str, dict[str, list[str]]]) -> str:
    """Markdown: a row for each form, a column for each outcome."""
    rows = [("form", *OUTCOMES), ("---", *["---:"] * len(OUTCOMES))]
    rows += [(form, *(str(len(outcomes[outcome])) for outcome in OUTCOMES)) for form, outcomes in results.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="checkout of data-apis/array-api-tests, with its submodule")
    parser.add_argument(
        "--form",
        choices=[*shim.FORMS, "numpy"],
        action="append",
        help="may be given several times; default: all but numpy, which is NumPy without csraxis",
    )
    parser.add_argument("--max-examples", type=int, default=200, help="examples of each property; default: 200")
    parser.add_argument("--json", type=Path, help="write the tests by form and outcome here")
    args = parser.parse_args()
    if not (args.suite / "array-api" / "spec").is_dir():
        parser.error(f"{args.suite} has no array-api/spec: run `git submodule update --init` there")
    forms = args.form or shim.FORMS
    suite = args.suite.resolve()
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = {form: pool.submit(run_form, suite, form, args.max_examples) for form in forms}
        results = {form: run.result() for form, run in runs.items()}
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    return any(outcomes["failed"] or outcomes["error"] for outcomes in results.values())


if __name__ == "__main__":
    sys.exit(main())
