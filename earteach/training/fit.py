"""One run, from where it begins to its result."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from earteach.checkpoint import Checkpoint
from earteach.config import RunConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.environment import is_main_process
from earteach.errors import EarTeachError
from earteach.files.atomic_write import is_full, write_error
from earteach.files.folders import make_writable_folder, missing_folders, remove_empty
from earteach.hardware import is_out_of_memory
from earteach.metrics.diagnostics import Advice, recorded_advice
from earteach.model.annealing import note_fewer_cycles
from earteach.randomness import seeded_weights
from earteach.run_files import LAST, METRICS_FILE, RUN_NAME
from earteach.run_identity import check_folder, check_log
from earteach.training.checkpoint_callback import (
    Checkpoints,
    epochs_processed,
    incompatible_state_error,
)
from earteach.training.interruption import (
    REQUEUE,
    StopRequest,
    TrainingInterrupted,
    requeue,
)
from earteach.training.lightning_module import EarVAELightning
from earteach.training.plan import Plan, plan
from earteach.training.progress import Progress, ProgressCallback, TimeEstimate
from earteach.training.recorder import EpochRecord, Recorder
from earteach.training.resource_checks import check_space_for_run
from earteach.training.task import Task
from earteach.training.trainer import (
    Loaders,
    make_trainer,
    quiet_lightning,
    tensorboard_raises_once,
)

# What a run leaves in its folders of checkpoints and of its log.
_FILES_OF_RUNS = ("*.ckpt", METRICS_FILE, "events.out.tfevents.*")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """A best checkpoint; `epoch` counts from 0."""

    path: Path
    value: float
    epoch: int


@dataclass(frozen=True)
class TrainResult:
    """How a run ended, and what is wrong with it.

    Under `fast_dev_run`, which writes nothing, `last` and `best` are empty. `second_decoder` is that of
    the best checkpoint by loss. `signal` is what interrupted the run, or the training of that decoder.
    """

    epochs_completed: int
    global_step: int
    stopped_by: Literal["finished", "early_stopping", "interrupted"]
    last: Path | None
    best: dict[str, Best]
    resumed_from: Path | None
    log_dir: Path | None
    seconds: float
    task: str = Task.name
    signal: int | None = None
    advice: tuple[Advice, ...] = ()
    second_decoder: Path | None = None


@dataclass(frozen=True)
class Watch:
    """What is called while a run goes: before it starts, after its first steps, about twice a second,
    after each epoch, and with the steps of the second decoder that are done, and their total."""

    on_start: Callable[[Plan], None] | None = None
    on_estimate: Callable[[TimeEstimate], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None
    on_sharpen: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Start:
    """Where a run begins: at a checkpoint to continue, or anew, from old weights or none.

    `fresh` moves an old run aside; `fast_dev_run` writes nothing.
    """

    checkpoint: Checkpoint | None = None
    weights: Checkpoint | None = None
    fresh: bool = False
    fast_dev_run: bool = False

    @property
    def epochs_done(self) -> int:
        return self.checkpoint.epochs_completed if self.checkpoint else 0


def fit(config: TrainConfig, start: Start, watch: Watch, task: Task) -> TrainResult:
    """Train from `start` to the last epoch, or until the run is interrupted.

    Raises `EarTeachError` for data, hardware or a disk that the user can put right.
    """
    began = time.monotonic()
    run, resumed = config.run, start.checkpoint
    if resumed and not resumed.state.keys() >= {"loops", "optimizer_states", "callbacks"}:
        raise incompatible_state_error(resumed.path)
    arrays = _open_data(config, resumed)
    with quiet_lightning(), tensorboard_raises_once(), StopRequest() as stop:
        show_plan = partial(_show_plan, config, start, watch, task)
        keeper = Checkpoints(
            folder=run.checkpoint_dir,
            data={name: array.fingerprint() for name, array in arrays.items()},
            stop=stop,
            every_n_steps=run.checkpoint_every_n_steps,
            origin={**task.provenance, "task": task.name},
            on_restored=show_plan if resumed else None,
        )
        recorder = Recorder(config, arrays, watch.on_epoch)
        progress = ProgressCallback(
            config,
            (len(arrays["train"]), len(arrays["val"])),
            on_estimate=watch.on_estimate,
            on_progress=watch.on_progress,
        )
        trainer = make_trainer(
            config,
            [progress, recorder, keeper],
            purge_step=resumed.global_step if resumed else 0,
            fast_dev_run=start.fast_dev_run,
        )
        module = _module(config, start, task)
        if not start.fast_dev_run:
            _clear_the_way(config, start)
        with _nothing_left_of_failure(run):
            if not start.fast_dev_run:
                _make_folders(config, start, task)
            if resumed is None:  # else the plan is shown when the state has been read
                show_plan()
                if start.weights is None:  # which may take a minute
                    task.initialise(module, arrays["train"], keep=not start.fast_dev_run)
            interrupted = _run(trainer, module, arrays, keeper, resumed)
        advice = recorder.diagnose(module, trainer.global_step, finished=not interrupted)
    if interrupted and stop.signal == REQUEUE and is_main_process():
        requeue()
    return TrainResult(
        epochs_completed=epochs_processed(trainer),
        global_step=trainer.global_step,
        stopped_by="interrupted" if interrupted else keeper.finished or "finished",
        last=None if start.fast_dev_run else run.checkpoint_dir / LAST,
        best=_best(keeper.best),
        resumed_from=resumed.path if resumed else None,
        log_dir=None if start.fast_dev_run else run.log_dir / RUN_NAME,
        seconds=time.monotonic() - began,
        task=task.name,
        signal=stop.signal,
        advice=advice,
    )


def finished_result(run: Checkpoint, log_dir: Path) -> TrainResult:
    """What `fit` returned at the end of a run whose last checkpoint is `run`."""
    best = {
        name: {**entry, "path": run.path.with_name(Path(entry["path"]).name)}
        for name, entry in run.about["best"].items()
    }
    return TrainResult(
        epochs_completed=run.epochs_completed,
        global_step=run.global_step,
        stopped_by=run.about["stopped_by"] or "finished",
        last=run.path,
        best=_best(best),
        resumed_from=run.path,
        log_dir=log_dir / RUN_NAME,
        seconds=0.0,
        task=run.task,
        advice=recorded_advice(run.state) or (),
    )


def _best(entries: Mapping[str, dict[str, Any]]) -> dict[str, Best]:
    return {
        name: Best(Path(entry["path"]), entry["value"], entry["epoch"])
        for name, entry in entries.items()
    }


def _show_plan(config: TrainConfig, start: Start, watch: Watch, task: Task) -> None:
    if watch.on_start is not None:
        watch.on_start(plan(config, task, epochs_done=start.epochs_done))


def _clear_the_way(config: TrainConfig, start: Start) -> None:
    """Everything else that can be wrong has been checked."""
    folder, log = config.run.checkpoint_dir, config.run.log_dir / RUN_NAME
    check_space_for_run(config, start.epochs_done, fresh=start.fresh)
    if is_main_process():
        check_log(log, folder, start.checkpoint, fresh=start.fresh)
        if start.fresh:
            _move_aside(config)
        check_folder(folder, start.checkpoint)


def _make_folders(config: TrainConfig, start: Start, task: Task) -> None:
    folder, log = config.run.checkpoint_dir, config.run.log_dir / RUN_NAME
    make_writable_folder(folder, str(folder), "choose another folder for checkpoints")
    make_writable_folder(log, str(log), "choose another --log-dir")
    if start.checkpoint is None and is_main_process():
        task.prepare_folder(folder)
    if task.kld_schedule(config):
        note_fewer_cycles(config.optim.epochs, config.kld)


@contextmanager
def _nothing_left_of_failure(run: RunConfig) -> Iterator[None]:
    """Remove the folders that a failed run made, unless it completed an epoch there."""
    folders = [
        (run.log_dir / RUN_NAME, [METRICS_FILE]),
        (run.checkpoint_dir, [LAST, "best-*.ckpt"]),
    ]
    missing = [missing_folders(folder.absolute()) for folder, _ in folders]
    try:
        yield
    except Exception:
        for (folder, results), made in zip(folders, missing, strict=True):
            if made and is_main_process() and not any(any(folder.glob(name)) for name in results):
                shutil.rmtree(folder, ignore_errors=True)
                remove_empty(made)
        raise


def _open_data(config: TrainConfig, resumed: Checkpoint | None) -> dict[str, EarArray]:
    paths = {"train": config.data.train_data, "val": config.data.val_data}
    for path in paths.values():
        if resumed and "*" not in str(path) and not path.is_absolute() and not path.exists():
            raise EarTeachError(
                f"{path}: no such file; resume {resumed.path} in the folder where it was trained, or "
                "put the array there"
            )
    arrays = {name: EarArray.open(path, config.data.layout) for name, path in paths.items()}
    for name, array in arrays.items():
        _ = array.scale  # bad values are reported before training starts
        array.note_conversions(config.model.image_size, config.model.in_channels)
        if resumed and resumed.about["data"].get(name) != array.fingerprint():
            raise EarTeachError(
                f"{array.path}: is no longer the {name} array of {resumed.path}; put the old one "
                "back, or begin a new run from the weights with `earteach train --fresh --init-from`"
            )
    if arrays["train"].fingerprint() == arrays["val"].fingerprint():
        _log.info(
            "--val-data %s: holds the training images, so that validation rewards memorization; make "
            "an array of other people with `earteach prepare`",
            arrays["val"].path,
        )
    return arrays


def _module(config: TrainConfig, start: Start, task: Task) -> EarVAELightning:
    with seeded_weights(config.run.seed):
        module = task.module(config)
    if start.weights is not None:
        try:
            module.init_from_model(start.weights.model())
        except RuntimeError as error:
            raise EarTeachError(
                f"--init-from {start.weights.path}: its network does not match these options; use "
                "those that it was trained with (`earteach inspect-model` shows them)"
            ) from error
    return module


def _run(
    trainer: pl.Trainer,
    module: EarVAELightning,
    arrays: Mapping[str, EarArray],
    keeper: Checkpoints,
    resumed: Checkpoint | None,
) -> bool:
    """Fit; whether the run was interrupted."""
    try:
        trainer.fit(
            module,
            datamodule=Loaders(module.config, arrays),
            ckpt_path=resumed.path if resumed else None,
            weights_only=True,
        )
    except (TrainingInterrupted, SIGTERMException):
        return True
    except OSError as error:
        log = module.config.run.log_dir / RUN_NAME
        in_log = isinstance(error.filename, str) and Path(error.filename).is_relative_to(log)
        if not (in_log or is_full(error)):
            raise
        last = module.config.run.checkpoint_dir / LAST
        again = f"`earteach resume {last}`" if last.exists() else "train again"
        if not is_full(error):
            raise EarTeachError(
                f"{log}: cannot be written: {error.strerror}; put the folder right, then {again}"
            ) from error
        raise write_error(log, error, again) from error
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if not is_out_of_memory(error):
            if resumed is not None and not keeper.restored:
                raise incompatible_state_error(resumed.path) from error
            raise
        smaller = max(1, module.config.optim.batch_size // 2)
        raise EarTeachError(
            f"--batch-size {module.config.optim.batch_size}: out of memory; try --batch-size "
            f"{smaller}, or a smaller --image-size or --base-channels"
        ) from error
    return False


def _move_aside(config: TrainConfig) -> None:
    """Rename an old run's folders, beside themselves. Folders of other files stay."""
    named = [config.run.checkpoint_dir, config.run.log_dir / RUN_NAME]
    old = [folder for folder in named if any(any(folder.glob(each)) for each in _FILES_OF_RUNS)]
    for folder in old:
        if Path.cwd().is_relative_to(folder.resolve()):
            raise EarTeachError(
                f"{folder}: holds the working directory, so --fresh cannot move it aside; choose "
                "another folder"
            )
    for folder in old:
        if not folder.exists():
            continue  # it lay in the first one
        number = 1
        while (aside := folder.with_name(f"{folder.name}-old-{number}")).exists():
            number += 1
        try:
            folder.rename(aside)
        except OSError as error:
            raise EarTeachError(
                f"{folder}: cannot be moved aside to {aside}: {error.strerror}; choose another folder"
            ) from error
        _log.info("moved the old run's %s to %s", folder, aside)
