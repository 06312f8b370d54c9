"""The training image nearest to each ear.

A sample that is much nearer to a training image than unseen ears are is memorised, not new.
"""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass

import numpy as np
import torch

from earteach.data.arrays import EarArray, resized, sampled_rows
from earteach.data.image_batches import image_batches, to_batch
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.samplers import training_images

_SEARCH_SIZE = 64
_MAX_IMAGES = 2**14
_BATCH_SIZE = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nearest:
    """A training image: its row, and its root mean squared error in [0, 1] to the ear.

    `mirrored`: the mirror image is the nearer one.
    """

    row: int
    distance: float
    mirrored: bool


@dataclass(frozen=True)
class Neighbours:
    """The nearest training image of each ear.

    `validation_distance` is the median distance of validation images to their nearest ones.
    """

    array: EarArray
    nearest: tuple[Nearest, ...]
    validation_distance: float | None

    def below(self, ears: np.ndarray) -> list[np.ndarray]:
        """Each of the ears `(N, S, S, C)` above its nearest training image, uint8 `(2 S, S, C)`."""
        size, channels = ears.shape[1], ears.shape[3]
        return [
            np.concatenate([ear, read_image(self.array, match.row, match.mirrored, size, channels)])
            for ear, match in zip(ears, self.nearest, strict=True)
        ]


def find_neighbours(model: LoadedModel, ears: np.ndarray) -> Neighbours | None:
    """Search the training images; None with a note if the array is missing."""
    try:
        array = training_images(model)
    except EarTeachError as error:
        folder = model.checkpoint.path.parent
        reason = error if model.checkpoint.about["data"] else f"{folder} does not name them"
        _log.info("nearest training images are not shown: %s", reason)
        return None
    nearest = nearest_images(np.stack([*ears, *_validation_images(model)]), array)
    distances = [match.distance for match in nearest[len(ears) :]]
    median = statistics.median(distances) if distances else None
    return Neighbours(array, tuple(nearest[: len(ears)]), median)


def nearest_images(ears: np.ndarray, array: EarArray) -> list[Nearest]:
    """The nearest image of the array, or mirror image, to each of the ears, uint8 `(N, S, S, C)`.

    The search reads up to 16,384 evenly spread images in batches, at up to 64 pixels a side. The
    distances are measured at S pixels.
    """
    size, channels = ears.shape[1], ears.shape[3]
    search_size = min(size, _SEARCH_SIZE)
    queries = to_batch(np.stack([resized(ear, search_size) for ear in ears])).flatten(1)
    best = torch.full((len(ears),), torch.inf)
    rows = torch.zeros(len(ears), dtype=torch.long)
    is_mirrored = torch.zeros(len(ears), dtype=torch.bool)
    searched: list[int] = sampled_rows(len(array), _MAX_IMAGES).tolist()
    for batch in image_batches(
        array, size=search_size, channels=channels, batch_size=_BATCH_SIZE, indices=searched
    ):
        for flip in (False, True):
            images = batch.images.flip(3) if flip else batch.images
            distances, columns = torch.cdist(queries, images.flatten(1)).min(dim=1)
            nearer = distances < best
            best = torch.where(nearer, distances, best)
            rows = torch.where(nearer, torch.tensor(batch.indices)[columns], rows)
            is_mirrored = torch.where(nearer, torch.tensor(flip), is_mirrored)
    return [
        Nearest(row, _rmse(ear, read_image(array, row, flip, size, channels)), flip)
        for ear, row, flip in zip(ears, rows.tolist(), is_mirrored.tolist(), strict=True)
    ]


def read_image(array: EarArray, row: int, flip: bool, size: int, channels: int) -> np.ndarray:
    """An image of the array or its mirror image, uint8 `(S, S, C)`."""
    image = array.image(row, size=size, channels=channels)
    return np.ascontiguousarray(image[:, ::-1]) if flip else image


def _rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square((a.astype(np.float64) - b) / 255).mean()))


def _validation_images(model: LoadedModel) -> list[np.ndarray]:
    """Up to 64 validation images at the network's size, uint8 `(S, S, C)`."""
    try:
        array = model.open_array("val")
        return [model.image(array, row) for row in sampled_rows(len(array)).tolist()]
    except EarTeachError as error:
        _log.info("no validation images to compare distances with: %s", error)
        return []
