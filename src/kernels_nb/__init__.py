"""The kernels in Numba: the same names, parameters, formulas and bits as `csraxis.kernels_cy`."""

import numba  # noqa: F401 - first, so that where both are absent it is Numba that is missed

# isort: split
from llvmlite.binding import get_host_cpu_name

from ._kernels import (
    check_indices,
    count_major,
    count_minor,
    dot_panels,
    expm1,
    expm1_moments_minor,
    find_minor,
    finish_moments,
    fold_major,
    fold_minor,
    gram_major,
    gram_panels,
    is_canonical,
    log1p,
    match_major,
    merge_moments,
    moments_major,
    moments_minor,
    normalize_major,
    power_sums_minor,
    scale_major,
    scale_minor,
    sum_major,
    sum_minor,
    take_major,
    take_minor,
    top_major,
)

__all__ = [
    "check_indices",
    "count_major",
    "count_minor",
    "dot_panels",
    "expm1",
    "expm1_moments_minor",
    "find_minor",
    "finish_moments",
    "fold_major",
    "fold_minor",
    "gram_major",
    "gram_panels",
    "is_canonical",
    "log1p",
    "match_major",
    "merge_moments",
    "moments_major",
    "moments_minor",
    "normalize_major",
    "power_sums_minor",
    "scale_major",
    "scale_minor",
    "sum_major",
    "sum_minor",
    "take_major",
    "take_minor",
    "top_major",
]

cpu: str = get_host_cpu_name()
