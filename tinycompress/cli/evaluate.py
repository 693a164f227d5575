"""``tinycompress eval``: what a file is worth."""

from __future__ import annotations

from tinycompress.cli import common
from tinycompress.report import measure


@common.command
def evaluate(
    file: common.ModelFile,
    dataset: common.Name = "mnist",
    data_dir: common.DataDir = None,
    full: common.Full = False,
    workers: common.CoreCount = None,
    as_json: common.Json = False,
) -> None:
    """Measure a file on the 10,000 test images: accuracy, sizes, operations, time."""
    _, test_set = common.load_data(dataset, data_dir, full)
    common.show([measure(file, test_set, workers=workers)], as_json)
