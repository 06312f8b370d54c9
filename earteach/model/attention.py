"""Channel and spatial attention (CBAM, Woo et al. 2018, https://arxiv.org/abs/1807.06521)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ChannelAttention(nn.Module):
    """Weights each channel by its average and maximum over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 8)
        self.shared = nn.Sequential(
            nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        average = x.mean(dim=(2, 3))  # (B, C)
        maximum = _largest(x)
        weight = torch.sigmoid(self.shared(average) + self.shared(maximum))
        return x * weight[:, :, None, None]


def _largest(x: torch.Tensor) -> torch.Tensor:
    """Of each channel, `(B, C)`; on a CPU, `amax` and its gradient take two to three times as long."""
    # torch 2.10 cannot export `adaptive_max_pool2d` to ONNX.
    return x.amax(dim=(2, 3)) if x.is_cuda else functional.max_pool2d(x, x.shape[2:]).flatten(1)


class SpatialAttention(nn.Module):
    """Weights each position by the average and maximum over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # `amax` shares its gradient among equal values, which compiled code in bfloat16 may not find
        # again: NaN (https://github.com/pytorch/pytorch/issues/195214).
        largest = x.max(dim=1, keepdim=True).values
        summary = torch.cat([x.mean(dim=1, keepdim=True), largest], dim=1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.conv(summary))


class ChannelSpatialAttention(nn.Sequential):
    """Channel attention, then spatial attention; the shape stays `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__(ChannelAttention(channels), SpatialAttention())
