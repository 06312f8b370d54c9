"""From a configuration to its network: the one place that chooses the classes."""

from __future__ import annotations

from earteach.config import ModelConfig
from earteach.model.canonical_side import SideClassifier
from earteach.model.encoder_decoder import AttentionEncoder, Decoder
from earteach.model.mobile_encoder import MobileEncoder
from earteach.model.pca_path import PCAPath
from earteach.model.pca_vae import PCAVAE, ResidualInputPCAVAE, SideClassifierPCAVAE
from earteach.model.vae import ConvVAE


def build_model(config: ModelConfig) -> ConvVAE:
    """The network of a configuration, with random weights; with `pca_init`, before PCA is loaded."""
    if not config.pca_init:
        encoder_class = MobileEncoder if config.encoder == "mobile" else AttentionEncoder
        encoder = encoder_class(config.in_channels, *_shape(config))
        return ConvVAE(encoder, _decoder(config), config)
    pca = PCAPath(config.in_channels, config.latent_dim - 1, config.image_size)
    if config.encoder == "mobile":
        mobile = MobileEncoder(config.in_channels, *_shape(config))
        side = SideClassifier(config.image_size)
        return SideClassifierPCAVAE(mobile, _decoder(config), config, pca, side)
    kind, inputs = (ResidualInputPCAVAE, 2) if config.residual_input else (PCAVAE, 1)
    encoder = AttentionEncoder(inputs * config.in_channels, *_shape(config))
    model = kind(encoder, _decoder(config), config, pca)
    model.encoder.to_code.zero_init()
    model.decoder.to_image.zero_init()
    return model


def _shape(config: ModelConfig) -> tuple[int, int, int]:
    return config.latent_dim, config.base_channels, config.image_size


def _decoder(config: ModelConfig) -> Decoder:
    return Decoder(config.in_channels, *_shape(config), guided=config.pca_init)
