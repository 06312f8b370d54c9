"""A convolutional variational autoencoder (Kingma and Welling 2014, https://arxiv.org/abs/1312.6114).

image (B, C, S, S) → encoder → mu, logvar (B, D) → z = mu + sigma · noise → decoder → image
                        └→ maps at strides 2, 4, 8 and 16
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from earteach.config import ModelConfig
from earteach.errors import EarTeachError
from earteach.model.blocks import feature_widths
from earteach.model.encoder_decoder import Decoder, Encoder
from earteach.model.feature_pyramid import FeaturePyramid
from earteach.model.landmark_head import LandmarkHead, Landmarks, places_in
from earteach.model.pooled_features import pooled


@dataclass(frozen=True)
class EncoderOutput:
    """What one pass of the encoder gives."""

    mu: torch.Tensor  # (B, D), float32
    logvar: torch.Tensor  # (B, D), float32
    maps: list[torch.Tensor]  # (B, base · 2^i, S / 2^(i+1), S / 2^(i+1)), finest first
    is_canonical: torch.Tensor | None = None  # bool (B,); None in a network without sides


class ConvVAE(nn.Module):
    """A VAE of square images whose side is a multiple of 16.

    No method depends on training or evaluation mode, changes the mode, or needs contiguous input.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.image_size = config.in_channels, config.image_size
        self.latent_dim, self.base_channels = config.latent_dim, config.base_channels
        # Of the maps that `features` gives, finest first.
        self.feature_channels = tuple(feature_widths(config.base_channels))
        # The latent dimension that holds the ear's side.
        self.side_dimension = config.latent_dim - 1 if config.pca_init else None
        self.encoder = encoder
        self.decoder = decoder
        self.pyramid = (
            FeaturePyramid(feature_widths(config.base_channels), config.pyramid_channels)
            if config.pyramid_channels
            else None
        )
        self.landmark_head = (
            LandmarkHead(config.pyramid_channels, config.landmarks)
            if config.pyramid_channels and config.landmarks
            else None
        )

    def encode_all(self, x: torch.Tensor, *, maps: bool = True) -> EncoderOutput:
        """The posterior and, with `maps`, the feature maps of images `(B, C, S, S)` in [0, 1].

        Raises `ValueError` for images of another shape.
        """
        check_shape("images", x, self.in_channels, self.image_size, self.image_size)
        return self._encode(x, maps)

    def _encode(self, x: torch.Tensor, maps: bool) -> EncoderOutput:
        levels = self.encoder(x)
        mu, logvar = self.encoder.posterior(x, levels[-1])
        return EncoderOutput(mu, logvar, self.encoder.maps(levels) if maps else [])

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B, C, S, S)` in [0, 1] to mu and logvar, float32 `(B, D)`."""
        output = self.encode_all(x, maps=False)
        return output.mu, output.logvar

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mu, logvar and the `pooled` features, from one pass of the encoder.

        They are pooled from the maps of the trained pyramid, or of the encoder if there is none.
        """
        output = self.encode_all(x)
        maps = output.maps if self.pyramid is None else self.pyramid(output.maps)
        return output.mu, output.logvar, pooled(maps)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps at strides 2, 4, 8 and 16 of images `(B, C, H, W)` in [0, 1] of any size.

        They are `(B, base · k, H / stride, W / stride)` with k = 1, 2, 4, 8, sides rounded up.
        Training shows the encoder images of its own size, each filled by one ear or by four. Raises
        `ValueError` for images with other channels.
        """
        check_shape("images", x, self.in_channels, "H", "W")
        return self.encoder.maps(self.encoder(x))

    def features_beside(self, shown: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps of images `shown` to the encoder as they lie, then the `features` of `x`.

        One pass gives both; they have one size.
        """
        return self.encoder.maps(self.encoder(torch.cat([shown, x])))

    def landmarks(self, x: torch.Tensor) -> Landmarks:
        """The landmarks of images `(B, C, H, W)` in [0, 1], each filled by one ear.

        Raises `EarTeachError` for a network that was trained without them.
        """
        return places_in(self.landmark_heat(x))

    def landmark_heat(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `(B, K, H / 2, W / 2)` of where each landmark is; raises as `landmarks`."""
        if self.landmark_head is None or self.pyramid is None:
            raise EarTeachError(
                "this network finds no landmarks; train one that does with `earteach landmarks --train`"
            )
        heat: torch.Tensor = self.landmark_head(self.pyramid(self.features(x)))
        return heat

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(B, D)` to images `(B, C, S, S)` in (0, 1), float32.

        Raises `ValueError` for codes of another shape.
        """
        check_shape("codes", z, self.latent_dim)
        return torch.sigmoid(self.decoder(z).float())

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction `(B, C, S, S)` in (0, 1), mu and logvar, for standard normal `noise`."""
        mu, logvar = self.encode(x)
        return self.decode(reparameterise(mu, logvar, noise)), mu, logvar

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images to their reconstructions from mu, without noise."""
        return self.decode(self.encode(x)[0])

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """New images `(num_samples, C, S, S)`, decoded from the standard normal prior.

        Codes are drawn on the CPU, one by one, so that a seeded `generator` gives the same images on
        any device and in any number of calls.
        """
        z = torch.empty(num_samples, self.latent_dim)
        for code in z:
            code.normal_(generator=generator)
        return self.decode(z.to(next(self.parameters()).device))


def check_shape(what: str, x: torch.Tensor, *expected: int | str) -> None:
    """Raise `ValueError` if `x` is not `(B, *expected)`; a letter stands for any size."""
    sizes = zip(expected, x.shape[1:], strict=False)
    if x.ndim != 1 + len(expected) or any(n != size for n, size in sizes if isinstance(n, int)):
        raise ValueError(
            f"{what} have shape {tuple(x.shape)}; this network takes (B, "
            f"{', '.join(map(str, expected))})"
        )


def reparameterise(mu: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """mu + sigma · noise, `(B, D)`."""
    return mu + torch.exp(0.5 * logvar) * noise


EarVAE = ConvVAE  # the public name of whatever `build_model` returns
