"""The yardsticks: the mean training image, and PCA of the training images ("eigenears").

A network that reconstructs unseen ears no better than PCA with as many components as it has latent
numbers has learned nothing that a linear map does not know. As mirrored ears are ears, PCA is fitted
on the images and their mirrors.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA, IncrementalPCA

from earteach.data.arrays import EarArray
from earteach.data.randomness import Purpose, derive
from earteach.metrics.quality import psnr, ssim

_EXACT_BYTES = 2**26
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

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Images `(B, C, H, W)` projected on the components, clipped to [0, 1]."""
        mean, components = torch.from_numpy(self.mean), torch.from_numpy(self.components)
        flat = images.flatten(1) - mean
        return (flat @ components.T @ components + mean).clamp(0, 1).reshape(images.shape)

    def mean_image(self, images: torch.Tensor) -> torch.Tensor:
        """The mean image, once for each of `images`."""
        return torch.from_numpy(self.mean).reshape(1, *images.shape[1:]).expand_as(images)


@dataclass(frozen=True)
class Scores:
    """(PSNR in dB, SSIM) of the mean image and of PCA, means over images."""

    mean_image: tuple[float, float]
    pca: tuple[float, float]


def eigenears(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """PCA of the array's images, from the cache beside it where it was fitted before."""
    about = {
        "fingerprint": array.fingerprint(),
        "components": components,
        "size": size,
        "channels": channels,
        "version": 1,
    }
    cache = array.path.with_name(
        f"{array.path.stem}.eigenears-{components}-{size}px-{channels}c.npz"
    )
    if (found := _cached(cache, about)) is not None:
        return found
    _log.info("fitting PCA on %s and the mirrored images", array.path)
    fitted = fit(array, components=components, size=size, channels=channels)
    _store(cache, fitted, about)
    return fitted


def fit(array: EarArray, *, components: int, size: int, channels: int) -> Eigenears:
    """Fit on the n images and their mirrors, with at most n − 1 components.

    Where all of them take at most 64 MB the fit is exact; else it is incremental (Ross et al. 2008,
    https://doi.org/10.1007/s11263-007-0075-7), and on an evenly spread sample where it would take
    hours.
    """
    dimensions = channels * size * size
    rows = _fitted_rows(len(array), dimensions)
    count = min(components, max(1, len(rows) - 1), dimensions)
    if 2 * len(rows) * dimensions * 4 <= _EXACT_BYTES:
        solver = "covariance_eigh" if dimensions < 2 * len(rows) else "full"
        pca = PCA(n_components=count, svd_solver=solver)
        pca.fit(np.concatenate(list(_chunks(array, rows, size, channels, len(rows)))))
    else:
        pca = IncrementalPCA(n_components=count)
        # Images and mirrors: each chunk has twice as many rows as this, and so enough components.
        for chunk in _chunks(array, rows, size, channels, max(512, count)):
            pca.partial_fit(chunk, check_input=False)
    return Eigenears(
        mean=pca.mean_.astype(np.float32),
        components=pca.components_.astype(np.float32),
        variances=pca.explained_variance_.astype(np.float32),
        images=len(rows),
    )


def measure(fitted: Eigenears, batches: Iterable[torch.Tensor]) -> Scores:
    """PSNR and SSIM of the mean image and of PCA on batches `(B, C, H, W)` in [0, 1]."""
    sums, count = torch.zeros(2, 2, dtype=torch.float64), 0
    for images in batches:
        for place, guess in enumerate((fitted.mean_image(images), fitted.reconstruct(images))):
            sums[place, 0] += psnr(guess, images).double().sum()
            sums[place, 1] += ssim(guess, images).double().sum()
        count += len(images)
    mean_image, pca = (sums / max(1, count)).tolist()
    return Scores(mean_image=tuple(mean_image), pca=tuple(pca))


def _fitted_rows(length: int, dimensions: int) -> np.ndarray:
    most = max(1024, _FITTED_VALUES // (2 * dimensions))
    if length <= most:
        return np.arange(length)
    _log.info("PCA is fitted on %d of %d images, evenly spread", most, length)
    return np.linspace(0, length - 1, most).round().astype(int)


def _chunks(
    array: EarArray, rows: np.ndarray, size: int, channels: int, images_per_chunk: int
) -> Iterator[np.ndarray]:
    """Flattened images and their mirrors, float32 `(2 · images, D)`, in a mixed order."""
    order = np.random.default_rng(derive(0, Purpose.ORDER)).permutation(rows)
    pieces = max(1, math.floor(len(order) / images_per_chunk))
    for piece in np.array_split(order, pieces):
        images = np.stack([array.image(int(i), size=size, channels=channels) for i in piece])
        both = np.concatenate([images, images[:, :, ::-1]]).transpose(0, 3, 1, 2)
        yield both.reshape(len(both), -1).astype(np.float32) / 255


def _cached(path: Path, about: dict[str, object]) -> Eigenears | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if json.loads(str(stored["about"])) != about:
                return None
            return Eigenears(
                stored["mean"], stored["components"], stored["variances"], int(stored["images"])
            )
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _store(path: Path, fitted: Eigenears, about: dict[str, object]) -> None:
    partial = path.with_suffix(".partial.npz")
    try:
        np.savez(
            partial, about=json.dumps(about), mean=fitted.mean, components=fitted.components,
            variances=fitted.variances, images=fitted.images,
        )  # fmt: skip
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        _log.info("PCA is not cached beside %s: %s", path.name, error.strerror)
