"""Fusion: neighbouring layers of a :class:`~tinycompress.nn.Sequential` run as one operation.

A convolution writes its whole output to memory, ReLU reads and writes it again, pooling once more.
Done on one block of images after the other, while that is in the cache, all three cost little more
than the convolution (``ops/steps.py``). So a Sequential runs not layers but *chains*::

    conv1 relu1 pool1 | conv2 norm2 relu2 | flatten | fc1 relu3 | fc2

A chain begins with a :class:`Head`, a layer with weights, and takes what follows it as long as that
is a :class:`~tinycompress.ops.steps.Step` (an activation; one pooling), an :class:`Affine` (batch
norm in evaluation, which is folded into the head's weights) or :class:`Nothing`. Each layer says
itself which of these it is: see :meth:`tinycompress.nn.Module.in_chain`, where a layer of your own
can join. What a chain computes is what its layers compute, up to rounding.

A layer that somebody looks into runs alone: one with a forward hook, one whose ``forward`` was
replaced (on the object, or in a subclass that does not say what it is in a chain), and every layer
under ``detect_anomaly``, which names operations. A pruning mask lives on the parameter and does not
look into the forward pass, so pruned layers are fused.

The plan is made anew in each forward pass. That costs a microsecond or two a layer, and so there is
no cache that hooks, replaced layers or a change of mode could make untrue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, device_of, on_device
from tinycompress.graph import is_anomaly_enabled, is_grad_enabled
from tinycompress.ops.elementwise import Result
from tinycompress.ops.steps import Step
from tinycompress.tensor import Tensor

if TYPE_CHECKING:
    from tinycompress.nn.module import Module

# ------------------------------------------------------------------- what a layer can be in a chain


class Head(NamedTuple):
    """A layer with weights: what a chain begins with.

    Attributes:
        run: ``run(x, weight, bias, steps=steps, **options)``: the layer's function, and the steps.
        op: the same of ``ops/``: on arrays, unchecked, and with ``keep=False`` without derivative.
        weight: (O, C, ...) floats. Output channel o is made with ``weight[o]`` alone, linearly.
        bias: (O), or None.
        options: the function's other arguments.
        axes: of an input for which axis 1 of the output is the O channels: 4 for images, 2 for
            features.
        windows: whether one of the steps may be a pooling.
    """

    run: Callable[..., Tensor]
    op: Callable[..., Result]
    weight: Tensor
    bias: Tensor | None
    options: Mapping[str, Any]
    axes: int
    windows: bool


class Affine(NamedTuple):
    """``scale · y + shift`` for each channel, with numbers that do not depend on ``y``.

    Attributes:
        factors: gives scale and shift, (C) each.
        parameters: what they are made from; None among them is passed over.
        axes: how many axes the input may have; channels are on axis 1.
    """

    factors: Callable[[], tuple[Array, Array]]
    parameters: tuple[Tensor | None, ...]
    axes: tuple[int, ...]


class Nothing(NamedTuple):
    """A layer that gives back its input, such as dropout in evaluation."""


Part = Head | Step | Affine | Nothing


def part_of(module: Module) -> Part | None:
    """What ``module`` is in a chain now; None where it runs alone."""
    if module._hooks or "forward" in module.__dict__ or not _speaks_for_itself(type(module)):
        return None
    return module.in_chain()


def _speaks_for_itself(kind: type) -> bool:
    """Whether the class that says how ``kind`` computes also says what it is in a chain."""
    for cls in kind.__mro__:
        if "in_chain" in vars(cls):
            return True
        if "forward" in vars(cls) or "__call__" in vars(cls):
            return False
    return False


# -------------------------------------------------------------------------------------- the switch


class _Switch(threading.local):
    on = True


_switch = _Switch()


@contextmanager
def fusion(on: bool = True) -> Iterator[None]:
    """Switch fusion on or off on this thread: ``with nn.fusion(False): …``."""
    before, _switch.on = _switch.on, bool(on)
    try:
        yield
    finally:
        _switch.on = before


def fusion_enabled() -> bool:
    """Whether layers are fused on this thread (under ``detect_anomaly`` they never are)."""
    return _switch.on and not is_anomaly_enabled()


# -------------------------------------------------------------------------------------- the chains


def pieces(modules: Iterable[Module]) -> Iterable[Module | Chain]:
    """What to call, one behind the other, to run ``modules``."""
    return chains(modules) if fusion_enabled() else modules


def chains(modules: Iterable[Module]) -> Iterator[Module | Chain]:
    """Chains and single modules, in order."""
    chain: Chain | None = None
    for module in modules:
        part = part_of(module)
        if chain is not None:
            if chain.take(module, part):
                continue
            yield chain
            chain = None
        if isinstance(part, Head):
            chain = Chain(module, part)
        else:
            yield module
    if chain is not None:
        yield chain


class Chain:
    """A head and what follows it.

    Attributes:
        modules: in order; the first is the head's.
        head: with the weights as they are, before any folding.
        affines, steps: what follows it. All affines come before the first step.
    """

    def __init__(self, module: Module, head: Head) -> None:
        self.modules, self.head = [module], head
        self.affines: list[Affine] = []
        self.steps: list[Step] = []

    def take(self, module: Module, part: Part | None) -> bool:
        """Append ``module``, which is ``part``, if it can be the next one; say whether it could."""
        if isinstance(part, Step):
            if part.window is not None and not self._has_room_for_a_window():
                return False
            self.steps.append(part)
        elif isinstance(part, Affine):
            if self.steps or self.head.axes not in part.axes:
                return False
            self.affines.append(part)
        elif not isinstance(part, Nothing):
            return False
        self.modules.append(module)
        return True

    def _has_room_for_a_window(self) -> bool:
        return self.head.windows and all(step.window is None for step in self.steps)

    def __call__(self, x: Any) -> Any:
        weights = self.weights() if self.folds(x) else None
        return self.one_by_one(x) if weights is None else self.run(x, *weights)

    def run(self, x: Any, weight: Tensor, bias: Tensor | None) -> Any:
        """The chain as one operation, with these weights."""
        try:
            return self.head.run(x, weight, bias, steps=self.steps, **self.head.options)
        except Exception as error:
            failure = error
        self.one_by_one(x)  # the layer at fault raises, and its name is in the error
        raise failure

    def one_by_one(self, x: Any) -> Any:
        """Each module alone."""
        for module in self.modules:
            x = module(x)
        return x

    def folds(self, x: Any) -> bool:
        """Whether the affines, if there are any, go into the head's weights for this input.

        Not where gradients are recorded: they are wanted by the weights as they are. And channels
        must mean the same to the affines and to the head.
        """
        if not self.affines:
            return True
        learned = [x, self.head.weight, self.head.bias]
        learned += [p for affine in self.affines for p in affine.parameters]
        recorded = is_grad_enabled() and any(getattr(p, "requires_grad", False) for p in learned)
        return not recorded and getattr(x, "ndim", 0) == self.head.axes

    def weights(self) -> tuple[Tensor, Tensor | None] | None:
        """The head's weight and bias with the affines folded in; None where they do not fit.

        ``scale · (w x + b) + shift = (scale · w) x + (scale · b + shift)``
        """
        weight, bias = self.head.weight, self.head.bias
        for affine in self.affines:
            with on_device(weight.data), np.errstate(all="ignore"):
                scale, shift = affine.factors()
                if not _fits(scale, weight.data):
                    return None
                column = scale.reshape(-1, *(1,) * (weight.ndim - 1))
                weight = Tensor(column * weight.data)
                bias = Tensor(shift if bias is None else scale * bias.data + shift)
        return weight, bias


def _fits(scale: Array, weight: Array) -> bool:
    kinds = [(len(a), a.dtype, device_of(a)) for a in (scale, weight)]
    return kinds[0] == kinds[1]
