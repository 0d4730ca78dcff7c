"""Principal component analysis."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..dispatch._components import Components, components, project
from ..dispatch._inputs import container
from ..dispatch._select import take
from ._anndata import actual, check_mask, check_matrix, get_matrix, is_anndata, only_for_anndata, result_dtype, warn

# scanpy's names, and what csraxis does for each.
SOLVERS = {
    None: "auto",
    "auto": "auto",
    "arpack": "auto",
    "covariance_eigh": "covariance",
    "full": "covariance",
    "tsqr": "covariance",
    "randomized": "blocks",
}
DEFAULT_COMPONENTS = 50


class _Unset:
    """The default of mask_var: the highly variable genes, where var has them."""

    def __repr__(self) -> str:
        return "<var.highly_variable if present>"


_UNSET = _Unset()


def pca(
    data: Any,
    n_comps: int | None = None,
    *,
    layer: str | None = None,
    obsm: str | None = None,
    zero_center: bool = True,
    svd_solver: str | None = None,
    chunked: bool = False,
    chunk_size: int | None = None,
    random_state: Any = 0,
    return_info: bool = False,
    mask_var: Any = _UNSET,
    use_highly_variable: bool | None = None,
    dtype: DTypeLike = "float32",
    key_added: str | None = None,
    copy: bool = False,
) -> Any:
    """Principal component analysis, without making a sparse matrix dense.

    Follows `scanpy.pp.pca` (scanpy 1.12.4); the numbers are those of `sklearn.decomposition.PCA` of the dense matrix.

    Parameters
    ----------
    data : AnnData, or an array of shape (cells, genes)
        Arrays: ndarray, csr/csc array or matrix, or Dask array of these, chunked along both axes; a Dask DataFrame.
    n_comps : int, optional
        How many components. Default: 50, or one less than there are cells or genes where those are fewer.
    layer, obsm : str, optional
        The layer or obsm of an AnnData to use instead of X.
    zero_center : bool
        False: components around zero instead of the mean (a truncated singular value decomposition).
    svd_solver : str, optional
        "covariance_eigh" (also "full", "tsqr"): from the covariance matrix of the genes, or of the cells where those
        are fewer; singular values to 1e-7, of dense float32 to 1e-5, and the space to an angle of 3e-4 (1e-3).
        "randomized": block Lanczos, for more than 5,000 genes and cells; approximate: it stops when the residual of
        each component is below 1e-4 of its variance, or after 30 passes with a warning that states the residual.
        None, "auto" and "arpack": by size, one of the two.
    chunked, chunk_size : bool, int, optional
        Accepted for scanpy's sake: the work is always done block by block.
    random_state : int, RandomState or None
        Where iterative solvers start.
    return_info : bool
        For an array: return also the components and variances.
    mask_var : array of bool of shape (genes,), str or None, optional
        The genes to use, or the column of `var` that tells. Default: `var["highly_variable"]` where that is; None: all.
    use_highly_variable : bool, optional
        Deprecated by scanpy: use `mask_var`.
    dtype : dtype
        Of the scores.
    key_added : str, optional
        Where an AnnData gets the results, instead of `obsm["X_pca"]`, `varm["PCs"]` and `uns["pca"]`.
    copy : bool
        Work on a copy of an AnnData, and return it.

    Returns
    -------
    None, AnnData, array or tuple
        The scores, shape (cells, n_comps), an ndarray or lazy for Dask (whose components take one pass now). With
        `return_info` also the components (n_comps, genes), the ratio to the total variance, and the variance (n_comps,)
        over n - 1. The largest loading of each component is positive. `uns["pca"]` has `params`, `variance` and
        `variance_ratio`; with the block method also `residual`.

    Raises
    ------
    TypeError, ValueError
        For any other container, a malformed matrix, values that are not finite, or too many components.
    MemoryError
        If "covariance_eigh" is asked for and the matrix would take more than half of the memory.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.random(100, 20, 0.3, format="csr", random_state=0)
    >>> scores, components, ratio, variance = cx.pp.pca(x, 2, return_info=True)
    >>> scores.shape, components.shape
    ((100, 2), (2, 20))
    >>> bool(np.allclose(scores.var(axis=0, ddof=1), variance))
    True
    """
    method, dtype = check_solver(svd_solver), np.dtype(dtype)
    check_seed(random_state)
    if not is_anndata(data):
        only_for_anndata(layer=layer, obsm=obsm, key_added=key_added)
        # A Dask DataFrame, too, as dask-ml's PCA takes it.
        x = container(data.to_dask_array() if hasattr(data, "to_dask_array") else data, "data")
        mask = None if mask_var is _UNSET or mask_var is None else check_mask(x, mask_var, 1, "mask_var")
        x = _masked(x, mask)
        found = decompose(x, n_comps, zero_center, method, random_state)
        scores = project(x, found.axes, found.mean, dtype)
        return (scores, found.axes, ratio(found), found.variance) if return_info else scores
    if chunked and (layer is not None or obsm is not None):
        raise NotImplementedError("Cannot use `layer`/`obsm` and `chunked` at the same time.")
    check_matrix(data, layer, obsm)
    name, mask = _mask(data, mask_var, use_highly_variable, obsm)
    data = data.copy() if copy else data
    x = container(get_matrix(data, layer, obsm), "data")
    x = _masked(x, mask)
    found = decompose(x, n_comps, zero_center, method, random_state)
    is_default = isinstance(name, str) and name == "highly_variable"
    params = {"zero_center": zero_center, "use_highly_variable": is_default, "mask_var": name}
    params |= {key: value for key, value in (("layer", layer), ("obsm", obsm)) if value is not None}
    write(data, project(x, found.axes, found.mean, dtype), found, params, mask, key_added, in_uns=obsm is not None)
    return data if copy else None


def check_solver(svd_solver: str | None) -> str:
    """The method that a solver stands for; ValueError for another name."""
    if not isinstance(svd_solver, str | None) or svd_solver not in SOLVERS:
        raise ValueError(f"svd_solver must be one of {', '.join(map(repr, SOLVERS))}; got {svd_solver!r}")
    return SOLVERS[svd_solver]


def check_number(n_comps: Any, limit: int, name: str = "n_comps") -> None:
    """ValueError unless there can be so many components."""
    if not isinstance(n_comps, int | np.integer) or isinstance(n_comps, bool) or not 1 <= n_comps <= limit:
        raise ValueError(f"{name} must be an int from 1 to {limit}, got {n_comps!r}")


def check_seed(random_state: Any) -> None:
    """TypeError unless it is what NumPy's RandomState can be made of."""
    if not isinstance(random_state, int | np.integer | np.random.RandomState | None) or isinstance(random_state, bool):
        raise TypeError(f"random_state must be an int, a numpy.random.RandomState or None, got {random_state!r}")


def ratio(found: Components) -> np.ndarray:
    """Variances over the total; NaN where nothing varies."""
    with np.errstate(all="ignore"):
        return found.variance / found.total_variance


def decompose(
    x: Any, n_comps: int | None, zero_center: bool, method: str, random_state: Any, name: str = "n_comps"
) -> Components:
    """The components, after a look at the arguments; `name` is what their number is called there."""
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    result_dtype(x.dtype)
    smaller = int(np.nanmin(x.shape))  # Dask may not know how many rows there are
    if not smaller:
        raise ValueError(f"pca of nothing: the matrix has shape {x.shape}")
    if n_comps is None:
        if smaller == 1:
            raise ValueError(
                f"pca of a matrix of shape {x.shape} has one component, without variance: ask for n_comps=1"
            )
        n_comps = smaller - 1 if smaller <= DEFAULT_COMPONENTS else DEFAULT_COMPONENTS
    check_number(n_comps, smaller, name)
    found = components(x, int(n_comps), centre=zero_center, method=method, seed=random_state)
    if found.residual > 1e-4:
        warn(
            f"principal components are approximate: the residual of the worst is {found.residual:.1e} of its variance. "
            "Fewer genes, or svd_solver='covariance_eigh', give exact ones."
        )
    return found


def write(
    adata: Any,
    scores: Any,
    found: Components,
    params: dict[str, Any],
    mask: np.ndarray | None,
    key_added: str | None,
    in_uns: bool = False,
) -> None:
    """The results in obsm, varm and uns; loadings of genes that were not used are zero."""
    actual(adata)
    in_obsm, in_varm, key = ("X_pca", "PCs", "pca") if key_added is None else (key_added,) * 3
    adata.obsm[in_obsm] = scores
    loadings = found.axes.T.copy()
    info = {"params": params, "variance": found.variance, "variance_ratio": ratio(found)}
    if in_uns:
        info["components"] = loadings
    elif mask is None:
        adata.varm[in_varm] = loadings
    else:
        every = np.zeros((adata.n_vars, len(found.axes)))
        every[mask] = loadings
        adata.varm[in_varm] = every
    if found.residual:
        info["residual"] = found.residual
    adata.uns[key] = info


def _masked(x: Any, mask: np.ndarray | None) -> Any:
    """The columns in the mask; x itself where that is all of them, as after `highly_variable_genes(subset=True)`."""
    return x if mask is None or mask.all() else take(x, mask, axis=1)


def _mask(adata: Any, mask_var: Any, use_highly_variable: bool | None, obsm: str | None) -> tuple[Any, Any]:
    """The argument mask_var as scanpy records it, and the mask."""
    if obsm is not None:
        if mask_var is not _UNSET and mask_var is not None:
            raise ValueError("Argument `mask_var` is incompatible with `obsm`.")
        return None, None
    if use_highly_variable is not None:
        hint = (
            'use_highly_variable=True can be called through mask_var="highly_variable". '
            "use_highly_variable=False can be called through mask_var=None"
        )
        warn(f"Argument `use_highly_variable` is deprecated, consider using the mask argument. {hint}", FutureWarning)
        if mask_var is not _UNSET:
            raise ValueError(f"These arguments are incompatible. {hint}")
        mask_var = "highly_variable" if use_highly_variable else None
    elif mask_var is _UNSET:
        mask_var = "highly_variable" if "highly_variable" in adata.var else None
    return mask_var, None if mask_var is None else check_mask(adata, mask_var, 1, "mask_var")
