"""Encoders, from an image to a code and maps, and the decoder, from a code to an image's logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from earteach.model.mobile_encoder import (
    GLANCED_SIZE,
    CoarseLinearHead,
    Side,
    mobile_stages,
    mobile_widths,
)
from earteach.model.pca_path import PCAPath


class Encoder(nn.Module):
    """Images to the two parameters of the posterior."""

    def __init__(self, in_channels: int, latent_dim: int, base: int, image_size: int) -> None:
        super().__init__()
        widths = feature_widths(base)
        self.blocks = nn.ModuleList(
            DownBlock(before, after)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.squeeze: nn.Module = squeeze_excitation(widths[-1])
        self.to_code = ToCode(widths[-1], latent_dim, image_size)
        self.side: Side | None = None

    def levels(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """The blocks' outputs, finest first."""
        x = 2 * x - 1
        for block in self.blocks:
            x = block(x)
            yield x

    def widened(self, levels: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The maps that others see of the blocks' outputs."""
        yield from levels

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Maps of `base · (1, 2, 4, 8)` channels, finest first."""
        return self.widened(self.levels(x))

    def code(self, x: torch.Tensor, deepest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu and logvar of images and the last of their levels."""
        return self.to_code(self.squeeze(deepest))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *_, deepest = self.levels(x)
        return self.code(x, deepest)

    def code_and_maps(
        self, x: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], list[torch.Tensor]]:
        """What `forward` and `maps` give, in one pass."""
        levels = list(self.levels(x))
        return self.code(x, levels[-1]), list(self.widened(levels))


class MobileEncoder(Encoder):
    """Narrow blocks (`mobile_encoder.py`) in place of wide ones, and for `sided` its own sense of sides.

    A linear glance at the whole image gives the code its first value: convolutions alone are slow to
    learn what a linear path does. Its maps are widened by one 1×1 convolution each, which codes do not
    need.
    """

    def __init__(
        self, in_channels: int, latent_dim: int, base: int, image_size: int, *, sided: bool
    ) -> None:
        nn.Module.__init__(self)
        narrow = mobile_widths(base)
        self.blocks = mobile_stages(in_channels, narrow)
        self.heads = nn.ModuleList(
            nn.Conv2d(before, after, 1)
            for before, after in zip(narrow, feature_widths(base), strict=True)
        )
        self.squeeze = squeeze_excitation(narrow[-1])
        self.to_code = ToCode(narrow[-1], latent_dim, image_size, mixed=True)
        self.glance = CoarseLinearHead(in_channels, latent_dim, image_size)
        self.side = Side(image_size) if sided else None

    def code(self, x: torch.Tensor, deepest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = super().code(x, deepest)
        return mu + self.glance(x), logvar

    def init_from_pca(self, linear: PCAPath) -> None:
        """Begin with the codes that a linear path would give if it saw no more than the glance does."""
        self.glance.load_weights(*linear.of_coarse_images(GLANCED_SIZE))
        self.to_code.zero_init()

    def widened(self, levels: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        for head, level in zip(self.heads, levels, strict=True):
            yield head(level)


class Decoder(nn.Module):
    """Codes to the logits of images; `guided` by a first picture, it draws what that lacks."""

    def __init__(
        self, in_channels: int, latent_dim: int, base: int, image_size: int, *, guided: bool
    ) -> None:
        super().__init__()
        widths = feature_widths(base)[::-1]
        self.from_code = FromCode(widths[0], latent_dim, image_size)
        self.squeeze = squeeze_excitation(widths[0])
        self.blocks = nn.ModuleList(UpBlock(before, after) for before, after in pairwise(widths))
        self.from_picture = nn.Conv2d(4 * in_channels, base, 3, padding=1) if guided else None
        self.to_image = ToImage(base, in_channels)

    def forward(self, z: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
        """Codes `(B, latent_dim)`, and the picture `(B, C, S, S)`, to logits `(B, C, S, S)`."""
        x = self.squeeze(self.from_code(z))
        for block in self.blocks:
            x = block(x)
        if self.from_picture is not None:
            assert picture is not None
            x = x + self.from_picture(functional.pixel_unshuffle(2 * picture - 1, 2))
        return self.to_image(x)
