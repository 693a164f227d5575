"""The operators and the computing methods of ``cupy.ndarray``; :func:`add` adds them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from strict_cupy import counters, devices, rules
from strict_cupy.array import ndarray, view
from strict_cupy.calls import run, unwrap
from strict_cupy.spec import SPEC
from strict_cupy.ufuncs import UFUNCS

BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "eq": "equal", "ne": "not_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}

LIKE_FUNCTIONS = [
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "choose", "clip", "compress",
    "cumprod", "cumsum", "diagonal", "dot", "max", "mean", "min", "nonzero", "partition", "prod",
    "ptp", "put", "ravel", "repeat", "reshape", "round", "searchsorted", "sort", "squeeze", "std",
    "sum", "swapaxes", "take", "trace", "transpose", "var",
]  # fmt: skip
"""Methods with the parameters of the function of the same name."""

IN_PLACE = {"sort", "partition", "put", "fill"}
SYNCHRONISING = {"nonzero", "compress"}
FREE_FORM = {"reshape": {"order"}, "transpose": set(), "clip": {"min", "max", "out"}}
"""Methods that take more positional forms than their function, and their keywords."""


def add() -> None:
    """Complete the class."""
    for name, ufunc in BINARY.items():
        symbol = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", _binary(ufunc, symbol))
        setattr(ndarray, f"__r{name}__", _reflected(ufunc, symbol))
        setattr(ndarray, f"__i{name}__", _in_place(ufunc))
    for name, ufunc in COMPARISONS.items():
        setattr(ndarray, f"__{name}__", _binary(ufunc, getattr(operator, name)))
    for name, ufunc in UNARY.items():
        setattr(ndarray, f"__{name}__", _unary(ufunc))
    for name in LIKE_FUNCTIONS:
        setattr(ndarray, name, _method(name))
    for function in (astype, copy, fill, flatten, __matmul__, __array_ufunc__):
        setattr(ndarray, function.__name__, function)
    ndarray.view = reinterpret


# ------------------------------------------------------------------------------------ operators


def _defers(x: ndarray, y: Any) -> bool:
    """Whether ``x + y`` is left to ``y.__radd__`` (CuPy's ``_should_use_rop``)."""
    if hasattr(y, "__array_ufunc__"):
        return y.__array_ufunc__ is None
    return x.__array_priority__ < getattr(y, "__array_priority__", 0)


def _binary(ufunc: str, symbol: Callable[[Any, Any], Any]) -> Callable[[ndarray, Any], Any]:
    def method(x: ndarray, y: Any) -> Any:
        return NotImplemented if _defers(x, y) else UFUNCS[ufunc].call_with(symbol, x, y)

    return method


def _reflected(ufunc: str, symbol: Callable[[Any, Any], Any]) -> Callable[[ndarray, Any], Any]:
    return lambda x, y: UFUNCS[ufunc].call_with(symbol, y, x)


def _in_place(ufunc: str) -> Callable[[ndarray, Any], Any]:
    return lambda x, y: UFUNCS[ufunc](x, y, out=x)


def _unary(ufunc: str) -> Callable[[ndarray], Any]:
    return lambda x: UFUNCS[ufunc](x)


def __matmul__(self: ndarray, other: Any) -> Any:
    if not isinstance(other, ndarray):
        if _defers(self, other):
            return NotImplemented
        raise TypeError(f"Unsupported type {type(other)}")
    return run("matmul", np.matmul, (self, other), {})


def __array_ufunc__(self: ndarray, ufunc: np.ufunc, method: str, *inputs: Any, **kw: Any) -> Any:
    """A NumPy scalar on the left (``np.float32(2) * x``) comes here and gives a CuPy array.

    ``np.exp(x)`` comes here too. CuPy would let it pass; here it is refused, because in this
    project NumPy and CuPy arrays never meet and a library function is called as ``xp.exp``.
    """
    if ufunc.__name__ in COMPARISONS.values():  # NumPy turns the scalar into a 0-d array first
        inputs = tuple(x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs)
    scalars = [x for x in inputs if type(x) in rules.SCALAR_TYPES and isinstance(x, np.generic)]
    if method == "__call__" and scalars and ufunc.__name__ in UFUNCS:
        return UFUNCS[ufunc.__name__](*inputs, **kw)
    raise TypeError(
        f"np.{ufunc.__name__} called with a CuPy array: call xp.{ufunc.__name__}, with arrays of "
        "one library"
    )


# ------------------------------------------------------------------------------------ methods


def _method(name: str) -> Callable[..., Any]:
    """``x.sum(...)`` by the parameters of ``cupy.sum``, the first one left out."""
    signature = dict(SPEC["cupy"][name]["sig"])
    signature["p"] = signature["p"][1:]
    if name in FREE_FORM:
        signature = {"p": FREE_FORM[name], "var": True, "kw": False}

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        rules.check_keywords(f"ndarray.{name}", signature, args, kwargs)
        if name in SYNCHRONISING:
            counters.synchronise(name)

        def compute(array: np.ndarray, *a: Any, **k: Any) -> Any:
            return getattr(array, name)(*a, **k)

        if name == "put":
            rules.refuse_duplicates((self.size,), *(unwrap(x) for x in args[:2]))
        return run(name, compute, (self, *args), kwargs, in_place=name in IN_PLACE)

    return method


def astype(
    self: ndarray, dtype: Any, order: str = "K", casting: None = None, subok: None = None, copy=True
) -> ndarray:
    """A cast copy in the same memory order; the array itself where nothing is to do."""
    if casting is not None or subok is not None:
        raise TypeError("casting and subok are not supported yet")
    dtype = np.dtype(dtype)
    if not copy and dtype == self.dtype and order in ("K", None):
        return self
    rules.check_cast(self._array, dtype)
    return run(
        "astype",
        lambda array: array.astype(dtype, order=order or "K"),
        (self,),
        {},
        keeps_order=True,
    )


def copy(self: ndarray, order: str = "C") -> ndarray:
    """A copy on the *current* device, wherever the array is; between devices, contiguous only."""
    if self._device != devices.current():
        kept = self._array.copy(order=order)
        if not (kept.flags.c_contiguous or kept.flags.f_contiguous):
            raise NotImplementedError("CuPy cannot copy non-contiguous array between devices.")
        counters.launch()
        return view(kept, devices.current())
    return run("copy", lambda a: a.copy(order=order), (self,), {}, keeps_order=True)


def fill(self: ndarray, value: Any) -> None:
    rules.check_operand(value, ndarray)
    rules.check_cast(value._array if isinstance(value, ndarray) else value, self.dtype)
    run("fill", lambda a, v: a.fill(v), (self, value), {}, in_place=True)


def flatten(self: ndarray, order: str = "C") -> ndarray:
    return run("flatten", lambda a: a.flatten(order), (self,), {})


def reinterpret(self: ndarray, dtype: Any = None, type: Any = None) -> ndarray:
    return view(self._array.view() if dtype is None else self._array.view(dtype), self._device)
