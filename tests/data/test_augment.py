"""Augmentation against scipy.ndimage, and the cases that must be exact."""

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from tinycompress.backend import device_of, to_device, to_numpy
from tinycompress.data import Dataset, RandomAffine, RandomShift, batches
from tinycompress.data.augment import affine_images, shift_images

shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
images32 = shapes.flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


def generator(seed=0):
    return np.random.default_rng(seed)


def random_images(n=6, c=2, h=9, w=12, dtype=np.float32):
    return generator(7).random((n, c, h, w)).astype(dtype)


def scipy_affine(image, angle, scale, shift):
    """One channel at a time, from the definition: forward p -> c + A (p - c) + t, inverted."""
    forward = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(forward)
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - inverse @ (centre + shift)
    return np.stack(
        [
            ndimage.affine_transform(
                channel.astype(np.float64), inverse, offset, order=1, mode="grid-constant"
            )
            for channel in image
        ]
    )


@given(images32, st.data())
def test_an_affine_map_agrees_with_scipy(images, data):
    n = len(images)
    angles = np.array(data.draw(st.lists(st.floats(-4, 4), min_size=n, max_size=n)))
    scales = np.array(data.draw(st.lists(st.floats(0.3, 3), min_size=n, max_size=n)))
    shifts = np.array(
        data.draw(st.lists(st.tuples(*[st.floats(-12, 12)] * 2), min_size=n, max_size=n))
    )
    out = affine_images(images.astype(np.float64), angles, scales, shifts)
    for i in range(n):
        expected = scipy_affine(images[i], angles[i], scales[i], shifts[i])
        np.testing.assert_allclose(out[i], expected, atol=1e-9)
    assert out.shape == images.shape
    single = affine_images(images, angles, scales, shifts)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, out, atol=1e-4)  # places near 30 in float32: 2e-6 each


@given(images32, st.data())
def test_a_shift_by_whole_pixels_is_exact(images, data):
    n = len(images)
    shifts = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(-12, 12)] * 2), min_size=n, max_size=n))
    )
    out = shift_images(images, shifts)
    for i in range(n):
        expected = ndimage.shift(images[i], (0, *shifts[i]), order=0, mode="grid-constant")
        np.testing.assert_array_equal(out[i], expected)
    by_affine = affine_images(images, np.zeros(n), np.ones(n), shifts)
    np.testing.assert_array_equal(by_affine, out)


@given(images32)
def test_no_turn_no_scale_no_shift_is_exactly_the_identity(images):
    nothing = RandomAffine(degrees=0, translate=0, scale=(1, 1))
    np.testing.assert_array_equal(nothing(images, generator()), images)
    np.testing.assert_array_equal(RandomShift(0)(images, generator()), images)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_positive_angle_turns_counter_clockwise(quarters):
    images = random_images(h=9, w=9)
    angles = np.full(len(images), quarters * np.pi / 2)
    turned = affine_images(images, angles, np.ones(len(images)), np.zeros((len(images), 2)))
    np.testing.assert_allclose(turned, np.rot90(images, quarters, axes=(2, 3)), atol=1e-5)


def test_a_larger_scale_enlarges():
    images = np.zeros((1, 1, 9, 9), np.float32)
    images[:, :, 3:6, 3:6] = 1
    areas = [
        affine_images(images, np.zeros(1), np.array([s]), np.zeros((1, 2))).sum()
        for s in (0.5, 1, 1.5)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_images_far_outside_are_black():
    images = random_images(n=2)
    assert (shift_images(images, np.array([[9, 0], [0, -(10**12)]])) == 0).all()
    far = np.array([[1e9, 0], [0, -1e9]])
    assert (affine_images(images, np.zeros(2), np.ones(2), far) == 0).all()


@pytest.mark.parametrize("augment", [RandomShift(3), RandomAffine(20, 3.5, (0.5, 2))])
def test_values_stay_within_those_of_the_images(augment):
    images = random_images(n=50)
    out = augment(images, generator())
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert out.min() >= 0
    assert out.max() <= images.max() * (1 + 1e-6)
    assert not np.shares_memory(out, images)


@pytest.mark.parametrize("augment", [RandomShift(), RandomAffine()])
def test_the_generator_determines_the_result(augment):
    images = random_images(n=20)
    same = [augment(images, generator(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert (same[0] != same[2]).any()


def test_every_shift_up_to_the_limit_comes():
    images = np.zeros((2000, 1, 7, 7), np.float32)
    images[:, 0, 3, 3] = 1
    places = np.argwhere(RandomShift(2)(images, generator())[:, 0])[:, 1:] - 3
    assert {tuple(p) for p in places.tolist()} == {
        (y, x) for y in range(-2, 3) for x in range(-2, 3)
    }


def test_float16_images_keep_their_dtype_and_are_placed_in_float32():
    images = random_images(h=40, w=40, dtype=np.float16)
    drawn = RandomAffine()(images, generator())
    assert drawn.dtype == np.float16
    single = RandomAffine()(images.astype(np.float32), generator())
    np.testing.assert_allclose(drawn, single, atol=1e-3)


def test_a_resumed_epoch_sees_the_same_augmented_images():
    ds = Dataset(random_images(n=20))
    whole = list(batches(ds, 3, seed=1, epoch=4, augment=RandomAffine()))
    late = list(batches(ds, 3, seed=1, epoch=4, start=5, augment=RandomAffine()))
    for (a,), (b,) in zip(whole[5:], late, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomShift(-1), "pixels must be an integer ≥ 0, got -1"),
        (lambda: RandomShift(1.5), "pixels must be an integer ≥ 0, got 1.5"),
        (lambda: RandomAffine(degrees=-1), "degrees and translate must be ≥ 0, got -1"),
        (lambda: RandomAffine(translate=float("nan")), "≥ 0, got 10.0 and nan"),
        (lambda: RandomAffine(scale=(0, 1)), r"scale must be \(smallest, largest\)"),
        (lambda: RandomAffine(scale=(1.1, 0.9)), r"got \(1.1, 0.9\)"),
        (lambda: RandomShift()(np.zeros((3, 4), np.float32), generator()), r"of shape \(3, 4\)"),
        (lambda: RandomAffine()(np.zeros((1, 1, 3, 4), np.uint8), generator()), "got uint8"),
    ],
)
def test_impossible_amounts_and_images_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("augment", [RandomShift(3), RandomAffine(20, 3.5, (0.5, 2))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_augmentation_is_the_same_on_every_device_and_waits_for_nothing(device, augment, dtype):
    images = random_images(dtype=dtype)
    expected = augment(images, generator())
    moved = to_device(images, device)
    with strict_cupy.no_sync("augmentation"):
        out = augment(moved, generator())
    assert device_of(out) == device_of(moved)
    assert out.dtype == dtype
    np.testing.assert_allclose(to_numpy(out), expected, atol=2e-5)
