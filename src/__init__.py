"""Sums and scales along the axes of sparse matrices, and the single-cell steps built on them.

    import csraxis as cx

Array functions, on NumPy, SciPy sparse (csr, csc) and Dask:

    sum  mean  var  std  mean_var  count_nonzero      reductions over axes
    axis_scale  normalize                             scaling along an axis
    multiply  divide  log1p  to_dense                 element by element

`cx.pp` has the single-cell steps with scanpy's names, on AnnData and arrays. `cx.config`, `set_config`, `get_config`
and `show_config` choose and show the engine (compiled or Numba) and the number of threads.

Layers, each importing only those before it: `kernels_cy` and `kernels_nb` (the loops, twice), `dispatch`, this face,
`pp`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .dispatch import (
    axis_scale,
    config,
    count_nonzero,
    divide,
    get_config,
    log1p,
    mean,
    mean_var,
    multiply,
    normalize,
    set_config,
    show_config,
    std,
    sum,
    to_dense,
    var,
)

if TYPE_CHECKING:
    from . import pp

__version__ = "0.1.0"

__all__ = [
    "axis_scale",
    "config",
    "count_nonzero",
    "divide",
    "get_config",
    "log1p",
    "mean",
    "mean_var",
    "multiply",
    "normalize",
    "pp",
    "set_config",
    "show_config",
    "std",
    "sum",
    "to_dense",
    "var",
]


def __getattr__(name: str) -> Any:
    """`pp` is loaded at its first use."""
    if name == "pp":
        return import_module(".pp", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "pp"])
