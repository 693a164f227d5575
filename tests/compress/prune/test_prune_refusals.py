"""What makes no sense is refused by the name of the argument, before anything has changed."""

import numpy as np
import pytest
from test_gradual import SGD, Zeros, net_of, trained
from test_prune_masks import blobs, net

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.prune import (
    DynamicSurgery,
    GradualPruning,
    MovementPruning,
    PruneConfig,
    apply_masks,
    channel_masks,
    choose_masks,
    lottery_ticket,
    prune,
    prune_iteratively,
    remove_channels,
    sparsity_report,
    strip,
)
from tinycompress.compress.prune.importance import layer_scores, snip, taylor

GRADUAL = lambda s=0.8, **more: GradualPruning(s, **more)  # noqa: E731
SURGERY = lambda s=0.8, **more: DynamicSurgery(s, **more)  # noqa: E731
MOVEMENT = lambda s=0.8, **more: MovementPruning(s, **more)  # noqa: E731
ALL = [GRADUAL, SURGERY, MOVEMENT]
PAIRS = [(a, b) for a in ALL for b in ALL if (a, b) != (GRADUAL, GRADUAL)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_that_prune_the_same_layers_are_refused_before_the_first_step(first, second):
    model, before = net_of(3), net_of(3)
    with pytest.raises(ValueError, match=r"both prune 'fc', .*skip"):
        trained(model, [first(skip="conv"), second(0.5)])
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        assert p.mask is None
        np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_on_layers_of_their_own_both_reach_their_targets(first, second):
    model = net_of(3)
    trained(model, [first(skip="conv"), second({"conv": 0.5})])
    report = sparsity_report(model)
    assert report["fc"].zeros == round(0.8 * 180)
    assert report["conv"].zeros == 18


@pytest.mark.parametrize("make", [SURGERY, MOVEMENT])
def test_one_callback_given_twice_is_refused(make):
    once = make()
    with pytest.raises(ValueError, match="both prune 'conv', 'fc'"):
        trained(net_of(3), [once, once])


def test_two_gradual_ones_add_up():
    model = net_of(3)
    trained(model, [GRADUAL(0.5), GRADUAL(0.8)])
    assert sparsity_report(model).zeros == round(0.8 * 216)


def test_channels_that_were_pruned_before_count():
    model = prune(net_of(3), 0.5, structure="channel", data=blobs(8))
    zeros = Zeros()
    ramp = GradualPruning(0.75, structure="channel", data=blobs(8), every=1, end=6)
    trained(model, [ramp, zeros])
    assert int(model.get_submodule("conv").weight.mask.sum()) == 9  # of 4 channels one stays


def test_channels_pruned_further_than_the_target_are_refused():
    model = prune(net_of(3), 0.75, structure="channel", data=blobs(8))
    with pytest.raises(ValueError, match="3 are pruned already, and 2 were asked for"):
        trained(model, [GradualPruning(0.5, structure="channel", data=blobs(8))])


# --------------------------------------------------------------------------------- small things

SKIPPING = {
    "prune": lambda skip: prune(net(), 0.5, skip=skip),
    "channels": lambda skip: remove_channels(net(), 0.5, sample=blobs(4), skip=skip),
    "gradual": lambda skip: GradualPruning(0.5, skip=skip),
    "surgery": lambda skip: DynamicSurgery(0.5, skip=skip),
    "movement": lambda skip: MovementPruning(0.5, skip=skip),
    "sensitivity": lambda skip: PruneConfig(skip=skip),
}


@pytest.mark.parametrize("use", SKIPPING.values(), ids=SKIPPING)
@pytest.mark.parametrize("skip", [None, 5])
def test_skip_takes_names(use, skip):
    with pytest.raises(TypeError, match=f"skip must be a name or pattern, .* got {skip}"):
        use(skip)


SEEDED = {
    "prune": lambda seed: prune(net(), 0.5, "random", seed=seed),
    "masks": lambda seed: channel_masks(net(), 0.5, "random", sample=blobs(4), seed=seed),
    "channels": lambda seed: remove_channels(net(), 0.5, sample=blobs(4), seed=seed),
    "gradual": lambda seed: GradualPruning(0.5, seed=seed),
    "surgery": lambda seed: DynamicSurgery(0.5, seed=seed),
    "sensitivity": lambda seed: PruneConfig(seed=seed),
}


@pytest.mark.parametrize("use", SEEDED.values(), ids=SEEDED)
@pytest.mark.parametrize("seed", ["x", -1, 1.5, None, True])
def test_a_seed_is_a_whole_number(use, seed):
    with pytest.raises((TypeError, ValueError), match=r"seed must be a whole number ≥ 0, got"):
        use(seed)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("schedule", [None, ["cubic"], "cubical", 3])
def test_a_schedule_is_a_name_or_a_function(make, schedule):
    with pytest.raises(ValueError, match="schedule must be one of 'cubic'"):
        make(schedule=schedule)


@pytest.mark.parametrize("verb", [strip, sparsity_report])
def test_only_a_model_has_zeros(verb):
    with pytest.raises(TypeError, match="a model, got NoneType"):
        verb(None)


def test_a_mask_is_an_array():
    with pytest.raises(ValueError, match=r"the mask of layer 'fc' must be bool\(5, 36\), got list"):
        apply_masks(net(), {"fc": [True]})


def test_importances_of_layers_that_there_are_not():
    given = {"conv": np.ones((4, 1, 3, 3)), "fc": np.ones((5, 36))}
    choose_masks(net(), 0.5, given, skip="conv")
    with pytest.raises(ValueError, match="importance: there is no prunable layer 'fc2'"):
        choose_masks(net(), 0.5, given | {"fc2": np.ones((5, 36))})


@pytest.mark.parametrize("structure", ["weight", "channel"])
def test_codes_are_not_pruned(structure):
    codes = tc.quantize(net(), tc.QuantConfig(bits=8))
    with pytest.raises(ValueError, match=r"'conv' is a QuantizedConv2d.*prune the float model"):
        prune(codes, 0.5, structure=structure, data=blobs(4))


@pytest.mark.parametrize("importance", [taylor, snip])
def test_products_of_half_precision_do_not_vanish(importance):
    """|w·g| of about 1e-9 is 0 in float16, and zeros would be ranked by index."""
    w = np.array([[3e-5, 1e-5, 2e-5, 4e-5]], np.float16)
    g = np.full((1, 4), 3e-5, np.float16)
    assert not (w * g).any()
    scores = layer_scores({"fc": nn.Parameter(w)}, {"fc": g}, importance)["fc"]
    assert scores.argsort().tolist() == [[1, 2, 0, 3]]


# ------------------------------------------------------------------------------------- in rounds

both = pytest.mark.parametrize("verb", [prune_iteratively, lottery_ticket])


@both
def test_rounds_may_be_numpys(verb):
    options = {"optimizer": SGD, "batch_size": 16, "workers": 1}
    done = verb(net_of(3), 0.5, np.int64(1), blobs(32), 1, **options)
    assert sparsity_report(getattr(done, "model", done)).zeros == 108


@both
@pytest.mark.parametrize("name", ["optimizer", "rates"])
@pytest.mark.parametrize("value", ["sgd", 0.1])
def test_what_makes_optimizers_and_rates_is_a_function(verb, name, value):
    with pytest.raises(TypeError, match=f"{name} must be a function .* got {value!r}"):
        verb(net_of(3), 0.5, 2, blobs(32), 1, **{name: value})


@both
@pytest.mark.parametrize("make", ALL)
def test_a_callback_that_prunes_too_is_refused(verb, make):
    with pytest.raises(ValueError, match="prunes by itself"):
        verb(net_of(3), 0.5, 2, blobs(32), 1, callbacks=[make()])
