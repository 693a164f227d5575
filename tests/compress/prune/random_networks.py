"""Networks drawn at random: branches, sums, concatenations, grouped and depthwise convolutions."""

import numpy as np

import tinycompress as tc
from tinycompress import nn

ZERO_STAYS_ZERO = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Identity, nn.Dropout)
SIDE = 6


class RandomNetwork(nn.Module):
    """A network of its own: steps are (layer's number or operation, where its inputs stand).

    Args:
        seed: of everything that is drawn.
        mode: "plain"; "even": convolutions do not pad, and 0 may become something else on the way
            (Sigmoid, batch norm without factors); "shared": some layers are called twice, and
            channels are multiplied by gates made of them.
    """

    def __init__(self, seed: int, mode: str = "plain"):
        super().__init__()
        self.seed, self.mode, self.even = seed, mode, mode == "even"
        self.rng = np.random.default_rng(seed)
        self.layers = nn.ModuleList()
        self.steps: list[tuple] = []
        self.channels = [2]  # of each tensor
        for _ in range(self.rng.integers(4, 12)):
            getattr(
                self, self.rng.choice(["conv", "conv", "norm", "change", "add", "cat", "pool"])
            )()
        self.head()

    def config(self):
        return {"seed": self.seed, "mode": self.mode}

    # ------------------------------------------------------------------------------ growing

    def step(self, what, inputs, channels):
        if isinstance(what, nn.Module):
            self.layers.append(what)
            what = len(self.layers) - 1
        self.steps.append((what, inputs))
        self.channels.append(channels)
        return len(self.channels) - 1

    def any(self):
        """The last tensor, mostly."""
        n = len(self.channels)
        return n - 1 if self.rng.random() < 0.7 else int(self.rng.integers(n))

    def conv(self, x=None, out=None):
        x = self.any() if x is None else x
        C = self.channels[x]
        groups = int(self.rng.choice([g for g in (1, 1, 2, 3, C) if C % g == 0]))
        out = out or groups * int(self.rng.integers(1, 5))
        if out % groups:
            groups = 1
        k = 1 if self.even else int(self.rng.choice([1, 3]))
        bias = bool(self.rng.random() < 0.7)
        return self.step(nn.Conv2d(C, out, k, padding=k // 2, groups=groups, bias=bias), [x], out)

    def norm(self):
        x = self.any()
        affine = not self.even or bool(self.rng.random() < 0.5)
        layer = nn.BatchNorm2d(self.channels[x], affine=affine)
        return self.step(self.trained(layer), [x], self.channels[x])

    def trained(self, layer):
        n = layer.num_features
        layer.running_mean[...] = self.rng.normal(size=n)
        layer.running_var[...] = self.rng.uniform(0.2, 2, n)
        if layer.weight is not None:
            layer.weight.data[...] = self.rng.normal(size=n)
            layer.bias.data[...] = self.rng.normal(size=n)
        return layer

    def change(self):
        x = self.any()
        kinds = (*ZERO_STAYS_ZERO, nn.Sigmoid, nn.Sigmoid) if self.even else ZERO_STAYS_ZERO
        return self.step(kinds[self.rng.integers(len(kinds))](), [x], self.channels[x])

    def pool(self):
        x = self.any()
        padding = 0 if self.even else 1
        kinds = (nn.MaxPool2d, nn.AvgPool2d)
        layer = kinds[self.rng.integers(2)](1 + 2 * padding, stride=1, padding=padding)
        return self.step(layer, [x], self.channels[x])

    def add(self):
        """To any tensor, what a convolution makes of another one."""
        a, b = self.any(), self.any()
        if self.channels[a] != self.channels[b] or a == b:
            b = self.conv(b, self.channels[a])
        how = nn.Add() if self.rng.random() < 0.5 else "add"
        return self.step(how, [a, b], self.channels[a])

    def cat(self):
        parts = [self.any() for _ in range(self.rng.integers(2, 4))]
        how = nn.Concat() if self.rng.random() < 0.5 else "cat"
        return self.step(how, parts, sum(self.channels[p] for p in parts))

    def twice(self):
        """A convolution of its own output."""
        x = self.any()
        y = self.conv(x, self.channels[x])
        return self.step(self.steps[-1][0], [y], self.channels[y])

    def gate(self):
        x = self.any()
        return self.step("gate", [x], self.channels[x])

    def head(self):
        x = len(self.channels) - 1
        if self.rng.random() < 0.5:
            x = self.step("flatten" if self.rng.random() < 0.5 else nn.Flatten(), [x], 0)
            size = self.channels[x - 1] * SIDE * SIDE
        else:
            x = self.step("mean", [x], 0)
            size = self.channels[x - 1]
        hidden = int(self.rng.integers(2, 9))
        x = self.step(nn.Linear(size, hidden), [x], hidden)
        if self.rng.random() < 0.5:
            x = self.step(self.trained(nn.BatchNorm1d(hidden)), [x], hidden)
        x = self.step(nn.ReLU(), [x], hidden)
        self.step(nn.Linear(hidden, 3), [x], 3)

    # ------------------------------------------------------------------------------ computing

    def forget_dead_ends(self):
        """Run no step whose tensor leads nowhere; its layer is then never called."""
        needed = {len(self.steps)}
        for number in range(len(self.steps), 0, -1):
            if number in needed:
                needed |= set(self.steps[number - 1][1])
            else:
                self.steps[number - 1] = "nothing", []
        return self

    def forward(self, x):
        tensors = [x]
        for what, inputs in self.steps:
            given = [tensors[i] for i in inputs]
            if what == "nothing":
                y = None
            elif what == "add":
                y = given[0] + given[1]
            elif what == "cat":
                y = tc.cat(given, axis=1)
            elif what == "gate":
                y = given[0] * given[0].mean(axis=(2, 3), keepdim=True).sigmoid()
            elif what == "flatten":
                y = given[0].reshape(len(given[0]), -1)
            elif what == "mean":
                y = given[0].mean(axis=(2, 3))
            else:
                y = self.layers[what](*given)
            tensors.append(y)
        return tensors[-1]


def images(device="cpu", dtype=np.float64):
    x = np.random.default_rng(3).normal(size=(4, 2, SIDE, SIDE)).astype(dtype)
    return tc.tensor(x, device=device)
