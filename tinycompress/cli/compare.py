"""``tinycompress compare``: several files in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinycompress.cli import common
from tinycompress.report import measure


@common.command
def compare(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files.", exists=True, dir_okay=False)
    ],
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Measure several files on the test images; sizes are compared with the first one's."""
    _, test_set = common.load_data(dataset, data_dir, full)
    rows = [measure(file, test_set, workers=workers) for file in files]
    common.show(rows, as_json, as_list=True)
