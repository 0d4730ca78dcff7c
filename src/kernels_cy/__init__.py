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
    levels = {f"x86-64-v{level}": f"v{level}" for level in range(x86_64_level(), 1, -1)} | {"generic": "base"}
    wanted = os.environ.get("CSRAXIS_CPU")
    if wanted:
        chosen = levels.get(wanted) or levels.get(f"x86-64-{wanted}")
        if not chosen:
            raise ValueError(f"CSRAXIS_CPU={wanted}: this processor can run {', '.join(levels)}")
        if not _is_built(chosen):
            raise ValueError(f"CSRAXIS_CPU={wanted}: these kernels were not compiled")
        return chosen
    for level in levels.values():
        if _is_built(level):
            return level
    raise ModuleNotFoundError(f"no kernels were compiled for any of {', '.join(levels)}", name=_ABSENT)


def _is_built(level: str) -> bool:
    return find_spec(f"{__name__}._kernels_{level}") is not None


_level = _choose()
_kernels = import_module(f"._kernels_{_level}", __name__)

cpu: str = "generic" if _level == "base" else f"x86-64-{_level}"

check_indices = _kernels.check_indices
count_major = _kernels.count_major
count_minor = _kernels.count_minor
dot_panels = _kernels.dot_panels
expm1 = _kernels.expm1
expm1_moments_minor = _kernels.expm1_moments_minor
find_minor = _kernels.find_minor
finish_moments = _kernels.finish_moments
fold_major = _kernels.fold_major
fold_minor = _kernels.fold_minor
gram_major = _kernels.gram_major
gram_panels = _kernels.gram_panels
is_canonical = _kernels.is_canonical
log1p = _kernels.log1p
match_major = _kernels.match_major
merge_moments = _kernels.merge_moments
moments_major = _kernels.moments_major
moments_minor = _kernels.moments_minor
normalize_major = _kernels.normalize_major
power_sums_minor = _kernels.power_sums_minor
scale_major = _kernels.scale_major
scale_minor = _kernels.scale_minor
sum_major = _kernels.sum_major
sum_minor = _kernels.sum_minor
take_major = _kernels.take_major
take_minor = _kernels.take_minor
top_major = _kernels.top_major
