"""The classes that a file can name. A file holds no code: what it names must be known here.

Known are the models of ``tinycompress.models``, the layers of ``nn``, the quantized, the integer
and the shared layers, and what :func:`register` was told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tinycompress import models, nn
from tinycompress.compress.quantize import integer
from tinycompress.compress.quantize.dynamic import DynamicConv2d, DynamicLinear
from tinycompress.compress.quantize.layers import QuantizedConv2d, QuantizedLinear
from tinycompress.compress.quantize.qat.layers import Switched
from tinycompress.compress.share import SharedConv2d, SharedLinear
from tinycompress.nn.compiled import Compiled

Kind = TypeVar("Kind", bound=type[nn.Module])
Constructor = Callable[..., nn.Module]

CONTAINERS = (nn.Sequential, nn.ModuleList)
FLOATS_OUTSIDE = (
    *(QuantizedLinear, QuantizedConv2d, DynamicLinear, DynamicConv2d),
    *(SharedLinear, SharedConv2d),
)
BASES = (nn.Module, integer.IntegerModule, integer.IntegerLayer)
LAYERS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (*vars(nn).values(), *FLOATS_OUTSIDE, *vars(integer).values())
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind not in BASES
}

_registered: dict[str, type[nn.Module]] = {}


def register(cls: Kind, name: str | None = None) -> Kind:
    """Let files name a class of yours; call it before ``save`` and before ``load``.

    It can stand above the class as a decorator. The class must be built by
    ``cls(**module.config())``, so ``config()`` has to give the constructor's arguments as JSON
    values. The constructor then makes the layers; those that were replaced later are in the file.

    Args:
        cls: a subclass of ``nn.Module``.
        name: how files call it (None: the class's own name). Keep it when you rename the class.

    Returns:
        ``cls``.

    Raises:
        TypeError: ``cls`` is no subclass of ``nn.Module``.
        ValueError: the name is taken by another class.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"register takes a subclass of nn.Module, got {cls!r}")
    name = name or cls.__name__
    taken = LAYERS.get(name) or _registered.get(name)
    if name in models.names() or (taken is not None and not _is_same_class(taken, cls)):
        raise ValueError(
            f"the name {name!r} belongs to {taken or 'a model'}; choose another: "
            f'register({cls.__name__}, name="…")'
        )
    _registered[name] = cls
    return cls


def _is_same_class(a: type, b: type) -> bool:
    """Also when its module, or a notebook's cell, was run again."""
    return (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)


def name_of(module: nn.Module) -> str:
    """The name under which a file has the class of ``module``.

    Raises:
        TypeError: it has none.
    """
    if isinstance(module, Compiled):
        raise TypeError(
            "a compiled model is not saved: save the model that it was made from, and tc.compile "
            "what load gives back"
        )
    if isinstance(module, Switched):
        raise TypeError(
            "a prepared model is not saved: save what tc.convert makes of it; a run that is to go "
            "on keeps itself, with fit(…, checkpoint=…)"
        )
    kind = type(module)
    known = models.name_of(module)
    if known is not None:
        return known
    for table in (LAYERS, _registered):
        for name, candidate in table.items():
            if candidate is kind:
                return name
    raise TypeError(
        f"a file cannot name {kind.__name__}: give it a config() with its constructor's arguments, "
        f"and call tinycompress.register({kind.__name__}) before save and before load"
    )


def constructor(name: str) -> Constructor | None:
    """What builds a module of the class that a file calls ``name``; None where it is unknown."""
    if name in models.names():
        return lambda **config: models.create(name, **config)
    return LAYERS.get(name) or _registered.get(name)


def makes_skeletons(name: str) -> bool:
    """Whether the class can be built without memory; a user's constructor may write to arrays."""
    return name in LAYERS or name in models.names()
