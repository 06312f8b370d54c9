"""`earteach export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, found
from earteach.cli.output import Output, facts
from earteach.config import ExportFormat, ExportPart

if TYPE_CHECKING:
    from earteach.inference.export import Port


def export(
    out: Annotated[Path, typer.Option("--out", help="The file; for safetensors a folder.")],
    ckpt: Ckpt = None,
    format: Annotated[
        ExportFormat, typer.Option("--format", help="For onnxruntime, or weights without a pickle.")
    ] = "onnx",
    part: Annotated[
        ExportPart, typer.Option("--part", help="The whole network or one side of it.")
    ] = "full",
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write a model for other runtimes, its numbers checked against torch's."""
    from earteach.inference.export import export as core

    result = core(found(ckpt, checkpoint_dir), out, format=format, part=part)
    parity = result.parity
    values = {
        "file": f"{result.path} ({result.bytes / 1e6:.1f} MB)",
        "in": _described(result.inputs),
        "out": _described(result.outputs),
        "checked": f"{parity.images} images, largest difference {parity.max_abs_error:.2g}",
    }
    Output(json).show(
        result, facts(f"{result.format} {result.part} of {result.checkpoint}", values)
    )


def _described(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{port.name} ({', '.join(map(str, port.shape))})" for port in ports)
