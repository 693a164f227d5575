"""QuantConfig: checked when it is made, frozen afterwards, written to files and read back."""

import dataclasses
import json

import pytest
from hypothesis import given, strategies as st

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
