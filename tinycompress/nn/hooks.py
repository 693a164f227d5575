"""Forward hooks: functions that see, and may replace, what a module gives out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Self

Hook = Callable[[Any, tuple[Any, ...], Any], Any]  # (module, inputs, output) -> new output or None

_numbers = count()


class RemovableHook:
    """What ``register_forward_hook`` returns: ``.remove()``, or use it as a context."""

    def __init__(self, hooks: dict[int, Hook], hook: Hook) -> None:
        self._hooks, self._number = hooks, next(_numbers)
        hooks[self._number] = hook

    def remove(self) -> None:
        self._hooks.pop(self._number, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
