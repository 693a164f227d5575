"""Module: a layer, or a network of layers, with its parameters in order.

Assigning a :class:`Parameter` or a module to an attribute registers it; ``register_buffer``
registers an array that is state but not trained (running statistics). ``state_dict`` names them
with dots ("conv1.weight"), as torch does, so that a torch state dict loads unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from tinycompress.backend import Array, device_of, is_array, to_device
from tinycompress.nn.notes import current_notes
from tinycompress.tensor import Tensor, as_array

Hook = Callable[["Module", tuple[Any, ...], Any], Any]


class Parameter(Tensor):
    """A tensor that is trained.

    Attributes:
        mask: None, or a boolean array of the parameter's shape. Where it is False the weight is
            pruned: it is 0, and optimizers keep it and its momentum at 0 (see ``compress/prune``).
    """

    __slots__ = ("mask",)

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)
        self.mask: Array | None = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype}, device={self.device!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = Parameter(self.data.copy(), self.requires_grad)
        twin.mask = None if self.mask is None else self.mask.copy()
        return twin

    def __reduce__(self) -> Any:
        return _rebuild_parameter, (self.data, self.requires_grad, self.mask)


def _rebuild_parameter(data: Array, requires_grad: bool, mask: Array | None) -> Parameter:
    parameter = Parameter(data, requires_grad)
    parameter.mask = mask
    return parameter


class Module:
    """Base class of layers and networks: define ``__init__`` and ``forward``."""

    training: bool

    def __init__(self) -> None:
        # Through __dict__, because __setattr__ below already looks into these.
        self.__dict__.update(
            _parameters={}, _buffers={}, _modules={}, _hooks={}, training=True, _name=""
        )

    # ------------------------------------------------------------------------ registration

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_parameters" not in tables:
            raise AttributeError(
                f"{type(self).__name__}.__init__ must call super().__init__() before it assigns "
                f"self.{name}"
            )
        kinds = {"_parameters": Parameter, "_modules": Module}
        for table, kind in kinds.items():
            if isinstance(value, kind) or (value is None and name in tables[table]):
                for other in ("_parameters", "_modules", "_buffers"):
                    if other != table:
                        tables[other].pop(name, None)
                tables.pop(name, None)
                tables[table][name] = value
                if isinstance(value, Module):
                    value.__dict__["_name"] = name
                return
        if name in tables["_buffers"]:
            tables["_buffers"][name] = value
        elif name in tables["_parameters"] or name in tables["_modules"]:
            raise TypeError(
                f"{type(self).__name__}.{name} is a registered parameter or module; assign another "
                f"one (nn.Parameter(array)) or None, not a {type(value).__name__}"
            )
        else:
            tables[name] = value

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, ()):
                return self.__dict__[table][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                return
        super().__delattr__(name)

    def register_buffer(self, name: str, array: Array | None) -> None:
        """Register an array as state: saved, moved between devices, not trained."""
        if array is not None and not is_array(array):
            raise TypeError(f"buffer {name!r} must be an array, got {type(array).__name__}")
        self.__dict__["_buffers"][name] = array

    # --------------------------------------------------------------------------- computing

    def forward(self, *inputs: Any) -> Any:
        """Compute the output. Call the module itself, not this: hooks run there."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any) -> Any:
        try:
            output = self.forward(*inputs)
        except Exception as error:
            error.add_note(f"in {self._name or 'the model'}: {type(self).__name__}")
            raise
        for hook in tuple(self._hooks.values()):
            replaced = hook(self, inputs, output)
            output = output if replaced is None else replaced
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
            if part not in module._modules:
                known = ", ".join(n for n, _ in self.named_modules() if n)
                raise AttributeError(f"there is no layer {name!r}; there are {known}")
            module = module._modules[part]
        return module

    def set_submodule(self, name: str, module: Module) -> None:
        """Put ``module`` in the place of the one with this dotted name."""
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
            for name, value in module.__dict__[table].items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by dotted name, in order of definition."""
        return {name: array.copy() for name, array in self._state().items()}

    def _state(self) -> dict[str, Array]:
        """The parameters' and buffers' own arrays, each module's together as torch orders them."""
        state: dict[str, Array] = {}
        for prefix, module in self.named_modules():
            dot = f"{prefix}." if prefix else ""
            state |= {dot + n: p.data for n, p in module._parameters.items() if p is not None}
            state |= {dot + n: b for n, b in module._buffers.items() if b is not None}
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into parameters and buffers, keeping their dtype and device.

        Args:
            state: dotted name → array or tensor. A torch ``state_dict`` saved as safetensors
                has these names and shapes.
            strict: refuse missing and unexpected names. Wrong shapes are always refused.

        Raises:
            ValueError: lists every missing, unexpected and mis-shaped name; nothing is changed.
        """
        own = self._state()
        given = {name: as_array(value) for name, value in state.items()}
        ignored = {n for n in given if n not in own and n.endswith("num_batches_tracked")}
        problems = []
        if strict:
            problems += [f"missing: {n}" for n in own if n not in given]
            problems += [f"unexpected: {n}" for n in given if n not in own and n not in ignored]
        for name in own:
            if name in given and given[name].shape != own[name].shape:
                problems.append(f"{name}: shape {given[name].shape}, expected {own[name].shape}")
        if problems:
            raise ValueError(
                f"this state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        for name, array in own.items():
            if name in given:
                array[...] = to_device(given[name], device_of(array)).astype(array.dtype)

    # ----------------------------------------------------------------------------- whole-model

    def train(self, mode: bool = True) -> Self:
        """Training behaviour (dropout, batch statistics) on or off, here and below."""
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Self:
        """Evaluation behaviour: ``train(False)``."""
        return self.train(False)

    def to(self, target: str | np.dtype | type) -> Self:
        """Move parameters and buffers to a device, or convert the floating ones to a dtype.

        In place, and returned. Gradients are dropped. Make the optimizer afterwards.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            self._convert(lambda a: to_device(a, target))
        else:
            dtype = np.dtype(target)
            self._convert(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a)
        return self

    def _convert(self, change: Callable[[Array], Array]) -> None:
        for module in self.modules():
            for p in module._parameters.values():
                if p is not None:
                    p.data, p.grad = change(p.data), None
                    p.mask = None if p.mask is None else change(p.mask)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = change(b)

    @property
    def device(self) -> str:
        """Where the first parameter or buffer lives; "cpu" where there is none."""
        return device_of(next(iter(self._state().values()), np.empty(0)))

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every module, children first."""
        for module in reversed(list(self.modules())):
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

    def count_parameters(self) -> tuple[int, int]:
        """(weights and biases of this module itself, how many of them are not zero)."""
        own = [p.data for p in self._parameters.values() if p is not None]
        return sum(a.size for a in own), sum(int((a != 0).sum()) for a in own)

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


class RemovableHook:
    """What ``register_forward_hook`` returns: ``.remove()``, or use it as a context."""

    def __init__(self, hooks: dict[int, Hook], hook: Hook) -> None:
        self._hooks = hooks
        hooks[id(self)] = hook

    def remove(self) -> None:
        self._hooks.pop(id(self), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Evaluation behaviour inside; every module's own mode afterwards."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.__dict__["training"] = mode
