"""Images of an array as float batches, without workers or augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from earteach.data.arrays import EarArray


@dataclass(frozen=True)
class ImageBatch:
    """Row numbers and their images, float32 `(B, C, S, S)` in [0, 1]."""

    indices: list[int]
    images: torch.Tensor


def image_batches(
    array: EarArray,
    *,
    size: int,
    channels: int,
    batch_size: int,
    indices: Sequence[int] | None = None,
) -> Iterator[ImageBatch]:
    """The images of `indices`, or all of them in order."""
    rows = range(len(array)) if indices is None else indices
    for start in range(0, len(rows), batch_size):
        chosen = list(rows[start : start + batch_size])
        images = np.stack([array.image(row, size=size, channels=channels) for row in chosen])
        yield ImageBatch(chosen, to_batch(images))


def to_batch(images: np.ndarray) -> torch.Tensor:
    """uint8 `(B, H, W, C)` to float32 `(B, C, H, W)` in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous()
