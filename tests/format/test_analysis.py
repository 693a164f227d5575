"""The columns of Deep Compression's tables are counts of bits that are really written."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.format.analysis import entropy, huffman_size, layer_costs
from tinycompress.format.codecs import CODECS, decode
from tinycompress.format.cursor import Cursor
from tinycompress.format.huffman import HUFFMAN, code_lengths, encode_symbols
from tinycompress.format.relative import RELATIVE


@pytest.fixture
def codes(rng):
    """A layer of which 8% are left, in 31 codes of which those in the middle are rare."""
    kept = rng.random((300, 200)) < 0.08
    values = 16 + np.rint(5 * rng.normal(size=kept.shape)).clip(-15, 15)
    return np.where(kept, values, 0).astype(np.uint8)


def test_the_bits_are_those_of_the_streams(codes):
    costs = layer_costs(codes)
    values = codes[codes != 0].astype(np.int64)
    assert (costs.weights, costs.kept) == (60_000, len(values))
    assert costs.bits == 5
    stream = encode_symbols(values, code_lengths(np.bincount(values)))
    assert 0 <= 8 * len(stream) - costs.huffman_bits * costs.kept < 8
    body = CODECS[RELATIVE].encode((codes != 0).astype(np.uint8)).data
    cost = decode(RELATIVE, Cursor(body), np.dtype(np.uint8), codes.shape).cost
    assert 8 * cost.index <= costs.index_huffman_bits * costs.kept * 1.02


def test_fillers_count(codes):
    narrow, wide = layer_costs(codes, width=2), layer_costs(codes, width=12)
    assert wide.index_bits == 12  # no distance is as far as that
    assert narrow.index_bits > 2 * 2
    assert narrow.width == 2


def test_the_width_that_is_chosen_is_the_best(codes):
    best = layer_costs(codes)
    for width in range(1, 13):
        other = layer_costs(codes, width)
        assert best.index_huffman_bits <= other.index_huffman_bits


def test_no_code_is_below_its_entropy(codes):
    costs = layer_costs(codes)
    assert costs.entropy <= costs.huffman_bits < costs.entropy + 0.1
    assert costs.index_entropy * 0.99 < costs.index_huffman_bits < costs.index_bits


@given(hnp.arrays(np.uint8, st.integers(0, 60), elements=st.integers(0, 5)))
def test_any_codes_have_costs(codes):
    costs = layer_costs(codes)
    assert costs.kept == np.count_nonzero(codes)
    assert costs.bits <= 3
    assert costs.huffman_bits <= max(costs.bits, 1)
    assert all(np.isfinite(value) for value in costs.to_dict().values())


def test_entropy_of_known_counts():
    assert entropy(np.array([8, 8])) == 16
    assert entropy(np.array([1, 1, 2])) == 4 * 1.5
    assert entropy(np.array([7])) == 0
    assert huffman_size(np.array([0, 1, 2, 2])) == 6
    assert CODECS[HUFFMAN].encode(np.array([0, 1, 2, 2])).data[-1:] == bytes([0b10110000])


@pytest.mark.parametrize("width", [0, 13])
def test_a_width_that_an_index_cannot_have(width, codes):
    with pytest.raises(ValueError, match="width must be 1 … 12"):
        layer_costs(codes, width)
