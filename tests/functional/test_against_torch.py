"""Values and gradients of everything that has torch's name are torch's, at the edges too."""

import math
import zlib

import numpy as np
import pytest
from gradcheck import laid_out
from hypothesis import given, strategies as st
from strategies import convolutions, normal, orders, pairs, poolings, seeds

import tinycompress as tc
from tinycompress import functional as F

torch = pytest.importorskip("torch")
T = torch.nn.functional
pytestmark = pytest.mark.torch

inf, nan = math.inf, math.nan
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def agree(ours, theirs, *arrays, dtype=np.float64, tolerance=None):
    """Outputs and gradients by all ``arrays`` agree, NaN and infinity included."""
    arrays = [np.asarray(a, dtype) for a in arrays]
    a = [tc.tensor(x, requires_grad=True) for x in arrays]
    b = [torch.tensor(x, requires_grad=True) for x in arrays]
    y, z = ours(*a), theirs(*b)
    assert y.shape == tuple(z.shape)
    assert str(y.dtype) == str(z.dtype).removeprefix("torch.")
    g = np.random.default_rng(3).normal(size=y.shape).astype(dtype)
    z.backward(torch.tensor(g))
    tolerance = tolerance or {np.float32: 2e-5, np.float64: 1e-12}[dtype]
    results = [y.data, *tc.grad(y, a, g)]
    expected = [z.detach().numpy(), *(t.grad.numpy() for t in b)]
    for r, e in zip(results, expected, strict=True):
        np.testing.assert_allclose(r, e, rtol=tolerance, atol=tolerance)


def random(name, *shape):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)


X, Y = random("x", 3, 4), random("y", 3, 4)
LABELS = np.array([3, 0, 1])
L = torch.tensor(LABELS)
EDGES = np.array([-100, -1, -0.5, -0.0, 0.0, 0.5, 1, 100])
TIES = np.array([[1.0, 3, 3, 3], [2, 2, 2, 2], [0, -1, 0, -0.0]])

ELEMENTWISE = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, X, Y[0]),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b, X[:, :1], Y),
    "multiply": (lambda a, b: a * b, lambda a, b: a * b, X, Y[:1]),
    "divide": (lambda a, b: a / b, lambda a, b: a / b, X, Y),
    "divide by 0": (lambda a, b: a / b, lambda a, b: a / b, [1.0, 0, -1], [0.0, 0, -0.0]),
    "number over": (lambda a: 1 / a, lambda a: 1 / a, EDGES),
    "number minus": (lambda a: 1 - a, lambda a: 1 - a, EDGES),
    "exp": (lambda a: a.exp(), lambda a: a.exp(), [-1e3, -1, 0, 1, 1e3]),
    "log": (lambda a: a.log(), lambda a: a.log(), [-1, 0, 1e-30, 1, inf]),
    "sqrt": (lambda a: a.sqrt(), lambda a: a.sqrt(), [-1, 0, 1e-30, 1, inf]),
    "abs": (abs, abs, EDGES),
    "square": (lambda a: a**2, lambda a: a**2, EDGES),
    "cube root": (lambda a: a ** (1 / 3), lambda a: a ** (1 / 3), [0, 1, 8]),
    "inverse square": (lambda a: a**-2, lambda a: a**-2, [-2, 0, 2]),
    "to the 0": (lambda a: a**0, lambda a: a**0, [-2, 0, 2, inf]),
    "power": (
        lambda a, b: a**b,
        lambda a, b: a**b,
        [0, 0, 0, 0, 2, 2, -2, -2],
        [0, 1, 2, -1, 0, 3.5, 3, 0.5],
    ),
    "2 to the": (lambda a: 2**a, lambda a: 2**a, EDGES),
    "0 to the": (lambda a: 0**a, lambda a: 0**a, [-1.0, 0, 1, 2]),
    "-2 to the": (lambda a: (-2) ** a, lambda a: (-2) ** a, [-1.0, 0, 1, 2]),
    "clamp": (lambda a: a.clamp(-0.5, 1), lambda a: a.clamp(-0.5, 1), EDGES),
    "clamp below": (lambda a: a.clamp(min=0), lambda a: a.clamp(min=0), EDGES),
    "clamp above": (lambda a: a.clamp(max=0.5), lambda a: a.clamp(max=0.5), EDGES),
    "clamp crosswise": (lambda a: a.clamp(1, -1), lambda a: a.clamp(1, -1), EDGES),
    "maximum": (tc.maximum, torch.maximum, EDGES, np.zeros(8)),
    "minimum": (tc.minimum, torch.minimum, EDGES, np.zeros(8)),
    "maximum of ties": (tc.maximum, torch.maximum, TIES, TIES[:, :1]),
    "where": (
        lambda a, b: tc.where(X > 0, a, b),
        lambda a, b: torch.where(torch.tensor(X) > 0, a, b),
        X,
        Y[0],
    ),
    "where, of infinities": (
        lambda a: tc.where(np.array([True, False, True]), a, 0.0) / 0.0,
        lambda a: torch.where(torch.tensor([True, False, True]), a, 0.0) / 0.0,
        [1.0, 2, 3],
    ),
    "relu": (F.relu, T.relu, EDGES),
    "leaky_relu": (lambda a: F.leaky_relu(a, 0.2), lambda a: T.leaky_relu(a, 0.2), EDGES),
    "sigmoid": (F.sigmoid, torch.sigmoid, EDGES),
    "tanh": (F.tanh, torch.tanh, EDGES),
    "gelu": (F.gelu, T.gelu, EDGES),
    "silu": (F.silu, T.silu, EDGES),
}
REDUCTIONS = {
    "sum": (lambda a: a.sum(0), lambda a: a.sum(0), X),
    "sum of nothing": (lambda a: a.sum(0), lambda a: a.sum(0), np.zeros((0, 3))),
    "mean": (lambda a: a.mean((0, 1)), lambda a: a.mean((0, 1)), X),
    "var": (lambda a: a.var(1), lambda a: a.var(1), X),
    "biased var": (lambda a: a.var(0, True, 0), lambda a: a.var(0, correction=0, keepdim=True), X),
    "max": (lambda a: a.max(1), lambda a: a.amax(1), X),
    "max of ties": (lambda a: a.max(1), lambda a: a.amax(1), TIES),
    "max of all, ties": (lambda a: a.max(), lambda a: a.amax(), TIES),
    "min of ties": (lambda a: a.min((0, 1), True), lambda a: a.amin((0, 1), True), TIES),
    "softmax": (lambda a: F.softmax(a, 0), lambda a: T.softmax(a, 0), X * 9),
    "log_softmax": (lambda a: F.log_softmax(a, 1), lambda a: T.log_softmax(a, 1), X * 9),
    "softmax of large": (F.softmax, lambda a: T.softmax(a, -1), [[1e3, -1e3, 0]]),
    "log_softmax with -inf": (F.log_softmax, lambda a: T.log_softmax(a, -1), [[0, -inf, 1.0]]),
    "softmax with -inf": (F.softmax, lambda a: T.softmax(a, -1), [[0, -inf, 1.0]]),
    "softmax of -inf alone": (F.softmax, lambda a: T.softmax(a, -1), [[-inf, -inf]]),
}
SHAPES = {
    "view": (lambda a: a.view(2, -1), lambda a: a.view(2, -1), X),
    "flatten": (lambda a: a.flatten(1, 2), lambda a: a.flatten(1, 2), random("f", 2, 3, 1, 2)),
    "permute": (lambda a: a.permute(1, 0), lambda a: a.permute(1, 0), X),
    "squeeze": (lambda a: a.squeeze(1), lambda a: a.squeeze(1), X[:, None]),
    "squeeze of another": (lambda a: a.squeeze(0), lambda a: a.squeeze(0), X),
    "expand": (lambda a: a.expand(2, -1, 4), lambda a: a.expand(2, -1, 4), X[:, :1]),
    "index": (lambda a: a[1:, [0, 0, 2]], lambda a: a[1:, [0, 0, 2]], X),
    "index by a mask": (lambda a: a[a > 0], lambda a: a[a > 0], X),
    "index by pairs": (lambda a: a[[2, 2], [1, 1]], lambda a: a[[2, 2], [1, 1]], X),
    "index by a tensor": (lambda a: a[tc.tensor([1, 1])], lambda a: a[torch.tensor([1, 1])], X),
    "pad": (lambda a: a.pad([(0, 0), (1, 2)], 7.0), lambda a: T.pad(a, (1, 2), value=7.0), X),
    "cat": (lambda a, b: tc.cat([a, b, a], 1), lambda a, b: torch.cat([a, b, a], 1), X, Y),
    "stack": (lambda a, b: tc.stack([a, b], -1), lambda a, b: torch.stack([a, b], -1), X, Y),
    "matmul": (lambda a, b: a @ b.T, lambda a, b: a @ b.T, X, Y),
    "matmul, stacks": (
        tc.matmul,
        torch.matmul,
        random("m", 2, 1, 3, 4),
        random("n", 5, 4, 2),
    ),
    "matmul, vectors": (tc.matmul, torch.matmul, X[0], Y[0]),
    "matmul, vector and stack": (tc.matmul, torch.matmul, X[0], random("v", 2, 4, 3)),
    "matmul, stack and vector": (tc.matmul, torch.matmul, random("w", 2, 3, 4), X[0]),
    "linear": (F.linear, T.linear, random("l", 2, 5, 4), X, Y[:, 0]),
    "linear of a vector": (F.linear, T.linear, X[0], Y),
    "layer_norm": (
        lambda a, w, b: F.layer_norm(a, (3, 4), w, b),
        lambda a, w, b: T.layer_norm(a, (3, 4), w, b),
        random("ln", 2, 3, 4),
        X,
        Y,
    ),
    "layer_norm of a constant": (
        lambda a: F.layer_norm(a, 4),
        lambda a: T.layer_norm(a, (4,)),
        np.full((2, 4), 3.0),
    ),
}
LOSSES = {
    f"{name} {reduction}": (
        lambda *a, f=ours, r=reduction: f(*a, r),
        lambda *a, f=theirs, r=reduction: f(*a, r),
        *arrays,
    )
    for reduction in ("mean", "sum", "none")
    for name, ours, theirs, *arrays in (
        (
            "cross_entropy",
            lambda a, r: F.cross_entropy(a, LABELS, reduction=r),
            lambda a, r: T.cross_entropy(a, L, reduction=r),
            X * 9,
        ),
        (
            "cross_entropy smoothed",
            lambda a, r: F.cross_entropy(a, LABELS, 0.3, r),
            lambda a, r: T.cross_entropy(a, L, label_smoothing=0.3, reduction=r),
            X * 9,
        ),
        (
            "cross_entropy of large",
            lambda a, r: F.cross_entropy(a, LABELS, reduction=r),
            lambda a, r: T.cross_entropy(a, L, reduction=r),
            X * 1e4,
        ),
        (
            "cross_entropy with -inf",
            lambda a, r: F.cross_entropy(a, np.array([0]), reduction=r),
            lambda a, r: T.cross_entropy(a, torch.tensor([0]), reduction=r),
            [[0, -inf, 1.0]],
        ),
        (
            "cross_entropy with -inf at the label",
            lambda a, r: F.cross_entropy(a, np.array([1]), reduction=r),
            lambda a, r: T.cross_entropy(a, torch.tensor([1]), reduction=r),
            [[0, -inf, 1.0]],
        ),
        (
            "nll_loss",
            lambda a, r: F.nll_loss(a, LABELS, r),
            lambda a, r: T.nll_loss(a, L, reduction=r),
            X,
        ),
        (
            "mse_loss",
            lambda a, b, r: F.mse_loss(a, b, r),
            lambda a, b, r: T.mse_loss(a, b, reduction=r),
            X,
            Y,
        ),
        (
            "kl_div",
            lambda a, b, r: F.kl_div(a, b, r),
            lambda a, b, r: T.kl_div(a, b, reduction=r),
            X,
            np.abs(Y) + 0.1,
        ),
        (
            "kl_div log_target",
            lambda a, b, r: F.kl_div(a, b, r, log_target=True),
            lambda a, b, r: T.kl_div(a, b, reduction=r, log_target=True),
            X,
            Y,
        ),
        (
            "binary_cross_entropy_with_logits",
            lambda a, b, r: F.binary_cross_entropy_with_logits(a, b, r),
            lambda a, b, r: T.binary_cross_entropy_with_logits(a, b, reduction=r),
            EDGES,
            [0, 1, 0.5, 0, 1, 0.3, 0, 0],
        ),
    )
}
LOSSES["kl_div batchmean"] = (
    lambda a, b: F.kl_div(a, b, "batchmean"),
    lambda a, b: T.kl_div(a, b, reduction="batchmean"),
    X,
    np.abs(Y) + 0.1,
)
CASES = ELEMENTWISE | REDUCTIONS | SHAPES | LOSSES


@pytest.mark.filterwarnings("ignore")  # torch's advice about reductions
@each_dtype
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype):
    ours, theirs, *arrays = CASES[name]
    agree(ours, theirs, *arrays, dtype=dtype)


@pytest.mark.filterwarnings("ignore")
def test_targets_of_probability_0(rng):
    p = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    agree(
        lambda a: F.kl_div(a, p, "batchmean"),
        lambda a: T.kl_div(a, torch.tensor(p), reduction="batchmean"),
        rng.normal(size=(2, 3)),
    )


@given(convolutions(), orders, seeds, st.booleans())
def test_conv2d(c, order, seed, biased):
    x, w, b = normal(seed, c.x, c.w, c.w[:1])
    agree(
        lambda *p: F.conv2d(*p, **c.options()),
        lambda *p: T.conv2d(*p, **c.options()),
        *([laid_out(x, order), w, b] if biased else [x, w]),
    )


@given(poolings(), orders, st.booleans(), seeds)
def test_max_pool2d(p, order, tied, seed):
    (x,) = normal(seed, p.x)
    x = laid_out(np.round(x) if tied else x, order)
    agree(
        lambda x: F.max_pool2d(x, *p[1:]),
        lambda x: T.max_pool2d(x, p.kernel, p.stride, p.padding, ceil_mode=p.ceil_mode),
        x,
    )


@given(poolings(), orders, st.booleans(), seeds)
def test_avg_pool2d(p, order, count_include_pad, seed):
    (x,) = normal(seed, p.x)
    agree(
        lambda x: F.avg_pool2d(x, *p[1:], count_include_pad),
        lambda x: T.avg_pool2d(x, *p[1:], count_include_pad),
        laid_out(x, order),
    )


@given(pairs(1, 3), pairs(1, 9), pairs(1, 9), seeds)
def test_adaptive_avg_pool2d(batch, image, output, seed):
    agree(
        lambda x: F.adaptive_avg_pool2d(x, output),
        lambda x: T.adaptive_avg_pool2d(x, output),
        *normal(seed, (*batch, *image)),
    )


@given(st.lists(st.integers(1, 3), max_size=2), st.booleans(), st.booleans(), seeds)
def test_batch_norm(sizes, training, affine, seed):
    shape = (4, 3, *sizes)
    x, w, b, mean, var = normal(seed, shape, *[(3,)] * 4)
    var = np.exp(var)
    agree(
        lambda x, *p: F.batch_norm(x, mean, var, *p, training=training),
        lambda x, *p: T.batch_norm(x, torch.tensor(mean), torch.tensor(var), *p, training=training),
        *([x, w, b] if affine else [x]),
        tolerance=1e-9,  # eps 1e-5 divides where a channel's four values happen to be close
    )


DEFAULTS = {
    "conv2d": (lambda f, x: f.conv2d(x, x[:, :, :3, :3])),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, 2)),
    "avg_pool2d": (lambda f, x: f.avg_pool2d(x, 2)),
    "avg_pool2d, padded": (lambda f, x: f.avg_pool2d(x, 2, padding=1)),
    "leaky_relu": (lambda f, x: f.leaky_relu(x)),
    "mse_loss": (lambda f, x: f.mse_loss(x, x + 1)),
    "layer_norm": (lambda f, x: f.layer_norm(x, (5,))),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    agree(lambda x: DEFAULTS[name](F, x), lambda x: DEFAULTS[name](T, x), random(name, 2, 3, 5, 5))


def test_defaults_of_axes_and_losses():
    """Where torch has none, or warns: the last axis, the mean."""
    x = tc.tensor(X)
    for name in ("softmax", "log_softmax"):
        expected = getattr(T, name)(torch.tensor(X), -1)
        for y in (getattr(x, name)(), getattr(F, name)(x)):
            np.testing.assert_allclose(y.data, expected.numpy(), rtol=1e-12)
    for loss in (F.cross_entropy, F.nll_loss):
        assert loss(x, LABELS).item() == loss(x, LABELS, reduction="none").mean().item()
    assert F.kl_div(x, Y * Y).item() == F.kl_div(x, Y * Y, "mean").item()


PROMOTIONS = ["int64", "int32", "uint8", "bool", "float32", "float64"]


@pytest.mark.parametrize("left", PROMOTIONS)
@pytest.mark.parametrize("right", [*PROMOTIONS, "2", "2.5", "True"])
@pytest.mark.parametrize("symbol", ["__add__", "__mul__", "__truediv__"])
def test_types_of_results(left, right, symbol):
    """As torch promotes, but float32 never meets float64, and float32 is the default float."""
    a = np.array([1, 0, 1]).astype(left)
    b = np.array([1, 1, 1]).astype(right) if right in PROMOTIONS else None
    if {left, right} == {"float32", "float64"}:
        with pytest.raises(TypeError, match="do not mix"):
            getattr(tc.tensor(a), symbol)(tc.tensor(b))
        return
    number = None if b is not None else {"2": 2, "2.5": 2.5, "True": True}[right]
    ours = getattr(tc.tensor(a), symbol)(number if b is None else tc.tensor(b))
    theirs = getattr(torch.tensor(a), symbol)(number if b is None else torch.tensor(b))
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.data, theirs.numpy())
