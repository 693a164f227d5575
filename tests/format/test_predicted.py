"""Places and values foretold by a neuron: the same on both sides, cheap where there is order."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import tinycompress as tc
from tinycompress.format import FormatError
from tinycompress.format.codecs import CODECS, decode
from tinycompress.format.cursor import Cursor
from tinycompress.format.neuron import (
    COUNTS,
    LOGIT,
    REACH,
    STEADY,
    Neuron,
    code_flags,
    code_mask,
    logarithms,
    probabilities,
)
from tinycompress.format.neuron_fit import fit_neuron, fit_sides
from tinycompress.format.predicted import PREDICTED
from tinycompress.format.range_coder import RangeDecoder, RangeEncoder
from tinycompress.format.sides import Sides, code_values

RESULTS = Path(__file__).parents[2] / "results" / "pruning"
weights = st.integers(-128, 127)


def entropy(values) -> float:
    """Bytes of the zeroth-order entropy."""
    _, counts = np.unique(values, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum() * values.size / 8)


def strokes(rng, rows=60, side=28) -> np.ndarray:
    """Codes of a layer that sees images: each row has weights along a few lines, of one sign."""
    codes = np.zeros((rows, side, side), np.uint8)
    for image in codes:
        for _ in range(3):
            y, x, sign = rng.integers(2, side - 2), rng.integers(2, side - 8), rng.integers(0, 2)
            for i in range(6):
                image[y + rng.integers(0, 2), x + i] = 1 + 8 * sign + rng.integers(0, 8)
    return codes.reshape(rows, side * side)


# ------------------------------------------------------------------------------------ arithmetic


def distance_from_a_tie(x: np.ndarray) -> float:
    return float(np.abs(x - np.floor(x) - 0.5).min())


def test_the_tables_are_the_same_on_every_machine():
    """No entry is so near a half that an error in the last place of a float64 could round it."""
    z = np.arange(-STEADY, STEADY + 1) / LOGIT
    assert distance_from_a_tie(65536 / (1 + np.exp(-z[z != 0]))) > 1e-6
    assert distance_from_a_tie(256 * np.log(np.arange(2, COUNTS))) > 1e-7
    table = probabilities()
    assert table[REACH] == 32768
    assert (table[REACH - STEADY], table[REACH + STEADY]) == (1, 65535)
    assert (np.diff(table) >= 0).all()
    assert len(table) == 2 * REACH + 1


def test_no_neuron_leaves_the_table():
    farthest = STEADY + 16 * 16 * 128 + 2 * (128 * int(logarithms().max()) >> 4)
    assert farthest < 2 * REACH  # and the two terms of a row have opposite signs
    assert STEADY + 16 * 16 * 128 + (128 * int(logarithms().max()) >> 4) < REACH


lags = st.lists(st.tuples(st.integers(1, 9), weights), max_size=16).map(tuple)
neurons = st.builds(Neuron, weights, weights, weights, lags)
masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=14))


@given(neurons, masks)
def test_any_neuron_codes_any_mask(neuron, mask):
    coder = RangeEncoder()
    rows, columns = code_flags(coder, mask.any(1)), code_flags(coder, mask.any(0))
    assert (code_mask(coder, neuron, rows, columns, mask) == mask).all()
    reader, blank = RangeDecoder(Cursor(coder.finish())), np.zeros_like(mask)
    rows, columns = code_flags(reader, blank.any(1)), code_flags(reader, blank.any(0))
    np.testing.assert_array_equal(code_mask(reader, neuron, rows, columns, blank), mask)
    reader.finish()


@given(masks, st.integers(1, 40), st.data())
def test_any_sides_code_any_values(kept, span, data):
    pivot = data.draw(st.integers(0, span))
    sides = Sides(span, pivot, data.draw(weights), data.draw(lags))
    count = int(kept.sum())
    values = data.draw(st.lists(st.integers(0, span - 1), min_size=count, max_size=count))
    coder = RangeEncoder()
    assert code_values(coder, sides, kept, values) == values
    reader = RangeDecoder(Cursor(coder.finish()))
    assert code_values(reader, sides, kept, [0] * count) == values
    reader.finish()


# ----------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.bool_])
@pytest.mark.parametrize("shape", [(60, 784), (12, 20, 14, 14), (784 * 60,)])
def test_a_large_array_comes_back(dtype, shape, rng):
    values = strokes(rng).astype(dtype).reshape(shape)
    body = CODECS[PREDICTED].encode(values)
    again = decode(PREDICTED, Cursor(body.data), values.dtype, shape)
    assert again.values.tobytes() == values.tobytes()
    assert again.cost.total == len(body.data)


def test_the_steps_are_those_of_the_documentation():
    codes = np.zeros((9, 20), np.uint8)
    codes[2, 3:9] = [1, 2, 3, 4, 5, 6]
    codes[5, 4:6] = [1, 6]
    steps = CODECS[PREDICTED].encode(codes).steps
    assert steps == 9 + 20 + 2 * 256 + 2 * 6 + 8 * (4 + 3)


def test_neighbours_are_found(rng):
    neuron = fit_neuron(strokes(rng) != 0)
    assert {1, 28} & {lag for lag, weight in neuron.lags if weight > 10}


def test_a_pattern_of_strokes_costs_far_less_than_its_entropy(rng):
    codes = strokes(rng)
    cost = decode(
        PREDICTED, Cursor(CODECS[PREDICTED].encode(codes).data), codes.dtype, codes.shape
    ).cost
    assert cost.index < 0.7 * entropy(codes != 0)
    assert cost.values < 0.95 * entropy(codes[codes != 0])  # the sides are those of neighbours


def test_a_mask_without_order_costs_its_entropy(rng):
    mask = rng.random((200, 300)) < 0.05
    assert fit_neuron(mask).lags == ()
    body = CODECS[PREDICTED].encode(mask).data
    assert 0.99 * entropy(mask) < len(body) < 1.02 * entropy(mask) + 20


def test_outputs_and_inputs_of_different_density_are_told_apart(rng):
    share = 0.2 * rng.random((300, 1)) ** 3 * 4 * rng.random((1, 400)) ** 3
    mask = rng.random((300, 400)) < share
    assert len(CODECS[PREDICTED].encode(mask).data) < 0.85 * entropy(mask)


def test_a_neighbour_costs_nothing_where_there_is_none(rng):
    kept = rng.random((10, 400)) < 0.2
    sides = fit_sides(kept, rng.integers(0, 9, kept.sum()), 9, [])
    assert (sides.pivot, sides.lags) == (0, ())


@pytest.mark.parametrize(
    ("name", "layer", "index", "values"),
    [
        ("lenet-300-100-gradual-95-seed0", "fc1.weight", 0.73, 0.88),
        ("lenet-5-gradual-99-seed0", "fc1.weight", 0.89, 1.0),
    ],
)
def test_measured_on_layers_that_were_pruned(name, layer, index, values):
    """The bytes beside the entropy of the mask, and of 32 levels for the weights that are left."""
    w = tc.load(RESULTS / f"{name}.tcz").state_dict()[layer]
    levels = np.linspace(w.min(), w.max(), 33)[1:-1]
    codes = np.where(w == 0, 0, 1 + np.searchsorted(levels, w)).astype(np.uint8)
    body = CODECS[PREDICTED].encode(codes).data
    cost = decode(PREDICTED, Cursor(body), codes.dtype, codes.shape).cost
    assert cost.index < index * entropy(codes != 0)
    assert cost.values < values * entropy(codes[codes != 0])


# ---------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("dtype", "shape", "body", "reason"),
    [
        ("bool", (4,), "0000", "truncated"),
        ("bool", (4,), "00000011" + "0100" * 17, "neighbours cannot be in a row of 4"),
        ("bool", (4,), "000000010400", "neighbours cannot be in a row of 4"),
        ("bool", (4,), "000000010000", "neighbours cannot be in a row of 4"),
        ("bool", (4,), "00000000ff00", "does not end with a zero"),
        ("bool", (4,), "00000000" + "ff" * 8, "too many"),
        ("int8", (4,), "8002", "does not fit int8"),
        ("int8", (4,), "00000000008002", "least value 128 does not fit"),
        ("int8", (4,), "0000000000000000", "no sides of 0 in a span of 0"),
        ("int8", (4,), "00000000000081200100", "span of 4,097"),
        ("int8", (4,), "0000000000000203", "no sides of 3 in a span of 2"),
        ("float32", (4,), "0000000005ff", "truncated"),
        ("float32", (4,), "0000000001ff", "truncated"),
        ("float32", (1 << 23,), "000000000000", "8,388,608 steps"),
    ],
)
def test_damaged_bodies_are_refused(dtype, shape, body, reason):
    with pytest.raises(FormatError, match=reason):
        decode(PREDICTED, Cursor(bytes.fromhex(body)), np.dtype(dtype), shape)
