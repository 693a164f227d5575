"""``tc.compile``: the same answers from a copy that cannot change."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, models, nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.nn import compiled
from tinycompress.tensor import Tensor
from tinycompress.train.reachable import Reached

CLOSE = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-9, "atol": 1e-11}}


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


class Block(nn.Module):
    """``relu(x + f(x))`` as a reader may write it: Sequentials inside, one layer used twice."""

    def __init__(self, channels, norm_inside=True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            *([nn.BatchNorm2d(channels)] if norm_inside else []),
        )
        self.norm = nn.BatchNorm2d(channels)
        self.same_again = nn.Sequential(self.body[0], self.norm, nn.Tanh())

    def forward(self, x):
        y = self.body(x)
        y = y + self.body[3](self.body[0](x))  # layers of a Sequential may be called by themselves
        return F.relu(x + self.norm(y)) + self.same_again(x)


def residual_net(dtype="float32"):
    """Nested, with batch norms that have seen something, in training mode."""
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        Block(4),
        Block(4, norm_inside=False),
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5)),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(-0.1),
        nn.LayerNorm(8),
        nn.Linear(8, 3, bias=False),
    ).to(dtype)
    rng = np.random.default_rng(5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            n = module.num_features
            module.running_mean = rng.normal(size=n).astype(dtype)
            module.running_var = rng.uniform(0.5, 2, n).astype(dtype)
            module.weight.data[...] = rng.normal(size=n)
    return net


def evaluated(net, x):
    """What the model gives, one layer after the other."""
    with nn.fusion(False), tc.no_grad():
        return to_numpy(net.copy().eval()(x).data)


def assert_same_answers(fast, net, x):
    y = fast(x)
    assert isinstance(y, Tensor)
    assert not y.requires_grad
    expected = evaluated(net, x)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(to_numpy(y.data), expected, **CLOSE[y.dtype.name])


# -------------------------------------------------------------------------------- the same answers


@pytest.mark.parametrize("name", models.names())
def test_every_model(name, device):
    net = models.create(name).to(device)
    fast = tc.compile(net)
    assert fast.device == net.device
    for n in (3, 1, 1, 0, 3):
        x = to_device(normal(n, 1, 28, 28, seed=n), device)
        assert_same_answers(fast, net, x)
        assert_same_answers(fast, net, Tensor(x))


@pytest.mark.parametrize("dtype", CLOSE)
def test_a_net_with_blocks_of_the_readers_own(dtype, device):
    net = residual_net(dtype).to(device)
    fast = tc.compile(net)
    for n in (2, 2, 1):
        assert_same_answers(fast, net, to_device(normal(n, 1, 9, 9, dtype=dtype), device))
    assert_same_answers(fast, net, to_device(normal(1, 1, 12, 10, dtype=dtype), device))


def test_a_second_gpu(cupy):
    net = residual_net().to("cuda:1")
    fast = tc.compile(net)
    assert fast.device == "cuda:1"
    for _ in range(2):
        assert_same_answers(fast, net, to_device(normal(2, 1, 9, 9), "cuda:1"))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (2, 1), 2),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 3, 1),
    ],
)
def test_convolutions_of_every_kind(layer):
    channels = layer.out_channels
    net = nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU(), nn.AvgPool2d(2))
    net[1].running_mean = normal(channels)
    fast = tc.compile(net)
    for n in (2, 2, 5):
        assert_same_answers(fast, net, normal(n, 4, 9, 8, seed=n))


def test_quantized_models():
    net = tc.quantize(models.LeNet5())
    assert_same_answers(tc.compile(net), net, normal(2, 1, 28, 28))


def test_pruned_models():
    net = tc.prune(models.TinyCNN(), sparsity=0.8)
    fast = tc.compile(net)
    assert_same_answers(fast, net, normal(2, 1, 28, 28))
    for ours, theirs in zip(fast.parameters(), net.parameters(), strict=True):
        assert (ours.mask is None) == (theirs.mask is None)


def test_a_model_that_is_a_single_layer():
    layer = nn.Conv2d(1, 2, 3)
    assert_same_answers(tc.compile(layer), layer, normal(2, 1, 5, 5))
    assert_same_answers(tc.compile(nn.ReLU()), nn.ReLU(), normal(2, 3))


def test_a_net_of_several_inputs_and_keywords():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

        def forward(self, a, b, scale=1.0):
            return self.body(a) + self.body(b) * scale

    net, a, b = Sum(), normal(2, 3), normal(2, 3, seed=1)
    np.testing.assert_allclose(
        tc.compile(net)(a, b, scale=2.0).data, net(a, b, scale=2.0).data, rtol=1e-5
    )


class Around(nn.Sequential):
    """A Sequential with a forward of its own."""

    def forward(self, x):
        return super().forward(x) + x


def test_a_sequential_with_a_forward_of_its_own():
    net = nn.Sequential(Around(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.ReLU())
    net[0][1].running_mean = normal(3)
    assert_same_answers(tc.compile(net), net, normal(4, 3))
    assert_same_answers(tc.compile(net[0]), net[0], normal(4, 3))


def test_a_norm_over_another_axis_than_the_heads_outputs():
    for features in (3, 2):  # (N, L, in) → (N, L, out), normalised over L = 3
        net = nn.Sequential(nn.Linear(4, features), nn.BatchNorm1d(3), nn.ReLU())
        net[1].running_mean = normal(3)
        assert_same_answers(tc.compile(net), net, normal(5, 3, 4))


def test_whole_numbers_become_float32():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    fast = tc.compile(net)
    for x in (np.arange(6).reshape(2, 3), normal(2, 3), np.ones((2, 3), bool)):
        assert_same_answers(fast, net, x)
        assert_same_answers(fast, net, x)


def test_evaluate_and_predict_take_it():
    net = models.TinyCNN()
    data = tc.data.Dataset(normal(30, 1, 28, 28), np.arange(30) % 10)
    fast = tc.compile(net)
    for options in ({}, {"workers": 2}, {"batch_size": 7}):
        ours, theirs = tc.evaluate(fast, data, **options), tc.evaluate(net, data, **options)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert (ours.confusion == theirs.confusion).all()


def test_threads_share_it():
    fast = tc.compile(residual_net())
    inputs = [normal(n, 1, 9, 9 + n % 2, seed=n) for n in range(1, 9)]
    expected = [fast(x).data for x in inputs]
    start = threading.Barrier(4)

    def work(k):
        start.wait()
        return [fast(x).data for _ in range(5) for x in inputs[k:] + inputs[:k]][-len(inputs) :]

    with ThreadPoolExecutor(4) as pool:
        for k, outputs in enumerate(pool.map(work, range(4))):
            for y, right in zip(outputs, expected[k:] + expected[:k], strict=True):
                np.testing.assert_array_equal(y, right)


# -------------------------------------------------------------------------- what is done in advance


def test_batch_norm_is_folded_and_nothing_is_planned_again(monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU())
    fast = tc.compile(net)
    fast(normal(2, 1, 6, 6))
    for kind in (nn.Conv2d, nn.BatchNorm1d.__mro__[1], nn.ReLU):
        monkeypatch.setattr(kind, "forward", None)
        monkeypatch.setattr(kind, "in_chain", None)
    assert fast(normal(2, 1, 6, 6)).shape == (2, 2, 4, 4)
    assert fast(normal(3, 1, 7, 6)).shape == (3, 2, 5, 4)


def test_an_inputs_shape_is_checked_once(monkeypatch):
    checks, with_checks = [], compiled.Prepared.with_checks
    monkeypatch.setattr(
        compiled.Prepared,
        "with_checks",
        lambda self, x: checks.append(x.shape) or with_checks(self, x),
    )
    fast = tc.compile(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)))
    for n in (1, 4, 1, 4, 1):
        fast(normal(n, 3))
    assert checks == [(1, 3), (1, 2), (4, 3), (4, 2)]


def test_calls_change_nothing_that_workers_look_at():
    """Or they would be forked anew for every batch (see ``train/reachable.py``)."""
    fast, x = tc.compile(residual_net()), normal(2, 1, 9, 9)
    fast(x)
    fast(x[:1])
    before = Reached(fast).signature
    fast(x)
    fast(x[:1])
    assert Reached(fast).signature == before


def test_weights_lie_as_products_read_them():
    w = normal(4, 3, 2, 5)
    laid = compiled.laid_out(w)
    np.testing.assert_array_equal(laid, w)
    assert laid.transpose(2, 3, 1, 0).flags.c_contiguous
    assert compiled.laid_out(normal(4, 3)).T.flags.c_contiguous
    fast = tc.compile(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    assert fast.model[0].weight.data.transpose(2, 3, 1, 0).flags.c_contiguous


def test_freed_memory_is_kept(monkeypatch):
    calls = []
    monkeypatch.setattr(compiled, "keep_freed_memory", lambda: calls.append(1))
    tc.compile(nn.ReLU())
    assert calls == [1]


# ------------------------------------------------------------------------------------- a snapshot


def test_the_model_is_left_alone():
    net = residual_net()
    net[4].requires_grad_(False)
    seen = []
    net[0].register_forward_hook(lambda *_: seen.append(1))
    state, order = net.state_dict(), [p.data.strides for p in net.parameters()]
    frozen = [p.requires_grad for p in net.parameters()]
    fast = tc.compile(net)
    fast(normal(2, 1, 9, 9))
    assert seen == []
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == frozen
    assert [p.data.strides for p in net.parameters()] == order
    assert all("forward" not in vars(module) for module in net.modules())
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_what_changes_in_the_model_afterwards_does_not_change_it():
    net, x = residual_net(), normal(2, 1, 9, 9)
    fast = tc.compile(net)
    before = fast(x).data
    for p in net.parameters():
        p.data += 1
    np.testing.assert_array_equal(fast(x).data, before)
    assert_same_answers(tc.compile(net), net, x)


def test_it_records_nothing():
    x = Tensor(normal(2, 1, 9, 9), requires_grad=True)
    assert not tc.compile(residual_net())(x).requires_grad
    assert tc.is_grad_enabled()


def test_copies_answer_the_same():
    net, x = residual_net(), normal(2, 1, 9, 9)
    fast = tc.compile(net)
    expected = fast(x).data
    for twin in (fast.copy(), tc.compile(fast), pickle.loads(pickle.dumps(fast))):
        assert twin.model is not fast.model
        np.testing.assert_allclose(twin(x).data, expected, rtol=1e-5, atol=1e-6)
        own = [vars(m)["forward"].container is m for m in twin.modules() if "forward" in vars(m)]
        assert own == [True] * 7  # a copy's plans are of the copy's layers


def test_it_stays_in_evaluation_mode():
    fast, x = tc.compile(residual_net()), normal(2, 1, 9, 9)
    assert not any(module.training for module in fast.modules())
    expected = fast(x).data
    assert fast.eval() is fast
    around = nn.Sequential(fast).train()
    for _ in range(2):
        np.testing.assert_array_equal(around(x).data, expected)


def test_it_refuses_what_belongs_to_the_model_it_was_made_from(tmp_path):
    net = models.TinyCNN()
    fast = tc.compile(net)
    refused = {
        "cannot be trained: do it with the model": lambda: fast.train(),
        "keeps its device and dtype": lambda: fast.to("cpu"),
        "device and dtype: do it with": lambda: fast.to("float64"),
        "takes no other state": lambda: fast.load_state_dict(net.state_dict()),
        "has no state of its own to save": lambda: fast.state_dict(),
        "no state of its own": lambda: nn.save_safetensors(fast, tmp_path / "fast.safetensors"),
        "save the model that it was made from": lambda: tc.save(fast, tmp_path / "fast.tcz"),
    }
    for message, call in refused.items():
        with pytest.raises((TypeError, RuntimeError), match=message):
            call()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="nothing to train"):
        tc.fit(fast, tc.data.Dataset(normal(8, 1, 28, 28), np.arange(8)), epochs=1)


def test_only_modules_are_compiled():
    with pytest.raises(TypeError, match="expected a Module, got function"):
        tc.compile(lambda x: x)


# ------------------------------------------------------------------------ being looked into, errors


def test_a_hook_on_a_layer_inside_sees_its_output():
    net, x, seen = models.TinyCNN(), normal(2, 1, 28, 28), []
    fast = tc.compile(net)
    expected = fast(x).data
    with fast.model.relu1.register_forward_hook(lambda m, i, y: seen.append(y.data)):
        np.testing.assert_allclose(fast(x).data, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen[0], net.relu1(net.conv1(x)).data, rtol=1e-4, atol=1e-6)
    fast(x)
    assert len(seen) == 1


def test_it_is_summarised_like_the_model():
    net = residual_net()
    ours, theirs = (tc.summary(n, (1, 9, 9)) for n in (tc.compile(net), net))
    assert (ours.macs, ours.parameters) == (theirs.macs, theirs.parameters)


def test_detect_anomaly_names_the_operation():
    net = models.TinyCNN()
    net.conv2.weight.data[...] = 3e38
    fast, x = tc.compile(net), np.full((1, 1, 28, 28), 1e3, np.float32)
    fast(x), fast(x)
    with tc.detect_anomaly(), pytest.raises(tc.AnomalyError, match=r"^conv2d: the forward"):
        fast(x)


def test_the_switch_holds_for_it_too():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    fast, calls = tc.compile(net), []
    with nn.fusion(False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.ReLU, "forward", lambda self, x: calls.append(1) or F.relu(x))
        fast(normal(2, 3))
    assert calls == [1]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("x", "note", "message"),
    [
        (normal(2, 3, 9, 9), "in 0: Conv2d", "3 channels"),
        (normal(2, 1, 3, 3), "in 3: MaxPool2d", "does not fit"),
        (normal(2, 1, 9, 9, dtype="float64"), "in 0: Conv2d", "float64"),
        (normal(2, 81), "in 0: Conv2d", "(N, C, H, W)"),
        ("seven", "in 0: Conv2d", "numbers or booleans"),
    ],
)
def test_errors_name_the_layer(x, note, message, warm):
    net = residual_net()
    fast = tc.compile(net)
    if warm:
        fast(normal(2, 1, 9, 9)), fast(normal(2, 1, 9, 9))
    with pytest.raises((ValueError, TypeError)) as caught:
        fast(x)
    assert message in str(caught.value)
    assert caught.value.__notes__ == [
        note,
        "in 0: Sequential",
        "in model: Sequential",
        "in the model: Compiled",
    ]


def test_layers_that_do_not_fit_are_named_at_the_call():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3), nn.ReLU())
    fast = tc.compile(net)
    for _ in range(2):
        with pytest.raises(ValueError, match="3 channels") as caught:
            fast(normal(2, 1, 6, 6))
        assert caught.value.__notes__[0] == "in 1: BatchNorm2d"
