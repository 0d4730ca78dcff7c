"""Which engine runs, on what plain arrays, in which blocks and threads; and the public array functions.

_engines      the contract of the kernels, and the two engines that meet it
_config       engine and threads of this process
_blocks       blocks of rows, the thread pool and its rules
_inputs       containers -> checked plain arrays
_moments      sums of squares that merge
_pieces       what a kernel is given: values cast to its types, a cache's worth at a time
_partials     reductions of one matrix in memory
_reductions   sum, mean, var, std, mean_var, count_nonzero
_scaling      axis_scale
_elementwise  multiply, divide, log1p, to_dense
_normalize    normalize
_lazy         the same on Dask arrays (imported when the first one comes)
"""

from ._config import config, get_config, set_config, show_config
from ._elementwise import divide, log1p, multiply, to_dense
from ._normalize import normalize
from ._reductions import count_nonzero, mean, mean_var, std, sum, var
from ._scaling import axis_scale

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
    "set_config",
    "show_config",
    "std",
    "sum",
    "to_dense",
    "var",
]
