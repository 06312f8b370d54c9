"""When checkpoints are written: last.ckpt after every epoch, the two best, and on interruption."""

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
    """Lightning's checkpoint files, written so that a crash leaves the previous one whole."""

    def save_checkpoint(
        self, checkpoint_state: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        checkpoint.write(checkpoint_state, Path(path))


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` and the best checkpoints by validation loss and by SSIM.

    Lightning's ModelCheckpoint writes `last.ckpt` only when it writes something else, and gives a
    best file another name when a resumed run comes to the same epoch again.

    At an epoch's end the new best files are written first, then `last.ckpt`, which names them, and
    only then the old best files are removed: killed at any moment, the folder stays consistent. They
    are written once and linked, as they are all the same.
    """

    def __init__(
        self,
        folder: Path,
        data: dict[str, Any],
        stop: StopRequest,
        every_n_steps: int | None,
        origin: dict[str, Any],
    ) -> None:
        """`origin` is what each checkpoint keeps of where the run comes from."""
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
            _place_before_validation(checkpoint_state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation follows, where a request to stop is answered
        if self._is_due(trainer):
            self._save_last(trainer)
        self._answer_stop_request(trainer)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._answer_in_validation(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        # After the last batch it is better to end the epoch.
        if not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._answer_in_validation(trainer)

    def _answer_in_validation(self, trainer: pl.Trainer) -> None:
        # Several devices must agree to stop, and one may have a batch more than another: they are
        # asked when the epoch ends.
        if trainer.world_size == 1:
            self._answer_stop_request(trainer)

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
        self._answer_stop_request(trainer, saved=True)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        every = self._every_n_steps
        return every is not None and trainer.global_step % every == 0

    def _answer_stop_request(self, trainer: pl.Trainer, saved: bool = False) -> None:
        asked = self._stop.signal is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked or self._finished:
            return
        if not saved:
            self._save_last(trainer)
        raise TrainingInterrupted

    def _new_bests(self, trainer: pl.Trainer) -> list[Path]:
        """Take note of the scores that this epoch improved, and give the files to be written."""
        epoch = trainer.current_epoch
        values = {"loss": _metric(trainer, "val/loss"), "ssim": _metric(trainer, "val/ssim")}
        names = {
            "loss": checkpoint.best_loss_name(epoch, values["loss"]),
            "ssim": checkpoint.best_ssim_name(epoch, values["ssim"]),
        }
        improved = [name for name in values if self._improves(name, values[name])]
        for name in improved:
            path = self._folder / names[name]
            self.best[name] = {"path": str(path), "value": values[name], "epoch": epoch}
        return [self._folder / names[name] for name in improved]

    def _improves(self, name: str, value: float) -> bool:
        if name not in self.best:
            return True
        former = self.best[name]["value"]
        return bool(value < former if name == "loss" else value > former)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if not is_dry(trainer):
            trainer.save_checkpoint(self._folder / checkpoint.LAST)

    def _remove_superseded(self) -> None:
        kept = {Path(entry["path"]).name for entry in self.best.values()}
        superseded = [p for p in self._folder.glob("best-*.ckpt") if p.name not in kept]
        # What a killed process had not put in place.
        left_over = self._folder.glob(f".*.ckpt.*{PARTIAL}")
        for path in (*superseded, *left_over):
            path.unlink(missing_ok=True)


def epochs_processed(trainer: pl.Trainer) -> int:
    """Epochs trained and validated; inside an epoch's end hooks that epoch counts already."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def is_dry(trainer: pl.Trainer) -> bool:
    """Whether this is a `--fast-dev-run`, which writes nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def _metric(trainer: pl.Trainer, name: str) -> float:
    return float(trainer.callback_metrics[name])


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """What the last validation came to."""
    return {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }


def _place_before_validation(checkpoint_state: dict[str, Any]) -> None:
    """Make Lightning's counters say that validation has yet to begin.

    Its metrics are not kept half-way, so a run that was stopped in validation starts it anew.
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
