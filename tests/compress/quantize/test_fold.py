"""Batch norm folded into the layer before it: the same outputs, and only where that is true."""

import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize.flow import flow_of
from tinycompress.compress.quantize.fold import fold_batch_norm
from tinycompress.data import Dataset

rng = np.random.default_rng(0)


def norm(channels, kind=nn.BatchNorm2d, **options):
    """A batch norm as training may leave it: some γ negative, one of them 0."""
    layer = kind(channels, **options)
    layer.running_mean[...] = rng.normal(size=channels)
    layer.running_var[...] = rng.uniform(0.1, 2, channels)
    if layer.weight is not None:
        layer.weight.data[...] = rng.normal(size=channels)
        layer.weight.data[0] = -1.5
        layer.weight.data[-1] = 0
        layer.bias.data[...] = rng.normal(size=channels)
    return layer


def images(*shape):
    return rng.normal(size=(3, *shape)).astype("f")


def norms_in(model):
    return [n for n, m in model.named_modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]


def assert_same(folded, model, x):
    expected = to_numpy(model.eval()(x).data)
    np.testing.assert_allclose(to_numpy(folded.eval()(x).data), expected, rtol=1e-4, atol=1e-5)


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "no bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "depthwise, no bias": lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, (3, 1), stride=2, padding=1, groups=2),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("with_sample", [True, False])
def test_it_computes_the_same_after_any_convolution(device, name, affine, with_sample):
    conv = CONVOLUTIONS[name]()
    model = nn.Sequential(conv, norm(conv.out_channels, affine=affine), nn.ReLU()).to(device)
    x = to_device(images(4, 8, 8), device)
    folded = fold_batch_norm(model, x if with_sample else None)
    assert norms_in(folded) == []
    assert_same(folded, model, x)
    assert type(model[1]) is nn.BatchNorm2d
    assert (model[0].bias is None) == ("no bias" in name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_after_a_linear_layer(bias, affine):
    model = nn.Sequential(nn.Linear(5, 7, bias), norm(7, nn.BatchNorm1d, affine=affine))
    folded = fold_batch_norm(model)
    assert isinstance(folded[1], nn.Identity)
    assert_same(folded, model, images(5))


@given(st.integers(-12, 12), st.integers(-12, 12), st.floats(1e-6, 1))
def test_statistics_of_any_size(mean, variance, eps):
    """In float32, ``b − μ`` and ``σ² + ε`` would lose what float64 keeps."""
    model = nn.Sequential(nn.Linear(3, 4), norm(4, nn.BatchNorm1d, eps=eps)).to(np.float64)
    model[1].running_mean *= 10.0**mean
    model[1].running_var *= 10.0**variance
    x = images(3).astype(np.float64)
    expected = model.eval()(x).data
    found = fold_batch_norm(model)(x).data
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_gamma_s_sign_is_part_of_it():
    """The wrong version, with |γ|, would pass with a norm that was never trained."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1), norm(3))
    scale = np.abs(model[1].weight.data) / np.sqrt(model[1].running_var + model[1].eps)
    wrong = model[0].weight.data * scale[:, None, None, None]
    right = fold_batch_norm(model)[0].weight.data
    assert not np.allclose(wrong, right)
    np.testing.assert_allclose(np.abs(wrong), np.abs(right), rtol=1e-5)


def test_nested_sequentials_and_names_stay():
    model = nn.Sequential(
        {
            "stem": nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5)),
            "rest": nn.Sequential(norm(4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1))),
            "norm": norm(2),
        }
    )
    x = images(1, 6, 6)
    for sample in (None, x):
        folded = fold_batch_norm(model, sample)
        assert norms_in(folded) == []
        assert [n for n, _ in folded.named_modules()] == [n for n, _ in model.named_modules()]
        assert_same(folded, model, x)


class Residual(nn.Module):
    """A forward of its own: norms follow convolutions, one of them is used twice."""

    def __init__(self, also=None):
        super().__init__()
        self.norm1, self.conv1 = norm(4), nn.Conv2d(4, 4, 3, padding=1)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), norm(4)
        self.join, self.relu = nn.Add(), nn.ReLU()
        self.also = also

    def forward(self, x):
        h = self.conv1(x)
        y = self.relu(self.norm1(h))
        z = self.norm2(self.conv2(y))
        if self.also == "module":
            z = self.join(z, h)
        if self.also == "function":
            z = z + h
        if self.also == "array":
            z = z + h.data
        return self.join(z, x) if self.also != "output" else (self.join(z, x), h)


def test_pairs_in_a_forward_of_ones_own_are_found_with_a_sample():
    model, x = Residual(), images(4, 5, 5)
    folded = fold_batch_norm(model, x)
    assert norms_in(folded) == []
    assert_same(folded, model, x)
    assert norms_in(fold_batch_norm(model)) == ["norm1", "norm2"]  # nothing can be seen without
    assert_same(fold_batch_norm(model, Dataset(x)), model, x)


def test_the_order_of_definition_says_nothing():
    """norm1 is defined before conv1, and follows it."""
    flow = flow_of(Residual(), images(4, 5, 5))
    names = [call.name for call in flow.calls]
    assert names[:3] == ["conv1", "norm1", "relu"]
    assert flow.reader(flow.calls[0]) is flow.calls[1]


@pytest.mark.parametrize(
    ("also", "why"),
    [
        ("module", r"the output of conv1 \(Conv2d\) is read by norm1 .* and join \(Add\)"),
        ("function", "is read by an operation between layers"),
        ("output", "is the model's output"),
        ("array", "something else reads what conv1 gives out"),
    ],
)
def test_a_layer_whose_output_is_used_twice_is_refused_by_name(also, why):
    model, x = Residual(also), images(4, 5, 5)
    with pytest.raises(ValueError, match="batch norm cannot be folded") as error:
        fold_batch_norm(model, x)
    assert "norm1 (BatchNorm2d)" in str(error.value)
    assert "norm2" not in str(error.value)
    assert re.search(why, str(error.value))
    left = fold_batch_norm(model, x, strict=False)
    assert norms_in(left) == ["norm1"]
    if also != "output":
        assert_same(left, model, x)


def test_a_layer_that_is_called_twice_is_refused():
    conv, after = nn.Conv2d(2, 2, 3, padding=1), norm(2)
    relu = nn.ReLU()
    for model in (nn.Sequential(conv, after, relu, conv), nn.Sequential(conv, after, after)):
        for sample in (None, images(2, 4, 4)):
            with pytest.raises(ValueError, match="is called more than once"):
                fold_batch_norm(model, sample)


def test_channels_that_are_no_features_are_refused():
    model = nn.Sequential(nn.Linear(5, 5), norm(5, nn.BatchNorm1d))
    with pytest.raises(ValueError, match="its channels are not the features that 0"):
        fold_batch_norm(model, images(5, 5))


def test_a_norm_that_follows_something_else_stays():
    model = nn.Sequential(norm(1), nn.Conv2d(1, 2, 3), nn.ReLU(), norm(2))
    folded = fold_batch_norm(model, images(1, 5, 5))
    assert norms_in(folded) == ["0", "3"]
    assert_same(folded, model, images(1, 5, 5))


def test_a_subclass_may_compute_something_else():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(Doubled(1, 2, 1), norm(2))
    assert norms_in(fold_batch_norm(model, images(1, 3, 3))) == ["1"]


def test_statistics_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), norm(2))
    model[1].running_mean[0] = np.nan
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d\): its statistics or factors hold NaN"):
        fold_batch_norm(model)


def test_masks_and_modes_and_the_old_model_stay():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), norm(2)).train()
    mask = np.arange(8).reshape(2, 1, 2, 2) % 2 == 0
    model[0].weight.mask = mask
    model[0].weight.data *= mask
    before = {k: v.tobytes() for k, v in model.state_dict().items()}
    folded = fold_batch_norm(model, images(1, 4, 4))
    assert folded.training
    assert folded[1].training
    np.testing.assert_array_equal(folded[0].weight.mask, mask)
    assert np.all(folded[0].weight.data[~mask] == 0)
    assert {k: v.tobytes() for k, v in model.state_dict().items()} == before
    assert not model[0]._hooks


def test_wrong_arguments():
    with pytest.raises(TypeError, match="fold_batch_norm takes a model, got list"):
        fold_batch_norm([])
    with pytest.raises(ValueError, match="there are no images"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1)), np.empty((0, 1, 2, 2), "f"))
