"""What does not fit is refused: the error names the layer, what came and what was expected."""

import traceback

import numpy as np
import pytest

from tinycompress import nn


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# what: (layer, input, parts that the error must hold)
INPUTS = {
    "wrong size": (lambda: nn.Linear(3, 2), zeros(4, 5), ["(4, 5)", "in_features = 3"]),
    "no axes": (lambda: nn.Linear(3, 2), zeros(), ["()", "in_features = 3"]),
    "wrong dtype": (lambda: nn.Linear(3, 2), zeros(4, 3, dtype=np.float64), ["float32", "float64"]),
    "complex": (lambda: nn.Linear(3, 2), zeros(4, 3, dtype=complex), ["complex128"]),
    "text": (lambda: nn.Linear(3, 2), "seven", ["numbers or booleans"]),
    "nothing": (lambda: nn.Linear(3, 2), None, ["numbers or booleans"]),
    "wrong channels": (
        lambda: nn.Conv2d(1, 2, 3),
        zeros(4, 3, 8, 8),
        ["(4, 3, 8, 8)", "3 channels", "takes 1"],
    ),
    "groups": (lambda: nn.Conv2d(4, 2, 3, groups=2), zeros(4, 6, 8, 8), ["6 channels", "takes 4"]),
    "no batch axis": (lambda: nn.Conv2d(1, 2, 3), zeros(1, 8, 8), ["(N, C, H, W)", "(1, 8, 8)"]),
    "image too small": (
        lambda: nn.Conv2d(1, 2, 5, dilation=2),
        zeros(4, 1, 20, 8),
        ["kernel spans 9", "width is 8", "pad more"],
    ),
    "pool axes": (lambda: nn.MaxPool2d(2), zeros(4, 8), ["(N, C, H, W)", "(4, 8)"]),
    "pool too large": (lambda: nn.AvgPool2d(9), zeros(4, 1, 8, 9), ["(9, 9)", "height is 8"]),
    "pool without pixels": (lambda: nn.AdaptiveAvgPool2d(2), zeros(4, 1, 0, 9), ["pixels"]),
    "pool padding": (
        lambda: nn.MaxPool2d(2, padding=2),
        zeros(4, 1, 8, 8),
        ["padding (2, 2)", "at most half"],
    ),
    "norm channels": (
        lambda: nn.BatchNorm2d(3),
        zeros(4, 2, 8, 8),
        ["4 axes", "3 channels", "(4, 2, 8, 8)"],
    ),
    "norm axes": (lambda: nn.BatchNorm1d(3), zeros(4, 3, 8, 8), ["2 or 3 axes", "(4, 3, 8, 8)"]),
    "one value to normalise": (
        lambda: nn.BatchNorm1d(3),
        zeros(1, 3),
        ["more than one value per channel", "(1, 3)", ".eval()"],
    ),
    "empty batch to normalise": (
        lambda: nn.BatchNorm2d(3),
        zeros(0, 3, 8, 8),
        ["more than one value per channel", "(0, 3, 8, 8)"],
    ),
    "layer norm": (lambda: nn.LayerNorm((3, 4)), zeros(4, 4), ["(4, 4)", "(3, 4)"]),
    "softmax axis": (lambda: nn.Softmax(2), zeros(4, 4), ["axis 2", "(4, 4)"]),
    "flatten axis": (lambda: nn.Flatten(), zeros(4), ["axis 1", "(4,)"]),
}


@pytest.mark.parametrize("what", INPUTS)
def test_a_wrong_input_is_refused_with_the_layers_name(what):
    make, x, parts = INPUTS[what]
    layer = make()
    net = nn.Sequential({"before": nn.Sequential({"suspect": layer})})
    state = net.state_dict()
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        net(x)
    text = "".join(traceback.format_exception_only(caught.value))
    assert f"in suspect: {type(layer).__name__}" in text
    assert "in before: Sequential" in text
    for part in parts:
        assert part in text
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


NO_SIZES = (0, -1, 2.0, "3", None, True, float("nan"))

# what: (how it is made, values that are refused, parts that the error must hold)
ARGUMENTS = {
    "Linear: in_features": (lambda v: nn.Linear(v, 2), NO_SIZES, "whole number ≥ 1"),
    "Linear: out_features": (lambda v: nn.Linear(2, v), NO_SIZES, "whole number ≥ 1"),
    "Conv2d: in_channels": (lambda v: nn.Conv2d(v, 2, 3), NO_SIZES, "whole number ≥ 1"),
    "Conv2d: out_channels": (lambda v: nn.Conv2d(2, v, 3), NO_SIZES, "whole number ≥ 1"),
    "Conv2d: groups": (lambda v: nn.Conv2d(2, 2, 3, groups=v), NO_SIZES, "whole number ≥ 1"),
    "Conv2d: kernel_size": (
        lambda v: nn.Conv2d(2, 2, v),
        (*NO_SIZES, (3,), (3, 3, 3), (3, 0), (3, 2.5)),
        "whole number ≥ 1 or two of them (height, width)",
    ),
    "Conv2d: stride": (lambda v: nn.Conv2d(2, 2, 3, stride=v), NO_SIZES, "(height, width)"),
    "Conv2d: dilation": (lambda v: nn.Conv2d(2, 2, 3, dilation=v), NO_SIZES, "(height, width)"),
    "Conv2d: padding": (
        lambda v: nn.Conv2d(2, 2, 3, padding=v),
        (-1, 1.5, "same", (0, -1)),
        "whole number ≥ 0",
    ),
    "MaxPool2d: kernel_size": (nn.MaxPool2d, NO_SIZES, "(height, width)"),
    "AvgPool2d: stride": (lambda v: nn.AvgPool2d(2, v), (0, -1, 2.0, "3"), "(height, width)"),
    "AvgPool2d: padding": (lambda v: nn.AvgPool2d(2, 2, v), (-1, 0.5), "whole number ≥ 0"),
    "AdaptiveAvgPool2d: output_size": (nn.AdaptiveAvgPool2d, NO_SIZES, "(height, width)"),
    "BatchNorm1d: num_features": (nn.BatchNorm1d, NO_SIZES, "whole number ≥ 1"),
    "BatchNorm2d: eps": (lambda v: nn.BatchNorm2d(2, eps=v), (0, -1, "1", None), "above 0"),
    "BatchNorm2d: momentum": (
        lambda v: nn.BatchNorm2d(2, momentum=v),
        (-0.1, 1.1, None, float("nan")),
        "between 0 and 1",
    ),
    "LayerNorm: normalized_shape": (nn.LayerNorm, NO_SIZES, "whole number ≥ 1"),
    "LayerNorm: eps": (lambda v: nn.LayerNorm(2, eps=v), (0, float("inf")), "above 0"),
    "Dropout: p": (nn.Dropout, (-0.1, 1.1, "half", None, float("nan")), "between 0 and 1"),
}
CASES = [(what, value) for what, (_, values, _) in ARGUMENTS.items() for value in values]


@pytest.mark.parametrize(("what", "value"), CASES, ids=[f"{w}={v!r}" for w, v in CASES])
def test_a_wrong_argument_is_refused_by_name(what, value):
    make, _, expected = ARGUMENTS[what]
    with pytest.raises(ValueError, match=f"^{what}") as caught:
        make(value)
    assert expected in str(caught.value)
    assert repr(value) in str(caught.value)


def test_layer_norm_needs_axes_that_hold_something():
    with pytest.raises(ValueError, match=r"LayerNorm: normalized_shape must be .* ≥ 1, got 0"):
        nn.LayerNorm((2, 0))
    with pytest.raises(ValueError, match="LayerNorm: normalized_shape needs at least one size"):
        nn.LayerNorm(())


def test_groups_must_divide_the_channels():
    for channels in ((3, 4), (4, 3)):
        with pytest.raises(
            ValueError, match=r"groups=2 must divide in_channels=\d and out_channels"
        ):
            nn.Conv2d(*channels, 3, groups=2)


def test_numpy_integers_are_sizes():
    layer = nn.Conv2d(np.int64(2), np.int32(4), (np.int64(3), 3), groups=np.uint8(2))
    assert layer.config() == nn.Conv2d(2, 4, 3, groups=2).config()
    assert all(type(v) is int for v in (layer.in_channels, layer.groups, *layer.kernel_size))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Linear(3, 2), (0, 3), (0, 2)),
        (nn.Conv2d(1, 2, 3), (0, 1, 5, 5), (0, 2, 3, 3)),
        (nn.MaxPool2d(2), (0, 1, 4, 4), (0, 1, 2, 2)),
        (nn.AdaptiveAvgPool2d(2), (0, 1, 4, 4), (0, 1, 2, 2)),
        (nn.BatchNorm2d(1).eval(), (0, 1, 4, 4), (0, 1, 4, 4)),
        (nn.LayerNorm(4), (0, 4), (0, 4)),
        (nn.Flatten(), (0, 2, 3), (0, 6)),
        (nn.Dropout(), (0, 4), (0, 4)),
    ],
)
def test_an_empty_batch_stays_empty(layer, shape, expected):
    y = layer(zeros(*shape))
    assert y.shape == expected
    y.sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU), r"'1' must be a Module.*write ReLU\(\)"),
        (lambda: nn.Sequential([nn.ReLU()]), r"got list; write Sequential\(\*layers\)"),
        (lambda: nn.Sequential({"act": max}), "Sequential: 'act' must be a Module"),
        (lambda: nn.ModuleList([nn.ReLU(), 3]), "ModuleList: '1' must be a Module, got int"),
        (lambda: nn.ModuleList().append(None), "ModuleList: '0' must be a Module, got NoneType"),
    ],
)
def test_containers_hold_modules(make, message):
    with pytest.raises(TypeError, match=message):
        make()
