"""A network that tells photographs from generated images (Goodfellow et al. 2014,
https://arxiv.org/abs/1406.2661)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from earteach.model.convolution import group_norm

_WIDTHS = (32, 64, 128, 192)
_HIDDEN, _SMALLEST_SIDE, _PATCH_DEPTH = 128, 4, 3
# How strongly it sees fine detail, which is faint, and which decoders lack.
_DETAIL = 6.0


class Discriminator(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to logits of the image `(B, 1)` and of its patches `(B, P)`.

    A logit is positive for photographs. Patches are judged too, after Isola et al. 2017
    (https://arxiv.org/abs/1611.07004).
    """

    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__()
        side, widths = image_size, [2 * in_channels]
        while side > _SMALLEST_SIDE:
            side = -(-side // 2)
            widths.append(_WIDTHS[min(len(widths), len(_WIDTHS)) - 1])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.Identity() if level == 0 else group_norm(after),
                nn.LeakyReLU(0.2),
            )
            for level, (before, after) in enumerate(pairwise(widths))
        )
        self.patch_depth = min(_PATCH_DEPTH, len(self.blocks))
        self.to_patch_logits = nn.Conv2d(widths[self.patch_depth], 1, 1)
        self.to_image_logit = nn.Sequential(
            nn.Conv2d(widths[-1], _HIDDEN, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(_HIDDEN * side**2, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2, nonlinearity="leaky_relu")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        smooth = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x = torch.cat([2 * x - 1, _DETAIL * (x - smooth)], dim=1)
        for block in self.blocks[: self.patch_depth]:
            x = block(x)
        patch_logits = self.to_patch_logits(x).flatten(1)
        for block in self.blocks[self.patch_depth :]:
            x = block(x)
        return self.to_image_logit(x), patch_logits
