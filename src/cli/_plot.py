"""The picture: cells on the first components, the variance of each component, and the genes that were chosen."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

# More cells than this are shown by how many there are in a place.
DOTS = 20_000
BLUE, GREY, ORANGE = "#0b6e99", "#b5b5b5", "#c8781e"


def suffixes() -> list[str]:
    """What a picture's name may end with."""
    return sorted(FigureCanvasAgg.get_supported_filetypes())


def draw(adata: Any, title: str, key_added: str | None, path: Path, suffix: str) -> None:
    """Write the picture of what `recipe_pca` has written to an AnnData.

    Parameters
    ----------
    adata : AnnData
        With `obsm["X_pca"]`, `uns["pca"]` and the columns of `highly_variable_genes`.
    title : str
        The name of the data.
    key_added : str, optional
        The name of the scores and variances, if another.
    path, suffix : Path, str
        Where it is written to, and in which format.
    """
    scores, info = adata.obsm[key_added or "X_pca"], adata.uns[key_added or "pca"]
    ratio = np.asarray(info["variance_ratio"])
    figure = Figure(figsize=(12, 10), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{title}: {adata.n_obs:,} cells, {int(adata.var['highly_variable'].sum()):,} of {adata.n_vars:,} genes, "
        f"{scores.shape[1]} components",
        fontsize=13,
    )
    (first, second), (variance, genes) = figure.subplots(2, 2)
    others = (2, 3) if scores.shape[1] > 3 else (0, 2)
    for axes, pair in ((first, (0, 1)), (second, others)):
        if max(pair) < scores.shape[1]:
            _cells(figure, axes, scores, ratio, *pair)
        else:
            axes.set_axis_off()
    _variance(variance, ratio)
    _genes(genes, adata.var)
    for axes in (first, second, variance, genes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=suffix)


def _cells(figure: Figure, axes: Any, scores: np.ndarray, ratio: np.ndarray, x: int, y: int) -> None:
    """Dots, or where there are many cells their density."""
    if len(scores) <= DOTS:
        size = float(np.clip(20_000 / len(scores), 2, 20))
        axes.scatter(scores[:, x], scores[:, y], s=size, c=BLUE, alpha=0.5, linewidths=0)
    else:
        counts, *edges = np.histogram2d(scores[:, x], scores[:, y], bins=200)
        places = axes.pcolormesh(*edges, np.ma.masked_equal(counts.T, 0), norm=LogNorm(vmin=1), cmap="viridis")
        figure.colorbar(places, ax=axes, label="cells in a place (logarithmic)")
    axes.set_xlabel(f"component {x + 1} ({100 * ratio[x]:.1f} % of the variance)")
    axes.set_ylabel(f"component {y + 1} ({100 * ratio[y]:.1f} %)")
    axes.set_title(f"cells, components {x + 1} and {y + 1}", fontsize=11)


def _variance(axes: Any, ratio: np.ndarray) -> None:
    """Of each component, and of it and those before it."""
    number = np.arange(1, len(ratio) + 1)
    axes.plot(number, 100 * ratio, "o-", color=BLUE, markersize=3.5, linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("component")
    axes.set_ylabel("% of the variance (logarithmic)", color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    together = axes.twinx()
    together.plot(number, 100 * np.cumsum(ratio), color=ORANGE, linewidth=1.5)
    together.set_ylabel("% together with those before it", color=ORANGE)
    together.set_ylim(bottom=0)
    together.spines["top"].set_visible(False)
    axes.set_title("variance explained", fontsize=11)


def _genes(axes: Any, var: Any) -> None:
    """Mean and dispersion (of the v3 flavours: variance), and which were chosen."""
    chosen = var["highly_variable"].to_numpy()
    mean = var["means"].to_numpy()
    if "variances_norm" in var:
        spread, label = var["variances_norm"].to_numpy(), 'variance over the expected one, var["variances_norm"]'
        axes.set_yscale("log")
    else:
        spread, label = var["dispersions_norm"].to_numpy(), 'normalised dispersion, var["dispersions_norm"]'
    shown = (mean > 1e-9) & np.isfinite(spread)
    for those, colour, name in ((shown & ~chosen, GREY, "others"), (shown & chosen, ORANGE, "chosen")):
        text = f"{name} ({np.count_nonzero(those):,})"
        axes.scatter(mean[those], spread[those], s=5, c=colour, alpha=0.6, linewidths=0, label=text, rasterized=True)
    axes.set_xscale("log")
    axes.set_xlabel('mean of the gene, var["means"]')
    axes.set_ylabel(label)
    axes.set_title("genes", fontsize=11)
    axes.legend(frameon=False, markerscale=3, loc="upper left")
