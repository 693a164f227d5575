"""The range of a weight that has the smallest squared error, at every width and granularity."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import float_arrays
from strict_cupy import install

from tinycompress import nn
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.quantize import QuantConfig, quantize
from tinycompress.compress.quantize.affine import min_max
from tinycompress.compress.quantize.blocks import reduce_blocks
from tinycompress.compress.quantize.weights import (
    dequantize_weight,
    quantize_weight,
    weight_range,
)

BLOCKS = [("per_tensor", None), ("per_channel", None), ("per_group", 7), ("per_group", 1)]


@st.composite
def configs(draw):
    scheme = draw(st.sampled_from(["symmetric", "affine"]))
    bits = draw(st.integers(1 if scheme == "symmetric" else 2, 16))
    return QuantConfig(bits, scheme, *draw(st.sampled_from(BLOCKS)), weight_observer="mse")


weights = st.sampled_from([(1, 1), (3, 10), (4, 2, 3, 3)]).flatmap(lambda s: float_arrays(shape=s))


def errors(w, config):
    """The squared error of each block."""
    back = dequantize_weight(quantize_weight(w, config), config).astype(np.float64)
    square = (back - w) ** 2
    return reduce_blocks(lambda b: b.sum(axis=-1), square, config.axis, config.group_size)


@given(weights, configs())
def test_no_block_has_a_larger_error_than_with_its_whole_range(w, config):
    if config.bits == 1:
        w = np.where(w == 0, np.float32(1), w)
    whole = errors(w, config.replace(weight_observer="minmax"))
    # The search uses scales that are not rounded to float32, as those that are stored.
    rounding = 2.0**-22 * float(np.abs(w).max()) * np.sqrt(whole * w.size)
    assert np.all(errors(w, config) <= whole * (1 + 1e-6) + 4 * rounding)


@given(weights, configs())
def test_zeros_stay_zero_and_everything_is_finite(w, config):
    if config.bits == 1:
        return
    back = dequantize_weight(quantize_weight(w, config), config)
    assert np.all(back[w == 0] == 0)
    assert np.isfinite(back).all()


@given(weights, configs())
def test_each_block_is_searched_as_if_it_were_alone(w, config):
    if config.bits == 1:
        return
    lo, hi = weight_range(w, config)
    alone = config.replace(granularity="per_tensor", group_size=None)
    rows = w.reshape(1, -1) if config.axis is None else w.reshape(len(w), -1)
    size = config.group_size or rows.shape[1]
    for i, row in enumerate(rows):
        for j, start in enumerate(range(0, len(row), size)):
            at = (i, j) if config.group_size else (i,)
            single = weight_range(row[start : start + size], alone)
            assert (lo[at], hi[at]) == (single[0][0], single[1][0])


@given(weights, configs())
def test_devices_agree_on_every_code(w, config):
    if config.bits == 1:
        return
    here = quantize_weight(w, config)
    with install():
        there = quantize_weight(to_device(w, "cuda"), config)
        for a, b in zip(here, there, strict=True):
            assert a.tobytes() == to_numpy(b).tobytes()


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_few_bits_gain_from_clipping_and_the_range_lies_inside(bits, scheme):
    w = np.random.default_rng(0).normal(size=(4, 2000)).astype("f")
    config = QuantConfig(bits, scheme, weight_observer="mse")
    whole = errors(w, config.replace(weight_observer="minmax"))
    assert np.all(errors(w, config) < {2: 0.5, 3: 0.7, 4: 0.8, 6: 1}[bits] * whole)
    (lo, hi), (low, high) = weight_range(w, config), min_max(w, 0)
    assert np.all((low <= lo) & (hi <= high) & (lo - low + high - hi > 0))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_other_range_of_a_fine_grid_is_much_better(bits):
    """The search is over 128 ranges; a thousand others find at most a percent."""
    w = np.random.default_rng(1).laplace(size=(1, 3000)).astype("f")
    found = errors(w, QuantConfig(bits, weight_observer="mse"))[0]
    top = np.abs(w).max()
    n = 2 ** (bits - 1) - 1
    others = [
        ((np.clip(np.rint(w / s), -n, n) * s - w) ** 2).sum()
        for s in top / n * np.linspace(0.01, 1, 1000)
    ]
    assert min(others) >= 0.99 * found


def test_a_channel_that_needs_both_ends_gets_them():
    """Affine: an outlier on one side alone is clipped there alone."""
    w = np.linspace(-1, 1, 2001).astype("f")[None]
    w[0, -1] = 3
    lo, hi = weight_range(w, QuantConfig(4, "affine", weight_observer="mse"))
    assert lo < -0.8
    assert hi < 1.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named(bad):
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.data[0, 0] = bad
    with pytest.raises(ValueError, match=r"0 \(Linear\): holds"):
        quantize(model, QuantConfig(weight_observer="mse"))
