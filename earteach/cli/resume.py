"""`earteach resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

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
        Optional[Path],  # noqa: UP045
        ckpt_argument("The checkpoint; left out, last.ckpt."),
    ] = None,
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--epochs", help="Train until this many epochs in all.", min=1),
    ] = None,
    reanneal: Annotated[
        bool,
        typer.Option(
            "--reanneal",
            help="Stretch the KLD weight's schedule over the new number of epochs; otherwise it keeps "
            "its shape and then holds its final weight.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Continue a run with everything that its checkpoint knows.

    Only its length and what it is computed on can be changed.
    """
    from earteach import checkpoint
    from earteach.runs import resume as core

    path = ckpt if ckpt is not None else checkpoint.last(checkpoint_dir)
    output = Output(json)
    with watching(output) as watch:
        result = core(path, epochs=epochs, reanneal=reanneal, hardware=hardware, watch=watch)
    OUTCOMES[result.task](output, result)
