"""A training run that receives SIGTERM after a few steps.

python -m benchmarks.speed.few_steps TRAIN VAL OUT

Prints when the first step began, in seconds since the epoch.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from unittest import mock

import torch

from earteach.config import TrainConfig
from earteach.data.loaders import Sample
from earteach.runs import train
from earteach.training.lightning_module import EarVAELightning

STEPS = 12

_training_step = EarVAELightning.training_step


def few_steps(module: EarVAELightning, batch: Sample, batch_idx: int) -> torch.Tensor:
    if batch_idx == 0:
        print(time.time(), flush=True)
    if batch_idx == STEPS:
        signal.raise_signal(signal.SIGTERM)
    return _training_step(module, batch, batch_idx)


def main(train_data: str, val_data: str, out: str) -> None:
    config = TrainConfig().with_options(
        {
            "train_data": Path(train_data),
            "val_data": Path(val_data),
            "base_channels": 4,
            "batch_size": 8,
            "num_workers": 2,
            "checkpoint_dir": Path(out) / "checkpoints",
            "log_dir": Path(out) / "logs",
        }
    )
    with mock.patch.object(EarVAELightning, "training_step", few_steps):
        train(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
