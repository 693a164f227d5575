"""Taps: what layers in the middle of a model give out, by their names, without changing its code.

    with Taps(model, ["conv2", "block1.relu"]) as taps:
        outputs = model(images)
    taps["conv2"]  # a tensor; gradients flow through it

A tap is a forward hook, set at the door and taken away at the exit. Neighbours that would be fused
are not while one of them is tapped (``nn/fusion.py``), so its output exists. A model may run on
several threads at once (``train/workers.py``); each has taps of its own, which hear only what the
thread that opened them computes.

A layer in training for quantization gives out codes; a tap gives the numbers they stand for, with
their derivative. (A ReLU that was taken into the layer before it has then been applied.)
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Self

from tinycompress.compress.quantize.qtensor import QTensor
from tinycompress.nn import Module
from tinycompress.tensor import Tensor


class Taps:
    """The outputs of the layers ``names`` of ``model`` in one forward pass.

    Args:
        model: any module.
        names: dotted names, as in ``named_modules()``; names that come twice count once.

    Raises:
        ValueError: a layer that is not there; inside, one that ran twice (its output would not be
            one); on reading, one that has not run, or gave out something else than a tensor.
    """

    def __init__(self, model: Module, names: Iterable[str]) -> None:
        self.layers = {name: tapped_layer(model, name) for name in dict.fromkeys(names)}
        self._seen: dict[str, Any] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._seen, self._thread = {}, threading.get_ident()
        for name, layer in self.layers.items():
            self._closing.enter_context(layer.register_forward_hook(self._listener(name)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._seen:
            raise ValueError(f"the tapped layer {name!r} did not run; tap one that does")
        output = self._seen[name]
        if isinstance(output, QTensor):
            return output.dequantize()
        if not isinstance(output, Tensor):
            raise ValueError(
                f"the tapped layer {name!r} gives out a {type(output).__name__}, not one tensor"
            )
        return output

    def _listener(self, name: str) -> Any:
        def listen(module: Module, inputs: tuple[Any, ...], output: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            if name in self._seen:
                raise ValueError(
                    f"the tapped layer {name!r} ran twice in one pass; tap one that runs once"
                )
            self._seen[name] = output

        return listen


def tapped_layer(model: Module, name: str) -> Module:
    """The layer of this name, or a ``ValueError`` that lists the names there are."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"no output to tap in {type(model).__name__}: {error}") from None
