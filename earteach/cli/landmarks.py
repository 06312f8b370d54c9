"""`earteach landmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from earteach.cli.options import (
    CheckpointDir,
    Json,
    Seed,
    Show,
    checkpoint_or_folder,
    ckpt_argument,
)
from earteach.cli.output import Output, facts, pictures, progress_bar, table
from earteach.config import InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.landmark_training import TrainedLandmarks

_MAX_ROWS, _MAX_PICTURES = 20, 4
_TRAINING = "Training a landmarker"


def landmarks(
    config: InferenceConfig,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is written.")],
    ckpt: Annotated[
        Path | None,
        ckpt_argument(
            "A landmarker that --train wrote; with --train, the teacher to start from. Default of the "
            "latter: the best in --checkpoint-dir."
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="An image of an ear, or a folder of images; repeatable."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes", help="Where the ears are, as for `prepare`, in larger photographs."
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            "--train",
            help="Train a landmarker on labelled ears: a folder that `prepare --landmarks` wrote; or a "
            ".csv or a folder of .pts files, about the photographs of --input.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    drawn: Annotated[
        bool | None,
        typer.Option(
            "--drawn/--no-drawn",
            help="Mix in drawn ears. Default: if yours have their 55 landmarks (the iBUG ear scheme).",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Train the same network from random weights, too.",
            rich_help_panel=_TRAINING,
        ),
    ] = True,
    steps: Annotated[
        int,
        typer.Option("--steps", help="Training steps.", min=1, rich_help_panel=_TRAINING),
    ] = 450,
    seed: Seed = 42,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Find landmarks on ears; with --train, train a landmarker on your own labelled ears."""
    output = Output(json)
    if train is not None:
        from earteach.inference.landmark_training import train_landmarks

        if boxes is not None or len(inputs or ()) > 1:
            raise typer.BadParameter(
                "--train takes one --input and no --boxes; use `prepare` first"
            )
        with progress_bar("training") as progress:
            trained = train_landmarks(
                checkpoint_or_folder(ckpt, checkpoint_dir), train, out,
                photographs=inputs[0] if inputs else None, drawn=drawn, compare=compare, steps=steps,
                seed=seed, config=config, progress=progress,
            )  # fmt: skip
        output.show(trained, facts("Trained", _rows(trained)))
        return
    if ckpt is None or not inputs:
        raise typer.BadParameter(
            "name a landmarker and, with --input, images of ears; or train one with --train"
        )
    from earteach.inference.landmarks import landmarks as core

    found = core(ckpt, inputs, out, boxes=boxes, config=config)
    shown: list[RenderableType] = []
    if show and not json:
        shown += pictures([ear.output for ear in found.images[:_MAX_PICTURES]])
    rows = [
        (str(ear.output), f"{sum(ear.confidence) / len(ear.confidence):.2f}")
        for ear in found.images[:_MAX_ROWS]
    ]
    count = len(found.images[0].points)
    title = f"{len(found.images):,} ears with {count} landmarks each"
    shown.append(table(title, "PNG", "mean confidence", rows=rows))
    if len(found.images) > len(rows):
        shown.append(escape(f"and {len(found.images) - len(rows):,} more in {out}"))
    output.show(found, *shown)


def _rows(trained: TrainedLandmarks) -> dict[str, str]:
    held_out = f"on {trained.held_out} held-out ears"
    rows = {
        "landmarks": f"{trained.landmarks}, learned from {trained.ears} ears"
        + (f" and {trained.drawn:,} drawn ones" if trained.drawn else ""),
        "error": f"{100 * trained.error:.2f} % of the ear's diagonal {held_out}",
        "checkpoint": str(trained.checkpoint),
        "next": f"earteach landmarks {trained.checkpoint} --input PICTURES --out DIR",
    }
    if trained.error_from_noise is not None:
        rows["error"] += f"; {100 * trained.error_from_noise:.2f} % from random weights"
    return rows
