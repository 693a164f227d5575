"""``tinycompress info``: what a file holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from tinycompress.cli import common
from tinycompress.format import FileInfo, inspect
from tinycompress.nn import summary


@common.command
def info(file: common.ModelFile, as_json: common.Json = False) -> None:
    """Show a file's layers, and what each tensor in it costs."""
    found = inspect(file)
    layers = summary(common.load_model(file))
    if as_json:
        common.print_json(_as_dict(found, layers))
        return
    common.out.print(
        f"{found.path}: {found.model}, {found.bytes:,} bytes, format {found.version}\n"
    )
    common.out.print(str(layers), highlight=False)
    common.out.print()
    common.out.print(_tensor_table(found))


def _tensor_table(found: FileInfo) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("tensor", "shape", "kept as"):
        table.add_column(head)
    for head in ("bytes", "bits each"):
        table.add_column(head, justify="right")
    for t in found.tensors:
        shape = "×".join(map(str, t.shape)) or "one number"
        table.add_row(t.name, shape, t.how, f"{t.bytes:,}", f"{8 * t.bytes / t.size:.2f}")
    table.add_row("architecture", "", "", f"{found.architecture_bytes:,}", "")
    table.add_row("header, lengths, checksums", "", "", f"{found.overhead_bytes:,}", "")
    table.add_row("file", "", "", f"{found.bytes:,}", "")
    return table


def _as_dict(found: FileInfo, layers: Any) -> dict[str, Any]:
    return {
        "file": found.path,
        "bytes": found.bytes,
        "version": found.version,
        "architecture": found.architecture,
        "parameters": layers.parameters,
        "nonzero": layers.nonzero,
        "macs": layers.macs,
        "layers": [asdict(row) for row in layers.layers],
        "tensors": [asdict(t) for t in found.tensors],
    }
