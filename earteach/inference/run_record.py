"""The epochs of a run: their metrics, and TensorBoard's pictures of the fixed validation ears."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earteach.checkpoint import Checkpoint
from earteach.errors import EarTeachError
from earteach.metrics.diagnostics import recorded_history
from earteach.run_files import METRICS_FILE, RUN_NAME, VALIDATION_EARS
from earteach.run_identity import log_dir, logged_losses, read_records


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, from 0, with TensorBoard's names of metrics; `step` is None if unknown."""

    epoch: int
    step: int | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """A run's epochs in order; `missing` is why they come from the checkpoint alone, or None."""

    folder: Path
    epochs: tuple[EpochMetrics, ...]
    missing: str | None


def read_record(trained: Checkpoint) -> RunRecord:
    """The epochs in the log of the checkpoint's run.

    If that is gone or holds another run, only the losses that the checkpoint stores.
    """
    folder = log_dir(trained) / RUN_NAME
    if not folder.is_dir():
        folder = trained.config.run.log_dir / RUN_NAME
    try:
        records = read_records(folder)
        if not (folder / METRICS_FILE).exists():
            raise EarTeachError(f"{folder / METRICS_FILE}: is missing")
        # A relative path may lead to another run.
        loss, last = trained.about["metrics"].get("val/loss"), trained.epochs_completed - 1
        if loss is not None and logged_losses(records).get(last) != loss:
            raise EarTeachError(f"{folder}: holds another run")
        epochs = _read_epochs(records)
    except EarTeachError as error:
        return RunRecord(folder, _stored_epochs(trained), str(error))
    return RunRecord(folder, epochs, None)


def _read_epochs(records: list[dict[str, Any]]) -> tuple[EpochMetrics, ...]:
    epochs = []
    for record in records:
        with suppress(ValueError, KeyError, TypeError):  # altered by hand
            metrics = {**record["metrics"], "lr": record["learning_rate"]}
            values = {str(name): float(value) for name, value in metrics.items()}
            epochs.append(EpochMetrics(record["epoch"], int(record["step"]), values))
    return tuple(epochs)


def _stored_epochs(trained: Checkpoint) -> tuple[EpochMetrics, ...]:
    names = {
        "train/recon_loss": "train_recon",
        "train/clean_recon_loss": "clean_recon",
        "val/recon_loss": "val_recon",
        "val/loss": "val_loss",
        "lr": "learning_rate",
    }
    return tuple(
        EpochMetrics(number, None, {name: getattr(epoch, field) for name, field in names.items()})
        for number, epoch in enumerate(recorded_history(trained.state))
    )


def read_validation_ears(record: RunRecord) -> list[tuple[EpochMetrics, bytes]]:
    """A PNG of the fixed validation ears for each epoch for which TensorBoard has one.

    Raises `EarTeachError` if there are none.
    """
    if record.missing is not None:
        raise EarTeachError(record.missing)
    # It takes half a second to import, which a page without an animation need not wait for.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(record.folder), size_guidance={"images": 0})
    events.Reload()
    if VALIDATION_EARS not in events.Tags()["images"]:
        raise EarTeachError(f"{record.folder}: TensorBoard's files there hold no {VALIDATION_EARS}")
    sheets = {event.step: event.encoded_image_string for event in events.Images(VALIDATION_EARS)}
    return [(epoch, sheets[epoch.step]) for epoch in record.epochs if epoch.step in sheets]
