"""A feature pyramid over an encoder's maps (Lin et al. 2017, https://arxiv.org/abs/1612.03144)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from earteach.model.convolution import group_norm
from earteach.model.torchvision_layers import FeaturePyramidNetwork


class FeaturePyramid(nn.Module):
    """Maps at strides 2, 4, 8 and 16 to as many maps of equally many channels.

    Each has the context of the coarser ones, and is normalised, so that all count in their sum. That
    sum, at the finest stride, describes the point of the ear at each place: see `descriptors`.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.network = FeaturePyramidNetwork(list(widths), channels, norm_layer=group_norm)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps `(B, widths[i], H_i, W_i)` to maps `(B, channels, H_i, W_i)`, finest first."""
        named = {str(level): each for level, each in enumerate(maps)}
        return list(self.network(named).values())


def descriptors(levels: Sequence[torch.Tensor], points: torch.Tensor) -> torch.Tensor:
    """Unit vectors `(B, P, channels)`, float32, of the points `(B, P, 2)`, x and y from −1 to 1."""
    grid = points[:, None].to(levels[0].dtype)
    # A coarse map has no pixel centres near the image's edges.
    summed = sum(
        functional.grid_sample(level, grid, padding_mode="border", align_corners=False)
        for level in levels
    )
    assert isinstance(summed, torch.Tensor)
    return functional.normalize(summed[:, :, 0].transpose(1, 2).float(), dim=2)
