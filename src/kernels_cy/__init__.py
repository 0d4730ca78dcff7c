"""The compiled kernels, at the best CPU level that this processor has: same names and bits as `csraxis.kernels_nb`.

Importing this package raises ModuleNotFoundError where no kernels were compiled for this processor.
"""

import os
from importlib import import_module
from importlib.util import find_spec

from ._cpu import x86_64_level

_ABSENT = f"{__name__}._kernels"


def _choose() -> str:
    """The level to load: CSRAXIS_CPU, or the highest that was built and that the processor has."""
    highest = x86_64_level()
    runnable = [f"v{level}" for level in range(highest, 1, -1)] or ["base"]
    wanted = os.environ.get("CSRAXIS_CPU")
    if wanted and wanted != "generic":
        level = wanted.removeprefix("x86-64-")
        if level not in runnable:
            raise ValueError(
                f"CSRAXIS_CPU={wanted}: this processor can run "
                + ", ".join(f"x86-64-{level}" for level in runnable if level != "base")
            )
        runnable = [level]
    for level in runnable:
        if find_spec(f"{__name__}._kernels_{level}"):
            return level
    raise ModuleNotFoundError(f"no kernels were compiled for any of {runnable}", name=_ABSENT)


_level = _choose()
_kernels = import_module(f"._kernels_{_level}", __name__)

cpu: str = "generic" if _level == "base" else f"x86-64-{_level}"

check_indices = _kernels.check_indices
count_major = _kernels.count_major
count_minor = _kernels.count_minor
log1p = _kernels.log1p
moments_major = _kernels.moments_major
moments_minor = _kernels.moments_minor
normalize_major = _kernels.normalize_major
scale_major = _kernels.scale_major
scale_minor = _kernels.scale_minor
sum_major = _kernels.sum_major
sum_minor = _kernels.sum_minor
