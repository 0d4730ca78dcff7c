"""Which engine runs, on what plain arrays, in which blocks and threads; and the public array functions.

_engines      the contract of the kernels, and the two engines that meet it
_config       engine and threads of this process
_blocks       blocks of rows, the thread pool and its rules
_inputs       containers -> checked plain arrays
_backed       sparse datasets on disk, block by block
_moments      sums of squares that merge
_pieces       what a kernel is given: values cast to its types, a cache's worth at a time
_partials     sums, counts and moments of one matrix in memory
_folds        its products, extremes and largest elements
_reductions   sum, prod, mean, var, std, mean_var, max, min, any, all, count_nonzero
_scaling      axis_scale
_elementwise  log1p, expm1, sqrt, square, abs, negative, sign, to_dense
_binary       multiply, divide
_normalize    normalize
_gram         gram
_select       rows and columns taken out
_narrow       rows of counts in three bytes a stored value
_lazy         the same on Dask arrays (imported when the first one comes)
_chunks       a function of chunks as one of Dask arrays
_graphs       passes over Dask arrays: what one task does, and on which worker
_other        arrays of other libraries, which go to their own namespace
"""

from ._binary import divide, multiply
from ._config import config, get_config, set_config, show_config
from ._elementwise import abs, expm1, log1p, negative, sign, sqrt, square, to_dense
from ._gram import gram
from ._normalize import normalize
from ._reductions import all, any, count_nonzero, max, mean, mean_var, min, prod, std, sum, var
from ._scaling import axis_scale

__all__ = [
    "abs",
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
    "prod",
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
