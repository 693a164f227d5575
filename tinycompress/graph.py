"""The recorded graph, and the walk back that gives derivatives.

Every operation on a tensor that requires gradients records a :class:`Node`: where its inputs came
from, and one function per input that turns the gradient of the output into the gradient of that
input (its vector–Jacobian product, see ``ops/``). :func:`backpropagate` visits each node after
everything that was made from it and multiplies its way back (reverse-mode differentiation; Baydin
et al. 2018, arXiv:1502.05767). First derivatives only.

A node refers to nodes, not to tensors, so an intermediate array lives only as long as some vjp
needs it. Read ``ops/elementwise.py`` before this file and ``tensor.py`` after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinycompress.backend import Array, array_module, on_device

Vjp = Callable[[Array], Array]
Joint = Callable[[Array, tuple[bool, ...]], Sequence[Array | None]]
"""All gradients together: ``backward(g, wanted)`` gives one for each input; ``wanted`` says which
are asked for, and the others may be None."""


Watch = Callable[[Callable[..., Any], str, str], Callable[..., Any]]
"""``watch(function, name, direction)``: the function, with its time taken; see :func:`watched`."""


class Node:
    """One recorded operation.

    ``parents`` has one entry per input: the node that made it, the leaf tensor that it is (a
    parameter), or None where no gradient is wanted.
    """

    __slots__ = ("__weakref__", "dtype", "name", "parents", "shape", "vjps")

    def __init__(
        self, name: str, parents: tuple[Any, ...], vjps: tuple[Vjp, ...] | Joint, output: Array
    ) -> None:
        self.name, self.parents, self.vjps = name, parents, vjps
        self.shape, self.dtype = output.shape, output.dtype


# ---------------------------------------------------------------------------- modes of this thread


class _Mode(threading.local):
    recording = True
    anomaly = False
    watch: Watch | None = None


_mode = _Mode()


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing on this thread: ``with no_grad(): …``, or ``@no_grad()`` above a function."""
    before, _mode.recording = _mode.recording, False
    try:
        yield
    finally:
        _mode.recording = before


def is_grad_enabled() -> bool:
    """Whether operations on this thread are recorded."""
    return _mode.recording


def is_anomaly_enabled() -> bool:
    """Whether :func:`detect_anomaly` is on for this thread."""
    return _mode.anomaly


class AnomalyError(FloatingPointError):
    """The first operation that produced NaN or infinity under :func:`detect_anomaly`."""


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Check every output and gradient on this thread; the first that is not finite raises.

    Raises:
        AnomalyError: names the operation, its direction and the shapes. Costs a pass over each
            array, and on a GPU a wait for the device: meant for finding a fault, not for training.
    """
    before, _mode.anomaly = _mode.anomaly, True
    try:
        yield
    finally:
        _mode.anomaly = before


def check_anomaly(name: str, direction: str, output: Array, inputs: Iterable[Any]) -> None:
    """Under :func:`detect_anomaly`, raise if ``output`` holds NaN or infinity."""
    if not _mode.anomaly or output.dtype.kind != "f":
        return
    xp = array_module(output)
    with on_device(output):
        finite, nan = bool(xp.isfinite(output).all()), bool(xp.isnan(output).any())
    if not finite:
        what = "NaN" if nan else "infinity"
        shapes = ", ".join(str(a.shape) for a in inputs if hasattr(a, "shape"))
        raise AnomalyError(f"{name}: the {direction} pass produced {what} from inputs of {shapes}")


def watch_operations(watch: Watch | None) -> Watch | None:
    """Let ``watch`` wrap every operation on this thread, and every step of a walk back.

    Returns:
        What did so before, to put it back.
    """
    before, _mode.watch = _mode.watch, watch
    return before


def watched(function: Callable[..., Any], name: str, direction: str) -> Callable[..., Any]:
    """``function``; wrapped, while somebody takes the time (``train/profile.py``)."""
    return function if _mode.watch is None else _mode.watch(function, name, direction)


# ---------------------------------------------------------------------------------- the walk back


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``g`` over the axes along which an input of ``shape`` was broadcast."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    stretched = tuple(i for i, n in enumerate(shape, extra) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=(*range(extra), *stretched)).reshape(shape)


def topological_order(root: Any) -> list[Any]:
    """Everything ``root`` was made from, inputs before outputs. Iterative, so depth is free."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        item, inputs_done = stack.pop()
        if inputs_done:
            order.append(item)
        elif id(item) not in seen:
            seen.add(id(item))
            stack.append((item, True))
            if isinstance(item, Node):
                stack.extend((p, False) for p in item.parents if p is not None)
    return order


def backpropagate(
    root: Any, g: Array, keep: set[int] | None = None
) -> dict[int, tuple[Any, Array]]:
    """Gradients of ``root`` (whose own gradient is ``g``) by every leaf it was made from.

    Args:
        root: a node, or a leaf tensor.
        g: the gradient of the loss by ``root``.
        keep: ids of nodes whose gradients are wanted beside those of the leaves.

    Returns:
        ``{id: (node or leaf, gradient)}``. Gradients may share memory: copy before writing.
    """
    pending, found = {id(root): g}, {}
    with np.errstate(all="ignore"):
        for item in reversed(topological_order(root)):
            g = pending.pop(id(item))
            if not isinstance(item, Node) or (keep and id(item) in keep):
                found[id(item)] = (item, g)
            if isinstance(item, Node):
                watched(_pull_back, item.name, "backward")(item, g, pending)
    return found


def _pull_back(node: Node, g: Array, pending: dict[int, Array]) -> None:
    """Add to ``pending`` what ``node`` passes on to each of its inputs."""
    with on_device(g):
        gradients = _gradients(node, g)
    for parent, d in zip(node.parents, gradients, strict=True):
        if parent is None:
            continue
        with on_device(d):  # it may have crossed to another GPU
            d = unbroadcast(d, parent.shape)
            if d.dtype != parent.dtype:
                d = d.astype(parent.dtype)
            check_anomaly(node.name, "backward", d, (g,))
            pending[id(parent)] = pending[id(parent)] + d if id(parent) in pending else d


def _gradients(node: Node, g: Array) -> Sequence[Any]:
    """What the derivatives of ``node`` make of ``g``: one array per input, where one is wanted."""
    if callable(node.vjps):
        return node.vjps(g, tuple(parent is not None for parent in node.parents))
    pairs = zip(node.parents, node.vjps, strict=True)
    return [None if parent is None else vjp(g) for parent, vjp in pairs]
