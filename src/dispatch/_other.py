"""Arrays of other libraries (JAX, PyTorch, array-api-strict, ...): handed to their own array API namespace.

What the standard does not have is put together from what it has.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from ._inputs import ACCEPTED, SPARSE, check_options, check_order, is_backed, is_dask, one_axis

_OURS = (*SPARSE, np.ndarray, np.generic, int, float)

Function = TypeVar("Function", bound=Callable[..., Any])


def delegated(function: Function) -> Function:
    """The function; its counterpart here, where the first argument (or one of a pair) is another library's array."""
    name = function.__name__

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for x in args[:2]:
            if not isinstance(x, _OURS) and is_other(x):
                with np.errstate(all="ignore"):
                    return FUNCTIONS.get(name, partial(_standard, name))(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def is_other(x: Any) -> bool:
    """Whether x is an array of another library, which has an array API namespace of its own."""
    return not isinstance(x, _OURS) and is_array_api_obj(x) and not (is_dask(x) or is_backed(x))


def _standard(name: str, *args: Any, out: Any = None, **kwargs: Any) -> Any:
    """The function of that name in the array's own namespace."""
    _no_out(out)
    return getattr(_namespace(name, *args), name)(*args, **kwargs)


def _namespace(name: str, *args: Any) -> Any:
    try:
        return array_namespace(*args)
    except TypeError as error:
        kinds = " and ".join(type(x).__name__ for x in args)
        raise TypeError(f"{name} takes arrays of one library; got {kinds}. Accepted: {ACCEPTED}") from error


def _mean(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    xp = array_namespace(x)
    return xp.mean(x if dtype is None else xp.astype(x, dtype), axis=axis, keepdims=keepdims)


def _mean_var(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> tuple[Any, Any]:
    xp = array_namespace(x)
    return xp.mean(x, axis=axis, keepdims=keepdims), xp.var(x, axis=axis, correction=correction, keepdims=keepdims)


def _count_nonzero(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    xp = array_namespace(x)
    return xp.sum(xp.astype(x != 0, xp.int64), axis=axis, keepdims=keepdims)


def _axis_scale(
    x: Any, factors: Any, /, *, axis: int, op: str = "multiply", out: Any = None, zero_division: str = "ieee"
) -> Any:
    _no_out(out)
    check_options(op, zero_division)
    xp = _namespace("axis_scale", x, factors)
    axis = one_axis(axis, x.ndim)
    shape = tuple(n if i == axis else 1 for i, n in enumerate(x.shape))
    if tuple(factors.shape) not in ((x.shape[axis],), shape):
        raise ValueError(f"factors must have shape ({x.shape[axis]},) or {shape}; got {factors.shape}")
    if zero_division == "one":
        factors = xp.where(factors == 0, xp.ones_like(factors), factors)
    factors = xp.reshape(factors, shape)
    result = xp.multiply(x, factors) if op == "multiply" else xp.divide(x, factors)
    return xp.astype(result, x.dtype) if xp.isdtype(x.dtype, "real floating") else result


def _normalize(
    x: Any, /, *, axis: int = 1, target_sum: float | None = None, log1p: bool = False, out: Any = None
) -> Any:
    from ._normalize import check_target, median_of_positive

    _no_out(out)
    check_target(target_sum)
    axis = one_axis(axis)
    xp = _real_matrix("normalize", x)
    x = x if xp.isdtype(x.dtype, "real floating") else xp.astype(x, xp.float64)
    totals = xp.sum(x, axis=axis, keepdims=True)
    if target_sum is None:
        target_sum = median_of_positive(np.from_dlpack(totals))
    ones = xp.ones_like(totals)
    result = x * xp.where(totals == 0, ones, target_sum / xp.where(totals == 0, ones, totals))
    return xp.log1p(result) if log1p else result


def _gram(x: Any, /, *, dtype: Any = None, max_bytes: float | None = None) -> Any:
    from ._gram import check_size

    xp = _real_matrix("gram", x)
    dtype = xp.float64 if dtype is None else dtype
    if dtype not in (xp.float32, xp.float64):
        raise TypeError(f"dtype of a Gram matrix must be float32 or float64 of x's own namespace; got {dtype}")
    check_size(x.shape[1], max_bytes)
    x = xp.astype(x, xp.float64)
    return xp.astype(xp.matmul(xp.matrix_transpose(x), x), dtype)


def _to_dense(x: Any, /, *, order: str = "C") -> Any:
    check_order(order)
    return x


def _real_matrix(function: str, x: Any) -> Any:
    """The namespace of x, if x is 2-D and real."""
    xp = array_namespace(x)
    if x.ndim != 2:
        raise ValueError(f"{function} needs a 2-D x; got shape {x.shape}")
    if xp.isdtype(x.dtype, "complex floating"):
        raise TypeError(f"{function} takes real numbers; got x of dtype {x.dtype}")
    return xp


def _no_out(out: Any) -> None:
    if out is not None:
        raise ValueError("out is not supported for arrays of other libraries")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "mean": _mean,
    "mean_var": _mean_var,
    "count_nonzero": _count_nonzero,
    "axis_scale": _axis_scale,
    "normalize": _normalize,
    "gram": _gram,
    "to_dense": _to_dense,
}
