"""Records each epoch, in TensorBoard, `metrics.jsonl` and the checkpoints, and logs new advice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.files.atomic_write import write_atomically
from earteach.images import grid, heat_map, side_by_side, to_uint8
from earteach.metrics import diagnostics
from earteach.metrics.diagnostics import Advice, EpochLosses, RunStatistics, TrainingSubset
from earteach.run_files import METRICS_FILE, RECORDER_STATE, RUN_NAME, VALIDATION_EARS
from earteach.run_identity import CHECKPOINTS, read_records, relative_folder
from earteach.training.checkpoint_callback import is_fast_dev_run, measured
from earteach.training.lightning_module import EarVAELightning

_SHOWN_EARS = 8
_HPARAM_METRICS = ("val/loss", "val/psnr", "val/ssim", "val/kld")
_log = logging.getLogger(__name__)


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


class Recorder(Callback):
    """Writes an epoch's record before its checkpoint, so that no saved epoch lacks its record.

    Lightning logs some scalars after the checkpoint and queues others: a run that is killed in between
    and resumed would lack them. The checkpoint keeps the run's history, by which the diagnostics judge
    it: a resumed run may log to another folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        arrays: Mapping[str, EarArray],
        on_epoch: Callable[[EpochRecord], None] | None = None,
    ) -> None:
        self._folder = config.run.log_dir / RUN_NAME
        self._val_array = arrays["val"]
        self._subset = TrainingSubset(
            arrays["train"], size=config.model.image_size, channels=config.model.in_channels
        )
        self._on_epoch = on_epoch
        self._clean_recon = float("nan")
        self._history: list[EpochLosses] = []  # empty for a student, whose training decodes nothing
        # Of the last validation, by latent dimension: KLD in nats, and variance of mu.
        self._codes: dict[str, list[float]] = {"kld": [], "variance": []}
        self._reported: list[str] = []
        self._advice: tuple[Advice, ...] = ()
        self._begin_epoch()

    @property
    def state_key(self) -> str:
        return RECORDER_STATE

    def state_dict(self) -> dict[str, Any]:
        """Builtin values, for a checkpoint."""
        history = [asdict(epoch) for epoch in self._history]
        advice = [asdict(entry) for entry in self._advice]
        return {
            "history": history, "codes": {**self._codes}, "told": [*self._reported], "advice": advice
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._history = [EpochLosses(**epoch) for epoch in state_dict["history"]]
        self._codes, self._reported = {**state_dict["codes"]}, [*state_dict["told"]]
        self._advice = tuple(Advice(**entry) for entry in state_dict.get("advice", ()))

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

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reconstruct a few training images without augmentation, as in validation."""
        assert isinstance(pl_module, EarVAELightning)
        run, optim = pl_module.config.run, pl_module.config.optim
        self._clean_recon = self._subset.reconstruction_loss(
            pl_module.averaged, seed=run.seed, batch_size=optim.batch_size
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, EarVAELightning)
        record = self._record(trainer, pl_module)
        self._add_epoch(record.metrics, record.learning_rate)
        if trainer.is_global_zero:
            if not is_fast_dev_run(trainer):
                self._write(trainer, pl_module, record)
            if self._on_epoch is not None:
                self._on_epoch(record)
            self._advice = self.diagnose(pl_module, trainer.global_step, finished=False)
            for advice in self._advice:
                if advice.code not in self._reported:
                    self._reported.append(advice.code)
                    _log.info("%s", advice.message)

    def _record(self, trainer: pl.Trainer, module: EarVAELightning) -> EpochRecord:
        codes = module.validation_codes()
        self._codes = {
            "kld": codes.kld_per_dimension().tolist(),
            "variance": codes.variance().tolist(),
        }
        metrics = {
            **module.training_means(),
            **measured(trainer),
            "train/clean_recon_loss": self._clean_recon,
            "val/active_units": float(codes.active_units()),
        }
        seconds, epochs = time.monotonic() - self._started, module.config.optim.epochs
        training_seconds = max(1e-9, self._trained - self._started)
        return EpochRecord(
            epoch=trainer.current_epoch,
            epochs=epochs,
            # The step before the next one, as in Lightning's own epoch logs: a run that resumes
            # at `global_step` has TensorBoard drop what lies at or after it.
            step=trainer.global_step - 1,
            metrics=metrics,
            learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
            seconds=seconds,
            images_per_second=self._images * trainer.world_size / training_seconds,
            seconds_left=seconds * (epochs - trainer.current_epoch - 1),
        )

    def _add_epoch(self, metrics: Mapping[str, float], learning_rate: float) -> None:
        if "train/recon_loss" in metrics:
            self._history.append(
                EpochLosses(
                    train_recon=metrics["train/recon_loss"],
                    clean_recon=metrics["train/clean_recon_loss"],
                    val_recon=metrics["val/recon_loss"],
                    val_loss=metrics["val/loss"],
                    learning_rate=learning_rate,
                )
            )

    def diagnose(
        self, module: EarVAELightning, steps: int, *, finished: bool
    ) -> tuple[Advice, ...]:
        """The advice on the run after so many steps; a student gets none."""
        return diagnostics.diagnose(
            RunStatistics(
                config=module.config,
                epochs=len(self._history),
                steps=steps,
                finished=finished,
                history=tuple(self._history),
                images=len(self._val_array),
                kld_per_dimension=tuple(self._codes["kld"]),
                variance=tuple(self._codes["variance"]),
                recon_loss=self._history[-1].val_recon if self._history else None,
                mean_image_error=self._subset.mean_image_error,
                eigenvalues=self._subset.eigenvalues,
                side_dimension=module.model.side_dimension,
            )
        )

    def _write(self, trainer: pl.Trainer, module: EarVAELightning, record: EpochRecord) -> None:
        owner = {CHECKPOINTS: relative_folder(module.config.run)}
        with (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record) | owner) + "\n")
        logger = trainer.logger
        assert isinstance(logger, TensorBoardLogger)
        logger.log_metrics(record.metrics, record.step)
        pictures = {VALIDATION_EARS: self._reconstructions(module), "samples": _samples(module)}
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
