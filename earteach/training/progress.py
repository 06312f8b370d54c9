"""A run's progress: an estimate of its duration after the first steps, then where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from earteach.config import TrainConfig
from earteach.training.lightning_module import EarVAELightning

ESTIMATE_STEP = 20
_WARM_UP = 2  # steps
_INTERVAL = 0.5  # seconds
# Of a training image: validation encodes once and decodes twice, without gradients.
VALIDATION_COST = 0.5
Phase = Literal["training", "validation"]


@dataclass(frozen=True)
class Progress:
    """Where a run is; epochs count from 0, `step` from 1 within the phase.

    `loss` is the epoch's mean so far on this device; `seconds_left` is until the end of the run.
    """

    epoch: int
    epochs: int
    phase: Phase
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TimeEstimate:
    """How long the remaining `epochs` will take, measured over the first `steps`."""

    steps: int
    images_per_second: float
    epochs: int
    seconds: float


class ProgressCallback(Callback):
    """Reports the estimate once and the progress twice a second.

    Reading the loss waits for the device, so it is read only for a report.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: tuple[int, int],
        *,
        on_estimate: Callable[[TimeEstimate], None] | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """`images` are the numbers of training and validation images."""
        self._config = config
        self._work_per_epoch = images[0] + VALIDATION_COST * images[1]
        self._on_estimate, self._on_progress = on_estimate, on_progress
        self._started = self._last_report = time.monotonic()
        self._steps = self._first_epoch = 0  # of this process
        # Work is counted in training images: since `_started`, and in this epoch.
        self._work = self._epoch_work = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            self._on_estimate = self._on_progress = None
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch
        # Lightning does not start the epoch of a run that is resumed inside it.
        steps = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        self._epoch_work = float(steps * self._config.optim.batch_size * trainer.world_size)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch_work = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        self._add(len(batch["index"]) * trainer.world_size)
        if self._steps == _WARM_UP:
            pl_module.running_loss()  # waits until the device has finished these steps
            self._started, self._work = time.monotonic(), 0.0
        in_first_epoch = trainer.current_epoch == self._first_epoch
        if self._on_estimate is not None and self._steps == ESTIMATE_STEP and in_first_epoch:
            pl_module.running_loss()
            rate, seconds = self._speed(trainer)
            epochs = self._config.optim.epochs - trainer.current_epoch
            self._on_estimate(TimeEstimate(self._steps, rate, epochs, seconds))
        self._report(trainer, pl_module, "training", batch_idx + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        self._add(VALIDATION_COST * len(batch["index"]) * trainer.world_size)
        self._report(trainer, pl_module, "validation", batch_idx + 1, sum(trainer.num_val_batches))

    def _add(self, work: float) -> None:
        self._work += work
        self._epoch_work += work

    def _speed(self, trainer: pl.Trainer) -> tuple[float, float]:
        """Images a second, and the seconds until the end of the run."""
        rate = self._work / max(time.monotonic() - self._started, 1e-9)
        epochs = self._config.optim.epochs - trainer.current_epoch
        return rate, max(0.0, self._work_per_epoch * epochs - self._epoch_work) / max(rate, 1e-9)

    def _report(
        self, trainer: pl.Trainer, module: EarVAELightning, phase: Phase, step: int, steps: float
    ) -> None:
        now, epoch, epochs = time.monotonic(), trainer.current_epoch, self._config.optim.epochs
        if self._on_progress is not None and now - self._last_report >= _INTERVAL:
            self._last_report = now
            loss, speed = module.running_loss(), self._speed(trainer)
            self._on_progress(Progress(epoch, epochs, phase, step, int(steps), loss, *speed))
