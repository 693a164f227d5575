"""One seed, the same numbers on every device, thread and worker; and numbers that look random."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from tinycompress import backend, random

N = 1 << 18
KEYS = (0, 1, 2, 0x9E3779B1, 0xDEADBEEF, 0xFFFFFFFF)


def bits(key, size=N):
    return random.hash_bits(key, size, np.empty(0))


# ------------------------------------------------------------------------------- the host's stream


def test_manual_seed_restarts_the_stream():
    random.manual_seed(3)
    first = random.default_generator().standard_normal(5), random.next_key()
    random.manual_seed(3)
    second = random.default_generator().standard_normal(5), random.next_key()
    assert first[0].tolist() == second[0].tolist()
    assert first[1] == second[1]
    random.manual_seed(4)
    assert random.next_key() != first[1]


def test_it_is_numpys_generator_of_that_seed():
    random.manual_seed(7)
    expected = np.random.default_rng(7).standard_normal(4)
    assert random.default_generator().standard_normal(4).tolist() == expected.tolist()


def test_a_generator_handed_out_before_follows_a_later_seed():
    generator = random.default_generator()
    random.manual_seed(1)
    assert generator is random.default_generator()
    assert generator.random() == np.random.default_rng(1).random()


def test_the_state_goes_through_json_and_back():
    random.manual_seed(5)
    random.next_key()
    state = json.loads(json.dumps(random.get_state()))
    expected = [random.next_key() for _ in range(5)]
    random.manual_seed(6)
    random.set_state(state)
    assert [random.next_key() for _ in range(5)] == expected


def test_a_state_that_was_taken_does_not_move_on():
    state = random.get_state()
    before = json.dumps(state)
    random.next_key()
    assert json.dumps(state) == before


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        random.manual_seed(-1)


# ------------------------------------------------------------------------------------------- keys


def keys_of(key, shard, count=4):
    with random.key_stream(key, shard):
        return [random.next_key() for _ in range(count)]


def test_a_stream_of_keys_depends_on_the_step_and_the_shard_alone():
    here = [keys_of(11, shard) for shard in range(6)]
    random.next_key()
    with ThreadPoolExecutor(3) as pool:
        there = list(pool.map(lambda shard: keys_of(11, shard), range(6)))
    assert here == there


def test_two_threads_inside_their_streams_do_not_disturb_each_other():
    meet, results = threading.Barrier(2, timeout=10), {}

    def work(shard):
        with random.key_stream(5, shard):
            keys = []
            for _ in range(20):
                meet.wait()
                keys.append(random.next_key())
        results[shard] = keys

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {shard: keys_of(5, shard, 20) for shard in range(2)}


def test_streams_nest_and_the_outer_one_goes_on_where_it_was():
    with random.key_stream(1, 0):
        first = random.next_key()
        with random.key_stream(2, 0):
            inner = random.next_key()
        second = random.next_key()
    assert [first, second] == keys_of(1, 0, 2)
    assert inner == keys_of(2, 0, 1)[0]


def test_a_stream_ends_with_its_block_also_after_an_error():
    with pytest.raises(ZeroDivisionError), random.key_stream(1, 0):
        random.next_key() / 0
    random.manual_seed(9)
    outside = random.next_key()
    assert outside == int(np.random.default_rng(9).integers(0, 1 << 32))


def test_a_stream_of_keys_leaves_the_hosts_stream_alone():
    state = random.get_state()
    keys_of(3, 3)
    assert random.get_state() == state


def test_keys_of_many_steps_and_shards_are_distinct_32_bit_numbers():
    keys = [key for step in range(64) for shard in range(16) for key in keys_of(step, shard, 4)]
    assert all(0 <= key < 1 << 32 for key in keys)
    # 4,096 of 2^32: a chance meeting has probability 0.2%, and the keys are fixed
    assert len(set(keys)) == len(keys)


def test_neighbouring_shards_and_steps_get_unrelated_keys():
    starts = np.array([[keys_of(step, shard, 1)[0] for shard in range(64)] for step in range(64)])
    for a, b in ((starts[:, :-1], starts[:, 1:]), (starts[:-1], starts[1:])):
        distance = np.bitwise_count((a ^ b).astype(np.uint32)).mean()
        assert abs(distance - 16) < 5 * np.sqrt(8 / a.size)  # 32 fair coins: mean 16, variance 8


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=50, unique=True))
def test_mix32_maps_different_numbers_to_different_numbers(numbers):
    assert len({random.mix32(n) for n in numbers}) == len(numbers)


def test_mix32_is_murmurhash3s_finaliser():
    assert [random.mix32(n) for n in (0, 1, 2, 0xFFFFFFFF)] == [
        0x00000000, 0x514E28B7, 0x30F4C306, 0x81F16F39
    ]  # fmt: skip


# -------------------------------------------------------------------------------------- hashed bits


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_hash_bits_are_the_same_on_every_device(device, key, size):
    there = random.hash_bits(key, size, backend.to_device(np.empty(1, np.float32), device))
    assert backend.device_of(there) == ("cpu" if device == "cpu" else "cuda:0")
    assert (there.dtype, there.shape) == (np.uint32, (size,))
    expected = [
        random.mix32(((i * 0x9E3779B1) & random.MASK32) ^ random.mix32(key)) for i in range(size)
    ]
    assert backend.to_numpy(there).tolist() == expected


def test_hash_bits_land_on_the_gpu_of_the_array_they_are_for(cupy):
    like = backend.to_device(np.empty(1), "cuda:1")
    there = random.hash_bits(1, 100, like)
    assert backend.device_of(there) == "cuda:1"
    np.testing.assert_array_equal(there.get(), bits(1, 100))


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn():
    assert bits(4, 100).tolist() == bits(4, 1000)[:100].tolist()


def test_hash_bits_draw_without_waiting_for_the_device(cupy):
    import strict_cupy

    like = backend.to_device(np.empty(1), "cuda")
    with strict_cupy.no_sync("drawing a mask"), strict_cupy.counting() as counts:
        random.hash_bits(1, 1000, like)
    assert 0 < counts.launches <= 12


# The keys are fixed, so these tests either pass always or never. The bounds are those that a truly
# random sample breaks once in 10,000 times, divided by the number of comparisons (Bonferroni).


@pytest.mark.parametrize("key", KEYS)
def test_hash_bits_fill_256_bins_evenly(key):
    for shift in (0, 12, 24):
        counts = np.bincount((bits(key) >> np.uint32(shift)) & np.uint32(255), minlength=256)
        statistic = ((counts - N / 256) ** 2 / (N / 256)).sum()
        low, high = stats.chi2.ppf([1e-4 / 36, 1 - 1e-4 / 36], 255)
        assert low < statistic < high


@pytest.mark.parametrize("key", KEYS)
def test_every_bit_is_a_fair_coin(key):
    ones = np.unpackbits(bits(key).view(np.uint8)).reshape(N, 32).sum(0)
    bound = stats.norm.isf(1e-4 / (2 * 32 * len(KEYS))) * np.sqrt(N / 4)
    assert np.abs(ones - N / 2).max() < bound


def correlation(a, b):
    a, b = (x.astype(np.float64) / 2**32 - 0.5 for x in (a, b))
    return 12 * (a * b).mean() * np.sqrt(len(a))  # standard normal where a and b are independent


def test_neighbours_rows_and_keys_are_uncorrelated():
    pairs = [(bits(key)[:-lag], bits(key)[lag:]) for key in KEYS for lag in (1, 2, 28, 784, 4096)]
    pairs += [(bits(a), bits(b)) for a in KEYS for b in KEYS if a < b]
    pairs += [(bits(key), bits(key ^ 1 << bit)) for key in KEYS for bit in range(0, 32, 5)]
    worst = max(abs(correlation(a, b)) for a, b in pairs)
    assert worst < stats.norm.isf(1e-4 / (2 * len(pairs)))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_a_mask_by_threshold_keeps_the_share_that_it_should(p):
    kept = [(bits(key) >= np.uint32(p * 2**32)).sum() for key in KEYS]
    bound = stats.norm.isf(1e-4 / (2 * 4 * len(KEYS))) * np.sqrt(N * p * (1 - p))
    assert np.abs(np.array(kept) - N * (1 - p)).max() < bound
