"""A data set is checked once, when it is made."""

import dataclasses

import numpy as np
import pytest

from tinycompress.backend import DeviceError, device_of, to_device, to_numpy
from tinycompress.data import Dataset


def example(n=10, **options):
    images = np.arange(n * 4, dtype=np.float32).reshape(n, 1, 2, 2) / (4 * n)
    return Dataset(images, np.arange(n) % 3, **options)


def test_it_keeps_the_arrays_and_says_what_they_are():
    ds = example(name="ten", classes=3)
    assert len(ds) == 10
    assert ds.images is ds.arrays[0]
    assert ds.labels is ds.arrays[1]
    assert (ds.device, ds.name, ds.classes) == ("cpu", "ten", 3)
    text = "Dataset('ten', 10 examples of float32 (1, 2, 2), int64 () on cpu)"
    assert repr(ds) == text


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().name = "another"


@pytest.mark.parametrize("dtype", ["u1", "i1", "i4", "u8"])
def test_integer_labels_become_int64(dtype):
    ds = Dataset(example().images, example().labels.astype(dtype))
    assert ds.labels.dtype == np.int64
    np.testing.assert_array_equal(ds.labels, example().labels)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((), TypeError, "at least one array"),
        (([[0.0]],), TypeError, "images must be a NumPy or CuPy array, got list"),
        ((np.zeros((2, 3)), [0, 1]), TypeError, "labels must be a NumPy or CuPy array, got list"),
        ((np.zeros((2, 3)), np.zeros(3, int)), ValueError, r"images \(2, 3\), labels \(3,\)"),
        ((np.zeros((0, 3)),), ValueError, r"images holds no example: its shape is \(0, 3\)"),
        ((np.zeros((), np.float32),), ValueError, r"images holds no example: its shape is \(\)"),
        ((np.zeros((2, 3), np.uint8),), TypeError, r"got uint8; .*astype\(np.float32\) / 255"),
        ((np.zeros((2, 3)), np.zeros(2)), TypeError, "labels must be integers .*, got float64"),
        ((np.zeros((2, 3)), np.array([True, False])), TypeError, "labels must be .*, got bool"),
        ((np.zeros((2, 3)), np.array([0, -1])), ValueError, r"-1 at index \(1,\).*not negative"),
        (
            (np.zeros((2, 3)), np.array([0, 1]), np.array([[0.0, 1], [np.inf, 0]])),
            ValueError,
            r"arrays\[2\] holds inf at index \(1, 0\)",
        ),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_by_name(arrays, error, message):
    with pytest.raises(error, match=message):
        Dataset(*arrays)


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_labels_beyond_the_classes_are_refused_with_the_place(label):
    labels = np.array([0, 9, label, label])
    with pytest.raises(ValueError, match=rf"labels holds {label} at index \(2,\).*0 to 9"):
        Dataset(np.zeros((4, 2)), labels, classes=10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_refused_with_the_first_place(value):
    images = np.zeros((5, 1, 3, 3), np.float32)
    images[3, 0, 1, 2] = images[4, 0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"images holds {value} at index \(3, 0, 1, 2\)"):
        Dataset(images)


def test_one_array_is_enough_but_has_no_labels():
    ds = Dataset(np.zeros((4, 2), np.float32), name="bare")
    with pytest.raises(AttributeError, match=r"'bare'.*has no labels"):
        _ = ds.labels


def test_targets_of_a_regression_have_two_dimensions():
    assert Dataset(np.zeros((4, 2)), np.ones((4, 1), np.float32)).labels.dtype == np.float32
    with pytest.raises(ValueError, match="labels holds nan"):
        Dataset(np.zeros((4, 2)), np.full((4, 1), np.nan))


@pytest.mark.parametrize(
    "indices", [slice(2, 7), [3, 1, 1, -1], np.array([9, 0], np.uint8), np.arange(10) % 2 == 0, []]
)
def test_indexing_reads_every_array_alike(indices):
    ds = example().with_array(np.arange(10.0))
    plain = np.arange(10)[np.array(indices, int) if isinstance(indices, list) else indices]
    for part, whole in zip(ds[indices], ds.arrays, strict=True):
        np.testing.assert_array_equal(part, whole[plain])


def test_indices_out_of_range_or_of_another_kind_are_refused():
    ds = example()
    for bad in ([10], [0, -11], np.array([3, 99])):
        with pytest.raises(IndexError, match=r"index (10|-11|99) is out of range for 10"):
            ds[bad]
    with pytest.raises(TypeError, match=r"mask of shape \(10,\), got float64"):
        ds[np.array([0.0, 1.0])]
    with pytest.raises(TypeError, match=r"got bool of shape \(9,\)"):
        ds[np.ones(9, bool)]


def test_take_is_the_beginning():
    ds = example(name="ten", classes=3)
    four = ds.take(4)
    assert (len(four), four.name, four.classes) == (4, "ten", 3)
    assert np.shares_memory(four.images, ds.images)
    np.testing.assert_array_equal(four.labels, ds.labels[:4])
    for n in (0, -1, 11):
        with pytest.raises(ValueError, match=f"n must be 1 to 10, got {n}"):
            ds.take(n)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_a_split_parts_the_examples(fraction):
    ds = example(40, name="forty")
    rest, held_out = ds.split(fraction, seed=1)
    assert len(held_out) == round(40 * fraction)
    assert held_out.name == "forty-held-out"
    both = np.concatenate([rest.images, held_out.images]).ravel()
    np.testing.assert_array_equal(np.sort(both), ds.images.ravel())
    for part in (rest, held_out):  # the labels went with their images, in the old order
        number = np.rint(part.images[:, 0, 0, 0] * 40).astype(int)
        np.testing.assert_array_equal(part.labels, number % 3)
        assert (np.diff(number) > 0).all()


def test_a_split_depends_on_the_seed_alone():
    ds = example(40)
    again = [ds.split(0.5, seed=s)[1].images for s in (0, 0, 1)]
    np.testing.assert_array_equal(again[0], again[1])
    assert (again[0] != again[2]).any()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 0.01, 0.99, float("nan"), 3])
def test_a_split_leaves_no_part_empty(fraction):
    with pytest.raises(ValueError, match="leaves one part empty"):
        example().split(fraction)


def test_a_further_array_must_have_the_same_length():
    ds = example(name="ten", classes=3)
    more = ds.with_array(np.ones((10, 3), np.float32))
    assert len(more.arrays) == 3
    assert (more.name, more.classes) == ("ten", 3)
    with pytest.raises(ValueError, match=r"arrays\[2\] \(9, 3\)"):
        ds.with_array(np.ones((9, 3), np.float32))


def test_moving_to_where_it_is_gives_itself():
    ds = example()
    assert ds.to("cpu") is ds


# ---------------------------------------------------------------------------------------- devices


def test_a_data_set_moves_whole_and_comes_back_the_same(device):
    ds = example(name="ten", classes=3).with_array(np.arange(10.0))
    moved = ds.to(device)
    assert moved.device.startswith(device)
    assert (moved.name, moved.classes, len(moved)) == ("ten", 3, 10)
    assert all(device_of(a) == moved.device for a in moved.arrays)
    for before, after in zip(ds.arrays, moved.to("cpu").arrays, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("indices", [slice(2, 7), [3, 1, -1], np.array([9, 0]), np.arange(10) > 4])
def test_indexing_stays_on_the_device(device, indices):
    ds = example()
    for part, expected in zip(ds.to(device)[indices], ds[indices], strict=True):
        assert device_of(part).startswith(device)
        np.testing.assert_array_equal(to_numpy(part), expected)


def test_arrays_of_the_device_are_indices_too(device):
    ds = example().to(device)
    images, labels = ds[ds.labels == 1]
    np.testing.assert_array_equal(to_numpy(labels), [1, 1, 1])
    np.testing.assert_array_equal(to_numpy(images), example().images[1::3])
    with pytest.raises(IndexError, match="index 10 is out of range"):
        ds[to_device(np.array([10]), device)]  # where CuPy alone would wrap around


def test_parts_stay_on_the_device(device):
    ds = example(40)
    for part, expected in zip(ds.to(device).split(0.25), ds.split(0.25), strict=True):
        assert part.device.startswith(device)
        np.testing.assert_array_equal(to_numpy(part.images), expected.images)
    assert ds.to(device).take(3).device.startswith(device)


def test_arrays_of_a_device_are_checked_like_others(device):
    images, labels = (to_device(a, device) for a in example().arrays)
    assert Dataset(images, labels.astype(np.uint8), classes=3).labels.dtype == np.int64
    with pytest.raises(ValueError, match=r"labels holds 2 at index \(2,\)"):
        Dataset(images, labels, classes=2)
    with pytest.raises(ValueError, match=r"images holds inf at index \(1, 0, 0, 0\)"):
        Dataset(to_device(np.array([0, np.inf], np.float32).reshape(2, 1, 1, 1), device))


def test_arrays_of_two_devices_are_refused(cupy):
    with pytest.raises(DeviceError, match=r"Dataset: arrays on cpu and cuda:0"):
        Dataset(example().images, cupy.asarray(example().labels))
