"""Tells a checkpoint that does not fit from a fault in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from earteach.errors import EarTeachError


class ResumeCallback(Callback):
    """`done` once Lightning has put back the state of training and begins; then it calls `begins`.

    A run that had stopped early has its whole patience again.
    """

    def __init__(self, begins: Callable[[], None]) -> None:
        self.done = False
        self._begins = begins

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.done = True
        stopping = trainer.early_stopping_callback
        if stopping is not None and stopping.wait_count >= stopping.patience:
            stopping.wait_count = 0
        self._begins()


def incompatible_state_error(path: Path) -> EarTeachError:
    """What is said where that state is missing, or another network's."""
    return EarTeachError(
        f"{path}: its state of training cannot be put back; the file was altered: take another "
        f"checkpoint, or begin a new run from its weights with `earteach train --init-from {path}`"
    )
