"""Eigenears as a codec: whitened PCA scores are its codes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from benchmarks.quality.scoring import CHANNELS
from benchmarks.quality.settings import Settings
from earteach.data.arrays import EarArray
from earteach.metrics.eigenears import Eigenears, fit


class EigenearCodec:
    """PCA of images and their mirrors, with codes of unit variance over the training images."""

    def __init__(self, fitted: Eigenears, size: int) -> None:
        self._mean = torch.from_numpy(fitted.mean)
        self._components = torch.from_numpy(fitted.components)
        self._deviations = torch.from_numpy(fitted.variances).clamp(min=1e-12).sqrt()
        self._shape = (CHANNELS, size, size)
        self.count = fitted.count
        self.fitted = fitted.mean.size + fitted.components.size + fitted.variances.size

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores `(B, count)`, and zeros: it has no posterior."""
        codes = (x.flatten(1) - self._mean) @ self._components.T / self._deviations
        return codes, torch.zeros_like(codes)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Images, clipped to [0, 1]."""
        flat = z * self._deviations @ self._components + self._mean
        return flat.clamp(0, 1).reshape(-1, *self._shape)


@dataclass(frozen=True)
class Fitted:
    """The codec and how long its fit took."""

    codec: EigenearCodec
    seconds: float


def fit_eigenears(settings: Settings) -> Fitted:
    """PCA of the training images with latent_dim components, never from a cache."""
    began = time.monotonic()
    array = EarArray.open(settings.train)
    size = settings.image_size
    found = fit(array, components=settings.latent_dim, size=size, channels=CHANNELS)
    return Fitted(EigenearCodec(found, size), time.monotonic() - began)
