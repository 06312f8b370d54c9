"""Checkpoints in a folder of their own, and images as arrays and tensors."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from earteach.config import ModelConfig
from earteach.model.build import build_model
from tests.conftest import Run


@pytest.fixture
def placed(trained: Run, tmp_path: Path) -> Path:
    """The trained run's last checkpoint, with nothing beside it."""
    (tmp_path / "run").mkdir()
    return Path(shutil.copy(trained.last, tmp_path / "run"))


@pytest.fixture
def sideless(placed: Path) -> Path:
    """A checkpoint of a network without a PCA path, whose code has no side."""
    return untrained(placed, pca_init=False)


def untrained(checkpoint: Path, **options: object) -> Path:
    """A checkpoint beside it, of an untrained network with other options."""
    state = torch.load(checkpoint, weights_only=True)
    model = state["earteach"]["config"]["model"]
    model.update(options)
    torch.manual_seed(0)
    weights = build_model(ModelConfig(**model)).state_dict()
    state["state_dict"] = {f"model.{name}": value for name, value in weights.items()}
    path = checkpoint.with_name("untrained.ckpt")
    torch.save(state, path)
    return path


def rename_arrays(checkpoint: Path, **paths: Path) -> Path:
    """Let the checkpoint name other arrays as its `train_data` or `val_data`."""
    state = torch.load(checkpoint, weights_only=True)
    for name, path in paths.items():
        state["earteach"]["config"]["data"][name] = str(path)
    torch.save(state, checkpoint)
    return checkpoint


def pixels(path: Path) -> np.ndarray:
    """The values of a PNG, int `(H, W, C)`."""
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def batch(images: np.ndarray) -> torch.Tensor:
    """uint8 `(N, H, W, C)` to float `(N, C, H, W)` in [0, 1]."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def stacked(paths: Sequence[Path]) -> np.ndarray:
    return np.stack([pixels(path) for path in paths])


def levels(images: torch.Tensor) -> np.ndarray:
    """Float `(N, C, H, W)` in [0, 1] to `(N, H, W, C)` in [0, 255], not rounded."""
    return images.permute(0, 2, 3, 1).numpy() * 255
