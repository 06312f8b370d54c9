"""Eigenears as a fixed path through the network: image to code and code to image, both linear.

A left ear is the mirror image of a right one. PCA of ears that all look to one side needs fewer
components for the same quality than PCA of both kinds; so the path brings each image to that side
first. Of an image and its mirror it takes the one that its components leave less of, and the last
number of the code says which it was.

The codes are whitened: each has unit variance over the training ears, as the prior has. Whitened codes
may be rotated without a change to the prior or to the picture (orthogonal Procrustes, Schönemann 1966,
https://doi.org/10.1007/BF02289451): they are turned towards a grid of local details, so that one code
serves this path and convolutions alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

FINEST_SIDE = 64
# A probability of 0 or 1 has no logit.
_MARGIN = 0.01


@dataclass(frozen=True)
class PCAWeights:
    """What a `PCAPath` computes with: PCA of images `(C, L, L)` in [0, 1], flattened to D numbers.

    Where the images allow fewer components than wanted the others are zero, with variance 1.
    """

    mean: torch.Tensor  # (D,)
    components: torch.Tensor  # (K, D), orthonormal rows
    variances: torch.Tensor  # (K,)
    rotation: torch.Tensor  # (K, K), orthogonal


class PCAPath(nn.Module):
    """PCA with K = latent_dim − 1 components of images that look to one side.

    It works at the image's size divided by a whole number, at most 64 pixels a side. Its buffers are
    zero until `load_weights`; training does not change them.
    """

    mean: torch.Tensor
    components: torch.Tensor
    variances: torch.Tensor
    rotation: torch.Tensor

    def __init__(self, in_channels: int, latent_dim: int, image_size: int) -> None:
        super().__init__()
        self.shrink = shrink_factor(image_size)
        side = image_size // self.shrink
        self.shape = (in_channels, side, side)
        count, dimensions = latent_dim - 1, in_channels * side**2
        self.register_buffer("mean", torch.full((dimensions,), 0.5))
        self.register_buffer("components", torch.zeros(count, dimensions))
        self.register_buffer("variances", torch.ones(count))
        self.register_buffer("rotation", torch.eye(count))

    def load_weights(self, weights: PCAWeights) -> None:
        self.load_state_dict(vars(weights))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B, C, S, S)`, turned to the path's side, to whitened codes `(B, K)`.

        Also whether each looked to that side as it was, bool `(B,)`.
        """
        with torch.autocast(x.device.type, enabled=False):
            as_is, turned = self._centred(x), self._centred(mirrored(x))
            scores, scores_turned = as_is @ self.components.T, turned @ self.components.T
            faces = _missed(as_is, scores) <= _missed(turned, scores_turned)
            scores = torch.where(faces[:, None], scores, scores_turned)
            return (scores / self.variances.sqrt()) @ self.rotation, faces

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Whitened codes `(B, K)` to images `(B, C, S, S)`, not clipped to [0, 1]."""
        with torch.autocast(z.device.type, enabled=False):
            scores = (z.float() @ self.rotation.T) * self.variances.sqrt()
            flat = torch.addmm(self.mean, scores, self.components)
        return self._enlarged(flat.reshape(-1, *self.shape))

    def of_coarse_images(self, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What images that were averaged to `(C, side, side)` tell of their codes, as a linear map.

        Its weight `(K, C · side²)` and bias `(K,)`; images must look to the path's side. It is the
        posterior mean under probabilistic PCA (Tipping and Bishop 1999,
        https://doi.org/10.1111/1467-9868.00196), whose noise is as large as the last component.
        """
        averaged, mean = (
            functional.adaptive_avg_pool2d(flat.reshape(-1, *self.shape), side).flatten(1)
            for flat in (self.components, self.mean)
        )
        loadings = averaged * self.variances.sqrt()[:, None]
        noise = self.variances.min() * side**2 / self.shape[1] ** 2
        known = loadings @ loadings.T + noise * torch.eye(len(loadings), device=noise.device)
        weight = self.rotation.T @ torch.linalg.solve(known, loadings)
        return weight, -weight @ mean[0]

    def picture_error(self, error: torch.Tensor) -> torch.Tensor:
        """Errors of whitened codes `(B, K)` as squared errors of the picture, over what pictures vary.

        Mean 1 for errors as large as the codes themselves.
        """
        scores = error @ self.rotation.T
        # What too few images left without a component changes no picture.
        told = self.variances * self.components.square().sum(dim=1)
        return scores.square() @ told / told.sum()

    def noise_gain(self) -> torch.Tensor:
        """Squared error summed over pixels per unit of a code's variance, `(K,)`."""
        rows = self.rotation.T * self.variances.sqrt()
        return (rows @ self.components).square().sum(dim=1) * self.shrink**2

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        if self.shrink > 1:
            x = functional.avg_pool2d(x, self.shrink)
        return x.flatten(1) - self.mean

    def _enlarged(self, x: torch.Tensor) -> torch.Tensor:
        if self.shrink == 1:
            return x
        return functional.interpolate(
            x, scale_factor=self.shrink, mode="bilinear", align_corners=False
        )


def _missed(centred: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What the components leave of each image, as summed squares `(B,)`."""
    return centred.square().sum(dim=1) - scores.square().sum(dim=1)


def shrink_factor(image_size: int, most: int = FINEST_SIDE) -> int:
    """The smallest divisor of the size that leaves at most so many pixels a side."""
    return next(
        k for k in range(1, image_size + 1) if image_size % k == 0 and image_size <= most * k
    )


def logits(images: torch.Tensor) -> torch.Tensor:
    """The inverse of the sigmoid, of values clipped to [0.01, 0.99]."""
    return torch.logit(images.clamp(_MARGIN, 1 - _MARGIN))


def mirrored(x: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
    """Images or maps `(B, C, H, W)` with left and right exchanged; `which` (bool, `(B,)`) picks some."""
    flipped = x.flip(3)
    return flipped if which is None else torch.where(which[:, None, None, None], flipped, x)
