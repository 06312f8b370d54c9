"""An epoch of `earteach train` beside a loop written by hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.network import descend, follow, training_loss
from benchmarks.speed.pairs import Pair, Row
from benchmarks.speed.workspace import drawn_ears, options
from earteach.cli.output import bar, following
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.images import to_float
from earteach.model.build import build_model
from earteach.runs import train
from earteach.training.fit import Watch
from earteach.training.lr_schedule import CosineSchedule
from earteach.training.recorder import EpochRecord

EPOCHS = 3
EARS = 2400


class HandWritten:
    """The same network, loss, optimizer, schedule, average and batches, without Lightning."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.loader = training_loader(config, EarArray.open(config.data.train_data))
        self.model = build_model(config.model)
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
                loss = training_loss(self.model, images, target)
            descend(self.model, self.optimizer, loss)
            self.scheduler.step()
            follow(self.averaged, self.model)


@dataclass
class Turns:
    """Called after each epoch of earteach: times one epoch of the other loop."""

    other: HandWritten
    ours_seconds: list[float] = field(default_factory=list)
    other_seconds: list[float] = field(default_factory=list)
    began: float | None = None

    def __call__(self, record: EpochRecord) -> None:
        now = time.perf_counter()
        if self.began is not None:  # the first epoch includes the start
            self.ours_seconds.append(now - self.began)
        start = time.perf_counter()
        self.other.epoch()
        self.other_seconds.append(time.perf_counter() - start)
        self.began = time.perf_counter()


def rows(workspace: Path) -> Iterator[Row]:
    """Whole epochs with logging, checkpoints, a progress bar and a validation on 16 images."""
    config = options(workspace, drawn_ears(workspace, number=EARS), epochs=EPOCHS)
    few = workspace / "few.npy"
    np.save(few, np.load(config.data.val_data, mmap_mode="r")[:16])
    config = replace(config, data=replace(config.data, val_data=few))
    apart = {f"{kind}_dir": workspace / f"loop-{kind}" for kind in ("checkpoint", "log")}
    config = config.with_options(apart)
    turns = Turns(HandWritten(config))
    with bar() as update:
        train(config, watch=Watch(on_epoch=turns, on_progress=update and following(update)))
    pair = Pair(tuple(turns.ours_seconds), tuple(turns.other_seconds[1:]))
    yield pair.row("an epoch of `earteach train`", "at most", 1.05, "loop by hand")
