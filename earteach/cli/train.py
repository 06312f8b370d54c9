"""`earteach train`; its options are the fields of the groups in `config.py`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from earteach.cli.options import Config, FastDevRun, Json, complete_checkpoint, typed
from earteach.cli.output import (
    Output,
    advice_table,
    bar,
    duration,
    facts,
    following,
    line,
    note,
    plain,
    sparkline,
)
from earteach.cli.sharpen import steps_shown
from earteach.config import (
    DataConfig,
    HardwareConfig,
    KLDConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from earteach.environment import is_main_process
from earteach.errors import EarTeachError

if TYPE_CHECKING:
    from earteach.training.fit import TrainResult, Watch
    from earteach.training.plan import Plan
    from earteach.training.progress import TimeEstimate
    from earteach.training.recorder import EpochRecord


def train(
    context: typer.Context,
    data: DataConfig,
    model: ModelConfig,
    optim: OptimConfig,
    kld: KLDConfig,
    hardware: HardwareConfig,
    run: RunConfig,
    config: Config = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            help="Continue the run of this checkpoint, like `earteach resume`.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            help="Start a new run from the weights of this checkpoint.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an old run's folders aside and start a new run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained, without training.")
    ] = False,
    fast_dev_run: FastDevRun = False,
    json: Json = False,
) -> None:
    """Train a model, or continue the run in the checkpoint folder if its options match."""
    settings = TrainConfig(data=data, model=model, optim=optim, kld=kld, hardware=hardware, run=run)
    if resume is not None and (fresh or init_from is not None or dry_run or fast_dev_run):
        raise typer.BadParameter(
            "--resume continues a run; --fresh, --init-from, --dry-run and --fast-dev-run are for a "
            "new one"
        )
    output = Output(json)
    if dry_run:
        _show_plan(settings, init_from, output)
        return
    with watching(output) as watch:
        if resume is not None:
            result = _resume(context, settings, resume, watch)
        else:
            from earteach.runs import train as core

            result = core(
                settings, fresh=fresh, fast_dev_run=fast_dev_run, init_from=init_from, watch=watch
            )
    show_outcome(output, result)


def _show_plan(settings: TrainConfig, init_from: Path | None, output: Output) -> None:
    from earteach import checkpoint
    from earteach.training.plan import plan
    from earteach.training.task import Task

    Task().check(settings)
    if init_from is not None:
        checkpoint.find(init_from)
    planned = plan(settings, Task())
    output.show(planned.to_dict(), _plan_table(planned))


def _resume(
    context: typer.Context, settings: TrainConfig, resume: Path, watch: Watch
) -> TrainResult:
    from earteach import checkpoint
    from earteach.runs import resume as core

    values = settings.resolved_options()
    given = typed(context, [*values, "lr_peak"])
    if "lr_peak" in given:
        given.add("learning_rate")
    differing = checkpoint.differences(checkpoint.read(resume).config, settings)
    differing = {name: differing[name] for name in differing if name in given - {"epochs"}}
    if differing:
        listed = checkpoint.listed(differing)
        raise EarTeachError(
            f"{resume}: was trained with different options ({listed}); leave them out to continue "
            "it, or start a new run with --init-from"
        )
    return core(
        resume,
        epochs=settings.optim.epochs if "epochs" in given else None,
        hardware={name: values[name] for name in settings.hardware.to_dict() if name in given},
        log_dir=settings.run.log_dir if "log_dir" in given else None,
        sharpen_steps=settings.run.sharpen_steps if "sharpen_steps" in given else None,
        watch=watch,
    )


@contextmanager
def watching(output: Output) -> Iterator[Watch]:
    """Show the plan, the time estimate and a line per epoch; on a terminal also a progress bar."""
    from earteach.training.fit import Watch

    with nullcontext() if output.json else bar() as update:
        yield Watch(
            on_start=lambda plan: None if output.json else output.show(plan, _plan_table(plan)),
            on_estimate=lambda estimate: note(estimate_line(estimate, datetime.now())),
            on_progress=update and following(update),
            on_epoch=lambda record: line(epoch_line(record), wrap=True),
            on_sharpen=steps_shown(update),
        )


def estimate_line(estimate: TimeEstimate, now: datetime) -> str:
    """How long the run will take, and when it will end."""
    end = now + timedelta(seconds=estimate.seconds)
    when = f"{end:%H:%M}" if end.date() == now.date() else f"{end:%H:%M on %-d %B}"
    epochs = "1 epoch" if estimate.epochs == 1 else f"{estimate.epochs} epochs"
    return (
        f"first {estimate.steps} steps: {estimate.images_per_second:.3g} images/s; {epochs} "
        f"will take about {duration(estimate.seconds)}, until {when}"
    )


# Metrics of single kinds of runs, with their places in an epoch's line.
_SHOWN = {
    "val/kld": "kld {:.1f}", "val/codes_r2": "codes {:.3f}", "val/features_r2": "features {:.3f}",
}  # fmt: skip


def epoch_line(record: EpochRecord) -> str:
    """One epoch in one line; epochs count from 1 in text."""
    metrics = record.metrics
    shown = "  ".join(form.format(metrics[key]) for key, form in _SHOWN.items() if key in metrics)
    left = f"  {duration(record.seconds_left)} left" if record.seconds_left else ""
    return (
        f"epoch {record.epoch + 1}/{record.epochs}  loss {metrics['train/loss']:.5f}  "
        f"val_loss {metrics['val/loss']:.5f}  ssim {metrics['val/ssim']:.4f}  "
        f"psnr {metrics['val/psnr']:.2f} dB  {shown}  "
        f"lr {record.learning_rate:.1e}  {record.images_per_second:.0f} images/s  "
        f"{duration(record.seconds)}{left}"
    )


def _plan_table(planned: Plan) -> Table:
    config = planned.config
    model, data, optim, run = config.model, config.data, config.optim, config.run
    values = {
        "model": f"EarVAE for {model.image_size}×{model.image_size}×{model.in_channels}, latent "
        f"dimension {model.latent_dim}, base channels {model.base_channels}",
        "parameters": f"{planned.parameters:,}",
        "multiply-adds": f"{planned.multiply_adds:,} per image",
        "training images": f"{planned.train_images:,} ({data.train_data})",
        "validation images": f"{planned.val_images:,} ({data.val_data})",
        "length": f"{optim.epochs:,} epochs" if optim.epochs > 1 else "1 epoch",
        "steps": f"{planned.steps_per_epoch:,} per epoch, {planned.steps:,} in total; batch size "
        f"{optim.batch_size}",
        "learning rate": f"{optim.peak_learning_rate:g} at its peak ({optim.lr_schedule})",
        **planned.provenance,
    }
    if planned.epochs_done:
        values["length"] += f", {planned.epochs_done:,} of them done"
    if planned.schedule:
        values["KLD weight"] = f"{sparkline(planned.schedule)} up to {max(planned.schedule):g}"
        values["β in ELBO units"] = f"{planned.elbo_beta:.4g}"
    if planned.sharpen_steps:
        values["afterwards"] = (
            f"a second decoder for sharper new ears: {planned.sharpen_steps:,} steps"
        )
    values["checkpoints"] = str(run.checkpoint_dir)
    values["logs"] = f"tensorboard --logdir {run.log_dir}"
    return facts("What will be trained", values)


def show_outcome(
    output: Output,
    result: TrainResult,
    more: Mapping[str, Any] | None = None,
    more_tables: Sequence[Table] = (),
) -> None:
    """The summary after training, with `more` in its JSON; the exit code of an interrupted run."""
    if result.stopped_by == "interrupted":
        if result.last is None:
            line("interrupted; nothing was written (--fast-dev-run)")
        else:
            line(
                f"interrupted: saved {result.last} in epoch {result.epochs_completed + 1}, after "
                f"step {result.global_step}; continue with `earteach resume {result.last}`"
            )
        output.show(result)
        # Lightning kills the first process where another one fails before it is done.
        raise typer.Exit(128 + (result.signal or signal.SIGTERM) if is_main_process() else 0)
    values = {
        "epochs": f"{result.epochs_completed} ({result.stopped_by.replace('_', ' ')})",
        "steps": f"{result.global_step:,}",
        "time": duration(result.seconds),
    }
    for name, best in result.best.items():
        values[f"best {name}"] = f"{best.value:.6g} in epoch {best.epoch + 1}: {best.path}"
    if result.second_decoder is not None:
        values["new ears"] = f"a second decoder: {result.second_decoder}"
    if result.last is not None:
        folder = result.last.parent
        option = "" if str(folder) == "checkpoints" else f" --checkpoint-dir {folder}"
        values["next"] = f"earteach eval{option}"
    else:
        values["written"] = "nothing (--fast-dev-run)"
    tables = [facts("Trained", values), *advice_table(result.advice)]
    output.show(plain(result) | (more or {}), *tables, *more_tables)
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)
