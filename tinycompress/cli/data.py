"""``tinycompress data``: where the images are, and getting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tinycompress import data as datasets
from tinycompress.cli import common, options, output
from tinycompress.data import FileStatus, SourceStatus


@common.command
def data(
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Look there first, and download to there.",
            rich_help_panel="Data",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Get what is missing.", rich_help_panel="Data")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show where the full data set was looked for and found."""
    if download:
        common.load_data(dataset, data_dir, full=True)
    status = datasets.locate(dataset.value, data_dir)
    if as_json:
        output.print_json(_as_dict(status))
        return
    output.say(_table(status))
    output.say()
    if status.complete:
        output.say(f"{status.title} is complete.")
        return
    places = "".join(f"\n  {place}" for place in status.searched)
    output.say(
        f"{status.title} is not complete. Looked in:{places}\n"
        "Get it with --download, or put the files, packed or not, into one of these."
    )
    if dataset == options.DatasetName.mnist:
        output.say("The sample that comes with the package needs no files.")


def _table(status: SourceStatus) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("checked", no_wrap=True)
    table.add_column("where", overflow="fold")
    for file in status.files:
        size = "" if file.size is None else f"{file.size:,}"
        table.add_row(file.name, size, file.checked, Text(_where(file)))
    return table


def _where(file: FileStatus) -> str:
    return file.problem or str(file.path)  # the problem names the path


def _as_dict(status: SourceStatus) -> dict[str, Any]:
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
