"""Writes checkpoints: last.ckpt after every epoch and on interruption, and the two best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.files.atomic_write import PARTIAL
from earteach.training.interruption import StopRequest, TrainingInterrupted
from earteach.training.lightning_module import EarVAELightning

Best = dict[str, dict[str, Any]]  # "loss" and "ssim" → {"path", "value", "epoch"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints so that a crash leaves the previous one intact."""

    def save_checkpoint(
        self, checkpoint_state: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        checkpoint.write(checkpoint_state, Path(path))


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` and the best checkpoints by validation loss and by SSIM.

    Lightning's ModelCheckpoint writes `last.ckpt` only together with another file, and renames a best
    file when a resumed run repeats its epoch.

    At the end of an epoch it writes the new best files, then `last.ckpt`, which names them, and only
    then removes the old best files: whenever the process is killed, the folder stays consistent. The
    new files are equal, so they are one file with several hard links.
    """

    def __init__(
        self,
        folder: Path,
        data: dict[str, Any],
        stop: StopRequest,
        every_n_steps: int | None,
        origin: dict[str, Any],
    ) -> None:
        """`origin` goes into every checkpoint: where the run comes from."""
        self._folder = folder
        self._data = data
        self._stop = stop
        self._every_n_steps = every_n_steps
        self._origin = origin
        self.best: Best = {}
        self._finished: str | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": {name: dict(entry) for name, entry in self.best.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = {name: dict(entry) for name, entry in state_dict["best"].items()}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint_state: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, EarVAELightning)
        validating = trainer.validating
        checkpoint_state[checkpoint.KEY] = checkpoint.about(
            pl_module.config,
            self._data,
            **self._origin,
            epochs_completed=epochs_processed(trainer),
            stopped_by=self._finished,
            metrics={} if validating else measured(trainer),
            best=self.state_dict()["best"],
        )
        if validating:
            _rewind_validation(checkpoint_state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation follows and checks for a stop request
        if self._every_n_steps and trainer.global_step % self._every_n_steps == 0:
            self._save_last(trainer)
        self._stop_if_requested(trainer)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._stop_validation_if_requested(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        # After the last batch the epoch is as good as done.
        if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._stop_validation_if_requested(trainer)

    def _stop_validation_if_requested(self, trainer: pl.Trainer) -> None:
        # Several devices must agree to stop, but may differ in their number of batches: they agree
        # at the end of the epoch.
        if trainer.world_size == 1:
            self._stop_if_requested(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_dry(trainer):
            return
        if trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            self._finished = "finished"
        elif trainer.should_stop:
            self._finished = "early_stopping"
        first, *others = [*self._new_bests(trainer), self._folder / checkpoint.LAST]
        trainer.save_checkpoint(first)
        if trainer.is_global_zero:
            for path in others:
                checkpoint.name_again(first, path)
            self._remove_superseded()
        self._stop_if_requested(trainer, saved=True)

    def _stop_if_requested(self, trainer: pl.Trainer, saved: bool = False) -> None:
        requested = self._stop.signal is not None
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        if not requested or self._finished:
            return
        if not saved:
            self._save_last(trainer)
        raise TrainingInterrupted

    def _new_bests(self, trainer: pl.Trainer) -> list[Path]:
        """Update `best` with this epoch's scores; the paths to write where they improve."""
        epoch, metrics = trainer.current_epoch, measured(trainer)
        loss, ssim = metrics["val/loss"], metrics["val/ssim"]
        paths = []
        if "loss" not in self.best or loss < self.best["loss"]["value"]:
            paths.append(self._folder / checkpoint.best_loss_name(epoch, loss))
            self.best["loss"] = {"path": str(paths[-1]), "value": loss, "epoch": epoch}
        if "ssim" not in self.best or ssim > self.best["ssim"]["value"]:
            paths.append(self._folder / checkpoint.best_ssim_name(epoch, ssim))
            self.best["ssim"] = {"path": str(paths[-1]), "value": ssim, "epoch": epoch}
        return paths

    def _save_last(self, trainer: pl.Trainer) -> None:
        if not is_dry(trainer):
            trainer.save_checkpoint(self._folder / checkpoint.LAST)

    def _remove_superseded(self) -> None:
        current = {Path(entry["path"]).name for entry in self.best.values()}
        superseded = [p for p in self._folder.glob("best-*.ckpt") if p.name not in current]
        partial = self._folder.glob(f".*.ckpt.*{PARTIAL}")  # left by a killed process
        for path in (*superseded, *partial):
            path.unlink(missing_ok=True)


def epochs_processed(trainer: pl.Trainer) -> int:
    """Epochs trained and validated; in its end hooks an epoch counts already."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def is_dry(trainer: pl.Trainer) -> bool:
    """Whether this is a `--fast-dev-run`, which writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """The metrics of the last validation."""
    return {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }


def _rewind_validation(checkpoint_state: dict[str, Any]) -> None:
    """Set Lightning's counters to before validation, so that a resumed run repeats it.

    Metrics of half a validation are not kept.
    """
    progress = checkpoint_state["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    for counters in (progress["total"], progress["current"]):
        counters.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False


def check_writable(folder: Path) -> None:
    """Raise `EarTeachError` where no checkpoint can be written to `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".earteach-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EarTeachError(
            f"{folder}: cannot be written: {error.strerror}; choose another folder for checkpoints"
        ) from error
