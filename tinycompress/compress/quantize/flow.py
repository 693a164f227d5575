"""Which layer's output is which layer's input.

What changes two neighbouring layers at once (folding, equalization) must know that they *are*
neighbours, and that nobody else reads what passes between them. There are two ways to find out:

- *run* the model once on a sample and watch: a layer that gets the very tensor that another one
  gave out is its reader. What the model's own ``forward`` does with a tensor between layers
  (``norm(h) + h``) is seen in the recorded graph: there, operations read ``h`` that no layer made;
- *look* at its Sequentials, which run what they hold in order. That needs no sample, and says
  nothing about a ``forward`` of somebody's own.

:class:`Flow` is what either finds. Layers are modules without modules inside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

from tinycompress import nn
from tinycompress.backend import Array, to_device
from tinycompress.compress.quantize.capture import images_of
from tinycompress.graph import Node, topological_order
from tinycompress.nn import evaluation_mode
from tinycompress.recorded import edge_of
from tinycompress.tensor import Tensor

PASSING = (nn.Identity, nn.Dropout)
"""In evaluation they give back the very tensor that they got."""


class Call(NamedTuple):
    """One call of a layer.

    Attributes:
        name, layer: dotted name in the model, and the layer.
        inputs, output: what stands for the tensors: equal numbers are the same tensor.
        axes: how many the output has; None where nothing was run.
    """

    name: str
    layer: nn.Module
    inputs: tuple[int, ...]
    output: int
    axes: int | None = None

    def __str__(self) -> str:
        return f"{self.name or 'the model'} ({type(self.layer).__name__})"


class Flow:
    """The calls of a model in order, and who reads what.

    Args:
        calls: in order.
        others: what else reads the tensor with this number, in words.
    """

    def __init__(self, calls: list[Call], others: dict[int, str]) -> None:
        self.calls, self._others = calls, others
        self._times = Counter(id(call.layer) for call in calls)
        self._writers = {call.output: call for call in calls}

    def writer(self, tensor: int) -> Call | None:
        """The call that made this tensor; None where no layer did."""
        return self._writers.get(tensor)

    def reader(self, call: Call) -> Call | str:
        """The only call that reads what ``call`` gave out; or, in words, why there is none."""
        readers = [c for c in self.calls for tensor in c.inputs if tensor == call.output]
        if call.output in self._others:
            return f"the output of {call} {self._others[call.output]}"
        if len(readers) != 1:
            who = " and ".join(map(str, readers)) or "no layer"
            return f"the output of {call} is read by {who}"
        for each in (call, *readers):
            if self._times[id(each.layer)] > 1 and each.layer.state_dict():
                return f"{each} is called more than once"
        return readers[0]


def flow_of(model: nn.Module, sample: Any = None) -> Flow:
    """How tensors flow through ``model``.

    Args:
        model: it is not changed; the layers of the flow are its own.
        sample: an array or data set of a few inputs; None: look at Sequentials alone.
    """
    return _looked_at(model) if sample is None else _watched(model, first_images(model, sample))


def first_images(model: nn.Module, data: Any, number: int = 8) -> Array:
    """The first images of an array or a data set, on the model's device."""
    return to_device(images_of(data)[:number], model.device)


# ----------------------------------------------------------------------------------- by looking


def is_plain(module: nn.Module) -> bool:
    """Whether it is a Sequential that does nothing but run what it holds."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _looked_at(model: nn.Module) -> Flow:
    look = _Look()
    output = look.at(model, "", next(look.numbers))
    return Flow(look.calls, {**look.others, output: "is the model's output"})


class _Look:
    """Walks through a model, and gives a number to each tensor that would pass."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.others: dict[int, str] = {}
        self.numbers = count()

    def at(self, module: nn.Module, name: str, x: int) -> int:
        """The number of what comes out of ``module`` where tensor ``x`` goes in."""
        children = {f"{name}.{n}" if name else n: m for n, m in module.named_children()}
        if is_plain(module):
            for child_name, child in children.items():
                x = self.at(child, child_name, x)
            return x
        for child_name, child in children.items():  # run by a forward that we cannot see
            output = self.at(child, child_name, next(self.numbers))
            self.others[output] = "goes into a forward of the model's own"
        if isinstance(module, PASSING):
            return x
        output = next(self.numbers)
        if not children:
            self.calls.append(Call(name, module, (x,), output))
        return output


# ---------------------------------------------------------------------------------- by watching


def _watched(model: nn.Module, sample: Array) -> Flow:
    seen: list[tuple[str, nn.Module, list[Tensor], Tensor]] = []

    def watch(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = list(tensors_in(inputs))
        if isinstance(output, Tensor) and not any(output is t for t in tensors):
            seen.append((name, layer, tensors, output))

    layers = {name: layer for name, layer in model.named_modules() if not list(layer.children())}
    copy = model.copy()  # whose hooks are ours alone
    for name, layer in layers.items():
        hook = lambda m, i, o, n=name, k=layer: watch(n, k, i, o)  # noqa: E731
        copy.get_submodule(name).register_forward_hook(hook)
    with evaluation_mode(copy):
        output = copy(Tensor(sample, requires_grad=sample.dtype.kind == "f"))
    calls = [Call(n, m, tuple(map(id, i)), id(o), o.ndim) for n, m, i, o in seen]
    others = _read_elsewhere(seen, list(tensors_in(output)))
    others.update({id(t): "is the model's output" for t in tensors_in(output)})
    return Flow(calls, others)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a tensor, or in tuples, lists and mappings of them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(each)


def _read_elsewhere(
    seen: list[tuple[str, nn.Module, list[Tensor], Tensor]], outputs: Iterable[Tensor]
) -> dict[int, str]:
    """The outputs of layers that operations outside of all layers read."""
    inside: set[int] = set()
    for _, _, inputs, output in seen:
        inside |= _nodes_between(edge_of(output), {id(edge_of(t)) for t in inputs})
    read: set[int] = set()
    for root in map(edge_of, outputs):
        for node in topological_order(root) if isinstance(root, Node) else ():
            if isinstance(node, Node) and id(node) not in inside:
                read |= {id(parent) for parent in node.parents if parent is not None}
    found = {id(output): id(edge_of(output)) for *_, output in seen}
    return {n: "is read by an operation between layers" for n, e in found.items() if e in read}


def _nodes_between(output: Any, inputs: set[int]) -> set[int]:
    """The nodes that made ``output`` from ``inputs``."""
    found: set[int] = set()
    stack = [output]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in found and id(node) not in inputs:
            found.add(id(node))
            stack.extend(node.parents)
    return found
