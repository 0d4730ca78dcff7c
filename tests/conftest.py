"""Fixtures: every test that takes `engine` runs once with each engine."""

import os
import random

# The suite runs in several processes: with threads of their own for BLAS they would get in each other's way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest

import csraxis as cx

hypothesis.settings.register_profile("default", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
# For the suite once more: on another installation, with one engine.
hypothesis.settings.register_profile("again", deadline=None, max_examples=10, derandomize=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
hypothesis.settings.load_profile(PROFILE)
LONG, AGAIN = PROFILE == "long", PROFILE == "again"
# What does not depend on how csraxis was installed, or is run there as a command.
_ELSEWHERE = ["test_bench*.py", "test_dask.py", "test_docs.py", "test_pp_scanpy.py", "test_variance.py"]
collect_ignore_glob = _ELSEWHERE if AGAIN else []

# Of each test's sets of parameters. All run on the platforms of .github/workflows/tests.yml; other wheels get these.
AGAIN_AT_MOST = 8


@pytest.hookimpl(trylast=True)  # of those that -k and -m leave
def pytest_collection_modifyitems(config, items):
    """Once more: a few parameter sets of each test, the same ones each time."""
    if AGAIN:
        sets = {}
        for item in items:
            sets.setdefault(item.nodeid.partition("[")[0], []).append(item)
        for name, of in sets.items():
            chosen = random.Random(name).sample(range(len(of)), min(len(of), AGAIN_AT_MOST))
            sets[name] = [of[i] for i in sorted(chosen)]
        kept = {id(item) for of in sets.values() for item in of}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]


ENGINES = ("cython", "numba")
# Engines that must be there: CI sets it, so that a missing one fails instead of being skipped.
REQUIRED = os.environ.get("CSRAXIS_REQUIRE_ENGINES", "").replace(",", " ").split()


def engine_or_skip(name):
    """The engine's kernels; the test is skipped if it is not installed (and not required)."""
    from csraxis.dispatch import _engines

    try:
        return _engines.load(name)
    except _engines.EngineAbsent as error:
        if name in REQUIRED:
            raise
        pytest.skip(str(error))


@pytest.fixture(params=ENGINES)
def engine(request):
    """Run the test with this engine."""
    engine_or_skip(request.param)
    with cx.config(engine=request.param):
        yield request.param
