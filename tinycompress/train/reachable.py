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
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinycompress.nn import Module, Parameter
from tinycompress.tensor import Tensor

PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None)})
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
        self._kept: dict[int, Any] = {}
        stack, kept, sign = [root], self._kept, self.signature.append
        while stack:
            item = stack.pop()
            kind: Any = type(item)
            if kind in PLAIN:
                sign(item)
                continue
            key = id(item)
            sign(key)
            if key not in kept:
                kept[key] = item
                if isinstance(item, Module):
                    self.modules.append(item)
                stack.extend(_look_into(kind)(item))


Look = Callable[[Any], Iterable[Any]]


def _into_module(item: Module) -> Iterable[Any]:
    own = [value for name, value in item.__dict__.items() if name not in SHARED]
    kind: Any = type(item)
    return [*own, *item._buffers, *_closing_methods(kind)]


def _into_function(item: FunctionType) -> Iterable[Any]:
    return [*(_content(cell) for cell in item.__closure__ or ()), *(item.__defaults__ or ())]


def _into_object(item: Any) -> Iterable[Any]:
    kind: Any = type(item)
    slots = (getattr(item, name, None) for name in _slots(kind))
    return [*getattr(item, "__dict__", {}).values(), *slots, *_closing_methods(kind)]


LOOKS: list[tuple[Any, Look]] = [  # the first kind that fits
    (Module, _into_module),
    (Parameter, lambda item: (item.requires_grad,)),
    (dict, lambda item: [*item, *item.values()]),
    ((list, tuple, set, frozenset), lambda item: item),
    (
        (Tensor, np.ndarray, ModuleType, BuiltinFunctionType, type, np.random.Generator),
        lambda _: (),
    ),
    (FunctionType, _into_function),
    (MethodType, lambda item: (item.__self__, item.__func__)),
    (functools.partial, lambda item: (item.func, item.args, item.keywords)),
    (object, _into_object),
]


@functools.lru_cache(maxsize=1000)
def _look_into(kind: type) -> Look:
    """How to find what an object of this kind is made of."""
    return next(look for kinds, look in LOOKS if issubclass(kind, kinds))


@functools.lru_cache(maxsize=1000)
def _slots(kind: type) -> tuple[str, ...]:
    """Attributes that are kept outside of ``__dict__``."""
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for slots in found for name in ([slots] if isinstance(slots, str) else slots)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


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
