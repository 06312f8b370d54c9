"""How fast a run goes: a forecast after its first steps, and where it stands while it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from earteach.config import TrainConfig
from earteach.training.checkpoint_callback import is_dry
from earteach.training.lightning_module import EarVAELightning

FORECAST_STEP = 20
_WARM_UP = 2
_TICK = 0.5
LONG = 12 * 3600.0
# Validation encodes once and decodes twice; a training step goes forward and back again.
VALIDATION_SHARE = 0.5
_SMALLER = ((256, 32), (128, 64), (128, 32), (64, 64), (64, 32))


@dataclass(frozen=True)
class Progress:
    """Where a run is. Epochs count from 0; `step` is one of the `steps` of this phase.

    `loss` is the mean of the epoch's training so far, on this device; `ssim` and `psnr` are of the
    last validation. `seconds_left` is until the end of the run.
    """

    epoch: int
    epochs: int
    phase: Literal["training", "validation"]
    step: int
    steps: int
    loss: float
    ssim: float | None
    psnr: float | None
    learning_rate: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Smaller:
    """Smaller options that would end in time, by their flags' names; `seconds` for the whole run."""

    options: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What the first `steps` say of the `epochs` that are left; `smaller` where they take too long."""

    steps: int
    images_per_second: float
    epochs: int
    seconds: float
    smaller: Smaller | None


class Tempo:
    """Work done over time. One piece of work is a training image."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        self._began = self._clock()
        self._work = 0.0

    def add(self, work: float) -> None:
        self._work += work

    def rate(self) -> float:
        """Pieces of work a second, 0 before there is any."""
        return self._work / max(self._clock() - self._began, 1e-9)


class Pace(Callback):
    """Tells a run's forecast once and its progress twice a second; between, a step only counts.

    Reading the loss waits for the device, so it is read where it is told and nowhere else.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: tuple[int, int],
        *,
        on_forecast: Callable[[Forecast], None] | None,
        on_progress: Callable[[Progress], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`images` are the training and the validation images of an epoch."""
        self._config = config
        self._train_images, val_images = images
        self._epoch_work = self._train_images + VALIDATION_SHARE * val_images
        self._on_forecast, self._on_progress = on_forecast, on_progress
        self._clock = clock
        self._run, self._epoch = Tempo(clock), Tempo(clock)
        self._steps = 0  # of this process
        self._first_epoch = 0  # of this process
        self._told = clock()
        self._done = 0.0  # work of this epoch
        self._speed = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_epoch = trainer.current_epoch
        # A run resumed inside an epoch is not told that the epoch starts.
        self._epoch.restart()
        taken = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        self._done = float(taken * self._config.optim.batch_size * trainer.world_size)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch.restart()
        self._done = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *at: int
    ) -> None:
        assert isinstance(pl_module, EarVAELightning)
        images = len(batch["index"]) * trainer.world_size
        self._steps += 1
        self._add(images)
        self._epoch.add(images)
        if self._steps == _WARM_UP:
            pl_module.running_loss()  # the device has done these steps
            self._run.restart()
        if self._steps == FORECAST_STEP and trainer.current_epoch == self._first_epoch:
            self._forecast(trainer, pl_module)
        self._tell(trainer, pl_module, "training", at[0] + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *at: int
    ) -> None:
        assert isinstance(pl_module, EarVAELightning)
        self._add(VALIDATION_SHARE * len(batch["index"]) * trainer.world_size)
        self._tell(trainer, pl_module, "validation", at[0] + 1, sum(trainer.num_val_batches))

    def _add(self, work: float) -> None:
        self._run.add(work)
        self._done += work

    def _seconds_left(self, trainer: pl.Trainer) -> float:
        epochs = self._config.optim.epochs - trainer.current_epoch
        return max(0.0, self._epoch_work * epochs - self._done) / max(self._run.rate(), 1e-9)

    def _forecast(self, trainer: pl.Trainer, module: EarVAELightning) -> None:
        if self._on_forecast is None or is_dry(trainer) or not trainer.is_global_zero:
            return
        module.running_loss()
        seconds = self._seconds_left(trainer)
        epochs = self._config.optim.epochs - trainer.current_epoch
        on_cpu, anew = module.device.type == "cpu", trainer.current_epoch == 0
        self._on_forecast(
            Forecast(
                steps=FORECAST_STEP,
                images_per_second=self._run.rate(),
                epochs=epochs,
                seconds=seconds,
                smaller=smaller(self._config, seconds) if on_cpu and anew else None,
            )
        )

    def _tell(
        self,
        trainer: pl.Trainer,
        module: EarVAELightning,
        phase: Literal["training", "validation"],
        step: int,
        steps: float,
    ) -> None:
        now = self._clock()
        if self._on_progress is None or not trainer.is_global_zero or now - self._told < _TICK:
            return
        self._told = now
        if phase == "training":
            self._speed = self._epoch.rate()
        measured = trainer.callback_metrics
        ssim, psnr = (measured.get(name) for name in ("val/ssim", "val/psnr"))
        self._on_progress(
            Progress(
                epoch=trainer.current_epoch,
                epochs=self._config.optim.epochs,
                phase=phase,
                step=step,
                steps=int(steps),
                loss=module.running_loss(),
                ssim=None if ssim is None else float(ssim),
                psnr=None if psnr is None else float(psnr),
                learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
                images_per_second=self._speed,
                seconds_left=self._seconds_left(trainer),
            )
        )


def smaller(config: TrainConfig, seconds: float) -> Smaller | None:
    """The largest smaller network that would train as many epochs in 12 hours.

    None where this one does, and for a small encoder, whose size is its teacher's. Where none does,
    the smallest, with the epochs that fit.
    """
    if seconds <= LONG or config.model.encoder != "attention":
        return None
    model, epochs = config.model, config.optim.epochs
    options: dict[str, int] = {}
    needed, whole = seconds, _cost(model.image_size, model.base_channels)
    for size, base in _SMALLER:
        if size <= model.image_size and base <= model.base_channels:
            options = {"image_size": size, "base_channels": base}
            needed = seconds * (_cost(size, base) / whole)
            if needed <= LONG:
                break
    changed = {name: value for name, value in options.items() if value != getattr(model, name)}
    if needed <= LONG:
        return Smaller(changed, needed)
    fitting = int(epochs * LONG / needed)
    return Smaller({**changed, "epochs": fitting}, needed * fitting / epochs) if fitting else None


def _cost(image_size: int, base_channels: int) -> float:
    """A step's time on a CPU, in units of its own.

    Measured: half the channels halve it (1.9 to 2.2), half the side makes it 2.5 to 3.6 times shorter.
    Multiply-adds, four times fewer for either, would promise too much.
    """
    return base_channels * float(image_size) ** 1.7
