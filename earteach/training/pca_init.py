"""The network's beginning: eigenears of ears that all look to one side, for `--pca-init`.

Nobody says which side an ear is from, so the sides are found first: ears are turned about until PCA
of them all explains most, as k-means moves points between its centres.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from earteach.config import ModelConfig
from earteach.data.arrays import EarArray, sampled_rows
from earteach.metrics.npz_cache import load_npz, store_npz
from earteach.metrics.streaming_pca import streaming_pca
from earteach.model.blocks import code_grid
from earteach.model.canonical_side import mirrored
from earteach.model.pca_path import PCAPath, PCAWeights, shrink_factor
from earteach.model.pca_vae import PCAVAE

_MOST_EARS = 2**14
_PIECE = 256
# Sides are found on few and small ears, with components that grow in number from step to step: the
# first ones tell the sides apart, all of them together would fit either side of an ear.
_SIDED_EARS, _SIDED_SIZE, _STEPS, _FIRST, _MORE = 2**12, 32, 12, 16, 8
# A deviation below which an image is not brought to full contrast.
_FAINTEST = 0.02
_DRAWN_CODES, _CODES_PER_NUMBER = 4096, 16
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
    """The weights of a `PCAPath`, fitted on at most 16,384 evenly spread images of the array.

    The fit is found beside the array, where one was kept, and kept there unless `keep` is False.
    """
    size, channels, latent_dim = model.image_size, model.in_channels, model.latent_dim
    about = {"fingerprint": array.fingerprint(), "size": size, "channels": channels}
    about |= {"latent_dim": latent_dim, "version": 2}
    kept = array.path.with_name(f"{array.path.stem}.pca-init-{latent_dim}-{size}px-{channels}c.npz")
    if (found := load_npz(kept, about)) is not None:
        return PCAWeights(**{name: torch.from_numpy(value) for name, value in found.items()})
    _log.info("fitting the first weights: PCA of %s, all ears turned to one side", array.path)
    ears = _read(array, size // shrink_factor(size), channels)
    weights = fit(ears, latent_dim=latent_dim, grid=code_grid(latent_dim, size))
    if keep:
        store_npz(kept, about, **{name: value.numpy() for name, value in vars(weights).items()})
    return weights


def fit(ears: torch.Tensor, *, latent_dim: int, grid: int) -> PCAWeights:
    """The weights for uint8 images `(N, C, L, L)`."""
    faces = sides(ears)
    count = latent_dim - 1

    def pieces() -> Iterator[torch.Tensor]:
        for start in range(0, len(ears), _PIECE):
            some = slice(start, start + _PIECE)
            yield (mirrored(ears[some], ~faces[some]).float() / 255).flatten(1)

    found = streaming_pca(pieces, max(0, min(count, len(ears) - 1)))
    missing = count - len(found.axes)
    components = functional.pad(found.axes, (0, 0, 0, missing))
    variances = functional.pad(found.variances.clamp(min=1e-8), (0, missing), value=1.0)
    rotation = _towards_grid(components * variances.sqrt()[:, None], ears.shape[1:], grid)
    return PCAWeights(found.mean, components, variances, rotation)


def sides(ears: torch.Tensor) -> torch.Tensor:
    """Which of the images `(N, C, L, L)`, uint8, look to the side of most of them, bool `(N,)`.

    Two guesses are improved in turns, that all ears look to one side and that they differ as the
    strongest asymmetry does. The one whose ears PCA explains better is improved once more, in colour.
    """
    few = _small(ears[torch.from_numpy(sampled_rows(len(ears), _SIDED_EARS))])
    shapes = _shapes(few)
    uneven = (shapes - mirrored(shapes)).flatten(1)
    strongest = streaming_pca(lambda: iter([torch.cat([uneven, -uneven])]), 1).axes[0]
    guesses = (torch.ones(len(few), dtype=torch.bool), uneven @ strongest > 0)
    likeliest = min((_settled(shapes, guess) for guess in guesses), key=lambda found: found.missed)
    found = _settled(few, likeliest.faces(shapes))
    faces = torch.cat([found.faces(_small(some)) for some in torch.split(ears, _PIECE)])
    return faces if faces.float().mean() >= 0.5 else ~faces


@dataclass(frozen=True)
class _OneSide:
    """PCA of ears that were turned to one side; `missed` is what it leaves of them."""

    mean: torch.Tensor
    axes: torch.Tensor  # (D, K)
    missed: float

    def faces(self, images: torch.Tensor) -> torch.Tensor:
        return self.leaves(images) <= self.leaves(mirrored(images))

    def leaves(self, images: torch.Tensor) -> torch.Tensor:
        centred = images.flatten(1) - self.mean
        return centred.square().sum(dim=1) - (centred @ self.axes).square().sum(dim=1)


def _settled(images: torch.Tensor, faces: torch.Tensor) -> _OneSide:
    """Turn ears and fit PCA by turns, from a first guess."""
    generator = torch.Generator().manual_seed(0)
    most = min(_FIRST + _MORE * _STEPS, len(images) // 4)
    basis = torch.randn(images[0].numel(), most, generator=generator)
    for step in range(_STEPS):
        oriented = mirrored(images, ~faces).flatten(1)
        mean = oriented.mean(dim=0)
        centred = oriented - mean
        for _ in range(2):
            basis, _ = torch.linalg.qr(centred.T @ (centred @ basis))
        _, rotation = torch.linalg.eigh((centred @ basis).T @ (centred @ basis))
        basis = basis @ rotation.flip(1)
        side = _OneSide(mean, basis[:, : _FIRST + _MORE * step], 0.0)
        faces = side.faces(images)
    missed = torch.minimum(side.leaves(images), side.leaves(mirrored(images))).sum()
    return _OneSide(side.mean, side.axes, float(missed))


def _small(ears: torch.Tensor) -> torch.Tensor:
    """In [0, 1], at most 32 pixels a side."""
    side = min(_SIDED_SIZE, ears.shape[2])
    return functional.interpolate(ears.float() / 255, size=(side, side), mode="area")


def _shapes(images: torch.Tensor) -> torch.Tensor:
    """Gray, with mean 0 and deviation 1, `(N, 1, s, s)`.

    In colour, and as bright as they are, ears would first be sorted by skin and light.
    """
    gray = images.mean(dim=1, keepdim=True)
    centred = gray - gray.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.std(dim=(2, 3), keepdim=True) + _FAINTEST)


def _towards_grid(loadings: torch.Tensor, shape: torch.Size, grid: int) -> torch.Tensor:
    """The rotation `(K, K)` that brings whitened codes nearest to a grid of local details.

    `loadings` `(K, D)` make images of the shape from whitened codes. The details are PCA of each
    cell of the images that random codes make.
    """
    generator = torch.Generator().manual_seed(0)
    count = min(_DRAWN_CODES, _CODES_PER_NUMBER * (len(loadings) + 1))
    codes = torch.randn(count, len(loadings), generator=generator)
    images = functional.adaptive_avg_pool2d((codes @ loadings).reshape(-1, *shape), grid * _CELL)
    cells = functional.unfold(images, _CELL, stride=_CELL).transpose(1, 2)  # (N, grid², C · 16²)
    depth = (len(loadings) + 1) // grid**2
    found = streaming_pca(lambda: iter(torch.split(cells.flatten(0, 1), _CELLS)), depth)
    details = (cells - found.mean) @ (
        found.axes / found.variances.clamp(min=1e-8).sqrt()[:, None]
    ).T
    details = functional.pad(details, (0, depth - len(found.axes)))
    # A code's numbers are ordered by channel, then by place; the side has the last one's place.
    target = details.transpose(1, 2).flatten(1)[:, : len(loadings)]
    left, _, right = torch.linalg.svd(codes.T @ target)
    return left @ right


def _read(array: EarArray, size: int, channels: int) -> torch.Tensor:
    rows = sampled_rows(len(array), _MOST_EARS)
    ears = torch.empty(len(rows), channels, size, size, dtype=torch.uint8)
    for place, row in enumerate(rows):
        image = array.image(int(row), size=size, channels=channels)
        ears[place] = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return ears
