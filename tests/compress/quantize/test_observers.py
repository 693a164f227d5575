"""Observers: what they say does not depend on the order or the split of the data, to the bit."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import LARGEST, SMALLEST, SMALLEST_NORMAL, float_arrays, ordinary
from strict_cupy import install

import tinycompress as tc
from tinycompress.backend import to_device
from tinycompress.compress.quantize import affine
from tinycompress.compress.quantize.clipping import least_divergence
from tinycompress.compress.quantize.config import OBSERVERS
from tinycompress.compress.quantize.exact_sum import exact_parts, exact_value
from tinycompress.compress.quantize.histogram import SIDE, histogram_of, joined
from tinycompress.compress.quantize.observers import KINDS, make_observer
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.data import mnist
from tinycompress.nn.notes import merge_notes, record_notes

UINT8, INT8 = IntegerRange(8, signed=False), IntegerRange(8, narrow=True)
every_kind = pytest.mark.parametrize("kind", OBSERVERS)
examples = st.integers(1, 9).flatmap(lambda n: float_arrays(shape=(n, 3)))
schemes = st.sampled_from([("affine", UINT8), ("symmetric", INT8), ("affine", IntegerRange(3))])


def observer(kind, target=UINT8, scheme="affine", **options):
    return make_observer(kind, target, scheme, "conv1", **options)


def seen(kind, *batches, target=UINT8, scheme="affine", **options):
    new = observer(kind, target, scheme, **options)
    for batch in batches:
        new.observe(batch)
    return new


def relu_like(seed=0, shape=(64, 10, 10)):
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=shape), 0).astype("f")


def test_there_is_one_for_each_name():
    assert tuple(KINDS) == OBSERVERS
    with pytest.raises(ValueError, match=r"observer must be one of minmax, .*, got 'max'"):
        observer("max")


# ----------------------------------------------------------------------------------- invariance


@every_kind
@given(examples, schemes, st.randoms(use_true_random=False))
def test_order_and_split_of_the_data_do_not_matter(kind, x, scheme, random):
    name, target = scheme
    whole = seen(kind, x, target=target, scheme=name)
    order = random.sample(range(len(x)), len(x))
    cuts = sorted(random.randint(0, len(x)) for _ in range(3))
    pieces = [p for p in np.split(x[order], cuts) if len(p)]
    split = seen(kind, *pieces, target=target, scheme=name)
    assert split.range() == whole.range()
    for a, b in zip(split.state, whole.state, strict=True):
        np.testing.assert_array_equal(a, b)


@given(examples, examples)
def test_two_histograms_merge_to_the_histogram_of_both(x, y):
    together = histogram_of(np.concatenate([x, y]))
    for a, b in zip(joined(histogram_of(x), histogram_of(y)), together, strict=True):
        np.testing.assert_array_equal(a, b)


@given(float_arrays(shape=7, dtype=np.float64), st.integers(-900, 900))
def test_so_do_histograms_of_float64(x, k):
    with np.errstate(over="ignore"):
        x = np.ldexp(x, k)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return
    together = histogram_of(x)
    for a, b in zip(joined(histogram_of(x[:1]), histogram_of(x[1:])), together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bins_that_come_from_the_first_batch_depend_on_which_it_was():
    """What others do: bins of the first batch's range, and what is wider later is re-binned."""

    def wrong(*batches):
        counts, edges = np.histogram(batches[0], bins=8)
        for batch in batches[1:]:
            ends = min(edges[0], batch.min()), max(edges[-1], batch.max())
            centres = (edges[1:] + edges[:-1]) / 2
            counts = np.histogram(centres, 8, ends, weights=counts)[0]
            counts, edges = counts + np.histogram(batch, 8, ends)[0], np.linspace(*ends, 9)
        return list(counts)

    a, b = relu_like(0).ravel(), 1.7 * relu_like(1).ravel()
    assert wrong(a, b) != wrong(b, a)
    np.testing.assert_array_equal(seen("kl", a, b).bins, seen("kl", b, a).bins)


def test_an_average_over_batches_depends_on_how_they_are_cut():
    x = relu_like()
    wrong = lambda *batches: np.mean([batch.max() for batch in batches])  # noqa: E731
    assert wrong(x) != pytest.approx(wrong(*np.split(x, 8)))
    by_example = x.reshape(64, -1).max(axis=1).astype(np.float64).mean()
    assert seen("moving_average", x).range()[1] == pytest.approx(by_example, rel=1e-12)


@given(float_arrays(shape=6))
def test_exact_sums(x):
    total = sum(map(int, np.ldexp(x.astype(np.float64), 149).tolist()))
    assert exact_value(exact_parts(x)) * 2**149 == total
    np.testing.assert_array_equal(exact_parts(x[:2]) + exact_parts(x[2:]), exact_parts(x))


def test_a_float_sum_depends_on_the_order():
    x = np.float32([1e8, 1, -1e8])
    assert np.sum(x) != np.sum(x[[0, 2, 1]])
    assert exact_value(exact_parts(x)) == 1


@every_kind
@given(examples, schemes)
def test_devices_agree_to_the_bit(kind, x, scheme):
    name, target = scheme
    here = seen(kind, x, target=target, scheme=name)
    with install():
        there = observer(kind, target, name).to("cuda")
        there.observe(to_device(x, "cuda"))
        assert there.device == "cuda:0"
        for a, b in zip(here.state, there.state, strict=True):
            np.testing.assert_array_equal(a, b)
        assert here.range() == there.range()


# -------------------------------------------------------------------------------- hard batches


@every_kind
def test_nothing_seen_is_an_error_that_names_the_layer(kind):
    with pytest.raises(RuntimeError, match="conv1: no data were seen"):
        observer(kind).range()
    with pytest.raises(RuntimeError, match="conv1: no data were seen"):
        observer(kind).qparams()


@every_kind
def test_a_batch_of_zeros_is_data(kind):
    """An observer that takes (0, 0) for "nothing yet" fails here, or forgets the zeros."""
    x = relu_like()
    zeros = np.zeros_like(x)
    assert seen(kind, zeros).range() == (0, 0)
    assert seen(kind, zeros).qparams() == (1, 0)
    assert seen(kind, zeros, x).range() == seen(kind, x, zeros).range()
    _, high = seen(kind, x).range()
    expected = high / 2 if kind == "moving_average" else high
    assert seen(kind, zeros, x).range()[1] == pytest.approx(expected, rel=1e-12)


@every_kind
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("value", [3.0, -3.0, 1e-30, SMALLEST_NORMAL, 3e38, LARGEST, -LARGEST])
def test_one_number_only(kind, scheme, value):
    target = UINT8 if scheme == "affine" else INT8
    new = seen(kind, np.full((2, 5), value, "f"), target=target, scheme=scheme)
    lo, hi = new.range()
    value = float(np.float32(value))
    far, near = (hi, lo) if value > 0 else (-lo, -hi)
    assert far == pytest.approx(abs(value), rel=1e-3)
    if scheme == "affine":
        assert near == 0
    scale, _ = new.qparams()
    assert np.isfinite(scale).all()
    assert (scale >= SMALLEST_NORMAL).all()


@every_kind
@given(float_arrays(shape=(4, 3)), schemes)
def test_any_data_give_a_finite_range_and_a_positive_scale(kind, x, scheme):
    name, target = scheme
    new = seen(kind, x, target=target, scheme=name)
    lo, hi = new.range()
    assert -LARGEST <= lo <= 0 <= hi <= LARGEST
    scale, zero_point = new.qparams()
    assert np.isfinite(scale).all()
    assert (scale >= SMALLEST_NORMAL).all()
    assert target.qmin <= zero_point[0] <= target.qmax
    if name == "affine":
        assert lo >= min(x.min(), 0)
        assert hi <= max(x.max(), 0)


@every_kind
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_what_is_not_finite_names_the_layer_and_changes_nothing(device, kind, bad, word):
    new = seen(kind, relu_like()).to(device)
    before = new.state
    x = np.ones((2, 3), "f")
    x[1, 1] = bad
    with pytest.raises(ValueError, match=f"conv1: holds {word}"):
        new.observe(to_device(x, device))
    for a, b in zip(new.state, before, strict=True):
        np.testing.assert_array_equal(a, b)


@every_kind
def test_what_is_no_data_names_the_layer(kind):
    with pytest.raises(ValueError, match="conv1: is empty"):
        observer(kind).observe(np.empty((0, 3), "f"))
    with pytest.raises(TypeError, match="conv1: only an array of floats"):
        observer(kind).observe(np.ones((2, 3), int))


def test_a_tiny_negative_number_beside_a_huge_one_is_still_negative():
    """``floor(x / w)`` in float32 gives bin 0: the quotient became −0."""
    tiny, huge = np.float32([-SMALLEST]), np.float32([LARGEST])
    width = np.float32(2.0**117)
    assert np.floor(tiny / width) == 0
    together = histogram_of(np.concatenate([tiny, huge]))
    assert together.bins[SIDE - 1] == 1
    np.testing.assert_array_equal(
        together.bins, joined(histogram_of(tiny), histogram_of(huge)).bins
    )
    assert histogram_of(np.array([-5e-324, 1e300])).bins[SIDE - 1] == 1  # the same in float64


# --------------------------------------------------------------------------- what they look for


@given(examples)
def test_min_max_is_the_smallest_and_the_largest_number(x):
    assert seen("minmax", x).range() == (min(x.min(), 0), max(x.max(), 0))


@given(float_arrays(shape=(200,), elements=ordinary), st.sampled_from([60, 90, 99, 99.9, 100]))
def test_percentile_leaves_out_no_more_than_it_may(x, percent):
    lo, hi = seen("percentile", x, percent=percent).range()
    allowed = np.count_nonzero(x) * (1 - percent / 100)
    assert np.sum(x > hi) <= allowed
    assert np.sum(x < lo) <= allowed
    _, t = seen("percentile", x, target=INT8, scheme="symmetric", percent=percent).range()
    assert np.sum(np.abs(x) > t) <= allowed


def test_percentile_leaves_out_what_it_may():
    x = np.append(np.linspace(0.1, 1, 9_990), np.full(10, 50)).astype("f")
    high = lambda percent: seen("percentile", x, percent=percent).range()[1]  # noqa: E731
    width = 64 / 2048
    assert 1 <= high(99.89) <= 1 + width
    assert high(99.91) == 50


def test_zeros_do_not_make_the_rest_an_outlier():
    """After ReLU nearly everything may be 0: counted, they leave no range at all."""
    x = np.zeros(100_000, "f")
    x[:5] = 1, 2, 3, 4, 5
    assert np.quantile(x, 0.9999) == 0
    assert seen("percentile", x).range()[1] == 5


def squared_error(x, new):
    scale, zero_point = new.qparams()
    return ((affine.fake_quantize(x, scale, zero_point, new.target) - x) ** 2).sum()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("data", ["normal", "relu", "heavy", "skew"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_the_mse_range_has_a_smaller_error_than_others(bits, data, scheme):
    rng = np.random.default_rng(bits)
    x = rng.normal(size=50_000).astype("f")
    x = {"normal": x, "relu": np.maximum(x, 0), "heavy": x**3, "skew": np.exp(x) - 1}[data]
    target = IntegerRange(bits, signed=scheme == "symmetric", narrow=scheme == "symmetric")
    errors = {k: squared_error(x, seen(k, x, target=target, scheme=scheme)) for k in OBSERVERS}
    assert errors["mse"] <= min(errors.values()) * 1.01
    assert errors["mse"] < errors["minmax"] or bits == 8


def test_one_outlier_decides_min_max_and_no_other():
    x = relu_like()
    x[0, 0, 0] = 12
    for kind in OBSERVERS:
        _, hi = seen(kind, x, target=IntegerRange(4, signed=False), percent=99.9).range()
        assert (hi == 12) == (kind == "minmax")


def test_an_outlier_on_one_side_is_clipped_there_alone():
    x = np.random.default_rng(0).uniform(-1, 1, 20_000).astype("f")
    x[:3] = 4
    lo, hi = seen("mse", x, target=IntegerRange(3, signed=False)).range()
    assert lo < -0.7
    assert hi < 1.5


def test_with_more_codes_than_bins_nothing_is_clipped():
    x = relu_like()
    target = IntegerRange(16, signed=False)
    assert seen("kl", x, target=target).range() == (0, x.max())
    assert seen("mse", x, target=target).range()[1] >= 0.98 * x.max()


def test_divergence_with_the_outliers_in_both_distributions_would_clip_nearly_everything():
    """The trap of entropy calibration, on data where nothing should be clipped much."""
    x = np.random.default_rng(0).uniform(0, 1, 50_000).astype("f")
    h = histogram_of(x)
    centres, counts = h.in_use()

    def wrong(hi):
        inside = centres <= hi
        p = counts[inside].astype(float)
        p[-1] += counts[~inside].sum()
        codes = np.floor(centres[inside] / hi * 255).astype(int)
        q = (np.bincount(codes, p) / np.maximum(np.bincount(codes), 1))[codes]  # of p itself
        return (p * np.log(p / q)).sum()

    factors = np.arange(0.2, 1.01, 0.05)
    assert factors[np.argmin([wrong(f * 1024) for f in factors])] < 0.5
    assert least_divergence(h, UINT8, "affine")[1] > 0.95


@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_divergence_does_not_make_all_but_black_pixels_white(bits, scheme):
    """The trap of few bins: with one for each code, clipping onto a last bin that is full anyway
    seems to cost little, and the best range is the lowest hundredth."""
    x = np.asarray(mnist()[0].images[:512], "f")
    target = IntegerRange(bits, signed=scheme == "symmetric", narrow=scheme == "symmetric")
    lo, hi = seen("kl", x, target=target, scheme=scheme).range()
    assert lo == (0 if scheme == "affine" else -hi)
    assert hi > 0.95


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_divergence_at_few_bits_is_not_far_from_the_least_error(bits):
    x = np.random.default_rng(0).normal(size=100_000).astype("f")
    target = IntegerRange(bits, signed=False)
    for data in (x, np.maximum(x, 0)):
        error = {k: squared_error(data, seen(k, data, target=target)) for k in ("kl", "mse")}
        assert error["kl"] < 1.5 * error["mse"]


def test_what_others_call_the_symmetric_range_is_the_same_on_both_sides():
    x = np.random.default_rng(0).normal(1, 1, 10_000).astype("f")
    for kind in ("percentile", "kl", "mse"):
        lo, hi = seen(kind, x, target=INT8, scheme="symmetric").range()
        assert lo == -hi
        lo, hi = seen(kind, x).range()
        assert -lo < hi


def test_the_past_weighs_no_more_than_the_window():
    ones, fives = np.full((10, 3), 1, "f"), np.full((10, 3), 5, "f")
    steady = seen("moving_average", *[ones] * 50, *[fives] * 50)
    moving = seen("moving_average", *[ones] * 50, *[fives] * 50, window=90)
    assert steady.range()[1] == 3
    assert moving.range()[1] == pytest.approx(5 - 4 * 0.9**50, rel=1e-3)
    assert seen("moving_average", *[ones] * 50, window=90).range()[1] == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="window must be None or a whole number ≥ 1, got 0"):
        observer("moving_average", window=0)


def test_within_a_step_the_shards_do_not_matter_even_with_a_window():
    x = relu_like()
    one, many = (seen("moving_average", relu_like(1), window=100) for _ in range(2))
    one.merge([one.seen(x)])
    many.merge([many.seen(part) for part in np.split(x, 4)[::-1]])
    assert one.range() == many.range()


# -------------------------------------------------------------------------------- as a module


@every_kind
def test_it_notes_in_a_step_and_merges_afterwards(kind):
    x = relu_like()
    here, there = seen(kind, x), observer(kind)
    shards = []
    for part in np.split(x, 4):
        with record_notes() as notes:
            assert there(part) is part
        shards.append(notes)
        assert there.count[0] == 0
    merge_notes(shards)
    assert there.range() == here.range()
    assert observer(kind)(tc.tensor(x)).shape == x.shape


@every_kind
def test_two_observers_merge_and_the_state_is_all_there_is(kind):
    x, y = relu_like(0), -2 * relu_like(1)
    a, b = seen(kind, x), seen(kind, y)
    a.merge([b.state])
    assert a.range() == seen(kind, x, y).range()
    twin = type(a)(**a.config())
    twin.load_state_dict(a.state_dict())
    assert twin.range() == a.range() == a.copy().range()
    assert repr(twin) == repr(a)
