"""The chain from counts to principal components, in as few passes as can be."""

from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..dispatch._inputs import container, is_dask
from ..dispatch._normalize import check_target, median_of_positive, normalize_to, row_totals
from ..dispatch._rows import fold
from ..dispatch._select import take
from ..io import open
from . import _hvg, _pca, _scale
from ._anndata import actual, check_matrix, get_matrix, is_anndata, only_for_anndata, result_dtype
from ._hvg import Batches, Stats
from ._normalize import highly_expressed, totals_of, warn_if_logged

# What is measured of the genes: the counts themselves, normalised, or normalised and logged.
MEASURED = {"seurat": "normalised", "cell_ranger": "logged", "seurat_v3": "counts", "seurat_v3_paper": "counts"}


class Chain(NamedTuple):
    """What the chain found."""

    genes: Any
    """DataFrame: which genes were chosen, and why."""
    mean: np.ndarray
    """Of the chosen genes, before scaling."""
    std: np.ndarray
    found: Any
    scores: np.ndarray
    target: float


def recipe_pca(
    data: Any,
    *,
    target_sum: float | None = 1e4,
    exclude_highly_expressed: bool = False,
    max_fraction: float = 0.05,
    n_top_genes: int | None = 2000,
    flavor: str = "seurat",
    n_bins: int = 20,
    span: float = 0.3,
    batch_key: str | None = None,
    filter_unexpressed_genes: bool = False,
    zero_center: bool = True,
    max_value: float | None = 10,
    n_comps: int | None = 50,
    svd_solver: str | None = None,
    random_state: Any = 0,
    dtype: DTypeLike = "float32",
    layer: str | None = None,
    key_added: str | None = None,
    chunk_rows: int | None = None,
    copy: bool = False,
    return_info: bool = False,
) -> Any:
    """From counts to principal components: normalise, log1p, choose genes, scale, PCA.

    The result is that of `normalize_total`, `log1p`, `highly_variable_genes`, `scale` and `pca` one after the other,
    but the matrix is read twice only: for the statistics of the genes, and for the genes chosen. (The seurat_v3
    flavours read it three times; the median target and `exclude_highly_expressed` once more each, and so does a matrix
    that is chunked along genes alone, as CSC files are.) The genes chosen are kept in memory, about a tenth of the
    data, and everything after works on them. The counts are not changed.

    Parameters
    ----------
    data : AnnData, path, or an array of shape (cells, genes)
        Counts: an AnnData in memory or over Dask, a `.h5ad` or `.zarr` path (see `open`), ndarray, csr/csc array or
        matrix, or Dask array of these.
    target_sum, exclude_highly_expressed, max_fraction
        See `normalize_total`; here the default target is 10,000.
    n_top_genes, flavor, n_bins, span, batch_key, filter_unexpressed_genes
        See `highly_variable_genes`; here 2,000 genes are chosen by default.
    zero_center : bool
        Whether `max_value` clips after the mean was subtracted (True) or before. Either way sparse columns stay sparse,
        and the components are those around the mean.
    max_value : float, optional
        Where scaled values are clipped.
    n_comps, svd_solver, random_state, dtype, key_added
        See `pca`.
    layer : str, optional
        The layer of an AnnData that has the counts.
    chunk_rows : int, optional
        For a path: see `open`.
    copy : bool
        Work on a copy of an AnnData, and return it.
    return_info : bool
        For an array: return also the components, with zeros for genes that were not chosen, and the variances.

    Returns
    -------
    None, AnnData, array or tuple
        An AnnData gets the columns of `highly_variable_genes`, `var["mean"]` and `var["std"]` (NaN for genes that were
        not chosen), and the scores (cells, n_comps), loadings and variances as from `pca`, all in memory. For a path
        the AnnData is returned, for an array as from `pca`.

    Raises
    ------
    TypeError, ValueError
        For any other container or argument, a malformed matrix, or one with columns in chunks of unknown size.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.csr_matrix(np.random.default_rng(0).poisson(1, (100, 30)))
    >>> cx.pp.recipe_pca(x, n_top_genes=10, n_comps=3).shape
    (100, 3)
    """
    check_target(target_sum)
    if flavor not in MEASURED:
        raise ValueError(f"flavor must be one of {', '.join(map(repr, MEASURED))}; got {flavor!r}")
    if not 0 <= max_fraction <= 1:
        raise ValueError(f"max_fraction must be between 0 and 1, got {max_fraction!r}")
    _scale.check_max(max_value)
    _hvg.check_top(n_top_genes)
    method, dtype = _pca.check_solver(svd_solver), np.dtype(dtype)
    if isinstance(n_comps, int) and isinstance(n_top_genes, int) and n_comps > n_top_genes:
        raise ValueError(f"n_comps ({n_comps}) must not be larger than n_top_genes ({n_top_genes})")
    if flavor.startswith("seurat_v3"):
        _hvg.local_regression()  # before anything is read
    is_path = isinstance(data, str | PathLike)
    if not is_path and chunk_rows is not None:
        raise TypeError("chunk_rows is for a path; what was given has its chunks already")
    data = open(data, chunk_rows=chunk_rows) if is_path else data
    if is_anndata(data):
        check_matrix(data, layer, None)
        if layer is None:
            warn_if_logged(data)
        x = container(get_matrix(data, layer, None), "data")
    else:
        only_for_anndata(layer=layer, batch_key=batch_key, key_added=key_added)
        x = container(data, "data")
        if x.ndim != 2:
            raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
        result_dtype(x.dtype)
    batches = _hvg.batches_of(data, batch_key, x.shape[0])
    totals, target, stats = _first_passes(
        x, target_sum, max_fraction if exclude_highly_expressed else None, MEASURED[flavor], batches
    )
    names = data.var_names if is_anndata(data) else None
    genes = _hvg.choose(
        x, stats, batches, names, flavor, n_top_genes, _hvg.CUTOFFS, n_bins, span, not filter_unexpressed_genes
    )
    chosen = genes["highly_variable"].to_numpy()
    selected = _selected(x, chosen, totals, target)
    mean, std = _scale.mean_and_std(selected)
    scaled = _scaled(selected, mean, std, max_value, zero_center)
    found = _pca.decompose(scaled, n_comps, True, method, random_state)
    scores = _pca.project(scaled, found, dtype)
    scores = scores.compute() if is_dask(scores) else scores
    if not is_anndata(data):
        axes = np.zeros((len(found.axes), x.shape[1]))
        axes[:, chosen] = found.axes
        return (scores, axes, found.variance / found.total_variance, found.variance) if return_info else scores
    data = data.copy() if copy else data
    actual(data)
    _hvg.write(data, genes, flavor)
    for name, values in (("mean", mean), ("std", std)):
        column = np.full(data.n_vars, np.nan)
        column[chosen] = values
        data.var[name] = column
    params = {"zero_center": True, "use_highly_variable": True, "mask_var": "highly_variable"}
    params |= {"layer": layer} if layer is not None else {}
    _pca.write(data, scores, found, params, chosen, key_added)
    return data if copy or is_path else None


def _first_passes(
    x: Any, target: float | None, max_fraction: float | None, measured: str, batches: Batches | None
) -> tuple[np.ndarray, float, Stats]:
    """The total of each cell, the target, and what is needed to choose genes."""
    kept = None
    if max_fraction is not None:
        (found,) = fold(x, partial(_excluded, max_fraction=max_fraction), _any, whole=True)
        kept = ~found
    n_batches = None if batches is None else len(batches.names)
    codes = [] if batches is None else [batches.codes]
    block = partial(_measure, measured=measured, n_batches=n_batches)
    # Where all cells are in one row of several chunks, a block of whole rows would be the whole matrix.
    cut_by_genes = is_dask(x) and x.numblocks[0] == 1 < x.numblocks[1]
    if target is not None and not cut_by_genes:
        block = partial(block, kept=kept, target=float(target))
        ((totals, stats),) = fold(x, block, _merge_first, rows=codes, whole=True)
        return totals, float(target), stats
    parts = fold(x, _totals_block, _concatenate_rows, columns=[] if kept is None else [kept])
    totals = np.sum(parts, axis=0)
    target = median_of_positive(totals) if target is None else float(target)
    block = partial(block, kept=None, target=target)
    parts = fold(x, block, _merge_first, rows=[*codes, totals])
    return totals, target, _hvg.join([stats for _, stats in parts])


def _excluded(block: Any, max_fraction: float) -> np.ndarray:
    totals = row_totals(block, 1, result_dtype(block.dtype))
    return highly_expressed(block, totals, max_fraction)[0]


def _any(parts: list[np.ndarray]) -> np.ndarray:
    return np.any(parts, axis=0)


def _totals_block(block: Any, kept: np.ndarray | None = None) -> np.ndarray:
    if kept is None:
        return row_totals(block, 1, result_dtype(block.dtype))
    return totals_of(block, kept)[:, 0]


def _concatenate_rows(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)


def _measure(
    block: Any, *rows: np.ndarray, measured: str, n_batches: int | None, kept: np.ndarray | None, target: float
) -> tuple[np.ndarray, Stats]:
    """Totals of the cells (unless they are the last of `rows`), and statistics of the genes."""
    codes = rows[0] if n_batches is not None else None
    known = rows[n_batches is not None :]
    totals = known[0] if known else _totals_block(block, kept)
    if measured != "counts":
        dtype = result_dtype(block.dtype)
        block, _, _ = normalize_to(
            block, axis=1, target_sum=target, log1p=measured == "logged", dtype=dtype, totals=totals
        )
    return totals, _hvg.statistics_of(block, codes, n_batches, check=measured == "counts")


def _merge_first(parts: list[tuple[np.ndarray, Stats]]) -> tuple[np.ndarray, Stats]:
    totals, stats = zip(*parts)
    return np.concatenate(totals), _hvg.merge(list(stats))


def _selected(x: Any, chosen: np.ndarray, totals: np.ndarray, target: float) -> Any:
    """The genes chosen, normalised and logged, in memory (of the workers, where a Dask cluster has them)."""
    x, dtype = take(x, chosen, axis=1), result_dtype(x.dtype)
    if is_dask(x):
        from ..dispatch import _lazy

        return _lazy.normalize(x, axis=1, target_sum=target, log1p=True, dtype=dtype, totals=totals).persist()
    return normalize_to(x, axis=1, target_sum=target, log1p=True, dtype=dtype, totals=totals)[0]


def _scaled(x: Any, mean: np.ndarray, std: np.ndarray, max_value: float | None, zero_center: bool) -> Any:
    """Scaled and clipped, but not centred: what a mean is subtracted from, with the same zeros."""
    how = "about zeros" if zero_center else "not"
    if is_dask(x):
        return _scale.scale_lazily(x, mean, std, max_value, x.dtype, None, how)
    return (_scale.centred_about_zeros if zero_center else _scale.scaled)(x, mean, std, max_value, x.dtype)
