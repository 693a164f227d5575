"""What a module does when an attribute is assigned: it remembers parameters and layers, in order.

``self.conv1 = Conv2d(…)`` is all that a user writes. The attribute lands in one of three tables
(parameters, buffers, modules), from which everything else (``parameters()``, ``state_dict()``,
``to()``) is read. Assigning again keeps the place in the order; None empties it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinycompress.backend import Array, is_array
from tinycompress.nn.parameter import Parameter

TABLES = ("_parameters", "_buffers", "_modules")

WANTED = {
    "_parameters": "a parameter; assign nn.Parameter(array)",
    "_buffers": "a buffer; assign an array (of a tensor: its .data)",
    "_modules": "a module; assign another module",
}


class Registered:
    """The part of :class:`tinycompress.nn.Module` that keeps its attributes."""

    def __init__(self) -> None:
        # Through __dict__, because __setattr__ below already looks into these.
        self.__dict__.update(_parameters={}, _buffers={}, _modules={})

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_initialised(name)
        if isinstance(value, Parameter):
            return self._register("_parameters", name, value)
        if isinstance(value, Registered):
            return self._register("_modules", name, value)
        table = next((t for t in TABLES if name in self.__dict__[t]), None)
        if table is None:
            _refuse_layers_in_lists(f"{type(self).__name__}.{name}", value)
            return super().__setattr__(name, value)
        if table == "_buffers" and isinstance(value, np.generic):
            value = np.asarray(value)  # arithmetic on arrays of shape () gives scalars
        if value is not None and not (table == "_buffers" and is_array(value)):
            raise TypeError(
                f"{type(self).__name__}.{name} is {WANTED[table]} or None, "
                f"not a {type(value).__name__}"
            )
        self.__dict__[table][name] = value

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in TABLES:
            held = own.get(table)
            if held is not None and name in held:
                return held[name]
        why = "" if "_parameters" in own else ": its __init__ must call super().__init__()"
        message = f"{type(self).__name__} has no attribute {name!r}{why}"
        raise AttributeError(message, name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        for table in TABLES:
            if name in self.__dict__.get(table, ()):
                del self.__dict__[table][name]
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        registered = [name for table in TABLES for name in self.__dict__.get(table, ())]
        return [*super().__dir__(), *registered]

    def register_buffer(self, name: str, array: Array | None) -> None:
        """Register an array as state: saved, moved between devices, not trained."""
        if array is not None and not is_array(array):
            raise TypeError(f"buffer {name!r} must be an array, got {type(array).__name__}")
        self._check_initialised(name)
        if name in self._parameters or name in self._modules:
            raise AttributeError(
                f"{type(self).__name__}.{name} is a parameter or module; delete it before a buffer "
                "takes its name"
            )
        self._register("_buffers", name, array)

    def _register(self, table: str, name: str, value: Any) -> None:
        """Enter ``value`` under ``name``, which then means nothing else any more."""
        if not name or "." in name:
            raise ValueError(f"a layer or parameter needs a name without dots, got {name!r}")
        if hasattr(type(self), name):
            raise AttributeError(
                f"{name!r} is an attribute of the class {type(self).__name__} and would hide the "
                f"{type(value).__name__}; choose another name"
            )
        if isinstance(value, Registered):
            if _contains(value, self):
                raise ValueError(f"{type(self).__name__}.{name}: a module cannot contain itself")
            value.__dict__["_name"] = name
        for other in TABLES:
            if other != table:
                self.__dict__[other].pop(name, None)
        self.__dict__.pop(name, None)
        self.__dict__[table][name] = value

    def _check_initialised(self, name: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}.__init__ must call super().__init__() before it assigns "
                f"self.{name}"
            )


def _contains(module: Registered, wanted: Registered) -> bool:
    if module is wanted:
        return True
    return any(_contains(m, wanted) for m in module._modules.values() if m is not None)


def _refuse_layers_in_lists(where: str, value: Any) -> None:
    """A plain list would hide its layers from ``parameters()``: they would never be trained."""
    held = tuple(value.values()) if isinstance(value, dict) else value
    if isinstance(held, list | tuple) and any(isinstance(v, Parameter | Registered) for v in held):
        raise TypeError(
            f"{where}: layers and parameters in a {type(value).__name__} are not registered; "
            "use nn.ModuleList(layers), or one attribute for each"
        )
