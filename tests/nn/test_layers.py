"""Every layer: against its formula, against finite differences, against torch, on every device."""

import json
import math

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.tensor import Tensor

IMAGES = (3, 4, 7, 6)
VECTORS = (5, 6)

# name: (what makes it in `tinycompress.nn` or `torch.nn`, shape of the input)
LAYERS = {
    "linear": (lambda lib: lib.Linear(6, 4), VECTORS),
    "linear, no bias": (lambda lib: lib.Linear(6, 4, bias=False), VECTORS),
    "linear, more axes": (lambda lib: lib.Linear(6, 4), (2, 3, 6)),
    "conv": (lambda lib: lib.Conv2d(4, 5, 3), IMAGES),
    "conv, no bias": (lambda lib: lib.Conv2d(4, 5, (3, 2), bias=False), IMAGES),
    "conv, all options": (
        lambda lib: lib.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (2, 3), 2, True),
        IMAGES,
    ),
    "conv, depthwise": (lambda lib: lib.Conv2d(4, 4, 3, padding=1, groups=4), IMAGES),
    "max pool": (lambda lib: lib.MaxPool2d(2), IMAGES),
    "max pool, all options": (lambda lib: lib.MaxPool2d((2, 3), 2, 1, ceil_mode=True), IMAGES),
    "mean pool": (lambda lib: lib.AvgPool2d(2), IMAGES),
    "mean pool, all options": (lambda lib: lib.AvgPool2d((2, 3), 2, 1, True, False), IMAGES),
    "mean pool, padding counts": (lambda lib: lib.AvgPool2d(3, 2, 1, True, True), IMAGES),
    "adaptive pool": (lambda lib: lib.AdaptiveAvgPool2d((3, 4)), IMAGES),
    "batch norm 1d": (lambda lib: lib.BatchNorm1d(6), VECTORS),
    "batch norm 1d, sequences": (lambda lib: lib.BatchNorm1d(4, 1e-3), (3, 4, 5)),
    "batch norm 2d": (lambda lib: lib.BatchNorm2d(4), IMAGES),
    "batch norm 2d, bare": (lambda lib: lib.BatchNorm2d(4, affine=False), IMAGES),
    "layer norm": (lambda lib: lib.LayerNorm(6, 1e-3), VECTORS),
    "layer norm, more axes": (lambda lib: lib.LayerNorm((7, 6)), IMAGES),
    "layer norm, bare": (lambda lib: lib.LayerNorm(6, elementwise_affine=False), VECTORS),
    "flatten": (lambda lib: lib.Flatten(), IMAGES),
    "flatten, some axes": (lambda lib: lib.Flatten(0, 2), IMAGES),
    "relu": (lambda lib: lib.ReLU(), VECTORS),
    "leaky relu": (lambda lib: lib.LeakyReLU(0.2), VECTORS),
    "sigmoid": (lambda lib: lib.Sigmoid(), VECTORS),
    "tanh": (lambda lib: lib.Tanh(), VECTORS),
    "gelu": (lambda lib: lib.GELU(), VECTORS),
    "silu": (lambda lib: lib.SiLU(), VECTORS),
    "softmax": (lambda lib: lib.Softmax(1), IMAGES),
    "log softmax": (lambda lib: lib.LogSoftmax(-1), VECTORS),
    "identity": (lambda lib: lib.Identity(), VECTORS),
    "dropout, evaluated": (lambda lib: lib.Dropout(0.5).eval(), VECTORS),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def made(name, dtype="float64"):
    """The layer with weights that are not the special ones of a new layer, and an input."""
    make, shape = LAYERS[name]
    tc.manual_seed(2)
    rng = np.random.default_rng(5)
    layer = make(nn).to(dtype)
    for p in layer.parameters():
        p.data += rng.normal(size=p.shape).astype(dtype) / 4
    return layer, rng.normal(size=shape).astype(dtype)


# --------------------------------------------------------------------------------- the formulas


def convolved(x, layer):
    """Cross-correlation, one output pixel and one group at a time."""
    (sh, sw), (ph, pw), (dh, dw) = layer.stride, layer.padding, layer.dilation
    w, groups = layer.weight.data, layer.groups
    kh, kw = w.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    oh = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((len(x), len(w), oh, ow), x.dtype)
    inputs, outputs = x.shape[1] // groups, len(w) // groups
    for o in range(len(w)):
        first = o // outputs * inputs
        for p in range(oh):
            for q in range(ow):
                rows = slice(p * sh, p * sh + dh * kh, dh)
                cols = slice(q * sw, q * sw + dw * kw, dw)
                window = x[:, first : first + inputs, rows, cols]
                y[:, o, p, q] = (window * w[o]).sum(axis=(1, 2, 3))
    return y if layer.bias is None else y + layer.bias.data[:, None, None]


def pooled(x, layer, reduce, fill):
    """``reduce`` over the values of each window that are there (NaN is not)."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel_size, layer.stride, layer.padding
    H, W = x.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    x = np.pad(x, ((0, 0), (0, 0), (0, kh), (0, kw)), constant_values=np.nan)  # the overhang

    def starts(n, k, s, p):
        last = n + 2 * p - k
        count = (math.ceil if layer.ceil_mode else math.floor)(last / s) + 1
        return [i * s for i in range(count) if i * s < n + p]

    rows, cols = starts(H, kh, sh, ph), starts(W, kw, sw, pw)
    out = [[reduce(x[:, :, i : i + kh, j : j + kw], axis=(2, 3)) for j in cols] for i in rows]
    return np.array(out).transpose(2, 3, 0, 1)


def adaptive(x, layer):
    oh, ow = layer.output_size
    H, W = x.shape[2:]
    spans = [
        [(p * n // o, math.ceil((p + 1) * n / o)) for p in range(o)] for n, o in ((H, oh), (W, ow))
    ]
    out = [[x[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in spans[1]] for a, b in spans[0]]
    return np.array(out).transpose(2, 3, 0, 1)


def normalised(x, layer):
    if isinstance(layer, nn.LayerNorm):
        axes = tuple(range(x.ndim - len(layer.normalized_shape), x.ndim))
        shape = layer.normalized_shape
    else:
        axes = tuple(a for a in range(x.ndim) if a != 1)
        shape = (-1,) + (1,) * (x.ndim - 2)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + layer.eps)
    if layer.weight is None:
        return y
    return y * layer.weight.data.reshape(shape) + layer.bias.data.reshape(shape)


def formula(x, layer):
    kind = type(layer)
    if kind is nn.Linear:
        y = np.einsum("...i,oi->...o", x, layer.weight.data)
        return y if layer.bias is None else y + layer.bias.data
    if kind is nn.Conv2d:
        return convolved(x, layer)
    if kind is nn.MaxPool2d:
        return pooled(x, layer, np.nanmax, np.nan)
    if kind is nn.AvgPool2d:
        return pooled(x, layer, np.nanmean, 0.0 if layer.count_include_pad else np.nan)
    if kind is nn.AdaptiveAvgPool2d:
        return adaptive(x, layer)
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm):
        return normalised(x, layer)
    if kind is nn.Flatten:
        return x.reshape(len(x), -1) if layer.start_dim else x.reshape(-1, x.shape[-1])
    if kind in (nn.Softmax, nn.LogSoftmax):
        p = np.exp(x) / np.exp(x).sum(layer.axis, keepdims=True)
        return p if kind is nn.Softmax else np.log(p)
    return {
        nn.ReLU: np.where(x > 0, x, 0),
        nn.LeakyReLU: np.where(x > 0, x, 0.2 * x),
        nn.Sigmoid: 1 / (1 + np.exp(-x)),
        nn.Tanh: np.tanh(x),
        nn.GELU: x * np.vectorize(lambda v: (1 + math.erf(v / math.sqrt(2))) / 2)(x),
        nn.SiLU: x / (1 + np.exp(-x)),
    }.get(kind, x)


@each_layer
def test_a_layer_computes_its_formula(name):
    layer, x = made(name)
    y = layer(x)
    np.testing.assert_allclose(y.data, formula(x, layer), rtol=1e-12, atol=1e-12)
    assert y.dtype == np.float64


@each_layer
def test_derivatives_agree_with_finite_differences(name):
    """Along one random direction of everything at once: the input and all parameters."""
    layer, x = made(name)
    tensors = [Tensor(x, requires_grad=True), *layer.parameters()]
    rng = np.random.default_rng(6)
    weights = rng.normal(size=layer(x).shape)
    directions = [rng.normal(size=t.shape) for t in tensors]

    def loss():
        return (layer(tensors[0]) * weights).sum()

    gradients = tc.grad(loss(), tensors)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    start, step, values = [t.data for t in tensors], 1e-6, []
    for sign in (1, -1):
        for t, s, d in zip(tensors, start, directions, strict=True):
            t.data = s + sign * step * d
        values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-6)


@pytest.mark.torch
@each_layer
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-5)])
def test_values_and_gradients_equal_torchs(name, dtype, tolerance):
    torch = pytest.importorskip("torch")
    ours, x = made(name, dtype)
    theirs = LAYERS[name][0](torch.nn).to(getattr(torch, dtype))
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    xt = torch.from_numpy(x).clone().requires_grad_()
    yt = theirs(xt)
    g = np.random.default_rng(7).normal(size=tuple(yt.shape)).astype(dtype)
    yt.backward(torch.from_numpy(g))
    xo = Tensor(x, requires_grad=True)
    yo = ours(xo)
    yo.backward(g)

    def same(a, b):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance)

    same(yo.data, yt)
    same(xo.grad, xt.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad)
    for b, c in zip(ours.buffers(), list(theirs.buffers())[:2], strict=False):
        same(b, c)


@each_layer
def test_every_device_computes_the_same(name, device):
    layer, x = made(name, "float32")
    g = np.random.default_rng(8).normal(size=layer(x).shape).astype(np.float32)
    results = []
    for where in ("cpu", device):
        twin = made(name, "float32")[0].to(where)
        leaf = tc.tensor(x, device=where, requires_grad=True)
        y = twin(leaf)
        y.backward(to_device(g, where))
        arrays = [y.data, leaf.grad, *(p.grad for p in twin.parameters()), *twin.buffers()]
        assert {tc.Tensor(a).device for a in arrays} == {leaf.device}
        assert {a.dtype.name for a in arrays} == {"float32"}
        results.append([to_numpy(a) for a in arrays])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@each_layer
def test_arrays_and_tensors_are_taken_alike(name):
    layer, x = made(name, "float32")
    np.testing.assert_array_equal(layer(x).data, layer(Tensor(x)).data)


@each_layer
def test_the_configuration_builds_the_same_layer(name):
    layer, x = made(name)
    plain = json.loads(json.dumps(layer.config()))
    twin = type(layer)(**plain).to("float64")
    twin.load_state_dict(layer.state_dict())
    assert twin.config() == layer.config()
    assert repr(twin) == repr(layer)
    twin.train(layer.training)
    np.testing.assert_array_equal(twin(x).data, layer(x).data)
