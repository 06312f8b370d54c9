"""What a run has left of its epochs: their metrics, and the fixed validation ears in each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earteach.checkpoint import Checkpoint
from earteach.errors import EarTeachError
from earteach.inference.health import history
from earteach.run_files import METRICS_FILE, RUN_NAME, VALIDATION_EARS


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, from 0, under the names that TensorBoard shows; `step` is None where not known."""

    epoch: int
    step: int | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """The epochs in their order; `missing` says why they are from the checkpoint alone, or is None."""

    folder: Path
    epochs: tuple[EpochMetrics, ...]
    missing: str | None


def read_record(found: Checkpoint) -> RunRecord:
    """The epochs in the log folder that the checkpoint names.

    Where it is gone, or holds another run, the losses that the checkpoint itself keeps.
    """
    folder = found.config.run.log_dir / RUN_NAME
    try:
        epochs = _read_lines(folder / METRICS_FILE)
        _check_same_run(folder, epochs, found)
    except EarTeachError as error:
        return RunRecord(folder, _kept_in(found), str(error))
    return RunRecord(folder, epochs, None)


def _read_lines(path: Path) -> tuple[EpochMetrics, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise EarTeachError(f"{path}: is gone") from error
    except (OSError, ValueError) as error:
        raise EarTeachError(f"{path}: cannot be read: {error}") from error
    return tuple(_epochs(lines))


def _epochs(lines: list[str]) -> Iterator[EpochMetrics]:
    for line in lines:
        try:
            entry = json.loads(line)
            metrics = {**entry["metrics"], "lr": entry["learning_rate"]}
            values = {str(name): float(value) for name, value in metrics.items()}
            yield EpochMetrics(int(entry["epoch"]), int(entry["step"]), values)
        except (ValueError, KeyError, TypeError):  # cut short by a kill
            continue


def _check_same_run(folder: Path, epochs: tuple[EpochMetrics, ...], found: Checkpoint) -> None:
    """The folder's name may be relative, and from another place it is another run's."""
    measured = found.about.get("metrics") or {}
    last = {entry.epoch: entry for entry in epochs}.get(found.epochs_completed - 1)
    if measured and (last is None or last.metrics.get("val/loss") != measured.get("val/loss")):
        raise EarTeachError(f"{folder}: holds another run")


def _kept_in(found: Checkpoint) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(
            place,
            None,
            {
                "train/recon_loss": epoch.train_recon,
                "train/clean_recon_loss": epoch.clean_recon,
                "val/recon_loss": epoch.val_recon,
                "val/loss": epoch.val_loss,
                "lr": epoch.learning_rate,
            },
        )
        for place, epoch in enumerate(history(found.state))
    )


def read_ears(record: RunRecord) -> list[tuple[EpochMetrics, bytes]]:
    """A PNG of the fixed validation ears for each epoch of which TensorBoard has one.

    Raises `EarTeachError` where there is none.
    """
    if record.missing is not None:
        raise EarTeachError(record.missing)
    # Half a second, which a page without an animation need not wait for.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(record.folder), size_guidance={"images": 0})
    events.Reload()
    if VALIDATION_EARS not in events.Tags()["images"]:
        raise EarTeachError(f"{record.folder}: TensorBoard's files there hold no {VALIDATION_EARS}")
    sheets = {event.step: event.encoded_image_string for event in events.Images(VALIDATION_EARS)}
    return [(epoch, sheets[epoch.step]) for epoch in record.epochs if epoch.step in sheets]
