"""A checkpoint file: what goes in comes out, and what is not whole is told from what is."""

import json
import os
import re
import struct

import numpy as np
import pytest
import safetensors.numpy
from problems import bits, blobs, cnn, perceptron

import tinycompress as tc
from tinycompress import nn, optim, random
from tinycompress.train import (
    Callback,
    CheckpointError,
    EarlyStopping,
    fit,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)


def adam(model):
    return optim.Adam(model.parameters(), lr=0.01)


def same_optimizer(one, other):
    return repr(one.state_dict()) == repr(other.state_dict()) and all(
        one.state[i][name].tobytes() == other.state[i][name].tobytes()
        for i in one.state
        for name in one.state[i]
        if name != "step"
    )


@pytest.fixture
def trained():
    """(model, optimizer) after an epoch."""
    model = cnn()
    optimizer = adam(model)
    fit(model, blobs(64), 1, optimizer)
    return model, optimizer


@pytest.fixture
def file(trained, tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, *trained, {"note": "kept"})
    return path


# ------------------------------------------------------------------------------------- round trips


def test_what_goes_in_comes_out(trained, file):
    model, optimizer = trained
    drawn = random.next_key()
    fresh = cnn()
    other = adam(fresh)
    saved = read_checkpoint(file)
    restore_checkpoint(saved, fresh, other)
    assert saved.state["note"] == "kept"
    assert bits(fresh) == bits(model)
    assert same_optimizer(other, optimizer)
    assert random.next_key() == drawn, "the stream of random numbers goes on where it was"


def test_every_kind_of_array(tmp_path):
    def make():
        model = nn.Sequential(nn.Linear(3, 2))
        values = {"f2": np.float16, "f8": np.float64, "i1": np.int8, "u4": np.uint32, "b": np.bool_}
        for name, dtype in values.items():
            model.register_buffer(name, np.zeros((2, 2), dtype))
        model.register_buffer("scalar", np.zeros((), np.float32))
        model.register_buffer("empty", np.zeros((0, 3), np.float32))
        model.register_buffer("turned", np.zeros((4, 2), np.float32).T)
        return model

    model, generator = make(), np.random.default_rng(0)
    for _, b in model.named_buffers():
        b[...] = generator.integers(0, 2, b.shape)
    model.scalar[...] = np.nan
    model.f8[0, 0] = 1 / 3
    model.get_submodule("0").weight.mask = generator.random((2, 3)) < 0.5
    model.get_submodule("0").weight.data *= model.get_submodule("0").weight.mask
    save_checkpoint(tmp_path / "a.safetensors", model, adam(model), {})
    fresh = make()
    restore_checkpoint(read_checkpoint(tmp_path / "a.safetensors"), fresh, adam(fresh))
    assert bits(fresh) == bits(model)
    assert [b.shape for b in fresh.buffers()] == [b.shape for b in model.buffers()]


def test_masks_come_and_go_with_the_checkpoint(tmp_path):
    def mask_of(model):
        return model.get_submodule("fc1").weight.mask

    plain, thin = perceptron(), perceptron()
    weight = thin.get_submodule("fc1").weight
    weight.mask = np.arange(weight.size).reshape(weight.shape) % 3 == 0
    weight.data *= weight.mask
    for name, model in (("plain", plain), ("thin", thin)):
        save_checkpoint(tmp_path / name, model, adam(model), {})
    there, back = thin.copy(), plain.copy()
    restore_checkpoint(read_checkpoint(tmp_path / "plain"), there, adam(there))
    restore_checkpoint(read_checkpoint(tmp_path / "thin"), back, adam(back))
    assert mask_of(there) is None
    assert bits(there) == bits(plain), "the mask of before took no weight away"
    assert bits(back) == bits(thin)


def test_it_is_a_safetensors_file_that_others_read(trained, file):
    arrays = safetensors.numpy.load_file(file)
    model, optimizer = trained
    assert (
        arrays["model.conv.weight"].tobytes() == model.get_submodule("conv").weight.data.tobytes()
    )
    assert arrays["optimizer.0.exp_avg"].tobytes() == optimizer.state[0]["exp_avg"].tobytes()


# ------------------------------------------------------------------------------- what is not whole


def test_every_cut_is_found(file):
    whole = file.read_bytes()
    for length in {0, 1, 7, 8, 9, *range(0, len(whole), 97), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(
            CheckpointError, match=r"is damaged .*; delete it, or start anew with res"
        ):
            read_checkpoint(file)


def test_every_flipped_bit_is_found(file):
    whole = file.read_bytes()
    for position in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        # A flip in the name of the header's entry makes it look like another kind of file.
        with pytest.raises(CheckpointError, match=r"delete it, or start anew|another kind of file"):
            read_checkpoint(file)


def rewritten(file, change):
    """The file with its JSON changed, checksum and all."""
    from tinycompress.train import checkpoint

    saved = read_checkpoint(file)
    document = {**saved.state, **change}
    text = json.dumps(document)
    metadata = {
        "tinycompress_checkpoint": text,
        "checksum": str(checkpoint.checksum_of(text, saved.arrays)),
    }
    file.write_bytes(safetensors.numpy.save(saved.arrays, metadata))


FOREIGN = {
    "an image": (
        lambda f: f.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000)),
        "another kind of file",
    ),
    "text": (lambda f: f.write_text("epoch 3"), "is damaged"),
    "a header without end": (lambda f: f.write_bytes(struct.pack("<Q", 1 << 60)), "is damaged"),
    "weights": (
        lambda f: safetensors.numpy.save_file({"w": np.ones(3)}, f),
        "another kind of file",
    ),
    "from the future": (
        lambda f: rewritten(f, {"version": 9}),
        "version 9, and this tinycompress reads version 1; install the tinycompress that wrote it",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_something_else(name, file):
    write, message = FOREIGN[name]
    write(file)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(file)
    assert str(caught.value).startswith(str(file))
    assert re.search(
        "start anew with resume=False|give checkpoint= another name", str(caught.value)
    )


def test_files_that_cannot_be_opened_are_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(IsADirectoryError):
        read_checkpoint(tmp_path)


# -------------------------------------------------------------------------------- of another run


def wider():
    return nn.Sequential({"fc1": nn.Linear(36, 20)})


def in_halves(model):
    weights, biases = list(model.parameters())[::2], list(model.parameters())[1::2]
    return optim.Adam([{"params": weights}, {"params": biases}], lr=0.01)


OTHERS = {
    "another model": (wider, adam, "missing: fc1.weight"),
    "another width": (
        lambda: (m := cnn()).set_submodule("fc", nn.Linear(64, 5)) or m,
        adam,
        r"fc.weight: shape \(4, 64\), expected \(5, 64\)",
    ),
    "another precision": (lambda: cnn().to("float64"), adam, "is float32 there and float64 here"),
    "another optimizer": (cnn, lambda m: optim.SGD(m.parameters(), lr=0.1), "parameter group 0: "),
    "other groups": (cnn, in_halves, "1 parameter groups in the state, 2 here"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_of_another_run_changes_nothing(name, file):
    make, optimize, message = OTHERS[name]
    model = make()
    optimizer = optimize(model)
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    optimizer.step()
    before, memory = bits(model), optimizer.state_dict()
    drawn = random.get_state()
    with pytest.raises(CheckpointError, match=message):
        restore_checkpoint(read_checkpoint(file), model, optimizer)
    assert bits(model) == before
    assert repr(optimizer.state_dict()) == repr(memory)
    assert random.get_state() == drawn


# ----------------------------------------------------------------------------- the settings of fit


class Counter(Callback):
    """A callback with something to remember."""

    def __init__(self):
        self.steps = 0

    def on_step_end(self, run):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps} if self.steps else {}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def twice(images, generator):
    return images


class Doubled(tc.train.Supervised):
    pass


SETTINGS = {
    "seed": ({"seed": 1}, "seed: 0 there, 1 here"),
    "batch_size": ({"batch_size": 16}, "batch_size: 32 there, 16 here"),
    "shard_size": ({"shard_size": 16}, "shard_size: 64 there, 16 here"),
    "samples": ({"train": blobs(96)}, "samples: 64 there, 96 here"),
    "clipping": ({"clip_grad_norm": 1.0}, "clip_grad_norm: None there, 1.0 here"),
    "augmentation": ({"augment": twice}, "augment: None there, '<function twice>' here"),
    "objective": (
        {"objective": Doubled()},
        r"objective: 'Supervised\(.*' there, 'Doubled\(.*' here",
    ),
    "optimizer": ({"optimizer": adam}, "optimizer: 'SGD' there, 'Adam' here"),
    "learning rate": (
        {"optimizer": lambda m: optim.SGD(m.parameters(), lr=0.2, momentum=0.9)},
        "lr of parameter group 0: 0.1 there, 0.2 here",
    ),
    "weight decay": (
        {"optimizer": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)},
        "weight_decay of parameter group 0: 0.0 there, 0.01 here",
    ),
    "schedule": (
        {"schedule": lambda o: optim.StepLR(o, 1)},
        "schedule: None there, 'StepLR' here; schedule_every: None there, 'epoch' here",
    ),
    "callbacks": ({"callbacks": [EarlyStopping()]}, r"callbacks: \['Counter'\] there, \['EarlySt"),
}


def run(epochs, optimizer=None, schedule=None, train=None, **options):
    tc.manual_seed(0)
    model = options.pop("model", None) or perceptron()
    optimizer = (optimizer or (lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9)))(model)
    options = {"batch_size": 32, "callbacks": [Counter()]} | options
    planned = schedule and schedule(optimizer)
    return fit(model, train or blobs(64), epochs, optimizer, schedule=planned, **options)


@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_are_refused_by_name(name, tmp_path):
    file, (other, message) = tmp_path / "run.safetensors", SETTINGS[name]
    run(1, checkpoint=file)
    model = perceptron()
    before = bits(model)
    other = {"validate": blobs(32), **other}
    with pytest.raises(CheckpointError, match=rf"belongs to another run \(.*{message}") as caught:
        run(2, model=model, checkpoint=file, resume=True, **other)
    assert "use the same settings, or start anew with resume=False" in str(caught.value)
    assert bits(model) == before


def test_settings_that_change_no_step_may_differ(tmp_path):
    file = tmp_path / "run.safetensors"
    run(1, checkpoint=file, workers=1)
    more = {"validate": blobs(32), "workers": 2, "progress": False, "checkpoint_every": 1}
    counter = Counter()
    history = run(2, checkpoint=file, resume=True, callbacks=[Callback(), counter], **more)
    assert len(history) == 2
    assert counter.steps == 4


def test_a_schedule_that_does_not_fit_changes_nothing(tmp_path):
    file = tmp_path / "run.safetensors"

    def one_cycle(steps):
        return lambda o: optim.OneCycleLR(o, 0.1, total_steps=steps)

    run(2, checkpoint=file, schedule=one_cycle(4))
    model = perceptron()
    before = bits(model)
    with pytest.raises(
        CheckpointError, match=r"run.safetensors cannot be resumed: .*total_steps=2"
    ):
        run(2, model=model, checkpoint=file, resume=True, schedule=one_cycle(2))
    assert bits(model) == before


def test_nor_does_a_model_that_does_not_fit_change_the_schedule(tmp_path):
    file, made = tmp_path / "run.safetensors", []

    def step(optimizer):
        made.append(optim.StepLR(optimizer, 1))
        return made[-1]

    run(2, checkpoint=file, schedule=step)
    model = perceptron()
    model.set_submodule("fc2", nn.Linear(16, 5))
    with pytest.raises(CheckpointError, match=r"fc2.bias: shape \(4,\), expected \(5,\)"):
        run(3, model=model, checkpoint=file, resume=True, schedule=step)
    assert made[-1].last_epoch == 0
    assert made[-1].get_last_lr() == [0.1]


def test_a_longer_schedule_holds_from_the_resume_on(tmp_path):
    """At the end of a cosine of two epochs the rate is 0, in the middle of four it is not."""
    file = tmp_path / "run.safetensors"
    run(2, checkpoint=file, schedule=lambda o: optim.CosineAnnealingLR(o, 2))
    options = {"checkpoint": file, "resume": True}
    history = run(4, schedule=lambda o: optim.CosineAnnealingLR(o, 4), **options)
    assert [e.lr for e in history][2] == pytest.approx(0.05)


def test_resume_without_a_file_is_a_start(tmp_path):
    history = run(1, checkpoint=tmp_path / "run.safetensors", resume=True)
    assert len(history) == 1
    assert (tmp_path / "run.safetensors").exists()


def test_without_resume_a_file_is_replaced(tmp_path):
    file = tmp_path / "run.safetensors"
    run(1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    run(1, checkpoint=file)
    assert read_checkpoint(file).state["epoch"] == 1


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", ["a model", "weights", "an image"])
def test_a_file_of_another_kind_is_never_replaced(kind, resume, tmp_path):
    file = tmp_path / "keep"
    if kind == "a model":
        tc.save(tc.models.TinyCNN(), file)
    else:
        FOREIGN[kind][0](file)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match="another kind of file; give checkpoint= another"):
        run(1, checkpoint=file, resume=resume)
    assert file.read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_run_that_cannot_write_keeps_the_checkpoint_of_before(step, tmp_path, monkeypatch):
    file = tmp_path / "run.safetensors"
    saves = []

    class DiskFull(Callback):
        def on_epoch_end(self, run):
            if run.epoch == 2:
                saves.append(file.read_bytes())
                monkeypatch.setattr(os, step, lambda *args: (_ for _ in ()).throw(OSError("full")))

    with pytest.raises(OSError, match="full"):
        run(3, checkpoint=file, callbacks=[DiskFull()])
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]
    assert file.read_bytes() == saves[0]
    assert read_checkpoint(file).state["epoch"] == 1
