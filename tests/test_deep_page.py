"""What docs/deep_compression.md prints is what its listings print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "deep_compression.md"
LISTINGS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.S)


def test_there_are_listings():
    assert len(LISTINGS) == PAGE.read_text("utf-8").count("```python") == 5


@pytest.mark.parametrize(("code", "shown"), LISTINGS, ids=range(len(LISTINGS)))
def test_a_listing_prints_what_stands_below_it(code, shown):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), {})
    assert printed.getvalue() == shown
