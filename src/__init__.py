"""Sums and scales along the axes of sparse matrices, and the single-cell steps built on them.

    import csraxis as cx

Array functions, with the signatures of the array API standard:

    sum prod mean var std mean_var max min            reductions over axes
    any all count_nonzero
    axis_scale normalize                              scaling along an axis
    multiply divide                                   element by element
    log1p expm1 sqrt square abs negative sign
    gram to_dense                                     to dense arrays

They take NumPy arrays, SciPy sparse arrays and matrices (csr and csc as they are, others converted), Dask arrays of
these, and anndata's sparse datasets on disk. Arrays of other libraries (JAX, PyTorch, ...) go to their own namespace.

`cx.pp` has the single-cell steps with scanpy's names, on AnnData and arrays; `cx.sklearn` has some of them as
scikit-learn estimators. `cx.config`, `set_config`, `get_config` and `show_config` choose and show the engine (compiled
or Numba) and the number of threads. `cx.accelerate` runs scanpy's and scikit-learn's own functions on csraxis,
`cx.restore` undoes that.

Layers, each importing only those before it: `kernels_cy` and `kernels_nb` (the loops, twice), `dispatch`, this face,
`io`, `pp`, `sklearn`, `cli` (the command `csraxis`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .accelerate import accelerate, restore
from .dispatch import (
    abs,
    all,
    any,
    axis_scale,
    config,
    count_nonzero,
    divide,
    expm1,
    get_config,
    gram,
    log1p,
    max,
    mean,
    mean_var,
    min,
    multiply,
    negative,
    normalize,
    prod,
    set_config,
    show_config,
    sign,
    sqrt,
    square,
    std,
    sum,
    to_dense,
    var,
)

if TYPE_CHECKING:
    from . import pp
    from . import sklearn as sklearn

__version__ = "0.1.0"

__all__ = [
    "abs",
    "accelerate",
    "all",
    "any",
    "axis_scale",
    "config",
    "count_nonzero",
    "divide",
    "expm1",
    "get_config",
    "gram",
    "log1p",
    "max",
    "mean",
    "mean_var",
    "min",
    "multiply",
    "negative",
    "normalize",
    "pp",
    "prod",
    "restore",
    "set_config",
    "show_config",
    "sign",
    "sqrt",
    "square",
    "std",
    "sum",
    "to_dense",
    "var",
]


def __getattr__(name: str) -> Any:
    """`pp` and `sklearn` are loaded at their first use."""
    if name in ("pp", "sklearn"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "pp", "sklearn"])
