"""Records each epoch: TensorBoard scalars and images, and a line of `metrics.jsonl`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.files.atomic_write import write_atomically
from earteach.images import grid, heat_map, side_by_side, to_uint8
from earteach.run_files import METRICS_FILE, VALIDATION_EARS
from earteach.run_identity import CHECKPOINTS, read_records, relative_folder
from earteach.training.checkpoint_callback import is_fast_dev_run, measured
from earteach.training.lightning_module import EarVAELightning
from earteach.training.run_monitor import RunMonitor

_SHOWN_EARS = 8
_TRAVERSED_DIMENSIONS, _TRAVERSAL_STEPS = 4, 7
_HPARAM_METRICS = ("val/loss", "val/psnr", "val/ssim", "val/kld")


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch; `epoch` counts from 0."""

    epoch: int
    epochs: int
    step: int
    metrics: dict[str, float]
    learning_rate: float
    seconds: float
    images_per_second: float
    seconds_left: float


class Recorder(RunMonitor):
    """Writes an epoch's record before its checkpoint, so that no saved epoch lacks its record.

    Lightning logs some scalars after the checkpoint and queues others: a run that is killed in between
    and resumed would lack them.
    """

    def __init__(
        self,
        folder: Path,
        arrays: Mapping[str, EarArray],
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        super().__init__(arrays)
        self._folder = folder
        self._val_array = arrays["val"]
        self._on_epoch = on_epoch
        self._begin_epoch()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A run that resumes inside an epoch gets no `on_train_epoch_start` for it.
        self._begin_epoch()
        if is_fast_dev_run(trainer) or not trainer.is_global_zero:
            return
        _drop_records(self._folder, trainer.current_epoch)
        assert isinstance(pl_module, EarVAELightning)
        if trainer.global_step == 0 and isinstance(logger := trainer.logger, TensorBoardLogger):
            _log_options(logger, pl_module.config)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._started = self._trained = time.monotonic()
        self._images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._images += len(batch["index"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, EarVAELightning)
        record = self._record(trainer, pl_module)
        self.add_epoch(record.metrics, record.learning_rate)
        if trainer.is_global_zero:
            if not is_fast_dev_run(trainer):
                self._write(trainer, pl_module, record)
            if self._on_epoch is not None:
                self._on_epoch(record)
            self.log_new_advice(pl_module, trainer.global_step)

    def _record(self, trainer: pl.Trainer, module: EarVAELightning) -> EpochRecord:
        metrics = {**module.training_means(), **measured(trainer)}
        seconds, epochs = time.monotonic() - self._started, module.config.optim.epochs
        training_seconds = max(1e-9, self._trained - self._started)
        return EpochRecord(
            epoch=trainer.current_epoch,
            epochs=epochs,
            # The step before the next one, as in Lightning's own epoch logs: a run that resumes
            # at `global_step` has TensorBoard drop what lies at or after it.
            step=trainer.global_step - 1,
            metrics={**metrics, **self.scalars(module, metrics)},
            learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
            seconds=seconds,
            images_per_second=self._images * trainer.world_size / training_seconds,
            seconds_left=seconds * (epochs - trainer.current_epoch - 1),
        )

    def _write(self, trainer: pl.Trainer, module: EarVAELightning, record: EpochRecord) -> None:
        owner = {CHECKPOINTS: relative_folder(module.config.run)}
        with (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record) | owner) + "\n")
        logger = trainer.logger
        assert isinstance(logger, TensorBoardLogger)
        logger.log_metrics(record.metrics, record.step)
        klds = np.asarray(self.codes["kld"])
        logger.experiment.add_histogram("val/kld_per_dimension", klds, record.step)
        pictures = {VALIDATION_EARS: self._reconstructions(module), "samples": _samples(module)}
        if record.epoch + 1 == record.epochs or trainer.should_stop:
            pictures["traversals"] = _traversals(module, klds)
        for name, sheet in pictures.items():
            logger.experiment.add_image(name, sheet, record.step, dataformats="HWC")
        logger.experiment.flush()

    def _reconstructions(self, module: EarVAELightning) -> np.ndarray:
        """Input, reconstruction and error of a few fixed validation ears, uint8 `(H, W, 3)`."""
        model, array = module.config.model, self._val_array
        size, channels = model.image_size, model.in_channels
        rows = sampled_rows(len(array), _SHOWN_EARS).tolist()
        ears = [array.image(row, size=size, channels=channels) for row in rows]
        images = to_batch(np.stack(ears))
        with torch.no_grad():
            output = module.reconstruct(images.to(module.device)).float().cpu()
        errors = (output - images).abs().mean(dim=1).numpy()
        triples = zip(ears, to_uint8(output), map(heat_map, errors), strict=True)
        return grid([side_by_side(triple) for triple in triples], columns=2)


def _samples(module: EarVAELightning) -> np.ndarray:
    """Ears from the prior, the same codes in each epoch, uint8 `(H, W, C)`."""
    generator = torch.Generator().manual_seed(module.config.run.seed)
    with torch.no_grad():
        ears = module.sample(_SHOWN_EARS, generator)
    return grid(list(to_uint8(ears)), columns=4)


def _traversals(module: EarVAELightning, klds: np.ndarray) -> np.ndarray:
    """The mean code with one dimension moved from −3 to 3; a row for each of those with the largest KLD.

    uint8 `(H, W, C)`.
    """
    largest = np.argsort(-klds)
    values = torch.linspace(-3, 3, _TRAVERSAL_STEPS)
    codes = torch.zeros(_TRAVERSED_DIMENSIONS, _TRAVERSAL_STEPS, module.config.model.latent_dim)
    for row, dimension in zip(codes, largest.tolist(), strict=False):
        row[:, dimension] = values
    with torch.no_grad():
        ears = module.decode(codes[: len(largest)].flatten(0, 1).to(module.device))
    return grid(list(to_uint8(ears)), columns=_TRAVERSAL_STEPS)


def _log_options(logger: TensorBoardLogger, config: TrainConfig) -> None:
    """Let TensorBoard's HPARAMS tab show the options beside the last value of some scalars."""
    options = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in config.resolved_options().items()
    }
    logger.log_hyperparams(options)
    summaries = hparams(options, dict.fromkeys(_HPARAM_METRICS, 0.0))  # type: ignore[no-untyped-call]
    for summary in summaries:
        logger.experiment._get_file_writer().add_summary(summary)


def _drop_records(log: Path, epoch: int) -> None:
    """Remove the records from `epoch` on, because a resumed run writes them again."""
    path = log / METRICS_FILE
    if path.exists():
        earlier = [record for record in read_records(log) if record["epoch"] < epoch]
        text = "".join(json.dumps(each) + "\n" for each in earlier)
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
