"""The relative index: distances in few bits, and fillers where these are not enough."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tinycompress.format.codecs import CODECS, decode
from tinycompress.format.cursor import Cursor
from tinycompress.format.relative import RELATIVE, distances, places

masks = hnp.arrays(bool, st.integers(0, 100), fill=st.just(False))
widths = st.integers(1, 12)


def distances_one_by_one(kept, bits):
    index, zeros = [], 0
    for bit in kept:
        if bit:
            index.append(zeros)
            zeros = 0
        else:
            zeros += 1
        if zeros == 2**bits - 1 and kept[len(kept) - 1]:
            index.append(zeros)
            zeros = 0
    return index


@given(masks.filter(lambda m: m.size and m[-1]), widths)
def test_it_counts_the_zeros_before_each_weight(kept, bits):
    assert distances(kept, bits).tolist() == distances_one_by_one(kept, bits)


@given(masks, widths)
def test_places_are_found_again(kept, bits):
    np.testing.assert_array_equal(places(distances(kept, bits), bits), np.flatnonzero(kept))


def test_the_example_of_the_module():
    kept = np.array([3, 0, 0, 5, *[0] * 8, 7]) != 0
    assert distances(kept, 2).tolist() == [0, 2, 3, 3, 2]


def test_five_bits_are_too_few_for_a_weight_in_a_hundred(rng):
    """Where q is the chance of 31 zeros, a weight has q / (1 − q) fillers before it."""
    kept = rng.random(1_000_000) < 0.01
    fillers = len(distances(kept, 5)) / kept.sum() - 1
    q = 0.99**31
    assert fillers == pytest.approx(q / (1 - q), rel=0.05)
    assert 2.6 < fillers < 2.8


@pytest.mark.parametrize("share", [0.3, 0.1, 0.02])
def test_the_width_is_the_one_that_costs_least(share, rng):
    kept = rng.random((50, 400)) < share
    body = CODECS[RELATIVE].encode(kept.astype(np.float32)).data
    cost = decode(RELATIVE, Cursor(body), np.dtype(np.float32), kept.shape).cost
    packed = min(len(distances(kept, bits)) * bits / 8 for bits in range(1, 13))
    p = kept.mean()
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    assert entropy * kept.size / 8 * 0.98 < cost.index < packed + 2
    assert cost.total == len(body)
