"""The yardsticks: the mean training image, and PCA of the training images ("eigenears").

A network that reconstructs unseen ears no better than PCA with as many components as it has latent
numbers has learned nothing that a linear map does not know. As mirrored ears are ears, PCA is fitted
on the images and their mirrors.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA

from earteach.data.arrays import EarArray
from earteach.data.batches import image_batches
from earteach.metrics.quality import psnr, ssim

_EXACT_BYTES = 2**26
_ITERATIONS = 6
_SPARE = 64
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
        "version": 3,
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

    Where all of them take at most 64 MB the fit is scikit-learn's. Else it is by subspace iteration
    over an array that is read piece by piece, in bounded memory, where scikit-learn's IncrementalPCA
    takes many times as long; and on an evenly spread sample where that would take hours.
    """
    dimensions = channels * size * size
    rows = _fitted_rows(len(array), dimensions)
    count = min(components, max(1, len(rows) - 1), dimensions)
    ears = _FlattenedEars(array, rows, size, channels)
    if ears.shape[0] * dimensions * 4 <= _EXACT_BYTES:
        pca = PCA(n_components=count, svd_solver="full").fit(ears.whole())
        mean, axes, variances = pca.mean_, pca.components_, pca.explained_variance_
    else:
        axes, variances = _leading_axes(ears, count)
        mean = ears.mean
    return Eigenears(
        mean=mean.astype(np.float32),
        components=axes.astype(np.float32),
        variances=variances.astype(np.float32),
        images=len(rows),
    )


def _leading_axes(ears: _FlattenedEars, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal axes, orthonormal `(count, D)`, and their variances.

    Randomized subspace iteration, Halko et al. 2011 (https://doi.org/10.1137/090771806), algorithm 4.4.
    """
    width = min(count + _SPARE, *ears.shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(ears.shape[1], width, generator=generator)
    for _ in range(_ITERATIONS):
        basis, _ = torch.linalg.qr(ears.scatter(basis))
    values, rotation = torch.linalg.eigh(basis.T @ ears.scatter(basis))
    leading = values.argsort(descending=True)[:count]
    axes = (basis @ rotation[:, leading]).T
    return axes.numpy(), (values[leading] / (ears.shape[0] - 1)).numpy()


class _FlattenedEars:
    """The centred matrix of flattened images and their mirrors, `(2 · images, D)`, never held whole."""

    def __init__(self, array: EarArray, rows: np.ndarray, size: int, channels: int) -> None:
        self._array, self._rows, self._size, self._channels = array, rows, size, channels
        self.shape = (2 * len(rows), channels * size * size)
        total = np.zeros(self.shape[1], np.float64)
        for piece in self._pieces():
            total += piece.sum(dim=0, dtype=torch.float64).numpy()
        self.mean = (total / self.shape[0]).astype(np.float32)

    def whole(self) -> np.ndarray:
        """The matrix itself, not centred, for when it is small."""
        return np.concatenate([piece.numpy() for piece in self._pieces()])

    def scatter(self, right: torch.Tensor) -> torch.Tensor:
        """The scatter matrix (the covariance times rows − 1) times `right`, in one pass."""
        mean = torch.from_numpy(self.mean)
        shift = mean @ right
        total = torch.zeros_like(right)
        for piece in self._pieces():
            total += (piece - mean).T @ (piece @ right - shift)
        return total

    def _pieces(self) -> Iterator[torch.Tensor]:
        """Images, then their mirrors, a few hundred at a time, float32 `(rows, D)` in [0, 1]."""
        for batch in image_batches(
            self._array,
            size=self._size,
            channels=self._channels,
            batch_size=_PIECE,
            indices=self._rows.tolist(),
        ):
            yield torch.cat([batch.images, batch.images.flip(3)]).flatten(1)


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


def _cached(path: Path, about: dict[str, object]) -> Eigenears | None:
    try:
        # numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if json.loads(str(stored["about"])) != about:
                return None
            return Eigenears(
                stored["mean"], stored["components"], stored["variances"], int(stored["images"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
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
