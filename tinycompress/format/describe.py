"""The architecture as a JSON value, and back: names of classes and their arguments, no code.

A module is described by ``[name, arguments, layers]``, from whose end what is empty is left out;
``[name]`` is ``name``. Examples::

    "lenet-5"                                                    a model of tinycompress.models
    ["tiny-cnn", {"width": 6}]                                   … with an argument
    ["lenet-5", {}, {"fc1": ["QuantizedLinear",                  … in which a layer was replaced
                             {"quantization": {"bits": 4}}]}]
    ["Sequential", {}, ["Flatten", ["Linear", {"in_features": 784, "out_features": 10}]]]

*Layers* of a ``Sequential`` or ``ModuleList`` are all that it has; a list names them "0", "1", ….
For any other module they are, by dotted name, those that differ from what its constructor makes.
*Arguments* leave out what can be known: an argument that is missing is that of the replaced layer
(of the same name in its config), or else the constructor's default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinycompress import nn
from tinycompress.format.construct import arguments_of, build, construct, inherited_arguments
from tinycompress.format.registry import CONTAINERS, name_of
from tinycompress.format.values import write_value


def describe(model: nn.Module) -> Any:
    """The description of ``model``.

    Raises:
        TypeError: a class in it is not registered, or its ``config()`` does not say all that its
            constructor needs; the message names it.
    """
    description = _describe(model, None)
    problem = next(_differences(build(description), model), None)
    if problem:
        raise TypeError(f"this model cannot be saved: {problem}")
    return description


def _describe(module: nn.Module, replaced: nn.Module | None) -> Any:
    name = name_of(module)
    if type(module) in CONTAINERS:
        children = {n: _describe(m, None) for n, m in module.named_children()}
        numbered = list(children) == [str(i) for i in range(len(children))]
        return _node(name, {}, list(children.values()) if numbered else children)
    arguments = _shortest_arguments(name, config_of(module), replaced)
    fresh = construct(name, arguments, replaced)
    return _node(name, arguments, dict(_replaced_layers(fresh, module)))


def _node(name: str, arguments: dict[str, Any], layers: list[Any] | dict[str, Any]) -> Any:
    if layers:
        return [name, arguments, layers]
    return [name, arguments] if arguments else name


def _replaced_layers(fresh: nn.Module, module: nn.Module, dot: str = "") -> Iterator[Any]:
    """(dotted name, description) of the layers in which ``module`` differs from ``fresh``."""
    made = dict(fresh.named_children())
    for name, child in module.named_children():
        old = made.get(name)
        if old is None or _is_other(old, child):
            yield dot + name, _describe(child, old)
        else:
            yield from _replaced_layers(old, child, f"{dot}{name}.")


def _is_other(old: nn.Module, new: nn.Module) -> bool:
    if type(old) is not type(new) or config_of(old) != config_of(new):
        return True
    grown = [n for n, _ in old.named_children()] != [n for n, _ in new.named_children()]
    return type(new) in CONTAINERS and grown


def _shortest_arguments(
    name: str, config: dict[str, Any], replaced: nn.Module | None
) -> dict[str, Any]:
    """The arguments without those that :func:`construct` would find by itself."""
    inherited = inherited_arguments(name, replaced)
    needed = {
        key: config[key]
        for key, has_default in arguments_of(name).items()
        if key in config and not has_default and not _same(config[key], inherited.get(key))
    }
    try:
        guess = config_of(construct(name, needed, replaced))
        short = needed | _difference(config, guess)
        if _same(config_of(construct(name, short, replaced)), config):
            return {key: short[key] for key in config if key in short}
    except ValueError:  # the constructor cannot do without the others
        return config
    return config


def _difference(config: Mapping[str, Any], guess: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``config`` is not in ``guess``; of mappings in it, likewise a part."""
    changes = {}
    for key, value in config.items():
        if key not in guess or not _same(value, guess[key]):
            partial = isinstance(value, dict) and isinstance(guess.get(key), dict)
            changes[key] = _difference(value, guess[key]) if partial else value
    return changes


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1, 1.0 and True are three different values."""
    return write_value(a) == write_value(b)


def config_of(module: nn.Module) -> dict[str, Any]:
    """What ``module.config()`` gives, with tuples as lists.

    Raises:
        TypeError: something in it is no JSON value.
    """
    try:
        config = _plain(module.config())
        write_value(config)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{type(module).__name__}.config() cannot be saved: {error}") from error
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _differences(built: nn.Module, module: nn.Module, name: str = "") -> Iterator[str]:
    """What the description did not say."""
    where = f"{name} ({type(module).__name__})" if name else type(module).__name__
    if type(built) is not type(module) or config_of(built) != config_of(module):
        yield f"{where}: its config() does not say what its constructor was given"
    for table in ("_parameters", "_buffers", "_modules"):
        want = [key for key, value in vars(module)[table].items() if value is not None]
        have = [key for key, value in vars(built)[table].items() if value is not None]
        if want != have:
            yield f"{where} has {table[1:]} {want}; its constructor makes {have} of its config()"
    dot = f"{name}." if name else ""
    for (key, a), (_, b) in zip(built.named_children(), module.named_children(), strict=False):
        yield from _differences(a, b, dot + key)
