"""The chain from counts to principal components, in as few passes as can be."""

from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..dispatch._components import Components, project_now
from ..dispatch._inputs import compressed, container, is_dask, is_sparse
from ..dispatch._normalize import check_target, median_of_positive, normalize_to, row_totals
from ..dispatch._partials import add_all
from ..dispatch._rows import fold
from ..dispatch._select import take
from ..io import open
from . import _hvg, _pca, _scale
from ._anndata import actual, check_matrix, get_matrix, is_anndata, only_for_anndata, result_dtype
from ._hvg import Batches, Stats
from ._normalize import check_fraction, highly_expressed, totals_of, warn_if_logged, warn_of_empty_cells
from ._plan import Plan, at_once, memory_of, passes_of, plan_of
from ._progress import Progress, Tell

# What is measured of the genes: the counts themselves, normalised, or normalised and logged.
MEASURED = {"seurat": "normalised", "cell_ranger": "logged", "seurat_v3": "counts", "seurat_v3_paper": "counts"}


class Options(NamedTuple):
    """How the chain goes."""

    target: float | None
    max_fraction: float | None
    """None, unless highly expressed genes are left out of the totals."""
    choice: _hvg.Options
    zero_center: bool
    max_value: float | None
    n_comps: int | None
    method: str
    seed: Any
    dtype: np.dtype

    @property
    def n_passes(self) -> int:
        """How often the counts are read."""
        return passes_of(self.choice.flavor, self.target, self.max_fraction is not None)


class Found(NamedTuple):
    """What the chain found."""

    genes: Any
    """DataFrame: which genes were chosen, and why."""
    mean: np.ndarray
    """Of the genes chosen, before scaling."""
    std: np.ndarray
    components: Components
    scores: np.ndarray


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
    n_comps: int | None = None,
    svd_solver: str | None = None,
    random_state: Any = 0,
    dtype: DTypeLike = "float32",
    layer: str | None = None,
    key_added: str | None = None,
    chunk_rows: int | None = None,
    memory: int | str | None = None,
    progress: Callable[[str, int, int], Any] | None = None,
    copy: bool = False,
    return_info: bool = False,
) -> Any:
    """From counts to principal components: normalise, log1p, choose genes, scale, PCA.

    The result is that of `normalize_total`, `log1p`, `highly_variable_genes`, `scale` and `pca` one after the other,
    but the matrix is gone over twice only: for the statistics of the genes, and for the genes chosen. (The seurat_v3
    flavours do so three times; the median target and `exclude_highly_expressed` take one pass more each. A matrix that
    is chunked along genes alone, as CSC files are, is read up to twice more.) The genes chosen are kept in memory,
    about a tenth of the data, and everything after works on them. The counts are not changed.

    A CSR matrix on disk is read once where its counts fit in memory: they are kept in three bytes a stored value (four
    for more than 65,536 genes), where they are whole numbers, which few of them need more bytes for.

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
        For a path, or an AnnData from `open`: cells in a chunk, see there. Default: by `memory`.
    memory : int or str, optional
        For a path, or an AnnData from `open`: how many bytes this process (on a Dask cluster, each worker) may hold in
        all, such as "4GB". It decides the size of the blocks, how many are at work at once, and whether the counts are
        kept or read again. Default: half of the machine's memory, and no refusal.
    progress : callable, optional
        Called as `progress(step, done, total)` with the name of a step and numbers of cells, from any thread.
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
        For any other container or argument, a malformed matrix, one with columns in chunks of unknown size, with
        negative values or NaN, or without counts; and for a `memory` in which the chain cannot be done: the message
        says what would be needed.
    OSError
        If a part of a file cannot be read; the message names the file, the array and the position.

    Examples
    --------
    >>> import csraxis as cx, numpy as np, scipy.sparse as sp
    >>> x = sp.csr_matrix(np.random.default_rng(0).poisson(1, (100, 30)))
    >>> cx.pp.recipe_pca(x, n_top_genes=10, n_comps=3).shape
    (100, 3)
    """
    choice = _hvg.Options(flavor, n_top_genes, n_bins, span, filter_unexpressed_genes)
    check_fraction(max_fraction)
    fraction = max_fraction if exclude_highly_expressed else None
    method, dtype = _pca.check_solver(svd_solver), np.dtype(dtype)
    options = Options(target_sum, fraction, choice, zero_center, max_value, n_comps, method, random_state, dtype)
    _check(options)
    limit = memory_of(memory)
    is_path = isinstance(data, str | PathLike)
    data = open(data, chunk_rows=chunk_rows) if is_path else data
    if not is_anndata(data):
        only_for_anndata(layer=layer, batch_key=batch_key, key_added=key_added)
        return _of_array(container(data, "data"), options, limit, chunk_rows, progress, return_info)
    check_matrix(data, layer, None)
    if layer is None:
        warn_if_logged(data)
    batches = _hvg.batches_of(data, batch_key, choice)
    x = container(get_matrix(data, layer, None), "data")
    found = _within(x, data.var_names, batches, options, limit, chunk_rows, progress)
    data = data.copy() if copy else data
    _write(data, found, flavor, layer, key_added)
    return data if copy or is_path else None


def _check(options: Options) -> None:
    """Look at all of them before anything is read."""
    check_target(options.target)
    _hvg.check(options.choice)
    _scale.check_max(options.max_value)
    _pca.check_seed(options.seed)
    n_top_genes, n_comps = options.choice.n_top_genes, options.n_comps
    if n_comps is not None:
        _pca.check_number(n_comps, n_comps if n_top_genes is None else n_top_genes)


def _of_array(
    x: Any, options: Options, memory: int | None, chunk_rows: int | None, progress: Tell | None, return_info: bool
) -> Any:
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    result_dtype(x.dtype)
    found = _within(x, None, None, options, memory, chunk_rows, progress)
    axes = np.zeros((len(found.components.axes), x.shape[1]))
    axes[:, found.genes["highly_variable"]] = found.components.axes
    info = axes, _pca.ratio(found.components), found.components.variance
    return (found.scores, *info) if return_info else found.scores


def _within(
    x: Any,
    names: Any,
    batches: Batches | None,
    options: Options,
    memory: int | None,
    chunk_rows: int | None,
    progress: Tell | None,
) -> Found:
    """The chain, by a plan where x is on disk."""
    plan = plan_of(x, memory, options.choice.n_top_genes, options.n_passes, chunk_rows)
    if plan is None and memory is not None:
        raise TypeError("memory is for a path, or an AnnData from open; what was given is in memory already")
    if plan is None and chunk_rows is not None:
        raise TypeError("chunk_rows is for a path, or an AnnData from open; what was given has its chunks already")
    with Progress(progress, x.shape[0]) as steps, at_once(plan):
        return _chain(x, names, batches, options, plan, steps)


def _chain(
    x: Any, names: Any, batches: Batches | None, options: Options, plan: Plan | None, progress: Progress
) -> Found:
    on_disk = plan is not None and plan.rows is not None
    x = _narrow(plan, progress) if on_disk else x
    totals, kept, target, stats = _first_passes(progress.over(x, "statistics of genes"), options, batches, on_disk)
    if not np.any(totals):
        raise ValueError("no cell has counts")
    warn_of_empty_cells(totals)
    if options.choice.is_v3:
        _hvg.warn_unless_counts(stats, options.choice.flavor)
    genes = _hvg.choose(progress.over(x, "choosing genes"), stats, batches, names, options.choice)
    chosen = genes["highly_variable"].to_numpy()
    selected = _selected(progress.over(x, "taking genes"), chosen, totals, kept, target, on_disk)
    del x  # the counts, where they were kept
    mean, std = _scale.mean_and_std(progress.over(selected, "scaling"))
    # Not centred, but with the zeros of the centred matrix: the components are around the mean.
    scale = _scale.centred_about_zeros if options.zero_center else _scale.scaled
    how = (selected, mean, std, options.max_value, selected.dtype)
    scaled = _scale.scale_lazily(scale, *how) if is_dask(selected) else scale(*how)
    counted = progress.over(scaled, "principal components")
    components = _pca.decompose(counted, options.n_comps, True, options.method, options.seed)
    scores = project_now(progress.over(scaled, "scores"), components.axes, components.mean, options.dtype)
    return Found(genes, mean, std, components, scores)


def _narrow(plan: Any, progress: Progress) -> Any:
    """The counts on disk in narrow blocks: read now and kept, or when they are used."""
    from ..dispatch import _chunks
    from ..io._lazy import narrow

    x = narrow(plan.rows, plan.edges)
    return _chunks.persist(progress.over(x, "reading")) if plan.keeps == "counts" else x


def _write(adata: Any, found: Found, flavor: str, layer: str | None, key_added: str | None) -> None:
    actual(adata)
    _hvg.write(adata, found.genes, flavor)
    chosen = found.genes["highly_variable"].to_numpy()
    for name, values in (("mean", found.mean), ("std", found.std)):
        column = np.full(adata.n_vars, np.nan)
        column[chosen] = values
        adata.var[name] = column
    params = {"zero_center": True, "use_highly_variable": True, "mask_var": "highly_variable"}
    params |= {"layer": layer} if layer is not None else {}
    _pca.write(adata, found.scores, found.components, params, chosen, key_added)


def _cut_by_genes(x: Any) -> bool:
    """Where all cells are in one row of several chunks, a block of whole rows would be the whole matrix."""
    return is_dask(x) and x.numblocks[0] == 1 < x.numblocks[1]


def _first_passes(
    x: Any, options: Options, batches: Batches | None, totals_needed: bool
) -> tuple[np.ndarray, np.ndarray | None, float, Stats]:
    """Totals of the cells, the genes that are in them, the target, and what is needed to choose genes.

    Blocks of whole rows on Dask add up their own totals each time, unless these are needed later: then the first result
    has the least and the largest of each block.
    """
    target, measured, cut_by_genes = options.target, MEASURED[options.choice.flavor], _cut_by_genes(x)
    kept = None if options.max_fraction is None else ~_highly_expressed(x, options.max_fraction, cut_by_genes)
    n_batches = None if batches is None else len(batches.names)
    codes = [] if batches is None else [batches.codes]
    count = options.choice.counts_cells(batches is not None)
    block = partial(_measure, measured=measured, n_batches=n_batches, count=count)
    totals = _totals(x, kept) if target is None or cut_by_genes else None
    target = float(median_of_positive(totals) if target is None else target)
    brief = is_dask(x) and not cut_by_genes and not totals_needed
    if totals is None or brief:
        block = partial(block, kept=kept, target=target, brief=brief)
        ((totals, stats),) = fold(x, block, _merge_first, rows=codes, whole=True)
        return totals, kept, target, stats
    parts = fold(x, partial(block, kept=None, target=target), _merge_first, rows=[*codes, totals])
    return totals, kept, target, _hvg.join([stats for _, stats in parts])


def _highly_expressed(x: Any, max_fraction: float, cut_by_genes: bool) -> np.ndarray:
    """Which genes have more than that fraction of the total of some cell."""
    block = partial(_highly_expressed_of, max_fraction=max_fraction)
    known = [_totals(x, None)] if cut_by_genes else []
    return np.concatenate(fold(x, block, _any, rows=known, whole=not cut_by_genes))


def _highly_expressed_of(block: Any, totals: np.ndarray | None = None, *, max_fraction: float) -> np.ndarray:
    totals = row_totals(block, 1, result_dtype(block.dtype)) if totals is None else totals
    return highly_expressed(block, totals, max_fraction)[0]


def _any(parts: list[np.ndarray]) -> np.ndarray:
    return np.any(parts, axis=0)


def _totals(x: Any, kept: np.ndarray | None) -> np.ndarray:
    """The total of each cell, of some of the genes."""
    return add_all(fold(x, _totals_of, np.concatenate, columns=[] if kept is None else [kept]))


def _totals_of(block: Any, kept: np.ndarray | None = None) -> np.ndarray:
    return row_totals(block, 1, result_dtype(block.dtype)) if kept is None else totals_of(block, kept)[:, 0]


def _measure(
    block: Any,
    *rows: np.ndarray,
    measured: str,
    n_batches: int | None,
    count: bool,
    kept: np.ndarray | None,
    target: float,
    brief: bool = False,
) -> tuple[np.ndarray, Stats]:
    """Totals of the cells (`brief`: the least and the largest), and statistics of the genes.

    `rows` are the batches, if any, and the totals, if known.
    """
    _check_counts(block)
    codes, known = (rows[0], rows[1:]) if n_batches is not None else (None, rows)
    totals = known[0] if known else None if kept is None else _totals_of(block, kept)
    if measured != "counts":
        log, dtype = measured == "logged", result_dtype(block.dtype)
        how: dict[str, Any] = {"log1p": log, "dtype": dtype, "totals": totals, "share": True}
        block, totals, _ = normalize_to(block, axis=1, target_sum=target, **how)
    elif totals is None:
        totals = _totals_of(block)
    stats = _hvg.statistics_of(block, codes, n_batches=n_batches, check=measured == "counts", count=count)
    return np.array([totals.min(), totals.max()]) if brief and len(totals) else totals, stats


def _check_counts(block: Any) -> None:
    values = compressed(block).data if is_sparse(block) else block
    if values.dtype.kind in "fi" and values.size and not (least := values.min()) >= 0:
        raise ValueError(f"counts must be numbers that are not negative, got {least}")


def _merge_first(parts: list[tuple[np.ndarray, Stats]]) -> tuple[np.ndarray, Stats]:
    totals, stats = zip(*parts)
    return np.concatenate(totals), _hvg.merge(list(stats))


def _selected(
    x: Any, chosen: np.ndarray, totals: np.ndarray, kept: np.ndarray | None, target: float, on_disk: bool
) -> Any:
    """The genes chosen, normalised and logged, in memory (of the workers, where a Dask cluster has them).

    Of a matrix on disk their counts are kept, in the narrow form: to take logarithms again costs less than the memory.
    """
    dtype = result_dtype(x.dtype)
    how: dict[str, Any] = {"axis": 1, "target_sum": target, "log1p": True, "dtype": dtype}
    if not is_dask(x):
        return normalize_to(take(x, chosen, axis=1), totals=totals, **how)[0]
    from ..dispatch import _chunks, _lazy

    if on_disk:
        from ..io._lazy import take_columns, wide

        return _lazy.normalize(wide(_chunks.persist(take_columns(x, chosen))), totals=totals, **how)

    if _cut_by_genes(x):
        return _chunks.persist(_lazy.normalize(take(x, chosen, axis=1), totals=totals, **how))
    shared = [chosen] if kept is None else [chosen, kept]
    n_chosen = int(np.count_nonzero(chosen))
    return _chunks.persist(_chunks.map_rows(partial(_select, how=how), "selected", x, n_chosen, dtype, shared, like=x))


def _select(block: Any, chosen: np.ndarray, kept: np.ndarray | None = None, *, how: dict[str, Any]) -> Any:
    return normalize_to(take(block, chosen, axis=1), totals=_totals_of(block, kept), **how)[0]
