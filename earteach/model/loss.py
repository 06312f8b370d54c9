"""The loss: a list of named, weighted terms.

    loss = mse + weight · KLD / latent_dim     (reduction "mean", per dimension as the mse is per pixel)
    loss = mse + weight · KLD                  (reduction "sum")

With D = pixels · channels, mse + w · KLD is, up to a constant factor, the negative ELBO of a Gaussian
likelihood of variance s² with β = w · D / 2 at s² = 1 (Higgins et al. 2017,
https://openreview.net/forum?id=Sy2fzU9gl). Training also lowers 1 − SSIM and the teaching objective,
which `loss` leaves out, so that it compares between runs with different weights of them.

To add a term, add it to the list that `vae_terms` returns. Its mean, its part of `loss` in training,
validation and eval, and its TensorBoard curves follow from its name. Its weight is a field of
`config.OptimConfig`, with `vae_only=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, NamedTuple, TypeVar

import torch

from earteach.config import Reduction, TrainConfig
from earteach.model.correspondence import Matches, matching_loss
from earteach.model.landmark_head import LabelledHeat, heat_map_loss

# The window and the constants of SSIM, for a data range of 1.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
# Of the weight of the teaching objective: distances are fractions of a side, so they are small.
_LANDMARK_SHARE = 30.0

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class LossTerm(Generic[Batch]):
    """One term: training lowers weight / divisor times the mean of its values."""

    name: str
    # Of each image, (B,); those of the whole batch, (), cannot be `in_loss`.
    values_of: Callable[[Batch], torch.Tensor]
    weight: float = 1.0
    divisor: float = 1.0
    in_loss: bool = True  # whether the `loss` that is reported includes it
    scalar: str = ""  # the name under which its mean is logged, if not its own
    complement: bool = False  # whether 1 − mean is logged

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        return self.weight * (values / self.divisor)

    @property
    def logged_as(self) -> str:
        return self.scalar or self.name

    def logged(self, mean: float) -> float:
        return 1 - mean if self.complement else mean


Values = Mapping[str, torch.Tensor]  # those of each term, by its name


def objective(terms: Sequence[LossTerm[Batch]], values: Values) -> torch.Tensor:
    """What training descends: the weighted sum of the means of all terms."""
    return torch.stack([term.weighted(values[term.name].mean()) for term in terms]).sum()


def reported_loss(terms: Sequence[LossTerm[Batch]], values: Values) -> torch.Tensor:
    """The `loss` that is reported, of each image or of means, elementwise."""
    parts = [term.weighted(values[term.name]) for term in terms if term.in_loss]
    return torch.stack(parts).sum(dim=0)


class VAEBatch(NamedTuple):
    """What the terms of a VAE are computed from."""

    reconstruction: torch.Tensor  # (B, C, S, S)
    target: torch.Tensor  # (B, C, S, S)
    mu: torch.Tensor  # (B, D)
    logvar: torch.Tensor  # (B, D)
    matches: Matches | None = None  # in training with the teaching objective
    drawn: LabelledHeat | None = None  # as `matches`: of drawn ears


def vae_terms(config: TrainConfig, kld_weight: float) -> list[LossTerm[VAEBatch]]:
    """Reconstruction, KLD in nats with the given weight, and unless their weights are 0, 1 − SSIM and
    the two parts of the teaching objective: matches between views, and landmarks of drawn ears."""
    divisor = config.model.latent_dim if config.kld.kld_reduction == "mean" else 1
    terms: list[LossTerm[VAEBatch]] = [
        LossTerm(
            "recon",
            lambda batch: squared_error(batch.reconstruction, batch.target),
            scalar="recon_loss",
        ),
        LossTerm(
            "kld",
            lambda batch: kl_divergence(batch.mu, batch.logvar).sum(dim=1),
            weight=kld_weight,
            divisor=divisor,
        ),
        LossTerm(
            "ssim",
            lambda batch: dissimilarity(batch.reconstruction, batch.target),
            weight=config.optim.ssim_weight,
            in_loss=False,
            complement=True,
        ),
        LossTerm("teach", _taught, weight=config.optim.teach_weight, in_loss=False),
        LossTerm("landmarks", _found, weight=_landmark_weight(config), in_loss=False),
    ]
    return [term for term in terms if term.in_loss or term.weight]


def _landmark_weight(config: TrainConfig) -> float:
    return _LANDMARK_SHARE * config.optim.teach_weight if config.model.landmarks else 0.0


def _taught(batch: VAEBatch) -> torch.Tensor:
    assert batch.matches is not None
    return matching_loss(batch.matches)


def _found(batch: VAEBatch) -> torch.Tensor:
    assert batch.drawn is not None
    return heat_map_loss(batch.drawn)


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
