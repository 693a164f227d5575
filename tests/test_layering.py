"""The house stands: imports point downward, in no circle, and to nothing that it must not know."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tinycompress

PACKAGE = Path(tinycompress.__file__).parent
FLOORS = [
    ["backend", "random", "shapes", "files", "allocator", "tables"],
    ["ops"],
    ["graph", "recorded", "tensor"],
    ["functional", "nn"],
    ["optim", "data", "models"],
    ["train"],
    ["compress"],
    ["format"],
    ["report", "pruned", "budget", "students", "stages", "deep", "cli", "__main__", "__init__"],
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
FRAMEWORKS = {"torch", "torchvision", "tensorflow", "keras", "jax", "flax", "mxnet", "paddle",
              "tinygrad", "mlx", "onnx", "onnxruntime", "sklearn", "scipy", "pandas"}  # fmt: skip
DEPENDENCIES = {"numpy", "threadpoolctl", "safetensors", "rich", "typer", "click"}
OPTIONAL = {"matplotlib"}  # imported where it is used, inside a function


def modules() -> dict[str, Path]:
    """Every module by its dotted name below ``tinycompress``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or "__init__"] = path
    return found


MODULES = modules()
each_module = pytest.mark.parametrize("name", MODULES)


@cache
def syntax_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports_of(name: str, *, when_typing: bool = True) -> Iterator[str]:
    """Dotted names of what a module imports, inside functions too; of this package without it."""
    tree, skipped = syntax_of(name), set()
    if not when_typing:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            yield from (_resolved(node.module or "", alias.name) for alias in node.names)


def _resolved(module: str, name: str) -> str:
    """``from tinycompress.ops import conv`` is a module, ``from numpy import exp`` is not."""
    path = f"{module}.{name}".removeprefix("tinycompress.")
    return (
        f"tinycompress.{path}" if module.startswith("tinycompress") and path in MODULES else module
    )


def own_imports(name: str, **options: bool) -> set[str]:
    """The modules of this package that ``name`` imports."""
    inside = (m for m in imports_of(name, **options) if m.partition(".")[0] == "tinycompress")
    return {m.partition(".")[2] or "__init__" for m in inside}


def test_every_part_has_its_floor():
    assert {name.partition(".")[0] for name in MODULES} == set(FLOOR_OF)


@each_module
def test_imports_point_downward(name):
    floor = FLOOR_OF[name.partition(".")[0]]
    above = {m for m in own_imports(name) if FLOOR_OF[m.partition(".")[0]] > floor}
    assert not above, f"{name} (floor {floor}) imports what stands above it"


def test_nothing_imports_itself_by_a_detour():
    """No circles, not even inside a floor: each module can be read after those it imports."""
    graph = {name: own_imports(name, when_typing=False) - {name} for name in MODULES}
    while free := [name for name, imports in graph.items() if not imports & set(graph)]:
        for name in free:
            del graph[name]
    assert not graph, f"imported in a circle: {sorted(graph)}"


@each_module
def test_only_backend_imports_cupy(name):
    names = {m.partition(".")[0] for m in imports_of(name)}
    strings = {n.args[0].value for n in _calls(name, "import_module") if _is_string(n.args)}
    assert "cupy" not in names
    assert name == "backend" or "cupy" not in strings


@each_module
def test_only_known_libraries_are_imported(name):
    names = {m.partition(".")[0] for m in imports_of(name)} - {"tinycompress"}
    foreign = names - set(sys.stdlib_module_names) - DEPENDENCIES
    assert not foreign & FRAMEWORKS
    assert foreign <= OPTIONAL
    at_import = {m for m in _imports_at_the_top(name) if m in OPTIONAL}
    assert not at_import, f"{name} needs an optional library to be imported"


@each_module
def test_only_the_command_line_prints(name):
    if name.partition(".")[0] not in ("cli", "__main__"):
        assert "print" not in [ast.unparse(call.func) for call in _calls(name, "print")]


def _calls(name: str, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(syntax_of(name)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function:
            yield node


def _is_string(args: list[ast.expr]) -> bool:
    return bool(args) and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str)


def _imports_at_the_top(name: str) -> Iterator[str]:
    for node in syntax_of(name).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@each_module
def test_every_file_says_what_it_is(name):
    """A docstring opens it, and it is no longer than one idea."""
    assert ast.get_docstring(syntax_of(name))
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 400


def test_the_check_sees_an_upward_import(monkeypatch):
    for source in (
        "from tinycompress.nn import Linear",
        "from tinycompress import nn",
        "import tinycompress.nn.module",
        "def f():\n    from tinycompress import nn as n",
    ):
        monkeypatch.setitem(globals(), "syntax_of", lambda _, source=source: ast.parse(source))
        with pytest.raises(AssertionError, match="imports what stands above"):
            test_imports_point_downward("backend")
