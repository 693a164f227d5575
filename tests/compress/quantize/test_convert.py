"""``convert`` gives the numbers that training simulated, to the bit."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from qat_models import SIDE, Network, Residual, cnn, configs, networks, shaken

import tinycompress as tc
from tinycompress import functional as F, nn, optim
from tinycompress.compress.quantize import QuantConfig, switch
from tinycompress.compress.quantize.integer import (
    IntegerAdd,
    IntegerConcat,
    IntegerConv2d,
    IntegerLinear,
)


def images_of(rng, count=24, size=1.0):
    return rng.normal(0, size, (count, 1, SIDE, SIDE)).astype("f")


def trained(model, rng, steps=2, lr=0.05):
    """A few steps, by hand: latent weights, ranges and learned steps move."""
    model.train()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images_of(rng)), rng.integers(0, 3, 24)).backward()
        optimizer.step()
    return model


def same_bits(a, b):
    """Equal as numbers, and 0 where the other is 0 (whose sign means nothing)."""
    assert a.dtype == b.dtype == np.float32
    return np.array_equal(a, b)


# --------------------------------------------------------------------------------- the same numbers


@given(networks(), configs(), st.integers(0, 2**32 - 1), st.booleans())
def test_the_integer_model_is_the_prepared_one_to_the_bit(model, config, seed, calibrated):
    """Random networks, configs and data: also images far outside of the range that was seen."""
    rng = np.random.default_rng(seed)
    shaken(model, seed)
    sample = images_of(rng) if calibrated or isinstance(model, Network) else None
    prepared = trained(tc.prepare_qat(model, config, sample), rng)
    integer = tc.convert(prepared)
    prepared.eval()
    for size in (1.0, 10.0):
        images = images_of(rng, size=size)
        expected = prepared(images).data
        assert same_bits(integer(images).data, expected)
        with nn.fusion(False):
            assert same_bits(integer(images[3:5]).data, expected[3:5])


def test_it_really_computes_in_integers(rng):
    """And with 8 bits, what the float model computes, to about a hundredth."""
    model = Network(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()),
        Residual(4, norm=True),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * SIDE * SIDE, 3)),
    )
    shaken(model, 0)
    images = images_of(rng)
    integer = tc.convert(tc.prepare_qat(model, None, images))
    expected = model.eval()(images).data
    np.testing.assert_allclose(integer(images).data, expected, atol=0.02 * np.abs(expected).max())
    kinds = [type(m) for m in integer.modules()]
    for kind in (IntegerConv2d, IntegerAdd, IntegerConcat, IntegerLinear):
        assert kind in kinds
    assert not any(
        isinstance(m, nn.Conv2d | nn.Linear | nn.Add | nn.Concat) for m in integer.modules()
    )
    assert not list(integer.parameters())


def test_the_same_on_the_stand_in(cupy, rng):
    prepared = trained(tc.prepare_qat(cnn(3), QuantConfig(bits=4, activations=4)), rng)
    images = images_of(rng)
    expected = tc.convert(prepared)(images).data
    there = prepared.to("cuda")
    integer = tc.convert(there)
    x = tc.tensor(images, device="cuda")
    assert integer.device == "cuda:0"
    np.testing.assert_array_equal(integer(x).numpy(), expected)
    np.testing.assert_array_equal(there.eval()(x).numpy(), expected)


def test_a_saved_integer_model_still_gives_the_same(tmp_path, rng):
    prepared = trained(tc.prepare_qat(cnn(3), QuantConfig(bits=3, activations=5)), rng)
    integer = tc.convert(prepared)
    tc.save(integer, tmp_path / "small.tcz")
    images = images_of(rng)
    np.testing.assert_array_equal(
        tc.load(tmp_path / "small.tcz")(images).data, prepared.eval()(images).data
    )


def test_a_prepared_model_is_not_for_files(tmp_path, rng):
    for config in (QuantConfig(bits=4), QuantConfig(activations=8)):
        with pytest.raises(TypeError, match=r"save what tc\.convert makes of it"):
            tc.save(tc.prepare_qat(cnn(3), config), tmp_path / "prepared.tcz")


def test_it_can_be_summarised_and_compiled(rng):
    prepared = tc.prepare_qat(cnn(3), QuantConfig(activations=8), images_of(rng)).eval()
    integer, images = tc.convert(prepared), images_of(rng)
    expected = prepared(images).data
    for model in (prepared, integer):
        np.testing.assert_array_equal(tc.compile(model)(images).data, expected)
        assert tc.summary(model, (1, SIDE, SIDE)).macs == tc.summary(cnn(3), (1, SIDE, SIDE)).macs


def test_a_bias_too_large_for_its_weights_is_simulated_too(rng):
    """A channel that training left for dead: the integer engine widens the scale of its weights."""
    model = cnn(3)
    model.conv2.weight.data[0] *= 1e-12
    model.conv2.weight.data[1] = 0
    model.conv2.bias.data[:2] = [0.3, 0.02]
    prepared = tc.prepare_qat(model, QuantConfig(activations=8), images_of(rng))
    integer = tc.convert(prepared)
    images = images_of(rng)
    expected = prepared.eval()(images).data
    assert same_bits(integer(images).data, expected)
    assert len(integer.conv2.notes) == 1
    np.testing.assert_allclose(expected, model.eval()(images).data, atol=0.05)
    trained(prepared, rng)  # and its gradients are numbers
    assert same_bits(tc.convert(prepared)(images).data, prepared.eval()(images).data)


# ------------------------------------------------------------------------------------ weights only


@pytest.mark.parametrize(
    "config",
    [
        QuantConfig(bits=1),
        QuantConfig(bits=2),
        QuantConfig(bits=4, scheme="affine"),
        QuantConfig(bits=4, granularity="per_group", group_size=5),
        QuantConfig(bits=5, scheme="affine", granularity="per_tensor"),
        QuantConfig(bits=3, weight_observer="mse"),
        QuantConfig(bits=3, weight_observer="mse", scheme="affine"),
        QuantConfig(bits=16),
    ],
    ids=lambda c: str(c.to_dict()),
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weight_only_models_become_what_quantize_makes(rng, config, dtype):
    """Before any training the very codes of ``tc.quantize``; afterwards those that it simulated."""
    model = cnn(3).to(dtype)
    images = images_of(rng).astype(dtype)
    prepared = tc.prepare_qat(model, config)
    expected, found = tc.quantize(model, config), tc.convert(prepared)
    assert [type(m) for m in found.modules()] == [type(m) for m in expected.modules()]
    for name, array in expected.state_dict().items():
        assert found.state_dict()[name].tobytes() == array.tobytes(), name
    assert repr(found) == repr(expected)
    trained(prepared.to("float32") if dtype == "float64" else prepared, rng)
    with nn.fusion(False):
        integer = tc.convert(prepared)
        images = images.astype("f")
        np.testing.assert_array_equal(integer(images).data, prepared.eval()(images).data)
    before, after = (m.state_dict() for m in (found, integer))
    assert any(not np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_weight_only_with_learned_steps(rng, scheme):
    prepared = tc.prepare_qat(cnn(3), QuantConfig(bits=3, scheme=scheme, learn_step=True))
    before = prepared.fc1.weight_quantizer.step.data.copy()
    trained(prepared, rng)
    assert not np.array_equal(before, prepared.fc1.weight_quantizer.step.data)
    images = images_of(rng)
    found = tc.convert(prepared)
    np.testing.assert_array_equal(found(images).data, prepared.eval()(images).data)
    np.testing.assert_array_equal(
        found.fc1.weight_scale, np.abs(prepared.fc1.weight_quantizer.step.data)
    )


# ---------------------------------------------------------------------------------------- refusals


def test_before_anything_was_seen_it_names_the_layers():
    prepared = tc.prepare_qat(cnn(), QuantConfig(activations=8))
    with pytest.raises(
        RuntimeError, match=r"the input of conv1 \(Conv2d\), conv1 .*, conv2 .*, fc1"
    ):
        tc.convert(prepared)


def test_a_single_layer_gives_floats_and_needs_to_see_its_input(rng):
    prepared = tc.prepare_qat(nn.Linear(4, 3), None)
    with pytest.raises(RuntimeError, match=r"the input of the model \(Linear\)"):
        tc.convert(prepared)
    x = rng.normal(size=(5, 4)).astype("f")
    prepared.train()(x)
    np.testing.assert_array_equal(tc.convert(prepared)(x).data, prepared.eval()(x).data)


def test_converting_twice_is_refused_and_the_prepared_model_trains_on(rng):
    prepared = tc.prepare_qat(cnn(3), None, images_of(rng))
    before = prepared.state_dict()
    integer = tc.convert(prepared)
    with pytest.raises(ValueError, match=r"no prepared layer .*converted already"):
        tc.convert(integer)
    for name, array in prepared.state_dict().items():
        np.testing.assert_array_equal(array, before[name], name)
    trained(prepared, rng)
    assert tc.convert(prepared).fc1.weight_codes.dtype == np.int8
    with pytest.raises(ValueError, match="no prepared layer"):
        tc.convert(cnn())
    with pytest.raises(TypeError, match="convert takes a model, got int"):
        tc.convert(3)


def test_what_is_switched_off_is_not_lost(rng):
    """convert gives what the layers round to, whether rounding happens to be off or not."""
    prepared = tc.prepare_qat(cnn(3), None, images_of(rng))
    expected = tc.convert(prepared).state_dict()
    switch(prepared, rounding=False, observing=False)
    for name, array in tc.convert(prepared).state_dict().items():
        np.testing.assert_array_equal(array, expected[name])


def test_sums_beyond_int32_are_refused_by_name_before_they_are_made(rng):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.ReLU(), nn.Linear(2, 2))
    model[1].weight.data[...] = 1
    config = QuantConfig(bits=16, activations=16)
    with pytest.raises(ValueError, match=r"1 \(Linear\): the sum of 64 products .*int32"):
        tc.prepare_qat(model, config, images_of(rng)).eval()(images_of(rng))


def test_latent_zeros_have_code_zero(rng):
    model = tc.prune(cnn(3), sparsity=0.8)
    for bits in (2, 4, 8):
        for learn_step in (False, True):
            config = QuantConfig(bits=bits, activations=4, learn_step=learn_step)
            prepared = trained(tc.prepare_qat(model, config), rng)
            integer = tc.convert(prepared)
            for name in ("conv1", "conv2", "fc1", "fc2"):
                mask = getattr(prepared, name).weight.mask
                codes = getattr(integer, name).weight_codes
                assert not codes[~mask].any()
                assert codes[mask].any()
