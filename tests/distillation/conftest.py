"""A student that was trained once. Tests must not change it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from earteach import checkpoint
from tests.conftest import Run, earteach

EPOCHS = 4
RUN = ["--epochs", EPOCHS, "--learning-rate", 4e-3]


@dataclass(frozen=True)
class Student:
    folder: Path
    teacher: Path
    result: Any
    images: torch.Tensor  # the validation images

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def logs(self) -> Path:
        return self.folder / "logs" / "ear_vae"


@pytest.fixture(scope="session")
def student(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder = tmp_path_factory.mktemp("distilled")
    teacher = Path(shutil.copy(trained.last, folder / "best.ckpt"))
    result = earteach("distil", teacher, "--out", folder / "student", *RUN, "--json")
    assert result.code == 0, result.err
    array = np.load(checkpoint.read(teacher).config.data.val_data)
    images = torch.from_numpy(array.astype(np.float32) / 255).permute(0, 3, 1, 2)
    return Student(folder / "student", teacher, result.json, images)
