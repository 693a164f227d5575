"""Small models of every kind that a file can hold."""

import numpy as np

from tinycompress import models, nn
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.compress.share import round_to_half, share_weights


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def with_mask(model: nn.Module, sparsity: float = 0.75) -> nn.Module:
    """Prune the weights of every linear and convolutional layer, the smallest first."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            w = layer.weight
            order = np.argsort(np.abs(w.data).ravel(), kind="stable")
            mask = np.ones(w.data.size, bool)
            mask[order[: round(sparsity * w.data.size)]] = False
            w.mask = mask.reshape(w.shape)
            w.data[~w.mask] = 0
    return model


def trained_batch_norm() -> nn.Module:
    model = nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 3, 3, stride=(2, 1), padding=1, bias=False),
            "bn1": nn.BatchNorm2d(3, eps=1e-3),
            "relu1": nn.LeakyReLU(0.2),
            "pool": nn.AdaptiveAvgPool2d(2),
            "flatten": nn.Flatten(),
            "norm": nn.LayerNorm(12),
            "drop out": nn.Dropout(0.3),
            "fc": nn.Linear(12, 2),
        }
    )
    model(np.random.default_rng(1).normal(size=(4, 1, 6, 6)).astype(np.float32))
    return model


def nested() -> nn.Module:
    branch = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    return nn.Sequential({"flatten": nn.Flatten(), "branch": branch, "tail": nn.Linear(6, 1)})


def shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def integers() -> nn.Module:
    """A pruned convolution, a ReLU, a pool and a linear layer, all in codes of 4 and 6 bits."""
    images = np.random.default_rng(1).normal(size=(8, 1, 5, 5)).astype(np.float32)
    layers = [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)]
    return quantize(with_mask(nn.Sequential(*layers)), QuantConfig(4, activations=6), images)


def with_strokes(model: nn.Module) -> nn.Module:
    """Keep the weights of every other output along a few lines, as those of an image."""
    rng = np.random.default_rng(2)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            w = layer.weight
            w.mask = np.zeros(w.shape, bool)
            for row in w.mask[::2]:
                for start in rng.integers(0, row.size, 3):
                    row[start : start + 6] = True
            w.data[~w.mask] = 0
    return model


def with_a_mask_of_its_own() -> nn.Module:
    """A mask that also keeps weights that happen to be 0."""
    model = with_strokes(nn.Sequential(nn.Linear(100, 40, bias=False)))
    model[0].weight.data[:, 50:] = 0
    return model


SAMPLES = {
    "small": small,
    "pruned": lambda: with_mask(small()),
    "8-bit": lambda: quantize(small(), QuantConfig(bits=8)),
    "3-bit affine": lambda: quantize(small(), QuantConfig(bits=3, scheme="affine")),
    "pruned and quantized": lambda: quantize(with_mask(small()), QuantConfig(bits=4)),
    "integers": integers,
    "shared codes": lambda: share_weights(with_mask(models.create("tiny-cnn"), 0.9), bits=3),
    "shared codes in halves": lambda: round_to_half(share_weights(with_strokes(small()), bits=2)),
    "strokes": lambda: with_strokes(models.create("tiny-cnn")),
    "strokes in codes": lambda: share_weights(with_strokes(models.create("tiny-cnn")), bits=4),
    "a mask of its own": with_a_mask_of_its_own,
    "halves": lambda: round_to_half(models.create("tiny-cnn")),
    "float64": lambda: small().to("float64"),
    "float16": lambda: small().to("float16"),
    "batch norm": trained_batch_norm,
    "nested": nested,
    "shared": shared,
    "list": lambda: nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.ModuleList()]),
    "one layer": lambda: nn.Linear(3, 2, bias=False),
    "no tensors": lambda: nn.Sequential(nn.Flatten(), nn.ReLU()),
    "empty": nn.Sequential,
    "tiny-cnn": lambda: models.create("tiny-cnn", width=2),
    "tiny-cnn pruned": lambda: with_mask(models.create("tiny-cnn", width=3)),
    "tiny-cnn 2-bit": lambda: quantize(models.create("tiny-cnn"), QuantConfig(bits=2)),
}


def assert_same_model(a: nn.Module, b: nn.Module) -> None:
    """The same layers, configs and masks, and the same tensors to the bit."""
    layers = [[(name, type(m), m.config()) for name, m in x.named_modules()] for x in (a, b)]
    assert layers[0] == layers[1]
    first, second = a.state_dict(), b.state_dict()
    assert list(first) == list(second)
    for name, x in first.items():
        y = second[name]
        assert (x.dtype, x.shape) == (y.dtype, y.shape), name
        assert x.tobytes() == y.tobytes(), name
    for (name, p), (_, q) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert (p.mask is None) == (q.mask is None), name
        np.testing.assert_array_equal(p.mask, q.mask, err_msg=name)
