"""Module: a layer, or a network of layers, with its parameters in order.

Assigning a :class:`Parameter` or a module to an attribute registers it; ``register_buffer``
registers an array that is state but not trained (running statistics). ``state_dict`` names them
with dots ("conv1.weight"), as torch does, so that a torch state dict loads unchanged.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tinycompress.backend import Array, copy_of, device_of, on_device, to_device
from tinycompress.nn import state as states
from tinycompress.nn.hooks import Hook, RemovableHook
from tinycompress.nn.notes import current_notes
from tinycompress.nn.parameter import Parameter
from tinycompress.nn.registration import Registered

if TYPE_CHECKING:
    from tinycompress.nn.fusion import Part


class Module(Registered):
    """Base class of layers and networks: define ``__init__`` and ``forward``."""

    training: bool
    only_dtypes: ClassVar[tuple[str, ...]] = ()
    """Names of the dtypes that :meth:`to` may convert it to; empty: any."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(_hooks={}, training=True, _name="")

    # --------------------------------------------------------------------------- computing

    def forward(self, *inputs: Any) -> Any:
        """Compute the output. Call the module itself, not this: hooks run there."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            output = self.forward(*inputs, **options)
            for hook in tuple(self._hooks.values()):
                replaced = hook(self, inputs, output)
                output = output if replaced is None else replaced
        except Exception as error:
            error.add_note(f"in {self._name or 'the model'}: {type(self).__name__}")
            raise
        return output

    def register_forward_hook(self, hook: Hook) -> RemovableHook:
        """Call ``hook(module, inputs, output)`` after each forward; what it returns replaces the
        output, unless that is None. ``.remove()`` on the result takes it away."""
        return RemovableHook(self._hooks, hook)

    def note(self, what: Any) -> None:
        """Write down what this forward pass saw, for :meth:`merge` (see ``nn/notes.py``)."""
        notes = current_notes()
        if notes is None:
            self.merge([what])
        else:
            notes.append((self, what))

    def merge(self, notes: list[Any]) -> None:
        """Update the module's state from what one or several shards noted, in order."""
        raise NotImplementedError(f"{type(self).__name__} notes things but does not define merge")

    # ----------------------------------------------------------------------------- walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of direct children, in order of definition."""
        return ((name, m) for name, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        return (m for _, m in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module ("") and all below, each once, in order."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                dot = f"{name}." if name else ""
                stack.extend((dot + n, m) for n, m in reversed(list(module.named_children())))

    def modules(self) -> Iterator[Module]:
        return (m for _, m in self.named_modules())

    def get_submodule(self, name: str) -> Module:
        """The module with this dotted name; "" is this one."""
        module = self
        for part in name.split(".") if name else ():
            child = module._modules.get(part)
            if child is None:
                known = ", ".join(n for n, _ in self.named_modules() if n) or "none"
                raise AttributeError(f"there is no layer {name!r}; there are: {known}")
            module = child
        return module

    def set_submodule(self, name: str, module: Module) -> None:
        """Put ``module`` in the place of the one with this dotted name.

        Where that one is shared, its other names keep it.
        """
        if not isinstance(module, Module):
            raise TypeError(f"set_submodule: {name!r} needs a Module, got {type(module).__name__}")
        parent, _, last = name.rpartition(".")
        self.get_submodule(name)
        setattr(self.get_submodule(parent), last, module)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once, in order of definition."""
        return self._named("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(dotted name, array) of the buffers, in order of definition."""
        return self._named("_buffers")

    def buffers(self) -> Iterator[Array]:
        return (b for _, b in self.named_buffers())

    def _named(self, table: str) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in getattr(module, table).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by dotted name, in order of definition.

        What two layers share stands under both names, as in torch.
        """
        return {name: copy_of(array) for name, array, _ in states.arrays_by_name(self)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> states.LoadReport:
        """Copy arrays into parameters and buffers, keeping their dtype, device and masks.

        Args:
            state: dotted name → array or tensor. A torch ``state_dict`` has these names and
                shapes (see :func:`tinycompress.nn.load_safetensors`).
            strict: refuse missing and unexpected names. Wrong shapes are always refused.

        Returns:
            The missing and the unexpected names, both empty where ``strict``.

        Raises:
            ValueError: lists every missing, unexpected and mis-shaped name; nothing is changed.
        """
        return states.load(self, state, strict)

    # ----------------------------------------------------------------------------- whole-model

    def train(self, mode: bool = True) -> Self:
        """Training behaviour (dropout, batch statistics) on or off, here and below."""
        if not isinstance(mode, bool):
            raise TypeError(
                f"train: mode must be True or False, got {type(mode).__name__}; "
                "tc.fit(model, data, ...) is what trains"
            )
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Self:
        """Evaluation behaviour: ``train(False)``."""
        return self.train(False)

    def to(self, target: str | np.dtype | type) -> Self:
        """Move parameters and buffers to a device, or convert the floating ones to a dtype.

        In place, and returned. Gradients are dropped. Make the optimizer afterwards.

        Raises:
            TypeError: a layer cannot compute in this dtype; it is named, and nothing is changed.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            self._convert(lambda a: to_device(a, target))
        else:
            dtype = _floating_dtype(target)
            for name, module in self.named_modules():
                if module.only_dtypes and dtype.name not in module.only_dtypes:
                    raise TypeError(
                        f"to: {name or 'the model'} ({type(module).__name__}) keeps scales of "
                        f"codes, which must be {' or '.join(module.only_dtypes)}, got {dtype}; "
                        "convert the float model before it is quantized"
                    )
            self._convert(lambda a: _as_dtype(a, dtype))
        return self

    def _convert(self, change: Callable[[Array], Array]) -> None:
        for p in self.parameters():
            p.data, p.grad = change(p.data), None
            p.mask = None if p.mask is None else change(p.mask)
        for module in self.modules():
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = change(b)

    @property
    def device(self) -> str:
        """Where the first parameter or buffer lives; "cpu" where there is none."""
        arrays = (array for _, array, _ in states.arrays_by_name(self))
        return device_of(next(arrays, np.empty(0)))

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every module once: children first, in order of definition."""
        for module in list(_children_first(self, set())):
            fn(module)
        return self

    def copy(self) -> Self:
        """A deep copy, masks included, without gradients and hooks."""
        return copy.deepcopy(self)

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, mode: bool = True) -> Self:
        """Train all parameters, or freeze them."""
        for p in self.parameters():
            p.requires_grad = mode
        return self

    # ------------------------------------------------------------------------- describing

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON values, so that ``type(m)(**m.config())``
        builds a module of the same structure."""
        return {}

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply–accumulate operations for one sample (shapes include the batch axis)."""
        return 0

    def in_chain(self) -> Part | None:
        """What this layer is when a Sequential runs neighbours as one operation (``fusion.py``).

        An elementwise layer of yours can join by naming the operation of ``ops/`` that ``forward``
        applies, such as ``Step("relu", activations.relu, monotone=True)``. The two must agree:
        which of them runs is not defined.

        Returns:
            A ``Head``, a ``Step``, an ``Affine`` or ``Nothing``, as the layer is now (training or
            not); None where it runs alone.
        """
        return None

    def count_parameters(self) -> tuple[int, int]:
        """(weights and biases of this module itself, how many of them are not zero)."""
        own = [p.data for p in self._parameters.values() if p is not None]
        return sum(a.size for a in own), sum(int((a != 0).sum()) for a in own)

    def count_repeated(self, seen: Container[int]) -> tuple[int, int]:
        """The part of :meth:`count_parameters` that another layer has counted already.

        Args:
            seen: the ids of that layer's parameters and buffers.
        """
        own = [p.data for p in self._parameters.values() if p is not None and id(p) in seen]
        return sum(a.size for a in own), sum(int((a != 0).sum()) for a in own)

    def check_state(self) -> None:
        """Raise ValueError where arrays that were put in place do not fit each other.

        A reader of files calls it on each module when all are filled.
        """

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.config().items())
        children = [f"  ({n}): " + repr(m).replace("\n", "\n  ") for n, m in self.named_children()]
        if not children:
            return f"{type(self).__name__}({arguments})"
        return "\n".join([f"{type(self).__name__}(", *children, ")"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hooks": {}}  # copies and other processes get no hooks

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


_modes_lock = threading.Lock()
_modes_kept: dict[int, list[tuple[int, bool]]] = {}
"""For the id of each module inside :func:`evaluation_mode`: by which threads, and its mode before.
"""


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Evaluation behaviour inside; every module's own mode afterwards.

    Where several threads are inside, the last to leave puts back what the first one found.
    """
    me, modules = threading.get_ident(), list(model.modules())
    with _modes_lock:
        for module in modules:
            inside = _modes_kept.setdefault(id(module), [])
            found = [mode for thread, mode in inside if thread != me]
            inside.append((me, found[0] if found else module.training))
            module.__dict__["training"] = False
    try:
        yield
    finally:
        with _modes_lock:
            for module in modules:
                inside = _modes_kept[id(module)]
                last = max(k for k, (thread, _) in enumerate(inside) if thread == me)
                _, mode = inside.pop(last)
                if all(thread == me for thread, _ in inside):
                    module.__dict__["training"] = mode
                if not inside:
                    del _modes_kept[id(module)]


def _children_first(module: Module, seen: set[int]) -> Iterator[Module]:
    if id(module) not in seen:
        seen.add(id(module))
        for child in module.children():
            yield from _children_first(child, seen)
        yield module


def _as_dtype(array: Array, dtype: np.dtype) -> Array:
    if array.dtype.kind != "f":
        return array
    with on_device(array):
        return array.astype(dtype)


def _floating_dtype(target: Any) -> np.dtype:
    try:
        dtype = np.dtype("O" if target is None else target)
    except TypeError:
        dtype = np.dtype("O")
    if dtype.kind != "f":
        raise ValueError(
            f'to: expected a device ("cpu", "cuda", "cuda:1") or a floating dtype, got {target!r}'
        )
    return dtype
