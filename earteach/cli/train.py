"""`earteach train`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from earteach.cli import completion
from earteach.cli.options import Config, FastDevRun, Json, typed
from earteach.cli.output import (
    Output,
    advice_table,
    duration,
    facts,
    is_main_process,
    line,
    note,
    plain,
    run_bar,
    sparkline,
)
from earteach.config import (
    DataConfig,
    HardwareConfig,
    KLDConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from earteach.errors import EarTeachError

if TYPE_CHECKING:
    from earteach.training.fit import TrainResult, Watch
    from earteach.training.plan import Plan
    from earteach.training.progress import Forecast
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
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--resume",
            help="Continue this checkpoint, as `earteach resume` does.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    init_from: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--init-from",
            help="Begin a new run with the weights of this checkpoint.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an old run's folders aside and begin anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")
    ] = False,
    fast_dev_run: FastDevRun = False,
    json: Json = False,
) -> None:
    """Train a model; where the checkpoint folder holds a run of the same options, continue it."""
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

    task = Task()
    task.check(settings)
    if init_from is not None:
        checkpoint.read(init_from)
    planned = plan(settings, task)
    output.show(planned, _plan_table(planned))


def _resume(
    context: typer.Context, settings: TrainConfig, resume: Path, watch: Watch
) -> TrainResult:
    from earteach import checkpoint
    from earteach.runs import resume as core

    given = {option.name: value for _, option, value in settings.options()}
    named = typed(context, given)
    kept = checkpoint.read(resume).config
    differing = {
        name: pair
        for name, pair in checkpoint.differences(kept, settings).items()
        if name in named and name != "epochs"
    }
    if differing:
        listed = checkpoint.listed(differing)
        raise EarTeachError(
            f"{resume}: was trained with other options ({listed}); leave them out to continue it, or "
            "begin a new run with --init-from"
        )
    hardware = set(settings.hardware.to_dict()) & named
    return core(
        resume,
        epochs=settings.optim.epochs if "epochs" in named else None,
        hardware={name: given[name] for name in hardware},
        watch=watch,
    )


@contextmanager
def watching(output: Output) -> Iterator[Watch]:
    """The plan, the forecast and a line for each epoch; on a terminal two lines that move too."""
    from earteach.training.fit import Watch

    def show_plan(planned: Plan) -> None:
        if not output.json:
            output.show(planned, _plan_table(planned))

    with run_bar() if not output.json else nullcontext() as move:
        yield Watch(
            on_start=show_plan,
            on_forecast=lambda forecast: note(forecast_line(forecast, datetime.now())),
            on_progress=move,
            on_epoch=lambda record: line(epoch_line(record), whole=False),
        )


def forecast_line(forecast: Forecast, now: datetime) -> str:
    """When a run would end, and what would end sooner."""
    end = now + timedelta(seconds=forecast.seconds)
    when = f"{end:%H:%M}" if end.date() == now.date() else f"{end:%H:%M on %-d %B}"
    epochs = "1 epoch" if forecast.epochs == 1 else f"{forecast.epochs} epochs"
    text = (
        f"first {forecast.steps} steps: {forecast.images_per_second:.3g} images/s; {epochs} "
        f"would take about {duration(forecast.seconds)}, until {when}"
    )
    if forecast.smaller is None:
        return text
    options = " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in forecast.smaller.options.items()
    )
    return f"{text}; with {options} about {duration(forecast.smaller.seconds)}"


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
    size, epochs = planned.image_size, planned.epochs
    values = {
        "model": f"EarVAE for {size}×{size}×{planned.in_channels}, {planned.latent_dim} numbers in a "
        f"code, base channels {planned.base_channels}",
        "parameters": f"{planned.parameters:,}",
        "multiply-adds": f"{planned.multiply_adds:,} for one image",
        "training images": f"{planned.train_images:,} ({planned.train_data})",
        "validation images": f"{planned.val_images:,} ({planned.val_data})",
        "length": f"{epochs:,} epochs" if epochs > 1 else "1 epoch",
        "steps": f"{planned.steps_per_epoch:,} an epoch, {planned.steps:,} in all; "
        f"{planned.batch_size} images in each",
        **planned.provenance,
        **_kld_rows(planned),
        "checkpoints": str(planned.checkpoint_dir),
        "logs": f"tensorboard --logdir {planned.log_dir}",
    }
    if planned.epochs_done:
        values["length"] += f", of which {planned.epochs_done:,} are done"
    return facts("What will be trained", values)


def _kld_rows(planned: Plan) -> dict[str, str]:
    if not planned.schedule:
        return {}
    return {
        "KLD weight": f"{sparkline(planned.schedule)} up to {max(planned.schedule):g}",
        "β in ELBO units": f"{planned.elbo_beta:.4g}",
    }


def show_outcome(
    output: Output,
    result: TrainResult,
    more: Mapping[str, Any] | None = None,
    more_tables: Sequence[Table] = (),
) -> None:
    """The summary after training, with `more` in its JSON; the exit code of an interrupted run."""
    if result.stopped_by == "interrupted":
        line(_interruption(result))
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
    if result.last is not None:
        folder = result.last.parent
        option = "" if str(folder) == "checkpoints" else f" --checkpoint-dir {folder}"
        values["next"] = f"earteach eval{option}"
    else:
        values["written"] = "nothing, as --fast-dev-run asks"
    tables = [facts("Trained", values), *advice_table(result.advice)]
    output.show(plain(result) | (more or {}), *tables, *more_tables)


def _interruption(result: TrainResult) -> str:
    if result.last is None:
        return "interrupted; nothing was written, as --fast-dev-run asks"
    return (
        f"interrupted: kept {result.last} in epoch {result.epochs_completed + 1}, after step "
        f"{result.global_step}; continue with `earteach resume {result.last}`"
    )
