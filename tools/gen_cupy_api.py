"""Write tests/strict_cupy/cupy_api.json: the names and signatures of an installed CuPy.

    pip install cupy-cuda12x        # or another; a GPU is not needed
    python tools/gen_cupy_api.py

The stand-in for CuPy in the tests knows no other names and keywords than these. Every name of a
namespace becomes one of ``{"ufunc": [loops]}``, ``{"sig": {...}}`` (a function; ``null`` where
Python cannot say), ``{"type": 1}`` or ``{"const": 1}``.
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "tests" / "strict_cupy" / "cupy_api.json"


def signature(function: Any) -> dict[str, Any] | None:
    """The parameters' names, and whether there are ``*args`` ("var") and ``**kwargs`` ("kw")."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    open_ended = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return {
        "p": [p.name for p in parameters if p.kind not in open_ended],
        "kw": any(p.kind == p.VAR_KEYWORD for p in parameters),
        "var": any(p.kind == p.VAR_POSITIONAL for p in parameters),
    }


def namespace(module: Any, ufunc_type: type) -> dict[str, dict[str, Any]]:
    """Every public name of ``module`` that is no module itself."""
    names = {}
    for name in dir(module):
        value = getattr(module, name)
        if name.startswith("_") or name == "annotations" or inspect.ismodule(value):
            continue
        if isinstance(value, ufunc_type):
            names[name] = {"ufunc": value.types}
        elif isinstance(value, type):
            names[name] = {"type": 1}
        else:
            names[name] = {"sig": signature(value)} if callable(value) else {"const": 1}
    return names


def describe_cupy() -> dict[str, Any]:
    """The whole file, as plain values."""
    import cupy

    return {
        "version": cupy.__version__,
        "cupy": namespace(cupy, cupy.ufunc),
        "linalg": namespace(cupy.linalg, cupy.ufunc),
        "random": namespace(cupy.random, cupy.ufunc),
        "stride_tricks": namespace(cupy.lib.stride_tricks, cupy.ufunc),
        "ndarray": [n for n in dir(cupy.ndarray) if not n.startswith("_") or n.startswith("__")],
        "Generator": [n for n in dir(cupy.random.Generator) if not n.startswith("_")],
    }


def as_text(api: dict[str, Any]) -> str:
    """JSON with one name a line, so that the difference between two CuPys can be read."""
    sections = []
    for key, value in api.items():
        if isinstance(value, dict):
            items = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items()]
            sections.append(f"{json.dumps(key)}: {{\n" + ",\n".join(items) + "\n}")
        else:
            sections.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=TARGET, help=f"default: {TARGET.name}")
    output = parser.parse_args().output
    api = describe_cupy()
    output.write_text(as_text(api))
    print(f"{output}: CuPy {api['version']}, {len(api['cupy'])} names")


if __name__ == "__main__":
    main()
