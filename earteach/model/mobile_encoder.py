"""A small, fast encoder of inverted residuals, for students of a larger network.

Between blocks the maps are narrow; inside they are widened, convolved channel by channel, and narrowed
again (MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381). The norm is GroupNorm, the
same in training and use, and on the narrow maps alone: on the wide ones it would take as long as their
convolution.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from earteach.model.blocks import ToCode, feature_widths, squeeze_excitation
from earteach.model.convolution import group_norm
from earteach.model.encoder_decoder import Encoder

# Channels of the maps at strides 2, 4, 8 and 16 in eighths of the base, and the blocks at each.
_EIGHTHS = (2, 3, 6, 12)
_DEPTHS = (0, 1, 2, 3)
_EXPANSION = 4
COARSE_SIZE = 16


class MobileEncoder(Encoder):
    """Inverted residuals, and a linear map from the coarse image to the code.

    Convolutions alone are slow to learn what is linear. One 1×1 convolution widens each narrow map to
    the width of an `AttentionEncoder`'s; codes do without them.
    """

    def __init__(self, in_channels: int, latent_dim: int, base: int, image_size: int) -> None:
        super().__init__()
        narrow = [max(1, base * eighths // 8) for eighths in _EIGHTHS]
        self.blocks = _mobile_blocks(in_channels, narrow)
        self.heads = nn.ModuleList(
            nn.Conv2d(before, after, 1)
            for before, after in zip(narrow, feature_widths(base), strict=True)
        )
        self.squeeze = squeeze_excitation(narrow[-1])
        self.to_code = ToCode(narrow[-1], latent_dim, image_size, mixed=True)
        self.coarse_head = CoarseLinearHead(in_channels, latent_dim, image_size)

    def posterior(
        self, x: torch.Tensor, deepest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = super().posterior(x, deepest)
        return mu + self.coarse_head(x), logvar

    def maps(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]


def _mobile_blocks(in_channels: int, widths: list[int]) -> nn.ModuleList:
    """Four blocks, each of which halves the side; the first is one convolution."""
    blocks = [nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1))]
    for (before, after), depth in zip(pairwise(widths), _DEPTHS[1:], strict=True):
        more = [InvertedResidual(after, after) for _ in range(depth)]
        blocks.append(nn.Sequential(InvertedResidual(before, after, stride=2), *more))
    return nn.ModuleList(blocks)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; with a shortcut where the shape stays."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        wide = before * _EXPANSION
        self.branch = nn.Sequential(
            group_norm(before),
            nn.Conv2d(before, wide, 1),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide),
            nn.ReLU6(),
            nn.Conv2d(wide, after, 1),
        )
        self.shortcut = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) if self.shortcut else self.branch(x)


class CoarseLinearHead(nn.Module):
    """A linear map from images averaged to 16×16 to codes `(B, latent_dim)`, float32.

    It is zero until loaded or trained.
    """

    def __init__(self, in_channels: int, latent_dim: int, image_size: int) -> None:
        super().__init__()
        self.shrink = image_size // COARSE_SIZE
        self.linear = nn.Linear(in_channels * COARSE_SIZE**2, latent_dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Whitened codes are small differences of large sums, so float32.
        with torch.autocast(x.device.type, enabled=False):
            coarse = functional.avg_pool2d(x.float(), self.shrink).flatten(1)
            code: torch.Tensor = self.linear(coarse)
        return code
