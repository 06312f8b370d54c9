"""The first moment of a resumed run: its state is restored and training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from earteach.errors import EarTeachError


class ResumeCallback(Callback):
    """Sets `done` and calls `begins` once Lightning has restored the checkpoint's state.

    An error before that means that the checkpoint does not fit. A run that had stopped early gets
    its full patience again.
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
    """The error for a checkpoint whose state is missing or of another network."""
    return EarTeachError(
        f"{path}: its training state cannot be restored; the file was altered: use another "
        f"checkpoint, or start a new run from its weights with `earteach train --init-from {path}`"
    )
