"""An array with a place in the graph: what a tensor *is*; ``tensor.py`` adds what it can do.

A :class:`Recorded` holds an array, and where it came from: a :class:`~tinycompress.graph.Node` if a
recorded operation made it, nothing if it is a leaf. From there follow its derivatives
(``backward``, :func:`grad`) and the rule for writing into it: not while a graph may still need the
old numbers. Read ``graph.py`` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any
from weakref import WeakSet

import numpy as np

from tinycompress.backend import (
    Array,
    array_module,
    check_same_device,
    device_of,
    is_array,
    on_device,
    to_numpy,
)
from tinycompress.graph import Node, backpropagate, is_grad_enabled

float32, float64, int64 = np.dtype("float32"), np.dtype("float64"), np.dtype("int64")
Index = int | slice | EllipsisType | None | Array | tuple[Any, ...]


class Recorded:
    """An array, and when it requires gradients, the operation that made it.

    Args:
        data: an array (kept, not copied), a tensor, or numbers in lists. Python floats become
            float32; arrays keep their dtype.
        requires_grad: whether ``backward`` should leave a gradient here.

    Attributes:
        data: the NumPy or CuPy array.
        grad: an array like ``data`` after ``backward()``, else None.
    """

    __slots__ = ("__weakref__", "_node", "_users", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # so that `numpy_array * tensor` asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = as_array(data)
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        self._users: WeakSet[Node] | None = None  # see users()
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"only floating-point tensors have gradients, got {self.data.dtype}")

    # ------------------------------------------------------------------------- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``: it follows from the array, it is not stored."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self._node is None

    def numel(self) -> int:
        return self.data.size

    def dim(self) -> int:
        return self.data.ndim

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a 0-d tensor has no len()")
        return self.shape[0]

    def __repr__(self) -> str:
        body = np.array2string(to_numpy(self.data), separator=", ", prefix="tensor(", threshold=100)
        notes = [] if self.dtype in (float32, int64, np.dtype(bool)) else [f"dtype={self.dtype}"]
        notes += [f'device="{self.device}"'] if self.device != "cpu" else []
        notes += [f"made by {self._node.name}"] if self._node else []
        notes += ["requires_grad=True"] if self.requires_grad and not self._node else []
        return f"tensor({', '.join([body, *notes])})"

    # -------------------------------------------------------------------------- leaving it

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array: the same memory on a CPU, a copy from a GPU."""
        return to_numpy(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> float | int | bool:
        """The one number that it holds, as a Python number. On a GPU this waits for the device."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one value, this one has shape {self.shape}")
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, specification: str) -> str:  # f"{loss:.3f}"
        return format(self.item(), specification) if specification else str(self)

    # ------------------------------------------------------------------------- derivatives

    def backward(self, gradient: Any = None) -> None:
        """Add d(self)/d(leaf) to ``leaf.grad`` of every leaf that requires gradients.

        Args:
            gradient: d(loss)/d(self), of this shape. May be left out for a single number.
        """
        for leaf, g in backpropagate(edge_of(self), _seed("backward", self, gradient)).values():
            with on_device(g):
                leaf.grad = _own(g) if leaf.grad is None else leaf.grad + g

    # --------------------------------------------------------------------- writing into it

    def users(self) -> WeakSet[Node]:
        """The live nodes that may need the numbers in this memory. Views of it share the set.

        Operations enter constants here, and views of anything (``tensor.apply``). Leaves that
        require gradients are not entered: an optimizer writes into those between two steps.
        """
        if self._users is None:
            self._users = WeakSet()
        if self._node is not None:
            self._users.add(self._node)
        return self._users

    def __setitem__(self, index: Any, value: Any) -> None:
        """Assign in place, where no recorded operation depends on the old values."""
        if self._node is not None or self._users or (self.requires_grad and is_grad_enabled()):
            raise RuntimeError(
                f"in-place assignment into a tensor of shape {self.shape} that takes part in a "
                "graph would make its derivatives wrong. Build a new tensor with tc.where or "
                "tc.cat, assign into .detach().clone(), drop what was computed from it first, or, "
                "for a parameter, assign inside tc.no_grad()"
            )
        if any(step == 0 and n > 1 for step, n in zip(self.data.strides, self.shape, strict=True)):
            raise RuntimeError(
                f"in-place assignment into an expanded tensor of shape {self.shape}: several of "
                "its places are one number in memory; .clone() it first"
            )
        with on_device(self.data):
            self.data[raw_index(index, self.data)] = self._assignable(value)

    def _assignable(self, value: Any) -> Any:
        """``value`` as an array on this device, or a number."""
        if isinstance(value, Recorded):
            if value.requires_grad and is_grad_enabled():
                raise RuntimeError(
                    "in-place assignment of a tensor that requires gradients would lose them: "
                    "build the result with tc.stack, tc.cat or tc.where, or assign its .detach()"
                )
            value = value.data
        if is_array(value):
            check_same_device("in-place assignment", self.data, value)
        return array_module(self.data).asarray(value) if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------------------ derivatives


def grad(
    output: Recorded,
    inputs: Recorded | Sequence[Recorded],
    gradient: Any = None,
    out: Sequence[Array] | None = None,
) -> list:
    """d(output)/d(input) for each of ``inputs``. No ``.grad`` is read or written.

    Args:
        output: usually the loss, a single number.
        inputs: tensors that require gradients; parameters or intermediate results.
        gradient: d(loss)/d(output) where ``output`` is not a single number.
        out: arrays to write the derivatives into; None for new ones.

    Returns:
        One array per input, of its shape and dtype; zeros where ``output`` does not depend on it.
    """
    inputs = [inputs] if isinstance(inputs, Recorded) else list(inputs)
    edges = [edge_of(t) for t in inputs]
    for t, edge in zip(inputs, edges, strict=True):
        if edge is None:
            raise ValueError(f"grad: the input of shape {t.shape} does not require gradients")
    seed = _seed("grad", output, gradient)
    found = backpropagate(edge_of(output), seed, {id(e) for e in edges})
    if out is None:
        return [_found_or_zeros(found, e, t.data) for t, e in zip(inputs, edges, strict=True)]
    for target, edge in zip(out, edges, strict=True):
        target[...] = found[id(edge)][1] if id(edge) in found else 0
    return list(out)


def edge_of(x: Any) -> Any:
    """What a node keeps of an input: the node that made it, the leaf itself, or None."""
    if not isinstance(x, Recorded) or not x.requires_grad:
        return None
    return x if x._node is None else x._node


def _seed(name: str, t: Recorded, gradient: Any) -> Array:
    """The gradient that the walk back begins with."""
    if not t.requires_grad:
        raise RuntimeError(
            f"{name}: this tensor was not made from anything that requires gradients "
            "(or was made under no_grad)"
        )
    xp = array_module(t.data)
    with on_device(t.data):
        if gradient is None:
            if t.size != 1:
                raise ValueError(f"{name}: a tensor of shape {t.shape} needs an explicit gradient")
            return xp.ones_like(t.data)
        g = gradient.data if isinstance(gradient, Recorded) else gradient
        if is_array(g):
            check_same_device(name, t.data, g)
        g = xp.asarray(g, dtype=t.dtype)
        if g.shape != t.shape:
            raise ValueError(f"{name}: gradient has shape {g.shape}, the tensor {t.shape}")
        return g


def _found_or_zeros(found: dict[int, tuple[Any, Array]], edge: Any, like: Array) -> Array:
    with on_device(like):
        if id(edge) in found:
            return _own(found[id(edge)][1])
        return array_module(like).zeros_like(like)


def _own(g: Array) -> Array:
    """``g`` in memory of its own: vjps may hand the same array, or a view, to several inputs."""
    return array_module(g).array(g)


# ------------------------------------------------------------------------------ reading arguments


def as_array(data: Any, dtype: Any = None) -> Array:
    """``data`` as an array: Python floats as float32, integers as int64, arrays as they are.

    A ``dtype`` is for numbers in lists only, which are then read in full precision.
    """
    if isinstance(data, Recorded):
        return data.data
    if is_array(data):
        array = data
    else:
        array = np.asarray(data, dtype)
        if array.dtype == float64 and dtype is None and not isinstance(data, np.generic):
            array = array.astype(float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds numbers or booleans, got dtype {array.dtype}")
    return array


def raw_index(index: Any, like: Array) -> Any:
    """``index`` with tensors as arrays, and lists and host arrays as arrays beside ``like``."""
    if isinstance(index, tuple):
        return tuple(raw_index(i, like) for i in index)
    if isinstance(index, Recorded):
        index = index.data
    if isinstance(index, list):
        index = np.asarray(index, None if index else int64)
    if not is_array(index):
        return index
    if isinstance(index, np.ndarray) and not isinstance(like, np.ndarray):
        return array_module(like).asarray(index)  # once: forward and backward use it
    check_same_device("index", like, index)
    return index
