"""A second reader, written from docs/format.md and from nothing of the package, reads every file.

It is given the expected dtypes and shapes, which the page's tables of layers have.
"""

import json
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from hypothesis.extra import numpy as hnp
from tcz_arrays import suitable_arrays
from tcz_samples import SAMPLES

from tinycompress import format as fmt
from tinycompress.format.codecs import CODECS
from tinycompress.format.describe import describe
from tinycompress.format.neuron import Neuron
from tinycompress.format.predicted import PREDICTED
from tinycompress.format.sides import Sides

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
DTYPES = re.findall(r"\d+ (\w+)", PAGE.split("if a dtype is given:")[1].split("|")[0])
WORDS = [w for r in PAGE.split("```words\n")[1].split("```")[0].splitlines() for w in r.split()[1:]]


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        byte = self.byte()
        return byte if byte < 128 else byte - 128 + 128 * self.varint()

    def int8(self):
        return (self.byte() + 128) % 256 - 128

    def zigzag(self):
        n = self.varint()
        return -(n + 1) // 2 if n % 2 else n // 2

    def bits(self, count, width):
        stream = "".join(f"{byte:08b}" for byte in self.take(-(-count * width // 8)))
        return [int(stream[i * width : (i + 1) * width], 2) for i in range(count)]

    def rest(self):
        return self.take(len(self.data) - self.at)


def read_value(b):
    tag = b.byte()
    if tag < 0x80:
        return WORDS[tag]
    if tag < 0xC0:
        return tag - 0x80
    if tag in (0xF0, 0xF1, 0xF2):
        return [None, False, True][tag - 0xF0]
    if tag == 0xF3:
        return b.zigzag()
    if tag == 0xF4:
        return struct.unpack("<d", b.take(8))[0]
    kind, n = (tag - 0xF5, b.varint()) if tag >= 0xF5 else ({0xC: 1, 0xD: 2, 0xE: 0}[tag >> 4], tag)
    n = n if tag >= 0xF5 else tag & 15
    if kind == 0:
        return b.take(n).decode()
    if kind == 1:
        return [read_value(b) for _ in range(n)]
    return {read_value(b): read_value(b) for _ in range(n)}


def read_body(b, codec, dtype, shape):
    """The values, in order."""
    dtype, n = np.dtype(dtype), int(np.prod(shape))
    if codec == 0:
        return np.frombuffer(b.take(n * dtype.itemsize), dtype.newbyteorder("<")).tolist()
    if codec == 1:
        width, least = b.byte(), b.zigzag()
        return [least + code for code in (b.bits(n, width) if width else [0] * n)]
    if codec == 3:
        return np.frombuffer(b.take(2 * n), "<f2").tolist()
    if codec == 4:
        return [struct.unpack("<f", b"\0\0" + b.take(2))[0] for _ in range(n)]
    if codec == 5:
        return read_huffman(b, n)
    if codec == 11:
        return read_parts(b, n)
    if codec in (6, 7):
        return read_counted(b, n) if codec == 6 else read_adaptive(b, n)
    fill = b.zigzag() if dtype.kind in "iu" else 0.0
    if codec == 9:
        return read_trimmed(b, dtype, shape, fill)
    if codec == 10:
        return read_predicted(b, dtype, shape, fill)
    kept = b.bits(n, 1) if codec == 2 else read_distances(b, n)
    others = iter(read_body(b, b.byte(), dtype, [sum(kept)]))
    return [next(others) if k else fill for k in kept]


def read_huffman(b, n):
    span = b.varint()
    least = b.zigzag() if span else 0
    if span < 2:
        return [least] * n
    lengths = b.bits(span, 4)
    words, code = {}, 0
    for length in range(1, 16):
        for value in range(span):
            if lengths[value] == length:
                words[f"{code:0{length}b}"] = least + value
                code += 1
        code *= 2
    values, word, stream = [], "", iter("".join(f"{byte:08b}" for byte in b.rest()))
    while len(values) < n:
        word += next(stream)
        if word in words:
            values.append(words[word])
            word = ""
    assert "1" not in (rest := list(stream))
    assert len(rest) < 8
    return values


def read_distances(b, n):
    width, entries, codec = b.byte(), b.varint(), b.byte()
    index = read_body(Bytes(b.take(b.varint())), codec, "uint16", [entries])
    kept = []
    for zeros in index:
        kept += [0] * zeros + ([] if zeros == 2**width - 1 else [1])
    return kept + [0] * (n - len(kept))


class RangeReader:
    """What is left is one number; it is compared with where outcomes begin."""

    def __init__(self, b):
        self.data = b.rest()
        assert not self.data.endswith(b"\0")
        self.number = int.from_bytes(self.data[:4].ljust(4, b"\0"), "big")
        self.range, self.at = 2**32 - 1, 4

    def narrow(self, start, size):
        self.number, self.range = self.number - start, size
        while self.range < 2**24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.number, self.range, self.at = (
                self.number * 256 + byte,
                self.range * 256,
                self.at + 1,
            )

    def bit(self, chance):
        ones = self.range // 65536 * chance
        bit = int(self.number < ones)
        self.narrow(*((0, ones) if bit else (ones, self.range - ones)))
        return bit

    def part(self, shares):
        step = self.range // 65536
        place, start, value = min(self.number // step, 65535), 0, 0
        while place >= start + shares[value]:
            start, value = start + shares[value], value + 1
        self.narrow(start * step, shares[value] * step)
        return value

    def learning(self, counts, key):
        """A bit of chance (ones + 1/2) / (cases + 1); ``counts`` are [ones, cases] by key."""
        seen = counts.setdefault(key, [0, 0])
        bit = self.bit(65536 * (2 * seen[0] + 1) // (2 * seen[1] + 2))
        seen[:] = seen[0] + bit, seen[1] + 1
        if seen[1] == 4096:
            seen[:] = seen[0] // 2, seen[1] // 2
        return bit

    def tree(self, counts, bits):
        word = "1"
        for _ in range(bits):
            word += str(self.learning(counts, word))
        return int(word, 2) - 2**bits

    def flags(self, n):
        counts, flags = {}, [1]
        for _ in range(n):
            flags.append(self.learning(counts, flags[-1]))
        return [i for i in range(n) if flags[i + 1]]


def read_counted(b, n):
    span, least = b.varint(), b.zigzag()
    shares = [b.varint() for _ in range(span - 1)]
    shares.append(65536 - sum(shares))
    reader = RangeReader(b)
    return [least + reader.part(shares) for _ in range(n)]


def read_adaptive(b, n):
    bits, least = b.byte(), b.zigzag()
    reader, counts = RangeReader(b), {}
    return [least + reader.tree(counts, bits) for _ in range(n)]


def read_parts(b, n):
    bits, codec = b.byte(), b.byte()
    upper = read_body(Bytes(b.take(b.varint())), codec, "uint8", [n])
    lower = b.bits(n, bits) if bits else [0] * n
    numbers = [u * 1024 + m * 2 ** (10 - bits) for u, m in zip(upper, lower, strict=True)]
    return [struct.unpack("<e", struct.pack("<H", number))[0] for number in numbers]


def read_trimmed(b, dtype, shape, fill):
    rows, columns = shape[0], int(np.prod(shape[1:]))
    live = b.bits(rows, 1), b.bits(columns, 1)
    size = [sum(live[0]), sum(live[1])]
    values = iter(read_body(b, b.byte(), dtype, size))
    return [next(values) if r and c else fill for r in live[0] for c in live[1]]


def chance(logit):
    logit = max(-2816, min(2816, logit))
    return max(1, min(65535, round(65536 / (1 + math.exp(-logit / 256)))))


def log(n):
    return round(256 * math.log(min(n, 65535)))


def read_predicted(b, dtype, shape, fill):
    rows = shape[0] if len(shape) > 1 else 1
    columns = int(np.prod(shape[1:])) if len(shape) > 1 else int(np.prod(shape))
    bias, w_column, w_row = b.int8(), b.int8(), b.int8()
    lags = [(b.varint(), b.int8()) for _ in range(b.byte())]
    least, span, pivot, sides = 0, 1, 0, []
    if dtype.kind in "iu":
        least, span, pivot = b.zigzag(), b.varint(), b.varint()
        side_bias, *sides = [b.int8() for _ in range(1 + len(lags))]
    reader = RangeReader(Bytes(b.take(b.varint())) if dtype.kind == "f" else b)
    live = reader.flags(rows), reader.flags(columns)
    kept, counts = [set() for _ in range(rows)], dict.fromkeys(live[1], 0)
    for r in live[0]:
        average, expected = 4 * sum(counts.values()) // len(counts), 0
        for c in live[1]:
            ratio = log(4 * counts[c] + 4) - log(average + 4)
            logit = max(-2816, min(2816, 16 * bias + (w_column * ratio >> 4)))
            row = (w_row * log(4 * len(kept[r]) + 4) >> 4) - (
                w_row * log(expected // 16384 + 4) >> 4
            )
            near = sum(weight for lag, weight in lags if c - lag in kept[r])
            expected += chance(logit)
            if reader.bit(chance(logit + row + 16 * near)):
                kept[r].add(c)
        for c in kept[r]:
            counts[c] += 1
    values = [[c in k for c in range(columns)] for k in kept]
    if dtype.kind == "f":
        others = iter(read_body(b, b.byte(), dtype, [sum(map(len, kept))]))
        values = [[next(others) if k else fill for k in row] for row in values]
    if dtype.kind in "iu":
        lower, upper, bits = {}, {}, [max(n - 1, 0).bit_length() for n in (pivot, span - pivot)]
        for r in range(rows):
            side, values[r] = {}, [fill] * columns
            for c in sorted(kept[r]):
                near = sum(
                    w * side.get(c - lag, 0) for (lag, _), w in zip(lags, sides, strict=True)
                )
                above = pivot == 0
                if 0 < pivot < span:
                    above = reader.bit(chance(16 * side_bias + 16 * near))
                side[c] = 1 if above else -1
                number = (
                    pivot + reader.tree(upper, bits[1])
                    if above
                    else pivot - 1 - reader.tree(lower, bits[0])
                )
                values[r][c] = least + number + (least < fill <= least + number)
    return [value for row in values for value in row]


def read_record(b, dtype, shape, earlier):
    """(values, mask or None)."""
    head = b.byte()
    if head & 31 == 31:
        return earlier[Bytes(b.take(b.varint())).varint()]
    dtype = DTYPES[b.byte()] if head & 0x40 else dtype
    shape = [b.varint() for _ in range(b.varint())] if head & 0x80 else shape
    body = Bytes(b.take(b.varint()))
    values = np.array(read_body(body, head & 31, dtype, shape), dtype).reshape(shape)
    assert not body.rest()
    if not head & 0x20:
        return values, None
    mask = Bytes(b.take(b.varint()))
    if not mask.data:
        return values, values != 0
    coded = len(mask.data) < -(-values.size // 8)
    bits = read_body(mask, mask.byte(), "bool", shape) if coded else mask.bits(values.size, 1)
    assert not mask.rest()
    return values, np.reshape(bits, shape)


def read_file(data, expected):
    """(architecture, [(values, mask or None)])."""
    b, contents, checksum = Bytes(data), [], zlib.crc32(data[:5])
    assert b.take(5) == b"\x89TCZ\x01"
    for kind in (1, 2):
        start = b.at
        assert b.byte() == kind
        contents.append(Bytes(b.take(b.varint())))
        checksum = zlib.crc32(data[start : b.at], checksum)
        assert struct.unpack("<I", b.take(4))[0] == checksum
    assert not b.rest()
    tensors = []
    for dtype, shape in expected:
        tensors.append(read_record(contents[1], dtype, shape, tensors))
    assert not contents[1].rest()
    return read_value(contents[0]), tensors


def as_the_architecture_says(array):
    dtype = "float32" if array.dtype.kind == "f" else array.dtype.name
    return dtype, array.shape


def test_a_reader_written_from_the_page_reads_every_file(sample):
    state = sample.state_dict()
    expected = [as_the_architecture_says(array) for array in state.values()]
    architecture, tensors = read_file(fmt.to_bytes(sample), expected)
    assert json.dumps(architecture) == json.dumps(describe(sample))
    masks = {name: p.mask for name, p in sample.named_parameters()}
    for (name, array), (values, mask) in zip(state.items(), tensors, strict=True):
        assert (values.dtype, values.tobytes()) == (array.dtype, array.tobytes()), name
        np.testing.assert_array_equal(mask, masks.get(name), err_msg=name)


@pytest.mark.parametrize("number", CODECS)
@given(data=st.data())
def test_it_reads_what_each_codec_writes(number, data):
    values = data.draw(suitable_arrays(number))
    body = CODECS[number].encode(values)
    assume(body is not None)
    found = Bytes(body.data)
    again = np.array(read_body(found, number, values.dtype, values.shape), values.dtype)
    assert again.tobytes() == values.tobytes()
    assert not found.rest()


@pytest.mark.parametrize("number", [5, 6, 7, 8, 9, 10])
def test_it_reads_a_layer(number, rng):
    """Large enough that counts are halved, and that logits and tables come to their ends."""
    kept = rng.random((60, 20, 3, 5)) < 0.2 * rng.random((60, 1, 1, 1)) ** 2
    kept[:, :, :, 1:] |= kept[:, :, :, :-1] & (rng.random((60, 20, 3, 4)) < 0.7)
    kept[:7] = kept[:, 4] = False
    kept[7, :, 0] = True
    codes = np.where(kept, rng.integers(1, 20, kept.shape), 0).astype(np.uint8)
    found = Bytes(CODECS[number].encode(codes).data)
    assert read_body(found, number, codes.dtype, codes.shape) == codes.ravel().tolist()


weights = st.integers(-128, 127) | st.sampled_from([-128, 127])


@given(weights, weights, weights, st.lists(weights, max_size=3), st.data())
def test_it_reads_what_any_neuron_writes(bias, column, row, near, data):
    """Also one that no encoder would find, whose logits go beyond all bounds."""
    lags = tuple(zip((1, 3, 4), near, strict=False))
    shape = (9, 7)
    kept = data.draw(hnp.arrays(bool, shape).filter(np.any))
    codes = np.where(kept, np.arange(63).reshape(shape) % 5 + 1, 0).astype(np.uint8)
    codes[0] = 0
    codes[1, 0] = 1
    with pytest.MonkeyPatch.context() as patch:
        neuron = Neuron(bias, column, row, lags)
        patch.setattr("tinycompress.format.predicted.fit_neuron", lambda mask: neuron)
        sides = Sides(5, 2, row, lags)
        patch.setattr("tinycompress.format.predicted.fit_sides", lambda *_: sides)
        body = CODECS[PREDICTED].encode(np.r_[codes, [[5] * 7]].astype(np.uint8))
    assume(body is not None)  # no value is frequent enough to be left out
    found = read_body(Bytes(body.data), PREDICTED, np.uint8, (10, 7))
    assert found == [*codes.ravel().tolist(), *[5] * 7]


def test_the_samples_use_most_codecs(tmp_path):
    used = set()
    for make in SAMPLES.values():
        fmt.save(make(), tmp_path / "m.tcz")
        used |= {t.how.split(" ")[0].strip(",") for t in fmt.inspect(tmp_path / "m.tcz").tensors}
    assert used >= {"raw", "packed", "sparse", "half", "adaptive", "predicted"}
