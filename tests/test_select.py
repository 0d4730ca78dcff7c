"""Rows and columns taken out of a matrix, and the largest elements of rows: what NumPy gives of the dense matrix."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import csraxis as cx
from checks import assert_close, assert_exact, bits, parts, unchanged
from csraxis.dispatch import _blocks
from csraxis.dispatch._folds import tops
from csraxis.dispatch._select import take
from fresh import run
from strategies import CLASSES, COMPLEX, FLOATS, INTEGERS, REAL, dense_arrays, examples, matrices

FLAGS = ("_has_sorted_indices", "_has_canonical_format")
ALL = (*REAL, *COMPLEX)


def masks(n):
    """Any choice of n rows or columns; all and none more often than by chance."""
    some = st.lists(st.booleans(), min_size=n, max_size=n)
    return st.one_of(some, st.just([True] * n), st.just([False] * n)).map(lambda chosen: np.array(chosen, bool))


def entries(x):
    """(data, indices) of each row of csr, column of csc: stored entry by stored entry."""
    data, indices, indptr = parts(x)
    return [(data[lo:hi], indices[lo:hi]) for lo, hi in zip(indptr[:-1].tolist(), indptr[1:].tolist())]


def check_sparse(taken, x, keep, axis):
    """The entries of x that are kept, in the order of x, in the class and the types of x."""
    assert type(taken) is next(cls for cls in CLASSES if isinstance(x, cls))
    assert taken.dtype == x.dtype.newbyteorder("=") == taken.data.dtype
    assert taken.shape == tuple(keep.sum() if i == axis else n for i, n in enumerate(x.shape))
    index = x.indices.dtype if x.indices.dtype in (np.int32, np.int64) else np.int64
    assert taken.indices.dtype == taken.indptr.dtype == index
    major = entries(x)
    if axis == (x.format == "csc"):
        expected = [entry for entry, kept in zip(major, keep) if kept]
    else:
        place = np.cumsum(keep) - 1
        expected = [(data[keep[indices]], place[indices[keep[indices]]]) for data, indices in major]
    found = entries(taken)
    assert len(found) == len(expected)
    for (data, indices), (its_data, its_indices) in zip(found, expected):
        assert bits(data) == bits(its_data)
        assert indices.tolist() == its_indices.tolist()
    assert len(taken.data) == len(taken.indices) == taken.indptr[-1]
    taken.check_format(full_check=True)
    assert not any(np.shares_memory(a, b) for a in parts(taken) for b in parts(x))


# ---- in memory


@examples(matrices(ALL, values=("spread", "special", "small")), st.sampled_from([0, 1, -1, -2]), st.data())
def test_take(engine, x, axis, data):
    keep = data.draw(masks(x.shape[axis]))
    if data.draw(st.booleans()) and x.data.dtype.isnative and x.indptr.dtype == x.indices.dtype:
        x.has_canonical_format  # noqa: B018 - SciPy caches it
    known = {flag: getattr(x, flag) for flag in FLAGS if hasattr(x, flag)}
    with unchanged(x):
        taken = take(x, keep, axis)
    assert {flag: getattr(taken, flag) for flag in FLAGS if hasattr(taken, flag)} == known
    assert {flag: getattr(x, flag) for flag in FLAGS if hasattr(x, flag)} == known
    check_sparse(taken, x, keep, axis % 2)


@given(dense_arrays(ALL), st.sampled_from([0, 1, -1]), st.data())
def test_take_of_an_ndarray(x, axis, data):
    keep = data.draw(masks(x.shape[axis]))
    with unchanged(x):
        taken = take(x, keep, axis)
    expected = np.asarray(x)[keep] if axis == 0 else np.asarray(x)[:, keep]
    assert type(taken) is np.ndarray
    assert taken.dtype.isnative
    assert bits(taken) == bits(np.ascontiguousarray(expected))
    assert not np.shares_memory(taken, x)


def large(cls, dtype=np.float32, index=np.int32, n=400, m=300):
    """Unsorted, with duplicates."""
    rng = np.random.default_rng(0)
    n_major, n_minor = (n, m) if cls.__name__.startswith("csr") else (m, n)
    indptr = np.concatenate(([0], np.cumsum(rng.integers(0, 60, n_major))))
    x = cls((n, m), dtype=dtype)
    x.data = rng.integers(0, 99, indptr[-1]).astype(dtype)
    x.indices, x.indptr = rng.integers(0, n_minor, indptr[-1]).astype(index), indptr.astype(index)
    return x


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads(engine, monkeypatch, cls, axis, threads):
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    for dtype, index in (("float32", np.int32), ("int8", np.int64), ("complex128", np.int32), ("bool", np.int64)):
        x = large(cls, dtype, index)
        keep = np.random.default_rng(1).random(x.shape[axis]) < 0.4
        with cx.config(threads=threads):
            check_sparse(take(x, keep, axis), x, keep, axis)


def test_a_vector(engine):
    x, keep = sp.csr_array(np.array([3.0, 0, 4, 5, 0])), np.array([True, True, False, True, False])
    taken = take(x, keep, 0)
    assert type(taken) is sp.csr_array
    assert taken.toarray().tolist() == [3, 0, 5]
    assert take(np.arange(5), keep, 0).tolist() == [0, 1, 3]


def test_other_containers():
    keep = np.array([True, False, True])
    for axis in (0, 1):
        taken = take(sp.coo_array(np.arange(9).reshape(3, 3)), keep, axis)
        assert type(taken) is sp.csr_array
        assert taken.toarray().tolist() == np.compress(keep, np.arange(9).reshape(3, 3), axis).tolist()


@pytest.mark.parametrize("x", [np.eye(3), sp.csr_array(np.eye(3)), sp.csc_matrix(np.eye(3))])
def test_refused(x):
    keep = np.ones(3, bool)
    for wrong, error, message in (
        (keep[:2], ValueError, r"keep must have shape \(3,\) for axis=1 of x with shape \(3, 3\); got \(2,\)"),
        (keep[None], ValueError, r"keep must have shape \(3,\) .* got \(1, 3\)"),
        (keep.astype(int), TypeError, "keep must be a numpy.ndarray of bool; got int64"),
        (keep.tolist(), TypeError, "keep must be a numpy.ndarray of bool; got list"),
    ):
        with pytest.raises(error, match=message):
            take(x, wrong, 1)
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            take(x, keep, axis)
    with pytest.raises(TypeError, match="x must be a"):
        take([[1]], keep, 0)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("cls", CLASSES)
def test_malformed(engine, monkeypatch, cls, axis, index):
    monkeypatch.setattr(_blocks, "PARALLEL_FROM", 100)
    x = large(cls, index=index)
    n_minor = x.shape[x.format == "csr"]
    keep = np.ones(x.shape[axis], bool)
    for bad in (n_minor, -1, np.iinfo(index).max, np.iinfo(index).min):
        x.indices[1234], there = bad, x.indices[1234]
        message = rf"x.indices\[1234\] is {bad}, but"
        with unchanged(x), cx.config(threads=2), pytest.raises(ValueError, match=message):
            take(x, keep, axis)
        x.indices[1234] = there
        if x.format == ("csr", "csc")[axis]:  # where it is in a row that is not kept, nobody looks
            x.indices[1234], row = bad, np.searchsorted(x.indptr, 1234, "right") - 1
            others = np.arange(len(keep)) != row
            taken = take(x, others, axis)
            x.indices[1234] = there
            check_sparse(taken, x, others, axis)
    for place, bad in ((0, 1), (5, -1), (5, 10**6), (-1, len(x.data) + 1)):
        x.indptr[place], there = bad, x.indptr[place]
        with unchanged(x), pytest.raises(ValueError, match=r"x\.indptr"):
            take(x, keep, axis)
        x.indptr[place] = there
    take(x, keep, axis)


# ---- the largest elements of rows


def expected_tops(dense, ns):
    """Sums of Python numbers, NaN above all."""
    total = sum if dense.dtype.kind in "biu" else lambda values: sum(map(Fraction, values))
    rows = [sorted(row, reverse=True) for row in dense.tolist()]
    return np.array([[total(row[:n]) for n in ns] for row in rows], object).reshape(len(dense), len(ns))


def summed(x, dtype):
    """x with duplicates added up, dense."""
    dense = np.zeros(x.shape, dtype)
    if hasattr(x, "indptr"):
        for i, (data, indices) in enumerate(entries(x)):
            np.add.at(dense if x.format == "csr" else dense.T, (i, indices), data.astype(dtype))
        return dense
    return np.asarray(x).astype(dtype)


def check_tops(x, ns):
    kind = x.dtype.kind
    dtype = np.dtype({"f": np.float64, "u": np.uint64}.get(kind, np.int64))
    with unchanged(x):
        found = tops(x, ns)
    assert type(found) is np.ndarray
    assert found.dtype == dtype
    dense = summed(x, bool if kind == "b" else x.dtype.newbyteorder("=") if kind == "f" else dtype)
    expected = expected_tops(dense, ns)
    if kind == "f":
        scale = 1e-14 * float(np.abs(dense.astype(float)).max(initial=0)) * dense.shape[1]
        assert_close(found, expected, 1e-14, scale)
    else:
        assert_exact(found, expected)


NS = st.lists(st.integers(1, 12), min_size=0, max_size=4)


@examples(matrices((*INTEGERS, *FLOATS)), NS)
def test_tops(engine, x, ns):
    check_tops(x, ns)


@examples(matrices(("uint8", "uint16", "uint32", "uint64", "bool"), canonical=True), NS)
def test_tops_of_what_is_never_negative(engine, x, ns):
    check_tops(x, ns)


@given(dense_arrays(), NS)
def test_tops_of_an_ndarray(x, ns):
    check_tops(x, ns)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int16", "uint32", "bool"])
@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_matrix, np.asarray])
def test_tops_of_counts(engine, monkeypatch, cls, dtype):
    """Ties, empty rows and rows with fewer values; in several blocks and pieces."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(rng.choice([0, 0.2, 3], (60, 1)), (60, 90)).astype(dtype)
    expected = np.stack([np.sort(dense)[:, ::-1][:, :n].sum(1, dtype=float) for n in (50, 5, 20, 500)], axis=1)
    for step in (_blocks.CAST_STEP, 100):
        monkeypatch.setattr(_blocks, "CAST_STEP", step)
        monkeypatch.setattr(_blocks, "PARALLEL_FROM", step)
        with cx.config(threads=2):
            assert tops(cls(dense), (50, 5, 20, 500)).tolist() == expected.tolist()


@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_array, np.asarray])
def test_tops_of_special_values(engine, cls):
    dense = np.array(
        [
            [np.nan, 1, 0, 0],
            [-1, -2, 0, 3],
            [-1, -2, -3, -4],
            [np.inf, 1, 0, 0],
            [-np.inf, np.inf, 2, 0],
            [0, 0, 0, 0],
        ]
    )
    nan, inf = np.nan, np.inf
    expected = [[nan, nan, nan], [3, 3, 0], [-1, -3, -10], [inf, inf, inf], [inf, inf, nan], [0, 0, 0]]
    np.testing.assert_array_equal(tops(cls(dense), (1, 2, 4)), expected)
    np.testing.assert_array_equal(tops(cls(dense[3:4]), (1, 2, 9)), expected[3:4])
    large = np.array([[2**64 - 1, 0, 5], [2**63, 2**63 - 1, 1]], np.uint64)
    assert tops(cls(large), (1, 2)).tolist() == [[2**64 - 1, 4], [2**63, 2**64 - 1]]
    with pytest.raises(TypeError, match="real numbers; got complex128"):
        tops(cls(dense.astype(complex)), (1,))


def test_tops_of_a_bad_index(engine):
    for x in (sp.csr_array(-np.eye(3)), sp.csc_array(np.eye(3)), sp.csc_array(-np.eye(3))):
        x.indices[1] = 3
        x.has_canonical_format = True
        with pytest.raises(ValueError, match=r"x.indices\[1\] is 3"):
            tops(x, (1,))


# ---- Dask

da = pytest.importorskip("dask.array")

import dask  # noqa: E402

from dask_calls import CHUNKS, KINDS, boom, lazy, put_together, whole_numbers  # noqa: E402


def check_lazy(x, dense, keep, axis):
    with dask.config.set(scheduler=boom):
        taken = take(x, keep, axis)
    assert taken.dtype == x.dtype
    expected = np.compress(keep, dense, axis)
    blocks = dask.compute(taken.to_delayed(optimize_graph=False).tolist(), scheduler="sync")[0]
    assert bits(put_together(taken, blocks)) == bits(expected)
    return taken


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("kind", KINDS)
def test_take_of_chunks(kind, chunks, axis):
    for dtype in ("float32", "int32"):
        dense = whole_numbers(7, 5, dtype)
        x = lazy(dense, kind, CHUNKS[chunks])
        n = dense.shape[axis]
        for keep in (np.arange(n) % 3 == 1, np.arange(n) >= 4, np.ones(n, bool), np.zeros(n, bool)):
            taken = check_lazy(x, dense, keep, axis)
            assert taken.chunks[1 - axis] == x.chunks[1 - axis]
            cuts = np.split(keep, np.cumsum(x.chunks[axis])[:-1])
            assert taken.chunks[axis] == (tuple(cut.sum() for cut in cuts if cut.any()) or (0,))


def test_chunks_left_out_are_not_computed():
    loaded = []
    x = lazy(whole_numbers(7, 5, float), "csr_array", CHUNKS["uneven"])
    x = x.map_blocks(lambda block: loaded.append(block.shape) or block, meta=x._meta)
    keep = np.array([0, 0, 0, 1, 0, 1, 0], bool)
    loaded.clear()
    take(x, keep, 0).compute(scheduler="sync")
    assert sorted(loaded) == [(1, 2), (1, 3), (2, 2), (2, 3)]


def test_chunks_of_another_dtype_than_declared():
    dense = whole_numbers(7, 5, "float64")
    x = da.from_array(dense, (3, 2)).map_blocks(sp.csr_array, dtype=np.float32, meta=sp.csr_array((0, 0), dtype="f4"))
    check_lazy(x, dense.astype(np.float32), np.arange(5) != 3, 1)
    swapped = take(da.from_array(dense.astype(">f8"), (3, 2)), np.ones(7, bool), 0)
    assert swapped.dtype == swapped.compute(scheduler="sync").dtype == np.float64
    assert swapped.dtype.isnative


def test_a_later_change_of_keep_changes_nothing():
    keep = np.ones(7, bool)
    dense = whole_numbers(7, 5, float)
    taken = take(da.from_array(dense, 3), keep, 0)
    keep[:] = False
    assert bits(taken.compute(scheduler="sync")) == bits(dense)


def test_chunks_of_unknown_size():
    dense = whole_numbers(7, 5, float)
    x = lazy(dense, "csr_array", (3, 2))
    x = x[da.from_array(np.arange(7) % 2 == 0, 3)]
    with pytest.raises(ValueError, match="keep cannot be matched to chunks of unknown size"):
        take(x, np.ones(4, bool), 0)
    blocks = take(x, np.arange(5) > 1, 1).to_delayed().tolist()
    found = np.block([[block.toarray() for block in row] for row in dask.compute(blocks, scheduler="sync")[0]])
    assert bits(found) == bits(dense[::2, 2:])


def test_refused_when_called():
    x = lazy(whole_numbers(7, 5, float), "csr_array", (3, 2))
    with pytest.raises(ValueError, match=r"keep must have shape \(7,\)"):
        take(x, np.ones(5, bool), 0)
    with pytest.raises(TypeError, match="keep must be"):
        take(x, np.arange(7), 0)


def test_graphs():
    """One name for equal calls, whatever was computed between them; they pickle."""
    x = lazy(whole_numbers(7, 5, float), "csr_matrix", (3, 2)).persist(scheduler="sync")
    rows, columns = np.arange(7) % 2 == 0, np.arange(5) % 2 == 0
    first = take(x, rows, 0)
    expected = first.compute(scheduler="sync")
    cx.count_nonzero(x).compute(scheduler="sync")  # SciPy caches flags
    assert take(x, rows.copy(), 0).name == first.name
    names = {first.name, take(x, ~rows, 0).name, take(x, columns, 1).name, take(x[:5, :5], columns, 0).name}
    assert len(names) == 4
    copied = pickle.loads(pickle.dumps(first))
    assert bits(copied.compute(scheduler="sync")) == bits(expected)
    script = """
        import dask.array as da, numpy as np, scipy.sparse as sp
        from csraxis.dispatch._select import take
        x = da.from_array(np.eye(4), chunks=2, name="x").map_blocks(sp.csr_array, name="y")
        print(take(x, np.arange(4) > 1, 1).name)
    """
    assert run(script, PYTHONHASHSEED="1") == run(script, PYTHONHASHSEED="2")


def test_true_may_be_another_byte_than_one(engine):
    x = sp.csr_array(sp.random(30, 100, 0.99, format="csr", random_state=0, dtype="f4"))
    keep = np.zeros(100, "u1")
    keep[::3] = 255
    assert (take(x, keep.view(bool), 1).toarray() == x.toarray()[:, ::3]).all()
