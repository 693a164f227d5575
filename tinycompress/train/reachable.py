"""What a piece of work can reach: its modules, and everything that must not change unnoticed.

A forked worker has a copy of the work as it was: the objective, the model's layers, its settings.
The numbers of the modules are shared (``shared_state.py``); of everything else a *signature* is
taken before each use, and where it differs from the signature at the fork, the workers are forked
anew. So a callback may freeze a layer, put another in its place, or change a temperature, and the
next step sees it.

The signature holds plain values by value and other objects by identity, and looks into modules,
containers, attributes, what a function has closed over, and the global names that it uses. Among
the globals only numbers, containers and modules count, with functions and objects of the function's
own package: the state of other libraries would be without end. It does not look into arrays that
are neither parameters nor buffers: change those by putting another array in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinycompress.nn import Module, Parameter
from tinycompress.tensor import Tensor

PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None)})
SHARED = frozenset({"training", "_buffers"})
"""Attributes of a module that workers see as they are now, by ``shared_state.py``."""


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
    return [*own, *item._buffers, *_methods(kind)]


def _into_function(item: FunctionType) -> Iterable[Any]:
    closed_over = (_content(cell) for cell in item.__closure__ or ())
    defaults = *(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values()
    return [*closed_over, *defaults, *item.__dict__.values(), *_globals(item)]


def _into_object(item: Any) -> Iterable[Any]:
    kind: Any = type(item)
    slots = (getattr(item, name, None) for name in _slots(kind))
    return [*getattr(item, "__dict__", {}).values(), *slots, *_methods(kind)]


LOOKS: list[tuple[Any, Look]] = [  # (kinds, what is inside); the first kind that fits counts
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
def _methods(kind: type) -> tuple[FunctionType, ...]:
    """Methods that have closed over something, as those of a class inside a function may, or that
    use globals.
    """
    attributes = (value for base in kind.__mro__ for value in vars(base).values())
    functions = [f for f in attributes if isinstance(f, FunctionType)]
    return tuple(f for f in functions if f.__closure__ or (not _ours(f) and _names(f.__code__)))


def _globals(function: FunctionType) -> list[Any]:
    """The global values that count, of those that ``function`` uses now."""
    if _ours(function):
        return []
    values, home = function.__globals__, _package(function.__module__)
    found = [values[name] for name in _names(function.__code__) if name in values]
    return [value for value in found if _counts(value, home)]


@functools.lru_cache(maxsize=1000)
def _names(code: CodeType) -> tuple[str, ...]:
    """The names that are neither local nor closed over, here and in what is defined inside."""
    inside = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return tuple(dict.fromkeys((*code.co_names, *(name for names in inside for name in names))))


def _counts(value: Any, home: str) -> bool:
    """Whether a global value belongs to the signature of a function of the package ``home``."""
    if type(value) in PLAIN or isinstance(value, Module | Parameter | dict | list | tuple | set):
        return True
    if isinstance(value, ModuleType | type):
        return False
    named = value if isinstance(value, FunctionType) else type(value)
    return _package(named.__module__) == home


def _ours(function: FunctionType) -> bool:
    """Whether it is one of this library's, which keep no state in globals."""
    return _package(function.__module__) == _package(__name__)


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None
