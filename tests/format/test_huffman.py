"""Huffman codes: the shortest there are under their limit, and each one the beginning of none."""

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress.format import huffman
from tinycompress.format.cursor import Cursor
from tinycompress.format.errors import FormatError
from tinycompress.format.huffman import (
    LONGEST,
    code_lengths,
    codewords,
    decode_symbols,
    encode_symbols,
)

counts_of_any = st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(
    lambda counts: np.count_nonzero(counts) > 1
)


def words(lengths):
    """The codewords as text."""
    pairs = zip(codewords(lengths), lengths, strict=True)
    return [f"{code:0{n}b}" if n else "" for code, n in pairs]


def cost_of_the_tree(counts):
    """Bits of a Huffman code, by its definition: the two rarest become one, again and again."""
    heap, bits = [c for c in counts if c], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        bits += pair
        heapq.heappush(heap, pair)
    return bits


@given(counts_of_any)
def test_no_code_is_shorter(counts):
    lengths = code_lengths(np.array(counts))
    assert lengths.max() <= LONGEST
    assert (lengths > 0).tolist() == [c > 0 for c in counts]
    # Here the limit never binds: a codeword of 16 bits takes counts as large as Fibonacci's.
    if sum(counts) < 1597:
        assert lengths @ counts == cost_of_the_tree(counts)
    assert lengths @ counts >= cost_of_the_tree(counts)


@given(counts_of_any)
def test_no_codeword_is_the_beginning_of_another(counts):
    lengths = code_lengths(np.array(counts))
    used = sorted(word for word in words(lengths) if word)
    assert not any(b.startswith(a) for a, b in itertools.pairwise(used))
    assert sum(2.0 ** -len(word) for word in used) == 1  # and no stream of bits is without meaning


@pytest.mark.parametrize("limit", [3, 4, 5])
def test_the_limit_costs_no_more_than_it_must(limit, monkeypatch, rng):
    monkeypatch.setattr(huffman, "LONGEST", limit)
    for _ in range(20):
        counts = np.sort(rng.integers(1, 4, 6) ** rng.integers(1, 9, 6))
        fitting = (
            np.array(lengths)
            for lengths in itertools.combinations_with_replacement(range(limit, 0, -1), 6)
            if sum(2.0**-n for n in lengths) <= 1
        )
        best = min(int(lengths @ counts) for lengths in fitting)  # rare ones get the longest
        lengths = code_lengths(counts)
        assert lengths.max() <= limit
        assert lengths @ counts == best


def test_counts_like_fibonacci_meet_the_limit():
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.array(counts))
    assert lengths.max() == LONGEST
    assert (1 << LONGEST - lengths).sum() == 1 << LONGEST


def test_codewords_are_counted_upwards_as_in_deflate():
    # The example of RFC 1951, section 3.2.2: A to H of lengths 3, 3, 3, 3, 3, 2, 4, 4.
    lengths = np.array([3, 3, 3, 3, 3, 2, 4, 4])
    assert words(lengths) == ["010", "011", "100", "101", "110", "00", "1110", "1111"]


def test_equal_counts_give_the_shorter_words_to_the_smaller_values():
    assert words(code_lengths(np.ones(3, int))) == ["10", "11", "0"]
    assert code_lengths(np.array([5, 0, 5])).tolist() == [1, 0, 1]


def test_one_value_and_no_value_need_no_bits():
    assert code_lengths(np.array([0, 7, 0])).tolist() == [0, 0, 0]
    assert code_lengths(np.zeros(4, int)).tolist() == [0] * 4
    assert encode_symbols(np.zeros(0, int), np.array([1, 1])) == b""


@given(st.lists(st.integers(0, 30), max_size=200), st.data())
def test_symbols_come_back_from_codewords_read_one_by_one(extra, data):
    symbols = np.array([0, 1, *extra])
    lengths = code_lengths(np.bincount(symbols))
    coded = encode_symbols(symbols, lengths)
    names = {word: i for i, word in enumerate(words(lengths)) if word}
    stream, found, word = "".join(f"{byte:08b}" for byte in coded), [], ""
    for bit in stream:
        word += bit
        if word in names and len(found) < len(symbols):
            found.append(names[word])
            word = ""
    assert found == symbols.tolist()
    assert len(word) < 8
    assert "1" not in word
    cursor = Cursor(b"before" + coded + b"after", 6)
    assert decode_symbols(cursor, len(symbols), lengths).tolist() == symbols.tolist()
    assert cursor.rest() == b"after"


def test_a_stream_longer_than_a_block(rng):
    symbols = np.minimum(rng.geometric(0.3, 300_000), 20) - 1
    lengths = code_lengths(np.bincount(symbols))
    coded = encode_symbols(symbols, lengths)
    np.testing.assert_array_equal(decode_symbols(Cursor(coded), symbols.size, lengths), symbols)
    for end in (len(coded) - 1, len(coded) // 2, 1, 0):
        with pytest.raises(FormatError, match="more than are here"):
            decode_symbols(Cursor(coded, 0, end), symbols.size, lengths)
