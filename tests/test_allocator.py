"""Memory that was freed is kept: pages are fetched once. Each test of that in a process of its own,
since what the allocator is told holds as long as the process."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tinycompress import allocator
from tinycompress.allocator import SETTINGS, keep_freed_memory

FAULTS = """
import resource
import numpy as np
from tinycompress.allocator import keep_freed_memory

made = keep_freed_memory()

def work(times):
    for _ in range(times):
        arrays = [np.ones(1 << 19, np.float32) for _ in range(8)]  # of 2 MB, 512 pages
        del arrays

work(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(50)
print(made, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

needs_glibc = pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")


def faults(**environment: str) -> tuple[str, int]:
    """(what the call returned, page faults of 50 rounds of 8 arrays)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "TINY"))}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**clean, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    made, count = ran.stdout.split()
    return made, int(count)


@pytest.fixture
def first_call() -> Iterator[None]:
    """As if nobody had called yet, here and afterwards."""
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


class Library:
    """A C library that writes down what it is told."""

    def __init__(self, answer: int = 1) -> None:
        self.answer, self.told = answer, []

    def mallopt(self, key, value):
        self.told.append((key.value, value.value))
        return self.answer


@pytest.fixture
def library(first_call, monkeypatch):
    for variable in ("TINYCOMPRESS_MALLOC", "GLIBC_TUNABLES", *MALLOC_VARIABLES.values()):
        monkeypatch.delenv(variable, raising=False)
    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    return library


MALLOC_VARIABLES = {name: f"MALLOC_{name.upper()}_" for name in SETTINGS}
each_setting = pytest.mark.parametrize("name", SETTINGS)


@needs_glibc
def test_pages_are_fetched_once():
    kept, given_back = faults(), faults(TINYCOMPRESS_MALLOC="0")
    assert kept[0] == "True"
    assert given_back[0] == "False"
    assert given_back[1] > 0.9 * 50 * 8 * 512
    assert kept[1] < given_back[1] / 20


@needs_glibc
def test_what_the_user_set_stays():
    everything = {variable: str(65536) for variable in MALLOC_VARIABLES.values()}
    made, count = faults(**everything)
    assert made == "False"
    assert count > 0.9 * 50 * 8 * 512


def test_the_second_call_does_nothing(library):
    assert [keep_freed_memory(), keep_freed_memory()] == [True, True]
    assert library.told == [(-3, 32 << 20), (-1, 1 << 30), (-2, 64 << 20)]


@each_setting
def test_one_number_of_the_users_leaves_the_others_to_be_set(name, library, monkeypatch):
    others = [pair for other, pair in SETTINGS.items() if other != name]
    monkeypatch.setenv(MALLOC_VARIABLES[name], "1000000")
    assert keep_freed_memory()
    assert library.told == others

    keep_freed_memory.cache_clear()
    monkeypatch.delenv(MALLOC_VARIABLES[name])
    monkeypatch.setenv("GLIBC_TUNABLES", f"glibc.malloc.check=1:glibc.malloc.{name}=1000000")
    assert keep_freed_memory()
    assert library.told == [*others, *others]


def test_it_can_be_switched_off(library, monkeypatch):
    monkeypatch.setenv("TINYCOMPRESS_MALLOC", "0")
    assert not keep_freed_memory()
    assert library.told == []


def test_a_library_that_refuses_is_not_claimed_to_have_agreed(library):
    library.answer = 0
    assert not keep_freed_memory()


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_without_a_c_library_to_ask_nothing_is_done(error, first_call, monkeypatch):
    def refuse(name):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", refuse)
    assert keep_freed_memory() is False


def test_another_c_library_is_left_alone(first_call, monkeypatch):
    other = Library()  # has mallopt, but not glibc's version
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: other)
    assert keep_freed_memory() is False
    assert other.told == []
