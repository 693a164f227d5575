"""The numbers of some modules, in memory that forked workers share with this process.

*Parameters* move there for as long as the workers live: an optimizer's update is seen by all of
them without a copy. *Buffers* (running statistics, observers) stay where they are, since layers put
new arrays in their place; they are published, copied into shared mirrors, before each use. So are
the modules' train/eval flags. Read ``reachable.py`` first.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from tinycompress.nn import Module, Parameter
from tinycompress.train.shared_memory import is_shared, shared_copy, shared_empty


class SharedState:
    """Parameters, buffers and flags of ``modules``, shared from now until :meth:`release`."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules = list(modules)
        held = {id(p): p for m in self._modules for p in m._parameters.values() if p is not None}
        self._places = [_Place(p) for p in held.values()]
        self._mirrors = [
            (module, name, shared_empty(buffer.shape, buffer.dtype))
            for module in self._modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._training = shared_empty(len(self._modules), bool)
        self._as_received: bytes | None = None

    def intact(self) -> bool:
        """Whether parameters and buffers still are what was shared, in place, shape and dtype."""
        return all(place.parameter.data is place.view for place in self._places) and all(
            buffer is not None and buffer.shape == mirror.shape and buffer.dtype == mirror.dtype
            for buffer, mirror in (
                (m._buffers.get(name), mirror) for m, name, mirror in self._mirrors
            )
        )

    def publish(self) -> None:
        """In this process, before each use: show the workers buffers and flags as they are."""
        for module, name, mirror in self._mirrors:
            mirror[...] = module._buffers[name]
        self._training[...] = [module.training for module in self._modules]

    def receive(self) -> None:
        """In a worker, before each use: take over what was published.

        Buffers cannot be written there: what a layer sees goes to the first process as notes.
        """
        flags = self._training.tobytes()
        if self._as_received is None:
            for module, name, mirror in self._mirrors:
                mirror.flags.writeable = False
                module._buffers[name] = mirror
        if flags != self._as_received:
            for module, training in zip(self._modules, self._training.tolist(), strict=True):
                module.__dict__["training"] = training
            self._as_received = flags

    def check_unchanged(self) -> None:
        """In a worker, after each use: nothing was put in the place of what is shared.

        Raises:
            RuntimeError: it was, by the forward pass of the module that it names. Nobody else would
                see it, and the result would depend on how many workers there are.
        """
        changed = [(m, name) for m, name, mirror in self._mirrors if m._buffers[name] is not mirror]
        changed += [
            (module, name)
            for place in self._places
            if place.parameter.data is not place.view
            for module in self._modules
            for name, parameter in module._parameters.items()
            if parameter is place.parameter
        ]
        for module, name in changed:
            raise RuntimeError(
                f"{module._name or 'the model'}: {type(module).__name__} changed {name!r} while it "
                "computed, which workers cannot: let forward call self.note(what it saw), and "
                "merge(notes) change it; or train with workers=1"
            )

    def release(self) -> None:
        """Put every parameter's numbers back into the array that it had before."""
        for place in self._places:
            place.give_back()


class _Place:
    """One parameter: its array before, and the shared one that stands in for it."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.own = self.view = parameter.data
        if not is_shared(self.own):  # it is, where all parameters lie in one buffer already
            self.view = shared_copy(self.own)
            parameter.data = self.view

    def give_back(self) -> None:
        if self.view is self.own or self.parameter.data is not self.view:
            return
        if self.own.flags.writeable:
            self.own[...] = self.view
            self.parameter.data = self.own
        else:
            self.parameter.data = self.view.copy()


def shareable(modules: Iterable[Module]) -> bool:
    """Whether the numbers of ``modules`` can be shared: NumPy arrays, and no two parameters in the
    same memory, which in memory of their own would not move together any more."""
    modules = list(modules)
    held = {id(p): p.data for m in modules for p in m._parameters.values() if p is not None}
    arrays = [*held.values(), *(b for m in modules for b in m._buffers.values() if b is not None)]
    if not all(isinstance(a, np.ndarray) for a in arrays):
        return False
    bounds = sorted(np.lib.array_utils.byte_bounds(a) for a in held.values() if a.size)
    return all(end <= start for (_, end), (start, _) in pairwise(bounds))
