"""``tc.sensitivity``: one layer quantized at a time, by hand and by the verb."""

import json

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F, models, nn, optim, random
from tinycompress.cli.output import as_json
from tinycompress.compress.quantize import QuantConfig, fold_batch_norm, quantize
from tinycompress.data import Dataset, mnist
from tinycompress.train import Workers, evaluate, predict


@pytest.fixture(scope="module")
def trained():
    """(a small trained CNN, data to measure on)."""
    random.manual_seed(0)
    train, test = mnist()
    model = models.TinyCNN()
    tc.fit(model, train.take(1500), 2, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model, test.take(300)


def snr(signal, approximation):
    return 10 * np.log10((signal**2).sum() / ((signal - approximation) ** 2).sum())


def test_a_row_is_what_one_quantized_layer_does(trained):
    model, data = trained
    found = tc.sensitivity(model, QuantConfig(3), data, workers=1)
    by_hand = model.copy()
    by_hand.conv2.weight.data[...] = quantize(model, QuantConfig(3)).conv2.weight.data
    before, after = evaluate(model, data, workers=1), evaluate(by_hand, data, workers=1)
    row = found["conv2"]
    assert (row.kind, row.bits, row.activations) == ("Conv2d", 3, None)
    assert (found.accuracy, row.accuracy) == (before.accuracy, after.accuracy)
    assert row.drop == pytest.approx(100 * (before.accuracy - after.accuracy))
    assert found.loss == pytest.approx(before.loss)
    assert row.loss == pytest.approx(after.loss)
    assert row.loss_increase == pytest.approx(after.loss - before.loss, abs=1e-6)
    y, approximate = predict(model, data.images), predict(by_hand, data.images)
    assert row.output_snr_db == pytest.approx(snr(y, approximate), abs=1e-2)
    w, rounded = model.conv2.weight.data, by_hand.conv2.weight.data
    assert row.weight_snr_db == pytest.approx(snr(w, rounded), abs=1e-2)


def test_divergence_is_that_of_the_answers(trained):
    model, data = trained
    row = tc.sensitivity(model, QuantConfig(2), data, workers=1)["fc"]
    rest = {"conv1": None, "conv2": None}
    after = predict(quantize(model, QuantConfig(2, overrides=rest)), data.images)
    p, q = (F.softmax(tc.tensor(z), axis=1).data for z in (predict(model, data.images), after))
    assert row.divergence == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-3)
    assert row.divergence > 0.01


def test_the_last_row_quantizes_all_of_them(trained):
    model, data = trained
    found = tc.sensitivity(model, QuantConfig(3), data, workers=1)
    q = quantize(model, QuantConfig(3))
    whole = evaluate(q, data, workers=1)
    assert [row.name for row in found] == ["conv1", "conv2", "fc"]
    assert found.together.accuracy == whole.accuracy
    assert found.together.loss == pytest.approx(whole.loss)
    w, rounded = (
        np.concatenate([m.get_submodule(n).weight.data.ravel() for n in ("conv1", "conv2", "fc")])
        for m in (model, q)
    )
    assert found.together.weight_snr_db == pytest.approx(snr(w, rounded), abs=1e-2)
    assert found.together.divergence > min(row.divergence for row in found)
    assert found.images == len(data)


def test_more_bits_cost_less(trained):
    model, data = trained
    rows = [tc.sensitivity(model, QuantConfig(b), data, workers=1)["fc"] for b in (2, 4, 6, 8)]
    damage = [row.divergence for row in rows]
    assert damage == sorted(damage, reverse=True)
    gained = np.diff([row.weight_snr_db for row in rows[1:]])
    np.testing.assert_allclose(gained, 12, atol=2.5)  # six decibels a bit


@pytest.mark.parametrize("config", [QuantConfig(4, activations=4), QuantConfig(4, dynamic=True)])
def test_activations_are_rounded_too_where_the_config_says_so(config, trained):
    model, data = trained
    weights = tc.sensitivity(model, QuantConfig(4), data, workers=1)
    both = tc.sensitivity(model, config, data, workers=1)
    assert {row.activations for row in both} == {config.activations}
    for w, b in zip(weights, both, strict=True):
        assert b.weight_snr_db == pytest.approx(w.weight_snr_db)
        assert b.divergence > w.divergence * 0.9
    assert both.together.divergence > weights.together.divergence


def test_calibration_data_can_be_given(trained):
    model, data = trained
    dark = Dataset(data.images * 0.2, data.labels)
    config = QuantConfig(8, activations=8)
    fitting = tc.sensitivity(model, config, data, workers=1)
    clipped = tc.sensitivity(model, config, data, calibration=dark, workers=1)
    assert clipped["conv1"].divergence > 10 * fitting["conv1"].divergence


def test_norms_are_folded_before_weights_are_compared():
    model = nn.Sequential(
        {
            "conv": nn.Conv2d(1, 3, 3, stride=2),
            "norm": nn.BatchNorm2d(3),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(3 * 169, 10),
        }
    ).eval()
    model.norm.weight.data[...] = [0.1, -5, 2]
    data = mnist()[1].take(60)
    found = tc.sensitivity(model, QuantConfig(8, activations=8), data, workers=1)
    assert [row.name for row in found] == ["conv", "fc"]
    w = fold_batch_norm(model).conv.weight.data
    rounded = quantize(nn.Sequential(fold_batch_norm(model).conv), QuantConfig(8))[0].weight.data
    assert found["conv"].weight_snr_db == pytest.approx(snr(w, rounded), abs=1e-2)


def test_a_model_with_a_forward_of_its_own_is_measured_too():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.relu, self.second = nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)
            self.flatten = nn.Flatten()

        def forward(self, x):
            return self.second(self.relu(self.first(self.flatten(x))))

    data = mnist()[1].take(60)
    found = tc.sensitivity(Twice().eval(), QuantConfig(4, activations=6), data, workers=1)
    assert [row.name for row in found] == ["first", "second"]
    assert all(0 < row.divergence < 1 for row in found)


def test_layers_that_stay_in_floats_are_not_looked_at(trained):
    model, data = trained
    config = QuantConfig(4, overrides={"conv1": None, "fc": QuantConfig(2)})
    found = tc.sensitivity(model, config, data, workers=1)
    assert [(row.name, row.bits) for row in found] == [("conv2", 4), ("fc", 2)]
    assert found.together.bits is None


def test_a_model_that_is_one_layer():
    model, data = nn.Linear(6, 3), Dataset(np.ones((5, 6), "f"), np.zeros(5, np.int64))
    (row,) = tc.sensitivity(model, QuantConfig(2), data, workers=1)
    assert (row.name, row.kind) == ("", "Linear")


def test_nothing_lost_is_infinite_and_json_says_null():
    model = nn.Linear(2, 2, bias=False)
    model.weight.data[...] = [[1, -1], [1, 0]]
    data = Dataset(np.ones((5, 2), "f"), np.zeros(5, np.int64))
    found = tc.sensitivity(model, QuantConfig(2), data, workers=1)
    assert found.together.weight_snr_db == found.together.output_snr_db == np.inf
    assert found.together.divergence == 0
    read = json.loads(as_json(found.to_dict()))
    assert read["layers"][0]["weight_snr_db"] is None
    assert read["images"] == 5


def test_any_number_of_workers_gives_the_same(trained):
    model, data = trained
    config = QuantConfig(4, activations=4)
    one = tc.sensitivity(model, config, data, workers=1)
    with Workers(2) as team:
        assert tc.sensitivity(model, config, data, workers=team) == one
        assert tc.sensitivity(model, config, data, workers=team) == one


def test_the_model_stays_as_it_was(trained):
    model, data = trained
    before = {n: a.copy() for n, a in model.state_dict().items()}
    tc.sensitivity(model, QuantConfig(2, activations=4), data, workers=1)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_table_has_a_line_for_each_layer_and_two_more(trained):
    model, data = trained
    found = tc.sensitivity(model, QuantConfig(4, activations=8), data, workers=1)
    head, floats, *rows = str(found).splitlines()
    assert head.split()[:3] == ["layer", "type", "bits"]
    assert floats.split()[:3] == ["in", "floats", f"{found.accuracy:.2%}"]
    assert [row.split()[0] for row in rows] == ["conv1", "conv2", "fc", "all"]
    assert rows[0].split()[1:3] == ["Conv2d", "4/8"]


def test_what_is_wrong_is_said_before_anything_is_measured(trained, monkeypatch):
    model, data = trained
    from tinycompress.compress import answers

    monkeypatch.setattr(answers, "predict", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(TypeError, match="config must be a QuantConfig or PruneConfig, got int"):
        tc.sensitivity(model, 4, data)
    with pytest.raises(ValueError, match="nothing to quantize in this ReLU"):
        tc.sensitivity(nn.ReLU(), QuantConfig(4), data)
    with pytest.raises(ValueError, match=r"overrides\['fc9'\] fits no layer"):
        tc.sensitivity(model, QuantConfig(4, overrides={"fc9": None}), data)
    broken = model.copy()
    broken.fc.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"fc \(Linear\)"):
        tc.sensitivity(broken, QuantConfig(4), data)


def test_labels_must_be_classes_of_the_model(trained):
    model, data = trained
    with pytest.raises(ValueError, match="labels must be class numbers"):
        tc.sensitivity(model, QuantConfig(4), Dataset(data.images, data.images), workers=1)
    labels = np.full(len(data), 12)
    with pytest.raises(ValueError, match="labels go up to 12, but the model has 10"):
        tc.sensitivity(model, QuantConfig(4), Dataset(data.images, labels), workers=1)
    with pytest.raises(TypeError, match=r"data must be a tc\.data\.Dataset, got ndarray"):
        tc.sensitivity(model, QuantConfig(4), data.images, workers=1)
