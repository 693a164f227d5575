"""``tc.compile``: a copy of a model that can only be run, and whose plans are made once.

An ordinary Sequential plans its chains in each forward pass (``fusion.py``), because its layers may
change at any time. A compiled model promises that they do not, so everything that depends on them
alone is done in advance: the plan, batch norm folded into weights, the weights laid out in the
order in which the product reads them. What depends on the input's shape is checked at the first
input of a shape. That matters for a single image, where Python's own work is most of the time.

Only what a Sequential holds is planned. Every other module of the model, such as a residual block
with a ``forward`` of its own, runs as it is, with the Sequentials inside it planned.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NoReturn, Self

import numpy as np

from tinycompress.allocator import keep_freed_memory
from tinycompress.backend import Array, array_module, on_device
from tinycompress.graph import no_grad
from tinycompress.nn.containers import Sequential
from tinycompress.nn.fusion import Chain, Head, chains, fusion_enabled, part_of
from tinycompress.nn.module import Module
from tinycompress.tensor import Tensor


def compile(model: Module) -> Compiled:
    """A copy of ``model`` for inference: the same outputs up to rounding, sooner.

    Args:
        model: any module, on any device; it stays as it is. Pruned and quantized layers too.

    Returns:
        A module that takes arrays or tensors, in evaluation mode, and records nothing. It is a
        snapshot: train, convert, move and save ``model``, and compile that again.

    Raises:
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, Module):
        raise TypeError(f"compile: expected a Module, got {type(model).__name__}")
    keep_freed_memory()
    return Compiled(model.copy().eval().requires_grad_(False))


class Compiled(Module):
    """What :func:`compile` returns.

    Attributes:
        model: the copy, layer by layer, to look at and to put hooks on; it is not to be changed.
            Its weights lie in another order in memory, and its Sequentials have a ``forward`` that
            is planned.
    """

    def __init__(self, model: Module) -> None:
        super().__init__()
        self.model = model
        self.training = False
        for module in model.modules():
            part = part_of(module)
            if isinstance(part, Head):
                part.weight.data = laid_out(part.weight.data)
            if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
                module.__dict__["forward"] = Planned(module)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        if self.training:  # a model around it was set to train
            self.eval()
        with no_grad():
            return self.model(*inputs, **options)

    def train(self, mode: bool = True) -> Self:
        if mode is True:
            raise RuntimeError(f"a compiled model cannot be trained: {_INSTEAD}")
        return super().train(mode)

    def state_dict(self) -> NoReturn:
        raise TypeError(f"a compiled model has no state of its own to save: {_INSTEAD}")

    def load_state_dict(self, state: Any, strict: bool = True) -> NoReturn:
        raise TypeError(f"a compiled model takes no other state: {_INSTEAD}")

    def _convert(self, change: Any) -> NoReturn:
        raise RuntimeError(f"a compiled model keeps its device and dtype: {_INSTEAD}")


_INSTEAD = "do it with the model that it was made from, and compile that again"


class Planned:
    """The ``forward`` of a Sequential whose layers do not change any more."""

    def __init__(self, container: Sequential) -> None:
        self.container = container

    @cached_property
    def pieces(self) -> list[Module | Prepared]:
        """Made at the first call. A copy belongs to a copy of the Sequential and makes its own."""
        pieces = chains(self.container.children())
        return [piece if isinstance(piece, Module) else Prepared(piece) for piece in pieces]

    def __call__(self, x: Any) -> Any:
        if not fusion_enabled() or any(module._hooks for module in self.container.children()):
            return Sequential.forward(self.container, x)
        for piece in self.pieces:
            x = piece(x)
        return x

    def __reduce__(self) -> Any:
        return Planned, (self.container,)


class Prepared:
    """A chain with the weights that it runs with, which calls the operation on arrays directly.

    The first input of a shape goes through the checks of ``functional/``.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.weights = chain, chain.weights()
        self.arrays = [t if t is None else t.data for t in self.weights or ()]
        self.checked: set[Any] = set()  # (shape, dtype) of inputs that were found to be right

    def __call__(self, x: Any) -> Any:
        data = x.data if isinstance(x, Tensor) else x
        if not isinstance(data, np.ndarray) or (data.shape, data.dtype) not in self.checked:
            return self.with_checks(x)
        head, steps = self.chain.head, self.chain.steps
        with np.errstate(all="ignore"):
            y, _ = head.op(data, *self.arrays, steps=steps, keep=False, **head.options)
        return Tensor(y)

    def with_checks(self, x: Any) -> Any:
        if self.weights is None or not self.chain.folds(x):
            return self.chain.one_by_one(x)
        y = self.chain.run(x, *self.weights)
        if getattr(x, "dtype", None) == y.dtype:
            self.checked.add((x.shape, x.dtype))
        return y


def laid_out(weight: Array) -> Array:
    """The same weight (O, C, ...) in memory as (..., C, O), in which products read it.

    ``linear`` multiplies by ``wᵀ``, a convolution by one matrix (kw·C, O) per kernel row.
    """
    order = (*range(2, weight.ndim), 1, 0)
    back = tuple(order.index(axis) for axis in range(weight.ndim))
    with on_device(weight):
        return array_module(weight).ascontiguousarray(weight.transpose(order)).transpose(back)
