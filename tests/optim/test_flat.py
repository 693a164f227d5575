"""Parameters side by side in one array: the same steps to the bit, in fewer calls."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from strategies import seeds

from tinycompress import nn, optim
from tinycompress.nn import Parameter
from tinycompress.optim import FlatBuffer, flat

RULES = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "weight_decay": 0.2}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    (optim.SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (optim.RMSprop, {"alpha": 0.9, "weight_decay": 0.1}),
    (optim.RMSprop, {"lr": 0.003, "alpha": 0.95, "centered": True, "momentum": 0.5}),
    (optim.Adam, {"lr": 0.02, "weight_decay": 0.3}),
    (optim.AdamW, {"lr": 0.02, "betas": (0.8, 0.99), "weight_decay": 0.3}),
]
SHAPES = [(3, 4), (5,), (), (2, 3, 1, 2), (0, 3), (7,), (4, 2)]
each_rule = pytest.mark.parametrize(("kind", "options"), RULES)


def parameters(shapes=SHAPES, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(np.asarray(rng.normal(size=shape), dtype)) for shape in shapes]


class Watched(optim.SGD):
    """SGD that counts how often its rule is called, and for how many numbers."""

    elementwise = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.calls = []

    def update(self, w, g, state, group):
        self.calls.append(w.size)
        super().update(w, g, state, group)


def sizes_of_calls(ps, optimizer, buffer, without=()):
    """How many numbers each call of the rule gets, in one step."""
    optimizer.calls.clear()
    for k, p in enumerate(buffer.params):
        buffer.grads[k][...] = 1
        p.grad = None if k in without else buffer.grads[k]
    optimizer.step()
    return optimizer.calls


# ----------------------------------------------------------------------------------- the buffer


def test_parameters_are_views_of_one_array_with_their_numbers():
    ps = parameters()
    before = [p.data.copy() for p in ps]
    buffer = FlatBuffer(ps)
    np.testing.assert_array_equal(buffer.data, np.concatenate([b.ravel() for b in before]))
    for p, numbers, g in zip(ps, before, buffer.grads, strict=True):
        np.testing.assert_array_equal(p.data, numbers)
        assert p.data.shape == g.shape == numbers.shape
        assert p.size == 0 or np.shares_memory(p.data, buffer.data)
        assert p.size == 0 or np.shares_memory(g, buffer.grad)
    assert not buffer.grad.any()
    buffer.data += 1
    for p, numbers in zip(ps, before, strict=True):
        np.testing.assert_array_equal(p.data, numbers + np.float32(1))


def test_the_order_in_memory_does_not_matter():
    p = Parameter(np.arange(12.0, dtype=np.float32).reshape(3, 4).T)
    FlatBuffer([p])
    np.testing.assert_array_equal(p.data, np.arange(12.0).reshape(3, 4).T)


def test_memory_may_come_from_elsewhere():
    taken = []

    def allocate(count, dtype):
        taken.append(np.full(count, 7, dtype))
        return taken[-1]

    buffer = FlatBuffer(parameters(), allocate)
    assert buffer.data is taken[0]
    assert buffer.grad is taken[1]
    assert not buffer.grad.any()


def test_released_parameters_have_the_array_of_before_with_the_numbers_of_now():
    ps = parameters()
    arrays = [p.data for p in ps]
    buffer = FlatBuffer(ps)
    shared, gradients = buffer.data, buffer.grad
    buffer.data += 1
    expected = [p.data.copy() for p in ps]
    ps[0].grad, ps[1].grad = buffer.grads[0], np.ones(5, np.float32)
    buffer.grads[0][...] = 3
    buffer.release()
    for p, array, numbers in zip(ps, arrays, expected, strict=True):
        assert p.data is array
        np.testing.assert_array_equal(array, numbers)
    np.testing.assert_array_equal(ps[0].grad, np.full((3, 4), 3))
    assert not np.shares_memory(ps[0].grad, gradients)
    assert not any(np.shares_memory(p.data, shared) for p in ps)
    assert not buffer.intact()
    assert buffer.data.size == buffer.grad.size == 0
    buffer.release()  # again: nothing is left to do
    assert not buffer.restore()


def test_an_array_that_cannot_be_written_is_not_given_back():
    numbers = np.arange(3, dtype=np.float32)
    numbers.flags.writeable = False
    p = Parameter(numbers)
    buffer = FlatBuffer([p])
    p.data += 1
    buffer.release()
    np.testing.assert_array_equal(p.data, [1, 2, 3])
    np.testing.assert_array_equal(numbers, [0, 1, 2])
    assert p.data.flags.owndata


def test_a_parameter_that_got_another_array_keeps_it():
    ps = parameters()
    buffer = FlatBuffer(ps)
    other = ps[1].data = np.ones(2, np.float32)
    assert not buffer.intact()
    assert not buffer.restore()
    buffer.release()
    assert ps[1].data is other


def test_what_was_put_in_the_place_of_a_view_can_be_taken_over():
    ps = parameters()
    buffer = FlatBuffer(ps)
    assert buffer.intact()
    ps[1].data = np.arange(5, dtype=np.float32)
    assert not buffer.intact()
    assert buffer.restore()
    assert buffer.intact()
    np.testing.assert_array_equal(buffer.data[12:17], np.arange(5))


@pytest.mark.parametrize("other", [np.ones(4, np.float32), np.ones(5)])
def test_nothing_is_taken_over_where_something_does_not_fit(other):
    ps = parameters()
    buffer = FlatBuffer(ps)
    first, ps[1].data = np.zeros((3, 4), np.float32), other
    ps[0].data = first
    assert not buffer.restore()
    assert ps[0].data is first


def test_what_does_not_fit_is_refused(cupy):
    w = np.zeros((3, 4), np.float32)
    mixed = [Parameter(w), Parameter(np.zeros(2))]
    tied = [Parameter(w), Parameter(w[1:])]
    for ps in (mixed, tied, [Parameter(cupy.zeros(3, dtype="float32"))]):
        assert not FlatBuffer.fits(ps)
        with pytest.raises(ValueError, match="NumPy arrays of one dtype that share no memory"):
            FlatBuffer(ps)
    with pytest.raises(ValueError, match="is there already"):
        FlatBuffer([mixed[0], mixed[0]])
    with pytest.raises(TypeError, match=r"not an nn\.Parameter"):
        FlatBuffer([w])


# --------------------------------------------------------------------------------- fewer calls


def test_a_step_is_one_call_for_all_parameters_of_a_group():
    ps = parameters()
    buffer = FlatBuffer(ps)
    optimizer = Watched([{"params": ps[:3]}, {"params": ps[3:], "momentum": 0.5}], lr=0.1)
    optimizer.use(buffer)
    assert sizes_of_calls(ps, optimizer, buffer) == [18, 27]
    assert sizes_of_calls(ps, optimizer, buffer) == [18, 27]


def test_a_long_stretch_is_gone_through_in_blocks(monkeypatch):
    monkeypatch.setattr(flat, "BLOCK_BYTES", 80)
    ps = parameters()
    buffer = FlatBuffer(ps)
    optimizer = Watched(ps, lr=0.1)
    optimizer.use(buffer)
    assert sizes_of_calls(ps, optimizer, buffer) == [20, 20, 5]
    assert sizes_of_calls(ps, optimizer, buffer, without=[3, 4, 5, 6]) == [18]


def test_a_stretch_ends_where_a_gradient_is_missing_and_where_step_counts_differ():
    ps = parameters()
    buffer = FlatBuffer(ps)
    optimizer = Watched(ps, lr=0.1, momentum=0.9)
    optimizer.use(buffer)
    assert sizes_of_calls(ps, optimizer, buffer, without=[3]) == [18, 15]
    assert sizes_of_calls(ps, optimizer, buffer) == [18, 12, 15], "the fourth is a step behind"


def test_a_frozen_parameter_that_lies_elsewhere_parts_nothing():
    ps = parameters()
    buffer = FlatBuffer([*ps[:2], *ps[3:]])
    optimizer = Watched(ps, lr=0.1)
    optimizer.use(buffer)
    assert sizes_of_calls(ps, optimizer, buffer) == [44]


def test_parameters_are_updated_one_by_one_where_they_must_be():
    ps = parameters()
    buffer = FlatBuffer(ps)
    one_by_one = [p.size for p in ps]
    optimizer = Watched(ps, lr=0.1)
    assert sizes_of_calls(ps, optimizer, buffer) == one_by_one, "nobody said use()"
    optimizer.use(buffer)
    ps[1].data = ps[1].data.copy()
    assert sizes_of_calls(ps, optimizer, buffer) == one_by_one, "the buffer is not intact"
    buffer.restore()
    assert sizes_of_calls(ps, optimizer, buffer) == [45]
    optimizer.use(None)
    assert sizes_of_calls(ps, optimizer, buffer) == one_by_one
    optimizer.use(buffer)
    for p in ps:
        p.grad = np.ones_like(p.data)
    optimizer.calls.clear()
    optimizer.step()
    assert optimizer.calls == one_by_one, "the gradients lie elsewhere"


class Normalised(optim.Optimizer):
    """A rule that looks at the whole gradient of a weight."""

    rules = optim.SGD.rules

    def update(self, w, g, state, group):
        w -= group["lr"] * g / np.linalg.norm(g)


class NormalisedSGD(optim.SGD):
    """Likewise, on a rule that does not: it has not said that it is elementwise, too."""

    def update(self, w, g, state, group):
        super().update(w, g / np.linalg.norm(g), state, group)


@pytest.mark.parametrize("kind", [Normalised, NormalisedSGD])
def test_a_rule_that_looks_at_a_whole_weight_gets_each_by_itself(kind):
    ps = parameters([(4,), (4,)])
    buffer = FlatBuffer(ps)
    buffer.data[...] = 0
    optimizer = kind(ps, **optim.SGD(ps, lr=1.0).defaults)
    optimizer.use(buffer)
    for k, p in enumerate(ps):
        buffer.grads[k][...] = k + 1
        p.grad = buffer.grads[k]
    optimizer.step()
    np.testing.assert_array_equal(buffer.data, np.full(8, -0.5))


@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW])
def test_the_rules_of_the_library_get_them_together(kind, monkeypatch):
    calls = []
    update = kind.update
    monkeypatch.setattr(kind, "update", lambda *given: (calls.append(1), update(*given)))
    ps = parameters()
    optimizer, buffer = kind(ps), FlatBuffer(ps)
    optimizer.use(buffer)
    for p, g in zip(ps, buffer.grads, strict=True):
        p.grad = g
    optimizer.step()
    assert len(calls) == 1


def test_a_gradient_that_does_not_fit_is_refused():
    ps = parameters()
    optimizer = optim.SGD(ps, lr=0.1)
    optimizer.use(FlatBuffer(ps))
    ps[1].grad = np.zeros((5, 1), np.float32)
    with pytest.raises(ValueError, match=r"parameter 1: the weight is float32\(5,\)"):
        optimizer.step()


def test_a_state_that_does_not_fit_is_refused():
    ps = parameters()
    optimizer, buffer = optim.SGD(ps, lr=0.1, momentum=0.9), FlatBuffer(ps)
    optimizer.use(buffer)
    optimizer.state[1] = {"step": 3, "momentum_buffer": np.zeros((5, 1), np.float32)}
    ps[1].grad = buffer.grads[1]
    with pytest.raises(ValueError, match=r"its momentum_buffer is float32\(5, 1\)"):
        optimizer.step()


# ------------------------------------------------------------------------- the same, to the bit


class Pair:
    """One training twice: parameter by parameter, and over a flat buffer."""

    def __init__(
        self, kind: Any, options: Any, shapes: Any = SHAPES, cut: Any = (), lies: Any = None
    ):
        self.kind, self.options, self.cut = kind, options, cut
        self.plain, self.flat = parameters(shapes), parameters(shapes)
        self.plain_rule, self.flat_rule = self.optimizer(self.plain), self.optimizer(self.flat)
        places = range(len(shapes)) if lies is None else lies
        self.buffer = FlatBuffer([self.flat[k] for k in places])
        self.flat_rule.use(self.buffer)

    def optimizer(self, ps):
        """Over groups, cut before the parameters ``cut``, each with a learning rate of its own."""
        cuts = [ps[a:b] for a, b in pairwise([0, *self.cut, len(ps)])]
        rates = [self.options.get("lr", 0.01) / (k + 1) for k in range(len(cuts))]
        groups = [{"params": c, "lr": lr} for c, lr in zip(cuts, rates, strict=True) if c]
        return self.kind(groups, **self.options)

    def step(self, rng, without=(), elsewhere=()):
        """One step with random gradients; none for some, and outside the buffer for others."""
        views = dict(zip(map(id, self.buffer.params), self.buffer.grads, strict=False))
        for k, (p, q) in enumerate(zip(self.plain, self.flat, strict=True)):
            if k in without:
                p.grad = q.grad = None
                continue
            p.grad = np.asarray(rng.normal(size=p.shape), p.dtype)
            q.grad = p.grad.copy()
            if id(q) in views and k not in elsewhere:
                q.grad = views[id(q)]
                q.grad[...] = p.grad
        self.plain_rule.step()
        self.flat_rule.step()
        self.check()

    def check(self):
        for p, q in zip(self.plain, self.flat, strict=True):
            np.testing.assert_array_equal(p.data, q.data)
        same_state(self.plain_rule.state, self.flat_rule.state)
        mine, theirs = self.flat_rule.state_dict(), self.plain_rule.state_dict()
        assert mine["groups"] == theirs["groups"]
        same_state(mine["state"], theirs["state"])

    def load(self, saved):
        self.plain_rule.load_state_dict(saved)
        self.flat_rule.load_state_dict(saved)
        self.check()


def same_state(one, other):
    assert one.keys() == other.keys()
    for k in one:
        assert one[k].keys() == other[k].keys()
        for name, value in one[k].items():
            np.testing.assert_array_equal(value, other[k][name])
            assert np.shape(value) == np.shape(other[k][name])


@pytest.fixture(params=[flat.BLOCK_BYTES, 24])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(flat, "BLOCK_BYTES", request.param)


@each_rule
def test_a_training_goes_the_same_way(kind, options, block_bytes, rng):
    pair = Pair(kind, options, cut=[3, 4])
    for _ in range(4):
        pair.step(rng)
    for group in (*pair.plain_rule.param_groups, *pair.flat_rule.param_groups):
        group["lr"] *= 0.3  # as a schedule does
    for p, q in zip(pair.plain, pair.flat, strict=True):
        if p.ndim == 2:
            p.mask = q.mask = np.arange(p.size).reshape(p.shape) % 3 > 0
    for missing in ([2], [0, 5], [], [6]):
        pair.step(rng, without=missing)
    for q in pair.flat:
        if q.mask is not None:
            assert not q.data[~q.mask].any()
    pair.buffer.release()
    pair.step(rng)


@each_rule
def test_a_state_goes_from_one_way_to_the_other(kind, options, rng):
    pair = Pair(kind, options, cut=[2])
    pair.step(rng, without=[1])
    pair.step(rng)
    saved = pair.flat_rule.state_dict()
    kept = json.dumps({k: v["step"] for k, v in saved["state"].items()})
    pair.step(rng)
    pair.step(rng)
    pair.load(saved)  # back, while the buffer is in use
    pair.step(rng)
    other = Pair(kind, options, cut=[2])  # a new optimizer goes on from it
    for p, q in zip([*other.plain, *other.flat], [*pair.plain, *pair.plain], strict=True):
        p.data[...] = q.data
    other.load(pair.flat_rule.state_dict())
    other.step(rng)
    assert json.dumps({k: v["step"] for k, v in saved["state"].items()}) == kept
    other.plain_rule.load_state_dict({**saved, "state": {}})
    other.flat_rule.load_state_dict({**saved, "state": {}})
    other.step(rng)  # what lay in the buffer is forgotten, too


@given(st.data())
def test_any_training_goes_the_same_way(block_bytes, data):
    kind, options = data.draw(st.sampled_from(RULES))
    shape = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    shapes = data.draw(st.lists(shape, min_size=1, max_size=6))
    positions = list(range(len(shapes)))
    some = st.lists(st.sampled_from(positions), unique=True)
    lies = data.draw(st.permutations(positions)) if data.draw(st.booleans()) else positions
    lies = lies[data.draw(st.integers(0, len(lies) - 1)) :]
    pair = Pair(kind, options, shapes, sorted(data.draw(some)), lies)
    rng = np.random.default_rng(data.draw(seeds))
    saved = pair.flat_rule.state_dict()
    for _ in range(data.draw(st.integers(1, 6))):
        match data.draw(st.sampled_from(["", "mask", "lr", "save", "load", "use", "off", "own"])):
            case "mask":
                k = data.draw(st.sampled_from(positions))
                mask = np.asarray(rng.random(shapes[k]) < 0.5)
                pair.plain[k].mask = pair.flat[k].mask = data.draw(st.sampled_from([None, mask]))
            case "lr":
                rate = data.draw(st.sampled_from([0.0, 0.01, 0.3]))
                for rule in (pair.plain_rule, pair.flat_rule):
                    rule.param_groups[-1]["lr"] = rate
            case "save":
                saved = pair.flat_rule.state_dict()
            case "load":
                pair.load(saved)
            case "use":
                pair.buffer.restore()
                pair.flat_rule.use(pair.buffer)
            case "off":
                pair.flat_rule.use(None)
            case "own":  # somebody puts another array in the place of a view
                p = data.draw(st.sampled_from(pair.flat))
                p.data = p.data.copy()
        pair.step(rng, without=data.draw(some), elsewhere=data.draw(some))
    pair.buffer.release()
    pair.check()


def test_a_network_learns_the_same(rng):
    """From the gradients of a real loss, clipped."""

    def trained(flat):
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        for p, shape in zip(model.parameters(), [(8, 6), (8,), (3, 8), (3,)], strict=True):
            p.data[...] = np.random.default_rng(p.size).normal(size=shape)
        ps = list(model.parameters())
        optimizer, buffer = optim.Adam(ps, lr=0.01), FlatBuffer(ps)
        optimizer.use(buffer if flat else None)
        x = np.random.default_rng(1).normal(size=(10, 6)).astype(np.float32)
        for _ in range(5):
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            if flat:
                for p, view in zip(ps, buffer.grads, strict=True):
                    view[...] = p.grad
                    p.grad = view
            optim.clip_grad_norm_(ps, 0.05)
            optimizer.step()
        return [p.data.copy() for p in ps]

    for one, other in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(one, other)
