"""The loss: reconstruction as mean squared error, and the weighted KLD.

    total = mse + weight · KLD / latent_dim     (reduction "mean", per dimension as the mse is per pixel)
    total = mse + weight · KLD                  (reduction "sum")

With D = pixels · channels, mse + w · KLD is, up to a constant factor, the negative ELBO of a Gaussian
likelihood of variance s² with β = w · D / 2 at s² = 1 (Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl).

Training also descends a weighted `dissimilarity`, which is kept apart: the loss stays comparable
between runs with whatever weight of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from earteach.config import Reduction

# The window and the constants of SSIM, for a data range of 1.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch: the total, its reconstruction part and the KLD in nats."""

    total: torch.Tensor
    recon: torch.Tensor
    kld: torch.Tensor


def kl_divergence(mu: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KLD in nats of each dimension from the standard normal, float32, the shape of `mu`.

    −½ (1 + logvar − mu² − exp(logvar)), computed outside autocast.
    """
    with torch.autocast(mu.device.type, enabled=False):
        mu, logvar = mu.float(), logvar.float()
        return -0.5 * (1 + logvar - mu.square() - logvar.exp())


def squared_error(reconstruction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image over pixels and channels, float32 `(B,)`."""
    return (reconstruction.float() - target.float()).square().mean(dim=(1, 2, 3))


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
        for place, row in enumerate(bands):
            row[place : place + _WINDOW] = window / window.sum()
    return bands


def image_losses(
    reconstruction: torch.Tensor, target: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruction loss and KLD of each image, `(B,)` each."""
    return squared_error(reconstruction, target), kl_divergence(mu, logvar).sum(dim=1)


def total_loss(
    recon: torch.Tensor, kld: torch.Tensor, weight: float, reduction: Reduction, latent_dim: int
) -> torch.Tensor:
    """The loss of the given terms, elementwise; `kld` is in nats."""
    return recon + weight * (kld / latent_dim if reduction == "mean" else kld)


def vae_loss(
    reconstruction: torch.Tensor,
    target: torch.Tensor,
    mu: torch.Tensor,
    logvar: torch.Tensor,
    *,
    weight: float,
    reduction: Reduction,
) -> LossTerms:
    """The batch's loss and its terms, each a mean over the batch."""
    recon, kld = image_losses(reconstruction, target, mu, logvar)
    recon, kld = recon.mean(), kld.mean()
    return LossTerms(total_loss(recon, kld, weight, reduction, mu.shape[1]), recon, kld)


def elbo_beta(weight: float, reduction: Reduction, latent_dim: int, dimensions: int) -> float:
    """The weight as the β of a β-VAE with unit variance: weight · D / 2, per dimension for "mean"."""
    beta = weight * dimensions / 2
    return beta / latent_dim if reduction == "mean" else beta
