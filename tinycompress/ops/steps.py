"""What may follow a convolution or a linear layer inside one operation: a chain of steps.

Each operation alone reads and writes the whole batch, which is far larger than the cache. A
convolution works through the batch in blocks anyway; a step that follows it (ReLU, a window) can
be done on each block while that is still in the cache. A :class:`Step` says which operation of
``ops/`` it is, and the two facts about it that a chain makes use of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tinycompress.backend import Array
from tinycompress.ops.elementwise import Result

Pair = tuple[int, int]
Steps = Sequence["Step"]


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
    return "+".join((name, *(step.name for step in steps)))


def run_steps(y: Array, steps: Steps) -> tuple[Array, Callable[[Array], Array]]:
    """All steps on ``y``, one after the other, and the derivative of all of them."""
    derivatives = []
    for step in steps:
        y, (d_y,) = step.op(y, **step.params)
        derivatives.append(d_y)

    def backward(g: Array) -> Array:
        for derivative in reversed(derivatives):
            g = derivative(g)
        return g

    return y, backward
