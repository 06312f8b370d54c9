"""The nearest training image of an ear: a sample that is much nearer to one than unseen ears are was
not made up but remembered."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from earteach.data.arrays import EarArray, resized, sampled_rows
from earteach.data.image_batches import image_batches, to_batch

_SEARCHED_SIZE = 64
_MOST_IMAGES = 2**14
_PIECE = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nearest:
    """A training image: its row, and its distance as root mean squared error in [0, 1].

    `mirrored`: its mirror image, which shows an ear as well, is the nearer one.
    """

    row: int
    distance: float
    mirrored: bool


def nearest_images(ears: np.ndarray, array: EarArray) -> list[Nearest]:
    """The image of the array, or its mirror, that is nearest to each of the ears.

    `ears` are uint8 `(N, S, S, C)`. The array is read piece by piece, at most 16,384 evenly spread
    images of it. They are looked through at up to 64 pixels a side; the distance is measured at S.
    """
    size, channels = ears.shape[1], ears.shape[3]
    searched = min(size, _SEARCHED_SIZE)
    queries = to_batch(np.stack([resized(ear, searched) for ear in ears])).flatten(1)
    least = torch.full((len(ears),), torch.inf)
    rows = torch.zeros(len(ears), dtype=torch.long)
    turned = torch.zeros(len(ears), dtype=torch.bool)
    for batch in image_batches(
        array, size=searched, channels=channels, batch_size=_PIECE, indices=_looked_through(array)
    ):
        for flip in (False, True):
            images = batch.images.flip(3) if flip else batch.images
            distances, places = torch.cdist(queries, images.flatten(1)).min(dim=1)
            nearer = distances < least
            least = torch.where(nearer, distances, least)
            rows = torch.where(nearer, torch.tensor(batch.indices)[places], rows)
            turned = torch.where(nearer, torch.tensor(flip), turned)
    found = zip(ears, rows.tolist(), turned.tolist(), strict=True)
    return [
        Nearest(row, _distance(ear, shown(array, row, flip, size, channels)), flip)
        for ear, row, flip in found
    ]


def shown(array: EarArray, row: int, flip: bool, size: int, channels: int) -> np.ndarray:
    """An image of the array, or its mirror, uint8 `(S, S, C)`."""
    image = array.image(row, size=size, channels=channels)
    return np.ascontiguousarray(image[:, ::-1]) if flip else image


def _looked_through(array: EarArray) -> list[int]:
    if len(array) > _MOST_IMAGES:
        _log.info(
            "the nearest image is looked for among %d of %d, evenly spread",
            _MOST_IMAGES, len(array),
        )  # fmt: skip
    rows: list[int] = sampled_rows(len(array), _MOST_IMAGES).tolist()
    return rows


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square((a.astype(np.float64) - b) / 255).mean()))
