"""Principal components of a matrix, without making it dense.

Where its covariance matrix fits, from that: of the columns, or of the rows where those are fewer. Singular values are
right to 1e-7, of dense values in float32 to 1e-5, and the space of the components to an angle of 3e-4 (1e-3). For more
columns and rows than that, by a block method that reads the matrix once in each step.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg
from threadpoolctl import threadpool_limits

from . import _blocks, _comoments, _gram, _moments, _partials, _select
from ._comoments import Comoments
from ._config import kernels
from ._inputs import compressed, container, float_dtype, is_dask, is_sparse, native
from ._pieces import check, row_pieces, run_rows
from ._rows import fold

# A covariance matrix of more columns (or rows) takes longer than the block method, and its square much memory.
COVARIANCE_UP_TO = 5_000
# LAPACK's subset solver up to here, ARPACK above (kernels.md: .39 s against .70 s for 50 of 2,000). From 500 columns on
# it works in float32 (.22 s), on as many vectors more than wanted, and these span a problem of their own in float64; it
# does so again in float64 if the largest angle to the exact space may exceed ANGLE.
LAPACK_UP_TO, SINGLE_FROM, GUARD, ANGLE = 2_500, 500, 20, 3e-4
# Products of float32 err by this share of the standard deviations of both columns (measured: at most 5e-7, see
# tests/test_components.py). Where an eigenvalue may thereby change by more than LOST of it, or the space of the
# components by more than an angle of TURNED, products of the scores along a few more are formed in float64, and if
# these do not hold the space either, all products. (Of 100,000 cells x 2,000 scaled genes 4.7e-6 and 4e-4 by these
# bounds, 2e-7 and 9e-5 in fact.)
SINGLE, LOST, TURNED = 5e-7, 5e-6, 1e-3
# The same as the root of the mean square over all pairs of columns (measured: 3.4e-8).
ROUNDING = SINGLE / 4
# The kernel takes the axes in panels of as many, and all panels in turn for so many rows, which stay in the cache.
PANEL, SCORES_ROWS = 32, 512
# Where the block method stops: at residuals of this size relative to the eigenvalues, or after as many passes.
TOLERANCE, MAX_PASSES, OVERSAMPLING = 1e-4, 30, 10
# A column whose mean is as many standard deviations from zero is centred before products of rows are formed: else these
# would lose the square of that, of 16 digits.
FAR = 1e3
# An eigenvalue that is a smaller share of the largest is none: rounding.
NOTHING = 1e-8

_limiting, _limiting_now = threading.Lock(), 0
_limits: Any = None


class Components(NamedTuple):
    """Leading principal components: of the columns around their mean, or around zero."""

    mean: np.ndarray
    """(m,): what was subtracted from each row."""
    axes: np.ndarray
    """(k, m): orthonormal rows; the largest loading of each is positive."""
    singular_values: np.ndarray
    """(k,): of the matrix minus the mean."""
    variance: np.ndarray
    """(k,): of the scores, over n - 1."""
    total_variance: float
    """Of all columns, over n - 1."""
    residual: float
    """0 for an exact method; else |C v - lambda v| / lambda of the worst component."""


def components(x: Any, k: int, *, centre: bool, method: str, seed: Any) -> Components:
    """The first k components; method is "auto", "covariance" or "blocks". Computed now, also on Dask."""
    n, m = x.shape
    if method == "auto":
        method = "blocks" if np.nanmin((n, m)) > COVARIANCE_UP_TO else "covariance"
    if method == "blocks":
        found = _by_blocks(x, k, centre, seed)
    elif n < m:
        _gram.check_size(n, None)
        found = _from_rows(_in_memory(x), k, centre, seed)
    else:
        found = _from_columns(x, k, centre, seed)
    largest = np.abs(found.axes).argmax(axis=1)
    signs = np.where(found.axes[np.arange(len(largest)), largest] < 0, -1.0, 1.0)
    return found._replace(axes=found.axes * signs[:, None])


def project(x: Any, axes: np.ndarray, mean: np.ndarray, dtype: np.dtype) -> Any:
    """The scores of each row minus the mean along k axes: shape (n, k), in `dtype`; lazy for Dask."""
    if is_dask(x):
        from . import _chunks

        return _chunks.map_rows(partial(_scores, dtype=dtype), "scores", x, len(axes), dtype, [axes, mean])
    if is_sparse(x):
        return _scores(x, axes, mean, dtype)
    out = np.empty((x.shape[0], len(axes)), dtype)
    fold(x, _write_scores, lambda parts: None, rows=[out], shared=[axes, mean], whole=True)
    return out


def project_now(x: Any, axes: np.ndarray, mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same, computed now."""
    scores = project(x, axes, mean, dtype)
    if not is_dask(scores):
        return scores
    from . import _chunks

    return np.concatenate(_chunks.in_memory(scores))


def _scores(block: Any, axes: np.ndarray, mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    block = container(block)
    offset = axes @ mean
    k, m = axes.shape
    if is_sparse(block) and block.format == "csc":
        return (_plain(block) @ axes.T - offset).astype(dtype)
    if not is_sparse(block):
        out = np.empty((len(block), k), dtype)
        for start, stop in _blocks.split_flat(len(block), max(1, 4 * _blocks.CAST_STEP // m)):  # cast in the cache
            out[start:stop] = block[start:stop] @ axes.T - offset
        return out
    c = compressed(block)
    if c.n_minor != m:  # a chunk that is not what its array says
        raise ValueError(f"the components have {m} columns, x has {c.n_minor}")
    panels = np.zeros((-(-k // PANEL), m, PANEL))
    for q, panel in enumerate(panels):
        part = axes[q * PANEL : (q + 1) * PANEL]
        panel[:, : len(part)] = part.T
    panels.setflags(write=False)
    out, kernel = np.empty((c.n_major, k), dtype), kernels()

    def rows(start: int, stop: int) -> None:
        products = np.empty((len(panels), SCORES_ROWS, PANEL))
        for first in range(start, stop, SCORES_ROWS):
            for p in row_pieces(c, first, min(first + SCORES_ROWS, stop), float_dtype(c.data.dtype)):
                check(c, p.lo, kernel.dot_panels(p.data, p.indices, p.indptr, 0, p.n, panels, products))
                for q in range(len(panels)):
                    columns = slice(q * PANEL, min((q + 1) * PANEL, k))
                    of = products[q, : p.n, : columns.stop - columns.start]
                    np.subtract(of, offset[columns], out=out[p.first : p.first + p.n, columns], casting="same_kind")

    run_rows(c, rows)
    return out


def _write_scores(block: Any, out: np.ndarray, axes: np.ndarray, mean: np.ndarray) -> None:
    out[:] = _scores(block, axes, mean, out.dtype)


def _plain(block: Any) -> Any:
    """A container in memory as NumPy and SciPy can multiply it."""
    block = container(block)
    return native(compressed(block)) if is_sparse(block) else block


def _in_memory(x: Any) -> Any:
    if not is_dask(x):
        return container(x)
    (blocks,) = fold(x, _listed, _joined, whole=True)
    return sp.vstack(blocks, format="csr") if all(map(sp.issparse, blocks)) else np.vstack(list(map(_dense, blocks)))


def _listed(block: Any) -> list[Any]:
    return [_plain(block)]


def _joined(parts: list[list]) -> list:
    return [block for part in parts for block in part]


def _dense(block: Any) -> np.ndarray:
    return _partials.to_ndarray(block)


def _check_finite(*values: Any) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError("PCA needs finite values: x contains NaN or infinity, or its squares overflow")


def _from_columns(x: Any, k: int, centre: bool, seed: Any) -> Components:
    _gram.check_size(x.shape[1], None, _gram.COPIES)
    with _one_blas_thread():
        for exact in (False, True):
            found = _products(x, exact)
            total = float(np.trace(found.products))
            _check_finite(found.mean, total)
            if found.n < k:
                raise ValueError(f"{k} components need as many rows; there are {found.n}")
            more = min(k + GUARD, len(found.mean)) if found.single else k
            values, basis, gap = _leading(found.products if centre else found.about_zero(), more, seed)
            gap = float(values[k - 1] - values[k]) if more > k else gap
            values, vectors = values[:k], basis[:, :k]
            squares = np.sum(vectors * (found.products @ vectors), axis=0)
            if not found.single or _is_safe(found, values, vectors, gap):
                break
            within = _within(x, basis, found, k, centre)
            if within is not None:
                values, vectors, squares = within
                break
    squares = values if centre else squares
    freedom = max(found.n - 1, 1)
    mean = found.mean if centre else np.zeros(len(found.mean))
    return Components(mean, vectors.T, np.sqrt(values), squares / freedom, total / freedom, 0.0)


def _is_safe(found: Comoments, values: np.ndarray, vectors: np.ndarray, gap: float) -> bool:
    """Whether the rounding of products in float32 cannot have changed too much. It is relative to the deviations.

    It is as good as random from pair to pair of columns, unless these have the same few values: then a part of it is
    the same in all pairs.
    """
    variances = np.diag(found.products)
    doubt = SINGLE * (variances @ vectors**2)
    alike = SINGLE / 16 * (np.sqrt(variances) @ vectors) ** 2
    return bool((doubt + alike < LOST * values).all() and doubt[-1] < TURNED * gap)


def _within(
    x: Any, basis: np.ndarray, found: Comoments, k: int, centre: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The leading k eigenpairs in the space of a few more, and squares: by all scores along these, in float64.

    Nothing is left there of the rounding of products. What that has done to the space itself is measured by the gap to
    what is outside (Davis & Kahan 1970), and that is not the next eigenvalue but one further away. None where it is not
    far enough.
    """
    (products,) = fold(x, _products_of_scores, _partials.add_all, shared=[basis.T.copy(), found.mean], whole=True)
    inside = Comoments(found.n, found.mean @ basis, products)
    values, inner = (part[..., ::-1] for part in scipy.linalg.eigh(products if centre else inside.about_zero()))
    inner, gaps = inner[:, :k], values[:k] - values[-1]
    vectors = basis @ inner
    deviations = np.sqrt(np.diag(found.products))
    # As in `_is_safe`: at random, and the same in all pairs; of the whole product with a vector.
    random, alike = np.linalg.norm(deviations[:, None] * vectors, axis=0), np.abs(deviations @ vectors)
    residuals = np.linalg.norm(deviations) * (ROUNDING * random + SINGLE / 16 * alike)
    if not (residuals < TURNED * gaps).all():
        return None
    return values[:k], vectors, np.sum(inner * (products @ inner), axis=0)


def _products_of_scores(block: Any, axes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    scores = _scores(block, axes, mean, np.dtype(float))
    return scores.T @ scores


def _products(x: Any, exact: bool) -> Comoments:
    """The co-moments of all rows; a matrix in memory is cut into blocks by them, which share the order of columns."""
    if is_dask(x):  # few at once: each is half a matrix of columns x columns
        (found,) = fold(x, partial(_comoments.packed, exact=exact), _comoments.merge, whole=True, at_once=3)
        found = found._replace(products=_gram.unpack(found.products))
    else:
        found = _comoments.comoments(x, exact=exact)
    return found._replace(products=_gram.finish_gram(found.products, found.products.dtype))


def _from_rows(x: Any, k: int, centre: bool, seed: Any) -> Components:
    """From the inner products of the rows: their eigenvectors are the scores."""
    n = x.shape[0]
    mean, var = (part.ravel() for part in _moments.mean_and_variance(_partials.moments(x, (0,)), 0))
    _check_finite(mean, var)
    # What is far from zero and varies little is centred first: else the others would vanish in its rounding.
    far = np.abs(mean) > FAR * np.sqrt(var) if centre else np.zeros(len(mean), bool)
    near = _select.take(x, ~far, axis=1)
    centred = _partials.to_ndarray(_select.take(x, far, axis=1)) - mean[far]
    products = _gram.finish_gram(_gram.partial_gram(near.T), np.dtype(float)) + centred @ centred.T
    if centre:
        of_rows = products.mean(axis=1)
        products += of_rows.mean() - of_rows[:, None] - of_rows
    values, scores, _ = _leading(products, k, seed)
    singular = np.sqrt(values)
    loadings = np.empty((len(mean), k))
    loadings[~far] = _plain(near).T @ scores
    if centre:
        loadings[~far] -= np.outer(mean[~far], scores.sum(axis=0))
    loadings[far] = centred.T @ scores
    # Orthonormal also where a singular value is zero.
    axes, lengths = np.linalg.qr(loadings)
    axes *= np.where(np.diag(lengths) < 0, -1, 1)
    freedom = max(n - 1, 1)
    variance = np.maximum(values if centre else values * (1 - scores.sum(axis=0) ** 2 / n), 0) / freedom
    return Components(mean if centre else np.zeros(len(mean)), axes.T, singular, variance, var.sum() * n / freedom, 0.0)


def _leading(matrix: np.ndarray, k: int, seed: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """The k largest eigenvalues of a symmetric matrix, falling and not negative; their vectors, as columns; and the gap
    between the last of them and the next."""
    m = len(matrix)
    if not np.trace(matrix) > 0:  # nothing varies
        return np.zeros(k), np.eye(m, k), 0.0
    more = min(k + GUARD, m)
    with _one_blas_thread():
        if m <= LAPACK_UP_TO or 4 * k > m:
            found = _by_single(matrix, k, more) if m >= SINGLE_FROM and more < m else None
            values, vectors = found or _by_lapack(matrix, min(k + 1, m))
        else:
            values, vectors = scipy.sparse.linalg.eigsh(matrix, k + 1, which="LA", v0=_random(seed, m))
    order = np.argsort(values)[::-1]
    values, vectors = np.maximum(values[order], 0), vectors[:, order[:k]]
    return values[:k], vectors, float(values[k - 1] - values[k] if len(values) > k else values[k - 1])


def _by_lapack(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    wanted = (len(matrix) - k, len(matrix) - 1)
    # The reduction of the upper triangle takes .136 s of 2,000 columns in float32, of the lower one .169.
    return scipy.linalg.eigh(matrix, subset_by_index=wanted, lower=False, driver="evr", check_finite=False)


def _by_single(matrix: np.ndarray, k: int, more: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Eigenpairs in the space of `more` eigenvectors that were found in float32, if that holds the leading k."""
    _, basis = _by_lapack((matrix / np.trace(matrix)).astype(np.float32), more)
    basis = np.linalg.qr(basis.astype(float))[0]
    images = matrix @ basis
    values, inner = scipy.linalg.eigh(basis.T @ images)
    vectors = basis @ inner
    residuals = np.linalg.norm(images @ inner - vectors * values, axis=0)[-k:]
    # Davis & Kahan: the angle to the space of the eigenvectors is at most the residual over the gap.
    return (values, vectors) if (residuals < ANGLE * (values[-k:] - values[0])).all() else None


def _random(seed: Any, *shape: int) -> np.ndarray:
    generator = seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)
    return generator.standard_normal(shape)


def _by_blocks(x: Any, k: int, centre: bool, seed: Any) -> Components:
    """Block Lanczos on the covariance matrix C, which is never formed: a pass gives C times a block of vectors.

    Eigenvectors are sought in all blocks so far (Musco & Musco, "Randomized block Krylov methods", 2015; Golub &
    Underwood 1977), and the residual C v - lambda v is known without another pass.
    """
    moments = _moments.side_by_side(fold(x, partial(_partials.moments, axes=(0,)), _moments.merge_all))
    mean, var = (part[0] for part in _moments.mean_and_variance(moments, 0))
    n, m = float(moments.n[0, 0]), len(mean)
    _check_finite(mean, var)
    shift = mean if centre else np.zeros(m)
    basis, images = np.empty((m, 0)), np.empty((m, 0))
    block = np.linalg.qr(_random(seed, m, min(k + OVERSAMPLING, m)))[0]
    for _ in range(MAX_PASSES):
        (image,) = fold(x, _covariance_times, _partials.add_all, shared=[block, shift], whole=True, at_once=3)
        basis, images = np.hstack([basis, block]), np.hstack([images, image])
        projected = basis.T @ images
        values, inner = scipy.linalg.eigh((projected + projected.T) / 2)
        values, inner = values[: -k - 1 : -1], inner[:, : -k - 1 : -1]
        vectors = basis @ inner
        lengths = np.linalg.norm(images @ inner - vectors * values, axis=0)
        residual = float((lengths / np.maximum(values, max(NOTHING * values[0], np.finfo(float).tiny))).max())
        block = _new_directions(image, basis)
        if residual <= TOLERANCE or not block.shape[1]:
            break
    values = np.maximum(values, 0)
    squares = values if centre else values - n * (mean @ vectors) ** 2
    freedom = max(n - 1, 1)
    total = var.sum() * n / freedom
    return Components(shift, vectors.T, np.sqrt(values), np.maximum(squares, 0) / freedom, total, residual)


def _new_directions(image: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Orthonormal columns of what the image adds to the basis; fewer where its directions are exhausted."""
    q, r, _ = scipy.linalg.qr(image - basis @ (basis.T @ image), mode="economic", pivoting=True)
    q = q[:, np.abs(np.diag(r)) > 1e-12 * np.linalg.norm(image)]
    return np.linalg.qr(q - basis @ (basis.T @ q))[0]


def _covariance_times(block: Any, vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    block = _plain(block)
    scores = block @ vectors - mean @ vectors
    return block.T @ scores - np.outer(mean, scores.sum(axis=0))


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """One BLAS thread, in the whole process: more are several times slower beside a busy neighbour."""
    global _limits, _limiting_now
    with _limiting:
        if not _limiting_now:
            _limits = threadpool_limits(1, "blas")
        _limiting_now += 1
    try:
        yield
    finally:
        with _limiting:
            _limiting_now -= 1
            if not _limiting_now:
                _limits.restore_original_limits()


def _renew_lock() -> None:
    """After a fork no lock may be held by another thread."""
    global _limiting, _limiting_now
    _limiting, _limiting_now = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
