"""QTensor: an activation as codes, with what is needed to read them.

    x ≈ scale · (codes − zero_point)

The last three are its :class:`Grid`: one scale and one zero point for the whole tensor. Quantized
layers take QTensors and give QTensors, so codes flow through a model, and each layer knows the
grid of what comes in. A model's own ``forward`` may do with one what does not look at the numbers
(``flatten``, ``reshape``, ``permute`` …); anything else has to be a layer.

It comes in two forms, which mean the same:

- in the integer engine the codes are integers, in the smallest dtype (``uint8`` …). Between layers
  they travel as *steps*, ``codes − zero_point``, in float32, where BLAS wants them, zeros are 0,
  and every whole number up to 2²⁴ is exact; :attr:`QTensor.codes` converts when somebody looks;
- in training (``prepare_qat``) they are a Tensor of floats that hold whole numbers, inside the
  graph, and the scale may be a Parameter that is learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinycompress.backend import Array, is_array, on_device
from tinycompress.compress.quantize.ranges import IntegerRange
from tinycompress.tensor import Tensor, as_float_tensor


class Grid(NamedTuple):
    """Which real number each code of an activation stands for.

    Attributes:
        scale: a number above 0 (exact in float32), or a tensor that holds one.
        zero_point: the code of 0, one of ``target``.
        target: the codes there are.
    """

    scale: Any
    zero_point: int
    target: IntegerRange

    @property
    def steps(self) -> tuple[int, int]:
        """The smallest and the largest ``code − zero_point``."""
        return self.target.qmin - self.zero_point, self.target.qmax - self.zero_point


def _shape_method(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._like(getattr(self._values, name)(*args, **kwargs))

    method.__name__ = name
    method.__doc__ = f"As :meth:`tinycompress.Tensor.{name}`: codes move, none changes."
    return method


class QTensor:
    """Codes on a grid: ``QTensor(codes, scale, zero_point, target)``.

    Args:
        codes: a Tensor of floats (training), or an array of integers.
        scale, zero_point, target: see :class:`Grid`.

    Raises:
        TypeError: codes that are neither.
        ValueError: a zero point that is no code of ``target``, a scale that is not above 0, or (for
            arrays) codes outside of ``target``.
    """

    __slots__ = ("_differentiable", "_origin", "_values", "grid")
    __array_ufunc__ = None  # so that `array + qtensor` asks here, and is told that there is no sum

    def __init__(self, codes: Any, scale: Any, zero_point: int, target: IntegerRange) -> None:
        self.grid = Grid(scale, int(zero_point), target)
        _check_grid(self.grid)
        self._differentiable = isinstance(codes, Tensor)
        self._origin = self.grid.zero_point  # what 0 is in _values
        if isinstance(codes, Tensor):
            if codes.dtype.kind != "f":
                raise TypeError(f"a tensor of codes must hold floats, got {codes.dtype}")
            self._values = codes
        elif is_array(codes) and codes.dtype.kind in "iu":
            self._values = Tensor(_checked_codes(codes, target))
        else:
            what = codes.dtype if is_array(codes) else type(codes).__name__
            raise TypeError(f"codes must be a Tensor of floats or an array of integers, got {what}")

    @classmethod
    def from_steps(cls, steps: Tensor | Array, grid: Grid) -> QTensor:
        """From ``codes − zero_point``, floats that hold whole numbers within the grid.

        Nothing is checked. A Tensor makes the differentiable form, an array the integer form.
        """
        new = cls.__new__(cls)
        new.grid, new._origin = grid, 0
        new._differentiable = isinstance(steps, Tensor)
        new._values = steps if isinstance(steps, Tensor) else Tensor(steps)
        return new

    def with_steps(self, steps: Tensor) -> QTensor:
        """Other codes on the same grid, in the same form, given as ``codes − zero_point``."""
        return self.from_steps(steps if self._differentiable else steps.data, self.grid)

    # --------------------------------------------------------------------------------- reading

    @property
    def codes(self) -> Any:
        """Integers in the smallest dtype; in the differentiable form, a Tensor of floats."""
        shift = self.zero_point - self._origin
        if self._differentiable:
            return self._values + float(shift) if shift else self._values
        with on_device(self._values.data):
            return (self._values.data + shift).astype(self.target.dtype, copy=False)

    def steps(self) -> Tensor:
        """``codes − zero_point`` as floats that hold whole numbers; float32 from integers."""
        values = as_float_tensor(self._values)
        return values - float(self._origin) if self._origin else values

    def dequantize(self) -> Tensor:
        """The numbers that the codes stand for: ``scale · (codes − zero_point)``."""
        steps = self.steps()
        if isinstance(self.scale, Tensor):
            return steps * self.scale
        with on_device(steps.data):
            return steps * float(self.scale)

    @property
    def scale(self) -> Any:
        return self.grid.scale

    @property
    def zero_point(self) -> int:
        return self.grid.zero_point

    @property
    def target(self) -> IntegerRange:
        return self.grid.target

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    @property
    def ndim(self) -> int:
        return self._values.ndim

    @property
    def size(self) -> int:
        return self._values.size

    @property
    def dtype(self) -> np.dtype:
        """Of :attr:`codes`."""
        return self._values.dtype if self._differentiable else self.target.dtype

    @property
    def device(self) -> str:
        return self._values.device

    @property
    def requires_grad(self) -> bool:
        return self._values.requires_grad

    def numel(self) -> int:
        return self._values.size

    def dim(self) -> int:
        return self._values.ndim

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"QTensor(shape={self.shape}, codes={self.dtype}, scale={_number(self.scale)}, " + (
            f"zero_point={self.zero_point}, target={self.target})"
        )

    # ----------------------------------------------------------------------------------- moving

    flatten, reshape, view = map(_shape_method, ("flatten", "reshape", "view"))
    permute, transpose, detach = map(_shape_method, ("permute", "transpose", "detach"))
    squeeze, unsqueeze = map(_shape_method, ("squeeze", "unsqueeze"))
    __getitem__ = _shape_method("__getitem__")

    def _like(self, values: Tensor) -> QTensor:
        new = type(self).__new__(type(self))
        new.grid, new._origin, new._values = self.grid, self._origin, values
        new._differentiable = self._differentiable
        return new

    # --------------------------------------------------------------------- what is not done here

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"QTensor.{name}: {_ADVICE}")

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(f"a QTensor is not computed with: {_ADVICE}")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __neg__ = __pow__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __abs__ = __float__ = __int__ = __bool__ = _refuse
    __array__ = _refuse

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))


_ADVICE = (
    "between quantized layers an activation is codes on a grid, and by itself only moves them "
    "(flatten, reshape, permute …). Let a layer compute it: nn.Add() for a sum, nn.Concat() for "
    "cat, nn.ReLU(), nn.MaxPool2d(…); or take .dequantize() for floats"
)


def _check_grid(grid: Grid) -> None:
    if not isinstance(grid.target, IntegerRange):
        raise TypeError(f"target must be an IntegerRange, got {grid.target!r}")
    if not grid.target.qmin <= grid.zero_point <= grid.target.qmax:
        raise ValueError(
            f"the zero point must be one of the codes {grid.target.qmin} … {grid.target.qmax}, got "
            f"{grid.zero_point}"
        )
    if isinstance(grid.scale, Tensor):
        return  # to look at it would make a GPU wait
    if not 0 < float(grid.scale) < np.inf:
        raise ValueError(f"a scale must be above 0 and finite, got {grid.scale}")


def _checked_codes(codes: Array, target: IntegerRange) -> Array:
    with on_device(codes):
        if codes.size and not target.qmin <= int(codes.min()) <= int(codes.max()) <= target.qmax:
            raise ValueError(
                f"codes must lie within {target.qmin} … {target.qmax}, got {int(codes.min())} … "
                f"{int(codes.max())}"
            )
        return codes.astype(target.dtype, copy=False)


def _number(scale: Any) -> float:
    return scale.item() if isinstance(scale, Tensor) else float(scale)
