"""`earteach report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earteach.cli.options import CheckpointDir, Json, Seed, complete_checkpoint
from earteach.cli.output import Output, duration, facts
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.report import Report


def report(
    config: InferenceConfig,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A checkpoint, or a folder with one; defaults to --checkpoint-dir.",
            metavar="RUN",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file to write; defaults to report.html beside the checkpoint."
        ),
    ] = None,
    gif: Annotated[
        Path | None,
        typer.Option(
            "--gif",
            help="Also write a .gif or .webp that shows how the reconstructions of a few "
            "validation ears change over the epochs.",
        ),
    ] = None,
    seed: Seed = 42,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Write a self-contained HTML report of a run: quality, curves, ears, options and data."""
    from earteach.inference.report import report as core

    result = core(run or checkpoint_dir, out=out, gif=gif, seed=seed, config=config)
    Output(json).show(result, facts("Report", _facts(result)))


def _facts(result: Report) -> dict[str, str]:
    values = {"page": f"{result.path} ({_size(result.bytes)})"}
    if (gif := result.gif) is not None:
        values["animation"] = f"{gif.path} ({gif.frames} frames, {_size(gif.bytes)})"
    epochs, images = _plural(result.epochs, "epoch"), _plural(result.images, "image")
    values["of"] = f"{result.checkpoint}, {epochs}, {images}"
    if result.psnr is not None and result.ssim is not None:
        values["quality"] = f"{result.psnr:.2f} dB, SSIM {result.ssim:.4f}"
    if result.missing:
        values["missing"] = "\n".join(dict.fromkeys(result.missing.values()))
    return {**values, "time": duration(result.seconds)}


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
