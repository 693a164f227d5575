"""What assigning an attribute of a module means."""

import numpy as np
import pytest

from tinycompress import nn
from tinycompress.tensor import Tensor


class Pair(nn.Module):
    """Two parameters, a buffer and a layer, in this order."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(np.ones(2, np.float32))
        self.register_buffer("seen", np.zeros(3, np.float32))
        self.second = nn.Parameter(np.ones((2, 2), np.float32))
        self.layer = nn.Linear(2, 2)
        self.note_to_self = "kept"


def names(module):
    return [name for name, _ in module.named_parameters()]


def test_parameters_buffers_and_layers_are_found_in_order_of_definition():
    m = Pair()
    assert names(m) == ["first", "second", "layer.weight", "layer.bias"]
    assert [n for n, _ in m.named_buffers()] == ["seen"]
    assert [n for n, _ in m.named_children()] == ["layer"]
    assert m.note_to_self == "kept"
    assert m.seen is next(m.buffers())


def test_assigning_again_keeps_the_place_in_the_order():
    m = Pair()
    new = nn.Parameter(np.zeros(5, np.float32))
    m.first = new
    assert names(m)[0] == "first"
    assert next(m.parameters()) is new


def test_none_empties_a_place_and_a_later_parameter_gets_it_back():
    m = Pair()
    m.first = None
    assert m.first is None
    assert names(m) == ["second", "layer.weight", "layer.bias"]
    assert "first" not in m.state_dict()
    m.first = nn.Parameter(np.zeros(1, np.float32))
    assert names(m)[0] == "first"


def test_none_empties_the_place_of_a_layer_and_of_a_buffer():
    m = Pair()
    m.layer, m.seen = None, None
    assert list(m.children()) == []
    assert list(m.modules()) == [m]
    assert list(m.buffers()) == []
    assert list(m.state_dict()) == ["first", "second"]


def test_deleting_forgets():
    m = Pair()
    del m.first, m.seen, m.layer, m.note_to_self
    assert list(m.state_dict()) == ["second"]
    for name in ("first", "seen", "layer", "note_to_self"):
        assert not hasattr(m, name)
        with pytest.raises(AttributeError):
            delattr(m, name)


def test_a_name_means_one_thing_at_a_time():
    m = Pair()
    m.layer = nn.Parameter(np.zeros(1, np.float32))
    assert names(m) == ["first", "second", "layer"]
    assert list(m.children()) == []
    m.seen = nn.ReLU()
    assert list(m.buffers()) == []
    assert [n for n, _ in m.named_children()] == ["seen"]
    m.note_to_self = nn.Parameter(np.zeros(1, np.float32))
    assert m.note_to_self is list(m.parameters())[-1]


def test_a_buffer_takes_the_name_of_a_plain_attribute_but_not_of_a_parameter():
    m = Pair()
    m.register_buffer("note_to_self", np.arange(2))
    assert m.note_to_self is list(m.buffers())[-1]
    with pytest.raises(AttributeError, match="first is a parameter or module; delete it"):
        m.register_buffer("first", np.arange(2))
    with pytest.raises(AttributeError, match="layer is a parameter or module"):
        m.register_buffer("layer", np.arange(2))


def test_buffers_are_assigned_arrays():
    m = Pair()
    m.seen = np.arange(4)
    np.testing.assert_array_equal(next(m.buffers()), np.arange(4))
    m.seen = m.seen.sum()  # NumPy makes a scalar of an array of shape ()
    assert isinstance(m.seen, np.ndarray)
    assert m.seen.shape == ()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("first", np.zeros(2, np.float32), r"assign nn\.Parameter\(array\) or None.*ndarray"),
        ("first", Tensor(np.zeros(2, np.float32)), r"assign nn\.Parameter\(array\).*Tensor"),
        ("first", 3.0, r"Pair\.first is a parameter.*float"),
        ("layer", np.zeros(2, np.float32), "assign another module or None"),
        ("layer", max, "is a module"),
        ("seen", 3.0, "assign an array"),
        ("seen", Tensor(np.zeros(2, np.float32)), r"of a tensor: its \.data"),
    ],
)
def test_a_registered_name_takes_only_its_kind(name, value, advice):
    m = Pair()
    before = getattr(m, name)
    with pytest.raises(TypeError, match=advice):
        setattr(m, name, value)
    assert getattr(m, name) is before


def test_only_arrays_are_buffers():
    with pytest.raises(TypeError, match="buffer 'w' must be an array, got list"):
        nn.Module().register_buffer("w", [1, 2])
    nn.Module().register_buffer("w", None)


def test_forgetting_super_init_is_named():
    class Forgot(nn.Module):
        def __init__(self, step):
            step(self)

    advice = r"Forgot.*must call super\(\).__init__\(\)"

    def assign(value):
        return lambda module: setattr(module, "fc", value)

    for value in (nn.Linear(2, 2), nn.Parameter(np.zeros(1, np.float32)), 3):
        with pytest.raises(AttributeError, match=advice):
            Forgot(assign(value))
    with pytest.raises(AttributeError, match=advice):
        Forgot(lambda module: module.register_buffer("b", np.zeros(1)))
    empty = Forgot(lambda module: None)
    with pytest.raises(AttributeError, match=advice):
        empty(np.ones(2))
    with pytest.raises(AttributeError, match=advice):
        list(empty.parameters())


def test_names_that_the_class_has_already_are_refused():
    for name in ("forward", "parameters", "device", "copy"):
        with pytest.raises(AttributeError, match=f"'{name}' is an attribute of the class"):
            nn.Sequential({name: nn.ReLU()})
    with pytest.raises(AttributeError, match="choose another name"):
        nn.Module().register_buffer("train", np.zeros(1))


@pytest.mark.parametrize("name", ["", "a.b", "."])
def test_a_name_has_no_dots_and_is_not_empty(name):
    with pytest.raises(ValueError, match="without dots"):
        nn.Sequential({name: nn.ReLU()})


def test_a_property_without_setter_is_not_overwritten_in_silence():
    with pytest.raises(AttributeError, match="device"):
        nn.Linear(2, 2).device = "cuda"


def test_a_property_of_the_user_with_a_setter_works():
    class Doubler(nn.Module):
        @property
        def width(self):
            return self.kept

        @width.setter
        def width(self, value):
            self.kept = 2 * value

    m = Doubler()
    m.width = 4
    assert m.width == 8


@pytest.mark.parametrize(
    "hidden",
    [
        [nn.Linear(1, 1)],
        (nn.ReLU(), nn.ReLU()),
        {"a": nn.Linear(1, 1)},
        [nn.Parameter(np.zeros(1, np.float32))],
    ],
)
def test_layers_in_a_plain_list_would_never_be_trained(hidden):
    m = nn.Module()
    with pytest.raises(TypeError, match=r"not registered; use nn\.ModuleList"):
        m.layers = hidden
    m.sizes, m.table, m.nothing = [1, 2], {"a": 1}, []


def test_a_module_cannot_contain_itself():
    outer = nn.Sequential(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="cannot contain itself"):
        outer[0].parent = outer
    with pytest.raises(ValueError, match="cannot contain itself"):
        outer.me = outer
    assert [n for n, _ in outer.named_modules()] == ["", "0", "0.0"]


def test_unknown_attributes_are_named_and_known_ones_are_listed():
    m = Pair()
    with pytest.raises(AttributeError, match="Pair has no attribute 'frist'"):
        _ = m.frist
    assert {"first", "seen", "layer", "forward"} <= set(dir(m))


def test_parameters_are_floating_and_want_gradients():
    assert nn.Parameter(np.zeros(2, np.float32)).requires_grad
    assert nn.Parameter([1.0, 2.0]).dtype == np.float32
    with pytest.raises(TypeError, match="only floating-point"):
        nn.Parameter([1, 2])
