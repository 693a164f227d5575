"""What an optimizer or a schedule lets through its door: numbers, with errors that name them.

Every function takes the argument's name and its value and returns the value as a plain Python
number. Plain matters: ``float32_array * np.float64(0.1)`` is a float64 array, while a Python
float takes the array's dtype.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def non_negative(name: str, value: Any) -> float:
    """A finite number ≥ 0."""
    number = _number(name, value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a finite number ≥ 0, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number > 0."""
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return number


def unit_interval(name: str, value: Any) -> float:
    """A number of [0, 1]."""
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
    return number


def decay_rate(name: str, value: Any) -> float:
    """A number of [0, 1): the share that a running average keeps; at 1 it would never learn."""
    number = _number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return number


def decay_rates(name: str, value: Any) -> tuple[float, float]:
    """Two numbers of [0, 1)."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair such as (0.9, 0.999), got {value!r}")
    return decay_rate(f"{name}[0]", value[0]), decay_rate(f"{name}[1]", value[1])


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer ≥ ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an integer ≥ {least}, got {value!r}")
    return int(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    """One of ``options``."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return str(value)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)
