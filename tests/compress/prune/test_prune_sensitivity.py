"""``tc.sensitivity`` with a ``PruneConfig``, and ``choose_sparsities``: against pruning by hand."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import tinycompress as tc
from tinycompress import models, nn, optim, random
from tinycompress.compress.prune import allocation
from tinycompress.compress.prune.costs import macs_of_nonzero
from tinycompress.data import Dataset, mnist
from tinycompress.nn import summary
from tinycompress.train import evaluate

SHARES = (0.25, 0.5, 0.75)
STRUCTURES = ("weight", "kernel", "row", "2:4", "channel")


@pytest.fixture(scope="module")
def trained():
    """(a small trained CNN, data to measure on)."""
    random.manual_seed(0)
    train, test = mnist()
    model = models.TinyCNN()
    tc.fit(model, train.take(1500), 2, optim.Adam(model.parameters(), lr=0.01), workers=1)
    return model, test.take(100)


class Residual(nn.Module):
    """Two convolutions whose outputs are added, so their channels are tied, with norms."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.bias.data += 0.1  # a zero would not be counted as a parameter that is left
        self.c = nn.Conv2d(4, 6, 3, stride=2)
        self.fc = nn.Linear(6 * 13 * 13, 10)

    def forward(self, x):
        x = self.a(x).relu()
        x = (x + self.norm(self.b(x))).relu()
        return self.fc(self.c(x).relu().flatten(1))


def config_for(structure, **options):
    shares = None if structure == "2:4" else SHARES
    return tc.PruneConfig(shares, structure=structure, **options)


def left(model, found, sparsities, what):
    """What is left after really pruning so, counted on the model."""
    nonzero = found.config.structure != "channel"
    if nonzero:
        some = {name: s for name, s in sparsities.items() if s}
        thin = tc.prune(model, some, structure=found.config.structure) if some else model
    else:
        thin = tc.remove_channels(model, sparsities)
    if what == "macs":
        return macs_of_nonzero(thin, (1, 28, 28)) if nonzero else summary(thin).macs
    return summary(thin).nonzero if nonzero else summary(thin).parameters


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_a_row_is_what_pruning_one_layer_does(structure, importance, trained):
    model, data = trained
    found = tc.sensitivity(model, config_for(structure, importance=importance), data, workers=1)
    share = 0.5
    thin = tc.prune(model, {"conv2": share}, importance, structure=structure, data=data)
    before, after = evaluate(model, data, workers=1), evaluate(thin, data, workers=1)
    row = found["conv2", share]
    assert (row.name, row.kind, row.weights) == ("conv2", "Conv2d", 288)
    assert row.zeros == int((thin.conv2.weight.data == 0).sum()) >= 144
    assert (found.accuracy, row.accuracy) == (before.accuracy, after.accuracy)
    assert row.drop == pytest.approx(100 * (before.accuracy - after.accuracy))
    assert row.loss == pytest.approx(after.loss, rel=1e-5)
    assert row.loss_increase == pytest.approx(after.loss - before.loss, abs=1e-5)
    assert row.divergence > 0


def test_the_last_rows_prune_all_layers(trained):
    model, data = trained
    found = tc.sensitivity(model, config_for("weight"), data, workers=1)
    assert [row.sparsity for row in found.together] == list(SHARES)
    assert [row.name for row in found] == [n for n in ("conv1", "conv2", "fc") for _ in SHARES]
    thin = tc.prune(model, 0.75, scope="local")
    assert found.together[-1].accuracy == evaluate(thin, data, workers=1).accuracy
    assert found.together[-1].zeros == tc.sparsity_report(thin).zeros


def test_more_pruned_hurts_more(trained):
    model, data = trained
    found = tc.sensitivity(model, config_for("weight"), data, workers=1)
    for rows in found.by_layer().values():
        divergences = [row.divergence for row in rows]
        assert divergences == sorted(divergences)


def test_the_model_stays_as_it_was_and_workers_do_not_matter(trained):
    model, data = trained
    before = {name: p.copy() for name, p in model.state_dict().items()}
    found = tc.sensitivity(model, tc.PruneConfig((0.5,)), data, workers=1)
    assert tc.sensitivity(model, tc.PruneConfig((0.5,)), data, workers=2).rows == found.rows
    assert all(p.mask is None for p in model.parameters())
    for name, p in model.state_dict().items():
        np.testing.assert_array_equal(p, before[name])


def test_layers_that_are_tied_are_pruned_together():
    random.manual_seed(1)
    _, test = mnist()
    found = tc.sensitivity(Residual(), config_for("channel"), test.take(50), workers=1)
    assert {name: rows[0].layers for name, rows in found.by_layer().items()} == {
        "a": ("a", "b"),
        "c": ("c",),
    }
    assert found["b"] == found["a"]


def test_table_and_json(trained):
    model, data = trained
    found = tc.sensitivity(model, config_for("weight", skip="fc"), data, workers=1)
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "type", "weights", "0.25", "0.5", "0.75"]
    assert [line.split()[0] for line in lines[1:]] == ["not", "conv1", "conv2", "all"]
    assert f"{found['conv2', 0.75].accuracy:.2%}" in lines[3]
    assert json.loads(json.dumps(found.to_dict()))["layers"] == json.loads(
        json.dumps(found.to_list()[:-3])
    )
    with pytest.raises(KeyError, match="'fc' was not measured"):
        found["fc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsities": (0.5, 0.2)}, "rising order"),
        ({"sparsities": (0.5, 0.5)}, "rising order"),
        ({"sparsities": ()}, "sparsities"),
        ({"sparsities": (0.5, 1.0)}, "below 1"),
        ({"structure": "2 of 4"}, "structure"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tc.PruneConfig(**options)


def test_what_is_wrong_is_said_before_anything_is_measured(trained, monkeypatch):
    model, data = trained
    monkeypatch.setattr(
        "tinycompress.compress.answers.predict", lambda *a, **k: pytest.fail("measured")
    )
    for config, message in (
        (tc.PruneConfig(skip="fc2"), "fc2"),
        (tc.PruneConfig(importance="weight"), "importance"),
        (tc.PruneConfig(structure="channel", skip=("conv1", "conv2")), "no channel"),
    ):
        with pytest.raises(ValueError, match=message):
            tc.sensitivity(model, config, data)
    thin = tc.prune(model, {"conv2": 0.6})
    with pytest.raises(ValueError, match="pruned already"):
        tc.sensitivity(thin, tc.PruneConfig((0.5, 0.7)), data)
    with pytest.raises(TypeError, match="QuantConfig or PruneConfig"):
        tc.sensitivity(model, 0.5, data)


# ---------------------------------------------------------------------------- what is left


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", [models.TinyCNN, Residual])
@pytest.mark.parametrize("what", ["parameters", "macs"])
def test_costs_are_those_of_the_pruned_model(structure, kind, what):
    random.manual_seed(3)
    model = kind()
    _, test = mnist()
    found = tc.sensitivity(model, config_for(structure), test.take(20), workers=1)
    rows = found.by_layer()
    generator = np.random.default_rng(0)
    for _ in range(8):
        choice = {n: int(generator.integers(len(r) + 1)) for n, r in rows.items()}
        sparsities = {
            layer: r[choice[n] - 1].sparsity if choice[n] else 0.0
            for n, r in rows.items()
            for layer in r[0].layers
        }
        assert found.costs.of(choice, what) == left(model, found, sparsities, what)
    assert found.costs.separable() == (structure != "channel")


# ---------------------------------------------------------------------------- a budget


def by_brute_force(found, what, budget):
    """The least sum of divergences of all combinations that fit."""
    rows = found.by_layer()
    best = np.inf
    for options in itertools.product(*(range(len(r) + 1) for r in rows.values())):
        if found.costs.of(dict(zip(rows, options, strict=True)), what) <= budget:
            hurt = sum(
                r[k - 1].divergence for r, k in zip(rows.values(), options, strict=True) if k
            )
            best = min(best, hurt)
    return best


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("what", ["parameters", "macs"])
def test_the_choice_is_the_best_that_fits(structure, what, trained):
    model, data = trained
    found = tc.sensitivity(model, config_for(structure), data, workers=1)
    whole = found.costs.of(dict.fromkeys(found.by_layer(), 0), what)
    last = {name: len(rows) for name, rows in found.by_layer().items()}
    least = found.costs.of(last, what)
    for budget in (least, (least + whole) // 2, (least + 3 * whole) // 4, whole):
        chosen = tc.choose_sparsities(found, **{f"budget_{what}": int(budget)})
        assert left(model, found, chosen, what) <= budget
        hurt = sum(found[name, s].divergence for name, s in chosen.items() if s)
        assert hurt == pytest.approx(by_brute_force(found, what, budget))
    with pytest.raises(ValueError, match=f"budget_{what}.* {least:,} are left"):
        tc.choose_sparsities(found, **{f"budget_{what}": int(least) - 1})


def test_a_pruned_model_keeps_what_is_pruned(trained):
    model, data = trained
    thin = tc.prune(model, {"fc": 0.25, "conv1": 0.25})
    found = tc.sensitivity(thin, tc.PruneConfig((0.5, 0.9)), data, workers=1)
    whole = found.costs.of(dict.fromkeys(found.by_layer(), 0), "parameters")
    assert whole == summary(thin).nonzero
    chosen = tc.choose_sparsities(found, budget_parameters=int(whole) - 1)
    assert set(tc.prune(thin, chosen).state_dict()) == set(thin.state_dict())
    assert chosen["conv1"] >= 0.25


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_without_trying_all_a_choice_fits_and_no_near_one_is_better(data):
    """The walk, on chains of layers whose costs multiply, against all combinations."""
    layers = data.draw(st.integers(2, 4))
    options = data.draw(st.integers(2, 4))
    names = [f"l{i}" for i in range(layers)]
    kept = {n: tuple(range(options + 2, 2, -1)) for n in names}
    size = allocation.Costs(
        tuple(
            allocation_term(a, b, kept, data.draw(st.integers(1, 9)))
            for a, b in itertools.pairwise(names)
        )
    )
    steps = st.lists(st.floats(0, 1), min_size=options - 1, max_size=options - 1)
    damage = {n: [0.0, *itertools.accumulate(data.draw(steps))] for n in names}
    everything = list(itertools.product(range(options), repeat=layers))
    costs = {c: size.of(dict(zip(names, c, strict=True)), "macs") for c in everything}
    budget = int(data.draw(st.sampled_from(sorted(costs.values()))))
    hurt = {c: sum(damage[n][k] for n, k in zip(names, c, strict=True)) for c in everything}
    best = min(hurt[c] for c in everything if costs[c] <= budget)
    exact = allocation.cheapest_choice(size, damage, "macs", budget)
    assert hurt[tuple(exact.values())] == pytest.approx(best)
    assert costs[tuple(exact.values())] <= budget
    walked = tuple(allocation._greedy(size, damage, "macs", budget).values())
    assert costs[walked] <= budget
    if layers == 2:  # steps of two layers reach everything
        assert hurt[walked] == pytest.approx(best)


def allocation_term(a, b, kept, macs):
    from tinycompress.compress.prune.costs import Axis, Term

    return Term(a, macs, (Axis(0, {a: kept[a]}), Axis(0, {b: kept[b]})))


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "one of the two"),
        ({"budget_parameters": 5, "budget_macs": 5}, "one of the two"),
        ({"budget_macs": 0}, "whole number"),
        ({"budget_macs": 1e6}, "whole number"),
        ({"budget_parameters": True}, "whole number"),
    ],
)
def test_a_budget_is_one_whole_number(budgets, message, trained):
    model, data = trained
    found = tc.sensitivity(model, tc.PruneConfig((0.5,)), data.take(10), workers=1)
    with pytest.raises(ValueError, match=message):
        tc.choose_sparsities(found, **budgets)


def test_only_what_sensitivity_found_can_be_chosen_from(trained):
    with pytest.raises(TypeError, match="PruneConfig"):
        tc.choose_sparsities({"fc": 0.5}, budget_macs=5)


def test_it_works_on_a_gpu(cupy, trained):
    model, data = trained
    few = Dataset(data.images[:40], data.labels[:40])
    for structure in ("weight", "channel"):
        config = tc.PruneConfig((0.5,), "taylor", structure)
        here = tc.sensitivity(model, config, few, workers=1)
        there = tc.sensitivity(model.copy().to("cuda"), config, few, workers=1)
        assert [row.zeros for row in there] == [row.zeros for row in here]
        assert there.costs == here.costs
        for a, b in zip(here, there, strict=True):
            assert a.divergence == pytest.approx(b.divergence, rel=1e-3, abs=1e-6)
