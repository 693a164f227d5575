"""Weights, kernels, rows and n of m: exactly the units that a slow search finds."""

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from ranking_reference import reference_masks, reference_n_of_m, units_of

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.prune import apply_masks, choose_masks, prune, sparsity_report
from tinycompress.compress.prune.structure import parse_structure

UNITS = ("weight", "kernel", "row")
N_OF_M = ("1:2", "2:4", "1:4", "3:5")
sparsities = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 4)


def layers_of(*shapes):
    """A model that only holds layers; nothing runs it."""
    layers = {}
    for number, shape in enumerate(shapes):
        if len(shape) == 4:
            O, I, *kernel = shape
            layers[f"conv{number}"] = nn.Conv2d(I, O, tuple(kernel))
        else:
            layers[f"fc{number}"] = nn.Linear(shape[1], shape[0])
    return nn.Sequential(layers)


def weights_of(model):
    return {name: layer.weight for name, layer in model.named_children()}


@st.composite
def shapes(draw, kinds=(2, 4)):
    return tuple(draw(sizes) for _ in range(draw(st.sampled_from(kinds))))


def few_values(draw, shape, low=-2, high=2):
    """An array with many ties."""
    n = int(np.prod(shape))
    drawn = draw(st.lists(st.integers(low, high), min_size=n, max_size=n))
    return np.array(drawn, dtype=np.float32).reshape(shape)


@st.composite
def cases(draw, kinds=(2, 4), most=3):
    """(model, importances by layer): weights with ties and zeros, some of them masked."""
    model = layers_of(*draw(st.lists(shapes(kinds), min_size=1, max_size=most)))
    scores = {}
    for name, p in weights_of(model).items():
        p.data[...] = few_values(draw, p.shape)
        scores[name] = few_values(draw, p.shape)
        if draw(st.booleans()):
            apply_masks(model, {name: few_values(draw, p.shape) != 0})
    return model, scores


def as_reference(model, scores, names):
    weights = weights_of(model)
    return {n: (scores[n].astype(float), weights[n].data, weights[n].mask) for n in names}


def pruned_units(masks, structure):
    """How many units are pruned as a whole."""
    return sum(
        not any(mask[i] for i in unit)
        for mask in masks.values()
        for unit in units_of(mask.shape, structure)
    )


def choose(model, sparsity, scores, **options):
    """The masks; where more is pruned already, no example."""
    try:
        return choose_masks(model, sparsity, scores, **options)
    except ValueError as error:
        assume("pruned already" not in str(error))
        raise


# ------------------------------------------------------------------- against a slow reference


@pytest.mark.parametrize("structure", UNITS)
@pytest.mark.parametrize("scope", ["global", "local"])
@given(data=st.data(), sparsity=sparsities, floor=st.integers(1, 3))
def test_the_units_that_go_are_those_of_a_slow_search(structure, scope, data, sparsity, floor):
    model, scores = data.draw(cases((4,) if structure == "kernel" else (2, 4)))
    weights = weights_of(model)
    total = {n: len(units_of(p.shape, structure)) for n, p in weights.items()}
    floors = {n: min(floor, total[n]) for n in weights}
    masks = choose(model, sparsity, scores, scope=scope, structure=structure, keep_at_least=floors)
    pools = [[n] for n in weights] if scope == "local" else [list(weights)]
    for names in pools:
        count = round(sparsity * sum(total[n] for n in names))
        expected = reference_masks(as_reference(model, scores, names), structure, count, floors)
        for n in names:
            np.testing.assert_array_equal(masks[n], expected[n], err_msg=n)


@pytest.mark.parametrize("structure", N_OF_M)
@given(case=cases())
def test_n_of_every_m_are_those_of_a_slow_search(structure, case):
    model, scores = case
    n, m = map(int, structure.split(":"))
    assume(all(p.mask is None or p.mask.any() for p in weights_of(model).values()))
    masks = choose_masks(model, importance=scores, structure=structure)
    for name, (score, w, mask) in as_reference(model, scores, scores).items():
        expected = reference_n_of_m(score, w, mask, n, m)
        np.testing.assert_array_equal(masks[name], expected, err_msg=name)


# -------------------------------------------------------------------------------- exact counts


@pytest.mark.parametrize("structure", UNITS)
def test_the_count_is_exact_at_every_sparsity(structure):
    """At k/n, at the numbers next to it, half-way between two, and just below 1."""
    model = layers_of((3, 2, 2, 2), (2, 3, 1, 2))
    n = sum(len(units_of(p.shape, structure)) for p in weights_of(model).values())
    amounts = [k / (2 * n) for k in range(2 * n)]
    amounts += [float(np.nextafter(s, d)) for s in amounts for d in (-1, 1)]
    for s in (s for s in [*amounts, float(np.nextafter(1, 0))] if s >= 0):
        masks = choose_masks(model, s, structure=structure)
        assert pruned_units(masks, structure) == min(round(s * n), n - 2), s


@pytest.mark.parametrize("structure", UNITS)
@given(data=st.data(), sparsity=sparsities)
def test_no_layer_dies_and_zeros_are_counted(structure, data, sparsity):
    model, scores = data.draw(cases((4,) if structure == "kernel" else (2, 4)))
    for p in weights_of(model).values():
        p.mask = None
    thin = prune(model, sparsity, scores, structure=structure)
    masks = {n: p.mask for n, p in weights_of(thin).items()}
    n = sum(len(units_of(m.shape, structure)) for m in masks.values())
    assert pruned_units(masks, structure) == min(round(sparsity * n), n - len(masks))
    assert all(mask.any() for mask in masks.values())
    zero = {name: p.data != 0 for name, p in weights_of(thin).items()}
    was_zero = {name: p.data != 0 for name, p in weights_of(model).items()}
    # Units that are zero anyway are the first: no more become zero than must.
    before = pruned_units(was_zero, structure)
    stays = sum(not was.any() for was in was_zero.values())  # one that counts as kept
    assert pruned_units(zero, structure) <= max(before, round(sparsity * n)) + stays


@pytest.mark.parametrize("structure", UNITS)
@given(data=st.data(), a=sparsities, b=sparsities)
def test_masks_only_grow(structure, data, a, b):
    low, high = sorted((a, b))
    model, scores = data.draw(cases((4,) if structure == "kernel" else (2, 4)))
    old = {n: p.mask for n, p in weights_of(model).items()}
    first = choose(model, low, scores, structure=structure)
    apply_masks(model, first)
    second = choose_masks(model, high, {n: -s for n, s in scores.items()}, structure=structure)
    for n, mask in old.items():
        assert mask is None or not (first[n] & ~mask).any()
        assert not (second[n] & ~first[n]).any()


# ----------------------------------------------------------------------- what is documented


def test_a_unit_is_as_important_as_its_weights_together():
    model = layers_of((2, 1, 2, 2), (1, 1, 2, 2))
    first, second = weights_of(model).values()
    first.data[0], first.data[1] = 1.0, [[[0, 0], [0, 3]]]  # L1: 4 and 3; L2: 2 and 3
    second.data[...] = 9.0
    by_l1 = choose_masks(model, 1 / 3, "magnitude", structure="kernel")
    by_l2 = choose_masks(model, 1 / 3, "l2", structure="kernel")
    assert [k.any() for k in by_l1["conv0"]] == [True, False]
    assert [k.any() for k in by_l2["conv0"]] == [False, True]


def test_chance_is_fair_to_kernels_large_and_small():
    """A sum of random numbers would spare the large ones."""
    model = layers_of((4, 5, 5, 5), (4, 5, 1, 1))
    gone = sum(
        int((~choose_masks(model, 0.5, "random", structure="kernel", seed=s)["conv0"]).sum()) // 25
        for s in range(50)
    )
    assert 400 < gone < 600  # of 1,000; a fair coin is 50 ± 1.6 %


@pytest.mark.parametrize(("shape", "kept"), [((3, 8), 12), ((3, 6, 2, 2), 48), ((3, 5), 9)])
def test_two_of_four_along_the_inputs(shape, kept):
    """Of a group that the inputs do not fill at most two stay: 8 → 4, 6 → 4, 5 → 3."""
    thin = prune(layers_of(shape), structure="2:4")
    (p,) = weights_of(thin).values()
    assert int(p.mask.sum()) == kept == int((p.data != 0).sum())
    inputs = np.moveaxis(p.mask, 1, -1)
    for start in range(0, inputs.shape[-1], 4):
        assert (inputs[..., start : start + 4].sum(axis=-1) <= 2).all()


def test_a_layer_of_one_input_stays_whole_under_two_of_four():
    assert choose_masks(layers_of((4, 1, 3, 3)), structure="2:4")["conv0"].all()


def test_the_sparsity_of_two_of_four_may_be_said_and_must_be_half():
    model = layers_of((3, 8), (2, 4))
    left_out, said = (choose_masks(model, s, structure="2:4") for s in (None, 0.5))
    np.testing.assert_array_equal(left_out["fc0"], said["fc0"])
    assert list(choose_masks(model, {"fc1": 0.5}, structure="2:4")) == ["fc1"]
    with pytest.raises(ValueError, match=r"'2:4' prunes 0\.5 of the weights, got sparsity=0\.7"):
        prune(model, 0.7, structure="2:4")
    with pytest.raises(ValueError, match=r"'1:3' prunes 0\.666667 .* got sparsity=0\.5"):
        prune(model, {"fc1": 0.5}, structure="1:3")


def test_linear_layers_have_no_kernels_and_are_left_as_they_are():
    model = layers_of((2, 2, 3, 3), (4, 18))
    thin = prune(model, 0.5, structure="kernel")
    assert [layer.zeros for layer in sparsity_report(thin).layers] == [18, 0]
    with pytest.raises(ValueError, match=r"sparsity: there is no prunable layer 'fc1'; .*'conv0'"):
        prune(model, {"fc1": 0.5}, structure="kernel")
    with pytest.raises(ValueError, match="no layer to prune with kernels among 'fc0'"):
        prune(layers_of((3, 3)), 0.5, structure="kernel")


def test_a_kernel_of_one_weight_is_a_weight():
    model = layers_of((4, 5, 1, 1))
    one, other = (choose_masks(model, 0.35, structure=s) for s in ("kernel", "weight"))
    np.testing.assert_array_equal(one["conv0"], other["conv0"])


def test_rows_are_rows_of_the_matrix_and_keep_their_bias():
    model = layers_of((4, 3, 2, 2))
    thin = prune(model, 0.5, structure="row")
    (layer,) = thin.children()
    rows = (layer.weight.data.reshape(4, -1) != 0).any(axis=1)
    norms = np.abs(next(model.children()).weight.data).reshape(4, -1).sum(axis=1)
    assert set(np.flatnonzero(rows)) == set(np.argsort(norms)[2:])
    assert layer.bias.mask is None


# ------------------------------------------------------------------------- ranking all anew


@given(data=st.data(), sparsity=sparsities, structure=st.sampled_from(UNITS))
def test_ranked_anew_weights_come_back_as_if_nothing_had_been_pruned(data, sparsity, structure):
    model, scores = data.draw(cases((4,)))
    bare = model.copy()
    for p in weights_of(bare).values():
        p.mask, p.data[...] = None, 1.0
    anew = choose_masks(model, sparsity, scores, structure=structure, regrow=True)
    expected = choose_masks(bare, sparsity, scores, structure=structure)
    for name in scores:
        np.testing.assert_array_equal(anew[name], expected[name])


def test_ranked_anew_the_sparsity_may_fall():
    thin = prune(layers_of((4, 10)), 0.9)
    with pytest.raises(ValueError, match="pruned already"):
        choose_masks(thin, 0.5, {"fc0": np.arange(40.0).reshape(4, 10)})
    anew = choose_masks(thin, 0.5, {"fc0": np.arange(40.0).reshape(4, 10)}, regrow=True)
    np.testing.assert_array_equal(anew["fc0"], np.arange(40).reshape(4, 10) >= 20)


# --------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("structure", [*UNITS, "2:4"])
def test_every_structure_on_every_device(structure, device, rng):
    model = layers_of((4, 6, 3, 3), (3, 5, 2, 2))
    own = {n: to_device(rng.normal(size=p.shape), device) for n, p in weights_of(model).items()}
    s = None if ":" in structure else 0.5
    here = prune(model, s, {n: to_numpy(a) for n, a in own.items()}, structure=structure)
    there = prune(model.to(device), s, own, structure=structure)
    again = choose_masks(there, s, "magnitude", structure=structure)
    for name, p in weights_of(there).items():
        np.testing.assert_array_equal(to_numpy(p.mask), weights_of(here)[name].mask)
        np.testing.assert_array_equal(again[name], to_numpy(p.mask))
        assert p.device == there.device


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("structure", "error", "message"),
    [
        ("column", ValueError, "structure must be one of 'weight', 'kernel', 'row', 'channel', or"),
        ("2:2", ValueError, "needs 0 < n < m"),
        ("0:4", ValueError, "needs 0 < n < m"),
        ("5:4", ValueError, "needs 0 < n < m"),
        ("-1:4", ValueError, "structure must be one of"),
        ("2:4:8", ValueError, "structure must be one of"),
        (4, TypeError, "structure must be a string, got 4"),
    ],
)
def test_structures_that_there_are_not_are_refused(structure, error, message):
    with pytest.raises(error, match=message):
        prune(layers_of((4, 4)), 0.5, structure=structure)


def test_the_other_structures_need_a_sparsity():
    with pytest.raises(TypeError, match="sparsity must be a number, got None"):
        prune(layers_of((4, 4)), structure="row")


def test_infinities_that_meet_in_a_unit_are_refused_and_others_are_not():
    model = layers_of((2, 2))
    scores = {"fc0": np.array([[np.inf, -np.inf], [np.inf, 1.0]])}
    with pytest.raises(ValueError, match="'fc0': \\+∞ and −∞ meet in one of its rows"):
        prune(model, 0.5, scores, structure="row")
    masks = choose_masks(model, 0.5, scores)
    np.testing.assert_array_equal(masks["fc0"], [[True, False], [True, False]])


def test_names_of_structures_say_what_they_are():
    assert parse_structure("2:4").sparsity == 0.5
    assert parse_structure("row").sparsity is None
    assert [parse_structure(s).count((4, 3, 2, 2)) for s in UNITS] == [48, 12, 4]
