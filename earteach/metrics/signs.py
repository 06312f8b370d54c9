"""What is known of a run, and what the weight of its KLD will do to a linear network.

The yardstick for the weight of the KLD is probabilistic PCA (Tipping and Bishop 1999; Lucas et al. 2019,
https://arxiv.org/abs/1911.02469). With D = pixels · channels, w the weight on the summed KLD and
β = w · D / 2 (`model.loss.elbo_beta`), the least loss mse + w · KLD of a linear network is where

    a dimension is kept only if the variance λ that it explains, summed over pixels, exceeds β;
    a kept one has a KLD of ½ ln(λ / β) nats, and its mu has variance 1 − β / λ;
    its noise costs β / D of mean squared error.

A deep network is not linear, but it drops and keeps dimensions by the same balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from earteach.config import TrainConfig
from earteach.metrics.latent import ACTIVE_VARIANCE
from earteach.model.annealing import final_kld_weight, kld_weight
from earteach.model.loss import elbo_beta

# A younger run has hardly begun, and every sign is of its beginning.
FEWEST_EPOCHS, FEWEST_STEPS = 5, 100
# The variance of a code over fewer images is chance.
FEWEST_IMAGES = 5
# Eigenvalues of ear photographs fall as rank^−1.7: from the 16th of 64 photographs of 64 px, the 256th
# of 11,800 was foretold to within 30 %.
SPECTRUM_DECAY = 1.7


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to; the reconstruction losses are mean squared errors.

    `clean_recon` is that of a few training images without augmentation, at the epoch's end.
    """

    train_recon: float
    clean_recon: float
    val_recon: float
    val_loss: float
    learning_rate: float


@dataclass(frozen=True)
class Signs:
    """What is known of a run; None or empty where it is not.

    `kld_per_dimension` (nats), `variance` (of mu) and `recon_loss` are of so many validation `images`.
    `mean_image_error` is the mean squared error of the mean training image. `eigenvalues` are the first
    ones, as many as are known well, of PCA of the training images in [0, 1], summed over pixels.
    `side_dimension` is one whose code is fixed, so that it says nothing about the weight.
    """

    config: TrainConfig
    epochs: int = 0
    steps: int = 0
    finished: bool = False
    history: tuple[Epoch, ...] = ()
    images: int = 0
    kld_per_dimension: tuple[float, ...] = ()
    variance: tuple[float, ...] = ()
    recon_loss: float | None = None
    mean_image_error: float | None = None
    eigenvalues: tuple[float, ...] = ()
    side_dimension: int | None = None

    @property
    def dimensions(self) -> int:
        """Pixels times channels."""
        return self.config.model.in_channels * self.config.model.image_size**2

    @property
    def latent_dim(self) -> int:
        """The latent dimensions that are judged."""
        return self.config.model.latent_dim - (self.side_dimension is not None)

    def with_side(self, dimensions: int) -> int:
        """The `latent_dim` that has so many judged dimensions."""
        return dimensions + (self.side_dimension is not None)

    @property
    def klds(self) -> list[float]:
        return self._judged(self.kld_per_dimension)

    @property
    def variances(self) -> list[float]:
        return self._judged(self.variance)

    def _judged(self, values: Sequence[float]) -> list[float]:
        return [value for place, value in enumerate(values) if place != self.side_dimension]

    @property
    def active_units(self) -> int:
        return sum(value > ACTIVE_VARIANCE for value in self.variances)

    @property
    def codes_are_known(self) -> bool:
        """Whether codes of a few images were measured in a run that is old enough to be judged."""
        old = self.epochs >= FEWEST_EPOCHS and self.steps >= FEWEST_STEPS
        measured = bool(self.variance and self.kld_per_dimension and self.recon_loss)
        return old and measured and self.images >= FEWEST_IMAGES

    @property
    def annealed(self) -> float:
        """The current weight of the KLD as a share of the final one."""
        kld, final = self.config.kld, final_kld_weight(self.config.kld)
        current = kld_weight(max(0, self.epochs - 1), self.config.optim.epochs, kld)
        return current / final if final else 1.0

    @property
    def beta(self) -> float:
        """The final weight in ELBO units."""
        return self._beta_of(final_kld_weight(self.config.kld))

    @property
    def way(self) -> float:
        """The learning rates of all steps together."""
        return fmean(epoch.learning_rate for epoch in self.history) * self.steps

    @property
    def noise(self) -> float:
        """The mean squared error that the noise of the codes costs at the final weight."""
        return self.latent_dim * self.beta / self.dimensions

    def eigenvalue(self, rank: int) -> float:
        """The variance that a linear dimension of this rank (from 1) explains, summed over pixels."""
        known = min(rank, len(self.eigenvalues))
        return self.eigenvalues[known - 1] * (known / rank) ** SPECTRUM_DECAY

    @property
    def kept(self) -> int:
        """The dimensions that a linear network keeps at the final weight."""
        ranks = range(1, self.latent_dim + 1)
        return sum(self.eigenvalue(rank) > self.beta for rank in ranks)

    def weight_of(self, beta: float) -> float:
        """The `kld_weight` that ends in this β, to two digits."""
        share = self.config.kld.kld_anneal_end or 1.0
        return rounded(beta / self._beta_of(share))

    def _beta_of(self, weight: float) -> float:
        reduction, latent_dim = self.config.kld.kld_reduction, self.config.model.latent_dim
        return elbo_beta(weight, reduction, latent_dim, self.dimensions)


def rounded(value: float) -> float:
    """To two digits, as options are typed."""
    return float(f"{value:.2g}")
