"""Looking up in a codebook: code 0 is 0, and derivatives of the members add up."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import seeds, shapes

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.backend import to_device, to_numpy


def example(seed, shape, clusters, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, clusters + 1, shape).astype(dtype)
    return rng.normal(size=clusters), codes, rng.normal(size=shape)


@given(seeds, shapes(), st.integers(0, 5))
def test_every_place_gets_its_number_and_code_0_is_0(seed, shape, clusters):
    codebook, codes, _ = example(seed, shape, clusters)
    y = F.gather(codebook, codes)
    assert (y.shape, y.dtype) == (shape, np.float64)
    for place in np.ndindex(shape):
        assert y.data[place] == (0 if codes[place] == 0 else codebook[codes[place] - 1])


@given(seeds, shapes(), st.integers(1, 5))
def test_a_centroid_has_the_sum_of_its_members_derivatives(seed, shape, clusters):
    codebook, codes, g = example(seed, shape, clusters)
    leaf = tc.tensor(codebook, requires_grad=True)
    (d,) = tc.grad(F.gather(leaf, codes), leaf, g)
    expected = [sum(g[place] for place in np.ndindex(shape) if codes[place] == k + 1)
                for k in range(clusters)]  # fmt: skip
    np.testing.assert_allclose(d, expected, rtol=1e-12, atol=1e-12)
    check_gradients(lambda c: F.gather(c, codes), codebook)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64], ids=lambda d: d.__name__)
def test_every_device_sums_alike_in_any_memory_order(device, dtype):
    codebook, codes, g = example(0, (40, 30), 9, dtype)
    codebook, g = codebook.astype("f"), g.astype("f")
    leaf = tc.tensor(codebook, requires_grad=True, device=device)
    y = F.gather(leaf, to_device(np.asfortranarray(codes), device))
    (d,) = tc.grad(y.transpose(0, 1), leaf, to_device(g.T.copy(), device))  # g comes as a view
    members = [np.where(codes == k + 1, g, 0).astype(np.float64).sum() for k in range(9)]
    np.testing.assert_allclose(to_numpy(d), members, rtol=1e-6)
    np.testing.assert_array_equal(to_numpy(y.data), np.r_[np.float32(0), codebook][codes])


def test_sums_are_made_in_float64():
    """A million small numbers after a large one: float32 would stop at the large one."""
    codebook = tc.tensor(np.ones(1, "f"), requires_grad=True)
    g = np.full(1_000_001, 0.25, "f")
    g[0] = 2.0**24
    (d,) = tc.grad(F.gather(codebook, np.ones(g.shape, np.uint8)), codebook, g)
    assert d.tolist() == [2.0**24 + 250_000]


def test_a_code_that_nobody_has_gets_no_derivative():
    codebook = tc.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (d,) = tc.grad(F.gather(codebook, np.array([0, 1, 1])), codebook, np.ones(3, "f"))
    assert d.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("codebook", "codes", "error", "words"),
    [
        (np.ones((2, 2)), [0], ValueError, ["gather", "codebook", "(2, 2)"]),
        (np.ones(2), [0.5], TypeError, ["gather", "codes", "float32"]),
        (np.ones(2), [True], TypeError, ["gather", "codes", "bool"]),
        (np.ones(2), [0, 3], ValueError, ["gather", "0 … 2", "0 … 3"]),
        (np.ones(2), [-1, 2], ValueError, ["gather", "0 … 2", "-1 … 2"]),
    ],
    ids=["shape", "floats", "booleans", "too large", "negative"],
)
def test_what_is_no_codebook_or_no_code_is_refused(codebook, codes, error, words):
    with pytest.raises(error) as caught:
        F.gather(codebook, tc.tensor(codes))
    assert all(word in str(caught.value) for word in words)
