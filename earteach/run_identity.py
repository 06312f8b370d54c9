"""Whose log and whose folder it is: no run writes over another one.

Two files are of one run if the validation losses agree in each epoch that both hold. A log belongs to
the folder of checkpoints that its last record names, relative to the log, so that both may move
together. If that folder holds no run any more, the log belongs to a run that has its losses and has
come as far.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import RunConfig
from earteach.errors import EarTeachError
from earteach.metrics.diagnostics import recorded_history
from earteach.run_files import LAST, METRICS_FILE, RUN_NAME

CHECKPOINTS = "checkpoints"  # in a record: what `relative_folder` returns
_ANOTHER = "another run"


def relative_folder(run: RunConfig) -> str:
    """The folder of checkpoints as seen from the log."""
    return os.path.relpath(run.checkpoint_dir, run.log_dir / RUN_NAME)


def read_records(log: Path) -> list[dict[str, Any]]:
    """The records of epochs in a log, without the half line that a killed run may leave."""
    path = log / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise EarTeachError(f"{path}: cannot be read: {error.strerror}") from error
    records = []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            checked = {"epoch": int(record["epoch"]), "metrics": dict(record["metrics"])}
            records.append(record | checked)
    return records


def logged_losses(records: list[dict[str, Any]]) -> dict[int, float | None]:
    """The validation loss of each epoch in a log."""
    return {record["epoch"]: record["metrics"].get("val/loss") for record in records}


def stored_losses(run: Checkpoint) -> dict[int, float]:
    """The validation losses by epoch that a checkpoint stores: of a student only the last."""
    stored = {number: epoch.val_loss for number, epoch in enumerate(recorded_history(run.state))}
    if "val/loss" in run.about["metrics"]:
        stored[run.epochs_completed - 1] = run.about["metrics"]["val/loss"]
    return stored


def _agree(one: Mapping[int, float | None], other: Mapping[int, float | None]) -> bool:
    return all(one[epoch] == other[epoch] for epoch in one.keys() & other.keys())


def log_dir(run: Checkpoint) -> Path:
    """The folder of the run's log, which may have moved together with the checkpoints.

    It lies to them as it did when they were written, or else where the configuration says. A
    checkpoint from elsewhere may name any folder: one that does not hold the run's log is used only if
    it is beside the checkpoints.
    """
    named, here = run.config.run, run.path.parent
    beside = here.parent / "logs"
    moved = beside
    if named.log_dir.is_absolute() == named.checkpoint_dir.is_absolute():
        moved = Path(os.path.normpath(here / os.path.relpath(named.log_dir, named.checkpoint_dir)))
    for folder in (moved, named.log_dir):
        log = folder / RUN_NAME
        if log.is_dir() and _other_run(log, here, run) is None:
            return folder
    return moved if moved.absolute().is_relative_to(here.parent.absolute()) else beside


def check_log(log: Path, folder: Path, run: Checkpoint | None, *, fresh: bool) -> None:
    """Raise `EarTeachError` if the log is not that of `run`, or of a new one, in the folder.

    `fresh` moves a log aside, so that it may be of a run that is gone.
    """
    other = _other_run(log, folder, run)
    if other is None or (fresh and other == _ANOTHER):
        return
    aside = ", or add --fresh to move it aside" if other == _ANOTHER and run is None else ""
    raise EarTeachError(f"{log}: holds the log of {other}; choose another --log-dir{aside}")


def _other_run(log: Path, folder: Path, run: Checkpoint | None) -> str | None:
    """The run whose log it is, in words, or None if `run`, or a new one, may write to it.

    A run may have been killed between the record of an epoch and its checkpoint.
    """
    if not (records := read_records(log)):
        return None
    # An old log does not name its folder.
    name = records[-1].get(CHECKPOINTS) or (relative_folder(run.config.run) if run else None)
    owner = Path(os.path.normpath(log / str(name))) if name else None
    is_own = owner is not None and owner.resolve() == folder.resolve()
    if owner is not None and not is_own and (owner / LAST).exists():
        return f"the run in {owner}"
    logged = logged_losses(records)
    if run is None:
        return None if is_own and max(logged) == 0 else _ANOTHER
    as_far = is_own or max(logged) <= run.epochs_completed
    return None if as_far and _agree(logged, stored_losses(run)) else _ANOTHER


def check_folder(folder: Path, run: Checkpoint | None) -> None:
    """Raise `EarTeachError` if the folder holds checkpoints of another run than `run`, or a new one."""
    own = {Path(entry["path"]).name for entry in run.about["best"].values()} if run else set()
    for path in (*folder.glob(LAST), *sorted(folder.glob("best-*.ckpt"))):
        if path.name in own:
            continue
        if run is None:
            raise EarTeachError(
                f"{path}: belongs to another run; add --fresh to move it aside, or choose another folder"
            )
        if not path.samefile(run.path) and not _is_same_run(path, run):
            raise EarTeachError(
                f"{path}: belongs to another run than {run.path}; copy that to a folder of its own and "
                "resume it there"
            )


def _is_same_run(path: Path, run: Checkpoint) -> bool:
    try:
        other = checkpoint.read(path)
    except EarTeachError as error:
        raise EarTeachError(
            f"{path}: is in the way of {run.path} and cannot be read; move it to another folder"
        ) from error
    differing = checkpoint.differences(other.config, run.config).keys()
    same_options = other.task == run.task and differing <= {"epochs", "kld_anneal_epochs"}
    return same_options and _agree(stored_losses(other), stored_losses(run))
