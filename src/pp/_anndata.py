"""Which matrix of an AnnData is meant, whether its buffer may be reused, and how it is cut down."""

import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dispatch._inputs import container, is_dask, is_sparse
from ..dispatch._select import take


def is_anndata(x: Any) -> bool:
    """Whether x is an AnnData; anndata is not imported to find out."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(x, anndata.AnnData)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the line which called csraxis, if need be through scikit-learn."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("csraxis.", "sklearn.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def actual(adata: Any) -> None:
    """Make a view a copy of its own, with a warning, as scanpy does: its parent must not change."""
    if adata.is_view:
        warn("Received a view of an AnnData. Making a copy.")
        adata._init_as_actual(adata.copy())


def get_matrix(adata: Any, layer: str | None, obsm: str | None) -> Any:
    """X, or the layer or obsm that was named."""
    if layer is not None and obsm is not None:
        raise ValueError("Only one of `layer`, or `obsm` can be specified.")
    if adata.isbacked and layer is None and obsm is None:
        raise NotImplementedError(
            "X of a backed AnnData is not supported: use csraxis.pp.open(path), or load it with adata.to_memory()"
        )
    return adata.layers[layer] if layer is not None else adata.obsm[obsm] if obsm is not None else adata.X


def set_matrix(adata: Any, x: Any, layer: str | None, obsm: str | None) -> None:
    """Bind a new X, layer or obsm."""
    if layer is not None:
        adata.layers[layer] = x
    elif obsm is not None:
        adata.obsm[obsm] = x
    else:
        adata.X = x


def check_matrix(adata: Any, layer: str | None, obsm: str | None) -> None:
    """TypeError unless the matrix is one of real numbers that csraxis takes: before anything has changed."""
    place = "adata.X" if layer is obsm is None else f"layer {layer!r}" if obsm is None else f"obsm {obsm!r}"
    x = get_matrix(adata, layer, obsm)
    if hasattr(x, "iloc"):
        raise TypeError(f"{place} is a DataFrame: give its numbers, to_numpy(), a place of their own")
    result_dtype(container(x, place).dtype)


def result_dtype(dtype: np.dtype) -> np.dtype:
    """Floats stay, everything else becomes float32, as in scanpy."""
    if dtype.kind == "c":
        raise TypeError(f"counts must be real numbers; got {dtype}")
    return dtype.newbyteorder("=") if dtype.kind == "f" else np.dtype(np.float32)


def only_for_anndata(**arguments: Any) -> None:
    """TypeError if one of the arguments was given."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise TypeError(f"Arguments {given} are only valid if an AnnData object is passed.")


def check_mask(x: Any, mask: Any, axis: int, name: str) -> np.ndarray:
    """A boolean mask of the rows (axis=0) or columns of a matrix or AnnData, or the column of obs or var so named."""
    frame = "obs" if axis == 0 else "var"
    if isinstance(mask, str):
        if not is_anndata(x):
            raise ValueError(f"{name}={mask!r} names a column, which needs an AnnData")
        if mask not in getattr(x, frame):
            raise ValueError(
                f"Did not find `adata.{frame}[{mask!r}]`. Either add the mask first to `adata.{frame}` or consider "
                f"using the {name} argument with an array."
            )
        mask = getattr(x, frame)[mask]
    if np.isnan(x.shape[axis]):
        raise ValueError(
            f"{name} cannot be matched to chunks of unknown size: call compute_chunk_sizes() on them first"
        )
    mask = np.asarray(mask)
    if mask.dtype == object and all(isinstance(value, bool | np.bool_) for value in mask):
        mask = mask.astype(bool)
    if mask.dtype != bool:
        raise ValueError(f"{name} must be boolean (a mask array), got {mask.dtype}")
    if mask.shape != (x.shape[axis],):
        raise ValueError(f"The shape of the mask {name} {mask.shape} does not match the data {x.shape}")
    return mask


class Subset:
    """Some of the cells (axis=0) or genes of an AnnData.

    Its sparse and Dask matrices are cut by csraxis, when this is made: what fails then has changed nothing. The rest is
    cut by anndata.
    """

    def __init__(self, adata: Any, keep: np.ndarray, axis: int) -> None:
        self.adata, self.keep, self.axis = adata, keep, axis
        self.order = list(adata.layers)
        matrices = {None: adata.X, **adata.layers}
        self.before = {name: matrix for name, matrix in matrices.items() if is_sparse(matrix) or is_dask(matrix)}
        self.after = {name: take(matrix, keep, axis) for name, matrix in self.before.items()}

    def apply(self) -> None:
        """Cut the AnnData down; if anndata fails, its matrices are still there."""
        adata, matrices = self.adata, self.before
        for name in matrices:
            if name is None:
                adata.X = None
            else:
                del adata.layers[name]
        try:
            (adata._inplace_subset_var if self.axis else adata._inplace_subset_obs)(self.keep)
            matrices = self.after
        finally:
            for name, matrix in matrices.items():
                set_matrix(adata, matrix, name, None)
            for name in self.order:  # as it was
                adata.layers[name] = adata.layers.pop(name)


def reusable(adata: Any, layer: str | None, obsm: str | None, dtype: np.dtype) -> bool:
    """Whether the matrix's buffer can take the result: of its dtype, writable, and nobody else's.

    Layers, obsm and raw often share it (`adata.raw = adata`, `adata.layers["counts"] = adata.X`), and so may another
    AnnData. Only where something else refers to the buffer are all AnnData objects of the process looked at.
    """
    x = get_matrix(adata, layer, obsm)
    if is_dask(x):
        return False
    referred = sys.getrefcount(x) > _LONE + 1  # the other reference is the AnnData's
    buffer = x.data if is_sparse(x) else x
    referred |= is_sparse(x) and sys.getrefcount(buffer) > _LONE + 1  # the other is the matrix's
    if buffer.dtype != dtype or not buffer.flags.writeable:
        return False
    if is_sparse(x) and not buffer.flags.c_contiguous:
        return False
    if any(np.may_share_memory(buffer, other) for other in _buffers(adata, skip=("layer", layer, "obsm", obsm))):
        return False
    if not (referred or _base_is_referred_to(buffer)):
        return True
    # After gc.freeze() the others cannot be listed.
    return gc.get_freeze_count() < _FROZEN and not _elsewhere(adata, buffer)


def lone(adata: Any, layer: str | None, obsm: str | None) -> bool:
    """Whether nothing but the AnnData refers to the matrix: then a new one in its place may have its indices."""
    return sys.getrefcount(get_matrix(adata, layer, obsm)) <= _LONE


# gc.freeze() freezes all objects, of which a process with AnnData has a hundred thousand; Python 3.12 starts with 375.
_FROZEN = 2_000


def _references_of_a_variable() -> int:
    x = object()
    return sys.getrefcount(x)


# What getrefcount says of an object that one variable refers to: 2, or less where Python lends it the reference (3.14).
_LONE = _references_of_a_variable()


def _base_is_referred_to(array: np.ndarray) -> bool:
    """Whether anything but this view may use the memory of the arrays that it is a view of."""
    while array.base is not None:
        array = array.base
        if not isinstance(array, np.ndarray) or sys.getrefcount(array) > _LONE + 1:  # the other is the view's
            return True
    return False


def _elsewhere(adata: Any, buffer: np.ndarray) -> bool:
    """Whether another AnnData of the process holds the buffer."""
    kind = sys.modules["anndata"].AnnData
    others = [other for other in gc.get_objects() if issubclass(type(other), kind) and other is not adata]
    return any(
        np.may_share_memory(buffer, its_buffer)
        for other in others
        if hasattr(other, "layers") and not other.is_view  # without: one whose construction failed
        for its_buffer in _buffers(other)
    )


def _buffers(adata: Any, skip: tuple[Any, ...] = ()) -> Iterator[np.ndarray]:
    """The value buffers of all matrices of an AnnData, but for that of the layer or obsm, or X, to skip."""
    _, layer, _, obsm = skip or (None, None, None, None)
    matrices = [matrix for key, matrix in adata.layers.items() if key != layer]
    matrices += [matrix for key, matrix in adata.obsm.items() if key != obsm]
    for group in (adata.varm, adata.obsp, adata.varp):
        matrices += group.values()
    if adata.raw is not None and not adata.isbacked:
        matrices.append(adata.raw.X)
    if not adata.isbacked and (not skip or layer is not None or obsm is not None):
        matrices.append(adata.X)
    for matrix in matrices:
        if hasattr(matrix, "iloc"):  # a DataFrame: to_numpy() of the whole may be a copy
            yield from (matrix.iloc[:, column].to_numpy() for column in range(matrix.shape[1]))
        else:
            data = getattr(matrix, "data", None) if hasattr(matrix, "format") else matrix
            if isinstance(data, np.ndarray):
                yield data
