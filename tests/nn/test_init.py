"""Initialisers: bounds, moments, gains and fans, by formula and against torch."""

import math

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.nn import init
from tinycompress.tensor import Tensor

SHAPE = (40, 30, 3, 5)  # fan_in 450, fan_out 600
FAN_IN, FAN_OUT = 30 * 15, 40 * 15


def filled(fn, *args, shape=SHAPE, **options):
    t = Tensor(np.full(shape, np.nan, np.float32))
    assert fn(t, *args, **options) is t
    assert t.dtype == np.float32
    return t.data.astype(np.float64)


def check_moments(values, mean, variance, kurtosis):
    """Five standard errors; ``kurtosis`` is the fourth moment over the squared variance."""
    n = values.size
    assert abs(values.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(values.var() - variance) < 5 * variance * math.sqrt((kurtosis - 1) / n)


UNIFORM = {
    "uniform_": ((-0.5, 1.5), {}, (-0.5, 1.5)),
    "xavier_uniform_": ((), {}, math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "xavier_uniform_ gain": ((2.0,), {}, 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "kaiming_uniform_": ((), {}, math.sqrt(2) * math.sqrt(3 / FAN_IN)),
    "kaiming_uniform_ a": ((math.sqrt(5),), {}, 1 / math.sqrt(FAN_IN)),
    "kaiming_uniform_ out": (
        (),
        {"mode": "fan_out", "nonlinearity": "tanh"},
        5 / 3 * math.sqrt(3 / FAN_OUT),
    ),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_ones_fill_their_interval(name):
    args, options, bounds = UNIFORM[name]
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)
    values = filled(getattr(init, name.split()[0]), *args, **options)
    width = high - low
    assert low <= values.min() < low + 1e-3 * width
    assert high - 1e-3 * width < values.max() <= high * (1 + 1e-7)
    check_moments(values, (low + high) / 2, width**2 / 12, 1.8)


NORMAL = {
    "normal_": ((0.5, 2.0), {}, 0.5, 2.0),
    "xavier_normal_": ((3.0,), {}, 0.0, 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming_normal_": ((), {}, 0.0, math.sqrt(2 / FAN_IN)),
    "kaiming_normal_ a": ((0.3,), {"mode": "fan_out"}, 0.0, math.sqrt(2 / 1.09 / FAN_OUT)),
    "kaiming_normal_ linear": ((), {"nonlinearity": "linear"}, 0.0, math.sqrt(1 / FAN_IN)),
}


@pytest.mark.parametrize("name", NORMAL)
def test_normal_ones_have_their_moments(name):
    args, options, mean, std = NORMAL[name]
    values = filled(getattr(init, name.split()[0]), *args, **options)
    check_moments(values, mean, std**2, 3)
    inside = (np.abs(values - mean) < std).mean()
    assert abs(inside - 0.682689) < 5 * math.sqrt(0.2166 / values.size)


def test_truncated_normal_stays_inside_and_has_the_moments_of_one():
    values = filled(init.trunc_normal_)
    assert np.abs(values).max() <= 2
    density, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    check_moments(values, 0, 1 - 4 * density / mass, 2.5)
    lopsided = filled(init.trunc_normal_, mean=1.0, std=0.5, a=0.0, b=1.25)
    assert lopsided.min() >= 0
    assert lopsided.max() <= 1.25


def test_truncated_normal_refuses_an_interval_that_holds_nothing():
    with pytest.raises(ValueError, match=r"needs a < b, got a=1\.0, b=0\.0"):
        filled(init.trunc_normal_, 0.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="almost nothing of N"):
        filled(init.trunc_normal_, 0.0, 1.0, 50.0, 51.0, shape=(3,))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (4, 3, 2, 2), (20, 2, 3, 1)])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_orthogonal_rows_or_columns_are(shape, gain):
    values = filled(init.orthogonal_, gain, shape=shape).reshape(shape[0], -1)
    if values.shape[0] > values.shape[1]:
        values = values.T
    np.testing.assert_allclose(values @ values.T, gain**2 * np.eye(len(values)), atol=1e-6)


def test_orthogonal_matrices_are_uniform_not_only_orthogonal():
    """Without the sign correction the diagonal of Q would have one sign."""
    signs = [np.sign(filled(init.orthogonal_, shape=(3, 3))[0, 0]) for _ in range(200)]
    assert abs(np.mean(signs)) < 5 / math.sqrt(200)


def test_constants():
    assert (filled(init.zeros_) == 0).all()
    assert (filled(init.ones_) == 1).all()
    assert (filled(init.constant_, 0.25) == 0.25).all()


@pytest.mark.parametrize(
    ("shape", "expected"), [((5, 7), (7, 5)), ((5, 7, 3), (21, 15)), ((8, 2, 3, 5), (30, 120))]
)
def test_fans(shape, expected):
    assert init.fans(Tensor(np.zeros(shape))) == expected


GAINS = ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu")


def test_gains_are_those_of_the_papers():
    assert init.calculate_gain("relu") == pytest.approx(math.sqrt(2))
    assert init.calculate_gain("leaky_relu", 2.0) == pytest.approx(math.sqrt(2 / 5))
    assert init.calculate_gain("leaky_relu") == pytest.approx(math.sqrt(2 / 1.0001))
    assert init.calculate_gain("tanh") == pytest.approx(5 / 3)


@pytest.mark.torch
def test_gains_and_fans_are_torchs():
    torch = pytest.importorskip("torch")
    for name in GAINS:
        assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    for param in (0, 0.2, math.sqrt(5)):
        expected = torch.nn.init.calculate_gain("leaky_relu", param)
        assert init.calculate_gain("leaky_relu", param) == pytest.approx(expected)
    for shape in ((4, 3), (4, 3, 2), (4, 3, 2, 5)):
        expected = torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(shape))
        assert init.fans(Tensor(np.zeros(shape))) == expected


TORCHS = [
    ("uniform_", (-1.0, 2.0), {}),
    ("normal_", (1.0, 0.5), {}),
    ("trunc_normal_", (0.0, 1.0, -0.5, 2.0), {}),
    ("xavier_uniform_", (1.5,), {}),
    ("xavier_normal_", (), {}),
    ("kaiming_uniform_", (0.3,), {"mode": "fan_out"}),
    ("kaiming_normal_", (), {"nonlinearity": "relu"}),
    ("orthogonal_", (2.0,), {}),
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "args", "options"), TORCHS, ids=[c[0] for c in TORCHS])
def test_distributions_are_torchs(name, args, options):
    torch = pytest.importorskip("torch")
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    ours = filled(getattr(init, name), *args, **options)
    theirs = getattr(torch.nn.init, name)(torch.empty(SHAPE), *args, **options)
    assert stats.ks_2samp(ours.ravel(), theirs.numpy().ravel()).pvalue > 1e-4


def test_numbers_come_from_the_seed_or_from_a_generator():
    tc.manual_seed(5)
    one = filled(init.normal_)
    tc.manual_seed(5)
    np.testing.assert_array_equal(filled(init.normal_), one)
    for fn in (init.uniform_, init.trunc_normal_, init.orthogonal_, init.kaiming_normal_):
        pair = [filled(fn, generator=np.random.default_rng(8)) for _ in range(2)]
        np.testing.assert_array_equal(*pair)


def test_every_device_gets_the_same_numbers(device):
    layer = nn.Linear(4, 3).to(device)
    fns = (init.uniform_, init.xavier_normal_, init.trunc_normal_, init.orthogonal_, init.ones_)
    for fn in fns:
        tc.manual_seed(1)
        expected = filled(fn, shape=(3, 4))
        tc.manual_seed(1)
        fn(layer.weight)
        assert layer.weight.device == layer.device
        np.testing.assert_array_equal(to_numpy(layer.weight.data), expected.astype(np.float32))


def test_what_has_no_fans_or_unknown_words_is_refused():
    vector = Tensor(np.zeros(3, np.float32))
    for fn in (init.xavier_uniform_, init.xavier_normal_, init.kaiming_uniform_, init.orthogonal_):
        with pytest.raises(ValueError, match=r"at least two axes, got shape \(3,\)"):
            fn(vector)
    with pytest.raises(ValueError, match='mode must be "fan_in" or "fan_out"'):
        filled(init.kaiming_normal_, mode="fan")
    with pytest.raises(ValueError, match=r"nonlinearity must be one of .*'relu'.*got 'swish'"):
        filled(init.kaiming_normal_, nonlinearity="swish")
