"""What CuPy refuses, and what it lets through although the answer is wrong.

The first kind raises what CuPy raises (``TypeError``, mostly). The second kind raises
``AssertionError``: on a GPU nobody would hear of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

SCALAR_TYPES = frozenset({bool, int, float, complex}) | {
    np.dtype(c).type for c in "?bBhHiIlLqQefdFD"
}
"""What may stand beside an array: these types exactly, as in CuPy's ``scalar_type_set``."""

DTYPES = frozenset(np.dtype(c) for c in "?bBhHiIlLqQefdFD")


def check_dtype(dtype: np.dtype) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"Unsupported dtype {dtype}")


def check_operand(x: Any, array_type: type) -> None:
    """An operand of a ufunc is a CuPy array or a scalar: no NumPy array (even 0-d), no list."""
    if not isinstance(x, array_type) and type(x) not in SCALAR_TYPES:
        raise TypeError(f"Unsupported type {type(x)}")


def refuse_numpy(value: Any) -> None:
    """No NumPy array may hide anywhere in an argument, the lists in it included."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy array in a CuPy call")
    if isinstance(value, list | tuple):
        for item in value:
            refuse_numpy(item)


def check_keywords(name: str, signature: dict | None, args: tuple, kwargs: dict) -> None:
    """Only the parameters of CuPy's own signature: no ``where=`` or ``initial=`` in ``sum``."""
    if signature is None:
        return
    unknown = [] if signature["kw"] else sorted(set(kwargs) - set(signature["p"]))
    if unknown:
        raise TypeError(f"cupy.{name}() got an unexpected keyword argument {unknown[0]!r}")
    if not signature["var"] and len(args) > len(signature["p"]):
        raise TypeError(f"cupy.{name}() takes {len(signature['p'])} arguments, got {len(args)}")


def check_cast(values: Any, dtype: np.dtype) -> None:
    """A float that the integer type cannot hold becomes another number on a GPU than on a CPU."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or dtype.kind not in "iu" or values.size == 0:
        return
    limits = np.iinfo(dtype)
    whole = np.trunc(values.astype(np.float64))
    # float(limits.max) rounds up to 2^63 or 2^64 for the widest types; -0.5 truncates to 0: allowed
    above = whole > limits.max if limits.bits < 64 else whole >= float(limits.max)
    if not np.isfinite(whole).all() or above.any() or (whole < float(limits.min)).any():
        raise AssertionError(
            f"cast of {values.dtype} to {dtype} out of range: the result differs between a CPU "
            "and a GPU. Round and clip in floating point first"
        )


def check_loop(name: str, types: Sequence[str], dtypes: list[np.dtype]) -> None:
    """CuPy must have a loop of that ufunc that gives these dtypes."""
    if not any(dtypes == [np.dtype(c) for c in loop.split("->")[1]] for loop in types):
        raise TypeError(f"cupy.{name} has no loop that gives {dtypes} (it has {types})")


def refuse_narrow_integer_product(name: str, operands: list[np.ndarray]) -> None:
    """Products of 8- and 16-bit integers are summed in that type, on a CPU and on a GPU."""
    if name in MATRIX_PRODUCTS and operands:
        dtype = np.result_type(*operands)
        if dtype.kind in "iu" and dtype.itemsize < 4:
            raise AssertionError(
                f"{name} of {dtype} sums in {dtype}: it wraps, and it is slow. Compute in float32 "
                "(exact below 2^24) or widen first"
            )


MATRIX_PRODUCTS = {"matmul", "dot", "tensordot", "einsum", "inner", "vdot"}


# ------------------------------------------------------------------------------------- indices


def index_arrays(index: Any) -> Iterator[np.ndarray]:
    """The integer arrays (or lists) of an index: what makes it an advanced one."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, np.ndarray | list):
            array = np.asarray(part)
            if array.dtype.kind in "iu":
                yield array


def in_range(compute: Callable[[], Any]) -> Any:
    """``compute()``, where an index out of range is the error that CuPy does not give."""
    try:
        return compute()
    except IndexError as error:
        if "out of bounds" in str(error) and not isinstance(error, np.exceptions.AxisError):
            raise AssertionError(f"{error}: CuPy wraps around in silence") from error
        raise


def refuse_duplicates(shape: tuple[int, ...], index: Any, value: Any) -> None:
    """``a[index] = value`` with a place named twice keeps either value on a GPU."""
    if np.size(value) <= 1 or not any(True for _ in index_arrays(index)):
        return
    places = in_range(lambda: np.arange(int(np.prod(shape))).reshape(shape)[index])
    if np.unique(places).size != places.size:
        raise AssertionError(
            "duplicate indices in a[index] = value: which value stays is undefined on a GPU; "
            "gather instead, or add with xp.add.at"
        )
