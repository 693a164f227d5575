"""Deep Compression: each stage does what its name says, and what is reported was measured."""

import json
from functools import partial

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import nn, optim
from tinycompress.compress.prune import GradualPruning
from tinycompress.compress.share import SharedLayer, round_to_half
from tinycompress.data import Dataset
from tinycompress.format import to_bytes

STAGES = ["float", "pruned", "emptied", "shared", "fine-tuned", "rounded"]


@pytest.fixture(scope="module")
def data():
    """Four classes of noisy patterns, which a small network can learn."""
    rng = np.random.default_rng(0)
    patterns, labels = rng.normal(size=(4, 1, 6, 6)), rng.integers(0, 4, 300)
    images = patterns[labels] + rng.normal(size=(300, 1, 6, 6))
    return Dataset(images.astype(np.float32), labels)


def network(width=40, seed=0):
    tc.manual_seed(seed)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(1, 6, 3),
            "norm": nn.BatchNorm2d(6),
            "relu": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(96, width),
            "relu1": nn.ReLU(),
            "fc2": nn.Linear(width, 4),
        }
    )


@pytest.fixture(scope="module")
def model(data):
    net = network()
    tc.fit(net, data, 6, workers=1, batch_size=50)
    return net


def compress(model, data, **options):
    defaults = {"epochs": 2, "share_epochs": 2, "batch_size": 50, "workers": 1}
    return tc.deep_compress(model, data, **(defaults | options))


@pytest.fixture(scope="module")
def small(model, data):
    return compress(model, data, sparsity=0.9, bits=2, validate=data)


def weights(model):
    """Layer name → array, by what the layer computes with."""
    return {n: m.weight.data for n, m in model.named_modules() if hasattr(m, "weight")}


# ------------------------------------------------------------------------------- what is reached


def test_the_stages_follow_each_other(small):
    assert [stage.name for stage in small.stages] == STAGES


def test_exactly_so_many_weights_are_pruned_and_what_is_cut_off_goes_too(small):
    total = 6 * 9 + 96 * 40 + 40 * 4
    assert all(stage.weights == total for stage in small.stages)
    assert small["float"].zeros == 0
    assert small["pruned"].zeros == round(0.9 * total)
    assert small["emptied"].zeros > small["pruned"].zeros
    assert len({stage.zeros for stage in small.stages[2:]}) == 1


def test_every_layer_has_at_most_so_many_different_weights(small):
    for layer in (small.model.conv, small.model.fc1, small.model.fc2):
        assert isinstance(layer, SharedLayer)
        assert 1 < len(set(layer.weight.data.ravel().tolist()) - {0}) <= 4


def test_what_is_rounded_loses_nothing_in_float16(small):
    arrays = [p.data for p in small.model.parameters()]
    arrays += [b for b in small.model.buffers() if b.dtype.kind == "f"]
    assert len(arrays) > 6
    for array in arrays:
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, array.astype(np.float16))


def test_bytes_are_those_of_the_file_and_errors_those_of_what_it_holds(
    small, model, data, tmp_path
):
    size = tc.save(small.model, tmp_path / "small.tcz")
    assert small.bytes == size == (tmp_path / "small.tcz").stat().st_size
    assert small["float"].bytes == tc.save(model, tmp_path / "model.tcz")
    for stage, file in (("float", "model.tcz"), ("rounded", "small.tcz")):
        again = tc.load(tmp_path / file).eval()
        answers = again(data.images).numpy()
        assert small[stage].error == pytest.approx(100 * np.mean(answers.argmax(1) != data.labels))
        true = answers[np.arange(len(data)), data.labels]
        loss = np.mean(np.log(np.exp(answers.astype(np.float64)).sum(axis=1)) - true)
        assert small[stage].loss == pytest.approx(loss, rel=1e-4)


def test_bits_and_ratio_are_of_all_parameters(small, model):
    n = sum(p.size for p in model.parameters())
    assert small["rounded"].parameters == n
    assert small.ratio == pytest.approx(4 * n / small.bytes)
    assert small["rounded"].bits_per_weight == pytest.approx(8 * small.bytes / n)
    assert small.ratio > 10


def test_it_still_knows_what_it_learned(small):
    assert small["float"].error < 5
    assert small.stages[-1].error < 25  # of 75 by chance


def test_the_model_is_left_as_it_was(model, data):
    before = to_bytes(model)
    compress(model, data, epochs=1, share_epochs=1)
    assert to_bytes(model) == before
    assert all(p.mask is None for p in model.parameters())


# ------------------------------------------------------------------------------ what may be chosen


def test_each_layer_may_have_a_share_and_bits_of_its_own(model, data):
    found = compress(model, data, sparsity={"fc1": 0.75}, bits={"fc*": 3, "conv": 1})
    sparsities = {x.name: x.zeros for x in tc.sparsity_report(found.model).layers}
    assert sparsities["conv"] == 0
    assert sparsities["fc1"] >= 0.75 * 96 * 40
    counts = {n: len(set(w.ravel().tolist()) - {0}) for n, w in weights(found.model).items()}
    assert counts["conv"] == 2
    assert 4 < counts["fc1"] <= 8
    assert 4 < counts["fc2"] <= 8


def test_a_skipped_layer_stays_dense_and_in_floats(model, data):
    found = compress(model, data, skip="conv", half=False, share_epochs=0)
    assert type(found.model.conv) is nn.Conv2d
    assert len(np.unique(found.model.conv.weight.data)) == 54
    assert [stage.name for stage in found.stages] == STAGES[:4]
    assert {layer.name for layer in found.layers} == {"fc1", "fc2"}


def test_what_was_pruned_is_there_to_go_on_from(model, data):
    """To other bits without pruning anew, and further."""
    found = compress(model, data, sparsity=0.8)
    assert found["pruned"].zeros == tc.sparsity_report(found.pruned).zeros
    again = compress(found.pruned, data, sparsity=None, epochs=0)
    assert again["fine-tuned"].zeros == found["fine-tuned"].zeros
    for name, array in found.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name], array)
    fewer = compress(found.pruned, data, sparsity=0.9, pruning={"initial": 0.8})
    zero = found.pruned.fc1.weight.data == 0
    assert not fewer.pruned.fc1.weight.data[zero].any()
    assert fewer["pruned"].zeros > found["pruned"].zeros


def test_biases_of_few_bits(model, data):
    found = compress(model, data, epochs=0, share_epochs=0, bias_bits=2)
    assert found.stages[-1].name == "rounded"
    half, coarse = (round_to_half(found.model, bits) for bits in (11, 2))
    assert half.fc1.bias.data.tobytes() == coarse.fc1.bias.data.tobytes()
    mantissas = np.frexp(found.model.fc1.bias.data)[0]
    assert {0.5, 0.75} <= set(np.abs(mantissas)) <= {0, 0.5, 0.75}


def test_without_training_it_is_one_shot(model, data):
    found = compress(model, data, epochs=0, share_epochs=0, half=False, sparsity=0.8)
    thin = tc.prune(model, 0.8)
    assert found["pruned"].zeros == tc.sparsity_report(thin).zeros
    for name, layer in thin.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            w = found.model.get_submodule(name).weight.data
            assert not w[layer.weight.data == 0].any()


def test_what_is_pruned_already_stays_so(model, data):
    thin = tc.prune(model, 0.95)
    zeros = tc.sparsity_report(thin).zeros
    assert compress(thin, data, sparsity=None, epochs=1)["pruned"].zeros == zeros
    assert compress(thin, data, sparsity=None, epochs=0)["pruned"].zeros == zeros
    more = compress(thin, data, sparsity=0.97, epochs=1)
    assert more["pruned"].zeros == round(0.97 * more["pruned"].weights)


def test_how_to_prune_may_be_said(model, data):
    found = compress(model, data, sparsity=0.5, pruning={"scope": "local"}, share_epochs=0)
    masks = {x.name: x.zeros for x in tc.sparsity_report(found.model).layers}
    assert masks["conv"] >= 27
    assert masks["fc2"] >= 80


def test_codebooks_are_trained_and_codes_stay(model, data):
    still = compress(model, data, share_epochs=0, half=False)
    moved = compress(model, data, share_epochs=1, half=False)
    for name in ("conv", "fc1", "fc2"):
        before, after = (x.model.get_submodule(name) for x in (still, moved))
        np.testing.assert_array_equal(before.codes, after.codes)
        assert np.abs(before.codebook.data - after.codebook.data).max() > 1e-4


def test_the_rule_and_the_rates_are_made_anew_for_each_training(model, data):
    made = []

    def rule(parameters, lr):
        made.append((len(parameters), lr))
        return optim.SGD(parameters, lr=lr)

    rates = []

    def falling(optimizer):
        rates.append(optimizer)
        return optim.StepLR(optimizer, 1)

    compress(
        model, data, optimizer=partial(rule, lr=0.1), share_optimizer=partial(rule, lr=0.01),
        rates=falling, share_rates=falling,
    )  # fmt: skip
    assert made == [(8, 0.1), (8, 0.01)]
    assert len(rates) == len({id(optimizer) for optimizer in rates}) == 2


def test_rates_fall_to_nothing_by_themselves(model, data):
    seen = []

    class Watch(tc.train.Callback):
        def on_step_end(self, run):
            seen.append(run.optimizer.param_groups[0]["lr"])

    compress(model, data, epochs=2, share_epochs=0, callbacks=[Watch()])
    assert len(seen) == 12
    assert seen[0] > 0.9 * 1e-3
    assert seen[-1] < 0.05 * 1e-3
    assert seen == sorted(seen, reverse=True)


def test_stages_are_told_as_they_are_done(model, data):
    told = []
    found = compress(model, data, epochs=1, report=told.append)
    assert tuple(told) == found.stages
    assert all(stage.error is None and stage.loss is None for stage in told)


def test_it_does_not_depend_on_how_many_share_the_work(model, data):
    one, two = (compress(model, data, epochs=1, share_epochs=1, workers=n) for n in (1, 2))
    assert to_bytes(one.model) == to_bytes(two.model)


def test_on_any_device(device, data):
    """The same zeros, and nearly the same answers: sums are added in another order there."""
    found = [
        compress(network().to(place), data, epochs=1, share_epochs=1, validate=data)
        for place in ("cpu", device)
    ]
    assert found[1].model.device == ("cpu" if device == "cpu" else f"{device}:0")
    for one, other in zip(*(x.stages for x in found), strict=True):
        assert one.name == other.name
        assert one.zeros == other.zeros
        assert one.loss == pytest.approx(other.loss, abs=0.01)


# --------------------------------------------------------------------------------------- teachers


def test_a_teacher_without_a_say_changes_nothing(model, data):
    alone = compress(model, data)
    taught = compress(model, data, teacher=model, alpha=0.0)
    for p, q in zip(alone.model.parameters(), taught.model.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, atol=2e-3)


def test_from_a_teacher_it_learns_its_answers(data, model):
    """Labels are all wrong: what is right then came from the teacher."""
    wrong = Dataset(data.images, (data.labels + 1) % 4)
    options = {"epochs": 8, "sparsity": 0.5, "validate": data}
    taught = compress(network(seed=1), wrong, teacher=model, alpha=1.0, **options)
    alone = compress(network(seed=1), wrong, **options)
    assert taught["rounded"].error < 15
    assert alone["rounded"].error > 85


def test_several_teachers_and_shifted_images(data, model):
    shift = tc.data.RandomShift(1)
    teachers = [model, network(seed=3)]
    found = compress(
        model, data, teacher=teachers, teacher_weights=[1, 0], augment=shift, validate=data
    )
    assert found["rounded"].error < 50


# ---------------------------------------------------------------------------------- what is shown


def test_the_tables_and_the_values_say_the_same(small):
    text, values = str(small), json.loads(json.dumps(small.to_dict()))
    assert [stage["name"] for stage in values["stages"]] == STAGES
    assert f"{values['stages'][-1]['bytes']:,}" in text
    for stage in values["stages"]:
        assert f"{stage['error']:.2f}%" in text
        assert f"{stage['sparsity']:.2%}" in text
    assert [layer["name"] for layer in values["layers"]] == ["conv", "fc1", "fc2"]
    assert "loss" in text
    assert "fc1" in text


def test_the_last_line_of_the_layers_is_the_mean_over_weights_that_are_left(small):
    lines = {line.split()[0]: line.split()[1:] for line in str(small).splitlines() if line}
    layers = small.to_dict()["layers"]
    left = np.array([layer["kept"] for layer in layers])
    assert left.tolist() == [
        int((small.model.get_submodule(layer["name"]).codes != 0).sum()) for layer in layers
    ]
    for position, names in {
        2: ["bits"],
        3: ["huffman_bits"],
        4: ["index_bits"],
        5: ["index_huffman_bits"],
        6: ["entropy", "index_entropy"],
    }.items():
        values = np.array([sum(layer[name] for name in names) for layer in layers])
        assert float(lines["fc1"][position]) == pytest.approx(values[1], abs=0.006)
        mean = (values * left).sum() / left.sum()
        assert float(lines["total"][position]) == pytest.approx(mean, abs=0.006)
    assert lines["total"][:2] == [f"{4054:,}", f"{left.sum() / 4054:.2%}"]


def test_places_are_written_in_the_width_that_takes_the_fewest_bits(small):
    for layer in small.layers:
        codes = small.model.get_submodule(layer.name).codes
        zeros = np.diff(np.flatnonzero(codes), prepend=-1) - 1
        sizes = {b: b * int(np.sum(zeros // (2**b - 1) + 1)) for b in range(1, 13)}
        assert layer.costs.index_bits * len(zeros) == pytest.approx(min(sizes.values()))
        assert sizes[layer.costs.width] == min(sizes.values())


def test_a_layer_of_which_nothing_is_left_has_a_line(data):
    net = network()
    net.fc2.weight.data[...] = 0
    found = compress(net, data, sparsity=None, epochs=0, share_epochs=0)
    assert [layer.costs.kept for layer in found.layers] == [0, 0, 0]  # all lead nowhere then
    assert "0.00%" in str(found)


def test_a_stage_is_a_sentence(small):
    last = small["rounded"]
    assert str(last).startswith(f"rounded: error {last.error:.2f}%, sparsity 9")
    assert f"{last.bytes:,} bytes" in str(last)
    with pytest.raises(KeyError, match="no stage 'coded'"):
        small["coded"]


# -------------------------------------------------------------------------------- what is refused


def quantized():
    return tc.quantize(network(), tc.QuantConfig(bits=8))


def shared():
    return tc.share_weights(network())


REFUSED = {
    "a sparsity of 1": ({"sparsity": 1.0}, ValueError, "below 1"),
    "an unknown layer": ({"sparsity": {"fc9": 0.5}}, ValueError, "no prunable layer 'fc9'"),
    "less than is pruned": ({"sparsity": 0.2}, ValueError, "pruned already"),
    "not pruned, and how": (
        {"sparsity": None, "pruning": {"scope": "local"}}, ValueError, "says not",
    ),
    "no bits": ({"bits": 0}, ValueError, "bits"),
    "bits of an unknown layer": ({"bits": {"fc9": 4}}, ValueError, "fc9"),
    "an unknown start": ({"init": "middle"}, ValueError, "middle"),
    "a negative length": ({"epochs": -1}, ValueError, "epochs must be an integer ≥ 0"),
    "half an epoch": ({"share_epochs": 0.5}, TypeError, "share_epochs must be an integer"),
    "an optimizer that is made": (
        {"optimizer": optim.SGD(network().parameters(), lr=0.1)}, TypeError, "must be a function",
    ),
    "an option of nobody": ({"speed": 3}, TypeError, "no option 'speed'"),
    "a checkpoint": ({"checkpoint": "c"}, TypeError, "no option 'checkpoint'"),
    "weights of nobody": ({"teacher_weights": [1]}, TypeError, "with a teacher terms"),
    "two who prune": ({"callbacks": [GradualPruning(0.5)]}, ValueError, "prunes by itself"),
    "no options of pruning": ({"pruning": "local"}, TypeError, "pruning must be a mapping"),
    "half a batch": ({"batch_size": 0.5}, TypeError, "batch_size must be an integer"),
    "a batch of none": ({"batch_size": 0, "epochs": 0}, ValueError, "batch_size"),
    "pruning said twice": ({"pruning": {"sparsity": 0.5}}, TypeError, "sparsity"),
    "a cold teacher": ({"temperature": 0, "teacher": network()}, ValueError, "temperature"),
    "a teacher without lessons": (
        {"teacher": network(), "epochs": 0, "share_epochs": 0}, ValueError, "nothing is trained",
    ),
    "more bits than there are": ({"bias_bits": 12}, ValueError, "bias_bits = 12"),
    "rounded and not": ({"bias_bits": 5, "half": False}, ValueError, "half=False says not to"),
    "a number of callbacks": ({"callbacks": 3}, TypeError, "callbacks must be a list"),
    "a number of terms": ({"teacher": network(), "terms": 3}, TypeError, "must be terms"),
    "a set of two": ({"validate": (1, 2)}, TypeError, "tc.data.Dataset"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_before_anything_is_trained(case, model, data, monkeypatch):
    options, kind, text = REFUSED[case]
    model = tc.prune(model, 0.5) if case == "less than is pruned" else model
    monkeypatch.setattr("tinycompress.deep.fit", lambda *a, **k: pytest.fail("it was trained"))
    monkeypatch.setattr("tinycompress.deep.distill", lambda *a, **k: pytest.fail("and taught"))
    with pytest.raises(kind, match=text):
        compress(model, data, **options)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (quantized, ValueError, "layer 'conv' is a Quantized"),
        (shared, ValueError, "Shared"),
        (nn.Flatten, ValueError, "no layer to prune"),
        (int, TypeError, "a model is what can be pruned, got int"),
    ],
    ids=["quantized", "shared", "nothing to prune", "no model"],
)
def test_what_cannot_be_compressed_is_refused_by_name(make, kind, text, data):
    with pytest.raises(kind, match=text):
        compress(make(), data)


def test_numbers_that_float16_does_not_have_are_refused_in_advance(model, data, monkeypatch):
    wide = model.copy()
    wide.norm.running_var[...] = 1e6
    with monkeypatch.context() as patch:
        patch.setattr("tinycompress.deep.fit", lambda *a, **k: pytest.fail("it was trained"))
        with pytest.raises(ValueError, match=r"norm \(BatchNorm2d\): running_var would"):
            compress(wide, data)
    assert compress(wide, data, epochs=1, share_epochs=0, half=False).stages[-1].name == "shared"


def test_callbacks_may_come_one_by_one(model, data):
    class Watch(tc.train.Callback):
        seen = 0

        def on_epoch_end(self, run):
            self.seen += 1

    watch = Watch()
    compress(model, data, epochs=2, share_epochs=1, callbacks=iter([watch]))
    assert watch.seen == 3


def test_data_must_be_a_data_set(model):
    with pytest.raises(TypeError, match=r"deep_compress: data must be a tc\.data\.Dataset"):
        compress(model, tc.data.mnist)
