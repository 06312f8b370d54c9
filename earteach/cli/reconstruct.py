"""`earteach reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import RenderableType
from rich.markup import escape

from earteach.cli.options import (
    CheckpointDir,
    Ckpt,
    FitChoice,
    Json,
    LayoutChoice,
    Seed,
    Show,
    found,
)
from earteach.cli.output import Output, pictures, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.reconstruct import Reconstructions

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
    jitter: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--jitter",
            help="Write variations instead, decoded from mu + S · sigma · noise: at 1 ears that the "
            "code does not tell from the given one, above 1 others.",
            metavar="S",
            min=0,
        ),
    ] = None,
    variations: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--variations", help="With --jitter: of each ear.", min=1, show_default="1"),
    ] = None,
    seed: Seed = 42,
    fit: FitChoice = "stretch",
    layout: LayoutChoice = None,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write PNGs of ears, their reconstructions and the errors, side by side; or variations."""
    from earteach.inference.reconstruct import reconstruct as core

    if variations is not None and jitter is None:
        raise typer.BadParameter("--variations is of --jitter; name it too")
    result = core(
        found(ckpt, checkpoint_dir),
        inputs,
        out,
        number=number,
        layout=layout,
        fit=fit,
        jitter=jitter,
        variations=variations or 1,
        seed=seed,
        config=config,
    )
    drawn = [] if json or not show else pictures([i.output for i in result.images[:_DRAWN]])
    what = "reconstructions" if jitter is None else f"variations, {jitter:g} sigma"
    Output(json).show(result, *drawn, *_listed(result, what, out))


def _listed(result: Reconstructions, what: str, out: Path) -> list[RenderableType]:
    rows = [
        (str(image.output), f"{image.psnr:.2f} dB", f"{image.ssim:.4f}")
        for image in result.images[:_SHOWN]
    ]
    parts: list[RenderableType] = [
        table(f"{len(result.images):,} {what}", "PNG", "PSNR", "SSIM", rows=rows)
    ]
    if more := len(result.images) - len(rows):
        parts.append(escape(f"and {more:,} more in {out}"))
    return parts
