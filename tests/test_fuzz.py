"""Any arrays in any function: the right answer or a clear error. See fuzz.py, which also does long runs."""

import numpy as np
import pytest
import scipy.sparse as sp

import fuzz
from malformed import Memory, functions
from strategies import examples


@examples(fuzz.calls())
def test_the_right_answer_or_a_clear_error(engine, call):
    fuzz.check(call)


def test_what_fuzzing_would_find():
    """A wrong answer, an answer where an error is due, and an error where an answer is due."""
    function = next(f for f in functions("csr", 2) if f.name == "sum axis=0")
    x = sp.csr_array(np.eye(2))
    bad = x.copy()
    bad.indices[0] = 5
    for other, matrix, message in (
        (lambda x, shape: np.ones(3), x, "instead of"),
        (lambda x, shape: np.ones(2) * 2, x, "instead of"),
        (lambda x, shape: np.ones(2), bad, "bad indices"),
        (lambda x, shape: x.not_there(), x, "not_there"),
        (lambda x, shape: {}[0], x, "0"),
        (lambda x, shape: int("x.indices"), x, "an answer is due"),
    ):
        call = fuzz.Call(function._replace(call=other), matrix, Memory(), (2, 2))
        with pytest.raises((AssertionError, AttributeError, KeyError), match=message):
            fuzz.check(call)
