"""Clipping: the direction of the gradient stays, its length is bounded."""

import math

import numpy as np
import pytest
from strict_cupy import counting

from tinycompress import optim
from tinycompress.backend import to_device, to_numpy
from tinycompress.nn import Parameter

NORMS = [0.5, 1.0, 2.0, 3.0, math.inf]


def parameters_with(*grads, device="cpu"):
    parameters = []
    for g in grads:
        p = Parameter(to_device(np.zeros_like(g), device))
        p.grad = to_device(g.copy(), device)
        parameters.append(p)
    return parameters


def grads(dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (5,), (2, 1, 3))]


def norm_of(arrays, p):
    """Of all numbers together."""
    everything = np.concatenate([np.abs(a).ravel() for a in arrays])
    return everything.max() if p == math.inf else (everything**p).sum() ** (1 / p)


@pytest.mark.parametrize("norm_type", NORMS)
def test_the_norm_is_returned_and_bounded(norm_type, device):
    parameters = parameters_with(*grads(np.float32), device=device)
    expected = norm_of(grads(), norm_type)
    total = optim.clip_grad_norm_(parameters, 0.5, norm_type)
    assert type(total) is float
    assert total == pytest.approx(expected, rel=1e-6)
    clipped = [to_numpy(p.grad) for p in parameters]
    assert {g.dtype for g in clipped} == {np.dtype(np.float32)}
    for g, before in zip(clipped, grads(), strict=True):
        np.testing.assert_allclose(g, before * 0.5 / expected, rtol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("max_norm", [0.0, 0.7, 100.0])
def test_it_is_torchs(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    theirs = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads()]
    for p, g in zip(theirs, grads(), strict=True):
        p.grad = torch.from_numpy(g)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).item()
    ours = parameters_with(*grads())
    assert optim.clip_grad_norm_(ours, max_norm, norm_type) == pytest.approx(expected, rel=1e-12)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12)


def test_a_gpu_is_waited_for_once(cupy):
    parameters = parameters_with(*grads(np.float32), device="cuda")
    with counting() as counts:
        optim.clip_grad_norm_(parameters, 0.5)
    assert len(counts.syncs) == 1


def test_short_gradients_are_not_touched():
    parameters = parameters_with(*grads())
    arrays = [p.grad for p in parameters]
    optim.clip_grad_norm_(parameters, 1000.0)
    for p, array, before in zip(parameters, arrays, grads(), strict=True):
        assert p.grad is array
        np.testing.assert_array_equal(array, before)


def test_clipping_is_in_place():
    parameters = parameters_with(*grads())
    arrays = [p.grad for p in parameters]
    optim.clip_grad_norm_((p for p in parameters), 0.1)
    assert all(p.grad is array for p, array in zip(parameters, arrays, strict=True))


def test_parameters_without_gradients_do_not_count():
    (p,) = parameters_with(np.array([3.0, 4.0]))
    assert optim.clip_grad_norm_([Parameter(np.ones(2)), p], 1.0) == 5.0
    assert optim.clip_grad_norm_(Parameter(np.ones(2)), 1.0) == 0.0


def test_pruned_weights_do_not_count():
    (p,) = parameters_with(np.array([3.0, 1000.0, 4.0]))
    p.mask = np.array([True, False, True])
    assert optim.clip_grad_norm_(p, 10.0) == 5.0
    np.testing.assert_array_equal(p.grad, [3.0, 1000.0, 4.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite(bad):
    (p,) = parameters_with(np.array([1.0, bad]))
    before = p.grad.copy()
    assert not math.isfinite(optim.clip_grad_norm_(p, 1.0))
    np.testing.assert_array_equal(p.grad, before)
    with pytest.raises(FloatingPointError, match=f"the norm of the gradients is {bad}"):
        optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


def test_arguments_out_of_range_are_named():
    (p,) = parameters_with(np.ones(2))
    with pytest.raises(ValueError, match="max_norm must be a finite number ≥ 0, got -1"):
        optim.clip_grad_norm_(p, -1)
    with pytest.raises(ValueError, match="norm_type must be > 0, got 0"):
        optim.clip_grad_norm_(p, 1.0, norm_type=0)
    with pytest.raises(TypeError, match=r"item 0 is a ndarray, not an nn\.Parameter"):
        optim.clip_grad_norm_([np.ones(2)], 1.0)
