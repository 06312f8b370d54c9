"""The variational autoencoder: four attention blocks down to a code, four up from it.

    image (B, C, S, S)
      → DownBlock × 4      maps at strides 2, 4, 8, 16 with base · (1, 2, 4, 8) channels
      → squeeze-excitation → ToCode      mu and logvar, (B, latent_dim)
      → FromCode → squeeze-excitation → UpBlock × 4 → sigmoid

The code keeps its place in the image: it is a small grid of channels, flattened, and not a vector
behind dense layers, which would hold most of the parameters and learn several times more slowly.

With `pca_init` the network begins where eigenears end. A fixed linear path (`PCAPath`) brings every
image to one side, gives the code its first value and draws the first picture; the encoder sees what
that picture lacks and adds to the code, the decoder sees the picture and adds to its logits. Both add
nothing before the first step, when the network is PCA with latent_dim − 1 components.

A student (`encoder="mobile"`) has the decoder of such a network and an encoder of its own, which does
without the linear path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from earteach.config import EncoderKind, ModelConfig
from earteach.model.blocks import feature_widths
from earteach.model.encoder_decoder import Decoder, Encoder, MobileEncoder
from earteach.model.pca_path import PCAPath, PCAWeights, logits, mirrored
from earteach.model.pooled_features import pooled

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
        encoder: EncoderKind = "attention",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_dim = latent_dim
        self.base_channels = base_channels
        self.image_size = image_size
        self.kind = encoder
        self.linear = PCAPath(in_channels, latent_dim, image_size) if pca_init else None
        shape = (latent_dim, base_channels, image_size)
        self.encoder: Encoder
        if encoder == "mobile":
            self.encoder = MobileEncoder(in_channels, *shape, sided=pca_init)
        else:
            self.encoder = Encoder(in_channels * 2 if pca_init else in_channels, *shape)
        self.decoder = Decoder(in_channels, latent_dim, base_channels, image_size, guided=pca_init)
        if pca_init and encoder == "attention":
            self.encoder.to_code.zero_init()
            self.decoder.to_image.zero_init()

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
        return tuple(feature_widths(self.base_channels))

    @property
    def side_dimension(self) -> int | None:
        """The place in the code that says which side an ear looks to, or None."""
        return None if self.linear is None else self.latent_dim - 1

    def init_from_pca(self, weights: PCAWeights, kld_weight: float) -> None:
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
        # The side, last, has a logvar of its own, which replaces the encoder's.
        self.encoder.to_code.begin_logvar(functional.pad(best, (0, 1)))

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
        """mu, logvar and the `pooled` features, from one pass of the encoder.

        Raises `ValueError` for images of another shape.
        """
        seen = self.encode_all(x)
        return *seen.code, pooled(seen.maps)

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
        """The encoder's maps at strides 2, 4, 8 and 16 of images `(B, C, H, W)` in [0, 1].

        They are `(B, base · k, H / stride, W / stride)`, sides rounded up, and lie as the image does,
        whichever side the encoder looked at. Images may have any size; what was learned is about ears
        that fill an image of the network's own. Raises `ValueError` for other channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; this network takes (B, {self.in_channels}, H, W)"
            )
        if self.linear is None:
            return list(self.encoder.maps(x))
        seen, _, faces = self._seen(x, self.linear)
        return [mirrored(level, ~faces) for level in self.encoder.maps(seen)]

    def encode_all(self, x: torch.Tensor, faces: torch.Tensor | None = None) -> EncoderOutput:
        """What `encode` and `features` give, in one pass.

        `faces` (bool, `(B,)`) says for each image whether it looks to the network's own side; left
        out, the network decides.
        """
        self._check(x)
        if self.linear is None:
            return EncoderOutput(*self.encoder.code_and_maps(x), None)
        seen, linear, faces = self._seen(x, self.linear, faces)
        code, maps = self.encoder.code_and_maps(seen)
        lying = [mirrored(level, ~faces) for level in maps]
        return EncoderOutput(_with_side(code, linear, faces), lying, faces)

    def side_logits(self, x: torch.Tensor) -> torch.Tensor | None:
        """What a mobile encoder thinks of the side, `(B,)`; positive for the network's own."""
        return None if self.encoder.side is None else self.encoder.side(x)

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
        self, x: torch.Tensor, linear: PCAPath, faces: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the encoder sees, the image on its side and what the linear path misses of it; the
        linear code `(B, latent_dim − 1)`; and whether the image looked to that side, `(B,)`.

        A mobile encoder sees the image alone, and there is nothing to add its code to.
        """
        small = _scaled(x, (self.image_size, self.image_size))
        if self.encoder.side is not None:
            faces = self.encoder.side(small) >= 0 if faces is None else faces
            return mirrored(x, ~faces), torch.zeros((), device=x.device), faces
        assert faces is None, "the linear path decides"
        code, faces = linear.encode(small)
        x = mirrored(x, ~faces)
        # Centred like an image, which the stem takes from [0, 1] to [−1, 1].
        missed = x - _scaled(linear.decode(code), (x.shape[2], x.shape[3])) + 0.5
        return torch.cat([x, missed], dim=1), code, faces

    def _check(self, x: torch.Tensor) -> None:
        wanted = (self.in_channels, self.image_size, self.image_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"images have shape {tuple(x.shape)}; this network takes (B, {wanted[0]}, "
                f"{wanted[1]}, {wanted[2]})"
            )


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder makes of images: mu and logvar, its maps, and whether each image looks to the
    network's own side (bool `(B,)`, None where the network knows no sides)."""

    code: tuple[torch.Tensor, torch.Tensor]
    maps: list[torch.Tensor]
    faces: torch.Tensor | None


def _with_side(
    code: tuple[torch.Tensor, torch.Tensor], linear: torch.Tensor, faces: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """mu and logvar with the linear code added, and with the side in the last number."""
    mu, logvar = code
    side = torch.where(faces, 1.0, -1.0)[:, None]
    mu = torch.cat([mu[:, :-1] + linear, side], dim=1)
    return mu, torch.cat([logvar[:, :-1], torch.full_like(side, _SIDE_LOGVAR)], dim=1)


def _scaled(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if (x.shape[2], x.shape[3]) == size:
        return x
    return functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def reparameterise(mu: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """mu + sigma · noise (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114)."""
    return mu + torch.exp(0.5 * logvar) * noise
