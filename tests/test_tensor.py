"""Tensor: what it is made of, how types meet, its methods, its way out."""

import copy
import operator

import numpy as np
import pytest
from hypothesis import given
from strategies import normal, seeds, shapes

import tinycompress as tc
from tinycompress.backend import to_numpy

# ----------------------------------------------------------------------------------------- making

MADE_OF = {
    "a float": (1.5, np.float32, ()),
    "an integer": (2, np.int64, ()),
    "a boolean": (True, np.bool_, ()),
    "floats": ([1.5, 2], np.float32, (2,)),
    "integers": ([[1], [2]], np.int64, (2, 1)),
    "booleans": ([True, False], np.bool_, (2,)),
    "nothing": ([], np.float32, (0,)),
    "a float64 array": (np.zeros(2), np.float64, (2,)),
    "a float32 array": (np.zeros(2, np.float32), np.float32, (2,)),
    "a uint8 array": (np.zeros(2, np.uint8), np.uint8, (2,)),
    "a NumPy scalar": (np.float64(1), np.float64, ()),
    "a tensor": (tc.tensor([1.0]), np.float32, (1,)),
    "tensors": ([tc.tensor(1.0), tc.tensor(2.0)], np.float32, (2,)),
}


@pytest.mark.parametrize(("data", "dtype", "shape"), MADE_OF.values(), ids=MADE_OF)
def test_what_a_tensor_may_be_made_of(data, dtype, shape):
    for t in (tc.tensor(data), tc.Tensor(data)):
        assert (t.dtype, t.shape, t.ndim, t.size) == (dtype, shape, len(shape), np.prod(shape))
        assert t.numel() == t.size
        assert t.dim() == t.ndim
        assert t.is_leaf
        assert not t.requires_grad


def test_a_given_type_is_reached_without_a_detour():
    assert tc.tensor(0.1, dtype=tc.float64).item() == 0.1
    assert tc.tensor(2**53 + 1, dtype=tc.int64).item() == 2**53 + 1
    assert tc.tensor([1, 2], dtype=tc.float32).dtype == np.float32
    assert tc.tensor(np.array([0.1]), dtype="float32").dtype == np.float32


def test_tensor_copies_and_Tensor_does_not():
    a = np.zeros(3, np.float32)
    assert not np.shares_memory(tc.tensor(a).data, a)
    assert tc.Tensor(a).data is a
    t = tc.Tensor(a)
    assert not np.shares_memory(tc.tensor(t).data, a)


@pytest.mark.parametrize("data", ["text", [None], [1, "2"], 1j, [2**70], np.array([1j]), object()])
def test_what_is_no_number_is_no_tensor(data):
    with pytest.raises(TypeError, match=r"a tensor holds numbers or booleans, got dtype"):
        tc.tensor(data)


@pytest.mark.parametrize("data", [[1], [True], np.zeros(2, np.uint8)])
def test_only_floats_have_gradients(data):
    with pytest.raises(TypeError, match=r"only floating-point tensors have gradients, got"):
        tc.tensor(data, requires_grad=True)


def test_tensors_are_made_on_their_device(device):
    t = tc.tensor([1.0, 2.0], device=device, requires_grad=True)
    assert t.device == ("cpu" if device == "cpu" else "cuda:0")
    assert t.to("cpu").device == "cpu"
    assert t.to(device) is t
    np.testing.assert_array_equal(to_numpy(t.data), [1, 2])
    np.testing.assert_array_equal(t.numpy(), [1, 2])


def test_a_gradient_crosses_devices_with_its_tensor(device):
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    (x.to(device) * 3.0).sum().to("cpu").backward()
    assert type(x.grad) is np.ndarray
    np.testing.assert_array_equal(x.grad, [3, 3])


# ----------------------------------------------------------------------------------- types meeting

NUMBERS = [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.array(2.0), np.array(2)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda x: f"{type(x).__name__} {x}")
@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "pow", "lt", "eq"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_never_promote(number, symbol, dtype):
    t, f = tc.tensor(np.array([1.0, 4.0], dtype)), getattr(operator, symbol)
    expected = bool if symbol in ("lt", "eq") else dtype
    for y, reference in (
        (f(t, number), f(t.data, float(number))),
        (f(number, t), f(float(number), t.data)),
    ):
        assert isinstance(y, tc.Tensor)
        assert y.dtype == expected
        np.testing.assert_allclose(y.data, reference, rtol=1e-6)


def test_numbers_never_promote_as_arguments_either():
    x = tc.tensor([1.0, 2.0, 3.0])
    wide = np.float64(0.5)
    results = [
        x.clamp(min=wide),
        x.clamp(max=wide),
        x.pad([(1, 1)], wide),
        tc.maximum(x, wide),
        tc.where(x > wide, x, wide),
        x.var(correction=np.int64(0)),
        tc.functional.leaky_relu(x, wide),
        tc.functional.dropout(x, wide),
        tc.functional.layer_norm(x, 3, eps=wide),
        tc.functional.batch_norm(x.reshape(3, 1), training=True, eps=wide),
        tc.functional.cross_entropy(x.reshape(1, 3), [0], label_smoothing=wide),
    ]
    assert {y.dtype for y in results} == {tc.float32}


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "matmul"])
def test_arrays_on_either_side(symbol):
    a, b, f = np.eye(2) + 1, np.eye(2) * 2 + 1, getattr(operator, symbol)
    for y in (f(tc.tensor(a), b), f(a, tc.tensor(b)), f(tc.tensor(a), tc.tensor(b))):
        assert isinstance(y, tc.Tensor)
        np.testing.assert_array_equal(y.data, f(a, b))


def test_a_gradient_flows_whatever_the_side():
    x = tc.tensor(np.array([2.0, 3.0]), requires_grad=True)
    y = np.array([1.0, 2.0]) * x + x * np.array([1.0, 2.0]) + np.array([6.0, 6.0]) / x - x
    (np.array([5.0, 5.0]) @ y).backward()
    np.testing.assert_allclose(x.grad, 5 * (2 * np.array([1, 2]) - 6 / x.data**2 - 1))


MIXED = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: b - a,
    "power": lambda a, b: a**b,
    "matmul": lambda a, b: a @ b,
    "maximum": tc.maximum,
    "where": lambda a, b: tc.where(np.array([True, False]), a, b),
    "cat": lambda a, b: tc.cat([a, b]),
    "linear": lambda a, b: tc.functional.linear(a, b.reshape(1, 2)),
    "mse_loss": lambda a, b: tc.functional.mse_loss(a, b),
}


@pytest.mark.parametrize(("name", "f"), MIXED.items(), ids=MIXED)
def test_single_and_double_precision_do_not_mix(name, f):
    a, b = tc.tensor([1.0, 2.0]), tc.tensor([1.0, 2.0], dtype=tc.float64)
    for x, y in ((a, b), (b, a)):
        with pytest.raises(
            TypeError, match=r"float32 and float64 do not mix; convert one with \.to"
        ):
            f(x, y)


INTEGERS_MEET_FLOATS = {
    "add": lambda i, x: i + x,
    "divide": lambda i, x: i / x,
    "divided by": lambda i, x: x / i,
    "maximum": tc.maximum,
    "where": lambda i, x: tc.where(i > 1, i, x),
    "cat": lambda i, x: tc.cat([i, x]),
    "stack": lambda i, x: tc.stack([i, x]),
    "matmul": lambda i, x: i @ x,
    "mse_loss": lambda i, x: tc.functional.mse_loss(i, x, "none"),
}


@pytest.mark.parametrize("f", INTEGERS_MEET_FLOATS.values(), ids=INTEGERS_MEET_FLOATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_])
def test_integers_take_the_type_of_floats(f, dtype, kind):
    i, x = tc.tensor(np.array([1, 1]).astype(kind)), tc.tensor(np.array([1.5, 2.5], dtype))
    assert f(i, x).dtype == dtype


def test_the_quotient_of_integers_is_single_precision():
    y = tc.tensor([1, 2]) / tc.tensor([2, 2])
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data, [0.5, 1])
    assert (1 / tc.tensor([2])).dtype == np.float32
    assert (tc.tensor([1]) + 0.5).dtype == np.float32
    assert (tc.tensor([1, 2]).clamp(min=1.5)).dtype == np.float32
    assert (tc.tensor([1, 2]).clamp(min=2)).dtype == np.int64
    for name in ("exp", "log", "sqrt", "sigmoid", "tanh", "mean"):
        assert getattr(tc.tensor([1, 2]), name)().dtype == np.float32


@pytest.mark.parametrize("other", ["text", None, [1.0], {}, object()])
def test_what_is_no_operand_is_refused(other):
    for f in (operator.add, operator.mul, operator.lt, operator.eq):
        with pytest.raises(TypeError, match="expected a tensor, an array or a number, got"):
            f(tc.tensor([1.0]), other)


def test_comparisons_are_elementwise_and_without_derivative():
    x = tc.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for f in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        y = f(x, 2.0)
        assert (y.dtype, y.requires_grad) == (np.bool_, False)
        np.testing.assert_array_equal(y.data, f(x.data, 2.0))
        np.testing.assert_array_equal(f(2.0, x).data, f(2.0, x.data))
    assert len({x, x, tc.tensor(1.0)}) == 2, "a tensor hashes by identity"


# ------------------------------------------------------------------------------------- a container


def test_length_and_iteration():
    t = tc.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    assert len(t) == 3
    rows = list(t)
    assert [r.shape for r in rows] == [(2,)] * 3
    a, _, c = t
    (a * c).sum().backward()
    np.testing.assert_array_equal(t.grad, [[5, 6], [0, 0], [1, 2]])


def test_a_number_has_no_length():
    t = tc.tensor(1.0)
    with pytest.raises(TypeError, match="0-d tensor has no len"):
        len(t)
    with pytest.raises(TypeError, match="0-d tensor"):
        list(t)


@given(shapes(), seeds)
def test_names_of_shapes_agree(shape, seed):
    (x,) = normal(seed, shape)
    t = tc.Tensor(x)
    assert t.flatten().shape == (x.size,)
    assert t.reshape(shape).shape == t.view(*shape).shape == shape
    assert t.squeeze().shape == x.squeeze().shape
    np.testing.assert_array_equal(t.T.data, x.T)
    if shape:
        np.testing.assert_array_equal(t.transpose(0, -1).data, np.swapaxes(x, 0, -1))
        assert t.flatten(1 if len(shape) > 1 else 0).shape[0] == (shape[0] if shape[1:] else x.size)
        for axis in range(-len(shape), len(shape)):
            expected = x.squeeze(axis).shape if shape[axis] == 1 else shape
            assert t.squeeze(axis).shape == expected


def test_sizes_and_axes_may_be_numpys():
    t = tc.tensor(np.zeros((2, 3, 4)))
    n = np.int64
    assert t.reshape(n(6), n(4)).shape == (6, 4)
    assert t.sum(n(1)).shape == (2, 4)
    assert t.sum((n(0), n(-1))).shape == (3,)
    assert t.permute(n(2), n(0), n(1)).shape == (4, 2, 3)
    assert tc.tensor(np.zeros(3)).expand(n(2), n(3)).shape == (2, 3)
    assert t.argmax(n(1)).shape == (2, 4)


# ----------------------------------------------------------------------------------------- leaving


def test_one_number_comes_out_as_pythons():
    assert (tc.tensor(2.5).item(), type(tc.tensor([[2]]).item())) == (2.5, int)
    assert (float(tc.tensor([2.5])), int(tc.tensor(7)), bool(tc.tensor(False))) == (2.5, 7, False)
    assert f"{tc.tensor(2.5):.2f}" == "2.50"
    assert f"{tc.tensor([1, 2])}" == "tensor([1, 2])"


def test_several_numbers_are_not_one():
    for f in (lambda t: t.item(), float, int, bool, lambda t: f"{t:.2f}"):
        with pytest.raises(ValueError, match=r"one value, this one has shape \(2,\)"):
            f(tc.tensor([1.0, 2.0]))


def test_numpy_sees_the_same_memory():
    t = tc.tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(t), t.data)
    assert np.shares_memory(t.numpy(), t.data)
    assert not np.shares_memory(np.array(t), t.data)
    assert np.asarray(t, np.float64).dtype == np.float64
    with pytest.raises(TypeError, match="Tensor"):
        np.exp(t)


def test_detach_leaves_the_graph_and_clone_does_not():
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    assert not x.detach().requires_grad
    (x.clone() * x.detach()).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_types_without_gradients_leave_the_graph():
    x = tc.tensor([1.5, 2.5], requires_grad=True)
    for dtype in (tc.int64, bool, "uint8"):
        y = x.to(dtype)
        assert y.dtype == np.dtype(dtype)
        assert not y.requires_grad
    assert x.to(tc.float64).requires_grad
    assert x.to("float32") is x


def test_only_leaves_are_deep_copied():
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    twin = copy.deepcopy(x)
    assert twin.requires_grad
    assert not np.shares_memory(twin.data, x.data)
    with pytest.raises(RuntimeError, match=r"copy\.deepcopy: only leaves .*detach"):
        copy.deepcopy(x * 2.0)


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (tc.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (tc.tensor(np.zeros(1)), "tensor([0.], dtype=float64)"),
        (tc.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (tc.tensor([1.0], requires_grad=True) * 2.0, "tensor([2.], made by multiply)"),
        (tc.tensor([True]), "tensor([ True])"),
    ],
)
def test_it_shows_what_it_is(t, text):
    assert repr(t) == text


def test_it_shows_where_it_is(cupy):
    assert repr(tc.tensor([1.0], device="cuda:1")) == 'tensor([1.], device="cuda:1")'


def test_a_large_one_is_shown_in_short():
    assert len(repr(tc.tensor(np.zeros((100, 100))))) < 1000
