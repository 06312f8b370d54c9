"""Encoders, from images to a posterior and feature maps, and the decoder, from codes to logits."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from earteach.model.blocks import (
    DownBlock,
    FromCode,
    ToCode,
    ToImage,
    UpBlock,
    feature_widths,
    squeeze_excitation,
)  # fmt: skip


class Encoder(nn.Module):
    """What all encoders share: blocks that halve the side, then squeeze-excitation and the code.

    A subclass makes `blocks`, whose outputs are at strides 2, 4, 8 and 16, `squeeze` and `to_code`.
    """

    blocks: nn.ModuleList
    squeeze: nn.Module
    to_code: ToCode

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The levels: the blocks' outputs for images `(B, C, H, W)` in [0, 1], finest first."""
        levels, x = [], 2 * x - 1
        for block in self.blocks:
            x = block(x)
            levels.append(x)
        return levels

    def posterior(
        self, x: torch.Tensor, deepest: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """mu and logvar `(B, latent_dim)` from images and their deepest level."""
        return self.to_code(self.squeeze(deepest))

    def maps(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """The feature maps: the levels, with `base · (1, 2, 4, 8)` channels."""
        return levels


class AttentionEncoder(Encoder):
    """Four residual blocks with channel-spatial attention."""

    def __init__(self, in_channels: int, latent_dim: int, base: int, image_size: int) -> None:
        super().__init__()
        widths = feature_widths(base)
        self.blocks = nn.ModuleList(
            DownBlock(before, after) for before, after in pairwise([in_channels, *widths])
        )
        self.squeeze = squeeze_excitation(widths[-1])
        self.to_code = ToCode(widths[-1], latent_dim, image_size)


class Decoder(nn.Module):
    """Codes to the logits of images; `guided`, it refines a first picture."""

    def __init__(
        self, in_channels: int, latent_dim: int, base: int, image_size: int, *, guided: bool = False
    ) -> None:
        super().__init__()
        widths = feature_widths(base)[::-1]
        self.from_code = FromCode(widths[0], latent_dim, image_size)
        self.squeeze = squeeze_excitation(widths[0])
        self.blocks = nn.ModuleList(UpBlock(before, after) for before, after in pairwise(widths))
        self.from_picture = nn.Conv2d(4 * in_channels, base, 3, padding=1) if guided else None
        self.to_image = ToImage(base, in_channels)

    def forward(self, z: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
        """Codes `(B, latent_dim)`, and a picture `(B, C, S, S)` in [0, 1], to logits of its shape."""
        x = self.squeeze(self.from_code(z))  # (B, 8 · base, S / 16, S / 16)
        for block in self.blocks:
            x = block(x)  # in the end (B, base, S / 2, S / 2)
        if self.from_picture is not None and picture is not None:
            x = x + self.from_picture(functional.pixel_unshuffle(2 * picture - 1, 2))
        return self.to_image(x)
