"""`earteach export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json
from earteach.cli.output import Output, facts
from earteach.config import ExportFormat, ExportPart

if TYPE_CHECKING:
    from earteach.inference.export import Export, Port, Quantization


def export(
    out: Annotated[
        Path, typer.Option("--out", help="File to write, or folder (safetensors, openvino).")
    ],
    ckpt: Ckpt = None,
    format: Annotated[
        ExportFormat,
        typer.Option("--format", help=f"{', '.join(get_args(ExportFormat))}.", metavar="FORMAT"),
    ] = "onnx",
    part: Annotated[
        ExportPart,
        typer.Option(
            "--part",
            help="full, encoder, decoder or features (maps at strides 2 to 16).",
            metavar="PART",
        ),
    ] = "full",
    opset: Annotated[
        int | None,
        typer.Option("--opset", help="ONNX operator set, 18 to 24.", show_default="18"),
    ] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            "--input-size",
            help="Input size in pixels; only for --part features of a --no-pca-init model.",
            show_default="as trained",
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Make the exported model take uint8 images (B, H, W, C), as read from files or "
            "cameras.",
        ),
    ] = False,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(
            "--quantize",
            help="Quantize convolutions to int8 (ONNX only) and report the quality loss.",
        ),
    ] = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Export a model for another runtime and compare its output with torch's."""
    from earteach.inference.export import export as core

    result = core(
        ckpt or checkpoint_dir, out, format=format, part=part, opset=opset,
        input_size=input_size, with_preprocessing=with_preprocessing, quantize=quantize,
    )  # fmt: skip
    title = f"{result.format} {result.part} of {result.checkpoint}"
    Output(json).show(result, facts(title, _rows(result)))


def _rows(result: Export) -> dict[str, str]:
    parity, quantization = result.parity, result.quantization
    rows = {
        "folder"
        if result.path.is_dir()
        else "file": f"{result.path} ({result.bytes / 1e6:.1f} MB)",
        "description": str(result.sidecar),
        "in": ", ".join(map(_port, result.inputs)),
        "out": ", ".join(map(_port, result.outputs)),
        "checked": f"{parity.images} images, largest difference {parity.max_abs_error:.2g}",
    }
    if quantization is not None:
        rows["int8 loss"] = _loss(quantization)
    return rows


def _port(port: Port) -> str:
    dtype = "" if port.dtype == "float32" else f" {port.dtype}"
    return f"{port.name} ({', '.join(map(str, port.shape))}){dtype}"


def _loss(quantization: Quantization) -> str:
    ratio = f"signal-to-noise ratio {quantization.signal_to_noise:.1f} dB"
    if quantization.psnr_loss is None:
        return ratio
    before, after = quantization.float_psnr, quantization.psnr
    return f"{quantization.psnr_loss:.3f} dB of PSNR, {before:.2f} to {after:.2f}; {ratio}"
