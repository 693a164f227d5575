"""What may follow a convolution or a linear layer inside one operation: a chain of steps.

Each operation alone reads and writes the whole batch, which is far larger than the cache. A
convolution works through the batch in blocks anyway; a step that follows it (ReLU, a window) can
be done on each block while that is still in the cache. A :class:`Step` says which operation of
``ops/`` it is, and the two facts about it that :func:`arranged` makes use of:

    max over a window of f(y + b)  =  f(max over a window of y  +  b)      where f never decreases

so that bias and activation need only be computed for the largest of each window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tinycompress.backend import Array, array_module
from tinycompress.ops.activations import relu
from tinycompress.ops.elementwise import Result
from tinycompress.ops.pool import max_of_taps, max_pool2d, mean_of_taps
from tinycompress.ops.products import sum_of_rows

Pair = tuple[int, int]
Steps = Sequence["Step"]
Derivative = Callable[[Array], Array]


class Step(NamedTuple):
    """One operation in a chain.

    Attributes:
        name: of the operation, ``"relu"``.
        op: ``op(y, **params) -> (z, (d_y,))``: one array in; elementwise, unless ``window``.
        params: its other arguments.
        monotone: it never decreases in any value, so it may change places with a maximum.
        window: (height, width) of a pooling whose stride is its kernel, without padding and without
            ``ceil_mode``; ``op`` is then ``pool.max_pool2d`` or ``pool.avg_pool2d``.
    """

    name: str
    op: Callable[..., Result]
    params: Mapping[str, Any] = MappingProxyType({})
    monotone: bool = False
    window: Pair | None = None


def chain_name(name: str, steps: Steps) -> str:
    """What a graph calls a chain: ``"conv2d+relu+max_pool2d"``."""
    return "+".join((name, *(step.name for step in steps))) if steps else name


def add_bias(y: Array, b: Array, out: Array) -> tuple[Array, tuple[None]]:
    """``y + b``, one number per channel, into ``out``; see :meth:`Chain.backward` for the rest.

    y (h, ..., O) and out are added in long rows: a loop over some channels only is a slow one.
    """
    xp = array_module(y)
    h, row = len(y), math.prod(y.shape[1:])
    tiled = xp.empty((row // max(1, len(b)), len(b)), y.dtype)
    tiled[...] = b
    xp.add(y.reshape(h, row), tiled.reshape(row), out=out.reshape(h, row))
    return out, (None,)


BIAS = Step("bias", add_bias, monotone=True)
INTO = {add_bias, relu}
"""Operations that can write their result into memory given as ``out``, even over their input."""


class Chain:
    """A bias and steps, in the order in which each block goes through them.

    Args:
        steps: in the order in which they are meant; at most one has a window.
        b: the bias (O), or None.
    """

    def __init__(self, steps: Steps, b: Array | None) -> None:
        self.b = b
        early, self.pool, late = arranged(steps)
        self.early, self.late = ([s for s in part if s is not BIAS or b is not None]
                                 for part in (early, late))  # fmt: skip
        self.window = self.pool.window if self.pool and self.pool.window else (1, 1)
        self.in_place = self.pool is None and all(step.op in INTO for step in self.late)
        """Whether ``y`` may be the memory of the output itself."""

    def forward(self, y: Array, out: Array, keep: bool) -> list[Derivative | None]:
        """All steps on one block.

        Args:
            y: (oh, M, O), rows ordered in phases (see ``geometry.py``); it is overwritten.
            out: where the result goes, (oh / window height, ..., O).
            keep: whether there will be a backward pass.

        Returns:
            What :meth:`backward` needs.
        """
        undo: list[Derivative | None] = []
        y = self._run(self.early, y, None, undo)
        if self.pool is not None:
            of_taps = max_of_taps if self.pool.op is max_pool2d else mean_of_taps
            y, derivative = of_taps(y, self.window, keep)
            undo.append(derivative)
        if y is not out:
            y = y.reshape(out.shape)
        y = self._run(self.late, y, out, undo)
        if y is not out:
            out[...] = y
        return undo

    def _run(self, steps: Steps, y: Array, out: Array | None, undo: list) -> Array:
        ours = True  # whether no derivative needs the numbers in y, so that they may be overwritten
        for k, step in enumerate(steps):
            if step.op in INTO:
                target = out if k == len(steps) - 1 and out is not None else y if ours else None
                extra = {"b": self.b} if step is BIAS else {}
                y, (derivative,) = step.op(y, **step.params, **extra, out=target)
            else:
                y, (derivative,) = step.op(y, **step.params)
                ours = False
            undo.append(derivative)
        return y

    def backward(self, undo: list[Derivative | None], g: Array, db: Array | None) -> Array:
        """From the gradient of the result to that of y; the bias's is added to ``db``."""
        for derivative in reversed(undo):
            if derivative is not None:
                g = derivative(g)
            elif db is not None:
                db += sum_of_rows(g)
        return g


def arranged(steps: Steps) -> tuple[Steps, Step | None, Steps]:
    """What is done before the window, the window, and what is done after it, bias included."""
    at = next((k for k, step in enumerate(steps) if step.window is not None), None)
    if at is None:
        return (), None, (BIAS, *steps)
    before, pool, after = list(steps[:at]), steps[at], list(steps[at + 1 :])
    moved: list[Step] = []
    if pool.op is max_pool2d:
        while before and before[-1].monotone:
            moved.insert(0, before.pop())
    if before:
        return (BIAS, *before), pool, (*moved, *after)
    return (), pool, (BIAS, *moved, *after)  # the mean of y + b is that of y, + b
