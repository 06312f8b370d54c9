"""`earteach reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from earteach.cli.options import CheckpointDir, Ckpt, FitChoice, Json, LayoutChoice, Show, found
from earteach.cli.output import Output, pictures, table
from earteach.config import InferenceConfig

_SHOWN, _DRAWN = 20, 4


def reconstruct(
    config: InferenceConfig,
    inputs: Annotated[
        list[Path],
        typer.Option("--input", help="An image, a folder of images or an array; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNGs.")],
    ckpt: Ckpt = None,
    number: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--number", "-n", help="At most this many from each input.", min=1),
    ] = None,
    fit: FitChoice = "stretch",
    layout: LayoutChoice = None,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write PNGs of ears, their reconstructions and the errors, side by side."""
    from earteach.inference.reconstruct import reconstruct as core

    path = found(ckpt, checkpoint_dir)
    result = core(path, inputs, out, number=number, layout=layout, fit=fit, config=config)
    rows = [
        (str(image.output), f"{image.psnr:.2f} dB", f"{image.ssim:.4f}")
        for image in result.images[:_SHOWN]
    ]
    drawn = [] if json or not show else pictures([i.output for i in result.images[:_DRAWN]])
    more = len(result.images) - len(rows)
    Output(json).show(
        result,
        *drawn,
        table(f"{len(result.images):,} reconstructions", "PNG", "PSNR", "SSIM", rows=rows),
        *([escape(f"and {more:,} more in {out}")] if more else []),
    )
