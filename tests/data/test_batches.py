"""The order of an epoch is a pure function of (seed, epoch)."""

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, strategies as st

from tinycompress.backend import device_of, to_numpy
from tinycompress.data import Dataset, RandomAffine, RandomShift, batch_count, batches


def numbered(n):
    number = np.arange(n)
    return Dataset(number.astype(np.float32).reshape(n, 1, 1, 1), number)


def flat(lists):
    return [item for part in lists for item in part]


def labels(*args, **options):
    return [batch[1].tolist() for batch in batches(*args, **options)]


sizes = st.tuples(st.integers(1, 50), st.integers(1, 60))
seeds = st.integers(0, 2**64)


@given(sizes, st.none() | seeds, st.integers(0, 1000))
def test_every_example_comes_once_an_epoch(size, seed, epoch):
    n, batch_size = size
    ds = numbered(n)
    seen = labels(ds, batch_size, seed=seed, epoch=epoch)
    assert len(seen) == batch_count(ds, batch_size) == -(-n // batch_size)
    assert all(len(batch) == batch_size for batch in seen[:-1])
    assert sorted(flat(seen)) == list(range(n))
    if seed is None:
        assert flat(seen) == list(range(n))


@given(sizes, st.none() | seeds, st.data())
def test_starting_late_is_skipping(size, seed, data):
    ds = numbered(size[0])
    start = data.draw(st.integers(0, batch_count(ds, size[1])))
    whole = labels(ds, size[1], seed=seed, epoch=3)
    assert labels(ds, size[1], seed=seed, epoch=3, start=start) == whole[start:]


def test_images_and_labels_stay_together():
    for images, numbers in batches(numbered(30), 7, seed=5):
        np.testing.assert_array_equal(images[:, 0, 0, 0], numbers)


def test_the_order_depends_on_seed_and_epoch():
    ds = numbered(100)
    orders = {tuple(flat(labels(ds, 10, seed=s, epoch=e))) for s in range(3) for e in range(3)}
    assert len(orders) == 9  # (0, 1) and (1, 0) are different, too
    assert labels(ds, 10, seed=1, epoch=2) == labels(ds, 10, seed=1, epoch=2)


def test_the_order_is_uniform_over_places():
    ds = numbered(4)
    first = np.bincount([labels(ds, 1, seed=s)[0][0] for s in range(400)], minlength=4)
    assert (first > 60).all()  # 100 expected, 8.7 the standard deviation: a shuffle that is one


def test_batches_in_order_are_views():
    ds = numbered(10)
    assert all(np.shares_memory(images, ds.images) for images, _ in batches(ds, 3))


def test_augmentation_resumes_too():
    def jitter(images, generator):
        return images + generator.random(images.shape, dtype=np.float32)

    ds = numbered(30)
    whole = [b[0] for b in batches(ds, 4, seed=2, epoch=1, augment=jitter)]
    late = [b[0] for b in batches(ds, 4, seed=2, epoch=1, start=3, augment=jitter)]
    for a, b in zip(whole[3:], late, strict=True):
        np.testing.assert_array_equal(a, b)
    other = next(batches(ds, 4, seed=2, epoch=2, augment=jitter))[0]
    assert not np.array_equal(whole[0] % 1, other % 1)
    assert not np.array_equal(whole[0] % 1, whole[1] % 1)


def test_augmentation_leaves_the_data_set_and_the_other_arrays_alone():
    ds = numbered(12)
    before = ds.images.copy()
    for images, numbers in batches(ds, 5, seed=0, augment=lambda images, _: images * 0):
        assert (images == 0).all()
        assert numbers.dtype == np.int64
    np.testing.assert_array_equal(ds.images, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be ≥ 1, got 0"),
        ({"batch_size": 4, "seed": -1}, "seed must be ≥ 0, got -1"),
        ({"batch_size": 4, "epoch": -2}, "epoch must be ≥ 0, got -2"),
        ({"batch_size": 4, "start": -3}, "start must be ≥ 0, got -3"),
        ({"batch_size": 4, "start": 4}, "start=4 is past the end: an epoch has 3 batches"),
        ({"batch_size": 4, "augment": lambda x, _: x}, r"give batches\(…\) a seed too"),
    ],
)
def test_numbers_out_of_range_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(10), **options)  # not when the first batch is asked for


def test_batches_are_the_same_on_every_device_and_wait_for_nothing(device):
    ds = numbered(23)
    moved = ds.to(device)
    for options in ({}, {"seed": 4, "epoch": 1}, {"seed": 4, "epoch": 1, "start": 2}):
        expected = list(batches(ds, 5, **options))
        with strict_cupy.no_sync("an epoch"):
            found = list(batches(moved, 5, **options))
        for batch, other in zip(found, expected, strict=True):
            for a, b in zip(batch, other, strict=True):
                assert device_of(a) == moved.device
                np.testing.assert_array_equal(to_numpy(a), b)


def test_the_order_goes_to_the_device_once_an_epoch(cupy):
    moved = numbered(23).to("cuda")
    with strict_cupy.counting() as counts:
        list(batches(moved, 5, seed=0))
    assert counts.uploads == 1
    assert counts.launches == 5 * 2  # one gather for each array of each batch


def test_the_second_gpu_does_its_own_work(cupy):
    ds = Dataset(np.random.default_rng(0).random((9, 1, 5, 5), np.float32), np.arange(9), classes=9)
    moved = Dataset(*ds.to("cuda:1").arrays, classes=9)
    for augment in (None, RandomShift(), RandomAffine()):
        expected = batches(ds, 4, seed=0, augment=augment)
        for batch, other in zip(batches(moved, 4, seed=0, augment=augment), expected, strict=True):
            assert [device_of(a) for a in batch] == ["cuda:1", "cuda:1"]
            np.testing.assert_allclose(to_numpy(batch[0]), other[0], atol=1e-6)
    assert device_of(moved[[0, 2]][0]) == moved.split(0.5)[1].device == "cuda:1"
