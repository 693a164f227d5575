"""What CuPy refuses is refused, and what it gets wrong in silence is an AssertionError."""

import operator

import numpy as np
import pytest

from strict_cupy import counting, no_sync


@pytest.fixture
def x(cupy):
    return cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


REFUSED = {
    "NumPy array on the right": lambda cp, x: x + np.ones((2, 3)),
    "NumPy array on the left": lambda cp, x: np.ones((2, 3)) + x,
    "0-d NumPy array": lambda cp, x: x * np.array(2.0),
    "0-d NumPy array on the left": lambda cp, x: np.array(2.0) * x,
    "NumPy array in place": lambda cp, x: operator.iadd(x, np.ones((2, 3))),
    "NumPy array in a ufunc": lambda cp, x: cp.add(x, np.ones((2, 3))),
    "NumPy array in a function": lambda cp, x: cp.concatenate([x, np.ones((2, 3))]),
    "NumPy array assigned": lambda cp, x: operator.setitem(x, 0, np.ones(3)),
    "NumPy array as condition": lambda cp, x: cp.where(np.ones((2, 3), bool), x, 0),
    "NumPy array compared": lambda cp, x: x > np.ones((2, 3)),
    "NumPy array multiplied as a matrix": lambda cp, x: x @ np.ones((3, 2)),
    "matrix product from the left": lambda cp, x: np.ones((3, 2)) @ x,
    "list as an operand": lambda cp, x: operator.add(x, [1, 2, 3]),
    "list in a function": lambda cp, x: cp.sum([1, 2, 3]),
    "None as an operand": lambda cp, x: x + None,
    "comparison with None": lambda cp, x: x == None,  # noqa: E711
    "string as an operand": lambda cp, x: x * "a",
    "np.asarray": lambda cp, x: np.asarray(x),
    "np.array": lambda cp, x: np.array(x),
    "np.exp": lambda cp, x: np.exp(x),
    "np.sum": lambda cp, x: np.sum(x),
    "np.concatenate": lambda cp, x: np.concatenate([x, x]),
    "np.testing": lambda cp, x: np.testing.assert_array_equal(x, x),
    "reduction with where": lambda cp, x: x.sum(where=x > 1),
    "reduction with initial": lambda cp, x: x.max(initial=0),
    "reduction function with where": lambda cp, x: cp.sum(x, where=x > 1),
    "reduction function with initial": lambda cp, x: cp.max(x, initial=0),
    "ufunc with where": lambda cp, x: cp.add(x, x, where=x > 1),
    "ufunc with order": lambda cp, x: cp.add(x, x, order="F"),
    "out that is a NumPy array": lambda cp, x: cp.exp(x, out=np.empty((2, 3), np.float32)),
    "unknown keyword": lambda cp, x: cp.take(x, cp.asarray([0]), mode="clip"),
    "too many arguments": lambda cp, x: cp.ravel(x, "C", None),
    "astype with casting": lambda cp, x: x.astype(np.float64, casting="safe"),
    "array as a slice's bound": lambda cp, x: x[: cp.asarray(1)],
    "array as range": lambda cp, x: range(cp.asarray(2)),
    "hash": lambda cp, x: hash(x),
    "iteration over a 0-d array": lambda cp, x: list(x.sum()),
    "length of a 0-d array": lambda cp, x: len(x.sum()),
    "float remainder in place of an integer": lambda cp, x: operator.iadd(x.astype(int), 0.5),
    "truth of two values": lambda cp, x: bool(x),
    "float indices": lambda cp, x: x[x],
    "a plain index out of range": lambda cp, x: x[2],
    "too many indices": lambda cp, x: x[0, 0, 0],
    "object dtype": lambda cp, x: cp.array([None]),
    "string dtype": lambda cp, x: cp.array(["a"]),
    "complex256": lambda cp, x: cp.zeros(2, np.clongdouble),
    "scatter into int8": lambda cp, x: cp.add.at(cp.zeros(2, np.int8), cp.asarray([0]), 1),
    "float subtract.at": lambda cp, x: cp.subtract.at(x, cp.asarray([0]), 1.0),
    "multiply.at": lambda cp, x: cp.multiply.at(x, cp.asarray([0]), 1.0),
    "scalar matrix product": lambda cp, x: x @ 2,
    "np.where's name in lib": lambda cp, x: cp.lib.nowhere,
    "errstate": lambda cp, x: cp.errstate(all="raise"),
    "dtype with no loop": lambda cp, x: cp.subtract(x > 0, x > 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_cupy_refuses(case, cupy, x):
    refused = (TypeError, ValueError, IndexError, AttributeError, NotImplementedError)
    with pytest.raises(refused):
        REFUSED[case](cupy, x)


SILENTLY_WRONG = {
    "index out of range": lambda cp, x: x[cp.asarray([0, 2])],
    "list out of range": lambda cp, x: x[[0, 2]],
    "negative index out of range": lambda cp, x: x[cp.asarray([-3])],
    "take out of range": lambda cp, x: x.take(cp.asarray([7]), axis=0),
    "take_along_axis out of range": lambda cp, x: cp.take_along_axis(x, cp.asarray([[3]] * 2), 1),
    "assignment out of range": lambda cp, x: operator.setitem(x, cp.asarray([2]), 0.0),
    "scatter out of range": lambda cp, x: cp.add.at(x, cp.asarray([2]), 1.0),
    "same place twice": lambda cp, x: operator.setitem(x, cp.asarray([0, 0]), x),
    "same place twice, negative": lambda cp, x: operator.setitem(x, cp.asarray([1, -1]), x),
    "same place twice by two indices": lambda cp, x: operator.setitem(
        x, (cp.asarray([0, 0]), cp.asarray([1, 1])), cp.ones(2)
    ),
    "same place twice by put": lambda cp, x: x.put(cp.asarray([1, 1]), cp.ones(2)),
    "same place twice by put_along_axis": lambda cp, x: cp.put_along_axis(
        x, cp.asarray([[0, 0], [1, 2]]), cp.ones((2, 2), np.float32), 1
    ),
    "a piece assigned to one that overlaps it": lambda cp, x: operator.setitem(
        x.ravel(), slice(1, None), x.ravel()[:-1]
    ),
    "NaN to integer": lambda cp, x: (x / 0).astype(np.int32),
    "infinity to integer": lambda cp, x: cp.full(2, np.inf).astype(np.int64),
    "negative to unsigned": lambda cp, x: (x - 1).astype(np.uint8),
    "300 to uint8": lambda cp, x: (x + 300).astype(np.uint8),
    "2^63 to int64": lambda cp, x: cp.full(2, 2.0**63).astype(np.int64),
    "cast in an assignment": lambda cp, x: operator.setitem(
        cp.zeros(3, np.int8), slice(None), cp.full(3, 128.0)
    ),
    "cast in a fill": lambda cp, x: cp.zeros(3, np.uint8).fill(-1.0),
    "cast in copyto": lambda cp, x: cp.copyto(cp.zeros(3, np.uint8), cp.full(3, 256.0), "unsafe"),
    "cast in an out array": lambda cp, x: cp.add(
        x, 300, out=cp.zeros((2, 3), np.uint8), casting="unsafe"
    ),
    "cast in array": lambda cp, x: cp.array(x - 1, dtype=np.uint8),
    "int8 matrix product": lambda cp, x: x.astype(np.int8) @ x.astype(np.int8).T,
    "uint8 tensordot": lambda cp, x: cp.tensordot(x.astype(np.uint8), x.astype(np.uint8).T, 1),
    "int16 einsum": lambda cp, x: cp.einsum("ij,kj->ik", x.astype(np.int16), x.astype(np.int16)),
    "random numbers of its own": lambda cp, x: cp.random.randn(3),
    "a generator of its own": lambda cp, x: cp.random.default_rng(0),
}


@pytest.mark.parametrize("case", SILENTLY_WRONG)
def test_what_a_gpu_gets_wrong_in_silence_is_an_assertion_error(case, cupy, x):
    with pytest.raises(AssertionError):
        SILENTLY_WRONG[case](cupy, x)


def test_unwritten_memory_is_poisoned(cupy, x):
    assert np.isnan(cupy.empty(3).get()).all()
    assert np.isnan(cupy.empty_like(x).get()).all()
    assert np.isnan(cupy.ndarray((2, 2), np.float16).get()).all()
    assert (cupy.empty(3, np.int8).get() == 127).all()
    assert cupy.empty((), bool).get()


def test_casts_that_fit_pass(cupy, x):
    assert (x - 0.5).astype(np.uint8).get().tolist() == [[0, 0, 1], [2, 3, 4]]
    assert cupy.full(1, -(2.0**63)).astype(np.int64).item() == -(2**63)
    assert x.astype(np.int8, copy=False).dtype == np.int8
    assert cupy.asarray(np.int32(-1)).astype(np.uint8).item() == 255  # integers wrap, everywhere


def test_repeated_indices_with_one_value_or_a_scatter_are_fine(cupy):
    a, i = cupy.zeros(3), cupy.asarray([1, 1])
    a[i] = 5.0
    assert a.tolist() == [0, 5, 0]
    cupy.add.at(a, i, cupy.ones(2))
    cupy.maximum.at(a, i, cupy.full(2, 3.0))
    assert a.tolist() == [0, 7, 0]


def test_a_computation_without_synchronisation_is_held_to_it(cupy, x):
    with no_sync("a training step"):
        y = (x * 2).sum()
        for wait in (float, bool, int, str, repr, operator.methodcaller("get")):
            with pytest.raises(AssertionError, match="a training step must not do"):
                wait(y)
        with pytest.raises(AssertionError, match="boolean mask"):
            x[x > 1]
        for wait in (cupy.nonzero, cupy.unique, cupy.where, cupy.argwhere, cupy.asnumpy):
            with pytest.raises(AssertionError):
                wait(x > 1)
    assert float(y) == 30


def test_synchronisations_are_listed(cupy, x):
    with counting() as outer:
        float(x.sum())
        with counting() as inner:
            x[x > 2].tolist()
    assert inner.syncs == ["index by a boolean mask", "tolist"]
    assert outer.syncs == ["float", *inner.syncs]


def test_an_assignment_through_a_mask_waits_even_for_a_scalar(cupy, x):
    with counting() as counts:
        x[x > 2] = 0.0
    assert counts.syncs == ["index by a boolean mask"]
    assert x.tolist() == [[0, 1, 2], [0, 0, 0]]
