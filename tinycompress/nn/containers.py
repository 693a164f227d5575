"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tinycompress.nn.fusion import pieces
from tinycompress.nn.module import Module


class Sequential(Module):
    """Modules one behind the other.

    ``Sequential(a, b)`` names them "0", "1"; ``Sequential({"conv1": a, "relu1": b})`` names them
    itself, in the order of the mapping. Neighbours that can be fused run as one operation (see
    ``fusion.py``); what comes out is the same.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(i), m) for i, m in enumerate(modules))
        for name, module in named:
            _check_module("Sequential", name, module)
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        for piece in pieces(self.children()):
            x = piece(x)
        return x

    def __getitem__(self, index: int | slice) -> Module:
        """The module at this place; for a slice, a Sequential of the same modules and names."""
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return list(self.children())[index]

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class ModuleList(Module):
    """Modules in a list, registered; its owner decides how they are called."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        name = str(len(self._modules))
        _check_module("ModuleList", name, module)
        setattr(self, name, module)
        return self

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()


def _check_module(owner: str, name: str, module: Any) -> None:
    if isinstance(module, Module):
        return
    hint = ""
    if isinstance(module, type):
        hint = f"; write {module.__name__}()"
    elif owner == "Sequential" and isinstance(module, list | tuple):
        hint = "; write Sequential(*layers)"
    raise TypeError(f"{owner}: {name!r} must be a Module, got {type(module).__name__}{hint}")
