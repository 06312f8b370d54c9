"""`earteach distil`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earteach.cli.options import CheckpointDir, Ckpt, FastDevRun, Given, Json, Without, found
from earteach.cli.output import Output
from earteach.cli.train import show_outcome, watching
from earteach.config import DataConfig, HardwareConfig, OptimConfig, Student


def distil(
    data: Annotated[Given[DataConfig], Without(["target"])],
    optim: Annotated[Given[OptimConfig], Without(["ssim_weight"])],
    hardware: Given[HardwareConfig],
    ckpt: Ckpt = None,
    student: Annotated[
        Student, typer.Option("--student", help="The small encoder that learns.")
    ] = "mobile",
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the student's checkpoints, and of its logs.")
    ] = Path("students"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an old student's folder aside and begin anew.")
    ] = False,
    fast_dev_run: FastDevRun = False,
    json: Json = False,
) -> None:
    """Train a small encoder to give a trained network's codes and features.

    CKPT is the teacher. What is left out is as it was trained. The student is a checkpoint for all
    commands, with the teacher's decoder.
    """
    from earteach.training.runs import distil as core

    output = Output(json)
    folders = {"checkpoint_dir": out, "log_dir": out / "logs"}
    with watching(output) as watch:
        result = core(
            found(ckpt, checkpoint_dir),
            student=student,
            options={**data, **optim, **hardware, **folders},
            fresh=fresh,
            fast_dev_run=fast_dev_run,
            watch=watch,
        )
    show_outcome(output, result)
