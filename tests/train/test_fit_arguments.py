"""``fit`` looks at every argument before it changes anything, and names what does not fit."""

import os

import numpy as np
import pytest
from problems import bits, blobs, perceptron

from tinycompress import functional as F, optim
from tinycompress.data import Dataset
from tinycompress.train import EarlyStopping, Supervised, fit

DATA = blobs(64)
REGRESSION = Dataset(DATA.images, DATA.images[:, 0, 0])


def sgd(model, **options):
    return optim.SGD(model.parameters(), lr=0.1, **options)


def plateau(model):
    optimizer = sgd(model)
    return {"optimizer": optimizer, "schedule": optim.ReduceLROnPlateau(optimizer)}


# What is given (a function of the model), and what the message says.
BAD = {
    "model: a class": (
        lambda m: {"model": type(m)},
        "model must be an nn.Module, got the class Seq",
    ),
    "model: an array": (
        lambda m: {"model": DATA.images},
        "model must be an nn.Module, got ndarray",
    ),
    "train: an array": (
        lambda m: {"train": DATA.images},
        "train must be a tc.data.Dataset, got nd",
    ),
    "train: a tuple": (
        lambda m: {"train": DATA.arrays},
        "train must be a tc.data.Dataset, got tup",
    ),
    "epochs: none": (lambda m: {"epochs": 0}, "epochs must be an integer ≥ 1, got 0"),
    "epochs: half": (lambda m: {"epochs": 1.5}, "epochs must be an integer, got 1.5"),
    "epochs: True": (lambda m: {"epochs": True}, "epochs must be an integer, got True"),
    "optimizer: a class": (
        lambda m: {"optimizer": optim.SGD},
        "optimizer must be an optim.Optimizer, got the class SGD",
    ),
    "optimizer: a name": (lambda m: {"optimizer": "sgd"}, "optimizer must be .* got str"),
    "optimizer: of a copy": (
        lambda m: {"optimizer": sgd(m.copy())},
        "holds none of the model's parameters; make it from this model's",
    ),
    "optimizer: of both": (
        lambda m: {"optimizer": optim.SGD([*m.parameters(), *perceptron().parameters()])},
        "holds 4 that are not of the model's parameters",
    ),
    "all frozen": (
        lambda m: {"optimizer": sgd(m.requires_grad_(False))},
        "every parameter of the optimizer is frozen",
    ),
    "validate: an array": (
        lambda m: {"validate": DATA.images},
        "validate must be a tc.data.Dataset",
    ),
    "validate: no labels": (lambda m: {"validate": Dataset(DATA.images)}, "has no labels"),
    "validate: a regression without criterion": (
        lambda m: {"validate": REGRESSION, "objective": lambda m, x, y: None},
        r"validate needs labels that are class numbers, or objective=Supervised\(criterion\)",
    ),
    "batch_size: none": (lambda m: {"batch_size": 0}, "batch_size must be an integer ≥ 1, got 0"),
    "batch_size: half": (lambda m: {"batch_size": 12.5}, "batch_size must be an integer, got 12.5"),
    "shard_size: none": (lambda m: {"shard_size": 0}, "shard_size must be an integer ≥ 1, got 0"),
    "seed: negative": (lambda m: {"seed": -1}, "seed must be an integer ≥ 0, got -1"),
    "seed: None": (lambda m: {"seed": None}, "seed must be an integer, got None"),
    "workers: none": (
        lambda m: {"workers": 0},
        'workers must be a whole number ≥ 1, "auto" or None, got 0',
    ),
    "objective: a class": (
        lambda m: {"objective": Supervised},
        "objective must be .* the class Sup",
    ),
    "objective: a number": (lambda m: {"objective": 3}, "objective must be a function"),
    "objective: a loss": (
        lambda m: {"objective": F.cross_entropy},
        r"got the loss cross_entropy; write objective=Supervised\(F.cross_entropy\)",
    ),
    "augment: a number": (lambda m: {"augment": 3}, "augment must be a function"),
    "clip_grad_norm: zero": (
        lambda m: {"clip_grad_norm": 0},
        "clip_grad_norm must be .* > 0, got 0",
    ),
    "clip_grad_norm: text": (lambda m: {"clip_grad_norm": "1"}, "clip_grad_norm must be a number"),
    "callbacks: a class": (
        lambda m: {"callbacks": [EarlyStopping]},
        r"callbacks\[0\] must be a train.Callback, got the class EarlyStopping",
    ),
    "callbacks: a function": (
        lambda m: {"callbacks": [print]},
        r"callbacks\[0\] must be .* builtin",
    ),
    "schedule: a class": (
        lambda m: {"schedule": optim.StepLR},
        "schedule must be .* the class StepLR",
    ),
    "schedule: a function": (lambda m: {"schedule": print}, "schedule must be an optim schedule"),
    "schedule: of another optimizer": (
        lambda m: {"schedule": optim.StepLR(sgd(m), 1)},
        "the schedule was made for another optimizer",
    ),
    "schedule: a plateau each step": (
        lambda m: {**plateau(m), "schedule_every": "step"},
        'ReduceLROnPlateau watches the loss of an epoch; use schedule_every="epoch"',
    ),
    "schedule_every: a word": (
        lambda m: {"schedule_every": "batch"},
        "schedule_every must be one of 'auto', 'step', 'epoch', got 'batch'",
    ),
    "checkpoint: no folder": (
        lambda m: {"checkpoint": "gone/run.safetensors"},
        "cannot write gone/run.safetensors: the folder .* does not exist",
    ),
    "checkpoint: a folder": (lambda m: {"checkpoint": "."}, "not an ordinary file"),
    "checkpoint_every: alone": (
        lambda m: {"checkpoint_every": 5},
        "checkpoint_every needs checkpoint=",
    ),
    "checkpoint_every: none": (
        lambda m: {"checkpoint": "run.safetensors", "checkpoint_every": 0},
        "checkpoint_every must be an integer ≥ 1, got 0",
    ),
    "resume: alone": (lambda m: {"resume": True}, "resume=True needs checkpoint="),
    "labels beyond the classes": (
        lambda m: {"train": blobs(64, classes=6)},
        "labels must be in 0 … 3 for 4 classes",
    ),
    "images of another size": (
        lambda m: {"train": Dataset(DATA.images[:, :, 1:], DATA.labels)},
        "in_features = 36",
    ),
    "images of another dtype": (
        lambda m: {"train": Dataset(DATA.images.astype(np.float64), DATA.labels)},
        "float64",
    ),
    "one array too few": (
        lambda m: {"train": Dataset(DATA.images)},
        "missing 1 .*argument: 'labels'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named_and_nothing_is_changed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = BAD[name]
    model = perceptron()
    before = bits(model)
    arguments = {"model": model, "train": DATA, "epochs": 1, **make(model)}
    with pytest.raises((TypeError, ValueError, OSError, AttributeError), match=message):
        fit(**arguments)
    assert bits(model) == before
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != tmp_path
    )  # root may write anywhere
    model = perceptron()
    with pytest.raises(PermissionError, match=r"the folder .* of checkpoint cannot be written to"):
        fit(model, DATA, 1, sgd(model), checkpoint=tmp_path / "run.safetensors")


def test_numbers_of_numpy_are_numbers():
    model = perceptron()
    options = {"batch_size": np.int64(32), "seed": np.int32(1), "clip_grad_norm": np.float32(1)}
    assert len(fit(model, DATA, np.int64(1), sgd(model), **options)) == 1
