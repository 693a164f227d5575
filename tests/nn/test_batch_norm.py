"""Batch norm over several steps: running statistics, evaluation, and notes merged over shards."""

import threading

import numpy as np
import pytest

from tinycompress import nn
from tinycompress.backend import device_of, to_device, to_numpy
from tinycompress.nn.notes import current_notes


def batches(count, shape=(6, 3, 4, 5)):
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.5, 3, size=(1, shape[1], 1, 1)[: len(shape)])
    return [(rng.normal(size=shape) * scale + scale).astype(np.float32) for _ in range(count)]


def expected_update(mean, var, shards, momentum):
    """The formula of ``nn/norm.py`` in float64: shards weighted by their number of values."""
    axes = tuple(a for a in range(shards[0].ndim) if a != 1)
    counts = np.array([x.size / x.shape[1] for x in shards])
    weights = counts / counts.sum()
    wide = [x.astype(np.float64) for x in shards]
    seen_mean = sum(w * x.mean(axes) for w, x in zip(weights, wide, strict=True))
    seen_var = sum(w * x.var(axes, ddof=1) for w, x in zip(weights, wide, strict=True))
    return (
        (1 - momentum) * mean + momentum * seen_mean,
        (1 - momentum) * var + momentum * seen_var,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_running_statistics_follow_the_formula(momentum, device):
    bn = nn.BatchNorm2d(3, momentum=momentum).to(device)
    mean, var = np.zeros(3), np.ones(3)
    for x in batches(4):
        bn(to_device(x, device))
        mean, var = expected_update(mean, var, [x], momentum)
    np.testing.assert_allclose(to_numpy(bn.running_mean), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(bn.running_var), var, rtol=1e-5)
    assert bn.running_mean.dtype == np.float32
    assert device_of(bn.running_mean) == bn.device


def test_evaluation_uses_them_and_changes_nothing():
    bn = nn.BatchNorm2d(3, eps=1e-3)
    for x in batches(3):
        bn(x)
    bn.weight.data[...] = [1, 2, 3]
    before = bn.state_dict()
    x = batches(4)[3]
    y = bn.eval()(x).data
    mean, var, weight = (
        a[:, None, None] for a in (bn.running_mean, bn.running_var, bn.weight.data)
    )
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3) * weight, rtol=1e-5, atol=1e-5)
    one = bn(x[:1]).data  # a sample's result does not depend on its batch
    np.testing.assert_allclose(one, y[:1], rtol=1e-6, atol=1e-6)
    for name, array in bn.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "shape"), [("BatchNorm1d", (6, 3)), ("BatchNorm2d", (6, 3, 4, 5))]
)
def test_training_steps_and_evaluation_equal_torchs(kind, shape):
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, kind)(3, momentum=0.3), getattr(torch.nn, kind)(3, momentum=0.3)
    for x in batches(5, shape):
        np.testing.assert_allclose(
            ours(x).data, theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5
        )
    ours.eval(), theirs.eval()
    x = batches(6, shape)[5]
    np.testing.assert_allclose(
        ours(x).data, theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------- notes


def test_outside_a_step_notes_are_merged_at_once():
    bn = nn.BatchNorm1d(2)
    assert current_notes() is None
    bn(np.arange(8, dtype=np.float32).reshape(4, 2))
    assert (bn.running_mean != 0).all()


@pytest.mark.parametrize("sizes", [(4, 4), (2, 7, 1)])
def test_shards_merged_equal_the_weighted_formula(sizes, device):
    bn = nn.BatchNorm2d(3).to(device)
    (x,) = batches(1, (sum(sizes), 3, 4, 5))
    shards = np.split(x, np.cumsum(sizes)[:-1])
    recorded = []
    for shard in shards:
        with nn.record_notes() as notes:
            bn(to_device(shard, device))
        recorded.append(notes)
    np.testing.assert_array_equal(to_numpy(bn.running_mean), np.zeros(3))  # nothing written yet
    nn.merge_notes(recorded)
    mean, var = expected_update(np.zeros(3), np.ones(3), shards, 0.1)
    np.testing.assert_allclose(to_numpy(bn.running_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(bn.running_var), var, rtol=1e-5)


def test_one_shard_is_the_same_as_no_shards_to_the_bit():
    one, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    (x,) = batches(1)
    one(x)
    with nn.record_notes() as notes:
        other(x)
    nn.merge_notes([notes])
    np.testing.assert_array_equal(one.running_mean, other.running_mean)
    np.testing.assert_array_equal(one.running_var, other.running_var)


def test_each_module_gets_its_own_notes_in_the_order_of_shards():
    class Listener(nn.Module):
        def forward(self, x):
            self.note(x)
            return x

        def merge(self, notes):
            self.heard = notes

    net = nn.Sequential(Listener(), Listener())
    shards = []
    for i in (2, 1, 3):
        with nn.record_notes() as notes:
            net(i)
        shards.append(notes)
    nn.merge_notes(shards)
    assert [m.heard for m in net] == [[2, 1, 3], [2, 1, 3]]


def test_recording_nests_and_belongs_to_its_thread():
    bn = nn.BatchNorm1d(2)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    with nn.record_notes() as outer:
        with nn.record_notes() as inner:
            bn(x)
        assert (len(outer), len(inner)) == (0, 1)
        bn(x)
        assert len(outer) == 1
        other = threading.Thread(target=bn, args=(x,))
        other.start()
        other.join()
        assert len(outer) == 1
    assert (bn.running_mean != 0).all()  # the other thread was in no step


def test_a_module_that_notes_must_say_how_to_merge():
    with pytest.raises(NotImplementedError, match="Module notes things but does not define merge"):
        nn.Module().note(1)


def test_an_evaluating_batch_norm_notes_nothing():
    bn = nn.BatchNorm1d(2).eval()
    with nn.record_notes() as notes:
        bn(np.zeros((3, 2), np.float32))
    assert notes == []


def test_momentum_merges_once_per_step_not_once_per_shard():
    """Two equal shards move the statistics as far as one, where two updates would go further."""
    one, two = nn.BatchNorm2d(3, momentum=0.5), nn.BatchNorm2d(3, momentum=0.5)
    (x,) = batches(1)
    shards = []
    for _ in range(2):
        with nn.record_notes() as notes:
            two(x)
        shards.append(notes)
    nn.merge_notes(shards)
    one(x)
    np.testing.assert_allclose(two.running_mean, one.running_mean, rtol=1e-6)


def test_merging_inside_a_recording_passes_the_notes_on():
    bn = nn.BatchNorm2d(3)
    with nn.record_notes() as outer:
        with nn.record_notes() as inner:
            bn(batches(1)[0])
        nn.merge_notes([inner])
        assert outer == inner
    np.testing.assert_array_equal(bn.running_mean, np.zeros(3))
