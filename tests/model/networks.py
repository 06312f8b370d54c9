"""Tiny networks for tests: as they are built, or as training would leave them."""

from __future__ import annotations

import torch

from earteach.config import ModelConfig
from earteach.model.build import build_model
from earteach.model.pca_path import PCAWeights
from earteach.model.pca_vae import PCAVAE
from earteach.model.vae import ConvVAE
from earteach.training.pca_init import init_from_pca

SHAPES = [
    # image_size, latent_dim, base_channels, in_channels
    (32, 16, 8, 3),
    (32, 2, 4, 1),
    (32, 7, 3, 3),
    (48, 100, 5, 3),
    (64, 255, 4, 1),
    (144, 12, 2, 3),
]
# The four networks that a configuration can name.
KINDS = {
    "pca": {"pca_init": True, "encoder": "attention"},
    "plain": {"pca_init": False, "encoder": "attention"},
    "pca-mobile": {"pca_init": True, "encoder": "mobile"},
    "plain-mobile": {"pca_init": False, "encoder": "mobile"},
}


def network(
    image_size: int = 32,
    latent_dim: int = 16,
    base_channels: int = 8,
    in_channels: int = 3,
    *,
    pca_init: bool = True,
    encoder: str = "attention",
    **more: object,
) -> ConvVAE:
    torch.manual_seed(0)
    return build_model(ModelConfig(
        in_channels=in_channels, latent_dim=latent_dim, base_channels=base_channels,
        image_size=image_size, pca_init=pca_init, encoder=encoder, **more,
    ))  # fmt: skip


def random_weights(model: ConvVAE, seed: int = 0) -> PCAWeights:
    """PCA weights whose pictures are neither flat nor clipped."""
    assert isinstance(model, PCAVAE)
    generator = torch.Generator().manual_seed(seed)
    count, dimensions = model.latent_dim - 1, model.pca.mean.numel()
    components, _ = torch.linalg.qr(torch.randn(dimensions, count, generator=generator))
    rotation, _ = torch.linalg.qr(torch.randn(count, count, generator=generator))
    # Pixels vary by 0.1 around a mean that is not symmetric.
    shares = 1 / torch.arange(1, count + 1)
    return PCAWeights(
        mean=0.4 + 0.2 * torch.rand(dimensions, generator=generator),
        components=components.T.contiguous(),
        variances=0.01 * dimensions * shares / shares.sum(),
        rotation=rotation,
    )


def pca_network(*shape: int, encoder: str = "attention", **more: object) -> PCAVAE:
    """A network that has just been initialised as PCA."""
    model = network(*shape, encoder=encoder, **more)
    assert isinstance(model, PCAVAE)
    init_from_pca(model, random_weights(model), 1e-4)
    return model


def lively(
    *shape: int, pca_init: bool = True, encoder: str = "attention", **more: object
) -> ConvVAE:
    """A network in which no weight tensor is zero, so that every path contributes."""
    if pca_init:
        model: ConvVAE = pca_network(*shape, encoder=encoder, **more)
    else:
        model = network(*shape, pca_init=False, encoder=encoder, **more)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images_for(model: ConvVAE, number: int = 6, seed: int = 1) -> torch.Tensor:
    shape = (number, model.in_channels, model.image_size, model.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
