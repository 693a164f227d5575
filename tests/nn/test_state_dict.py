"""state_dict gives copies; load_state_dict takes all or nothing."""

import numpy as np
import pytest

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.tensor import Tensor


def network():
    return nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "bn": nn.BatchNorm2d(2)})


def test_a_round_trip_restores_every_array():
    one, other = network(), network()
    for p in one.parameters():
        p.data += 1
    one[1].running_mean = np.array([3, 4], np.float32)
    other.load_state_dict(one.state_dict())
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


def test_the_dictionary_holds_copies():
    net = network()
    state = net.state_dict()
    for array in state.values():
        array += 1
    assert all((array != state[name]).all() for name, array in net.state_dict().items())


def test_loading_writes_into_the_parameters_that_optimizers_hold():
    net = network()
    before = [(p, p.data) for p in net.parameters()]
    net.load_state_dict({name: array + 1 for name, array in net.state_dict().items()})
    assert all(p is q and p.data is d for p, (q, d) in zip(net.parameters(), before, strict=True))


def test_every_problem_is_listed_and_nothing_changes():
    net = network()
    before = net.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["conv.bias"], state["bn.running_var"]
    state |= {"conv.weight": np.zeros((2, 1, 5, 5)), "bn.bias": np.zeros(3), "fc.weight": [1.0]}
    with pytest.raises(ValueError, match="does not fit Sequential") as caught:
        net.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: conv.bias",
        "  missing: bn.running_var",
        "  unexpected: fc.weight",
        "  conv.weight: shape (2, 1, 5, 5), expected (2, 1, 3, 3)",
        "  bn.bias: shape (3,), expected (2,)",
    ]
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_not_strict_loads_what_fits_by_name_and_reports_the_rest():
    net = network()
    report = net.load_state_dict({"conv.bias": [5.0, 6.0], "old": [1.0]}, strict=False)
    assert report.missing_keys == [n for n in net.state_dict() if n != "conv.bias"]
    assert report.unexpected_keys == ["old"]
    np.testing.assert_array_equal(net.state_dict()["conv.bias"], [5, 6])
    with pytest.raises(ValueError, match=r"conv\.bias: shape \(3,\), expected \(2,\)"):
        net.load_state_dict({"conv.bias": np.zeros(3)}, strict=False)


def test_strict_has_nothing_to_report():
    net = network()
    assert net.load_state_dict(net.state_dict()) == ([], [])


def test_torchs_count_of_batches_is_passed_over_where_a_batch_norm_is():
    net = network()
    state = {**net.state_dict(), "bn.num_batches_tracked": np.array(7)}
    net.load_state_dict(state)
    with pytest.raises(ValueError, match=r"unexpected: conv\.num_batches_tracked"):
        net.load_state_dict({**state, "conv.num_batches_tracked": np.array(7)})


def test_dtype_and_device_stay(device):
    net = network().to(device)
    given = {name: to_numpy(array).astype(np.float64) for name, array in net.state_dict().items()}
    net.load_state_dict(given)
    assert all(p.dtype == np.float32 for p in net.parameters())
    assert net.device == ("cuda:0" if device == "cuda" else "cpu")
    double = network().to("float64")
    double.load_state_dict(net.state_dict())  # from any device, and float32 widens
    assert {a.dtype.name for a in double.state_dict().values()} == {"float64"}


def test_tensors_and_lists_load_too():
    net = nn.Linear(2, 1)
    net.load_state_dict({"weight": Tensor(np.ones((1, 2), np.float32)), "bias": [3.0]})
    np.testing.assert_array_equal(net(np.ones(2, np.float32)).data, [5])


def test_floats_do_not_become_codes_in_silence():
    holder = nn.Module()
    holder.register_buffer("codes", np.zeros(3, np.int8))
    with pytest.raises(ValueError, match="codes: dtype float64, expected int8"):
        holder.load_state_dict({"codes": np.array([0.5, 1.5, 2.5])})
    holder.load_state_dict({"codes": np.array([1, 2, 3])})
    np.testing.assert_array_equal(holder.codes, [1, 2, 3])


def test_pruned_weights_stay_zero(device):
    net = nn.Linear(3, 1).to(device)
    net.weight.mask = to_device(np.array([[True, False, True]]), device)
    net.load_state_dict({"weight": np.ones((1, 3), np.float32), "bias": [1.0]})
    np.testing.assert_array_equal(to_numpy(net.weight.data), [[1, 0, 1]])


def test_of_a_shared_weight_one_name_is_enough():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    assert net.load_state_dict({"1.weight": np.full((2, 2), 3.0)}) == ([], [])
    np.testing.assert_array_equal(net[0].weight.data, np.full((2, 2), 3))
    with pytest.raises(ValueError, match=r"missing: 0\.weight\n.*missing: 1\.weight"):
        net.load_state_dict({})


def test_what_is_no_state_is_named():
    net = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="mapping of names to arrays, got list"):
        net.load_state_dict([1, 2])
    with pytest.raises(TypeError, match="numbers or booleans") as caught:
        net.load_state_dict({"weight": "text", "bias": [0.0, 0.0]})
    assert caught.value.__notes__ == ["in 'weight'"]
