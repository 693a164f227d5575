"""What all optimizers share: groups, masks, gradients that are missing, saving, errors."""

import json

import numpy as np
import pytest

from tinycompress import nn, optim
from tinycompress.backend import DeviceError, to_device, to_numpy
from tinycompress.nn import Parameter

KINDS = {
    "sgd": (optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "rmsprop": (optim.RMSprop, {"momentum": 0.9, "centered": True}),
    "adam": (optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    "adamw": (optim.AdamW, {"lr": 0.1}),
}
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS.values(), ids=KINDS)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(device="cpu"):
    """Two parameters."""
    return [Parameter(to_device(numbers(shape), device)) for shape in ((3, 4), (5,))]


def train(parameters, optimizer, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for p in parameters:
            p.grad = to_device(rng.normal(size=p.data.shape).astype(np.float32), p.device)
        optimizer.step()


def arrays_of(state):
    return [x for x in state.values() if not isinstance(x, int)]


# --------------------------------------------------------------------------------------- masks


@each_kind
def test_a_pruned_weight_and_its_momentum_stay_zero(kind, options, device):
    parameters = model(device)
    optimizer = kind(parameters, **options)
    train(parameters, optimizer, 5)  # momentum is under way when the mask comes
    pruned = numbers((3, 4), seed=2) > 0
    parameters[0].mask = to_device(~pruned, device)
    for step in range(20):
        train(parameters, optimizer, 1, seed=step)
        for array in [parameters[0].data, *arrays_of(optimizer.state[0])]:
            assert not to_numpy(array)[pruned].any()
        assert to_numpy(parameters[0].data)[~pruned].all()
    assert to_numpy(parameters[1].data).all(), "a parameter without a mask is not pruned"


@each_kind
def test_a_mask_does_not_disturb_the_weights_that_are_left(kind, options):
    free, masked = model(), model()
    masked[0].mask = np.arange(12).reshape(3, 4) % 3 != 0
    train(free, kind(free, **options), 10)
    train(masked, kind(masked, **options), 10)
    np.testing.assert_array_equal(masked[0].data, free[0].data * masked[0].mask)


# --------------------------------------------------------------------------- steps and gradients


@each_kind
def test_a_parameter_without_gradient_is_left_alone(kind, options):
    parameters = model()
    before = parameters[1].data.copy()
    optimizer = kind(parameters, **options)
    train(parameters[:1], optimizer, 3)
    np.testing.assert_array_equal(parameters[1].data, before)
    assert set(optimizer.state) == {0}
    assert optimizer.state[0]["step"] == 3


def test_zero_grad_forgets_every_gradient():
    parameters = model()
    optimizer = optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:]}])
    train(parameters, optimizer, 1)
    optimizer.zero_grad()
    assert [p.grad for p in parameters] == [None, None]


def test_a_gradient_that_backward_left_is_followed():
    p = Parameter(np.array([3.0, -2.0], dtype=np.float32))
    optimizer = optim.SGD([p], lr=0.25)
    (p * p).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(p.data, [1.5, -1.0])


def test_zero_learning_rate_moves_nothing():
    parameters = model()
    before = [p.data.copy() for p in parameters]
    train(parameters, optim.Adam(parameters, lr=0.0), 3)
    for p, w in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.data, w)


# -------------------------------------------------------------------------------------- groups


@each_kind
def test_each_group_has_its_own_options(kind, options):
    grouped, first, second = model(), model(), model()
    groups = [{"params": [grouped[0]]}, {"params": [grouped[1]], "lr": 0.003}]
    train(grouped, kind(groups, **options), 4)
    train(first, kind(first, **options), 4)
    train(second, kind(second, **{**options, "lr": 0.003}), 4)
    np.testing.assert_array_equal(grouped[0].data, first[0].data)
    np.testing.assert_array_equal(grouped[1].data, second[1].data)


def test_a_group_added_later_is_trained_from_then_on():
    parameters = model()
    optimizer = optim.SGD(parameters[:1], lr=0.1, momentum=0.9)
    optimizer.add_param_group({"params": parameters[1], "lr": 0.5})
    train(parameters, optimizer, 1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
    assert set(optimizer.state) == {0, 1}


def test_momentum_may_be_switched_on_between_steps():
    parameters = model()
    optimizer = optim.SGD(parameters, lr=0.1)
    train(parameters, optimizer, 1)
    optimizer.param_groups[0]["momentum"] = 0.9
    train(parameters, optimizer, 1)
    assert set(optimizer.state[0]) == {"step", "momentum_buffer"}


def test_an_option_changed_by_hand_is_checked_at_the_next_step():
    parameters = model()
    optimizer = optim.SGD(parameters, lr=0.1)
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr must be a finite number ≥ 0, got nan"):
        train(parameters, optimizer, 1)


# ----------------------------------------------------------------------------- saving and loading


def through_json(state_dict):
    """As a checkpoint does it: arrays apart, everything else through JSON."""
    groups = json.loads(json.dumps(state_dict["groups"]))
    return {"state": {str(k): v for k, v in state_dict["state"].items()}, "groups": groups}


@each_kind
def test_a_saved_run_continues_to_the_bit(kind, options, device):
    parameters = model(device)
    optimizer = kind(
        [{"params": parameters[:1], "lr": 0.02}, {"params": parameters[1:]}], **options
    )
    train(parameters, optimizer, 3)
    saved = through_json(optimizer.state_dict())
    again = [Parameter(p.data.copy()) for p in parameters]
    train(parameters, optimizer, 4, seed=9)

    resumed = kind([{"params": again[:1]}, {"params": again[1:]}])
    resumed.load_state_dict(saved)
    train(again, resumed, 4, seed=9)
    for p, q in zip(parameters, again, strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), to_numpy(q.data))
    assert resumed.param_groups[0]["lr"] == 0.02
    assert through_json(resumed.state_dict())["groups"] == saved["groups"]


def test_a_state_dict_is_a_copy_and_so_is_what_is_loaded():
    parameters = model()
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
    train(parameters, optimizer, 1)
    saved = optimizer.state_dict()
    before = saved["state"][0]["momentum_buffer"].copy()
    optimizer.load_state_dict(saved)
    train(parameters, optimizer, 3)
    np.testing.assert_array_equal(saved["state"][0]["momentum_buffer"], before)


def saved_state(kind=optim.Adam, groups=1):
    parameters = model()
    cut = [parameters] if groups == 1 else [parameters[:1], parameters[1:]]
    optimizer = kind([{"params": params} for params in cut])
    train(parameters, optimizer, 1)
    return optimizer.state_dict()


def wrong_shape(saved):
    saved["state"][0]["exp_avg"] = np.zeros((4, 3), dtype=np.float32)


def wrong_dtype(saved):
    saved["state"][0]["exp_avg"] = np.zeros((3, 4))


def wrong_position(saved):
    saved["state"][2] = saved["state"].pop(1)


def wrong_count(saved):
    saved["groups"][0]["params"].pop()


def wrong_option(saved):
    saved["groups"][0]["betas"] = [0.9, 1.0]


def wrong_key(saved):
    saved["param_groups"] = saved.pop("groups")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_shape, r"parameter 0 is float32\(3, 4\) but its exp_avg .* float32\(4, 3\)"),
        (wrong_dtype, r"parameter 0 is float32\(3, 4\) but its exp_avg .* float64\(3, 4\)"),
        (wrong_position, "state for parameter 2, but this optimizer has 2"),
        (wrong_count, "parameter group 0 has 1 parameters in the state and 2 here"),
        (wrong_option, r"betas\[1\] must lie in \[0, 1\), got 1.0"),
        (wrong_key, 'expected the keys "state" and "groups"'),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(damage, message):
    saved = saved_state()
    saved["groups"][0]["lr"] = 0.5
    damage(saved)
    optimizer = optim.Adam(model())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert optimizer.state == {}
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_the_state_of_other_groups_or_of_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="2 parameter groups in the state, 1 here"):
        optim.Adam(model()).load_state_dict(saved_state(groups=2))
    with pytest.raises(ValueError, match=r"betas.* is an option of the state or of this SGD"):
        optim.SGD(model()).load_state_dict(saved_state())


# -------------------------------------------------------------------------------------- errors


def test_parameters_are_required():
    with pytest.raises(ValueError, match="parameters: there is none"):
        optim.SGD([])
    with pytest.raises(ValueError, match="parameter group 1: there is none"):
        optim.SGD([{"params": model()}, {"params": []}])
    with pytest.raises(TypeError, match=r"must be an iterable of nn\.Parameter"):
        optim.SGD(3)


@pytest.mark.parametrize("item", [np.zeros(3), 1.0, "w", ("weight", Parameter(np.zeros(3)))])
def test_only_parameters_can_be_optimized(item):
    with pytest.raises(TypeError, match=r"item 1 is a .*, not an nn\.Parameter"):
        optim.SGD([Parameter(np.zeros(3)), item])


def test_a_parameter_may_be_listed_once():
    p, q = model()
    with pytest.raises(ValueError, match=r"group 0: item 2 \(shape \(3, 4\)\) is there already"):
        optim.SGD([p, q, p])
    with pytest.raises(ValueError, match=r"group 1: item 0 .* is there already"):
        optim.SGD([{"params": [p, q]}, {"params": [p]}])


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (optim.SGD, {"lr": -0.1}, ValueError, "lr must be a finite number ≥ 0, got -0.1"),
        (optim.SGD, {"lr": float("inf")}, ValueError, "lr must be a finite number ≥ 0, got inf"),
        (optim.SGD, {"lr": "fast"}, TypeError, "lr must be a number, got 'fast'"),
        (optim.SGD, {"momentum": -1}, ValueError, "momentum must be a finite number ≥ 0, got -1"),
        (optim.SGD, {"nesterov": 1}, TypeError, "nesterov must be True or False, got 1"),
        (optim.SGD, {"nesterov": True}, ValueError, "nesterov needs momentum > 0"),
        (optim.RMSprop, {"alpha": 1.0}, ValueError, r"alpha must lie in \[0, 1\), got 1.0"),
        (optim.RMSprop, {"eps": -1e-8}, ValueError, "eps must be a finite number ≥ 0"),
        (optim.Adam, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must lie in \[0, 1\)"),
        (optim.Adam, {"betas": 0.9}, TypeError, r"betas must be a pair"),
        (optim.AdamW, {"weight_decay": -1.0}, ValueError, "weight_decay must be a finite"),
    ],
)
def test_options_out_of_range_are_named(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(model(), **options)
    with pytest.raises(error, match=message):
        kind([{"params": model(), **options}])


def test_an_unknown_option_of_a_group_is_named():
    with pytest.raises(ValueError, match="group 0: unknown option learning_rate; SGD has lr, mom"):
        optim.SGD([{"params": model(), "learning_rate": 0.1}])
    with pytest.raises(TypeError, match='group 1 must be a dictionary with the key "params"'):
        optim.SGD([{"params": model()}, Parameter(np.zeros(3))])


def test_a_gradient_that_does_not_fit_is_refused():
    p = Parameter(np.zeros((2, 3), dtype=np.float32))
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"its gradient is float64\(2, 3\)"):
        optimizer.step()
    p.grad = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"parameter 0: the weight is float32\(2, 3\)"):
        optimizer.step()


def test_a_weight_that_changed_its_shape_needs_a_new_optimizer():
    p = Parameter(numbers((4, 3)))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    train([p], optimizer, 1)
    p.data = p.data[:2].copy()  # as removing channels does
    with pytest.raises(ValueError, match="make a new optimizer"):
        train([p], optimizer, 1)


def test_a_weight_that_moved_to_another_device_is_named(cupy):
    p = Parameter(numbers((4, 3)))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    train([p], optimizer, 1)
    p.data = to_device(p.data, "cuda")
    with pytest.raises(DeviceError, match=r"SGD\.step, parameter 0"):
        train([p], optimizer, 1)


@each_kind
def test_parameters_on_a_second_gpu_are_trained_there(kind, options, cupy):
    parameters, reference = model("cuda:1"), model()
    optimizer = kind(parameters, **options)
    train(parameters, optimizer, 2)
    optim.clip_grad_norm_(parameters, 0.1)
    resumed = kind(parameters, **options)
    resumed.load_state_dict(optimizer.state_dict())
    train(parameters, resumed, 2)
    again = kind(reference, **options)
    train(reference, again, 2)
    train(reference, again, 2)
    for p, q in zip(parameters, reference, strict=True):
        assert p.device == "cuda:1"
        np.testing.assert_allclose(to_numpy(p.data), q.data, rtol=1e-6)


def test_a_model_instead_of_its_parameters_is_refused():
    with pytest.raises(TypeError, match=r"model\.parameters\(\)"):
        optim.SGD(nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"model\.parameters\(\)"):
        optim.SGD(nn.Sequential(nn.Linear(2, 3)))
