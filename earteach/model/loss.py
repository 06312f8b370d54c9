"""The loss: a list of named, weighted terms.

    loss = mse + weight · KLD / latent_dim     (reduction "mean", per dimension as the mse is per pixel)
    loss = mse + weight · KLD                  (reduction "sum")

With D = pixels · channels, mse + w · KLD is, up to a constant factor, the negative ELBO of a Gaussian
likelihood of variance s² with β = w · D / 2 at s² = 1 (Higgins et al. 2017,
https://openreview.net/forum?id=Sy2fzU9gl). Training also lowers 1 − SSIM, which `loss` leaves out, so
that it compares between runs with different weights of it.

To add a term, add it to the list that `vae_terms` returns: its mean, its share of the whole and its
curves follow from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, NamedTuple, TypeVar

import torch

from earteach.config import Reduction

# The window and the constants of SSIM, for a data range of 1.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class LossTerm(Generic[Batch]):
    """One term: training lowers `weight` times `value_of` a batch, a mean over its images.

    What is logged of the value's mean v is a · v + b under `logged_as`, with (a, b) = `logged_scale`.
    """

    name: str
    value_of: Callable[[Batch], torch.Tensor]
    weight: float = 1.0
    in_loss: bool = True  # whether the `loss` that is reported includes it
    logged_as: str = ""
    logged_scale: tuple[float, float] = (1.0, 0.0)

    def logged(self, mean: float) -> dict[str, float]:
        """The name and value to log for a mean over batches."""
        scale, offset = self.logged_scale
        return {self.logged_as or self.name: scale * mean + offset}


def objective(terms: Sequence[LossTerm[Batch]], values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What training descends: the weighted sum of the terms' values."""
    return torch.stack([term.weight * values[term.name] for term in terms]).sum()


class VAEBatch(NamedTuple):
    """What the terms of a VAE are computed from."""

    reconstruction: torch.Tensor  # (B, C, S, S)
    target: torch.Tensor  # (B, C, S, S)
    mu: torch.Tensor  # (B, D)
    logvar: torch.Tensor  # (B, D)


def vae_terms(
    kld_weight: float, reduction: Reduction, latent_dim: int, ssim_weight: float
) -> list[LossTerm[VAEBatch]]:
    """Reconstruction, KLD with its weight of the moment, and 1 − SSIM unless its weight is 0."""
    per = latent_dim if reduction == "mean" else 1
    terms = [
        LossTerm[VAEBatch](
            "recon",
            lambda batch: squared_error(batch.reconstruction, batch.target).mean(),
            logged_as="recon_loss",
        ),
        LossTerm[VAEBatch](
            "kld",
            lambda batch: kl_divergence(batch.mu, batch.logvar).sum(dim=1).mean() / per,
            weight=kld_weight,
            logged_scale=(per, 0.0),
        ),
        LossTerm[VAEBatch](
            "ssim",
            lambda batch: dissimilarity(batch.reconstruction, batch.target).mean(),
            weight=ssim_weight,
            in_loss=False,
            logged_scale=(-1.0, 1.0),
        ),
    ]
    return [term for term in terms if term.in_loss or term.weight]


def image_losses(
    reconstruction: torch.Tensor, target: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction loss and KLD (nats) of each image, `(B,)` each."""
    return squared_error(reconstruction, target), kl_divergence(mu, logvar).sum(dim=1)


def total_loss(
    recon: torch.Tensor, kld: torch.Tensor, weight: float, reduction: Reduction, latent_dim: int
) -> torch.Tensor:
    """The `loss` of each image or batch, elementwise; `kld` is in nats."""
    return recon + weight * (kld / latent_dim if reduction == "mean" else kld)


def squared_error(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image over pixels and channels, float32 `(B,)`."""
    return (reconstruction.float() - target.float()).square().mean(dim=(1, 2, 3))


def kl_divergence(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KLD in nats of each dimension from the standard normal, float32, the shape of `mu`.

    −½ (1 + logvar − mu² − exp(logvar)), computed outside autocast.
    """
    with torch.autocast(mu.device.type, enabled=False):
        mu, logvar = mu.float(), logvar.float()
        return -0.5 * (1 + logvar - mu.square() - logvar.exp())


def dissimilarity(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 − SSIM of each image, float32 `(B,)`, over the windows that lie wholly inside it.

    Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861), 11×11 Gaussian windows of σ 1.5. The
    windows are two products with banded matrices, several times as fast as convolutions here.
    """
    with torch.autocast(target.device.type, enabled=False):
        x, y = reconstruction.float(), target.float()
        rows, columns = (_bands(side).to(x.device) for side in x.shape[2:])
        windows = rows @ torch.stack([x, y, x * x, y * y, x * y]) @ columns.T
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = windows
        both = mean_x * mean_y
        squares = mean_x.square() + mean_y.square()
        structure = (2 * (mean_xy - both) + _C2) / (mean_xx + mean_yy - squares + _C2)
        similarity = (2 * both + _C1) / (squares + _C1) * structure
        return 1 - similarity.mean(dim=(1, 2, 3))


@cache
def _bands(side: int) -> torch.Tensor:
    """The matrix `(side − 10, side)` that takes Gaussian windows of a line of pixels."""
    offsets = torch.arange(_WINDOW) - _WINDOW // 2
    window = torch.exp(-((offsets / _SIGMA) ** 2) / 2)
    # Made once for evaluation and training alike; gradients do not pass an inference tensor.
    with torch.inference_mode(False):
        bands = torch.zeros(side - _WINDOW + 1, side)
        for start, row in enumerate(bands):
            row[start : start + _WINDOW] = window / window.sum()
    return bands


def elbo_beta(weight: float, reduction: Reduction, latent_dim: int, dimensions: int) -> float:
    """The weight as the β of a β-VAE with unit variance: weight · D / 2, per dimension for "mean"."""
    beta = weight * dimensions / 2
    return beta / latent_dim if reduction == "mean" else beta
