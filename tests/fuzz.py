"""Matrices made of any arrays, in any function: the right answer or a clear error.

    python tests/fuzz.py --examples 100000      a long run, and what came out how often

What is right is decided here from the documented rules, entry by entry in Python: `defects` for the matrix, `reference`
and `malformed.functions` for the answer.
"""

import argparse
import itertools
import re
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import csraxis as cx
from malformed import ERRORS, Function, Memory, agrees, elements, functions, repaired
from strategies import BUFFERS, CLASSES, REAL, in_buffer

# Entries add up to 10 at most, so that no square, product or sum of duplicates leaves an int8.
N_ENTRIES, VALUES = 5, (1, 2)
REFUSED_TYPES = ("f2", "g", "O", "U1", "M8[s]", "i4,i4")
INDEX_TYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">i8")
WRONG_INDEX_TYPES = ("?", "f4", "f8", "c16", "O", "U1")
PARTS = ("data", "indices", "indptr")
FUNCTIONS = {(kind, n_dim): functions(kind, n_dim) for kind, n_dim in itertools.product(("csr", "csc"), (1, 2))}
seen = Counter()


class Call(NamedTuple):
    """A function and what it gets."""

    function: Function
    x: Any
    memory: Memory
    # The shape that what goes with x (factors, operands) is made for.
    shape: tuple


@st.composite
def calls(draw):
    """A drawn function of a matrix that is well-formed, or has one defect or two."""
    memory = Memory()
    n_dim = draw(st.sampled_from((2, 2, 2, 1)))
    cls = draw(st.sampled_from(CLASSES)) if n_dim == 2 else sp.csr_array
    n_major, n_minor = (draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 4)) for _ in range(2))
    n_major = n_major if n_dim == 2 else 1
    n_entries = draw(st.integers(0, N_ENTRIES)) if n_major * n_minor else 0
    rows = sorted(draw(st.integers(0, n_major - 1)) for _ in range(n_entries))
    arrays = {
        "data": np.array([draw(st.sampled_from(VALUES)) for _ in rows], draw(st.sampled_from(REAL))),
        "indices": np.array([draw(st.integers(0, n_minor - 1)) for _ in rows], draw(st.sampled_from(INDEX_TYPES))),
        "indptr": np.cumsum([0, *np.bincount(np.array(rows, int), minlength=n_major)]).astype(
            draw(st.sampled_from(INDEX_TYPES))
        ),
    }
    for part in draw(st.permutations(PARTS))[: draw(st.sampled_from((0, 0, 1, 1, 1, 2)))]:
        arrays[part] = draw(_spoiled(arrays[part], part))
    shape = (n_major, n_minor) if cls.__name__.startswith("csr") else (n_minor, n_major)
    x = cls(shape[-n_dim:])
    for part, array in arrays.items():
        buffer = draw(st.sampled_from(BUFFERS)) if draw(st.integers(0, 3)) == 0 else "plain"
        setattr(x, part, _placed(array, buffer if buffer != "long" or part != "indptr" else "plain", memory))
    true_shape = x.shape
    if draw(st.integers(0, 11)) == 0:
        x._shape = tuple(draw(st.integers(-1, 5)) for _ in range(draw(st.sampled_from((n_dim, n_dim, 3)))))
    # Made for the shape that x has, if something can be.
    shape = x.shape if len(x.shape) == n_dim and min(x.shape) >= 0 else true_shape
    function = draw(st.sampled_from(FUNCTIONS[cls.__name__[:3], n_dim]))
    return Call(function, x, memory, shape)


@st.composite
def _spoiled(draw, array, part):
    """Not the same array: another type, shape, length or entry. It may be well-formed still."""
    how = draw(st.sampled_from(("entry", "entry", "entry", "length", "type", "shape", "none")))
    if how == "entry" and len(array) and array.dtype.kind in "iu":
        array, position = array.copy(), draw(st.integers(0, len(array) - 1))
        limits = np.iinfo(array.dtype)
        near = draw(st.one_of(st.integers(-6, 6), st.sampled_from((2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63)))))
        value = near if draw(st.booleans()) else int(array[position]) + near
        array[position] = min(max(value, int(limits.min)), int(limits.max)) if part != "data" else VALUES[0]
        return array
    if how == "length":
        n = draw(st.integers(-2, 2))
        return array[:n] if n < 0 else np.concatenate((array, np.ones(n, array.dtype)))
    if how == "type":
        return array.astype(draw(st.sampled_from(REFUSED_TYPES if part == "data" else WRONG_INDEX_TYPES)))
    if how == "shape":
        return array[draw(st.sampled_from((np.s_[:, None], np.s_[None], np.s_[None, :, None])))]
    return draw(st.sampled_from((None, array.tolist(), "x", 3))) if how == "none" else array


def _placed(array, buffer, memory):
    """The array in a buffer of that kind, which is watched; where it can be, in the middle of a larger one."""
    if not isinstance(array, np.ndarray):
        return array
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        memory.adopt(array)
        return array
    if buffer == "long":
        array, buffer = in_buffer(array, buffer, 1), "plain"
    if buffer == "plain":
        return memory.place(array, 1, 1)
    array = in_buffer(array, buffer, 1)
    memory.adopt(array)
    return array


def defects(x):
    """What is wrong with a matrix, by the documented rules: a list of what everything refuses, and bad indices."""
    shape = x.shape
    if len(shape) not in (1, 2) or min(shape) < 0:
        return ["shape"], []
    n_major, n_minor = (1, *shape)[-2:] if x.format == "csr" else shape[::-1]
    found = [part for part in PARTS if not isinstance(getattr(x, part), np.ndarray) or getattr(x, part).ndim != 1]
    found += [part for part in PARTS[1:] if part not in found and getattr(x, part).dtype.kind not in "iu"]
    if "data" not in found and np.dtype(x.data.dtype).newbyteorder("=") not in map(np.dtype, REAL):
        found.append("data")
    if found:
        return found, []
    indices, indptr = x.indices.tolist(), x.indptr.tolist()
    too_large = [part for part, array in (("indices", indices), ("indptr", indptr)) if max(array, default=0) >= 2**63]
    if too_large:
        return too_large, []
    if (
        len(indptr) != n_major + 1
        or indptr[0] != 0
        or any(a > b for a, b in itertools.pairwise(indptr))
        or indptr[-1] > min(len(x.data), len(indices))
    ):
        return ["indptr"], []
    return [], [index for index in indices[: indptr[-1]] if not 0 <= index < n_minor]


def check(call):
    """Assert that the call gives the right answer or a clear error, and that nothing changes that may not."""
    function, x, memory, shape = call
    found, bad = defects(x)
    kind = x.data.dtype.kind if isinstance(x.data, np.ndarray) else ""
    before, apart = memory.bytes(), memory.bytes(x.data if function.out and not found else None)
    try:
        expected, like = _expected(function, x, found)
    except StopIteration:  # no free place in the row of a bad index
        expected, like = None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = function.call(x, shape)
    except ERRORS as error:
        said = f"{type(error).__name__}: {error}"
        assert memory.bytes() == before, f"{said}, but something has changed"
        what = _reason(function, x, found, bad, kind, shape, str(error))
        assert what, f"{said}, where an answer is due"
        seen[f"{what}: {type(error).__name__}"] += 1
        return
    assert memory.bytes(x.data if function.out and not found else None) == apart, "something has changed"
    assert not found, f"{found} malformed, but {result!r}"
    if bad and function.uses == "always":
        # A vector of one entry is a scalar, which uses no index.
        assert 1 in shape, f"bad indices {bad}, but {result!r}"
    seen["bad indices that are not used: answer" if bad else "well-formed: answer"] += 1
    if expected is not None:
        assert agrees(result, expected, like), f"{result!r} instead of {expected}"


def _expected(function, x, found):
    """The answer, where there is one, and the indices that it was found with."""
    if found or 0 in x.shape or x.data.dtype.kind == "b":
        return None, None
    like = repaired(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = function.answer(elements(x, like))
    if function.name.startswith("negative") and x.data.dtype.kind == "u":
        expected = expected.astype(int).astype(x.data.dtype).astype(float)  # they wrap around
    return expected, like


def _reason(function, x, found, bad, kind, shape, said):
    """Which rule an error follows, if it says so."""
    if kind == "b" and "of dtype bool" in said:
        return "bool"
    if found:
        named = any(re.search(rf"\b{part}\b", said) for part in found) or "shape" in said or "broadcast" in said
        # The type of x is that of its data; an axis or operand that does not go with the shape is seen first.
        named |= "data" in found and "dtype" in said
        named |= "axis" in said and ("shape" in found or x.ndim != len(shape))
        return named and "malformed"
    # Duplicates of True are one True: their sums need the rows in order, too.
    if bad and (function.uses != "never" or kind == "b") and re.search(r"\bindices\b", said):
        return "bad indices"
    if function.out and re.search(r"\bout\b", said):
        return "out that cannot hold the result"
    if 0 in shape and "of nothing" in said:
        return "nothing"
    return len(shape) != x.ndim and "another shape"


def main():
    """A long run; the first failure ends it."""
    parser = argparse.ArgumentParser(description="Fuzz csraxis.")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--engine", choices=("cython", "numba"), default=cx.get_config()["engine"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cx.set_config(engine=options.engine)

    @seed(options.seed)
    @settings(
        max_examples=options.examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(calls())
    def run(call):
        check(call)

    run()
    print(f"engine {options.engine}, seed {options.seed}: {seen.total():,} examples, all right")
    for what, count in sorted(seen.items(), key=lambda item: -item[1]):
        print(f"{count:9,}  {what}")


if __name__ == "__main__":
    main()
