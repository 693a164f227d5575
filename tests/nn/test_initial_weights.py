"""The weights that a new layer starts with: bounds and moments, as in torch, and the seed."""

import math

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn

WITH_WEIGHTS = {
    "linear": (lambda lib: lib.Linear(300, 200), 300),
    "conv": (lambda lib: lib.Conv2d(16, 64, (3, 5)), 16 * 15),
    "conv in groups": (lambda lib: lib.Conv2d(64, 128, 3, groups=4), 16 * 9),
}


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_new_weights_and_biases_are_uniform_within_one_over_root_fan_in(name):
    make, fan_in = WITH_WEIGHTS[name]
    tc.manual_seed(1)
    layers = [make(nn) for _ in range(5)]
    bound = 1 / math.sqrt(fan_in)
    for what in ("weight", "bias"):
        values = np.concatenate([getattr(m, what).data.ravel() for m in layers]) / bound
        n = len(values)
        assert np.abs(values).max() <= 1
        assert values.max() > 1 - 10 / n
        assert values.min() < -1 + 10 / n
        # five standard errors of the mean and of the variance of a uniform distribution
        assert abs(values.mean()) < 5 * math.sqrt(1 / 3 / n)
        assert abs(values.var() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)


@pytest.mark.torch
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_new_weights_are_distributed_as_torchs(name):
    torch = pytest.importorskip("torch")
    stats = pytest.importorskip("scipy.stats")
    make, _ = WITH_WEIGHTS[name]
    torch.manual_seed(0)
    for what in ("weight", "bias"):
        ours = np.concatenate([getattr(make(nn), what).data.ravel() for _ in range(3)])
        theirs = [getattr(make(torch.nn), what).detach().numpy().ravel() for _ in range(3)]
        assert stats.ks_2samp(ours, np.concatenate(theirs)).pvalue > 1e-4


def test_the_seed_decides_the_weights():
    def weights(seed):
        tc.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4)).state_dict()

    one, again, other = weights(3), weights(3), weights(4)
    for name, array in one.items():
        np.testing.assert_array_equal(array, again[name])
        assert (array != other[name]).all()


def test_norms_start_as_the_identity():
    for layer in (nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.LayerNorm((4,))):
        np.testing.assert_array_equal(layer.weight.data, np.ones(4))
        np.testing.assert_array_equal(layer.bias.data, np.zeros(4))
