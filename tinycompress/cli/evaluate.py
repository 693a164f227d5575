"""``tinycompress eval``: what a file is worth."""

from __future__ import annotations

from tinycompress.cli import common, options, output


@common.command
def evaluate(
    file: options.ModelFile,
    dataset: options.Dataset = options.DatasetName.mnist,
    data_dir: options.DataDir = None,
    full: options.Full = False,
    workers: options.CoreCount = None,
    as_json: options.Json = False,
) -> None:
    """Measure a file on the 10,000 test images: accuracy, sizes, operations, time."""
    _, test_set = common.load_data(dataset, data_dir, full)
    rows = common.measure_files([file], test_set, workers)
    if as_json:
        output.print_json(output.rows_as_json(rows, [file])[0])
    else:
        output.show(rows)
