"""Which matrix of an AnnData is meant, and whether its buffer may be reused."""

import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dispatch._inputs import is_dask, is_sparse


def is_anndata(x: Any) -> bool:
    """Whether x is an AnnData; anndata is not imported to find out."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(x, anndata.AnnData)


def warn(message: str) -> None:
    """A UserWarning that points at the line which called csraxis."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("csraxis."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


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
        raise NotImplementedError("X of a backed AnnData is not supported: load it with adata.to_memory()")
    return adata.layers[layer] if layer is not None else adata.obsm[obsm] if obsm is not None else adata.X


def set_matrix(adata: Any, x: Any, layer: str | None, obsm: str | None) -> None:
    """Bind a new X, layer or obsm."""
    if layer is not None:
        adata.layers[layer] = x
    elif obsm is not None:
        adata.obsm[obsm] = x
    else:
        adata.X = x


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
    return not gc.get_freeze_count() and not _elsewhere(adata, buffer)


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
