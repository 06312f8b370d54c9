"""`earteach resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.distil import show_student_outcome
from earteach.cli.options import CheckpointDir, Given, Json, ckpt_argument
from earteach.cli.output import Output
from earteach.cli.train import show_outcome, watching
from earteach.config import HardwareConfig

# What is shown after a run, by its task.
OUTCOMES = {"train": show_outcome, "distil": show_student_outcome}


def resume(
    hardware: Given[HardwareConfig],
    ckpt: Annotated[
        Path | None,
        ckpt_argument("The checkpoint. Default: last.ckpt in --checkpoint-dir."),
    ] = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", help="Total number of epochs, including those already trained.", min=1
        ),
    ] = None,
    reanneal: Annotated[
        bool,
        typer.Option(
            "--reanneal",
            help="Stretch the KLD annealing schedule over the new number of epochs. Without it the "
            "schedule keeps its length, and later epochs use the final weight.",
        ),
    ] = False,
    log_dir: Annotated[
        Path | None,
        typer.Option("--log-dir", help="Folder for the rest of the log. Default: where it is."),
    ] = None,
    sharpen_steps: Annotated[
        int | None,
        typer.Option(
            "--sharpen-steps", help="Steps of the second decoder; 0 leaves it out.", min=0
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Continue a training run from its checkpoint.

    Only the number of epochs, what follows training, the log folder and the hardware options can change.
    """
    from earteach import checkpoint
    from earteach.runs import resume as core

    path = ckpt if ckpt is not None else checkpoint.last(checkpoint_dir)
    output = Output(json)
    with watching(output) as watch:
        result = core(
            path,
            epochs=epochs, reanneal=reanneal, log_dir=log_dir, sharpen_steps=sharpen_steps,
            hardware=hardware, watch=watch,
        )  # fmt: skip
    OUTCOMES[result.task](output, result)
