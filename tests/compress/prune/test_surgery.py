"""Weights that come back: surgery and movement against plain loops, and exactly at their target."""

from itertools import pairwise

import numpy as np
import pytest
from test_gradual import Interrupt, Zeros, assert_same_bits, net_of, trained
from test_prune_masks import blobs, each_optimizer

from tinycompress import nn, optim
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import (
    DynamicSurgery,
    MovementPruning,
    cubic,
    prune,
    sparsity_report,
)
from tinycompress.data import Dataset
from tinycompress.train import Callback, Workers, fit

KINDS = {
    "surgery": lambda **more: DynamicSurgery(0.8, **{"every": 2, "margin": 0.2, **more}),
    "thresholds": lambda **more: DynamicSurgery(spread=0.5, **{"every": 1, **more}),
    "movement": lambda **more: MovementPruning(0.8, **{"every": 2, **more}),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)

# ------------------------------------------------------------------------ the slow, obvious loops


def problem():
    """Least squares on which the smallest weights at the start are not those at the end."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 10))
    target = np.array([2, -1.5, 1, 0.02, 0, 0.01, -2, 0.5, 0, 1.2])
    start = np.array([0.05, -0.1, 0.8, 0.9, -0.7, 0.6, -0.2, 0.3, 0.5, -0.4])
    return x, x @ target, start


def gradient(x, y, w):
    n = len(x)
    error = [sum(x[i][j] * w[j] for j in range(len(w))) - y[i] for i in range(n)]
    return [sum(2 * error[i] * x[i][j] for i in range(n)) / n for j in range(len(w))]


def library(callback, steps, momentum=0.9):
    x, y, start = problem()
    model = nn.Sequential({"fc": nn.Linear(10, 1, bias=False)}).to(np.float64)
    weight = next(iter(model.parameters()))
    weight.data[...] = start

    def squares(model, images, labels):
        outputs = model(images)
        difference = outputs - labels
        return (difference * difference).mean(), outputs

    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    data = Dataset(x, y[:, None])
    options = {"batch_size": 30, "objective": squares, "callbacks": [callback]}
    fit(model, data, steps, optimizer, **options)
    return weight.data.ravel(), weight.mask.ravel().tolist()


def some_came_back(history):
    pairs = [pair for one, two in pairwise(history) for pair in zip(one, two, strict=True)]
    return (False, True) in pairs


def draws(seed, step, chance):
    return np.random.default_rng([seed, step]).random() < chance


def surgery_by_hand(steps, occasions, last, new_mask, gamma=0.0, seed=0):
    """Guo's algorithm with momentum: W moves as the optimizer moves W ∘ T."""
    x, y, start = problem()
    W, T, v = list(start), [True] * 10, [0.0] * 10
    history = []
    for step in range(1, steps + 1):
        w = [W[j] if T[j] else 0.0 for j in range(10)]
        g = gradient(x, y, w)
        for j in range(10):
            v[j] = 0.9 * v[j] + g[j]
            if step > last and not T[j]:
                v[j] = 0.0
            else:
                W[j] = W[j] - 0.05 * v[j]
        drawn = draws(seed, step, 1 / (1 + gamma * (step - occasions[0])))
        if step == last or (step in occasions and drawn):
            T = new_mask(step, W, T)
            history.append(list(T))
    return [W[j] if T[j] else 0.0 for j in range(10)], T, history


def test_surgery_to_a_sparsity_is_the_loop_that_one_would_write():
    def new_mask(step, W, T):
        count = round(cubic((step - 2) / 18, 0.5) * 10)
        scores = [abs(W[j]) / (0.8 if T[j] else 1.2) for j in range(10)]
        order = sorted(range(10), key=lambda j: (scores[j], j))
        return [j not in order[:count] for j in range(10)]

    occasions = list(range(2, 21, 2))
    expected, T, history = surgery_by_hand(30, occasions, 20, new_mask, gamma=0.05, seed=4)
    options = {"margin": 0.2, "begin": 2, "end": 20, "every": 2, "gamma": 0.05, "seed": 4}
    w, mask = library(DynamicSurgery(0.5, **options), 30)
    assert mask == T
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-12)
    assert len(history) < len(occasions), "not every occasion was drawn"
    assert some_came_back(history)


def test_surgery_with_two_thresholds_is_equation_3():
    _, _, start = problem()
    size = np.abs(start)

    def new_mask(step, W, T):
        if step == 1:  # thresholds are those of the weights when it began
            theta[0] = np.mean(np.abs(W)) + 0.2 * np.std(np.abs(W))
        a, b = 0.7 * theta[0], 1.3 * theta[0]
        return [False if abs(W[j]) < a else True if abs(W[j]) >= b else T[j] for j in range(10)]

    theta = [0.0]
    expected, T, history = surgery_by_hand(25, list(range(1, 16)), 15, new_mask)
    ramp = DynamicSurgery(spread=0.2, margin=0.3, begin=1, end=15, every=1, gamma=0)
    w, mask = library(ramp, 25)
    assert mask == T
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-12)
    assert 0 < sum(T) < 10
    assert len({tuple(t) for t in history}) > 2
    assert not np.allclose(size.mean(), theta[0])


def test_movement_is_the_loop_that_one_would_write():
    x, y, start = problem()
    W, T, v, S = list(start), [True] * 10, [0.0] * 10, [0.0] * 10
    history = []
    for step in range(1, 31):
        w = [W[j] if T[j] else 0.0 for j in range(10)]
        g = gradient(x, y, w)
        for j in range(10):
            S[j] -= W[j] * g[j]
            v[j] = 0.9 * v[j] + g[j] if T[j] else 0.0
            if T[j]:
                W[j] -= 0.05 * v[j]
        if step <= 20 and step % 2 == 0:
            count = round(cubic((step - 2) / 18, 0.6) * 10)
            order = sorted(range(10), key=lambda j: (S[j], j))
            T = [j not in order[:count] for j in range(10)]
            history.append(T)
    w, mask = library(MovementPruning(0.6, begin=2, end=20, every=2), 30)
    assert mask == T
    np.testing.assert_allclose(w, [W[j] if T[j] else 0.0 for j in range(10)], rtol=1e-9, atol=1e-12)
    assert some_came_back(history)


def test_small_weights_that_grow_stay_and_large_ones_that_shrink_go():
    """The case of the paper's figure 1: movement looks at another corner than magnitude."""
    _, kept = library(MovementPruning(0.3, begin=5, end=20, every=5), 20, momentum=0)
    _, _, start = problem()
    by_magnitude = (np.abs(start) > np.sort(np.abs(start))[2]).tolist()
    assert kept[0], "it was the smallest, and grows to 2"
    assert not by_magnitude[0]
    assert not kept[3], "it was the largest, and should be 0"
    assert by_magnitude[3]


# --------------------------------------------------------------------------------- what must hold


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("kind", ["surgery", "movement"])
def test_exactly_the_target(kind, scope):
    zeros = Zeros()
    model = trained(net_of(2), [KINDS[kind](scope=scope, end=16), zeros])
    assert sparsity_report(model).zeros == round(0.8 * 216)
    if scope == "local":
        assert sparsity_report(model)["fc"].zeros == round(0.8 * 180)
    assert all(p.mask is not None for n, p in model.named_parameters() if n.endswith("weight"))
    assert zeros.counts[16:] == [round(0.8 * 216)] * 9


def test_a_sparsity_for_each_layer():
    for ramp in (DynamicSurgery({"f*": 0.7}), MovementPruning({"f*": 0.7})):
        model = trained(net_of(2), [ramp])
        assert sparsity_report(model)["fc"].zeros == 126
        assert sparsity_report(model)["conv"].zeros == 0
        assert model.get_submodule("conv").weight.mask is None


def test_movement_of_rows():
    model = trained(net_of(2), [MovementPruning(0.4, structure="row", skip="conv")])
    mask = model.get_submodule("fc").weight.mask
    assert mask.any(axis=1).sum() == 3
    assert (mask.any(axis=1) == mask.all(axis=1)).all()


def test_a_floor_holds_under_thresholds():
    model = trained(net_of(2), [DynamicSurgery(spread=50.0, keep_at_least=3)])
    assert sparsity_report(model)["conv"].zeros == 33
    assert sparsity_report(model)["fc"].zeros == 177


def test_more_spread_prunes_more():
    zeros = [
        sparsity_report(trained(net_of(2), [DynamicSurgery(spread=s)])).zeros for s in (-1, 0, 1)
    ]
    assert zeros == sorted(set(zeros))
    by_layer = trained(net_of(2), [DynamicSurgery(spread={"conv": 1.0})])
    assert sparsity_report(by_layer)["fc"].zeros == 0 < sparsity_report(by_layer)["conv"].zeros


@each_optimizer
@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_on_every_device(kind, make, device):
    model = net_of(4).to(device)
    ramp = KINDS[kind](begin=1, end=10, every=1)
    fit(model, blobs(128), 2, make(model.parameters()), batch_size=16, callbacks=[ramp])
    for name in ("conv", "fc"):
        p = model.get_submodule(name).weight
        assert not to_numpy(p.data)[~to_numpy(p.mask)].any()
    if kind != "thresholds":
        assert sparsity_report(model).zeros == round(0.8 * 216)


@each_optimizer
@pytest.mark.parametrize("kind", KINDS)
def test_with_and_without_a_flat_buffer(kind, make):
    def run(optimizer_of):
        model = net_of(4)
        optimizer = optimizer_of(model.parameters())
        ramp = KINDS[kind](begin=1, end=20)
        fit(model, blobs(128), 3, optimizer, batch_size=16, callbacks=[ramp])
        return model

    def lonely(parameters):
        optimizer = make(parameters)
        optimizer.use = lambda buffer: None
        return optimizer

    assert_same_bits(run(make), run(lonely))


@each_kind
@pytest.mark.parametrize("stop", [3, 9, 13, 17, 20])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(make, stop, tmp_path):
    file = tmp_path / "run.safetensors"
    whole = trained(net_of(5), [make()])
    options = {"checkpoint": file, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        trained(net_of(5), [make(), Interrupt(stop)], **options)
    fresh = net_of(6)
    trained(fresh, [make()], checkpoint=file, resume=True)
    assert_same_bits(whole, fresh)


@each_kind
def test_a_resume_on_the_gpu(make, tmp_path, cupy):
    file = tmp_path / "run.safetensors"
    whole = trained(net_of(5).to("cuda"), [make()])
    with pytest.raises(KeyboardInterrupt):
        trained(net_of(5).to("cuda"), [make(), Interrupt(9)], checkpoint=file)
    fresh = net_of(6).to("cuda")
    trained(fresh, [make()], checkpoint=file, resume=True)
    assert_same_bits(whole, fresh)


@each_kind
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_workers_see_every_change(make, kind):
    def run(workers):
        with workers as team:
            return trained(net_of(7), [make()], workers=team, shard_size=4)

    assert_same_bits(run(Workers(1)), run(Workers(2, kind)))


# ------------------------------------------------------------------------------- what is refused


class Stop(Callback):
    def on_step_end(self, run):
        if run.step == 10:
            run.stop()


@each_kind
def test_a_run_that_ends_early_is_an_error(make):
    with pytest.raises(RuntimeError, match="stopped after 10 steps and pruning ends at step 18"):
        trained(net_of(1), [make(), Stop()])
    model = net_of(1)
    with pytest.raises(ValueError, match="lies after the last of this run's 24 steps"):
        trained(model, [make(end=30)])
    assert_same_bits(model, net_of(1))


@each_kind
def test_a_model_that_is_pruned_already_is_refused(make):
    with pytest.raises(ValueError, match="'conv', 'fc' have masks already"):
        trained(prune(net_of(1), 0.5), [make()])


@each_kind
def test_a_callback_may_serve_again(make):
    ramp = make()
    assert_same_bits(trained(net_of(1), [ramp]), trained(net_of(1), [ramp]))


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (lambda: DynamicSurgery(), ValueError, "either a sparsity"),
        (lambda: DynamicSurgery(0.9, spread=1.0), ValueError, "either a sparsity"),
        (lambda: DynamicSurgery(0.9, margin=1.0), ValueError, "margin must be at least 0, below 1"),
        (lambda: DynamicSurgery(0.9, gamma=-1), ValueError, "gamma must be at least 0"),
        (lambda: DynamicSurgery(0.9, power="1"), TypeError, "power must be a number"),
        (lambda: DynamicSurgery(spread=float("nan")), ValueError, "spread must be a finite number"),
        (lambda: DynamicSurgery(1.5), ValueError, "sparsity must be at least 0 and below 1"),
        (lambda: MovementPruning(0.9, structure="2:4"), ValueError, "structure must be 'weight'"),
        (lambda: MovementPruning(0.9, structure="channel"), ValueError, "structure must be"),
        (lambda: MovementPruning(None), ValueError, "needs a sparsity"),
    ],
)
def test_what_is_out_of_range_is_refused_at_once(wrong, error, text):
    with pytest.raises(error, match=text):
        wrong()


@pytest.mark.parametrize(
    ("ramp", "text"),
    [
        (DynamicSurgery({"fc9": 0.5}), "no prunable layer 'fc9'"),
        (DynamicSurgery(spread={"fc9": 0.5}), "no prunable layer 'fc9'"),
        (DynamicSurgery(0.9, keep_at_least=0.3), "keep_at_least=0.3 wants"),
        (MovementPruning(0.9, keep_at_least=0.3), "keep_at_least=0.3 wants"),
        (MovementPruning(0.9, initial=0.5), "nothing has moved"),
        (MovementPruning(0.9, end=0), "nothing has moved"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_the_first_step(ramp, text):
    model = net_of(1)
    with pytest.raises(ValueError, match=text):
        trained(model, [ramp])
    assert_same_bits(model, net_of(1))
