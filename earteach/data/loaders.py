"""Batches for training and validation, each a pure function of (seed, epoch, position)."""

from __future__ import annotations

import atexit
import signal
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.data.augmentation import Augmentation
from earteach.hardware import at_most_cores
from earteach.randomness import Purpose, derive, permutation

Key = tuple[int, int]  # (epoch, index)
_loaders: weakref.WeakSet[DataLoader[Any]] = weakref.WeakSet()


class Sample(TypedDict):
    """One image, or a batch of them with a leading axis B."""

    input: torch.Tensor  # uint8 (C, S, S)
    target: torch.Tensor  # uint8 (C, S, S)
    index: int | torch.Tensor


@dataclass(eq=False)
class EarDataset(Dataset[Sample]):
    """Images by (epoch, index), augmented if an augmentation is given."""

    array: EarArray
    size: int
    channels: int
    seed: int = 0
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        _ = self.array.scale  # judged once, so that workers do not each sample the array again

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        image = self.array.image(index, size=self.size, channels=self.channels)
        target = image
        if self.augmentation is not None:
            seed = derive(self.seed, Purpose.AUGMENTATION, epoch, index)
            image, target = self.augmentation(image, seed)
        tensor = as_tensor(image)
        same = target is image
        return {"input": tensor, "target": tensor if same else as_tensor(target), "index": index}


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 `(H, W, C)` to uint8 `(C, H, W)`, a copy, because rows of a mapped file are read-only."""
    planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))  # several times as fast as NumPy's transposed copy
    return torch.from_numpy(planes)


def collate(samples: list[Sample]) -> Sample:
    """A batch. If every image is its own target, the two are one tensor, copied only once."""
    if any(sample["target"] is not sample["input"] for sample in samples):
        return cast(Sample, default_collate(samples))
    inputs = default_collate([sample["input"] for sample in samples])
    indices = default_collate([sample["index"] for sample in samples])
    return {"input": inputs, "target": inputs, "index": indices}


@dataclass(eq=False)
class EpochOrder(Sampler[Key]):
    """The keys of one rank's share of an epoch, in that epoch's order.

    Ranks take turns in the permuted order. It is padded from its own beginning so that all ranks take
    the same number of steps. `skipped` keys at the start of the epoch are left out.
    """

    length: int
    seed: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    skipped: int = 0

    def __len__(self) -> int:
        return -(-self.length // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.skipped = 0
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = permutation(self.seed, self.epoch, self.length)
        padded = np.resize(order, len(self) * self.world_size)
        mine = padded[self.rank :: self.world_size]
        epoch = self.epoch
        return ((epoch, int(index)) for index in mine[self.skipped :])


class TrainingLoader(DataLoader[Sample]):
    """A loader that can resume inside an epoch.

    Lightning saves and restores it through `state_dict`, which counts the batches that were handed out,
    not those that workers have prepared.
    """

    def __init__(self, order: EpochOrder, **kwargs: Any) -> None:
        super().__init__(sampler=order, **kwargs)
        self._order = order
        self._counted_epoch = order.epoch  # in which `_handed_out` batches were handed out
        self._handed_out = 0

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        assert self.batch_size is not None
        self._counted_epoch = self._order.epoch
        self._handed_out = self._order.skipped // self.batch_size
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        epoch = self._order.epoch
        batches = self._handed_out if self._counted_epoch == epoch else 0
        done = batches >= len(self)
        return {"epoch": epoch + int(done), "batches": 0 if done else batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert self.batch_size is not None
        self._order.epoch = self._counted_epoch = state["epoch"]
        self._handed_out = state["batches"]
        self._order.skipped = state["batches"] * self.batch_size


def training_loader(
    config: TrainConfig, array: EarArray, *, rank: int = 0, world_size: int = 1
) -> TrainingLoader:
    """Augmented batches in a new order each epoch."""
    model, data, seed = config.model, config.data, config.run.seed
    dataset = EarDataset(
        array, size=model.image_size, channels=model.in_channels, seed=seed,
        augmentation=Augmentation(data.augmentation, model.in_channels, data.target),
    )  # fmt: skip
    array.read_in_random_order()
    order = EpochOrder(len(array), seed, rank, world_size)
    loader = TrainingLoader(order, dataset=dataset, **_loading_options(config))
    _loaders.add(loader)
    return loader


def validation_loader(
    config: TrainConfig, array: EarArray, *, rank: int = 0, world_size: int = 1
) -> DataLoader[Sample]:
    """The unchanged images in array order: over all ranks each image exactly once."""
    dataset = EarDataset(array, size=config.model.image_size, channels=config.model.in_channels)
    sampler = [(0, index) for index in range(rank, len(array), world_size)]
    loader = DataLoader(dataset, sampler=sampler, **_loading_options(config))
    _loaders.add(loader)
    return loader


def _loading_options(config: TrainConfig) -> dict[str, Any]:
    count = at_most_cores(config.hardware.num_workers)
    return {
        "batch_size": config.optim.batch_size,
        "collate_fn": collate,
        "num_workers": count,
        "persistent_workers": count > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _start_worker,
    }


def _start_worker(_: int) -> None:
    """Run with one thread, and leave signals to the training process, which ends its workers."""
    # A progress bar replaces stderr by a file with a lock, which may have been held at the fork.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Otherwise multiprocessing would send workers SIGTERM, which they ignore, and wait forever."""
    for loader in list(_loaders):
        if loader._iterator is not None and loader.num_workers:
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
