"""What importing csraxis loads, which engine runs, and what is said when there is none. Mostly in fresh processes."""

import ast
import os
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import csraxis as cx
from conftest import engine_or_skip
from csraxis.dispatch import _config
from fresh import run

ENVIRONMENT = {name: os.environ[name] for name in ("CSRAXIS_ENGINE",) if name in os.environ}
PACKAGE = Path(cx.__file__).parent
HEAVY = ["anndata", "dask", "numba", "pandas", "scanpy", "sklearn"]
LOADED = f"import sys; print(*(name for name in {HEAVY + ['csraxis.pp', 'src']} if name in sys.modules))\n"

# A process in which these modules cannot be imported, with this error.
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise {error}
sys.meta_path.insert(0, Hide())
"""
CYTHON, NUMBA = ["csraxis.kernels_cy._cpu"], ["numba", "llvmlite"]
CALL = "import csraxis as cx, numpy as np, scipy.sparse as sp\nprint(cx.sum(sp.csr_array(np.eye(3))))\n"
INSTALL = {"cython": "install csraxis from a wheel, or from source with a C compiler", "numba": "csraxis[numba]"}


def absent(*names):
    return HIDE.format(names=names, error="ModuleNotFoundError(f'No module named {name!r}', name=name)")


# What is loaded


def test_import_is_light_and_silent():
    assert run("import csraxis\n" + LOADED, options=["-W", "error"]) == ""


def test_pp_comes_when_it_is_used():
    assert run("import csraxis\ncsraxis.pp.log1p\n" + LOADED, options=["-W", "error"]) == "csraxis.pp"
    assert run("import csraxis.pp\n" + LOADED) == "csraxis.pp"
    assert "pp" in dir(cx)
    with pytest.raises(AttributeError, match="'csraxis' has no attribute 'nonsense'"):
        cx.nonsense  # noqa: B018


def test_compiled_engine_does_not_load_numba():
    engine_or_skip("cython")
    script = (
        "import scipy.sparse as sp, csraxis as cx\n"
        "x = sp.random(10_000, 500, 0.05, 'csr', random_state=0)\n"
        "assert abs(cx.sum(cx.normalize(x, target_sum=1e4), axis=1) - 1e4).max() < 1e-6\n"
    )
    assert run(script + LOADED, options=["-W", "error"]) == ""


def test_versions_agree():
    root = Path(__file__).parent.parent
    assert tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"] == cx.__version__
    citation = root / "CITATION.cff"
    if citation.exists():
        assert f"\nversion: {cx.__version__}\n" in citation.read_text()


def test_package_is_loaded_under_one_name():
    assert "src" not in sys.modules


# Which module imports which. Function-level imports count too.

LIBRARIES = {
    "kernels_cy": {"numpy"},
    "kernels_nb": {"numpy", "numba", "llvmlite"},
    "dispatch": {"numpy", "scipy", "array_api_compat", "threadpoolctl"},
    "": set(),
    "accelerate.py": {"numpy"},
    "io": {"numpy", "scipy", "dask", "pandas", "anndata", "h5py", "zarr", "numcodecs", "isal"},
    # Where it works on Dask arrays, makes tables, fits curves: the tests above show that its import loads none.
    "pp": {"numpy", "scipy", "dask", "distributed", "pandas", "skmisc"},
    "sklearn": {"numpy", "sklearn"},
    "cli": {
        "click",
        "rich",
        "numpy",
        "h5py",
        "matplotlib",
        "anndata",
        "dask",
        "distributed",
        "psutil",
        "threadpoolctl",
    },
}
OWN = {
    "kernels_cy": set(),
    "kernels_nb": set(),
    "dispatch": set(),
    "": {"dispatch", "pp", "sklearn", "accelerate"},
    "accelerate.py": {"dispatch", "pp"},
    "io": {"dispatch"},
    "pp": {"dispatch", "io"},
    "sklearn": {"", "dispatch", "pp"},
    "cli": {"", "io", "pp"},
}


def imported_by(path):
    """Absolute names of the modules that a file of the package imports."""
    package = ("csraxis", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from . import pp` imports a module, `from .dispatch import sum` does not.
            yield from (f"{module}.{alias.name}" if node.module is None else module for alias in node.names)


def test_imports_point_one_way():
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] in ("__init__.py", *OWN)]
    assert len(files) > 10
    wrong = []
    for path in files:
        parts = path.relative_to(PACKAGE).parts
        layer = "" if parts == ("__init__.py",) else parts[0]
        on_dask = path.name in ("_chunks.py", "_lazy.py", "_graphs.py")
        allowed = LIBRARIES[layer] | ({"dask", "distributed"} if on_dask else set())
        for name in imported_by(path):
            top, *rest = name.split(".")
            if top == "csraxis":
                face = {*cx.__all__, "__version__"} if "" in OWN[layer] else set()
                good = rest and rest[0] in {layer, *OWN[layer], *face}
            else:
                good = top in sys.stdlib_module_names or top in allowed
            if not good:
                wrong.append(f"{'/'.join(parts)}: {name}")
    assert not wrong


# Which engine, CPU level and number of threads


@pytest.mark.parametrize("name", ["cython", "numba"])
def test_engine_from_environment(name):
    engine_or_skip(name)
    script = "import csraxis as cx; print(cx.get_config()['engine'])"
    assert run(script, CSRAXIS_ENGINE=name) == name


def test_environment_with_unknown_engine():
    script = "import csraxis as cx\ncx.set_config(threads=2)\ncx.get_config()"
    error = run(script, CSRAXIS_ENGINE="nonsense", fails=True).splitlines()[-1]
    assert error == "ValueError: CSRAXIS_ENGINE must be one of 'cython', 'numba', got 'nonsense'"


def test_cpu_level_from_environment():
    engine_or_skip("cython")
    if not find_spec("csraxis.kernels_cy._kernels_v2"):
        pytest.skip("no x86-64-v2 kernels were built")
    script = "import csraxis as cx; print(cx.get_config()['cpu'])"
    assert run(script, CSRAXIS_CPU="x86-64-v2", CSRAXIS_ENGINE="cython") == "x86-64-v2"


@pytest.mark.parametrize("level", ["nonsense", "x86-64-v9"])
def test_cpu_level_that_cannot_run(level):
    engine_or_skip("cython")
    error = run(CALL, CSRAXIS_CPU=level, fails=True).splitlines()[-1]
    assert error.startswith(f"ValueError: CSRAXIS_CPU={level}: this processor can run ")
    assert run("import csraxis as cx; print(cx.get_config()['cpu'])") in error


def test_cpu_level_that_was_not_built():
    """Asked for by name, so it is not passed over in favour of Numba."""
    engine_or_skip("cython")
    if not find_spec("csraxis.kernels_cy._kernels_v2"):
        pytest.skip("no x86-64-v2 kernels were built")
    hide = (
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name: None if name.endswith('_kernels_v2') else find(name)\n"
    )
    error = run(hide + CALL, CSRAXIS_CPU="x86-64-v2", fails=True)
    assert error.splitlines()[-1] == "ValueError: CSRAXIS_CPU=x86-64-v2: these kernels were not compiled"


@pytest.mark.parametrize(("value", "threads"), [("3", "3"), ("auto", None), ("", None)])
def test_threads_from_environment(value, threads):
    script = "import csraxis as cx; print(cx.get_config()['threads'])"
    assert run(script, CSRAXIS_NUM_THREADS=value) == threads or run(script)


@pytest.mark.parametrize("value", ["0", "x", "-1", "2.5"])
def test_environment_with_wrong_threads(value):
    error = run("import csraxis as cx; cx.get_config()", CSRAXIS_NUM_THREADS=value, fails=True).splitlines()[-1]
    assert error == f"ValueError: CSRAXIS_NUM_THREADS must be a whole number of at least 1, or \"auto\", got '{value}'"


# Absent and broken engines


@pytest.mark.parametrize(("name", "modules"), [("cython", CYTHON), ("numba", NUMBA)])
def test_absent_engine_asked_for_by_name(name, modules):
    asked = f"import csraxis as cx; cx.set_config(engine={name!r})"
    for error in (
        run(absent(*modules) + CALL, CSRAXIS_ENGINE=name, fails=True),
        run(absent(*modules) + asked, fails=True),
    ):
        assert f"csraxis engine '{name}' is not available: " in error.splitlines()[-1]
        assert INSTALL[name] in error.splitlines()[-1]


def test_default_moves_on_when_compiled_engine_is_absent():
    engine_or_skip("numba")
    assert run(absent(*CYTHON) + CALL + "print(cx.get_config()['engine'])").split() == ["3.0", "numba"]


def test_without_any_engine():
    hidden = absent(*CYTHON, *NUMBA)
    error = run(hidden + CALL, fails=True).splitlines()[-1]
    assert "csraxis has no engine" in error
    assert all(line in error for line in INSTALL.values())
    shown = run(hidden + "import csraxis as cx; cx.show_config()")
    assert shown.startswith("engine   none (csraxis has no engine")
    assert "numpy" in shown


@pytest.mark.parametrize("error", ["ImportError(name, name=name)", "ModuleNotFoundError(name, name='needed_by_it')"])
def test_broken_engine_is_not_passed_over(error):
    """Whether its library does not load, or something that it needs is missing."""
    script = HIDE.format(names=CYTHON, error=error) + CALL
    assert run(script, fails=True).splitlines()[-1].endswith("Error: csraxis.kernels_cy._cpu")


# Configuration


@pytest.fixture(autouse=True)
def unchanged():
    """No test leaves another configuration behind."""
    before = dict(_config._settings)
    yield
    assert before == _config._settings
    _config._settings.update(before)


def threads():
    return cx.get_config()["threads"]


def test_config_nests_and_restores(engine):
    outside = threads()
    with cx.config(threads=5):
        with cx.config(threads=7):
            assert (threads(), cx.get_config()["engine"]) == (7, engine)
        with cx.config(threads="auto"):
            assert threads() == outside
        with cx.config(), cx.config(engine=None, threads=None):
            assert (threads(), cx.get_config()["engine"]) == (5, engine)
        assert threads() == 5
    assert threads() == outside


def test_config_restores_after_an_exception():
    outside = threads()
    with pytest.raises(KeyError), cx.config(threads=5):
        raise KeyError
    assert threads() == outside


def test_one_config_can_be_entered_twice():
    outside = threads()
    five = cx.config(threads=5)
    with five, cx.config(threads=7), five:
        assert threads() == 5
    assert threads() == outside


def test_config_holds_in_other_threads():
    with cx.config(threads=5), ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads).result() == 5


def test_set_config_stays():
    try:
        cx.set_config(threads=5)
        cx.set_config(threads=None)
        assert threads() == 5
    finally:
        cx.set_config(threads="auto")


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": 1.5}, {"threads": "x"}, {"engine": "nonsense"}])
def test_wrong_configuration_changes_nothing(wrong):
    (name, value) = next(iter(wrong.items()))
    with cx.config(threads=5):
        with pytest.raises(ValueError, match=f"^{name} must be .* got {value!r}$"):
            cx.set_config(**{"threads": 7} | wrong)
        with pytest.raises(ValueError, match=name), cx.config(**wrong):
            pass
        assert threads() == 5


def test_engine_auto_is_the_default(engine):
    default = run("import csraxis as cx; print(cx.get_config()['engine'])", **ENVIRONMENT)
    with cx.config(engine="auto"):
        assert cx.get_config()["engine"] == default


def test_show_config(engine, capsys):
    cx.show_config()
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["engine"] == engine
    assert shown["cpu"] == cx.get_config()["cpu"]
    assert shown["threads"] == str(threads())
    assert shown["csraxis"] == cx.__version__
    assert shown["numpy"] == np.__version__
    assert "python" in shown


@pytest.mark.parametrize(
    ("name", "value"), [("CSRAXIS_ENGINE", "foo"), ("CSRAXIS_CPU", "v9"), ("CSRAXIS_NUM_THREADS", "0")]
)
def test_show_config_prints_what_is_wrong_with_the_environment(name, value):
    if name == "CSRAXIS_CPU":
        engine_or_skip("cython")
    shown = run("import csraxis as cx; cx.show_config()", **{name: value})
    assert "none (" in shown
    assert value in shown
    assert "numpy" in shown


def test_numba_compiles_in_memory_where_no_cache_can_be_written():
    engine_or_skip("numba")
    script = """
        from numba.core import caching
        caching.CacheImpl._locator_classes = []  # what Numba finds in a read-only container
        import csraxis as cx, scipy.sparse as sp
        with cx.config(engine="numba"):
            print(cx.sum(sp.csr_array([[1.0, 2.0]]), axis=1))
    """
    assert run(script) == "[3.]"
