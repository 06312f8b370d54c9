"""diffusers' AutoencoderKL with a code of the same size: an 8×8 grid of latent_dim / 64 channels.

It is the autoencoder of latent diffusion (Rombach et al. 2022, https://arxiv.org/abs/2112.10752).
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch
from torch import nn

from earteach.errors import EarTeachError

SIDE = 8
_WIDTHS = (1, 2, 4, 8)


class KLAutoencoder(nn.Module):
    """Images `(B, 3, S, S)` in [0, 1], S = 8 · 2ᵏ, to `latent_dim` values and back.

    Its widths are base · (1, 2, 4, 8, 8, …), one more than there are halvings.

    Raises `EarTeachError` if diffusers is missing or the sizes do not give such a grid.
    """

    def __init__(self, latent_dim: int, base: int, size: int) -> None:
        super().__init__()
        _check(latent_dim, size)
        from diffusers import AutoencoderKL

        blocks = round(math.log2(size // SIDE)) + 1
        widths = [base * _WIDTHS[min(level, len(_WIDTHS) - 1)] for level in range(blocks)]
        self.code_shape = (latent_dim // SIDE**2, SIDE, SIDE)
        self.net = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            block_out_channels=tuple(widths),
            layers_per_block=1,
            latent_channels=self.code_shape[0],
            norm_num_groups=math.gcd(8, base),
            sample_size=size,
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mu and logvar, float32 `(B, latent_dim)`."""
        posterior = self.net.encode(2 * x - 1).latent_dist
        return posterior.mean.flatten(1).float(), posterior.logvar.flatten(1).float()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Images, float32, in [0, 1] except for overshoots of the linear output."""
        return (self.net.decode(z.reshape(-1, *self.code_shape)).sample.float() + 1) / 2


def _check(latent_dim: int, size: int) -> None:
    if find_spec("diffusers") is None:
        raise EarTeachError(
            "autoencoderkl: needs diffusers; install it with `pip install -e '.[bench]'`, or leave "
            "the model out with --models"
        )
    if latent_dim % SIDE**2:
        raise EarTeachError(
            f"--latent-dim {latent_dim}: autoencoderkl needs a multiple of {SIDE**2}; or leave the "
            "model out with --models"
        )
    if size % SIDE or not math.log2(size // SIDE).is_integer():
        raise EarTeachError(
            f"--image-size {size}: autoencoderkl needs {SIDE} times a power of 2; or leave the model "
            "out with --models"
        )
