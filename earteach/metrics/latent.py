"""How much of the latent code is used."""

from __future__ import annotations

import torch

ACTIVE_VARIANCE = 0.01


class LatentStatistics:
    """Mean and variance of mu in each dimension, gathered batch by batch in float64."""

    def __init__(self, latent_dim: int) -> None:
        self._count = 0
        self._sum = torch.zeros(latent_dim, dtype=torch.float64)
        self._squares = torch.zeros(latent_dim, dtype=torch.float64)

    def update(self, mu: torch.Tensor) -> None:
        """Add the codes `(B, latent_dim)`."""
        codes = mu.detach().double().cpu()
        self._count += len(codes)
        self._sum += codes.sum(dim=0)
        self._squares += codes.square().sum(dim=0)

    def variance(self) -> torch.Tensor:
        """Variance of mu over the images seen, `(latent_dim,)`."""
        count = max(1, self._count)
        return (self._squares / count - (self._sum / count).square()).clamp(min=0)

    def active_units(self) -> int:
        """Dimensions whose mean varies: variance over 0.01 (Burda et al. 2016,
        https://arxiv.org/abs/1509.00519)."""
        return int((self.variance() > ACTIVE_VARIANCE).sum())
