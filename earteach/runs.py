"""Begin a run or continue one, whatever its task: configuration in, result out.

>>> result = train(TrainConfig(optim=OptimConfig(epochs=10)))
>>> result.best["loss"].path
PosixPath('checkpoints/best-epoch=009-loss=0.004321.ckpt')
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import InferenceConfig, Student, TrainConfig
from earteach.distillation.student_task import StudentTask
from earteach.distillation.teacher import TEACHER, find_teacher
from earteach.environment import is_main_process
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import load_model
from earteach.inference.second_decoder import second_decoder_path
from earteach.inference.sharpen import sharpen
from earteach.run_files import BEST, LAST, RUN_NAME, SHARPENING, STUDENTS
from earteach.run_identity import log_dir as find_log_dir
from earteach.training.fit import Start, TrainResult, Watch, finished_result, fit
from earteach.training.interruption import REQUEUE, StopRequest, TrainingInterrupted, requeue
from earteach.training.plan import sharpen_steps
from earteach.training.run_lock import sole_run
from earteach.training.task import Task

_log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    fresh: bool = False,
    fast_dev_run: bool = False,
    init_from: Path | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train; continue where the checkpoint folder holds a `last.ckpt` of the same configuration.

    At the end the best checkpoint by loss gets a second decoder for sharper new ears, as by `sharpen`.

    `fresh` moves an old run's folders aside first. `fast_dev_run` takes one step of training and one
    of validation and writes nothing. `init_from` is a checkpoint whose weights a new run starts from.

    Raises `EarTeachError` where an old run differs or is finished, and for whatever else the user can
    put right: data, hardware, memory, a full disk.
    """
    task = Task()
    task.check(config)
    weights = checkpoint.find(init_from) if init_from is not None else None
    start = Start(weights=weights, fresh=fresh, fast_dev_run=fast_dev_run)
    return _begin_or_continue(config, start, watch, task)


def distil(
    teacher: str | Path,
    *,
    student: Student = "mobile",
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
    fast_dev_run: bool = False,
    watch: Watch | None = None,
) -> TrainResult:
    """Train a student of the checkpoint at `teacher`, or of a folder's best, or continue to.

    The run has the teacher's configuration except for what `options` changes by name (`epochs`,
    `train_data`, …) and its folders, `students` and `students/logs`. The student has a small encoder
    and the teacher's decoder. Its folder keeps a copy of the teacher.

    Raises `EarTeachError` where the teacher is a student itself, and as `train` does.
    """
    trained = checkpoint.find(teacher)
    folders = {"checkpoint_dir": Path(STUDENTS), "log_dir": Path(STUDENTS, "logs")}
    config = trained.config.with_options({**folders, **(options or {}), "encoder": student})
    if fresh and trained.path.resolve().parent == config.run.checkpoint_dir.resolve():
        raise EarTeachError(
            f"{trained.path}: lies in {config.run.checkpoint_dir}, which --fresh moves aside; choose "
            "another --out"
        )
    task = StudentTask(trained)
    task.check(config)
    start = Start(fresh=fresh, fast_dev_run=fast_dev_run)
    return _begin_or_continue(config, start, watch, task)


# How the task of an interrupted run is made again, by its name in the checkpoint.
_TASKS: dict[str, Callable[[Checkpoint], Task]] = {
    Task.name: lambda _: Task(),
    StudentTask.name: lambda run: StudentTask(find_teacher(run), run.about[TEACHER]),
}


def _task_of(run: Checkpoint) -> Task:
    if run.task not in _TASKS:
        raise EarTeachError(
            f"{run.path}: was trained by `earteach {run.task}`, and cannot be continued; name a "
            f"checkpoint of `earteach {'` or `earteach '.join(_TASKS)}`"
        )
    return _TASKS[run.task](run)


def _sole_run(folder: Path, needless: bool = False) -> AbstractContextManager[None]:
    """The lock on the folder, held by the first process of a run."""
    return nullcontext() if needless or not is_main_process() else sole_run(folder)


def _fit(config: TrainConfig, start: Start, watch: Watch | None, task: Task) -> TrainResult:
    log, folder = config.run.log_dir / RUN_NAME, config.run.checkpoint_dir
    needless = start.fast_dev_run or log.resolve().is_relative_to(folder.resolve())
    watch, run = watch or Watch(), start.checkpoint
    with _sole_run(log, needless):
        if run is not None and _is_finished(run, config.optim.epochs):
            result = finished_result(run, config.run.log_dir)
        else:
            result = fit(config, start, watch, task)
    if result.stopped_by == "interrupted":
        return result
    if task.sharpens and result.best:
        return _sharpened(result, config, watch)
    return replace(result, signal=None)


def _sharpened(result: TrainResult, config: TrainConfig, watch: Watch) -> TrainResult:
    """The result, once the best checkpoint has a second decoder; without it if that fails."""
    best, kind = result.best["loss"].path, config.hardware.accelerator
    again, steps = f"`earteach resume {result.last}`", sharpen_steps(config, result.global_step)
    device = InferenceConfig(
        accelerator="auto" if kind == "tpu" else kind, batch_size=min(32, config.optim.batch_size)
    )
    if not steps:
        return replace(result, signal=None)
    if stored := second_decoder_path(load_model(best, device)):
        return replace(result, second_decoder=stored, signal=None)
    _log.info("training a second decoder, for sharper new ears: %d steps", steps)
    with StopRequest() as stop:
        stop.signal = result.signal  # it came too late to interrupt the training

        def progress(done: int, total: int) -> None:
            if stop.signal is not None:
                raise TrainingInterrupted
            if watch.on_sharpen is not None:
                watch.on_sharpen(done, total)

        try:
            sharpened = sharpen(
                best, steps=steps, seed=config.run.seed, config=device, progress=progress
            )
        except TrainingInterrupted:
            _log.info("interrupted: the network is trained; %s goes on with the decoder", again)
            if stop.signal == REQUEUE:
                requeue()
            return replace(result, signal=stop.signal)
        except (EarTeachError, OSError) as error:
            _log.warning(
                "the network is trained, but `earteach sharpen %s` failed: %s", best, error
            )
            return replace(result, signal=None)
    return replace(result, second_decoder=sharpened.path, signal=None)


def _begin_or_continue(
    config: TrainConfig, start: Start, watch: Watch | None, task: Task
) -> TrainResult:
    with _sole_run(config.run.checkpoint_dir, start.fast_dev_run):
        last = config.run.checkpoint_dir / LAST
        if last.exists() and not start.fresh and not start.fast_dev_run:
            start = _continued(last, config, start, task)
        return _fit(config, start, watch, task)


def _continued(last: Path, config: TrainConfig, start: Start, task: Task) -> Start:
    """The run in the folder as the place to start from; `EarTeachError` where it is another one."""
    if start.weights is not None:
        raise EarTeachError(
            f"--init-from {start.weights.path}: begins a new run, but {last} exists; add --fresh to "
            "move the old run aside"
        )
    run = checkpoint.read(last)
    _check_continues(run, config, task)
    _log.info(
        "continuing the run in %s (%s)",
        config.run.checkpoint_dir,
        _position(run, config.optim.epochs),
    )
    return Start(checkpoint=run)


def resume(
    path: Path,
    *,
    epochs: int | None = None,
    reanneal: bool = False,
    log_dir: Path | None = None,
    sharpen_steps: int | None = None,
    hardware: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Continue the run of a checkpoint with everything that it knows.

    Checkpoints are written beside it, and its log goes on where it is, or in `log_dir`.

    With more `epochs` than before, the schedule of the KLD weight keeps its shape and then holds its
    final weight, unless `reanneal` stretches it. `hardware` holds changed fields of `HardwareConfig`.

    Raises `EarTeachError` where the run is finished and no more epochs are given.
    """
    folder = Path(path).parent
    with _sole_run(folder):
        run = checkpoint.read(path)
        sharpening = {} if sharpen_steps is None else {"sharpen_steps": sharpen_steps}
        config = run.config.with_options({**(hardware or {}), **sharpening})
        named, logs = config.run.log_dir, log_dir or find_log_dir(run)
        if log_dir is None and logs.absolute() != named.absolute():
            _log.info("logging to %s: beside the checkpoint, which names %s", logs, named)
        config = replace(config, run=replace(config.run, checkpoint_dir=folder, log_dir=logs))
        _check_unfinished(run, epochs or config.optim.epochs)
        task = _task_of(run)
        if epochs is not None:
            config = _extended(config, epochs, reanneal)
            if epochs != run.config.optim.epochs and task.kld_schedule(config):
                _note_schedule(run.config, config)
        _log.info("continuing %s (%s)", path, _position(run, config.optim.epochs))
        return _fit(config, Start(checkpoint=run), watch, task)


def _extended(config: TrainConfig, epochs: int, reanneal: bool) -> TrainConfig:
    horizon = None if reanneal else config.kld.kld_anneal_epochs or config.optim.epochs
    return config.with_options(
        {"epochs": epochs, "kld_anneal_epochs": None if horizon == epochs else horizon}
    )


def _note_schedule(old: TrainConfig, new: TrainConfig) -> None:
    """Log what another number of epochs makes of the KLD weight's schedule."""
    before = old.kld.kld_anneal_epochs or old.optim.epochs
    epochs, horizon = new.optim.epochs, new.kld.kld_anneal_epochs or new.optim.epochs
    verb = "still spans" if horizon == before else "now spans"
    if horizon > before:
        verb = "is stretched to"
    more = f", but the run ends after {epochs}" if epochs < horizon else ""
    if epochs > horizon:
        more = "; later epochs use the final weight"
    _log.info("the KLD weight's schedule %s %d epochs%s", verb, horizon, more)


def _check_continues(run: Checkpoint, config: TrainConfig, task: Task) -> None:
    differing = checkpoint.differences(run.config, config)
    if set(differing) == {"epochs"}:
        old, new = differing["epochs"]
        raise EarTeachError(
            f"{run.path}: belongs to a run of {old} epochs, not {new}; continue it with "
            f"`earteach resume {run.path} --epochs {new}` or start over with --fresh"
        )
    mismatch = task.mismatch(run)
    if differing:
        mismatch = f"with different options ({checkpoint.listed(differing)})"
    if mismatch:
        raise EarTeachError(
            f"{run.path}: belongs to a run {mismatch}; continue that run with `earteach resume "
            f"{run.path}`, or start over with --fresh, which moves it aside"
        )
    _check_unfinished(run, config.optim.epochs)


def _check_unfinished(run: Checkpoint, epochs: int) -> None:
    sharpening = any(run.path.parent.glob(f"{BEST}*{SHARPENING}"))
    if _is_finished(run, epochs) and not sharpening:
        how = "stopped early" if _stopped_early(run) else "finished"
        done = run.epochs_completed
        raise EarTeachError(
            f"{run.path}: this run {how} after {done} epochs; train it longer with `earteach "
            f"resume {run.path} --epochs {max(2 * done, epochs + 1)}`, or start over with "
            f"`earteach {run.task} --fresh`, which moves it aside"
        )


def _stopped_early(run: Checkpoint) -> bool:
    return bool(run.about["stopped_by"] == "early_stopping")


def _is_finished(run: Checkpoint, epochs: int) -> bool:
    longer = epochs > run.config.optim.epochs
    return run.epochs_completed >= epochs or (_stopped_early(run) and not longer)


def _position(run: Checkpoint, epochs: int) -> str:
    if _is_finished(run, epochs):
        return "all but its second decoder is trained"
    return f"epoch {run.epochs_completed + 1}, step {run.global_step}"
