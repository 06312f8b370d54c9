"""The blocks of a student's encoder, and its sense of sides.

Inverted residuals (MobileNetV2, Sandler et al. 2018, https://arxiv.org/abs/1801.04381): between blocks
the maps are narrow, inside they are widened, looked at place by place and channel by channel, and
narrowed again. Unlike there the norm is GroupNorm, on the narrow maps alone: the network is the same in
training and use, and a norm on the wide maps would take as long as their convolution.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from earteach.model.convolution import group_norm
from earteach.model.pca_path import mirrored, shrink_factor

# Channels of the maps at strides 2, 4, 8 and 16 in eighths of the base, and the blocks at each.
_EIGHTHS = (2, 3, 6, 12)
_DEPTHS = (0, 1, 2, 3)
_EXPANSION = 4
GLANCED_SIZE = 16
_SIDED_SIZE, _SIDED_WIDTHS = 32, (16, 32, 64)


def mobile_widths(base: int) -> list[int]:
    """The channels of the narrow maps, finest first."""
    return [max(1, base * eighths // 8) for eighths in _EIGHTHS]


def mobile_stages(in_channels: int, widths: list[int]) -> nn.ModuleList:
    """Four stages, each of which halves the side; the first is one convolution."""
    stages = [nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, stride=2, padding=1))]
    for (before, after), depth in zip(pairwise(widths), _DEPTHS[1:], strict=True):
        more = [InvertedResidual(after, after) for _ in range(depth)]
        stages.append(nn.Sequential(InvertedResidual(before, after, stride=2), *more))
    return nn.ModuleList(stages)


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
    """A linear map from images, averaged to 16 pixels a side, to codes `(B, latent_dim)`, float32.

    It gives zero until it is loaded or trained.
    """

    def __init__(self, in_channels: int, latent_dim: int, image_size: int) -> None:
        super().__init__()
        self.shrink = image_size // GLANCED_SIZE
        self.to_code = nn.Linear(in_channels * GLANCED_SIZE**2, latent_dim)
        nn.init.zeros_(self.to_code.weight)
        nn.init.zeros_(self.to_code.bias)

    def load_weights(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Take the map to the first numbers of the code, `(count, C · 16²)` and `(count,)`."""
        with torch.no_grad():
            self.to_code.weight[: len(weight)] = weight
            self.to_code.bias[: len(bias)] = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Whitened codes are small differences of large sums.
        with torch.autocast(x.device.type, enabled=False):
            code: torch.Tensor = self.to_code(
                functional.avg_pool2d(x.float(), self.shrink).flatten(1)
            )
        return code


class Side(nn.Module):
    """Tells which side an ear looks to, from a gray image of at most 32 pixels a side.

    It gives a logit, `(B,)`, which is positive where the ear looks to the network's own side. What is
    seen in the mirror image is taken from what is seen in the image, so that the two logits of an ear
    and its mirror image differ in their sign alone.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.shrink = shrink_factor(image_size, _SIDED_SIZE)
        side = image_size // self.shrink
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *_SIDED_WIDTHS)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                group_norm(after),
                nn.SiLU(),
            ]
            side = (side + 1) // 2
        self.judge = nn.Sequential(*layers, nn.Flatten(), nn.Linear(after * side**2, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logit: torch.Tensor = self._seen(x) - self._seen(mirrored(x))
        return logit[:, 0].float()

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        gray = functional.avg_pool2d(x.mean(dim=1, keepdim=True), self.shrink)
        seen: torch.Tensor = self.judge(gray)
        return seen
