"""Fake quantization as an operation: its values, its straight-through derivative, and torch's."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import cases, float_arrays, ordinary

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import fake_quantize
from tinycompress.compress.quantize.blocks import spread
from tinycompress.compress.quantize.ranges import IntegerRange

TARGETS = [IntegerRange(2, narrow=True), IntegerRange(4), IntegerRange(8, signed=False)]


def derivative(x, scale, zero_point, target, device="cpu", **block):
    t = tc.tensor(x, device=device, requires_grad=True)
    fake_quantize(t, scale, zero_point, target, **block).backward(
        to_device(np.ones_like(x), device)
    )
    return to_numpy(t.grad)


@given(cases())
def test_its_values_are_those_of_the_round_trip(device, case):
    case = case.with_(device=device)
    scale, zero_point = case.qparams()
    y = fake_quantize(case.put(case.x), scale, zero_point, case.target, *case.block)
    assert to_numpy(y.data).tobytes() == case.values(case.codes()).tobytes()


def numbers_around_the_ends(target, zero_point):
    """Numbers with scale 1: (on the last code, or a tie that rounds to it), (just beyond)."""
    inside, outside = [], []
    for end, sign in ((target.qmin - zero_point, -1), (target.qmax - zero_point, 1)):
        tie = end + 0.5 * sign  # rounds to the even neighbour
        just_inside = np.nextafter(np.float32(tie), np.float32(0))
        just_outside = np.nextafter(np.float32(tie), np.float32(1000 * sign))
        inside += [end, end - sign, just_inside]
        outside += [end + sign, just_outside, 1e30 * sign, np.inf * sign]
        (inside if end % 2 == 0 else outside).append(tie)
    return np.float32(inside), np.float32(outside)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("zero_point", [0, 1])
def test_the_derivative_is_1_up_to_both_ends_and_0_beyond(device, target, zero_point):
    inside, outside = numbers_around_the_ends(target, zero_point)
    assert derivative(inside, 1.0, zero_point, target, device).all()
    assert not derivative(outside, 1.0, zero_point, target, device).any()


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_losing_the_ends_would_be_noticed(target):
    """With ``qmin < … < qmax`` every weight at the limit stops learning."""
    inside, _ = numbers_around_the_ends(target, 0)
    positions = np.rint(inside)
    wrong = (positions > target.qmin) & (positions < target.qmax)
    assert not wrong.all()
    from_clipped = np.ones_like(inside)  # what asks after clipping lets everything through
    assert derivative(np.float32([1e9]), 1.0, 0, target) != from_clipped[:1]


@given(cases(data=float_arrays(elements=ordinary)), st.floats(0.25, 4, width=32))
def test_the_derivative_is_that_of_the_position_before_clipping(device, case, stretch):
    case = case.with_(device=device)
    scale, zero_point = case.qparams()
    block = dict(zip(("axis", "group"), case.block, strict=True))
    x = case.x * np.float32(stretch)
    found = derivative(x, scale, zero_point, case.target, device, **block)
    zero_point = spread(to_numpy(zero_point).astype("f"), x.shape, *case.block)
    positions = np.rint(x / case.steps()) + zero_point
    expected = (case.target.qmin <= positions) & (positions <= case.target.qmax)
    np.testing.assert_array_equal(found, expected)


def test_a_layer_can_train_through_it(device):
    """The weight moves although rounding has no derivative; the gradient is the layer's own."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 4)).astype("f"), rng.uniform(-1, 1, (3, 4)).astype("f")
    weight = tc.tensor(w, device=device, requires_grad=True)
    scale = np.abs(w).max(axis=1) / 7
    on = lambda a: to_device(a, device)  # noqa: E731
    quantized = fake_quantize(
        weight, on(scale), 0 * on(scale), IntegerRange(4, narrow=True), axis=0
    )
    (F.linear(tc.tensor(x, device=device), quantized) ** 2).sum().backward()
    y = x @ to_numpy(quantized.data).T
    np.testing.assert_allclose(to_numpy(weight.grad), 2 * y.T @ x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes(dtype):
    x = tc.tensor(np.linspace(-1, 1, 9).astype(dtype), requires_grad=True)
    y = fake_quantize(x, np.full(1, 0.25, np.float32), np.zeros(1, np.int8), IntegerRange(4))
    y.sum().backward()
    assert y.dtype == np.result_type(dtype, np.float32)
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(y.data, np.linspace(-1, 1, 9))


def test_devices_must_meet(cupy):
    x = tc.tensor([1.0], device="cuda")
    with pytest.raises(tc.DeviceError, match="quantize: arrays on cuda:0 and cpu"):
        fake_quantize(x, np.ones(1, np.float32), 0, IntegerRange(8))


# ----------------------------------------------------------------------------------------- torch


@pytest.mark.torch
@given(
    float_arrays(shape=(3, 8), elements=ordinary),
    st.sampled_from([(-128, 127), (0, 255), (-8, 7)]),
    st.integers(1, 4000),
    st.integers(0, 3),
)
def test_torch_differs_only_where_its_reciprocal_rounds_otherwise(x, ends, step, zero_point):
    torch = pytest.importorskip("torch")
    scale = np.float32(step / 7919)
    target = IntegerRange({127: 8, 255: 8, 7: 4}[ends[1]], signed=ends[0] < 0)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.fake_quantize_per_tensor_affine(theirs, float(scale), zero_point, *ends)
    expected.backward(torch.ones_like(theirs))
    ours = tc.tensor(x, requires_grad=True)
    y = fake_quantize(ours, np.array([scale]), zero_point, target)
    y.backward(np.ones_like(x))
    same = np.rint(x / scale) == np.rint(x * (np.float32(1) / scale))
    np.testing.assert_array_equal(y.data[same], expected.detach().numpy()[same])
    np.testing.assert_array_equal(ours.grad[same], theirs.grad.numpy()[same])


@pytest.mark.torch
def test_torch_takes_the_reciprocal():
    """The vector that tells the two apart: torch rounds 127.49999 up."""
    torch = pytest.importorskip("torch")
    scale, x = 0.00214854861, np.float32([0.273939937])
    theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, 0, 0, 255)
    ours = fake_quantize(x, np.float32([scale]), 0, IntegerRange(8, signed=False))
    steps = np.rint(np.array([theirs.item(), ours.item()]) / scale)
    assert list(steps) == [128, 127]
