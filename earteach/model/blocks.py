"""The blocks of encoders and decoders: attention blocks, and the layers into a code and out of it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from earteach.model.attention import ChannelSpatialAttention
from earteach.model.convolution import NormSiLUConv, group_norm
from earteach.model.torchvision_layers import SqueezeExcitation

STRIDES = (2, 4, 8, 16)
_WIDTHS = (1, 2, 4, 8)
_FINEST_GRID = 4
_NECK = 64
# A posterior that is narrow from the start: at log-variance 0 the noise would drown the code.
_FIRST_LOGVAR = -4.0
_LOGVAR_RANGE = (-20.0, 10.0)


class AttentionBlock(nn.Module):
    """A pre-activation residual block with channel-spatial attention on its branch.

    The branch has half the channels in its middle, which takes a quarter less time per image and learns
    as much in the same time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(1, channels // 2)
        self.branch = nn.Sequential(
            NormSiLUConv(channels, middle),
            NormSiLUConv(middle, channels),
            ChannelSpatialAttention(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


class DownBlock(nn.Sequential):
    """Halves the side with a strided convolution, then attends."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            AttentionBlock(after),
        )


class UpBlock(nn.Sequential):
    """Attends, then doubles the side by nearest neighbour, which leaves no checkerboard.

    A 1×1 convolution before it mixes the channels: a 3×3 one after it would cost as much as the rest of
    the block, and the next block convolves anyway.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            AttentionBlock(before),
            nn.Conv2d(before, after, 1),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )


class ToImage(nn.Sequential):
    """Attends, then doubles the side by pixel shuffle (Shi et al. 2016, https://arxiv.org/abs/1609.05158).

    Convolutions at the image's full size would take a third of the network's time.
    """

    def __init__(self, channels: int, in_channels: int) -> None:
        super().__init__(
            AttentionBlock(channels),
            NormSiLUConv(channels, 4 * in_channels),
            nn.PixelShuffle(2),
        )

    def zero_init(self) -> None:
        """Start from zero."""
        last = self[-2]
        assert isinstance(last, NormSiLUConv)
        assert last.conv.bias is not None
        nn.init.zeros_(last.conv.weight)
        nn.init.zeros_(last.conv.bias)


class ToCode(nn.Module):
    """The deepest map `(B, channels, side, side)` to mu and logvar `(B, latent_dim)`, float32.

    `mixed` adds a dense layer over all places to mu: few narrow blocks do not see the whole image.
    """

    def __init__(
        self, channels: int, latent_dim: int, image_size: int, *, mixed: bool = False
    ) -> None:
        super().__init__()
        grid = code_grid(latent_dim, image_size)
        self.patch = patch = image_size // STRIDES[-1] // grid
        depth = latent_dim // grid**2
        self.neck = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, _NECK, 1))
        self.mu = nn.Conv2d(_NECK, depth, patch, stride=patch)
        self.mix = nn.Linear(_NECK * grid**2, latent_dim, bias=False) if mixed else None
        self.logvar = nn.Conv2d(_NECK, depth, patch, stride=patch, bias=False)
        self.first_logvar = nn.Parameter(torch.full((latent_dim,), _FIRST_LOGVAR))
        nn.init.zeros_(self.logvar.weight)

    def zero_init(self) -> None:
        """Start from a mu of zero."""
        assert self.mu.bias is not None
        nn.init.zeros_(self.mu.weight)
        nn.init.zeros_(self.mu.bias)
        if self.mix is not None:
            nn.init.zeros_(self.mix.weight)

    def init_logvar(self, logvar: torch.Tensor) -> None:
        """Start from this logvar, `(latent_dim,)`."""
        with torch.no_grad():
            self.first_logvar.copy_(logvar)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.neck(x)
        mu = self.mu(x).flatten(1).float()
        if self.mix is not None:
            mu = mu + self.mix(functional.avg_pool2d(x, self.patch).flatten(1)).float()
        logvar = self.logvar(x).flatten(1).float() + self.first_logvar
        return mu, logvar.clamp(*_LOGVAR_RANGE)


class FromCode(nn.Module):
    """Codes `(B, latent_dim)` to the decoder's first map `(B, channels, side, side)`."""

    def __init__(self, channels: int, latent_dim: int, image_size: int) -> None:
        super().__init__()
        grid = code_grid(latent_dim, image_size)
        patch = image_size // STRIDES[-1] // grid
        self.code_shape = (latent_dim // grid**2, grid, grid)
        self.neck = nn.ConvTranspose2d(self.code_shape[0], _NECK, patch, stride=patch)
        self.widen = nn.Conv2d(_NECK, channels, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.widen(self.neck(z.reshape(-1, *self.code_shape)))


def feature_widths(base: int) -> list[int]:
    """The channels of the feature maps, finest first."""
    return [base * width for width in _WIDTHS]


def code_grid(latent_dim: int, image_size: int) -> int:
    """The side of the code's grid: the largest up to 4 that divides both deepest map and code."""
    side = image_size // STRIDES[-1]
    return max(
        grid
        for grid in range(1, _FINEST_GRID + 1)
        if side % grid == 0 and latent_dim % grid**2 == 0
    )


def squeeze_excitation(channels: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, max(4, channels // 16), activation=nn.SiLU)
