"""Forward hooks, and the layer names that errors carry."""

import gc

import numpy as np
import pytest

from tinycompress import nn


def test_a_hook_sees_inputs_and_output_and_may_replace_it():
    relu = nn.ReLU()
    seen = []
    relu.register_forward_hook(lambda m, inputs, output: seen.append((m, inputs, output)))
    relu.register_forward_hook(lambda m, inputs, output: output * 10)
    x = np.array([-1.0, 2.0], np.float32)
    np.testing.assert_array_equal(relu(x).data, [0, 20])
    ((module, inputs, output),) = seen
    assert module is relu
    assert inputs[0] is x
    np.testing.assert_array_equal(output.data, [0, 2])


def test_hooks_run_in_order_and_each_gets_what_the_one_before_made():
    identity = nn.Identity()
    identity.register_forward_hook(lambda m, i, y: y + 1)
    identity.register_forward_hook(lambda m, i, y: y * 10)
    assert identity(2.0).item() == 30


def test_hooks_whose_handles_are_dropped_stay():
    relu, calls = nn.ReLU(), []
    for i in range(50):
        relu.register_forward_hook(lambda *_, i=i: calls.append(i))
        gc.collect(0)
    relu(np.ones(1, np.float32))
    assert calls == list(range(50))


def test_removal():
    relu, calls = nn.ReLU(), []
    handle = relu.register_forward_hook(lambda *_: calls.append("first"))
    with relu.register_forward_hook(lambda *_: calls.append("second")):
        relu(np.ones(1, np.float32))
    handle.remove()
    handle.remove()  # once more does no harm
    relu(np.ones(1, np.float32))
    assert calls == ["first", "second"]


def test_a_hook_may_remove_itself():
    relu, calls = nn.ReLU(), []
    handle = relu.register_forward_hook(lambda *_: (calls.append(1), handle.remove())[0])
    relu(np.ones(1, np.float32))
    relu(np.ones(1, np.float32))
    assert calls == [1]


def test_keywords_reach_forward():
    class Scaled(nn.Module):
        def forward(self, x, factor=1.0):
            return x * factor

    assert Scaled()(3.0, factor=2.0) == 6.0


def notes_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return getattr(caught.value, "__notes__", [])


def test_errors_carry_the_path_of_layers():
    net = nn.Sequential({"body": nn.Sequential({"fc1": nn.Linear(4, 2)}), "head": nn.Linear(3, 1)})
    wrong_inside = notes_of(lambda: net(np.ones((1, 5), np.float32)))
    assert wrong_inside == ["in fc1: Linear", "in body: Sequential", "in the model: Sequential"]
    wrong_between = notes_of(lambda: net(np.ones((1, 4), np.float32)))
    assert wrong_between == ["in head: Linear", "in the model: Sequential"]


def test_errors_in_hooks_carry_the_layer_too():
    net = nn.Sequential({"act": nn.ReLU()})

    def broken(*_):
        raise KeyError("broken")

    net[0].register_forward_hook(broken)
    assert notes_of(lambda: net(np.ones(1, np.float32)))[0] == "in act: ReLU"


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)
