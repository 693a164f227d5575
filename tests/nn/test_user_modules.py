"""Networks as a user writes them: subclasses of Module that learn."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.backend import to_device, to_numpy


class Residual(nn.Module):
    """``relu(x + f(x))``, with a convolution on the way past where channels differ."""

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.past = None
        if channels_in != channels_out or stride != 1:
            self.past = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + (x if self.past is None else self.past(x)))


class SmallResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Residual(4, 4), Residual(4, 8, stride=2)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 3)
        self.temperature = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(x).flatten(1)) / self.temperature


class NormedPerceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x))


def patterns(n=48):
    """Three kinds of image: a bar at the top, a bar at the left, a spot; with noise."""
    rng = np.random.default_rng(4)
    labels = np.arange(n) % 3
    x = rng.normal(scale=0.3, size=(n, 1, 8, 8)).astype(np.float32)
    x[labels == 0, :, :2] += 1
    x[labels == 1, :, :, :2] += 1
    x[labels == 2, :, 3:6, 3:6] += 1
    return x, labels


def train(net, steps, where):
    x, labels = (to_device(a, where) for a in patterns())
    optimizer = optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", [SmallResNet, NormedPerceptron])
def test_it_learns(kind, device):
    net = kind().to(device)
    before = {name: to_numpy(a) for name, a in net.state_dict().items()}
    losses = train(net, 15, device)
    assert losses[-1] < 0.4 * losses[0]
    moved = {name for name, a in net.state_dict().items() if (to_numpy(a) != before[name]).any()}
    assert moved == set(before)  # every parameter and every running statistic
    x, labels = patterns(60)
    predicted = to_numpy(net.eval()(to_device(x, device)).data).argmax(1)
    assert (predicted == labels).mean() > 0.9


def test_the_residual_adds_what_goes_past():
    block = Residual(4, 4).eval()
    block.conv2.weight.data[...] = 0
    x = np.random.default_rng(0).random((2, 4, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(block(x).data, x, rtol=1e-6)


def test_it_is_summarised_saved_copied_and_loaded(tmp_path):
    net = SmallResNet()
    train(net, 2, "cpu")
    s = tc.summary(net, (1, 8, 8))
    assert s.parameters == sum(p.size for p in net.parameters())
    nn.save_safetensors(net, tmp_path / "net.safetensors")
    other = SmallResNet()
    nn.load_safetensors(other, tmp_path / "net.safetensors")
    x, _ = patterns()
    expected = net.eval()(x).data
    np.testing.assert_array_equal(other.eval()(x).data, expected)
    np.testing.assert_array_equal(net.copy()(x).data, expected)


@pytest.mark.torch
def test_a_whole_run_of_training_equals_torchs():
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.Flatten(),
                torch.nn.Linear(64, 16),
                torch.nn.BatchNorm1d(16),
                torch.nn.ReLU(),
                torch.nn.Identity(),
            )
            self.head = torch.nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.body(x))

    ours, theirs = NormedPerceptron().to("float64"), Theirs().double()
    ours.body[4].eval()  # dropout draws other numbers than torch's
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    x, labels = patterns()
    x = x.astype(np.float64)
    mine = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(10):
        mine.zero_grad(), other.zero_grad()
        loss = F.cross_entropy(ours(x), labels)
        expected = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(x)), torch.from_numpy(labels)
        )
        loss.backward(), expected.backward()
        mine.step(), other.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, theirs.state_dict()[name].numpy(), rtol=1e-7, atol=1e-9)
