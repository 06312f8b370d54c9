"""The codes of ears as a Gaussian mixture, from which new ones are drawn.

The codes of the training images are not spread as the prior is: they depend on each other, and fall
into groups. Full covariances of all of a code's numbers would have more parameters than there are
images. So codes are brought to axes in the order of what they do to the picture: on those that change
it most the components of the mixture have full covariances, on the others variances only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

_MIXED = 64
_COUNTS = (1, 2, 4, 8, 16)
# A component needs several times as many images as it has axes.
_IMAGES_PER_AXIS = 4
_STEPS = 50
_SMALLEST_VARIANCE = 1e-10
_FAINTEST = 1e-3


@dataclass(frozen=True)
class CodeMixture:
    """Codes of D numbers as a mixture of K Gaussians along R axes.

    A code is mean + t @ axes. Over all codes t has mean 0 and unit variance along each axis, and its
    numbers are uncorrelated. The axes come in the order of how much of the pictures' variance they
    explain. Within a component the first Q are correlated.
    """

    mean: np.ndarray  # float32 (D,)
    axes: np.ndarray  # float32 (R, D)
    shares: np.ndarray  # float32 (R,), of the variance of the pictures
    weights: np.ndarray  # float32 (K,)
    means: np.ndarray  # float32 (K, R)
    factors: np.ndarray  # float32 (K, Q, Q), lower Cholesky factors of the covariances
    deviations: np.ndarray  # float32 (K, R - Q), standard deviations along the other axes
    facing: np.ndarray  # float32 (), share of the codes whose side is positive; NaN without a side
    images: np.ndarray  # int64 (), fitted on

    @property
    def components(self) -> int:
        return len(self.weights)

    @property
    def sided(self) -> bool:
        """Whether the last number of a code is a side, 1 or −1."""
        return bool(np.isfinite(self.facing))

    def central(self) -> torch.Tensor:
        """The mean code `(D,)`, on the side of most ears."""
        code = torch.from_numpy(self.mean).clone()
        if self.sided:
            code[-1] = 1.0 if self.facing >= 0.5 else -1.0
        return code

    def draw(self, number: int, seed: int) -> torch.Tensor:
        """New codes, float32 `(number, D)`; fewer are the first of more."""
        return torch.stack(list(islice(self.codes(seed), number)))

    def codes(self, seed: int) -> Iterator[torch.Tensor]:
        """New codes, float32 `(D,)`, one after the other without end."""
        generator = torch.Generator().manual_seed(seed)
        bounds = torch.from_numpy(self.weights).double().cumsum(0)[:-1]
        means, factors = torch.from_numpy(self.means), torch.from_numpy(self.factors)
        mean, axes = torch.from_numpy(self.mean), torch.from_numpy(self.axes)
        deviations, mixed = torch.from_numpy(self.deviations), self.factors.shape[1]
        while True:
            component, side = torch.rand(2, generator=generator, dtype=torch.float64)
            noise = torch.randn(len(axes), generator=generator)
            chosen = int((component > bounds).sum())
            apart = [factors[chosen] @ noise[:mixed], deviations[chosen] * noise[mixed:]]
            code = mean + (means[chosen] + torch.cat(apart)) @ axes
            if self.sided:
                code[-1] = 1.0 if side < float(self.facing) else -1.0
            yield code


def fit_mixture(codes: np.ndarray, pictures: np.ndarray, *, sided: bool) -> CodeMixture:
    """Fit on the codes `(N, D)` of N images and the images, small and flattened, `(N, P)`.

    `sided`: the last number of a code is the side of its ear, 1 or −1; then the pictures must be
    turned to one side. The number of components is 1, 2, 4, 8 or 16, doubled for as long as Akaike's
    information criterion falls and there are enough images for each.
    """
    codes, pictures = codes.astype(np.float64), pictures.astype(np.float64)
    facing = float((codes[:, -1] > 0).mean()) if sided else np.nan
    if sided:
        codes = np.concatenate([codes[:, :-1], np.zeros((len(codes), 1))], axis=1)
    mean = codes.mean(axis=0)
    axes, back, strengths, shares = _picture_axes(codes - mean, pictures - pictures.mean(axis=0))
    places = (codes - mean) @ back
    mixed = min(len(axes), _MIXED, max(1, len(codes) // 16))
    found = _components(places, mixed, strengths)
    return CodeMixture(
        mean=mean.astype(np.float32),
        axes=axes.astype(np.float32),
        shares=shares.astype(np.float32),
        weights=found[0].astype(np.float32),
        means=found[1].astype(np.float32),
        factors=found[2].astype(np.float32),
        deviations=found[3].astype(np.float32),
        facing=np.array(facing, np.float32),
        images=np.array(len(codes)),
    )


def _picture_axes(
    codes: np.ndarray, pictures: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Uncorrelated axes of centred codes, ordered by their effect on centred pictures.

    The codes are whitened, and the pictures regressed on them; the singular vectors of that map are
    the axes (reduced-rank regression, Izenman 1975, https://doi.org/10.1016/0047-259X(75)90042-1).
    Gives the axes `(R, D)` of one standard deviation each, the matrix `(D, R)` that leads from codes
    to places along them, the strength of each in the pictures `(R,)`, and its share of their variance.
    """
    variances, vectors = np.linalg.eigh(codes.T @ codes / len(codes))
    kept = variances > max(_SMALLEST_VARIANCE, _SMALLEST_VARIANCE * variances[-1])
    deviations, vectors = np.sqrt(variances[kept]), vectors[:, kept]
    white = codes @ (vectors / deviations)
    rotation, strengths, _ = np.linalg.svd(white.T @ pictures / len(codes), full_matrices=True)
    strengths = np.pad(strengths, (0, max(0, len(rotation) - len(strengths))))[: len(rotation)]
    axes = rotation.T @ (vectors * deviations).T
    # The sign of a singular vector is arbitrary: the largest number of an axis is positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    in_all = max(float(pictures.var(axis=0).sum()), 1e-30)
    back = (vectors / deviations) @ rotation * signs.T
    return axes * signs, back, strengths, strengths**2 / in_all


def _components(
    places: np.ndarray, mixed: int, strengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means, Cholesky factors and deviations of a mixture of places `(N, R)` along the axes.

    It is fitted to the first `mixed` axes; the others follow the images into their components.
    """
    if mixed == 0:
        return np.ones(1), np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0))
    # k-means, with which the fit begins, shall group the ears by what is seen most.
    scales = np.maximum(strengths[:mixed], max(_FAINTEST * strengths[0], 1e-30))
    scales = scales / scales[0]
    mixture = _best_mixture(places[:, :mixed] * scales, 1e-4 * scales[-1] ** 2)
    shares = mixture.predict_proba(places[:, :mixed] * scales)
    # Of repeated images a component may get none.
    shares = shares / np.maximum(shares.sum(axis=0), 1e-12)
    others = places[:, mixed:]
    means = shares.T @ others
    variances = (shares.T @ others**2 - means**2).clip(min=1e-6)
    factors = np.linalg.cholesky(mixture.covariances_) / scales[:, None]
    means = np.concatenate([mixture.means_ / scales, means], axis=1)
    return mixture.weights_, means, factors, np.sqrt(variances)


def _best_mixture(places: np.ndarray, least_variance: float) -> Any:
    """The mixture with the least Akaike information criterion (1974), of those with enough images.

    Choosing by it is asymptotically the same as by leave-one-out cross-validation (Stone 1977); the
    Bayesian criterion takes fewer components, whose ears were farther from real ones.
    """
    # scikit-learn takes a second to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    most = max(1, len(places) // (_IMAGES_PER_AXIS * places.shape[1]))
    best, least = None, np.inf
    for count in (count for count in _COUNTS if count <= most):
        mixture = GaussianMixture(count, reg_covar=least_variance, max_iter=_STEPS, random_state=0)
        with warnings.catch_warnings():
            # What a few more steps would gain is not seen in the pictures.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(places)
        criterion = mixture.aic(places)
        if criterion >= least:
            break
        best, least = mixture, criterion
    return best
