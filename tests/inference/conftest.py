"""A checkpoint in a folder of its own, of a network with and without sides."""

import shutil
from pathlib import Path

import pytest
import torch

from earteach.model.vae import EarVAE
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
    weights = EarVAE(**model).state_dict()
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
