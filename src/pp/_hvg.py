"""Highly variable genes."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..dispatch import _moments, _partials
from ..dispatch._inputs import compressed, container, is_sparse, with_data
from ..dispatch._moments import Moments
from ..dispatch._pieces import places
from ..dispatch._rows import fold
from ..dispatch._select import take
from ._anndata import Subset, actual, check_matrix, get_matrix, is_anndata, warn
from ._normalize import result_dtype
from ._qc import positives_of

FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper")
CUTOFFS = {"min_disp": 0.5, "max_disp": np.inf, "min_mean": 0.0125, "max_mean": 3}
# In the order in which scanpy adds them to var.
COLUMNS = (
    "highly_variable",
    "highly_variable_rank",
    "means",
    "variances",
    "variances_norm",
    "dispersions",
    "dispersions_norm",
    "highly_variable_nbatches",
    "highly_variable_intersection",
)


class Batches(NamedTuple):
    """Which batch each cell is in, and the names of the batches."""

    codes: np.ndarray
    names: list[Any]


class Options(NamedTuple):
    """How genes are chosen: the parameters of `highly_variable_genes`."""

    flavor: str
    n_top_genes: int | None
    n_bins: int
    span: float
    filter_unexpressed_genes: bool | None
    cutoffs: dict[str, float] = CUTOFFS

    @property
    def is_v3(self) -> bool:
        """Whether the flavour takes counts, and standardises their variances."""
        return self.flavor.startswith("seurat_v3")

    def counts_cells(self, batched: bool) -> bool:
        """Whether it matters in how many cells a gene is positive."""
        return not self.is_v3 and (batched or bool(self.filter_unexpressed_genes))


class Stats(NamedTuple):
    """Of each batch and gene, what the flavour needs to know; arrays of shape (batches, genes)."""

    moments: Moments
    expressed: np.ndarray
    """In how many cells the gene is positive; (batches, 0) where it does not matter."""
    are_counts: np.ndarray
    """Whether all values are integers that are not negative; in each of its columns the same."""


def highly_variable_genes(
    adata: Any,
    *,
    layer: str | None = None,
    n_top_genes: int | None = None,
    min_disp: float = 0.5,
    max_disp: float = np.inf,
    min_mean: float = 0.0125,
    max_mean: float = 3,
    span: float = 0.3,
    n_bins: int = 20,
    flavor: str = "seurat",
    subset: bool = False,
    inplace: bool = True,
    batch_key: str | None = None,
    filter_unexpressed_genes: bool | None = None,
    check_values: bool = True,
) -> Any:
    """Genes that vary more than others of the same mean.

    Follows `scanpy.pp.highly_variable_genes` (scanpy 1.12.4) and with it Seurat (Satija et al. 2015), Cell Ranger
    (Zheng et al. 2017) and Seurat v3 (Stuart et al. 2019). On Dask it reads the matrix once, the v3 flavours twice.

    Parameters
    ----------
    adata : AnnData, or an array of shape (cells, genes)
        Logarithms for "seurat" and "cell_ranger", counts for the v3 flavours. In memory or over Dask.
    layer : str, optional
        The layer to use instead of X.
    n_top_genes : int, optional
        How many genes to choose; the cut-offs are ignored then. Default for the v3 flavours: 2000.
    min_disp, max_disp, min_mean, max_mean : float
        Cut-offs of normalised dispersion and mean; for "seurat" and "cell_ranger".
    span : float
        The share of genes that the local regression of the v3 flavours takes at a time.
    n_bins : int
        How many bins of genes with a similar mean "seurat" makes.
    flavor : {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"}
        "seurat" works on the values before the logarithm, whose base it takes from `adata.uns["log1p"]`. The v3
        flavours differ with `batch_key`: genes are ranked by their median rank first, or by the number of batches.
    subset : bool
        Cut the AnnData (or the result) down to these genes.
    inplace : bool
        Write to `adata.var` instead of returning a DataFrame.
    batch_key : str, optional
        Column of `obs`: genes are chosen in each batch, and the choices are merged.
    filter_unexpressed_genes : bool, optional
        Leave out genes that no cell expresses. With `batch_key` this is always done (v3 flavours: never).
    check_values : bool
        v3 flavours: warn if the values are not counts.

    Returns
    -------
    None or DataFrame
        `highly_variable`, `means`, `dispersions`, `dispersions_norm` (v3: `variances`, `variances_norm`,
        `highly_variable_rank`), and with `batch_key` `highly_variable_nbatches`, `highly_variable_intersection`. A
        DataFrame with `inplace=False`, and for an array.

    Raises
    ------
    ImportError
        If a v3 flavour is asked for and scikit-misc is not installed.
    KeyError, TypeError, ValueError
        For an unknown `batch_key` or flavour, any other container, or a malformed matrix.

    Examples
    --------
    >>> import csraxis as cx, numpy as np
    >>> counts = np.random.default_rng(0).poisson([1, 1, 1, 1, 1, 0.125], (500, 6)) * [1, 1, 1, 1, 1, 8]
    >>> frame = cx.pp.highly_variable_genes(np.log1p(counts), n_top_genes=1, n_bins=1)
    >>> frame["highly_variable"].tolist()
    [False, False, False, False, False, True]
    """
    cutoffs = {"min_disp": min_disp, "max_disp": max_disp, "min_mean": min_mean, "max_mean": max_mean}
    options = Options(flavor, n_top_genes, n_bins, span, filter_unexpressed_genes, cutoffs)
    check(options)
    if n_top_genes is not None and not options.is_v3 and cutoffs != CUTOFFS:
        warn("If you pass `n_top_genes`, all cutoffs are ignored.")
    if batch_key and not options.is_v3 and filter_unexpressed_genes is False:
        warn("filter_unexpressed_genes is set to False, but is ignored where batch_key is given")
    x, names, base = _given(adata, layer)
    batches = batches_of(adata, batch_key, options)
    stats = statistics(x, batches, options, base)
    if options.is_v3 and check_values:
        warn_unless_counts(stats, flavor)
    frame = choose(x, stats, batches, names, options)
    if not is_anndata(adata) or not inplace:
        return frame[frame["highly_variable"]] if subset else frame
    write(adata, frame, flavor, subset)
    return None


def _given(adata: Any, layer: str | None) -> tuple[Any, Any, float | None]:
    """The matrix, the names of the genes, and the base of its logarithm, as far as they are known."""
    if is_anndata(adata):
        check_matrix(adata, layer, None)
        x, base = container(get_matrix(adata, layer, None), "adata"), adata.uns.get("log1p", {}).get("base")
        return x, adata.var_names, base
    x = container(adata, "adata")
    if x.ndim != 2:
        raise ValueError(f"the matrix must be 2-D, got shape {x.shape}")
    result_dtype(x.dtype)
    return x, None, None


def warn_unless_counts(stats: Stats, flavor: str) -> None:
    """The v3 flavours take counts."""
    if not stats.are_counts.all():
        warn(f"`flavor={flavor!r}` expects raw count data, but non-integers were found.")


def check(options: Options) -> None:
    """Look at the options, and for what the flavour needs, before anything is read."""
    flavor, top, span, bins = options.flavor, options.n_top_genes, options.span, options.n_bins
    if flavor not in FLAVORS:
        raise ValueError(f"flavor must be one of {', '.join(map(repr, FLAVORS))}; got {flavor!r}")
    if top is not None and (not isinstance(top, int | np.integer) or isinstance(top, bool) or top < 1):
        raise ValueError(f"n_top_genes must be a positive int or None, got {top!r}")
    if not isinstance(span, int | float | np.number) or not span > 0:
        raise ValueError(f"span must be a positive number, got {span!r}")
    if flavor == "seurat" and np.ndim(bins) == 0 and (not isinstance(bins, int | np.integer) or bins < 1):
        raise ValueError(f"n_bins must be a positive int, got {bins!r}")
    for name, value in options.cutoffs.items() if top is None and not options.is_v3 else ():
        if not isinstance(value, Real):
            raise ValueError(f"{name} must be a number, got {value!r}")
    if options.is_v3:
        _local_regression()


def write(adata: Any, frame: Any, flavor: str, cut: bool = False) -> None:
    """The columns in `var`, the flavour in `uns`; and the AnnData cut down if asked to."""
    actual(adata)
    cut_down = Subset(adata, frame["highly_variable"].to_numpy(), axis=1) if cut else None
    adata.uns["hvg"] = {"flavor": flavor}
    for name in (name for name in COLUMNS if name in frame):
        adata.var[name] = frame[name].to_numpy(np.float32 if name == "dispersions_norm" else None)
    if cut_down is not None:
        cut_down.apply()


def batches_of(adata: Any, batch_key: str | None, options: Options) -> Batches | None:
    """The batches that a column of obs tells."""
    if batch_key is None:
        return None
    if not is_anndata(adata):
        raise TypeError("batch_key names a column of obs, which needs an AnnData")
    import pandas as pd

    if batch_key not in adata.obs:
        raise KeyError(batch_key)
    column = pd.Categorical(adata.obs[batch_key]).remove_unused_categories()
    if not len(column.categories):
        raise ValueError(f"batch_key={batch_key!r}: no cell has a batch")
    batches = Batches(np.asarray(column.codes), list(column.categories))
    sizes = np.bincount(batches.codes[batches.codes >= 0])
    if options.is_v3 and sizes.min() < 2:
        name = batches.names[int(sizes.argmin())]
        raise ValueError(f"batch_key={batch_key!r}: batch {name!r} has one cell, which has no variance")
    return batches


def statistics(x: Any, batches: Batches | None, options: Options, base: float | None) -> Stats:
    """What is needed to choose genes, in one pass."""
    n_batches = None if batches is None else len(batches.names)
    unlog = None if options.flavor != "seurat" else 1.0 if base is None else np.log(base).item()
    count = options.counts_cells(batches is not None)
    block = partial(statistics_of, n_batches=n_batches, check=options.is_v3, count=count, unlog=unlog)
    if is_sparse(x) and batches is None and not options.is_v3:
        return block(x)  # its parts need not be merged: these reductions have threads, and steps, of their own
    return join(fold(x, block, merge, rows=[] if batches is None else [batches.codes]))


def join(parts: list[Stats]) -> Stats:
    """Of all columns."""
    moments = _moments.side_by_side([stats.moments for stats in parts])
    return Stats(moments, *(np.concatenate(part, axis=1) for part in list(zip(*parts))[1:]))


def statistics_of(
    block: Any,
    codes: np.ndarray | None = None,
    *,
    n_batches: int | None,
    check: bool = False,
    count: bool = False,
    unlog: float | None = None,
) -> Stats:
    """Of a block of cells in memory; with `unlog`, of exp(unlog * value) - 1."""
    are_counts = np.full((1, block.shape[1]), not check or _are_counts(block))
    rows = [block] if codes is None else [take(block, codes == code, axis=0) for code in range(n_batches or 0)]
    moments = Moments(*map(np.vstack, zip(*(_partials.moments(one, (0,), unlog) for one in rows))))
    expressed = [positives_of(one, 0) if count else np.zeros((1, 0), np.int64) for one in rows]
    return Stats(moments, np.vstack(expressed), are_counts)


def merge(parts: list[Stats]) -> Stats:
    """Of all cells."""
    moments, expressed, are_counts = zip(*parts)
    return Stats(_moments.merge_all(list(moments)), np.sum(expressed, axis=0), np.all(are_counts, axis=0))


def _are_counts(block: Any) -> bool:
    """Whether all values are integers that are not negative."""
    values = compressed(block, canonical=True).data if is_sparse(block) else block
    if np.signbit(values).any() if values.dtype.kind == "f" else values.size and values.min() < 0:
        return False
    return values.dtype.kind in "biu" or bool(np.all(np.rint(values) == values))


def choose(x: Any, stats: Stats, batches: Batches | None, names: Any, options: Options) -> Any:
    """The table of the genes. The v3 flavours read the counts once more."""
    import pandas as pd

    batched = batches is not None
    if options.is_v3:
        frame = _frame_of_v3(stats, partial(_clipped, x, batches), options, batched)
        frame.insert(2, "gene_name", frame.index if names is None else names)
    else:
        filtered = options.counts_cells(batched)
        each = zip(_each_batch(stats.moments), stats.expressed)
        frames = [_frame_of(moments, expressed > 0 if filtered else None, options) for moments, expressed in each]
        frame = _merged(frames, names, options) if batched else frames[0]
    frame.index = pd.RangeIndex(len(frame)) if names is None else names
    return frame


def _frame_of(moments: Moments, kept: np.ndarray | None, options: Options) -> Any:
    """The table of one batch for the flavours "seurat" and "cell_ranger"; some genes may be left out."""
    kept = np.ones(len(moments.n), bool) if kept is None else kept
    mean, var = _moments.mean_and_variance(Moments(*(part[kept] for part in moments)), 1)
    frame = _dispersions(mean, var, options)
    frame["highly_variable"] = _chosen(frame, options)
    frame.index = np.flatnonzero(kept)
    if not kept.all():
        frame = frame.reindex(range(len(kept)))
        frame.loc[~kept, ["means", "dispersions", "dispersions_norm"]] = 0.0
        frame["highly_variable"] = frame["highly_variable"].eq(True)
    return frame


def _each_batch(moments: Moments) -> list[Moments]:
    return [Moments(*parts) for parts in zip(*moments)]


def _dispersions(mean: np.ndarray, var: np.ndarray, options: Options) -> Any:
    """Means, dispersions, and these relative to genes of a similar mean."""
    import pandas as pd

    flavor = options.flavor
    mean = np.where(mean == 0, 1e-12, mean)
    with np.errstate(all="ignore"):
        dispersion = var / mean
        if flavor == "seurat":
            dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
            mean = np.log1p(mean)
    frame = pd.DataFrame({"means": mean, "dispersions": dispersion})
    if not np.isfinite(mean).all() or not len(mean):
        raise ValueError(
            f"flavor={flavor!r} needs finite means of the genes: there are no cells or genes, NaN, or values too large "
            "for their exponentials (it expects logarithms)"
        )
    edges = options.n_bins
    if flavor == "cell_ranger":
        edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
        if (np.diff(edges) <= 0).any():
            raise ValueError(
                "flavor='cell_ranger' makes bins at percentiles of the means, and more than a twentieth of the genes "
                "have the same: use filter_genes(min_cells=1) before, or filter_unexpressed_genes=True"
            )
    bins = pd.cut(frame["means"], bins=edges)
    frame["mean_bin"] = bins.cat.rename_categories(bins.cat.categories.astype("string"))
    grouped = frame.groupby("mean_bin", observed=True)["dispersions"]
    if flavor == "seurat":
        centre, spread = grouped.mean(), grouped.std(ddof=1)
        alone = spread.isna()  # one gene in its bin: its normalised dispersion is set to 1
        spread[alone], centre[alone] = centre[alone], 0
    else:
        centre, spread = grouped.median(), grouped.agg(_median_deviation)
    of_gene = frame["mean_bin"]
    centre, spread = (part.reindex(of_gene).to_numpy(float) for part in (centre, spread))
    with np.errstate(all="ignore"):
        frame["dispersions_norm"] = (frame["dispersions"] - centre) / spread
    return frame


def _median_deviation(values: Any) -> float:
    from scipy.stats import median_abs_deviation

    return float(median_abs_deviation(values, scale="normal"))


def _chosen(frame: Any, options: Options) -> np.ndarray:
    norm, n_top_genes = frame["dispersions_norm"].to_numpy(), options.n_top_genes
    if n_top_genes is None:
        return _within(frame["means"].to_numpy(), np.nan_to_num(norm), options.cutoffs)
    ordered = np.sort(norm[~np.isnan(norm)])[::-1]
    n = min(n_top_genes, len(norm))
    if n > len(ordered):
        warn(
            f"`n_top_genes` (={n}) > number of normalized dispersions (={len(ordered)}), "
            "returning all genes with normalized dispersions."
        )
        n = len(ordered)
    return np.nan_to_num(norm, nan=-np.inf) >= ordered[n - 1] if n else np.zeros(len(norm), bool)


def _within(mean: np.ndarray, norm: np.ndarray, cutoffs: dict[str, float]) -> np.ndarray:
    return (
        (mean > cutoffs["min_mean"])
        & (mean < cutoffs["max_mean"])
        & (norm > cutoffs["min_disp"])
        & (norm < cutoffs["max_disp"])
    )


def _merged(frames: list[Any], names: Any, options: Options) -> Any:
    """The choices of all batches in one."""
    import pandas as pd

    columns = {
        name: np.array([frame[name].to_numpy(float) for frame in frames])
        for name in ("means", "dispersions", "dispersions_norm", "highly_variable")
    }
    frame = pd.DataFrame({name: pd.DataFrame(values).mean() for name, values in columns.items()})
    frame["highly_variable_nbatches"] = columns["highly_variable"].sum(axis=0).astype(int)
    frame["highly_variable_intersection"] = frame["highly_variable_nbatches"] == len(frames)
    if options.n_top_genes is None:
        frame["dispersions_norm"] = frame["dispersions_norm"].fillna(0)
        chosen = _within(frame["means"].to_numpy(), frame["dispersions_norm"].to_numpy(), options.cutoffs)
    else:
        # Of equal genes scanpy takes the first by name.
        by_name = frame.set_index(pd.Index(names, name=None)).reset_index(drop=True)
        by_name = by_name.iloc[np.argsort(np.asarray(names), kind="stable")]
        order = by_name.sort_values(
            ["highly_variable_nbatches", "dispersions_norm"], ascending=False, na_position="last"
        ).index
        chosen = np.zeros(len(frame), bool)
        chosen[order[: options.n_top_genes]] = True
    frame["highly_variable"] = chosen
    return frame


def _frame_of_v3(stats: Stats, clipped: Callable, options: Options, batched: bool) -> Any:
    """The table for the v3 flavours; `clipped` gives moments of the counts up to a limit for each batch and gene."""
    import pandas as pd

    top = 2000 if options.n_top_genes is None else options.n_top_genes
    means, variances = _moments.mean_and_variance(_moments.merge_all(_each_batch(stats.moments)), 1)
    mean, var = _moments.mean_and_variance(stats.moments, 1)
    std = np.array([_expected_std(*of_batch, options.span) for of_batch in zip(mean, var)])
    n = stats.moments.n
    moments = clipped(std * np.sqrt(n) + mean)
    # Centred first, or bits would depend on the chunks, whose shifts differ.
    norm = moments.centred().around(mean).s2 / ((n - 1) * std**2)
    ranks = np.argsort(np.argsort(-norm, axis=1, kind="stable"), axis=1, kind="stable").astype(np.float32)
    ranks[ranks >= top] = np.nan
    n_batches = np.sum(~np.isnan(ranks), axis=0)
    frame = pd.DataFrame({"means": means, "variances": variances})
    if batched:
        frame["highly_variable_nbatches"] = n_batches
    frame["highly_variable_rank"] = pd.DataFrame(ranks).median().to_numpy(np.float32)
    frame["variances_norm"] = norm.mean(axis=0)
    keys = pd.DataFrame({"rank": frame["highly_variable_rank"], "n": n_batches})
    by = ["rank", "n"] if options.flavor == "seurat_v3" else ["n", "rank"]
    order = keys.sort_values(by, ascending=[key == "rank" for key in by], na_position="last").index
    frame["highly_variable"] = False
    frame.loc[order[:top], "highly_variable"] = True
    return frame


def _local_regression() -> Any:
    """scikit-misc's loess; ImportError with the install line where it is absent."""
    try:
        from skmisc.loess import loess
    except ImportError as error:
        error.add_note('flavor="seurat_v3" needs scikit-misc: pip install scikit-misc')
        raise
    return loess


def _expected_std(mean: np.ndarray, var: np.ndarray, span: float) -> np.ndarray:
    """What genes of such a mean deviate by: a local regression of the logarithms of variances on those of means."""
    fitted = np.zeros(len(mean))
    varies = var > 0
    if varies.any():
        if int(span * varies.sum()) < 1:  # it would crash
            raise ValueError(
                f"span={span} of the {varies.sum()} genes that vary is less than one: use a larger span, or more genes"
            )
        model = _local_regression()(np.log10(mean[varies]), np.log10(var[varies]), span=span, degree=2)
        try:
            model.fit()
        except ValueError as error:
            error.add_note("too many genes have the same few counts: try filter_genes(min_cells=...), or a larger span")
            raise
        fitted[varies] = model.outputs.fitted_values
    return np.sqrt(10**fitted)


def _clipped(x: Any, batches: Batches | None, limits: np.ndarray) -> Moments:
    """Moments of the counts, none above the limit of its batch and gene: one pass."""
    parts = fold(x, _clipped_of, _moments.merge_all, rows=[] if batches is None else [batches.codes], columns=[limits])
    return _moments.side_by_side(parts)


def _clipped_of(block: Any, *arrays: np.ndarray) -> Moments:
    *codes, limits = arrays
    rows = [take(block, codes[0] == code, axis=0) for code in range(len(limits))] if codes else [block]
    moments = [_partials.moments(_no_more_than(one, limit), (0,)) for one, limit in zip(rows, limits)]
    return Moments(*map(np.vstack, zip(*moments)))


def _no_more_than(x: Any, limits: np.ndarray) -> Any:
    """x in float64, each value at most the limit of its column."""
    if not is_sparse(x):
        return np.minimum(x, limits)
    c = compressed(x, canonical=True)
    values = c.data.astype(float)
    for lo, hi, _, columns in places(c):
        np.minimum(values[lo:hi], limits[columns], out=values[lo:hi])
    return with_data(c, values)
