"""Whether a result is right: what differs from the reference, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from bench import exact

TOLERANCE = 1e-6
"""Relative error allowed in any result: float32 in, a few roundings, float32 out."""
SINGULAR_TOLERANCE = 1e-4
"""Of singular values: several peers find them in float32."""
ANGLE_TOLERANCE = 1e-2
"""Radians between the subspaces of the components."""
TIE = 1e-3
"""Genes whose scores are this close to that of the last one chosen may be chosen or not."""


def _wrong_values(result: np.ndarray, expected: np.ndarray, what: str) -> str | None:
    if result.shape != expected.shape:
        return f"{what} of shape {result.shape} instead of {expected.shape}"
    block = 1 << 22  # keeps the temporaries of the comparison small
    for start in range(0, result.size, block):
        got, right = (np.asarray(v[start : start + block], dtype=np.float64) for v in (result, expected))
        wrong = np.flatnonzero(~(np.abs(got - right) <= TOLERANCE * np.abs(right)))
        if wrong.size:
            k = int(wrong[0])
            return f"{what} [{start + k}] is {got.ravel()[k]:.9g} instead of {right.ravel()[k]:.9g}"
    return None


def disagreement(result: Any, expected: Any, what: str = "result") -> str | None:
    """How a result differs from the reference, or None."""
    if isinstance(expected, tuple):
        if not isinstance(result, tuple) or len(result) != len(expected):
            return f"{what} is not a tuple of {len(expected)}"
        reasons = (disagreement(r, e, f"{what} {i}") for i, (r, e) in enumerate(zip(result, expected)))
        return next((reason for reason in reasons if reason), None)
    if not sparse.issparse(expected):
        return _wrong_values(np.asarray(result), expected, what)
    if not sparse.issparse(result):
        return f"{what} is a {type(result).__name__}, not sparse"
    result = result.tocsr()
    if not result.has_sorted_indices:
        result = result.sorted_indices()
    for name in ("indptr", "indices"):
        if not np.array_equal(getattr(result, name), getattr(expected, name)):
            return f"{what} has other {name}"
    return _wrong_values(result.data, expected.data, f"{what} data")


def gene_scores(x: sparse.csr_matrix) -> np.ndarray:
    """Of each column of logged data: its dispersion relative to those of a similar mean, as in Satija et al. 2015."""
    from bench.reference import by_dispersion

    return np.nan_to_num(by_dispersion(*exact.moments(x, unlog=True), "seurat"), nan=-np.inf)


def wrong_genes(chosen: np.ndarray, scores: np.ndarray) -> str | None:
    """How the genes that were chosen differ from those with the highest scores, ties aside; or None."""
    wanted = min(exact.n_genes(len(scores)), int(np.isfinite(scores).sum()))
    last = np.sort(scores)[-wanted]
    near = np.abs(scores - last) <= TIE * max(1.0, abs(last))
    wrong = np.flatnonzero((np.asarray(chosen, bool) != (scores >= last)) & ~near)
    if wrong.size:
        return f"{wrong.size} genes are wrong, the first is {wrong[0]}: score {scores[wrong[0]]:.6g} ({last:.6g})"
    n = int(np.sum(chosen))
    return f"{n} genes instead of {wanted}" if abs(n - wanted) > near.sum() else None


def accuracy_of_components(scores: np.ndarray, expected: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Largest relative error of a singular value, and largest angle between the subspaces in radians."""
    singular, basis = expected
    scores = np.asarray(scores, dtype=np.float64)
    scores = scores - scores.mean(axis=0)
    errors = np.abs(np.sort(np.linalg.norm(scores, axis=0))[::-1] / singular - 1)
    # The sine from what is left of each direction, which is accurate where the cosine is near one.
    left = basis - (q := np.linalg.qr(scores)[0]) @ (q.T @ basis)
    return {
        "singular_values": float(errors.max()),
        "angle": float(np.arcsin(min(np.linalg.norm(left, 2), 1.0))),
    }


def wrong_components(scores: np.ndarray, expected: tuple[np.ndarray, np.ndarray]) -> str | None:
    """How scores differ from the principal components, or None."""
    if np.shape(scores) != expected[1].shape:
        return f"scores of shape {np.shape(scores)} instead of {expected[1].shape}"
    if not np.isfinite(scores).all():
        return "scores are not finite"
    found = accuracy_of_components(scores, expected)
    if found["singular_values"] > SINGULAR_TOLERANCE:
        return f"a singular value is wrong by {found['singular_values']:.2g} of itself"
    if found["angle"] > ANGLE_TOLERANCE:
        return f"the subspace of the components is off by {found['angle']:.2g} radians"
    return None
