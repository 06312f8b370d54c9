"""The latent codes of ears as a Gaussian mixture, from which new codes are drawn.

The codes of training images do not follow the prior: their dimensions depend on each other, and they
form clusters. Codes are rotated to axes ordered by their effect on the images. The mixture is along the
first axes, as more would need more images. The others are details, which drawn one by one make ghosts:
edges that belong to no ear. They are taken from two training images that are like the ear that was
drawn, and mixed; not from the two most like it, which the new ears would be too near to.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_MAX_CORRELATED = 32
_COMPONENT_COUNTS = (1, 2, 4, 8, 16)
# A component needs several times as many images as it has axes.
_IMAGES_PER_AXIS = 4
_MAX_ITERATIONS = 50
_MIN_VARIANCE = 1e-10
_MIN_EFFECT = 1e-3
# A blend mixes an ear with one of the 16 that are most similar to it.
_BLENDED_WITH = 16


@dataclass(frozen=True)
class CodeMixture:
    """A mixture of K Gaussians along R axes of a D-dimensional latent space.

    A code is mean + t @ axes. Over all codes t has mean 0 and variance 1 along each axis, and the axes
    are uncorrelated. They are ordered by the share of the images' variance that they explain. The
    Gaussians are along the first Q, and `scores` are t of the N images, for the rest.
    """

    mean: np.ndarray  # float32 (D,)
    axes: np.ndarray  # float32 (R, D)
    shares: np.ndarray  # float32 (R,), of the images' variance
    weights: np.ndarray  # float32 (K,)
    means: np.ndarray  # float32 (K, Q)
    factors: np.ndarray  # float32 (K, Q, Q), lower Cholesky factors of the covariances
    scores: np.ndarray  # float16 (N, R)
    facing: np.ndarray  # float32 (), share of codes on the canonical side; NaN without sides

    @property
    def images(self) -> int:
        """The number of images that it was fitted to."""
        return len(self.scores)

    @property
    def components(self) -> int:
        return len(self.weights)

    @property
    def has_side(self) -> bool:
        """Whether the last dimension of a code is a side, 1 or −1."""
        return bool(np.isfinite(self.facing))

    def mean_code(self) -> torch.Tensor:
        """The mean code `(D,)`, on the side of most ears."""
        code = torch.from_numpy(self.mean).clone()
        if self.has_side:
            code[-1] = 1.0 if self.facing >= 0.5 else -1.0
        return code

    def codes(
        self, seed: int, temperature: float = 1.0, *, detail: float = 1.0
    ) -> Iterator[torch.Tensor]:
        """An endless stream of new codes, float32 `(D,)`.

        `temperature` multiplies their distances from the means of the Gaussians, and `detail` what they
        have along the other axes.
        """
        generator = torch.Generator().manual_seed(seed)
        bounds = torch.from_numpy(self.weights).double().cumsum(0)[:-1]
        means, factors = torch.from_numpy(self.means), torch.from_numpy(self.factors)
        mean, axes = torch.from_numpy(self.mean), torch.from_numpy(self.axes)
        scores, effects, visible = self._what_is_seen()
        correlated = len(effects)
        while True:
            u_component, u_side, u_detail = torch.rand(
                3, generator=generator, dtype=torch.float64
            ).tolist()
            noise = torch.randn(correlated, generator=generator)
            k = int((u_component > bounds).sum())
            drawn = means[k] + temperature * factors[k] @ noise
            details = scores[_near(drawn * effects, visible), correlated:]
            code = mean + torch.cat([drawn, detail * _mixed(details, u_detail)]) @ axes
            yield self._on_a_side(code, u_side)

    def blends(self, seed: int, temperature: float = 1.0) -> Iterator[torch.Tensor]:
        """An endless stream of codes between those of two similar training images, float32 `(D,)`.

        `temperature` multiplies their distances from the mean code along the axes of the Gaussians.
        """
        generator = torch.Generator().manual_seed(seed)
        mean, axes = torch.from_numpy(self.mean), torch.from_numpy(self.axes)
        scores, effects, visible = self._what_is_seen()
        while True:
            u_first, u_other, u_share, u_side = torch.rand(4, generator=generator).tolist()
            first = int(u_first * len(scores))
            others = _nearest(visible[first], visible, 1 + _BLENDED_WITH)
            others = others[others != first] if len(scores) > 1 else others
            pair = scores[[first, int(others[int(u_other * len(others))])]]
            seen, details = pair[:, : len(effects)], pair[:, len(effects) :]
            mixed = [temperature * _mixed(seen, u_share), _mixed(details, u_share)]
            yield self._on_a_side(mean + torch.cat(mixed) @ axes, u_side)

    def _what_is_seen(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The scores `(N, R)`, the effects of the first Q axes `(Q,)`, and their product `(N, Q)`."""
        scores, correlated = torch.from_numpy(self.scores).float(), self.factors.shape[1]
        effects = torch.from_numpy(self.shares).sqrt()[:correlated]
        return scores, effects, scores[:, :correlated] * effects

    def _on_a_side(self, code: torch.Tensor, u_side: float) -> torch.Tensor:
        if self.has_side:
            code[-1] = 1.0 if u_side < float(self.facing) else -1.0
        return code


def _near(point: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The rows of the third and the fourth nearest of points `(N, Q)`, or of the last two of fewer."""
    return _nearest(point, points, 4)[-2:]


def _nearest(point: torch.Tensor, points: torch.Tensor, count: int) -> torch.Tensor:
    """The rows of the nearest of points `(N, Q)`, nearest first."""
    distances = (points - point).square().sum(dim=1)
    return distances.topk(min(count, len(points)), largest=False).indices


def _mixed(details: torch.Tensor, share: float) -> torch.Tensor:
    """The mean of the rows, of which the first counts from 0.3 to 0.7, as long as they are.

    A mean of unlike vectors is shorter, and decodes to a blurred ear.
    """
    weights = torch.tensor([0.3 + 0.4 * share, 0.7 - 0.4 * share])[: len(details)]
    weights = weights / weights.sum()
    mean, length = weights @ details, weights @ details.norm(dim=1)
    return mean * (length / mean.norm().clamp(min=1e-6))


def fit_mixture(codes: np.ndarray, images: np.ndarray, *, has_side: bool) -> CodeMixture:
    """Fit to the codes `(N, D)` of N images and to the images as flat thumbnails `(N, P)`.

    `has_side`: the last dimension of a code is the ear's side, 1 or −1; then all images must face the
    same way. The number of components is 1, 2, 4, 8 or 16: it doubles while Akaike's information
    criterion falls and there are enough images for each component.
    """
    codes, images = codes.astype(np.float64), images.astype(np.float64)
    facing = float((codes[:, -1] > 0).mean()) if has_side else np.nan
    if has_side:
        codes = np.concatenate([codes[:, :-1], np.zeros((len(codes), 1))], axis=1)
    mean = codes.mean(axis=0)
    axes, projection, effects, shares = _image_axes(codes - mean, images - images.mean(axis=0))
    correlated = min(len(axes), _MAX_CORRELATED, max(1, len(codes) // 16))
    scores = (codes - mean) @ projection
    weights, means, factors = _fit_components(scores[:, :correlated], effects[:correlated])
    floats = (mean, axes, shares, weights, means, factors)
    return CodeMixture(
        *[value.astype(np.float32) for value in floats]
        + [scores.astype(np.float16), np.array(facing, np.float32)]
    )


def _image_axes(
    codes: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Uncorrelated axes of centred codes, ordered by their effect on centred images.

    The images are regressed on the whitened codes; the singular vectors of that map are the axes
    (reduced-rank regression, Izenman 1975, https://doi.org/10.1016/0047-259X(75)90042-1).

    Returns the axes `(R, D)`, one standard deviation long each; the projection `(D, R)` of codes on
    them; the effect of each on the images `(R,)`; and its share of their variance `(R,)`.
    """
    variances, vectors = np.linalg.eigh(codes.T @ codes / len(codes))
    nonzero = variances > max(_MIN_VARIANCE, _MIN_VARIANCE * variances[-1])
    deviations, vectors = np.sqrt(variances[nonzero]), vectors[:, nonzero]
    white = codes @ (vectors / deviations)
    rotation, effects, _ = np.linalg.svd(white.T @ images / len(codes), full_matrices=True)
    effects = np.pad(effects, (0, max(0, len(rotation) - len(effects))))[: len(rotation)]
    axes = rotation.T @ (vectors * deviations).T
    # The sign of a singular vector is arbitrary: make the largest entry of each axis positive.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    total_variance = max(float(images.var(axis=0).sum()), 1e-30)
    projection = (vectors / deviations) @ rotation * signs.T
    return axes * signs, projection, effects, effects**2 / total_variance


def _fit_components(
    scores: np.ndarray, effects: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and Cholesky factors of a mixture of scores `(N, Q)` on axes with these effects."""
    if scores.shape[1] == 0:
        return np.ones(1), np.zeros((1, 0)), np.zeros((1, 0, 0))
    # The fit starts from k-means, which should cluster the ears by what is most visible.
    scales = np.maximum(effects, max(_MIN_EFFECT * effects[0], 1e-30))
    scales = scales / scales[0]
    mixture = _best_mixture(scores * scales, 1e-4 * scales[-1] ** 2)
    factors = np.linalg.cholesky(mixture.covariances_) / scales[:, None]
    return mixture.weights_, mixture.means_ / scales, factors


def _best_mixture(scores: np.ndarray, min_variance: float) -> Any:
    """The mixture with the lowest Akaike information criterion (1974) that has enough images.

    The Bayesian criterion chose fewer components, whose ears were farther from real ones.
    """
    # scikit-learn takes a second to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    max_components = max(1, len(scores) // (_IMAGES_PER_AXIS * scores.shape[1]))
    best, lowest = None, np.inf
    for count in (count for count in _COMPONENT_COUNTS if count <= max_components):
        mixture = GaussianMixture(
            count, reg_covar=min_variance, max_iter=_MAX_ITERATIONS, random_state=0
        )
        with warnings.catch_warnings():
            # More iterations change nothing visible.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(scores)
        criterion = mixture.aic(scores)
        if criterion >= lowest:
            break
        best, lowest = mixture, criterion
    return best
