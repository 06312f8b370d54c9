"""`earteach distil`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from earteach.cli.options import CheckpointDir, Ckpt, FastDevRun, Given, Json
from earteach.cli.output import Output, facts, table
from earteach.cli.train import show_outcome, watching
from earteach.config import DataConfig, HardwareConfig, OptimConfig, Student
from earteach.environment import is_main_process
from earteach.run_files import STUDENTS

if TYPE_CHECKING:
    from earteach.distillation.comparison import Comparison, EncoderReport
    from earteach.training.fit import TrainResult


def distil(
    data: Given[DataConfig],
    optim: Given[OptimConfig],
    hardware: Given[HardwareConfig],
    ckpt: Ckpt = None,
    student: Annotated[
        Student, typer.Option("--student", help="The student's encoder.")
    ] = "mobile",
    checkpoint_dir: CheckpointDir = Path("checkpoints"),
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the student's checkpoints and logs.")
    ] = Path(STUDENTS),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an old student's folder aside and start over.")
    ] = False,
    fast_dev_run: FastDevRun = False,
    json: Json = False,
) -> None:
    """Train a small encoder to reproduce a trained network's codes and features.

    CKPT is the teacher. Unset options keep the teacher's values. Every command accepts the student's
    checkpoint, which includes the teacher's decoder.
    """
    from earteach.runs import distil as core

    output = Output(json)
    folders = {"checkpoint_dir": out, "log_dir": out / "logs"}
    with watching(output) as watch:
        result = core(
            ckpt or checkpoint_dir,
            student=student,
            options={**data, **optim, **hardware, **folders},
            fresh=fresh,
            fast_dev_run=fast_dev_run,
            watch=watch,
        )
    show_student_outcome(output, result)


def show_student_outcome(output: Output, result: TrainResult) -> None:
    """The summary after training, and the student beside its teacher."""
    # Of several processes only one compares and shows.
    if result.stopped_by == "interrupted" or result.last is None or not is_main_process():
        show_outcome(output, result)
        return
    from earteach.distillation.comparison import compare

    compared = compare(result.last.parent)
    more = {"teacher": compared.teacher.checkpoint, "comparison": compared}
    show_outcome(output, result, more, _comparison_tables(compared))


def _comparison_tables(compared: Comparison) -> list[Table]:
    """The student beside its teacher, and how far they agree."""
    reports = {"teacher": compared.teacher, "student": compared.student}
    agreement = {
        "codes": f"R² {compared.codes_r2:.3f}",
        "features": "R² " + ", ".join(f"{r2:.3f}" for r2 in compared.features_r2)
        + " at strides 2, 4, 8, 16",
        "speed": f"{compared.speed_ratio:.1f} times the teacher's, in batches of "
        f"{compared.timed_images} images",
    }  # fmt: skip
    if compared.side_agreement is not None:
        agreement["side"] = f"same as the teacher's for {compared.side_agreement:.1%} of the images"
    return [
        table(
            f"{compared.images:,} images from {compared.data}",
            "encoder", "parameters", "fixed values", "PSNR", "SSIM", "images/s",
            rows=[_row(name, report) for name, report in reports.items()],
        ),
        facts("The student's agreement with its teacher", agreement),
    ]  # fmt: skip


def _row(name: str, report: EncoderReport) -> tuple[str, ...]:
    return (
        name,
        f"{report.parameters:,}",
        f"{report.fixed_numbers:,}",
        f"{report.psnr:.2f} dB",
        f"{report.ssim:.4f}",
        f"{report.images_per_second:,.0f}",
    )
