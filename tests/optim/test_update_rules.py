"""Each optimizer's arithmetic: against the formula for one number, and against torch."""

import math

import numpy as np
import pytest
from strict_cupy import counting

from tinycompress import optim
from tinycompress.backend import to_device, to_numpy
from tinycompress.nn import Parameter

CASES = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (optim.RMSprop, {}),
    (optim.RMSprop, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    (optim.RMSprop, {"lr": 0.003, "momentum": 0.9}),
    (optim.RMSprop, {"lr": 0.003, "centered": True}),
    (optim.RMSprop, {"lr": 0.003, "alpha": 0.95, "centered": True, "momentum": 0.5}),
    (optim.Adam, {"lr": 0.02}),
    (optim.Adam, {"lr": 0.02, "betas": (0.3, 0.6), "eps": 1e-3}),
    (optim.Adam, {"lr": 0.02, "weight_decay": 0.3}),
    (optim.AdamW, {"lr": 0.02}),
    (optim.AdamW, {"lr": 0.02, "betas": (0.8, 0.99), "weight_decay": 0.3}),
]
NAMES = [f"{kind.__name__}-{'-'.join(options) or 'defaults'}" for kind, options in CASES]
each_rule = pytest.mark.parametrize(("kind", "options"), CASES, ids=NAMES)


def gradient(w):
    """The derivative of ``Σ 1 − cos w``: smooth, changes its sign, and depends on w."""
    return np.sin(w)


def start(dtype=np.float64):
    return np.random.default_rng(3).normal(size=(4, 3)).astype(dtype)


def sgd_reference(w, steps, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    v = None
    for _ in range(steps):
        g = math.sin(w) + weight_decay * w
        if momentum:
            v = g if v is None else momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        w = w - lr * g
    return w


def rmsprop_reference(
    w, steps, lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False
):
    mean = square = v = 0.0
    for _ in range(steps):
        g = math.sin(w) + weight_decay * w
        mean = alpha * mean + (1 - alpha) * g
        square = alpha * square + (1 - alpha) * g**2
        v = momentum * v + g / (math.sqrt(square - mean**2 if centered else square) + eps)
        w = w - lr * v
    return w


def adam_reference(w, steps, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, own=False):
    m = v = 0.0
    for t in range(1, steps + 1):
        g = math.sin(w) + (0.0 if own else weight_decay * w)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        w = w - lr * (weight_decay * w if own else 0.0) - lr * m_hat / (math.sqrt(v_hat) + eps)
    return w


def adamw_reference(w, steps, weight_decay=0.01, **options):
    return adam_reference(w, steps, weight_decay=weight_decay, own=True, **options)


REFERENCES = {
    optim.SGD: sgd_reference,
    optim.RMSprop: rmsprop_reference,
    optim.Adam: adam_reference,
    optim.AdamW: adamw_reference,
}


def trajectory(kind, options, w, steps=50, device="cpu"):
    """The weights after each step."""
    p = Parameter(to_device(w.copy(), device))
    optimizer = kind([p], **options)
    result = []
    for _ in range(steps):
        p.grad = to_device(gradient(to_numpy(p.data)), device)
        optimizer.step()
        result.append(to_numpy(p.data).copy())
    return np.stack(result)


@each_rule
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_the_formula_of_the_paper(kind, options, steps):
    w = start()
    expected = [REFERENCES[kind](float(x), steps, **options) for x in w.flat]
    actual = trajectory(kind, options, w, steps)[-1]
    np.testing.assert_allclose(actual, np.reshape(expected, w.shape), rtol=0, atol=1e-12)


@pytest.mark.torch
@each_rule
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_the_whole_way_equals_torch(kind, options, dtype, tolerance):
    torch = pytest.importorskip("torch")
    w = start(dtype)
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = getattr(torch.optim, kind.__name__)([p], foreach=False, **{"lr": 0.01, **options})
    expected = []
    for _ in range(50):
        p.grad = torch.from_numpy(gradient(p.detach().numpy()))
        optimizer.step()
        expected.append(p.detach().numpy().copy())
    actual = trajectory(kind, {"lr": 0.01, **options}, w)
    np.testing.assert_allclose(actual, np.stack(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.torch
@pytest.mark.parametrize("kind", REFERENCES, ids=lambda kind: kind.__name__)
def test_defaults_are_torchs(kind):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.optim, kind.__name__)([torch.nn.Parameter(torch.zeros(1))]).defaults
    ours = kind([Parameter(np.zeros(1))]).defaults
    assert ours == {name: theirs[name] for name in ours}


@each_rule
def test_every_device_computes_the_same(kind, options, device):
    w = start(np.float32)
    actual = trajectory(kind, options, w, steps=5, device=device)
    np.testing.assert_allclose(actual, trajectory(kind, options, w, steps=5), rtol=1e-6, atol=1e-6)


@each_rule
def test_a_step_works_in_place_and_promotes_nothing(kind, options, device):
    data = to_device(start(np.float32), device)
    g = to_device(gradient(start(np.float32)), device)
    p = Parameter(data)
    p.grad = g
    optimizer = kind([p], **options)
    optimizer.step()
    optimizer.step()
    assert p.data is data
    assert p.grad is g
    np.testing.assert_array_equal(to_numpy(g), gradient(start(np.float32)))
    arrays = [x for x in optimizer.state[0].values() if not isinstance(x, int)]
    assert {x.dtype for x in [data, *arrays]} == {np.dtype(np.float32)}
    assert {x.shape for x in arrays} <= {data.shape}


@each_rule
def test_shape_does_not_matter(kind, options):
    w = start()
    expected = trajectory(kind, options, w, steps=3)
    flat = trajectory(kind, options, w.reshape(-1), steps=3)
    transposed = trajectory(kind, options, np.asfortranarray(w), steps=3)
    scalar = trajectory(kind, options, w[1, 2].reshape(()), steps=3)
    np.testing.assert_array_equal(flat.reshape(expected.shape), expected)
    np.testing.assert_array_equal(transposed, expected)
    np.testing.assert_array_equal(scalar, expected[:, 1, 2])


@each_rule
def test_numpy_scalars_as_options_change_nothing(kind, options):
    numpy_options = {k: np.float64(v) if type(v) is float else v for k, v in options.items()}
    w = start(np.float32)
    expected = trajectory(kind, options, w, steps=3)
    np.testing.assert_array_equal(trajectory(kind, numpy_options, w, steps=3), expected)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (optim.SGD, {"lr": 0.1}),
        (optim.SGD, {"lr": 0.02, "momentum": 0.9}),
        (optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
        (optim.RMSprop, {"lr": 0.002}),
        (optim.Adam, {"lr": 0.05}),
        (optim.AdamW, {"lr": 0.05, "weight_decay": 0.0}),
    ],
)
def test_a_convex_quadratic_is_minimised(kind, options):
    curvature = np.array([0.5, 1.0, 5.0])
    minimum = np.array([1.0, -2.0, 0.5])
    p = Parameter(np.zeros(3))
    optimizer = kind([p], **options)
    for _ in range(2000):
        p.grad = curvature * (p.data - minimum)
        optimizer.step()
    np.testing.assert_allclose(p.data, minimum, atol=2e-3)


@each_rule
def test_a_step_never_waits_for_the_gpu(kind, options, cupy):
    p = Parameter(cupy.asarray(start(np.float32)))
    p.mask = cupy.asarray(start() > 0)
    p.grad = cupy.asarray(gradient(start(np.float32)))
    optimizer = kind([p], **options)
    optimizer.step()
    with counting() as counts:
        optimizer.step()
    assert counts.syncs == []
    assert counts.uploads == 0
    assert counts.launches <= 25


def test_weight_decay_alone_shrinks_by_the_same_share_in_adamw():
    p = Parameter(np.array([1.0, -8.0]))
    p.grad = np.zeros(2)
    optim.AdamW([p], lr=0.1, weight_decay=0.5).step()
    np.testing.assert_allclose(p.data, [0.95, -7.6], rtol=1e-15)


def test_a_gradient_that_never_changes_has_no_negative_variance():
    p = Parameter(np.zeros(64, dtype=np.float32))
    optimizer = optim.RMSprop([p], alpha=0.5, centered=True)
    g = np.random.default_rng(0).normal(size=64).astype(np.float32)
    below_zero = False
    for _ in range(60):
        p.grad = g
        optimizer.step()
        state = optimizer.state[0]
        below_zero |= bool((state["square_avg"] < state["grad_avg"] ** 2).any())
    assert below_zero, "the case that this test is about did not arise"
    assert np.isfinite(p.data).all()
