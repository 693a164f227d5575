"""Tensor: an array that remembers how it was made.

The operators and methods carry torch's names; what each computes, and its derivative, stands in
``ops/``; how derivatives are chained stands in ``graph.py``. Reductions take ``axis`` and
``keepdim``. float32 is the default, float64 on request, and the two never meet in silence.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from tinycompress.backend import (
    Array,
    array_module,
    check_same_device,
    device_of,
    is_array,
    parse_device,
    to_device,
    to_numpy,
)
from tinycompress.graph import Node, backpropagate, check_anomaly, is_grad_enabled
from tinycompress.ops import activations, elementwise, linear, reduce, shape
from tinycompress.shapes import (
    Axes,
    axes_of,
    check_broadcast,
    expanded,
    filled_axes,
    flat,
    reshaped,
)

float32, float64, int64 = np.dtype("float32"), np.dtype("float64"), np.dtype("int64")
Index = int | slice | EllipsisType | None | Array | tuple[Any, ...]


class Tensor:
    """An array, and when it requires gradients, the operation that made it.

    Args:
        data: an array (kept, not copied), a tensor, or numbers in lists. Python floats become
            float32; arrays keep their dtype.
        requires_grad: whether ``backward`` should leave a gradient here.

    Attributes:
        data: the NumPy or CuPy array.
        grad: an array like ``data`` after ``backward()``, else None.
    """

    __slots__ = ("__weakref__", "_node", "_uses", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # so that `numpy_array * tensor` asks the tensor

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = as_array(data)
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        self._uses: list[weakref.ref[Node]] = []
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
    def T(self) -> Tensor:
        """All axes reversed."""
        return self.permute(*reversed(range(self.ndim)))

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

    __float__ = lambda self: float(self.item())  # noqa: E731
    __int__ = lambda self: int(self.item())  # noqa: E731

    def __bool__(self) -> bool:
        return bool(self.item())

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError(
                "copy.deepcopy: only leaves can be copied; .detach() this tensor first"
            )
        return Tensor(self.data.copy(), self.requires_grad)

    def detach(self) -> Tensor:
        """The same array, outside the graph."""
        return Tensor(self.data)

    def clone(self) -> Tensor:
        """A copy, inside the graph: its gradient arrives here."""
        return apply(_clone, self)

    def to(self, target: str | np.dtype | type) -> Tensor:
        """On another device (``"cpu"``, ``"cuda:1"``) or as another dtype, inside the graph.

        Itself, where nothing changes.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            same = parse_device(target) == parse_device(self.device)
            return self if same else apply(_to_device, self, device=target)
        dtype = np.dtype(target)
        return self if dtype == self.dtype else apply(_astype, self, dtype=dtype)

    # ------------------------------------------------------------------------- derivatives

    def backward(self, gradient: Array | None = None) -> None:
        """Add d(self)/d(leaf) to ``leaf.grad`` of every leaf that requires gradients.

        Args:
            gradient: d(loss)/d(self), of this shape. May be left out for a single number.
        """
        for leaf, g in backpropagate(_edge(self), _seed(self, gradient)).values():
            leaf.grad = _own(g) if leaf.grad is None else leaf.grad + g

    # -------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return binary(elementwise.add, self, other)

    def __sub__(self, other: Any) -> Tensor:
        return binary(elementwise.subtract, self, other)

    def __mul__(self, other: Any) -> Tensor:
        return binary(elementwise.multiply, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return binary(elementwise.divide, as_float_tensor(self), other)

    def __pow__(self, other: Any) -> Tensor:
        return binary(elementwise.power, self, other)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return binary(elementwise.add, other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return binary(elementwise.subtract, other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return binary(elementwise.multiply, other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return binary(elementwise.divide, other, as_float_tensor(self))

    def __rpow__(self, other: Any) -> Tensor:
        return binary(elementwise.power, other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    def __neg__(self) -> Tensor:
        return apply(elementwise.negative, self)

    # Comparisons give boolean tensors; they have no derivative. Equality is elementwise, so a
    # tensor hashes by identity.
    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare("__eq__", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare("__ne__", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _compare("__lt__", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _compare("__le__", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _compare("__gt__", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _compare("__ge__", self, other)

    __hash__ = object.__hash__

    # --------------------------------------------------------------- functions of each value

    def exp(self) -> Tensor:
        return apply(elementwise.exp, as_float_tensor(self))

    def log(self) -> Tensor:
        return apply(elementwise.log, as_float_tensor(self))

    def sqrt(self) -> Tensor:
        return apply(elementwise.sqrt, as_float_tensor(self))

    def abs(self) -> Tensor:
        return apply(elementwise.absolute, self)

    __abs__ = abs

    def clamp(self, min: float | None = None, max: float | None = None) -> Tensor:
        """Values below ``min`` become ``min``, above ``max`` become ``max``; one may be None."""
        if min is None and max is None:
            raise ValueError("clamp: give min, max or both")
        return apply(elementwise.clamp, self, low=min, high=max)

    def sigmoid(self) -> Tensor:
        return apply(activations.sigmoid, as_float_tensor(self))

    def tanh(self) -> Tensor:
        return apply(activations.tanh, as_float_tensor(self))

    def relu(self) -> Tensor:
        return apply(activations.relu, self)

    def softmax(self, axis: int) -> Tensor:
        return apply(activations.softmax, as_float_tensor(self), axis=axis)

    def log_softmax(self, axis: int) -> Tensor:
        return apply(activations.log_softmax, as_float_tensor(self), axis=axis)

    # -------------------------------------------------------------------------- reductions

    def sum(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.sum, self, axis=axes_of(self.shape, axis), keepdim=keepdim)

    def mean(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        return apply(
            reduce.mean,
            as_float_tensor(self),
            axis=filled_axes("mean", self.shape, axis),
            keepdim=keepdim,
        )

    def var(self, axis: Axes = None, keepdim: bool = False, correction: int = 1) -> Tensor:
        """Variance; ``correction=1`` divides by n − 1 (torch's default), 0 by n."""
        axes = filled_axes("var", self.shape, axis)
        n = math.prod(self.shape[a] for a in axes)
        if n <= correction:
            raise ValueError(
                f"var: needs more than correction={correction} values along axis {axis}, got {n}"
            )
        return apply(
            reduce.var, as_float_tensor(self), axis=axes, keepdim=keepdim, correction=correction
        )

    def max(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        """The largest value (as ``torch.amax``: equal maxima share the gradient evenly)."""
        return apply(reduce.max, self, axis=filled_axes("max", self.shape, axis), keepdim=keepdim)

    def min(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        """The smallest value (as ``torch.amin``)."""
        return apply(reduce.min, self, axis=filled_axes("min", self.shape, axis), keepdim=keepdim)

    def argmax(self, axis: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first largest value, int64, without derivative."""
        filled_axes("argmax", self.shape, axis)
        return Tensor(self.data.argmax(axis, keepdims=keepdim))  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------- shape

    def reshape(self, *sizes: Any) -> Tensor:
        """The same numbers under another shape; one size may be −1."""
        return apply(shape.reshape, self, shape=reshaped(self.shape, flat(sizes)))

    view = reshape  # torch's name; here it copies where the memory order asks for it

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Axes ``start`` to ``end`` as one."""
        if self.ndim == 0:
            return self.reshape(1)
        first, last = (axes_of(self.shape, i)[0] for i in (start, end))
        middle = math.prod(self.shape[first : last + 1])
        return self.reshape(*self.shape[:first], middle, *self.shape[last + 1 :])

    def permute(self, *axes: Any) -> Tensor:
        """Axes in the order given."""
        order = tuple(axes_of(self.shape, a)[0] for a in flat(axes))
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"permute: {axes} is not an order of the {self.ndim} axes")
        return apply(shape.transpose, self, axes=order)

    def transpose(self, first: int, second: int) -> Tensor:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        i, j = axes_of(self.shape, first)[0], axes_of(self.shape, second)[0]
        order[i], order[j] = j, i
        return self.permute(*order)

    def squeeze(self, axis: int | None = None) -> Tensor:
        """Without the axes of length one, or without this one where its length is one."""
        gone = axes_of(self.shape, axis)
        return self.reshape(*(n for i, n in enumerate(self.shape) if n != 1 or i not in gone))

    def unsqueeze(self, axis: int) -> Tensor:
        """With an axis of length one before axis ``axis``."""
        at = axis + self.ndim + 1 if axis < 0 else axis
        if not 0 <= at <= self.ndim:
            raise IndexError(f"unsqueeze: axis {axis} is out of range for shape {self.shape}")
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def expand(self, *sizes: Any) -> Tensor:
        """Axes of length one repeated to ``sizes``; −1 leaves an axis as it is. Read-only."""
        return apply(shape.expand, self, shape=expanded(self.shape, flat(sizes)))

    def pad(self, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
        """``value`` around the tensor; ``widths`` gives (before, after) for every axis."""
        pairs = tuple((int(a), int(b)) for a, b in widths)
        if len(pairs) != self.ndim or any(w < 0 for pair in pairs for w in pair):
            raise ValueError(
                f"pad: widths need (before, after) ≥ 0 for each of {self.ndim} axes, got {widths}"
            )
        return apply(shape.pad, self, widths=pairs, value=value)

    # ---------------------------------------------------------------------------- indexing

    def __getitem__(self, index: Any) -> Tensor:
        return apply(shape.getitem, self, index=_raw_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Assign in place, where no recorded operation depends on the old values."""
        recorded = any(use() is not None for use in self._uses)
        if self._node is not None or recorded or (self.requires_grad and is_grad_enabled()):
            raise RuntimeError(
                f"in-place assignment into a tensor of shape {self.shape} that takes part in a "
                "graph would make its derivatives wrong. Build a new tensor with tc.where or "
                "tc.cat, assign into .clone() of its .detach(), or, for a parameter, assign "
                "inside tc.no_grad()"
            )
        self.data[_raw_index(index)] = value.data if isinstance(value, Tensor) else value


# ------------------------------------------------------------------------------ running operations


def apply(op: Callable[..., Any], *inputs: Any, **params: Any) -> Tensor:
    """Run an operation of ``ops/`` on tensors (or numbers, or None) and record it if need be.

    Raises:
        DeviceError: the inputs live on two devices.
        TypeError: two floating dtypes meet.
    """
    name = op.__name__.lstrip("_")
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if len(tensors) > 1:
        check_same_device(name, *(t.data for t in tensors))
        _check_same_dtype(name, tensors)
    with np.errstate(all="ignore"):  # detect_anomaly is how an infinity is reported
        out, vjps = op(*(x.data if isinstance(x, Tensor) else x for x in inputs), **params)
    result = Tensor(out)
    check_anomaly(name, "forward", result.data, (t.data for t in tensors))
    if is_grad_enabled() and any(t.requires_grad for t in tensors):
        node = Node(name, tuple(map(_edge, inputs)), vjps, result.data)
        result._node, result.requires_grad = node, True
        for t in tensors:
            if not t.requires_grad:  # its values are part of the graph: see __setitem__
                t._uses = [u for u in t._uses if u() is not None] + [weakref.ref(node)]
    return result


def grad(output: Tensor, inputs: Sequence[Tensor], gradient: Array | None = None) -> list[Array]:
    """d(output)/d(input) for each of ``inputs``, as new arrays. No ``.grad`` is read or written.

    Args:
        output: usually the loss, a single number.
        inputs: tensors that require gradients; parameters or intermediate results.
        gradient: d(loss)/d(output) where ``output`` is not a single number.

    Returns:
        One array per input, of its shape and dtype; zeros where ``output`` does not depend on it.
    """
    edges = [_edge(t) for t in inputs]
    for t, edge in zip(inputs, edges, strict=True):
        if edge is None:
            raise ValueError(f"grad: the input of shape {t.shape} does not require gradients")
    found = backpropagate(_edge(output), _seed(output, gradient), {id(e) for e in edges})
    zeros = lambda t: array_module(t.data).zeros_like(t.data)  # noqa: E731
    return [
        _own(found[id(e)][1]) if id(e) in found else zeros(t)
        for t, e in zip(inputs, edges, strict=True)
    ]


def _edge(x: Any) -> Any:
    """What a node keeps of an input: the node that made it, the leaf itself, or None."""
    if not isinstance(x, Tensor) or not x.requires_grad:
        return None
    return x if x._node is None else x._node


def _seed(t: Tensor, gradient: Array | None) -> Array:
    """The gradient that the walk back begins with."""
    if not t.requires_grad:
        raise RuntimeError(
            "backward: this tensor was not made from anything that requires gradients "
            "(or was made under no_grad)"
        )
    xp = array_module(t.data)
    if gradient is None:
        if t.size != 1:
            raise ValueError(f"backward: a tensor of shape {t.shape} needs an explicit gradient")
        return xp.ones_like(t.data)
    g = gradient.data if isinstance(gradient, Tensor) else xp.asarray(gradient, dtype=t.dtype)
    if g.shape != t.shape:
        raise ValueError(f"backward: gradient has shape {g.shape}, the tensor {t.shape}")
    return g


def _own(g: Array) -> Array:
    """``g`` in memory of its own: vjps may hand the same array, or a view, to several inputs."""
    return array_module(g).array(g)


def _check_same_dtype(name: str, tensors: list[Tensor]) -> None:
    dtypes = {t.dtype for t in tensors if t.dtype.kind == "f"}
    if len(dtypes) > 1:
        shown = " and ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"{name}: {shown} do not mix; convert one with .to({tensors[0].dtype.name!r})"
        )


# -------------------------------------------------------------------------------- reading arguments


def as_array(data: Any) -> Array:
    """``data`` as an array: Python floats as float32, integers as int64, arrays as they are."""
    if isinstance(data, Tensor):
        return data.data
    if is_array(data):
        array = data
    elif isinstance(data, np.generic):
        array = np.asarray(data)
    else:
        array = np.asarray(data)
        if array.dtype == float64:
            array = array.astype(float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds numbers or booleans, got dtype {array.dtype}")
    return array


def operand(x: Any) -> Any:
    """A tensor for an array, a Python number for a scalar (which then never promotes)."""
    if isinstance(x, Tensor | bool | int | float):
        return x
    if isinstance(x, np.generic) or (isinstance(x, np.ndarray) and x.ndim == 0):
        return x.item()
    if is_array(x):
        return Tensor(x)
    raise TypeError(f"expected a tensor, an array or a number, got {type(x).__name__}")


def operands(a: Any, b: Any) -> tuple[Any, Any]:
    """Both operands; where one is floating, an integer tensor takes its dtype, as in torch."""
    a, b = operand(a), operand(b)
    for x, y in ((a, b), (b, a)):
        floating = y.dtype if isinstance(y, Tensor) else float32 if isinstance(y, float) else None
        if floating is not None and floating.kind == "f" and isinstance(x, Tensor):
            converted = x if x.dtype.kind == "f" else Tensor(x.data.astype(floating))
            a, b = (converted, b) if x is a else (a, converted)
    return a, b


def binary(op: Callable[..., Any], a: Any, b: Any) -> Tensor:
    """Run an elementwise operation of two operands; one may be a number."""
    a, b = operands(a, b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        check_broadcast(op.__name__, a.shape, b.shape)
    return apply(op, a, b)


def _compare(method: str, a: Tensor, b: Any) -> Tensor:
    a, b = operands(a, b)
    if isinstance(b, Tensor):
        check_broadcast(method.strip("_"), a.shape, b.shape)
        check_same_device(method.strip("_"), a.data, b.data)
    return Tensor(getattr(a.data, method)(b.data if isinstance(b, Tensor) else b))


def as_tensor(x: Any) -> Tensor:
    """``x`` itself if it is a tensor, else a tensor around it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def as_float_tensor(x: Any) -> Tensor:
    """``x`` as a tensor of floats; integers and booleans become float32."""
    t = as_tensor(x)
    return t if t.dtype.kind == "f" else Tensor(t.data.astype(float32))


def _raw_index(index: Any) -> Any:
    """``index`` with tensors as arrays (an integer list becomes one too)."""
    if isinstance(index, tuple):
        return tuple(_raw_index(i) for i in index)
    if isinstance(index, list):
        return np.asarray(index)
    return index.data if isinstance(index, Tensor) else index


# ---------------------------------------------------------------------------- functions of tensors


def tensor(
    data: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """A new tensor with a copy of ``data``, on ``device``.

    Python floats become float32 unless ``dtype`` says otherwise; arrays keep their dtype.
    """
    array = as_array(data)
    xp = array_module(array)
    return Tensor(to_device(xp.array(array, dtype=dtype), device), requires_grad)


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product: vectors, matrices, and stacks of matrices that broadcast."""
    a, b = operands(a, b)
    shapes = f"{getattr(a, 'shape', ())} and {getattr(b, 'shape', ())}"
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and b.ndim):
        raise ValueError(f"matmul: both operands need at least one axis, got shapes {shapes}")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"matmul: inner sizes differ in shapes {shapes}")
    return apply(linear.matmul, a, b)


# ------------------------------------------------------------ operations that only tensors need


def _clone(x: Array) -> elementwise.Result:
    return x.copy(), (lambda g: g,)


def _astype(x: Array, dtype: np.dtype) -> elementwise.Result:
    return x.astype(dtype), (lambda g: g.astype(x.dtype),)


def _to_device(x: Array, device: str) -> elementwise.Result:
    home = device_of(x)
    return to_device(x, device), (lambda g: to_device(g, home),)
