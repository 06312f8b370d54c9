"""PCA of ears on one side ("eigenears"), from which a network starts with `--pca-init`.

The sides of the ears are not known, so they are found first: ears are mirrored until PCA explains most
of them, much as k-means moves points between its centres.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from earteach.config import ModelConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.hardware import at_most_cores
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.metrics.streaming_pca import streaming_pca
from earteach.model.blocks import code_grid
from earteach.model.canonical_side import mirrored
from earteach.model.pca_path import PCAPath, PCAWeights, shrink_factor
from earteach.model.pca_vae import PCAVAE

_MAX_EARS = 2**14
_BATCH = 256
# Sides are found on few, small ears, with components that grow in number from step to step: the first
# ones separate the sides, all of them together would fit either side.
_SIDE_EARS, _SIDE_SIZE, _STEPS, _FIRST_COMPONENTS, _MORE_COMPONENTS = 2**11, 32, 12, 16, 8
# The smallest standard deviation by which an image is normalised.
_MIN_STD = 0.02
_RANDOM_CODES, _CODES_PER_DIMENSION = 4096, 16
_CELL, _CELLS = 16, 2**12
_log = logging.getLogger(__name__)


def init_from_pca(network: PCAVAE, weights: PCAWeights, kld_weight: float) -> None:
    """Make the network PCA, and start its posterior at the width that suits each dimension.

    `kld_weight` w is the weight of the KLD summed over dimensions, beside the mean squared error.
    Where a unit of a code's variance costs g in squared error summed over the N values of an image,
    g s² / N + w (s² − log s²) / 2 is least at s² = w N / (2 g + w N).
    """
    network.pca.load_weights(weights)
    weight = kld_weight * network.in_channels * network.image_size**2
    gain = _noise_gain(network.pca).clamp(min=1e-9)
    best = torch.log((weight / (2 * gain + weight)).clamp(min=1e-4))
    # The side, last, has a logvar of its own, which replaces the encoder's.
    network.encoder.to_code.init_logvar(functional.pad(best, (0, 1)))


def _noise_gain(pca: PCAPath) -> torch.Tensor:
    """Squared error summed over pixels per unit of a code's variance, `(K,)`."""
    rows = pca.rotation.T * pca.variances.sqrt()
    return (rows @ pca.components).square().sum(dim=1) * pca.shrink**2


def first_weights(array: EarArray, model: ModelConfig, *, keep: bool = True) -> PCAWeights:
    """The weights of a `PCAPath`, fitted on up to 16,384 evenly spread images of the array.

    They are cached beside the array, unless `keep` is False.
    """
    size, channels, latent_dim = model.image_size, model.in_channels, model.latent_dim
    key = {"fingerprint": array.fingerprint(), "size": size, "channels": channels}
    key |= {"latent_dim": latent_dim, "version": 3}
    cache = array.cache(f"pca-init-{latent_dim}-{size}px-{channels}c")
    if (cached := load_npz(cache, key)) is not None:
        return PCAWeights(**{name: torch.from_numpy(value) for name, value in cached.items()})
    _log.info("initializing from PCA of %s, with all ears mirrored to one side", array.path)
    ears = _read(array, size // shrink_factor(size), channels)
    weights = fit(ears, latent_dim=latent_dim, grid=code_grid(latent_dim, size))
    if keep:
        store_npz(cache, key, **{name: value.numpy() for name, value in vars(weights).items()})
    return weights


def fit(ears: torch.Tensor, *, latent_dim: int, grid: int) -> PCAWeights:
    """The weights for uint8 images `(N, C, L, L)`."""
    is_canonical = find_sides(ears)
    count = latent_dim - 1

    def batches() -> Iterator[torch.Tensor]:
        for batch, side in zip(
            *(torch.split(x, _BATCH) for x in (ears, is_canonical)), strict=True
        ):
            yield (mirrored(batch, ~side).float() / 255).flatten(1)

    pca = streaming_pca(batches, max(0, min(count, len(ears) - 1)))
    missing = count - len(pca.axes)
    components = functional.pad(pca.axes, (0, 0, 0, missing))
    variances = functional.pad(pca.variances.clamp(min=1e-8), (0, missing), value=1.0)
    rotation = _rotation_to_grid(components * variances.sqrt()[:, None], ears.shape[1:], grid)
    return PCAWeights(pca.mean, components, variances, rotation)


def find_sides(ears: torch.Tensor) -> torch.Tensor:
    """Which of the images `(N, C, L, L)`, uint8, face the side that most of them face, bool `(N,)`.

    Two guesses are refined: that all ears face one side, and that they divide along their strongest
    asymmetry. The one under which PCA explains more is refined once more, in colour.
    """
    sample = _small(ears[torch.from_numpy(sampled_rows(len(ears), _SIDE_EARS))])
    shapes = _normalised(sample)
    asymmetry = (shapes - mirrored(shapes)).flatten(1)
    strongest = streaming_pca(lambda: iter([torch.cat([asymmetry, -asymmetry])]), 1).axes[0]
    guesses = (torch.ones(len(sample), dtype=torch.bool), asymmetry @ strongest > 0)
    best = min((_refined(shapes, guess) for guess in guesses), key=lambda side: side.error)
    side = _refined(sample, best.is_canonical(shapes))
    is_canonical = torch.cat(
        [side.is_canonical(_small(batch)) for batch in torch.split(ears, _BATCH)]
    )
    return is_canonical if is_canonical.float().mean() >= 0.5 else ~is_canonical


@dataclass(frozen=True)
class _OneSidedPCA:
    """PCA of ears mirrored to one side; `error` is the sum of its squared residuals on them."""

    mean: torch.Tensor
    axes: torch.Tensor  # (D, K)
    error: float = 0.0

    def is_canonical(self, images: torch.Tensor) -> torch.Tensor:
        return self.residual(images) <= self.residual(mirrored(images))

    def residual(self, images: torch.Tensor) -> torch.Tensor:
        centred = images.flatten(1) - self.mean
        return centred.square().sum(dim=1) - (centred @ self.axes).square().sum(dim=1)


def _refined(images: torch.Tensor, is_canonical: torch.Tensor) -> _OneSidedPCA:
    """Mirror ears and fit PCA in turn, from a first guess."""
    generator = torch.Generator().manual_seed(0)
    count = min(_FIRST_COMPONENTS + _MORE_COMPONENTS * _STEPS, len(images) // 4)
    basis = torch.randn(images[0].numel(), count, generator=generator)
    for step in range(_STEPS):
        oriented = mirrored(images, ~is_canonical).flatten(1)
        mean = oriented.mean(dim=0)
        centred = oriented - mean
        for _ in range(2):  # subspace iteration
            basis, _ = torch.linalg.qr(centred.T @ (centred @ basis))
        _, rotation = torch.linalg.eigh((centred @ basis).T @ (centred @ basis))
        basis = basis @ rotation.flip(1)
        pca = _OneSidedPCA(mean, basis[:, : _FIRST_COMPONENTS + _MORE_COMPONENTS * step])
        is_canonical = pca.is_canonical(images)
    error = torch.minimum(pca.residual(images), pca.residual(mirrored(images))).sum()
    return replace(pca, error=float(error))


def _small(ears: torch.Tensor) -> torch.Tensor:
    """In [0, 1], at most 32 pixels a side."""
    side = min(_SIDE_SIZE, ears.shape[2])
    return functional.interpolate(ears.float() / 255, size=(side, side), mode="area")


def _normalised(images: torch.Tensor) -> torch.Tensor:
    """Gray with mean 0 and deviation 1, `(N, 1, s, s)`, lest skin and light decide the side."""
    gray = images.mean(dim=1, keepdim=True)
    centred = gray - gray.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.std(dim=(2, 3), keepdim=True) + _MIN_STD)


def _rotation_to_grid(loadings: torch.Tensor, shape: torch.Size, grid: int) -> torch.Tensor:
    """The rotation `(K, K)` that brings whitened codes nearest to a grid of local details.

    `loadings` `(K, D)` turn whitened codes into images of the shape. The details are PCA of the cells
    of images from random codes.
    """
    generator = torch.Generator().manual_seed(0)
    count = min(_RANDOM_CODES, _CODES_PER_DIMENSION * (len(loadings) + 1))
    codes = torch.randn(count, len(loadings), generator=generator)
    images = functional.adaptive_avg_pool2d((codes @ loadings).reshape(-1, *shape), grid * _CELL)
    cells = functional.unfold(images, _CELL, stride=_CELL).transpose(1, 2)  # (N, grid², C · 16²)
    depth = (len(loadings) + 1) // grid**2
    pca = streaming_pca(lambda: iter(torch.split(cells.flatten(0, 1), _CELLS)), depth)
    axes = pca.axes / pca.variances.clamp(min=1e-8).sqrt()[:, None]
    details = functional.pad((cells - pca.mean) @ axes.T, (0, depth - len(axes)))
    # A code is ordered by channel, then by cell; the side takes the last one's place.
    target = details.transpose(1, 2).flatten(1)[:, : len(loadings)]
    left, _, right = torch.linalg.svd(codes.T @ target)
    return left @ right


def _read(array: EarArray, size: int, channels: int) -> torch.Tensor:
    array.read_in_random_order()
    rows = sampled_rows(len(array), _MAX_EARS)
    read = partial(array.image, size=size, channels=channels)
    ears = np.empty((len(rows), size, size, channels), np.uint8)
    with ThreadPoolExecutor(at_most_cores(len(rows))) as pool:  # resizing releases the GIL
        for index, image in enumerate(pool.map(read, rows.tolist())):
            ears[index] = image
    return torch.from_numpy(ears).permute(0, 3, 1, 2).contiguous()
