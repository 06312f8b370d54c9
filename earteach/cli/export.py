"""`earteach export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from earteach.cli.options import CheckpointDir, Ckpt, Json, found
from earteach.cli.output import Output, facts
from earteach.config import ExportFormat, ExportPart

if TYPE_CHECKING:
    from earteach.inference.export import Export, Port, Quantization


def export(
    out: Annotated[Path, typer.Option("--out", help="The file, or the folder.")],
    ckpt: Ckpt = None,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="onnx, torchscript, torch-export, or a folder: safetensors, openvino.",
            metavar="FORMAT",
        ),
    ] = "onnx",
    part: Annotated[
        ExportPart,
        typer.Option(
            "--part",
            help="full, encoder, decoder, or features: the maps at strides 2 to 16.",
            metavar="PART",
        ),
    ] = "full",
    opset: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--opset", help="Version of ONNX's operators.", show_default="18"),
    ] = None,
    input_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--input-size",
            help="Side of the images, of features without eigenears.",
            show_default="as trained",
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take uint8 images (B, H, W, C), as files and cameras give.",
        ),
    ] = False,
    quantize: Annotated[
        Optional[Literal["int8"]],  # noqa: UP045
        typer.Option("--quantize", help="Convolutions of 8 bits, of ONNX; says what they cost."),
    ] = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write a model for other runtimes, its numbers checked against torch's."""
    from earteach.inference.export import export as core

    result = core(
        found(ckpt, checkpoint_dir),
        out,
        format=format,
        part=part,
        opset=opset,
        input_size=input_size,
        with_preprocessing=with_preprocessing,
        quantize=quantize,
    )
    title = f"{result.format} {result.part} of {result.checkpoint}"
    Output(json).show(result, facts(title, _shown(result)))


def _shown(result: Export) -> dict[str, str]:
    parity = result.parity
    what = "folder" if result.path.is_dir() else "file"
    values = {
        what: f"{result.path} ({result.bytes / 1e6:.1f} MB)",
        "about it": str(result.sidecar),
        "in": _described(result.inputs),
        "out": _described(result.outputs),
        "checked": f"{parity.images} images, largest difference {parity.max_abs_error:.2g}",
    }
    if result.quantization is not None:
        values["8 bits cost"] = _costs(result.quantization)
    return values


def _described(ports: tuple[Port, ...]) -> str:
    return ", ".join(
        f"{port.name} ({', '.join(map(str, port.shape))})"
        + (f" {port.dtype}" if port.dtype != "float32" else "")
        for port in ports
    )


def _costs(found: Quantization) -> str:
    ratio = f"signal {found.signal_to_noise:.1f} dB over the noise"
    if found.psnr_loss is None:
        return ratio
    return f"{found.psnr_loss:.3f} dB of PSNR, {found.float_psnr:.2f} to {found.psnr:.2f}; {ratio}"
