"""What CuPy allows gives what NumPy gives: the same shape, dtype and values."""

import copy
import operator
import pickle

import numpy as np
import pytest

from strict_cupy.spec import SPEC
from strict_cupy.ufuncs import UFUNCS

X = np.array([[0.5, -1.5, 2.0], [3.25, -4.0, 0.0]], np.float32)
I = np.array([[2, 0, 1], [1, 1, 2]])
DTYPES = [np.bool_, np.int8, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]


def same(result, expected):
    """Equal in type of container, shape, dtype and values (NaN equals NaN)."""
    if isinstance(expected, list | tuple):
        assert len(result) == len(expected)
        for pair in zip(result, expected, strict=True):
            same(*pair)
    elif isinstance(expected, np.ndarray | np.generic):
        assert type(result).__name__ == "ndarray"
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(result.get(), expected)
    else:
        assert np.all(result == expected)


def assigned(a, index, value):
    a = a.copy()
    a[index] = value
    return a


EXPRESSIONS = {
    "arithmetic": lambda xp, x, i: (x + 2) * x - x / 3.0 + x // 2 + x % 2.0,
    "scalars on the left": lambda xp, x, i: 2 - (3 / (x + 9)) + 2**x + 7 // (x + 9) + True * x,
    "NumPy scalar on the right": lambda xp, x, i: x * np.float32(2) - np.float32(1),
    "NumPy scalar on the left": lambda xp, x, i: np.float32(2) * x - (np.float32(1) / (x + 9)),
    "NumPy scalar compared": lambda xp, x, i: np.float32(0) < x,
    "a float64 scalar promotes": lambda xp, x, i: x * np.float64(2),
    "a Python float does not": lambda xp, x, i: x * 2.5,
    "integers and a Python float": lambda xp, x, i: i * 2.5,
    "int8 and a Python int": lambda xp, x, i: i.astype(np.int8) * 2,
    "int8 and int64": lambda xp, x, i: i.astype(np.int8) * i,
    "powers": lambda xp, x, i: (x**2, x**-1.0, (x + 9) ** 0.5, i**2),
    "bits": lambda xp, x, i: (i << 2 | 1, i & 3, i ^ 5, ~i, i >> 1),
    "divmod": lambda xp, x, i: xp.divmod(i, 2),
    "comparisons": lambda xp, x, i: ((x > 0) & (x <= 2) | (x == -4), x != 0, x <= 0),
    "unary": lambda xp, x, i: (-x, +x, abs(x), ~(x > 0)),
    "matrix product": lambda xp, x, i: (x @ x.T, i @ i.T, x[0] @ x[1], x[None] @ x.T),
    "reductions": lambda xp, x, i: (x.sum(), x.max(0), x.mean(1, keepdims=True), x.var(axis=0)),
    "reductions of integers": lambda xp, x, i: (i.sum(0), i.mean(), i.astype(np.int8).sum()),
    "reductions of truths": lambda xp, x, i: ((x > 0).sum(), (x > 0).any(0), (x > 0).all()),
    "reductions with dtype": lambda xp, x, i: x.sum(axis=1, dtype=np.float64),
    "arg reductions": lambda xp, x, i: (x.argmax(), x.argmin(1), xp.argmax(x, axis=0)),
    "cumulative": lambda xp, x, i: (x.cumsum(), xp.cumsum(x, axis=0), xp.cumprod(x, 1)),
    "shapes": lambda xp, x, i: (x.reshape(3, -1), x.ravel(), x.T.reshape(6), x[None].squeeze()),
    "axes": lambda xp, x, i: (x.transpose(1, 0), xp.swapaxes(x, 0, 1), xp.moveaxis(x, 0, 1)),
    "more axes": lambda xp, x, i: (xp.expand_dims(x, 1), xp.broadcast_to(x, (2, 2, 3)), x.mT),
    "joining": lambda xp, x, i: (xp.concatenate([x, x], 1), xp.stack((x, x)), xp.vstack([x, x])),
    "splitting": lambda xp, x, i: (xp.split(x, 3, axis=1), xp.array_split(x, 2)),
    "padding": lambda xp, x, i: xp.pad(x, ((0, 0), (1, 2)), constant_values=-np.inf),
    "repeating": lambda xp, x, i: (xp.repeat(x, 2, axis=0), xp.tile(x, (2, 1)), xp.flip(x, 1)),
    "slices": lambda xp, x, i: (x[0], x[:, ::-1], x[..., None], x[1:, :2], x[0, 1], x[()]),
    "index arrays": lambda xp, x, i: (x[:, i], x[i[0] % 2], x[[0, 1], [2, 0]], x[..., i[1]]),
    "index by 0-d": lambda xp, x, i: (x[i[0, 2]], x[0, i[0, 0]]),
    "masks": lambda xp, x, i: (x[x > 0], x[(x > 0).any(1)]),
    "assignments": lambda xp, x, i: (assigned(x, 0, 7), assigned(x, x[:, 0] > 1, x[:1])),
    "assignment by index": lambda xp, x, i: assigned(x, (slice(None), i[0]), x * 2),
    "assignment of wider": lambda xp, x, i: assigned(x, (0, 1), np.float64(2.5)),
    "gathers": lambda xp, x, i: (x.take(i[0], axis=1), xp.take_along_axis(x, i, axis=1)),
    "where and clip": lambda xp, x, i: (xp.where(x > 0, x, 0.0), xp.clip(x, -1, 1), x.clip(0, 1)),
    "clip by arrays": lambda xp, x, i: xp.clip(x, x.min(1, keepdims=True) / 2, x.max(0)),
    "two-sided": lambda xp, x, i: (xp.maximum(x, 0), xp.minimum(x, x[0]), xp.hypot(x, 1)),
    "sorting": lambda xp, x, i: (xp.sort(x, axis=1), xp.argsort(x), x.argsort(axis=0)),
    "sets": lambda xp, x, i: (xp.unique(i), xp.unique(i, return_counts=True), xp.nonzero(x > 0)),
    "counting": lambda xp, x, i: (xp.bincount(i.ravel()), xp.searchsorted(xp.arange(3), i)),
    "einsum": lambda xp, x, i: (xp.einsum("ij,kj->ik", x, x), xp.einsum("ij->j", x)),
    "tensordot": lambda xp, x, i: (xp.tensordot(x, x, ([1], [1])), xp.outer(x[0], x[1])),
    "linalg": lambda xp, x, i: (xp.linalg.norm(x), xp.linalg.norm(x, axis=1)),
    "creation": lambda xp, x, i: (xp.zeros((2, 3)), xp.ones(3, np.int8), xp.full((2,), 1.5)),
    "creation alike": lambda xp, x, i: (xp.zeros_like(x), xp.ones_like(i), xp.full_like(x, 2)),
    "ranges": lambda xp, x, i: (xp.arange(5), xp.arange(1, 9, 2, dtype=np.uint32), xp.eye(3)),
    "casts": lambda xp, x, i: (x.astype(np.float64), i.astype(np.uint8), x.astype(bool)),
    "views": lambda xp, x, i: (x.view(np.uint32), xp.packbits(x > 0), i.astype("u1").view("i1")),
    "windows": lambda xp, x, i: xp.lib.stride_tricks.as_strided(x, (2, 2, 2), (12, 4, 4)),
    "sliding windows": lambda xp, x, i: xp.lib.stride_tricks.sliding_window_view(x, (1, 2)),
    "iteration": lambda xp, x, i: list(x),
    "out": lambda xp, x, i: xp.add(x, 1, out=xp.empty((2, 3), np.float64)),
    "out of a reduction": lambda xp, x, i: xp.sum(x, axis=0, out=xp.empty(3, np.float32)),
    "out of a product": lambda xp, x, i: xp.matmul(x, x.T, out=xp.empty((2, 2), np.float32)),
    "masks as floats": lambda xp, x, i: xp.equal(
        x, 2, out=xp.empty((2, 3), np.float32), casting="unsafe"
    ),
    "ufunc methods": lambda xp, x, i: (xp.add.reduce(x, 1), xp.maximum.accumulate(x, 0)),
    "logarithm of zero": lambda xp, x, i: xp.log(abs(x)) + xp.sqrt(x) + x / 0 + 0 / x,
    "metadata": lambda xp, x, i: (x.ndim, x.size, x.nbytes, len(x), x.strides, xp.size(x)),
    "types": lambda xp, x, i: (xp.result_type(x, i), xp.finfo("f4").dtype, xp.iinfo("i1").max),
    "copies": lambda xp, x, i: (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_agrees(name, cupy):
    x, i = cupy.asarray(X), cupy.asarray(I)
    with np.errstate(all="ignore"):
        same(EXPRESSIONS[name](cupy, x, i), EXPRESSIONS[name](np, X.copy(), I.copy()))


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "floordiv", "pow", "mod"])
def test_in_place_operators_agree_and_keep_the_array(symbol, cupy):
    x, y = X.copy(), cupy.asarray(X)
    with np.errstate(all="ignore"):
        same(getattr(operator, f"i{symbol}")(y, 2), getattr(operator, f"i{symbol}")(x, 2))
    assert getattr(operator, f"i{symbol}")(y, y) is y


@pytest.mark.parametrize("name", UFUNCS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ufunc_agrees_or_refuses(name, dtype, cupy):
    x = np.array([1, 2, 3]).astype(dtype)
    args = [x] * UFUNCS[name].nin
    device_args = [cupy.asarray(a) for a in args]
    try:
        with np.errstate(all="ignore"):
            expected = getattr(np, name)(*args)
    except TypeError:
        expected = None  # NumPy has no such loop
    if expected is not None and cupy_has_loop(name, expected):
        same(getattr(cupy, name)(*device_args), expected)
    else:
        with pytest.raises(TypeError):
            getattr(cupy, name)(*device_args)


def cupy_has_loop(name, outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = [output.dtype for output in outputs]
    loops = (types.split("->")[1] for types in SPEC["cupy"][name]["ufunc"])
    return any([np.dtype(c) for c in loop] == wanted for loop in loops)


def functions_of_one_array():
    """The names of CuPy's functions that NumPy too has and can call with one array alone."""
    for name, entry in SPEC["cupy"].items():
        first = (entry.get("sig") or {}).get("p", [""])[:1]
        if first and first[0] in ("a", "x", "m", "ary", "arr", "array") and hasattr(np, name):
            try:
                getattr(np, name)(X.copy())
            except (TypeError, ValueError):
                continue
            yield name


@pytest.mark.parametrize("name", list(functions_of_one_array()))
def test_function_of_one_array_agrees(name, cupy):
    same(getattr(cupy, name)(cupy.asarray(X)), getattr(np, name)(X.copy()))


def test_most_functions_were_compared():
    assert len(list(functions_of_one_array())) > 50


def test_numbers_of_the_whole_array_stay_on_the_device(cupy):
    x = cupy.asarray(X)
    for number in (cupy.allclose(x, x), cupy.array_equal(x, x), cupy.count_nonzero(x), x.sum()):
        assert isinstance(number, cupy.ndarray)
        assert number.shape == ()


def test_scatter_add_agrees(cupy):
    a, b = np.zeros((3, 4), np.float32), cupy.zeros((3, 4), np.float32)
    np.add.at(a, (I, slice(1, 3)), 1.5)
    cupy.add.at(b, (cupy.asarray(I), slice(1, 3)), 1.5)
    same(b, a)


def test_an_object_that_wants_to_answer_itself_is_asked(cupy):
    class Tensor:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "tensor"

        __rmatmul__ = __lt__ = __eq__ = __radd__

    x = cupy.asarray(X)
    assert (x + Tensor(), x @ Tensor(), x > Tensor()) == ("tensor",) * 3
