"""Summaries: shapes, parameters and MACs, and that nothing changes by asking."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_numpy


def columns(summary, *names):
    return [tuple(getattr(row, n) for n in names) for row in summary.layers]


def test_one_row_for_each_layer_in_order_of_running():
    net = nn.Sequential(
        {
            "conv": nn.Conv2d(2, 4, 3, bias=False),
            "norm": nn.BatchNorm2d(4),
            "body": nn.Sequential(nn.ReLU(), nn.Flatten()),
            "fc": nn.Linear(36, 5),
        }
    )
    s = tc.summary(net, (2, 5, 5))
    assert columns(s, "name", "kind", "output_shape", "parameters", "macs") == [
        ("conv", "Conv2d", (4, 3, 3), 72, 9 * 72),
        ("norm", "BatchNorm2d", (4, 3, 3), 8, 0),
        ("body.0", "ReLU", (4, 3, 3), 0, 0),
        ("body.1", "Flatten", (36,), 0, 0),
        ("fc", "Linear", (5,), 185, 180),
    ]
    assert (s.parameters, s.macs) == (72 + 8 + 185, 648 + 180)
    assert s.parameters == sum(p.size for p in net.parameters())


def counted_macs(layer, x):
    """Multiplications of one sample, counted: the output when all inputs and weights are 1 is,
    at each place, the number of products that were added there (padding adds none of value 1)."""
    for p in layer.parameters():
        p.data[...] = 1
    layer.bias = None
    return int(layer(np.ones_like(x)).data.sum())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 5), (7,)),
        (nn.Linear(7, 5), (3, 7)),
        (nn.Conv2d(3, 4, 3), (3, 8, 9)),
        (nn.Conv2d(3, 6, (2, 3), stride=2, groups=3), (3, 8, 9)),
        (nn.Conv2d(4, 4, 3, dilation=2, groups=4), (4, 8, 9)),
    ],
)
def test_macs_are_the_products_that_are_really_added(layer, shape):
    macs = tc.summary(layer, shape).macs
    assert macs == counted_macs(layer, np.ones((1, *shape), np.float32))


def test_padding_counts_as_products():
    """As every published count does: a padded 3×3 convolution costs the same everywhere."""
    assert tc.summary(nn.Conv2d(1, 1, 3, padding=1), (1, 4, 4)).macs == 16 * 9


def test_a_layer_called_twice_computes_twice_and_is_stored_once():
    fc = nn.Linear(4, 4)
    s = tc.summary(nn.Sequential(fc, nn.ReLU(), fc), (4,))
    assert columns(s, "name", "parameters", "macs") == [("0", 20, 16), ("1", 0, 0), ("0", 0, 16)]
    assert (s.parameters, s.macs) == (20, 32)


def test_a_weight_that_two_layers_share_is_counted_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    s = tc.summary(net, (4,))
    assert columns(s, "parameters") == [(20,), (4,)]
    assert s.parameters == sum(p.size for p in net.parameters())


def test_a_module_with_layers_and_parameters_of_its_own_has_a_row():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.scale = nn.Parameter(np.ones(4, np.float32))

        def forward(self, x):
            return self.fc(x) * self.scale

    s = tc.summary(Scaled(), (4,))
    assert columns(s, "name", "parameters") == [("fc", 20), ("", 4)]
    assert s.parameters == 24


def test_layers_that_are_never_called_count_too():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.spare, self.act = nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU()

        def forward(self, x):
            return F.relu(self.fc(x))

    s = tc.summary(Unused(), (4,))
    assert columns(s, "name", "output_shape", "parameters", "macs") == [
        ("fc", (4,), 20, 16),
        ("spare", None, 10, 0),
    ]
    assert s.parameters == 30
    assert "not called" in str(s)


def test_nonzero_counts_zeros_and_not_masks():
    net = nn.Linear(4, 3)
    net.weight.mask = np.zeros((3, 4), bool)  # promises, but has not been applied
    assert tc.summary(net, (4,)).nonzero == 15
    net.weight.data[0] = 0
    assert tc.summary(net, (4,)).nonzero == 11


def test_layers_with_several_inputs_and_outputs():
    class Swap(nn.Module):
        def forward(self, a, b):
            return b, a

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.swap = Swap()

        def forward(self, x):
            return self.swap(x, x.reshape(1, -1))[0]

    assert columns(tc.summary(Both(), (2, 3)), "output_shape") == [((6,),)]


def test_asking_changes_nothing():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    net[0].eval()
    state, modes, draws = (
        net.state_dict(),
        [m.training for m in net.modules()],
        tc.random.get_state(),
    )
    tc.summary(net, (1, 4, 4))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    assert [m.training for m in net.modules()] == modes
    assert tc.random.get_state() == draws
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._hooks for m in net.modules())


def test_an_error_leaves_no_hooks_and_the_mode(device):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).to(device)
    with pytest.raises(ValueError, match="in_features = 4"):
        tc.summary(net, (5,))
    assert not any(m._hooks for m in net.modules())
    assert net.training
    with pytest.raises(TypeError, match=r"input_shape must be like \(1, 28, 28\), got 4"):
        tc.summary(net, 4)


def test_models_of_every_device_and_dtype(device):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(device)
    expected = tc.summary(net.copy().to("cpu"), (1, 5, 5))
    assert tc.summary(net, (1, 5, 5)) == expected
    assert tc.summary(net.to("float64"), (1, 5, 5)) == expected
    assert to_numpy(net[1].running_mean).dtype == np.float64


def test_the_table():
    net = nn.Sequential({"conv1": nn.Conv2d(1, 32, 3), "act": nn.ReLU()})
    assert str(tc.summary(net)) == "\n".join(
        [
            "layer  type    output    parameters  nonzero     MACs",
            "-----------------------------------------------------",
            "conv1  Conv2d  32×26×26         320      320  194,688",
            "act    ReLU    32×26×26           0        0        0",
            "-----------------------------------------------------",
            "total                           320      320  194,688",
        ]
    )
    assert "(model)" in str(tc.summary(nn.Linear(3, 2), (3,)))
