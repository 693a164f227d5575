"""The modules: ``cupy``, its ``linalg``, ``lib.stride_tricks``, ``cuda`` and ``random``.

Every name of the real namespace is there or raises with a reason, and no other is.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from strict_cupy import counters, creation, devices, methods, rules
from strict_cupy.array import fresh, ndarray
from strict_cupy.calls import run
from strict_cupy.spec import SPEC
from strict_cupy.ufuncs import UFUNCS, Ufunc

ARRAY_PARAMETERS = {"a", "m", "ary", "arr", "condition", "indices"}
"""First parameters of these names must be CuPy arrays: CuPy calls a method of them."""

KEEPS_ORDER = {"zeros_like", "ones_like", "full_like", "copy", "asfortranarray", "require"}
IN_PLACE = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}
SYNCHRONISING = {
    "argwhere", "array2string", "array_repr", "array_str", "bincount", "compress", "digitize",
    "extract", "flatnonzero", "histogram", "intersect1d", "nonzero", "place", "save", "savez",
    "setdiff1d", "setxor1d", "trim_zeros", "union1d", "unique", "unique_all", "unique_counts",
    "unique_inverse", "unique_values",
}  # fmt: skip
RETURNS_ARRAY = {"allclose", "array_equal", "array_equiv", "count_nonzero"}
"""NumPy gives a Python number, CuPy a 0-d array that is still on the device."""

NOT_IN_THE_STAND_IN = {
    "apply_along_axis", "apply_over_axes", "c_", "flatiter", "fromfunction", "fuse", "mgrid",
    "ogrid", "piecewise", "poly1d", "r_", "vectorize",
}  # fmt: skip


def _build(names: dict[str, dict], numpy_module: Any, module: ModuleType) -> None:
    prefix = module.__name__.removeprefix("cupy").lstrip(".")
    for name, entry in names.items():
        numpy_name = getattr(numpy_module, name, None)
        full_name = f"{prefix}.{name}".lstrip(".")
        if name in UFUNCS and numpy_module is np:
            setattr(module, name, UFUNCS[name])
        elif "const" in entry or _is_plain_type(numpy_name):
            if name not in NOT_IN_THE_STAND_IN and hasattr(numpy_module, name):
                setattr(module, name, numpy_name)
        elif callable(numpy_name) and "type" not in entry and name not in NOT_IN_THE_STAND_IN:
            setattr(module, name, _function(name, full_name, _signature(entry), numpy_name))
    module.__getattr__ = _missing(module, names)


def _is_plain_type(x: Any) -> bool:
    return isinstance(x, type) and issubclass(x, np.generic | np.dtype | np.finfo | np.iinfo)


def _signature(entry: dict) -> dict | None:
    """A ufunc of CuPy's that is none in NumPy (``fix``, ``sinc``) takes ``out`` and ``dtype``."""
    if "ufunc" in entry:
        return {"p": ["x", "out", "dtype"], "kw": False, "var": False}
    return entry.get("sig")


def _function(
    name: str, full_name: str, signature: dict | None, compute: Callable[..., Any]
) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        rules.check_keywords(full_name, signature, args, kwargs)
        wants_array = bool(signature) and (signature["p"] or [""])[0] in ARRAY_PARAMETERS
        if wants_array and args and not isinstance(args[0], ndarray):
            raise TypeError(f"cupy.{full_name}: {type(args[0]).__name__} is no CuPy array")
        if name in SYNCHRONISING or (name == "where" and len(args) + len(kwargs) == 1):
            counters.synchronise(name)
        if name in ("copyto", "put", "put_along_axis"):
            _check_in_place(name, args, kwargs)
        result = run(
            full_name,
            compute,
            args,
            kwargs,
            keeps_order=name in KEEPS_ORDER,
            in_place=name in IN_PLACE,
        )
        return _zero_dimensional(result) if name in RETURNS_ARRAY else result

    function.__name__ = function.__qualname__ = name
    return function


def _zero_dimensional(result: Any) -> ndarray:
    if isinstance(result, ndarray):
        return result
    return fresh(np.asarray(result))


def _check_in_place(name: str, args: tuple, kwargs: dict) -> None:
    target, *rest = (x._array if isinstance(x, ndarray) else x for x in args)
    if name == "copyto":
        rules.check_cast(rest[0], target.dtype)
    elif name == "put":
        rules.refuse_duplicates((target.size,), np.asarray(rest[0]), rest[1])
    else:
        axis = rest[2] if len(rest) > 2 else kwargs["axis"]
        places = np.arange(target.size).reshape(target.shape)
        chosen = rules.in_range(lambda: np.take_along_axis(places, rest[0], axis))
        rules.refuse_duplicates(
            (target.size,), chosen.ravel(), np.broadcast_to(rest[1], chosen.shape)
        )


def _missing(module: ModuleType, names: dict[str, dict]) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:
        if name in names:
            raise NotImplementedError(f"{module.__name__}.{name} is not in the stand-in")
        raise AttributeError(
            f"module {module.__name__!r} (CuPy {SPEC['version']}) has no attribute {name!r}"
        )

    return __getattr__


def _build_random() -> ModuleType:
    """CuPy's streams are not NumPy's: whoever draws here gets other numbers than on a CPU."""
    random = ModuleType("cupy.random")

    def __getattr__(name: str) -> Any:
        if name not in SPEC["random"]:
            raise AttributeError(f"module 'cupy.random' has no attribute {name!r}")
        raise AssertionError(
            f"cupy.random.{name} draws other numbers than NumPy: draw on the host and copy, or "
            "hash a counter (tinycompress.random.hash_bits)"
        )

    random.__getattr__ = __getattr__
    return random


def _build_all() -> dict[str, ModuleType]:
    methods.add()
    cupy, linalg = ModuleType("cupy"), ModuleType("cupy.linalg")
    lib, stride_tricks = ModuleType("cupy.lib"), ModuleType("cupy.lib.stride_tricks")
    _build(SPEC["cupy"], np, cupy)
    _build(SPEC["linalg"], np.linalg, linalg)
    _build(SPEC["stride_tricks"], np.lib.stride_tricks, stride_tricks)
    lib.stride_tricks = stride_tricks
    cuda, runtime = devices.build_cuda_module()
    cupy.ndarray, cupy.ufunc, cupy.__version__ = ndarray, Ufunc, SPEC["version"]
    for function in creation.FUNCTIONS:
        setattr(cupy, function.__name__, function)
    cupy.asanyarray, cupy.is_available = creation.asarray, cuda.is_available
    cupy.linalg, cupy.lib, cupy.cuda, cupy.random = linalg, lib, cuda, _build_random()
    modules = [cupy, linalg, lib, stride_tricks, cuda, runtime, cupy.random]
    for module in modules:
        module.__spec__ = ModuleSpec(module.__name__, None)
    return {module.__name__: module for module in modules}


MODULES = _build_all()
"""Every module by its name, as it goes into ``sys.modules``."""
