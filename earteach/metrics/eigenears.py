"""The yardsticks: the mean training image, and PCA of the training images ("eigenears").

A network that reconstructs unseen ears no better than PCA with as many components as it has latent
numbers has learned nothing that a linear map does not know. As mirrored ears are ears, PCA is fitted
on the images and their mirrors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from earteach.data.arrays import EarArray, sampled_rows
from earteach.data.image_batches import image_batches
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.metrics.streaming_pca import streaming_pca

_PIECE = 256
_FITTED_VALUES = 2**30
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Eigenears:
    """PCA of flattened images in [0, 1]."""

    mean: np.ndarray  # float32 (D,)
    components: np.ndarray  # float32 (K, D), orthonormal rows
    variances: np.ndarray  # float32 (K,)
    images: int  # fitted on, mirrors not counted

    @property
    def count(self) -> int:
        return len(self.components)

    def codes(self, images: torch.Tensor) -> torch.Tensor:
        """The components' scores of images `(B, C, H, W)`, `(B, K)`."""
        flat = images.flatten(1) - torch.from_numpy(self.mean)
        return flat @ torch.from_numpy(self.components).T

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(B, C, H, W)` projected on the components, clipped to [0, 1]."""
        flat = self.codes(images) @ torch.from_numpy(self.components)
        return (flat + torch.from_numpy(self.mean)).clamp(0, 1).reshape(images.shape)

    def mean_image(self, images: torch.Tensor) -> torch.Tensor:
        """The mean image, once for each of `images`."""
        return torch.from_numpy(self.mean).reshape(1, *images.shape[1:]).expand_as(images)


def eigenears(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """PCA of the array's images, from the file beside it where it was fitted before."""
    about = {
        "fingerprint": array.fingerprint(),
        "components": components,
        "size": size,
        "channels": channels,
        "version": 4,
    }
    kept = array.path.with_name(
        f"{array.path.stem}.eigenears-{components}-{size}px-{channels}c.npz"
    )
    if (found := load_npz(kept, about)) is not None:
        return Eigenears(
            found["mean"], found["components"], found["variances"], int(found["images"])
        )
    _log.info("fitting PCA on %s and the mirrored images", array.path)
    fitted = fit(array, components=components, size=size, channels=channels)
    store_npz(kept, about, **{name: np.asarray(value) for name, value in vars(fitted).items()})
    return fitted


def fit(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """Fit on the n images and their mirrors, with at most n − 1 components, in bounded memory."""
    rows = _fitted_rows(len(array), channels * size**2)

    def pieces() -> Iterator[torch.Tensor]:
        for batch in image_batches(
            array, size=size, channels=channels, batch_size=_PIECE, indices=rows.tolist()
        ):
            yield torch.cat([batch.images, batch.images.flip(3)]).flatten(1)

    found = streaming_pca(pieces, min(components, max(1, len(rows) - 1)))
    return Eigenears(
        found.mean.numpy(), found.axes.numpy(), found.variances.numpy(), images=len(rows)
    )


def _fitted_rows(length: int, dimensions: int) -> np.ndarray:
    """All rows, or as many evenly spread ones as make PCA take minutes and not hours."""
    most = max(1024, _FITTED_VALUES // (2 * dimensions))
    if length > most:
        _log.info("PCA is fitted on %d of %d images, evenly spread", most, length)
    return sampled_rows(length, most)
