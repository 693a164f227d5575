"""What ``prepare_qat`` makes of a model, and what it refuses before it touches anything."""

import numpy as np
import pytest
from qat_models import SIDE, Network, Residual, cnn, shaken

import tinycompress as tc
from tinycompress import functional as F, nn
from tinycompress.compress.quantize import QuantConfig, observe, switch
from tinycompress.compress.quantize.integer import IntegerIdentity, OnFloats
from tinycompress.compress.quantize.qat import (
    PreparedAdd,
    PreparedConcat,
    PreparedConv2d,
    PreparedLinear,
    switched,
)
from tinycompress.compress.quantize.qat.activations import ActivationQuantizer
from tinycompress.compress.quantize.qat.passing import PreparedDropout, PreparedReLU
from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.compress.quantize.ranges import IntegerRange

CODES = QuantConfig(activations=8)


def images_of(rng, count=16):
    return rng.normal(size=(count, 1, SIDE, SIDE)).astype("f")


def residual(norm=False):
    return Network(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        Residual(4, norm),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 4)),
    )


# ------------------------------------------------------------------------------------ what it makes


def test_parameters_keep_names_values_and_masks():
    model = tc.prune(cnn(), sparsity=0.5)
    prepared = tc.prepare_qat(model, CODES)
    assert [n for n, _ in prepared.named_parameters()] == [n for n, _ in model.named_parameters()]
    for (name, a), b in zip(prepared.named_parameters(), model.parameters(), strict=True):
        assert a is not b
        np.testing.assert_array_equal(a.data, b.data, name)
        assert (a.mask is None) == (b.mask is None)
        if b.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask)
    prepared.load_state_dict(model.state_dict(), strict=False)
    assert set(model.state_dict()) <= set(prepared.state_dict())


def test_the_original_is_untouched(rng):
    model = shaken(residual(norm=True), 0)
    before, text = model.state_dict(), repr(model)
    tc.prepare_qat(model, CODES, images_of(rng))
    assert repr(model) == text
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_relus_in_a_sequential_are_taken_in_and_names_stay():
    prepared = tc.prepare_qat(cnn(), CODES)
    assert [n for n, _ in prepared.named_children()] == [n for n, _ in cnn().named_children()]
    taken_in = [n for n, m in prepared.named_modules() if getattr(m, "relu", False)]
    assert taken_in == ["conv1", "conv2", "fc1"]
    assert type(prepared.relu1) is IntegerIdentity


def test_a_relu_that_does_not_follow_directly_stays():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)
    )
    prepared = tc.prepare_qat(model, CODES)
    assert not prepared[0].relu
    assert type(prepared[2]) is PreparedReLU


def test_a_layer_used_twice_keeps_its_relus_apart():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(6, 2))
    prepared = tc.prepare_qat(model, CODES)
    assert prepared[0] is prepared[2]
    assert not prepared[0].relu
    assert type(prepared[1]) is PreparedReLU


def test_the_last_layer_of_a_sequential_gives_floats(rng):
    prepared = tc.prepare_qat(cnn(), CODES)
    x = tc.Tensor(images_of(rng))
    assert prepared.fc2.output_quantizer is None
    assert isinstance(prepared.train()(x), tc.Tensor)
    assert isinstance(prepared[:3](x), QTensor)


def test_only_the_first_layer_of_a_sequential_takes_floats(rng):
    prepared = tc.prepare_qat(cnn(), CODES)
    assert prepared.conv1.input_quantizer is not None
    assert prepared.conv2.input_quantizer is prepared.fc2.input_quantizer is None
    with pytest.raises(TypeError, match=r"fc2 \(Linear\) takes codes from the layer before it"):
        prepared.fc2(rng.normal(size=(2, 12)).astype("f"))


def test_a_layer_before_one_that_is_unknown_gives_floats(rng):
    model = nn.Sequential(
        {
            "conv": nn.Conv2d(1, 2, 3),
            "pool": nn.MaxPool2d(2),
            "gelu": nn.GELU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(18, 4),
            "log": nn.LogSoftmax(),
        }
    )
    prepared = tc.prepare_qat(model, CODES, images_of(rng))
    assert prepared.conv.output_quantizer is prepared.fc.output_quantizer is None
    assert prepared.fc.input_quantizer.ready
    images = images_of(rng)
    np.testing.assert_allclose(prepared(images).data, model(images).data, atol=0.05)
    np.testing.assert_array_equal(tc.convert(prepared)(images).data, prepared.eval()(images).data)


def test_with_data_a_forward_of_its_own_is_followed(rng):
    prepared = tc.prepare_qat(residual(norm=True), CODES, images_of(rng))
    block = prepared.block
    assert isinstance(block.add, PreparedAdd)
    assert isinstance(block.join, PreparedConcat)
    assert type(block.norm) is IntegerIdentity, "folded"
    assert block.add.relu, "the only reader of the sum is a ReLU"
    assert not block.conv.relu
    assert prepared.head[1].output_quantizer is None
    assert block.join.output_quantizer is not None


def test_a_sum_that_took_a_relu_in_gives_nothing_below_zero(rng):
    config = CODES.replace(activation_scheme="symmetric")
    prepared = tc.prepare_qat(residual(), config, images_of(rng)).eval()
    x = QTensor(rng.integers(-100, 100, (2, 4, 4, 4), np.int8), 0.01, 0, IntegerRange(8))
    steps = [add(x, x).steps().data for add in (prepared.block.add, tc.convert(prepared).block.add)]
    np.testing.assert_array_equal(*steps)
    assert steps[0].min() == 0
    assert prepared.block.add.output_quantizer.target.qmin < 0


def test_a_sum_that_is_used_twice_takes_no_relu_in(rng):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 8), nn.Linear(64, 8), nn.Linear(8, 2)
            self.add, self.relu = nn.Add(), nn.ReLU()

        def forward(self, x):
            x = x.flatten(1)
            y = self.relu(self.add(self.a(x), self.b(x)))
            return self.c(self.add(y, self.b(x)))

    model = Twice()
    images = images_of(rng)
    prepared = tc.prepare_qat(model, CODES, images)
    assert not prepared.add.relu
    x = tc.Tensor(images)
    np.testing.assert_allclose(prepared(x).data, model(x).data, atol=0.05)


def test_with_data_the_output_is_found_wherever_it_is_defined(rng):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(5, 2), nn.Linear(SIDE * SIDE, 5)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.last(self.relu(self.first(x.flatten(1))))

    x = tc.Tensor(images_of(rng))
    prepared = tc.prepare_qat(Backwards(), CODES, images_of(rng))
    assert prepared.last.output_quantizer is None
    assert prepared.first.relu
    assert isinstance(prepared(x), tc.Tensor)
    assert isinstance(tc.prepare_qat(Backwards(), CODES).train()(x), QTensor)  # nobody could know


def test_unknown_layers_in_a_forward_of_its_own_get_floats(rng):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(1, 2, 3), nn.SiLU()
            self.fc = nn.Linear(2 * 36, 4)

        def forward(self, x):
            return self.fc(self.act(self.conv(x)).flatten(1))

    model = Own()
    prepared = tc.prepare_qat(model, CODES, images_of(rng))
    assert isinstance(prepared.act, OnFloats)
    images = images_of(rng)
    np.testing.assert_allclose(prepared(images).data, model(images).data, atol=0.05)
    np.testing.assert_array_equal(tc.convert(prepared)(images).data, prepared.eval()(images).data)


def test_overrides_are_respected(rng):
    config = CODES.replace(
        overrides={"conv2": None, "fc*": CODES.replace(bits=3), nn.Conv2d: CODES.replace(bits=5)}
    )
    prepared = tc.prepare_qat(cnn(), config, images_of(rng))
    assert type(prepared.conv2) is nn.Conv2d
    assert prepared.conv1.quantization.bits == 5
    assert prepared.fc1.quantization.bits == prepared.fc2.quantization.bits == 3
    assert prepared.conv1.output_quantizer is None, "conv2 computes with floats"
    assert prepared.fc1.input_quantizer is not None
    images = images_of(rng)
    np.testing.assert_array_equal(tc.convert(prepared)(images).data, prepared.eval()(images).data)


def test_weight_only_layers_are_fake_quantized_and_nothing_else_changes(rng):
    model = cnn()
    prepared = tc.prepare_qat(model, QuantConfig(bits=4))
    assert isinstance(prepared.conv1, PreparedConv2d)
    assert isinstance(prepared.fc1, PreparedLinear)
    assert prepared.conv1.input_quantizer is prepared.conv1.output_quantizer is None
    assert type(prepared.relu1) is nn.ReLU
    images = images_of(rng)
    with nn.fusion(False):
        expected = tc.quantize(model, QuantConfig(bits=4))(images).data
        np.testing.assert_array_equal(prepared(images).data, expected)


def test_masks_reach_the_prepared_model_from_prune():
    """A prepared layer is a Conv2d or a Linear to whoever prunes."""
    thin = tc.prune(tc.prepare_qat(cnn(), CODES), sparsity=0.5)
    assert isinstance(thin.conv1, PreparedConv2d)
    assert not thin.conv1.weight.mask.all()


def test_copies_are_independent(rng):
    prepared = tc.prepare_qat(cnn(), CODES.replace(learn_step=True), images_of(rng))
    twin = prepared.copy()
    images = images_of(rng)
    expected = prepared.eval()(images).data
    np.testing.assert_array_equal(twin.eval()(images).data, expected)
    twin.conv1.output_quantizer.step.data[...] = 1
    twin.conv1.relu = False
    np.testing.assert_array_equal(prepared(images).data, expected)


# ------------------------------------------------------------------------------------ the switches


def test_without_rounding_it_is_the_float_model(rng):
    model = shaken(residual(norm=True), 1).eval()
    prepared = tc.prepare_qat(model, CODES.replace(bits=2, activations=2), images_of(rng))
    images = images_of(rng)
    exact = model(images).data
    with switched(prepared, rounding=False):
        np.testing.assert_allclose(prepared(images).data, exact, rtol=1e-4, atol=1e-4)
    assert np.abs(prepared(images).data - exact).max() > 0.1


def test_one_layer_alone_can_round(rng):
    model = cnn().eval()
    prepared = tc.prepare_qat(model, QuantConfig(bits=2, activations=8), images_of(rng)).eval()
    images = images_of(rng)
    switch(prepared, rounding=False)
    exact = prepared(images).data
    losses = []
    for name in ("conv1", "conv2", "fc1", "fc2"):
        getattr(prepared, name).rounding = True
        losses.append(np.abs(prepared(images).data - exact).max())
        getattr(prepared, name).rounding = False
    assert min(losses) > 0
    np.testing.assert_array_equal(prepared(images).data, exact)


def test_observing_happens_in_training_mode_and_can_be_switched_off(rng):
    prepared = tc.prepare_qat(cnn(), CODES, images_of(rng))
    before = prepared.state_dict()

    def changed():
        return [n for n, a in prepared.state_dict().items() if not np.array_equal(a, before[n])]

    prepared.eval()(10 * images_of(rng))
    prepared.train()
    with switched(prepared, observing=False):
        prepared(10 * images_of(rng))
    assert changed() == []
    prepared(10 * images_of(rng))
    assert "conv1.output_quantizer.scale" in changed()
    assert "conv1.weight" not in changed()


def test_calibration_does_not_depend_on_how_the_data_are_cut(rng):
    images = images_of(rng, 50)
    for observer in ("minmax", "moving_average", "mse"):
        prepared = tc.prepare_qat(cnn(), CODES.replace(observer=observer))
        twin = prepared.copy()
        observe(prepared, images, batch_size=50)
        observe(twin, images, batch_size=7)
        for name, array in prepared.state_dict().items():
            if name.endswith(("conv1.input_quantizer.scale", "observer.count")):
                np.testing.assert_array_equal(array, twin.state_dict()[name])
            elif array.dtype.kind == "f":  # BLAS rounds by the size of the batch
                np.testing.assert_allclose(array, twin.state_dict()[name], rtol=1e-5)


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "kl", "mse"])
@pytest.mark.parametrize("name", ["conv1", "fc1"])
def test_in_training_layers_see_the_real_outputs_after_the_relu(rng, observer, name):
    """Whether they look at all numbers or, for speed, at the ends of each channel alone."""
    config = CODES.replace(bits=4, observer=observer)
    prepared = tc.prepare_qat(cnn(), config, images_of(rng)).eval()
    images = images_of(rng)
    layer = getattr(prepared, name)
    before = prepared[: list(prepared._modules).index(name)]
    x = before(tc.Tensor(images)) if len(before) else tc.Tensor(images)
    quantizer = layer.output_quantizer
    layer.output_quantizer = None
    real = layer(x).data  # as it would leave the model
    layer.output_quantizer = fresh = ActivationQuantizer(config, name)
    fresh.train()
    layer(x)
    expected = quantizer.observer.copy()
    for buffer, array in zip(fresh.observer._buffers, expected.seen(real), strict=True):
        if not (observer == "minmax" and buffer == "count"):
            np.testing.assert_array_equal(getattr(fresh.observer, buffer), array, buffer)
    assert fresh.observer.range()[0] == 0, "after the ReLU"


def test_calibration_leaves_dropout_alone(rng):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    prepared = tc.prepare_qat(model.train(), CODES)
    twin = tc.prepare_qat(nn.Sequential(model[0], model[1], model[3]), CODES)
    assert type(prepared[2]) is PreparedDropout
    images = images_of(rng)
    observe(prepared, images)
    observe(twin, images)
    assert prepared.training
    assert prepared[1].output_quantizer.final() == twin[1].output_quantizer.final()


def test_dropout_in_training_zeroes_codes_and_keeps_the_mean(rng):
    model = nn.Sequential(nn.Linear(4, 400), nn.Dropout(0.25), nn.Linear(400, 2))
    prepared = tc.prepare_qat(model, CODES, rng.normal(size=(9, 4)).astype("f"))
    prepared.train()
    x = rng.normal(size=(9, 4)).astype("f")
    before = prepared[0](x)
    after = prepared[1](before)
    assert after.target == before.target
    steps, dropped = before.steps().data, after.steps().data
    assert set(np.unique(dropped[steps != 0] == 0)) == {True, False}
    np.testing.assert_array_equal(dropped[dropped != 0], steps[dropped != 0])
    np.testing.assert_allclose(after.scale.data * 0.75, before.scale.data, rtol=1e-6)
    assert prepared.eval()[1](before) is before


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QuantConfig(dynamic=True), "with dynamic=True there are no ranges to train with"),
        (CODES.replace(overrides={"conv3": None}), r"overrides\['conv3'\] fits no layer"),
        (
            CODES.replace(overrides={nn.Conv2d: None, nn.Linear: None}),
            "the overrides leave every layer in floats",
        ),
    ],
)
def test_configs_that_do_not_fit(config, message):
    with pytest.raises(ValueError, match=message):
        tc.prepare_qat(cnn(), config)


def test_all_problems_are_named_and_nothing_is_changed():
    model = tc.prune(cnn(), sparsity=0.5)
    model.fc2.weight.mask = None
    model.fc2.weight.data[...] = 1
    model.fc1.bias.data[...] = 1
    model.conv2.weight.data[0, 0, 0, 0] = np.nan
    before, text = model.state_dict(), repr(model)
    for activations in (None, 8):
        with pytest.raises(ValueError, match="one bit has no code for zero") as error:
            tc.prepare_qat(model, QuantConfig(bits=1, activations=activations))
        lines = str(error.value).splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["conv1", "conv2", "fc1"]
        assert "NaN" in lines[2]
    assert repr(model) == text
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_one_bit_refuses_pruning_afterwards(rng):
    prepared = tc.prepare_qat(cnn(), QuantConfig(bits=1, activations=4), images_of(rng))
    thin = tc.prune(prepared, sparsity=0.5)
    with pytest.raises(ValueError, match=r"conv1 \(Conv2d\): its weights are pruned, and one bit"):
        thin(images_of(rng))


def test_preparing_twice_is_refused():
    prepared = tc.prepare_qat(cnn(), CODES)
    with pytest.raises(ValueError, match="this Sequential is prepared already"):
        tc.prepare_qat(prepared, CODES)


def test_a_model_without_layers_to_quantize():
    with pytest.raises(
        ValueError, match="nothing to quantize in this Sequential: it has no Linear"
    ):
        tc.prepare_qat(nn.Sequential(nn.ReLU(), nn.Flatten()), CODES)
    with pytest.raises(TypeError, match="prepare_qat takes a model, got int"):
        tc.prepare_qat(3, CODES)
    with pytest.raises(TypeError, match="config must be a QuantConfig, got dict"):
        tc.prepare_qat(cnn(), {"bits": 8})


def test_before_anything_was_seen_each_batch_has_its_own_range(rng):
    """So that ``fit`` can try its validation data first; but it is nothing to be converted."""
    prepared = tc.prepare_qat(cnn(), CODES).eval()
    before = prepared.state_dict()
    images = images_of(rng)
    alone = prepared(images).data
    np.testing.assert_allclose(alone, cnn_like(prepared)(images).data, atol=0.05)
    for name, array in prepared.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(RuntimeError, match="nothing was seen"):
        tc.convert(prepared)


def cnn_like(prepared):
    """The float model with these weights."""
    model = cnn()
    model.load_state_dict({n: p.data for n, p in prepared.named_parameters()})
    return model.eval()


def test_activations_that_are_not_numbers_name_the_layer(rng):
    prepared = tc.prepare_qat(cnn(), CODES)
    images = images_of(rng)
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"the input of conv1 \(Conv2d\): holds NaN"):
        prepared.train()(images)


def test_operations_between_codes_say_what_to_do(rng):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return self.b(y + y)

    prepared = tc.prepare_qat(Own(), CODES)
    with pytest.raises(TypeError, match=r"nn\.Add"):
        prepared.train()(rng.normal(size=(2, 4)).astype("f"))


def test_a_prepared_layer_says_what_it_is():
    text = repr(tc.prepare_qat(cnn(), QuantConfig(bits=3, activations=5)).conv1)
    assert text.startswith("PreparedConv2d(in_channels=1, out_channels=6")
    assert text.endswith("bits=3, activations=5, relu=True)")


def test_losses_get_floats(rng):
    prepared = tc.prepare_qat(residual(), CODES)
    loss = F.cross_entropy(prepared(images_of(rng)), rng.integers(0, 4, 16))
    gradients = tc.grad(loss, list(prepared.parameters()))
    assert all(np.isfinite(g).all() for g in gradients)
    assert all(np.abs(g).max() > 0 for g in gradients)
