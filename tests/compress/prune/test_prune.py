"""The verb ``prune``: what it changes, what it leaves alone, what it refuses."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinycompress import nn, optim, random
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import (
    choose_masks,
    prune,
    remove_channels,
    sparsity_report,
    strip,
)
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.data import Dataset
from tinycompress.train import fit


def small_net():
    """Two convolutions, two linear layers, batch norm; 300 weights to prune."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 4, 3),  # 36 weights
            "norm": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "conv2": nn.Conv2d(4, 4, 3),  # 144
            "flatten": nn.Flatten(),  # (N, 4, 2, 2) -> (N, 16)
            "fc1": nn.Linear(16, 6),  # 96
            "fc2": nn.Linear(6, 4),  # 24
        }
    )


def small_data(n=24):
    rng = np.random.default_rng(7)
    return Dataset(rng.random((n, 1, 6, 6), dtype=np.float32), rng.integers(0, 4, n))


LAYERS = ("conv1", "conv2", "fc1", "fc2")
IMPORTANCES = ("magnitude", "l2", "lamp", "gradient", "taylor", "snip", "random")


def weights_of(model):
    return {name: to_numpy(model.get_submodule(name).weight.data) for name in LAYERS}


def bytes_of(model):
    state = {name: to_numpy(a).tobytes() for name, a in model.state_dict().items()}
    masks = {name: p.mask for name, p in model.named_parameters()}
    return state, masks, [m.training for m in model.modules()]


# ------------------------------------------------------------------------------ exact counts


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["global", "local"]))
def test_zeros_are_exactly_the_rounded_share(sparsity, scope):
    thin = prune(small_net(), sparsity, scope=scope)
    zeros = {name: int((w == 0).sum()) for name, w in weights_of(thin).items()}
    if scope == "global":
        assert sum(zeros.values()) == min(round(sparsity * 300), 300 - 4)
    else:
        sizes = {name: w.size for name, w in weights_of(thin).items()}
        assert zeros == {name: min(round(sparsity * n), n - 1) for name, n in sizes.items()}


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_every_criterion_prunes_the_share_asked_for(importance, scope, device):
    model = small_net().to(device)
    thin = prune(model, 0.75, importance=importance, scope=scope, data=small_data())
    assert sparsity_report(thin).zeros == 225
    for name in LAYERS:
        p = thin.get_submodule(name).weight
        assert p.mask.dtype == bool
        np.testing.assert_array_equal(to_numpy(p.mask), to_numpy(p.data) != 0)
        assert p.device == model.device


def test_random_importance_prunes_the_share_that_it_says():
    thin = prune(small_net(), 0.3, importance="random", seed=5)
    assert sparsity_report(thin).zeros == 90, "0.3 is what goes, not what stays"


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_choice_is_the_same_on_every_device(importance, cupy):
    here = small_net()
    there = here.copy().to("cuda")
    masks = [
        {
            name: to_numpy(p.mask)
            for name, p in prune(
                m, 0.6, importance=importance, data=small_data()
            ).named_parameters()
            if p.mask is not None
        }
        for m in (here, there)
    ]
    differing = sum(int((masks[0][n] != masks[1][n]).sum()) for n in masks[0])
    # Derivatives are summed in another order on a GPU, so neighbours in the ranking may change.
    assert differing <= (2 if importance in ("gradient", "taylor", "snip") else 0)


def test_layers_may_have_amounts_of_their_own():
    thin = prune(small_net(), {"fc1": 0.9, "conv2": 0.25})
    zeros = {layer.name: layer.zeros for layer in sparsity_report(thin).layers}
    assert zeros == {"conv1": 0, "conv2": 36, "fc1": 86, "fc2": 0}
    assert thin.get_submodule("conv1").weight.mask is None


def test_skipped_layers_are_neither_pruned_nor_counted():
    thin = prune(small_net(), 0.5, skip=["conv1", "fc2"])
    report = sparsity_report(thin)
    assert (report["conv1"].zeros, report["fc2"].zeros, report.zeros) == (0, 0, 120)


def test_global_pruning_takes_from_the_layer_with_small_weights():
    model = small_net()
    model.get_submodule("fc1").weight.data *= 1e-3
    report = sparsity_report(prune(model, 0.4))
    assert report["fc1"].zeros == 95, "all but the one that keeps the layer alive"


def test_a_single_layer_is_a_model_too():
    assert sparsity_report(prune(nn.Linear(10, 10), 0.37)).zeros == 37


def test_a_weight_that_two_layers_share_is_pruned_once():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    thin = prune(model, 0.4)
    assert sparsity_report(thin).weights == 25
    assert sparsity_report(thin).zeros == 10
    assert thin[1].weight is thin[0].weight


# ---------------------------------------------------------------------------------- channels


@pytest.mark.parametrize("importance", [*IMPORTANCES, "geometric_median"])
def test_channels_go_with_their_bias_and_norm_and_can_then_be_removed(importance, device):
    model, data = small_net().to(device), small_data()
    options = {"structure": "channel", "scope": "local", "data": data}
    thin = prune(model, 0.5, importance, **options)
    masks = {name: to_numpy(p.mask) for name, p in thin.named_parameters() if p.mask is not None}
    both = {
        f"{layer}.{own}"
        for layer in ("conv1", "norm", "conv2", "fc1")
        for own in ("weight", "bias")
    }
    assert set(masks) == both
    for name, mask in masks.items():
        kept = mask.reshape(len(mask), -1)
        assert (kept.all(axis=1) == kept.any(axis=1)).all(), name
        assert kept.any(axis=1).sum() == len(mask) // 2
    chosen = choose_masks(model, 0.5, importance, **options)
    assert chosen.keys() == masks.keys()
    fit(thin, data, 2, optim.SGD(thin.parameters(), lr=0.05, momentum=0.9), batch_size=8)
    for name, p in thin.named_parameters():
        assert name not in masks or not to_numpy(p.data)[~masks[name]].any()
    small = remove_channels(thin.eval())
    x = data.to(thin.device).images
    np.testing.assert_allclose(to_numpy(small(x).data), to_numpy(thin(x).data), atol=1e-5)
    assert sum(p.size for p in small.parameters()) < sum(p.size for p in thin.parameters()) / 2


def test_channels_are_not_ranked_anew_and_need_a_sparsity():
    with pytest.raises(ValueError, match="regrow=True is of weights, kernels and rows"):
        choose_masks(small_net(), 0.5, structure="channel", regrow=True)
    with pytest.raises(TypeError, match="sparsity must be a number, got None"):
        prune(small_net(), structure="channel")
    with pytest.raises(ValueError, match="importance 'movement' adds up"):
        prune(small_net(), 0.5, "movement", structure="channel")


# ---------------------------------------------------------------------- what is left as it was


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_original_is_untouched_to_the_bit(importance):
    model = small_net()
    model.get_submodule("norm").eval()
    before = bytes_of(model)
    prune(model, 0.5, importance=importance, data=small_data())
    assert bytes_of(model) == before


def test_biases_norms_and_kept_weights_are_untouched_to_the_bit():
    model = small_net()
    thin = prune(model, 0.5)
    masked = {f"{name}.weight" for name in LAYERS}
    for name, p in thin.named_parameters():
        old = dict(model.named_parameters())[name].data
        if name in masked:
            assert p.data[p.mask].tobytes() == old[p.mask].tobytes()
        else:
            assert p.mask is None
            assert p.data.tobytes() == old.tobytes()


def test_pruning_draws_no_random_numbers_of_others():
    model, before = small_net(), random.get_state()
    for importance in IMPORTANCES:
        prune(model, 0.5, importance=importance, data=small_data())
    assert random.get_state() == before


def test_frozen_weights_are_pruned_too_and_stay_frozen():
    model = small_net().requires_grad_(False)
    thin = prune(model, 0.5, importance="gradient", data=small_data())
    assert sparsity_report(thin).zeros == 150
    assert not any(p.requires_grad for p in thin.parameters())


# ------------------------------------------------------------------------- pruning what is pruned


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.sampled_from(["global", "local"]))
def test_pruning_again_only_adds_zeros(a, b, scope):
    low, high = sorted((a, b))
    once = prune(small_net(), low, scope=scope)
    for importance in ("magnitude", "random"):
        twice = prune(once, high, scope=scope, importance=importance)
        for name in LAYERS:
            first, second = once.get_submodule(name).weight, twice.get_submodule(name).weight
            assert (second.mask <= first.mask).all()
        n = round(high * 300) if scope == "global" else None
        assert n is None or sparsity_report(twice).zeros == min(n, 296)


def test_sparsity_is_of_all_weights_and_not_of_those_left():
    assert sparsity_report(prune(prune(small_net(), 0.5), 0.6)).zeros == 180


def test_pruning_to_the_same_sparsity_changes_nothing():
    once = prune(small_net(), 0.7)
    twice = prune(once, 0.7, importance="random")
    for name in LAYERS:
        np.testing.assert_array_equal(
            once.get_submodule(name).weight.mask, twice.get_submodule(name).weight.mask
        )


def test_less_than_is_pruned_already_is_refused():
    once = prune(small_net(), 0.7)
    with pytest.raises(ValueError, match=r"210 of 300 weights pruned already"):
        prune(once, 0.5)
    with pytest.raises(ValueError, match=r"layer 'fc1' has"):
        prune(prune(small_net(), {"fc1": 0.9}), 0.5, scope="local")


def test_zeros_whose_mask_was_lost_count_as_pruned():
    bare = strip(prune(small_net(), 0.5))
    again = prune(bare, 0.5, importance="random")
    for name in LAYERS:
        p = again.get_submodule(name).weight
        np.testing.assert_array_equal(p.mask, bare.get_submodule(name).weight.data != 0)


# -------------------------------------------------------------------------------------- counting


def test_the_report_counts_zeros_and_not_masks():
    thin = prune(small_net(), 0.5)
    thin.get_submodule("fc1").weight.data[...] = 1.0  # in spite of the mask
    thin.get_submodule("conv1").weight.data[...] = 0.0
    report = sparsity_report(thin)
    assert (report["fc1"].zeros, report["conv1"].zeros) == (0, 36)
    assert report.zeros == sum(int((w == 0).sum()) for w in weights_of(thin).values())


def test_the_report_reads_as_a_table():
    report = sparsity_report(prune(small_net(), 0.5, scope="local"))
    assert report.sparsity == 0.5
    assert report["fc2"].sparsity == 0.5
    assert [line.split()[0] for line in str(report).splitlines()] == [*LAYERS, "total"]
    assert str(report).splitlines()[-1].split()[1:] == ["150", "of", "300", "zero", "50.00%"]
    with pytest.raises(KeyError, match="no layer 'fc9'"):
        report["fc9"]


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_zeros_are_still_there_and_counted_after_quantization(scheme, device):
    thin = prune(small_net().to(device), 0.8)
    coded = quantize(thin, QuantConfig(bits=8, scheme=scheme))
    report = sparsity_report(coded)
    assert report.zeros >= 240
    for name in LAYERS:
        w = to_numpy(coded.get_submodule(name).weight.data)
        assert report[name].zeros == (w == 0).sum()
        assert not w[~to_numpy(thin.get_submodule(name).weight.mask)].any()
    with pytest.raises(ValueError, match="whose codes are not pruned"):
        prune(coded, 0.9)


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("sparsity", [1.0, 1, -0.1, float("nan"), float("inf"), {"fc1": 1.0}, {}])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        prune(small_net(), sparsity)


@pytest.mark.parametrize("sparsity", [True, "0.5", None, {"fc1": "half"}])
def test_a_sparsity_that_is_no_number_is_refused(sparsity):
    with pytest.raises(TypeError, match=r"sparsity.* must be a number"):
        prune(small_net(), sparsity)


def test_names_that_do_not_exist_are_refused():
    known = "'conv1', 'conv2', 'fc1', 'fc2'"
    with pytest.raises(ValueError, match=f"sparsity: .*'fc9'; there are {known}"):
        prune(small_net(), {"fc9": 0.5})
    with pytest.raises(ValueError, match=f"skip: .*'relu'; there are {known}"):
        prune(small_net(), 0.5, skip="relu")
    with pytest.raises(ValueError, match=r"sparsity: .*'fc1'"):
        prune(small_net(), {"fc1": 0.5}, skip="fc1")


def test_a_model_without_layers_to_prune_is_refused():
    for model in (nn.ReLU(), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))):
        with pytest.raises(ValueError, match="has no layer to prune"):
            prune(model, 0.5)
        with pytest.raises(ValueError, match="has no Linear or Conv2d layer"):
            sparsity_report(model)
    with pytest.raises(ValueError, match="has no layer to prune"):
        prune(nn.Sequential({"fc": nn.Linear(2, 2)}), 0.5, skip=["fc"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_layer(value):
    model = small_net()
    model.get_submodule("fc1").weight.data[0, :2] = value
    with pytest.raises(ValueError, match="layer 'fc1' holds 2 weights that are NaN or infinite"):
        prune(model, 0.5)
    assert sparsity_report(prune(model, 0.5, skip="fc1")).zeros == 102


@pytest.mark.parametrize("importance", ["gradient", "taylor", "snip"])
def test_a_criterion_with_derivatives_asks_for_data(importance):
    with pytest.raises(ValueError, match=f"importance '{importance}' .* give data="):
        prune(small_net(), 0.5, importance=importance)


def test_what_is_no_model_no_data_set_and_no_name_is_refused():
    with pytest.raises(TypeError, match="a model is what can be pruned, got dict"):
        prune({}, 0.5)
    images = small_data().images
    with pytest.raises(TypeError, match="data must be a Dataset of images and labels, got ndarray"):
        prune(small_net(), 0.5, "taylor", data=images)
    with pytest.raises(ValueError, match="sparsity: there is no prunable layer 0; there are"):
        prune(small_net(), {0: 0.5})


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="importance must be one of 'magnitude', "):
        prune(small_net(), 0.5, importance="size")
    with pytest.raises(ValueError, match="scope must be one of 'global', 'local'"):
        prune(small_net(), 0.5, scope="everywhere")
