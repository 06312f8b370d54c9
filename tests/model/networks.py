"""Tiny networks for tests: as they are made, or as training would have left them."""

from __future__ import annotations

import torch

from earteach.model.pca_path import PCAWeights
from earteach.model.vae import EarVAE

SHAPES = [
    # image_size, latent_dim, base_channels, in_channels
    (32, 16, 8, 3),
    (32, 1, 4, 1),
    (32, 7, 3, 3),
    (48, 100, 5, 3),
    (64, 255, 4, 1),
    (64, 256, 8, 3),
    (144, 12, 2, 3),
    (144, 7, 1, 1),
]


def network(
    image_size: int = 32,
    latent_dim: int = 16,
    base_channels: int = 8,
    in_channels: int = 3,
    *,
    pca_init: bool = True,
) -> EarVAE:
    torch.manual_seed(0)
    return EarVAE(
        in_channels=in_channels,
        latent_dim=latent_dim,
        base_channels=base_channels,
        image_size=image_size,
        pca_init=pca_init,
    )


def random_weights(model: EarVAE, seed: int = 0) -> PCAWeights:
    """Weights of no particular images whose pictures are neither flat nor clipped."""
    assert model.linear is not None
    generator = torch.Generator().manual_seed(seed)
    count, dimensions = model.latent_dim - 1, model.linear.mean.numel()
    components, _ = torch.linalg.qr(torch.randn(dimensions, count, generator=generator))
    rotation, _ = torch.linalg.qr(torch.randn(count, count, generator=generator))
    # Pixels vary by 0.1 around a mean that is no symmetric image.
    shares = 1 / torch.arange(1, count + 1)
    return PCAWeights(
        mean=0.4 + 0.2 * torch.rand(dimensions, generator=generator),
        components=components.T.contiguous(),
        variances=0.01 * dimensions * shares / shares.sum(),
        rotation=rotation,
    )


def lively(*shape: int, pca_init: bool = True) -> EarVAE:
    """A network all of whose paths do something, also those that begin at zero."""
    model = network(*shape, pca_init=pca_init)
    if pca_init:
        model.init_from_pca(random_weights(model), 1e-4)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
