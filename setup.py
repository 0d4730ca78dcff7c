"""The extension modules and their compiler flags; everything else is in pyproject.toml.

Environment:

CSRAXIS_REQUIRE_EXT=1   a build without the compiled kernels fails (CI, releases)
CSRAXIS_PURE=1          build no kernels at all: a py3-none-any wheel, for tests of the Numba engine
CSRAXIS_LEVELS=v4       build these x86-64 levels only (comma-separated), for daily work
CSRAXIS_TRACE=1         kernels whose lines coverage can count; slow
"""

import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError

REQUIRE_EXT = os.environ.get("CSRAXIS_REQUIRE_EXT") == "1"
PURE = os.environ.get("CSRAXIS_PURE") == "1"
TRACE = os.environ.get("CSRAXIS_TRACE") == "1"

# One build for CPython 3.11 and all later ones; free-threaded Pythons and tracing have no stable interface.
ABI3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED") and not TRACE
MACROS = [("Py_LIMITED_API", "0x030B0000")] * ABI3 + [("CYTHON_TRACE_NOGIL", "1")] * TRACE

# No -ffast-math and no contraction: every CPU level must give the same bits.
GCC_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]
# gcc and clang limit x86-64-v4 to 256-bit vectors unless told otherwise.
X86_LEVELS = {
    "v2": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}

# The caller checks every argument; what a kernel must check itself is written out in it.
DIRECTIVES = {
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "binding": True,
    "embedsignature": True,
    "linetrace": TRACE,
}


def extension(name, flags):
    """One extension module of `csraxis.kernels_cy`."""
    return Extension(
        f"csraxis.kernels_cy.{name}",
        [f"src/kernels_cy/{name}.pyx"],
        extra_compile_args=flags,
        define_macros=MACROS,
        py_limited_api=ABI3,
        depends=["src/kernels_cy/_kernels.pxi"],
        optional=not REQUIRE_EXT,
    )


def is_x86_64():
    """Whether that is what is built: the Python may differ from the machine, and Apple's may be for two processors."""
    target = sysconfig.get_platform()
    if target.endswith("universal2"):
        os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")  # -march holds for one of them
        return "arm64" not in os.environ["ARCHFLAGS"]
    return target.endswith("x86_64")


def extensions():
    """A module for each x86-64 level, and a plain one on every other processor or compiler."""
    if sys.platform == "win32":
        modules = [extension("_kernels_base", ["/O2", "/fp:precise"]), extension("_cpu", [])]
    elif is_x86_64():
        levels = os.environ.get("CSRAXIS_LEVELS", ",".join(X86_LEVELS)).split(",")
        modules = [extension(f"_kernels_{level}", GCC_FLAGS + X86_LEVELS[level]) for level in levels]
        modules.append(extension("_cpu", ["-O2", "-g0"]))
    else:
        modules = [extension("_kernels_base", GCC_FLAGS), extension("_cpu", ["-O2", "-g0"])]
    return modules


class BuildKernels(build_ext):
    """build_ext on every processor; without a C compiler it builds nothing, and says so at once."""

    def finalize_options(self):
        """Use every processor unless a number was given."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        """Translate to C, and compile."""
        if not REQUIRE_EXT and not self.can_compile():
            self.warn("no C compiler that finds Python.h: csraxis gets no compiled kernels, and needs Numba")
            return
        from Cython.Build import cythonize

        translated = cythonize(self.extensions, build_dir="build/cython", compiler_directives=DIRECTIVES)
        sources = {module.name: module.sources for module in translated}
        for module in self.extensions:  # setuptools has notes of its own on these
            module.sources = sources[module.name]
        super().build_extensions()

    def can_compile(self):
        """Whether it is worth a minute of translating."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "look.c")
            source.write_text("#include <Python.h>\nint main(void) { return 0; }\n")
            try:
                self.compiler.compile([str(source)], output_dir=folder)
            except (CompileError, BaseError):  # it refuses, or is not there
                return False
        return True


setup(
    packages=["csraxis"] + ["csraxis." + package for package in find_packages("src")],
    package_dir={"csraxis": "src"},
    ext_modules=[] if PURE else extensions(),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
    cmdclass={"build_ext": BuildKernels},
)
