"""The range coder: what was decided comes back, and costs what its probability says."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress.format import FormatError
from tinycompress.format.adaptive import AdaptiveBit, AdaptiveNumber
from tinycompress.format.codecs import CODECS
from tinycompress.format.counted import COUNTED, shares_of
from tinycompress.format.cursor import Cursor
from tinycompress.format.range_coder import WHOLE, RangeDecoder, RangeEncoder

chances = st.integers(1, WHOLE - 1) | st.sampled_from([1, 2, WHOLE - 2, WHOLE - 1])
decisions = st.lists(st.tuples(chances, st.integers(0, 1)), max_size=300)


def encoded(pairs) -> bytes:
    coder = RangeEncoder()
    for chance, bit in pairs:
        assert coder.bit(chance, bit) == bit
    return coder.finish()


def decoded(data: bytes, given_chances) -> list[int]:
    coder = RangeDecoder(Cursor(data))
    bits = [coder.bit(chance) for chance in given_chances]
    coder.finish()
    return bits


def information(pairs) -> float:
    """Bits that the decisions are worth."""
    return sum(-math.log2((c if bit else WHOLE - c) / WHOLE) for c, bit in pairs)


@given(decisions)
def test_bits_come_back(pairs):
    assert decoded(encoded(pairs), [c for c, _ in pairs]) == [bit for _, bit in pairs]


@given(decisions)
def test_the_message_costs_its_information_and_two_bytes_at_most(pairs):
    # A range of 24 bits, cut in 2¹⁶ parts, loses 2⁻⁸ of itself at most.
    lost = len(pairs) * -math.log2(1 - 2**-8)
    assert len(encoded(pairs)) <= (information(pairs) + lost) / 8 + 2


@given(decisions)
def test_the_bytes_are_a_number_in_the_interval_that_a_calculation_without_end_gives(pairs):
    low, size, bytes_out = 0, (1 << 32) - 1, 0  # whole numbers that grow instead of being shifted
    for chance, bit in pairs:
        ones = (size >> 16) * chance
        low, size = (low, ones) if bit else (low + ones, size - ones)
        while size < 1 << 24:
            low, size, bytes_out = low << 8, size << 8, bytes_out + 1
    data = encoded(pairs)
    number = int.from_bytes(data.ljust(bytes_out + 4, b"\0"), "big")
    assert low <= number < low + size
    shorter = int.from_bytes(data[:-1].ljust(bytes_out + 4, b"\0"), "big")
    assert not data or not low <= shorter < low + size  # and no beginning of it is enough


def test_what_is_carried_goes_through_many_bytes():
    # Always the upper part: "low" climbs to just below the end, and the last decisions decide.
    for last in (0, 1):
        pairs = [(1, 0)] * 500 + [(WHOLE - 1, 0)] * 20 + [(WHOLE >> 1, last)]
        assert decoded(encoded(pairs), [c for c, _ in pairs])[-1] == last


def test_certainty_costs_nothing():
    assert encoded([]) == b""
    assert len(encoded([(WHOLE - 1, 1)] * 1000)) <= 1
    assert len(encoded([(1, 0)] * 1000)) <= 2


def test_zeros_at_the_end_are_not_written_and_not_read():
    pairs = [(WHOLE >> 1, 1)] * 50
    assert encoded(pairs) == b""
    assert decoded(b"", [c for c, _ in pairs]) == [1] * 50
    with pytest.raises(FormatError, match="does not end with a zero"):
        RangeDecoder(Cursor(b"\x01\x00"))


def test_bytes_too_many_are_refused():
    with pytest.raises(FormatError, match="too many"):
        decoded(b"\x01" * 5, [])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300))
def test_outcomes_of_any_size_come_back(symbols):
    ends = np.cumsum([1, WHOLE - 40_000, 39_000, 0, 998, 1])
    starts, sizes = [0, *ends[:-1].tolist()], np.diff([0, *ends]).tolist()
    symbols = [s for s in symbols if sizes[s]]
    coder = RangeEncoder()
    for s in symbols:
        coder.interval(starts[s], sizes[s])
    reader = RangeDecoder(Cursor(coder.finish()))
    for s in symbols:
        slot = reader.slot()
        assert starts[s] <= slot < starts[s] + sizes[s]
        reader.interval(starts[s], sizes[s])
    reader.finish()


# ------------------------------------------------------------------------------ models that learn


class Price:
    """Stands where a coder stands, and adds up what decisions cost."""

    def __init__(self):
        self.bits = 0.0

    def bit(self, chance, bit):
        self.bits += information([(chance, bit)])
        return bit


@given(st.lists(st.integers(0, 1), min_size=1, max_size=500))
def test_learning_a_share_costs_half_a_logarithm_and_a_bit(bits):
    price, model = Price(), AdaptiveBit()
    for bit in bits:
        model.code(price, bit)
    n, k = len(bits), sum(bits)
    known = sum(-c * math.log2(c / n) for c in (k, n - k) if c)
    assert price.bits <= known + 0.5 * math.log2(n) + 1 + 1e-3 * n


def test_the_estimate_is_that_of_krichevsky_and_trofimov():
    model = AdaptiveBit()
    for k, bit in enumerate([1, 1, 1]):
        assert model.probability == int(WHOLE * (k + 0.5) / (k + 1))
        model.code(Price(), bit)
    model.code(Price(), 0)
    assert model.probability == int(WHOLE * 3.5 / 5)


def test_a_probability_is_never_0_or_1():
    for bit in (0, 1):
        model = AdaptiveBit()
        for _ in range(10_000):
            model.code(Price(), bit)
            assert 0 < model.probability < WHOLE


@given(st.integers(0, 12), st.data())
def test_numbers_come_back(bits, data):
    numbers = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=100))
    coder, model = RangeEncoder(), AdaptiveNumber(bits)
    assert [model.code(coder, number) for number in numbers] == numbers
    reader, model = RangeDecoder(Cursor(coder.finish())), AdaptiveNumber(bits)
    assert [model.code(reader) for _ in numbers] == numbers


# ------------------------------------------------------------------------------- with a table


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=400).filter(any))
def test_shares_add_up_and_leave_nothing_out(counts):
    shares = shares_of(np.array(counts))
    assert shares.sum() == WHOLE
    assert ((shares > 0) == (np.array(counts) > 0)).all()


def test_many_rare_values_leave_something_for_the_others():
    shares = shares_of(np.array([1000] * 2000 + [1] * 2000))
    assert shares.min() == 1
    assert shares.sum() == WHOLE


def test_values_cost_their_entropy_where_huffman_pays_a_bit(rng):
    values = (rng.random(20_000) < 0.03).astype(np.int8)
    p = values.mean()
    entropy = -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) * values.size / 8
    assert entropy * 0.99 < len(CODECS[COUNTED].encode(values).data) < entropy * 1.01 + 8
