"""Shared inputs of the benchmark: drawn ears, and a network trained on them for one epoch."""

from __future__ import annotations

from pathlib import Path

from earteach.config import TrainConfig
from earteach.data.prepare import prepare_drawn
from earteach.runs import train

EARS = 400
SIZE, BASE = 64, 32


def drawn_ears(workspace: Path, size: int = SIZE, number: int = EARS) -> Path:
    """A folder with `train_teacher.npy` and `val_teacher.npy`."""
    folder = workspace / f"ears-{size}-{number}"
    if not folder.exists():
        prepare_drawn(number, folder, size=size)
    return folder


def options(workspace: Path, ears: Path, **others: object) -> TrainConfig:
    """64 pixels, 32 base channels, bf16, on drawn ears."""
    return TrainConfig().with_options(
        {
            "train_data": ears / "train_teacher.npy",
            "val_data": ears / "val_teacher.npy",
            "image_size": SIZE,
            "base_channels": BASE,
            "precision": "bf16",
            "num_workers": 0,
            "checkpoint_dir": workspace / "checkpoints",
            "log_dir": workspace / "logs",
            **others,
        }
    )


def trained(workspace: Path) -> Path:
    """A folder with checkpoints of one epoch."""
    config = options(workspace, drawn_ears(workspace), epochs=1)
    if not config.run.checkpoint_dir.exists():
        train(config)
    return config.run.checkpoint_dir
