"""Small problems to train on, and how two models are compared to the bit."""

import threading

import numpy as np
from threadpoolctl import threadpool_info

from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.data import Dataset


def blobs(n=200, seed=1, classes=4, noise=0.3):
    """Images (N, 1, 6, 6) of one of four patterns, with noise."""
    patterns = np.random.default_rng(0).random((classes, 1, 6, 6))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = patterns[labels] + rng.normal(0, noise, (n, 1, 6, 6))
    return Dataset(images.astype(np.float32), labels, name="blobs")


def perceptron():
    return nn.Sequential(
        {
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(36, 16),
            "relu": nn.ReLU(),
            "fc2": nn.Linear(16, 4),
        }
    )


def cnn():
    """Everything that draws random numbers or keeps statistics while it trains."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3),  # (N, 1, 6, 6) -> (N, 4, 4, 4)
            "norm": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.3),
            "fc": nn.Linear(64, 4),
        }
    )


def bits(model):
    """Every parameter, buffer and mask as bytes, by name."""
    state = {name: to_numpy(array).tobytes() for name, array in model.state_dict().items()}
    for name, p in model.named_parameters():
        if p.mask is not None:
            state[f"mask of {name}"] = to_numpy(p.mask).tobytes()
    return state


def figures(history):
    """A history without its times, which no two runs share."""
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in e.items() if k not in timed} for e in history.to_list()]


def alive():
    """The names of the threads of any ``Workers`` that are still there."""
    return [t.name for t in threading.enumerate() if t.name.startswith("tinycompress")]


def blas_threads():
    """How many threads NumPy's BLAS may use now (others, such as scipy's, may be loaded too)."""
    found = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    numpys = [lib for lib in found if "numpy" in lib["filepath"]] or found
    return {lib["num_threads"] for lib in numpys}
