"""Saving and loading: what comes back is what went in, wherever it is read."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tinycompress import format as fmt, models, nn
from tinycompress.compress.prune import strip
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.format.registry import register


def there_and_back(model: nn.Module) -> nn.Module:
    return fmt.from_bytes(fmt.to_bytes(model))


def test_a_model_comes_back_to_the_bit(sample, same_model, tmp_path):
    size = fmt.save(sample, tmp_path / "m.tcz")
    assert size == os.path.getsize(tmp_path / "m.tcz")
    same_model(fmt.load(tmp_path / "m.tcz"), sample)


def test_the_same_model_gives_the_same_bytes(sample):
    data = fmt.to_bytes(sample)
    assert fmt.to_bytes(sample.copy()) == data
    assert fmt.to_bytes(fmt.from_bytes(data)) == data


def test_a_loaded_model_is_in_evaluation_mode_and_can_be_trained():
    model = there_and_back(models.create("tiny-cnn").train())
    assert not any(m.training for m in model.modules())
    for array in (*model.buffers(), *(p.data for p in model.parameters())):
        assert array.flags.writeable
        assert array.dtype.isnative
    images = np.zeros((2, 1, 28, 28), np.float32)
    model.train()(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_saving_leaves_the_model_as_it_was(sample, same_model):
    before, modes = sample.copy(), [m.training for m in sample.modules()]
    fmt.to_bytes(sample)
    same_model(sample, before)
    assert [m.training for m in sample.modules()] == modes


def test_a_model_on_any_device_is_saved_from_the_host(device, same_model):
    on_host = quantize(models.create("tiny-cnn"), QuantConfig(bits=4))
    on_host.fc.bias.mask = np.arange(10) % 2 == 0
    elsewhere = on_host.copy().to(device)
    data = fmt.to_bytes(elsewhere)
    assert data == fmt.to_bytes(on_host)
    loaded = fmt.from_bytes(data)
    assert loaded.device == "cpu"
    assert loaded.to(device).device == elsewhere.device


def test_a_fresh_process_computes_the_same(tmp_path, rng):
    model = quantize(models.create("tiny-cnn"), QuantConfig(bits=4)).eval()
    images = rng.normal(size=(3, 1, 28, 28)).astype(np.float32)
    fmt.save(model, tmp_path / "m.tcz")
    np.save(tmp_path / "x.npy", images)
    program = (
        "import sys, numpy as np; from tinycompress.format import load\n"
        "y = load(sys.argv[1])(np.load(sys.argv[2])); sys.stdout.write(y.data.tobytes().hex())"
    )
    command = [sys.executable, "-c", program, tmp_path / "m.tcz", tmp_path / "x.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == model(images).data.tobytes().hex()


# --------------------------------------------------------------------------------- masks, sharing


def test_a_mask_costs_a_byte_where_it_is_the_pattern_of_zeros():
    model = nn.Linear(20, 10, bias=False)
    model.weight.data[:, 3:] = 0
    plain = len(fmt.to_bytes(model))
    model.weight.mask = model.weight.data != 0
    assert len(fmt.to_bytes(model)) == plain + 1


def test_a_mask_that_keeps_zeros_is_kept():
    model = nn.Linear(4, 2, bias=False)
    model.weight.data[:] = [[0, 1, 2, 3], [0, 0, 4, 5]]
    model.weight.mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1]], bool)
    loaded = there_and_back(model)
    np.testing.assert_array_equal(loaded.weight.mask, model.weight.mask)


def test_a_mask_over_weights_that_are_not_zero_yet_is_kept():
    model = nn.Linear(4, 2, bias=False)
    model.weight.mask = np.eye(2, 4, dtype=bool)
    loaded = there_and_back(model)
    np.testing.assert_array_equal(loaded.weight.mask, model.weight.mask)
    np.testing.assert_array_equal(loaded.weight.data, model.weight.data)


@pytest.mark.parametrize("width", [16, 24, 32, 200])
def test_a_mask_is_kept_whether_it_is_shorter_coded_or_in_bits(width):
    model = nn.Linear(width, 1, bias=False)
    model.weight.data[:, ::2] = 0
    model.weight.mask = np.ones((1, width), bool)
    loaded = there_and_back(model)
    np.testing.assert_array_equal(loaded.weight.mask, model.weight.mask)
    assert len(fmt.to_bytes(model)) < 4 * width // 2 + width / 8 + 45


def test_minus_zero_under_a_mask_costs_no_more_than_zero():
    model = nn.Linear(100, 10, bias=False)
    model.weight.mask = np.arange(1000).reshape(10, 100) % 10 == 0
    model.weight.data *= model.weight.mask  # as optimizers do: the sign of zero remains
    assert np.signbit(model.weight.data[~model.weight.mask]).any()
    size = len(fmt.to_bytes(model))
    assert size < 125 + 400 + 40
    assert not np.signbit(there_and_back(model).weight.data[~model.weight.mask]).any()


def test_a_trained_and_stripped_model_costs_no_more_than_one_with_a_mask():
    model = nn.Linear(100, 10, bias=False)
    model.weight.mask = np.arange(1000).reshape(10, 100) % 10 == 0
    model.weight.data *= model.weight.mask
    assert len(fmt.to_bytes(strip(model))) == len(fmt.to_bytes(model)) - 1


def test_minus_zero_without_a_mask_is_kept():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data[:] = [[-0.0, 0.0]]
    assert np.signbit(there_and_back(model).weight.data).tolist() == [[True, False]]


def test_layers_that_share_a_weight_share_it_again():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    single = len(fmt.to_bytes(model))
    model[2].weight = model[0].weight
    loaded = there_and_back(model)
    assert loaded[2].weight is loaded[0].weight
    assert loaded[2].bias is not loaded[0].bias
    assert len(fmt.to_bytes(model)) < single - 30


def test_a_layer_in_two_places_is_stored_once():
    layer = nn.Linear(3, 3)
    loaded = there_and_back(nn.Sequential(layer, nn.ReLU(), layer))
    assert loaded[0].weight is loaded[2].weight


# ------------------------------------------------------------------------------- classes of users


class Residual(nn.Module):
    """A class as a user writes it: its own forward, a buffer, layers made by the constructor."""

    def __init__(self, width: int, steps: int = 2) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(steps)])
        self.scale = nn.Parameter(np.ones(width, np.float32))
        self.register_buffer("count", np.array(3, np.int64))
        nn.init.xavier_uniform_(self.layers[0].weight)
        self.scale.data *= 2

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x) * self.scale
        return x

    def config(self):
        return {"width": self.width, "steps": self.steps}


def test_a_registered_class_comes_back(same_model, rng):
    register(Residual)
    model = Residual(4, steps=3)
    model.scale.data[:] = 5
    model.count = np.array(7, np.int64)
    loaded = there_and_back(model)
    same_model(loaded, model)
    x = rng.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x).data, model.eval()(x).data)


def test_quantized_layers_inside_a_registered_class_come_back(same_model):
    register(Residual)
    model = quantize(Residual(4), QuantConfig(bits=4))
    same_model(there_and_back(model), model)


def test_a_file_of_an_unknown_class_says_what_to_do(tmp_path, monkeypatch):
    register(Residual)
    fmt.save(Residual(2), tmp_path / "m.tcz")
    monkeypatch.setattr("tinycompress.format.registry._registered", {})
    with pytest.raises(fmt.FormatError, match=r"m\.tcz: .*'Residual'.*register"):
        fmt.load(tmp_path / "m.tcz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.bool_, np.float16])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3)])
def test_buffers_of_every_dtype_and_shape(dtype, shape, rng):
    @register
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("held", np.zeros(1, np.float32))

    model = Holder()
    model.held = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    held = there_and_back(model).held
    assert (held.dtype, held.shape) == (np.dtype(dtype), shape)
    np.testing.assert_array_equal(held, model.held)


def test_arrays_of_any_memory_order_and_byte_order():
    model = nn.Linear(3, 2, bias=False)
    values = np.arange(6, dtype=">f4").reshape(3, 2).T
    model.weight.data = values
    loaded = there_and_back(model).weight.data
    np.testing.assert_array_equal(loaded, values)
    assert loaded.dtype == np.float32
    assert loaded.dtype.isnative


def test_a_dtype_that_files_do_not_have_is_named():
    model = nn.Linear(3, 2)
    model.weight.data = model.weight.data.astype(np.longdouble)
    with pytest.raises(TypeError, match=r"weight: a \.tcz file has no dtype"):
        fmt.to_bytes(model)


@pytest.mark.parametrize("mask", [np.ones((2, 3), np.uint8), np.ones((2, 2), bool)])
def test_a_mask_that_is_none_is_named(mask):
    model = nn.Linear(3, 2)
    model.weight.mask = mask
    with pytest.raises(TypeError, match=r"mask of weight must be booleans of shape \(2, 3\), got"):
        fmt.to_bytes(model)


def test_what_is_no_model_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="save takes a model, got dict"):
        fmt.save(nn.Linear(3, 2).state_dict(), tmp_path / "m.tcz")


# ------------------------------------------------------------------------------------- on the disk


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_crash_while_saving_leaves_the_old_file_and_no_other(step, tmp_path, monkeypatch):
    path = tmp_path / "m.tcz"
    fmt.save(models.create("tiny-cnn"), path)
    old = path.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(step, crash)
    with pytest.raises(KeyboardInterrupt):
        fmt.save(models.create("tiny-cnn", width=8), path)
    assert os.listdir(tmp_path) == ["m.tcz"]
    assert path.read_bytes() == old


def test_a_model_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.tcz"
    fmt.save(models.create("tiny-cnn"), path)
    old = path.read_bytes()
    with pytest.raises(TypeError, match="register"):
        fmt.save(Residual(3), path)
    assert os.listdir(tmp_path) == ["m.tcz"]
    assert path.read_bytes() == old


def test_files_that_are_not_there_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        fmt.load(tmp_path / "missing.tcz")
    with pytest.raises(FileNotFoundError, match="folder"):
        fmt.save(models.create("tiny-cnn"), tmp_path / "missing" / "m.tcz")


def test_a_path_can_be_text_or_a_path(tmp_path, same_model):
    model = models.create("tiny-cnn")
    fmt.save(model, str(tmp_path / "a.tcz"))
    same_model(fmt.load(str(tmp_path / "a.tcz")), model)


def test_what_no_reader_takes_is_not_written_over_a_good_file(tmp_path):
    path, model = tmp_path / "m.tcz", models.create("tiny-cnn")
    fmt.save(model, path)
    good = path.read_bytes()
    fc = model.get_submodule("fc")
    fc.weight.data = fc.weight.data.astype("int32")
    with pytest.raises(TypeError, match=r"fc\.weight is a parameter and cannot be int32"):
        fmt.save(model, path)
    assert path.read_bytes() == good


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless file here")
def test_a_file_of_another_kind_is_not_read_to_its_end():
    with pytest.raises(fmt.FormatError, match="starts with 00 00 00 00"):
        fmt.load("/dev/zero")
