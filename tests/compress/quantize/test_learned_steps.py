"""Learned step sizes (LSQ, Esser et al. 2020): the paper's formulas, and torch's."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from qat_models import blobs, cnn
from quantize_cases import float_arrays, ordinary

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.compress.quantize import QuantConfig
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer
from tinycompress.compress.quantize.qat.weights import WeightQuantizer
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.compress.quantize.straight_through import dequantize_steps, quantize_steps
from tinycompress.tensor import apply


def by_the_paper(v, low, high):
    """Equation 3: the derivative of v̂·s by s, where v = x/s; ends are inside (see the module)."""
    n = np.rint(v)
    return np.where(n < low, low, np.where(n > high, high, n - v))


def weights(config, w):
    quantizer = WeightQuantizer(config, w.shape, "this layer")
    quantizer.start(w)
    return quantizer


def fake_quantized(quantizer, w):
    scale, zero_point = quantizer.scale(w)
    q = quantizer.quantization
    steps = quantizer.steps(w, scale, zero_point)
    return apply(dequantize_steps, steps, scale, axis=q.axis, group=q.group_size)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_start_and_learn_as_in_the_paper(rng, granularity, bits):
    """Section 2.1: 2·mean|w|/√Q_P. Section 2.2: the gradient times 1/√(n·Q_P)."""
    w = rng.normal(size=(3, 2, 5)).astype("f")
    config = QuantConfig(bits=bits, granularity=granularity, learn_step=True)
    quantizer = weights(config, w)
    high = 2 ** (bits - 1) - 1
    axes = (1, 2) if granularity == "per_channel" else None
    start = 2 * np.abs(w).mean(axis=axes).reshape(-1) / np.sqrt(high)
    np.testing.assert_allclose(quantizer.step.data, start, rtol=1e-6)
    g = rng.normal(size=w.shape).astype("f")
    leaf = nn.Parameter(w)
    fake_quantized(quantizer, leaf).backward(g)
    s = quantizer.step.data.reshape(-1, 1, 1)
    n = w.size / len(start)
    expected = (g * by_the_paper(w / s, -high, high)).sum(axis=axes).reshape(-1) / np.sqrt(n * high)
    np.testing.assert_allclose(quantizer.step.grad, expected, rtol=1e-3, atol=1e-5)
    inside = np.abs(np.rint(w / s)) <= high
    np.testing.assert_allclose(leaf.grad, g * inside, rtol=1e-6)


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_activations_start_and_learn_as_in_the_paper(rng, scheme):
    """n is the number of features of one example: batches may be of any size."""
    x = np.abs(rng.normal(size=(6, 4, 3))).astype("f")
    config = QuantConfig(activations=3, activation_scheme=scheme, learn_step=True)
    quantizer = ActivationQuantizer(config, "this layer")
    quantizer(tc.Tensor(x))  # at once: there is no training step around it
    high = 7 if scheme == "affine" else 3
    np.testing.assert_allclose(
        quantizer.step.data, 2 * x.mean(dtype=float) / np.sqrt(high), rtol=1e-6
    )
    y = quantizer(tc.Tensor(x)).dequantize()
    g = rng.normal(size=x.shape).astype("f")
    y.backward(g)
    v = x / quantizer.step.data
    expected = (g * by_the_paper(v, 0 if scheme == "affine" else -3, high)).sum()
    np.testing.assert_allclose(quantizer.step.grad, expected / np.sqrt(12 * high), rtol=1e-3)


def test_calibration_data_count_together(rng):
    x = rng.normal(size=(50, 3)).astype("f") * np.arange(50)[:, None].astype("f")
    config = QuantConfig(activations=4, activation_scheme="symmetric", learn_step=True)
    quantizer = ActivationQuantizer(config, "this layer")
    for start in (0, 20, 35):
        quantizer(tc.Tensor(x[start : start + 15 if start else 20]), rounding=False)
    expected = 2 * np.abs(x).mean(dtype=float) / np.sqrt(7)
    np.testing.assert_allclose(quantizer.step.data, expected, rtol=1e-6)


def test_pruned_weights_do_not_count_in_the_start(rng):
    w = rng.normal(size=(2, 40)).astype("f")
    whole = weights(QuantConfig(bits=2, learn_step=True), w).step.data
    thin = np.repeat(w, 10, axis=1)
    thin[:, np.arange(400) % 10 != 0] = 0
    np.testing.assert_allclose(
        weights(QuantConfig(bits=2, learn_step=True), thin).step.data, whole, rtol=1e-6
    )


def test_layers_of_zeros_and_of_one_sign_start_somewhere():
    for w in (np.zeros((2, 3), "f"), np.full((2, 3), -2, "f")):
        for bits in (2, 8):
            step = weights(QuantConfig(bits=bits, learn_step=True), w).step.data
            assert (step > 0).all()
            assert np.isfinite(step).all()
    quantizer = ActivationQuantizer(QuantConfig(activations=4, learn_step=True), "this layer")
    quantizer(tc.Tensor(np.zeros((2, 3), "f")))
    assert quantizer.final() == (1.0, 0)
    quantizer(tc.Tensor(-np.ones((2, 3), "f")), rounding=False)
    scale, zero_point = quantizer.final()
    assert scale > 0
    assert zero_point == 15, "of numbers below 0 the largest code is 0"


def test_a_step_that_became_negative_still_has_a_positive_scale(rng):
    prepared = tc.prepare_qat(cnn(), QuantConfig(activations=4, learn_step=True), blobs())
    for name, p in prepared.named_parameters():
        if name.endswith("step"):
            p.data *= -1
    prepared.conv2.output_quantizer.step.data[...] = 0
    images = blobs(20, seed=2).images
    F.cross_entropy(prepared.train()(images), blobs(20, seed=2).labels).backward()
    assert all(np.isfinite(p.grad).all() for p in prepared.parameters())
    expected = prepared.eval()(images).data
    np.testing.assert_array_equal(tc.convert(prepared)(images).data, expected)


def test_one_bit_learns_its_scale(rng):
    w = rng.normal(size=(2, 50)).astype("f")
    quantizer = weights(QuantConfig(bits=1, learn_step=True), w)
    np.testing.assert_allclose(quantizer.step.data, np.abs(w).mean(axis=1), rtol=1e-6)
    g = rng.normal(size=w.shape).astype("f")
    fake_quantized(quantizer, nn.Parameter(w)).backward(g)
    expected = (g * np.where(w >= 0, 1, -1)).sum(axis=1) / np.sqrt(50)
    np.testing.assert_allclose(quantizer.step.grad, expected, rtol=1e-5)


# ----------------------------------------------------------------------------------------- torch


@pytest.mark.torch
@given(float_arrays(shape=(4, 6), elements=ordinary), st.integers(1, 4000), st.integers(0, 3))
def test_torch_has_the_same_gradients(x, step, zero_point):
    """Except where its multiplication by 1/s rounds otherwise than a division by s."""
    torch = pytest.importorskip("torch")
    s, target = np.float32([step / 7919]), IntegerRange(3, signed=False)
    theirs, their_s = torch.from_numpy(x.copy()), torch.from_numpy(s.copy())
    theirs.requires_grad_(), their_s.requires_grad_()
    expected = torch._fake_quantize_learnable_per_tensor_affine(
        theirs, their_s, torch.tensor([float(zero_point)]), 0, 7, 0.25
    )
    g = np.linspace(-1, 1, x.size, dtype="f").reshape(x.shape)
    expected.backward(torch.from_numpy(g))
    ours, scale = tc.tensor(x, requires_grad=True), tc.tensor(s, requires_grad=True)
    steps = apply(quantize_steps, ours, scale, zero_point=zero_point, target=target)
    y = apply(dequantize_steps, steps, scale)
    y.backward(g)
    same = np.rint(x / s) == np.rint(x * (np.float32(1) / s))
    np.testing.assert_array_equal(y.data[same], expected.detach().numpy()[same])
    np.testing.assert_allclose(ours.grad[same], theirs.grad.numpy()[same], rtol=1e-6)
    if same.all():
        size = (np.abs(g) * np.maximum(7, np.abs(x / s))).sum()
        np.testing.assert_allclose(
            0.25 * scale.grad, their_s.grad.numpy(), rtol=1e-4, atol=1e-6 * size
        )
