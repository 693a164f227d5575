"""What happens when a function of CuPy's namespace is called: check, compute, wrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from strict_cupy import counters, devices, rules
from strict_cupy.array import fresh, ndarray, view


def run(
    name: str,
    function: Callable[..., Any],
    args: tuple,
    kwargs: dict,
    *,
    keeps_order: bool = False,
    in_place: bool = False,
) -> Any:
    """One call.

    Args:
        keeps_order: the result's order in memory follows the argument's (``zeros_like``);
            everything else that CuPy computes comes out in C order, whatever went in.
        in_place: the first argument is changed and nothing is returned (``put``).
    """
    rules.refuse_numpy([*args, *kwargs.values()])
    operands = list(arrays_in([*args, *kwargs.values()]))
    out = kwargs.get("out")
    if in_place or out is not None:
        devices.check_current(*(x._device for x in operands))
    rules.refuse_narrow_integer_product(name, [x._array for x in operands])
    # A GPU computes log(0) and 0/0 without a word, so no floating-point warnings.
    with np.errstate(all="ignore"):
        result = rules.in_range(lambda: function(*unwrap(args), **unwrap(kwargs)))
    if in_place or out is not None:
        counters.launch()
        return None if in_place else out
    return wrap(result, operands, keeps_order)


def arrays_in(value: Any) -> Iterator[ndarray]:
    """Every CuPy array in an argument, those in lists and tuples included."""
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_in(item)


def unwrap(value: Any) -> Any:
    """The NumPy arrays inside, in lists, tuples and dictionaries too."""
    if isinstance(value, ndarray):
        return value._array
    if type(value) in (list, tuple):
        return type(value)(unwrap(item) for item in value)
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    return value


def wrap(result: Any, operands: list[ndarray], keeps_order: bool = False) -> Any:
    """CuPy's form of a NumPy result: 0-d arrays, views as views, everything else in C order."""
    if isinstance(result, np.ndarray):
        for operand in operands:
            if np.may_share_memory(result, operand._array):
                return view(result, operand._device)
        for operand in operands:
            devices.check_current(operand._device)
        return fresh(result if keeps_order else np.asarray(result, order="C"))
    if isinstance(result, np.generic):
        return wrap(np.asarray(result), operands)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(wrap(item, operands, keeps_order) for item in result))
    if isinstance(result, list | tuple):
        return type(result)(wrap(item, operands, keeps_order) for item in result)
    return result
