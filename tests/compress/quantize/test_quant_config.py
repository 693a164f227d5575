"""QuantConfig: checked when it is made, frozen afterwards, written to files and read back."""

import dataclasses
import json

import pytest
from hypothesis import given, strategies as st

from tinycompress import nn
from tinycompress.compress.quantize.config import GRANULARITIES, QuantConfig

configs = st.one_of(
    st.builds(
        QuantConfig,
        st.integers(2, 16),
        st.sampled_from(["symmetric", "affine"]),
        st.sampled_from(["per_channel", "per_tensor"]),
    ),
    st.builds(
        QuantConfig,
        st.integers(1, 16),
        st.just("symmetric"),
        st.just("per_group"),
        st.integers(1, 512),
    ),
)


def test_the_default_is_8_bits_symmetric_per_channel():
    config = QuantConfig()
    assert (config.bits, config.scheme, config.granularity) == (8, "symmetric", "per_channel")
    assert (config.target.qmin, config.target.qmax, config.axis) == (-127, 127, 0)


@given(configs)
def test_it_survives_a_file(config):
    assert QuantConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_fields_have_their_defaults_and_unknown_ones_are_named():
    assert QuantConfig.from_dict({"bits": 4}) == QuantConfig(bits=4)
    with pytest.raises(ValueError, match="no field 'bit'; it has bits, scheme"):
        QuantConfig.from_dict({"bit": 4})


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QuantConfig().bits = 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 0}, "bits must be a whole number from 1 to 16, got 0"),
        ({"bits": 17}, "bits must be a whole number from 1 to 16, got 17"),
        ({"bits": 8.0}, "bits must be a whole number from 1 to 16, got 8.0"),
        ({"bits": True}, "bits must be a whole number from 1 to 16, got True"),
        ({"scheme": "log"}, "scheme must be one of symmetric, affine, got 'log'"),
        ({"granularity": "per_row"}, "granularity must be one of per_channel, .*, got 'per_row'"),
        ({"granularity": "per_group"}, "per_group.* and group_size go together"),
        ({"group_size": 32}, "per_group.* and group_size go together"),
        ({"granularity": "per_group", "group_size": 0}, "group_size must be .* ≥ 1, got 0"),
        ({"granularity": "per_group", "group_size": 1.5}, "group_size must be .* ≥ 1, got 1.5"),
        ({"bits": 1, "scheme": "affine"}, "bits=1 means sign"),
    ],
)
def test_a_bad_value_is_named_with_what_it_may_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantConfig(**arguments)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_are_narrow_or_unsigned(granularity):
    size = 4 if granularity == "per_group" else None
    symmetric = QuantConfig(2, "symmetric", granularity, size)
    affine = QuantConfig(2, "affine", granularity, size)
    assert (symmetric.target.qmin, symmetric.target.qmax) == (-1, 1)  # ternary
    assert (affine.target.qmin, affine.target.qmax) == (0, 3)
    assert symmetric.axis == (None if granularity == "per_tensor" else 0)


# ------------------------------------------------------------------------- activations, overrides

activations = st.builds(
    QuantConfig,
    st.integers(1, 16),
    activations=st.integers(2, 16),
    activation_scheme=st.sampled_from(["affine", "symmetric"]),
    observer=st.sampled_from(["minmax", "moving_average", "percentile", "kl", "mse"]),
    weight_observer=st.sampled_from(["minmax", "mse"]),
    learn_step=st.booleans(),
    percentile=st.floats(60, 100),
)
keys = st.sampled_from(["conv1", "features.*", "Linear", ""])


@given(activations, st.lists(st.tuples(keys, st.none() | activations)))
def test_all_of_it_survives_a_file_and_can_be_a_key(config, overrides):
    config = config.replace(overrides=overrides)
    again = QuantConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert eval(repr(config)) == config


@given(configs)
def test_what_is_written_of_weights_alone_did_not_change(config):
    """Files of before must stay as they are, to the byte."""
    old = {"bits": config.bits, "scheme": config.scheme, "granularity": config.granularity}
    if config.group_size is not None:
        old["group_size"] = config.group_size
    assert json.dumps(config.to_dict()) == json.dumps(old)
    assert QuantConfig.from_dict(old) == config


def test_it_shows_what_is_not_default():
    assert repr(QuantConfig()) == "QuantConfig(bits=8)"
    config = QuantConfig(4, activations=8, overrides={"fc": None})
    assert repr(config) == "QuantConfig(bits=4, activations=8, overrides=(('fc', None),))"


def test_the_first_override_that_fits_counts():
    overrides = {"head": QuantConfig(8), "feature?.*": None, nn.Linear: QuantConfig(2)}
    config = QuantConfig(4, overrides=overrides)
    linear, conv = nn.Linear(2, 2), nn.Conv2d(1, 1, 1)
    assert config.for_layer("head", linear) == QuantConfig(8)
    assert config.for_layer("features.0", conv) is None
    assert config.for_layer("fc", linear) == QuantConfig(2)
    assert config.for_layer("conv", conv) == QuantConfig(4)  # and no overrides any more
    assert config.for_layer("", linear) == QuantConfig(2)
    assert QuantConfig(overrides={"": QuantConfig(3)}).for_layer("", linear).bits == 3


def test_a_subclass_is_found_by_the_class_of_its_parents():
    class Mine(nn.Linear):
        pass

    config = QuantConfig(overrides={"Linear": None})
    assert config.for_layer("x", Mine(1, 1)) is None


def test_an_override_without_activations_keeps_those_of_the_model():
    config = QuantConfig(
        4, activations=5, observer="kl", activation_scheme="symmetric", learn_step=True,
        overrides={"a": QuantConfig(8, weight_observer="mse"), "b": QuantConfig(3, activations=6)},
    )  # fmt: skip
    assert config.for_layer("a", None) == QuantConfig(
        8, weight_observer="mse", activations=5, observer="kl", activation_scheme="symmetric",
        learn_step=True,
    )  # fmt: skip
    assert config.for_layer("b", None) == QuantConfig(3, activations=6)


def test_overrides_that_fit_nothing_are_found():
    config = QuantConfig(overrides={"conv1": None, "conv7": None, "Conv2d": None, "x.*": None})
    layers = [("", nn.Sequential()), ("conv1", nn.Linear(1, 1))]
    assert config.unused_overrides(layers) == ["conv7", "Conv2d", "x.*"]


def test_activations_are_unsigned_or_narrow():
    affine = QuantConfig(activations=4).activation_target
    symmetric = QuantConfig(activations=4, activation_scheme="symmetric").activation_target
    assert (affine.qmin, affine.qmax) == (0, 15)
    assert (symmetric.qmin, symmetric.qmax) == (-7, 7)
    with pytest.raises(ValueError, match="activations is None"):
        _ = QuantConfig().activation_target


def test_dynamic_activations_have_8_bits_unless_given():
    assert QuantConfig(dynamic=True).activations == 8
    assert QuantConfig(dynamic=True, activations=4).activations == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": 1}, "activations must be None or .* from 2 to 16, got 1"),
        ({"activations": 17}, "activations must be None or .* from 2 to 16, got 17"),
        ({"activations": True}, "activations must be None or .* got True"),
        ({"activations": 8, "scheme": "affine"}, "compute in integers.*got scheme='affine'"),
        (
            {"activations": 8, "granularity": "per_group", "group_size": 4},
            "compute in integers.*granularity='per_group'",
        ),
        ({"activation_scheme": "log"}, "activation_scheme must be one of symmetric, affine"),
        ({"observer": "max"}, "observer must be one of minmax, moving_average, percentile, kl"),
        ({"weight_observer": "kl"}, "weight_observer must be one of minmax, mse, got 'kl'"),
        ({"dynamic": 1}, "dynamic must be True or False, got 1"),
        ({"learn_step": None}, "learn_step must be True or False, got None"),
        ({"dynamic": True, "learn_step": True}, "exclude each other"),
        ({"percentile": 50}, "percentile must be above 50 and at most 100, got 50"),
        ({"percentile": float("nan")}, "percentile must be above 50"),
        ({"overrides": 5}, "overrides must be a mapping or pairs, got 5"),
        ({"overrides": ["conv1"]}, "mapping or pairs of name and config, got 'conv1'"),
        ({"overrides": [(3, None)]}, "layer's name or class was expected, got 3"),
        ({"overrides": {"fc": 4}}, r"overrides\['fc'\] must be a QuantConfig, or None"),
        (
            {"overrides": {"fc": QuantConfig(overrides={"a": None})}},
            r"overrides\['fc'\] has overrides of its own",
        ),
        (
            {"overrides": {"fc": QuantConfig(activations=8)}},
            r"overrides\['fc'\] has activations=8, .* decided for the whole model",
        ),
        (
            {"activations": 8, "overrides": {"fc": QuantConfig(dynamic=True)}},
            r"overrides\['fc'\] has activations=8, dynamic=True",
        ),
        (
            {"activations": 8, "overrides": {"fc": QuantConfig(4, "affine")}},
            r"overrides\['fc'\]: layers with quantized activations compute in integers",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_together_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantConfig(**arguments)
