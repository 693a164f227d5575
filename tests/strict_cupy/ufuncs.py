"""CuPy's ufuncs: its loops, its keywords (``out``, ``dtype``, ``casting``; no ``where``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from strict_cupy import counters, devices, rules
from strict_cupy.array import ndarray
from strict_cupy.calls import run, unwrap
from strict_cupy.spec import SPEC

SCATTER_DTYPES = {
    "add": "ilqefdILQ",
    "subtract": "iI",
    "maximum": "ilqfdILQ",
    "minimum": "ilqfdILQ",
    "bitwise_and": "ilqILQ",
    "bitwise_or": "ilqILQ",
    "bitwise_xor": "ilqILQ",
}
"""The ufuncs with an ``at``, and the types for which the GPU has that atomic operation."""


class Ufunc:
    """``cupy.ufunc``: ``compute`` is NumPy's, ``types`` are CuPy's loops ("ff->f")."""

    def __init__(self, name: str, types: list[str], compute: np.ufunc) -> None:
        self.name, self.types, self.compute = name, tuple(types), compute
        self.nin = len(types[0].split("->")[0])
        self.nout = len(types[0].split("->")[1])
        self.nargs = self.nin + self.nout

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        return self.call_with(self.compute, *args, out=out, **kwargs)

    def call_with(self, compute: Callable[..., Any], *args: Any, out: Any = None, **kwargs) -> Any:
        """Call by these rules; ``compute`` may be the operator (``x ** 2`` has shortcuts)."""
        unknown = {key: kwargs[key] for key in kwargs if key not in ("dtype", "casting")}
        if unknown:
            raise TypeError(f"Wrong arguments {unknown}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        if len(args) > self.nin:
            out = args[self.nin] if self.nout == 1 else args[self.nin :]
        for x in args[: self.nin]:
            rules.check_operand(x, ndarray)
        if out is not None:
            if not all(isinstance(x, ndarray) for x in (out if isinstance(out, tuple) else [out])):
                raise TypeError("Output arguments type must be cupy.ndarray")
            kwargs["out"] = out
            if kwargs.get("casting") == "unsafe":
                with np.errstate(all="ignore"):
                    rules.check_cast(compute(*unwrap(args[: self.nin])), out.dtype)

        def checked(*a: Any, **k: Any) -> Any:
            result = compute(*a, **k)
            if "out" not in k:
                outputs = result if isinstance(result, tuple) else (result,)
                rules.check_loop(self.name, self.types, [output.dtype for output in outputs])
            return result

        return run(self.name, checked, args[: self.nin], kwargs)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """``a[indices] op= b`` by atomic operations: a place may come twice."""
        if self.name not in SCATTER_DTYPES:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        rules.check_operand(b, ndarray)
        if a.dtype.char not in SCATTER_DTYPES[self.name]:
            raise TypeError(f"cupy.{self.name}.at does not support {a.dtype}")
        raw = a._raw_index(indices)
        value = b._array if isinstance(b, ndarray) else b
        devices.check_current(*(x._device for x in (a, b) if isinstance(x, ndarray)))
        rules.check_cast(value, a.dtype)
        a._indexed(raw)
        self.compute.at(a._array, raw, np.asarray(value).astype(a.dtype))
        counters.launch()

    def reduce(
        self, array: ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims=False
    ) -> Any:
        rules.check_operand(array, ndarray)
        kwargs = {"axis": axis, "dtype": dtype, "keepdims": keepdims}
        return run(self.name, self.compute.reduce, (array,), kwargs | ({"out": out} if out else {}))

    def accumulate(self, array: ndarray, axis: int = 0, dtype: Any = None) -> Any:
        rules.check_operand(array, ndarray)
        return run(self.name, self.compute.accumulate, (array,), {"axis": axis, "dtype": dtype})

    def outer(self, a: Any, b: Any) -> Any:
        for x in (a, b):
            rules.check_operand(x, ndarray)
        return run(self.name, self.compute.outer, (a, b), {})

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"


UFUNCS = {
    name: Ufunc(name, entry["ufunc"], getattr(np, name))
    for name, entry in SPEC["cupy"].items()
    if "ufunc" in entry and isinstance(getattr(np, name, None), np.ufunc)
}
