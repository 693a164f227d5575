"""What moves numbers about: derivatives, values, and which results share memory."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import broadcast_pairs, normal, seeds, shapes

import tinycompress as tc

indices = st.sampled_from(
    [
        0,
        -1,
        np.int64(1),
        True,
        None,
        ...,
        slice(None),
        slice(1, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(1, 1),
        (0, 1),
        (..., 0),
        (slice(None), 1),
        (None, 0, ..., slice(1, 3), None),
        (slice(None, None, -2), slice(2)),
        [0, 1],
        [],
        [1, 1, 0],
        [True, False, True],
        (0, [0, 2, 2]),
        ([0, 1, 0], [1, 1, 1]),
        ([[0, 1], [2, 2]], [[1], [0]]),
        (slice(None), [2, 0, 2, 2]),
        ([0, 0], slice(None), [1, 1]),
        (None, [1, 1], ..., 0),
        np.array([2, 2, 2]),
        np.array(1),
        np.array([[0, -1], [-1, 0]]),
        (np.array([True, False, True]), slice(1, 2)),
        (slice(None), np.array([True, True, False])),
    ]
)


@given(indices, seeds)
def test_derivatives_of_indexing(index, seed):
    (x,) = normal(seed, (3, 3, 4))
    check_gradients(lambda x: x[index], x)


@given(indices, seeds)
def test_indexing_is_numpys(index, seed):
    (x,) = normal(seed, (3, 3, 4))
    native = np.array([], int) if isinstance(index, list) and not index else index
    np.testing.assert_array_equal(tc.Tensor(x)[index].data, x[native])


def test_indexing_by_a_mask(rng):
    x = rng.normal(size=(3, 4))
    check_gradients(lambda x: x[x > 0], x)
    check_gradients(lambda x: x[x > 9], x)
    np.testing.assert_array_equal(tc.Tensor(x)[tc.Tensor(x) > 0].data, x[x > 0])


def test_indexing_by_tensors(rng):
    x = rng.normal(size=(3, 4))
    rows, cols = tc.tensor([0, 2, 0]), tc.tensor([1, 1, 1])
    check_gradients(lambda x: x[rows, cols], x)
    np.testing.assert_array_equal(tc.Tensor(x)[rows, cols].data, x[[0, 2, 0], [1, 1, 1]])


@given(shapes(min_axes=1), st.data(), seeds)
def test_derivatives_of_permute_and_reshape(shape, data, seed):
    (x,) = normal(seed, shape)
    order = data.draw(st.permutations(range(len(shape))))
    signed = [a - len(shape) * data.draw(st.booleans()) for a in order]
    check_gradients(lambda x: x.permute(*signed).exp(), x)
    check_gradients(lambda x: x.permute(signed).reshape(-1), x)
    check_gradients(lambda x: x.T.exp(), x)
    check_gradients(lambda x: x.transpose(0, -1).exp(), x)
    np.testing.assert_array_equal(tc.Tensor(x).permute(*signed).data, x.transpose(order))
    np.testing.assert_array_equal(
        tc.Tensor(x).permute(order).reshape(-1).data, x.transpose(order).reshape(-1)
    )


@given(shapes(), seeds)
def test_derivatives_of_flatten_squeeze_and_unsqueeze(shape, seed):
    (x,) = normal(seed, shape)
    check_gradients(lambda x: x.flatten() * 2.0, x)
    check_gradients(lambda x: x.squeeze() * 2.0, x)
    for axis in range(-len(shape) - 1, len(shape) + 1):
        check_gradients(lambda x, a=axis: x.unsqueeze(a), x)
        np.testing.assert_array_equal(tc.Tensor(x).unsqueeze(axis).data, np.expand_dims(x, axis))


@given(broadcast_pairs(), seeds)
def test_derivatives_of_expand(pair, seed):
    full = np.broadcast_shapes(*pair)
    (x,) = normal(seed, pair[0])
    check_gradients(lambda x: x.expand(*full) * 2.0, x)
    kept = [-1 if n == m else m for n, m in zip(pair[0], full[-len(pair[0]) :], strict=False)]
    if len(kept) == len(full):
        assert tc.Tensor(x).expand(kept).shape == full


@given(shapes(min_axes=1), st.data(), seeds)
def test_derivatives_of_cat_and_stack(shape, data, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    other = list(shape)
    other[axis] = data.draw(st.integers(0, 3))
    a, b, c = normal(seed, shape, tuple(other), shape)
    check_gradients(lambda *parts: tc.cat(parts, axis) * 2.0, a, b, c)
    expected = np.concatenate([a, b, c], axis)
    np.testing.assert_array_equal(tc.cat([a, b, c], axis).data, expected)
    at = data.draw(st.integers(-len(shape) - 1, len(shape)))
    check_gradients(lambda *parts: tc.stack(parts, at) * 2.0, a, c)
    np.testing.assert_array_equal(tc.stack([a, c], at).data, np.stack([a, c], at))


def test_what_is_empty_may_be_reshaped():
    x = tc.tensor(np.zeros((0, 3)))
    assert x.reshape(3, 0).shape == (3, 0)
    assert x.reshape(-1).shape == x.flatten().shape == (0,)
    assert x.reshape(-1, 3).shape == (0, 3)


def test_a_tensor_beside_itself_gets_both_gradients():
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    (tc.cat([x, x]) * tc.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 6])


@given(shapes(), st.data(), seeds)
def test_derivatives_of_pad(shape, data, seed):
    (x,) = normal(seed, shape)
    widths = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in shape]
    check_gradients(lambda x: x.pad(widths, 3.0) * 2.0, x)
    if shape:
        expected = np.pad(x, widths, constant_values=3.0)
        np.testing.assert_array_equal(tc.Tensor(x).pad(widths, 3.0).data, expected)


@given(shapes(), seeds)
def test_derivatives_of_copies(shape, seed):
    (x,) = normal(seed, shape)
    check_gradients(lambda x: x.clone() * x, x)
    check_gradients(lambda x: x.to("cpu") * x, x)


def test_the_gradient_comes_back_in_the_type_it_left():
    x = tc.tensor([1.0, 2.0], requires_grad=True)
    (x.to(tc.float64) * np.array([2.0, 3.0])).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, 3])


SHARING = {
    "index": lambda x: x[0],
    "reshape": lambda x: x.reshape(-1),
    "permute": lambda x: x.permute(1, 0),
    "expand": lambda x: x.expand(2, 2, 3),
    "detach": lambda x: x.detach(),
}
COPYING = {
    "clone": lambda x: x.clone(),
    "index array": lambda x: x[[0, 1]],
    "mask": lambda x: x[x == x],
    "reshape of a transposed": lambda x: x.T.reshape(-1),
    "cat": lambda x: tc.cat([x]),
    "tc.tensor": tc.tensor,
}


@pytest.mark.parametrize("f", SHARING.values(), ids=SHARING)
def test_views_share_memory(f):
    x = tc.Tensor(np.zeros((2, 3)))
    assert np.shares_memory(x.data, f(x).data)


@pytest.mark.parametrize("f", COPYING.values(), ids=COPYING)
def test_copies_do_not(f):
    x = tc.Tensor(np.zeros((2, 3)))
    assert not np.shares_memory(x.data, f(x).data)
