"""A QTensor is codes and how to read them, in two forms that mean the same."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import targets

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import IntegerRange, affine
from tinycompress.compress.quantize.qtensor import Grid, QTensor

U8 = IntegerRange(8, signed=False)


@st.composite
def integer_forms(draw, target=None):
    target = draw(targets()) if target is None else target
    codes = draw(st.lists(st.integers(target.qmin, target.qmax), min_size=6, max_size=6))
    zero_point = draw(st.integers(target.qmin, target.qmax))
    scale = np.float32(draw(st.floats(2.0**-20, 2.0**20)))
    return QTensor(np.array(codes).reshape(2, 3), scale, zero_point, target)


@given(integer_forms())
def test_all_forms_mean_the_same(q):
    codes = q.codes
    assert codes.dtype == q.target.dtype
    expected = affine.dequantize(codes, q.scale, q.zero_point)
    in_training = QTensor(tc.tensor(codes.astype("f")), q.scale, q.zero_point, q.target)
    as_steps = QTensor.from_steps(q.steps().data, q.grid)
    for form in (q, in_training, as_steps):
        np.testing.assert_array_equal(form.dequantize().data, expected)
        np.testing.assert_array_equal(form.steps().data, codes.astype("f") - q.zero_point)
        low, high = form.grid.steps
        assert low <= form.steps().data.min() <= form.steps().data.max() <= high
        np.testing.assert_array_equal(np.asarray(form.codes), codes)
    assert as_steps.codes.dtype == codes.dtype
    assert isinstance(in_training.codes, tc.Tensor)


@given(integer_forms())
def test_codes_move_and_none_changes(q):
    for moved, expected in [
        (q.flatten(), q.codes.reshape(-1)),
        (q.reshape(3, -1), q.codes.reshape(3, 2)),
        (q.view(1, 6), q.codes.reshape(1, 6)),
        (q.permute(1, 0), q.codes.T),
        (q.transpose(0, 1), q.codes.T),
        (q.unsqueeze(0), q.codes[None]),
        (q.unsqueeze(0).squeeze(0), q.codes),
        (q[1:], q.codes[1:]),
        (q.detach(), q.codes),
        (next(iter(q)), q.codes[0]),
    ]:
        np.testing.assert_array_equal(moved.codes, expected)
        assert moved.grid == q.grid
        assert (moved.numel(), moved.dim()) == (moved.size, moved.ndim)
        assert (moved.shape, moved.ndim, moved.size) == (
            expected.shape, expected.ndim, expected.size,
        )  # fmt: skip
    assert len(q) == 2


def test_the_training_form_stays_in_the_graph():
    codes = tc.tensor([[3.0, 5.0]], requires_grad=True)
    scale = tc.tensor(0.5, requires_grad=True)
    q = QTensor(codes, scale, 3, U8)
    assert q.requires_grad
    q.flatten().dequantize().sum().backward()
    np.testing.assert_array_equal(codes.grad, [[0.5, 0.5]])
    assert scale.grad == 2.0  # Σ (codes − zero_point)
    again = q.with_steps(q.steps() * 1.0)
    assert isinstance(again.codes, tc.Tensor)
    np.testing.assert_array_equal(again.codes.data, codes.data)


def test_it_lives_where_its_codes_live(device):
    q = QTensor(to_device(np.array([[0, 200]], np.uint8), device), 0.5, 100, U8)
    assert q.device.startswith(device)
    assert q.dequantize().device.startswith(device)
    np.testing.assert_array_equal(to_numpy(q.dequantize().data), [[-50, 50]])
    np.testing.assert_array_equal(to_numpy(q.codes), [[0, 200]])


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda q: q + q, TypeError),
        (lambda q: q + 1, TypeError),
        (lambda q: np.ones(3) * q, TypeError),
        (lambda q: tc.tensor([1.0]) + q, TypeError),
        (lambda q: 2 * q, TypeError),
        (lambda q: q > 0, TypeError),
        (lambda q: np.asarray(q), TypeError),
        (lambda q: float(q), TypeError),
        (lambda q: F.relu(q), TypeError),
        (lambda q: F.linear(q, np.ones((2, 3), np.float32)), TypeError),
        (lambda q: tc.cat([q, q]), TypeError),
        (lambda q: nn.ReLU()(q), TypeError),
        (lambda q: q.relu(), AttributeError),
        (lambda q: q.mean(axis=1), AttributeError),
    ],
)
def test_anything_else_is_a_layers_work(use, error):
    q = QTensor(np.array([1, 2, 3], np.uint8), 1.0, 0, U8)
    with pytest.raises(error, match=r"QTensor|expected a tensor") as raised:
        use(q)
    if "expected" not in str(raised.value):
        assert "nn.Add()" in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([256]), 1.0, 0, U8), "codes must lie within 0 … 255, got 256 … 256"),
        ((np.array([1.0]), 1.0, 0, U8), "Tensor of floats or an array of integers, got float64"),
        (([1], 1.0, 0, U8), "got list"),
        ((tc.tensor([1]), 1.0, 0, U8), "must hold floats"),
        ((np.array([1]), 0.0, 0, U8), "above 0 and finite"),
        ((np.array([1]), np.nan, 0, U8), "above 0 and finite"),
        ((np.array([1]), 1.0, -1, U8), "one of the codes 0 … 255, got -1"),
        ((np.array([1]), 1.0, 0, 8), "IntegerRange"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        QTensor(*arguments)


def test_repr_says_how_to_read_it():
    q = QTensor(np.array([[1, 2]], np.uint8), 0.5, 3, U8)
    assert repr(q) == (
        "QTensor(shape=(1, 2), codes=uint8, scale=0.5, zero_point=3, "
        "target=IntegerRange(bits=8, signed=False, narrow=False))"
    )
    assert Grid(0.5, 3, U8).steps == (-3, 252)
