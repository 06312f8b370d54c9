"""The variational autoencoder: four attention blocks down to a code, four up from it.

    image (B, C, S, S)
      → DownBlock × 4      maps at strides 2, 4, 8, 16 with base · (1, 2, 4, 8) channels
      → squeeze-excitation → ToCode      mu and logvar, (B, latent_dim)
      → FromCode → squeeze-excitation → UpBlock × 4 → sigmoid

The code keeps its place in the image: it is a small grid of channels, flattened, and not a vector
behind dense layers, which would hold most of the parameters and learn several times more slowly.

With `pca_init` the network begins where eigenears end. A fixed linear path (`LinearPath`) brings every
image to one side, gives the code its first value and draws the first picture; the encoder sees what
that picture lacks and adds to the code, the decoder sees the picture and adds to its logits. Both add
nothing before the first step, when the network is PCA with latent_dim − 1 components.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

from earteach.config import ModelConfig
from earteach.model.attention import ChannelSpatialAttention
from earteach.model.convolution import NormSiLUConv, group_norm
from earteach.model.linear_path import LinearPath, LinearWeights, logits, mirrored

STRIDES = (2, 4, 8, 16)
_WIDTHS = (1, 2, 4, 8)
_FINEST_GRID = 4
_NECK = 64
# A posterior that is narrow from the start: at log-variance 0 the noise would drown the code.
_FIRST_LOGVAR = -4.0
_LOGVAR_RANGE = (-20.0, 10.0)
# Narrow enough that the noise never turns an ear round: ±1 is more than seven sigmas from 0.
_SIDE_LOGVAR = -4.0


class EarVAE(nn.Module):
    """A convolutional VAE of square images whose side is a multiple of 16.

    Nothing in it depends on training or evaluation mode, and no method changes the mode.

    With `pca_init` it treats an ear and its mirror image alike: the code differs in its last number
    only, which is 1 where the ear looks to the network's own side and −1 where its mirror does.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        latent_dim: int = 256,
        base_channels: int = 64,
        image_size: int = 256,
        pca_init: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_dim = latent_dim
        self.base_channels = base_channels
        self.image_size = image_size
        self.linear = LinearPath(in_channels, latent_dim, image_size) if pca_init else None
        self.encoder = Encoder(
            in_channels * 2 if pca_init else in_channels, latent_dim, base_channels, image_size
        )
        self.decoder = Decoder(in_channels, latent_dim, base_channels, image_size, guided=pca_init)
        if pca_init:
            self.encoder.to_code.begin_silent()
            self.decoder.to_image.begin_silent()

    @classmethod
    def from_config(cls, config: ModelConfig) -> EarVAE:
        return cls(**config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EarVAE:
        """The network in a folder as `earteach export --format safetensors` writes it.

        Raises `EarTeachError` where it cannot be read. Nothing is downloaded.
        """
        from earteach.model.pretrained import load_pretrained  # which imports this module

        return load_pretrained(folder)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """The channels of `features`, finest first."""
        return tuple(self.base_channels * width for width in _WIDTHS)

    @property
    def side_dimension(self) -> int | None:
        """The place in the code that says which side an ear looks to, or None."""
        return None if self.linear is None else self.latent_dim - 1

    def begin_with(self, weights: LinearWeights, kld_weight: float) -> None:
        """Become PCA: load the linear path, and start the posterior at the width that suits it.

        `kld_weight` w is the loss's weight of the KLD summed over dimensions, beside the mean squared
        error. Where a unit of a code's variance costs g in squared error summed over the D numbers of
        an image, g s² / D + w (s² − log s²) / 2 is least at s² = w D / (2 g + w D).
        """
        assert self.linear is not None
        self.linear.load_weights(weights)
        weight = kld_weight * self.in_channels * self.image_size**2
        gain = self.linear.noise_gain().clamp(min=1e-9)
        best = torch.log((weight / (2 * gain + weight)).clamp(min=1e-4))
        self.encoder.to_code.begin_logvar(functional.pad(best, (0, 1), value=_SIDE_LOGVAR))

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
        if self.linear is None:
            return self.encoder(x)
        seen, linear, faces = self._seen(x, self.linear)
        return _with_side(self.encoder(seen), linear, faces)

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mu, logvar, and the means of `features` over the image, from one pass of the encoder.

        The means are float32 `(B, 15 · base)`, finest map first. Those of an ear and its mirror image
        are the same. Raises `ValueError` for images of another shape.
        """
        self._check(x)
        if self.linear is None:
            code, means = self.encoder.embed(x)
        else:
            seen, linear, faces = self._seen(x, self.linear)
            code, means = self.encoder.embed(seen)
            code = _with_side(code, linear, faces)
        return *code, means

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(B, latent_dim)` to images `(B, C, S, S)` in (0, 1), float32.

        Raises `ValueError` for codes of another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"codes have shape {tuple(z.shape)}; this network takes (B, {self.latent_dim})"
            )
        if self.linear is None:
            return torch.sigmoid(self.decoder(z).float())
        picture = self.linear.decode(z[:, :-1])
        sideless = functional.pad(z[:, :-1], (0, 1))
        image = torch.sigmoid(logits(picture) + self.decoder(sideless, picture).float())
        return mirrored(image, z[:, -1] < 0)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images to their reconstructions from mu, without noise."""
        return self.decode(self.encode(x)[0])

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The encoder's maps at strides 2, 4, 8 and 16, `(B, base · k, S / stride, S / stride)`.

        They lie as the image does, whichever side the encoder looked at.
        """
        self._check(x)
        if self.linear is None:
            return list(self.encoder.maps(x))
        seen, _, faces = self._seen(x, self.linear)
        return [mirrored(level, ~faces) for level in self.encoder.maps(seen)]

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """New images `(num_samples, C, S, S)`, decoded from the standard normal prior.

        The codes are drawn on the CPU and one by one, so that a seeded `generator` gives the same on
        any device and in any number of calls.
        """
        z = torch.empty(num_samples, self.latent_dim)
        for code in z:
            code.normal_(generator=generator)
        return self.decode(z.to(next(self.parameters()).device))

    def _seen(
        self, x: torch.Tensor, linear: LinearPath
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the encoder sees, the image on its side and what the linear path misses of it; the
        linear code `(B, latent_dim − 1)`; and whether the image looked to that side, `(B,)`."""
        code, faces = linear.encode(x)
        x = mirrored(x, ~faces)
        # Centred like an image, which the stem takes from [0, 1] to [−1, 1].
        missed = x - linear.decode(code) + 0.5
        return torch.cat([x, missed], dim=1), code, faces

    def _check(self, x: torch.Tensor) -> None:
        wanted = (self.in_channels, self.image_size, self.image_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; this network takes (B, {wanted[0]}, "
                f"{wanted[1]}, {wanted[2]})"
            )


def _with_side(
    code: tuple[torch.Tensor, torch.Tensor], linear: torch.Tensor, faces: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """mu and logvar with the linear code added, and with the side in the last number."""
    mu, logvar = code
    side = torch.where(faces, 1.0, -1.0)[:, None]
    mu = torch.cat([mu[:, :-1] + linear, side], dim=1)
    return mu, torch.cat([logvar[:, :-1], torch.full_like(side, _SIDE_LOGVAR)], dim=1)


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
        self.to_code = ToCode(widths[-1], latent_dim, image_size)

    def maps(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """The blocks' outputs, finest first."""
        x = 2 * x - 1
        for block in self.blocks:
            x = block(x)
            yield x

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *_, deepest = self.maps(x)
        return self.to_code(self.squeeze(deepest))

    def embed(self, x: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """What `forward` gives, and the maps' means over the image, float32 `(B, 15 · base)`."""
        means = []
        for level in self.maps(x):
            means.append(level.float().mean(dim=(2, 3)))
        return self.to_code(self.squeeze(level)), torch.cat(means, dim=1)


class Decoder(nn.Module):
    """Codes to the logits of images; `guided` by a first picture, it draws what that lacks."""

    def __init__(
        self, in_channels: int, latent_dim: int, base: int, image_size: int, *, guided: bool
    ) -> None:
        super().__init__()
        widths = [base * width for width in reversed(_WIDTHS)]
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


class AttentionBlock(nn.Module):
    """A pre-activation residual block with channel-spatial attention on its branch.

    The branch is narrow in its middle: half the channels there cost a quarter less time per image and
    learn as much in the same time.
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
    """Attends, then doubles the side: nearest neighbour leaves no checkerboard.

    Channels are exchanged before it and not by a 3×3 convolution after it, which would cost as much as
    all the rest of the block and teach nothing that the next block's convolutions do not.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            AttentionBlock(before),
            nn.Conv2d(before, after, 1),
            nn.Upsample(scale_factor=2, mode="nearest"),
        )


class ToImage(nn.Sequential):
    """Attends, then doubles the side: four numbers for each pixel of the map become four pixels.

    Convolutions at the image's full size would take a third of the network's time.
    """

    def __init__(self, channels: int, in_channels: int) -> None:
        super().__init__(
            AttentionBlock(channels),
            NormSiLUConv(channels, 4 * in_channels),
            nn.PixelShuffle(2),
        )

    def begin_silent(self) -> None:
        """Give zero until trained."""
        last = self[-2]
        assert isinstance(last, NormSiLUConv)
        assert last.conv.bias is not None
        nn.init.zeros_(last.conv.weight)
        nn.init.zeros_(last.conv.bias)


class ToCode(nn.Module):
    """The deepest map `(B, channels, side, side)` to mu and logvar `(B, latent_dim)`."""

    def __init__(self, channels: int, latent_dim: int, image_size: int) -> None:
        super().__init__()
        grid = code_grid(latent_dim, image_size)
        patch = image_size // STRIDES[-1] // grid
        depth = latent_dim // grid**2
        self.neck = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, _NECK, 1))
        self.mu = nn.Conv2d(_NECK, depth, patch, stride=patch)
        self.logvar = nn.Conv2d(_NECK, depth, patch, stride=patch, bias=False)
        self.first_logvar = nn.Parameter(torch.full((latent_dim,), _FIRST_LOGVAR))
        nn.init.zeros_(self.logvar.weight)

    def begin_silent(self) -> None:
        """Give a mu of zero until trained."""
        assert self.mu.bias is not None
        nn.init.zeros_(self.mu.weight)
        nn.init.zeros_(self.mu.bias)

    def begin_logvar(self, logvar: torch.Tensor) -> None:
        """Give this logvar, `(latent_dim,)`, until trained."""
        with torch.no_grad():
            self.first_logvar.copy_(logvar)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.neck(x)
        mu = self.mu(x).flatten(1).float()
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


def code_grid(latent_dim: int, image_size: int) -> int:
    """The side of the code's grid: the largest up to 4 that divides the deepest map and the code."""
    side = image_size // STRIDES[-1]
    return max(
        grid
        for grid in range(1, _FINEST_GRID + 1)
        if side % grid == 0 and latent_dim % grid**2 == 0
    )


def squeeze_excitation(channels: int) -> SqueezeExcitation:
    return SqueezeExcitation(channels, max(4, channels // 16), activation=nn.SiLU)
