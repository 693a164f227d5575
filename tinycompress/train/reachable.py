"""What a piece of work can reach: its modules, and everything that must not change unnoticed.

A forked worker has a copy of the work as it was: the objective, the model's layers, its settings.
The numbers of the modules are shared (``shared_state.py``); of everything else a *signature* is
taken before each use, and where it differs from the signature at the fork, the workers are forked
anew. So a callback may freeze a layer, put another in its place, or change a temperature, and the
next step sees it.

The signature holds plain values by value and other objects by identity, and looks into modules,
containers, attributes and what a function has closed over. It does not look into arrays that are
neither parameters nor buffers: change those by putting another array in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinycompress.backend import is_array
from tinycompress.nn import Module, Parameter
from tinycompress.tensor import Tensor

PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None)})
CLOSED = (Tensor, ModuleType, BuiltinFunctionType, type, np.random.Generator)
SHARED = frozenset(
    {"training", "_buffers"}
)  # of a module: seen by the workers, see shared_state.py


class Reached:
    """What was reached from ``root``.

    Attributes:
        modules: every module, in an order that depends on the structure alone.
        signature: equal for equal structures. The objects behind the identities in it are kept
            alive, so that no new one can take their place.
    """

    def __init__(self, root: Any) -> None:
        self.modules: list[Module] = []
        self.signature: list[Any] = []
        self._kept: list[Any] = []
        seen: set[int] = set()
        stack = [root]
        while stack:
            item = stack.pop()
            if type(item) in PLAIN:
                self.signature.append(item)
                continue
            key = id(item)
            self.signature.append(key)
            if key not in seen:
                seen.add(key)
                self._kept.append(item)
                if isinstance(item, Module):
                    self.modules.append(item)
                stack.extend(_inside(item))


def _inside(item: Any) -> Iterable[Any]:
    """What ``item`` is made of."""
    if isinstance(item, Module):
        own = [value for name, value in item.__dict__.items() if name not in SHARED]
        return [*own, *item._buffers, *_closing_methods(type(item))]
    if isinstance(item, Parameter):
        return (item.requires_grad,)
    if isinstance(item, dict):
        return [*item, *item.values()]
    if isinstance(item, list | tuple | set | frozenset):
        return item
    if isinstance(item, CLOSED) or is_array(item):
        return ()
    if isinstance(item, FunctionType):
        cells = item.__closure__ or ()
        return [*(_content(c) for c in cells), *(item.__defaults__ or ())]
    if isinstance(item, MethodType):
        return (item.__self__, item.__func__)
    if isinstance(item, functools.partial):
        return (item.func, item.args, item.keywords)
    return [*getattr(item, "__dict__", {}).values(), *_closing_methods(type(item))]


@functools.lru_cache(maxsize=1000)
def _closing_methods(kind: type) -> tuple[FunctionType, ...]:
    """Methods that have closed over something, as those of a class inside a function may."""
    attributes = (value for base in kind.__mro__ for value in vars(base).values())
    return tuple(f for f in attributes if isinstance(f, FunctionType) and f.__closure__)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None
