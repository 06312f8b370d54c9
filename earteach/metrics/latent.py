"""How much of the latent code a network uses."""

from __future__ import annotations

from collections.abc import Callable

import torch

from earteach.model.loss import kl_divergence

ACTIVE_VARIANCE = 0.01


class LatentStatistics:
    """Mean and variance of mu and the KLD of each dimension, accumulated by batch in float64."""

    def __init__(self, latent_dim: int) -> None:
        # Rows: mu, its square, the KLD, and the number of images.
        self._sums = torch.zeros(4, latent_dim, dtype=torch.float64)

    def update(self, mu: torch.Tensor, logvar: torch.Tensor | None = None) -> None:
        """Add codes `(B, latent_dim)`; without `logvar` the KLD stays 0."""
        codes = mu.detach().double().cpu()
        self._sums[0] += codes.sum(dim=0)
        self._sums[1] += codes.square().sum(dim=0)
        if logvar is not None:
            self._sums[2] += kl_divergence(mu, logvar).detach().double().cpu().sum(dim=0)
        self._sums[3] += len(codes)

    def reduced(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> LatentStatistics:
        """The statistics over all devices; `reduce` sums a tensor over them."""
        total = LatentStatistics(self._sums.shape[1])
        total._sums = reduce(self._sums.clone()).cpu()
        return total

    def variance(self) -> torch.Tensor:
        """Variance of mu over the images, `(latent_dim,)`."""
        mean, squares, _, _ = self._means()
        return (squares - mean.square()).clamp(min=0)

    def kld_per_dimension(self) -> torch.Tensor:
        """Mean KLD over the images in nats, `(latent_dim,)`."""
        return self._means()[2]

    def active_units(self) -> int:
        """The number of dimensions with a variance of mu over 0.01.

        Burda et al. 2016, https://arxiv.org/abs/1509.00519.
        """
        return int((self.variance() > ACTIVE_VARIANCE).sum())

    def _means(self) -> torch.Tensor:
        return self._sums / self._sums[3].clamp(min=1)
