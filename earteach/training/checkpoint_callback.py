"""Writes checkpoints, last.ckpt and the two best, and continues a run from one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from earteach import checkpoint
from earteach.errors import EarTeachError
from earteach.files.atomic_write import PARTIAL
from earteach.run_files import LAST, MIXTURE, SECOND_DECODER, SHARPENING
from earteach.training.interruption import StopRequest, TrainingInterrupted
from earteach.training.lightning_module import EarVAELightning

_BEST_NAMES = {"loss": checkpoint.best_loss_name, "ssim": checkpoint.best_ssim_name}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints so that a crash leaves the previous one intact."""

    def save_checkpoint(
        self, checkpoint_state: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        checkpoint.write(checkpoint_state, Path(path))


@dataclass(eq=False)
class Checkpoints(Checkpoint):
    """Writes `last.ckpt` and the best checkpoints by validation loss and by SSIM.

    Lightning's ModelCheckpoint writes `last.ckpt` only together with another file, and renames a best
    file when a resumed run repeats its epoch.

    At the end of an epoch it writes the new best files, then `last.ckpt`, which names them, and only
    then removes the old best files: whenever the process is killed, the folder stays consistent. The
    new files are equal, so they are one file with several hard links.

    Once Lightning has restored the state of a resumed run, it sets `restored` and calls `on_restored`;
    an error before that means that the checkpoint does not fit.
    """

    folder: Path
    data: dict[str, Any]
    stop: StopRequest
    every_n_steps: int | None
    origin: dict[str, Any]  # where the run comes from; it goes into every checkpoint
    on_restored: Callable[[], None] | None = None
    restored: bool = False
    best: dict[str, dict[str, Any]] = field(default_factory=dict)  # "loss", "ssim" → its entry
    finished: Literal["finished", "early_stopping"] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next epoch writes new best files if those are elsewhere, as of a copied checkpoint."""
        here = {
            name: {**entry, "path": str(self.folder / Path(entry["path"]).name)}
            for name, entry in state_dict["best"].items()
        }
        self.best = {name: entry for name, entry in here.items() if Path(entry["path"]).exists()}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint_state: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, EarVAELightning)
        checkpoint_state[checkpoint.KEY] = checkpoint.about(
            pl_module.config,
            self.data,
            **self.origin,
            epochs_completed=epochs_processed(trainer),
            stopped_by=self.finished,
            metrics=measured(trainer),
            best=dict(self.best),
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.listen()
        self.restored = True
        if self.on_restored is None:
            return
        self.on_restored()
        stopping = trainer.early_stopping_callback
        if stopping is not None and stopping.wait_count >= stopping.patience:
            stopping.wait_count = 0  # a run that had stopped early gets its full patience again

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation follows, and the end of the epoch checks for a stop request
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save_last(trainer)
        self._stop_if_requested(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if is_fast_dev_run(trainer):
            self._stop_if_requested(trainer, saved=True)
            return
        if trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            self.finished = "finished"
        elif trainer.should_stop:
            self.finished = "early_stopping"
        first, *others = [*self._new_bests(trainer), self.folder / LAST]
        trainer.save_checkpoint(first)
        if trainer.is_global_zero:
            for path in others:
                checkpoint.name_again(first, path)
            self._remove_superseded()
        self._stop_if_requested(trainer, saved=True)

    def _stop_if_requested(self, trainer: pl.Trainer, saved: bool = False) -> None:
        requested = self.stop.signal is not None
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        if not requested or self.finished:
            return
        if not saved:
            self._save_last(trainer)
        raise TrainingInterrupted

    def _new_bests(self, trainer: pl.Trainer) -> list[Path]:
        """Update `best` with this epoch's scores; the paths to write where they improve."""
        epoch, metrics, paths = trainer.current_epoch, measured(trainer), []
        for name, sign in (("loss", -1), ("ssim", 1)):
            value = metrics[f"val/{name}"]
            if name not in self.best or sign * value > sign * self.best[name]["value"]:
                paths.append(self.folder / _BEST_NAMES[name](epoch, value))
                self.best[name] = {"path": str(paths[-1]), "value": value, "epoch": epoch}
        return paths

    def _save_last(self, trainer: pl.Trainer) -> None:
        if not is_fast_dev_run(trainer):
            trainer.save_checkpoint(self.folder / LAST)

    def _remove_superseded(self) -> None:
        current = {Path(entry["path"]).name for entry in self.best.values()}
        partial = self.folder.glob(f".*.ckpt.*{PARTIAL}")  # left by a killed process
        for path in (*self.folder.glob("best-*epoch=*.ckpt"), *partial):
            if path.name not in current:
                for beside in (MIXTURE, SECOND_DECODER, SHARPENING):
                    path.with_suffix(beside).unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def incompatible_state_error(path: Path) -> EarTeachError:
    """The error for a checkpoint whose state is missing or of another network."""
    return EarTeachError(
        f"{path}: its training state cannot be restored; the file was altered: use another "
        f"checkpoint, or start a new run from its weights with `earteach train --init-from {path}`"
    )


def epochs_processed(trainer: pl.Trainer) -> int:
    """Epochs trained and validated; in its end hooks an epoch counts already."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Whether this is a `--fast-dev-run`, which writes nothing."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """The metrics of the last validation."""
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if name.startswith("val/")}
