"""Break the code in one place at a time and see whether the suite notices: `python .ci/mutate.py --count 50 --seed 0`.

A mutation changes a comparison, an operator, a number or a truth value, or drops a statement: in the compiled kernels
(one CPU level) and in `src/dispatch`. It works on a copy; its Python needs what the tests and a build need.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = "src/kernels_cy/_kernels.pxi"
# What runs first, and stops most of them; then the whole suite.
FIRST = {
    "_kernels.pxi": ("test_kernels",),
    "_lazy.py": ("test_dask_graphs", "test_dask"),
    "_chunks.py": ("test_dask_graphs", "test_dask"),
    "_select.py": ("test_select",),
    "_graphs.py": ("test_cluster", "test_chain"),
    "_blocks.py": ("test_bits", "test_processes"),
    "_config.py": ("test_import", "test_processes"),
    "_engines.py": ("test_import",),
    "_backed.py": ("test_containers",),
    "_other.py": ("test_containers",),
}
FIRST_OF_OTHERS = ("test_reductions", "test_elementwise", "test_refused", "test_pp")
SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "+": "-", "-": "+", "*": "+", "//": "*"}
SWAPS |= {"+=": "-=", "|=": "&=", "and": "or", "or": "and", "True": "False", "False": "True"}
OPERATOR = re.compile(r"(?<= )(<=|>=|==|!=|//|\+=|\|=|<|>|\+|-|\*|and|or)(?= )|\b(True|False|[0-9]+)\b")


def sites(path):
    """(line, column, old, new) of everything in a file that can be changed."""
    text = path.read_text()
    code = python_code(text) if path.suffix == ".py" else cython_code(text)
    for number, line in code:
        for match in OPERATOR.finditer(line):
            old = match.group()
            yield number, match.start(), old, SWAPS.get(old) or str(int(old) + 1)
        statement = line.strip()
        if re.match(r"[\w.\[\], ]+ [-+|*]?= |\w[\w.]*\(.*\)$", statement) and text.splitlines()[number] == line:
            yield number, len(line) - len(line.lstrip()), statement, "pass"


def python_code(text):
    """The lines with code, without docstrings, comments, imports and annotations at module level."""
    lines = text.splitlines()
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.arguments):
            first = getattr(node, "lineno", None)
            if first:
                skipped.update(range(first - 1, node.end_lineno))
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            skipped.update(range(node.lineno - 1, node.body[0].lineno - 1))
    return [(i, line.split("  # ")[0]) for i, line in enumerate(lines) if i not in skipped and '"""' not in line]


def cython_code(text):
    """The lines inside of functions, without declarations, docstrings and comments."""
    lines, inside = [], False
    for i, line in enumerate(text.splitlines()):
        if re.match(r"(cdef|def) .*", line):
            inside = "(" in line
        words = line.strip()
        declares = words.startswith(("cdef ", '"""', "#", "raise", "const", "def "))
        if inside and line.startswith("    ") and not declares and not re.search(r"not None|Py_ssize_t \w+,", line):
            lines.append((i, line))
    return lines


def run(tree, python, seconds, *options):
    """Whether the tests pass in that time, and the first that did not."""
    environment = os.environ | {"PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "ci", "CSRAXIS_CPU": "x86-64-v3"}
    try:
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *options],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False, "timeout"
    failed = re.search(r"^(FAILED|ERROR) (.*?)( - |$)", done.stdout, re.M)
    return done.returncode == 0, failed.group(2) if failed else (done.stdout + done.stderr)[-200:]


def build(tree, python):
    """One level, in place."""
    environment = os.environ | {"CSRAXIS_LEVELS": "v3", "CSRAXIS_REQUIRE_EXT": "1"}
    command = [python, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True).returncode == 0


def main():
    """Print one line for each mutation, and how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument(
        "--kernels", type=int, default=20, help="how many of them in the kernels (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first ones, of a run that was interrupted")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    dispatch = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "src/dispatch").glob("*.py"))
    places = {name: [(name, *site) for site in sites(ROOT / name)] for name in (KERNELS, *dispatch)}
    mutations = draw.sample(places[KERNELS], options.kernels)
    mutations += draw.sample([site for name in dispatch for site in places[name]], options.count - options.kernels)

    tree = Path(tempfile.mkdtemp()) / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.so", "*.egg-info"))
    (tree / "csraxis").symlink_to("src")
    assert build(tree, sys.executable), "the unchanged tree must build"
    # With both engines everything outside of the kernels would run twice.
    half = ["-k", "not numba"]
    whole = [*half, "-n", "2", "--dist", "worksteal", "--ignore", "tests/test_bench.py", "tests"]
    survived = 0
    for number, (name, line, column, old, new) in enumerate(mutations[options.skip :], options.skip):
        path = tree / name
        before = path.read_text()
        lines = before.splitlines(keepends=True)
        lines[line] = lines[line][:column] + new + lines[line][column + len(old) :]
        path.write_text("".join(lines))
        start = time.monotonic()
        if name == KERNELS and not build(tree, sys.executable):
            passed, what = False, "does not build"
        else:
            first = [f"tests/{test}.py" for test in FIRST.get(path.name, FIRST_OF_OTHERS)]
            passed, what = run(tree, sys.executable, 240, *half, *first)
            if passed:
                passed, what = run(tree, sys.executable, 900, *whole)
        survived += passed
        verdict = "SURVIVED" if passed else "caught"
        by = lines[line].strip() if passed else what
        print(
            f"{number:3} {verdict:8} {name}:{line + 1}: {old} -> {new}   ({by}, {time.monotonic() - start:.0f} s)",
            flush=True,
        )
        path.write_text(before)
        if name == KERNELS and (number + 1 == options.kernels):
            assert build(tree, sys.executable)
    done = len(mutations) - options.skip
    print(f"{done - survived} of {done} caught")


if __name__ == "__main__":
    main()
