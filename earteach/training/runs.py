"""Train a model, or continue to: configuration in, result out.

>>> result = train(TrainConfig(optim=OptimConfig(epochs=10)))
>>> result.best["loss"].path
PosixPath('checkpoints/best-epoch=009-loss=0.004321.ckpt')
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import Student, TrainConfig
from earteach.environment import is_main_process
from earteach.errors import EarTeachError
from earteach.run_files import RUN_NAME
from earteach.training.fit import Start, TrainResult, Watch, fit
from earteach.training.plan import check_trainable
from earteach.training.run_lock import sole_run

STUDENTS = Path("students")
_log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    fresh: bool = False,
    fast_dev_run: bool = False,
    init_from: Path | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train; where the checkpoint folder holds a `last.ckpt` of the same configuration, go on.

    `fresh` moves an old run's folders aside first. `fast_dev_run` takes one step of training and one
    of validation and writes nothing. `init_from` is a checkpoint whose weights a new run begins with.

    Raises `EarTeachError` where an old run differs or is finished, and for whatever else the user can
    put right: data, hardware, memory, a full disk.
    """
    check_trainable(config.model)
    with _sole_run(config.run.checkpoint_dir, fast_dev_run):
        weights = checkpoint.read(init_from) if init_from is not None else None
        start = Start(weights=weights, fresh=fresh, dry=fast_dev_run)
        return _begin_or_continue(config, start, watch or Watch())


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

    It is a run as `train`'s with the teacher's configuration, in which `options` changes what they name
    (`epochs`, `train_data`, …); its folders are `students` and `students/logs`. The student is a
    network with a small encoder and the teacher's decoder. A copy of the teacher lies in its folder.

    Raises `EarTeachError` where the teacher is a student itself, and as `train` does.
    """
    path = Path(teacher)
    found = checkpoint.read(checkpoint.best(path) if path.is_dir() else path)
    if found.config.model.encoder == student:
        own = found.about.get(checkpoint.TEACHER, {}).get("path")
        raise EarTeachError(
            f"{found.path}: its encoder is a {student} one itself; name "
            + (f"its teacher, {own}, or another checkpoint" if own else "another checkpoint")
        )
    folders = {"checkpoint_dir": STUDENTS, "log_dir": STUDENTS / "logs"}
    config = found.config.with_options({**folders, **(options or {}), "encoder": student})
    if fresh and found.path.resolve().parent == config.run.checkpoint_dir.resolve():
        raise EarTeachError(
            f"{found.path}: lies in {config.run.checkpoint_dir}, which --fresh moves aside; choose "
            "another --out"
        )
    start = Start(teacher=found, fresh=fresh, dry=fast_dev_run)
    with _sole_run(config.run.checkpoint_dir, fast_dev_run):
        return _begin_or_continue(config, start, watch or Watch())


def _log_dir(named: Path, checkpoint_dir: Path) -> Path:
    """Where the log of a run goes on that names a folder: there, or beside its checkpoints.

    A checkpoint from elsewhere may name any folder; it is followed below this one, and where a run's log
    is already.
    """
    below = not named.is_absolute() and ".." not in named.parts
    if below or (named / RUN_NAME).is_dir():
        return named
    beside = checkpoint_dir.parent / "logs"
    _log.info("its log goes on in %s: in %s, which it names, is none", beside, named)
    return beside


def _sole_run(checkpoint_dir: Path, dry: bool = False) -> AbstractContextManager[None]:
    """Of the processes of one run the first holds the folder; a dry run needs none."""
    return nullcontext() if dry or not is_main_process() else sole_run(checkpoint_dir)


def _begin_or_continue(config: TrainConfig, start: Start, watch: Watch) -> TrainResult:
    last = config.run.checkpoint_dir / checkpoint.LAST
    if not last.exists() or start.fresh or start.dry:
        return fit(config, start, watch)
    if start.weights is not None:
        raise EarTeachError(
            f"--init-from {start.weights.path}: begins a new run, but {last} exists; add --fresh to "
            "move the old run aside"
        )
    found = checkpoint.read(last)
    _check_continues(found, config, start.teacher)
    _log.info("continuing the run in %s (%s)", config.run.checkpoint_dir, _position(found))
    return fit(config, Start(found=found, teacher=start.teacher), watch)


def resume(
    path: Path,
    *,
    epochs: int | None = None,
    reanneal: bool = False,
    hardware: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Continue the run of a checkpoint with everything that it knows.

    With more `epochs` than before, the schedule of the KLD weight keeps its shape and then holds its
    final weight, unless `reanneal` stretches it. `hardware` holds changed fields of `HardwareConfig`.

    Raises `EarTeachError` where the run is finished and no more epochs are given.
    """
    folder = Path(path).parent
    with _sole_run(folder):
        found = checkpoint.read(path)
        config = found.config.with_options(hardware or {})
        log_dir = _log_dir(config.run.log_dir, folder)
        config = replace(config, run=replace(config.run, checkpoint_dir=folder, log_dir=log_dir))
        _check_unfinished(found, epochs or config.optim.epochs)
        teacher = checkpoint.teacher_of(found) if checkpoint.TEACHER in found.about else None
        if epochs is not None:
            config = _extended(config, epochs, reanneal)
            if epochs != found.config.optim.epochs and teacher is None:
                _note_schedule(found.config, config)
        _log.info("continuing %s (%s)", path, _position(found))
        return fit(config, Start(found=found, teacher=teacher), watch or Watch())


def _extended(config: TrainConfig, epochs: int, reanneal: bool) -> TrainConfig:
    horizon = None if reanneal else config.kld.kld_anneal_epochs or config.optim.epochs
    return config.with_options(
        {"epochs": epochs, "kld_anneal_epochs": None if horizon == epochs else horizon}
    )


def _note_schedule(old: TrainConfig, new: TrainConfig) -> None:
    """Log what another number of epochs makes of the KLD weight's schedule."""
    before = old.kld.kld_anneal_epochs or old.optim.epochs
    epochs, horizon = new.optim.epochs, new.kld.kld_anneal_epochs or new.optim.epochs
    if horizon != before:
        told = (
            f"is stretched to {horizon} epochs" if horizon > before else f"takes {horizon} epochs"
        )
    else:
        told = f"keeps its shape of {horizon} epochs"
        if epochs > horizon:
            told += " and then holds its final weight"
        elif epochs < horizon:
            told += f", which the run leaves after {epochs}"
    _log.info("the KLD weight's schedule %s", told)


def _check_continues(found: Checkpoint, config: TrainConfig, teacher: Checkpoint | None) -> None:
    differing = checkpoint.differences(found.config, config)
    if set(differing) == {"epochs"}:
        old, new = differing["epochs"]
        raise EarTeachError(
            f"{found.path}: is a run of {old} epochs, not {new}; continue it with "
            f"`earteach resume {found.path} --epochs {new}` or start anew with --fresh"
        )
    if differing:
        listed = checkpoint.listed(differing)
        raise EarTeachError(
            f"{found.path}: is a run with other options ({listed}); continue it as it was with "
            f"`earteach resume {found.path}`, or start anew with --fresh, which moves it aside"
        )
    taught = found.about.get(checkpoint.TEACHER)
    if teacher is None and taught:
        raise EarTeachError(
            f"{found.path}: is a student's run; continue it with `earteach resume {found.path}`, or "
            "start anew with --fresh"
        )
    if teacher and (not taught or taught["sha256"] != checkpoint.file_hash(teacher.path)):
        of = f"of another teacher, {taught['path']}" if taught else "without a teacher"
        raise EarTeachError(
            f"{found.path}: is a run {of}; continue it with `earteach resume {found.path}`, or start "
            "anew with --fresh, which moves it aside"
        )
    _check_unfinished(found, config.optim.epochs)


def _check_unfinished(found: Checkpoint, epochs: int) -> None:
    stopped_early = found.about["stopped_by"] == "early_stopping"
    done = found.epochs_completed
    if (stopped_early and epochs <= found.config.optim.epochs) or done >= epochs:
        how = "stopped early" if stopped_early else "finished"
        raise EarTeachError(
            f"{found.path}: this run {how} after {done} epochs; train it longer with `earteach "
            f"resume {found.path} --epochs {max(2 * done, epochs + 1)}`, or start anew with "
            "--fresh, which moves it aside"
        )


def _position(found: Checkpoint) -> str:
    return f"epoch {found.epochs_completed + 1}, step {found.global_step}"
