"""`earteach landmarks`."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earteach.cli.options import CheckpointDir, Json, Seed, Show, ckpt_argument, typed
from earteach.cli.output import Output, facts, listing, pictures, progress_bar
from earteach.config import DRAWN, InferenceConfig

if TYPE_CHECKING:
    from earteach.inference.landmark_training import TrainedLandmarks

_FOR_TRAINING = ("drawn", "compare", "steps", "seed", "checkpoint_dir")


def _training(*names: str, help: str, **limits: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Training a landmarker", **limits)


_CKPT = ckpt_argument(
    "A network that finds landmarks. Default: drawn, the one in the package. With --train, what to "
    "start from. Default: the best in --checkpoint-dir, or else drawn."
)
_INPUT = typer.Option("--input", help="An image of an ear, or a folder of images; repeatable.")
_BOXES = typer.Option("--boxes", help="Where the ears are in larger photographs, as for `prepare`.")
_TRAIN = _training(
    "--train",
    help="Labelled ears: a folder that `prepare --landmarks` wrote; or a .csv or a folder of .pts "
    "files, about the photographs of --input.",
)
_DRAWN = _training(
    "--drawn/--no-drawn",
    help="Mix in drawn ears. Default: if yours have their 55 landmarks (the iBUG ear scheme).",
)
_COMPARE = _training(
    "--compare/--no-compare", help="Train the same network from random weights, too."
)
_STEPS = _training("--steps", help="Training steps.", min=1)


def landmarks(
    context: typer.Context,
    config: InferenceConfig,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is written.")],
    ckpt: Annotated[Path | None, _CKPT] = None,
    inputs: Annotated[list[Path] | None, _INPUT] = None,
    boxes: Annotated[Path | None, _BOXES] = None,
    train: Annotated[Path | None, _TRAIN] = None,
    drawn: Annotated[bool | None, _DRAWN] = None,
    compare: Annotated[bool, _COMPARE] = True,
    steps: Annotated[int, _STEPS] = 450,
    seed: Seed = 42,
    show: Show = False,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    json: Json = False,
) -> None:
    """Find landmarks on ears; with --train, train a landmarker on your own labelled ears."""
    output = Output(json)
    if train is None:
        if not inputs:
            raise typer.BadParameter(
                "name images of ears with --input, or train a landmarker with --train"
            )
        if unused := sorted(typed(context, _FOR_TRAINING)):
            raise typer.BadParameter(
                f"--{unused[0].replace('_', '-')} has no effect without --train"
            )
        _find(output, ckpt or Path(DRAWN), inputs, out, boxes, config, show=show)
        return
    if boxes is not None or show or len(inputs or ()) > 1:
        raise typer.BadParameter(
            "--train takes at most one --input, and neither --boxes nor --show"
        )
    from earteach.inference.landmark_training import train_landmarks

    with progress_bar("training") as progress:
        trained = train_landmarks(
            ckpt or (checkpoint_dir if checkpoint_dir.is_dir() else Path(DRAWN)), train, out,
            photographs=inputs[0] if inputs else None, drawn=drawn, compare=compare, steps=steps,
            seed=seed, config=config, progress=progress,
        )  # fmt: skip
    output.show(trained, facts("Trained", _rows(trained)))


def _find(
    output: Output, ckpt: Path, inputs: list[Path], out: Path, boxes: Path | None,
    config: InferenceConfig, *, show: bool,
) -> None:  # fmt: skip
    from earteach.inference.landmarks import landmarks as core

    found = core(ckpt, inputs, out, boxes=boxes, config=config)
    drawn = pictures([ear.output for ear in found.images]) if show and not output.json else []
    rows = [(str(ear.output), f"{fmean(ear.confidence):.2f}") for ear in found.images]
    ears = "1 ear" if len(rows) == 1 else f"{len(rows):,} ears"
    title = f"{ears} with {len(found.images[0].points)} landmarks"
    output.show(found, *drawn, *listing(title, "PNG", "mean confidence", rows=rows, out=out))


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
