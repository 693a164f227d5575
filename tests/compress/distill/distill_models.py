"""A small problem, a teacher and a student, and how two models are compared to the bit."""

import numpy as np

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.data import Dataset

CLASSES = 5


def blobs(n=256, seed=1, noise=0.4):
    """Images of one of five patterns, with noise."""
    patterns = np.random.default_rng(0).random((CLASSES, 1, 6, 6))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    images = patterns[labels] + rng.normal(0, noise, (n, 1, 6, 6))
    return Dataset(images.astype(np.float32), labels, name="blobs")


def teacher_net():
    """Wide, with dropout and batch norm: what it answers depends on its mode."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 8, 3),  # (N, 1, 6, 6) -> (N, 8, 4, 4)
            "norm": nn.BatchNorm2d(8),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),  # -> (N, 8, 2, 2)
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(32, 24),
            "relu2": nn.ReLU(),
            "drop": nn.Dropout(0.3),
            "fc2": nn.Linear(24, CLASSES),
        }
    )


def student_net():
    """Narrow, with other shapes everywhere, batch norm and dropout too."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 3, 3),  # (N, 1, 6, 6) -> (N, 3, 4, 4)
            "norm": nn.BatchNorm2d(3),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "drop": nn.Dropout(0.1),
            "fc": nn.Linear(48, CLASSES),
        }
    )


def plain_student():
    """Without batch norm and dropout, as quantization to integers wants it."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 3, 3),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(48, CLASSES),
        }
    )


def bits(model):
    """Every parameter, buffer and mask as bytes, by name."""
    state = {name: to_numpy(array).tobytes() for name, array in model.state_dict().items()}
    for name, p in model.named_parameters():
        if p.mask is not None:
            state[f"mask of {name}"] = to_numpy(p.mask).tobytes()
    return state
