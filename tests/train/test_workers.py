"""Workers give results in order, and leave nothing behind: no thread, no limit on BLAS."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from problems import alive, blas_threads
from threadpoolctl import threadpool_limits

from tinycompress.train import Workers, available_cores


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_pieces(count):
    def work(piece):
        time.sleep(0.001 * (5 - piece))
        return piece * piece

    with Workers(count) as workers:
        assert workers.map(work, range(5)) == [0, 1, 4, 9, 16]
        assert workers.map(work, []) == []
        assert workers.map(work, iter([2])) == [4]


def test_one_per_core_unless_a_number_is_given():
    assert Workers().count == available_cores() >= 1
    assert Workers(3).count == 3


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_a_number_that_is_none(count):
    with pytest.raises(ValueError, match=f'workers must be .* "auto" or None, got {count!r}'):
        Workers(count)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_error_in_order_arrives_and_the_threads_go(count):
    def work(piece):
        if piece % 2:
            raise KeyError(piece)

    with pytest.raises(KeyError, match="1"), Workers(count) as workers:
        workers.map(work, range(6))
    assert not alive()


def test_threads_live_as_long_as_the_context():
    with Workers(2, kind="thread") as workers:
        workers.map(lambda piece: time.sleep(0.01), range(4))
        assert len(alive()) == 2
    assert not alive()


def test_blas_has_one_thread_inside_and_as_many_as_before_afterwards():
    with threadpool_limits(2, user_api="blas"):
        with Workers(2) as workers:
            assert blas_threads() == {1}
            assert workers.map(lambda piece: blas_threads(), range(2)) == [{1}, {1}]
        assert blas_threads() == {2}
        with pytest.raises(ZeroDivisionError), Workers(1) as workers:
            workers.map(lambda piece: 1 / piece, [0])
        assert blas_threads() == {2}


def test_two_trainings_that_overlap_put_back_what_the_first_one_found():
    with threadpool_limits(2, user_api="blas"):
        one, other = Workers(1), Workers(1)
        one.__enter__()
        other.__enter__()
        one.__exit__()
        assert blas_threads() == {1}, "the other one still works"
        other.__exit__()
        assert blas_threads() == {2}


def test_a_piece_that_maps_works_alone_and_nobody_waits_for_nobody():
    with Workers(2) as workers:

        def work(piece):
            return workers.map(lambda x: (x, threading.current_thread().name), [piece] * 2)

        for (a, one), (b, other) in workers.map(work, range(4)):
            assert a == b
            assert one == other


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_team_works_for_one_thread_at_a_time(kind):
    begun, go_on = threading.Event(), threading.Event()

    def work(piece):
        begun.set()
        return piece == 1 or go_on.wait(20)  # a fork would not hear of it

    with Workers(2, kind=kind) as workers, ThreadPoolExecutor(1) as other:
        first = other.submit(workers.map, work, range(2))
        assert begun.wait(20)
        with pytest.raises(RuntimeError, match="at work for another thread; give each thread"):
            workers.map(abs, [-1, -2])
        go_on.set()
        assert first.result() == [True, True]
        assert workers.map(abs, [-1, -2]) == [1, 2]
