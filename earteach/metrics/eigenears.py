"""The baselines: the mean training image, and PCA of the training images ("eigenears").

A network must reconstruct unseen ears better than PCA with as many components as it has latent
dimensions, or it has learned nothing that a linear map does not know. Mirrored ears are ears too, so
PCA is fitted to the images and their mirrors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.metrics.streaming_pca import streaming_pca

_BATCH_SIZE = 256
_MAX_VALUES = 2**30
_HALF = 0.5**0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Eigenears:
    """PCA of flattened images in [0, 1]."""

    mean: np.ndarray  # float32 (D,)
    components: np.ndarray  # float32 (K, D), orthonormal rows
    variances: np.ndarray  # float32 (K,)
    images: int  # number of images it was fitted to, without mirrors

    @property
    def count(self) -> int:
        return len(self.components)

    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """Scores `(B, K)` of images `(B, C, H, W)`."""
        flat = images.flatten(1) - torch.from_numpy(self.mean)
        return flat @ torch.from_numpy(self.components).T

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(B, C, H, W)` projected on the components, clipped to [0, 1]."""
        flat = self.codes(images) @ torch.from_numpy(self.components)
        return (flat + torch.from_numpy(self.mean)).clamp(0, 1).reshape(images.shape)

    def mean_image(self, images: torch.Tensor) -> torch.Tensor:
        """The mean image, repeated to the shape of `images`."""
        return torch.from_numpy(self.mean).reshape(1, *images.shape[1:]).expand_as(images)


def eigenears(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """PCA of the array's images, read from the file beside it if it was fitted before."""
    key = {
        "fingerprint": array.fingerprint(),
        "components": components,
        "size": size,
        "channels": channels,
        "version": 4,
    }
    path = array.cache(f"eigenears-{components}-{size}px-{channels}c")
    if (stored := load_npz(path, key)) is not None:
        images = int(stored["images"])
        return Eigenears(stored["mean"], stored["components"], stored["variances"], images)
    _log.info("fitting PCA on %s and the mirrored images", array.path)
    fitted = fit(array, components=components, size=size, channels=channels)
    store_npz(path, key, **{name: np.asarray(value) for name, value in vars(fitted).items()})
    return fitted


def fit(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """Fit to the n images and their mirrors, with up to n − 1 components, in bounded memory.

    With mirrors, each component is its own mirror, or the negative of it. So the two kinds are fitted
    apart, on halves of images, in a quarter of the time.
    """
    # This many rows keep the fit within minutes.
    max_rows = max(1024, _MAX_VALUES // (2 * channels * size**2))
    if len(array) > max_rows:
        _log.info("PCA is fitted on %d of %d images, evenly spread", max_rows, len(array))
    rows = sampled_rows(len(array), max_rows)

    def halves(sign: int) -> Iterator[torch.Tensor]:
        for batch in image_batches(
            array, size=size, channels=channels, batch_size=_BATCH_SIZE, indices=rows.tolist()
        ):
            yield _half(batch.images, sign).flatten(1)

    count, shape = min(components, max(1, len(rows) - 1)), (channels, size, size // 2)
    alike, opposite = (
        streaming_pca(partial(halves, sign), count, centred=sign < 0) for sign in (1, -1)
    )
    variances = torch.cat([alike.variances, opposite.variances])
    order = variances.argsort(descending=True)[:count]
    signs = torch.cat([torch.ones(len(alike.axes)), -torch.ones(len(opposite.axes))])[order]
    axes = _whole(torch.cat([alike.axes, opposite.axes])[order].view(-1, *shape), signs)
    return Eigenears(
        _whole(alike.mean.view(1, *shape), torch.ones(1)).flatten().numpy(),
        axes.flatten(1).numpy(),
        # Of each image there are two, so there are 2 n - 1 degrees of freedom.
        (variances[order] * (2 * max(1, len(rows) - 1) / (2 * len(rows) - 1))).numpy(),
        images=len(rows),
    )


def _half(images: torch.Tensor, sign: int) -> torch.Tensor:
    """What the left half has in common with the mirrored right half, or against it, for sign −1.

    Each half of `(B, C, S, S)` is `(B, C, S, S / 2)`; together they are as long as the image.
    """
    left, right = images.chunk(2, dim=3)
    return (left + sign * right.flip(3)) * _HALF


def _whole(halves: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """The images of halves `(B, C, S, S / 2)` whose other halves are 0."""
    return torch.cat([halves, signs[:, None, None, None] * halves.flip(3)], dim=3) * _HALF
