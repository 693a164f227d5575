"""Reading the argument ``parameters`` of optimizers and of gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinycompress.nn import Parameter


def parameter_list(
    parameters: Any, label: str = "parameters", taken: Sequence[Any] = ()
) -> list[Parameter]:
    """``parameters`` as a list of ``nn.Parameter``, each once.

    Args:
        parameters: an iterable of parameters, or one parameter.
        label: what to call them in errors.
        taken: parameters that must not come again.

    Raises:
        TypeError: something among them is no parameter.
        ValueError: there are none, or one comes twice.
    """
    items = as_list(parameters, label)
    seen = {id(p) for p in taken}
    for position, item in enumerate(items):
        if not isinstance(item, Parameter):
            raise TypeError(
                f"{label}: item {position} is a {type(item).__name__}, not an nn.Parameter; "
                "pass model.parameters()"
            )
        if id(item) in seen:
            raise ValueError(
                f"{label}: item {position} (shape {item.data.shape}) is there already; it would "
                "be updated twice in each step. List a shared parameter once"
            )
        seen.add(id(item))
    return items


def as_list(parameters: Any, label: str = "parameters") -> list[Any]:
    """The items of ``parameters``, at least one of them; a single parameter is a list of one."""
    if isinstance(parameters, Parameter):
        return [parameters]
    if not isinstance(parameters, Iterable):
        raise TypeError(
            f"{label} must be an iterable of nn.Parameter such as model.parameters(), "
            f"got {type(parameters).__name__}"
        )
    items = list(parameters)
    if not items:
        raise ValueError(
            f"{label}: there is none. A model without parameters, or a generator that was used up?"
        )
    return items
