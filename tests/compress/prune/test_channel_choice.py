"""Which channels go: counted by hand, and ranked by definitions written out."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.compress.prune.channels import channel_masks, channel_sets
from tinycompress.compress.prune.gradients import mean_gradients
from tinycompress.compress.prune.masks import apply_masks

rng = np.random.default_rng(0)


def kept(model, layer, *arguments, **options):
    """Which output channels of a layer stay."""
    masks = channel_masks(model, *arguments, **options)
    rows = model.get_submodule(layer).weight.shape[0]
    return masks.get(f"{layer}.bias", np.ones(rows, bool))


def lowest(scores, number):
    """True but for the lowest ones; of equals the first."""
    keep = np.ones(len(scores), bool)
    keep[np.argsort(scores, kind="stable")[:number]] = False
    return keep


def convolutions():
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 6, 3), nn.ReLU())
    return nn.Sequential({"a": model[0], "r": model[1], "b": model[2], "c": nn.Conv2d(6, 2, 1)})


@pytest.mark.parametrize("amount", [0, 0.05, 0.15, 0.25, 0.5, 0.75, 0.99])
def test_the_number_is_the_rounded_share_of_each_layer(amount):
    model = convolutions()
    for layer, channels in (("a", 10), ("b", 6)):
        gone = int((~kept(model, layer, amount)).sum())
        assert gone == min(round(amount * channels), channels - 1)
    assert "c.weight" not in channel_masks(model, amount)


def rows(w):
    return w.reshape(len(w), -1)


BY_DEFINITION = {
    "magnitude": lambda w: np.abs(rows(w)).sum(1),
    "l2": lambda w: np.sqrt((rows(w) ** 2).sum(1)),
    "geometric_median": lambda w: np.array(
        [sum(np.linalg.norm(a - b) for b in rows(w)) for a in rows(w)]
    ),
}


@pytest.mark.parametrize("importance", BY_DEFINITION)
def test_importances_by_their_definitions(device, importance):
    model = convolutions()
    for layer, number in (("a", 4), ("b", 2)):
        w = model.get_submodule(layer).weight.data.astype(np.float64)
        expected = lowest(BY_DEFINITION[importance](w), number)
        found = kept(model.copy().to(device), layer, 0.4, importance)
        np.testing.assert_array_equal(found, expected)


def test_the_geometric_median_takes_what_the_others_can_stand_for():
    """Not the smallest filter, but the one in the middle."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    model[0].weight.data[...] = [[5, 5], [6, 5], [5, 6], [0.1, 0]]
    assert kept(model, "0", 0.25, "geometric_median").tolist() == [False, True, True, True]
    assert kept(model, "0", 0.25, "magnitude").tolist() == [True, True, True, False]


def test_network_slimming_ranks_by_gamma():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model[1].weight.data[...] = [0.5, -0.1, 0.2, -2]
    masks = channel_masks(model, 0.5, "batch_norm")
    keep = [True, False, False, True]
    assert masks.keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}
    for name in ("0.bias", "1.weight", "1.bias"):
        assert masks[name].tolist() == keep
    assert masks["0.weight"].any(axis=(1, 2, 3)).tolist() == keep
    assert masks["0.weight"].sum() == 2 * 9


def test_criteria_that_look_at_the_loss():
    model = convolutions()
    model.d = nn.Flatten()
    model.e = nn.Linear(2, 3)
    data = tc.data.Dataset(rng.normal(size=(12, 1, 5, 5)).astype("f"), np.arange(12) % 3)
    g = mean_gradients(model, ["a"], data)["a"]
    by_hand = np.abs(rows(g * model.a.weight.data)).sum(1)
    expected = lowest(by_hand, 5)
    np.testing.assert_array_equal(kept(model, "a", 0.5, "taylor", data=data), expected)
    own = kept(model, "a", 0.5, lambda w, g: w * 0 if g is None else np.abs(w * g), data=data)
    np.testing.assert_array_equal(own, expected)


class Sum(nn.Module):
    """Two convolutions that are added, and a third one that reads the sum."""

    def __init__(self, n=6):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, n, 1), nn.Conv2d(1, n, 3, padding=1)
        self.free = nn.Conv2d(n, 8, 1)
        self.c = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.c(F.relu(self.free(F.relu(self.a(x) + self.b(x)))))


@pytest.mark.parametrize("importance", ["magnitude", "l2"])
def test_a_group_s_importance_is_that_of_all_its_rows(importance):
    model = Sum(12)
    model.b.weight.data *= 3  # as large as a's
    both = np.concatenate([rows(model.a.weight.data), rows(model.b.weight.data)], axis=1)
    expected = lowest(BY_DEFINITION[importance](both), 6)
    for layer in ("a", "b"):
        np.testing.assert_array_equal(kept(model, layer, 0.5, importance), expected)
    alone = lowest(BY_DEFINITION[importance](model.a.weight.data), 6)
    assert (alone != expected).any()  # else this test could not fail


def test_globally_all_groups_are_ranked_together():
    model = Sum()
    model.free.weight.data *= 0.5
    tied = rows(np.abs(model.a.weight.data)).sum(1) + rows(np.abs(model.b.weight.data)).sum(1)
    scores = np.concatenate([tied, rows(np.abs(model.free.weight.data)).sum(1)])
    expected = lowest(scores, round(0.4 * 14))
    np.testing.assert_array_equal(kept(model, "a", 0.4, scope="global"), expected[:6])
    np.testing.assert_array_equal(kept(model, "free", 0.4, scope="global"), expected[6:])


def test_of_equals_the_first_go_and_the_last_stay():
    model = convolutions()
    for p in model.parameters():
        p.data[...] = 1
    assert kept(model, "a", 0.5).tolist() == [False] * 5 + [True] * 5
    assert kept(model, "a", 0.5, scope="global").tolist() == [False] * 8 + [True] * 2


def test_no_layer_dies_globally():
    model = convolutions()
    model.a.weight.data *= 1e-3
    masks = channel_masks(model, 0.8, scope="global")
    gone = {n: int((~m).sum()) for n, m in masks.items() if n.endswith("bias")}
    assert gone == {"a.bias": 9, "b.bias": 4}  # 13 of 16: 0.8 · 16


@pytest.mark.parametrize(
    ("floor", "left"),
    [
        (0, (1, 1)),
        (1, (1, 1)),
        (3, (3, 3)),
        (0.5, (5, 3)),
        ({"a": 4}, (4, 1)),
        ({"a": 0.25}, (3, 1)),
    ],
)
def test_floors(floor, left):
    model = convolutions()
    found = tuple(int(kept(model, n, 0.99, keep_at_least=floor).sum()) for n in ("a", "b"))
    assert found == left
    assert tc.remove_channels(model, 0.99, keep_at_least=floor).a.out_channels == left[0]


def test_amounts_by_name_and_pattern():
    model = convolutions()
    slim = tc.remove_channels(model, {"[ab]": 0.5, "b": 0.0})
    assert (slim.a.out_channels, slim.b.out_channels) == (5, 6)
    slim = tc.remove_channels(model, {"b": 0.5})
    assert (slim.a.out_channels, slim.b.out_channels) == (10, 3)
    with pytest.raises(ValueError, match=r"'a': 0\.5, 'b': 0\.2 go together"):
        tc.remove_channels(Sum(), {"a": 0.5, "b": 0.2})
    both = tc.remove_channels(Sum(), {"a": 0.5})
    assert both.a.out_channels == both.b.out_channels == 3
    with pytest.raises(ValueError, match="amount names no layer"):
        tc.remove_channels(model, {})


def test_sets_of_layers_whose_channels_hang_together():
    assert channel_sets(Sum()) == [("a", "b"), ("free",)]
    assert channel_sets(Sum(), skip="free") == [("a", "b")]
    assert channel_sets(convolutions()) == [("a",), ("b",)]
    mixed = nn.Sequential({"a": nn.Linear(3, 4), "s": nn.Softmax(), "b": nn.Linear(4, 2)})
    assert channel_sets(mixed) == []


def test_a_skipped_layer_holds_what_is_tied_to_it():
    slim = tc.remove_channels(Sum(), 0.5, skip="a")
    assert (slim.a.out_channels, slim.b.out_channels, slim.free.out_channels) == (6, 6, 4)
    with pytest.raises(ValueError, match=r"'b' are .* tied to these or to a skipped layer"):
        tc.remove_channels(Sum(), {"b": 0.5}, skip="a")


def test_what_was_pruned_goes_first_and_stays_pruned():
    model = convolutions()
    largest = int(np.argmax(np.abs(rows(model.a.weight.data)).sum(1)))
    mask = np.ones(model.a.weight.shape, bool)
    mask[largest] = False
    apply_masks(model, {"a": mask})
    assert not kept(model, "a", 0.1)[largest]
    once = tc.prune(model, 0.3, structure="channel", scope="local")
    again = tc.prune(once, 0.6, structure="channel", scope="local")
    assert (again.a.weight.mask <= once.a.weight.mask).all()
    assert int((~again.a.bias.mask).sum()) == 6
    with pytest.raises(ValueError, match="6 are pruned already, and 2 were asked for"):
        tc.prune(again, 0.2, structure="channel", scope="local")


def test_a_pruned_group_goes_first_whatever_its_importance():
    model = convolutions()
    mask = np.ones(model.a.weight.shape, bool)
    mask[7] = False
    apply_masks(model, {"a": mask})
    found = kept(model, "a", 0.1, lambda w, g: -np.abs(w))  # of which 0 is the largest
    assert np.flatnonzero(~found).tolist() == [7]


def test_pruned_weights_add_nothing_to_their_channel():
    model = convolutions()
    mask = np.ones(model.a.weight.shape, bool)
    mask[4, 0, 0] = False
    apply_masks(model, {"a": mask})
    found = kept(model, "a", 0.1, lambda w, g: np.ones_like(w))
    assert np.flatnonzero(~found).tolist() == [4]


def test_masks_of_single_weights_are_kept_in_what_stays():
    model = convolutions()
    mask = rng.random(model.b.weight.shape) < 0.5
    apply_masks(model, {"b": mask})
    found = channel_masks(model, 0.5)
    rows_left = found["b.bias"]
    np.testing.assert_array_equal(found["b.weight"][rows_left], mask[rows_left])


def test_groups_of_a_convolution_stay_equal():
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 1))
    slim = tc.remove_channels(model, 0.5)
    assert slim[1].config() | {"kernel_size": 3} == model[1].config() | {
        "kernel_size": 3, "in_channels": 4, "out_channels": 4,
    }  # fmt: skip
    keep = kept(model, "1", 0.5)
    np.testing.assert_array_equal(keep[:4], keep[4:])
    deep = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 2, 1))
    slim = tc.remove_channels(deep, 0.5)
    assert (slim[1].in_channels, slim[1].out_channels, slim[1].groups) == (4, 8, 4)


def test_pruned_in_training_the_channels_go_afterwards():
    """The masks that prune sets hold through training; then the channels are taken out."""
    train, _ = tc.data.mnist()
    thin = tc.prune(tc.models.TinyCNN(), 0.5, structure="channel", scope="local")
    optimizer = tc.optim.SGD(thin.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    tc.fit(thin, train.take(256), epochs=1, optimizer=optimizer)
    slim = tc.remove_channels(thin)
    assert (slim.conv1.out_channels, slim.conv2.out_channels) == (2, 4)
    x = train.images[:8]
    expected = thin.eval()(x).data
    np.testing.assert_allclose(slim.eval()(x).data, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_without_rank_are_refused(bad):
    model = convolutions()
    model.a.weight.data[0, 0, 0, 0] = bad
    for importance in ("magnitude", "geometric_median"):
        with pytest.raises(ValueError, match="layer 'a' holds 1 weights that are NaN"):
            channel_masks(model, 0.5, importance)
    model = convolutions()
    with pytest.raises(ValueError, match=r"'a' holds NaN|NaN, or"):
        channel_masks(model, 0.5, lambda w, g: w * np.nan)
