"""How much goes, of which layers: sparsities, floors, and names or patterns of layers.

An argument that may differ from layer to layer is one value for all, or a mapping from names, or
patterns (``fnmatch``: ``"features.*"``), to values. A layer's own name counts before any pattern,
and of patterns the first that fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, TypeVar

SCOPES = ("global", "local")

Value = TypeVar("Value")


def matching(
    argument: str,
    patterns: str | Iterable[str],
    layers: Iterable[str],
    kind: str = "prunable layer",
) -> list[str]:
    """The layers, in their order, that one of these names or patterns fits.

    Raises:
        ValueError: a name or pattern that fits none: most likely a mistake.
        TypeError: neither a string nor several.
    """
    names = list(layers)
    given = as_patterns(argument, patterns)
    wanted = [given] if isinstance(given, str) else list(given)
    unknown = [p for p in wanted if not any(_fits(p, name) for name in names)]
    if unknown:
        raise ValueError(
            f"{argument}: there is no {kind} {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(map(repr, names))}"
        )
    return [name for name in names if any(_fits(p, name) for p in wanted)]


def as_patterns(argument: str, given: str | Iterable[str]) -> str | tuple[str, ...]:
    """A name or pattern as it is, or several as a tuple, which can be read more than once."""
    if isinstance(given, str):
        return given
    if not isinstance(given, Iterable):
        raise TypeError(f"{argument} must be a name or pattern, or several of them, got {given!r}")
    return tuple(given)


def by_layer(
    argument: str,
    given: Mapping[str, Value],
    layers: Iterable[str],
    kind: str = "prunable layer",
) -> dict[str, Value]:
    """Layer → its value, in the order of the layers, for those that ``given`` speaks of.

    Raises:
        ValueError: a name or pattern that fits no layer.
    """
    names = list(layers)
    found = {}
    for name in matching(argument, given, names, kind):
        pattern = name if name in given else next(p for p in given if _fits(p, name))
        found[name] = given[pattern]
    return found


def _fits(pattern: Any, name: str) -> bool:
    return pattern == name or (isinstance(pattern, str) and fnmatchcase(name, pattern))


def check_sparsity(what: str, value: Any, share: str = "weights to become zero") -> None:
    """Raise unless ``value`` is a number of [0, 1)."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not 0 <= float(value) < 1:
        raise ValueError(
            f"{what} must be at least 0 and below 1, the share of {share}, got {value!r}"
        )


def check_sparsities(given: Any) -> None:
    """Raise unless ``given`` is a number of [0, 1), or a mapping from layers to such numbers."""
    if not isinstance(given, Mapping):
        check_sparsity("sparsity", given)
        return
    if not given:
        raise ValueError('sparsity names no layer; give a number, or {"fc1": 0.9, …}')
    for key, value in given.items():
        check_sparsity(f"sparsity of layer {key!r}", value)


def check_seed(seed: Any) -> None:
    """Raise unless ``seed`` is a whole number from 0 on."""
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise TypeError(f"seed must be a whole number ≥ 0, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be a whole number ≥ 0, got {seed!r}")


def check_scope(scope: str) -> None:
    """Raise unless ``scope`` is one of ``SCOPES``."""
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(map(repr, SCOPES))}, got {scope!r}")


def floors_of(
    keep_at_least: Any,
    sizes: Mapping[str, int],
    *,
    units: str = "weights",
    pruned: Iterable[str] | None = None,
) -> dict[str, int]:
    """Layer → how many of its units stay at least, never fewer than one.

    Args:
        keep_at_least: a whole number of units; a share of each layer's as a float from 0.0 to 1.0,
            rounded up; or a mapping from layers to these, the others keeping at least one.
        sizes: layer → how many units it has.
        units: what they are called in errors.
        pruned: the layers to give the floors of; None for all.

    Raises:
        ValueError: a number out of range, an unknown layer, a layer that has too few units.
        TypeError: no number.
    """
    given = dict.fromkeys(sizes, keep_at_least)
    if isinstance(keep_at_least, Mapping):
        given = dict.fromkeys(sizes, 1) | by_layer("keep_at_least", keep_at_least, sizes)
    names = sizes if pruned is None else pruned
    return {name: max(1, _floor(given[name], name, sizes[name], units)) for name in names}


def _floor(value: Any, name: str, size: int, units: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"keep_at_least must be a whole number of {units}, or a share as a float, got {value!r}"
        )
    if not isinstance(value, Integral):
        share = float(value)
        if not 0 <= share <= 1:
            raise ValueError(
                f"keep_at_least as a float is a share of each layer, from 0.0 to 1.0, got {value!r}"
            )
        return math.ceil(share * size)
    number = int(value)
    if number < 0:
        raise ValueError(f"keep_at_least must not be negative, got {value!r}")
    if number > size:
        raise ValueError(
            f"keep_at_least={number:,} {units}: layer {name!r} has only {size:,}; give a share "
            f"(such as 0.1), a number for each layer, or skip={name!r}"
        )
    return number


def pools(
    sizes: Mapping[str, int], sparsity: float | Mapping[str, float], scope: str
) -> list[tuple[list[str], int]]:
    """Which layers are ranked together, and how many of their units are to go.

    Args:
        sizes: layer → how many units it has.
        sparsity: one share for all, or a share for some layers; the others are left as they are.
        scope: "global", all together, or "local", each layer by itself.

    Raises:
        ValueError: an unknown scope or layer, or a sparsity out of range.
        TypeError: a sparsity that is no number.
    """
    check_scope(scope)
    check_sparsities(sparsity)
    if isinstance(sparsity, Mapping):
        shares = by_layer("sparsity", sparsity, sizes)
        return [([name], round(float(s) * sizes[name])) for name, s in shares.items()]
    if scope == "global":
        return [(list(sizes), round(float(sparsity) * sum(sizes.values())))]
    return [([name], round(float(sparsity) * n)) for name, n in sizes.items()]
