"""Damaged and hostile files end in ``FormatError`` or in the right model, and in nothing else.

``TINYCOMPRESS_MUTATIONS=100000 pytest tests/format/test_damage.py`` tries as many damaged files.
"""

import os
import tracemalloc

import numpy as np
import pytest
from tcz_samples import SAMPLES, assert_same_model, with_mask

from tinycompress import format as fmt, models, nn
from tinycompress.format.codecs import CODECS, decode
from tinycompress.format.container import ARCHITECTURE, TENSORS, read_container, write_container
from tinycompress.format.cursor import MAX_STEPS, Cursor, varint
from tinycompress.format.tensors import EXPANSION, FREE_MEMORY
from tinycompress.format.values import write_value

MUTATIONS = int(os.environ.get("TINYCOMPRESS_MUTATIONS", "8000"))
LINEAR = ["Linear", {"in_features": 2, "out_features": 3, "bias": False}]


def parts(data: bytes) -> list[bytes]:
    """(architecture, tensors) of a file."""
    return [section.content.rest() for section in read_container(data)]


def sealed(architecture: bytes, tensors: bytes) -> bytes:
    """A file whose checksums are right, whatever is in it."""
    return write_container([(ARCHITECTURE, architecture), (TENSORS, tensors)])


def refuse(data: bytes, reason: str | None = None) -> fmt.FormatError:
    with pytest.raises(fmt.FormatError, match=reason) as caught:
        fmt.from_bytes(data)
    assert 0 <= caught.value.offset <= len(data)
    return caught.value


@pytest.mark.parametrize(
    "name", ["pruned and quantized", "batch norm", "integers", "strokes in codes", "halves"]
)
def test_truncation_at_every_byte_is_refused(name):
    data = fmt.to_bytes(SAMPLES[name]())
    for length in range(len(data)):
        refuse(data[:length])


def test_bytes_at_the_end_are_refused():
    data = fmt.to_bytes(SAMPLES["small"]())
    for extra in (b"\0", b"\x01", b"\x02\x00", data):
        refuse(data + extra)


@pytest.mark.parametrize("name", ["pruned and quantized", "integers", "shared codes"])
def test_every_flipped_bit_is_refused(name):
    data = fmt.to_bytes(SAMPLES[name]())
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(bytes(damaged))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes changed, inserted, removed or repeated."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(out) + 1))
        what = rng.integers(0, 4)
        if what == 0 and place < len(out):
            out[place] = rng.integers(0, 256)
        elif what == 1:
            out[place:place] = rng.bytes(int(rng.integers(1, 5)))
        elif what == 2:
            del out[place : place + int(rng.integers(1, 5))]
        else:
            out[place:place] = out[place : place + int(rng.integers(1, 20))]
    return bytes(out)


def test_mutated_files_are_refused(rng):
    files = [(fmt.to_bytes(model), model) for model in (make() for make in SAMPLES.values())]
    for i in range(MUTATIONS):
        data, model = files[i % len(files)]
        damaged = mutated(data, rng)
        try:
            loaded = fmt.from_bytes(damaged)
        except fmt.FormatError:
            continue
        assert_same_model(loaded, model)


def test_mutated_files_with_right_checksums_are_refused_or_models(rng):
    files = [parts(fmt.to_bytes(make())) for make in SAMPLES.values()]
    models_made = 0
    for i in range(MUTATIONS // 2):
        contents = list(files[i % len(files)])
        which = int(rng.integers(0, 2))
        contents[which] = mutated(contents[which], rng)
        data = sealed(*contents)
        try:
            model = fmt.from_bytes(data)
        except fmt.FormatError as error:
            assert 0 <= error.offset <= len(data)  # noqa: PT017
        else:
            models_made += isinstance(model, nn.Module)
    assert models_made > MUTATIONS // 50  # a changed weight is no damage that could be seen


@pytest.mark.parametrize("number", CODECS)
def test_mutated_bodies_are_refused_or_arrays(number, rng):
    """Whatever a codec reads, it gives an array, or it refuses and says the place."""
    bodies = [(values, body.data) for values in arrays_of_layers(rng)
              if (body := CODECS[number].encode(values)) is not None]  # fmt: skip
    assert bodies
    for i in range(MUTATIONS // 20):
        values, body = bodies[i % len(bodies)]
        damaged = mutated(body, rng)
        try:
            again = decode(number, Cursor(damaged), values.dtype, values.shape).values
        except fmt.FormatError as error:
            assert 0 <= error.offset <= len(damaged)  # noqa: PT017
        else:
            assert (again.dtype, again.shape) == (values.dtype, values.shape)


def arrays_of_layers(rng):
    """Codes, weights and masks as layers have them: sparse in rows, columns and strokes."""
    kept = rng.random((12, 40)) < 0.3 * rng.random((12, 1))
    kept[::3] = kept[:, 30:] = False
    kept[:, 1:] |= kept[:, :-1] & (rng.random((12, 39)) < 0.5)
    codes = np.where(kept, rng.integers(1, 9, kept.shape), 0)
    weights = np.where(kept, rng.normal(size=kept.shape), 0)
    yield from (codes.astype(np.uint8), codes.astype(np.int16).reshape(12, 4, 10) - 3, kept)
    yield from (weights.astype(np.float32), weights.astype(np.float16).astype(np.float32))
    yield from (weights, (weights.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32))


# ----------------------------------------------------------------------- hostile lengths and counts

HUGE = b"\xff" * 8 + b"\x7f"  # 2⁶³ − 1 as a varint
HOSTILE = {
    "a layer of 4 TB": (["Linear", {"in_features": 1 << 20, "out_features": 1 << 20}], b"\x00\x00"),
    "a layer of 64 MB and more": (["Linear", {"in_features": 1 << 24, "out_features": 2}], b"\x00"),
    "no tensors": (LINEAR, b""),
    "a length beyond the end": (LINEAR, b"\x00" + HUGE),
    "a shape of any size": (LINEAR, b"\x80\x02" + HUGE + HUGE + b"\x00"),
    "an empty shape of any size": (LINEAR, b"\x80\x03\x00" + HUGE + HUGE + b"\x00"),
    "a billion axes": (LINEAR, b"\x80" + HUGE + b"\x01" * 100),
    "axes beyond the end": (LINEAR, b"\x80\x20\x01\x01"),
    "a dtype that does not exist": (LINEAR, b"\x40\x0c\x00"),
    "a parameter of integers": (LINEAR, b"\x41\x05\x02\x00\x00"),
    "a codec that does not exist": (LINEAR, b"\x07\x00"),
    "the same as itself": (LINEAR, b"\x1f\x01\x00"),
    "the same as a later one": (LINEAR, b"\x1f\x01\x05"),
    "a mask of another length": (LINEAR, b"\x20\x18" + bytes(24) + b"\x02\x00\x00"),
    "a mask beyond the end": (LINEAR, b"\x20\x18" + bytes(24) + HUGE),
    "tensors left over": (LINEAR, b"\x00\x18" + bytes(24) + b"\x00"),
    "layers without end": (["Sequential", {}, ["ReLU"] * 20_000], b""),
    "layers within layers": (
        ["Sequential", {}, [["Sequential", {}, [["Sequential", {}, ["ReLU"]]]]]],
        b"\x00",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_little_memory(what):
    architecture, tensors = HOSTILE[what]
    data = sealed(write_value(architecture), tensors)
    refuse(data)  # once before measuring, for what is made at first use
    tracemalloc.start()
    refuse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 if "layers" not in what else peak < 32 << 20


MANY = 1 << 24
CLAIMS = {
    "packed in no bits": (1, "0002"),
    "Huffman coded, all the same": (5, "0102"),
    "counted, all the same": (6, "0102"),
    "adaptive": (7, "0102"),
    "adaptive in no bits": (7, "0002"),
    "relative, none left out": (8, "0001808080080103000000" + "000000"),
    "predicted, in one row": (10, "00000000000001000001"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_few_bytes_do_not_make_a_reader_work_or_allocate(what):
    """16 million values of a byte: refused, or an array and little beside it."""
    number, body = CLAIMS[what]
    cursor = Cursor(bytes.fromhex(body))
    tracemalloc.start()
    try:
        size = decode(number, cursor, np.dtype(np.int8), (MANY,)).values.size
    except fmt.FormatError as error:
        assert "steps" in error.reason  # noqa: PT017
        size = 0
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert size in (0, MANY)
    assert peak <= size + (1 << 20)
    assert cursor.steps.left > MAX_STEPS - (1 << 20) or cursor.steps.left < 0


def test_memory_is_bounded_for_tensors_that_repeat_one_number():
    buffer = ["BatchNorm1d", {"num_features": 1, "affine": False}]
    for axis, reason in ((FREE_MEMORY + 100_000, "too many for a file of"), (1 << 20, "truncated")):
        head = b"\xc1\x05\x01"  # packed; a dtype is given: int8; a shape is given: one axis
        constant = head + varint(axis) + b"\x02\x00\x00"
        refuse(sealed(write_value(buffer), constant), reason)


def test_a_model_that_no_reader_would_believe_is_not_written(monkeypatch):
    @fmt.register
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("held", np.zeros(1, np.int8))

    for module in ("store", "tensor_reader"):
        monkeypatch.setattr(f"tinycompress.format.{module}.FREE_MEMORY", 1 << 16)
    model = Constant()
    model.held = np.zeros((1 << 16) + 100 * EXPANSION, np.int8)
    with pytest.raises(ValueError, match="repeat a single number"):
        fmt.to_bytes(model)
    model.held = model.held[: 1 << 16]
    assert fmt.from_bytes(fmt.to_bytes(model)).held.size == 1 << 16


def test_a_writer_asks_for_no_more_steps_than_a_reader_takes(monkeypatch):
    """Where all steps are spent, tensors are written by codecs that need none."""
    model = nn.Sequential(*(SAMPLES["strokes in codes"]() for _ in range(6)))
    coded = len(fmt.to_bytes(model))
    for module in ("cursor", "tensors"):
        monkeypatch.setattr(f"tinycompress.format.{module}.MAX_STEPS", 6_000)
    data = fmt.to_bytes(model)
    assert len(data) > coded
    assert_same_model(fmt.from_bytes(data), model)


def test_nothing_but_arrays_of_the_models_size_is_allocated():
    data = fmt.to_bytes(with_mask(models.create("lenet-5"), 0.99))
    size = sum(p.data.nbytes for p in models.create("lenet-5").parameters())
    fmt.from_bytes(data)
    tracemalloc.start()
    fmt.from_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * size


def test_a_users_constructor_that_fails_is_a_format_error():
    @fmt.register
    class Fragile(nn.Module):
        def __init__(self, n=1):
            super().__init__()
            self.n = n
            if n == 2:
                raise KeyError("two")
            if n == 3:
                raise MemoryError
            if n == 4:
                raise RecursionError("deep")

        def config(self):
            return {"n": self.n}

    for n in (2, 3, 4):
        refuse(sealed(write_value(["Fragile", {"n": n}]), b""), "no Fragile can be made")
