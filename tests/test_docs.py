"""What the documents point at exists: links, files, functions in files, names of the package."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "examples" / "README.md"]
FOLDERS = (ROOT, ROOT / "tinycompress")  # what a path in a document may be relative to
SHORT_NAMES = {
    "tc": "tinycompress",
    "F": "tinycompress.functional",
    "nn": "tinycompress.nn",
    "optim": "tinycompress.optim",
}

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"([\w./-]+\.(?:py|md))(?:: *([\w.]+))?")  # `ops/conv.py: conv2d`
FOLDER = re.compile(r"(?:[\w-]+/)+")
DOTTED = re.compile(r"(tinycompress|tc|F|nn|optim)((?:\.[A-Za-z_]\w*)+)(?![\w/])")
SCRIPT = re.compile(r"\bpython ((?:tools|examples|benchmarks)/[\w./-]+\.py)")


def problems(text, page):
    """What ``text``, which stands in the file ``page``, points at and is not there."""
    prose = FENCED.sub("", text)
    found = [link for link in LINK.findall(prose) if not link_resolves(link, page, text)]
    for code in INLINE.findall(prose):
        file, dotted = FILE.fullmatch(code), DOTTED.match(code)
        if file:
            found += [] if defined(*file.groups()) else [code]
        elif FOLDER.fullmatch(code):
            found += [] if any((folder / code).is_dir() for folder in FOLDERS) else [code]
        elif dotted and not code.endswith((".tcz", ".safetensors")):
            found += [] if imports(dotted[1] + dotted[2]) else [code]
    return found + [path for path in SCRIPT.findall(text) if not (ROOT / path).is_file()]


def link_resolves(link, page, text):
    path, _, heading = link.partition("#")
    if "://" in link:
        return True
    target = (page.parent / path).resolve() if path else page
    if heading and target.suffix == ".md":
        text = target.read_text("utf-8") if path and target.is_file() else text
        return target.exists() and heading in headings(text)
    return target.exists()


def headings(text):
    """The anchors of a document, as GitHub makes them from its headings."""
    titles = re.findall(r"^#+ +(.+)$", FENCED.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]


def defined(path, name):
    """Whether there is such a file, and ``name`` (a function, class, Class.method, constant) in it;
    a name without a folder may be any file of the package.
    """
    places = [folder / path for folder in FOLDERS]
    if "/" not in path:
        places += (ROOT / "tinycompress").rglob(path)
    files = [place for place in places if place.is_file()]
    return any(name is None or has(ast.parse(file.read_text("utf-8")), name) for file in files)


def has(tree, name):
    first, _, rest = name.partition(".")
    for node in tree.body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names = [getattr(node, "name", None), *(getattr(t, "id", None) for t in targets)]
        if first in names:
            return not rest or has(node, rest)
    return False


def imports(name):
    """Whether the dotted name is a module, or an attribute of one."""
    first, *rest = name.split(".")
    module, *inside = SHORT_NAMES.get(first, first).split(".")
    thing = importlib.import_module(module)
    for part in (*inside, *rest):
        if not hasattr(thing, part):
            try:
                importlib.import_module(f"{thing.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        thing = getattr(thing, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_document_points_at_exists(page):
    assert problems(page.read_text("utf-8"), page) == []


@pytest.mark.parametrize(
    "text",
    [
        "[reading](reading.md) [site](https://example.org) [here](#a-heading)\n# A heading",
        "`ops/conv.py: conv2d`, `nn/module.py: Module.state_dict`, `tests/conftest.py`, `conv.py`",
        "`tc.fit(model, train, epochs=3)` `tinycompress.nn.Linear` `F.conv2d` `nn.init.uniform_`",
        "`tests/strict_cupy/` and `ops/`",
        "`model.tcz` `x.y` `tinycompress eval FILE`",
        "```\nno `nowhere.py` in listings\n```",
    ],
)
def test_the_checker_accepts_what_is_there(text):
    assert problems(text, ROOT / "docs" / "reading.md") == []


@pytest.mark.parametrize(
    "text",
    [
        "[gone](gone.md)",
        "[gone](reading.md#no-such-heading)",
        "[gone](#no-such-heading)",
        "`ops/convolution.py`",
        "`nowhere.py`",
        "`ops/conv.py: conv3d`",
        "`nn/module.py: Module.state_dictionary`",
        "`tc.fitt(model)`",
        "`tinycompress.nn.Lienar`",
        "`F.conv3d`",
        "`tests/no_such_folder/`",
        "```\npython tools/no_such_tool.py\n```",
    ],
)
def test_the_checker_refuses_what_is_not(text):
    assert problems(text, ROOT / "docs" / "reading.md") != []


def test_every_file_of_the_package_has_its_place_in_the_reading_order():
    text = (ROOT / "docs" / "reading.md").read_text("utf-8")
    package = ROOT / "tinycompress"
    files = [path for path in package.rglob("*.py") if not path.name.startswith("__")]
    paths = sorted(path.relative_to(package).as_posix() for path in files)
    assert [path for path in paths if f"`{path}`" not in text] == []
