"""An epoch of `earteach train` beside a loop written by hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.speed.network import descend, follow
from benchmarks.speed.pairs import Pair, Row
from benchmarks.speed.workspace import drawn_ears, options
from earteach.cli.output import run_bar
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.images import to_float
from earteach.model.loss import dissimilarity, vae_loss
from earteach.model.vae import EarVAE
from earteach.training.fit import Watch
from earteach.training.lr_schedule import CosineSchedule
from earteach.training.recorder import EpochRecord
from earteach.training.runs import train

EPOCHS = 3
EARS = 2400


class HandWritten:
    """The same network, loss, optimizer, schedule, average and batches, and nothing else."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.loader = training_loader(config, EarArray.open(config.data.train_data))
        self.model = EarVAE.from_config(config.model)
        self.averaged = copy.deepcopy(self.model)
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=optim.peak_learning_rate,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        steps = len(self.loader) * optim.epochs
        self.scheduler = CosineSchedule(self.optimizer, steps, optim)

    def epoch(self) -> None:
        for batch in self.loader:
            images, target = to_float(batch["input"]), to_float(batch["target"])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                seen, mu, logvar = self.model(images, torch.randn(len(images), 256))
                loss = vae_loss(seen, target, mu, logvar, weight=0.00025, reduction="mean").total
                loss = loss + self.config.optim.ssim_weight * dissimilarity(seen, target).mean()
            descend(self.model, self.optimizer, loss)
            self.scheduler.step()
            follow(self.averaged, self.model)


@dataclass
class Turns:
    """Called after each epoch of earteach's: times one of the other's, then lets earteach go on."""

    other: HandWritten
    ours_seconds: list[float] = field(default_factory=list)
    other_seconds: list[float] = field(default_factory=list)
    began: float | None = None

    def __call__(self, record: EpochRecord) -> None:
        now = time.perf_counter()
        if self.began is not None:  # the first epoch also starts things up
            self.ours_seconds.append(now - self.began)
        start = time.perf_counter()
        self.other.epoch()
        self.other_seconds.append(time.perf_counter() - start)
        self.began = time.perf_counter()


def rows(workspace: Path) -> Iterator[Row]:
    """Whole epochs: with logging, checkpoints, a progress bar and the validation of 16 images."""
    config = options(workspace, drawn_ears(workspace, number=EARS), epochs=EPOCHS)
    few = workspace / "few.npy"
    _keep(config.data.val_data, few, 16)
    config = replace(config, data=replace(config.data, val_data=few))
    config = config.with_options({"checkpoint_dir": workspace / "loop-checkpoints"})
    turns = Turns(HandWritten(config))
    with run_bar() as move:
        train(config, watch=Watch(on_epoch=turns, on_progress=move))
    pair = Pair(tuple(turns.ours_seconds), tuple(turns.other_seconds[1:]))
    yield pair.row("an epoch of `earteach train`", "at most", 1.05, "loop by hand")


def _keep(source: Path, target: Path, images: int) -> None:
    import numpy as np

    np.save(target, np.load(source, mmap_mode="r")[:images])
