"""Landmarks from the maps of a feature pyramid: a heat map for each, and the mean place in it.

Integral regression, Sun et al. 2018 (https://arxiv.org/abs/1711.08229).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from earteach.model.convolution import group_norm

_WIDTH = 64
# The standard deviation of a Gaussian around a landmark, as a fraction of a side, and the weight of
# the cross entropy with it.
_DEVIATION, _ENTROPY_WEIGHT = 0.04, 0.01
# The part of a heat map that counts as near its mean place, as a fraction of a side.
_NEAR = 1 / 12


class Landmarks(NamedTuple):
    """`points` `(B, K, 2)`, x and y as fractions of the sides, and their `confidence` `(B, K)`.

    The confidence is the share of the heat within a twelfth of a side of the point.
    """

    points: torch.Tensor
    confidence: torch.Tensor


class LabelledHeat(NamedTuple):
    """Heat maps `(B, K, H, W)`, log-probabilities, and the true landmarks `(B, K, 2)`.

    Landmarks are fractions of the sides; unknown ones are NaN.
    """

    log_heat: torch.Tensor
    landmarks: torch.Tensor


class LandmarkHead(nn.Module):
    """Maps `(B, channels, H_i, W_i)`, finest first, to heat maps of `count` landmarks."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.to_heat = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1),
            group_norm(_WIDTH),
            nn.SiLU(),
            nn.Conv2d(_WIDTH, count, 1),
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probabilities `(B, K, H, W)`, float32, of the place of each landmark."""
        finest, *coarser = levels
        size = finest.shape[2:]
        summed = finest + sum(
            functional.interpolate(level, size, mode="bilinear", align_corners=False)
            for level in coarser
        )
        heat: torch.Tensor = self.to_heat(summed).float()
        return heat.flatten(2).log_softmax(dim=2).view_as(heat)


def places_in(log_heat: torch.Tensor) -> Landmarks:
    """The mean place in each heat map `(B, K, H, W)` of log-probabilities."""
    heat = log_heat.exp().flatten(2)
    places = pixel_centres(log_heat)
    points = heat @ places
    near = (points[:, :, None] - places).norm(dim=3) < _NEAR
    return Landmarks(points, (heat * near).sum(dim=2))


def heat_map_loss(heat: LabelledHeat) -> torch.Tensor:
    """The mean over the landmarks that are known and inside, `()`.

    The distance of the mean place, as a fraction of a side, and the cross entropy with a Gaussian around
    the landmark (as in Nibali et al. 2018, https://arxiv.org/abs/1801.07372), which makes the heat maps
    narrow.
    """
    log_heat, landmarks = heat
    known = ((landmarks > 0) & (landmarks < 1)).all(dim=2)  # False for NaN
    truth = torch.where(known[:, :, None], landmarks, 0.5)
    distances = (places_in(log_heat).points - truth).norm(dim=2)
    squares = (truth[:, :, None] - pixel_centres(log_heat)).square().sum(dim=3)
    target = (-squares / (2 * _DEVIATION**2)).softmax(dim=2)
    entropy = -(target * log_heat.flatten(2)).sum(dim=2)
    return ((distances + _ENTROPY_WEIGHT * entropy) * known).sum() / known.sum().clamp(min=1)


def pixel_centres(maps: torch.Tensor) -> torch.Tensor:
    """x and y of the pixels of maps `(…, H, W)`, as fractions of the sides, `(H · W, 2)`."""
    rows, columns = ((torch.arange(n, device=maps.device) + 0.5) / n for n in maps.shape[-2:])
    return torch.cartesian_prod(rows, columns).flip(1)
