"""Stops a run whose loss is no longer finite."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from earteach.data.loaders import Sample
from earteach.errors import EarTeachError
from earteach.training.lightning_module import EarVAELightning

_MAX_LISTED = 16


class FiniteLoss(Callback):
    """Raises `EarTeachError` after a step whose loss is NaN or infinite.

    On a GPU it checks one step later, to avoid waiting for the device, and before each checkpoint.
    """

    def __init__(self) -> None:
        self._pending: tuple[torch.Tensor, Sample, int] | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        loss = outputs["loss"].detach()
        previous, self._pending = self._pending, (loss, batch, trainer.global_step)
        if loss.device.type == "cpu":
            previous = self._pending
        if previous is not None:
            _check(trainer, pl_module, *previous)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._pending is not None:
            _check(trainer, pl_module, *self._pending)


def _check(
    trainer: pl.Trainer, module: pl.LightningModule, loss: torch.Tensor, batch: Sample, step: int
) -> None:
    if torch.isfinite(loss):
        return
    assert isinstance(module, EarVAELightning)
    assert isinstance(batch["index"], torch.Tensor)
    indices = batch["index"].tolist()
    listed = ", ".join(map(str, indices[:_MAX_LISTED])) + ", …" * (len(indices) > _MAX_LISTED)
    optim, precision = module.config.optim, module.config.hardware.precision
    advice = "look at these images with `earteach inspect-data`, or try a smaller --learning-rate"
    if precision == "16":
        advice = "try --precision bf16 or 32"
    elif optim.peak_learning_rate > 10 * optim.default_learning_rate:
        advice = f"try --learning-rate {optim.peak_learning_rate / 10:g}"
    raise EarTeachError(
        f"the loss is {float(loss)} in epoch {trainer.current_epoch + 1}, step {step} (images "
        f"{listed}); the last checkpoint is kept: {advice}"
    )
