"""Layers and models whose weights are shared in these tests."""

import numpy as np

import tinycompress as tc
from tinycompress import nn
from tinycompress.backend import to_numpy
from tinycompress.data import Dataset

LAYERS = {
    "linear": lambda: nn.Linear(7, 3),
    "no bias": lambda: nn.Linear(7, 3, bias=False),
    "conv": lambda: nn.Conv2d(2, 4, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 6, (3, 1), stride=(2, 1), groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, dilation=2, groups=4, bias=False),
}


def layer_and_input(name, device="cpu", seed=0):
    """(float layer, an input)."""
    tc.manual_seed(seed)
    layer = LAYERS[name]().to(device)
    shape = (2, 7) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 7, 7)
    return layer, tc.tensor(np.random.default_rng(0).normal(size=shape).astype("f"), device=device)


@tc.register
class Mixed(nn.Module):
    """Layers of every kind, one used twice, two with the same weights, one in a container."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.conv2
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight, self.tied.bias = self.conv2.weight, self.conv2.bias
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 6 * 6, 5))

    def forward(self, x):
        x = self.norm(self.conv1(x))
        return self.head(self.tied(self.again(self.conv2(x)).relu()))


def mixed():
    """(model, images)."""
    tc.manual_seed(0)
    return Mixed(), np.random.default_rng(0).random((6, 1, 8, 8)).astype("f")


def small():
    """A network that learns the sample in seconds."""
    tc.manual_seed(0)
    return tc.models.TinyCNN()


def blobs(n=120, seed=1, classes=4, noise=0.3):
    """Images (N, 1, 6, 6) of one of four patterns, with noise."""
    patterns = np.random.default_rng(0).random((classes, 1, 6, 6))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = patterns[labels] + rng.normal(0, noise, (n, 1, 6, 6))
    return Dataset(images.astype(np.float32), labels, name="blobs")


def network(seed=0):
    """For blobs: everything that draws random numbers or keeps statistics while it trains."""
    tc.manual_seed(seed)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3),  # (N, 1, 6, 6) -> (N, 4, 4, 4)
            "norm": nn.BatchNorm2d(4),
            "relu1": nn.ReLU(),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(0.1),
            "fc1": nn.Linear(64, 12),
            "relu2": nn.ReLU(),
            "fc2": nn.Linear(12, 4),
        }
    )


def shared_network(bits=3, sparsity=0.5):
    """A pruned network for blobs, trained a little, with shared weights."""
    model = tc.prune(network(), sparsity)
    tc.fit(model, blobs(), 2, tc.optim.SGD(model.parameters(), lr=0.05), workers=1)
    return tc.share_weights(model, bits)


def bytes_of(model):
    """Parameters and buffers as bytes, by name."""
    return {name: to_numpy(array).tobytes() for name, array in model.state_dict().items()}
