"""The teaching objective: the same point of an ear is described alike in every view, and on everybody.

Points of an image are looked up in the feature pyramids of two views of it. A point's descriptor in one
view is compared with those of all the points in the other; the softmax of the similarities has to peak
where the point itself is. Dense equivariance, after Thewlis et al. 2017
(https://arxiv.org/abs/1706.02932).

So far a place may have another descriptor on each person. Ears on their canonical side that fill their
images lie roughly on each other, so a point is compared with the points of another ear, too,
and has to find those near the same place: a wider target, which leaves the rest to the descriptors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

POINTS = 128
TEMPERATURE = 0.07
# Widths of the targets around a point, of a side from −1 to 1: about a twelfth of an ear between views
# of it, and between people as far as their ears differ.
_SELF_WIDTH, _OTHERS_WIDTH = 0.12, 0.25
_OTHERS_WEIGHT = 0.5
# Points are drawn from the inner part of an image.
_MARGIN = 0.9
_NEVER = -1e4


class Matches(NamedTuple):
    """Points `(B, P, 2)` of images, and their descriptors `(B, P, D)` in two views."""

    points: torch.Tensor  # x and y from −1 to 1; with `is_canonical`, on the canonical side
    visible: torch.Tensor  # bool (B, P): whether a point lies in both views
    first: torch.Tensor
    second: torch.Tensor
    is_canonical: bool = False  # whether one person's points can be compared with another's


def random_points(count: int, generator: torch.Generator) -> torch.Tensor:
    """Points `(count, POINTS, 2)`, uniform in the image, on the CPU."""
    return _MARGIN * (2 * torch.rand(count, POINTS, 2, generator=generator) - 1)


def matching_loss(matches: Matches) -> torch.Tensor:
    """Kullback-Leibler divergence in nats of the softmax from its target, the mean over points, `()`.

    That between views, and half of that between each image and the one before it in the batch. Computed
    in float32.
    """
    with torch.autocast(matches.first.device.type, enabled=False):
        loss = _divergence(matches, matches, _SELF_WIDTH)
        if matches.is_canonical and len(matches.points) > 1:
            points, visible, first, second = (each.roll(1, dims=0) for each in matches[:4])
            others = Matches(points, visible, first, second)
            loss = loss + _OTHERS_WEIGHT * _divergence(matches, others, _OTHERS_WIDTH)
    return loss


def _divergence(ears: Matches, others: Matches, width: float) -> torch.Tensor:
    """From the first views of `ears` to the second views of `others` and back, the mean of both."""
    similarity = ears.first.float() @ others.second.float().transpose(1, 2) / TEMPERATURE
    squares = (ears.points[:, :, None] - others.points[:, None]).square().sum(dim=3)
    near = torch.exp(-squares / (2 * width**2))
    forth = _one_way(similarity, near, ears.visible, others.visible)
    turned = similarity.transpose(1, 2), near.transpose(1, 2)
    return 0.5 * (forth + _one_way(*turned, others.visible, ears.visible))


def _one_way(
    similarity: torch.Tensor, near: torch.Tensor, visible: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """From points, the rows of `(B, P, P)`, to candidates, the columns; both only where visible."""
    weight = near * candidates[:, None]
    target = weight / weight.sum(dim=2, keepdim=True).clamp(min=1e-9)
    hidden = _NEVER * (~candidates[:, None]).float()
    shares = functional.log_softmax(similarity + hidden, dim=2)
    divergence = functional.kl_div(shares, target, reduction="none").sum(dim=2)
    return (divergence * visible).sum() / visible.sum().clamp(min=1)
