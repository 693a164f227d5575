"""Cross-layer equalization: the same function, with weights of more even size."""

import numpy as np
import pytest

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.compress.quantize.equalize import equalize

rng = np.random.default_rng(0)


def uneven(layer):
    """``layer`` with output channels whose weights differ a thousandfold."""
    sizes = 10.0 ** rng.permutation(np.linspace(-1.5, 1.5, len(layer.weight.data)))
    layer.weight.data *= sizes.reshape(-1, *(1,) * (layer.weight.ndim - 1)).astype("f")
    return layer


def cnn(pool=nn.MaxPool2d):
    return nn.Sequential(
        uneven(nn.Conv2d(1, 4, 3)),
        nn.ReLU(),
        pool(2),
        nn.Sequential(uneven(nn.Conv2d(4, 4, 3, groups=4, bias=False)), nn.LeakyReLU()),
        uneven(nn.Conv2d(4, 6, 1)),
        nn.Identity(),
        nn.Dropout(0.5),
        nn.Flatten(),
        uneven(nn.Linear(6 * 3 * 3, 5)),
        nn.ReLU(),
        nn.Linear(5, 3),
    ).eval()


x = rng.normal(size=(3, 1, 12, 12)).astype("f")


def sizes(model, first, second, groups=1, block=1):
    """max|w| of each channel in the layer that makes it, and in the one that reads it."""
    w1, w2 = (model.get_submodule(n).weight.data for n in (first, second))
    made = np.abs(w1).reshape(len(w1), -1).max(axis=1)
    w2 = w2.reshape(groups, len(w2) // groups, len(w1) // groups, -1)
    return made, np.abs(w2).max(axis=(1, 3)).ravel()


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_the_outputs_stay_and_the_sizes_meet(device, pool):
    model = cnn(pool)
    expected = model(x).data
    even = equalize(model.copy().to(device))
    np.testing.assert_allclose(to_numpy(even(to_device(x, device)).data), expected, 1e-4, 1e-5)
    even.to("cpu")
    pairs = [("0", "3.0", 4), ("3.0", "4", 1), ("4", "8", 1), ("8", "10", 1)]
    for first, second, groups in pairs:
        made, read = sizes(even, first, second, groups)
        np.testing.assert_allclose(made, read, rtol=1e-2)
        before = sizes(model, first, second, groups)
        assert np.max(before[0]) / np.min(before[0]) > 10


def test_one_pair_gets_the_geometric_mean():
    model = nn.Sequential(uneven(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    made, read = sizes(model, "0", "2")
    after = sizes(equalize(model), "0", "2")
    for side in after:
        np.testing.assert_allclose(side, np.sqrt(made * read), rtol=1e-5)


def test_a_block_of_columns_is_a_channel():
    """After flatten. The wrong version, column i for channel i, changes what is computed."""
    model = nn.Sequential(uneven(nn.Conv2d(1, 3, 3)), nn.Flatten(), nn.Linear(3 * 100, 2))
    even = equalize(model)
    np.testing.assert_allclose(even(x).data, model(x).data, rtol=1e-4, atol=1e-5)
    ratio = even[2].weight.data / model[2].weight.data
    np.testing.assert_allclose(ratio, np.repeat(ratio[:, ::100], 100, axis=1), rtol=1e-5)
    wrong = model.copy()
    s = (model[0].weight.data / even[0].weight.data)[:, 0, 0, 0]
    wrong[0].weight.data, wrong[0].bias.data = even[0].weight.data, even[0].bias.data
    wrong[2].weight.data[:, :3] *= s
    assert not np.allclose(wrong(x).data, model(x).data, rtol=1e-2)


def test_dead_channels_keep_their_size_and_zeros_stay():
    model = nn.Sequential(uneven(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    model[0].weight.data[0] = 0
    model[2].weight.data[:, 1] = 0
    model[0].weight.mask = model[0].weight.data != 0
    even = equalize(model)
    inputs = rng.normal(size=(5, 3)).astype("f")
    np.testing.assert_allclose(even(inputs).data, model(inputs).data, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(even[0].weight.data[0], 0)
    np.testing.assert_array_equal(even[0].weight.data[1], model[0].weight.data[1])
    assert even[0].bias.data[0] == model[0].bias.data[0]
    assert even[0].weight.mask is not None


def test_it_makes_one_scale_for_all_channels_fit():
    """The picture of the paper: channels of all sizes, each of which matters as much."""
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    sizes = (10.0 ** np.linspace(-1.5, 1.5, 30)).astype("f")
    model[0].weight.data *= sizes[:, None]
    model[0].bias.data *= sizes
    model[2].weight.data /= sizes
    inputs, config = (
        rng.normal(size=(50, 20)).astype("f"),
        QuantConfig(8, "symmetric", "per_tensor"),
    )
    exact = model(inputs).data
    error = lambda m: np.abs(quantize(m, config)(inputs).data - exact).mean()  # noqa: E731
    assert error(equalize(model)) < error(model) / 10


class Own(nn.Module):
    """A forward of its own, with an activation that is no module in the second."""

    def __init__(self, skip=False):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = uneven(nn.Linear(3, 4)), nn.Linear(4, 4), nn.Linear(4, 2)
        self.relu, self.skip = nn.ReLU(), skip

    def forward(self, x):
        h = self.relu(self.fc1(x))
        y = self.fc2(h).tanh()
        return self.fc3(y + h if self.skip else y)


def test_a_forward_of_ones_own_needs_a_sample():
    model, inputs = Own(), rng.normal(size=(5, 3)).astype("f")
    even = equalize(model, inputs)
    np.testing.assert_allclose(even(inputs).data, model(inputs).data, rtol=1e-4, atol=1e-6)
    assert not np.allclose(even.fc1.weight.data, model.fc1.weight.data)
    np.testing.assert_array_equal(even.fc3.weight.data, model.fc3.weight.data)  # after tanh
    with pytest.raises(ValueError, match=r"no two layers of this Own .*; give a sample"):
        equalize(model)


def test_what_is_read_twice_is_left_alone():
    with pytest.raises(ValueError, match="no two layers of this Own"):
        equalize(Own(skip=True), rng.normal(size=(5, 3)).astype("f"))


@pytest.mark.parametrize(
    "between", [nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.BatchNorm1d(4), nn.LayerNorm(4)], ids=repr
)
def test_other_layers_between_make_no_pair(between):
    with pytest.raises(ValueError, match="no two layers"):
        equalize(nn.Sequential(nn.Linear(3, 4), between, nn.Linear(4, 2)))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3)),  # along the width
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),  # rows
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(2, 3, 1)),
    ],
    ids=repr,
)
def test_layers_whose_channels_are_not_each_other_s_make_no_pair(model):
    with pytest.raises(ValueError, match="no two layers"):
        equalize(model)


def test_the_old_model_stays():
    model = cnn()
    before = {k: v.tobytes() for k, v in model.state_dict().items()}
    equalize(model, x)
    assert {k: v.tobytes() for k, v in model.state_dict().items()} == before
    with pytest.raises(TypeError, match="equalize takes a model, got int"):
        equalize(3)
