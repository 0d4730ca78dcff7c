"""scanpy's and scikit-learn's own functions, run on csraxis: `accelerate` and `restore`.

A replacement has the name, signature and documentation of the function that it stands for, and calls that one
(`__wrapped__`) for all that csraxis does not take: other containers and types, arguments of its own.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import mul, truediv
from typing import Any, NamedTuple

import numpy as np

from .dispatch import axis_scale, max, mean_var, min, sum
from .dispatch._inputs import check_all_indices, check_dtype, compressed, is_dask, is_sparse
from .dispatch._reductions import mean_var_in_float64
from .dispatch._scaling import is_linear

# The releases whose functions these replacements were compared with.
KNOWN = {
    "scanpy": ("1.11", "1.12"),
    "fast-array-utils": ("1.3", "1.4", "1.5"),
    "scikit-learn": ("1.5", "1.6", "1.7", "1.8", "1.9"),
}
PACKAGES = {"scanpy": ("scanpy", "fast-array-utils"), "sklearn": ("scikit-learn",)}
STEPS = (
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "highly_variable_genes",
    "log1p",
    "normalize_total",
    "pca",
    "scale",
)
ONLY_ANNDATA = ("calculate_qc_metrics", "highly_variable_genes", "normalize_total")


class Replacement(NamedTuple):
    """A function and what stands for it."""

    original: Callable[..., Any]
    ours: Callable[..., Any]


_active: dict[str, tuple[Replacement, ...]] = {}
_lock = threading.RLock()


@dataclass(frozen=True, repr=False, eq=False)
class Accelerated:
    """What `accelerate` returns: what it replaced; as a context manager it restores at the end.

    Attributes
    ----------
    package : str
        "scanpy" or "sklearn".
    versions : dict of str
        The installed versions, by distribution.
    replaced : list of str
        Dotted names that refer to csraxis's functions now.
    switched_on : bool
        False where it was on already: then the end of the `with` block leaves it on.
    """

    package: str
    versions: dict[str, str]
    replaced: list[str]
    switched_on: bool

    def __enter__(self) -> "Accelerated":
        """Itself: everything is replaced already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Put back what this call replaced."""
        if self.switched_on:
            restore(self.package)

    def __repr__(self) -> str:
        """The functions and the versions."""
        which = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        functions = sorted({name.rpartition(".")[2] for name in self.replaced})
        return f"<csraxis runs {', '.join(functions)} of {which}>"


def accelerate(package: str) -> Accelerated:
    """Run scanpy's or scikit-learn's own functions on csraxis, in this process.

    Parameters
    ----------
    package : {"scanpy", "sklearn"}
        "scanpy": `normalize_total`, `log1p`, `scale`, `highly_variable_genes`, `filter_cells`, `filter_genes`,
        `calculate_qc_metrics`, `pca` and the internal axis scale; and fast-array-utils' `sum`, `min`, `max` and
        `mean_var` (`mean` uses `sum`). "sklearn": the in-place scalings of `sklearn.utils.sparsefuncs`, and its
        `mean_variance_axis` where there are neither weights nor NaN.

    Returns
    -------
    Accelerated
        Its `replaced` lists the names that were replaced. As a context manager it puts everything back at the end, if
        this call was the one that switched csraxis on.

    Raises
    ------
    ImportError
        If the package is not installed.
    RuntimeError
        For a version of it that csraxis does not know. Nothing has been replaced then.
    ValueError
        For another package.

    Notes
    -----
    Every module of the package gets the replacements. A name that a script bound before, by `from scanpy.pp import
    log1p`, stays as it was: call this first. Calling it again changes nothing.

    Examples
    --------
    >>> import csraxis as cx
    >>> with cx.accelerate("sklearn") as accelerated:
    ...     "sklearn.utils.sparsefuncs.mean_variance_axis" in accelerated.replaced
    True
    """
    with _lock:
        versions = _versions(package)
        switch = package not in _active
        if switch:
            _active[package] = _of_scanpy(versions) if package == "scanpy" else _of_sklearn()
            _rebind(package, {id(original): ours for original, ours in _active[package]})
        return Accelerated(package, versions, _bound(package), switch)


def restore(package: str) -> None:
    """Undo `accelerate`: every name of the package refers to its own function again.

    Parameters
    ----------
    package : {"scanpy", "sklearn"}
        The package; where it was not accelerated, nothing happens.

    Raises
    ------
    ValueError
        For another package.

    Examples
    --------
    >>> import csraxis as cx
    >>> cx.restore("scanpy")
    """
    _check(package)
    with _lock:
        _rebind(package, {id(ours): original for original, ours in _active.pop(package, ())})


def _check(package: str) -> None:
    if not isinstance(package, str) or package not in PACKAGES:
        raise ValueError(f"package must be one of {', '.join(map(repr, PACKAGES))}; got {package!r}")


def _versions(package: str) -> dict[str, str]:
    """The installed version of each distribution, all of them known."""
    _check(package)
    versions = {}
    for name in PACKAGES[package]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            if name == "fast-array-utils":  # which scanpy 1.11 may do without
                continue
            raise ImportError(f"accelerate({package!r}) needs {name}: pip install {name}", name=package) from None
        if ".".join(versions[name].split(".")[:2]) not in KNOWN[name]:
            raise RuntimeError(
                f"accelerate({package!r}) knows {name} {', '.join(KNOWN[name])}; {versions[name]} is installed"
            )
    return versions


def _modules(package: str) -> list[Any]:
    """The loaded modules of its distributions."""
    tops = {name.replace("-", "_") if name != "scikit-learn" else "sklearn" for name in PACKAGES[package]}
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in tops and module]


def _rebind(package: str, to: dict[int, Callable[..., Any]]) -> None:
    """Every global of the package's modules that is one of these objects (by id) becomes another."""
    for module in _modules(package):
        names = vars(module)
        for name, value in list(names.items()):
            if id(value) in to:
                names[name] = to[id(value)]


def _bound(package: str) -> list[str]:
    """Dotted names of the replacements."""
    ours = {id(replacement.ours) for replacement in _active[package]}
    return sorted(
        {
            f"{module.__name__}.{name}"
            for module in _modules(package)
            for name, value in list(vars(module).items())
            if id(value) in ours
        }
    )


def _takes(x: Any, dense: bool = True) -> bool:
    """Whether csraxis has kernels for a matrix, in memory or of Dask chunks: csr, csc or (where asked) ndarray."""
    if is_dask(x):
        x = x._meta
    is_dense = isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)
    if not (is_sparse(x) or (dense and is_dense)) or x.dtype.kind not in "biuf":
        return False
    try:
        check_dtype(x.dtype, "x")
    except TypeError:
        return False
    return x.ndim == 2


# scanpy


def _of_scanpy(versions: dict[str, str]) -> tuple[Replacement, ...]:
    steps, pp, utils = (import_module(name) for name in ("scanpy.preprocessing", "csraxis.pp", "scanpy._utils"))
    made = []
    for name in STEPS:
        original, ours = getattr(steps, name), getattr(pp, name)
        if name in ("log1p", "scale"):
            ours = _in_place(ours)
        elif name == "pca":
            ours = _pca(ours)
        elif name == "highly_variable_genes":
            ours = _highly_variable_genes(ours)
        made.append(Replacement(original, _step(original, ours, name not in ONLY_ANNDATA)))
    made.append(Replacement(utils.axis_mul_or_truediv, _axis_mul_or_truediv(utils.axis_mul_or_truediv)))
    if "fast-array-utils" in versions:
        stats = import_module("fast_array_utils.stats")
        made += [Replacement(stats.mean_var, _mean_var(stats.mean_var))]
        made += [Replacement(getattr(stats, f.__name__), _stat(getattr(stats, f.__name__), f)) for f in (sum, min, max)]
    return tuple(made)


def _step(original: Callable[..., Any], ours: Callable[..., Any], arrays: bool) -> Callable[..., Any]:
    """A step of `scanpy.pp` that goes to csraxis where that has it."""
    signature = inspect.signature(ours)

    @wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # old ways to call it, which scanpy knows
            return original(*args, **kwargs)
        if not _takes(_matrix(arrays, **given)):
            return original(*args, **kwargs)
        try:
            return ours(*args, **kwargs)
        except NotImplementedError:
            pass
        except (TypeError, ValueError):
            # What csraxis refuses, having changed nothing, scanpy may take, or refuse in its own words. But where the
            # matrix is malformed, or genes are too few for a local regression, it may crash the process.
            if original.__name__ == "highly_variable_genes" or not _is_sound(_matrix(arrays, **given)):
                raise
        return original(*args, **kwargs)

    return step


def _matrix(
    arrays: bool,
    adata: Any = None,
    data: Any = None,
    layer: str | None = None,
    obsm: str | None = None,
    use_raw: bool = False,
    svd_solver: str | None = None,
    zero_center: bool = True,
    mask_obs: Any = None,
    **_: Any,
) -> Any:
    """The matrix that these arguments of a step name; None where they are scanpy's affair."""
    from .pp._anndata import is_anndata

    data = adata if data is None else data
    if is_anndata(data):
        if use_raw:
            x = None if data.raw is None else data.raw.X
        elif layer is not None or obsm is not None:
            place, key = (data.layers, layer) if obsm is None else (data.obsm, obsm)
            x = place.get(key)
        else:
            x = data.X
    else:
        x = data if arrays and not isinstance(mask_obs, str) else None
    if is_dask(x):
        solvers: tuple[str | None, ...] = (None, "covariance_eigh") if zero_center else (None,)
    else:
        solvers = (None, "arpack", "covariance_eigh") if zero_center else (None, "arpack")
    return x if svd_solver in solvers else None  # another one is asked for as such, or ignored with a warning


def _is_sound(x: Any) -> bool:
    """Whether a matrix in memory is well-formed; of Dask's chunks nobody knows."""
    if is_sparse(x):
        try:
            check_all_indices(compressed(x))
        except ValueError:
            return False
    return not is_dask(x)


def _in_place(ours: Callable[..., Any]) -> Callable[..., Any]:
    """A step that writes floats into the array that it is given, as scanpy's do, unless it is asked for a copy."""

    @wraps(ours)
    def step(data: Any, *, copy: bool = False, **options: Any) -> Any:
        result = ours(data, copy=copy, **options)
        dense = isinstance(data, np.ndarray) and isinstance(result, np.ndarray)
        if copy or is_dask(data) or not (dense or type(result) is type(data)):
            return result
        if result.dtype != data.dtype.newbyteorder("="):
            return result
        if dense:
            np.copyto(data, result)  # no assignment: an AnnData's view would make its AnnData a copy
        else:
            data.data, data.indices, data.indptr = result.data, result.indices, result.indptr
        return data

    return step


def _pca(ours: Callable[..., Any]) -> Callable[..., Any]:
    """`pca` but for what only scanpy does: a default of its own, and centring in chunks whatever is asked for."""
    from .pp._pca import DEFAULT_COMPONENTS

    settings = import_module("scanpy").settings

    @wraps(ours)
    def step(data: Any, n_comps: int | None = None, **options: Any) -> Any:
        if n_comps is None and settings.N_PCS != DEFAULT_COMPONENTS:
            raise NotImplementedError("sc.settings.N_PCS")
        if options.get("chunked") and not options.get("zero_center", True):
            raise NotImplementedError("scanpy ignores zero_center then")
        return ours(data, n_comps, **options)

    return step


def _highly_variable_genes(ours: Callable[..., Any]) -> Callable[..., Any]:
    """The same with strings in `obs` made categorical where scanpy does: scripts go on with `adata.obs[key].cat`."""
    sanitize = import_module("scanpy._utils").sanitize_anndata

    @wraps(ours)
    def step(adata: Any, *, flavor: str = "seurat", batch_key: str | None = None, **options: Any) -> Any:
        if batch_key is not None and flavor in ("seurat", "cell_ranger"):
            sanitize(adata)
        return ours(adata, flavor=flavor, batch_key=batch_key, **options)

    return step


def _axis_mul_or_truediv(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def axis_mul_or_truediv(
        x: Any,
        /,
        scaling_array: Any,
        axis: int,
        op: Callable[..., Any],
        *,
        allow_divide_by_zero: bool = True,
        out: Any = None,
    ) -> Any:
        divide, skip_zeros = op is truediv, op is truediv and not allow_divide_by_zero
        good = _takes(x, dense=False) and x.dtype.kind == "f" and op in (mul, truediv) and axis in (0, 1)
        good = good and isinstance(scaling_array, np.ndarray) and scaling_array.dtype.kind in "biuf"
        if good and out is not None:
            good = out is x and not is_dask(x) and (skip_zeros or is_linear(scaling_array, divide))
        if not good:
            return original(x, scaling_array, axis, op, allow_divide_by_zero=allow_divide_by_zero, out=out)
        return axis_scale(
            x,
            np.ravel(scaling_array),
            axis=axis,
            op="divide" if divide else "multiply",
            out=out,
            zero_division="one" if skip_zeros else "ieee",
        )

    return axis_mul_or_truediv


# fast-array-utils


def _stat(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction of sparse matrices; dense ones are NumPy's."""

    @wraps(original)
    def stat(x: Any, /, *, axis: Any = None, **options: Any) -> Any:
        reduces = _takes(x, dense=False) and (axis is None or axis in (0, 1))
        reduces = reduces and options.keys() <= {"dtype", "keep_cupy_as_array"}
        dtype = {"dtype": options["dtype"]} if options.get("dtype") is not None else {}
        try:
            return (ours if reduces else original)(x, axis=axis, **(dtype if reduces else options))
        except TypeError:  # a type that csraxis does not add in
            if not reduces:
                raise
            return original(x, axis=axis, **options)

    return stat


def _mean_var(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def mean_var(x: Any, /, *, axis: int | None = None, correction: int = 0) -> Any:
        if not _takes(x) or not (axis is None or axis in (0, 1)):
            return original(x, axis=axis, correction=correction)
        n = x.size if axis is None else x.shape[axis]
        return mean_var_in_float64(x, axis, 0 if n == 1 else correction)

    return mean_var


# scikit-learn


def _of_sklearn() -> tuple[Replacement, ...]:
    sparsefuncs = import_module("sklearn.utils.sparsefuncs")
    made = [Replacement(sparsefuncs.mean_variance_axis, _mean_variance_axis(sparsefuncs.mean_variance_axis))]
    for kind, formats in (("", ("csr", "csc")), ("csr_", ("csr",))):
        for axis, which in enumerate(("row", "column")):
            original = getattr(sparsefuncs, f"inplace_{kind}{which}_scale")
            made.append(Replacement(original, _inplace_scale(original, axis, formats)))
    return tuple(made)


def _inplace_scale(original: Callable[..., Any], axis: int, formats: tuple[str, ...]) -> Callable[..., Any]:
    @wraps(original)
    def inplace_scale(X: Any, scale: Any) -> None:
        good = _takes(X, dense=False) and not is_dask(X) and X.dtype.kind == "f" and X.format in formats
        good = good and isinstance(scale, np.ndarray) and scale.dtype.kind in "biuf"
        if good and scale.shape == X.shape[axis : axis + 1] and is_linear(scale, False):
            axis_scale(X, scale, axis=axis, out=X)
        else:
            original(X, scale)

    return inplace_scale


def _mean_variance_axis(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def mean_variance_axis(X: Any, axis: int, weights: Any = None, return_sum_weights: bool = False) -> Any:
        if weights is None and axis in (0, 1) and _takes(X, dense=False) and not is_dask(X):
            mean, var = mean_var(X, axis=axis)
            if not np.isnan(var).any():  # NaN are to be skipped, and inf gives NaN, too
                n = np.full_like(mean, X.shape[axis])
                return (mean, var, n) if return_sum_weights else (mean, var)
        return original(X, axis, weights=weights, return_sum_weights=return_sum_weights)

    return mean_variance_axis
