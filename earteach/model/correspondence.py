"""The teaching objective: the same point of an ear is described alike in every view of it.

Points of an image are looked up in the feature pyramids of two views of it. A point's descriptor in one
view is compared with those of all the points in the other; the softmax of the similarities has to peak
where the point itself is. Dense equivariance, after Thewlis et al. 2017
(https://arxiv.org/abs/1706.02932).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

POINTS = 64
TEMPERATURE = 0.07
# Width of the target around a point, of a side from −1 to 1: about a twelfth of an ear.
_TARGET_WIDTH = 0.12
# Points are drawn from the inner part of an image.
_MARGIN = 0.9
_NEVER = -1e4


class Matches(NamedTuple):
    """Points `(B, P, 2)` of images, and their descriptors `(B, P, D)` in two views."""

    points: torch.Tensor  # x and y from −1 to 1
    visible: torch.Tensor  # bool (B, P): whether a point lies in both views
    first: torch.Tensor
    second: torch.Tensor


def random_points(count: int, generator: torch.Generator) -> torch.Tensor:
    """Points `(count, POINTS, 2)`, uniform in the image, on the CPU."""
    return _MARGIN * (2 * torch.rand(count, POINTS, 2, generator=generator) - 1)


def matching_loss(matches: Matches) -> torch.Tensor:
    """Kullback-Leibler divergence in nats of the softmax from its target, the mean over points, `()`.

    Both ways between the views; computed in float32.
    """
    points, visible, first, second = matches
    with torch.autocast(first.device.type, enabled=False):
        target = _targets(points, visible)
        hidden = _NEVER * (~visible[:, None]).float()
        similarity = first.float() @ second.float().transpose(1, 2) / TEMPERATURE
        both = (similarity, similarity.transpose(1, 2))
        divergence = sum(
            functional.kl_div(
                functional.log_softmax(each + hidden, dim=2), target, reduction="none"
            ).sum(dim=2)
            for each in both
        )
        assert isinstance(divergence, torch.Tensor)
        return (0.5 * divergence * visible).sum() / visible.sum().clamp(min=1)


def _targets(points: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Gaussians around each point over the visible points, `(B, P, P)`, each row a distribution."""
    squares = (points[:, :, None] - points[:, None]).square().sum(dim=3)
    weight = torch.exp(-squares / (2 * _TARGET_WIDTH**2)) * visible[:, None]
    total = weight.sum(dim=2, keepdim=True).clamp(min=1e-9)
    return weight / total
