"""The code in README.md and on the pages of docs/ runs, and prints what they say.

```python runs, the blocks of a page in one namespace. The indented lines after it are what it prints; `...` stands for
anything. ```console: what begins with "$ csraxis" runs, and prints the lines that follow, if there are any. Above what
cannot run (```py, or such a command) is a comment: <!-- not run: reason -->.
"""

import ast
import contextlib
import doctest
import io
import re
import shlex
import warnings
from pathlib import Path

import pytest
import scipy.sparse as sp

import csraxis as cx

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# None where the tests were copied without them.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
}
# The fragments in CONTRIBUTING.md are of a change to csraxis.
SHOWN = [page for page in PAGES if page == "README.md" or page.startswith("docs/")]
# Their code fails by design where the patch is missing; tests/upstream.py runs it without and with.
REPORTS = [page for page in PAGES if page.startswith("docs/upstream/")]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```(?P<language>[^\n]*)\n(?P<code>.*?)^```\n"
    r"(?:\n(?:prints\n\n)?(?P<output>(?:(?: {4}[^\n]*)?\n)+))?",
    re.M | re.S,
)
# What a page needs besides what it imports.
NEEDS = {
    "README.md": ("anndata", "zarr", "click", "rich", "matplotlib"),
    "docs/command-line.md": ("click", "rich", "matplotlib"),
    "docs/how-to/cluster.md": ("distributed", "zarr"),
    "docs/how-to/engines.md": ("numba",),
    "docs/how-to/out-of-core.md": ("click", "rich"),
    "docs/install.md": ("click", "rich"),
    "docs/quickstart.md": ("click", "rich"),
    "docs/tutorial.md": ("zarr",),
}
# Not about what the pages show: anndata on the format that it writes; dask-ml's IncrementalPCA on its first batch;
# Python 3.12 on any fork in a process with threads.
IGNORED = (".*zarr v[23]", "invalid value encountered in divide", "This process .* is multi-threaded")


def blocks(page, *languages):
    return [found for found in BLOCK.finditer(PAGES[page]) if found["language"] in languages]


def lines(text):
    """As a terminal shows them in the end, and with one space for several."""
    text = re.sub(r"[^\n]*\r", "", text)
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines() if line.strip())


def commands(block):
    """The arguments and the output of each of csraxis's commands."""
    for command in re.split(r"^\$ ", block["code"], flags=re.M)[1:]:
        line, _, output = command.partition("\n")
        program, *arguments = shlex.split(line, comments=True)
        if program == "csraxis":
            yield arguments, output


def printed_by(run, *arguments):
    """What it prints, warnings included."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.showwarning = lambda message, category, *_: print(f"{category.__name__}: {message}")
        warnings.filterwarnings("always", "zero-centering a sparse array/matrix densifies it")
        for message in IGNORED:
            warnings.filterwarnings("ignore", message)
        run(*arguments)
    return lines(printed.getvalue())


def run_command(arguments):
    from csraxis.cli import _commands

    assert _commands.main(arguments) == 0


def same(expected, printed):
    return doctest.OutputChecker().check_output(lines(expected), printed, doctest.ELLIPSIS)


def given(page):
    """The files and variables that a page takes for granted."""
    if page not in ("README.md", "docs/command-line.md", "docs/index.md"):
        return {}
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(sp.load_npz("bench/data/pbmc3k_raw.npz")[:300])
    adata.write_h5ad("counts.h5ad")
    adata.write_zarr("counts.zarr")
    return {"adata": adata}


@pytest.mark.parametrize("page", [page for page in SHOWN if page not in REPORTS and blocks(page, "python", "console")])
def test_code(page, tmp_path, monkeypatch):
    code = [ast.parse(block["code"]) for block in blocks(page, "python")]
    imports = [node for tree in code for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in imports:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        for name in names:
            pytest.importorskip(name)
    for name in NEEDS.get(page, ()):
        pytest.importorskip(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    Path("bench").symlink_to(ROOT / "bench")
    namespace = {"__name__": "page"}
    printed_by(lambda: namespace.update(given(page)))
    try:
        for block in blocks(page, "python", "console"):
            line = PAGES[page].count("\n", 0, block.start("code"))
            if block["language"] == "python":
                compiled = compile("\n" * line + block["code"], ROOT / page, "exec")
                runs = [(exec, (compiled, namespace), block["output"] or "")]
            else:
                runs = [(run_command, (arguments,), output or None) for arguments, output in commands(block)]
            for run, arguments, expected in runs if not block["reason"] else []:
                printed = printed_by(run, *arguments)
                assert expected is None or same(expected, printed), f"{page}:{line + 1} prints\n{printed}"
    finally:
        cx.set_config(engine="auto", threads="auto")


@pytest.mark.parametrize("page", SHOWN)
def test_what_does_not_run_says_why(page):
    silent = [block["code"] for block in blocks(page, "py") if not block["reason"]]
    assert not silent


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files(page):
    """Those between pages of the site, with their anchors, are checked when it is built."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", PAGES[page], flags=re.M | re.S)
    targets = re.findall(r"\]\((?![a-z]+:)([^)#\s]+)", text)
    assert not [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]


@pytest.mark.skipif(not DOCS.is_dir(), reason="the tests were copied without docs/")
def test_every_public_name_is_in_the_reference():
    listed = set()
    for path in (DOCS / "api").glob("*.rst"):
        text = path.read_text()
        module = re.search(r"currentmodule:: (\S+)", text)
        listed |= {f"{module[1]}.{name}" for name in re.findall(r"^ {3}(\w+)$", text, re.M)} if module else set()
    public = {f"csraxis.{name}" for name in cx.__all__} - {"csraxis.pp"}
    for name in ("pp", "sklearn"):
        public |= {f"csraxis.{name}.{member}" for member in pytest.importorskip(f"csraxis.{name}").__all__}
    assert listed == public
