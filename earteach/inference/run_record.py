"""The epochs of a run: their metrics, and TensorBoard's pictures of the fixed validation ears."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earteach.checkpoint import Checkpoint
from earteach.errors import EarTeachError
from earteach.run_files import METRICS_FILE, RUN_NAME, VALIDATION_EARS
from earteach.run_identity import log_dir, logged_losses, read_records


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, from 0, with TensorBoard's names of metrics."""

    epoch: int
    step: int
    metrics: dict[str, float]


def read_record(trained: Checkpoint) -> tuple[tuple[EpochMetrics, ...], str | None]:
    """The epochs in the log of the checkpoint's run, in order; none, and why, if that is gone."""
    folder = _folder(trained)
    try:
        records = read_records(folder)
        if not (folder / METRICS_FILE).exists():
            raise EarTeachError(f"{folder / METRICS_FILE}: is missing")
        # A relative path may lead to another run.
        loss, last = trained.about["metrics"].get("val/loss"), trained.epochs_completed - 1
        if loss is not None and logged_losses(records).get(last) != loss:
            raise EarTeachError(f"{folder}: holds another run")
    except EarTeachError as error:
        return (), str(error)
    epochs = []
    for record in records:
        with suppress(ValueError, KeyError, TypeError):  # altered by hand
            metrics = {**record["metrics"], "lr": record["learning_rate"]}
            values = {str(name): float(value) for name, value in metrics.items()}
            epochs.append(EpochMetrics(record["epoch"], int(record["step"]), values))
    return tuple(epochs), None


def _folder(trained: Checkpoint) -> Path:
    folder = log_dir(trained) / RUN_NAME
    return folder if folder.is_dir() else trained.config.run.log_dir / RUN_NAME


def read_validation_ears(
    trained: Checkpoint, epochs: Sequence[EpochMetrics]
) -> list[tuple[EpochMetrics, bytes]]:
    """A PNG of the fixed validation ears for each of the epochs for which TensorBoard has one.

    Raises `EarTeachError` if there are none.
    """
    # It takes half a second to import, which a page without an animation need not wait for.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = _folder(trained)
    events: Any = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    if VALIDATION_EARS not in events.Tags()["images"]:
        raise EarTeachError(f"{folder}: TensorBoard's files there hold no {VALIDATION_EARS}")
    sheets = {event.step: event.encoded_image_string for event in events.Images(VALIDATION_EARS)}
    return [(epoch, sheets[epoch.step]) for epoch in epochs if epoch.step in sheets]
