"""``tinycompress compare``: several files in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinycompress.cli import common, options, output


@common.command
def compare(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="The .tcz files.", exists=True, dir_okay=False),
    ],
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Measure several files on the test images; sizes are compared with the first one's."""
    _, test_set = common.load_data(dataset, data_dir, full)
    rows = common.measure_files(files, test_set, workers)
    if as_json:
        output.print_json({"models": output.rows_as_json(rows, files)})
    else:
        output.show(rows)
