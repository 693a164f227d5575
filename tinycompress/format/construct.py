"""From a description (``describe.py``) to a model: and a hostile one is refused."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tinycompress import nn, random
from tinycompress.format.registry import CONTAINERS, constructor, makes_skeletons
from tinycompress.nn.skeleton import skeletons

MAX_MODULES = 10_000  # in one model: a byte of a file may ask for a layer, which takes kilobytes


def build(description: Any) -> nn.Module:
    """The model of a description, for a reader to fill.

    Layers of this package have shapes but no memory yet (``nn/skeleton.py``), so a description can
    ask for any size without harm. A user's class is built as its constructor builds it.

    Raises:
        ValueError: it makes no sense, or names a class that is not known here; the message says
            which layer.
    """
    return _Builder().build(description, None)


class _Builder:
    """Counts what it builds, and stops at ``MAX_MODULES``."""

    def __init__(self) -> None:
        self.modules = 0

    def build(self, description: Any, replaced: nn.Module | None) -> nn.Module:
        name, arguments, layers = _parts(description)
        module = construct(name, arguments, replaced)
        self.modules += sum(1 for _ in module.modules())
        if self.modules > MAX_MODULES:
            raise ValueError(f"the model has more than {MAX_MODULES:,} layers")
        for path, layer in layers.items():
            parent_path, _, last = path.rpartition(".")
            parent = _layer_at(module, parent_path)
            old = parent._modules.get(last)
            if old is None:
                _check_new_name(parent, last)
            _put(parent, last, self.build(layer, old))
        return module


def _parts(description: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(name, arguments, layers by name) of a description."""
    parts = description if isinstance(description, list) else [description]
    name, arguments, layers = (*parts, {}, {})[:3] if 1 <= len(parts) <= 3 else (None, None, None)
    if isinstance(layers, list):
        layers = {str(i): layer for i, layer in enumerate(layers)}
    if isinstance(name, str) and isinstance(arguments, dict) and isinstance(layers, dict):
        return name, arguments, layers
    raise ValueError(f"{_shown(description)} is no description of a layer")


def _layer_at(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"{type(module).__name__} has no layer {_shown(path)}") from error


def _check_new_name(parent: nn.Module, name: str) -> None:
    """A container takes new layers, but not under the name of something that it needs."""
    if type(parent) not in CONTAINERS:
        raise ValueError(f"{type(parent).__name__} has no layer {_shown(name)}")
    if name in vars(parent):
        raise ValueError(f"{_shown(name)} cannot be the name of a layer")


def _put(parent: nn.Module, name: str, layer: nn.Module) -> None:
    try:
        setattr(parent, name, layer)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{_shown(name)} cannot be the name of a layer: {error}") from error


# ------------------------------------------------------------------------------------ one module


def construct(name: str, arguments: Mapping[str, Any], replaced: nn.Module | None) -> nn.Module:
    """A new module of this class; the default random numbers go on as if it had not been made.

    Args:
        name: of a class (``registry.py``).
        arguments: for its constructor; those that are missing are inherited from ``replaced``.
        replaced: the layer whose place it takes, or None.

    Raises:
        ValueError: the class is not known, or its constructor does not take these arguments.
    """
    make = constructor(name)
    if make is None:
        raise ValueError(
            f"it holds a {_shown(name)}, which is not known here. Import its class and call "
            "tinycompress.register(the class) before load; if the file comes from a newer "
            "tinycompress, update"
        )
    before = random.get_state()
    try:
        with skeletons(makes_skeletons(name)):
            return make(**{**inherited_arguments(name, replaced), **arguments})
    except Exception as error:  # whatever a constructor raises when a file gives it nonsense
        raise ValueError(f"no {name} can be made with {_shown(arguments)}: {error}") from error
    finally:
        random.set_state(before)


def inherited_arguments(name: str, replaced: nn.Module | None) -> dict[str, Any]:
    """What a layer of class ``name`` takes over from the config of the one that it replaces."""
    if replaced is None:
        return {}
    config = replaced.config()
    return {key: config[key] for key in arguments_of(name) if key in config}


def arguments_of(name: str) -> dict[str, bool]:
    """The constructor's named arguments, and whether each has a default."""
    parameters = inspect.signature(constructor(name) or dict).parameters.values()
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return {p.name: p.default is not p.empty for p in named}


def _shown(value: Any) -> str:
    """``value`` for a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
