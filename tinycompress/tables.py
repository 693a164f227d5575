"""Tables: rows of text under a head, for a terminal (rich) or as plain lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> Table:
    """A table; its first ``words`` columns are words, to the left, and the others numbers.

    Where it is too wide, words are broken and numbers are not.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for position, name in enumerate(head):
        if position < words:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in it are no markup
    return table


def as_text(table: Table) -> str:
    """A table as lines of plain text, as wide as they need to be."""
    pieces = Console(width=1000).render(table)
    text = "".join(piece.text for piece in pieces)  # without the pieces' colours
    return "\n".join(line.rstrip() for line in text.splitlines())
