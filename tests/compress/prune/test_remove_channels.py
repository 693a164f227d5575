"""Channels really removed: fewer numbers, and the same ones as the masked model gives."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.prune.channels import channel_masks
from tinycompress.nn.summary import summary


def masked(model, masks):
    """The model with these masks' zeros: what a smaller one must be equal to."""
    copy = model.copy()
    parameters = dict(copy.named_parameters())
    for name, mask in masks.items():
        p = parameters[name]
        p.data = p.data * to_device(mask, p.device)
    return copy


def images(*shape, dtype="f8", device="cpu"):
    x = np.random.default_rng(7).normal(size=(5, *shape)).astype(dtype)
    return to_device(x, device)


def outputs(model, x):
    return to_numpy(model.eval()(x).data)


def assert_same(slim, model, masks, x, tolerance=1e-9):
    expected = outputs(masked(model, masks), x)
    np.testing.assert_allclose(outputs(slim, x), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", tc.models.names())
@pytest.mark.parametrize("amount", [0.2, 0.5, 0.9])
def test_a_smaller_model_computes_what_the_masked_one_does(device, name, amount):
    model = tc.models.create(name).to("float64").to(device)
    before = repr(model)
    slim = tc.remove_channels(model, amount)
    assert repr(model) == before
    x = images(1, 28, 28, device=device)
    assert_same(slim, model, channel_masks(model, amount), x)


def test_half_the_channels_of_the_article_s_network():
    """By hand: 16 and 32 filters, and 50 units, each reading half as much as before."""
    slim = tc.remove_channels(tc.models.ArticleCNN(), 0.5)
    shapes = [p.shape for p in slim.parameters()]
    assert shapes == [
        (16, 1, 3, 3),
        (16,),
        (32, 16, 3, 3),
        (32,),
        (50, 800),
        (50,),
        (10, 50),
        (10,),
    ]
    macs = 26 * 26 * 9 * 16 + 11 * 11 * 9 * 16 * 32 + 800 * 50 + 50 * 10
    found = summary(slim)
    assert found.macs == macs
    assert found.parameters == sum(int(np.prod(s)) for s in shapes)
