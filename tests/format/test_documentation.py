"""docs/format.md says what the code does, and neither changes alone: old files stay readable."""

import re
from pathlib import Path

import numpy as np
import pytest

from tinycompress import format as fmt, models, nn
from tinycompress.format import registry
from tinycompress.format.construct import build
from tinycompress.format.describe import config_of
from tinycompress.format.registry import LAYERS
from tinycompress.format.words import WORDS

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def dumps() -> list[bytes]:
    lines = ([line[:25] for line in block.splitlines()] for block in blocks("hexdump"))
    return [bytes.fromhex("".join(block)) for block in lines]


def example() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    model[0].weight.data[:] = [[0.5, 0, 0, -1], [0, 0, 2, 0]]
    model[0].weight.mask = model[0].weight.data != 0
    model[0].bias.data[:] = [0, 1]
    return model


def test_the_first_file_shown_is_what_is_written_and_read():
    data = dumps()[0]
    assert fmt.to_bytes(example()) == data
    model = fmt.from_bytes(data)
    np.testing.assert_array_equal(model[0].weight.data, example()[0].weight.data)
    np.testing.assert_array_equal(model[0].weight.mask, example()[0].weight.mask)


def test_the_second_file_shown_is_what_is_written_and_read():
    data = dumps()[1]
    assert len(data) == 61
    model = fmt.from_bytes(data)
    assert model[0].weight_codes.tolist() == [[3, 0, 0, -7], [0, 0, 7, 0]]
    np.testing.assert_allclose(model[0].weight_scale, [1 / 7, 2 / 7], rtol=1e-6)
    assert fmt.to_bytes(model) == data


def test_no_word_has_another_number_than_on_the_page():
    rows = [line.split() for line in blocks("words")[0].splitlines()]
    words = [word for _, *row in rows for word in row]
    assert words == list(WORDS)
    assert len(set(words)) == len(words) <= 128
    assert [int(row[0], 16) for row in rows] == list(range(0, len(words), 8))
    assert f"words from {len(WORDS):x} (hexadecimal)" in PAGE


SIZES = {"in_channels": 2, "out_channels": 4, "kernel_size": 3}
WINDOW = {"kernel_size": [2, 3], "stride": [2, 3], "padding": [0, 0], "ceil_mode": False}
CONV = {**SIZES, "kernel_size": [3, 3], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
CONV |= {"groups": 1, "bias": True}
QUANTIZATION = {"bits": 8, "scheme": "symmetric", "granularity": "per_channel"}
DYNAMIC = {**QUANTIZATION, "activations": 8, "dynamic": True}
GRIDS = {"output": None, "input": None}
INTEGER = {"bits": 8, "granularity": "per_channel", "relu": False, **GRIDS}
NORM = {"num_features": 3, "eps": 1e-5, "momentum": 0.1, "affine": True}

# name: (arguments that a file must give, all arguments that are then meant)
DEFAULTS = {
    "Linear": ({"in_features": 2, "out_features": 3}, {"bias": True}),
    "Conv2d": (SIZES, CONV),
    "BatchNorm1d": ({"num_features": 3}, NORM),
    "BatchNorm2d": ({"num_features": 3}, NORM),
    "LayerNorm": ({"normalized_shape": [3]}, {"eps": 1e-5, "elementwise_affine": True}),
    "QuantizedLinear": (
        {"in_features": 2, "out_features": 3},
        {"bias": True, "quantization": QUANTIZATION},
    ),
    "QuantizedConv2d": (SIZES, {**CONV, "quantization": QUANTIZATION}),
    "DynamicLinear": (
        {"in_features": 2, "out_features": 3, "quantization": {"dynamic": True}},
        {"bias": True, "quantization": DYNAMIC},
    ),
    "DynamicConv2d": (
        {**SIZES, "quantization": {"dynamic": True}},
        {**CONV, "quantization": DYNAMIC},
    ),
    "SharedLinear": ({"in_features": 2, "out_features": 3}, {"bias": True}),
    "SharedConv2d": (SIZES, CONV),
    "IntegerLinear": ({"in_features": 2, "out_features": 3}, {"bias": True, **INTEGER}),
    "IntegerConv2d": (SIZES, {**CONV, **INTEGER}),
    "IntegerAdd": ({}, {"relu": False, **GRIDS}),
    "IntegerConcat": ({}, {"axis": 1, **GRIDS}),
    "QuantizeInput": ({}, {"output": "uint8"}),
    "IntegerMaxPool2d": ({"kernel_size": [2, 3]}, WINDOW),
    "IntegerAvgPool2d": ({"kernel_size": [2, 3]}, {**WINDOW, "count_include_pad": True}),
    "IntegerAdaptiveAvgPool2d": ({"output_size": [1, 2]}, {}),
    "IntegerFlatten": ({}, {"start_dim": 1, "end_dim": -1}),
    **dict.fromkeys(("IntegerReLU", "IntegerIdentity", "OnFloats"), ({}, {})),
    "MaxPool2d": ({"kernel_size": [2, 3]}, WINDOW),
    "AvgPool2d": ({"kernel_size": [2, 3]}, {**WINDOW, "count_include_pad": True}),
    "AdaptiveAvgPool2d": ({"output_size": [1, 2]}, {}),
    "Flatten": ({}, {"start_dim": 1, "end_dim": -1}),
    "Dropout": ({}, {"p": 0.5}),
    "LeakyReLU": ({}, {"negative_slope": 0.01}),
    "Softmax": ({}, {"axis": -1}),
    "LogSoftmax": ({}, {"axis": -1}),
    "Concat": ({}, {"axis": 1}),
    **dict.fromkeys(("ReLU", "Sigmoid", "Tanh", "GELU", "SiLU", "Identity", "Add"), ({}, {})),
    "Ensemble": ({"models": None, "weights": [1.0, 2.0]}, {"mean": "logits"}),
    "article-cnn": ({}, {"classes": 10}),
    "tiny-cnn": ({}, {"width": 4}),
    "lenet-300-100": ({}, {}),
    "lenet-5": ({}, {}),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_argument_that_a_file_leaves_out_keeps_its_meaning(name):
    given, full = DEFAULTS[name]
    assert config_of(build([name, given])) == {**given, **full}


def test_every_name_of_the_package_has_its_defaults_held_in_place():
    containers = {"Sequential", "ModuleList"}
    layers = set(LAYERS)
    registered = set(registry._registered)
    missing = (layers | registered | set(models.names())) - containers - set(DEFAULTS)
    assert not missing, "add them to DEFAULTS, to docs/format.md and at the end of words.py"
    assert all(f"`{name}`" in PAGE for name in registered)
    for name in (*layers, *models.names()):
        assert f"`{name}`" in PAGE
        assert name in WORDS


# The shapes of all tensors, in order: what the names of models mean for ever.
SHAPES = {
    "article-cnn": "32,1,3,3 32 64,32,3,3 64 100,1600 100 10,100 10",
    "lenet-300-100": "300,784 300 100,300 100 10,100 10",
    "lenet-5": "20,1,5,5 20 50,20,5,5 50 500,800 500 10,500 10",
    "tiny-cnn": "4,1,3,3 4 8,4,3,3 8 10,200 10",
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_name_of_a_model_keeps_its_meaning(name):
    state = build(name).state_dict()
    assert " ".join(",".join(map(str, a.shape)) for a in state.values()) == SHAPES[name]
