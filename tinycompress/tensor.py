"""Tensor: an array that remembers how it was made, and what one can do with it.

The operators and methods carry torch's names; what each computes, and its derivative, stands in
``ops/``; how derivatives are chained stands in ``graph.py``, and what a tensor holds in
``recorded.py``. Reductions take ``axis`` and ``keepdim``. float32 is the default, float64 on
request, and the two never meet in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinycompress.backend import (
    array_module,
    check_same_device,
    copy_of,
    is_array,
    on_device,
    parse_device,
    to_device,
)
from tinycompress.graph import Node, check_anomaly, is_grad_enabled, watched
from tinycompress.ops import activations, copies, elementwise, linear, reduce, shape
from tinycompress.ops.steps import chain_name
from tinycompress.recorded import (
    Index as Index,
    Recorded,
    as_array as as_array,
    edge_of,
    float32 as float32,
    float64 as float64,
    grad as grad,
    int64 as int64,
    raw_index,
)
from tinycompress.shapes import (
    Axes,
    axes_of,
    check_broadcast,
    expanded,
    filled_axes,
    flat,
    flattened,
    number,
    one_filled_axis,
    order_of,
    pad_widths,
    reshaped,
    unsqueezed,
    whole,
)

Method = Callable[[Any, Any], "Tensor"]


def _both_sides(op: Callable[..., Any]) -> tuple[Method, Method]:
    """The methods for ``x ∘ other`` and ``other ∘ x``."""
    return (lambda x, other: binary(op, x, other)), (lambda x, other: binary(op, other, x))


def _comparison(name: str) -> Method:
    return lambda x, other: _compare(name, x, other)


class Tensor(Recorded):
    """An array that remembers how it was made: ``Tensor(data, requires_grad=False)``.

    Its arguments and attributes are those of :class:`~tinycompress.recorded.Recorded`.
    """

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError(
                "copy.deepcopy: only leaves can be copied; .detach() this tensor first"
            )
        return Tensor(copy_of(self.data), self.requires_grad)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def detach(self) -> Tensor:
        """The same array, outside the graph."""
        alias = Tensor(self.data)
        alias._users = self.users()
        return alias

    def clone(self) -> Tensor:
        """A copy, inside the graph: its gradient arrives here."""
        return apply(copies.clone, self)

    def to(self, target: str | np.dtype | type) -> Tensor:
        """On another device (``"cpu"``, ``"cuda:1"``) or as another dtype, inside the graph.

        Itself, where nothing changes. Integers and booleans have no gradients: there the graph
        ends.
        """
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            same = parse_device(target) == parse_device(self.device)
            return self if same else apply(copies.to_device, self, device=target)
        try:
            dtype = np.dtype(target)
        except TypeError as error:
            raise TypeError(f"to: expected a device or a dtype, got {target!r}") from error
        if dtype == self.dtype:
            return self
        return apply(copies.astype, self if dtype.kind == "f" else self.detach(), dtype=dtype)

    # -------------------------------------------------------------------------- arithmetic

    __add__, __radd__ = _both_sides(elementwise.add)
    __sub__, __rsub__ = _both_sides(elementwise.subtract)
    __mul__, __rmul__ = _both_sides(elementwise.multiply)
    __truediv__, __rtruediv__ = _both_sides(elementwise.divide)
    __pow__, __rpow__ = _both_sides(elementwise.power)

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(other, self)

    def __neg__(self) -> Tensor:
        return apply(elementwise.negative, self)

    # Comparisons give boolean tensors; they have no derivative. Equality is elementwise, so a
    # tensor hashes by identity.
    __eq__ = _comparison("__eq__")  # type: ignore[assignment]
    __ne__ = _comparison("__ne__")  # type: ignore[assignment]
    __lt__, __le__ = _comparison("__lt__"), _comparison("__le__")
    __gt__, __ge__ = _comparison("__gt__"), _comparison("__ge__")
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
        low = None if min is None else number("clamp: min", min)
        high = None if max is None else number("clamp: max", max)
        x = as_float_tensor(self) if float in (type(low), type(high)) else self
        return apply(elementwise.clamp, x, low=low, high=high)

    def sigmoid(self) -> Tensor:
        return apply(activations.sigmoid, as_float_tensor(self))

    def tanh(self) -> Tensor:
        return apply(activations.tanh, as_float_tensor(self))

    def relu(self) -> Tensor:
        return apply(activations.relu, self)

    def softmax(self, axis: int = -1) -> Tensor:
        axis = one_filled_axis("softmax", self.shape, axis)
        return apply(activations.softmax, as_float_tensor(self), axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        axis = one_filled_axis("log_softmax", self.shape, axis)
        return apply(activations.log_softmax, as_float_tensor(self), axis=axis)

    # -------------------------------------------------------------------------- reductions

    def sum(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        return apply(reduce.sum, self, axis=axes_of(self.shape, axis), keepdim=keepdim)

    def mean(self, axis: Axes = None, keepdim: bool = False) -> Tensor:
        axes = filled_axes("mean", self.shape, axis)
        return apply(reduce.mean, as_float_tensor(self), axis=axes, keepdim=keepdim)

    def var(self, axis: Axes = None, keepdim: bool = False, correction: int = 1) -> Tensor:
        """Variance; ``correction=1`` divides by n − 1 (torch's default), 0 by n."""
        axes = filled_axes("var", self.shape, axis)
        correction = whole("var: correction", correction, 0)
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
        along = None if axis is None else one_filled_axis("argmax", self.shape, axis)
        filled_axes("argmax", self.shape, axis)
        with on_device(self.data):
            return Tensor(self.data.argmax(along, keepdims=keepdim))  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------- shape

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return self.permute(*reversed(range(self.ndim)))

    def reshape(self, *sizes: Any) -> Tensor:
        """The same numbers under another shape; one size may be −1."""
        return apply(shape.reshape, self, shape=reshaped(self.shape, flat("reshape", sizes)))

    view = reshape  # torch's name; here it copies where the memory order asks for it

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Axes ``start`` to ``end`` as one."""
        return self.reshape(flattened(self.shape, start, end))

    def permute(self, *axes: Any) -> Tensor:
        """Axes in the order given."""
        return apply(shape.transpose, self, axes=order_of(self.shape, flat("permute", axes)))

    def transpose(self, first: int, second: int) -> Tensor:
        """Two axes exchanged."""
        order = list(range(self.ndim))
        i, j = axes_of(self.shape, first)[0], axes_of(self.shape, second)[0]
        order[i], order[j] = j, i
        return self.permute(*order)

    def squeeze(self, axis: Axes = None) -> Tensor:
        """Without the axes of length one, or without this one where its length is one."""
        gone = axes_of(self.shape, axis)
        return self.reshape(*(n for i, n in enumerate(self.shape) if n != 1 or i not in gone))

    def unsqueeze(self, axis: int) -> Tensor:
        """With an axis of length one before axis ``axis``."""
        return self.reshape(unsqueezed(self.shape, axis))

    def expand(self, *sizes: Any) -> Tensor:
        """Axes of length one repeated to ``sizes``; −1 leaves an axis as it is. Read-only."""
        return apply(shape.expand, self, shape=expanded(self.shape, flat("expand", sizes)))

    def pad(self, widths: Sequence[tuple[int, int]], value: float = 0) -> Tensor:
        """``value`` around the tensor; ``widths`` gives (before, after) for every axis."""
        value = number("pad: value", value)
        x = as_float_tensor(self) if isinstance(value, float) else self
        return apply(shape.pad, x, widths=pad_widths(self.shape, widths), value=value)

    def __getitem__(self, index: Any) -> Tensor:
        return apply(shape.getitem, self, index=raw_index(index, self.data))


# ------------------------------------------------------------------------------ running operations

VIEWS = (shape.reshape, shape.transpose, shape.expand, shape.getitem)
"""Operations whose output may be a view of their input's memory."""


def apply(op: Callable[..., Any], *inputs: Any, **params: Any) -> Tensor:
    """Run an operation of ``ops/`` on tensors (or numbers, or None) and record it if need be.

    Raises:
        DeviceError: the inputs live on two devices.
        TypeError: two floating dtypes meet.
    """
    name = chain_name(op.__name__, params.get("steps", ()))
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if len(tensors) > 1:
        check_same_device(name, *(t.data for t in tensors))
        _check_same_dtype(name, tensors)
    # An infinity is reported by detect_anomaly, not by NumPy's warnings.
    with np.errstate(all="ignore"), on_device(tensors[0].data):
        arrays = (x.data if isinstance(x, Tensor) else x for x in inputs)
        out, vjps = watched(op, name, "forward")(*arrays, **params)
    result = Tensor(out)
    check_anomaly(name, "forward", result.data, (t.data for t in tensors))
    if is_grad_enabled() and any(t.requires_grad for t in tensors):
        node = Node(name, tuple(map(edge_of, inputs)), vjps, result.data)
        result._node, result.requires_grad = node, True
        for t in tensors:
            if not t.requires_grad:
                t.users().add(node)
    elif op in VIEWS and array_module(out).may_share_memory(out, tensors[0].data):
        result._users = tensors[0].users()
    return result


def _check_same_dtype(name: str, tensors: list[Tensor]) -> None:
    dtypes = {t.dtype for t in tensors if t.dtype.kind == "f"}
    if len(dtypes) > 1:
        shown = " and ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"{name}: {shown} do not mix; convert one with .to({tensors[0].dtype.name!r})"
        )


def binary(op: Callable[..., Any], a: Any, b: Any) -> Tensor:
    """Run an elementwise operation of two operands; one may be a number."""
    a, b = operands(a, b)
    if op is elementwise.divide:  # the quotient of two integers is no integer
        a, b = (as_float_tensor(x) if isinstance(x, Tensor) else x for x in (a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        check_broadcast(op.__name__, a.shape, b.shape)
    return apply(op, a, b)


def _compare(method: str, a: Tensor, b: Any) -> Tensor:
    a, b = operands(a, b)
    if isinstance(b, Tensor):
        check_broadcast(method.strip("_"), a.shape, b.shape)
        check_same_device(method.strip("_"), a.data, b.data)
    with on_device(a.data):
        return Tensor(getattr(a.data, method)(b.data if isinstance(b, Tensor) else b))


# -------------------------------------------------------------------------------- reading arguments


def operand(x: Any) -> Any:
    """A tensor for an array, a Python number for a scalar (which then never promotes)."""
    if isinstance(x, Tensor | bool | int | float) and not isinstance(x, np.generic):
        return x
    if isinstance(x, np.generic) or (isinstance(x, np.ndarray) and x.ndim == 0):
        return x.item()
    if is_array(x):
        return Tensor(x)
    raise TypeError(f"expected a tensor, an array or a number, got {type(x).__name__}")


def operands(*values: Any) -> list[Any]:
    """All operands; where one is floating, integer tensors take its dtype, as in torch."""
    read = [operand(x) for x in values]
    floating = [x.dtype for x in read if isinstance(x, Tensor) and x.dtype.kind == "f"]
    if not floating and any(isinstance(x, float) for x in read):
        floating = [float32]
    if not floating:
        return read
    return [_converted(x, floating[0]) if isinstance(x, Tensor) else x for x in read]


def as_tensor(x: Any) -> Tensor:
    """``x`` itself if it is a tensor, else a tensor around it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def as_float_tensor(x: Any) -> Tensor:
    """``x`` as a tensor of floats; integers and booleans become float32."""
    return _converted(as_tensor(x), float32)


def _converted(x: Tensor, dtype: np.dtype) -> Tensor:
    if x.dtype.kind == "f":
        return x
    with on_device(x.data):
        return Tensor(x.data.astype(dtype))


# ---------------------------------------------------------------------------- functions of tensors


def tensor(
    data: Any, dtype: Any = None, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """A new tensor with a copy of ``data``, on ``device``.

    Python floats become float32 unless ``dtype`` says otherwise; arrays keep their dtype.
    """
    array = as_array(data, dtype)
    with on_device(array):
        array = array_module(array).array(array, dtype=dtype)
    return Tensor(to_device(array, device), requires_grad)


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product: vectors, matrices, and stacks of matrices that broadcast."""
    a, b = operands(a, b)
    shapes = f"{getattr(a, 'shape', ())} and {getattr(b, 'shape', ())}"
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim and b.ndim):
        raise ValueError(f"matmul: both operands need at least one axis, got shapes {shapes}")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"matmul: inner sizes differ in shapes {shapes}")
    check_broadcast("matmul", a.shape[:-2], b.shape[:-2])
    return apply(linear.matmul, a, b)
