"""``tinycompress data``: where the images are, and getting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tinycompress import data as datasets
from tinycompress.cli import common


@common.command
def data(
    dataset: common.Name = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Also look in this folder.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Get what is missing.")] = False,
    as_json: common.Json = False,
) -> None:
    """Show where the full data set was looked for and found."""
    if download:
        common.load_data(dataset, data_dir, full=True)
    status = datasets.locate(dataset, data_dir)
    if as_json:
        common.print_json(_as_dict(status))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("file", "bytes", "checked", "where"):
        table.add_column(head)
    for file in status.files:
        where = str(file.path) if file.path else (file.problem or "missing")
        table.add_row(file.name, f"{file.size:,}" if file.size else "", file.checked or "", where)
    common.out.print(table)
    if not status.complete:
        places = "\n  ".join(str(place) for place in status.searched)
        common.out.print(f"Not complete. Looked in:\n  {places}\nGet it with --download.")


def _as_dict(status: Any) -> dict[str, Any]:
    files = [
        {
            "name": f.name,
            "path": None if f.path is None else str(f.path),
            "size": f.size,
            "checked": f.checked,
            "problem": f.problem,
        }
        for f in status.files
    ]
    searched = [str(place) for place in status.searched]
    return {"name": status.name, "complete": status.complete, "searched": searched, "files": files}
