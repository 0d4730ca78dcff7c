"""What the single-cell chain must find, from NumPy, pandas and scikit-learn alone: no csraxis, no scanpy.

All in float64. Genes whose scores are as good as equal may be chosen one for the other; the components are then those
of the genes that were chosen.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from scipy import sparse

from bench.chain import Plan, Result
from bench.verify import TIE

TOLERANCE = 1e-4
"""Of singular values and shares of the variance, relative: most of the contestants scale in float32."""
DENSE_UP_TO = 20_000_000
"""Elements up to which scikit-learn gets the dense matrix; above, the covariance is formed in blocks."""
BLOCK_ROWS = 4096


class Reference:
    """The right results for a matrix of counts."""

    def __init__(self, x: sparse.csr_matrix, plan: Plan) -> None:
        """Choose the genes; components are found where they are asked for."""
        self.plan = plan
        self.totals = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()
        self.genes_by_cell = np.diff(x.indptr)
        self.kept = np.flatnonzero(np.bincount(x.indices, minlength=x.shape[1]) >= plan.min_cells)
        counts = _columns(x, self.kept)
        sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        factors = plan.target_sum / np.where(sums > 0, sums, 1)
        values = counts.data * np.repeat(factors, np.diff(counts.indptr))
        normalised = sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
        self.logged = sparse.csr_matrix((np.log1p(values), counts.indices, counts.indptr), shape=counts.shape)
        if plan.of_counts:
            scores = _by_residuals(counts)
        else:
            measured = normalised if plan.flavor == "seurat" else self.logged
            scores = by_dispersion(*_mean_and_variance(measured), plan.flavor)
        self.scores = np.full(x.shape[1], -np.inf)
        self.scores[self.kept] = np.nan_to_num(scores, nan=-np.inf)
        self.n_genes = min(plan.n_top_genes, int(np.isfinite(self.scores).sum()))
        self.last = np.sort(self.scores)[-self.n_genes]
        self._components: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def disagreement(self, result: Result) -> str | None:
        """How a result differs, or None."""
        return self._of_cells(result) or self._of_genes(result.genes) or self._of_components(result)

    def _of_cells(self, result: Result) -> str | None:
        for what, got, right in (
            ("totals", result.totals, self.totals),
            ("numbers of genes", result.genes_by_cell, self.genes_by_cell),
        ):
            if got is None:
                continue
            if got.shape != right.shape or not np.allclose(got, right, rtol=1e-6, atol=0):
                return f"the {what} of the cells are wrong"
        return None

    def _of_genes(self, genes: np.ndarray) -> str | None:
        near = np.abs(self.scores - self.last) <= TIE * max(1.0, abs(self.last))
        is_chosen = np.zeros(len(self.scores), bool)
        is_chosen[genes] = True
        wrong = np.flatnonzero((is_chosen != (self.scores >= self.last)) & ~near)
        if wrong.size:
            one = wrong[0]
            verb = "was chosen" if is_chosen[one] else "was not chosen"
            return f"{wrong.size} genes are wrong: {one} {verb}, its score is {self.scores[one]:.6g} ({self.last:.6g})"
        if abs(len(genes) - self.n_genes) > near.sum():
            return f"{len(genes)} genes instead of {self.n_genes}"
        return None

    def _of_components(self, result: Result) -> str | None:
        for what, got, right in zip(
            ("singular value", "share of the variance"),
            (result.singular_values, result.variance_ratio),
            self.components(result.genes),
        ):
            if got.shape != right.shape:
                return f"{what}: shape {got.shape} instead of {right.shape}"
            wrong = np.flatnonzero(~(np.abs(got - right) <= TOLERANCE * right))
            if wrong.size:
                k = int(wrong[0])
                return f"{what} {k} is {got[k]:.7g} instead of {right[k]:.7g}"
        return None

    def components(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Singular values, and shares of the variance, of the scaled columns."""
        key = np.sort(genes).tobytes()
        if key not in self._components:
            place = np.searchsorted(self.kept, np.sort(genes))
            self._components[key] = _components(_columns(self.logged, place), self.plan)
        return self._components[key]


def _columns(x: sparse.csr_matrix, kept: np.ndarray) -> sparse.csr_matrix:
    """Some columns, in order; without SciPy's own selection, which takes twice the memory."""
    place = np.full(x.shape[1], -1, x.indices.dtype)
    place[kept] = np.arange(len(kept))
    places = place[x.indices]
    inside = places >= 0
    indptr = np.concatenate(([0], np.cumsum(inside)))[x.indptr]
    return sparse.csr_matrix((x.data[inside], places[inside], indptr), shape=(x.shape[0], len(kept)))


def _mean_and_variance(x: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Of the columns, over n - 1, in two passes."""
    n, m = x.shape
    mean = np.bincount(x.indices, weights=x.data, minlength=m) / n
    squares = np.bincount(x.indices, weights=(x.data - mean[x.indices]) ** 2, minlength=m)
    zeros = n - np.bincount(x.indices, minlength=m)
    return mean, (squares + zeros * mean**2) / (n - 1)


def by_dispersion(mean: np.ndarray, variance: np.ndarray, flavor: str) -> np.ndarray:
    """Dispersions relative to those of genes with a similar mean (Satija et al. 2015; Zheng et al. 2017)."""
    import pandas as pd

    with np.errstate(all="ignore"):
        dispersion = variance / mean
        if flavor == "seurat":
            frame = pd.DataFrame({"value": np.log(dispersion), "bin": pd.cut(np.log1p(mean), 20, labels=False)})
            grouped = frame.groupby("bin")["value"]
            centre, spread = grouped.transform("mean"), grouped.transform("std")
            alone = grouped.transform("count") == 1
            return ((frame["value"] - centre) / spread).where(~alone, 1).to_numpy()
        edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
        frame = pd.DataFrame({"value": dispersion, "bin": pd.cut(mean, edges, labels=False)})
        centre = frame.groupby("bin")["value"].transform("median")
        away = (frame["value"] - centre).abs()
        spread = away.groupby(frame["bin"]).transform("median") / 0.6744897501960817
        return ((frame["value"] - centre) / spread).to_numpy()


def _by_residuals(counts: sparse.csr_matrix) -> np.ndarray:
    """Variances of standardised and clipped counts (Stuart et al. 2019)."""
    from skmisc.loess import loess

    n, m = counts.shape
    mean, variance = _mean_and_variance(counts)
    varies = variance > 0
    model = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=0.3, degree=2)
    model.fit()
    std = np.ones(m)
    std[varies] = np.sqrt(10**model.outputs.fitted_values)
    values = np.minimum(counts.data, (mean + np.sqrt(n) * std)[counts.indices])
    values = (values - mean[counts.indices]) ** 2
    zeros = n - np.bincount(counts.indices, minlength=m)
    squares = np.bincount(counts.indices, weights=values, minlength=m) + zeros * mean**2
    return squares / ((n - 1) * std**2)


def _components(x: sparse.csr_matrix, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = _mean_and_variance(x)
    std = np.sqrt(np.where(variance > 0, variance, 1))

    def scaled(start: int, stop: int) -> np.ndarray:
        if not plan.zero_center:
            return np.minimum(x[start:stop].toarray() / std, plan.max_value)
        return np.clip((x[start:stop].toarray() - mean) / std, -plan.max_value, plan.max_value)

    n, m = x.shape
    if n * m <= DENSE_UP_TO and importlib.util.find_spec("sklearn") is not None:
        from sklearn.decomposition import PCA

        found = PCA(plan.n_comps, svd_solver="arpack", random_state=0).fit(scaled(0, n))
        return found.singular_values_, found.explained_variance_ratio_
    sums, products = np.zeros(m), np.zeros((m, m))
    for start in range(0, n, BLOCK_ROWS):
        rows = scaled(start, start + BLOCK_ROWS)
        sums += rows.sum(axis=0)
        products += rows.T @ rows
    values = np.linalg.eigvalsh(products - np.outer(sums, sums) / n)[::-1]
    return np.sqrt(values[: plan.n_comps]), values[: plan.n_comps] / values.sum()
