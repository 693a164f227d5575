"""Where torch's quantization gives other numbers, and why ours are as they are.

=====================  ==========================================  ============================
                       torch                                       here
=====================  ==========================================  ============================
x / scale              times the reciprocal of the scale           divided
ties                   to even, before *or* after the zero point,  to even, before it
                       depending on the function
NaN                    becomes code 0                              refused by name
no data observed       scale 1, and a warning                      refused by name
=====================  ==========================================  ============================
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st
from quantize_cases import float_arrays, ordinary

from tinycompress.compress.quantize import affine, fake_quantize
from tinycompress.compress.quantize.observers import make_observer
from tinycompress.compress.quantize.ranges import IntegerRange

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
UINT8 = IntegerRange(8, signed=False)
TIES = np.float32([-0.5, 0.5, 1.5, 2.5, 3.5])


def quantized_by_torch(x, scale, zero_point):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        tensor = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero_point, torch.quint8)
    return tensor.int_repr().numpy()


@given(
    float_arrays(shape=(3, 8), elements=ordinary),
    st.lists(st.integers(1, 4000), min_size=3, max_size=3),
    st.lists(st.integers(0, 255), min_size=3, max_size=3),
)
def test_per_channel_it_differs_only_where_the_reciprocal_rounds_otherwise(x, steps, zero_points):
    scale, zero_point = np.float32(steps) / np.float32(7919), np.array(zero_points, np.int32)
    theirs = torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.fake_quantize_per_channel_affine(
        theirs, torch.from_numpy(scale), torch.from_numpy(zero_point), 0, 0, 255
    )
    ours = fake_quantize(x, scale, zero_point, UINT8, axis=0).data
    column = scale[:, None]
    same = np.rint(x / column) == np.rint(x * (np.float32(1) / column))
    np.testing.assert_array_equal(ours[same], expected.detach().numpy()[same])


@pytest.mark.parametrize("zero_point", range(4))
def test_ties_are_rounded_before_the_zero_point_is_added_as_in_its_fake_quantize(zero_point):
    fake = torch.fake_quantize_per_tensor_affine(torch.from_numpy(TIES), 1.0, zero_point, 0, 255)
    ours = affine.fake_quantize(TIES, 1.0, zero_point, UINT8)
    np.testing.assert_array_equal(ours, fake.numpy())


def test_its_quantize_adds_the_zero_point_first_and_so_disagrees_with_its_own_fake_quantize():
    for zero_point in range(4):
        wrong = np.rint(TIES + zero_point)
        np.testing.assert_array_equal(
            quantized_by_torch(TIES, 1.0, zero_point), np.clip(wrong, 0, 255)
        )
    ours = affine.quantize(TIES, 1.0, 1, UINT8)
    assert list(ours) == [1, 1, 3, 3, 5]
    assert list(quantized_by_torch(TIES, 1.0, 1)) == [0, 2, 2, 4, 4]


def test_nan_becomes_a_zero_there_and_an_error_here():
    x = np.float32([np.nan])
    assert torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), 1.0, 0, 0, 255).item() == 0
    with pytest.raises(ValueError, match="holds NaN"):
        affine.quantize(x, 1.0, 0, UINT8)


def test_both_saturate():
    x = np.float32([1e10, -1e10, np.inf, -np.inf])
    theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), 1.0, 3, 0, 255)
    np.testing.assert_array_equal(affine.fake_quantize(x, 1.0, 3, UINT8), theirs.numpy())


def test_an_observer_without_data_warns_there_and_raises_here():
    from torch.ao.quantization import MinMaxObserver

    with pytest.warns(UserWarning, match="must run observer"):
        scale, _ = MinMaxObserver().calculate_qparams()
    assert scale.item() == 1
    with pytest.raises(RuntimeError, match="conv1: no data were seen"):
        make_observer("minmax", UINT8, "affine", "conv1").qparams()


@given(float_arrays(shape=(4, 5), elements=ordinary))
def test_min_max_observers_agree_up_to_the_rounding_of_the_scale(x):
    from torch.ao.quantization import MinMaxObserver

    theirs = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=255)
    theirs(torch.from_numpy(x.copy()))
    ours = make_observer("minmax", UINT8)
    ours.observe(x)
    if max(abs(end) for end in ours.range()) < 1e-3:
        return  # torch has a smallest scale of its own
    scale, zero_point = ours.qparams()
    expected, its_zero_point = theirs.calculate_qparams()
    np.testing.assert_allclose(scale, expected.numpy(), rtol=1e-6)
    assert abs(int(zero_point[0]) - int(its_zero_point.item())) <= 1  # ties, in float32
