"""What `eval`, `reconstruct` and `embed` ask of a network, by itself, on images already in memory."""

from __future__ import annotations

import torch

from earteach.model.vae import EarVAE


def eval_passes(network: EarVAE, images: torch.Tensor, batch_size: int) -> None:
    """Encode once, decode mu, decode a noisy code."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in torch.split(images, batch_size):
            mu, logvar = network.encode(batch)
            network.decode(mu)
            network.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))


def reconstruct_passes(network: EarVAE, images: torch.Tensor, batch_size: int) -> None:
    """Encode, and decode mu."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in torch.split(images, batch_size):
            network.decode(network.encode(batch)[0])


def embed_passes(network: EarVAE, images: torch.Tensor, batch_size: int) -> None:
    """Encode."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for batch in torch.split(images, batch_size):
            network.encode(batch)
