"""The training loader: its speed, its memory and its start on a large array."""

from __future__ import annotations

import collections
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.network import descend, training_loss
from benchmarks.speed.pairs import Pair, Row, in_turn
from benchmarks.speed.workspace import drawn_ears
from earteach.config import Strength, TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.loaders import training_loader
from earteach.model.build import build_model

_BORDER = {"border_mode": cv2.BORDER_REFLECT_101}
EARS, REPEATS, BATCH, TURNS = 64, 12, 32, 3
STEPS = 4
# Images of 256×256×3: 12.0 GB, as a sparse file.
LARGE, SMALL = 61_036, 2048
ALLOWED_MB = 1500
# Numbers of 64×64×3 images: many, in files of `PER_FILE`, and few, in a single file.
MANY, PER_FILE, FEW = 10**7, 10**4, 10**5
BATCHES = 200


def rows(workspace: Path) -> Iterator[Row]:
    array = _repeated(workspace, 256)
    yield _beside_plain(array, "full", 4)
    yield _beside_plain(array, "light", 2)
    for size in (64, 128):
        yield _beside_a_step(_repeated(workspace, size), size)
    yield _from_disk(workspace)
    yield _many_images(workspace)
    yield from _large_array(workspace)


class Plain(Dataset[torch.Tensor]):
    """The whole array as float32 in memory, augmented by plain albumentations."""

    def __init__(self, path: Path, strength: Strength) -> None:
        self.images = np.load(path).astype(np.float32) / 255
        self.augment = A.Compose([*_transforms(strength), ToTensorV2()], seed=0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.augment(image=self.images[index])["image"]
        return image


def _transforms(strength: Strength) -> list[Any]:
    """earteach's augmentation written with albumentations alone."""
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
    """A few drawn ears, repeated: the content of the images does not change their cost."""
    path = workspace / f"repeated-{size}.npy"
    ears = np.load(drawn_ears(workspace, size, EARS) / "train_teacher.npy")
    np.save(path, np.concatenate([ears] * REPEATS))
    return path


def _epochs(config: TrainConfig, path: Path) -> Callable[[], None]:
    """A function that loads the next epoch."""
    loader = training_loader(config, EarArray.open(path))
    numbers = itertools.count()

    def epoch() -> None:
        loader.sampler.set_epoch(next(numbers))  # type: ignore[attr-defined]
        for _ in loader:
            pass

    return epoch


def _beside_plain(path: Path, strength: Strength, target: float) -> Row:
    config = TrainConfig().with_options(
        {"augmentation": strength, "batch_size": BATCH, "num_workers": 0}
    )
    plain = Plain(path, strength)
    other = DataLoader(plain, batch_size=BATCH, shuffle=True)
    pair = in_turn(_epochs(config, path), lambda: collections.deque(other, maxlen=0), TURNS)
    return pair.throughput(
        f"loader at 256 px, one core, `--augmentation {strength}`", len(plain), target,
        "albumentations on float32",
    )  # fmt: skip


def _beside_a_step(path: Path, size: int) -> Row:
    config = TrainConfig().with_options(
        {"image_size": size, "base_channels": 32, "batch_size": BATCH, "num_workers": 1}
    )
    model = build_model(config.model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.rand(BATCH, 3, size, size)

    def steps() -> None:
        for _ in range(STEPS):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = training_loss(model, images)
            descend(model, optimizer, loss)

    pair = in_turn(_epochs(config, path), steps, TURNS)
    number = len(EarArray.open(path))
    slower = tuple(seconds * number / (STEPS * BATCH) for seconds in pair.other)
    return Pair(pair.ours, slower).throughput(
        f"loader at {size} px, one worker", number, 3, "training steps, base 32, batch 32, bf16"
    )


def _from_disk(workspace: Path) -> Row:
    """Images in random order of a file of which nothing is in memory."""
    path = workspace / "on-disk.npy"
    images = np.random.default_rng(0).integers(0, 256, (SMALL, 256, 256, 3), np.uint8)
    with path.open("wb") as file:
        np.save(file, images)
        os.fsync(file.fileno())
    order = np.random.default_rng(1).permutation(SMALL)[: 2 * BATCH * TURNS]

    def read(array: EarArray) -> None:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for row in order.tolist():
            array.stored(row).copy()

    def fresh(*, in_random_order: bool) -> EarArray:
        array = EarArray.open(path)
        if in_random_order:
            array.read_in_random_order()
        return array

    pair = in_turn(
        lambda: read(fresh(in_random_order=True)),
        lambda: read(fresh(in_random_order=False)),
        TURNS,
    )
    return pair.throughput(
        "images of 256 px from a file on a disk, in random order", len(order), 2,
        "a mapped file as numpy reads it",
    )  # fmt: skip


def _many_images(workspace: Path) -> Row:
    """The first batches of an epoch, in random order, of empty files."""
    folder = workspace / "many"
    folder.mkdir(exist_ok=True)
    for number in range(MANY // PER_FILE):
        _sparse(folder / f"{number:04d}.npy", PER_FILE, 64)
    few = _sparse(workspace / "one-file.npy", FEW, 64)
    config = TrainConfig().with_options(
        {"image_size": 64, "batch_size": BATCH, "num_workers": 0, "augmentation": "full"}
    )

    def batches(path: Path) -> Callable[[], object]:
        loader = iter(training_loader(config, EarArray.open(path)))
        return lambda: collections.deque(itertools.islice(loader, BATCHES), maxlen=0)

    pair = in_turn(batches(folder / "*.npy"), batches(few), TURNS)
    return pair.throughput(
        f"loader at 64 px, one core, of {MANY:,} images in {MANY // PER_FILE:,} files",
        BATCHES * BATCH, 0.8, f"of {FEW:,} images in one file",
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Seconds to the first step, and the largest anonymous memory of all processes, in MB."""

    start: float
    anonymous: float


def _large_array(workspace: Path) -> Iterator[Row]:
    """The first start fits PCA on a part of the images; later starts find it cached."""
    sizes = (SMALL, LARGE)
    first, *later = [{n: _few_steps(workspace, n) for n in sizes} for _ in range(1 + TURNS)]
    beyond = max(run[LARGE].anonymous - run[SMALL].anonymous for run in (first, *later))
    yield Row(
        "12 GB array: anonymous memory beyond a 0.4 GB array's", max(beyond, 0),
        ALLOWED_MB, "MB", "at most", 1, "allowed",
    )  # fmt: skip
    small, large = (statistics.median(run[n].start for run in later) for n in sizes)
    yield Row("12 GB array: start, PCA cached", large, small, "s", "at most", 1.1, "0.4 GB array")
    yield Row(
        "12 GB array: first start, PCA fitted", first[LARGE].start, first[SMALL].start,
        "s", "at most", 1.2, "0.4 GB array",
    )  # fmt: skip


def _few_steps(workspace: Path, number: int) -> Run:
    train, val = (_sparse(workspace / f"sparse-{count}.npy", count, 256) for count in (number, 16))
    out = workspace / f"few-steps-{number}"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.speed.few_steps", str(train), str(val), str(out)]
    began, largest = time.time(), 0.0
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as process:
        while process.poll() is None:
            largest = max(largest, _anonymous_megabytes(process.pid))
            time.sleep(0.05)
        assert process.stdout is not None
        return Run(float(process.stdout.read()) - began, largest)


def _sparse(path: Path, number: int, size: int) -> Path:
    if not path.exists():
        np.lib.format.open_memmap(path, "w+", np.uint8, (number, size, size, 3))
    return path


def _anonymous_megabytes(session: int) -> float:
    """Of all processes in the session; memory shared by forked ones counts for each."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end meanwhile
            if os.getsid(int(folder.name)) == session:
                status = (folder / "status").read_text(encoding="utf-8")
                # A zombie has none.
                total += sum(int(size) for size in re.findall(r"RssAnon:\s*(\d+)", status))
    return total / 1024
