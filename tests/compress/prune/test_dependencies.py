"""Which channels hang together: by labels, and by changing one channel and looking who notices."""

import numpy as np
import pytest
from random_networks import RandomNetwork, images

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune.dependencies import follow
from tinycompress.compress.prune.labels import Labels, compact
from tinycompress.compress.quantize.replacing import replace_layers
from tinycompress.nn import evaluation_mode
from tinycompress.tensor import apply

WITH_WEIGHTS = (nn.Conv2d, nn.Linear)


# ------------------------------------------------------------------------------- the brute force


class Wiring:
    """Every layer with weights gives out what it gave out before, but for one channel."""

    def __init__(self, model, x):
        self.model, self.x = model.copy(), to_numpy(x.data)
        self.layers = {n: m for n, m in self.model.named_modules() if isinstance(m, WITH_WEIGHTS)}
        self.before: dict[str, np.ndarray] = {}
        self.inputs: dict[str, np.ndarray] = {}
        for name, layer in self.layers.items():
            layer.register_forward_hook(lambda m, i, o, n=name: self.hook(n, i, o))
        self.start = self.run(self.x), dict(self.inputs)
        self.rng = np.random.default_rng(0)

    def hook(self, name, inputs, output):
        self.inputs[name] = to_numpy(inputs[0].data)
        return tc.tensor(self.before.setdefault(name, to_numpy(output.data).copy()))

    def run(self, x):
        with evaluation_mode(self.model), tc.no_grad():
            return to_numpy(self.model(tc.tensor(x)).data)

    def readers(self, name, channel):
        """(layer, input channel) for all that notice a change of one output channel."""
        kept = self.before[name]
        self.before[name] = kept.copy()
        noise = self.rng.normal(size=kept[:, channel].shape)
        self.before[name][:, channel] += noise
        output = self.run(self.x)
        self.before[name] = kept
        return self.noticed(output)

    def readers_of_the_input(self):
        return self.noticed(self.run(self.x + self.rng.normal(size=self.x.shape)))

    def noticed(self, output):
        before, inputs = self.start
        changed = {n: x != inputs[n] for n, x in self.inputs.items()}
        found = [
            (n, "in", c)
            for n, x in changed.items()
            for c in np.flatnonzero(x.any(axis=tuple(i for i in range(x.ndim) if i != 1)))
        ]
        return found + ["output"] * bool((output != before).any())


def groups_by_hand(model, x):
    """Sets of (layer, "out", channel), (layer, "in", channel), "input" and "output"."""
    wiring = Wiring(model, x)
    edges = [("input", other) for other in wiring.readers_of_the_input()]
    for name, layer in wiring.layers.items():
        if name not in wiring.before:
            continue
        outputs = len(layer.weight.data)
        for channel in range(outputs):
            edges += [((name, "out", channel), r) for r in wiring.readers(name, channel)]
        edges += ties_of_groups(name, layer)
    return components(edges)


def ties_of_groups(name, layer):
    """In a grouped convolution."""
    groups = getattr(layer, "groups", 1)
    ins, outs = (
        np.arange(n).reshape(groups, -1)
        for n in (layer.weight.shape[1] * groups, layer.weight.shape[0])
    )
    if groups > 1 and 1 in (ins.shape[1], outs.shape[1]):  # each group as a whole
        for i, o in zip(ins, outs, strict=True):
            yield from (((name, "in", i[0]), (name, "in", other)) for other in i)
            yield from (((name, "in", i[0]), (name, "out", other)) for other in o)
    for kind, numbers in (("in", ins), ("out", outs)):
        if groups > 1 and 1 not in (ins.shape[1], outs.shape[1]):  # the same of each group
            for first, *others in numbers.T:
                yield from (((name, kind, first), (name, kind, other)) for other in others)


def components(edges):
    groups: list[set] = []
    for edge in edges:
        touched = [g for g in groups if g & set(edge)]
        groups = [g for g in groups if not g & set(edge)] + [set(edge).union(*touched)]
    return groups


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_those_that_one_finds_by_changing_one_channel(seed):
    model = RandomNetwork(seed).to("float64").forget_dead_ends()
    relus = {id(m): nn.LeakyReLU() for m in model.modules() if isinstance(m, nn.ReLU)}
    replace_layers(model, relus)  # behind which no change is hidden
    found, _ = follow(model, images())
    by_hand = groups_by_hand(model, images())
    end = {place for g in by_hand if g & {"input", "output"} for place in g}
    number = {p: "end" if p in end else k for k, g in enumerate(by_hand) for p in g}
    pairs = {
        ("end" if label in found.fixed else label, number[name, "out", channel])
        for name, own in found.outputs().items()
        for channel, label in enumerate(own.tolist())
    }
    assert len({label for label, _ in pairs}) == len(pairs) == len({k for _, k in pairs})
    assert all((label == "end") == (k == "end") for label, k in pairs)
    assert found.problems == {}


# ------------------------------------------------------------------------------------- by hand


def places(model, sample):
    """(array, axis) → how often each label of it occurs in the model: small nets, to read."""
    found, _ = follow(model, sample)
    return {(a.name, a.number): a.labels.tolist() for a in found.axes}


def test_a_flattened_channel_is_a_block_of_columns():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4, 3))
    found = places(model, np.zeros((1, 1, 4, 4), "f"))
    a, b = found["0.weight", 0]
    assert a != b
    assert found["2.weight", 1] == [a] * 4 + [b] * 4
    assert found["0.bias", 0] == [a, b]


def test_a_depthwise_convolution_ties_what_goes_in_and_out():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1, groups=2), nn.Conv2d(4, 1, 1))
    found = places(model, np.zeros((1, 1, 4, 4), "f"))
    a, b = found["0.weight", 0]
    assert found["1.weight", 0] == [a, a, b, b] == found["2.weight", 1]


def test_groups_of_a_convolution_stay_alike():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 1, 1))
    found = places(model, np.zeros((1, 1, 4, 4), "f"))
    a, b, *rest = found["0.weight", 0]
    assert rest == [a, b] == found["1.weight", 1]
    p, q, r, *rest = found["1.weight", 0]
    assert rest == [p, q, r]
    assert len({a, b, p, q, r}) == 5


class Own(nn.Module):
    """A convolution, something of one's own, and another one."""

    def __init__(self, between, channels=6, other=None):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 3, 1)
        self.between, self.other = between, other
        self.scale = nn.Parameter(np.ones((1, 6, 1, 1), "f"))

    def forward(self, x):
        return self.conv2(self.between(self, self.conv1(x)))


FOLLOWED = {
    "padding": lambda m, y: y.pad([(0, 0), (0, 0), (1, 1), (2, 0)]),
    "numbers": lambda m, y: (2 * y - 1) / 3,
    "a mean over the image": lambda m, y: y - y.mean(axis=(2, 3), keepdim=True),
    "another order of axes": lambda m, y: y.permute(2, 3, 0, 1).permute(2, 3, 0, 1),
    "a sum with itself": lambda m, y: y + y.relu(),
    "an index of pixels": lambda m, y: y[:, :, 1:, :-1],
    "softmax over the image": lambda m, y: y.reshape(*y.shape[:2], -1).softmax(-1).reshape(y.shape),
    "channels in reverse": lambda m, y: y[:, ::-1],
    "squeeze and excitation": lambda m, y: y * y.mean(axis=(2, 3), keepdim=True).sigmoid(),
    "a batch's own statistics": lambda m, y: F.batch_norm(y, training=True),
    "clone, copies of another type": lambda m, y: y.clone().to("float64").to("float32"),
    "where": lambda m, y: tc.where(np.ones(y.shape[2:], bool), y, 0.0),
    "layer norm of each image": lambda m, y: F.layer_norm(y, y.shape[2:]),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_a_forward_may_do(name):
    labels = places(Own(FOLLOWED[name]), np.zeros((1, 2, 5, 5), "f"))
    made = labels["conv1.weight", 0]
    assert len(set(made)) == 6
    assert sorted(labels["conv2.weight", 1]) == sorted(made)
    assert follow(Own(FOLLOWED[name]), np.zeros((1, 2, 5, 5), "f"))[0].problems == {}


REFUSED = {
    "softmax": lambda m, y: y.softmax(1),
    "mean": lambda m, y: y * y.mean(axis=1, keepdim=True),
    "layer_norm": lambda m, y: F.layer_norm(y, y.shape[1:]),
    "matmul": lambda m, y: (y.permute(0, 2, 3, 1) @ np.eye(6, dtype="f")).permute(0, 3, 1, 2),
    "getitem": lambda m, y: tc.cat([y[:, :3], y[:, :3]], 1),
    "add": lambda m, y: y + np.ones((1, 6, 1, 1), "f"),
    "multiply": lambda m, y: y * m.scale,
    "conv2d": lambda m, y: F.conv2d(y, m.conv2.weight.data.copy()[[0, 0, 0, 1, 1, 1]]),
    "batch_norm": lambda m, y: F.batch_norm(y, np.zeros(6, "f"), np.ones(6, "f")),
    "linear": lambda m, y: F.linear(y, np.ones((5, 5), "f")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_named(name):
    found, _ = follow(Own(REFUSED[name]), np.zeros((1, 2, 5, 5), "f"))
    why = {found.problems.get(label) for label in found.outputs()["conv1"].tolist()}
    assert all(text and f"{name} in Own" in text for text in why)


def test_channels_of_zeros_beside_others_have_no_label():
    """As the shortcuts of some residual networks: channels are added around an image."""
    model = Own(lambda m, y: y.pad([(0, 0), (1, 2), (0, 0), (0, 0)]), channels=9)
    labels = places(model, np.zeros((1, 2, 5, 5), "f"))
    columns = labels["conv2.weight", 1]
    assert columns[1:7] == labels["conv1.weight", 0]
    assert len(set(columns)) == 9


def test_what_reads_something_unknown_stays_too():
    """A depthwise convolution ties what comes out to what goes in, of which nothing is known."""

    def between(m, y):
        return m.other((y.permute(0, 2, 3, 1) @ np.eye(6, dtype="f")).permute(0, 3, 1, 2))

    model = Own(between, other=nn.Conv2d(6, 6, 3, groups=6))
    found, _ = follow(model, np.zeros((1, 2, 5, 5), "f"))
    why = {found.problems.get(label) for label in found.outputs()["other"].tolist()}
    assert why == {"conv2d in other (Conv2d) reads numbers that no layer made"}


def test_an_operation_without_a_rule_is_named():
    def unheard_of(x):
        return x.copy(), (lambda g: g,)

    found, _ = follow(Own(lambda m, y: apply(unheard_of, y)), np.zeros((1, 2, 5, 5), "f"))
    assert any("unheard_of in Own" in why for why in found.problems.values())


def test_the_reason_names_the_layer():
    model = nn.Sequential({"a": nn.Conv2d(1, 3, 1), "mix": nn.Softmax(1), "b": nn.Conv2d(3, 1, 1)})
    found, _ = follow(model)
    assert set(found.problems.values()) == {"softmax in mix (Softmax) mixes its channels"}


def test_a_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).train()
    state = model.state_dict()
    follow(model, np.ones((1, 1, 4, 4), "f"))
    assert [m.training for m in model.modules()] == [True] * 4
    assert all("forward" not in m.__dict__ for m in model.modules())
    assert all(np.array_equal(a, state[n]) for n, a in model.state_dict().items())


def test_the_shape_of_the_input_is_found_by_trying():
    model = nn.Sequential(nn.Conv2d(3, 2, 5, stride=2), nn.Flatten(), nn.Linear(2 * 9 * 9, 4))
    _, x = follow(model)
    assert x.shape[1:] in [(3, 21, 21), (3, 22, 22)]


def test_the_layer_that_is_defined_first_need_not_run_first():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem = nn.Linear(5 * 16, 2), nn.Conv2d(3, 5, 3)

        def forward(self, x):
            return self.head(self.stem(x).flatten(1))

    _, x = follow(Backwards())
    assert x.shape[1:] == (3, 6, 6)


def test_where_no_shape_fits_a_sample_is_asked_for():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x):
            return self.conv(x.reshape(-1, 1, 11, 13))

    with pytest.raises(ValueError, match=r"Picky: no shape .* give sample="):
        follow(Picky())
    found, x = follow(Picky(), np.zeros((7, 143)))
    assert x.shape == (3, 143)
    assert list(found.outputs()) == ["conv"]


def test_compiled_models_are_refused():
    with pytest.raises(TypeError, match="compiled"):
        follow(tc.compile(tc.models.TinyCNN()))
    with pytest.raises(TypeError, match="model, got list"):
        follow([])


def test_tied_labels_have_one_root():
    labels = Labels()
    a = labels.new(6)
    labels.tie(a[:2], a[2:4])
    labels.tie(a[2:4], a[4:])
    roots = labels.roots(a)
    assert roots.tolist() == [roots[0], roots[1]] * 3
    labels.tie(np.zeros(6, int), a)  # no channel ties nothing
    assert labels.roots(a).tolist() == roots.tolist()
    labels.hold(a[:1], "first")
    labels.hold(a[:2], "second")
    assert list(labels.problems.values()) == ["first", "second"]


def test_labels_are_kept_without_the_axes_along_which_they_do_not_change():
    full = np.broadcast_to(np.arange(1, 4).reshape(1, 3, 1, 1), (2, 3, 4, 5))
    assert compact(full).shape == (1, 3, 1, 1)
    assert compact(np.zeros((2, 0, 3), int)).shape == (1, 0, 1)
