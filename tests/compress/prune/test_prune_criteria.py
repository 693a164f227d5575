"""Every criterion against something slower: finite differences, a loop, torch."""

import numpy as np
import pytest

from tinycompress import functional as F, nn
from tinycompress.backend import to_numpy
from tinycompress.compress.prune import choose_masks, prune, snip
from tinycompress.compress.prune.gradients import BATCH_SIZE, batch_gradients
from tinycompress.compress.prune.importance import CRITERIA, ELSEWHERE, criterion
from tinycompress.compress.prune.layers import prunable_weights
from tinycompress.compress.prune.scores import weight_scores
from tinycompress.data import Dataset
from tinycompress.train import Supervised


def net(norm=False):
    """54 weights of a convolution and 48 of a linear layer."""
    return nn.Sequential(
        {
            "conv": nn.Conv2d(2, 3, 3),
            "norm": nn.BatchNorm2d(3) if norm else nn.Identity(),
            "act": nn.Tanh(),
            "flatten": nn.Flatten(),  # (N, 3, 2, 2) -> (N, 12)
            "fc": nn.Linear(12, 4),
        }
    ).to("float64")


def samples(n=7):
    rng = np.random.default_rng(2)
    return Dataset(rng.normal(size=(n, 2, 4, 4)), rng.integers(0, 4, n))


def slope(model, data, change, step=1e-5):
    """The loss's central difference along what ``change(t)`` does to the model."""
    losses = []
    for t in (step, -step):
        undo = change(t)
        losses.append(F.cross_entropy(model(data.images), data.labels).item())
        undo()
    return (losses[0] - losses[1]) / (2 * step)


def moved(array, index, by):
    """Add to one number; a function that takes it back."""
    old = array[index]
    array[index] = old + by
    return lambda: array.__setitem__(index, old)


def by_finite_differences(model, data, change):
    """|slope| for each weight, where ``change(w, index, t)`` says what moves."""
    return {
        name: np.array(
            [
                abs(slope(model, data, lambda t, w=p.data, i=i: moved(w, i, change(w[i], t))))
                for i in np.ndindex(p.shape)
            ]
        ).reshape(p.shape)
        for name, p in prunable_weights(model).items()
    }


# ------------------------------------------------------------------------ derivatives, slowly


def test_gradient_is_the_slope_of_the_loss():
    model, data = net(), samples()
    scores, _ = weight_scores(model, prunable_weights(model), "gradient", data)
    expected = by_finite_differences(model, data, lambda w, t: t)
    for name in scores:
        np.testing.assert_allclose(scores[name], expected[name], atol=1e-8)


def test_taylor_is_the_slope_of_the_loss_by_a_factor_on_the_weight():
    model, data = net(norm=True), samples()
    model.get_submodule("norm").running_var[...] = 2.0
    scores, _ = weight_scores(model, prunable_weights(model), "taylor", data)
    expected = by_finite_differences(model.eval(), data, lambda w, t: t * w)
    for name in scores:
        np.testing.assert_allclose(scores[name], expected[name], atol=1e-8)


@pytest.mark.parametrize("norm", [False, True])
def test_snip_is_the_share_of_that_slope_in_all_of_them(norm):
    """In training mode: what batch norm divides by is that of the batch, and moves too."""
    model, data = net(norm), samples()
    before = {name: to_numpy(a).copy() for name, a in model.state_dict().items()}
    scores, _ = weight_scores(model.eval(), prunable_weights(model), "snip", data)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(to_numpy(array), before[name])
    slopes = by_finite_differences(model.train(), data, lambda w, t: t * w)
    total = sum(s.sum() for s in slopes.values())
    for name in scores:
        np.testing.assert_allclose(scores[name], slopes[name] / total, atol=1e-7)
    assert sum(s.sum() for s in scores.values()) == pytest.approx(1)


def test_snip_and_taylor_agree_on_one_batch_without_batch_norm():
    model, data = net(), samples(100)
    one, other = (choose_masks(model, 0.6, i, data=data) for i in ("snip", "taylor"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_snip_draws_one_batch_from_many_samples_by_its_seed():
    model, data = net(), samples(BATCH_SIZE + 300)
    same, again, other = (batch_gradients(model, ["fc"], data, seed=s)["fc"] for s in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert (same != other).all()
    whole = batch_gradients(model, ["fc"], data.take(BATCH_SIZE), seed=1)["fc"]
    reference = batch_gradients(model, ["fc"], data.take(BATCH_SIZE), seed=2)["fc"]
    np.testing.assert_array_equal(whole, reference)


def test_snip_takes_the_loss_of_the_objective():
    model, data = net(), samples()
    squares = Supervised(lambda outputs, labels: (outputs * outputs).mean())
    usual, own = (batch_gradients(model, ["fc"], data, o)["fc"] for o in (None, squares))
    x = model.get_submodule("flatten")(
        model.get_submodule("act")(model.get_submodule("conv")(data.images))
    ).data
    y = x @ model.get_submodule("fc").weight.data.T + model.get_submodule("fc").bias.data
    np.testing.assert_allclose(own, 2 / y.size * y.T @ x, rtol=1e-9)
    assert (usual != own).any()


@pytest.mark.parametrize("importance", ["snip", "gradient", "taylor"])
def test_a_loss_that_is_not_finite_is_named(importance):
    model = net()
    model.get_submodule("fc").bias.data[0] = np.nan
    with pytest.raises(ValueError, match="the derivative of the loss by layer 'conv' is NaN"):
        prune(model, 0.5, importance, data=samples())


# --------------------------------------------------------------------------------- by hand


def test_units_are_reduced_as_documented():
    rows = np.array([[1.0, -3.0, 2.0], [0.0, 4.0, 0.0]])
    np.testing.assert_array_equal(criterion("magnitude").of_units(rows), [0, 4])
    np.testing.assert_allclose(criterion("l2").of_units(rows), [np.sqrt(14), 4])
    np.testing.assert_array_equal(criterion("random").of_units(rows), [1, 0])
    np.testing.assert_array_equal(criterion(lambda w, g: w).of_units(rows), [0, 4])


def test_importances_may_be_given_as_arrays_by_layer(device, rng):
    model = net()
    own = {n: rng.normal(size=p.shape) for n, p in prunable_weights(model).items()}
    by_arrays = choose_masks(model.to(device), 0.5, own)
    joined = np.concatenate([own["conv"].ravel(), own["fc"].ravel()])
    threshold = np.sort(joined)[len(joined) // 2]
    for name in own:
        np.testing.assert_array_equal(by_arrays[name], own[name] >= threshold)


def test_arrays_that_do_not_fit_are_refused():
    conv = np.ones((3, 2, 3, 3))
    for own, message in (
        ({"conv": conv}, "importance: there is none of layer 'fc'; there are those of 'conv'"),
        ({"conv": conv, "fc": np.ones((12, 4))}, r"'fc' must have the weight's shape \(4, 12\)"),
        ({"conv": conv * np.nan, "fc": np.ones((4, 12))}, "importance of layer 'conv' holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            prune(net(), 0.5, own)
    assert list(choose_masks(net(), 0.5, {"conv": conv}, skip="fc")) == ["conv"]


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ("movement", r"importance 'movement' adds up −w·g while .* callbacks=.MovementPruning"),
        ("batch_norm", r"importance 'batch_norm' ranks channels: give structure=.channel."),
        ("geometric_median", "importance 'geometric_median' ranks channels"),
        ("size", "importance must be one of 'magnitude', 'l2', 'lamp', 'gradient', 'taylor'"),
        (7, "importance must be one of .* got 7"),
    ],
)
def test_criteria_that_are_not_here_say_where_they_are(importance, message):
    with pytest.raises(ValueError, match=message):
        prune(net(), 0.5, importance)


def test_every_name_is_a_criterion_or_somewhere_else():
    assert not set(CRITERIA) & set(ELSEWHERE)
    assert criterion(snip) is criterion("snip")


@pytest.mark.parametrize("structure", ["weight", "kernel", "row", "2:4"])
@pytest.mark.parametrize("importance", [*CRITERIA, "random"])
def test_every_criterion_ranks_every_structure_on_every_device(importance, structure, device):
    model = net()
    s = None if structure == "2:4" else 0.5
    options = {"importance": importance, "structure": structure, "data": samples()}
    here, there = (choose_masks(m, s, **options) for m in (model, model.to(device)))
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])


# ------------------------------------------------------------------------------------ torch


@pytest.fixture
def torch_prune():
    pytest.importorskip("torch")
    return pytest.importorskip("torch.nn.utils.prune")


def in_torch(model):
    """Modules of torch with the same weights, by layer."""
    import torch

    modules = {}
    for name, p in prunable_weights(model).items():
        modules[name] = torch.nn.Module()
        weight = torch.nn.Parameter(torch.tensor(p.data))
        modules[name].register_parameter("weight", weight)
    return modules


def assert_masks_equal(masks, modules):
    for name, module in modules.items():
        np.testing.assert_array_equal(masks[name], module.weight_mask.numpy() == 1, err_msg=name)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.7, 0.8])
def test_magnitude_prunes_what_torch_prunes(torch_prune, sparsity):
    """As long as no layer dies, which torch allows."""
    model = net()
    modules = in_torch(model)
    for module in modules.values():
        amount = round(sparsity * module.weight.numel())
        torch_prune.l1_unstructured(module, "weight", amount=amount)
    assert_masks_equal(choose_masks(model, sparsity, scope="local"), modules)
    modules = in_torch(model)
    torch_prune.global_unstructured(
        [(module, "weight") for module in modules.values()],
        pruning_method=torch_prune.L1Unstructured,
        amount=round(sparsity * 102),
    )
    assert_masks_equal(choose_masks(model, sparsity), modules)


@pytest.mark.parametrize(("importance", "n"), [("magnitude", 1), ("l2", 2)])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_are_those_of_torch_s_structured_pruning(torch_prune, importance, n, rows):
    model = net()
    amounts = {"conv": min(rows, 2), "fc": rows}  # of 3 and 4
    shares = {"conv": amounts["conv"] / 3, "fc": rows / 4}
    modules = in_torch(model)
    for name, module in modules.items():
        torch_prune.ln_structured(module, "weight", amount=amounts[name], n=n, dim=0)
    assert_masks_equal(choose_masks(model, shares, importance, structure="row"), modules)


def test_random_prunes_as_many_as_torch_s(torch_prune):
    model = net()
    modules = in_torch(model)
    masks = choose_masks(model, 0.35, "random", scope="local")
    for name, module in modules.items():
        torch_prune.random_unstructured(module, "weight", amount=0.35)
        assert masks[name].sum() == int(module.weight_mask.sum())
