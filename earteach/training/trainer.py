"""Lightning's Trainer for a configuration: hardware, precision, logger, callbacks."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.accelerators import XLAAccelerator
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from earteach.config import HardwareConfig, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import Sample, TrainingLoader, training_loader, validation_loader
from earteach.errors import EarTeachError
from earteach.files.atomic_write import is_full
from earteach.hardware import on_cpu, precision_on_cpu, reuse_freed_memory
from earteach.run_files import RUN_NAME
from earteach.training.checkpoint_callback import AtomicCheckpointIO
from earteach.training.plan import steps_per_epoch

_PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def make_trainer(
    config: TrainConfig, callbacks: Sequence[Callback], *, purge_step: int, fast_dev_run: bool
) -> pl.Trainer:
    """A trainer that logs to TensorBoard and writes checkpoints atomically.

    TensorBoard drops what an earlier process logged at `purge_step` or later. `callbacks` come after
    early stopping. Raises `EarTeachError` for hardware or a strategy that is not available.
    """
    hardware = config.hardware
    if hardware.accelerator == "tpu" and not XLAAccelerator.is_available():
        raise EarTeachError(
            "--accelerator tpu: found no TPU (it needs torch_xla); use --accelerator auto"
        )
    if on_cpu(hardware.accelerator):
        reuse_freed_memory()
    own: list[Callback] = [EarlyStopping("val/loss", patience=config.optim.patience)]
    logger = None
    if not fast_dev_run:
        own.append(LearningRateMonitor(logging_interval="epoch"))
        logger = TensorBoardLogger(
            config.run.log_dir, RUN_NAME, "", default_hp_metric=False, purge_step=purge_step
        )
    try:
        return pl.Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.num_nodes,
            strategy=hardware.strategy,
            precision=_precision(hardware),  # type: ignore[arg-type]
            max_epochs=config.optim.epochs,
            gradient_clip_val=config.optim.gradient_clip or None,
            # All images have one size, so searching for the fastest convolutions pays off. TF32 stays
            # at torch's default: on for convolutions, off for matrix products, whose precision SSIM
            # and PCA need.
            benchmark=True,
            logger=logger or False,
            callbacks=[*own, *callbacks],
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_autolog_hparams=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            fast_dev_run=fast_dev_run,
            default_root_dir=config.run.checkpoint_dir,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise EarTeachError(
            f"--accelerator {hardware.accelerator} --devices {hardware.devices} --strategy "
            f"{hardware.strategy}: {' '.join(str(error).split())}"
        ) from error


def _precision(hardware: HardwareConfig) -> str:
    precision = hardware.precision
    return _PRECISIONS[precision_on_cpu(precision) if on_cpu(hardware.accelerator) else precision]


class Loaders(pl.LightningDataModule):
    """The two loaders, created once each process knows its rank."""

    def __init__(self, config: TrainConfig, arrays: Mapping[str, EarArray]) -> None:
        super().__init__()
        self._config, self._arrays = config, arrays

    def _process(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def steps_per_epoch(self) -> int:
        """Computed without opening a loader."""
        images, batch_size = len(self._arrays["train"]), self._config.optim.batch_size
        return steps_per_epoch(images, batch_size, self._process()["world_size"])

    def train_dataloader(self) -> TrainingLoader:
        return training_loader(self._config, self._arrays["train"], **self._process())

    def val_dataloader(self) -> DataLoader[Sample]:
        return validation_loader(self._config, self._arrays["val"], **self._process())


@contextmanager
def tensorboard_raises_once() -> Iterator[None]:
    """Silence TensorBoard's thread where a full disk stops it; training raises the same error."""
    previous = threading.excepthook

    def unless_full(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and is_full(args.exc_value)):
            previous(args)

    threading.excepthook = unless_full
    try:
        yield
    finally:
        threading.excepthook = previous


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's tips, which advertise products, and its hints about choices made on purpose."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning with a newer torch than it supports.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
