"""How near new ears are to photographs: what `sample --check` adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.errors import EarTeachError
from earteach.inference.loaded_model import LoadedModel
from earteach.inference.samplers import training_images
from earteach.metrics.gist import Similarity, features, similarity

FEWEST = 100
_SMALLEST_SIDE = 32
_BATCH_SIZE = 64


@dataclass(frozen=True)
class Check:
    """How near new ears, and as many training images, are to as many validation images, `images`."""

    images: int
    samples: Similarity
    training_images: Similarity


class SampleCheck:
    """Collects the features of new ears, and compares them with those of the photographs.

    Raises `EarTeachError` if there are too few ears, or an array that the checkpoint names is missing.
    """

    def __init__(self, model: LoadedModel, number: int) -> None:
        self._model, side = model, model.network.image_size
        if not model.checkpoint.about["data"]:
            raise EarTeachError(
                f"--check: {model.checkpoint.path.parent} does not name the images that it was trained "
                "on; use a checkpoint that does"
            )
        self._val, self._train = model.open_array("val"), training_images(model)
        self.images = min(number, len(self._val), len(self._train))
        if self.images < FEWEST:
            raise EarTeachError(
                f"--check: compares {self.images} ears; it needs {FEWEST} new ears (--number), training "
                "images and validation images"
            )
        if side < _SMALLEST_SIDE:
            raise EarTeachError(
                f"--check: needs ears of {_SMALLEST_SIDE} pixels or more, not {side}"
            )
        self._seen: list[torch.Tensor] = []

    def see(self, ears: np.ndarray) -> np.ndarray:
        """The ears, uint8 `(B, S, S, C)`, as they are given."""
        self._seen.append(features(to_batch(ears)))
        return ears

    def result(self) -> Check:
        real = self._features(self._val)
        samples = similarity(torch.cat(self._seen)[: self.images], real)
        return Check(self.images, samples, similarity(self._features(self._train), real))

    def _features(self, array: EarArray) -> torch.Tensor:
        rows = sampled_rows(len(array), self.images)
        batches = self._model.batches(array, _BATCH_SIZE, rows)
        return torch.cat([features(batch.images) for batch in batches])
