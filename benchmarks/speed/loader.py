"""The training pipeline, from the array on disk to a batch: its speed, and its memory and start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.pairs import Row, in_turn
from benchmarks.speed.workspace import drawn_ears
from earteach.config import Strength, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loading import training_loader

_BORDER = {"border_mode": cv2.BORDER_REFLECT_101}
EARS, REPEATS, BATCH, TURNS = 64, 8, 32, 3
SIDES = {"light": 2.0, "full": 4.0}


def rows(workspace: Path) -> Iterator[Row]:
    array = _repeated(workspace, 256)
    for strength, target in SIDES.items():
        yield _throughput(array, strength, target)  # type: ignore[arg-type]


class Plain(Dataset[torch.Tensor]):
    """The whole array as floats in memory, and albumentations as it comes."""

    def __init__(self, path: Path, strength: Strength) -> None:
        self.images = np.load(path).astype(np.float32) / 255
        self.augment = A.Compose([*_transforms(strength), ToTensorV2()], seed=0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.augment(image=self.images[index])["image"]
        return image


def _transforms(strength: Strength) -> list[Any]:
    """The transforms that earteach's augmentation stands for, all of albumentations."""
    limit = 0.08 if strength == "light" else 0.15
    brightness = A.RandomBrightnessContrast(brightness_limit=limit, contrast_limit=limit, p=0.3)
    if strength == "light":
        move = A.Affine(
            scale=(0.94, 1.06), translate_percent=(-0.04, 0.04), rotate=(-6, 6), p=0.8, **_BORDER
        )
        return [A.HorizontalFlip(p=0.5), move, brightness]
    return [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            scale=(0.94, 1.08), translate_percent=(-0.04, 0.04), rotate=(-10, 10), shear=(-5, 5),
            p=0.5, **_BORDER,
        ),
        A.Perspective(scale=(0.02, 0.06), p=0.15, **_BORDER),
        A.ElasticTransform(alpha=20, sigma=6, p=0.1, **_BORDER),
        brightness,
        A.OneOf([
            A.ColorJitter(
                brightness=(0.9, 1.1), contrast=(0.9, 1.1), saturation=(0.85, 1.15),
                hue=(-0.02, 0.02), p=1,
            ),
            A.HueSaturationValue(hue_shift_limit=4, sat_shift_limit=15, val_shift_limit=10, p=1),
        ], p=0.3),
        A.OneOf([
            A.RandomShadow(num_shadows_limit=(1, 1), shadow_intensity_range=(0.2, 0.45), p=1),
            A.RandomFog(fog_coef_range=(0.05, 0.25), alpha_coef=0.06, p=0.15),
        ], p=0.08),
        A.GaussNoise(std_range=(0.01, 0.04), p=0.1),
        A.OneOf(
            [A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.3, 1.0)), A.MotionBlur((3, 5))],
            p=0.1,
        ),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.06, 0.18), hole_width_range=(0.06, 0.18),
            fill="random_uniform", p=0.12,
        ),
    ]  # fmt: skip


def _repeated(workspace: Path, size: int) -> Path:
    """A few drawn ears, many times over: what is in the images does not change their cost."""
    path = workspace / f"repeated-{size}.npy"
    ears = np.load(drawn_ears(workspace, size, EARS) / "train_teacher.npy")
    np.save(path, np.concatenate([ears] * REPEATS))
    return path


def _throughput(path: Path, strength: Strength, target: float) -> Row:
    config = TrainConfig().with_options(
        {"augmentation": strength, "image_size": 256, "batch_size": BATCH, "num_workers": 0}
    )
    ours = training_loader(config, EarArray.open(path))
    other = DataLoader(Plain(path, strength), batch_size=BATCH, shuffle=True)
    epochs = iter(range(1000))

    def epoch() -> None:
        ours.sampler.set_epoch(next(epochs))  # type: ignore[attr-defined]
        for _ in ours:
            pass

    pair = in_turn(epoch, lambda: [None for _ in other], TURNS)
    images = len(other.dataset)  # type: ignore[arg-type]
    return pair.throughput(
        f"loader, 256 px, --augmentation {strength}, images of one core", images, target,
        "albumentations on float32 in memory",
    )  # fmt: skip
