"""PCA of ear images ("eigenears") as a fixed path: image to code and code to image, both linear.

The codes are whitened: each dimension has unit variance over the training ears, as in the prior.
Whitened codes may be rotated without changing the prior or the picture (orthogonal Procrustes,
Schönemann 1966, https://doi.org/10.1007/BF02289451); training rotates them towards a grid of local
details, so that one code serves this path and convolutions alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

MAX_SIDE = 64
# A probability of 0 or 1 has no logit.
_MARGIN = 0.01


@dataclass(frozen=True)
class PCAWeights:
    """PCA of images `(C, L, L)` in [0, 1], flattened to N = C · L² values.

    Components that too few images left undetermined are zero, with variance 1.
    """

    mean: torch.Tensor  # (N,)
    components: torch.Tensor  # (K, N), orthonormal rows
    variances: torch.Tensor  # (K,)
    rotation: torch.Tensor  # (K, K), orthogonal


class PCAPath(nn.Module):
    """PCA with K components, at the image's size divided by a whole number, at most 64 pixels a side.

    Its buffers are zero until `load_weights`; training does not change them.
    """

    mean: torch.Tensor
    components: torch.Tensor
    variances: torch.Tensor
    rotation: torch.Tensor

    def __init__(self, in_channels: int, components: int, image_size: int) -> None:
        super().__init__()
        self.shrink = shrink_factor(image_size)
        side = image_size // self.shrink
        self.shape = (in_channels, side, side)
        self.register_buffer("mean", torch.full((in_channels * side**2,), 0.5))
        self.register_buffer("components", torch.zeros(components, in_channels * side**2))
        self.register_buffer("variances", torch.ones(components))
        # `torch.eye` on the meta device would import torch's compiler, for a second.
        identity = torch.zeros(components, components).fill_diagonal_(1)
        self.register_buffer("rotation", identity)

    def load_weights(self, weights: PCAWeights) -> None:
        self.load_state_dict(vars(weights))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B, C, S, S)` to whitened codes `(B, K)` and squared residuals `(B,)`.

        A residual is what the components do not explain of an image, summed over the N values.
        """
        with torch.autocast(x.device.type, enabled=False):
            centred = functional.avg_pool2d(x.float(), self.shrink).flatten(1) - self.mean
            scores = centred @ self.components.T
            residual = centred.square().sum(dim=1) - scores.square().sum(dim=1)
            return (scores / self.variances.sqrt()) @ self.rotation, residual

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Whitened codes `(B, K)` to images `(B, C, S, S)`, not clipped to [0, 1]."""
        with torch.autocast(z.device.type, enabled=False):
            scores = (z.float() @ self.rotation.T) * self.variances.sqrt()
            flat = torch.addmm(self.mean, scores, self.components)
        images = flat.reshape(-1, *self.shape)
        if self.shrink == 1:
            return images
        return functional.interpolate(
            images, scale_factor=self.shrink, mode="bilinear", align_corners=False
        )


def shrink_factor(image_size: int, max_side: int = MAX_SIDE) -> int:
    """The smallest divisor of the size that leaves at most `max_side` pixels a side."""
    return next(
        k for k in range(1, image_size + 1) if image_size % k == 0 and image_size <= max_side * k
    )


def logits(images: torch.Tensor) -> torch.Tensor:
    """The inverse of the sigmoid, of values clipped to [0.01, 0.99]."""
    return torch.logit(images.clamp(_MARGIN, 1 - _MARGIN))
