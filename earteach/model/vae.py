"""The variational autoencoder: four attention blocks down to a code, four up from it.

    image (B, C, S, S)
      → stem, DownBlock × 4      maps at strides 2, 4, 8, 16 with base · (1, 2, 4, 8) channels
      → squeeze-excitation → ToCode      mu and logvar, (B, latent_dim)
      → FromCode → squeeze-excitation → UpBlock × 4 → sigmoid

The code keeps its place in the image: it is a small grid of channels, flattened, and not a vector
behind dense layers, which would hold most of the parameters and learn several times more slowly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

from earteach.config import ModelConfig
from earteach.model.attention import ChannelSpatialAttention

STRIDES = (2, 4, 8, 16)
_WIDTHS = (1, 2, 4, 8)
_FINEST_GRID = 4
_NECK = 64
# A posterior that is narrow from the start: at log-variance 0 the noise would drown the code.
_FIRST_LOGVAR = -4.0
_LOGVAR_RANGE = (-20.0, 10.0)


class EarVAE(nn.Module):
    """A convolutional VAE of square images whose side is a multiple of 16.

    Nothing in it depends on training or evaluation mode, and no method changes the mode.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        latent_dim: int = 256,
        base_channels: int = 64,
        image_size: int = 256,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_dim = latent_dim
        self.base_channels = base_channels
        self.image_size = image_size
        self.encoder = Encoder(in_channels, latent_dim, base_channels, image_size)
        self.decoder = Decoder(in_channels, latent_dim, base_channels, image_size)

    @classmethod
    def from_config(cls, config: ModelConfig) -> EarVAE:
        return cls(**config.to_dict())

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction `(B, C, S, S)` in [0, 1], mu and logvar, for standard normal `noise`."""
        mu, logvar = self.encode(x)
        return self.decode(reparameterise(mu, logvar, noise)), mu, logvar

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B, C, S, S)` in [0, 1] to mu and logvar, float32 `(B, latent_dim)`.

        Raises `ValueError` for images of another shape.
        """
        self._check(x)
        return self.encoder(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(B, latent_dim)` to images `(B, C, S, S)` in (0, 1), float32.

        Raises `ValueError` for codes of another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"codes have shape {tuple(z.shape)}; this network takes (B, {self.latent_dim})"
            )
        return torch.sigmoid(self.decoder(z).float())

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images to their reconstructions from mu, without noise."""
        return self.decode(self.encode(x)[0])

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's maps at strides 2, 4, 8 and 16, `(B, base · k, S / stride, S / stride)`."""
        self._check(x)
        return list(self.encoder.maps(x))

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """New images `(num_samples, C, S, S)`, decoded from the standard normal prior.

        The codes are drawn on the CPU and one by one, so that a seeded `generator` gives the same on
        any device and in any number of calls.
        """
        z = torch.empty(num_samples, self.latent_dim)
        for code in z:
            code.normal_(generator=generator)
        return self.decode(z.to(next(self.parameters()).device))

    def _check(self, x: torch.Tensor) -> None:
        wanted = (self.in_channels, self.image_size, self.image_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; this network takes (B, {wanted[0]}, "
                f"{wanted[1]}, {wanted[2]})"
            )


def reparameterise(mu: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """mu + sigma · noise (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114)."""
    return mu + torch.exp(0.5 * logvar) * noise


class Encoder(nn.Module):
    """Images to the two parameters of the posterior."""

    def __init__(self, in_channels: int, latent_dim: int, base: int, image_size: int) -> None:
        super().__init__()
        widths = [base * width for width in _WIDTHS]
        self.blocks = nn.ModuleList(
            DownBlock(before, after)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.squeeze = squeeze_excitation(widths[-1])
        self.to_code = ToCode(widths[-1], latent_dim, image_size // STRIDES[-1])

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """The blocks' outputs, finest first."""
        x = 2 * x - 1
        for block in self.blocks:
            x = block(x)
            yield x

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *_, deepest = self.maps(x)
        return self.to_code(self.squeeze(deepest))


class Decoder(nn.Module):
    """Codes to the logits of images."""

    def __init__(self, in_channels: int, latent_dim: int, base: int, image_size: int) -> None:
        super().__init__()
        widths = [base * width for width in reversed(_WIDTHS)]
        self.from_code = FromCode(widths[0], latent_dim, image_size // STRIDES[-1])
        self.squeeze = squeeze_excitation(widths[0])
        self.blocks = nn.ModuleList(
            UpBlock(before, after)
            for before, after in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.to_image = nn.Sequential(
            group_norm(base), nn.SiLU(), nn.Conv2d(base, in_channels, 3, padding=1)
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(self.from_code(z))
        for block in self.blocks:
            x = block(x)
        return self.to_image(x)


class AttentionBlock(nn.Module):
    """A pre-activation residual block with channel-spatial attention on its branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
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


class UpBlock(nn.Module):
    """Attends, then doubles the side: nearest neighbour and a convolution leave no checkerboard."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.attend = AttentionBlock(before)
        self.conv = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(self.attend(x), scale_factor=2, mode="nearest")
        return self.conv(x)


class ToCode(nn.Module):
    """The deepest map `(B, channels, side, side)` to mu and logvar `(B, latent_dim)`."""

    def __init__(self, channels: int, latent_dim: int, side: int) -> None:
        super().__init__()
        grid = code_grid(latent_dim, side)
        patch = side // grid
        depth = latent_dim // grid**2
        self.neck = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, _NECK, 1))
        self.mu = nn.Conv2d(_NECK, depth, patch, stride=patch)
        self.logvar = nn.Conv2d(_NECK, depth, patch, stride=patch)
        nn.init.zeros_(self.logvar.weight)
        nn.init.constant_(self.logvar.bias, _FIRST_LOGVAR)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.neck(x)
        mu, logvar = self.mu(x).flatten(1).float(), self.logvar(x).flatten(1).float()
        return mu, logvar.clamp(*_LOGVAR_RANGE)


class FromCode(nn.Module):
    """Codes `(B, latent_dim)` to the decoder's first map `(B, channels, side, side)`."""

    def __init__(self, channels: int, latent_dim: int, side: int) -> None:
        super().__init__()
        grid = code_grid(latent_dim, side)
        patch = side // grid
        self.code_shape = (latent_dim // grid**2, grid, grid)
        self.neck = nn.ConvTranspose2d(self.code_shape[0], _NECK, patch, stride=patch)
        self.widen = nn.Conv2d(_NECK, channels, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.widen(self.neck(z.reshape(-1, *self.code_shape)))


def code_grid(latent_dim: int, side: int) -> int:
    """The side of the code's grid: the largest up to 4 that divides the map and the code."""
    return max(
        grid
        for grid in range(1, _FINEST_GRID + 1)
        if side % grid == 0 and latent_dim % grid**2 == 0
    )


def squeeze_excitation(channels: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, max(4, channels // 16), activation=nn.SiLU)


def group_norm(channels: int) -> nn.GroupNorm:
    """Eight groups where the channels allow it; unlike BatchNorm the same in training and use."""
    return nn.GroupNorm(math.gcd(8, channels), channels)
