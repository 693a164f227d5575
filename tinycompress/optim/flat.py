"""Parameters side by side in one array, so that one call updates them all.

An update rule treats every number alike: it does not matter to ``w -= lr * g`` whether ``w`` is one
weight or all weights of a network behind each other. NumPy needs about a microsecond for a call
whatever it computes, and a network has dozens of small parameters; as one array they cost as many
calls as one of them. Nor does it matter where that array is cut: the rule goes through it in
blocks, so that what it computes in between stays in the cache.

    data   |  conv.weight  |b|     fc.weight     |b|      p.data  is a view of its stretch
    grad   |               | |                   | |      buffer.grads[k], likewise
    state  |               | |                   | |      and each array that the rule keeps

What lies here is still seen through the parameters, each in its own shape. Read ``sgd.py`` first;
``optimizer.py`` uses this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array
from tinycompress.nn import Parameter
from tinycompress.optim.parameters import parameter_list

BLOCK_BYTES = 256 * 1024
"""Of a flat array in one call: with gradient, state and temporaries less than a core's cache."""


class FlatBuffer:
    """The data of some parameters in one array of one axis, until :meth:`release`.

    Args:
        params: on the CPU, of one dtype, in the order in which they are to lie.
        allocate: ``allocate(count, dtype)`` gives an array of one axis; into shared memory, for
            workers. None for memory of this process.

    Attributes:
        params: the parameters; ``p.data`` is a view of :attr:`data` from now on.
        data: every weight.
        grad: as long, for their gradients; zeros at first.
        grads: views of :attr:`grad` in the parameters' shapes. Set ``p.grad`` to its own for an
            optimizer to see that the gradient lies here.

    Raises:
        ValueError: parameters that :meth:`fits` refuses.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        allocate: Callable[[int, np.dtype], Array] | None = None,
    ) -> None:
        self.params = parameter_list(params)
        if not self.fits(self.params):
            kinds = sorted({f"{p.dtype} on {p.device}" for p in self.params})
            raise ValueError(
                "a FlatBuffer holds NumPy arrays of one dtype that share no memory, got "
                f"{len(self.params)} parameters of {', '.join(kinds)}"
            )
        edges = np.cumsum([0, *(p.size for p in self.params)]).tolist()
        self._slices = [slice(a, b) for a, b in pairwise(edges)]
        self._place = {id(p): k for k, p in enumerate(self.params)}
        self._before = [p.data for p in self.params]
        dtype = self.params[0].dtype
        self.data = (allocate or np.empty)(edges[-1], dtype)
        self.grad = (allocate or np.empty)(edges[-1], dtype)
        self.grad[...] = 0
        self.grads = self.views(self.grad)
        self._installed = self.views(self.data)
        self.restore()

    @staticmethod
    def fits(params: Sequence[Parameter]) -> bool:
        """Whether a buffer can hold ``params``: NumPy arrays of one dtype, each in its own memory.

        Parameters that share memory are tied: laid side by side, they would not be any more.
        """
        if not all(isinstance(p.data, np.ndarray) for p in params):
            return False
        bounds = sorted(np.lib.array_utils.byte_bounds(p.data) for p in params if p.size)
        apart = all(end <= start for (_, end), (start, _) in pairwise(bounds))
        return apart and len({p.dtype for p in params}) == 1

    def views(self, array: Array) -> list[Array]:
        """``array``, which is as long as :attr:`data`, as one view in each parameter's shape."""
        return [array[s].reshape(p.shape) for s, p in zip(self._slices, self.params, strict=True)]

    def intact(self) -> bool:
        """Whether every ``p.data`` still is the view that was put there."""
        return bool(self._installed) and all(
            p.data is view for p, view in zip(self.params, self._installed, strict=True)
        )

    def restore(self) -> bool:
        """Take over what others put in the place of a view, and put the view back.

        Returns:
            Whether the buffer is intact now. Where a parameter has another shape, dtype or device
            by now it cannot be, and nothing is changed.
        """
        pairs = list(zip(self.params, self._installed, strict=False))
        fitting = all(
            isinstance(p.data, np.ndarray) and p.shape == v.shape and p.dtype == v.dtype
            for p, v in pairs
        )
        if fitting:
            for p, view in pairs:
                if p.data is not view:
                    view[...] = p.data
                    p.data = view
        return fitting and bool(pairs)

    def release(self) -> None:
        """Give every parameter its own memory back: the array it had before, with the numbers of
        now. Gradients that lie here are copied. The buffer is empty afterwards.
        """
        places = zip(self.params, self._installed, self.grads, self._before, strict=False)
        for p, view, grad, before in places:
            if p.grad is grad:
                p.grad = grad.copy()
            if p.data is not view:
                continue
            if before.flags.writeable:
                before[...] = view
            p.data = before if before.flags.writeable else view.copy()
        self._installed, self._before, self.grads, self._place = [], [], [], {}
        self.data = self.grad = self.data[:0].copy()

    def place_of_gradient(self, p: Parameter) -> int | None:
        """The position here of a parameter whose gradient lies here; None for any other."""
        k = self._place.get(id(p))
        return k if k is not None and p.grad is self.grads[k] else None

    def stretch(self, first: int, last: int) -> slice:
        """Where the parameters ``first … last`` lie."""
        return slice(self._slices[first].start, self._slices[last].stop)


class Piece(NamedTuple):
    """What one call of an update rule gets, and the parameters that it is the last for, each with
    its own state.
    """

    w: Array
    g: Array
    state: dict[str, Any]
    members: list[tuple[Parameter, dict[str, Any]]]


class FlatState:
    """For the parameters of a buffer, the arrays that an update rule keeps: flat like them."""

    def __init__(self, buffer: FlatBuffer) -> None:
        self.buffer = buffer
        self._arrays: dict[str, Array] = {}
        self._views: dict[str, list[Array]] = {}

    def holds(self, k: int, state: dict[str, Any] | None, names: Sequence[str]) -> bool:
        """Whether the arrays ``names`` of the ``k``-th parameter's state lie here."""
        return state is not None and all(
            name in self._views and state.get(name) is self._views[name][k] for name in names
        )

    def adopt(self, k: int, state: dict[str, Any], names: Sequence[str]) -> None:
        """Let them lie here: copy each, and put the view in its place."""
        for name in names:
            if name not in self._arrays:
                self._arrays[name] = np.zeros_like(self.buffer.data)
                self._views[name] = self.buffer.views(self._arrays[name])
            view = self._views[name][k]
            if state[name] is not view:
                view[...] = state[name]
                state[name] = view

    def pieces(
        self, first: int, members: list[tuple[Parameter, dict[str, Any]]], names: Sequence[str]
    ) -> Iterator[Piece]:
        """The neighbours from ``first`` on, which have made equally many steps, as one weight.

        It comes in blocks; the members come with the last, when all of them are up to date.
        """
        whole = self.buffer.stretch(first, first + len(members) - 1)
        size = BLOCK_BYTES // self.buffer.data.itemsize
        for start in range(whole.start, whole.stop, size) or [whole.start]:
            block = slice(start, min(start + size, whole.stop))
            state = {"step": members[0][1]["step"]} | {n: self._arrays[n][block] for n in names}
            w, g = self.buffer.data[block], self.buffer.grad[block]
            yield Piece(w, g, state, members if block.stop == whole.stop else [])
