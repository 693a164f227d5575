"""The architecture as a JSON value: short, exact, and without a trace in the random numbers."""

import json

import numpy as np
import pytest

from tinycompress import models, nn, random
from tinycompress.compress.quantize import QuantConfig, QuantizedConv2d, quantize
from tinycompress.format.construct import MAX_MODULES, build
from tinycompress.format.describe import describe
from tinycompress.format.registry import register
from tinycompress.format.values import write_value


def layers(model: nn.Module):
    return [(name, type(m), m.config()) for name, m in model.named_modules()]


def test_building_is_the_inverse_of_describing(sample):
    description = describe(sample)
    assert json.loads(json.dumps(description)) == description
    assert layers(build(description)) == layers(sample)


@pytest.mark.parametrize("name", models.names())
def test_a_named_model_is_its_name(name):
    assert describe(models.create(name)) == name
    assert len(write_value(name)) == 1


def test_arguments_are_given_where_they_are_not_the_default():
    assert describe(models.create("tiny-cnn", width=6)) == ["tiny-cnn", {"width": 6}]


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("name", ["lenet-5", "lenet-300-100"])
def test_quantized_lenets_take_less_than_64_bytes(name, bits):
    description = describe(quantize(models.create(name), QuantConfig(bits=bits)))
    assert len(write_value(description)) < 64


def test_a_replaced_layer_says_only_what_differs_from_the_one_in_its_place():
    model = models.create("lenet-5")
    model.fc2 = nn.Linear(500, 26)
    model.conv2 = QuantizedConv2d.from_float(model.conv2, QuantConfig(bits=4))
    model.relu1 = nn.Identity()
    assert describe(model) == [
        "lenet-5",
        {},
        {
            "conv2": ["QuantizedConv2d", {"quantization": {"bits": 4}}],
            "relu1": "Identity",
            "fc2": ["Linear", {"out_features": 26}],
        },
    ]


def test_sequential_layers_without_names_are_a_list():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.MaxPool2d(3, stride=1))
    assert describe(model) == [
        "Sequential",
        {},
        [
            ["Linear", {"in_features": 3, "out_features": 4}],
            "ReLU",
            ["MaxPool2d", {"kernel_size": [3, 3], "stride": [1, 1]}],
        ],
    ]


def test_a_sequential_that_grew_inside_a_model_is_described_whole():
    @register
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2))

    model = Net()
    model.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    rebuilt = build(describe(model))
    assert layers(rebuilt) == layers(model)


def test_true_and_one_are_different_arguments():
    @register
    class Odd(nn.Module):
        def __init__(self, a=1, b=True, c=1.0):
            super().__init__()
            self.values = {"a": a, "b": b, "c": c}

        def config(self):
            return dict(self.values)

    assert describe(Odd()) == "Odd"
    assert describe(Odd(True, 1, 1)) == ["Odd", {"a": True, "b": 1, "c": 1}]


def test_random_numbers_go_on_as_if_nothing_had_been_built():
    @register
    class Drawing(nn.Module):
        def __init__(self, n=3):
            super().__init__()
            self.fc = nn.Linear(n, n)

        def config(self):
            return {"n": self.fc.in_features}

    for model in (Drawing(), models.create("lenet-5"), nn.Sequential(Drawing(2), nn.Linear(2, 2))):
        before = random.get_state()
        build(describe(model))
        assert random.get_state() == before


def test_layers_of_any_size_are_built_without_memory():
    model = build(["Linear", {"in_features": 1 << 40, "out_features": 1 << 20}])
    assert model.weight.shape == (1 << 20, 1 << 40)
    assert model.weight.data.strides == (0, 0)


# ------------------------------------------------------------------------------- what is refused


def test_an_unregistered_class_is_refused_with_advice():
    class Mine(nn.Sequential):
        pass

    with pytest.raises(TypeError, match=r"cannot name Mine.*register\(Mine\)"):
        describe(Mine(nn.ReLU()))


def test_a_config_that_says_too_little_is_refused():
    @register
    class Forgetful(nn.Module):
        def __init__(self, n=2):
            super().__init__()
            self.n = n
            self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(n)])
            self.extra = nn.Parameter(np.zeros(1, np.float32)) if n == 7 else None

    describe(Forgetful(2))
    describe(Forgetful(3))  # the list is described whole
    with pytest.raises(TypeError, match="Forgetful has parameters"):
        describe(Forgetful(7))


def test_a_config_that_the_constructor_does_not_take_is_refused():
    @register
    class Wrong(nn.Module):
        def __init__(self, size):
            super().__init__()

        def config(self):
            return {"sise": 3}

    with pytest.raises(ValueError, match=r"no Wrong can be made with .*sise"):
        describe(Wrong(3))


def test_a_config_that_is_no_json_is_refused():
    @register
    class Binary(nn.Module):
        def config(self):
            return {"data": b"bytes"}

    with pytest.raises(TypeError, match=r"Binary\.config\(\) cannot be saved"):
        describe(Binary())


def test_a_model_that_lost_a_layer_is_refused():
    model = models.create("lenet-5")
    del model.fc2
    with pytest.raises(TypeError, match="LeNet5 has modules"):
        describe(model)


@pytest.mark.parametrize(
    "description",
    [
        None,
        5,
        [],
        [5],
        {},
        ["Linear", []],
        ["Linear", {}, {}, {}],
        ["Linear", {}, 3],
        "Linear",
        ["Linear", {"in_features": -1, "out_features": 2}],
        ["Linear", {"in_features": "a", "out_features": 2}],
        ["Linear", {"in_features": 1, "out_features": 2, "colour": 3}],
        ["Linear", {"in_features": 1 << 60, "out_features": 1 << 60}],
        ["Conv2d", {"in_channels": 1, "out_channels": 1, "kernel_size": [1, 2, 3]}],
        ["Conv2d", {"in_channels": 1, "out_channels": 1, "kernel_size": 1, "groups": 0}],
        ["QuantizedConv2d", {"in_channels": 4, "out_channels": 4, "kernel_size": 1, "groups": 0}],
        ["QuantizedLinear", {"in_features": 1, "out_features": 2, "quantization": {"bits": 99}}],
        ["QuantizedLinear", {"in_features": 1, "out_features": 2, "quantization": 4}],
        ["LayerNorm", {"normalized_shape": [[1]]}],
        ["Sequential", {"modules": 3}],
        ["Sequential", {}, {"": "ReLU"}],
        ["Sequential", {}, {"forward": "ReLU"}],
        ["Sequential", {}, {"_modules": "ReLU"}],
        ["Sequential", {}, {"training": "ReLU"}],
        ["Sequential", {}, {"a.b": "ReLU"}],
        ["Sequential", {}, {"a": "ReLU", "a.b": "ReLU"}],
        ["lenet-5", {"classes": 3}],
        ["lenet-5", {}, {"fc9": "ReLU"}],
        ["lenet-5", {}, {"fc1.weight": "ReLU"}],
        ["lenet-5", {}, ["ReLU"]],
        "Module",
        "Parameter",
        "os.system",
        "NoSuchLayer",
    ],
)
def test_nonsense_is_refused_with_a_value_error(description):
    with pytest.raises(ValueError):  # noqa: PT011
        build(description)


def test_an_unknown_class_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"'MyNet', which is not known here.*register"):
        build(["Sequential", {}, ["ReLU", "MyNet"]])


def test_the_number_of_layers_is_limited():
    build(["Sequential", {}, ["ReLU"] * (MAX_MODULES - 1)])
    for many in (["ReLU"] * MAX_MODULES, [["Sequential", {}, ["ReLU"] * 99]] * 101):
        with pytest.raises(ValueError, match="more than 10,000 layers"):
            build(["Sequential", {}, many])


# ---------------------------------------------------------------------------------- registration


def test_a_registered_class_is_named_as_it_was_told():
    class First(nn.Module):
        pass

    assert register(First, name="my.First") is First
    assert describe(First()) == "my.First"
    assert type(build("my.First")) is First


def test_running_a_definition_again_replaces_the_class():
    def define():
        @register
        class Again(nn.Module):
            pass

        return Again

    define()
    newer = define()
    assert type(build("Again")) is newer


@pytest.mark.parametrize("name", ["Linear", "lenet-5", "Sequential"])
def test_names_of_the_package_cannot_be_taken(name):
    class Other(nn.Module):
        pass

    with pytest.raises(ValueError, match="choose another"):
        register(Other, name=name)


def test_two_classes_cannot_have_one_name():
    class One(nn.Module):
        pass

    class Two(nn.Module):
        pass

    register(One, name="N")
    with pytest.raises(ValueError, match="belongs to"):
        register(Two, name="N")


@pytest.mark.parametrize("thing", [int, nn.ReLU(), "ReLU"])
def test_only_modules_are_registered(thing):
    with pytest.raises(TypeError, match=r"subclass of nn\.Module"):
        register(thing)
