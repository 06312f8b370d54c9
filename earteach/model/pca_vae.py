"""The VAE that begins as PCA and learns what PCA leaves over.

    image → canonical side → PCA code ─────────────(+)→ code → PCA picture ─→ logit ─(+)→ sigmoid → image
                   │                                ↑     │         │                 ↑     (turned back)
                   └───────────────────→ encoder ───┘     └────→ decoder ─────────────┘

Encoder and decoder add nothing before the first step, when the network is PCA with latent_dim − 1
components. Its last latent dimension is the ear's side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from earteach.config import ModelConfig
from earteach.model.canonical_side import SideClassifier, mirrored, side_by_residual, with_side
from earteach.model.encoder_decoder import Decoder, Encoder
from earteach.model.pca_path import PCAPath, logits
from earteach.model.vae import ConvVAE, EncoderOutput, check_shape


@dataclass(frozen=True)
class CanonicalView:
    """Images turned to the canonical side, as the encoder takes them."""

    encoder_input: torch.Tensor  # (B, C, H, W); with a `ResidualInputPCAVAE` (B, 2 · C, H, W)
    pca_code: torch.Tensor  # (B, D − 1), or a zero of no shape
    is_canonical: torch.Tensor  # bool (B,), of the images as they were


class PCAVAE(ConvVAE):
    """A `ConvVAE` around a fixed `PCAPath`; it treats an ear and its mirror image alike.

    Their codes differ in the last dimension only, +1 or −1, and their features are mirror images.
    """

    def __init__(
        self, encoder: Encoder, decoder: Decoder, config: ModelConfig, pca: PCAPath
    ) -> None:
        super().__init__(encoder, decoder, config)
        self.pca = pca

    def encode_all(self, x: torch.Tensor, *, maps: bool = True) -> EncoderOutput:
        check_shape("images", x, self.in_channels, self.image_size, self.image_size)
        return self._encode_view(self.canonical_view(x), maps)

    def _encode_view(self, view: CanonicalView, maps: bool = True) -> EncoderOutput:
        output = self._encode(view.encoder_input, maps)
        # The encoder's own last dimension gives way to the side.
        mu, logvar = output.mu[:, :-1] + view.pca_code, output.logvar[:, :-1]
        code = with_side(mu, logvar, view.is_canonical)
        return EncoderOutput(*code, _turned_back(output.maps, view), view.is_canonical)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """As `ConvVAE.features`; the maps lie as the images do, whichever way the ear faces."""
        check_shape("images", x, self.in_channels, "H", "W")
        view = self.canonical_view(x)
        return _turned_back(self.encoder.maps(self.encoder(view.encoder_input)), view)

    def features_beside(self, shown: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        view, count = self.canonical_view(x), len(shown)
        maps = super().features_beside(shown, view.encoder_input)
        turned = _turned_back([level[count:] for level in maps], view)
        return [torch.cat([a[:count], b]) for a, b in zip(maps, turned, strict=True)]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        check_shape("codes", z, self.latent_dim)
        code, side = z[:, :-1], z[:, -1]
        picture = self.pca.decode(code)
        # The side's dimension stays, as zero, so that the code fills its grid.
        residual = self.decoder(functional.pad(code, (0, 1)), picture).float()
        return mirrored(torch.sigmoid(logits(picture) + residual), side < 0)

    def canonical_view(self, x: torch.Tensor) -> CanonicalView:
        """The images on their canonical side, which PCA decides."""
        is_canonical, code = side_by_residual(self._at_own_size(x), self.pca)
        return CanonicalView(mirrored(x, ~is_canonical), code, is_canonical)

    def _at_own_size(self, x: torch.Tensor) -> torch.Tensor:
        return resized(x, torch.Size([self.image_size, self.image_size]))


class ResidualInputPCAVAE(PCAVAE):
    """A `PCAVAE` of version 1, whose encoder also sees what PCA leaves of the image."""

    def canonical_view(self, x: torch.Tensor) -> CanonicalView:
        view = super().canonical_view(x)
        image = view.encoder_input
        # Centred as an image is: the encoder maps [0, 1] to [−1, 1].
        residual = image - resized(self.pca.decode(view.pca_code), x.shape[2:]) + 0.5
        return replace(view, encoder_input=torch.cat([image, residual], dim=1))


class SideClassifierPCAVAE(PCAVAE):
    """A `PCAVAE` whose encoder does without PCA: a small network decides the side."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        config: ModelConfig,
        pca: PCAPath,
        side: SideClassifier,
    ) -> None:
        super().__init__(encoder, decoder, config, pca)
        self.side = side

    def canonical_view(self, x: torch.Tensor) -> CanonicalView:
        return self._view_from(x, self.side(self._at_own_size(x)) >= 0)

    def encode_from_side(self, x: torch.Tensor, is_canonical: torch.Tensor) -> EncoderOutput:
        """As `encode_all`, with the sides given, bool `(B,)`."""
        check_shape("images", x, self.in_channels, self.image_size, self.image_size)
        return self._encode_view(self._view_from(x, is_canonical))

    def _view_from(self, x: torch.Tensor, is_canonical: torch.Tensor) -> CanonicalView:
        no_code = torch.zeros((), device=x.device)
        return CanonicalView(mirrored(x, ~is_canonical), no_code, is_canonical)


def _turned_back(maps: list[torch.Tensor], view: CanonicalView) -> list[torch.Tensor]:
    return [mirrored(level, ~view.is_canonical) for level in maps]


def resized(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Images `(B, C, H, W)` at another size, bilinear with antialiasing."""
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
