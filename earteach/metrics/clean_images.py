"""A few training images as they are, without augmentation: how well they are learned, what they hold."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import to_batch
from earteach.model.loss import squared_error
from earteach.model.vae import EarVAE, reparameterise
from earteach.randomness import validation_noise

# Enough for a mean, few enough to cost less than the validation of any array worth training on.
_MOST = 64
# The last eigenvalues of few images are much too small; the first quarter is near the truth.
_IMAGES_PER_EIGENVALUE = 4


class CleanImages:
    """At most 64 images, evenly spread over an array, kept in memory."""

    def __init__(self, array: EarArray, *, size: int, channels: int) -> None:
        self._rows = sampled_rows(len(array), _MOST).tolist()
        self._images = np.stack(
            [array.image(row, size=size, channels=channels) for row in self._rows]
        )

    def reconstruction_loss(self, network: EarVAE, *, seed: int, batch_size: int) -> float:
        """Their mean squared error from noisy codes, as that of validation images is measured."""
        device, total = next(network.parameters()).device, 0.0
        for start in range(0, len(self._rows), batch_size):
            some = slice(start, start + batch_size)
            images = to_batch(self._images[some]).to(device)
            noise = validation_noise(seed, self._rows[some], network.latent_dim).to(device)
            with torch.no_grad():
                seen = network.decode(reparameterise(*network.encode(images), noise))
                total += float(squared_error(seen, images).sum())
        return total / len(self._rows)

    @property
    def mean_image_error(self) -> float | None:
        """The mean squared error of their mean on images like them; None for a single image."""
        if len(self._rows) < 2:
            return None
        return float(self._spectrum.sum() / self._images[0].size)

    @property
    def eigenvalues(self) -> tuple[float, ...]:
        """The first ones of their PCA in [0, 1], summed over pixels, that many images can tell."""
        known = len(self._rows) // _IMAGES_PER_EIGENVALUE
        return tuple(self._spectrum[:known].tolist()) if known else ()

    @cached_property
    def _spectrum(self) -> np.ndarray:
        flat = self._images.reshape(len(self._rows), -1).astype(np.float32) / 255
        centred = flat - flat.mean(axis=0)
        return np.linalg.eigvalsh(centred @ centred.T)[::-1] / max(1, len(flat) - 1)
