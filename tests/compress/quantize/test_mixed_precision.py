"""``tc.mixed_precision``: the budget is one of files, and holds; and the choice is a good one."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.budget import largest_file
from tinycompress.cli.output import as_json
from tinycompress.compress import knapsack
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.compress.quantize.mixed import Width, cheapest
from tinycompress.data import mnist


@pytest.fixture(scope="module")
def trained():
    """(LeNet-5, data to choose with, data to measure on)."""
    random.manual_seed(0)
    train, test = mnist()
    model = models.LeNet5()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    tc.fit(model, train.take(2500), 2, optimizer, batch_size=50)
    return model, train.take(500), test.take(1000)


@pytest.fixture(scope="module")
def tiny():
    random.manual_seed(0)
    train, _ = mnist()
    model = models.TinyCNN()
    tc.fit(model, train.take(1500), 2, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model, train.take(300)


# ----------------------------------------------------------------------------------- the choice

widths = st.lists(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30)), min_size=1, max_size=4),
    min_size=1, max_size=4,
).map(lambda rows: [[Width(f"l{i}", j, b, float(d), 0, 0) for j, (b, d) in enumerate(row)]
                    for i, row in enumerate(rows)])  # fmt: skip


@given(widths, st.integers(1, 200))
def test_the_choice_is_the_best_of_all_that_fit(rows, allowed):
    fitting = [c for c in itertools.product(*rows) if sum(w.bytes for w in c) <= allowed]
    found = cheapest(rows, allowed)
    if not fitting:
        assert found is None
        return
    best = min((sum(w.divergence for w in c), sum(w.bytes for w in c)) for c in fitting)
    assert (sum(w.divergence for w in found), sum(w.bytes for w in found)) == best


@given(st.data())
def test_many_combinations_are_thinned_to_nearly_the_best(data):
    numbers = st.lists(st.integers(1, 1000), min_size=8, max_size=8)
    rows = [
        [Width(f"l{i}", j, b, d / 7, 0, 0) for j, (b, d) in enumerate(zip(*pair, strict=True))]
        for i, pair in enumerate(data.draw(st.lists(st.tuples(numbers, numbers), min_size=3,
                                                    max_size=3)))
    ]  # fmt: skip
    allowed = 1500
    exact = cheapest(rows, allowed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "MOST", 16)
        thinned = cheapest(rows, allowed)
        step = -(-allowed // 16) * len(rows)  # what is given away at most, in bytes
        smaller = cheapest(rows, allowed - step) if allowed > step else None
    damage = lambda c: sum(w.divergence for w in c)  # noqa: E731
    if exact is None:
        assert thinned is None
        return
    if thinned is not None:
        assert sum(w.bytes for w in thinned) <= allowed
        assert damage(exact) <= damage(thinned) + 1e-9
    if smaller is not None:
        assert thinned is not None


# ---------------------------------------------------------------------------------- real files


def test_mixed_bits_beat_the_most_bits_everywhere_that_fit_into_a_file(trained, tmp_path):
    model, data, held_out = trained
    budget = tc.save(quantize(model, QuantConfig(2)), tmp_path / "even.tcz") * 11 // 10
    assert tc.save(quantize(model, QuantConfig(3)), tmp_path / "more.tcz") > budget
    found = tc.mixed_precision(model, data, budget_bytes=budget, candidates=(1, 2, 3, 4, 6, 8))
    tc.save(quantize(model, found.config), tmp_path / "mixed.tcz")
    assert (tmp_path / "mixed.tcz").stat().st_size == found.bytes <= budget
    even, chosen = (
        tc.evaluate(tc.load(tmp_path / f"{name}.tcz"), held_out) for name in ("even", "mixed")
    )
    assert chosen.loss < 0.9 * even.loss
    assert chosen.accuracy > even.accuracy
    assert len(set(found.bits.values())) > 1


@pytest.mark.parametrize("bits", [3, 4])
def test_it_is_never_worse_than_the_same_bits_everywhere(bits, tiny):
    model, data = tiny
    even = quantize(model, QuantConfig(bits))
    budget = len(tc.format.to_bytes(even))
    found = tc.mixed_precision(model, data, budget_bytes=budget, workers=1)
    same = tc.sensitivity(model, QuantConfig(bits), data, workers=1).together
    assert found.together.divergence <= same.divergence


@pytest.mark.parametrize(
    "config",
    [None, QuantConfig(activations=8), QuantConfig(dynamic=True, granularity="per_tensor")],
)
def test_no_budget_is_exceeded_and_none_is_wasted(config, tiny, tmp_path):
    model, data = tiny
    worth = []
    for budget in (760, 1040, 1380, 2000, 2800):
        found = tc.mixed_precision(model, data, budget_bytes=budget, config=config, workers=1)
        calibration = data if config and config.activations and not config.dynamic else None
        size = tc.save(quantize(model, found.config, calibration), tmp_path / "m.tcz")
        assert size == found.bytes <= budget == found.budget_bytes
        worth.append(found.together.divergence)
        assert {w.name: w.bits for w in found.widths if w.chosen} == found.bits
        for name, bits in found.bits.items():
            assert (
                quantize(model, found.config, calibration).get_submodule(name).quantization.bits
                == bits
            )
    assert worth == sorted(worth, reverse=True)
    assert found.bits == dict.fromkeys(("conv1", "conv2", "fc"), 8)


def test_a_budget_that_is_too_small_is_refused_with_the_smallest_possible(tiny):
    model, data = tiny
    candidates = (3, 8)
    with pytest.raises(ValueError, match=r"budget_bytes=500 is too small.* the file has [\d,]+$"):
        tc.mixed_precision(model, data, budget_bytes=500, candidates=candidates, workers=1)
    smallest = len(tc.format.to_bytes(quantize(model, QuantConfig(3))))
    found = tc.mixed_precision(model, data, budget_bytes=smallest, candidates=candidates, workers=1)
    assert found.bytes == smallest
    assert set(found.bits.values()) == {3}
    with pytest.raises(ValueError, match=f"{smallest:,}"):
        tc.mixed_precision(model, data, budget_bytes=smallest - 1, candidates=candidates, workers=1)


def test_layers_of_which_overrides_speak_keep_what_these_say(tiny):
    model, data = tiny
    config = QuantConfig(overrides={"conv1": None, nn.Linear: QuantConfig(5, "affine")})
    found = tc.mixed_precision(
        model, data, budget_bytes=2_000, config=config, candidates=(4, 6), workers=1
    )
    assert found.bits == {"conv2": 6, "fc": 5}
    q = quantize(model, found.config)
    assert type(q.conv1) is nn.Conv2d
    assert (q.fc.quantization.bits, q.fc.quantization.scheme) == (5, "affine")


def test_the_size_is_that_of_the_model_as_it_will_be_made(tiny, tmp_path):
    model, data = tiny

    def build(config):
        return quantize(model, config, data, bias_correction=True, equalize=True, weights_only=True)

    found = tc.mixed_precision(model, data, budget_bytes=1_000, build=build, workers=1)
    assert tc.save(build(found.config), tmp_path / "m.tcz") == found.bytes <= 1_000


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 11, 16])
def test_the_largest_file_is_larger_than_any_codes_make_it(bits, rng):
    model = models.TinyCNN()
    most = largest_file(quantize(model, QuantConfig(bits)))
    for power in (0, 1, 3):
        for w in model.parameters():
            w.data[...] = rng.normal(size=w.shape) ** (2 * power + 1)
        assert len(tc.format.to_bytes(quantize(model, QuantConfig(bits)))) <= most
    q = quantize(model, QuantConfig(bits))
    low, high = (-1, 1) if bits == 1 else (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    for layer in (q.conv1, q.conv2, q.fc):
        shape = layer.weight_codes.shape
        every = rng.integers(low, high, shape, endpoint=True)
        layer.weight_codes[...] = rng.choice([-1, 1], shape) if bits == 1 else every
    assert len(tc.format.to_bytes(q)) <= most <= len(tc.format.to_bytes(q)) + 20


def test_a_budget_for_any_codes_holds_after_training(tiny, tmp_path):
    model, data = tiny
    budget = 1_100
    found = tc.mixed_precision(model, data, budget_bytes=budget, any_codes=True, workers=1)
    tight = tc.mixed_precision(model, data, budget_bytes=budget, workers=1)
    assert found.bytes <= budget
    assert sum(found.bits.values()) <= sum(tight.bits.values())
    prepared = tc.prepare_qat(model, found.config)
    for w in (prepared.conv1.weight, prepared.conv2.weight, prepared.fc.weight):
        w.data[...] = np.sign(w.data) * abs(w.data) ** 0.3  # hardly any code is 0
    assert tc.save(tc.convert(prepared), tmp_path / "q.tcz") <= budget


def test_every_device_chooses_the_same(device, tiny):
    model, data = tiny
    config = QuantConfig(activations=8)
    how = {"budget_bytes": 1_500, "candidates": (2, 4, 8), "config": config, "workers": 1}
    there = model.copy().to(device)
    found = tc.mixed_precision(there, data.to(device), any_codes=True, **how)
    assert found.bits == tc.mixed_precision(model, data, any_codes=True, **how).bits
    q = quantize(there, found.config, data.to(device).images[:50])
    entries = tc.quantization_report(there, q)
    assert {e.name: e.bits for e in entries} == found.bits
    assert all(e.headroom_bits > 5 for e in entries)


def test_the_report_says_what_there_was_to_choose_from(tiny):
    model, data = tiny
    found = tc.mixed_precision(model, data, budget_bytes=1_300, candidates=(8, 2, 4), workers=1)
    head, *rows, total = str(found).splitlines()
    assert head.split() == ["layer", "bits", "2", "bits", "4", "bits", "8", "bits"]
    assert [row.split()[0] for row in rows] == ["conv1", "conv2", "fc"]
    assert all(row.count("[") == 1 for row in rows)
    assert total == f"{found.bytes:,} of 1,300 bytes"
    read = json.loads(as_json(found.to_dict()))
    assert QuantConfig.from_dict(read["config"]) == found.config
    assert len(read["widths"]) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_bytes": 0}, "budget_bytes must be a whole number of bytes ≥ 1, got 0"),
        ({"budget_bytes": 2.5}, "budget_bytes must be"),
        ({"budget_bytes": 900, "candidates": ()}, "candidates must be widths"),
        ({"budget_bytes": 900, "candidates": 4}, "candidates must be widths"),
        ({"budget_bytes": 900, "candidates": (2, 17)}, "17"),
        ({"budget_bytes": 900, "config": QuantConfig(overrides={"f": None})}, "fits no layer"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, message, tiny):
    with pytest.raises(ValueError, match=message):
        tc.mixed_precision(*tiny, workers=1, **arguments)
