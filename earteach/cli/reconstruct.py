"""`earteach reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, FitChoice, Json, LayoutChoice, Seed, Show
from earteach.cli.output import Output, listing, pictures
from earteach.config import InferenceConfig


def reconstruct(
    config: InferenceConfig,
    inputs: Annotated[
        list[Path],
        typer.Option("--input", help="An image, a folder of images or an array; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNGs.")],
    ckpt: Ckpt = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--number", "-n", help="Use up to N ears from each input. Default: all.", min=1
        ),
    ] = None,
    jitter: Annotated[
        float | None,
        typer.Option(
            "--jitter",
            help="Write variations instead, decoded from mu + S · sigma · noise: at S = 1 they "
            "look almost identical to the input; above about 4 they differ visibly.",
            metavar="S",
            min=0,
        ),
    ] = None,
    variations: Annotated[
        int | None,
        typer.Option(
            "--variations",
            help="Number of variations of each ear, with --jitter.",
            min=1,
            show_default="1",
        ),
    ] = None,
    seed: Seed = 42,
    fit: FitChoice = "stretch",
    layout: LayoutChoice = None,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write PNGs that compare ears with their reconstructions, or that show variations of ears."""
    from earteach.inference.reconstruct import reconstruct as core

    if variations is not None and jitter is None:
        raise typer.BadParameter("--variations needs --jitter; add it")
    result = core(
        ckpt or checkpoint_dir, inputs, out, number=number, layout=layout, fit=fit,
        jitter=jitter, variations=variations or 1, seed=seed, config=config,
    )  # fmt: skip
    drawn = pictures([image.output for image in result.images]) if show and not json else []
    kind = "reconstructions" if jitter is None else f"variations, {jitter:g} sigma"
    rows = [(str(i.output), f"{i.psnr:.2f} dB", f"{i.ssim:.4f}") for i in result.images]
    listed = listing(f"{len(rows):,} {kind}", "PNG", "PSNR", "SSIM", rows=rows, out=out)
    Output(json).show(result, *drawn, *listed)
