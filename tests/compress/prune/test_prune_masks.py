"""A pruned weight stays 0 through any optimizer, a copy, a checkpoint, until masks are stripped."""

import copy
import pickle

import numpy as np
import pytest

from tinycompress import nn, optim
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.prune import apply_masks, cubic, prune, sparsity_report, strip
from tinycompress.data import Dataset
from tinycompress.train import Callback, CheckpointError, evaluate, fit

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.003, momentum=0.9, centered=True, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def net():
    """216 weights to prune."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 4, 3),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),  # (N, 4, 3, 3) -> (N, 36)
            "fc": nn.Linear(36, 5),
        }
    )


def blobs(n=256, seed=1):
    """Images of one of five patterns, with noise."""
    patterns = np.random.default_rng(0).random((5, 1, 5, 5))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    images = patterns[labels] + rng.normal(0, 0.25, (n, 1, 5, 5))
    return Dataset(images.astype(np.float32), labels, name="blobs")


def masked(model):
    return {name: p for name, p in model.named_parameters() if p.mask is not None}


def held(model):
    """Whether every pruned weight is 0 and most of the others are not."""
    for p in masked(model).values():
        w, mask = to_numpy(p.data), to_numpy(p.mask)
        if w[~mask].any() or not w[mask].all():
            return False
    return bool(masked(model))


class Watch(Callback):
    """Looks after every single step."""

    def __init__(self):
        self.steps = 0

    def on_step_end(self, run):
        self.steps += 1
        assert held(run.model)
        for position, state in run.optimizer.state.items():
            mask = list(run.model.parameters())[position].mask
            if mask is not None:
                for array in (a for a in state.values() if not isinstance(a, int)):
                    assert not to_numpy(array)[~to_numpy(mask)].any()


# ------------------------------------------------------------------------------- through training


@each_optimizer
def test_masks_hold_through_training(make, device):
    thin = prune(net().to(device), 0.7)
    before = {name: to_numpy(p.data).copy() for name, p in thin.named_parameters()}
    watch = Watch()
    epochs = 5 if device == "cpu" else 1
    fit(thin, blobs(128), epochs, make(thin.parameters()), batch_size=16, callbacks=[watch])
    assert watch.steps == epochs * 8
    assert sparsity_report(thin).zeros == round(0.7 * 216)
    for name, p in thin.named_parameters():
        assert (to_numpy(p.data) != before[name]).any(), "training did change what is left"


@each_optimizer
def test_masks_that_come_in_the_middle_of_training_stop_the_momentum(make):
    model = net()
    optimizer = make(model.parameters())
    fit(model, blobs(64), 1, optimizer, batch_size=16)
    apply_masks(model, {"fc": np.arange(180).reshape(5, 36) % 3 == 0})
    fit(model, blobs(64), 3, optimizer, batch_size=16, callbacks=[Watch()])
    assert sparsity_report(model)["fc"].zeros == 120


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, nn.Module.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_keeps_masks_of_its_own(duplicate):
    thin = prune(net(), 0.7)
    twin = duplicate(thin)
    fit(twin, blobs(64), 3, OPTIMIZERS["momentum"](twin.parameters()), callbacks=[Watch()])
    assert sparsity_report(twin).zeros == sparsity_report(thin).zeros
    masked(twin)["fc.weight"].mask[...] = True
    assert not masked(thin)["fc.weight"].mask.all()


def test_masks_move_with_the_model(cupy):
    thin = prune(net(), 0.7).to("cuda")
    fit(thin, blobs(64), 1, OPTIMIZERS["adam"](thin.parameters()), callbacks=[Watch()])
    back = thin.to("cpu")
    fit(back, blobs(64), 1, OPTIMIZERS["adam"](back.parameters()), callbacks=[Watch()])
    assert sparsity_report(back).zeros == round(0.7 * 216)


def test_a_resumed_run_has_its_masks_again(tmp_path):
    """Resumed into a model that was never pruned, the checkpoint's masks hold all the same."""
    make, file = OPTIMIZERS["momentum"], tmp_path / "run.safetensors"
    whole = prune(net(), 0.7)
    broken = whole.copy()
    fit(whole, blobs(64), 4, make(whole.parameters()), batch_size=16)
    fit(broken, blobs(64), 2, make(broken.parameters()), batch_size=16, checkpoint=file)
    fresh = net()
    options = {"checkpoint": file, "resume": True, "callbacks": [Watch()]}
    fit(fresh, blobs(64), 4, make(fresh.parameters()), batch_size=16, **options)
    for (name, p), q in zip(whole.named_parameters(), fresh.parameters(), strict=True):
        assert p.data.tobytes() == q.data.tobytes(), name


def test_a_resume_never_takes_masks_off(tmp_path):
    dense, file = net(), tmp_path / "run.safetensors"
    fit(dense, blobs(64), 1, OPTIMIZERS["sgd"](dense.parameters()), checkpoint=file)
    thin = prune(net(), 0.7)
    before = sparsity_report(thin)
    options = {"checkpoint": file, "resume": True}
    with pytest.raises(CheckpointError, match=r"conv\.weight is pruned here and was not there"):
        fit(thin, blobs(64), 2, OPTIMIZERS["sgd"](thin.parameters()), **options)
    assert sparsity_report(thin) == before
    assert held(thin)


def test_a_stripped_model_keeps_its_zeros_until_it_is_trained():
    thin = prune(net(), 0.7)
    bare = strip(thin)
    assert not masked(bare)
    assert sparsity_report(bare) == sparsity_report(thin)
    assert held(thin), "the one that was given is left alone"
    fit(bare, blobs(64), 1, OPTIMIZERS["sgd"](bare.parameters()))
    assert sparsity_report(bare).zeros < 20


def test_a_mask_is_applied_as_it_is_and_on_the_right_device(device):
    model = net().to(device)
    mask = np.arange(36).reshape(4, 1, 3, 3) % 2 == 0
    before = to_numpy(model.get_submodule("conv").weight.data).copy()
    apply_masks(model, {"conv": to_device(mask, device)})
    p = model.get_submodule("conv").weight
    np.testing.assert_array_equal(to_numpy(p.mask), mask)
    np.testing.assert_array_equal(to_numpy(p.data), np.where(mask, before, 0))
    assert not np.signbit(to_numpy(p.data)[~mask]).any(), "a plain zero, not a negative one"


def test_masks_that_do_not_fit_are_refused_and_change_nothing():
    model = net()
    good, bad = np.zeros((4, 1, 3, 3), dtype=bool), np.zeros((36, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"layer 'fc' must be bool\(5, 36\), got bool\(36, 5\)"):
        apply_masks(model, {"conv": good, "fc": bad})
    with pytest.raises(ValueError, match="no prunable layer 'relu'"):
        apply_masks(model, {"conv": good, "relu": good})
    assert not masked(model)
    assert sparsity_report(model).zeros == 0


# ------------------------------------------------------------------------- prune, retrain, prune


@pytest.fixture(scope="module")
def trained():
    model = net()
    fit(model, blobs(512), 8, optim.SGD(model.parameters(), lr=0.05, momentum=0.9), batch_size=32)
    return model


def accuracy(model):
    return evaluate(model, blobs(500, seed=2)).accuracy


def test_retraining_recovers_what_pruning_lost(trained):
    thin = prune(trained, 0.85)
    lost = accuracy(thin)
    fit(thin, blobs(512), 8, optim.SGD(thin.parameters(), lr=0.05, momentum=0.9), batch_size=32)
    assert sparsity_report(thin).zeros == round(0.85 * 216)
    assert lost < accuracy(trained) - 0.05
    assert accuracy(thin) > accuracy(trained) - 0.02


def test_prune_and_retrain_in_rounds_reaches_the_target(trained):
    model = trained
    for k in (1, 2, 3):
        model = prune(model, cubic(k / 3, 0.9))
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        fit(model, blobs(512), 3, optimizer, batch_size=32)
    assert sparsity_report(model).zeros == round(0.9 * 216)
    assert accuracy(model) > accuracy(trained) - 0.05


def test_magnitude_loses_less_than_chance(trained):
    by_magnitude = accuracy(prune(trained, 0.5))
    by_chance = np.mean(
        [accuracy(prune(trained, 0.5, importance="random", seed=s)) for s in range(5)]
    )
    assert by_magnitude > by_chance + 0.05


def test_taylor_loses_less_than_chance(trained):
    data = blobs(512)
    by_taylor = accuracy(prune(trained, 0.3, importance="taylor", data=data))
    by_chance = np.mean(
        [accuracy(prune(trained, 0.3, importance="random", seed=s)) for s in range(5)]
    )
    assert by_taylor > by_chance
