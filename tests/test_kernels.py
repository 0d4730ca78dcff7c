"""The kernels themselves: the contract, the bits of every engine and CPU level, plain formulas, bad indices."""

import inspect
import math
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from checks import bits
from conftest import engine_or_skip
from csraxis.dispatch._engines import Kernels

CONTRACT = {name: member.__func__ for name, member in vars(Kernels).items() if isinstance(member, staticmethod)}
VALUES = ("float32", "float64", "int32", "int64", "uint8", "uint16")
INDICES = ("int32", "int64")
N_MINOR = 97
# Every length of the loops' last, partial step; some empty; and one over several blocks of the index check.
LENGTHS = [0, *range(81), 0, 0, 3000, 1]
BLOCKS = [(0, len(LENGTHS)), (7, 80)]


def levels():
    """The compiled kernels that this processor can run, by level."""
    cython = engine_or_skip("cython")
    highest = int(cython.cpu[-1]) if cython.cpu.startswith("x86-64-v") else 0
    names = [f"csraxis.kernels_cy._kernels_v{level}" for level in range(2, highest + 1)]
    return [import_module(name) for name in names if find_spec(name)] or [cython._kernels]


@pytest.fixture
def kernels(engine):
    """The kernels of each engine in turn."""
    return engine_or_skip(engine)


# ---- the contract


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", CONTRACT)
def test_twins_have_the_name_the_parameters_and_the_formula_of_the_contract(name):
    formula = CONTRACT[name].__doc__
    assert len(formula.splitlines()) == 1
    for module in levels():
        compiled = getattr(module, name)
        assert parameters(compiled) == parameters(CONTRACT[name])
        assert compiled.__doc__.splitlines()[-1] == formula  # after the signature that Cython writes
    numba = getattr(engine_or_skip("numba"), name).py_func
    assert parameters(numba) == parameters(CONTRACT[name])
    assert numba.__doc__ == formula


def test_an_engine_has_nothing_but_the_contract():
    numba = engine_or_skip("numba")
    assert set(numba.__all__) == set(CONTRACT)
    for module in levels():
        assert {name for name in dir(module) if not name.startswith("_")} == set(CONTRACT)
    for engine in (numba, engine_or_skip("cython")):
        assert isinstance(engine.cpu, str)


# ---- data


def values_of(dtype, n, rng, special=False):
    """Every magnitude from e^-30 to e^30, both signs, zeros; integers over their whole range."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return np.where(rng.random(n) < 0.2, 0, rng.integers(info.min, info.max, n, dtype, endpoint=True)).astype(dtype)
    x = rng.choice([-1, 1], n) * np.exp(rng.uniform(-30, 30, n))
    x[rng.random(n) < 0.1] = 0.0
    x[rng.random(n) < 0.05] = -0.0
    if special:
        x[rng.random(n) < 0.1] = -1
        for value in (np.nan, np.inf, -np.inf, 1e-310, 1e38):
            x[rng.random(n) < 0.01] = value
    return x.astype(dtype)


def matrix(dtype, index, seed=0, special=False):
    rng = np.random.default_rng(seed)
    indptr = np.concatenate(([0], np.cumsum(LENGTHS)))
    return values_of(dtype, indptr[-1], rng, special), rng.integers(0, N_MINOR, indptr[-1]).astype(index), indptr


def canonical(index, seed):
    """Indices and indptr of a matrix with as many rows, each sorted and without duplicates."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(rng.random(N_MINOR) < rng.choice([0, 0.1, 0.5, 1])) for _ in LENGTHS]
    return np.concatenate(rows).astype(index), np.concatenate(([0], np.cumsum([len(row) for row in rows])))


def accumulator(dtype):
    return np.dtype(float if np.dtype(dtype).kind == "f" else np.int64)


def moments_of(values, n):
    """A row for each of the four parts, of n sets of values: none, one, two, ... of any size, around any shift."""
    sets = [values[3 * i : 3 * i + i % 5].astype(float) for i in range(n)]
    shifts = [(0.0, 1.0, values[i], -0.3)[i % 4] for i in range(n)]
    parts = [(len(v), np.sum(v - shift), np.sum((v - shift) ** 2), shift) for v, shift in zip(sets, shifts)]
    return np.ascontiguousarray(np.array(parts, float).reshape(n, 4).T)


def words(flags):
    """Flags as the bits of 64-bit numbers, the first one lowest."""
    padded = np.append(flags, np.zeros(-len(flags) % 64, bool))
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def calls(name, dtype, index, special, start, stop):
    """Arguments for a kernel, several times where it has options; the outputs are the last ones, new in each."""
    data, indices, indptr = matrix(dtype, index, special=special)
    acc = accumulator(dtype)
    rng = np.random.default_rng(1)
    n = stop - start
    by_row, by_column = values_of(acc, len(LENGTHS), rng), values_of(acc, N_MINOR, rng)
    untouched = data.copy()
    records = np.zeros((N_MINOR, 4))
    records[:, 3] = rng.normal(0, 1e3, N_MINOR)
    divisions = (False, True) if acc.kind == "f" else (False,)  # integers are never divided
    n_stored = indptr[stop] - indptr[start]
    whole = np.zeros(n + 1, int)
    keeps = (rng.random(N_MINOR) < 0.4, np.ones(N_MINOR, bool), np.zeros(N_MINOR, bool))
    return {
        "check_indices": [(indices, indptr, start, stop, N_MINOR)],
        "is_canonical": [(indices, indptr, start, stop)],
        "sum_major": [(data, indptr, start, stop, np.full(n, 7, acc))],
        "sum_minor": [(data, indices, indptr, start, stop, np.full(N_MINOR, 7, acc))],
        "fold_major": [(data, indptr, start, stop, op, np.full(n, 1, acc)) for op in range(3)],
        "fold_minor": [(data, indices, indptr, start, stop, op, np.full(N_MINOR, 1, acc)) for op in range(3)],
        "count_major": [(data, indptr, start, stop, np.full(n, 7))],
        "count_minor": [(data, indices, indptr, start, stop, np.full(N_MINOR, 7))],
        "moments_major": [(data, indptr, start, stop, np.full((n, 4), 7.0))],
        "moments_minor": [(data, indices, indptr, start, stop, records)],
        "expm1_moments_minor": [(data, indices, indptr, start, stop, scale, records.copy()) for scale in (1.0, 0.7)],
        "power_sums_minor": [(data, indices, indptr, start, stop, np.full((N_MINOR, 2), 7.0))],
        "merge_moments": [(moments_of(data, n), moments_of(data[::-1], n), np.full((4, n), 7.0))],
        "finish_moments": [
            (moments_of(data, n), correction, np.full(n, 7.0), np.full(n, 7.0)) for correction in (0, 1.5)
        ],
        "scale_major": [(data, indptr, start, stop, by_row, divide, untouched.copy()) for divide in divisions],
        "scale_minor": [
            (data, indices, indptr, start, stop, by_column, divide, untouched.copy()) for divide in divisions
        ],
        "expm1": [(data, int(indptr[start]), int(indptr[stop]), untouched.copy())],
        "match_major": [(*canonical(index, 1), start, stop, *canonical(index, 2), np.full(N_MINOR * len(LENGTHS), 7))],
        "gram_major": [(data, indices, indptr, start, stop, np.full((N_MINOR, N_MINOR), 7.0))],
        "gram_panels": [
            (data, indices, indptr, start, stop, *gram_scratch(dtype, n_dense, n_full, rng))
            for n_dense, n_full in PANELS
        ],
        "dot_panels": [
            (data, indices, indptr, start, stop, rng.normal(size=(q, N_MINOR, 32)), np.full((q, n, 32), 7.0))
            for q in (0, 1, 3)
        ],
        "log1p": [(data, int(indptr[start]), int(indptr[stop]), untouched.copy())],
        "normalize_major": [
            (data, indptr, start, stop, 1e4, log, np.full(n, 7.0), untouched.copy()) for log in (False, True)
        ],
        "find_minor": [
            (indices, indptr, start, stop, keep.view(np.uint8), np.full((n_stored + 63) // 64, 7, np.uint64), whole + 7)
            for keep in keeps
        ],
        "take_minor": [
            (
                *(data, indices, indptr, start, stop, words(keep[indices[indptr[start] : indptr[stop]]])),
                *((np.cumsum(keep) - 1).astype(index), np.full(n_stored, 7, dtype), np.full(n_stored, 7, index)),
            )
            for keep in keeps
        ],
        "take_major": [
            (
                *(data, indices, indptr, start, stop, keep.view(np.uint8), N_MINOR),
                *(np.full(n_stored, 7, dtype), np.full(n_stored, 7, index)),
            )
            for keep in (np.ones(len(LENGTHS), bool), rng.random(len(LENGTHS)) < 0.4, np.zeros(len(LENGTHS), bool))
        ],
        "top_major": [
            (
                *(data, indptr, start, stop, np.array(ns, int)),
                *(np.full(max(LENGTHS), 7, dtype), np.full((n, len(ns)), 7, acc)),
            )
            for ns in ((5, 20, 64), (1,), (0, 10, 11, 2999, 3000, 9999), ())
        ],
    }[name]


# Columns in panels, and how many of these are full: none, some, all.
PANELS = ((0, 0), (5, 0), (40, 3), (N_MINOR, 2), (N_MINOR, N_MINOR))


def gram_scratch(dtype, n_dense, n_full, rng, height=16):
    """What gram_panels takes besides the matrix: random places and shifts, scratch, and sums that are not zero."""
    if np.dtype(dtype).kind != "f":
        dtype = np.dtype(float)
    width = 256 // np.dtype(dtype).itemsize
    n_panels = -(-n_dense // width)
    shift = np.zeros(n_panels * width)
    shift[:n_full] = rng.normal(0, 2, n_full)
    room = sum(LENGTHS) + height * n_full
    return (
        *(rng.permutation(N_MINOR).astype(np.int32), n_full, shift),
        *(np.full(N_MINOR + 1, 7), np.full(room, 7, np.int32), np.full(room, 7, dtype)),
        *(np.full((n_panels, n, width), 7, dtype) for n in (height, N_MINOR)),
        np.full((N_MINOR, N_MINOR), 7.0),
    )


# How many outputs a kernel has, where it may be more than two; scratch too.
OUTPUTS = {"gram_panels": 6}

CASES = [
    (name, dtype, index)
    for name in CONTRACT
    for dtype in (("float32",) if "data" not in parameters(CONTRACT[name]) else VALUES)
    for index in (INDICES if "indices" in parameters(CONTRACT[name]) else INDICES[:1])
    if dtype.startswith("float")
    or name not in ("log1p", "expm1", "expm1_moments_minor", "normalize_major", "gram_panels", "dot_panels")
]


# ---- bits


@pytest.mark.parametrize(("name", "dtype", "index"), CASES)
def test_every_engine_and_level_gives_the_same_bits(name, dtype, index):
    engines = [*levels(), engine_or_skip("numba")]
    for special in (False, True) if dtype.startswith("float") else (False,):
        for start, stop in ((0, len(LENGTHS)), (5, 60), (83, 85), (9, 9)):
            results = []
            outputs = OUTPUTS.get(name, 2)
            for module in engines:
                results.append([])
                for arguments in calls(name, dtype, index, special, start, stop):
                    arguments = [*map(read_only, arguments[:-outputs]), *arguments[-outputs:]]
                    with np.errstate(all="ignore"):
                        returned = getattr(module, name)(*arguments)
                    found = [bits(a) for a in arguments[-outputs:] if isinstance(a, np.ndarray)]
                    results[-1].append((returned, *found))
            assert all(result == results[0] for result in results[1:])


@pytest.mark.parametrize("name", ["scale_major", "scale_minor", "log1p", "normalize_major"])
@pytest.mark.parametrize("dtype", VALUES)
def test_in_place_as_into_a_new_buffer(kernels, name, dtype):
    if (name, dtype, INDICES[0]) not in CASES:
        return
    for start, stop in ((0, len(LENGTHS)), (5, 60)):
        for new in calls(name, dtype, "int32", False, start, stop):
            data, out = new[0], new[-1]
            getattr(kernels, name)(read_only(data), *new[1:])
            getattr(kernels, name)(read_only(data), *new[1:-1], data)
            assert bits(data) == bits(out)


def read_only(array):
    """A view that a kernel cannot write to: what it is given by dispatch, and what Numba is compiled for."""
    if isinstance(array, np.ndarray):
        array = array.view()
        array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "name", ["sum_major", "sum_minor", "fold_major", "fold_minor", "scale_major", "scale_minor", "top_major"]
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_compiled_kernels_refuse_an_accumulator_of_the_other_kind(name, dtype):
    place = parameters(CONTRACT[name]).index("factors" if name.startswith("scale") else "out")
    arguments = list(calls(name, dtype, "int32", False, 5, 60)[0])
    arguments[place] = arguments[place].astype(np.int64 if dtype == "float32" else float)
    for module in levels():
        with pytest.raises(TypeError, match=f"{name}: (floats|integers) are"):
            getattr(module, name)(*arguments)


# ---- formulas


def exact(values):
    return sum(map(Fraction, values.tolist()))


def run(kernels, name, dtype, start, stop, which=0):
    """The arguments after the call, by name, with what `out` was before; asserts that no index was bad."""
    before, arguments = (calls(name, dtype, "int32", False, start, stop)[which] for _ in range(2))
    assert getattr(kernels, name)(*arguments) in (None, -1)
    found = dict(zip(parameters(CONTRACT[name]), arguments))
    return found, before[-1], arguments[-1]


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
class TestFormula:
    def test_major_reductions(self, kernels, dtype, start, stop):
        found, _, sums = run(kernels, "sum_major", dtype, start, stop)
        counts = run(kernels, "count_major", dtype, start, stop)[2]
        records = run(kernels, "moments_major", dtype, start, stop)[2]
        for i in range(start, stop):
            row = found["data"][found["indptr"][i] : found["indptr"][i + 1]]
            total, size = exact(row), float(exact(np.abs(row.astype(float))))
            if sums.dtype.kind == "i":
                assert (int(sums[i - start]) - int(total)) % 2**64 == 0
            else:
                assert abs(sums[i - start] - float(total)) <= 1e-15 * size * len(row)
            assert counts[i - start] == np.count_nonzero(row)
            n, s1, s2, shift = records[i - start].tolist()
            assert n == len(row)
            d = [Fraction(float(v)) - Fraction(shift) for v in row.tolist()]
            assert math.isclose(s2, float(sum(v * v for v in d)), rel_tol=1e-12)
            assert abs(s1 - float(sum(d))) <= 1e-14 * float(sum(map(abs, d))) * max(n, 1)
            mean, variance = float(sum(d)) / max(n, 1), s2 / max(n, 1)
            assert mean**2 <= variance * (0.8 + 1e-9)  # the shift is near the mean

    def test_minor_reductions(self, kernels, dtype, start, stop):
        found, before, sums = run(kernels, "sum_minor", dtype, start, stop)
        counts = run(kernels, "count_minor", dtype, start, stop)[2]
        _, given, records = run(kernels, "moments_minor", dtype, start, stop)
        pairs = run(kernels, "power_sums_minor", dtype, start, stop)[2]
        used = slice(found["indptr"][start], found["indptr"][stop])
        for j in range(N_MINOR):
            column = found["data"][used][found["indices"][used] == j]
            total = exact(column) + int(before[j])
            if sums.dtype.kind == "i":
                assert (int(sums[j]) - int(total)) % 2**64 == 0
            else:
                assert abs(sums[j] - float(total)) <= 1e-14 * (float(exact(np.abs(column))) + 7)
            assert counts[j] == np.count_nonzero(column) + 7
            n, s1, s2, shift = records[j].tolist()
            assert (n, shift) == (len(column), given[j, 3])
            d = [Fraction(float(v)) - Fraction(shift) for v in column.tolist()]
            assert math.isclose(s2, float(sum(v * v for v in d)), rel_tol=1e-12)
            assert abs(s1 - float(sum(d))) <= 1e-14 * float(sum(map(abs, d)))
            total, squares = (pairs[j] - 7).tolist()
            values = [Fraction(float(v)) for v in column.tolist()]
            size = float(sum(map(abs, values)) + 7)
            assert abs(total - float(sum(values))) <= 1e-14 * size
            assert math.isclose(squares, float(sum(v * v for v in values)), rel_tol=1e-12, abs_tol=1e-14)

    @pytest.mark.parametrize("name", ["scale_major", "scale_minor"])
    def test_scale(self, kernels, name, dtype, start, stop):
        for which, op in enumerate((np.multiply, np.divide) if np.dtype(dtype).kind == "f" else (np.multiply,)):
            found, before, out = run(kernels, name, dtype, start, stop, which)
            data, factors, indptr = found["data"], found["factors"], found["indptr"]
            each = np.repeat(factors, LENGTHS) if name == "scale_major" else factors[found["indices"]]
            with np.errstate(all="ignore"):
                expected = op(data.astype(factors.dtype), each).astype(dtype)
            expected[: indptr[start]], expected[indptr[stop] :] = before[: indptr[start]], before[indptr[stop] :]
            assert bits(out) == bits(expected)


@pytest.mark.parametrize("dtype", VALUES[:2])
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
def test_normalize(kernels, dtype, start, stop):
    for which, log in enumerate((False, True)):
        found, before, out = run(kernels, "normalize_major", dtype, start, stop, which)
        totals = run(kernels, "sum_major", dtype, start, stop)[2]
        assert bits(found["totals"]) == bits(totals)
        expected, indptr = before.copy(), found["indptr"]
        used = slice(indptr[start], indptr[stop])
        with np.errstate(all="ignore"):
            factors = np.where(totals != 0, 1e4 / totals, 1)
            expected[used] = found["data"][used].astype(float) * np.repeat(factors, LENGTHS[start:stop])
        if log:
            kernels.log1p(expected.copy(), used.start, used.stop, expected)
        assert bits(out) == bits(expected)


def exact_moments(values, shift):
    d = [v - Fraction(shift) for v in values]
    return len(values), sum(d), sum(v * v for v in d)


def test_moments_that_are_merged_and_finished(kernels):
    """Of fractions right to 1e-14 of their size; of integers exact, whatever the shifts were."""
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 50, 40).astype(float)
    for values, shifts, tolerance in (
        (whole, (0.0, 3.0), 0),
        (whole + 1e6, (0.0, 1e6), 0),
        (1e6 + rng.normal(0, 1, 40), (1e6, 1e6 - 1), 1e-14),
        (rng.normal(0, 1, 40), (0.5, -0.25), 1e-14),
    ):
        values = [Fraction(v) for v in values.tolist()]
        for cut in (0, 1, 7, 20, 40):
            a, b = (
                np.array([[float(part)] for part in (*exact_moments(half, shift), shift)])
                for half, shift in zip((values[:cut], values[cut:]), shifts)
            )
            merged, mean, var = np.empty((4, 1)), np.empty(1), np.empty(1)
            kernels.merge_moments(a, b, merged)
            n, s1, s2, shift = merged[:, 0].tolist()
            expected = exact_moments(values, shift)
            assert n == expected[0]
            assert abs(s1 - expected[1]) <= tolerance * 40 * max(map(abs, values))
            assert abs(s2 - expected[2]) <= tolerance * 40 * expected[2]
            kernels.finish_moments(merged, 1.0, mean, var)
            centre = sum(values) / 40
            assert math.isclose(mean[0], centre, rel_tol=1e-13)
            assert math.isclose(var[0], exact_moments(values, centre)[2] / 39, rel_tol=1e-12)
            assert (centre - Fraction(shift)) ** 2 <= 2 * exact_moments(values, centre)[2] / 40


def test_moments_of_nothing_of_one_and_of_what_is_not_finite(kernels):
    moments = np.array([(0, 0, 0, 5), (1, 0, 0, 2.5), (2, np.inf, np.inf, 0), (2, np.nan, np.nan, 1)], float).T.copy()
    mean, var = np.empty(4), np.empty(4)
    kernels.finish_moments(moments, 0.0, mean, var)
    assert bits(mean) == bits(np.array([np.nan, 2.5, np.inf, np.nan]))
    assert bits(var) == bits(np.array([np.nan, 0, np.nan, np.nan]))
    kernels.finish_moments(moments, 1.0, mean, var)
    assert np.isnan(var).all()
    merged = np.empty((4, 4))
    kernels.merge_moments(moments, np.zeros((4, 4)), merged)  # with nothing: the same, around a shift near the mean
    assert merged.T.tolist()[:3] == [[0, 0, 0, 5], [1, 0, 0, 2.5], [2, np.inf, np.inf, 0]]


@pytest.mark.parametrize("index", INDICES)
def test_is_canonical(kernels, index):
    rows = [[], [0], [0, 5], list(range(70)), [9], []]
    indptr = np.cumsum([0, *map(len, rows)])
    good = np.array([j for row in rows for j in row], index)
    assert kernels.is_canonical(good, indptr, 0, len(rows))
    for row, position in ((2, 2), (3, 4), (3, 40), (3, 72)):
        for change in (0, -1):  # a duplicate, a fall
            indices = good.copy()
            indices[position] = indices[position - 1] + change
            assert not kernels.is_canonical(indices, indptr, 0, len(rows))
            assert not kernels.is_canonical(indices, indptr, row, row + 1)
            assert kernels.is_canonical(indices, indptr, 0, row)
            assert kernels.is_canonical(indices, indptr, row + 1, len(rows))


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("n", [63, 64, 65, 66, 127, 128, 129, 130, 200])
def test_is_canonical_anywhere_in_a_long_row(kernels, index, n):
    """Whether an index repeats the one before it, or is less: also where the loop goes on in another block."""
    indptr = np.array([0, 3, 3 + n, 6 + n])
    good = np.concatenate([[5, 6, 7], np.arange(n), [0, 1, 2]]).astype(index)
    assert kernels.is_canonical(read_only(good), read_only(indptr), 0, 3)
    for position in range(4, 3 + n):
        for less in (0, 1):
            bad = good.copy()
            bad[position:-3] -= 1 + less
            assert not kernels.is_canonical(read_only(bad), read_only(indptr), 0, 3), position


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
@pytest.mark.parametrize(("op", "ufunc"), list(enumerate([np.maximum, np.minimum, np.multiply])))
def test_folds(kernels, dtype, start, stop, op, ufunc):
    found, _, out = run(kernels, "fold_major", dtype, start, stop, op)
    indptr, data = found["indptr"], found["data"].astype(out.dtype)
    with np.errstate(all="ignore"):
        expected = [ufunc.reduce(data[indptr[i] : indptr[i + 1]], initial=1) for i in range(start, stop)]
    assert bits(out + 0) == bits(np.array(expected, out.dtype) + 0)  # which of two zeros is larger is not said
    found, expected, out = run(kernels, "fold_minor", dtype, start, stop, op)
    used = slice(indptr[start], indptr[stop])
    with np.errstate(all="ignore"):
        ufunc.at(expected, found["indices"][used], data[used])
    assert bits(out + 0) == bits(expected + 0)


@pytest.mark.parametrize("op", [0, 1, 2])
def test_a_nan_stays(kernels, op):
    out = np.zeros(3)
    kernels.fold_major(np.array([1, np.nan, 2, 3, np.nan, -1]), np.array([0, 3, 4, 6]), 0, 3, op, out)
    assert np.isnan(out).tolist() == [True, False, True]


@pytest.mark.parametrize(("start", "stop"), BLOCKS)
def test_match(kernels, start, stop):
    found, before, out = run(kernels, "match_major", "float32", start, stop)
    expected = before.copy()
    for i in range(start, stop):
        row, other = (slice(found[name][i], found[name][i + 1]).indices(10**9) for name in ("indptr", "other_indptr"))
        places = {found["other_indices"][k]: k for k in range(*other)}
        expected[slice(*row)] = [places.get(found["indices"][k], -1) for k in range(*row)]
    assert bits(out) == bits(expected)
    assert (out[: found["indptr"][stop]] >= 0).any()


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("start", "stop"), [(7, 40)])
def test_gram(kernels, dtype, start, stop):
    found, before, out = run(kernels, "gram_major", dtype, start, stop)
    expected, size = before.astype(object), np.abs(before)
    for i in range(start, stop):
        row = range(found["indptr"][i], found["indptr"][i + 1])
        for k in row:
            for m in row[k - row.start :]:
                product = Fraction(float(found["data"][k])) * Fraction(float(found["data"][m]))
                expected[found["indices"][k], found["indices"][m]] += product
                size[found["indices"][k], found["indices"][m]] += abs(product)
    assert (np.abs(out - expected.astype(float)) <= 1e-14 * size).all()


@pytest.mark.parametrize("dtype", VALUES[:2])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("n_panels", [0, 1, 3])
def test_products_with_panels(kernels, index, dtype, n_panels):
    data, indices, indptr = matrix(dtype, index)
    start, stop = 7, 84
    panels = np.random.default_rng(3).normal(size=(n_panels, N_MINOR, 32))
    out = np.full((n_panels, stop - start + 1, 32), 7.0)
    assert kernels.dot_panels(*map(read_only, (data, indices, indptr)), start, stop, read_only(panels), out) == -1
    assert (out[:, -1] == 7).all()
    for i in range(start, stop):
        row = slice(indptr[i], indptr[i + 1])
        terms = data[row, None].astype(float) * panels[:, indices[row]]
        expected = np.add.accumulate(terms, axis=1)[:, -1] if terms.shape[1] else np.zeros((n_panels, 32))
        assert bits(out[:, i - start] + 0) == bits(expected + 0)


@pytest.mark.parametrize("whole", [True, False], ids=["whole numbers", "any"])
@pytest.mark.parametrize("dtype", VALUES[:2])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize(("n_dense", "n_full"), PANELS)
def test_gram_in_panels(kernels, index, dtype, n_dense, n_full, whole):
    """Every product is in the panel of the denser column, or in `out`; the rest of both is untouched."""
    rng = np.random.default_rng(2)
    indices, indptr = canonical(index, 1)
    data = rng.integers(-9, 10, len(indices)).astype(dtype) if whole else rng.normal(size=len(indices)).astype(dtype)
    start, stop = 7, 80  # blocks of 16 rows, the last of 9
    x = np.zeros((stop - start, N_MINOR))
    for i in range(start, stop):
        row = slice(indptr[i], indptr[i + 1])
        x[i - start, indices[row]] = data[row]
    arguments = gram_scratch(dtype, n_dense, n_full, rng)
    place, _, shift, *_, sums, out = arguments
    shift[:] = np.rint(shift) if whole else shift
    assert kernels.gram_panels(*map(read_only, (data, indices, indptr)), start, stop, *arguments) == -1
    order = np.argsort(place)
    x = x[:, order]
    x[:, :n_full] = (x[:, :n_full] - shift[:n_full]).astype(dtype)
    expected, size = x.T @ x, np.abs(x).T @ np.abs(x)
    in_panels = sums.shape[0] * sums.shape[2]
    rest = np.full((N_MINOR, N_MINOR), 7.0)
    last = order[in_panels:]
    upper = last[:, None] <= last
    rest[np.ix_(last, last)] += np.where(upper, expected[in_panels:, in_panels:], 0)
    np.testing.assert_allclose(out, rest, rtol=1e-13 * (not whole), atol=1e-13 * size.max() * (not whole))
    for q, panel in enumerate(sums):
        first = q * sums.shape[2]
        columns = expected[:, first : first + sums.shape[2]]
        assert (panel[:first] == 7).all()
        assert (panel[:, columns.shape[1] :] == 7).all()
        difference = np.abs(panel[first:, : columns.shape[1]] - 7 - columns[first:])
        of = size[first:, first : first + sums.shape[2]]
        assert (difference <= 8 * np.finfo(dtype).eps * (of + 7) * (not whole)).all()


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
def test_take_major(kernels, dtype, index, start, stop):
    for arguments in calls("take_major", dtype, index, True, start, stop):
        assert kernels.take_major(*map(read_only, arguments[:-2]), *arguments[-2:]) == -1
        data, indices, indptr, *_, keep, _, out_data, out_indices = arguments
        used = slice(indptr[start], indptr[stop])
        kept = np.repeat(keep, np.diff(indptr))[used] == 1
        n = np.count_nonzero(kept)
        assert bits(out_data[:n]) == bits(data[used][kept])
        assert bits(out_indices[:n]) == bits(indices[used][kept])
        assert set(out_indices[n:].tolist()) <= {7}  # nothing else is written


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
def test_take(kernels, dtype, index, start, stop):
    finds, takes = (calls(name, dtype, index, True, start, stop) for name in ("find_minor", "take_minor"))
    for find, take in zip(finds, takes, strict=True):
        assert kernels.find_minor(*map(read_only, find[:-2]), *find[-2:]) == -1
        kernels.take_minor(*map(read_only, take[:-2]), *take[-2:])
        data, indices, indptr, *_, found, place, out_data, out_indices = take
        keep, its_found, before = find[-3:]
        used = slice(indptr[start], indptr[stop])
        kept = keep[indices[used]] == 1
        n = np.count_nonzero(kept)
        assert its_found.tolist() == found.tolist()
        assert before.tolist() == [np.count_nonzero(kept[: k - used.start]) for k in indptr[start : stop + 1]]
        assert bits(out_data[:n]) == bits(data[used][kept])
        assert bits(out_indices[:n]) == bits(place[indices[used][kept]])
        assert set(out_indices[n:].tolist()) <= {7}  # nothing else is written


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize(("start", "stop"), BLOCKS)
def test_top(kernels, dtype, start, stop):
    for which in range(4):
        found, _, out = run(kernels, "top_major", dtype, start, stop, which)
        for i in range(start, stop):
            row = np.sort(found["data"][found["indptr"][i] : found["indptr"][i + 1]])[::-1]
            for q, n in enumerate(found["ns"]):
                total = exact(row[:n])
                if out.dtype.kind == "i":
                    assert (int(out[i - start, q]) - int(total)) % 2**64 == 0
                else:
                    assert abs(out[i - start, q] - float(total)) <= 1e-14 * float(exact(np.abs(row[:n])))


ROWS = {
    "equal": np.ones(200_000),
    "counts": np.random.default_rng(0).poisson(0.3, 200_000).astype(float) + 1,
    "rising": np.arange(200_000.0),
    "falling": np.arange(200_000.0, 0, -1),
    "rising and falling": np.concatenate((np.arange(100_000.0), np.arange(100_000.0)[::-1])),
    "up and down": np.arange(200_000.0) % 1000,
}


@pytest.mark.parametrize("order", ROWS)
def test_top_of_long_rows(kernels, order):
    """A selection in quadratic time would take minutes."""
    row = ROWS[order]
    ns = np.array([1, 2, 100, 99_999, 100_000, 150_000])
    out = np.empty((1, len(ns)))
    kernels.top_major(row, np.array([0, len(row)]), 0, 1, ns, np.empty_like(row), out)
    assert out[0].tolist() == [np.sort(row)[-n:].sum() for n in ns]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1])
def test_top_among_nans(kernels, share):
    """Which values are chosen is not said; but it ends, inside the scratch, which has the values of the row."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 40, 1000):
        row = rng.integers(0, 9, n).astype(float)
        row[rng.random(n) < share] = np.nan
        around = np.full(n + 20, 7.0)
        out = np.empty((1, 3))
        kernels.top_major(row, np.array([0, n]), 0, 1, np.array([1, n // 2 + 1, n + 1]), around[10:-10], out)
        assert (np.delete(around, np.s_[10:-10]) == 7).all()
        assert bits(np.sort(around[10:-10])) == bits(np.sort(row))
        assert np.isnan(out[0, 2]) == np.isnan(row).any()


# ---- bad indices

CHECKING = [
    name
    for name in CONTRACT
    if CONTRACT[name].__doc__.endswith(("position of a bad index", "or -1", "returns as there", "as sum_minor"))
]


@pytest.mark.parametrize("name", CHECKING)
@pytest.mark.parametrize("index", INDICES)
def test_the_first_bad_index_is_returned(kernels, name, index):
    """At both edges of blocks of 64 and 256; out of range by one, or by all that the type has."""
    first, last = sum(LENGTHS[:5]), sum(LENGTHS[:85])
    info = np.iinfo(index)
    for position in (
        first,
        first + 63,
        first + 64,
        first + 65,
        first + 255,
        first + 256,
        last - 65,
        last - 64,
        last - 1,
    ):
        for bad in (N_MINOR, -1, int(info.min), int(info.max)):
            arguments = list(calls(name, "float32", index, False, 5, 85)[0])
            indices = arguments[parameters(CONTRACT[name]).index("indices")]
            indices[position] = bad
            if position + 1 < last:
                indices[position + 1] = -1  # a second one
            indices[first - 1] = indices[last] = -1  # not in the block
            assert getattr(kernels, name)(*arguments) == position


@pytest.mark.parametrize("name", CHECKING)
def test_no_columns(kernels, name):
    """Every index is bad then; with nothing stored, none is."""
    arguments = list(calls(name, "float32", "int32", False, 5, 85)[0])
    names = parameters(CONTRACT[name])
    columns = ("n_minor", "factors", "keep", "place", "panels", "out")
    place = next(names.index(name) for name in columns if name in names)
    argument = arguments[place]
    arguments[place] = 0 if "n_minor" in names else argument[:, :0] if names[place] == "panels" else argument[:0]
    assert getattr(kernels, name)(*arguments) == sum(LENGTHS[:5])
    arguments[names.index("stop")] = 5
    assert getattr(kernels, name)(*arguments) == -1


# ---- log1p


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log1p_is_within_1_5_ulp(kernels, dtype):
    """Every magnitude of the type, the neighbourhoods of -1, 0 and of the powers of two where the exponent changes."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no extended precision here")
    rng = np.random.default_rng(0)
    info, n = np.finfo(dtype), 300_000
    spread = np.exp(rng.uniform(np.log(float(info.smallest_normal)), np.log(float(info.max)), n))
    powers = np.ldexp(rng.uniform(0.99, 1.01, n), rng.integers(-30, 60, n)) * rng.choice([1, np.sqrt(2)], n) - 1
    x = np.concatenate((spread, -spread[spread < 1], powers, rng.uniform(-1, 1, n), rng.integers(0, 10**6, n)))
    x = x.astype(dtype)
    x = x[(x > -1) & np.isfinite(x)]
    out = np.empty_like(x)
    kernels.log1p(x, 0, len(x), out)
    exact = np.log1p(x.astype(np.longdouble))
    error = np.abs(out - exact) / np.spacing(np.abs(exact).astype(dtype))
    assert error.max() <= 1.5, x[error.argmax()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_expm1_is_within_2_ulp(kernels, dtype):
    """Every magnitude, and all that does not overflow: k from -60 to 1024."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no extended precision here")
    rng = np.random.default_rng(0)
    n, top = 300_000, np.log(np.finfo(dtype).max)
    small = np.exp(rng.uniform(np.log(float(np.finfo(dtype).smallest_normal)), 3, n)) * rng.choice([-1, 1], n)
    edges = (rng.integers(-100, 100, n) + 0.5) * np.log(2) + rng.normal(0, 1e-6, n)
    x = np.concatenate((small, edges, rng.uniform(-2, 2, n), rng.uniform(-80, top, n), [top, np.nextafter(top, 0)]))
    x = x.astype(dtype)
    out = np.empty_like(x)
    kernels.expm1(x, 0, len(x), out)
    with np.errstate(all="ignore"):
        exact = np.expm1(x.astype(np.longdouble))
        finite = np.isfinite(exact.astype(dtype))
        error = np.abs(out - exact)[finite] / np.spacing(np.abs(exact[finite]).astype(dtype))
    assert error.max() <= 2, x[finite][error.argmax()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("scale", [1.0, np.log(2), np.log(10)])
def test_moments_of_what_was_logged(kernels, dtype, index, scale):
    """In blocks of 64 values and a part of one; the exponentials are to 2 units in the last place of float64."""
    rng = np.random.default_rng(1)
    indptr = np.array([0, 3, 200, 263])
    indices = rng.integers(0, N_MINOR, indptr[-1]).astype(index)
    data = rng.uniform(0, 9 / scale, indptr[-1]).astype(dtype)
    given = np.zeros((N_MINOR, 4))
    given[:, 3] = rng.uniform(0, 100, N_MINOR)
    out = given.copy()
    arguments = map(read_only, (data, indices, indptr))
    assert kernels.expm1_moments_minor(*arguments, 1, 3, scale, out) == -1
    used = slice(indptr[1], indptr[3])
    for j, (n, s1, s2, shift) in enumerate(out.tolist()):
        values = data[used][indices[used] == j].astype(float) * scale
        d = np.expm1(values.astype(np.longdouble)) - shift
        assert (n, shift) == (len(values), given[j, 3])
        size = float(np.sum(np.abs(d) + shift))
        assert abs(s1 - float(d.sum())) <= 1e-15 * size
        assert abs(s2 - float(np.sum(d * d))) <= 2e-15 * float(np.sum((np.abs(d) + shift) ** 2))
    indices[250] = N_MINOR
    assert kernels.expm1_moments_minor(*map(read_only, (data, indices, indptr)), 1, 3, scale, out) == 250


@pytest.mark.parametrize("name", ["log1p", "expm1"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(kernels, dtype, name):
    tiny, largest = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    values = [0, -0.0, -1, -1.5, -np.inf, np.inf, np.nan, tiny, -tiny, largest, -largest, 1e-25, -700, 711]
    x = np.array(values if name == "expm1" else values[:-1], dtype)
    out = np.empty_like(x)
    getattr(kernels, name)(x, 0, len(x), out)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.longdouble)).astype(dtype)
    near = np.isin(x, [-1.5, -1]) if name == "expm1" else np.zeros(len(x), bool)  # rounded, not special
    assert bits(out[~near]) == bits(expected[~near])
